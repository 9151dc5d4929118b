"""cydrop against NumPy: dropout, ReLU, a training step, and an epoch on real digits.

    python bench/vs_numpy.py [--json FILE] [--plot FILE.png] [--quick] [--threads N]

What is compared, and how:

* NumPy gets its usual recipes *and* the fastest versions we could write: one random byte or bit an element,
  lookup tables, chunks that stay in the cache, no allocations. Every candidate is a function below; each is
  checked first, and the fastest on this machine is chosen at run time and named. Know a faster one? Add it.
* The two usual dropout recipes return what they allocate; only the others fill a given `out`.
* Competitors take turns (A B A B ...) in one process, after a warm-up: medians, quartiles, ratios of medians.
* One thread each, NumPy's BLAS included (where it is an OpenBLAS, which can be told so). More threads come
  last, in blocks of their own.
* In the training loops both do the same arithmetic, except that cydrop also computes loss and accuracy.

One random byte an element rounds the rate to a multiple of 1/256. The candidates that round are kept apart
from those that do not: these round down and top up, or draw more bits.
"""

import argparse
import ctypes
import functools
import gc
import importlib.util
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Call = Callable[[], Any]
Source = Callable[[int], Bytes]  # count -> random bytes, valid until the next call
Fill = Callable[[Floats], None]  # fills an array with 1 / keep where kept, 0 where dropped
Unary = Callable[[Floats, Floats], Any]  # (x, out)
MakeUnary = Callable[[int, float, Source], Unary]  # (size, rate, source)
Binary = Callable[[Floats, Floats, Floats], Any]  # (dy, x, out)
Times = dict[str, list[float]]  # label -> seconds a call, one a turn

SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # hold NumPy's products back where they are set
CHUNK = 2**17  # elements a chunked candidate works on at a time: its buffers stay in the second cache
SPAN = 2**20  # elements that are topped up at a time
BUFFER = 2**17  # bytes a source draws at a time
TURN = 2e-3  # seconds: short calls are repeated within a turn until they take about this long
LONGEST = 12.0  # seconds: a table ends after this long, once it has five turns
NOISY = 0.25  # a spread between the quartiles of more than this part of the median is marked
RATES = (0.5, 0.3)
ADAM = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
CYDROP, KERNEL = "cydrop: {}", "cydrop: {} (the compiled kernel alone)"


def main() -> None:
    options = parse_arguments()
    leave_slowing_variables()
    started = time.perf_counter()
    threads = options.threads or cydrop_threads()
    repeats = 7 if options.quick else 21
    report: dict[str, Any] = {"machine": describe_machine(), "repeats": repeats, "sections": []}
    print_machine(report["machine"])

    all_blas_threads = blas_threads()
    use_blas_threads(1)
    source_name, source, report["random_bytes"] = choose_source()
    print(f"\nFastest source of random bytes, of {len(report['random_bytes'])}: {source_name}")
    for rate in RATES:
        check_dropouts(rate, source)
    check_relus()
    print("Checked: every candidate drops the right share, scales the rest, draws afresh at each call.")
    print_key()

    dropouts = {}
    for exponent in (16, 20) if options.quick else (16, 20, 24):
        for rate in RATES:
            turns = repeats if exponent < 24 else max(repeats - 6, 5)
            dropouts[exponent, rate] = compare_dropout(report, exponent, rate, source, turns)
    compare_backward(report, 20, 0.3, repeats)
    compare_relu(report, 20, repeats)
    compare_relu_backward(report, 20, repeats)
    step = compare_training(report, STEPS, source, repeats)
    epoch = compare_training(report, DIGITS, source, repeats)
    if threads > 1:
        compare_threads(report, dropouts, [step, epoch], source, all_blas_threads, threads, repeats)

    report["seconds"] = round(time.perf_counter() - started, 1)
    print(f"\n{report['seconds']:.0f} seconds in all.")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        print(f"Figures written to {options.json}")
    if options.plot:
        draw_plot(report, options.plot)
        print(f"Chart written to {options.plot}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="cydrop against NumPy: dropout, ReLU, training.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, machine and versions")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the ratios (needs matplotlib)")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no arrays of 2^24")
    parser.add_argument("--threads", type=int, metavar="N", help="of the last tables (default: all)")
    options = parser.parse_args()
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.exit(2, '--plot needs matplotlib: pip install "cydrop[bench]"\n')
    for path in (options.json, options.plot):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"there is no folder {path.absolute().parent}")
    if importlib.util.find_spec("cydrop") is None:
        parser.exit(2, "cydrop is not installed: pip install cydrop\n")
    return options


def leave_slowing_variables() -> None:
    """Starts this script anew without the variables that make NumPy's products slower than they need be."""
    found = [name for name in SLOWING if name in os.environ]
    if found:
        print(f"{' and '.join(found)} would slow NumPy down: starting again without.", flush=True)
        environment = {name: value for name, value in os.environ.items() if name not in SLOWING}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


# Measuring --------------------------------------------------------------------------------------------------


def take_turns(competitors: dict[str, Call], repeats: int) -> Times:
    """Seconds a call of each competitor, `repeats` turns each (fewer if they take too long), alternating."""
    calls = {}
    for name, call in competitors.items():
        call()
        once = seconds(call, 1)
        calls[name] = max(1, min(1000, round(TURN / once)))
    times: Times = {name: [] for name in competitors}
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + LONGEST
        for turn in range(repeats):
            if turn >= 5 and time.perf_counter() > end:
                break
            for name, call in competitors.items():
                times[name].append(seconds(call, calls[name]))
    finally:
        gc.enable()
    return times


def seconds(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def fastest(candidates: dict[str, Call], repeats: int = 5) -> tuple[str, dict[str, float]]:
    """The name of the fastest, and the least time of each in microseconds."""
    least = {name: min(times) * 1e6 for name, times in take_turns(candidates, repeats).items()}
    return min(least, key=least.__getitem__), least


def add_section(
    report: dict[str, Any], title: str, times: Times, base: float | None = None, **more: Any
) -> None:
    """Prints a table of the times and keeps it. Ratios are to `base` seconds, or else to the first row."""
    base = base or statistics.median(next(iter(times.values())))
    rows = [summarise(label, values, base) for label, values in times.items()]
    report["sections"].append({"title": title, "rows": rows, **more})
    print(f"\n{title}")
    for row in rows:
        mark = "~" if row["noisy"] else " "
        spread = f"[{show(row['quartile_1'])} .. {show(row['quartile_3'])}]"
        least = f"{show(row['least']):>9}"
        print(f"  {show(row['median']):>8}{mark} {least} {spread:>22} {row['ratio']:9.2f}   {row['label']}")


def summarise(label: str, values: list[float], base: float) -> dict[str, Any]:
    low, middle, high = (float(v) for v in np.quantile(values, (0.25, 0.5, 0.75)))
    return {
        "label": label,
        "median": middle,
        "quartile_1": low,
        "quartile_3": high,
        "least": min(values),
        "largest": max(values),
        "repeats": len(values),
        "ratio": middle / base,
        "noisy": high - low > NOISY * middle,
    }


def show(value: float) -> str:
    return f"{value * 1e6:.3g} us" if value < 1e-3 else f"{value * 1e3:.3g} ms"


def print_key() -> None:
    print("\nTables: median, least, quartiles, median as a multiple of cydrop's on one thread, what it is.")
    print(f"~ marks a noisy row: its quartiles lie further apart than {NOISY:.0%} of its median.")


# Random bytes -----------------------------------------------------------------------------------------------


def choose_source() -> tuple[str, Source, dict[str, float]]:
    """The fastest of NumPy's ways to random bytes: its name, itself, and the least time of each for 2^20."""
    fills: dict[str, Callable[[], Bytes]] = {}
    for kind in np.random.SFC64, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.MT19937:
        fills[f"{kind.__name__}.random_raw"] = raw_words(kind(1))
    generator = np.random.Generator(np.random.SFC64(2))
    fills["Generator.bytes"] = lambda: np.frombuffer(generator.bytes(BUFFER), dtype=np.uint8)
    fills["Generator.integers(uint8)"] = lambda: generator.integers(0, 256, BUFFER, dtype=np.uint8)
    fills["xorshift128+ written in NumPy"] = xorshift_lanes(3)
    sources = {name: in_slices(fill) for name, fill in fills.items()}
    name, medians = fastest({name: functools.partial(drain, source) for name, source in sources.items()}, 7)
    return name, sources[name], medians


def drain(source: Source) -> None:
    for _ in range(2**20 // CHUNK):
        source(CHUNK)


def raw_words(bits: np.random.BitGenerator) -> Callable[[], Bytes]:
    return lambda: bits.random_raw(BUFFER // 8).view(np.uint8)


def xorshift_lanes(seed: int) -> Callable[[], Bytes]:
    """cydrop's generator in NumPy's vector operations: xorshift128+ (Vigna 2017), a lane a word."""
    rng = np.random.default_rng(seed)
    state = [rng.integers(1, 2**64 - 1, BUFFER // 8, dtype=np.uint64) for _ in range(2)]
    words, shifted = np.empty_like(state[0]), np.empty_like(state[0])

    def fill() -> Bytes:
        x, y = state
        np.add(x, y, out=words)
        np.left_shift(x, 23, out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.right_shift(x, 18, out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.bitwise_xor(x, y, out=x)
        np.right_shift(y, 5, out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        state[:] = y, x
        return words.view(np.uint8)

    return fill


def in_slices(fill: Callable[[], Bytes]) -> Source:
    """Draws a buffer at a time and hands it out in slices."""
    buffer, used = fill(), 0

    def source(count: int) -> Bytes:
        nonlocal buffer, used
        if count > BUFFER:
            parts = [source(min(BUFFER, count - start)).copy() for start in range(0, count, BUFFER)]
            return np.concatenate(parts)
        if used + count > BUFFER:
            buffer, used = fill(), 0
        used += count
        return buffer[used - count : used]

    return source


# Dropout in NumPy -------------------------------------------------------------------------------------------


def binomial_recipe(x: Floats, rate: float) -> Any:
    """The usual one: `x * np.random.binomial(1, keep, size) / keep`."""
    keep = 1 - rate
    return x * np.random.binomial(1, keep, size=x.shape) / keep  # noqa: NPY002 (the recipe people use)


def random_recipe(x: Floats, rate: float, rng: np.random.Generator) -> Any:
    """The other usual one: `x * ((rng.random(size) < keep) / keep)`."""
    keep = 1 - rate
    return x * ((rng.random(x.shape) < keep) / keep)


def floats_in_place(n: int, rate: float, source: Source) -> Unary:
    """What a careful NumPy user writes: float32 numbers, arrays allocated beforehand. Exact (to 2^-24)."""
    rng, keep, scale = np.random.default_rng(4), np.float32(1 - rate), np.float32(1 / (1 - rate))
    numbers, mask = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.bool_)

    def run(x: Floats, out: Floats) -> None:
        rng.random(dtype=np.float32, out=numbers)
        np.less(numbers, keep, out=mask)
        np.multiply(x, mask, out=out)
        np.multiply(out, scale, out=out)

    return run


def integers_in_place(n: int, rate: float, source: Source) -> Unary:
    """The same with a random uint8 an element; rounds the rate."""
    rng = np.random.Generator(np.random.SFC64(5))
    top, scale = byte_threshold(rate, exact=False)
    mask = np.empty(n, dtype=np.bool_)

    def run(x: Floats, out: Floats) -> None:
        np.less(rng.integers(0, 256, n, dtype=np.uint8), top, out=mask)
        np.multiply(x, mask, out=out)
        np.multiply(out, scale, out=out)

    return run


def booleans_in_place(n: int, rate: float, source: Source) -> Unary:
    """The same with `Generator.integers(0, 2, dtype=bool)`; for rate 0.5 alone."""
    rng = np.random.Generator(np.random.SFC64(6))

    def run(x: Floats, out: Floats) -> None:
        np.multiply(x, rng.integers(0, 2, n, dtype=np.bool_), out=out)
        np.add(out, out, out=out)

    return run


def bytes_multiply(n: int, rate: float, source: Source) -> Unary:
    """Chunks of random bytes, compared, multiplied in as booleans; rounds the rate."""
    top, scale = byte_threshold(rate, exact=False)
    size = min(n, CHUNK)
    mask = np.empty(size, dtype=np.bool_)

    def run(x: Floats, out: Floats) -> None:
        for start in range(0, n, size):
            part = out[start : start + size]
            np.less(source(size), top, out=mask)
            np.multiply(x[start : start + size], mask, out=part)
            np.multiply(part, scale, out=part)

    return run


def in_chunks(make_fill: Callable[..., Fill], n: int, rate: float, source: Source, **options: bool) -> Unary:
    """Dropout from a way to fill masks: a chunk's mask is filled into the cache and multiplied in."""
    size, span = min(n, CHUNK), min(n, SPAN)
    fill, mask = make_fill(size, rate, source, **options), np.empty(size, dtype=np.float32)
    more = places_to_keep(span, rate) if options.get("exact") else None
    scale = np.float32(1 / (1 - rate))

    def run(x: Floats, out: Floats) -> None:
        for end in range(span, n + 1, span):
            for start in range(end - span, end, size):
                fill(mask)
                np.multiply(x[start : start + size], mask, out=out[start : start + size])
            if more is not None:
                places = more()
                out[end - span : end][places] = x[end - span : end][places] * scale

    return run


def fill_from_floats(n: int, rate: float, source: Source) -> Fill:
    """A float32 number an element. Exact (to 2^-24)."""
    rng = np.random.Generator(np.random.SFC64(7))
    keep, scale = np.float32(1 - rate), np.float32(1 / (1 - rate))
    numbers, kept = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.bool_)

    def fill(mask: Floats) -> None:
        rng.random(dtype=np.float32, out=numbers)
        np.less(numbers, keep, out=kept)
        np.copyto(mask, kept)
        np.multiply(mask, scale, out=mask)

    return fill


def fill_from_words(n: int, rate: float, source: Source) -> Fill:
    """32 random bits an element. Exact (to 2^-32)."""
    threshold, scale = np.uint32(round((1 - rate) * 2**32)), np.float32(1 / (1 - rate))
    kept, size = np.empty(n, dtype=np.bool_), BUFFER // 4

    def fill(mask: Floats) -> None:
        for start in range(0, n, size):
            part = kept[start : start + size]
            np.less(source(4 * len(part)).view(np.uint32), threshold, out=part)
        np.copyto(mask, kept)
        np.multiply(mask, scale, out=mask)

    return fill


def fill_from_bytes(n: int, rate: float, source: Source, *, exact: bool, table: bool) -> Fill:
    """A random byte an element, kept below the threshold.

    Booleans become floats by a cast and a multiplication, or, packed to bits, by a lookup of eight at a time.
    """
    top, scale = byte_threshold(rate, exact)
    rows = lookup_table(scale)
    kept = np.empty(n, dtype=np.bool_)

    def fill(mask: Floats) -> None:
        np.less(source(n), top, out=kept)
        if table:
            np.take(rows, np.packbits(kept, bitorder="little"), axis=0, out=mask.reshape(-1, 8), mode="clip")
        else:
            np.copyto(mask, kept)
            np.multiply(mask, scale, out=mask)

    return fill


def fill_from_bits(n: int, rate: float, source: Source, *, exact: bool, table: bool) -> Fill:
    """Eight elements a byte, from planes of random bits: OR where the threshold has a 1, AND where a 0.

    Rate 0.5 takes one plane (one bit an element), 0.25 two, others up to eight.
    """
    top, scale = byte_threshold(rate, exact)
    lowest = (int(top) & -int(top)).bit_length() - 1
    joins = [np.bitwise_or if int(top) >> place & 1 else np.bitwise_and for place in range(lowest + 1, 8)]
    rows = lookup_table(scale)
    whole = np.uint8(scale) if scale == int(scale) else None
    kept = np.empty(n // 8, dtype=np.uint8)

    def fill(mask: Floats) -> None:
        np.copyto(kept, source(n // 8))
        for join in joins:
            join(kept, source(n // 8), out=kept)
        if table:
            np.take(rows, kept, axis=0, out=mask.reshape(-1, 8), mode="clip")
        else:
            bits = np.unpackbits(kept)
            if whole is not None:
                np.copyto(mask, np.multiply(bits, whole, out=bits))
            else:
                np.copyto(mask, bits)
                np.multiply(mask, scale, out=mask)

    return fill


def byte_threshold(rate: float, exact: bool) -> tuple[np.uint8, np.float32]:
    """keep as a number of 256ths and the scale: the nearest, or, exact, the one below it, to be topped up."""
    keep = 1 - rate
    top = int(keep * 256) if exact else round(keep * 256)
    return np.uint8(top), np.float32(1 / keep if exact else 256 / top)


def places_to_keep(n: int, rate: float) -> Callable[[], NDArray[np.intp]] | None:
    """Tops up what rounding keep down to 256ths lacks: draws the few places of n that are kept in addition.

    Each place is to be drawn with the same small chance, independently. A Poisson number of places, drawn
    evenly and with repetition, does that: one is left out with probability exp(-mean / n). None where nothing
    lacks.
    """
    keep = 1 - rate
    below = int(keep * 256) / 256
    if below == keep:
        return None
    rng, mean = np.random.Generator(np.random.SFC64(8)), -n * np.log1p(-(keep - below) / (1 - below))
    return lambda: (rng.random(rng.poisson(mean)) * n).astype(np.intp)  # faster than Generator.integers


def lookup_table(scale: np.float32) -> Floats:
    """Row b holds the eight bits of the byte b, lowest first, times the scale."""
    return (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.float32) * scale


def dropout_candidates(rate: float) -> tuple[dict[str, MakeUnary], dict[str, MakeUnary]]:
    """The candidates with the exact rate, and those that round it to a multiple of 1/256."""

    def chunks(fill: Callable[..., Fill], **options: bool) -> MakeUnary:
        return functools.partial(in_chunks, fill, **options)

    exact: dict[str, MakeUnary] = {
        "floats in place": floats_in_place,
        "floats, chunks": chunks(fill_from_floats),
        "32-bit words, chunks": chunks(fill_from_words),
    }
    rounded: dict[str, MakeUnary] = {
        "integers in place": integers_in_place,
        "bytes, boolean product, chunks": bytes_multiply,
        "bytes, cast, chunks": chunks(fill_from_bytes, exact=False, table=False),
        "bytes, lookup, chunks": chunks(fill_from_bytes, exact=False, table=True),
        "bits, cast, chunks": chunks(fill_from_bits, exact=False, table=False),
        "bits, lookup, chunks": chunks(fill_from_bits, exact=False, table=True),
    }
    if (1 - rate) * 256 % 1 == 0:
        exact |= rounded
        rounded = {}
    else:
        exact["bytes, topped up, cast, chunks"] = chunks(fill_from_bytes, exact=True, table=False)
        exact["bytes, topped up, lookup, chunks"] = chunks(fill_from_bytes, exact=True, table=True)
        exact["bits, topped up, cast, chunks"] = chunks(fill_from_bits, exact=True, table=False)
        exact["bits, topped up, lookup, chunks"] = chunks(fill_from_bits, exact=True, table=True)
    if rate == 0.5:
        exact["booleans in place"] = booleans_in_place
    return exact, rounded


def check_dropouts(rate: float, source: Source) -> None:
    """Asserts that all candidates, the recipes and cydrop do dropout."""
    from cydrop import functional

    n = 2**18
    exact, rounded = dropout_candidates(rate)
    np.random.seed(10)  # noqa: NPY002 (for the recipe)
    rng = np.random.default_rng(11)
    check_dropout("binomial recipe", lambda x, out: np.copyto(out, binomial_recipe(x, rate)), n, rate)
    check_dropout("random recipe", lambda x, out: np.copyto(out, random_recipe(x, rate, rng)), n, rate)
    check_dropout("cydrop", lambda x, out: functional.dropout(x, rate, out=out), n, rate)
    for name, make in exact.items():
        check_dropout(name, make(n, rate, source), n, rate)
    for name, make in rounded.items():
        check_dropout(name, make(n, rate, source), n, 1 - round((1 - rate) * 256) / 256)


def check_dropout(name: str, run: Unary, n: int, rate: float) -> None:
    x, out = np.linspace(1, 2, n, dtype=np.float32), np.empty(n, dtype=np.float32)
    run(x, out)
    kept = out != 0
    assert np.allclose(out[kept], x[kept] / (1 - rate), rtol=1e-6), f"{name}: kept elements are not x / keep"
    # Standard deviations off, to be within 6: the share of zeros, the mean, and agreement with itself at
    # other places and with the next call, which independent draws show keep^2 + rate^2 of the time.
    off = {"share of zeros": z_score(~kept, rate)}
    off["mean"] = (out.mean(dtype=np.float64) / x.mean(dtype=np.float64) - 1) / np.sqrt(rate / (1 - rate) / n)
    agree = rate**2 + (1 - rate) ** 2
    for lag in (1, 2, 8, 64, 4096, CHUNK):
        off[f"agreement at distance {lag}"] = z_score(kept[lag:] == kept[:-lag], agree)
    run(x, out)
    off["agreement with the next call"] = z_score((out != 0) == kept, agree)
    for what, score in off.items():
        assert abs(score) < 6, f"{name}, rate {rate:.4f}: {what} is {score:.1f} standard deviations off"


def z_score(hits: NDArray[np.bool_], share: float) -> float:
    return float((hits.mean() - share) / np.sqrt(share * (1 - share) / hits.size))


def compare_dropout(
    report: dict[str, Any], exponent: int, rate: float, source: Source, repeats: int
) -> tuple[float, float]:
    """One table; returns the medians of cydrop and of the fastest NumPy at the exact rate."""
    from cydrop import functional
    from cydrop._core import dropout as kernels

    n = 2**exponent
    x = np.random.default_rng(12).standard_normal(n, dtype=np.float32)
    out, rng, key = np.empty_like(x), np.random.default_rng(13), itertools.count()
    bits = np.empty(kernels.words_of(n), dtype=np.uint64)
    exact, rounded = dropout_candidates(rate)
    candidates = exact | rounded
    runs = {name: functools.partial(make(n, rate, source), x, out) for name, make in candidates.items()}
    _, least = fastest(runs, 5 if exponent < 24 else 3)
    best, scale = min(exact, key=least.__getitem__), 1 / (1 - rate)
    ours = CYDROP.format("functional.dropout(x, rate, out=out)")
    theirs = f'NumPy, fastest of {len(exact)}: "{best}"'
    competitors: dict[str, Call] = {
        ours: lambda: functional.dropout(x, rate, out=out),
        # A new key each time: the processor would learn the branches of one and the same mask.
        KERNEL.format("_core.dropout.dropout"): lambda: kernels.dropout(x, out, rate, scale, next(key), 1, 1),
        "NumPy: x * np.random.binomial(1, keep, size) / keep": lambda: binomial_recipe(x, rate),
        "NumPy: x * ((rng.random(size) < keep) / keep)": lambda: random_recipe(x, rate, rng),
        "NumPy: float32 numbers, all in place": runs["floats in place"],
        theirs: runs[best],
    }
    if rounded:
        near = min(rounded, key=least.__getitem__)
        competitors[f'NumPy, rate rounded to {1 - round((1 - rate) * 256) / 256:.4f}: "{near}"'] = runs[near]
    competitors |= {
        "for scale: cydrop's mask alone, as bits": lambda: kernels.mask(bits, n, rate, next(key), 1, 1),
        "for scale: np.copyto(out, x)": lambda: np.copyto(out, x),
    }
    times = take_turns(competitors, repeats)
    title = f"dropout forward, 2^{exponent} float32, rate {rate}, one thread"
    add_section(report, title, times, candidates=least, plot=exponent == 20)
    if exponent == 20:
        print("    least times of all candidates:")
        for name in sorted(least, key=least.__getitem__):
            print(f"{least[name]:14.0f} us   {name}{'  (rounds the rate)' if name in rounded else ''}")
    return statistics.median(times[ours]), statistics.median(times[theirs])


def compare_backward(report: dict[str, Any], exponent: int, rate: float, repeats: int) -> None:
    """dx = dy * mask / keep, the mask a boolean array, as cydrop and the recipes keep it."""
    from cydrop import functional
    from cydrop._core import dropout as kernels

    n, scale = 2**exponent, np.float32(1 / (1 - rate))
    dy = np.random.default_rng(14).standard_normal(n, dtype=np.float32)
    _, mask = functional.dropout(dy, rate, seed=15, return_mask=True)
    scaled, out, bits = mask * scale, np.empty_like(dy), np.empty(kernels.words_of(n), dtype=np.uint64)
    kernels.pack(mask.view(np.uint8), bits)
    chunk = np.empty(CHUNK, dtype=np.float32)

    def in_place(out: Floats) -> Floats:
        np.multiply(dy, mask, out=out)
        return np.multiply(out, scale, out=out)

    def in_chunks_of_cache(out: Floats) -> Floats:
        for start in range(0, n, CHUNK):
            part = slice(start, start + CHUNK)
            np.copyto(chunk, mask[part])
            np.multiply(chunk, scale, out=chunk)
            np.multiply(dy[part], chunk, out=out[part])
        return out

    expected = functional.dropout_backward(dy, mask, rate)
    for run in (in_place, in_chunks_of_cache):
        assert np.array_equal(run(out), expected), f"{run.__name__} is wrong"
    competitors: dict[str, Call] = {
        CYDROP.format("functional.dropout_backward(dy, mask, rate, out=out)"): (
            lambda: functional.dropout_backward(dy, mask, rate, out=out)
        ),
        "NumPy: dy * mask * scale": lambda: dy * mask * scale,
        "NumPy, out=: times the mask, times the scale": lambda: in_place(out),
        "NumPy, out=: cast, scale and multiply in chunks": lambda: in_chunks_of_cache(out),
        KERNEL.format("_core.dropout.apply_mask, mask in bits"): (
            lambda: kernels.apply_mask(dy, bits, out, scale, 1)
        ),
        "NumPy, out=: times a mask kept as scaled float32": lambda: np.multiply(dy, scaled, out=out),
    }
    title = f"dropout backward, 2^{exponent} float32, rate {rate}, mask given, one thread"
    add_section(report, title, take_turns(competitors, repeats), plot=True)


# ReLU in NumPy ----------------------------------------------------------------------------------------------


def relu_scalar(n: int) -> Unary:
    return lambda x, out: np.maximum(x, 0, out=out)


def relu_zeros(n: int) -> Unary:
    """An array of zeros instead of the number 0: NumPy has vector code for that case only."""
    zeros = np.zeros(n, dtype=np.float32)
    return lambda x, out: np.maximum(x, zeros, out=out)


def relu_zeros_chunks(n: int) -> Unary:
    size = min(n, CHUNK)
    zeros = np.zeros(size, dtype=np.float32)

    def run(x: Floats, out: Floats) -> None:
        for start in range(0, n, size):
            np.maximum(x[start : start + size], zeros, out=out[start : start + size])

    return run


def relu_half_sum(n: int) -> Unary:
    """(x + |x|) / 2 in chunks."""
    size, half = min(n, CHUNK), np.float32(0.5)

    def run(x: Floats, out: Floats) -> None:
        for start in range(0, n, size):
            part, given = out[start : start + size], x[start : start + size]
            np.abs(given, out=part)
            np.add(part, given, out=part)
            np.multiply(part, half, out=part)

    return run


def relu_backward_plain(n: int) -> Binary:
    return lambda dy, x, out: np.multiply(dy, x > 0, out=out)


def relu_backward_boolean(n: int) -> Binary:
    positive = np.empty(n, dtype=np.bool_)

    def run(dy: Floats, x: Floats, out: Floats) -> None:
        np.greater(x, np.float32(0), out=positive)
        np.multiply(dy, positive, out=out)

    return run


def relu_backward_cast(n: int) -> Binary:
    size = min(n, CHUNK)
    positive, gate = np.empty(size, dtype=np.bool_), np.empty(size, dtype=np.float32)

    def run(dy: Floats, x: Floats, out: Floats) -> None:
        for start in range(0, n, size):
            part = slice(start, start + size)
            np.greater(x[part], np.float32(0), out=positive)
            np.copyto(gate, positive)
            np.multiply(dy[part], gate, out=out[part])

    return run


def relu_backward_and(n: int) -> Binary:
    """All bits of dy, or none: True as an int8, negated, widened to int32, is a mask of 32 ones."""
    size = min(n, CHUNK)
    positive, gate = np.empty(size, dtype=np.bool_), np.empty(size, dtype=np.int32)
    signs = positive.view(np.int8)

    def run(dy: Floats, x: Floats, out: Floats) -> None:
        dy_bits, out_bits = dy.view(np.int32), out.view(np.int32)
        for start in range(0, n, size):
            part = slice(start, start + size)
            np.greater(x[part], np.float32(0), out=positive)
            np.negative(signs, out=signs)
            np.copyto(gate, signs)
            np.bitwise_and(dy_bits[part], gate, out=out_bits[part])

    return run


RELUS = {
    "np.maximum(x, 0, out=out)": relu_scalar,
    "maximum with an array of zeros": relu_zeros,
    "maximum with zeros, chunks": relu_zeros_chunks,
    "(x + |x|) / 2, chunks": relu_half_sum,
}
RELU_BACKWARDS = {
    "np.multiply(dy, x > 0, out=out)": relu_backward_plain,
    "greater, boolean product": relu_backward_boolean,
    "greater, cast, product, chunks": relu_backward_cast,
    "greater, widened to bits, and, chunks": relu_backward_and,
}


def check_relus() -> None:
    n = 2**18
    x, dy = np.random.default_rng(16).standard_normal((2, n), dtype=np.float32)
    out = np.empty_like(x)
    for name, make in RELUS.items():
        make(n)(x, out)
        assert np.array_equal(out, np.maximum(x, 0)), f"{name} is not ReLU"
    for name, make_backward in RELU_BACKWARDS.items():
        make_backward(n)(dy, x, out)
        assert np.array_equal(out, np.where(x > 0, dy, 0)), f"{name} is not ReLU's gradient"


def into_fresh(run: Callable[..., Any], *given: Floats) -> Floats:
    out = np.empty_like(given[0])
    run(*given, out)
    return out


def compare_relu(report: dict[str, Any], exponent: int, repeats: int) -> None:
    """Allocating against allocating, then into a given array."""
    from cydrop import functional
    from cydrop._core import relu as kernels

    n = 2**exponent
    x = np.random.default_rng(17).standard_normal(n, dtype=np.float32)
    out = np.empty_like(x)
    runs = {name: make(n) for name, make in RELUS.items()}
    best, least = fastest({name: functools.partial(run, x, out) for name, run in runs.items()})
    fresh, _ = fastest({name: functools.partial(into_fresh, run, x) for name, run in runs.items()})
    competitors: dict[str, Call] = {
        CYDROP.format("functional.relu(x)"): lambda: functional.relu(x),
        "NumPy: np.maximum(x, 0)": lambda: np.maximum(x, 0),
        f'NumPy, fastest of {len(runs)}, fresh out: "{fresh}"': lambda: into_fresh(runs[fresh], x),
    }
    title = f"ReLU forward, 2^{exponent} float32, result allocated, one thread"
    add_section(report, title, take_turns(competitors, repeats), plot=True, candidates=least)
    competitors = {
        KERNEL.format("_core.relu.relu"): lambda: kernels.relu(x, out, 1),
        "NumPy: np.maximum(x, 0, out=out)": lambda: np.maximum(x, 0, out=out),
        f'NumPy, fastest of {len(runs)}: "{best}"': lambda: runs[best](x, out),
    }
    title = f"ReLU forward, 2^{exponent} float32, into a given array, one thread"
    add_section(report, title, take_turns(competitors, repeats))


def compare_relu_backward(report: dict[str, Any], exponent: int, repeats: int) -> None:
    from cydrop import functional
    from cydrop._core import relu as kernels

    n = 2**exponent
    x, dy = (rows.copy() for rows in np.random.default_rng(18).standard_normal((2, n), dtype=np.float32))
    out = np.empty_like(x)
    runs = {name: make(n) for name, make in RELU_BACKWARDS.items()}
    best, least = fastest({name: functools.partial(run, dy, x, out) for name, run in runs.items()})
    fresh, _ = fastest({name: functools.partial(into_fresh, run, dy, x) for name, run in runs.items()})
    competitors: dict[str, Call] = {
        CYDROP.format("functional.relu_backward(dy, x)"): lambda: functional.relu_backward(dy, x),
        "NumPy: dy * (x > 0)": lambda: dy * (x > 0),
        "NumPy: np.where(x > 0, dy, 0)": lambda: np.where(x > 0, dy, np.float32(0)),
        f'NumPy, fastest of {len(runs)}, fresh out: "{fresh}"': lambda: into_fresh(runs[fresh], dy, x),
    }
    title = f"ReLU backward, 2^{exponent} float32, result allocated, one thread"
    add_section(report, title, take_turns(competitors, repeats), plot=True, candidates=least)
    competitors = {
        KERNEL.format("_core.relu.relu_backward"): lambda: kernels.relu_backward(dy, x, out, 1),
        f'NumPy, fastest of {len(runs)}: "{best}"': lambda: runs[best](dy, x, out),
    }
    title = f"ReLU backward, 2^{exponent} float32, into a given array, one thread"
    add_section(report, title, take_turns(competitors, repeats))


# Training ---------------------------------------------------------------------------------------------------

STEPS = {
    "name": "64-128-10, batch 32, dropout .5, Adam, not shuffled",
    "units": 128,
    "batch": 32,
    "input_rate": 0.0,
    "hidden_rate": 0.5,
    "shuffle": False,
    "steps": 200,
}
DIGITS = {
    "name": "digits: 64-512-10, batch 128, dropout .2 and .5, Adam, shuffled",
    "units": 512,
    "batch": 128,
    "input_rate": 0.2,
    "hidden_rate": 0.5,
    "shuffle": True,
    "steps": None,  # as many as the digits give
}
ACCURACY_EPOCHS = 10

Trainer = tuple[Call, Callable[[Floats], Any]]  # (one epoch, X -> labels)


def training_data(task: dict[str, Any]) -> tuple[Floats, Any, Floats, Any]:
    """The digits, tiled to a given number of steps where the task asks for one."""
    from cydrop import datasets

    X, y, X_test, y_test = datasets.load_optdigits()
    if task["steps"]:
        rows = np.arange(task["steps"] * task["batch"]) % len(X)
        X, y = X[rows], y[rows]
    return X, y, X_test, y_test


def cydrop_trainer(task: dict[str, Any], X: Floats, y: Any, n_threads: int) -> Trainer:
    import cydrop as cd

    layers: list[Any] = [cd.Dropout(task["input_rate"])] if task["input_rate"] else []
    layers += [cd.Dense(task["units"]), cd.ReLU(), cd.Dropout(task["hidden_rate"]), cd.Dense(10)]
    net = cd.Network(layers, optimizer=cd.Adam(**ADAM), seed=0, n_threads=n_threads)

    def epoch() -> None:
        net.fit(X, y, epochs=1, batch_size=task["batch"], shuffle=task["shuffle"], verbose=0)

    return epoch, lambda X: net.predict(X).argmax(axis=1)


def plain_trainer(task: dict[str, Any], X: Floats, y: Any) -> Trainer:
    """The network as NumPy tutorials write it, in float32."""
    rng, units, batch = np.random.default_rng(0), task["units"], task["batch"]
    normal = functools.partial(rng.standard_normal, dtype=np.float32)
    W1 = normal((64, units)) * np.float32(np.sqrt(2 / 64))
    W2 = normal((units, 10)) * np.float32(np.sqrt(2 / units))
    parameters = [W1, np.zeros(units, dtype=np.float32), W2, np.zeros(10, dtype=np.float32)]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    steps = 0

    def drop(x: Floats, rate: float) -> tuple[Floats, Floats]:
        mask = (rng.random(x.shape, dtype=np.float32) < 1 - rate) / np.float32(1 - rate)
        return x * mask, mask

    def step(x: Floats, labels: Any) -> None:
        nonlocal steps
        W1, b1, W2, b2 = parameters
        if task["input_rate"]:
            x, _ = drop(x, task["input_rate"])
        h, mask = drop(np.maximum(x @ W1 + b1, 0), task["hidden_rate"])
        z = h @ W2 + b2
        e = np.exp(z - z.max(axis=1, keepdims=True))
        dz = e / e.sum(axis=1, keepdims=True)
        dz[np.arange(len(x)), labels] -= 1
        dz /= len(x)
        dh = dz @ W2.T * mask * (h > 0)
        steps += 1
        beta1, beta2 = ADAM["beta1"], ADAM["beta2"]
        gradients = x.T @ dh, dh.sum(axis=0), h.T @ dz, dz.sum(axis=0)
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g * g - v)
            root = np.sqrt(v / (1 - beta2**steps)) + ADAM["epsilon"]
            p -= ADAM["learning_rate"] / (1 - beta1**steps) * m / root

    def epoch() -> None:
        order = rng.permutation(len(X)) if task["shuffle"] else np.arange(len(X))
        for start in range(0, len(X), batch):
            if task["shuffle"]:
                rows = order[start : start + batch]
                step(X[rows], y[rows])
            else:
                step(X[start : start + batch], y[start : start + batch])

    def predict(X: Floats) -> Any:
        W1, b1, W2, b2 = parameters
        return (np.maximum(X @ W1 + b1, 0) @ W2 + b2).argmax(axis=1)

    return epoch, predict


def fast_trainer(task: dict[str, Any], X: Floats, y: Any, source: Source) -> Trainer:
    """The fastest NumPy version that we could write: no step allocates, all views are ready.

    One arena for the parameters, so that Adam is ten vector operations. The first layer's bias is a row of
    its weights, against a column of ones in X. Masks are drawn from single bits, for several batches at once.
    Sums along rows are products with ones. ReLU is a maximum with an array of zeros (of integers, whose order
    is that of non-negative floats with the same bits, and -0 becomes 0); its gradient is an AND of bits.
    """
    units, batch, n = task["units"], task["batch"], len(X)
    rng = np.random.default_rng(0)

    size1, size2 = 65 * units, units * 10
    arenas = np.zeros((5, size1 + size2 + 10), dtype=np.float32)
    P, G, M, V, T = arenas

    def views(arena: Floats) -> tuple[Floats, Floats, Floats]:
        second, bias = arena[size1 : size1 + size2], arena[size1 + size2 :]
        return arena[:size1].reshape(65, units), second.reshape(10, units), bias

    (W1, W2, b2), (G1, G2, g2) = views(P), views(G)
    W1[:64] = rng.standard_normal((64, units)) * np.sqrt(2 / 64)
    W2[...] = rng.standard_normal((10, units)) * np.sqrt(2 / units)

    given = np.ones((n, 65), dtype=np.float32)
    given[:, :64] = X
    wanted = np.zeros((n, 10), dtype=np.float32)
    wanted[np.arange(n), y] = 1
    share = np.full((n, 1), 1 / batch, dtype=np.float32)  # of a row in its batch's mean
    if n % batch:
        share[n - n % batch :] = 1 / (n % batch)
    wanted_shares = wanted * share
    rows_x, rows_y = given, wanted_shares
    if task["shuffle"]:
        rows_x, rows_y = np.empty_like(given), np.empty_like(wanted)

    together = max(1, 2**16 // (batch * units))  # batches whose masks are drawn at once
    hidden_masks = np.empty((together, batch, units), dtype=np.float32)
    draw_hidden = mask_drawer(hidden_masks.reshape(-1), task["hidden_rate"], source)
    input_masks = np.empty((together, batch, 64), dtype=np.float32)
    draw_input = None
    if task["input_rate"]:
        draw_input = mask_drawer(input_masks.reshape(-1), task["input_rate"], source)

    h, dh, gate, zeros = np.zeros((4, batch, units), dtype=np.float32)
    z, top, total = (np.empty((batch, k), dtype=np.float32) for k in (10, 1, 1))
    dropped = np.ones((batch, 65), dtype=np.float32)
    ones, bits = np.ones(batch, dtype=np.float32), np.int32(31)

    prepared = []
    for number, start in enumerate(range(0, n, batch)):
        k = min(batch, n - start)
        x = rows_x[start : start + k]
        sums = np.full((10, 1), k, dtype=np.float32)  # the softmax comes out divided by k
        mask, input_mask = hidden_masks[number % together, :k], input_masks[number % together, :k]
        prepared.append((
            number % together == 0, x[:, :64], input_mask, dropped[:k, :64], dropped[:k] if draw_input else x,
            h[:k], h[:k].view(np.int32), zeros[:k].view(np.int32), mask, z[:k], top[:k], total[:k], sums,
            rows_y[start : start + k], ones[:k], dh[:k], dh[:k].view(np.int32), gate[:k].view(np.int32),
        ))  # fmt: skip
    W2t = W2.T
    multiply, add, subtract, divide, sqrt = np.multiply, np.add, np.subtract, np.divide, np.sqrt
    product, maximum, exp, row_max, take = np.matmul, np.maximum, np.exp, np.maximum.reduce, np.take
    decay1, decay2 = np.float32(ADAM["beta1"]), np.float32(ADAM["beta2"])
    steps = 0

    def epoch() -> None:
        nonlocal steps
        if task["shuffle"]:
            order = rng.permutation(n)
            take(given, order, axis=0, out=rows_x, mode="clip")
            take(wanted, order, axis=0, out=rows_y, mode="clip")
            multiply(rows_y, share, out=rows_y)
        for (draw, x64, mask_x, dropped64, x, h, h_bits, zero_bits, mask, z, top, total, sums, target, ones,
             dh, dh_bits, gate_bits) in prepared:  # fmt: skip
            if draw:
                draw_hidden()
                if draw_input:
                    draw_input()
            if draw_input:
                multiply(x64, mask_x, out=dropped64)
            product(x, W1, out=h)
            maximum(h_bits, zero_bits, out=h_bits)
            multiply(h, mask, out=h)
            product(h, W2t, out=z)
            add(z, b2, out=z)
            row_max(z, axis=1, keepdims=True, out=top)
            subtract(z, top, out=z)
            exp(z, out=z)
            product(z, sums, out=total)
            divide(z, total, out=z)
            subtract(z, target, out=z)

            product(z.T, h, out=G2)
            product(ones, z, out=g2)
            product(z, W2, out=dh)
            np.negative(h_bits, out=gate_bits)
            np.right_shift(gate_bits, bits, out=gate_bits)  # all ones where h > 0
            np.bitwise_and(dh_bits, gate_bits, out=dh_bits)
            multiply(dh, mask, out=dh)
            product(x.T, dh, out=G1)

            # Adam on M = sum of beta1^i g and V = sum of beta2^i g^2: their factors are in rate and epsilon.
            steps += 1
            root = ((1 - ADAM["beta2"] ** steps) / (1 - ADAM["beta2"])) ** 0.5
            rate = ADAM["learning_rate"] * (1 - ADAM["beta1"]) / (1 - ADAM["beta1"] ** steps) * root
            multiply(M, decay1, out=M)
            add(M, G, out=M)
            multiply(V, decay2, out=V)
            multiply(G, G, out=G)
            add(V, G, out=V)
            sqrt(V, out=T)
            add(T, np.float32(ADAM["epsilon"] * root), out=T)
            divide(M, T, out=T)
            multiply(T, np.float32(rate), out=T)
            subtract(P, T, out=P)

    def predict(X: Floats) -> Any:
        return (np.maximum(X @ W1[:64] + W1[64], 0) @ W2t + b2).argmax(axis=1)

    return epoch, predict


def mask_drawer(masks: Floats, rate: float, source: Source) -> Call:
    """Fills the masks from random bits and tops them up."""
    fill = fill_from_bits(masks.size, rate, source, exact=True, table=True)
    more, scale = places_to_keep(masks.size, rate), np.float32(1 / (1 - rate))

    def draw() -> None:
        fill(masks)
        if more is not None:
            masks[more()] = scale

    return draw


def compare_training(
    report: dict[str, Any], task: dict[str, Any], source: Source, repeats: int
) -> dict[str, Any]:
    """One table, of the time of a step or of an epoch; returns what the tables with more threads need."""
    X, y, X_test, y_test = training_data(task)
    steps = task["steps"] or 1
    trainers = {
        CYDROP.format("Network.fit"): cydrop_trainer(task, X, y, 1),
        "NumPy, straightforward": plain_trainer(task, X, y),
        "NumPy, best": fast_trainer(task, X, y, source),
    }
    accuracy = {name: trained_accuracy(trainer, X_test, y_test) for name, trainer in trainers.items()}
    assert min(accuracy.values()) > 0.9, f"somebody does not learn: {accuracy}"
    times = take_turns({name: epoch for name, (epoch, _) in trainers.items()}, repeats)
    times = {name: [value / steps for value in values] for name, values in times.items()}
    what = "one training step of" if task["steps"] else "one epoch of"
    add_section(report, f"{what} {task['name']}, one thread", times, accuracy=accuracy, plot=True)
    shown = ", ".join(f"{name} {value:.2%}" for name, value in accuracy.items())
    print(f"    accuracy on the test digits after {ACCURACY_EPOCHS} epochs of {len(X):,} rows: {shown}")
    cydrop, *numpy = (statistics.median(values) for values in times.values())
    return {"task": task, "what": what, "cydrop": cydrop, "numpy": min(numpy), "X": X, "y": y, "steps": steps}


def trained_accuracy(trainer: Trainer, X: Floats, y: Any) -> float:
    epoch, predict = trainer
    for _ in range(ACCURACY_EPOCHS):
        epoch()
    return float((predict(X) == y).mean())


# More threads -----------------------------------------------------------------------------------------------


def compare_threads(
    report: dict[str, Any],
    dropouts: dict[tuple[int, float], tuple[float, float]],
    trainings: list[dict[str, Any]],
    source: Source,
    all_blas_threads: int | None,
    threads: int,
    repeats: int,
) -> None:
    """cydrop on several threads, and NumPy with all of its BLAS's, one after the other.

    NumPy's BLAS and OpenMP each keep a pool of threads that spins on for a while after each piece of work. If
    they took turns, each pool would hold processors that the other needs, and neither figure would mean much.
    """
    print("\nMore threads. NumPy's BLAS and OpenMP each keep a pool of spinning threads; alternating, they")
    print("disturb each other. So these rows do not take turns: NumPy first, then cydrop, a rest between.")
    numpy_times: list[Times] = []
    use_blas_threads(all_blas_threads)
    for training in trainings:
        epoch, _ = fast_trainer(training["task"], training["X"], training["y"], source)
        label = f"NumPy, best, BLAS on {all_blas_threads} threads"
        numpy_times.append(take_turns({label: epoch}, repeats) if (all_blas_threads or 1) > 1 else {})
    use_blas_threads(1)
    time.sleep(0.5)
    for (exponent, rate), (ours, theirs) in dropouts.items():
        compare_dropout_threads(report, exponent, rate, ours, theirs, threads, repeats)
    for training, times in zip(trainings, numpy_times, strict=True):
        epoch, _ = cydrop_trainer(training["task"], training["X"], training["y"], threads)
        times = take_turns({CYDROP.format(f"Network.fit(n_threads={threads})"): epoch}, repeats) | times
        times = {name: [value / training["steps"] for value in values] for name, values in times.items()}
        ours, *theirs = (statistics.median(values) for values in times.values())
        title = f"{training['what']} {training['task']['name']}, {threads} threads"
        ratio = min([training["numpy"], *theirs]) / ours
        add_section(report, title, times, base=training["cydrop"], threads=threads, numpy_over_cydrop=ratio)
        print(f"    NumPy's best, here or on one thread, takes {ratio:.2f} times as long")


def compare_dropout_threads(
    report: dict[str, Any], exponent: int, rate: float, ours: float, theirs: float, threads: int, repeats: int
) -> None:
    from cydrop import functional

    x = np.random.default_rng(19).standard_normal(2**exponent, dtype=np.float32)
    out = np.empty_like(x)
    label = CYDROP.format(f"functional.dropout(x, rate, out=out, n_threads={threads})")
    times = take_turns({label: lambda: functional.dropout(x, rate, out=out, n_threads=threads)}, repeats)
    ratio = theirs / statistics.median(times[label])
    title = f"dropout forward, 2^{exponent} float32, rate {rate}, {threads} threads"
    add_section(report, title, times, base=ours, threads=threads, numpy_over_cydrop=ratio)
    print(f"    NumPy's fastest at the exact rate, on one thread, takes {ratio:.2f} times as long")


def cydrop_threads() -> int:
    import cydrop

    return int(cydrop.show_config()["n_threads"])


# The machine ------------------------------------------------------------------------------------------------


@functools.cache
def blas_function(name: str) -> Any:
    """A function of the OpenBLAS that NumPy has loaded, such as "get_num_threads"; None if it is another."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for path in sorted({line.split()[-1] for line in lines if "openblas" in line}):
        library = ctypes.CDLL(path)
        for prefix in ("scipy_openblas_", "openblas_"):
            for suffix in ("64_", ""):
                if hasattr(library, prefix + name + suffix):
                    return getattr(library, prefix + name + suffix)
    return None


def blas_threads() -> int | None:
    function = blas_function("get_num_threads")
    return None if function is None else int(function())


def use_blas_threads(count: int | None) -> None:
    function = blas_function("set_num_threads")
    if function is not None and count is not None:
        function(ctypes.c_int(count))


def blas_core() -> str | None:
    """The kind of processor that OpenBLAS has chosen its kernels for."""
    function = blas_function("get_corename")
    if function is None:
        return None
    function.restype = ctypes.c_char_p
    return str(function().decode())


def describe_machine() -> dict[str, Any]:
    import cydrop

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numpy_blas": f"{blas.get('name')} {blas.get('version')}",
        "numpy_blas_kernels": blas_core(),
        "numpy_blas_threads": blas_threads(),
        "cydrop": cydrop.show_config(),
        "environment": {name: value for name, value in sorted(os.environ.items())
                        if name.startswith(("OMP_", "OPENBLAS_", "MKL_", "BLIS_", "CYDROP_", "NPY_"))},
    }  # fmt: skip


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def print_machine(machine: dict[str, Any]) -> None:
    for name, value in machine.items():
        if name == "numpy_blas_threads":
            value = f"{value} by default, 1 in the one-thread tables" if value else "unknown, left as is"
        print(f"{name.replace('_', ' ')}: {value}")


# The chart --------------------------------------------------------------------------------------------------


def draw_plot(report: dict[str, Any], path: Path) -> None:
    """Bars of time as a multiple of cydrop's, a group a table, on a log scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places, ratios, labels, colours, titles = [], [], [], [], []
    place = 0.0
    for section in (s for s in report["sections"] if s.get("plot")):
        titles.append((place, section["title"]))
        place += 1
        for row in section["rows"]:
            if row["label"].startswith("for scale") or "kernel alone" in row["label"]:
                continue
            places.append(place)
            ratios.append(row["ratio"])
            labels.append(f"{row['label']}   {show(row['median'])}")
            colours.append("#c8553d" if row["label"].startswith("cydrop") else "#5b7b9a")
            place += 1
        place += 0.6
    figure, axes = pyplot.subplots(figsize=(12, 0.27 * place + 1.2), layout="constrained")
    axes.barh(places, ratios, color=colours, height=0.8)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, 0.8 * min(ratios)), 2.2 * max(ratios))
    axes.axvline(1, color="#c8553d", linewidth=0.8)
    axes.set_yticks(places, labels, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place, -0.8)
    for at, ratio in zip(places, ratios, strict=True):
        axes.text(ratio * 1.05, at, f"{ratio:.3g} x" if ratio != 1 else "1", va="center", fontsize=8)
    for at, title in titles:
        beside = axes.get_yaxis_transform()
        axes.text(-0.005, at, title, fontsize=8.5, weight="bold", ha="right", va="center", transform=beside)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    machine = report["machine"]
    axes.set_xlabel("time as a multiple of cydrop's on one thread (median; log scale; shorter is faster)")
    axes.set_title(
        f"{machine['processor']}, one thread; cydrop {machine['cydrop']['cydrop']} "
        f"({machine['cydrop']['simd']}), NumPy {machine['numpy']}, Python {machine['python']}",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

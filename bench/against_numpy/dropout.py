"""Dropout in NumPy: the usual recipes and the fastest that we could write, checked, and compared with cydrop's.

One random byte an element rounds the rate to a multiple of 1/256. The candidates that round are kept apart from those
that do not: these round down and top up, or draw more bits.
"""

import functools
import itertools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import Call, fastest, take_turns
from numpy.typing import NDArray

from against_numpy.arrays import CHUNK, Floats, Unary
from against_numpy.random_bytes import BUFFER, Source
from against_numpy.report import CYDROP, KERNEL, add_section

Fill = Callable[[Floats], None]  # fills an array with 1 / keep where kept, 0 where dropped
MakeUnary = Callable[[int, float, Source], Unary]  # (size, rate, source)

SPAN = 2**20  # elements that are topped up at a time


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
    """One float32 number per element. Exact (to 2^-24)."""
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

    Rate 0.5 takes one plane (one bit per element), 0.25 two, others up to eight.
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
        KERNEL.format("_core.dropout.apply_mask, mask in bits"): (lambda: kernels.apply_mask(dy, bits, out, scale, 1)),
        "NumPy, out=: times a mask kept as scaled float32": lambda: np.multiply(dy, scaled, out=out),
    }
    title = f"dropout backward, 2^{exponent} float32, rate {rate}, mask given, one thread"
    add_section(report, title, take_turns(competitors, repeats), plot=True)

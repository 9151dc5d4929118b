"""cydrop on several threads, and NumPy with all of its BLAS's."""

import statistics
import time
from typing import Any

import numpy as np
from machine import use_blas_threads
from measuring import Times, take_turns

from against_numpy.random_bytes import Source
from against_numpy.report import CYDROP, add_section
from against_numpy.training import cydrop_trainer, fast_trainer


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

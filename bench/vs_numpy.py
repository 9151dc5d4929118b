"""cydrop against NumPy: dropout, ReLU, a training step, and an epoch on real digits.

    python bench/vs_numpy.py [--json FILE] [--plot FILE.png] [--quick] [--threads N]

What is compared, and how:

* NumPy gets its usual recipes *and* the fastest versions we could write: one random byte or bit per element,
  lookup tables, chunks that stay in the cache, no allocations. Every candidate is a function in against_numpy/; each
  is checked first, and the fastest on this machine is chosen at run time and named. Know a faster one? Add it.
* The two usual dropout recipes return what they allocate; only the others fill a given `out`.
* Competitors take turns (A B A B ...) in one process, after a warm-up: medians, quartiles, ratios of medians.
* One thread each, NumPy's BLAS included (where it is an OpenBLAS, which can be told so). More threads come
  last, in blocks of their own.
* In the training loops both do the same arithmetic, except that cydrop also computes loss and accuracy.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

from against_numpy.dropout import check_dropouts, compare_backward, compare_dropout
from against_numpy.random_bytes import choose_source
from against_numpy.relu import check_relus, compare_relu, compare_relu_backward
from against_numpy.report import draw_plot, print_key
from against_numpy.threads import compare_threads, cydrop_threads
from against_numpy.training import DIGITS, STEPS, compare_training
from machine import blas_threads, describe_machine, leave_slowing_variables, print_machine, use_blas_threads

RATES = (0.5, 0.3)


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


if __name__ == "__main__":
    main()

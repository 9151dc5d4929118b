"""Predictions with bytes (Network.quantize) against those in float32: their speed, and what bytes cost.

    python bench/quantized.py [--threads N] [--turns N]
    python bench/quantized.py --errors [FOLDER...] [--epochs N] [--seeds N] [--threads N]

The first predicts with the same network in float32 and with bytes in turns: CPU microseconds of a call, and the
megabytes of the parameters. The second trains 784-512-512-10 with dropout .5 (the digits that come with cydrop:
64-256-10) on all training rows of each FOLDER of four IDX files, such as MNIST and Fashion-MNIST, and prints the test
error of both, and the share of test rows that they put into the same class.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import peers
from machine import processor
from vs_peers import networks

import cydrop as cd

ROWS = {"S": (1, 1000), "M": (1, 32, 10_000), "L": (1, 32, 2000), "XL": (1, 32, 500)}
CALL_SECONDS = 0.02  # that a measurement should take at least


def microseconds(net, X):
    """CPU microseconds of a prediction, of as many as take long enough."""
    count, took = 1, 0.0
    while took < CALL_SECONDS:
        start = time.process_time()
        for _ in range(count):
            net.predict(X)
        took = time.process_time() - start
        count, done = 2 * count, count
    return 1e6 * took / done


def speed(threads, turns):
    print(f"{processor()}, threads: {threads}, products of bytes by {cd.show_config()['int8']}\n")
    print(f"{'':<26}{'rows':>7}{'float32 us':>12}{'int8 us':>10}{'times':>7}{'MB':>8}{'MB':>7}")
    for name, task in networks().items():
        for rows in ROWS.get(name.split()[0], ()):
            net = peers.cydrop_network(task["sizes"], threads).build(task["sizes"][0])
            X = np.random.default_rng(3).standard_normal((rows, task["sizes"][0]), dtype=np.float32)
            small = net.quantize(X)
            took = [(microseconds(net, X), microseconds(small, X)) for _ in range(turns + 1)][1:]
            before, after = (statistics.median(one) for one in zip(*took, strict=True))
            ratio = statistics.median(a / b for a, b in took)
            sizes = small.report.bytes_before / 1e6, small.report.bytes_after / 1e6
            print(f"{name:<26}{rows:>7,}{before:>12,.1f}{after:>10,.1f}{ratio:>7.2f}{sizes[0]:>8.2f}{sizes[1]:>7.2f}")


def errors(folders, epochs, seeds, threads):
    print(f"{'':<20}{'seed':>5}{'float32 %':>11}{'int8 %':>9}{'same class %':>14}")
    for name, data in [("digits", cd.datasets.load_optdigits()), *((f.name, cd.datasets.load_idx(f)) for f in folders)]:
        X, y, X_test, y_test = data
        widths = [512, 512] if X.shape[1] == 784 else [256]
        found = []
        for seed in range(seeds):
            hidden = [layer for width in widths for layer in (cd.Dense(width), cd.ReLU(), cd.Dropout(0.5))]
            net = cd.Network([*hidden, cd.Dense(10)], seed=seed, n_threads=threads)
            net.fit(X, y, epochs=epochs, verbose=0)
            report = net.quantize(X_test, y_test).report
            found.append([100 * (1 - one["accuracy"]) for one in (report.before, report.after)])
            shown = "".join(f"{value:>{width}.3f}" for value, width in zip(found[-1], (11, 9), strict=True))
            print(f"{name:<20}{seed:>5}{shown}{100 * report.same_class:>14.2f}", flush=True)
        difference = np.diff(np.array(found), axis=1)
        print(f"{name:<20} mean difference {difference.mean():+.3f} points, largest {np.abs(difference).max():.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--errors", nargs="*", type=Path, metavar="FOLDER", help="test errors instead of microseconds")
    parser.add_argument("--epochs", type=int, default=10, metavar="N")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--turns", type=int, default=9, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    given = parser.parse_args()
    for name in ("epochs", "seeds", "turns", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    if given.errors is None:
        speed(given.threads, given.turns)
    else:
        errors(given.errors, given.epochs, given.seeds, given.threads)


if __name__ == "__main__":
    main()

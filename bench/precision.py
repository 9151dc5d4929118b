"""float32 and bfloat16 in cydrop: CPU seconds of a training step, and test errors over seeds.

    python bench/precision.py [--threads N] [--turns N]
    python bench/precision.py --errors FOLDER... [--tables NAME,...] [--seeds N] [--most N] [--threads N]

The first trains the same network in both precisions in turns. The second trains the digits that come with cydrop (a
plain network) and tables (bench/table_data.py says what a folder holds; RealMLP, a fifth of the rows for the test, the
same split for all seeds), with a number of seeds in each precision: mean error and standard deviation over the seeds,
and the difference of the means in standard errors of it. Errors are % of wrong classes, or RMSE in units of the
target's standard deviation. bench/mnist.py takes --precision, too.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peers
from machine import processor
from table_data import Table, is_table, name_of, read_table
from vs_peers import networks

import cydrop as cd
from cydrop import tabular

PRECISIONS = "float32", "bfloat16"


def speed(threads: int, turns: int) -> None:
    print(f"{processor()}, threads: {threads}, bfloat16 by {cd.show_config()['bfloat16']}\n")
    print(f"{'':<28}{'float32 ms':>12}{'bfloat16 ms':>13}{'times':>8}   CPU ms of a step, medians of {turns} turns")
    for name, task in networks().items():
        X, y = peers.training_data(task)
        made = {}
        for precision in PRECISIONS:
            made[precision] = peers.cydrop_network(task["sizes"], threads)
            made[precision].precision = precision
        took: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
        for turn in range(turns + 1):
            for precision, network in made.items():
                start = time.process_time()
                network.fit(X, y, epochs=1, batch_size=task["batch"], shuffle=False, verbose=0)
                if turn:  # the first builds the network
                    took[precision].append((time.process_time() - start) / task["steps"])
        medians = [1e3 * statistics.median(took[precision]) for precision in PRECISIONS]
        ratio = statistics.median(a / b for a, b in zip(*took.values(), strict=True))
        print(f"{name:<28}{medians[0]:>12.3f}{medians[1]:>13.3f}{ratio:>8.2f}", flush=True)


def digits_error(precision: str, seed: int, threads: int) -> float:
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    layers = [cd.Dropout(0.1), cd.Dense(256), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)]
    net = cd.Network(layers, seed=seed, n_threads=threads, precision=precision)
    net.fit(X, y, epochs=40, verbose=0)
    return 100 * float(np.mean(net.predict(X_test).argmax(axis=1) != y_test))


def table_error(table: Table, most: int, precision: str, seed: int, threads: int) -> float:
    train, test = table.split(0)
    train = train[:most]
    kind = tabular.RealMLPClassifier if table.classes else tabular.RealMLPRegressor
    model: Any = kind(random_state=seed, n_threads=threads, precision=precision)
    model.fit(table.frame.iloc[train], table.target[train])
    found, y = model.predict(table.frame.iloc[test]), table.target[test]
    if table.classes:
        return 100 * float(np.mean(found != y))
    return float(np.sqrt(np.mean((found - y) ** 2)) / table.target[train].std())


def errors(named: dict[str, Callable[[str, int], float]], seeds: int) -> None:
    print(f"{'':<28}{'float32':>20}{'bfloat16':>20}{'difference':>14}   over {seeds} seeds")
    for name, error in named.items():
        found = [np.array([error(precision, seed) for seed in range(seeds)]) for precision in PRECISIONS]
        shown = [f"{one.mean():.4g} ± {one.std(ddof=1):.2g}" for one in found]
        standard = np.sqrt(sum(one.var(ddof=1) for one in found) / seeds)
        difference = (found[1].mean() - found[0].mean()) / standard if standard else 0.0
        print(f"{name:<28}{shown[0]:>20}{shown[1]:>20}{difference:>+10.1f} s.e.", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--errors", nargs="*", type=Path, metavar="FOLDER", help="test errors instead of seconds")
    parser.add_argument("--tables", type=lambda text: text.split(","), metavar="NAME,...", help="these alone")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--most", type=int, default=10_000, metavar="N", help="training rows of a table")
    parser.add_argument("--turns", type=int, default=15, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    given = parser.parse_args()
    for name, least in (("seeds", 2), ("most", 10), ("turns", 1), ("threads", 1)):
        if getattr(given, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(given, name)}")
    if given.errors is None:
        speed(given.threads, given.turns)
        return
    paths = {name_of(path): path for folder in given.errors for path in sorted(folder.iterdir()) if is_table(path)}
    unknown = set(given.tables or ()) - set(paths)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))} in these folders")
    named: dict[str, Callable[[str, int], float]] = {"digits": lambda p, s: digits_error(p, s, given.threads)}
    for name in given.tables or paths:
        table = read_table(paths[name])
        named[name] = lambda p, s, table=table: table_error(table, given.most, p, s, given.threads)  # type: ignore[misc]
    errors(named, given.seeds)


if __name__ == "__main__":
    main()

"""Initial weights and biases: which of them a plain network on tables should start with.

    python bench/initialization.py FOLDER [FOLDER ...] [--seeds N] [--epochs N] [--rows N] [--only NAME ...]

The folders hold tables (see bench/table_data.py). A network of two hidden layers of 128 ReLU units trains with Adam
(learning rate 0.001, batches of 128), with dropout 0.1 after the hidden layers and without. Each seed draws a new
split into training and test rows, the same for all initialisations. A line is a set with the error of its test rows
after the last epoch (per cent of wrong classes, or the root of the mean squared error in standard deviations of the
target), its mean over the seeds and, after "±", the standard error; then come the mean ranks, and the geometric mean
over the sets (all, those with classes, the regressions) of the error's ratio to that of the first column, with the
standard error over the sets.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from table_data import Table, tables

import cydrop as cd

BEGINNINGS = {
    "He, zeros": ("he_normal", "zeros"),
    "He, PyTorch's": ("he_normal", "torch_uniform"),
    "He, Glorot's": ("he_normal", "glorot_uniform"),
    "PyTorch's, both": ("torch_uniform", "torch_uniform"),
    "Glorot's, both": ("glorot_uniform", "glorot_uniform"),
    "Glorot, zeros": ("glorot_uniform", "zeros"),
}


def error(table: Table, beginning: str, rate: float, seed: int, epochs: int, rows: int) -> float:
    """Of the test rows after the last epoch."""
    X, y, X_test, y_test = table.as_numbers(seed, rows)
    weight, bias = BEGINNINGS[beginning]
    begin: dict[str, Any] = {"weight_init": weight, "bias_init": bias}
    units = int(table.target.max()) + 1 if table.classes else 1
    hidden = [[cd.Dense(128, activation="relu", **begin), cd.Dropout(rate)] for _ in range(2)]
    stack = [layer for pair in hidden for layer in pair]
    loss = "cross_entropy" if table.classes else "mse"
    net = cd.Network([*stack, cd.Dense(units, **begin)], loss=loss, optimizer=cd.Adam(1e-3), seed=seed, n_threads=1)
    net.fit(X, y, epochs=epochs, batch_size=128, verbose=0)
    found = net.evaluate(X_test, y_test)
    return 100.0 * (1.0 - found["accuracy"]) if table.classes else found["rmse"]


def shown(rate: float, errors: dict[str, NDArray[Any]], classes: NDArray[Any]) -> None:
    """A table of the errors, shape (beginnings, seeds) a set."""
    print(f"\ndropout {rate:g}\n{'set':<27}" + "".join(f"{name:>18}" for name in BEGINNINGS))
    for name, found in errors.items():
        spread = found.std(axis=1, ddof=1) / found.shape[1] ** 0.5
        print(f"{name:<27}" + "".join(f"{m:>9.3f} ± {s:.3f}" for m, s in zip(found.mean(axis=1), spread, strict=True)))
    ranks = np.mean([rankdata(found, axis=0).mean(axis=1) for found in errors.values()], axis=0)
    print(f"{'mean rank':<27}" + "".join(f"{rank:>18.2f}" for rank in ranks))
    means = np.log([found.mean(axis=1) for found in errors.values()])
    for name, some in (("all", classes | True), ("classes", classes), ("regressions", ~classes)):
        ratios = (means - means[:, :1])[some]
        if len(ratios) > 1:
            spread = ratios.std(axis=0, ddof=1) / len(ratios) ** 0.5
            cells = zip(100 * np.expm1(ratios.mean(axis=0)), 100 * spread, strict=True)
            print(f"{f'error, {name}':<27}" + "".join(f"{m:>+9.2f} ± {s:.2f} %" for m, s in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="First weights and biases compared on tables.")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", type=Path)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--epochs", type=int, default=30, metavar="N")
    parser.add_argument("--rows", type=int, default=8000, metavar="N", help="training rows at most")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these sets alone")
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {given.seeds}")
    chosen = [table for table in tables(*given.folders) if not given.only or table.name in given.only]
    print(f"{len(chosen)} sets, {given.seeds} seeds, {given.epochs} epochs, at most {given.rows:,} training rows")
    results: dict[float, dict[str, NDArray[Any]]] = {0.1: {}, 0.0: {}}
    for table in chosen:
        for rate, errors in results.items():
            errors[table.name] = np.array(
                [
                    [error(table, name, rate, seed, given.epochs, given.rows) for seed in range(given.seeds)]
                    for name in BEGINNINGS
                ]
            )
            middle = [statistics.mean(row) for row in errors[table.name]]
            print(f"    {table.name:<27}{rate:<6g}" + "".join(f"{value:9.3f}" for value in middle), flush=True)
    for rate, errors in results.items():
        shown(rate, errors, np.array([table.classes for table in chosen]))


if __name__ == "__main__":
    main()

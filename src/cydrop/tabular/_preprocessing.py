"""A table's columns as the network takes them: the first two steps of RealMLP (Holzmüller et al. 2024).

    categories   few: one-hot columns; many: codes, for a table that is learned (code 0: missing or unseen)
    numbers      missing ones become the mean, with a column that says so
    both         (x - median) / (q75 - q25), then x / sqrt(1 + (x / 3)^2), which stays within -3 and 3

All that is learned here is learned from the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cydrop._base.arrays import Floats
from cydrop.tabular._columns import Doubles, Value
from cydrop.tabular._table import Table

LARGEST = 1e290  # numbers beyond it count as it: their differences and sums stay finite
CLIPPED = 1e9  # the smooth clip of anything beyond it is 3 in float32
PIECE = 1 << 20  # numbers that are scaled at a time, in float64


@dataclass(eq=False)
class Prepared:
    """Rows as the network takes them."""

    rows: Floats  # (n, p + q): numbers, then codes
    cardinalities: NDArray[np.int64]  # (q,): how many codes each column has, code 0 included
    measured: int  # how many of the first columns are numbers of the table
    groups: tuple[int, ...] = ()  # of the numbers: which stand for the same thing; (): nobody asks

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def numbers(self) -> Floats:
        """(n, p): numbers, indicators of missing ones, one-hot columns; scaled and clipped."""
        return self.rows[:, : self.rows.shape[1] - len(self.cardinalities)]

    @property
    def codes(self) -> Floats:
        """(n, q): whole numbers, of the categories that are embedded; 0: missing or unseen."""
        return self.rows[:, self.rows.shape[1] - len(self.cardinalities) :]


@dataclass(eq=False)
class Preprocessor:
    """What was learned from the training rows: plain arrays and lists."""

    means: Doubles  # of each number column; 0 where all are missing
    indicated: NDArray[np.intp]  # number columns with an indicator of missing cells
    known: list[list[Value]]  # the known values of each category column, in the order of their codes 1, 2, ...
    embedded: list[bool]  # which category columns stay codes
    median: Doubles  # (p,) of numbers, indicators and one-hot columns
    factor: Doubles  # (p,)

    @property
    def width(self) -> int:
        """Columns of numbers; at least one where there are no codes: a network has inputs."""
        return max(len(self.median), 0 if any(self.embedded) else 1)

    @property
    def cardinalities(self) -> NDArray[np.int64]:
        sizes = [len(known) + 1 for known, embedded in zip(self.known, self.embedded, strict=True) if embedded]
        return np.array(sizes, dtype=np.int64)

    def transform(self, table: Table) -> Prepared:
        """The table's rows. No number is NaN or infinite, none is beyond -3 and 3."""
        codes = [column.codes_of(known) for column, known in zip(table.categories, self.known, strict=True)]
        cardinalities = self.cardinalities
        result = np.zeros((len(table), self.width + len(cardinalities)), dtype=np.float32)
        step = max(1, PIECE // max(1, self.width))
        for start in range(0, len(table) if len(self.median) else 0, step):
            rows = slice(start, start + step)
            with np.errstate(over="ignore"):  # of what is clipped then
                z = (self._columns(table, codes, rows) - self.median) * self.factor
            result[rows, : self.width] = smooth_clip(z)
        kept = (column for column, embedded in zip(codes, self.embedded, strict=True) if embedded)
        for place, column in enumerate(kept, self.width):
            result[:, place] = column
        return Prepared(result, cardinalities, len(self.means))

    def _columns(self, table: Table, codes: list[NDArray[np.intp]], rows: slice) -> Doubles:
        """All columns of numbers, not scaled yet."""
        given = table.numbers[rows]
        parts = [*_filled(given, self.means, self.indicated)]
        for column, known, embedded in zip(codes, self.known, self.embedded, strict=True):
            if not embedded:
                parts.append(one_hot(column[rows], len(known)))
        return np.hstack(parts)


def fitted(table: Table, max_onehot: int, small: bool) -> Preprocessor:
    """Learns from the training rows.

    Parameters
    ----------
    table : Table
    max_onehot : int
        Columns with at most so many categories become one-hot columns.
    small : bool
        Whether all do, as in TD-S.
    """
    missing = np.isnan(table.numbers)
    some = missing.any(axis=0) & ~missing.all(axis=0)
    count = np.maximum((~missing).sum(axis=0), 1)
    means = np.where(missing, 0.0, np.clip(table.numbers, -LARGEST, LARGEST)).sum(axis=0) / count
    indicated = np.flatnonzero(some)
    known = [column.present() for column in table.categories]
    embedded = [len(values) > max_onehot and not small for values in known]
    numbers, indicators = _filled(table.numbers, means, indicated)
    scales = [_scale(numbers), _scale(indicators)]
    for column, values, left in zip(table.categories, known, embedded, strict=True):
        if not left:
            scales.append(_one_hot_scale(column.codes_of(values), len(values)))
    median, factor = (np.concatenate(parts) for parts in zip(*scales, strict=True))
    return Preprocessor(means, indicated, known, embedded, median, factor)


def smooth_clip(x: Doubles) -> Doubles:
    """x / sqrt(1 + (x / 3)^2)."""
    x = np.clip(x, -CLIPPED, CLIPPED)
    return np.asarray(x / np.sqrt(1.0 + (x / 3.0) ** 2))


def one_hot(codes: NDArray[np.intp], count: int) -> Doubles:
    """A column for each of `count` categories, 1 where it is; for one or two categories one column, 1 and -1.

    Code 0, missing or unseen, is 0 in all of them, and -1 where there is one category.
    """
    if count == 0:
        return np.empty((len(codes), 0))
    if count <= 2:
        signs = np.array([-1.0, 1.0] if count == 1 else [0.0, 1.0, -1.0])
        return signs[codes][:, None]
    columns = np.zeros((len(codes), count))
    there = np.flatnonzero(codes)
    columns[there, codes[there] - 1] = 1.0
    return columns


def _filled(numbers: Doubles, means: Doubles, indicated: NDArray[np.intp]) -> tuple[Doubles, Doubles]:
    """Numbers without gaps, and the indicators: 1 where there is a number, -1 where there is none."""
    missing = np.isnan(numbers)
    filled = np.where(missing, means, np.clip(numbers, -LARGEST, LARGEST))
    return filled, np.where(missing[:, indicated], -1.0, 1.0)


def _scale(columns: Doubles) -> tuple[Doubles, Doubles]:
    """Median and factor of each column."""
    if not columns.shape[1]:
        return np.empty(0), np.empty(0)
    low, median, high = np.quantile(columns, [0.25, 0.5, 0.75], axis=0)
    return median, _factor(high - low, columns.max(axis=0) - columns.min(axis=0))


def _factor(between_quartiles: Doubles, whole: Doubles) -> Doubles:
    spread = np.where(between_quartiles > 0, between_quartiles, whole / 2.0)
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray(np.where(spread > 0, np.minimum(1.0 / spread, LARGEST), 0.0))


def _one_hot_scale(codes: NDArray[np.intp], count: int) -> tuple[Doubles, Doubles]:
    """Median and factor of the columns of `one_hot`, worked out from the counts: there may be 10,000 columns."""
    if count <= 2:
        return _scale(one_hot(codes, count))
    n = len(codes)
    ones = np.bincount(codes, minlength=count + 1)[1:]

    def quantile(level: float) -> Doubles:
        """Of n - ones zeros and then ones, between the two that are nearest."""
        place = level * (n - 1)
        below = int(place)
        left, right = (ones >= n - below).astype(np.float64), (ones >= n - min(below + 1, n - 1)).astype(np.float64)
        return np.asarray(left + (right - left) * (place - below))

    whole = ((ones > 0) & (ones < n)).astype(np.float64)
    return quantile(0.5), _factor(quantile(0.75) - quantile(0.25), whole)

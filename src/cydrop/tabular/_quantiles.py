"""A table's columns as TabM takes them (Gorishniy, Kotelnikov and Babenko 2025).

    numbers      by their rank among the training rows, as a quantile of the normal distribution; missing ones become
                 the mean of those, with a column that says so
    categories   one-hot columns of 0 and 1; very many: codes, for a table that is learned (code 0: missing or unseen)

Ranks are linear between the quantiles of the training rows. The authors add noise of 1e-5 to the rows that quantiles
are taken of, so that equal numbers get different ranks and each of them, on the whole, the middle one. Here a number
that is several of the quantiles gets the middle one itself: nothing is drawn, and units do not matter. All that is
learned here is learned from the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cydrop._core.xorshift import normal_quantiles
from cydrop.tabular._columns import Doubles, Value
from cydrop.tabular._preprocessing import LARGEST, Prepared
from cydrop.tabular._table import Table

ROWS_OF_A_QUANTILE = 30
FEWEST, MOST = 10, 1000  # quantiles
TINY = float(np.finfo(np.float64).tiny)
NEAREST = 1e-7  # to 0 and 1, of a rank: 5.2 deviations from the mean


@dataclass(eq=False)
class QuantilePreprocessor:
    """What was learned from the training rows: plain arrays and lists."""

    quantiles: Doubles  # (count, numbers): at evenly spaced levels from 0 to 1; zeros where all cells are missing
    means: Doubles  # (numbers,) of the normal quantiles: what a missing number becomes
    indicated: NDArray[np.intp]  # number columns with an indicator of missing cells
    known: list[list[Value]]  # the known values of each category column, in the order of their codes 1, 2, ...
    embedded: list[bool]  # which category columns stay codes

    @property
    def groups(self) -> tuple[int, ...]:
        """What each column of numbers stands for: a number, an indicator, or one category column, counted from 0."""
        single = self.quantiles.shape[1] + len(self.indicated)
        one_hot = [len(known) for known, embedded in zip(self.known, self.embedded, strict=True) if not embedded]
        found = [*range(single), *(single + place for place, count in enumerate(one_hot) for _ in range(count))]
        return tuple(found) or ((0,) if self.width else ())

    @property
    def width(self) -> int:
        """Columns of numbers; at least one where there are no codes: a network has inputs."""
        one_hot = sum(len(known) for known, embedded in zip(self.known, self.embedded, strict=True) if not embedded)
        return max(self.quantiles.shape[1] + len(self.indicated) + one_hot, 0 if any(self.embedded) else 1)

    @property
    def cardinalities(self) -> NDArray[np.int64]:
        sizes = [len(known) + 1 for known, embedded in zip(self.known, self.embedded, strict=True) if embedded]
        return np.array(sizes, dtype=np.int64)

    def transform(self, table: Table) -> Prepared:
        """The table's rows. No number is NaN or infinite, none is beyond -5.2 and 5.2."""
        n, cardinalities = self.quantiles.shape[1], self.cardinalities
        result = np.zeros((len(table), self.width + len(cardinalities)), dtype=np.float32)
        for place, (x, own, mean) in enumerate(zip(table.numbers.T, self.quantiles.T, self.means, strict=True)):
            missing = np.isnan(x)
            result[:, place] = np.where(missing, mean, normal(x, own))
        result[:, n : n + len(self.indicated)] = np.isnan(table.numbers[:, self.indicated])
        at, code_at = n + len(self.indicated), self.width
        for column, known, embedded in zip(table.categories, self.known, self.embedded, strict=True):
            codes = column.codes_of(known)
            if embedded:
                result[:, code_at] = codes
                code_at += 1
                continue
            there = np.flatnonzero(codes)
            result[there, at + codes[there] - 1] = 1.0
            at += len(known)
        return Prepared(result, cardinalities, n, self.groups)


def fitted_quantiles(table: Table, max_onehot: int) -> QuantilePreprocessor:
    """Learns from the training rows.

    Parameters
    ----------
    table : Table
    max_onehot : int
        Columns with at most so many categories become one-hot columns.
    """
    n, columns = table.numbers.shape
    count = max(min(n // ROWS_OF_A_QUANTILE, MOST), min(FEWEST, n))
    levels = np.linspace(0.0, 1.0, count)
    quantiles, means, indicated = np.zeros((count, columns)), np.zeros(columns), []
    for place, x in enumerate(table.numbers.T):
        present = np.clip(x[~np.isnan(x)], -LARGEST, LARGEST)
        if len(present):
            quantiles[:, place] = np.quantile(present, levels)
            means[place] = normal(present, quantiles[:, place]).sum() / len(present)
        if 0 < len(present) < n:
            indicated.append(place)
    known = [column.present() for column in table.categories]
    embedded = [len(values) > max_onehot for values in known]
    return QuantilePreprocessor(quantiles, means, np.array(indicated, dtype=np.intp), known, embedded)


def normal(x: Doubles, quantiles: Doubles) -> Doubles:
    """The normal quantiles at the ranks of x; NaN becomes anything.

    Parameters
    ----------
    x : ndarray of float64
    quantiles : ndarray of float64
        Of one column, at evenly spaced levels from 0 to 1. Where all are the same, every number is in the middle.
    """
    p = np.clip(ranks(np.clip(x, -LARGEST, LARGEST), quantiles), NEAREST, 1.0 - NEAREST)
    normal_quantiles(p)
    return p


def ranks(x: Doubles, quantiles: Doubles) -> Doubles:
    """From 0 to 1, linear between quantiles; of a number that is several of them the middle of their levels."""
    count = len(quantiles)
    if quantiles[0] == quantiles[-1]:
        return np.full(len(x), 0.5)
    levels = np.linspace(0.0, 1.0, count)
    x = np.where(np.isnan(x), quantiles[0], x)
    left, right = (np.searchsorted(quantiles, x, side) for side in ("left", "right"))
    above = np.clip(left, 1, count - 1)
    gap = quantiles[above] - quantiles[above - 1]
    with np.errstate(over="ignore"):  # of a gap of 0 what is above the largest quantile is all the way there
        share = (x - quantiles[above - 1]) / np.where(gap > 0, gap, TINY)
    between = levels[above - 1] + np.clip(share, 0.0, 1.0) * (levels[above] - levels[above - 1])
    middle = (levels[np.minimum(left, count - 1)] + levels[np.maximum(right - 1, 0)]) / 2
    return np.asarray(np.where(left < right, middle, between))

"""Rows of a table with their targets, and the networks that were trained on a part of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base.arrays import Floats
from cydrop.history import History
from cydrop.network import Network
from cydrop.tabular._columns import Doubles
from cydrop.tabular._recipe import AnyPreprocessor
from cydrop.tabular._table import Table
from cydrop.tabular._targets import Standard


@dataclass(eq=False)
class Part:
    """The networks that were trained on one split of the rows."""

    preprocessor: AnyPreprocessor
    standard: Standard | None  # of numbers
    networks: list[Network] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)
    best_epochs: list[int] = field(default_factory=list)  # those that were kept, counted from 1
    share: int = 1  # how often its networks count in the mean


@dataclass(eq=False)
class Rows:
    """Rows of a table, with their targets and weights."""

    table: Table
    y: NDArray[Any]  # codes of classes, (n,), or numbers, (n, targets)
    weight: Doubles  # above 0

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: NDArray[np.intp]) -> Rows:
        return Rows(self.table.take(rows), self.y[rows], self.weight[rows])

    def scaled_weight(self) -> Floats | None:
        """The weights with a mean of 1; None where all are the same."""
        if (self.weight == self.weight[0]).all():
            return None
        return (self.weight / self.weight.mean()).astype(np.float32)

    def merged(self) -> Rows:
        """Sorted rows, equal ones merged to one of their joint weight."""
        columns = self.y.reshape(len(self), -1).astype(np.float64) + 0.0
        keys = np.ascontiguousarray(np.hstack([self.table.keys(), columns]))
        whole = keys.view(np.dtype((np.void, keys.dtype.itemsize * keys.shape[1]))).ravel()
        _, first, group = np.unique(whole, return_index=True, return_inverse=True)
        result = self.take(first)
        result.weight = np.bincount(group, weights=self.weight).astype(np.float64)
        return result

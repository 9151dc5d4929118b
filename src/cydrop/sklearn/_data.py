"""The rows to train on: checked, weighted and merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from cydrop._base import checks
from cydrop._base.arrays import Floats


@dataclass(eq=False)
class Data:
    """Checked rows, in the form that `Network.fit` takes."""

    X: Floats
    target: NDArray[Any]  # (n,) codes of classes, or (n, outputs) of 0 and 1 or of numbers
    weight: NDArray[np.float64]  # above 0
    unit: NDArray[np.float64] | float = 1.0  # of held-out rows of a regression: the variance of the training targets

    def take(self, rows: NDArray[np.intp]) -> Data:
        return Data(self.X[rows], self.target[rows], self.weight[rows])

    def of_weight(self) -> Data:
        """Without the rows of weight 0."""
        return self if (self.weight > 0).all() else self.take(np.flatnonzero(self.weight > 0))

    def scaled_weight(self, factor: float) -> NDArray[np.float64]:
        """The rows' weights with a mean of 1, times the loss's factor."""
        return self.weight * (factor / self.weight.mean())

    def variance(self) -> NDArray[np.float64]:
        """Of each column of the targets; 1 where it is 0."""
        y = self.target.reshape(len(self.X), -1).astype(np.float64)
        variance = np.average((y - np.average(y, axis=0, weights=self.weight)) ** 2, axis=0, weights=self.weight)
        return np.where(variance > 0, variance, 1.0)


def checked_rows(
    estimator: BaseEstimator, X: Any, y: Any, *, reset: bool, numeric: bool
) -> tuple[Floats, NDArray[Any]]:
    """X and y as scikit-learn checks them, dense; `numeric`: y is made numbers."""
    X, y = validate_data(
        estimator, X, y, reset=reset, dtype=np.float32, order="C", accept_sparse="csr",
        multi_output=True, y_numeric=numeric,
    )  # fmt: skip
    return X.toarray() if sparse.issparse(X) else X, y.toarray() if sparse.issparse(y) else y


def checked_weights(given: ArrayLike | None, rows: int) -> NDArray[np.float64]:
    if given is None:
        return np.ones(rows)
    weight = checks.weights("sample_weight", given, rows).astype(np.float64)
    if not weight.any():
        raise ValueError("sample_weight must have at least one weight above 0: all of them are zero in float32")
    return weight


def merged(data: Data) -> Data:
    """Sorted rows, equal ones merged to one of their joint weight.

    Where all rows are in every batch their order and repetition cannot matter; here they do not matter in the bits
    either: three equal rows, or one of weight 3, give the same network.
    """
    columns = data.target.reshape(len(data.X), -1).astype(np.float32)
    table = np.ascontiguousarray(np.hstack([data.X, columns]) + np.float32(0.0))  # + 0: there is one zero only
    rows = table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1]))).ravel()
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    result = data.take(first)
    result.weight = np.bincount(group, weights=data.weight).astype(np.float64)
    return result

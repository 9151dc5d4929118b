"""Arguments of the scores, checked."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks

Doubles: TypeAlias = NDArray[np.float64]

SUM_TOLERANCE = 1e-3  # of the probabilities of a row, whose sum is 1 but for rounding


def values(name: str, value: Any, rows: int | None = None, of: str = "predicted", called: str = "value") -> Doubles:
    """Finite numbers, one for each row."""
    given = checks.array(name, value).astype(np.float64)
    if given.ndim not in (1, 2) or (given.ndim == 2 and given.shape[1] != 1) or not given.size:
        raise ValueError(f"{name} must have shape (n,) or (n, 1) with n at least 1, got {given.shape}")
    if rows is not None and len(given) != rows:
        raise ValueError(f"{name} must have a {called} for each of the {rows} rows of {of}, got {len(given)}")
    wrong = ~np.isfinite(given)
    if wrong.any():
        raise ValueError(f"{name} has {int(wrong.sum())} values that are NaN or infinite")
    return given.reshape(-1)


def labels(y: Any, rows: int, of: str, classes: int) -> NDArray[np.intp]:
    """Labels 0..classes - 1, one for each row."""
    given = values("y", y, rows, of, "label")
    wrong = (given != np.floor(given)) | (given < 0) | (given >= classes)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(f"y must be labels 0..{classes - 1}, got {given[first]:g} at index {first}")
    return given.astype(np.intp)


def ends(given: NDArray[Any], name: str = "predicted") -> tuple[Doubles, Doubles]:
    """Lower and upper ends of intervals, which may be infinite."""
    if given.ndim != 2 or given.shape[1] != 2 or not len(given):
        raise ValueError(
            f"{name} must be intervals, lower and upper ends of shape (n, 2) with n at least 1, or sets, of bool and "
            f"shape (n, classes); got {given.dtype} of shape {given.shape}"
        )
    lower, upper = given.astype(np.float64).T
    wrong = ~(lower <= upper)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{name} has an interval whose lower end is not below its upper one: {lower[first]:g} to {upper[first]:g} "
            f"in row {first}"
        )
    return lower, upper


def members(given: NDArray[np.bool_], name: str = "predicted") -> NDArray[np.bool_]:
    """Sets: which classes are in them."""
    if given.ndim != 2 or not given.size:
        raise ValueError(f"{name} must be sets of shape (n, classes) with n at least 1, got {given.shape}")
    return given


def probabilities(proba: Any, name: str = "proba") -> Doubles:
    """Of the classes, (n, k) with rows that sum to 1, or of label 1, (n,)."""
    p = checks.array(name, proba).astype(np.float64)
    single = p.ndim == 1 or (p.ndim == 2 and p.shape[1] == 1)
    if p.ndim not in (1, 2) or not p.size:
        raise ValueError(f"{name} must have shape (n,), (n, 1) or (n, k) with n at least 1, got {p.shape}")
    if not ((p >= 0) & (p <= 1 + SUM_TOLERANCE)).all():
        raise ValueError(f"{name} must be probabilities in [0, 1], as predict gives them")
    if not single and np.abs(p.sum(axis=1) - 1).max() > SUM_TOLERANCE:
        raise ValueError(
            f'the rows of {name} must sum to 1; for several labels of "binary_cross_entropy" look at one column at a '
            "time"
        )
    return p.reshape(-1) if single else p


def of_quantiles(predictions: Any, quantiles: Any, name: str = "predictions") -> tuple[Doubles, Doubles]:
    """Predicted quantiles, a column each, and their levels."""
    levels = np.atleast_1d(checks.array("quantiles", quantiles)).astype(np.float64)
    if levels.ndim != 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"quantiles must be numbers between 0 and 1, 0.05 for the lowest 5 percent, got {quantiles!r}")
    given = checks.array(name, predictions).astype(np.float64)
    given = given.reshape(-1, 1) if given.ndim == 1 else given
    if given.ndim != 2 or given.shape[1] != len(levels) or not len(given):
        raise ValueError(
            f"{name} must have a row for each of y and a column for each of {len(levels)} quantiles, got shape "
            f"{given.shape}"
        )
    return given, levels

"""What is to be learned: classes as codes, or numbers in units of their spread."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d

from cydrop._base import checks
from cydrop.tabular._columns import Doubles, is_missing

MOST = 1e305  # of a target: sums of predictions, and their spread in units of it, stay finite
FARTHEST = 1e15  # spreads from the mean that a held-out target is taken for at most: its square stays in float32


COMPLEX = "Complex data not supported"  # how scikit-learn begins, and wants others to begin


@dataclass(eq=False)
class Standard:
    """Numbers in units of the training targets' spread; in float64, a value a target."""

    shift: Doubles  # mean
    scale: Doubles  # population standard deviation; 0 of a constant target
    low: Doubles  # the range of the training targets
    high: Doubles

    @classmethod
    def of(cls, y: Doubles, weight: Doubles) -> Standard:
        """Of the training rows' targets, (n, targets)."""
        low, high = y.min(axis=0), y.max(axis=0)
        unit = np.maximum(np.maximum(-low, high), np.finfo(np.float64).tiny)
        mean = np.average(y / unit, axis=0, weights=weight)
        spread = np.sqrt(np.average((y / unit - mean) ** 2, axis=0, weights=weight))
        same = low == high
        return cls(np.where(same, low, mean * unit), np.where(same, 0.0, spread * unit), low, high)

    def applied(self, y: Doubles) -> NDArray[np.float32]:
        scale = np.where(self.scale > 0, self.scale, 1.0)
        with np.errstate(over="ignore"):  # of a held-out target that is far away
            z = y / scale - self.shift / scale if np.abs(y).max() > 1e300 else (y - self.shift) / scale
        return np.clip(z, -FARTHEST, FARTHEST).astype(np.float32)

    def undone(self, z: NDArray[Any], clamped: bool) -> Doubles:
        """Values of the network's outputs, the targets in the last dimension; `clamped` to the training targets'
        range."""
        y = z.astype(np.float64) * self.scale + self.shift
        return np.clip(y, self.low, self.high) if clamped else np.asarray(y)


def _refuse_not_finite(y: NDArray[Any], name: str) -> None:
    missing, infinite = (test(y).reshape(len(y), -1).any(axis=1).nonzero()[0].tolist() for test in (np.isnan, np.isinf))
    if missing:
        raise ValueError(f"Input {name} contains NaN: {_rows(missing)} missing values; leave these rows out")
    if infinite:
        raise ValueError(f"Input {name} contains infinity: {_rows(infinite)} it; leave these rows out")


def _rows(found: list[int]) -> str:
    """ "rows 3, 7 and 5 others have"."""
    shown = ", ".join(map(str, found[:3]))
    more = f" and {len(found) - 3:,} others" if len(found) > 3 else ""
    return f"row {shown} has" if len(found) == 1 else f"rows {shown}{more} have"


# Classes ----------------------------------------------------------------------------------------------------


def checked_labels(y: Any, name: str = "y") -> NDArray[Any]:
    try:
        labels: NDArray[Any] = column_or_1d(y, warn=True)
    except ValueError as error:
        if str(error).startswith(COMPLEX):  # and goes on with all numbers
            raise ValueError(f"{COMPLEX}: {name} holds complex numbers") from None
        raise
    if labels.dtype.kind == "O":
        labels = _of_one_type(labels, name)
    if labels.dtype.kind == "f":
        _refuse_not_finite(labels, name)
    check_classification_targets(labels)
    return labels


def _of_one_type(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Labels that are objects: as they are where they are text, as an array of numbers where they are that."""
    missing = [row for row, label in enumerate(labels.tolist()) if is_missing(label)]
    if missing:
        raise ValueError(f"Input {name} contains NaN: {_rows(missing)} missing labels; leave these rows out")
    types = {type(label) for label in labels.tolist()}
    if all(issubclass(kind, numbers.Real | np.bool_) for kind in types):
        return np.array(labels.tolist())
    if any(issubclass(kind, str) for kind in types) and not all(issubclass(kind, str) for kind in types):
        found = ", ".join(sorted(kind.__name__ for kind in types))
        raise ValueError(f"{name} has labels of several types ({found}); make all of them text")
    return labels


def codes_of(labels: NDArray[Any], classes: NDArray[Any], name: str) -> NDArray[np.int64]:
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(f"{name} has classes {unknown} that are not among those of y, {classes}")
    return np.searchsorted(classes, labels).astype(np.int64)


def class_factors(given: Any, classes: NDArray[Any], codes: NDArray[np.int64], weight: Doubles) -> Doubles:
    """The factor of each class, by `class_weight`; a row of weight 2 counts as two."""
    if given is None:
        return np.ones(len(classes))
    if isinstance(given, str):
        checks.one_of("class_weight", given, ("balanced",), "a dict of labels and weights", "None")
        sums = np.bincount(codes, weights=weight)
        return np.asarray(weight.sum() / (len(classes) * sums))
    if not isinstance(given, Mapping):
        raise TypeError(f"class_weight must be a dict of labels and weights, 'balanced' or None, got {given!r}")
    known = classes.tolist()
    if not given.keys() <= set(known) and not set(known) <= given.keys():
        unknown = [label for label in given if label not in known]
        raise ValueError(f"class_weight names {unknown}, which are no labels of y: y has {known}")
    return np.array([
        checks.number(f"class_weight[{label!r}]", given.get(label, 1.0), 0.0, low_open=True) for label in known
    ])  # fmt: skip


# Numbers ----------------------------------------------------------------------------------------------------


def checked_numbers(y: Any, name: str = "y") -> Doubles:
    """Targets as they came, (n,) or (n, targets), in float64."""
    try:
        dtype = np.asarray(y).dtype
        if dtype.kind in "mM":
            raise TypeError(f"{name} holds dates or times ({dtype}); make numbers of them first")
        if dtype.kind == "c":
            raise ValueError(f"{COMPLEX}: {name} holds complex numbers")
        y = check_array(y, ensure_2d=False, allow_nd=True, dtype=np.float64, ensure_all_finite=False, input_name=name)
    except (TypeError, ValueError) as error:
        if not str(error).startswith(("could not convert", "float() argument", "Input should have at least 1")):
            raise
        raise type(error)(f"{name} must hold numbers, one a row ({error}); labels are for classifiers") from None
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    if y.ndim > 2 or not y.shape[-1]:
        raise ValueError(f"{name} must be of shape (n_samples,) or (n_samples, n_targets), got {y.shape}")
    _refuse_not_finite(y, name)
    if np.abs(y).max() > MOST:
        raise ValueError(f"{name} has numbers beyond {MOST:g}; give them in other units")
    return np.asarray(y)

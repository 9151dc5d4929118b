"""Checks of what users pass in: each returns the argument in the form that the engine takes, or raises.

Messages name the argument, say what came and what was expected. Nothing is changed before all checks passed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cydrop._core.engine import all_finite

Floats = NDArray[np.float32]
T = TypeVar("T")

MOST_UNITS = 2**48  # of a layer, and columns of X: beyond any memory


def array(name: str, value: Any) -> NDArray[Any]:
    """A real numeric array of any shape: not complex, not text, not objects, not sparse."""
    if hasattr(value, "toarray") and not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is a sparse matrix ({type(value).__name__}); make it dense with .toarray()")
    try:
        result = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} cannot be made into an array: {error}") from None
    if result.dtype.kind == "c":
        raise TypeError(f"{name} must be real, got complex numbers ({result.dtype})")
    if result.dtype.kind not in "biuf":
        what = {"U": "text", "S": "bytes", "O": "Python objects", "M": "dates", "m": "time spans"}
        raise TypeError(
            f"{name} must be numeric, got {what.get(result.dtype.kind, 'another kind')} (dtype {result.dtype}); "
            "convert or encode it first"
        )
    return result


def floats(name: str, value: Any, n_threads: int = 1) -> Floats:
    """A contiguous float32 array of any shape whose elements are finite."""
    given = array(name, value)
    if given.dtype == np.float32 and given.flags.c_contiguous:
        result = given
    else:
        with np.errstate(all="ignore"):
            result = np.ascontiguousarray(given, dtype=np.float32).reshape(given.shape)
    if not all_finite(result.reshape(-1), n_threads):
        _raise_for_first_non_finite(name, given, result)
    return result


def _raise_for_first_non_finite(name: str, given: NDArray[Any], result: Floats) -> None:
    bad = ~np.isfinite(result)
    place = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), result.shape))
    where = f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"index {', '.join(map(str, place))}"
    if np.isfinite(given[place]):
        raise ValueError(f"{name} has a value too large for float32: {given[place]} at {where}")
    kind = "NaN" if np.isnan(result[place]) else "infinity"
    raise ValueError(f"{name} has {int(bad.sum())} values that are NaN or infinite, the first {kind} at {where}")


def matrix(name: str, value: Any, columns: int | None = None, n_threads: int = 1) -> Floats:
    """Rows of features: 2-D, not empty, of the given width."""
    result = floats(name, value, n_threads)
    if result.ndim != 2:
        hint = f"; one row is {name}.reshape(1, -1)" if result.ndim == 1 else ""
        raise ValueError(f"{name} must be 2-D, (n_samples, n_features), got shape {result.shape}{hint}")
    if 0 in result.shape:
        raise ValueError(f"{name} is empty: shape {result.shape}")
    if columns is not None and result.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns, got {result.shape[1]} (shape {result.shape})")
    return result


def labels(name: str, value: Any, rows: int, classes: int) -> NDArray[np.int32]:
    """Class labels: integers 0..classes-1, one a row."""
    given = array(name, value)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1:
        hint = f"; one-hot rows become labels with {name}.argmax(axis=1)" if given.ndim == 2 else ""
        raise ValueError(f"{name} must be 1-D class labels, got shape {given.shape}{hint}")
    check_rows(name, given, rows)
    if given.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            wrong = ~(given == np.floor(given)) | ~np.isfinite(given)
        if wrong.any():
            first = int(wrong.argmax())
            raise ValueError(f"{name} must be integer class labels, got {given[first]} at index {first}")
    low, high = given.min(), given.max()
    if low < 0 or high >= classes:
        first = int(((given < 0) | (given >= classes)).argmax())
        raise ValueError(
            f"{name} must be class labels 0..{classes - 1} (the last layer has {classes} units), "
            f"got {given[first]} at index {first}"
        )
    return np.ascontiguousarray(given, dtype=np.int32)


def targets(name: str, value: Any, rows: int, columns: int, *, binary: bool) -> Floats:
    """Targets of shape (rows, columns); (rows,) will do where there is one column. Binary: all 0 or 1."""
    result = floats(name, value)
    if result.ndim == 1 and columns == 1:
        result = result.reshape(-1, 1)
    if result.ndim != 2 or result.shape[1] != columns:
        expected = f"({rows},) or ({rows}, 1)" if columns == 1 else f"({rows}, {columns})"
        raise ValueError(f"{name} must have shape {expected}, got {result.shape}")
    check_rows(name, result, rows)
    if binary:
        wrong = (result != 0) & (result != 1)
        if wrong.any():
            row, column = divmod(int(wrong.argmax()), columns)
            raise ValueError(f"{name} must be 0 or 1, got {result[row, column]} at row {row}, column {column}")
    return result


def check_rows(name: str, value: NDArray[Any], rows: int) -> None:
    if len(value) != rows:
        raise ValueError(f"{name} must have a row for each of the {rows} rows of X, got {len(value)}")


def weights(name: str, value: Any, rows: int) -> Floats:
    """A weight for each row, none negative."""
    result = floats(name, value)
    if result.shape != (rows,):
        raise ValueError(f"{name} must have shape ({rows},), got {result.shape}")
    if (result < 0).any():
        first = int((result < 0).argmax())
        raise ValueError(f"{name} must not be negative, got {result[first]} at index {first}")
    return result


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """An integer of at least `low` (and at most `high`); booleans and floats are not integers."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if result < low:
        raise ValueError(f"{name} must be at least {low}, got {result}")
    if high is not None and result > high:
        raise ValueError(f"{name} must be at most {high}, got {result}")
    return result


def number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
    single: bool = False,
) -> float:
    """A finite real number between low and high, which belong to the range unless open.

    `single`: the kernels use it as float32, so that it must be in the range when rounded to that, too: 1e-300 is above
    0 but becomes 0.
    """
    if isinstance(value, str | bytes | complex | bool | np.bool_):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        result = float(value)
    except OverflowError:  # of an int of more than 308 digits
        result = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})") from None
    with np.errstate(over="ignore", under="ignore"):
        held = float(np.float32(result)) if single else result
    for used in (result, held):
        inside = (low < used if low_open else low <= used) and (used < high if high_open else used <= high)
        if not math.isfinite(used) or not inside:
            if high == math.inf:
                bound = f" {'above' if low_open else 'of at least'} {low:g}" if low > -math.inf else ""
                expected = f"a finite number{bound}"
            else:
                expected = f"in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
            rounded = f", which float32 rounds to {held:g}" if used != result else ""
            raise ValueError(f"{name} must be {expected}, got {value!r}{rounded}")
    return result


def rate(name: str, value: Any) -> float:
    """A probability of dropping: a number in [0, 1]."""
    return number(name, value, 0.0, 1.0)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def choice(name: str, value: Any, known: Mapping[str, T]) -> T:
    """The entry of `known` that a string names."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r} ({type(value).__name__})")
    if value not in known:
        raise ValueError(f"{name}={value!r} is not known; known are {', '.join(map(repr, known))}")
    return known[value]


def mask(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A boolean keep-mask (True keeps) of exactly this shape; 0 and 1 of any dtype will do."""
    given = array(name, value)
    if given.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {given.shape}")
    if given.dtype.kind != "b":
        if not ((given == 0) | (given == 1)).all():
            raise ValueError(f"{name} must be boolean (True keeps) or all 0 and 1, got other values ({given.dtype})")
        given = given != 0
    return np.ascontiguousarray(given)

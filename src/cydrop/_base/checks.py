"""Checks of what users pass in: each returns the argument in the form that the engine takes, or raises.

Messages name the argument, say what was given and what was expected. Nothing is changed before all checks have passed.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cydrop._base import mapped
from cydrop._base.arrays import Floats
from cydrop._core.engine import all_finite

T = TypeVar("T")

MOST_UNITS = 2**31 - 1  # of a layer, and columns of X: beyond any memory
MOST_SAMPLES = 2**31 - 1  # of Monte Carlo dropout: beyond any patience


_KINDS = {
    "U": "text", "T": "text", "S": "bytes", "O": "Python objects", "M": "dates", "m": "time spans",
}  # fmt: skip
_UNSIGNED = {np.dtype(f"i{size}"): np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
_SMALL_FLOATS = re.compile(r"(bfloat|float|u?int)\d")  # what ml_dtypes adds: bfloat16, float8_e4m3fn, int4, ...


def array(name: str, value: Any) -> NDArray[Any]:
    """A real numeric array of any shape: not complex, not text, not objects, not sparse.

    In addition to what numpy.asarray takes: tables of numbers and booleans (pandas, polars, pyarrow) whatever their
    columns' types, as long as nothing is missing; tensors that require gradients; bfloat16 and its like, as float32.
    """
    if type(value) is np.ndarray:
        dtype = value.dtype
        return value if dtype.isbuiltin == 1 and dtype.kind in "biuf" else _numeric(name, value)
    if hasattr(value, "toarray") and not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is a sparse matrix ({type(value).__name__}); make it dense with .toarray()")
    _refuse_masked(name, value)
    columns = _columns(value)
    if columns is not None:
        parts = []
        for label, column in columns:
            if _is_category(column):
                raise TypeError(f"{name} column {label!r} is of categories; encode it first (pandas.get_dummies)")
            parts.append(_column(f"{name} column {label!r}", column))
        lengths = {len(part) for part in parts}
        if not parts or len(lengths) != 1:
            return np.empty((len(value), 0), dtype=np.float32)
        return np.stack(parts, axis=1, dtype=np.result_type(*parts))  # in C order: (rows, columns)
    if _is_column(value):
        return _column(name, value)
    return _numeric(name, _converted(name, value))


def _converted(name: str, value: Any) -> NDArray[Any]:
    """numpy.asarray, also of tensors (PyTorch's) that require gradients, lie on another device or are bfloat16."""
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            value = value.detach().cpu()
            try:
                return np.asarray(value)
            except TypeError:  # a type that NumPy does not know
                return np.asarray(value.float())
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be made into an array: {error}") from None


def _numeric(name: str, given: NDArray[Any], called: Any = None) -> NDArray[Any]:
    """The array itself if it is of real numbers; bfloat16 and its like as float32. `called`: what its owner calls its
    type."""
    kind = given.dtype.kind
    if given.dtype.isbuiltin == 2 and _SMALL_FLOATS.match(given.dtype.name):
        return given.astype(np.float32)
    if kind in "biuf":
        return given
    if kind == "c" or "complex" in given.dtype.name:
        raise TypeError(f"{name} must be real, got complex numbers ({given.dtype})")
    raise TypeError(
        f"{name} must be numeric, got {_KINDS.get(kind, 'another kind')} (dtype {called or given.dtype}); "
        "convert or encode it first"
    )


def _refuse_masked(name: str, value: Any) -> None:
    """Raises for masked arrays with a masked entry: what lies beneath a mask is not data."""
    masked = 0
    rows = isinstance(value, list | tuple) and len(value) > 0 and isinstance(value[0], list | tuple | np.ndarray)
    for part in value if rows else (value,):
        mask = getattr(part, "mask", None) if isinstance(part, np.ndarray) and type(part) is not np.ndarray else None
        masked += 0 if mask is None else int(np.count_nonzero(mask))
    if masked:
        raise ValueError(
            f"{name} is a masked array with {masked} masked entries, which are no data: fill them (.filled(value)) or "
            "leave their rows out (of several targets, a weight of 0 leaves single ones out)"
        )


def _columns(value: Any) -> list[tuple[Any, Any]] | None:
    """(label, column) of a table that does not come as one numeric array by itself, None of anything else."""
    if hasattr(value, "iloc") and hasattr(value, "columns"):  # pandas
        types = set(value.dtypes)
        if len(types) == 1 and isinstance(next(iter(types)), np.dtype) and next(iter(types)).kind in "biuf":
            return None
        return [(label, value.iloc[:, place]) for place, label in enumerate(value.columns)]
    if hasattr(value, "get_columns") and hasattr(value, "schema"):  # polars
        return [(column.name, column) for column in value.get_columns()]
    if hasattr(value, "column_names") and hasattr(value, "schema"):  # pyarrow
        return list(zip(value.column_names, value.columns, strict=True))
    return None


def _is_column(value: Any) -> bool:
    """Whether this is a column of a table, in a type that NumPy does not have."""
    dtype = getattr(value, "dtype", None)
    if hasattr(value, "null_count") and (dtype is not None or hasattr(value, "type")):  # polars, pyarrow
        return True
    # a category's values may be numbers: classes, as a column of y
    return dtype is not None and hasattr(value, "isna") and not isinstance(dtype, np.dtype) and hasattr(dtype, "kind")


def _is_category(column: Any) -> bool:
    """Whether a table's column holds categories: their numbers, if they are numbers, are names and no sizes."""
    dtype = getattr(column, "dtype", getattr(column, "type", None))
    return getattr(dtype, "name", None) == "category" or str(dtype).lower().startswith(("dictionary", "categorical"))


def _column(name: str, column: Any) -> NDArray[Any]:
    """One column of a table: numbers or booleans, none missing."""
    dtype: Any = getattr(column, "dtype", getattr(column, "type", None))
    if hasattr(column, "isna"):
        extension = not isinstance(dtype, np.dtype)
        missing = np.asarray(column.isna(), dtype=np.bool_) if extension and dtype.kind in "biuf" else None
    elif hasattr(column, "null_count"):
        gaps = column.null_count
        missing = np.asarray(column.is_null()) if (gaps() if callable(gaps) else gaps) else None
    else:
        missing = None
    if missing is not None and missing.any():
        raise ValueError(
            f"{name} has {int(missing.sum())} values that are missing (NA), the first at row {int(missing.argmax())}: "
            "fill them or leave their rows out first"
        )
    numpy_type = getattr(dtype, "numpy_dtype", None)  # of pandas' nullable types
    given = column.to_numpy(dtype=numpy_type) if numpy_type is not None and numpy_type.kind in "biuf" else column
    return _numeric(name, _converted(name, given), dtype)


def floats(name: str, value: Any, n_threads: int = 1, *, own: bool = False, part: slice | None = None) -> Floats:
    """A contiguous float32 array of any shape whose elements are finite.

    `own`: never the caller's memory, so that what was checked is what will be read. Without it an array that is
    contiguous float32 already is used in place. `part`: of the rows only these are checked, and nothing else is read.
    """
    given = array(name, value)
    if mapped.in_place(given):
        result = given.copy() if own else given
    else:
        mapped.check_copy(name, given)
        with np.errstate(all="ignore"):
            result = np.array(given, dtype=np.float32, order="C", subok=False)
    if (result.base is None and part is None) or not result.ndim:
        finite = all_finite(result.reshape(-1), n_threads)
    elif mapped.file_of(result) is None:
        finite = all_finite(result[part or slice(None)].reshape(-1), n_threads)
    else:  # a piece is too short for several threads
        finite = all(all_finite(result[rows].reshape(-1), 1) for rows in mapped.pieces(result, part))
    if not finite:
        _raise_for_first_non_finite(name, given, result, part)
    return result


def _raise_for_first_non_finite(name: str, given: NDArray[Any], result: Floats, part: slice | None) -> None:
    if not result.ndim:
        given, result = given.reshape(1), result.reshape(1)
    place, count = None, 0
    for rows in mapped.pieces(result, part):
        bad = ~np.isfinite(result[rows])
        count += int(np.count_nonzero(bad))
        if place is None and count:
            first, *others = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
            place = (rows.start + first, *others)
    if place is None:  # what was found is no longer there: another thread writes into it
        place = (0,) * result.ndim
    where = f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"index {', '.join(map(str, place))}"
    if np.isfinite(given[place]):
        raise ValueError(f"{name} has a value too large for float32: {given[place]} at {where}")
    kind = "NaN" if np.isnan(result[place]) else "infinity"
    raise ValueError(f"{name} has {count} values that are NaN or infinite, the first {kind} at {where}")


def matrix(name: str, value: Any, columns: int | None = None, n_threads: int = 1, part: slice | None = None) -> Floats:
    """Rows of features: 2-D, not empty, of the given width; finite in these rows."""
    result = floats(name, value, n_threads, part=part)
    if result.ndim != 2:
        hint = f"; one row is {name}.reshape(1, -1)" if result.ndim == 1 else ""
        raise ValueError(f"{name} must be 2-D, (n_samples, n_features), got shape {result.shape}{hint}")
    if 0 in result.shape:
        raise ValueError(f"{name} is empty: shape {result.shape}")
    if columns is not None and result.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns, got {result.shape[1]} (shape {result.shape})")
    return result


def labels_or_probabilities(name: str, value: Any, rows: int, classes: int) -> NDArray[np.int32] | Floats:
    """What cross-entropy takes: labels of shape (rows,), or class probabilities of shape (rows, classes)."""
    given = array(name, value)
    if given.ndim == 2 and given.shape[1] == classes and classes > 1:
        return probabilities(name, given, rows)
    return labels(name, given, rows, classes)


def labels(name: str, given: NDArray[Any], rows: int, classes: int) -> NDArray[np.int32]:
    """Class labels: integers 0..classes-1, one per row. A copy: kernels find their places by them."""
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1:
        raise ValueError(
            f"{name} must be 1-D class labels, or class probabilities of shape ({rows}, {classes}), "
            f"got shape {given.shape}"
        )
    check_rows(name, given, rows)
    result = np.empty(rows, dtype=np.int32)
    for part in mapped.pieces(given):
        own = np.array(given[part])  # first: nobody else can change what is checked now
        if own.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                wrong = ~(own == np.floor(own)) | ~np.isfinite(own)
            if wrong.any():
                first = int(wrong.argmax())
                raise ValueError(f"{name} must be integer class labels, got {own[first]} at index {part.start + first}")
        unsigned = _UNSIGNED.get(own.dtype)  # in which negative numbers are the largest
        inside = own.min() >= 0 and own.max() < classes if unsigned is None else own.view(unsigned).max() < classes
        if not inside:
            first = int(((own < 0) | (own >= classes)).argmax())
            raise ValueError(
                f"{name} must be class labels 0..{classes - 1} (the last layer has {classes} units), "
                f"got {own[first]} at index {part.start + first}"
            )
        result[part] = own
    return result


def probabilities(name: str, value: Any, rows: int) -> Floats:
    """Class probabilities: rows of numbers >= 0 that sum to 1 within 1e-3, divided by their sum in float64."""
    given = floats(name, value, own=True)
    check_rows(name, given, rows)
    if (given < 0).any():
        row, column = divmod(int((given < 0).argmax()), given.shape[1])
        raise ValueError(
            f"{name} must be class probabilities, none negative, got {given[row, column]:.6g} "
            f"at row {row}, column {column}"
        )
    total = given.sum(axis=1, dtype=np.float64)
    wrong = np.abs(total - 1.0) > 1e-3
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{name} must be class probabilities: each row sums to 1 (within 0.001), got {total[row]:.6g} at row {row}"
        )
    np.divide(given, total[:, None], out=given, casting="same_kind")
    return given


def targets(name: str, value: Any, rows: int, columns: int, *, binary: bool) -> Floats:
    """Targets of shape (rows, columns); (rows,) will do where there is one column. Binary: all in [0, 1].

    A copy, unless they lie in a file as the engine takes them: no place in memory depends on them.
    """
    given = array(name, value)
    result = floats(name, given, own=mapped.file_of(given) is None)
    if result.ndim == 1 and columns == 1:
        result = result.reshape(-1, 1)
    if result.ndim != 2 or result.shape[1] != columns:
        expected = f"({rows},) or ({rows}, 1)" if columns == 1 else f"({rows}, {columns})"
        raise ValueError(f"{name} must have shape {expected}, got {result.shape}")
    check_rows(name, result, rows)
    if binary:
        for part in mapped.pieces(result):
            wrong = (result[part] < 0) | (result[part] > 1)
            if wrong.any():
                first, column = divmod(int(wrong.argmax()), columns)
                row = part.start + first
                raise ValueError(
                    f"{name} must be 0 or 1, or a probability between, got {result[row, column]} "
                    f"at row {row}, column {column}"
                )
    return result


def check_rows(name: str, value: NDArray[Any], rows: int) -> None:
    if len(value) != rows:
        raise ValueError(f"{name} must have a row for each of the {rows} rows of X, got {len(value)}")


def weights(name: str, value: Any, rows: int, columns: int = 0) -> Floats:
    """A weight for each row, or, where there are `columns` of targets, for each target; none negative. A copy."""
    result = floats(name, value, own=True)
    if result.shape != (rows,) and not (columns and result.shape == (rows, columns)):
        each = f", or ({rows}, {columns}) for a weight of each target" if columns else ""
        raise ValueError(f"{name} must have shape ({rows},){each}, got {result.shape}")
    if (result < 0).any():
        first = tuple(int(i) for i in np.unravel_index(int((result < 0).argmax()), result.shape))
        where = f"index {first[0]}" if len(first) == 1 else f"row {first[0]}, column {first[1]}"
        raise ValueError(f"{name} must not be negative, got {result[first]} at {where}")
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

    `single`: the kernels use it as float32, so it must be in the range when rounded to that, too: 1e-300 is above 0 but
    becomes 0.
    """
    if isinstance(value, str | bytes | complex | bool | np.bool_):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        result = float(value)
    except OverflowError:  # of an int of more than 308 digits
        result = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})") from None
    held = _single(result) if single else result
    if type(value) is float and low < result < high and low < held < high:  # nothing is at the edge
        return result
    for used in (result, held):
        inside = (low < used if low_open else low <= used) and (used < high if high_open else used <= high)
        if not math.isfinite(used) or not inside:
            if high == math.inf:
                bound = f" {'above' if low_open else 'of at least'} {low:g}" if low > -math.inf else ""
                expected = f"a finite number{bound}"
            else:
                expected = f"in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
            rounded = f", which float32 rounds to {held:g}" if used is not result and math.isfinite(result) else ""
            raise ValueError(f"{name} must be {expected}, got {value!r}{rounded}")
    return result


def _single(value: float) -> float:
    """As float32 has it."""
    if 1e-30 < abs(value) < 1e30:
        return float(np.float32(value))
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(value))


def rate(name: str, value: Any) -> float:
    """A probability of dropping: a number in [0, 1]."""
    return number(name, value, 0.0, 1.0)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def one_of(name: str, value: Any, known: Collection[str], *others: str) -> str:
    """The string itself, if it is among those that are known. `others`: what else than strings the caller takes, for
    the message."""
    listed = ", ".join([*map(repr, known), *others])
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {listed}, got {value!r} ({type(value).__name__})")
    if value not in known:
        raise ValueError(f"{name}={value!r} is not known; known are {listed}")
    return value


def precision(value: Any) -> str:
    """What the factors of products are rounded to, as everything calls it that has such a parameter."""
    return one_of("precision", value, ("float32", "bfloat16"))


def choice(name: str, value: Any, known: Mapping[str, T], *others: str) -> T:
    """The entry of `known` that a string names; `others` as for `one_of`."""
    return known[one_of(name, value, known, *others)]


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

"""One column of a table, of whatever library, as numbers or as categories.

    numbers     float64, NaN where a cell is missing
    Category    codes into a list of values, -1 where a cell is missing

pandas and polars are not imported: their columns are known by what they offer.
"""

from __future__ import annotations

import datetime
import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]
Value: TypeAlias = str | bool | int | float  # of a category: what files and ONNX can hold

MISSING = ("NAType", "NaTType")  # types of pandas.NA and pandas.NaT
NUMBER, CATEGORY = "number", "category"


@dataclass(eq=False)
class Category:
    """A column of categories."""

    codes: NDArray[np.intp]  # place in `values`; -1: missing
    values: list[Value]  # each once, in any order, some perhaps of no row

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: NDArray[np.intp]) -> Category:
        return Category(self.codes[rows], self.values)

    def present(self) -> list[Value]:
        """The values of the rows, sorted: numbers, then text."""
        found = np.unique(self.codes)
        return in_order([self.values[code] for code in found[found >= 0].tolist()])

    def codes_of(self, known: list[Value]) -> NDArray[np.intp]:
        """Places in `known`, counted from 1; 0 for what is missing or not known."""
        place = {value: number for number, value in enumerate(known, 1)}
        table = np.array([*(place.get(value, 0) for value in self.values), 0], dtype=np.intp)
        found: NDArray[np.intp] = table[self.codes]  # -1 is the last
        return found


def in_order(values: Iterable[Value]) -> list[Value]:
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def kind_of(column: Any) -> str:
    """Whether a column holds numbers or categories, by its type: text, objects, categories and booleans are categories.

    Raises TypeError for dates and times, and for nested types.
    """
    dtype = column.dtype
    if hasattr(dtype, "is_temporal"):  # polars
        name = str(dtype)
        if dtype.is_temporal():
            raise TypeError(_dates(name))
        if dtype.is_numeric() or name == "Null":
            return NUMBER
        if dtype.is_nested() or name == "Binary":
            raise TypeError(f"is of the type {name}, which is neither numbers nor categories")
        return CATEGORY
    name, kind = str(dtype), dtype.kind
    if getattr(dtype, "name", "") == "category":
        return CATEGORY
    if kind in "mM" or name.startswith(("period", "time", "date")):  # the last two of pyarrow
        raise TypeError(_dates(name))
    if kind == "c":
        raise ValueError(complex_numbers(name))
    return NUMBER if kind in "iuf" or name.startswith("decimal") else CATEGORY


def complex_numbers(name: str) -> str:
    return f"holds complex numbers ({name}). Complex data not supported: make columns of the real and imaginary parts"


def _dates(name: str) -> str:
    part = (
        ".total_seconds() of them" if "delta" in name.lower() or "duration" in name.lower() else "the year, the month"
    )
    return (
        f"holds dates or times ({name}): make numbers or categories of them first, such as {part}, the weekday, or the "
        "days since a date"
    )


def as_numbers(column: Any) -> Doubles:
    """A column as float64, NaN where a cell is missing. TypeError or ValueError for what is not a number."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return np.asarray(column, dtype=np.float64)
    kind_of(column)  # refuses dates
    if hasattr(dtype, "is_temporal"):
        if dtype.is_numeric() or str(dtype) in ("Null", "Boolean"):
            return np.array(column.cast(_float_type(column)).to_numpy(), dtype=np.float64)
    elif dtype.kind in "biuf" and hasattr(column, "isna"):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    values = _objects(column)
    result = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            result[row] = np.nan if is_missing(value) else float(value)
        except (TypeError, ValueError, OverflowError):
            _refuse_dates(value)
            raise ValueError(f"must hold numbers, could not convert {value!r:.50} of row {row} to a number") from None
    return result


def _float_type(column: Any) -> Any:
    """polars.Float64, without an import of polars."""
    import importlib

    return importlib.import_module(type(column).__module__.split(".")[0]).Float64


def as_category(column: Any) -> Category:
    """A column as codes and values."""
    dtype = column.dtype
    if hasattr(column, "cat") and hasattr(column.cat, "codes"):  # pandas
        codes, values = np.asarray(column.cat.codes, dtype=np.intp), column.cat.categories
        return _merged(codes, [_value(value, in_category=True) for value in np.asarray(values, dtype=object)])
    kind_of(column)
    if isinstance(dtype, np.dtype) and dtype.kind in "biufUS":
        given = np.asarray(column)
        present = ~np.isnan(given) if dtype.kind == "f" else np.ones(len(given), dtype=np.bool_)
        codes = np.full(len(given), -1, dtype=np.intp)
        found, codes[present] = np.unique(given[present], return_inverse=True)
        return _merged(codes, [_value(value) for value in found.tolist()])
    return _of_objects(_objects(column))


def _of_objects(values: list[Any]) -> Category:
    known: dict[Value, int] = {}
    codes = np.empty(len(values), dtype=np.intp)
    for row, given in enumerate(values):
        if type(given) is str:
            codes[row] = known.setdefault(given, len(known))
        elif is_missing(given):
            codes[row] = -1
        else:
            codes[row] = known.setdefault(_value(given), len(known))
    return Category(codes, list(known))


def _merged(codes: NDArray[np.intp], values: list[Value]) -> Category:
    """Values that are equal, such as 1 and True or two intervals of the same text, become one."""
    known: dict[Value, int] = {}
    places = np.array([*(known.setdefault(value, len(known)) for value in values), -1], dtype=np.intp)
    return Category(places[codes], list(known))


def _objects(column: Any) -> list[Any]:
    """The cells as Python objects; what is missing as one of the things that `is_missing` knows."""
    listed: list[Any] = column.to_list() if hasattr(column, "to_list") else column.tolist()
    return listed


def is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in MISSING:
        return True
    if isinstance(value, float | np.floating):
        return bool(value != value)
    return isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value))


def holds_numbers(values: NDArray[Any]) -> bool:
    """Whether the objects are numbers or missing; True and False are none."""
    return all(
        (isinstance(value, numbers.Real) and not isinstance(value, bool)) or is_missing(value)
        for value in values.tolist()
    )


def _value(given: Any, in_category: bool = False) -> Value:
    """What a category is known by: text, a boolean or a finite number; of anything else, such as an interval, its
    text."""
    if isinstance(given, str):
        return str(given)
    if isinstance(given, bytes):
        return given.decode("utf-8", "backslashreplace")
    if isinstance(given, bool | np.bool_):
        return bool(given)
    if isinstance(given, numbers.Integral):
        return int(given)
    if isinstance(given, float | np.floating):
        number = float(given)
        if math.isfinite(number):
            return int(number) if number.is_integer() else number
    elif not in_category:
        _refuse_dates(given)
    return str(given)


def _refuse_dates(value: Any) -> None:
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64):
        raise TypeError(_dates(type(value).__name__))

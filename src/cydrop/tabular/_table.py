"""A table as it comes (a frame of pandas or polars, an array, lists) as columns of numbers and of categories.

    X -> [(label, column), ...] -> Schema: which columns are categories -> Table: numbers (n, p), categories

In frames a column's type decides. An array has one type for all of its columns, so that in an array of objects, and
in lists with text in them, a column that holds nothing but numbers is one of numbers.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import check_array

from cydrop.tabular._columns import (
    CATEGORY,
    NUMBER,
    Category,
    Doubles,
    as_category,
    as_numbers,
    complex_numbers,
    holds_numbers,
    in_order,
    kind_of,
)

TURNED = {  # what a column of categories holds; whether that is text
    True: "holds text, in fit it held numbers or booleans: convert it, as with pandas.to_numeric(column), or where it "
    "is the text of booleans with column == 'True'",
    False: "holds numbers or booleans, in fit it held text: convert it, as with column.astype(str)",
}

Columns: TypeAlias = list[tuple[Any, str, Any]]  # name or None, label for messages, column (which has a dtype)


@dataclass(eq=False)
class Table:
    """The columns of a table: first the numbers, then the categories."""

    numbers: Doubles  # (n, p); NaN: missing
    categories: list[Category]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: NDArray[np.intp]) -> Table:
        return Table(self.numbers[rows], [column.take(rows) for column in self.categories])

    def keys(self) -> Doubles:
        """A row of numbers for each row of the table: the same for equal rows, whatever the others are."""
        found = [self.numbers + 0.0]  # there is one zero only
        for column in self.categories:
            place = {value: number for number, value in enumerate(in_order(column.values))}
            ranks = np.array([*(place[value] for value in column.values), -1], dtype=np.float64)
            found.append(ranks[column.codes][:, None])
        keys = np.hstack(found)
        keys[np.isnan(keys)] = np.nan  # one NaN only
        return keys


@dataclass(frozen=True)
class Schema:
    """What the columns of the table in `fit` were."""

    labels: tuple[str, ...]  # for messages
    kinds: tuple[str, ...]  # NUMBER or CATEGORY
    text: tuple[bool | None, ...]  # of categories: whether they are text (True) or numbers (False); None: both, or none

    @property
    def categories(self) -> list[str]:
        """The labels of those that are categories."""
        return [label for label, kind in zip(self.labels, self.kinds, strict=True) if kind == CATEGORY]

    def read(self, columns: Columns) -> Table:
        """The same columns of another table. ValueError for text where numbers were, and the other way round."""
        table = _parsed(columns, self.kinds)
        texts = (text for kind, text in zip(self.kinds, self.text, strict=True) if kind == CATEGORY)
        for label, column, text in zip(self.categories, table.categories, texts, strict=True):
            now = _is_text(column)
            if None not in (text, now) and text != now:
                raise ValueError(f"X {label} {TURNED[bool(now)]}")
        return table


def learned(columns: Columns, categorical_features: Any) -> tuple[Schema, Table]:
    """The columns of the table in `fit`, and which of them are categories."""
    names = [name for name, _, _ in columns]
    kinds = _kinds(columns, names, categorical_features)
    table = _parsed(columns, kinds)
    texts = iter([_is_text(column) for column in table.categories])
    text = tuple(next(texts) if kind == CATEGORY else None for kind in kinds)
    return Schema(tuple(label for _, label, _ in columns), kinds, text), table


def _is_text(column: Category) -> bool | None:
    found = {isinstance(value, str) for value in column.values}
    return found.pop() if len(found) == 1 else None


def _parsed(columns: Columns, kinds: tuple[str, ...]) -> Table:
    together = np.empty((len(columns[0][2]), kinds.count(NUMBER)))
    place = 0
    categories: list[Category] = []
    for (_, label, column), kind in zip(columns, kinds, strict=True):
        try:
            if kind == CATEGORY:
                categories.append(as_category(column))
                continue
            values = as_numbers(column)
        except (TypeError, ValueError) as error:
            raise type(error)(f"X {label} {error}") from None
        if np.isinf(values).any():
            row = int(np.isinf(values).argmax())
            raise ValueError(f"Input X contains infinity: {label}, row {row}; a missing number is NaN")
        together[:, place] = values
        place += 1
    return Table(together, categories)


# The columns of whatever came -------------------------------------------------------------------------------


def columns_of(X: Any) -> Columns:
    """The columns of a frame, an array or lists."""
    found: Columns
    if hasattr(X, "collect") and hasattr(X, "lazy"):
        raise TypeError(f"X is a {type(X).__name__}; give what its collect() returns")
    if hasattr(X, "iloc") and hasattr(X, "columns"):  # pandas
        found = [(name, f"column {name!r}", X.iloc[:, place]) for place, name in enumerate(X.columns)]
    elif hasattr(X, "get_columns") and hasattr(X, "schema"):  # polars
        found = [(column.name, f"column {column.name!r}", column) for column in X.get_columns()]
    else:
        array = _array(X)
        return [(None, f"column {place}", _best(array[:, place])) for place in range(array.shape[1])]
    seen: set[Any] = set()
    for name, label, _ in found:
        if name in seen:
            raise ValueError(f"X has {label} more than once; rename one of them, or drop it")
        seen.add(name)
    check_array(np.empty((len(X), len(found)), dtype=np.bool_))  # says what is wrong with a frame without rows
    return found


def _array(X: Any) -> NDArray[Any]:
    """Two dimensions of anything that is not a frame."""
    if sparse.issparse(X):
        check_array(X)  # raises
    if isinstance(X, np.ma.MaskedArray):
        filled: Any = X.astype(object)
        X = filled.filled(np.nan)
    array = np.asarray(X)
    if array.dtype.kind in "US" and not isinstance(X, np.ndarray):
        array = np.array(X, dtype=object)  # numbers beside text stay numbers
    if array.dtype.kind == "T":
        array = array.astype(object)
    if array.dtype.kind == "c":
        raise ValueError(f"X {complex_numbers(str(array.dtype))}")
    if array.dtype.kind == "V":
        raise TypeError(f"X is an array of records ({array.dtype}); make a DataFrame of it")
    checked: NDArray[Any] = check_array(array, dtype=None, ensure_all_finite=False, input_name="X")
    return checked


def _best(column: NDArray[Any]) -> NDArray[Any]:
    """A column of objects as numbers, if it holds nothing else."""
    if column.dtype.kind != "O" or not holds_numbers(column):
        return column
    return as_numbers(column)


# Which are categories ---------------------------------------------------------------------------------------


def _kinds(columns: Columns, names: list[Any], given: Any) -> tuple[str, ...]:
    """The kind of each column, as `categorical_features` wants it."""
    if isinstance(given, str):
        if given != "from_dtype":
            raise ValueError(
                f"categorical_features={given!r} is not known: it is 'from_dtype', None, a mask, names or indices"
            )
        return tuple(_labelled(label, column) for _, label, column in columns)
    chosen = set() if given is None else _chosen(names, given)
    return tuple(CATEGORY if place in chosen else NUMBER for place in range(len(columns)))


def _labelled(label: str, column: Any) -> str:
    try:
        return kind_of(column)
    except (TypeError, ValueError) as error:
        raise type(error)(f"X {label} {error}") from None


def _chosen(names: list[Any], given: Any) -> set[int]:
    """Places of the columns that a mask, names or indices choose."""
    what = "categorical_features must be 'from_dtype', None, or an array-like of bool, int or str"
    try:
        wanted = np.asarray(given).tolist()
    except ValueError:
        raise ValueError(f"{what}, got {given!r}") from None
    if not isinstance(wanted, list) or any(isinstance(entry, list) for entry in wanted):
        raise ValueError(f"{what}, got {given!r}")
    n = len(names)
    if all(isinstance(entry, bool) for entry in wanted) and wanted:
        if len(wanted) != n:
            raise ValueError(
                f"categorical_features set as a boolean mask must have shape ({n},), got: ({len(wanted)},)"
            )
        return {place for place, chosen in enumerate(wanted) if chosen}
    if all(isinstance(entry, str) for entry in wanted):
        place = {name: number for number, name in enumerate(names)}
        if wanted and not any(isinstance(name, str) for name in names):
            raise ValueError(
                "categorical_features should be passed as an array of integers or as a boolean mask when the model is "
                "fitted on data without feature names"
            )
        absent = [name for name in wanted if name not in place]
        if absent:
            raise ValueError(f"categorical_features names {absent}, which X does not have: its columns are {names}")
        return {place[name] for name in wanted}
    if all(isinstance(entry, numbers.Integral) and not isinstance(entry, bool) for entry in wanted):
        if any(not 0 <= entry < n for entry in wanted):
            raise ValueError(
                f"categorical_features set as integer indices must be in [0, n_features - 1] = [0, {n - 1}], "
                f"got {given!r}"
            )
        return set(wanted)
    raise ValueError(f"{what}, got {given!r}")

"""What is probably not meant: numbers and dates that came as text, ids as categories, categories of another table."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from cydrop.tabular._columns import Category, Value
from cydrop.tabular._table import Schema, Table

MANY = 50  # different values, from which on a column is looked at
COME_ONCE = 0.5  # of the rows have a value of their own: hardly any value comes again
NUMBERS = 0.9  # of the values
FEW = 20  # rows, in which values that nobody knows may be chance


def warn_of_categories(schema: Schema, table: Table, stacklevel: int) -> None:
    """Warns of columns that are categories by their type and hardly have a value twice."""
    for label, column in zip(schema.categories, table.categories, strict=True):
        present = column.present()
        rows = int((column.codes >= 0).sum())
        if len(present) <= MANY or len(present) <= COME_ONCE * rows:
            continue
        what = f"X {label} is a category by its type, with {len(present):,} different values in {rows:,} rows"
        if sum(map(_is_number, present)) >= NUMBERS * len(present):
            advice = "Nearly all are numbers: convert the column (pandas.to_numeric) to have it as numbers"
        else:
            advice = "Nothing is learned of values that come once: make numbers of dates, and leave ids out"
        warnings.warn(f"{what}. {advice}", UserWarning, stacklevel=stacklevel + 1)


def warn_of_unknown(schema: Schema, table: Table, known: Iterable[list[Value]]) -> None:
    """Warns of columns of which no value was there in `fit`."""
    for label, column, own in zip(schema.categories, table.categories, known, strict=True):
        if _nothing_known(column, own):
            example = column.present()[0]
            message = f"X {label} has no value that it had in fit, but such as {example!r:.50}: all count as missing"
            warnings.warn(message, UserWarning, stacklevel=5)


def _nothing_known(column: Category, known: list[Value]) -> bool:
    present = column.codes >= 0
    return len(known) > 0 and int(present.sum()) >= FEW and not column.codes_of(known)[present].any()


def _is_number(value: Value) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True

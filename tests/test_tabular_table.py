"""Tables as they are, as columns of numbers and of categories: frames of pandas and polars, arrays, lists."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from cydrop.tabular._columns import CATEGORY, NUMBER
from cydrop.tabular._table import columns_of, learned

N, C = NUMBER, CATEGORY


def read(X, categorical_features="from_dtype"):
    return learned(columns_of(X), categorical_features)


def cells(category):
    """The values of a column of categories, None for missing."""
    return [None if code < 0 else category.values[code] for code in category.codes]


PANDAS = {
    "float64": (pd.Series([1.5, None, 3.0]), N),
    "float32": (pd.Series([1.5, None, 3.0], dtype="float32"), N),
    "Float64": (pd.Series([1.5, None, 3.0], dtype="Float64"), N),
    "Int64": (pd.Series([1, None, 3], dtype="Int64"), N),
    "uint8": (pd.Series([1, 2, 3], dtype="uint8"), N),
    "arrow numbers": (pd.Series([1, None, 3], dtype="int64[pyarrow]"), N),
    "sparse": (pd.Series([0.0, np.nan, 2.0], dtype="Sparse[float64]"), N),
    "objects": (pd.Series(["a", None, "b"], dtype=object), C),
    "numbers as objects": (pd.Series([1, None, 2], dtype=object), C),
    "text": (pd.Series(["a", None, "b"], dtype="string"), C),
    "str": (pd.Series(["a", None, "b"]), C),
    "arrow text": (pd.Series(["a", None, "b"], dtype="string[pyarrow]"), C),
    "category": (pd.Series(["a", None, "b"], dtype="category"), C),
    "category of numbers": (pd.Series([7, None, 9], dtype="category"), C),
    "bool": (pd.Series([True, False, True]), C),
    "boolean": (pd.Series([True, None, False], dtype="boolean"), C),
}
POLARS = {
    "Float32": (pl.Series([1.5, None, 3.0], dtype=pl.Float32), N),
    "Int8": (pl.Series([1, None, 3], dtype=pl.Int8), N),
    "Decimal": (pl.Series([1, None, 3], dtype=pl.Decimal(10, 2)), N),
    "Null": (pl.Series([None, None, None]), N),
    "String": (pl.Series(["a", None, "b"]), C),
    "Categorical": (pl.Series(["a", None, "b"], dtype=pl.Categorical), C),
    "Enum": (pl.Series(["a", None, "b"], dtype=pl.Enum(["b", "a", "c"])), C),
    "Boolean": (pl.Series([True, None, False]), C),
}


@pytest.mark.parametrize("name", PANDAS)
def test_a_column_of_pandas_is_what_its_type_says(name):
    column, kind = PANDAS[name]
    schema, table = read(pd.DataFrame({"a": column}))
    assert schema.kinds == (kind,)
    expected = [None if pd.isna(value) else value for value in column.tolist()]
    if kind == N:
        np.testing.assert_array_equal(table.numbers[:, 0], np.array(expected, dtype=float))
    else:
        assert cells(table.categories[0]) == expected


@pytest.mark.parametrize("name", POLARS)
def test_a_column_of_polars_is_what_its_type_says(name):
    column, kind = POLARS[name]
    schema, table = read(pl.DataFrame({"a": column}))
    assert schema.kinds == (kind,)
    expected = column.to_list()
    if kind == N:
        np.testing.assert_array_equal(table.numbers[:, 0], np.array(expected, dtype=float))
    else:
        assert cells(table.categories[0]) == expected


@pytest.mark.parametrize("missing", [None, np.nan, float("nan"), pd.NA, pd.NaT, np.float32("nan")])
def test_a_missing_cell_is_missing_in_every_spelling(missing):
    cells_of = np.array([["a", 1.0], [missing, missing], ["b", 3]], dtype=object)
    for X in (cells_of, cells_of.tolist()):
        schema, table = read(X)
        assert schema.kinds == (C, N)
        assert cells(table.categories[0]) == ["a", None, "b"]
        np.testing.assert_array_equal(table.numbers[:, 0], [1.0, np.nan, 3.0])
    frame = pd.DataFrame(cells_of, columns=["a", "b"])
    assert cells(read(frame)[1].categories[1]) == [1, None, 3]  # objects of a DataFrame are categories


def test_arrays_are_numbers_unless_their_type_is_of_categories():
    assert read(np.eye(3))[0].kinds == (N,) * 3
    assert read([[1, 2.5], [3, None]])[0].kinds == (N,) * 2
    assert read([["1", 2.5], ["3", 4]])[0].kinds == (C, N)
    assert read(np.array([["1", "2.5"], ["3", "4"]]))[0].kinds == (C, C)
    assert read(np.eye(2, dtype=bool))[0].kinds == (C, C)
    assert read(np.array([[True, 2], [False, 4]], dtype=object))[0].kinds == (C, N)
    masked = np.ma.masked_invalid([[1.0, np.nan], [2.0, 3.0]])
    np.testing.assert_array_equal(read(masked)[1].numbers, [[1.0, np.nan], [2.0, 3.0]])


def test_values_that_are_equal_are_one_category():
    column = pd.Series([1, 1.0, True, np.int8(1), "1", 2.5, np.float32(2.5)], dtype=object)
    (category,) = read(pd.DataFrame({"a": column}))[1].categories
    assert category.present() == [1, 2.5, "1"]
    assert category.codes.tolist() == [0, 0, 0, 0, 1, 2, 2]


def test_what_is_neither_text_nor_a_number_counts_by_its_text():
    cut = pd.cut(pd.Series([1.0, 2.0, 9.0, None]), [0, 5, 10])
    (category,) = read(pd.DataFrame({"a": cut}))[1].categories
    assert cells(category) == ["(0, 5]", "(0, 5]", "(5, 10]", None]
    (category,) = read(pd.DataFrame({"a": [(1, 2), b"x", None, {"b": 3}]}))[1].categories
    assert cells(category) == ["(1, 2)", "x", None, "{'b': 3}"]


def test_infinity_among_categories_counts_by_its_text():
    column = pd.Series([np.inf, 1.0, -np.inf, None], dtype=object)
    for given in (column, column.astype("category")):
        (category,) = read(pd.DataFrame({"a": given}))[1].categories
        assert cells(category) == ["inf", 1, "-inf", None]


def test_categories_are_sorted_whatever_the_order_of_the_rows(rng):
    names = np.array([f"v{number}" for number in range(30)] + [3, 10, 2], dtype=object)
    first = read(pd.DataFrame({"a": names}))[1].categories[0]
    second = read(pd.DataFrame({"a": rng.permutation(names)}))[1].categories[0]
    assert first.present() == second.present()
    assert first.present()[:4] == [2, 3, 10, "v0"]


# categorical_features ---------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]})


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ("from_dtype", (N, C, N)),
        ([True, True, False], (C, C, N)),
        (np.array([False, True, True]), (N, C, C)),
        ([1, 2], (N, C, C)),
        ((0, 1), (C, C, N)),
        (["b"], (N, C, N)),
        (np.array(["a", "b"]), (C, C, N)),
        (pd.Index(["b", "c"]), (N, C, C)),
    ],
)
def test_categorical_features_are_spelled_as_in_scikit_learn(given, kinds):
    assert read(FRAME, given)[0].kinds == kinds
    assert read(pl.from_pandas(FRAME), given)[0].kinds == kinds


def test_none_of_the_columns_may_be_categories():
    assert read(FRAME[["a", "c"]], None)[0].kinds == (N, N)
    assert read(FRAME[["a", "c"]], [])[0].kinds == (N, N)
    np.testing.assert_array_equal(read(np.array([["1", "2.5"]]), None)[1].numbers, [[1.0, 2.5]])
    np.testing.assert_array_equal(read(pd.DataFrame({"a": [True, False]}), None)[1].numbers, [[1.0], [0.0]])
    with pytest.raises(ValueError, match="X column 'b' must hold numbers, could not convert 'x' of row 0"):
        read(FRAME, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("all", "categorical_features='all' is not known: it is 'from_dtype', None, a mask, names or indices"),
        ([True, False], r"boolean mask must have shape \(3,\), got: \(2,\)"),
        ([0, 3], r"must be in \[0, n_features - 1\] = \[0, 2\], got \[0, 3\]"),
        ([-1], r"must be in \[0, n_features - 1\] = \[0, 2\]"),
        (["a", "z"], r"names \['z'\], which X does not have"),
        ([0.5], "must be 'from_dtype', None, or an array-like of bool, int or str"),
        ([[0]], "array-like of bool, int or str"),
        (3, "array-like of bool, int or str"),
    ],
)
def test_other_categorical_features_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read(FRAME, given)


def test_names_need_a_table_with_names():
    with pytest.raises(ValueError, match="should be passed as an array of integers or as a boolean mask"):
        read(np.eye(3), ["a"])


# What is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame({"day": pd.to_datetime(["2024-01-01", None])}),
        pd.DataFrame({"day": pd.to_datetime(["2024-01-01", "2024-01-02"]).tz_localize("UTC")}),
        pd.DataFrame({"day": pd.period_range("2024-01", periods=2, freq="M")}),
        pd.DataFrame({"day": pd.to_timedelta([1, 2], unit="D")}),
        pd.DataFrame({"day": pd.Series([datetime.date(2024, 1, 1), None], dtype=object)}),
        pd.DataFrame({"day": pd.Series([datetime.date(2024, 1, 1), None], dtype="date32[pyarrow]")}),
        pl.DataFrame({"day": [datetime.date(2024, 1, 1), None]}),
        pl.DataFrame({"day": [datetime.timedelta(1), None]}),
        pd.DataFrame({"day": pd.Series([datetime.time(1), None], dtype=object)}),
        pd.DataFrame({"day": pd.Series([datetime.time(1), None], dtype="time64[us][pyarrow]")}),
        np.array([["2024-01-01"]], dtype="datetime64[D]"),
    ],
)
@pytest.mark.parametrize("categorical_features", ["from_dtype", [0], None])
def test_dates_are_refused_with_what_to_do(X, categorical_features):
    with pytest.raises(TypeError, match=r"X column .* holds dates or times \(.*\): make numbers or categories of them"):
        read(X, categorical_features)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (
            np.eye(2) * 1j,
            ValueError,
            r"X holds complex numbers \(complex128\). Complex data not supported: make columns",
        ),
        (pd.DataFrame({"a": [1j]}), ValueError, r"X column 'a' holds complex numbers \(complex128\)"),
        (np.ones(3), ValueError, "Expected 2D array, got 1D array"),
        (np.ones((2, 2, 2)), ValueError, "dim 3"),
        (np.empty((0, 2)), ValueError, r"0 sample\(s\)"),
        (np.empty((2, 0)), ValueError, r"0 feature\(s\)"),
        (pd.DataFrame({"a": []}), ValueError, r"0 sample\(s\)"),
        (pd.DataFrame(index=[1, 2]), ValueError, r"0 feature\(s\)"),
        (pl.DataFrame(), ValueError, r"0 sample\(s\)|0 feature\(s\)"),
        ([[1.0, 2.0], [3.0]], ValueError, "inhomogeneous"),
        (sparse.eye_array(3).tocsr(), TypeError, "[Ss]parse"),
        (np.array([[np.inf, 1.0]]), ValueError, "Input X contains infinity"),
        (pd.DataFrame({"a": [1.0, -np.inf]}), ValueError, "Input X contains infinity: column 'a', row 1"),
        (pl.DataFrame({"a": [[1], [2]]}), TypeError, "neither numbers nor categories"),
        (pl.LazyFrame({"a": [1]}), TypeError, r"X is a LazyFrame; give what its collect\(\) returns"),
        (np.zeros(2, dtype=[("a", "f4")]).reshape(2, 1), TypeError, "records"),
        ("text", ValueError, "Expected 2D array"),
        (None, ValueError, "Expected 2D array"),
    ],
)
def test_what_is_no_table_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        read(X)


# Another table with the same columns ------------------------------------------------------------------------


def test_a_column_keeps_its_kind_in_the_next_table():
    schema, _ = read(pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"], "c": pd.Series([1, 2], dtype="category")}))
    rows = [
        pd.DataFrame({"a": pd.Series([3, None], dtype=object), "b": ["z", None], "c": [1.0, np.nan]}),
        pl.DataFrame({"a": [3, None], "b": ["z", None], "c": [1, None]}),
        np.array([[3, "z", 1], [None, None, None]], dtype=object),
    ]
    for X in rows:
        table = schema.read(columns_of(X))
        np.testing.assert_array_equal(table.numbers, [[3.0], [np.nan]])
        assert [cells(column) for column in table.categories] == [["z", None], [1, None]]
    for column, words in (
        ("b", r"holds numbers or booleans, in fit it held text: convert it, as with column.astype\(str\)"),
        (
            "c",
            r"holds text, in fit it held numbers or booleans: convert it, as with pandas.to_numeric",
        ),
    ):
        wrong = pd.DataFrame({"a": [3.0], "b": ["z"], "c": [1]}).assign(**{column: ["w"] if column == "c" else [7]})
        with pytest.raises(ValueError, match=f"X column '{column}' {words}"):
            schema.read(columns_of(wrong))
    with pytest.raises(ValueError, match="X column 'a' must hold numbers"):
        schema.read(columns_of(pd.DataFrame({"a": ["one"], "b": ["z"], "c": [1]})))


def test_equal_rows_have_equal_keys_in_any_order(rng):
    frame = pd.DataFrame({"a": rng.choice([0.0, -0.0, np.nan, 2.0], 40), "b": rng.choice(["x", "y", None], 40)})
    order = rng.permutation(40)
    first, second = (read(X)[1].keys() for X in (frame, frame.iloc[order]))
    assert first[order].tobytes() == second.tobytes()
    assert len(np.unique(first.view("V16"))) <= 9

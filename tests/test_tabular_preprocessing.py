"""Columns as the network takes them: against the formulas of RealMLP in plain NumPy.

pytabkit 1.7, whose recipe this is, differs in four points. It refuses missing numbers. It numbers the categories of the
training and the held-out rows together; here one that only held-out rows have is unseen (code 0). It computes in
float32. And it leaves out columns of dates with a warning, which are refused here.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cydrop.tabular._preprocessing import fitted
from cydrop.tabular._table import columns_of, learned


def prepared(frame, other=None, max_onehot=8, small=False, categorical_features="from_dtype"):
    """What the network gets of `other` (or `frame` itself), learned from `frame`; and the preprocessor."""
    schema, table = learned(columns_of(frame), categorical_features)
    preprocessor = fitted(table, max_onehot, small)
    result = preprocessor.transform(table if other is None else schema.read(columns_of(other)))
    assert result.numbers.dtype == np.float32
    assert (result.codes == np.floor(result.codes)).all()
    assert np.isfinite(result.numbers).all()
    assert np.abs(result.numbers).max(initial=0.0) <= 3.0
    assert len(result.codes) == len(result.numbers) == len(result)
    assert (result.codes >= 0).all()
    assert (result.codes < result.cardinalities).all()
    assert result.rows.shape == (len(result), result.numbers.shape[1] + result.codes.shape[1])
    return result, preprocessor


def scaled(train, x):
    """Step 2 of the recipe, of one column."""
    low, median, high = np.quantile(train, [0.25, 0.5, 0.75])
    if high > low:
        factor = 1.0 / (high - low)
    else:
        factor = 2.0 / (train.max() - train.min()) if train.max() > train.min() else 0.0
    z = (x - median) * factor
    return z / np.sqrt(1.0 + (z / 3.0) ** 2)


def test_numbers_are_scaled_by_their_quartiles_and_clipped_smoothly(rng):
    train, test = rng.standard_t(2, (101, 3)) * [1e-6, 1.0, 1e6], rng.standard_t(2, (50, 3)) * [1e-6, 1.0, 1e6]
    found, _ = prepared(train, test)
    expected = [scaled(train[:, column], test[:, column]) for column in range(3)]
    np.testing.assert_allclose(found.numbers, np.stack(expected, axis=1), rtol=1e-6)


def test_a_column_whose_quartiles_are_equal_goes_by_its_range():
    train = np.zeros((100, 2))
    train[0, 0], train[:2, 1] = 5.0, [-1.0, 3.0]
    found, preprocessor = prepared(train)
    np.testing.assert_allclose(preprocessor.factor, [2 / 5, 2 / 4])
    np.testing.assert_allclose(found.numbers[0, 0], scaled(train[:, 0], np.array([5.0]))[0])


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -1e300])
def test_a_constant_column_gives_0_whatever_comes(value):
    found, _ = prepared(np.full((9, 1), value), np.array([[value], [1.0], [-1e308], [np.nan]]))
    assert not found.numbers.any()


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.floats(allow_infinity=False, width=64)
    ),
)
def test_no_number_is_ever_nan_or_infinite(X):
    prepared(X[: max(1, len(X) // 2)], X)


def test_numbers_beyond_float32_stay_in_order():
    train = np.array([[-1e308], [-1e200], [0.0], [1e30], [1e200], [1e308]])
    found, _ = prepared(train)
    assert (np.diff(found.numbers[:, 0]) >= 0).all()
    found, _ = prepared(np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [1e30]]))
    np.testing.assert_allclose(found.numbers[5, 0], 3.0)


def test_a_missing_number_is_the_mean_and_has_an_indicator():
    train = np.array([[1.0, 4.0], [2.0, np.nan], [6.0, 2.0], [3.0, 3.0]])
    test = np.array([[np.nan, np.nan], [1.0, 4.0]])
    found, preprocessor = prepared(train, test)
    assert found.numbers.shape == (2, 3)  # an indicator for the column where cells were missing in training
    assert preprocessor.indicated.tolist() == [1]
    filled = np.array([4.0, 3.0, 2.0, 3.0])
    np.testing.assert_allclose(found.numbers[:, 0], scaled(train[:, 0], np.array([3.0, 1.0])), rtol=1e-6)
    np.testing.assert_allclose(found.numbers[:, 1], scaled(filled, np.array([3.0, 4.0])), rtol=1e-6)
    signs = np.array([1.0, -1.0, 1.0, 1.0])
    np.testing.assert_allclose(found.numbers[:, 2], scaled(signs, np.array([-1.0, 1.0])), rtol=1e-6)


def test_a_column_that_is_all_missing_gives_0():
    found, preprocessor = prepared(np.array([[np.nan, 1.0], [np.nan, 2.0]]), np.array([[7.0, 1.0], [np.nan, 2.0]]))
    assert found.numbers.shape == (2, 2)
    assert not found.numbers[:, 0].any()
    assert preprocessor.means[0] == 0
    found, _ = prepared(pd.DataFrame({"a": pd.Series([None, None], dtype=object)}), pd.DataFrame({"a": ["x", None]}))
    assert found.numbers.shape == (2, 1)  # a network has inputs
    assert not found.numbers.any()


# Categories -------------------------------------------------------------------------------------------------


def letters(rng, count, n=200):
    return pd.DataFrame({"a": np.array([f"v{number:05}" for number in range(count)])[np.arange(n) % count]})


@pytest.mark.parametrize("count", [3, 8])
def test_few_categories_become_one_hot_columns(count, rng):
    frame = letters(rng, count)
    frame.loc[::9, "a"] = None
    test = pd.DataFrame({"a": ["v00000", "v00002", None, "unseen"]})
    found, _ = prepared(frame, test)
    assert found.numbers.shape == (4, count)
    assert not len(found.cardinalities)
    for column in range(count):
        train = (frame["a"] == f"v{column:05}").to_numpy(float)
        expected = scaled(train, (test["a"] == f"v{column:05}").to_numpy(float))
        np.testing.assert_allclose(found.numbers[:, column], expected, rtol=1e-6)
    np.testing.assert_array_equal(found.numbers[2], found.numbers[3])


@pytest.mark.parametrize("missing", [False, True])
def test_two_categories_become_one_column(missing, rng):
    frame = pd.DataFrame({"a": rng.choice(["x", "y", None] if missing else ["x", "y"], 99)})
    found, _ = prepared(frame, pd.DataFrame({"a": ["x", "y", None, "unseen"]}))
    signs = frame["a"].map({"x": 1.0, "y": -1.0}).fillna(0.0).to_numpy()
    expected = scaled(signs, np.array([1.0, -1.0, 0.0, 0.0]))
    np.testing.assert_allclose(found.numbers, expected[:, None], rtol=1e-6)


def test_booleans_are_two_categories():
    found, _ = prepared(np.array([[True], [False], [True], [False]]))
    signs = np.array([-1.0, 1.0, -1.0, 1.0])  # the first, False, is 1
    np.testing.assert_allclose(found.numbers[:, 0], scaled(signs, signs), rtol=1e-6)


def test_one_category_says_whether_it_is_there():
    found, _ = prepared(pd.DataFrame({"a": ["x", "x", None, "x"]}))
    assert found.numbers.shape == (4, 1)
    assert found.numbers[2] < found.numbers[0]
    found, _ = prepared(pd.DataFrame({"a": ["x", "x"]}), pd.DataFrame({"a": ["x", None]}))
    assert not found.numbers.any()


@pytest.mark.parametrize("count", [9, 100])
def test_many_categories_become_codes(count, rng):
    found, _ = prepared(letters(rng, count), pd.DataFrame({"a": ["v00000", "v00008", None, "unseen"]}))
    assert found.numbers.shape == (4, 0)
    assert found.cardinalities.tolist() == [count + 1]
    assert found.codes[:, 0].tolist() == [1, 9, 0, 0]
    np.testing.assert_array_equal(found.rows, [[1.0], [9.0], [0.0], [0.0]])


def test_the_border_can_be_moved_and_small_has_none(rng):
    frame = letters(rng, 9)
    assert prepared(frame, max_onehot=9)[0].numbers.shape[1] == 9
    assert prepared(frame, max_onehot=0)[0].codes.shape[1] == 1
    found, _ = prepared(frame, small=True)
    assert found.numbers.shape[1] == 9
    assert found.codes.shape[1] == 0


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 8, 40])
def test_the_scale_of_one_hot_columns_is_worked_out_from_counts(n, rng):
    frame = pd.DataFrame({"a": rng.choice(["x", "y", "z"], n)})
    frame.loc[:2, "a"] = ["x", "y", "z"]
    found, _ = prepared(frame)
    for column, name in enumerate("xyz"):
        train = (frame["a"] == name).to_numpy(float)
        np.testing.assert_allclose(found.numbers[:, column], scaled(train, train), rtol=1e-6, atol=1e-7)


def test_ten_thousand_categories():
    frame = pd.DataFrame({"a": [f"v{number}" for number in range(10_000)] * 2, "b": range(20_000)})
    found, _ = prepared(frame)
    assert found.cardinalities.tolist() == [10_001]
    assert found.codes.max() == 10_000
    some = frame[:10_000]
    assert prepared(some, some[:50], small=True)[0].numbers.shape == (50, 10_001)


def test_numbers_come_first_then_indicators_then_one_hot_columns():
    frame = pd.DataFrame({"a": ["x", "y", "z"], "b": [1.0, None, 3.0], "c": [True, False, True], "d": [1, 2, 3]})
    found, preprocessor = prepared(frame)
    assert found.numbers.shape[1] == 2 + 1 + 3 + 1
    assert preprocessor.known == [["x", "y", "z"], [False, True]]
    assert preprocessor.median[:2].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("rows", [1, 2])
def test_one_or_two_rows_are_enough(rows):
    frame = pd.DataFrame({"a": ["x", None], "b": [1.0, None], "c": ["u", "v"]})[:rows]
    prepared(frame)


def test_many_rows_are_scaled_piece_by_piece(rng, monkeypatch):
    X = rng.normal(size=(100, 3))
    whole, _ = prepared(X)
    monkeypatch.setattr("cydrop.tabular._preprocessing.PIECE", 10)
    np.testing.assert_array_equal(prepared(X)[0].numbers, whole.numbers)

"""Columns as TabM takes them: ranks among the training rows, as normal quantiles; categories as columns of 0 and 1."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special
from sklearn.preprocessing import QuantileTransformer

from cydrop.tabular._quantiles import fitted_quantiles, normal, ranks
from cydrop.tabular._table import columns_of, learned

FARTHEST = special.ndtri(1 - 1e-7)


def prepared(frame, other=None, max_onehot=100):
    """What the network gets of `other` (or `frame` itself), learned from `frame`; and the preprocessor."""
    schema, table = learned(columns_of(frame), "from_dtype")
    preprocessor = fitted_quantiles(table, max_onehot)
    result = preprocessor.transform(table if other is None else schema.read(columns_of(other)))
    assert result.rows.dtype == np.float32
    assert np.isfinite(result.rows).all()
    assert np.abs(result.numbers).max(initial=0.0) <= FARTHEST + 1e-6
    assert result.numbers.shape[1] == len(result.groups) == preprocessor.width
    assert (result.codes >= 0).all()
    assert (result.codes < result.cardinalities).all()
    return result, preprocessor


def ranks_one_by_one(x, quantiles):
    """The twin of `ranks`, a number at a time."""
    levels = np.arange(len(quantiles)) / max(1, len(quantiles) - 1)
    found = []
    for own in x:
        same = np.flatnonzero(quantiles == own)
        if quantiles[0] == quantiles[-1]:
            found.append(0.5)
        elif len(same):
            found.append((levels[same[0]] + levels[same[-1]]) / 2)
        else:
            found.append(np.interp(own, quantiles, levels))
    return np.array(found)


@given(
    hnp.arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([-2.0, 0.0, 1.0, 1.5, 7.0, 1e300, -1e-300])),
    hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-10, 10)),
)
@example(np.array([-2.0, 1.0, 1.0]), np.array([1.3, -3.0]))
@example(np.array([-2.0, -1e-300, -1e-300]), np.array([0.0]))
@example(np.array([-2.0, -2.0, 1.0]), np.array([-2.1, 1.3]))
def test_ranks_are_linear_between_quantiles(quantiles, x):
    quantiles = np.sort(quantiles)
    x = np.concatenate([x, quantiles])
    np.testing.assert_allclose(ranks(x, quantiles), ranks_one_by_one(x, quantiles), atol=1e-12)


def test_ranks_become_normal_quantiles():
    levels = np.linspace(0, 1, 1001)
    found = normal(levels, np.linspace(0, 1, 11))
    np.testing.assert_allclose(found, special.ndtri(np.clip(levels, 1e-7, 1 - 1e-7)), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("n", [50, 400, 3000, 40_000])
def test_columns_are_those_of_the_original_where_no_numbers_are_equal(n, rng):
    train, test = rng.standard_t(2, (n, 3)), rng.standard_t(2, (500, 3))
    count = max(min(n // 30, 1000), 10)
    original = QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=10**9).fit(train)
    found, preprocessor = prepared(train, test)
    assert preprocessor.quantiles.shape == (count, 3)
    np.testing.assert_allclose(found.numbers, original.transform(test), atol=1e-4)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_equal_numbers_get_the_rank_that_noise_would_give_them(share, rng):
    """The original fits on numbers with noise of 1e-5, which puts equal numbers into the middle of their ranks."""
    train = np.where(rng.random((20_000, 1)) < share, 0.0, rng.exponential(size=(20_000, 1)))
    noise = rng.normal(0, 1e-5, train.shape)
    original = QuantileTransformer(n_quantiles=666, output_distribution="normal", subsample=10**9).fit(train + noise)
    test = np.array([[0.0], [0.5], [1.0], [2.0]])
    found, _ = prepared(train, test)
    np.testing.assert_allclose(found.numbers, original.transform(test), atol=0.02)
    np.testing.assert_allclose(found.numbers[0], special.ndtri(share / 2), atol=0.02)


def test_two_values_are_where_the_middle_of_their_rows_is(rng):
    found, _ = prepared(np.repeat([[0.0], [7.0]], [300, 700], axis=0), np.array([[0.0], [7.0], [-1.0], [8.0]]))
    expected = [special.ndtri(0.15), special.ndtri(0.65), -FARTHEST, FARTHEST]
    np.testing.assert_allclose(found.numbers[:, 0], expected, atol=0.05)


@pytest.mark.parametrize("factor", [1e-280, 1e-6, 1e12, 1e280])
def test_units_do_not_matter(factor, rng):
    train, test = rng.normal(size=(200, 2)).round(1), rng.normal(size=(50, 2)).round(1)
    found, _ = prepared(train * factor, test * factor)
    np.testing.assert_allclose(found.numbers, prepared(train, test)[0].numbers, atol=1e-4)


def test_numbers_beyond_the_training_rows_are_at_the_ends():
    found, _ = prepared(np.arange(100.0)[:, None], np.array([[-1e308], [0.0], [99.0], [1e308]]))
    np.testing.assert_allclose(found.numbers[:, 0], [-FARTHEST, -FARTHEST, FARTHEST, FARTHEST], rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -1e300])
def test_a_constant_column_gives_0_whatever_comes(value):
    found, _ = prepared(np.full((9, 1), value), np.array([[value], [1.0], [-1e308], [np.nan]]))
    assert not found.numbers.any()


def test_a_column_that_is_all_missing_gives_0():
    found, _ = prepared(np.array([[np.nan, 1.0], [np.nan, 2.0]]), np.array([[7.0, 1.0], [np.nan, 2.0]]))
    assert found.numbers.shape == (2, 2)
    assert not found.numbers[:, 0].any()


def test_a_missing_number_is_the_mean_and_has_an_indicator(rng):
    train = rng.exponential(size=(300, 2))
    train[:60, 1] = np.nan
    found, preprocessor = prepared(train)
    assert preprocessor.indicated.tolist() == [1]
    assert found.numbers.shape == (300, 3)
    np.testing.assert_array_equal(found.numbers[:, 2], np.isnan(train[:, 1]))
    np.testing.assert_allclose(found.numbers[:60, 1], found.numbers[60:, 1].mean(dtype=float), atol=1e-6)
    alone, _ = prepared(train[60:, 1:])
    np.testing.assert_allclose(found.numbers[60:, 1], alone.numbers[:, 0], atol=0.2)  # fewer rows, fewer quantiles


def test_categories_become_columns_of_0_and_1():
    frame = pd.DataFrame({"a": ["x", "y", "z", None], "b": [True, False, True, True], "c": ["s", "s", "s", "s"]})
    found, preprocessor = prepared(frame, pd.DataFrame({"a": ["y", None, "u"], "b": [False, True, None], "c": "s"}))
    np.testing.assert_array_equal(found.rows, [[0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1]])
    assert preprocessor.groups == (0, 0, 0, 1, 1, 2)


def test_very_many_categories_become_codes(rng):
    frame = pd.DataFrame({"a": [f"v{number:03}" for number in range(40)] * 5, "b": ["x", "y"] * 100, "c": range(200)})
    found, preprocessor = prepared(frame, max_onehot=39)
    assert found.numbers.shape == (200, 3)
    assert preprocessor.groups == (0, 1, 1)
    assert found.cardinalities.tolist() == [41]
    assert found.codes[:, 0].tolist() == [*range(1, 41)] * 5
    assert prepared(frame, max_onehot=40)[0].rows.shape == (200, 1 + 40 + 2)


def test_columns_that_stand_for_the_same_thing_are_a_group():
    frame = pd.DataFrame({"a": [1.0, None, 3.0], "b": ["x", "y", "z"], "c": [1, 2, 3]})
    assert prepared(frame)[1].groups == (0, 1, 2, 3, 3, 3)  # a, c, whether a is missing, b
    nothing = pd.DataFrame({"a": pd.Series([None, None], dtype=object)})
    assert prepared(nothing)[1].groups == (0,)  # a network has inputs


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.floats(allow_infinity=False, width=64)
    ),
)
def test_no_number_is_ever_nan_or_infinite(X):
    prepared(X[: max(1, len(X) // 2)], X)

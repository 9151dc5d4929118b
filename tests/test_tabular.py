"""RealMLP on tables as users have them: categories, holes, odd rows; and all that scikit-learn asks of an estimator."""

import pickle
import signal
import subprocess
import sys
import threading
import time

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from cydrop import DivergedError
from cydrop.tabular import RealMLPClassifier, RealMLPRegressor
from cydrop.tabular._splits import folds, holdout

FAST = {"hidden_layer_sizes": (16,), "max_iter": 3, "random_state": 0}


def table(rng, n=400):
    """A table with everything, and what depends on it."""
    town = rng.choice(["Ulm", "Bern", "Graz"], n)
    street = rng.choice([f"street {number}" for number in range(40)], n)
    size, rooms = rng.lognormal(4.0, 0.5, n), rng.integers(1, 7, n)
    garden = rng.random(n) < 0.4
    price = np.log(size) + 0.3 * rooms + (town == "Bern") + 0.5 * garden + 0.05 * rng.normal(size=n)
    frame = pd.DataFrame({
        "size": np.where(rng.random(n) < 0.1, np.nan, size),
        "rooms": rooms,
        "town": pd.Series(town, dtype="category").where(rng.random(n) < 0.95),
        "street": np.where(rng.random(n) < 0.05, None, street),
        "garden": garden,
        "one": 1,
    })  # fmt: skip
    return frame, price


@pytest.fixture(scope="module")
def data():
    return table(np.random.default_rng(5))


@pytest.fixture(scope="module")
def classifier(data):
    X, price = data
    return RealMLPClassifier(**FAST | {"max_iter": 30}).fit(X, np.where(price > np.median(price), "dear", "cheap"))


@pytest.fixture(scope="module")
def regressor(data):
    return RealMLPRegressor(**FAST | {"max_iter": 30}).fit(*data)


def test_a_table_with_everything_is_learned(data, classifier, regressor):
    X, price = data
    assert classifier.score(X, np.where(price > np.median(price), "dear", "cheap")) > 0.84
    assert regressor.score(X, price) > 0.9
    assert classifier.classes_.tolist() == ["cheap", "dear"]
    assert classifier.feature_names_in_.tolist() == list(X)
    assert classifier.n_features_in_ == 6
    assert classifier.predict(X).dtype == classifier.classes_.dtype
    assert classifier.predict_proba(X).dtype == regressor.predict(X).dtype == np.float64
    np.testing.assert_allclose(classifier.predict_proba(X).sum(axis=1), 1.0)
    assert classifier.network_ is classifier.networks_[0]
    assert classifier.history_.metrics["loss"]
    assert classifier.n_iter_ == 30


def test_on_a_smooth_table_the_recipe_is_better_than_boosted_trees():
    """HistGradientBoosting with its default parameters gives .940, .934 and .165 there."""
    (X, price), (X_test, price_test) = (table(np.random.default_rng(seed), 1000) for seed in (5, 55))
    recipe = {"max_iter": 64, "random_state": 0, "n_threads": 1}
    assert RealMLPRegressor(**recipe).fit(X, price).score(X_test, price_test) > 0.945
    y, y_test = price > np.median(price), price_test > np.median(price)
    assert RealMLPClassifier(**recipe).fit(X, y).score(X_test, y_test) > 0.934
    p = RealMLPClassifier(**recipe, metric="log_loss").fit(X, y).predict_proba(X_test)
    assert log_loss(y_test, p) < 0.16


def test_pandas_polars_and_objects_give_the_same(data, regressor):
    X, price = data
    frame = pl.from_pandas(X)
    other = RealMLPRegressor(**FAST | {"max_iter": 30}).fit(frame, pl.Series(price))
    np.testing.assert_array_equal(other.predict(frame), regressor.predict(X))
    np.testing.assert_array_equal(regressor.predict(frame), regressor.predict(X))
    third = RealMLPRegressor(**FAST | {"max_iter": 30}).fit(X.to_numpy(dtype=object), price)
    assert third.schema_.kinds == regressor.schema_.kinds
    np.testing.assert_array_equal(third.predict(X.to_numpy(dtype=object)), regressor.predict(X))


def test_rows_never_seen_before(data, classifier, regressor):
    X, _ = data
    odd = X.head(4).copy()
    odd["street"] = ["street 1", "never", None, ""]
    odd["town"] = ["Ulm", "Paris", None, "Bern"]
    odd["size"] = [1e30, np.nan, -1e300, 0.0]
    assert np.isfinite(classifier.predict_proba(odd)).all()
    assert np.isfinite(regressor.predict(odd)).all()
    unseen, missing = odd.iloc[[1]].copy(), odd.iloc[[1]].copy()
    missing["street"], missing["town"] = None, None
    np.testing.assert_array_equal(classifier.predict_proba(unseen), classifier.predict_proba(missing))


def test_columns_are_checked_by_name_and_number(data, classifier):
    X, _ = data
    with pytest.raises(ValueError, match="should match those that were passed during fit"):
        classifier.predict(X[list(X)[::-1]])
    with pytest.raises(ValueError, match="X has 1 features, but RealMLPClassifier is expecting 2"):
        RealMLPClassifier(**FAST).fit(np.eye(2), [0, 1]).predict([[1.0]])
    with pytest.raises(ValueError, match="X column 'street' holds numbers or booleans, in fit it held text"):
        classifier.predict(X.assign(street=3.5))
    for method in ("predict", "predict_proba", "predict_mc"):
        with pytest.raises(NotFittedError):
            getattr(RealMLPClassifier(), method)(X)
    assert not hasattr(RealMLPClassifier(), "networks_")


# Targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [["b", "a", "c"], [7, -1, 2**40], [True, False], [1.0, 3.0], np.array(["x", "y"], dtype=object)]
)
def test_labels_may_be_anything_that_can_be_sorted(labels, rng):
    y = np.asarray(labels)[np.arange(90) % len(labels)]
    X = np.c_[np.arange(90) % len(labels), rng.normal(size=90)]
    options = FAST | {"max_iter": 100}
    model = RealMLPClassifier(**options).fit(X, y)
    np.testing.assert_array_equal(model.classes_, np.unique(y))
    assert model.score(X, y) == 1.0
    again = RealMLPClassifier(**options).fit(X, pd.Series(y, dtype="category"))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_several_targets_are_learned_at_once(rng):
    X = rng.normal(size=(300, 2))
    y = np.c_[X[:, 0] * 1e6 + 1e9, X[:, 1] * 1e-6, X.sum(axis=1)]
    model = RealMLPRegressor(**FAST | {"max_iter": 100}).fit(X, y)
    assert model.predict(X).shape == (300, 3)
    assert model.score(X, y) > 0.99
    assert model.predict_mc(X[:5], 3).mean.shape == (5, 3)


@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_a_column_of_targets_gives_a_row_of_them(rng):
    X = rng.normal(size=(30, 2))
    assert RealMLPRegressor(**FAST).fit(X, X[:, :1]).predict(X).shape == (30,)


def test_predictions_stay_in_the_range_of_the_training_targets(rng):
    X = rng.normal(size=(200, 1))
    far = np.array([[-50.0], [50.0]])
    model = RealMLPRegressor(**FAST | {"max_iter": 100}).fit(X, 1e4 * X[:, 0])
    standard = model.parts_[0].standard
    assert ((model.predict(far) >= standard.low) & (model.predict(far) <= standard.high)).all()
    mc = model.predict_mc(far, 50, return_samples=True)
    assert (mc.samples <= np.float32(standard.high)).all()
    small = RealMLPRegressor(**FAST | {"max_iter": 100, "small": True}).fit(X, 1e4 * X[:, 0])
    raw = small.network_.predict(small.parts_[0].preprocessor.transform(_read(small, far)).rows)
    np.testing.assert_allclose(
        small.predict(far), raw[:, 0] * small.parts_[0].standard.scale + small.parts_[0].standard.shift, rtol=1e-6
    )


def _read(model, X):
    from cydrop.tabular._table import columns_of

    return model.schema_.read(columns_of(X))


@pytest.mark.parametrize("value", [0.0, 3.5, -1e300, 1e-300])
@pytest.mark.parametrize("small", [False, True])
def test_a_constant_target_is_predicted(value, small, rng):
    X = rng.normal(size=(20, 2))
    model = RealMLPRegressor(**FAST | {"small": small}).fit(X, np.full(20, value))
    assert (model.predict(X) == value).all()


def test_targets_of_any_size_are_learned(rng):
    X = rng.normal(size=(300, 1))
    for scale in (1e-300, 1e300):
        model = RealMLPRegressor(**FAST | {"max_iter": 60}).fit(X, X[:, 0] * scale)
        predicted = model.predict(X) / scale
        assert np.corrcoef(predicted, X[:, 0])[0, 1] > 0.98


# Odd tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [[0, 1], [0, 0], ["a", "b"]])
def test_two_rows_are_enough_for_a_classifier(y):
    model = RealMLPClassifier(**FAST).fit([[1.0], [2.0]], y)
    assert model.predict_proba([[1.0], [9.0]]).shape == (2, len(set(y)))
    for options in ({"n_folds": 2}, {"n_ensemble": 2}):
        RealMLPClassifier(**FAST, **options).fit([[1.0], [2.0]], y)


def test_two_rows_are_enough_for_a_regressor():
    X = pd.DataFrame({"a": ["x", None], "b": [None, 1.0]})
    model = RealMLPRegressor(**FAST).fit(X, [1.0, 2.0])
    assert np.isfinite(model.predict(X)).all()
    RealMLPRegressor(**FAST, n_folds=2).fit(X, [1.0, 2.0])
    with pytest.raises(ValueError, match="n_samples=1"):
        RealMLPRegressor(**FAST).fit(X[:1], [1.0])
    with pytest.raises(ValueError, match="n_folds=3 needs as many different rows, got 2"):
        RealMLPRegressor(**FAST, n_folds=3).fit(X, [1.0, 2.0])


@pytest.mark.parametrize("label", ["only", 3, True])
def test_one_class_is_predicted(label, rng):
    X = rng.normal(size=(20, 2))
    model = RealMLPClassifier(**FAST).fit(X, [label] * 20)
    assert (model.predict(X) == label).all()
    assert (model.predict_proba(X) == 1.0).all()
    assert model.n_iter_ == 1
    mc = model.predict_mc(X, 3)
    assert mc.mean.shape == (20, 1)
    assert not mc.entropy.any()
    model.network_.parameters()["5.bias"][:] = [-1000.0, 0.0]  # whatever the network says
    assert (model.predict_proba(X) == 1.0).all()


def test_a_column_of_one_value_but_for_one_row_and_ten_thousand_categories(rng):
    n = 12_000
    X = pd.DataFrame({"a": np.r_[7.0, np.zeros(n - 1)], "b": np.arange(n).astype(str), "c": rng.normal(size=n)})
    with pytest.warns(UserWarning, match=r"column 'b' .* 12,000 different values .* Nearly all are numbers"):
        model = RealMLPRegressor(**FAST | {"max_iter": 1}).fit(X, X["c"])
    assert np.isfinite(model.predict(X)).all()
    if model.parts_[0].preprocessor.embedded[0]:
        assert model.parts_[0].preprocessor.cardinalities[0] > 9000


def test_categories_that_are_probably_none_are_named_once_in_a_warning(rng):
    X = pd.DataFrame({"a": rng.normal(size=90), "day": pd.date_range("2020-01-01", periods=90).astype(str)})
    model = RealMLPRegressor(**FAST | {"max_iter": 1})
    with pytest.warns(UserWarning, match="column 'day' .* 90 different values.*make numbers of dates") as found:
        model.fit(X, X["a"])
    assert len(found) == 1
    assert found[0].filename == __file__
    with pytest.warns(UserWarning, match="column 'a' .*convert the column"):
        model.fit(X[["a"]].astype(object), X["a"])
    model.set_params(categorical_features=["day"]).fit(X, X["a"])  # as somebody has said
    model.set_params(categorical_features="from_dtype").fit(X.assign(day=X["day"].str[:7]), X["a"])


def test_values_that_were_not_in_fit_are_named_in_a_warning_where_there_are_no_others(rng):
    X = pd.DataFrame({"a": rng.normal(size=60), "b": rng.choice(["x", "y"], 60)})
    model = RealMLPRegressor(**FAST | {"max_iter": 1}).fit(X, X["a"])
    with pytest.warns(UserWarning, match="column 'b' has no value that it had in fit, but such as 'X'") as found:
        model.predict(X.assign(b=X["b"].str.upper()))
    assert found[0].filename == __file__
    model.predict(X.assign(b=None))
    model.predict(X.assign(b="z").head(5))


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        ([[1.0], [np.inf]], [0, 1], ValueError, "contains infinity"),
        ([[1.0], [2.0]], [0.5, np.nan], ValueError, "Input y contains NaN: row 1 has missing values; leave these"),
        ([[1.0], [2.0]], [1.0, 2j], ValueError, "Complex data not supported: y holds complex numbers$"),
        ([[1.0], [2.0]], [0.5, 1.5], ValueError, "Unknown label type"),
        ([[1.0], [2.0]], [0, 1, 0], ValueError, "inconsistent numbers of samples"),
        ([[1.0], [2.0]], [[0, 1], [1, 0]], ValueError, "1d array"),
        ([[1.0], [2.0]], None, ValueError, "requires y"),
        (pd.DataFrame({"a": pd.to_datetime(["2024-01-01"] * 2)}), [0, 1], TypeError, "holds dates or times"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), [0, 1], ValueError, "X has column 'a' more than once"),
        ([[1.0], [2.0]], np.array(["a", None]), ValueError, "Input y contains NaN: row 1 has missing labels; leave"),
        ([[1.0], [2.0]], pd.Series(["a", None], dtype="string"), ValueError, "missing labels"),
        ([[1.0], [2.0]], np.array([1, "a"], dtype=object), ValueError, r"several types \(int, str\); make all of them"),
    ],
)
def test_what_cannot_be_learned_is_refused(X, y, error, message):
    model = RealMLPClassifier(**FAST)
    with pytest.raises(error, match=message):
        model.fit(X, y)
    assert vars(model) == vars(RealMLPClassifier(**FAST))


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (["a", "b"], ValueError, "y must hold numbers, one a row .*; labels are for classifiers"),
        (np.array([{}, {}]), TypeError, "y must hold numbers"),
        (3.0, TypeError, "y must hold numbers"),
        (pd.to_datetime(["2024-01-01"] * 2), TypeError, r"y holds dates or times \(datetime64.*\); make numbers"),
        ([1.0, 2j], ValueError, "Complex data not supported: y holds complex numbers$"),
        ([None, 0.0], ValueError, "Input y contains NaN: row 0 has missing values; leave these rows out"),
        ([np.nan] * 5, ValueError, "Input y contains NaN: rows 0, 1, 2 and 2 others have missing values"),
        ([[np.nan, 1.0], [1.0, np.nan]], ValueError, "Input y contains NaN: rows 0, 1 have missing values"),
        ([np.inf, 0.0], ValueError, "Input y contains infinity: row 0 has it"),
        (np.zeros((2, 2, 2)), ValueError, r"y must be of shape \(n_samples,\) or"),
        ([1e306, 0.0], ValueError, r"y has numbers beyond 1e\+305; give them in other units"),
    ],
)
def test_what_is_no_number_is_refused_as_a_target(y, error, message):
    with pytest.raises(error, match=message):
        RealMLPRegressor(**FAST).fit([[1.0], [2.0]], y)


def test_labels_that_are_objects_may_be_numbers(rng):
    X = rng.normal(size=(20, 1))
    for labels in ([0, 1], [False, True], [1.0, 2.0]):
        y = np.asarray(labels)[np.arange(20) % 2]
        model, other = (RealMLPClassifier(**FAST).fit(X, given) for given in (y, y.astype(object)))
        assert other.classes_.dtype == y.dtype
        np.testing.assert_array_equal(other.predict(X), model.predict(X))


@pytest.mark.parametrize("options", [{"learning_rate_init": 1e20}, {"weight_decay": 1e20, "n_ensemble": 2}])
def test_divergence_says_what_an_estimator_can_do_about_it(options, data):
    model = RealMLPRegressor(**FAST, **options)
    with pytest.raises(DivergedError, match=r"is as it was before fit\. Try a smaller learning_rate_init") as caught:
        model.fit(*data)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert vars(model) == vars(RealMLPRegressor(**FAST, **options))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("hidden_layer_sizes", (0,), ValueError),
        ("hidden_layer_sizes", "wide", TypeError),
        ("dropout", 1.0, ValueError),
        ("dropout", "some", TypeError),
        ("max_iter", 0, ValueError),
        ("batch_size", 2.5, TypeError),
        ("learning_rate_init", 0, ValueError),
        ("weight_decay", -1, ValueError),
        ("label_smoothing", 1.0, ValueError),
        ("label_smoothing", "some", ValueError),
        ("metric", "auc", ValueError),
        ("numeric_embedding", "rbf", ValueError),
        ("max_onehot", -1, ValueError),
        ("embedding_size", 0, ValueError),
        ("embedding_size", 2**20, ValueError),
        ("hidden_layer_sizes", 2**40, ValueError),
        ("random_state", -1, ValueError),
        ("random_state", np.random.default_rng(0), ValueError),
        ("categorical_features", "all", ValueError),
        ("validation_fraction", 0.0, ValueError),
        ("validation_fraction", 1.0, ValueError),
        ("n_ensemble", 0, ValueError),
        ("n_folds", 0, ValueError),
        ("small", "yes", TypeError),
        ("n_threads", 0, ValueError),
    ],
)
@pytest.mark.parametrize("cls", [RealMLPClassifier, RealMLPRegressor])
def test_unusable_parameters_are_named(cls, name, value, error):
    model = cls(**FAST | {name: value})
    with pytest.raises(error, match=name):
        model.fit([[1.0], [2.0]] * 9, [0, 1] * 9)


def test_what_is_for_classifiers_is_refused_by_regressors():
    for options in ({"metric": "log_loss"}, {"label_smoothing": 0.1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.* is for classifiers"):
            RealMLPRegressor(**options).fit([[1.0], [2.0]], [0.0, 1.0])
    with pytest.raises(
        ValueError, match="metric='rmse' is not known; a regressor has 'error' alone: its best epoch is"
    ):
        RealMLPRegressor(metric="rmse").fit([[1.0], [2.0]], [0.0, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weight": "balancd"}, "known are 'balanced', a dict of labels and weights, None"),
        ({"numeric_embedding": "ple"}, "known are 'pbld', 'plr', 'piecewise_linear', None"),
        ({"numeric_embedding": 3}, "must be one of 'pbld', 'plr', 'piecewise_linear', None, got 3"),
        ({"label_smoothing": "none"}, "known are 'auto', a number"),
        ({"label_smoothing": None}, "label_smoothing must be one of 'auto', a number, got None"),
    ],
)
def test_what_is_known_beside_names_is_said(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        RealMLPClassifier(**FAST, **options).fit([[1.0], [2.0]], [0, 1])


# Weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [RealMLPClassifier, RealMLPRegressor])
def test_a_weight_is_a_number_of_equal_rows(cls, data):
    X, price = data
    X, y = X[:40], (price[:40] > 6).astype(int)
    weight = np.arange(40) % 3
    first = cls(**FAST).fit(X, y, sample_weight=weight)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(40), weight))
    second = cls(**FAST).fit(X.iloc[rows], y[rows])
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


def test_rows_of_weight_0_are_left_out_with_their_class(data):
    X, _ = data
    y = np.arange(400) % 3
    model = RealMLPClassifier(**FAST).fit(X, y, sample_weight=y != 2)
    assert model.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="sample_weight"):
        RealMLPClassifier(**FAST).fit(X, y, sample_weight=np.zeros(400))
    with pytest.raises(ValueError, match="sample_weight"):
        RealMLPClassifier(**FAST).fit(X, y, sample_weight=np.ones(3))


def test_class_weights_act_like_sample_weights(data):
    X, _ = data
    y = np.array(["a", "b"])[(np.arange(400) % 10 == 0).astype(int)]
    by_class = RealMLPClassifier(**FAST, class_weight={"b": 9.0}).fit(X, y)
    by_row = RealMLPClassifier(**FAST).fit(X, y, sample_weight=np.where(y == "b", 9.0, 1.0))
    balanced = RealMLPClassifier(**FAST, class_weight="balanced").fit(X, y)
    np.testing.assert_array_equal(by_class.predict_proba(X), by_row.predict_proba(X))
    np.testing.assert_allclose(balanced.predict_proba(X), by_row.predict_proba(X), atol=1e-4)
    plain = RealMLPClassifier(**FAST).fit(X, y)
    assert by_class.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean()
    for wrong, error in (({"z": 1.0}, ValueError), ("best", ValueError), ({"a": 0.0}, ValueError), (3, TypeError)):
        with pytest.raises(error, match="class_weight"):
            RealMLPClassifier(**FAST, class_weight=wrong).fit(X, y)


# Held-out rows, ensembles, folds ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 99])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.9])
def test_held_out_rows_have_their_share_of_each_class(n, fraction, rng):
    codes = rng.integers(0, 3, n)
    codes[: min(3, n)] = range(min(3, n))
    train, held = holdout(np.random.RandomState(0), n, fraction, codes)
    assert set(codes[train]) == set(codes)
    if len(train) < n:
        assert sorted([*train, *held]) == list(range(n))
    if n == 99:
        assert len(held) == np.ceil(fraction * n)
        shares = np.bincount(codes[held], minlength=3) / len(held) - np.bincount(codes) / n
        assert np.abs(shares).max() <= 1 / len(held)


def test_a_class_of_one_row_is_trained_on():
    codes = np.array([0] * 9 + [1])
    for seed in range(10):
        train, held = holdout(np.random.RandomState(seed), 10, 0.5, codes)
        assert 9 in train
        assert len(held) == 5
        for train, held in folds(np.random.RandomState(seed), 10, 3, codes):
            assert 9 in train
            assert 9 not in held
    train, held = holdout(np.random.RandomState(0), 3, 0.5, np.arange(3))
    assert train.tolist() == held.tolist() == [0, 1, 2]


@pytest.mark.parametrize("k", [2, 5])
def test_each_row_is_held_out_by_one_fold(k, rng):
    codes = rng.integers(0, 3, 50)
    pairs = folds(np.random.RandomState(0), 50, k, codes)
    assert sorted(np.concatenate([held for _, held in pairs])) == list(range(50))
    for train, held in pairs:
        assert sorted([*train, *held]) == list(range(50))
        counts = np.bincount(codes[held], minlength=3) - np.bincount(codes) / k
        assert np.abs(counts).max() <= 1
    assert [len(held) for _, held in folds(np.random.RandomState(0), 7, 3, None)] == [3, 2, 2]


def test_nothing_is_learned_from_held_out_rows(data):
    X, price = data
    model = RealMLPRegressor(**FAST).fit(X[:300], price[:300], X_val=X[300:], y_val=price[300:])
    alone = RealMLPRegressor(**FAST).fit(X[:300], price[:300], X_val=X[300:], y_val=price[300:] * 100.0)
    first, second = (vars(other.parts_[0].standard) for other in (model, alone))
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
    assert model.parts_[0].preprocessor.median[0] == np.median(X["size"][:300].fillna(X["size"][:300].mean()))


def test_rows_to_validate_on_may_be_given(data):
    X, price = data
    y = np.where(price > 6, "dear", "cheap")
    model = RealMLPClassifier(**FAST | {"max_iter": 30}).fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert model.score(X, y) > 0.84
    cases = [
        ({"X_val": X[300:]}, "X_val and y_val belong together, y_val is missing"),
        ({"y_val": y[300:]}, "X_val and y_val belong together, X_val is missing"),
        ({"X_val": X[300:], "y_val": ["free"] * 100}, "y_val has classes"),
        ({"X_val": X[300:], "y_val": y[301:]}, "X_val and y_val have inconsistent numbers of samples: 100 and 99"),
        ({"X_val": X[list(X)[1:]], "y_val": y}, "X_val: The feature names should match"),
        ({"X_val": X[300:].assign(street=1), "y_val": y[300:]}, "X_val column 'street' holds numbers"),
        ({"X_val": X[300:].assign(size=np.inf), "y_val": y[300:]}, "Input X_val contains infinity: column 'size', row"),
        ({"X_val": X[300:], "y_val": np.c_[y, y][300:]}, "y_val should be a 1d array"),
        ({"X_val": X[300:], "y_val": np.arange(100) + 0.5}, "y_val: Unknown label type"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            RealMLPClassifier(**FAST).fit(X[:300], y[:300], **options)
    with pytest.raises(ValueError, match="n_folds=2 validates on folds of X"):
        RealMLPClassifier(**FAST, n_folds=2).fit(X, y, X_val=X, y_val=y)
    with pytest.raises(ValueError, match="y_val has shape"):
        RealMLPRegressor(**FAST).fit(X, price, X_val=X, y_val=np.c_[price, price])
    with pytest.raises(ValueError, match="X_val has 1 features, but RealMLPRegressor is expecting 2"):
        RealMLPRegressor(**FAST).fit(np.eye(2), [0, 1], X_val=[[1.0]], y_val=[1])
    with pytest.raises(ValueError, match="X_val and y_val have inconsistent numbers of samples: 1 and 2"):
        RealMLPRegressor(**FAST).fit(np.eye(2), [0, 1], X_val=[[1.0, 2.0]], y_val=[1, 2])


@pytest.mark.parametrize(
    ("fraction", "n", "message"),
    [
        (1e-9, 20, "validation_fraction=1e-09 of 20 rows is none to hold out; give at least 0.05"),
        (0.999, 20, "validation_fraction=0.999 of 20 rows leaves none to train on; give at most 0.95"),
        (0.01, 2, None),  # no choice
        (0.2, 3, None),
    ],
)
def test_a_share_that_is_no_row_or_all_of_them_is_refused(fraction, n, message, rng):
    X = rng.normal(size=(n, 2))
    model = RealMLPRegressor(**FAST, validation_fraction=fraction)
    if message is None:
        assert len(model.fit(X, X[:, 0]).best_epochs_) == 1
        return
    with pytest.raises(ValueError, match=message):
        model.fit(X, X[:, 0])
    model.fit(X, X[:, 0], X_val=X, y_val=X[:, 0])  # which takes its place


def test_arguments_that_it_does_not_have_are_refused_by_the_name_of_the_class(data):
    X, price = data
    model = RealMLPRegressor(**FAST)
    for name in ("eval_set", "validation_data"):
        message = (
            rf"RealMLPRegressor.fit\(\) got an unexpected keyword argument '{name}'; rows to validate on are X_val="
        )
        with pytest.raises(TypeError, match=message):
            model.fit(X, price, **{name: [(X, price)]})
    with pytest.raises(TypeError, match=r"RealMLPRegressor.fit\(\) got an unexpected keyword argument 'epochs'$"):
        model.fit(X, price, epochs=3)
    with pytest.raises(TypeError, match=r"RealMLPRegressor.predict_mc\(\) got an unexpected keyword argument 'sample'"):
        model.predict_mc(X, sample=3)
    with pytest.raises(TypeError, match=r"RealMLPClassifier.fit\(\) missing 1 required"):
        RealMLPClassifier().fit(X)


@pytest.mark.parametrize("cls", [RealMLPClassifier, RealMLPRegressor])
def test_several_networks_give_their_mean(cls, data):
    X, price = data
    y = price if cls is RealMLPRegressor else (price > 6).astype(int)
    method = "predict" if cls is RealMLPRegressor else "predict_proba"
    one = cls(**FAST).fit(X, y)
    two = cls(**FAST, n_ensemble=2).fit(X, y)
    assert len(two.networks_) == len(two.histories_) == 2
    assert len(two.parts_) == 1
    for name, array in one.network_.parameters().items():  # the first is the one that is trained alone
        np.testing.assert_array_equal(two.network_.parameters()[name], array)
        assert "weight" not in name or not np.array_equal(two.networks_[1].parameters()[name], array)
    four = cls(**FAST, n_ensemble=2, n_folds=2).fit(X, y)
    assert len(four.networks_) == 4
    assert len(four.parts_) == 2
    alone = []
    for part in four.parts_:
        for network in part.networks:
            single = clone(four)
            vars(single).update(vars(four) | {"parts_": [type(part)(part.preprocessor, part.standard, [network])]})
            alone.append(getattr(single, method)(X))
    np.testing.assert_allclose(getattr(four, method)(X), np.mean(alone, axis=0), rtol=1e-12)


def test_lines_of_several_networks_say_which(data, capsys):
    X, price = data
    RealMLPRegressor(**FAST, verbose=1).fit(X, price)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [f"epoch {n}/3" for n in (1, 2, 3)]
    RealMLPRegressor(**FAST, n_ensemble=2, n_folds=2, n_threads=2, verbose=True).fit(X, price)
    found = sorted(line.split("  ")[:2] for line in capsys.readouterr().out.splitlines())
    assert found == [[f"network {network} of 4", f"epoch {n}/3"] for network in (1, 2, 3, 4) for n in (1, 2, 3)]


@pytest.mark.parametrize("options", [{}, {"metric": "log_loss"}])
def test_the_latest_of_the_epochs_with_the_least_error_is_kept(options, data):
    X, price = data
    y = (price > np.median(price)).astype(int)
    held = slice(300, 400)
    model = RealMLPClassifier(**FAST | {"max_iter": 12}, n_ensemble=2, **options)
    model.fit(X[:300], y[:300], X_val=X[held], y_val=y[held])
    for history, epoch in zip(model.histories_, model.best_epochs_, strict=True):
        errors = np.array(history.metrics["val_error"])
        assert epoch == np.flatnonzero(errors == errors.min())[-1] + 1
    model = RealMLPClassifier(**FAST | {"max_iter": 12}, **options).fit(X[:300], y[:300], X_val=X[held], y_val=y[held])
    p = model.predict_proba(X[held])
    error = log_loss(y[held], p) if options else (p.argmax(axis=1) != y[held]).mean()
    assert error == pytest.approx(model.history_.metrics["val_error"][model.best_epochs_[0] - 1], rel=1e-5)


@pytest.mark.parametrize("cls", [RealMLPClassifier, RealMLPRegressor])
def test_the_bits_do_not_depend_on_the_number_of_threads(cls, data):
    X, price = data
    y = (price > 6).astype(int)
    found = [
        cls(**FAST, n_ensemble=2, n_folds=2, n_threads=threads).fit(X, y).predict_mc(X, 8).mean for threads in (1, 2, 3)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_an_error_in_one_of_several_networks_is_raised(data, monkeypatch):
    X, price = data

    def fail(*arguments):
        raise FloatingPointError("one")

    monkeypatch.setattr("cydrop.tabular._training.train_member", fail)
    model = RealMLPRegressor(**FAST, n_ensemble=3, n_threads=2)
    with pytest.raises(FloatingPointError, match="one"):
        model.fit(X, price)
    assert vars(model) == vars(clone(model))


def test_when_one_network_fails_the_others_end_with_their_epoch(data, monkeypatch):
    begun = threading.Barrier(2)
    epochs = []

    def train(recipe, *arguments):
        number = begun.wait(10)
        if number == 0:
            raise FloatingPointError("one")
        (stop,) = arguments[-1]
        for epoch in range(10**4):
            time.sleep(0.01)
            epochs.append(epoch)
            stop.on_epoch_end(None, epoch, {})

    monkeypatch.setattr("cydrop.tabular._training.train_member", train)
    with pytest.raises(FloatingPointError, match="one"):
        RealMLPRegressor(**FAST, n_ensemble=2, n_threads=2).fit(*data)
    assert len(epochs) < 1000


INTERRUPTED = """
import os, signal, sys, threading
import numpy as np
from cydrop.tabular import RealMLPRegressor, _recipe

signal.signal(signal.SIGINT, signal.default_int_handler)
tell = _recipe.HeldOut.on_epoch_end
def told(self, network, epoch, metrics):
    tell(self, network, epoch, metrics)
    if epoch == 2:
        os.write(1, b"two epochs\\n")
_recipe.HeldOut.on_epoch_end = told
X = np.random.default_rng(0).normal(size=(400, 3))
model = RealMLPRegressor(max_iter=10**6, n_ensemble=3, n_threads=int(sys.argv[1]), random_state=0)
before = dict(vars(model))
try:
    model.fit(X, X[:, 0])
except KeyboardInterrupt:
    assert threading.active_count() == 1
    assert vars(model) == before
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send SIGINT to one process alone")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_an_interrupt_ends_all_networks_and_leaves_the_estimator_as_it_was(n_threads):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(n_threads)], **pipes) as child:
        try:
            assert child.stdout.readline() == "two epochs\n"
            child.send_signal(signal.SIGINT)
            output, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    assert output.split("\n")[-2:] == ["interrupted", ""], errors


# Monte Carlo dropout ----------------------------------------------------------------------------------------


def test_samples_have_a_mean_and_a_spread(data, classifier, regressor):
    X, _ = data
    mc = classifier.predict_mc(X[:50], samples=200)
    assert mc.mean.shape == mc.std.shape == (50, 2)
    assert mc.entropy.shape == mc.mutual_information.shape == (50,)
    assert (mc.std > 0).all()
    np.testing.assert_allclose(mc.mean, classifier.predict_proba(X[:50]), atol=0.25)
    p = mc.mean.astype(float)
    np.testing.assert_allclose(mc.entropy, -(p * np.log(p)).sum(axis=1), rtol=1e-4)
    assert (mc.mutual_information <= mc.entropy).all()
    np.testing.assert_allclose(mc.total, mc.aleatoric + mc.epistemic, atol=1e-12)
    np.testing.assert_array_equal(mc.mean, classifier.predict_mc(X[:50], samples=200, seed=0).mean)
    assert not np.array_equal(mc.mean, classifier.predict_mc(X[:50], samples=200, seed=1).mean)
    mc = regressor.predict_mc(X[:50], samples=60, quantiles=[0.05, 0.5, 0.95], return_samples=True)
    assert mc.samples.shape == (60, 50)
    assert mc.quantiles.shape == (3, 50)
    assert (np.diff(mc.quantiles, axis=0) >= 0).all()
    np.testing.assert_allclose(mc.mean, mc.samples.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mc.std, mc.samples.std(axis=0), rtol=1e-4)
    assert mc.entropy is None
    with pytest.raises(ValueError, match="samples"):
        regressor.predict_mc(X, samples=0)


def test_rows_are_sampled_piece_by_piece(data, classifier, monkeypatch):
    X, _ = data
    monkeypatch.setattr("cydrop.tabular._sampling.PIECE", 100 * 2 * 64)
    pieces = classifier.predict_mc(X, samples=100, quantiles=[0.5])
    monkeypatch.setattr("cydrop.tabular._sampling.PIECE", 1 << 24)
    whole = classifier.predict_mc(X, samples=100, quantiles=[0.5])
    np.testing.assert_allclose(pieces.mean, whole.mean, atol=0.2)
    np.testing.assert_allclose(pieces.std, whole.std, atol=0.2)
    assert pieces.quantiles.shape == whole.quantiles.shape == (1, 400, 2)


def test_the_samples_of_several_networks_are_shared_among_them(data):
    X, price = data
    model = RealMLPRegressor(**FAST, n_ensemble=3).fit(X, price)
    mc = model.predict_mc(X, samples=4, return_samples=True)
    assert mc.samples.shape == (4, 400)
    assert model.predict_mc(X, samples=1).mean.shape == (400,)


def test_samples_of_targets_far_from_0_or_huge_keep_their_spread(rng):
    X = rng.normal(size=(100, 2))
    spreads = []
    for shift, scale in ((0.0, 1.0), (2e9, 1.0), (0.0, 1e300)):
        model = RealMLPRegressor(**FAST, n_ensemble=2).fit(X, X[:, 0] * scale + shift)
        spreads.append(model.predict_mc(X, 20).std / scale)
        assert np.isfinite(model.predict_mc(X, 20).mean).all()
    np.testing.assert_allclose(spreads[1], spreads[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(spreads[2], spreads[0], rtol=1e-6)


def test_without_dropout_the_spread_is_that_of_the_networks(data):
    X, price = data
    model = RealMLPRegressor(**FAST, n_ensemble=2, dropout=0.0).fit(X, price)
    with pytest.warns(UserWarning, match="nothing is drawn .*, since there is no dropout: only the networks differ"):
        mc = model.predict_mc(X, samples=2)
    np.testing.assert_allclose(mc.mean, model.predict(X), rtol=1e-5)
    assert (mc.std > 0).any()
    with pytest.raises(
        ValueError, match=r"rate=0.5 has nothing to act on: with dropout=0 the networks have no dropout"
    ):
        model.predict_mc(X, samples=2, rate=0.5)
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got 2"):
        model.predict_mc(X, samples=2, rate=2)
    alone = RealMLPClassifier(**FAST, small=True).fit(X, price > 6)
    with pytest.raises(
        ValueError, match=r"rate=0.5 has nothing to act on: with small=True the networks have no dropout"
    ):
        alone.predict_mc(X, samples=2, rate=0.5)
    with pytest.warns(UserWarning, match="all are the same, and a spread of 0 is no certainty"):
        np.testing.assert_allclose(alone.predict_mc(X, samples=2).mean, alone.predict_proba(X), rtol=1e-5)


def test_log_probabilities_are_those_of_the_probabilities(data, classifier):
    X, _ = data
    np.testing.assert_array_equal(classifier.predict_log_proba(X), np.log(classifier.predict_proba(X)))
    sure = RealMLPClassifier(**FAST).fit(X, ["only"] * 400)
    np.testing.assert_array_equal(sure.predict_log_proba(X), 0.0)


# scikit-learn -----------------------------------------------------------------------------------------------


def test_pickles_and_joblib_keep_everything(data, classifier, tmp_path):
    X, _ = data
    joblib.dump(classifier, tmp_path / "model.joblib")
    for other in (pickle.loads(pickle.dumps(classifier)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(other.predict_proba(X), classifier.predict_proba(X))
        assert other.history_.metrics == classifier.history_.metrics
    assert pickle.dumps(classifier).count(b"cydrop.tabular._estimators") == 0


def test_a_clone_learns_the_same(data, regressor):
    X, price = data
    other = clone(regressor).fit(X, price)
    np.testing.assert_array_equal(other.predict(X), regressor.predict(X))


def test_pipelines_with_frames_between_their_steps(data):
    X, price = data
    columns = ColumnTransformer([("numbers", StandardScaler(), ["rooms"])], remainder="passthrough")
    model = make_pipeline(columns.set_output(transform="pandas"), RealMLPRegressor(**FAST)).fit(X, price)
    assert model[-1].feature_names_in_[0] == "numbers__rooms"
    assert "category" in model[-1].schema_.kinds
    assert model.predict(X).shape == (400,)
    numbers = pl.from_pandas(X[["rooms", "one"]])
    polars = make_pipeline(StandardScaler().set_output(transform="polars"), RealMLPRegressor(**FAST))
    assert polars.fit(numbers, price).predict(numbers).shape == (400,)
    assert polars[-1].feature_names_in_.tolist() == ["rooms", "one"]


def test_grid_search_in_two_processes(data):
    X, price = data
    search = GridSearchCV(RealMLPRegressor(**FAST, n_threads=1), {"max_iter": [1, 20]}, cv=2, n_jobs=2)
    search.fit(X, price)
    assert search.best_params_ == {"max_iter": 20}
    assert search.best_estimator_.predict(X).shape == (400,)


def test_sample_weights_are_routed(data):
    X, price = data
    weight = np.arange(400) % 2
    with sklearn.config_context(enable_metadata_routing=True):
        model = RealMLPRegressor(**FAST).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), model).fit(X, price, sample_weight=weight)
        result = cross_validate(model, X, price, params={"sample_weight": weight}, cv=2)
    alone = RealMLPRegressor(**FAST).fit(X, price, sample_weight=weight)
    np.testing.assert_array_equal(pipeline.predict(X), alone.predict(X))
    assert len(result["test_score"]) == 2


def test_it_is_imported_only_on_demand():
    program = "import sys, cydrop; assert 'sklearn' not in sys.modules; cydrop.tabular.RealMLPClassifier"
    subprocess.run([sys.executable, "-c", program], check=True)

"""The estimators: scikit-learn's results where they do the same, and what they add."""

import itertools
import json
import pickle
import subprocess
import sys
from copy import deepcopy

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context, neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError, UnsetMetadataPassedError
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import cydrop as cd
from cydrop._run.core import core_of
from cydrop._run.training import Trainer
from cydrop.callbacks import CSVLogger, EarlyStopping, LambdaCallback
from cydrop.sklearn import MLPClassifier, MLPRegressor, _training
from cydrop.sklearn._data import Data
from cydrop.sklearn._regressor import Regression

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def digits():
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    return X[:1000], y[:1000], X_test[:500], y_test[:500]


@pytest.fixture
def table(rng):
    """Rows, labels of three classes, and two targets that follow from the rows."""
    X = rng.standard_normal((240, 5))
    score = X @ rng.standard_normal((5, 3)) + 0.1 * rng.standard_normal((240, 3))
    return X, score.argmax(axis=1), np.tanh(score[:, :2])


# The same as scikit-learn ---------------------------------------------------------------------------------


def trained_from_the_same_weights(ours, theirs, X, y, sample_weight=None):
    """Both go on for some epochs from scikit-learn's first weights."""
    arguments = {} if sample_weight is None else {"sample_weight": sample_weight}
    for estimator in (theirs, ours):
        estimator.set_params(max_iter=1, warm_start=True)
        estimator.fit(X, y, **arguments)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        assert mine.shape == other.shape
        mine[...] = other
    for estimator in (theirs, ours):
        estimator.set_params(max_iter=15)
        estimator.loss_curve_.clear()
        estimator.best_loss_ = np.inf
        estimator.fit(X, y, **arguments)


SOLVERS = [
    {"solver": "adam"},
    {"solver": "sgd", "learning_rate_init": 0.05},
    {"solver": "sgd", "learning_rate_init": 0.05, "nesterovs_momentum": False, "momentum": 0.5},
    {"solver": "sgd", "learning_rate_init": 0.1, "learning_rate": "invscaling", "power_t": 0.1},
    {"solver": "sgd", "learning_rate_init": 0.05, "learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 0.02},
]
SHARED = {"hidden_layer_sizes": (12, 7), "alpha": 0.0, "shuffle": False, "batch_size": 40, "random_state": 0}


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("problem", ["classes", "two classes", "labels", "one target", "two targets"])
def test_training_goes_as_in_scikit_learn(problem, activation, solver, table):
    X, classes, targets = table
    X = X.astype(np.float32).astype(np.float64)
    y = {
        "classes": classes, "two classes": classes == 1, "labels": (targets > 0).astype(int),
        "one target": targets[:, 0], "two targets": targets,
    }[problem]  # fmt: skip
    kind = "MLPRegressor" if "target" in problem else "MLPClassifier"
    options = SHARED | {"activation": activation} | solver
    ours = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[kind](**options)
    theirs = getattr(neural_network, kind)(**options)
    trained_from_the_same_weights(ours, theirs, X, y)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=2e-4)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=5e-3, atol=1e-3)
    if kind == "MLPClassifier":
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
        np.testing.assert_allclose(ours.predict_log_proba(X), np.log(theirs.predict_proba(X)), atol=1e-2)
    assert (ours.predict(X) == theirs.predict(X)).mean() > 0.99 or kind == "MLPRegressor"
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), abs=5e-3)
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("activation", "factor"), [("relu", 6), ("tanh", 6), ("identity", 6), ("logistic", 2), ("sigmoid", 2)]
)
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_training_begins_as_in_scikit_learn(kind, activation, factor, rng):
    X = rng.standard_normal((50, 30))
    y = np.arange(50) % 20
    options = {"hidden_layer_sizes": (70, 40), "activation": activation}
    # a first step too small to see
    options |= {"learning_rate_init": 1e-12, "max_iter": 1, "solver": "sgd", "momentum": 0.0}
    ours = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[kind]
    found = [ours(**options, random_state=seed).fit(X, y) for seed in range(30)]
    sizes = [30, 70, 40, 20 if kind == "MLPClassifier" else 1]
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        bound = np.sqrt(factor / (fan_in + fan_out))
        for parts in ([m.coefs_[number] for m in found], [m.intercepts_[number] for m in found]):
            drawn = np.concatenate([part.ravel() for part in parts]) / bound
            assert 1 - 30 / drawn.size < np.abs(drawn).max() < 1 + 1e-6
            assert abs(drawn.mean()) < 4.5 / np.sqrt(3 * drawn.size)
            assert drawn.var() == pytest.approx(1 / 3, abs=4.5 * np.sqrt(4 / 45 / drawn.size))
    if activation != "sigmoid":
        theirs = getattr(neural_network, kind)(**options, random_state=0).fit(X, y)
        for mine, other in zip(found[0].coefs_, theirs.coefs_, strict=True):
            assert mine.std() == pytest.approx(other.std(), rel=0.25)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(
    "solver", [{"solver": "adam"}, {"solver": "lbfgs", "hidden_layer_sizes": 50, "max_iter": 100}], ids=str
)
def test_few_columns_are_learnt_as_well_as_by_scikit_learn(columns, solver):
    scores = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.uniform(-1.7, 1.7, (3000, columns))
        u = X / 1.7
        y = np.sin(6 * u[:, 0]) if columns == 1 else np.sin(8 * u[:, 0]) * u[:, 1]
        y = y + 0.05 * rng.standard_normal(3000)
        kinds = MLPRegressor, neural_network.MLPRegressor
        models = [kind(random_state=seed, **solver) for kind in kinds]
        scores.append([model.fit(X[:2000], y[:2000]).score(X[2000:], y[2000:]) for model in models])
    ours, theirs = np.mean(scores, axis=0)
    assert ours > theirs - 0.05


def test_the_penalty_shrinks_weights_as_in_scikit_learn(table):
    X, y, _ = table
    options = SHARED | {"alpha": 5.0, "batch_size": 240, "hidden_layer_sizes": (20,)}
    ours, theirs = MLPClassifier(**options), neural_network.MLPClassifier(**options)
    trained_from_the_same_weights(ours, theirs, X, y)
    for mine, other in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-3)


def test_weights_of_rows_count_as_in_scikit_learn(table, rng):
    X, _, targets = table
    weight = rng.random(240) * 7
    options = SHARED | {"batch_size": 240, "solver": "sgd", "learning_rate_init": 0.1}
    ours, theirs = MLPRegressor(**options), neural_network.MLPRegressor(**options)
    trained_from_the_same_weights(ours, theirs, X, targets[:, 0], weight)
    for mine, other in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)


@pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp` and `iprint`:DeprecationWarning")  # scikit-learn 1.7's
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_lbfgs_finds_what_scikit_learns_finds(kind, table):
    X, y, targets = table
    y = y if kind == "MLPClassifier" else targets[:, 0]
    options = {"solver": "lbfgs", "hidden_layer_sizes": (), "alpha": 1.0, "max_iter": 2000, "random_state": 0}
    ours = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[kind](**options).fit(X, y)
    theirs = getattr(neural_network, kind)(**options).fit(X, y)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-3)
    outputs = "predict_proba" if kind == "MLPClassifier" else "predict"
    np.testing.assert_allclose(getattr(ours, outputs)(X), getattr(theirs, outputs)(X), atol=5e-3)


def test_every_parameter_of_scikit_learns_estimators_is_there():
    for ours, theirs in (
        (MLPClassifier, neural_network.MLPClassifier), (MLPRegressor, neural_network.MLPRegressor),
    ):  # fmt: skip
        mine, other = ours().get_params(), theirs().get_params()
        assert {name: mine.get(name, "not there") for name in other} == other


# Data of every kind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [["no", "yes", "maybe"], [3, 7, -2], [0.5, 1.5, 7.0], ["a", "b", "a"], [True, False, True]],
    ids=str,
)
def test_labels_may_be_of_any_type(labels, table):
    X, classes, _ = table
    y = np.array(labels)[classes]
    if y.dtype.kind == "f":
        y = y.astype(object).astype(str)  # scikit-learn takes fractions for a regression's targets
    model = MLPClassifier(random_state=0, max_iter=60).fit(X, y)
    assert model.classes_.tolist() == sorted(set(y.tolist()))
    assert model.predict(X).dtype == y.dtype
    assert model.score(X, y) > 0.8
    proba = model.predict_proba(X)
    assert proba.shape == (240, len(model.classes_))
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_array_equal(model.classes_[proba.argmax(axis=1)], model.predict(X))
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(proba), atol=1e-4)
    assert log_loss(y, proba) < 0.6


def test_a_single_class_is_always_predicted(table):
    X, _, _ = table
    model = MLPClassifier(random_state=0, max_iter=5).fit(X, ["only"] * 240)
    assert set(model.predict(X)) == {"only"}
    assert (model.predict_proba(X) == 1.0).all()
    assert (model.predict_log_proba(X) == 0.0).all()
    assert (model.decision_function(X) == 0.0).all()
    with pytest.warns(UserWarning, match="nothing is drawn"):
        assert model.predict_mc(X, 3).mean.shape == (240, 1)


def test_data_frames_and_their_names(table):
    X, y, _ = table
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = MLPClassifier(random_state=0, max_iter=20).fit(frame, pd.Series(y, dtype="category"))
    assert model.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("edcba")])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csr_matrix, sparse.csc_array])
def test_sparse_rows_give_the_same_bits_as_dense_ones(make, digits, monkeypatch):
    X, y, X_test, _ = digits
    model = MLPClassifier((20,), random_state=0, max_iter=4, dropout=0.2)
    models = [clone(model).fit(form(X), y) for form in (make, np.array)]
    monkeypatch.setattr("cydrop.sklearn._base.SPARSE_CHUNK", 64 * 100)
    np.testing.assert_array_equal(models[0].predict_proba(make(X_test)), models[1].predict_proba(X_test))
    np.testing.assert_array_equal(models[0].predict_mc(make(X_test), 3).mean, models[1].predict_mc(X_test, 3).mean)


def test_several_labels_at_once(table):
    X, _, targets = table
    y = (targets > 0).astype(int)
    model = MLPClassifier(random_state=0, max_iter=100, dropout=0.1, early_stopping=True).fit(X, y)
    assert model.predict(X).shape == model.predict_proba(X).shape == (240, 2)
    assert model.score(X, y) > 0.8
    mc = model.predict_mc(X, 10)
    assert mc.mean.shape == mc.std.shape == mc.entropy.shape == (240, 2)
    np.testing.assert_array_equal(MLPClassifier(max_iter=3).fit(X, sparse.csr_array(y)).classes_, [0, 1])
    with pytest.raises(ValueError, match=r"y of shape \(240, 2\) has several columns of classes"):
        MLPClassifier().fit(X, y + np.arange(2))


@pytest.mark.parametrize("shape", [(240,), (240, 1), (240, 2)])
def test_predictions_have_the_shape_of_the_targets(shape, table):
    X, _, targets = table
    y = targets[:, : np.prod(shape) // 240].reshape(shape)
    model = MLPRegressor(random_state=0, max_iter=100, dropout=0.05, early_stopping=True, learning_rate_init=0.01)
    if shape == (240, 1):
        with pytest.warns(UserWarning, match="column-vector y"):
            model.fit(X, y)
        shape = (240,)
    else:
        model.fit(X, y)
    assert model.predict(X).shape == shape
    assert model.predict(X).dtype == np.float64
    mc = model.predict_mc(X, 20, return_samples=True, quantiles=[0.1, 0.5, 0.9])
    assert mc.mean.shape == mc.std.shape == shape
    assert mc.quantiles.shape == (3, *shape)
    assert mc.samples.shape == (20, *shape)
    np.testing.assert_allclose(mc.quantiles[1], np.median(mc.samples, axis=0), rtol=1e-6)
    assert model.score(X, y) > 0.7
    assert model.best_validation_score_ == max(model.validation_scores_)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber"])
def test_losses_of_the_regressor(loss, table):
    X, _, targets = table
    assert MLPRegressor(loss=loss, random_state=0, max_iter=150).fit(X, targets).score(X, targets) > 0.8


# Weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"dropout": [0.2, 0.5], "early_stopping": True, "max_norm": 2.0}], ids=str)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_of_rows_in_one_batch_weights_and_repetitions_give_the_same_bits(kind, options, table, rng):
    X, y, _ = (part[:60] for part in table)
    weight = rng.integers(0, 3, 60)
    order = rng.permutation(weight.sum())
    one = kind(random_state=0, max_iter=30, **options).fit(X, y, sample_weight=weight)
    two = kind(random_state=0, max_iter=30, **options).fit(X.repeat(weight, axis=0)[order], y.repeat(weight)[order])
    for mine, other in zip(one.coefs_, two.coefs_, strict=True):
        assert mine.tobytes() == other.tobytes()


def test_rows_of_weight_zero_are_as_if_they_were_not_there(digits):
    X, y, X_test, _ = digits
    weight = (np.arange(len(X)) % 3 > 0).astype(float)
    one = MLPClassifier((20,), random_state=0, max_iter=3).fit(X, y, sample_weight=weight)
    two = MLPClassifier((20,), random_state=0, max_iter=3).fit(X[weight > 0], y[weight > 0])
    np.testing.assert_array_equal(one.predict_proba(X_test), two.predict_proba(X_test))


def test_balanced_classes_raise_the_recall_of_the_rare_one(rng):
    X = np.concatenate([rng.standard_normal((570, 2)), rng.standard_normal((30, 2)) + 1.3])
    y = np.array(["common"] * 570 + ["rare"] * 30)
    plain = MLPClassifier(random_state=0).fit(X, y)
    balanced = MLPClassifier(random_state=0, class_weight="balanced").fit(X, y)
    given = MLPClassifier(random_state=0, class_weight={"common": 600 / 1140, "rare": 10.0}).fit(X, y)
    rare = y == "rare"
    assert (balanced.predict(X[rare]) == "rare").mean() > (plain.predict(X[rare]) == "rare").mean() + 0.3
    np.testing.assert_allclose(given.predict_proba(X), balanced.predict_proba(X), atol=1e-3)


def test_balanced_classes_count_rows_by_their_weights(table, rng):
    X, y, _ = (part[:60] for part in table)
    weight = rng.integers(0, 4, 60)
    one = MLPClassifier(random_state=0, max_iter=30, class_weight="balanced").fit(X, y, sample_weight=weight)
    two = MLPClassifier(random_state=0, max_iter=30, class_weight="balanced")
    two.fit(X.repeat(weight, axis=0), y.repeat(weight))
    np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({0: -1.0}, r"class_weight\[0\] must be a finite number of at least 0, got -1"),
        ({0: np.nan}, r"class_weight\[0\] must be a finite number"),
        ({"0": 2.0}, r"class_weight names \['0'\], which are no labels of y: y has \[0, 1, 2\]"),
        ({0: 0, 1: 0, 2: 0}, "sample_weight and class_weight leave no row"),
        ("balancd", "class_weight='balancd' is not known; known are 'balanced', a dict of labels and weights, None"),
        ([1.0, 2.0, 3.0], "class_weight must be a dict"),
    ],
    ids=str,
)
def test_wrong_class_weights_are_named(class_weight, message, table):
    X, y, _ = table
    with pytest.raises((ValueError, TypeError), match=message):
        MLPClassifier(class_weight=class_weight).fit(X, y)
    labels = np.stack([y == 0, y == 1], axis=1).astype(int)
    with pytest.raises(ValueError, match="class_weight must have finite weights of at least 0"):
        MLPClassifier(class_weight=[{0: 1.0, 1: -2.0}, {0: 1.0, 1: 1.0}]).fit(X, labels)


def test_class_weights_need_not_name_every_class_of_a_piece(table):
    X, y, _ = table
    model = MLPClassifier(class_weight={0: 5.0, 1: 2.0}, random_state=0)
    model.partial_fit(X[y > 0], y[y > 0], classes=[0, 1, 2])  # without the rows of class 0
    weight = np.where(y[y > 0] == 1, 2.0, 1.0)
    other = MLPClassifier(random_state=0).partial_fit(X[y > 0], y[y > 0], weight, classes=[0, 1, 2])
    assert model.coefs_[0].tobytes() == other.coefs_[0].tobytes()


# Training --------------------------------------------------------------------------------------------------


def test_dropout_closes_the_gap_between_training_and_test(digits):
    X, y, X_test, y_test = digits
    X, y = X[:300], y[:300]
    gaps = []
    for dropout in (0.0, 0.5):
        model = MLPClassifier((200,), random_state=0, dropout=dropout, max_iter=150).fit(X, y)
        gaps.append(log_loss(y_test, model.predict_proba(X_test)) - log_loss(y, model.predict_proba(X)))
    assert gaps[1] < gaps[0]


def test_the_parameters_of_dropout_make_the_layers():
    X, y = np.eye(8), np.arange(8) % 3
    schedule = cd.schedules.Linear(1.0, 0.5)

    def stack(**options):
        model = MLPClassifier((6, 4), max_iter=1, random_state=0, **options).fit(X, y)
        return [repr(layer) for layer in model.network_.layers]

    def kinds(**options):
        return " ".join(layer.split("(")[0] for layer in stack(**options))

    assert kinds() == "Dense Dense Dense"
    assert kinds(dropout=0.3) == "Dense Dropout Dense Dropout Dense"
    assert kinds(dropout=[0.1, 0, 0.5]) == "Dropout Dense Dense Dropout Dense"
    assert "rate=0.3, mode='vanilla'" in stack(dropout=0.3, dropout_mode="vanilla")[1]
    assert ["max_norm=3.0" in layer for layer in stack(max_norm=3.0)] == [True, True, False]
    model = MLPClassifier((6,), dropout=0.4, dropout_schedule=schedule, max_iter=4, random_state=0).fit(X, y)
    np.testing.assert_allclose(model.network_.history.metrics["1.rate"], [0.4, 0.35, 0.3, 0.25])


def test_early_stopping_keeps_the_weights_of_the_best_epoch(digits):
    X, y, _, _ = digits
    model = MLPClassifier((30,), random_state=0, early_stopping=True, max_iter=300, learning_rate_init=0.01).fit(X, y)
    assert model.n_iter_ == len(model.validation_scores_) == len(model.loss_curve_) < 300
    assert model.best_loss_ is None
    assert model.best_validation_score_ == max(model.validation_scores_)


def test_the_same_random_state_gives_the_same_bits_on_any_number_of_threads(digits):
    X, y, X_test, _ = digits
    found = [
        MLPClassifier((300,), random_state=5, dropout=0.5, max_iter=3, n_threads=n).fit(X, y).predict_proba(X_test)
        for n in (1, 2, 3)
    ]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    other = MLPClassifier((300,), random_state=6, dropout=0.5, max_iter=3).fit(X, y).predict_proba(X_test)
    assert (other != found[0]).any()
    state = np.random.RandomState(5)
    once, again = (MLPClassifier(random_state=state, max_iter=2).fit(X, y) for _ in range(2))
    assert (once.coefs_[0] != again.coefs_[0]).any()


def test_partial_fit_goes_on_pass_by_pass(digits):
    X, y, X_test, y_test = digits
    model = MLPClassifier((50,), random_state=0, dropout=0.1)
    with pytest.raises(ValueError, match="classes must be given in the first call of partial_fit"):
        model.partial_fit(X, y)
    model.partial_fit(X[y < 5], y[y < 5], classes=np.arange(10))
    for _ in range(30):
        model.partial_fit(X, y)
    assert len(model.loss_curve_) == 31
    assert model.t_ == 30 * len(X) + (y < 5).sum()
    assert model.score(X_test, y_test) > 0.9
    with pytest.raises(ValueError, match="y has classes"):
        model.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="are not those of the calls before"):
        model.partial_fit(X, y, classes=np.arange(3))
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    regressor = MLPRegressor(random_state=0, batch_size=50)
    for _ in range(60):
        regressor.partial_fit(X, y)
    assert regressor.score(X, y) > 0.7
    with pytest.raises(ValueError, match="y has shape"):
        regressor.partial_fit(X, np.stack([y, y], axis=1))


def test_warm_start_goes_on_and_a_fresh_fit_begins_anew(digits):
    X, y, _, _ = digits
    model = MLPClassifier((20,), random_state=0, max_iter=3, warm_start=True).fit(X, y)
    first = model.loss_
    model.fit(X, y)
    assert model.loss_ < first
    assert len(model.loss_curve_) == 6
    with pytest.raises(ValueError, match="another network than the fitted one"):
        model.set_params(dropout=0.3).fit(X, y)
    model.set_params(warm_start=False).fit(X, y)
    assert len(model.loss_curve_) == 3


def test_a_warm_start_that_finds_nothing_better_keeps_the_best_weights(digits):
    X, y, X_test, _ = digits
    model = MLPClassifier((30,), random_state=0, early_stopping=True, max_iter=60, warm_start=True).fit(X, y)
    before, best = model.predict_proba(X_test), model.best_validation_score_
    model.set_params(learning_rate_init=100.0, max_iter=2).fit(X, y)
    assert max(model.validation_scores_[-2:]) < best == model.best_validation_score_
    np.testing.assert_array_equal(model.predict_proba(X_test), before)


def test_partial_fit_follows_parameters_that_change(table):
    X, y, _ = table
    model = MLPClassifier(random_state=0, alpha=0.6).partial_fit(X[:10], y[:10], classes=[0, 1, 2])
    assert model.network_.optimizer.weight_decay == pytest.approx(0.06)
    model.partial_fit(X[:60], y[:60])  # the penalty is shared by the rows of this batch, not by those of the first
    assert model.network_.optimizer.weight_decay == pytest.approx(0.01)
    moments = core_of(model.network_).model.moments[0].copy()
    model.set_params(learning_rate_init=1e-9, alpha=0.0).partial_fit(X[:60], y[:60])
    assert model.network_.optimizer.learning_rate == 1e-9
    assert model.network_.optimizer.weight_decay == 0.0
    assert np.corrcoef(moments, core_of(model.network_).model.moments[0])[0, 1] > 0.5  # they were kept
    model.set_params(solver="sgd", learning_rate_init=0.1, learning_rate="invscaling").partial_fit(X[:60], y[:60])
    assert model.network_.optimizer.learning_rate == pytest.approx(0.1 / (model.t_ + 1) ** 0.5)
    with pytest.raises(ValueError, match="another network than the fitted one"):
        model.set_params(hidden_layer_sizes=(3,)).partial_fit(X, y)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_solvers_and_early_stopping_may_change_between_warm_starts(kind, table):
    X, y, _ = table
    model = kind(solver="lbfgs", random_state=0, max_iter=4, warm_start=True).fit(X, y)
    assert not hasattr(model, "loss_curve_")
    model.set_params(solver="adam").fit(X, y)
    model.set_params(early_stopping=True).fit(X, y)
    assert len(model.loss_curve_) == 8
    assert len(model.validation_scores_) == 4
    assert model.best_loss_ is None
    model.set_params(early_stopping=False).fit(X, y)
    assert len(model.loss_curve_) == 12
    assert model.partial_fit(X, y).n_iter_ == 1
    model.set_params(solver="lbfgs", warm_start=False).fit(X, y)
    assert not hasattr(model, "loss_curve_")  # nothing is left of the fits before
    assert len(model.set_params(solver="adam").partial_fit(X, y).loss_curve_) == 1


def test_training_goes_on_with_an_estimator_that_began_otherwise(table):
    """As versions did that had other first weights and no curve of the held-out loss."""
    X, y, _ = table
    model = MLPClassifier(random_state=0, early_stopping=True, max_iter=3, warm_start=True).fit(X, y)
    del model.validation_loss_curve_
    for layer in model.network_.layers:
        vars(layer)["weight_init"] = "he_normal"
        del vars(layer)["bias_init"]
    model = pickle.loads(pickle.dumps(model)).fit(X, y)
    assert (len(model.validation_scores_), len(model.validation_loss_curve_)) == (6, 3)
    assert model.partial_fit(X, y).n_iter_ == 1
    with pytest.raises(ValueError, match="another network than the fitted one"):
        model.set_params(max_norm=2.0).fit(X, y)


def test_a_warm_start_with_early_stopping_does_not_end_worse_than_it_began(digits):
    X, y, _, _ = digits
    model = MLPClassifier(random_state=0, early_stopping=True, warm_start=True, learning_rate_init=0.01).fit(X, y)
    before, best = [array.copy() for array in model.coefs_], model.best_validation_score_
    model.set_params(learning_rate_init=10.0, max_iter=3).fit(X, y)  # a step that is far too large
    assert max(model.validation_scores_[-3:]) < best
    for array, kept in zip(model.coefs_, before, strict=True):
        np.testing.assert_array_equal(array, kept)
    assert model.best_validation_score_ == best


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_the_noise_of_dropout_does_not_end_the_training(kind):
    lost, epochs = [], []
    for seed in range(4):
        X, y = make_classification(4000, 5, n_informative=5, n_redundant=0, n_clusters_per_class=8, random_state=seed)
        y = y if kind is MLPClassifier else np.sin(X[:, 0]) + y
        model, patient = (
            kind(dropout=0.2, random_state=seed, n_iter_no_change=n).fit(X[:2000], y[:2000]) for n in (10, 50)
        )
        lost.append(patient.score(X[2000:], y[2000:]) - model.score(X[2000:], y[2000:]))
        epochs.append(model.n_iter_)
        assert model.best_loss_ == min(model.loss_curve_)  # as trained
    assert np.mean(lost) < 0.005  # by the trained loss alone: 0.017
    assert np.mean(epochs) > 150


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_ends_when_nothing_improves(dropout, table):
    X, _, targets = table
    options = {"max_iter": 3000, "learning_rate_init": 0.02, "batch_size": 40, "warm_start": True}
    model = MLPRegressor((20,), random_state=0, dropout=dropout, **options)
    assert model.fit(X, targets).n_iter_ < 1500
    looked, evaluate = [], model.network_.evaluate
    model.network_.evaluate = lambda *arguments: looked.append(1) or evaluate(*arguments)
    model.set_params(learning_rate_init=1e-9)
    model.best_loss_ = 0.0  # which no noise reaches
    assert model.fit(X, targets).n_iter_ == 11
    assert len(looked) == (2 if dropout else 0)  # at the beginning, and when it would stop


def test_without_dropout_no_other_loss_is_looked_at(table, monkeypatch):
    X, y, _ = table
    monkeypatch.setattr(cd.Network, "evaluate", lambda *arguments: pytest.fail("was called"))
    MLPClassifier(random_state=0, max_iter=30).fit(X, y)
    MLPClassifier(random_state=0, max_iter=30, dropout=0.2, early_stopping=True).fit(X, y)
    MLPClassifier(random_state=0, dropout=0.2).partial_fit(X, y, classes=[0, 1, 2])


def test_the_loss_without_dropout_is_scikit_learns_and_that_of_some_rows_will_do(table, monkeypatch):
    X, _, targets = table
    weight = np.arange(1.0, 241.0)
    monkeypatch.setattr("cydrop.sklearn._watch.WATCHED_ROWS", 100)
    seen = []
    evaluate = cd.Network.evaluate
    monkeypatch.setattr(cd.Network, "evaluate", lambda *arguments: seen.append(arguments[1:]) or evaluate(*arguments))
    model = MLPRegressor((8,), dropout=0.5, random_state=0, max_iter=1, shuffle=False).fit(X, targets, weight)
    rows, target, weights = seen[0]
    np.testing.assert_array_equal(rows, X[::3].astype(np.float32))
    loss = model.network_.evaluate(rows, target, weights)["loss"] / 2
    half = 0.5 * np.average((model.predict(X[::3]) - targets[::3]) ** 2, axis=0, weights=weight[::3]).mean()
    assert loss == pytest.approx(half, rel=1e-5)


@pytest.mark.parametrize("unit", [1.0, 1e-3])
@pytest.mark.parametrize("outputs", [1, 2])
def test_held_out_targets_that_are_all_equal_are_judged_by_their_error(outputs, unit, rng):
    X = rng.standard_normal((80, 4))
    y = np.zeros((80, outputs))
    y[:3, 0] = unit  # one of 2 outputs is constant in training as well
    found = []
    for seed in range(8):
        model = MLPRegressor((20,), early_stopping=True, learning_rate_init=0.01, random_state=seed)
        model.fit(X, y if outputs > 1 else y[:, 0])
        if set(model.validation_scores_) <= {0.0, 1.0}:
            found.append((model.n_iter_, np.abs(model.predict(X).reshape(80, -1)[3:, 0]).mean() / unit))
    assert len(found) > 3
    assert np.median([epochs for epochs, _ in found]) > 15
    if unit == 1.0:
        assert np.mean([error for _, error in found]) < 0.2  # of the first epoch's: 0.5 and more


def test_equal_held_out_targets_that_are_met_worse_and_worse_end_the_training(rng):
    X = rng.standard_normal((200, 4))
    y = 3 * np.sign(X[:, 0])
    model = MLPRegressor((20,), early_stopping=True, random_state=0, max_iter=300, learning_rate_init=0.01)
    model.fit(X, y, X_val=X[y > 0], y_val=-y[y > 0])
    assert model.n_iter_ < 30
    assert set(model.validation_scores_) == {0.0}
    last = 0.5 * np.mean((model.predict(X[y > 0]) + y[y > 0]) ** 2)
    assert last == pytest.approx(min(model.validation_loss_curve_), rel=1e-5)


def test_of_several_held_out_targets_a_constant_one_counts_too(rng):
    data = Data(np.zeros((4, 1)), np.array([[0.0, 5.0], [1, 5], [2, 5], [3, 5]]), np.ones(4))
    data.unit = np.array([1.0, 4.0])
    task = Regression(MLPRegressor())
    score, gain = task.judge(np.array([[0.0, 7.0], [1, 7], [2, 7], [3, 7]]), data)
    assert score == 0.5  # r2_score's
    assert gain == pytest.approx((1 + (1 - 4 / 4)) / 2)
    assert task.judge(np.array([[0.0, 6.0], [1, 6], [2, 6], [3, 6]]), data)[1] > gain


def test_training_that_did_not_converge_warns(digits):
    X, y, _, _ = digits
    with pytest.warns(ConvergenceWarning, match="max_iter=2 epochs") as seen:
        MLPClassifier(max_iter=2).fit(X, y)
    assert seen[0].filename == __file__


def test_an_interrupt_leaves_a_fitted_estimator(digits, monkeypatch):
    X, y, X_test, _ = digits
    calls = []

    def epoch(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments)

    original = Trainer.epoch
    monkeypatch.setattr(Trainer, "epoch", epoch)
    model = MLPClassifier(random_state=0)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, y)
    assert model.n_iter_ == 2
    assert model.predict(X_test).shape == (500,)


# Weights that are assigned ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("how", ["the list", "one by one", "slices"])
def test_assigned_weights_are_obeyed_as_in_scikit_learn(kind, how, table):
    X, y, _ = table
    options = {"hidden_layer_sizes": (9, 6), "max_iter": 2}
    theirs = getattr(neural_network, kind)(**options, random_state=1).fit(X, y)
    ours = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[kind](**options, random_state=2).fit(X, y)
    outputs = "predict_proba" if kind == "MLPClassifier" else "predict"
    assert np.abs(getattr(ours, outputs)(X) - getattr(theirs, outputs)(X)).max() > 0.01
    if how == "the list":
        ours.coefs_, ours.intercepts_ = theirs.coefs_, tuple(theirs.intercepts_)
    elif how == "one by one":
        for number in range(3):
            ours.coefs_[number] = theirs.coefs_[number].tolist()
            ours.intercepts_[number - 3] = theirs.intercepts_[number]
    else:
        ours.coefs_[:2], ours.coefs_[2:] = theirs.coefs_[:2], theirs.coefs_[2:]
        ours.intercepts_[::-1] = theirs.intercepts_[::-1]
    np.testing.assert_allclose(getattr(ours, outputs)(X), getattr(theirs, outputs)(X), atol=1e-5)
    np.testing.assert_array_equal(ours.coefs_[0], theirs.coefs_[0].astype(np.float32))
    assert np.shares_memory(ours.coefs_[0], ours.network_.parameters()["0.weight"])
    theirs.coefs_[0][...] = 0.0  # copied, not kept
    assert ours.coefs_[0].any()
    ours.coefs_[0] *= 2  # reads, changes the view, assigns it
    assert ours.coefs_[0].tobytes() == ours.network_.parameters()["0.weight"].tobytes()


def test_assigned_weights_are_trained_on(table):
    X, y, _ = table
    options = {"hidden_layer_sizes": (9,), "random_state": 0, "max_iter": 3, "warm_start": True}
    one, two = (MLPClassifier(**options).fit(X, y) for _ in range(2))
    one.coefs_ = [array + 1 for array in one.coefs_]
    for array in two.coefs_:
        array += 1
    for model in (one, two):
        model.fit(X, y)
    assert one.coefs_[0].tobytes() == two.coefs_[0].tobytes()


@pytest.mark.parametrize(
    ("assign", "error", "message"),
    [
        (lambda m: setattr(m, "coefs_", [m.coefs_[0]]), ValueError, "coefs_ has 2 arrays here, one per layer, got 1"),
        (lambda m: setattr(m, "coefs_", [m.coefs_[0] + 1, m.coefs_[0]]), ValueError, r"coefs_\[1\] must have shape"),
        (lambda m: setattr(m, "coefs_", 3), TypeError, "coefs_ must be a list of arrays, one per layer, got 3"),
        (lambda m: m.coefs_.__setitem__(0, m.coefs_[0].T), ValueError, r"must have shape \(5, 4\), got \(4, 5\)"),
        (lambda m: m.coefs_.__setitem__(0, np.full((5, 4), np.nan)), ValueError, r"coefs_\[0\] has 20 values that are"),
        (lambda m: m.coefs_.__setitem__(0, np.full((5, 4), 1e39)), ValueError, "too large for float32"),
        (lambda m: m.intercepts_.__setitem__(1, ["a"] * 3), TypeError, r"intercepts_\[1\] must be numeric"),
        (lambda m: m.intercepts_.__setitem__(1, 0.5), ValueError, r"intercepts_\[1\] must have shape \(3,\), got \(\)"),
        (lambda m: m.coefs_.__setitem__(2, m.coefs_[0]), IndexError, "out of range"),
        (lambda m: m.coefs_.append(m.coefs_[0]), TypeError, "keeps their number: assign coefs_"),
        (lambda m: m.coefs_.extend([]), TypeError, "keeps their number"),
        (lambda m: m.coefs_.insert(0, m.coefs_[0]), TypeError, "keeps their number"),
        (lambda m: m.intercepts_.pop(), TypeError, r"keeps their number: assign intercepts_\[number\]"),
        (lambda m: m.coefs_.remove(m.coefs_[0]), TypeError, "keeps their number"),
        (lambda m: m.coefs_.clear(), TypeError, "keeps their number"),
        (lambda m: m.coefs_.sort(key=len), TypeError, "keeps their number"),
        (lambda m: m.coefs_.reverse(), TypeError, "keeps their number"),
        (lambda m: m.coefs_.__delitem__(0), TypeError, "keeps their number"),
        (lambda m: m.coefs_.__iadd__([1]), TypeError, "keeps their number"),
        (lambda m: m.coefs_.__imul__(2), TypeError, "keeps their number"),
    ],
)
def test_weights_that_do_not_fit_are_refused(assign, error, message, table):
    X, y, _ = table
    model = MLPClassifier((4,), random_state=0, max_iter=2).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(error, match=message):
        assign(model)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert len(model.coefs_) == len(model.intercepts_) == 2


def test_the_weights_of_a_network_that_is_not_there_cannot_be_assigned(table):
    with pytest.raises(AttributeError, match="this MLPClassifier is not fitted yet"):
        MLPClassifier().coefs_ = []
    with pytest.raises(AttributeError, match="this MLPRegressor is not fitted yet"):
        MLPRegressor().intercepts_ = [[1.0]]


def test_copies_of_the_list_of_weights_are_plain_lists(table):
    X, y, _ = table
    model = MLPClassifier((4,), random_state=0, max_iter=2).fit(X, y)
    for twin in (deepcopy(model.coefs_), pickle.loads(pickle.dumps(model.coefs_)), model.coefs_.copy()):
        assert type(twin) is list
        twin.append(0)
    assert isinstance(model.coefs_, list)
    assert len(model.coefs_ + model.intercepts_) == 4
    assert not np.shares_memory(deepcopy(model.coefs_)[0], model.coefs_[0])


# Rows to validate on, and callbacks -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_given_validation_rows_do_what_those_held_out_do(kind, table, monkeypatch):
    X, y, _ = table
    y = np.array(["a", "b", "c"])[y] if kind is MLPClassifier else y
    options = {"early_stopping": True, "max_iter": 40, "random_state": 0, "dropout": 0.2, "batch_size": 30}
    original, split = _training.split, []
    with monkeypatch.context() as patch:
        patch.setattr(_training, "split", lambda *arguments: split.append(original(*arguments)) or split[0])
        model = kind(**options).fit(X, y)
    train, held = split[0]
    places = [int(np.flatnonzero((X.astype(np.float32) == row).all(axis=1))[0]) for row in np.r_[train.X, held.X]]
    train, held = places[: len(train.X)], places[len(train.X) :]
    given = kind(**options).fit(X[train], y[train], X_val=X[held], y_val=y[held])
    assert given.coefs_[0].tobytes() == model.coefs_[0].tobytes()
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_", "best_validation_score_", "n_iter_"):
        assert getattr(given, name) == getattr(model, name)
    assert given.best_loss_ is None
    assert len(given.validation_loss_curve_) == given.n_iter_
    assert given.best_validation_score_ == pytest.approx(given.score(X[held], y[held]))


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("columns", [1, 2])
def test_without_early_stopping_they_are_recorded_and_decide_nothing(kind, columns, table):
    X, y, targets = table
    y = targets if columns == 2 else y
    y = (y > 0).astype(int) if columns == 2 and kind is MLPClassifier else y
    plain = kind(random_state=0, max_iter=30, n_iter_no_change=3).fit(X[:150], y[:150])
    model = clone(plain).fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    assert model.coefs_[0].tobytes() == plain.coefs_[0].tobytes()
    assert (model.loss_curve_, model.best_loss_) == (plain.loss_curve_, plain.best_loss_)
    assert plain.validation_loss_curve_ is plain.validation_scores_ is plain.best_validation_score_ is None
    assert len(model.validation_loss_curve_) == len(model.validation_scores_) == model.n_iter_
    assert model.validation_scores_[-1] == pytest.approx(model.score(X[150:], y[150:]))
    if kind is MLPRegressor:
        last = 0.5 * np.mean((model.predict(X[150:]) - y[150:]) ** 2)
    elif columns == 1:
        last = log_loss(y[150:], model.predict_proba(X[150:]))
    else:
        p = model.predict_proba(X[150:])
        last = -np.log(np.where(y[150:] == 1, p, 1 - p)).sum(axis=1).mean()
    assert model.validation_loss_curve_[-1] == pytest.approx(last, rel=1e-5)
    model.set_params(warm_start=True).fit(X, y)
    assert len(model.validation_loss_curve_) < len(model.loss_curve_)


def test_validation_rows_of_a_classifier_have_its_class_weights(table):
    X, y, _ = table
    model = MLPClassifier(random_state=0, max_iter=3, class_weight={0: 3.0, 2: 0.0})
    model.fit(X, y, X_val=X, y_val=y)
    weight = np.array([3.0, 1.0, 0.0])[y]
    assert model.validation_scores_[-1] == pytest.approx(model.score(X, y, sample_weight=weight))
    last = log_loss(y, model.predict_proba(X), sample_weight=weight)
    assert model.validation_loss_curve_[-1] == pytest.approx(last, rel=1e-5)
    with pytest.raises(ValueError, match="class_weight leaves no row of X_val"):
        model.fit(X, y, X_val=X[y == 2], y_val=y[y == 2])


def test_validation_rows_may_be_sparse_frames_and_of_some_classes_only(table):
    X, y, _ = table
    found = []
    for form in (np.asarray, sparse.csr_array, lambda rows: pd.DataFrame(rows, columns=list("abcde"))):
        model = MLPClassifier(random_state=0, max_iter=3)
        found.append(model.fit(form(X), y, X_val=form(X[y > 0]), y_val=y[y > 0]).validation_loss_curve_)
    assert found[0] == found[1] == found[2]
    with pytest.raises(ValueError, match="X_val and y_val: The feature names should match"):
        model.fit(form(X), y, X_val=form(X).rename(columns={"a": "z"}), y_val=y)


@pytest.mark.parametrize(
    ("kind", "options", "given", "message"),
    [
        (MLPClassifier, {}, lambda X, y: {"X_val": X}, "X_val and y_val belong together, y_val is missing"),
        (MLPClassifier, {}, lambda X, y: {"y_val": y}, "X_val and y_val belong together, X_val is missing"),
        (MLPClassifier, {}, lambda X, y: {"X_val": X, "y_val": y + 1}, r"y_val has classes \[3\] that are not among"),
        (MLPClassifier, {}, lambda X, y: {"X_val": X[:, 1:], "y_val": y}, "X_val and y_val: X has 4 features"),
        (MLPClassifier, {}, lambda X, y: {"X_val": X, "y_val": y[1:]}, "X_val and y_val: Found input variables with"),
        (MLPClassifier, {}, lambda X, y: {"X_val": X * np.nan, "y_val": y}, "X_val and y_val: Input X contains NaN"),
        (MLPRegressor, {}, lambda X, y: {"X_val": X, "y_val": np.stack([y, y], 1)}, r"y_val has shape \(240, 2\)"),
        (MLPClassifier, {"solver": "lbfgs"}, lambda X, y: {"X_val": X, "y_val": y}, "'lbfgs' has no epochs"),
        (MLPClassifier, {"solver": "lbfgs"}, lambda X, y: {"callbacks": [LambdaCallback()]}, "'lbfgs' has no epochs"),
        (MLPRegressor, {}, lambda X, y: {"callbacks": [print]}, "callbacks must be cydrop.callbacks.Callback"),
    ],
)
def test_wrong_validation_rows_and_callbacks_are_refused(kind, options, given, message, table):
    X, y, _ = table
    model = kind((5,), random_state=0, max_iter=2).fit(X, y)
    before = model.predict(X)
    with pytest.raises((ValueError, TypeError), match=message):
        model.set_params(**options).fit(X + 1, y, **given(X, y))
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_callbacks_are_told_of_the_epochs(early_stopping, table, tmp_path):
    X, y, _ = table
    model = MLPClassifier((20,), random_state=0, max_iter=50, early_stopping=early_stopping, learning_rate_init=0.05)
    records = []
    watch = LambdaCallback(lambda net, epoch, metrics: records.append((model.n_iter_, metrics["val_loss"])))
    stop = EarlyStopping("val_loss", patience=4)
    log = CSVLogger(tmp_path / "log.csv")
    model.fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:], callbacks=[watch, stop, log])
    assert [number for number, _ in records] == list(range(1, model.n_iter_ + 1))
    assert [loss for _, loss in records] == model.validation_loss_curve_
    assert model.n_iter_ == stop.best_epoch + 4 < 50
    assert log_loss(y[150:], model.predict_proba(X[150:])) == pytest.approx(min(model.validation_loss_curve_), rel=1e-5)
    assert len(pd.read_csv(tmp_path / "log.csv")["val_accuracy"]) == model.n_iter_
    alone = MLPRegressor(random_state=0, max_iter=3).fit(X, y, callbacks=LambdaCallback(lambda *a: records.clear()))
    assert (len(records), alone.n_iter_) == (0, 3)
    MLPRegressor(random_state=0, max_iter=3).fit(X, y, callbacks=None)


def test_early_stopping_of_partial_fit_plays_no_part(table):
    X, y, _ = table
    model = MLPClassifier(early_stopping=True, random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    assert model.validation_loss_curve_ is model.validation_scores_ is None
    assert model.best_loss_ == model.loss_


def test_metadata_routing_brings_validation_rows_through_pipelines_and_searches(table):
    X, y, _ = table
    X, y, X_val, y_val = X[:150], y[:150], X[150:], y[150:]
    scaler = StandardScaler().fit(X)
    options = {"random_state": 0, "max_iter": 15, "early_stopping": True}
    alone = MLPClassifier((8,), **options)
    alone.fit(scaler.transform(X), y, X_val=scaler.transform(X_val), y_val=y_val)
    calls = []
    count = LambdaCallback(on_epoch_end=lambda *arguments: calls.append(1))
    with config_context(enable_metadata_routing=True):
        network = MLPClassifier((8,), **options).set_fit_request(X_val=True, y_val=True, callbacks=True)
        model = Pipeline([("scale", StandardScaler()), ("mlp", network)], transform_input=["X_val"])
        model.fit(X, y, X_val=X_val, y_val=y_val, callbacks=[count])
        assert model["mlp"].validation_loss_curve_ == alone.validation_loss_curve_
        assert len(calls) == alone.n_iter_
        search = GridSearchCV(model, {"mlp__hidden_layer_sizes": [(2,), (8,)]}, cv=2)
        search.fit(X, y, X_val=X_val, y_val=y_val, callbacks=[count])
        found = search.best_estimator_["mlp"]
        assert len(found.validation_loss_curve_) == found.n_iter_
        assert found.best_validation_score_ == pytest.approx(search.best_estimator_.score(X_val, y_val))
        with pytest.raises(UnsetMetadataPassedError):
            GridSearchCV(MLPClassifier(), {"alpha": [0.0]}).fit(X, y, X_val=X_val, y_val=y_val)


# Inside other tools ----------------------------------------------------------------------------------------


def test_a_pipeline_of_numbers_and_categories(rng):
    frame = pd.DataFrame({"size": rng.normal(50, 10, 300), "town": rng.choice(["A", "B", "C"], 300)})
    price = frame["size"] * 100 + frame["town"].map({"A": 0, "B": 1000, "C": 2500}).astype(float)
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["size"]), ("categories", OneHotEncoder(sparse_output=True), ["town"])],
        sparse_threshold=1.0,
    )
    network = MLPRegressor(random_state=0, max_iter=300, learning_rate_init=0.01)
    model = make_pipeline(columns, TransformedTargetRegressor(network, transformer=StandardScaler()))
    assert model.fit(frame, price).score(frame, price) > 0.98


def test_grid_search_in_two_processes_and_cross_validation(digits):
    X, y, _, _ = digits
    model = make_pipeline(StandardScaler(), MLPClassifier((30,), batch_size=32, random_state=0, max_iter=15))
    grid = {"mlpclassifier__dropout": [0.0, 0.5], "mlpclassifier__dropout_schedule": [None, cd.schedules.Linear(1, 0)]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.85
    alone = GridSearchCV(model, grid, cv=2).fit(X, y)
    np.testing.assert_array_equal(alone.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"])
    assert cross_val_score(model, X, y, cv=2, scoring="neg_log_loss").shape == (2,)


def test_calibration(digits):
    X, y, X_test, y_test = digits
    model = CalibratedClassifierCV(MLPClassifier((30,), random_state=0, batch_size=32, max_iter=30, dropout=0.2), cv=2)
    model.fit(X, y)
    assert model.score(X_test, y_test) > 0.85
    np.testing.assert_allclose(model.predict_proba(X_test).sum(axis=1), 1.0)


def test_copies_and_files_predict_the_same_bits(digits, tmp_path):
    X, y, X_test, _ = digits
    model = MLPClassifier((30,), random_state=0, max_iter=5, dropout=0.2).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    for copy in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copy.predict_proba(X_test), model.predict_proba(X_test))
        np.testing.assert_array_equal(copy.set_params(warm_start=True).fit(X, y).coefs_[0], _continued(model, X, y))
    model.network_.save(tmp_path / "net.safetensors")
    proba = cd.load(tmp_path / "net.safetensors").predict(X_test)
    np.testing.assert_allclose(proba, model.predict_proba(X_test), atol=1e-6)
    with pytest.raises(NotFittedError):
        clone(model).predict(X_test)
    assert not hasattr(clone(model), "coefs_")
    json.dumps(model.predict_proba(X_test)[0, 0])  # float64 is a float


def _continued(model, X, y):
    copy = pickle.loads(pickle.dumps(model)).set_params(warm_start=True)
    return copy.fit(X, y).coefs_[0]


def test_monte_carlo_of_a_classifier(digits):
    X, y, X_test, _ = digits
    model = MLPClassifier((60,), random_state=0, max_iter=20, dropout=0.5).fit(X, y)
    mc = model.predict_mc(X_test, 50, return_samples=True, quantiles=[0.5])
    assert mc.mean.shape == mc.std.shape == (500, 10)
    assert mc.samples.shape == (50, 500, 10)
    np.testing.assert_allclose(mc.mean, mc.samples.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(mc.mean, model.predict_mc(X_test, 50).mean)
    assert (model.predict_mc(X_test, 50, seed=1).mean != mc.mean).any()
    two = MLPClassifier((60,), random_state=0, max_iter=20, dropout=0.5).fit(X, y == 3)
    mc = two.predict_mc(X_test, 50, return_samples=True, quantiles=[0.05, 0.95])
    assert mc.mean.shape == mc.std.shape == (500, 2)
    assert mc.entropy.shape == mc.mutual_information.shape == (500,)
    np.testing.assert_allclose(mc.total, mc.aleatoric + mc.epistemic, atol=1e-5)
    np.testing.assert_allclose(mc.mean.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(mc.std, mc.samples.std(axis=0), atol=1e-5)
    np.testing.assert_allclose(mc.quantiles, np.quantile(mc.samples, [0.05, 0.95], axis=0), atol=1e-6)


def test_the_score_of_early_stopping_is_scikit_learns(table, monkeypatch):
    X, _, targets = table
    model = MLPRegressor(random_state=0, max_iter=3, early_stopping=True, learning_rate_init=0.01)
    split = []
    original = _training.split
    monkeypatch.setattr(_training, "split", lambda *arguments: split.append(original(*arguments)) or split[0])
    model.fit(X, targets)
    best = split[0][1]
    weights = np.arange(1.0, len(best.X) + 1)
    output = model.network_.predict(best.X)
    best.weight = weights
    score, _ = Regression(model).judge(output, best)
    assert score == pytest.approx(r2_score(best.target, output, sample_weight=weights))


# What goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\], got 1.5"),
        ({"dropout": [0.1]}, "dropout must be a number or a list of 2 rates"),
        ({"dropout": "half"}, "dropout must be a number"),
        ({"dropout_mode": "upside down"}, "dropout_mode='upside down' is not known"),
        ({"dropout_schedule": 0.5}, "dropout_schedule must be None or a function"),
        ({"solver": "lbfgs", "dropout": 0.5}, "solver='lbfgs' needs a loss that is the same in every call"),
        ({"solver": "lbgfs"}, "solver='lbgfs' is not known; known are 'adam', 'sgd', 'lbfgs'"),
        ({"activation": "reLU"}, "activation='reLU' is not known"),
        ({"hidden_layer_sizes": 10.0}, "hidden_layer_sizes must be an integer, got 10.0"),
        ({"hidden_layer_sizes": (10, 0)}, "hidden_layer_sizes must be at least 1, got 0"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"batch_size": "all"}, "batch_size='all' is not known; known are 'auto', an integer"),
        ({"batch_size": 2.5}, "batch_size must be an integer, got 2.5"),
        ({"alpha": -1}, "alpha must be a finite number of at least 0"),
        ({"learning_rate_init": 0}, "learning_rate_init must be a finite number above 0"),
        ({"beta_1": 1.0}, r"beta_1 must be in \[0, 1\)"),
        ({"max_norm": 0}, "max_norm must be"),
        ({"n_threads": 0}, "n_threads must be at least 1"),
        ({"early_stopping": "yes"}, "early_stopping must be True or False"),
        ({"random_state": "seed"}, "seed"),
    ],
    ids=str,
)
def test_wrong_parameters_are_named(options, message, table):
    X, y, _ = table
    with pytest.raises((ValueError, TypeError), match=message):
        MLPClassifier(**options).fit(X, y)


def test_wrong_data_is_named(table):
    X, y, _ = table
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        MLPClassifier().fit(X, y, sample_weight=np.where(y == 0, -1, 1))
    with pytest.raises(ValueError, match=r"partial_fit does not support dropout_schedule"):
        MLPClassifier(dropout=0.5, dropout_schedule=cd.schedules.Linear(1, 0)).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="class_weight='balanced' needs all rows at once"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="NaN"):
        MLPClassifier().fit(np.where(X > 2, np.nan, X), y)
    with pytest.raises(ValueError, match=r"early_stopping=True .* needs 2 different rows for validation"):
        MLPClassifier(early_stopping=True).fit(X[:2], y[:2])


@pytest.mark.parametrize(
    ("options", "rows", "weight"),
    [
        ({}, slice(None), -1.0),
        ({"n_threads": 0}, slice(None), 1.0),
        ({"batch_size": 0}, slice(None), 1.0),
        ({"early_stopping": True}, slice(2), 1.0),
        ({"dropout": 0.5, "dropout_schedule": cd.schedules.Linear(1, 3)}, slice(None), 1.0),
        ({"class_weight": {"unknown": 1}}, slice(None), 1.0),
    ],
    ids=str,
)
def test_a_fit_that_is_refused_leaves_the_estimator_as_it_was(options, rows, weight, table):
    X, y, _ = table
    model = MLPClassifier(random_state=0, max_iter=3).fit(X, y)
    proba, records = model.predict_proba(X), (model.t_, model.loss_, list(model.loss_curve_), model.classes_)
    other = X[rows, :3]
    with pytest.raises((ValueError, TypeError)):
        model.set_params(**options).fit(other, y[rows] == 1, sample_weight=np.full(len(other), weight))
    np.testing.assert_array_equal(model.predict_proba(X), proba)
    assert (model.t_, model.loss_, model.loss_curve_) == records[:3]
    assert model.classes_ is records[3]
    fresh = MLPClassifier(random_state=0, max_iter=3, **options)
    with pytest.raises((ValueError, TypeError)):
        fresh.fit(other, y[rows] == 1, sample_weight=np.full(len(other), weight))
    assert set(vars(fresh)) == set(fresh.get_params())


def test_a_schedule_that_leaves_the_range_of_rates_is_named(table):
    X, y, _ = table
    model = MLPClassifier(dropout=0.5, dropout_schedule=lambda progress: 1 + 2 * progress)
    with pytest.raises(ValueError, match=r"dropout times dropout_schedule at progress 0.51 must be in \[0, 1\]"):
        model.fit(X, y)


def test_lbfgs_says_when_the_data_are_too_large_for_it(table):
    X, y, targets = table
    with pytest.raises(cd.DivergedError):
        MLPClassifier(solver="lbfgs", random_state=0).fit(np.abs(np.tile(X, 40)) * 5e37, y)
    with pytest.warns(ConvergenceWarning, match="found no step that makes the loss smaller; standardise X"):
        MLPRegressor(solver="lbfgs", random_state=0).fit(X, targets * 1e20)


def test_subclasses_may_have_parameters_of_their_own(table):
    X, y, _ = table

    class Deep(MLPClassifier):
        def __init__(self, depth=2):
            super().__init__((10,) * depth, dropout=0.1, max_iter=2)
            self.depth = depth

    assert clone(Deep(3)).fit(X, y).n_layers_ == 5


def test_the_core_never_imports_scikit_learn(tmp_path):
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("sklearn", "scipy", "joblib", "pandas"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import numpy as np, cydrop as cd
from cydrop import callbacks, datasets, functional, losses, optimizers, reference, schedules
net = cd.Network([cd.Dense(4, activation="relu"), cd.Dropout(0.5), cd.Dense(2)], seed=0)
X = np.eye(4); y = [0, 1, 0, 1]
net.fit(X, y, epochs=2, validation_data=(X, y), callbacks=[callbacks.EarlyStopping()], verbose=0)
net.predict_mc(X, 5); net.evaluate_mc(X, y, 5); net.save("net"); cd.load("net").summary(); cd.show_config()
try:
    import cydrop.sklearn
except ImportError as error:
    assert 'pip install "cydrop[sklearn]"' in str(error), error
else:
    raise AssertionError("cydrop.sklearn was imported without scikit-learn")
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_coefs_may_be_taken_from_other_places_of_the_same_network(table):
    X, y, _ = table
    model = MLPClassifier((4, 4, 4), max_iter=3, random_state=0).fit(X, y)
    before = [array.copy() for array in model.coefs_]
    model.coefs_ = [model.coefs_[0], model.coefs_[2], model.coefs_[1], model.coefs_[3]]
    for found, wanted in zip(model.coefs_, (before[0], before[2], before[1], before[3]), strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(IndexError, match=r"coefs_\[5\] is out of range: there are 4"):
        model.coefs_[5] = before[0]
    with pytest.raises(TypeError, match="coefs_ must be a list of arrays"):
        model.coefs_ = None


def test_one_batch_an_epoch_that_diverges_leaves_the_last_good_weights(rng):
    X, y = rng.standard_normal((50, 3)), 1e3 * rng.standard_normal(50)
    model = MLPRegressor(solver="sgd", learning_rate_init=1e30, random_state=0)
    with pytest.raises(cd.DivergedError):
        model.fit(X, y)
    assert all(np.isfinite(array).all() for array in model.network_.parameters().values())


def test_the_loss_of_one_hot_rows_is_scikit_learns(rng):
    z, y = rng.standard_normal((40, 6)).astype(np.float32), np.arange(40) % 6
    expected = log_loss(y, cd.reference.softmax(z.astype(float)), labels=range(6))
    assert cd.functional.cross_entropy(z, np.eye(6)[y]) == pytest.approx(expected, rel=1e-6)

"""Conformal prediction by other packages: MAPIE's and crepes' classes take cydrop's estimators, and their intervals and
sets are what the definition says."""

import crepes
import numpy as np
import pandas as pd
import pytest
from mapie.classification import CrossConformalClassifier, SplitConformalClassifier
from mapie.regression import CrossConformalRegressor, SplitConformalRegressor
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

import cydrop as cd
from cydrop.sklearn import MLPClassifier, MLPRegressor
from cydrop.tabular import RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

COVERAGE = 0.9
SLACK = 0.06  # three standard errors of the coverage, of 400 calibration rows and 600 test rows
TRAIN, CALIBRATION, TEST = slice(0, 400), slice(400, 800), slice(800, 1400)
SMALL = {"hidden_layer_sizes": (32,), "random_state": 0, "n_threads": 1}
REGRESSORS = {
    "mlp": MLPRegressor(max_iter=40, **SMALL),
    "tabm": TabMRegressor(n_members=4, max_iter=10, **SMALL),
    "realmlp": RealMLPRegressor(max_iter=24, **SMALL),
}
CLASSIFIERS = {
    "mlp": MLPClassifier(max_iter=40, **SMALL),
    "tabm": TabMClassifier(n_members=4, max_iter=10, **SMALL),
    "realmlp": RealMLPClassifier(max_iter=24, **SMALL),
}


@pytest.fixture(params=REGRESSORS)
def regressor(request):
    return clone(REGRESSORS[request.param])


@pytest.fixture(params=["tabm", "realmlp"])
def of_tables(request):
    """A regressor that takes text as it is."""
    return clone(REGRESSORS[request.param])


@pytest.fixture(params=CLASSIFIERS)
def classifier(request):
    return clone(CLASSIFIERS[request.param])


@pytest.fixture
def X(rng):
    return rng.uniform(-1, 1, (1400, 3))


@pytest.fixture
def y(X, rng):
    """Numbers that scatter more where the first column is large."""
    return np.sin(3 * X[:, 0]) + X[:, 1] + (0.1 + 0.2 * (X[:, 0] + 1)) * rng.standard_normal(len(X))


@pytest.fixture
def labels(y):
    return np.array(["low", "middle", "high"])[np.digitize(y, [-0.5, 0.5])]


@pytest.fixture
def frame(X):
    """The same rows, and a column of text."""
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(side=np.where(X[:, 2] > 0, "right", "left"))


def quantile(scores):
    """Of n scores the k-th smallest, k = ceil((n + 1) coverage)."""
    return np.sort(scores)[int(np.ceil((len(scores) + 1) * COVERAGE)) - 1]


def places(labels, of):
    return np.searchsorted(np.unique(of), labels)


def assert_covers(y, predicted):
    assert abs(cd.metrics.coverage(y, predicted) - COVERAGE) < SLACK


# MAPIE ----------------------------------------------------------------------------------------------------------


def test_mapie_makes_intervals_of_residuals(regressor, X, y):
    conformal = SplitConformalRegressor(regressor, COVERAGE, prefit=False).fit(X[TRAIN], y[TRAIN])
    conformal.conformalize(X[CALIBRATION], y[CALIBRATION])
    point, intervals = conformal.predict_interval(X[TEST])
    fitted = regressor.fit(X[TRAIN], y[TRAIN])
    margin = quantile(np.abs(y[CALIBRATION] - fitted.predict(X[CALIBRATION])))
    np.testing.assert_array_equal(point, fitted.predict(X[TEST]))
    np.testing.assert_allclose(intervals[:, 0, 0], point - margin)
    np.testing.assert_allclose(intervals[:, 1, 0], point + margin)
    assert_covers(y[TEST], intervals[:, :, 0])


def test_mapie_trains_a_copy_for_each_fold(regressor, X, y):
    conformal = CrossConformalRegressor(regressor, COVERAGE, cv=4, random_state=0)
    conformal.fit_conformalize(X[: CALIBRATION.stop], y[: CALIBRATION.stop])
    _, intervals = conformal.predict_interval(X[TEST])
    coverage = cd.metrics.coverage(y[TEST], intervals[:, :, 0])
    assert coverage > COVERAGE - SLACK  # networks of fewer rows may need wider intervals than their mean does
    assert cd.metrics.width(intervals[:, :, 0]) < 2 * np.ptp(y)
    with pytest.raises(NotFittedError):
        regressor.predict(X[TEST])


def test_mapie_makes_sets_of_probabilities(classifier, X, labels):
    fitted = classifier.fit(X[TRAIN], labels[TRAIN])
    conformal = SplitConformalClassifier(fitted, COVERAGE, conformity_score="lac", prefit=True)
    point, sets = conformal.conformalize(X[CALIBRATION], labels[CALIBRATION]).predict_set(X[TEST])
    own = fitted.predict_proba(X[CALIBRATION])[np.arange(400), places(labels[CALIBRATION], labels)]
    np.testing.assert_array_equal(point, fitted.predict(X[TEST]))
    np.testing.assert_array_equal(sets[:, :, 0], fitted.predict_proba(X[TEST]) >= 1 - quantile(1 - own))
    assert_covers(places(labels[TEST], labels), sets[:, :, 0])


@pytest.mark.parametrize("score", ["aps", "raps"])
def test_mapies_other_scores_give_sets_that_are_never_empty(classifier, score, X, labels):
    conformal = SplitConformalClassifier(classifier, COVERAGE, score, prefit=False, random_state=0)
    conformal.fit(X[TRAIN], labels[TRAIN]).conformalize(X[CALIBRATION], labels[CALIBRATION])
    sets = conformal.predict_set(X[TEST])[1][:, :, 0]
    assert sets.any(axis=1).all()
    assert cd.metrics.coverage(places(labels[TEST], labels), sets) > COVERAGE - SLACK


def test_mapie_trains_a_classifier_for_each_fold(classifier, X, labels):
    conformal = CrossConformalClassifier(classifier, COVERAGE, cv=4, random_state=0)
    conformal.fit_conformalize(X[: CALIBRATION.stop], labels[: CALIBRATION.stop])
    sets = conformal.predict_set(X[TEST])[1][:, :, 0]
    assert cd.metrics.coverage(places(labels[TEST], labels), sets) > COVERAGE - SLACK


def test_folds_of_a_frame_with_text(of_tables, frame, y):
    conformal = CrossConformalRegressor(of_tables, COVERAGE, cv=4, random_state=0)
    conformal.fit_conformalize(frame[: CALIBRATION.stop], y[: CALIBRATION.stop])
    _, intervals = conformal.predict_interval(frame[TEST])
    assert cd.metrics.coverage(y[TEST], intervals[:, :, 0]) > COVERAGE - SLACK


def test_text_as_codes_lets_mapie_try_a_row_of_zeros(of_tables, frame, y):
    """Its classes that do not train by folds predict one: of text that is refused."""
    coded = frame.assign(side=OrdinalEncoder().fit_transform(frame[["side"]])).to_numpy()
    model = of_tables.set_params(categorical_features=[3])
    conformal = SplitConformalRegressor(model, COVERAGE, prefit=False).fit(coded[TRAIN], y[TRAIN])
    conformal.conformalize(coded[CALIBRATION], y[CALIBRATION])
    assert_covers(y[TEST], conformal.predict_interval(coded[TEST])[1][:, :, 0])


# crepes ---------------------------------------------------------------------------------------------------------


def test_crepes_makes_intervals_of_residuals(regressor, X, y):
    wrapped = crepes.WrapRegressor(regressor)
    wrapped.fit(X[TRAIN], y[TRAIN])
    wrapped.calibrate(X[CALIBRATION], y[CALIBRATION], seed=0)
    intervals = wrapped.predict_int(X[TEST], confidence=COVERAGE)
    margin = quantile(np.abs(y[CALIBRATION] - regressor.predict(X[CALIBRATION])))
    point = regressor.predict(X[TEST])
    np.testing.assert_allclose(intervals, np.column_stack([point - margin, point + margin]))


def test_crepes_takes_a_frame_with_text(of_tables, frame, y):
    wrapped = crepes.WrapRegressor(of_tables)
    wrapped.fit(frame[TRAIN], y[TRAIN])
    wrapped.calibrate(frame[CALIBRATION], y[CALIBRATION], seed=0)
    assert_covers(y[TEST], wrapped.predict_int(frame[TEST], confidence=COVERAGE))


def test_crepes_makes_sets(classifier, X, labels):
    wrapped = crepes.WrapClassifier(make_pipeline(StandardScaler(), classifier))
    wrapped.fit(X[TRAIN], labels[TRAIN])
    wrapped.calibrate(X[CALIBRATION], labels[CALIBRATION], seed=0)
    sets = wrapped.predict_set(X[TEST], labels=False, confidence=COVERAGE, seed=0)
    assert_covers(places(labels[TEST], labels), np.asarray(sets, dtype=bool))


def test_the_spread_of_samples_says_where_intervals_are_wide(regressor, X, y):
    """Residuals in units of Monte Carlo dropout's standard deviation, which crepes calls the difficulty."""
    regressor.set_params(dropout=0.1).fit(X[TRAIN], y[TRAIN])
    calibration, test = (regressor.predict_mc(X[rows], 200, seed=0) for rows in (CALIBRATION, TEST))
    conformal = crepes.ConformalRegressor()
    conformal.fit(y[CALIBRATION] - calibration.mean, sigmas=calibration.std)
    intervals = conformal.predict_int(test.mean, sigmas=test.std, confidence=COVERAGE)
    margin = quantile(np.abs(y[CALIBRATION] - calibration.mean) / calibration.std)
    np.testing.assert_allclose(intervals[:, 1] - intervals[:, 0], 2 * margin * test.std)
    assert_covers(y[TEST], intervals)


def test_crepes_predicts_distributions(regressor, X, y):
    wrapped = crepes.WrapRegressor(regressor)
    wrapped.fit(X[TRAIN], y[TRAIN])
    wrapped.calibrate(X[CALIBRATION], y[CALIBRATION], cps=True, seed=0)
    samples = np.asarray(wrapped.predict_cpds(X[TEST], seed=0), dtype=float).T
    assert samples.shape == (CALIBRATION.stop - CALIBRATION.start, TEST.stop - TEST.start)
    assert cd.metrics.crps(y[TEST], samples) < np.mean(np.abs(y[TEST] - regressor.predict(X[TEST])))

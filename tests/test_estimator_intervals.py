"""Intervals and sets of the estimators: that they hold, by whichever rows were kept aside."""

import json
import pickle
import warnings
import zipfile

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import cydrop as cd
from cydrop import metrics, tabular
from cydrop.losses import Pinball
from cydrop.sklearn import MLPClassifier, MLPRegressor
from cydrop.tabular import RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FAST = {
    "mlp": {"max_iter": 60, "dropout": 0.1, "random_state": 0, "hidden_layer_sizes": 32, "learning_rate_init": 0.01},
    "realmlp": {"max_iter": 20, "hidden_layer_sizes": 32, "random_state": 0},
    "tabm": {"max_iter": 20, "hidden_layer_sizes": 16, "n_members": 4, "random_state": 0},
}
REGRESSORS = {"mlp": MLPRegressor, "realmlp": RealMLPRegressor, "tabm": TabMRegressor}
CLASSIFIERS = {"mlp": MLPClassifier, "realmlp": RealMLPClassifier, "tabm": TabMClassifier}
TABLES = [name for name in REGRESSORS if name != "mlp"]
LOSSES = ["squared_error", "absolute_error", "huber", "gaussian_nll", "pinball", Pinball((0.1, 0.4, 0.9))]


def rows(n, seed=0):
    """y scatters by the second column."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 3))
    return X, (np.sin(3 * X[:, 0]) + (0.05 + np.abs(X[:, 1])) * rng.standard_normal(n))


X, Y = rows(600)
X_TEST, Y_TEST = rows(3000, seed=1)
CODES, CODES_TEST = (np.digitize(y, [-0.5, 0.5]) for y in (Y, Y_TEST))
LABELS = np.array(["low", "middle", "high"], dtype=object)


def regressor(kind, **options):
    return REGRESSORS[kind](**FAST[kind] | options)


def classifier(kind, **options):
    return CLASSIFIERS[kind](**FAST[kind] | options)


def assert_holds(y, found, n, coverage=0.9, more=0.0):
    """Within four standard errors, of the test and of n rows of calibration."""
    error = 4 * np.sqrt(coverage * (1 - coverage) * (1 / len(y) + 1 / n))
    assert -error < metrics.coverage(y, found) - coverage < error + more


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("kind", REGRESSORS)
def test_intervals_hold_whatever_the_loss(kind, loss):
    model = regressor(kind, loss=loss, calibration_fraction=0.25).fit(X, Y)
    assert len(model.calibration_.y) == 150
    intervals = model.predict_interval(X_TEST)
    assert intervals.dtype == np.float64
    assert_holds(Y_TEST, intervals, 150)
    assert_holds(Y_TEST, model.predict_interval(X_TEST, 0.6), 150, 0.6)
    assert model.score(X_TEST, Y_TEST) > 0.1


@pytest.mark.parametrize(
    ("kind", "options", "kept"),
    [
        ("mlp", {"early_stopping": True, "validation_fraction": 0.3}, 180),
        ("realmlp", {}, 120),
        ("tabm", {"validation_fraction": 0.3, "n_ensemble": 2}, 180),
        ("realmlp", {"n_folds": 3, "n_ensemble": 2}, 600),
        ("tabm", {"n_folds": 3}, 600),
    ],
)
@pytest.mark.parametrize("loss", ["squared_error", "pinball"])
def test_without_a_fraction_the_held_out_rows_will_do(kind, options, kept, loss):
    model = regressor(kind, loss=loss, **options).fit(X, Y)
    assert len(model.calibration_.y) == kept
    assert model.calibration_.folds == options.get("n_folds", 1)
    assert_holds(Y_TEST, model.predict_interval(X_TEST), kept, more=0.03)


def test_rows_to_validate_on_will_do_too():
    for kind in REGRESSORS:
        model = regressor(kind).fit(X[:400], Y[:400], X_val=X[400:], y_val=Y[400:])
        assert_holds(Y_TEST, model.predict_interval(X_TEST), 200)
        np.testing.assert_allclose(model.calibration_.y[:, 0], Y[400:], rtol=1e-6)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_rows_of_ones_own(kind):
    model = regressor(kind, loss="gaussian_nll").fit(X, Y)
    before = model.predict(X_TEST)
    assert model.calibrate(*rows(300, seed=2)) is model
    assert len(model.calibration_.y) == 300
    assert_holds(Y_TEST, model.predict_interval(X_TEST), 300)
    np.testing.assert_array_equal(model.predict(X_TEST), before)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_what_knows_where_y_scatters_is_narrower_there(kind):
    X, y = rows(1500)
    longer = {"max_iter": 60, "calibration_fraction": 0.2}
    intervals = {
        loss: regressor(kind, loss=loss, **longer).fit(X, y).predict_interval(X_TEST)
        for loss in ("squared_error", "pinball")
    }
    scores = {loss: metrics.interval_score(Y_TEST, found, 0.9) for loss, found in intervals.items()}
    assert scores["pinball"] < scores["squared_error"]
    quiet = np.abs(X_TEST[:, 1]) < 0.2
    assert metrics.width(intervals["pinball"][quiet]) < 0.8 * metrics.width(intervals["pinball"][~quiet])


@pytest.mark.parametrize("kind", REGRESSORS)
def test_each_of_several_targets_is_covered(kind):
    both, test = (np.stack([y, 2 - y * 3], axis=1) for y in (Y, Y_TEST))
    for loss in ("squared_error", "gaussian_nll", "pinball"):
        model = regressor(kind, loss=loss, calibration_fraction=0.3).fit(X, both)
        assert model.predict(X_TEST).shape == test.shape
        intervals = model.predict_interval(X_TEST)
        assert intervals.shape == (3000, 2, 2)
        for target in range(2):
            assert_holds(test[:, target], intervals[:, target], 180)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_quantiles_as_they_were_learned(kind):
    model = regressor(kind, loss=Pinball((0.1, 0.5, 0.6, 0.9)), max_iter=60).fit(X, Y)
    quantiles = model.predict_quantiles(X_TEST)
    assert quantiles.shape == (3000, 4)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    np.testing.assert_array_equal(quantiles[:, 1], model.predict(X_TEST))
    below = (Y_TEST[:, None] <= quantiles).mean(axis=0)
    np.testing.assert_allclose(below, [0.1, 0.5, 0.6, 0.9], atol=0.12)
    several = regressor(kind, loss="pinball").fit(X, np.stack([Y, -Y, Y], axis=1))
    levels = 9 if kind == "realmlp" else 3
    assert several.predict_quantiles(X_TEST).shape == (3000, levels, 3)
    np.testing.assert_array_equal(several.predict_quantiles(X_TEST)[:, levels // 2], several.predict(X_TEST))
    with pytest.raises(ValueError, match="predict_quantiles needs loss='pinball', got 'huber'"):
        regressor(kind, loss="huber", max_iter=1).fit(X, Y).predict_quantiles(X)


@pytest.mark.parametrize("kind", REGRESSORS)
@pytest.mark.parametrize("loss", ["squared_error", "gaussian_nll", "pinball"])
def test_the_same_bits_on_any_number_of_threads_and_in_every_call(kind, loss):
    found = set()
    for count in (1, 3):
        model = regressor(kind, loss=loss, calibration_fraction=0.2, n_threads=count, max_iter=3).fit(X, Y)
        found |= {model.predict_interval(X_TEST[:200]).tobytes() for _ in range(2)}
    assert len(found) == 1


@pytest.mark.parametrize("kind", TABLES)
def test_targets_in_other_units_have_intervals_in_theirs(kind):
    options = {"loss": "gaussian_nll", "calibration_fraction": 0.3, "max_iter": 5}
    intervals = regressor(kind, **options).fit(X, Y).predict_interval(X_TEST)
    others = regressor(kind, **options).fit(X, 500 + 1000 * Y).predict_interval(X_TEST)
    np.testing.assert_allclose(others, 500 + 1000 * intervals, rtol=1e-3, atol=1)


def test_the_fraction_is_neither_trained_on_nor_chosen_by():
    wild = Y.copy()
    model = regressor("realmlp", calibration_fraction=0.3).fit(X, Y)
    kept = np.isin(Y, model.calibration_.y[:, 0])
    assert kept.sum() == 180
    wild[kept] = 1e6
    other = regressor("realmlp", calibration_fraction=0.3).fit(X, wild)
    np.testing.assert_array_equal(other.predict(X_TEST), model.predict(X_TEST))
    assert other.predict_interval(X_TEST).max() > 1e5


# Classifiers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [LABELS, np.array([7, 3, 5])])
@pytest.mark.parametrize("options", [{"calibration_fraction": 0.3}, {"n_folds": 3}])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_sets_hold(kind, options, labels):
    if kind == "mlp" and "n_folds" in options:
        options = {"early_stopping": True, "validation_fraction": 0.3}
    model = classifier(kind, **options).fit(X, labels[CODES])
    for coverage in (0.9, 0.97):
        sets = model.predict_set(X_TEST, coverage)
        assert sets.shape == (3000, 3)
        assert sets[np.arange(3000), model.predict_proba(X_TEST).argmax(axis=1)].all()
        place = np.searchsorted(model.classes_, labels[CODES_TEST])
        assert_holds(place, sets, len(model.calibration_.y), coverage, more=0.03)
    assert 1 < sets.sum(axis=1).mean() < 3


@pytest.mark.parametrize("options", [{"calibration_fraction": 0.3}, {"n_folds": 3}])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_smallest_sets_hold_below_the_accuracy_too(kind, options):
    if kind == "mlp" and "n_folds" in options:
        options = {"early_stopping": True, "validation_fraction": 0.3}
    model = classifier(kind, **options).fit(X, CODES)
    for coverage in (0.6, 0.9):
        sets = model.predict_set(X_TEST, coverage, kind="smallest")
        assert_holds(CODES_TEST, sets, len(model.calibration_.y), coverage, more=0.03)
        if coverage == 0.6:
            assert metrics.width(sets) < metrics.width(model.predict_set(X_TEST, coverage))
    with pytest.raises(ValueError, match="kind='least' is not known; known are 'adaptive', 'smallest'"):
        model.predict_set(X_TEST, kind="least")


def test_two_classes_and_one():
    for kind in CLASSIFIERS:
        model = classifier(kind, calibration_fraction=0.3).fit(X, CODES > 1)
        assert_holds((CODES_TEST > 1).astype(int), model.predict_set(X_TEST, 0.95), 180, 0.95, more=0.05)
        model = classifier(kind, calibration_fraction=0.3).fit(X, np.full(600, "one"))
        assert model.predict_set(X_TEST).all()
        assert model.predict_set(X_TEST).shape == (3000, 1)


def test_the_temperature_makes_new_rows_likelier():
    model = classifier("realmlp", calibration_fraction=0.3, metric="error", max_iter=60).fit(
        X, CODES
    )  # smoothed labels
    proba = model.predict_proba(X_TEST)
    scaled = model.calibration_.probabilities(proba)
    log_loss = [-np.log(p[np.arange(3000), CODES_TEST]).mean() for p in (scaled, proba)]
    assert log_loss[0] < log_loss[1]


def test_several_labels_have_no_sets():
    several = np.stack([CODES > 0, CODES > 1], axis=1).astype(int)
    with pytest.raises(ValueError, match=r"calibration_fraction=0.2 keeps rows for sets, but y of several labels"):
        classifier("mlp", calibration_fraction=0.2).fit(X, several)
    model = classifier("mlp").fit(X, several)
    with pytest.raises(RuntimeError, match="predict_set needs rows"):
        model.predict_set(X)
    with pytest.raises(ValueError, match="several labels"):
        model.calibrate(X, several)


# What cannot be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REGRESSORS)
def test_before_fit_and_without_rows_it_says_what_to_do(kind):
    with pytest.raises(NotFittedError):
        regressor(kind).predict_interval(X)
    with pytest.raises(NotFittedError):
        regressor(kind).calibrate(X, Y)
    with pytest.raises(NotFittedError):
        classifier(kind).predict_set(X)
    model = regressor("mlp", max_iter=1).fit(X, Y)
    with pytest.raises(RuntimeError, match=r"fit it with calibration_fraction=0.2, or call calibrate\(X, y\); part"):
        model.predict_interval(X)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_unusable_parameters_are_named(kind):
    for options, named in (
        ({"calibration_fraction": 1.0}, "calibration_fraction must be in"),
        ({"calibration_fraction": -0.1}, "calibration_fraction must be in"),
        ({"calibration_fraction": "a"}, "calibration_fraction must be a number"),
        ({"calibration_fraction": 0.999}, "calibration_fraction=0.999 of 10 rows leaves 0"),
        ({"loss": "quantile"}, "loss='quantile' is not known"),
        ({"loss": cd.losses.CrossEntropy()}, "loss must be one for numbers"),
        ({"loss": Pinball}, "loss"),
    ):
        with pytest.raises((ValueError, TypeError), match=named):
            regressor(kind, **options).fit(X[:10], Y[:10])


@pytest.mark.parametrize("kind", REGRESSORS)
def test_tiny_and_constant_tables(kind):
    model = regressor(kind, calibration_fraction=0.3, max_iter=2).fit(X[:20], Y[:20])
    with pytest.raises(ValueError, match="cannot be promised by 6 calibration rows: at least 9 are needed"):
        model.predict_interval(X_TEST)
    assert model.predict_interval(X_TEST, 0.8).shape == (3000, 2)
    for loss in ("squared_error", "gaussian_nll", "pinball"):
        constant = regressor(kind, loss=loss, calibration_fraction=0.3, max_iter=2).fit(X[:60], np.full(60, 5.0))
        assert np.isfinite(constant.predict_interval(X_TEST)).all()
        assert metrics.coverage(np.full(3000, 5.0), constant.predict_interval(X_TEST)) > 0.8


@pytest.mark.parametrize("kind", REGRESSORS)
def test_rows_to_predict_and_to_calibrate_with_are_checked(kind):
    model = regressor(kind, calibration_fraction=0.2, max_iter=2).fit(X, Y)
    assert model.predict_interval(X[:1]).shape == (1, 2)
    before = model.calibration_
    for bad in (X[:0], X[:, :2]):
        with pytest.raises(ValueError, match=r"sample|feature"):
            model.predict_interval(bad)
    for bad in ((X, Y[:-1]), (X, Y * np.nan), (X, np.stack([Y, Y], axis=1)), (X, ["a"] * 600)):
        with pytest.raises((ValueError, TypeError)):
            model.calibrate(*bad)
    assert model.calibration_ is before
    labelled = classifier(kind, calibration_fraction=0.2, max_iter=2).fit(X, CODES)
    with pytest.raises(ValueError, match="9"):
        labelled.calibrate(X, np.full(600, 9))


def test_what_goes_on_does_not_keep_an_old_calibration():
    model = regressor("mlp", calibration_fraction=0.2).fit(X, Y)
    model.partial_fit(X, Y)
    with pytest.raises(RuntimeError, match="needs rows"):
        model.predict_interval(X)
    model.set_params(warm_start=True)
    with pytest.raises(ValueError, match=r"warm_start=True goes on .* call calibrate\(X, y\) instead"):
        model.fit(X, Y)
    table = regressor("tabm", calibration_fraction=0.2, max_iter=2).fit(X, Y)
    first = table.calibration_
    assert table.fit(X, Y).calibration_ is not first


def test_lbfgs_keeps_rows_aside_too():
    model = MLPRegressor(solver="lbfgs", max_iter=50, calibration_fraction=0.3, random_state=0).fit(X, Y)
    assert_holds(Y_TEST, model.predict_interval(X_TEST), 180)


def test_classes_of_one_row_are_not_calibrated_by_what_was_trained_on():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = classifier("realmlp", max_iter=1).fit(X[:3], ["a", "b", "c"])
    with pytest.raises(RuntimeError, match="needs rows"):
        model.predict_set(X)


# Around it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("loss", ["gaussian_nll", Pinball((0.1, 0.5, 0.9))], ids=str)
@pytest.mark.parametrize("options", [{"calibration_fraction": 0.2}, {"n_folds": 2}], ids=str)
def test_files_hold_it(kind, loss, options, tmp_path):
    model = regressor(kind, loss=loss, max_iter=2, **options).fit(X, Y)
    model.save(tmp_path / "model")
    other = tabular.load(tmp_path / "model")
    assert repr(other) == repr(model)
    np.testing.assert_array_equal(other.predict_interval(X_TEST[:50]), model.predict_interval(X_TEST[:50]))
    np.testing.assert_array_equal(other.predict(X_TEST[:50]), model.predict(X_TEST[:50]))
    labelled = classifier(kind, max_iter=2, **options).fit(X, LABELS[CODES])
    labelled.save(tmp_path / "classes")
    other = tabular.load(tmp_path / "classes")
    np.testing.assert_array_equal(other.predict_set(X_TEST), labelled.predict_set(X_TEST))


@pytest.mark.parametrize("kind", REGRESSORS)
def test_pickles_and_clones_hold_it(kind):
    model = regressor(kind, loss=Pinball((0.2, 0.5, 0.8)), max_iter=2, calibration_fraction=0.2).fit(X, Y)
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.predict_interval(X_TEST), model.predict_interval(X_TEST))
    fresh = clone(model).fit(X, Y)
    np.testing.assert_array_equal(fresh.predict_interval(X_TEST), model.predict_interval(X_TEST))


@pytest.mark.parametrize("kind", REGRESSORS)
def test_what_was_pickled_before_there_were_these_parameters(kind):
    model = regressor(kind, max_iter=2).fit(X, Y)
    state = dict(model.__getstate__())
    for name in ("calibration_fraction", "calibration_", "loss"):
        del state[name]
    other = type(model).__new__(type(model))
    other.__setstate__(state)
    assert other.get_params() == model.get_params()
    with pytest.raises(RuntimeError, match="needs rows"):
        other.predict_interval(X)
    other.fit(X, Y)


def test_files_from_before_there_were_these_parameters(tmp_path):
    model = regressor("tabm", max_iter=2).fit(X, Y)
    model.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(entries["estimator.json"])
    del description["calibration"], description["parameters"]["loss"], description["parameters"]["calibration_fraction"]
    del entries["calibration.f8"]
    with zipfile.ZipFile(tmp_path / "old", "w") as archive:
        for name, content in (entries | {"estimator.json": json.dumps(description).encode()}).items():
            archive.writestr(name, content)
    other = tabular.load(tmp_path / "old")
    assert other.loss == "squared_error"
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    with pytest.raises(RuntimeError, match="needs rows"):
        other.predict_interval(X)


CHANGES = {
    "fewer rows": lambda given, numbers: (given | {"rows": given["rows"] - 1}, numbers),
    "no rows": lambda given, numbers: (given | {"rows": 0}, b""),
    "a word": lambda given, numbers: (given | {"spread": "yes"}, numbers),
    "no folds": lambda given, numbers: (given | {"folds": False}, numbers),
    "too short": lambda given, numbers: (given, numbers[:-8]),
    "NaN": lambda given, numbers: (given, numbers[:-8] + np.array([np.nan]).tobytes()),
    "a fold that is not there": lambda given, numbers: (given, numbers[:-8] + np.array([2.0]).tobytes()),
    "half a fold": lambda given, numbers: (given, numbers[:-8] + np.array([0.5]).tobytes()),
    "something else": lambda given, numbers: (given | {"more": 1}, numbers),
    "no description": lambda given, numbers: (None, numbers),
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_whose_calibration_does_not_fit_are_refused(change, tmp_path):
    regressor("tabm", max_iter=1, n_folds=2).fit(X[:100], Y[:100]).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(entries["estimator.json"])
    description["calibration"], entries["calibration.f8"] = CHANGES[change](
        description["calibration"], entries["calibration.f8"]
    )
    entries["estimator.json"] = json.dumps(description).encode()
    with zipfile.ZipFile(tmp_path / "other", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"is not an estimator that cydrop\.tabular can load"):
        tabular.load(tmp_path / "other")


@pytest.mark.parametrize("loss", ["gaussian_nll", "pinball", Pinball((0.3, 0.6, 0.7, 0.8))], ids=str)
@pytest.mark.parametrize("kind", REGRESSORS)
def test_onnx_models_predict_the_same(kind, loss, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    for target in (Y, np.stack([Y, -Y], axis=1)):
        model = regressor(kind, loss=loss, max_iter=3).fit(X, target)
        cd.onnx.export(model, tmp_path / "model.onnx")
        session = runtime.InferenceSession((tmp_path / "model.onnx").read_bytes())
        (found,) = session.run(None, {session.get_inputs()[0].name: X_TEST[:50].astype(np.float32)})
        wanted = model.predict(X_TEST[:50].astype(np.float32))
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_monte_carlo_of_a_predicted_variance_has_all_of_it(kind):
    model = regressor(kind, loss="gaussian_nll", max_iter=60).fit(X, Y)
    mc = model.predict_mc(X_TEST, 50)
    np.testing.assert_allclose(mc.total, mc.aleatoric + mc.epistemic, rtol=1e-4)
    np.testing.assert_allclose(mc.std**2, mc.total, rtol=1e-4)
    assert mc.mean.shape == mc.aleatoric.shape == (3000,)
    assert 0.3 < np.mean((mc.mean - Y_TEST) ** 2 / mc.total) < 3
    both = regressor(kind, loss="gaussian_nll", max_iter=2).fit(X, np.stack([Y, Y], axis=1))
    assert both.predict_mc(X_TEST[:20], 10).aleatoric.shape == (20, 2)
    quantiles = regressor(kind, loss="pinball", max_iter=2).fit(X, Y).predict_mc(X_TEST[:20], 50, return_samples=True)
    assert quantiles.mean.shape == (20,)
    assert quantiles.samples.shape == (50, 20)


@pytest.mark.parametrize("loss", ["gaussian_nll", "pinball"])
def test_early_stopping_of_what_predicts_more_than_one_number_goes_by_its_loss(loss):
    model = regressor("mlp", loss=loss, early_stopping=True, validation_fraction=0.3, tol=0.0).fit(X, Y)
    best = int(np.argmin(model.validation_loss_curve_))
    assert best != int(np.argmax(model.validation_scores_))
    other = regressor("mlp", loss=loss, early_stopping=True, validation_fraction=0.3, tol=0.0, max_iter=best + 1)
    np.testing.assert_array_equal(other.fit(X, Y).predict(X_TEST), model.predict(X_TEST))


@pytest.mark.parametrize("loss", ["squared_error", "gaussian_nll", "pinball"])
def test_the_loss_curve_is_the_mean_over_the_targets(loss):
    single = regressor("mlp", loss=loss, dropout=0.0, max_iter=2, learning_rate_init=1e-12).fit(X, Y)
    wanted = single.network_.evaluate(X, Y)["loss"] * (0.5 if loss == "squared_error" else 1.0)
    if loss == "pinball":  # as trained quantiles are not in order yet
        assert wanted < single.loss_ < 1.5 * wanted
    else:
        assert single.loss_ == pytest.approx(wanted, rel=1e-4)


def test_unconverged_training_is_still_calibrated():
    model = MLPRegressor(max_iter=1, calibration_fraction=0.3, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model.fit(X, Y)
    assert_holds(Y_TEST, model.predict_interval(X_TEST), 180)

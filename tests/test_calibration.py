"""Intervals and sets of networks and ensembles: that they hold, and what is said where they cannot."""

import copy
import json
import pickle
import struct
import warnings

import numpy as np
import pytest

import cydrop as cd
from cydrop import metrics
from cydrop._base import conformal

QUANTILES = cd.losses.Pinball((0.05, 0.5, 0.95))
LOSSES = {"mse": ("mse", 1), "gaussian_nll": ("gaussian_nll", 2), "pinball": (QUANTILES, 3)}


def table(rows, seed=0):
    """y scatters by the second column."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (rows, 3)).astype(np.float32)
    return X, np.sin(3 * X[:, 0]) + (0.05 + np.abs(X[:, 1])) * rng.standard_normal(rows)


def network(loss="mse", units=1, *, rate=0.1, seed=0, **options):
    block = [cd.Dense(32, activation="silu"), cd.Dropout(rate)]
    return cd.Network([*block, *block, cd.Dense(units)], loss=loss, seed=seed, **options)


@pytest.fixture(scope="module")
def rows():
    X, y = table(6000)
    return (X[:1000], y[:1000]), (X[1000:2000], y[1000:2000]), (X[2000:], y[2000:])


@pytest.fixture(scope="module")
def trained(rows):
    """A network of each loss."""
    found = {}
    for name, (loss, units) in LOSSES.items():
        net = network(loss, units, optimizer=cd.Adam(3e-3))
        net.fit(*rows[0], epochs=80, batch_size=32, verbose=0)
        found[name] = net
    return found


@pytest.fixture(scope="module")
def digits():
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    net = network("cross_entropy", 10)
    net.fit(X[:2000], y[:2000], epochs=10, verbose=0)
    return net, (X[2000:], y[2000:]), (X_test, y_test)


def assert_holds(y, found, coverage, n, more=0.0):
    """Within four standard errors, of the test and of n rows of calibration. `more`: what theory allows on top."""
    error = 4 * np.sqrt(coverage * (1 - coverage) * (1 / len(y) + 1 / n))
    assert -error < metrics.coverage(y, found) - coverage < error + more


# Networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("samples", [0, 50])
def test_intervals_hold(loss, coverage, samples, trained, rows):
    net = trained[loss].calibrate(*rows[1], samples=samples)
    intervals = net.predict_interval(rows[2][0], coverage)
    assert (intervals[:, 0] <= intervals[:, 1]).all()
    assert_holds(rows[2][1], intervals, coverage, 1000)


@pytest.mark.parametrize("loss", ["gaussian_nll", "pinball"])
def test_what_knows_where_y_scatters_is_narrower_there(loss, trained, rows):
    X, y = rows[2]
    found = {name: trained[name].calibrate(*rows[1]).predict_interval(X) for name in ("mse", loss)}
    assert metrics.interval_score(y, found[loss], 0.9) < 0.9 * metrics.interval_score(y, found["mse"], 0.9)
    quiet = np.abs(X[:, 1]) < 0.2
    assert metrics.width(found[loss][quiet]) < 0.7 * metrics.width(found[loss][~quiet])


def test_intervals_of_numbers_are_the_prediction_and_a_multiple_of_the_spread(trained, rows):
    net, (X, y), new = trained["mse"], rows[1], rows[2][0][:50]
    net.calibrate(X, y, samples=0)
    error = np.abs(y.astype(np.float32).astype(np.float64) - net.predict(X)[:, 0])
    by = np.sort(error)[conformal.place(len(y), 0.9) - 1]
    center = net.predict(new).astype(np.float64)
    np.testing.assert_array_equal(net.predict_interval(new), np.hstack([center - by, center + by]))
    net.calibrate(X, y, samples=20)
    intervals = net.predict_interval(new)
    np.testing.assert_allclose(intervals.mean(axis=1), center[:, 0], rtol=0, atol=1e-12)
    assert np.ptp(intervals[:, 1] - intervals[:, 0]) > 0.01


def test_intervals_of_quantiles_are_those_moved_by_a_multiple_of_their_distance(trained, rows):
    net, (X, y), new = trained["pinball"].calibrate(*rows[1]), rows[1], rows[2][0][:50]
    for coverage in (0.9, 0.8):  # for which the nearest quantiles are the same
        low, _, high = net.predict(X).astype(np.float64).T
        target = y.astype(np.float32).astype(np.float64)
        by = np.sort(np.maximum(low - target, target - high) / (high - low))[conformal.place(len(y), coverage) - 1]
        low, _, high = net.predict(new).astype(np.float64).T
        wanted = np.stack([low - by * (high - low), high + by * (high - low)], axis=1)
        np.testing.assert_allclose(net.predict_interval(new, coverage), wanted, rtol=1e-12)


def test_quantiles_that_meet_still_have_an_interval():
    net = network(QUANTILES, 3)
    X, y = table(300)
    net.build(3)
    for view in net.parameters().values():
        view[...] = 0.0
    intervals = net.calibrate(X[:150], y[:150]).predict_interval(X[150:])
    assert (intervals == intervals[0]).all()
    assert np.isfinite(intervals).all()
    assert_holds(y[150:], intervals, 0.9, 150)


def test_one_quantile_is_a_prediction_like_any_other():
    net = network(cd.losses.Pinball((0.5,)), 1)
    X, y = table(300)
    net.fit(X[:100], y[:100], epochs=3, verbose=0)
    intervals = net.calibrate(X[100:200], y[100:200]).predict_interval(X[200:])
    np.testing.assert_allclose(intervals.mean(axis=1), net.predict(X[200:])[:, 0], atol=1e-6)
    assert np.ptp(np.diff(intervals, axis=1)) < 1e-6


@pytest.mark.parametrize("coverage", [0.9, 0.99])
def test_sets_hold(coverage, digits):
    net, kept, (X, y) = digits
    sets = net.calibrate(*kept).predict_set(X, coverage)
    assert sets.shape == (len(X), 10)
    assert sets[np.arange(len(X)), net.predict(X).argmax(axis=1)].all()
    accuracy = net.evaluate(X, y)["accuracy"]
    assert metrics.coverage(y, sets) >= accuracy
    if accuracy < coverage:
        assert_holds(y, sets, coverage, len(kept[1]), more=0.02)


def test_a_penalty_shortens_large_sets(digits):
    net, kept, (X, _) = digits
    net.calibrate(*kept)
    largest = [net.predict_set(X, 0.99, penalty=penalty).sum(axis=1).max() for penalty in (0.0, 0.2)]
    assert largest[1] < largest[0]


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_the_smallest_sets_hold_below_the_accuracy_too(coverage, digits):
    net, kept, (X, y) = digits
    sets = net.calibrate(*kept).predict_set(X, coverage, kind="smallest")
    assert_holds(y, sets, coverage, len(kept[1]))
    likely = net.calibration.probabilities(net.predict(X))
    assert likely[sets].min() > likely[~sets].max()


def test_the_temperature_makes_held_out_rows_likelier(digits):
    net, kept, (X, y) = digits
    net.calibrate(*kept)

    def log_loss(p):
        return -np.log(p[np.arange(len(y)), y]).mean()

    p = net.calibration.probabilities(net.predict(X))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == net.predict(X).argmax(axis=1)).all()
    assert log_loss(p) < log_loss(net.predict(X).astype(np.float64))


def test_two_classes_of_one_output():
    X, y = table(3000)
    y = (y > 0).astype(int)
    net = network("binary_cross_entropy", 1)
    net.fit(X[:1000], y[:1000], epochs=20, verbose=0)
    net.calibrate(X[1000:2000], y[1000:2000])
    sets = net.predict_set(X[2000:], 0.95)
    assert sets.shape == (1000, 2)
    assert_holds(y[2000:], sets, 0.95, 1000)


def test_each_of_several_targets_is_covered():
    X, y = table(3000)
    Y = np.stack([y, 100 * X[:, 0] - 5 * y], axis=1)
    for loss, units in (("mse", 2), ("gaussian_nll", 4), (QUANTILES, 6)):
        net = network(loss, units)
        net.fit(X[:1000], Y[:1000], epochs=5, verbose=0)
        intervals = net.calibrate(X[1000:2000], Y[1000:2000], samples=5).predict_interval(X[2000:])
        assert intervals.shape == (1000, 2, 2)
        for target in range(2):
            assert_holds(Y[2000:, target], intervals[:, target], 0.9, 1000)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_same_bits_on_any_number_of_threads_and_in_every_call(loss, trained, rows):
    net = trained[loss]
    X = rows[2][0][:300]
    wanted = net.calibrate(*rows[1], samples=10).predict_interval(X).tobytes()
    for count in (1, 2, 5):
        other = copy.deepcopy(net)
        other.n_threads = count
        assert other.predict_interval(X).tobytes() == wanted
        assert other.calibrate(*rows[1], samples=10).predict_interval(X).tobytes() == wanted


@pytest.mark.parametrize("loss", LOSSES)
def test_files_and_pickles_hold_it(loss, trained, rows, tmp_path):
    net = trained[loss].calibrate(*rows[1], samples=10)
    net.save(tmp_path / "net")
    wanted = net.predict_interval(rows[2][0][:100]).tobytes()
    for other in (cd.load(tmp_path / "net"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert other.predict_interval(rows[2][0][:100]).tobytes() == wanted
        other.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "net").read_bytes()


def test_files_of_networks_without_are_as_they_were(trained, tmp_path):
    net = pickle.loads(pickle.dumps(trained["mse"]))
    net.calibrate(*table(20), samples=0)
    net.train_on_batch(*table(5))
    net.save(tmp_path / "net")
    assert b"calibrated" in (tmp_path / "net").read_bytes()
    fresh = network()
    fresh.build(3).save(tmp_path / "fresh")
    assert b"calibrated" not in (tmp_path / "fresh").read_bytes()


# What cannot be ---------------------------------------------------------------------------------------------


def test_before_calibration_it_says_what_to_call(trained, digits):
    with pytest.raises(RuntimeError, match=r"predict_interval needs calibration: call calibrate\(X, y\) first"):
        network().build(3).predict_interval(table(2)[0])
    with pytest.raises(RuntimeError, match=r"predict_set needs calibration"):
        network("cross_entropy", 3).build(3).predict_set(table(2)[0])
    with pytest.raises(ValueError, match="the loss is cross_entropy, but predict_interval is for numbers"):
        digits[0].predict_interval(digits[1][0])
    with pytest.raises(ValueError, match="the loss is mse, but predict_set is for classes"):
        trained["mse"].predict_set(table(2)[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.train_on_batch(*table(10)),
        lambda net: net.fit(*table(10), epochs=1, verbose=0),
        lambda net: setattr(net, "loss", "mae"),
        lambda net: net.initialize(table(10)[0]),
        lambda net: net.set_rate(1, 0.4),
    ],
    ids=["a step", "an epoch", "another loss", "other weights", "another rate"],
)
def test_what_changes_the_network_makes_it_void(change):
    net = network().build(3).calibrate(*table(30), samples=0)
    net.predict_interval(table(3)[0])
    net.n_threads = 1
    assert net.calibration is not None
    change(net)
    assert net.calibration is None
    with pytest.raises(RuntimeError, match="calibrate"):
        net.predict_interval(table(3)[0])


def test_the_best_epoch_put_back_makes_it_void():
    net = network().build(3)
    calls = []

    def calibrate(*_):
        net.calibrate(*table(30), samples=0)
        calls.append(net.calibration)

    stop = cd.callbacks.EarlyStopping("val_loss", patience=1)
    epoch = cd.callbacks.LambdaCallback(on_epoch_end=calibrate)
    net.fit(*table(50), epochs=3, validation_split=0.2, callbacks=[epoch, stop], verbose=0)
    assert all(calls)
    with pytest.raises(RuntimeError, match="calibrate"):
        net.predict_interval(table(3)[0])


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, float("nan"), "90", None])
def test_a_coverage_is_a_share(coverage, trained, rows):
    net = trained["mse"].calibrate(*rows[1], samples=0)
    with pytest.raises((ValueError, TypeError), match="coverage must be"):
        net.predict_interval(rows[2][0], coverage)


@pytest.mark.parametrize(("n", "most"), [(1, "0.5"), (5, "0.833"), (100, "0.99")])
def test_few_rows_promise_what_they_can(n, most, trained):
    net = trained["mse"].calibrate(*table(n), samples=0)
    assert net.predict_interval(table(4)[0], float(most)).shape == (4, 2)
    with pytest.raises(
        ValueError, match=rf"coverage=0.999 cannot be promised by {n} calibration rows?: .*ask for {most}"
    ):
        net.predict_interval(table(4)[0], 0.999)


def test_unusable_rows_are_refused_and_change_nothing(trained):
    net = trained["mse"].calibrate(*table(30), samples=0)
    before = net.calibration
    X, y = table(30)
    for bad in ((X[:0], y[:0]), (X, y[:-1]), (X * np.nan, y), (X, y * np.nan), (X[:, :2], y)):
        with pytest.raises(ValueError, match=r"X|y"):
            net.calibrate(*bad)
    for options in ({"samples": -1}, {"samples": 0.5}, {"rate": 2}):
        with pytest.raises((ValueError, TypeError), match="|".join(options)):
            net.calibrate(X, y, **options)
    assert net.calibration is before
    with pytest.raises(ValueError, match="X"):
        net.predict_interval(X * np.nan)


def test_labels_that_are_no_classes_are_refused(digits):
    net, (X, y), _ = digits
    with pytest.raises(ValueError, match="calibration needs labels"):
        net.calibrate(X, np.eye(10)[y])
    several = network("binary_cross_entropy", 2).build(3)
    with pytest.raises(ValueError, match="2 labels a row"):
        several.calibrate(table(4)[0], np.ones((4, 2)))
    with pytest.raises(ValueError, match="0 or 1"):
        network("binary_cross_entropy", 1).build(3).calibrate(table(4)[0], np.full(4, 0.5))


def test_constant_targets_have_intervals_of_no_width_where_the_network_is_right():
    net = network(rate=0.2)
    X = table(200)[0]
    net.fit(X, np.full(200, 7.0), epochs=1, verbose=0)
    for name, view in net.parameters().items():
        view[...] = 7.0 if name == "4.bias" else 0.0
    net.calibrate(X, np.full(200, 7.0))
    np.testing.assert_array_equal(net.predict_interval(X), np.full((200, 2), 7.0))


def test_one_row_and_a_million(trained, rows):
    net = trained["gaussian_nll"].calibrate(*rows[1], samples=0)
    X = rows[2][0]
    assert net.predict_interval(X[0:1]).shape == (1, 2)
    many = net.predict_interval(np.tile(X[:1000], (1000, 1)))
    np.testing.assert_array_equal(many[-1000:], net.predict_interval(X[:1000]))


def test_dropout_that_has_faded_out_is_drawn_from_the_middle_with_a_warning():
    net = network(rate=cd.schedules.Linear(0.2, 0.0))
    net.fit(*table(100), epochs=2, verbose=0)
    with pytest.warns(UserWarning, match="faded out"):
        net.calibrate(*table(100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.calibrate(*table(100), rate=0.1)
        assert net.calibration.predicted.spread.min() > 0
        net.predict_interval(table(50)[0])


# Ensembles --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensembles(rows):
    """An ensemble of folds of each loss."""
    found = {}
    for name, (loss, units) in LOSSES.items():
        ensemble = cd.Ensemble([network(loss, units, seed=seed, optimizer=cd.Adam(3e-3)) for seed in range(4)])
        ensemble.fit(*rows[0], folds=4, seed=0, epochs=20, batch_size=32, restore_best=False, verbose=0)
        found[name] = ensemble
    return found


@pytest.mark.parametrize("coverage", [0.5, 0.9])
@pytest.mark.parametrize("loss", LOSSES)
def test_intervals_of_folds_hold_without_calibration_rows(loss, coverage, ensembles, rows):
    intervals = ensembles[loss].predict_interval(rows[2][0], coverage)
    assert_holds(rows[2][1], intervals, coverage, 1000, more=0.03)  # each member is worse than all together


def test_intervals_of_folds_are_made_of_the_left_out_rows(ensembles, rows):
    ensemble, (X, y), new = ensembles["pinball"], rows[0], rows[2][0][:20]
    calibration = ensemble.calibration
    assert (calibration.folds, len(calibration.y)) == (4, len(y))
    np.testing.assert_array_equal(calibration.predicted.outputs, ensemble.oof_predictions)
    bounds = []
    for number, member in enumerate(ensemble.networks):
        left = calibration.fold == number
        low, _, high = member.predict(X[left]).astype(np.float64).T
        target = y[left].astype(np.float32).astype(np.float64)
        score = (np.maximum(low - target, target - high) / (high - low))[:, None]
        low, _, high = member.predict(new).astype(np.float64).T
        bounds.append((low - score * (high - low), high + score * (high - low)))
    at = conformal.place(len(y), 0.9)
    below, above = (np.sort(np.concatenate(ends), axis=0) for ends in zip(*bounds, strict=True))
    wanted = np.stack([below[len(y) - at], above[at - 1]], axis=1)
    np.testing.assert_allclose(ensemble.predict_interval(new), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_an_ensemble_can_be_calibrated_by_rows_of_its_own(loss, ensembles, rows):
    ensemble = copy.deepcopy(ensembles[loss]).calibrate(*rows[1], samples=10)
    assert ensemble.calibration.folds == 1
    assert_holds(rows[2][1], ensemble.predict_interval(rows[2][0]), 0.9, 1000)


def test_members_that_disagree_make_intervals_wide(rows):
    X, y = rows[0]
    near = np.abs(X[:, 0]) < 0.5
    ensemble = cd.Ensemble([network(rate=0, seed=seed, optimizer=cd.Adam(3e-3)) for seed in range(5)])
    ensemble.fit(X[near], y[near], epochs=20, batch_size=32, verbose=0)
    intervals = ensemble.calibrate(*rows[1]).predict_interval(rows[2][0])
    far = np.abs(rows[2][0][:, 0]) > 0.8
    assert metrics.width(intervals[far]) > 1.1 * metrics.width(intervals[~far])


def test_sets_of_folds_hold():
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    ensemble = cd.Ensemble([network("cross_entropy", 10, seed=seed) for seed in range(3)])
    ensemble.fit(X[:1000], y[:1000], folds=3, seed=0, epochs=3, verbose=0)
    sets = ensemble.predict_set(X_test, 0.99)
    assert_holds(y_test, sets, 0.99, 1000, more=0.01)


def test_ensembles_in_files_and_pickles_hold_it(ensembles, rows, tmp_path):
    X = rows[2][0][:50]
    for number, ensemble in enumerate([ensembles["pinball"], copy.deepcopy(ensembles["mse"]).calibrate(*rows[1])]):
        ensemble = copy.deepcopy(ensemble)
        ensemble.networks[number].calibrate(*rows[1])  # a member's own
        wanted = ensemble.predict_interval(X), ensemble.networks[number].predict_interval(X)
        ensemble.save(tmp_path / "all")
        for other in (cd.load(tmp_path / "all"), pickle.loads(pickle.dumps(ensemble))):
            np.testing.assert_array_equal(other.predict_interval(X), wanted[0])
            np.testing.assert_array_equal(other.networks[number].predict_interval(X), wanted[1])
            assert other.networks[1 - number].calibration is None


def test_training_makes_that_of_an_ensemble_void(ensembles):
    ensemble = copy.deepcopy(ensembles["mse"])
    ensemble.networks[2].train_on_batch(*table(10))
    assert ensemble.calibration is None
    with pytest.raises(RuntimeError, match="trained or changed since"):
        ensemble.predict_interval(table(3)[0])
    with pytest.raises(RuntimeError, match="needs calibration"):
        cd.Ensemble([network().build(3)]).predict_interval(table(3)[0])


def test_class_probabilities_as_y_of_folds_calibrate_nothing():
    X, y, *_ = cd.datasets.load_optdigits()
    ensemble = cd.Ensemble([network("cross_entropy", 10, seed=seed) for seed in range(2)])
    ensemble.fit(X[:200], np.eye(10)[y[:200]], folds=2, epochs=1, verbose=0)
    assert ensemble.calibration is None


# Files that lie ---------------------------------------------------------------------------------------------


def rewritten(path, change):
    """Changes the description in the header of a file."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    description = json.loads(header["__metadata__"]["cydrop"])
    change(description["calibrated"])
    header["__metadata__"]["cydrop"] = json.dumps(description)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given.update(rows=0),
        lambda given: given.update(rows=10**9),
        lambda given: given.update(rows="3"),
        lambda given: given.update(samples=-1),
        lambda given: given.update(samples=0),
        lambda given: given.update(rate=7),
        lambda given: given.update(updates=None),
        lambda given: given.update(spread=1),
        lambda given: given.update(folds=True),
        lambda given: given.pop("rate"),
        lambda given: given.update(more=1),
    ],
)
def test_a_file_whose_calibration_does_not_fit_is_refused(change, trained, rows, tmp_path):
    trained["mse"].calibrate(*rows[1], samples=5).save(tmp_path / "net")
    rewritten(tmp_path / "net", change)
    with pytest.raises(ValueError, match="is not a network that cydrop can load"):
        cd.load(tmp_path / "net")


def test_a_file_with_classes_that_are_none_is_refused(digits, tmp_path):
    net, kept, _ = digits
    net.calibrate(*kept).save(tmp_path / "net")
    raw = bytearray((tmp_path / "net").read_bytes())
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    at = 8 + struct.unpack("<Q", raw[:8])[0] + header["calibrated.y"]["data_offsets"][0]
    for wrong in (10.0, -1.0, 0.5):
        raw[at : at + 4] = struct.pack("<f", wrong)
        (tmp_path / "net").write_bytes(raw)
        with pytest.raises(ValueError, match="the y of its calibration has others than whole numbers from 0 to 9"):
            cd.load(tmp_path / "net")

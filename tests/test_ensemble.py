"""Ensembles: the mean of what their members predict, what they disagree about, and how they are trained and kept."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import cydrop as cd
from cydrop._run.core import core_of

KINDS = {  # loss -> units, y of n rows
    "cross_entropy": (3, lambda rng, n: rng.integers(0, 3, n)),
    "binary_cross_entropy": (2, lambda rng, n: rng.integers(0, 2, (n, 2))),
    "mse": (2, lambda rng, n: rng.standard_normal((n, 2))),
    "mae": (1, lambda rng, n: rng.standard_normal(n)),
    "gaussian_nll": (2, lambda rng, n: rng.standard_normal(n)),
    "pinball": (6, lambda rng, n: rng.standard_normal((n, 2))),
}


def members(loss, units, count=4, rate=0.3, **options):
    """Networks of other seeds and widths."""
    hidden = [cd.Dropout(rate)] if rate else []
    return [
        cd.Network([cd.Dense(12 + number), cd.ReLU(), *hidden, cd.Dense(units)], loss=loss, seed=number, **options)
        for number in range(count)
    ]


def recorded(network):
    """The history, but for the time that it took."""
    return {name: values for name, values in network.history.metrics.items() if name != "seconds"}


def trained(loss, rate=0.3, **options):
    """An ensemble, its X and its y."""
    rng = np.random.default_rng(3)
    units, make = KINDS[loss]
    X = rng.standard_normal((90, 5)).astype(np.float32)
    y = make(rng, 90)
    ensemble = cd.Ensemble(members(loss, units, rate=rate, **options))
    ensemble.fit(X, y, epochs=3, batch_size=32, verbose=0)
    return ensemble, X, y


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# Prediction ---------------------------------------------------------------------------------------------------


def mixture(p, loss):
    """What an ensemble predicts, by NumPy, from float64 predictions of shape (members, n, units)."""
    if loss != "gaussian_nll":
        return p.mean(axis=0)
    half = p.shape[2] // 2
    return np.concatenate([p[..., :half].mean(axis=0), p[..., half:].mean(axis=0) + p[..., :half].var(axis=0)], axis=1)


def test_the_prediction_is_the_mean_of_the_members(kind):
    ensemble, X, _ = trained(kind)
    p = ensemble.predict_all(X)
    assert p.shape == (4, 90, KINDS[kind][0])
    for network, own in zip(ensemble, p, strict=True):
        assert own.tobytes() == network.predict(X).tobytes()
    found = ensemble.predict(X)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, mixture(p.astype(np.float64), kind), rtol=1e-6, atol=1e-7)


def test_predictions_have_the_same_bits_on_any_number_of_threads(kind):
    ensemble, X, y = trained(kind)
    X = np.tile(X, (9, 1))
    y = np.concatenate([y] * 9)
    seen = set()
    for n_threads in (1, 2, 3):
        ensemble.n_threads = n_threads
        assert {network.n_threads for network in ensemble} == {n_threads}
        mc = ensemble.predict_mc(X, 30, seed=1)
        found = ensemble.predict(X), ensemble.predict_all(X), mc.mean, mc.std, mc.total, mc.epistemic
        judged = *ensemble.evaluate(X, y).values(), *ensemble.evaluate_mc(X, y, 30, seed=1).values()
        seen.add((*(array.tobytes() for array in found), *judged))
    assert len(seen) == 1


def test_parts_of_the_rows_have_the_bits_of_the_whole(kind):
    ensemble, X, _ = trained(kind)
    whole = ensemble.predict(X)
    parts = [ensemble.predict(X[:7]), ensemble.predict(X[7:], batch_size=11)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_an_ensemble_of_one_predicts_as_its_network(kind):
    units, make = KINDS[kind]
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 5)), make(rng, 60)
    (net,) = networks = members(kind, units, count=1)
    net.fit(X, y, epochs=2, verbose=0)
    ensemble = cd.Ensemble(networks)
    assert ensemble.predict(X).tobytes() == net.predict(X).tobytes()
    for name, value in net.evaluate(X, y).items():
        assert ensemble.evaluate(X, y)[name] == pytest.approx(value, rel=1e-5)


def test_the_loss_is_that_of_the_mean(kind):
    ensemble, X, y = trained(kind)
    weight = np.random.default_rng(0).random(90)
    found, p = ensemble.evaluate(X, y, weight), mixture(ensemble.predict_all(X).astype(np.float64), kind)
    t = y.reshape(90, -1)
    if kind == "cross_entropy":
        loss = -np.log(p[np.arange(90), y])[:, None]
    elif kind == "binary_cross_entropy":
        loss = -np.where(t == 1, np.log(p), np.log(1 - p))
    elif kind == "gaussian_nll":
        loss = 0.5 * (np.log(2 * np.pi * p[:, 1:]) + (t - p[:, :1]) ** 2 / p[:, 1:])
    elif kind == "pinball":
        e, q = (t[:, None] - p.reshape(90, 3, 2)).reshape(90, 6), np.repeat([0.05, 0.5, 0.95], 2)
        loss = np.maximum(q * e, (q - 1) * e)
    else:
        loss = np.abs(t - p) ** (2 if kind == "mse" else 1)
    assert found["loss"] == pytest.approx((loss.mean(axis=1) * weight).mean(), rel=1e-5)
    if "entropy" in kind:
        right = p.argmax(axis=1) == y if kind == "cross_entropy" else (p > 0.5) == t
        assert found["accuracy"] == pytest.approx(right.mean())
        assert found["loss"] <= np.mean([network.evaluate(X, y, weight)["loss"] for network in ensemble])
    else:
        first = 2 if kind == "pinball" else 0  # of the medians
        assert found["rmse"] == pytest.approx(np.sqrt(((t - p[:, first : first + t.shape[1]]) ** 2).mean()), rel=1e-5)


def test_the_loss_has_the_options_of_the_first_members():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 5)), rng.integers(0, 3, 40)
    smooth, plain = (
        cd.Ensemble(members(cd.losses.CrossEntropy(smoothing), 3)).evaluate(X, y)["loss"] for smoothing in (0.2, 0.0)
    )
    assert smooth != plain


def test_probabilities_of_0_and_1_have_a_finite_loss():
    for loss, units, y in (("cross_entropy", 2, [0, 1]), ("binary_cross_entropy", 1, [0, 1])):
        networks = [cd.Network([cd.Dense(units)], loss=loss, seed=seed).build(1) for seed in range(2)]
        for network in networks:
            network.parameters()["0.weight"][...] = np.linspace(1e4, 0, units)
        found = cd.Ensemble(networks).evaluate([[-9.0], [9.0]], y)
        assert np.isfinite(found["loss"])


# What members disagree about ------------------------------------------------------------------------------------


def test_samples_are_the_members_times_monte_carlo_dropout(kind):
    ensemble, X, _ = trained(kind)
    mc = ensemble.predict_mc(X, 25, seed=5, return_samples=True, quantiles=[0.1, 0.9])
    assert mc.samples.shape == (100, 90, KINDS[kind][0])
    p = mc.samples.astype(np.float64)
    k = mc.mean.shape[1]
    np.testing.assert_allclose(mc.mean, p[..., :k].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mc.quantiles, np.quantile(p, [0.1, 0.9], axis=0), rtol=1e-5, atol=1e-6)
    for number, network in enumerate(ensemble):
        own = p[25 * number : 25 * (number + 1)]
        assert len({sample.tobytes() for sample in own}) == 25
        near = network.predict_mc(X, 2000, seed=1).mean
        bound = 6 * own[..., :k].std(axis=0) / 5 + 1e-4
        assert (np.abs(own[..., :k].mean(axis=0) - near) < bound).mean() > 0.98
    again, other, few = (ensemble.predict_mc(X, 25, seed=seed).mean.tobytes() for seed in (5, 6, None))
    assert again == mc.mean.tobytes()
    assert len({again, other, few}) == 3


def test_the_parts_of_the_uncertainty_add_up(kind):
    ensemble, X, _ = trained(kind)
    mc = ensemble.predict_mc(X, 25, seed=5)
    if kind in ("mse", "mae", "pinball"):
        assert mc.aleatoric is None
        np.testing.assert_array_equal(mc.total, mc.epistemic)
    else:
        np.testing.assert_allclose(mc.total, mc.aleatoric + mc.epistemic, rtol=1e-5, atol=1e-6)
        assert (mc.aleatoric > 0).all()
    assert (mc.epistemic > 0).all()


def test_members_without_dropout_are_the_samples(kind):
    ensemble, X, y = trained(kind, rate=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mc = ensemble.predict_mc(X, 25, return_samples=True)
    p = ensemble.predict_all(X)
    assert mc.samples.tobytes() == p.tobytes()
    k = mc.mean.shape[1]
    assert mc.mean.tobytes() == np.ascontiguousarray(ensemble.predict(X)[:, :k]).tobytes()
    if kind == "gaussian_nll":
        np.testing.assert_allclose(mc.total, ensemble.predict(X)[:, k:], rtol=1e-6)
        z = p.astype(np.float64)
        density = np.exp(-((y - z[..., 0]) ** 2) / 2 / z[..., 1]) / np.sqrt(2 * np.pi * z[..., 1])
        found = ensemble.evaluate_mc(X, y)
        assert found["log_likelihood"] == pytest.approx(np.log(density.mean(axis=0)).mean(), rel=1e-5)
        assert found["rmse"] == pytest.approx(ensemble.evaluate(X, y)["rmse"], rel=1e-6)
    np.testing.assert_allclose(mc.epistemic.reshape(90, -1) > 0, True)


def test_a_member_without_dropout_counts_as_often_as_the_others():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 5))
    networks = [*members("mse", 1, count=1, rate=0.0), *members("mse", 1, count=1)]
    mc = cd.Ensemble(networks).predict_mc(X, 20, seed=0, return_samples=True)
    assert mc.samples.shape == (40, 300, 1)
    np.testing.assert_array_equal(mc.samples[:20], np.repeat(networks[0].predict(X)[None], 20, axis=0))
    np.testing.assert_allclose(mc.std, mc.samples.std(axis=0), rtol=1e-4, atol=1e-6)


def test_equal_members_without_dropout_warn_that_their_spread_says_nothing():
    X = np.ones((3, 5))
    (net,) = members("mse", 1, count=1, rate=0.0)
    with pytest.warns(UserWarning, match="there is one network: a spread of 0 is no certainty") as caught:
        cd.Ensemble([net]).predict_mc(X)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="the networks predict the same"):
        mc = cd.Ensemble([net, copy.deepcopy(net)]).predict_mc(X)
    assert (mc.std == 0).all()


def test_dropout_that_has_faded_out_is_drawn_from_the_middle_with_one_warning():
    layers = [cd.Dense(9), cd.ReLU(), cd.Dropout(cd.schedules.Linear(0.5, 0.0)), cd.Dense(1)]
    ensemble = cd.Ensemble([cd.Network(layers, loss="mse", seed=seed) for seed in range(3)])
    with pytest.warns(UserWarning, match="faded out") as caught:
        mc = ensemble.predict_mc(np.ones((2, 4)), 9)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (mc.std > 0).all()
    assert (ensemble.predict_mc(np.ones((2, 4)), 9, rate=0.2).std > 0).all()


def test_the_likelihood_is_that_of_the_mixture_of_all_samples():
    ensemble, X, y = trained("cross_entropy")
    found = ensemble.evaluate_mc(X, y, 30, seed=2)
    p = ensemble.predict_mc(X, 30, seed=2, return_samples=True).samples.astype(np.float64).mean(axis=0)
    assert found["log_likelihood"] == pytest.approx(np.log(p[np.arange(90), y]).mean(), rel=1e-6)
    ensemble, X, y = trained("mse")
    assert "log_likelihood" not in ensemble.evaluate_mc(X, y, 3)
    assert "log_likelihood" in ensemble.evaluate_mc(X, y, 3, noise_precision=2.0)
    with pytest.raises(ValueError, match="noise_precision"):
        trained("gaussian_nll")[0].evaluate_mc(X, y[:, 0], 3, noise_precision=2.0)


# Training -----------------------------------------------------------------------------------------------------


def data(kind, n=97):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 5)).astype(np.float32), KINDS[kind][1](rng, n)


def test_all_members_are_trained_as_they_would_be_alone(kind):
    X, y = data(kind)
    weight = np.random.default_rng(0).random(97)
    together, alone = members(kind, KINDS[kind][0]), members(kind, KINDS[kind][0])
    ensemble = cd.Ensemble(together)
    histories = ensemble.fit(X, y, epochs=2, batch_size=16, sample_weight=weight, verbose=0)
    for history, one, other in zip(histories, together, alone, strict=True):
        other.fit(X, y, epochs=2, batch_size=16, sample_weight=weight, verbose=0)
        assert history is one.history
        assert recorded(one) == recorded(other)
        assert one.predict(X).tobytes() == other.predict(X).tobytes()
    assert ensemble.oof_predictions is None


def test_each_member_leaves_out_a_fold_which_the_others_never_share(kind):
    X, y = data(kind)
    ensemble = cd.Ensemble(members(kind, KINDS[kind][0], count=3))
    histories = ensemble.fit(X, y, folds=3, seed=4, epochs=2, verbose=0)
    assert all(len(history.metrics["val_loss"]) == 2 for history in histories)
    oof, p = ensemble.oof_predictions, ensemble.predict_all(X)
    by = np.array([(p[member] == oof).all(axis=1) for member in range(3)])
    assert (by.sum(axis=0) == 1).all()  # each row by the one member that has not seen it
    assert sorted(by.sum(axis=1)) == [32, 32, 33]
    for member, history in enumerate(histories):
        held = by[member]
        found = ensemble.networks[member].evaluate(X[held], y[held])
        assert min(history.metrics["val_loss"]) == pytest.approx(found["loss"], rel=1e-6)


def test_folds_have_their_share_of_each_class():
    X, _ = data("cross_entropy")
    y = np.repeat([0, 1, 2], [60, 31, 6])
    ensemble = cd.Ensemble(members("cross_entropy", 3, count=3))
    ensemble.fit(X, y, folds=3, seed=4, epochs=1, verbose=0)
    p = ensemble.predict_all(X)
    by = np.array([(p[member] == ensemble.oof_predictions).all(axis=1) for member in range(3)])
    for label in range(3):
        counts = [(held & (y == label)).sum() for held in by]
        assert max(counts) - min(counts) <= 1


def test_more_members_than_folds_hold_a_row_out_together(kind):
    X, y = data(kind)
    ensemble = cd.Ensemble(members(kind, KINDS[kind][0], count=4))
    ensemble.fit(X, y, folds=2, seed=4, epochs=1, verbose=0)
    p = ensemble.predict_all(X).astype(np.float64)
    halves = [mixture(p[first::2], kind) for first in range(2)]
    near = np.array([np.isclose(half, ensemble.oof_predictions, rtol=1e-5, atol=1e-6).all(axis=1) for half in halves])
    assert near.any(axis=0).all()
    assert sorted(near.sum(axis=1)) == [48, 49]


def test_fewer_members_than_folds_leave_rows_without_a_prediction():
    X, y = data("mse")
    ensemble = cd.Ensemble(members("mse", 2, count=2))
    ensemble.fit(X, y, folds=5, seed=4, epochs=1, verbose=0)
    assert 55 <= np.isnan(ensemble.oof_predictions).all(axis=1).sum() <= 61


def test_bootstrap_samples_are_drawn_with_replacement_and_the_rest_is_held_out(monkeypatch):
    seen = {}

    def fit_many(networks, X, y, *, rows, validation_rows, **options):
        seen.update(rows=rows, held=validation_rows)

    monkeypatch.setattr("cydrop.ensemble._ensemble.fit_many", fit_many)
    X, y = data("mse", 2000)
    ensemble = cd.Ensemble(members("mse", 2, count=3))
    ensemble.fit(X, y, bootstrap=True, seed=1, verbose=0)
    for rows, held in zip(seen["rows"], seen["held"], strict=True):
        assert len(rows) == 2000
        assert set(rows) | set(held) == set(range(2000))
        assert not set(rows) & set(held)
        assert len(held) / 2000 == pytest.approx(np.exp(-1), abs=0.04)
        times = np.bincount(rows, minlength=2000)
        assert times.var() == pytest.approx(1.0, abs=0.15)  # Poisson
    first = [rows.tobytes() for rows in seen["rows"]]
    assert len(set(first)) == 3
    ensemble.fit(X, y, bootstrap=True, seed=1, verbose=0)
    assert [rows.tobytes() for rows in seen["rows"]] == first
    ensemble.fit(X, y, bootstrap=True, seed=2, verbose=0)
    assert [rows.tobytes() for rows in seen["rows"]] != first
    unseen = sum(np.isin(np.arange(2000), held) for held in seen["held"]) > 0
    assert (np.isfinite(ensemble.oof_predictions).all(axis=1) == unseen).all()


def test_of_two_rows_a_bootstrap_sample_holds_one_out():
    X, y = data("mse", 2)
    ensemble = cd.Ensemble(members("mse", 2))
    histories = ensemble.fit(X, y, bootstrap=True, seed=1, epochs=1, verbose=0)
    assert all("val_loss" in history.metrics for history in histories)


def test_patience_stops_members_by_the_rows_that_they_hold_out():
    X, y = data("mse")
    ensemble = cd.Ensemble(members("mse", 2, optimizer=cd.Adam(0.05)))
    histories = ensemble.fit(X, y, folds=4, seed=0, epochs=200, patience=3, verbose=0)
    assert all(4 <= len(history) < 200 for history in histories)
    oof, p = ensemble.oof_predictions, ensemble.predict_all(X)
    for member, history in enumerate(histories):
        held = (p[member] == oof).all(axis=1)
        assert np.mean((oof[held] - y[held]) ** 2) == pytest.approx(min(history.metrics["val_loss"]), rel=1e-5)


def test_without_restore_best_members_end_as_after_their_last_epoch():
    X, y = data("mse")
    ensemble = cd.Ensemble(members("mse", 2, optimizer=cd.Adam(0.05)))
    histories = ensemble.fit(X, y, folds=4, seed=0, epochs=30, restore_best=False, verbose=0)
    oof, p = ensemble.oof_predictions, ensemble.predict_all(X)
    for member, history in enumerate(histories):
        held = (p[member] == oof).all(axis=1)
        assert np.mean((oof[held] - y[held]) ** 2) == pytest.approx(history.metrics["val_loss"][-1], rel=1e-5)
        assert history.metrics["val_loss"][-1] > min(history.metrics["val_loss"])


def test_callbacks_hear_of_every_member():
    X, y = data("mse")
    heard = []
    callback = cd.callbacks.LambdaCallback(on_epoch_end=lambda network, epoch, metrics: heard.append((network, epoch)))
    ensemble = cd.Ensemble(members("mse", 2))
    ensemble.fit(X, y, epochs=2, callbacks=[callback], verbose=0)
    assert {(id(network), epoch) for network, epoch in heard} == {
        (id(net), epoch) for net in ensemble for epoch in (1, 2)
    }


def test_a_member_that_diverges_leaves_the_others_alone():
    X, y = data("mse")
    networks = members("mse", 2)
    networks[1].optimizer = cd.SGD(1e38)
    ensemble = cd.Ensemble(networks)
    histories = ensemble.fit(X, y, folds=4, seed=0, epochs=3, batch_size=8, verbose=0)
    assert [history.diverged is not None for history in histories] == [False, True, False, False]
    assert [len(history) for history in histories] == [3, 0, 3, 3]
    assert np.isfinite(ensemble.oof_predictions).all()


def test_a_validation_split_is_held_out_by_all():
    X, y = data("mse")
    ensemble = cd.Ensemble(members("mse", 2))
    ensemble.fit(X, y, validation_split=0.2, patience=2, epochs=3, verbose=0)
    assert np.isnan(ensemble.oof_predictions[:78]).all()
    np.testing.assert_array_equal(ensemble.oof_predictions[78:], ensemble.predict(X)[78:])


def test_weights_come_along_with_their_rows():
    X, y = data("mse")
    weight = np.where(y[:, 0] > 0, 1.0, 0.0)
    y = y.copy()
    y[weight == 0] = 1e6  # of no weight: nobody learns it
    ensemble = cd.Ensemble(members("mse", 2))
    histories = ensemble.fit(X, y, folds=4, seed=0, sample_weight=weight, epochs=2, verbose=0)
    assert all(max(history.metrics["val_loss"]) < 100 for history in histories)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be .*at least 2|folds"),
        ({"folds": 98}, "folds"),
        ({"folds": 2, "bootstrap": True}, "one of them"),
        ({"folds": 2, "validation_split": 0.5}, "one of them"),
        ({"patience": 3}, "patience needs rows that are held out"),
        ({"patience": 0, "folds": 2}, "patience"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed must not be negative"),
        ({"sample_weight": [1.0]}, "sample_weight must have shape"),
        ({"validation_split": 1.0}, "validation_split"),
        ({"bootstrap": 1}, "bootstrap must be True or False"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(options, message):
    X, y = data("mse")
    ensemble = cd.Ensemble(members("mse", 2))
    with pytest.raises((ValueError, TypeError), match=message):
        ensemble.fit(X, y, verbose=0, **options)
    assert all(core_of(network).epochs == 0 for network in ensemble)


# Which networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"n_threads": 0}, {"executor": 5}, {"verbose": "yes"}, {"restore_best": "no"}])
def test_arguments_of_fit_many_that_are_refused_leave_the_out_of_fold_predictions(options):
    X, y = data("cross_entropy")
    ensemble = cd.Ensemble(members("cross_entropy", 5))
    ensemble.fit(X, y, folds=4, seed=0, epochs=1, verbose=0)
    before = ensemble.oof_predictions.copy()
    with pytest.raises((ValueError, TypeError)):
        ensemble.fit(X, y, folds=4, epochs=1, **options)
    np.testing.assert_array_equal(ensemble.oof_predictions, before)


def test_a_training_that_breaks_off_leaves_no_out_of_fold_predictions_of_other_members():
    class Breaks(cd.callbacks.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            raise OSError

    X, y = data("cross_entropy")
    ensemble = cd.Ensemble(members("cross_entropy", 5))
    ensemble.fit(X, y, folds=4, seed=0, epochs=1, verbose=0)
    with pytest.raises(OSError):
        ensemble.fit(X, y, folds=4, epochs=1, verbose=0, callbacks=lambda network: [Breaks()])
    assert ensemble.oof_predictions is None


def test_members_that_nothing_tells_apart_are_warned_of():
    X, y = data("cross_entropy")
    layers = [cd.Dense(6, activation="relu"), cd.Dropout(0.3), cd.Dense(5)]
    ensemble = cd.Ensemble([cd.Network(layers, seed=seed) for seed in (1, 2, 1)])
    with pytest.warns(UserWarning, match=r"networks\[2\] is like networks\[0\], with the same seed"):
        ensemble.fit(X, y, epochs=1, verbose=0)
    found = ensemble.predict_all(X)
    np.testing.assert_array_equal(found[0], found[2])
    again = cd.Ensemble([cd.Network(layers, seed=1) for _ in range(3)])
    again.fit(X, y, bootstrap=True, seed=0, epochs=1, verbose=0)  # no warning: that would be an error
    assert not np.array_equal(again.predict_all(X)[0], again.predict_all(X)[2])


def test_what_is_no_list_of_networks_of_one_kind_is_refused():
    net, other = members("mse", 2, count=2)
    with pytest.raises(TypeError, match=r"networks must be a list of cydrop\.Network, got <cydrop\.Network"):
        cd.Ensemble(net)
    with pytest.raises(TypeError, match="networks must be a list"):
        cd.Ensemble(3)
    with pytest.raises(ValueError, match="networks is empty"):
        cd.Ensemble([])
    with pytest.raises(TypeError, match=r"networks\[1\] must be a cydrop.Network, got 'mse' \(str\)"):
        cd.Ensemble([net, "mse"])
    with pytest.raises(ValueError, match=r"networks\[2\] is networks\[0\].*a seed of its own"):
        cd.Ensemble([net, other, net])
    with pytest.raises(ValueError, match=r"networks\[1\] has the loss 'cross_entropy', networks\[0\] 'mse'"):
        cd.Ensemble([net, *members("cross_entropy", 2, count=1)])
    with pytest.raises(ValueError, match=r"networks\[1\] was built for 4 features, networks\[0\] for 5"):
        cd.Ensemble([net.build(5), other.build(4)])
    three = members("mse", 3, count=1)[0]
    with pytest.raises(
        ValueError, match=r"networks\[1\] has 3 outputs, networks\[0\] 2: members must predict the same"
    ):
        cd.Ensemble([net, three]).predict(np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"networks\[1\] has 3 outputs"):
        cd.Ensemble([net, three.build(5)])
    assert len(cd.Ensemble(iter([net]))) == 1


def test_a_member_that_gets_another_loss_is_noticed():
    ensemble = cd.Ensemble(members("mse", 2))
    ensemble.networks[2].loss = "gaussian_nll"
    for call in (ensemble.predict, ensemble.predict_all, ensemble.predict_mc):
        with pytest.raises(ValueError, match=r"networks\[2\] has the loss 'gaussian_nll', networks\[0\] 'mse'"):
            call(np.ones((2, 5)))


def test_the_members_are_the_networks_themselves_in_their_order():
    networks = members("mse", 2)
    ensemble = cd.Ensemble(networks)
    assert ensemble.networks == tuple(networks)
    assert list(ensemble) == networks
    assert len(ensemble) == 4
    assert ensemble.loss == networks[0].loss
    assert repr(ensemble) == "<cydrop.Ensemble of 4 networks, loss 'mse'>"
    with pytest.raises(ValueError, match="n_threads"):
        ensemble.n_threads = 0


@pytest.mark.parametrize("method", ["predict", "predict_all", "predict_mc"])
def test_bad_rows_are_refused(method):
    ensemble, X, _ = trained("mse")
    with pytest.raises(ValueError, match="X"):
        getattr(ensemble, method)(X[:, :3])
    with pytest.raises(ValueError, match="X"):
        getattr(ensemble, method)(np.full((2, 5), np.nan))
    with pytest.raises(ValueError, match="samples"):
        ensemble.predict_mc(X, 0)


# Copies and files ---------------------------------------------------------------------------------------------


def goes_on_as(ensemble, other, X, y):
    assert isinstance(other, cd.Ensemble)
    assert other.predict(X).tobytes() == ensemble.predict(X).tobytes()
    for one in (ensemble, other):
        one.fit(X, y, epochs=2, batch_size=32, verbose=0)
    assert other.predict(X).tobytes() == ensemble.predict(X).tobytes()
    for one, two in zip(ensemble, other, strict=True):
        np.testing.assert_equal(recorded(one), recorded(two))


def test_copies_and_pickles_go_on_bit_for_bit(kind):
    ensemble, X, y = trained(kind)
    for twin in (copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble))):
        goes_on_as(copy.deepcopy(ensemble), twin, X, y)


def test_a_file_gives_the_ensemble_back_and_it_goes_on_bit_for_bit(kind, tmp_path):
    ensemble, X, y = trained(kind)
    ensemble.save(tmp_path / "e")
    goes_on_as(ensemble, cd.load(tmp_path / "e", n_threads=2), X, y)


def test_networks_of_all_kinds_stand_in_one_file(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 6)), rng.integers(0, 3, 40)
    rich = [cd.Dropout(cd.schedules.Cosine(0.3)), cd.Dense(9, activation="elu"), cd.BatchNorm(), cd.Dense(3)]
    networks = [
        cd.Network(rich, loss=cd.losses.CrossEntropy(0.1), optimizer=cd.AdamW(1e-3), seed=1),
        cd.Network([cd.Dense(3)], optimizer="sgd", seed=2),
        cd.Network([cd.Residual([cd.Dense(6)]), cd.Dense(3)], optimizer=cd.SGD(0.1, momentum=0.9), seed=3),
    ]
    for network in networks[::2]:
        network.fit(X, y, epochs=3, verbose=0)
    networks[0].history = cd.History({"loss": [float("nan"), 0.5], "a.b": []})
    ensemble = cd.Ensemble(networks)
    ensemble.save(tmp_path / "e")
    again = cd.load(tmp_path / "e")
    assert core_of(again.networks[1]).plan is None
    for one, other in zip(ensemble, again, strict=True):
        assert [repr(layer) for layer in one.layers] == [repr(layer) for layer in other.layers]
        assert one.loss == other.loss
        assert repr(one.optimizer) == repr(other.optimizer)
    np.testing.assert_equal(again.networks[0].history.metrics, networks[0].history.metrics)
    goes_on_as(ensemble, again, X, y)


def test_any_program_can_read_the_members_weights(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    ensemble, *_ = trained("mse")
    ensemble.save(tmp_path / "e")
    with safetensors.safe_open(tmp_path / "e", "numpy") as file:
        for number, network in enumerate(ensemble):
            for name, array in network.parameters().items():
                np.testing.assert_array_equal(file.get_tensor(f"{number}.{name}"), array)
            np.testing.assert_array_equal(file.get_tensor(f"{number}.history.loss"), network.history.metrics["loss"])


def test_a_network_is_read_as_a_network_and_its_module_refuses_an_ensemble(tmp_path):
    ensemble, *_ = trained("mse")
    ensemble.networks[0].save(tmp_path / "net")
    assert isinstance(cd.load(tmp_path / "net"), cd.Network)
    ensemble.save(tmp_path / "e")
    from cydrop import network

    with pytest.raises(ValueError, match=r"holds an ensemble of 4 networks, which cydrop\.load reads"):
        network.load(tmp_path / "e")


def test_what_a_file_cannot_hold_names_the_member(tmp_path):
    class Mine(cd.Adam):
        pass

    def ensemble():
        return trained("mse")[0]

    path = tmp_path / "e"
    path.write_bytes(b"old")
    good, own, bad, old = ensemble(), ensemble(), ensemble(), ensemble()
    own.networks[2].optimizer = Mine()
    with pytest.raises(
        ValueError, match=r"the ensemble cannot be saved: networks\[2\]: optimizer is of the class .*Mine"
    ):
        own.save(path)
    bad.networks[1].parameters()["0.weight"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"cannot be saved: tensor '1\.0\.weight' has values that are NaN"):
        bad.save(path)
    from cydrop import saving

    for network in old:
        network.history = cd.History({"loss": [0.1] * (saving.LONGEST_HISTORY // 4 + 1)})
    with pytest.raises(ValueError, match="the history has 1,500,004 values"):
        old.save(path)
    many = cd.Ensemble([cd.Network([cd.Dense(1)], loss="mse", seed=0).build(1) for _ in range(3000)])
    with pytest.raises(ValueError, match=r"3000 networks of 3000 layers takes .* save its networks one by one"):
        many.save(path)
    assert path.read_bytes() == b"old"
    good.save(path)
    assert len(cd.load(path)) == 4


def test_members_in_training_are_not_saved(tmp_path):
    ensemble, X, y = trained("mse")
    errors = []

    def save(network, epoch, metrics):
        from threading import Thread

        def run():
            try:
                ensemble.save(tmp_path / "e")
            except RuntimeError as error:
                errors.append(str(error))

        thread = Thread(target=run)
        thread.start()
        thread.join()

    callback = cd.callbacks.LambdaCallback(on_epoch_end=save)
    ensemble.networks[3].fit(X, y, epochs=1, callbacks=[callback], verbose=0)
    assert len(errors) == 1
    assert "another thread is training this network" in errors[0]
    assert not (tmp_path / "e").exists()


# ONNX ---------------------------------------------------------------------------------------------------------


def test_the_model_gives_the_ensembles_prediction(kind, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx_session import session

    ensemble, X, _ = trained(kind)
    cd.onnx.export(ensemble, tmp_path / "e.onnx")
    run = session(tmp_path / "e.onnx")
    (output,) = run.get_outputs()
    assert output.name == ("probabilities" if "entropy" in kind else "values")
    assert output.shape == ["n", KINDS[kind][0]]
    np.testing.assert_allclose(run.run(None, {"X": X})[0], ensemble.predict(X), rtol=1e-4, atol=1e-6)


def test_in_a_model_with_dropout_each_member_draws(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx_session import session

    ensemble, X, _ = trained("mse")
    run = session(cd.onnx.to_model(ensemble, mc=True))
    np.testing.assert_allclose(run.run(None, {"X": X})[0], ensemble.predict(X), rtol=1e-4, atol=1e-6)
    samples = np.array([run.run(None, {"X": X, "training_mode": np.array(True)})[0] for _ in range(400)])
    assert (samples.std(axis=0) > 0).all()
    expected = ensemble.predict_mc(X, 2000, seed=0).mean
    assert (np.abs(samples.mean(axis=0) - expected) < 6 * samples.std(axis=0) / 20 + 1e-3).mean() > 0.99


def test_an_ensemble_that_is_not_built_has_no_model():
    pytest.importorskip("onnx")
    with pytest.raises(RuntimeError, match="built network"):
        cd.onnx.to_model(cd.Ensemble(members("mse", 2)))

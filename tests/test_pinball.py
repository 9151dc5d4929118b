"""The pinball loss from the twin to the network: quantiles that are learned, do not cross and are saved."""

import math

import numpy as np
import pytest
from oracle import assert_same_training
from plain_network import PlainNetwork

import cydrop as cd
from cydrop import functional, reference

Q = (0.1, 0.5, 0.75)


def example(rows, targets, seed=0, quantiles=Q):
    rng = np.random.default_rng([seed, rows, targets])
    z = (2 * rng.normal(size=(rows, len(quantiles) * targets))).astype(np.float32)
    return z, rng.normal(size=(rows, targets)).astype(np.float32)


def network(targets=2, quantiles=Q, **options):
    layers = [cd.Dense(20), cd.ReLU(), cd.Dropout(0.3), cd.Dense(len(quantiles) * targets)]
    return cd.Network(layers, loss=cd.losses.Pinball(quantiles), optimizer=cd.SGD(0.1), seed=2, **options)


# The loss -----------------------------------------------------------------------------------------------------


def test_the_twin_is_the_mean_of_the_formula():
    z, y = example(20, 3)
    terms = []
    for row in range(20):
        for place, q in enumerate(Q):
            for target in range(3):
                e = float(y[row, target]) - float(z[row, 3 * place + target])
                terms.append(q * e if e > 0 else (q - 1) * e)
    assert reference.pinball(z.astype(float), y, quantiles=Q) == pytest.approx(math.fsum(terms) / 180, rel=1e-12)


@pytest.mark.parametrize("weights", ["", "rows", "targets"])
def test_the_twin_s_gradient_is_the_derivative_of_the_twin(weights):
    z, y = example(4, 2)
    rng = np.random.default_rng(0)
    weight = {"": None, "rows": rng.random(4), "targets": rng.random((4, 2))}[weights]
    options = {"quantiles": Q, "sample_weight": weight}
    z = z.astype(float)
    _, grad = reference.pinball(z, y, return_grad=True, **options)
    for place in np.ndindex(z.shape):
        moved = [z.copy(), z.copy()]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        up, down = (reference.pinball(one, y, **options) for one in moved)
        assert grad[place] == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("weights", ["", "rows", "targets"])
@pytest.mark.parametrize(("rows", "targets", "levels"), [(1, 1, 1), (5, 3, 2), (40, 17, 3), (3000, 5, 9), (7, 1, 99)])
def test_the_kernel_agrees_with_its_twin(rows, targets, levels, weights):
    quantiles = np.linspace(0, 1, levels + 2)[1:-1]
    z, y = example(rows, targets, quantiles=quantiles)
    rng = np.random.default_rng(0)
    weight = {"": None, "rows": rng.random(rows), "targets": rng.integers(0, 3, (rows, targets))}[weights]
    options = {"quantiles": quantiles, "sample_weight": weight}
    loss, grad = functional.pinball(z, y, return_grad=True, **options)
    expected, expected_grad = reference.pinball(z.astype(float), y.astype(float), return_grad=True, **options)
    assert loss == pytest.approx(expected, rel=2e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-5, atol=1e-12)
    again, again_grad = functional.pinball(z, y, return_grad=True, n_threads=3, **options)
    assert (again, again_grad.tobytes()) == (loss, grad.tobytes())
    assert functional.pinball(z, y, **options) == loss


def test_a_prediction_that_is_right_has_no_gradient():
    loss, grad = functional.pinball([[1.0, 1.0, 1.0]], [1.0], quantiles=Q, return_grad=True)
    assert loss == 0
    assert not grad.any()


def test_the_median_alone_has_half_the_absolute_error():
    z, y = example(30, 4, quantiles=(0.5,))
    assert functional.pinball(z, y, quantiles=(0.5,)) == pytest.approx(functional.mae(z, y) / 2, rel=1e-6)


def test_it_is_the_metric_of_that_name():
    z, y = example(30, 1)
    assert functional.pinball(z, y, quantiles=Q) == pytest.approx(cd.metrics.pinball_loss(y, z, Q), rel=1e-6)


def test_nan_in_any_place_is_shown():
    for place in range(6):
        z, y = example(4, 2)
        z[2, place] = math.nan
        loss, grad = functional.pinball(z, y, quantiles=Q, return_grad=True)
        assert math.isnan(loss)
        assert np.isnan(grad[2, place])
        assert np.isfinite(grad[[0, 1, 3]]).all()


def test_a_target_of_weight_0_plays_no_part_whatever_it_is():
    z, y = example(4, 2)
    weight = np.ones((4, 2))
    weight[1, 1] = 0
    loss, grad = functional.pinball(z, y, quantiles=Q, sample_weight=weight, return_grad=True)
    y[1, 1] = -3e38
    again, again_grad = functional.pinball(z, y, quantiles=Q, sample_weight=weight, return_grad=True)
    assert (again, again_grad.tobytes()) == (loss, grad.tobytes())
    assert not grad[1, 1::2].any()
    z[1, 3] = math.nan  # of the network, which must not be hidden
    loss, grad = functional.pinball(z, y, quantiles=Q, sample_weight=weight, return_grad=True)
    assert math.isnan(loss)
    assert np.isnan(grad[1, 3])


# Networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [0, 8])
@pytest.mark.parametrize("weights", ["", "rows", "targets"])
def test_it_trains_as_in_the_plain_network(rng, weights, shards):
    X, y = rng.standard_normal((33, 7)), rng.standard_normal((33, 2))
    weight = {"": None, "rows": rng.random(33), "targets": rng.random((33, 2))}[weights]
    assert_same_training(network(), X, y, sample_weight=weight, shards=shards)


def members(seed=1):
    inside = [cd.Dense(12, activation="relu"), cd.Dropout(0.3), cd.Dense(6)]
    layers = [cd.Dense(8), cd.Members(inside, 5, sharing="tabm")]
    return cd.Network(layers, loss=cd.losses.Pinball(Q), optimizer=cd.SGD(0.1), seed=seed)


def test_members_train_and_predict_the_mean_of_their_quantiles(rng):
    X, y = rng.standard_normal((19, 7)).astype(np.float32), rng.standard_normal((19, 2))
    net = members()
    assert_same_training(net, X, y, rtol=1e-4)
    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), rtol=1e-4, atol=1e-5)
    each = net.predict_members(X)
    assert (np.diff(each.reshape(5, 19, 3, 2), axis=2) >= 0).all()
    np.testing.assert_allclose(net.predict(X), each.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_predictions_are_the_outputs_in_ascending_order(rng):
    net = network().build(4)
    X = rng.standard_normal((300, 4)).astype(np.float32)
    raw = net.forward(X).reshape(300, 3, 2)
    assert (np.diff(raw, axis=1) < 0).any()  # an untrained network crosses
    np.testing.assert_array_equal(net.predict(X), np.sort(raw, axis=1).reshape(300, 6))


def test_many_quantiles_in_any_order_are_sorted(rng):
    quantiles = np.linspace(0.005, 0.995, 99)
    net = cd.Network([cd.Dense(99)], loss=cd.losses.Pinball(quantiles), seed=0).build(3)
    X = rng.standard_normal((50, 3)).astype(np.float32)
    np.testing.assert_array_equal(net.predict(X), np.sort(net.forward(X), axis=1))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_evaluate_judges_the_central_quantile_of_what_it_predicts(rng, n_threads):
    net = network(n_threads=n_threads).build(4)
    X, y = rng.standard_normal((300, 4)).astype(np.float32), rng.standard_normal((300, 2))
    found, central = net.evaluate(X, y), net.predict(X)[:, 2:4]
    assert found["loss"] == pytest.approx(functional.pinball(net.predict(X), y, quantiles=Q), rel=1e-6)
    assert found["mae"] == pytest.approx(np.abs(central - y).mean(), rel=1e-6)
    assert found["rmse"] == pytest.approx(np.sqrt(((central - y) ** 2).mean()), rel=1e-6)
    history = net.fit(X, y, epochs=1, validation_data=(X, y), verbose=0)
    assert history.metrics["val_mae"][-1] == net.evaluate(X, y)["mae"]


def test_what_it_learns_are_the_quantiles():
    rng = np.random.default_rng(5)
    X = rng.uniform(-1, 1, (8000, 1)).astype(np.float32)
    spread = 0.2 + np.abs(X[:, 0])
    y = X[:, 0] + spread * rng.standard_normal(8000)
    quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)
    layers = [cd.Dense(32, activation="silu"), cd.Dense(32, activation="silu"), cd.Dense(5)]
    optimizer = cd.Adam(cd.schedules.Cosine(3e-3))
    net = cd.Network(layers, loss=cd.losses.Pinball(quantiles), optimizer=optimizer, seed=0)
    net.fit(X[:4000], y[:4000], epochs=30, batch_size=64, verbose=0)
    p = net.predict(X[4000:])
    below = (y[4000:, None] <= p).mean(axis=0)
    np.testing.assert_allclose(below, quantiles, atol=0.03)
    assert np.corrcoef(p[:, 4] - p[:, 0], spread[4000:])[0, 1] > 0.9


def test_monte_carlo_samples_are_quantiles(rng):
    net = network().build(4)
    X, y = rng.standard_normal((30, 4)).astype(np.float32), rng.standard_normal((30, 2))
    mc = net.predict_mc(X, samples=20, seed=0, return_samples=True)
    assert (np.diff(mc.samples.reshape(20, 30, 3, 2), axis=2) >= 0).all()
    assert mc.mean.shape == (30, 6)
    assert mc.aleatoric is None
    found = net.evaluate_mc(X, y, samples=5, seed=0)
    assert set(found) == {"rmse", "mae"}
    with pytest.raises(ValueError, match="noise_precision is for regression without predicted variances or quantiles"):
        net.evaluate_mc(X, y, samples=5, noise_precision=1.0)


def test_it_is_saved_with_its_quantiles(rng, tmp_path):
    net = network().build(4)
    net.save(tmp_path / "net.safetensors")
    found = cd.load(tmp_path / "net.safetensors")
    assert found.loss == cd.losses.Pinball(Q)
    X = rng.standard_normal((9, 4)).astype(np.float32)
    np.testing.assert_array_equal(found.predict(X), net.predict(X))


@pytest.mark.extras
@pytest.mark.parametrize("make", [network, members])
def test_an_onnx_model_predicts_the_same(rng, make):
    runtime = pytest.importorskip("onnxruntime")
    net = make().build(4)
    X = rng.standard_normal((30, 4)).astype(np.float32)
    model = runtime.InferenceSession(cd.onnx.to_model(net).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = model.run(None, {"X": X})
    np.testing.assert_allclose(found, net.predict(X), rtol=1e-4, atol=1e-5)
    assert (np.diff(found.reshape(30, 3, 2), axis=1) >= 0).all()


# What a tired person gives ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quantiles", [(), (0.9, 0.1), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0), (5, 95), (math.nan,), (0.5, 0.5 + 1e-12), 90]
)
def test_quantiles_that_are_none_are_refused(quantiles):
    with pytest.raises(ValueError, match="quantiles"):
        cd.losses.Pinball(quantiles)


@pytest.mark.parametrize("quantiles", ["median", (None,), (0.1, "0.9")])
def test_what_is_no_number_is_refused(quantiles):
    with pytest.raises((TypeError, ValueError), match="quantiles"):
        cd.losses.Pinball(quantiles)


def test_one_quantile_needs_no_list():
    assert cd.losses.Pinball(0.5) == cd.losses.Pinball([0.5]) == cd.losses.Pinball(np.array([0.5]))
    assert repr(cd.losses.Pinball(0.5)) == "Pinball(quantiles=(0.5,))"


def test_units_that_are_no_multiple_are_refused_by_name():
    with pytest.raises(ValueError, match="pinball with 3 quantiles needs a last layer with that many units per target"):
        cd.Network([cd.Dense(4)], loss="pinball").build(2)
    with pytest.raises(ValueError, match="pinball with 3"):
        functional.pinball(np.zeros((2, 4)), np.zeros(2))

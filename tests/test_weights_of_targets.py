"""A weight for each target, sample_weight of the shape of y: the way to train on targets with gaps."""

import math

import numpy as np
import pytest

import cydrop as cd
from cydrop import functional, reference

NAMES = ["binary_cross_entropy", "mse", "mae", "huber", "gaussian_nll"]


def example(name, rows, width, seed=0):
    rng = np.random.default_rng([seed, rows, width])
    z = (2 * rng.normal(size=(rows, 2 * width if name == "gaussian_nll" else width))).astype(np.float32)
    y = rng.integers(0, 2, (rows, width)) if name == "binary_cross_entropy" else rng.normal(size=(rows, width))
    return z, y.astype(np.float32), rng.integers(0, 4, (rows, width)) / 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 3), (40, 17), (300, 70)])
def test_the_kernel_agrees_with_its_twin(name, rows, width):
    z, y, weight = example(name, rows, width)
    f, twin = getattr(functional, name), getattr(reference, name)
    loss, grad = f(z, y, sample_weight=weight, return_grad=True)
    expected, expected_grad = twin(z.astype(float), y.astype(float), sample_weight=weight, return_grad=True)
    assert loss == pytest.approx(expected, rel=2e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=2e-5, atol=1e-6 / z.size)  # where terms cancel
    assert f(z, y, sample_weight=weight) == loss
    again = f(z, y, sample_weight=weight, return_grad=True, n_threads=3)
    assert again[0] == loss
    assert again[1].tobytes() == grad.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_by_hand(name):
    """The sum of weight times loss of each target alone, over all n k of them."""
    z, y, weight = example(name, 4, 3)
    f, columns = getattr(functional, name), [[j, j + 3] if name == "gaussian_nll" else [j] for j in range(3)]
    alone = [[f(z[r : r + 1, columns[j]], y[r : r + 1, [j]]) for j in range(3)] for r in range(4)]
    assert f(z, y, sample_weight=weight) == pytest.approx((weight * alone).sum() / 12, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_s_weight_is_that_of_each_of_its_targets(name):
    z, y, _ = example(name, 20, 5)
    rows = np.linspace(0.5, 3, 20)
    f = getattr(functional, name)
    loss, grad = f(z, y, sample_weight=rows, return_grad=True)
    again, again_grad = f(z, y, sample_weight=np.repeat(rows[:, None], 5, axis=1), return_grad=True)
    assert again == pytest.approx(loss, rel=1e-12)
    assert again_grad.tobytes() == grad.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_loss(name):
    z, y, weight = example(name, 3, 2)
    grad = getattr(functional, name)(z, y, sample_weight=weight, return_grad=True)[1]
    for place in np.ndindex(*z.shape):
        moved = [z.astype(float), z.astype(float)]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        up, down = (getattr(reference, name)(a, y, sample_weight=weight) for a in moved)
        assert grad[place] == pytest.approx((up - down) / 2e-6, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_of_weight_0_plays_no_part_whatever_it_is(name):
    z, y, weight = example(name, 6, 4)
    weight[2, 1] = weight[5, 3] = 0
    f = getattr(functional, name)
    loss, grad = f(z, y, sample_weight=weight, return_grad=True)
    for hidden in (0.0, 1.0) if name == "binary_cross_entropy" else (0.0, -7.0, 3e38, -3e38):
        y[2, 1] = y[5, 3] = hidden
        again, again_grad = f(z, y, sample_weight=weight, return_grad=True)
        assert again == loss
        assert again_grad.tobytes() == grad.tobytes()
    assert grad[2, 1] == 0
    y[2, 1] = math.nan
    with pytest.raises(ValueError, match="y has 1 values that are NaN"):
        f(z, y, sample_weight=weight)


@pytest.mark.parametrize("name", NAMES)
def test_nan_of_an_output_is_shown_though_its_target_weighs_nothing(name):
    z, y, weight = example(name, 3, 2)
    weight[1, 0] = 0
    z[1, 0] = math.nan
    loss, grad = getattr(functional, name)(z, y, sample_weight=weight, return_grad=True)
    assert math.isnan(loss)
    assert math.isnan(grad[1, 0])
    assert np.isfinite(grad[[0, 2]]).all()


@pytest.mark.parametrize("weight", [np.ones((4, 1)), np.ones((3, 2)), np.ones((2, 4)), np.ones((4, 2, 1)), np.ones(8)])
def test_other_shapes_are_refused(weight):
    with pytest.raises(ValueError, match=r"must have shape \(4,\), or \(4, 2\) for a weight of each target"):
        functional.mse(np.ones((4, 2)), np.ones((4, 2)), sample_weight=weight)


def test_negative_weights_are_refused_with_their_place():
    weight = np.ones((4, 2))
    weight[2, 1] = -1
    with pytest.raises(ValueError, match=r"sample_weight must not be negative, got -1\.0 at row 2, column 1"):
        functional.mse(np.ones((4, 2)), np.ones((4, 2)), sample_weight=weight)


def test_cross_entropy_has_a_target_a_row_and_so_a_weight_a_row():
    for y in ([0, 1, 0, 1], np.eye(2)[[0, 1, 0, 1]]):
        with pytest.raises(ValueError, match=r"sample_weight must have shape \(4,\), got \(4, 2\)"):
            functional.cross_entropy(np.ones((4, 2)), y, sample_weight=np.ones((4, 2)))


# In a network -----------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
Y = np.stack([X[:, 0], X[:, 1] - X[:, 2], X[:, 3] ** 2], axis=1)
THERE = (np.random.default_rng(1).random((200, 3)) < 0.6).astype(float)


def network(loss="mse", n_threads=1):
    units = 6 if loss == "gaussian_nll" else 3
    layers = [cd.Dense(16), cd.ReLU(), cd.Dropout(0.1), cd.Dense(units)]
    return cd.Network(layers, loss=loss, seed=0, n_threads=n_threads)


def bits(net):
    return b"".join(value.tobytes() for value in net.parameters().values())


@pytest.mark.parametrize("loss", NAMES)
def test_what_stands_in_the_gaps_changes_nothing(loss):
    y = (Y > 0).astype(float) if loss == "binary_cross_entropy" else Y
    results = []
    for filling, n_threads in ((0.0, 1), (1.0, 1), (1.0, 3)):
        net = network(loss, n_threads)
        filled = np.where(THERE > 0, y, filling)
        history = net.fit(X, filled, epochs=3, batch_size=32, sample_weight=THERE, validation_split=0.25, verbose=0)
        metrics = {name: values for name, values in history.metrics.items() if name != "seconds"}
        results.append((bits(net), metrics, net.evaluate(X, filled, THERE)))
    assert results[0] == results[1] == results[2]


def test_metrics_leave_out_targets_that_weigh_nothing():
    net = network()
    net.fit(X, Y, epochs=5, verbose=0)
    weight = THERE * 2.5  # metrics count targets, they do not weigh them
    metrics = net.evaluate(X, Y, weight)
    error = (net.predict(X).astype(float) - Y.astype(np.float32))[THERE > 0]
    assert metrics["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
    assert metrics["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    assert metrics["loss"] == pytest.approx(2.5 * (error**2).sum() / Y.size, rel=1e-6)

    y = (Y > 0).astype(float)
    net = network("binary_cross_entropy")
    net.fit(X, y, epochs=5, verbose=0)
    right = ((net.predict(X) > 0.5) == (y > 0.5))[THERE > 0]
    assert net.evaluate(X, y, THERE)["accuracy"] == pytest.approx(right.mean(), rel=1e-12)
    nothing = net.evaluate(X, y, np.zeros((200, 3)))
    assert nothing["loss"] == 0
    assert math.isnan(nothing["accuracy"])


def test_rows_keep_their_targets_weights_through_shuffling_splitting_and_batches():
    """As if each target were trained in rows of its own: of linear networks the gradients add up."""
    nets = [cd.Network([cd.Dense(3)], loss="mse", optimizer="sgd", seed=0, n_threads=1) for _ in range(2)]
    nets[0].train_on_batch(X, Y, THERE)
    repeated = np.concatenate([THERE * np.eye(3)[column] for column in range(3)])
    nets[1].train_on_batch(np.tile(X, (3, 1)), np.tile(Y, (3, 1)), 3 * repeated)
    np.testing.assert_allclose(nets[0].parameters()["0.weight"], nets[1].parameters()["0.weight"], atol=1e-6)
    validated = [network(), network()]
    histories = [
        validated[0].fit(X, Y, epochs=2, sample_weight=THERE, validation_split=0.25, batch_size=16, verbose=0),
        validated[1].fit(
            X[:150], Y[:150], epochs=2, sample_weight=THERE[:150], batch_size=16, verbose=0,
            validation_data=(X[150:], Y[150:], THERE[150:]),
        ),
    ]  # fmt: skip
    assert bits(validated[0]) == bits(validated[1])
    assert histories[0].metrics["val_loss"] == histories[1].metrics["val_loss"]

"""Class probabilities as y of cross-entropy, and probabilities as y of binary cross-entropy."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

import cydrop as cd
from cydrop import functional, reference


def example(rows, classes, seed=0, scale=2.0):
    """Raw outputs, and probabilities of which some are 0."""
    rng = np.random.default_rng([seed, rows, classes])
    q = rng.dirichlet(np.full(classes, 0.7), rows) * (rng.random((rows, classes)) < 0.8)
    q[q.sum(axis=1) == 0, 0] = 1
    return (scale * rng.normal(size=(rows, classes))).astype(np.float32), q / q.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (7, 3), (16, 10), (50, 64), (33, 100)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_kernel_agrees_with_its_twin(rows, classes, smoothing, weighted):
    z, q = example(rows, classes)
    weight = np.linspace(0, 2, rows) if weighted else None
    options = {"sample_weight": weight, "label_smoothing": smoothing, "return_grad": True}
    loss, grad = functional.cross_entropy(z, q, **options)
    expected, expected_grad = reference.cross_entropy(z.astype(float), q, **options)
    assert loss == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=2e-6, atol=2.5e-7 / rows)  # of differences p - q
    assert functional.cross_entropy(z, q, **(options | {"return_grad": False})) == pytest.approx(loss, rel=1e-7)


def test_the_loss_by_hand():
    z = np.log([[1.0, 2.0, 5.0], [4.0, 3.0, 1.0]])  # p = (1, 2, 5) / 8 and (4, 3, 1) / 8
    q = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]
    first = -(0.5 * math.log(1 / 8) + 0.25 * math.log(2 / 8) + 0.25 * math.log(5 / 8))
    loss, grad = functional.cross_entropy(z, q, return_grad=True)
    assert loss == pytest.approx((first - math.log(3 / 8)) / 2, rel=1e-6)
    np.testing.assert_allclose(grad, (np.array([[1, 2, 5], [4, 3, 1]]) / 8 - q) / 2, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_hot_rows_are_labels(classes, smoothing):
    """The gradient to the bit, the loss to rounding; as integers, booleans and floats."""
    z, _ = example(37, classes)
    y = np.arange(37) % classes
    loss, grad = functional.cross_entropy(z, y, label_smoothing=smoothing, return_grad=True)
    pair = functional.r_drop(z, z[::-1], y, weight=0.7, label_smoothing=smoothing, return_grad=True)
    for dtype in (int, bool, float, np.float32):
        onehot = np.eye(classes)[y].astype(dtype)
        again, again_grad = functional.cross_entropy(z, onehot, label_smoothing=smoothing, return_grad=True)
        assert again == pytest.approx(loss, rel=1e-6)
        np.testing.assert_allclose(again_grad, grad, rtol=1e-6, atol=1e-8)
        again_pair = functional.r_drop(z, z[::-1], onehot, weight=0.7, label_smoothing=smoothing, return_grad=True)
        assert again_pair[0] == pytest.approx(pair[0], rel=1e-6)
        for found, wanted in zip(again_pair[1:], pair[1:], strict=True):
            assert found.tobytes() == wanted.tobytes()


def differences_of(loss, z):
    """Central differences of a loss of float64 raw outputs."""
    result = np.empty(z.shape)
    for place in np.ndindex(*z.shape):
        up, down = z.astype(float), z.astype(float)
        up[place] += 1e-5
        down[place] -= 1e-5
        result[place] = (loss(up) - loss(down)) / 2e-5
    return result


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_is_that_of_the_loss(smoothing):
    (z, q), (z2, _) = example(4, 5), example(4, 5, seed=1)
    doubles, doubles2 = z.astype(float), z2.astype(float)
    options = {"label_smoothing": smoothing}
    grad = functional.cross_entropy(z, q, return_grad=True, **options)[1]
    np.testing.assert_allclose(grad, differences_of(lambda a: reference.cross_entropy(a, q, **options), z), atol=2e-6)
    options["weight"] = 0.5
    _, first, second = functional.r_drop(z, z2, q, return_grad=True, **options)
    np.testing.assert_allclose(
        first, differences_of(lambda a: reference.r_drop(a, doubles2, q, **options), z), atol=2e-6
    )
    np.testing.assert_allclose(
        second, differences_of(lambda a: reference.r_drop(doubles, a, q, **options), z2), atol=2e-6
    )


@pytest.mark.parametrize("classes", [3, 90])
def test_r_drop_agrees_with_its_twin(classes):
    z, q = example(21, classes)
    z2 = example(21, classes, seed=1)[0]
    options = {"weight": 0.8, "label_smoothing": 0.1, "sample_weight": np.linspace(0, 3, 21), "return_grad": True}
    loss, *grads = functional.r_drop(z, z2, q, **options)
    expected, *expected_grads = reference.r_drop(z.astype(float), z2.astype(float), q, **options)
    assert loss == pytest.approx(expected, rel=2e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-5, atol=1e-7)


def test_rows_are_divided_by_their_sum_where_that_is_1_but_for_rounding():
    z, q = example(20, 4)
    rounded = np.round(q, 4)
    assert (rounded.sum(axis=1) != 1).any()
    exact = rounded / rounded.sum(axis=1, keepdims=True)
    loss, grad = functional.cross_entropy(z, rounded, return_grad=True)
    expected, expected_grad = functional.cross_entropy(z, exact, return_grad=True)
    assert loss == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-8)
    for off in (0.998, 1.002, 0.0, 2.0):
        with pytest.raises(ValueError, match=r"y must be class probabilities: each row sums to 1"):
            functional.cross_entropy(z, q * off)


def test_classes_of_probability_0_may_be_ruled_out_by_minus_infinity():
    z = np.array([[0.0, -math.inf, 1.0]], dtype=np.float32)
    q = [[0.25, 0.0, 0.75]]
    loss, grad = functional.cross_entropy(z, q, return_grad=True)
    assert loss == pytest.approx(math.log(1 + math.e) - 0.75, rel=1e-6)
    assert grad[0, 1] == 0
    assert functional.cross_entropy(z, [[0.5, 0.5, 0.0]]) == math.inf


def test_nan_is_shown():
    for place in range(3):
        z, q = example(4, 3)
        z[2, place] = math.nan
        q[2] = np.eye(3)[0]
        loss, grad = functional.cross_entropy(z, q, return_grad=True)
        assert math.isnan(loss)
        assert np.isnan(grad[2]).all()
        assert np.isfinite(grad[[0, 1, 3]]).all()


def test_huge_logits_stay_finite():
    for size in (1e4, 1e30):
        z = np.array([[size, -size, 0.0], [0.0, size, size]], dtype=np.float32)
        q = np.array([[0.5, 0.5, 0.0], [0.2, 0.4, 0.4]])
        loss, grad = functional.cross_entropy(z, q, return_grad=True)
        expected, expected_grad = reference.cross_entropy(z.astype(float), q, return_grad=True)
        assert loss == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(grad, expected_grad, atol=1e-6)


def test_binary_targets_may_be_probabilities():
    rng = np.random.default_rng(3)
    z, y = rng.normal(size=(30, 4)).astype(np.float32), rng.random((30, 4))
    loss, grad = functional.binary_cross_entropy(z, y, return_grad=True)
    expected, expected_grad = reference.binary_cross_entropy(z.astype(float), y, return_grad=True)
    assert loss == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-5, atol=1e-9)
    p = 1 / (1 + np.exp(-z.astype(float)))
    assert loss == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), rel=1e-6)


# In a network -----------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)


def network(classes=3, loss="cross_entropy", n_threads=1, dropout=0.2):
    return cd.Network(
        [cd.Dense(24), cd.ReLU(), cd.Dropout(dropout), cd.Dense(classes)], loss=loss, seed=0, n_threads=n_threads
    )


@pytest.mark.parametrize("loss", [cd.losses.CrossEntropy(), cd.losses.CrossEntropy(0.1, r_drop=0.5)])
def test_one_hot_rows_train_the_bits_that_labels_train(loss):
    nets = [network(loss=loss), network(loss=loss)]
    onehot = np.eye(3)[LABELS]
    histories = [
        net.fit(X, y, epochs=3, batch_size=32, validation_split=0.2, sample_weight=np.linspace(0, 2, 300), verbose=0)
        for net, y in zip(nets, (LABELS, onehot), strict=True)
    ]
    for name, value in nets[0].parameters().items():
        assert value.tobytes() == nets[1].parameters()[name].tobytes()
    for name, values in histories[0].metrics.items():
        if name != "seconds":
            np.testing.assert_allclose(histories[1].metrics[name], values, rtol=1e-5)
    for call in ("evaluate", "evaluate_mc"):
        options = {"samples": 10, "seed": 1} if call == "evaluate_mc" else {}
        found, expected = (getattr(nets[0], call)(X, y, **options) for y in (onehot, LABELS))
        assert found == pytest.approx(expected, rel=1e-6)


def probabilities_of(rows):
    q = np.exp(2 * X[:rows, :3])
    return q / q.sum(axis=1, keepdims=True)


def test_a_network_learns_probabilities():
    """It ends near them, which labels drawn by argmax would not let it: the loss comes close to their entropy."""
    q = probabilities_of(300)
    net = network(dropout=0.0)
    net.fit(X, q, epochs=200, batch_size=50, verbose=0)
    entropy = -(q * np.log(q)).sum(axis=1).mean()
    metrics = net.evaluate(X, q)
    assert entropy < metrics["loss"] < entropy + 0.01
    p = net.predict(X)
    assert np.abs(p - q).max() < 0.2
    assert metrics["accuracy"] == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert metrics["loss"] == pytest.approx(-(q * np.log(p)).sum(axis=1).mean(), rel=1e-5)


def test_the_likelihood_of_probabilities_is_sum_q_log_p():
    q = probabilities_of(300)
    net = network()
    net.fit(X, q, epochs=3, verbose=0)
    found = net.evaluate_mc(X, q, samples=20, seed=5)
    mc = net.predict_mc(X, samples=20, seed=5, return_samples=True)
    logs = (q * np.log(mc.samples.astype(float))).sum(axis=2)
    assert found["log_likelihood"] == pytest.approx(np.log(np.exp(logs).mean(axis=0)).mean(), rel=1e-6)
    assert found["accuracy"] == (mc.mean.argmax(axis=1) == q.argmax(axis=1)).mean()


def test_the_likelihood_of_binary_probabilities():
    y = probabilities_of(300)
    net = network(loss="binary_cross_entropy")
    net.fit(X, y, epochs=3, verbose=0)
    found = net.evaluate_mc(X, y, samples=20, seed=5)
    p = net.predict_mc(X, samples=20, seed=5, return_samples=True).samples.astype(float)
    logs = (y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=2)
    assert found["log_likelihood"] == pytest.approx(np.log(np.exp(logs).mean(axis=0)).mean(), rel=1e-6)
    assert net.evaluate(X, y)["accuracy"] == ((net.predict(X) > 0.5) == (y > 0.5)).mean()


@pytest.mark.parametrize("r_drop", [0.0, 1.0])
def test_any_number_of_threads_trains_the_same_bits(r_drop):
    loss, q = cd.losses.CrossEntropy(0.05, r_drop=r_drop), np.repeat(probabilities_of(300), 30, axis=1) / 30
    nets = [network(90, loss, n_threads) for n_threads in (1, 3)]
    for net in nets:
        net.fit(X, q, epochs=2, batch_size=256, verbose=0)  # more than 16,384 outputs: the threads share the loss
    assert pytest.approx(nets[0].evaluate(X, q), rel=0) == nets[1].evaluate(X, q)
    for name, value in nets[0].parameters().items():
        assert value.tobytes() == nets[1].parameters()[name].tobytes()


CHILD = """
import hashlib, numpy as np, cydrop as cd
rng = np.random.default_rng(0)
X, q = rng.normal(size=(100, 5)).astype(np.float32), rng.dirichlet(np.ones(4), 100)
w = rng.integers(0, 3, (100, 4)).astype(float)
digest = hashlib.sha256()
for loss, y, weight in [(cd.losses.CrossEntropy(0.1, r_drop=0.3), q, None), ("cross_entropy", q, w[:, 0]),
                        ("binary_cross_entropy", q, w), ("huber", q, w), ("gaussian_nll", q[:, :2], w[:, :2])]:
    net = cd.Network([cd.Dense(16), cd.Tanh(), cd.Dropout(0.4), cd.Dense(4)], loss=loss, seed=0, n_threads=1)
    net.fit(X, y, epochs=2, batch_size=32, sample_weight=weight, verbose=0)
    for value in net.parameters().values(): digest.update(value.tobytes())
    digest.update(repr(net.evaluate(X, y)).encode())
print(cd.show_config()["fused_multiply_add"], digest.hexdigest())
"""


def test_every_instruction_set_with_a_fused_multiply_add_trains_the_same_bits():
    answers = set()
    for simd in cd.show_config()["simd_available"]:
        environment = os.environ | {"CYDROP_SIMD": simd}
        command = [sys.executable, "-c", CHILD]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        fused, digest = done.stdout.split()
        if fused == "True":
            answers.add(digest)
    assert len(answers) <= 1

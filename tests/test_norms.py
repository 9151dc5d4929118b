"""Layer and batch normalisation: against their twins, running statistics, files, threads."""

import numpy as np
import pytest
from oracle import assert_same_training

import cydrop as cd
from cydrop import functional, reference


@pytest.mark.parametrize("kind", ["layer_norm", "batch_norm"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (6, 15), (7, 16), (9, 17), (33, 64), (40, 65), (70, 200)])
def test_both_passes_are_their_twins(kind, shape, rng):
    x, dy = (3 + 2 * rng.standard_normal(shape) for _ in range(2))
    weight, bias = rng.standard_normal((2, shape[1]))
    y = getattr(functional, kind)(x, weight, bias)
    np.testing.assert_allclose(y, getattr(reference, kind)(x, weight, bias), atol=3e-5)
    fast = getattr(functional, f"{kind}_backward")(dy, x, weight)
    plain = getattr(reference, f"{kind}_backward")(dy, x, weight)
    for one, other in zip(fast, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * (1 + np.abs(other).max()))
    for n_threads in (2, 3):
        assert getattr(functional, kind)(x, weight, bias, n_threads=n_threads).tobytes() == y.tobytes()
        again = getattr(functional, f"{kind}_backward")(dy, x, weight, n_threads=n_threads)
        assert [a.tobytes() for a in again] == [a.tobytes() for a in fast]


def test_the_backward_passes_are_the_derivatives(rng):
    x, dy, weight = rng.standard_normal((6, 5)), rng.standard_normal((6, 5)), rng.standard_normal(5)
    for kind in ("layer_norm", "batch_norm"):
        function = getattr(reference, kind)
        dx = getattr(reference, f"{kind}_backward")(dy, x, weight)[0]
        for place in ((0, 0), (3, 2), (5, 4)):
            step = np.zeros_like(x)
            step[place] = 1e-6
            change = ((function(x + step, weight, weight) - function(x - step, weight, weight)) * dy).sum() / 2e-6
            assert change == pytest.approx(dx[place], abs=1e-6)


def test_rows_of_a_large_mean_keep_their_precision(rng):
    x = 1e4 + rng.standard_normal((20, 300))
    for kind, axis in (("layer_norm", 1), ("batch_norm", 0)):
        y = getattr(functional, kind)(x, np.ones(300), np.zeros(300))
        np.testing.assert_allclose(y.mean(axis=axis), 0, atol=2e-2)
        np.testing.assert_allclose(y.std(axis=axis), 1, atol=2e-2)


STACKS = {
    "layer norm": lambda: [cd.Dense(20), cd.LayerNorm(), cd.ReLU(), cd.Dropout(0.3), cd.Dense(3)],
    "batch norm": lambda: [cd.Dense(20), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.3), cd.Dense(3)],
    "first": lambda: [cd.BatchNorm(momentum=0.3), cd.Dense(20), cd.Tanh(), cd.Dense(3)],
    "last": lambda: [cd.Dense(20), cd.ReLU(), cd.Dense(3), cd.LayerNorm(epsilon=1e-2)],
    "both": lambda: [cd.LayerNorm(), cd.Dropout(0.2), cd.Dense(20), cd.ReLU(), cd.BatchNorm(), cd.Dropout(0.4),
                     cd.Dense(3)],
}  # fmt: skip


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("optimizer", [cd.SGD(0.1, momentum=0.5), cd.SGD(0.1, clip_norm=0.1)], ids=["fused", "clipped"])
@pytest.mark.parametrize("features", [11, 900], ids=["small", "large"])
def test_training_and_prediction_are_the_plain_networks(stack, optimizer, features, rng):
    X, y = rng.standard_normal((19, features)), rng.integers(0, 3, 19)
    net = cd.Network(stack(), optimizer=optimizer, seed=2).build(features)
    assert_same_training(net, X, y, rtol=1e-4)
    from plain_network import PlainNetwork

    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), atol=1e-3)


def test_running_statistics_follow_pytorchs_formulas(rng):
    from plain_network import PlainNetwork

    net = cd.Network([cd.Dense(4), cd.BatchNorm(momentum=0.2), cd.Dense(3)], optimizer=cd.SGD(0.1), seed=0).build(5)
    plain = PlainNetwork(net)
    assert {name: array.tolist() for name, array in net.buffers().items()} == {
        "1.running_mean": [0, 0, 0, 0], "1.running_variance": [1, 1, 1, 1],
    }  # fmt: skip
    X, y = rng.standard_normal((30, 5)), rng.integers(0, 3, 30)
    for rows in (30, 7, 2):
        net.train_on_batch(X[:rows], y[:rows])
        plain.train(X[:rows], y[:rows], net.masks())
    net.partial_fit(X, y, batch_size=29)  # a last batch of one row
    plain.train(X[:29], y[:29], net.masks())
    plain.train(X[29:], y[29:], net.masks())
    for name, array in net.buffers().items():
        np.testing.assert_allclose(array, plain.buffers[name], atol=1e-5)


def test_prediction_does_not_touch_the_statistics(rng):
    net = cd.Network([cd.BatchNorm(), cd.Dropout(0.5), cd.Dense(3)], seed=0)
    X = rng.standard_normal((20, 4))
    net.fit(X, rng.integers(0, 3, 20), epochs=1, verbose=0)
    before = {name: array.copy() for name, array in net.buffers().items()}
    net.predict(X)
    net.predict_mc(X, 3, seed=0)
    net.evaluate(X, np.zeros(20, dtype=int))
    for name, array in net.buffers().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_trained_networks_have_the_same_bits_on_any_number_of_threads(stack, rng):
    X, y = rng.standard_normal((700, 90)), rng.integers(0, 3, 700)
    results = set()
    for n_threads in (1, 2, 3):
        layers = [type(x)(300) if isinstance(x, cd.Dense) and x.units == 20 else x for x in stack()]
        net = cd.Network(layers, seed=1, n_threads=n_threads)
        net.fit(X, y, epochs=2, verbose=0)
        state = [*net.parameters().values(), *net.buffers().values(), net.predict(X)]
        results.add(b"".join(array.tobytes() for array in state))
    assert len(results) == 1


def test_statistics_are_saved_and_training_goes_on_bit_for_bit(rng, tmp_path):
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    net = cd.Network(STACKS["both"](), seed=1)
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    net.save(tmp_path / "net")
    loaded = cd.load(tmp_path / "net")
    for one in (net, loaded):
        one.fit(X, y, epochs=2, batch_size=16, verbose=0)
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()
    assert list(loaded.buffers()) == ["4.running_mean", "4.running_variance"]


def test_divergence_and_early_stopping_put_the_statistics_back_too(rng):
    X, y = rng.standard_normal((40, 4)), rng.standard_normal(40)
    net = cd.Network([cd.BatchNorm(), cd.Dense(1)], loss="mse", optimizer=cd.SGD(0.01), seed=0)
    net.fit(X, y, epochs=1, verbose=0)
    before = net.predict(X).tobytes()
    net.optimizer = cd.SGD(1e30)
    with pytest.raises(cd.DivergedError):
        net.fit(X, y, epochs=3, batch_size=8, verbose=0)
    assert net.predict(X).tobytes() == before
    seen = []
    net.optimizer = cd.SGD(1e-3)
    watch = cd.callbacks.LambdaCallback(lambda network, *_: seen.append(network.predict(X).tobytes()))
    stop = cd.callbacks.EarlyStopping(monitor="loss", patience=2, min_delta=1e9)
    net.fit(X, y, epochs=9, batch_size=8, callbacks=[watch, stop], verbose=0)
    assert net.predict(X).tobytes() == seen[0] != seen[-1]


def test_wrong_arguments_are_refused_by_name():
    for make, message in (
        (lambda: cd.BatchNorm(momentum=2), "momentum"),
        (lambda: cd.LayerNorm(epsilon=0), "epsilon"),
        (lambda: functional.layer_norm(np.ones((2, 3)), np.ones(2), np.ones(3)), "weight and bias must have shape"),
        (lambda: functional.batch_norm_backward(np.ones((2, 2)), np.ones((2, 3)), np.ones(3)), "same shape"),
    ):
        with pytest.raises(ValueError, match=message):
            make()

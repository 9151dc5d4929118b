"""The same bits where another library lets the processor count denormals as 0; its mode is there again afterwards."""

import copy
import platform

import numpy as np
import pytest

import cydrop as cd
from cydrop import functional
from cydrop._core import cpu


def has_denormals(array):
    """Told by their bits: where NumPy computes with NEON, they count as 0."""
    magnitudes = array.view(np.uint32) & 0x7FFFFFFF
    return bool(((magnitudes > 0) & (magnitudes < 0x00800000)).any())


def assert_same_bits(found, wanted):
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


@pytest.fixture
def flushing():
    """Runs a function with the mode that torch.set_flush_denormal sets."""

    if platform.machine().lower() not in ("x86_64", "amd64", "i686", "aarch64", "arm64", "armv7l", "armv8l"):
        pytest.skip("cydrop knows no mode of this processor that loses denormals")

    def run(call):
        assert cpu.flush_denormals(True), "this processor has no such mode"
        try:
            assert cpu.flushes_denormals()
            found = call()
            assert cpu.flushes_denormals()  # it is not ours to change for others
            return found
        finally:
            cpu.flush_denormals(False)

    assert not cpu.flushes_denormals()
    yield run
    assert not cpu.flushes_denormals()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 700])
def test_predictions_with_denormals_keep_their_bits(rng, flushing, threads, rows):
    X = rng.standard_normal((rows, 30)).astype(np.float32) * np.float32(2.0**-120)
    layers = [cd.Dense(400, bias=False), cd.ReLU(), cd.Dense(50, bias=False)]
    net = cd.Network(layers, loss="mse", seed=0, n_threads=threads).build(30)
    for weight in net.parameters().values():
        weight *= np.float32(2.0**-8)
    wanted = net.predict(X)
    assert has_denormals(wanted)
    assert_same_bits(flushing(lambda: net.predict(X)), wanted)
    assert_same_bits(flushing(lambda: net.forward(X)), wanted)
    drawn = cd.Network([*net.layers, cd.Dropout(0.5)], loss="mse", seed=0, n_threads=threads).build(30)
    for name, weight in net.parameters().items():
        drawn.parameters()[name][...] = weight
    samples = drawn.predict_mc(X, 3, seed=0, return_samples=True).samples
    found = flushing(lambda: drawn.predict_mc(X, 3, seed=0, return_samples=True).samples)
    assert_same_bits(found, samples)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("hidden", [[], [cd.Dense(70, bias=False), cd.Dropout(0.3)]], ids=["one layer", "two layers"])
def test_training_with_denormals_keeps_its_bits(rng, flushing, threads, hidden):
    X = rng.standard_normal((700, 30)).astype(np.float32) * np.float32(2.0**-70)
    y = rng.standard_normal((700, 50)).astype(np.float32) * np.float32(2.0**-60)
    last = cd.Dense(50, bias=False)
    net = cd.Network([*hidden, last], loss="mse", optimizer=cd.SGD(1.0), seed=0, n_threads=threads).build(30)
    list(net.parameters().values())[-1][...] = 0.0  # its gradient is that of X y: 2^-130 and less
    twin = copy.deepcopy(net)
    net.train_on_batch(X, y)
    trained = list(net.parameters().values())[-1]
    assert has_denormals(trained)
    flushing(lambda: twin.train_on_batch(X, y))
    assert_same_bits(list(twin.parameters().values())[-1], trained)
    net.fit(X, y, epochs=2, verbose=0)
    flushing(lambda: twin.fit(X, y, epochs=2, verbose=0))
    for found, wanted in zip(twin.parameters().values(), net.parameters().values(), strict=True):
        assert_same_bits(found, wanted)
    assert twin.history.metrics["loss"] == net.history.metrics["loss"]
    assert flushing(lambda: twin.evaluate(X, y)) == net.evaluate(X, y)


small = (np.linspace(-1, 1, 5000) * 2.0**-140 * 100).astype(np.float32).reshape(50, 100)
waves = np.sin(np.arange(5000, dtype=np.float32)).reshape(50, 100)
keep = np.arange(5000).reshape(50, 100) % 3 > 0
CALLS = {
    "dropout": lambda n: functional.dropout(small, 0.3, seed=1, n_threads=n),
    "dropout of a mask": lambda n: functional.dropout(small, 0.3, mask=keep, n_threads=n),
    "dropout_backward": lambda n: functional.dropout_backward(small, keep, 0.3, n_threads=n),
    "gaussian_dropout": lambda n: functional.gaussian_dropout(small, 0.3, seed=1, n_threads=n),
    "gaussian_noise": lambda n: functional.gaussian_noise(small, 2e-38, seed=1, n_threads=n),
    "alpha_dropout": lambda n: functional.alpha_dropout_backward(small, keep, 0.3, n_threads=n),
    "relu": lambda n: functional.relu(small),
    "gelu": lambda n: functional.gelu(small),
    "elu": lambda n: functional.elu(small),
    "dense": lambda n: functional.dense(small, np.eye(100, dtype=np.float32), np.zeros(100, np.float32)),
    "layer_norm": lambda n: functional.layer_norm(waves, small[0], np.zeros(100)),
    "mse": lambda n: functional.mse(small, np.zeros((50, 100)), return_grad=True)[1],
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", CALLS)
def test_functions_of_denormals_keep_their_bits(flushing, name, threads):
    wanted = CALLS[name](threads)
    assert has_denormals(wanted)
    assert_same_bits(flushing(lambda: CALLS[name](threads)), wanted)

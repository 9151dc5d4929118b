"""Gaussian dropout, Gaussian noise and alpha dropout: against their twins, their papers and in networks."""

import numpy as np
import pytest
from oracle import assert_same_training

import cydrop as cd
from cydrop import functional, reference
from cydrop._core import noise as kernel
from cydrop._run.core import core_of


def normals(n, key=(1, 2), n_threads=1, first=0):
    out = np.empty(n, dtype=np.float32)
    kernel.normals(out, *key, n_threads, first)
    return out


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 32, 33, 4095, 4096, 4097, 20_000])
def test_normal_numbers_are_their_twin_at_every_size(n):
    np.testing.assert_allclose(normals(n), reference.normal_noise((1, 2), n), atol=2e-6)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(
    ("first", "end"),
    [(0, 1), (1, 2), (31, 33), (33, 4095), (4095, 4097), (4096, 8192), (5001, 9003), (8191, 20_000), (19_999, 20_000)],
)
def test_a_part_of_the_normal_numbers_is_that_part_of_the_whole(first, end, n_threads):
    part = normals(end - first, n_threads=n_threads, first=first)
    assert part.tobytes() == normals(20_000)[first:end].tobytes()
    np.testing.assert_allclose(part, reference.normal_noise((1, 2), 20_000)[first:end], atol=2e-6)


def test_normal_numbers_are_the_same_bits_on_any_number_of_threads():
    expected = normals(50_001)
    for n_threads in (2, 3, 5):
        assert normals(50_001, n_threads=n_threads).tobytes() == expected.tobytes()


def test_normal_numbers_have_the_moments_and_the_tails_of_the_normal_distribution():
    x = normals(1_000_000).astype(np.float64)
    n = len(x)
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - expected) < 4.5 * np.sqrt(variance / n)
    for bound, share in ((1, 0.3173105), (2, 0.0455003), (3, 0.0026998), (4, 6.334e-5)):
        assert abs((np.abs(x) > bound).mean() - share) < 4.5 * np.sqrt(share / n)
    for lag in (1, 2, 16, 32, 4096):
        assert abs((x[lag:] * x[:-lag]).mean()) < 4.5 / np.sqrt(n)


@pytest.mark.parametrize("function", ["gaussian_dropout", "gaussian_noise"])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7])
def test_noise_on_an_array_is_its_twin(function, rate, rng):
    x = rng.standard_normal((37, 51)).astype(np.float32)
    fast, noise = getattr(functional, function)(x, rate, seed=3, return_noise=True)
    plain = getattr(reference, function)(x, rate, seed=3)
    np.testing.assert_allclose(fast, plain, atol=2e-5)
    np.testing.assert_array_equal(getattr(functional, function)(x, rate, noise=noise, n_threads=2), fast)
    np.testing.assert_array_equal(getattr(functional, function)(x, rate, training=False), x)


def test_gaussian_dropout_has_the_mean_and_the_variance_of_inverted_dropout():
    x = np.full(400_000, 2.0, dtype=np.float32)
    for rate in (0.1, 0.5, 0.8):
        variance = 4 * rate / (1 - rate)
        y = functional.gaussian_dropout(x, rate, seed=1).astype(np.float64)
        assert abs(y.mean() - 2) < 4.5 * np.sqrt(variance / y.size)
        assert y.var() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.9, 1.0])
def test_alpha_dropout_is_its_twin(rate, rng):
    x = rng.standard_normal((37, 51)).astype(np.float32)
    fast, mask = functional.alpha_dropout(x, rate, seed=3, return_mask=True)
    plain, same = reference.alpha_dropout(x, rate, seed=3, return_mask=True)
    np.testing.assert_allclose(fast, plain, atol=2e-6)
    np.testing.assert_array_equal(mask, same)
    np.testing.assert_allclose(
        functional.alpha_dropout_backward(x, mask, rate),
        reference.alpha_dropout_backward(x, mask, rate),
        atol=1e-6,
    )


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_alpha_dropout_keeps_mean_0_and_variance_1(rate):
    x = normals(1_000_000)
    y = functional.alpha_dropout(x, rate, seed=2).astype(np.float64)
    assert abs(y.mean()) < 4.5 / 1000
    assert abs(y.var() - 1) < 4.5 * 2 / 1000


def test_a_deep_selu_network_keeps_mean_and_variance_through_alpha_dropout():
    stack = []
    for _ in range(8):
        stack += [cd.Dense(256, activation="selu", weight_init="lecun_normal"), cd.AlphaDropout(0.1)]
    net = cd.Network(stack, loss="mse", seed=1)
    z = net.forward(normals(256 * 300).reshape(300, 256), training=True)
    assert abs(z.mean()) < 0.15
    assert 0.7 < z.var() < 1.4


LAYERS = [
    cd.GaussianDropout(0.3), cd.GaussianNoise(0.2), cd.AlphaDropout(0.2), cd.GaussianDropout(0.0),
    cd.GaussianNoise(0.0), cd.AlphaDropout(0.0), cd.GaussianDropout(1.0), cd.AlphaDropout(1.0),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("optimizer", [cd.SGD(0.1), cd.SGD(0.1, clip_norm=0.1)], ids=["fused", "clipped"])
def test_training_with_noise_is_the_plain_networks(layer, optimizer, rng):
    again = type(layer)(layer.rate_value)
    net = cd.Network([again, cd.Dense(21), cd.Tanh(), layer, cd.Dropout(0.3), cd.Dense(3)], optimizer=optimizer, seed=2)
    assert_same_training(net, rng.standard_normal((19, 11)), rng.integers(0, 3, 19))


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_prediction_is_the_identity_and_backward_by_hand_is_the_derivative(layer, rng):
    x = rng.standard_normal((5, 7)).astype(np.float32)
    net = cd.Network([layer], loss="mse", seed=4)
    np.testing.assert_array_equal(net.predict(x), x)
    one = net.forward(x, training=True)
    grad = net.backward(np.ones_like(x))
    draws = core_of(net).model.ready().draws
    core_of(net).model.ready().draws = draws - 1  # the same numbers again
    step = np.float32(2.0**-7)
    two = net.forward(x + step, training=True)
    assert not np.isnan(one).any()
    np.testing.assert_allclose((two - one) / step, grad, atol=2e-4)


@pytest.mark.parametrize("layer", [cd.GaussianDropout(0.3), cd.GaussianNoise(0.2), cd.AlphaDropout(0.2)], ids=repr)
def test_noise_has_the_same_bits_on_any_number_of_threads(layer, rng):
    X, y = rng.standard_normal((300, 90)), rng.integers(0, 4, 300)
    results = []
    for n_threads in (1, 2, 3):
        net = cd.Network([layer, cd.Dense(200), cd.ReLU(), layer, cd.Dense(4)], seed=1, n_threads=n_threads)
        net.fit(X, y, epochs=2, verbose=0)
        samples = net.predict_mc(X, 7, seed=0, return_samples=True).samples
        results.append(b"".join(p.tobytes() for p in net.parameters().values()) + samples.tobytes())
    assert len(set(results)) == 1


def test_a_rate_of_0_draws_nothing_and_shifts_nobody(rng):
    X, y = rng.standard_normal((60, 9)), rng.integers(0, 3, 60)

    def weights(extra):
        net = cd.Network([*extra, cd.Dense(20), cd.ReLU(), *extra, cd.Dropout(0.4), cd.Dense(3)], seed=5)
        net.fit(X, y, epochs=2, verbose=0)
        return [array.tobytes() for array in net.parameters().values()]

    assert weights([cd.GaussianDropout(0.0), cd.GaussianNoise(0.0), cd.AlphaDropout(0.0)]) == weights([])


def test_rates_may_be_schedules_and_are_in_the_history(rng):
    net = cd.Network(
        [cd.GaussianNoise(cd.schedules.Linear(2.0)), cd.Dense(8, drop_connect=cd.schedules.Step(0.5)), cd.ReLU(),
         cd.GaussianDropout(cd.schedules.Cosine(0.5)), cd.AlphaDropout(lambda progress: 0.1 * progress), cd.Dense(3)],
        seed=0,
    )  # fmt: skip
    history = net.fit(rng.standard_normal((40, 5)), rng.integers(0, 3, 40), epochs=4, batch_size=10, verbose=0)
    np.testing.assert_allclose(history.metrics["0.std"], [2 * (1 - p) for p in (3 / 16, 7 / 16, 11 / 16, 15 / 16)])
    assert history.metrics["1.drop_connect"] == [0.5, 0.5, 0.0, 0.0]
    assert history.metrics["3.rate"][0] > history.metrics["3.rate"][-1]
    np.testing.assert_allclose(history.metrics["4.rate"], [0.1 * p for p in (3 / 16, 7 / 16, 11 / 16, 15 / 16)])


def test_masks_are_those_of_dropout_and_alpha_dropout(rng):
    X = rng.standard_normal((6, 4)).astype(np.float32)
    net = cd.Network([cd.GaussianNoise(0.5), cd.AlphaDropout(0.5), cd.Dense(3), cd.Dropout(0.5)], loss="mse", seed=0)
    drawn = net.forward(X, training=True)
    masks = net.masks()
    assert [mask.shape for mask in masks] == [(6, 4), (6, 3)]
    np.testing.assert_array_equal(net.layers[1].mask, masks[0])
    core_of(net).model.ready().draws -= 1
    np.testing.assert_array_equal(net.forward(X, training=True, masks=masks), drawn)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cd.GaussianDropout(1.5), "rate"),
        (lambda: cd.AlphaDropout("much"), "rate"),
        (lambda: cd.GaussianNoise(-0.1), "std"),
        (lambda: functional.gaussian_noise([1.0], noise=[1.0, 2.0]), "noise must have the shape"),
        (lambda: functional.alpha_dropout([1.0], mask=[True, False]), "mask"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()

"""DropConnect: fresh weight masks each step, mean weights and Gaussian moments in prediction (Wan et al. 2013)."""

import numpy as np
import pytest
from oracle import assert_same_training

import cydrop as cd
from cydrop import reference


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("optimizer", [cd.SGD(0.1), cd.SGD(0.1, clip_norm=0.1)], ids=["fused", "clipped"])
@pytest.mark.parametrize("features", [11, 900], ids=["small", "large"])
def test_training_is_the_plain_networks(rate, optimizer, features, rng):
    net = cd.Network(
        [cd.Dense(21, drop_connect=rate), cd.Tanh(), cd.Dropout(0.3), cd.Dense(3, drop_connect=rate / 2)],
        optimizer=optimizer, seed=2,
    )  # fmt: skip
    assert_same_training(net, rng.standard_normal((19, features)), rng.integers(0, 3, 19))


def test_the_last_mask_can_be_had_and_is_fresh_each_step(rng):
    X, y = rng.standard_normal((9, 40)), rng.integers(0, 3, 9)
    layer = cd.Dense(50, drop_connect=0.3)
    assert layer.mask is None
    net = cd.Network([layer, cd.ReLU(), cd.Dense(3)], seed=1)
    masks = []
    for _ in range(40):
        net.train_on_batch(X, y)
        masks.append(layer.mask)
    kept = np.array(masks)
    assert kept.shape == (40, 40, 50)
    assert abs(kept.mean() - 0.7) < 4.5 * np.sqrt(0.21 / kept.size)
    assert abs(np.corrcoef(kept[0].ravel(), kept[1].ravel())[0, 1]) < 4.5 / np.sqrt(2000)
    assert net.masks() == []


def test_a_dropped_weight_gets_no_gradient(rng):
    layer = cd.Dense(5, drop_connect=0.5)
    net = cd.Network([layer], loss="mse", seed=0)
    net.forward(rng.standard_normal((8, 6)), training=True)
    net.backward(np.ones((8, 5)))
    np.testing.assert_array_equal(net.gradients()["0.weight"] != 0, layer.mask)
    assert (net.gradients()["0.bias"] == 8).all()


def test_prediction_uses_the_mean_weights(rng):
    net = cd.Network([cd.Dense(5, drop_connect=0.5)], loss="mse", seed=0).build(6)
    X = rng.standard_normal((8, 6)).astype(np.float32)
    expected = reference.dense(X, net.parameters()["0.weight"], net.parameters()["0.bias"])
    np.testing.assert_allclose(net.predict(X), expected, atol=1e-5)


def test_a_rate_of_0_is_the_plain_layer_and_shifts_nobody(rng):
    X, y = rng.standard_normal((60, 9)), rng.integers(0, 3, 60)

    def weights(**options):
        net = cd.Network([cd.Dense(20, **options), cd.ReLU(), cd.Dropout(0.4), cd.Dense(3, **options)], seed=5)
        net.fit(X, y, epochs=2, verbose=0)
        return [array.tobytes() for array in net.parameters().values()]

    assert weights(drop_connect=0.0) == weights()


def test_it_has_the_same_bits_on_any_number_of_threads(rng):
    X, y = rng.standard_normal((300, 190)), rng.integers(0, 4, 300)
    results = set()
    for n_threads in (1, 2, 3):
        net = cd.Network(
            [cd.Dense(250, drop_connect=0.5), cd.ReLU(), cd.Dense(4, drop_connect=0.2)], seed=1, n_threads=n_threads
        )
        net.fit(X, y, epochs=2, verbose=0)
        mc = [net.predict_mc(X, 5, seed=0, drop_connect=how).mean.tobytes() for how in ("masks", "moments")]
        results.add(b"".join([*(p.tobytes() for p in net.parameters().values()), *mc]))
    assert len(results) == 1


def test_samples_by_masks_and_by_moments_have_the_moments_of_the_paper(rng):
    rate = 0.4
    net = cd.Network([cd.Dense(6, drop_connect=rate)], loss="mse", seed=0).build(30)
    X = rng.standard_normal((7, 30)).astype(np.float32)
    weight = net.parameters()["0.weight"].astype(np.float64)
    mean = X @ weight + net.parameters()["0.bias"]
    deviation = np.sqrt(rate / (1 - rate) * (X.astype(np.float64) ** 2 @ weight**2))
    for how in ("masks", "moments"):
        mc = net.predict_mc(X, 4000, seed=1, drop_connect=how)
        assert (np.abs(mc.mean - mean) < 4.5 * deviation / np.sqrt(4000)).all()
        np.testing.assert_allclose(mc.std, deviation, rtol=0.07)


def test_moments_agree_with_masks_through_an_activation_and_dropout(rng):
    net = cd.Network([cd.Dense(80, activation="gelu", drop_connect=0.5), cd.Dropout(0.2), cd.Dense(3)], seed=0)
    X, y = rng.standard_normal((60, 50)), rng.integers(0, 3, 60)
    net.fit(X, y, epochs=5, verbose=0)
    one, other = (net.predict_mc(X, 3000, seed=1, drop_connect=how) for how in ("masks", "moments"))
    np.testing.assert_allclose(one.mean, other.mean, atol=0.03)
    np.testing.assert_allclose(one.std, other.std, atol=0.03)


def test_it_is_saved(rng, tmp_path):
    net = cd.Network([cd.Dense(5, drop_connect=cd.schedules.Cosine(0.5)), cd.Dense(2)], seed=0).build(3)
    net.save(tmp_path / "net")
    assert cd.load(tmp_path / "net").layers[0].drop_connect == cd.schedules.Cosine(0.5)


def test_wrong_arguments_are_refused_by_name(rng):
    with pytest.raises(ValueError, match="drop_connect"):
        cd.Dense(3, drop_connect=1.5)
    with pytest.raises(ValueError, match="drop_connect"):
        cd.Network([cd.Dense(3)]).predict_mc(rng.random((2, 2)), drop_connect="both")

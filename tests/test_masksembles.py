"""Masksembles: the masks are those of the paper, the network is an ensemble of its members, and trains as its twin."""

import itertools
import math

import numpy as np
import pytest
from oracle import assert_same_training
from plain_network import PlainNetwork

import cydrop as cd
from cydrop import functional, reference


def stack(n_masks=3, scale=2.0, units=12, outputs=3, between=()):
    return [
        cd.Dense(units, activation="relu"), cd.Masksembles(n_masks, scale), *between,
        cd.Dense(units, activation="tanh"), cd.Masksembles(n_masks, scale), cd.Dense(outputs),
    ]  # fmt: skip


def network(*args, seed=0, optimizer=None, loss="cross_entropy", n_threads=None, **options):
    return cd.Network(
        stack(*args, **options), loss=loss, optimizer=optimizer or cd.SGD(0.1), seed=seed, n_threads=n_threads
    )


@pytest.fixture
def data(rng):
    X = rng.standard_normal((50, 6)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


# The masks ----------------------------------------------------------------------------------------------------


def masks_of(units, n_masks, scale, seed=1):
    masks = cd.Masksembles(n_masks, scale, seed=seed).initial_masks(units, np.random.SeedSequence(0))
    assert masks.shape == (n_masks, units)
    assert set(np.unique(masks)) <= {0, 1}
    return masks.astype(bool)


@pytest.mark.parametrize("n_masks", [1, 2, 4, 8, 31])
@pytest.mark.parametrize("scale", [1.0, 1.3, 2.0, 3.5, 6.0, 1000.0])
@pytest.mark.parametrize("units", [1, 7, 64, 300])
def test_every_mask_keeps_as_many_and_every_unit_is_kept_by_some(n_masks, scale, units):
    masks = masks_of(units, n_masks, scale)
    assert len(set(masks.sum(axis=1))) == 1
    assert masks.any(axis=0).all()
    by_paper = units / (scale * (1 - (1 - 1 / scale) ** n_masks))  # its units are m s (1 - (1 - 1/s)^n)
    assert abs(masks[0].sum() - by_paper) <= 0.5 + 1e-9 or masks[0].sum() == math.ceil(units / n_masks)


@pytest.mark.parametrize("scale", [1.5, 2.0, 3.0, 5.0])
def test_two_masks_have_as_much_in_common_as_the_paper_says(scale):
    """m of m s places each: m / s in both, so that the share is (m / s) / (2 m - m / s)."""
    masks = masks_of(3000, 4, scale)
    shares = [(a & b).sum() / (a | b).sum() for a, b in itertools.combinations(masks, 2)]
    assert np.mean(shares) == pytest.approx(1 / (2 * scale - 1), abs=0.015)


def test_extremes_are_one_network_and_masks_with_nothing_in_common():
    assert masks_of(40, 4, 1.0).all()
    np.testing.assert_array_equal(masks_of(40, 4, 1e6).sum(axis=0), 1)


def test_every_unit_is_as_likely():
    kept = np.mean([masks_of(10, 4, 2.0, seed) for seed in range(2000)], axis=0)
    np.testing.assert_allclose(kept, 0.5, atol=0.05)


def test_masks_are_those_of_the_seed():
    np.testing.assert_array_equal(masks_of(64, 4, 2.0, 3), masks_of(64, 4, 2.0, 3))
    assert (masks_of(64, 4, 2.0, 3) != masks_of(64, 4, 2.0, 4)).any()
    first, again, other = (network(seed=seed).build(6).buffers() for seed in (0, 0, 1))
    assert set(first) == {"1.masks", "3.masks"}
    for name, masks in first.items():
        np.testing.assert_array_equal(masks, again[name])
        assert (masks != other[name]).any()
    assert (first["1.masks"] != first["3.masks"]).any()
    layers = [cd.Dense(64), cd.Masksembles(4, seed=3), cd.Dense(2)]
    for seed in (0, 1):
        found = cd.Network(layers, seed=seed).build(2).buffers()["1.masks"]
        np.testing.assert_array_equal(found, masks_of(64, 4, 2.0, 3))


def test_some_masks_are_known():
    """On every machine: they come from the generator, whose numbers never change."""
    shown = ["".join(str(int(kept)) for kept in mask) for mask in masks_of(12, 4, 2.0, 0)]
    assert shown == ["010010110110", "100101101001", "011101101000", "101010110001"]


# What it computes ---------------------------------------------------------------------------------------------


def test_rows_take_the_masks_in_turn_and_steps_begin_with_the_next(rng):
    layer, x = cd.Masksembles(3, seed=1), rng.standard_normal((8, 10)).astype(np.float32)
    masks = layer.initial_masks(10, np.random.SeedSequence(0))
    for step in range(4):
        y = layer.forward(x)
        np.testing.assert_array_equal(y, [row * masks[(step + r) % 3] for r, row in enumerate(x)])
        np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_allclose(layer.forward(x, training=False), x * masks.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("first", [0, 2, 9])
def test_the_functions_are_their_twins(rng, first):
    x, masks = rng.standard_normal((8, 5)), rng.random((3, 5)) < 0.5
    for name in ("masksembles", "masksembles_backward"):
        found, twin = (getattr(module, name)(x, masks, first) for module in (functional, reference))
        np.testing.assert_allclose(found, twin, rtol=1e-6)
        assert found.dtype == np.float32
    assert functional.masksembles(np.zeros((0, 5)), masks).shape == (0, 5)
    for wrong in (masks[:, :4], masks[:0], masks[0]):
        with pytest.raises(ValueError, match=r"masks must have shape \(n_masks, 5\)"):
            functional.masksembles(x, wrong)
    with pytest.raises(ValueError, match="first must be at least 0"):
        functional.masksembles(x, masks, -1)


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        ("cross_entropy", 3), ("binary_cross_entropy", 1), ("mse", 1), ("gaussian_nll", 2),
        (cd.losses.Pinball([0.1, 0.9]), 2),
    ],
    ids=str,
)  # fmt: skip
def test_it_trains_and_predicts_as_the_plain_network(data, loss, outputs):
    X, y = data
    y = y if loss == "cross_entropy" else np.minimum(y, 1)
    net = network(outputs=outputs, loss=loss).build(6)
    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), rtol=1e-4, atol=1e-5)
    assert_same_training(net, X, y)


LAYERS_BETWEEN = {
    "dropout": [cd.Dropout(0.3)],
    "shared dropout": [cd.Dropout(0.3, shared="batch")],
    "noise": [cd.GaussianNoise(0.1), cd.AlphaDropout(0.1)],
    "norms": [cd.BatchNorm(), cd.LayerNorm(), cd.Scale()],
    "drop_connect": [cd.Dense(12, drop_connect=0.2)],
    "block": [cd.Residual([cd.Dense(12), cd.Masksembles(3), cd.Dense(12)], 0.2)],
    "max_norm": [cd.Dense(12, max_norm=1.0)],
}


@pytest.mark.parametrize("between", LAYERS_BETWEEN.values(), ids=LAYERS_BETWEEN)
def test_it_trains_with_all_other_layers(data, between):
    X, y = data
    net = network(between=between, optimizer=cd.Adam(1e-2, clip_norm=1.0)).build(6)
    assert_same_training(net, X, y, rtol=1e-4)
    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), rtol=1e-3, atol=1e-4)


def test_a_block_may_be_the_first_to_have_masks(data):
    X, y = data
    block = cd.Residual([cd.Dense(9), cd.Masksembles(3), cd.ReLU(), cd.Dense(6)])
    for layers in ([block, cd.Dense(3)], [cd.Dense(6), cd.Residual([block, cd.Tanh()]), cd.Dense(3)]):
        net = cd.Network(layers, optimizer=cd.SGD(0.1), seed=0).build(6)
        np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), rtol=1e-4, atol=1e-5)
        assert_same_training(net, X, y)


def test_masks_may_come_first(data):
    X, y = data
    net = cd.Network([cd.Masksembles(2), cd.Dense(3)], optimizer=cd.SGD(0.1), seed=0).build(6)
    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), rtol=1e-4, atol=1e-5)
    assert_same_training(net, X, y)


@pytest.mark.parametrize("shards", [1, 4])
def test_it_trains_in_shards(data, shards):
    assert_same_training(network().build(6), *data, shards=shards)


def test_the_gradient_is_that_of_differences(data):
    X = data[0][:5]
    net = network().build(6)
    twin = PlainNetwork(net)  # in float64
    weight = np.random.default_rng(1).standard_normal((5, 3))
    twin.forward(X, [])
    dx = twin.backward(weight)
    out = net.forward(X, training=True)
    np.testing.assert_allclose(net.backward(weight), dx, rtol=1e-4, atol=1e-5)
    assert out.shape == (5, 3)
    for row, column in ((0, 0), (3, 5)):
        step = np.zeros(X.shape)
        step[row, column] = 1e-5
        up, down = ((twin.forward(X + sign * step, []) * weight).sum() for sign in (1, -1))
        assert (up - down) / 2e-5 == pytest.approx(dx[row, column], rel=1e-4, abs=1e-7)


# The ensemble -------------------------------------------------------------------------------------------------


def member(net, number):
    """The network of one member: without masks, but without the weights of the units that its masks drop."""
    own = cd.Network([layer for layer in net.layers if not isinstance(layer, cd.Masksembles)], loss=net.loss, seed=0)
    found = own.build(6).parameters()
    for place, (name, arrays) in enumerate((("0", None), ("2", "1.masks"), ("4", "3.masks"))):
        kept = 1.0 if arrays is None else net.buffers()[arrays][number][:, None]
        found[f"{place}.weight"][...] = net.parameters()[f"{name}.weight"] * kept
        found[f"{place}.bias"][...] = net.parameters()[f"{name}.bias"]
    return own


def test_each_member_is_a_network_with_its_units_and_predict_is_their_mean(data):
    X, y = data
    net = network()
    net.fit(X, y, epochs=20, batch_size=10, verbose=0)
    each = net.predict_members(X)
    assert each.shape == (3, 50, 3)
    for number, one in enumerate(each):
        np.testing.assert_allclose(one, member(net, number).predict(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net.predict(X), each.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert each.std(axis=0).max() > 0.05
    found = net.evaluate(X, y)
    assert found["accuracy"] == np.mean(each.mean(axis=0).argmax(axis=1) == y)
    assert found["loss"] == pytest.approx(-np.log(each.mean(axis=0)[np.arange(50), y]).mean(), rel=1e-5)


def test_of_means_and_variances_it_is_the_mixture(data):
    X, _ = data
    net = network(outputs=2, loss="gaussian_nll")
    net.fit(X, X[:, 0], epochs=3, verbose=0)
    mean, variance = np.moveaxis(net.predict_members(X), 2, 0)
    expected = np.stack([mean.mean(axis=0), variance.mean(axis=0) + mean.var(axis=0)], axis=1)
    np.testing.assert_allclose(net.predict(X), expected, rtol=1e-4)


def test_samples_are_the_members_in_turn(data):
    X, y = data
    net = network()
    net.fit(X, y, epochs=5, verbose=0)
    for rows in (1, 7, 50):
        mc = net.predict_mc(X[:rows], 6, seed=0, return_samples=True)
        each = net.predict_members(X[:rows])
        np.testing.assert_allclose(mc.samples, np.concatenate([each, each]), rtol=1e-6)
        np.testing.assert_allclose(mc.mean, net.predict(X[:rows]), rtol=1e-5, atol=1e-6)
    assert (mc.epistemic > 0).any()


def test_samples_with_dropout_have_masks_of_both(data):
    X, y = data
    net = network(between=[cd.Dropout(0.5)])
    net.fit(X, y, epochs=5, verbose=0)
    samples = net.predict_mc(X, 3000, seed=0, return_samples=True).samples
    shared = network(between=[cd.Dropout(0.5, shared="batch")])
    shared.fit(X, y, epochs=5, verbose=0)
    for drawn, one in ((samples, net), (shared.predict_mc(X, 3000, seed=0, return_samples=True).samples, shared)):
        assert len({sample.tobytes() for sample in drawn[::3]}) > 100  # shared ones drop 7 units at most
        for number, mean in enumerate(one.predict_members(X)):  # which dropout scatters around
            assert np.abs(drawn[number::3].mean(axis=0) - mean).mean() < 0.05


def test_a_scale_of_1_is_no_ensemble(data):
    X, y = data
    with_masks = network(scale=1.0)
    plain = [layer for layer in stack() if not isinstance(layer, cd.Masksembles)]
    without = cd.Network(plain, optimizer=cd.SGD(0.1), seed=0)
    for net in (with_masks, without):
        net.fit(X, y, epochs=3, batch_size=16, verbose=0)
    for one, other in zip(with_masks.parameters().values(), without.parameters().values(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(with_masks.predict(X), without.predict(X), rtol=1e-6)


def test_far_from_the_data_members_disagree(rng):
    x = rng.uniform(-1, 1, (400, 1))
    layers = [
        cd.Dense(128), cd.ReLU(), cd.Masksembles(8, 3.0), cd.Dense(128), cd.ReLU(), cd.Masksembles(8, 3.0), cd.Dense(1)
    ]  # fmt: skip
    net = cd.Network(layers, loss="mse", optimizer=cd.Adam(3e-3), seed=0)
    net.fit(x, np.sin(3 * x), epochs=100, verbose=0)
    std = net.predict_mc(np.array([[0.0], [2.0], [6.0]]), 8, seed=0).std[:, 0]
    assert 2 * std[0] < std[1] < std[2]


# Around it ----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(rng):
    X, y = rng.standard_normal((300, 90)).astype(np.float32), rng.integers(0, 4, 300)
    results = set()
    for n_threads in (1, 2, 3, 5):
        net = network(4, 2.0, 250, 4, n_threads=n_threads)
        net.fit(X, y, epochs=2, batch_size=128, verbose=0)
        mc = net.predict_mc(X, 12, seed=1, return_samples=True)
        arrays = (*net.parameters().values(), net.predict(X), net.predict(X[:3]), net.predict_members(X), mc.samples)
        results.add(b"".join(array.tobytes() for array in arrays))
    assert len(results) == 1


def test_the_history_counts_each_row_once(data):
    X, y = data
    net = network(optimizer=cd.SGD(0.0)).build(6)
    outputs = net.forward(X, training=True)
    history = network(optimizer=cd.SGD(0.0)).fit(
        X, y, epochs=1, batch_size=50, shuffle=False, validation_data=(X, y), clean_metrics=True, verbose=0
    )
    assert history.metrics["accuracy"] == [np.mean(outputs.argmax(axis=1) == y)]
    assert history.metrics["loss"] == [pytest.approx(reference.cross_entropy(outputs, y), rel=1e-5)]
    assert history.metrics["val_accuracy"] == history.metrics["clean_accuracy"] == [net.evaluate(X, y)["accuracy"]]


def test_fit_many_gives_the_bits_of_fit(data):
    X, y = data
    together = [network(seed=seed) for seed in range(4)]
    held = {"validation_rows": np.arange(10), "restore_best": False}
    histories = cd.fit_many(together, X, y, epochs=3, batch_size=16, verbose=0, **held)
    for seed, (net, history) in enumerate(zip(together, histories, strict=True)):
        alone = network(seed=seed)
        own = alone.fit(X[10:], y[10:], epochs=3, batch_size=16, validation_data=(X[:10], y[:10]), verbose=0)
        assert net.predict(X).tobytes() == alone.predict(X).tobytes()
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert history.metrics[name] == own.metrics[name]


def test_files_keep_the_masks(data, tmp_path):
    X, y = data
    net = network(seed=None)
    net.fit(X, y, epochs=1, verbose=0)
    net.save(tmp_path / "net")
    found = cd.load(tmp_path / "net")
    for name, masks in net.buffers().items():
        np.testing.assert_array_equal(masks, found.buffers()[name])
    for one in (net, found):
        one.fit(X, y, epochs=2, verbose=0)
    assert net.predict(X).tobytes() == found.predict(X).tobytes()


def test_batches_of_fewer_rows_than_masks_train_all_members(data):
    X, y = data
    net = network(5, 1e6, units=10)  # masks with nothing in common
    net.build(6)
    before = {name: array.copy() for name, array in net.parameters().items()}
    net.fit(X, y, epochs=1, batch_size=1, verbose=0)
    changed = (net.parameters()["4.weight"] != before["4.weight"]).any(axis=1)
    assert changed.all()


def test_ensembles_of_them(data):
    X, y = data
    ensemble = cd.Ensemble([network(seed=seed).build(6) for seed in range(2)])
    ensemble.fit(X, y, epochs=2, verbose=0)
    each = np.concatenate([net.predict_members(X) for net in ensemble.networks])
    np.testing.assert_allclose(ensemble.predict(X), each.mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.extras
@pytest.mark.parametrize("mc", [False, True])
def test_onnx_models_predict_the_same(data, mc):
    from onnx_session import session

    X, y = data
    block = cd.Residual([cd.Dense(9), cd.Masksembles(3), cd.ReLU(), cd.Dense(6)])
    nets = [
        network(between=LAYERS_BETWEEN["norms"]),
        network(between=LAYERS_BETWEEN["dropout"]),
        cd.Network([cd.Masksembles(3), block, cd.Dense(3)], seed=0),
        cd.Network([block, cd.Masksembles(3), cd.Dense(3)], seed=0),
        network(outputs=2, loss=cd.losses.Pinball([0.1, 0.9])),
        network(outputs=2, loss="gaussian_nll"),
    ]
    for net in nets:
        net.fit(X, y, epochs=1, verbose=0)
        (found,) = session(cd.onnx.to_model(net, mc=mc)).run(None, {"X": X})
        np.testing.assert_allclose(found, net.predict(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cd.Masksembles(0), ValueError, "n_masks must be at least 1"),
        (lambda: cd.Masksembles(257), ValueError, "n_masks must be at most 256"),
        (lambda: cd.Masksembles(2.5), TypeError, "n_masks must be an integer"),
        (lambda: cd.Masksembles(4, 0.5), ValueError, "scale must be .*at least 1"),
        (lambda: cd.Masksembles(4, math.inf), ValueError, "scale must be a finite number"),
        (lambda: cd.Masksembles(4, seed="a"), TypeError, "seed"),
        (
            lambda: cd.Network([cd.Dense(9), cd.Masksembles(2), cd.Masksembles(3), cd.Dense(2)]),
            ValueError,
            r"layers\[2\] has 3 masks, a layer before it 2: all must have as many",
        ),
        (
            lambda: cd.Network([cd.Dense(9), cd.Masksembles(2), cd.Members([cd.Dense(2)], 2)]),
            ValueError,
            r"layers\[2\] is Members, before which no Masksembles can stand",
        ),
        (
            lambda: cd.Network([cd.Members([cd.Dense(2)], 2), cd.Masksembles(2)]),
            ValueError,
            r"layers\[0\] is Members, which must be the last layer",
        ),
        (lambda: cd.Members([cd.Masksembles(2), cd.Dense(2)]), TypeError, "must be an activation or one of"),
        (lambda: network(loss=cd.losses.CrossEntropy(r_drop=1.0)).build(6), ValueError, "passes each row twice"),
    ],
)
def test_what_cannot_be_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()

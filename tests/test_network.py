"""Network: what its methods promise."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import cydrop as cd
from cydrop._run.core import core_of


@pytest.fixture(scope="module")
def digits():
    return cd.datasets.load_optdigits()


def small(**options):
    return cd.Network([cd.Dense(32), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)], seed=0, **options)


def test_a_network_learns_the_digits(digits):
    X, y, Xt, yt = digits
    net = cd.Network(
        [cd.Dropout(0.2), cd.Dense(256), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)], optimizer=cd.Adam(3e-3), seed=0
    )
    history = net.fit(X, y, epochs=30, validation_data=(Xt, yt), verbose=0)
    assert history.metrics["val_accuracy"][-1] > 0.95
    assert history is net.history
    assert len(history) == 30
    assert set(history.metrics) == {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"}


def test_probabilities_are_float32_contiguous_and_sum_to_1(digits):
    net = small().build(64)
    proba = net.predict(digits[2])
    assert proba.shape == (1797, 10)
    assert proba.dtype == np.float32
    assert proba.flags.c_contiguous
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)


def test_prediction_has_no_dropout_and_training_has(digits):
    X = digits[0][:50]
    net = small().build(64)
    np.testing.assert_array_equal(net.forward(X), net.forward(X))
    assert not np.array_equal(net.forward(X, training=True), net.forward(X, training=True))
    assert net.predict(X).tobytes() == net.predict(X).tobytes()


@pytest.mark.parametrize(
    "layers",
    [
        [cd.Dense(300), cd.ReLU(), cd.Dropout(0.4, mode="vanilla"), cd.Dense(70), cd.Tanh(), cd.Dense(5)],
        [cd.Dense(40), cd.ReLU(), cd.Dense(5), cd.ReLU()],
        [cd.Dropout(0.5), cd.Dense(5, activation="gelu"), cd.Dropout(0.3)],
    ],
    ids=["wide", "small, ends with a ReLU", "ends with a dropout"],
)
@pytest.mark.parametrize("rows", [1, 8, 9, 23, 24, 47, 48, 49, 503, 504, 505, 2500])
def test_a_row_s_prediction_does_not_depend_on_the_other_rows_nor_on_threads(rng, layers, rows):
    """Many rows are predicted in pieces, a thread each, and few rows by all threads together."""
    X = rng.standard_normal((rows, 30), dtype=np.float32)
    nets = [cd.Network(layers, loss="mse", seed=3, n_threads=n_threads).build(30) for n_threads in (1, 2, 3)]
    expected = np.concatenate([nets[0].predict(X[row : row + 1]) for row in range(rows)])
    for net in nets:
        for _ in range(4):  # the threads are tried out at first
            np.testing.assert_array_equal(net.predict(X), expected)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found_wherever_it_is(value, n_threads):
    X = np.full((2, 300000), 3.4e38, dtype=np.float32)
    net = cd.Network([cd.Dense(1)], loss="mse", n_threads=n_threads)
    for place in (0, 1, 15, 16, 17, 262143, 262144, 299999):
        X[1, place] = value
        with pytest.raises(ValueError, match=rf"row 1, column {place}$"):
            net.predict(X)
        X[1, place] = -3.4e38
    few = np.ones((1, 5), dtype=np.float32)
    few[0, 4] = value
    with pytest.raises(ValueError, match="row 0, column 4"):
        cd.Network([cd.Dense(1)], loss="mse", n_threads=n_threads).predict(few)


def test_the_history_has_the_loss_as_trained_and_evaluate_the_clean_one(digits):
    X, y, _, _ = digits
    net = cd.Network([cd.Dense(128), cd.ReLU(), cd.Dropout(0.7), cd.Dense(10)], seed=0)
    history = net.fit(X, y, epochs=5, verbose=0)
    clean = net.evaluate(X, y)
    assert clean["loss"] < 0.8 * history.metrics["loss"][-1]
    assert clean["loss"] == pytest.approx(cd.functional.cross_entropy(net.forward(X), y), rel=1e-6)
    assert clean["accuracy"] == pytest.approx((net.predict(X).argmax(axis=1) == y).mean())


def test_vanilla_dropout_scales_in_prediction_and_not_in_training(rng):
    X = rng.random((20, 5), dtype=np.float32)
    vanilla = cd.Network([cd.Dropout(0.3, mode="vanilla")], loss="mse", seed=1)
    np.testing.assert_allclose(vanilla.forward(X), X * 0.7, rtol=1e-6)
    kept = vanilla.forward(X, training=True)
    np.testing.assert_array_equal(kept, np.where(vanilla.masks()[0], X, 0))
    inverted = cd.Network([cd.Dropout(0.3)], loss="mse", seed=1)
    np.testing.assert_array_equal(inverted.forward(X), X)
    np.testing.assert_allclose(inverted.forward(X, training=True), kept / 0.7, rtol=1e-6)


def test_given_masks_are_used_and_none_draws(rng):
    X = rng.random((6, 4), dtype=np.float32)
    net = cd.Network(
        [cd.Dropout(0.5), cd.Dense(5), cd.Dropout(0.2), cd.Dropout(0.4, shared="batch"), cd.Dense(2)], seed=2
    )
    first, last = rng.random((6, 4)) < 0.5, np.array([True, False, True, True, False])
    net.forward(X, training=True, masks=[first, None, last])
    masks = net.masks()
    np.testing.assert_array_equal(masks[0], first)
    np.testing.assert_array_equal(masks[2], last)
    assert masks[1].shape == (6, 5)
    net.forward(X, training=True)
    assert not np.array_equal(net.masks()[0], first)


def test_a_shared_mask_drops_the_same_units_in_every_row(rng):
    net = cd.Network([cd.Dropout(0.5, shared="batch")], loss="mse", seed=3)
    y = net.forward(np.ones((50, 40)), training=True)
    assert (y == y[0]).all()
    np.testing.assert_array_equal(net.masks()[0], y[0] > 0)
    assert 0 < (y[0] > 0).sum() < 40


def test_masks_differ_between_layers_steps_and_seeds():
    def masks(seed):
        net = cd.Network([cd.Dropout(0.5), cd.Dropout(0.5)], loss="mse", seed=seed)
        drawn = []
        for _ in range(2):
            net.forward(np.ones((30, 30)), training=True)
            drawn += net.masks()
        return drawn

    drawn = masks(1) + masks(2)
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs((one == other).mean() - 0.5) < 4.5 * 0.5 / 30


def test_dropout_remembers_its_last_mask_alone_and_in_a_network(rng):
    layer = cd.Dropout(0.4, seed=9)
    assert layer.mask is None
    x = np.ones((7, 3, 2), dtype=np.float32)
    y = layer.forward(x)
    assert y.shape == x.shape
    np.testing.assert_array_equal(layer.mask.reshape(x.shape), y > 0)
    np.testing.assert_array_equal(layer.backward(x), y)
    inside = cd.Dropout(0.4)
    net = cd.Network([cd.Dense(4), inside, cd.Dense(2)], seed=1)
    net.train_on_batch(rng.random((5, 3)), [0, 1, 0, 1, 1])
    np.testing.assert_array_equal(inside.mask, net.masks()[0])


def test_a_layer_with_a_seed_of_its_own_draws_the_same_masks_in_every_network():
    def drawn(seed):
        net = cd.Network([cd.Dropout(0.5, seed=77)], loss="mse", seed=seed)
        net.forward(np.ones((20, 20)), training=True)
        return net.masks()[0]

    np.testing.assert_array_equal(drawn(1), drawn(2))


def test_every_layer_works_alone(rng):
    x = rng.standard_normal((6, 5)).astype(np.float32)
    for layer in (
        cd.ReLU(),
        cd.LeakyReLU(),
        cd.ELU(),
        cd.SELU(),
        cd.GELU(),
        cd.SiLU(),
        cd.Tanh(),
        cd.Sigmoid(),
        cd.Softplus(),
        cd.Mish(),
    ):
        name = {"LeakyReLU": "leaky_relu"}.get(type(layer).__name__, type(layer).__name__.lower())
        np.testing.assert_array_equal(layer.forward(x), getattr(cd.functional, name)(x))
        np.testing.assert_allclose(
            layer.backward(np.ones_like(x)), getattr(cd.functional, f"{name}_backward")(np.ones_like(x), x), atol=1e-6
        )
    dense = cd.Dense(4)
    assert dense.forward(x).shape == (6, 4)
    assert dense.backward(np.ones((6, 4))).shape == (6, 5)


def test_the_second_call_of_fit_goes_on_where_the_first_ended(digits):
    X, y = digits[0][:500], digits[1][:500]
    once, twice = small(), small()
    once.fit(X, y, epochs=4, verbose=0)
    twice.fit(X, y, epochs=2, verbose=0)
    twice.fit(X, y, epochs=2, verbose=0)
    assert once.predict(X).tobytes() == twice.predict(X).tobytes()
    assert len(twice.history) == 4


def test_predict_mc_is_reproducible_and_leaves_the_network_alone(digits):
    X = digits[2][:300]
    net = small()
    net.fit(digits[0][:500], digits[1][:500], epochs=2, verbose=0)
    other = copy.deepcopy(net)
    mc = net.predict_mc(X, 30, seed=4, return_samples=True)
    again = net.predict_mc(X, 30, seed=4)
    np.testing.assert_array_equal(mc.mean, again.mean)
    assert again.samples is None
    assert mc.samples.shape == (30, 300, 10)
    np.testing.assert_allclose(mc.mean, mc.samples.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(mc.std, mc.samples.std(axis=0), atol=1e-6)
    p = mc.samples.astype(float).mean(axis=0)
    np.testing.assert_allclose(mc.entropy, -(p * np.log(p)).sum(axis=1), atol=1e-5)
    assert (mc.mutual_information >= 0).all()
    assert (mc.mutual_information <= mc.entropy + 1e-6).all()
    assert not np.array_equal(mc.mean, net.predict_mc(X, 30, seed=5).mean)
    net.train_on_batch(X, digits[3][:300])
    other.train_on_batch(X, digits[3][:300])
    assert net.predict(X).tobytes() == other.predict(X).tobytes()


def test_monte_carlo_of_a_network_without_dropout_has_no_spread(rng):
    net = cd.Network([cd.Dense(3)], loss="mse", seed=0)
    with pytest.warns(UserWarning, match="nothing is drawn"):
        mc = net.predict_mc(rng.random((4, 2)), 5)
    assert (mc.std == 0).all()
    assert mc.entropy is None


def test_regression_learns_a_line_and_its_noise(rng):
    X = rng.uniform(-1, 1, (2000, 1))
    y = 3 * X[:, 0] + 0.5 * rng.standard_normal(2000)
    net = cd.Network([cd.Dense(16), cd.Tanh(), cd.Dense(2)], loss="gaussian_nll", optimizer=cd.Adam(0.01), seed=0)
    net.fit(X, y, epochs=60, verbose=0)
    mean, variance = net.predict([[0.5]])[0]
    assert mean == pytest.approx(1.5, abs=0.15)
    assert np.sqrt(variance) == pytest.approx(0.5, abs=0.1)
    truth = 0.5 * np.log(2 * np.pi * np.e * 0.25)
    metrics = net.evaluate(X, y)
    assert metrics["loss"] == pytest.approx(truth, abs=0.05)
    assert metrics["rmse"] == pytest.approx(0.5, abs=0.05)


def test_binary_targets_of_one_and_many_columns(rng):
    X = rng.standard_normal((500, 4))
    one, many = (X[:, 0] > 0).astype(int), (X[:, :3] > 0).astype(int)
    for y, units in ((one, 1), (many, 3)):
        net = cd.Network([cd.Dense(units)], loss="binary_cross_entropy", optimizer=cd.Adam(0.05), seed=0)
        net.fit(X, y, epochs=40, verbose=0)
        assert net.evaluate(X, y)["accuracy"] > 0.95
        assert net.predict(X).shape == (500, units)


def test_a_row_of_weight_2_counts_as_two_rows_and_of_weight_0_as_none(rng):
    X, y = rng.random((6, 3)), [0, 1, 0, 1, 0, 1]
    weighted, repeated = (cd.Network([cd.Dense(2)], optimizer=cd.SGD(0.1), seed=0) for _ in range(2))
    weighted.train_on_batch(X, y, [2, 2, 2, 2, 0, 0])  # mean over 6 rows: weights sum to 8
    repeated.train_on_batch(np.repeat(X[:4], 2, axis=0), np.repeat(y[:4], 2), np.full(8, 8 / 6))
    for name, array in weighted.parameters().items():
        np.testing.assert_allclose(array, repeated.parameters()[name], atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_drop_last_leaves_out_the_rows_that_fill_no_batch(rng, loss):
    X, y = rng.standard_normal((23, 4)), rng.integers(0, 2, 23)
    whole, part = (cd.Network([cd.Dense(2 if loss == "cross_entropy" else 1)], loss=loss, seed=1) for _ in range(2))
    found = whole.fit(X, y, epochs=3, batch_size=5, shuffle=False, drop_last=True, verbose=0)
    wanted = part.fit(X[:20], y[:20], epochs=3, batch_size=5, shuffle=False, verbose=0)
    np.testing.assert_array_equal(whole.predict(X), part.predict(X))
    assert found.metrics["loss"] == wanted.metrics["loss"]
    assert found.metrics["accuracy"] == wanted.metrics["accuracy"]


def test_drop_last_with_shuffling_leaves_out_others_each_time_and_few_rows_are_a_batch(rng):
    X = np.eye(7, dtype=np.float32)
    net = cd.Network([cd.Dense(1, bias=False, weight_init="he_normal")], loss="mse", optimizer=cd.SGD(0.1), seed=2)
    net.build(7)
    left_out = set()
    for _ in range(12):
        before = net.parameters()["0.weight"].copy()
        net.fit(X, np.full(7, 9.0), epochs=1, batch_size=3, drop_last=True, verbose=0)
        left_out |= set(np.flatnonzero((net.parameters()["0.weight"] == before)[:, 0]))
        assert (net.parameters()["0.weight"] == before).sum() == 1
    assert len(left_out) > 3
    before = net.parameters()["0.weight"].copy()
    net.fit(X, np.full(7, 9.0), epochs=1, batch_size=100, drop_last=True, verbose=0)
    assert (net.parameters()["0.weight"] != before).all()


def test_validation_split_keeps_the_last_rows_and_never_trains_on_them(rng):
    X, y = rng.random((100, 3)), rng.integers(0, 2, 100)
    split, apart = (cd.Network([cd.Dense(2)], seed=0) for _ in range(2))
    split.fit(X, y, epochs=2, validation_split=0.25, verbose=0)
    apart.fit(X[:75], y[:75], epochs=2, validation_data=(X[75:], y[75:]), verbose=0)
    assert split.history.metrics["val_loss"] == apart.history.metrics["val_loss"]


def test_input_may_be_anything_that_numpy_takes_and_is_never_written(rng):
    base = rng.integers(0, 5, (40, 6))
    y = rng.integers(0, 2, 40)
    read_only = base.astype(np.float32)
    read_only.flags.writeable = False
    forms = [base, base.tolist(), base.astype(np.float16), np.asfortranarray(base.astype(float)), read_only,
             np.repeat(base, 2, axis=1)[:, ::2], base.astype(">f8"), base.astype(np.uint8)]  # fmt: skip
    expected = None
    for X in forms:
        net = cd.Network([cd.Dropout(0.2), cd.Dense(8), cd.ReLU(), cd.Dense(2)], seed=1)
        net.fit(X, y, epochs=2, verbose=0)
        result = net.predict(X)
        expected = result if expected is None else expected
        np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(read_only, base)


def test_labels_may_be_any_integer_type_or_a_column(rng):
    X, y = rng.random((30, 3)), rng.integers(0, 3, 30)
    expected = None
    for labels in (y, y.tolist(), y.astype(np.uint8), y.astype(np.float64), y.reshape(-1, 1)):
        net = cd.Network([cd.Dense(3)], seed=1)
        net.fit(X, labels, epochs=1, verbose=0)
        expected = net.predict(X) if expected is None else expected
        np.testing.assert_array_equal(net.predict(X), expected)


@pytest.mark.parametrize(
    "seed", [3, np.random.SeedSequence(3), np.random.default_rng(3)], ids=lambda s: type(s).__name__
)
def test_any_kind_of_seed_is_reproducible(rng, seed):
    X = rng.random((5, 4))
    fresh = {"Generator": lambda: np.random.default_rng(3)}.get(type(seed).__name__, lambda: seed)
    one, two = (cd.Network([cd.Dense(3)], seed=fresh()).predict(X) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(cd.Network([cd.Dense(3)]).predict(X), cd.Network([cd.Dense(3)]).predict(X))


# of 400 inputs and 300 units
INITIALISATIONS = [
    ("he_normal", 2 / 400), ("he_uniform", 2 / 400), ("glorot_normal", 2 / 700), ("glorot_uniform", 2 / 700),
    ("lecun_normal", 1 / 400), ("lecun_uniform", 1 / 400), ("torch_uniform", 1 / 400 / 3),
    ("glorot_sigmoid_uniform", 2 / 700 / 3),
]  # fmt: skip


def test_a_layer_starts_within_glorots_bounds_unless_told_otherwise():
    net = cd.Network([cd.Dense(300)], seed=0).build(400)
    named = cd.Network([cd.Dense(300, weight_init="glorot_uniform", bias_init="glorot_uniform")], seed=0).build(400)
    zeros = cd.Network([cd.Dense(300, bias_init="zeros")], seed=0).build(400)
    for name, array in net.parameters().items():
        np.testing.assert_array_equal(array, named.parameters()[name])
        assert 0.95 * np.sqrt(6 / 700) < np.abs(array).max() <= np.sqrt(6 / 700)
    np.testing.assert_array_equal(zeros.parameters()["0.weight"], net.parameters()["0.weight"])
    assert (zeros.parameters()["0.bias"] == 0).all()


@pytest.mark.parametrize(("init", "variance"), INITIALISATIONS)
def test_weights_begin_with_the_variance_of_their_initialisation(init, variance):
    net = cd.Network([cd.Dense(300, weight_init=init)], seed=0).build(400)
    weight = net.parameters()["0.weight"]
    assert weight.var() == pytest.approx(variance, rel=0.02)
    assert abs(weight.mean()) < 4.5 * np.sqrt(variance / weight.size)
    if init.endswith("uniform"):
        assert np.sqrt(3 * variance) * 0.999 < np.abs(weight).max() <= np.sqrt(3 * variance) * (1 + 1e-6)


@pytest.mark.parametrize(("init", "variance"), INITIALISATIONS)
def test_biases_begin_with_the_variance_of_a_weight_of_their_initialisation(init, variance):
    layers = [cd.Dense(400, weight_init="he_uniform", bias_init=init) for _ in range(2)]
    biases, weights = [], []
    for seed in range(25):
        net = cd.Network([cd.Dense(300, bias_init=init), *layers, cd.Dense(300, bias_init=init)], seed=seed).build(400)
        biases += [net.parameters()[f"{place}.bias"].copy() for place in (0, 3)]
        weights.append(net.parameters()["0.weight"][0])
        assert not np.array_equal(*(net.parameters()[f"{place}.bias"] for place in (1, 2)))
    biases = np.concatenate(biases)
    assert biases.var() == pytest.approx(variance, rel=0.05)
    assert abs(biases.mean()) < 4.5 * np.sqrt(variance / biases.size)
    assert abs(np.corrcoef(biases.reshape(25, 2, 300)[:, 0].ravel(), np.concatenate(weights))[0, 1]) < 0.06
    if init.endswith("uniform"):
        assert np.sqrt(3 * variance) * 0.99 < np.abs(biases).max() <= np.sqrt(3 * variance) * (1 + 1e-6)


def test_drawn_biases_leave_the_weights_and_all_other_draws_as_they_are(rng):
    X, y = rng.random((60, 7)), rng.integers(0, 3, 60)
    nets = []
    for init in ("zeros", "torch_uniform"):
        stack = [cd.Dense(20, activation="relu", bias_init=init), cd.Dropout(0.5), cd.Dense(3, bias_init=init)]
        nets.append(cd.Network(stack, seed=4).build(7))
    before, after = (net.parameters() for net in nets)
    for name in ("0.weight", "2.weight"):
        np.testing.assert_array_equal(before[name], after[name])
    for name in ("0.bias", "2.bias"):
        assert (before[name] == 0).all()
        assert (after[name] != 0).all()
        after[name][...] = 0.0
    for net in nets:
        net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    assert before["2.weight"].tobytes() == after["2.weight"].tobytes()


def test_a_layer_without_a_bias_draws_none():
    net = cd.Network([cd.Dense(4, bias=False, bias_init="torch_uniform")], seed=0).build(3)
    assert list(net.parameters()) == ["0.weight"]


def test_parameters_are_views_that_can_be_assigned(rng):
    net = cd.Network([cd.Dropout(0.1), cd.Dense(2), cd.Dense(1)], loss="mse", seed=0).build(3)
    assert list(net.parameters()) == ["1.weight", "1.bias", "2.weight", "2.bias"]
    assert [a.shape for a in net.parameters().values()] == [(3, 2), (2,), (2, 1), (1,)]
    for array in net.parameters().values():
        array[...] = 1
    np.testing.assert_array_equal(net.predict([[1, 2, 3]]), [[15]])
    assert list(net.gradients()) == list(net.parameters())


def test_schedules_reach_the_steps_and_the_history(rng):
    X, y = rng.random((64, 5)), rng.integers(0, 2, 64)
    seen = []
    net = cd.Network(
        [cd.Dense(8), cd.ReLU(), cd.Dropout(cd.schedules.Step(0.5, 0.0, at=0.5)), cd.Dense(2)],
        optimizer=cd.SGD(lambda progress: seen.append(progress) or 0.1 * (1 - progress)), seed=0,
    )  # fmt: skip
    history = net.fit(X, y, epochs=4, batch_size=16, verbose=0)
    assert history.metrics["2.rate"] == [0.5, 0.5, 0.0, 0.0]
    np.testing.assert_allclose(seen[-16:], np.arange(16) / 16)
    np.testing.assert_allclose(history.metrics["learning_rate"], 0.1 * (1 - np.array([3, 7, 11, 15]) / 16))


@pytest.mark.parametrize(("limit", "scale"), [(1e-30, 1e-28), (1e25, 1e30)])
def test_max_norm_holds_where_squares_leave_the_range_of_float32(limit, scale):
    """Of weights of 1e-28 the squares are 0 in float32, of 1e30 infinite: no bound, and weights of 0."""
    net = cd.Network([cd.Dense(9, max_norm=limit)], loss="mse", optimizer=cd.SGD(0.0), seed=0).build(20)
    weight = net.parameters()["0.weight"]
    weight *= np.float32(scale)
    before = weight.astype(np.float64)
    net.train_on_batch(np.zeros((4, 20)), np.zeros((4, 9)))
    np.testing.assert_allclose(weight, before * limit / np.linalg.norm(before, axis=0), rtol=1e-5)


def test_max_norm_holds_after_every_step(rng):
    net = cd.Network([cd.Dense(20, max_norm=0.7), cd.ReLU(), cd.Dense(3)], optimizer=cd.SGD(1.0), seed=0)
    X, y = rng.standard_normal((40, 6)) * 3, rng.integers(0, 3, 40)
    for _ in range(5):
        net.train_on_batch(X, y)
        assert np.sqrt((net.parameters()["0.weight"] ** 2).sum(axis=0)).max() <= 0.7 * (1 + 1e-6)


def test_divergence_raises_with_epoch_and_batch_and_restores_the_last_epoch(rng):
    X, y = rng.standard_normal((96, 4)) * 100, rng.standard_normal(96) * 100
    net = cd.Network([cd.Dense(50), cd.ReLU(), cd.Dense(1)], loss="mse", optimizer=cd.SGD(1e-7), seed=0)
    net.fit(X, y, epochs=1, batch_size=32, verbose=0)
    before = {name: array.copy() for name, array in net.parameters().items()}
    net.optimizer = cd.SGD(1e7)
    with pytest.raises(cd.DivergedError, match=r"epoch 1, batch \d") as caught:
        net.fit(X, y, epochs=3, batch_size=32, verbose=0)
    assert caught.value.epoch == 1
    assert caught.value.batch in (2, 3)
    for name, array in net.parameters().items():
        np.testing.assert_array_equal(array, before[name])


def test_train_on_batch_leaves_the_parameters_when_the_loss_is_not_finite(rng):
    net = cd.Network([cd.Dense(2)], loss="mse", optimizer="sgd", seed=0).build(2)
    net.parameters()["0.weight"][...] = 1e30
    with pytest.raises(cd.DivergedError):
        net.train_on_batch(np.full((3, 2), 1e30), np.zeros((3, 2)))
    assert (net.parameters()["0.weight"] == np.float32(1e30)).all()


def test_a_keyboard_interrupt_leaves_a_usable_network(digits):
    X, y = digits[0], digits[1]

    def interrupt(network, epoch, metrics):
        if epoch == 2:
            raise KeyboardInterrupt

    net = small()
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y, epochs=100, callbacks=[cd.callbacks.LambdaCallback(interrupt)], verbose=0)
    assert len(net.history) == 2
    assert np.isfinite(net.predict(X)).all()
    net.fit(X, y, epochs=1, verbose=0)


def test_a_signal_within_one_long_epoch_is_answered_before_the_epoch_ends():
    """One epoch of this network takes minutes; the test returns because the engine comes back to Python."""
    script = """
import _thread, faulthandler, signal, threading, numpy as np, cydrop as cd
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in a shell's background ignores it
faulthandler.dump_traceback_later(100, exit=True)  # where it is, should it not come back
X = np.zeros((200_000, 512), dtype=np.float32)
net = cd.Network([cd.Dense(1024), cd.ReLU(), cd.Dropout(0.5), cd.Dense(1024), cd.ReLU(), cd.Dense(10)], seed=0)
net.build(512)
threading.Timer(0.5, _thread.interrupt_main).start()
try:
    net.fit(X, np.zeros(200_000, dtype=int), epochs=100, verbose=0)
except KeyboardInterrupt:
    print("interrupted after", len(net.history), "epochs")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "interrupted after 0 epochs", done.stderr


def test_pickle_and_deepcopy_go_on_with_the_same_bits(digits):
    X, y = digits[0][:300], digits[1][:300]
    net = small()
    net.fit(X, y, epochs=2, verbose=0)
    twins = [pickle.loads(pickle.dumps(net)), copy.deepcopy(net)]
    net.fit(X, y, epochs=1, verbose=0)
    for twin in twins:
        twin.fit(X, y, epochs=1, verbose=0)
        assert twin.predict(X).tobytes() == net.predict(X).tobytes()
    assert not pickle.loads(pickle.dumps(small())).history.metrics
    one = copy.deepcopy(small(n_threads=1))
    assert one.n_threads == 1


def test_summary_counts_the_parameters():
    net = small()
    assert "not built yet" in net.summary()
    text = net.build(64).summary()
    assert "2,410 parameters" in text
    assert "2,080" in text
    assert "Dropout(rate=0.5" in text
    assert "cross_entropy" in text


def test_verbose_prints_a_line_an_epoch_and_0_is_silent(digits, capsys):
    X, y = digits[0][:200], digits[1][:200]
    small().fit(X, y, epochs=3, verbose=0)
    assert capsys.readouterr().out == ""
    small().fit(X, y, epochs=3, verbose=1, validation_split=0.2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/3")
    assert "val_loss" in lines[0]
    small().fit(X, y, epochs=3)
    assert capsys.readouterr().out == ""


def test_importing_cydrop_imports_nothing_but_numpy():
    script = (
        "import sys; before = {m.partition('.')[0] for m in sys.modules}; import numpy, cydrop;"
        "extra = {m.partition('.')[0] for m in sys.modules} - before - set(sys.stdlib_module_names);"
        "print(sorted(m for m in extra if m != 'cython_runtime' and not m.startswith('_')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['cydrop', 'numpy']"


def test_show_config_tells_what_a_bug_report_needs():
    config = cd.show_config()
    assert config["cydrop"] == cd.__version__
    assert config["simd"] in config["simd_available"]
    assert config["n_threads"] >= 1


def test_the_number_of_threads_can_be_set_in_the_environment():
    script = "import cydrop as cd; print(cd.Network([cd.Dense(1)]).n_threads)"
    import os

    for wish, expected in (("1", "1"), ("3", "3" if cd.show_config()["openmp"] else "1")):
        done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "CYDROP_NUM_THREADS": wish},
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout.strip() == expected
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "CYDROP_NUM_THREADS": "many"},
                          capture_output=True, text=True)  # fmt: skip
    assert "CYDROP_NUM_THREADS must be a whole number" in done.stderr


def test_another_optimizer_can_be_assigned_in_mid_training(rng):
    X, y = rng.random((40, 3)), rng.integers(0, 2, 40)
    net, fresh = (cd.Network([cd.Dense(2)], optimizer="sgd", seed=0) for _ in range(2))
    net.fit(X, y, epochs=1, verbose=0)
    net.optimizer = cd.Adam(0.1)
    fresh.optimizer = cd.Adam(0.1)
    fresh.build(3)
    for name, array in fresh.parameters().items():
        array[...] = net.parameters()[name]
    for one in (net, fresh):
        one.train_on_batch(X, y)
    np.testing.assert_array_equal(net.predict(X), fresh.predict(X))


def test_batches_of_ever_new_sizes_do_not_fill_the_memory(rng):
    net = cd.Network([cd.Dense(2)], seed=0)
    for rows in range(1, 30):
        net.train_on_batch(rng.random((rows, 3)), rng.integers(0, 2, rows))
        net.predict(rng.random((40, 3)), batch_size=rows)
    assert sum(len(idle) for idle in core_of(net).model.idle.values()) <= 4


def test_a_layer_of_several_parts_needs_several_names_for_its_arrays():
    class Twice(cd.layers.Layer):
        def lower(self, plan):
            cd.Dense(4).lower(plan)
            cd.Dense(3).lower(plan)

    with pytest.raises(ValueError, match=r"layers\[1\] has two arrays that are called 'weight'"):
        cd.Network([cd.Dense(2), Twice()]).build(5)


def test_a_layer_that_does_not_say_what_it_computes_is_refused():
    class Silent(cd.layers.Layer):
        pass

    message = r"layers\[0\] is Silent\(\), which does not say .*: its class needs a method lower\(plan\)"
    with pytest.raises(TypeError, match=message):
        cd.Network([Silent()])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("convolution", {}, "'convolution' is none of the kinds dense, map, noise, norm"),
        ("noise", {"variant": "pink"}, "'pink' is none of the kinds multiply, add, alpha"),
        ("map", {"activation": "swish"}, "'swish' is none of the kinds identity, relu"),
    ],
)
def test_what_the_engine_does_not_know_is_refused(kind, options, message):
    class Unknown(cd.layers.Layer):
        def lower(self, plan):
            plan.operation(kind, plan.shape, **options)

    with pytest.raises(ValueError, match=message):
        cd.Network([Unknown()]).build(5)


@pytest.mark.parametrize(
    ("lower", "message"),
    [
        (lambda plan: None, "the layers put no operation into the plan"),
        (lambda plan: plan.operation("dense", (3,)), "a 'dense' operation of 5 to 3 units has not the parameters it"),
        (lambda plan: plan.operation("norm", plan.shape, variant="rows"), "has not the parameters it needs"),
        (lambda plan: plan.operation("map", (3,)), "a 'map' operation cannot make 3 units of 5"),
        (lambda plan: plan.operation("noise", (9,), variant="add"), "a 'noise' operation cannot make 9 units of 5"),
    ],
)
def test_an_operation_that_would_read_what_is_not_there_is_refused(lower, message):
    class Wrong(cd.layers.Layer):
        def lower(self, plan):
            lower(plan)

    with pytest.raises(ValueError, match=message):
        cd.Network([Wrong()]).build(5)


class Own(cd.Network):
    """A network with attributes of its own."""


def test_attributes_of_a_subclass_are_pickled_whatever_they_are_called():
    net = Own([cd.Dense(2)])
    net.epochs, net.root, net.threads_of_machine = 50, "/data", None
    for one in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), copy.copy(net.build(3))):
        assert (one.epochs, one.root, one.threads_of_machine) == (50, "/data", None)


def test_the_summary_asks_the_plan_for_the_widths():
    class Block(cd.layers.Layer):
        def lower(self, plan):
            cd.Dense(3).lower(plan)

    assert "(n, 3)" in cd.Network([cd.Dense(4), Block()], loss="mse").build(5).summary()

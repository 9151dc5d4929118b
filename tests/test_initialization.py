"""Parameters that are initialised from data, layer by layer: RealMLP's beginning."""

import math
import pickle

import numpy as np
import pytest

import cydrop as cd
from cydrop import reference
from cydrop._run import initialization
from cydrop._run.core import core_of


def rows(n=400, columns=7, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, columns)) * rng.uniform(0.1, 3, columns) + 1).astype(np.float32)


def network(*sizes, activation="selu", **options):
    layers = [cd.Dense(size, activation=activation) for size in sizes]
    return cd.Network([*layers, cd.Dropout(0.4), cd.Dense(3)], seed=options.pop("seed", 0), **options)


def weights(net):
    return {name: array.copy() for name, array in net.parameters().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_what_every_dense_layer_computes_has_deviation_1_and_its_zero_among_the_rows():
    X = rows()
    net = network(40, 30).initialize(X)
    x, found = X.astype(np.float64), net.parameters()
    for place in (0, 1, 3):
        product = x @ found[f"{place}.weight"].astype(np.float64)
        np.testing.assert_allclose(product.std(axis=0), 1, rtol=2e-5)
        bias = found[f"{place}.bias"]
        assert (product.min(axis=0) <= -bias).all()
        assert (-bias <= product.max(axis=0)).all()
        assert len(np.unique(bias)) == len(bias)
        x = reference.selu(product + bias)


def test_directions_of_weights_are_those_of_normal_numbers_and_biases_mean_five_rows():
    X = rows(2000, 5, seed=1)
    net = cd.Network([cd.Dense(20_000)], loss="mse", seed=0).initialize(X)
    weight, bias = (array.astype(np.float64) for array in net.parameters().values())
    whitened = np.linalg.cholesky(np.cov(X.T.astype(np.float64), bias=True)).T @ weight
    np.testing.assert_allclose((whitened**2).sum(axis=0), 1, rtol=1e-3)  # a deviation of 1, seen another way
    direction = weight / np.sqrt((weight**2).sum(axis=0))
    np.testing.assert_allclose(direction.mean(axis=1), 0, atol=0.02)
    np.testing.assert_allclose((direction @ direction.T) / direction.shape[1], np.eye(5) / 5, atol=0.01)
    away = bias + X.mean(axis=0, dtype=np.float64) @ weight
    assert away.mean() == pytest.approx(0, abs=0.02)
    # weights that are uniform among those with the sum 1 have squares of mean 2 / (5 * 6): 1/3 for five rows
    assert away.var() == pytest.approx(1 / 3, rel=0.05)


def test_the_size_of_the_inputs_does_not_matter():
    X = rows()
    small, large = (network(20).initialize(X * np.float32(factor)) for factor in (1, 64))
    np.testing.assert_allclose(small.parameters()["0.weight"], 64 * large.parameters()["0.weight"], rtol=1e-5)
    np.testing.assert_allclose(small.predict(X), large.predict(64 * X), rtol=1e-3, atol=1e-5)


def test_both_parametrizations_begin_with_the_same_products():
    X = rows()
    plain, ntk = (
        cd.Network([cd.Dense(20, parametrization=name), cd.ReLU(), cd.Dense(3)], seed=0).initialize(X)
        for name in ("standard", "ntk")
    )
    assert_same(weights(plain), weights(ntk))


def test_the_same_seed_and_rows_give_the_same_bits_again_on_any_number_of_threads():
    X = rows(3000, 30)
    wanted = weights(network(50, 40, n_threads=1).initialize(X))
    for n_threads in (1, 2, 3):
        net = network(50, 40, n_threads=n_threads)
        assert_same(weights(net.initialize(X)), wanted)
        assert_same(weights(net.initialize(X)), wanted)
        assert_same(weights(net.initialize(X.astype(np.float64).tolist())), wanted)
    seeded = network(50, 40).initialize(X, seed=5)
    assert (seeded.parameters()["0.weight"] != wanted["0.weight"]).any()
    assert_same(weights(network(50, 40, seed=9).initialize(X, seed=5)), weights(seeded))


def test_layers_without_parameters_shift_nobody_s_random_numbers():
    X = rows()
    plain = cd.Network([cd.Dense(20), cd.Dense(3)], seed=0).initialize(X)
    with_more = cd.Network([cd.Dropout(0.2), cd.Dense(20), cd.Dropout(0.5), cd.Dense(3)], seed=0).initialize(X)
    for first, second in zip(plain.parameters().values(), with_more.parameters().values(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_trained_network_begins_again_and_goes_on_as_a_new_one():
    X, y = rows(), np.arange(400) % 3
    old, new = network(20, optimizer="adamw"), network(20, optimizer="adamw")
    old.fit(X, y, epochs=3, verbose=0)
    moments = core_of(old).model.moments
    old.initialize(X)
    assert_same(weights(old), weights(new.initialize(X)))
    assert not any(moment.any() for moment in moments)
    assert core_of(old).model.ready().updates == 0
    core_of(new).model.ready().draws = core_of(old).model.ready().draws
    for net in (old, new):
        net.train_on_batch(X, y)
    assert_same(weights(old), weights(new))


def test_files_and_pickles_hold_what_it_began_with(tmp_path):
    net = network(20).initialize(rows())
    net.save(tmp_path / "n")
    for again in (cd.load(tmp_path / "n"), pickle.loads(pickle.dumps(net))):
        assert_same(weights(again), weights(net))


class Centred(cd.LayerNorm):
    """A layer that learns something from rows."""

    def initialize(self, x, arrays):
        self.__dict__["seen"] = x.copy()
        arrays["bias"][...] = x.mean(axis=0)


def test_every_layer_may_look_at_the_rows_that_come_into_it():
    X = rows()
    layer = Centred()
    net = cd.Network([cd.Dense(20, activation="relu"), layer, cd.Dense(3)], seed=0).initialize(X)
    found = net.parameters()
    seen = reference.relu(X.astype(np.float64) @ found["0.weight"] + found["0.bias"])
    np.testing.assert_allclose(layer.seen, seen, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["1.bias"], layer.seen.mean(axis=0))
    np.testing.assert_allclose(net.forward(X).std(axis=0), 1, rtol=1e-4)


def test_layers_within_a_layer_can_be_filled_by_the_same_function():
    X = rows()
    net = network(20)
    wanted = weights(net.initialize(X))
    arrays = {name: np.zeros_like(array) for name, array in wanted.items()}
    root = core_of(net).root
    initialization.fill(net.layers, X, arrays, cd._base.seeding.branch(root, cd._base.seeding.FROM_DATA))
    assert_same(arrays, wanted)


def test_other_layers_keep_what_they_hold():
    X, y = rows(), np.arange(400) % 3
    net = cd.Network([cd.Dense(8), cd.BatchNorm(), cd.ReLU(), cd.Dense(3)], seed=0)
    net.fit(X, y, epochs=2, verbose=0)
    before, running = weights(net), {name: array.copy() for name, array in net.buffers().items()}
    net.initialize(X)
    np.testing.assert_array_equal(net.parameters()["1.weight"], before["1.weight"])
    assert_same(dict(net.buffers()), running)
    assert (net.parameters()["0.weight"] != before["0.weight"]).all()


def test_without_bias_there_is_none():
    net = cd.Network([cd.Dense(8, bias=False), cd.Dense(3, bias=False)], seed=0).initialize(rows())
    assert list(net.parameters()) == ["0.weight", "1.weight"]
    np.testing.assert_allclose(net.forward(rows()).std(axis=0), 1, rtol=1e-5)


def one_row_differs():
    X = np.ones((50, 7))
    X[13, 2] = 2.0
    return X


@pytest.mark.parametrize(
    "X",
    [
        rows(1), rows(2), np.zeros((5, 7)), np.full((5, 7), 0.3), np.full((5, 7), 1e30), one_row_differs(),
        rows() * 1e30, rows() * 1e-30, np.eye(7) * 1e-38,
    ],
    ids=["1 row", "2 rows", "zeros", "the same", "the same, large", "all but one", "1e30", "1e-30", "nearly zero"],
)  # fmt: skip
def test_rows_that_say_little_give_finite_parameters(X):
    net = network(20, 10).initialize(X)
    for array in net.parameters().values():
        assert np.isfinite(array).all()
    assert np.isfinite(net.forward(X)).all()
    if (np.asarray(X) == X[0]).all():  # nothing to divide by: standard normal numbers over the root of 7
        assert net.parameters()["0.weight"].std() * math.sqrt(7) == pytest.approx(1, abs=0.2)


def test_numbers_that_float32_cannot_compute_with_are_refused_and_change_nothing():
    net = network(20).build(7)
    before = weights(net)
    with pytest.raises(ValueError, match="X has numbers that are too large"):
        net.initialize(rows() * np.float32(1e38 / 3))
    assert_same(weights(net), before)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.full((3, 7), np.nan), ValueError, "X"),
        (np.zeros((3, 6)), ValueError, "X"),
        (np.zeros((0, 7)), ValueError, "X"),
        (np.zeros(7), ValueError, "X"),
        ([["a"] * 7], TypeError, "X"),
    ],
)
def test_rows_that_cannot_be_are_refused_by_name(X, error, message):
    net = network(20).build(7)
    before = weights(net)
    with pytest.raises(error, match=message):
        net.initialize(X)
    with pytest.raises(ValueError, match="seed must not be negative"):
        net.initialize(rows(), seed=-1)
    assert_same(weights(net), before)


def test_of_very_many_rows_the_first_are_used(monkeypatch):
    X = rows(300)
    wanted = weights(network(20).initialize(X[:100]))
    monkeypatch.setattr(initialization, "MOST_BYTES", 100 * 20 * 4)
    assert_same(weights(network(20).initialize(X)), wanted)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 1023, 1024, 1025, 3000])
def test_deviations_are_those_of_numpy(n, rng):
    z = (rng.standard_normal((n, 5)) * [1, 1e-3, 100, 1e20, 1] + [0, 5, 1e3, 0, 1]).astype(np.float32)
    z[:, 4] = 0.1
    wanted = z.astype(np.float64).std(axis=0)
    found = initialization.deviations(z)
    np.testing.assert_allclose(found[:4], wanted[:4], rtol=1e-12)
    assert found[4] == 0

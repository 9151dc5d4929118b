"""Factors of learning rate and weight decay that a layer gives its parameters, and gains: the plan's segments."""

import math
import pickle

import numpy as np
import pytest
from oracle import assert_same_training

import cydrop as cd
from cydrop._run.core import core_of


class Slower(cd.Dense):
    """A dense layer whose weight and bias learn in ways of their own."""

    def lower(self, plan):
        super().lower(plan)
        weight, bias = plan.parameters[-2:]
        weight.factors, bias.factors = (0.5, 0.25, 0.25), (2.0, 1.5, 0.0)


OPTIMIZERS = [
    cd.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    cd.SGD(0.1),
    cd.RMSprop(1e-2, epsilon=1e-3, weight_decay=0.1),
    cd.Adagrad(0.05, epsilon=1e-3, weight_decay=0.1),
    cd.Adam(1e-2, epsilon=1e-3, weight_decay=0.1),
    cd.AdamW(1e-2, epsilon=1e-3, weight_decay=0.2),
]


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("units", [24, 700])  # one pass over the arenas, or inside the gradient's product
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_factors_and_gains_are_those_of_one_parameter(rng, optimizer, units, clip_norm):
    optimizer = type(optimizer)(**(optimizer.options() | {"clip_norm": clip_norm}))
    net = cd.Network(
        [Slower(units), cd.Tanh(), cd.Dropout(0.4), cd.LayerNorm(), cd.Dense(3)], optimizer=optimizer, seed=1
    )
    X, y = rng.standard_normal((19, 21)), rng.integers(0, 3, 19)
    assert_same_training(net, X, y, rtol=2e-5 if isinstance(optimizer, cd.SGD) else 2e-3)


@pytest.mark.parametrize("units", [24, 700])
def test_units_that_are_left_out_take_their_factors_too(rng, units):
    layers = [Slower(units), cd.ReLU(), cd.Dropout(0.6, shared="batch"), Slower(40), cd.Dense(3)]
    net = cd.Network(layers, optimizer=cd.SGD(0.1, weight_decay=0.05), seed=1)
    assert_same_training(net, rng.standard_normal((19, 21)), rng.integers(0, 3, 19))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_factor_of_0_keeps_a_parameter_where_it_is(rng, n_threads):
    class Frozen(cd.Dense):
        def lower(self, plan):
            super().lower(plan)
            plan.parameters[-2].factors = (0.0, 1.0, 1.0)

    net = cd.Network([Frozen(700), cd.ReLU(), cd.Dense(3)], optimizer="adamw", seed=1, n_threads=n_threads).build(21)
    before = {name: array.copy() for name, array in net.parameters().items()}
    net.fit(rng.standard_normal((60, 21)), rng.integers(0, 3, 60), epochs=2, verbose=0)
    moved = {name: bool((array != before[name]).any()) for name, array in net.parameters().items()}
    assert moved == {"0.weight": False, "0.bias": True, "2.weight": True, "2.bias": True}


def test_segments_are_there_only_where_a_factor_is_not_1():
    plain, slower = (cd.Network([dense(5), cd.Dense(3)]).build(4) for dense in (cd.Dense, Slower))
    assert core_of(plain).plan.segments == []
    assert core_of(slower).plan.segments == [
        (0, 20, 0.5, 0.25, 0.25), (32, 5, 2.0, 1.5, 0.0), (48, 15, 1.0, 1.0, 1.0), (64, 3, 1.0, 1.0, 1.0)
    ]  # fmt: skip


def test_a_bias_alone_may_differ(rng):
    """Where all others have factors of 1, they get the bits of a network without any."""

    class Bias(cd.Dense):
        def lower(self, plan):
            super().lower(plan)
            plan.parameters[-1].factors = (3.0, 1.0, 1.0)

    X, y = rng.standard_normal((60, 21)), rng.integers(0, 3, 60)
    found = []
    for last in (cd.Dense(3), Bias(3)):
        net = cd.Network([cd.Dense(700), cd.ReLU(), last], optimizer=cd.SGD(0.1), seed=1)
        net.train_on_batch(X, y)
        found.append({name: array.copy() for name, array in net.parameters().items()})
    plain, other = found
    assert all((plain[name] == other[name]).all() for name in plain if name != "2.bias")
    assert (plain["2.bias"] != other["2.bias"]).all()


# As options of layers -----------------------------------------------------------------------------------------

BOTH = {"learning_rate_factor": {"weight": 0.5, "bias": 2.0}, "decay_factor": {"bias": 0.0}}
WITH_FACTORS = [
    cd.Dense(24, **BOTH),
    cd.Dense(24, learning_rate_factor=0.25, decay_factor=3.0),
    cd.LayerNorm(**BOTH),
    cd.BatchNorm(**BOTH),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("layer", WITH_FACTORS, ids=repr)
def test_a_layer_s_options_are_factors(rng, layer, optimizer):
    net = cd.Network([cd.Dense(24), layer, cd.Tanh(), cd.Dense(3)], optimizer=optimizer, seed=1)
    X, y = rng.standard_normal((19, 21)), rng.integers(0, 3, 19)
    assert_same_training(net, X, y, rtol=2e-5 if isinstance(optimizer, cd.SGD) else 2e-3)
    found = {p.name: p.factors for p in core_of(net).plan.parameters if p.name.startswith("1.")}
    assert found == {"1.weight": layer.factors("weight"), "1.bias": layer.factors("bias")}


def test_decoupled_decay_is_multiplied_by_both_factors():
    """As in a parameter group of PyTorch, with lr and weight_decay of its own."""
    last = cd.Dense(3, bias_init="glorot_uniform", learning_rate_factor=0.5, decay_factor={"weight": 4.0, "bias": 0.0})
    net = cd.Network([last], optimizer=cd.AdamW(0.1, weight_decay=0.2), loss="mse", seed=0).build(5)
    before = {name: array.copy() for name, array in net.parameters().items()}
    for array in net.gradients().values():
        array[...] = 0.0
    net.step()
    np.testing.assert_allclose(net.parameters()["0.weight"], before["0.weight"] * (1 - (0.1 * 0.5) * (0.2 * 4.0)))
    np.testing.assert_array_equal(net.parameters()["0.bias"], before["0.bias"])


@pytest.mark.parametrize("layer", WITH_FACTORS, ids=repr)
def test_files_and_pickles_keep_factors(layer, tmp_path, rng):
    X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    net = cd.Network([layer, cd.Dense(3)], seed=0)
    net.fit(X, y, epochs=1, verbose=0)
    net.save(tmp_path / "n")
    for again in (cd.load(tmp_path / "n"), pickle.loads(pickle.dumps(net))):
        assert again.layers[0].options().keys() == layer.options().keys()
        assert again.layers[0].decay_factor == layer.decay_factor
        again.fit(X, y, epochs=1, verbose=0)
        mine = cd.load(tmp_path / "n")
        mine.fit(X, y, epochs=1, verbose=0)
        np.testing.assert_array_equal(again.predict(X), mine.predict(X))


@pytest.mark.parametrize("cls", [cd.Dense, cd.LayerNorm, cd.BatchNorm])
def test_descriptions_and_pickles_from_before_factors_mean_factors_of_1(cls):
    layer = cls(4) if cls is cd.Dense else cls()
    old = {name: value for name, value in layer.config().items() if not name.endswith("_factor")}
    assert repr(cd.layers.from_config(old)) == repr(layer)
    state = {name: value for name, value in vars(layer).items() if not name.endswith("_factor")}
    unpickled = cls.__new__(cls)
    unpickled.__dict__.update(state)
    assert repr(unpickled) == repr(layer)
    assert unpickled.factors("weight") == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("option", ["learning_rate_factor", "decay_factor"])
@pytest.mark.parametrize(
    ("factor", "error"),
    [
        (-1, ValueError),
        (math.nan, ValueError),
        (1e39, ValueError),
        ("1", TypeError),
        (None, TypeError),
        ([1, 1], TypeError),
        ({"weights": 1}, ValueError),
        ({"bias": -1}, ValueError),
        ({"bias": "1"}, TypeError),
    ],
)
@pytest.mark.parametrize("make", [lambda **o: cd.Dense(3, **o), cd.LayerNorm, cd.BatchNorm])
def test_a_factor_that_cannot_be_is_refused_by_name(make, option, factor, error):
    with pytest.raises(error, match=option):
        make(**{option: factor})


def test_a_layer_with_a_learning_rate_of_0_is_frozen(rng):
    frozen = cd.Dense(8, activation="relu", learning_rate_factor=0)
    net = cd.Network([frozen, cd.Dense(3)], optimizer="adamw", seed=0).build(6)
    before = net.parameters()["0.weight"].copy()
    net.fit(rng.standard_normal((40, 6)), rng.integers(0, 3, 40), epochs=2, verbose=0)
    np.testing.assert_array_equal(net.parameters()["0.weight"], before)


# The NTK parametrisation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_the_ntk_parametrization_trains_as_a_layer_of_rows_that_are_divided(rng, optimizer):
    """x V / sqrt(inputs) written out: a plain layer whose input is x / sqrt(inputs), and whose weight is V."""
    X, y = rng.standard_normal((40, 9)), rng.integers(0, 3, 40)
    ntk = cd.Network([cd.Dense(3, parametrization="ntk")], optimizer=optimizer, seed=1).build(9)
    plain = cd.Network([cd.Dense(3)], optimizer=optimizer, seed=1).build(9)
    plain.parameters()["0.weight"][...] *= 3.0
    for _ in range(20):
        assert ntk.train_on_batch(X, y) == pytest.approx(plain.train_on_batch(X / 3.0, y), rel=1e-4)
    np.testing.assert_allclose(3.0 * ntk.parameters()["0.weight"], plain.parameters()["0.weight"], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(ntk.parameters()["0.bias"], plain.parameters()["0.bias"], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("units", [24, 700])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_deep_ntk_networks_train_as_the_plain_network(rng, optimizer, units):
    options = {"parametrization": "ntk", "learning_rate_factor": {"bias": 0.1}, "decay_factor": {"weight": 0.5}}
    layers = [cd.Dense(units, **options), cd.Tanh(), cd.Dropout(0.4), cd.Dense(3, **options)]
    net = cd.Network(layers, optimizer=optimizer, seed=1)
    X, y = rng.standard_normal((19, 21)), rng.integers(0, 3, 19)
    assert_same_training(net, X, y, rtol=5e-5 if isinstance(optimizer, cd.SGD) else 5e-3)


def test_files_know_the_parametrization_and_those_from_before_mean_the_standard(tmp_path):
    net = cd.Network([cd.Dense(3, parametrization="ntk")], seed=0).build(4)
    net.save(tmp_path / "n")
    assert cd.load(tmp_path / "n").layers[0].parametrization == "ntk"
    old = cd.Dense(3).config()
    del old["parametrization"]
    assert cd.layers.from_config(old).parametrization == "standard"
    with pytest.raises(ValueError, match="parametrization='mup' is not known"):
        cd.Dense(3, parametrization="mup")

"""Residual blocks: against the plain network, dropped blocks, names, files, ONNX, samples, wrong arguments."""

import copy
import json
import pickle

import numpy as np
import pytest
from digests import digest
from onnx_session import session
from oracle import assert_same_training
from plain_network import PlainNetwork

import cydrop as cd
from cydrop import functional, reference
from cydrop._run.core import core_of
from cydrop._run.plan import Plan

STACKS = {
    "plain": lambda: [cd.Dense(20), cd.Residual([cd.Dense(20, activation="relu")]), cd.Dense(3)],
    "bottleneck": lambda: [cd.Dense(20), cd.Residual([cd.LayerNorm(), cd.Dense(9), cd.Mish(), cd.Dropout(0.3),
                                                      cd.Dense(20)], drop_path=0.3), cd.Dropout(0.2), cd.Dense(3)],
    "first": lambda: [cd.Residual([cd.Dropout(0.2), cd.Scale(), cd.Tanh()], 0.4), cd.Dense(20), cd.ReLU(), cd.Dense(3)],
    "last": lambda: [cd.Dense(3), cd.Residual([cd.Dense(20), cd.Parametric("mish"), cd.Dropout(0.2), cd.Dense(3)],
                                              0.2)],
    "after an epilogue": lambda: [cd.Dense(20, activation="selu"), cd.Dropout(0.3),
                                  cd.Residual([cd.GELU(), cd.Dense(20)]), cd.ReLU(), cd.Dropout(0.2), cd.Dense(3)],
    "nested": lambda: [cd.Dense(20), cd.Residual([cd.Residual([cd.Dense(20), cd.SiLU()], 0.3), cd.Dropout(0.2),
                                                  cd.Residual([cd.Dense(20)], 0.5)], 0.2), cd.Dense(3)],
    "without parameters": lambda: [cd.Residual([cd.Tanh(), cd.Dropout(0.2)], 0.3), cd.Residual([cd.ReLU()]),
                                   cd.Dense(3)],
    "shared masks inside": lambda: [cd.Dense(20), cd.Residual([cd.Dense(20), cd.ReLU(), cd.Dropout(0.5, shared="batch"),
                                                               cd.Dense(20)], 0.3), cd.Dense(3)],
    "noise and norms": lambda: [cd.Dense(20), cd.Residual([cd.BatchNorm(), cd.GaussianDropout(0.2), cd.Dense(20),
                                                           cd.AlphaDropout(0.1)], 0.1), cd.Dense(3)],
    "dropped weights": lambda: [cd.Dense(20), cd.Residual([cd.Dense(20, drop_connect=0.3)], 0.1), cd.Dense(3)],
}  # fmt: skip
STEADY = {name: stack for name, stack in STACKS.items() if name != "noise and norms"}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("optimizer", [cd.SGD(0.1, momentum=0.5), cd.SGD(0.1, clip_norm=0.1)], ids=["fused", "clipped"])
@pytest.mark.parametrize("features", [11, 900], ids=["small", "large"])
def test_training_and_prediction_are_the_plain_networks(stack, optimizer, features, rng):
    X, y = rng.standard_normal((19, features)), rng.integers(0, 3, 19)
    net = cd.Network(stack(), optimizer=optimizer, seed=2).build(features)
    assert_same_training(net, X, y, rtol=2e-4)
    expected = PlainNetwork(net).forward(X)
    np.testing.assert_allclose(net.forward(X), expected, rtol=0, atol=1e-4 * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("stack", STEADY.values(), ids=STEADY)
def test_gradients_are_finite_differences_of_the_loss(stack, rng):
    X, y = rng.standard_normal((13, 6)), rng.integers(0, 3, 13)
    net = cd.Network(stack(), optimizer=cd.SGD(0.0), seed=2).build(6)
    plain = PlainNetwork(net)
    z = net.forward(X, training=True)
    p = np.exp(z.astype(float) - z.max(axis=1, keepdims=True).astype(float))
    p /= p.sum(axis=1, keepdims=True)
    dX = net.backward((p - np.eye(3)[y]) / 13)
    masks = net.masks()

    def loss(X):
        return plain.loss_of(plain.forward(X, masks), y)[0]

    for name, gradient in net.gradients().items():
        array = plain.parameters[name]
        for place in {tuple(rng.integers(0, n) for n in array.shape) for _ in range(4)}:
            before, losses = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = before + step
                losses.append(loss(X))
            array[place] = before
            assert gradient[place] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=2e-5), name
    for place in ((0, 0), (7, 3), (12, 5)):
        step = np.zeros_like(X)
        step[place] = 1e-6
        assert dX[place] == pytest.approx((loss(X + step) - loss(X - step)) / 2e-6, abs=2e-5)


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_trained_networks_have_the_same_bits_on_any_number_of_threads(stack, rng):
    X, y = rng.standard_normal((700, 90)), rng.integers(0, 3, 700)
    results = set()
    for n_threads in (1, 2, 3):
        net = cd.Network(stack(), seed=1, n_threads=n_threads)
        net.fit(X, y, epochs=2, verbose=0)
        state = [net.predict(X), *net.buffers().values()]
        if len(core_of(net).plan.draws):
            state.append(net.predict_mc(X, 5, seed=0).mean)
        results.add(digest(net) + str([array.tobytes() for array in state]))
    assert len(results) == 1


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_files_and_pickles_predict_the_same(stack, rng, tmp_path):
    X, y = rng.standard_normal((50, 6)).astype(np.float32), rng.integers(0, 3, 50)
    net = cd.Network(stack(), seed=1)
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    net.save(tmp_path / "net")
    copies = [cd.load(tmp_path / "net"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)]
    for one in (net, *copies):
        one.fit(X, y, epochs=2, batch_size=16, verbose=0)
    for one in copies:
        assert one.predict(X).tobytes() == net.predict(X).tobytes()
        assert repr(one.layers) == repr(net.layers)


@pytest.mark.extras
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_onnx_models_predict_the_same(stack, rng):
    X, y = rng.standard_normal((50, 6)).astype(np.float32), rng.integers(0, 3, 50)
    net = cd.Network(stack(), seed=1)
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    for mc in (False, True):
        (found,) = session(cd.onnx.to_model(net, mc=mc)).run(None, {"X": X})
        np.testing.assert_allclose(found, net.predict(X), rtol=1e-4, atol=1e-5)


# Stochastic depth -------------------------------------------------------------------------------------------


def doubling(drop_path):
    """A network that gives x + 2 x / (1 - drop_path) or x, for two columns."""
    net = cd.Network([cd.Residual([cd.Scale()], drop_path)], loss="mse", seed=4).build(2)
    net.parameters()["0.0.weight"][...] = 2
    return net


def test_a_row_is_dropped_as_a_whole_and_what_is_kept_is_scaled():
    net, x = doubling(0.2), np.ones((5000, 2), dtype=np.float32)
    y = net.forward(x, training=True)
    (mask,) = net.masks()
    assert mask.shape == (5000,)
    np.testing.assert_allclose(y, np.where(mask, 1 + 2 / 0.8, 1)[:, None] * x, rtol=1e-6)
    assert mask.mean() == pytest.approx(0.8, abs=0.02)
    np.testing.assert_array_equal(net.layers[0].mask, mask)
    np.testing.assert_array_equal(net.predict(x), 3 * x)


def test_dropped_rows_give_the_block_no_gradient():
    net, x = doubling(0.5), np.ones((6, 2), dtype=np.float32)
    mask = np.array([True, False, True, True, False, False])
    net.forward(x, training=True, masks=[mask])
    dx = net.backward(np.ones((6, 2)))
    np.testing.assert_array_equal(dx[:, 0], np.where(mask, 5, 1))
    assert net.gradients()["0.0.weight"].tolist() == [6, 6]


def test_rates_0_and_1_draw_nothing(rng):
    x = rng.standard_normal((9, 2)).astype(np.float32)
    np.testing.assert_allclose(doubling(0.0).forward(x, training=True), 3 * x, rtol=1e-6)
    np.testing.assert_array_equal(doubling(1.0).forward(x, training=True), x)
    np.testing.assert_allclose(doubling(1.0).predict(x), 3 * x, rtol=1e-6)
    assert core_of(doubling(0.0)).plan.draws == []


def test_what_a_dropped_row_would_have_been_does_not_matter():
    net, x = doubling(0.5), np.full((4, 2), 3e38, dtype=np.float32)
    y = net.forward(x, training=True, masks=[np.array([False, True, False, False])])
    assert np.isfinite(y).all(axis=1).tolist() == [True, False, True, True]


def test_samples_drop_blocks_and_agree_with_prediction_on_average():
    net, x = doubling(0.25), np.array([[1, 2], [3, -4]], dtype=np.float32)
    samples = net.predict_mc(x, 4000, seed=1, return_samples=True).samples
    factors = samples / x
    np.testing.assert_allclose(factors[..., 0], factors[..., 1], rtol=1e-5)
    np.testing.assert_allclose(sorted(set(factors[..., 0].round(3).ravel())), [1, 3.667], atol=1e-3)
    np.testing.assert_allclose(samples.mean(axis=0), 3 * x, rtol=0.03)
    assert abs(np.corrcoef(factors[:, 0, 0], factors[:, 1, 0])[0, 1]) < 0.06


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_samples_that_begin_within_a_block_are_those_that_begin_with_the_input(stack, rng):
    """What no draw changes is computed once for all samples. A rate of next to 0 in front makes them begin there."""
    X = rng.standard_normal((30, 20)).astype(np.float32)
    model = core_of(cd.Network([cd.Dropout(0.5), *stack()], seed=1).build(20)).model
    draws = model.plan.draws
    rates = np.array([[draw.layer.rate_at(1.0) for draw in draws]])
    seeds = np.arange(2 * len(draws), dtype=np.uint64).reshape(-1, 2)
    found = []
    for rates[0, 0] in (0.0, 1e-12):
        workspace = model.borrow(64, masked=True)
        found.append(np.empty((6, 30, 3), dtype=np.float32))
        model.engine.begin_samples(workspace, X, 2, rates)
        model.engine.samples(workspace, found[-1], 0, 0, 1, seeds, True)
    np.testing.assert_array_equal(*found)
    assert (found[0][0] != found[0][1]).any() == (len(draws) > 1)


def test_a_schedule_of_drop_path_is_followed_and_logged(rng):
    drop_path = cd.schedules.Linear(0.0, 0.5)
    net = cd.Network([cd.Dense(8), cd.Residual([cd.Dense(8)], drop_path), cd.Dense(2)], seed=0)
    net.fit(rng.standard_normal((64, 3)), rng.integers(0, 2, 64), epochs=3, verbose=0)
    logged = net.history.metrics["1.drop_path"]
    assert logged == sorted(logged)
    assert logged[-1] == pytest.approx(0.5, abs=0.2)
    net.set_rate(1, 0.25)
    assert net.layers[1].drop_path == 0.25


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (50, 7), (9,), (4, 5, 6)])
def test_drop_path_is_its_twin(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    for rate in (0.0, 0.3, 1.0):
        y, mask = functional.drop_path(x, rate, seed=3, return_mask=True)
        expected, kept = reference.drop_path(x, rate, seed=3, return_mask=True)
        np.testing.assert_array_equal(mask, kept)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(functional.drop_path(x, rate, mask=mask), expected)
        np.testing.assert_array_equal(functional.drop_path(x, rate, training=False), x)
        np.testing.assert_array_equal(
            functional.drop_path_backward(x, mask, rate), reference.drop_path_backward(x, mask, rate)
        )


# Names and plans --------------------------------------------------------------------------------------------


def test_parameters_inside_are_called_by_their_places():
    net = cd.Network(STACKS["nested"](), seed=0).build(4)
    assert list(net.parameters()) == [
        "0.weight", "0.bias", "1.0.0.weight", "1.0.0.bias", "1.2.0.weight", "1.2.0.bias", "2.weight", "2.bias",
    ]  # fmt: skip
    assert "1.0.0.weight" in cd.exchange.to_state_dict(net)
    assert "1,003 parameters" in net.summary()


def test_state_dicts_go_there_and_back(rng):
    nets = [cd.Network(STACKS["noise and norms"](), seed=seed).build(5) for seed in (0, 1)]
    cd.exchange.load_state_dict(nets[1], cd.exchange.to_state_dict(nets[0]))
    X = rng.standard_normal((8, 5))
    np.testing.assert_array_equal(nets[0].predict(X), nets[1].predict(X))


def test_a_batch_that_a_layer_inside_learns_nothing_from_is_refused(rng):
    net = cd.Network([cd.Residual([cd.BatchNorm()]), cd.Dense(2)], seed=0)
    with pytest.raises(ValueError, match="BatchNorm needs batches of at least 2 rows"):
        net.fit(rng.standard_normal((4, 3)), [0, 1, 0, 1], batch_size=1, verbose=0)


def test_layers_inside_begin_with_what_comes_into_them(rng):
    """As they would without the way around: the first of the block is given what comes into the block."""
    X = (5 + 3 * rng.standard_normal((200, 6))).astype(np.float32)
    inside = [cd.Dense(4, activation="relu"), cd.Dense(6)]
    net = cd.Network([cd.Dense(6, activation="mish"), cd.Residual(inside, 0.3), cd.Dense(2)], seed=0).build(6)
    net.initialize(X)
    found = net.parameters()
    x = X
    for word in ("0.", "1.0.", "1.1."):
        z = x @ found[f"{word}weight"]
        np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-3)
        z += found[f"{word}bias"]
        x = np.maximum(z, 0) if word == "1.0." else functional.mish(z)


def test_rows_that_a_layer_inside_cannot_take_are_refused(rng):
    net = cd.Network([cd.Residual([cd.Embedding([3, 3], 2), cd.Dense(5)]), cd.Dense(2)], seed=0)
    X = np.column_stack([rng.standard_normal((6, 3)), rng.integers(0, 3, (6, 2))])
    net.train_on_batch(X, [0, 1, 0, 1, 0, 1])
    X[4, 3] = 7
    for call in (net.predict, lambda X: net.train_on_batch(X, [0, 1, 0, 1, 0, 1])):
        with pytest.raises(ValueError, match="X"):
            call(X)


def test_a_join_must_find_its_fork():
    """The engine reads the memory that a plan's numbers lead to: it looks at them first."""
    for numbers in ((), (0,), (2,), (-1,), (10**6,)):
        plan = Plan([(4,)])
        for kind, own in (("fork", (2,)), ("map", ()), ("join", numbers)):
            plan.operation(kind, (4,), has_epilogue=kind == "map").numbers = own
        layer = cd.layers.Layer()
        object.__setattr__(layer, "lower", lambda into, plan=plan: into.ops.extend(plan.ops))
        net = cd.Network([layer], loss="mse", seed=0)
        if numbers == (2,):
            net.build(4)
        else:
            with pytest.raises(ValueError, match="'join' operation"):
                net.build(4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cd.Residual([]), ValueError, "layers is empty"),
        (lambda: cd.Residual(cd.ReLU()), TypeError, "layers must be a list of layers"),
        (lambda: cd.Residual("relu"), TypeError, "layers must be a list of layers"),
        (lambda: cd.Residual([cd.ReLU(), 3]), TypeError, r"layers\[1\] must be a cydrop layer, got 3"),
        (lambda: cd.Residual([cd.ReLU], 0.1), TypeError, r"layers\[0\] must be a cydrop layer"),
        (lambda: cd.Residual([cd.ReLU()], 1.5), ValueError, "drop_path"),
        (lambda: cd.Residual([cd.ReLU()], "often"), TypeError, "drop_path"),
        (lambda: functional.drop_path(1.0, 0.5), ValueError, "x must have rows"),
        (lambda: functional.drop_path([1.0], 2), ValueError, "rate"),
        (lambda: functional.drop_path([1.0], 0.5, mask=[True, False]), ValueError, "mask must have shape"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_block_that_changes_the_width_is_refused_when_the_widths_are_known():
    net = cd.Network([cd.Dense(5), cd.Residual([cd.Residual([cd.Dense(3)])]), cd.Dense(2)])
    with pytest.raises(ValueError, match=r"layers\[1.0\] is a Residual whose layers make 3 columns of 5.*Dense\(5\)"):
        net.build(4)
    cd.Network([cd.Residual([cd.Dense(5)]), cd.Dense(2)]).build(5)


def test_a_layer_within_that_is_not_cydrops_own_is_not_written(tmp_path):
    class Own(cd.ReLU):
        pass

    net = cd.Network([cd.Residual([cd.Residual([Own()])]), cd.Dense(2)], seed=0).build(3)
    with pytest.raises(ValueError, match=r"layers\[0\].layers\[0\].layers\[0\] is of the class"):
        net.save(tmp_path / "net")


@pytest.mark.parametrize("layers", [None, {}, [], [None], [{"layer": "Dense"}], [{"layer": "Nothing"}], "ReLU"])
def test_descriptions_that_make_no_block_are_refused(layers):
    config = json.loads(json.dumps({"layer": "Residual", "drop_path": 0.1, "layers": layers}))
    with pytest.raises((ValueError, TypeError)):
        cd.layers.from_config(config)

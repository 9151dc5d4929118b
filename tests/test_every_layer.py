"""What every layer must do, whichever it is: a new one is tested here as soon as it stands in `LAYERS` of its file."""

import copy
import gc
import json
import pickle
import weakref

import numpy as np
import pytest
from onnx_session import session
from oracle import assert_same_training
from plain_network import PlainNetwork

import cydrop as cd
from cydrop._run.core import core_of

FEATURES, ROWS = 6, 12


ARGUMENTS = {  # of the layers that need some
    cd.Dense: [5],
    cd.Parametric: ["mish"],
    cd.Embedding: [[2, 3], 4],
    cd.Residual: [[cd.LayerNorm(), cd.Tanh(), cd.Dropout(0.3)], 0.4],
    cd.Masksembles: [3, 1.5],
    cd.Members: [[cd.Dense(5, activation="tanh"), cd.Dropout(0.3), cd.Dense(3)], 4],
}


OPTIONS = {cd.Masksembles: {"seed": 5}}  # and of those that predict by what they have drawn, their seeds


def one_of(cls):
    return cls(*ARGUMENTS.get(cls, []), **OPTIONS.get(cls, {}))


EVERY = [one_of(cls) for cls in cd.layers.KNOWN.values()]
EVERY += [cd.Dropout("learn", rows=500)]
EVERY += [cd.NumericEmbedding("plr", columns=2), cd.NumericEmbedding("piecewise_linear", columns=3)]
SLOPES = {"leaky_relu", "elu"}  # activations that take a number


def network(layer, **options):
    between = [cd.Dense(7, activation="tanh"), layer, cd.Dense(3)]
    if isinstance(layer, cd.Members):  # the last
        between.pop()
    return cd.Network(between, optimizer=cd.SGD(0.05), seed=1, **options).build(FEATURES)


@pytest.fixture
def rows(rng):
    X = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    X[:, -2:] = rng.integers(0, 2, (ROWS, 2))  # codes, where a layer wants some
    return X, rng.integers(0, 3, ROWS)


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_it_predicts_and_trains_as_in_the_plain_network(layer, rows):
    X, y = rows
    net = network(layer)
    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), rtol=1e-4, atol=1e-5)
    assert_same_training(net, X, y)


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(layer, rows):
    found = []
    for n_threads in (1, 3):
        net = network(layer, n_threads=n_threads)
        net.fit(*rows, epochs=2, batch_size=5, verbose=0)
        found.append(net.predict(rows[0]).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_alone_it_is_a_network_of_one(layer, rows):
    X, _ = rows
    alone, net = one_of(type(layer)), cd.Network([one_of(type(layer))], loss="mse", seed=getattr(layer, "seed", None))
    y = alone.forward(X, training=False)
    if not net.build(FEATURES).parameters():
        np.testing.assert_array_equal(y, net.forward(X))
    out = alone.forward(X)
    assert alone.backward(np.ones_like(out)).shape == X.shape


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_nobody_keeps_a_layer_that_was_used(layer, rows):
    X, y = rows
    layer = one_of(type(layer))
    layer.forward(X)
    assert pickle.loads(pickle.dumps(layer)).options().keys() == layer.options().keys()
    net = network(layer)
    net.train_on_batch(X, y)
    last = weakref.ref(layer)
    del layer, net
    gc.collect()
    assert last() is None


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_files_pickles_and_copies_give_it_back(layer, rows, tmp_path):
    net = network(layer)
    net.fit(*rows, epochs=1, verbose=0)
    net.save(tmp_path / "n")
    copies = [cd.load(tmp_path / "n"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)]
    assert repr(cd.layers.from_config(json.loads(json.dumps(layer.config())))) == repr(layer)
    for one in (net, *copies):
        one.fit(*rows, epochs=1, verbose=0)
    for one in copies:
        assert repr(one.layers) == repr(net.layers)
        np.testing.assert_array_equal(one.predict(rows[0]), net.predict(rows[0]))


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_pytorch_has_a_module_for_it_or_the_layer_says_what_is_missing(layer):
    if layer.missing_in_torch() is None:
        assert layer.torch_name
        assert set(layer.tensor_names().values()) >= set(arrays_of(layer))
    else:
        net = network(layer)
        with pytest.raises(ValueError, match="PyTorch has no module for"):
            cd.exchange.to_torch(net)


def arrays_of(layer):
    """The words of its own for its arrays."""
    model = core_of(network(layer)).model
    return [name.partition(".")[2] for name in model.arrays() if name.startswith("1.")]


@pytest.mark.extras
@pytest.mark.parametrize("mc", [False, True])
@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_its_onnx_nodes_predict_the_same(layer, mc, rows):
    X, y = rows
    net = network(layer)
    net.fit(X, y, epochs=1, verbose=0)
    (found,) = session(cd.onnx.to_model(net, mc=mc)).run(None, {"X": X})
    np.testing.assert_allclose(found, net.predict(X), rtol=1e-4, atol=1e-5)


# all but BatchNorm, whose statistics are those of the rows at hand, and Members, whose batches have no parts
IN_PARTS = [layer for layer in EVERY if not isinstance(layer, cd.BatchNorm | cd.Members)]


@pytest.mark.parametrize("layer", IN_PARTS, ids=repr)
def test_a_part_of_a_batch_sees_what_the_whole_sees(layer, rows):
    X, _ = rows
    model = core_of(network(layer)).model
    workspace = model.borrow(ROWS, training=True)
    rates = core_of(network(layer)).rates([0.0]).drawing
    found = {}
    for first, end in ((0, ROWS), (5, 9)):
        workspace.first_row, model.engine.draws = first, 3
        found[first] = np.empty((end - first, 3), dtype=np.float32)
        model.engine.forward(workspace, X[first:end].copy(), found[first], rates)
    assert found[5].tobytes() == found[0][5:9].tobytes()


@pytest.mark.parametrize("cls", cd.layers.activations.LAYERS)
def test_an_activation_has_a_function_a_twin_and_a_name_in_dense(cls):
    x = np.linspace(-3, 3, 50, dtype=np.float32)
    layer = cls()
    options = [layer.alpha] if layer.kernel in SLOPES else []
    function, twin = (getattr(module, layer.kernel) for module in (cd.functional, cd.reference))
    np.testing.assert_allclose(function(x, *options), twin(x.astype(np.float64), *options), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.forward(x[:, None])[:, 0], function(x, *options), rtol=1e-6)
    assert repr(cd.Dense(2, activation=layer.kernel).activation) == repr(layer)

"""Weights from and to other libraries: PyTorch's golden outputs without PyTorch, and scikit-learn beside us.

tests/with_torch/check_torch.py compares with PyTorch itself.
"""

import doctest
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

import cydrop as cd
from cydrop._run.core import core_of

GOLDEN = Path(__file__).parent / "golden" / "torch_sequential.npz"

CASES = {
    "plain": lambda: [cd.Dense(8), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)],
    "no bias": lambda: [cd.Dropout(0.2), cd.Dense(8, bias=False), cd.Tanh(), cd.Dense(3, bias=False)],
    "norms": lambda: [cd.BatchNorm(epsilon=1e-3), cd.Dense(7), cd.BatchNorm(momentum=0.3), cd.GELU(),
                      cd.Dense(5), cd.LayerNorm(epsilon=1e-4), cd.ELU(0.7), cd.Dense(3)],
    "activations": lambda: [cd.Dense(8, activation="relu"), cd.Dense(8, activation=cd.LeakyReLU(0.2)),
                            cd.Dense(8, activation=cd.ELU(0.5)), cd.Dense(8, activation="selu"), cd.AlphaDropout(0.1),
                            cd.Dense(8), cd.GELU(), cd.Dense(8), cd.SiLU(), cd.Dense(8, activation="tanh"),
                            cd.Dense(8), cd.Sigmoid(), cd.Dense(8, activation="softplus"), cd.Dense(3)],
}  # fmt: skip


def golden(case):
    """X, the output and the state dict of a case."""
    with np.load(GOLDEN) as stored:
        arrays = {name.removeprefix(f"{case}/"): stored[name] for name in stored if name.startswith(f"{case}/")}
        return stored["X"], arrays.pop("output"), arrays


def network(case, **options):
    return cd.Network(CASES[case](), loss="mse", seed=0, **options)


# State dicts ------------------------------------------------------------------------------------------------


def test_the_golden_file_has_these_cases_and_says_who_made_it():
    with np.load(GOLDEN) as stored:
        assert {name.partition("/")[0] for name in stored if "/" in name} == set(CASES)
        assert str(stored["torch_version"])[0].isdigit()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("built", [False, True])
def test_a_loaded_network_gives_the_outputs_of_pytorch(case, built):
    X, output, state_dict = golden(case)
    net = network(case)
    if built:
        net.build(6)
    assert cd.exchange.load_state_dict(net, state_dict) is None
    np.testing.assert_allclose(net.predict(X), output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_state_dict_comes_back_as_it_went_in(case):
    _, _, state_dict = golden(case)
    net = network(case)
    cd.exchange.load_state_dict(net, state_dict)
    found = cd.exchange.to_state_dict(net)
    assert list(found) == list(state_dict)
    for name, array in found.items():
        assert array.dtype == state_dict[name].dtype
        assert array.flags.c_contiguous
        if name.endswith("num_batches_tracked"):
            assert array.shape == ()
            assert array == 0
        else:
            np.testing.assert_array_equal(array, state_dict[name])


def test_every_layer_has_a_number_and_a_dense_layer_with_an_activation_has_two():
    layers = [
        cd.GaussianNoise(0.1), cd.Dense(5, activation="relu", drop_connect=0.5), cd.Dropout(0.5, mode="vanilla"),
        cd.BatchNorm(), cd.Dense(4, bias=False, max_norm=1.0), cd.GaussianDropout(0.5), cd.LayerNorm(), cd.Dense(2),
    ]  # fmt: skip
    net = cd.Network(layers, seed=0).build(3)
    shapes = {name: array.shape for name, array in cd.exchange.to_state_dict(net).items()}
    assert shapes == {
        "1.weight": (5, 3), "1.bias": (5,), "4.weight": (5,), "4.bias": (5,), "4.running_mean": (5,),
        "4.running_var": (5,), "4.num_batches_tracked": (), "5.weight": (4, 5), "7.weight": (4,), "7.bias": (4,),
        "8.weight": (2, 4), "8.bias": (2,),
    }  # fmt: skip


def test_a_state_dict_is_a_copy(rng):
    net = cd.Network([cd.Dense(3), cd.BatchNorm(), cd.Dense(2)], seed=0).build(3)
    before = [array.copy() for array in net.parameters().values()]
    for array in cd.exchange.to_state_dict(net).values():
        array[...] = 7
    for array, old in zip(net.parameters().values(), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_state_dicts_pass_through_safetensors_files(tmp_path):
    X, output, state_dict = golden("norms")
    net = network("norms")
    cd.exchange.load_state_dict(net, state_dict)
    safetensors.numpy.save_file(cd.exchange.to_state_dict(net), tmp_path / "net.safetensors")
    other = network("norms")
    cd.exchange.load_state_dict(other, safetensors.numpy.load_file(tmp_path / "net.safetensors"))
    assert other.predict(X).tobytes() == net.predict(X).tobytes()
    np.testing.assert_allclose(other.predict(X), output, rtol=1e-5, atol=1e-5)


class Tensor:
    """What a tensor of PyTorch on a device is to others."""

    def __init__(self, array, grad=True):
        self.array, self.grad = array, grad

    def detach(self):
        return Tensor(self.array, grad=False)

    cpu = float = detach

    def numpy(self):
        assert not self.grad, "PyTorch refuses this for a tensor that needs a gradient"
        return self.array.astype(np.float32)


@pytest.mark.parametrize(
    "cast",
    [
        np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.ndarray.tolist, Tensor, np.asfortranarray,
        lambda array: array.astype(">f4"),
    ],
    ids=["float64", "float32", "float16", "bfloat16", "list", "tensor", "Fortran order", "big-endian"],
)  # fmt: skip
def test_values_may_be_arrays_of_any_precision_tensors_and_lists(cast):
    if isinstance(cast, type) and cast is not Tensor:
        precision = cast
        cast = lambda array: array.astype(precision)  # noqa: E731
    X, output, state_dict = golden("norms")
    net = network("norms")
    cd.exchange.load_state_dict(net, {name: cast(array) for name, array in state_dict.items() if array.ndim})
    half = cast(np.ones(1, np.float32) / 3)
    rounding = abs(float(np.asarray(getattr(half, "array", half)).astype(np.float32)[0]) - 1 / 3)
    np.testing.assert_allclose(net.predict(X), output, atol=1e-5 + 60 * rounding)


def test_loading_resets_the_moments_and_keeps_the_rest(rng):
    X, y = rng.standard_normal((30, 6)), rng.standard_normal((30, 3))
    net = network("plain", optimizer=cd.Adam(1e-3))
    net.fit(X, y, epochs=20, batch_size=5, verbose=0)
    state_dict = golden("plain")[2]
    cd.exchange.load_state_dict(net, state_dict)
    assert len(net.history) == 20
    net.train_on_batch(X, y)
    moved = [np.abs(net.parameters()[f"{place}.weight"] - state_dict[f"{place}.weight"].T).max() for place in (0, 3)]
    assert moved == pytest.approx([1e-3, 1e-3], rel=1e-2)  # Adam's first step has the length of the learning rate


def test_all_that_is_wrong_is_named_at_once_and_nothing_changes():
    _, _, state_dict = golden("norms")
    spoilt = dict(state_dict)
    del spoilt["1.bias"]
    spoilt["9.weight"] = np.ones(3)
    spoilt[5] = np.ones(3)
    spoilt["4.weight"] = state_dict["4.weight"].T
    spoilt["0.running_var"] = -state_dict["0.running_var"]
    spoilt["5.bias"] = np.array([1, 2, np.nan, 4, 5])
    spoilt["5.weight"] = np.array(["a"] * 5)
    spoilt["7.weight"] = np.full((3, 5), 1e300)
    for net in (network("norms"), network("norms").build(6)):
        before = None if core_of(net).plan is None else net.predict(np.ones((2, 6))).tobytes()
        with pytest.raises(ValueError, match="state_dict does not fit the network") as caught:
            cd.exchange.load_state_dict(net, spoilt)
        for problem in (
            "1.bias is missing", "9.weight is unexpected", "5 is unexpected",
            "4.weight must have shape (5, 7), got (7, 5)", "0.running_var must not be negative, got -",
            "5.bias has 1 values that are NaN or infinite", "5.weight must be numeric, got text",
            "7.weight has a value too large for float32",
        ):  # fmt: skip
            assert problem in str(caught.value)
        assert str(caught.value).count(";") == 8  # seven between the eight, one within a hint
        if before is None:
            assert core_of(net).plan is None
        else:
            assert net.predict(np.ones((2, 6))).tobytes() == before


def test_networks_that_a_state_dict_cannot_build_are_refused():
    for layers, state_dict, message in (
        ([cd.ReLU()], {}, r"no weights that say how many columns X has: call build\(n_features\) first"),
        ([cd.Dense(2)], {}, "0.weight is missing; 0.bias is missing"),
        ([cd.Dense(2)], {"0.weight": 3.0, "0.bias": [0, 0]}, r"0.weight must have shape \(2, 1\), got \(\)"),
        ([cd.Dense(2)], {"0.weight": [1, 2, 3], "0.bias": [0, 0]}, r"0.weight must have shape \(2, 3\), got \(3,\)"),
        ([cd.Dense(2)], {"0.weight": np.ones((2, 0)), "0.bias": [0, 0]}, r"must have shape \(2, 1\), got \(2, 0\)"),
    ):
        net = cd.Network(layers, loss="mse")
        with pytest.raises(ValueError, match=message):
            cd.exchange.load_state_dict(net, state_dict)
        assert core_of(net).plan is None
    with pytest.raises(TypeError, match="state_dict must be a mapping of names to arrays, got list"):
        cd.exchange.load_state_dict(cd.Network([cd.Dense(2)]), [1, 2])
    with pytest.raises(TypeError, match=r"net must be a cydrop\.Network, got 3"):
        cd.exchange.load_state_dict(3, {})
    with pytest.raises(RuntimeError, match="a state dict needs a built network"):
        cd.exchange.to_state_dict(cd.Network([cd.Dense(2)]))


# PyTorch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (cd.Dropout(0.5, mode="vanilla"), r'layers\[1\] is Dropout.*no module for mode="vanilla"'),
        (cd.Dropout(0.5, shared="batch"), 'no module for shared="batch"'),
        (cd.GaussianDropout(0.5), "no module for GaussianDropout"),
        (cd.GaussianNoise(0.5), "no module for GaussianNoise"),
        (cd.Dense(4, max_norm=2.0), "no module for max_norm"),
        (cd.Dense(4, drop_connect=0.5), "no module for drop_connect"),
    ],
)
def test_what_pytorch_has_no_module_for_is_refused_by_to_torch(layer, message):
    net = cd.Network([cd.Dense(4), layer, cd.Dense(2)], seed=0).build(3)
    with pytest.raises(ValueError, match=message):
        cd.exchange.to_torch(net)


def test_a_missing_pytorch_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        cd.exchange.to_torch(cd.Network([cd.Dense(2)], seed=0).build(3))


def stand_in(kind, **attributes):
    """An object whose class has this name, for what from_torch refuses."""
    return type(kind, (), attributes)()


class Sequential(list):
    """Iterates over its modules, as PyTorch's does."""


def linear(inputs, units):
    return stand_in("Linear", weight=np.ones((units, inputs)), bias=np.zeros(units))


def normalisation(**changed):
    ones, zeros = np.ones(4), np.zeros(4)
    arrays = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
    return stand_in("BatchNorm1d", momentum=0.1, eps=1e-5, **(arrays | changed))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (stand_in("Conv1d"), r"module 1\.0 is Conv1d: cydrop has no such layer; known are Linear, "),
        (stand_in("GELU", approximate="tanh"), "module 1.0 is GELU: .*approximate='tanh'"),
        (stand_in("Softplus", beta=2.0, threshold=20.0), "module 1.0 is Softplus: .*beta=2.0"),
        (stand_in("Softplus", beta=1.0, threshold=2.0), "threshold=2.0"),
        (stand_in("Flatten", start_dim=1, end_dim=-1), "module 1.0 is Flatten: .*at the beginning"),
        (stand_in("Softmax", dim=1), "module 1.0 is Softmax: .*at the end only"),
        (stand_in("LogSoftmax", dim=1), "module 1.0 is LogSoftmax: .*at the end only"),
        (stand_in("Dropout", p=1.5), r"module 1.0 is Dropout: rate must be in \[0, 1\], got 1.5"),
        (stand_in("BatchNorm1d", weight=None, running_mean=None, momentum=0.1, eps=1e-5), "affine=True"),
        (stand_in("BatchNorm1d", weight=[1], running_mean=[0], momentum=None, eps=1e-5), "a number as momentum"),
        (stand_in("BatchNorm1d", weight=[1], running_mean=[0], momentum=0.1, eps=0), "module 1.0 .*epsilon must be"),
        (stand_in("LayerNorm", weight=[1], bias=None, normalized_shape=(4,), eps=1e-5), "bias=True"),
        (stand_in("LayerNorm", weight=[1], bias=[1], normalized_shape=(2, 2), eps=1e-5), "the last axis"),
        (stand_in("Linear", weight=np.full((4, 4), np.nan), bias=None), "module 1.0: weight has 16 values"),
        (stand_in("Linear", weight=np.eye(4), bias=np.full(4, np.inf)), "module 1.0: bias has 4 values"),
        (normalisation(running_mean=np.full(4, np.nan)), "module 1.0: running_mean has 4 values that are NaN"),
        (normalisation(running_var=np.full(4, np.inf)), "module 1.0: running_var has 4 values that are NaN or inf"),
        (normalisation(running_var=np.full(4, -0.5)), "module 1.0: running_var must not be negative, got -0.5"),
    ],
)
def test_modules_without_a_layer_are_refused_with_their_place(bad, message):
    module = Sequential([linear(3, 4), Sequential([bad]), linear(4, 2)])
    with pytest.raises(ValueError, match=message):
        cd.exchange.from_torch(module, loss="mse")


@pytest.mark.parametrize(
    ("last", "loss", "message"),
    [
        (stand_in("Softmax", dim=0), "cross_entropy", "over dim=1"),
        (stand_in("Softmax", dim=1), "mse", "as the link of loss='cross_entropy'"),
        (stand_in("LogSoftmax", dim=1), "binary_cross_entropy", "as the link of loss='cross_entropy'"),
        (stand_in("Sigmoid"), "cross_entropy", "is it loss='binary_cross_entropy'"),
    ],
)
def test_a_last_link_that_is_not_the_losss_is_refused(last, loss, message):
    with pytest.raises(ValueError, match=f"module 1 is {type(last).__name__}: .*{message}"):
        cd.exchange.from_torch(Sequential([linear(3, 4), last]), loss=loss)


def test_what_is_no_sequential_or_has_no_weights_is_refused():
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Sequential, got Linear"):
        cd.exchange.from_torch(linear(3, 4), loss="mse")
    with pytest.raises(ValueError, match="module has no weights"):
        cd.exchange.from_torch(Sequential([stand_in("ReLU")]), loss="mse")
    with pytest.raises(ValueError, match=r"module does not fit .* 1.weight must have shape \(2, 4\), got \(2, 5\)"):
        cd.exchange.from_torch(Sequential([linear(3, 4), linear(5, 2)]), loss="mse")
    with pytest.raises(ValueError, match="loss='nll' is not known"):
        cd.exchange.from_torch(Sequential([linear(3, 4)]), loss="nll")


# scikit-learn -----------------------------------------------------------------------------------------------


def fitted(kind, X, y, **options):
    with pytest.warns(ConvergenceWarning):
        return kind(max_iter=15, random_state=0, **options).fit(X, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (7,), (12, 5)])
def test_probabilities_are_those_of_the_classifier(activation, hidden, rng):
    X = rng.standard_normal((120, 6))
    labels = np.array(["a", "b", "c"])[np.digitize(X[:, 0] + X[:, 1] * X[:, 2], [-0.5, 0.5])]
    for y, loss, units in (
        (labels, "cross_entropy", 3),
        (labels == "a", "binary_cross_entropy", 1),
        (X[:, :2] > 0.3, "binary_cross_entropy", 2),
    ):
        mlp = fitted(MLPClassifier, X, y, activation=activation, hidden_layer_sizes=hidden)
        net = cd.exchange.from_sklearn(mlp)
        assert net.loss.name == loss
        found, expected = net.predict(X), mlp.predict_proba(X)
        assert found.shape == (120, units)
        np.testing.assert_allclose(found, expected[:, 1:] if units == 1 else expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_values_are_those_of_the_regressor(activation, rng):
    X = rng.standard_normal((120, 6))
    for y in (100 * X[:, 0] * X[:, 1], X[:, :2] ** 2):
        mlp = fitted(MLPRegressor, X, y, activation=activation, hidden_layer_sizes=(12, 5), learning_rate_init=0.01)
        found, expected = cd.exchange.from_sklearn(mlp).predict(X), mlp.predict(X)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected.reshape(120, -1), rtol=1e-5, atol=1e-6 * scale)


def test_training_goes_on_with_dropout_after_every_hidden_layer():
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    mlp = fitted(MLPClassifier, X, y, hidden_layer_sizes=(32, 16))
    net = cd.exchange.from_sklearn(mlp, dropout=0.2, optimizer=cd.Adam(2e-3), seed=1, n_threads=1)
    kinds = [cd.Dense, cd.ReLU, cd.Dropout, cd.Dense, cd.ReLU, cd.Dropout, cd.Dense]
    assert [type(layer) for layer in net.layers] == kinds
    assert net.layers[2].rate == 0.2
    assert (net.optimizer, net.n_threads) == (cd.Adam(2e-3), 1)
    np.testing.assert_allclose(net.predict(X_test), mlp.predict_proba(X_test), atol=1e-5)
    before = net.evaluate(X_test, y_test)["accuracy"]
    net.fit(X, y, epochs=10, verbose=0)
    assert net.evaluate(X_test, y_test)["accuracy"] > before > 0.85


def test_what_is_not_fitted_or_has_no_loss_here_is_refused(rng):
    with pytest.raises(ValueError, match=r"mlp is not fitted \(coefs_, intercepts_, out_activation_ missing\)"):
        cd.exchange.from_sklearn(MLPClassifier())
    with pytest.raises(TypeError, match="mlp must be a fitted MLPClassifier or MLPRegressor of scikit-learn, got int"):
        cd.exchange.from_sklearn(3)
    X = rng.random((50, 3))
    poisson = fitted(MLPRegressor, X, X[:, 0], loss="poisson")
    with pytest.raises(ValueError, match=r"mlp.out_activation_='exp' is not known; known are 'softmax'"):
        cd.exchange.from_sklearn(poisson)
    mlp = fitted(MLPRegressor, X, X[:, 0])
    mlp.intercepts_[-1][0] = np.inf
    with pytest.raises(ValueError, match=r"mlp does not fit the network: .*bias has 1 values that are NaN or infinite"):
        cd.exchange.from_sklearn(mlp)
    mlp.intercepts_[-1][0] = 0.0
    mlp.coefs_[0][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"mlp does not fit the network: 0.weight has 1 values that are NaN"):
        cd.exchange.from_sklearn(mlp)


# Around it --------------------------------------------------------------------------------------------------


def test_importing_cydrop_exchange_imports_no_other_library():
    program = "import sys, cydrop as cd; cd.exchange.to_torch; assert not {'torch', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_examples_of_the_docstrings_run():
    result = doctest.testmod(cd.exchange)
    assert result.attempted >= 10
    assert result.failed == 0


def test_arrays_without_a_name_in_a_state_dict_are_not_left_out_without_a_word():
    class Block(cd.layers.Layer):
        def lower(self, plan):
            cd.Dense(3).lower(plan)

    net = cd.Network([cd.Dense(4), Block()], loss="mse").build(5)
    for call in (lambda: cd.exchange.to_state_dict(net), lambda: cd.exchange.load_state_dict(net, {})):
        with pytest.raises(ValueError, match=r"layers\[1\] is Block\(\): a state dict has no name for its bias"):
            call()


def test_what_lies_between_parameters_is_not_taken_over():
    """Memory that was freed may hold anything, NaN as well: training looks at the whole arena."""
    net = cd.Network([cd.Dense(3), cd.ReLU(), cd.Dense(2)], seed=0).build(5)
    state = cd.exchange.to_state_dict(net)
    size = core_of(net).plan.arena_size
    for _ in range(50):
        junk = [np.full(size, np.nan, dtype=np.float32) for _ in range(8)]
        del junk
        cd.exchange.load_state_dict(net, state)
        assert np.isfinite(core_of(net).model.parameters).all()

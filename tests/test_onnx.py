"""Networks as ONNX models: ONNX Runtime gives what cydrop gives, and drops as cydrop drops."""

import doctest
import stat
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_session import session

import cydrop as cd

ACTIVATIONS = [
    cd.ReLU(), cd.LeakyReLU(0.2), cd.ELU(0.7), cd.SELU(), cd.GELU(), cd.SiLU(), cd.Tanh(), cd.Sigmoid(), cd.Softplus(),
    cd.Mish(),
]  # fmt: skip
LOSSES = ["cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "gaussian_nll"]


def run(model, X, **inputs):
    """The output of the model, which is a path or a ModelProto."""
    feeds = {"X": np.asarray(X, dtype=np.float32)} | {name: np.array(value) for name, value in inputs.items()}
    return session(model).run(None, feeds)[0]


def samples(net, X, count):
    """Runs of one session with training_mode on, shape (count, n, units)."""
    onnxruntime.set_seed(1234567891)  # the same draws in every run of the tests; of small seeds masks may be related
    drawing = session(cd.onnx.to_model(net, mc=True))
    feeds = {"X": np.asarray(X, dtype=np.float32), "training_mode": np.array(True)}
    return np.stack([drawing.run(None, feeds)[0] for _ in range(count)])


def randomise(net, rng):
    """Weights and running statistics as no initialisation has them."""
    for name, array in net.parameters().items():
        array[...] = rng.standard_normal(array.shape) / np.sqrt(len(array) if name.endswith(".weight") else 1)
    for name, array in net.buffers().items():
        array[...] = rng.random(array.shape) + 0.3 if name.endswith("variance") else rng.standard_normal(array.shape)
    return net


def random_network(rng, loss):
    """A chain of up to eight layers of any kind."""
    layers = []
    for _ in range(rng.integers(1, 8)):
        rate = float(rng.choice([0.0, 0.2, 0.5, 0.9, 1.0]))
        kinds = [
            cd.Dense(int(rng.integers(1, 20)), bias=bool(rng.integers(2))),
            cd.Dense(int(rng.integers(1, 20)), activation=ACTIVATIONS[rng.integers(9)], drop_connect=rate, max_norm=1),
            ACTIVATIONS[rng.integers(9)],
            ACTIVATIONS[rng.integers(9)],
            cd.Dropout(rate),
            cd.Dropout(min(rate, 0.9), mode="vanilla", shared="batch" if rng.integers(2) else None),
            cd.Dropout(cd.schedules.Linear(0.5, rate), mode="vanilla"),
            cd.AlphaDropout(rate),
            cd.GaussianDropout(rate),
            cd.GaussianNoise(2 * rate),
            cd.LayerNorm(epsilon=1e-3),
            cd.BatchNorm(epsilon=float(rng.choice([1e-5, 0.1]))),
        ]
        layers.append(kinds[rng.integers(len(kinds))])
    net = cd.Network([*layers, cd.Dense(4)], loss=loss, seed=int(rng.integers(2**32)))
    return randomise(net.build(int(rng.integers(1, 15))), rng)


def assert_same_outputs(model, net, X, **inputs):
    expected = net.predict(X)
    found = run(model, X, **inputs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mc", [False, True])
def test_random_networks_predict_the_same_in_onnx_runtime(loss, mc, rng, tmp_path):
    for _ in range(25):
        net = random_network(rng, loss)
        path = tmp_path / "net.onnx"
        cd.onnx.export(net, path, mc=mc)
        n_features = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1].dim_value
        for rows in (1, 70):
            X = rng.standard_normal((rows, n_features))
            assert_same_outputs(path, net, X)
            if mc:
                assert_same_outputs(path, net, X, training_mode=False)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_every_activation_is_the_same_over_a_wide_range(activation):
    net = cd.Network([activation], loss="mse").build(1)
    X = np.r_[np.linspace(-8, 8, 999), [-100, -50, 0, 50, 100]].reshape(-1, 1)
    np.testing.assert_allclose(run(cd.onnx.to_model(net), X), net.predict(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mc", [False, True])
def test_a_trained_network_of_the_digits_predicts_the_same(mc, tmp_path):
    X, y, X_test, _ = cd.datasets.load_optdigits()
    net = cd.Network(
        [cd.Dropout(0.1), cd.Dense(64), cd.BatchNorm(), cd.GELU(), cd.Dropout(0.3, mode="vanilla"),
         cd.Dense(32, activation="selu", drop_connect=0.2), cd.LayerNorm(), cd.AlphaDropout(0.1), cd.Dense(10)],
        seed=0,
    )  # fmt: skip
    net.fit(X, y, epochs=3, verbose=0)
    cd.onnx.export(net, tmp_path / "digits.onnx", mc=mc)
    assert_same_outputs(tmp_path / "digits.onnx", net, X_test)
    assert_same_outputs(tmp_path / "digits.onnx", net, X_test[:1])


def test_a_trained_regression_predicts_the_same(rng, tmp_path):
    X = rng.random((300, 5))
    y = 1000 * X[:, 0] - 300 * X[:, 1] * X[:, 2]
    for loss, units in (("mse", 1), ("huber", 1), ("gaussian_nll", 2)):
        net = cd.Network([cd.Dense(30), cd.SiLU(), cd.Dropout(0.1), cd.Dense(units)], loss=loss, seed=0)
        net.fit(X, y / (100 if loss == "gaussian_nll" else 1), epochs=20, verbose=0)
        cd.onnx.export(net, tmp_path / "net.onnx")
        expected = net.predict(X)
        near_zero = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(run(tmp_path / "net.onnx", X), expected, rtol=1e-5, atol=near_zero)


def test_the_file_says_what_it_is(rng, tmp_path):
    for loss, output in zip(LOSSES, ["probabilities"] * 2 + ["values"] * 4, strict=True):
        for mc in (False, True):
            net = cd.Network([cd.Dense(6), cd.Dropout(0.5), cd.Dense(4)], loss=loss, seed=0).build(7)
            assert cd.onnx.export(net, tmp_path / "net.onnx", mc=mc) is None
            model = onnx.load(tmp_path / "net.onnx")
            onnx.checker.check_model(model, full_check=True)
            assert model.ir_version == 8
            assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
            assert (model.producer_name, model.producer_version) == ("cydrop", cd.__version__)
            assert model.doc_string == f"7 features to 4 {output}; trained with loss {loss}"
            assert [value.name for value in model.graph.input] == ["X", "training_mode"][: 1 + mc]
            assert [value.name for value in model.graph.output] == [output]
            for value, width in ((model.graph.input[0], 7), (model.graph.output[0], 4)):
                shape = value.type.tensor_type.shape.dim
                assert (shape[0].dim_param, shape[1].dim_value) == ("n", width)
                assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
            for name, array in net.parameters().items():
                np.testing.assert_array_equal(weights[name], array)


def test_equal_networks_give_equal_bytes(rng, tmp_path):
    X, y = rng.random((50, 4)), rng.integers(0, 3, 50)
    files = set()
    for number in range(2):
        layers = [cd.Dense(9), cd.BatchNorm(), cd.ReLU(), cd.Dropout(lambda progress: 0.3), cd.Dense(3)]
        net = cd.Network(layers, seed=1)
        net.fit(X, y, epochs=2, verbose=0)
        for mc in (False, True):
            cd.onnx.export(net, tmp_path / f"{number}.onnx", mc=mc)
            files.add((tmp_path / f"{number}.onnx").read_bytes())
    assert len(files) == 2


def test_exporting_replaces_the_file_at_once_and_leaves_nothing_behind(tmp_path, monkeypatch):
    net = cd.Network([cd.Dense(3)], seed=0).build(4)
    path = tmp_path / "net.onnx"
    cd.onnx.export(net, path)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) & 0o444

    def fail(*arguments):
        raise OSError("disk full")

    net.parameters()["0.bias"][...] = 1
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            cd.onnx.export(net, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
    cd.onnx.export(net, path)
    assert path.read_bytes() != before


# Monte Carlo ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
@pytest.mark.parametrize("shared", [None, "batch"])
def test_the_share_of_zeros_is_the_rate_for_every_unit(rate, mode, shared):
    net = cd.Network([cd.Dropout(rate, mode=mode, shared=shared)], loss="mse").build(40)
    runs = 4000
    found = samples(net, np.ones((3, 40)), runs)
    kept = 1.0 if mode == "vanilla" else 1 / (1 - rate)
    np.testing.assert_allclose(np.unique(found), [0, kept], rtol=1e-6)
    error = np.sqrt(rate * (1 - rate) / runs)
    np.testing.assert_allclose((found == 0).mean(axis=0), rate, atol=5 * error)  # 120 units: 5 errors are one in 10^4
    rows_agree = (found[:, :1] == found).all()
    assert rows_agree == (shared == "batch")


def test_masks_of_runs_layers_rows_and_units_are_independent():
    # alpha dropout sets to a value that no kept element has, so that the second mask shows where the first dropped
    net = cd.Network([cd.Dropout(0.5), cd.AlphaDropout(0.5)], loss="mse").build(12)
    runs = 4000
    found = samples(net, np.ones((2, 12)), runs).reshape(runs, -1)
    values = np.unique(found)
    assert len(values) == 3  # dropped by the second, by the first alone, by none
    low, first_alone, none = np.sort(values)
    counts = np.stack([(found == value).mean(axis=0) for value in (low, first_alone, none)])
    np.testing.assert_allclose(counts, [[0.5] * 24, [0.25] * 24, [0.25] * 24], atol=5 * 0.5 / np.sqrt(runs))
    for dropped in (found == low, found == none):
        flat = (dropped - dropped.mean()) / dropped.std()
        correlation = flat.T @ flat / runs - np.eye(24)
        assert np.abs(correlation).max() < 5.5 / np.sqrt(runs)
        assert np.abs((flat[1:] * flat[:-1]).mean(axis=0)).max() < 5 / np.sqrt(runs)


def test_two_layers_with_shared_masks_draw_apart():
    shared = [cd.Dropout(0.5, shared="batch"), cd.Dropout(0.5, shared="batch")]
    found = samples(cd.Network(shared, loss="mse").build(10), np.ones((1, 10)), 4000)
    np.testing.assert_allclose((found == 0).mean(axis=0), 0.75, atol=5 * np.sqrt(0.75 * 0.25 / 4000))
    twins = samples(cd.Network([cd.GaussianNoise(1.0)] * 2, loss="mse").build(10), np.zeros((1, 10)), 4000)
    np.testing.assert_allclose(twins.var(axis=0), 2.0, atol=5 * 2 * np.sqrt(2 / 4000))


DRAWING = {
    "dropout": lambda: [cd.Dropout(0.2), cd.Dense(20), cd.ReLU(), cd.Dropout(0.5)],
    "vanilla": lambda: [cd.Dropout(0.2, mode="vanilla"), cd.Dense(20), cd.ReLU(), cd.Dropout(0.5, mode="vanilla")],
    "schedule": lambda: [cd.Dense(20), cd.ReLU(), cd.Dropout(cd.schedules.Linear(0.0, 0.6))],
    "shared": lambda: [cd.Dense(20), cd.ReLU(), cd.Dropout(0.4, shared="batch")],
    "shared vanilla": lambda: [cd.Dense(20), cd.ReLU(), cd.Dropout(0.4, mode="vanilla", shared="batch")],
    "alpha": lambda: [cd.Dense(20), cd.SELU(), cd.AlphaDropout(0.3)],
    "gaussian": lambda: [cd.Dense(20), cd.ReLU(), cd.GaussianDropout(0.4)],
    "learned": lambda: [cd.Dense(20), cd.ReLU(), cd.Dropout("learn"), cd.Residual([cd.Dropout("learn", initial=0.3)])],
    "noise": lambda: [cd.GaussianNoise(0.5), cd.Dense(20), cd.Tanh()],
    "drop connect": lambda: [cd.Dense(20, activation="relu", drop_connect=0.5)],
    "drop connect, schedule": lambda: [cd.Dense(20, activation="relu", drop_connect=cd.schedules.Linear(0.0, 0.6))],
    "all zeros": lambda: [cd.Dense(20), cd.ReLU(), cd.Dropout(1.0)],
    "all zeros, vanilla": lambda: [cd.Dense(20), cd.ReLU(), cd.Dropout(1.0, mode="vanilla")],
    "all zeros, alpha": lambda: [cd.Dense(20), cd.SELU(), cd.AlphaDropout(1.0)],
    "all zeros, gaussian": lambda: [cd.Dense(20), cd.SELU(), cd.GaussianDropout(1.0)],
    "all zeros, drop connect": lambda: [cd.Dense(20, activation="relu", drop_connect=1.0)],
}


@pytest.mark.parametrize("layers", DRAWING.values(), ids=DRAWING)
def test_runs_in_training_mode_are_distributed_like_predict_mc(layers, rng):
    net = randomise(cd.Network([*layers(), cd.Dense(3)], seed=3).build(6), rng)
    X = rng.standard_normal((4, 6))
    runs = 3000
    expected = net.predict_mc(X, runs, seed=0, return_samples=True).samples.astype(np.float64)
    found = samples(net, X, runs).astype(np.float64)
    spread = expected.std(axis=0)
    error = np.sqrt((expected.var(axis=0) + found.var(axis=0)) / runs)
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - expected.mean(axis=0)), 4.5 * error + 1e-6)
    np.testing.assert_allclose(found.std(axis=0), spread, rtol=0.15, atol=1e-6)
    if spread.max() > 1e-6:
        assert (found[1:] != found[:-1]).any(axis=(1, 2)).mean() > 0.99
    assert_same_outputs(cd.onnx.to_model(net, mc=True), net, X, training_mode=False)


def test_a_model_without_random_layers_takes_the_switch_too(rng):
    net = cd.Network([cd.Dense(3), cd.Dropout(0.0), cd.GaussianNoise(0.0)], seed=0).build(4)
    X = rng.random((5, 4))
    assert_same_outputs(cd.onnx.to_model(net, mc=True), net, X, training_mode=True)
    assert_same_outputs(cd.onnx.to_model(net, mc=True), net, X)


# Errors -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_refused_and_writes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    with pytest.raises(RuntimeError, match=r"an ONNX model needs a built network: call fit or build\(n_features\)"):
        cd.onnx.export(cd.Network([cd.Dense(3)]), path)
    net = cd.Network([cd.Dense(3)], seed=0).build(4)
    with pytest.raises(TypeError, match=r"net must be a cydrop\.Network, got 'net'"):
        cd.onnx.export("net", path)
    with pytest.raises(TypeError, match="mc must be True or False"):
        cd.onnx.export(net, path, mc=1)
    monkeypatch.setattr(cd.onnx, "LARGEST", 63)
    with pytest.raises(ValueError, match=r"the weights take 0\.00 GiB, an ONNX file holds less than 2"):
        cd.onnx.export(net, path)
    assert not list(tmp_path.iterdir())


def test_a_missing_onnx_package_is_named_with_the_command(monkeypatch):
    net = cd.Network([cd.Dense(3)], seed=0).build(4)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "cydrop\[onnx\]"'):
        cd.onnx.to_model(net)


def test_importing_cydrop_onnx_does_not_import_onnx():
    program = "import sys, cydrop as cd; cd.onnx.export; assert 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_examples_of_the_docstrings_run():
    result = doctest.testmod(cd.onnx)
    assert result.attempted >= 4
    assert result.failed == 0


def test_a_variance_beyond_float32_is_the_largest_number_there_too():
    net = cd.Network([cd.Dense(2)], loss="gaussian_nll", seed=0).build(1)
    net.parameters()["0.bias"][1] = 1000
    X = np.ones((3, 1), dtype=np.float32)
    found = run(cd.onnx.to_model(net), X)
    np.testing.assert_allclose(found, net.predict(X), rtol=1e-6)
    assert found[0, 1] == np.finfo(np.float32).max


def test_noise_that_does_not_say_its_nodes_is_refused_where_it_would_act():
    class Other(cd.layers.Noise):
        kernel, rate_name, option_names, std, seed = "add", "std", (), 0.5, None

    net = cd.Network([Other(), cd.Dense(2)], loss="mse", seed=0).build(3)
    assert cd.onnx.to_model(net).graph.node  # the identity in prediction
    with pytest.raises(ValueError, match=r"an ONNX model cannot hold Other.* its class has no method noisy"):
        cd.onnx.to_model(net, mc=True)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse", "gaussian_nll"])
@pytest.mark.parametrize("sharing", ["mini", "tabm", "packed"])
def test_models_predict_what_members_predict_together(sharing, loss, rng):
    X = rng.standard_normal((19, 7)).astype(np.float32)
    y = {"cross_entropy": rng.integers(0, 4, 19), "binary_cross_entropy": rng.integers(0, 2, (19, 4)),
         "mse": rng.standard_normal((19, 4)), "gaussian_nll": rng.standard_normal((19, 2))}[loss]  # fmt: skip
    inside = [cd.Dense(20, activation="relu"), cd.Dropout(0.3), cd.Dense(17, activation="gelu"), cd.Dense(4)]
    net = cd.Network([cd.Dense(8), cd.Members(inside, 5, sharing=sharing)], loss=loss, seed=2)
    net.fit(X, y, epochs=2, verbose=0)
    for mc in (False, True):
        run = session(cd.onnx.to_model(net, mc=mc))
        np.testing.assert_allclose(run.run(None, {"X": X})[0], net.predict(X), rtol=1e-4, atol=1e-5)
    dropped = run.run(None, {"X": X, "training_mode": np.array(True)})[0]
    assert not np.allclose(dropped, net.predict(X), rtol=1e-4)


def test_models_draw_shared_masks_for_each_member():
    net = cd.Network([cd.Members([cd.Dropout(0.5, shared="batch"), cd.Dense(1)], 3)], loss="mse", seed=1).build(40)
    for name, value in (("input_scale", 1), ("1.weight", 1), ("1.bias", 0)):
        net.parameters()[f"0.{name}"][...] = value
    net.parameters()["0.1.weight"][...] = np.array([1, 100, 10000]).reshape(3, 1, 1)
    X = np.ones((5, 40), dtype=np.float32)
    run = session(cd.onnx.to_model(net, mc=True))
    (y,) = run.run(None, {"X": X, "training_mode": np.array(True)})
    assert len(np.unique(y)) == 1  # all rows have the same
    kept = round(y[0, 0] * 3 / 2)
    assert len({kept % 100, kept // 100 % 100, kept // 10000}) > 1


INSIDE = [cd.Dense(20), cd.ReLU(), cd.Dense(16, activation="tanh"), cd.Dense(5)]
QUANTIZED = {
    "dense": [cd.Dense(40), cd.ReLU(), cd.Dropout(0.5), cd.Dense(30, activation="tanh", bias=False), cd.Dense(5)],
    "block": [cd.Dense(24), cd.BatchNorm(), cd.Residual([cd.Dense(24), cd.GELU(), cd.Dense(24)]), cd.Dense(5)],
    "numbers": [cd.NumericEmbedding("plr", size=4, frequencies=4), cd.Dense(20, activation="relu"), cd.Dense(5)],
    "masks": [cd.Dense(32, activation="relu"), cd.Masksembles(4), cd.Dense(5)],
    "mini": [cd.Dense(30, activation="relu"), cd.Members(INSIDE, 3)],
    "tabm": [cd.Members(INSIDE, 3, sharing="tabm")],
    "packed": [cd.Dense(30, activation="relu"), cd.Members(INSIDE, 3, sharing="packed")],
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantized_network_gives_what_cydrop_gives_from_codes_of_one_byte(kind, tmp_path):
    rng = np.random.default_rng(0)
    net = randomise(cd.Network(QUANTIZED[kind], seed=0).build(12), rng)
    X = rng.standard_normal((200, 12)).astype(np.float32)
    X[3] = 0
    X[4:20] = np.abs(X[4:20])
    small = net.quantize(X)
    cd.onnx.export(small, tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    kinds = {array.name: array.data_type for array in model.graph.initializer}
    codes = {f"{name}_codes" for name, array in small.arrays().items() if array.dtype == np.int8}
    assert {name for name, found in kinds.items() if found == onnx.TensorProto.INT8} == codes
    found, wanted = run(tmp_path / "small.onnx", X), small.predict(X)
    cost = np.abs(net.predict(X) - wanted)
    assert np.abs(found - wanted).mean() < 0.2 * cost.mean()  # ties of codes and rounding, not another quantizing
    assert np.mean(np.abs(found - wanted).max(axis=1) < 1e-4) > 0.5


def test_a_quantized_network_has_no_samples_in_onnx():
    small = cd.Network([cd.Dense(3), cd.Dropout(0.5)], seed=0).build(4).quantize(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="predicts with dropout off alone"):
        cd.onnx.to_model(small, mc=True)

"""Products of bytes: the bits of the twin with and without the processor's instruction, and networks of them."""

import copy
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from digests import HE

import cydrop as cd
from cydrop import functional, reference
from cydrop._base import quantizing
from cydrop._core import dense as kernels

WAYS = [True, False] if kernels.has_instruction("int8") else [False]
SPECIAL = np.array(
    [0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 2**-126, -(2**-126), 1.1754942e-38, 3.4e38, -3.4e38, 1, 2**-133],
    dtype=np.float32,
)


@pytest.fixture(autouse=True)
def the_instruction_where_it_is():
    yield
    kernels.use_instruction("int8", True)


def rows_of_all_kinds(rng, rows, columns):
    """Usual rows, and of each other kind one where there are so many: special numbers, zeros, one sign, huge, tiny."""
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    kinds = [
        np.where(rng.random(columns) < 0.1, rng.choice(SPECIAL, columns), 1),
        np.zeros(columns),
        np.abs(x[0]),
        -np.abs(x[0]),
        3.4e38 * np.sign(x[0]),
        x[0] * 1e-38,
        x[0] * 1e-42,
        np.full(columns, 2.0**-120),
        np.where(np.arange(columns) == columns - 1, np.nan, x[0]),
        np.where(np.arange(columns) == 0, -np.inf, x[0]),
    ]
    for number, kind in enumerate(kinds[: rows - 1], 1):
        with np.errstate(over="ignore"):
            x[number] = kind
    return x


# Numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (12, 16), (30, 63), (30, 65), (14, 1000)])
def test_rows_have_the_codes_of_the_twin(shape):
    x = rows_of_all_kinds(np.random.default_rng(0), *shape)
    for found, wanted in zip(functional.quantize_rows(x), reference.quantize_rows(x), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def test_a_row_is_what_its_codes_stand_for_up_to_half_a_scale():
    x = np.random.default_rng(1).standard_normal((200, 50)).astype(np.float32)
    codes, scales, zeros = functional.quantize_rows(x)
    error = np.abs((codes.astype(np.float64) - zeros[:, None]) * scales[:, None] - x)
    assert (error <= 0.5001 * scales[:, None]).sum() >= 0.99 * x.size  # the edges of the zero's own rounding aside
    assert (error <= 1.0001 * scales[:, None]).all()
    assert (codes.max(axis=1) >= 254).all()
    assert (codes.min(axis=1) <= 1).all()
    assert functional.quantize_rows([[0.0, 3.0]])[2] == 0  # 0 is a code of its own, also at an end
    assert functional.quantize_rows([[-3.0, 0.0]])[2] == 255


def test_columns_are_what_their_codes_stand_for_up_to_half_a_scale():
    weight = np.random.default_rng(2).standard_normal((40, 7)).astype(np.float32) * 10.0 ** np.arange(-3, 4)
    weight[:, 3] = 0
    codes, scales = functional.quantize_columns(weight)
    assert codes.dtype == np.int8
    assert np.abs(codes).max(axis=0).tolist() == [127, 127, 127, 0, 127, 127, 127]
    assert scales[3] == 0
    assert (np.abs(codes * scales.astype(np.float64) - weight) <= 0.5001 * scales).all()


@pytest.mark.parametrize("columns", [8, 16, 32])
@pytest.mark.parametrize("shape", [(1, 1), (4, 8), (5, 33), (130, 31)])
def test_panels_hold_all_codes_and_zeros_around_them(shape, columns):
    codes = np.random.default_rng(3).integers(-127, 128, shape).astype(np.int8)
    packed = quantizing.panels(codes, columns)
    np.testing.assert_array_equal(quantizing.from_panels(packed, *shape, columns), codes)
    assert np.abs(packed.view(np.int8).astype(int)).sum() == np.abs(codes.astype(int)).sum()


# Products ---------------------------------------------------------------------------------------------------

# (rows, inputs, units): edges of tiles and quads, few rows, products large enough for threads
SHAPES = [
    (1, 1, 1), (2, 3, 5), (3, 1030, 40), (4, 8, 33), (13, 17, 33), (7, 64, 10), (25, 601, 70), (128, 31, 64),
    (12, 32, 16), (97, 302, 103), (700, 30, 41), (40, 1103, 31),
]  # fmt: skip


@pytest.mark.parametrize("by_instruction", WAYS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_products_have_the_bits_of_the_twin(shape, by_instruction):
    kernels.use_instruction("int8", by_instruction)
    rng = np.random.default_rng(sum(shape))
    rows, inputs, units = shape
    x, weight, bias = rows_of_all_kinds(rng, rows, inputs), rng.standard_normal((inputs, units)), np.arange(units) / 7
    codes, scales = functional.quantize_columns(weight)
    for given in (None, bias):
        with np.errstate(all="ignore"):
            wanted = reference.quantized_dense(x, codes, scales, given)
        for n_threads in (1, 2, 5):
            found = functional.quantized_dense(x, codes, scales, given, n_threads=n_threads)
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("by_instruction", WAYS)
def test_the_largest_sums_fit(by_instruction):
    """All codes as far from 0 as they can be, of either sign, in the deepest product there is."""
    kernels.use_instruction("int8", by_instruction)
    depth = quantizing.MOST_INPUTS
    x = np.ones((2, depth), dtype=np.float32)
    x[1] = -1
    codes = np.full((depth, 2), 127, dtype=np.int8)
    codes[:, 1] = -127
    found = functional.quantized_dense(x, codes, np.ones(2, dtype=np.float32))
    whole = np.float32(255 * 127 * depth) * (np.float32(1) / np.float32(255))
    np.testing.assert_array_equal(found, [[whole, -whole], [-whole, whole]])


def test_a_product_is_near_that_of_float32():
    rng = np.random.default_rng(4)
    x, weight = rng.standard_normal((50, 400)), rng.standard_normal((400, 60))
    found = functional.quantized_dense(x, *functional.quantize_columns(weight))
    exact = x @ weight
    assert 0.001 < np.abs(found - exact).std() / exact.std() < 0.015


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (TypeError, "codes must be int8", {"codes": np.ones((3, 2))}),
        (ValueError, "do not fit", {"codes": np.ones((4, 2), dtype=np.int8)}),
        (ValueError, r"scales must have shape \(2,\), got \(3,\)", {"scales": np.ones(3)}),
        (ValueError, r"bias must have shape \(2,\), got \(1,\)", {"bias": np.ones(1)}),
    ],
)
def test_arrays_that_do_not_fit_are_refused(error, message, change):
    given = {"x": np.ones((5, 3)), "codes": np.ones((3, 2), dtype=np.int8), "scales": np.ones(2), "bias": np.ones(2)}
    with pytest.raises(error, match=message):
        functional.quantized_dense(**given | change)


def test_weights_that_bytes_cannot_stand_for_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        functional.quantize_columns([[1.0, np.inf]])
    with pytest.raises(ValueError, match="65,536"):
        functional.quantize_columns(np.zeros((65_537, 1)))
    with pytest.raises(ValueError, match="columns"):
        functional.quantize_rows(np.zeros(3))


def test_no_rows_and_no_inputs_give_what_is_left():
    codes, scales = functional.quantize_columns(np.zeros((0, 2)))
    np.testing.assert_array_equal(functional.quantized_dense(np.zeros((3, 0)), codes, scales, [1, 2]), [[1, 2]] * 3)
    codes, scales = functional.quantize_columns(np.ones((3, 2)))
    assert functional.quantized_dense(np.zeros((0, 3)), codes, scales).shape == (0, 2)


# Networks ---------------------------------------------------------------------------------------------------


def table(rows=700):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((rows, 90)).astype(np.float32)
    return X, (X[:, :3].argmax(axis=1) + 3 * (X[:, 3] > 0)).astype(np.int64)


LAYERS = {
    "relu": lambda: [cd.Dense(150, **HE), cd.ReLU(), cd.Dropout(0.5)],
    "vanilla": lambda: [
        cd.Dropout(0.1, mode="vanilla"),
        cd.Dense(150, activation="relu"),
        cd.Dropout(0.5, mode="vanilla"),
    ],
    "tanh": lambda: [cd.Dense(33, activation="tanh", bias=False), cd.GaussianDropout(0.2)],
    "gelu after": lambda: [cd.Dense(64), cd.LayerNorm(), cd.GELU()],
    "block": lambda: [cd.Dense(64), cd.Residual([cd.Dense(64), cd.SiLU(), cd.Dropout(0.1), cd.Dense(64)])],
    "normalised": lambda: [cd.Dense(64), cd.BatchNorm(), cd.ReLU()],
    "drop-connect": lambda: [cd.Dense(64, drop_connect=0.3, max_norm=3, activation="relu")],
    "numbers": lambda: [cd.NumericEmbedding("plr", size=4, frequencies=4), cd.Dense(40, activation="relu")],
    "parametric": lambda: [cd.Dense(64), cd.Parametric("mish"), cd.Scale()],
    "masks": lambda: [cd.Dense(64, activation="relu"), cd.Masksembles(4)],
    "learned rate": lambda: [cd.Dense(64, activation="relu"), cd.Dropout("learn", rows=700)],
}


def network(kind="relu", **options):
    net = cd.Network([*LAYERS[kind](), cd.Dense(6)], **{"seed": 5} | options)
    return net


def trained(kind="relu", epochs=3):
    net = network(kind)
    net.fit(*table(), epochs=epochs, verbose=0)
    return net


@pytest.mark.parametrize("kind", LAYERS)
def test_the_bits_depend_on_neither_the_instruction_nor_threads_nor_how_rows_come(kind):
    X, _ = table()
    small = trained(kind).quantize(X[:100])
    wanted = small.predict(X)
    for by_instruction in WAYS:
        kernels.use_instruction("int8", by_instruction)
        for n_threads in (1, 2, 3, 7):
            small.n_threads = n_threads
            assert small.n_threads == (n_threads if cd.show_config()["openmp"] else 1)
            for batch_size in (None, 5, 101):
                np.testing.assert_array_equal(small.predict(X, batch_size=batch_size), wanted)
            np.testing.assert_array_equal(np.concatenate([small.predict(X[r : r + 1]) for r in range(30)]), wanted[:30])


@pytest.mark.parametrize("kind", LAYERS)
def test_predictions_are_near_those_of_the_network_which_stays_as_it_was(kind):
    X, y = table()
    net = trained(kind)
    before = net.predict(X)
    small = net.quantize(X, y)
    np.testing.assert_array_equal(net.predict(X), before)
    after = small.predict(X)
    difference = np.abs(after.astype(np.float64) - before)
    assert 0 < difference.mean() < 0.01
    report = small.report
    assert report.rows == 700
    assert report.largest_difference == difference.max()
    assert report.mean_difference == difference.mean()
    assert report.same_class == np.mean(before.argmax(axis=1) == after.argmax(axis=1)) > 0.95
    assert report.before == net.evaluate(X, y)
    assert report.after == small.evaluate(X, y)
    assert abs(report.after["accuracy"] - report.before["accuracy"]) < 0.02
    assert report.bytes_after == small.nbytes < 0.42 * report.bytes_before
    assert "same class in" in str(report)


def test_predictions_are_those_of_the_twin():
    X, _ = table()
    net = cd.Network(
        [cd.Dense(40), cd.ReLU(), cd.Dropout(0.5), cd.Dense(30), cd.ReLU(), cd.Dense(2)], loss="mse", seed=1
    )
    net.fit(X, X[:, :2], epochs=2, verbose=0)
    small, arrays = net.quantize(X), net.parameters()
    x = X
    for place in (0, 3, 5):
        codes, scales = reference.quantize_columns(arrays[f"{place}.weight"])
        np.testing.assert_array_equal(small.arrays()[f"{place}.weight"], codes)
        np.testing.assert_array_equal(small.arrays()[f"{place}.weight_scale"], scales)
        x = reference.quantized_dense(x, codes, scales, arrays[f"{place}.bias"])
        x = np.maximum(x, 0) if place < 5 else x
    np.testing.assert_array_equal(small.predict(X), x)
    assert small.report.same_class is None
    assert small.report.before == small.report.after == {}


def test_what_each_member_has_for_itself_stays_float32():
    X, y = table()
    inside = [cd.Dense(20, activation="relu"), cd.Dense(6)]
    whole = {"mini": ["0.weight", "1.0.weight"], "tabm": ["0.weight", "1.0.weight"], "packed": ["0.weight"]}
    for sharing, names in whole.items():
        net = cd.Network([cd.Dense(64, activation="relu"), cd.Members(inside, 3, sharing=sharing)], seed=0)
        net.fit(X, y, epochs=2, verbose=0)
        small = net.quantize(X)
        assert [name for name, array in small.arrays().items() if array.dtype == np.int8] == names
        assert np.abs(small.predict(X) - net.predict(X)).max() < 0.05
    with pytest.raises(ValueError, match="no dense layer that bytes can stand for"):
        cd.Network([cd.Members([cd.Dense(2)], 2)], seed=0).build(3).quantize(np.ones((1, 3)))


def test_a_layer_of_more_inputs_than_whole_numbers_hold_stays_float32():
    wide = quantizing.MOST_INPUTS + 1
    net = cd.Network([cd.Dense(2), cd.ReLU(), cd.Dense(3)], seed=0).build(wide)
    X = np.random.default_rng(6).standard_normal((4, wide), dtype=np.float32)
    small = net.quantize(X)
    assert {name: array.dtype.str for name, array in small.arrays().items() if name.endswith("weight")} == {
        "0.weight": "<f4", "2.weight": "|i1",
    }  # fmt: skip
    assert np.abs(small.predict(X) - net.predict(X)).max() < 0.05
    with pytest.raises(ValueError, match="no dense layer that bytes can stand for"):
        cd.Network([cd.Dense(2)], seed=0).build(wide).quantize(X)


def test_several_labels_are_compared_label_by_label():
    X, _ = table()
    Y = (X[:, :4] > 0).astype(np.float32)
    net = cd.Network([cd.Dense(32, activation="relu"), cd.Dense(4)], loss="binary_cross_entropy", seed=0)
    net.fit(X, Y, epochs=3, verbose=0)
    small = net.quantize(X, Y)
    assert small.report.same_class == np.mean((net.predict(X) > 0.5) == (small.predict(X) > 0.5)) < 1


def test_what_overflows_on_the_way_is_not_a_number():
    net = cd.Network([cd.Dense(3), cd.Dense(2)], loss="mse", seed=0).build(2)
    net.parameters()["0.weight"][...] = 1e37
    net.parameters()["1.weight"][...] = 1
    small = net.quantize(np.zeros((1, 2)))
    X = np.array([[1.0, 1.0], [1e3, 1e3]])
    with pytest.raises(ValueError, match="row 1 of X is too large: it overflows on the way"):
        net.quantize(X)
    found = small.predict(X)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_what_cannot_be_quantized_is_refused():
    net = network()
    with pytest.raises(RuntimeError, match="quantize needs a built network: call fit or build"):
        net.quantize(np.zeros((2, 90)))
    net.build(90)
    with pytest.raises(ValueError, match="X must have 90 columns, got 3"):
        net.quantize(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="y must"):
        net.quantize(np.zeros((2, 90)), [1, 2, 3])
    net.parameters()["3.weight"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"'3.weight' has numbers that are not finite; training must have diverged"):
        net.quantize(np.zeros((2, 90)))
    with pytest.raises(ValueError, match="no dense layer that bytes can stand for"):
        cd.Network([cd.LayerNorm(), cd.ReLU()], loss="mse").build(3).quantize(np.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"made by Network\.quantize, or read by cydrop\.load"):
        cd.QuantizedNetwork()


def test_its_faces_say_what_it_is():
    small = trained().quantize(table()[0])
    assert repr(small) == f"<cydrop.QuantizedNetwork of 4 layers, loss 'cross_entropy', {small.nbytes:,} bytes>"
    assert small.summary().splitlines()[-1] == f"{small.nbytes:,} bytes"
    assert small.summary().count("int8") == 2
    assert [layer.config() for layer in small.layers] == [layer.config() for layer in network().layers]
    assert small.loss.name == "cross_entropy"
    for name, hint in (("fit", "it only predicts"), ("predict_mc", "ask the network"), ("parameters", "arrays()")):
        with pytest.raises(AttributeError, match=rf"a QuantizedNetwork has no attribute '{name}'; {re.escape(hint)}"):
            getattr(small, name)
    for name in ("precision", "wheels"):
        with pytest.raises(AttributeError, match=f"a QuantizedNetwork has no attribute '{name}' to set"):
            setattr(small, name, 1)
    with pytest.raises(AttributeError, match=r"has no attribute 'wheels'$"):
        small.wheels  # noqa: B018
    assert cd.show_config()["int8"] == ("instruction" if kernels.has_instruction("int8") else "computed")


# One hash ---------------------------------------------------------------------------------------------------

SCRIPT = """
import hashlib, sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np
from cydrop._core import dense
from digests import bytes_of
rng = np.random.default_rng(0)
layers = [cd.Dense(151), cd.ReLU(), cd.Dropout(0.5), cd.Dense(70), cd.Residual([cd.Dense(70), cd.ReLU()]), cd.Dense(10)]
net = cd.Network(layers, loss="mse", seed=0).build(90)
for array in net.parameters().values():
    array[...] = rng.integers(-999, 1000, array.shape) / np.float32(4096)
X = (rng.integers(-9999, 10000, (300, 90)) / 2048).astype("f")
small = net.quantize(X[:10])
for n_threads in (1, 2, 3, 7):
    dense.use_instruction("int8", n_threads < 3)
    small.n_threads = n_threads
    print(hashlib.sha256(bytes_of(small.predict(X))).hexdigest())
"""

# The same everywhere, also where the fused multiply-add is missing.
GOLDEN = "976227259ae989e67fd875c4fd3eb1dbafd4a086f2e7b27f8b090d94ded74380"


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_predictions_are_the_golden_bits_with_every_instruction_set(simd):
    environment = {**os.environ, "CYDROP_SIMD": simd}
    script = SCRIPT.format(tests=os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == 4 * [GOLDEN]


# Files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_files_pickles_and_copies_predict_the_same(kind, tmp_path):
    X, y = table()
    small = trained(kind, 1).quantize(X, y)
    wanted = small.predict(X)
    path = tmp_path / "small.safetensors"
    small.save(path)
    for other in (cd.load(path), cd.load(path, n_threads=3), pickle.loads(pickle.dumps(small)), copy.deepcopy(small)):
        assert isinstance(other, cd.QuantizedNetwork)
        np.testing.assert_array_equal(other.predict(X), wanted)
        assert other.report == small.report
        assert [layer.config() for layer in other.layers] == [layer.config() for layer in small.layers]
    assert path.stat().st_size < small.nbytes + 4000
    first = path.read_bytes()
    cd.load(path).save(path)
    assert path.read_bytes() == first


def header_of(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def written(path, header, tensors):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    return path


def described(header, **changes):
    own = json.loads(header["__metadata__"]["cydrop_quantized"]) | changes
    return header | {"__metadata__": header["__metadata__"] | {"cydrop_quantized": json.dumps(own)}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "small.safetensors"
    trained("normalised", 1).quantize(table()[0]).save(path)
    return path


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("it has format 2, this cydrop .* reads format 1", {"format": 2}),
        ("layers is empty", {"layers": []}),
        ("its report has", {"report": {"rows": 1}}),
        ("is not a count", {"n_features": -1}),
        ("its tensors are not those of its layers", {"layers": [{"layer": "Dense", "units": 6}]}),
        ("is 'F32' of shape|is 'I8' of shape", {"n_features": 91}),
        ("precision", {"precision": "int4"}),
        ("description", {"more": 1}),
    ],
)
def test_descriptions_that_do_not_hold_together_are_refused(message, change, saved, tmp_path):
    header, tensors = header_of(saved)
    path = written(tmp_path / "bad", described(header, **change), tensors)
    with pytest.raises(ValueError, match=f"is not a network that cydrop can load: .*({message})"):
        cd.load(path)


def test_reports_that_do_not_consist_of_numbers_are_refused(saved, tmp_path):
    header, tensors = header_of(saved)
    report = json.loads(header["__metadata__"]["cydrop_quantized"])["report"]
    changes = [
        ({"rows": "1"}, "numbers$"), ({"before": []}, "numbers$"), ({"after": {"loss": "0"}}, "numbers$"),
        ({"mean_difference": None}, "numbers$"), ({"largest_difference": 10**400}, "int too large"),
        ({"rows": 0}, "no comparison"), ({"rows": 1.5}, "no comparison"), ({"bytes_before": 0}, "no comparison"),
        ({"same_class": 5}, "no comparison"), ({"mean_difference": -1.0}, "no comparison"),
        ({"before": {"loss": 1.0}}, "other metrics"),
    ]  # fmt: skip
    for change, message in changes:
        path = written(tmp_path / "bad", described(header, report=report | change), tensors)
        with pytest.raises(ValueError, match=message):
            cd.load(path)


def test_numbers_that_no_quantizing_gives_are_refused(saved, tmp_path):
    header, tensors = header_of(saved)
    places = {
        "0.weight": (b"\x80", "has the code -128"),
        "0.weight_scale": (np.float32(-1), "must not be negative"),
        "3.bias": (np.float32(np.nan), "NaN or infinite"),
        "1.running_variance": (np.float32(-1), "must not be negative"),
    }
    for name, (value, message) in places.items():
        start = header[name]["data_offsets"][0]
        raw = value if isinstance(value, bytes) else value.tobytes()
        changed = tensors[:start] + raw + tensors[start + len(raw) :]
        with pytest.raises(ValueError, match=message):
            cd.load(written(tmp_path / "bad", header, changed))
    with pytest.raises(ValueError, match="is it cut off"):
        cd.load(written(tmp_path / "bad", header, tensors[:-1]))


def test_a_network_of_own_layers_is_refused_before_anything_is_written(tmp_path):
    class Own(cd.Dense):
        pass

    net = cd.Network([Own(4), cd.Dense(2)], seed=0).build(3)
    with pytest.raises(ValueError, match="of the class"):
        net.quantize(np.zeros((2, 3))).save(tmp_path / "own")
    assert not list(tmp_path.iterdir())


def test_the_loaders_of_others_say_who_reads_it(saved):
    with pytest.raises(ValueError, match=r"it holds a quantized network, which cydrop\.load reads"):
        cd.network.load(saved)


def test_equal_networks_have_equal_files(tmp_path):
    X, _ = table()
    for name in ("one", "two"):
        trained(epochs=1).quantize(X).save(tmp_path / name)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("one", "two")}
    assert len(digests) == 1

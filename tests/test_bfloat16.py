"""Products of bfloat16: the bits of the twin with and without the processor's instruction, and networks of them."""

import math
import os
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from digests import HE, digest, fused

import cydrop as cd
from cydrop import functional, reference
from cydrop._core import dense as kernels
from cydrop.distributed import DataParallel
from cydrop.reference import _bfloat16 as twin

WAYS = [True, False] if kernels.has_instruction("bfloat16") else [False]
SPECIAL = np.array(
    [0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 2**-126, -(2**-126), 1.1754942e-38, 3.4e38, -3.4e38, 1, 2**-133],
    dtype=np.float32,
)


@pytest.fixture(autouse=True)
def the_instruction_where_it_is():
    yield
    kernels.use_instruction("bfloat16", True)


def assert_same_bits(found, wanted):
    same = (found.view(np.uint32) == wanted.view(np.uint32)) | (np.isnan(found) & np.isnan(wanted))
    assert same.all()


def any_bits(rng, *shape):
    """Numbers of any bits: of all sizes, denormals, infinities, and none at all."""
    return rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)


def numbers(kind, rng, *shape):
    """Of sizes that go together, that almost vanish, or among which some are special."""
    x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 2, shape)
    if kind == "small":
        x *= 10.0 ** rng.integers(-20, -17, shape)
    if kind == "special":
        x = np.where(rng.random(shape) < 0.03, rng.choice(SPECIAL, shape), x)
    return x.astype(np.float32)


# Numbers ----------------------------------------------------------------------------------------------------


def test_a_number_becomes_the_nearest():
    rng = np.random.default_rng(0)
    for x in any_bits(rng, 2000):
        found = float(twin.bfloat16(np.array([x]))[0])
        if not np.isfinite(x):
            assert np.isnan(found) if np.isnan(x) else found == x
        elif abs(x) < 2.0**-126:
            assert found == 0
            assert np.signbit(found) == np.signbit(x)
        else:
            unit = Fraction(2) ** (math.frexp(x)[1] - 8)
            exact = round(Fraction(float(x)) / unit) * unit  # ties to even
            assert found == exact if abs(exact) < 2**128 else np.isinf(found)


@pytest.mark.parametrize("by_instruction", WAYS)
def test_kernels_round_as_the_twin(by_instruction):
    kernels.use_instruction("bfloat16", by_instruction)
    rng = np.random.default_rng(1)
    for count in (1, 2, 15, 31, 32, 33, 200_001):
        x, y = any_bits(rng, count), any_bits(rng, count)
        x[: min(count, 14)] = SPECIAL[:count]
        first, second = (twin.bfloat16(one).view(np.uint32) for one in (x, y))
        pairs = np.empty(count, dtype=np.uint32)
        kernels.pairs_of(x, y, pairs)
        assert_same_bits((pairs << 16).view(np.float32), first.view(np.float32))
        assert_same_bits((pairs & 0xFFFF0000).view(np.float32), second.view(np.float32))
        along = np.empty((count + 1) // 2, dtype=np.uint32)
        kernels.pairs_of(x, x[:0], along)
        assert_same_bits((along << 16).view(np.float32), first[::2].view(np.float32))
        assert_same_bits((along & 0xFFFF0000)[: count // 2].view(np.float32), first[1::2].view(np.float32))
        assert count % 2 == 0 or along[-1] >> 16 == 0


def rounded_once(exact):
    """To 24 digits, ties to even, and what is below 2^-126 then is 0."""
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** (exponent - 23)
    size = round(size / unit) * unit
    if size < Fraction(2) ** -126:
        return 0.0
    return float(np.sign(exact)) * (np.inf if size >= 2**128 else float(size))


def test_a_sum_is_rounded_once_and_flushed_after_it():
    """Against exact arithmetic, also where a sum is on the edge of what is flushed, and of two roundings."""
    rng = np.random.default_rng(2)
    x, y = (twin.bfloat16(any_bits(rng, 6000)) for _ in range(2))
    c = twin.bfloat16(any_bits(rng, 6000)) + np.float32(0)
    c[::2] = numbers("usual", rng, 3000) * 2.0 ** rng.integers(-20, 20, 3000)
    with np.errstate(all="ignore"):
        c[1::3] = -(x[1::3].astype(np.float64) * y[1::3]).astype(np.float32)  # cancels all but what rounding lost
    edge = slice(None, None, 7)  # sums next to 2^-126
    x[edge] = (2.0 ** rng.integers(-60, -40, len(x[edge]))).astype(np.float32)
    y[edge] = (rng.choice([-1, 1], len(x[edge])) * 2.0**-151 / x[edge]).astype(np.float32)
    c[edge] = np.float32(2.0**-126) + rng.integers(-1, 2, len(x[edge])) * np.float32(2.0**-149)
    found = twin.multiply_add(x, y, c)
    for given in zip(x, y, c, found, strict=True):
        if np.isfinite(given[:3]).all():
            a, b, d, wanted = (float(value) for value in given)
            assert rounded_once(Fraction(a) * Fraction(b) + Fraction(d)) == wanted


# Products ---------------------------------------------------------------------------------------------------

# (rows, inputs, units): edges of tiles, of blocks of 512, odd depths, products large enough for threads
SHAPES = [
    (1, 1, 1), (2, 3, 5), (13, 17, 33), (7, 64, 10), (25, 600, 70), (128, 31, 64), (3, 1030, 40), (12, 32, 16),
    (97, 301, 103), (700, 30, 41), (40, 1100, 31),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["usual", "small", "special"])
@pytest.mark.parametrize("by_instruction", WAYS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_products_have_the_bits_of_the_twin(shape, by_instruction, kind):
    kernels.use_instruction("bfloat16", by_instruction)
    rng = np.random.default_rng(sum(shape))
    rows, inputs, units = shape
    x, weight, bias = (numbers(kind, rng, *size) for size in ((rows, inputs), (inputs, units), (units,)))
    dy = numbers(kind, rng, rows, units)
    with np.errstate(all="ignore"):
        y = reference.dense(x, weight, bias, precision="bfloat16")
        gradients = reference.dense_backward(dy, x, weight, precision="bfloat16")
        biases = np.zeros(units, dtype=np.float32)
        for row in dy:
            biases += row
    for n_threads in (1, 3):
        options = {"precision": "bfloat16", "n_threads": n_threads}
        assert_same_bits(functional.dense(x, weight, bias, **options), y)
        dx, dweight, dbias = functional.dense_backward(dy, x, weight, **options)
        for found, wanted in ((dx, gradients[0]), (dweight, gradients[1]), (dbias, biases)):
            assert_same_bits(found, wanted)


def test_a_product_is_near_that_of_float32():
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((50, 400)), rng.standard_normal((400, 60))
    exact = x @ weight
    errors = [np.abs(functional.dense(x, weight, precision=p) - exact).max() for p in ("float32", "bfloat16")]
    assert errors[0] < 1e-3 < errors[1] < 0.5


# Networks ---------------------------------------------------------------------------------------------------


def table(rows=500):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((rows, 90)).astype(np.float32)
    return X, (X[:, :3].argmax(axis=1) + 3 * (X[:, 3] > 0)).astype(np.int64)


def hidden():
    return [cd.Dense(64, **HE), cd.ReLU(), cd.Dropout(0.3)]


KINDS = {
    "dense": lambda: [cd.Dense(150, **HE), cd.ReLU(), cd.Dropout(0.5), cd.Dense(101, activation="gelu", **HE)],
    "shared mask": lambda: [cd.Dense(300, **HE), cd.ReLU(), cd.Dropout(0.5, shared="batch"), cd.Dense(64, **HE)],
    "drop-connect": lambda: [cd.Dense(150, activation="tanh", drop_connect=0.4, **HE), cd.Dense(77, **HE)],
    "block": lambda: [cd.Dense(64, **HE), cd.Residual([*hidden()]), cd.BatchNorm()],
}


def network(kind="dense", **options):
    options = {"seed": 5, "precision": "bfloat16"} | options
    return cd.Network([*KINDS[kind](), cd.Dense(6, **HE)], **options)


@pytest.mark.parametrize("shards", [0, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_have_the_same_bits_with_and_without_the_instruction_on_any_number_of_threads(kind, shards):
    X, y = table()
    digests = set()
    for by_instruction in WAYS:
        kernels.use_instruction("bfloat16", by_instruction)
        for n_threads in (1, 2, 3, 7):
            net = network(kind, n_threads=n_threads)
            net.fit(X, y, epochs=2, batch_size=125, verbose=0, parallel=DataParallel(shards=shards) if shards else None)
            digests.add(digest(net) + net.predict(X).tobytes().hex())
    assert len(digests) == 1


def test_members_have_the_same_bits_with_and_without_the_instruction_on_any_number_of_threads():
    X, y = table()
    members = [cd.Dense(33, **HE), cd.ReLU(), cd.Dropout(0.2), cd.Dense(6, **HE)]
    digests = set()
    for by_instruction in WAYS:
        kernels.use_instruction("bfloat16", by_instruction)
        for n_threads in (1, 2, 5):
            layers = [cd.Members(members, 5)]
            net = cd.Network(layers, seed=5, precision="bfloat16", n_threads=n_threads)
            net.fit(X, y, epochs=2, batch_size=25, verbose=0)
            digests.add(digest(net) + net.predict(X).tobytes().hex())
    assert len(digests) == 1


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np
from cydrop._core import dense
from digests import HE, digest
rng = np.random.default_rng(0)
X, y = rng.standard_normal((400, 90)).astype("f"), rng.integers(0, 10, 400)
for n_threads in (1, 2, 3, 4):
    dense.use_instruction("bfloat16", n_threads < 3)
    layers = [
        cd.Dense(151, **HE), cd.ReLU(), cd.Dropout(0.5), cd.Dense(64, drop_connect=0.3, **HE), cd.LayerNorm(),
        cd.Residual([cd.Dense(64, activation="gelu", **HE), cd.Dropout(0.5, shared="batch"), cd.Dense(64, **HE)]),
    ]
    net = cd.Network([*layers, cd.Dense(10, **HE)], seed=11, n_threads=n_threads, precision="bfloat16")
    net.fit(X, y, epochs=3, batch_size=125, verbose=0)
    print(digest(net))
"""

# As in test_same_bits.py: where the fused multiply-add is missing the products are the same, optimizers are not.
GOLDEN = {
    True: "177d07a91449a4453364ab3528bba59d18df3589a3ed2af426f361fe1f0b3929",
    False: "4bf469bbf6a7f1074ab283f11600106cb615afc52d8ee230cfd90bb06de384ef",
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_trained_weights_are_the_golden_bits_with_every_instruction_set(simd):
    environment = {**os.environ, "CYDROP_SIMD": simd}
    script = SCRIPT.format(tests=os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == 4 * [GOLDEN[fused(simd)]]


def test_it_learns_what_float32_learns():
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    accuracy = {}
    for precision in ("float32", "bfloat16"):
        net = cd.Network([*hidden(), cd.Dense(10, **HE)], seed=0, precision=precision)
        net.fit(X, y, epochs=8, verbose=0)
        accuracy[precision] = net.evaluate(X_test, y_test)["accuracy"]
    assert accuracy["float32"] > 0.9
    assert abs(accuracy["bfloat16"] - accuracy["float32"]) < 0.015


def test_gradients_are_near_those_of_float32():
    X, y = table(128)
    found = []
    for precision in ("float32", "bfloat16"):
        net = network(precision=precision).build(90)
        net.forward(X, training=True)
        net.backward(np.eye(6)[y] / 128)
        found.append(np.concatenate([g.ravel() for g in net.gradients().values()]))
    assert 0 < np.linalg.norm(found[1] - found[0]) < 0.02 * np.linalg.norm(found[0])


def test_many_at_once_have_the_bits_of_one():
    X, y = table()
    alone = [network(seed=seed) for seed in range(3)]
    together = [network(seed=seed) for seed in range(3)]
    for net in alone:
        net.fit(X, y, epochs=2, verbose=0)
    cd.fit_many(together, X, y, epochs=2, verbose=0)
    assert [digest(net) for net in together] == [digest(net) for net in alone]


def test_files_pickles_and_copies_keep_it(tmp_path):
    X, y = table()
    net = network()
    net.fit(X, y, epochs=1, verbose=0)
    net.save(tmp_path / "net.safetensors")
    for other in (cd.load(tmp_path / "net.safetensors"), pickle.loads(pickle.dumps(net))):
        assert other.precision == "bfloat16"
        np.testing.assert_array_equal(other.predict(X), net.predict(X))
    plain = network(precision="float32")
    assert "precision" not in plain.__getstate__()
    assert plain.precision == pickle.loads(pickle.dumps(plain)).precision == "float32"


def test_it_can_be_changed(tmp_path):
    X, y = table()
    net = network()
    net.fit(X, y, epochs=1, verbose=0)
    sets = net.calibrate(X, y).predict_set(X)
    rounded = net.predict(X)
    assert "bfloat16" in repr(net)
    assert "products of bfloat16" in net.summary()
    net.precision = "float32"
    assert "float" not in repr(net) + net.summary()
    assert 0 < np.abs(net.predict(X) - rounded).max() < 0.02
    assert net.calibration is None
    with pytest.raises(RuntimeError, match="trained or changed since it was calibrated; call calibrate"):
        net.predict_set(X)
    net.save(tmp_path / "changed.safetensors")
    assert cd.load(tmp_path / "changed.safetensors").calibration is None
    net.precision = "bfloat16"
    np.testing.assert_array_equal(net.predict(X), rounded)
    np.testing.assert_array_equal(net.predict_set(X), sets)


@pytest.mark.parametrize("folds", [None, 2])
def test_an_ensemble_notices_that_a_member_was_changed(folds, tmp_path):
    X, y = table()
    ensemble = cd.Ensemble([network(seed=seed) for seed in range(2)])
    ensemble.fit(X, y, folds=folds, epochs=1, verbose=0)
    if folds is None:
        ensemble.calibrate(X, y)
    sets = ensemble.predict_set(X)
    ensemble.save(tmp_path / "two.safetensors")
    other = cd.ensemble.load(tmp_path / "two.safetensors")
    np.testing.assert_array_equal(other.predict_set(X), sets)
    for one in (ensemble, other):
        one.networks[1].precision = "float32"
        assert one.calibration is None
        with pytest.raises(RuntimeError, match="trained or changed since it was calibrated"):
            one.predict_set(X)


def test_what_is_no_precision_gets_a_sentence():
    for wrong in ("float16", "bf16"):
        with pytest.raises(ValueError, match="is not known; known are 'float32', 'bfloat16'"):
            network(precision=wrong)
    with pytest.raises(TypeError, match="precision must be one of 'float32', 'bfloat16'"):
        network(precision=np.float32)
    for dense in (functional.dense, reference.dense):
        with pytest.raises(ValueError, match="is not known"):
            dense(np.ones((2, 2)), np.ones((2, 2)), precision="half")
        with pytest.raises(ValueError, match=r"fit|cannot be multiplied"):
            dense(np.ones((2, 3)), np.ones((2, 3)), precision="bfloat16")
    net = network()
    with pytest.raises(ValueError, match="is not known"):
        net.precision = "half"
    assert net.precision == "bfloat16"

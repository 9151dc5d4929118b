"""What comes in: tables and tensors of every kind, values that change meanwhile, sizes beyond reason."""

import datetime
import os
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cydrop as cd
from cydrop import functional
from cydrop._base import checks
from cydrop._run import rows

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame({"size": RNG.normal(size=60), "count": RNG.integers(0, 9, 60), "kind": list("abc") * 20})
NUMBERS = TABLE[["size", "count"]]
LABELS = np.arange(60) % 2


def network(**options):
    return cd.Network([cd.Dense(8), cd.ReLU(), cd.Dense(2)], **({"seed": 0, "n_threads": 1} | options))


def bits(net):
    return b"".join(value.tobytes() for value in net.parameters().values())


# Tables -----------------------------------------------------------------------------------------------------

ARROW = NUMBERS.assign(big=TABLE["count"] > 4).convert_dtypes(dtype_backend="pyarrow")
FRAMES = {
    "floats": NUMBERS[["size"]],
    "floats and integers": NUMBERS,
    "floats and bools": pd.get_dummies(TABLE),
    "bools": pd.get_dummies(TABLE[["kind"]]),
    "sparse": pd.get_dummies(TABLE, sparse=True),
    "float32 and int64": NUMBERS.astype({"size": np.float32}),
    "small integers": pd.DataFrame({"a": np.int8([1, -2] * 30), "b": np.uint64([3, 2**63] * 30)}),
    "nullable": NUMBERS.assign(big=TABLE["count"] > 4).convert_dtypes(),
    "Float64": NUMBERS.astype("Float64"),
    "boolean": (NUMBERS > 0).astype("boolean"),
    "Arrow": ARROW,
    "two columns of one name": pd.concat([NUMBERS, NUMBERS.convert_dtypes()], axis=1),
    "names of two levels": pd.concat({"u": NUMBERS, "v": pd.get_dummies(TABLE)}, axis=1),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_is_the_numbers_it_shows(kind):
    frame = FRAMES[kind]
    expected = np.array([[float(value) for value in row] for row in frame.itertuples(index=False)])
    found = checks.array("X", frame)
    assert found.dtype.kind in "biuf"
    np.testing.assert_array_equal(found, expected)
    plain, given = network(), network()
    plain.fit(expected, LABELS, epochs=2, verbose=0)
    given.fit(frame, LABELS, epochs=2, verbose=0)
    assert bits(plain) == bits(given)
    assert given.predict(frame).tobytes() == plain.predict(expected).tobytes()


def test_series_and_arrow_arrays_are_taken_as_y_and_as_weights():
    X = NUMBERS.to_numpy()
    weight = np.arange(60) % 3
    plain = network()
    plain.fit(X, LABELS, epochs=1, sample_weight=weight, verbose=0)
    for dtype in ("Int64", "Float64", "int8[pyarrow]", "double[pyarrow]", "category", "float32"):
        net = network()
        net.fit(X, pd.Series(LABELS).astype(dtype), epochs=1, sample_weight=pd.Series(weight).astype(dtype), verbose=0)
        assert bits(net) == bits(plain), dtype
    for convert in (pd.array, pa.array, lambda values: pa.chunked_array([values[:7], values[7:]]), lambda v: v == 1):
        net = network()
        net.fit(X, convert(LABELS), epochs=1, sample_weight=weight, verbose=0)
        assert bits(net) == bits(plain)
    net = network()
    net.fit(X, pd.Series(LABELS == 1, dtype="boolean"), epochs=1, sample_weight=weight, verbose=0)
    assert bits(net) == bits(plain)


def test_arrow_tables_are_taken():
    table = pa.Table.from_pandas(FRAMES["floats and bools"], preserve_index=False)
    expected = FRAMES["floats and bools"].to_numpy(dtype=float)
    np.testing.assert_array_equal(checks.array("X", table), expected)
    np.testing.assert_array_equal(checks.array("X", table.to_batches()[0]), expected)


class PolarsSeries:
    """What a Polars series has in common with the real one."""

    def __init__(self, name, values, missing=()):
        self.name, self._values, self._missing = name, np.asarray(values), set(missing)
        self.dtype = "Categorical" if name == "kind" else "Float64"

    def null_count(self):
        return len(self._missing)

    def is_null(self):
        return np.array([place in self._missing for place in range(len(self._values))])

    def __array__(self, dtype=None, copy=None):
        return self._values


class PolarsFrame:
    def __init__(self, *columns):
        self._columns = list(columns)
        self.schema = {column.name: column.dtype for column in columns}

    def get_columns(self):
        return self._columns

    def null_count(self):
        raise AssertionError("a frame, not a number")

    def __array__(self, dtype=None, copy=None):
        return np.stack([np.asarray(column, dtype=object) for column in self._columns], axis=1)


def test_polars_frames_are_taken_column_by_column():
    size, big = PolarsSeries("size", [1.5, 2.5]), PolarsSeries("big", [True, False])
    np.testing.assert_array_equal(checks.array("X", PolarsFrame(size, big)), [[1.5, 1], [2.5, 0]])
    np.testing.assert_array_equal(checks.array("y", big), [True, False])
    with pytest.raises(ValueError, match=r"X column 'gap' has 1 values that are missing \(NA\), the first at row 1"):
        checks.array("X", PolarsFrame(size, PolarsSeries("gap", [1.0, 0.0], missing=[1])))
    with pytest.raises(TypeError, match="X column 'kind' is of categories"):
        checks.array("X", PolarsFrame(size, PolarsSeries("kind", ["a", "b"])))
    with pytest.raises(TypeError, match="X column 'name' must be numeric, got text"):
        checks.array("X", PolarsFrame(size, PolarsSeries("name", ["1", "2"])))


DAYS = [datetime.datetime(2020, 1, 1)] * 60


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series(["1"] * 60), "must be numeric"),  # text that looks like numbers is text
        (pd.Series(["1"] * 60, dtype=object), "must be numeric, got Python objects"),
        (pd.array(["1"] * 60, dtype="string[pyarrow]"), "must be numeric"),
        (pd.Categorical([1, 2] * 30), "is of categories; encode it first"),
        (pd.array([1, 2] * 30, dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.int64()))), "is of categories"),
        (pd.to_datetime(DAYS), "must be numeric, got dates"),
        (pd.to_datetime(DAYS, utc=True), "must be numeric, got .*UTC"),
        (pd.array(DAYS, dtype=pd.ArrowDtype(pa.timestamp("ns"))), "must be numeric, got dates"),
        (pd.to_timedelta([1] * 60), "must be numeric, got time spans"),
        (np.full(60, 1j), "must be real, got complex"),
    ],
    ids=lambda value: None,
)
def test_a_column_of_anything_else_is_refused_by_its_name(column, message):
    for numbers in (NUMBERS, NUMBERS.convert_dtypes(), NUMBERS[[]]):
        frame = numbers.assign(odd=column)
        with pytest.raises(TypeError, match=f"X column 'odd' {message}"):
            network().fit(frame, LABELS, verbose=0)


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_a_gap_is_refused_by_its_place(backend):
    frame = NUMBERS.convert_dtypes(dtype_backend=backend)
    for name in frame:
        gap = frame.copy()
        gap.loc[[7, 9], name] = None
        with pytest.raises(ValueError, match=rf"X column '{name}' has 2 values that are missing .*first at row 7"):
            network().fit(gap, LABELS, verbose=0)
        with pytest.raises(ValueError, match=r"y has 2 values that are missing \(NA\), the first at row 7"):
            network(loss="mse").fit(frame, gap[name], verbose=0)
    gap = pd.get_dummies(TABLE)
    gap.loc[7, "size"] = np.nan
    with pytest.raises(ValueError, match=r"X has 1 values that are NaN or infinite, the first NaN at row 7, column 0"):
        network().fit(gap, LABELS, verbose=0)


# Tensors and small floats -----------------------------------------------------------------------------------


class Tensor:
    """What matters of a PyTorch tensor: NumPy gets it detached, on the CPU, in a type that it knows, or an error."""

    def __init__(self, values, kind="float32", requires_grad=False, device="cpu"):
        self.values, self.kind, self.requires_grad, self.device = np.asarray(values), kind, requires_grad, device

    def detach(self):
        return Tensor(self.values, self.kind, False, self.device)

    def cpu(self):
        return Tensor(self.values, self.kind, self.requires_grad)

    def float(self):
        return Tensor(self.values.astype(np.float32), "float32", self.requires_grad, self.device)

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.device != "cpu":
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        if self.kind == "bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        if self.kind == "meta":
            raise RuntimeError("Cannot copy out of meta tensor; no data!")
        return self.values


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_tensors_are_taken_as_they_are(kind, requires_grad, device):
    X = RNG.normal(size=(60, 4)).astype(np.float32)
    weight = np.arange(60, dtype=np.float32) % 3
    plain, given = network(), network()
    plain.fit(X, LABELS, epochs=1, sample_weight=weight, verbose=0)
    options = (kind, requires_grad, device)
    given.fit(Tensor(X, *options), Tensor(LABELS), epochs=1, sample_weight=Tensor(weight, *options), verbose=0)
    assert bits(plain) == bits(given)
    assert functional.relu(Tensor(X, *options)).tobytes() == functional.relu(X).tobytes()


def test_what_no_tensor_can_give_is_a_sentence():
    for given in (Tensor([[1.0]], "meta"), [Tensor([1.0], requires_grad=True)]):
        with pytest.raises(ValueError, match="X cannot be made into an array: Can"):
            network().predict(given)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_types_that_numpy_does_not_know_are_taken_by_value(name):
    X = np.random.default_rng(1).integers(-3, 4, (60, 4)).astype(getattr(ml_dtypes, name))
    assert network().predict(X).tobytes() == network().predict(X.astype(np.float32)).tobytes()
    y = LABELS.astype(getattr(ml_dtypes, name))
    nets = [network(), network()]
    for net, labels in zip(nets, (y, LABELS), strict=True):
        net.fit(X, labels, epochs=1, sample_weight=np.abs(X[:, 0].astype(float)).astype(X.dtype), verbose=0)
    assert bits(nets[0]) == bits(nets[1])
    X = X.astype(float)
    X[3, 1] = np.nan
    if "float" in name:
        with pytest.raises(ValueError, match=r"X has 1 values that are NaN.* first NaN at row 3, column 1"):
            network().predict(X.astype(getattr(ml_dtypes, name)))


# Masked arrays ----------------------------------------------------------------------------------------------


def test_masked_entries_are_no_data_and_refused():
    X, w = np.ones((3, 2)), [0, 0, 1]
    masked = np.ma.array(X, mask=[[0, 0], [0, 1], [1, 0]])
    for call in (
        lambda: network().predict(masked),
        lambda: network().predict(list(masked)),
        lambda: network().predict([X[0].tolist(), *masked[1:]]),
        lambda: network().fit(X, np.ma.array([0, 1, 1], mask=w)),
        lambda: network().fit(X, [0, 1, 1], sample_weight=np.ma.array([1.0, 1, 1], mask=w)),
        lambda: functional.dropout(X, mask=np.ma.array(X, mask=masked.mask)),
    ):
        with pytest.raises(ValueError, match=r"is a masked array with [12] masked entries.*\.filled\(value\)"):
            call()


def test_a_masked_array_without_a_masked_entry_is_its_data():
    X = np.arange(6.0).reshape(3, 2)
    for mask in (np.ma.nomask, np.zeros((3, 2), dtype=bool)):
        given = np.ma.array(X, mask=mask)
        assert network().predict(given).tobytes() == network().predict(X).tobytes()
        assert type(checks.array("X", given)) is np.ndarray


# What changes meanwhile -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["y", "sample_weight"])
@pytest.mark.parametrize("loss", ["cross_entropy", "soft", "binary_cross_entropy", "mse", "gaussian_nll"])
def test_what_a_callback_writes_into_y_or_weights_is_not_trained_on(loss, what):
    X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    results = []
    for change in (False, True):
        y = np.zeros((64, 1 if loss == "gaussian_nll" else 2), dtype=np.float32)
        if loss in ("cross_entropy", "soft"):
            y = (np.arange(64) % 2).astype(np.int32)
            y = np.eye(2, dtype=np.float32)[y] if loss == "soft" else y
        weight = np.ones(64, dtype=np.float32)

        def at_end(net, epoch, metrics, y=y, weight=weight, change=change):
            if change:
                (y if what == "y" else weight)[...] = 1

        def at_first(net, epochs, weight=weight, change=change):
            if change and what == "sample_weight":
                weight[...] = 7

        net = network(loss="cross_entropy" if loss == "soft" else loss)
        told = cd.callbacks.LambdaCallback(on_epoch_end=at_end, on_train_begin=at_first)
        net.fit(X, y, epochs=3, batch_size=16, sample_weight=weight, validation_split=0.25, callbacks=[told], verbose=0)
        metrics = {name: values for name, values in net.history.metrics.items() if name != "seconds"}
        results.append((bits(net), metrics))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (cd.losses.CrossEntropy(), np.zeros(6, dtype=np.int32)),
        (cd.losses.CrossEntropy(), np.zeros((6, 1), dtype=np.int32)),
        (cd.losses.CrossEntropy(), np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]]),
        (cd.losses.BinaryCrossEntropy(), np.zeros((6, 2), dtype=np.float32)),
        (cd.losses.MSE(), np.zeros((6, 2), dtype=np.float32)),
    ],
    ids=lambda value: None,
)
def test_nothing_but_X_is_read_in_the_caller_s_memory(loss, y):
    """Kernels find places by labels, and the rest must stay what was checked: also in what owns its array."""
    X = np.ones((6, 3), dtype=np.float32)
    for weight in (np.ones(6, np.float32), np.ones((6, 2), np.float32)):
        if weight.ndim == 2 and isinstance(loss, cd.losses.CrossEntropy):
            continue
        for given_y, given_weight in ((y, weight), (Tensor(y), Tensor(weight)), (y.view(np.ma.MaskedArray), weight)):
            data = rows.checked_rows(loss, 2, X, given_y, given_weight, 4)
            assert data.X is X
            for mine in (data.labels, data.targets, data.weights):
                assert not np.shares_memory(mine, y)
                assert not np.shares_memory(mine, weight)


def test_functions_without_the_gil_read_their_own_labels(monkeypatch):
    read = []
    for name in ("loss", "pair_loss"):
        monkeypatch.setattr(functional.losses.kernels, name, lambda *given: read.extend(given) or (0.0, 0))
    y, weight = np.zeros(4, dtype=np.int32), np.ones(4, dtype=np.float32)
    z = np.ones((4, 2), dtype=np.float32)
    functional.cross_entropy(z, y, sample_weight=weight)
    functional.r_drop(z, z, y, sample_weight=weight)
    arrays = [array for array in read if isinstance(array, np.ndarray)]
    assert sum(array.dtype == np.int32 and array.shape == (4,) for array in arrays) >= 2
    assert not any(np.shares_memory(array, given) for array in arrays for given in (y, weight))


def test_masks_given_to_forward_are_remembered_as_they_were():
    net = cd.Network([cd.Dropout(0.5), cd.Dense(2)], seed=0)
    mask = np.ones((3, 4), dtype=bool)
    net.forward(np.ones((3, 4)), training=True, masks=[mask])
    mask[...] = False
    assert net.masks()[0].all()


# Sizes ------------------------------------------------------------------------------------------------------

HUGE = [2**31, 2**62, sys.maxsize, 2**63, 10**30]


@pytest.mark.parametrize("size", HUGE)
def test_batches_beyond_the_rows_are_all_rows(size):
    X, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
    nets = [network() for _ in range(4)]
    for net, batch_size in zip(nets[:2], (20, size), strict=True):
        net.fit(X, y, epochs=2, batch_size=batch_size, verbose=0)
        net.fit(X, y, epochs=1, batch_size=batch_size, validation_split=0.3, verbose=0)
    for net, batch_size in zip(nets[2:], (20, size), strict=True):
        net.partial_fit(X, y, batch_size=batch_size)
    assert bits(nets[0]) == bits(nets[1])
    assert bits(nets[2]) == bits(nets[3])
    assert nets[0].predict(X, batch_size=size).tobytes() == nets[0].predict(X).tobytes()


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("samples", lambda n: network().predict_mc(np.ones((2, 3)), n)),
        ("samples", lambda n: network().predict_mc(np.ones((2, 3)), n, return_samples=True)),
        ("samples", lambda n: network().evaluate_mc(np.ones((2, 3)), [0, 1], n)),
        ("units", lambda n: cd.Dense(n)),
        ("n_features", lambda n: network().build(n)),
        ("n_threads", lambda n: network(n_threads=n)),
        ("n_threads", lambda n: functional.relu([1.0], n_threads=n)),
        ("y", lambda n: network().fit(np.ones((2, 3)), np.array([0, n % 2**64], dtype=np.uint64))),
        ("size", lambda n: cd.Xorshift(0).random(n * 2**31)),
        ("size", lambda n: cd.Xorshift(0).random_raw((n, n, n))),
        ("size", lambda n: cd.Xorshift(0).bernoulli(0.5, (n, n, n))),
        ("n ", lambda n: cd.Xorshift(0).permutation(2 * n)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_beyond_reason_are_refused_by_name(name, call, size):
    if name == "y" and size == 10**30:
        size = 2**63
    with pytest.raises(ValueError, match=f"^{name}"):
        call(size)


def test_what_memory_cannot_hold_is_a_memory_error():
    with pytest.raises(MemoryError):
        cd.Network([cd.Dense(2**31 - 1), cd.Dense(2**31 - 1)]).build(2**31 - 1)


def test_any_number_of_epochs_may_be_asked_for():
    def stop(net, epoch, metrics):
        net.stop_training = True

    net = network(optimizer=cd.Adam(cd.schedules.Linear(0.1, 0.01)))
    told = cd.callbacks.LambdaCallback(on_epoch_end=stop)
    for epochs in HUGE:
        net.fit(np.eye(3), [0, 1, 0], epochs=epochs, verbose=0, callbacks=[told])
    assert len(net.history) == len(HUGE)


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(100, 0.29, 29), (100, 0.57, 57), (100, 0.58, 58), (200, 0.29, 58), (100, 0.25, 25), (10, 0.25, 2), (3, 0.99, 2),
     (1000, 0.001, 1), (100, np.float32(0.5), 50), (7, 1 / 7, 1)],
)  # fmt: skip
def test_validation_split_keeps_the_share_asked_for(count, share, held):
    net = network()
    net.fit(np.eye(count), np.arange(count) % 2, epochs=1, validation_split=share, verbose=0)
    assert net.training_rows == count - held


@pytest.mark.parametrize("wish", ["²", "٣", "0", "-1", "1.5", "", "9" * 5000, "1025"])
def test_a_wrong_number_of_threads_in_the_environment_is_an_error_that_names_it(wish, monkeypatch):
    monkeypatch.setenv("CYDROP_NUM_THREADS", wish)
    with pytest.raises(ValueError, match="CYDROP_NUM_THREADS"):
        cd.Network([cd.Dense(2)])


# Options that float32 turns into 0 or infinity --------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: functional.layer_norm(np.ones((2, 4)), np.ones(4), np.zeros(4), epsilon=1e-60),
        lambda: functional.layer_norm_backward(np.ones((2, 4)), np.ones((2, 4)), np.ones(4), epsilon=1e-60),
        lambda: functional.batch_norm(np.ones((2, 4)), np.ones(4), np.zeros(4), epsilon=1e39),
        lambda: functional.batch_norm_backward(np.ones((2, 4)), np.ones((2, 4)), np.ones(4), epsilon=1e-60),
        lambda: functional.leaky_relu([0.0], 1e39),
        lambda: functional.leaky_relu_backward([0.0], [0.0], -1e39),
        lambda: functional.elu([0.0], 1e39),
        lambda: functional.elu_backward([0.0], [0.0], 1e39),
        lambda: functional.gaussian_noise([0.0], 1e39),
        lambda: functional.huber([[0.0]], [0.0], delta=1e-60),
        lambda: functional.huber([[0.0]], [0.0], delta=1e39),
        lambda: functional.r_drop([[0.0, 1.0]], [[0.0, 1.0]], [0], weight=1e39),
    ],
)
def test_options_that_float32_cannot_hold_are_refused(call):
    with pytest.raises(ValueError, match="which float32 rounds to"):
        call()


# out= -------------------------------------------------------------------------------------------------------


def test_out_may_be_the_input_or_apart_from_it_but_not_overlap_it():
    memory = np.arange(200, dtype=np.float32)
    x, mask = memory[:100].reshape(10, 10), np.ones((10, 10), dtype=bool)
    expected = functional.dropout(x, 0.5, seed=1)
    for out in (memory[1:101], memory[50:150], memory[99:199]):
        for call in (
            lambda out: functional.dropout(x, 0.5, seed=1, out=out),
            lambda out: functional.dropout(x, 0.5, seed=1, training=False, out=out),
            lambda out: functional.dropout(x, 0.5, mask=mask, out=out),
            lambda out: functional.dropout(x, 0.5, seed=1, return_mask=True, out=out),
            lambda out: functional.dropout_backward(x, mask, 0.5, out=out),
        ):
            with pytest.raises(ValueError, match=r"out shares memory with d?[xy]"):
                call(out.reshape(10, 10))
    np.testing.assert_array_equal(memory, np.arange(200))
    apart = memory[100:].reshape(10, 10)
    assert functional.dropout(x, 0.5, seed=1, out=apart) is apart
    assert apart.tobytes() == expected.tobytes()
    assert functional.dropout(x, 0.5, seed=1, out=x) is x
    assert x.tobytes() == expected.tobytes()


def test_out_may_overlap_what_is_copied_first():
    memory = np.arange(12, dtype=np.float32)
    columns = memory.reshape(3, 4).T  # not contiguous: the kernel gets a copy
    expected = functional.dropout(columns.copy(), 0.5, seed=1)
    found = functional.dropout(columns, 0.5, seed=1, out=memory.reshape(4, 3))
    assert found.tobytes() == expected.tobytes()


def test_out_may_not_be_the_mask():
    memory = np.ones(64, dtype=np.float32)
    mask = memory.view(np.bool_)[:16].reshape(4, 4)
    mask[...] = True
    with pytest.raises(ValueError, match="out shares memory with mask"):
        functional.dropout_backward(np.ones((4, 4)), mask, 0.5, out=memory[:16].reshape(4, 4))


# Seeds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda seed: functional.dropout([1.0], 2.0, seed=seed),
        lambda seed: functional.dropout([1.0], 0.5, mode="x", seed=seed),
        lambda seed: functional.dropout("x", 0.5, seed=seed),
        lambda seed: functional.dropout([1.0], 0.5, out=np.ones(2, dtype=np.float32), seed=seed),
        lambda seed: functional.dropout([1.0], 0.5, n_threads=0, seed=seed),
        lambda seed: functional.gaussian_dropout([1.0], 2.0, seed=seed),
        lambda seed: functional.gaussian_noise([1.0], -1.0, seed=seed),
        lambda seed: functional.gaussian_noise([1.0], noise=[1.0, 2.0], seed=seed),
        lambda seed: functional.alpha_dropout([1.0], 2.0, seed=seed),
        lambda seed: functional.alpha_dropout([1.0], 0.5, n_threads=0, seed=seed),
        lambda seed: cd.Dropout(2.0, seed=seed),
        lambda seed: cd.Dropout(0.5, mode="x", seed=seed),
        lambda seed: cd.AlphaDropout(2.0, seed=seed),
        lambda seed: cd.GaussianNoise(-1.0, seed=seed),
        lambda seed: cd.Network([], seed=seed),
        lambda seed: cd.Network([cd.Dense(2)], optimizer="x", seed=seed),
        lambda seed: cd.Network([cd.Dense(2)], n_threads=0, seed=seed),
    ],
)
def test_a_refused_call_leaves_a_generator_where_it_was(call):
    seed = np.random.default_rng(3)
    before = seed.bit_generator.state
    with pytest.raises((ValueError, TypeError)):
        call(seed)
    assert seed.bit_generator.state == before


def test_what_draws_nothing_leaves_a_generator_where_it_was():
    seed = np.random.default_rng(3)
    before = seed.bit_generator.state
    functional.dropout([1.0], 0.0, seed=seed)
    functional.dropout([1.0], 0.5, training=False, seed=seed)
    functional.gaussian_dropout([1.0], 0.0, seed=seed)
    functional.gaussian_dropout([1.0], 1.0, seed=seed)
    functional.gaussian_dropout([1.0], 0.5, training=False, seed=seed)
    functional.gaussian_noise([1.0], 0.0, seed=seed)
    functional.alpha_dropout([1.0], 0.0, seed=seed)
    assert seed.bit_generator.state == before
    functional.gaussian_noise([1.0], 0.1, seed=seed)
    assert seed.bit_generator.state != before


# Importing --------------------------------------------------------------------------------------------------


def test_none_of_these_libraries_is_imported_by_cydrop():
    script = (
        "import sys, numpy as np, cydrop as cd\n"
        "cd.Network([cd.Dense(2)], seed=0).fit(np.eye(4), [0, 1, 0, 1], epochs=1, verbose=0)\n"
        "print([name for name in ('pandas', 'pyarrow', 'polars', 'torch', 'ml_dtypes', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "[]", done.stderr


# Threads that share a generator -----------------------------------------------------------------------------


@pytest.mark.parametrize("call", [lambda rng: rng.random_raw(50_000), lambda rng: rng.state and rng.random_raw(50_000)])
def test_threads_that_share_a_generator_get_each_word_once(call):
    rng, drawn, barrier = cd.Xorshift(5), [], threading.Barrier(4)

    def work():
        barrier.wait()
        for _ in range(10):
            drawn.append(call(rng))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    expected = cd.Xorshift(5).random_raw((40, 50_000))
    assert {words.tobytes() for words in drawn} == {words.tobytes() for words in expected}


# Labels of every integer type -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">i8", "f2", "f4", "f8", "?"])
def test_labels_of_every_type_are_checked_as_what_they_are(dtype):
    z = np.random.default_rng(0).normal(size=(4, 2))
    expected = functional.cross_entropy(z, [0, 1, 1, 0])
    assert functional.cross_entropy(z, np.array([0, 1, 1, 0], dtype=dtype)) == expected
    if dtype == "?":
        return
    wrong = [2, 100] + ([-1, -100] if "u" not in dtype else []) + ([2**32, 2**40 + 1] if "8" in dtype else [])
    for label in wrong:
        y = np.array([0, 1, label, 0], dtype=dtype)
        with pytest.raises(ValueError, match=rf"y must be class labels 0\.\.1 .* got {label}(\.0)? at index 2"):
            functional.cross_entropy(z, y)

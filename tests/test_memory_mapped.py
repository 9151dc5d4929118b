"""Rows in a file: read where they lie, checked piece by piece, shuffled by chunks, asked for ahead."""

import mmap
import tracemalloc
from multiprocessing import shared_memory

import numpy as np
import pytest

import cydrop as cd
from cydrop._base import checks, mapped
from cydrop._run import chunks, prediction
from cydrop._run.core import core_of
from cydrop._run.training import Trainer
from cydrop.xorshift import Xorshift


@pytest.fixture
def on_file(tmp_path):
    """Puts an array into a .npy file and maps it."""

    def put(array, name="X", mode="r"):
        np.save(tmp_path / f"{name}.npy", array)
        return np.load(tmp_path / f"{name}.npy", mmap_mode=mode)

    return put


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 8 rows of 5 columns, windows of 3 chunks."""
    monkeypatch.setattr(mapped, "CHUNK_BYTES", 8 * 20)
    monkeypatch.setattr(mapped, "AHEAD", 2)
    monkeypatch.setattr(chunks, "WINDOW", 3)


@pytest.fixture
def rows(rng):
    return rng.standard_normal((203, 5)).astype(np.float32), rng.integers(0, 3, 203)


def network(units=3, loss="cross_entropy"):
    return cd.Network([cd.Dense(9), cd.ReLU(), cd.Dropout(0.3), cd.Dense(units)], loss=loss, seed=0)


def bits(net):
    return b"".join(array.tobytes() for array in net.parameters().values())


def trained(X, y, net=None, **options):
    net = net or network()
    net.fit(X, y, **({"epochs": 3, "batch_size": 16, "verbose": 0} | options))
    return net


def figures(net):
    return {name: values for name, values in net.history.metrics.items() if name != "seconds"}


# What lies in a file ----------------------------------------------------------------------------------------


def test_views_of_a_memory_mapped_file_are_in_it_and_copies_are_not(on_file, rows):
    X = on_file(rows[0])
    for view in (X, X[3:], np.asarray(X), np.asarray(X)[10:20, :2], X.reshape(-1), X.view(np.ndarray)):
        assert mapped.file_of(view) is not None
    for copy in (X.copy(), X[[1, 2]], X + 1, np.array(X), rows[0], np.float32(1) * X[0]):
        assert mapped.file_of(copy) is None


def test_shared_memory_is_no_file():
    block = shared_memory.SharedMemory(create=True, size=400)
    try:
        array = np.ndarray((10, 10), np.float32, buffer=block.buf)
        assert mapped.file_of(array) is None
        del array
    finally:
        block.close()
        block.unlink()


# No copies --------------------------------------------------------------------------------------------------


class Seen(Trainer):
    """Keeps the jobs."""

    def epoch(self, core, job, epoch):
        self.job = job
        return super().epoch(core, job, epoch)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_rows_are_trained_on_where_they_lie(on_file, rows, mode, monkeypatch):
    trainer = Seen()
    monkeypatch.setattr(cd.Network, "_trainer", trainer)
    X, y = on_file(rows[0], mode=mode), on_file(rows[1], "y")
    trained(X, y, validation_split=0.2)
    assert np.shares_memory(trainer.job.data.X, X)
    assert np.shares_memory(trainer.job.validation.X, X)
    trained(X, y, validation_data=(X[:40], y[:40]))
    assert np.shares_memory(trainer.job.validation.X, X)
    np.testing.assert_array_equal(X, rows[0])


CALLS = {
    "fit": lambda net, X, y: net.fit(X, y, epochs=2, verbose=0, validation_split=0.3, clean_metrics=True),
    "partial_fit": lambda net, X, y: net.partial_fit(X, y, batch_size=256),
    "evaluate": lambda net, X, y: net.evaluate(X, y),
    "predict": lambda net, X, y: net.predict(X),
    "predict_mc": lambda net, X, y: net.predict_mc(X, samples=2),
    "evaluate_mc": lambda net, X, y: net.evaluate_mc(X, y, samples=2),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_no_call_takes_memory_of_the_size_of_the_file(on_file, call):
    X = on_file(np.zeros((16384, 1024), np.float32))  # 64 MiB
    y = on_file(np.arange(16384) % 3, "y")
    net = network().build(1024)
    tracemalloc.start()
    try:
        CALLS[call](net, X, y)
        assert tracemalloc.get_traced_memory()[1] < 2**24  # a batch with its activations, moments, predictions
    finally:
        tracemalloc.stop()


def test_what_is_not_finite_is_found_without_much_memory(on_file):
    X = np.zeros((4096, 4096), np.float32)
    X[3000, 17], X[3500, 0], X[4095, 4095] = np.inf, np.nan, np.nan
    X = on_file(X)
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match="X has 3 values that are NaN or infinite, the first infinity at row 3000, "
        ):
            network().fit(X, np.arange(4096) % 3)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_targets_in_a_file_are_read_where_they_lie(on_file, rng, monkeypatch):
    trainer = Seen()
    monkeypatch.setattr(cd.Network, "_trainer", trainer)
    X = rng.random((203, 5)).astype(np.float32)
    for loss in ("mse", "binary_cross_entropy"):
        on_disk = on_file(X)
        net = trained(on_disk, on_disk, network(5, loss), validation_split=0.2)  # an autoencoder
        assert np.shares_memory(trainer.job.data.targets, on_disk)
        in_memory = trained(X, X, network(5, loss), validation_split=0.2)
        assert bits(net) == bits(in_memory)
        assert figures(net) == figures(in_memory)
        assert net.evaluate(on_disk, on_disk) == net.evaluate(X, X)


def test_class_probabilities_in_a_file_are_copied(on_file, rows, rng):
    q = rng.dirichlet(np.ones(3), 203).astype(np.float32)
    given = on_file(q, "q", "c")
    assert bits(trained(on_file(rows[0]), given)) == bits(trained(rows[0], q))
    np.testing.assert_array_equal(given, q)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint64, np.float64, np.float32])
def test_labels_in_a_file_of_any_type_are_labels(on_file, rows, dtype, small_chunks):
    assert bits(trained(rows[0], on_file(rows[1].astype(dtype), "y"))) == bits(trained(*rows))


@pytest.mark.parametrize(
    ("wrong", "message"), [(3.0, r"class labels 0\.\.2 .* got 3.0 at"), (0.5, "integer .* got 0.5 at")]
)
def test_a_wrong_label_far_down_is_named(rows, wrong, message, small_chunks):
    y = rows[1].astype(float)
    y[[150, 180]] = wrong
    with pytest.raises(ValueError, match=f"{message} index 150"):
        network().fit(rows[0], y)


def test_a_wrong_target_far_down_is_named(on_file, rows, small_chunks):
    y = np.zeros((203, 1), np.float32)
    y[[150, 180]] = 1.5
    with pytest.raises(ValueError, match=r"y must be 0 or 1, or a probability between, got 1\.5 at row 150, column 0"):
        network(1, "binary_cross_entropy").fit(rows[0], on_file(y, "y"))


# Other types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float64", "uint8", "float16", ">f4", "Fortran order", "odd place"])
def test_files_of_other_kinds_are_copied(on_file, tmp_path, rng, kind):
    X = rng.integers(0, 9, (203, 5)).astype(np.float32)
    y = np.arange(203) % 3
    if kind == "Fortran order":
        given = on_file(np.asfortranarray(X))
    elif kind == "odd place":
        (tmp_path / "raw").write_bytes(b"1" + X.tobytes())
        given = np.memmap(tmp_path / "raw", np.float32, "r", offset=1, shape=X.shape)
    else:
        given = on_file(X.astype(kind))
    net = trained(given, y)
    assert bits(net) == bits(trained(X, y))
    assert (net.predict(given) == net.predict(X)).all()


def test_a_copy_larger_than_the_free_memory_is_refused_with_what_to_do(on_file, rows, monkeypatch):
    monkeypatch.setattr(mapped, "free_memory", lambda: 4000)
    message = "X is a memory-mapped file {}, which is copied to float32 in C order first: 0.0 GB.*open_memmap"
    with pytest.raises(ValueError, match=message.format("of float64")):
        network().fit(on_file(rows[0].astype(np.float64)), rows[1])
    with pytest.raises(ValueError, match=message.format("that is not contiguous in C order")):
        network().fit(on_file(np.asfortranarray(rows[0])), rows[1])
    trained(on_file(rows[0]), rows[1])  # no copy
    trained(rows[0].astype(np.float64), rows[1])  # no file
    monkeypatch.setattr(mapped, "free_memory", lambda: None)  # nobody knows
    trained(on_file(rows[0].astype(np.float64)), rows[1])


def test_the_free_memory_is_known_on_linux():
    assert mapped.free_memory() is None or mapped.free_memory() > 2**20


# The order --------------------------------------------------------------------------------------------------


def plain_order(rows, step, window, seed):
    """The order by chunks, in plain Python."""
    rng = Xorshift(seed)
    parts = [list(range(start, min(start + step, rows))) for start in range(0, rows, step)]
    if len(parts) <= window:
        return rng.permutation(rows).tolist()
    parts = [parts[place] for place in rng.permutation(len(parts))]
    windows = -(-len(parts) // window)
    order = []
    for number in range(windows):
        begin, end = number * len(parts) // windows, (number + 1) * len(parts) // windows
        own = [row for part in parts[begin:end] for row in part]
        order += [own[place] for place in rng.permutation(len(own))]
    return order


@pytest.mark.parametrize("count", [1, 8, 23, 24, 25, 32, 33, 203, 1000])
def test_rows_are_shuffled_by_chunks(small_chunks, count):
    X = np.zeros((count, 5), np.float32)
    order = chunks.shuffled(X, Xorshift(7), True)
    assert order.dtype == np.int64
    assert order.tolist() == plain_order(count, 8, 3, 7)
    assert sorted(order) == list(range(count))
    assert (chunks.shuffled(X, Xorshift(7), False) == Xorshift(7).permutation(count)).all()


def test_chunks_have_a_few_mebibytes():
    assert mapped.chunk_rows(np.empty((10, 784), np.float32)) == 1337
    assert mapped.chunk_rows(np.empty((10, 2), np.float32)) == 2**15
    assert mapped.chunk_rows(np.empty((3, 2**21), np.float32)) == 1
    assert mapped.chunk_rows(np.empty((0, 5), np.float32)) > 0


@pytest.mark.parametrize("shuffle", [True, "chunks", "rows", False])
@pytest.mark.parametrize("drop_last", [False, True])
def test_bits_do_not_depend_on_where_the_rows_lie(on_file, rows, small_chunks, shuffle, drop_last):
    options = {"drop_last": drop_last, "validation_split": 0.2, "clean_metrics": True}
    X, y = on_file(rows[0]), on_file(rows[1], "y")
    found = trained(X, y, shuffle=shuffle, **options)
    expected = trained(*rows, shuffle="chunks" if shuffle is True else shuffle, **options)
    assert bits(found) == bits(expected)
    assert figures(found) == figures(expected)
    assert found.evaluate(X, y) == expected.evaluate(*rows)
    assert (found.predict(X) == expected.predict(rows[0])).all()


def test_true_is_by_chunks_for_a_file_and_any_order_in_memory(on_file, rows, small_chunks):
    by_rows, by_chunks = (bits(trained(*rows, shuffle=how)) for how in ("rows", "chunks"))
    assert by_rows != by_chunks
    assert bits(trained(*rows)) == by_rows
    assert bits(trained(on_file(rows[0]), rows[1])) == by_chunks


def test_few_rows_of_a_file_are_shuffled_as_in_memory(on_file, rows):
    assert bits(trained(on_file(rows[0]), rows[1])) == bits(trained(*rows))


def test_training_goes_on_from_a_file_with_the_bits_of_never_having_stopped(on_file, rows, small_chunks, tmp_path):
    X = on_file(rows[0])
    whole, part = trained(X, rows[1], epochs=4), trained(X, rows[1], epochs=2)
    part.save(tmp_path / "net")
    assert bits(trained(X, rows[1], cd.load(tmp_path / "net"), epochs=2)) == bits(whole)


# Reading ahead ----------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What the system is asked for: (array, first row, beyond the last)."""
    found = []
    monkeypatch.setattr(mapped, "ask", lambda array, start, stop, last=None: found.append((array, start, stop)))
    return found


def test_the_chunks_of_a_window_are_asked_for_while_the_one_before_it_is_trained_on(on_file, rows, small_chunks, asked):
    X = on_file(rows[0])
    order = chunks.shuffled(X, Xorshift(7), True)
    ahead = chunks.Ahead(X, np.empty((0, 0), np.float32), order=order)
    there, most = set(), 0
    for place in range(0, len(order), 4):
        ahead.reached(place)
        there |= {start // 8 for _, start, _ in asked}
        asked.clear()
        assert set(order[: place // 24 * 24 + 24] // 8) <= there  # all of the window, at its beginning
        most = max(most, len(there) - len({row // 8 for row in order[: place + 1]}))
    assert there == set(range(26))
    assert most <= 3 * 3  # and no more than two


def test_rows_as_they_are_are_asked_for_some_chunks_ahead(on_file, rows, small_chunks, asked):
    X = on_file(rows[0])
    ahead = chunks.Ahead(X)
    ahead.reached(0)
    assert [start for _, start, _ in asked] == [0, 8, 16]
    ahead.reached(7)
    assert len(asked) == 3
    ahead.reached(30)
    assert [start for _, start, _ in asked] == [0, 8, 16, 24, 32, 40]
    ahead.reached(203)
    assert [start for _, start, _ in asked] == list(range(0, 203, 8))


def test_an_order_that_needs_all_of_the_file_asks_for_nothing(on_file, rows, small_chunks, asked):
    X = on_file(rows[0])
    chunks.Ahead(X, order=np.arange(0, 203, 7)).reached(10)
    assert asked == []


def test_targets_in_a_file_are_asked_for_with_their_rows(on_file, rows, small_chunks, asked):
    X, y = on_file(rows[0]), on_file(rows[0], "y")
    chunks.Ahead(X, y, order=chunks.shuffled(X, Xorshift(7), True)).reached(0)
    assert [array is X for array, _, _ in asked] == [True, False] * (len(asked) // 2)
    assert len(asked) >= 6


def test_nothing_is_asked_for_rows_in_memory(rows, small_chunks, asked):
    trained(*rows, shuffle="chunks").predict(rows[0])
    assert asked == []


def test_training_checks_and_predictions_ask_for_every_row(on_file, rows, small_chunks, asked):
    X = on_file(rows[0])
    net = network().build(5)
    for call in (
        lambda: net.fit(X, rows[1], epochs=1, verbose=0),
        lambda: net.predict(X),
        lambda: checks.matrix("X", X),
    ):
        asked.clear()
        call()
        assert {row for _, start, stop in asked for row in range(start, stop)} >= set(range(203))


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system has no madvise")
def test_the_system_is_asked_for_the_pages_of_the_rows(on_file, rng, monkeypatch):
    X = on_file(rng.random((50_000, 6)).astype(np.float32))
    asked = []

    class File(mmap.mmap):
        def madvise(self, option, start, length):
            asked.append((start, start + length))
            super().madvise(option, start, length)

    with open(X.filename, "rb") as file:
        spied = File(file.fileno(), 0, access=mmap.ACCESS_READ)
    array = np.frombuffer(spied, np.float32, offset=X.offset).reshape(X.shape)
    monkeypatch.setattr(mapped, "file_of", lambda array: spied)
    mapped.ask(array[100:], 10_000, 20_000)
    begin, end = (X.offset + row * 24 for row in (10_100, 20_100))
    assert all(start % mmap.PAGESIZE == 0 for start, _ in asked)
    assert begin - mmap.PAGESIZE < asked[0][0] <= begin
    assert asked[-1][1] == end
    assert [stop for _, stop in asked[:-1]] == [start for start, _ in asked[1:]]
    asked.clear()
    mapped.ask(array, 49_000, 60_000)
    assert asked[-1][1] == X.offset + X.nbytes
    mapped.ask(array, 50_000, 60_000)  # none of them is there


def test_a_system_that_cannot_be_asked_trains_all_the_same(on_file, rows, small_chunks, monkeypatch):
    expected = bits(trained(*rows, shuffle="chunks"))
    monkeypatch.delattr(mmap, "MADV_WILLNEED", raising=False)
    assert bits(trained(on_file(rows[0]), rows[1])) == expected


# A part of the rows -----------------------------------------------------------------------------------------


def test_only_a_part_of_the_rows_is_checked_where_that_is_asked_for(on_file, rows, small_chunks):
    X = rows[0].copy()
    X[100, 2], X[110, 1] = np.nan, np.inf
    core = core_of(network())
    for given in (X, on_file(X)):
        for part in (slice(None, 100), slice(111, None), slice(101, 110), slice(0, 0)):
            assert len(core.rows(given, rows[1], None, 16, part).X) == 203
        with pytest.raises(
            ValueError, match="X has 1 values that are NaN or infinite, the first NaN at row 100, column 2"
        ):
            core.rows(given, rows[1], None, 16, slice(90, 105))
        with pytest.raises(ValueError, match="the first infinity at row 110, column 1"):
            core.inputs(given, slice(110, None))


def test_codes_are_checked_in_a_part_of_the_rows(small_chunks):
    X = np.zeros((203, 5), np.float32)
    X[100, 4] = 3
    core = core_of(cd.Network([cd.Embedding([3], 2), cd.Dense(3)], seed=0))
    core.inputs(X, slice(101, None))
    with pytest.raises(ValueError, match=r"X\[90:110\] column 4 must hold whole numbers from 0 to 2.* got 3 in row 10"):
        core.inputs(X, slice(90, 110))
    with pytest.raises(ValueError, match=r"X column 4 must hold whole numbers from 0 to 2.* got 3 in row 100"):
        core.inputs(X)


# Evaluation in pieces ---------------------------------------------------------------------------------------

LOSSES = {
    "cross_entropy": (3, lambda rng: rng.integers(0, 3, 203)),
    "binary_cross_entropy": (2, lambda rng: rng.integers(0, 2, (203, 2)).astype(float)),
    "mse": (2, lambda rng: rng.standard_normal((203, 2))),
    "mae": (1, lambda rng: rng.standard_normal(203)),
    "huber": (1, lambda rng: rng.standard_normal(203)),
    "gaussian_nll": (2, lambda rng: rng.standard_normal(203)),
    "pinball": (3, lambda rng: rng.standard_normal(203)),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", ["not", "rows", "targets"])
def test_pieces_make_the_loss_of_the_whole(rows, rng, loss, weighted, monkeypatch):
    units, make = LOSSES[loss]
    y = make(rng)
    net = trained(rows[0], y, network(units, loss))
    weights = None if weighted == "not" else rng.integers(0, 3, 203 if y.ndim == 1 or weighted == "rows" else y.shape)
    whole = net.evaluate(rows[0], y, weights)
    for size in (units, 7 * units, 202 * units):
        monkeypatch.setattr(prediction, "EVALUATED", size)
        pieces = net.evaluate(rows[0], y, weights)
        assert pieces["loss"] == whole["loss"]
        assert pieces == pytest.approx(whole, rel=1e-14)


# Elsewhere --------------------------------------------------------------------------------------------------


def test_a_network_is_initialized_from_a_file(on_file, rows):
    net = network().initialize(on_file(rows[0]))
    assert bits(net) == bits(network().initialize(rows[0]))


@pytest.mark.filterwarnings("ignore:max_iter=3")
def test_estimators_have_the_bits_of_memory(on_file, rows, small_chunks):
    from cydrop.sklearn import MLPClassifier

    found, expected = (
        MLPClassifier((9,), dropout=0.3, max_iter=3, batch_size=16, tol=0.0, random_state=0).fit(X, rows[1])
        for X in (on_file(rows[0]), rows[0])
    )
    for one, other in zip(found.coefs_, expected.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.score(on_file(rows[0]), on_file(rows[1], "y")) == expected.score(*rows)


def test_an_estimator_reads_a_file_where_it_lies_unless_it_holds_rows_out(on_file, monkeypatch):
    from cydrop.sklearn import MLPClassifier

    trainer = Seen()
    monkeypatch.setattr(cd.Network, "_trainer", trainer)
    X, y = on_file(np.random.default_rng(0).random((300, 4), dtype=np.float32)), np.arange(300) % 2
    for early_stopping in (False, True):
        estimator = MLPClassifier((4,), max_iter=1, batch_size=16, early_stopping=early_stopping, random_state=0)
        with pytest.warns(UserWarning, match="max_iter=1"):
            estimator.fit(X, y)
        assert np.shares_memory(trainer.job.data.X, X) is not early_stopping

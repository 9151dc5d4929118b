"""Where the weights of the beginning of a pass are kept, to which a divergence goes back: in memory or in a file."""

import errno
import os
import sys
import tempfile
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

import cydrop as cd
from cydrop._run import beginning, model, training
from cydrop._run.core import core_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files are for systems with pread")
HUGE = 1e38


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files go; a test ends with none."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert os.listdir(tmp_path) == []


@pytest.fixture
def files(folder, monkeypatch):
    """The files of all passes, of which there is one for every network; a test ends with all of them closed."""
    found, real = [], beginning.written

    def written(weights):
        found.append(real(weights))
        return found[-1]

    monkeypatch.setattr(beginning, "written", written)
    monkeypatch.setattr(beginning, "LARGE", 0)
    monkeypatch.setattr(beginning, "LONG", 0)
    monkeypatch.setattr(beginning, "DEAR", np.inf)
    monkeypatch.setattr(beginning, "PIECE", 200)
    monkeypatch.setattr(beginning, "lies_in_memory", lambda descriptor: False)  # wherever these tests run
    yield found
    assert all(file is None or file.closed for file in found)


@pytest.fixture
def table(rng):
    return rng.standard_normal((96, 5)).astype(np.float32), 1e3 * rng.standard_normal(96)


def network(optimizer=None, n_threads=1, members=False):
    layers = [cd.Dense(40), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.2), cd.Dense(1)]
    if members:
        layers = [cd.Members([layers[0], *layers[2:]], 3)]
    return cd.Network(layers, loss="mse", optimizer=optimizer or cd.Adam(1e-3), seed=0, n_threads=n_threads)


def state(net):
    return {name: array.copy() for name, array in (net.parameters() | net.buffers()).items()}


def assert_same(net, wanted):
    for name, array in state(net).items():
        np.testing.assert_array_equal(array, wanted[name])


def then_diverge(kept, epochs):
    """A callback that keeps the state of every epoch, and after some of them sets a rate that no network survives."""

    def call(net, epoch, metrics):
        kept.append(state(net))
        if epoch == epochs:
            net.optimizer = cd.SGD(HUGE)

    return cd.callbacks.LambdaCallback(call)


@pytest.mark.parametrize("batch_size", [32, 96])  # the loss of the second batch is not finite; the only update
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "shards", "members"])
def test_a_divergence_gives_back_the_bits_of_the_last_epoch(kind, n_threads, batch_size, table, files):
    net, kept = network(cd.SGD(1e-9, momentum=0.9), n_threads=n_threads, members=kind == "members"), []
    options = {"parallel": cd.distributed.DataParallel(shards=4)} if kind == "shards" else {}
    with pytest.raises(cd.DivergedError, match="epoch 4"):
        net.fit(*table, epochs=9, batch_size=batch_size, verbose=0, callbacks=[then_diverge(kept, 3)], **options)
    assert_same(net, kept[2])
    assert core_of(net).updates == 0
    assert not any(moment.any() for moment in core_of(net).model.moments)
    assert len(files) == 4
    assert None not in files


def test_a_large_network_takes_a_file_by_itself(rng, folder, monkeypatch):
    X, y = rng.standard_normal((64, 2048), dtype=np.float32), np.arange(64) % 2
    net = cd.Network([cd.Dense(2048), cd.Dense(2)], optimizer=cd.SGD(1e-4), seed=0, n_threads=1)
    kept, descriptors = [], []

    class Watched(model.Engine):
        def begin_pass(self, parameters, buffers, file=-1):
            descriptors.append(file)
            super().begin_pass(parameters, buffers, file)

    monkeypatch.setattr(model, "Engine", Watched)
    monkeypatch.setattr(beginning, "LONG", 64)  # else it trains for a long time where processors are emulated
    monkeypatch.setattr(beginning, "DEAR", np.inf)
    with pytest.raises(cd.DivergedError, match="epoch 2"):
        net.fit(X, y, epochs=3, batch_size=32, verbose=0, callbacks=[then_diverge(kept, 1)])
    assert_same(net, kept[0])
    assert len(descriptors) == 2
    if not in_memory(folder):
        assert min(descriptors) >= 0
    net.optimizer = cd.SGD(1e-4)
    net.train_on_batch(X[:63], y[:63])
    assert descriptors[2] == -1


def in_memory(folder):
    with tempfile.TemporaryFile(dir=folder) as file:
        return beginning.lies_in_memory(file.fileno())


@pytest.mark.parametrize(
    ("large", "more", "n_threads", "takes"),
    [(0, 0, 1, True), (0, 1, 1, False), (0, 0, 2, True), (0, 1, 2, False), (1124, 0, 1, True), (10**6, 0, 1, False)],
)
def test_weights_must_be_large_and_the_pass_long(large, more, n_threads, takes, table, files, monkeypatch):
    net = network(n_threads=n_threads)
    monkeypatch.setattr(beginning, "LARGE", large)
    monkeypatch.setattr(beginning, "LONG", 96 // net.n_threads + more)  # of the table's 96 rows for each thread
    net.fit(*table, epochs=1, verbose=0)
    assert len(files) == takes


def test_a_file_changes_no_bit(table, files, monkeypatch):
    with_file, wanted = network(), network()
    with_file.fit(*table, epochs=3, batch_size=20, verbose=0)
    monkeypatch.setattr(beginning, "LARGE", 10**9)
    wanted.fit(*table, epochs=3, batch_size=20, verbose=0)
    assert len(files) == 3
    assert None not in files
    assert_same(with_file, state(wanted))


class Full(FileIO):
    """On a disk that has room for 500 bytes."""

    def __init__(self, path, error):
        super().__init__(path, "w+")
        os.unlink(path)
        self.left, self.error = 500, error

    def write(self, data):
        if self.left <= 0:
            raise self.error
        self.left -= len(data)
        return super().write(data)

    def close(self):
        was_open = not self.closed
        super().close()
        if was_open:
            raise OSError(errno.EIO, "it could not be written")  # as a network's file system says it


def no_folder(monkeypatch, folder):
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "none"))


def full_disk(monkeypatch, folder):
    full = OSError(errno.ENOSPC, "no space left")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: Full(folder / "full", full))


def nearly_full_disk(monkeypatch, folder):
    monkeypatch.setattr(beginning, "SPARE", 10**15)


def no_files(monkeypatch, folder):
    def refused(buffering):
        raise PermissionError(errno.EACCES, "none for you")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)


def in_the_memory(monkeypatch, folder):
    monkeypatch.setattr(beginning, "lies_in_memory", lambda descriptor: True)


@pytest.mark.parametrize("why", [no_folder, full_disk, nearly_full_disk, no_files, in_the_memory])
def test_where_there_can_be_no_file_it_is_kept_in_memory(why, table, files, folder, monkeypatch):
    why(monkeypatch, folder)
    net, kept = network(cd.SGD(1e-9)), []
    with pytest.raises(cd.DivergedError, match="epoch 4"):
        net.fit(*table, epochs=9, batch_size=32, verbose=0, callbacks=[then_diverge(kept, 3)])
    assert_same(net, kept[2])
    assert files == [None]  # once is enough


def test_a_disk_that_is_too_slow_is_not_tried_again(table, files, monkeypatch):
    monkeypatch.setattr(beginning, "DEAR", 0.0)
    net, kept = network(cd.SGD(1e-9)), []
    with pytest.raises(cd.DivergedError):
        net.fit(*table, epochs=9, batch_size=32, verbose=0, callbacks=[then_diverge(kept, 3)])
    assert len(files) == 1
    assert_same(net, kept[2])


def test_an_interrupt_of_the_writing_leaves_the_network_as_it_was(table, files, folder, monkeypatch):
    net = network().build(5)
    before = state(net)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: Full(folder / "full", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        net.fit(*table, epochs=1, verbose=0)
    assert_same(net, before)
    monkeypatch.undo()
    net.fit(*table, epochs=1, verbose=0)


@pytest.mark.parametrize("rate", [1e-9, HUGE])
def test_an_interrupt_leaves_the_last_good_step(rate, table, files, monkeypatch):
    after = []

    class Interrupted(model.Engine):
        def train(self, *arguments):
            super().train(*arguments)
            after.append(state(net))
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "STRETCH_SECONDS", 0.0)
    monkeypatch.setattr(model, "Engine", Interrupted)
    net = network(cd.SGD(rate)).build(5)
    before = state(net)
    with pytest.raises(KeyboardInterrupt):
        net.fit(*table, epochs=1, batch_size=32, verbose=0)
    assert len(files) == 1
    assert_same(net, before if rate == HUGE else after[0])


@pytest.mark.parametrize("batch_size", [32, 96])
def test_a_file_that_cannot_be_read_any_more_leaves_first_weights_and_says_so(batch_size, table, files, monkeypatch):
    class Cut(model.Engine):
        def train(self, *arguments):
            if len(files) == 3:
                files[-1].truncate(20)
            return super().train(*arguments)

    monkeypatch.setattr(model, "Engine", Cut)
    net, kept = network(cd.SGD(1e-9)).build(5), []
    first = state(net)
    with pytest.raises(OSError, match="cannot be read any more; the network has first weights again") as caught:
        net.fit(*table, epochs=9, batch_size=batch_size, verbose=0, callbacks=[then_diverge(kept, 2)])
    assert caught.value.__context__ is not None
    assert_same(net, first)
    net.optimizer = cd.SGD(1e-9)
    net.fit(*table, epochs=1, batch_size=batch_size, verbose=0)
    assert len(net.history) == 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_files_in_memory_are_known():
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    some = [words[1] for words in mounts if words[2] == "tmpfs" and os.access(words[1], os.W_OK)]
    for place in some[:1]:
        with tempfile.TemporaryFile(dir=place) as file:
            assert beginning.lies_in_memory(file.fileno())
    with open(__file__, "rb") as file:
        device = os.fstat(file.fileno()).st_dev
        assert beginning.lies_in_memory(file.fileno()) == any(os.stat(place).st_dev == device for place in some)

"""What several ranks need and no MPI is needed for."""

import numpy as np
import pytest

import cydrop as cd
from cydrop._run.core import core_of
from cydrop.distributed import DataParallel, RankError, _facts, _ranks, _threads, _trainer


def test_a_missing_mpi4py_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"needs mpi4py and an MPI: pip install 'cydrop\[mpi\]' mpich"):
        DataParallel("world")


@pytest.mark.parametrize(("mine", "others", "granted", "wanted"), [
    ({0, 1, 2, 3}, [], 4, 4),
    ({0, 1, 2, 3}, [{0, 1, 2, 3}], 4, 2),
    ({0, 1, 2, 3}, [{0, 1, 2, 3}] * 2, 4, 1),  # 4 / 3
    ({0, 1}, [{2, 3}], 2, 2),  # each bound to its own
    ({0, 1}, [{0, 1}] * 7, 2, 1),
    ({0, 1, 2, 3}, [{0, 1, 2, 3}], 3, 1),  # a quota of three processors for both
])  # fmt: skip
def test_a_rank_takes_its_share_of_the_processors(mine, others, granted, wanted, monkeypatch):
    for name in ("CYDROP_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("cydrop._base.threads.resolve", lambda n_threads: granted)
    local = [(rank, frozenset(own)) for rank, own in enumerate([mine, *others])]
    assert _threads.share(frozenset(mine), local) == wanted


def test_a_number_of_threads_in_the_environment_is_that_of_each_rank(monkeypatch):
    monkeypatch.setenv("CYDROP_NUM_THREADS", "3")
    assert _threads.share(frozenset({0, 1}), [(0, frozenset({0, 1})), (1, frozenset({0, 1}))]) == 3


def test_more_threads_than_processors_are_warned_of():
    sets = [frozenset({0, 1})] * 2
    with pytest.warns(RuntimeWarning, match="2 ranks of this machine have 4 threads together, on 2 processors"):
        _threads.warn_if_many([2, 2], sets)
    _threads.warn_if_many([1, 1], sets)  # filterwarnings: an error


def test_losses_are_added_over_a_tree():
    values = [1e16, 1.0, -1e16, 1.0]
    assert _trainer.tree_sum(values) == (1e16 + 1.0) + (-1e16 + 1.0) != sum(values)
    assert _trainer.tree_sum([3.0]) == 3.0


def test_a_difference_is_a_sentence():
    wanted = (
        "all ranks must have the same batch_size: it is 128 on rank 0, 64 on rank 1 (ranks 1, 3 differ from rank 0)"
    )
    assert _ranks.difference("batch_size", 128, [1, 3], 64) == wanted
    assert _ranks.difference("y", b"1", [2], b"2") == "all ranks must have the same y: rank 2 differs from rank 0"


def test_an_error_of_another_rank_says_what_it_said():
    assert str(RankError(3, "ValueError", "no")) == "rank 3 raised ValueError: no"
    assert str(RankError(3, "MemoryError", "")) == "rank 3 raised MemoryError"
    assert RankError(3, "ValueError", "no").rank == 3


def test_functions_are_compared_without_their_place_in_memory():
    first, second = (cd.Adam(lambda progress: 0.1) for _ in range(2))
    assert repr(first) != repr(second)
    assert _facts.described(first) == _facts.described(second)


def test_a_checksum_sees_every_row(rng):
    X = rng.standard_normal((1000, 7), dtype=np.float32)
    changed, turned = X.copy(), X[::-1].copy()
    changed[613, 2] += 1e-6
    assert _facts.sums(changed) != _facts.sums(X) == _facts.sums(turned)
    assert _facts.sampled(turned) != _facts.sampled(X)
    assert _facts.checksum(changed) != _facts.checksum(X)
    assert _facts.checksum(np.empty(0)) == _facts.checksum(np.empty((0, 0), dtype=np.float32))


def test_the_facts_of_a_network_name_its_parts():
    net = cd.Network([cd.Dense(4), cd.Dropout(0.5), cd.Dense(2)], seed=0).build(3)
    found = _facts.of_network(core_of(net))
    assert found["number of layers"] == 3
    assert found["layers[1]"].startswith("Dropout(rate=0.5")


def test_callbacks_for_one_rank_are_those_that_write():
    writing = {cd.callbacks.Checkpoint, cd.callbacks.CSVLogger, cd.callbacks.ProgressBar}
    classes = {getattr(cd.callbacks, name) for name in cd.callbacks.__all__}
    assert {callback for callback in classes if not callback.every_rank} == writing

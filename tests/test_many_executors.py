"""`fit_many` on executors: what comes back has the bits of the local run, rows go to each worker once, nothing hangs.

The programs that are killed, interrupted or started by `mpiexec` are cases of many_cases.py.
"""

import concurrent.futures
import importlib.util
import json
import os
import pickle
import queue
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import many_cases
import numpy as np
import pytest
from interrupting import interrupted
from many_cases import KINDS, OPTIONS, data, networks, processes, slow_networks, state_of, trained
from test_mpi import command
from test_mpi import pytestmark as needs_mpi

import cydrop as cd
from cydrop.distributed._threads import processors
from cydrop.many import WorkerError, _executors, _worker

CASES = Path(many_cases.__file__)
needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs distributed")
ALL = ["threads", "processes", pytest.param("dask", marks=needs_dask), pytest.param("mpi", marks=needs_mpi)]


def run(tmp_path, kind, case, seconds=120):
    """(what the case returned, None if it did not end well; the exit code; all output)"""
    file = tmp_path / "found.json"
    words = [sys.executable, CASES, file, kind, case]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if kind == "mpi":
        words, environment = command(3, "-m", "mpi4py.futures", CASES, file, kind, case)
    done = subprocess.run(
        [str(word) for word in words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=seconds,
    )  # fmt: skip
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    return found, done.returncode, done.stdout.decode(errors="replace")


def result(*arguments, **options):
    found, code, output = run(*arguments, **options)
    assert code == 0, output
    return found


# Bits --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local():
    return {name: trained(**options) for name, options in OPTIONS.items()}


@pytest.mark.parametrize("kind", ["threads", "processes", pytest.param("dask", marks=needs_dask)])
def test_networks_that_are_trained_elsewhere_have_the_bits_of_the_local_run(kind, local):
    with KINDS[kind]() as executor:
        assert {name: trained(executor, **options) for name, options in OPTIONS.items()} == local
    assert not _worker.own


@pytest.mark.parametrize("_", [pytest.param("mpi", marks=needs_mpi)])
def test_networks_that_are_trained_on_mpi_ranks_have_the_bits_of_the_local_run(_, tmp_path):
    assert result(tmp_path, "mpi", "same") == []


@pytest.mark.parametrize("_", [pytest.param("mpi", marks=needs_mpi)])
def test_the_example_prints_the_same_alone_and_on_mpi_ranks(_):
    example = CASES.parent.parent / "examples" / "mpi_many.py"
    words, environment = command(3, "-m", "mpi4py.futures", example, "--epochs", 3)
    printed = []
    for program in (words, [sys.executable, str(example), "--epochs", "3"]):
        done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert re.fullmatch(r"( *\d+ units, rate 0\.\d: .* of [13]\n){3}the best one on test rows: .*\n", printed[0])


def test_another_instruction_set_gives_the_same_bits_or_is_refused(monkeypatch, local):
    refused = 0
    for simd in cd.show_config()["simd_available"]:
        monkeypatch.setenv("CYDROP_SIMD", simd)
        with processes() as executor:
            try:
                assert trained(executor) == local["plain"]
            except WorkerError as error:
                refused += 1
                text = str(error)
                assert "without fused multiply-add here, cydrop" in text or "with fused multiply-add here" in text
                assert text.endswith("no network has come back, all are as before")
    assert refused < len(cd.show_config()["simd_available"])


def old_version():
    _worker.__version__ = "0.0.1"


def test_a_worker_with_another_version_is_refused():
    with processes(initializer=old_version) as executor, pytest.raises(WorkerError) as caught:
        trained(executor)
    assert re.search(r"process \d+ on .*, would not give the bits of .* cydrop 0\.0\.1 with", str(caught.value))
    assert f"here, cydrop {cd.__version__} with" in str(caught.value)


# What is sent ------------------------------------------------------------------------------------------------


class Watched(concurrent.futures.Executor):
    """Notes what is sent and what comes back, in bytes."""

    def __init__(self, executor):
        self.executor, self._max_workers = executor, _executors.workers_of(executor)
        self.sent, self.rows, self.futures = [], [], []

    def submit(self, function, *arguments):
        self.sent.append(len(pickle.dumps(arguments)))
        self.rows.append(len(arguments[1] or b""))
        self.futures.append(self.executor.submit(function, *arguments))
        return self.futures[-1]


@pytest.mark.parametrize("kind", ["threads", "processes", pytest.param("dask", marks=needs_dask)])
def test_rows_go_to_each_worker_once_and_to_threads_of_this_process_never(kind):
    X, y = data(40_000, 80)  # 12.8 MB: of more than 10 in a task Dask would warn
    nets = [cd.Network([cd.Dense(4), cd.Dropout(0.1), cd.Dense(3)], seed=seed) for seed in range(30)]
    held = [np.arange(place % 3, len(X), 3) for place in range(30)]
    with KINDS[kind]() as executor:
        watched = Watched(executor)
        cd.fit_many(nets, X, y, validation_rows=held, epochs=1, batch_size=2000, executor=watched, verbose=0)
        back = sum(len(future.result()[1] or b"") for future in watched.futures)
    times = sum(size > 0 for size in watched.rows)
    assert times == 0 if kind == "threads" else 1 <= times <= 2
    once = X.nbytes + 40_000 * 4 + 3 * 40_000 * 4  # X, y as int32, and the row numbers of three folds
    assert all(size == 0 or once < size < once * 1.001 for size in watched.rows)
    nets_alone = sum(8 * parameters.size for net in nets for parameters in net.parameters().values())
    assert sum(watched.sent) - sum(watched.rows) < 3 * nets_alone + 30 * 2000
    assert back < 3 * nets_alone + 30 * 2000


def test_row_numbers_of_one_network_go_with_it_and_those_of_several_with_the_rows():
    X, y = data()
    rng = np.random.default_rng(0)
    shared = rng.integers(0, len(X), 100)
    nets, rows = networks()[:4], [rng.integers(0, len(X), 90), shared, shared.copy(), None]
    seen = []

    class Looking(Watched):
        def submit(self, function, *arguments):
            task = _worker.Task(*arguments[0])
            seen.extend(pickle.loads(task.errands) if task.errands else [])
            assert [len(some) for some in _worker.own[task.call].numbers] == [0, 100]
            return super().submit(function, *arguments)

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        cd.fit_many(nets, X, y, rows=rows, epochs=1, executor=Looking(executor), verbose=0)
    assert sorted(repr(errand.rows if isinstance(errand.rows, int) else len(errand.rows)) for errand in seen) == [
        "0", "1", "1", "90"
    ]  # fmt: skip


def test_a_process_keeps_the_rows_of_few_calls():
    with processes() as executor:
        for _ in range(_worker.KEPT + 2):
            cd.fit_many(networks()[:3], *data(), epochs=1, executor=executor, verbose=0)
        kept = executor.submit(rows_kept).result()
    assert 1 <= kept <= _worker.KEPT


def rows_kept():
    return len(vars(_worker)["_received"])


def members_of(nets, X, y, copies=False):
    """Networks as a search prepares them, each with a copy of y or all with the same."""
    from cydrop._run.core import core_of
    from cydrop._run.many import ManyJob, OneOfMany
    from cydrop._run.rows import NO_ORDER, checked_rows

    found = []
    for net in nets:
        core = core_of(net)
        core.built_for(X.shape[1])
        rows = found[0].job.data if found and not copies else checked_rows(core.loss, 3, X, y, None, len(X))
        found.append(OneOfMany(core, ManyJob(rows, rows, NO_ORDER, NO_ORDER, 4, 100)))
    return found


def test_workers_keep_their_rows_from_one_with_statement_to_the_next():
    X, y = data()
    nets, local = slow_networks(6), slow_networks(6)
    members = members_of(nets, X, y, copies=True)
    with processes() as executor:
        watched = Watched(executor)
        elsewhere = _executors.running(watched, members, 1)
        for rung, going in ((2, members), (4, members[:3])):
            for member in going:
                member.goal = rung
            with elsewhere as run:
                run(going, 1, lambda back: None)
            assert not _worker.own
    # once to each of two workers; a task may be taken by one that has rows, and the other gets them later
    assert sum(size > 0 for size in watched.rows) <= 4 < len(watched.rows)
    assert max(watched.rows) < 1.1 * (X.nbytes + 4 * len(y)), "equal labels go once"
    for member in members:
        member.finish()
    for net, other in zip(nets, local, strict=True):
        own = {"rows": range(len(X)), "validation_rows": range(len(X)), "epochs": len(net.history)}
        cd.fit_many([other], X, y, batch_size=100, verbose=0, **own)
        assert state_of(net) == state_of(other)
    assert [len(net.history) for net in nets] == [4, 4, 4, 2, 2, 2]


def test_networks_that_were_stopped_meanwhile_are_not_sent_any_more():
    nets = slow_networks(30)
    members = members_of(nets, *data())

    def stop(back):
        for member in members:
            member.stopped = member.training.epoch == 0

    with concurrent.futures.ThreadPoolExecutor(1) as executor, _executors.running(executor, members, 1) as run:
        run(members, 1, stop)
    trained = sum(member.training.epoch == 4 for member in members)
    assert 0 < trained < 30
    assert sum(member.training.epoch == 0 for member in members) == 30 - trained


class Strange(concurrent.futures.Executor):
    """Workers that take tasks in any order; each keeps its own rows, now and then forgets them, or begins anew."""

    def __init__(self, count, seed):
        self._max_workers, self.rng, self.lock = count, random.Random(seed), threading.Lock()
        self.waiting, self.names, self.stop = queue.Queue(), iter(range(10**6)), False
        self.asked = 0
        self.threads = [threading.Thread(target=self.work) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        self.waiting.put((future, pickle.dumps((function, arguments))))
        return future

    def work(self):
        with self.lock:
            name = next(self.names)
        while not self.stop:
            try:
                found = self.waiting.get(timeout=0.01)
            except queue.Empty:
                continue
            with self.lock:
                later, fate = self.rng.random() < 0.5, self.rng.random()
                name = next(self.names) if fate < 0.1 else name
                forgets = 0.1 <= fate < 0.2
            if later:
                self.waiting.put(found)
                continue
            future, (function, (task, rows)) = found[0], pickle.loads(found[1])
            if not future.set_running_or_notify_cancel():
                continue
            call = f"{task[1]} for {name}"  # another name than that under which this process has them
            if forgets:
                vars(_worker)["_received"].pop(call, None)
            place, states = function((task[0], call, *task[2:]), rows)
            future.set_result((place._replace(thread=name), states))

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.stop = True
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("seed", range(6))
def test_workers_that_come_go_and_forget_change_nothing(seed, local, monkeypatch):
    monkeypatch.setattr(_worker, "KEPT", 8)
    name = ["plain", "halving", "patience"][seed % 3]
    with Strange(1 + seed, seed) as executor:
        watched = Watched(executor)
        assert trained(watched, **OPTIONS[name]) == local[name]


# How the work is cut -----------------------------------------------------------------------------------------


def test_tasks_are_several_for_each_worker_and_of_about_the_same_work():
    X, y = data()
    nets = [cd.Network([cd.Dense(1 + 3 * place), cd.Dense(3)], seed=place) for place in range(100)]
    sizes = []

    class Looking(Watched):
        def submit(self, function, *arguments):
            errands = _worker.Task(*arguments[0]).errands
            if errands:
                sizes.append([errand.training["parameters"].size for errand in pickle.loads(errands)])
            return super().submit(function, *arguments)

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        cd.fit_many(nets, X, y, epochs=[1, 2] * 50, executor=Looking(executor), n_threads=1, verbose=0)
    assert len(sizes) == _executors.EACH * 2
    assert sum(map(len, sizes)) == 100
    assert max(map(len, sizes)) < 3 * min(map(len, sizes))


def test_networks_that_make_their_steps_together_travel_together():
    X, y = data()
    nets = [cd.Network([cd.Dense(5 + seed % 2), cd.ReLU(), cd.Dense(3)], seed=seed) for seed in range(96)]
    lengths = []

    class Looking(Watched):
        def submit(self, function, *arguments):
            errands = pickle.loads(_worker.Task(*arguments[0]).errands or pickle.dumps([]))
            lengths.extend(Counter(errand.training["parameters"].size for errand in errands).values())
            return super().submit(function, *arguments)

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        cd.fit_many(nets, X, y, epochs=1, executor=Looking(executor), n_threads=1, verbose=0)
    assert sum(lengths) == 96
    assert all(length % 16 == 0 for length in lengths)


@pytest.mark.parametrize(("known", "unknown", "expected"), [
    ({}, 1, 1.0), ({}, 2, 0.5), ({}, 10**4, 0.0), ({"here": 2}, 0, 0.5), ({"here": 1, "there": 5}, 0, 1.0),
    ({"here": 1, "there": 1}, 2, 1 / 3),
])  # fmt: skip
def test_a_worker_takes_its_share_of_its_machine(known, unknown, expected, monkeypatch):
    for name in ("OMP_NUM_THREADS", "CYDROP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    here = _worker.place()
    names = {"here": here.machine, "there": "another machine"}
    places = Counter({(names[name], here.processors): count for name, count in known.items()})
    task = _worker.Task(0, "", _worker.maker(), b"", None, places, unknown)
    threads = vars(_worker)["_share"](task)
    alone = cd.show_config()["n_threads"]
    assert threads == max(1, min(alone, int(len(processors()) * expected), int(alone * expected) or 1))


def test_executors_say_how_many_workers_they_have():
    with concurrent.futures.ThreadPoolExecutor(5) as executor:
        assert _executors.workers_of(executor) == 5
    assert _executors.workers_of(concurrent.futures.Executor()) >= 2


# Faults ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL[1:])
def test_a_worker_that_is_killed_is_told_and_nothing_hangs(kind, tmp_path):
    found, code, output = run(tmp_path, kind, "dies", seconds=90)
    if kind == "mpi":  # mpiexec ends the whole program with the first process that is killed
        assert found is None
        assert code != 0
        assert re.search("(?i)killed", output)
        return
    assert code == 0, output
    text, cause, kept = found
    assert text.startswith("a worker of the executor has died: ")
    assert cause == {"processes": "BrokenProcessPool", "dask": "KilledWorker"}[kind]
    assert "as before" in text
    assert 6 not in kept


@pytest.mark.parametrize("kind", ALL)
def test_an_exception_in_a_worker_arrives_with_its_text(kind, tmp_path):
    text, cause, kept = result(tmp_path, kind, "raises")
    assert text.startswith("a worker of the executor has raised OSError: no such file here; ")
    assert cause == "OSError"
    assert 6 not in kept


@pytest.mark.parametrize("kind", ALL)
def test_ctrl_c_keeps_what_has_come_back_and_leaves_the_others_as_before(kind, tmp_path):
    back, taken, calls = result(tmp_path, kind, "interrupt")
    assert 1 <= back < 16
    assert taken < 5.0
    assert calls == 0


class Inline(concurrent.futures.Executor):
    """Does all at once."""

    _max_workers = 1

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future


def test_an_interrupt_anywhere_leaves_each_network_as_before_or_trained():
    X, y = data(100)
    wanted = slow_networks(3)
    cd.fit_many(wanted, X, y, epochs=2, verbose=0)
    after = [state_of(net) for net in wanted]
    rng, kept = random.Random(0), []
    for _ in range(60):
        nets = slow_networks(3)
        for net in nets:
            net.build(X.shape[1])
        before = [state_of(net) for net in nets]

        def train(nets=nets):
            cd.fit_many(nets, X, y, epochs=2, executor=Inline(), n_threads=1, verbose=0)

        try:
            interrupted(train, rng.randrange(4000), lambda code: code.co_filename == _executors.__file__)
        except AssertionError:
            continue  # there are fewer instructions
        found = [state_of(net) for net in nets]
        assert all(one in pair for one, pair in zip(found, zip(before, after, strict=True), strict=True))
        kept.append(sum(one == other for one, other in zip(found, after, strict=True)))
    assert len(kept) >= 20
    assert len(set(kept)) >= 3


def test_an_executor_that_was_shut_down_is_told_before_anything_changes():
    executor = concurrent.futures.ThreadPoolExecutor(2)
    executor.shutdown()
    nets = networks()
    X, y = data()
    for net in nets:
        net.build(X.shape[1])
    before = [state_of(net) for net in nets]
    with pytest.raises(WorkerError, match="executor takes no task: RuntimeError: cannot schedule new futures after"):
        cd.fit_many(nets, X, y, executor=executor)
    assert [state_of(net) for net in nets] == before


def test_an_executor_that_is_shut_down_meanwhile_is_told():
    nets = slow_networks()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:

        class Ending(Watched):
            def submit(self, *arguments):
                if len(self.sent) == 4:
                    executor.shutdown(wait=False, cancel_futures=True)
                return super().submit(*arguments)

        with pytest.raises(WorkerError, match=r"executor takes no task|has cancelled a task") as caught:
            cd.fit_many(nets, *data(), epochs=2, executor=Ending(executor), n_threads=1, verbose=0)
    kept = caught.value.trained
    assert 0 < len(kept) < 16
    assert [place for place, net in enumerate(nets) if len(net.history) == 2] == list(kept)
    assert f"of 16 networks {kept[0]}" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.trained == kept


@pytest.mark.parametrize(("executor", "text"), [
    ("processes", "got 'processes' (str)"),
    (concurrent.futures.ThreadPoolExecutor, "give one that was made, ThreadPoolExecutor(...)"),
    (map, "got <class 'map'> (type)"),
    (type("Client", (), {"get_executor": lambda self: None})(), "give client.get_executor()"),
])  # fmt: skip
def test_what_is_no_executor_is_refused(executor, text):
    with pytest.raises(TypeError, match=r"executor must be a concurrent\.futures\.Executor or None, got ") as caught:
        cd.fit_many(networks(), *data(), executor=executor)
    assert text in str(caught.value)


@pytest.mark.parametrize("callbacks", [[cd.callbacks.ProgressBar()], lambda network: []])
def test_callbacks_are_refused(callbacks):
    with concurrent.futures.ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="callbacks are"):
        cd.fit_many(networks(), *data(), executor=executor, callbacks=callbacks)


def test_a_network_that_cannot_be_sent_is_named_before_anything_changes():
    nets = [*networks()[:2], cd.Network([cd.Dropout(lambda progress: 0.1), cd.Dense(3)])]
    with concurrent.futures.ThreadPoolExecutor(1) as executor, pytest.raises(TypeError) as caught:
        cd.fit_many(nets, *data(), executor=executor)
    assert re.match(r"networks\[2\] cannot be sent to the workers of an executor \(.*lambda", str(caught.value))
    assert not any(len(net.history) for net in nets)


def test_progress_is_told_as_tasks_come_back(capsys, monkeypatch):
    from cydrop.many import _progress

    monkeypatch.setattr(_progress, "LINE_SECONDS", 0.0)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        cd.fit_many(networks()[:7], *data(), epochs=2, executor=executor, n_threads=1, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    done = [int(line.split()[0]) for line in lines]
    assert done == sorted(done)
    assert len(set(done)) >= 2
    assert lines[-1].startswith("7 of 7 networks  best loss ")

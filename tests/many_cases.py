"""What tests/test_many_executors.py trains on executors, in its own process or as a program in another:

    python tests/many_cases.py FILE KIND CASE
    mpiexec -n 3 python -m mpi4py.futures tests/many_cases.py FILE mpi CASE

writes into FILE what the case returned. KIND is a kind of executor.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time

import numpy as np

import cydrop as cd
from cydrop._run.core import core_of
from cydrop.many import WorkerError, _worker

# Executors of two workers ------------------------------------------------------------------------------------


@contextlib.contextmanager
def dask():
    import dask
    from distributed import Client, LocalCluster

    soon = {"distributed.scheduler.allowed-failures": 1}  # deaths in a task, each of which takes seconds
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    before = dict(os.environ)  # Dask gives its workers variables by setting them here, and leaves them
    try:
        with dask.config.set(soon), LocalCluster(**local) as cluster, Client(cluster) as client:
            yield client.get_executor()
    finally:
        os.environ.clear()
        os.environ.update(before)


def processes(**options):
    return concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"), **options)


def mpi():
    from mpi4py.futures import MPIPoolExecutor

    return MPIPoolExecutor()


KINDS = {"threads": lambda: concurrent.futures.ThreadPoolExecutor(2), "processes": processes, "dask": dask, "mpi": mpi}


# Networks ----------------------------------------------------------------------------------------------------


def data(n=500, columns=8):
    rng = np.random.default_rng(7)
    X = rng.standard_normal((n, columns), dtype=np.float32)
    return X, (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)


def networks():
    """A mix of widths, depths, layers, rates, optimizers and schedules, some of one shape; one diverges."""
    cosine, growing = cd.schedules.Cosine(0.01), cd.schedules.Linear(0.5, 0.1)
    D = cd.Dense
    layers = [
        ([D(7, activation="relu"), cd.Dropout(0.3), D(3)], "adam"),
        ([cd.Dropout(0.1), D(60), cd.GELU(), D(3)], cd.SGD(0.1, momentum=0.9, clip_norm=1.0)),
        ([D(9), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.5), D(3)], cd.AdamW(cosine)),
        ([cd.NumericEmbedding("pbld"), D(5, activation="silu"), D(3)], "rmsprop"),
        ([D(8, drop_connect=0.2, max_norm=2.0), cd.Tanh(), D(3)], "adam"),
        ([D(12, activation="elu"), cd.Dropout(growing, mode="vanilla"), D(3)], "adagrad"),
        ([D(120, activation="relu"), cd.Dropout(0.5, shared="batch"), D(30), D(3)], "adam"),
        ([D(7, activation="relu"), D(3)], cd.SGD(1e30)),
        ([cd.Dropout("learn"), D(40), cd.Tanh(), cd.Dropout("learn", initial=0.3), D(3)], "adam"),
        ([D(10), cd.Members([D(6), cd.ReLU(), cd.Dropout(0.2), D(3)], members=4)], "adam"),
        *[([D(6, activation="relu"), cd.Dropout(0.2), D(3)], "adam")] * 3,
    ]
    return [cd.Network(some, optimizer=optimizer, seed=seed) for seed, (some, optimizer) in enumerate(layers)]


def state_of(net):
    """Everything that training changes: tensors, counters, epochs, and the history but for the seconds."""
    core, found = core_of(net), hashlib.sha256()
    for name, tensor in core.made("state").tensors().items():
        found.update(name.encode() + tensor.tobytes())
    history = {name: values for name, values in net.history.metrics.items() if name != "seconds"}
    engine = core.model.engine
    return repr((found.hexdigest(), engine.draws, engine.updates, core.epochs, history, str(net.history.diverged)))


def trained(executor=None, **options):
    """The states of all networks after two calls; the second goes on where the first ended."""
    X, y = data()
    nets = networks()
    fold = np.arange(len(X)) * 7 % 3
    rng = np.random.default_rng(3)
    rows = [np.flatnonzero(fold != place % 3) for place in range(len(nets))]
    rows[1] = rng.integers(0, len(X), 300)
    held = [np.flatnonzero(fold == place % 3) for place in range(len(nets))]
    weight = rng.random(len(X))
    for epochs in (4, 2):
        usual = {"rows": rows, "validation_rows": held, "epochs": epochs, "batch_size": 40, "sample_weight": weight}
        cd.fit_many(nets, X, y, executor=executor, verbose=0, **usual | options)
    return [state_of(net) for net in nets]


OPTIONS = {
    "plain": {},
    "halving": {"halving": 2, "epochs": 9},
    "patience": {"patience": 1, "epochs": [30, 25, 20, 15, 10, 5, 7, 30, 3, 9, 8, 12, 8], "ties": "last"},
    "last_weights": {"restore_best": False, "n_threads": 2},
    "without_validation": {"validation_rows": None, "rows": None, "sample_weight": None},
}


def slow_networks(count=16):
    return [
        cd.Network([cd.Dense(100 + place, activation="relu"), cd.Dropout(0.3), cd.Dense(3)], seed=place)
        for place in range(count)
    ]


# Layers that do something to whoever unpickles them -----------------------------------------------------------


def become(what, units):
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(f"no {what} here")


class Bad(cd.Dense):
    """A layer that cannot come to a worker."""

    def __init__(self, units, what):
        super().__init__(units)
        vars(self)["what"] = what

    def __reduce__(self):
        return become, (self.what, self.units)


# Cases -------------------------------------------------------------------------------------------------------


def same(executor):
    """Which options do not give the states of the local run."""
    return [name for name, options in OPTIONS.items() if trained(executor, **options) != trained(**options)]


def fails(executor, what):
    """What is raised, how soon, and whether each network is as it was or as after the local run."""
    import many_cases  # not __main__: workers that did not begin with this file must find the layer

    X, y = data()

    def made():
        return [*slow_networks(6), cd.Network([many_cases.Bad(5, what), cd.ReLU(), cd.Dense(3)], seed=0)]

    nets, local = made(), made()
    for net in nets:
        net.build(X.shape[1])
    before = [state_of(net) for net in nets]
    text = None
    try:
        cd.fit_many(nets, X, y, epochs=2, executor=executor, verbose=0)
    except WorkerError as error:
        text, kept, cause = str(error), error.trained, type(error.__cause__).__name__
    cd.fit_many(local, X, y, epochs=2, verbose=0)
    for place, net in enumerate(nets):
        wanted = state_of(local[place]) if place in kept else before[place]
        assert state_of(net) == wanted
    return text, cause, list(kept)


def dies(executor):
    return fails(executor, "dies")


def raises(executor):
    return fails(executor, "such file")


def interrupt(executor):
    """How many networks came back before Ctrl-C; whether each is as it was or as after the local run; the seconds that
    the answer took."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts this in the background ignores it
    X, y = data(2000)
    nets, local = slow_networks(), slow_networks()
    for net in nets:
        net.build(X.shape[1])
    before = [state_of(net) for net in nets]
    engines, sent = [core_of(net).model.engine for net in nets], []

    def interrupt_later():
        while not any(engine.updates for engine in engines):
            time.sleep(0.01)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_later).start()
    try:
        cd.fit_many(nets, X, y, epochs=40, executor=executor, n_threads=1, verbose=0)
    except KeyboardInterrupt:
        taken = time.monotonic() - sent[0]
    cd.fit_many(local, X, y, epochs=40, verbose=0)
    back = [place for place, net in enumerate(nets) if state_of(net) != before[place]]
    assert all(state_of(nets[place]) == state_of(local[place]) for place in back)
    return len(back), taken, len(_worker.own)


CASES = {function.__name__: function for function in (same, dies, raises, interrupt)}


if __name__ == "__main__":
    file, kind, case = sys.argv[1:]
    with KINDS[kind]() as executor:
        found = CASES[case](executor)
    with open(file, "w", encoding="utf-8") as out:
        json.dump(found, out)

"""What a worker of an executor does: trains the networks of a task, on rows that it keeps for the tasks to come.

    caller                                      worker
    are the rows of this call there?  ->        no
                                      <-        "send them"
    networks, with the rows           ->        keeps the rows, trains
                                      <-        what has become of the networks
    other networks                    ->        trains them on the rows that it has
                                      <-        ...

So the rows go to each worker and not with each task, with any executor. (Nobody can say who is to have a task: where a
worker that has the rows takes the one that brings them, they are sent again for the other.) All that is sent is pickled
here, not by the executor: a worker first looks whether it may train at all, and what cannot be unpickled is an error
and not the end of the worker.
"""

from __future__ import annotations

import os
import pickle
import platform
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cydrop._base.threads import ProcessLock
from cydrop._core import cpu
from cydrop._core.engine import target
from cydrop._run.core import Core
from cydrop._run.many import ManyJob, OneOfMany, train
from cydrop._run.rates import Rates
from cydrop._run.rows import Rows
from cydrop._run.state import State
from cydrop._version import __version__
from cydrop.distributed._threads import processors, share

KEPT = 2  # calls whose rows a process keeps


class Place(NamedTuple):
    """Where a task was worked on: a thread of a process of a machine, and the processors that it may use."""

    machine: str
    process: int
    thread: int
    processors: frozenset[int]


class Maker(NamedTuple):
    """Whose bits come out: those of two makers are equal if these are."""

    version: str
    fused_multiply_add: bool


class Common(NamedTuple):
    """What all tasks of a call have in common: rows, for each kind of loss, and row numbers that several networks
    have."""

    rows: list[Rows]
    numbers: list[NDArray[Any]]


class Errand(NamedTuple):
    """One network, where its training stands, and what is asked for."""

    state: bytes  # what the network is made of, pickled
    training: dict[str, Any]  # as `Training.take_over` takes it
    rates: Rates
    job: ManyJob  # without rows
    data: int  # which of the common rows
    held: int | None
    rows: int | NDArray[Any]  # which of the common numbers, or its own
    held_rows: int | NDArray[Any]
    goal: int


class Task(NamedTuple):
    """What is sent, but for the rows.

    Attributes
    ----------
    number : int
        No two that are sent have the same: an executor that remembers results must not take one for another.
    call : str
        Whose rows it needs.
    errands : bytes or None
        Pickled; None: this is only the question whether the rows are there.
    n_threads : int or None
        None: this worker's share of its machine.
    places : Counter
        (machine, its processors) of the workers that are known.
    unknown : int
        How many others there are, on whichever machine.
    """

    number: int
    call: str
    maker: Maker
    errands: bytes | None
    n_threads: int | None
    places: Counter[tuple[str, frozenset[int]]]
    unknown: int


class OverError(Exception):
    """The call of `fit_many` that this task belongs to has ended."""


own: dict[str, Common] = {}  # of calls of this process: its threads need not be sent anything
_received: OrderedDict[str, Common] = OrderedDict()
_lock = ProcessLock()


def maker() -> Maker:
    """This installation's."""
    return Maker(__version__, bool(target()[1]))


def place() -> Place:
    """This thread's."""
    return Place(platform.node(), os.getpid(), threading.get_ident(), processors())


def work(task: tuple[Any, ...], common: bytes | None) -> tuple[tuple[Any, ...], bytes | None]:
    """Runs in a worker: where that is, and what has become of the networks, pickled; None: the rows are missing."""
    asked = Task(*task)
    if asked.maker != maker():
        raise RuntimeError(
            f"this worker, process {os.getpid()} on {platform.node()}, would not give the bits of the process that "
            f"called fit_many: {_about(maker())} here, {_about(Maker(*asked.maker))} there; use the same cydrop on "
            "processors with the same instructions (cydrop.show_config())"
        )
    rows = _rows_of(asked.call, common)
    if rows is None:
        return place(), None
    if asked.errands is None:
        return place(), b""
    over = _over(asked.call) if asked.call in own else _never
    return place(), pickle.dumps(_trained(asked, asked.errands, rows, over), protocol=5)


def _about(maker: Maker) -> str:
    return f"cydrop {maker.version} {'with' if maker.fused_multiply_add else 'without'} fused multiply-add"


def _rows_of(call: str, sent: bytes | None) -> Common | None:
    mine = own.get(call)
    if mine is not None:
        return mine
    with _lock():
        found = _received.pop(call, None)
        if found is None and sent is not None:
            found = pickle.loads(sent)
        if found is not None:
            _received[call] = found
            while len(_received) > KEPT:
                _received.popitem(last=False)
    return found


def _never() -> None:
    pass


def _over(call: str) -> Callable[[], None]:
    """Stops a task of this process whose call has ended, by Ctrl-C or an error."""

    def check() -> None:
        if call not in own:
            raise OverError

    return check


def _trained(task: Task, packed: bytes, common: Common, check: Callable[[], None]) -> list[dict[str, Any]]:
    errands: list[Errand] = pickle.loads(packed)
    members = [_begun(errand, common) for errand in errands]
    n_threads = min(task.n_threads or _share(task), len(members))
    try:
        train(members, n_threads, lambda going: check())
    finally:
        if n_threads > 1:
            cpu.rest_threads()
    for member in members:
        if member.done:
            member.training.finish()  # the best epoch is put back here: it need not be sent as well
    return [member.training.whole() for member in members]


def _begun(errand: Errand, common: Common) -> OneOfMany:
    state: State = pickle.loads(errand.state)
    core = Core(state)
    data = replace(common.rows[errand.data], loss=core.loss)
    held = None if errand.held is None else replace(common.rows[errand.held], loss=core.loss)
    rows, held_rows = (_numbers(given, common) for given in (errand.rows, errand.held_rows))
    job = replace(errand.job, data=data, held=held, rows=rows, held_rows=held_rows)
    member = OneOfMany(core, job, errand.rates)
    member.training.take_over(errand.training)
    member.goal = errand.goal
    return member


def _numbers(given: int | NDArray[Any], common: Common) -> NDArray[np.int64]:
    return np.asarray(common.numbers[given] if isinstance(given, int) else given, dtype=np.int64)


def _share(task: Task) -> int:
    """Threads for this worker: its share of its machine's processors. Whoever is not known yet may be here too."""
    here, mine = platform.node(), processors()
    local: list[frozenset[int]] = []
    for (machine, theirs), count in task.places.items():
        local += [theirs] * count if machine == here else []
    local += [mine] * task.unknown
    return share(mine, list(enumerate(local or [mine])))

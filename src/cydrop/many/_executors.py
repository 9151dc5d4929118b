"""Networks that are trained elsewhere: their tasks go to an executor, and what has become of them comes back.

The executor is asked for what every executor has: `submit`, and futures. How many workers there are it may say; who
they are, and whether they have the rows, they say themselves with every answer (`_worker`).
"""

from __future__ import annotations

import concurrent.futures as futures
import hashlib
import heapq
import itertools
import pickle
import sys
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._run.many import OneOfMany, Run, Tell, train
from cydrop._run.rows import NO_FLOATS, NO_LABELS, NO_MATRIX, NO_ORDER, Rows
from cydrop._run.state import Built, State
from cydrop.distributed._threads import processors
from cydrop.history import History
from cydrop.many import _worker
from cydrop.many._errors import WorkerError
from cydrop.many._worker import Common, Errand, Place, Task

EACH = 4  # tasks for each worker, so that the work of all comes to the same
TASK_BYTES = 2**24  # of networks that travel together, about
PACK = 16  # networks of a few units make their steps together, one a lane (`_core.many`)
STEP = 100_000  # multiply-adds that take as long as what is around those of a step
PATIENT = 2  # a task that met so many workers without rows waits for those that are on their way

COUNTS = ("num_workers", "_max_workers")  # of workers; Python's own pools have no public name for it
CLIENT = "_client"  # Dask's, of its executor, which has no public name for it either


def checked_executor(executor: Any) -> futures.Executor | None:
    """Raises TypeError for anything but an executor or None."""
    if executor is None or isinstance(executor, futures.Executor):
        return executor
    hint = ""
    if isinstance(executor, type) and issubclass(executor, futures.Executor):
        hint = f": give one that was made, {executor.__name__}(...)"
    elif callable(getattr(executor, "get_executor", None)):
        hint = ": give client.get_executor()"
    raise TypeError(
        f"executor must be a concurrent.futures.Executor or None, got {executor!r:.100} "
        f"({type(executor).__name__}){hint}"
    )


def workers_of(executor: futures.Executor) -> int:
    """How many tasks an executor works on at the same time, where it says so; else a guess."""
    for name in COUNTS:
        count = getattr(executor, name, None)
        if isinstance(count, int) and count > 0:
            return count
    threads_of_workers = getattr(getattr(executor, CLIENT, None), "nthreads", None)
    found = threads_of_workers() if callable(threads_of_workers) else None
    count = sum(found.values()) if isinstance(found, dict) else 0
    return count or max(2, len(processors()))


@dataclass(eq=False)
class Parcel:
    """Networks that travel together."""

    members: list[OneOfMany]
    pack: Callable[[OneOfMany], Errand]
    refused: int = 0  # how often it met a worker without rows

    @cached_property
    def packed(self) -> bytes:
        self.members = [member for member in self.members if not member.stopped]
        return pickle.dumps([self.pack(member) for member in self.members], protocol=5)

    @property
    def wanted(self) -> bool:
        """Whether nobody has stopped all of them meanwhile."""
        return not all(member.stopped for member in self.members)


@dataclass(eq=False, frozen=True)
class Flight:
    """A parcel that was sent, and whether the rows went with it; None: a question whether they are there."""

    parcel: Parcel | None
    carries: bool


class Elsewhere:
    """Trains networks on the workers of an executor, within a `with` statement, which gives what does so.

    At its end no task is left that has not begun, and what has come back is in the networks. There may be another one
    after it, for which the workers have the rows already.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    members : sequence of OneOfMany
        All that will be trained.
    n_threads : int or None
        Of each task; None: each worker's share of its machine.
    """

    def __init__(self, executor: futures.Executor, members: Sequence[OneOfMany], n_threads: int | None) -> None:
        self._executor, self._members, self._n_threads = executor, members, n_threads
        self._call, self._serial, self._workers = uuid.uuid4().hex, itertools.count(), 1
        self._luggage = Luggage(members)
        self._has_rows: dict[Place, bool] = {}  # of the workers that have answered; the last one was the last
        self._flying: dict[futures.Future[Any], Flight] = {}
        self._waiting: deque[Parcel] = deque()
        self._patient: list[Parcel] = []  # until rows have arrived somewhere

    def __enter__(self) -> Callable[[Sequence[OneOfMany], int, Tell], None]:
        _worker.own[self._call] = self._luggage.common
        return self._train

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        _worker.own.pop(self._call, None)
        for future in self._flying:
            future.cancel()
        for future, flight in self._flying.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._land(future.result(), flight)
        self._flying.clear()
        self._waiting.clear()
        self._patient.clear()
        if isinstance(error, WorkerError):
            error.trained = tuple(
                place for place, member in enumerate(self._members)
                if member.training.epoch or member.training.ended != "goes on"
            )  # fmt: skip

    def _train(self, members: Sequence[OneOfMany], n_threads: int, tell: Tell) -> None:
        """As `_run.many.train`: until all of them pause."""
        self._workers = workers_of(self._executor)
        busy = [member for member in members if member.busy()]
        self._waiting.extend(Parcel(group, self._luggage.errand) for group in self._cut(busy))
        while self._waiting or self._flying:
            self._send()
            done, _ = futures.wait(self._flying, return_when=futures.FIRST_COMPLETED)
            back: list[OneOfMany] = []
            failed: BaseException | None = None
            for future in done:
                flight = self._flying.pop(future)
                try:
                    back += self._land(future.result(), flight)
                except (Exception, SystemExit) as error:  # KeyboardInterrupt, here or there, is one
                    failed = failed or error
            if failed is not None:
                raise self._told(failed) from failed
            if back:
                tell(back)

    def _cut(self, members: Sequence[OneOfMany]) -> list[list[OneOfMany]]:
        """Several tasks for each worker, of about the same work, each with enough for all threads of one."""
        threads = self._n_threads or max(1, len(processors()) // self._workers)
        packs = packs_of(members)
        size = sum(member.size for member in members)
        wish = max(EACH * self._workers, size // TASK_BYTES)
        count = min(wish, max(self._workers, len(packs) // threads), len(packs))
        groups: list[tuple[float, int, list[OneOfMany]]] = [(0.0, number, []) for number in range(count)]
        for pack in packs:
            total, number, group = heapq.heappop(groups)
            heapq.heappush(groups, (total + sum(map(work_left, pack)), number, group + pack))
        return [group for _, _, group in sorted(groups, reverse=True)]

    # There and back ---------------------------------------------------------------------------------------

    def _send(self) -> None:
        """What the workers may have now: each a task, and once it has rows another one that waits for it."""
        self._waiting = deque(parcel for parcel in self._waiting if parcel.wanted)
        while self._waiting:
            equipped = sum(self._has_rows.values())
            if self._lacking > self._on_their_way:
                self._submit(self._waiting.popleft(), True)
            elif self._count(False) < 2 * equipped:
                self._submit(self._waiting.popleft(), False)
            elif self._count(None) < self._workers - len(self._has_rows):
                self._submit(None, False)  # whoever is not known is asked first, which costs nothing
            else:
                break

    def _count(self, carries: bool | None) -> int:
        """Tasks that fly, with rows or without; None: those that only ask."""
        return sum((None if flight.parcel is None else flight.carries) is carries for flight in self._flying.values())

    def _submit(self, parcel: Parcel | None, carries: bool) -> None:
        latest = list(self._has_rows)[-self._workers :]
        places = Counter((place.machine, place.processors) for place in latest)
        errands = None if parcel is None else parcel.packed
        unknown = self._workers - len(latest)
        task = Task(next(self._serial), self._call, _worker.maker(), errands, self._n_threads, places, unknown)
        try:
            with silent_about_size():
                future = self._executor.submit(_worker.work, tuple(task), self._luggage.packed if carries else None)
        except futures.BrokenExecutor as error:
            raise self._told(error) from error
        except Exception as error:
            raise WorkerError(f"executor takes no task: {text_of(error)}", (), len(self._members)) from error
        self._flying[future] = Flight(parcel, carries)

    @property
    def _lacking(self) -> int:
        """Workers without rows."""
        return sum(not has for has in self._has_rows.values())

    @property
    def _on_their_way(self) -> int:
        return self._count(True)

    def _land(self, answer: tuple[tuple[Any, ...], bytes | None], flight: Flight) -> list[OneOfMany]:
        """Puts what has come back into the networks that it is of."""
        place, states = Place(*answer[0]), answer[1]
        had = self._has_rows.pop(place, False)
        if flight.carries:
            self._waiting.extendleft(self._patient)
            self._patient.clear()
            if had:  # they have missed who had asked for them, and who asks again if it is still there
                self._has_rows = {other: has for other, has in self._has_rows.items() if has}
        self._has_rows[place] = states is not None
        if flight.parcel is None:
            return []
        if states is None:
            flight.parcel.refused += 1
            waits = flight.parcel.refused >= PATIENT and self._on_their_way >= self._lacking
            (self._patient if waits else self._waiting).append(flight.parcel)
            return []
        for member, state in zip(flight.parcel.members, pickle.loads(states), strict=True):
            member.training.take_over(state)
        if not self._lacking and len(self._has_rows) >= self._workers:
            self._luggage.unpack()
        return flight.parcel.members

    def _told(self, error: BaseException) -> WorkerError:
        """What has happened, by the error of a task."""
        if isinstance(error, futures.CancelledError):
            what = "the executor has cancelled a task: it was shut down, or has lost its workers"
        elif isinstance(error, futures.BrokenExecutor) or type(error).__name__ == "KilledWorker":  # Dask's
            what = f"a worker of the executor has died: {text_of(error)}"
        else:
            what = f"a worker of the executor has raised {text_of(error)}"
        return WorkerError(what, (), len(self._members))


class Luggage:
    """What is sent: the rows, once for all, and of each network what it takes to train it.

    Attributes
    ----------
    common : Common
    """

    def __init__(self, members: Sequence[OneOfMany]) -> None:
        self.common = Common([], [])
        self._data: dict[tuple[Any, ...], int] = {}  # places among the common rows, by X and what is in the rest
        self._states = {member: state_of(place, member) for place, member in enumerate(members)}
        self._known: dict[int, bytes] = {}  # digests, by the array
        digests = {member: [self._digest(array) for array in numbers_of(member)] for member in members}
        several = {digest for digest, count in Counter(itertools.chain(*digests.values())).items() if count > 1}
        places: dict[bytes, int] = {}
        self._numbers: dict[OneOfMany, list[int | NDArray[Any]]] = {}
        for member in members:
            self._numbers[member] = own = []
            for digest, array in zip(digests[member], numbers_of(member), strict=True):
                if digest in several and digest not in places:
                    places[digest] = len(self.common.numbers)
                    self.common.numbers.append(array)
                own.append(places[digest] if digest in several else shortened(array))
            for data in (member.job.data, member.job.held):
                self._place_of(data)

    def _place_of(self, rows: Rows | None) -> int | None:
        """Which of the common rows these are."""
        if rows is None:
            return None
        rest = map(self._digest, (rows.labels, rows.targets, rows.weights))
        place = self._data.setdefault((id(rows.X), *rest, rows.each), len(self.common.rows))
        if place == len(self.common.rows):
            self.common.rows.append(rows)
        return place

    def _digest(self, array: NDArray[Any]) -> bytes:
        """Equal for equal arrays."""
        if id(array) not in self._known:
            what = repr((array.dtype, array.shape)).encode() + array.tobytes()
            self._known[id(array)] = hashlib.blake2b(what, digest_size=20).digest()
        return self._known[id(array)]

    @cached_property
    def packed(self) -> bytes:
        """The rows, pickled."""
        plain = {id(rows.X): np.asarray(rows.X) for rows in self.common.rows}  # a file is read
        rows = [replace(some, X=plain[id(some.X)]) for some in self.common.rows]
        return pickle.dumps(Common(rows, [shortened(array) for array in self.common.numbers]), protocol=5)

    def unpack(self) -> None:
        """Gives the memory of the pickle back."""
        vars(self).pop("packed", None)

    def errand(self, member: OneOfMany) -> Errand:
        job = member.job
        data, held = self._place_of(job.data), self._place_of(job.held)
        nothing = Rows(job.data.loss, NO_MATRIX, NO_LABELS, NO_MATRIX, NO_FLOATS, 1)
        rest = replace(job, data=nothing, held=None, rows=NO_ORDER, held_rows=NO_ORDER)
        rows, held_rows = self._numbers[member]
        assert data is not None
        return Errand(
            self._states[member], member.training.whole(), member.rates, rest, data, held, rows, held_rows, member.goal
        )  # fmt: skip


def numbers_of(member: OneOfMany) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return member.job.rows, member.job.held_rows


def state_of(place: int, member: OneOfMany) -> bytes:
    """What a network is made of, pickled, without what it has learned."""
    core = member.core
    built = Built(core.made("fit_many").plan.n_features, 0, 0, None)
    state = State(
        core.layers, core.loss, core.optimizer, core.root, member.epochs_before, History(), 1, False, built, None,
        core.precision,
    )  # fmt: skip
    try:
        return pickle.dumps(state, protocol=5)
    except Exception as error:  # whatever objects of the user raise
        raise TypeError(
            f"networks[{place}] cannot be sent to the workers of an executor ({text_of(error)}): its layers, loss and "
            "optimizer must be what pickle can take, and functions in them must be defined in a module by a name"
        ) from error


def packs_of(members: Sequence[OneOfMany]) -> list[list[OneOfMany]]:
    """Those that may make their steps together stay together; the most work comes first."""
    packs: list[list[OneOfMany]] = []
    filling: dict[Any, list[OneOfMany]] = {}
    for member in members:
        shape = member.training.shape
        pack = None if shape is None else filling.get(shape)
        if pack is None or len(pack) == PACK:
            pack = []
            packs.append(pack)
            if shape is not None:
                filling[shape] = pack
        pack.append(member)
    return sorted(packs, key=lambda pack: sum(map(work_left, pack)), reverse=True)


def shortened(array: NDArray[Any]) -> NDArray[Any]:
    """Row numbers in half the bytes, where they fit."""
    return array.astype(np.int32) if array.size and array.max() < 2**31 else array


def work_left(member: OneOfMany) -> float:
    """About how long a network still takes."""
    job = member.job
    of_epoch = job.epoch_rows * member.core.made("fit_many").plan.arena_size + job.batches * STEP
    return float(of_epoch * (member.goal - member.training.epoch))


def text_of(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def silent_about_size() -> Iterator[None]:
    """Dask warns of tasks above 10 MB, lest data be sent with each; here they go to each worker, not with each task."""
    if "distributed" not in sys.modules:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        yield


def running(
    executor: Any, members: Sequence[OneOfMany], n_threads: int | None
) -> AbstractContextManager[Run]:  # fmt: skip
    """What trains networks, within a `with` statement: here, or on the workers of an executor."""
    chosen = checked_executor(executor)
    return nullcontext(train) if chosen is None else Elsewhere(chosen, members, n_threads)

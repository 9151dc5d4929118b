"""The ranks of an MPI communicator as a team, and how they fail together.

Whatever a rank does by itself may fail, and the others must hear of it wherever they are. So there is one signal, an
exchange of one small record, and every other exchange begins with it:

    rank 0    work   signal(fine)    exchange   work   signal(fine)     all raise
    rank 1    work   signal(fine)    exchange   work   error: signal    all raise

A rank that fails joins the next signal, whichever that is for the others. Between a signal and the end of its exchange
nothing is left that could be told: an error there (`unbroken`) ends all processes with a sentence.

Ctrl-C is kept until the next signal, so that all ranks stop after the same step; a second one does not wait.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from cydrop._base import mapped
from cydrop._run.core import Core
from cydrop._run.team import Team
from cydrop.distributed import _facts, _threads
from cydrop.distributed._errors import RankError

T = TypeVar("T")
RECORD = 5  # doubles of a signal: whether all is well, what comes next, and three numbers of a training step
FINE, FAILED = 0.0, 1.0
NOTHING, STEP, MOMENTS, OBJECTS, FIRST, ROWS = range(6)  # what comes next
FORWARDING = 0.3  # seconds in which mpiexec passes on what was printed: it drops the rest when it ends the processes
TOLD = "_told_to_all_ranks"  # attribute of an error that all ranks have raised


class _Line:
    """What a session talks over; sessions within it share it, so that whoever fails anywhere in it is heard.

    Attributes
    ----------
    comm : mpi4py.MPI.Intracomm
        In which no messages of the user's are.
    interrupted : bool
        Whether there was a Ctrl-C that is not told yet.
    thread : int
        Whose session it is.
    """

    def __init__(self, comm: Any) -> None:
        self.comm, self.interrupted, self.thread = comm, False, threading.get_ident()


_lines: dict[int, _Line] = {}  # of sessions that have begun, by the communicator that was given


class Ranks(Team):
    """The team of all ranks of a communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
    partitioned : bool
        Whether each has rows of its own.
    """

    def __init__(self, comm: Any, partitioned: bool) -> None:
        from mpi4py import MPI

        self.mpi: Any = MPI
        self._given, self._line = comm, _Line(comm)
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.partitioned = partitioned and self.size > 1
        self._records = np.zeros((self.size, RECORD))

    @property
    def comm(self) -> Any:
        """The communicator of the session."""
        return self._line.comm

    # Failing together -------------------------------------------------------------------------------------

    @contextmanager
    def session(self) -> Iterator[None]:
        key, mine = self._given.py2f(), _Line(self._given)
        line = _lines.get(key)
        if line is None:
            with self.unbroken():
                line = _lines.setdefault(key, mine)  # one step: of two threads that begin together one has it
                if line is mine:
                    mine.comm = self._given.Dup()
        if line.thread != threading.get_ident():
            raise RuntimeError(
                "another thread trains or predicts on these ranks: give every thread a communicator of its own, "
                "comm.Dup()"
            )
        self._line = line
        if line is not mine:
            with self.together():
                yield
            return
        before = self._keep_interrupts()
        try:
            with self.together():
                yield
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)
            with self.unbroken():
                _lines.pop(key).comm.Free()

    @contextmanager
    def together(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.tell(error)
            raise
        self.signal()

    def tell(self, error: BaseException) -> None:
        """Signals an error that no other rank knows yet, and returns for the caller to raise it. One that came while
        another was raised that all know is no news: all are leaving."""
        if not is_told(error):
            try:
                self.signal(error)
            except BaseException as raised:
                if raised is not error:  # an interrupt, which does not wait
                    raise

    def signal(
        self, error: BaseException | None = None, then: int = NOTHING, numbers: Sequence[float] = ()
    ) -> NDArray[np.float64]:
        """Up to three numbers of each rank, (ranks, 3), once all are here; all raise where one has an error, or where
        they are about to do different things."""
        if error is None and self._line.interrupted:
            error = KeyboardInterrupt()
        own = np.zeros(RECORD)
        own[0] = FINE if error is None else FAILED
        own[1] = then
        own[2 : 2 + len(numbers)] = numbers
        with self.unbroken():
            self.comm.Allgather(own, self._records)
        if self._records[:, 0].any():
            self._raise(error)
        if (self._records[:, 1] != then).any():
            apart = RuntimeError(
                "the ranks have called different methods, or the same in another order: all must make the same calls "
                "with parallel="
            )
            _mark(apart)
            raise apart
        return self._records[:, 2:]

    def _raise(self, error: BaseException | None) -> NoReturn:
        """On every rank: its own error, or that of the first rank that has one."""
        with self.unbroken():
            self._line.interrupted = False
            told = self.comm.allgather(None if error is None else _described(error))
        failed = [(rank, *one) for rank, one in enumerate(told) if one is not None]
        if error is None:
            rank, kind, text, trace = failed[0]
            error = KeyboardInterrupt() if kind == KeyboardInterrupt.__name__ else RankError(rank, kind, text)
            if trace:
                error.add_note(f"On rank {rank}:\n{trace}")
        else:
            for rank, kind, text, _ in failed:
                if rank != self.rank and (kind, text) != _described(error)[:2]:
                    error.add_note(f"Rank {rank} has raised {kind}: {text}")
        _mark(error)
        raise error

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Around what has to happen on all ranks or on none: an error in it ends all processes."""
        try:
            yield
        except BaseException as error:
            self._abort(error)

    def _abort(self, error: BaseException) -> NoReturn:
        trace = "".join(traceback.format_exception(error))
        print(
            f"{trace}cydrop: rank {self.rank} failed in the middle of an exchange ({type(error).__name__}), where it "
            "can tell no other rank: all processes end here",
            file=sys.stderr,
        )
        _end_all(self.mpi)
        raise SystemExit(1)  # Abort does not come back

    def _keep_interrupts(self) -> Any:
        """From now on Ctrl-C waits for a signal; what was done with it before. None: it stays as the user has it."""
        own = signal.getsignal(signal.SIGINT)
        if own is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
            return None
        signal.signal(signal.SIGINT, self._keep_interrupt)
        return own

    def _keep_interrupt(self, number: int, frame: Any) -> None:
        if self._line.interrupted:
            raise KeyboardInterrupt
        self._line.interrupted = True

    # What teams do ----------------------------------------------------------------------------------------

    def prepare(self, core: Core) -> None:
        with self.together():
            mine = _threads.processors()
        local = self._local(mine)
        with self.together():
            if core.threads_of_machine:
                share = _threads.share(mine, local)
                if share != core.n_threads:
                    core.change(n_threads=share)
        everybody = self._local((mine, core.n_threads))
        with self.together():
            if self.rank == everybody[0][0]:
                _threads.warn_if_many([threads for _, (_, threads) in everybody], [own for _, (own, _) in everybody])

    def _local(self, value: T) -> list[Any]:
        """(rank, value) of the ranks on this machine."""
        with self.unbroken():
            node = self.comm.Split_type(self.mpi.COMM_TYPE_SHARED)
            found: list[Any] = node.allgather((self.rank, value))
            node.Free()
        return found

    def check_same(self, facts: Mapping[str, Any]) -> None:
        everybody = self.of_all(dict(facts))
        with self.together():
            for name, wanted in everybody[0].items():
                others = [rank for rank, own in enumerate(everybody) if own.get(name) != wanted]
                if others:
                    raise ValueError(difference(name, wanted, others, everybody[others[0]].get(name)))

    def check_prediction(self, core: Core, X: NDArray[Any], facts: Mapping[str, Any]) -> None:
        with self.together():
            found = _facts.of_prediction(core, X, self.partitioned)
        self.check_same({**facts, **found})

    def part(self, X: Any) -> slice | None:
        one_file = isinstance(X, np.ndarray) and X.ndim == 2 and mapped.file_of(X) is not None
        if self.partitioned or not one_file or len(X) < self.size:
            return None
        return slice(*self.share(len(X)))

    def of_first(self, value: T) -> T:
        self.signal(then=FIRST)
        with self.unbroken():
            found: T = self.comm.bcast(value)
        return found

    def of_all(self, value: T) -> list[T]:
        self.signal(then=OBJECTS)
        with self.unbroken():
            found: list[T] = self.comm.allgather(value)
        return found

    def share(self, count: int) -> tuple[int, int]:
        if self.partitioned:
            return 0, count
        return self.rank * count // self.size, (self.rank + 1) * count // self.size

    def join(self, rows: NDArray[Any], ends: list[int]) -> None:
        if self.partitioned:
            return
        width = rows[:1].size
        counts = np.diff([0, *ends]) * width
        self.signal(then=ROWS)
        with self.unbroken():
            kind = self.mpi.Datatype.fromcode(rows.dtype.char)
            self.comm.Allgatherv(self.mpi.IN_PLACE, [rows, counts, np.cumsum(counts) - counts, kind])


def difference(name: str, wanted: Any, others: list[int], other: Any) -> str:
    """The sentence on what some ranks have otherwise than rank 0; checksums, which are bytes, are not shown."""
    who = f"rank {others[0]}" if len(others) == 1 else f"ranks {', '.join(map(str, others))}"
    if isinstance(wanted, bytes):
        return f"all ranks must have the same {name}: {who} differ{'s' if len(others) == 1 else ''} from rank 0"
    more = f" ({who} differ from rank 0)" if len(others) > 1 else ""
    values = f"it is {wanted!s:.300} on rank 0, {other!s:.300} on rank {others[0]}"
    return f"all ranks must have the same {name}: {values}{more}"


def _described(error: BaseException) -> tuple[str, str, str]:
    """Its type, what it says, its traceback."""
    try:
        text = str(error)
    except Exception:  # of the user's own class
        text = "(its text cannot be had)"
    trace = "" if isinstance(error, KeyboardInterrupt) else "".join(traceback.format_exception(error)).rstrip()
    return type(error).__name__, text, trace


def is_told(error: BaseException | None) -> bool:
    """Whether all ranks have raised the error, or one that it came after."""
    return error is not None and (getattr(error, TOLD, False) or is_told(error.__context__))


def _mark(error: BaseException) -> None:
    setattr(error, TOLD, True)


def _end_all(mpi: Any) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    time.sleep(FORWARDING)
    mpi.COMM_WORLD.Abort(1)


_guarded = False


def guard(mpi: Any) -> None:
    """Once in a process: an error that ends the program on this rank alone ends the others too, which would wait for it
    for ever. (`python -m mpi4py` does the same from the first line on.)"""
    global _guarded
    if _guarded:
        return
    _guarded = True
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        before(kind, error, trace)
        if not is_told(error) and mpi.Is_initialized() and not mpi.Is_finalized():
            _end_all(mpi)

    sys.excepthook = hook

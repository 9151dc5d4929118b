"""How many threads to use: what the machine grants this process, not what it has."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

from cydrop._base import checks
from cydrop._core import cpu


def resolve(n_threads: Any) -> int:
    """A number of threads from the argument `n_threads`; None asks CYDROP_NUM_THREADS, then the machine.

    The machine's answer is the smaller of OMP_NUM_THREADS or the affinity mask (both as OpenMP sees them) and the
    cgroup's processor quota. A serial build always answers 1, and so does a system that does not let this process start
    more threads, with a warning: the bits are the same.
    """
    if n_threads is None and "CYDROP_NUM_THREADS" in os.environ:
        wish = os.environ["CYDROP_NUM_THREADS"]
        if not (wish.isascii() and wish.isdecimal()) or len(wish) > 100 or int(wish) < 1:
            raise ValueError(f"CYDROP_NUM_THREADS must be a whole number of at least 1, got {wish!r}")
        n_threads = checks.integer("CYDROP_NUM_THREADS", int(wish), 1, 1024)
    if n_threads is not None:
        n_threads = checks.integer("n_threads", n_threads, 1, 1024)
    else:
        n_threads = max(1, min(cpu.openmp_threads(), _quota()))
    if not cpu.openmp():
        return 1
    if not _can_start(n_threads):
        warnings.warn(
            f"the system does not let this process start {n_threads - 1} more threads: cydrop runs on one",
            RuntimeWarning,
            stacklevel=3,
        )
        return 1
    return int(n_threads)


_started = 1  # threads that were running at the same time once


def _can_start(count: int) -> bool:
    """Tries it once: OpenMP's own answer to a thread that cannot be started is to end the process."""
    global _started
    if count <= _started:
        return True
    gate, waiting = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(count - 1):
            thread = threading.Thread(target=gate.wait, daemon=True)
            thread.start()
            waiting.append(thread)
    except RuntimeError:
        return False
    finally:
        gate.set()
        for thread in waiting:
            thread.join()
    _started = count
    return True


def _quota() -> int:
    """Processors that the cgroup grants (version 2, then 1), rounded up; a large number where nothing limits."""
    try:
        quota, period = _read("/sys/fs/cgroup/cpu.max").split()[:2]
        return 2**20 if quota == "max" else math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        pass
    try:
        granted = int(_read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
        span = int(_read("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
        return 2**20 if granted <= 0 else math.ceil(granted / span)
    except (OSError, ValueError):
        return 2**20


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


_forks = 0  # how often this process is a child of a child


_children_use_threads = True  # those of the next fork


def _before_fork() -> None:
    global _children_use_threads
    _children_use_threads = cpu.before_fork()


def _forked() -> None:
    global _forks
    _forks += 1
    cpu.forked()
    if not _children_use_threads:
        cpu.stay_on_one_thread()


class ProcessLock:
    """A lock that is open in a forked child: whichever thread of the parent held it is not there to give it back.

        with self._lock():
            ...

    Parameters
    ----------
    make : callable
        Makes the lock of a process: `threading.Lock` or `threading.RLock`.
    """

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self._locks = {_forks: make()}

    def __call__(self) -> Any:
        """The lock of this process, closed and opened by its own methods: no interrupt comes in between."""
        found = self._locks.get(_forks)
        return self._locks.setdefault(_forks, self._make()) if found is None else found


if hasattr(os, "register_at_fork"):
    # a child forked while the pool is awake would wait for it forever
    os.register_at_fork(before=_before_fork, after_in_child=_forked)

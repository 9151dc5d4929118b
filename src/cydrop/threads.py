"""How many threads to use: what the machine grants to this process, not what it has."""

from __future__ import annotations

import math
import os
from typing import Any

from cydrop import checks
from cydrop._core import cpu


def resolve(n_threads: Any) -> int:
    """A number of threads from the argument `n_threads`; None asks CYDROP_NUM_THREADS, then the machine.

    The machine's answer is the least of OMP_NUM_THREADS or the affinity mask (both as OpenMP sees them) and the
    cgroup's processor quota. A serial build always answers 1.
    """
    if n_threads is None and "CYDROP_NUM_THREADS" in os.environ:
        wish = os.environ["CYDROP_NUM_THREADS"]
        if not (wish.isascii() and wish.isdecimal()) or len(wish) > 100 or int(wish) < 1:
            raise ValueError(f"CYDROP_NUM_THREADS must be a whole number of at least 1, got {wish!r}")
        n_threads = checks.integer("CYDROP_NUM_THREADS", int(wish), 1, 1024)
    if n_threads is not None:
        n_threads = checks.integer("n_threads", n_threads, 1, 1024)
        return n_threads if cpu.openmp() else 1
    return max(1, min(cpu.openmp_threads(), _quota()))


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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=cpu.rest)  # a child forked while the pool is awake would wait for it for ever

"""Threads of a rank: its share of the processors that it and the other ranks of the machine may use."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from fractions import Fraction

from cydrop._base import threads


def processors() -> frozenset[int]:
    """The processors that this process may run on."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset(range(_count()))


def _count() -> int:
    return os.cpu_count() or 1


def share(mine: frozenset[int], local: Sequence[tuple[int, frozenset[int]]]) -> int:
    """Threads for a rank that shares each of its processors with those of the machine's ranks that may use it too.

    Never more than what the machine grants a process that is alone (`threads.resolve`), divided by the ranks where a
    quota of all of them is the limit.
    """
    own = sum((Fraction(1, sum(processor in theirs for _, theirs in local)) for processor in mine), Fraction(0))
    granted = threads.resolve(None)
    if "CYDROP_NUM_THREADS" in os.environ or "OMP_NUM_THREADS" in os.environ:  # said of each process
        return granted
    union = len(frozenset().union(*(theirs for _, theirs in local)))
    if granted < len(mine) <= union:  # a quota
        own = min(own, Fraction(granted, len(local)))
    return max(1, min(granted, int(own)))


def warn_if_many(counts: Sequence[int], sets: Sequence[frozenset[int]]) -> None:
    """Warns where the ranks of a machine have more threads than there are processors."""
    there = len(frozenset().union(*sets))
    if sum(counts) > there:
        warnings.warn(
            f"{len(counts)} ranks of this machine have {sum(counts)} threads together, on {there} "
            f"processor{'s' if there > 1 else ''}: they wait for each other; start fewer ranks"
            f"{', or give fewer n_threads' if sum(counts) > len(counts) else ''}",
            RuntimeWarning,
            stacklevel=2,
        )

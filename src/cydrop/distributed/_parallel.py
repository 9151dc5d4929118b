"""How a training is divided."""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop._base.declaration import Declaration
from cydrop._run.team import ALONE, Team
from cydrop._run.training import Trainer

__all__ = ["DataParallel", "team_for", "trainer_for"]

MOST_SHARDS = 1024


class DataParallel(Declaration):
    """Data parallel training: every rank works out the gradient of its shards of a batch.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, "world" or None
        The ranks, a power of two of them and at most `shards`. "world" is `mpi4py.MPI.COMM_WORLD`. None is this process
        alone: the bits are the same.
    shards : int
        A power of two. It decides the bits, the number of ranks does not.
    data : "replicated" or "partitioned"
        Whether all ranks are given the same rows, or each rank its own part of them.
    """

    option_names = ("comm", "shards", "data")
    comm: Any
    shards: int
    data: str

    def __init__(self, comm: Any = None, *, shards: int = 8, data: str = "replicated") -> None:
        shards = checks.integer("shards", shards, 1, MOST_SHARDS)
        if shards & (shards - 1):
            raise ValueError(f"shards must be a power of two, got {shards}")
        checks.one_of("data", data, ("replicated", "partitioned"))
        if comm is not None:
            from cydrop.distributed import _mpi

            comm = _mpi.checked(comm, shards)
        self.declare(comm=comm, shards=shards, data=data)

    def team(self) -> Team:
        """The ranks, or this process alone."""
        if self.comm is None:
            return ALONE
        from cydrop.distributed import _mpi

        return _mpi.team(self.comm, self.data == "partitioned")

    def trainer(self) -> Trainer:
        """What trains so."""
        if self.comm is None:
            raise NotImplementedError
        from cydrop.distributed import _mpi

        return _mpi.trainer(self.comm, self.data == "partitioned", self.shards)


def trainer_for(parallel: Any) -> Trainer | None:
    """What the argument `parallel` asks for; None: for nothing."""
    given = _checked(parallel)
    return None if given is None else given.trainer()


def team_for(parallel: Any) -> Team:
    """The ranks that the argument `parallel` asks for."""
    given = _checked(parallel)
    return ALONE if given is None else given.team()


def _checked(parallel: Any) -> DataParallel | None:
    """The argument `parallel`."""
    if parallel is not None and not isinstance(parallel, DataParallel):
        raise TypeError(
            f"parallel must be a cydrop.distributed.DataParallel or None, got {parallel!r} ({type(parallel).__name__})"
        )
    return parallel

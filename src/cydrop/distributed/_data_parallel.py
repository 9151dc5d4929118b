"""How a batch is shared out."""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop._base.declaration import Declaration
from cydrop._run.team import ALONE, Team
from cydrop._run.training import Trainer

MOST_SHARDS = 256


class DataParallel(Declaration):
    """Data parallel training: every batch is cut into shards, and the gradients of the shards are added over a fixed
    binary tree.

        ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))

    Whoever computes which shards, the additions are the same, and so are the bits: those of one process. They differ
    from those of `parallel=None`, where the rows of a batch are added one after another, as rounding does.

    `BatchNorm` normalises each shard by its own mean and variance (ghost batch normalisation, Hoffer, Hubara and Soudry
    2017); its running statistics take the mean over the shards, each counted by its rows (the variance without shards
    of one row). All else is what it is without shards: masks and noise are those of the row in the whole batch.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, "world" or None
        The ranks that share the work, a power of two of them and at most `shards`; "world" is
        `mpi4py.MPI.COMM_WORLD`. Each does consecutive shards, and updates its slice of the parameters. It needs
        `pip install "cydrop[mpi]"` and an MPI, for example `pip install mpich`. None: this process does all shards.
    shards : int, a power of two up to 256
        Into how many shards of consecutive rows each batch is cut, number s from row s * n // shards on, where n are
        the batch's rows. A batch of fewer rows has empty shards.
    data : "replicated" or "partitioned"
        Whether X and y are all rows, the same on every rank, or this rank's part of them. Each rank then gives its
        shards of every batch from its own part, shuffled within it, and an epoch has as many rows as there are in all:
        a rank with fewer rows than others begins again before the epoch ends, one with more leaves out some, others
        in each epoch. The same partition gives the same bits; another gives others. With one process it is the same.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    ImportError
        With `comm`, where there is no mpi4py.

    Examples
    --------
    >>> import cydrop as cd
    >>> X, y, X_test, y_test = cd.datasets.load_optdigits()
    >>> net = cd.Network([cd.Dense(64, activation="relu"), cd.Dropout(0.3), cd.Dense(10)], seed=0)
    >>> history = net.fit(X, y, epochs=2, parallel=cd.distributed.DataParallel(), verbose=0)
    >>> len(history)
    2
    """

    comm: Any
    shards: int
    data: str

    option_names = ("comm", "shards", "data")

    def __init__(self, comm: Any = None, *, shards: int = 8, data: str = "replicated") -> None:
        shards = checks.integer("shards", shards, 1, MOST_SHARDS)
        if shards & (shards - 1):
            raise ValueError(f"shards must be a power of two, got {shards}")
        checks.one_of("data", data, ("replicated", "partitioned"))
        if comm is not None:
            from cydrop.distributed import _mpi  # mpi4py is imported where it is asked for

            comm = _mpi.checked(comm, shards)
        self.declare(comm=comm, shards=shards, data=data)


def checked(parallel: Any) -> DataParallel | None:
    """The argument `parallel` of `fit`."""
    if parallel is not None and not isinstance(parallel, DataParallel):
        raise TypeError(
            f"parallel must be a cydrop.distributed.DataParallel or None, got {parallel!r:.100} "
            f"({type(parallel).__name__})"
        )
    return parallel


def checked_for_estimator(parallel: Any) -> DataParallel | None:
    """The same of an estimator, which learns from all rows more than the weights of a network."""
    given = checked(parallel)
    if given is not None and given.data == "partitioned":
        raise ValueError("data='partitioned' is for Network.fit: give an estimator all rows on every rank")
    return given


def team_of(parallel: Any) -> Team:
    """Who shares the work, by the argument `parallel`."""
    given = checked(parallel)
    if given is None or given.comm is None:
        return ALONE
    from cydrop.distributed import _mpi

    return _mpi.ranks(given.comm, given.data == "partitioned")


def trainer_of(parallel: Any) -> Trainer | None:
    """What trains on several ranks, by the argument `parallel`; None: nothing that is special."""
    given = checked(parallel)
    if given is None or given.comm is None:
        return None
    from cydrop.distributed import _mpi

    return _mpi.trainer(given.comm, given.data == "partitioned", given.shards)

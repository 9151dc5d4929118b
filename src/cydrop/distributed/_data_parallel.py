"""How a batch is shared out."""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop._base.declaration import Declaration

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
    comm : None
        This process does all shards.
    shards : int, a power of two up to 256
        Into how many shards of consecutive rows each batch is cut, number s from row s * n // shards on, where n are
        the batch's rows. A batch of fewer rows has empty shards.
    data : "replicated" or "partitioned"
        Whether X and y are all rows, or this process's part of them. With one process it is the same.

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
        if comm is not None:
            raise TypeError(f"comm must be None, got {comm!r:.100} ({type(comm).__name__})")
        shards = checks.integer("shards", shards, 1, MOST_SHARDS)
        if shards & (shards - 1):
            raise ValueError(f"shards must be a power of two, got {shards}")
        checks.one_of("data", data, ("replicated", "partitioned"))
        self.declare(comm=comm, shards=shards, data=data)


def checked(parallel: Any) -> DataParallel | None:
    """The argument `parallel` of `fit`."""
    if parallel is not None and not isinstance(parallel, DataParallel):
        raise TypeError(
            f"parallel must be a cydrop.distributed.DataParallel or None, got {parallel!r:.100} "
            f"({type(parallel).__name__})"
        )
    return parallel

"""Which member trains on which rows, and what those predict that did not see a row."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cydrop import xorshift
from cydrop._base import seeding
from cydrop._base.arrays import Floats
from cydrop._run.core import core_of
from cydrop._run.rows import Rows
from cydrop.losses import Loss
from cydrop.monte_carlo import mixture
from cydrop.network import Network

Index = NDArray[np.int64]


class Shares(NamedTuple):
    """Rows to train on, and to validate on, for each member. None: all rows, or none."""

    rows: list[Index] | None = None
    held: list[Index] | None = None


def passes_of(members: Sequence[Network]) -> list[int]:
    """How many training passes each network has made."""
    models = [core_of(member).model for member in members]
    return [0 if model is None else model.engine.draws for model in models]


def warn_of_twins(members: Sequence[Network], shares: Shares) -> None:
    """Warns of members that nothing tells apart."""
    seeds = Counter(core_of(member).root for member in members)
    known: dict[tuple[Any, ...], int] = {}
    for place, member in enumerate(members):
        core = core_of(member)
        if seeds[core.root] == 1:
            continue
        rows = b"" if shares.rows is None else shares.rows[place].tobytes()
        made = repr((core.layers, core.loss, core.optimizer))
        first = known.setdefault((core.root, core.epochs, made, hashlib.blake2b(rows).digest()), place)
        if first != place and _equal(members[first], member):
            warnings.warn(
                f"networks[{place}] is like networks[{first}], with the same seed and the same rows: they end up the "
                "same. Give each member a seed of its own, or train on folds or bootstrap samples",
                UserWarning,
                stacklevel=3,
            )
            return


def _equal(one: Network, other: Network) -> bool:
    """Whether two networks that are built have the same parameters now."""
    pairs = zip(one.parameters().values(), other.parameters().values(), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def all_but_the_end(count: int, data: Rows, share: float) -> Shares:
    """All members train on the same rows; `share` of them, from the end, are held out."""
    if not share:
        return Shares()
    _, rest = data.split(share)
    at, numbers = len(rest.X), np.arange(len(data.X), dtype=np.int64)
    return Shares([numbers[:at]] * count, [numbers[at:]] * count)


def folded(count: int, data: Rows, folds: int, source: np.random.SeedSequence) -> Shares:
    """Member i leaves out fold i % folds. Of class labels each fold has as many of a class as any other, or one more or
    less."""
    n = len(data.X)
    order = xorshift.Xorshift(source).permutation(n)
    if data.y.ndim == 1:
        order = order[np.argsort(data.y[order], kind="stable")]
    fold = np.empty(n, dtype=np.int64)
    fold[order] = np.arange(n) % folds
    places = range(count)
    return Shares(
        [np.flatnonzero(fold != place % folds).astype(np.int64) for place in places],
        [np.flatnonzero(fold == place % folds).astype(np.int64) for place in places],
    )


def bootstrapped(count: int, data: Rows, source: np.random.SeedSequence) -> Shares:
    """As many rows as there are, drawn with replacement, for each member; those that were not drawn are held out."""
    n, drawn, held = len(data.X), [], []
    for place in range(count):
        draws = xorshift.Xorshift(seeding.child(source, place))
        times = np.ones(n, dtype=np.int64)
        while times.all():  # of two rows, every second sample has both: then another
            # the upper half of a word times n, in units of 2^32: one of 0..n-1
            rows = ((draws.random_raw(n) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32)
            times = np.bincount(rows.astype(np.int64), minlength=n)
        drawn.append(np.repeat(np.arange(n, dtype=np.int64), times))
        held.append(np.flatnonzero(times == 0).astype(np.int64))
    return Shares(drawn, held)


def out_of_fold(members: Sequence[Network], data: Rows, shares: Shares, loss: Loss) -> Floats | None:
    """The mixture, for each row, of the members that did not train on it; NaN where there is none."""
    if shares.held is None:
        return None
    units = members[0].predict(data.X[:1]).shape[1]
    mean, squares, counts = np.zeros((len(data.X), units)), np.zeros((len(data.X), units)), np.zeros((len(data.X), 1))
    with np.errstate(invalid="ignore", over="ignore"):  # of rows that no one left out, and of members near divergence
        for member, held in zip(members, shares.held, strict=True):
            prediction = member.predict(data.X[held]).astype(np.float64)
            counts[held] += 1.0
            change = prediction - mean[held]  # Welford (1962)
            mean[held] += change / counts[held]
            squares[held] += change * (prediction - mean[held])
        seen = counts > 0  # where not, the NaN of np.nan: that of 0 / 0 has other bits on other processors
        mean, squares = np.where(seen, mean, np.nan), np.where(seen, squares / np.maximum(counts, 1.0), np.nan)
        return mixture(loss, mean, squares).astype(np.float32)

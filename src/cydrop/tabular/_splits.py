"""Which rows are trained on and which are held out. A class is never missing from the training rows."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.intp]


def holdout(rng: np.random.RandomState, n: int, fraction: float, codes: NDArray[np.int64] | None) -> tuple[Rows, Rows]:
    """Training rows and held-out rows, a share `fraction` of them, as many of each class as its share says.

    Where nothing can be held out, since every class has one row, the training rows are both.
    """
    codes = np.zeros(n, dtype=np.int64) if codes is None else codes
    counts = np.bincount(codes)
    wish = min(max(1, math.ceil(fraction * n - 1e-9)), n - 1)
    share = counts * (wish / n)
    most = np.maximum(counts - 1, 0)
    taken = np.minimum(np.floor(share).astype(np.int64), most)
    # what is left goes to the largest remainders, in random order where they are equal
    order = np.lexsort((rng.random_sample(len(counts)), -(share - taken)))
    while taken.sum() < min(wish, most.sum()):
        open_classes = [place for place in order if taken[place] < most[place]]
        for place in open_classes[: min(wish, most.sum()) - taken.sum()]:
            taken[place] += 1
    shuffled = rng.permutation(n)
    number = _number_in_class(codes[shuffled])
    held = number < taken[codes[shuffled]]
    if not held.any():
        return np.arange(n), np.arange(n)
    return np.sort(shuffled[~held]), np.sort(shuffled[held])


def folds(rng: np.random.RandomState, n: int, k: int, codes: NDArray[np.int64] | None) -> list[tuple[Rows, Rows]]:
    """k pairs of training and held-out rows: each row is held out once, but that of a class of one row never."""
    codes = np.zeros(n, dtype=np.int64) if codes is None else codes
    shuffled = rng.permutation(n)
    dealt = shuffled[np.argsort(codes[shuffled], kind="stable")]  # class by class
    dealt = dealt[np.bincount(codes)[codes[dealt]] > 1]
    fold = np.full(n, -1)
    fold[dealt] = np.arange(len(dealt)) % k  # two rows of a class in two folds
    pairs = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(k)]
    return [(train, held if len(held) else train) for train, held in pairs]


def _number_in_class(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many rows of its class stand before each row."""
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    number = np.empty(len(codes), dtype=np.int64)
    number[order] = np.arange(len(codes)) - starts[codes[order]]
    return number

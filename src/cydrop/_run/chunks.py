"""Rows that lie in a file: an order of them in which the file is read by chunks, and reading ahead.

A row by itself is a poor thing to read from a disk, and a file larger than the memory is read from it in every epoch.
So its rows are shuffled by chunks (mapped.chunk_rows): the chunks in random order, and then, window by window of WINDOW
chunks, all of a window's rows.

    chunks of the file        0 0 0 0 | 1 1 1 1 | 2 2 2 2 | 3 3 3 3 | 4 4 4 4 | 5 5
    in random order           4 4 4 4 | 1 1 1 1 | 0 0 0 0 | 5 5 | 3 3 3 3 | 2 2 2 2
    rows of each window       1 4 0 4 1 1 0 4 0 1 4 0 | 2 5 3 3 2 5 2 3 3 2              (windows of three)

What is on its way while a window is trained on is the next one. The order depends on seed, epoch and the size of a row
alone. Rows that fit into one window are shuffled as rows in memory are, with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base import mapped
from cydrop._base.arrays import Floats
from cydrop._run.rows import NO_ORDER
from cydrop.xorshift import Xorshift

WINDOW = 64  # chunks: 256 MB of the page cache


def checked_shuffle(shuffle: Any, X: Floats) -> tuple[bool, bool]:
    """Whether rows are shuffled, and whether by chunks."""
    if isinstance(shuffle, bool | np.bool_):
        return bool(shuffle), bool(shuffle) and mapped.file_of(X) is not None
    if isinstance(shuffle, str) and shuffle in ("rows", "chunks"):
        return True, shuffle == "chunks"
    error = ValueError if isinstance(shuffle, str) else TypeError
    raise error(f"shuffle must be True, False, 'rows' or 'chunks', got {shuffle!r}")


def shuffled(X: Floats, rng: Xorshift, by_chunks: bool) -> NDArray[np.int64]:
    """The numbers of the rows in random order: any, or by chunks."""
    rows, step = len(X), mapped.chunk_rows(X)
    n_chunks = -(-rows // step)
    if not by_chunks or n_chunks <= WINDOW:
        return rng.permutation(rows)
    chunks, windows = rng.permutation(n_chunks), -(-n_chunks // WINDOW)
    order, done = np.empty(rows, dtype=np.int64), 0
    for window in range(windows):  # none much smaller than others
        some = chunks[window * n_chunks // windows : (window + 1) * n_chunks // windows]
        own = (some[:, None] * step + np.arange(step)).ravel()
        own = own[own < rows]  # the last chunk may be short
        stop = done + len(own)
        order[done:stop] = own[rng.permutation(len(own))]
        done = stop
    return order


class Ahead:
    """Asks for rows of arrays that lie in a file before they are needed.

    Parameters
    ----------
    arrays : ndarrays
        The first has a row for each number in the order; so have the others, or they are empty.
    order : ndarray
        The numbers of the rows as they are needed; empty: as they are.
    """

    def __init__(self, *arrays: Floats, order: NDArray[np.int64] = NO_ORDER) -> None:
        self._arrays = [array for array in arrays if len(array) and mapped.file_of(array) is not None]
        if self._arrays:
            self._rows, self._step, self._order = len(arrays[0]), mapped.chunk_rows(arrays[0]), order
            self._due = self._schedule()
            self._next = next(self._due, None)

    def reached(self, place: int) -> None:
        """The rows from this place of the order on are needed next."""
        if not self._arrays:
            return
        while self._next is not None and self._next[0] <= place:
            first = self._next[1] * self._step
            for array in self._arrays:
                mapped.ask(array, first, first + self._step)
            self._next = next(self._due, None)

    def _schedule(self) -> Iterator[tuple[int, int]]:
        """(place of the order, chunk): at this place it is time to ask for the chunk."""
        if not len(self._order):
            for chunk in range(-(-self._rows // self._step)):
                yield (chunk - mapped.AHEAD) * self._step, chunk
            return
        window = WINDOW * self._step
        for start in range(0, len(self._order), window):
            needed = np.zeros(-(-self._rows // self._step), dtype=np.bool_)
            needed[self._order[start : start + window] // self._step] = True
            chunks = np.flatnonzero(needed)
            if len(chunks) > 3 * WINDOW:  # not by chunks: all of the file is needed all the time
                return
            for number, chosen in enumerate(chunks):
                yield start - window + number * window // len(chunks), int(chosen)

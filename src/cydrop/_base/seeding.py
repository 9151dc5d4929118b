"""From whatever users give as a seed to the 64-bit words that generators and masks start from.

Everything is derived through numpy.random.SeedSequence, whose output NumPy promises never to change. The words
of a network's seed are its root; weights, biases, shuffles and masks each have their own branches.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cydrop._core.xorshift import branch_words, mixed

if TYPE_CHECKING:
    Seed: TypeAlias = int | np.random.SeedSequence | np.random.Generator | None
else:
    Seed = Any  # numpy.random is imported when the first seed is used, not with cydrop

# branches of a network's root
WEIGHTS, SHUFFLE, MASKS, MONTE_CARLO, BIASES, EMBEDDINGS, FROM_DATA, SCALES, CALIBRATION, FIXED_MASKS = range(10)


class Branch(NamedTuple):
    """A branch of a network's root: where only its words are wanted they are there sooner than a SeedSequence is."""

    root: tuple[int, ...]
    path: tuple[int, ...]

    def words(self, count: int) -> NDArray[np.uint64]:
        return _words_of_branch(self.root, self.path, count)

    def sequence(self) -> np.random.SeedSequence:
        """For whoever wants more."""
        return np.random.SeedSequence(list(self.root), spawn_key=self.path)


def _words_of_branch(root: tuple[int, ...], path: tuple[int, ...], count: int) -> NDArray[np.uint64]:
    found = np.empty(count, dtype=np.uint64)
    branch_words(root, path, found)
    return found


def sequence(seed: Any, name: str = "seed") -> np.random.SeedSequence:
    """A SeedSequence for None (fresh entropy), an int, a SeedSequence or a Generator (which is advanced)."""
    if seed is None:
        return np.random.SeedSequence()
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if isinstance(seed, np.random.Generator):
        return np.random.SeedSequence([int(word) for word in seed.integers(0, 2**32, size=4, dtype=np.uint32)])
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool | np.bool_):
        if seed < 0:
            raise ValueError(f"{name} must not be negative, got {seed}")
        return np.random.SeedSequence(int(seed))
    raise TypeError(
        f"{name} must be None, an int, a numpy.random.SeedSequence or a numpy.random.Generator, "
        f"got {seed!r} ({type(seed).__name__})"
    )


def words(seed: Any, count: int, name: str = "seed") -> NDArray[np.uint64]:
    """`count` words of a seed."""
    if isinstance(seed, Branch):
        return seed.words(count)
    if type(seed) is int and 0 <= seed < 2**64:
        return _words_of_branch((seed,), (), count)
    return words_of(sequence(seed, name), count)


def words_of(source: np.random.SeedSequence, count: int) -> NDArray[np.uint64]:
    """`count` words of a SeedSequence."""
    return np.asarray(source.generate_state(count, np.uint64), dtype=np.uint64)


def as_int(seed: Any, name: str = "seed") -> int | None:
    """A seed in a form that can be kept and saved: None and int as they are, others as an int made from them."""
    if seed is None:
        return None
    source = sequence(seed, name)
    if isinstance(seed, int | np.integer):
        return int(seed)
    first, second = words_of(source, 2)
    return int(first) << 64 | int(second)


def branch(root: tuple[int, ...], *path: int) -> np.random.SeedSequence:
    """The sequence of one branch: a function of the root's words and the path alone."""
    return Branch(root, path).sequence()


def child(source: np.random.SeedSequence, number: int) -> np.random.SeedSequence:
    """A branch of a branch; unlike `spawn` it does not count how often it was asked."""
    return np.random.SeedSequence(source.entropy, spawn_key=(*source.spawn_key, number))


class _FreshKeys:
    """128-bit keys for unseeded calls: fresh entropy once per process, then a counter hashed with it."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._entropy: tuple[int, int] | None = None
        self._calls = itertools.count(1)  # next() on it is atomic: two threads never get the same number

    def next(self) -> tuple[int, int]:
        if self._entropy is None:
            first, second = words(None, 2)
            self._entropy = int(first), int(second)
        call = next(self._calls)
        # both words are hashed: with a counter added alone, half of a lane's seed comes back in the next call
        return mixed((self._entropy[0] + call) % 2**64), mixed((self._entropy[1] + call) % 2**64)


_fresh = _FreshKeys()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh.renew)


def key(seed: Any) -> tuple[int, int]:
    """The 128-bit key of a stream of masks."""
    if seed is None:
        return _fresh.next()
    first, second = words(seed, 2)
    return int(first), int(second)

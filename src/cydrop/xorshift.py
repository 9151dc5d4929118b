"""The public random number generator."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks, seeding, threads
from cydrop._base.arrays import Floats
from cydrop._core import xorshift as kernels

__all__ = ["Xorshift"]

Size = int | tuple[int, ...] | None


class Xorshift:
    """xorshift128+ in 16 lanes: a fast generator whose state changes in place with every draw.

    Threads may share one: each call draws all its words in one go, as with NumPy's generators, and no word comes twice.

    Each lane is Vigna's xorshift128+ with shifts 23, 18, 5 (Vigna 2017, "Further scramblings of Marsaglia's
    xorshift generators", arXiv 1404.0390). Word i of the output is draw i // 16 of lane i % 16. Not for
    cryptography.

    Parameters
    ----------
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        None takes fresh entropy. Drawing the seed advances a Generator.

    Raises
    ------
    TypeError, ValueError
        For a seed of another type, or a negative one.

    Examples
    --------
    >>> import cydrop as cd
    >>> rng = cd.Xorshift(0)
    >>> rng.bernoulli(0.5, 4).shape
    (4,)
    """

    def __init__(self, seed: seeding.Seed = None) -> None:
        self._lanes = kernels.Xorshift(seeding.words(seed, 32))
        self._lock = threads.ProcessLock()  # the lanes are drawn without the GIL

    def random_raw(self, size: Size = None) -> Any:
        """The next 64-bit words.

        Parameters
        ----------
        size : int, tuple of int or None
            The shape; None for a single int.

        Returns
        -------
        int or ndarray of uint64
        """
        out = _empty(size, np.uint64)
        with self._lock():
            self._lanes.random_raw(out.reshape(-1))
        return int(out[0]) if size is None else out

    def random(self, size: Size = None) -> Any:
        """Uniform float32 in [0, 1): the upper 24 bits of one word each, times 2^-24.

        Parameters
        ----------
        size : int, tuple of int or None

        Returns
        -------
        numpy.float32 or ndarray of float32
        """
        return self._filled(self._lanes.random, size)

    def bernoulli(self, p: float, size: Size = None) -> Any:
        """True with probability p, from the upper 32 bits of one word each: p is accurate to 2^-33.

        Parameters
        ----------
        p : float in [0, 1]
        size : int, tuple of int or None

        Returns
        -------
        bool or ndarray of bool
        """
        threshold = round(checks.rate("p", p) * 2**32)
        out = _empty(size, np.bool_)
        with self._lock():
            self._lanes.bernoulli(threshold, out.reshape(-1).view(np.uint8))
        return bool(out[0]) if size is None else out

    def normal(self, size: Size = None) -> Any:
        """Standard normal float32, by inversion of 52 bits of one word each (Wichura 1988, AS 241).

        Parameters
        ----------
        size : int, tuple of int or None

        Returns
        -------
        numpy.float32 or ndarray of float32
        """
        return self._filled(self._lanes.normal, size)

    def permutation(self, n: int) -> NDArray[np.int64]:
        """The numbers 0..n-1 in random order (Fisher-Yates, without bias).

        Parameters
        ----------
        n : int, below 2^32

        Returns
        -------
        ndarray of int64, shape (n,)
        """
        out = np.empty(checks.integer("n", n, 0, 2**32 - 1), dtype=np.int64)
        with self._lock():
            self._lanes.permutation(out)
        return out

    def jump(self) -> Xorshift:
        """Advances every lane by 2^64 draws, in place, and returns self: a stream that does not overlap."""
        with self._lock():
            self._lanes.jump()
        return self

    @property
    def state(self) -> dict[str, Any]:
        """The whole state: `{"generator", "s0", "s1", "position"}`; s0 and s1 are uint64 of shape (16,)."""
        words = np.empty(32, dtype=np.uint64)
        with self._lock():
            position = self._lanes.read_state(words)
        return {"generator": "xorshift128+ x16", "s0": words[:16], "s1": words[16:], "position": position}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict) or state.get("generator") != "xorshift128+ x16":
            raise ValueError("state must be a dict as .state gives it, with generator 'xorshift128+ x16'")
        lanes = [_words_of(state, half) for half in ("s0", "s1")]
        if not (lanes[0] | lanes[1]).all():
            raise ValueError("state must have no lane that is all zero, the fixed point of xorshift")
        position = checks.integer("state['position']", state.get("position"), 0, 15)
        with self._lock():
            self._lanes.write_state(np.concatenate(lanes), position)

    def _filled(self, fill: Callable[[Floats], None], size: Size) -> Any:
        """float32 of a shape, drawn by a method of the lanes."""
        out = _empty(size, np.float32)
        with self._lock():
            fill(out.reshape(-1))
        return out[0] if size is None else out

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_state, (self.state,)

    def __repr__(self) -> str:
        return f"<cydrop.Xorshift at {id(self):#x}>"


def _from_state(state: dict[str, Any]) -> Xorshift:
    generator = Xorshift(0)
    generator.state = state
    return generator


def _words_of(state: dict[str, Any], half: str) -> NDArray[np.uint64]:
    """s0 or s1 of a state: sixteen integers 0..2^64-1."""
    try:
        given = [int(operator.index(word)) for word in state[half]]
    except (KeyError, TypeError):
        given = []
    if len(given) != 16 or not all(0 <= word < 2**64 for word in given):
        raise ValueError(f"state[{half!r}] must be 16 integers 0..2^64-1, got {state.get(half)!r}")
    return np.array(given, dtype=np.uint64)


def _empty(size: Size, dtype: Any) -> NDArray[Any]:
    """An array of the shape `size`, of one element for None."""
    if size is None:
        return np.empty(1, dtype=dtype)
    lengths = size if isinstance(size, tuple | list) else (size,)
    shape = tuple(checks.integer("size", n, 0) for n in lengths)
    try:
        return np.empty(shape, dtype=dtype)
    except (ValueError, OverflowError) as error:  # more than any array can have; what memory lacks is a MemoryError
        raise ValueError(f"size={size!r} is no shape of an array: {error}") from None

"""Arrays and masks in the form that the kernels take: float32, C-contiguous, flat."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._core import dropout as kernels


def floats(name: str, value: ArrayLike) -> Floats:
    """Like checks.floats, but NaN and infinity pass: a stateless function shows them in its result."""
    given = checks.array(name, value)
    return np.ascontiguousarray(given, dtype=np.float32).reshape(given.shape)


def matrix(name: str, value: ArrayLike) -> Floats:
    """An array of two dimensions, which may be empty."""
    given = floats(name, value)
    if given.ndim != 2:
        raise ValueError(f"{name} must have shape (n, k), got {given.shape}")
    return given


def same_shape(dy: ArrayLike, x: ArrayLike) -> tuple[Floats, Floats]:
    """What a backward pass of elements takes."""
    dy, x = floats("dy", dy), floats("x", x)
    if dy.shape != x.shape:
        raise ValueError(f"dy and x must have the same shape, got {dy.shape} and {x.shape}")
    return dy, x


def as_bytes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask's own memory, an element a byte."""
    return mask.reshape(-1).view(np.uint8)


def drawn_mask(
    shape: tuple[int, ...], rate: float, seed: seeding.Seed, n_threads: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """A mask as bits and as booleans; rates 0 and 1 draw nothing and leave the seed as it is."""
    keep = np.empty(shape, dtype=np.bool_)
    bits = np.empty(kernels.words_of(keep.size), dtype=np.uint64)
    kernels.mask(bits, keep.size, rate, *(seeding.key(seed) if 0 < rate < 1 else (0, 0)), n_threads)
    kernels.unpack(bits, as_bytes(keep))
    return bits, keep


def packed(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """A mask as bits."""
    bits = np.zeros(kernels.words_of(mask.size), dtype=np.uint64)
    kernels.pack(as_bytes(mask), bits)
    return bits

"""Dropout, and the masks that it draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import seeding
from cydrop.reference._arrays import Array, real
from cydrop.reference.xorshift import BLOCK, LANES, block_lanes, xorshift_words

__all__ = ["drop_path", "drop_path_backward", "dropout", "dropout_backward", "keep_mask"]


def dropout(
    x: ArrayLike, rate: float = 0.5, *, mode: str = "inverted", training: bool = True, mask: ArrayLike | None = None,
    seed: Any = None, return_mask: bool = False, out: Array | None = None, n_threads: int = 1,
) -> Any:  # fmt: skip
    """Dropout forward: see `cydrop.functional.dropout`."""
    x = real(x)
    if not training:
        y, kept = x * x.dtype.type(1 - rate if mode == "vanilla" else 1), np.ones(x.shape, dtype=bool)
    else:
        kept = keep_mask(seeding.key(seed), x.size, rate).reshape(x.shape) if mask is None else np.asarray(mask, bool)
        y = np.where(kept, x * x.dtype.type(_scale(rate, mode)), x.dtype.type(0))
    if out is not None:
        out[...] = y
        y = out
    return (y, kept) if return_mask else y


def dropout_backward(dy: ArrayLike, mask: ArrayLike, rate: float, mode: str = "inverted") -> Array:
    """Dropout backward: see `cydrop.functional.dropout_backward`."""
    dy = real(dy)
    dx: Array = np.where(np.asarray(mask, bool), dy * dy.dtype.type(_scale(rate, mode)), dy.dtype.type(0))
    return dx


def drop_path(
    x: ArrayLike, rate: float, *, training: bool = True, mask: ArrayLike | None = None, seed: Any = None,
    return_mask: bool = False,
) -> Any:  # fmt: skip
    """Whole rows dropped: see `cydrop.functional.drop_path`."""
    x = real(x)
    kept = np.ones(len(x), dtype=bool)
    if training:
        kept = keep_mask(seeding.key(seed), len(x), rate) if mask is None else np.asarray(mask, bool)
    y = drop_path_backward(x, kept, rate) if training else x.copy()
    return (y, kept) if return_mask else y


def drop_path_backward(dy: ArrayLike, mask: ArrayLike, rate: float) -> Array:
    """dy / (1 - rate) in the rows that are kept, 0 in the others"""
    dy = real(dy)
    kept = np.asarray(mask, bool).reshape(-1, *[1] * (dy.ndim - 1))
    dx: Array = np.where(kept, dy * dy.dtype.type(_scale(rate, "inverted")), dy.dtype.type(0))
    return dx


def _scale(rate: float, mode: str) -> float:
    return 1.0 if mode == "vanilla" or rate >= 1 else 1.0 / (1.0 - rate)


def keep_mask(key: tuple[int, int], n: int, rate: float) -> NDArray[np.bool_]:
    """The mask of elements 0..n-1 of a stream: True keeps."""
    if rate <= 0 or rate >= 1:
        return np.full(n, rate < 1)
    threshold = min(int((1.0 - rate) * 2.0**32 + 0.5), 2**32 - 1)
    blocks = -(-n // BLOCK)
    bits = 8 if threshold % 2**24 == 0 else 16  # of a slice
    words = xorshift_words(*block_lanes(key, blocks), draws=BLOCK * bits // 64 // LANES)  # (draws, blocks, 16)
    slices = np.ascontiguousarray(words.transpose(1, 0, 2)).astype("<u8").view(f"<u{bits // 8}").reshape(blocks, BLOCK)
    top, low = threshold >> (32 - bits), threshold & 0xFFFF
    keep = slices < top
    if bits == 16:
        tie = slices == top
        other = (~key[0] % 2**64, ~key[1] % 2**64)
        deciders = xorshift_words(*block_lanes(other, blocks), draws=BLOCK // LANES)
        deciders = deciders.transpose(1, 0, 2).reshape(blocks, BLOCK) >> np.uint64(48)
        for block in range(blocks):
            places = np.flatnonzero(tie[block])
            keep[block, places] = deciders[block, : len(places)] < low
    result: NDArray[np.bool_] = keep.reshape(-1)[:n]
    return result

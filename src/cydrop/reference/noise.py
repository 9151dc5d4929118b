"""Noise: normal, as a summand or a factor, and alpha dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import seeding
from cydrop.reference._arrays import Array, real
from cydrop.reference.activations import SELU_ALPHA, SELU_SCALE
from cydrop.reference.dropout import keep_mask
from cydrop.reference.xorshift import BLOCK, LANES, block_lanes, xorshift_words

__all__ = [
    "alpha_affine", "alpha_dropout", "alpha_dropout_backward", "gaussian_dropout", "gaussian_noise", "normal_noise",
]  # fmt: skip


def gaussian_dropout(
    x: ArrayLike, rate: float = 0.5, *, training: bool = True, noise: ArrayLike | None = None, seed: Any = None,
    return_noise: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """x (1 + sqrt(rate / (1 - rate)) e), e standard normal; zeros at rate 1."""
    x = real(x)
    e = _noise(x, noise, seed)
    factor = 1 + math.sqrt(rate / (1 - rate)) * e if rate < 1 else np.zeros(x.shape)
    y = (x * factor if training and rate > 0 else x.copy()).astype(x.dtype)
    return (y, e) if return_noise else y


def gaussian_noise(
    x: ArrayLike, std: float = 0.1, *, training: bool = True, noise: ArrayLike | None = None, seed: Any = None,
    return_noise: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """x + std e, e standard normal."""
    x = real(x)
    e = _noise(x, noise, seed)
    y = (x + std * e if training else x.copy()).astype(x.dtype)
    return (y, e) if return_noise else y


def _noise(x: Array, noise: ArrayLike | None, seed: Any) -> Array:
    e = normal_noise(seeding.key(seed), x.size).reshape(x.shape) if noise is None else np.asarray(noise)
    return e.astype(x.dtype)


def normal_noise(key: tuple[int, int], n: int) -> NDArray[np.float64]:
    """Standard normal numbers 0..n-1 of a stream (Box and Muller 1958), in float64."""
    blocks = -(-n // BLOCK)
    words = xorshift_words(*block_lanes(key, blocks), draws=BLOCK // 2 // LANES)
    words = words.transpose(1, 0, 2)  # (blocks, draws, 16)
    radius = np.sqrt(-2.0 * np.log((words >> np.uint64(33)).astype(np.float32) * 2.0**-31 + 2.0**-32))
    angle = 2.0 * math.pi * 2.0**-32 * (words & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)  # 16 cosines, then 16 sines
    result: NDArray[np.float64] = pairs.reshape(-1)[:n]
    return result


def alpha_dropout(
    x: ArrayLike, rate: float = 0.1, *, training: bool = True, mask: ArrayLike | None = None, seed: Any = None,
    return_mask: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """a (x if kept else alpha') + b; zeros at rate 1."""
    x = real(x)
    kept = np.ones(x.shape, dtype=bool)
    y = x.copy()
    if training:
        kept = keep_mask(seeding.key(seed), x.size, rate).reshape(x.shape) if mask is None else np.asarray(mask, bool)
        if rate < 1:
            a, b, low = alpha_affine(rate)
            y = np.where(kept, a * x + b, a * low + b).astype(x.dtype)
        else:
            y = np.zeros_like(x)
    return (y, kept) if return_mask else y


def alpha_dropout_backward(dy: ArrayLike, mask: ArrayLike, rate: float, *, n_threads: int = 1) -> Array:
    """a dy where kept, else 0"""
    dy = real(dy)
    a = alpha_affine(rate)[0] if rate < 1 else 0.0
    dx: Array = np.where(np.asarray(mask, bool), dy * dy.dtype.type(a), dy.dtype.type(0))
    return dx


def alpha_affine(rate: float) -> tuple[float, float, float]:
    """(a, b, alpha') of alpha dropout."""
    low = -SELU_SCALE * SELU_ALPHA
    a = 1.0 / math.sqrt((1.0 - rate) * (1.0 + rate * low**2))
    return a, -a * rate * low, low

"""Noise: normal, as a summand or a factor, alpha dropout and concrete dropout."""

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
    "alpha_affine", "alpha_dropout", "alpha_dropout_backward", "concrete_dropout", "concrete_dropout_backward",
    "concrete_keep", "concrete_prior", "gaussian_dropout", "gaussian_noise", "normal_noise",
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
    words = _half_words(key, n)
    radius = np.sqrt(-2.0 * np.log((words >> np.uint64(33)).astype(np.float32) * 2.0**-31 + 2.0**-32))
    angle = 2.0 * math.pi * 2.0**-32 * (words & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)  # 16 cosines, then 16 sines
    result: NDArray[np.float64] = pairs.reshape(-1)[:n]
    return result


def _half_words(key: tuple[int, int], n: int) -> NDArray[np.uint64]:
    """The words of which two numbers each are made, (blocks, draws, 16)."""
    blocks = -(-n // BLOCK)
    words: NDArray[np.uint64] = xorshift_words(*block_lanes(key, blocks), draws=BLOCK // 2 // LANES)
    return words.transpose(1, 0, 2)


def concrete_dropout(
    x: ArrayLike, rate: float = 0.1, *, training: bool = True, keep: ArrayLike | None = None, seed: Any = None,
    return_keep: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """x keep / (1 - rate), keep = 1 - sigmoid(10 (logit rate + logit u))."""
    x = real(x)
    kept = concrete_keep(seeding.key(seed), x.size, rate).reshape(x.shape) if keep is None else np.asarray(keep)
    y = (x * kept / (1.0 - rate) if training else x.copy()).astype(x.dtype)
    return (y, kept.astype(x.dtype)) if return_keep else y


def concrete_dropout_backward(
    dy: ArrayLike, x: ArrayLike, keep: ArrayLike, rate: float, *, n_threads: int = 1
) -> tuple[Array, float]:
    """(dy keep / (1 - rate), sum dy y (rate - 10 (1 - keep)))"""
    dy, kept = real(dy), np.asarray(keep)
    dx: Array = (dy * kept / (1.0 - rate)).astype(dy.dtype)
    return dx, float(np.sum(dx * np.asarray(x) * (rate - 10.0 * (1.0 - kept)), dtype=np.float64))


def concrete_keep(key: tuple[int, int], n: int, rate: float) -> NDArray[np.float64]:
    """What is kept of elements 0..n-1 of a stream, in float64."""
    words = _half_words(key, n)
    bits = np.stack([words >> np.uint64(33), (words & np.uint64(0xFFFFFFFF)) >> np.uint64(1)], axis=2)  # 16, then 16
    u = (bits.reshape(-1)[:n] + 0.5) * 2.0**-31
    logit = math.log(rate / (1.0 - rate)) + np.log(u / (1.0 - u))
    result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(10.0 * logit))
    return result


def concrete_prior(
    logit: float, weight: ArrayLike, units: int, lengthscale: float
) -> tuple[float, float, NDArray[np.float64]]:
    """l^2 / 2 sum(W^2) / (1 - p) - units H(p), and its derivatives by logit p and W (Gal, Hron and Kendall 2017)."""
    w, square = np.asarray(weight, dtype=np.float64), lengthscale**2
    p, squares = 1.0 / (1.0 + math.exp(-logit)), float((np.asarray(weight, dtype=np.float64) ** 2).sum())
    entropy = -p * math.log(p) - (1.0 - p) * math.log(1.0 - p)
    value = square / 2.0 * squares / (1.0 - p) - units * entropy
    return value, square / 2.0 * squares * p / (1.0 - p) + units * logit * p * (1.0 - p), square * w / (1.0 - p)


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

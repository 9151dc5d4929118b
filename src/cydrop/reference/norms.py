"""Normalisation: y = weight (x - mean) / sqrt(variance + epsilon) + bias."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop.reference._arrays import Array, real

__all__ = ["batch_norm", "batch_norm_backward", "layer_norm", "layer_norm_backward"]


def layer_norm(x: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1) -> Array:
    """Mean and variance of each row."""
    return _normalised(real(x), 1, epsilon) * real(weight) + real(bias)


def layer_norm_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias"""
    return _norm_backward(real(dy), real(x), real(weight), 1, epsilon)


def batch_norm(x: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1) -> Array:
    """Mean and variance of each column, over the rows of the batch."""
    return _normalised(real(x), 0, epsilon) * real(weight) + real(bias)


def batch_norm_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias"""
    return _norm_backward(real(dy), real(x), real(weight), 0, epsilon)


def _normalised(x: Array, axis: int, epsilon: float) -> Array:
    y: Array = (x - x.mean(axis=axis, keepdims=True)) / np.sqrt(x.var(axis=axis, keepdims=True) + epsilon)
    return y


def _norm_backward(dy: Array, x: Array, weight: Array, axis: int, epsilon: float) -> tuple[Array, Array, Array]:
    xh = _normalised(x, axis, epsilon)
    h = dy * weight
    centred = h - h.mean(axis=axis, keepdims=True) - xh * (h * xh).mean(axis=axis, keepdims=True)
    dx: Array = centred / np.sqrt(x.var(axis=axis, keepdims=True) + epsilon)
    return dx, (dy * xh).sum(axis=0), dy.sum(axis=0)

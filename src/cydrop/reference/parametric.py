"""Maps with a learned number for every unit: y = weight x, and y = x + alpha (f(x) - x) for an activation f."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cydrop.reference import activations
from cydrop.reference._arrays import Array, real

__all__ = ["parametric", "parametric_backward", "scale", "scale_backward"]


def scale(x: ArrayLike, weight: ArrayLike, *, n_threads: int = 1) -> Array:
    """weight x"""
    x = real(x)
    y: Array = x * np.asarray(weight, x.dtype)
    return y


def scale_backward(dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, n_threads: int = 1) -> tuple[Array, Array]:
    """dx, dweight"""
    dy, x = real(dy), real(x)
    return dy * np.asarray(weight, dy.dtype), (dy * x).sum(axis=0)


def parametric(
    x: ArrayLike, alpha: ArrayLike, activation: str, option: float | None = None, *, n_threads: int = 1
) -> Array:
    """x + alpha (f(x) - x)"""
    x = real(x)
    y: Array = x + np.asarray(alpha, x.dtype) * (_function(activation, "", option, x) - x)
    return y


def parametric_backward(
    dy: ArrayLike, x: ArrayLike, alpha: ArrayLike, activation: str, option: float | None = None, *, n_threads: int = 1
) -> tuple[Array, Array]:
    """dx, dalpha"""
    dy, x = real(dy), real(x)
    dx: Array = dy + np.asarray(alpha, dy.dtype) * (_function(activation, "_backward", option, dy, x) - dy)
    return dx, (dy * (_function(activation, "", option, x) - x)).sum(axis=0)


def _function(activation: str, which: str, option: float | None, *arrays: Array) -> Any:
    return getattr(activations, f"{activation}{which}")(*arrays, *([] if option is None else [option]))

"""Activations: y = f(x), and dx = dy f'(x)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from cydrop.reference._arrays import Array, real

__all__ = [
    "SELU_ALPHA", "SELU_SCALE", "elu", "elu_backward", "gelu", "gelu_backward", "leaky_relu", "leaky_relu_backward",
    "mish", "mish_backward", "relu", "relu_backward", "selu", "selu_backward", "sigmoid", "sigmoid_backward", "silu",
    "silu_backward", "softplus", "softplus_backward", "tanh", "tanh_backward",
]  # fmt: skip

SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


def relu(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """0 where x <= 0, else x."""
    x = real(x)
    return np.where(x <= 0, x.dtype.type(0), x)


def relu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """0 where x <= 0, else dy."""
    dy = real(dy)
    return np.where(real(x) <= 0, dy.dtype.type(0), dy)


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01, *, n_threads: int = 1) -> Array:
    """negative_slope x where x <= 0, else x."""
    x = real(x)
    return np.where(x <= 0, x * x.dtype.type(negative_slope), x)


def leaky_relu_backward(dy: ArrayLike, x: ArrayLike, negative_slope: float = 0.01, *, n_threads: int = 1) -> Array:
    """negative_slope dy where x <= 0, else dy."""
    dy = real(dy)
    return np.where(real(x) <= 0, dy * dy.dtype.type(negative_slope), dy)


def elu(x: ArrayLike, alpha: float = 1.0, *, n_threads: int = 1) -> Array:
    """alpha (e^x - 1) where x <= 0, else x."""
    x = real(x)
    return np.where(x <= 0, alpha * np.expm1(np.minimum(x, 0)), x).astype(x.dtype)


def elu_backward(dy: ArrayLike, x: ArrayLike, alpha: float = 1.0, *, n_threads: int = 1) -> Array:
    """alpha e^x dy where x <= 0, else dy."""
    dy, x = real(dy), real(x)
    return (dy * np.where(x <= 0, alpha * np.exp(np.minimum(x, 0)), 1)).astype(dy.dtype)


def selu(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """1.0507 elu(x, 1.6733)"""
    x = real(x)
    return (SELU_SCALE * elu(x, SELU_ALPHA)).astype(x.dtype)


def selu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """1.0507 elu_backward(dy, x, 1.6733)"""
    dy = real(dy)
    return (SELU_SCALE * elu_backward(dy, x, SELU_ALPHA)).astype(dy.dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """x Phi(x), Phi the standard normal distribution function."""
    x = real(x)
    return (x * 0.5 * (1 + _erf(x / math.sqrt(2)))).astype(x.dtype) if x.size else x.copy()


def gelu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy (Phi(x) + x phi(x))"""
    dy, x = real(dy), real(x)
    if not x.size:
        return dy.copy()
    wide = x.astype(np.float64)
    slope = 0.5 * (1 + _erf(wide / math.sqrt(2))) + wide * np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    dx: Array = (dy * slope).astype(dy.dtype)
    return dx


def silu(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """x sigmoid(x)"""
    x = real(x)
    return x * sigmoid(x)


def silu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy s (1 + x (1 - s)), s = sigmoid(x)"""
    dy, x = real(dy), real(x)
    s = sigmoid(x)
    dx: Array = dy * s * (1 + x * (1 - s))
    return dx


def tanh(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(real(x))


def tanh_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy (1 - tanh(x)^2)"""
    dx: Array = real(dy) * (1 - np.tanh(real(x)) ** 2)
    return dx


def sigmoid(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """1 / (1 + e^-x)"""
    x = real(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def sigmoid_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy s (1 - s), s = sigmoid(x)"""
    s = sigmoid(x)
    dx: Array = real(dy) * s * (1 - s)
    return dx


def softplus(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """log(1 + e^x)"""
    x = real(x)
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy sigmoid(x)"""
    return real(dy) * sigmoid(x)


def mish(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """x tanh(softplus(x))"""
    x = real(x)
    y: Array = x * np.tanh(softplus(x))
    return y


def mish_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy (t + x (1 - t^2) sigmoid(x)), t = tanh(softplus(x))"""
    x = real(x)
    t = np.tanh(softplus(x))
    dx: Array = real(dy) * (t + x * (1 - t**2) * sigmoid(x))
    return dx

"""Activations, y = f(x), and their backward passes, dx = dy f'(x), element by element."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks, threads
from cydrop._base.arrays import Floats
from cydrop._core import activations as kernels
from cydrop.functional._arrays import floats, same_shape
from cydrop.functional._documentation import documented

__all__ = [
    "elu", "elu_backward", "gelu", "gelu_backward", "leaky_relu", "leaky_relu_backward", "mish", "mish_backward",
    "relu", "relu_backward", "selu", "selu_backward", "sigmoid", "sigmoid_backward", "silu", "silu_backward",
    "softplus", "softplus_backward", "tanh", "tanh_backward",
]  # fmt: skip

_documented_forward = documented("""
    Parameters
    ----------
    x : array-like of any shape
    n_threads : int

    Returns
    -------
    ndarray of float32
""")

_documented_backward = documented("""
    Parameters
    ----------
    dy, x : array-like of the same shape
    n_threads
        As for `relu`.

    Returns
    -------
    ndarray of float32
""")


def _forward(kind: str, x: ArrayLike, n_threads: int, option: float = 0.0) -> Floats:
    x = floats("x", x)
    y = np.empty(x.shape, dtype=np.float32)
    kernels.activation(kernels.KINDS[kind], option, x.reshape(-1), y.reshape(-1), threads.resolve(n_threads))
    return y


def _backward(kind: str, dy: ArrayLike, x: ArrayLike, n_threads: int, option: float = 0.0) -> Floats:
    given, x = same_shape(dy, x)
    dx = np.array(given)  # the kernel turns dy into dx where it lies
    kernels.activation_backward(kernels.KINDS[kind], option, x.reshape(-1), dx.reshape(-1), threads.resolve(n_threads))
    return dx


@_documented_forward
def relu(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """max(x, 0); NaN stays NaN."""
    return _forward("relu", x, n_threads)


@_documented_backward
def relu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = 0 where x <= 0, else dy; x is the input or the output of `relu`."""
    given, x = same_shape(dy, x)
    dx = np.empty(x.shape, dtype=np.float32)
    kernels.relu_backward(given.reshape(-1), x.reshape(-1), dx.reshape(-1), threads.resolve(n_threads))
    return dx


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01, *, n_threads: int = 1) -> Floats:
    """x where positive, negative_slope x elsewhere (Maas, Hannun and Ng 2013).

    Parameters
    ----------
    x : array-like of any shape
    negative_slope : float
        The slope below 0.
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _forward("leaky_relu", x, n_threads, checks.number("negative_slope", negative_slope, single=True))


def leaky_relu_backward(dy: ArrayLike, x: ArrayLike, negative_slope: float = 0.01, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `leaky_relu`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    negative_slope, n_threads
        As for `leaky_relu`.

    Returns
    -------
    ndarray of float32
    """
    return _backward("leaky_relu", dy, x, n_threads, checks.number("negative_slope", negative_slope, single=True))


def elu(x: ArrayLike, alpha: float = 1.0, *, n_threads: int = 1) -> Floats:
    """x where positive, alpha (e^x - 1) elsewhere (Clevert, Unterthiner and Hochreiter 2016).

    Parameters
    ----------
    x : array-like of any shape
    alpha : float
        Minus the value at minus infinity.
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _forward("elu", x, n_threads, checks.number("alpha", alpha, single=True))


def elu_backward(dy: ArrayLike, x: ArrayLike, alpha: float = 1.0, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `elu`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    alpha, n_threads
        As for `elu`.

    Returns
    -------
    ndarray of float32
    """
    return _backward("elu", dy, x, n_threads, checks.number("alpha", alpha, single=True))


@_documented_forward
def selu(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """1.0507 elu(x, 1.6733) (Klambauer et al. 2017)."""
    return _forward("selu", x, n_threads)


@_documented_backward
def selu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `selu`, x its input."""
    return _backward("selu", dy, x, n_threads)


@_documented_forward
def gelu(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """x Phi(x), with the exact normal distribution function (Hendrycks and Gimpel 2016)."""
    return _forward("gelu", x, n_threads)


@_documented_backward
def gelu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `gelu`, x its input."""
    return _backward("gelu", dy, x, n_threads)


@_documented_forward
def silu(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """x sigmoid(x), also called swish (Elfwing, Uchibe and Doya 2018)."""
    return _forward("silu", x, n_threads)


@_documented_backward
def silu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `silu`, x its input."""
    return _backward("silu", dy, x, n_threads)


@_documented_forward
def tanh(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """The hyperbolic tangent."""
    return _forward("tanh", x, n_threads)


@_documented_backward
def tanh_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `tanh`, x its input."""
    return _backward("tanh", dy, x, n_threads)


@_documented_forward
def sigmoid(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """1 / (1 + e^-x)."""
    return _forward("sigmoid", x, n_threads)


@_documented_backward
def sigmoid_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `sigmoid`, x its input."""
    return _backward("sigmoid", dy, x, n_threads)


@_documented_forward
def softplus(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """log(1 + e^x) (Dugas et al. 2001)."""
    return _forward("softplus", x, n_threads)


@_documented_backward
def softplus_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `softplus`, x its input."""
    return _backward("softplus", dy, x, n_threads)


@_documented_forward
def mish(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """x tanh(log(1 + e^x)) (Misra 2019)."""
    return _forward("mish", x, n_threads)


@_documented_backward
def mish_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `mish`, x its input."""
    return _backward("mish", dy, x, n_threads)

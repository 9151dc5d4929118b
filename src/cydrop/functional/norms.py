"""Normalisation: y = weight (x - mean) / sqrt(variance + epsilon) + bias."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks, threads
from cydrop._base.arrays import Floats
from cydrop._core import norms as kernels
from cydrop.functional._arrays import floats, matrix

__all__ = ["batch_norm", "batch_norm_backward", "layer_norm", "layer_norm_backward"]


def layer_norm(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1
) -> Floats:
    """Layer normalisation (Ba, Kiros and Hinton 2016): y = weight (x - mean) / sqrt(variance + epsilon) + bias, with
    the mean and the (biased) variance of each row.

    Parameters
    ----------
    x : array-like, shape (n, units)
    weight, bias : array-like, shape (units,)
    epsilon : float > 0
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, units)

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit and unusable arrays.
    """
    return _norm(False, x, weight, bias, epsilon, n_threads)[0]


def layer_norm_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1
) -> tuple[Floats, Floats, Floats]:
    """Layer normalisation backward.

    Parameters
    ----------
    dy : array-like, shape (n, units)
    x, weight, epsilon, n_threads
        As for `layer_norm`.

    Returns
    -------
    dx : ndarray of float32, shape (n, units)
    dweight, dbias : ndarrays of float32, shape (units,)
    """
    return _norm_backward(False, dy, x, weight, epsilon, n_threads)


def batch_norm(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1
) -> Floats:
    """Batch normalisation in training (Ioffe and Szegedy 2015): the mean and the (biased) variance of each column over
    the rows of the batch.

    Parameters
    ----------
    x, weight, bias, epsilon, n_threads
        As for `layer_norm`.

    Returns
    -------
    ndarray of float32, shape (n, units)
    """
    return _norm(True, x, weight, bias, epsilon, n_threads)[0]


def batch_norm_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1
) -> tuple[Floats, Floats, Floats]:
    """Batch normalisation backward, in training.

    Parameters
    ----------
    dy, x, weight, epsilon, n_threads
        As for `layer_norm_backward`.

    Returns
    -------
    dx : ndarray of float32, shape (n, units)
    dweight, dbias : ndarrays of float32, shape (units,)
    """
    return _norm_backward(True, dy, x, weight, epsilon, n_threads)


def _norm(
    batch: bool, x: ArrayLike, weight: ArrayLike, bias: ArrayLike, epsilon: float, n_threads: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """y, and what the backward pass needs: the checked x, means and 1 / deviations."""
    x = matrix("x", x)
    rows, units = x.shape
    weight, bias = floats("weight", weight), floats("bias", bias)
    if weight.shape != (units,) or bias.shape != (units,):
        raise ValueError(f"weight and bias must have shape {(units,)}, got {weight.shape} and {bias.shape}")
    epsilon = checks.number("epsilon", epsilon, 0.0, low_open=True, single=True)
    y = np.empty(x.shape, dtype=np.float32)
    mean, inverse = (np.empty(max(rows, units), dtype=np.float32) for _ in range(2))
    running_mean, running_variance = (np.zeros(units if batch else 0, dtype=np.float32) for _ in range(2))
    if x.size:
        kernels.forward(
            batch, epsilon, 0.0, x, weight, bias, y, mean, inverse, running_mean, running_variance, True,
            threads.resolve(n_threads),
        )  # fmt: skip
    return y, x, mean, inverse


def _norm_backward(
    batch: bool, dy: ArrayLike, x: ArrayLike, weight: ArrayLike, epsilon: float, n_threads: int
) -> tuple[Floats, Floats, Floats]:
    _, x, mean, inverse = _norm(batch, x, weight, np.zeros(np.shape(weight)), epsilon, n_threads)
    dx = np.array(matrix("dy", dy))  # the kernel turns dy into dx where it lies
    if dx.shape != x.shape:
        raise ValueError(f"dy and x must have the same shape, got {dx.shape} and {x.shape}")
    dweight, dbias = (np.zeros(x.shape[1], dtype=np.float32) for _ in range(2))
    if x.size:
        weight = floats("weight", weight)
        kernels.backward(batch, x, weight, mean, inverse, dx, dweight, dbias, threads.resolve(n_threads))
    return dx, dweight, dbias

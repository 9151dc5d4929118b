"""The fully connected layer, y = x weight + bias."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks, threads
from cydrop._base.arrays import Floats
from cydrop._core import dense as kernels
from cydrop.functional._arrays import floats

__all__ = ["dense", "dense_backward"]


def dense(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, precision: str = "float32", n_threads: int = 1
) -> Floats:
    """x weight + bias: each element one chain of fused multiply-adds over the inputs, in order (of float32).

    Parameters
    ----------
    x : array-like, shape (n, inputs)
    weight : array-like, shape (inputs, units)
    bias : array-like, shape (units,), or None
    precision : {"float32", "bfloat16"}
        What the factors are rounded to. With "bfloat16" products are added in the order of the 2nd, 1st, 4th, 3rd, ...
        input, as by the processors' instruction, and numbers below 2^-126 count as 0. Sums are float32 in both.
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, units)
    """
    bf16 = checks.precision(precision) == "bfloat16"
    x, weight = floats("x", x), floats("weight", weight)
    shift = np.empty(0, dtype=np.float32) if bias is None else floats("bias", bias)
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        raise ValueError(f"x (n, inputs) and weight (inputs, units) do not fit: shapes {x.shape} and {weight.shape}")
    if bias is not None and shift.shape != (weight.shape[1],):
        raise ValueError(f"bias must have shape ({weight.shape[1]},), got {shift.shape}")
    y = np.zeros((len(x), weight.shape[1]), dtype=np.float32)
    if y.size and x.size:
        kernels.forward(x, weight, shift, y, threads.resolve(n_threads), bf16)
    elif y.size and bias is not None:
        y += shift
    return y


def dense_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, precision: str = "float32", n_threads: int = 1
) -> tuple[Floats, Floats, Floats]:
    """The three gradients of `dense`.

    Parameters
    ----------
    dy : array-like, shape (n, units)
    x : array-like, shape (n, inputs)
    weight : array-like, shape (inputs, units)
    precision : {"float32", "bfloat16"}
        Of the two products' factors, as for `dense`.
    n_threads : int

    Returns
    -------
    dx : ndarray of float32, shape (n, inputs), dy weight^t
    dweight : ndarray of float32, shape (inputs, units), x^t dy
    dbias : ndarray of float32, shape (units,), the sum of the rows of dy
    """
    bf16 = checks.precision(precision) == "bfloat16"
    dy, x, weight = floats("dy", dy), floats("x", x), floats("weight", weight)
    matrices = dy.ndim == x.ndim == weight.ndim == 2
    if not matrices or weight.shape != (x.shape[1], dy.shape[1]) or len(dy) != len(x):
        raise ValueError(
            "dy (n, units), x (n, inputs) and weight (inputs, units) do not fit: shapes "
            f"{dy.shape}, {x.shape} and {weight.shape}"
        )
    dx, dweight = np.zeros(x.shape, dtype=np.float32), np.zeros(weight.shape, dtype=np.float32)
    dbias = np.zeros(weight.shape[1], dtype=np.float32)
    if dy.size and x.size:
        kernels.backward(dy, x, weight, dx, dweight, dbias, threads.resolve(n_threads), bf16)
    elif dy.size:
        dbias += dy.sum(axis=0)
    return dx, dweight, dbias

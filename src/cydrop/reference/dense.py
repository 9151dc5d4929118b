"""The fully connected layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks
from cydrop.reference._arrays import Array, real
from cydrop.reference._bfloat16 import product

__all__ = ["dense", "dense_backward"]


def dense(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, precision: str = "float32", n_threads: int = 1
) -> Array:
    """x weight + bias; with "bfloat16" the result is float32 whatever comes, with the bits of `functional.dense`"""
    y = _product(real(x), real(weight), precision)
    return y if bias is None else y + real(bias)


def dense_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, precision: str = "float32", n_threads: int = 1
) -> tuple[Array, Array, Array]:
    """dx = dy weight^t, dweight = x^t dy, dbias = sum of the rows of dy"""
    dy = real(dy)
    return _product(dy, real(weight).T, precision), _product(real(x).T, dy, precision), dy.sum(axis=0)


def _product(a: Array, b: Array, precision: str) -> Array:
    if checks.precision(precision) == "float32":
        return np.asarray(a @ b)
    return product(a.astype(np.float32), b.astype(np.float32))

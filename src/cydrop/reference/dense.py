"""The fully connected layer."""

from __future__ import annotations

from numpy.typing import ArrayLike

from cydrop.reference._arrays import Array, real

__all__ = ["dense", "dense_backward"]


def dense(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, n_threads: int = 1) -> Array:
    """x weight + bias"""
    y: Array = real(x) @ real(weight)
    return y if bias is None else y + real(bias)


def dense_backward(dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, n_threads: int = 1) -> tuple[Array, Array, Array]:
    """dx = dy weight^t, dweight = x^t dy, dbias = sum of the rows of dy"""
    dy = real(dy)
    return dy @ real(weight).T, real(x).T @ dy, dy.sum(axis=0)

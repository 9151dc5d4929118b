"""Products of bfloat16 as kernels and processors have them, to the bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]

TINY = 2.0**-126 * (1 - 2.0**-25)  # what is less is below 2^-126 also when it is rounded to 24 digits


def bfloat16(x: Singles) -> Singles:
    """The nearest number with 8 digits, ties to even; denormals are 0 of their sign."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    size = bits & 0x7FFFFFFF
    rounded = bits + np.uint32(0x7FFF) + (bits >> 16 & 1)
    rounded = np.where(size > 0x7F800000, bits | 0x400000, rounded)  # not a number: it stays one
    rounded = np.where(size < 0x00800000, bits & 0x80000000, rounded)
    return (rounded & 0xFFFF0000).astype(np.uint32).view(np.float32)


def multiply_add(x: Singles, y: Singles, c: Singles) -> Singles:
    """c + x y of factors in bfloat16: rounded once, since the product is exact in float64 and no sum of it and c has
    digits in the way of a second rounding; what is less than 2^-126 is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        exact = x.astype(np.float64) * y + c
        rounded = exact.astype(np.float32)
        return np.where(np.abs(exact) < TINY, rounded * np.float32(0), rounded)


def product(a: Singles, b: Singles) -> Singles:
    """a b: of each pair of neighbours along the depth first the second, then the first; an odd one is beside a 0."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != len(b):
        raise ValueError(f"matrices of shapes {a.shape} and {b.shape} cannot be multiplied")
    depth = a.shape[1]
    a = bfloat16(np.pad(a, ((0, 0), (0, depth % 2))))
    b = bfloat16(np.pad(b, ((0, depth % 2), (0, 0))))
    c = np.zeros((len(a), b.shape[1]), dtype=np.float32)
    for k in range(0, depth, 2):
        for one in (k + 1, k):
            c = multiply_add(a[:, one : one + 1], b[one : one + 1], c)
    return c

"""Fixed masks, which the rows of a batch take in turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop.reference._arrays import Array, real

__all__ = ["masksembles", "masksembles_backward"]


def masksembles(x: ArrayLike, masks: ArrayLike, first: int = 0) -> Array:
    """Row r times mask first + r modulo their number"""
    x = real(x)
    given = np.asarray(masks, x.dtype)
    y: Array = x * given[(first + np.arange(len(x))) % len(given)]
    return y


def masksembles_backward(dy: ArrayLike, masks: ArrayLike, first: int = 0) -> Array:
    """The same of dy"""
    return masksembles(dy, masks, first)

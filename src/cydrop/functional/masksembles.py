"""Fixed masks, which the rows of a batch take in turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop.functional._arrays import floats, matrix

__all__ = ["masksembles", "masksembles_backward"]


def masksembles(x: ArrayLike, masks: ArrayLike, first: int = 0) -> Floats:
    """Every row times a mask, row r that of number first + r modulo n_masks (Durasov et al. 2021).

    Parameters
    ----------
    x : array-like, shape (n, units)
    masks : array-like, shape (n_masks, units)
        0 and 1, or boolean; True keeps.
    first : int >= 0
        The mask of the first row, modulo n_masks. In a network the number of the training step.

    Returns
    -------
    ndarray of float32, shape (n, units)

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit and unusable arrays.
    """
    return _masked("x", x, masks, first)


def masksembles_backward(dy: ArrayLike, masks: ArrayLike, first: int = 0) -> Floats:
    """The backward pass of `masksembles`: the same masks on d loss / d y.

    Parameters
    ----------
    dy : array-like, shape (n, units)
    masks, first
        As for `masksembles`.

    Returns
    -------
    ndarray of float32, shape (n, units)

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit and unusable arrays.
    """
    return _masked("dy", dy, masks, first)


def _masked(name: str, value: ArrayLike, masks: ArrayLike, first: int) -> Floats:
    rows, given = matrix(name, value), floats("masks", masks)
    if given.ndim != 2 or not len(given) or given.shape[1] != rows.shape[1]:
        raise ValueError(f"masks must have shape (n_masks, {rows.shape[1]}) with at least one mask, got {given.shape}")
    begin, found = checks.integer("first", first, 0) % len(given), np.empty(rows.shape, dtype=np.float32)
    for place, mask in enumerate(np.roll(given, -begin, axis=0)):
        np.multiply(rows[place :: len(given)], mask, out=found[place :: len(given)])
    return found

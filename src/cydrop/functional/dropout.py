"""Dropout, inverted or vanilla, and its backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks, seeding, threads
from cydrop._base.arrays import Floats
from cydrop._core import dropout as kernels
from cydrop.functional._arrays import as_bytes, drawn_mask, floats

__all__ = ["drop_path", "drop_path_backward", "dropout", "dropout_backward"]


def dropout(
    x: ArrayLike, rate: float = 0.5, *, mode: str = "inverted", training: bool = True, mask: ArrayLike | None = None,
    seed: seeding.Seed = None, return_mask: bool = False, out: NDArray[np.float32] | None = None, n_threads: int = 1,
) -> Any:  # fmt: skip
    """Dropout forward (Srivastava et al. 2014).

    Parameters
    ----------
    x : array-like of any shape
    rate : float in [0, 1]
        Probability of *dropping*. 0 is the identity, 1 gives zeros; neither draws.
    mode : "inverted" or "vanilla"
        inverted: y = x mask / (1 - rate) in training, y = x otherwise.
        vanilla: y = x mask in training, y = x (1 - rate) otherwise.
    training : bool
    mask : boolean array of the shape of x, or None
        True keeps; None draws one.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Seed of the mask, which is a function of seed, rate and position alone.
    return_mask : bool
    out : float32 C-contiguous array of the shape of x, or None
        Where the result goes; may be x itself, but must not overlap it otherwise.
    n_threads : int

    Returns
    -------
    y : ndarray of float32
    mask : ndarray of bool
        With return_mask=True only.

    Raises
    ------
    ValueError, TypeError
        For a rate outside [0, 1], an unknown mode, a mask or out of another shape, and unusable arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from cydrop.functional import dropout, dropout_backward
    >>> y, mask = dropout(np.ones((2, 3)), 0.5, seed=0, return_mask=True)
    >>> dx = dropout_backward(np.ones((2, 3)), mask, 0.5)
    >>> bool((dx == y).all())
    True
    """
    rate = checks.rate("rate", rate)
    vanilla = _is_vanilla(mode)
    count = threads.resolve(n_threads)
    x = floats("x", x)
    keep = None if mask is None else checks.mask("mask", mask, x.shape)
    out = _result(out, x=x, mask=keep)
    flat, flat_out = x.reshape(-1), out.reshape(-1)
    if not training:
        np.multiply(x, np.float32(1.0 - rate if vanilla else 1.0), out=out)
        keep = np.ones(x.shape, dtype=np.bool_)
    elif keep is not None:
        kernels.apply_booleans(flat, as_bytes(keep), flat_out, _scale(rate, vanilla), count)
    elif 0 < rate < 1 and not return_mask:
        kernels.dropout(flat, flat_out, rate, _scale(rate, vanilla), *seeding.key(seed), count)
    else:
        bits, keep = drawn_mask(x.shape, rate, seed, count)
        kernels.apply_mask(flat, bits, flat_out, _scale(rate, vanilla), count)
    return (out, keep) if return_mask else out


def dropout_backward(
    dy: ArrayLike, mask: ArrayLike, rate: float, mode: str = "inverted", *, out: NDArray[np.float32] | None = None,
    n_threads: int = 1,
) -> Floats:  # fmt: skip
    """Dropout backward: dx = dy mask / (1 - rate), in "vanilla" mode dx = dy mask.

    Parameters
    ----------
    dy : array-like
    mask : boolean array of the shape of dy
        The one that `dropout(..., return_mask=True)` returned.
    rate : float in [0, 1]
    mode : "inverted" or "vanilla"
    out : float32 C-contiguous array of the shape of dy, or None
        Where the result goes; may be dy itself, but must not overlap it otherwise.
    n_threads : int

    Returns
    -------
    ndarray of float32

    Raises
    ------
    ValueError, TypeError
        For a rate outside [0, 1], an unknown mode, a mask or out of another shape, and unusable arrays.
    """
    rate = checks.rate("rate", rate)
    vanilla = _is_vanilla(mode)
    count = threads.resolve(n_threads)
    dy = floats("dy", dy)
    keep = checks.mask("mask", mask, dy.shape)
    out = _result(out, dy=dy, mask=keep)
    kernels.apply_booleans(dy.reshape(-1), as_bytes(keep), out.reshape(-1), _scale(rate, vanilla), count)
    return out


def drop_path(
    x: ArrayLike, rate: float, *, training: bool = True, mask: ArrayLike | None = None, seed: seeding.Seed = None,
    return_mask: bool = False,
) -> Any:  # fmt: skip
    """Drops whole rows: stochastic depth (Huang et al. 2016), for what a block adds to its input.

    Parameters
    ----------
    x : array-like, shape (n, ...)
    rate : float in [0, 1]
        Probability of dropping a row. What is kept is divided by 1 - rate.
    training : bool
        False is the identity.
    mask : boolean array, shape (n,), or None
        True keeps; None draws one.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Seed of the mask, which is a function of seed, rate and position alone.
    return_mask : bool

    Returns
    -------
    y : ndarray of float32
    mask : ndarray of bool, shape (n,)
        With return_mask=True only.

    Raises
    ------
    ValueError, TypeError
        For a rate outside [0, 1], a mask of another shape, and unusable arrays.
    """
    rate, x = checks.rate("rate", rate), _rows("x", x)
    keep = np.ones(len(x), dtype=np.bool_) if mask is None else checks.mask("mask", mask, x.shape[:1])
    if training and mask is None:
        _, keep = drawn_mask(x.shape[:1], rate, seed, 1)
    y = _rows_kept(x, keep, rate) if training else x.copy()
    return (y, keep) if return_mask else y


def drop_path_backward(dy: ArrayLike, mask: ArrayLike, rate: float) -> Floats:
    """The backward pass of `drop_path`.

    Parameters
    ----------
    dy : array-like, shape (n, ...)
    mask : boolean array, shape (n,)
        The one that `drop_path(..., return_mask=True)` returned.
    rate : float in [0, 1]

    Returns
    -------
    ndarray of float32
    """
    rate, dy = checks.rate("rate", rate), _rows("dy", dy)
    return _rows_kept(dy, checks.mask("mask", mask, dy.shape[:1]), rate)


def _rows(name: str, value: ArrayLike) -> Floats:
    given = floats(name, value)
    if given.ndim == 0:
        raise ValueError(f"{name} must have rows, got a scalar")
    return given


def _rows_kept(x: Floats, keep: NDArray[np.bool_], rate: float) -> Floats:
    y = np.zeros(x.shape, dtype=np.float32)
    y[keep] = x[keep] * np.float32(_scale(rate, False))
    return y


def _result(out: Any, **inputs: NDArray[Any] | None) -> Floats:
    """`out`, or a new array where it is None, of the shape of the first input, which may be `out` itself."""
    (first, given), *_ = inputs.items()
    assert given is not None
    if out is None:
        return np.empty(given.shape, dtype=np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != given.shape or not (
        out.flags.c_contiguous and out.flags.writeable
    ):  # fmt: skip
        raise ValueError(f"out must be a writeable C-contiguous float32 array of shape {given.shape}")
    for name, array in inputs.items():
        # all are contiguous: sharing bounds is sharing memory
        itself = name == first and array is not None and array.ctypes.data == out.ctypes.data
        if array is not None and not itself and np.may_share_memory(out, array):
            raise ValueError(
                f"out shares memory with {name}, which it would overwrite while it is read; out may be {first} itself, "
                "or memory of its own"
            )
    return out


def _is_vanilla(mode: Any) -> bool:
    return checks.choice("mode", mode, {"inverted": False, "vanilla": True})


def _scale(rate: float, vanilla: bool) -> float:
    return 1.0 if vanilla or rate >= 1 else 1.0 / (1.0 - rate)

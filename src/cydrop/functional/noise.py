"""Noise: normal, as a summand or a factor, alpha dropout and concrete dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks, seeding, threads
from cydrop._base.arrays import Floats
from cydrop._core import noise as kernels
from cydrop.functional._arrays import drawn_mask, floats, packed

BLOCK = 4096  # elements of a sum

__all__ = [
    "alpha_dropout", "alpha_dropout_backward", "concrete_dropout", "concrete_dropout_backward", "gaussian_dropout",
    "gaussian_noise",
]  # fmt: skip


def gaussian_dropout(
    x: ArrayLike, rate: float = 0.5, *, training: bool = True, noise: ArrayLike | None = None,
    seed: seeding.Seed = None, return_noise: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """Gaussian dropout, y = x (1 + sqrt(rate / (1 - rate)) e) (Srivastava et al. 2014, section 10). Its backward pass
    is itself, with the noise that was returned.

    Parameters
    ----------
    x : array-like of any shape
    rate : float in [0, 1]
        0 is the identity, 1 gives zeros.
    training : bool
        False is the identity.
    noise : array-like of the shape of x, or None
        e, standard normal; None draws it.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Seed of the noise.
    return_noise : bool
    n_threads : int

    Returns
    -------
    y : ndarray of float32
    noise : ndarray of float32
        With return_noise=True only.

    Raises
    ------
    ValueError, TypeError
        For a rate outside [0, 1], noise of another shape, and unusable arrays.
    """
    rate = checks.rate("rate", rate)
    deviation = math.sqrt(rate / (1 - rate)) if rate < 1 else math.inf
    return _noisy("multiply", x, deviation, training, noise, seed, return_noise, n_threads)


def gaussian_noise(
    x: ArrayLike, std: float = 0.1, *, training: bool = True, noise: ArrayLike | None = None,
    seed: seeding.Seed = None, return_noise: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """Gaussian noise, y = x + std e (Bishop 1995). Its backward pass is the identity.

    Parameters
    ----------
    x : array-like of any shape
    std : float >= 0
        Standard deviation, in the units of x. 0 is the identity.
    training, noise, seed, return_noise, n_threads
        As for `gaussian_dropout`.

    Returns
    -------
    y : ndarray of float32
    noise : ndarray of float32
        With return_noise=True only.

    Raises
    ------
    ValueError, TypeError
        For a negative std, noise of another shape, and unusable arrays.
    """
    std = checks.number("std", std, 0.0, single=True)
    return _noisy("add", x, std, training, noise, seed, return_noise, n_threads)


def _noisy(
    variant: str, x: ArrayLike, deviation: float, training: bool, noise: ArrayLike | None, seed: seeding.Seed,
    return_noise: bool, n_threads: int,
) -> Any:  # fmt: skip
    count = threads.resolve(n_threads)
    x = floats("x", x)
    used = training and 0 < deviation < math.inf
    if noise is None:
        e = np.empty(x.shape, dtype=np.float32)
        if used or return_noise:
            kernels.normals(e.reshape(-1), *seeding.key(seed), count)
    else:
        e = floats("noise", noise)
        if e.shape != x.shape:
            raise ValueError(f"noise must have the shape of x, {x.shape}, got {e.shape}")
    y = np.zeros(x.shape, dtype=np.float32)
    if not training or deviation == 0:
        y[...] = x
    elif used:
        kernels.normal_noise(kernels.KINDS[variant], x.reshape(-1), e.reshape(-1), y.reshape(-1), deviation, count)
    return (y, e) if return_noise else y


def alpha_dropout(
    x: ArrayLike, rate: float = 0.1, *, training: bool = True, mask: ArrayLike | None = None,
    seed: seeding.Seed = None, return_mask: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """Alpha dropout for SELU networks (Klambauer et al. 2017): y = a (x if kept else -1.7581) + b, with a and b such
    that inputs of mean 0 and variance 1 keep both.

    Parameters
    ----------
    x, rate, mask, seed, return_mask, n_threads
        As for `dropout`.
    training : bool
        False is the identity.

    Returns
    -------
    y : ndarray of float32
    mask : ndarray of bool
        With return_mask=True only.
    """
    rate = checks.rate("rate", rate)
    count = threads.resolve(n_threads)
    x = floats("x", x)
    keep = np.ones(x.shape, dtype=np.bool_) if mask is None else checks.mask("mask", mask, x.shape)
    y = x.copy()
    if training and (rate > 0 or mask is not None):
        if mask is None:
            bits, keep = drawn_mask(x.shape, rate, seed, count)
        else:
            bits = packed(keep)
        kernels.alpha_dropout(x.reshape(-1), bits, y.reshape(-1), rate, False, count)
    return (y, keep) if return_mask else y


def alpha_dropout_backward(dy: ArrayLike, mask: ArrayLike, rate: float, *, n_threads: int = 1) -> Floats:
    """Alpha dropout backward: dx = a dy where the mask keeps, else 0.

    Parameters
    ----------
    dy, mask, rate, n_threads
        As for `dropout_backward`.

    Returns
    -------
    ndarray of float32
    """
    rate = checks.rate("rate", rate)
    dy = floats("dy", dy)
    keep = checks.mask("mask", mask, dy.shape)
    dx = np.empty(dy.shape, dtype=np.float32)
    kernels.alpha_dropout(dy.reshape(-1), packed(keep), dx.reshape(-1), rate, True, threads.resolve(n_threads))
    return dx


def concrete_dropout(
    x: ArrayLike, rate: float = 0.1, *, training: bool = True, keep: ArrayLike | None = None,
    seed: seeding.Seed = None, return_keep: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """Concrete dropout, whose mask has a derivative by the rate (Gal, Hron and Kendall 2017): y = x keep / (1 - rate)
    with keep = 1 - sigmoid((logit rate + logit u) / 0.1), u uniform in (0, 1).

    Parameters
    ----------
    x : array-like of any shape
    rate : float in (0, 1)
    training : bool
        False is the identity.
    keep : array-like of the shape of x, or None
        What is kept of each element, in [0, 1]; None draws it.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Seed of what is drawn.
    return_keep : bool
    n_threads : int

    Returns
    -------
    y : ndarray of float32
    keep : ndarray of float32
        With return_keep=True only.

    Raises
    ------
    ValueError, TypeError
        For a rate outside (0, 1), a `keep` of another shape, and unusable arrays.
    """
    odds, count = _odds(rate), threads.resolve(n_threads)
    x = floats("x", x)
    if keep is None:
        kept = np.empty(x.shape, dtype=np.float32)
        if training or return_keep:
            kernels.keeps(kept.reshape(-1), odds, *seeding.key(seed), count)
    else:
        kept = _like("keep", keep, x)
    y = x.copy()
    if training:
        kernels.concrete_dropout(x.reshape(-1), kept.reshape(-1), y.reshape(-1), odds, count)
    return (y, kept) if return_keep else y


def concrete_dropout_backward(
    dy: ArrayLike, x: ArrayLike, keep: ArrayLike, rate: float, *, n_threads: int = 1
) -> tuple[Floats, float]:
    """Concrete dropout backward: dx = dy keep / (1 - rate), and the derivative by log(rate / (1 - rate)), the sum over
    all elements of dy y (rate - 10 (1 - keep)).

    Parameters
    ----------
    dy : array-like
        d loss / d y.
    x : array-like of the shape of dy
        The input of the forward pass.
    keep : array-like of the shape of dy
        As `concrete_dropout` returned it.
    rate, n_threads
        As for `concrete_dropout`.

    Returns
    -------
    dx : ndarray of float32
    dlogit : float
    """
    odds, dx = _odds(rate), floats("dy", dy).copy()
    x, kept = _like("x", x, dx), _like("keep", keep, dx)
    sums = np.zeros(-(-dx.size // BLOCK))
    kernels.concrete_dropout_backward(
        x.reshape(-1), kept.reshape(-1), dx.reshape(-1), sums, odds, threads.resolve(n_threads)
    )
    return dx, float(np.cumsum(sums)[-1]) if dx.size else 0.0


def _odds(rate: float) -> float:
    rate = checks.number("rate", rate, 0.0, 1.0, low_open=True, high_open=True, single=True)
    return rate / (1.0 - rate)


def _like(name: str, given: ArrayLike, x: Floats) -> Floats:
    array = floats(name, given)
    if array.shape != x.shape:
        raise ValueError(f"{name} must have the shape {x.shape}, got {array.shape}")
    return array

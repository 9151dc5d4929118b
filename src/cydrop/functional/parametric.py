"""Maps with a learned number for every unit: y = weight x, and y = x + alpha (f(x) - x) for an activation f."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks, threads
from cydrop._base.arrays import Floats
from cydrop._core import activations as kernels
from cydrop.functional._arrays import floats, matrix, same_shape

__all__ = ["parametric", "parametric_backward", "scale", "scale_backward"]

_OPTIONS = {"leaky_relu": 0.01, "elu": 1.0}  # activations that take a number


def scale(x: ArrayLike, weight: ArrayLike, *, n_threads: int = 1) -> Floats:
    """y = weight x, a factor for every column.

    Parameters
    ----------
    x : array-like, shape (n, units)
    weight : array-like, shape (units,)
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, units)

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit and unusable arrays.
    """
    return _forward("scale", x, "weight", weight, 0.0, n_threads)


def scale_backward(dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, n_threads: int = 1) -> tuple[Floats, Floats]:
    """The backward pass of `scale`.

    Parameters
    ----------
    dy : array-like, shape (n, units)
    x, weight, n_threads
        As for `scale`.

    Returns
    -------
    dx : ndarray of float32, shape (n, units)
    dweight : ndarray of float32, shape (units,)
    """
    return _backward("scale", dy, x, "weight", weight, 0.0, n_threads)


def parametric(
    x: ArrayLike, alpha: ArrayLike, activation: str, option: float | None = None, *, n_threads: int = 1
) -> Floats:
    """y = x + alpha (f(x) - x), between the identity and an activation f (Holzmüller, Grinsztajn and Steinwart 2024).

    Parameters
    ----------
    x : array-like, shape (n, units)
    alpha : array-like, shape (units,)
        0 is the identity, 1 the activation.
    activation : str
        f, by the name of its function, as "mish".
    option : float or None
        The number that "leaky_relu" (negative_slope) and "elu" (alpha) take; None: its default.
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, units)

    Raises
    ------
    ValueError, TypeError
        For an unknown activation, shapes that do not fit and unusable arrays.
    """
    return _forward(activation, x, "alpha", alpha, _checked_option(activation, option), n_threads)


def parametric_backward(
    dy: ArrayLike, x: ArrayLike, alpha: ArrayLike, activation: str, option: float | None = None, *, n_threads: int = 1
) -> tuple[Floats, Floats]:
    """The backward pass of `parametric`.

    Parameters
    ----------
    dy : array-like, shape (n, units)
    x, alpha, activation, option, n_threads
        As for `parametric`.

    Returns
    -------
    dx : ndarray of float32, shape (n, units)
    dalpha : ndarray of float32, shape (units,)
    """
    return _backward(activation, dy, x, "alpha", alpha, _checked_option(activation, option), n_threads)


def _checked_option(activation: str, option: float | None) -> float:
    checks.one_of("activation", activation, tuple(name for name in kernels.KINDS if name != "identity"))
    if option is None:
        return _OPTIONS.get(activation, 0.0)
    if activation not in _OPTIONS:
        raise ValueError(f"option must be None for activation={activation!r}, got {option!r}")
    return checks.number("option", option, single=True)


def _checked(x: ArrayLike, name: str, weight: ArrayLike) -> tuple[Floats, Floats]:
    x, weight = matrix("x", x), floats(name, weight)
    if weight.shape != x.shape[1:]:
        raise ValueError(f"{name} must have shape {x.shape[1:]}, got {weight.shape}")
    return x, weight


def _forward(kind: str, x: ArrayLike, name: str, weight: ArrayLike, option: float, n_threads: int) -> Floats:
    x, weight = _checked(x, name, weight)
    count = threads.resolve(n_threads)
    y = np.empty(x.shape, dtype=np.float32)
    if x.size:
        kernels.parametric(kernels.PARAMETRIC_KINDS[kind], option, x, weight, y, count)
    return y


def _backward(
    kind: str, dy: ArrayLike, x: ArrayLike, name: str, weight: ArrayLike, option: float, n_threads: int
) -> tuple[Floats, Floats]:
    x, weight = _checked(x, name, weight)
    count = threads.resolve(n_threads)
    given, x = same_shape(dy, x)
    dx = np.array(given)  # the kernel turns dy into dx where it lies
    gradient = np.zeros(x.shape[1], dtype=np.float32)
    if x.size:
        sums = np.empty(x.shape, dtype=np.float32)  # room enough: a row for several rows of x
        kernels.parametric_backward(kernels.PARAMETRIC_KINDS[kind], option, x, weight, dx, sums, gradient, count)
    return dx, gradient

"""The kernels as stateless functions: arrays in, arrays out.

Inputs are whatever `numpy.asarray` takes and are never written to (`out=` of `dropout` aside); results are
C-contiguous float32 of the input's shape. Each function's twin in plain NumPy, under the same name and signature, is
in `cydrop.reference`. By default they run on one thread: alternating threaded kernels with NumPy's own threaded
products can be many times slower than either alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import losses
from cydrop._base import checks, seeding, threads
from cydrop._base.arrays import Floats
from cydrop._core import activations as _activations
from cydrop._core import dense as _dense
from cydrop._core import dropout as _dropout
from cydrop._core import losses as _losses
from cydrop._core import noise as _noise
from cydrop._core import norms as _norms
from cydrop._core import relu as _relu
from cydrop._core.engine import ACTIVATIONS as CODES
from cydrop._run.rows import NO_MATRIX, checked_rows

# Dropout -----------------------------------------------------------------------------------------------------


def dropout(
    x: ArrayLike,
    rate: float = 0.5,
    *,
    mode: str = "inverted",
    training: bool = True,
    mask: ArrayLike | None = None,
    seed: seeding.Seed = None,
    return_mask: bool = False,
    out: NDArray[np.float32] | None = None,
    n_threads: int = 1,
) -> Any:
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
        Of the drawn mask. The mask is a function of seed, rate and position alone.
    return_mask : bool
    out : float32 C-contiguous array of the shape of x, or None
        Where the result goes; may be x itself, but not overlap it otherwise.
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
    given = _floats("x", x)
    keep = None if mask is None else checks.mask("mask", mask, given.shape)
    out = _result(out, x=given, mask=keep)
    flat, flat_out = given.reshape(-1), out.reshape(-1)
    if not training:
        np.multiply(given, np.float32(1.0 - rate if vanilla else 1.0), out=out)
        keep = np.ones(given.shape, dtype=np.bool_)
    elif keep is None and 0 < rate < 1 and not return_mask:
        _dropout.dropout(flat, flat_out, rate, _scale(rate, vanilla), *seeding.key(seed), count)
    elif keep is None:
        bits = np.empty(_dropout.words_of(flat.size), dtype=np.uint64)
        _dropout.mask(bits, flat.size, rate, *(seeding.key(seed) if 0 < rate < 1 else (0, 0)), count)
        keep = np.empty(given.shape, dtype=np.bool_)
        _dropout.unpack(bits, keep.reshape(-1).view(np.uint8))
        _dropout.apply_mask(flat, bits, flat_out, _scale(rate, vanilla), count)
    else:
        _dropout.apply_booleans(flat, keep.reshape(-1).view(np.uint8), flat_out, _scale(rate, vanilla), count)
    return (out, keep) if return_mask else out


def dropout_backward(
    dy: ArrayLike,
    mask: ArrayLike,
    rate: float,
    mode: str = "inverted",
    *,
    out: NDArray[np.float32] | None = None,
    n_threads: int = 1,
) -> Floats:
    """Dropout backward: dx = dy mask / (1 - rate), in "vanilla" mode dx = dy mask.

    Parameters
    ----------
    dy : array-like
    mask : boolean array of the shape of dy
        The one that `dropout(..., return_mask=True)` returned.
    rate : float in [0, 1]
    mode : "inverted" or "vanilla"
    out : float32 C-contiguous array of the shape of dy, or None
        Where the result goes; may be dy itself, but not overlap it otherwise.
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
    slope = _floats("dy", dy)
    keep = checks.mask("mask", mask, slope.shape)
    out = _result(out, dy=slope, mask=keep)
    _dropout.apply_booleans(
        slope.reshape(-1), keep.reshape(-1).view(np.uint8), out.reshape(-1), _scale(rate, vanilla), count
    )
    return out


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
        Of the drawn noise.
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
    return _noisy(x, deviation, True, training, noise, seed, return_noise, n_threads)


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
    return _noisy(x, std, False, training, noise, seed, return_noise, n_threads)


def _noisy(
    x: ArrayLike, deviation: float, multiplicative: bool, training: bool, noise: ArrayLike | None, seed: seeding.Seed,
    return_noise: bool, n_threads: int,
) -> Any:  # fmt: skip
    count = threads.resolve(n_threads)
    given = _floats("x", x)
    used = training and 0 < deviation < math.inf
    if noise is None:
        e = np.empty(given.shape, dtype=np.float32)
        if used or return_noise:
            _noise.normals(e.reshape(-1), *seeding.key(seed), count)
    else:
        e = _floats("noise", noise)
        if e.shape != given.shape:
            raise ValueError(f"noise must have the shape of x, {given.shape}, got {e.shape}")
    y = np.zeros(given.shape, dtype=np.float32)
    if not training or deviation == 0:
        y[...] = given
    elif used:
        _noise.gaussian(given.reshape(-1), e.reshape(-1), y.reshape(-1), deviation, multiplicative, count)
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
    given = _floats("x", x)
    keep = np.ones(given.shape, dtype=np.bool_) if mask is None else checks.mask("mask", mask, given.shape)
    y = given.copy()
    if training and (rate > 0 or mask is not None):
        bits = np.zeros(_dropout.words_of(given.size), dtype=np.uint64)
        if mask is None:
            _dropout.mask(bits, given.size, rate, *(seeding.key(seed) if rate < 1 else (0, 0)), count)
            _dropout.unpack(bits, keep.reshape(-1).view(np.uint8))
        else:
            _dropout.pack(keep.reshape(-1).view(np.uint8), bits)
        _noise.alpha_dropout(given.reshape(-1), bits, y.reshape(-1), rate, False, count)
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
    slope = _floats("dy", dy)
    keep = checks.mask("mask", mask, slope.shape)
    bits = np.zeros(_dropout.words_of(slope.size), dtype=np.uint64)
    _dropout.pack(keep.reshape(-1).view(np.uint8), bits)
    dx = np.empty(slope.shape, dtype=np.float32)
    _noise.alpha_dropout(slope.reshape(-1), bits, dx.reshape(-1), rate, True, threads.resolve(n_threads))
    return dx


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


def _floats(name: str, value: ArrayLike) -> Floats:
    """Like checks.floats, but NaN and infinity pass: a stateless function shows them in its result."""
    given = checks.array(name, value)
    return np.ascontiguousarray(given, dtype=np.float32).reshape(given.shape)


# Normalisation -----------------------------------------------------------------------------------------------


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
    given = _two_dimensional("x", x)
    rows, units = given.shape
    scale, shift = _floats("weight", weight), _floats("bias", bias)
    if scale.shape != (units,) or shift.shape != (units,):
        raise ValueError(f"weight and bias must have shape {(units,)}, got {scale.shape} and {shift.shape}")
    epsilon = checks.number("epsilon", epsilon, 0.0, low_open=True, single=True)
    y = np.empty(given.shape, dtype=np.float32)
    mean, inverse = (np.empty(max(rows, units), dtype=np.float32) for _ in range(2))
    running_mean, running_variance = (np.zeros(units if batch else 0, dtype=np.float32) for _ in range(2))
    if given.size:
        _norms.forward(
            batch, epsilon, 0.0, given, scale, shift, y, mean, inverse, running_mean, running_variance, True,
            threads.resolve(n_threads),
        )  # fmt: skip
    return y, given, mean, inverse


def _norm_backward(
    batch: bool, dy: ArrayLike, x: ArrayLike, weight: ArrayLike, epsilon: float, n_threads: int
) -> tuple[Floats, Floats, Floats]:
    _, given, mean, inverse = _norm(batch, x, weight, np.zeros(np.shape(weight)), epsilon, n_threads)
    slope = np.array(_two_dimensional("dy", dy))
    if slope.shape != given.shape:
        raise ValueError(f"dy and x must have the same shape, got {slope.shape} and {given.shape}")
    scale = _floats("weight", weight)
    dweight, dbias = (np.zeros(given.shape[1], dtype=np.float32) for _ in range(2))
    if given.size:
        _norms.backward(
            batch, given, scale, mean, inverse, slope, dweight, dbias, threads.resolve(n_threads)
        )  # fmt: skip
    return slope, dweight, dbias


# Activations -------------------------------------------------------------------------------------------------


def _activate(code: int, alpha: float, x: ArrayLike, n_threads: int) -> Floats:
    given = _floats("x", x)
    out = np.empty(given.shape, dtype=np.float32)
    _activations.activation(code, alpha, given.reshape(-1), out.reshape(-1), threads.resolve(n_threads))
    return out


def _activate_backward(code: int, alpha: float, dy: ArrayLike, x: ArrayLike, n_threads: int) -> Floats:
    given, out = _floats("x", x), np.array(_floats("dy", dy))
    if given.shape != out.shape:
        raise ValueError(f"dy and x must have the same shape, got {out.shape} and {given.shape}")
    _activations.activation_backward(code, alpha, given.reshape(-1), out.reshape(-1), threads.resolve(n_threads))
    return out


def relu(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """max(x, 0); NaN stays NaN.

    Parameters
    ----------
    x : array-like of any shape
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    given = _floats("x", x)
    out = np.empty(given.shape, dtype=np.float32)
    _relu.relu(given.reshape(-1), out.reshape(-1), threads.resolve(n_threads))
    return out


def relu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = 0 where x <= 0, else dy; x is the input or the output of `relu`.

    Parameters
    ----------
    dy, x : array-like of the same shape
    n_threads
        As for `relu`.

    Returns
    -------
    ndarray of float32
    """
    slope, given = _floats("dy", dy), _floats("x", x)
    if slope.shape != given.shape:
        raise ValueError(f"dy and x must have the same shape, got {slope.shape} and {given.shape}")
    out = np.empty(given.shape, dtype=np.float32)
    _relu.relu_backward(slope.reshape(-1), given.reshape(-1), out.reshape(-1), threads.resolve(n_threads))
    return out


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01, *, n_threads: int = 1) -> Floats:
    """x where positive, negative_slope x elsewhere.

    Parameters
    ----------
    x : array-like of any shape
    negative_slope : float
        The slope below 0.
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _activate(CODES["leaky_relu"], checks.number("negative_slope", negative_slope, single=True), x, n_threads)


def leaky_relu_backward(dy: ArrayLike, x: ArrayLike, negative_slope: float = 0.01, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `leaky_relu`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    negative_slope, n_threads
        As for `leaky_relu`.

    Returns
    -------
    ndarray of float32
    """
    return _activate_backward(
        CODES["leaky_relu"], checks.number("negative_slope", negative_slope, single=True), dy, x, n_threads
    )


def elu(x: ArrayLike, alpha: float = 1.0, *, n_threads: int = 1) -> Floats:
    """x where positive, alpha (e^x - 1) elsewhere.

    Parameters
    ----------
    x : array-like of any shape
    alpha : float
        Minus the value at minus infinity.
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _activate(CODES["elu"], checks.number("alpha", alpha, single=True), x, n_threads)


def elu_backward(dy: ArrayLike, x: ArrayLike, alpha: float = 1.0, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `elu`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    alpha, n_threads
        As for `elu`.

    Returns
    -------
    ndarray of float32
    """
    return _activate_backward(CODES["elu"], checks.number("alpha", alpha, single=True), dy, x, n_threads)


def selu(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """1.0507 elu(x, 1.6733) (Klambauer et al. 2017).

    Parameters
    ----------
    x : array-like of any shape
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _activate(CODES["selu"], 0.0, x, n_threads)


def selu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `selu`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    n_threads
        As for `relu`.

    Returns
    -------
    ndarray of float32
    """
    return _activate_backward(CODES["selu"], 0.0, dy, x, n_threads)


def gelu(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """x Phi(x), with the exact normal distribution function.

    Parameters
    ----------
    x : array-like of any shape
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _activate(CODES["gelu"], 0.0, x, n_threads)


def gelu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `gelu`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    n_threads
        As for `relu`.

    Returns
    -------
    ndarray of float32
    """
    return _activate_backward(CODES["gelu"], 0.0, dy, x, n_threads)


def silu(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """x sigmoid(x).

    Parameters
    ----------
    x : array-like of any shape
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _activate(CODES["silu"], 0.0, x, n_threads)


def silu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `silu`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    n_threads
        As for `relu`.

    Returns
    -------
    ndarray of float32
    """
    return _activate_backward(CODES["silu"], 0.0, dy, x, n_threads)


def tanh(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """The hyperbolic tangent.

    Parameters
    ----------
    x : array-like of any shape
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _activate(CODES["tanh"], 0.0, x, n_threads)


def tanh_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `tanh`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    n_threads
        As for `relu`.

    Returns
    -------
    ndarray of float32
    """
    return _activate_backward(CODES["tanh"], 0.0, dy, x, n_threads)


def sigmoid(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """1 / (1 + e^-x).

    Parameters
    ----------
    x : array-like of any shape
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _activate(CODES["sigmoid"], 0.0, x, n_threads)


def sigmoid_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `sigmoid`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    n_threads
        As for `relu`.

    Returns
    -------
    ndarray of float32
    """
    return _activate_backward(CODES["sigmoid"], 0.0, dy, x, n_threads)


def softplus(x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """log(1 + e^x).

    Parameters
    ----------
    x : array-like of any shape
    n_threads : int

    Returns
    -------
    ndarray of float32
    """
    return _activate(CODES["softplus"], 0.0, x, n_threads)


def softplus_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Floats:
    """dx = dy f'(x) of `softplus`, x its input.

    Parameters
    ----------
    dy, x : array-like of the same shape
    n_threads
        As for `relu`.

    Returns
    -------
    ndarray of float32
    """
    return _activate_backward(CODES["softplus"], 0.0, dy, x, n_threads)


# Dense -------------------------------------------------------------------------------------------------------


def dense(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, n_threads: int = 1) -> Floats:
    """x weight + bias: each element one chain of fused multiply-adds over the inputs, in order.

    Parameters
    ----------
    x : array-like, shape (n, inputs)
    weight : array-like, shape (inputs, units)
    bias : array-like, shape (units,), or None
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, units)
    """
    rows, w = _floats("x", x), _floats("weight", weight)
    b = np.empty(0, dtype=np.float32) if bias is None else _floats("bias", bias)
    if rows.ndim != 2 or w.ndim != 2 or rows.shape[1] != w.shape[0]:
        raise ValueError(f"x (n, inputs) and weight (inputs, units) do not fit: shapes {rows.shape} and {w.shape}")
    if bias is not None and b.shape != (w.shape[1],):
        raise ValueError(f"bias must have shape ({w.shape[1]},), got {b.shape}")
    out = np.zeros((len(rows), w.shape[1]), dtype=np.float32)
    if out.size and rows.size:
        _dense.forward(rows, w, b, out, threads.resolve(n_threads))
    elif out.size and bias is not None:
        out += b
    return out


def dense_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, n_threads: int = 1
) -> tuple[Floats, Floats, Floats]:
    """The three gradients of `dense`.

    Parameters
    ----------
    dy : array-like, shape (n, units)
    x : array-like, shape (n, inputs)
    weight : array-like, shape (inputs, units)
    n_threads : int

    Returns
    -------
    dx : ndarray of float32, shape (n, inputs), dy weight^t
    dweight : ndarray of float32, shape (inputs, units), x^t dy
    dbias : ndarray of float32, shape (units,), the sum of the rows of dy
    """
    slope, rows, w = _floats("dy", dy), _floats("x", x), _floats("weight", weight)
    matrices = slope.ndim == rows.ndim == w.ndim == 2
    if not matrices or w.shape != (rows.shape[1], slope.shape[1]) or len(slope) != len(rows):
        raise ValueError(
            "dy (n, units), x (n, inputs) and weight (inputs, units) do not fit: shapes "
            f"{slope.shape}, {rows.shape} and {w.shape}"
        )
    dx, dw = np.zeros(rows.shape, dtype=np.float32), np.zeros(w.shape, dtype=np.float32)
    db = np.zeros(w.shape[1], dtype=np.float32)
    if slope.size and rows.size:
        _dense.backward(slope, rows, w, dx, dw, db, threads.resolve(n_threads))
    elif slope.size:
        db += slope.sum(axis=0)
    return dx, dw, db


# Losses ------------------------------------------------------------------------------------------------------


def softmax(logits: ArrayLike, *, n_threads: int = 1) -> Floats:
    """e^z / sum e^z along each row.

    Parameters
    ----------
    logits : array-like, shape (n, k)
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, k), rows sum to 1
    """
    z = np.array(_two_dimensional("logits", logits))
    if z.size:
        _losses.link(losses.CrossEntropy.code, z, threads.resolve(n_threads))
    return z


def _two_dimensional(name: str, value: ArrayLike) -> Floats:
    result = _floats(name, value)
    if result.ndim != 2:
        raise ValueError(f"{name} must have shape (n, k), got {result.shape}")
    return result


def _loss(
    loss: losses.Loss,
    name: str,
    z: ArrayLike,
    y: Any,
    sample_weight: ArrayLike | None,
    return_grad: bool,
    n_threads: int,
) -> Any:
    given = _two_dimensional(name, z)
    rows, units = given.shape
    if rows == 0 or units == 0:
        raise ValueError(f"{name} is empty: shape {given.shape}; the mean of no rows is not defined")
    data = checked_rows(loss, units, given, y, sample_weight, rows)
    grad = np.empty(given.shape, dtype=np.float32) if return_grad else NO_MATRIX
    value, _ = _losses.loss(
        loss.code, loss.option, given, data.labels, data.targets, data.weights, grad, np.empty(rows),
        np.empty(rows, dtype=np.int32), threads.resolve(n_threads),
    )  # fmt: skip
    return (value, grad) if return_grad else value


def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, label_smoothing: float = 0.0,
    return_grad: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """Softmax cross-entropy, the mean over rows, in nats, and on request its gradient in the same pass.

    Parameters
    ----------
    logits : array-like, shape (n, k)
    y : array-like of integers 0..k-1, shape (n,), or of class probabilities, shape (n, k)
        Probabilities q (soft labels) are >= 0; rows sum to 1 within 0.001 and are divided by their sum. The loss is
        -sum q log softmax(logits); of one-hot rows it is that of labels.
    sample_weight : array-like, shape (n,), or None
        Multiplies each row's loss; the mean stays over n.
    label_smoothing : float in [0, 1)
    return_grad : bool
    n_threads : int

    Returns
    -------
    loss : float
    grad : ndarray of float32, shape (n, k), d loss / d logits; with return_grad=True only
    """
    loss = losses.CrossEntropy(label_smoothing)
    return _loss(loss, "logits", logits, y, sample_weight, return_grad, n_threads)


def r_drop(
    logits: ArrayLike, logits2: ArrayLike, y: ArrayLike, *, weight: float = 1.0,
    sample_weight: ArrayLike | None = None, label_smoothing: float = 0.0, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """R-Drop (Liang et al. 2021): (CE1 + CE2) / 2 + weight (KL(p1 | p2) + KL(p2 | p1)) / 2 of two passes of the same
    rows with different masks, the mean over rows, in nats.

    Parameters
    ----------
    logits, logits2 : array-like, shape (n, k)
    y, sample_weight, label_smoothing, return_grad, n_threads
        As for `cross_entropy`.
    weight : float >= 0
        Of the divergence; the paper's alpha is twice this.

    Returns
    -------
    loss : float
    grad, grad2 : ndarrays of float32, shape (n, k), with return_grad=True only
    """
    first, second = _two_dimensional("logits", logits), _two_dimensional("logits2", logits2)
    rows, units = first.shape
    if second.shape != first.shape or first.size == 0:
        raise ValueError(f"logits and logits2 must have the same shape, not empty, got {first.shape}, {second.shape}")
    loss = losses.CrossEntropy(label_smoothing, weight)
    data = checked_rows(loss, units, first, y, sample_weight, rows)
    grad = np.empty((2 * rows, units), dtype=np.float32)
    value = _losses.pair_loss(
        label_smoothing, loss.pair, np.concatenate([first, second]), data.labels, data.targets, data.weights, grad,
        np.empty(rows), np.empty(rows, dtype=np.int32), threads.resolve(n_threads),
    )  # fmt: skip
    return (value, grad[:rows], grad[rows:]) if return_grad else value


def binary_cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """Sigmoid cross-entropy of 0/1 targets or probabilities, the mean over all elements, in nats.

    Parameters
    ----------
    logits : array-like, shape (n, k)
    y : array-like of numbers in [0, 1], shape (n, k), or (n,) where k is 1
    sample_weight, return_grad, n_threads
        As for `mse`.

    Returns
    -------
    loss : float
    grad : ndarray of float32, shape (n, k), d loss / d logits; with return_grad=True only
    """
    return _loss(losses.BinaryCrossEntropy(), "logits", logits, y, sample_weight, return_grad, n_threads)


def mse(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """Squared error, the mean over all elements.

    Parameters
    ----------
    prediction : array-like, shape (n, k)
    y : array-like, shape (n, k), or (n,) where k is 1
    sample_weight : array-like, shape (n,) or (n, k), or None
        Multiplies each row's loss, or each element's; the mean stays over all n k elements. What weighs 0 plays no
        part, whatever its y is.
    return_grad : bool
    n_threads : int

    Returns
    -------
    loss : float
    grad : ndarray of float32, shape (n, k), d loss / d prediction; with return_grad=True only
    """
    return _loss(losses.MSE(), "prediction", prediction, y, sample_weight, return_grad, n_threads)


def mae(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """Absolute error, the mean over all elements; its gradient at 0 is 0.

    Parameters
    ----------
    prediction, y, sample_weight, return_grad, n_threads
        As for `mse`.

    Returns
    -------
    loss : float
    grad : ndarray of float32, shape (n, k), d loss / d prediction; with return_grad=True only
    """
    return _loss(losses.MAE(), "prediction", prediction, y, sample_weight, return_grad, n_threads)


def huber(
    prediction: ArrayLike, y: ArrayLike, *, delta: float = 1.0, sample_weight: ArrayLike | None = None,
    return_grad: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """Huber's loss (1964), the mean over all elements: d^2 / 2 within delta, delta (abs(d) - delta / 2) beyond.

    Parameters
    ----------
    delta : float > 0
        Where the square ends, in the units of y.
    prediction, y, sample_weight, return_grad, n_threads
        As for `mse`.

    Returns
    -------
    loss : float
    grad : ndarray of float32, shape (n, k), d loss / d prediction; with return_grad=True only
    """
    return _loss(losses.Huber(delta), "prediction", prediction, y, sample_weight, return_grad, n_threads)


def gaussian_nll(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """Negative log-likelihood of normal distributions, the mean over targets, in nats (Nix and Weigend 1994).

    Parameters
    ----------
    prediction : array-like, shape (n, 2 k)
        The k means, then the k log-variances.
    y : array-like, shape (n, k), or (n,) where k is 1
    sample_weight, return_grad, n_threads
        As for `mse`.

    Returns
    -------
    loss : float
    grad : ndarray of float32, shape (n, 2 k), d loss / d prediction; with return_grad=True only
    """
    return _loss(losses.GaussianNLL(), "prediction", prediction, y, sample_weight, return_grad, n_threads)

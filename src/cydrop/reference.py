"""The truth in plain NumPy: every kernel once more, readable, in the precision of its input.

Each function has the name and the signature of its twin in `cydrop.functional` and computes in float64 where it is
given float64. Masks are the same to the bit; numbers agree to rounding. All tests compare with this module.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
LANES = 16
BLOCK = 4096
SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


def _real(x: ArrayLike) -> Array:
    x = np.asarray(x)
    return x if x.dtype == np.float64 else x.astype(np.float32)


# Random numbers ----------------------------------------------------------------------------------------------


def mix64(z: Any) -> Any:
    """SplitMix64's finaliser: scatters every bit of a 64-bit word."""
    with np.errstate(over="ignore"):
        z = np.asarray(z, dtype=np.uint64) + GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def stream_key(seed: tuple[int, int], stream: int, step: int) -> tuple[int, int]:
    """The key of the masks of one layer in one step."""
    with np.errstate(over="ignore"):
        first, second = (mix64(mix64(np.uint64(k) + np.uint64(stream)) + np.uint64(step)) for k in seed)
    return int(first), int(second)


def xorshift_words(s0: Array, s1: Array, draws: int) -> Array:
    """`draws` draws of xorshift128+ generators with states s0, s1 of any shape; the words have a first axis more."""
    words = np.empty((draws, *s0.shape), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for draw in range(draws):
            words[draw] = s0 + s1
            x = s0 ^ (s0 << np.uint64(23))
            s0, s1 = s1, x ^ s1 ^ (x >> np.uint64(18)) ^ (s1 >> np.uint64(5))
    return words


def block_lanes(key: tuple[int, int], blocks: int) -> tuple[Array, Array]:
    """The states at the beginning of every block of a stream, each of shape (blocks, 16)."""
    with np.errstate(over="ignore"):
        steps = GOLDEN * np.arange(blocks * LANES, dtype=np.uint64).reshape(blocks, LANES)
        return mix64(np.uint64(key[0]) + steps), mix64(np.uint64(key[1]) + steps) | np.uint64(1)


def keep_mask(key: tuple[int, int], n: int, rate: float) -> NDArray[np.bool_]:
    """The mask of elements 0..n-1 of a stream: True keeps."""
    if rate <= 0 or rate >= 1:
        return np.full(n, rate < 1)
    threshold = min(int((1.0 - rate) * 2.0**32 + 0.5), 2**32 - 1)
    blocks = -(-n // BLOCK)
    bits = 8 if threshold % 2**24 == 0 else 16  # of a slice
    words = xorshift_words(*block_lanes(key, blocks), draws=BLOCK * bits // 64 // LANES)  # (draws, blocks, 16)
    slices = np.ascontiguousarray(words.transpose(1, 0, 2)).astype("<u8").view(f"<u{bits // 8}").reshape(blocks, BLOCK)
    top, low = threshold >> (32 - bits), threshold & 0xFFFF
    keep = slices < top
    if bits == 16:
        tie = slices == top
        other = (~key[0] % 2**64, ~key[1] % 2**64)
        deciders = xorshift_words(*block_lanes(other, blocks), draws=BLOCK // LANES)
        deciders = deciders.transpose(1, 0, 2).reshape(blocks, BLOCK) >> np.uint64(48)
        for block in range(blocks):
            places = np.flatnonzero(tie[block])
            keep[block, places] = deciders[block, : len(places)] < low
    result: NDArray[np.bool_] = keep.reshape(-1)[:n]
    return result


# Dropout -----------------------------------------------------------------------------------------------------


def dropout(
    x: ArrayLike,
    rate: float = 0.5,
    *,
    mode: str = "inverted",
    training: bool = True,
    mask: ArrayLike | None = None,
    seed: Any = None,
    return_mask: bool = False,
    out: Array | None = None,
    n_threads: int = 1,
) -> Any:
    """Dropout forward: see `cydrop.functional.dropout`."""
    from cydrop._base import seeding

    x = _real(x)
    if not training:
        y, kept = x * x.dtype.type(1 - rate if mode == "vanilla" else 1), np.ones(x.shape, dtype=bool)
    else:
        kept = keep_mask(seeding.key(seed), x.size, rate).reshape(x.shape) if mask is None else np.asarray(mask, bool)
        y = np.where(kept, x * x.dtype.type(_scale(rate, mode)), x.dtype.type(0))
    if out is not None:
        out[...] = y
        y = out
    return (y, kept) if return_mask else y


def dropout_backward(dy: ArrayLike, mask: ArrayLike, rate: float, mode: str = "inverted") -> Array:
    """Dropout backward: see `cydrop.functional.dropout_backward`."""
    dy = _real(dy)
    dx: Array = np.where(np.asarray(mask, bool), dy * dy.dtype.type(_scale(rate, mode)), dy.dtype.type(0))
    return dx


def normal_noise(key: tuple[int, int], n: int) -> NDArray[np.float64]:
    """Standard normal numbers 0..n-1 of a stream (Box and Muller 1958), in float64."""
    blocks = -(-n // BLOCK)
    words = xorshift_words(*block_lanes(key, blocks), draws=BLOCK // 2 // LANES).transpose(
        1, 0, 2
    )  # (blocks, draws, 16)
    radius = np.sqrt(-2.0 * np.log((words >> np.uint64(33)).astype(np.float32) * 2.0**-31 + 2.0**-32))
    angle = 2.0 * math.pi * 2.0**-32 * (words & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)  # 16 cosines, then 16 sines
    result: NDArray[np.float64] = pairs.reshape(-1)[:n]
    return result


def _noise(x: Array, noise: ArrayLike | None, seed: Any) -> Array:
    from cydrop._base import seeding

    e = normal_noise(seeding.key(seed), x.size).reshape(x.shape) if noise is None else np.asarray(noise)
    return e.astype(x.dtype)


def gaussian_dropout(
    x: ArrayLike, rate: float = 0.5, *, training: bool = True, noise: ArrayLike | None = None, seed: Any = None,
    return_noise: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """x (1 + sqrt(rate / (1 - rate)) e), e standard normal; zeros at rate 1."""
    x = _real(x)
    e = _noise(x, noise, seed)
    factor = 1 + math.sqrt(rate / (1 - rate)) * e if rate < 1 else np.zeros(x.shape)
    y = (x * factor if training and rate > 0 else x.copy()).astype(x.dtype)
    return (y, e) if return_noise else y


def gaussian_noise(
    x: ArrayLike, std: float = 0.1, *, training: bool = True, noise: ArrayLike | None = None, seed: Any = None,
    return_noise: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """x + std e, e standard normal."""
    x = _real(x)
    e = _noise(x, noise, seed)
    y = (x + std * e if training else x.copy()).astype(x.dtype)
    return (y, e) if return_noise else y


def alpha_affine(rate: float) -> tuple[float, float, float]:
    """(a, b, alpha') of alpha dropout."""
    low = -SELU_SCALE * SELU_ALPHA
    a = 1.0 / math.sqrt((1.0 - rate) * (1.0 + rate * low**2))
    return a, -a * rate * low, low


def alpha_dropout(
    x: ArrayLike, rate: float = 0.1, *, training: bool = True, mask: ArrayLike | None = None, seed: Any = None,
    return_mask: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """a (x if kept else alpha') + b; zeros at rate 1."""
    from cydrop._base import seeding

    x = _real(x)
    kept = np.ones(x.shape, dtype=bool)
    y = x.copy()
    if training:
        kept = keep_mask(seeding.key(seed), x.size, rate).reshape(x.shape) if mask is None else np.asarray(mask, bool)
        if rate < 1:
            a, b, low = alpha_affine(rate)
            y = np.where(kept, a * x + b, a * low + b).astype(x.dtype)
        else:
            y = np.zeros_like(x)
    return (y, kept) if return_mask else y


def alpha_dropout_backward(dy: ArrayLike, mask: ArrayLike, rate: float, *, n_threads: int = 1) -> Array:
    """a dy where kept, else 0"""
    dy = _real(dy)
    a = alpha_affine(rate)[0] if rate < 1 else 0.0
    dx: Array = np.where(np.asarray(mask, bool), dy * dy.dtype.type(a), dy.dtype.type(0))
    return dx


def _scale(rate: float, mode: str) -> float:
    return 1.0 if mode == "vanilla" or rate >= 1 else 1.0 / (1.0 - rate)


# Activations: y = f(x), and dx = dy f'(x) --------------------------------------------------------------------


def relu(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """0 where x <= 0, else x."""
    x = _real(x)
    return np.where(x <= 0, x.dtype.type(0), x)


def relu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """0 where x <= 0, else dy."""
    dy = _real(dy)
    return np.where(_real(x) <= 0, dy.dtype.type(0), dy)


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01, *, n_threads: int = 1) -> Array:
    """negative_slope x where x <= 0, else x."""
    x = _real(x)
    return np.where(x <= 0, x * x.dtype.type(negative_slope), x)


def leaky_relu_backward(dy: ArrayLike, x: ArrayLike, negative_slope: float = 0.01, *, n_threads: int = 1) -> Array:
    """negative_slope dy where x <= 0, else dy."""
    dy = _real(dy)
    return np.where(_real(x) <= 0, dy * dy.dtype.type(negative_slope), dy)


def elu(x: ArrayLike, alpha: float = 1.0, *, n_threads: int = 1) -> Array:
    """alpha (e^x - 1) where x <= 0, else x."""
    x = _real(x)
    return np.where(x <= 0, alpha * np.expm1(np.minimum(x, 0)), x).astype(x.dtype)


def elu_backward(dy: ArrayLike, x: ArrayLike, alpha: float = 1.0, *, n_threads: int = 1) -> Array:
    """alpha e^x dy where x <= 0, else dy."""
    dy, x = _real(dy), _real(x)
    return (dy * np.where(x <= 0, alpha * np.exp(np.minimum(x, 0)), 1)).astype(dy.dtype)


def selu(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """1.0507 elu(x, 1.6733)"""
    x = _real(x)
    return (SELU_SCALE * elu(x, SELU_ALPHA)).astype(x.dtype)


def selu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """1.0507 elu_backward(dy, x, 1.6733)"""
    dy = _real(dy)
    return (SELU_SCALE * elu_backward(dy, x, SELU_ALPHA)).astype(dy.dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """x Phi(x), Phi the standard normal distribution function."""
    x = _real(x)
    return (x * 0.5 * (1 + _erf(x / math.sqrt(2)))).astype(x.dtype) if x.size else x.copy()


def gelu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy (Phi(x) + x phi(x))"""
    dy, x = _real(dy), _real(x)
    if not x.size:
        return dy.copy()
    wide = x.astype(np.float64)
    slope = 0.5 * (1 + _erf(wide / math.sqrt(2))) + wide * np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    dx: Array = (dy * slope).astype(dy.dtype)
    return dx


def silu(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """x sigmoid(x)"""
    x = _real(x)
    return x * sigmoid(x)


def silu_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy s (1 + x (1 - s)), s = sigmoid(x)"""
    dy, x = _real(dy), _real(x)
    s = sigmoid(x)
    dx: Array = dy * s * (1 + x * (1 - s))
    return dx


def tanh(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(_real(x))


def tanh_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy (1 - tanh(x)^2)"""
    dx: Array = _real(dy) * (1 - np.tanh(_real(x)) ** 2)
    return dx


def sigmoid(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """1 / (1 + e^-x)"""
    x = _real(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def sigmoid_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy s (1 - s), s = sigmoid(x)"""
    s = sigmoid(x)
    dx: Array = _real(dy) * s * (1 - s)
    return dx


def softplus(x: ArrayLike, *, n_threads: int = 1) -> Array:
    """log(1 + e^x)"""
    x = _real(x)
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus_backward(dy: ArrayLike, x: ArrayLike, *, n_threads: int = 1) -> Array:
    """dy sigmoid(x)"""
    return _real(dy) * sigmoid(x)


# Dense -------------------------------------------------------------------------------------------------------


def dense(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, n_threads: int = 1) -> Array:
    """x weight + bias"""
    y: Array = _real(x) @ _real(weight)
    return y if bias is None else y + _real(bias)


def dense_backward(dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, n_threads: int = 1) -> tuple[Array, Array, Array]:
    """dx = dy weight^t, dweight = x^t dy, dbias = sum of the rows of dy"""
    dy = _real(dy)
    return dy @ _real(weight).T, _real(x).T @ dy, dy.sum(axis=0)


# Normalisation: y = weight (x - mean) / sqrt(variance + epsilon) + bias -----------------------------------------


def layer_norm(x: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1) -> Array:
    """Mean and variance of each row."""
    return _normalised(_real(x), 1, epsilon) * _real(weight) + _real(bias)


def layer_norm_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias"""
    return _norm_backward(_real(dy), _real(x), _real(weight), 1, epsilon)


def batch_norm(x: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1) -> Array:
    """Mean and variance of each column, over the rows of the batch."""
    return _normalised(_real(x), 0, epsilon) * _real(weight) + _real(bias)


def batch_norm_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, *, epsilon: float = 1e-5, n_threads: int = 1
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias"""
    return _norm_backward(_real(dy), _real(x), _real(weight), 0, epsilon)


def _normalised(x: Array, axis: int, epsilon: float) -> Array:
    y: Array = (x - x.mean(axis=axis, keepdims=True)) / np.sqrt(x.var(axis=axis, keepdims=True) + epsilon)
    return y


def _norm_backward(dy: Array, x: Array, weight: Array, axis: int, epsilon: float) -> tuple[Array, Array, Array]:
    xh = _normalised(x, axis, epsilon)
    h = dy * weight
    centred = h - h.mean(axis=axis, keepdims=True) - xh * (h * xh).mean(axis=axis, keepdims=True)
    dx: Array = centred / np.sqrt(x.var(axis=axis, keepdims=True) + epsilon)
    return dx, (dy * xh).sum(axis=0), dy.sum(axis=0)


# Losses: the mean over rows (cross-entropy) or over elements, and its gradient -------------------------------


def softmax(logits: ArrayLike, *, n_threads: int = 1) -> Array:
    """e^z / sum e^z along each row"""
    z = _real(logits)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p: Array = e / e.sum(axis=1, keepdims=True)
    return p


def _finish(terms: Array, slope: Array, sample_weight: ArrayLike | None, return_grad: bool) -> Any:
    """From the loss of each row, (n,), or element, (n, k), and its slope to the mean and the gradient of that.

    A weight multiplies its row or, where there is one an element, its element; the mean stays over all.
    """
    w = np.ones(len(terms)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    each = np.broadcast_to(w if w.ndim == terms.ndim else w[:, None], terms.shape)
    loss = float((each * terms.astype(np.float64)).sum() / terms.size)
    columns = each.reshape(len(terms), -1)  # for each column of z: gaussian_nll has two of them an element
    repeated = np.tile(columns, slope.shape[1] // columns.shape[1]) / terms.size
    return (loss, (slope * repeated).astype(slope.dtype)) if return_grad else loss


def _class_probabilities(y: ArrayLike, shape: tuple[int, int], smoothing: float, dtype: Any) -> Array:
    """q = (1 - s) y + s / k for y the probabilities, rows divided by their sum, or the one-hot rows of labels."""
    n, k = shape
    given = np.asarray(y)
    if given.shape == shape:
        target = given / given.sum(axis=1, keepdims=True, dtype=np.float64)
    else:
        target = np.zeros(shape)
        target[np.arange(n), given] = 1
    q: Array = ((1 - smoothing) * target + smoothing / k).astype(dtype)
    return q


def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, label_smoothing: float = 0.0,
    return_grad: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """log sum_j e^z_j - sum_j q_j z_j, q = (1 - s) y + s / k, y the probabilities or the one-hot rows of labels"""
    z = _real(logits)
    top = z.max(axis=1)
    log_total = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
    q = _class_probabilities(y, z.shape, label_smoothing, z.dtype)
    return _finish(log_total - (q * z).sum(axis=1), softmax(z) - q, sample_weight, return_grad)


def r_drop(
    logits: ArrayLike, logits2: ArrayLike, y: ArrayLike, *, weight: float = 1.0,
    sample_weight: ArrayLike | None = None, label_smoothing: float = 0.0, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """(CE1 + CE2) / 2 + weight (KL(p1 | p2) + KL(p2 | p1)) / 2"""
    z = [_real(logits), _real(logits2)]
    q = _class_probabilities(y, z[0].shape, label_smoothing, z[0].dtype)
    logs = [a - a.max(axis=1, keepdims=True) for a in z]
    logs = [a - np.log(np.exp(a).sum(axis=1, keepdims=True)) for a in logs]
    p = [np.exp(a) for a in logs]
    divergence = [(p[i] * (logs[i] - logs[1 - i])).sum(axis=1) for i in (0, 1)]
    entropy = [-(q * a).sum(axis=1) for a in logs]
    slopes = [
        (p[i] - q + weight * (p[i] * (logs[i] - logs[1 - i] - divergence[i][:, None]) + p[i] - p[1 - i])) / 2
        for i in (0, 1)
    ]
    rows = (sum(entropy) + weight * sum(divergence)) / 2
    loss, first = _finish(rows, slopes[0], sample_weight, True)
    second = _finish(rows, slopes[1], sample_weight, True)[1]
    return (loss, first, second) if return_grad else loss


def _columns(z: Array, y: ArrayLike) -> Array:
    return _real(y).reshape(len(z), -1).astype(z.dtype)


def binary_cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """softplus(z) - z y"""
    z = _real(logits)
    target = _columns(z, y)
    terms = np.maximum(z, 0) - z * target + np.log1p(np.exp(-np.abs(z)))
    return _finish(terms, sigmoid(z) - target, sample_weight, return_grad)


def mse(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """(z - y)^2"""
    z = _real(prediction)
    d = z - _columns(z, y)
    return _finish(d**2, 2 * d, sample_weight, return_grad)


def mae(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """abs(z - y)"""
    z = _real(prediction)
    d = z - _columns(z, y)
    return _finish(np.abs(d), np.sign(d), sample_weight, return_grad)


def huber(
    prediction: ArrayLike, y: ArrayLike, *, delta: float = 1.0, sample_weight: ArrayLike | None = None,
    return_grad: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """d^2 / 2 within delta, delta (abs(d) - delta / 2) beyond"""
    z = _real(prediction)
    d = z - _columns(z, y)
    a = np.abs(d)
    terms = np.where(a <= delta, d**2 / 2, delta * (a - delta / 2))
    return _finish(terms, np.clip(d, -delta, delta).astype(z.dtype), sample_weight, return_grad)


def gaussian_nll(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """(s + (y - m)^2 e^-s + log 2 pi) / 2, prediction = (m, s), s the log-variance"""
    z = _real(prediction)
    m, s = np.split(z, 2, axis=1)
    d = m - _columns(m, y)
    with np.errstate(over="ignore"):
        root = np.minimum(np.exp(-s / 2), np.finfo(z.dtype).max)  # of the precision, which may be beyond the range
    terms = (s + (d * root) ** 2 + math.log(2 * math.pi)) / 2
    slope = np.concatenate([d * root * root, (1 - (d * root) ** 2) / 2], axis=1)
    return _finish(terms, slope, sample_weight, return_grad)


# Optimizers: one update of parameters w with gradient g and moments m, v -------------------------------------


def clip_factor(gradients: list[Array], clip_norm: float | None) -> float:
    """The factor that brings the global norm of the gradients down to clip_norm."""
    norm = math.sqrt(sum(float((np.asarray(g, dtype=np.float64) ** 2).sum()) for g in gradients))
    return 1.0 if clip_norm is None or norm <= clip_norm else clip_norm / norm


def sgd(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 0.01, momentum: float = 0.0,
    nesterov: bool = False, weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """v = momentum v + g; w -= learning_rate (g + momentum v if nesterov else v)"""
    g = g + weight_decay * w
    v = momentum * v + g
    return w - learning_rate * (g + momentum * v if nesterov else v), m, v


def rmsprop(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 1e-3, rho: float = 0.9,
    epsilon: float = 1e-8, weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """v = rho v + (1 - rho) g^2; w -= learning_rate g / (sqrt v + epsilon)"""
    g = g + weight_decay * w
    v = rho * v + (1 - rho) * g**2
    return w - learning_rate * g / (np.sqrt(v) + epsilon), m, v


def adagrad(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 0.01, epsilon: float = 1e-10,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """v = v + g^2; w -= learning_rate g / (sqrt v + epsilon)"""
    g = g + weight_decay * w
    v = v + g**2
    return w - learning_rate * g / (np.sqrt(v) + epsilon), m, v


def adam(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 1e-3, beta1: float = 0.9,
    beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Kingma and Ba (2015), algorithm 1, update number t from 1; epsilon added after the corrected root."""
    g = g + weight_decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    corrected_m, corrected_v = m / (1 - beta1**t), v / (1 - beta2**t)
    return w - learning_rate * corrected_m / (np.sqrt(corrected_v) + epsilon), m, v


def adamw(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 1e-3, beta1: float = 0.9,
    beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.01,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """w = (1 - learning_rate weight_decay) w, then Adam (Loshchilov and Hutter 2019)."""
    w = w * (1 - learning_rate * weight_decay)
    return adam(w, g, m, v, t, learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)


def limit_norms(weight: Array, max_norm: float) -> Array:
    """Max-norm: columns of a weight (inputs, units) scaled down to Euclidean norm max_norm."""
    norms = np.sqrt((weight.astype(np.float64) ** 2).sum(axis=0))
    return (weight * np.where(norms > max_norm, max_norm / np.maximum(norms, 1e-300), 1)).astype(weight.dtype)

"""Losses: the mean over rows (cross-entropy) or over elements, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cydrop.reference._arrays import Array, real
from cydrop.reference.activations import sigmoid

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "gaussian_nll",
    "huber",
    "mae",
    "mse",
    "pinball",
    "r_drop",
    "softmax",
]


def softmax(logits: ArrayLike, *, n_threads: int = 1) -> Array:
    """e^z / sum e^z along each row"""
    z = real(logits)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p: Array = e / e.sum(axis=1, keepdims=True)
    return p


def cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, label_smoothing: float = 0.0,
    return_grad: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """log sum_j e^z_j - sum_j q_j z_j, q = (1 - s) y + s / k, y the probabilities or the one-hot rows of labels"""
    z = real(logits)
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
    z = [real(logits), real(logits2)]
    q = _class_probabilities(y, z[0].shape, label_smoothing, z[0].dtype)
    logs = [a - a.max(axis=1, keepdims=True) for a in z]
    logs = [a - np.log(np.exp(a).sum(axis=1, keepdims=True)) for a in logs]
    p = [np.exp(a) for a in logs]
    divergence = [(p[i] * (logs[i] - logs[1 - i])).sum(axis=1) for i in (0, 1)]
    entropy = [-(q * a).sum(axis=1) for a in logs]
    grads = [
        (p[i] - q + weight * (p[i] * (logs[i] - logs[1 - i] - divergence[i][:, None]) + p[i] - p[1 - i])) / 2
        for i in (0, 1)
    ]
    rows = (sum(entropy) + weight * sum(divergence)) / 2
    loss, first = _finish(rows, grads[0], sample_weight, True)
    second = _finish(rows, grads[1], sample_weight, True)[1]
    return (loss, first, second) if return_grad else loss


def binary_cross_entropy(
    logits: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """log(1 + e^z) - z y"""
    z = real(logits)
    target = _columns(z, y)
    terms = np.maximum(z, 0) - z * target + np.log1p(np.exp(-np.abs(z)))
    return _finish(terms, sigmoid(z) - target, sample_weight, return_grad)


def mse(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """(z - y)^2"""
    z = real(prediction)
    d = z - _columns(z, y)
    return _finish(d**2, 2 * d, sample_weight, return_grad)


def mae(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """abs(z - y)"""
    z = real(prediction)
    d = z - _columns(z, y)
    return _finish(np.abs(d), np.sign(d), sample_weight, return_grad)


def huber(
    prediction: ArrayLike, y: ArrayLike, *, delta: float = 1.0, sample_weight: ArrayLike | None = None,
    return_grad: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """d^2 / 2 within delta, delta (abs(d) - delta / 2) beyond"""
    z = real(prediction)
    d = z - _columns(z, y)
    a = np.abs(d)
    terms = np.where(a <= delta, d**2 / 2, delta * (a - delta / 2))
    return _finish(terms, np.clip(d, -delta, delta).astype(z.dtype), sample_weight, return_grad)


def gaussian_nll(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """(s + (y - m)^2 e^-s + log 2 pi) / 2, prediction = (m, s), s the log-variance"""
    z = real(prediction)
    m, s = np.split(z, 2, axis=1)
    d = m - _columns(m, y)
    with np.errstate(over="ignore"):
        root = np.minimum(np.exp(-s / 2), np.finfo(z.dtype).max)  # of the precision, which may be beyond the range
    terms = (s + (d * root) ** 2 + math.log(2 * math.pi)) / 2
    grad = np.concatenate([d * root * root, (1 - (d * root) ** 2) / 2], axis=1)
    return _finish(terms, grad, sample_weight, return_grad)


def pinball(
    prediction: ArrayLike, y: ArrayLike, *, quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    sample_weight: ArrayLike | None = None, return_grad: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """max(q (y - z), (q - 1) (y - z)) of each quantile q of each target"""
    z = real(prediction)
    levels = np.asarray(quantiles, dtype=z.dtype)
    parts = z.reshape(len(z), len(levels), -1)  # row, quantile, target
    target = _columns(parts[:, 0], y)
    d = parts - target[:, None]
    q = levels[:, None]
    terms = np.maximum(-q * d, (1 - q) * d).astype(np.float64).mean(axis=1)
    slopes = np.where(d > 0, 1 - q, np.where(d < 0, -q, d)) / len(levels)
    return _finish(terms, slopes.astype(z.dtype).reshape(z.shape), sample_weight, return_grad)


def _columns(z: Array, y: ArrayLike) -> Array:
    return real(y).reshape(len(z), -1).astype(z.dtype)


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


def _finish(terms: Array, grad: Array, sample_weight: ArrayLike | None, return_grad: bool) -> Any:
    """From the loss of each row, (n,), or element, (n, k), and its gradient, to the mean and the gradient of that.

    A weight multiplies its row or, where there is one per element, its element; the mean is still over all.
    """
    w = np.ones(len(terms)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    each = np.broadcast_to(w if w.ndim == terms.ndim else w[:, None], terms.shape)
    loss = float((each * terms.astype(np.float64)).sum() / terms.size)
    columns = each.reshape(len(terms), -1)  # for each column of z: gaussian_nll has two of them an element
    repeated = np.tile(columns, grad.shape[1] // columns.shape[1]) / terms.size
    return (loss, (grad * repeated).astype(grad.dtype)) if return_grad else loss

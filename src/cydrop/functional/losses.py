"""Losses, each with its gradient in the same pass, and what turns raw outputs into probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cydrop import losses
from cydrop._base import threads
from cydrop._base.arrays import Floats
from cydrop._core import losses as kernels
from cydrop._run.rows import NO_FLOATS, NO_MATRIX, checked_rows
from cydrop.functional._arrays import matrix
from cydrop.functional._documentation import F, documented

__all__ = [
    "binary_cross_entropy", "cross_entropy", "gaussian_nll", "huber", "mae", "mse", "pinball", "r_drop", "softmax",
]  # fmt: skip


def _returns_loss(outputs: str, shape: str = "(n, k)") -> Callable[[F], F]:
    return documented(f"""
        Returns
        -------
        loss : float
        grad : ndarray of float32, shape {shape}, d loss / d {outputs}; with return_grad=True only
    """)


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
    z = np.array(matrix("logits", logits))
    if z.size:
        kernels.link(losses.CrossEntropy.code, NO_FLOATS, z, threads.resolve(n_threads))
    return z


@_returns_loss("logits")
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
        -sum q log softmax(logits); for one-hot rows it is that of labels.
    sample_weight : array-like, shape (n,), or None
        Multiplies each row's loss; the mean is still over n.
    label_smoothing : float in [0, 1)
    return_grad : bool
    n_threads : int
    """
    return _loss(losses.CrossEntropy(label_smoothing), "logits", logits, y, sample_weight, return_grad, n_threads)


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
        Weight of the divergence; the paper's alpha is twice this.

    Returns
    -------
    loss : float
    grad, grad2 : ndarrays of float32, shape (n, k), with return_grad=True only
    """
    first, second = matrix("logits", logits), matrix("logits2", logits2)
    rows, units = first.shape
    if second.shape != first.shape or first.size == 0:
        raise ValueError(f"logits and logits2 must have the same shape, not empty, got {first.shape}, {second.shape}")
    loss = losses.CrossEntropy(label_smoothing, weight)
    data = checked_rows(loss, units, first, y, sample_weight, rows)
    grad = np.empty((2 * rows, units), dtype=np.float32)
    value = kernels.pair_loss(
        loss.option, loss.pair, np.concatenate([first, second]), data.labels, data.targets, data.weights, grad,
        np.empty(rows), np.empty(rows, dtype=np.int32), threads.resolve(n_threads),
    )  # fmt: skip
    return (value, grad[:rows], grad[rows:]) if return_grad else value


@_returns_loss("logits")
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
    """
    return _loss(losses.BinaryCrossEntropy(), "logits", logits, y, sample_weight, return_grad, n_threads)


@_returns_loss("prediction")
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
        Multiplies each row's loss, or each element's; the mean is still over all n k elements. What has weight 0 plays
        no part, whatever its y is.
    return_grad : bool
    n_threads : int
    """
    return _loss(losses.MSE(), "prediction", prediction, y, sample_weight, return_grad, n_threads)


@_returns_loss("prediction")
def mae(
    prediction: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, return_grad: bool = False,
    n_threads: int = 1,
) -> Any:  # fmt: skip
    """Absolute error, the mean over all elements; its gradient at 0 is 0.

    Parameters
    ----------
    prediction, y, sample_weight, return_grad, n_threads
        As for `mse`.
    """
    return _loss(losses.MAE(), "prediction", prediction, y, sample_weight, return_grad, n_threads)


@_returns_loss("prediction")
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
    """
    return _loss(losses.Huber(delta), "prediction", prediction, y, sample_weight, return_grad, n_threads)


@_returns_loss("prediction", "(n, 2 k)")
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
    """
    return _loss(losses.GaussianNLL(), "prediction", prediction, y, sample_weight, return_grad, n_threads)


@_returns_loss("prediction", "(n, quantiles k)")
def pinball(
    prediction: ArrayLike, y: ArrayLike, *, quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    sample_weight: ArrayLike | None = None, return_grad: bool = False, n_threads: int = 1,
) -> Any:  # fmt: skip
    """The loss of quantiles q, max(q e, (q - 1) e) with e = y - prediction, the mean over targets and quantiles
    (Koenker and Bassett 1978); its gradient at 0 is 0.

    Parameters
    ----------
    prediction : array-like, shape (n, quantiles k)
        The k numbers of the first quantile, then those of the second, ...; they may cross.
    y : array-like, shape (n, k), or (n,) where k is 1
    quantiles : sequence of floats in (0, 1), ascending
    sample_weight, return_grad, n_threads
        As for `mse`.
    """
    return _loss(losses.Pinball(quantiles), "prediction", prediction, y, sample_weight, return_grad, n_threads)


def _loss(
    loss: losses.Loss, name: str, outputs: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None,
    return_grad: bool, n_threads: int,
) -> Any:  # fmt: skip
    z = matrix(name, outputs)
    rows, units = z.shape
    if rows == 0 or units == 0:
        raise ValueError(f"{name} is empty: shape {z.shape}; the mean of no rows is not defined")
    data = checked_rows(loss, units, z, y, sample_weight, rows)
    grad = np.empty(z.shape, dtype=np.float32) if return_grad else NO_MATRIX
    value, _ = data.loss_and_hits(z, grad, threads.resolve(n_threads))
    return (value, grad) if return_grad else value

"""Of classifiers: how often right, by how sure."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks
from cydrop.metrics._arguments import Doubles, labels, probabilities
from cydrop.monte_carlo import MonteCarlo


def calibration(
    y: ArrayLike, proba: ArrayLike | MonteCarlo, bins: int = 10
) -> tuple[Doubles, Doubles, NDArray[np.int64]]:
    """How often a classifier is right, by how confident it is.

    With k classes it is the top class that counts: its probability is the confidence, and the share of rows that have
    it as their label is the accuracy (Guo et al. 2017, "On calibration of modern neural networks"). With a single
    probability, that of label 1, confidence is this probability itself and accuracy the share of label 1, as in
    scikit-learn's `calibration_curve`; for the top class of the two give `np.column_stack([1 - p, p])`.

    Parameters
    ----------
    y : array-like of int, shape (n,) or (n, 1)
        Labels 0..k-1; 0 or 1 for a single probability.
    proba : array-like, shape (n, k), or (n,) or (n, 1), or MonteCarlo
        Probabilities, as `predict` gives them; for a MonteCarlo its mean.
    bins : int >= 1
        Bins of equal width over [0, 1], (lower, upper]; 0 belongs to the first.

    Returns
    -------
    confidence : ndarray of float64, shape (bins,)
        Its mean in each bin; NaN where there are no rows.
    accuracy : ndarray of float64, shape (bins,)
    count : ndarray of int64, shape (bins,)
        The rows in each bin.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    """
    bins = checks.integer("bins", bins, 1)
    confidence, hit = _confidence(y, proba)
    number = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(number, weights, minlength=bins) / count for weights in (confidence, hit)]
    return means[0], means[1], count


def calibration_error(y: ArrayLike, proba: ArrayLike | MonteCarlo, bins: int = 10) -> float:
    """The mean over the rows of abs(accuracy - confidence) of their bins: the expected calibration error (Naeini et al.
    2015; Guo et al. 2017).

    Parameters
    ----------
    y, proba, bins
        As for `calibration`.

    Returns
    -------
    float
        0 for a perfectly calibrated classifier.

    Raises
    ------
    ValueError, TypeError
        As for `calibration`.
    """
    confidence, accuracy, count = calibration(y, proba, bins)
    some = count > 0
    return float(np.sum(count[some] * np.abs(accuracy[some] - confidence[some])) / count.sum())


def _confidence(y: ArrayLike, proba: ArrayLike | MonteCarlo) -> tuple[Doubles, Doubles]:
    """Confidence, and whether it was right: two arrays of shape (n,)."""
    p = probabilities(proba.mean if isinstance(proba, MonteCarlo) else proba)
    found = labels(y, len(p), "proba", 2 if p.ndim == 1 else p.shape[1])
    if p.ndim == 1:
        return p, found.astype(np.float64)
    return p.max(axis=1), (p.argmax(axis=1) == found).astype(np.float64)

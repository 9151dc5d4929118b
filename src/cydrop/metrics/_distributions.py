"""Of quantiles and whole distributions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks
from cydrop._base.likelihood import normal_cdf, normal_pdf
from cydrop.metrics._arguments import Doubles, of_quantiles, values
from cydrop.monte_carlo import MonteCarlo


def pinball_loss(y: ArrayLike, predictions: ArrayLike, quantiles: ArrayLike) -> float:
    """The mean over rows and quantiles of max(q e, (q - 1) e), e = y - prediction (Koenker and Bassett 1978): least for
    the quantile q of the true distribution; for q = 1/2 half the absolute error.

    Parameters
    ----------
    y : array-like, shape (n,) or (n, 1)
    predictions : array-like, shape (n, k), or (n,) for one quantile
        A column for each quantile.
    quantiles : float in (0, 1), or array-like of shape (k,)

    Returns
    -------
    float
        In units of y.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    """
    given, levels = of_quantiles(predictions, quantiles)
    error = values("y", y, len(given), "predictions")[:, np.newaxis] - given
    return float(np.mean(np.maximum(levels * error, (levels - 1.0) * error)))


def crps(y: ArrayLike, prediction: ArrayLike | MonteCarlo, std: ArrayLike | None = None) -> float:
    """The continuous ranked probability score (Gneiting and Raftery 2007): the integral over x of (F(x) - [y <= x])^2,
    F the predicted distribution; in units of y, and the absolute error where that is a single number.

    Parameters
    ----------
    y : array-like, shape (n,) or (n, 1)
    prediction : array-like, shape (samples, n) or (samples, n, 1), or with `std` (n,) or (n, 1), or MonteCarlo
        Samples, whose distribution is the predicted one; or, with `std`, means. A MonteCarlo gives its samples, where
        they were kept (`predict_mc(return_samples=True)`), or else a normal distribution with its mean and std.
    std : array-like, shape (n,) or (n, 1), or None
        Standard deviations of normal distributions, at least 0.

    Returns
    -------
    float
        The mean over the rows.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.

    Notes
    -----
    Of samples it is E|X - y| - E|X - X'| / 2 (eq. 21), the second over all pairs, in the time that sorting takes. Of a
    normal distribution, with z = (y - m) / s, it is s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)).
    """
    if isinstance(prediction, MonteCarlo):
        if std is not None:
            raise ValueError("std is that of the MonteCarlo: leave it out")
        if prediction.samples is None:
            return crps(y, prediction.mean, prediction.std)
        prediction = prediction.samples
    if std is None:
        return _crps_of_samples(y, checks.array("prediction", prediction).astype(np.float64))
    mean = values("prediction", prediction)
    spread = values("std", std, len(mean), "prediction")
    if (spread < 0).any():
        raise ValueError(f"std must be at least 0, got {spread.min():g}")
    error = values("y", y, len(mean), "prediction") - mean
    z = error / np.where(spread > 0, spread, 1.0)
    score = spread * (z * (2.0 * normal_cdf(z) - 1.0) + 2.0 * normal_pdf(z) - 1.0 / np.sqrt(np.pi))
    return float(np.mean(np.where(spread > 0, score, np.abs(error))))


def _crps_of_samples(y: ArrayLike, samples: Doubles) -> float:
    samples = samples[:, :, 0] if samples.ndim == 3 and samples.shape[2] == 1 else samples
    if samples.ndim != 2 or not samples.size:
        raise ValueError(
            f"without std, prediction must be samples of shape (samples, n), got {samples.shape}; look at several "
            "targets one by one"
        )
    target = values("y", y, samples.shape[1], "a sample")
    count = len(samples)
    ordered = np.sort(samples, axis=0)
    place = 2.0 * np.arange(count) - count + 1.0  # the sum of |x - x'| over pairs, by places in order
    apart = (place[:, np.newaxis] * ordered).sum(axis=0) / count**2
    return float(np.mean(np.abs(samples - target).mean(axis=0) - apart))

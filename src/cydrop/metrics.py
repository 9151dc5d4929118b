"""How good predictions of uncertainty are: of classes, of intervals, of quantiles, of whole distributions.

NumPy alone, in float64. Every score is a mean over the rows, and less is better, but for `coverage`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks
from cydrop._base.likelihood import normal_cdf, normal_pdf
from cydrop.monte_carlo import MonteCarlo

__all__ = [  # noqa: RUF022 (in the order of this file)
    "calibration",
    "calibration_error",
    "coverage",
    "width",
    "interval_score",
    "pinball_loss",
    "crps",
]

Doubles: TypeAlias = NDArray[np.float64]

SUM_TOLERANCE = 1e-3  # of the probabilities of a row, whose sum is 1 but for rounding


# Of classifiers -----------------------------------------------------------------------------------------------


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
        Bins of equal width over [0, 1], each without its lower and with its upper end (0 belongs to the first).

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
    p = checks.array("proba", proba.mean if isinstance(proba, MonteCarlo) else proba).astype(np.float64)
    single = p.ndim == 1 or (p.ndim == 2 and p.shape[1] == 1)
    if p.ndim not in (1, 2) or not p.size:
        raise ValueError(f"proba must have shape (n,), (n, 1) or (n, k) with n at least 1, got {p.shape}")
    if not ((p >= 0) & (p <= 1 + SUM_TOLERANCE)).all():
        raise ValueError("proba must be probabilities in [0, 1], as predict gives them")
    if not single and np.abs(p.sum(axis=1) - 1).max() > SUM_TOLERANCE:
        raise ValueError(
            'the rows of proba must sum to 1; for several labels of "binary_cross_entropy" look at one column at a time'
        )
    labels = _labels(y, len(p), "proba", 2 if single else p.shape[1])
    if single:
        return p.reshape(-1), labels.astype(np.float64)
    return p.max(axis=1), (p.argmax(axis=1) == labels).astype(np.float64)


# Of intervals and sets ----------------------------------------------------------------------------------------


def coverage(y: ArrayLike, predicted: ArrayLike) -> float:
    """The share of rows whose y lies in the predicted interval, its ends included, or whose label is in the predicted
    set.

    Parameters
    ----------
    y : array-like, shape (n,) or (n, 1)
        Numbers; for sets labels 0..k-1, which are columns of `predicted`.
    predicted : array-like, shape (n, 2), or of bool, shape (n, k)
        Lower and upper ends, as `predict_interval` gives them, or which classes are in the set, as `predict_set` does.

    Returns
    -------
    float

    Raises
    ------
    ValueError, TypeError
        For unusable arguments, such as a lower end above the upper.
    """
    given = checks.array("predicted", predicted)
    if given.dtype == bool:
        members = _members(given)
        labels = _labels(y, len(members), "predicted", members.shape[1])
        return float(np.mean(members[np.arange(len(members)), labels]))
    lower, upper = _ends(given)
    values = _values("y", y, len(lower))
    return float(np.mean((lower <= values) & (values <= upper)))


def width(predicted: ArrayLike) -> float:
    """How sharp intervals or sets are: the mean of upper - lower, or of the number of classes in a set.

    Parameters
    ----------
    predicted : array-like, shape (n, 2), or of bool, shape (n, k)
        As for `coverage`.

    Returns
    -------
    float
        In units of y, or in classes. inf where an interval is unbounded.

    Raises
    ------
    ValueError, TypeError
        As for `coverage`.
    """
    given = checks.array("predicted", predicted)
    if given.dtype == bool:
        return float(np.mean(_members(given).sum(axis=1)))
    lower, upper = _ends(given)
    return float(np.mean(upper - lower))


def interval_score(y: ArrayLike, intervals: ArrayLike, coverage: float = 0.9) -> float:
    """Width, and what misses cost: the mean of u - l + 2/a (l - y) where y < l, + 2/a (y - u) where y > u, with
    a = 1 - coverage (Gneiting and Raftery 2007, eq. 43; Winkler 1972). A proper score: least for the quantiles a/2 and
    1 - a/2 of the true distribution.

    Parameters
    ----------
    y : array-like, shape (n,) or (n, 1)
    intervals : array-like, shape (n, 2)
        Lower and upper ends.
    coverage : float in (0, 1)
        That the intervals were asked to have.

    Returns
    -------
    float
        In units of y.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    """
    level = checks.number("coverage", coverage, 0.0, 1.0, low_open=True, high_open=True)
    lower, upper = _ends(checks.array("intervals", intervals), "intervals")
    values = _values("y", y, len(lower))
    missed = np.maximum(lower - values, 0.0) + np.maximum(values - upper, 0.0)
    return float(np.mean(upper - lower + 2.0 / (1.0 - level) * missed))


# Of quantiles and distributions -------------------------------------------------------------------------------


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
    levels = np.atleast_1d(checks.array("quantiles", quantiles)).astype(np.float64)
    if levels.ndim != 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"quantiles must be numbers between 0 and 1, 0.05 for the lowest 5 percent, got {quantiles!r}")
    given = checks.array("predictions", predictions).astype(np.float64)
    given = given.reshape(-1, 1) if given.ndim == 1 else given
    if given.ndim != 2 or given.shape[1] != len(levels) or not len(given):
        raise ValueError(
            f"predictions must have a row for each of y and a column for each of {len(levels)} quantiles, got shape "
            f"{given.shape}"
        )
    error = _values("y", y, len(given), "predictions")[:, np.newaxis] - given
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
    mean = _values("prediction", prediction)
    spread = _values("std", std, len(mean), "prediction")
    if (spread < 0).any():
        raise ValueError(f"std must be at least 0, got {spread.min():g}")
    error = _values("y", y, len(mean), "prediction") - mean
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
    values = _values("y", y, samples.shape[1], "a sample")
    count = len(samples)
    ordered = np.sort(samples, axis=0)
    place = 2.0 * np.arange(count) - count + 1.0  # the sum of |x - x'| over pairs, by places in order
    apart = (place[:, np.newaxis] * ordered).sum(axis=0) / count**2
    return float(np.mean(np.abs(samples - values).mean(axis=0) - apart))


# Arguments ----------------------------------------------------------------------------------------------------


def _values(name: str, value: Any, rows: int | None = None, of: str = "predicted", called: str = "value") -> Doubles:
    """Finite numbers, one for each row."""
    given = checks.array(name, value).astype(np.float64)
    if given.ndim not in (1, 2) or (given.ndim == 2 and given.shape[1] != 1) or not given.size:
        raise ValueError(f"{name} must have shape (n,) or (n, 1) with n at least 1, got {given.shape}")
    if rows is not None and len(given) != rows:
        raise ValueError(f"{name} must have a {called} for each of the {rows} rows of {of}, got {len(given)}")
    wrong = ~np.isfinite(given)
    if wrong.any():
        raise ValueError(f"{name} has {int(wrong.sum())} values that are NaN or infinite")
    return given.reshape(-1)


def _labels(y: Any, rows: int, of: str, classes: int) -> NDArray[np.intp]:
    """Labels 0..classes - 1, one for each row."""
    values = _values("y", y, rows, of, "label")
    wrong = (values != np.floor(values)) | (values < 0) | (values >= classes)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(f"y must be labels 0..{classes - 1}, got {values[first]:g} at index {first}")
    return values.astype(np.intp)


def _ends(given: NDArray[Any], name: str = "predicted") -> tuple[Doubles, Doubles]:
    """Lower and upper ends of intervals, which may be infinite."""
    if given.ndim != 2 or given.shape[1] != 2 or not len(given):
        raise ValueError(
            f"{name} must be intervals, lower and upper ends of shape (n, 2) with n at least 1, or sets, of bool and "
            f"shape (n, classes); got {given.dtype} of shape {given.shape}"
        )
    lower, upper = given.astype(np.float64).T
    wrong = ~(lower <= upper)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{name} has an interval whose lower end is not below its upper one: {lower[first]:g} to {upper[first]:g} "
            f"in row {first}"
        )
    return lower, upper


def _members(given: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if given.ndim != 2 or not given.size:
        raise ValueError(f"predicted must be sets of shape (n, classes) with n at least 1, got {given.shape}")
    return given

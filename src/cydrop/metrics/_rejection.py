"""Of any uncertainty: whether a model knows when it errs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks
from cydrop.metrics._arguments import Doubles, ends, labels, members, probabilities, values
from cydrop.monte_carlo import MonteCarlo


def rejection_curve(
    y: ArrayLike, prediction: ArrayLike | MonteCarlo, uncertainty: ArrayLike | None = None
) -> tuple[Doubles, Doubles, Doubles]:
    """How good the predictions are that are kept when the least certain ones are refused: the accuracy of a classifier
    (Nadeem, Zucker and Hanczar 2009), the root mean squared error in regression (sparsification, Ilg et al. 2018).

    Parameters
    ----------
    y : array-like, shape (n,) or (n, 1)
        Numbers, or for probabilities labels 0..k-1.
    prediction : array-like, shape (n, k) or (n,) or (n, 1), or MonteCarlo
        k >= 2 columns are probabilities of classes, a single one is predicted numbers; for the probability p of label 1
        give `np.column_stack([1 - p, p])`. A MonteCarlo gives its mean, and says itself which of them it is.
    uncertainty : array-like, shape (n,) or (n, 1), or None
        Any number that is large where the prediction is not sure, such as `mc.epistemic`. For numbers also intervals,
        lower and upper ends of shape (n, 2), whose width it is, and for classes sets, of bool and shape (n, k), whose
        size it is. None takes `mc.std`, and for classes 1 - the largest probability: with true probabilities nothing
        does better (Chow 1970).

    Returns
    -------
    rejected : ndarray of float64, shape (n,)
        Shares of the rows: 0, 1/n, ..., (n-1)/n.
    score : ndarray of float64, shape (n,)
        Accuracy or root mean squared error of the rows that are kept. Of rows that are equally uncertain it is
        what their mean is, so that the order of the rows does not matter.
    oracle : ndarray of float64, shape (n,)
        The same when those with the largest errors are refused first: no uncertainty does better. To refuse rows
        at random changes nothing on average: the score stays at its first value.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    """
    errors, doubt, classes = _errors_and_doubt(y, prediction, uncertainty)
    curves = [_sums(errors, order)[::-1] / np.arange(len(errors), 0, -1) for order in (doubt, errors)]
    score, oracle = (1.0 - curve if classes else np.sqrt(curve) for curve in curves)
    return np.arange(len(errors)) / len(errors), score, oracle


def rejection_ratio(y: ArrayLike, prediction: ArrayLike | MonteCarlo, uncertainty: ArrayLike | None = None) -> float:
    """What the uncertainty gains by refusing rows, as a share of what the oracle gains: the prediction rejection ratio
    (Malinin, Mlodozeniec and Gales 2020).

    Of the sum of the errors (wrong labels, or squared errors) of the rows that are kept, drawn over the share that is
    refused, it is the area between chance and the uncertainty, over that between chance and the oracle. Unlike accuracy
    and squared error it says how good the uncertainty is, whatever the model.

    Parameters
    ----------
    y, prediction, uncertainty
        As for `rejection_curve`.

    Returns
    -------
    float
        1 for the oracle, 0 for chance, below 0 where the errors are among the more certain rows. NaN where all errors
        are the same, so that there is nothing to gain.

    Raises
    ------
    ValueError, TypeError
        As for `rejection_curve`.
    """
    errors, doubt, _ = _errors_and_doubt(y, prediction, uncertainty)
    if errors.min() == errors.max():
        return float("nan")
    chance = errors.sum() * np.arange(1, len(errors) + 1) / len(errors)
    gained, most = (np.sum(chance - _sums(errors, order)) for order in (doubt, errors))
    return float(gained / most)


def error_by_uncertainty(
    y: ArrayLike, prediction: ArrayLike | MonteCarlo, uncertainty: ArrayLike | None = None, bins: int = 10
) -> tuple[Doubles, Doubles, NDArray[np.int64]]:
    """The mean absolute error in regression by how uncertain the prediction is: rising, where the model knows when it
    errs (Levi et al. 2022).

    Parameters
    ----------
    y : array-like, shape (n,) or (n, 1)
    prediction : array-like, shape (n,) or (n, 1), or MonteCarlo
        Predicted numbers; of a MonteCarlo its mean.
    uncertainty : array-like, shape (n,) or (n, 1), or (n, 2), or None
        Standard deviations, say, or intervals, whose width it is. None takes the std of the MonteCarlo.
    bins : int >= 1
        As many rows in each as there can be, the most certain first; rows that are equally uncertain stay together.

    Returns
    -------
    uncertainty : ndarray of float64, shape (bins,)
        Its mean in each bin; NaN where there are no rows.
    error : ndarray of float64, shape (bins,)
        The mean of abs(y - prediction). For a normal distribution with the predicted standard deviation s it is
        sqrt(2 / pi) s.
    count : ndarray of int64, shape (bins,)
        The rows in each bin.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments, such as probabilities.
    """
    bins = checks.integer("bins", bins, 1)
    errors, doubt, classes = _errors_and_doubt(y, prediction, uncertainty)
    if classes:
        raise ValueError("prediction must be numbers, got probabilities of classes: calibration is for these")
    first = np.searchsorted(np.sort(doubt), doubt)  # how many rows are more certain
    number = first * bins // len(errors)
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(number, one, minlength=bins) / count for one in (doubt, np.sqrt(errors))]
    return means[0], means[1], count


def _sums(errors: Doubles, order: Doubles) -> Doubles:
    """Sums of the errors of the first 1, 2, ... rows in rising `order`; rows that are equal in it share theirs."""
    _, number, count = np.unique(order, return_inverse=True, return_counts=True)
    means = np.bincount(number.reshape(-1), errors) / count
    return np.cumsum(np.repeat(means, count))


def _errors_and_doubt(y: Any, prediction: Any, uncertainty: Any) -> tuple[Doubles, Doubles, bool]:
    """Of each row whether its label is wrong, or the squared error; its uncertainty; and which of the two it was."""
    mc = prediction if isinstance(prediction, MonteCarlo) else None
    given = checks.array("prediction", prediction if mc is None else mc.mean)
    if mc is not None and mc.entropy is not None and (given.ndim == 1 or given.shape[1] == 1):
        given = np.column_stack([1.0 - given.reshape(-1), given.reshape(-1)])  # of label 1
    if given.ndim == 2 and given.shape[1] > 1:
        if mc is not None and mc.entropy is None:
            raise ValueError(f"prediction has {given.shape[1]} targets: look at one at a time")
        p = probabilities(given, "prediction")
        found = labels(y, len(p), "prediction", p.shape[1])
        errors = (p.argmax(axis=1) != found).astype(np.float64)
        doubt = 1.0 - p.max(axis=1) if uncertainty is None else checks.array("uncertainty", uncertainty)
        if doubt.ndim == 2 and doubt.dtype == bool:
            doubt = members(doubt, "uncertainty").sum(axis=1)
        return errors, values("uncertainty", doubt, len(p), "prediction"), True
    numbers = values("prediction", given)
    errors = (values("y", y, len(numbers), "prediction") - numbers) ** 2
    if uncertainty is None and mc is None:
        raise ValueError("uncertainty must be given with predicted numbers; a MonteCarlo or probabilities bring theirs")
    doubt = checks.array("uncertainty", mc.std if mc is not None and uncertainty is None else uncertainty)
    if doubt.ndim == 2 and doubt.shape[1] == 2:
        lower, upper = ends(doubt, "uncertainty")
        doubt = upper - lower
    return errors, values("uncertainty", doubt, len(numbers), "prediction"), False

"""Of intervals and sets: how often they hold, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks
from cydrop.metrics._arguments import Doubles, ends, labels, members, of_quantiles, values


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
    return _covered("predicted", y, predicted)


def _covered(name: str, y: ArrayLike, predicted: ArrayLike) -> float:
    given = checks.array(name, predicted)
    if given.dtype == bool:
        sets = members(given, name)
        return float(np.mean(sets[np.arange(len(sets)), labels(y, len(sets), name, sets.shape[1])]))
    lower, upper = ends(given, name)
    target = values("y", y, len(lower), name)
    return float(np.mean((lower <= target) & (target <= upper)))


def coverage_curve(
    y: ArrayLike, predicted: Mapping[float, ArrayLike] | ArrayLike, quantiles: ArrayLike | None = None
) -> tuple[Doubles, Doubles, Doubles]:
    """Coverage over the coverage that was asked for, of intervals or sets of several levels; or the share of y up to a
    predicted quantile over its level (Kuleshov, Fenner and Ermon 2018).

    Parameters
    ----------
    y : array-like, shape (n,) or (n, 1)
        As for `coverage`.
    predicted : dict of float to array-like, or array-like of shape (n, k)
        Intervals or sets for each coverage in (0, 1); or, with `quantiles`, a column for each quantile.
    quantiles : float in (0, 1), array-like of shape (k,), or None
        The levels of the columns of `predicted`.

    Returns
    -------
    nominal : ndarray of float64, shape (k,)
        What was asked for, in rising order.
    observed : ndarray of float64, shape (k,)
        What was found.
    error : ndarray of float64, shape (k,)
        Standard error of `observed` where the true coverage is the nominal one and the rows are independent,
        sqrt(c (1 - c) / n): more than twice as much is hardly chance.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    """
    if isinstance(predicted, Mapping):
        if quantiles is not None:
            raise ValueError("quantiles are for an array of predicted quantiles; a dict has its coverages as keys")
        if not predicted:
            raise ValueError("predicted is an empty dict; give coverage: intervals for each level")
        levels = {checks.number("coverage", key, 0.0, 1.0, low_open=True, high_open=True): key for key in predicted}
        nominal = np.sort(np.array(list(levels)))
        shares = [_covered(f"predicted[{levels[one]}]", y, predicted[levels[one]]) for one in nominal.tolist()]
        rows, observed = len(checks.array("y", y)), np.array(shares)
    elif quantiles is None:
        raise TypeError(
            "predicted must be a dict of coverage: intervals, or predicted quantiles with quantiles=[their levels], "
            f"got {type(predicted).__name__}"
        )
    else:
        given, nominal = of_quantiles(predicted, quantiles, "predicted")
        rows, order = len(given), np.argsort(nominal, kind="stable")
        target = values("y", y, rows)[:, np.newaxis]
        nominal, observed = nominal[order], (target <= given[:, order]).mean(axis=0)
    return nominal, observed, np.sqrt(nominal * (1.0 - nominal) / rows)


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
        return float(np.mean(members(given).sum(axis=1)))
    lower, upper = ends(given)
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
    lower, upper = ends(checks.array("intervals", intervals), "intervals")
    target = values("y", y, len(lower))
    missed = np.maximum(lower - target, 0.0) + np.maximum(target - upper, 0.0)
    return float(np.mean(upper - lower + 2.0 / (1.0 - level) * missed))

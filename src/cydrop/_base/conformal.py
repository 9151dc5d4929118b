"""Conformal prediction: how far a model errs on rows that it was not trained on becomes intervals and sets that hold.

    scores of n rows that the model has not seen: how wrong it is there, by any measure
    t, the ceil((n + 1) coverage)-th smallest of them
    of a new row, everything whose score is at most t

If the new row is exchangeable with the n rows, what it turns out to be is among that with at least this probability,
whatever the model (Vovk, Gammerman and Shafer 2005; Lei et al. 2018), and, where scores have no ties, with at most
1 / (n + 1) more.

    y       lower          upper             a model says: between lower and upper, in units of scale
    |---------|--------------|---------->    score = max(lower - y, y - upper) / scale
              <- t scale     t scale ->      interval = lower - t scale to upper + t scale

With lower and upper equal, an error in units of a predicted scale (Papadopoulos et al. 2002; Lei et al. 2018); with two
predicted quantiles, conformalised quantile regression (Romano, Patterson and Candes 2019), in units of their distance
(Sesia and Candes 2020). Rows may come in folds, each
with the model that was trained without it: CV+ (Barber, Candes, Ramdas and Tibshirani 2021). NumPy alone, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]

NEARLY = 1e-9  # (n + 1) coverage is taken for a whole number where only rounding makes it larger
HALVINGS = 64  # of where the end of an interval of several folds can be
PRIOR_ROWS = 10  # of the temperature
PIECE = 1 << 16  # rows of several folds at a time


def place(rows: int, coverage: float) -> int:
    """ceil((rows + 1) coverage): which of the scores in ascending order, from 1, is the threshold."""
    return math.ceil((rows + 1) * coverage - NEARLY)


def least_rows(coverage: float) -> int:
    """The rows that are needed: as many as let the threshold be one of their scores."""
    return math.ceil(coverage / (1.0 - coverage) - NEARLY)


def check_rows(rows: int, coverage: float) -> None:
    """Raises ValueError where so few rows cannot promise this coverage."""
    if place(rows, coverage) > rows:
        most = math.floor(rows / (rows + 1) * 1000) / 1000
        instead = f"; with these, ask for {most:g} at most" if most else ""
        raise ValueError(
            f"coverage={coverage:g} cannot be promised by {rows} calibration row{'' if rows == 1 else 's'}: at least "
            f"{least_rows(coverage)} are needed{instead}"
        )


def thresholds(scores: Sequence[Doubles], coverage: float) -> list[Doubles]:
    """The scores of each fold in ascending order, of one fold only the threshold: all that intervals and sets depend
    on.

    Raises
    ------
    ValueError
        Where there are too few.
    """
    rows = sum(len(fold) for fold in scores)
    check_rows(rows, coverage)
    ordered = [np.sort(fold) for fold in scores if len(fold)]
    return [ordered[0][place(rows, coverage) - 1 :][:1]] if len(ordered) == 1 else ordered


# Numbers ----------------------------------------------------------------------------------------------------


class Band(NamedTuple):
    """What a model says of rows: between lower and upper, give or take some scales. Each of shape (rows,)."""

    lower: Doubles
    upper: Doubles
    scale: Doubles


def outside(y: Doubles, band: Band) -> Doubles:
    """The scores of y: how many scales it is outside, below 0 inside."""
    return np.maximum(band.lower - y, y - band.upper) / band.scale


def interval(bands: Sequence[Band], scores: Sequence[Doubles], coverage: float) -> Doubles:
    """The intervals of new rows, shape (rows, 2).

    Of several folds, where the model without fold k says lower_k, upper_k and scale_k, and row i of that fold has the
    score e_i: from the place-th largest of all lower_k - e_i scale_k to the place-th smallest of all
    upper_k + e_i scale_k, the place that of all rows. What is proved of it is 1 - 2 (1 - coverage); what is seen is
    the coverage (Barber et al. 2021, section 1.2).

    Parameters
    ----------
    bands : sequence of Band
        What the model of each fold says of the new rows.
    scores : sequence of ndarray
        Of the rows of each fold, by its model.
    coverage : float in (0, 1)
    """
    at = place(sum(len(fold) for fold in scores), coverage)
    ordered = thresholds(scores, coverage)
    bands = [band for band, fold in zip(bands, scores, strict=True) if len(fold)]
    if len(ordered) == 1:
        band, by = bands[0], ordered[0][0]
        ends = np.stack([band.lower - by * band.scale, band.upper + by * band.scale], axis=-1)
    else:
        ends = np.stack(
            [
                -_joint([-band.lower for band in bands], [band.scale for band in bands], ordered, at),
                _joint([band.upper for band in bands], [band.scale for band in bands], ordered, at),
            ],
            axis=-1,
        )
    crossed = ends[:, 0] > ends[:, 1]  # scores below 0, and folds that disagree by more than their errors
    ends[crossed] = ends[crossed].mean(axis=1, keepdims=True)
    return ends


def _joint(starts: Sequence[Doubles], scales: Sequence[Doubles], ordered: Sequence[Doubles], at: int) -> Doubles:
    """The at-th smallest of all start_k + e_i scale_k, e_i the scores of fold k in ascending order; for each row.

    How many are at most v is one search a fold. v is halved into place between the least and the largest.
    """
    found = np.empty(len(starts[0]))
    for first in range(0, len(found), PIECE):
        some = slice(first, first + PIECE)
        start, scale = [one[some] for one in starts], [one[some] for one in scales]
        low = np.min([s + e[0] * u for s, u, e in zip(start, scale, ordered, strict=True)], axis=0)
        high = np.max([s + e[-1] * u for s, u, e in zip(start, scale, ordered, strict=True)], axis=0)
        for _ in range(HALVINGS):
            middle = low + (high - low) / 2.0
            count = np.zeros(len(middle), dtype=np.int64)
            for s, u, e in zip(start, scale, ordered, strict=True):
                count += np.searchsorted(e, (middle - s) / u, side="right")
            enough = count >= at
            high, low = np.where(enough, middle, high), np.where(enough, low, middle)
        found[some] = high
    return found


# Classes ----------------------------------------------------------------------------------------------------


def class_scores(proba: Doubles, penalty: float = 0.0, free: int = 1) -> Doubles:
    """Of every class of every row how much probability the likelier classes have together: a set up to the class that
    makes it reach a share is the adaptive prediction set (Romano, Sesia and Candes 2020; without its random part). For
    each class beyond the `free` likeliest a penalty more (Angelopoulos et al. 2021). The likeliest class scores 0, so
    that no set is empty.

    Parameters
    ----------
    proba : ndarray, shape (n, classes)
    penalty : float >= 0
    free : int >= 0

    Returns
    -------
    ndarray, shape (n, classes)
    """
    order = np.argsort(-proba, axis=1, kind="stable")
    ordered = np.take_along_axis(proba, order, axis=1)
    before = np.cumsum(ordered, axis=1) - ordered
    before[:, 0] = 0.0
    before += penalty * np.maximum(np.arange(proba.shape[1]) + 1 - max(free, 1), 0)
    scores = np.empty_like(before)
    np.put_along_axis(scores, order, before, axis=1)
    return scores


def improbabilities(proba: Doubles) -> Doubles:
    """Of every class of every row 1 - its probability: all classes that are likely enough are in the set, which on
    average is the smallest there is where the probabilities are right, and may be empty (Sadinle, Lei and Wasserman
    2019, "Least ambiguous set-valued classifiers with bounded error levels")."""
    return np.asarray(1.0 - proba)


def class_sets(
    new: Sequence[Doubles], scores: Sequence[Doubles], coverage: float, empty: bool = False
) -> NDArray[np.bool_]:
    """The classes in the sets of new rows, (rows, classes).

    A class is in it where fewer than `place` of the known rows have a lower score, each compared with what the model
    of its own fold gives the class.

    Parameters
    ----------
    new : sequence of ndarray, shape (rows, classes)
        Scores by the model of each fold.
    scores : sequence of ndarray
        Of the rows of each fold, those of their own class.
    coverage : float in (0, 1)
    empty : bool
        Whether a set of several folds may be empty. That of one is where no class has so low a score.
    """
    at = place(sum(len(fold) for fold in scores), coverage)
    ordered = thresholds(scores, coverage)
    new = [one for one, fold in zip(new, scores, strict=True) if len(fold)]
    if len(ordered) == 1:
        return np.asarray(new[0] <= ordered[0][0])
    lower = np.zeros(new[0].shape, dtype=np.int64)
    for one, fold in zip(new, ordered, strict=True):
        lower += np.searchsorted(fold, one, side="left")
    members = lower < at
    if not empty:  # folds whose likeliest classes differ may leave none: then that with fewest below it
        none = ~members.any(axis=1)
        members[none, lower[none].argmin(axis=1)] = True
    return np.asarray(members)


def temperature(proba: Doubles, codes: NDArray[Any]) -> float:
    """The number that divides the logarithms of probabilities so that y is likeliest (Guo et al. 2017).

    As if PRIOR_ROWS more had come out as often as their probabilities say, which draws it to 1: of a few rows that are
    all right, any small number would do. The mean of log p_y at 1 / T is concave in 1 / T: its slope is halved into
    place between 1/64 and 64.

    Parameters
    ----------
    proba : ndarray, shape (n, classes)
    codes : ndarray of int, shape (n,)
    """
    logs = np.log(np.maximum(proba, np.finfo(np.float32).tiny))
    own = logs[np.arange(len(logs)), codes].sum() + PRIOR_ROWS * (proba * logs).sum(axis=1).mean()
    own /= len(logs) + PRIOR_ROWS
    low, high = -math.log(64.0), math.log(64.0)  # of log 1 / T
    for _ in range(40):
        middle = (low + high) / 2.0
        expected = (scaled(logs, math.exp(middle)) * logs).sum(axis=1).mean()
        low, high = (middle, high) if own >= expected else (low, middle)
    return math.exp(-(low + high) / 2.0)


def scaled(logs: Doubles, factor: float) -> Doubles:
    """softmax(factor logs)."""
    z = factor * (logs - logs.max(axis=1, keepdims=True))
    p = np.exp(z)
    return np.asarray(p / p.sum(axis=1, keepdims=True))

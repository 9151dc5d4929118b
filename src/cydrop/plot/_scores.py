"""Of how good predictions of uncertainty are: the curves of `cydrop.metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cydrop import metrics
from cydrop._base import checks
from cydrop._base.figures import axes
from cydrop.monte_carlo import MonteCarlo


def reliability_diagram(y: ArrayLike, proba: ArrayLike | MonteCarlo, *, bins: int = 10, ax: Any = None) -> Any:
    """Accuracy over confidence, bin by bin: on the diagonal where a classifier is right as often as it says.

    Bars in the background show the share of the rows in each bin; the legend has the expected calibration error.
    `calibration` says what confidence and accuracy are, and gives the numbers.

    Parameters
    ----------
    y, proba, bins
        As for `calibration`.
    ax : matplotlib axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    ImportError
        Without matplotlib.
    """
    confidence, accuracy, count = metrics.calibration(y, proba, bins)
    some = count > 0
    shape = np.shape(proba.mean if isinstance(proba, MonteCarlo) else proba)
    single = len(shape) == 1 or shape[1] == 1
    ax = axes(ax)
    centres = (np.arange(len(count)) + 0.5) / len(count)
    ax.bar(centres, count / count.sum(), 1 / len(count), color="0.85", edgecolor="white", label="share of the rows")
    ax.plot([0, 1], [0, 1], color="0.5", linestyle="--", label="perfectly calibrated")
    label = f"expected calibration error {metrics.calibration_error(y, proba, bins):.3f}"
    ax.plot(confidence[some], accuracy[some], marker="o", label=label)
    ax.set_xlabel("predicted probability of label 1" if single else "confidence")
    ax.set_ylabel("share of label 1" if single else "accuracy")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.legend()
    return ax


def coverage_curve(
    y: ArrayLike,
    predicted: Mapping[float, ArrayLike] | ArrayLike,
    quantiles: ArrayLike | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Coverage over the coverage that was asked for: on the diagonal where intervals hold what they promise, below it
    where they are too narrow. Of quantiles, the share of y up to each over its level.

    The band is twice the standard error of a share of so many independent rows: within it a difference may be chance.

    Parameters
    ----------
    y, predicted, quantiles
        As for `cydrop.metrics.coverage_curve`, which has the numbers: `predicted` is a dict of coverage: intervals,
        or sets, or predicted quantiles, whose levels are `quantiles`.
    ax : matplotlib axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    ImportError
        Without matplotlib.
    """
    nominal, observed, _ = metrics.coverage_curve(y, predicted, quantiles)
    rows = len(checks.array("y", y))
    ax = axes(ax)
    line = np.linspace(0, 1, 201)
    error = 2 * np.sqrt(line * (1 - line) / rows)
    low, high = np.maximum(line - error, 0), np.minimum(line + error, 1)
    ax.fill_between(line, low, high, color="0.85", linewidth=0, label=f"± 2 standard errors of {rows:,} rows")
    ax.plot([0, 1], [0, 1], color="0.5", linestyle="--", label="as asked for")
    ax.plot(nominal, observed, marker="o", label="observed")
    ax.set_xlabel("coverage asked for" if quantiles is None else "quantile")
    ax.set_ylabel("coverage observed" if quantiles is None else "share of y up to the prediction")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.legend()
    return ax


def error_by_uncertainty(
    y: ArrayLike,
    prediction: ArrayLike | MonteCarlo,
    uncertainty: ArrayLike | None = None,
    *,
    bins: int = 10,
    ax: Any = None,
) -> Any:
    """The mean absolute error in regression over the predicted uncertainty: rising, where the model knows when it errs.

    With the standard deviations of a MonteCarlo a dashed line shows the error of normal distributions with these.

    Parameters
    ----------
    y, prediction, uncertainty, bins
        As for `cydrop.metrics.error_by_uncertainty`, which has the numbers.
    ax : matplotlib axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    ImportError
        Without matplotlib.
    """
    doubt, error, count = metrics.error_by_uncertainty(y, prediction, uncertainty, bins)
    some = count > 0
    ax = axes(ax)
    if uncertainty is None:
        ends = np.array([0, doubt[some][-1]])
        ax.plot(ends, np.sqrt(2 / np.pi) * ends, color="0.5", linestyle="--", label="normal with this std")
    ax.plot(doubt[some], error[some], marker="o", label=f"{count.sum():,} rows in {some.sum()} bins")
    ax.set_xlabel("predicted standard deviation" if uncertainty is None else "uncertainty")
    ax.set_ylabel("mean absolute error")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def rejection_curve(
    y: ArrayLike,
    prediction: ArrayLike | MonteCarlo,
    uncertainty: ArrayLike | Mapping[str, ArrayLike] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """The accuracy of a classifier, or the root mean squared error in regression, of the rows that are kept when the
    least certain ones are refused.

    Beside it the oracle, which refuses the largest errors first, and chance, which gains nothing. The legend has the
    rejection ratio: 1 for the oracle, 0 for chance.

    Parameters
    ----------
    y, prediction
        As for `cydrop.metrics.rejection_curve`, which has the numbers.
    uncertainty : array-like, dict of str to array-like, or None
        As for `cydrop.metrics.rejection_curve`; several are compared, `{"epistemic": mc.epistemic, "total": mc.total}`.
    ax : matplotlib axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError, TypeError
        For unusable arguments.
    ImportError
        Without matplotlib.
    """
    several = uncertainty if isinstance(uncertainty, Mapping) else {"least certain first": uncertainty}
    if not several:
        raise ValueError("uncertainty is an empty dict; give name: array for each curve")
    found = {name: metrics.rejection_curve(y, prediction, one) for name, one in several.items()}
    ratios = {name: metrics.rejection_ratio(y, prediction, one) for name, one in several.items()}
    ax = axes(ax)
    for name, (rejected, score, _) in found.items():
        ratio = "" if np.isnan(ratios[name]) else f", rejection ratio {ratios[name]:.2f}"
        ax.plot(rejected, score, label=f"{name}{ratio}", zorder=3)
    rejected, score, oracle = next(iter(found.values()))
    ax.plot(rejected, oracle, color="0.5", linestyle=":", label="oracle")
    ax.plot([0, 1], [score[0], score[0]], color="0.5", linestyle="--", label="at random")
    if isinstance(prediction, MonteCarlo):
        classes = prediction.entropy is not None
    else:
        classes = np.ndim(prediction) == 2 and np.shape(prediction)[1] > 1
    ax.set_xlabel("share of the rows refused")
    ax.set_ylabel("accuracy of the rest" if classes else "root mean squared error of the rest")
    ax.set_xlim(0, 1)
    ax.legend()
    return ax

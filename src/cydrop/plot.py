"""Pictures of training and predictions, with matplotlib (`pip install "cydrop[plot]"`).

Every function draws into the axes `ax`, or into those of a new figure, and returns them; nothing is shown and no
style is set. The numbers behind them are in `cydrop.metrics`, which needs NumPy alone; two that came from here keep
their names: `calibration` and `expected_calibration_error`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks
from cydrop._base.figures import axes
from cydrop.history import History, curves
from cydrop.layers import Dense
from cydrop.metrics import calibration
from cydrop.metrics import calibration_error as expected_calibration_error
from cydrop.monte_carlo import MonteCarlo

__all__ = [
    "calibration",
    "expected_calibration_error",
    "first_layer_weights",
    "learning_curves",
    "predictive_bands",
    "reliability_diagram",
]

Numbers = NDArray[np.float64]


# Training -------------------------------------------------------------------------------------------------


def learning_curves(history: History | Mapping[str, History], *, metric: str = "loss", ax: Any = None) -> Any:
    """A metric over the epochs: in training, in training with dropout off (``clean_``), and in validation.

    A dot marks the best epoch of the validation, for metrics whose name says whether less or more is better.

    Parameters
    ----------
    history : History, or dict of str to History
        Several are compared, each in its own colour; validation is solid, training dashed, clean training dotted.
    metric : str
        "loss", "accuracy", "rmse", "learning_rate", ..., without ``val_`` or ``clean_``.
    ax : matplotlib axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        For an empty history, or a metric that it does not have.
    ImportError
        Without matplotlib.
    """
    several = isinstance(history, Mapping)
    histories = dict(history) if isinstance(history, Mapping) else {"": history}
    if not histories:
        raise ValueError("history is an empty dict; give name: History for each curve")
    for name, one in histories.items():
        called = f"history[{name!r}]" if several else "history"
        if not isinstance(one, History):
            raise TypeError(f"{called} must be a History, as fit returns it, got {type(one).__name__}")
        curves.check(called, one.metrics, metric)
    return curves.draw({name: one.metrics for name, one in histories.items()}, metric, ax, several)


# Monte Carlo dropout --------------------------------------------------------------------------------------


def predictive_bands(
    x: ArrayLike,
    mc: MonteCarlo,
    *,
    levels: float | Sequence[float] = (1, 2),
    bands: str = "std",
    output: int | None = None,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Any = None,
) -> Any:
    """The mean of Monte Carlo predictions over a one-dimensional input, with bands around it.

    Parameters
    ----------
    x : array-like, shape (n,) or (n, 1)
        The input of each row of `mc`, in any order: sorted for drawing.
    mc : MonteCarlo
        From `Network.predict_mc` or an estimator's.
    levels : float > 0, or sequence of them
        Half widths of the bands, in standard deviations. They hold the spread of the model (dropout); noise in y is
        in them for "gaussian_nll" only.
    bands : "std" or "quantiles"
        "quantiles" draws those of `predict_mc(quantiles=...)` instead of standard deviations: between the smallest and
        the largest, the second and the last but one, ...; with an odd number the middle one is a dashed line.
    output : int or None
        Which output to draw; None where there is only one.
    data : (x, y) or None
        Points to draw, such as the training data.
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
    if not isinstance(mc, MonteCarlo):
        raise TypeError(f"mc must be a MonteCarlo, as predict_mc returns it, got {type(mc).__name__}")
    rows = len(mc.mean)
    means, stds = mc.mean.reshape(rows, -1), mc.std.reshape(rows, -1)  # those of an estimator may be (n,)
    units = means.shape[1]
    if output is None and units > 1:
        raise ValueError(f"mc has {units} outputs: give output=0 to {units - 1}")
    column = 0 if output is None else checks.integer("output", output, 0, units - 1)
    position = _column("x", x)
    if len(position) != rows:
        raise ValueError(f"x must have a value for each of the {rows} rows of mc, got {len(position)}")
    order = np.argsort(position, kind="stable")
    position, mean = position[order], means[order, column].astype(np.float64)
    pairs: list[tuple[str, Numbers, Numbers]] = []
    middle: Numbers | None = None
    if checks.choice("bands", bands, {"std": True, "quantiles": False}):
        std = stds[order, column].astype(np.float64)
        for level in sorted(
            (checks.number("levels", level, 0.0, low_open=True) for level in np.atleast_1d(levels)), reverse=True
        ):
            pairs.append((f"± {level:g} std", mean - level * std, mean + level * std))
    else:
        if mc.quantiles is None:
            raise ValueError("bands='quantiles' needs predict_mc(..., quantiles=[...])")
        quantiles = mc.quantiles.reshape(-1, rows, units)[:, order, column]
        curves = np.sort(quantiles.astype(np.float64), axis=0)
        half = len(curves) // 2
        for number in range(half):
            pairs.append((f"quantiles {number + 1} and {len(curves) - number}", curves[number], curves[-1 - number]))
        middle = curves[half] if len(curves) % 2 else None
    points = None
    if data is not None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ValueError("data must be (x, y)")
        points = _column("x of data", data[0]), _column("y of data", data[1])
        if len(points[0]) != len(points[1]):
            raise ValueError(f"data must have as many x as y, got {len(points[0])} and {len(points[1])}")
    ax = axes(ax)
    (line,) = ax.plot(position, mean, label="mean", zorder=3)
    for label, low, high in pairs:  # the widest first; those within it lie on it and are darker
        ax.fill_between(position, low, high, color=line.get_color(), alpha=0.2, linewidth=0, label=label)
    if middle is not None:
        name = f"quantile {len(pairs) + 1}"
        ax.plot(position, middle, color=line.get_color(), linestyle="--", label=name, zorder=3)
    if points is not None:
        ax.plot(*points, color="black", linestyle="none", marker=".", label="data", zorder=2)
    ax.legend()
    return ax


def _column(name: str, value: ArrayLike) -> Numbers:
    """Finite numbers, (n,) or (n, 1), in float64: a picture may show times and dates."""
    result = checks.array(name, value).astype(np.float64)
    if result.ndim == 2 and result.shape[1] == 1:
        result = result[:, 0]
    if result.ndim != 1 or not result.size:
        raise ValueError(f"{name} must have shape (n,) or (n, 1) with n at least 1, got {result.shape}")
    if not np.isfinite(result).all():
        raise ValueError(f"{name} has {int((~np.isfinite(result)).sum())} values that are NaN or infinite")
    return result


# Calibration ----------------------------------------------------------------------------------------------


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
    confidence, accuracy, count = calibration(y, proba, bins)
    some = count > 0
    shape = np.shape(proba.mean if isinstance(proba, MonteCarlo) else proba)
    single = len(shape) == 1 or shape[1] == 1
    ax = axes(ax)
    centres = (np.arange(len(count)) + 0.5) / len(count)
    ax.bar(centres, count / count.sum(), 1 / len(count), color="0.85", edgecolor="white", label="share of the rows")
    ax.plot([0, 1], [0, 1], color="0.5", linestyle="--", label="perfectly calibrated")
    label = f"expected calibration error {expected_calibration_error(y, proba, bins):.3f}"
    ax.plot(confidence[some], accuracy[some], marker="o", label=label)
    ax.set_xlabel("predicted probability of label 1" if single else "confidence")
    ax.set_ylabel("share of label 1" if single else "accuracy")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.legend()
    return ax


# Weights --------------------------------------------------------------------------------------------------


def first_layer_weights(network: Any, *, shape: tuple[int, int] | None = None, units: int = 36, ax: Any = None) -> Any:
    """What the units of the first dense layer look for in an image: their weights as images, red above 0, blue below.

    Parameters
    ----------
    network : Network
        Built; its rows are images, pixel by pixel, line by line.
    shape : (height, width) or None
        Shape of an image; None is a square.
    units : int >= 1
        How many units at most: the first ones, in order, so that pictures of two epochs show the same units.
    ax : matplotlib axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        For a network without a dense layer, or images that do not have this shape.
    RuntimeError
        For a network that is not built.
    ImportError
        Without matplotlib.
    """
    units = checks.integer("units", units, 1)
    place = next((place for place, layer in enumerate(network.layers) if isinstance(layer, Dense)), None)
    if place is None:
        raise ValueError("the network has no dense layer, whose weights could be drawn")
    weights = network.parameters()[f"{place}.weight"][:, :units]
    height, width = _image_shape(len(weights), shape)
    shown = weights.shape[1]
    across = math.ceil(math.sqrt(shown))
    down = math.ceil(shown / across)
    mosaic = np.full((down * (height + 1) + 1, across * (width + 1) + 1), np.nan, dtype=np.float32)
    for unit in range(shown):
        top, left = 1 + unit // across * (height + 1), 1 + unit % across * (width + 1)
        mosaic[top : top + height, left : left + width] = weights[:, unit].reshape(height, width)
    largest = float(np.abs(weights).max()) or 1.0
    ax = axes(ax)
    ax.imshow(mosaic, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    ax.set_facecolor("0.3")  # seen where the mosaic is NaN: between the images
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel(f"weights from {-largest:.2g} (blue) to {largest:.2g} (red)")
    return ax


def _image_shape(pixels: int, shape: Any) -> tuple[int, int]:
    if shape is None:
        side = math.isqrt(pixels)
        if side * side != pixels:
            raise ValueError(f"{pixels} features are no square image: give shape=(height, width)")
        return side, side
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise ValueError(f"shape must be (height, width), got {shape!r}")
    height, width = (checks.integer("shape", length, 1) for length in shape)
    if height * width != pixels:
        raise ValueError(
            f"shape={(height, width)} has {height * width} pixels, the first dense layer has {pixels} inputs"
        )
    return height, width

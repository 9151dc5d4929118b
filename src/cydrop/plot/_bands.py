"""Of predictions over one input: bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks
from cydrop._base.figures import axes
from cydrop.monte_carlo import MonteCarlo

Numbers: TypeAlias = NDArray[np.float64]


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


def interval_band(
    x: ArrayLike, intervals: ArrayLike, y: ArrayLike | None = None, center: ArrayLike | None = None, *, ax: Any = None
) -> Any:
    """Predicted intervals over a one-dimensional input, as a band; the points that fall outside are marked.

    Parameters
    ----------
    x : array-like, shape (n,) or (n, 1)
        The input of each row, in any order: sorted for drawing. Of several features, the one to look along.
    intervals : array-like, shape (n, 2)
        Lower and upper ends.
    y : array-like, shape (n,) or (n, 1), or None
        What was observed, as points. The legend says how many are outside.
    center : array-like, shape (n,) or (n, 1), or None
        A line within the band, such as a median or a mean.
    ax : matplotlib axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError, TypeError
        For unusable arguments, such as intervals that are not bounded.
    ImportError
        Without matplotlib.
    """
    position = _column("x", x)
    given = checks.array("intervals", intervals).astype(np.float64)
    if given.shape != (len(position), 2):
        raise ValueError(
            f"intervals must have a lower and an upper end for each of the {len(position)} x, shape "
            f"({len(position)}, 2), got {given.shape}"
        )
    low, high = given.T
    unbounded = int(np.isinf(given).any(axis=1).sum())
    if unbounded:
        raise ValueError(
            f"intervals has {unbounded} rows without bounds, which no picture has room for: ask for less coverage, or "
            "calibrate with more rows"
        )
    if not (low <= high).all():
        raise ValueError(f"intervals has {int((~(low <= high)).sum())} rows whose lower end is not below the upper one")
    points = None if y is None else _column("y", y)
    line = None if center is None else _column("center", center)
    for name, values in (("y", points), ("center", line)):
        if values is not None and len(values) != len(position):
            raise ValueError(f"{name} must have a value for each of the {len(position)} x, got {len(values)}")
    order = np.argsort(position, kind="stable")
    ax = axes(ax)
    band = ax.fill_between(position[order], low[order], high[order], alpha=0.25, linewidth=0, label="interval")
    if line is not None:
        ax.plot(position[order], line[order], color=band.get_facecolor()[0][:3], label="center", zorder=3)
    if points is not None:
        inside = (low <= points) & (points <= high)
        style = {"linestyle": "none", "zorder": 2}
        ax.plot(position[inside], points[inside], color="0.3", marker=".", label="inside", **style)
        outside = f"outside: {np.mean(~inside):.1%} of {len(points):,}"
        ax.plot(position[~inside], points[~inside], color="tab:red", marker="x", label=outside, **style)
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

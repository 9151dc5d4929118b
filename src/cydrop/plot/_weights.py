"""Of weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cydrop._base import checks
from cydrop._base.figures import axes
from cydrop.layers import Dense


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

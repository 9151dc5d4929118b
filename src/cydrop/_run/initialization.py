"""Parameters that begin with what rows look like: layer by layer, each on what those before it give.

Nothing here depends on threads or on the order in which NumPy adds: products are the engine's, and sums of float64 are
taken by halves, element by element.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base import seeding
from cydrop._base.arrays import Floats
from cydrop._run.core import Core
from cydrop._run.model import Model
from cydrop._run.plan import Plan
from cydrop._run.prediction import predict
from cydrop.losses import MSE
from cydrop.optimizers import SGD

MOST_BYTES = 10**9  # of the rows in any layer; rows beyond it are not used
PIECE = 1024  # rows that are summed at a time: their float64 stay in the second-level cache
NOISE = 1e-6  # of the mean: in float32 a deviation below it is rounding


def initialize(core: Core, X: Floats, root: tuple[int, ...]) -> None:
    """Puts other parameters in force, that depend on rows and a seed: all or, after an error or interrupt, none."""
    model = core.built_for(X.shape[1])
    widest = max(math.prod(shape) for shape in model.plan.shapes)
    arrays = {name: array.copy() for name, array in model.arrays().items()}
    rows = X[: max(1, MOST_BYTES // (4 * widest))]
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        fill(core.layers, rows, arrays, seeding.branch(root, seeding.FROM_DATA), core.n_threads)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"X has numbers that are too large for float32 to compute with: {name!r} is not finite")
    core.take_over(arrays)


def fill(
    layers: Sequence[Any], x: Floats, arrays: Mapping[str, Floats], seed: np.random.SeedSequence, n_threads: int = 1
) -> None:
    """Overwrites the arrays of layers that stand one after another: of a network, or within a layer.

    Parameters
    ----------
    layers : sequence of layers
    x : ndarray of float32, shape (n, columns)
        Rows that come into the first.
    arrays : mapping of str to ndarray
        By place and word: "0.weight".
    seed : numpy.random.SeedSequence
    n_threads : int
    """
    number = 0
    for place, layer in enumerate(layers):
        start = f"{place}."
        own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        if own:
            layer.initialize_from(x, own, seeding.child(seed, number))
            number += 1  # what has no parameters shifts nobody's random numbers
        if place + 1 < len(layers):
            x = _output(layer, x, own, n_threads)


def _output(layer: Any, x: Floats, own: Mapping[str, Floats], n_threads: int) -> Floats:
    """What a layer with these arrays gives, dropout off."""
    model = Model.of(Plan.of((layer,), x.shape[1]).seed((0,)), MSE(), SGD(), n_threads, "float32")
    for name, view in model.arrays().items():
        view[...] = own[name.partition(".")[2]]
    return predict(model, x, False)


def deviations(z: Floats) -> NDArray[np.float64]:
    """The population standard deviation of each column; 0 where float32 could not hold it beside the mean.

    Parameters
    ----------
    z : ndarray of float32, shape (n, units)
    """
    first = z[0].astype(np.float64)  # values that are all the same differ from it by exactly 0
    mean = _column_sums(z, first) / len(z)
    deviation = np.sqrt(_column_sums(z, first + mean, squared=True) / len(z))
    found: NDArray[np.float64] = np.where(deviation > NOISE * np.abs(first + mean), deviation, 0.0)
    return found


def _column_sums(z: Floats, origin: NDArray[np.float64], squared: bool = False) -> NDArray[np.float64]:
    """Sums over the rows of z - origin, or of its squares."""
    total = np.zeros(z.shape[1])
    for start in range(0, len(z), PIECE):
        rows = z[start : start + PIECE] - origin
        if squared:
            rows *= rows
        while len(rows) > 1:
            half, odd = divmod(len(rows), 2)
            if odd:
                rows[0] += rows[-1]
            rows = rows[:half] + rows[half : 2 * half]
        total += rows[0]
    return total

"""Learning rates, and the rates of dropout and noise, at points of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cydrop._run.plan import Draws
from cydrop.schedules import Rate, value_at


class Rates(NamedTuple):
    """Learning rates, shape (batches,), and those of what is drawn, (batches, draws); one row may hold for all."""

    learning: NDArray[np.float64]
    drawing: NDArray[np.float64]


def rates_at(progress: Sequence[float], learning_rate: Rate, drawing: Sequence[Draws]) -> Rates:
    """The rates at these points of training, each in [0, 1]."""
    learning = np.array([value_at("learning_rate", learning_rate, p) for p in progress], dtype=np.float64)
    found = np.empty((len(progress), len(drawing)))
    for column, layer in enumerate(drawing):
        found[:, column] = [layer.rate_at(p) for p in progress]
    return Rates(learning, found)


def any_changes(learning_rate: Rate, drawing: Sequence[Draws]) -> bool:
    """Whether any of these rates changes during training."""
    return callable(learning_rate) or any(callable(layer.rate_value) for layer in drawing)


def check_rates(learning_rate: Rate, drawing: Sequence[Draws]) -> None:
    """Raises for rates that leave their range somewhere in training."""
    if any_changes(learning_rate, drawing):
        rates_at([step / 100 for step in range(101)], learning_rate, drawing)

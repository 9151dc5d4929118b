"""Learning rates and weight decays, and the rates of dropout and noise, at points of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cydrop._run.plan import Draws
from cydrop.optimizers import SCHEDULED, Optimizer
from cydrop.schedules import value_at


class Rates(NamedTuple):
    """Learning rates and weight decays, shape (batches,), and the rates of what is drawn, (batches, draws); one row may
    hold for all."""

    learning: NDArray[np.float64]
    decay: NDArray[np.float64]
    drawing: NDArray[np.float64]


def rates_at(progress: Sequence[float], optimizer: Optimizer, drawing: Sequence[Draws]) -> Rates:
    """The rates at these points of training, each in [0, 1]."""
    learning, decay = (
        np.array([value_at(name, getattr(optimizer, name), p) for p in progress], dtype=np.float64)
        for name in SCHEDULED
    )
    found = np.empty((len(progress), len(drawing)))
    for column, layer in enumerate(drawing):
        found[:, column] = [layer.rate_at(p) for p in progress]
    return Rates(learning, decay, found)


def any_changes(optimizer: Optimizer, drawing: Sequence[Draws]) -> bool:
    """Whether any of these rates changes during training."""
    of_optimizer = any(callable(getattr(optimizer, name)) for name in SCHEDULED)
    return of_optimizer or any(callable(layer.rate_value) for layer in drawing)


def check_rates(optimizer: Optimizer, drawing: Sequence[Draws]) -> None:
    """Raises for rates that leave their range somewhere in training."""
    if any_changes(optimizer, drawing):
        rates_at([step / 100 for step in range(101)], optimizer, drawing)

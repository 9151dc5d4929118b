"""Trains several networks, one after another."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._run.core import core_of
from cydrop.callbacks import EarlyStopping
from cydrop.errors import DivergedError
from cydrop.history import History
from cydrop.network import Network


def fit_many(
    networks: Sequence[Network], X: NDArray[Any], y: NDArray[Any], *, rows: Sequence[NDArray[np.int64]] | None = None,
    validation_rows: Sequence[NDArray[np.int64]] | None = None, epochs: int = 10, batch_size: int = 128,
    patience: int | None = None, restore_best: bool = True, sample_weight: ArrayLike | None = None,
    n_threads: int | None = None, verbose: int | None = None,
) -> list[History]:  # fmt: skip
    """Each network on its rows of X."""
    weights = None if sample_weight is None else np.asarray(sample_weight)

    def part(some: Any) -> tuple[Any, ...]:
        return (X[some], y[some]) if weights is None else (X[some], y[some], weights[some])

    histories = []
    for number, network in enumerate(networks):
        taken = part(slice(None) if rows is None else rows[number])
        validation = None if validation_rows is None else part(validation_rows[number])
        stopping = [EarlyStopping(patience=patience, restore_best=restore_best)] if patience is not None else []
        core = core_of(network)
        threads = None if core.threads_of_machine else core.n_threads
        if n_threads is not None:
            network.n_threads = n_threads
        try:
            history = network.fit(
                *taken[:2], sample_weight=taken[2] if len(taken) > 2 else None, epochs=epochs, batch_size=batch_size,
                validation_data=validation, callbacks=stopping, verbose=verbose,
            )  # fmt: skip
        except DivergedError as error:
            warnings.warn(f"networks[{number}]: {error}", stacklevel=3)
            history = network.history
        finally:
            if n_threads is not None:
                network.n_threads = threads
        histories.append(history)
    return histories

"""The network of RealMLP, and the training of one member.

A stand-in: a small network behind the interface that the estimators use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop import layers, losses, optimizers
from cydrop._base.arrays import Floats
from cydrop.callbacks import EarlyStopping
from cydrop.history import History
from cydrop.network import Network
from cydrop.tabular._preprocessing import Prepared


@dataclass(frozen=True)
class Recipe:
    """What a member is made of and how it is trained."""

    hidden_layer_sizes: tuple[int, ...]
    dropout: float
    max_iter: int
    batch_size: int
    learning_rate_init: float | None
    weight_decay: float
    label_smoothing: float
    numeric_embedding: str | None
    embedding_size: int
    small: bool
    n_threads: int | None
    verbose: bool | int
    task: str  # "classes" or "numbers"


def train_member(
    recipe: Recipe,
    table: Prepared,
    y: NDArray[Any],
    sample_weight: Floats | None,
    valid: Prepared,
    y_valid: NDArray[Any],
    weight_valid: Floats | None,
    seed: int,
    metric: str,
) -> tuple[Network, History]:
    """One network, as it was after its best epoch."""
    classes = recipe.task == "classes"
    outputs = max(2, int(y.max()) + 1) if classes else y.shape[1]  # cross-entropy has two units at least
    stack: list[layers.Layer] = []
    for units in recipe.hidden_layer_sizes:
        stack += [layers.Dense(units, activation="silu"), layers.Dropout(recipe.dropout)]
    stack.append(layers.Dense(outputs))
    loss: losses.Loss = losses.CrossEntropy(recipe.label_smoothing) if classes else losses.MSE()
    rate = recipe.learning_rate_init or 0.003
    network = Network(stack, loss=loss, optimizer=optimizers.Adam(rate), seed=seed, n_threads=recipe.n_threads)
    monitor = "val_loss" if metric == "log_loss" or not classes else "val_accuracy"
    held = (valid.rows(), y_valid, np.ones(len(valid)) if weight_valid is None else weight_valid)
    history = network.fit(
        table.rows(), y, epochs=recipe.max_iter, batch_size=min(recipe.batch_size, len(table)),
        validation_data=held, sample_weight=sample_weight,
        callbacks=[EarlyStopping(monitor, patience=recipe.max_iter)], verbose=int(bool(recipe.verbose)),
    )  # fmt: skip
    return network, history

"""Rows to train or to be judged on, with what belongs to them, checked and in the engine's types.

All but X are copies that nobody else can change: labels lead kernels to places in memory, and targets and weights must
stay what was checked. X may be the caller's own array: kernels only compute with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import losses
from cydrop._base import checks
from cydrop._base.arrays import Floats

NO_LABELS = np.empty(0, dtype=np.int32)
NO_FLOATS = np.empty(0, dtype=np.float32)
NO_MATRIX = np.empty((0, 0), dtype=np.float32)


@dataclass(eq=False)
class Rows:
    """X with its labels, or its class probabilities (cross-entropy) or targets (every other loss), and its weights, as
    they were checked for a loss.

    What is not there is empty. `weights` has one dimension: a weight a row, or, `each`, one a target, row by row.
    """

    loss: losses.Loss
    X: Floats
    labels: NDArray[np.int32]
    targets: Floats
    weights: Floats
    batch_size: int
    each: bool = False

    @property
    def batches(self) -> int:
        return -(-len(self.X) // self.batch_size)

    def split(self, share: float) -> tuple[Rows, Rows]:
        """The last `share` of the rows, rounded down, and those before them: of 100 rows 0.29 are 29."""
        wish = share * len(self.X)  # 28.999999999999996 for 0.29 of 100
        held = round(wish) if math.isclose(wish, round(wish), rel_tol=1e-12) else int(wish)
        if held < 1 or held >= len(self.X):
            raise ValueError(
                f"validation_split={share} of {len(self.X)} rows leaves {held} for validation and "
                f"{len(self.X) - held} for training; both need at least 1"
            )
        at = len(self.X) - held
        return self._part(slice(at, None)), self._part(slice(None, at))

    def _part(self, part: slice) -> Rows:
        X = self.X[part]
        weights = self.weights.reshape(len(self.X), -1)[part].reshape(-1) if len(self.weights) else self.weights
        size = min(self.batch_size, len(X))
        return Rows(self.loss, X, self.labels[part], self.targets[part], weights, size, self.each)

    @property
    def counted(self) -> NDArray[np.bool_] | None:
        """Which targets the metrics see, of the shape of the targets: those whose own weight is not 0. None: all."""
        return self.weights.reshape(self.targets.shape) > 0 if self.each else None

    def hit_rate(self, hits: int) -> dict[str, float]:
        """The accuracy of classifiers: the share that was hit of the rows or, for binary targets, of these."""
        if isinstance(self.loss, losses.CrossEntropy):
            return {"accuracy": hits / len(self.X)}
        if isinstance(self.loss, losses.BinaryCrossEntropy):
            count = self.targets.size if self.counted is None else int(self.counted.sum())
            return {"accuracy": hits / count if count else math.nan}
        return {}

    def likeliest(self) -> NDArray[Any]:
        """The label of each row; of class probabilities the most probable one, of equal ones the first."""
        return self.labels if len(self.labels) else self.targets.argmax(axis=1)

    def errors(self, predicted: NDArray[Any]) -> dict[str, float]:
        """The errors (rmse, mae) of predictions of the shape of the targets, in float64."""
        error = predicted.astype(np.float64) - self.targets
        counted = self.counted
        if counted is not None:
            error = error[counted] if counted.any() else np.full(1, np.nan)
        return {"rmse": math.sqrt(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}


def checked_rows(
    loss: losses.Loss,
    units: int,
    X: Floats,
    y: Any,
    sample_weight: ArrayLike | None,
    batch_size: int,
    prefix: str = "",
) -> Rows:
    """Rows for a loss and a last layer of `units` units; `prefix` begins the arguments' names in errors."""
    labels, targets, weights = NO_LABELS, NO_MATRIX, NO_FLOATS
    loss.check_units(units)
    if isinstance(loss, losses.CrossEntropy):
        found, probabilities = checks.labels_or_probabilities(f"{prefix}y", y, len(X), units)
        labels = labels if found is None else found
        targets = targets if probabilities is None else probabilities
    else:
        binary = isinstance(loss, losses.BinaryCrossEntropy)
        targets = checks.targets(f"{prefix}y", y, len(X), loss.columns(units), binary=binary)
    each = False
    if sample_weight is not None:
        weights = checks.weights(f"{prefix}sample_weight", sample_weight, len(X), loss.columns(units))
        each = weights.ndim == 2
        weights = weights.reshape(-1)
    return Rows(loss, X, labels, targets, weights, min(batch_size, len(X)), each)

"""Rows to train or to be judged on, with what belongs to them, checked and in the engine's types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import checks, losses

Floats = NDArray[np.float32]

NO_LABELS = np.empty(0, dtype=np.int32)
NO_FLOATS = np.empty(0, dtype=np.float32)
NO_MATRIX = np.empty((0, 0), dtype=np.float32)


@dataclass(eq=False)
class Rows:
    """X with its labels (cross-entropy) or targets (every other loss) and weights; what is not there is empty."""

    X: Floats
    labels: NDArray[np.int32]
    targets: Floats
    weights: Floats
    batch_size: int

    @property
    def batches(self) -> int:
        return -(-len(self.X) // self.batch_size)

    def split(self, share: float) -> tuple[Rows, Rows]:
        """The last `share` of the rows, and those before them."""
        held = int(len(self.X) * share)
        if held < 1 or held >= len(self.X):
            raise ValueError(
                f"validation_split={share} of {len(self.X)} rows leaves {held} for validation and "
                f"{len(self.X) - held} for training; both need at least 1"
            )
        at = len(self.X) - held
        return self._part(slice(at, None)), self._part(slice(None, at))

    def _part(self, part: slice) -> Rows:
        return Rows(self.X[part], self.labels[part], self.targets[part], self.weights[part], self.batch_size)


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
        labels = checks.labels(f"{prefix}y", y, len(X), units)
    else:
        binary = isinstance(loss, losses.BinaryCrossEntropy)
        targets = checks.targets(f"{prefix}y", y, len(X), loss.columns(units), binary=binary)
    if sample_weight is not None:
        weights = checks.weights(f"{prefix}sample_weight", sample_weight, len(X))
    return Rows(X, labels, targets, weights, batch_size)

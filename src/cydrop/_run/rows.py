"""Rows to train or to be judged on, with what belongs to them, checked and in the engine's types.

All but X are copies that nobody else can change: labels lead kernels to places in memory, and targets and weights must
stay what was checked. X may be the caller's own array, and so may targets that lie in a file: kernels only compute with
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import losses
from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._core import losses as kernels

NO_LABELS = np.empty(0, dtype=np.int32)
NO_FLOATS = np.empty(0, dtype=np.float32)
NO_ORDER = np.empty(0, dtype=np.int64)
NO_MATRIX = np.empty((0, 0), dtype=np.float32)


@dataclass(eq=False, repr=False)
class Rows:
    """X with its labels, or its class probabilities (cross-entropy) or targets (every other loss), and its weights, as
    they were checked for a loss.

    What is missing is empty. `weights` has one dimension: a weight per row or, if `each`, per target, row by row.
    """

    loss: losses.Loss
    X: Floats
    labels: NDArray[np.int32]
    targets: Floats
    weights: Floats
    batch_size: int
    each: bool = False

    def batches_of(self, rows: int) -> int:
        """How many batches these rows make."""
        return -(-rows // self.batch_size)

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
        return self.part(slice(at, None)), self.part(slice(None, at))

    def part(self, part: slice) -> Rows:
        """Some of the rows, one after another."""
        X = self.X[part]
        weights = self.weights.reshape(len(self.X), -1)[part].reshape(-1) if len(self.weights) else self.weights
        size = min(self.batch_size, len(X))
        return Rows(self.loss, X, self.labels[part], self.targets[part], weights, size, self.each)

    def check_weighed(self, what: str, order: NDArray[np.int64] = NO_ORDER) -> None:
        """Raises where all of these rows (of an empty order: all) weigh nothing."""
        weights = self.weights.reshape(len(self.X), -1) if len(self.weights) else None
        if weights is not None and not (weights[order] if len(order) else weights).any():
            raise ValueError(f"{what} all have a weight of 0: nothing can be told from them")

    @property
    def y(self) -> NDArray[Any]:
        """The labels, or the targets."""
        return self.labels if len(self.labels) else self.targets

    @property
    def counted(self) -> NDArray[np.bool_] | None:
        """Which targets the metrics see, of the shape of the targets: those whose own weight is not 0. None: all."""
        return self.weights.reshape(self.targets.shape) > 0 if self.each else None

    def hit_rate(self, hits: float, order: NDArray[np.int64] = NO_ORDER) -> dict[str, float]:
        """The accuracy of classifiers: the share that was hit of the rows in this order (empty: of all), or, for binary
        targets, of these."""
        return {name: rate for name, (rate,) in self.hit_rates([hits], order).items()}

    def hit_rates(self, hits: Sequence[float], order: NDArray[np.int64] = NO_ORDER) -> dict[str, list[float]]:
        """The same for several passes over these rows."""
        rows, counted = len(order) or len(self.X), self.counted
        targets = rows * self.targets.shape[1]
        if counted is not None:
            targets = int((counted[order] if len(order) else counted).sum())
        found: dict[str, list[float]] = {}
        for each in hits if self.loss.hit_rate(0, 1, 1) else ():
            for name, rate in self.loss.hit_rate(each, rows, targets).items():
                found.setdefault(name, []).append(rate)
        return found

    def metrics(self, p: NDArray[Any]) -> dict[str, float]:
        """The metrics of predictions, after the loss's link."""
        return self.loss.metrics(p, self.y, self.counted)

    def loss_and_hits(self, z: Floats, grad: Floats, n_threads: int) -> tuple[float, int]:
        """The mean loss of raw outputs, one pass of each row, and what it counts; the gradient, if not empty, is
        filled."""
        return self._losses(z, grad, np.empty(len(z)), n_threads)

    def row_losses(self, z: Floats, n_threads: int) -> tuple[NDArray[np.float64], int]:
        """The loss of each row of raw outputs, and what it counts."""
        losses_of_rows = np.empty(len(z))
        _, hits = self._losses(z, NO_MATRIX, losses_of_rows, n_threads)
        return losses_of_rows, hits

    def _losses(self, z: Floats, grad: Floats, row_loss: NDArray[np.float64], n_threads: int) -> tuple[float, int]:
        return kernels.loss(
            self.loss.code, self.loss.option, self.loss.levels, z, self.labels, self.targets, self.weights, grad,
            row_loss, np.empty(len(z), dtype=np.int32), n_threads,
        )  # fmt: skip


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
    loss.check_units(units)
    own = loss.checked(f"{prefix}y", y, len(X), units)
    labels, targets = (own, NO_MATRIX) if own.ndim == 1 else (NO_LABELS, own)
    weights, each = NO_FLOATS, False
    if sample_weight is not None:
        weights = checks.weights(f"{prefix}sample_weight", sample_weight, len(X), loss.columns(units))
        each = weights.ndim == 2
        weights = weights.reshape(-1)
    return Rows(loss, X, labels, targets, weights, min(batch_size, len(X)), each)

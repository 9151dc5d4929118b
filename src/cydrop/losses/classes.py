"""The losses of classifiers: cross-entropy of classes, and of targets that are 0 or 1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cydrop._base import checks
from cydrop._base.likelihood import log, plogp
from cydrop._core.kinds import kind_of
from cydrop._core.losses import KINDS
from cydrop.losses.base import Array, Doubles, Loss

__all__ = ["BinaryCrossEntropy", "CrossEntropy"]


class CrossEntropy(Loss):
    """Softmax cross-entropy, the mean over rows, in nats. Link: softmax.

    y is labels 0..k-1 of shape (n,), or class probabilities q (soft labels) of shape (n, k): each at least 0, in rows
    that sum to 1 within 0.001 and are divided by their sum. The loss of a row is -sum q log p. For the accuracy, a row
    is right where its most probable class is that of q.

    Parameters
    ----------
    label_smoothing : float in [0, 1)
        The target is (1 - s) q + s / k, q one-hot for labels (Szegedy et al. 2016).
    r_drop : float >= 0
        R-Drop (Liang et al. 2021): in training every row passes through twice, with different masks, and the loss is
        (CE1 + CE2) / 2 + r_drop (KL(p1 | p2) + KL(p2 | p1)) / 2. The paper's loss is twice this, with
        alpha = 2 r_drop. A step takes twice the time. 0: one pass. Where the whole batch shares a mask, both passes
        see the same one.
    """

    name = "cross_entropy"
    code = kind_of(KINDS, name)
    predictions = "probabilities"
    torch_links = ("Softmax", "LogSoftmax")
    option_names = ("label_smoothing", "r_drop")
    label_smoothing: float
    r_drop: float

    def __init__(self, label_smoothing: float = 0.0, r_drop: float = 0.0) -> None:
        self.declare(
            label_smoothing=checks.number("label_smoothing", label_smoothing, 0.0, 1.0, high_open=True),
            r_drop=checks.number("r_drop", r_drop, 0.0, single=True),
        )

    @property
    def option(self) -> float:
        return self.label_smoothing

    @property
    def pair(self) -> float:
        return self.r_drop

    def columns(self, units: int) -> int:
        return 0

    def check_units(self, units: int) -> None:
        if units < 2:
            raise ValueError(
                f"cross_entropy needs a last layer with a unit per class, at least 2, got {units}; "
                "for one output with labels 0 and 1 use loss='binary_cross_entropy'"
            )

    def checked(self, name: str, y: Any, rows: int, units: int) -> Array:
        return checks.labels_or_probabilities(name, y, rows, units)

    def hit_rate(self, hits: float, rows: int, targets: int) -> dict[str, float]:
        return {"accuracy": hits / rows}

    def metrics(self, p: Array, y: Array, counted: Array | None = None) -> dict[str, float]:
        likeliest = y if y.ndim == 1 else y.argmax(axis=1)  # of equal ones the first
        return {"accuracy": float(np.mean(p.argmax(axis=1) == likeliest))}

    def entropy(self, p: Doubles) -> Doubles:
        return np.asarray(plogp(p).sum(axis=1))

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        if y.ndim == 1:
            return log(p[:, np.arange(len(y)), y])
        return np.asarray((y * log(p)).sum(axis=2))

    def inverse_link(self, p: Doubles) -> Doubles:
        return log(p)

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        return str(graph.add("Softmax", z, axis=1, output=output))

    def mix_onnx(self, graph: Any, z: str) -> str:
        y: str = graph.add("Log", super().mix_onnx(graph, graph.add("Softmax", z, axis=-1)))
        return y

    def is_link(self, module: Any) -> bool:
        return super().is_link(module) and module.dim in (None, 1, -1)


class BinaryCrossEntropy(Loss):
    """Sigmoid cross-entropy of independent targets, the mean over all elements, in nats. Link: sigmoid.

    Targets are 0, 1 or probabilities between. For the accuracy, anything above 0.5 counts as 1.
    """

    name = "binary_cross_entropy"
    code = kind_of(KINDS, name)
    binary = True
    predictions = "probabilities"
    torch_links = ("Sigmoid",)

    def hit_rate(self, hits: float, rows: int, targets: int) -> dict[str, float]:
        return {"accuracy": hits / targets if targets else math.nan}

    def metrics(self, p: Array, y: Array, counted: Array | None = None) -> dict[str, float]:
        right = (p > 0.5) == (y > 0.5)
        right = right if counted is None else right[counted]
        return self.hit_rate(int(right.sum()), len(y), right.size)

    def entropy(self, p: Doubles) -> Doubles:
        return plogp(p) + plogp(1.0 - p)

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        y = y.astype(np.float64)
        return np.asarray((y * log(p) + (1.0 - y) * log(1.0 - p)).sum(axis=2))

    def inverse_link(self, p: Doubles) -> Doubles:
        return log(p) - log(1.0 - p)

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        return str(graph.add("Sigmoid", z, output=output))

    def mix_onnx(self, graph: Any, z: str) -> str:
        p, q = (super(BinaryCrossEntropy, self).mix_onnx(graph, graph.add("Sigmoid", some))
                for some in (z, graph.add("Neg", z)))  # fmt: skip
        y: str = graph.add("Sub", graph.add("Log", p), graph.add("Log", q))
        return y

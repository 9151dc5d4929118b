"""What the callbacks that watch a metric have in common."""

from __future__ import annotations

import math
from typing import Any

from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop.callbacks.base import Callback
from cydrop.history import lower_is_better

__all__ = ["Monitor", "copied", "fixed", "monitored", "put_back"]


def monitored(metrics: dict[str, float], name: str) -> float:
    """The value that a callback watches."""
    if name not in metrics:
        hint = "; give fit validation_data or validation_split" if name.startswith("val_") else ""
        raise ValueError(f"monitor={name!r} is not among the metrics {', '.join(sorted(metrics))}{hint}")
    return metrics[name]


def fixed(name: str, what: str) -> Any:
    """An option that is given when a callback is made, and does not change afterwards."""

    def get(self: Callback) -> Any:
        return getattr(self, f"_{name}")

    def refuse(self: Callback, value: Any) -> None:
        raise AttributeError(f"{name} of {type(self).__name__} cannot be changed; make a new one with {name}={value!r}")

    return property(get, refuse, doc=what)


class Monitor(Callback):
    """Base of the callbacks that watch a metric, of which they keep the best value. NaN is never better."""

    monitor = fixed("monitor", "The metric that is watched.")
    mode = fixed("mode", "Whether the metric should fall or grow.")

    def _watch(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        self._sign = 1.0 if lower_is_better(monitor, mode) else -1.0
        self._monitor: Any = monitor  # None: `Checkpoint` of every epoch
        self._mode = mode
        self._min_delta = checks.number("min_delta", min_delta, 0.0)
        self._forget()

    def _forget(self) -> None:
        self._waited = 0
        # value, epoch and weights of the best epoch: one tuple, so that no interrupt comes in between
        self._kept: tuple[float, int, dict[str, Floats] | None] = (self._sign * math.inf, 0, None)

    def _improves(self, metrics: dict[str, float]) -> bool:
        value = monitored(metrics, self._monitor)
        return self._sign * value < self._sign * self._kept[0] - self._min_delta


def copied(network: Any) -> dict[str, Floats]:
    """Copies of what predictions depend on."""
    return {name: array.copy() for name, array in network._arrays().items()}


def put_back(network: Any, copies: dict[str, Floats]) -> None:
    for name, array in network._arrays().items():
        array[...] = copies[name]

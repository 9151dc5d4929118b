"""A learning rate that falls when a metric no longer improves."""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop.callbacks.monitor import Monitor, fixed, monitored
from cydrop.schedules import Scaled

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when a metric has not improved for `patience` epochs.

    The counting is Keras's: `patience` epochs without an improvement of more than `min_delta` (absolute) reduce the
    rate; PyTorch's scheduler waits for one more and, unless told otherwise, measures relative to the best value. In
    the `cooldown` epochs after a reduction nothing counts as waiting, as in PyTorch (Keras's counts the last of them).
    Like theirs it forgets at the beginning of `fit` what it has seen.

    The optimizer keeps its moments. The reduced rate stays when `fit` ends, and is saved with the network. A learning
    rate that is a schedule is scaled as a whole, and becomes `schedules.Scaled(schedule, factor)`. The history gets
    "learning_rate", that of each epoch's last step.

    With `EarlyStopping`, give that the greater patience.

    Parameters
    ----------
    monitor : str
        A metric of the history. NaN counts as no improvement.
    factor : float in (0, 1)
    patience : int >= 1
    min_delta : float >= 0
        The change of the metric that an improvement must exceed.
    cooldown : int >= 0
        Epochs after a reduction before waiting begins again.
    min_learning_rate : float >= 0
        The rate is not reduced below it. For a schedule: not below it at the present epoch's end.
    mode : "auto", "min" or "max"
        Whether the metric should fall or grow; "auto" knows it by its name, as far as that is a usual one.

    Raises
    ------
    ValueError
        Without `mode`, for a metric whose name does not say whether less or more of it is better. By `fit`, after the
        first epoch: where there is no such metric.
    """

    min_delta = fixed("min_delta", "The change of the metric that an improvement must exceed.")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_learning_rate: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.factor = checks.number("factor", factor, 0.0, 1.0, low_open=True, high_open=True)
        self.patience = checks.integer("patience", patience, 1)
        self.cooldown = checks.integer("cooldown", cooldown, 0)
        self.min_learning_rate = checks.number("min_learning_rate", min_learning_rate, 0.0)
        self._resting = 0
        self._watch(monitor, mode, min_delta)

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._forget()
        self._resting = 0
        if not callable(network.optimizer.learning_rate):
            network.history.begin("learning_rate", network.optimizer.learning_rate)

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._improves(metrics):
            self._kept = monitored(metrics, self._monitor), epoch, None
            self._waited = 0
        else:
            self._waited += 1
        if self._resting:
            self._resting -= 1
            self._waited = 0
        if self._waited >= self.patience:
            self._reduce(network, metrics)

    def _reduce(self, network: Any, metrics: dict[str, float]) -> None:
        rate = network.optimizer.learning_rate
        now = metrics["learning_rate"] if callable(rate) else rate
        if now > self.min_learning_rate:
            reduced = max(now * self.factor, self.min_learning_rate)
            chosen = Scaled(rate, reduced / now) if callable(rate) else reduced
            network.optimizer = network.optimizer.with_learning_rate(chosen)
            self._waited, self._resting = 0, self.cooldown

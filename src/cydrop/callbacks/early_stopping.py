"""Stopping when a metric no longer improves."""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop.callbacks.monitor import Monitor, copied, fixed, monitored, put_back

__all__ = ["EarlyStopping"]


class EarlyStopping(Monitor):
    """Stops when a metric has not improved for `patience` epochs (Prechelt 1998).

    The best epoch is put back at the end of `fit`, whether training was stopped, ran out of epochs, was interrupted
    or failed (as in Keras 3; Keras 2 did so only after a stop). What is put back is all that predictions depend on:
    parameters and running statistics. The optimizer's moments and the random state stay those of the last step, as
    in Keras; `Checkpoint(monitor=...)` keeps everything.

    Parameters
    ----------
    monitor : str
        A metric of the history. NaN counts as no improvement.
    patience : int >= 1
    restore_best : bool
        Whether the best epoch is put back.
    min_delta : float >= 0
        The least change that counts as an improvement.
    mode : "auto", "min" or "max"
        Whether the metric should fall or grow; "auto" knows it by its name, as far as that is a usual one.

    Attributes
    ----------
    best : float
        The best value of the last call of `fit`.
    best_epoch : int
        Its epoch, counted from 1 over all calls of `fit`; 0 where there was none.

    Raises
    ------
    ValueError
        Without `mode`, for a metric whose name does not say whether less or more of it is better. By `fit`, after the
        first epoch: where there is no such metric.
    """

    min_delta = fixed("min_delta", "The least change that counts as an improvement.")

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        restore_best: bool = True,
        min_delta: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.patience = checks.integer("patience", patience, 1)
        self.restore_best = checks.flag("restore_best", restore_best)
        self._watch(monitor, mode, min_delta)

    @property
    def best(self) -> float:
        return self._kept[0]

    @property
    def best_epoch(self) -> int:
        return self._kept[1]

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._forget()

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._improves(metrics):
            self._kept = monitored(metrics, self._monitor), epoch, copied(network) if self.restore_best else None
            self._waited = 0
        else:
            self._waited += 1
            if self._waited >= self.patience:
                network.stop_training = True

    def on_train_end(self, network: Any) -> None:
        best, epoch, state = self._kept
        if state is None:
            return
        try:
            put_back(network, state)
        except KeyboardInterrupt:  # a second Ctrl-C: not half of the best epoch and half of the last
            put_back(network, state)
            raise
        finally:
            self._kept = best, epoch, None

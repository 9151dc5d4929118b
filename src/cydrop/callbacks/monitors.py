"""The callbacks that watch a metric: they stop, reduce the learning rate, or save, by whether it improves."""

from __future__ import annotations

import math
import os
from typing import Any

from cydrop._base import checks
from cydrop._run.core import core_of
from cydrop._run.state import Weights
from cydrop.callbacks.base import Callback
from cydrop.history import lower_is_better
from cydrop.schedules import Scaled

__all__ = ["Checkpoint", "EarlyStopping", "ReduceLROnPlateau"]


def _monitored(metrics: dict[str, float], name: str) -> float:
    """The value that a callback watches."""
    if name not in metrics:
        hint = (
            "; give validation_data or validation_split (fit_many: validation_rows)" if name.startswith("val_") else ""
        )
        raise ValueError(f"monitor={name!r} is not among the metrics {', '.join(sorted(metrics))}{hint}")
    return metrics[name]


def _fixed(name: str, what: str) -> Any:
    """An option that is given when a callback is made, and does not change afterwards."""

    def get(self: Callback) -> Any:
        return getattr(self, f"_{name}")

    def refuse(self: Callback, value: Any) -> None:
        raise AttributeError(f"{name} of {type(self).__name__} cannot be changed; make a new one with {name}={value!r}")

    return property(get, refuse, doc=what)


class _Monitor(Callback):
    """Base of the callbacks that watch a metric, of which they keep the best value. NaN is never better."""

    of_one_network = True
    monitor = _fixed("monitor", "The metric that is watched.")
    mode = _fixed("mode", "Whether the metric should fall or grow.")

    def _watch(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        self._sign = 1.0 if lower_is_better(monitor, mode) else -1.0
        self._monitor: Any = monitor  # None: `Checkpoint` of every epoch
        self._mode = mode
        self._min_delta = checks.number("min_delta", min_delta, 0.0)
        self._forget()

    def _forget(self) -> None:
        self._waited = 0
        # value, epoch and weights of the best epoch: one tuple, so that no interrupt comes in between
        self._kept: tuple[float, int, Weights | None] = (self._sign * math.inf, 0, None)

    def _improves(self, metrics: dict[str, float]) -> bool:
        value = _monitored(metrics, self._monitor)
        return self._sign * value < self._sign * self._kept[0] - self._min_delta


class EarlyStopping(_Monitor):
    """Stops when a metric has not improved for `patience` epochs (Prechelt 1998).

    The best epoch is put back at the end of `fit`, whether training was stopped, ran out of epochs, was interrupted
    or failed (as in Keras 3; Keras 2 did so only after a stop). What is put back is all that predictions depend on:
    parameters and running statistics. The optimizer's moments and the random state stay those of the last step, as
    in Keras; `Checkpoint(monitor=...)` keeps everything.

    Parameters
    ----------
    monitor : str
        A metric of the history. NaN counts as no improvement.
    patience : int >= 1, or None
        None: training is not stopped, and only the best epoch put back.
    restore_best : bool
        Whether the best epoch is put back.
    min_delta : float >= 0
        The least change that counts as an improvement.
    mode : "auto", "min" or "max"
        Whether the metric should fall or grow; "auto" goes by its name, where that is a usual one.
    ties : "first" or "last"
        Which of several equally good epochs is the best one. The last has been trained longest: where the metric is a
        share of few rows, as an accuracy, equal values are frequent and say little. An equal value is no improvement,
        the epochs without one are counted on.

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

    min_delta = _fixed("min_delta", "The least change that counts as an improvement.")
    ties: str = "first"  # of callbacks pickled before there was a choice

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int | None = 10,
        restore_best: bool = True,
        min_delta: float = 0.0,
        mode: str = "auto",
        ties: str = "first",
    ) -> None:
        self.patience = None if patience is None else checks.integer("patience", patience, 1)
        self.restore_best = checks.flag("restore_best", restore_best)
        self.ties = checks.one_of("ties", ties, ("first", "last"))
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
        improves = self._improves(metrics)
        if improves or (self.ties == "last" and self.best_epoch > 0 and metrics[self._monitor] == self.best):
            weights = core_of(network).made("the best epoch").weights.copy() if self.restore_best else None
            self._kept = metrics[self._monitor], epoch, weights
        self._waited = 0 if improves else self._waited + 1
        if self.patience is not None and self._waited >= self.patience:
            network.stop_training = True

    def on_train_end(self, network: Any) -> None:
        best, epoch, state = self._kept
        if state is None:
            return
        try:
            core_of(network).put_back(state)
        except KeyboardInterrupt:  # a second Ctrl-C that came before it
            core_of(network).put_back(state)
            raise
        finally:
            self._kept = best, epoch, None


class ReduceLROnPlateau(_Monitor):
    """Multiplies the learning rate by `factor` when a metric has not improved for `patience` epochs.

    The counting is Keras's: `patience` epochs without an improvement of more than `min_delta` (absolute) reduce the
    rate; PyTorch's scheduler waits for one more and, unless told otherwise, measures relative to the best value. In
    the `cooldown` epochs after a reduction nothing counts as waiting, as in PyTorch (Keras's counts the last of them).
    Like theirs it forgets what it has seen when `fit` begins.

    The optimizer keeps its moments. The reduced rate stays when `fit` ends, and is saved with the network. A learning
    rate that is a schedule is scaled as a whole, and becomes `schedules.Scaled(schedule, factor)`. The history gets
    "learning_rate", that of each epoch's last step.

    Together with `EarlyStopping`, give the latter the greater patience.

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
        The rate is not reduced below it. For a schedule: not below it at the end of the current epoch.
    mode : "auto", "min" or "max"
        Whether the metric should fall or grow; "auto" goes by its name, where that is a usual one.

    Raises
    ------
    ValueError
        Without `mode`, for a metric whose name does not say whether less or more of it is better. By `fit`, after the
        first epoch: where there is no such metric.
    """

    min_delta = _fixed("min_delta", "The change of the metric that an improvement must exceed.")

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
            self._kept = _monitored(metrics, self._monitor), epoch, None
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


class Checkpoint(_Monitor):
    """Saves the network after every epoch, or after those in which `monitor` improved.

    It does what `Network.save` does: the file is written under a temporary name and then renamed, so it is always
    complete, even after Ctrl-C, and it holds everything, including the optimizer's moments. Without `monitor` it is the
    last finished epoch, whatever `EarlyStopping` puts back into the network afterwards. With `monitor`, the best value
    is kept over calls of `fit`, so a further call replaces the file only by something better; another network needs a
    new object.

    Parameters
    ----------
    path : str or path-like
    monitor : str or None
        A metric of the history. NaN counts as no improvement.
    mode : "auto", "min" or "max"
        Whether the metric should fall or grow; "auto" goes by its name, where that is a usual one.

    Raises
    ------
    TypeError
        For anything but a path.
    ValueError
        With `monitor` and without `mode`, for a metric whose name does not say whether less or more of it is better.
        By `fit`, before training begins: for a network that a file cannot hold, as for `Network.save`; after an epoch:
        where there is no such metric.
    OSError
        By `fit`, before training begins: for the path of a folder, where the path's folder does not exist, or where the
        file may not be written.
    """

    every_rank = False

    def __init__(self, path: str | os.PathLike[str], monitor: str | None = None, mode: str = "auto") -> None:
        self.path = os.fspath(path)
        self._watch("loss" if monitor is None else monitor, mode)
        self._monitor = monitor

    def on_train_begin(self, network: Any, epochs: int) -> None:
        from cydrop import saving

        saving.check(core_of(network).state(), self.path)  # what would fail after the first epoch fails before it

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._monitor is None:
            network.save(self.path)
        elif self._improves(metrics):
            before = _file(self.path)
            try:
                network.save(self.path)
                self._kept = _monitored(metrics, self._monitor), epoch, None
            except BaseException:
                if _file(self.path) != before:  # interrupted when the file had been replaced
                    self._kept = _monitored(metrics, self._monitor), epoch, None
                raise


def _file(path: str) -> int | None:
    """Which file stands at a path."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None

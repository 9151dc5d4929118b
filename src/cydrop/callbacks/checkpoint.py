"""Saving the network while it trains."""

from __future__ import annotations

import os
from typing import Any

from cydrop.callbacks.monitor import Monitor, monitored

__all__ = ["Checkpoint"]


class Checkpoint(Monitor):
    """Saves the network after every epoch, or after those in which `monitor` improved.

    It does what `Network.save` does: the file is written beside its place and then renamed, so that it is always whole,
    also after Ctrl-C, and it holds everything, the optimizer's moments included. Without `monitor` it is the last
    finished epoch, whatever `EarlyStopping` puts back into the network afterwards. With `monitor`, the best value is
    kept over calls of `fit`, so that a further call replaces the file only by something better; a new training needs a
    new object.

    Parameters
    ----------
    path : str or path-like
    monitor : str or None
        A metric of the history. NaN counts as no improvement.
    mode : "auto", "min" or "max"
        Whether the metric should fall or grow; "auto" knows it by its name, as far as that is a usual one.

    Raises
    ------
    TypeError
        For what is no path.
    ValueError
        With `monitor` and without `mode`, for a metric whose name does not say whether less or more of it is better.
        By `fit`, before training begins: for a network that a file cannot hold, as for `Network.save`; after an epoch:
        where there is no such metric.
    OSError
        By `fit`, before training begins: for the path of a folder, where the path's folder is not there, or where the
        file may not be written.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str | None = None, mode: str = "auto") -> None:
        self.path = os.fspath(path)
        self._watch("loss" if monitor is None else monitor, mode)
        self._monitor = monitor

    def on_train_begin(self, network: Any, epochs: int) -> None:
        from cydrop import files  # which knows the network, which knows the callbacks

        files.check(network, self.path)  # what would fail after the first epoch fails before it

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._monitor is None:
            network.save(self.path)
        elif self._improves(metrics):
            before = _file(self.path)
            try:
                network.save(self.path)
                self._kept = monitored(metrics, self._monitor), epoch, None
            except BaseException:
                if _file(self.path) != before:  # interrupted when the file had been replaced
                    self._kept = monitored(metrics, self._monitor), epoch, None
                raise


def _file(path: str) -> int | None:
    """Which file stands at a path."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None

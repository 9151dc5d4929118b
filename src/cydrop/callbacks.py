"""Callbacks: what happens between the epochs of `fit`.

A callback gets the network and the values of the epoch that has ended. It may set `network.stop_training`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from cydrop import checks


class Callback:
    """Base: does nothing. `epoch` counts from 1 and goes on over calls of `fit`."""

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Before the first epoch of a call of `fit`."""

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        """After every epoch."""

    def on_train_end(self, network: Any) -> None:
        """After the last epoch, and also when training was interrupted or diverged."""


def monitored(metrics: dict[str, float], name: str) -> float:
    """The value that a callback watches."""
    if name not in metrics:
        hint = "; give fit validation_data or validation_split" if name.startswith("val_") else ""
        raise ValueError(f"monitor={name!r} is not among the metrics {', '.join(sorted(metrics))}{hint}")
    return metrics[name]


def _state(network: Any) -> dict[str, NDArray[np.float32]]:
    """What predictions depend on: parameters and running statistics."""
    return {**network.parameters(), **network.buffers()}


class EarlyStopping(Callback):
    """Stops when a metric has not improved for `patience` epochs (Prechelt 1998).

    Parameters
    ----------
    monitor : str
        A metric of the history; one whose name ends in "accuracy" shall grow, every other shall fall.
    patience : int >= 1
    restore_best : bool
        Whether the parameters of the best epoch are put back at the end.
    min_delta : float >= 0
        The least change that counts as an improvement.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 10, restore_best: bool = True, min_delta: float = 0.0
    ) -> None:
        self.monitor = monitor
        self.patience = checks.integer("patience", patience, 1)
        self.restore_best = checks.flag("restore_best", restore_best)
        self.min_delta = checks.number("min_delta", min_delta, 0.0)
        self._forget()

    def _forget(self) -> None:
        self.best, self.best_epoch, self._waited = math.inf, 0, 0
        self._best_parameters: dict[str, NDArray[np.float32]] | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._forget()

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        value = monitored(metrics, self.monitor)
        sign = -1.0 if self.monitor.endswith("accuracy") else 1.0
        if sign * value < self.best - self.min_delta:
            self.best, self.best_epoch, self._waited = sign * value, epoch, 0
            if self.restore_best:
                self._best_parameters = {name: array.copy() for name, array in _state(network).items()}
        else:
            self._waited += 1
            if self._waited >= self.patience:
                network.stop_training = True

    def on_train_end(self, network: Any) -> None:
        if self._best_parameters is not None:
            for name, array in _state(network).items():
                array[...] = self._best_parameters[name]
            self._best_parameters = None


class Checkpoint(Callback):
    """Saves the network after every epoch, or after those in which `monitor` improved.

    The file is written beside its place and then renamed: it is always whole.

    Parameters
    ----------
    path : str or path-like
    monitor : str or None
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str | None = None) -> None:
        self.path = os.fspath(path)
        self.monitor = monitor
        self._best = math.inf

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self.monitor is not None:
            sign = -1.0 if self.monitor.endswith("accuracy") else 1.0
            value = sign * monitored(metrics, self.monitor)
            if value >= self._best:
                return
            self._best = value
        network.save(self.path)


class CSVLogger(Callback):
    """Writes the metrics as CSV, a row an epoch; an existing file is replaced when training begins.

    Parameters
    ----------
    path : str or path-like
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file: TextIO | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._file = open(self.path, "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._names: list[str] = []

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        import csv

        assert self._file is not None
        writer = csv.writer(self._file)
        if not self._names:
            self._names = list(metrics)
            writer.writerow(["epoch", *self._names])
        writer.writerow([epoch, *(metrics.get(name, math.nan) for name in self._names)])
        self._file.flush()

    def on_train_end(self, network: Any) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class ProgressBar(Callback):
    """A line an epoch, or a tqdm bar where tqdm is installed and a terminal is attached.

    Parameters
    ----------
    file : text stream or None
        None is standard output for lines and standard error for the bar.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file
        self._bar: Any = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._epochs, self._done = epochs, 0
        stream = self.file if self.file is not None else sys.stderr
        if stream.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=epochs, unit="epoch", file=stream)

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        self._done += 1
        text = "  ".join(
            f"{name} {value:.4f}" if name != "seconds" else f"{value:.2f} s"
            for name, value in metrics.items()
            if name in ("loss", "accuracy", "rmse", "val_loss", "val_accuracy", "val_rmse", "seconds")
        )
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()
        else:
            width = len(str(self._epochs))
            print(f"epoch {self._done:>{width}}/{self._epochs}  {text}", file=self.file, flush=True)

    def on_train_end(self, network: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LambdaCallback(Callback):
    """Functions as a callback.

    Parameters
    ----------
    on_train_begin : callable (network, epochs) or None
    on_epoch_end : callable (network, epoch, metrics) or None
    on_train_end : callable (network) or None
    """

    def __init__(
        self,
        on_epoch_end: Callable[[Any, int, dict[str, float]], Any] | None = None,
        on_train_begin: Callable[[Any, int], Any] | None = None,
        on_train_end: Callable[[Any], Any] | None = None,
    ) -> None:
        self._begin, self._epoch, self._end = on_train_begin, on_epoch_end, on_train_end

    def on_train_begin(self, network: Any, epochs: int) -> None:
        if self._begin is not None:
            self._begin(network, epochs)

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._epoch is not None:
            self._epoch(network, epoch, metrics)

    def on_train_end(self, network: Any) -> None:
        if self._end is not None:
            self._end(network)


def for_verbose(verbose: Any) -> list[Callback]:
    """The progress callback of `fit(verbose=...)`: None shows progress where a terminal is attached, 0 is silent."""
    if verbose is None:
        return [ProgressBar()] if sys.stdout is not None and sys.stdout.isatty() else []
    level = int(verbose) if isinstance(verbose, bool) else checks.integer("verbose", verbose, 0)
    return [ProgressBar()] if level else []

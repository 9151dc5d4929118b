"""Callbacks: what happens between the epochs of `fit`.

A callback gets the network and the values of the epoch that has ended. It may set `network.stop_training`, and
assign `network.optimizer` to go on with another learning rate.
"""

from __future__ import annotations

import csv
import io
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from cydrop import checks
from cydrop.history import lower_is_better
from cydrop.schedules import Scaled

ALL_LINES = 100  # epochs of which each gets its line of progress
LINE_SECONDS = 0.1  # between two lines of more epochs


class Callback:
    """Base: does nothing. `epoch` counts from 1 and goes on over calls of `fit`."""

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Before the first epoch of a call of `fit`."""

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        """After every epoch."""

    def on_train_end(self, network: Any) -> None:
        """After the last epoch, and also when training was interrupted, diverged, or another callback failed."""


class told:
    """Tells callbacks of the beginning and, whatever happens in between, those that have begun of the end.

    The error that training or a callback raised first goes on, as it is, StopIteration too; what others raise after it
    becomes a note of it. Only an interrupt outranks an error.
    """

    def __init__(self, callbacks: Sequence[Callback], network: Any, epochs: int) -> None:
        self._callbacks, self._network, self._epochs = callbacks, network, epochs
        self._begun: list[Callback] = []

    def __enter__(self) -> None:
        try:
            for callback in self._callbacks:
                callback.on_train_begin(self._network, self._epochs)
                self._begun.append(callback)
        except BaseException as error:
            self._tell_the_end(error)
            raise

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._tell_the_end(error)

    def _tell_the_end(self, error: BaseException | None) -> None:
        """Raises what goes on instead of `error`, if anything does."""
        first = error
        for callback in self._begun:
            try:
                callback.on_train_end(self._network)
            except BaseException as another:
                if error is None or (isinstance(error, Exception) and not isinstance(another, Exception)):
                    error = another
                else:
                    error.add_note(f"on_train_end of {type(callback).__name__} failed as well: {another!r}")
        if error is not first and error is not None:
            try:
                raise error
            finally:
                del error, first  # its traceback holds this frame: no circle that keeps the data in memory


def monitored(metrics: dict[str, float], name: str) -> float:
    """The value that a callback watches."""
    if name not in metrics:
        hint = "; give fit validation_data or validation_split" if name.startswith("val_") else ""
        raise ValueError(f"monitor={name!r} is not among the metrics {', '.join(sorted(metrics))}{hint}")
    return metrics[name]


class _Best:
    """The best value of a metric so far. NaN is never better."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        self.monitor = monitor
        self.sign = 1.0 if lower_is_better(monitor, mode) else -1.0
        self.min_delta = checks.number("min_delta", min_delta, 0.0)
        self.forget()

    def forget(self) -> None:
        self.value = self.sign * math.inf

    def is_beaten_by(self, metrics: dict[str, float]) -> bool:
        return self.sign * monitored(metrics, self.monitor) < self.sign * self.value - self.min_delta

    def take(self, metrics: dict[str, float]) -> None:
        self.value = monitored(metrics, self.monitor)


def _copied(network: Any) -> dict[str, NDArray[np.float32]]:
    """Copies of what predictions depend on."""
    return {name: array.copy() for name, array in network._arrays().items()}


def _put_back(network: Any, copies: dict[str, NDArray[np.float32]]) -> None:
    for name, array in network._arrays().items():
        array[...] = copies[name]


class EarlyStopping(Callback):
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
        Whether the metric shall fall or grow; "auto": grow, where its name ends in "accuracy".

    Attributes
    ----------
    best : float
        The best value of the last call of `fit`.
    best_epoch : int
        Its epoch, counted from 1 over all calls of `fit`; 0 where there was none.

    Raises
    ------
    ValueError
        By `fit`, after the first epoch: where the history has no such metric.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        restore_best: bool = True,
        min_delta: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self._best = _Best(monitor, mode, min_delta)
        self.monitor = monitor
        self.patience = checks.integer("patience", patience, 1)
        self.restore_best = checks.flag("restore_best", restore_best)
        self._forget()

    @property
    def best(self) -> float:
        return self._best.value

    def _forget(self) -> None:
        self._best.forget()
        self.best_epoch, self._waited = 0, 0
        self._best_state: dict[str, NDArray[np.float32]] | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._forget()

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._best.is_beaten_by(metrics):
            state = _copied(network) if self.restore_best else None
            self._best.take(metrics)
            self._best_state, self.best_epoch, self._waited = state, epoch, 0  # no call: no interrupt in between
        else:
            self._waited += 1
            if self._waited >= self.patience:
                network.stop_training = True

    def on_train_end(self, network: Any) -> None:
        if self._best_state is None:
            return
        try:
            _put_back(network, self._best_state)
        except KeyboardInterrupt:  # a second Ctrl-C: not half of the best epoch and half of the last
            _put_back(network, self._best_state)
            raise
        finally:
            self._best_state = None


class ReduceLROnPlateau(Callback):
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
        Whether the metric shall fall or grow; "auto": grow, where its name ends in "accuracy".

    Raises
    ------
    ValueError
        By `fit`, after the first epoch: where the history has no such metric.
    """

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
        self._best = _Best(monitor, mode, min_delta)
        self.monitor = monitor
        self.factor = checks.number("factor", factor, 0.0, 1.0, low_open=True, high_open=True)
        self.patience = checks.integer("patience", patience, 1)
        self.cooldown = checks.integer("cooldown", cooldown, 0)
        self.min_learning_rate = checks.number("min_learning_rate", min_learning_rate, 0.0)
        self._waited, self._resting = 0, 0

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._best.forget()
        self._waited, self._resting = 0, 0
        if not callable(network.optimizer.learning_rate):
            network.history.begin("learning_rate", network.optimizer.learning_rate)

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._best.is_beaten_by(metrics):
            self._best.take(metrics)
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


class Checkpoint(Callback):
    """Saves the network after every epoch, or after those in which `monitor` improved.

    The file is written beside its place and then renamed: it is always whole, also after Ctrl-C. It holds what
    `Network.save` writes, the optimizer's moments included. Without `monitor` it is the last finished epoch, whatever
    `EarlyStopping` puts back into the network afterwards. With `monitor`, the best value is kept over calls of `fit`,
    so that a further call replaces the file only by something better; a new training needs a new object.

    Parameters
    ----------
    path : str or path-like
    monitor : str or None
        A metric of the history. NaN counts as no improvement.
    mode : "auto", "min" or "max"
        Whether the metric shall fall or grow; "auto": grow, where its name ends in "accuracy".

    Raises
    ------
    FileNotFoundError
        By `fit`, before training begins: where the path's folder is not there.
    ValueError
        By `fit`: before training begins, for a network that a file cannot hold; after the first epoch, where the
        history has no such metric.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str | None = None, mode: str = "auto") -> None:
        self.path = os.fspath(path)
        self.monitor = monitor
        self._best = None if monitor is None else _Best(monitor, mode)

    def on_train_begin(self, network: Any, epochs: int) -> None:
        # what would fail after the first epoch shall fail before it
        folder = os.path.dirname(self.path) or "."
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"Checkpoint cannot write {self.path!r}: there is no folder {folder!r}")
        for part in (*network.layers, network.loss, network.optimizer):
            part.config()

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._best is None:
            network.save(self.path)
        elif self._best.is_beaten_by(metrics):
            network.save(self.path)
            self._best.take(metrics)


class CSVLogger(Callback):
    """Writes the metrics as CSV, a row an epoch, each as soon as the epoch has ended.

    The columns are "epoch" and the metrics of the first epoch. A metric that begins later gets no column, one that
    ends is nan.

    Parameters
    ----------
    path : str or path-like
        Opened when training begins.
    append : bool
        Whether to go on behind the rows of a file that is there, in its columns, instead of replacing it: for a
        further call of `fit`.

    Raises
    ------
    OSError
        By `fit`, before training begins: when the file cannot be opened.
    ValueError
        By `fit`, before training begins: with `append`, for a file that does not begin with "epoch".
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = os.fspath(path)
        self.append = checks.flag("append", append)
        self._file: TextIO | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        there = ""
        if self.append and os.path.exists(self.path):
            with open(self.path, newline="", encoding="utf-8") as file:
                there = file.read()
        header = next(csv.reader(io.StringIO(there)), [])
        if header and header[0] != "epoch":
            raise ValueError(
                f"CSVLogger cannot append to {self.path!r}: its first column is {header[0]!r}, not 'epoch'"
            )
        self._names = header[1:]
        self._file = open(self.path, "a" if self.append else "w", newline="", encoding="utf-8")  # noqa: SIM115
        if there and not there.endswith("\n"):
            self._file.write("\r\n")

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
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

    Both show the losses, the accuracies and how many rows a second were trained on (validation not counted). Of more
    than 100 epochs at most ten lines a second are printed, and always the last.

    Parameters
    ----------
    file : text stream or None
        None is standard output for lines and standard error for the bar.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file
        self._bar: Any = None
        self._held: str | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._epochs, self._done = epochs, 0
        self._printed, self._held = -math.inf, None
        stream = self.file if self.file is not None else sys.stderr
        if is_terminal(stream):
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=epochs, unit="epoch", file=stream, dynamic_ncols=True)

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        self._done += 1
        shown = ("loss", "accuracy", "rmse", "val_loss", "val_accuracy", "val_rmse")
        parts = [f"{name} {metrics[name]:.4f}" for name in metrics if name in shown]
        speed = f"{network.training_rows / max(metrics['seconds'], 1e-9):,.0f} rows/s"
        if self._bar is not None:
            losses = [part for part in parts if "loss" in part]  # first: a narrow terminal cuts off what is behind
            rest = [part for part in parts if part not in losses]
            self._bar.set_postfix_str("  ".join([*losses, speed, *rest]), refresh=False)
            self._bar.update()
            return
        width = len(str(self._epochs))
        count = f"epoch {self._done:>{width}}/{self._epochs}"
        self._held = "  ".join([count, *parts, f"{metrics['seconds']:.2f} s", speed])
        now = time.monotonic()
        if self._epochs <= ALL_LINES or self._done == self._epochs or now - self._printed >= LINE_SECONDS:
            self._print()
            self._printed = now

    def _print(self) -> None:
        if self._held is not None:
            print(self._held, file=self.file, flush=True)
            self._held = None

    def on_train_end(self, network: Any) -> None:
        self._print()
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


def is_terminal(stream: Any) -> bool:
    """Whether a stream, or what stands in its place (a notebook's, None), is a terminal."""
    return bool(getattr(stream, "isatty", lambda: False)())


def for_verbose(verbose: Any) -> list[Callback]:
    """The progress callback of `fit(verbose=...)`: None shows progress where a terminal is attached, 0 is silent."""
    if verbose is None:
        return [ProgressBar()] if is_terminal(sys.stdout) else []
    level = int(verbose) if isinstance(verbose, bool) else checks.integer("verbose", verbose, 0)
    return [ProgressBar()] if level else []

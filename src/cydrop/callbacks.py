"""Callbacks: what happens between the epochs of `fit`.

A callback gets the network and the values of the epoch that has ended. It may set `network.stop_training`, assign
`network.optimizer` to go on with another learning rate, and put metrics of its own into the values.
"""

from __future__ import annotations

import csv
import io
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks
from cydrop.history import lower_is_better
from cydrop.schedules import Scaled

ALL_LINES = 100  # epochs of which each gets its line of progress
LINE_SECONDS = 0.1  # between two lines of more epochs


class Callback:
    """Base: does nothing. `epoch` counts from 1 and goes on over calls of `fit`."""

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Before the first epoch of a call of `fit`."""

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        """After every epoch. What is put into `metrics` is in the history, and seen by callbacks behind this one."""

    def on_train_end(self, network: Any) -> None:
        """After the last epoch, and also when training was interrupted, diverged, or another callback failed."""


def checked(given: Any) -> list[Callback]:
    """What `fit` was given as callbacks.

    Parameters
    ----------
    given : callback or iterable of callbacks

    Returns
    -------
    list of Callback

    Raises
    ------
    TypeError
        For anything else.
    """
    result = list(given) if isinstance(given, Iterable) else [given]
    for callback in result:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be cydrop.callbacks.Callback objects, got {callback!r}")
    return result


class told:
    """Tells callbacks of the beginning and, whatever happens in between, those that have begun of the end.

    The error that training or a callback raised first goes on, as it is; what others raise after it becomes a note of
    it. Only an interrupt outranks an error.
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
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        given, left, all_told = error, iter(self._begun), False
        while not all_told:
            try:  # around the loop: an interrupt between two of them does not keep the rest from their end
                for callback in left:
                    callback.on_train_end(self._network)
                all_told = True
            except BaseException as another:
                if error is None or (isinstance(error, Exception) and not isinstance(another, Exception)):
                    error = another
                else:
                    error.add_note(f"on_train_end of {type(callback).__name__} failed as well: {another!r}")
        if error is not None and error is not given:
            try:
                raise error
            finally:
                del error, given  # their tracebacks hold this frame: no circle that keeps the data in memory


def monitored(metrics: dict[str, float], name: str) -> float:
    """The value that a callback watches."""
    if name not in metrics:
        hint = "; give fit validation_data or validation_split" if name.startswith("val_") else ""
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

    monitor = _fixed("monitor", "The metric that is watched.")
    mode = _fixed("mode", "Whether the metric shall fall or grow.")

    def _watch(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        self._sign = 1.0 if lower_is_better(monitor, mode) else -1.0
        self._monitor: Any = monitor  # None: `Checkpoint` of every epoch
        self._mode = mode
        self._min_delta = checks.number("min_delta", min_delta, 0.0)
        self._forget()

    def _forget(self) -> None:
        self._waited = 0
        # value, epoch and weights of the best epoch: one tuple, so that no interrupt comes in between
        self._kept: tuple[float, int, dict[str, NDArray[np.float32]] | None] = (self._sign * math.inf, 0, None)

    def _improves(self, metrics: dict[str, float]) -> bool:
        value = monitored(metrics, self._monitor)
        return self._sign * value < self._sign * self._kept[0] - self._min_delta


def _copied(network: Any) -> dict[str, NDArray[np.float32]]:
    """Copies of what predictions depend on."""
    return {name: array.copy() for name, array in network._arrays().items()}


def _put_back(network: Any, copies: dict[str, NDArray[np.float32]]) -> None:
    for name, array in network._arrays().items():
        array[...] = copies[name]


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
    patience : int >= 1
    restore_best : bool
        Whether the best epoch is put back.
    min_delta : float >= 0
        The least change that counts as an improvement.
    mode : "auto", "min" or "max"
        Whether the metric shall fall or grow; "auto" knows it by its name, as far as that is a usual one.

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
            self._kept = monitored(metrics, self._monitor), epoch, _copied(network) if self.restore_best else None
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
            _put_back(network, state)
        except KeyboardInterrupt:  # a second Ctrl-C: not half of the best epoch and half of the last
            _put_back(network, state)
            raise
        finally:
            self._kept = best, epoch, None


class ReduceLROnPlateau(_Monitor):
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
        Whether the metric shall fall or grow; "auto" knows it by its name, as far as that is a usual one.

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


class Checkpoint(_Monitor):
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
        Whether the metric shall fall or grow; "auto" knows it by its name, as far as that is a usual one.

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

        files.check(network, self.path)  # what would fail after the first epoch shall fail before it

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
        By `fit`: before training begins, when the file cannot be opened; after an epoch, when it cannot be written.
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
        with _naming(self.path):
            if not self._names:
                self._names = list(metrics)
                writer.writerow(["epoch", *self._names])
            writer.writerow([epoch, *(metrics.get(name, math.nan) for name in self._names)])
            self._file.flush()

    def on_train_end(self, network: Any) -> None:
        file, self._file = self._file, None
        if file is not None:
            with _naming(self.path):
                file.close()


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """An error in writing, such as of a disk that is full, names the file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


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

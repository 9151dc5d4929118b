"""Progress on the terminal."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, TextIO

from cydrop._base import checks
from cydrop.callbacks.base import Callback

__all__ = ["ProgressBar", "for_verbose", "is_terminal"]

ALL_LINES = 100  # epochs of which each gets its line of progress
LINE_SECONDS = 0.1  # between two lines of more epochs


class ProgressBar(Callback):
    """A line per epoch, or a tqdm bar where tqdm is installed and a terminal is attached.

    Both show the losses, the accuracies and how many rows a second were trained on (validation not counted). With more
    than 100 epochs at most ten lines a second are printed, and always the last.

    Parameters
    ----------
    file : text stream or None
        None is standard output for lines and standard error for the bar.
    label : str
        What each line begins with, such as the name of one of several networks.
    """

    every_rank = False
    of_one_network = True
    label: str = ""  # of those pickled before there was one

    def __init__(self, file: TextIO | None = None, label: str = "") -> None:
        if not isinstance(label, str):
            raise TypeError(f"label must be a str, got {label!r} ({type(label).__name__})")
        self.file = file
        self.label = label
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
            self._bar = tqdm(total=epochs, unit="epoch", file=stream, dynamic_ncols=True, desc=self.label or None)

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        self._done += 1
        shown = ("loss", "accuracy", "rmse", "val_loss", "val_accuracy", "val_rmse", "val_error")
        parts = [f"{name} {metrics[name]:.4f}" for name in metrics if name in shown]
        speed = f"{network.training_rows / max(metrics['seconds'], 1e-9):,.0f} rows/s"
        if self._bar is not None:
            losses = [part for part in parts if "loss" in part]  # first: a narrow terminal cuts off the end
            others = [part for part in parts if part not in losses]
            self._bar.set_postfix_str("  ".join([*losses, speed, *others]), refresh=False)
            self._bar.update()
            return
        width = len(str(self._epochs))
        count = f"epoch {self._done:>{width}}/{self._epochs}"
        self._held = "  ".join([*filter(None, [self.label]), count, *parts, f"{metrics['seconds']:.2f} s", speed])
        now = time.monotonic()
        if self._epochs <= ALL_LINES or self._done == self._epochs or now - self._printed >= LINE_SECONDS:
            self._print()
            self._printed = now

    def _print(self) -> None:
        if self._held is not None:
            print(self._held + "\n", end="", file=self.file, flush=True)  # at once: other threads print too
            self._held = None

    def on_train_end(self, network: Any) -> None:
        self._print()
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def is_terminal(stream: Any) -> bool:
    """Whether a stream, or what stands in its place (a notebook's, None), is a terminal."""
    return bool(getattr(stream, "isatty", lambda: False)())


def for_verbose(verbose: Any) -> list[Callback]:
    """The progress callback of `fit(verbose=...)`: None shows progress where a terminal is attached, 0 is silent."""
    if verbose is None:
        return [ProgressBar()] if is_terminal(sys.stdout) else []
    level = int(verbose) if isinstance(verbose, bool) else checks.integer("verbose", verbose, 0)
    return [ProgressBar()] if level else []

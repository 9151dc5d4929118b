"""The metrics of every epoch in a file of comma-separated values."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cydrop._base import checks
from cydrop.callbacks.base import Callback

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Writes the metrics as CSV, a row per epoch, each as soon as the epoch has ended.

    The columns are "epoch" and the metrics of the first epoch. A metric that begins later gets no column, one that
    ends becomes nan.

    Parameters
    ----------
    path : str or path-like
        Opened when training begins.
    append : bool
        Whether to go on after the rows of an existing file, in its columns, instead of replacing it: for a further
        call of `fit`.

    Raises
    ------
    OSError
        By `fit`: before training begins, when the file cannot be opened; after an epoch, when it cannot be written.
    ValueError
        By `fit`, before training begins: with `append`, for a file that does not begin with "epoch".
    """

    every_rank = False
    of_one_network = True

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = os.fspath(path)
        self.append = checks.flag("append", append)
        self._file: TextIO | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        import csv  # what not every program needs is imported when it is first used

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
        import csv

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

"""The weights of the beginning of a pass, to which a divergence goes back: a copy in memory or, of large ones before a
long pass, in a temporary file without a name, which is gone with the pass.

    train_pass     begin: weights -> memory or file     engine.train ...     end: diverged? -> back

Which of the two it is changes no bit of what is trained.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

import numpy as np

from cydrop._base.arrays import Floats
from cydrop._run.model import Model
from cydrop._run.state import Weights

LARGE = 1 << 24  # bytes of weights that are worth a file
LONG = 4096  # rows of a pass for each thread, whose arithmetic takes a hundred times as long as writing the weights
DEAR = 0.1  # of the time of a pass: a disk that takes more is too slow
SPARE = 4  # times the weights' bytes must be free on the disk
PIECE = 1 << 26  # bytes written at a time: Ctrl-C is answered in between

_NONE = np.empty(0, dtype=np.float32)


class Beginning:
    """Keeps the weights of the beginning of the passes of one network."""

    def __init__(self) -> None:
        self._memory: Weights | None = None
        self._file: FileIO | None = None
        self._tries_file = os.name == "posix"
        self._start = self._wrote = 0.0  # seconds

    def in_memory(self, model: Model) -> Weights:
        """Memory for the weights."""
        if self._memory is None:
            self._memory = model.weights.like()
        return self._memory

    def begin(self, model: Model, rows: int, threads: int) -> None:
        """Begins a pass of the engine over so many rows."""
        if model.parameters.nbytes >= LARGE and rows >= LONG * threads and self._tries_file:
            self._start = time.perf_counter()
            self._file = written(model.parameters)
            self._wrote = time.perf_counter() - self._start
            if self._file is not None:
                self._memory = None
                model.engine.begin_pass(_NONE, model.buffers.copy(), self._file.fileno())
                return
            self._tries_file = False  # once is enough
        model.engine.begin_pass(*self.in_memory(model))

    def end(self, model: Model) -> bool:
        """Ends it: whether all is finite; if not, it is as at the beginning. Again, it changes nothing."""
        finite = model.engine.end_pass()
        if self._file is not None:
            closed(self._file)
            self._file = None
            self._tries_file = self._wrote <= DEAR * (time.perf_counter() - self._start)
        return finite


def written(weights: Floats) -> FileIO | None:
    """A temporary file that holds them; None where there can be none, or where it would take memory as well."""
    try:
        if shutil.disk_usage(tempfile.gettempdir()).free < SPARE * weights.nbytes:
            return None
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the pass
    except OSError:
        return None
    try:
        if not lies_in_memory(file.fileno()):
            left = weights.data.cast("B")
            while left:
                left = left[file.write(left[:PIECE]) :]
            return file
    except OSError:
        pass
    except BaseException:
        closed(file)
        raise
    closed(file)
    return None


def closed(file: FileIO) -> None:
    with suppress(OSError):  # of a disk that is full; nobody reads the file any more
        file.close()


def lies_in_memory(descriptor: int) -> bool:
    """Whether a file is one of Linux's that lie in memory."""
    device = os.fstat(descriptor).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            mount, _, system = line.partition(" - ")
            if mount.split()[2] == number and system.split()[0] in ("tmpfs", "ramfs"):
                return True
    return False

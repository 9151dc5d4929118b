"""How far many networks are, on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cydrop._base import checks
from cydrop._run.many import OneOfMany
from cydrop.callbacks import is_terminal

__all__ = ["Progress", "progress_for"]

LINE_SECONDS = 1.0  # between two lines


class Progress:
    """Shows nothing."""

    def show(self, members: Sequence[OneOfMany]) -> None:
        """After a stretch of training."""

    def close(self, members: Sequence[OneOfMany]) -> None:
        """At the end of it."""


class Lines(Progress):
    """A line a second at most, or a tqdm bar where tqdm is installed and a terminal is attached."""

    def __init__(self, count: int, monitor: str | None) -> None:
        self._count, self._monitor = count, monitor
        self._printed = time.monotonic()
        self._bar: Any = None
        if is_terminal(sys.stderr):
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=count, unit="network", file=sys.stderr, dynamic_ncols=True)

    def show(self, members: Sequence[OneOfMany]) -> None:
        now = time.monotonic()
        if self._bar is None and now - self._printed < LINE_SECONDS:
            return
        self._printed = now
        self._write(members)

    def _write(self, members: Sequence[OneOfMany]) -> None:
        done = sum(member.done for member in members)
        best = min((member.score for member in members), default=np.inf)
        if self._monitor == "val_accuracy":
            best = max((-member.score / len(member.job.held_rows) for member in members), default=np.inf)
        score = f"best {self._monitor} {best:.4f}" if self._monitor is not None and np.isfinite(best) else ""
        if self._bar is not None:
            self._bar.set_postfix_str(score, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        print("  ".join([f"{done:,} of {self._count:,} networks", *filter(None, [score])]), flush=True)

    def close(self, members: Sequence[OneOfMany]) -> None:
        self._write(members)
        if self._bar is not None:
            self._bar.close()


def progress_for(verbose: Any, count: int, monitor: str | None) -> Progress:
    """What `verbose` asks for, as in `fit`. `monitor`: what all scores are; None: there are different ones."""
    if verbose is None:
        return Lines(count, monitor) if is_terminal(sys.stdout) else Progress()
    level = int(verbose) if isinstance(verbose, bool) else checks.integer("verbose", verbose, 0)
    return Lines(count, monitor) if level else Progress()

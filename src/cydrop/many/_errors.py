"""What `fit_many` raises for a worker."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["WorkerError"]

MOST = 8  # runs of places that are listed


class WorkerError(RuntimeError):
    """An executor, or one of its workers, has failed. What it raised is the `__cause__`.

    Each network is as it came back from a worker, whole and with its history, or as it was before the call.

    Attributes
    ----------
    what : str
        What has happened.
    trained : tuple of int
        The places in `networks` of those that have come back. With `halving` they may have had some of the epochs only:
        `len(network.history)` says how many.
    networks : int
        How many there were.
    """

    def __init__(self, what: str, trained: Sequence[int], networks: int) -> None:
        super().__init__(what, tuple(trained), networks)
        self.what, self.trained, self.networks = what, tuple(trained), networks

    def __str__(self) -> str:
        if not self.trained:
            return f"{self.what}; no network has come back, all are as before"
        if len(self.trained) == self.networks:
            return f"{self.what}; all networks had come back, and are kept"
        return (
            f"{self.what}; of {self.networks} networks {_listed(self.trained)} had come back and are kept (trained has "
            "their places), the others are as before"
        )


def _listed(places: Sequence[int]) -> str:
    """Places, those that follow one another as "0-3"."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:MOST]]
    return ", ".join([*shown, *(["..."] if len(runs) > MOST else [])])

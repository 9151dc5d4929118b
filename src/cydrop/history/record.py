"""The values of every epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cydrop.errors import DivergedError
from cydrop.history.direction import best_epoch, lower_is_better

__all__ = ["History"]


class History:
    """The values of every epoch.

    Attributes
    ----------
    metrics : dict of str to list of float
        One value per epoch: `loss` (as trained: dropout on, averaged while the weights moved), `accuracy` for
        classifiers, `val_loss`, `val_accuracy` with validation data, `clean_loss`, `clean_accuracy` of the training
        rows with dropout off (`fit(clean_metrics=True)`), `learning_rate` where it is a schedule, has changed, or
        may be changed by `callbacks.ReduceLROnPlateau`, `weight_decay` where it is a schedule, and the rate of each
        scheduled layer (`"2.rate"`, `"0.std"`, `"1.drop_connect"`, by its place in the list; its last value in the
        epoch), `seconds` of training, validation not included; and what callbacks put into their `metrics`. A metric
        that begins late is NaN before.
    diverged : DivergedError or None
        Where a network diverged that `fit_many` trained; `fit` raises the error instead. Files do not keep it.

    Examples
    --------
    >>> import cydrop as cd
    >>> history = cd.History({"loss": [0.9, 0.5, 0.4], "val_loss": [0.8, 0.6, 0.7]})
    >>> history
    History(3 epochs; last: loss=0.4, val_loss=0.7)
    >>> history.best("val_loss")
    (2, 0.6)

    `pandas.DataFrame(history.metrics)` is a table with a row per epoch.
    """

    diverged: DivergedError | None = None

    def __init__(self, metrics: dict[str, list[float]] | None = None) -> None:
        self.metrics: dict[str, list[float]] = {} if metrics is None else metrics

    def append(self, epoch: dict[str, float]) -> None:
        """Adds the values of one epoch; all of them or, after an interrupt, none."""
        self.extend({name: [value] for name, value in epoch.items()})

    def extend(self, epochs: Mapping[str, Sequence[float]]) -> None:
        """Adds the values of some epochs; all of them or, after an interrupt, none.

        Parameters
        ----------
        epochs : mapping of str to sequence of float
            A sequence for each metric, all of the same length.

        Raises
        ------
        TypeError
            For a value that is not a number, or a name that is not a string; it is named.
        """
        values = {name: _numbers(name, column) for name, column in epochs.items()}
        missing = [math.nan] * max(map(len, values.values()), default=1)
        self._set(len(self), dict.fromkeys(self.metrics, missing) | values)

    def amend(self, metrics: Mapping[str, float]) -> None:
        """Sets the values of the last epoch; `fit` does so with what callbacks put into their `metrics`.

        All of them or, after an error or an interrupt, none. A new metric is NaN in the epochs before; those of the
        history that are not in `metrics` stay as they are.

        Parameters
        ----------
        metrics : mapping of str to float

        Raises
        ------
        TypeError
            For a value that is not a number, or a name that is not a string; it is named.
        ValueError
            For a history without an epoch.
        """
        values = {name: [_number(name, value)] for name, value in metrics.items()}
        if not len(self):
            raise ValueError("the history has no epoch whose values could be set: none has ended")
        self._set(len(self) - 1, values)

    def _set(self, epoch: int, values: dict[str, list[float]]) -> None:
        """Sets the values from an epoch on, counted from 0, the last one or one more: all of them, or none."""
        before = {name: (len(column), column[epoch:]) for name, column in self.metrics.items() if name in values}
        try:
            for name, added in values.items():
                column = self.metrics.setdefault(name, [])
                column.extend([math.nan] * (epoch - len(column)))
                column[epoch:] = added
        except BaseException:
            for name in values:
                if name in before:
                    length, tail = before[name]
                    self.metrics[name][min(epoch, length) :] = tail
                else:
                    self.metrics.pop(name, None)
            raise

    def begin(self, name: str, value: float) -> None:
        """Records from now on a metric that was `value` in all epochs so far; one that exists stays as it is."""
        self.metrics.setdefault(name, [float(value)] * len(self))

    def best(self, monitor: str = "val_loss", mode: str = "auto") -> tuple[int, float]:
        """The best epoch by a metric.

        Parameters
        ----------
        monitor : str
            A metric of the history.
        mode : "auto", "min" or "max"
            Whether less or more is better; "auto" goes by the name of the metric, where that is a usual one.

        Returns
        -------
        epoch : int
            Counted from 1; the first of several equally good ones.
        value : float

        Raises
        ------
        ValueError
            For a metric that is missing or has only NaN; and, without `mode`, for one whose name does not say whether
            less or more of it is better.
        """
        values = self.metrics.get(monitor, []) if isinstance(monitor, str) else []
        if isinstance(monitor, str) and all(map(math.isnan, values)):
            known = ", ".join(name for name, values in self._now().items() if values) or "none, no epoch has ended"
            raise ValueError(f"monitor={monitor!r} has no values; the metrics are {known}")
        return best_epoch(values, lower_is_better(monitor, mode))

    def __len__(self) -> int:
        return max(map(len, self._now().values()), default=0)

    def _now(self) -> dict[str, list[float]]:
        """The metrics to walk through: another thread that trains may begin one meanwhile."""
        return self.metrics.copy()

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self._now().items() if values)
        ended = "" if self.diverged is None else f"; diverged in epoch {self.diverged.epoch}"
        return f"History({len(self)} epoch{'' if len(self) == 1 else 's'}{'; last: ' + last if last else ''}{ended})"

    def plot(self, ax: Any = None, *, metric: str = "loss") -> Any:
        """Draws a metric over the epochs: in training, in training with dropout off, and in validation.

        Short for `cydrop.plot.learning_curves(history, metric=metric, ax=ax)`.

        Parameters
        ----------
        ax : matplotlib axes or None
            Where to draw; None makes a figure.
        metric : str
            "loss", "accuracy", "rmse", ..., without ``val_`` or ``clean_``.

        Returns
        -------
        matplotlib axes

        Raises
        ------
        ValueError
            For an empty history, or a metric that it does not have.
        ImportError
            Without matplotlib (`pip install "cydrop[plot]"`).
        """
        from cydrop.history import curves

        metrics = self._now()
        curves.check("history", metrics, metric)
        return curves.draw({"": metrics}, metric, ax)


def _numbers(name: Any, values: Sequence[Any]) -> list[float]:
    """Values of a metric."""
    checked = set(map(type, values)) == {float} and isinstance(name, str)
    return list(values) if checked else [_number(name, value) for value in values]


def _number(name: Any, value: Any) -> float:
    """A value of a metric: whatever is one number, NaN and infinity too, but no text."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a metric must be a str, got {name!r} ({type(name).__name__})")
    try:
        if isinstance(value, str | bytes | bytearray) or getattr(value, "ndim", None):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"metric {name!r} must be a number, got {value!r:.50} ({type(value).__name__})") from None

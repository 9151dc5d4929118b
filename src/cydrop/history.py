"""What happened in training."""

from __future__ import annotations

import math
from typing import Any

from cydrop import checks


class History:
    """The values of every epoch.

    Attributes
    ----------
    metrics : dict of str to list of float
        One value an epoch: `loss` (as trained: dropout on, averaged while the weights moved), `accuracy` for
        classifiers, `val_loss`, `val_accuracy` with validation data, `clean_loss`, `clean_accuracy` of the training
        rows with dropout off (`fit(clean_metrics=True)`), `learning_rate` where it is a schedule, has changed, or
        may be changed by `callbacks.ReduceLROnPlateau`, and the rate of each scheduled layer (`"2.rate"`, `"0.std"`,
        `"1.drop_connect"`, by its place in the list; its last value in the epoch), `seconds` of training, validation
        not included. A metric that begins late is NaN before.

    Examples
    --------
    >>> import cydrop as cd
    >>> history = cd.History({"loss": [0.9, 0.5, 0.4], "val_loss": [0.8, 0.6, 0.7]})
    >>> history
    History(3 epochs; last: loss=0.4, val_loss=0.7)
    >>> history.best("val_loss")
    (2, 0.6)

    `pandas.DataFrame(history.metrics)` is a table with a row an epoch.
    """

    def __init__(self, metrics: dict[str, list[float]] | None = None) -> None:
        self.metrics: dict[str, list[float]] = {} if metrics is None else metrics

    def append(self, epoch: dict[str, float]) -> None:
        """Adds the values of one epoch; all of them, or after an interrupt none."""
        length = len(self)
        try:
            for name in epoch:
                self.metrics.setdefault(name, [])
            for name, values in self.metrics.items():
                values.extend([math.nan] * (length - len(values)))
                values.append(float(epoch.get(name, math.nan)))
        except BaseException:
            for values in self.metrics.values():
                del values[length:]
            raise

    def begin(self, name: str, value: float) -> None:
        """Records from now on a metric that was `value` in all epochs so far; one that is there stays as it is."""
        self.metrics.setdefault(name, [float(value)] * len(self))

    def best(self, monitor: str = "val_loss", mode: str = "auto") -> tuple[int, float]:
        """The best epoch by a metric.

        Parameters
        ----------
        monitor : str
            A metric of the history.
        mode : "auto", "min" or "max"
            Whether less or more is better; "auto": more, where the name ends in "accuracy".

        Returns
        -------
        epoch : int
            Counted from 1; the first of several equally good ones.
        value : float

        Raises
        ------
        ValueError
            For a metric that is not there or has no value but NaN.
        """
        sign = 1.0 if lower_is_better(monitor, mode) else -1.0
        values = self.metrics.get(monitor, [])
        ranked = [(sign * value, epoch) for epoch, value in enumerate(values, 1) if not math.isnan(value)]
        if not ranked:
            known = ", ".join(name for name, values in self.metrics.items() if values) or "none, no epoch has ended"
            raise ValueError(f"monitor={monitor!r} has no values; the metrics are {known}")
        epoch = min(ranked)[1]
        return epoch, values[epoch - 1]

    def __len__(self) -> int:
        return max((len(values) for values in self.metrics.values()), default=0)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.metrics.items() if values)
        return f"History({len(self)} epoch{'' if len(self) == 1 else 's'}{'; last: ' + last if last else ''})"

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
        from cydrop import plot

        return plot.learning_curves(self, metric=metric, ax=ax)


def lower_is_better(monitor: str, mode: str = "auto") -> bool:
    """Which way a metric shall go: "min", "max", or by its name, whose end is "accuracy" where it shall grow."""
    if not isinstance(monitor, str):
        raise TypeError(f"monitor must be the name of a metric, got {monitor!r} ({type(monitor).__name__})")
    by_name = not monitor.endswith("accuracy")
    return checks.choice("mode", mode, {"auto": by_name, "min": True, "max": False})

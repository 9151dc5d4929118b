"""What happened in training."""

from __future__ import annotations

from typing import Any


class History:
    """The values of every epoch.

    Attributes
    ----------
    metrics : dict of str to list of float
        One value an epoch: `loss` (as trained: dropout on, averaged while the weights moved), `accuracy` for
        classifiers, `val_loss`, `val_accuracy` with validation data, `clean_loss`, `clean_accuracy` of the training
        rows with dropout off (`fit(clean_metrics=True)`), `learning_rate` and the rate of each scheduled layer
        (`"2.rate"`, `"0.std"`, `"1.drop_connect"`, by its place in the list; its last value in the epoch), `seconds`.
    """

    def __init__(self, metrics: dict[str, list[float]] | None = None) -> None:
        self.metrics: dict[str, list[float]] = {} if metrics is None else metrics

    def append(self, epoch: dict[str, float]) -> None:
        """Adds the values of one epoch."""
        length = len(self)
        for name, value in epoch.items():
            # a metric that begins late, such as validation in a second call of fit, is NaN before
            self.metrics.setdefault(name, [float("nan")] * length).append(float(value))
        for values in self.metrics.values():
            if len(values) == length:
                values.append(float("nan"))

    def __len__(self) -> int:
        return max((len(values) for values in self.metrics.values()), default=0)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.metrics.items() if values)
        return f"History({len(self)} epochs{'; last: ' + last if last else ''})"

    def plot(self, ax: Any = None) -> Any:
        """Draws the losses over the epochs; returns the axes.

        Parameters
        ----------
        ax : matplotlib axes or None
            Where to draw; None makes a figure.

        Raises
        ------
        ImportError
            Without matplotlib (`pip install "cydrop[plot]"`).
        """
        if ax is None:
            try:
                import matplotlib.pyplot as plt
            except ImportError:
                raise ImportError('plotting needs matplotlib: pip install "cydrop[plot]"') from None
            ax = plt.subplots()[1]
        for name, label in (("loss", "training (dropout on)"), ("val_loss", "validation")):
            if name in self.metrics:
                ax.plot(range(1, len(self.metrics[name]) + 1), self.metrics[name], label=label)
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.legend()
        return ax

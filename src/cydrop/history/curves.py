"""Learning curves: the picture that `History.plot` and `cydrop.plot.learning_curves` draw, of plain lists of values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from cydrop._base.figures import axes
from cydrop.history.direction import best_epoch, lower_by_name

__all__ = ["Metrics", "check", "draw"]

Metrics: TypeAlias = Mapping[str, Sequence[float]]  # those of a history

TRAINED_WITH_DROPOUT = ("loss", "accuracy")  # what the history has of the training steps themselves


def check(name: str, metrics: Metrics, metric: Any) -> None:
    """Raises ValueError for a history, called `name`, that has no values of a metric."""
    if not any(map(len, metrics.values())):
        raise ValueError(f"{name} has no epochs to draw: train with fit first")
    known = {
        known.removeprefix("val_").removeprefix("clean_"): None for known, values in metrics.items() if _some(values)
    }
    if metric not in known:
        raise ValueError(f"metric={metric!r} is not in {name}; it has {', '.join(map(repr, known))}")


def draw(histories: Mapping[str, Metrics], metric: str, ax: Any, several: bool = False) -> Any:
    """The curves of checked histories, where there are several each with its colour and name. Returns the axes."""
    ax = axes(ax)
    kinds = (
        ("", "training (dropout on)" if metric in TRAINED_WITH_DROPOUT else metric, "--"),
        ("clean_", "training, dropout off", ":"),
        ("val_", "validation", "-"),
    )
    lower = lower_by_name(metric)
    for name, metrics in histories.items():
        before = f"{name}, " if several else ""
        colour: Any = None
        for prefix, label, style in kinds:
            values = metrics.get(prefix + metric, [])
            if not _some(values):
                continue
            epochs = range(1, len(values) + 1)
            dot = "." if sum(not math.isnan(value) for value in values) == 1 else None  # a line of one point is none
            (line,) = ax.plot(epochs, values, color=colour, marker=dot, label=before + label)
            if several:
                line.set_linestyle(style)
                colour = line.get_color()
            if prefix == "val_" and lower is not None:
                epoch, value = best_epoch(values, lower)
                ax.plot(
                    [epoch], [value], label=f"{before}best validation, epoch {epoch}", color=line.get_color(),
                    linestyle="none", marker="o",
                )  # fmt: skip
    ax.set_xlabel("epoch")
    ax.set_ylabel(metric.replace("_", " "))
    _whole_numbers(ax.xaxis)
    ax.legend()
    return ax


def _some(values: Sequence[float]) -> bool:
    return not all(map(math.isnan, values))


def _whole_numbers(axis: Any) -> None:
    """Ticks at whole epochs, unless the user has chosen another kind of ticks."""
    from matplotlib.ticker import MaxNLocator

    locator = axis.get_major_locator()
    if isinstance(locator, MaxNLocator):
        locator.set_params(integer=True)

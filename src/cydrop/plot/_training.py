"""Of training: curves over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cydrop.history import History, curves


def learning_curves(history: History | Mapping[str, History], *, metric: str = "loss", ax: Any = None) -> Any:
    """A metric over the epochs: in training, in training with dropout off (``clean_``), and in validation.

    A dot marks the best epoch of the validation, for metrics whose name says whether less or more is better.

    Parameters
    ----------
    history : History, or dict of str to History
        Several are compared, each in its own colour; validation is solid, training dashed, clean training dotted.
    metric : str
        "loss", "accuracy", "rmse", "learning_rate", ..., without ``val_`` or ``clean_``.
    ax : matplotlib axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        For an empty history, or a metric that it does not have.
    ImportError
        Without matplotlib.
    """
    several = isinstance(history, Mapping)
    histories = dict(history) if isinstance(history, Mapping) else {"": history}
    if not histories:
        raise ValueError("history is an empty dict; give name: History for each curve")
    for name, one in histories.items():
        called = f"history[{name!r}]" if several else "history"
        if not isinstance(one, History):
            raise TypeError(f"{called} must be a History, as fit returns it, got {type(one).__name__}")
        curves.check(called, one.metrics, metric)
    return curves.draw({name: one.metrics for name, one in histories.items()}, metric, ax, several)

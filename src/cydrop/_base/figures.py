"""Where pictures are drawn."""

from __future__ import annotations

from typing import Any


def axes(ax: Any) -> Any:
    """The axes that were given, or those of a new figure; called when all arguments have been checked."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError('plotting needs matplotlib: pip install "cydrop[plot]"') from None
    return plt.subplots()[1]

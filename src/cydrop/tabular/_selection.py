"""Greedy ensemble selection (Caruana, Niculescu-Mizil, Crew and Ksikes 2004): which of many models predict together.

It begins with none and adds, again and again, the model with which the mean of the predictions is best on rows that no
model was trained on; a model may come several times. What counts is the best ensemble on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cydrop.tabular._columns import Doubles

Score = tuple[float, ...]  # less is better; the first that differs decides


def select(
    predictions: Sequence[Doubles], score: Callable[[Doubles], Score], most: int
) -> tuple[NDArray[np.int64], Score]:
    """How often each model counts, at most so many in sum, and the score of the ensemble.

    Parameters
    ----------
    predictions : sequence of ndarray, shape (n, k)
        Of each model, for the same rows. Of equally good models the first is added.
    score : callable
        Of the mean predictions.
    most : int
    """
    counts = np.zeros(len(predictions), dtype=np.int64)
    total = np.zeros_like(predictions[0])
    best: tuple[NDArray[np.int64], Score] | None = None
    for size in range(1, most + 1):
        scores = [score((total + own) / size) for own in predictions]
        chosen = min(range(len(scores)), key=lambda model: (scores[model], model))
        total = total + predictions[chosen]
        counts[chosen] += 1
        if best is None or scores[chosen] < best[1]:
            best = counts.copy(), scores[chosen]
    assert best is not None
    return best

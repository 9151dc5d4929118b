"""What a search chooses from: the random search spaces of TabArena (Erickson et al. 2025, arXiv 2506.16791), which were
agreed on with the authors of RealMLP and TabM.

From its program (tabarena/models/realmlp and tabm, generate.py). What differs here: label smoothing stays the same
throughout training, where TabArena's rises and falls with the learning rate; all RealMLPs train for 256 epochs, where
half of TabArena's larger ones train for up to 512 and stop early; and no RealMLP is eight in one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cydrop.tabular._realmlp import RealMLP
from cydrop.tabular._recipe import CLASSES, Recipe
from cydrop.tabular._tabm import TabM

Chosen = dict[str, Any]  # values by the names of the recipe's fields


class Draw:
    """Random choices of a search.

    Parameters
    ----------
    rng : numpy.random.RandomState
    """

    def __init__(self, rng: np.random.RandomState) -> None:
        self._rng = rng

    def uniform(self, low: float, high: float) -> float:
        return float(low + (high - low) * self._rng.random_sample())

    def log_uniform(self, low: float, high: float) -> float:
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def one_of(self, *values: Any) -> Any:
        return values[self._rng.randint(len(values))]


def realmlp(draw: Draw, task: str) -> Chosen:
    """A RealMLP, of RealMLP's own page of TabArena."""
    layers = draw.one_of(2, 3, 4)
    width = draw.one_of(256, 384, 512)
    found: Chosen = {
        "hidden_layer_sizes": (width,) * layers,
        "dropout": draw.uniform(0.0, 0.5),
        "chosen_activation": "mish",
        "sigma": draw.log_uniform(0.01, 50.0),
        "beta2": 1.0 - draw.log_uniform(0.005, 0.05),
        "embedding_factor": draw.log_uniform(0.05, 0.3),
        "scale_factor": draw.log_uniform(2.0, 10.0),
        "first_factor": draw.log_uniform(0.3, 1.5),
        "learning_rate_init": draw.log_uniform(0.02, 0.3),
        "weight_decay": draw.log_uniform(0.001, 0.05),
        "label_smoothing": draw.log_uniform(0.005, 0.1) * draw.one_of(0, 1),
        "max_onehot": int(draw.log_uniform(4.0, 33.0)),
        "embedding_size": draw.one_of(4, 8, 16),
    }
    if draw.one_of(False, True):  # larger embeddings of numbers
        found |= {"frequencies": draw.one_of(8, 16, 32, 64), "size": draw.one_of(8, 16, 32, 64)}
    if task != CLASSES:
        found["label_smoothing"] = 0.0
    return found


def tabm(draw: Draw, task: str) -> Chosen:
    """A TabM, of its authors' space as TabArena has it."""
    blocks = draw.one_of(2, 3, 4, 5)
    width = draw.one_of(*range(128, 1025, 16))
    return {
        "hidden_layer_sizes": (width,) * blocks,
        "learning_rate_init": draw.log_uniform(1e-4, 3e-3),
        "weight_decay": draw.log_uniform(1e-4, 0.1) * draw.one_of(0, 1),
        "dropout": draw.uniform(0.0, 0.5) * draw.one_of(0, 1),
        "size": draw.one_of(*range(8, 33, 4)),
        "bins": draw.one_of(*range(2, 129)),
    }


SPACES: dict[type[Recipe], Callable[[Draw, str], Chosen]] = {RealMLP: realmlp, TabM: tabm}


def drawn(draw: Draw, default: Recipe) -> tuple[Recipe, Chosen]:
    """Another recipe than the default, and what was chosen for it."""
    chosen = SPACES[type(default)](draw, default.task)
    return replace(default, **chosen), chosen

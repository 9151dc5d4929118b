"""A layer used alone: a core of one layer, there is no second implementation.

The core is kept beside the layer's options, in its `__dict__`: it refers to the layer, so that a table of its own, even
one with weak keys, would keep both forever. What a layer declares does not change by it.
"""

from __future__ import annotations

from typing import Any

from cydrop._base import checks, seeding, threads
from cydrop._base.arrays import Floats
from cydrop._run.core import Core
from cydrop._run.prediction import predict
from cydrop._run.state import State
from cydrop.history import History
from cydrop.losses import MSE
from cydrop.optimizers import SGD

KEPT = "_alone"  # under this name; no pickle takes it along


def forward(layer: Any, X: Floats, training: bool) -> Floats:
    """y of a layer for X, (rows, columns)."""
    core: Core | None = vars(layer).get(KEPT)
    if core is None:
        # one step, so that threads that come first at the same time get the same core
        core = vars(layer).setdefault(KEPT, _core(layer, seeding.words(getattr(layer, "seed", None), 4)))
    model = core.model
    if model is not None and X.shape[1] != model.plan.n_features and not model.plan.has_arrays:
        other = _core(layer, core.root)  # for these columns: it goes on with the random numbers
        other.built_for(X.shape[1]).engine.draws = model.engine.draws
        core = vars(layer)[KEPT] = other
    if not training:
        return predict(core.built_for(core.inputs(X).shape[1]), X, False)
    with core.turn:
        model = core.built_for(core.inputs(X).shape[1])
        return core.passes.forward(model, X, [None] * len(model.plan.mask_draws), core.first_rates().drawing)


def backward(layer: Any, dy: Any) -> Floats:
    """d loss / d X of the last training `forward`."""
    core: Core | None = vars(layer).get(KEPT)
    if core is None:
        raise RuntimeError("backward needs a forward(x, training=True) of this layer before it")
    dy = checks.floats("dy", dy)
    if not dy.size:
        raise ValueError(f"dy is empty: shape {dy.shape}")
    with core.turn:
        many = core.plan is not None and core.plan.trained_members
        dx = core.passes.backward(dy.reshape(len(dy), -1) if dy.ndim and not many else dy)
    return dx.reshape(dy.shape) if dx.size == dy.size else dx


def _core(layer: Any, root: Any) -> Core:
    words = tuple(int(word) for word in root)
    return Core(State((layer,), MSE(), SGD(), words, 0, History(), threads.resolve(None), True, None))

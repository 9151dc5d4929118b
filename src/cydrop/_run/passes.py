"""The last training forward pass: what `backward` reads, and what it takes to draw its masks again.

Masks are not kept. They are a function of seed, layer, step and row, and are drawn again for whoever asks for them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._core import dropout
from cydrop._core.engine import Workspace, key_of
from cydrop._run.model import Model
from cydrop._run.plan import Draw, Draws, Plan

Mask = NDArray[np.bool_]

KEPT = "_passes"  # under this name a layer's __dict__ has whose training pass it was in last; no pickle takes it along


class _Pass(NamedTuple):
    """What it takes to draw the masks again."""

    model: Model
    step: int
    rows: int
    given: Sequence[Mask | None]
    rates: list[float]


class _Tape(NamedTuple):
    """What `backward` reads: the workspace of the last `forward` by hand, and its rows."""

    model: Model
    workspace: Workspace
    rows: int


class Passes:
    """The training passes of one network."""

    def __init__(self) -> None:
        self._last: _Pass | None = None
        self._tape: _Tape | None = None
        self._reference = weakref.ref(self)

    def forward(self, model: Model, X: Floats, given: Sequence[Mask | None], rates: NDArray[np.float64]) -> Floats:
        """Raw outputs with dropout on; masks that are given are used instead of drawn ones."""
        tape, self._tape = self._tape, None  # half of a pass is none
        rows = len(X) * max(1, model.plan.trained_members)
        if tape is not None and tape.model.engine is model.engine and tape.workspace.capacity == rows:
            workspace = tape.workspace
        else:
            workspace = Workspace(model.engine, rows, True)
        workspace.take_back_masks()
        for mask, draw in zip(given, model.plan.mask_draws, strict=True):
            if mask is not None:
                drawn = np.zeros(_drawn_shape(model.plan, draw, mask.shape), dtype=np.bool_)
                drawn[..., : mask.shape[-1]] = mask
                workspace.give_mask(draw.op, _packed(drawn))
        out = np.empty((rows, model.plan.n_outputs), dtype=np.float32)
        model.engine.forward(workspace, X, out, rates)
        self.remember(model, len(X), given, list(rates[0]))
        self._tape = _Tape(model, workspace, len(X))
        return out.reshape(*model.plan.batch_shape, len(X), model.plan.n_outputs)

    def backward(self, grad: Any) -> Floats:
        """d loss / d X of the last `forward`, for d loss / d raw outputs; fills the model's gradients."""
        if self._tape is None:
            raise RuntimeError("backward needs a forward(X, training=True) before it")
        model, workspace, rows = self._tape
        given = checks.floats("grad", grad)
        expected = (*model.plan.batch_shape, rows, model.plan.n_outputs)
        if given.shape != expected:
            raise ValueError(f"grad must have shape {expected}, got {given.shape}")
        dx = np.empty((rows, model.plan.n_features), dtype=np.float32)
        model.engine.backward(workspace, given.reshape(-1, model.plan.n_outputs), dx)
        return dx

    def remember(self, model: Model, rows: int, given: Sequence[Mask | None], rates: list[float]) -> None:
        """The training pass that was made just now was of so many rows, at these rates."""
        self._last = _Pass(model, model.engine.draws - 1, rows, given, rates)
        for draw in model.plan.draws:
            vars(draw.layer)[KEPT] = self._reference

    def masks(self) -> list[Mask]:
        """The masks of the units in the last training pass, one per dropout layer."""
        last = self._last  # once: another thread may train
        if last is None:
            raise RuntimeError("masks needs a training forward pass (fit, train_on_batch or forward) before it")
        return [_drawn(last, draw) for draw in last.model.plan.mask_draws]

    def mask_of(self, layer: Draws) -> Mask | None:
        """The last mask of a layer, the last one of a layer that stands at several places; None where it has none."""
        last = self._last
        if last is None:
            return None
        draws = [
            draw for draw in last.model.plan.draws if draw.layer is layer and draw.what not in ("normals", "keeps")
        ]
        return _drawn(last, draws[-1]) if draws else None


def _drawn(last: _Pass, draw: Draw) -> Mask:
    plan = last.model.plan
    for given, other in zip(last.given, plan.mask_draws, strict=False):  # none is given in `fit`
        if other is draw and given is not None:
            return given
    shape = plan.mask_shape(draw, last.rows)
    drawn = _drawn_shape(plan, draw, shape)
    size = math.prod(drawn)
    bits = np.zeros(dropout.words_of(size), dtype=np.uint64)
    rate = last.rates[draw.source.column]
    dropout.mask(bits, size, rate, *key_of(draw.source, last.step), 1)
    mask = np.empty(size, dtype=np.bool_)
    dropout.unpack(bits, mask.view(np.uint8))
    return mask.reshape(drawn)[..., : shape[-1]].copy()


def _drawn_shape(plan: Plan, draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the bits that are drawn for a mask: where a member's rows share one, each begins with a word."""
    own = plan.trained_members and plan.ops[draw.op].shared and draw.op >= plan.inside
    return (shape[0], -(-shape[1] // 64) * 64) if own else shape


def last_mask(layer: Draws) -> Mask | None:
    """The mask of a layer in the last training pass that it was in, alone or in a network; None before the first."""
    reference: weakref.ref[Passes] | None = vars(layer).get(KEPT)
    passes = None if reference is None else reference()
    return None if passes is None else passes.mask_of(layer)


def checked_masks(masks: Any, plan: Plan, rows: int) -> Sequence[Mask | None]:
    """An entry for each draw of a mask of units: a boolean array of its shape, or None for one that is drawn."""
    draws = plan.mask_draws
    count = len(draws)
    if masks is None:
        return [None] * count
    if not isinstance(masks, list | tuple) or len(masks) != count:
        raise ValueError(
            f"masks must be a list with an entry for each of the {count} dropout layers, got "
            f"{len(masks) if isinstance(masks, list | tuple) else type(masks).__name__}"
        )
    # copies: `masks()` gives them back, whatever becomes of the caller's
    return [
        None if mask is None else checks.mask(f"masks[{number}]", mask, plan.mask_shape(draw, rows)).copy()
        for number, (mask, draw) in enumerate(zip(masks, draws, strict=True))
    ]


def _packed(mask: Mask) -> NDArray[np.uint64]:
    bits = np.zeros(dropout.words_of(mask.size), dtype=np.uint64)
    dropout.pack(mask.reshape(-1).view(np.uint8), bits)
    return bits

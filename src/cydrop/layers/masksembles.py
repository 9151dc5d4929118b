"""Fixed masks (Masksembles)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._run.plan import Plan
from cydrop.layers.base import Layer
from cydrop.xorshift import Xorshift

__all__ = ["Masksembles"]

MOST_MASKS = 256
KIND = "masks"  # of the operation


class Masksembles(Layer):
    """Dropout with a few fixed masks, so that one network is an ensemble (Durasov, Bagautdinov, Baque and Fua 2021,
    arXiv 2012.08334).

    y = x m_j, with masks of 0 and 1 that are drawn once, when the network is built. A member of the ensemble is the
    network with mask j of each such layer; members share all parameters. The rows of a training batch take the masks in
    turn, row r of step t that of number t + r modulo n_masks: a step costs hardly more than without this layer. A
    prediction is the mean of the members' predictions, after the loss's link (of "gaussian_nll" the mixture), and costs
    n_masks passes through all that follows the first layer of this kind. `Network.predict_members` gives what each
    predicts, and each sample of `predict_mc` is one member's, in turn: take `samples=n_masks`, or a multiple where
    dropout draws as well.

    Kept units are not scaled, in training or prediction, since each mask keeps as many.

    Parameters
    ----------
    n_masks : int in [1, 256]
        The same in all layers of a network.
    scale : float >= 1
        How far the masks differ: of the units that at least one of two keeps, both keep about 1 / (2 scale - 1). At
        1 all keep everything, and the network is one; the larger, the fewer units a mask keeps and the less members
        have in common, as in an ensemble.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        This layer's own seed for the masks; None takes the network's.

    Notes
    -----
    Each mask keeps m of c units, drawn at random, m = c / (scale (1 - (1 - 1 / scale)^n_masks)) rounded: with n masks
    of m units each among m scale places, c is how many places at least one of them has. Where a unit is in no mask, one
    of the masks takes it instead of a unit that another one has, so that all units are in use. `Network.buffers` shows
    the masks and files keep them.

    Examples
    --------
    >>> import cydrop as cd
    >>> layers = [cd.Dense(64), cd.ReLU(), cd.Masksembles(4, 2.0), cd.Dense(10)]
    >>> net = cd.Network(layers, seed=0).build(20)
    >>> net.buffers()["2.masks"].sum(axis=1)
    array([34., 34., 34., 34.], dtype=float32)
    """

    option_names = ("n_masks", "scale", "seed")
    n_masks: int
    scale: float
    seed: int | None

    def __init__(self, n_masks: int = 4, scale: float = 2.0, *, seed: seeding.Seed = None) -> None:
        self.declare(
            n_masks=checks.integer("n_masks", n_masks, 1, MOST_MASKS),
            scale=checks.number("scale", scale, 1.0),
            seed=seeding.as_int(seed),
        )

    def lower(self, plan: Plan) -> None:
        (units,), number = plan.shape, plan.counts[KIND]
        plan.become_masked(self.n_masks)
        op = plan.operation(KIND, plan.shape, numbers=(self.n_masks,))
        drawn = partial(self.initial_masks, units)
        op.buffer = plan.buffer(KIND, (self.n_masks, units), drawn, (seeding.FIXED_MASKS, number))

    def initial_masks(self, units: int, seed: np.random.SeedSequence) -> Floats:
        """Fresh masks.

        Parameters
        ----------
        units : int
            That come in.
        seed : numpy.random.SeedSequence
            Of the network, for a layer without its own.

        Returns
        -------
        ndarray of float32, shape (n_masks, units), of 0 and 1
        """
        generator = Xorshift(seed if self.seed is None else self.seed)
        kept = _kept_of_each(units, self.n_masks, self.scale)
        masks = np.zeros((self.n_masks, units), dtype=bool)
        for mask in masks:
            mask[generator.permutation(units)[:kept]] = True
        _use_every_unit(masks, generator)
        return masks.astype(np.float32)

    def to_onnx(self, graph: Any, x: str) -> str:
        (units,) = graph.shape  # x has the rows of one member after another's
        of_members = graph.add("Reshape", x, graph.integers("members", [self.n_masks, -1, units]))
        masks = graph.add("Unsqueeze", graph.parameter(KIND), graph.integers("axes", [1]))
        y: str = graph.add("Reshape", graph.add("Mul", of_members, masks), graph.integers("rows", [-1, units]))
        return y


def _kept_of_each(units: int, n_masks: int, scale: float) -> int:
    """How many units each mask keeps. No power of the C library's, so that all machines agree."""
    unused = 1.0
    for _ in range(n_masks):
        unused *= 1.0 - 1.0 / scale
    kept = round(units / (scale * (1.0 - unused)))
    return min(units, max(kept, -(-units // n_masks)))  # together they have room for all units


def _use_every_unit(masks: NDArray[np.bool_], generator: Xorshift) -> None:
    """Gives units that no mask keeps to masks at random, each instead of a unit that another mask keeps as well."""
    counts, pairs = masks.sum(axis=0), np.argwhere(masks)
    waiting = np.flatnonzero(counts == 0).tolist()
    for mask, other in pairs[generator.permutation(len(pairs))].tolist() if waiting else ():
        if waiting and counts[other] > 1:
            counts[other] -= 1
            masks[mask, waiting.pop()], masks[mask, other] = True, False


LAYERS = (Masksembles,)

"""Dropout."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks, seeding
from cydrop._run.passes import last_mask
from cydrop._run.plan import Plan
from cydrop.layers.base import RandomLayer, checked_rate
from cydrop.schedules import Rate

__all__ = ["Dropout"]


class Dropout(RandomLayer):
    """Sets each element to zero with probability `rate` during training (Srivastava et al. 2014).

    Parameters
    ----------
    rate : float in [0, 1], or schedule
        Probability of *dropping*. 0 is the identity and draws nothing, 1 gives zeros.
    mode : "inverted" or "vanilla"
        inverted: what is kept is divided by 1 - rate in training, prediction is the identity.
        vanilla: training does not scale, prediction multiplies by 1 - rate.
    shared : None or "batch"
        "batch": one mask for all rows of a batch (Graham, Reizenstein and Robinson 2015, arXiv 1502.02478). In the
        training of a large network dropped units are then not computed at all; the result has the same bits.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        This layer's own seed for the masks; None takes the network's.
    """

    option_names = ("rate", "mode", "shared", "seed")
    rate: Rate
    mode: str
    shared: str | None

    def __init__(
        self, rate: Rate = 0.5, *, mode: str = "inverted", shared: str | None = None, seed: seeding.Seed = None
    ) -> None:
        rate = checked_rate("rate", rate)
        checks.one_of("mode", mode, ("inverted", "vanilla"))
        if shared is not None:
            checks.one_of("shared", shared, ("batch",), "None")
        self.declare(rate=rate, mode=mode, shared=shared, seed=seeding.as_int(seed))

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the last training forward pass of this layer, alone or in a network, boolean; True keeps.
        None before the first."""
        return last_mask(self)

    def lower(self, plan: Plan) -> None:
        op = plan.epilogue()
        op.vanilla, op.shared = self.mode == "vanilla", self.shared == "batch"
        op.noise = plan.draw(self, "units")

    def to_onnx(self, graph: Any, x: str) -> str:
        rate, vanilla = self.rate_at(1.0), self.mode == "vanilla"
        if rate == 0 or not (graph.mc or vanilla):
            return x
        in_prediction = 1.0 - rate if vanilla else 1.0
        y: str
        if not graph.mc:
            y = graph.add("Mul", x, graph.constant("keep", in_prediction))
        else:
            rows = (1,) if graph.members == 0 else (graph.members, 1)  # one mask for all rows, or for a member's
            like = x if self.shared is None else graph.constant("row", np.zeros((*rows, *graph.shape)))
            y = graph.drop(x, like, rate, in_prediction, vanilla)
        return y

    torch_name = "Dropout"

    def missing_in_torch(self) -> str | None:
        return 'mode="vanilla"' if self.mode == "vanilla" else 'shared="batch"' if self.shared else None

    def to_torch(self, nn: Any, width: int) -> list[Any]:
        return [nn.Dropout(p=self.rate_at(1.0))]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        return cls(float(module.p))


LAYERS = (Dropout,)

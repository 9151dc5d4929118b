"""Dropout."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks, seeding
from cydrop._core.noise import rate_of_logit
from cydrop._run.passes import last_mask
from cydrop._run.plan import Plan
from cydrop.layers.base import Factor, RandomLayer, checked_factor, checked_rate
from cydrop.schedules import Rate

__all__ = ["Dropout"]

DEFAULTS = {"initial": 0.1, "lengthscale": 0.01, "noise_precision": 1.0, "rows": None, "learning_rate_factor": 1.0}
LEARNING = tuple(DEFAULTS)  # the options of a rate that is learned


class Dropout(RandomLayer):
    """Sets each element to zero with probability `rate` during training (Srivastava et al. 2014).

    Parameters
    ----------
    rate : float in [0, 1], schedule, or "learn"
        Probability of *dropping*. 0 is the identity and draws nothing, 1 gives zeros. "learn": one rate for the layer
        is learned with the weights, see below.
    mode : "inverted" or "vanilla"
        inverted: what is kept is divided by 1 - rate in training, prediction is the identity.
        vanilla: training does not scale, prediction multiplies by 1 - rate.
    shared : None or "batch"
        "batch": one mask for all rows of a batch (Graham, Reizenstein and Robinson 2015, arXiv 1502.02478). In the
        training of a large network dropped units are then not computed at all; the result has the same bits.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        This layer's own seed for the masks; None takes the network's.
    initial : float in (0, 1)
        The rate with which "learn" begins.
    lengthscale : float >= 0
        l below: the larger it is, the more do large weights after the layer push the rate down.
    noise_precision : float > 0
        For losses that do not say how much noise y has, such as "mse": its precision, 1 / variance, in units of 1 / y^2
        as for `evaluate_mc`.
    rows : int >= 1 or None
        N below. None takes the rows that `fit` trains on; `partial_fit` and `train_on_batch` need a number, and `step`
        leaves the prior out without one.
    learning_rate_factor : float >= 0, or dict
        What the optimizer's learning rate is multiplied by for the logit of the rate, which has no weight decay.

    Notes
    -----
    "learn" is concrete dropout (Gal, Hron and Kendall 2017, arXiv 1705.07832). In training, with u uniform in (0, 1)
    and p the rate,

        y = x (1 - z) / (1 - p),    z = sigmoid((logit p + logit u) / 0.1)

    and the parameter "logit", shape (1,), is learned from the loss to which

        c / N (l^2 / 2 sum(W^2) / (1 - p) - K H(p)),    H(p) = -p log p - (1 - p) log(1 - p)

    is added: K is how many columns the layer has, W the weight of the next dense layer if it takes these, N the number
    of rows to train on. c is how much of the loss a row's negative log-likelihood is: 1 for "cross_entropy", and for k
    targets a row 1 / k for "binary_cross_entropy" and "gaussian_nll", 2 / (k noise_precision) for "mse", and
    1 / (k noise_precision) for the others, taken for half a squared error. The optimizer adds the derivatives as it
    adds weight decay, after clipping: the losses that are reported, and `gradients()`, are without them. The
    optimizer's weight decay on W would count twice.

    Prediction is the identity; `predict_mc` draws masks at the learned rates, which `Network.learned_rates` tells.
    """

    option_names = ("rate", "mode", "shared", "seed", *LEARNING)
    rate: Rate | str
    mode: str
    shared: str | None
    initial: float = 0.1
    lengthscale: float = 0.01
    noise_precision: float = 1.0
    rows: int | None = None

    def __init__(
        self, rate: Rate | str = 0.5, *, mode: str = "inverted", shared: str | None = None, seed: seeding.Seed = None,
        initial: float = 0.1, lengthscale: float = 0.01, noise_precision: float = 1.0, rows: int | None = None,
        learning_rate_factor: Factor = 1.0,
    ) -> None:  # fmt: skip
        checks.one_of("mode", mode, ("inverted", "vanilla"))
        if shared is not None:
            checks.one_of("shared", shared, ("batch",), "None")
        own = {
            "initial": checks.number("initial", initial, 0.0, 1.0, low_open=True, high_open=True, single=True),
            "lengthscale": checks.number("lengthscale", lengthscale, 0.0, single=True),
            "noise_precision": checks.number("noise_precision", noise_precision, 0.0, low_open=True, single=True),
            "rows": None if rows is None else checks.integer("rows", rows, 1),
            "learning_rate_factor": checked_factor("learning_rate_factor", learning_rate_factor, ["logit"]),
        }
        if not isinstance(rate, str):
            if own != DEFAULTS:
                raise ValueError(f'{", ".join(LEARNING)} are for Dropout("learn"), got them with rate={rate!r}')
            self.declare(rate=checked_rate("rate", rate), mode=mode, shared=shared, seed=seeding.as_int(seed))
            return
        if rate != "learn":
            raise TypeError(f'rate must be a number, got {rate!r} (str); a schedule or "learn" will do as well')
        if mode != "inverted" or shared is not None:
            raise ValueError(
                f'a rate that is learned needs a mask for every row and mode="inverted", got mode={mode!r} and '
                f"shared={shared!r}"
            )
        self.declare(rate=rate, mode=mode, shared=shared, seed=seeding.as_int(seed), **own)

    @property
    def learns(self) -> bool:
        """Whether the rate is learned."""
        return isinstance(self.rate, str) and self.rate == "learn"

    def options(self) -> dict[str, Any]:
        every = super().options()
        return every if self.learns else {name: value for name, value in every.items() if name not in LEARNING}

    def with_rate(self, rate: Rate) -> Self:
        if self.learns or (isinstance(rate, str) and rate == "learn"):
            raise ValueError(f"{self!r} cannot get {rate!r}: whether a rate is learned is settled with the network")
        return super().with_rate(rate)

    def _instead(self, name: str) -> str:
        return "" if self.learns else super()._instead(name)

    def rate_at(self, progress: float) -> float:
        return self.initial if self.learns else super().rate_at(progress)

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the last training forward pass of this layer, alone or in a network, boolean; True keeps.
        None before the first, and of a rate that is learned, which drops by degrees."""
        return last_mask(self)

    def lower(self, plan: Plan) -> None:
        if self.learns:
            self._lower_learned(plan)
            return
        op = plan.epilogue()
        op.vanilla, op.shared = self.mode == "vanilla", self.shared == "batch"
        op.noise = plan.draw(self, "units")

    def _lower_learned(self, plan: Plan) -> None:
        if plan.members:
            raise ValueError(f"layers[{plan.where}] cannot learn its rate inside Members")
        op = plan.operation("concrete", plan.shape)
        first = math.log(self.initial / (1.0 - self.initial))
        learning_rate, gain, _ = self.factors("logit")
        op.weight = plan.parameter("logit", (1,), first, factors=(learning_rate, gain, 0.0))
        op.prior = self.lengthscale, self.noise_precision, float(self.rows or 0)
        op.noise = plan.draw(self, "keeps")

    def to_onnx(self, graph: Any, x: str) -> str:
        rate, vanilla = self.rate_at(1.0), self.mode == "vanilla"
        if self.learns:
            rate = rate_of_logit(graph.arrays[f"{graph.place}.logit"][0])
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
        if self.learns:
            return "a dropout rate that is learned"
        return 'mode="vanilla"' if self.mode == "vanilla" else 'shared="batch"' if self.shared else None

    def tensor_names(self) -> dict[str, str]:
        return {"logit": "logit"} if self.learns else {}

    def to_torch(self, nn: Any, width: int) -> list[Any]:
        return [nn.Dropout(p=self.rate_at(1.0))]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        return cls(float(module.p))


LAYERS = (Dropout,)

"""Noise, and the kinds of dropout that are noise: the identity in prediction."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks, seeding
from cydrop._run.passes import last_mask
from cydrop._run.plan import Plan
from cydrop.layers.base import RandomLayer, checked_rate
from cydrop.schedules import Rate, value_at

__all__ = ["AlphaDropout", "GaussianDropout", "GaussianNoise", "Noise"]


class Noise(RandomLayer):
    """Base of what changes every element at random in training, and nothing in prediction."""

    kernel: ClassVar[str]  # the variant: what the compiled pass makes of what is drawn
    what: ClassVar[str] = "normals"  # is drawn

    def lower(self, plan: Plan) -> None:
        op = plan.operation("noise", plan.shape, variant=self.kernel)
        op.noise = plan.draw(self, self.what)

    def to_onnx(self, graph: Any, x: str) -> str:
        amount = self.rate_at(1.0)
        if not graph.mc or amount == 0:
            return x
        drops_all = self.rate_name == "rate" and amount == 1
        y: str = graph.in_training(graph.constant("zero", 0.0) if drops_all else self.noisy(graph, x, amount), x)
        return y

    def noisy(self, graph: Any, x: str, amount: float) -> str:
        """Nodes of an ONNX graph for x with noise.

        Parameters
        ----------
        graph : the graph that cydrop.onnx writes
        x : str
            Name of a value.
        amount : float
            Rate or standard deviation.
        """
        raise ValueError(f"an ONNX model cannot hold {self!r} with its noise: its class has no method noisy")


class AlphaDropout(Noise):
    """Dropout for networks of SELU units (Klambauer et al. 2017, section 3): dropped elements become SELU's lowest
    value, -1.7581, and a x + b restores mean 0 and variance 1.

    Parameters
    ----------
    rate : float in [0, 1], or schedule
        Probability of *dropping*. 0 is the identity and draws nothing, 1 gives zeros.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        This layer's own seed for the masks; None takes the network's.
    """

    kernel, what = "alpha", "units"
    option_names = ("rate", "seed")
    rate: Rate

    def __init__(self, rate: Rate = 0.1, *, seed: seeding.Seed = None) -> None:
        rate = checked_rate("rate", rate)
        self.declare(rate=rate, seed=seeding.as_int(seed))

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """As for `Dropout`."""
        return last_mask(self)

    def noisy(self, graph: Any, x: str, amount: float) -> str:
        from cydrop.reference import alpha_affine

        a, b, low = alpha_affine(amount)
        kept = graph.add("Add", graph.add("Mul", x, graph.constant("a", a)), graph.constant("b", b))
        dropped = graph.constant("dropped", a * low + b)
        y: str = graph.add("Where", graph.uniform_below(x, amount), dropped, kept)
        return y

    torch_name = "AlphaDropout"

    def to_torch(self, nn: Any, width: int) -> list[Any]:
        return [nn.AlphaDropout(p=self.rate_at(1.0))]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        return cls(float(module.p))


class GaussianDropout(Noise):
    """Multiplies each element by a normal number of mean 1 and variance rate / (1 - rate) in training (Srivastava et
    al. 2014, section 10): the mean and the variance of inverted dropout. Prediction is the identity.

    Parameters
    ----------
    rate : float in [0, 1], or schedule
        As for `Dropout`. 0 is the identity and draws nothing, 1 gives zeros.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        This layer's own seed for the noise; None takes the network's.
    """

    kernel = "multiply"
    option_names = ("rate", "seed")
    rate: Rate

    def __init__(self, rate: Rate = 0.5, *, seed: seeding.Seed = None) -> None:
        rate = checked_rate("rate", rate)
        self.declare(rate=rate, seed=seeding.as_int(seed))

    def noisy(self, graph: Any, x: str, amount: float) -> str:
        y: str = graph.add("Mul", x, graph.normal(x, 1.0, math.sqrt(amount / (1 - amount))))
        return y


class GaussianNoise(Noise):
    """Adds a normal number of mean 0 to each element in training (Bishop 1995). Prediction is the identity.

    Parameters
    ----------
    std : float >= 0, or schedule
        Standard deviation, in the units of x. 0 is the identity and draws nothing.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        This layer's own seed for the noise; None takes the network's.
    """

    kernel = "add"
    option_names = ("std", "seed")
    rate_name = "std"
    std: Rate

    def __init__(self, std: Rate = 0.1, *, seed: seeding.Seed = None) -> None:
        std = std if callable(std) else checks.number("std", std, 0.0, single=True)
        self.declare(std=std, seed=seeding.as_int(seed))

    def rate_at(self, progress: float) -> float:
        """The standard deviation in force.

        Parameters
        ----------
        progress : float in [0, 1]
            Of training.
        """
        return value_at("std", self.std, progress, 0.0)

    def noisy(self, graph: Any, x: str, amount: float) -> str:
        y: str = graph.add("Add", x, graph.normal(x, 0.0, amount))
        return y


LAYERS = (AlphaDropout, GaussianDropout, GaussianNoise)

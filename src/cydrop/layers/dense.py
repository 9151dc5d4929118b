"""The fully connected layer, and its initial weights."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._core import dense as products
from cydrop._core.xorshift import Xorshift as Lanes
from cydrop._run.initialization import deviations
from cydrop._run.passes import last_mask
from cydrop._run.plan import Drawn, Factors, Initial, Op, Plan
from cydrop.layers.activations import activation_from_config, resolve_activation
from cydrop.layers.base import WEIGHT_AND_BIAS, Activation, Factor, RandomLayer, checked_factor, checked_rate
from cydrop.schedules import Rate
from cydrop.xorshift import Xorshift

__all__ = ["Dense"]

# variance of a weight of each initialisation, as a function of fan-in and fan-out; a uniform one's bound is the root of
# three times it
_VARIANCES = {
    "he": lambda fan_in, fan_out: 2.0 / fan_in,
    "glorot": lambda fan_in, fan_out: 2.0 / (fan_in + fan_out),
    "lecun": lambda fan_in, fan_out: 1.0 / fan_in,
    "torch": lambda fan_in, fan_out: 1.0 / (3.0 * fan_in),
    "glorot_sigmoid": lambda fan_in, fan_out: 2.0 / (3.0 * (fan_in + fan_out)),
}
INITIALIZATIONS = {
    f"{name}_{shape}": (name, shape) for name in ("he", "glorot", "lecun") for shape in ("normal", "uniform")
} | {"torch_uniform": ("torch", "uniform"), "glorot_sigmoid_uniform": ("glorot_sigmoid", "uniform")}
BIAS_INITIALIZATIONS = {"zeros": ("", "zeros")} | INITIALIZATIONS
PARAMETRIZATIONS = ("standard", "ntk")

BIAS_ROWS = 5  # of `initialize_from`, as in RealMLP
PRODUCT_ROWS = 65536
NO_BIAS = np.empty(0, dtype=np.float32)


class Dense(RandomLayer):
    """A fully connected layer, y = f(x W + b).

    Parameters
    ----------
    units : int >= 1
        Number of outputs. The weight has shape (inputs, units), the bias (units,).
    activation : str, activation layer or None
        f; by name in lower case, as "relu" or "leaky_relu": any of the activations.
    bias : bool
        Whether b is there. It is never dropped.
    weight_init : str
        How W is drawn: "glorot_uniform" (Glorot and Bengio 2010: within sqrt(6 / (inputs + units))), "glorot_normal",
        "he_normal" (He et al. 2015), "he_uniform", "lecun_normal", "lecun_uniform"; "torch_uniform", PyTorch's default
        (within 1 / sqrt(inputs)), and "glorot_sigmoid_uniform", which scikit-learn's MLP takes for "logistic" (within
        sqrt(2 / (inputs + units))).
    bias_init : str
        "zeros", or one of the names above: b is then drawn from the distribution that W has with that name, whose
        width depends on inputs and units. W does not depend on it. Glorot's bounds for both, as in scikit-learn, were
        best on 23 tables (`python bench/initialization.py`); PyTorch's layers start with "torch_uniform" for both,
        Keras's with "glorot_uniform" and "zeros".
    max_norm : float > 0 or None
        After every update the incoming weights of each unit (a column of W) are scaled down to this Euclidean
        norm (Srivastava et al. 2014, section 5.1).
    drop_connect : float in [0, 1], or schedule
        Probability that a weight is dropped in a training step (DropConnect, Wan et al. 2013); every step draws a
        fresh mask for all rows of the batch, and what it keeps is divided by 1 - drop_connect. `predict` uses the
        mean weights; `predict_mc` drops weights, or draws the outputs that they lead to from normal distributions
        of the same mean and variance.
    learning_rate_factor, decay_factor : float >= 0, or dict of such
        What multiplies the optimizer's learning rate and weight decay for this layer: one number, or a number for some
        of its parameters, as {"bias": 0.1}; those that are not named have 1. It is as if the parameter had an optimizer
        of its own with the multiplied options: a learning rate of 0 keeps it as it is, and `AdamW` multiplies it by
        1 - (learning_rate learning_rate_factor) (weight_decay decay_factor).
    parametrization : "standard" or "ntk"
        What the optimizer trains. "ntk" (Jacot, Gabriel and Hongler 2018): y = f(x V / sqrt(inputs) + b), with V of
        entries of about 1; the steps of V, and its weight decay, do not have to shrink where there are many inputs. The
        network holds W = V / sqrt(inputs) all the same, which `parameters`, files and other programs get, and which
        `weight_init` is for ("lecun_normal": V is standard normal). The optimizer makes the steps for W that come to
        its steps for V, whichever it is: for Adam the learning rate is divided by sqrt(inputs) and epsilon multiplied
        by it, for SGD the learning rate is divided by the number of inputs. So the optimizer's learning rate has to be
        larger than for "standard", by about that factor: for Adam 0.016 where 0.001 is right with 256 inputs. The bias
        gets it undivided, unless its `learning_rate_factor` is below 1. `clip_norm` and `max_norm` measure W.
    """

    option_names = (
        "units", "activation", "bias", "weight_init", "bias_init", "max_norm", "drop_connect", "learning_rate_factor",
        "decay_factor", "parametrization",
    )  # fmt: skip
    rate_name = "drop_connect"
    seed = None  # of the masks: the network's
    units: int
    activation: Activation | None
    bias: bool
    weight_init: str
    bias_init: str = "zeros"  # of layers pickled before there was a choice
    max_norm: float | None
    drop_connect: Rate
    parametrization: str = "standard"  # of layers pickled before there was a choice

    def __init__(
        self,
        units: int,
        *,
        activation: str | Activation | None = None,
        bias: bool = True,
        weight_init: str = "glorot_uniform",
        bias_init: str = "glorot_uniform",
        max_norm: float | None = None,
        drop_connect: Rate = 0.0,
        learning_rate_factor: Factor = 1.0,
        decay_factor: Factor = 1.0,
        parametrization: str = "standard",
    ) -> None:
        checks.one_of("weight_init", weight_init, INITIALIZATIONS)
        checks.one_of("bias_init", bias_init, BIAS_INITIALIZATIONS)
        self.declare(
            units=checks.integer("units", units, 1, checks.MOST_UNITS),
            activation=resolve_activation(activation, "None"),
            bias=checks.flag("bias", bias),
            weight_init=weight_init,
            bias_init=bias_init,
            max_norm=None if max_norm is None else checks.number("max_norm", max_norm, 0.0, low_open=True, single=True),
            drop_connect=checked_rate("drop_connect", drop_connect),
            learning_rate_factor=checked_factor("learning_rate_factor", learning_rate_factor, WEIGHT_AND_BIAS),
            decay_factor=checked_factor("decay_factor", decay_factor, WEIGHT_AND_BIAS),
            parametrization=checks.one_of("parametrization", parametrization, PARAMETRIZATIONS),
        )

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the weights in the last training forward pass with drop_connect, boolean, shape (inputs, units);
        True keeps. None before the first."""
        return last_mask(self)

    def initial_weight(
        self, fan_in: int, seed: np.random.SeedSequence, members: tuple[int, ...] = ()
    ) -> Floats:  # fmt: skip
        """A fresh weight.

        Parameters
        ----------
        fan_in : int
            Inputs.
        seed : numpy.random.SeedSequence
        members : tuple of int
            (members,) for one of each member of `Members`.

        Returns
        -------
        ndarray of float32, shape (fan_in, units), after that of the members
        """
        return self._drawn(self.weight_init, (*members, fan_in, self.units), fan_in, seed)

    def initial_bias(self, fan_in: int, seed: np.random.SeedSequence, members: tuple[int, ...] = ()) -> Floats:
        """A fresh bias.

        Parameters
        ----------
        fan_in : int
            Inputs.
        seed : numpy.random.SeedSequence
        members : tuple of int
            As for `initial_weight`.

        Returns
        -------
        ndarray of float32, shape (units,), after that of the members
        """
        return self._drawn(self.bias_init, (*members, self.units), fan_in, seed)

    def initialize_from(self, x: Floats, arrays: dict[str, Floats], seed: np.random.SeedSequence) -> None:
        """Begins with outputs x W of standard deviation 1, and with kinks among the rows.

        W is drawn from the standard normal distribution; then each column is divided by the population standard
        deviation of x W (where that is 0 by the root of the inputs). A unit's bias is minus a random point among
        x W at five random rows: a mean of them whose weights are uniform among those that sum to 1.

        Parameters
        ----------
        x, arrays, seed
            As for every layer.
        """
        n, fan_in = x.shape
        generator = Xorshift(seed)
        weight: Floats = generator.normal((fan_in, self.units))
        z = np.empty((n, self.units), dtype=np.float32)
        for start in range(0, n, PRODUCT_ROWS):  # Ctrl-C is answered in between
            rows = slice(start, start + PRODUCT_ROWS)
            products.forward(x[rows], weight, NO_BIAS, z[rows], 1)
        deviation = deviations(z)
        scale = np.where(deviation > 0, 1.0 / np.where(deviation > 0, deviation, 1.0), 1.0 / math.sqrt(fan_in))
        arrays["weight"][...] = weight * scale
        if self.bias:
            chosen = (generator.random_raw((BIAS_ROWS, self.units)) >> 32) * n >> 32  # n is below 2^32
            # the gaps between sorted uniform numbers have the distribution of exponential ones divided by their sum
            cuts = np.sort(generator.random((BIAS_ROWS - 1, self.units)).astype(np.float64), axis=0)
            point = np.zeros(self.units)
            for row, share in zip(chosen, np.diff(cuts, axis=0, prepend=0.0, append=1.0), strict=True):
                point += share * z[row, np.arange(self.units)]
            arrays["bias"][...] = 0.0 - point * scale

    def _drawn(self, init: str, size: tuple[int, ...], fan_in: int, seed: Any) -> Floats:
        name, shape = BIAS_INITIALIZATIONS[init]
        if shape == "zeros":
            return np.zeros(size, dtype=np.float32)
        deviation = math.sqrt(_VARIANCES[name](fan_in, self.units))
        generator = Lanes(seeding.words(seed, 32))  # what Xorshift(seed) has: there may be thousands of layers
        drawn = np.empty(size, dtype=np.float32)
        if shape == "normal":
            generator.normal(drawn.reshape(-1))
            drawn *= np.float32(deviation)
        else:
            generator.random(drawn.reshape(-1))
            drawn -= np.float32(0.5)
            drawn *= np.float32(2.0 * math.sqrt(3.0) * deviation)
        return drawn

    def weight_factors(self, fan_in: int) -> Factors:
        """The factors of the weight, with the gain of its parametrization.

        Parameters
        ----------
        fan_in : int
            Inputs.
        """
        learning_rate, _, decay = self.factors("weight")
        return learning_rate, 1.0 / math.sqrt(fan_in) if self.parametrization == "ntk" else 1.0, decay

    def number(self, plan: Plan) -> int:
        """Of the next dense layer of a plan among those that draw their weights.

        Parameters
        ----------
        plan : Plan
        """
        return plan.counts["dense"] + plan.counts["member_dense"]

    def lower_product(self, plan: Plan) -> Op:
        """Puts in x W, without what comes after it.

        Parameters
        ----------
        plan : Plan
        """
        (fan_in,), number = plan.shape, self.number(plan)
        op = plan.operation("dense", (self.units,), has_epilogue=True, max_norm=self.max_norm or 0.0)
        op.weight = plan.parameter(
            "weight", (fan_in, self.units), self._initial("weight", fan_in), (seeding.WEIGHTS, number),
            self.weight_factors(fan_in),
        )  # fmt: skip
        return op

    def lower(self, plan: Plan) -> None:
        (fan_in,), number = plan.shape, self.number(plan)
        op = self.lower_product(plan)
        if self.bias:
            op.bias = plan.parameter(
                "bias", (self.units,), self._initial("bias", fan_in), (seeding.BIASES, number),
                self.factors("bias"),
            )  # fmt: skip
        if self.activation is not None:
            self.activation.lower(plan)
        if self.drop_connect != 0:
            op.connect = plan.draw(self, "weights")

    def _initial(self, word: str, fan_in: int) -> Initial:
        """How a parameter begins; a class may have an `initial_weight` or `initial_bias` of its own."""
        if word == "weight" and type(self).initial_weight is _INITIAL_WEIGHT:
            return Drawn(partial(self._drawn, self.weight_init, (fan_in, self.units), fan_in))
        if word == "bias" and type(self).initial_bias is _INITIAL_BIAS:
            return Drawn(partial(self._drawn, self.bias_init, (self.units,), fan_in))
        return partial(self.initial_weight if word == "weight" else self.initial_bias, fan_in)

    def config(self) -> dict[str, Any]:
        options = super().config()
        options["activation"] = None if self.activation is None else self.activation.config()
        return options

    @classmethod
    def from_config(cls, options: dict[str, Any]) -> Self:
        options.setdefault("bias_init", "zeros")  # of files from before there was a choice
        if options.get("activation") is not None:
            options["activation"] = activation_from_config(options["activation"])
        return super().from_config(options)

    def to_onnx(self, graph: Any, x: str) -> str:
        x, weight = graph.factors(x)
        rate = self.rate_at(1.0)
        if graph.mc and rate > 0:
            weight = graph.drop(weight, weight, rate, 1.0)
        y: str = graph.add("Gemm", x, weight, *([graph.parameter("bias")] if self.bias else []))
        return y if self.activation is None else self.activation.to_onnx(graph, y)

    torch_name = "Linear"

    @property
    def activated(self) -> bool:  # type: ignore[override]
        return self.activation is not None

    def tensor_names(self) -> dict[str, str]:
        return {"weight": "weight"} | ({"bias": "bias"} if self.bias else {})

    def missing_in_torch(self) -> str | None:
        return "max_norm" if self.max_norm is not None else "drop_connect" if self.drop_connect != 0 else None

    def to_torch(self, nn: Any, width: int) -> list[Any]:
        linear = nn.Linear(width, self.units, bias=self.bias)
        return [linear] if self.activation is None else [linear, *self.activation.to_torch(nn, self.units)]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        return cls(len(module.weight), bias=module.bias is not None)


_INITIAL_WEIGHT, _INITIAL_BIAS = Dense.initial_weight, Dense.initial_bias  # whatever somebody puts in their place

LAYERS = (Dense,)

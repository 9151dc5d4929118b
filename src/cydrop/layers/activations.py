"""Activations: y = f(z), element by element."""

from __future__ import annotations

import math
from typing import Any, Self

from cydrop._base import checks
from cydrop.layers.base import Activation

__all__ = [
    "ACTIVATIONS",
    "ELU",
    "GELU",
    "SELU",
    "LeakyReLU",
    "Mish",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "activation_from_config",
    "resolve_activation",
]

LINEAR_FROM = 20.0  # PyTorch's Softplus is the identity above; e^-20 is below the precision of float32 there


class ReLU(Activation):
    """max(z, 0) (Nair and Hinton 2010). NaN stays NaN."""

    kernel, torch_name, onnx_name = "relu", "ReLU", "Relu"


class LeakyReLU(Activation):
    """z where positive, negative_slope z elsewhere (Maas, Hannun and Ng 2013).

    Parameters
    ----------
    negative_slope : float
    """

    kernel, torch_name, onnx_name = "leaky_relu", "LeakyReLU", "LeakyRelu"
    option_names = ("negative_slope",)
    negative_slope: float

    def __init__(self, negative_slope: float = 0.01) -> None:
        slope = checks.number("negative_slope", negative_slope, single=True)
        self.declare(negative_slope=slope, alpha=slope)


class ELU(Activation):
    """z where positive, alpha (e^z - 1) elsewhere (Clevert, Unterthiner and Hochreiter 2016).

    Parameters
    ----------
    alpha : float
    """

    kernel, torch_name, onnx_name = "elu", "ELU", "Elu"
    option_names = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        self.declare(alpha=checks.number("alpha", alpha, single=True))


class SELU(Activation):
    """The self-normalising ELU, with fixed scale 1.0507 and alpha 1.6733 (Klambauer et al. 2017)."""

    kernel, torch_name, onnx_name = "selu", "SELU", "Selu"


class GELU(Activation):
    """z Phi(z), with the exact normal distribution function (Hendrycks and Gimpel 2016)."""

    kernel, torch_name = "gelu", "GELU"

    def to_onnx(self, graph: Any, x: str) -> str:
        normal = graph.add("Erf", graph.add("Mul", x, graph.constant("root_half", math.sqrt(0.5))))
        twice = graph.add("Mul", x, graph.add("Add", normal, graph.constant("one", 1.0)))
        y: str = graph.add("Mul", twice, graph.constant("half", 0.5))
        return y

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        if module.approximate != "none":
            raise ValueError(f"cydrop's GELU is the exact one, got approximate={module.approximate!r}")
        return cls()


class SiLU(Activation):
    """z sigmoid(z), also called swish (Elfwing, Uchibe and Doya 2018)."""

    kernel, torch_name = "silu", "SiLU"

    def to_onnx(self, graph: Any, x: str) -> str:
        y: str = graph.add("Mul", x, graph.add("Sigmoid", x))
        return y


class Tanh(Activation):
    """The hyperbolic tangent."""

    kernel, torch_name, onnx_name = "tanh", "Tanh", "Tanh"


class Sigmoid(Activation):
    """1 / (1 + e^-z)."""

    kernel, torch_name, onnx_name = "sigmoid", "Sigmoid", "Sigmoid"


class Softplus(Activation):
    """log(1 + e^z) (Dugas et al. 2001)."""

    kernel, torch_name, onnx_name = "softplus", "Softplus", "Softplus"

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        if module.beta != 1 or module.threshold < LINEAR_FROM:
            raise ValueError(
                "cydrop's Softplus has beta=1 and no threshold, "
                f"got beta={module.beta} and threshold={module.threshold}"
            )
        return cls()


class Mish(Activation):
    """z tanh(log(1 + e^z)), smooth and close to ReLU (Misra 2019, arXiv 1908.08681)."""

    kernel, torch_name = "mish", "Mish"

    def to_onnx(self, graph: Any, x: str) -> str:
        y: str = graph.add("Mul", x, graph.add("Tanh", graph.add("Softplus", x)))  # a node of its own from opset 18 on
        return y


LAYERS = (ReLU, LeakyReLU, ELU, SELU, GELU, SiLU, Tanh, Sigmoid, Softplus, Mish)
ACTIVATIONS: dict[str, type[Activation]] = {cls.kernel: cls for cls in LAYERS}


def resolve_activation(activation: Any, *others: str) -> Activation | None:
    """An activation from its name or itself; None stays None. `others`: what else the caller takes, for messages."""
    if activation is None or isinstance(activation, Activation):
        return activation
    if isinstance(activation, type) and issubclass(activation, Activation):
        return activation()
    return checks.choice("activation", activation, ACTIVATIONS, "an activation layer", *others)()


def activation_from_config(config: dict[str, Any]) -> Activation:
    """The activation that its `config` described."""
    options = dict(config)
    known = {cls.__name__: cls for cls in LAYERS}
    return checks.choice("activation", options.pop("layer", None), known).from_config(options)

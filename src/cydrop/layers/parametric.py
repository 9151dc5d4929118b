"""Maps with a learned number for every unit."""

from __future__ import annotations

from typing import Any, Self

from cydrop._run.plan import Plan
from cydrop.layers.activations import activation_from_config, resolve_activation
from cydrop.layers.base import Activation, Factor, Layer, checked_factor

__all__ = ["Parametric", "Scale"]


class Scale(Layer):
    """Multiplies every column by a learned factor: y = x weight.

    In front of the first dense layer it learns how much each input counts (the "front scale" of RealMLP, Holzmüller,
    Grinsztajn and Steinwart 2024, arXiv 2407.04491). The weight, shape (columns,), begins at 1.

    Parameters
    ----------
    learning_rate_factor, decay_factor : float >= 0, or dict
        What the optimizer's learning rate and weight decay are multiplied by for the weight.
    """

    option_names = ("learning_rate_factor", "decay_factor")

    def __init__(self, *, learning_rate_factor: Factor = 1.0, decay_factor: Factor = 1.0) -> None:
        self.declare(
            learning_rate_factor=checked_factor("learning_rate_factor", learning_rate_factor, ["weight"]),
            decay_factor=checked_factor("decay_factor", decay_factor, ["weight"]),
        )

    def lower(self, plan: Plan) -> None:
        op = plan.operation("parametric", plan.shape, variant="scale", has_epilogue=True)
        op.weight = plan.parameter("weight", plan.shape, 1.0, factors=self.factors("weight"))

    def to_onnx(self, graph: Any, x: str) -> str:
        y: str = graph.add("Mul", x, graph.parameter("weight"))
        return y

    def tensor_names(self) -> dict[str, str]:
        return {"weight": "weight"}


class Parametric(Layer):
    """An activation f of which each unit learns how much it takes: y = x + alpha (f(x) - x), with an alpha for every
    unit (Holzmüller, Grinsztajn and Steinwart 2024, arXiv 2407.04491).

    Alpha, shape (units,), begins at 1, the plain activation; at 0 a unit would be linear. With the activation "relu"
    this is PReLU (He et al. 2015), whose slope for negative x is 1 - alpha.

    Parameters
    ----------
    activation : str or activation layer
        f: a name as for `Dense`, such as "mish", or a layer such as `LeakyReLU(0.2)`.
    learning_rate_factor, decay_factor : float >= 0, or dict
        What the optimizer's learning rate and weight decay are multiplied by for alpha.
    """

    option_names = ("activation", "learning_rate_factor", "decay_factor")
    activation: Activation

    def __init__(
        self, activation: str | Activation, *, learning_rate_factor: Factor = 1.0, decay_factor: Factor = 1.0
    ) -> None:
        chosen = resolve_activation(activation)
        if chosen is None:
            raise TypeError("activation must be the name of an activation, or an activation layer, got None")
        self.declare(
            activation=chosen,
            learning_rate_factor=checked_factor("learning_rate_factor", learning_rate_factor, ["alpha"]),
            decay_factor=checked_factor("decay_factor", decay_factor, ["alpha"]),
        )

    def lower(self, plan: Plan) -> None:
        f = self.activation
        op = plan.operation("parametric", plan.shape, variant=f.kernel, option=f.alpha, has_epilogue=True)
        op.weight = plan.parameter("alpha", plan.shape, 1.0, factors=self.factors("alpha"))

    def config(self) -> dict[str, Any]:
        return super().config() | {"activation": self.activation.config()}

    @classmethod
    def from_config(cls, options: dict[str, Any]) -> Self:
        if options.get("activation") is not None:
            options["activation"] = activation_from_config(options["activation"])
        return super().from_config(options)

    def to_onnx(self, graph: Any, x: str) -> str:
        alpha = graph.parameter("alpha")
        rest = graph.add("Sub", graph.constant("one", 1.0), alpha)
        f = graph.add("Mul", alpha, self.activation.to_onnx(graph, x))
        y: str = graph.add("Add", f, graph.add("Mul", rest, x))
        return y

    def tensor_names(self) -> dict[str, str]:
        return {"alpha": "alpha"}


LAYERS = (Scale, Parametric)

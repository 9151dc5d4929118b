"""Normalisations."""

from __future__ import annotations

from typing import Any, Self

from cydrop._base import checks
from cydrop._run.plan import Plan
from cydrop.layers.base import WEIGHT_AND_BIAS, Factor, Layer, checked_factor

__all__ = ["BatchNorm", "LayerNorm", "Norm"]

UNCOUNTED = "num_batches_tracked"  # of PyTorch's BatchNorm1d; cydrop keeps no such count


class Norm(Layer):
    """Base of the normalisations: weight (x - mean) / sqrt(variance + epsilon) + bias."""

    epsilon: float

    def _declare_common(self, epsilon: float, learning_rate_factor: Factor, decay_factor: Factor) -> None:
        """Checks and sets what all normalisations have."""
        self.declare(
            epsilon=checks.number("epsilon", epsilon, 0.0, low_open=True, single=True),
            learning_rate_factor=checked_factor("learning_rate_factor", learning_rate_factor, WEIGHT_AND_BIAS),
            decay_factor=checked_factor("decay_factor", decay_factor, WEIGHT_AND_BIAS),
        )

    def lower(self, plan: Plan) -> None:
        op = plan.operation("norm", plan.shape, variant="rows", epsilon=self.epsilon)
        op.weight = plan.parameter("weight", plan.shape, 1.0, factors=self.factors("weight"))
        op.bias = plan.parameter("bias", plan.shape, 0.0, factors=self.factors("bias"))

    def tensor_names(self) -> dict[str, str]:
        return {"weight": "weight", "bias": "bias"}


class LayerNorm(Norm):
    """Normalises each row to mean 0 and variance 1, then weight x + bias (Ba, Kiros and Hinton 2016).

    The variance is the biased one, over the units of the row. The weight, shape (units,), begins at 1, the bias at 0.

    Parameters
    ----------
    epsilon : float > 0
        Added to the variance.
    learning_rate_factor, decay_factor : float >= 0, or dict of such
        What multiplies the optimizer's learning rate and weight decay for weight and bias, as for `Dense`.
    """

    option_names = ("epsilon", "learning_rate_factor", "decay_factor")

    def __init__(
        self, *, epsilon: float = 1e-5, learning_rate_factor: Factor = 1.0, decay_factor: Factor = 1.0
    ) -> None:
        self._declare_common(epsilon, learning_rate_factor, decay_factor)

    def to_onnx(self, graph: Any, x: str) -> str:
        weights = graph.parameter("weight"), graph.parameter("bias")
        y: str = graph.add("LayerNormalization", x, *weights, axis=-1, epsilon=self.epsilon)
        return y

    torch_name = "LayerNorm"

    def to_torch(self, nn: Any, width: int) -> list[Any]:
        return [nn.LayerNorm(width, eps=self.epsilon)]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        if len(module.normalized_shape) != 1 or module.weight is None or module.bias is None:
            raise ValueError("cydrop's LayerNorm is over the last axis, with elementwise_affine=True and bias=True")
        return cls(epsilon=module.eps)


class BatchNorm(Norm):
    """Normalises each unit over the rows of the batch, then weight x + bias (Ioffe and Szegedy 2015); prediction uses
    running statistics, which `Network.buffers` shows and files keep.

    The weight, shape (units,), begins at 1, the bias at 0, the running mean at 0, the running variance at 1. A batch
    of one row is normalised to 0 and leaves the running variance as it is. Dropout before this layer makes the
    variance in training larger than in prediction (Li et al. 2019): put dropout after the last BatchNorm.

    Parameters
    ----------
    momentum : float in [0, 1]
        Share of the batch in the running statistics: running = (1 - momentum) running + momentum batch's, PyTorch's
        meaning of the word (Keras' momentum is 1 minus this one). The batch's variance is divided by n - 1.
    epsilon : float > 0
        Added to the variance.
    learning_rate_factor, decay_factor : float >= 0, or dict of such
        What multiplies the optimizer's learning rate and weight decay for weight and bias, as for `Dense`.
    """

    option_names = ("momentum", "epsilon", "learning_rate_factor", "decay_factor")
    momentum: float

    def __init__(
        self,
        *,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        learning_rate_factor: Factor = 1.0,
        decay_factor: Factor = 1.0,
    ) -> None:
        self.declare(momentum=checks.number("momentum", momentum, 0.0, 1.0))
        self._declare_common(epsilon, learning_rate_factor, decay_factor)

    def lower(self, plan: Plan) -> None:
        super().lower(plan)
        op = plan.ops[-1]
        op.variant, op.momentum = "batch", self.momentum
        op.running_mean = plan.buffer("running_mean", plan.shape, 0.0)
        op.running_variance = plan.buffer("running_variance", plan.shape, 1.0)

    def check_batch(self, rows: int) -> None:
        if rows < 2:
            raise ValueError(
                "BatchNorm needs batches of at least 2 rows in training, since it normalises a row by itself to 0; got "
                "batches of 1. LayerNorm takes any"
            )

    def to_onnx(self, graph: Any, x: str) -> str:
        weights = graph.parameter("weight"), graph.parameter("bias")
        running = graph.parameter("running_mean"), graph.parameter("running_variance")
        y: str = graph.add("BatchNormalization", x, *weights, *running, epsilon=self.epsilon)
        return y

    torch_name = "BatchNorm1d"

    def tensor_names(self) -> dict[str, str]:
        running = {"running_mean": "running_mean", "running_var": "running_variance"}
        return super().tensor_names() | running | {UNCOUNTED: UNCOUNTED}

    def to_torch(self, nn: Any, width: int) -> list[Any]:
        return [nn.BatchNorm1d(width, eps=self.epsilon, momentum=self.momentum)]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        if module.weight is None or module.running_mean is None or module.momentum is None:
            raise ValueError("cydrop's BatchNorm has affine=True, track_running_stats=True and a number as momentum")
        return cls(momentum=module.momentum, epsilon=module.eps)


LAYERS = (LayerNorm, BatchNorm)

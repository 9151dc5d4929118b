"""The losses of regression: how far predicted numbers are from y, and how likely y is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cydrop._base import checks
from cydrop._base.likelihood import SMALLEST, log, normal_log_density
from cydrop._core.kinds import kind_of
from cydrop._core.losses import KINDS
from cydrop.losses.base import Array, Doubles, Loss

__all__ = ["MAE", "MSE", "GaussianNLL", "Huber", "Regression"]


class Regression(Loss):
    """Base of the losses whose outputs are the numbers that y holds."""

    has_density = False

    def metrics(self, p: Array, y: Array, counted: Array | None = None) -> dict[str, float]:
        error = self.center(p, y.shape[1]).astype(np.float64) - y
        error = error if counted is None else error[counted]
        return self.metrics_of(np.array([error.size, np.sum(error**2), np.sum(np.abs(error))]))

    def metrics_of(self, sums: Doubles) -> dict[str, float]:
        targets, squares, magnitudes = (float(total) for total in sums)
        if not targets:
            return {"rmse": math.nan, "mae": math.nan}
        return {"rmse": math.sqrt(squares / targets), "mae": magnitudes / targets}

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        if precision is None:
            raise ValueError(f"with {self.name} y has a density only where the precision of its noise is given")
        return normal_log_density(p, y, np.full(p.shape, precision))

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        return str(graph.add("Identity", z, output=output))


class MSE(Regression):
    """Squared error, the mean over all elements. Link: none."""

    name = "mse"
    code = kind_of(KINDS, name)
    sklearn_name = "squared_error"
    sklearn_factor = 0.5

    def of_likelihood(self, units: int, precision: float) -> float:
        return 2.0 * super().of_likelihood(units, precision)


class MAE(Regression):
    """Absolute error, the mean over all elements. Link: none."""

    name = "mae"
    code = kind_of(KINDS, name)
    sklearn_name = "absolute_error"


class Huber(Regression):
    """Huber's loss (1964): squared (halved) within delta, linear beyond, the mean over all elements. Link: none.

    Parameters
    ----------
    delta : float > 0
    """

    name = "huber"
    code = kind_of(KINDS, name)
    sklearn_name = "huber"
    option_names = ("delta",)
    delta: float

    def __init__(self, delta: float = 1.0) -> None:
        self.declare(delta=checks.number("delta", delta, 0.0, low_open=True, single=True))

    @property
    def option(self) -> float:
        return self.delta


class GaussianNLL(Regression):
    """Negative log-likelihood of a normal distribution whose mean and log-variance are predicted, in nats, the
    mean over all targets (Nix and Weigend 1994).

    The last layer has 2 k units for k targets: k means, then k log-variances. Link: the log-variances become
    variances, at most the largest float32, 3.4e38.
    """

    name = "gaussian_nll"
    sklearn_name = "gaussian_nll"
    code = kind_of(KINDS, name)
    has_density = True

    def columns(self, units: int) -> int:
        return units // 2

    def units(self, targets: int) -> int:
        return 2 * targets

    def check_units(self, units: int) -> None:
        if units % 2:
            raise ValueError(
                f"gaussian_nll needs a last layer with two units per target (means, then log-variances), got {units}"
            )

    def moments(self, mean: Doubles, variance: Doubles) -> tuple[Doubles, Doubles]:
        half = mean.shape[1] // 2  # in all: the variance of the means, plus the mean of the variances
        return mean[:, :half], variance[:, :half] + mean[:, half:]

    def noise(self, mean: Doubles) -> Doubles:
        return mean[:, mean.shape[1] // 2 :]

    def band(self, p: Doubles, spread: Doubles | None, coverage: float) -> tuple[Doubles, Doubles, Doubles]:
        return super().band(p, np.sqrt(self.noise(p)) if spread is None else spread, coverage)

    def inverse_link(self, p: Doubles) -> Doubles:
        half = p.shape[1] // 2
        return np.concatenate([p[:, :half], log(p[:, half:])], axis=1)

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        half = p.shape[2] // 2
        return normal_log_density(p[:, :, :half], y, 1.0 / np.maximum(p[:, :, half:], SMALLEST))

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        means, logs = graph.split(z, "means", "log_variances")
        variances = graph.add("Min", graph.add("Exp", logs), graph.constant("largest", np.finfo(np.float32).max))
        return str(graph.add("Concat", means, variances, axis=1, output=output))

    def mix_onnx(self, graph: Any, z: str) -> str:
        mean = super().mix_onnx(graph, z)
        apart = graph.add("Sub", z, mean)
        spread, _ = graph.split(super().mix_onnx(graph, graph.add("Mul", apart, apart)), "spread", "unused")
        _, variances = graph.split(super().mix_onnx(graph, graph.add("Exp", z)), "unused", "variances")
        means, _ = graph.split(mean, "means", "unused")
        y: str = graph.add("Concat", means, graph.add("Log", graph.add("Add", spread, variances)), axis=1)
        return y

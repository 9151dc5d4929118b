"""The loss of quantile regression."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._core.kinds import kind_of
from cydrop._core.losses import KINDS
from cydrop.losses.base import Array, Doubles
from cydrop.losses.numbers import Regression

__all__ = ["Pinball"]


class Pinball(Regression):
    """The loss of quantiles: max(q e, (q - 1) e) of e = y - z, the mean over targets and quantiles (Koenker and Bassett
    1978). What minimises it is the value that y stays below with probability q.

    The last layer has a unit for each quantile of each target: k of the first quantile, then k of the second, ... Link:
    each target's outputs in ascending order, so that quantiles never cross. In training each output keeps its own
    quantile: sorting never makes the loss larger (Chernozhukov, Fernandez-Val and Galichon 2010), and unlike outputs
    that are sums of positive steps, it leaves every output as free as that of a network of its own.

    Held-out rows are judged by what is predicted for them, in order; "rmse" and "mae" are those of the quantile nearest
    to 1/2.

    Parameters
    ----------
    quantiles : sequence of floats in (0, 1), ascending
        (0.05, 0.5, 0.95): the median, and the ends of an interval that y is in with probability 0.9.
    """

    name = "pinball"
    sklearn_name = "pinball"
    code = kind_of(KINDS, name)
    needs_precision = False
    judged_in_order = True
    option_names = ("quantiles",)
    quantiles: tuple[float, ...]

    def __init__(self, quantiles: Iterable[float] = (0.05, 0.5, 0.95)) -> None:
        self.declare(quantiles=_checked(quantiles))

    @property
    def levels(self) -> Floats:
        return np.array(self.quantiles, dtype=np.float32)

    @property
    def central(self) -> int:
        """Place of the quantile nearest to 1/2."""
        return self._nearest(0.5)

    def _nearest(self, level: float) -> int:
        return min(range(len(self.quantiles)), key=lambda place: abs(self.quantiles[place] - level))

    def columns(self, units: int) -> int:
        return units // len(self.quantiles)

    def units(self, targets: int) -> int:
        return targets * len(self.quantiles)

    def check_units(self, units: int) -> None:
        if units % len(self.quantiles):
            raise ValueError(
                f"pinball with {len(self.quantiles)} quantiles needs a last layer with that many units per target, got "
                f"{units}"
            )

    def center(self, p: Array, targets: int) -> Array:
        return self._quantile(p, targets, 0.5)

    def band(self, p: Doubles, spread: Doubles | None, coverage: float) -> tuple[Doubles, Doubles, Doubles]:
        targets = self.columns(p.shape[1])
        ends = [self._quantile(p, targets, level) for level in (0.5 - coverage / 2, 0.5 + coverage / 2)]
        apart = len(self.quantiles) > 1 and self._nearest(0.5 - coverage / 2) < self._nearest(0.5 + coverage / 2)
        return ends[0], ends[1], ends[1] - ends[0] if apart else np.ones_like(ends[0])

    def _quantile(self, p: Array, targets: int, level: float) -> Array:
        """What was predicted of the quantile that is nearest to a level, for each target."""
        place = self._nearest(level)
        return p[..., place * targets : (place + 1) * targets]

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        raise ValueError("quantiles are no density: with pinball there is no likelihood of y")

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        return str(graph.in_order(z, len(self.quantiles), output))

    def mix_onnx(self, graph: Any, z: str) -> str:
        return super().mix_onnx(graph, graph.in_order(z, len(self.quantiles)))


def _checked(given: Any) -> tuple[float, ...]:
    """Numbers between 0 and 1 in ascending order; of float32 no two are the same."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = (given,)
    quantiles = tuple(checks.number("quantiles", one, 0.0, 1.0, low_open=True, high_open=True) for one in given)
    single = np.array(quantiles, dtype=np.float32)
    if not quantiles or not (np.diff(single) > 0).all() or not 0 < single[0] <= single[-1] < 1:
        raise ValueError(f"quantiles must be numbers between 0 and 1 in ascending order, got {given!r}")
    return quantiles

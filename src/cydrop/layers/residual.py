"""A block with a way around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cydrop._base.arrays import Floats
from cydrop._run.initialization import fill
from cydrop._run.passes import last_mask
from cydrop._run.plan import Plan
from cydrop.layers.base import Layer, RandomLayer, checked_layers, checked_rate, from_config
from cydrop.schedules import Rate

__all__ = ["Residual"]


class Residual(RandomLayer):
    """A skip connection around other layers F: y = x + F(x) (He et al. 2016, arXiv 1512.03385).

    With `drop_path` the whole block is dropped for some rows in training (stochastic depth, Huang et al. 2016, arXiv
    1603.09382): y = x + m F(x) / (1 - drop_path), with a bit m for every row that is 0 with probability drop_path.
    Prediction is the plain sum; `predict_mc` drops blocks as training does. Names of parameters inside have both
    places: "3.0.weight" is the weight of the first layer in the `Residual` at place 3 of the network.

    Parameters
    ----------
    layers : sequence of layers
        F, which must give as many columns as it takes. Any layers may stand there, also dropout and other blocks.
    drop_path : float in [0, 1], or schedule
        Probability that a row skips F, so that y = x.

    Examples
    --------
    >>> import cydrop as cd
    >>> block = cd.Residual([cd.Dense(32), cd.ReLU(), cd.Dropout(0.1), cd.Dense(64)], 0.1)
    >>> net = cd.Network([cd.Dense(64), block, cd.Dense(10)], seed=0).build(20)
    >>> net.parameters()["1.3.weight"].shape
    (32, 64)
    """

    option_names = ("layers", "drop_path")
    rate_name = "drop_path"
    seed = None  # of the mask: the network's
    layers: tuple[Layer, ...]
    drop_path: Rate

    def __init__(self, layers: Sequence[Layer], drop_path: Rate = 0.0) -> None:
        self.declare(layers=checked_layers(layers), drop_path=checked_rate("drop_path", drop_path))

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the rows in the last training forward pass with drop_path, boolean, of shape (rows,); True keeps
        F(x). None before the first."""
        return last_mask(self)

    def lower(self, plan: Plan) -> None:
        shape, first = plan.shape, len(plan.ops)
        fork = plan.operation("fork", shape)
        plan.within(self.layers)
        if plan.widths_known and plan.shape != shape:
            given, made = (" x ".join(map(str, some)) for some in (shape, plan.shape))
            raise ValueError(
                f"layers[{plan.where}] is a Residual whose layers make {made} columns of {given}: it can add only as "
                f"many as come in; end with Dense({given})"
            )
        join = plan.operation("join", plan.shape)
        fork.numbers = join.numbers = (len(plan.ops) - 1 - first,)
        if self.drop_path != 0:
            join.noise = plan.draw(self, "rows")

    def check_batch(self, rows: int) -> None:
        for layer in self.layers:
            layer.check_batch(rows)

    def check_rows(self, name: str, rows: Floats, untouched: int) -> int:
        for layer in self.layers:
            untouched = layer.check_rows(name, rows, untouched)
        return 0  # what they give is added to

    def initialize_from(self, x: Floats, arrays: dict[str, Floats], seed: np.random.SeedSequence) -> None:
        fill(self.layers, x, arrays, seed)

    def config(self) -> dict[str, Any]:
        return super().config() | {"layers": [layer.config() for layer in self.layers]}

    @classmethod
    def from_config(cls, options: dict[str, Any]) -> Self:
        if isinstance(options.get("layers"), list):
            options["layers"] = [from_config(config) for config in options["layers"]]
        return super().from_config(options)

    def to_onnx(self, graph: Any, x: str) -> str:
        place, shape, rate = graph.place, graph.shape, self.rate_at(1.0)
        shapes = Plan.of(self.layers, shape[0]).shapes
        inner = x
        for number, layer in enumerate(self.layers):
            graph.place, graph.shape = f"{place}.{number}", shapes[number]
            inner = layer.to_onnx(graph, inner)
        graph.place, graph.shape = place, shape
        if graph.mc and rate > 0:
            inner = graph.drop(inner, graph.add("ReduceMean", x, axes=[1]), rate, 1.0)  # a number for each row
        y: str = graph.add("Add", x, inner)
        return y

    def tensor_names(self) -> dict[str, str]:
        return {
            f"{number}.{theirs}": f"{number}.{ours}"
            for number, layer in enumerate(self.layers)
            for theirs, ours in layer.tensor_names().items()
        }


LAYERS = (Residual,)

"""From layers to a plan: the parameter arena's layout and the list of operations that the engine runs.

    [Dropout, Dense, ReLU, Dropout, Dense]   ->   map(dropout) | dense(+ ReLU + dropout) | dense
                                                     op 0             op 1                 op 2

An activation and a dropout layer behind a dense layer are fused to it as its epilogue; wherever they stand
otherwise they become an operation of their own. The plan is plain data; nothing is allocated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cydrop.layers import Activation, Dense, Dropout, Layer

ALIGNMENT = 16  # floats: every parameter begins on a cache line


@dataclass(eq=False)
class Op:
    """One operation: y = drop(f(x W + b)), or without a product y = drop(f(x))."""

    kind: str  # "dense" or "map"
    n_in: int
    n_out: int
    weight: int = 0  # offset in the arena
    bias: int = -1  # offset in the arena, -1: none
    activation: int = 0
    alpha: float = 0.0
    dropout: int = -1  # number of the dropout layer among all of them, -1: none
    stream: int = 0  # number of its random stream
    vanilla: bool = False
    shared: bool = False
    max_norm: float = 0.0
    seed: tuple[int, int] = (0, 0)  # key of the masks, set when the network is built
    layers: list[int] = field(default_factory=list)  # places in the list of layers


@dataclass(eq=False)
class Parameter:
    """A view of the arena: `"1.weight"`, (inputs, units), where it begins."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(eq=False)
class Plan:
    """Everything that building a network needs to know."""

    n_features: int
    n_outputs: int
    ops: list[Op]
    parameters: list[Parameter]
    arena_size: int
    dense_ops: list[tuple[Dense, int]]  # with the number of its operation
    dropout_ops: list[tuple[Dropout, int]]


def make_plan(layers: Sequence[Layer], n_features: int) -> Plan:
    """Lays out `layers` for inputs of `n_features` columns."""
    ops: list[Op] = []
    parameters: list[Parameter] = []
    dense_ops: list[tuple[Dense, int]] = []
    dropout_ops: list[tuple[Dropout, int]] = []
    width, end, stream = n_features, 0, 0

    def reserve(name: str, shape: tuple[int, ...]) -> int:
        nonlocal end
        parameter = Parameter(name, shape, end)
        parameters.append(parameter)
        end += -(-parameter.size // ALIGNMENT) * ALIGNMENT
        return parameter.offset

    def open_op(activation_free: bool) -> Op:
        """The last operation if its epilogue still has room, else a new one without a product."""
        if ops and ops[-1].dropout < 0 and (not activation_free or ops[-1].activation == 0):
            return ops[-1]
        ops.append(Op("map", width, width))
        return ops[-1]

    for place, layer in enumerate(layers):
        if isinstance(layer, Dense):
            op = Op("dense", width, layer.units, max_norm=layer.max_norm or 0.0)
            op.weight = reserve(f"{place}.weight", (width, layer.units))
            if layer.bias:
                op.bias = reserve(f"{place}.bias", (layer.units,))
            if layer.activation is not None:
                op.activation, op.alpha = layer.activation.code, layer.activation.alpha
            dense_ops.append((layer, len(ops)))
            ops.append(op)
            width = layer.units
        elif isinstance(layer, Activation):
            op = open_op(activation_free=True)
            op.activation, op.alpha = layer.code, layer.alpha
        elif isinstance(layer, Dropout):
            op = open_op(activation_free=False)
            op.dropout, op.vanilla, op.shared = len(dropout_ops), layer.mode == "vanilla", layer.shared == "batch"
            op.stream = stream
            stream += layer.rate != 0  # a rate of 0 draws nothing and shifts nobody's random numbers
            dropout_ops.append((layer, len(ops) - 1))
        else:
            raise TypeError(f"layers[{place}] must be a cydrop layer, got {layer!r} ({type(layer).__name__})")
        op.layers.append(place)
    return Plan(n_features, width, ops, parameters, end, dense_ops, dropout_ops)

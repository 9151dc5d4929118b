"""From layers to a plan: the parameter arena's layout and the list of operations that the engine runs.

    [Dropout, Dense, ReLU, Dropout, Dense]   ->   map(dropout) | dense(+ ReLU + dropout) | dense
                                                     op 0             op 1                 op 2

An activation and a dropout layer behind a dense layer are fused to it as its epilogue; wherever they stand
otherwise they become an operation of their own, as noise and normalisations always do. The plan is plain data;
nothing is allocated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cydrop.layers import (
    Activation,
    AlphaDropout,
    BatchNorm,
    Dense,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    Layer,
    LayerNorm,
    RandomLayer,
)

ALIGNMENT = 16  # floats: every parameter begins on a cache line


@dataclass(eq=False)
class Source:
    """What an operation draws from: the column of its rate among all rates, and its random stream."""

    column: int
    stream: int
    seed: tuple[int, int] = (0, 0)  # key of the masks, set when the network is built


@dataclass(eq=False)
class Op:
    """One operation: y = drop(f(x W + b)), or without a product y = drop(f(x)), or noise, or a normalisation."""

    kind: str  # "dense", "map", "gaussian_dropout", "gaussian_noise", "alpha_dropout", "layer_norm" or "batch_norm"
    n_in: int
    n_out: int
    weight: int = 0  # offset in the arena
    bias: int = -1  # offset in the arena, -1: none
    activation: int = 0
    alpha: float = 0.0
    noise: Source | None = None  # of its dropout or noise
    vanilla: bool = False
    shared: bool = False
    connect: Source | None = None  # of its dropped weights
    max_norm: float = 0.0
    epsilon: float = 0.0  # of a normalisation
    momentum: float = 0.0
    buffer: int = 0  # offset of the running mean; the running variance follows
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
class Draw:
    """A number that may change during training, in the order of the columns of rates: a dropout layer's rate, a noise's
    standard deviation, a dense layer's drop_connect."""

    layer: RandomLayer
    op: int
    place: int  # of the layer in the list
    source: Source

    @property
    def masks(self) -> bool:
        """Whether a mask of the units is drawn."""
        return isinstance(self.layer, Dropout | AlphaDropout)


@dataclass(eq=False)
class Plan:
    """Everything that building a network needs to know."""

    n_features: int
    n_outputs: int
    ops: list[Op]
    parameters: list[Parameter]
    arena_size: int
    buffers: list[Parameter]
    buffer_size: int
    dense_ops: list[tuple[Dense, int]]  # with the number of its operation
    draws: list[Draw]

    @property
    def mask_draws(self) -> list[Draw]:
        """The draws of the dropout layers that have masks, in order."""
        return [draw for draw in self.draws if draw.masks]


def make_plan(layers: Sequence[Layer], n_features: int) -> Plan:
    """Lays out `layers` for inputs of `n_features` columns."""
    ops: list[Op] = []
    parameters: list[Parameter] = []
    buffers: list[Parameter] = []
    dense_ops: list[tuple[Dense, int]] = []
    draws: list[Draw] = []
    width, stream = n_features, 0

    def reserve(arena: list[Parameter], name: str, shape: tuple[int, ...]) -> int:
        parameter = Parameter(name, shape, _end(arena))
        arena.append(parameter)
        return parameter.offset

    def source(layer: RandomLayer) -> Source:
        nonlocal stream
        found = Source(len(draws), stream)
        stream += layer.rate_value != 0  # a rate of 0 draws nothing and shifts nobody's random numbers
        draws.append(Draw(layer, len(ops) - 1, place, found))
        return found

    def open_op(activation_free: bool) -> Op:
        """The last operation if its epilogue still has room, else a new one without a product."""
        room = ops and ops[-1].kind in ("dense", "map") and ops[-1].noise is None
        if room and (not activation_free or ops[-1].activation == 0):
            return ops[-1]
        ops.append(Op("map", width, width))
        return ops[-1]

    for place, layer in enumerate(layers):
        if isinstance(layer, Dense):
            op = Op("dense", width, layer.units, max_norm=layer.max_norm or 0.0)
            op.weight = reserve(parameters, f"{place}.weight", (width, layer.units))
            if layer.bias:
                op.bias = reserve(parameters, f"{place}.bias", (layer.units,))
            if layer.activation is not None:
                op.activation, op.alpha = layer.activation.code, layer.activation.alpha
            dense_ops.append((layer, len(ops)))
            ops.append(op)
            if layer.drop_connect != 0:
                op.connect = source(layer)
            width = layer.units
        elif isinstance(layer, Activation):
            op = open_op(activation_free=True)
            op.activation, op.alpha = layer.code, layer.alpha
        elif isinstance(layer, Dropout):
            op = open_op(activation_free=False)
            op.vanilla, op.shared = layer.mode == "vanilla", layer.shared == "batch"
            op.noise = source(layer)
        elif isinstance(layer, GaussianDropout | GaussianNoise | AlphaDropout):
            op = Op(layer.kind, width, width)
            ops.append(op)
            op.noise = source(layer)
        elif isinstance(layer, LayerNorm | BatchNorm):
            op = Op(layer.kind, width, width, epsilon=layer.epsilon)
            op.weight = reserve(parameters, f"{place}.weight", (width,))
            op.bias = reserve(parameters, f"{place}.bias", (width,))
            if isinstance(layer, BatchNorm):
                op.momentum = layer.momentum
                op.buffer = reserve(buffers, f"{place}.running_mean", (width,))
                buffers.append(Parameter(f"{place}.running_variance", (width,), op.buffer + width))
            ops.append(op)
        else:
            raise TypeError(f"layers[{place}] must be a cydrop layer, got {layer!r} ({type(layer).__name__})")
        op.layers.append(place)
    return Plan(n_features, width, ops, parameters, _end(parameters), buffers, _end(buffers), dense_ops, draws)


def _end(arena: list[Parameter]) -> int:
    """Where the next parameter begins: on a cache line."""
    last = arena[-1].offset + arena[-1].size if arena else 0
    return -(-last // ALIGNMENT) * ALIGNMENT

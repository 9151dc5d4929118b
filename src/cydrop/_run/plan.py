"""From layers to a plan: the list of operations that the engine runs, and the layout of the arenas.

    [Dropout, Dense, ReLU, Dropout, Dense]   ->   map(dropout) | dense(+ ReLU + dropout) | dense
                                                     op 0             op 1                 op 2

The builder knows no layer: each puts itself in (`Layer.lower`), as an operation of its own or into the epilogue of the
last one. An activation and a dropout layer right after a dense layer are its epilogue; wherever else they stand, they
are the epilogue of a map, an operation without a product. The plan is plain data; nothing is allocated here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from cydrop._base import seeding
from cydrop._base.arrays import Floats
from cydrop._base.declaration import Declaration
from cydrop.schedules import Rate

ALIGNMENT = 16  # floats: every parameter begins on a cache line
MANY = 2**24  # columns: enough for any layer

Shape: TypeAlias = tuple[int, ...]
Initial: TypeAlias = "float | Drawn | Callable[[np.random.SeedSequence], Floats]"  # a text: some come later
Factors: TypeAlias = tuple[float, float, float]  # learning rate, gain, weight decay

PLAIN: Factors = (1.0, 1.0, 1.0)


class Lowers(Protocol):
    """What a plan asks of a layer."""

    def lower(self, plan: Plan) -> None: ...


class Draws(Protocol):
    """What a plan asks of a layer that draws random numbers."""

    rate_name: ClassVar[str]

    @property
    def seed(self) -> int | None: ...

    @property
    def rate_value(self) -> Rate: ...

    def rate_at(self, progress: float) -> float: ...


@dataclass(eq=False, repr=False, slots=True)  # there may be thousands
class Source:
    """What an operation draws from: the column of its rate among all rates, and its random stream."""

    column: int
    stream: int
    seed: tuple[int, int] = (0, 0)  # key of the masks, set when the network is built


@dataclass(eq=False, repr=False, slots=True)
class Op:
    """One operation on rows of shape `in_shape`. Offsets are places in an arena, -1: there is none.

    kind          computes                                variants: KINDS of
    "dense"       y = drop(f(x W + b))
    "map"         y = drop(f(x))
    "noise"       x and what it draws                     _core.noise
    "concrete"    x without what a learned rate drops
    "norm"        weight (x - mean) / deviation + bias    _core.norms
    "parametric"  y = drop(f(x + weight (g(x) - x)))      _core.activations, PARAMETRIC_KINDS: which g is
    "fork"        x, which a later "join" adds to what it is given
    "numbers"     embeddings of the first columns         _core.dense, NUMBER_KINDS
    "codes"       rows of tables for the last columns
    "masks"       y = x m, a fixed mask m for every row, those in the buffer in turn
    "member_scale"  y = drop(f(x weight + bias)), element by element, of each member of many
    "member_dense"  y = drop(f(x W + b)), of each member of many
    "quantized"   "dense" of bytes, in predictions
    """

    kind: str
    in_shape: Shape
    out_shape: Shape
    variant: str = ""
    has_epilogue: bool = False  # whether an activation and a dropout may follow within the operation
    weight: int = -1
    bias: int = -1
    activation: str = "identity"  # name of f
    alpha: float = 0.0  # its option
    option: float = 0.0  # of the variant
    prior: tuple[float, float, float] = (0.0, 1.0, 0.0)  # of a learned rate: length scale, precision of noise, rows
    noise: Source | None = None  # of its dropout or noise
    vanilla: bool = False
    shared: bool = False
    connect: Source | None = None  # of its dropped weights
    max_norm: float = 0.0
    epsilon: float = 0.0  # of a normalisation
    momentum: float = 0.0
    running_mean: int = -1
    running_variance: int = -1
    parts: list[int] = field(default_factory=list)  # parameters of a family for which weight and bias are not enough
    numbers: tuple[int, ...] = ()  # sizes of a family's own
    buffer: int = -1  # what a family keeps but does not train
    layers: list[str] = field(default_factory=list)  # places in the list of layers, as in parameters' names

    @property
    def n_in(self) -> int:
        return math.prod(self.in_shape)

    @property
    def n_out(self) -> int:
        return math.prod(self.out_shape)


@dataclass(eq=False, repr=False, slots=True)
class Drawn:
    """An initial value that needs no more of its seed than `Xorshift` takes of it."""

    draw: Callable[[seeding.Branch], Floats]


@dataclass(eq=False, repr=False, slots=True)
class Parameter:
    """A view of an arena: `"1.weight"`, (inputs, units), where it begins, and how.

    `factors`: what multiplies the optimizer's learning rate for this parameter; the gain, where the arena holds gain
    times the parameter that the optimizer is for; and what multiplies the weight decay.
    """

    name: str
    shape: Shape
    offset: int
    initial: Initial
    branch: tuple[int, ...] = ()  # of the network's seed, for an initial value that is drawn
    factors: Factors = PLAIN

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def fill(self, view: Floats, root: tuple[int, ...]) -> None:
        """Writes the initial value."""
        branch = seeding.Branch(root, self.branch)
        if isinstance(self.initial, Drawn):
            view[...] = self.initial.draw(branch)
        elif callable(self.initial):
            view[...] = self.initial(branch.sequence())
        else:
            view[...] = self.initial


@dataclass(eq=False, repr=False, slots=True)
class Draw:
    """A number that may change during training, in the order of the columns of rates: a dropout layer's rate, a noise's
    standard deviation, a dense layer's drop_connect."""

    layer: Draws
    op: int
    place: str  # of the layer, as in parameters' names
    source: Source
    what: str  # is drawn: "units", "rows" or "weights" (masks), "normals" or "keeps"


@dataclass(eq=False, repr=False)
class Plan:
    """Everything that building a network needs to know."""

    shapes: list[Shape]  # of a row: what comes in, then what each layer gives
    ops: list[Op] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    buffers: list[Parameter] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    _last: str = ""  # place of the layer after which nothing may come, "": there is none
    place: int = 0  # of the layer that is put in
    where: str = ""  # its place as in the names of parameters: "3", or "3.0" for the first layer within that one
    widths_known: bool = True
    streams: int = 0  # random streams so far
    counts: Counter[str] = field(default_factory=Counter)  # of operations, by their kind
    members: int = 0  # that the network becomes; 0: it is one
    inside: int = 0  # the first operation of which each has its own
    own_orders: bool = False  # whether each sees the rows of an epoch in an order of its own
    in_turn: bool = False  # whether it is many in predictions alone: in training each row is one member's

    @classmethod
    def of(cls, layers: Sequence[Lowers], n_features: int | None) -> Plan:
        """The plan of these layers for inputs of `n_features` columns. None: for whoever wants to know what the layers
        draw, before there are columns; such a plan has many, and its layers do not mind if their widths do not fit."""
        plan = cls([(MANY if n_features is None else n_features,)], widths_known=n_features is not None)
        for plan.place, layer in enumerate(layers):
            plan.shapes.append(plan.shape)
            plan._put_in(str(plan.place), layer)
        if not plan.ops:
            raise ValueError("the layers put no operation into the plan: there is nothing to compute")
        return plan

    @classmethod
    def drawing(cls, layers: Sequence[Lowers]) -> list[Draws]:
        """The layers whose rate may change, in the order of every plan, whatever columns come in."""
        return [draw.layer for draw in cls.of(layers, None).draws]

    @property
    def shape(self) -> Shape:
        """Of a row that the layer at hand is given, until it adds an operation."""
        return self.shapes[-1]

    def _put_in(self, where: str, layer: Lowers, lower: Callable[[Plan, Any], None] | None = None) -> None:
        self.where = where
        if not (isinstance(layer, Declaration) and hasattr(layer, "lower")):
            raise TypeError(f"layers[{self.where}] must be a cydrop layer, got {layer!r} ({type(layer).__name__})")
        if lower is not None:
            lower(self, layer)
        else:
            layer.lower(self)

    # What layers call -------------------------------------------------------------------------------------

    def within(self, layers: Sequence[Lowers], lower: Callable[[Plan, Any], None] | None = None) -> None:
        """Puts in the layers that the layer at hand holds, each as it does so itself or by `lower(plan, layer)`."""
        outside = self.where
        for number, layer in enumerate(layers):
            self._put_in(f"{outside}.{number}", layer, lower)
        self.where = outside

    def become_many(self, members: int, own_orders: bool) -> None:
        """From here on the network is many: operations that follow have parameters for each, or are shared by all."""
        if self.in_turn:
            raise ValueError(f"layers[{self.where}] is Members, before which no Masksembles can stand")
        if any(op.connect is not None or op.running_mean >= 0 for op in self.ops):
            raise ValueError(
                f"layers[{self.where}] is Members, before which neither BatchNorm nor drop_connect can stand: a batch "
                "is trained on some members at a time"
            )
        if self.learned:
            raise ValueError(f"layers[{self.where}] is Members, before which no Dropout can learn its rate")
        self.members, self.inside, self.own_orders = members, len(self.ops), own_orders

    def become_masked(self, members: int) -> None:
        """From here on, or from the outermost block that is open, predictions are those of many, which share all
        parameters; in training each row of a batch is one member's. All layers that say so must agree on how many."""
        self._refuse_after_members()
        if self.members not in (0, members):
            raise ValueError(
                f"layers[{self.where}] has {members} masks, a layer before it {self.members}: all must have as many"
            )
        if not self.members:
            forks = [place for place, op in enumerate(self.ops) if op.kind == "fork" and not op.numbers]
            self.members, self.inside, self.in_turn = members, forks[0] if forks else len(self.ops), True

    def end_of_many(self) -> None:
        """What the members give is what the network gives."""
        self._last = self.where

    def operation(self, kind: str, out_shape: Shape, **options: Any) -> Op:
        """A new operation on what the last one gives."""
        self._refuse_after_members()
        self.counts[kind] += 1
        self.ops.append(Op(kind, self.shape, out_shape, **options))
        self.shapes[-1] = out_shape
        return self._of_layer(self.ops[-1])

    def epilogue(self, *, activation: bool = False) -> Op:
        """The last operation, if a dropout may still follow in it, or an activation and a dropout; else a map."""
        self._refuse_after_members()
        last = self.ops[-1] if len(self.ops) > (self.inside if self.members else 0) else None
        free = last is not None and last.has_epilogue and last.noise is None
        if last is None or not free or (activation and last.activation != "identity"):
            return self.operation("map", self.shape, has_epilogue=True)
        return self._of_layer(last)

    def parameter(
        self, name: str, shape: Shape, initial: Initial, branch: tuple[int, ...] = (), factors: Factors = PLAIN
    ) -> int:
        """Room for a parameter of this layer: its offset."""
        self._refuse_twice(name, self.parameters)
        offset = _end(self.parameters)
        self.parameters.append(Parameter(f"{self.where}.{name}", shape, offset, initial, branch, factors))
        return offset

    def buffer(self, name: str, shape: Shape, initial: Initial, branch: tuple[int, ...] = ()) -> int:
        """Room for what is kept but not trained: its offset."""
        self._refuse_twice(name, self.buffers)
        self.buffers.append(Parameter(f"{self.where}.{name}", shape, _end(self.buffers), initial, branch))
        return self.buffers[-1].offset

    def _refuse_twice(self, name: str, arena: list[Parameter]) -> None:
        """Names are a layer's place and its own word: a layer of several parts needs several words."""
        for parameter in reversed(arena):
            if not parameter.name.startswith(f"{self.where}."):
                return
            if parameter.name == f"{self.where}.{name}":
                raise ValueError(f"layers[{self.where}] has two arrays that are called {name!r}")

    def draw(self, layer: Draws, what: str) -> Source:
        """A random stream for this layer's draws, and a column of rates."""
        source = Source(len(self.draws), self.streams)
        self.streams += layer.rate_value != 0  # a rate of 0 draws nothing and shifts nobody's random numbers
        self.draws.append(Draw(layer, len(self.ops) - 1, self.where, source, what))
        return source

    def _refuse_after_members(self) -> None:
        if self._last:
            raise ValueError(f"layers[{self._last}] is Members, which must be the last layer of a network")

    def _of_layer(self, op: Op) -> Op:
        if self.where not in op.layers:
            op.layers.append(self.where)
        return op

    # What builds a network from it ------------------------------------------------------------------------

    # asked for at every call, of a plan that is whole: worked out once

    @cached_property
    def n_features(self) -> int:
        return math.prod(self.shapes[0])

    @cached_property
    def n_outputs(self) -> int:
        return math.prod(self.shape)

    @property
    def arena_size(self) -> int:
        return _end(self.parameters)

    @property
    def buffer_size(self) -> int:
        return _end(self.buffers)

    @property
    def has_arrays(self) -> bool:
        """Whether anything depends on the columns that come in: parameters or running statistics."""
        return bool(self.parameters or self.buffers)

    @property
    def segments(self) -> list[tuple[int, int, float, float, float]]:
        """Where each parameter begins, its size and its factors; nothing where all factors are 1."""
        if all(parameter.factors == PLAIN for parameter in self.parameters):
            return []
        return [(parameter.offset, parameter.size, *parameter.factors) for parameter in self.parameters]

    @property
    def learned(self) -> list[Draw]:
        """The draws of dropout that learns its rate."""
        return [draw for draw in self.draws if self.ops[draw.op].kind == "concrete"]

    def next_weight(self, number: int) -> int:
        """Offset of the weight of the first dense operation after this one, -1: there is none that takes its units."""
        after = (op for op in self.ops[number + 1 :] if op.kind == "dense")
        op = next(after, None)
        return -1 if op is None or op.n_in != self.ops[number].n_out else op.weight

    @cached_property
    def vanilla_draws(self) -> list[Draw]:
        """The draws of dropout that scales in prediction."""
        return [draw for draw in self.draws if self.ops[draw.op].vanilla]

    @cached_property
    def draws_for_all_rows(self) -> bool:
        """Whether any mask is of all rows, or of weights: such a mask belongs to one sample."""
        return any(op.shared or op.connect is not None for op in self.ops)

    @cached_property
    def mask_draws(self) -> list[Draw]:
        """The draws of masks of units and rows, in order."""
        return [draw for draw in self.draws if draw.what in ("units", "rows")]

    def mask_shape(self, draw: Draw, rows: int) -> Shape:
        """Of the mask that a draw gives for a batch."""
        op = self.ops[draw.op]
        if draw.what == "weights":
            return op.n_in, op.n_out
        if draw.what == "rows":
            shape: Shape = (rows,)
        elif op.shared:
            shape = op.out_shape
        else:
            shape = (rows, *op.out_shape)
        shared_by_all = op.shared and draw.op < self.inside  # of the members
        return (*self.batch_shape, *shape) if not shared_by_all else shape

    @property
    def trained_members(self) -> int:
        """How many networks a training step is of; 0: it is one."""
        return 0 if self.in_turn else self.members

    @property
    def orders(self) -> int:
        """How many orders of its rows an epoch has."""
        return self.members if self.own_orders else 1

    @property
    def batch_shape(self) -> Shape:
        """Of what a training batch of one row gives, without the units: what each member makes of it, if there are
        any."""
        return (self.trained_members,) if self.trained_members else ()

    def seed(self, root: tuple[int, ...]) -> Plan:
        """Gives the draws the keys of their masks: of the network's seed, or of a layer's own."""
        shared = seeding.Branch(root, (seeding.MASKS,))
        for draw in self.draws:
            draw.source.seed = seeding.key(shared if draw.layer.seed is None else draw.layer.seed)
        return self


def _end(arena: list[Parameter]) -> int:
    """Where the next parameter begins: on a cache line."""
    last = arena[-1].offset + arena[-1].size if arena else 0
    return -(-last // ALIGNMENT) * ALIGNMENT

"""Many networks in one (TabM)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._run.plan import Initial, Op, Plan
from cydrop.layers.base import Activation, Factor, Layer, checked_factor, checked_layers, from_config
from cydrop.layers.dense import Dense
from cydrop.layers.dropout import Dropout
from cydrop.layers.noise import AlphaDropout, GaussianDropout, GaussianNoise
from cydrop.layers.norms import LayerNorm
from cydrop.layers.parametric import Parametric, Scale
from cydrop.xorshift import Xorshift

__all__ = ["Members"]

MOST_MEMBERS = 256
SHARING = ("mini", "tabm", "packed")
BATCHES = ("own", "shared")
FIRST_SCALES = ("signs", "normal", "ones")
WORDS = ("input_scale", "output_scale")  # of its own parameters
OF_ALL = (LayerNorm, Scale, Parametric)  # whose parameters all members share
INSIDE = (Dense, Activation, Dropout, AlphaDropout, GaussianDropout, GaussianNoise, *OF_ALL)


class Members(Layer):
    """The rest of a network many times over: `members` networks that share most weights and are trained at once (TabM,
    Gorishniy, Kotelnikov and Babenko 2025, arXiv 2410.24210).

    It is the last layer of a network. Layers before it are shared by all members and see the rows of each. Of the
    layers inside, the last one, the head, is a dense layer for each member; what the others share:

    * "mini": all weights and biases; x is multiplied by a scale of the member, element by element.
    * "tabm": the weights W; each dense layer has scales r, s and a bias b of each member, ((x * r) W) * s + b
      (BatchEnsemble, Wen, Tran and Ba 2020, arXiv 2002.06715).
    * "packed": nothing.

    The loss is the mean of the members' losses, never the loss of their mean. What the network predicts is the mean of
    the members' predictions, after the loss's link: of probabilities, or of values. For "gaussian_nll" it is the mean
    and the variance of the mixture of their normal distributions. `evaluate` and validation judge that prediction; the
    "loss" and the "accuracy" of training in the history are means over the members. `Network.predict_members` gives
    what each predicts, `forward(X, training=True)` the raw outputs of each, (members, n, units), for which `backward`
    takes gradients. `predict_mc` takes each sample from one member, in turn: its mean and spread are those over members
    and masks.

    A batch of n rows is trained on as members times n rows, a few members at a time. Dropout inside, and before, draws
    masks of its own for every row of each member; `Dropout(rate, shared="batch")` inside one for the rows of a member.

    Parameters
    ----------
    layers : sequence of layers
        `Dense`, activations, `Dropout`, `AlphaDropout`, `GaussianDropout`, `GaussianNoise`, and, unless nothing is
        shared, `LayerNorm`, `Scale` and `Parametric`, whose parameters are those of all members. The last one is a
        `Dense`, of as many units as the loss wants. Weights begin as these layers say, of each member for itself where
        each has some; in TabM `weight_init="torch_uniform", bias_init="torch_uniform"`. Biases b of "tabm" begin the
        same for all members.
    members : int in [1, 256]
    sharing : "mini", "tabm" or "packed"
    batches : "own" or "shared"
        "own": each member sees the rows of an epoch in an order of its own, so that a batch has other rows of each;
        with `shuffle=False` there is one order, and all see the same. "shared": the same rows for all members.
    first_scale : "signs", "normal", "ones" or None
        How the first scale of the members begins: random signs, as is right where numbers come in as they are; standard
        normal numbers, where they come from embeddings; or 1. All other scales begin at 1. None is "signs"; "packed"
        has no scales.
    scale_groups : sequence of int or None
        A number for each column that comes in: those with the same number begin with the same first scale, such as the
        columns of an embedding, or of the categories of one feature. None: each begins with its own.
    learning_rate_factor, decay_factor : float >= 0, or dict of such
        As for `Dense`, of "input_scale" (r) and "output_scale" (s). Those of weights and biases are set in the layers
        inside: TabM has no weight decay on biases, `Dense(512, decay_factor={"bias": 0.0})`.

    Examples
    --------
    >>> import cydrop as cd
    >>> layers = [cd.Dense(64, activation="relu"), cd.Dropout(0.1), cd.Dense(10)]
    >>> net = cd.Network([cd.Members(layers, members=8)], seed=0).build(20)
    >>> for name, array in net.parameters().items():
    ...     print(name, array.shape)
    0.input_scale (8, 20)
    0.0.weight (20, 64)
    0.0.bias (64,)
    0.2.weight (8, 64, 10)
    0.2.bias (8, 10)
    """

    option_names = (
        "layers", "members", "sharing", "batches", "first_scale", "scale_groups", "learning_rate_factor",
        "decay_factor",
    )  # fmt: skip
    layers: tuple[Layer, ...]
    members: int
    sharing: str
    batches: str
    first_scale: str | None
    scale_groups: tuple[int, ...] | None

    def __init__(
        self,
        layers: Sequence[Layer],
        members: int = 32,
        *,
        sharing: str = "mini",
        batches: str = "own",
        first_scale: str | None = None,
        scale_groups: ArrayLike | None = None,
        learning_rate_factor: Factor = 1.0,
        decay_factor: Factor = 1.0,
    ) -> None:
        given = checked_layers(layers)
        checks.one_of("sharing", sharing, SHARING)
        for place, layer in enumerate(given):
            if not isinstance(layer, INSIDE):
                known = ", ".join(cls.__name__ for cls in INSIDE if cls is not Activation)
                raise TypeError(f"layers[{place}] of Members must be an activation or one of {known}, got {layer!r}")
            if sharing == "packed" and isinstance(layer, OF_ALL):
                raise ValueError(f'sharing="packed" shares nothing: layers[{place}] cannot be {layer!r}')
            if isinstance(layer, Dense) and layer.drop_connect != 0:
                raise ValueError(f"layers[{place}] of Members cannot have drop_connect: its weights are of many rows")
        if not isinstance(given[-1], Dense):
            raise ValueError(f"the last of the layers of Members must be a Dense, the head, got {given[-1]!r}")
        if first_scale is not None:
            checks.one_of("first_scale", first_scale, FIRST_SCALES, "None")
        if sharing == "packed" and (first_scale is not None or scale_groups is not None):
            raise ValueError('first_scale and scale_groups are for scales, and there are none with sharing="packed"')
        self.declare(
            layers=given,
            members=checks.integer("members", members, 1, MOST_MEMBERS),
            sharing=sharing,
            batches=checks.one_of("batches", batches, BATCHES),
            first_scale=first_scale,
            scale_groups=None if scale_groups is None else _checked_groups(scale_groups),
            learning_rate_factor=checked_factor("learning_rate_factor", learning_rate_factor, WORDS),
            decay_factor=checked_factor("decay_factor", decay_factor, WORDS),
        )

    # What it computes -------------------------------------------------------------------------------------------

    def lower(self, plan: Plan) -> None:
        plan.become_many(self.members, self.batches == "own")
        if self.sharing == "mini":
            self._scale(plan, True)
        plan.within(self.layers, self._lower_inside)
        plan.end_of_many()

    def _lower_inside(self, plan: Plan, layer: Layer) -> None:
        if not isinstance(layer, Dense):
            layer.lower(plan)
            return
        number = int(plan.where.rpartition(".")[2])
        head = number == len(self.layers) - 1
        if head or self.sharing == "packed":
            self._lower_dense(plan, layer)
        elif self.sharing == "mini":
            layer.lower(plan)
        else:
            self._scale(plan, not any(isinstance(other, Dense) for other in self.layers[:number]))
            layer.lower_product(plan)
            (units,), seed, fan_in = plan.shape, (seeding.BIASES, layer.number(plan) - 1), plan.ops[-1].n_in
            op = plan.operation("member_scale", plan.shape, has_epilogue=True, numbers=(self.members,))
            op.weight = plan.parameter("output_scale", (self.members, units), 1.0, factors=self.factors("output_scale"))
            if layer.bias:  # of one draw for all
                op.bias = plan.parameter(
                    "bias", (self.members, units), partial(layer.initial_bias, fan_in), seed, layer.factors("bias")
                )
            if layer.activation is not None:
                layer.activation.lower(plan)

    def _lower_dense(self, plan: Plan, layer: Dense) -> None:
        """A dense layer of each member."""
        (fan_in,), of_each = plan.shape, (self.members,)
        number = layer.number(plan)
        op = plan.operation(
            "member_dense", (layer.units,), has_epilogue=True, numbers=of_each, max_norm=layer.max_norm or 0.0
        )
        op.weight = plan.parameter(
            "weight", (*of_each, fan_in, layer.units), partial(layer.initial_weight, fan_in, members=of_each),
            (seeding.WEIGHTS, number), layer.weight_factors(fan_in),
        )  # fmt: skip
        if layer.bias:
            op.bias = plan.parameter(
                "bias", (*of_each, layer.units), partial(layer.initial_bias, fan_in, members=of_each),
                (seeding.BIASES, number), layer.factors("bias"),
            )  # fmt: skip
        if layer.activation is not None:
            layer.activation.lower(plan)

    def _scale(self, plan: Plan, first: bool) -> Op:
        """What multiplies the columns that come in."""
        (columns,) = plan.shape
        initial: Initial = 1.0
        if first and plan.widths_known:
            if self.scale_groups is not None and len(self.scale_groups) != columns:
                raise ValueError(
                    f"scale_groups of layers[{plan.place}] must have a number for each of the {columns} columns that "
                    f"come in, got {len(self.scale_groups)}"
                )
            initial = partial(self.initial_scale, columns)
        op = plan.operation("member_scale", plan.shape, has_epilogue=True, numbers=(self.members,))
        op.weight = plan.parameter(
            "input_scale", (self.members, columns), initial, (seeding.SCALES,), self.factors("input_scale")
        )
        return op

    def initial_scale(self, columns: int, seed: np.random.SeedSequence) -> Floats:
        """A fresh first scale.

        Parameters
        ----------
        columns : int
            That come in.
        seed : numpy.random.SeedSequence

        Returns
        -------
        ndarray of float32, shape (members, columns)
        """
        groups = np.arange(columns)
        if self.scale_groups is not None:
            groups = np.unique(np.array(self.scale_groups), return_inverse=True)[1].reshape(-1)
        shape, generator = (self.members, int(groups.max()) + 1), Xorshift(seed)
        drawn: Floats
        if self.first_scale == "ones":
            drawn = np.ones(shape, dtype=np.float32)
        elif self.first_scale == "normal":
            drawn = generator.normal(shape)
        else:
            drawn = np.where(generator.bernoulli(0.5, shape), np.float32(1), np.float32(-1))
        return drawn[:, groups]

    def check_batch(self, rows: int) -> None:
        for layer in self.layers:
            layer.check_batch(rows)

    # What a file keeps ------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        options = super().config() | {"layers": [layer.config() for layer in self.layers]}
        if self.scale_groups is not None:
            options["scale_groups"] = list(self.scale_groups)
        return options

    @classmethod
    def from_config(cls, options: dict[str, Any]) -> Self:
        if isinstance(options.get("layers"), list):
            options["layers"] = [from_config(config) for config in options["layers"]]
        return super().from_config(options)

    # In an ONNX graph, where values are (members, n, columns) --------------------------------------------------------

    def to_onnx(self, graph: Any, x: str) -> str:
        place, graph.members = graph.place, self.members
        y: str = graph.add("Unsqueeze", x, graph.constant("axes", [0], np.int64))
        if self.sharing == "mini":
            y = self._of_each(graph, "Mul", y, "input_scale")
        for number, layer in enumerate(self.layers):
            graph.place = f"{place}.{number}"
            if isinstance(layer, Dense):
                y = self._dense_to_onnx(graph, y, layer, number == len(self.layers) - 1)
                graph.shape = (layer.units,)
            else:
                y = layer.to_onnx(graph, y)
        graph.place, graph.members = place, 0
        return y

    def _dense_to_onnx(self, graph: Any, x: str, layer: Dense, head: bool) -> str:
        y: str
        if head or self.sharing == "packed":
            y = graph.add("MatMul", x, graph.parameter("weight"))
            y = self._of_each(graph, "Add", y, "bias") if layer.bias else y
        elif self.sharing == "mini":
            y = graph.product(x)
            y = graph.add("Add", y, graph.parameter("bias")) if layer.bias else y
        else:
            y = graph.product(self._of_each(graph, "Mul", x, "input_scale"))
            y = self._of_each(graph, "Mul", y, "output_scale")
            y = self._of_each(graph, "Add", y, "bias") if layer.bias else y
        return y if layer.activation is None else layer.activation.to_onnx(graph, y)

    def _of_each(self, graph: Any, kind: str, x: str, word: str) -> str:
        """Rows of each member, and its own of a parameter."""
        rows = graph.add("Unsqueeze", graph.parameter(word), graph.constant("axes", [1], np.int64))
        y: str = graph.add(kind, x, rows)
        return y


def _checked_groups(groups: ArrayLike) -> tuple[int, ...]:
    given = np.asarray(groups)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise ValueError(f"scale_groups must be whole numbers, one for each column that comes in, got {groups!r:.100}")
    return tuple(int(number) for number in given)


LAYERS = (Members,)

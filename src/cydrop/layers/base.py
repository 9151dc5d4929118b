"""What layers have in common. A layer is a declaration without arrays; it says what it is once, in its own file:

    lower               what it computes: parameters, operation, draws          (cydrop._run.plan)
    initialize          what it learns from rows before training begins
    config, from_config what a file keeps of it
    to_onnx             its nodes in an ONNX graph
    to_torch, ...       its module in PyTorch

Alone, `layer.forward(x)` and `layer.backward(dy)` run a network of one layer: there is no second implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._base.declaration import Declaration
from cydrop._run import alone, passes
from cydrop._run.plan import Factors, Plan
from cydrop.schedules import Rate, rate_config, rate_from_config, value_at

__all__ = [
    "KNOWN", "WEIGHT_AND_BIAS", "Activation", "Factor", "Layer", "RandomLayer", "checked_factor", "checked_layers",
    "checked_rate", "from_config",
]  # fmt: skip

Factor: TypeAlias = float | Mapping[str, float]  # for all parameters of a layer, or some of them by their words
WEIGHT_AND_BIAS = ("weight", "bias")  # these words, where a layer has no others


class Layer(Declaration):
    """Base of the layers. Two layers are equal only if they are the same object."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def forward(self, x: ArrayLike, training: bool = True) -> Floats:
        """The layer by itself.

        Parameters
        ----------
        x : array-like, shape (rows, features) or any other with rows first
        training : bool
            Whether dropout drops.

        Returns
        -------
        ndarray of float32; for a layer without weights it has the shape of x
        """
        x = checks.floats("x", x)
        if x.ndim == 0:
            raise ValueError("x must have at least one dimension, got a scalar")
        if not x.size:
            raise ValueError(f"x is empty: shape {x.shape}")
        rows = x.reshape(len(x), -1)
        y = alone.forward(self, rows, checks.flag("training", training))
        return y.reshape(x.shape) if y.shape == rows.shape else y

    def backward(self, dy: ArrayLike) -> Floats:
        """d loss / d x for the last training `forward` of this layer alone.

        Parameters
        ----------
        dy : array-like, of the shape that `forward` returned

        Raises
        ------
        RuntimeError
            Without a training `forward` before it.
        """
        return alone.backward(self, dy)

    # of layers with parameters, that have these options: what multiplies the optimizer's learning rate and weight decay
    learning_rate_factor: Factor = 1.0
    decay_factor: Factor = 1.0

    def factors(self, word: str) -> Factors:
        """The factors of learning rate and weight decay of one of the layer's parameters, with a gain of 1 in between.

        Parameters
        ----------
        word : str
            The layer's own for it, as "weight".
        """
        return _factor_of(self.learning_rate_factor, word), 1.0, _factor_of(self.decay_factor, word)

    # What the rest of the house asks of a layer -----------------------------------------------------------------

    def lower(self, plan: Plan) -> None:
        """Puts the layer into a plan: its parameters, its operation or its place in the last one's epilogue, its draws.

        Parameters
        ----------
        plan : Plan
            Of the layers before; `plan.shape` is what a row looks like here.
        """
        what = f"layers[{plan.place}] is {self!r}, which does not say what it computes"
        raise TypeError(f"{what}: its class needs a method lower(plan)")

    def initialize(self, x: Floats, arrays: dict[str, Floats]) -> None:
        """Overwrites what depends on the rows that the layer is given, for `Network.initialize`; by default nothing.

        Parameters
        ----------
        x : ndarray of float32, shape (n, columns)
            Rows as they come into the layer. They are not written to.
        arrays : dict of str to ndarray of float32
            Its parameters and running statistics by its own words, as "weight".
        """

    def initialize_from(self, x: Floats, arrays: dict[str, Floats], seed: np.random.SeedSequence) -> None:
        """`initialize` for a layer that also draws; by default it does not.

        Parameters
        ----------
        x, arrays
            As for `initialize`.
        seed : numpy.random.SeedSequence
        """
        self.initialize(x, arrays)

    def check_batch(self, rows: int) -> None:
        """Raises ValueError where nothing is learned from training batches of this many rows.

        Parameters
        ----------
        rows : int
        """

    def check_rows(self, name: str, rows: Floats, untouched: int) -> int:
        """Raises ValueError for rows of the network's input whose columns come to this layer as they are and are not
        what it takes.

        Parameters
        ----------
        name : str
            Of the argument that the rows came in.
        rows : ndarray of float32, shape (n, features)
        untouched : int
            How many of the last columns of the rows are the last columns of what comes to this layer; all of them: it
            is the first.

        Returns
        -------
        int
            How many of them are the last columns of what it gives.
        """
        return 0

    def config(self) -> dict[str, Any]:
        """Name and options, as saved in a file."""
        return {"layer": type(self).__name__} | self.options()

    @classmethod
    def from_config(cls, options: dict[str, Any]) -> Self:
        """The layer that `config` described.

        Parameters
        ----------
        options : dict
            Without the name. It is not used again.
        """
        return cls(**options)

    def to_onnx(self, graph: Any, x: str) -> str:
        """Adds the layer's nodes to an ONNX graph.

        Parameters
        ----------
        graph : the graph that cydrop.onnx writes
        x : str
            Name of the value that comes in.

        Returns
        -------
        str
            Name of the value that goes out.
        """
        raise ValueError(f"an ONNX model cannot hold {self!r}: its class has no method to_onnx")

    activated: bool = False  # whether an activation of its own follows, which is a module of its own in PyTorch
    torch_name: ClassVar[str] = ""  # of the class of modules that PyTorch has for it

    def tensor_names(self) -> dict[str, str]:
        """The names of its tensors in PyTorch's state dicts, in their order, each with cydrop's own."""
        return {}

    def missing_in_torch(self) -> str | None:
        """What of this layer PyTorch has no module for; None: it has one."""
        return None if self.torch_name else type(self).__name__

    def to_torch(self, nn: Any, width: int) -> list[Any]:
        """The modules of PyTorch that do the same.

        Parameters
        ----------
        nn : module
            torch.nn
        width : int
            Columns that come in.
        """
        return [getattr(nn, self.torch_name)(**self.options())]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """The layer of a module whose class is called `torch_name`; ValueError for one that differs.

        Parameters
        ----------
        module : torch.nn.Module
        """
        return cls(**{name: getattr(module, name) for name in cls.option_names})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in (alone.KEPT, passes.KEPT)}


class RandomLayer(Layer):
    """Base of the layers that draw random numbers in training."""

    seed: int | None
    rate_name: ClassVar[str] = "rate"  # the option that says how much

    def with_rate(self, rate: Rate) -> Self:
        """The same layer with another rate; `Network.set_rate` puts it in the place of this one.

        Parameters
        ----------
        rate : float or schedule
            Of dropout, the standard deviation of noise, a dense layer's drop_connect.

        Returns
        -------
        layer of the same class
        """
        return type(self)(**(self.options() | {self.rate_name: rate}))

    def _instead(self, name: str) -> str:
        return ", or call network.set_rate(place, rate)" if name == self.rate_name else ""

    @property
    def rate_value(self) -> Rate:
        """The number or schedule of the rate, whatever its name."""
        value: Rate = getattr(self, self.rate_name)
        return value

    def rate_at(self, progress: float) -> float:
        """The rate in force.

        Parameters
        ----------
        progress : float in [0, 1]
            Of training.
        """
        return value_at(self.rate_name, self.rate_value, progress, 0.0, 1.0)

    @classmethod
    def from_config(cls, options: dict[str, Any]) -> Self:
        if cls.rate_name in options:
            options[cls.rate_name] = rate_from_config(options[cls.rate_name])
        return super().from_config(options)

    def config(self) -> dict[str, Any]:
        options = super().config()
        options[self.rate_name] = rate_config(self.rate_name, self.rate_value)
        return options


class Activation(Layer):
    """Base of the activations: y = f(z), element by element."""

    kernel: ClassVar[str]  # its name among the compiled functions, and in Dense(activation=...)
    onnx_name: ClassVar[str]  # of the ONNX operator
    alpha: float = 0.0

    def lower(self, plan: Plan) -> None:
        op = plan.epilogue(activation=True)
        op.activation, op.alpha = self.kernel, self.alpha

    def to_onnx(self, graph: Any, x: str) -> str:
        y: str = graph.add(self.onnx_name, x, **({"alpha": self.alpha} if self.option_names else {}))
        return y


KNOWN: dict[str, type[Layer]] = {}  # by the names that files give them; `cydrop.layers` fills it in


def from_config(config: dict[str, Any]) -> Layer:
    """The layer that `Layer.config` described."""
    options = dict(config)
    return checks.choice("layer", options.pop("layer", None), KNOWN).from_config(options)


def checked_rate(name: str, rate: Rate) -> Rate:
    """A probability, or a schedule, whose values are checked as they come."""
    return rate if callable(rate) else checks.rate(name, rate)


def checked_factor(name: str, factor: Factor, words: Iterable[str]) -> Factor:
    """A factor of at least 0 for all parameters, or such factors by the words of some: {"bias": 0.1}."""
    if not isinstance(factor, Mapping):
        return checks.number(name, factor, 0.0, single=True)
    for word in factor:
        checks.one_of(f"{name}: the parameter", word, tuple(words))
    return {word: checks.number(f"{name}[{word!r}]", own, 0.0, single=True) for word, own in factor.items()}


def checked_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Those that a layer holds, at least one."""
    if isinstance(layers, Layer | Set | Mapping | str) or not isinstance(layers, Iterable):
        raise TypeError(f"layers must be a list of layers, got {layers!r} ({type(layers).__name__})")
    given = tuple(layers)
    if not given:
        raise ValueError("layers is empty: a block needs at least one layer")
    for place, layer in enumerate(given):
        if not isinstance(layer, Layer):
            raise TypeError(f"layers[{place}] must be a cydrop layer, got {layer!r} ({type(layer).__name__})")
    return given


def _factor_of(factor: Factor, word: str) -> float:
    return factor.get(word, 1.0) if isinstance(factor, Mapping) else factor

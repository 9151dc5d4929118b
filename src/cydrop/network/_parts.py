"""What a network is made of, as it shows itself, and what may be set."""

from __future__ import annotations

import math
from typing import Any, Self

from numpy.typing import ArrayLike

from cydrop import losses, optimizers
from cydrop._base import checks, seeding, threads
from cydrop._run import initialization
from cydrop._run.core import Cored, core_of
from cydrop.history import History
from cydrop.layers import Layer, RandomLayer
from cydrop.schedules import Rate

SETTABLE = frozenset({"history", "stop_training", "training_rows"})  # attributes that callers may set

HINTS = {
    name: f"; {hint}"
    for names, hint in {
        ("learning_rate", "lr"): "assign net.optimizer = net.optimizer.with_learning_rate(...)",
        ("dropout", "rate"): "call net.set_rate(place, rate)",
        ("training",): "call fit to train and predict to predict",
        ("trainable",): "a layer with learning_rate_factor=0 is not trained",
        ("weights", "bias"): "write into the arrays of net.parameters()",
        ("epochs", "batch_size", "callbacks"): "give it to fit",
    }.items()
    for name in names
}


class Parts(Cored):
    """Layers, loss, optimizer, threads, history; building; the summary."""

    def __setattr__(self, name: str, value: Any) -> None:
        known = name.startswith("_") or name in SETTABLE or hasattr(type(self), name)
        if not known and type(self).__module__.startswith(__package__):  # a subclass may have attributes of its own
            raise AttributeError(f"a Network has no attribute {name!r} to set{HINTS.get(name, '')}")
        object.__setattr__(self, name, value)

    @property
    def history(self) -> History:
        return core_of(self).history

    @history.setter
    def history(self, history: History) -> None:
        if not isinstance(history, History):
            raise TypeError(f"history must be a cydrop.History, got {history!r:.100} ({type(history).__name__})")
        core_of(self).history = history

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, from the input to the raw output. They cannot be changed; `set_rate` puts another rate in
        force, anything else needs another network."""
        return core_of(self).layers

    @layers.setter
    def layers(self, layers: Any) -> None:
        raise AttributeError("the layers of a network cannot be changed: make another Network, or call set_rate")

    @property
    def loss(self) -> losses.Loss:
        """The loss. Assigning another, by name or as an object, puts it in force for everything from then on; the
        optimizer keeps its moments. It cannot be assigned while `fit` runs."""
        return core_of(self).loss

    @loss.setter
    def loss(self, loss: str | losses.Loss) -> None:
        chosen = losses.resolve(loss)
        with core_of(self).turn:
            if core_of(self).turn.depth > 1:
                raise RuntimeError(
                    "the loss cannot be changed while fit runs: its targets were checked for the old one"
                )
            core_of(self).change(loss=chosen)

    @property
    def n_threads(self) -> int:
        """Threads in use. Assigning a number, or None for what the machine grants, changes the speed but no bits."""
        return core_of(self).n_threads

    @n_threads.setter
    def n_threads(self, n_threads: int | None) -> None:
        core_of(self).change(n_threads=threads.resolve(n_threads), of_machine=n_threads is None)

    @property
    def precision(self) -> str:
        """What the factors of products are rounded to, "float32" or "bfloat16". Assigning it takes effect at once, in a
        callback from the next epoch on, and keeps weights and moments; while it is another one than at `calibrate`,
        intervals and sets are refused."""
        return core_of(self).precision

    @precision.setter
    def precision(self, precision: str) -> None:
        core_of(self).change(precision=checks.precision(precision))

    def set_rate(self, place: int, rate: Rate) -> None:
        """Puts another rate of dropout, deviation of noise or drop_connect in force: in training, in prediction, in
        files and copies. `layers[place]` becomes `layers[place].with_rate(rate)`.

        The random numbers of the training steps that follow are those of a network declared with this rate. A callback
        may call it.

        Parameters
        ----------
        place : int
            Place of the layer in `layers`, counted from 0.
        rate : float or schedule
            As for the layer itself.

        Raises
        ------
        ValueError, TypeError
            For a layer that draws nothing, or a rate outside its range.
        RuntimeError
            While another thread trains.

        Examples
        --------
        >>> import cydrop as cd
        >>> net = cd.Network([cd.Dense(8), cd.Dropout(0.5), cd.Dense(2)], seed=0)
        >>> net.set_rate(1, 0.2)
        >>> net.layers[1].rate
        0.2
        """
        layers = self.layers
        place = checks.integer("place", place, 0, len(layers) - 1)
        layer = layers[place]
        if not isinstance(layer, RandomLayer):
            places = [number for number, other in enumerate(layers) if isinstance(other, RandomLayer)]
            raise ValueError(f"place={place} is {layer!r}, which has no rate; places with one are {places}")
        changed = layer.with_rate(rate)
        with core_of(self).turn:
            core_of(self).change(layers=(*self.layers[:place], changed, *self.layers[place + 1 :]))

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer. Assigning another goes on with its settings; one of another kind begins with fresh moments.

        `net.optimizer = net.optimizer.with_learning_rate(1e-4)` changes the learning rate alone. From then on the
        history has "learning_rate". A callback may assign one; while another thread trains it is a RuntimeError.
        """
        return core_of(self).optimizer

    @optimizer.setter
    def optimizer(self, optimizer: str | optimizers.Optimizer) -> None:
        core_of(self).change_optimizer(optimizers.resolve(optimizer))

    def build(self, n_features: int) -> Self:
        """Lays out the arenas and draws the weights; `fit` and the others do so themselves at first use.

        Parameters
        ----------
        n_features : int >= 1
            Columns of X.

        Returns
        -------
        Network
            itself
        """
        core_of(self).built_for(checks.integer("n_features", n_features, 1, checks.MOST_UNITS))
        return self

    def initialize(self, X: ArrayLike, *, seed: seeding.Seed = None) -> Self:
        """Initialises the parameters from data, as RealMLP does: call it before `fit`, with the rows to train on
        (Holzmüller, Grinsztajn and Steinwart 2024; the idea of going layer by layer is that of Mishkin and Matas 2016,
        the biases are those of Steinwart 2019, "he+").

        Each dense layer, the last one too, is given what the layers before it make of the rows of X, dropout off.
        Its weight is drawn from the standard normal distribution; then each unit's column is divided by the population
        standard deviation of the outputs x W, so that this becomes 1 (a unit with the same output for all rows is
        divided by the root of the number of inputs). The bias of a unit is minus a mean, with random weights, of its
        outputs x W at five random rows: its zero lies among the rows. `NumericEmbedding("piecewise_linear")` takes the
        edges of its bins from the rows. What other layers hold stays as it is, also what is inside `Members`.

        Call it before `fit`: all parameters change in one step, what was learned is lost, and the optimizer's moments
        start afresh. The same seed and rows give the same bits, on any number of threads. Of very many rows the first
        are used: at most 1 GB in any layer.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows to train on.
        seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
            None takes that of the network: a second call draws the same numbers.

        Returns
        -------
        Network
            itself

        Raises
        ------
        ValueError
            For an X that cannot be used, or whose numbers are too large to compute with: nothing has changed then.
        RuntimeError
            While another thread trains.

        Examples
        --------
        >>> import cydrop as cd
        >>> X, y, *_ = cd.datasets.load_optdigits()
        >>> layers = [cd.Dense(64, activation="selu"), cd.Dense(10)]
        >>> net = cd.Network(layers, seed=0).initialize(X)
        >>> bool(abs(net.forward(X).std(axis=0) - 1).max() < 1e-4)
        True
        """
        core = core_of(self)
        root = core.root if seed is None else tuple(int(word) for word in seeding.words(seed, 4))
        with core.turn:
            initialization.initialize(core, core.inputs(X), root)
        return self

    def summary(self) -> str:
        """A table of the layers, their output shapes and parameter counts, as text."""
        plan = core_of(self).plan
        rows = [("", "layer", "output", "parameters")]
        width: int | None = plan.n_features if plan else None
        total = 0
        if plan:
            rows.append(("", "input", f"(n, {width})", "0"))
        for place, layer in enumerate(self.layers):
            width = math.prod(plan.shapes[place + 1]) if plan else getattr(layer, "units", width)
            count = sum(p.size for p in plan.parameters if p.name.startswith(f"{place}.")) if plan else 0
            total += count
            rows.append((str(place), repr(layer), f"(n, {width or '?'})", f"{count:,}" if plan else "?"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows]
        lines.insert(1, "-" * len(lines[0]))
        known = f"{total:,} parameters" if plan else "not built yet: build(n_features) or fit counts the parameters"
        products = "" if self.precision == "float32" else f"; products of {self.precision}"
        optimizer = type(self.optimizer).__name__
        return "\n".join([*lines, f"{known}; loss {self.loss.name}; optimizer {optimizer}{products}"])

    def __repr__(self) -> str:
        optimizer = type(self.optimizer).__name__
        precision = "" if self.precision == "float32" else f", precision {self.precision!r}"
        return (
            f"<cydrop.Network of {len(self.layers)} layers, loss {self.loss.name!r}, optimizer {optimizer}{precision}>"
        )

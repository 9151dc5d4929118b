"""The network: composes layers, loss and optimizer, checks arguments and calls the engine."""

from __future__ import annotations

import math
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import callbacks as callback_module
from cydrop import losses, optimizers
from cydrop._base import checks, seeding, threads
from cydrop._base.arrays import Floats
from cydrop._core import cpu
from cydrop._core import dropout as _dropout
from cydrop._core import losses as _losses
from cydrop._core.engine import Engine, Workspace, key_of
from cydrop._run.model import Model, Snapshot
from cydrop._run.plan import Draws, Plan
from cydrop._run.rows import NO_MATRIX, Rows, checked_rows
from cydrop.errors import DivergedError
from cydrop.history import History
from cydrop.layers import Layer, RandomLayer
from cydrop.monte_carlo import Blocks, LogLikelihood, MonteCarlo, Tally, quantile_levels
from cydrop.schedules import Rate, value_at
from cydrop.xorshift import Xorshift

STRETCH_SECONDS = 0.05  # the engine comes back this often, so that Ctrl-C is answered
PREDICT_ROWS = 252  # rows of a prediction batch: their activations stay in the cache
SAMPLE_ROWS = 256  # the same with dropout on; masks are keyed by the row in a batch, so that this number is fixed
STACKED_ROWS = 128  # samples of few rows are stacked to batches of up to so many rows; fixed for the same reason
SAMPLED_BATCHES = 16  # batches of samples between two looks at the results

FEW_ROWS = 8  # a smaller workspace does for these

_NO_ORDER = np.empty(0, dtype=np.int64)

_SETTABLE = frozenset({"history", "stop_training", "training_rows"})  # attributes that callers may set
_BUSY = (
    "another thread is training this network, changing it or saving it; wait for it, or use a copy of the network "
    "(copy.deepcopy). Only predictions may go on beside a training"
)


class _Pass(NamedTuple):
    """What it takes to draw the masks of the last training forward pass again."""

    model: Model
    step: int
    rows: int
    given: list[NDArray[np.bool_] | None]
    rates: list[float]


class _Tape(NamedTuple):
    """What `backward` reads: the workspace of the last training `forward`, and its rows."""

    model: Model
    workspace: Workspace
    rows: int


class Network:
    """A feed-forward network with dropout.

    Parameters
    ----------
    layers : sequence of layers
        From the input to the raw output; the loss brings the last link (softmax, sigmoid) itself.
    loss : str or loss object
        "cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "gaussian_nll".
    optimizer : str or optimizer object
        "sgd", "rmsprop", "adagrad", "adam", "adamw".
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Source of the weights, shuffles and masks. Two networks with the same seed, data and batch size have the
        same bits, on any number of threads.
    n_threads : int or None
        None takes what the machine grants to this process.

    Attributes
    ----------
    history : History
        The epochs of all calls of `fit` so far.
    stop_training : bool
        Set by a callback, ends `fit` after the epoch.
    training_rows : int
        Rows of an epoch of the last call of `fit`, without those kept for validation; 0 before.

    Examples
    --------
    >>> import cydrop as cd
    >>> X, y, X_test, y_test = cd.datasets.load_optdigits()
    >>> net = cd.Network([cd.Dense(64), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)], seed=0)
    >>> history = net.fit(X, y, epochs=2, verbose=0)
    >>> net.predict(X_test).shape
    (1797, 10)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        loss: str | losses.Loss = "cross_entropy",
        optimizer: str | optimizers.Optimizer = "adam",
        seed: seeding.Seed = None,
        n_threads: int | None = None,
    ) -> None:
        if isinstance(layers, Layer | Set | Mapping) or not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a list of layers, got {layers!r} ({type(layers).__name__})")
        self._layers = tuple(layers)
        if not self._layers:
            raise ValueError("layers is empty: a network needs at least one layer")
        self._drawing = _drawing(self._layers)  # raises for what is not a layer
        self._loss = losses.resolve(loss)
        self._optimizer = optimizers.resolve(optimizer)
        self._n_threads = threads.resolve(n_threads)
        self._threads_of_machine = n_threads is None
        self.history = History()
        self._root = tuple(int(word) for word in seeding.words(seed, 4))
        self._epochs = 0  # finished epochs of all calls of fit: the branch of the next shuffle
        self._begin()

    def _begin(self) -> None:
        """What a network has besides its state: nothing yet."""
        self.stop_training = False
        self.training_rows = 0
        self._model: Model | None = None
        self._last: _Pass | None = None
        self._tape: _Tape | None = None
        self._snapshot: Snapshot | None = None  # memory for the state that a divergence goes back to
        self._turn = cpu.Turn(_BUSY)
        self._building = threads.ProcessLock(threading.RLock)

    def __setattr__(self, name: str, value: Any) -> None:
        known = name.startswith("_") or name in _SETTABLE or hasattr(type(self), name)
        if not known and type(self) is Network:  # a subclass may have attributes of its own
            raise AttributeError(f"a Network has no attribute {name!r} to set{_HINTS.get(name, '')}")
        if name == "history" and not isinstance(value, History):
            raise TypeError(f"history must be a cydrop.History, got {value!r:.100} ({type(value).__name__})")
        object.__setattr__(self, name, value)

    # What it is made of -----------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, from the input to the raw output. They cannot be changed; `set_rate` puts another rate in
        force, anything else takes another network."""
        return self._layers

    @layers.setter
    def layers(self, layers: Any) -> None:
        raise AttributeError("the layers of a network cannot be changed: make another Network, or call set_rate")

    @property
    def loss(self) -> losses.Loss:
        """The loss. Assigning another, by name or as an object, puts it in force for everything from then on; the
        optimizer keeps its moments. Not while `fit` runs."""
        return self._loss

    @loss.setter
    def loss(self, loss: str | losses.Loss) -> None:
        chosen = losses.resolve(loss)
        with self._turn:
            if self._turn.depth > 1:
                raise RuntimeError(
                    "the loss cannot be changed while fit runs: its targets were checked for the old one"
                )
            self._change(loss=chosen)

    @property
    def n_threads(self) -> int:
        """Threads in use. Assigning a number, or None for what the machine grants, changes the speed and no bits."""
        return self._n_threads

    @n_threads.setter
    def n_threads(self, n_threads: int | None) -> None:
        chosen = threads.resolve(n_threads)
        with self._turn:
            self._change(n_threads=chosen, of_machine=n_threads is None)

    def set_rate(self, place: int, rate: Rate) -> None:
        """Puts another rate of dropout, deviation of noise or drop_connect in force: in training, in prediction, in
        files and copies. `layers[place]` becomes `layers[place].with_rate(rate)`.

        The random numbers of the training steps that follow are those of a network declared with this rate. A callback
        may call it.

        Parameters
        ----------
        place : int
            Of the layer in `layers`, counted from 0.
        rate : float or schedule
            As for the layer itself.

        Raises
        ------
        ValueError, TypeError
            For a layer that draws nothing, or a rate out of its range.
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
        place = checks.integer("place", place, 0, len(self._layers) - 1)
        layer = self._layers[place]
        if not isinstance(layer, RandomLayer):
            places = [number for number, other in enumerate(self._layers) if isinstance(other, RandomLayer)]
            raise ValueError(f"place={place} is {layer!r}, which has no rate; places with one are {places}")
        changed = layer.with_rate(rate)
        with self._turn:
            self._change(layers=(*self._layers[:place], changed, *self._layers[place + 1 :]))

    def _change(
        self,
        *,
        layers: tuple[Layer, ...] | None = None,
        loss: losses.Loss | None = None,
        n_threads: int | None = None,
        of_machine: bool | None = None,
    ) -> None:
        """Goes on with others of these: with all that depends on them, or after an error or interrupt with none."""
        with self._building():
            state: dict[str, Any] = {
                "_layers": layers or self._layers,
                "_loss": loss or self._loss,
                "_n_threads": n_threads or self._n_threads,
                "_threads_of_machine": self._threads_of_machine if of_machine is None else of_machine,
            }
            state["_drawing"] = _drawing(state["_layers"])
            if self._model is not None:
                plan = Plan.of(state["_layers"], self._model.plan.n_features).seed(self._root)
                state["_loss"].check_units(plan.n_outputs)
                state["_model"] = self._model.with_plan(plan, state["_loss"], state["_n_threads"])
            vars(self).update(state)  # one step

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer. Assigning another goes on with its settings; one of another kind begins with fresh moments.

        `net.optimizer = net.optimizer.with_learning_rate(1e-4)` changes the learning rate alone. From then on the
        history has "learning_rate". A callback may assign one; while another thread trains it is a RuntimeError.
        """
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: str | optimizers.Optimizer) -> None:
        chosen = optimizers.resolve(optimizer)
        with self._turn, self._building():
            state: dict[str, Any] = {"_optimizer": chosen}
            if self._model is not None:
                state["_model"] = self._model.with_optimizer(chosen)
            before = self._optimizer.learning_rate
            if len(self.history) and not callable(before) and chosen.learning_rate != before:
                self.history.begin("learning_rate", before)
            vars(self).update(state)  # one step

    # Building ---------------------------------------------------------------------------------------------

    def build(self, n_features: int) -> Network:
        """Lays out the arenas and draws the weights; `fit` and the others do it by themselves at first use.

        Parameters
        ----------
        n_features : int >= 1
            Columns of X.

        Returns
        -------
        Network
            itself
        """
        self._built_for(checks.integer("n_features", n_features, 1, checks.MOST_UNITS))
        return self

    def _built_for(self, n_features: int) -> Model:
        """The model, made at the first call; threads that come first at the same time wait for one."""
        if self._model is None:
            with self._building():
                if self._model is None:
                    self._model = self._drawn_model(n_features)  # whole, or not at all
        model = self._model
        assert model is not None
        if n_features != model.plan.n_features:
            raise ValueError(f"the network was built for {model.plan.n_features} features, got {n_features}")
        return model

    def _of_width(self, n_features: int) -> Network:
        """Itself, or where it was built for other columns and has no weights that depend on them, one for these, which
        goes on with the random numbers."""
        model = self._model
        if model is None or model.plan.n_features == n_features or model.plan.arena_size or model.plan.buffer_size:
            return self
        other = Network(self._layers, loss=self._loss, optimizer=self._optimizer, seed=0, n_threads=self._n_threads)
        other._root = self._root
        other._built_for(n_features).engine.draws = model.engine.draws
        return other

    def _checked_plan(self, n_features: int) -> Plan:
        plan = self._plan or Plan.of(self._layers, n_features)
        self._loss.check_units(plan.n_outputs)
        return plan

    def _empty_model(self, plan: Plan) -> Model:
        return Model.of(plan.seed(self._root), self._loss, self._optimizer, self._n_threads)

    def _drawn_model(self, n_features: int) -> Model:
        model = self._empty_model(self._checked_plan(n_features))
        views = model.views(model.parameters)
        views |= model.running()
        for parameter in (*model.plan.parameters, *model.plan.buffers):
            parameter.fill(views[parameter.name], self._root)
        return model

    def _made(self, what: str) -> Model:
        """The model of a network that must have one."""
        if self._model is None:
            raise RuntimeError(f"{what} needs a built network: call fit or build(n_features) first")
        return self._model

    def _built(self, what: str) -> Plan:
        return self._made(what).plan

    @property
    def _plan(self) -> Plan | None:
        return None if self._model is None else self._model.plan

    @property
    def _engine(self) -> Engine:
        return self._made("the engine").ready()

    # Training ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        validation_data: tuple[Any, ...] | None = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        callbacks: Sequence[callback_module.Callback] = (),
        verbose: int | None = None,
        clean_metrics: bool = False,
    ) -> History:
        """Trains; a further call goes on from where the last ended.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            C-contiguous float32 is read in place, without a copy, through all epochs: what a callback or another thread
            writes into it meanwhile is trained on as it is found. Everything else that is given is copied first.
        y : array-like
            Labels 0..k-1, (n,), or class probabilities, (n, k), rows summing to 1, for "cross_entropy"; 0, 1 or
            probabilities between, (n,) or (n, k), for "binary_cross_entropy"; numbers, (n,) or (n, k), for the others.
        epochs : int >= 1
        batch_size : int >= 1
            The last batch of an epoch may be smaller; more than there are rows is all of them.
        validation_data : (X, y) or (X, y, sample_weight), or None
        validation_split : float in [0, 1)
            The share of rows, from the end, that is kept for validation instead.
        shuffle : bool
            Whether each epoch visits the rows in a new order.
        sample_weight : array-like, shape (n_samples,) or the shape of y, or None
            Multiplies each row's loss, or, for losses with targets of k columns, (n_samples, k), each target's; the
            mean stays over all rows or targets. A target that weighs 0 plays no part, whatever it is (a number, not
            NaN), and the metrics leave it out.
        callbacks : sequence of callbacks
        verbose : int or None
            0 is silent, 1 prints a line an epoch (a tqdm bar where tqdm is installed and a terminal is attached; of
            more than 100 epochs at most ten lines a second), None is 1 where a terminal is attached.
        clean_metrics : bool
            Whether the history also gets the loss and the metrics of the training rows after each epoch with dropout
            off, as "clean_loss", "clean_accuracy", ...: what validation values may be compared with.

        Returns
        -------
        History
            of all calls so far, also kept as `history`. "loss" is the loss as trained: dropout on, averaged while
            the weights moved. `clean_metrics` or `evaluate` gives the clean one.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments, before anything is changed.
        DivergedError
            When the loss or a parameter stops being finite; the network is as after the last finished epoch, the
            optimizer's moments begin anew.
        RuntimeError
            While another thread trains, changes or saves this network.
        KeyboardInterrupt
            After Ctrl-C, which is answered between two steps. The network is as after the last finished step and can
            be used, saved and trained further (with a new epoch); the history has the finished epochs. As after every
            error, the callbacks are told of the end first, so that `EarlyStopping` puts the best epoch back.
        """
        with self._turn:
            epochs = checks.integer("epochs", epochs, 1)
            data = self._training_data(X, y, sample_weight, batch_size)
            checks.flag("shuffle", shuffle)
            checks.flag("clean_metrics", clean_metrics)
            shown = [*callback_module.checked(callbacks), *callback_module.for_verbose(verbose)]
            self._check_schedules()
            share = checks.number("validation_split", validation_split, 0.0, 1.0, high_open=True)
            validation = None
            if validation_data is not None:
                if share:
                    raise ValueError("give validation_data or validation_split, not both")
                validation = self._validation_data(validation_data, data.X.shape[1])
            elif share:
                validation, data = data.split(share)
            self._check_batches(data)
            self._built_for(data.X.shape[1])

            self.stop_training = False
            self.training_rows = len(data.X)
            try:
                with callback_module.told(shown, self, epochs):
                    for epoch in range(epochs):
                        if self.stop_training:  # set before the first epoch, or after the last
                            break
                        metrics = self._train_epoch(data, epoch, epochs, shuffle)
                        if clean_metrics:
                            metrics |= {f"clean_{name}": value for name, value in self._evaluate(data).items()}
                        if validation is not None:
                            metrics |= {f"val_{name}": value for name, value in self._evaluate(validation).items()}
                        self._finish_epoch(metrics)
                        for callback in shown:
                            recorded = dict(metrics)
                            callback.on_epoch_end(self, self._epochs, metrics)
                            if any(recorded.get(name, self) is not value for name, value in metrics.items()):
                                self.history.amend(metrics)  # what a callback adds belongs to the epoch
            finally:
                if self._n_threads > 1:
                    cpu.rest()
            return self.history

    def _train_epoch(self, data: Rows, epoch: int, epochs: int, shuffle: bool) -> dict[str, float]:
        start = time.perf_counter()
        model = self._made("fit")
        order = _NO_ORDER
        if shuffle:
            order = Xorshift(seeding.branch(self._root, seeding.SHUFFLE, self._epochs)).permutation(len(data.X))
        batches = data.batches
        learning_rates, rates = self._schedules(
            [(epoch * batches + batch) / (epochs * batches) for batch in range(batches)] if self._scheduled() else [0.0]
        )
        total, correct = self._train_batches(model, data, order, learning_rates, rates, epoch + 1)
        metrics = {"loss": total / len(data.X)} | data.hit_rate(correct)
        if callable(self.optimizer.learning_rate) or "learning_rate" in self.history.metrics:
            metrics["learning_rate"] = float(learning_rates[-1])
        for draw, rate in zip(model.plan.draws, rates[-1], strict=True):
            if callable(draw.layer.rate_value):
                metrics[f"{draw.place}.{draw.layer.rate_name}"] = float(rate)
        metrics["seconds"] = time.perf_counter() - start
        return metrics

    def _train_batches(
        self,
        model: Model,
        data: Rows,
        order: NDArray[np.int64],
        learning_rates: NDArray[np.float64],
        rates: NDArray[np.float64],
        epoch: int,
    ) -> tuple[float, int]:
        """One pass over the rows: the sum of the losses, and how many were right.

        It ends with finite parameters, statistics and moments, whatever happens. After DivergedError they are those of
        the beginning; after an interrupt those after the last step, unless that one diverged.
        """
        engine, rows = model.ready(), len(data.X)
        workspace = model.borrow(min(data.batch_size, rows), training=True)
        if self._snapshot is None:
            self._snapshot = model.like_state()
        engine.begin_pass(*self._snapshot)
        total, correct, batch = 0.0, 0, 0
        try:
            while batch < data.batches:
                batch, loss, hits, diverged = engine.train(
                    workspace, data.X, data.labels, data.targets, data.weights, order,
                    data.batch_size, batch, learning_rates, rates, STRETCH_SECONDS,
                )  # fmt: skip
                if diverged:
                    raise DivergedError(epoch, batch + 1)
                last = min(data.batch_size, rows - (batch - 1) * data.batch_size)
                self._remember(model, last * model.passes, [], list(rates[min(batch, len(rates)) - 1]))
                total += loss
                correct += hits
        except BaseException:  # an interrupt: was the last update a good one?
            engine.end_pass()
            raise
        if not engine.end_pass():  # the last update, which no further loss tells of
            raise DivergedError(epoch, batch)
        model.give_back(workspace)
        return total, correct

    def _finish_epoch(self, metrics: dict[str, float]) -> None:
        """Counts an epoch and adds it to the history: both, or after an interrupt neither."""
        self._epochs += 1
        try:
            self.history.append(metrics)
        except BaseException:
            self._epochs -= 1
            raise

    def _scheduled(self) -> bool:
        """Whether any rate changes during training."""
        return callable(self.optimizer.learning_rate) or any(callable(layer.rate_value) for layer in self._drawing)

    def _check_schedules(self) -> None:
        """Raises for rates that leave their range somewhere in training."""
        if self._scheduled():
            self._schedules([step / 100 for step in range(101)])

    def _schedules(
        self, progress: list[float], drawing: Sequence[Draws] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Learning rates, shape (batches,), and the rates of dropout and noise, shape (batches, layers).

        `drawing`: the layers that draw, of the model that will run, where another thread may change the rates.
        """
        layers = self._drawing if drawing is None else drawing  # first: a schedule may be anybody's function
        learning_rates = [value_at("learning_rate", self.optimizer.learning_rate, p) for p in progress]
        rates = np.empty((len(progress), len(layers)))
        for column, layer in enumerate(layers):
            rates[:, column] = [layer.rate_at(p) for p in progress]
        return np.array(learning_rates, dtype=np.float64), rates

    def _clear_moments(self) -> None:
        model = self._made("moments")
        model.ready().put_back(model.parameters, model.buffers)

    @property
    def _moments(self) -> tuple[Floats, Floats]:
        return self._made("moments").moments

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, *, batch_size: int = 128, sample_weight: ArrayLike | None = None
    ) -> Network:
        """One pass over the rows, in order. Schedules stand at their beginning.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        batch_size : int >= 1

        Returns
        -------
        Network
            itself

        Raises
        ------
        DivergedError
            When the loss or the parameters stop being finite; the network is as before the call, the optimizer's
            moments begin anew.
        """
        self._pass_over(X, y, sample_weight, batch_size)
        return self

    def train_on_batch(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """One step on all rows of X.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        float
            The mean loss before the step, dropout on.

        Raises
        ------
        DivergedError
            When the loss, or the parameters after the step, are not finite; the network is as before the call, the
            optimizer's moments begin anew.
        """
        return self._pass_over(X, y, sample_weight, None)

    def _pass_over(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, batch_size: int | None) -> float:
        """One pass over the rows, in order: the mean loss."""
        with self._turn:
            data = self._training_data(X, y, sample_weight, batch_size)
            self._check_batches(data)
            model = self._built_for(data.X.shape[1])
            learning_rates, rates = self._schedules([0.0])
            total, _ = self._train_batches(model, data, _NO_ORDER, learning_rates, rates, self._epochs + 1)
            return total / len(data.X)

    def _check_batches(self, data: Rows) -> None:
        """Raises where a layer learns nothing from batches of so few rows."""
        for layer in self._layers:
            layer.check_batch(data.batch_size * (2 if self._loss.pair else 1))

    def _training_data(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, batch_size: int | None
    ) -> Rows:
        rows = checks.matrix("X", X, self._plan.n_features if self._plan else None, self.n_threads)
        size = len(rows) if batch_size is None else checks.integer("batch_size", batch_size, 1)
        units = self._checked_plan(rows.shape[1]).n_outputs
        return checked_rows(self.loss, units, rows, y, sample_weight, size)

    def _validation_data(self, given: Any, n_features: int) -> Rows:
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise ValueError("validation_data must be (X, y) or (X, y, sample_weight)")
        X = checks.matrix("validation X", given[0], n_features)
        units = self._checked_plan(n_features).n_outputs
        weights = given[2] if len(given) == 3 else None
        return checked_rows(self.loss, units, X, given[1], weights, len(X), "validation ")

    # Prediction -------------------------------------------------------------------------------------------

    def predict(self, X: ArrayLike, *, batch_size: int | None = None) -> Floats:
        """The outputs after the loss's link, dropout off.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        batch_size : int >= 1 or None
            Rows at a time; the result does not depend on it.

        Returns
        -------
        ndarray of float32, shape (n_samples, units)
            Probabilities for "cross_entropy" (rows sum to 1) and "binary_cross_entropy", means then variances for
            "gaussian_nll", the regression values otherwise.
        """
        return self._predict(self._inputs(X), True, batch_size)

    def _inputs(self, X: ArrayLike) -> Floats:
        return checks.matrix("X", X, self._plan.n_features if self._plan else None, self._n_threads)

    def _predict(self, X: Floats, link: bool, batch_size: int | None = None) -> Floats:
        rows = PREDICT_ROWS if batch_size is None else min(checks.integer("batch_size", batch_size, 1), len(X))
        if batch_size is None and len(X) <= FEW_ROWS:
            rows = FEW_ROWS
        model = self._built_for(X.shape[1])
        out = np.empty((len(X), model.plan.n_outputs), dtype=np.float32)
        workspace = model.borrow(rows)
        _set_keeps(model.plan, workspace)
        row = 0
        while row < len(X):
            row = model.engine.predict(workspace, X, out, row, link, STRETCH_SECONDS)
        model.give_back(workspace)
        return out

    def predict_mc(
        self,
        X: ArrayLike,
        samples: int = 100,
        *,
        seed: seeding.Seed = None,
        return_samples: bool = False,
        quantiles: ArrayLike | None = None,
        drop_connect: str = "masks",
        rate: float | None = None,
    ) -> MonteCarlo:
        """Monte Carlo dropout (Gal and Ghahramani 2016): predictions with dropout on, many times over.

        What lies before the first layer that draws is computed once. The threads share the samples; the result has
        the same bits on any number of them.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        samples : int >= 1
        seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
            Of the masks; the network's own random state is untouched.
        return_samples : bool
            Whether `.samples` keeps all predictions, shape (samples, n_samples, units).
        quantiles : array-like of numbers in [0, 1], or None
            Which quantiles of the samples `.quantiles` holds. Keeps all samples in memory while it computes.
        drop_connect : "masks" or "moments"
            How the weights of `Dense(drop_connect=...)` vary: dropped anew in every sample, or their layer's outputs
            drawn from normal distributions of the same mean and variance (Wan et al. 2013).
        rate : float in [0, 1] or None
            Probability of dropping in all dropout layers, instead of their own. None takes theirs; of those that are
            schedules the value at the end of training, with which the weights were last trained. Where nothing would
            drop there (dropout that fades out), the values in the middle of training, and a warning.

        Returns
        -------
        MonteCarlo
            with mean, std and, for classifiers, entropy and mutual_information.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments.

        Warns
        -----
        UserWarning
            Where nothing is drawn, so that all samples are the same and the spread is 0, which is no certainty; and
            where the rates are those of the middle of training.
        """
        checks.flag("return_samples", return_samples)
        levels = None if quantiles is None else quantile_levels(quantiles)
        model, blocks, rows = self._sampled(X, samples, seed, drop_connect, rate)
        shape = (len(rows), model.plan.n_outputs)
        keep = return_samples or levels is not None
        kept = np.empty((samples, *shape), dtype=np.float32) if keep else None
        tally = Tally(model.loss, shape, self._n_threads)
        for first, start, block in blocks:
            tally.add(first, start, block)
            if kept is not None:
                kept[first : first + len(block), start : start + block.shape[1]] = block
        return tally.result(kept if return_samples else None, kept, levels)

    def evaluate_mc(
        self,
        X: ArrayLike,
        y: ArrayLike,
        samples: int = 100,
        *,
        noise_precision: float | None = None,
        seed: seeding.Seed = None,
        drop_connect: str = "masks",
        rate: float | None = None,
    ) -> dict[str, float]:
        """How well Monte Carlo dropout predicts (Gal and Ghahramani 2016).

        Parameters
        ----------
        X, y
            As for `fit`.
        samples : int >= 1
        noise_precision : float > 0 or None
            For "mse", "mae" and "huber": the precision (1 / variance, in units of 1 / y^2) of the noise in y, without
            which there is no likelihood. "gaussian_nll" predicts its own.
        seed, drop_connect, rate
            As for `predict_mc`.

        Returns
        -------
        dict of str to float
            "log_likelihood": log of the mean over the samples of p(y | x, sample), in nats, the mean over rows; for
            regression with noise only. "accuracy" of the mean prediction for classifiers; its "rmse" and "mae" for
            regression.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments.
        """
        data = self._training_data(X, y, None, None)
        loss = data.loss
        if noise_precision is not None:
            noise_precision = checks.number("noise_precision", noise_precision, 0.0, low_open=True)
            if LogLikelihood.is_known(loss):
                raise ValueError(f"noise_precision is for regression without a predicted variance, not {loss.name}")
        model, blocks, rows = self._sampled(data.X, samples, seed, drop_connect, rate)
        if model.loss is not loss:
            raise RuntimeError("another thread has assigned another loss meanwhile, which y was not checked for")
        tally = Tally(loss, (len(rows), model.plan.n_outputs), self._n_threads)
        likelihood = LogLikelihood(loss, data, noise_precision)
        for first, start, block in blocks:
            tally.add(first, start, block)
            likelihood.add(start, block)
        return likelihood.result(samples) | tally.result(None).errors(loss, data)

    def _sampled(
        self, X: ArrayLike, samples: Any, seed: seeding.Seed, drop_connect: str, rate: float | None
    ) -> tuple[Model, Blocks, Floats]:
        """Checks the arguments; then an iterator over blocks of samples: (number of the first, first row, block)."""
        samples = checks.integer("samples", samples, 1, checks.MOST_SAMPLES)
        moments = checks.choice("drop_connect", drop_connect, {"masks": False, "moments": True})
        wish = None if rate is None else checks.rate("rate", rate)
        rows = self._inputs(X)
        model = self._built_for(rows.shape[1])
        rates = self._sampling_rates(wish, [draw.layer for draw in model.plan.draws])
        source = seeding.sequence(seed)  # last: a refused call does not advance a Generator
        return model, self._blocks(model, rows, samples, source, moments, rates), rows

    def _sampling_rates(self, rate: float | None, drawing: Sequence[Draws]) -> NDArray[np.float64]:
        """The rates of Monte Carlo samples, shape (1, layers that draw)."""
        rates = self._schedules([1.0], drawing)[1]
        if rate is not None:
            rates[0, [layer.rate_name == "rate" for layer in drawing]] = rate
        elif not rates.any():
            rates = self._schedules([0.5], drawing)[1]
            if rates.any():
                warnings.warn(
                    "dropout has faded out at the end of training: Monte Carlo samples are drawn with the rates of its "
                    "middle; give rate= for others",
                    stacklevel=4,
                )
        if not rates.any():
            what = "all rates are 0" if drawing else "no layer drops or adds noise"
            drops = any(layer.rate_name == "rate" for layer in drawing)
            warnings.warn(
                f"nothing is drawn in the Monte Carlo samples, since {what}: all are the same, and a spread of 0 is no "
                f"certainty{'; give rate= above 0' if drops else ''}",
                stacklevel=4,
            )
        return rates

    def _blocks(
        self, model: Model, rows: Floats, samples: int, source: Any, moments: bool, rates: NDArray[np.float64]
    ) -> Blocks:
        plan, engine = model.plan, model.engine
        seeds = seeding.words_of(source, 2 * len(plan.draws)).reshape(-1, 2)
        chunks = -(-len(rows) // SAMPLE_ROWS)
        # a mask of all rows, or of the weights, belongs to one sample: those cannot be stacked
        alone = any(op.shared or op.connect is not None for op in plan.ops)
        workspace = model.borrow(SAMPLE_ROWS, masked=True)
        engine.use_moments(workspace, moments)
        for chunk in range(chunks):
            start = chunk * SAMPLE_ROWS
            part = rows[start : start + SAMPLE_ROWS]
            copies = 1 if alone else max(1, STACKED_ROWS // len(part))
            engine.begin_samples(workspace, part, copies, rates)
            for first in range(0, samples, SAMPLED_BATCHES * copies):
                count = min(SAMPLED_BATCHES * copies, samples - first)
                block = np.empty((count, len(part), plan.n_outputs), dtype=np.float32)
                engine.samples(workspace, block, first // copies, chunk, chunks, seeds, True)
                yield first, start, block
        model.give_back(workspace)

    def evaluate(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """The loss and the metrics with dropout off.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        dict of str to float
            "loss"; "accuracy" for classifiers; "rmse" and "mae" for regression.
        """
        data = self._training_data(X, y, sample_weight, None)
        return self._evaluate(data)

    def _evaluate(self, data: Rows) -> dict[str, float]:
        z = self._predict(data.X, False)
        rows = len(z)
        loss, hits = _losses.loss(
            data.loss.code, data.loss.option, z, data.labels, data.targets, data.weights, NO_MATRIX,
            np.empty(rows), np.empty(rows, dtype=np.int32), self.n_threads,
        )  # fmt: skip
        metrics = {"loss": loss} | data.hit_rate(hits)
        if not isinstance(data.loss, losses.CrossEntropy | losses.BinaryCrossEntropy):
            metrics |= data.errors(z[:, : data.targets.shape[1]])
        return metrics

    # By hand ----------------------------------------------------------------------------------------------

    def forward(
        self, X: ArrayLike, *, training: bool = False, masks: Sequence[ArrayLike | None] | None = None
    ) -> Floats:
        """Raw outputs, before the loss's link.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        training : bool
            Whether dropout drops; then `backward` may follow.
        masks : sequence or None
            One entry a dropout layer (`Dropout` and `AlphaDropout`): a boolean array (True keeps) of shape
            (n_samples, units), or (units,) for a layer with shared="batch", or None for a layer that draws.

        Returns
        -------
        ndarray of float32, shape (n_samples, units)
        """
        checks.flag("training", training)
        if not training:
            if masks is not None:
                raise ValueError("masks are for training=True: without it nothing is dropped")
            return self._predict(self._inputs(X), False)
        with self._turn:
            rows = self._inputs(X)
            given = self._checked_masks(masks, self._checked_plan(rows.shape[1]), len(rows))
            model = self._built_for(rows.shape[1])
            tape, self._tape = self._tape, None  # half of a pass is none
            if tape is not None and tape.model.engine is model.engine and tape.workspace.capacity == len(rows):
                workspace = tape.workspace
            else:
                workspace = Workspace(model.engine, len(rows), True)
            workspace.take_back_masks()
            for mask, draw in zip(given, model.plan.mask_draws, strict=True):
                if mask is not None:
                    workspace.give_mask(draw.op, _packed(mask))
            rates = self._schedules([0.0])[1]
            out = np.empty((len(rows), model.plan.n_outputs), dtype=np.float32)
            model.engine.forward(workspace, rows, out, rates)
            self._remember(model, len(rows), given, list(rates[0]))
            self._tape = _Tape(model, workspace, len(rows))
            return out

    @staticmethod
    def _checked_masks(masks: Any, plan: Plan, rows: int) -> list[NDArray[np.bool_] | None]:
        draws = plan.mask_draws
        count = len(draws)
        if masks is None:
            return [None] * count
        if not isinstance(masks, list | tuple) or len(masks) != count:
            raise ValueError(
                f"masks must be a list with an entry for each of the {count} dropout layers, got "
                f"{len(masks) if isinstance(masks, list | tuple) else type(masks).__name__}"
            )
        result: list[NDArray[np.bool_] | None] = []
        for number, (mask, draw) in enumerate(zip(masks, draws, strict=True)):
            shape = plan.mask_shape(draw, rows)
            # a copy: `masks()` gives it back, whatever becomes of the caller's
            result.append(None if mask is None else checks.mask(f"masks[{number}]", mask, shape).copy())
        return result

    def backward(self, grad: ArrayLike) -> Floats:
        """Backpropagates through the last training `forward` and fills the gradients.

        Parameters
        ----------
        grad : array-like, shape (n_samples, units)
            d loss / d raw outputs.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features)
            d loss / d X.

        Raises
        ------
        RuntimeError
            Without a `forward(X, training=True)` before it.
        """
        with self._turn:
            if self._tape is None:
                raise RuntimeError("backward needs a forward(X, training=True) before it")
            model, workspace, rows = self._tape
            slope = checks.floats("grad", grad)
            if slope.shape != (rows, model.plan.n_outputs):
                raise ValueError(f"grad must have shape {(rows, model.plan.n_outputs)}, got {slope.shape}")
            dx = np.empty((rows, model.plan.n_features), dtype=np.float32)
            model.engine.backward(workspace, slope, dx)
            return dx

    def step(self) -> None:
        """Applies the optimizer to the gradients that `backward` left.

        Unlike `fit` and `train_on_batch` it does not look whether the parameters stay finite.
        """
        with self._turn:
            self._made("step").ready().apply_update(float(self._schedules([0.0])[0][0]))

    def parameters(self) -> OrderedDict[str, Floats]:
        """Views of the parameters: `"1.weight"` (inputs, units), `"1.bias"` (units,), numbered by the layer's place."""
        model = self._made("parameters")
        return model.views(model.parameters)

    def gradients(self) -> OrderedDict[str, Floats]:
        """Views of the gradients of the last `backward`, under the names of `parameters`. `fit` and the other training
        calls need not write them here: a large network's go straight to the optimizer."""
        model = self._made("gradients")
        return model.views(model.gradients)

    def buffers(self) -> OrderedDict[str, Floats]:
        """Views of what is kept but not trained: `"2.running_mean"`, `"2.running_variance"` of batch normalisation."""
        return self._made("buffers").running()

    def _arrays(self) -> dict[str, Floats]:
        """Views of what predictions depend on: parameters and running statistics, by name."""
        return self._made("arrays").arrays()

    def _take_over(self, arrays: Mapping[str, Floats]) -> None:
        """Other parameters and running statistics, by name; moments begin anew. All, or after an interrupt none."""
        with self._turn:
            model = self._made("other weights")
            fresh = model.like_state()
            for views in (model.views(fresh[0]), model.running(fresh[1])):
                for name, view in views.items():
                    view[...] = arrays[name]
            model.ready().put_back(*fresh)

    def _tensors(self) -> dict[str, Floats]:
        """Views of all arrays that training changes, under the names that files and pickles give them."""
        return {} if self._model is None else self._model.tensors()

    # Masks ------------------------------------------------------------------------------------------------

    def _remember(
        self, model: Model, rows: int, given: list[NDArray[np.bool_] | None], rates: list[float]
    ) -> None:  # fmt: skip
        """What it takes to draw the masks of the last training forward pass again."""
        vars(self)["_last"] = _Pass(model, model.engine.draws - 1, rows, given, rates)
        for layer in self._layers:
            if isinstance(layer, RandomLayer):
                vars(layer)["_owner"] = weakref.ref(self)

    def masks(self) -> list[NDArray[np.bool_]]:
        """The masks of the last training forward pass: one boolean array a dropout layer, True keeps, of shape
        (n_samples, units), or (units,) for a layer with shared="batch". With R-Drop the rows of the first pass are
        followed by those of the second.

        They are not kept but drawn again, from the seed and the number of the step.

        Raises
        ------
        RuntimeError
            Before the first training forward pass.
        """
        if self._last is None:
            raise RuntimeError("masks needs a training forward pass (fit, train_on_batch or forward) before it")
        model, step, rows, given, rates = self._last
        result = []
        for number, draw in enumerate(model.plan.mask_draws):
            mask = given[number] if given else None
            if mask is None:
                key = key_of(draw.source, step)
                mask = _drawn(key, model.plan.mask_shape(draw, rows), rates[draw.source.column])
            result.append(mask)
        return result

    def _mask_of(self, layer: Draws) -> NDArray[np.bool_] | None:
        """The last mask of a layer of this network, the last one of a layer that stands at several places."""
        if self._last is None:
            return None
        model, step, _, _, rates = self._last
        plan = model.plan
        draws = [draw for draw in plan.draws if draw.layer is layer]
        if not draws:
            return None
        if draws[-1].what == "weights":
            rate = rates[draws[-1].source.column]
            return _drawn(key_of(draws[-1].source, step), plan.mask_shape(draws[-1], 0), rate)
        found = [mask for draw, mask in zip(plan.mask_draws, self.masks(), strict=True) if draw.layer is layer]
        return found[-1] if found else None

    # Around it --------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Writes weights, architecture, optimizer state, random state and history to a safetensors file.

        The file is written beside its place and renamed: whenever the process or the machine stops, there is the old
        file or the new one, whole. A process that is killed meanwhile leaves a `.NAME.PID-….tmp` behind, which nothing
        needs. `cydrop.load(path)` gives the network back, and training goes on bit for bit. A link is followed; an
        existing file's owner, group and permissions are kept, and one that this user may not write stays as it is. A
        file that has several names (hard links), that belongs to somebody else or that is a mount point is written in
        place when the new one is finished: there a crash in the middle can leave a damaged file; an error names the
        finished one, which is kept then.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ValueError
            For what a file cannot hold, before anything is written: layers, losses, optimizers and schedules of classes
            of the user's own, rates and learning rates that are functions of the user's own or leave their range,
            layers that are not those that the network was built with, a history of other than numbers or of more than
            1,500,000 values, a description beyond 1 MB (thousands of layers); and for numbers that `load` refuses, such
            as weights that are NaN.
        OSError
            When the file cannot be written; it is named.
        """
        from cydrop import files

        with self._turn:
            files.save(self, path)

    def summary(self) -> str:
        """A table of the layers, their output shapes and parameter counts, as text."""
        plan = self._plan
        rows = [("", "layer", "output", "parameters")]
        width: int | None = plan.n_features if plan else None
        total = 0
        if plan:
            rows.append(("", "input", f"(n, {width})", "0"))
        for place, layer in enumerate(self.layers):
            width = getattr(layer, "units", width)
            count = sum(p.size for p in plan.parameters if p.name.startswith(f"{place}.")) if plan else 0
            total += count
            rows.append((str(place), repr(layer), f"(n, {width or '?'})", f"{count:,}" if plan else "?"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows]
        lines.insert(1, "-" * len(lines[0]))
        known = f"{total:,} parameters" if plan else "not built yet: build(n_features) or fit counts the parameters"
        return "\n".join([*lines, f"{known}; loss {self.loss.name}; optimizer {type(self.optimizer).__name__}"])

    def __repr__(self) -> str:
        optimizer = type(self.optimizer).__name__
        return f"<cydrop.Network of {len(self.layers)} layers, loss {self.loss.name!r}, optimizer {optimizer}>"

    def __getstate__(self) -> dict[str, Any]:
        with self._turn:
            # these names are in pickles: they stay
            state: dict[str, Any] = {
                "layers": list(self._layers),
                "loss": self._loss,
                "_optimizer": self._optimizer,
                "n_threads": self._n_threads,
                "_threads_of_machine": self._threads_of_machine,
                "history": History({name: list(values) for name, values in self.history.metrics.items()}),
                "_root": self._root,
                "_epochs": self._epochs,
            }
            if self._model is not None:
                counters = {"draws": self._engine.draws, "updates": self._engine.updates}
                built = {"n_features": self._model.plan.n_features, "tensors": self._tensors()} | counters
                state["built"] = built
            own = {name: value for name, value in vars(self).items() if name not in _NOT_STATE}
            return own | state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        built = state.pop("built", None)
        self._layers, self._loss = tuple(state.pop("layers")), state.pop("loss")
        self._drawing = _drawing(self._layers)
        wish = state.pop("n_threads")
        self._n_threads = threads.resolve(None if state["_threads_of_machine"] else wish)
        vars(self).update({name: value for name, value in state.items() if name not in _NOT_STATE})
        self._begin()
        if built is not None:
            model = self._empty_model(self._checked_plan(built["n_features"]))
            for name, view in model.tensors().items():
                view[...] = built["tensors"][name]
            model.engine.draws = built["draws"]
            model.count_updates(built["updates"])
            self._model = model


def check_network(net: Any) -> None:
    """Raises for what is no network; the argument's name is `net` wherever one is taken."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a cydrop.Network, got {net!r} ({type(net).__name__})")


# what an instance has that a pickle does not take as it is: working memory, and what it holds under other names
_NOT_STATE = frozenset({
    "_layers", "_loss", "_n_threads", "_drawing", "stop_training", "training_rows", "_model", "_last", "_tape",
    "_tape_rows", "_snapshot", "_turn", "_building",
})  # fmt: skip

_HINTS = {
    name: f"; {hint}"
    for names, hint in {
        ("learning_rate", "lr"): "assign net.optimizer = net.optimizer.with_learning_rate(...)",
        ("dropout", "rate"): "call net.set_rate(place, rate)",
        ("training", "trainable"): "call fit to train and predict to predict; all layers are trained",
        ("weights", "bias"): "write into the arrays of net.parameters()",
        ("epochs", "batch_size", "callbacks"): "give it to fit",
    }.items()
    for name in names
}


def _drawing(layers: Sequence[Layer]) -> list[Draws]:
    """The layers whose rate may change, in the order of every plan."""
    return [draw.layer for draw in Plan.of(layers, 1).draws]


def _set_keeps(plan: Plan, workspace: Workspace) -> None:
    """Vanilla dropout multiplies by 1 - rate in prediction; a scheduled rate by the one at its end."""
    for draw in plan.draws:
        if plan.ops[draw.op].vanilla:
            workspace.set_keep(draw.op, 1.0 - draw.layer.rate_at(1.0))


def _packed(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    bits = np.zeros(_dropout.words_of(mask.size), dtype=np.uint64)
    _dropout.pack(mask.reshape(-1).view(np.uint8), bits)
    return bits


def _drawn(key: tuple[int, int], shape: tuple[int, ...], rate: float) -> NDArray[np.bool_]:
    size = math.prod(shape)
    bits = np.zeros(_dropout.words_of(size), dtype=np.uint64)
    _dropout.mask(bits, size, rate, *key, 1)
    mask = np.empty(size, dtype=np.bool_)
    _dropout.unpack(bits, mask.view(np.uint8))
    return mask.reshape(shape)

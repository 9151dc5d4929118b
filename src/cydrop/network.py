"""The network: composes layers, loss and optimizer, checks arguments and calls the engine."""

from __future__ import annotations

import math
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import callbacks as callback_module
from cydrop import checks, losses, optimizers, seeding, threads
from cydrop._core import cpu
from cydrop._core import dropout as _dropout
from cydrop._core import losses as _losses
from cydrop._core.engine import Engine, Workspace
from cydrop._core.memory import aligned
from cydrop.errors import DivergedError
from cydrop.history import History
from cydrop.layers import Dense, Dropout, Layer, RandomLayer
from cydrop.monte_carlo import Blocks, LogLikelihood, MonteCarlo, Tally, quantile_levels
from cydrop.plan import Op, Parameter, Plan, make_plan
from cydrop.rows import NO_FLOATS, NO_MATRIX, Rows, checked_rows
from cydrop.schedules import value_at
from cydrop.xorshift import Xorshift

Floats = NDArray[np.float32]

STRETCH_SECONDS = 0.05  # the engine comes back this often, so that Ctrl-C is answered
PREDICT_ROWS = 252  # rows of a prediction batch: their activations stay in the cache
SAMPLE_ROWS = 256  # the same with dropout on; masks are keyed by the row in a batch, so that this number is fixed
STACKED_ROWS = 128  # samples of few rows are stacked to batches of up to so many rows; fixed for the same reason
SAMPLED_BATCHES = 16  # batches of samples between two looks at the results

FEW_ROWS = 8  # a smaller workspace does for these
KEPT_SIZES = 4  # kinds and sizes of workspaces that are kept for the next call

_NO_ORDER = np.empty(0, dtype=np.int64)


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
        if isinstance(layers, Layer) or not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a list of layers, got {layers!r} ({type(layers).__name__})")
        self.layers = list(layers)
        if not self.layers:
            raise ValueError("layers is empty: a network needs at least one layer")
        # raises for what is not a layer; those whose rate may change, in the order of every plan
        self._drawing = [draw.layer for draw in make_plan(self.layers, 1).draws]
        self.loss = losses.resolve(loss)
        self._optimizer = optimizers.resolve(optimizer)
        self.n_threads = threads.resolve(n_threads)
        self._threads_of_machine = n_threads is None
        self.history = History()
        self._root = tuple(int(word) for word in seeding.words(seed, 4))
        self._epochs = 0  # finished epochs of all calls of fit: the branch of the next shuffle
        self._begin()

    def _begin(self) -> None:
        """What a network has besides its state: nothing yet."""
        self.stop_training = False
        self.training_rows = 0
        self._plan: Plan | None = None
        self._last: tuple[int, int, list[NDArray[np.bool_] | None], list[float]] | None = None
        self._tape: Workspace | None = None
        self._idle: dict[tuple[int, bool, bool], list[Workspace]] = {}
        self._snapshot: tuple[Floats, Floats] | None = None  # parameters and buffers of the last finished epoch

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
        n_features = checks.integer("n_features", n_features, 1)
        if self._plan is not None:
            if n_features != self._plan.n_features:
                raise ValueError(f"the network was built for {self._plan.n_features} features, got {n_features}")
            return self
        plan = self._checked_plan(n_features)
        self._allocate(plan)
        self._draw_weights()
        return self

    def _checked_plan(self, n_features: int) -> Plan:
        plan = self._plan or make_plan(self.layers, n_features)
        self.loss.check_units(plan.n_outputs)
        return plan

    def _allocate(self, plan: Plan) -> None:
        shared = seeding.branch(self._root, seeding.MASKS)
        for draw in plan.draws:
            source = shared if draw.layer.seed is None else seeding.sequence(draw.layer.seed)
            key = seeding.words_of(source, 2)
            draw.source.seed = int(key[0]), int(key[1])
        self._parameters = aligned(plan.arena_size)
        self._gradients = aligned(plan.arena_size)
        self._buffers = aligned(plan.buffer_size)
        self._engine = Engine(
            plan.ops, self._parameters, self._gradients, self._buffers, self.loss.code, self.loss.option,
            self.loss.pair, self.n_threads,
        )  # fmt: skip
        self._plan = plan
        self._use_optimizer()

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer. Assigning another goes on with its settings; one of another kind begins with fresh moments.

        `net.optimizer = net.optimizer.with_learning_rate(1e-4)` changes the learning rate alone. From then on the
        history has "learning_rate".
        """
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: str | optimizers.Optimizer) -> None:
        chosen = optimizers.resolve(optimizer)
        same_kind = type(chosen) is type(self._optimizer) and chosen.used_moments() == self._optimizer.used_moments()
        before = self._optimizer.learning_rate
        if len(self.history) and not callable(before) and chosen.learning_rate != before:
            self.history.begin("learning_rate", before)
        self._optimizer = chosen
        if self._plan is not None:
            self._use_optimizer(keep_moments=same_kind)

    def _use_optimizer(self, keep_moments: bool = False) -> None:
        optimizer, size = self._optimizer, len(self._parameters)
        if not keep_moments:
            first, second = (aligned(size if used else 0) for used in optimizer.used_moments())
            self._moments = (first, second)
            self._engine.updates = 0
        self._engine.set_optimizer(
            *self._moments,
            optimizer.code,
            *optimizer.decays(),
            getattr(optimizer, "epsilon", 0.0),
            optimizer.weight_decay,
            getattr(optimizer, "nesterov", False),
            optimizer.clip_norm,
        )

    def _draw_weights(self) -> None:
        assert self._plan is not None
        views = self.parameters()
        for number, (layer, index) in enumerate(self._plan.dense_ops):
            op = self._plan.ops[index]
            views[f"{op.layers[0]}.weight"][...] = layer.initial_weight(
                op.n_in, seeding.branch(self._root, seeding.WEIGHTS, number)
            )
            if layer.bias:
                views[f"{op.layers[0]}.bias"][...] = layer.initial_bias(
                    op.n_in, seeding.branch(self._root, seeding.BIASES, number)
                )
        for op in self._plan.ops:
            if op.kind in ("layer_norm", "batch_norm"):
                views[f"{op.layers[0]}.weight"][...] = 1.0
        for name, buffer in self.buffers().items():
            buffer[...] = 1.0 if name.endswith("running_variance") else 0.0

    def _built(self, what: str) -> Plan:
        if self._plan is None:
            raise RuntimeError(f"{what} needs a built network: call fit or build(n_features) first")
        return self._plan

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
        y : array-like
            Labels 0..k-1 for "cross_entropy"; 0 or 1, (n,) or (n, k), for "binary_cross_entropy"; numbers, (n,) or
            (n, k), for the others.
        epochs : int >= 1
        batch_size : int >= 1
            The last batch of an epoch may be smaller.
        validation_data : (X, y) or (X, y, sample_weight), or None
        validation_split : float in [0, 1)
            The share of rows, from the end, that is kept for validation instead.
        shuffle : bool
            Whether each epoch visits the rows in a new order.
        sample_weight : array-like, shape (n_samples,), or None
            Multiplies each row's loss.
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
            When the loss stops being finite; the parameters are those of the last finished epoch.
        KeyboardInterrupt
            After Ctrl-C, which is answered between two steps. The network is as after the last finished step and can
            be used, saved and trained further (with a new epoch); the history has the finished epochs. As after every
            error, the callbacks are told of the end first, so that `EarlyStopping` puts the best epoch back.
        """
        epochs = checks.integer("epochs", epochs, 1)
        data = self._training_data(X, y, sample_weight, batch_size)
        checks.flag("shuffle", shuffle)
        checks.flag("clean_metrics", clean_metrics)
        shown = [*self._checked_callbacks(callbacks), *callback_module.for_verbose(verbose)]
        self._check_schedules()
        share = checks.number("validation_split", validation_split, 0.0, 1.0, high_open=True)
        validation = None
        if validation_data is not None:
            if share:
                raise ValueError("give validation_data or validation_split, not both")
            validation = self._validation_data(validation_data, data.X.shape[1])
        elif share:
            validation, data = data.split(share)
        self.build(data.X.shape[1])

        self.stop_training = False
        self.training_rows = len(data.X)
        workspace = self._borrow(min(data.batch_size, len(data.X)), training=True)
        if self._snapshot is None:
            self._snapshot = np.empty_like(self._parameters), np.empty_like(self._buffers)
        try:
            with callback_module.told(shown, self, epochs):
                for epoch in range(epochs):
                    np.copyto(self._snapshot[0], self._parameters)
                    np.copyto(self._snapshot[1], self._buffers)
                    metrics = self._train_epoch(data, workspace, epoch, epochs, shuffle)
                    if clean_metrics:
                        metrics |= {f"clean_{name}": value for name, value in self._evaluate(data).items()}
                    if validation is not None:
                        metrics |= {f"val_{name}": value for name, value in self._evaluate(validation).items()}
                    self._finish_epoch(metrics)
                    for callback in shown:
                        callback.on_epoch_end(self, self._epochs, metrics)
                    if self.stop_training:
                        break
        finally:
            self._give_back(workspace)
            if self.n_threads > 1:
                cpu.rest()
        return self.history

    def _train_epoch(
        self, data: Rows, workspace: Workspace, epoch: int, epochs: int, shuffle: bool
    ) -> dict[str, float]:
        start = time.perf_counter()
        order = _NO_ORDER
        if shuffle:
            order = Xorshift(seeding.branch(self._root, seeding.SHUFFLE, self._epochs)).permutation(len(data.X))
        batches = data.batches
        learning_rates, rates = self._schedules(
            [(epoch * batches + batch) / (epochs * batches) for batch in range(batches)] if self._scheduled() else [0.0]
        )
        rows = len(data.X)
        total, correct = 0.0, 0
        batch = 0
        while batch < batches:
            batch, loss, _, hits, diverged = self._engine.train(
                workspace, data.X, data.labels, data.targets, data.weights, order,
                data.batch_size, batch, learning_rates, rates, STRETCH_SECONDS,
            )  # fmt: skip
            if diverged:
                assert self._snapshot is not None
                np.copyto(self._parameters, self._snapshot[0])
                np.copyto(self._buffers, self._snapshot[1])
                self._clear_moments()
                raise DivergedError(epoch + 1, batch + 1)
            last = min(data.batch_size, rows - (batch - 1) * data.batch_size)
            self._remember(last * self._passes, [], list(rates[min(batch, len(rates)) - 1]))
            total += loss
            correct += hits
        metrics = {"loss": total / rows} | self._hit_rate(correct, rows)
        if callable(self.optimizer.learning_rate) or "learning_rate" in self.history.metrics:
            metrics["learning_rate"] = float(learning_rates[-1])
        for draw, rate in zip(self._built("fit").draws, rates[-1], strict=True):
            if callable(draw.layer.rate_value):
                metrics[f"{draw.place}.{draw.layer._rate_name}"] = float(rate)
        metrics["seconds"] = time.perf_counter() - start
        return metrics

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

    def _schedules(self, progress: list[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Learning rates, shape (batches,), and the rates of dropout and noise, shape (batches, layers)."""
        learning_rates = [value_at("learning_rate", self.optimizer.learning_rate, p) for p in progress]
        rates = np.empty((len(progress), len(self._drawing)))
        for column, layer in enumerate(self._drawing):
            rates[:, column] = [layer.rate_at(p) for p in progress]
        return np.array(learning_rates, dtype=np.float64), rates

    @property
    def _passes(self) -> int:
        """How often a training step passes each row: R-Drop does so twice, one behind the other."""
        return 2 if self.loss.pair else 1

    def _hit_rate(self, hits: int, rows: int) -> dict[str, float]:
        if isinstance(self.loss, losses.CrossEntropy):
            return {"accuracy": hits / rows}
        if isinstance(self.loss, losses.BinaryCrossEntropy):
            return {"accuracy": hits / (rows * self._built("accuracy").n_outputs)}
        return {}

    def _clear_moments(self) -> None:
        for moment in self._moments:
            moment[...] = 0.0
        self._engine.updates = 0

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
            When the loss stops being finite; the parameters are those before the batch.
        """
        self._pass_over(self._training_data(X, y, sample_weight, batch_size))
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
            When the loss is not finite; the parameters are left as they were.
        """
        return self._pass_over(self._training_data(X, y, sample_weight, None))

    def _pass_over(self, data: Rows) -> float:
        self.build(data.X.shape[1])
        learning_rates, rates = self._schedules([0.0])
        workspace = self._borrow(min(data.batch_size, len(data.X)), training=True)
        total, batch = 0.0, 0
        while batch < data.batches:
            batch, loss, _, _, diverged = self._engine.train(
                workspace, data.X, data.labels, data.targets, data.weights, _NO_ORDER,
                data.batch_size, batch, learning_rates, rates, STRETCH_SECONDS,
            )  # fmt: skip
            if diverged:
                self._clear_moments()
                raise DivergedError(self._epochs + 1, batch + 1)
            total += loss
        self._give_back(workspace)
        last = len(data.X) - (data.batches - 1) * data.batch_size
        self._remember(last * self._passes, [], list(rates[0]))
        return total / len(data.X)

    def _borrow(self, rows: int, training: bool = False, masked: bool = False) -> Workspace:
        """A workspace for batches of `rows` rows that nobody uses."""
        rows *= self._passes if training else 1
        try:
            return self._idle[rows, training, masked].pop()
        except (KeyError, IndexError):
            return Workspace(self._engine, rows, training, masked)

    def _give_back(self, workspace: Workspace) -> None:
        key = (workspace.capacity, workspace.training, workspace.masked)
        self._idle.setdefault(key, []).append(workspace)
        for oldest in list(self._idle)[:-KEPT_SIZES]:  # batches of ever new sizes shall not fill the memory
            self._idle.pop(oldest, None)

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

    @staticmethod
    def _checked_callbacks(given: Any) -> list[callback_module.Callback]:
        result = list(given) if isinstance(given, Iterable) else [given]
        for callback in result:
            if not isinstance(callback, callback_module.Callback):
                raise TypeError(f"callbacks must be cydrop.callbacks.Callback objects, got {callback!r}")
        return result

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
        rows = checks.matrix("X", X, self._plan.n_features if self._plan else None, self.n_threads)
        self.build(rows.shape[1])
        return rows

    def _predict(self, X: Floats, link: bool, batch_size: int | None = None) -> Floats:
        rows = PREDICT_ROWS if batch_size is None else min(checks.integer("batch_size", batch_size, 1), len(X))
        if batch_size is None and len(X) <= FEW_ROWS:
            rows = FEW_ROWS
        out = np.empty((len(X), self._built("predict").n_outputs), dtype=np.float32)
        workspace = self._borrow(rows)
        self._set_keeps(workspace)
        row = 0
        while row < len(X):
            row = self._engine.predict(workspace, X, out, row, link, STRETCH_SECONDS)
        self._give_back(workspace)
        return out

    def _set_keeps(self, workspace: Workspace) -> None:
        """Vanilla dropout multiplies by 1 - rate in prediction; a scheduled rate by the one at its end."""
        for draw in self._built("predict").draws:
            if isinstance(draw.layer, Dropout) and draw.layer.mode == "vanilla":
                workspace.set_keep(draw.op, 1.0 - draw.layer.rate_at(1.0))

    def predict_mc(
        self,
        X: ArrayLike,
        samples: int = 100,
        *,
        seed: seeding.Seed = None,
        return_samples: bool = False,
        quantiles: ArrayLike | None = None,
        drop_connect: str = "masks",
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

        Returns
        -------
        MonteCarlo
            with mean, std and, for classifiers, entropy and mutual_information.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments.
        """
        checks.flag("return_samples", return_samples)
        levels = None if quantiles is None else quantile_levels(quantiles)
        blocks, rows = self._sampled(X, samples, seed, drop_connect)
        shape = (len(rows), self._built("predict_mc").n_outputs)
        keep = return_samples or levels is not None
        kept = np.empty((samples, *shape), dtype=np.float32) if keep else None
        tally = Tally(self.loss, shape, self.n_threads)
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
        seed, drop_connect
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
        if noise_precision is not None:
            noise_precision = checks.number("noise_precision", noise_precision, 0.0, low_open=True)
            if LogLikelihood.is_known(self.loss):
                raise ValueError(
                    f"noise_precision is for regression without a predicted variance, not {self.loss.name}"
                )
        blocks, rows = self._sampled(data.X, samples, seed, drop_connect)
        tally = Tally(self.loss, (len(rows), self._built("evaluate_mc").n_outputs), self.n_threads)
        likelihood = LogLikelihood(self.loss, data, noise_precision)
        for first, start, block in blocks:
            tally.add(first, start, block)
            likelihood.add(start, block)
        return likelihood.result(samples) | tally.result(None).errors(self.loss, data)

    def _sampled(self, X: ArrayLike, samples: Any, seed: seeding.Seed, drop_connect: str) -> tuple[Blocks, Floats]:
        """Checks the arguments; then an iterator over blocks of samples: (number of the first, first row, block)."""
        samples = checks.integer("samples", samples, 1)
        moments = checks.choice("drop_connect", drop_connect, {"masks": False, "moments": True})
        source = seeding.sequence(seed)
        rows = self._inputs(X)
        return self._blocks(rows, samples, source, moments), rows

    def _blocks(self, rows: Floats, samples: int, source: Any, moments: bool) -> Blocks:
        plan = self._built("predict_mc")
        seeds = seeding.words_of(source, 2 * len(plan.draws)).reshape(-1, 2)
        rates = self._schedules([1.0])[1]
        chunks = -(-len(rows) // SAMPLE_ROWS)
        # a mask of all rows, or of the weights, belongs to one sample: those cannot be stacked
        alone = any(op.shared or op.connect is not None for op in plan.ops)
        workspace = self._borrow(SAMPLE_ROWS, masked=True)
        self._engine.use_moments(workspace, moments)
        for chunk in range(chunks):
            start = chunk * SAMPLE_ROWS
            part = rows[start : start + SAMPLE_ROWS]
            copies = 1 if alone else max(1, STACKED_ROWS // len(part))
            self._engine.begin_samples(workspace, part, copies, rates)
            for first in range(0, samples, SAMPLED_BATCHES * copies):
                count = min(SAMPLED_BATCHES * copies, samples - first)
                block = np.empty((count, len(part), plan.n_outputs), dtype=np.float32)
                self._engine.samples(workspace, block, first // copies, chunk, chunks, seeds, True)
                yield first, start, block
        self._give_back(workspace)

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
        self.build(data.X.shape[1])
        return self._evaluate(data)

    def _evaluate(self, data: Rows) -> dict[str, float]:
        z = self._predict(data.X, False)
        rows = len(z)
        loss, hits = _losses.loss(
            self.loss.code, self.loss.option, z, data.labels, data.targets, data.weights, NO_MATRIX,
            np.empty(rows), np.empty(rows, dtype=np.int32), self.n_threads,
        )  # fmt: skip
        metrics = {"loss": loss} | self._hit_rate(hits, rows)
        if not isinstance(self.loss, losses.CrossEntropy | losses.BinaryCrossEntropy):
            error = z[:, : data.targets.shape[1]].astype(np.float64) - data.targets
            metrics |= {"rmse": math.sqrt(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}
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
        rows = checks.matrix("X", X, self._plan.n_features if self._plan else None, self.n_threads)
        plan = self._checked_plan(rows.shape[1])
        given = self._checked_masks(masks, plan, len(rows))
        self.build(rows.shape[1])
        plan = self._built("forward")
        if self._tape is None or self._tape.capacity != len(rows):
            self._tape = Workspace(self._engine, len(rows), True)
        self._tape.take_back_masks()
        for mask, draw in zip(given, plan.mask_draws, strict=True):
            if mask is not None:
                self._tape.give_mask(draw.op, _packed(mask))
        rates = self._schedules([0.0])[1]
        out = np.empty((len(rows), plan.n_outputs), dtype=np.float32)
        self._engine.forward(self._tape, rows, out, rates)
        self._remember(len(rows), given, list(rates[0]))
        self._tape_rows = len(rows)
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
            shape = _mask_shape(plan.ops[draw.op], rows)
            result.append(None if mask is None else checks.mask(f"masks[{number}]", mask, shape))
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
        if self._tape is None:
            raise RuntimeError("backward needs a forward(X, training=True) before it")
        plan = self._built("backward")
        slope = checks.floats("grad", grad)
        if slope.shape != (self._tape_rows, plan.n_outputs):
            raise ValueError(f"grad must have shape {(self._tape_rows, plan.n_outputs)}, got {slope.shape}")
        dx = np.empty((self._tape_rows, plan.n_features), dtype=np.float32)
        self._engine.backward(self._tape, slope, dx)
        return dx

    def step(self) -> None:
        """Applies the optimizer to the gradients that `backward` left."""
        self._built("step")
        self._engine.apply_update(float(self._schedules([0.0])[0][0]))

    def parameters(self) -> OrderedDict[str, Floats]:
        """Views of the parameters: `"1.weight"` (inputs, units), `"1.bias"` (units,), numbered by the layer's place."""
        return self._views(self._parameters if self._plan else NO_FLOATS, "parameters")

    def gradients(self) -> OrderedDict[str, Floats]:
        """Views of the gradients of the last `backward`, under the names of `parameters`. `fit` and the other training
        calls need not write them here: a large network's go straight to the optimizer."""
        return self._views(self._gradients if self._plan else NO_FLOATS, "gradients")

    def buffers(self) -> OrderedDict[str, Floats]:
        """Views of what is kept but not trained: `"2.running_mean"`, `"2.running_variance"` of batch normalisation."""
        plan = self._built("buffers")
        return _views(self._buffers, plan.buffers)

    def _views(self, arena: Floats, what: str) -> OrderedDict[str, Floats]:
        return _views(arena, self._built(what).parameters)

    def _arrays(self) -> dict[str, Floats]:
        """Views of what predictions depend on: parameters and running statistics, by name."""
        return {**self.parameters(), **self.buffers()}

    def _tensors(self) -> dict[str, Floats]:
        """Views of all arrays that training changes, under the names that files and pickles give them."""
        if self._plan is None:
            return {}
        tensors: dict[str, Floats] = dict(self.parameters())
        for number, moment in enumerate(self._moments, 1):
            if moment.size:
                tensors |= {f"moment{number}.{name}": view for name, view in self._views(moment, "moments").items()}
        return tensors | self.buffers()

    # Masks ------------------------------------------------------------------------------------------------

    def _remember(self, rows: int, given: list[NDArray[np.bool_] | None], rates: list[float]) -> None:
        """What it takes to draw the masks of the last training forward pass again."""
        self._last = (self._engine.draws - 1, rows, given, rates)
        for layer in self.layers:
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
        step, rows, given, rates = self._last
        plan = self._built("masks")
        result = []
        for number, draw in enumerate(plan.mask_draws):
            mask = given[number] if given else None
            if mask is None:
                key = self._engine.mask_key(draw.op, step)
                mask = _drawn(key, _mask_shape(plan.ops[draw.op], rows), rates[draw.source.column])
            result.append(mask)
        return result

    def _mask_of(self, layer: RandomLayer) -> NDArray[np.bool_] | None:
        """The last mask of a layer of this network, the last one of a layer that stands at several places."""
        if self._last is None:
            return None
        plan = self._built("mask")
        step, _, _, rates = self._last
        draws = [draw for draw in plan.draws if draw.layer is layer]
        if not draws:
            return None
        if isinstance(layer, Dense):
            op = plan.ops[draws[-1].op]
            rate = rates[draws[-1].source.column]
            return _drawn(self._engine.connect_key(draws[-1].op, step), (op.n_in, op.n_out), rate)
        found = [mask for draw, mask in zip(plan.mask_draws, self.masks(), strict=True) if draw.layer is layer]
        return found[-1] if found else None

    # Around it --------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Writes weights, architecture, optimizer state, random state and history to a safetensors file.

        The file is written beside its place and renamed: whenever the process or the machine stops, there is the old
        file or the new one, whole. A process that is killed meanwhile leaves a `.NAME.PID-….tmp` behind, which nothing
        needs. `cydrop.load(path)` gives the network back, and training goes on bit for bit. A link is followed; an
        existing file's permissions are kept.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ValueError
            For what a file cannot hold, before anything is written: a rate or learning rate that is a function of the
            user's own or leaves its range, a description beyond 1 MB (thousands of layers), a history of more than
            1,500,000 values.
        OSError
            When the file cannot be written.
        """
        from cydrop import files

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
        state = {name: value for name, value in self.__dict__.items() if name not in _NOT_STATE}
        state["history"] = History({name: list(values) for name, values in self.history.metrics.items()})
        if self._plan is not None:
            counters = {"draws": self._engine.draws, "updates": self._engine.updates}
            state["built"] = {"n_features": self._plan.n_features, "tensors": self._tensors()} | counters
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        built = state.pop("built", None)
        self.__dict__.update(state)
        self.n_threads = threads.resolve(None if self._threads_of_machine else self.n_threads)
        self._begin()
        if built is not None:
            self._allocate(self._checked_plan(built["n_features"]))
            for name, view in self._tensors().items():
                view[...] = built["tensors"][name]
            self._engine.draws, self._engine.updates = built["draws"], built["updates"]


def check_network(net: Any) -> None:
    """Raises for what is no network; the argument's name is `net` wherever one is taken."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a cydrop.Network, got {net!r} ({type(net).__name__})")


# what an instance has besides its state: working memory, and arrays that the state holds by their names
_NOT_STATE = frozenset({
    "stop_training", "_plan", "_engine", "_parameters", "_gradients", "_buffers", "_moments", "_last", "_tape", "_idle",
    "_snapshot",
})  # fmt: skip


def _views(arena: Floats, parameters: Sequence[Parameter]) -> OrderedDict[str, Floats]:
    return OrderedDict((p.name, arena[p.offset : p.offset + p.size].reshape(p.shape)) for p in parameters)


def _mask_shape(op: Op, rows: int) -> tuple[int, ...]:
    return (op.n_out,) if op.shared else (rows, op.n_out)


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

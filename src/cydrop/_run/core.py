"""The core of a network: what it is made of, the model that this makes, and the order in which threads may change it.

Everything that belongs together is put in force in one step: after an error or an interrupt a core is as before, or
as it should have become.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from cydrop._base import checks, threads
from cydrop._base.arrays import Floats
from cydrop._core import cpu
from cydrop._run.beginning import Beginning
from cydrop._run.model import Model
from cydrop._run.passes import Passes
from cydrop._run.plan import Plan
from cydrop._run.rates import Rates, any_changes, check_rates, rates_at
from cydrop._run.rows import Rows, checked_rows
from cydrop._run.state import Built, State, Weights
from cydrop.losses import Loss
from cydrop.optimizers import Optimizer

_BUSY = (
    "another thread is training this network, changing it or saving it; wait for it, or use a copy of the network "
    "(copy.deepcopy). Only predictions may go on while it trains"
)


class Core:
    """A network without its face.

    Attributes
    ----------
    layers, loss, optimizer, n_threads, precision, history, root, epochs
        As in `State`.
    model : Model or None
        None before the network is built.
    calibrated : Calibrated or None
        What its intervals and sets are made from.
    passes : Passes
        The last training pass.
    beginning : Beginning
        Keeps the weights of its beginning.
    turn : Turn
        Held by the thread that trains, changes or saves.
    """

    def __init__(self, state: State) -> None:
        """Goes on from a state; tensors that were not read yet are zeros."""
        self.layers, self.loss, self.optimizer = state.layers, state.loss, state.optimizer
        self.drawing = Plan.drawing(self.layers)  # raises for what is not a layer
        self.root, self.epochs, self.history = state.root, state.epochs, state.history
        self.n_threads, self.threads_of_machine = state.n_threads, state.threads_of_machine
        self.calibrated, self.precision = state.calibrated, state.precision
        self.passes = Passes()
        self.turn = cpu.Turn(_BUSY)
        self.model: Model | None = None
        self.beginning = Beginning()
        self._planned: tuple[tuple[Any, ...], Plan] | None = None
        self._kept_rates: tuple[tuple[Any, Any], Rates] | None = None
        self._building = threads.ProcessLock(threading.RLock)
        if state.built is not None:
            self.model = self._built_from(state.built)

    def _built_from(self, built: Built) -> Model:
        model = self._empty_model(built.plan or self.plan_for(built.n_features))
        for name, view in model.tensors().items() if built.tensors is not None else ():
            view[...] = built.tensors[name]  # type: ignore[index]
        model.engine.draws = built.draws
        model.count_updates(built.updates)
        return model

    def state(self) -> State:
        """Of views of this core's own arrays."""
        built = None
        if self.model is not None:
            engine, plan = self.model.ready(), self.model.plan
            built = Built(plan.n_features, engine.draws, engine.updates, self.model.tensors(), plan)
        return State(
            self.layers, self.loss, self.optimizer, self.root, self.epochs, self.history, self.n_threads,
            self.threads_of_machine, built, self.calibrated, self.precision,
        )  # fmt: skip

    # Building ---------------------------------------------------------------------------------------------

    def plan_for(self, n_features: int) -> Plan:
        """The plan, that of the model where there is one."""
        plan = self.plan or self._planned_for(n_features)
        check_loss(self.loss, plan)
        return plan

    def _planned_for(self, n_features: int) -> Plan:
        """A plan of the layers, kept until there is a model: it is asked for several times before."""
        planned = self._planned
        if planned is None or planned[0] is not self.layers or planned[1].n_features != n_features:
            self._planned = planned = self.layers, Plan.of(self.layers, n_features)
        return planned[1]

    def built_for(self, n_features: int) -> Model:
        """The model, made at the first call; threads that come first at the same time wait for one."""
        if self.model is None:
            with self._building():
                if self.model is None:
                    self.model = self._drawn_model(n_features)  # completely, or not at all
                    self._planned = None
        model = self.model
        assert model is not None
        if n_features != model.plan.n_features:
            raise ValueError(f"the network was built for {model.plan.n_features} features, got {n_features}")
        return model

    def _empty_model(self, plan: Plan) -> Model:
        return Model.of(plan.seed(self.root), self.loss, self.optimizer, self.n_threads, self.precision)

    def _drawn_model(self, n_features: int) -> Model:
        model = self._empty_model(self.plan_for(n_features))
        self._draw(model)
        return model

    def _draw(self, model: Model) -> None:
        """First weights and running statistics."""
        views = model.arrays()
        for parameter in (*model.plan.parameters, *model.plan.buffers):
            parameter.fill(views[parameter.name], self.root)

    def made(self, what: str) -> Model:
        """The model of a network that must have one."""
        if self.model is None:
            raise RuntimeError(f"{what} needs a built network: call fit or build(n_features) first")
        return self.model

    @property
    def updates(self) -> int:
        """Of the optimizer so far."""
        return 0 if self.model is None else int(self.model.ready().updates)

    @property
    def plan(self) -> Plan | None:
        return None if self.model is None else self.model.plan

    # Changing ---------------------------------------------------------------------------------------------

    def change(
        self,
        *,
        layers: tuple[Any, ...] | None = None,
        loss: Loss | None = None,
        n_threads: int | None = None,
        of_machine: bool | None = None,
        precision: str | None = None,
    ) -> None:
        """Goes on with others of these: with all that depends on them, or after an error or interrupt with none."""
        with self.turn, self._building():
            state: dict[str, Any] = {
                "layers": layers or self.layers,
                "loss": loss or self.loss,
                "n_threads": n_threads or self.n_threads,
                "threads_of_machine": self.threads_of_machine if of_machine is None else of_machine,
                "precision": precision or self.precision,
            }
            state["drawing"] = Plan.drawing(state["layers"])
            state["calibrated"] = None if layers else self.calibrated
            if self.model is not None:
                plan = Plan.of(state["layers"], self.model.plan.n_features).seed(self.root)
                check_loss(state["loss"], plan)
                state["model"] = self.model.with_plan(plan, state["loss"], state["n_threads"], state["precision"])
            vars(self).update(state)  # one step

    def change_optimizer(self, optimizer: Optimizer) -> None:
        """Goes on with another optimizer's settings; one of another kind begins with fresh moments."""
        with self.turn, self._building():
            state: dict[str, Any] = {"optimizer": optimizer}
            if self.model is not None:
                state["model"] = self.model.with_optimizer(optimizer)
            before = self.optimizer.learning_rate
            if len(self.history) and not callable(before) and optimizer.learning_rate != before:
                self.history.begin("learning_rate", before)
            vars(self).update(state)  # one step

    def take_over(self, arrays: Mapping[str, Floats]) -> None:
        """Other parameters and running statistics, by name; moments start afresh. All or, after an interrupt, none."""
        with self.turn:
            model = self.made("other weights")
            fresh = model.weights.copy()  # the gaps between parameters as well
            views = {**model.views(fresh.parameters), **model.running(fresh.buffers)}
            for name, view in views.items():
                view[...] = arrays[name]
            self.calibrated = None
            model.ready().put_back(*fresh, False)

    def put_back(self, weights: Weights) -> None:
        """Goes on from the weights of an earlier epoch, with the moments of now."""
        self.calibrated = None
        self.made("earlier weights").ready().put_back(*weights, True)

    def clear_moments(self) -> None:
        """The optimizer's moments start afresh."""
        model = self.made("moments")
        model.ready().put_back(*model.weights, False)

    def end_pass(self, model: Model) -> bool:
        """Whether all that a pass has changed is finite; if not, it is as at the pass's beginning."""
        finite = self.beginning.end(model)
        if model.engine.lost:
            self.calibrated = None
            self._draw(model)
            raise OSError(
                "the weights of the last epoch were in a temporary file, which cannot be read any more; the network "
                "has first weights again, as if it had just been made"
            )
        return finite

    def finish_epoch(self, metrics: dict[str, float]) -> None:
        """Counts an epoch and adds it to the history: both or, after an interrupt, neither."""
        self.finish_epochs(1, {name: [value] for name, value in metrics.items()})

    def finish_epochs(self, count: int, metrics: dict[str, list[float]]) -> None:
        """The same for several, of whose metrics there is a list each."""
        self.epochs += count
        try:
            self.history.extend(metrics)
        except BaseException:
            self.epochs -= count
            raise

    # Rates and rows ---------------------------------------------------------------------------------------

    def rates(self, progress: Sequence[float]) -> Rates:
        """The rates at these points of training."""
        return rates_at(progress, self.optimizer, self.drawing)

    def first_rates(self) -> Rates:
        """The rates at the beginning of training; where none changes they are worked out once."""
        own = self.optimizer, self.drawing
        kept = self._kept_rates
        if kept is not None and kept[0][0] is own[0] and kept[0][1] is own[1]:
            return kept[1]
        found = self.rates([0.0])
        self._kept_rates = None if self.rates_change() else (own, found)
        return found

    def rates_change(self) -> bool:
        """Whether any rate changes during training."""
        return any_changes(self.optimizer, self.drawing)

    def check_rates(self) -> None:
        """Raises for rates that leave their range somewhere in training."""
        check_rates(self.optimizer, self.drawing)

    def inputs(self, X: ArrayLike, part: slice | None = None) -> Floats:
        """X of as many columns as the model takes, where there is one. What the numbers are is checked in a part of the
        rows, and nothing is read of the others."""
        model = self.model
        rows = checks.matrix("X", X, None if model is None else model.plan.n_features, self.n_threads, part)
        if part is None:
            self._check_rows("X", rows)
        else:
            start, stop, _ = part.indices(len(rows))
            self._check_rows(f"X[{start}:{stop}]", rows[start:stop])
        return rows

    def _check_rows(self, name: str, rows: Floats) -> None:
        """Raises where a layer cannot take what comes to it as it is in these rows."""
        untouched = rows.shape[1]
        for layer in self.layers:
            untouched = layer.check_rows(name, rows, untouched)
            if untouched == 0:
                return

    def rows(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        batch_size: int | None,
        part: slice | None = None,
    ) -> Rows:
        """Rows to train or to be judged on, in batches of so many, None: all at once. Of X a part is checked."""
        given = self.inputs(X, part)
        size = len(given) if batch_size is None else checks.integer("batch_size", batch_size, 1)
        return checked_rows(self.loss, self.plan_for(given.shape[1]).n_outputs, given, y, sample_weight, size)

    def validation_rows(self, given: Any, n_features: int) -> Rows:
        """(X, y) or (X, y, sample_weight) to go with training rows of so many columns."""
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise ValueError("validation_data must be (X, y) or (X, y, sample_weight)")
        X = checks.matrix("validation X", given[0], n_features)
        self._check_rows("validation X", X)
        weights = given[2] if len(given) == 3 else None
        units = self.plan_for(n_features).n_outputs
        return checked_rows(self.loss, units, X, given[1], weights, len(X), "validation ")

    def check_batches(self, batch_size: int, n_features: int, shards: int = 0) -> None:
        """Raises where a layer learns nothing from batches, or shards, of so few rows."""
        if shards and self.plan_for(n_features).trained_members:
            raise ValueError("parallel= cannot train a network with Members: its batches are not cut into shards")
        rows = max(1, batch_size // max(shards, 1))  # of the smallest shard that has any
        for layer in self.layers:
            try:
                layer.check_batch(rows * self.loss.copies)
            except ValueError as error:
                if shards < 2:
                    raise
                raise ValueError(f"{batch_size} rows in {shards} shards, which count as batches: {error}") from None

    def check_learning(self, n_features: int) -> None:
        """Raises where a rate is learned, and nobody says how many rows there are to train on."""
        plan = self.plan_for(n_features)
        for draw in plan.learned:
            if not plan.ops[draw.op].prior[2]:
                raise ValueError(
                    f"layers[{draw.place}] learns its rate, for which all but fit need to know how many rows there are "
                    'to train on: Dropout("learn", rows=...)'
                )


def check_loss(loss: Loss, plan: Plan) -> None:
    """Raises where a loss does not go with what a plan gives."""
    loss.check_units(plan.n_outputs)
    if plan.members and loss.copies > 1:
        what = f"{loss!r} passes each row twice, which a network with Members or Masksembles cannot"
        raise ValueError(f"{what}: take r_drop=0")


class Cored:
    """Base of what has a core: the face of a network."""

    _core: Core


def core_of(network: Cored) -> Core:
    """For modules that look behind the face of a network."""
    return network._core

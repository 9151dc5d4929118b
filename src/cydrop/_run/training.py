"""Training: epochs, passes over the rows, and what happens when a pass diverges or is interrupted.

    fit            check -> build -> Trainer.epoch, Trainer.epoch, ...
    epoch          order, rates -> pass -> metrics -> history
    pass           the engine trains for a stretch of time, comes back so that Ctrl-C is answered, and goes on

A `Trainer` is the seam for other ways of training: over several processes, or many networks at once. It is given a core
and rows that were checked, and must leave the core as after a whole number of steps, whatever happens.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cydrop._base import seeding
from cydrop._run.chunks import Ahead, shuffled
from cydrop._run.core import Core
from cydrop._run.prediction import STRETCH_SECONDS, evaluate
from cydrop._run.rates import Rates
from cydrop._run.rows import NO_ORDER, Rows
from cydrop._run.team import ALONE, Team
from cydrop.errors import DivergedError
from cydrop.xorshift import Xorshift


@dataclass(eq=False, frozen=True, repr=False)
class Job:
    """What a call of `fit` asks for, checked."""

    data: Rows
    validation: Rows | None
    epochs: int
    shuffle: bool
    clean_metrics: bool
    drop_last: bool = False  # whether an epoch leaves out the rows that fill no batch
    shards: int = 0  # that each batch is cut into, 0: it is not
    batch_size: int = 0  # as it was asked for: it may be more than the rows
    by_chunks: bool = False  # whether rows are shuffled as it is good for a file

    @property
    def rows(self) -> int:
        """Rows that an epoch trains on."""
        rows = len(self.data.X)
        return rows - rows % self.data.batch_size if self.drop_last else rows


class Trainer:
    """Trains in this process."""

    team: Team = ALONE

    def epoch(self, core: Core, job: Job, epoch: int) -> dict[str, float]:
        """Epoch number `epoch` of the job, from 0: its metrics, which are in the history then."""
        start = time.perf_counter()
        data = job.data
        with self.team.together():
            rows, batches = self.extent(job)
            order = self.order(core, job)
            steps = range(epoch * batches, (epoch + 1) * batches) if core.rates_change() else range(1)
            rates = core.rates([step / (job.epochs * batches) for step in steps])
        total, correct = self.train_pass(core, data, order, rates, epoch + 1, job.shards, self.rows_of(job))
        metrics = {"loss": total / rows} | self.hit_rate(data, correct, order, rows)
        if callable(core.optimizer.learning_rate) or "learning_rate" in core.history.metrics:
            metrics["learning_rate"] = float(rates.learning[-1])
        if callable(core.optimizer.weight_decay):
            metrics["weight_decay"] = float(rates.decay[-1])
        model = core.made("fit")
        for draw, rate in zip(model.plan.draws, rates.drawing[-1], strict=True):
            if callable(draw.layer.rate_value):
                metrics[f"{draw.place}.{draw.layer.rate_name}"] = float(rate)
        metrics["seconds"] = self.team.of_first(time.perf_counter() - start)
        if job.clean_metrics:
            found = evaluate(model, data, core.n_threads, self.team)
            metrics |= {f"clean_{name}": value for name, value in found.items()}
        if job.validation is not None:
            found = evaluate(model, job.validation, core.n_threads, self.team)
            metrics |= {f"val_{name}": value for name, value in found.items()}
        with self.team.together():
            core.finish_epoch(metrics)
        return metrics

    def begin(self, core: Core, job: Job) -> None:
        """Before the first epoch."""

    def rows_of(self, job: Job) -> int:
        """All rows that the job has to train on."""
        return len(job.data.X)

    def extent(self, job: Job) -> tuple[int, int]:
        """Rows and batches of an epoch."""
        return job.rows, job.data.batches_of(job.rows)

    def order(self, core: Core, job: Job) -> NDArray[np.int64]:
        """The rows of the coming epoch in their order; empty: as they are. Where each of many members has an order of
        its own, all of these, one after another."""
        rows, plan = len(job.data.X), core.made("fit").plan
        if job.shuffle:
            members = [(number,) for number in range(plan.members)] if plan.own_orders else [()]
            orders = []
            for member in members:
                rng = Xorshift(seeding.branch(core.root, seeding.SHUFFLE, core.epochs, *member))
                orders.append(shuffled(job.data.X, rng, job.by_chunks)[: job.rows])
            return np.concatenate(orders) if len(orders) > 1 else orders[0]
        return np.tile(np.arange(job.rows, dtype=np.int64), plan.orders) if job.rows < rows else NO_ORDER

    def hit_rate(self, data: Rows, correct: float, order: NDArray[np.int64], rows: int) -> dict[str, float]:
        """The accuracy of an epoch's rows, where the loss counts."""
        return data.hit_rate(correct, order)

    def stops(self, core: Core, wish: bool) -> bool:
        """Whether training ends here, which a callback may wish."""
        return wish

    def train_pass(
        self,
        core: Core,
        data: Rows,
        order: NDArray[np.int64],
        rates: Rates,
        epoch: int,
        shards: int = 0,
        there: int = 0,
    ) -> tuple[float, float]:
        """One pass over the rows, in this order (empty: as they are): the sum of the losses, and how many were right.
        Of many members it is the mean of their losses; where each has an order, how many were right in these. `there`:
        all rows to train on, 0: unknown.

        It ends with finite parameters, statistics and moments, whatever happens. After DivergedError they are those of
        the beginning; after an interrupt those after the last step, unless that one diverged.
        """
        model = core.made("training")
        engine, rows = model.ready(), len(order) // model.plan.orders or len(data.X)
        workspace = model.borrow(min(data.batch_size, rows), training=True, shards=shards)
        engine.train_on(there)
        total, correct, batch = 0.0, 0, 0
        ahead = Ahead(data.X, data.targets, order=order[:rows])
        core.beginning.begin(model, rows, core.n_threads)
        try:
            while batch < data.batches_of(rows):
                ahead.reached(batch * data.batch_size)
                batch, total, hits, diverged = engine.train(
                    workspace, data.X, data.labels, data.targets, data.weights, order, data.batch_size, batch,
                    rates.learning, rates.decay, rates.drawing, STRETCH_SECONDS, shards, total,
                )  # fmt: skip
                if diverged:
                    raise DivergedError(epoch, batch + 1)
                last = min(data.batch_size, rows - (batch - 1) * data.batch_size)
                in_force = rates.drawing[min(batch, len(rates.drawing)) - 1]
                core.passes.remember(model, last * model.loss.copies, (), list(in_force))
                correct += hits
            if not core.end_pass(model):  # the last update, which no further loss tells of
                raise DivergedError(epoch, batch)
        except BaseException:  # an interrupt: was the last update a good one?
            core.end_pass(model)
            raise
        model.give_back(workspace)
        if model.plan.trained_members and (not model.plan.own_orders or not len(order)):
            return total, correct / model.plan.trained_members  # each row was counted once for each member
        return total, correct

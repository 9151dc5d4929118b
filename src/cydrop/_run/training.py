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
    by_chunks: bool = False  # whether rows are shuffled as it is good for a file

    @property
    def rows(self) -> int:
        """Rows that an epoch trains on."""
        rows = len(self.data.X)
        return rows - rows % self.data.batch_size if self.drop_last else rows


class Trainer:
    """Trains in this process."""

    def epoch(self, core: Core, job: Job, epoch: int) -> dict[str, float]:
        """Epoch number `epoch` of the job, from 0: its metrics, which are in the history then."""
        start = time.perf_counter()
        data, rows = job.data, job.rows
        batches = data.batches_of(rows)
        order = NO_ORDER
        if job.shuffle:
            rng = Xorshift(seeding.branch(core.root, seeding.SHUFFLE, core.epochs))
            order = shuffled(data.X, rng, job.by_chunks)[:rows]
        elif rows < len(data.X):
            order = np.arange(rows)
        steps = range(epoch * batches, (epoch + 1) * batches) if core.rates_change() else range(1)
        rates = core.rates([step / (job.epochs * batches) for step in steps])
        total, correct = self.train_pass(core, data, order, rates, epoch + 1)
        metrics = {"loss": total / rows} | data.hit_rate(correct, order)
        if callable(core.optimizer.learning_rate) or "learning_rate" in core.history.metrics:
            metrics["learning_rate"] = float(rates.learning[-1])
        if callable(core.optimizer.weight_decay):
            metrics["weight_decay"] = float(rates.decay[-1])
        model = core.made("fit")
        for draw, rate in zip(model.plan.draws, rates.drawing[-1], strict=True):
            if callable(draw.layer.rate_value):
                metrics[f"{draw.place}.{draw.layer.rate_name}"] = float(rate)
        metrics["seconds"] = time.perf_counter() - start
        if job.clean_metrics:
            metrics |= {f"clean_{name}": value for name, value in evaluate(model, data, core.n_threads).items()}
        if job.validation is not None:
            found = evaluate(model, job.validation, core.n_threads)
            metrics |= {f"val_{name}": value for name, value in found.items()}
        core.finish_epoch(metrics)
        return metrics

    def train_pass(
        self, core: Core, data: Rows, order: NDArray[np.int64], rates: Rates, epoch: int
    ) -> tuple[float, int]:
        """One pass over the rows, in this order (empty: as they are): the sum of the losses, and how many were right.

        It ends with finite parameters, statistics and moments, whatever happens. After DivergedError they are those of
        the beginning; after an interrupt those after the last step, unless that one diverged.
        """
        model = core.made("training")
        engine, rows = model.ready(), len(order) or len(data.X)
        workspace = model.borrow(min(data.batch_size, rows), training=True)
        engine.begin_pass(*core.snapshot_of(model))
        total, correct, batch = 0.0, 0, 0
        ahead = Ahead(data.X, data.targets, order=order)
        try:
            while batch < data.batches_of(rows):
                ahead.reached(batch * data.batch_size)
                batch, loss, hits, diverged = engine.train(
                    workspace, data.X, data.labels, data.targets, data.weights, order,
                    data.batch_size, batch, rates.learning, rates.decay, rates.drawing, STRETCH_SECONDS,
                )  # fmt: skip
                if diverged:
                    raise DivergedError(epoch, batch + 1)
                last = min(data.batch_size, rows - (batch - 1) * data.batch_size)
                in_force = rates.drawing[min(batch, len(rates.drawing)) - 1]
                core.passes.remember(model, last * model.loss.copies, (), list(in_force))
                total += loss
                correct += hits
        except BaseException:  # an interrupt: was the last update a good one?
            engine.end_pass()
            raise
        if not engine.end_pass():  # the last update, which no further loss tells of
            raise DivergedError(epoch, batch)
        model.give_back(workspace)
        return total, correct

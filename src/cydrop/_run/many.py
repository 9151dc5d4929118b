"""Many networks at once: one thread a network, and no Python between two networks or two epochs of one.

    OneOfMany        a core with its rows, and where its training stands           _core.many.Training
    train            stretch, stretch, ... until every network is where it should pause
    train_halving    the best third (half, ...) of the networks goes on to three times (twice, ...) the epochs, ...

What comes out of each is what `fit` alone gives, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base import seeding
from cydrop._base.arrays import Floats
from cydrop._core import many
from cydrop._core.losses import VERDICTS
from cydrop._run.core import Core
from cydrop._run.prediction import STRETCH_SECONDS
from cydrop._run.rates import Rates
from cydrop._run.rows import NO_FLOATS, NO_LABELS, Rows
from cydrop.errors import DivergedError
from cydrop.losses import Loss
from cydrop.xorshift import Xorshift

MONITORS = many.SCORES[:-1]  # the last is for a `Judge`


@dataclass(eq=False, frozen=True, repr=False)
class Judge:
    """By what held-out rows judge a network, where it is not by one of the usual metrics.

    Attributes
    ----------
    kind : str
        "share_wrong" or "root_mean_square" (`_core.judging`), or "loss".
    loss : Loss or None
        For "loss": of the kind that the network is trained with, but with other options.
    low, high : ndarray of float32, or None
        What predictions are clamped to for "root_mean_square", one a unit; None: they are not.
    name : str
        Of the metric in the history.
    """

    kind: str
    loss: Loss | None = None
    low: Floats | None = None
    high: Floats | None = None
    name: str = "val_error"


@dataclass(eq=False, frozen=True, repr=False)
class ManyJob:
    """What is asked for of one network, checked.

    Attributes
    ----------
    data, held : Rows, Rows or None
        What the rows are taken from; all networks may have the same.
    rows, held_rows : ndarray of int64
        Which of them, empty: all.
    monitor : str
        One of MONITORS: by what an epoch is the best, and a network better than another.
    ties : "first" or "last"
        Which of equally good epochs is the best one.
    judge : Judge or None
        Instead of `monitor`.
    """

    data: Rows
    held: Rows | None
    rows: NDArray[np.int64]
    held_rows: NDArray[np.int64]
    epochs: int
    batch_size: int
    patience: int | None = None
    restore_best: bool = True
    monitor: str = "val_loss"
    ties: str = "first"
    drop_last: bool = False
    judge: Judge | None = None

    # asked for again and again, of thousands of networks: worked out once

    @cached_property
    def n_rows(self) -> int:
        return len(self.rows) or len(self.data.X)

    @cached_property
    def full_batch(self) -> int:
        """Rows of every batch but the last one of an epoch."""
        return min(self.batch_size, self.n_rows)

    @cached_property
    def epoch_rows(self) -> int:
        """Rows that an epoch trains on."""
        return self.n_rows - self.n_rows % self.full_batch if self.drop_last else self.n_rows

    @cached_property
    def batches(self) -> int:
        """Of an epoch."""
        return -(-self.epoch_rows // self.full_batch)


class OneOfMany:
    """One network that is trained beside others.

    Parameters
    ----------
    core : Core
        Built; its turn is this thread's.
    job : ManyJob
    rates : Rates or None
        For all its batches, where somebody has worked them out for it.

    Attributes
    ----------
    goal : int
        Epochs after which it pauses.
    by_epochs : bool
        Whether it pauses after each, so that somebody can be told.
    stopped : bool
        Whether somebody has ended its training.
    rates : Rates
    epochs_before : int
        Of the network, of earlier calls.
    """

    def __init__(self, core: Core, job: ManyJob, rates: Rates | None = None) -> None:
        self.core, self.job = core, job
        self.epochs_before, self._told = core.epochs, 0
        self._diverged: DivergedError | None = None
        self.goal, self.by_epochs, self.stopped = job.epochs, False, False
        self.training = self._begun(rates)

    def _begun(self, rates: Rates | None = None) -> many.Training:
        """The training of the core as it is now."""
        core, job = self.core, self.job
        self._model = model = core.made("fit_many")
        steps = range(job.epochs * job.batches) if core.rates_change() else range(1)
        self.rates = rates or core.rates([step / (job.epochs * job.batches) for step in steps])
        self._in_force = core.optimizer
        judge = job.judge or Judge("loss")
        loss = judge.loss or job.data.loss
        monitor = job.monitor if job.judge is None else "val_loss" if judge.kind == "loss" else "verdict"
        verdict = -1 if judge.kind == "loss" else VERDICTS.index(judge.kind)
        clamp = (NO_FLOATS, NO_FLOATS) if judge.low is None or judge.high is None else (judge.low, judge.high)
        kept = model.plan.vanilla_draws
        model.ready().train_on(job.n_rows)
        return many.Training(
            model.ready(), _arrays(job.data), None if job.held is None else _arrays(job.held), job.rows,
            job.held_rows, job.epoch_rows, job.full_batch, *self.rates,
            np.array(core.root, dtype=np.uint64), seeding.SHUFFLE, self.epochs_before,
            np.array([draw.op for draw in kept], dtype=np.int32) if kept else NO_LABELS,
            np.array([1.0 - draw.layer.rate_at(1.0) for draw in kept], dtype=np.float32) if kept else NO_FLOATS,
            bool(job.data.hit_rate(0)), loss.option, verdict, *clamp, many.SCORES.index(monitor),
            job.ties == "last", job.patience or 0, job.restore_best, job.epochs,
        )  # fmt: skip

    def renew_if_changed(self) -> None:
        """Goes on with another optimizer, rates or loss, where there are any."""
        if self.core.model is not self._model or self.core.optimizer is not self._in_force:
            before = self.training
            self.training = self._begun()
            self.training.go_on_from(before.state())

    def busy(self) -> bool:
        """Whether there is something to do, for which it is made ready."""
        training = self.training
        training.limit = min(self.goal, training.epoch + 1) if self.by_epochs else self.goal
        return not (self.stopped or training.pauses)

    @property
    def done(self) -> bool:
        """Whether it has ended for good, as far as it can know."""
        return self.stopped or self.training.ended != "goes on" or self.training.epoch == self.job.epochs

    @property
    def size(self) -> int:
        """Bytes of all that its training changes, about."""
        arena = self._model.plan.arena_size
        return 4 * (arena * (2 if self.job.restore_best else 1) + sum(len(moment) for moment in self._model.moments))

    @property
    def diverged(self) -> DivergedError | None:
        """Where it diverged, if it did."""
        if self._diverged is None and self.training.ended == "diverged":
            batch = min(self.training.batch + 1, self.job.batches)
            self._diverged = DivergedError(self.epochs_before + self.training.epoch + 1, batch)
        return self._diverged

    @property
    def score(self) -> float:
        """The best so far, or, where the best epoch is not put back, the last; less is better."""
        if self.job.restore_best:
            return self.training.best[0]
        done = self.training.epoch
        last = float(self.training.record[done - 1, many.RECORD.index("score")]) if done else np.inf
        return last if last == last else np.inf

    def tell(self) -> list[dict[str, float]]:
        """Puts the epochs that have ended since into the history, and returns their metrics."""
        columns = self._write()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _write(self) -> dict[str, list[float]]:
        """Puts the epochs that have ended since into the history: their metrics, a list each."""
        told, done = self._told, self.training.epoch
        if told == done:
            return {}
        columns = self._metrics(told, done)
        self.core.finish_epochs(done - told, columns)
        self._told = done
        return columns

    def _metrics(self, first: int, stop: int) -> dict[str, list[float]]:
        """Of some epochs, counted from 0, as `fit` has them."""
        core, job = self.core, self.job
        record = dict(zip(many.RECORD, self.training.record[first:stop].T, strict=True))
        metrics = {"loss": (record["loss"] / job.epoch_rows).tolist()}
        metrics |= self._hit_rates(first, record["correct"].tolist())
        last = slice((first + 1) * job.batches - 1, stop * job.batches, job.batches)  # batches of the epochs
        rates = [array[last] if len(array) > 1 else array.repeat(stop - first, axis=0) for array in self.rates]
        if callable(core.optimizer.learning_rate) or "learning_rate" in core.history.metrics:
            metrics["learning_rate"] = rates[0].tolist()
        if callable(core.optimizer.weight_decay):
            metrics["weight_decay"] = rates[1].tolist()
        for draw, column in zip(self._model.plan.draws, rates[2].T, strict=True):
            if callable(draw.layer.rate_value):
                metrics[f"{draw.place}.{draw.layer.rate_name}"] = column.tolist()
        metrics["seconds"] = record["seconds"].tolist()
        if job.judge is not None:
            metrics[job.judge.name] = record["score"].tolist()
        elif job.held is not None:
            metrics["val_loss"] = record["val_loss"].tolist()
            found = job.held.hit_rates(record["val_correct"].tolist(), job.held_rows)
            if not found:
                sums = zip(*(record[name] for name in ("val_targets", "val_squares", "val_magnitudes")), strict=True)
                each = [job.held.loss.metrics_of(np.array(of_epoch)) for of_epoch in sums]
                found = {name: [of_epoch[name] for of_epoch in each] for name in each[0]}
            metrics |= {f"val_{name}": column for name, column in found.items()}
        return metrics

    def _hit_rates(self, first: int, correct: list[float]) -> dict[str, list[float]]:
        """The accuracies of epochs, from the first of them on."""
        job, plan = self.job, self._model.plan
        if plan.trained_members and not plan.own_orders:
            correct = [hits / plan.trained_members for hits in correct]  # each row was counted once for each member
        if plan.orders == 1 and job.epoch_rows == job.n_rows:
            return job.data.hit_rates(correct, job.rows)
        rows = job.rows if len(job.rows) else np.arange(job.n_rows, dtype=np.int64)
        if job.epoch_rows == job.n_rows or job.data.counted is None:
            trained = rows[: job.epoch_rows]
            return job.data.hit_rates(correct, trained if plan.orders == 1 else np.tile(trained, plan.orders))
        found: dict[str, list[float]] = {}
        for epoch, hits in enumerate(correct, self.epochs_before + first):  # some rows were left out: it counts which
            paths = [(member,) for member in range(plan.orders)] if plan.own_orders else [()]
            seeds = [seeding.branch(self.core.root, seeding.SHUFFLE, epoch, *path) for path in paths]
            orders = [rows[Xorshift(seed).permutation(job.n_rows)[: job.epoch_rows]] for seed in seeds]
            for name, rate in job.data.hit_rate(hits, np.concatenate(orders)).items():
                found.setdefault(name, []).append(rate)
        return found

    def finish(self) -> None:
        """Ends training, wherever it stands: the history is whole, and the best epoch is put back."""
        self.training.finish()
        self._write()
        self.core.history.diverged = self.diverged
        step = self.training.epoch * self.job.batches + self.training.batch - 1
        if step < 0:
            return
        rates = self.rates.drawing[step if len(self.rates.drawing) > 1 else 0]
        size, batch = self.job.full_batch, step % self.job.batches
        last = min(size, self.job.epoch_rows - batch * size)
        self.core.passes.remember(self._model, last * self._model.loss.copies, (), list(rates))


def _arrays(rows: Rows) -> tuple[Any, ...]:
    return rows.X, rows.labels, rows.targets, rows.weights


Tell = Callable[[Sequence[OneOfMany]], None]  # what becomes of the networks, after every stretch


def train(members: Sequence[OneOfMany], n_threads: int, tell: Tell) -> None:
    """Trains networks until all of them pause; `tell` may let some go on."""
    while busy := [member for member in members if member.busy()]:
        many.train([member.training for member in busy], n_threads, STRETCH_SECONDS)
        tell(busy)


Run = Callable[[Sequence[OneOfMany], int, Tell], None]  # `train`, or what does its work elsewhere


def train_halving(
    groups: Sequence[Sequence[OneOfMany]], ladder: Sequence[tuple[int, int]], n_threads: int, tell: Tell,
    run: Run = train,
) -> list[int]:  # fmt: skip
    """Successive halving by epochs (Jamieson and Talwalkar 2016): which of the groups went on to the end.

    A group is one network, or those of one configuration on several folds: the mean of their scores counts. `ladder`
    has the rungs: epochs, and how many groups go on after them. Equally good ones go on in their order.
    """
    left = list(range(len(groups)))
    for rung, survivors in ladder:
        going = [member for place in left for member in groups[place]]
        for member in going:
            member.goal = min(rung, member.job.epochs)
        run(going, n_threads, tell)
        scores = {place: sum(member.score for member in groups[place]) / len(groups[place]) for place in left}
        left = sorted(sorted(left, key=lambda place: (scores[place], place))[:survivors])
    return left


def rungs(count: int, epochs: int, eta: int) -> list[tuple[int, int]]:
    """(epochs, how many go on after them) for each rung; after the last one all that are there."""
    steps = 0
    while eta ** (steps + 1) <= count and eta ** (steps + 1) <= epochs:
        steps += 1
    found = []
    for step in range(steps + 1):
        share = eta ** (steps - step)
        found.append((-(-epochs // share), max(1, count // eta ** (step + 1)) if step < steps else count))
    return found


def finish_all(members: Sequence[OneOfMany]) -> None:
    """Every network is whole, even if Ctrl-C comes once more meanwhile."""
    left, interrupt = list(members), None
    while left:
        try:
            while left:
                left[-1].finish()
                left.pop()
        except KeyboardInterrupt as again:
            interrupt = again
    if interrupt is not None:
        raise interrupt

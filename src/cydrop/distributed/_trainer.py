"""Trains on the ranks of a communicator, with the bits of one process.

    step    this rank's shards: loss, gradient -> signal -> slices -> update of a slice -> weights

The optimizer's moments are where their slice is updated, and are gathered after each epoch and before an error leaves:
whoever looks at a network finds it whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cydrop._base import seeding
from cydrop._run.chunks import Ahead, shuffled
from cydrop._run.core import Core
from cydrop._run.model import Model
from cydrop._run.rates import Rates
from cydrop._run.rows import NO_ORDER, Rows
from cydrop._run.training import Job, Trainer
from cydrop.distributed import _facts
from cydrop.distributed._exchange import Exchange
from cydrop.distributed._ranks import MOMENTS, STEP, Ranks
from cydrop.errors import DivergedError
from cydrop.xorshift import Xorshift


def tree_sum(parts: Sequence[float]) -> float:
    """((p0 + p1) + (p2 + p3)) + ..., of a power of two of parts."""
    half = len(parts) // 2
    return tree_sum(parts[:half]) + tree_sum(parts[half:]) if half else parts[0]


class RankTrainer(Trainer):
    """Trains with the other ranks."""

    def __init__(self, ranks: Ranks, shards: int) -> None:
        self.ranks = self.team = ranks
        self.shards = shards
        self.first = ranks.rank * shards // ranks.size
        self.count = shards // ranks.size

    def begin(self, core: Core, job: Job) -> None:
        self.ranks.prepare(core)
        with self.ranks.together():
            found = _facts.of_job(core, job, self.shards, self.ranks.partitioned)
        self.ranks.check_same(found)
        there = len(job.data.X)
        total = sum(self.ranks.of_all(there)) if self.ranks.partitioned else there
        self._total, self._batch_size = total, min(job.batch_size, total)
        if self.ranks.partitioned and self._batch_size < self.ranks.size:
            raise ValueError(
                f"batch_size={self._batch_size} has no rows for some of the {self.ranks.size} ranks, whose rows would "
                "never be trained on; with data='partitioned' give at least one row for each rank"
            )
        self._rows = total - total % self._batch_size if job.drop_last else total
        self._batches = -(-self._rows // self._batch_size)

    def epoch(self, core: Core, job: Job, epoch: int) -> dict[str, float]:
        try:
            return super().epoch(core, job, epoch)
        except BaseException as error:
            self.ranks.tell(error)
            raise

    def rows_of(self, job: Job) -> int:
        return self._total

    def extent(self, job: Job) -> tuple[int, int]:
        return self._rows, self._batches

    def order(self, core: Core, job: Job) -> NDArray[np.int64]:
        if not self.ranks.partitioned:
            return super().order(core, job)
        wanted = sum(len(range(*self._own(self._rows_of(batch)))) for batch in range(self._batches))
        laps, there = [NO_ORDER], len(job.data.X)
        for lap in range(-(-wanted // there)):  # a part that is smaller than others begins again
            key = seeding.branch(core.root, seeding.SHUFFLE, core.epochs, self.ranks.rank, lap)
            in_order = np.arange(there, dtype=np.int64)
            laps.append(shuffled(job.data.X, Xorshift(key), job.by_chunks) if job.shuffle else in_order)
        return np.concatenate(laps)[:wanted]

    def _rows_of(self, batch: int) -> int:
        """Rows of a whole batch."""
        return min(self._batch_size, self._rows - batch * self._batch_size)

    def _own(self, rows: int) -> tuple[int, int]:
        """Which of so many rows of a batch are this rank's."""
        return self.first * rows // self.shards, (self.first + self.count) * rows // self.shards

    def hit_rate(self, data: Rows, correct: float, order: NDArray[np.int64], rows: int) -> dict[str, float]:
        if not self.ranks.partitioned:
            return data.hit_rate(correct, order)
        counted = data.counted
        targets = len(order) * data.targets.shape[1] if counted is None else int(counted[order].sum())
        return data.loss.hit_rate(correct, rows, sum(self.ranks.of_all(targets)))

    def stops(self, core: Core, wish: bool) -> bool:
        with self.ranks.together():
            own = (wish, {name: values[-1] for name, values in core.history.metrics.items()})
        everybody = self.ranks.of_all(own)
        with self.ranks.together():
            if repr(own[1]) != repr(everybody[0][1]):  # what a callback of rank 0 alone has put in; NaN is NaN
                core.history.amend(everybody[0][1])
            found = _facts.of_decisions(core)
        self.ranks.check_same(found)
        return any(stops for stops, _ in everybody)

    # A pass -----------------------------------------------------------------------------------------------

    def train_pass(
        self,
        core: Core,
        data: Rows,
        order: NDArray[np.int64],
        rates: Rates,
        epoch: int,
        shards: int = 0,
        there: int = 0,
    ) -> tuple[float, int]:
        ranks = self.ranks
        with ranks.together():
            model = core.made("training")
            engine, before = model.ready(), core.beginning.in_memory(model)
            most = max(len(range(*self._own(self._rows_of(batch)))) for batch in (0, self._batches - 1))
            workspace = model.borrow(max(1, most), training=True, shards=self.count)
            statistics = np.zeros(len(model.buffers), dtype=np.float32)
            exchange = Exchange(ranks, model)
            engine.train_on(there)
            engine.begin_pass(*before)
            ahead = Ahead(data.X, data.targets, order=order)
        total, correct, draws = 0.0, 0, engine.draws
        try:
            for batch, (where, number, place) in enumerate(self._batches_of(order)):
                ahead.reached(place)
                drawing, rate, decay = (of[batch % len(of)] for of in (rates.drawing, rates.learning, rates.decay))
                found = engine.part_of_batch(
                    workspace, data.X, data.labels, data.targets, data.weights, where, self._batch_size, number,
                    drawing[np.newaxis], self.shards, self.first, self.count, statistics,
                )  # fmt: skip
                told = ranks.signal(then=STEP, numbers=found)
                draws = engine.draws
                if not told[:, 2].all():
                    engine.put_back(*before, False)
                    raise DivergedError(epoch, batch + 1)
                with ranks.unbroken():
                    exchange.slices(model.gradients)
                    engine.add_parts(exchange.incoming, exchange.start, exchange.own_squares)
                    exchange.all_squares()
                    engine.update_part(exchange.start, exchange.stop, rate, decay, exchange.squares)
                    exchange.gather(model.parameters)
                    exchange.all_statistics(statistics)
                    engine.end_batch(exchange.statistics, self._rows_of(batch), self.shards)
                core.passes.remember(model, self._rows_of(batch) * model.loss.copies, (), list(drawing))
                total += tree_sum(told[:, 0].tolist())
                correct += int(told[:, 1].sum())
        except BaseException as error:
            ranks.tell(error)
            engine.draws = draws  # of steps that all have made
            with ranks.unbroken():
                self._gather_moments(model, exchange)
            engine.end_pass()
            raise
        ranks.signal(then=MOMENTS)
        with ranks.unbroken():
            self._gather_moments(model, exchange)
        if not engine.end_pass():  # the same on all ranks: so are their arenas
            raise DivergedError(epoch, self._batches)
        model.give_back(workspace)
        return total, correct

    def _batches_of(self, order: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        """For each batch an order of rows, the number of the batch in it, and its place in the epoch's order."""
        if not self.ranks.partitioned:
            yield from ((order, batch, batch * self._batch_size) for batch in range(self._batches))
            return
        done = 0
        for batch in range(self._batches):
            begin, end = self._own(self._rows_of(batch))
            whole = np.zeros(self._rows_of(batch), dtype=np.int64)  # only this rank's rows of it are read
            whole[begin:end] = order[done : done + end - begin]
            yield whole, 0, done
            done += end - begin

    def _gather_moments(self, model: Model, exchange: Exchange) -> None:
        for moment in model.moments:
            exchange.gather(moment)

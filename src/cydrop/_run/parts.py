"""A rank's part of a training step by the engine's calls by hand: slow, and plain.

The gradient of a batch is the sum of the gradients of its shards over a binary tree; each is that of its rows' losses,
divided by the rows of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base.arrays import Floats
from cydrop._core import optimizers
from cydrop._core.engine import Workspace
from cydrop._run.model import Model
from cydrop._run.rows import Rows

SPAN = 8192  # elements whose squares are added before they are added to others


def tree_sum(parts: Sequence[Any]) -> Any:
    """((p0 + p1) + (p2 + p3)) + ..., of a power of two of parts."""
    parts = list(parts)
    while len(parts) > 1:
        parts = [parts[i] + parts[i + 1] for i in range(0, len(parts), 2)]
    return parts[0]


class Parts:
    """What a rank works out in a step, and what it does with what the others send."""

    def __init__(self, model: Model, data: Rows, shards: int, first: int, count: int) -> None:
        self.model, self.data = model, data
        self.shards, self.first, self.count = shards, first, count
        self.statistics = np.zeros(len(model.buffers), dtype=np.float32)

    def part_of_batch(
        self, order: NDArray[np.int64], batch_size: int, batch: int, rates: NDArray[np.float64]
    ) -> tuple[float, int, bool]:
        """The subtree's gradient into the gradient arena: (sum of the rows' losses, correct, finite)."""
        model, engine = self.model, self.model.engine
        n = len(order) or len(self.data.X)
        begin, rows = batch * batch_size, min(batch_size, n - batch * batch_size)
        gradients, losses, correct, statistics = [], [], 0, []
        before, draws = model.buffers.copy(), engine.draws
        for shard in range(self.first, self.first + self.count):
            start, stop = shard * rows // self.shards, (shard + 1) * rows // self.shards
            if start == stop:
                gradients.append(np.zeros_like(model.gradients))
                losses.append(0.0)
                statistics.append(np.zeros_like(before))
                continue
            places = order[begin + start : begin + stop] if len(order) else np.arange(begin + start, begin + stop)
            data = self.data.take(places)
            workspace = Workspace(engine, len(places), True)
            workspace.first_row = start
            z = np.empty((len(places), model.plan.n_outputs), dtype=np.float32)
            grad, dx = np.empty_like(z), np.empty((len(places), model.plan.n_features), dtype=np.float32)
            engine.draws = draws
            engine.forward(workspace, data.X, z, rates)
            loss, hits = data.loss_and_hits(z, grad, 1)
            engine.backward(workspace, grad * np.float32(len(places) / rows), dx)
            gradients.append(model.gradients.copy())
            losses.append(loss * len(places))
            correct += hits
            statistics.append(model.buffers * np.float32(len(places) / rows))
            model.buffers[:] = before
        engine.draws = draws + 1
        model.gradients[:] = tree_sum(gradients)
        self.statistics[:] = tree_sum(statistics)
        total = float(tree_sum(losses))
        return total, correct, bool(np.isfinite(total))

    def add_parts(self, parts: Floats, start: int, squares: NDArray[np.float64]) -> None:
        """The ranks' slices over the tree into the gradients from `start` on; the sums of squares of its spans."""
        own = self.model.gradients[start : start + parts.shape[1]]
        own[:] = tree_sum(list(parts))
        for span in range(len(squares)):
            squares[span] = (own[span * SPAN : (span + 1) * SPAN].astype(np.float64) ** 2).sum()

    def update_part(self, start: int, stop: int, rate: float, decay: float, squares: NDArray[np.float64]) -> None:
        """Updates the parameters start..stop-1 and their moments."""
        model = self.model
        model.engine.updates += 1
        kind, beta1, beta2, epsilon, nesterov, clip_norm = model.optimizer.kernel_options()
        norm = float(np.sqrt(squares.sum()))
        clip = clip_norm / norm if clip_norm is not None and norm > clip_norm else 1.0
        segments: list[tuple[float, ...]] = []
        for begin, size, *factors in model.plan.segments:
            first, last = max(begin, start), min(begin + size, stop)
            if first < last:
                segments.append((first - start, last - first, *factors))
        if start == stop or (model.plan.segments and not segments):
            return
        moments = [moment[start:stop] if len(moment) else moment for moment in model.moments]
        optimizers.update(
            kind, model.parameters[start:stop], model.gradients[start:stop], moments[0], moments[1],
            model.engine.updates, rate, beta1, beta2, epsilon, decay, nesterov, clip,
            np.array(segments, dtype=np.float64).reshape(-1, 5), 1,
        )  # fmt: skip

    def end_batch(self, statistics: Floats, rows: int) -> None:
        """After the exchange: running statistics of a batch of so many rows."""
        if len(self.statistics):
            self.model.buffers[:] = tree_sum(list(statistics))

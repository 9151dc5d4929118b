"""Predictions with dropout off, and how well they do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cydrop._base.arrays import Floats
from cydrop._core import losses
from cydrop._run.chunks import Ahead
from cydrop._run.model import Model
from cydrop._run.rows import NO_FLOATS, Rows
from cydrop._run.team import ALONE, Team

STRETCH_SECONDS = 0.05  # the engine comes back this often, so that Ctrl-C is answered
PREDICT_ROWS = 252  # rows of a prediction batch, 21 tiles of 12: their activations stay in the cache
FEW_ROWS = 8  # a smaller workspace does for these
EVALUATED = 2**22  # outputs that are evaluated at a time: their float64 take 100 MB


def predict(model: Model, X: Floats, link: bool, batch_size: int | None = None, team: Team = ALONE) -> Floats:
    """The outputs, after the loss's link or raw; `batch_size` rows at a time, or as many as are best. Of a team whose
    rows are the same each member works out a share, and all get all."""
    out = np.empty((len(X), model.plan.n_outputs), dtype=np.float32)
    if team.size == 1:
        _predict(model, X, out, link, batch_size)
        return out
    with team.together():
        begin, end = team.share(len(X))
        if begin < end:
            _predict(model, X[begin:end], out[begin:end], link, batch_size)
    team.join(out, [(member + 1) * len(X) // team.size for member in range(team.size)])
    return out


def predict_members(model: Model, X: Floats) -> Floats:
    """The outputs of each member after the loss's link, (members, rows, units)."""
    members, units = model.plan.members, model.plan.n_outputs
    out = np.empty((len(X), members * units), dtype=np.float32)  # of more columns than units: of each member
    _predict(model, X, out, True, None)
    return np.ascontiguousarray(out.reshape(len(X), members, units).swapaxes(0, 1))


def _predict(model: Model, X: Floats, out: Floats, link: bool, batch_size: int | None) -> None:
    rows = min(batch_size, len(X)) if batch_size is not None else FEW_ROWS if len(X) <= FEW_ROWS else PREDICT_ROWS
    workspace = model.borrow(rows)
    for draw in model.plan.vanilla_draws:  # multiplies by 1 - rate, a scheduled one by that at its end
        workspace.set_keep(draw.op, 1.0 - draw.layer.rate_at(1.0))
    row, ahead = 0, Ahead(X) if len(X) > rows else None  # of a single piece nothing is to come
    while row < len(X):
        if ahead is not None:
            ahead.reached(row)
        row = model.engine.predict(workspace, X, out, row, link, STRETCH_SECONDS)
    model.give_back(workspace)


def evaluate(model: Model, data: Rows, n_threads: int, team: Team = ALONE) -> dict[str, float]:
    """The loss and the metrics. A team whose rows are the same works out their outputs together: the bits are those of
    one process. Where each has its own rows, the sums are added by rank."""
    if not team.partitioned:
        return _evaluate(model, data, n_threads, team)
    with team.together():
        found = _evaluate(model, data, n_threads, ALONE)
    return of_parts(team.of_all((found, len(data.X), counted_of(data))))


def counted_of(data: Rows) -> int:
    """How many rows, or targets where some do not count, the metrics see."""
    return len(data.X) if data.counted is None else int(data.counted.sum())


def of_parts(parts: list[tuple[dict[str, float], int, int]]) -> dict[str, float]:
    """The metrics of all rows, of those of parts with so many rows and targets."""
    result = {}
    for name in parts[0][0]:
        of_rows = name in ("loss", "log_likelihood")
        counts = [(found[name], rows if of_rows else targets) for found, rows, targets in parts]
        counts = [(value, count) for value, count in counts if count]
        power = 2 if name == "rmse" else 1  # the mean of squares
        total = sum(value**power * count for value, count in counts)
        result[name] = (total / max(1, sum(count for _, count in counts))) ** (1 / power)
    return result


def _evaluate(model: Model, data: Rows, n_threads: int, team: Team) -> dict[str, float]:
    link = data.loss.judged_in_order
    return evaluated(lambda X: predict(model, X, link, None, team), model.plan.n_outputs, data, n_threads)


def evaluated(raw: Callable[[Floats], Floats], units: int, data: Rows, n_threads: int) -> dict[str, float]:
    """The loss and the metrics of outputs of so many units, raw or in order; of many rows piece by piece."""
    rows, step = len(data.X), max(1, EVALUATED // units)
    counts = bool(data.hit_rate(0))  # else the metrics are of errors
    total, hits, sums = np.zeros(1), 0, np.zeros(3)
    for start in range(0, rows, step):
        part = data if step >= rows else data.part(slice(start, start + step))
        z = raw(part.X)
        row_losses, some = part.row_losses(z, n_threads)
        total = np.cumsum(np.concatenate([total, row_losses]))[-1:]  # one after another, as if in one piece
        hits += some
        if not counts:
            losses.errors(part.loss.levels, z, part.targets, part.weights if part.each else NO_FLOATS, sums)
    metrics = data.hit_rate(hits) if counts else data.loss.metrics_of(sums)
    return {"loss": float(total[0]) / rows} | metrics

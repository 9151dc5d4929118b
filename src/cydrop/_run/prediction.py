"""Predictions with dropout off, and how well they do."""

from __future__ import annotations

import numpy as np

from cydrop._base.arrays import Floats
from cydrop._core import losses
from cydrop._run.model import Model
from cydrop._run.rows import NO_MATRIX, Rows

STRETCH_SECONDS = 0.05  # the engine comes back this often, so that Ctrl-C is answered
PREDICT_ROWS = 252  # rows of a prediction batch, 21 tiles of 12: their activations stay in the cache
FEW_ROWS = 8  # a smaller workspace does for these


def predict(model: Model, X: Floats, link: bool, batch_size: int | None = None) -> Floats:
    """The outputs, after the loss's link or raw; `batch_size` rows at a time, or as many as are best."""
    rows = min(batch_size, len(X)) if batch_size is not None else FEW_ROWS if len(X) <= FEW_ROWS else PREDICT_ROWS
    out = np.empty((len(X), model.plan.n_outputs), dtype=np.float32)
    workspace = model.borrow(rows)
    for draw in model.plan.vanilla_draws:  # multiplies by 1 - rate, a scheduled one by that at its end
        workspace.set_keep(draw.op, 1.0 - draw.layer.rate_at(1.0))
    row = 0
    while row < len(X):
        row = model.engine.predict(workspace, X, out, row, link, STRETCH_SECONDS)
    model.give_back(workspace)
    return out


def evaluate(model: Model, data: Rows, n_threads: int) -> dict[str, float]:
    """The loss and the metrics."""
    z = predict(model, data.X, False)
    loss, hits = data.loss_and_hits(z, NO_MATRIX, n_threads)
    metrics = data.hit_rate(hits)
    if not metrics:  # nothing was counted: it takes the predictions
        losses.link(data.loss.code, z, n_threads)
        metrics = data.metrics(z)
    return {"loss": loss} | metrics

"""Monte Carlo samples of all members: what they have in common is what is known."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._run.core import core_of
from cydrop._run.model import Model
from cydrop._run.prediction import predict
from cydrop.ensemble import _members
from cydrop.monte_carlo import (
    LogLikelihood,
    MonteCarlo,
    Tally,
    blocks_of,
    checked_precision,
    quantile_levels,
    sampling_rates,
)
from cydrop.network import Network

ROWS, COPIES = 256, 16  # rows and samples of a block of a network that draws nothing


def predict_mc(
    members: Sequence[Network], X: ArrayLike, samples: Any, seed: seeding.Seed, return_samples: Any,
    quantiles: ArrayLike | None, drop_connect: Any, rate: Any,
) -> MonteCarlo:  # fmt: skip
    """`Ensemble.predict_mc`."""
    checks.flag("return_samples", return_samples)
    levels = None if quantiles is None else quantile_levels(quantiles)
    drawn = _Drawn(members, _members.inputs(members, X), samples, seed, drop_connect, rate)
    tally = drawn.tally()
    keep = return_samples or levels is not None
    kept = np.empty((drawn.count, *tally.mean.shape), dtype=np.float32) if keep else None
    for first, start, block in drawn.blocks():
        tally.add(first, start, block)
        if kept is not None:
            kept[first : first + len(block), start : start + block.shape[1]] = block
    drawn.check(tally)
    return tally.result(kept if return_samples else None, kept, levels)


def evaluate_mc(
    members: Sequence[Network], X: ArrayLike, y: ArrayLike, samples: Any, noise_precision: Any, seed: seeding.Seed,
    drop_connect: Any, rate: Any,
) -> dict[str, float]:  # fmt: skip
    """`Ensemble.evaluate_mc`."""
    data = core_of(members[0]).rows(X, y, None, None)
    precision = checked_precision(data.loss, noise_precision)
    drawn = _Drawn(members, _members.inputs(members, data.X), samples, seed, drop_connect, rate)
    tally, likelihood = drawn.tally(), LogLikelihood(data.loss, data, precision)
    for first, start, block in drawn.blocks():
        tally.add(first, start, block)
        likelihood.add(start, block)
    drawn.check(tally)
    return likelihood.result(drawn.count) | tally.result(None).errors(data.loss, data)


class _Drawn:
    """Samples of all members, as many of each; of members that draw nothing one each."""

    def __init__(
        self, members: Sequence[Network], rows: Floats, samples: Any, seed: seeding.Seed, drop_connect: Any, rate: Any
    ) -> None:
        samples = checks.integer("samples", samples, 1, checks.MOST_SAMPLES)
        self.moments = checks.choice("drop_connect", drop_connect, {"masks": False, "moments": True})
        wish = None if rate is None else checks.rate("rate", rate)
        self.rows, self.models = rows, _members.models(members, rows.shape[1])
        self.n_threads = members[0].n_threads
        self.rates, doubts = list[NDArray[np.float64]](), set[str]()
        for model in self.models:
            rates, doubt = sampling_rates(wish, model)
            self.rates.append(rates)
            if doubt is not None and rates.any():
                doubts.add(doubt)
        self.draws = any(rates.any() for rates in self.rates)
        self.samples = samples if self.draws else 1
        for doubt in sorted(doubts):
            warnings.warn(doubt, stacklevel=4)
        self.source = seeding.sequence(seed)  # last: a refused call does not advance a Generator

    @property
    def count(self) -> int:
        return self.samples * len(self.models)

    def tally(self) -> Tally:
        model = self.models[0]
        return Tally(model.loss, (len(self.rows), model.plan.n_outputs), self.n_threads)

    def blocks(self) -> Iterator[tuple[int, int, Floats]]:
        """(number of the first sample, first row, predictions), the members one after another."""
        for number, (model, rates) in enumerate(zip(self.models, self.rates, strict=True)):
            if rates.any():
                source = seeding.child(self.source, number)
                found = blocks_of(model, self.rows, self.samples, source, self.moments, rates)
            else:
                found = self._same(model)
            for first, start, block in found:
                yield number * self.samples + first, start, block

    def _same(self, model: Model) -> Iterator[tuple[int, int, Floats]]:
        """The samples of a model that draws nothing."""
        prediction = predict(model, self.rows, True)
        for start in range(0, len(prediction), ROWS):
            part = prediction[None, start : start + ROWS]
            for first in range(0, self.samples, COPIES):
                yield first, start, np.repeat(part, min(COPIES, self.samples - first), axis=0)

    def check(self, tally: Tally) -> None:
        """Warns of a spread of 0 that says nothing."""
        if not self.draws and not tally.squares.any():
            what = "and the networks predict the same" if len(self.models) > 1 else "and there is one network"
            message = f"nothing is drawn in the Monte Carlo samples, {what}: a spread of 0 is no certainty"
            warnings.warn(message, stacklevel=4)

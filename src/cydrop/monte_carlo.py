"""Monte Carlo dropout: many predictions with dropout on, and what is made of them.

rows of X, SAMPLE_ROWS at a time (a chunk)
    what comes before the first layer that draws, once
    samples, SAMPLED_BATCHES batches at a time (a block) -> Tally, LogLikelihood
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import losses
from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._core import losses as _kernels
from cydrop._run.core import Core
from cydrop._run.model import Model
from cydrop._run.prediction import counted_of, of_parts
from cydrop._run.rates import rates_at
from cydrop._run.rows import Rows
from cydrop._run.team import ALONE, Team

__all__ = [  # noqa: RUF022 (in the order of this file)
    "MonteCarlo",
    "quantile_levels",
    "of_entropies",
    "mixture",
    "Tally",
    "LogLikelihood",
    "predict_mc",
    "evaluate_mc",
    "checked_precision",
    "row_ends",
    "sampling_rates",
    "varies",
    "blocks_of",
]

SAMPLE_ROWS = 256  # rows that are sampled at a time; masks are keyed by the row in a batch, so this is fixed
STACKED_ROWS = 128  # samples of few rows are stacked into batches of up to this many rows; fixed for the same reason
SAMPLED_BATCHES = 16  # batches of samples between two looks at the results

Blocks: TypeAlias = Iterator[tuple[int, int, Floats]]  # first sample, first row, predictions (samples, rows, units)


@dataclass(eq=False)
class MonteCarlo:
    """What `predict_mc` returns, of a network, an ensemble or an estimator.

    Three attributes say how unsure a prediction is, and why; total = aleatoric + epistemic, up to rounding. For
    classifiers they are entropies in nats, H[p] = -sum p log p, and E is the mean over samples:
    H[E p] = E H[p] + (H[E p] - E H[p]) (Houlsby et al. 2011; Depeweg et al. 2018). For regression they are variances in
    units of y^2, by the law of total variance: Var y = E v + Var m, of sampled means m and variances v (Depeweg et al.
    2018); that is also the variance of the mixture of Lakshminarayanan et al. (2017).

    Attributes
    ----------
    mean : ndarray, shape (n, k)
        Mean of the sampled predictions.
    std : ndarray, shape (n, k)
        Their standard deviation. For `gaussian_nll`, whose network also predicts a variance, the square root of the
        total variance: that of the sampled means, plus the mean of the sampled variances.
    entropy : ndarray or None
        Entropy of the mean prediction in nats: (n,) for cross-entropy, (n, k) for binary cross-entropy.
    mutual_information : ndarray or None
        entropy minus the mean entropy of the samples: what the model does not know (Houlsby et al. 2011).
    quantiles : ndarray or None
        Quantiles of the samples, shape (quantiles, n, units), on request.
    samples : ndarray or None
        All predictions, shape (samples, n, units), on request.
    total : ndarray or None
        For classifiers `entropy`; for regression, (n, k), the variance of y as far as it is predicted, std^2.
    aleatoric : ndarray or None
        What more data would not take away. For classifiers the mean entropy of the samples, in the shape of `entropy`;
        for `gaussian_nll` the mean of the sampled variances, (n, k). None for other regression losses: their networks
        do not predict how far y scatters, and 0 would say that it does not.
    epistemic : ndarray or None
        What the model does not know: `mutual_information`, or the variance of the sampled means, (n, k).
    n_samples : int or None
        How many samples were drawn. None: not known, as in one that was made by hand.
    """

    mean: Floats
    std: Floats
    entropy: Floats | None = None
    mutual_information: Floats | None = None
    quantiles: Floats | None = None
    samples: Floats | None = None
    total: Floats | None = None
    aleatoric: Floats | None = None
    epistemic: Floats | None = None
    n_samples: int | None = None

    def summary(self) -> str:
        """A table of how unsure the predictions are on average, as text: a line for each target or label, one for all
        classes together.

        The mean of the standard deviations; what is total, aleatoric and epistemic, for classifiers the mean entropies
        in nats, for regression as standard deviations, the roots of the mean variances; and the share of the total
        (entropy or variance) that is epistemic. What is not known is "-", and a line below says so.
        """
        return _summary(self)

    def errors(self, loss: losses.Loss, data: Rows) -> dict[str, float]:
        """The metrics of the mean prediction.

        Parameters
        ----------
        loss : Loss
            Of the network.
        data : Rows
            The checked X and y.

        Returns
        -------
        dict of str to float
            "accuracy" for classifiers, "rmse" and "mae" for regression.
        """
        return loss.metrics(self.mean, data.y, data.counted)


def _summary(mc: MonteCarlo) -> str:
    rows, columns = mc.mean.reshape(len(mc.mean), -1).shape
    classes = mc.entropy is not None
    labels = mc.entropy is not None and mc.entropy.ndim == 2
    lines = 1 if classes and not labels else columns

    def means(part: NDArray[Any] | None) -> NDArray[np.float64]:
        """Of each line; NaN: not known."""
        known = np.full((rows, lines), np.nan) if part is None else np.asarray(part, dtype=np.float64)
        return np.asarray(known.reshape(rows, lines, -1).mean(axis=(0, 2)))

    parts = np.stack([means(part) for part in (mc.total, mc.aleatoric, mc.epistemic)])
    known = np.isfinite(parts[1]) & (parts[0] > 0)
    shares = np.where(known, parts[2] / np.where(known, parts[0], 1.0), np.nan)
    figures = np.stack([means(mc.std), *(parts if classes else np.sqrt(parts))], axis=1)
    table: list[tuple[str, ...]] = [("output", "mean std", "total", "aleatoric", "epistemic", "epistemic share")]
    for number, (line, share) in enumerate(zip(figures.tolist(), shares.tolist(), strict=True)):
        cells = ["-" if math.isnan(one) else f"{one:.4g}" for one in line]
        last = "-" if math.isnan(share) else f"{share:.1%}"
        table.append(("all" if lines == 1 else str(number), *cells, last))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    head, *body = ("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in table)
    what = ("labels" if labels else "classes") if classes else "outputs"
    count = mc.n_samples if mc.samples is None else len(mc.samples)
    samples = "not known" if count is None else f"{count:,}{'' if mc.samples is None else ' (kept)'}"
    said = [f"rows: {rows:,}", f"{what}: {columns:,}", f"samples: {samples}"]
    said += [] if mc.quantiles is None else [f"quantiles: {len(mc.quantiles):,}"]
    if mc.total is None:
        note = "total, aleatoric and epistemic uncertainty are not known"
    elif classes:
        note = "total, aleatoric and epistemic uncertainty are mean entropies in nats"
    else:
        note = "total, aleatoric and epistemic uncertainty are standard deviations, the roots of the mean variances"
        if mc.aleatoric is None:
            note += "\naleatoric uncertainty is not known, since no variance of y is predicted, and the total lacks it"
    return "\n".join([", ".join(said), head, "-" * len(head), *body, note])


def quantile_levels(quantiles: ArrayLike) -> NDArray[np.float64]:
    """Checked levels, one dimension."""
    levels = np.atleast_1d(checks.floats("quantiles", quantiles)).astype(np.float64)
    if levels.ndim != 1 or not levels.size or levels.min() < 0 or levels.max() > 1:
        raise ValueError(f"quantiles must be numbers in [0, 1], got {quantiles!r}")
    return levels


def of_entropies(total: NDArray[Any], average: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What a `MonteCarlo` says of classifiers: from the entropy of the mean and the mean entropy."""
    information = np.maximum(total - average, 0.0)
    return {
        "entropy": total, "mutual_information": information,
        "total": total, "aleatoric": average, "epistemic": information,
    }  # fmt: skip


def mixture(loss: losses.Loss, mean: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `predict` gives, of a mixture of predictions with this mean and variance: the mean; where the predictions
    are means and variances, the mean and the variance of the mixture."""
    if loss.noise(mean) is None:
        return mean
    center, variance = loss.moments(mean, spread)
    return np.concatenate([center, np.minimum(variance, np.finfo(np.float32).max)], axis=1)


class Tally:
    """Mean, spread and, if wanted, entropies of predictions of shape (n, units), in float64 (Welford 1962)."""

    def __init__(self, loss: losses.Loss, shape: tuple[int, int], n_threads: int, entropies: bool = True) -> None:
        self.loss, self.count, self.n_threads = loss, 0, n_threads
        self.mean, self.squares = np.zeros(shape), np.zeros(shape)
        of_one_row = loss.entropy(np.zeros((1, shape[1]))) if entropies else None
        self.entropies = np.zeros((0, 1) if of_one_row is None else (shape[0], of_one_row.size))

    def add(self, first: int, start: int, block: Floats) -> None:
        """Samples number first, first + 1, ... of the rows from `start` on; each row's samples come in order."""
        rows = slice(start, start + block.shape[1])
        sums = self.mean[rows], self.squares[rows], self.entropies[rows]
        _kernels.tally(block, first, *sums, self.loss.binary, self.n_threads)
        self.count = max(self.count, first + len(block))

    def join(self, team: Team) -> None:
        """Takes the rows of the other members of a team, which have tallied as many samples of theirs."""
        ends = row_ends(team, len(self.mean))
        self.count = max(team.of_all(self.count))  # of few rows some have none
        for sums in (self.mean, self.squares, self.entropies):
            if len(sums):
                team.join(sums, ends)

    def result(
        self, samples: Floats | None, kept: Floats | None = None, levels: NDArray[np.float64] | None = None
    ) -> MonteCarlo:
        """What was tallied; quantiles of `kept` at the levels, if any."""
        spread = self.squares / self.count
        mean, variance = self.loss.moments(self.mean, spread)
        total, noise = self.loss.entropy(mean), self.loss.noise(self.mean)
        if total is not None:
            parts = of_entropies(total, self.entropies.reshape(total.shape) / self.count)
        else:
            parts = {"total": variance, "epistemic": spread[:, : mean.shape[1]]}
            parts |= {} if noise is None else {"aleatoric": noise}
        quantiles = None
        if kept is not None and levels is not None:
            quantiles = np.quantile(kept, levels, axis=0).astype(np.float32)
        said = {name: part.astype(np.float32) for name, part in parts.items()}
        return MonteCarlo(
            mean.astype(np.float32), np.sqrt(variance).astype(np.float32), quantiles=quantiles, samples=samples,
            n_samples=self.count, **said,
        )  # fmt: skip

    def prediction(self) -> NDArray[np.float64]:
        """What `predict` gives, of the mixture of what was tallied."""
        return mixture(self.loss, self.mean, self.squares / self.count)


class LogLikelihood:
    """log of the mean over samples of p(y | sample), row by row, as samples come in.

    Where y are class probabilities q, log p(y | sample) is sum q log p.
    """

    def __init__(self, loss: losses.Loss, data: Rows, noise_precision: float | None) -> None:
        self.loss, self.data, self.precision = loss, data, noise_precision
        self.known = noise_precision is not None or loss.has_density
        self.total = np.full(len(data.X), -np.inf)

    def add(self, start: int, block: Floats) -> None:
        """Predictions of some samples for the rows from `start` on."""
        if self.known:
            rows = slice(start, start + block.shape[1])
            logs = self.loss.log_density(block.astype(np.float64), self.data.y[rows], self.precision)
            top = logs.max(axis=0)
            some = top + np.log(np.exp(logs - top).sum(axis=0))
            self.total[rows] = np.logaddexp(self.total[rows], some)

    def result(self, samples: int) -> dict[str, float]:
        return {"log_likelihood": float(np.mean(self.total - math.log(samples)))} if self.known else {}


# Drawing ------------------------------------------------------------------------------------------------------


def predict_mc(
    core: Core, X: ArrayLike, samples: Any, seed: seeding.Seed, return_samples: Any, quantiles: ArrayLike | None,
    drop_connect: Any, rate: Any, team: Team = ALONE,
) -> MonteCarlo:  # fmt: skip
    """`Network.predict_mc`."""
    with team.session():
        with team.together():
            checks.flag("return_samples", return_samples)
            levels = None if quantiles is None else quantile_levels(quantiles)
            keep = return_samples or levels is not None
        model, blocks, rows = _sampled(
            core, X, samples, seed, drop_connect, rate, team, {"method": "predict_mc", "kept samples": keep}
        )
        with team.together():
            shape = (len(rows), model.plan.n_outputs)
            kept = np.empty((samples, *shape), dtype=np.float32) if keep else None
            tally = Tally(model.loss, shape, core.n_threads)
            for first, start, block in blocks:
                tally.add(first, start, block)
                if kept is not None:
                    kept[first : first + len(block), start : start + block.shape[1]] = block
        tally.join(team)
        if kept is not None and team.size > 1:
            by_rows = np.ascontiguousarray(np.moveaxis(kept, 1, 0))
            team.join(by_rows, row_ends(team, len(rows)))
            kept[...] = np.moveaxis(by_rows, 0, 1)
        return tally.result(kept if return_samples else None, kept, levels)


def evaluate_mc(
    core: Core, X: ArrayLike, y: ArrayLike, samples: Any, noise_precision: Any, seed: seeding.Seed, drop_connect: Any,
    rate: Any, team: Team = ALONE,
) -> dict[str, float]:  # fmt: skip
    """`Network.evaluate_mc`."""
    with team.session():
        with team.together():
            data = core.rows(X, y, None, None, team.part(X))
            loss = data.loss
            precision = checked_precision(loss, noise_precision)
        facts = {"method": "evaluate_mc", "noise_precision": precision}
        model, blocks, rows = _sampled(core, data.X, samples, seed, drop_connect, rate, team, facts)
        with team.together():
            if model.loss is not loss:
                raise RuntimeError("another thread has assigned another loss meanwhile, which y was not checked for")
            tally = Tally(loss, (len(rows), model.plan.n_outputs), core.n_threads)
            likelihood = LogLikelihood(loss, data, precision)
            for first, start, block in blocks:
                tally.add(first, start, block)
                likelihood.add(start, block)
        tally.join(team)
        team.join(likelihood.total, row_ends(team, len(rows)))
        found = likelihood.result(samples) | tally.result(None).errors(loss, data)
        return of_parts(team.of_all((found, len(rows), counted_of(data)))) if team.partitioned else found


def checked_precision(loss: losses.Loss, noise_precision: Any) -> float | None:
    """The precision of the noise in y, for a loss that needs one to be a likelihood."""
    if noise_precision is None:
        return None
    precision = checks.number("noise_precision", noise_precision, 0.0, low_open=True)
    if loss.has_density or not loss.needs_precision:
        raise ValueError(f"noise_precision is for regression without predicted variances or quantiles, not {loss.name}")
    return precision


def row_ends(team: Team, rows: int) -> list[int]:
    """Where the rows end that each member of a team samples: whole chunks."""
    chunks = -(-rows // SAMPLE_ROWS)
    return [min((member + 1) * chunks // team.size * SAMPLE_ROWS, rows) for member in range(team.size)]


def _sampled(
    core: Core, X: ArrayLike, samples: Any, seed: seeding.Seed, drop_connect: Any, rate: Any, team: Team,
    facts: dict[str, Any],
) -> tuple[Model, Blocks, Floats]:  # fmt: skip
    """Checks the arguments; then an iterator over blocks of samples: (number of the first, first row, block)."""
    with team.together():
        samples = checks.integer("samples", samples, 1, checks.MOST_SAMPLES)
        moments = checks.choice("drop_connect", drop_connect, {"masks": False, "moments": True})
        wish = None if rate is None else checks.rate("rate", rate)
        rows = core.inputs(X, team.part(X))
        core.built_for(rows.shape[1])
    team.prepare(core)
    with team.together():
        model = core.made("samples")  # this one to the end, whatever another thread sets
        rates, doubt = sampling_rates(wish, model)
        if doubt is not None:
            warnings.warn(doubt, stacklevel=4)  # at the user's line that called a method of the network
        source = seeding.sequence(seed)  # last: a refused call does not advance a Generator
    facts = {**facts, "samples": samples, "drop_connect": drop_connect, "rates": rates.tolist()}
    team.check_prediction(core, rows, facts)
    source = team.of_first(source)
    if team.partitioned:  # rows of another rank have masks of their own
        source = seeding.child(source, team.rank)
    return model, blocks_of(model, rows, samples, source, moments, rates, team), rows


def sampling_rates(rate: float | None, model: Model) -> tuple[NDArray[np.float64], str | None]:
    """The rates of Monte Carlo samples, shape (1, layers that draw), and what the user has to know of them."""
    drawing, members = [draw.layer for draw in model.plan.draws], model.plan.members
    rates = rates_at([1.0], model.optimizer, drawing).drawing
    rates[0, [draw.source.column for draw in model.plan.learned]] = list(model.learned_rates().values())
    if rate is not None:
        rates[0, [layer.rate_name == "rate" for layer in drawing]] = rate
    elif not rates.any():
        rates = rates_at([0.5], model.optimizer, drawing).drawing
        if rates.any():
            return rates, (
                "dropout has faded out at the end of training: Monte Carlo samples are drawn with the rates of its "
                "middle; give rate= for others"
            )
    if not rates.any() and not members:  # whose samples differ without dropout
        what = "all rates are 0" if drawing else "no layer drops or adds noise"
        drops = any(layer.rate_name == "rate" for layer in drawing)
        return rates, (
            f"nothing is drawn in the Monte Carlo samples, since {what}: all are the same, and a spread of 0 is no "
            f"certainty{'; give rate= above 0' if drops else ''}"
        )
    return rates, None


def varies(core: Core, rate: float | None) -> bool:
    """Whether Monte Carlo samples say where a network is less sure of numbers: it predicts no quantiles, and some of
    what it draws differs from sample to sample."""
    if core.loss.predictions == "probabilities" or len(core.loss.levels):
        return False
    model = core.made("Monte Carlo samples")
    rates, _ = sampling_rates(rate, model)
    return bool(rates.any() or model.plan.members)


def blocks_of(
    model: Model, rows: Floats, samples: int, source: np.random.SeedSequence, moments: bool, rates: NDArray[np.float64],
    team: Team = ALONE,
) -> Blocks:  # fmt: skip
    """The samples of a model, piece by piece."""
    plan, engine = model.plan, model.engine
    seeds = seeding.words_of(source, 2 * len(plan.draws)).reshape(-1, 2)
    chunks = -(-len(rows) // SAMPLE_ROWS)
    workspace = model.borrow(SAMPLE_ROWS, masked=True)
    engine.use_moments(workspace, moments)
    for chunk in range(*team.share(chunks)):
        start = chunk * SAMPLE_ROWS
        part = rows[start : start + SAMPLE_ROWS]
        copies = 1 if plan.draws_for_all_rows else max(1, STACKED_ROWS // len(part))
        engine.begin_samples(workspace, part, copies, rates)
        for first in range(0, samples, SAMPLED_BATCHES * copies):
            count = min(SAMPLED_BATCHES * copies, samples - first)
            block = np.empty((count, len(part), plan.n_outputs), dtype=np.float32)
            engine.samples(workspace, block, first // copies, chunk, chunks, seeds, True)
            yield first, start, block
    model.give_back(workspace)

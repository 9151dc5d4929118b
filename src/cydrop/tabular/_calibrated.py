"""What fitted networks say of rows that they were not trained on, in the units of y."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cydrop._base import seeding
from cydrop._base.arrays import Floats
from cydrop._run.core import core_of
from cydrop.calibration import SAMPLES, Calibration, Prediction
from cydrop.monte_carlo import mixture
from cydrop.network import Network
from cydrop.tabular import _sampling
from cydrop.tabular._columns import Doubles
from cydrop.tabular._parts import Part, Rows
from cydrop.tabular._table import Table

Member: TypeAlias = tuple[Part, Network, Floats]  # with the rows that it is given


def prepared(parts: Sequence[Part], table: Table) -> list[Member]:
    """All networks of some parts, with what the rows of a table are to each."""
    known = {id(part.preprocessor): part.preprocessor for part in parts}  # several parts may have the same
    rows = {place: preprocessor.transform(table).rows for place, preprocessor in known.items()}
    return [(part, network, rows[id(part.preprocessor)]) for part in parts for network in part.networks]


class Meaning(NamedTuple):
    """What the outputs of an estimator's networks mean."""

    targets: int  # 0: classes
    values: Callable[[Part, NDArray[Any]], Doubles]  # of a network's output, with any dimensions in front
    rate: float | None  # of dropout in samples
    clamped: bool  # whether numbers stay in the range of the training targets


def prediction(meaning: Meaning, members: Sequence[Member]) -> Prediction:
    """What networks say together: probabilities; or numbers, and where they know it their standard deviation."""
    shares = np.array([part.share for part, _, _ in members], dtype=np.float64)
    if not meaning.targets:
        proba = [meaning.values(part, network.predict(rows)) for part, network, rows in members]
        return Prediction(np.average(proba, axis=0, weights=shares))
    loss = members[0][1].loss
    found = [_numbers(meaning, *member) for member in members]
    mean = np.average(found, axis=0, weights=shares)
    unit = max(1.0, float(np.abs(mean).max()) / 1e100)  # squares stay finite
    spread = unit * np.sqrt(np.average([((one - mean) / unit) ** 2 for one in found], axis=0, weights=shares))
    with np.errstate(over="ignore"):  # of targets beyond 1e154 a variance is infinite
        outputs = mixture(loss, mean, spread**2)
    if len(loss.levels) or loss.noise(mean) is not None:
        return Prediction(outputs)
    several = [member for member in members for _ in range(member[0].share)]
    network = several[0][1]
    if _sampling.drops(network.layers) or _sampling.has_members(network):
        seed = seeding.branch(core_of(network).root, seeding.CALIBRATION)
        samples = max(SAMPLES, len(several))
        mc = _sampling.predict_mc(several, meaning.values, samples, seed, False, None, meaning.rate)
        return Prediction(outputs, mc.std.reshape(len(mc.std), meaning.targets))
    return Prediction(outputs, spread if len(members) > 1 else None)


def _numbers(meaning: Meaning, part: Part, network: Network, rows: Floats) -> Doubles:
    """What a network predicts, in the units of y and of its square where they are variances, (n, units)."""
    standard, targets = part.standard, meaning.targets
    assert standard is not None
    output = network.predict(rows)
    values, variances = output, network.loss.noise(output.astype(np.float64))
    if variances is not None:
        values = network.loss.center(output, targets)
    y = standard.undone(values.reshape(len(output), -1, targets), clamped=meaning.clamped)
    y = y.reshape(len(output), -1)
    return y if variances is None else np.concatenate([y, variances * standard.scale**2], axis=1)


def calibration_of(meaning: Meaning, parts: Sequence[Part], held: Sequence[Rows], kept: Rows | None) -> Calibration:
    """By rows that nothing was chosen by; where there are none by those that each part held out, fold by fold."""
    folds: list[tuple[Sequence[Part], Rows]] = [(parts, kept)] if kept is not None else []
    if kept is None:
        folds = [([part], rows) for part, rows in zip(parts, held, strict=True)]
    said = [prediction(meaning, prepared(some, rows.table)) for some, rows in folds]
    spreads = [one.spread for one in said]
    joined = Prediction(
        np.concatenate([one.outputs for one in said]),
        None if spreads[0] is None else np.concatenate([spread for spread in spreads if spread is not None]),
    )
    fold = np.repeat(np.arange(len(folds)), [len(rows) for _, rows in folds])
    y = np.concatenate([rows.y for _, rows in folds])
    return Calibration.of(parts[0].networks[0].loss, y, joined, fold)

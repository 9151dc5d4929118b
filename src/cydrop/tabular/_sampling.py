"""Monte Carlo dropout of several networks: each makes a share of the samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop.layers import Dropout, Members
from cydrop.monte_carlo import MonteCarlo, of_entropies, quantile_levels
from cydrop.network import Network
from cydrop.tabular._columns import Doubles
from cydrop.tabular._parts import Part

PIECE = 1 << 23  # sampled values that are kept at a time


def drops(layers: Iterable[Any]) -> bool:
    """Whether there is dropout among the layers, or within them."""
    return any(isinstance(layer, Dropout) or drops(getattr(layer, "layers", ())) for layer in layers)


def has_members(network: Network) -> bool:
    """Whether the network is many in one, each of which predicts."""
    return isinstance(network.layers[-1], Members)


def predict_mc(
    members: list[tuple[Part, Network, Floats]],
    values: Callable[[Part, NDArray[Any]], Doubles],
    samples: Any,
    seed: seeding.Seed,
    return_samples: Any,
    quantiles: ArrayLike | None,
    rate: float | None,
    noise: Callable[[Part, NDArray[Any]], Doubles | None] = lambda part, output: None,
) -> MonteCarlo:
    """Statistics of the samples of all members, in the shape that `values` makes of a network's output.

    `rate`: the probability of dropping; None: the networks have no dropout. `noise`: the variance that an output
    predicts, in the same shape.
    """
    samples = checks.integer("samples", samples, 1, checks.MOST_SAMPLES)
    levels = None if quantiles is None else quantile_levels(quantiles)
    keep = checks.flag("return_samples", return_samples)
    if rate is None and not any(has_members(network) for _, network, _ in members):
        what = "all are the same, and a spread of 0 is no certainty"
        what = what if len(members) == 1 else "only the networks differ"
        message = f"nothing is drawn in the Monte Carlo samples, since there is no dropout: {what}"
        warnings.warn(message, UserWarning, stacklevel=3)
    seeds = seeding.sequence(seed).spawn(len(members))
    shares = [samples // len(members) + (place < samples % len(members)) for place in range(len(members))]
    n, units = len(members[0][2]), members[0][1].predict(members[0][2][:1]).shape[1]
    step = n if keep else max(1, PIECE // (samples * units))
    found: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, n, step)):
        drawn, predicted = list[Doubles](), list[Doubles]()
        for (part, network, rows), source, count in zip(members, seeds, shares, strict=True):
            if count:
                key = np.random.SeedSequence(source.entropy, spawn_key=(*source.spawn_key, number))
                some = rows[start : start + step]
                if rate is None:
                    outputs = _without_dropout(network, some, count)
                else:
                    mc = network.predict_mc(some, count, seed=key, return_samples=True, rate=rate)
                    outputs = np.asarray(mc.samples)
                drawn.append(values(part, outputs))
                variance = noise(part, outputs)
                predicted += [] if variance is None else [variance]
        own = np.concatenate(predicted) if predicted else None
        found.append(_summary(np.concatenate(drawn), own, levels, keep, classes=members[0][0].standard is None))
    joined = {name: [piece[name] for piece in found] for name in found[0]}
    axes = {"samples": 1, "quantiles": 1}
    result: dict[str, Any] = {
        name: None if pieces[0] is None else np.concatenate(pieces, axis=axes.get(name, 0))
        for name, pieces in joined.items()
    }
    return MonteCarlo(**result, n_samples=samples)


def _without_dropout(network: Network, rows: Floats, count: int) -> NDArray[Any]:
    """So many samples of a network in which nothing is drawn: of its members in turn, or all the same."""
    if has_members(network):
        outputs = network.predict_members(rows)
        return np.asarray(outputs[np.arange(count) % len(outputs)])
    output = network.predict(rows)
    return np.broadcast_to(output, (count, *output.shape))


def _summary(
    drawn: Doubles, noise: Doubles | None, levels: Doubles | None, keep: bool, classes: bool
) -> dict[str, Any]:
    """What `MonteCarlo` holds, of samples of shape (samples, n, ...); in float64, since targets may be large and their
    spread small."""
    mean = drawn.mean(axis=0)
    unit = max(1.0, float(np.abs(mean).max()) / 1e100)  # squares stay finite
    std = unit * np.sqrt((((drawn - mean) / unit) ** 2).mean(axis=0))
    result: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "quantiles": None if levels is None else np.quantile(drawn, levels, axis=0),
        "samples": drawn if keep else None,
    }
    if classes:
        return result | of_entropies(_entropy(mean), np.mean([_entropy(sample) for sample in drawn], axis=0))
    with np.errstate(over="ignore"):  # of targets beyond 1e154 the square is infinite
        variance = std**2
        if noise is None:
            return result | {"total": variance, "epistemic": variance}
        aleatoric = noise.mean(axis=0)
        total = variance + aleatoric
    return result | {"std": np.sqrt(total), "total": total, "aleatoric": aleatoric, "epistemic": variance}


def _entropy(p: Doubles) -> Doubles:
    """In nats, of the last dimension."""
    return np.asarray(-(p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(axis=-1))

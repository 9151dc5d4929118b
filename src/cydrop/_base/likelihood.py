"""Logarithms of probabilities and densities, for what is made of predictions; all in float64."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]

SMALLEST = 1e-300  # probabilities and variances below count as this, where a logarithm or a division follows


def plogp(p: Doubles) -> Doubles:
    """-p log p, 0 at 0."""
    return -p * np.log(np.where(p > 0, p, 1.0))


def log(p: Doubles) -> Doubles:
    return np.asarray(np.log(np.maximum(p, SMALLEST)))


def normal_log_density(mean: Doubles, y: NDArray[Any], precision: Doubles) -> Doubles:
    """Of a row's targets together."""
    densities = np.log(precision) - math.log(2 * math.pi) - precision * (y - mean) ** 2
    return np.asarray(densities.sum(axis=2) / 2)


def normal_cdf(z: Doubles) -> Doubles:
    """The distribution function of the standard normal distribution."""
    both = [math.erf(one) for one in (np.ravel(z) / math.sqrt(2.0)).tolist()]
    return (1.0 + np.array(both).reshape(np.shape(z))) / 2.0


def normal_pdf(z: Doubles) -> Doubles:
    """The density of the standard normal distribution."""
    return np.asarray(np.exp(-(np.minimum(np.abs(z), 1e9) ** 2) / 2.0) / math.sqrt(2.0 * math.pi))

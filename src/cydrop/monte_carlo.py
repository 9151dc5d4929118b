"""Monte Carlo dropout: what is made of many predictions with dropout on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cydrop import losses

Floats = NDArray[np.float32]


@dataclass(eq=False)
class MonteCarlo:
    """What `Network.predict_mc` returns.

    Attributes
    ----------
    mean : ndarray, shape (n, k)
        Mean of the sampled predictions.
    std : ndarray, shape (n, k)
        Their standard deviation. For `gaussian_nll`, whose network predicts a variance as well, the square root of
        the total variance: of the sampled means, plus the mean of the sampled variances.
    entropy : ndarray or None
        Entropy of the mean prediction in nats: (n,) for cross-entropy, (n, k) for binary cross-entropy.
    mutual_information : ndarray or None
        entropy minus the mean entropy of the samples: what the model does not know (Houlsby et al. 2011).
    samples : ndarray or None
        All predictions, shape (samples, n, k), on request.
    """

    mean: Floats
    std: Floats
    entropy: Floats | None = None
    mutual_information: Floats | None = None
    samples: Floats | None = None


class Tally:
    """Mean, spread and entropies of Monte Carlo samples, one at a time, in float64 (Welford 1962)."""

    def __init__(self, loss: losses.Loss, shape: tuple[int, ...]) -> None:
        self.loss, self.count = loss, 0
        self.mean, self.squares = np.zeros(shape), np.zeros(shape)
        self.entropies: NDArray[np.float64] | float = 0.0

    def add(self, sample: Floats) -> None:
        self.count += 1
        change = sample - self.mean
        self.mean += change / self.count
        self.squares += change * (sample - self.mean)
        entropy = self._entropy()
        if entropy is not None:
            self.entropies = self.entropies + entropy(sample.astype(np.float64))

    def _entropy(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]] | None:
        if isinstance(self.loss, losses.CrossEntropy):
            return lambda p: _plogp(p).sum(axis=1)
        if isinstance(self.loss, losses.BinaryCrossEntropy):
            return lambda p: _plogp(p) + _plogp(1.0 - p)
        return None

    def result(self, samples: Floats | None) -> MonteCarlo:
        variance, mean = self.squares / self.count, self.mean
        if isinstance(self.loss, losses.GaussianNLL):
            half = mean.shape[1] // 2
            mean, variance = mean[:, :half], variance[:, :half] + mean[:, half:]
        entropy, information = None, None
        measure = self._entropy()
        if measure is not None:
            total = measure(mean)
            entropy = total.astype(np.float32)
            information = np.maximum(total - self.entropies / self.count, 0.0).astype(np.float32)
        return MonteCarlo(mean.astype(np.float32), np.sqrt(variance).astype(np.float32), entropy, information, samples)


def _plogp(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-p log p, 0 at 0."""
    return -p * np.log(np.where(p > 0, p, 1.0))

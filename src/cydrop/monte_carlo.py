"""Monte Carlo dropout: what is made of many predictions with dropout on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import losses
from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._core import tally as _tally
from cydrop._run.rows import Rows

Blocks: TypeAlias = Iterator[tuple[int, int, Floats]]  # first sample, first row, predictions (samples, rows, units)


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
    quantiles : ndarray or None
        Quantiles of the samples, shape (quantiles, n, units), on request.
    samples : ndarray or None
        All predictions, shape (samples, n, units), on request.
    """

    mean: Floats
    std: Floats
    entropy: Floats | None = None
    mutual_information: Floats | None = None
    quantiles: Floats | None = None
    samples: Floats | None = None

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
        if isinstance(loss, losses.CrossEntropy):
            return {"accuracy": float(np.mean(self.mean.argmax(axis=1) == data.likeliest()))}
        if isinstance(loss, losses.BinaryCrossEntropy):
            return {"accuracy": float(np.mean((self.mean > 0.5) == (data.targets > 0.5)))}
        return data.errors(self.mean)


def quantile_levels(quantiles: ArrayLike) -> NDArray[np.float64]:
    """Checked levels, one dimension."""
    levels = np.atleast_1d(checks.floats("quantiles", quantiles)).astype(np.float64)
    if levels.ndim != 1 or not levels.size or levels.min() < 0 or levels.max() > 1:
        raise ValueError(f"quantiles must be numbers in [0, 1], got {quantiles!r}")
    return levels


class Tally:
    """Mean, spread and entropies of Monte Carlo samples of shape (n, units), in float64 (Welford 1962)."""

    def __init__(self, loss: losses.Loss, shape: tuple[int, int], n_threads: int) -> None:
        self.loss, self.count, self.n_threads = loss, 0, n_threads
        self.mean, self.squares = np.zeros(shape), np.zeros(shape)
        self.binary = isinstance(loss, losses.BinaryCrossEntropy)
        wanted = self.binary or isinstance(loss, losses.CrossEntropy)
        self.entropies = np.zeros((shape[0] if wanted else 0, shape[1] if self.binary else 1))

    def add(self, first: int, start: int, block: Floats) -> None:
        """Samples number first, first + 1, ... of the rows from `start` on; each row's samples come in order."""
        rows = slice(start, start + block.shape[1])
        _tally.tally(
            block, first, self.mean[rows], self.squares[rows], self.entropies[rows], self.binary, self.n_threads
        )
        self.count = max(self.count, first + len(block))

    def _entropy(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]] | None:
        if isinstance(self.loss, losses.CrossEntropy):
            return lambda p: _plogp(p).sum(axis=1)
        if self.binary:
            return lambda p: _plogp(p) + _plogp(1.0 - p)
        return None

    def result(
        self, samples: Floats | None, kept: Floats | None = None, levels: NDArray[np.float64] | None = None
    ) -> MonteCarlo:
        """What was tallied; quantiles of `kept` at the levels, if any."""
        variance, mean = self.squares / self.count, self.mean
        if isinstance(self.loss, losses.GaussianNLL):
            half = mean.shape[1] // 2
            mean, variance = mean[:, :half], variance[:, :half] + mean[:, half:]
        entropy, information, quantiles = None, None, None
        measure = self._entropy()
        if measure is not None:
            total = measure(mean)
            entropy = total.astype(np.float32)
            average = self.entropies.reshape(total.shape) / self.count
            information = np.maximum(total - average, 0.0).astype(np.float32)
        if kept is not None and levels is not None:
            quantiles = np.quantile(kept, levels, axis=0).astype(np.float32)
        return MonteCarlo(
            mean.astype(np.float32), np.sqrt(variance).astype(np.float32), entropy, information, quantiles, samples
        )


class LogLikelihood:
    """log of the mean over samples of p(y | sample), row by row, as samples come in.

    Where y are class probabilities q, log p(y | sample) is sum q log p.
    """

    def __init__(self, loss: losses.Loss, data: Rows, noise_precision: float | None) -> None:
        self.loss, self.data, self.precision = loss, data, noise_precision
        self.known = noise_precision is not None or self.is_known(loss)
        self.total = np.full(len(data.X), -np.inf)

    @staticmethod
    def is_known(loss: losses.Loss) -> bool:
        """Whether the loss itself says how likely a target is."""
        return isinstance(loss, losses.CrossEntropy | losses.BinaryCrossEntropy | losses.GaussianNLL)

    def add(self, start: int, block: Floats) -> None:
        """Predictions of some samples for the rows from `start` on."""
        if self.known:
            rows = slice(start, start + block.shape[1])
            logs = self._log_density(block.astype(np.float64), rows)
            top = logs.max(axis=0)
            some = top + np.log(np.exp(logs - top).sum(axis=0))
            self.total[rows] = np.logaddexp(self.total[rows], some)

    def _log_density(self, p: NDArray[np.float64], rows: slice) -> NDArray[np.float64]:
        """log p(y | sample), shape (samples, rows)."""
        if isinstance(self.loss, losses.CrossEntropy):
            if not len(self.data.labels):
                return np.asarray((self.data.targets[rows] * np.log(np.maximum(p, 1e-300))).sum(axis=2))
            label = self.data.labels[rows]
            chosen: NDArray[np.float64] = np.log(np.maximum(p[:, np.arange(p.shape[1]), label], 1e-300))
            return chosen
        y = self.data.targets[rows].astype(np.float64)
        if isinstance(self.loss, losses.BinaryCrossEntropy):
            right, wrong = np.log(np.maximum(p, 1e-300)), np.log(np.maximum(1.0 - p, 1e-300))
            return np.asarray((y * right + (1.0 - y) * wrong).sum(axis=2))
        if isinstance(self.loss, losses.GaussianNLL):
            half = p.shape[2] // 2
            p, precision = p[:, :, :half], 1.0 / np.maximum(p[:, :, half:], 1e-300)
        else:
            assert self.precision is not None
            precision = np.full(p.shape, self.precision)
        densities = np.log(precision) - math.log(2 * math.pi) - precision * (y - p) ** 2
        return np.asarray(densities.sum(axis=2) / 2)

    def result(self, samples: int) -> dict[str, float]:
        return {"log_likelihood": float(np.mean(self.total - math.log(samples)))} if self.known else {}


def _plogp(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-p log p, 0 at 0."""
    return -p * np.log(np.where(p > 0, p, 1.0))

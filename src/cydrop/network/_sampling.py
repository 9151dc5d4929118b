"""Monte Carlo dropout, as a network offers it."""

from __future__ import annotations

from numpy.typing import ArrayLike

from cydrop import distributed, monte_carlo
from cydrop._base import seeding
from cydrop._run.core import Cored, core_of
from cydrop.distributed import DataParallel
from cydrop.monte_carlo import MonteCarlo


class Sampling(Cored):
    """Predictions with dropout on."""

    def predict_mc(
        self,
        X: ArrayLike,
        samples: int = 100,
        *,
        seed: seeding.Seed = None,
        return_samples: bool = False,
        quantiles: ArrayLike | None = None,
        drop_connect: str = "masks",
        rate: float | None = None,
        parallel: DataParallel | None = None,
    ) -> MonteCarlo:
        """Monte Carlo dropout (Gal and Ghahramani 2016): predictions with dropout on, many times over.

        What comes before the first layer that draws is computed once. Of a network with `Members` or `Masksembles` each
        sample is one member's, in turn: mean and spread are over members and masks. The threads share the samples; the
        result has the same bits on any number of them.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        samples : int >= 1
        seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
            Seed of the masks; the network's own random state is untouched.
        return_samples : bool
            Whether `.samples` keeps all predictions, shape (samples, n_samples, units).
        quantiles : array-like of numbers in [0, 1], or None
            Which quantiles of the samples `.quantiles` holds. All samples are kept in memory to compute them.
        drop_connect : "masks" or "moments"
            How the weights of `Dense(drop_connect=...)` vary: dropped anew in every sample, or their layer's outputs
            drawn from normal distributions of the same mean and variance (Wan et al. 2013).
        rate : float in [0, 1] or None
            Probability of dropping in all dropout layers, instead of their own. None takes theirs; for schedules the
            value at the end of training, with which the weights were last trained. Where nothing would be dropped then
            (dropout that fades out), it takes the values in the middle of training, with a warning.
        parallel : cydrop.distributed.DataParallel or None
            Divides the rows among the ranks of its communicator, which all make the call; each gets
            the result, or, of partitioned rows, that of its own.

        Returns
        -------
        MonteCarlo
            with mean, std and, for classifiers, entropy and mutual_information.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments.

        Warns
        -----
        UserWarning
            Where nothing is drawn, so that all samples are the same and the spread is 0, which is not certainty; and
            where the rates are those of the middle of training.
        """
        return monte_carlo.predict_mc(
            core_of(self),
            X,
            samples,
            seed,
            return_samples,
            quantiles,
            drop_connect,
            rate,
            distributed.team_of(parallel),
        )

    def evaluate_mc(
        self,
        X: ArrayLike,
        y: ArrayLike,
        samples: int = 100,
        *,
        noise_precision: float | None = None,
        seed: seeding.Seed = None,
        drop_connect: str = "masks",
        rate: float | None = None,
        parallel: DataParallel | None = None,
    ) -> dict[str, float]:
        """How well Monte Carlo dropout predicts (Gal and Ghahramani 2016).

        Parameters
        ----------
        X, y
            As for `fit`.
        samples : int >= 1
        noise_precision : float > 0 or None
            For regression, such as with "mse": the precision (1 / variance, in units of 1 / y^2) of the noise in y,
            without which there is no likelihood. "gaussian_nll" predicts its own.
        seed, drop_connect, rate
            As for `predict_mc`.
        parallel : cydrop.distributed.DataParallel or None
            As for `evaluate`.

        Returns
        -------
        dict of str to float
            "log_likelihood": log of the mean over the samples of p(y | x, sample), in nats, the mean over rows; for
            regression only with noise. "accuracy" of the mean prediction for classifiers; its "rmse" and "mae" for
            regression.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments.
        """
        return monte_carlo.evaluate_mc(
            core_of(self), X, y, samples, noise_precision, seed, drop_connect, rate, distributed.team_of(parallel)
        )

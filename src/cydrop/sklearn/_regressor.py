"""The regressor, and what makes its task one: numbers, their error, R^2."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if

from cydrop import losses, monte_carlo
from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._base.naming import named_after_class
from cydrop._run.core import core_of
from cydrop.calibration import SAMPLES, Intervals, Prediction
from cydrop.monte_carlo import MonteCarlo
from cydrop.sklearn._base import MLP, outputs
from cydrop.sklearn._data import Data
from cydrop.sklearn._documentation import documented, listed
from cydrop.sklearn._parameters import keep
from cydrop.sklearn._task import Task, quantiles
from cydrop.sklearn._training import goes_on, train


@named_after_class
@documented(
    parameters=f"""
    loss : {listed(losses.OF_REGRESSORS)} or a loss object
        The squared error is halved, as in scikit-learn. "gaussian_nll" predicts a variance as well, "pinball" quantiles
        (0.05, 0.5 and 0.95); `predict` gives the mean or the quantile nearest to 0.5. An object, such as
        `losses.Pinball((0.1, 0.5, 0.9))`, has options.
""",
    score="R^2",
    stratified="",
    predict="predict_interval",
    by_loss=' With "gaussian_nll" and "pinball" their loss decides.',
    attributes="\n",
)
class MLPRegressor(RegressorMixin, Intervals, MLP):
    """A multi-layer perceptron regressor with dropout: scikit-learn's `MLPRegressor` on cydrop.

    One target, or several, y of shape (n_samples, n_outputs). Targets far from 0 and 1 in size train better inside
    `sklearn.compose.TransformedTargetRegressor`.
    """

    _target_shape: tuple[int, ...]  # of a row of y; this name is in pickles

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        loss: str | losses.Loss = "squared_error",
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float | Sequence[float] = 0.0,
        dropout_mode: str = "inverted",
        dropout_schedule: Callable[[float], float] | None = None,
        max_norm: float | None = None,
        n_threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        keep(self, locals())

    def _task(self) -> Task:
        return Regression(self)

    @available_if(goes_on)
    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> MLPRegressor:
        """One pass over the rows; a further call goes on from there, with the parameters as they are then.
        `early_stopping` plays no part.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        AttributeError
            With solver="lbfgs".
        ValueError, TypeError, DivergedError
            As for `fit`; also for a `dropout_schedule`.
        """
        return train(self._task(), X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The predicted targets.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_outputs)
        """
        output = Regression(self).center(outputs(self, X), self.network_.loss)
        return output.reshape(len(output), *self._target_shape)

    def predict_quantiles(self, X: Any) -> NDArray[np.float64]:
        """The predicted quantiles, with loss="pinball", as they were learned: `predict_interval` moves them so that
        they hold.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples, n_quantiles), of several targets (n_samples, n_quantiles, n_outputs)
            In ascending order.

        Raises
        ------
        ValueError
            With another loss.
        """
        output = outputs(self, X)
        levels = len(self.network_.loss.levels)
        if not levels:
            raise ValueError(f"predict_quantiles needs loss='pinball', got {self.loss!r}")
        return output.reshape(len(output), levels, *self._target_shape)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class Regression(Task):
    """Of one number per row, or of several."""

    estimator: MLPRegressor
    numeric = True

    def encoded(self, y: NDArray[Any], fresh: bool, classes: ArrayLike | None = None, name: str = "y") -> NDArray[Any]:
        target = checks.floats(name, y)
        shape = target[0].shape if fresh else self.estimator._target_shape
        if target[0].shape != shape:
            raise ValueError(f"{name} has shape {target.shape}, the estimator was fitted for rows of shape {shape}")
        self.estimator._target_shape = shape
        return target

    def loss(self) -> tuple[losses.Loss, float]:
        chosen = losses.for_regressor(self.estimator.loss)
        return chosen, chosen.sklearn_factor * math.prod(self.estimator._target_shape)

    def n_outputs(self, data: Data) -> int:
        return self.loss()[0].units(super().n_outputs(data))

    def center(self, output: NDArray[Any], loss: losses.Loss) -> NDArray[Any]:
        """Of each row's outputs the number for each target."""
        return loss.center(output, math.prod(self.estimator._target_shape))

    def said(self, X: Floats) -> Prediction:
        network = self.estimator.network_
        outputs = network.predict(X)
        if not monte_carlo.varies(core_of(network), None):
            return Prediction(outputs)
        seed = seeding.branch(core_of(network).root, seeding.CALIBRATION)
        return Prediction(outputs, network.predict_mc(X, SAMPLES, seed=seed).std)

    def known(self, target: NDArray[Any]) -> NDArray[Any]:
        return target.reshape(len(target), -1)

    def out_activation(self) -> str:
        return "identity"

    def judge(self, output: Floats, data: Data) -> tuple[float, float]:
        output = losses.for_regressor(self.estimator.loss).center(output, math.prod(data.target.shape[1:]))
        y = data.target.reshape(output.shape).astype(np.float64)
        weight = data.weight[:, None]
        error = (weight * (y - output) ** 2).sum(axis=0)
        spread = (weight * (y - np.average(y, axis=0, weights=data.weight)) ** 2).sum(axis=0)
        varies = spread > 0
        r2 = 1.0 - error / np.where(varies, spread, data.unit * data.weight.sum())
        # of a constant target the score is 1 where it is met, else 0, as in sklearn.metrics.r2_score
        score = np.where(varies, r2, np.where(error == 0, 1.0, 0.0))
        return float(np.mean(score)), float(np.mean(r2))

    def shaped(self, mc: MonteCarlo, levels: NDArray[np.float64] | None, keep: bool) -> MonteCarlo:
        units = self.estimator.n_outputs_  # of the samples; mean and spread may be of the targets alone

        def shaped(array: NDArray[Any]) -> Floats:
            array = self.center(array, self.estimator.network_.loss) if array.shape[-1] == units else array
            return array.reshape(*array.shape[:-1], *self.estimator._target_shape).astype(np.float32, copy=False)

        return MonteCarlo(
            shaped(mc.mean),
            shaped(mc.std),
            quantiles=None if levels is None else shaped(quantiles(mc.samples, levels)),
            samples=shaped(mc.samples) if keep and mc.samples is not None else None,
            total=None if mc.total is None else shaped(mc.total),
            aleatoric=None if mc.aleatoric is None else shaped(mc.aleatoric),
            epistemic=None if mc.epistemic is None else shaped(mc.epistemic),
            n_samples=mc.n_samples,
        )

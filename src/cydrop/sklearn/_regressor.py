"""The regressor, and what makes its task one: numbers, their error, R^2."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if

from cydrop import losses
from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._base.naming import named_after_class
from cydrop.monte_carlo import MonteCarlo
from cydrop.sklearn._base import MLP, outputs
from cydrop.sklearn._data import Data
from cydrop.sklearn._documentation import documented, listed
from cydrop.sklearn._parameters import REGRESSION_LOSSES, keep
from cydrop.sklearn._task import Task, quantiles
from cydrop.sklearn._training import goes_on, train


@named_after_class
@documented(
    parameters=f"""
    loss : {listed(REGRESSION_LOSSES)}
        The squared error is halved, as in scikit-learn.
""",
    score="R^2",
    stratified="",
    attributes="\n",
)
class MLPRegressor(RegressorMixin, MLP):
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
        loss: str = "squared_error",
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
        output = outputs(self, X)
        return output.reshape(len(output), *self._target_shape)

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
        cls = checks.choice("loss", self.estimator.loss, REGRESSION_LOSSES)
        return cls(), cls.sklearn_factor * math.prod(self.estimator._target_shape)

    def out_activation(self) -> str:
        return "identity"

    def judge(self, output: Floats, data: Data) -> tuple[float, float]:
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
        def shaped(array: NDArray[Any]) -> Floats:
            return array.reshape(*array.shape[:-1], *self.estimator._target_shape).astype(np.float32, copy=False)

        return MonteCarlo(
            shaped(mc.mean),
            shaped(mc.std),
            quantiles=None if levels is None else shaped(quantiles(mc.samples, levels)),
            samples=shaped(mc.samples) if keep and mc.samples is not None else None,
            total=None if mc.total is None else shaped(mc.total),
            epistemic=None if mc.epistemic is None else shaped(mc.epistemic),
        )

"""What both estimators do: train, predict with dropout on, show their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils.validation import check_is_fitted, validate_data

from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop.calibration import CalibratedEstimator, Calibration, Prediction
from cydrop.callbacks import Callback
from cydrop.distributed import DataParallel
from cydrop.monte_carlo import MonteCarlo, quantile_levels
from cydrop.sklearn._coefs import Arrays
from cydrop.sklearn._parameters import Estimator
from cydrop.sklearn._task import Task
from cydrop.sklearn._training import calibration_of, further, train

SPARSE_CHUNK = 2**24  # elements of a sparse X that are made dense at a time in prediction


class MLP(CalibratedEstimator, Estimator, ABC):
    """Base of both estimators."""

    @abstractmethod
    def _task(self) -> Task:
        """What is to be learned, with what was learned about the targets."""

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        callbacks: Sequence[Callback] | None = (),
        parallel: DataParallel | None = None,
    ) -> Any:
        """Trains from the start, or with `warm_start=True` from where the last call ended.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Converted to float32, and made dense. A memory-mapped file of float32 in C order is read where it lies; its
            rows are copied where `early_stopping` or weights of 0 leave some out.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like, shape (n_samples,), or None
            Multiplies each row's loss. Rows of weight 0 are left out.
        X_val, y_val : array-likes as X and y, or None
            Rows to validate on. `early_stopping` then uses them, and holds nothing out; without it their loss and score
            are recorded (`validation_loss_curve_`, `validation_scores_`), and decide nothing. For a classifier
            `class_weight` applies to them too.
        callbacks : sequence of `cydrop.callbacks`
            Called after each epoch of `network_`, once the estimator's records are up to date. With rows to validate on
            there are "val_loss" and others to monitor. Where `EarlyStopping` puts its best epoch back, it has the last
            word.
        parallel : `cydrop.distributed.DataParallel` or None
            Cuts each batch into shards, whose gradients are added in an order that does not depend on who computes
            them.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For unusable parameters or data, including y_val with unknown labels, and for validation rows,
            callbacks or parallel with "lbfgs", which has no epochs; the estimator is left as it was.
        DivergedError
            When the loss stops being finite; the weights are those of the last finished epoch ("lbfgs": the first).
        """
        return train(
            self._task(), X, y, sample_weight, incremental=False, held_out=(X_val, y_val), listeners=callbacks,
            parallel=parallel,
        )  # fmt: skip

    def predict_mc(
        self,
        X: Any,
        samples: int = 100,
        *,
        seed: seeding.Seed = None,
        return_samples: bool = False,
        quantiles: ArrayLike | None = None,
        rate: float | None = None,
    ) -> MonteCarlo:
        """Monte Carlo dropout (Gal and Ghahramani 2016): predictions with dropout on, many times over.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
        samples : int >= 1
        seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
            Seed of the masks. None takes `random_state` where that is an int, and fresh entropy otherwise.
        return_samples : bool
            Whether `.samples` keeps all predictions.
        quantiles : array-like of numbers in [0, 1], or None
            Which quantiles of the samples `.quantiles` holds.
        rate : float in [0, 1] or None
            Probability of dropping after all layers, instead of `dropout`. None takes `dropout`; with a
            `dropout_schedule` its value at the end of training or, where that is 0, in the middle, with a warning.

        Returns
        -------
        MonteCarlo
            `.mean` and `.std` in the shape of `predict_proba` (classifier) or `predict` (regressor), `.quantiles` and
            `.samples` with one dimension in front; for classifiers `.entropy` and `.mutual_information`, (n_samples,)
            or, for several labels, (n_samples, n_outputs).

        Raises
        ------
        sklearn.exceptions.NotFittedError
        ValueError, TypeError
            For unusable arguments.
        """
        X = rows(self, X)
        if seed is None and isinstance(self.random_state, int | np.integer):
            seed = int(self.random_state)
        levels = None if quantiles is None else quantile_levels(quantiles)
        keep = checks.flag("return_samples", return_samples) or levels is not None
        dense = X.toarray() if sparse.issparse(X) else X
        mc = self.network_.predict_mc(dense, samples, seed=seed, return_samples=keep, rate=rate)
        return self._task().shaped(mc, levels, return_samples)

    def _made_of(self, X: Any, y: Any) -> Calibration:
        return calibration_of(self._task(), further(self._task(), X, y))

    def _check_fitted(self) -> None:
        check_is_fitted(self, "network_")

    def _said(self, X: Any, calibration: Calibration) -> list[Prediction]:
        X = rows(self, X)
        return [self._task().said(X.toarray() if sparse.issparse(X) else X)]

    @property
    def coefs_(self) -> list[Floats]:
        """Weights of each layer, shape (fan-in, units), views as in `network_.parameters()`. Others may be assigned,
        to `coefs_` or to `coefs_[number]`; they are copied. ValueError for a different number or shape or for values
        that float32 cannot hold, TypeError for what is not numeric; then all stay as they were."""
        return Arrays("coefs_", self._fitted("weight"))

    @coefs_.setter
    def coefs_(self, arrays: Any) -> None:
        self.coefs_[:] = arrays

    @property
    def intercepts_(self) -> list[Floats]:
        """Biases of each layer, shape (units,), views as well, and assigned like `coefs_`."""
        return Arrays("intercepts_", self._fitted("bias"))

    @intercepts_.setter
    def intercepts_(self, arrays: Any) -> None:
        self.intercepts_[:] = arrays

    def _fitted(self, what: str) -> list[Floats]:
        if not hasattr(self, "network_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return [array for name, array in self.network_.parameters().items() if name.endswith(what)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def rows(estimator: Estimator, X: Any) -> Any:
    """Checked rows to predict, dense or sparse."""
    check_is_fitted(estimator, "network_")
    return validate_data(estimator, X, reset=False, dtype=np.float32, order="C", accept_sparse="csr")


def outputs(estimator: Estimator, X: Any, raw: bool = False) -> NDArray[np.float64]:
    """What the network predicts, shape (n_samples, n_outputs), or its raw outputs, before the link."""
    X = rows(estimator, X)
    run = estimator.network_.forward if raw else estimator.network_.predict
    if not sparse.issparse(X):
        return run(X).astype(np.float64)
    step = max(1, SPARSE_CHUNK // X.shape[1])
    parts = [run(X[row : row + step].toarray()) for row in range(0, X.shape[0], step)]
    return np.concatenate(parts).astype(np.float64)

"""What the estimators for tables have in common, whatever their recipe."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from cydrop._base import checks, seeding
from cydrop._base.parameters import with_defaults
from cydrop.calibration import CalibratedEstimator, Calibration, Intervals, Prediction, Sets
from cydrop.distributed import DataParallel
from cydrop.history import History
from cydrop.monte_carlo import MonteCarlo
from cydrop.network import Network
from cydrop.tabular import _files, _onnx, _sampling
from cydrop.tabular._calibrated import Meaning, Member, calibration_of, prediction, prepared
from cydrop.tabular._columns import Doubles
from cydrop.tabular._parts import Part, Rows
from cydrop.tabular._recipe import CLASSES, NUMBERS, Family
from cydrop.tabular._table import Schema
from cydrop.tabular._training import fit, further_rows, read
from cydrop.tabular._warnings import warn_of_unknown

HINTS = dict.fromkeys(  # what others call it
    ("eval_set", "validation_data"), "; rows to validate on are X_val=..., y_val=..."
)


class TableEstimator(CalibratedEstimator, BaseEstimator, ABC):
    """Base of all estimators."""

    schema_: Schema
    parts_: list[Part]
    calibration_: Calibration | None
    n_features_in_: int
    target_shape_: tuple[int, ...]  # of a regressor
    task: ClassVar[str]
    family: ClassVar[Family]

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        X_val: Any = None,
        y_val: Any = None,
        *,
        parallel: DataParallel | None = None,
        **kwargs: Any,
    ) -> Any:
        """Trains from the start.

        Parameters
        ----------
        X : DataFrame (pandas or polars) or array-like, shape (n_samples, n_features)
            As it is: categories, missing cells (NaN, None, pandas.NA, NaT, null) and numbers of any size.
        y : array-like, shape (n_samples,), or for a regressor (n_samples, n_targets)
        sample_weight : array-like, shape (n_samples,), or None
            Multiplies each row's loss, and its part in the validation. Rows of weight 0 are left out.
        X_val, y_val : as X and y, or None
            Rows that choose the best epoch, instead of a share of X.
        parallel : `cydrop.distributed.DataParallel` or None
            Cuts each batch into shards, whose gradients are added in an order that does not depend on who computes
            them. For RealMLP; TabM refuses it.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For unusable parameters or data, such as dates, infinite numbers, or y_val with unknown labels; the
            estimator is left as it was.
        DivergedError
            When a loss stops being finite; the estimator is left as it was.
        """
        for name in kwargs:
            raise TypeError(
                f"{type(self).__name__}.fit() got an unexpected keyword argument {name!r}{HINTS.get(name, '')}"
            )
        fit(self, X, y, sample_weight, X_val, y_val, parallel, self._calibrate)
        return self

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

        Each network makes an equal share of the samples, so that the spread contains how much the networks differ. A
        sample of TabM is the prediction of one of its members, each in turn: how much they differ is in the spread too.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n_samples, n_features)
        samples : int >= 1
        seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
            Seed of the masks. None takes `random_state` where that is an int, and fresh entropy otherwise.
        return_samples : bool
            Whether `.samples` keeps all predictions.
        quantiles : array-like of numbers in [0, 1], or None
            Which quantiles of the samples `.quantiles` holds.
        rate : float in [0, 1] or None
            Probability of dropping. None takes `dropout`, in RealMLP the rate of the first half of training (at its end
            the rate has faded to 0, and all samples would be the same). With `dropout=0` or `small=True` there is no
            dropout: only networks differ, and the members of TabM.

        Returns
        -------
        MonteCarlo
            `.mean` and `.std` in the shape of `predict_proba` (classifier) or `predict` (regressor; with
            loss="gaussian_nll" `.std` contains the predicted variance, `.aleatoric`), `.quantiles` and
            `.samples` with one dimension in front; for classifiers `.entropy` and `.mutual_information`, (n_samples,).
            All in float64.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            For unusable arguments, such as a rate where there is no dropout.

        Warns
        -----
        UserWarning
            Where nothing is drawn, so that all samples of a network are the same; the spread of one network is then 0,
            which is not certainty.
        """
        members = self._members(X)
        if seed is None and isinstance(self.random_state, int | np.integer):
            seed = int(self.random_state)
        return _sampling.predict_mc(
            [member for member in members for _ in range(member[0].share)],
            self._values,
            samples,
            seed,
            return_samples,
            quantiles,
            self._sampled_rate(rate),
            self._noise,
        )

    def _sampled_rate(self, rate: float | None) -> float | None:
        """The probability of dropping in samples; None without dropout."""
        drops = _sampling.drops(self.network_.layers)
        if rate is None:
            return float(self.dropout) if drops else None
        if checks.rate("rate", rate) and not drops:
            why = "small=True" if getattr(self, "small", False) else "dropout=0"
            raise ValueError(f"rate={rate} has nothing to act on: with {why} the networks have no dropout layers")
        return rate if drops else None

    def save(self, path: Any) -> None:
        """Writes the fitted estimator to a file: parameters, columns, what was learned from them, and the networks.

        `cydrop.tabular.load(path)` gives it back; predictions have the same bits. The file is a zip archive of a
        description in JSON and the networks' own files, without pickles. It is written under a temporary name and
        renamed, as by `Network.save`.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            For what a file cannot hold, before anything is written: labels that are neither text nor numbers.
        OSError
            When the file cannot be written; it is named.
        """
        check_is_fitted(self, "parts_")
        _files.save(self, path)

    def to_onnx(self, graph: Any) -> tuple[list[Any], list[Any]]:
        """Adds the nodes of the fitted estimator to an ONNX graph. To write a model, call `cydrop.onnx.export`.

        Parameters
        ----------
        graph : graph of `cydrop.onnx`

        Returns
        -------
        (list, list)
            Its inputs and outputs.
        """
        return _onnx.nodes(self, graph)

    @property
    def networks_(self) -> list[Network]:
        """All trained networks, fold by fold."""
        return [network for part in self._fitted_parts() for network in part.networks]

    @property
    def network_(self) -> Network:
        """The first of the trained networks."""
        return self.networks_[0]

    @property
    def histories_(self) -> list[History]:
        """The values of every epoch of each network, in the order of `networks_`."""
        return [history for part in self._fitted_parts() for history in part.histories]

    @property
    def history_(self) -> History:
        """The values of every epoch of the first network."""
        return self.histories_[0]

    @property
    def best_epochs_(self) -> list[int]:
        """The epoch that was kept of each network, counted from 1, in the order of `networks_`."""
        return [epoch for part in self._fitted_parts() for epoch in part.best_epochs]

    @property
    def n_iter_(self) -> int:
        """How many epochs each network was trained for."""
        return len(self.history_)

    def _fitted_parts(self) -> list[Part]:
        if not hasattr(self, "parts_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return self.parts_

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        with_defaults(self)

    def _check_fitted(self) -> None:
        check_is_fitted(self, "parts_")

    def _members(self, X: Any) -> list[Member]:
        """All networks, with their input rows."""
        self._check_fitted()
        table = read(self, self.schema_, X)
        warn_of_unknown(self.schema_, table, self.parts_[0].preprocessor.known)
        return prepared(self.parts_, table)

    def _made_of(self, X: Any, y: Any) -> Calibration:
        return calibration_of(self._meaning(), self.parts_, [], further_rows(self, self.schema_, X, y))

    def _calibrate(self, left_out: list[Rows], kept: Rows | None) -> None:
        """By rows that nothing was chosen by, or by those that each part left out."""
        there = kept is not None or left_out
        self.calibration_ = calibration_of(self._meaning(), self.parts_, left_out, kept) if there else None

    def _meaning(self) -> Meaning:
        targets = 0 if self.task == CLASSES else math.prod(self.target_shape_)
        return Meaning(targets, self._values, self._sampled_rate(None), self.family.clamped(self))

    def _said(self, X: Any, calibration: Calibration) -> list[Prediction]:
        members = self._members(X)
        if calibration.folds == 1:
            return [prediction(self._meaning(), members)]
        of_parts = [[member for member in members if member[0] is part] for part in self.parts_]
        return [prediction(self._meaning(), some) for some in of_parts]

    @abstractmethod
    def _values(self, part: Part, output: NDArray[Any]) -> Doubles:
        """What a network's output means, with any dimensions in front: probabilities, or targets in their shape."""

    def _noise(self, part: Part, output: NDArray[Any]) -> Doubles | None:
        """The variance that a network predicts, in the shape of what its output means; None: it predicts none."""
        return None

    def _mean(self, X: Any) -> Doubles:
        """The mean of what the networks predict."""
        members = self._members(X)
        total = self._values(members[0][0], members[0][1].predict(members[0][2])) * members[0][0].share
        for part, network, rows in members[1:]:
            total += self._values(part, network.predict(rows)) * part.share
        return total / sum(part.share for part, _, _ in members)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags


class TableClassifier(ClassifierMixin, Sets, TableEstimator):
    """Base of the classifiers."""

    classes_: NDArray[Any]
    task = CLASSES

    def _values(self, part: Part, output: NDArray[Any]) -> Doubles:
        if len(self.classes_) == 1:  # the network has two outputs, and has learned nothing
            return np.ones((*output.shape[:-1], 1))
        p = output.astype(np.float64)
        return np.asarray(p / p.sum(axis=-1, keepdims=True))

    def predict_proba(self, X: Any) -> Doubles:
        """The probability of each class: the mean over the networks.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n_samples, n_features)
            With the columns of the table in `fit`. A category that `fit` did not see counts as missing.

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
            In the order of `classes_`; rows sum to 1.
        """
        return self._mean(X)

    def predict_log_proba(self, X: Any) -> Doubles:
        """The logarithm of `predict_proba`; -inf where a probability rounds to 0.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,), of the type of the labels
        """
        places = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[places])


class TableRegressor(RegressorMixin, Intervals, TableEstimator):
    """Base of the regressors."""

    task = NUMBERS

    def _values(self, part: Part, output: NDArray[Any]) -> Doubles:
        assert part.standard is not None
        center = part.networks[0].loss.center(output, math.prod(self.target_shape_))
        y = part.standard.undone(center, clamped=self.family.clamped(self))
        return y.reshape(*y.shape[:-1], *self.target_shape_)

    def _noise(self, part: Part, output: NDArray[Any]) -> Doubles | None:
        variances = part.networks[0].loss.noise(output.reshape(-1, output.shape[-1]).astype(np.float64))
        if variances is None:
            return None
        assert part.standard is not None
        return (variances * part.standard.scale**2).reshape(*output.shape[:-1], *self.target_shape_)

    def predict_quantiles(self, X: Any) -> Doubles:
        """The predicted quantiles, with loss="pinball", as they were learned: `predict_interval` moves them so that
        they hold.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples, n_quantiles), of several targets (n_samples, n_quantiles, n_targets)
            In ascending order; of several networks their mean.

        Raises
        ------
        ValueError
            With another loss.
        """
        members = self._members(X)
        levels = len(members[0][1].loss.levels)
        if not levels:
            raise ValueError(f"predict_quantiles needs loss='pinball', got {self.loss!r}")
        outputs = prediction(self._meaning(), members).outputs
        return outputs.reshape(len(outputs), levels, *self.target_shape_)

    def predict(self, X: Any) -> Doubles:
        """The predicted targets: the mean over the networks.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n_samples, n_features)
            With the columns of the table in `fit`. A category that `fit` did not see counts as missing.

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_targets)
        """
        return self._mean(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

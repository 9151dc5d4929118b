"""What a model made of rows that it was not trained on, and the intervals and sets that follow from it.

    calibrate: y and predictions of rows kept aside -> Calibration
    predict_interval, predict_set: predictions of new rows + Calibration -> `cydrop._base.conformal`

Networks, ensembles and estimators have one each; the rows of an ensemble of folds come fold by fold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks, conformal
from cydrop._base.conformal import Band, Doubles
from cydrop.losses import Loss

__all__ = [
    "FREE",
    "PENALTY",
    "SAMPLES",
    "CalibratedEstimator",
    "Calibration",
    "Intervals",
    "Prediction",
    "Sets",
    "checked_coverage",
]

KINDS = "adaptive", "smallest"  # of sets
PENALTY, FREE = 0.01, 1  # of classes in an adaptive set, and how many go without
SAMPLES = 32  # of Monte Carlo dropout, by which estimators know the standard deviation of numbers
LEAST = 0.01  # of a scale, in units of the mean scale of the calibration rows
FLOORS = 10.0 ** np.arange(-3.0, 3.25, 0.25)  # in units of the mean square of the spread


class Prediction(NamedTuple):
    """What a model predicts: values or probabilities, (n, units), and, where it is known besides, the standard
    deviation of y, (n, targets)."""

    outputs: NDArray[Any]
    spread: NDArray[Any] | None = None

    def doubles(self) -> Prediction:
        spread = None if self.spread is None else np.asarray(self.spread, dtype=np.float64)
        return Prediction(np.asarray(self.outputs, dtype=np.float64), spread)

    def rows(self, some: NDArray[Any]) -> Prediction:
        return Prediction(self.outputs[some], None if self.spread is None else self.spread[some])


@dataclass(eq=False, frozen=True)
class Calibration:
    """Rows that a model was not trained on, with what it predicted for them: what its intervals and sets are made from.

    Attributes
    ----------
    loss : Loss
        That the predictions are for.
    y : ndarray
        Targets of regression, float64 of shape (n, targets); codes of classes, (n,).
    predicted : Prediction
        For each row by a model that was not trained on it, in float64.
    fold : ndarray of int, shape (n,)
        Which of the models it was; 0 where there is one.
    """

    loss: Loss
    y: NDArray[Any]
    predicted: Prediction
    fold: NDArray[np.intp]

    def __post_init__(self) -> None:
        if not len(self.y):
            raise ValueError("no row is left to calibrate with: at least 1 is needed, and 9 for a coverage of 0.9")

    @classmethod
    def of(cls, loss: Loss, y: NDArray[Any], predicted: Prediction, fold: NDArray[Any] | None = None) -> Calibration:
        """In the types that are computed with."""
        y = y.astype(np.intp) if y.ndim == 1 else y.astype(np.float64)
        fold = np.zeros(len(y), dtype=np.intp) if fold is None else fold.astype(np.intp)
        return cls(loss, y, predicted.doubles(), fold)

    @classmethod
    def read(
        cls, loss: Loss, y: NDArray[Any], predicted: Prediction, fold: NDArray[Any] | None, models: int
    ) -> Calibration:
        """Of numbers from a file, which need not be what such a calibration of so many models has."""
        outputs, spread = predicted
        classes = 2 if loss.binary else outputs.shape[1]
        for name, whole, limit in (("y", y if y.ndim == 1 else None, classes), ("fold", fold, models)):
            if whole is not None and ((whole != np.floor(whole)) | (whole < 0) | (whole >= limit)).any():
                raise ValueError(f"the {name} of its calibration has others than whole numbers from 0 to {limit - 1}")
        if loss.predictions == "probabilities" and ((outputs < 0) | (outputs > 1)).any():
            raise ValueError("the probabilities of its calibration are not between 0 and 1")
        if spread is not None and (spread < 0).any():
            raise ValueError("the spread of its calibration is negative")
        return cls.of(loss, y, predicted, fold)

    def __repr__(self) -> str:
        return f"<cydrop.Calibration of {len(self.y):,} rows{f' in {self.folds} folds' if self.folds > 1 else ''}>"

    @property
    def folds(self) -> int:
        """How many models there are."""
        return int(self.fold.max()) + 1

    def _by_fold(self) -> list[NDArray[np.intp]]:
        return [np.flatnonzero(self.fold == number) for number in range(self.folds)]

    # Numbers ------------------------------------------------------------------------------------------------

    @cached_property
    def _floor(self) -> Doubles | None:
        """Of a loss that predicts no variance, where the model's own spread is known: the standard deviation, of each
        target, of what the spread does not know of; their squares are added. Of those tried the one by which errors are
        likeliest, as Laplace's distribution of any width has them. Infinite: the spread tells nothing."""
        spread = self.predicted.spread
        if spread is None or self.loss.noise(self.predicted.outputs) is not None:
            return None
        error = np.abs(self.y - self.loss.center(self.predicted.outputs, self.y.shape[1]))
        found = np.full(self.y.shape[1], np.inf)
        for place, (e, s) in enumerate(zip(error.T, spread.T, strict=True)):
            if not e.any() or not s.any():
                continue
            unit = s.max()
            best, s = np.log(e.mean() / unit), s / unit
            for floor in np.sqrt((s**2).mean() * FLOORS):
                scale = np.sqrt(s**2 + floor**2)
                minus_log_likelihood = np.log((e / unit / scale).mean()) + np.log(scale).mean()
                if minus_log_likelihood < best:
                    best, found[place] = minus_log_likelihood, unit * floor
        return found

    def _bands(self, said: Prediction, coverage: float, least: Doubles | np.float64) -> list[Band]:
        """What a model says of each target; no scale is less than these."""
        spread, floor = said.spread, self._floor
        if spread is not None and floor is not None:
            known = np.isfinite(floor)
            unit = np.maximum(np.where(known, floor, 1.0), np.finfo(np.float64).tiny)  # squares stay finite
            spread = np.where(known, unit * np.sqrt((spread / unit) ** 2 + 1.0), 1.0)
        lower, upper, scale = self.loss.band(said.outputs, spread, coverage)
        scale = np.maximum(scale, least)
        return [Band(lower[:, place], upper[:, place], scale[:, place]) for place in range(self.y.shape[1])]

    def interval(self, said: Sequence[Prediction], coverage: Any) -> Doubles:
        """Intervals of new rows.

        Parameters
        ----------
        said : sequence of Prediction
            Of the new rows, by the model of each fold.
        coverage : float in (0, 1)

        Returns
        -------
        ndarray, shape (n, 2), of several targets (n, targets, 2)
            Lower and upper ends; each target's interval has the coverage.

        Raises
        ------
        ValueError
            For a coverage that so few rows cannot promise.
        """
        coverage = checked_coverage(coverage)
        mean = np.array([band.scale.mean() for band in self._bands(self.predicted, coverage, np.float64(0.0))])
        least = np.where(mean > 0, LEAST * mean, 1.0)  # of scales of nothing but 0: the same for all rows
        folds = self._by_fold()
        known = [self._bands(self.predicted.rows(rows), coverage, least) for rows in folds]
        new = [self._bands(one.doubles(), coverage, least) for one in said]
        found = []
        for place in range(self.y.shape[1]):
            with np.errstate(over="ignore"):  # an error in units of a scale of almost 0
                y = [self.y[rows, place] for rows in folds]
                scores = [conformal.outside(own, bands[place]) for own, bands in zip(y, known, strict=True)]
                found.append(conformal.interval([bands[place] for bands in new], scores, coverage))
        return found[0] if len(found) == 1 else np.stack(found, axis=1)

    # Classes ------------------------------------------------------------------------------------------------

    @cached_property
    def temperature(self) -> float:
        """What divides the logarithms of the probabilities so that these rows are likeliest: above 1 the model was too
        sure of itself, below 1 not sure enough (Guo, Pleiss, Sun and Weinberger 2017). It is drawn to 1, as by ten
        more rows that come out as often as their probabilities say, since few rows say little. 1 for regression."""
        return conformal.temperature(self._proba(self.predicted.outputs), self.y) if self.y.ndim == 1 else 1.0

    def _proba(self, proba: NDArray[Any]) -> Doubles:
        """The probabilities of all classes: of both where a network has predicted that of the second alone."""
        proba = proba.astype(np.float64)
        return np.concatenate([1.0 - proba, proba], axis=1) if self.loss.binary else proba

    def probabilities(self, proba: NDArray[Any]) -> Doubles:
        """Probabilities at the temperature: the order of the classes stays.

        Parameters
        ----------
        proba : ndarray, shape (n, classes)
            As predicted; (n, 1) of a network with one output.

        Returns
        -------
        ndarray of float64, shape (n, classes)
            Rows sum to 1; of one output there are both classes.

        Raises
        ------
        ValueError
            For other shapes, or numbers outside [0, 1].
        """
        units = self.predicted.outputs.shape[1]
        proba = checks.array("proba", proba)
        if proba.ndim != 2 or proba.shape[1] != units or not ((proba >= 0) & (proba <= 1)).all():
            raise ValueError(f"proba must be probabilities in [0, 1] of shape (n, {units}), got shape {proba.shape}")
        logs = np.log(np.maximum(self._proba(np.asarray(proba)), np.finfo(np.float32).tiny))
        return conformal.scaled(logs, 1.0 / self.temperature)

    def sets(self, said: Sequence[Prediction], coverage: Any, kind: Any, penalty: Any, free: Any) -> NDArray[np.bool_]:
        """Sets of classes of new rows.

        Parameters
        ----------
        said : sequence of Prediction
            Of the new rows, by the model of each fold.
        coverage : float in (0, 1)
        kind : {"adaptive", "smallest"}
        penalty : float >= 0
            Of adaptive sets, for each class beyond the `free` likeliest, in units of probability.
        free : int >= 1
            How many of the likeliest classes cost nothing.

        Returns
        -------
        ndarray of bool, shape (n, classes)

        Raises
        ------
        ValueError
            For a coverage that so few rows cannot promise.
        """
        coverage, kind = checked_coverage(coverage), checks.one_of("kind", kind, KINDS)
        penalty, free = checks.number("penalty", penalty, 0.0), checks.integer("free", free, 1)

        def scores(proba: NDArray[Any]) -> Doubles:
            likely = self.probabilities(proba)
            return (
                conformal.class_scores(likely, penalty, free)
                if kind == "adaptive"
                else conformal.improbabilities(likely)
            )

        known = scores(self.predicted.outputs)
        own = known[np.arange(len(known)), self.y]
        new = [scores(one.outputs) for one in said]
        return conformal.class_sets(new, [own[rows] for rows in self._by_fold()], coverage, kind == "smallest")


# Estimators -------------------------------------------------------------------------------------------------


class CalibratedEstimator(ABC):
    """Base of estimators that are calibrated."""

    calibration_: Calibration | None

    @abstractmethod
    def _check_fitted(self) -> None:
        """Raises unless it is fitted."""

    @abstractmethod
    def _made_of(self, X: Any, y: Any) -> Calibration:
        """A calibration by other rows."""

    @abstractmethod
    def _said(self, X: Any, calibration: Calibration) -> list[Prediction]:
        """What the model of each fold predicts, in the units of y."""

    def calibrate(self, X: Any, y: Any) -> Any:
        """Calibrates on rows of your own, in place of those that `fit` kept aside, if any.

        Parameters
        ----------
        X, y : as for `fit`
            Rows that had no part in training, nor in any choice, such as that of the epoch or of settings.

        Returns
        -------
        self

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            For unusable data, such as labels that `fit` did not see, or several labels a row.
        """
        self._check_fitted()
        self.calibration_ = self._made_of(X, y)
        return self

    def _needed(self, method: str) -> Calibration:
        self._check_fitted()
        made: Calibration | None = getattr(self, "calibration_", None)  # an estimator that was pickled before has none
        if made is None:
            raise RuntimeError(
                f"{method} needs rows that the estimator was not trained on: fit it with calibration_fraction=0.2, or "
                "call calibrate(X, y); partial_fit and a warm start do away with earlier ones"
            )
        return made


class Intervals(CalibratedEstimator):
    """Of a regressor."""

    def predict_interval(self, X: Any, coverage: float = 0.9) -> Doubles:
        """Intervals that contain y with probability `coverage`: conformal prediction (Vovk, Gammerman and Shafer 2005;
        Lei et al. 2018) by rows that were kept aside.

        With loss="pinball" they lie between the predicted quantiles nearest to (1 - coverage) / 2 and
        (1 + coverage) / 2, both moved by the same multiple of the distance between them (Romano, Patterson and Candes
        2019; Sesia and Candes 2020). Otherwise they are the
        prediction plus and minus a multiple of its standard deviation (Papadopoulos et al. 2002; Lei et al. 2018): the
        predicted one with loss="gaussian_nll"; else that of Monte Carlo samples or of several networks, to whose square
        a constant is added, fitted to the errors of the kept rows by maximum likelihood; where there is none, the same
        width everywhere.

        Which rows are kept aside: those of `calibrate`; or `calibration_fraction` of the rows of `fit`; else those that
        chose the epoch, if any, whose errors are a little smaller than those of new rows. Where they are folds it is
        CV+ (Barber, Candes, Ramdas and Tibshirani 2021).

        Parameters
        ----------
        X : DataFrame or array-like, shape (n_samples, n_features)
        coverage : float in (0, 1)

        Returns
        -------
        ndarray of float64, shape (n_samples, 2), of several targets (n_samples, n_targets, 2)
            Lower and upper ends; each target's interval has the coverage. The same X has the same bits in every call.
            Where the width comes from Monte Carlo samples it is an estimate, and a row's masks depend on its place in
            X: at another place its width differs by some percent, now and then by more. That of "pinball" and
            "gaussian_nll" does not.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        RuntimeError
            Where no rows were kept aside.
        ValueError, TypeError
            For unusable arguments, or a coverage that so few rows cannot promise: c / (1 - c) are needed, 9 for 0.9.
        """
        coverage, calibration = checked_coverage(coverage), self._needed("predict_interval")
        return calibration.interval(self._said(X, calibration), coverage)


class Sets(CalibratedEstimator):
    """Of a classifier."""

    def predict_set(
        self, X: Any, coverage: float = 0.9, *, kind: str = "adaptive", penalty: float = PENALTY, free: int = FREE
    ) -> NDArray[np.bool_]:
        """Sets of classes that contain the right one with probability `coverage`, by rows that were kept aside, of
        probabilities at the temperature (Guo et al. 2017).

        "adaptive": a set holds the likeliest classes, as many as it takes, more where the classifier is less sure, and
        at least one (Romano, Sesia and Candes 2020, without their random part; regularised, Angelopoulos et al. 2021).
        Of a classifier that is right more often than `coverage` these sets hold more often, too.

        "smallest": a set holds every class that is at least as likely as a threshold (with folds: where enough of them
        say so), which would need the fewest on average, were the probabilities right (Sadinle, Lei and Wasserman 2019).
        It may be empty: no class is likely enough. Hard rows are covered less often than `coverage`, easy ones more.

        Which rows are kept aside: those of `calibrate`; or `calibration_fraction` of the rows of `fit`; else those that
        chose the epoch, where there were some. Where they are folds it is CV+.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n_samples, n_features)
        coverage : float in (0, 1)
        kind : {"adaptive", "smallest"}
        penalty : float >= 0
            Of adaptive sets: what each class beyond the `free` likeliest costs, in units of probability. Without it,
            sets of many classes get long tails of unlikely ones.
        free : int >= 1
            How many of the likeliest classes cost nothing.

        Returns
        -------
        ndarray of bool, shape (n_samples, n_classes)
            In the order of `classes_`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        RuntimeError
            Where no rows were kept aside.
        ValueError, TypeError
            For unusable arguments, or a coverage that so few rows cannot promise: c / (1 - c) are needed, 9 for 0.9.
        """
        coverage, calibration = checked_coverage(coverage), self._needed("predict_set")
        return calibration.sets(self._said(X, calibration), coverage, kind, penalty, free)


def checked_coverage(coverage: Any) -> float:
    """A share above 0 and below 1."""
    try:
        return checks.number("coverage", coverage, 0.0, 1.0, low_open=True, high_open=True)
    except ValueError as error:
        raise ValueError(f"{error}; 0.9 is 90 percent") from None

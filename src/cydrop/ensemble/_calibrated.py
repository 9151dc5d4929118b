"""Intervals and sets of an ensemble: by rows that it was not trained on, or by folds that its members left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import monte_carlo
from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._run.calibrated import Calibrated, calibrated_now, checked, targets_of
from cydrop._run.core import Core, core_of
from cydrop._run.rows import Rows
from cydrop.calibration import FREE, PENALTY, Calibration, Prediction, checked_coverage
from cydrop.ensemble import _members, _sampling
from cydrop.network import Network


class Calibrates:
    """Conformal calibration, and what follows from it."""

    _networks: tuple[Network, ...]
    _made: Calibrated | None = None  # also of an ensemble pickled before

    def calibrate(self, X: ArrayLike, y: ArrayLike, *, samples: int = 100, rate: float | None = None) -> Self:
        """Looks how far the ensemble errs on rows that no member was trained on, for `predict_interval` and
        `predict_set`, as `Network.calibrate` does. Without it they go by the folds of `fit`, where it had any.

        Parameters
        ----------
        X, y
            As for `Network.calibrate`.
        samples : int >= 0
            Regression without quantiles: how many Monte Carlo samples of each member tell where they are less sure, so
            that intervals are wider there. Where no member draws anything the members are the samples. 0: without.
        rate : float in [0, 1] or None
            Of these samples, as for `predict_mc`.

        Returns
        -------
        Ensemble
            itself

        Raises
        ------
        ValueError, TypeError
            As `Network.calibrate`.
        """
        self._made = _calibrated(self._networks, X, y, samples, rate)
        return self

    @property
    def calibration(self) -> Calibration | None:
        """What intervals and sets are made from; None where nothing is, or after further training."""
        made = self._made
        if made is None or not made.holds(_members.loss_of(self._networks), cores_of(self._networks)):
            return None
        return made.calibration

    def predict_interval(self, X: ArrayLike, coverage: float = 0.9) -> NDArray[np.float64]:
        """Intervals that contain y with probability `coverage`: by the rows of `calibrate`, as from
        `Network.predict_interval`, or by those that the members left out in `fit(folds=...)`, CV+ (Barber, Candes,
        Ramdas and Tibshirani 2021).

        With folds each member's prediction is taken with the errors of the rows that it did not train on, and no row is
        lost to calibration. The probability is near to `coverage`, and at least 1 - 2 (1 - coverage) for any model
        whose training does not look at the left-out rows; to choose the epoch by them (`restore_best`) is to look.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        coverage : float in (0, 1)

        Returns
        -------
        ndarray of float64, shape (n_samples, 2), of several targets (n_samples, targets, 2)
            Lower and upper ends.

        Raises
        ------
        RuntimeError
            Without either, or after further training.
        ValueError, TypeError
            As `Network.predict_interval`.
        """
        checked_coverage(coverage)
        made = self._checked("predict_interval")
        return made.calibration.interval(_by_fold(self._networks, made, X), coverage)

    def predict_set(
        self,
        X: ArrayLike,
        coverage: float = 0.9,
        *,
        kind: str = "adaptive",
        penalty: float = PENALTY,
        free: int = FREE,
    ) -> NDArray[np.bool_]:
        """Sets of classes that contain the right one with probability `coverage`: by the rows of `calibrate`, as from
        `Network.predict_set`, or by those that the members left out in `fit(folds=...)` (Romano, Sesia and Candes 2020,
        CV+).

        Parameters
        ----------
        X, coverage, kind, penalty, free
            As for `Network.predict_set`.

        Returns
        -------
        ndarray of bool, shape (n_samples, classes)

        Raises
        ------
        RuntimeError
            Without either, or after further training.
        ValueError, TypeError
            As `Network.predict_set`.
        """
        checked_coverage(coverage)
        made = self._checked("predict_set")
        return made.calibration.sets(_by_fold(self._networks, made, X), coverage, kind, penalty, free)

    def _checked(self, method: str) -> Calibrated:
        loss, cores = _members.loss_of(self._networks), cores_of(self._networks)
        return checked(self._made, loss, cores, method, ", or fit with folds")


def cores_of(members: Sequence[Network]) -> list[Core]:
    return [core_of(member) for member in members]


def _calibrated(members: Sequence[Network], X: ArrayLike, y: ArrayLike, samples: Any, rate: Any) -> Calibrated:
    """By rows that no member was trained on."""
    samples = checks.integer("samples", samples, 0, checks.MOST_SAMPLES)
    rate = None if rate is None else checks.rate("rate", rate)
    data = core_of(members[0]).rows(_members.inputs(members, X), y, None, None)
    targets = targets_of(data)
    _members.models(members, data.X.shape[1])
    numbers = data.loss.predictions == "values" and not len(data.loss.levels)
    if not any(monte_carlo.varies(core_of(member), rate) for member in members) and not (numbers and len(members) > 1):
        samples = 0
    calibration = Calibration.of(data.loss, targets, _predicted(members, data.X, samples, rate))
    return calibrated_now(calibration, samples, rate, cores_of(members))


def of_folds(members: Sequence[Network], data: Rows, folds: int, held: Sequence[Any], oof: Floats) -> Calibrated | None:
    """By the rows that members left out, fold by fold; None where y is not what intervals and sets are of."""
    try:
        targets = targets_of(data)
    except ValueError:
        return None
    fold = np.full(len(data.X), -1)
    for number in range(min(folds, len(members))):
        fold[held[number]] = number
    rows = np.flatnonzero(fold >= 0)
    calibration = Calibration.of(data.loss, targets[rows], Prediction(oof[rows]), fold[rows])
    return calibrated_now(calibration, 0, None, cores_of(members))


def _by_fold(members: Sequence[Network], made: Calibrated, X: ArrayLike) -> list[Prediction]:
    """What the members that left out each fold say."""
    rows, folds = _members.inputs(members, X), made.calibration.folds
    return [_predicted(members[number::folds], rows, made.samples, made.rate) for number in range(folds)]


def _predicted(members: Sequence[Network], rows: Floats, samples: int, rate: float | None) -> Prediction:
    """What members say together; with samples, of which the masks are always the same, how unsure they are."""
    models = _members.models(members, rows.shape[1])
    outputs = _members.mean(models, rows, members[0].n_threads).prediction().astype(np.float32)
    if not samples:
        return Prediction(outputs)
    source = seeding.branch(core_of(members[0]).root, seeding.CALIBRATION)
    return Prediction(outputs, _sampling.predict_mc(members, rows, samples, source, False, None, "masks", rate).std)

"""Intervals and sets that hold, as a network offers them."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import monte_carlo
from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._run.calibrated import calibrated_now, checked, targets_of
from cydrop._run.core import Core, Cored, core_of
from cydrop._run.prediction import predict
from cydrop.calibration import FREE, PENALTY, Calibration, Prediction, checked_coverage


class Calibrates(Cored):
    """Conformal calibration, and what follows from it."""

    def calibrate(self, X: ArrayLike, y: ArrayLike, *, samples: int = 100, rate: float | None = None) -> Self:
        """Looks how far the network errs on rows that it was not trained on, for `predict_interval` and `predict_set`:
        conformal prediction (Vovk, Gammerman and Shafer 2005; Lei et al. 2018).

        Neither weights nor predictions change. Training makes it void; so do another loss or rate. What is written into
        the arrays of `parameters()` by hand is not noticed: calibrate again.

        Parameters
        ----------
        X, y
            As for `fit`; rows that had no part in training, nor in what was chosen by. For a coverage c there must be
            c / (1 - c) of them at least, 9 for 0.9; with some hundreds the coverage is near to what was asked for.
        samples : int >= 0
            Regression without quantiles: how many Monte Carlo samples tell where the network is less sure, so that
            intervals are wider there. 0 draws none, and a network that draws nothing ignores it. Predicting intervals
            takes as many passes.
        rate : float in [0, 1] or None
            Of these samples, as for `predict_mc`.

        Returns
        -------
        Network
            itself

        Raises
        ------
        ValueError, TypeError
            For unusable arguments, class probabilities as y, or several labels a row.
        RuntimeError
            While another thread trains.

        Examples
        --------
        >>> import cydrop as cd
        >>> X, y, X_test, y_test = cd.datasets.load_optdigits()
        >>> layers = [cd.Dense(64), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)]
        >>> net = cd.Network(layers, seed=0)
        >>> history = net.fit(X[:3000], y[:3000], epochs=2, verbose=0)
        >>> sets = net.calibrate(X[3000:], y[3000:]).predict_set(X_test, coverage=0.99)
        >>> bool(abs(cd.metrics.coverage(y_test, sets) - 0.99) < 0.01)
        True
        """
        core = core_of(self)
        samples = checks.integer("samples", samples, 0, checks.MOST_SAMPLES)
        rate = None if rate is None else checks.rate("rate", rate)
        with core.turn:
            data = core.rows(X, y, None, None)
            targets = targets_of(data)
            core.built_for(data.X.shape[1])
            samples = samples if monte_carlo.varies(core, rate) else 0
            predicted = prediction_of(core, data.X, samples, rate)
            made = Calibration.of(data.loss, targets, predicted)
            core.calibrated = calibrated_now(made, samples, rate, [core])
        return self

    @property
    def calibration(self) -> Calibration | None:
        """What `calibrate` found; None before, and after further training or with another
        `precision`."""
        core, made = core_of(self), core_of(self).calibrated
        return made.calibration if made is not None and made.holds(core.loss, [core]) else None

    def predict_interval(self, X: ArrayLike, coverage: float = 0.9) -> NDArray[np.float64]:
        """Intervals that contain y with probability `coverage`, by the rows of `calibrate`.

        For "pinball" they lie between the predicted quantiles nearest to (1 - coverage) / 2 and (1 + coverage) / 2,
        both moved outwards, or inwards, by the same multiple of the distance between them (Romano, Patterson and Candes
        2019; Sesia and Candes 2020, "A comparison of some conformal quantile regression methods"). For "gaussian_nll"
        and networks with Monte Carlo dropout they are the prediction plus and minus a multiple of the standard
        deviation (Papadopoulos et al. 2002; Lei et al. 2018), where to the square of that of the samples a constant is
        added, fitted to the errors of the rows of `calibrate` by maximum likelihood; for all others they have the same
        width everywhere.

        Where new rows are like those of `calibrate` (exchangeable), the probability is at least `coverage`, whatever
        the network; with that constant, which comes from the same n rows, up to an error of about 1 / n.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        coverage : float in (0, 1)

        Returns
        -------
        ndarray of float64, shape (n_samples, 2)
            Lower and upper ends; for several targets (n_samples, targets, 2), where each one's has the coverage. The
            same X has the same bits in every call. Where the width comes from Monte Carlo samples it is an estimate,
            and a row's masks depend on its place in X: at another place its width differs by some percent.

        Raises
        ------
        RuntimeError
            Before `calibrate`, or after further training or another `precision`.
        ValueError, TypeError
            For an X that cannot be used, a classifier, or a coverage that the rows of `calibrate` cannot promise.
        """
        core, coverage = core_of(self), checked_coverage(coverage)
        made = checked(core.calibrated, core.loss, [core], "predict_interval")
        return made.calibration.interval([prediction_of(core, X, made.samples, made.rate)], coverage)

    def predict_set(
        self,
        X: ArrayLike,
        coverage: float = 0.9,
        *,
        kind: str = "adaptive",
        penalty: float = PENALTY,
        free: int = FREE,
    ) -> NDArray[np.bool_]:
        """Sets of classes that contain the right one with probability `coverage`, by the rows of `calibrate`, of
        probabilities at the temperature.

        "adaptive": a set holds the likeliest classes, as many as it takes, more where the network is less sure, and at
        least one (Romano, Sesia and Candes 2020, without their random part; regularised, Angelopoulos et al. 2021). Of
        a network that is right more often than `coverage` these sets hold more often, too.

        "smallest": a set holds every class that is at least as likely as a threshold (with folds: where enough of them
        say so), which would need the fewest on average, were the probabilities right (Sadinle, Lei and Wasserman 2019).
        It may be empty: no class is likely enough. Hard rows are covered less often than `coverage`, easy ones more.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        coverage : float in (0, 1)
        kind : {"adaptive", "smallest"}
        penalty : float >= 0
            Of adaptive sets: what each class beyond the `free` likeliest costs, in units of probability. Without it,
            sets of many classes get long tails of unlikely ones.
        free : int >= 1
            How many of the likeliest classes cost nothing.

        Returns
        -------
        ndarray of bool, shape (n_samples, classes)
            Which classes are in the set. Of a network with one output ("binary_cross_entropy") there are two.

        Raises
        ------
        RuntimeError
            Before `calibrate`, or after further training or another `precision`.
        ValueError, TypeError
            For an X that cannot be used, unusable options, a network of numbers, or a coverage that the rows of
            `calibrate` cannot promise.
        """
        core, coverage = core_of(self), checked_coverage(coverage)
        made = checked(core.calibrated, core.loss, [core], "predict_set")
        return made.calibration.sets([prediction_of(core, X, 0, None)], coverage, kind, penalty, free)


def prediction_of(core: Core, X: ArrayLike, samples: int, rate: float | None) -> Prediction:
    """What a network says of rows; with samples, of which the masks are always the same, how unsure it is."""
    rows: Floats = core.inputs(X)
    outputs = predict(core.built_for(rows.shape[1]), rows, True)
    if not samples:
        return Prediction(outputs)
    source = seeding.branch(core.root, seeding.CALIBRATION)
    mc = monte_carlo.predict_mc(core, rows, samples, source, False, None, "masks", rate)
    return Prediction(outputs, mc.std)

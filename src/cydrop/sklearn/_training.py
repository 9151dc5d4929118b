"""Training: check everything, then set up the network, then train it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d

from cydrop import callbacks, distributed, layers, losses
from cydrop._base.arrays import Floats
from cydrop.calibration import Calibration
from cydrop.distributed import DataParallel
from cydrop.network import Network
from cydrop.sklearn import _parameters
from cydrop.sklearn._data import Data, checked_rows, checked_weights, merged
from cydrop.sklearn._lbfgs import fit_lbfgs
from cydrop.sklearn._parameters import Estimator, Settings
from cydrop.sklearn._solver import set_optimizer
from cydrop.sklearn._task import Task
from cydrop.sklearn._watch import Watch

NO_SETS = "y of several labels a row has no sets: a set is of classes of which each row has one"


def goes_on(estimator: Estimator) -> bool:
    """Whether the solver can go on with more rows; for `partial_fit`."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is for solver='adam' and 'sgd', not 'lbfgs'")
    return True


def train(
    task: Task,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    incremental: bool,
    classes: ArrayLike | None = None,
    held_out: tuple[Any, Any] = (None, None),
    listeners: Any = (),
    parallel: DataParallel | None = None,
) -> Any:
    """`fit`, or where `incremental` `partial_fit`, of the task's estimator, which is returned. Warnings name the caller
    of the function that calls this one."""
    estimator = task.estimator
    team = distributed.team_of(distributed.checked_for_estimator(parallel))
    before = estimator.__dict__.copy()
    with team.session():
        try:
            with team.together():
                watching = callbacks.checked(() if listeners is None else listeners)
                run, kept = _ready(task, X, y, sample_weight, incremental, classes, held_out, watching, parallel)
        except BaseException:  # what is refused leaves the estimator as it was
            estimator.__dict__.clear()
            estimator.__dict__.update(before)
            raise
        if team.size > 1:
            team.check_same(distributed.facts_of_estimator(estimator))
        estimator.calibration_ = None
        del before  # the network of an earlier fit need not stay in memory while this one trains
        run()
        if kept is not None and task.calibrates:
            estimator.calibration_ = calibration_of(task, kept)
        return estimator


def calibration_of(task: Task, data: Data) -> Calibration:
    """By rows that had no part in training."""
    loss = task.estimator.network_.loss if task.numeric else losses.CrossEntropy()  # of one output two are made
    return Calibration.of(loss, task.known(data.target), task.said(data.X))


def _ready(
    task: Task,
    X: Any,
    y: Any,
    sample_weight: Any,
    incremental: bool,
    classes: ArrayLike | None,
    held_out: tuple[Any, Any],
    listeners: list[callbacks.Callback],
    parallel: DataParallel | None,
) -> tuple[Callable[[], None], Data | None]:
    """Checks everything and sets up a network; then what is left to do, the training, and rows that have no part in
    it."""
    estimator = task.estimator
    fresh = not (hasattr(estimator, "network_") and (incremental or estimator.warm_start))
    settings = _parameters.checked(estimator, incremental)
    X, y = checked_rows(estimator, X, y, reset=fresh, numeric=task.numeric)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    weight = checked_weights(sample_weight, len(X))
    data = Data(X, task.encoded(y, fresh, classes), weight * task.class_weights(y, weight)).of_weight()
    if not len(data.X):
        raise ValueError("sample_weight and class_weight leave no row: one of the two is 0 for each of them")
    validation = _given_validation(task, *held_out)
    if estimator.solver == "lbfgs" and (validation is not None or listeners or parallel is not None):
        raise ValueError("solver='lbfgs' has no epochs: X_val, y_val, callbacks and parallel are for 'adam' and 'sgd'")
    rng = check_random_state(estimator.random_state)
    kept = None
    if settings.calibration_fraction and not task.calibrates:
        raise ValueError(f"calibration_fraction={settings.calibration_fraction} keeps rows for sets, but {NO_SETS}")
    if settings.calibration_fraction and not incremental:
        if not fresh:
            raise ValueError(
                "warm_start=True goes on from weights that may have seen the rows which calibration_fraction keeps "
                "aside now: call calibrate(X, y) instead"
            )
        data, kept = _kept_aside(task, settings, data, rng)
    if len(data.X) <= settings.batch_size and not incremental:
        data = merged(data)
    _prepare(task, settings, data, rng, fresh)
    if estimator.solver == "lbfgs":
        return lambda: fit_lbfgs(estimator, settings, data, task.loss()[1]), kept
    if validation is None and estimator.early_stopping and not incremental:
        data, validation = split(task, settings, data, rng)
    if validation is not None:
        validation.unit = data.variance()
    _begin_records(estimator, validated=validation is not None)
    set_optimizer(estimator, settings, data, keep_moments=incremental and not fresh)
    watch = Watch(estimator, task, settings, data, validation, incremental, fresh)
    return lambda: _fit_epochs(estimator, settings, data, watch, listeners, parallel), kept or validation


def _given_validation(task: Task, X_val: Any, y_val: Any) -> Data | None:
    """The rows given to validate on."""
    if X_val is None and y_val is None:
        return None
    if X_val is None or y_val is None:
        raise ValueError(f"X_val and y_val belong together, {'X_val' if X_val is None else 'y_val'} is missing")
    try:
        X, y = checked_rows(task.estimator, X_val, y_val, reset=False, numeric=task.numeric)
    except (ValueError, TypeError) as error:  # which names X or y
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X_val and y_val: {error}") from None
    data = _data(task, X, y, "y_val").of_weight()
    if not len(data.X):
        raise ValueError("class_weight leaves no row of X_val: it is 0 for each of them")
    return data


def further(task: Task, X: Any, y: Any) -> Data:
    """Rows like those of `fit`."""
    if not task.calibrates:
        raise ValueError(NO_SETS)
    return _data(task, *checked_rows(task.estimator, X, y, reset=False, numeric=task.numeric), "y")


def _data(task: Task, X: Floats, y: NDArray[Any], name: str) -> Data:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.ravel()
    ones = np.ones(len(X))
    return Data(X, task.encoded(y, False, name=name), ones * task.class_weights(y, ones))


def _kept_aside(task: Task, settings: Settings, data: Data, rng: np.random.RandomState) -> tuple[Data, Data]:
    """Rows to train with, and rows to calibrate with."""
    n = len(data.X)
    kept = math.ceil(settings.calibration_fraction * n)
    if n - kept < 1:
        raise ValueError(
            f"calibration_fraction={settings.calibration_fraction} of {n} rows leaves {n - kept} to train on, at least "
            "1 is needed"
        )
    strata = task.strata(data, min(kept, n - kept))
    train, rest = train_test_split(np.arange(n), test_size=kept, random_state=rng, stratify=strata)
    return data.take(train), data.take(rest)


def _prepare(task: Task, settings: Settings, data: Data, rng: np.random.RandomState, fresh: bool) -> None:
    """A fresh network with fresh records; or else checks that the parameters describe the one that is there."""
    estimator = task.estimator
    loss, _ = task.loss()
    n_outputs = task.n_outputs(data)
    stack = [*settings.hidden, layers.Dense(n_outputs, **settings.beginning)]
    if not fresh:
        there = estimator.network_
        if (_described(stack), repr(loss)) != (_described(there.layers), repr(there.loss)):
            raise ValueError(
                "the parameters describe another network than the fitted one; a new one comes from fit with "
                "warm_start=False"
            )
        if there.precision != estimator.precision:
            there.precision = estimator.precision
        return
    seed = int(rng.randint(2**31 - 1))
    network = Network(
        stack, loss=loss, optimizer=settings.optimizer, seed=seed, n_threads=estimator.n_threads,
        precision=estimator.precision,
    )  # fmt: skip
    estimator.network_ = network.build(data.X.shape[1])
    estimator.n_layers_ = 1 + sum(isinstance(layer, layers.Dense) for layer in stack)
    estimator.n_outputs_ = n_outputs
    estimator.out_activation_ = task.out_activation()
    estimator.t_ = estimator.n_iter_ = 0
    for name in (
        "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "validation_loss_curve_",
    ):  # fmt: skip
        estimator.__dict__.pop(name, None)  # of an earlier fit


def _described(stack: Iterable[layers.Layer]) -> list[str]:
    """What the layers are now; how they began is past."""
    found = []
    for layer in stack:
        options = {name: value for name, value in layer.options().items() if name not in ("weight_init", "bias_init")}
        found.append(f"{type(layer).__name__} {options}")
    return found


def split(task: Task, settings: Settings, data: Data, rng: np.random.RandomState) -> tuple[Data, Data]:
    """Training and validation rows."""
    n = len(data.X)
    held = max(2, math.ceil(settings.validation_fraction * n))
    if n - held < 1:
        raise ValueError(
            f"early_stopping=True with validation_fraction={task.estimator.validation_fraction} needs {held} different "
            f"rows for validation and at least 1 for training, got n_samples = {n}"
        )
    strata = task.strata(data, min(held, n - held))
    train, test = train_test_split(np.arange(n), test_size=held, random_state=rng, stratify=strata)
    return data.take(train), data.take(test)


def _begin_records(estimator: Estimator, validated: bool) -> None:
    """What is missing: everything in a fresh fit and after "lbfgs", that of rows to validate on where those are new."""
    if not hasattr(estimator, "loss_curve_"):
        estimator.loss_curve_, estimator.best_loss_ = [], math.inf
        estimator.validation_scores_ = estimator.best_validation_score_ = None
    if validated and estimator.validation_scores_ is None:
        estimator.validation_scores_, estimator.best_validation_score_ = [], -math.inf
    if getattr(estimator, "validation_loss_curve_", None) is None:  # or not there: of an estimator pickled before
        estimator.validation_loss_curve_ = [] if validated else None
    if validated and estimator.early_stopping:
        estimator.best_loss_ = None


def _fit_epochs(
    estimator: Estimator,
    settings: Settings,
    data: Data,
    watch: Watch,
    listeners: list[callbacks.Callback],
    parallel: DataParallel | None,
) -> None:
    held, factor = watch.validation, watch.task.loss()[1]
    weight = data.scaled_weight(factor)
    try:
        estimator.network_.fit(
            data.X, data.target,
            epochs=1 if watch.incremental else settings.max_iter,
            batch_size=min(settings.batch_size, len(data.X)),
            # "rows", wherever they lie: joblib hands large arrays to other processes as memory-mapped files
            shuffle="rows" if estimator.shuffle and len(data.X) > settings.batch_size else False,
            sample_weight=None if (weight == 1.0).all() else weight,
            validation_data=None if held is None else (held.X, held.target, held.scaled_weight(factor)),
            callbacks=[watch, *listeners],
            verbose=int(bool(estimator.verbose)),
            parallel=parallel,
        )  # fmt: skip
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    else:
        if not watch.incremental and not estimator.network_.stop_training:
            warnings.warn(
                f"max_iter={settings.max_iter} epochs ended before the training had converged by tol",
                ConvergenceWarning,
                stacklevel=5,
            )

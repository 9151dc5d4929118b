"""Estimators for scikit-learn: `MLPClassifier` and `MLPRegressor`, scikit-learn's multi-layer perceptrons with dropout.

Parameters are spelled as in `sklearn.neural_network` where they mean the same, so that changing the import is enough.
scikit-learn (1.6 or newer) is needed by this module alone; the rest of cydrop never imports it.

    X, y, weights  ->  validate  ->  rows of one batch: merge equal ones  ->  split off validation  ->  Network.fit
"""

from __future__ import annotations

import inspect
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base.arrays import Floats

try:
    from scipy import optimize as scipy_optimize
    from scipy import sparse, special
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state, column_or_1d, compute_sample_weight
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f'cydrop.sklearn needs scikit-learn 1.6: pip install "cydrop[sklearn]" ({error})') from None

from cydrop import callbacks as callback_module
from cydrop import functional, layers, losses, optimizers, schedules
from cydrop._base import checks, seeding
from cydrop.callbacks import Callback
from cydrop.callbacks.monitors import copied, put_back
from cydrop.errors import DivergedError
from cydrop.monte_carlo import MonteCarlo, quantile_levels
from cydrop.network import Network

__all__ = ["MLPClassifier", "MLPRegressor"]

AUTO_BATCH = 200  # rows of a batch with batch_size="auto"
WATCHED_ROWS = 10_000  # training rows at most whose loss without dropout decides whether training goes on
SPARSE_CHUNK = 2**24  # elements of a sparse X that are made dense at a time in prediction
ACTIVATIONS = {"identity": None, "logistic": "sigmoid"} | {name: name for name in layers.ACTIVATIONS}
REGRESSION_LOSSES = {
    "squared_error": (losses.MSE, 0.5),
    "absolute_error": (losses.MAE, 1.0),
    "huber": (losses.Huber, 1.0),
}


@dataclass(eq=False)
class _Data:
    """Checked rows, in the form that `Network.fit` takes."""

    X: Floats
    target: NDArray[Any]  # (n,) codes of classes, or (n, outputs) of 0 and 1 or of numbers
    weight: NDArray[np.float64]  # above 0
    unit: NDArray[np.float64] | float = 1.0  # of held-out rows of a regression: the variance of the training targets

    def take(self, rows: NDArray[np.intp]) -> _Data:
        return _Data(self.X[rows], self.target[rows], self.weight[rows])

    def of_weight(self) -> _Data:
        """Without the rows of weight 0."""
        return self if (self.weight > 0).all() else self.take(np.flatnonzero(self.weight > 0))


@dataclass(eq=False)
class _Settings:
    """The constructor's parameters, checked."""

    hidden: list[layers.Layer]  # everything before the last dense layer
    optimizer: optimizers.Optimizer  # without the penalty, which depends on the data
    batch_size: int
    max_iter: int
    n_iter_no_change: float
    tol: float
    validation_fraction: float


class _MLP(BaseEstimator, ABC):
    """What both estimators share."""

    hidden_layer_sizes: Any
    activation: Any
    solver: Any
    alpha: Any
    batch_size: Any
    learning_rate: Any
    learning_rate_init: Any
    power_t: Any
    max_iter: Any
    shuffle: Any
    random_state: Any
    tol: Any
    verbose: Any
    warm_start: Any
    momentum: Any
    nesterovs_momentum: Any
    early_stopping: Any
    validation_fraction: Any
    beta_1: Any
    beta_2: Any
    epsilon: Any
    n_iter_no_change: Any
    max_fun: Any
    dropout: Any
    dropout_mode: Any
    dropout_schedule: Any
    max_norm: Any
    n_threads: Any

    network_: Network
    n_layers_: int
    n_outputs_: int
    n_iter_: int
    t_: int
    loss_: float
    loss_curve_: list[float]
    best_loss_: Any
    validation_scores_: Any
    validation_loss_curve_: Any
    best_validation_score_: Any

    # What a classifier and a regressor do differently --------------------------------------------------------

    @abstractmethod
    def _encoded(self, y: NDArray[Any], fresh: bool, classes: ArrayLike | None, name: str = "y") -> NDArray[Any]:
        """Targets as the network takes them; sets `classes_` and the like when `fresh`."""

    @abstractmethod
    def _loss(self) -> tuple[losses.Loss, float]:
        """The loss, and the factor that makes its gradient scikit-learn's (sums over outputs instead of means)."""

    @abstractmethod
    def _judged(self, output: Floats, data: _Data) -> tuple[float, float]:
        """Accuracy or R^2 of the network's output for the rows, and what decides between equal ones, a loss with the
        sign turned: more is better."""

    def _class_weights(self, y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64] | float:
        return 1.0

    # Training ------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        callbacks: Sequence[Callback] | None = (),
    ) -> Any:
        """Trains from the start, or with `warm_start=True` from where the last call ended.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Made float32, and dense.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like, shape (n_samples,), or None
            Multiplies each row's loss. Rows of weight 0 are left out.
        X_val, y_val : array-likes as X and y, or None
            Rows to validate on. With `early_stopping` they are those that it goes by, and nothing is held out; without
            it their loss and score are recorded (`validation_loss_curve_`, `validation_scores_`), and decide nothing.
            Of a classifier they have `class_weight`.
        callbacks : sequence of `cydrop.callbacks`
            Told of each epoch of `network_`, after the records below are up to date. With rows to validate on there
            are "val_loss" and others to watch. Where `EarlyStopping` puts its best epoch back it has the last word.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For unusable parameters or data, also for y_val with unknown labels, and for validation rows or callbacks
            with "lbfgs", which has no epochs; the estimator is left as it was.
        DivergedError
            When the loss stops being finite; the weights are those of the last finished epoch ("lbfgs": the first).
        """
        return self._fit(X, y, sample_weight, incremental=False, held_out=(X_val, y_val), told=callbacks)

    def _more(self) -> bool:
        """Whether the solver can go on with more rows; for `partial_fit`."""
        if self.solver == "lbfgs":
            raise AttributeError("partial_fit is for solver='adam' and 'sgd', not 'lbfgs'")
        return True

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        incremental: bool,
        classes: ArrayLike | None = None,
        held_out: tuple[Any, Any] = (None, None),
        told: Any = (),
    ) -> Any:
        before = self.__dict__.copy()
        try:
            watching = callback_module.checked(() if told is None else told)
            train = self._ready(X, y, sample_weight, incremental, classes, held_out, watching)
        except BaseException:  # what is refused leaves the estimator as it was
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        del before  # the network of an earlier fit need not stay in memory while this one trains
        train()
        return self

    def _ready(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        incremental: bool,
        classes: ArrayLike | None,
        held_out: tuple[Any, Any],
        told: list[Callback],
    ) -> Callable[[], None]:
        """Checks everything and sets up a network; then what is left to do: the training."""
        fresh = not (hasattr(self, "network_") and (incremental or self.warm_start))
        settings = self._settings(incremental)
        X, y = self._checked_rows(X, y, reset=fresh)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        weight = np.ones(len(X)) if sample_weight is None else _weights(sample_weight, len(X))
        data = _Data(X, self._encoded(y, fresh, classes), weight * self._class_weights(y, weight)).of_weight()
        if not len(data.X):
            raise ValueError("sample_weight and class_weight leave no row: one of the two is 0 for each of them")
        validation = self._given_validation(*held_out)
        if self.solver == "lbfgs" and (validation is not None or told):
            raise ValueError("solver='lbfgs' has no epochs: X_val, y_val and callbacks are for 'adam' and 'sgd'")
        if len(data.X) <= settings.batch_size and not incremental:
            data = _merged(data)
        rng = check_random_state(self.random_state)
        self._prepare(settings, data, rng, fresh)
        if self.solver == "lbfgs":
            return lambda: self._fit_lbfgs(settings, data)
        if validation is None and self.early_stopping and not incremental:
            data, validation = self._split(settings, data, rng)
        if validation is not None:
            validation.unit = self._unit(data)
        self._begin_records(validated=validation is not None)
        self._set_optimizer(settings, data, keep_moments=incremental and not fresh)
        watch = _Watch(self, settings, data, validation, incremental, fresh)
        return lambda: self._fit_epochs(settings, data, watch, told)

    def _checked_rows(self, X: Any, y: Any, reset: bool) -> tuple[Floats, NDArray[Any]]:
        X, y = validate_data(
            self, X, y, reset=reset, dtype=np.float32, order="C", accept_sparse="csr",
            multi_output=True, y_numeric=isinstance(self, RegressorMixin),
        )  # fmt: skip
        return X.toarray() if sparse.issparse(X) else X, y.toarray() if sparse.issparse(y) else y

    def _given_validation(self, X_val: Any, y_val: Any) -> _Data | None:
        """The rows given to validate on."""
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            raise ValueError(f"X_val and y_val belong together, {'X_val' if X_val is None else 'y_val'} is missing")
        try:
            X, y = self._checked_rows(X_val, y_val, reset=False)
        except (ValueError, TypeError) as error:  # which names X or y
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"X_val and y_val: {error}") from None
        if y.ndim == 2 and y.shape[1] == 1:
            y = y.ravel()
        target = self._encoded(y, False, None, name="y_val")
        ones = np.ones(len(X))
        data = _Data(X, target, ones * self._class_weights(y, ones)).of_weight()
        if not len(data.X):
            raise ValueError("class_weight leaves no row of X_val: it is 0 for each of them")
        return data

    def _settings(self, incremental: bool) -> _Settings:
        """Checks every parameter; the names in errors are those of the constructor."""
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
        sizes = [checks.integer("hidden_layer_sizes", size, 1) for size in sizes]
        checks.choice("solver", self.solver, {"adam": 0, "sgd": 0, "lbfgs": 0})
        checks.choice("learning_rate", self.learning_rate, {"constant": 0, "invscaling": 0, "adaptive": 0})
        checks.number("alpha", self.alpha, 0.0)
        checks.number("power_t", self.power_t, 0.0)
        checks.integer("max_fun", self.max_fun, 1)
        for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
            checks.flag(name, getattr(self, name))
        patience = self.n_iter_no_change
        if incremental and self.dropout_schedule is not None:
            raise ValueError("partial_fit does not support dropout_schedule: it does not know when training ends")
        auto = isinstance(self.batch_size, str) and self.batch_size == "auto"
        return _Settings(
            hidden=self._hidden_layers(sizes),
            optimizer=self._optimizer(),
            batch_size=AUTO_BATCH if auto else checks.integer("batch_size", self.batch_size, 1),
            max_iter=checks.integer("max_iter", self.max_iter, 1),
            n_iter_no_change=patience if patience == math.inf else checks.integer("n_iter_no_change", patience, 1),
            tol=checks.number("tol", self.tol, 0.0),
            validation_fraction=checks.number(
                "validation_fraction", self.validation_fraction, 0.0, 1.0, high_open=True
            ),
        )

    def _optimizer(self) -> optimizers.Optimizer:
        rate = checks.number("learning_rate_init", self.learning_rate_init, 0.0, low_open=True)
        momentum = checks.number("momentum", self.momentum, 0.0, 1.0, high_open=True)
        beta_1 = checks.number("beta_1", self.beta_1, 0.0, 1.0, high_open=True)
        beta_2 = checks.number("beta_2", self.beta_2, 0.0, 1.0, high_open=True)
        epsilon = checks.number("epsilon", self.epsilon, 0.0, low_open=True)
        if self.solver == "adam":
            return optimizers.Adam(rate, beta_1, beta_2, epsilon)
        return optimizers.SGD(rate, momentum, self.nesterovs_momentum and momentum > 0)

    def _hidden_layers(self, sizes: list[int]) -> list[layers.Layer]:
        activation = checks.choice("activation", self.activation, ACTIVATIONS)
        beginning = self._beginning()
        rates = self._rates(len(sizes))
        if self.solver == "lbfgs" and (any(rate != 0 for rate in rates) or self.max_norm is not None):
            raise ValueError(
                "solver='lbfgs' needs a loss that is the same in every call: dropout and max_norm are for 'adam' and "
                "'sgd'"
            )
        checks.choice("dropout_mode", self.dropout_mode, {"inverted": 0, "vanilla": 0})
        stack: list[layers.Layer] = []
        for units, rate in zip([None, *sizes], rates, strict=True):
            if units is not None:
                stack.append(layers.Dense(units, activation=activation, max_norm=self.max_norm, **beginning))
            if rate != 0:
                stack.append(layers.Dropout(rate, mode=self.dropout_mode))
        return stack

    def _beginning(self) -> dict[str, Any]:
        """How scikit-learn draws first weights and biases, of the last layer too: by the hidden layers' activation."""
        init = "glorot_sigmoid_uniform" if self.activation in ("logistic", "sigmoid") else "glorot_uniform"
        return {"weight_init": init, "bias_init": init}

    def _rates(self, n_hidden: int) -> list[schedules.Rate]:
        """Rates of the input and behind each hidden layer, with the schedule's factor."""
        given = self.dropout
        if isinstance(given, Iterable) and not isinstance(given, str):
            rates = [checks.rate("dropout", rate) for rate in given]
            if len(rates) != n_hidden + 1:
                raise ValueError(
                    f"dropout must be a number or a list of {n_hidden + 1} rates (the input's, then one for each of "
                    f"the {n_hidden} hidden layers), got {len(rates)}"
                )
        else:
            rates = [0.0] + [checks.rate("dropout", given)] * n_hidden
        factor = self.dropout_schedule
        if factor is None:
            return list(rates)
        if not callable(factor):
            raise TypeError(f"dropout_schedule must be None or a function of training progress, got {factor!r}")
        scaled = [schedules.Scaled(factor, rate) if rate else 0.0 for rate in rates]
        for progress in (step / 100 for step in range(101)):
            for rate in scaled:
                schedules.value_at("dropout times dropout_schedule", rate, progress, 0.0, 1.0)
        return list(scaled)

    def _prepare(self, settings: _Settings, data: _Data, rng: np.random.RandomState, fresh: bool) -> None:
        """A fresh network with fresh records; or else checks that the parameters describe the one that is there."""
        loss, _ = self._loss()
        n_outputs = self._n_outputs(data)
        stack = [*settings.hidden, layers.Dense(n_outputs, **self._beginning())]
        if not fresh:
            there = self.network_
            if (_described(stack), repr(loss)) != (_described(there.layers), repr(there.loss)):
                raise ValueError(
                    "the parameters describe another network than the fitted one; a new one comes from fit with "
                    "warm_start=False"
                )
            return
        seed = int(rng.randint(2**31 - 1))
        self.network_ = Network(stack, loss=loss, optimizer=settings.optimizer, seed=seed, n_threads=self.n_threads)
        self.network_.build(data.X.shape[1])
        self.n_layers_ = 1 + sum(isinstance(layer, layers.Dense) for layer in stack)
        self.n_outputs_ = n_outputs
        links = {"cross_entropy": "softmax", "binary_cross_entropy": "logistic"}
        self.out_activation_ = links.get(loss.name, "identity")
        self.t_ = self.n_iter_ = 0
        for name in (
            "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "validation_loss_curve_",
        ):  # fmt: skip
            self.__dict__.pop(name, None)  # of an earlier fit

    def _begin_records(self, validated: bool) -> None:
        """What is missing: everything in a fresh fit and after "lbfgs", that of rows to validate on where those are
        new."""
        if not hasattr(self, "loss_curve_"):
            self.loss_curve_, self.best_loss_ = [], math.inf
            self.validation_scores_ = self.best_validation_score_ = None
        if validated and self.validation_scores_ is None:
            self.validation_scores_, self.best_validation_score_ = [], -math.inf
        if getattr(self, "validation_loss_curve_", None) is None:  # or not there: of an estimator pickled before
            self.validation_loss_curve_ = [] if validated else None
        if validated and self.early_stopping:
            self.best_loss_ = None

    def _n_outputs(self, data: _Data) -> int:
        return 1 if data.target.ndim == 1 else int(data.target.shape[1])

    def _set_optimizer(self, settings: _Settings, data: _Data, keep_moments: bool) -> None:
        """The optimizer of the parameters. As in scikit-learn the penalty is divided by the weight of a batch."""
        rows = min(settings.batch_size, len(data.X))
        options = settings.optimizer.options() | {"weight_decay": self.alpha / (rows * data.weight.mean())}
        if keep_moments and self.solver == "sgd" and self.learning_rate == "invscaling":
            options["learning_rate"] = self.learning_rate_init / (self.t_ + 1) ** self.power_t
        _change(self.network_, type(settings.optimizer)(**options))
        if not keep_moments:
            self.network_._clear_moments()

    def _row_weights(self, data: _Data) -> NDArray[np.float64]:
        """The rows' weights with a mean of 1, times the loss's factor."""
        return data.weight * (self._loss()[1] / data.weight.mean())

    def _fit_epochs(self, settings: _Settings, data: _Data, watch: _Watch, told: list[Callback]) -> None:
        held = watch.validation
        validation = None if held is None else (held.X, held.target, self._row_weights(held))
        weight = self._row_weights(data)
        try:
            self.network_.fit(
                data.X, data.target,
                epochs=1 if watch.incremental else settings.max_iter,
                batch_size=min(settings.batch_size, len(data.X)),
                shuffle=self.shuffle and len(data.X) > settings.batch_size,
                sample_weight=None if (weight == 1.0).all() else weight,
                validation_data=validation,
                callbacks=[watch, *told],
                verbose=int(bool(self.verbose)),
            )  # fmt: skip
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        else:
            if not watch.incremental and not self.network_.stop_training:
                warnings.warn(
                    f"max_iter={settings.max_iter} epochs ended before the training had converged by tol",
                    ConvergenceWarning,
                    stacklevel=5,
                )

    def _split(self, settings: _Settings, data: _Data, rng: np.random.RandomState) -> tuple[_Data, _Data]:
        """Training and validation rows."""
        n = len(data.X)
        held = max(2, math.ceil(settings.validation_fraction * n))
        if n - held < 1:
            raise ValueError(
                f"early_stopping=True with validation_fraction={self.validation_fraction} needs {held} different rows "
                f"for validation and at least 1 for training, got n_samples = {n}"
            )
        train, test = train_test_split(
            np.arange(n), test_size=held, random_state=rng, stratify=self._strata(data, min(held, n - held))
        )
        return data.take(train), data.take(test)

    def _unit(self, data: _Data) -> NDArray[np.float64] | float:
        """The variance of the targets, 1 where it is 0."""
        y = data.target.reshape(len(data.X), -1).astype(np.float64)
        variance = np.average((y - np.average(y, axis=0, weights=data.weight)) ** 2, axis=0, weights=data.weight)
        return np.where(variance > 0, variance, 1.0)

    def _strata(self, data: _Data, smaller: int) -> NDArray[Any] | None:
        return None

    def _fit_lbfgs(self, settings: _Settings, data: _Data) -> None:
        """L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995), SciPy's, on all rows at once."""
        network = self.network_
        loss_of: Callable[..., Any] = getattr(functional, network.loss.name)
        weight = self._row_weights(data)
        decay = self.alpha / data.weight.sum()

        def objective(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            _set(network, vector)
            output = network.forward(data.X, training=True)
            with np.errstate(all="ignore"):
                value, slope = loss_of(output, data.target, sample_weight=weight, return_grad=True)
            if not (math.isfinite(value) and np.isfinite(slope).all()):
                raise DivergedError(1, 1)
            network.backward(slope)
            parameters, gradients = network.parameters(), network.gradients()
            parts = []
            for name, gradient in gradients.items():
                part = gradient.ravel().astype(np.float64)
                if name.endswith("weight"):
                    w = parameters[name].ravel().astype(np.float64)
                    part += decay * w
                    value += 0.5 * decay * float(w @ w)
                parts.append(part)
            return float(value), np.concatenate(parts)

        begin = np.concatenate([p.ravel() for p in network.parameters().values()]).astype(np.float64)
        options = {
            "maxfun": self.max_fun,
            "maxiter": settings.max_iter,
            "gtol": settings.tol,
        }
        try:
            found = scipy_optimize.minimize(objective, begin, method="L-BFGS-B", jac=True, options=options)
        except BaseException:
            _set(network, begin)
            raise
        _set(network, found.x)
        self.loss_, self.n_iter_ = float(found.fun), min(int(found.nit), settings.max_iter)
        self.t_ += self.n_iter_ * len(data.X)
        message = ""
        if found.status == 1:
            message = f"ended at max_iter={settings.max_iter} or max_fun={self.max_fun} before it had converged by tol"
        elif not found.success and found.nit == 0:  # later it is the end of float32's precision
            message = "found no step that makes the loss smaller; standardise X, and y of a regression"
        if message:
            warnings.warn(f"L-BFGS {message}", ConvergenceWarning, stacklevel=5)

    # Prediction ----------------------------------------------------------------------------------------------

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self, "network_")
        return validate_data(self, X, reset=False, dtype=np.float32, order="C", accept_sparse="csr")

    def _outputs(self, X: Any, raw: bool = False) -> NDArray[np.float64]:
        """What the network predicts, shape (n_samples, n_outputs), or its raw outputs, before the link."""
        X = self._rows(X)
        run = self.network_.forward if raw else self.network_.predict
        if not sparse.issparse(X):
            return run(X).astype(np.float64)
        step = max(1, SPARSE_CHUNK // X.shape[1])
        parts = [run(X[row : row + step].toarray()) for row in range(0, X.shape[0], step)]
        return np.concatenate(parts).astype(np.float64)

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
            Of the masks. None takes `random_state` where that is an int, and fresh entropy otherwise.
        return_samples : bool
            Whether `.samples` keeps all predictions.
        quantiles : array-like of numbers in [0, 1], or None
            Which quantiles of the samples `.quantiles` holds.
        rate : float in [0, 1] or None
            Probability of dropping behind all layers, instead of `dropout`. None takes that; with a `dropout_schedule`
            its value at the end of training or, where that is 0, in the middle, with a warning.

        Returns
        -------
        MonteCarlo
            `.mean` and `.std` in the shape of `predict_proba` (classifier) or `predict` (regressor), `.quantiles` and
            `.samples` with one dimension in front; for classifiers `.entropy` and `.mutual_information`, (n_samples,)
            or, of several labels, (n_samples, n_outputs).

        Raises
        ------
        sklearn.exceptions.NotFittedError
        ValueError, TypeError
            For unusable arguments.
        """
        X = self._rows(X)
        if seed is None and isinstance(self.random_state, int | np.integer):
            seed = int(self.random_state)
        levels = None if quantiles is None else quantile_levels(quantiles)
        keep = checks.flag("return_samples", return_samples) or levels is not None
        dense = X.toarray() if sparse.issparse(X) else X
        return self._shaped(
            self.network_.predict_mc(dense, samples, seed=seed, return_samples=keep, rate=rate), levels, return_samples
        )

    @abstractmethod
    def _shaped(self, mc: MonteCarlo, levels: NDArray[np.float64] | None, keep: bool) -> MonteCarlo:
        """A Monte Carlo result in the shapes that the estimator's other methods have."""

    # What scikit-learn's estimators show -----------------------------------------------------------------------

    @property
    def coefs_(self) -> list[Floats]:
        """Weights of each layer, shape (fan-in, units): views, as in `network_.parameters()`. Others may be assigned,
        to `coefs_` or to `coefs_[number]`; they are copied. ValueError for another number or shape of them or for what
        float32 does not hold, TypeError for what is not numeric; then all stay as they were."""
        return _Arrays("coefs_", self._fitted("weight"))

    @coefs_.setter
    def coefs_(self, arrays: Any) -> None:
        self.coefs_[:] = arrays

    @property
    def intercepts_(self) -> list[Floats]:
        """Biases of each layer, shape (units,): views, and assigned like `coefs_`."""
        return _Arrays("intercepts_", self._fitted("bias"))

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


class _Arrays(list[Floats]):
    """Views of the network's parameters, one a layer: what is put in their places goes into the network."""

    def __init__(self, name: str, arrays: list[Floats]) -> None:
        super().__init__(arrays)
        self._name = name

    def __setitem__(self, place: Any, value: Any) -> None:
        try:
            places = range(len(self))[place]
        except IndexError:
            raise IndexError(f"{self._name}[{place}] is out of range: there are {len(self)}, one a layer") from None
        if not isinstance(places, int) and not isinstance(value, Iterable):
            raise TypeError(f"{self._name} must be a list of arrays, one a layer, got {value!r}")
        numbers = [places] if isinstance(places, int) else list(places)
        given = [value] if isinstance(places, int) else list(value)
        if len(given) != len(numbers):
            raise ValueError(f"{self._name} has {len(numbers)} arrays here, one a layer, got {len(given)}")
        arrays = []
        for number, array in zip(numbers, given, strict=True):
            # a copy: one of these views may be assigned to another place
            arrays.append(checks.floats(f"{self._name}[{number}]", array, own=True))
            if arrays[-1].shape != self[number].shape:
                raise ValueError(f"{self._name}[{number}] must have shape {self[number].shape}, got {arrays[-1].shape}")
        for number, array in zip(numbers, arrays, strict=True):
            self[number][...] = array

    def _refuse(self, *arguments: Any, **options: Any) -> NoReturn:
        raise TypeError(
            f"{self._name} has an array for each layer and keeps their number: assign {self._name}[number] or the "
            "whole list"
        )

    append = extend = insert = pop = remove = clear = sort = reverse = _refuse
    __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> Any:
        return list, (list(self),)  # copies and pickles are plain lists


class _Watch(Callback):
    """Keeps the estimator's records, stops by scikit-learn's rule and adapts SGD's learning rate."""

    def __init__(
        self,
        estimator: _MLP,
        settings: _Settings,
        data: _Data,
        validation: _Data | None,
        incremental: bool,
        fresh: bool,
    ) -> None:
        self.estimator, self.settings, self.rows = estimator, settings, len(data.X)
        self.validation, self.incremental, self.fresh = validation, incremental, fresh
        self.by_validation = validation is not None and estimator.early_stopping
        self.waited = 0
        self.best_gain = self.best_score = self.gain_of_best = -math.inf
        self.best: dict[str, Floats] | None = None
        self.best_clean_loss = math.inf
        self.clean: _Data | None = None  # training rows to look at with dropout off, where the trained loss is noisy
        noisy = any(isinstance(layer, layers.Dropout) for layer in settings.hidden)
        if noisy and not self.by_validation and not incremental:
            some = data.take(np.arange(0, len(data.X), -(-len(data.X) // WATCHED_ROWS)))
            self.clean = _Data(some.X, some.target, estimator._row_weights(some))

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self.estimator.n_iter_ = 0
        self._clean_loss_fell(network)  # since now
        if self.by_validation and not self.fresh:  # a warm start may be as good as it gets
            self._keep_better(network, *self._judge(network)[1:])

    def on_epoch_end(self, network: Network, epoch: int, metrics: dict[str, float]) -> None:
        estimator = self.estimator
        estimator.loss_ = metrics["loss"] / self._outputs
        estimator.loss_curve_.append(estimator.loss_)
        estimator.n_iter_ += 1
        estimator.t_ += self.rows
        better = self._better_score(network, metrics) if self.validation is not None else False
        if not self.by_validation:
            better = self._smaller_loss()
        self.waited = 0 if better else self.waited + 1
        if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
            self._set_rate(network, estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t)
        if self.waited > self.settings.n_iter_no_change and not self.incremental:
            rate: Any = network.optimizer.learning_rate
            if self._clean_loss_fell(network):
                self.waited = 0
            elif estimator.solver == "sgd" and estimator.learning_rate == "adaptive" and rate > 1e-6:
                self._set_rate(network, rate / 5.0)
                self.waited = 0
            else:
                network.stop_training = True

    @property
    def _outputs(self) -> int:
        """scikit-learn's loss of a regression is the mean over the outputs, its gradient the sum's."""
        return self.estimator.n_outputs_ if isinstance(self.estimator, RegressorMixin) else 1

    def _smaller_loss(self) -> bool:
        estimator = self.estimator
        best = math.inf if estimator.best_loss_ is None else estimator.best_loss_
        estimator.best_loss_ = min(best, estimator.loss_)
        return bool(estimator.loss_ <= best - self.settings.tol)

    def _clean_loss_fell(self, network: Network) -> bool:
        """Whether the training rows' loss without dropout fell since it was last looked at: dropout's noise may hide
        that training goes on. It is only looked at where training would otherwise stop, so that it costs little."""
        rows = self.clean
        if rows is None:
            return False
        loss = network.evaluate(rows.X, rows.target, rows.weight)["loss"] / self._outputs
        fell = loss <= self.best_clean_loss - self.settings.tol
        self.best_clean_loss = min(self.best_clean_loss, loss)
        return fell

    def _judge(self, network: Network) -> tuple[float, float, float]:
        """The score of the held-out rows; and what better is decided by: a score, and where it is equal a loss with the
        sign turned. Of a regression the loss alone, which is R^2 too but where that says nothing."""
        assert self.validation is not None
        score, gain = self.estimator._judged(network.predict(self.validation.X), self.validation)
        return score, gain if isinstance(self.estimator, RegressorMixin) else score, gain

    def _better_score(self, network: Network, metrics: dict[str, float]) -> bool:
        """Whether the score or the loss of the held-out rows improved: accuracy alone stands still for many epochs."""
        estimator, tol = self.estimator, self.settings.tol
        recorded, score, gain = self._judge(network)
        estimator.validation_scores_.append(recorded)
        estimator.best_validation_score_ = max(estimator.best_validation_score_, recorded)
        estimator.validation_loss_curve_.append(metrics["val_loss"] / self._outputs)
        better = score >= self.best_score + tol or gain >= self.best_gain + tol
        if self.by_validation:
            self._keep_better(network, score, gain)
        return better

    def _keep_better(self, network: Network, score: float, gain: float) -> None:
        if (score, gain) > (self.best_score, self.gain_of_best):
            self.best_score, self.gain_of_best = score, gain
            self.best = copied(network)
        self.best_gain = max(self.best_gain, gain)

    @staticmethod
    def _set_rate(network: Network, rate: float) -> None:
        _change(network, network.optimizer.with_learning_rate(rate))

    def on_train_end(self, network: Network) -> None:
        if self.best is not None:
            put_back(network, self.best)


def _change(network: Network, optimizer: optimizers.Optimizer) -> None:
    """Goes on with another optimizer's settings; scikit-learn's velocity contains the rate that it was made with."""
    before: Any = network.optimizer.learning_rate
    network.optimizer = optimizer
    rate: Any = optimizer.learning_rate
    if isinstance(optimizer, optimizers.SGD) and rate != before:
        for velocity in network._moments:
            velocity *= np.float32(before / rate)


def _described(stack: Iterable[layers.Layer]) -> list[str]:
    """What the layers are now; how they began is past."""
    found = []
    for layer in stack:
        options = {name: value for name, value in layer.options().items() if name not in ("weight_init", "bias_init")}
        found.append(f"{type(layer).__name__} {options}")
    return found


def _weights(given: ArrayLike, rows: int) -> NDArray[np.float64]:
    weight = checks.weights("sample_weight", given, rows).astype(np.float64)
    if not weight.any():
        raise ValueError("sample_weight must have at least one weight above 0: all of them are zero in float32")
    return weight


def _merged(data: _Data) -> _Data:
    """Sorted rows, equal ones merged to one of their joint weight.

    Where all rows are in every batch their order and repetition cannot matter; so they shall not matter in the bits
    either: three equal rows, or one of weight 3, give the same network.
    """
    columns = data.target.reshape(len(data.X), -1).astype(np.float32)
    table = np.ascontiguousarray(np.hstack([data.X, columns]) + np.float32(0.0))  # + 0: there is one zero only
    rows = table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1]))).ravel()
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    merged = data.take(first)
    merged.weight = np.bincount(group, weights=data.weight).astype(np.float64)
    return merged


def _balanced(labels: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """A factor for each row that makes the classes' weights equal: a row of weight 2 counts as two, of 0 as none."""
    codes = np.unique(labels, return_inverse=True)[1].ravel()
    sums = np.bincount(codes, weights=weight)
    factors = weight.sum() / (np.count_nonzero(sums) * np.where(sums > 0, sums, 1.0))
    return np.asarray(factors[codes])


def _quantiles(samples: Any, levels: NDArray[np.float64]) -> Floats:
    return np.quantile(samples, levels, axis=0).astype(np.float32)


def _set(network: Network, vector: NDArray[np.float64]) -> None:
    """Puts all parameters, one behind the other, into the network."""
    end = 0
    for array in network.parameters().values():
        array[...] = vector[end : end + array.size].reshape(array.shape)
        end += array.size


def _keep(estimator: Any, given: dict[str, Any]) -> None:
    """Sets the constructor's parameters as they came: scikit-learn wants them unchecked until `fit`."""
    for name, value in given.items():
        if name != "self":
            setattr(estimator, name, value)


_PARAMETERS = """
    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; () is a linear model.
    activation : str
        Of the hidden layers: "relu", "logistic", "tanh", "identity" as in scikit-learn, or one of cydrop's
        "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "softplus".
    solver : "adam", "sgd" or "lbfgs"
        "lbfgs" is SciPy's L-BFGS-B on all rows at once; without dropout and max_norm.
    alpha : float >= 0
        L2 penalty, divided by the weight of a batch. Unlike scikit-learn's it holds for biases too with "adam" and
        "sgd", and `loss_curve_` does not contain it.
    batch_size : int or "auto"
        "auto" is min(200, n_samples).
    learning_rate : "constant", "invscaling" or "adaptive"
        For "sgd". "adaptive" divides the rate by 5 where training would otherwise stop.
    learning_rate_init : float > 0
    power_t : float >= 0
        Of "invscaling": learning_rate_init / t^power_t, t the rows seen.
    max_iter : int >= 1
        Epochs at most.
    shuffle : bool
        Whether each epoch visits the rows in a new order.
    random_state : int, numpy.random.RandomState or None
        Of weights, masks, shuffles and the validation rows. The same int, data and parameters give the same bits, on
        any number of threads.
    tol : float >= 0
        What counts as an improvement of the loss; with early_stopping of the score, or of the loss, of the held-out
        rows.
    verbose : bool or int
        Whether to print a line an epoch; "lbfgs" prints nothing.
    warm_start : bool
        Whether `fit` goes on from the weights of the last call.
    momentum : float in [0, 1)
        For "sgd".
    nesterovs_momentum : bool
        For "sgd".
    early_stopping : bool
        Whether to stop by the score of held-out rows and to keep the weights of its best epoch; of equal scores the
        one of the smaller loss.
    validation_fraction : float in [0, 1)
        Share of the rows held out for early_stopping, at least two rows{stratified}; not used
        where `fit` is given X_val.
    beta_1, beta_2 : float in [0, 1)
        For "adam".
    epsilon : float > 0
        For "adam".
    n_iter_no_change : int >= 1 or inf
        Training stops after more epochs than that without improvement. With dropout, whose noise hides progress, it
        goes on all the same where the training rows' loss with dropout off fell by tol since this was last looked at.
    max_fun : int >= 1
        Calls of the loss at most, for "lbfgs".
    dropout : float in [0, 1] or sequence of them
        Probability of *dropping*: a number behind each hidden layer, or a list with a rate for the input first and
        then one for each hidden layer.
    dropout_mode : "inverted" or "vanilla"
        As for `cydrop.Dropout`.
    dropout_schedule : None or function of training progress in [0, 1]
        A factor for all rates: `schedules.Linear(1, 0)` lets dropout fade out, `schedules.Step(1, 0, at=0.2)` is
        early dropout. Progress counts max_iter epochs.
    max_norm : float > 0 or None
        Bound of the Euclidean norm of each hidden unit's incoming weights.
    n_threads : int or None
        None takes what the machine grants to this process. A warm start keeps the number of the first fit.
"""

_ATTRIBUTES = """
    Attributes
    ----------
    network_ : cydrop.Network
        The trained network; `network_.save(path)` and `cydrop.onnx.export(network_, path)` write it to files.
    loss_, best_loss_ : float
        Of the last and of the best epoch, as trained: dropout on. The best one is None with early_stopping.
    loss_curve_ : list of float
        One value an epoch; like `best_loss_` and the scores below not for "lbfgs".
    validation_scores_ : list of float or None
        {score} of the held-out rows, one value an epoch, with early_stopping or X_val.
    validation_loss_curve_ : list of float or None
        Their loss, to compare with `loss_curve_`: dropout off, without the penalty.
    best_validation_score_ : float or None
    n_iter_ : int
        Epochs of the last call.
    t_ : int
        Rows seen.
    coefs_, intercepts_ : list of ndarray
        Weights, shape (fan-in, units), and biases, shape (units,), of each layer.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
"""

_ROWS_OF_ONE_BATCH = """
    Notes
    -----
    Where all rows fit into one batch, they are sorted, and equal rows are merged to one of their joint weight: then a
    row of weight 3 and three rows of weight 1 give the same bits. In smaller batches a weight multiplies the row's
    loss, and weights are scaled to a mean of 1.
"""


class MLPClassifier(ClassifierMixin, _MLP):
    """A multi-layer perceptron classifier with dropout: scikit-learn's `MLPClassifier` on cydrop.

    Two classes or several, or several labels at once (y of 0 and 1, shape (n_samples, n_outputs)). Labels may be of any
    type that can be sorted. Minimises the cross-entropy (Srivastava et al. 2014 for dropout).
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
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
        class_weight: Any = None,
        n_threads: int | None = None,
    ) -> None:
        _keep(self, locals())

    @available_if(_MLP._more)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> MLPClassifier:
        """One pass over the rows; a further call goes on from there, with the parameters as they are then.
        `early_stopping` plays no part.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array-like or None
            All classes that will ever come; needed in the first call.

        Returns
        -------
        self

        Raises
        ------
        AttributeError
            With solver="lbfgs".
        ValueError, TypeError, DivergedError
            As for `fit`; also for a `dropout_schedule`, and for class_weight="balanced", which needs all rows at once.
        """
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be given in the first call of partial_fit: all that will ever come")
        if known is not None and classes is not None and not np.array_equal(known, np.unique(np.asarray(classes))):
            raise ValueError(f"classes={classes!r} are not those of the calls before, {known}")
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight={self.class_weight!r} needs all rows at once; give partial_fit a dict, "
                "or sample_weight, instead"
            )
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _encoded(self, y: NDArray[Any], fresh: bool, classes: ArrayLike | None, name: str = "y") -> NDArray[Any]:
        check_classification_targets(y)
        kind = type_of_target(y, input_name=name)
        if kind == "multiclass-multioutput":
            raise ValueError(
                f"{name} of shape {y.shape} has several columns of classes; 0 and 1 for several labels will do"
            )
        several = bool(y.ndim == 2)
        if fresh:
            found = np.arange(y.shape[1]) if several else np.unique(y)
            self.classes_ = found if classes is None or several else np.unique(np.asarray(classes))
            self._several = several
        if several != self._several or (several and y.shape[1] != len(self.classes_)):
            raise ValueError(
                f"{name} has shape {y.shape}, the estimator was fitted for {len(self.classes_)} classes or labels"
            )
        if several:
            return y.astype(np.float32)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"{name} has classes {unknown} that are not among the known ones, {self.classes_}")
        codes = np.searchsorted(self.classes_, y).astype(np.int32)
        return codes if len(self.classes_) > 2 else codes.astype(np.float32)

    def _loss(self) -> tuple[losses.Loss, float]:
        if self._several:
            return losses.BinaryCrossEntropy(), float(len(self.classes_))
        return (losses.CrossEntropy() if len(self.classes_) > 2 else losses.BinaryCrossEntropy()), 1.0

    def _n_outputs(self, data: _Data) -> int:
        return len(self.classes_) if self._several or len(self.classes_) > 2 else 1

    def _judged(self, output: Floats, data: _Data) -> tuple[float, float]:
        if data.target.dtype.kind == "i":
            hit = output.argmax(axis=1) == data.target
            chosen = output[np.arange(len(output)), data.target][:, None]
        else:
            target = data.target.reshape(output.shape)
            hit = ((output > 0.5) == target).all(axis=1)
            chosen = np.where(target > 0.5, output, 1.0 - output)
        gain = np.log(np.maximum(chosen, np.float32(1e-7))).sum(axis=1)
        return float(np.average(hit, weights=data.weight)), float(np.average(gain, weights=data.weight))

    def _class_weights(self, y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64] | float:
        given = self.class_weight
        if given is None:
            return 1.0
        if isinstance(given, str):
            checks.choice("class_weight", given, {"balanced": 0})
            return np.prod([_balanced(column, weight) for column in y.reshape(len(y), -1).T], axis=0)
        if self._several:
            found = np.asarray(compute_sample_weight(given, y))
            if not (np.isfinite(found) & (found >= 0)).all():
                raise ValueError(f"class_weight must have finite weights of at least 0, got {given!r}")
            return found
        if not isinstance(given, Mapping):
            raise TypeError(f"class_weight must be a dict of labels and weights, 'balanced' or None, got {given!r}")
        known = self.classes_.tolist()
        if not given.keys() <= set(known) and not set(known) <= given.keys():
            raise ValueError(f"class_weight has the labels {list(given)}, y has {known}: some have no weight")
        of_class = [checks.number(f"class_weight[{label!r}]", given.get(label, 1.0), 0.0) for label in known]
        return np.array(of_class)[np.searchsorted(self.classes_, y)]

    def _strata(self, data: _Data, smaller: int) -> NDArray[Any] | None:
        if self._several:
            return None
        sizes = np.unique(data.target, return_counts=True)[1]
        return data.target if sizes.min() >= 2 and smaller >= len(sizes) else None

    def _places(self, output: NDArray[Any]) -> NDArray[np.intp]:
        """The place in `classes_` of each row's most probable class."""
        if output.shape[1] > 1:
            return output.argmax(axis=1)
        return np.minimum(output[:, 0] > 0.5, len(self.classes_) - 1).astype(np.intp)

    def _expanded(self, p: NDArray[Any]) -> NDArray[Any]:
        """Probabilities of the classes in the last dimension: one output of two classes becomes two columns."""
        if self._several or p.shape[-1] > 1:
            return p
        return np.concatenate([1.0 - p, p], axis=-1)[..., : len(self.classes_)]

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,), of the type of the labels; of several labels 0 and 1, (n_samples, n_outputs)
        """
        output = self._outputs(X)
        if self._several:
            return (output > 0.5).astype(np.int64)
        return np.asarray(self.classes_[self._places(output)])

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The raw outputs, before softmax or sigmoid: what calibration works on best (Platt 1999).

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes); of two classes (n_samples,), above 0 for the second
        """
        z = self._outputs(X, raw=True)
        if z.shape[1] > 1 or self._several:
            return z
        return z[:, 0] if len(self.classes_) > 1 else np.zeros(len(z))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
            In the order of `classes_`; rows sum to 1. Of several labels each one's probability, (n_samples, n_outputs).
        """
        p = self._expanded(self._outputs(X))
        return p if self._several else p / p.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """The logarithm of `predict_proba`, computed from the raw outputs: finite where the probability rounds to 0.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape of `predict_proba`
        """
        z = self._outputs(X, raw=True)
        if z.shape[1] > 1 and not self._several:
            return np.asarray(special.log_softmax(z, axis=1))
        if self._several:
            return np.asarray(special.log_expit(z))
        both = np.concatenate([special.log_expit(-z), special.log_expit(z)], axis=1)
        return both if len(self.classes_) > 1 else np.zeros_like(z)

    def _shaped(self, mc: MonteCarlo, levels: NDArray[np.float64] | None, keep: bool) -> MonteCarlo:
        def of_rows(array: Floats | None) -> Floats | None:
            return array if array is None or self._several else array.reshape(len(array))

        mean = self._expanded(mc.mean)
        samples = None if mc.samples is None else self._expanded(mc.samples)
        return MonteCarlo(
            mean=mean,
            std=np.repeat(mc.std, mean.shape[1] // mc.std.shape[1], axis=1),
            entropy=of_rows(mc.entropy),
            mutual_information=of_rows(mc.mutual_information),
            quantiles=None if levels is None else _quantiles(samples, levels),
            samples=samples if keep else None,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, _MLP):
    """A multi-layer perceptron regressor with dropout: scikit-learn's `MLPRegressor` on cydrop.

    One target, or several, y of shape (n_samples, n_outputs). Targets far from 0 and 1 in size train better behind
    `sklearn.compose.TransformedTargetRegressor`.
    """

    _target_shape: tuple[int, ...]  # of a row of y

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
        _keep(self, locals())

    @available_if(_MLP._more)
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
        return self._fit(X, y, sample_weight, incremental=True)

    def _encoded(self, y: NDArray[Any], fresh: bool, classes: ArrayLike | None, name: str = "y") -> NDArray[Any]:
        target = checks.floats(name, y)
        if not fresh and target[0].shape != self._target_shape:
            raise ValueError(
                f"{name} has shape {target.shape}, the estimator was fitted for rows of shape {self._target_shape}"
            )
        self._target_shape = target[0].shape
        return target

    def _loss(self) -> tuple[losses.Loss, float]:
        cls, factor = checks.choice("loss", self.loss, REGRESSION_LOSSES)
        return cls(), factor * math.prod(self._target_shape)

    def _judged(self, output: Floats, data: _Data) -> tuple[float, float]:
        y = data.target.reshape(output.shape).astype(np.float64)
        weight = data.weight[:, None]
        error = (weight * (y - output) ** 2).sum(axis=0)
        spread = (weight * (y - np.average(y, axis=0, weights=data.weight)) ** 2).sum(axis=0)
        varies = spread > 0
        r2 = 1.0 - error / np.where(varies, spread, data.unit * data.weight.sum())
        # of a constant target the score is 1 where it is met, else 0, as in sklearn.metrics.r2_score
        score = np.where(varies, r2, np.where(error == 0, 1.0, 0.0))
        return float(np.mean(score)), float(np.mean(r2))

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The predicted targets.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_outputs)
        """
        output = self._outputs(X)
        return output.reshape(len(output), *self._target_shape)

    def _shaped(self, mc: MonteCarlo, levels: NDArray[np.float64] | None, keep: bool) -> MonteCarlo:
        def shaped(array: NDArray[Any]) -> Floats:
            return array.reshape(*array.shape[:-1], *self._target_shape).astype(np.float32, copy=False)

        return MonteCarlo(
            shaped(mc.mean),
            shaped(mc.std),
            quantiles=None if levels is None else shaped(_quantiles(mc.samples, levels)),
            samples=shaped(mc.samples) if keep and mc.samples is not None else None,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _document(cls: type[_MLP], parameters: str, score: str, stratified: str, attributes: str) -> None:
    """Puts together what both classes' docstrings say; nothing where docstrings were left out (python -OO)."""
    if cls.__doc__:
        shared = _PARAMETERS.format(stratified=stratified).rstrip() + parameters
        shared += _ATTRIBUTES.format(score=score).rstrip() + attributes + _ROWS_OF_ONE_BATCH
        cls.__doc__ = inspect.cleandoc(cls.__doc__) + "\n\n" + inspect.cleandoc("\n" + shared)


_document(
    MLPClassifier,
    """
    class_weight : dict, "balanced" or None
        Weights of the classes, {label: weight}; what is not named has 1. "balanced" gives all classes the same weight:
        n_samples / (n_classes * rows of the class), each row counted by its sample_weight. Of several labels a list of
        dicts, one for each, or "balanced"; their factors are multiplied.
""",
    score="Accuracy",
    stratified=", stratified by class where each class has two rows",
    attributes="""
    classes_ : ndarray
        The labels, sorted; of several labels their columns, 0 and up.
""",
)
_document(
    MLPRegressor,
    """
    loss : "squared_error", "absolute_error" or "huber"
        The squared error is halved, as in scikit-learn.
""",
    score="R^2",
    stratified="",
    attributes="\n",
)

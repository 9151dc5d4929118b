"""The constructor's parameters: scikit-learn wants them kept as they come, and checked by `fit`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sklearn.base import BaseEstimator

from cydrop import layers, optimizers, schedules
from cydrop._base import checks
from cydrop._base.parameters import with_defaults
from cydrop.network import Network

AUTO_BATCH = 200  # rows of a batch with batch_size="auto"
ACTIVATIONS = {"identity": None, "logistic": "sigmoid"} | {name: name for name in layers.ACTIVATIONS}


class Estimator(BaseEstimator):
    """What both estimators have when they are fitted, besides their parameters."""

    network_: Network
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    n_iter_: int
    t_: int
    loss_: float
    loss_curve_: list[float]
    best_loss_: Any
    validation_scores_: Any
    validation_loss_curve_: Any
    best_validation_score_: Any

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        with_defaults(self)


@dataclass(eq=False)
class Settings:
    """The constructor's parameters, checked."""

    hidden: list[layers.Layer]  # everything before the last dense layer
    beginning: dict[str, Any]  # how first weights and biases are drawn
    optimizer: optimizers.Optimizer  # without the penalty, which depends on the data
    batch_size: int
    max_iter: int
    n_iter_no_change: float
    tol: float
    validation_fraction: float
    calibration_fraction: float


def keep(estimator: Estimator, given: dict[str, Any]) -> None:
    """Sets the constructor's parameters as they came."""
    for name, value in given.items():
        if name != "self":
            setattr(estimator, name, value)


def checked(estimator: Estimator, incremental: bool) -> Settings:
    """Checks every parameter; the names in errors are those of the constructor."""
    sizes = estimator.hidden_layer_sizes
    sizes = list(sizes) if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
    sizes = [checks.integer("hidden_layer_sizes", size, 1) for size in sizes]
    checks.one_of("solver", estimator.solver, ("adam", "sgd", "lbfgs"))
    checks.precision(estimator.precision)
    checks.one_of("learning_rate", estimator.learning_rate, ("constant", "invscaling", "adaptive"))
    checks.number("alpha", estimator.alpha, 0.0)
    checks.number("power_t", estimator.power_t, 0.0)
    checks.integer("max_fun", estimator.max_fun, 1)
    for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
        checks.flag(name, getattr(estimator, name))
    patience = estimator.n_iter_no_change
    if incremental and estimator.dropout_schedule is not None:
        raise ValueError("partial_fit does not support dropout_schedule: it does not know when training ends")
    auto = isinstance(estimator.batch_size, str)
    if auto:
        checks.one_of("batch_size", estimator.batch_size, ("auto",), "an integer")
    hidden, beginning = _hidden_layers(estimator, sizes)
    return Settings(
        hidden=hidden,
        beginning=beginning,
        optimizer=_optimizer(estimator),
        batch_size=AUTO_BATCH if auto else checks.integer("batch_size", estimator.batch_size, 1),
        max_iter=checks.integer("max_iter", estimator.max_iter, 1),
        n_iter_no_change=patience if patience == math.inf else checks.integer("n_iter_no_change", patience, 1),
        tol=checks.number("tol", estimator.tol, 0.0),
        validation_fraction=checks.number(
            "validation_fraction", estimator.validation_fraction, 0.0, 1.0, high_open=True
        ),
        calibration_fraction=checks.number(
            "calibration_fraction", estimator.calibration_fraction, 0.0, 1.0, high_open=True
        ),
    )


def _hidden_layers(estimator: Estimator, sizes: list[int]) -> tuple[list[layers.Layer], dict[str, Any]]:
    """Dense and dropout layers; and how scikit-learn draws first weights and biases, of the last layer too: by the
    hidden layers' activation."""
    activation = checks.choice("activation", estimator.activation, ACTIVATIONS)
    init = "glorot_sigmoid_uniform" if activation == "sigmoid" else "glorot_uniform"
    beginning: dict[str, Any] = {"weight_init": init, "bias_init": init}
    rates = _rates(estimator, len(sizes))
    if estimator.solver == "lbfgs" and (any(rate != 0 for rate in rates) or estimator.max_norm is not None):
        raise ValueError(
            "solver='lbfgs' needs a loss that is the same in every call: dropout and max_norm are for 'adam' and 'sgd'"
        )
    checks.one_of("dropout_mode", estimator.dropout_mode, ("inverted", "vanilla"))
    stack: list[layers.Layer] = []
    for units, rate in zip([None, *sizes], rates, strict=True):
        if units is not None:
            stack.append(layers.Dense(units, activation=activation, max_norm=estimator.max_norm, **beginning))
        if rate != 0:
            stack.append(layers.Dropout(rate, mode=estimator.dropout_mode))
    return stack, beginning


def _rates(estimator: Estimator, n_hidden: int) -> list[schedules.Rate]:
    """Rates of the input and after each hidden layer, with the schedule's factor."""
    given = estimator.dropout
    if isinstance(given, Iterable) and not isinstance(given, str):
        rates = [checks.rate("dropout", rate) for rate in given]
        if len(rates) != n_hidden + 1:
            raise ValueError(
                f"dropout must be a number or a list of {n_hidden + 1} rates (the input's, then one for each of "
                f"the {n_hidden} hidden layers), got {len(rates)}"
            )
    else:
        rates = [0.0] + [checks.rate("dropout", given)] * n_hidden
    factor = estimator.dropout_schedule
    if factor is None:
        return list(rates)
    if not callable(factor):
        raise TypeError(f"dropout_schedule must be None or a function of training progress, got {factor!r}")
    scaled = [schedules.Scaled(factor, rate) if rate else 0.0 for rate in rates]
    for progress in (step / 100 for step in range(101)):
        for rate in scaled:
            schedules.value_at("dropout times dropout_schedule", rate, progress, 0.0, 1.0)
    return list(scaled)


def _optimizer(estimator: Estimator) -> optimizers.Optimizer:
    rate = checks.number("learning_rate_init", estimator.learning_rate_init, 0.0, low_open=True)
    momentum = checks.number("momentum", estimator.momentum, 0.0, 1.0, high_open=True)
    beta_1 = checks.number("beta_1", estimator.beta_1, 0.0, 1.0, high_open=True)
    beta_2 = checks.number("beta_2", estimator.beta_2, 0.0, 1.0, high_open=True)
    epsilon = checks.number("epsilon", estimator.epsilon, 0.0, low_open=True)
    if estimator.solver == "adam":
        return optimizers.Adam(rate, beta_1, beta_2, epsilon)
    return optimizers.SGD(rate, momentum, estimator.nesterovs_momentum and momentum > 0)

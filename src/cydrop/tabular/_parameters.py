"""The constructor's parameters: scikit-learn wants them kept as they come, and checked by `fit`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cydrop import losses
from cydrop._base import checks, threads
from cydrop.layers.embeddings import MOST
from cydrop.tabular._recipe import CLASSES, NUMBERS, Recipe, Settings

EMBEDDINGS = ("pbld", "plr", "piecewise_linear")
METRICS = ("error", "log_loss")


def for_recipe(estimator: Any, smoothing: float, batch_size: int | None) -> dict[str, Any]:
    """What every `Recipe` has, checked; the names in errors are those of the constructor."""
    sizes = estimator.hidden_layer_sizes
    sizes = list(sizes) if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
    rate, embedding = estimator.learning_rate_init, estimator.numeric_embedding
    if embedding is not None:
        checks.one_of("numeric_embedding", embedding, EMBEDDINGS, "None")
    return {
        "hidden_layer_sizes": tuple(checks.integer("hidden_layer_sizes", n, 1, checks.MOST_UNITS) for n in sizes),
        "dropout": checks.number("dropout", estimator.dropout, 0.0, 1.0, high_open=True),
        "max_iter": checks.integer("max_iter", estimator.max_iter, 1),
        "batch_size": batch_size,
        "learning_rate_init": None if rate is None else checks.number("learning_rate_init", rate, 0.0, low_open=True),
        "weight_decay": checks.number("weight_decay", estimator.weight_decay, 0.0),
        "label_smoothing": smoothing,
        "numeric_embedding": embedding,
        "embedding_size": checks.integer("embedding_size", estimator.embedding_size, 1, MOST),
        "max_onehot": checks.integer("max_onehot", estimator.max_onehot, 0),
        "n_threads": threads.resolve(estimator.n_threads),
        "precision": checks.precision(estimator.precision),
        "task": estimator.task,
        "loss_of_numbers": losses.for_regressor(estimator.loss) if estimator.task == NUMBERS else losses.MSE(),
    }


def settings(estimator: Any, recipe: Recipe, metric: str) -> Settings:
    """What every estimator has besides its recipe, checked."""
    return Settings(
        recipe=recipe,
        metric=metric,
        validation_fraction=checks.number(
            "validation_fraction", estimator.validation_fraction, 0.0, 1.0, low_open=True, high_open=True
        ),
        calibration_fraction=checks.number(
            "calibration_fraction", estimator.calibration_fraction, 0.0, 1.0, high_open=True
        ),
        n_ensemble=checks.integer("n_ensemble", estimator.n_ensemble, 1),
        n_folds=checks.integer("n_folds", estimator.n_folds, 1),
        n_threads=threads.resolve(estimator.n_threads),
        verbose=bool(estimator.verbose),
    )


def checked_metric(given: Any, task: str) -> str:
    if task == CLASSES:
        return checks.one_of("metric", given, METRICS)
    if isinstance(given, str) and given != "error":
        what = "is for classifiers" if given in METRICS else "is not known"
        raise ValueError(
            f"metric={given!r} {what}; a regressor has 'error' alone: its best epoch is that of the least RMSE, or "
            "of its least loss"
        )
    return checks.one_of("metric", given, ("error",))


def checked_smoothing(given: Any, task: str) -> float:
    smoothing = checks.number("label_smoothing", given, 0.0, 1.0, high_open=True)
    if smoothing and task == NUMBERS:
        raise ValueError(f"label_smoothing={given!r} is for classifiers: a regressor has no labels")
    return smoothing


def keep(estimator: Any, given: dict[str, Any]) -> None:
    """Sets the constructor's parameters as they came."""
    for name, value in given.items():
        if name != "self":
            setattr(estimator, name, value)

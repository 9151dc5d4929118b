"""The losses that a network can be trained with: declarations for the compiled `_core.losses`.

A loss is given by name or as an object with options, `loss=cd.losses.CrossEntropy(label_smoothing=0.1)`.
Each takes raw outputs z (before its link), shape (n_samples, units).
"""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop.losses.base import Loss
from cydrop.losses.classes import BinaryCrossEntropy, CrossEntropy
from cydrop.losses.numbers import MAE, MSE, GaussianNLL, Huber
from cydrop.losses.quantiles import Pinball

__all__ = [  # noqa: RUF022 (in the order of the reference pages)
    "Loss",
    "CrossEntropy",
    "BinaryCrossEntropy",
    "MSE",
    "MAE",
    "Huber",
    "GaussianNLL",
    "Pinball",
    "KNOWN",
    "OF_REGRESSORS",
    "for_regressor",
    "from_config",
    "resolve",
]

KNOWN: dict[str, type[Loss]] = {
    cls.name: cls for cls in (CrossEntropy, BinaryCrossEntropy, MSE, MAE, Huber, GaussianNLL, Pinball)
}


OF_REGRESSORS = {cls.sklearn_name: cls for cls in KNOWN.values() if cls.sklearn_name is not None}  # by their names


def resolve(loss: Any) -> Loss:
    """A loss from its name or itself."""
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        return loss()
    return checks.choice("loss", loss, KNOWN, "a loss object")()


def for_regressor(loss: Any) -> Loss:
    """The loss of a regressor, from scikit-learn's name or itself."""
    if isinstance(loss, Loss):
        if type(loss) not in OF_REGRESSORS.values():
            raise ValueError(f"loss must be one for numbers, such as losses.Pinball, got {loss!r}")
        return loss
    return checks.choice("loss", loss, OF_REGRESSORS, "a loss object for numbers")()


def from_config(config: dict[str, Any]) -> Loss:
    """The loss that `Loss.config` described."""
    options = dict(config)
    return checks.choice("loss", options.pop("loss", None), KNOWN)(**options)

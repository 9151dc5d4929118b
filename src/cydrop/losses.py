"""The losses that a network can be trained with: declarations for the compiled `_core.losses`.

A loss is given by name or as an object with options, `loss=cd.losses.CrossEntropy(label_smoothing=0.1)`.
Each takes raw outputs z (before its link), shape (n_samples, units).
"""

from __future__ import annotations

from typing import Any, ClassVar

from cydrop._base import checks
from cydrop._base.declaration import Declaration

__all__ = [  # noqa: RUF022 (in the order of the reference pages)
    "Loss",
    "CrossEntropy",
    "BinaryCrossEntropy",
    "MSE",
    "MAE",
    "Huber",
    "GaussianNLL",
    "KNOWN",
    "from_config",
    "resolve",
]


class Loss(Declaration):
    """Base of the losses."""

    name: ClassVar[str]
    code: ClassVar[int]
    sklearn_name: ClassVar[str | None] = None  # what scikit-learn's regressors call it
    sklearn_factor: ClassVar[float] = 1.0  # scikit-learn's loss of one output over this one

    @property
    def option(self) -> float:
        """The number that the compiled loss takes."""
        return 0.0

    @property
    def pair(self) -> float:
        """Weight of the divergence between two passes of the same rows (R-Drop); 0 is one pass."""
        return 0.0

    def columns(self, units: int) -> int:
        """Columns of y; 0 for class labels.

        Parameters
        ----------
        units : int
            Units of the last layer.
        """
        return units

    def check_units(self, units: int) -> None:
        """Raises ValueError if a last layer of this width makes no sense.

        Parameters
        ----------
        units : int
            Units of the last layer.
        """

    def config(self) -> dict[str, Any]:
        """Name and options, as saved in a file."""
        return {"loss": self.name} | self.options()


class CrossEntropy(Loss):
    """Softmax cross-entropy, the mean over rows, in nats. Link: softmax.

    y is labels 0..k-1 of shape (n,), or class probabilities q (soft labels) of shape (n, k): each at least 0, rows that
    sum to 1 within 0.001, which are divided by their sum. The loss of a row is -sum q log p. A row is right, for the
    accuracy, where the most probable class is that of q.

    Parameters
    ----------
    label_smoothing : float in [0, 1)
        The target is (1 - s) q + s / k, q one-hot for labels (Szegedy et al. 2016).
    r_drop : float >= 0
        R-Drop (Liang et al. 2021): in training every row passes twice, with masks of its own, and the loss is
        (CE1 + CE2) / 2 + r_drop (KL(p1 | p2) + KL(p2 | p1)) / 2. The paper's loss is twice this, with
        alpha = 2 r_drop. A step takes twice the time. 0: one pass. Of masks that the whole batch shares both passes
        see the same.
    """

    name = "cross_entropy"
    code = 0
    _options = ("label_smoothing", "r_drop")
    label_smoothing: float
    r_drop: float

    def __init__(self, label_smoothing: float = 0.0, r_drop: float = 0.0) -> None:
        self._declare(
            label_smoothing=checks.number("label_smoothing", label_smoothing, 0.0, 1.0, high_open=True),
            r_drop=checks.number("r_drop", r_drop, 0.0, single=True),
        )

    @property
    def option(self) -> float:
        return self.label_smoothing

    @property
    def pair(self) -> float:
        return self.r_drop

    def columns(self, units: int) -> int:
        return 0

    def check_units(self, units: int) -> None:
        if units < 2:
            raise ValueError(
                f"cross_entropy needs a last layer with a unit a class, at least 2, got {units}; "
                "for one output with labels 0 and 1 use loss='binary_cross_entropy'"
            )


class BinaryCrossEntropy(Loss):
    """Sigmoid cross-entropy of independent targets, the mean over all elements, in nats. Link: sigmoid.

    Targets are 0, 1 or probabilities between. For the accuracy what is above 0.5 counts as 1.
    """

    name = "binary_cross_entropy"
    code = 1


class MSE(Loss):
    """Squared error, the mean over all elements. Link: none."""

    name = "mse"
    code = 2
    sklearn_name = "squared_error"
    sklearn_factor = 0.5


class MAE(Loss):
    """Absolute error, the mean over all elements. Link: none."""

    name = "mae"
    code = 3
    sklearn_name = "absolute_error"


class Huber(Loss):
    """Huber's loss (1964): squared (halved) within delta, linear beyond, the mean over all elements. Link: none.

    Parameters
    ----------
    delta : float > 0
    """

    name = "huber"
    code = 4
    sklearn_name = "huber"
    _options = ("delta",)
    delta: float

    def __init__(self, delta: float = 1.0) -> None:
        self._declare(delta=checks.number("delta", delta, 0.0, low_open=True, single=True))

    @property
    def option(self) -> float:
        return self.delta


class GaussianNLL(Loss):
    """Negative log-likelihood of a normal distribution whose mean and log-variance are predicted, in nats, the
    mean over all targets (Nix and Weigend 1994).

    The last layer has 2 k units for k targets: k means, then k log-variances. Link: the log-variances become
    variances, at most the largest float32, 3.4e38.
    """

    name = "gaussian_nll"
    code = 5

    def columns(self, units: int) -> int:
        return units // 2

    def check_units(self, units: int) -> None:
        if units % 2:
            raise ValueError(
                f"gaussian_nll needs a last layer with two units a target (means, then log-variances), got {units}"
            )


KNOWN: dict[str, type[Loss]] = {
    cls.name: cls for cls in (CrossEntropy, BinaryCrossEntropy, MSE, MAE, Huber, GaussianNLL)
}


def resolve(loss: Any) -> Loss:
    """A loss from its name or itself."""
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        return loss()
    return checks.choice("loss", loss, KNOWN)()


def from_config(config: dict[str, Any]) -> Loss:
    """The loss that `Loss.config` described."""
    options = dict(config)
    return checks.choice("loss", options.pop("loss", None), KNOWN)(**options)

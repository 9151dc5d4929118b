"""What a classifier and a regressor do differently: their targets, loss and score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import losses
from cydrop._base.arrays import Floats
from cydrop.calibration import Prediction
from cydrop.monte_carlo import MonteCarlo
from cydrop.sklearn._data import Data


class Task(ABC):
    """Classification or regression, of an estimator that holds what was learned about the targets."""

    calibrates = True  # whether intervals or sets can be made of what is predicted
    numeric: ClassVar[bool]  # whether targets are numbers, whose score is R^2, another form of the loss

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    @abstractmethod
    def encoded(self, y: NDArray[Any], fresh: bool, classes: ArrayLike | None = None, name: str = "y") -> NDArray[Any]:
        """Targets as the network takes them; sets `classes_` and the like when `fresh`."""

    @abstractmethod
    def loss(self) -> tuple[losses.Loss, float]:
        """The loss, and the factor that makes its gradient scikit-learn's (sums over outputs instead of means)."""

    @abstractmethod
    def out_activation(self) -> str:
        """What scikit-learn calls the activation of the last layer."""

    def n_outputs(self, data: Data) -> int:
        return 1 if data.target.ndim == 1 else int(data.target.shape[1])

    def class_weights(self, y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64] | float:
        return 1.0

    def strata(self, data: Data, smaller: int) -> NDArray[Any] | None:
        """By what held-out rows are stratified; `smaller` is the size of the smaller part."""
        return None

    @abstractmethod
    def judge(self, output: Floats, data: Data) -> tuple[float, float]:
        """Accuracy or R^2 of the network's output for the rows, and what decides between equal ones, a loss with the
        sign turned: more is better."""

    @abstractmethod
    def said(self, X: Floats) -> Prediction:
        """What the network says of rows: probabilities of all classes, or numbers and their standard deviation."""

    @abstractmethod
    def known(self, target: NDArray[Any]) -> NDArray[Any]:
        """Encoded targets as a `Calibration` takes them."""

    @abstractmethod
    def shaped(self, mc: MonteCarlo, levels: NDArray[np.float64] | None, keep: bool) -> MonteCarlo:
        """A Monte Carlo result in the shapes that the estimator's other methods have."""


def quantiles(samples: Any, levels: NDArray[np.float64]) -> Floats:
    return np.quantile(samples, levels, axis=0).astype(np.float32)

"""The optimizer as scikit-learn's solvers go on with it from call to call."""

from __future__ import annotations

from typing import Any

import numpy as np

from cydrop import optimizers
from cydrop._run.core import core_of
from cydrop.network import Network
from cydrop.sklearn._data import Data
from cydrop.sklearn._parameters import Estimator, Settings


def scales_inversely(estimator: Estimator) -> bool:
    return bool(estimator.solver == "sgd" and estimator.learning_rate == "invscaling")


def inversely_scaled_rate(estimator: Estimator) -> float:
    return float(estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t)


def set_optimizer(estimator: Estimator, settings: Settings, data: Data, keep_moments: bool) -> None:
    """The optimizer of the parameters. As in scikit-learn the penalty is divided by the weight of a batch."""
    rows = min(settings.batch_size, len(data.X))
    options = settings.optimizer.options() | {"weight_decay": estimator.alpha / (rows * data.weight.mean())}
    if keep_moments and scales_inversely(estimator):
        options["learning_rate"] = inversely_scaled_rate(estimator)
    _change(estimator.network_, type(settings.optimizer)(**options))
    if not keep_moments:
        core_of(estimator.network_).clear_moments()


def set_rate(network: Network, rate: float) -> None:
    _change(network, network.optimizer.with_learning_rate(rate))


def _change(network: Network, optimizer: optimizers.Optimizer) -> None:
    """Goes on with another optimizer's settings; scikit-learn's velocity contains the rate that it was made with."""
    before: Any = network.optimizer.learning_rate
    network.optimizer = optimizer
    rate: Any = optimizer.learning_rate
    if optimizer.velocity and rate != before:
        for velocity in core_of(network).made("moments").moments:
            velocity *= np.float32(before / rate)

"""The solver "lbfgs": L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995), SciPy's, on all rows at once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from sklearn.exceptions import ConvergenceWarning

from cydrop import functional
from cydrop.errors import DivergedError
from cydrop.network import Network
from cydrop.sklearn._data import Data
from cydrop.sklearn._parameters import Estimator, Settings


def fit_lbfgs(estimator: Estimator, settings: Settings, data: Data, factor: float) -> None:
    """Trains; `factor` is the loss's."""
    network = estimator.network_
    loss_of: Callable[..., Any] = getattr(functional, network.loss.name)
    weight = data.scaled_weight(factor)
    decay = estimator.alpha / data.weight.sum()

    def objective(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        _set(network, vector)
        output = network.forward(data.X, training=True)
        with np.errstate(all="ignore"):
            value, grad = loss_of(output, data.target, sample_weight=weight, return_grad=True)
        if not (math.isfinite(value) and np.isfinite(grad).all()):
            raise DivergedError(1, 1)
        network.backward(grad)
        parameters = network.parameters()
        parts = []
        for name, gradient in network.gradients().items():
            part = gradient.ravel().astype(np.float64)
            if name.endswith("weight"):
                w = parameters[name].ravel().astype(np.float64)
                part += decay * w
                value += 0.5 * decay * float(w @ w)
            parts.append(part)
        return float(value), np.concatenate(parts)

    begin = np.concatenate([p.ravel() for p in network.parameters().values()]).astype(np.float64)
    options = {"maxfun": estimator.max_fun, "maxiter": settings.max_iter, "gtol": settings.tol}
    try:
        found = optimize.minimize(objective, begin, method="L-BFGS-B", jac=True, options=options)
    except BaseException:
        _set(network, begin)
        raise
    _set(network, found.x)
    estimator.loss_, estimator.n_iter_ = float(found.fun), min(int(found.nit), settings.max_iter)
    estimator.t_ += estimator.n_iter_ * len(data.X)
    message = ""
    if found.status == 1:
        message = f"ended at max_iter={settings.max_iter} or max_fun={estimator.max_fun} before it had converged by tol"
    elif not found.success and found.nit == 0:  # later it is the end of float32's precision
        message = "found no step that makes the loss smaller; standardise X, and y of a regression"
    if message:
        warnings.warn(f"L-BFGS {message}", ConvergenceWarning, stacklevel=5)


def _set(network: Network, vector: NDArray[np.float64]) -> None:
    """Puts all parameters, one after another, into the network."""
    end = 0
    for array in network.parameters().values():
        array[...] = vector[end : end + array.size].reshape(array.shape)
        end += array.size

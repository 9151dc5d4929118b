"""The parameters of estimators that were pickled before some of them were there."""

from __future__ import annotations

import inspect
from typing import Any


def with_defaults(estimator: Any) -> None:
    """Gives an estimator those of its constructor's parameters that it lacks, as they are by default."""
    for name, parameter in inspect.signature(type(estimator).__init__).parameters.items():
        if name not in vars(estimator) and parameter.default is not parameter.empty:
            setattr(estimator, name, parameter.default)

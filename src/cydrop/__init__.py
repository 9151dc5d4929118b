"""Neural networks with dropout, trained fast on a CPU.

>>> import cydrop as cd
>>> X, y, X_test, y_test = cd.datasets.load_optdigits()
>>> layers = [cd.Dense(128), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)]
>>> net = cd.Network(layers, seed=0)
>>> history = net.fit(X, y, epochs=3, verbose=0)
>>> probabilities = net.predict(X_test)
"""

from typing import TYPE_CHECKING, Any

from cydrop import callbacks, losses, optimizers, schedules
from cydrop._version import __version__ as __version__
from cydrop.calibration import Calibration
from cydrop.config import show_config
from cydrop.ensemble import Ensemble, load
from cydrop.errors import DivergedError
from cydrop.history import History
from cydrop.layers import (
    ELU,
    GELU,
    SELU,
    AlphaDropout,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    GaussianDropout,
    GaussianNoise,
    LayerNorm,
    LeakyReLU,
    Masksembles,
    Members,
    Mish,
    NumericEmbedding,
    Parametric,
    ReLU,
    Residual,
    Scale,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from cydrop.many import fit_many
from cydrop.monte_carlo import MonteCarlo
from cydrop.network import Network
from cydrop.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from cydrop.xorshift import Xorshift

if TYPE_CHECKING:
    from cydrop import datasets, distributed, exchange, functional, metrics, onnx, plot, reference
    from cydrop import sklearn as sklearn
    from cydrop import tabular as tabular
    from cydrop.quantization import QuantizationReport, QuantizedNetwork

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "AlphaDropout",
    "BatchNorm",
    "Calibration",
    "Dense",
    "DivergedError",
    "Dropout",
    "Embedding",
    "Ensemble",
    "GaussianDropout",
    "GaussianNoise",
    "History",
    "LayerNorm",
    "LeakyReLU",
    "Masksembles",
    "Members",
    "Mish",
    "MonteCarlo",
    "Network",
    "NumericEmbedding",
    "Parametric",
    "QuantizationReport",
    "QuantizedNetwork",
    "RMSprop",
    "ReLU",
    "Residual",
    "Scale",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "Xorshift",
    "callbacks",
    "datasets",
    "distributed",
    "exchange",
    "fit_many",
    "functional",
    "load",
    "losses",
    "metrics",
    "onnx",
    "optimizers",
    "plot",
    "reference",
    "schedules",
    "show_config",
]


_LATER = {
    "datasets", "distributed", "exchange", "functional", "metrics", "onnx", "plot", "reference", "sklearn", "tabular",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """What not every program needs is imported when it is first used."""
    import importlib

    if name in ("QuantizationReport", "QuantizedNetwork"):
        return getattr(importlib.import_module("cydrop.quantization"), name)
    if name in _LATER:
        return importlib.import_module(f"cydrop.{name}")
    raise AttributeError(f"module 'cydrop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

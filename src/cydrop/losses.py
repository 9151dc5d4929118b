"""The losses that a network can be trained with: declarations for the compiled `_core.losses`.

A loss is given by name or as an object with options, `loss=cd.losses.CrossEntropy(label_smoothing=0.1)`.
Each takes raw outputs z (before its link), shape (n_samples, units).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks
from cydrop._base.declaration import Declaration
from cydrop._base.likelihood import SMALLEST, log, normal_log_density, plogp
from cydrop._core.kinds import kind_of
from cydrop._core.losses import KINDS

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

Array: TypeAlias = NDArray[Any]
Doubles: TypeAlias = NDArray[np.float64]


class Loss(Declaration, ABC):
    """Base of the losses. A loss says what it is once, in its class."""

    name: ClassVar[str]
    code: ClassVar[int]  # its number in the kernels
    binary: ClassVar[bool] = False  # whether every output is the probability that its target is 1
    has_density: ClassVar[bool] = True  # whether predictions say how likely y is, without a precision of the noise
    predictions: ClassVar[str] = "values"  # what `Network.predict` gives: these, or "probabilities"
    torch_links: ClassVar[tuple[str, ...]] = ()  # the modules of PyTorch that are its link
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

    @property
    def copies(self) -> int:
        """How often a training step passes each row: R-Drop does so twice."""
        return 2 if self.pair else 1

    def columns(self, units: int) -> int:
        """Columns of y; 0 for class labels.

        Parameters
        ----------
        units : int
            Units of the last layer.
        """
        return units

    def check_units(self, units: int) -> None:
        """Raises ValueError where a last layer of this width makes no sense.

        Parameters
        ----------
        units : int
            Units of the last layer.
        """

    def checked(self, name: str, y: Any, rows: int, units: int) -> Array:
        """A copy of y as the compiled loss takes it: labels, int32 in one dimension, or targets or class probabilities,
        float32 in two.

        Parameters
        ----------
        name : str
            Of the argument, for errors.
        y : array-like
        rows : int
            Of X.
        units : int
            Of the last layer.
        """
        return checks.targets(name, y, rows, self.columns(units), binary=self.binary)

    # How well predictions meet y --------------------------------------------------------------------------------

    def hit_rate(self, hits: float, rows: int, targets: int) -> dict[str, float]:
        """The metric that the compiled loss counts in passing, if it does.

        Parameters
        ----------
        hits : float
            What it counted, of many members the mean of theirs.
        rows : int
        targets : int
            Those that the metrics see.
        """
        return {}

    @abstractmethod
    def metrics(self, p: Array, y: Array, counted: Array | None = None) -> dict[str, float]:
        """The metrics of predictions.

        Parameters
        ----------
        p : ndarray, shape (n, units)
            After the link; of means and variances the means will do.
        y : ndarray
            As `checked` returned it.
        counted : ndarray of bool or None
            Which targets the metrics see. None: all.
        """

    def metrics_of(self, sums: Doubles) -> dict[str, float]:
        """The metrics of all rows.

        Parameters
        ----------
        sums : ndarray of float64, shape (3,)
            Of a loss of numbers: targets that count, the sum of squared errors, the sum of their magnitudes. Other
            losses count hits.
        """
        return {}

    # What is made of Monte Carlo samples, in float64 ------------------------------------------------------------

    def moments(self, mean: Doubles, variance: Doubles) -> tuple[Doubles, Doubles]:
        """Mean and variance of y, as far as the network knows them.

        Parameters
        ----------
        mean, variance : ndarray, shape (n, units)
            Of the samples.
        """
        return mean, variance

    def noise(self, mean: Doubles) -> Doubles | None:
        """The variance of y that the samples predict, on average. None: they predict none.

        Parameters
        ----------
        mean : ndarray, shape (n, units)
            Of the samples.
        """
        return None

    def inverse_link(self, p: Doubles) -> Doubles:
        """Raw outputs whose link gives these predictions.

        Parameters
        ----------
        p : ndarray, shape (n, units)
        """
        return p

    def entropy(self, p: Doubles) -> Doubles | None:
        """Entropy of predictions in nats, of each row or, where they are `binary`, of each element. None: they are no
        probabilities.

        Parameters
        ----------
        p : ndarray, shape (n, units)
        """
        return None

    @abstractmethod
    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        """log p(y | sample), shape (samples, n).

        Parameters
        ----------
        p : ndarray, shape (samples, n, units)
            Predictions.
        y : ndarray
            As `checked` returned it.
        precision : float or None
            Of the noise in y; needed where the loss has no density of its own (`has_density`).
        """

    # In other programs ------------------------------------------------------------------------------------------

    @abstractmethod
    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        """Adds the link to an ONNX graph; the name of what it gives, which is what `Network.predict` returns.

        Parameters
        ----------
        graph : the graph that cydrop.onnx writes
        z : str
            Name of the raw outputs.
        output : str or None
            The name to give; None: any.
        """

    def mix_onnx(self, graph: Any, z: str) -> str:
        """Adds to an ONNX graph what many networks predict together.

        Parameters
        ----------
        graph : the graph that cydrop.onnx writes
        z : str
            Name of their raw outputs, (members, n, units).

        Returns
        -------
        str
            Name of the raw outputs, (n, units), whose link is the mean of theirs after it.
        """
        mean: str = graph.add("ReduceMean", z, axes=[0], keepdims=0)
        return mean

    def is_link(self, module: Any) -> bool:
        """Whether a module of PyTorch at the end of a network is the link.

        Parameters
        ----------
        module : torch.nn.Module
        """
        return type(module).__name__ in self.torch_links

    def config(self) -> dict[str, Any]:
        """Name and options, as saved in a file."""
        return {"loss": self.name} | self.options()


class CrossEntropy(Loss):
    """Softmax cross-entropy, the mean over rows, in nats. Link: softmax.

    y is labels 0..k-1 of shape (n,), or class probabilities q (soft labels) of shape (n, k): each at least 0, in rows
    that sum to 1 within 0.001 and are divided by their sum. The loss of a row is -sum q log p. For the accuracy, a row
    is right where its most probable class is that of q.

    Parameters
    ----------
    label_smoothing : float in [0, 1)
        The target is (1 - s) q + s / k, q one-hot for labels (Szegedy et al. 2016).
    r_drop : float >= 0
        R-Drop (Liang et al. 2021): in training every row passes through twice, with different masks, and the loss is
        (CE1 + CE2) / 2 + r_drop (KL(p1 | p2) + KL(p2 | p1)) / 2. The paper's loss is twice this, with
        alpha = 2 r_drop. A step takes twice the time. 0: one pass. Where the whole batch shares a mask, both passes
        see the same one.
    """

    name = "cross_entropy"
    code = kind_of(KINDS, name)
    predictions = "probabilities"
    torch_links = ("Softmax", "LogSoftmax")
    option_names = ("label_smoothing", "r_drop")
    label_smoothing: float
    r_drop: float

    def __init__(self, label_smoothing: float = 0.0, r_drop: float = 0.0) -> None:
        self.declare(
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
                f"cross_entropy needs a last layer with a unit per class, at least 2, got {units}; "
                "for one output with labels 0 and 1 use loss='binary_cross_entropy'"
            )

    def checked(self, name: str, y: Any, rows: int, units: int) -> Array:
        return checks.labels_or_probabilities(name, y, rows, units)

    def hit_rate(self, hits: float, rows: int, targets: int) -> dict[str, float]:
        return {"accuracy": hits / rows}

    def metrics(self, p: Array, y: Array, counted: Array | None = None) -> dict[str, float]:
        likeliest = y if y.ndim == 1 else y.argmax(axis=1)  # of equal ones the first
        return {"accuracy": float(np.mean(p.argmax(axis=1) == likeliest))}

    def entropy(self, p: Doubles) -> Doubles:
        return np.asarray(plogp(p).sum(axis=1))

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        if y.ndim == 1:
            return log(p[:, np.arange(len(y)), y])
        return np.asarray((y * log(p)).sum(axis=2))

    def inverse_link(self, p: Doubles) -> Doubles:
        return log(p)

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        return str(graph.add("Softmax", z, axis=1, output=output))

    def mix_onnx(self, graph: Any, z: str) -> str:
        y: str = graph.add("Log", super().mix_onnx(graph, graph.add("Softmax", z, axis=-1)))
        return y

    def is_link(self, module: Any) -> bool:
        return super().is_link(module) and module.dim in (None, 1, -1)


class BinaryCrossEntropy(Loss):
    """Sigmoid cross-entropy of independent targets, the mean over all elements, in nats. Link: sigmoid.

    Targets are 0, 1 or probabilities between. For the accuracy, anything above 0.5 counts as 1.
    """

    name = "binary_cross_entropy"
    code = kind_of(KINDS, name)
    binary = True
    predictions = "probabilities"
    torch_links = ("Sigmoid",)

    def hit_rate(self, hits: float, rows: int, targets: int) -> dict[str, float]:
        return {"accuracy": hits / targets if targets else math.nan}

    def metrics(self, p: Array, y: Array, counted: Array | None = None) -> dict[str, float]:
        right = (p > 0.5) == (y > 0.5)
        right = right if counted is None else right[counted]
        return self.hit_rate(int(right.sum()), len(y), right.size)

    def entropy(self, p: Doubles) -> Doubles:
        return plogp(p) + plogp(1.0 - p)

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        y = y.astype(np.float64)
        return np.asarray((y * log(p) + (1.0 - y) * log(1.0 - p)).sum(axis=2))

    def inverse_link(self, p: Doubles) -> Doubles:
        return log(p) - log(1.0 - p)

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        return str(graph.add("Sigmoid", z, output=output))

    def mix_onnx(self, graph: Any, z: str) -> str:
        p, q = (super(BinaryCrossEntropy, self).mix_onnx(graph, graph.add("Sigmoid", some))
                for some in (z, graph.add("Neg", z)))  # fmt: skip
        y: str = graph.add("Sub", graph.add("Log", p), graph.add("Log", q))
        return y


class _Regression(Loss):
    """Base of the losses whose outputs are the numbers that y holds."""

    has_density = False

    def metrics(self, p: Array, y: Array, counted: Array | None = None) -> dict[str, float]:
        error = p[:, : y.shape[1]].astype(np.float64) - y
        error = error if counted is None else error[counted]
        return self.metrics_of(np.array([error.size, np.sum(error**2), np.sum(np.abs(error))]))

    def metrics_of(self, sums: Doubles) -> dict[str, float]:
        targets, squares, magnitudes = (float(total) for total in sums)
        if not targets:
            return {"rmse": math.nan, "mae": math.nan}
        return {"rmse": math.sqrt(squares / targets), "mae": magnitudes / targets}

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        if precision is None:
            raise ValueError(f"with {self.name} y has a density only where the precision of its noise is given")
        return normal_log_density(p, y, np.full(p.shape, precision))

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        return str(graph.add("Identity", z, output=output))


class MSE(_Regression):
    """Squared error, the mean over all elements. Link: none."""

    name = "mse"
    code = kind_of(KINDS, name)
    sklearn_name = "squared_error"
    sklearn_factor = 0.5


class MAE(_Regression):
    """Absolute error, the mean over all elements. Link: none."""

    name = "mae"
    code = kind_of(KINDS, name)
    sklearn_name = "absolute_error"


class Huber(_Regression):
    """Huber's loss (1964): squared (halved) within delta, linear beyond, the mean over all elements. Link: none.

    Parameters
    ----------
    delta : float > 0
    """

    name = "huber"
    code = kind_of(KINDS, name)
    sklearn_name = "huber"
    option_names = ("delta",)
    delta: float

    def __init__(self, delta: float = 1.0) -> None:
        self.declare(delta=checks.number("delta", delta, 0.0, low_open=True, single=True))

    @property
    def option(self) -> float:
        return self.delta


class GaussianNLL(_Regression):
    """Negative log-likelihood of a normal distribution whose mean and log-variance are predicted, in nats, the
    mean over all targets (Nix and Weigend 1994).

    The last layer has 2 k units for k targets: k means, then k log-variances. Link: the log-variances become
    variances, at most the largest float32, 3.4e38.
    """

    name = "gaussian_nll"
    code = kind_of(KINDS, name)
    has_density = True

    def columns(self, units: int) -> int:
        return units // 2

    def check_units(self, units: int) -> None:
        if units % 2:
            raise ValueError(
                f"gaussian_nll needs a last layer with two units per target (means, then log-variances), got {units}"
            )

    def moments(self, mean: Doubles, variance: Doubles) -> tuple[Doubles, Doubles]:
        half = mean.shape[1] // 2  # in all: the variance of the means, plus the mean of the variances
        return mean[:, :half], variance[:, :half] + mean[:, half:]

    def noise(self, mean: Doubles) -> Doubles:
        return mean[:, mean.shape[1] // 2 :]

    def inverse_link(self, p: Doubles) -> Doubles:
        half = p.shape[1] // 2
        return np.concatenate([p[:, :half], log(p[:, half:])], axis=1)

    def log_density(self, p: Doubles, y: Array, precision: float | None = None) -> Doubles:
        half = p.shape[2] // 2
        return normal_log_density(p[:, :, :half], y, 1.0 / np.maximum(p[:, :, half:], SMALLEST))

    def to_onnx(self, graph: Any, z: str, output: str | None = None) -> str:
        means, logs = graph.split(z, "means", "log_variances")
        variances = graph.add("Min", graph.add("Exp", logs), graph.constant("largest", np.finfo(np.float32).max))
        return str(graph.add("Concat", means, variances, axis=1, output=output))

    def mix_onnx(self, graph: Any, z: str) -> str:
        mean = super().mix_onnx(graph, z)
        apart = graph.add("Sub", z, mean)
        spread, _ = graph.split(super().mix_onnx(graph, graph.add("Mul", apart, apart)), "spread", "unused")
        _, variances = graph.split(super().mix_onnx(graph, graph.add("Exp", z)), "unused", "variances")
        means, _ = graph.split(mean, "means", "unused")
        y: str = graph.add("Concat", means, graph.add("Log", graph.add("Add", spread, variances)), axis=1)
        return y


KNOWN: dict[str, type[Loss]] = {
    cls.name: cls for cls in (CrossEntropy, BinaryCrossEntropy, MSE, MAE, Huber, GaussianNLL)
}


def resolve(loss: Any) -> Loss:
    """A loss from its name or itself."""
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        return loss()
    return checks.choice("loss", loss, KNOWN, "a loss object")()


def from_config(config: dict[str, Any]) -> Loss:
    """The loss that `Loss.config` described."""
    options = dict(config)
    return checks.choice("loss", options.pop("loss", None), KNOWN)(**options)

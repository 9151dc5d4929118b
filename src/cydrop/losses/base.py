"""What a loss says about itself: the base of all losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._base.declaration import Declaration

__all__ = ["Array", "Doubles", "Loss"]

Array: TypeAlias = NDArray[Any]
Doubles: TypeAlias = NDArray[np.float64]

NO_LEVELS: Floats = np.empty(0, dtype=np.float32)


class Loss(Declaration, ABC):
    """Base of the losses. A loss says what it is once, in its class."""

    name: ClassVar[str]
    code: ClassVar[int]  # its number in the kernels
    binary: ClassVar[bool] = False  # whether every output is the probability that its target is 1
    has_density: ClassVar[bool] = True  # whether predictions say how likely y is, without a precision of the noise
    needs_precision: ClassVar[bool] = True  # whether with one they would
    predictions: ClassVar[str] = "values"  # what `Network.predict` gives: these, or "probabilities"
    judged_in_order: ClassVar[bool] = False  # whether its link sorts, and rows are judged after it
    torch_links: ClassVar[tuple[str, ...]] = ()  # the modules of PyTorch that are its link
    sklearn_name: ClassVar[str | None] = None  # what scikit-learn's regressors call it
    sklearn_factor: ClassVar[float] = 1.0  # scikit-learn's loss of one output over this one

    @property
    def option(self) -> float:
        """The number that the compiled loss takes."""
        return 0.0

    @property
    def levels(self) -> Floats:
        """The quantiles that the compiled loss takes; most take none."""
        return NO_LEVELS

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

    def units(self, targets: int) -> int:
        """Units of the last layer for y of so many columns: the inverse of `columns`.

        Parameters
        ----------
        targets : int
        """
        return targets

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

    def of_likelihood(self, units: int, precision: float) -> float:
        """The factor between a row's negative log-likelihood and its part of the mean loss, as far as gradients go.

        Parameters
        ----------
        units : int
            Of the last layer.
        precision : float
            Of the noise in y, for a loss that has no density of its own.
        """
        return (1.0 if self.has_density else 1.0 / precision) / max(1, self.columns(units))

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

    def center(self, p: Array, targets: int) -> Array:
        """Of predictions of numbers the one number for each target that answers "how much?".

        Parameters
        ----------
        p : ndarray, shape (..., units)
        targets : int

        Returns
        -------
        ndarray, shape (..., targets)
            A view.
        """
        return p[..., :targets]

    def band(self, p: Doubles, spread: Doubles | None, coverage: float) -> tuple[Doubles, Doubles, Doubles]:
        """Where y is likely to be, as far as the network says: between the first two, in units of the third.

        Parameters
        ----------
        p : ndarray, shape (n, units)
            Predictions of numbers.
        spread : ndarray, shape (n, targets), or None
            A standard deviation of y that is known from elsewhere, such as from Monte Carlo samples.
        coverage : float in (0, 1)
            How often y should be there.

        Returns
        -------
        three ndarrays, shape (n, targets)
        """
        center = self.center(p, self.columns(p.shape[1]))
        return center, center, np.ones_like(center) if spread is None else spread

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

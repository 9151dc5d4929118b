"""A network with bytes for weights, as a network offers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from cydrop._run.core import Cored, core_of

if TYPE_CHECKING:
    from cydrop.quantization import QuantizedNetwork


class Quantizes(Cored):
    """Turning weights into bytes."""

    def quantize(self, X: ArrayLike, y: ArrayLike | None = None) -> QuantizedNetwork:
        """A copy that predicts with bytes for the weights of dense layers: for services, where memory and the time of a
        prediction count. This network stays as it is.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows on which the two are compared: some hundreds, as they will come. Nothing else depends on them.
        y : array-like or None
            Of these rows, as for `fit`: the report then has the loss and the metrics of both.

        Returns
        -------
        QuantizedNetwork
            Its `report` says what quantizing has cost.

        Raises
        ------
        ValueError
            For a network without dense layers, weights that are not finite, or rows that overflow on the way.
        RuntimeError
            For a network that is not built.

        Examples
        --------
        >>> import cydrop as cd
        >>> X, y, X_test, y_test = cd.datasets.load_optdigits()
        >>> layers = [cd.Dense(128), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)]
        >>> net = cd.Network(layers, seed=0)
        >>> history = net.fit(X, y, epochs=3, verbose=0)
        >>> report = net.quantize(X_test, y_test).report
        >>> abs(report.after["accuracy"] - report.before["accuracy"]) < 0.005
        True
        """
        from cydrop import quantization  # what not every program needs is imported when it is first used

        core = core_of(self)
        with core.turn:
            core.made("quantize")
            return quantization.quantize(core, core.inputs(X) if y is None else core.rows(X, y, None, None))

"""The quantized network: its face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks, threads
from cydrop._base.arrays import Floats
from cydrop._run.core import Core, Cored, core_of
from cydrop._run.model import Model
from cydrop._run.plan import Plan
from cydrop._run.prediction import evaluate, predict
from cydrop._run.rows import Rows
from cydrop._run.state import State
from cydrop.history import History
from cydrop.layers import Layer
from cydrop.losses import Loss
from cydrop.optimizers import SGD
from cydrop.quantization import _files
from cydrop.quantization._model import arrays_of, bytes_of, dense_ops, model_of, quantized_arrays, sizes_of
from cydrop.quantization._report import QuantizationReport

ONLY_PREDICTS = "it only predicts: train the network that it was made from, and quantize that again"
OF_NETWORK = "ask the network that it was made from"
HINTS = {
    name: hint
    for names, hint in {
        (
            "fit",
            "partial_fit",
            "train_on_batch",
            "backward",
            "step",
            "optimizer",
            "precision",
            "history",
        ): ONLY_PREDICTS,
        ("predict_mc", "calibrate", "predict_interval", "predict_set", "predict_members", "forward"): OF_NETWORK,
        ("quantize",): "it is quantized",
        ("parameters",): "arrays() has its codes and scales",
    }.items()
    for name in names
}


class QuantizedNetwork(Cored):
    """A network that predicts with bytes: what `Network.quantize` makes and `cydrop.load` reads.

    The weights of dense layers are whole numbers from -127 to 127 times a scale for each unit; what comes into such a
    layer is turned, row by row, into whole numbers from 0 to 255 (a scale and a zero for each row), and products are
    sums of whole numbers. Everything else is float32, also what each of `Members` has for itself, and dense layers of
    more than 65,536 inputs. The same network and rows have the same bits on every machine and any number of threads;
    processors with AVX-512 VNNI multiply bytes four times as fast as float32 numbers.

    It cannot be trained.

    Attributes
    ----------
    layers : tuple of layers
    loss : loss object
    report : QuantizationReport
        What quantizing has cost, on the rows that `quantize` was given.

    Examples
    --------
    >>> import cydrop as cd
    >>> X, y, X_test, y_test = cd.datasets.load_optdigits()
    >>> layers = [cd.Dense(128), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)]
    >>> net = cd.Network(layers, seed=0)
    >>> history = net.fit(X, y, epochs=3, verbose=0)
    >>> small = net.quantize(X[:1000])
    >>> small.report.bytes_after < 0.3 * small.report.bytes_before
    True
    >>> bool(abs(small.predict(X_test) - net.predict(X_test)).mean() < 0.01)
    True
    """

    _report: QuantizationReport

    def __init__(self) -> None:
        raise TypeError("a QuantizedNetwork is made by Network.quantize, or read by cydrop.load")

    def _begin(self, core: Core, report: QuantizationReport) -> None:
        self._core, self._report = core, report

    @property
    def report(self) -> QuantizationReport:
        return self._report

    @property
    def layers(self) -> tuple[Layer, ...]:
        return core_of(self).layers

    @property
    def loss(self) -> Loss:
        return core_of(self).loss

    @property
    def n_threads(self) -> int:
        """Threads in use. Assigning a number, or None for what the machine grants, changes the speed but no bits."""
        return core_of(self).n_threads

    @n_threads.setter
    def n_threads(self, n_threads: int | None) -> None:
        core, count = core_of(self), threads.resolve(n_threads)
        model = self._model
        core.model = model.with_plan(model.plan, model.loss, count, model.precision)
        core.n_threads, core.threads_of_machine = count, n_threads is None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the parameters and running statistics by their names: "0.weight" are codes of int8 (inputs, units),
        "0.weight_scale" their scales (units,); the weight is the one times the other.

        Returns
        -------
        dict of str to ndarray
        """
        return {name: np.array(array) for name, array in arrays_of(self._model).items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters and running statistics."""
        return sum(sizes_of(self._model).values())

    @property
    def _model(self) -> Model:
        return core_of(self).made("a prediction")

    def predict(self, X: ArrayLike, *, batch_size: int | None = None) -> Floats:
        """The outputs after the loss's link.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        batch_size : int >= 1 or None
            Rows at a time; the result does not depend on it.

        Returns
        -------
        ndarray of float32, shape (n_samples, units)
            As of `Network.predict`. A row whose numbers become infinite on the way gives NaN.
        """
        rows = core_of(self).inputs(X)
        size = None if batch_size is None else checks.integer("batch_size", batch_size, 1)
        return predict(self._model, rows, True, size)

    def evaluate(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """The loss and the metrics.

        Parameters
        ----------
        X, y, sample_weight
            As for `Network.fit`.

        Returns
        -------
        dict of str to float
            As of `Network.evaluate`.
        """
        core = core_of(self)
        return evaluate(self._model, core.rows(X, y, sample_weight, None), core.n_threads)

    def save(self, path: Any) -> None:
        """Writes the network to a safetensors file, as `Network.save` does: complete or not at all. `cydrop.load` reads
        it.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ValueError
            For layers or losses of the user's own classes, before anything is written.
        OSError
            When the file cannot be written; it is named.
        """
        _files.save(core_of(self).state(), arrays_of(self._model), self._report, path)

    def summary(self) -> str:
        """A table of the layers, their output units and what their parameters take, as text."""
        model = self._model
        sizes, codes = sizes_of(model), dense_ops(model.plan)
        rows = [("", "layer", "output", "bytes", "")]
        for place, layer in enumerate(self.layers):
            own = [name for name in sizes if name.startswith(f"{place}.")]
            shape = f"(n, {int(np.prod(model.plan.shapes[place + 1]))})"
            kind = "int8" if any(name in codes for name in own) else "float32" if own else ""
            rows.append((str(place), repr(layer), shape, f"{sum(sizes[name] for name in own):,}", kind))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        padded = [[f"{text:<{width}}" for text, width in zip(row, widths, strict=True)] for row in rows]
        lines = ["  ".join(row).rstrip() for row in padded]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], f"{self.nbytes:,} bytes"])

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            hint = f"; {HINTS[name]}" if name in HINTS else ""
            raise AttributeError(f"a QuantizedNetwork has no attribute {name!r} to set{hint}")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        hint = f"; {HINTS[name]}" if name in HINTS else ""
        raise AttributeError(f"a QuantizedNetwork has no attribute {name!r}{hint}")

    def __repr__(self) -> str:
        return f"<cydrop.QuantizedNetwork of {len(self.layers)} layers, loss {self.loss.name!r}, {self.nbytes:,} bytes>"

    def __getstate__(self) -> dict[str, Any]:
        core, model = core_of(self), self._model
        return {
            "layers": self.layers, "loss": self.loss, "root": core.root, "precision": model.precision,
            "n_threads": None if core.threads_of_machine else core.n_threads, "n_features": model.plan.n_features,
            "arrays": self.arrays(), "report": self._report,
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        plan = Plan.of(state["layers"], state["n_features"])
        made = _made(
            state["layers"], state["loss"], state["root"], plan, state["precision"], state["n_threads"],
            state["arrays"], state["report"],
        )  # fmt: skip
        self._begin(core_of(made), made.report)


def _made(
    layers: tuple[Any, ...],
    loss: Loss,
    root: tuple[int, ...],
    plan: Plan,
    precision: str,
    n_threads: int | None,
    arrays: Mapping[str, NDArray[Any]],
    report: QuantizationReport,
) -> QuantizedNetwork:
    """`plan`: that of the network."""
    count = threads.resolve(n_threads)
    core = Core(State(layers, loss, SGD(), root, 0, History(), count, n_threads is None, None, None, precision))
    core.model = model_of(plan.seed(root), loss, count, precision, arrays)
    net = QuantizedNetwork.__new__(QuantizedNetwork)
    net._begin(core, report)
    return net


def quantize(core: Core, data: Rows | Floats) -> QuantizedNetwork:
    """A network as bytes, and what that costs on rows, or on rows with what belongs to them.

    Parameters
    ----------
    core : of a built network
    data : Rows or ndarray
    """
    model, X = core.made("quantize"), data.X if isinstance(data, Rows) else data
    if not dense_ops(model.plan):
        raise ValueError(
            "the network has no dense layer that bytes can stand for: one of more than 65,536 inputs and what each of "
            "Members has for itself stay float32"
        )
    for name, array in model.arrays().items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} has numbers that are not finite; training must have diverged")
    arrays = quantized_arrays(model)
    n_threads = None if core.threads_of_machine else core.n_threads
    before, after = bytes_of(model.arrays()), bytes_of(arrays)
    empty = QuantizationReport(0, before, after, 0.0, 0.0)
    net = _made(core.layers, core.loss, core.root, model.plan, core.precision, n_threads, arrays, empty)
    exact, found = predict(model, X, True), predict(net._model, X, True)
    bad = np.flatnonzero(~(np.isfinite(exact) & np.isfinite(found)).all(axis=1))
    if len(bad):
        raise ValueError(
            f"row {bad[0]} of X is too large: it overflows on the way through the network and cannot be compared; "
            "leave it out"
        )
    differences = np.abs(exact.astype(np.float64) - found)
    metrics: tuple[dict[str, float], ...] = ({}, {})
    if isinstance(data, Rows):
        metrics = tuple(evaluate(one, data, core.n_threads) for one in (model, net._model))
    net._begin(core_of(net), QuantizationReport(
        len(X), before, after, float(differences.max()), float(differences.mean()),
        same_class(core.loss, exact, found), *metrics,
    ))  # fmt: skip
    return net


def same_class(loss: Loss, exact: Floats, found: Floats) -> float | None:
    """The share of what both put into the same class, None: there are no classes."""
    if not loss.hit_rate(0, 1, 1):
        return None
    if loss.name == "binary_cross_entropy":
        return float(np.mean((exact > 0.5) == (found > 0.5)))
    return float(np.mean(exact.argmax(axis=1) == found.argmax(axis=1)))


def load(path: Any, n_threads: int | None) -> QuantizedNetwork:
    """What `QuantizedNetwork.save` wrote."""
    threads.resolve(n_threads)  # a wrong argument is no fault of the file
    found = _files.load(path)
    return _made(
        found.layers, found.loss, found.root, found.plan, found.precision, n_threads, found.arrays, found.report
    )

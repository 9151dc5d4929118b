"""Estimators for tables as ONNX graphs, whose inputs are the table's columns.

    "X" (n, numbers), float32; NaN: missing  -> float64: means, median, factor, clip -> float32 \
    a column of categories (n, 1), text or int64 -> LabelEncoder -> one-hot or code             / network -> mean

The numbers are scaled in float64, as in `predict`: of 1.7e9 float32 has no digits behind the point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop import layers
from cydrop.network import Network
from cydrop.tabular._columns import CATEGORY, NUMBER, Value
from cydrop.tabular._onnx_quantiles import normal
from cydrop.tabular._parts import Part
from cydrop.tabular._preprocessing import CLIPPED, LARGEST, Preprocessor, one_hot, smooth_clip
from cydrop.tabular._quantiles import QuantilePreprocessor
from cydrop.tabular._recipe import AnyPreprocessor

OWN = {"X", "label", "probabilities", "variable", "training_mode"}  # names of other inputs and of outputs
MOST = float(np.finfo(np.float32).max)


def nodes(estimator: Any, graph: Any) -> tuple[list[Any], list[Any]]:
    """Adds all nodes of a fitted estimator; the inputs and outputs."""
    table = _Columns(estimator, graph)
    found = []
    for number, part in enumerate(estimator.parts_):
        rows = table.prepared(part.preprocessor, f"part{number}")
        for place, network in enumerate(part.networks):
            z = graph.network(network, rows, f"network{number}.{place}.", _layers(estimator, network, graph.mc))
            graph.place = f"output{number}.{place}"
            found += [_values(estimator, graph, part, z)] * part.share
    graph.place = "mean"
    mean = found[0]
    if len(found) > 1:  # ONNX Runtime has no Mean in float64
        kind = np.float32 if hasattr(estimator, "classes_") else np.float64
        mean = graph.add("Mul", graph.add("Sum", *found), graph.constant("share", 1 / len(found), kind))
    if not hasattr(estimator, "classes_"):
        return table.inputs, _targets(estimator, graph, mean)
    graph.add("Identity", mean, output="probabilities")
    return table.inputs, graph.labels(estimator, graph.add("ArgMax", mean, axis=1, keepdims=0))


def _layers(estimator: Any, network: Network, mc: bool) -> list[Any]:
    """The network's layers; for samples dropout is what it was in the first half of training, as in `predict_mc`."""
    return [
        layers.Dropout(**layer.options() | {"rate": float(estimator.dropout)})
        if mc and isinstance(layer, layers.Dropout)
        else layer
        for layer in network.layers
    ]


def _values(estimator: Any, graph: Any, part: Part, z: str) -> str:
    """Probabilities, or targets in float64."""
    if part.standard is None:
        p: str = graph.add("Softmax", z, axis=1)
        if len(estimator.classes_) == 1:  # the network has two outputs nevertheless
            p = graph.add("ReduceSum", p, graph.integers("axis", [1]), keepdims=1)
        return p
    standard, loss = part.standard, part.networks[0].loss
    z = graph.center(loss, z, loss.units(len(standard.scale)))
    doubles = graph.add("Cast", z, to=graph.onnx.TensorProto.DOUBLE)
    if max(np.abs(array).max() for array in vars(standard).values()) > MOST:
        raise ValueError("y has targets that float32 cannot hold, which is what the model would give")
    scaled = graph.add("Mul", doubles, _doubles(graph, "scale", standard.scale))
    y: str = graph.add("Add", scaled, _doubles(graph, "shift", standard.shift))
    if estimator.family.clamped(estimator):
        y = graph.add("Max", y, _doubles(graph, "low", standard.low))
        y = graph.add("Min", y, _doubles(graph, "high", standard.high))
    return y


def _targets(estimator: Any, graph: Any, mean: str) -> list[Any]:
    shape = list(estimator.target_shape_)
    y = graph.add("Cast", mean, to=graph.onnx.TensorProto.FLOAT)
    graph.add("Reshape", y, graph.integers("shape", [-1, *shape]), output="variable")
    return [graph.output("variable", *shape)]


def _doubles(graph: Any, what: str, value: ArrayLike) -> str:
    return str(graph.constant(what, value, np.float64))


class _Columns:
    """The inputs, and what the preprocessing of each part makes of them."""

    def __init__(self, estimator: Any, graph: Any) -> None:
        self.graph, self.kinds, self.inputs = graph, graph.onnx.TensorProto, list[Any]()
        self.doubles = self.missing = ""  # "X" in float64, and where it is NaN
        graph.place = "columns"
        kinds = estimator.schema_.kinds
        names = getattr(estimator, "feature_names_in_", [f"column_{number}" for number in range(len(kinds))])
        if NUMBER in kinds:
            self._input("X", self.kinds.FLOAT, kinds.count(NUMBER))
            self.doubles = graph.add("Cast", "X", to=self.kinds.DOUBLE)
            self.missing = graph.add("IsNaN", self.doubles)
        categories = [name for name, kind in zip(names, kinds, strict=True) if kind == CATEGORY]
        self.columns: list[str] = []  # names of the inputs of categories, as (n,)
        self.spellings: list[Callable[[Any], Any]] = []
        for place, name in enumerate(categories):
            known = [value for part in estimator.parts_ for value in part.preprocessor.known[place]]
            spell = _spelling(name, known)
            unique = f"column.{name}" if name in OWN | graph.used.keys() or not name else name
            self._input(unique, self.kinds.INT64 if spell is int else self.kinds.STRING, 1)
            self.columns.append(graph.add("Reshape", unique, graph.integers("shape", [-1])))
            self.spellings.append(spell)

    def _input(self, name: str, kind: int, columns: int) -> None:
        self.graph.used[name] += 1
        self.inputs.append(self.graph.onnx.helper.make_tensor_value_info(name, kind, ["n", columns]))

    def prepared(self, preprocessor: AnyPreprocessor, place: str) -> str:
        """The rows of a network's input: numbers, indicators, one-hot columns, codes."""
        graph = self.graph
        graph.place = place
        codes = []
        if isinstance(preprocessor, QuantilePreprocessor):
            found = self._ranks(preprocessor)
        else:
            found = self._numbers(preprocessor)
        at = len(preprocessor.means) + len(preprocessor.indicated)
        for number, (known, embedded) in enumerate(zip(preprocessor.known, preprocessor.embedded, strict=True)):
            if not known:
                continue
            code = self._code(number, known)
            if embedded:
                single = graph.add("Cast", code, to=self.kinds.FLOAT)
                codes.append(graph.add("Reshape", single, graph.integers("shape", [-1, 1])))
                continue
            count = len(known)
            if isinstance(preprocessor, QuantilePreprocessor):
                found.append(self._zeros_and_ones(code, count))
                continue
            width = 1 if count <= 2 else count
            scale = preprocessor.median[at : at + width], preprocessor.factor[at : at + width]
            found.append(self._one_hot(code, count, *scale))
            at += width
        parts = [*found, *codes]
        if not parts:  # of categories none of which is known
            zero = graph.onnx.helper.make_tensor("value", self.kinds.FLOAT, [1], [0.0])
            rows = graph.add("Shape", self.columns[0])
            shape = graph.add("Concat", rows, graph.integers("one", [1]), axis=0)
            return str(graph.add("ConstantOfShape", shape, value=zero))
        return parts[0] if len(parts) == 1 else str(graph.add("Concat", *parts, axis=1))

    def _numbers(self, preprocessor: Preprocessor) -> list[str]:
        """Scaled numbers, and indicators."""
        graph, n = self.graph, len(preprocessor.means)
        if not n:
            return []
        x = graph.add("Where", self.missing, _doubles(graph, "means", preprocessor.means), self.doubles)
        x = self._clip(x, LARGEST)
        x = graph.add("Sub", x, _doubles(graph, "median", preprocessor.median[:n]))
        x = graph.add("Mul", x, _doubles(graph, "factor", preprocessor.factor[:n]))
        x = self._clip(x, CLIPPED)
        third = graph.add("Div", x, _doubles(graph, "three", 3.0))
        root = graph.add("Sqrt", graph.add("Add", graph.add("Mul", third, third), _doubles(graph, "one", 1.0)))
        found = [graph.add("Cast", graph.add("Div", x, root), to=self.kinds.FLOAT)]
        count = len(preprocessor.indicated)
        if count:
            median, factor = (array[n : n + count] for array in (preprocessor.median, preprocessor.factor))
            there, gone = (smooth_clip((sign - median) * factor) for sign in (1.0, -1.0))
            places = graph.integers("indicated", preprocessor.indicated.tolist())
            gaps = graph.add("Gather", self.missing, places, axis=1)
            found.append(graph.add("Where", gaps, graph.constant("gone", gone), graph.constant("there", there)))
        return found

    def _ranks(self, preprocessor: QuantilePreprocessor) -> list[str]:
        """Numbers as normal quantiles of their ranks, and indicators."""
        graph = self.graph
        if not len(preprocessor.means):
            return []
        x = normal(graph, self._clip(self.doubles, LARGEST), preprocessor.quantiles)
        x = graph.add("Where", self.missing, _doubles(graph, "means", preprocessor.means), x)
        found = [graph.add("Cast", x, to=self.kinds.FLOAT)]
        if len(preprocessor.indicated):
            places = graph.integers("indicated", preprocessor.indicated.tolist())
            found.append(graph.add("Cast", graph.add("Gather", self.missing, places, axis=1), to=self.kinds.FLOAT))
        return found

    def _clip(self, x: str, most: float) -> str:
        low, high = (_doubles(self.graph, "bound", bound) for bound in (-most, most))
        return str(self.graph.add("Clip", x, low, high))

    def _code(self, number: int, known: list[Value]) -> str:
        """Codes 1, 2, ... of the known values, 0 of all others; (n,)."""
        codes = list(range(1, len(known) + 1))
        spell = self.spellings[number]
        keys = {"keys_int64s" if spell is int else "keys_strings": [spell(value) for value in known]}
        return str(
            self.graph.add(
                "LabelEncoder", self.columns[number], domain="ai.onnx.ml", values_int64s=codes, default_int64=0, **keys
            )
        )

    def _one_hot(self, code: str, count: int, median: NDArray[Any], factor: NDArray[Any]) -> str:
        """Columns of 0 and 1, or one of 1 and -1, scaled and clipped: each has two or three values."""
        graph = self.graph
        if count <= 2:
            values = smooth_clip((one_hot(np.arange(count + 1), count) - median) * factor)
            return str(graph.add("Gather", graph.constant("values", values), code, axis=0))
        on, off = (smooth_clip((value - median) * factor) for value in (1.0, 0.0))
        height = graph.add("Mul", self._zeros_and_ones(code, count), graph.constant("height", on - off))
        return str(graph.add("Add", height, graph.constant("off", off)))

    def _zeros_and_ones(self, code: str, count: int) -> str:
        """A column for each of `count` categories."""
        graph = self.graph
        pair = graph.constant("pair", [0.0, 1.0])
        columns = graph.add("OneHot", code, graph.integers("depth", [count + 1]), pair, axis=1)
        ends = (graph.integers(name, [at]) for name, at in (("start", 1), ("end", count + 1), ("axis", 1)))
        return str(graph.add("Slice", columns, *ends))


def _spelling(name: str, known: list[Value]) -> Callable[[Any], Any]:
    """What makes a category what the model's input has: `int` where all are whole numbers or booleans; otherwise text,
    of numbers as floats, such as "2.0" beside "2.5". ValueError where two categories would be the same text."""
    if all(isinstance(value, int) for value in known):
        if any(not -(2**63) <= int(value) < 2**63 for value in known):
            raise ValueError(f"column {name!r} has categories beyond 64 bits, which a model cannot hold")
        return int
    if not any(isinstance(value, str) for value in known):
        return _float_text
    if len({str(value) for value in known}) < len(set(known)):
        raise ValueError(f"column {name!r} has numbers and text that look the same, which a model cannot tell apart")
    return str


def _float_text(value: float) -> str:
    return str(float(value))

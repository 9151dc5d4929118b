"""Networks as ONNX models, which ONNX Runtime and many other programs run without cydrop.

    X (n, n_features) -> Gemm, Relu, ... one or a few nodes per layer -> the loss's link -> "probabilities" or "values"

The graph is that of `Network.predict`. For an estimator for scikit-learn it goes on to what its `predict` and
`predict_proba` give, and for a pipeline it begins with the other steps, which skl2onnx converts. With mc=True the
layers that draw random numbers stay in it, as in `Network.predict_mc`, with a switch:

    training_mode (one boolean, False if it is left out)

Masks are drawn as RandomUniformLike(x) < rate, not by ONNX's own Dropout node: ONNX Runtime (1.31, CPU) seeds that
node afresh in every run, with the number that follows the last, and its generator makes nearly the same first draws
from neighbouring seeds. The first unit of the first row would be dropped in thousands of runs on end, or in none.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks
from cydrop._run import files
from cydrop._run.core import core_of
from cydrop._version import __version__
from cydrop.ensemble import Ensemble, nodes
from cydrop.network import Network
from cydrop.quantization import CodesInGraph, QuantizedNetwork

__all__ = ["export", "to_model"]

OPSET = 17  # the first with a node for normalised rows
IR_VERSION = 8  # the one of that opset
ML, ML_OPSET = "ai.onnx.ml", 3  # where LabelEncoder is, for categories
_Net: TypeAlias = Network | QuantizedNetwork
LARGEST = 2**31 - 2**20  # bytes of weights: protobuf ends at 2 GiB, and the nodes need some as well


def export(net: Any, path: Any, *, mc: bool = False, example: Any = None) -> None:
    """Writes a network, an ensemble, or an estimator with its classes, to an ONNX file (opset 17, IR version 8).

    The model takes "X", float32 of shape (n, n_features) for any n. For a network it gives what `Network.predict`
    gives, as "probabilities" (cross_entropy, binary_cross_entropy) or "values" (means then variances for gaussian_nll);
    for an ensemble what `Ensemble.predict` gives, in the same way.
    For an `MLPClassifier` it gives "label", (n,), what `predict` gives as int64 or text (for several labels 0 and 1,
    (n, n_labels)), and "probabilities", (n, n_classes), what `predict_proba` gives; for an `MLPRegressor` "variable",
    in the shape of `predict`. Equal networks give equal files. The file is written under a temporary name and renamed,
    as by `Network.save`.

    Of a `QuantizedNetwork` weights are int8 and what comes into a dense layer passes through uint8, a scale and a zero
    for each row, by QuantizeLinear and DequantizeLinear: the codes are those of cydrop, up to ties. ONNX Runtime then
    multiplies floats: the file is a quarter of the size, not faster.

    For an estimator of `cydrop.tabular` the table's columns are the inputs: the numbers together as "X", float32 with
    NaN for what is missing, in the table's order; each column of categories by its name ("column_3" where there are no
    names, "column.X" of one named "X" or like an output), (n, 1), as int64 where all are whole numbers or booleans,
    else as text ("2.0" of a number beside "2.5"). A category that is missing or new is any value that is none of those
    in training. float32 has seven digits: of Unix seconds, 1.7e9, it keeps steps of 128; where that is too coarse,
    subtract a constant before `fit`. The outputs are those of the other estimators.

    Parameters
    ----------
    net : Network, QuantizedNetwork, Ensemble, estimator or sklearn.pipeline.Pipeline
        Built or fitted, usually trained. The estimators are those of `cydrop.sklearn` and `cydrop.tabular`; a pipeline
        has one of the former at its end, and steps before it that the skl2onnx package converts.
    path : str or path-like
    mc : bool
        Whether dropout, noise and drop-connect stay in the model, for Monte Carlo dropout. They act where the input
        "training_mode", a boolean scalar, is True; it may be left out, and is then False. Rates that follow a schedule
        take its final value, those of tables' estimators that of the estimator's `dropout`. A mask with shared="batch"
        and a mask of weights hold for all rows of a run. Of an ensemble a run gives the mean of one sample of each
        member: the spread over runs is that of the mean, not that between members.
    example : DataFrame or array, or None
        For a pipeline: rows as its `predict` takes them. The columns of a DataFrame become inputs, (n, 1) each, with
        their names: float32 for numbers, int64 for integers, text. None: one input "X", all float32.

    Raises
    ------
    ImportError
        Without the onnx package (`pip install "cydrop[onnx]"`), or, for a pipeline, without skl2onnx.
    RuntimeError
        For a network that is not built.
    sklearn.exceptions.NotFittedError
        For an estimator that is not fitted.
    TypeError
        For arguments of another type.
    ValueError
        For weights of 2 GiB and more, which the format cannot hold; for steps that skl2onnx does not convert; for a
        table's estimator behind other steps, or whose targets float32 cannot hold.
    OSError
        When the file cannot be written; it is named.

    Examples
    --------
    >>> import os, tempfile
    >>> import cydrop as cd
    >>> layers = [cd.Dense(8), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)]
    >>> net = cd.Network(layers, seed=0).build(4)
    >>> path = os.path.join(tempfile.mkdtemp(), "net.onnx")
    >>> cd.onnx.export(net, path)

    With ONNX Runtime, `onnxruntime.InferenceSession(path).run(None, {"X": X})[0]` is then `net.predict(X)`, up to
    rounding. With `mc=True`, repeated runs with `{"X": X, "training_mode": np.array(True)}` are samples as in
    `net.predict_mc(X)`, with other random numbers. When it loads such a model ONNX Runtime logs a warning that
    training_mode can be overridden: that is what it is for. `onnxruntime.set_seed` makes the samples repeatable; give
    it a number of nine digits, since small ones may give layers related masks.
    """
    place = files.checked_path(path)
    data = to_model(net, mc=mc, example=example).SerializeToString(deterministic=True)
    with files.replaced(place) as file:
        file.write(data)


def to_model(net: Any, *, mc: bool = False, example: Any = None) -> Any:
    """The model that `export` writes, in memory.

    Parameters
    ----------
    net, mc, example
        As for `export`.

    Returns
    -------
    onnx.ModelProto
        Checked by `onnx.checker`.

    Raises
    ------
    ImportError, RuntimeError, TypeError, ValueError
        As for `export`.

    Examples
    --------
    >>> import cydrop as cd
    >>> layers = [cd.Dense(8), cd.ReLU(), cd.Dense(1)]
    >>> net = cd.Network(layers, loss="mse", seed=0).build(4)
    >>> [node.op_type for node in cd.onnx.to_model(net).graph.node]
    ['Gemm', 'Relu', 'Gemm', 'Identity']
    """
    checks.flag("mc", mc)
    steps, last = _taken_apart(net)
    if mc and isinstance(last, QuantizedNetwork):
        raise ValueError("mc=True needs a network that draws; a QuantizedNetwork predicts with dropout off alone")
    if example is not None and steps is None:
        raise ValueError("example is for pipelines, to show what their first step takes; net is none, or has one step")
    of_table = hasattr(last, "to_onnx")
    if of_table and steps is not None:
        raise ValueError(
            f"{type(last).__name__} takes a table's columns as inputs, which the steps before it would change; export "
            "the pipeline's last step alone"
        )
    networks = _networks_of(last)
    plans = [core_of(network).made("an ONNX model").plan for network in networks]
    network, plan = networks[0], plans[0]
    size = 4 * sum(plan.arena_size + plan.buffer_size for plan in plans)
    if size > LARGEST:
        raise ValueError(
            f"the weights take {size / 2**30:.2f} GiB, an ONNX file holds less than 2; Network.save has no limit"
        )
    onnx = _onnx()
    helper, kinds = onnx.helper, onnx.TensorProto
    first = None if steps is None else _converted(steps, example)
    graph = _Graph(onnx, mc)
    if of_table:
        inputs, outputs = last.to_onnx(graph)
    elif isinstance(last, Ensemble):
        inputs, outputs = nodes(last, graph)
    else:
        value, kind = "X", kinds.FLOAT
        if first is not None:
            value, kind = "network.X", first.graph.output[0].type.tensor_type.elem_type
        inputs = [helper.make_tensor_value_info(value, kind, ["n", plan.n_features])]
        if kind != kinds.FLOAT:
            graph.place = "network"
            value = graph.add("Cast", value, to=kinds.FLOAT)
        value = graph.network(network, value)
        graph.place = "link"
        outputs = [graph.prediction(network, value)] if last is network else graph.answer(last, value)
    if mc:
        inputs.append(helper.make_tensor_value_info("training_mode", kinds.BOOL, []))
        graph.initializers.append(onnx.numpy_helper.from_array(np.array(False), "training_mode"))
    about = f"{plan.n_features} features to {plan.n_outputs} {outputs[-1].name}; trained with loss {network.loss.name}"
    model = helper.make_model(
        helper.make_graph(graph.nodes, "network", inputs, outputs, initializer=graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET), *([helper.make_opsetid(ML, ML_OPSET)] if of_table else [])],
        ir_version=IR_VERSION,
        producer_name="cydrop",
        producer_version=__version__,
        doc_string=about,
    )
    if first is not None:
        model = _joined(onnx, first, model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _networks_of(net: Any) -> list[Any]:
    if isinstance(net, Network | QuantizedNetwork):
        return [net]
    if isinstance(net, Ensemble):
        return list(net)
    return list(net.networks_) if hasattr(net, "to_onnx") else [net.network_]


def _taken_apart(net: Any) -> tuple[Any, Any]:
    """The steps of a pipeline before its last, or None; and the network or estimator."""
    steps, last = None, net
    # what was never imported can have no instances: scikit-learn is not needed for networks
    pipelines, estimators = sys.modules.get("sklearn.pipeline"), sys.modules.get("cydrop.sklearn")
    tables = sys.modules.get("cydrop.tabular")
    if pipelines is not None and isinstance(net, pipelines.Pipeline):
        before = [step for step in net.steps[:-1] if step[1] is not None and not isinstance(step[1], str)]
        steps, last = pipelines.Pipeline(before) if before else None, net.steps[-1][1]  # without "passthrough"
    if estimators is not None and isinstance(last, estimators.MLPClassifier | estimators.MLPRegressor):
        sys.modules["sklearn.utils.validation"].check_is_fitted(last, "network_")
        return steps, last
    if tables is not None and isinstance(
        last, tables.RealMLPClassifier | tables.RealMLPRegressor | tables.TabMClassifier | tables.TabMRegressor
    ):
        sys.modules["sklearn.utils.validation"].check_is_fitted(last, "parts_")
        return steps, last
    if not isinstance(last, Network | Ensemble | QuantizedNetwork) or last is not net:
        got = f"{net!r} ({type(net).__name__})" if len(repr(net)) < 60 else type(net).__name__
        end = "" if last is net else f" that ends with {type(last).__name__}"
        raise TypeError(
            f"net must be a cydrop.Network, got {got}{end}; a cydrop.Ensemble will do, an estimator of cydrop.sklearn "
            "or cydrop.tabular, and a Pipeline that ends with one; of what wraps such an estimator give that, or its "
            "network_"
        )
    return None, net


def _converted(steps: Any, example: Any) -> Any:
    """The model of a pipeline's first steps, by skl2onnx."""
    alone = "or export the pipeline's last step alone, and apply the others in front of it"
    try:
        skl2onnx = importlib.import_module("skl2onnx")
    except ImportError:
        raise ImportError(
            f"the steps before a pipeline's network need the skl2onnx package: pip install skl2onnx, {alone}"
        ) from None
    try:
        if example is not None:
            return skl2onnx.to_onnx(steps, _single(example[:1]), target_opset=OPSET)
        columns = skl2onnx.common.data_types.FloatTensorType([None, steps.n_features_in_])
        return skl2onnx.convert_sklearn(steps, initial_types=[("X", columns)], target_opset=OPSET)
    except Exception as error:
        hint = "" if example is not None else "give example=X[:1], a row with the columns and types that they take, "
        raise ValueError(f"skl2onnx does not convert the steps before the network ({error}); {hint}{alone}") from error


def _single(rows: Any) -> Any:
    """Numbers as float32: ONNX Runtime has no float64 kernels for some of what scikit-learn's steps become."""
    if hasattr(rows, "dtypes"):  # a DataFrame
        return rows.astype({name: np.float32 for name, kind in rows.dtypes.items() if kind == np.float64})
    return rows.astype(np.float32) if rows.dtype == np.float64 else rows


def _joined(onnx: Any, first: Any, second: Any) -> Any:
    """One model of two: the first one's output is the second's input "network.X"."""
    taken = {entry.name for entry in first.graph.input}
    end = first.graph.output[0].name

    def rename(graph: Any) -> None:
        """Gives all values and nodes but the inputs names that the second model has not."""
        for node in graph.node:
            node.name = f"before.{node.name}"
            for names in (node.input, node.output):
                names[:] = [name if name in taken or not name else f"before.{name}" for name in names]
            for attribute in node.attribute:
                for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                    rename(inner)
        for values in (graph.initializer, graph.output, graph.value_info):
            for value in values:
                value.name = f"before.{value.name}"

    rename(first.graph)
    # skl2onnx names the least version that has all of its nodes as they are in the version asked for
    domains = {entry.domain: entry.version for entry in first.opset_import} | {"": OPSET}
    del first.opset_import[:]
    first.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in domains.items())
    first.ir_version = second.ir_version
    merged = onnx.compose.merge_models(first, second, io_map=[(f"before.{end}", "network.X")])
    for field in ("doc_string", "producer_name", "producer_version"):
        setattr(merged, field, getattr(second, field))
    merged.graph.name, merged.graph.doc_string = second.graph.name, ""  # skl2onnx's are random
    return merged


def _onnx() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError:
        raise ImportError('ONNX models need the onnx package: pip install "cydrop[onnx]"') from None


class _Graph(CodesInGraph):
    """Nodes and constants of a model that grows layer by layer; methods take and return names of values."""

    n_outputs: int
    shape: tuple[int, ...]  # of a row that comes into the layer at work

    def __init__(self, onnx: Any, mc: bool) -> None:
        self.onnx, self.mc = onnx, mc
        self.arrays: dict[str, Any] = {}
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.prefix = ""  # of the network at work, where there are several
        self.place = ""  # of the layer at work: names begin with it
        self.used: Counter[str] = Counter()
        self.members = 0  # that values have one after another, in front of the rows; 0: there are none

    def network(
        self, net: Network | QuantizedNetwork, x: str, prefix: str = "", layers: Sequence[Any] | None = None
    ) -> str:
        """The raw output of a network; `layers` instead of its own, if given."""
        model = core_of(net).made("an ONNX model")
        self.arrays = net.arrays() if isinstance(net, QuantizedNetwork) else model.arrays()
        self.prefix, self.n_outputs = prefix, model.plan.n_outputs
        plan = model.plan
        masked = plan.ops[plan.inside].layers[0].partition(".")[0] if plan.in_turn else ""
        for place, layer in enumerate(layers or net.layers):
            self.place, self.shape = str(place), plan.shapes[place]
            if self.place == masked:  # from here on x has the rows of one member after another's
                x = self.add("Tile", x, self.integers("times", [plan.members, 1]))
            x = layer.to_onnx(self, x)
        if plan.members:
            self.place = "together"
            if plan.in_turn:
                x = self.add("Reshape", x, self.integers("members", [plan.members, -1, plan.n_outputs]))
            x = net.loss.mix_onnx(self, x)
        self.prefix = ""
        return x

    def name(self, what: str) -> str:
        """A name that no other value has."""
        name = f"{self.prefix}{self.place}.{what}"
        self.used[name] += 1
        return name if self.used[name] == 1 else f"{name}_{self.used[name]}"

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node of one output."""
        output = output or self.name(kind)
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def split(self, x: str, *names: str) -> list[str]:
        """The columns of x in equal parts."""
        parts = [self.name(name) for name in names]
        self.nodes.append(self.onnx.helper.make_node("Split", [x], parts, name=self.name("Split"), axis=1))
        return parts

    def constant(self, what: str, value: ArrayLike, dtype: Any = np.float32) -> str:
        """An array, or a number."""
        name = self.name(what)
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    def parameter(self, what: str) -> str:
        """A weight or running statistic of the layer."""
        return self.constant(what, self.arrays[f"{self.place}.{what}"])

    # What draws -----------------------------------------------------------------------------------------------

    def drop(self, x: str, like: str, rate: float, in_prediction: float, vanilla: bool = False) -> str:
        """x with elements set to 0 in training, by a mask of the shape of `like`; scaled as the mode says."""
        if np.float32(rate) >= 1:
            return self.add("Where", "training_mode", self.constant("zero", 0.0), self.scaled(x, in_prediction))
        dropped = self.add("And", self.uniform_below(like, rate), "training_mode")
        y = self.add("Where", dropped, self.constant("zero", 0.0), x)
        in_training = 1.0 if vanilla else 1.0 / (1.0 - rate)
        scale = self.in_training(self.constant("scale", in_training), self.constant("scale", in_prediction))
        return self.add("Mul", y, scale)

    def scaled(self, x: str, factor: float) -> str:
        return x if factor == 1 else self.add("Mul", x, self.constant("keep", factor))

    def in_training(self, y: str, otherwise: str) -> str:
        """y if training_mode, else the other."""
        return self.add("Where", "training_mode", y, otherwise)

    def uniform_below(self, like: str, rate: float) -> str:
        """True with probability `rate`, for each element of `like`."""
        return self.add("Less", self.add("RandomUniformLike", like), self.constant("rate", rate))

    def normal(self, like: str, mean: float, deviation: float) -> str:
        return self.add("RandomNormalLike", like, mean=mean, scale=deviation)

    def in_order(self, z: str, parts: int, output: str | None = None) -> str:
        """Each row's equal parts in ascending order, element by element; rows may be those of several members."""
        shape, count = self.integers("apart", [-1, parts, self.n_outputs // parts]), self.integers("parts", [parts])
        values, places = self.name("ascending"), self.name("places")
        inputs = [self.add("Reshape", z, shape), count]
        node = {"name": self.name("TopK"), "axis": 1, "largest": 0}
        self.nodes.append(self.onnx.helper.make_node("TopK", inputs, [values, places], **node))
        return self.add("Reshape", values, self.add("Shape", z), output=output)

    def center(self, loss: Any, z: str, units: int) -> str:
        """From the raw outputs of a network of numbers to the one number for each target."""
        columns = loss.center(np.arange(units), loss.columns(units)).tolist()
        if len(columns) == units:
            return z
        return self.add("Gather", loss.to_onnx(self, z), self.integers("center", columns), axis=1)

    # The end --------------------------------------------------------------------------------------------------

    def prediction(self, net: _Net, z: str) -> Any:
        """From raw outputs to what `Network.predict` returns."""
        return self.output(net.loss.to_onnx(self, z, net.loss.predictions), self.n_outputs)

    def answer(self, estimator: Any, z: str) -> list[Any]:
        """From raw outputs to what the estimator's `predict` and `predict_proba` return."""
        if not hasattr(estimator, "classes_"):
            loss = estimator.network_.loss
            targets = loss.columns(self.n_outputs)
            shape = [targets] if targets > 1 else []
            self.add(
                "Reshape", self.center(loss, z, self.n_outputs), self.integers("shape", [-1, *shape]), output="variable"
            )
            return [self.output("variable", *shape)]
        integers = self.onnx.TensorProto.INT64
        if estimator.out_activation_ == "logistic" and self.n_outputs > 1:  # several labels
            p = self.add("Sigmoid", z, output="probabilities")
            self.add("Cast", self.add("Greater", p, self.constant("half", 0.5)), to=integers, output="label")
            several = self.output("label", self.n_outputs, kind=integers)
            return [several, self.output("probabilities", self.n_outputs)]
        if self.n_outputs > 1:
            p = self.add("Softmax", z, axis=1, output="probabilities")
            return self.labels(estimator, self.add("ArgMax", p, axis=1, keepdims=0))
        return self.labels(estimator, self.two_classes(z, len(estimator.classes_)))

    def labels(self, estimator: Any, place: str) -> list[Any]:
        """The labels at these places, and "probabilities", which is there already."""
        names = _label_tensor(self.onnx, estimator.classes_)
        self.initializers.append(names)
        self.add("Gather", names.name, place, output="label")
        label = self.output("label", kind=names.data_type)
        return [label, self.output("probabilities", len(estimator.classes_))]

    def two_classes(self, z: str, n_classes: int) -> str:
        """The place of the class of one unit, which gives the probability of the second; 1 where there is one class."""
        p = self.add("Sigmoid", z)
        if n_classes == 1:
            one = self.onnx.helper.make_tensor("value", self.onnx.TensorProto.FLOAT, [1], [1.0])
            self.add("ConstantOfShape", self.add("Shape", p), value=one, output="probabilities")
            above = self.add("Greater", p, self.constant("never", 2.0))
        else:
            self.add("Concat", self.add("Sub", self.constant("one", 1.0), p), p, axis=1, output="probabilities")
            above = self.add("Greater", p, self.constant("half", 0.5))
        place = self.add("Cast", above, to=self.onnx.TensorProto.INT64)
        return self.add("Reshape", place, self.integers("shape", [-1]))

    def integers(self, what: str, value: list[int]) -> str:
        name = self.name(what)
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(value, dtype=np.int64), name))
        return name

    def output(self, name: str, *columns: int, kind: int | None = None) -> Any:
        kind = self.onnx.TensorProto.FLOAT if kind is None else kind
        return self.onnx.helper.make_tensor_value_info(name, kind, ["n", *columns])


def _label_tensor(onnx: Any, classes: NDArray[Any]) -> Any:
    """The labels as int64 where they are whole numbers or bools, else as text."""
    labels = classes.tolist()
    if all(isinstance(label, bool | int | float) and label == int(label) for label in labels):
        return onnx.numpy_helper.from_array(np.array(labels, dtype=np.int64), "classes")
    text = [str(label).encode() for label in labels]
    return onnx.helper.make_tensor("classes", onnx.TensorProto.STRING, [len(text)], text)

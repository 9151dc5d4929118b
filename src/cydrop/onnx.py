"""Networks as ONNX models, which ONNX Runtime and many other programs run without cydrop.

    X (n, n_features) -> Gemm, Relu, ... one or a few nodes a layer -> the loss's link -> "probabilities" or "values"

The graph is that of `Network.predict`. With mc=True the layers that draw random numbers stay in it, as in
`Network.predict_mc`, behind a switch:

    training_mode (one boolean, False if it is left out)

Masks are drawn as RandomUniformLike(x) < rate, not by ONNX's own Dropout node: ONNX Runtime (1.31, CPU) seeds that
node afresh in every run, with the number that follows the last, and its generator makes nearly the same first draws of
neighbouring seeds. The first unit of the first row would be dropped in thousands of runs on end, or in none of them.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cydrop import checks, files, layers, losses
from cydrop.network import Network, check_network
from cydrop.reference import alpha_affine

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # the one of that opset
LARGEST = 2**31 - 2**20  # bytes of weights: protobuf ends at 2 GiB, and the nodes need some as well


def export(net: Network, path: Any, *, mc: bool = False) -> None:
    """Writes a network to an ONNX file (opset 17, IR version 8).

    The model takes "X", float32 of shape (n, n_features) for any n, and gives what `Network.predict` gives, as
    "probabilities" (cross_entropy, binary_cross_entropy) or "values" (means then variances for gaussian_nll). Equal
    networks give equal files. The file is written beside its place and renamed, as by `Network.save`.

    Parameters
    ----------
    net : Network
        Built, usually trained.
    path : str or path-like
    mc : bool
        Whether dropout, noise and drop-connect stay in the model, for Monte Carlo dropout. They act where the input
        "training_mode", a boolean scalar, is True; it may be left out and is False then. Rates that follow a schedule
        stand at its end. A mask with shared="batch" and a mask of weights hold for all rows of a run.

    Raises
    ------
    ImportError
        Without the onnx package (`pip install "cydrop[onnx]"`).
    RuntimeError
        For a network that is not built.
    TypeError
        For what is not a network, a path or a bool.
    ValueError
        For weights of 2 GiB and more, which the format does not hold.
    OSError
        When the file cannot be written; it is named.

    Examples
    --------
    >>> import os, tempfile
    >>> import cydrop as cd
    >>> net = cd.Network([cd.Dense(8), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)], seed=0).build(4)
    >>> path = os.path.join(tempfile.mkdtemp(), "net.onnx")
    >>> cd.onnx.export(net, path)

    With ONNX Runtime, `onnxruntime.InferenceSession(path).run(None, {"X": X})[0]` then is `net.predict(X)`, up to
    rounding. With `mc=True`, repeated runs of `{"X": X, "training_mode": np.array(True)}` are samples of
    `net.predict_mc(X)`, of other random numbers. ONNX Runtime logs a warning when it loads such a model, that
    training_mode can be overridden: that is what it is for. `onnxruntime.set_seed` makes the samples repeatable; give
    it a number of nine digits, since of small ones layers may get related masks.
    """
    place = files.checked_path(path)
    data = to_model(net, mc=mc).SerializeToString(deterministic=True)
    with files.replaced(place) as file:
        file.write(data)


def to_model(net: Network, *, mc: bool = False) -> Any:
    """The model that `export` writes, in memory.

    Parameters
    ----------
    net, mc
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
    >>> net = cd.Network([cd.Dense(8), cd.ReLU(), cd.Dense(1)], loss="mse", seed=0).build(4)
    >>> [node.op_type for node in cd.onnx.to_model(net).graph.node]
    ['Gemm', 'Relu', 'Gemm', 'Identity']
    """
    check_network(net)
    checks.flag("mc", mc)
    plan = net._built("an ONNX model")
    size = 4 * (plan.arena_size + plan.buffer_size)
    if size > LARGEST:
        raise ValueError(
            f"the weights take {size / 2**30:.2f} GiB, an ONNX file holds less than 2; Network.save has no limit"
        )
    onnx = _onnx()
    graph = _Graph(onnx, net, mc)
    value = "X"
    for place, layer in enumerate(net.layers):
        graph.place = str(place)
        value = graph.layer(layer, value)
    graph.place = "link"
    output = graph.link(net.loss, value)

    helper, kinds = onnx.helper, onnx.TensorProto
    inputs = [helper.make_tensor_value_info("X", kinds.FLOAT, ["n", plan.n_features])]
    if mc:
        inputs.append(helper.make_tensor_value_info("training_mode", kinds.BOOL, []))
        graph.initializers.append(onnx.numpy_helper.from_array(np.array(False), "training_mode"))
    outputs = [helper.make_tensor_value_info(output, kinds.FLOAT, ["n", plan.n_outputs])]
    from cydrop import __version__

    model = helper.make_model(
        helper.make_graph(graph.nodes, "network", inputs, outputs, initializer=graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cydrop",
        producer_version=__version__,
        doc_string=f"{plan.n_features} features to {plan.n_outputs} {output}; trained with loss {net.loss.name}",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _onnx() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError:
        raise ImportError('ONNX models need the onnx package: pip install "cydrop[onnx]"') from None


class _Graph:
    """Nodes and constants of a model that grows layer by layer; methods take and return names of values."""

    def __init__(self, onnx: Any, net: Network, mc: bool) -> None:
        self.onnx, self.mc = onnx, mc
        self.arrays = net._arrays()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.place = ""  # of the layer at work: names begin with it
        self.width = net._built("an ONNX model").n_features  # columns of its input
        self.used: Counter[str] = Counter()

    def name(self, what: str) -> str:
        """A name that no other value has."""
        name = f"{self.place}.{what}"
        self.used[name] += 1
        return name if self.used[name] == 1 else f"{name}_{self.used[name]}"

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node of one output."""
        output = output or self.name(kind)
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, what: str, value: ArrayLike) -> str:
        """A float32 array, or a number."""
        name = self.name(what)
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name))
        return name

    def parameter(self, what: str) -> str:
        """A weight or running statistic of the layer."""
        return self.constant(what, self.arrays[f"{self.place}.{what}"])

    # Layers ---------------------------------------------------------------------------------------------------

    def layer(self, layer: layers.Layer, x: str) -> str:
        """y of the layer at `place`."""
        if isinstance(layer, layers.Dense):
            return self.dense(layer, x)
        if isinstance(layer, layers.Activation):
            return self.activation(layer, x)
        if isinstance(layer, layers.Dropout):
            return self.dropout(layer, x)
        if isinstance(layer, layers.LayerNorm):
            weights = self.parameter("weight"), self.parameter("bias")
            return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=layer.epsilon)
        if isinstance(layer, layers.BatchNorm):
            weights = self.parameter("weight"), self.parameter("bias")
            running = self.parameter("running_mean"), self.parameter("running_variance")
            return self.add("BatchNormalization", x, *weights, *running, epsilon=layer.epsilon)
        assert isinstance(layer, layers.RandomLayer)  # the plan of a built network knows no others
        return self.noise(layer, x)

    def dense(self, layer: layers.Dense, x: str) -> str:
        weight = self.parameter("weight")
        rate = layer.rate_at(1.0)
        if self.mc and rate > 0:
            weight = self.drop(weight, weight, rate, 1.0)
        self.width = layer.units
        y = self.add("Gemm", x, weight, *([self.parameter("bias")] if layer.bias else []))
        return y if layer.activation is None else self.activation(layer.activation, y)

    def activation(self, layer: layers.Activation, z: str) -> str:
        if isinstance(layer, layers.GELU):
            normal = self.add("Erf", self.add("Mul", z, self.constant("root_half", math.sqrt(0.5))))
            twice = self.add("Mul", z, self.add("Add", normal, self.constant("one", 1.0)))
            return self.add("Mul", twice, self.constant("half", 0.5))
        if isinstance(layer, layers.SiLU):
            return self.add("Mul", z, self.add("Sigmoid", z))
        kinds = {
            layers.ReLU: "Relu", layers.LeakyReLU: "LeakyRelu", layers.ELU: "Elu", layers.SELU: "Selu",
            layers.Tanh: "Tanh", layers.Sigmoid: "Sigmoid", layers.Softplus: "Softplus",
        }  # fmt: skip
        if isinstance(layer, layers.LeakyReLU | layers.ELU):
            return self.add(kinds[type(layer)], z, alpha=layer.alpha)
        return self.add(kinds[type(layer)], z)

    # What draws -----------------------------------------------------------------------------------------------

    def dropout(self, layer: layers.Dropout, x: str) -> str:
        rate, vanilla = layer.rate_at(1.0), layer.mode == "vanilla"
        if rate == 0 or not (self.mc or vanilla):
            return x
        in_prediction = 1.0 - rate if vanilla else 1.0
        if not self.mc:
            return self.add("Mul", x, self.constant("keep", in_prediction))
        like = x if layer.shared is None else self.constant("row", np.zeros((1, self.width)))
        return self.drop(x, like, rate, in_prediction, vanilla)

    def noise(self, layer: layers.RandomLayer, x: str) -> str:
        """Gaussian noise, Gaussian dropout or alpha dropout: the identity in prediction."""
        amount = layer.rate_at(1.0)
        if not self.mc or amount == 0:
            return x
        if isinstance(layer, layers.GaussianNoise):
            return self.in_training(self.add("Add", x, self.normal(x, 0.0, amount)), x)
        if amount == 1:
            return self.in_training(self.constant("zero", 0.0), x)
        if isinstance(layer, layers.GaussianDropout):
            return self.in_training(self.add("Mul", x, self.normal(x, 1.0, math.sqrt(amount / (1 - amount)))), x)
        a, b, low = alpha_affine(amount)
        kept = self.add("Add", self.add("Mul", x, self.constant("a", a)), self.constant("b", b))
        dropped = self.constant("dropped", a * low + b)
        return self.in_training(self.add("Where", self.uniform_below(x, amount), dropped, kept), x)

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

    # The end --------------------------------------------------------------------------------------------------

    def link(self, loss: losses.Loss, z: str) -> str:
        """From raw outputs to what `predict` returns, and its name."""
        if isinstance(loss, losses.CrossEntropy):
            return self.add("Softmax", z, axis=1, output="probabilities")
        if isinstance(loss, losses.BinaryCrossEntropy):
            return self.add("Sigmoid", z, output="probabilities")
        if isinstance(loss, losses.GaussianNLL):
            means, logs = self.name("means"), self.name("log_variances")
            self.nodes.append(self.onnx.helper.make_node("Split", [z], [means, logs], name=self.name("Split"), axis=1))
            variances = self.add("Min", self.add("Exp", logs), self.constant("largest", np.finfo(np.float32).max))
            return self.add("Concat", means, variances, axis=1, output="values")
        return self.add("Identity", z, output="values")

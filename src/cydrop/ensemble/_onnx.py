"""The mean of an ensemble as nodes of an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from cydrop._run.core import core_of
from cydrop.ensemble._ensemble import Ensemble


def nodes(ensemble: Ensemble, graph: Any) -> tuple[list[Any], list[Any]]:
    """Adds all nodes of an ensemble; the inputs and outputs.

    Parameters
    ----------
    ensemble : Ensemble
    graph : the graph that cydrop.onnx writes
    """
    plan = core_of(ensemble.networks[0]).made("an ONNX model").plan
    loss, found = ensemble.loss, []
    for number, network in enumerate(ensemble.networks):
        z = graph.network(network, "X", f"network{number}.")
        graph.place = f"link{number}"
        found.append(network.loss.to_onnx(graph, z))
    graph.place = "mean"
    if loss.noise(np.zeros((1, plan.n_outputs))) is None:
        graph.add("Mul", graph.add("Sum", *found), share(graph, found), output=loss.predictions)
    else:
        _mixture(graph, found, loss.predictions)
    inputs = [graph.onnx.helper.make_tensor_value_info("X", graph.onnx.TensorProto.FLOAT, ["n", plan.n_features])]
    return inputs, [graph.output(loss.predictions, plan.n_outputs)]


def share(graph: Any, found: list[str]) -> str:
    return str(graph.constant("share", 1 / len(found)))


def _mixture(graph: Any, found: list[str], output: str) -> None:
    """Mean and variance of a mixture of normal distributions: the mean of the variances and of what their means differ
    by from the mean of all, squared."""
    means, variances = zip(*(graph.split(values, "means", "variances") for values in found), strict=True)
    mean = graph.add("Mul", graph.add("Sum", *means), share(graph, found))
    for number, single in enumerate(means):
        graph.place = f"mean{number}"
        difference = graph.add("Sub", single, mean)
        variances += (graph.add("Mul", difference, difference),)
    graph.place = "mean"
    variance = graph.add("Mul", graph.add("Sum", *variances), share(graph, found))
    graph.add("Concat", mean, variance, axis=1, output=output)

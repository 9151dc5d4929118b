"""A network's plan and model with bytes for the weights of its dense layers.

    plan of a network        "dense"       weight (inputs, units)           bias
    plan of bytes            "quantized"   panels, scale, sums of codes     bias       _core/quantized_op.pxd

All other operations stay as they are. Nothing here depends on the number of threads; how wide a panel is depends on the
instruction set, so that panels are made where they are used, and files hold the codes (inputs, units).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base import quantizing
from cydrop._core import dense as kernels
from cydrop._run.model import Model
from cydrop._run.plan import ALIGNMENT, PLAIN, Factors, Op, Parameter, Plan, Shape
from cydrop.losses import Loss
from cydrop.optimizers import SGD

SCALE, SUMS = "_scale", "_sums"  # what the names of a weight's own end with


def dense_ops(plan: Plan) -> dict[str, Op]:
    """The operations whose weights become bytes, by the names of these."""
    names = {parameter.offset: parameter.name for parameter in plan.parameters}
    return {
        names[op.weight]: op
        for op in plan.ops
        if op.kind in ("dense", "quantized") and op.n_in <= quantizing.MOST_INPUTS
    }


def plan_of_bytes(plan: Plan) -> Plan:
    """The plan with other arenas: offsets of the same parameters, and of what bytes need."""
    columns, own = kernels.panel_columns(), dense_ops(plan)
    parameters: list[Parameter] = []
    places = {-1: -1}
    parts: dict[int, list[int]] = {}

    def add(name: str, shape: Shape, factors: Factors = PLAIN) -> int:
        last = parameters[-1] if parameters else None
        end = 0 if last is None else last.offset + last.size
        parameters.append(Parameter(name, shape, -(-end // ALIGNMENT) * ALIGNMENT, 0.0, (), factors))
        return parameters[-1].offset

    for parameter in plan.parameters:
        name, op = parameter.name, own.get(parameter.name)
        if op is None:
            places[parameter.offset] = add(name, parameter.shape, parameter.factors)
            continue
        panels = -(-op.n_out // columns) * -(-op.n_in // 4) * columns
        places[parameter.offset] = add(name, (panels,))
        parts[parameter.offset] = [add(name + SCALE, (op.n_out,)), add(name + SUMS, (op.n_out,))]

    def moved(op: Op) -> Op:
        bias, others = places[op.bias], [places[offset] for offset in op.parts]
        if op.weight in parts:
            changes: dict[str, Any] = {"kind": "quantized", "parts": parts[op.weight], "connect": None, "max_norm": 0.0}
            return replace(op, weight=places[op.weight], bias=bias, **changes)
        return replace(op, weight=places[op.weight], bias=bias, parts=others)

    return replace(plan, ops=[moved(op) for op in plan.ops], parameters=parameters)


def model_of(plan: Plan, loss: Loss, n_threads: int, precision: str, arrays: Mapping[str, NDArray[Any]]) -> Model:
    """The model of bytes of a network's plan. `arrays`: as `arrays_of` gives them."""
    ops = dense_ops(plan)
    model = Model.of(plan_of_bytes(plan), loss, SGD(), n_threads, precision)
    for name, view in model.arrays().items():
        if name in ops:
            view[...] = quantizing.panels(arrays[name], kernels.panel_columns())
        elif name.endswith(SUMS) and name.removesuffix(SUMS) in ops:
            view.view(np.int32)[...] = quantizing.column_sums(arrays[name.removesuffix(SUMS)])
        else:
            view[...] = arrays[name]
    return model


def shapes_of(plan: Plan) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """What a network of bytes has: shapes of its arrays of float32, and of its codes."""
    ops = dense_ops(plan)
    singles = {p.name: p.shape for p in (*plan.parameters, *plan.buffers) if p.name not in ops}
    scales = {name + SCALE: (op.n_out,) for name, op in ops.items()}
    return singles | scales, {name: (op.n_in, op.n_out) for name, op in ops.items()}


def quantized_arrays(model: Model) -> dict[str, NDArray[Any]]:
    """A network's arrays with codes for the weights of its dense layers."""
    arrays: dict[str, NDArray[Any]] = dict(model.arrays())
    for name in dense_ops(model.plan):
        codes, scales = quantizing.column_codes(arrays[name])
        arrays |= {name: codes, name + SCALE: scales}
    return arrays


def arrays_of(model: Model) -> dict[str, NDArray[Any]]:
    """The same of a model of bytes."""
    arrays: dict[str, NDArray[Any]] = {name: array for name, array in model.arrays().items() if not name.endswith(SUMS)}
    for name, op in dense_ops(model.plan).items():
        arrays[name] = quantizing.from_panels(arrays[name], op.n_in, op.n_out, kernels.panel_columns())
    return arrays


def sizes_of(model: Model) -> dict[str, int]:
    """Bytes of what `arrays_of` gives, which need not be taken out of the panels for that."""
    own = {name: op.n_in * op.n_out for name, op in dense_ops(model.plan).items()}
    return {name: own.get(name, array.nbytes) for name, array in model.arrays().items() if not name.endswith(SUMS)}


def bytes_of(arrays: Mapping[str, NDArray[Any]]) -> int:
    return sum(array.nbytes for array in arrays.values())

"""Quantized networks in files: as networks (cydrop.saving), with codes of int8 and nothing that training needs.

"cydrop_quantized"    {"format": 1, "layers": [...], "loss": {...}, "root": [...], "n_features": 64,
                       "precision": "float32", "report": {...}}

tensors    "1.weight" I8 (inputs, units)    "1.weight_scale" F32 (units,)    "1.bias" F32    ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BufferedReader
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop import layers, losses, saving
from cydrop._base import checks
from cydrop._base.quantizing import LARGEST_CODE
from cydrop._run import files
from cydrop._run.files import JSON, a_count, a_list, a_word, an_object
from cydrop._run.plan import Plan, Shape
from cydrop._run.state import State
from cydrop._version import __version__
from cydrop.losses import Loss
from cydrop.quantization._model import SCALE, shapes_of
from cydrop.quantization._report import QuantizationReport

FORMAT = 1
NAMES = ("format", "layers", "loss", "root", "n_features", "precision", "report")


@dataclass
class Found:
    """What a file holds."""

    layers: tuple[Any, ...]
    loss: Loss
    root: tuple[int, ...]
    plan: Plan  # of the network
    precision: str
    report: QuantizationReport
    arrays: dict[str, NDArray[Any]]


def save(state: State, arrays: Mapping[str, NDArray[Any]], report: QuantizationReport, path: Any) -> None:
    """Writes next to `path`, then renames."""
    assert state.built is not None
    saving.check(replace(state, built=None), path)
    description = {
        "format": FORMAT,
        "layers": [layer.config() for layer in state.layers],
        "loss": state.loss.config(),
        "root": [str(word) for word in state.root],
        "n_features": state.built.n_features,
        "precision": state.precision,
        "report": report.described(),
    }
    own = dict(sorted(arrays.items(), key=lambda named: -named[1].itemsize))  # floats at multiples of 4, then bytes
    try:
        metadata = {"cydrop_quantized": JSON.encode(description), "version": __version__}
        header = files.header_of(metadata, own)
        _understood(header, sum(array.nbytes for array in own.values()))
        for name, array in own.items():
            _check_values(name, array)
    except saving.REFUSALS as error:
        raise ValueError(f"the network cannot be saved: {error}") from None
    with files.replaced(files.checked_path(path)) as file:
        files.write(file, header, own)


def load(path: Any) -> Found:
    """What `save` wrote."""
    place = files.checked_path(path)
    with open(place, "rb") as file:
        try:
            return _read(file)
        except saving.REFUSALS as error:
            raise ValueError(f"{place} is not a network that cydrop can load: {str(error)[:500]}") from None


def _read(file: BufferedReader) -> Found:
    found, order, shapes, codes = _understood(*files.read_header(file))
    for name, _ in order:
        array: NDArray[Any]
        array = np.empty(codes[name], np.int8) if name in codes else np.empty(shapes[name], np.float32)
        found.arrays[name] = files.fill(file, array)
        _check_values(name, array)
    return found


def _understood(text: bytes, n_bytes: int) -> tuple[Found, list[tuple[str, int]], dict[str, Shape], dict[str, Shape]]:
    """What a header says, without the arrays; names and sizes of these in their order, and their shapes."""
    header: dict[str, Any] = files.parsed(text.decode())
    metadata = an_object("metadata", header.pop("__metadata__", None))
    given = an_object("description", files.parsed(metadata["cydrop_quantized"]))
    if given.get("format") != FORMAT:
        this = f"this cydrop {__version__} reads format {FORMAT}"
        writer = f"load it with the one that wrote it, cydrop {metadata.get('version')!s:.20}"
        raise ValueError(f"it has format {given.get('format')!r:.20}, {this}: {writer}")
    given = an_object("description", given, NAMES)
    made = tuple(layers.from_config(an_object("layer", config)) for config in a_list("layers", given["layers"]))
    if not made:
        raise ValueError("layers is empty: a network needs at least one layer")
    loss = losses.from_config(an_object("loss", given["loss"]))
    plan = Plan.of(made, checks.integer("n_features", a_count(given["n_features"]), 1))
    loss.check_units(plan.n_outputs)
    root = tuple(a_word(word) for word in a_list("seed", given["root"], 4))
    report = QuantizationReport.of_description(an_object("report", given["report"]))
    shapes, codes = shapes_of(plan)
    order = files.checked_tensors(header, shapes, set(), n_bytes, codes)
    return Found(made, loss, root, plan, checks.precision(given["precision"]), report, {}), order, shapes, codes


def _check_values(name: str, array: NDArray[Any]) -> None:
    """Raises for numbers that no quantizing produces."""
    if not array.size:
        return
    low, high = array.min(), array.max()
    if array.dtype == np.int8 and low < -LARGEST_CODE:
        raise ValueError(f"tensor {name!r} has the code {low}, the least is {-LARGEST_CODE}")
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError(f"tensor {name!r} has values that are NaN or infinite")
    if low < 0 and (name.endswith(".running_variance") or name.endswith(f".weight{SCALE}")):
        raise ValueError(f"tensor {name!r} must not be negative, got {low:g}")

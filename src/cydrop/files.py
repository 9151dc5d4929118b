"""Networks in files: the safetensors format, read and written with NumPy alone.

    8 bytes           length of the header, little-endian
    header            JSON: {"__metadata__": {...}, "1.weight": {"dtype": "F32", "shape": [...], "data_offsets": [...]}}
    data              the tensors, one behind the other

Tensors are the parameters and running statistics under their names and the optimizer's moments as
"moment1.1.weight", "moment2...". The
metadata holds the architecture, the counters that the random numbers depend on, and the history. Nothing in a file
is trusted: every length is checked against the file's size before memory is taken.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop import layers, losses, optimizers, threads
from cydrop.history import History
from cydrop.network import Network
from cydrop.plan import Plan

FORMAT = 1
LONGEST_HEADER = 100_000_000  # the limit of the safetensors library


def save(network: Network, path: Any) -> None:
    """Writes the network beside `path`, then renames: a reader finds the old file or the new one, whole."""
    data = to_bytes(network)
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def load(path: Any, *, n_threads: int | None = None) -> Network:
    """Reads a network that `Network.save` wrote.

    Parameters
    ----------
    path : str or path-like
    n_threads : int or None
        As for `Network`; a file does not say on how many threads it was trained.

    Returns
    -------
    Network
        With the optimizer's state and random state: training goes on bit for bit.

    Raises
    ------
    ValueError
        For a file that is damaged, cut off or not cydrop's.
    OSError
        When it cannot be read.
    """
    with open(path, "rb") as file:
        return from_bytes(file.read(), str(path), n_threads)


def to_bytes(network: Network) -> bytes:
    """The network as the bytes of a safetensors file."""
    plan = network._plan
    description: dict[str, Any] = {
        "format": FORMAT,
        "layers": [layer.config() for layer in network.layers],
        "loss": network.loss.config(),
        "optimizer": network.optimizer.config(),
        "root": [str(word) for word in network._root],
        "n_features": plan.n_features if plan else None,
        "epochs": network._epochs,
        "history": network.history.metrics,
    }
    tensors: dict[str, NDArray[np.float32]] = {}
    if plan is not None:
        description |= {"draws": network._engine.draws, "updates": network._engine.updates}
        for prefix, arena in _arenas(network).items():
            tensors |= {prefix + name: view for name, view in network._views(arena, "save").items()}
        tensors |= network.buffers()
    header: dict[str, Any] = {"__metadata__": {"cydrop": json.dumps(description)}}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    parts = [len(text).to_bytes(8, "little"), text]
    return b"".join([*parts, *(tensor.astype("<f4", copy=False).tobytes() for tensor in tensors.values())])


def from_bytes(data: bytes, where: str, n_threads: int | None = None) -> Network:
    """The network that `to_bytes` wrote; `where` names the source in errors."""
    count = threads.resolve(n_threads)  # a wrong argument is no fault of the file
    try:
        return _read(data, count)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{where} is not a network that cydrop can load: {error}") from None


def _read(data: bytes, n_threads: int) -> Network:
    header, body = _split(data)
    description = json.loads(header.pop("__metadata__")["cydrop"])
    if description["format"] != FORMAT:
        raise ValueError(f"it has format {description['format']!r}, this cydrop reads {FORMAT}")
    network = Network(
        [layers.from_config(config) for config in description["layers"]],
        loss=losses.from_config(description["loss"]),
        optimizer=optimizers.from_config(description["optimizer"]),
        seed=0,
        n_threads=n_threads,
    )
    network._root = tuple(_word(word) for word in description["root"])
    if len(network._root) != 4:
        raise ValueError("its seed is not four words")
    network._epochs = _count(description["epochs"])
    metrics = description["history"].items()
    network.history = History({str(name): [float(value) for value in values] for name, values in metrics})
    if description["n_features"] is not None:
        tensors = _tensors(header, body)
        plan = network._checked_plan(_count(description["n_features"]))
        _check_tensors(plan, network, tensors)
        network._allocate(plan)
        for prefix, arena in _arenas(network).items():
            for name, view in network._views(arena, "load").items():
                view[...] = tensors[prefix + name]
        for name, view in network.buffers().items():
            view[...] = tensors[name]
        network._engine.draws = _count(description["draws"])
        network._engine.updates = _count(description["updates"])
    return network


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    if len(data) < 8:
        raise ValueError(f"it has only {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, LONGEST_HEADER):
        raise ValueError(f"its header claims {length} bytes, the file has {len(data)}")
    header = json.loads(data[8 : 8 + length].decode())
    if not isinstance(header, dict) or "cydrop" not in (header.get("__metadata__") or {}):
        raise ValueError("it has no description of a network")
    return header, memoryview(data)[8 + length :]


def _tensors(header: dict[str, Any], body: memoryview) -> dict[str, NDArray[np.float32]]:
    """The tensors of the file, which must lie one behind the other and fill it."""
    found: dict[str, NDArray[np.float32]] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = (_count(offset) for offset in entry["data_offsets"])
        shape = tuple(_count(length) for length in entry["shape"])
        size = 1
        for length in shape:
            size *= length
        if entry["dtype"] != "F32" or start != end or stop - start != 4 * size or stop > len(body):
            raise ValueError(f"tensor {name!r} does not fit the file")
        found[name] = np.frombuffer(body[start:stop], dtype="<f4").reshape(shape)
        end = stop
    if end != len(body):
        raise ValueError(f"it has {len(body) - end} bytes behind its last tensor")
    return found


def _check_tensors(plan: Plan, network: Network, tensors: dict[str, NDArray[np.float32]]) -> None:
    used = network.optimizer.used_moments()
    prefixes = ["", *(f"moment{i + 1}." for i in range(2) if used[i])]
    expected = {prefix + p.name: p.shape for prefix in prefixes for p in plan.parameters}
    expected |= {p.name: p.shape for p in plan.buffers}
    if set(tensors) != set(expected):
        raise ValueError(f"its tensors are {sorted(tensors)}, its layers need {sorted(expected)}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"tensor {name!r} has shape {tensors[name].shape}, its layer needs {shape}")


def _arenas(network: Network) -> dict[str, NDArray[np.float32]]:
    moments = {f"moment{i + 1}.": moment for i, moment in enumerate(network._moments) if moment.size}
    return {"": network._parameters, **moments}


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is not a count")
    return value


def _word(value: Any) -> int:
    word = int(value)
    if not 0 <= word < 2**64:
        raise ValueError(f"{value!r} is not a 64-bit word")
    return word

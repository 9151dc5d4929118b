"""What must be the same on all ranks, in a form that can be sent and compared."""

from __future__ import annotations

import platform
import re
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base import mapped
from cydrop._base.arrays import Floats
from cydrop._core import engine
from cydrop._run.core import Core
from cydrop._run.rows import Rows
from cydrop._run.training import Job
from cydrop._version import __version__

SAMPLED = 256  # rows that are compared one by one
SILENT = {"n_threads", "verbose", "warm_start"}  # parameters of estimators that are each rank's own
CHUNK = 1 << 24  # bytes that are read at a time

Facts = dict[str, Any]


def of_job(core: Core, job: Job, shards: int, partitioned: bool) -> Facts:
    """Of a training, before its first step. The names complete "all ranks must have the same ..."."""
    model = core.made("training")
    found: Facts = {
        "method": "fit",
        "version of cydrop": __version__,
        "processor family": platform.machine(),
        "kind of arithmetic (fused multiply-adds)": engine.target()[1],
        "number of shards": shards,
        "kind of data": "partitioned" if partitioned else "replicated",
    }
    found |= of_network(core) | {
        "seed of the network (give seed, or random_state)": repr(core.root).encode(),
        "number of finished epochs": core.epochs,
        "number of training steps so far": (model.engine.draws, model.engine.updates),
        "epochs": job.epochs,
        "batch_size": job.batch_size,
        "shuffle": "chunks" if job.shuffle and job.by_chunks else job.shuffle,
        "clean_metrics": job.clean_metrics,
        "drop_last": job.drop_last,
        "number of features": job.data.X.shape[1],
    }
    found |= {f"tensor {name} of the network": sums(array) for name, array in model.tensors().items()}
    found |= _of_rows("", job.data, partitioned)
    found["validation data"] = "given" if job.validation is not None else "not given"
    if job.validation is not None:
        found |= _of_rows("validation ", job.validation, partitioned)
    return found


def of_prediction(core: Core, X: Floats, partitioned: bool) -> Facts:
    """Of a prediction for these rows."""
    model = core.made("prediction")
    found = (
        {"version of cydrop": __version__}
        | of_network(core)
        | {
            "kind of data": "partitioned" if partitioned else "replicated",
            "number of features": X.shape[1],
            "parameters": sums(model.parameters),
            "running statistics": sums(model.buffers),
        }
    )
    return found if partitioned else found | _of_inputs("", X)


def facts_of_estimator(estimator: Any) -> Facts:
    """Of an estimator that checked its labels: its class, its parameters but for those that change no result, and its
    classes."""
    given = {name: value for name, value in estimator.get_params(deep=False).items() if name not in SILENT}
    found: Facts = {"class": type(estimator).__name__}
    found |= {f"parameter {name} of the estimator": described(value) for name, value in sorted(given.items())}
    classes = getattr(estimator, "classes_", None)
    return found | {"classes in y": None if classes is None else repr(np.asarray(classes).tolist())}


def of_network(core: Core) -> Facts:
    """What it is made of."""
    layers = {f"layers[{place}]": described(layer) for place, layer in enumerate(core.layers)}
    return {
        "number of layers": len(core.layers),
        **layers,
        "loss": described(core.loss),
        "optimizer": described(core.optimizer),
    }


def of_decisions(core: Core) -> Facts:
    """What callbacks may have changed after an epoch."""
    model = core.made("training")
    found = of_network(core)
    return {f"{name} after the callbacks of an epoch": value for name, value in found.items()} | {
        "parameters after the callbacks of an epoch": sums(model.parameters),
        "running statistics after the callbacks of an epoch": sums(model.buffers),
    }


def _of_rows(prefix: str, rows: Rows, partitioned: bool) -> Facts:
    found: Facts = {
        f"{prefix}kind of y": (rows.y.dtype.str, *rows.y.shape[1:]),
        f"{prefix}kind of sample_weight": "for targets" if rows.each else "for rows" if len(rows.weights) else "none",
    }
    if partitioned:
        return found
    return (
        found
        | _of_inputs(prefix, rows.X)
        | {
            f"{prefix}y": checksum(rows.y) if mapped.file_of(rows.y) is None else sampled(rows.y),
            f"{prefix}sample_weight": checksum(rows.weights),
        }
    )


def _of_inputs(prefix: str, X: Floats) -> Facts:
    return {
        f"number of {prefix}rows": len(X),
        f"numbers in {prefix}X": sums(X) if mapped.file_of(X) is None else b"",
        f"rows in {prefix}X": sampled(X),
    }


def described(declaration: Any) -> str:
    """What an object says of itself, without the place in memory of a function that it holds."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(declaration))


def checksum(array: NDArray[Any]) -> bytes:
    """Of all bytes of an array."""
    whole = np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")
    found = 0
    for begin in range(0, len(whole), CHUNK):
        found = zlib.crc32(whole[begin : begin + CHUNK], found)
    return found.to_bytes(4, "little")


def sampled(X: NDArray[Any]) -> bytes:
    """A checksum of some rows, evenly spread: of a file that is larger than the memory no more is read."""
    places = np.unique(np.linspace(0, len(X) - 1, SAMPLED).astype(np.int64))
    return checksum(np.asarray(X[places]))


def sums(X: Floats) -> bytes:
    """A checksum of sums of bits, at the speed of the memory: what is exchanged within a chunk it does not see."""
    flat = X.reshape(-1).view(np.uint32)
    step = CHUNK // flat.itemsize
    return checksum(np.array([flat[at : at + step].sum(dtype=np.uint64) for at in range(0, flat.size, step)]))

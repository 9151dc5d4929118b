"""Networks in files: the safetensors format, read and written with NumPy alone.

    byte 0      8                        8 + n                                              end of file
         |  n   | header, JSON, n bytes  | history.loss ... | 1.weight | 1.bias | moment1.1.weight ... |
         | u64  | {"__metadata__": ...   |        F64       |                  F32                    |

    header      {"__metadata__": {"cydrop": description, "version": "0.1.0"},
                 "1.weight": {"dtype": "F32", "shape": [64, 10], "data_offsets": [0, 2560]}, ...}

The description, JSON in a string, holds the layers, loss and optimizer, the seed, the counters that the random numbers
depend on, and the names of the history's metrics. Tensors are the history, the parameters, the optimizer's moments and
the running statistics, little-endian, one behind the other in any order.

Nothing in a file is trusted. `load` reads the header alone, works out from the description which tensors of which
shapes there must be, compares, and only then takes memory for them; their bytes are read where they belong.

Nothing is written that could not be read. `save` gives the header that it is about to write to the same functions, and
compares what they understood with the network; both look at the numbers with one function.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import numbers
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BufferedReader, BufferedWriter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop import layers, losses, optimizers, schedules
from cydrop._base import checks, threads
from cydrop._base.declaration import Declaration
from cydrop._run.plan import Plan
from cydrop._version import __version__
from cydrop.history import History
from cydrop.network import Network

FORMAT = 2

# Loading takes at most 100 MB beyond the size of the file, whatever the file. JSON is the dearest part: lists in lists
# take 48 times their text, dicts 39 times (Python 3.11): 50 MB. 1 MB describes 1,400 dense layers with Adam.
LONGEST_HEADER = 1_000_000
# A value of the history is 8 bytes in the file and 40 as a Python float in a list: 48 MB more at most.
LONGEST_HISTORY = 1_500_000

JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
PIECE = 1 << 16  # values of the history that are read at a time
DESCRIPTION = ("format", "layers", "loss", "optimizer", "root", "epochs", "history", "built")
COUNTERS = ("n_features", "draws", "updates")
OTHERS = {  # how files of other kinds begin, that people try to load
    b"PK\x03\x04": "it is a zip archive, as torch.save and numpy.savez write",
    b"\x80": "it seems to be a pickle, which pickle.load reads if you trust it",
    b"\x93NUMPY": "it is an array of numpy.save",
    b"\x89HDF": "it is an HDF5 file, as Keras writes",
}
REFUSALS = (ValueError, TypeError, ArithmeticError, RecursionError)  # what reading a description may raise
UNSAVED = "the network cannot be saved: "
DIVERGED = "training must have diverged; go on from an earlier state, with a lower learning rate or clip_norm"


def save(network: Network, path: Any) -> None:
    """Writes the network beside `path`, then renames: a reader finds the old file or the new one, whole."""
    place = checked_path(path)
    header, tensors = _described(network)
    for name, array in tensors.items():
        try:
            _check_values(name, array, network.optimizer)
        except ValueError as error:
            raise ValueError(f"{UNSAVED}{error}; {DIVERGED}") from None
    with replaced(place) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array in tensors.values():
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def check(network: Network, path: Any) -> None:
    """Raises what `save` would raise now, but writes nothing, and does not look at the numbers in the tensors."""
    path = checked_path(path)
    place = os.path.realpath(path)
    folder = os.path.dirname(place)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder!r} to write it to", path)
    _there(place, path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this user may not write files to its folder", path)
    _described(network)


@contextlib.contextmanager
def replaced(path: str) -> Iterator[BufferedWriter]:
    """A file to write to, which takes the place of `path` when all is written and on the disk.

    A file that this user may not write is not replaced. One that has several names (hard links), that belongs to
    somebody else or that is a mount point stays where it is, and gets the finished file's bytes: only there can a crash
    leave a damaged file. If that fails half-way, the error names the finished file, which is kept.
    """
    place = os.path.realpath(path)  # behind a link, as open does
    there = _there(place, path)
    folder, name = os.path.split(place)
    # Whoever is killed here leaves this file. Nobody tidies it up: its process may live on another computer.
    temporary = os.path.join(folder, f".{name[:40]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    named, damaged = folder, ""  # what errors name: not the file that the user never saw
    try:
        with open(temporary, "xb") as file:
            named = path
            in_place = there is not None and not _made_like(file, place, there)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not in_place:
            try:
                os.replace(temporary, place)
            except OSError as error:
                if there is None or error.errno not in (errno.EBUSY, errno.EXDEV):
                    raise
                in_place = True  # a mount point
        if in_place:
            damaged = f" (it may be damaged now; what was to be written is whole in {temporary!r})"
            try:
                _overwrite(place, temporary)
            except KeyboardInterrupt:  # answered when the file is whole again
                _overwrite(place, temporary)
                damaged = ""
                raise
            damaged = ""
            os.unlink(temporary)
    except BaseException as error:  # an interrupt right behind open included
        if not damaged:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"{error.strerror}{damaged}", named) from None
        if damaged:
            error.add_note(f"{path!r}{damaged}")
        raise
    _sync_folder(folder)


def _there(place: str, path: str) -> os.stat_result | None:
    """The file that stands at a place, if this user may write it; None where there is none."""
    try:
        with open(place, "r+b") as file:
            return os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _made_like(file: BufferedWriter, place: str, there: os.stat_result) -> bool:
    """Gives a new file the owner, group and permissions of the one at a place; whether it may then replace that."""
    new = os.fstat(file.fileno())
    if there.st_nlink == 1:
        try:
            if (new.st_uid, new.st_gid) != (there.st_uid, there.st_gid):
                os.chown(file.name, there.st_uid, there.st_gid)
            shutil.copymode(place, file.name)
            return True
        except OSError:  # this user may not give files away
            pass
    os.chmod(file.name, 0o600)  # nobody else reads what is not theirs to read in the other file
    return False


def _overwrite(place: str, finished: str) -> None:
    """Writes the bytes of a finished file into the one at a place."""
    with open(finished, "rb") as source, open(place, "r+b") as file:
        shutil.copyfileobj(source, file)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    """Makes the new name outlast a power cut, where the system can: Windows and some network folders cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Writing -----------------------------------------------------------------------------------------------------


def _described(network: Network) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """The header, and the tensors in their order: such that `load` reads them as this very network."""
    try:
        _check_classes(network)
        text, tensors = _header_of(network)
        if len(text) > LONGEST_HEADER:
            what = f"the description of this network of {len(network.layers)} layers takes {len(text):,} bytes"
            raise ValueError(f"{what}, a file holds {LONGEST_HEADER:,}; pickle the network instead")
        found = _understood(text, sum(array.nbytes for array in tensors.values()), network.n_threads)
        _check_same(network, found)
    except REFUSALS as error:
        raise ValueError(f"{UNSAVED}{_reason(error)}") from None
    return text, tensors


def _header_of(network: Network) -> tuple[bytes, dict[str, NDArray[Any]]]:
    plan, built = network._plan, None
    if plan is not None:
        engine = network._engine
        built = {"n_features": plan.n_features, "draws": engine.draws, "updates": engine.updates}
    tensors = _history_tensors(network.history)  # first: its eight-byte numbers begin at multiples of eight
    description = {
        "format": FORMAT,
        "layers": [layer.config() for layer in network.layers],
        "loss": network.loss.config(),
        "optimizer": network.optimizer.config(),
        "root": [str(word) for word in network._root],  # 64 bits: more than a number of JSON holds elsewhere
        "epochs": network._epochs,
        "history": list(network.history.metrics),
        "built": built,
    }
    tensors |= network._tensors()
    header: dict[str, Any] = {"__metadata__": {"cydrop": JSON.encode(description), "version": __version__}}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": f"F{8 * array.itemsize}", "shape": array.shape, "data_offsets": [start, end]}
    text = JSON.encode(header).encode()
    return text + b" " * (-len(text) % 8), tensors


def _history_tensors(history: Any) -> dict[str, NDArray[Any]]:
    """The history's values as they lie in a file: lists of numbers, each of which float64 holds exactly."""
    if not isinstance(history, History) or not isinstance(history.metrics, dict):
        raise ValueError(f"its history must be a cydrop.History of a dict, got {history!r:.100}")
    tensors = {}
    for name, values in history.metrics.items():
        if not isinstance(name, str):
            raise ValueError(f"the history's names must be texts, got {name!r:.50} ({type(name).__name__})")
        what = f"history.metrics[{name!r:.50}]"
        if not isinstance(values, list | tuple | np.ndarray):
            raise ValueError(f"{what} must be a list of numbers, one an epoch, got {values!r:.50}")
        for value in values:
            if type(value) is not float and not (isinstance(value, numbers.Real | np.bool_) and _is_float(value)):
                raise ValueError(f"{what} must be numbers that a float can hold, one an epoch, got {value!r:.50}")
        tensors[f"history.{name}"] = np.array([float(value) for value in values])
    _check_history(sum(len(values) for values in tensors.values()))
    return tensors


def _is_float(value: Any) -> bool:
    try:
        return bool(float(value) == value or value != value)
    except OverflowError:
        return False


def _known_classes() -> set[type]:
    return {*layers.KNOWN.values(), *losses.KNOWN.values(), *optimizers.KNOWN.values(), *schedules.KNOWN.values()}


def _parts(network: Network) -> dict[str, Declaration]:
    """What a network is made of, each with where it stands."""
    parts: dict[str, Any] = {f"layers[{place}]": layer for place, layer in enumerate(network.layers)}
    return parts | {"loss": network.loss, "optimizer": network.optimizer}


def _check_classes(network: Network) -> None:
    """A file holds names and options: those of cydrop's own classes."""
    known = _known_classes()

    def check(where: str, part: Any) -> None:
        if type(part) not in known:
            kind = f"{type(part).__module__}.{type(part).__qualname__}"
            own = "a file holds cydrop's own layers, losses, optimizers and schedules only"
            raise ValueError(f"{where} is of the class {kind}, but {own}; use one of them, or pickle the network")
        for name, option in part.options().items():
            if isinstance(option, Declaration):
                check(f"{where}.{name}", option)

    for where, part in _parts(network).items():
        check(where, part)


def _check_same(network: Network, found: _Found) -> None:
    """Raises unless what was read is what was to be written."""

    def compare(where: str, mine: Any, read: Any) -> None:
        if isinstance(mine, Declaration) and type(mine) is type(read):
            for name, option in mine.options().items():
                compare(f"{where}.{name}", option, getattr(read, name))
        elif mine != read:
            raise ValueError(f"{where} is {mine!r:.100}, which would be read as {read!r:.100}")

    mine, read = _parts(network), _parts(found.network)
    compare("the list of parts", list(mine), list(read))
    for where, part in mine.items():
        compare(where, part, read[where])
    plan = network._plan
    compare("the state of being built", plan is not None, found.plan is not None)
    if plan is not None and found.plan is not None and _operations(plan) != _operations(found.plan):
        raise ValueError("its layers are not those that it was built with; make a new network of them")
    compare("the seed", network._root, found.network._root)
    compare("the number of epochs", network._epochs, found.network._epochs)
    compare("the history", list(network.history.metrics), found.history)


def _operations(plan: Plan) -> list[dict[str, Any]]:
    """The plan's operations as plain data, without the seeds of their masks."""
    operations = [asdict(op) for op in plan.ops]
    for operation in operations:
        for source in operation.values():
            if isinstance(source, dict):
                source.pop("seed")
    return operations


def _check_values(name: str, array: NDArray[Any], optimizer: optimizers.Optimizer) -> None:
    """Raises for numbers that no training leaves: neither written nor read. Takes no memory."""
    if name.startswith("history.") or not array.size:
        return
    with np.errstate(invalid="ignore"):  # of NaN, which the least and the largest then are
        low, high = float(array.min()), float(array.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"tensor {name!r} has values that are NaN or infinite")
    # SGD keeps its velocity there, the others a mean or sum of squares
    squares = name.startswith("moment2.") and not isinstance(optimizer, optimizers.SGD)
    if low < 0 and (squares or name.endswith(".running_variance")):
        raise ValueError(f"tensor {name!r} must not be negative, got {low:g}")


# Reading -----------------------------------------------------------------------------------------------------


def load(path: Any, *, n_threads: int | None = None) -> Network:
    """Reads a network that `Network.save` wrote.

    Whatever the file, at most 100 MB of memory are taken beyond its size.

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
        For a file that is damaged, cut off or not cydrop's, or that holds numbers which no training leaves: weights,
        statistics or moments that are NaN or infinite, variances and second moments below 0.
    OSError
        When it cannot be read.
    """
    threads.resolve(n_threads)  # a wrong argument is no fault of the file
    place = checked_path(path)
    with open(place, "rb") as file:
        try:
            return _read(file, n_threads)
        except REFUSALS as error:
            raise ValueError(f"{place} is not a network that cydrop can load: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:500]


@dataclass
class _Found:
    """What a header says."""

    network: Network  # not built yet
    plan: Plan | None  # to build it by; None for one that was not built
    draws: int
    updates: int
    history: list[str]  # names of the metrics
    order: list[tuple[str, int]]  # names and sizes of the tensors as they lie behind the header


def _read(file: BufferedReader, n_threads: int | None) -> Network:
    text, n_bytes = _header(file)
    found = _understood(text, n_bytes, n_threads)
    network, history = found.network, {name: list[float]() for name in found.history}
    model = None if found.plan is None else network._empty_model(found.plan)
    views: dict[str, NDArray[np.float32]] = {} if model is None else model.tensors()
    for name, length in found.order:
        if name in views:
            _check_values(name, _fill(file, views[name]), network.optimizer)
        for start in range(0, 0 if name in views else length, PIECE):
            history[name.removeprefix("history.")] += _fill(file, np.empty(min(PIECE, length - start))).tolist()
    network.history = History(history)
    if model is not None:
        model.engine.draws = found.draws
        model.count_updates(found.updates)
        network._model = model
    return network


def _header(file: BufferedReader) -> tuple[bytes, int]:
    """The text of the header, and the number of bytes behind it."""
    first = file.read(8)
    length, rest = int.from_bytes(first, "little"), os.fstat(file.fileno()).st_size - 8
    if rest < 0:
        raise ValueError(f"it has only {len(first)} bytes" if first else "it is empty")
    if length > rest:
        other = [what for begin, what in OTHERS.items() if first.startswith(begin)]
        raise ValueError([*other, f"it would have a header of {length} bytes: it is cut off, or not of safetensors"][0])
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes; cydrop reads headers of up to {LONGEST_HEADER:,}")
    return file.read(length), rest - length


def _understood(text: bytes, n_bytes: int, n_threads: int | None) -> _Found:
    """What a header says, with so many bytes behind it, as far as it can be known without reading those."""
    if not text.startswith(b"{"):
        raise ValueError("its header does not begin with '{', as that of a safetensors file does")
    header: dict[str, Any] = _parsed(text.decode())
    description = _description(header.pop("__metadata__", None))
    network = _network(description, n_threads)
    plan, draws, updates, shapes = None, 0, 0, {}
    if description["built"] is not None:
        built = _object("built", description["built"], COUNTERS)
        n_features, draws, updates = (_count(built[name]) for name in COUNTERS)
        plan = network._checked_plan(checks.integer("n_features", n_features, 1))
        prefixes = ["", *(f"moment{i}." for i, used in enumerate(network.optimizer.used_moments(), 1) if used)]
        shapes = {prefix + p.name: p.shape for prefix in prefixes for p in plan.parameters}
        shapes |= {p.name: p.shape for p in plan.buffers}
    history = list(description["history"])
    order = _checked_tensors(header, shapes, {f"history.{name}" for name in history}, n_bytes)
    return _Found(network, plan, draws, updates, history, order)


def _parsed(text: str) -> Any:
    """JSON by the letter: no name twice, no NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands twice in its header")
        return found

    def refuse(word: str) -> None:
        raise ValueError(f"its header has {word}, which JSON does not know")

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def _description(metadata: Any) -> dict[str, Any]:
    """What the metadata says of the network, if this version of cydrop understands it."""
    if metadata is None or (isinstance(metadata, dict) and "cydrop" not in metadata):
        raise ValueError("it holds tensors but no description of a network; cydrop.exchange takes others' weights")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts")
    description = _parsed(metadata["cydrop"])
    form = description.get("format") if isinstance(description, dict) else None
    if type(form) is not int or form != FORMAT:
        writer = metadata.get("version", "before 0.1.0")
        this = f"this cydrop {__version__} reads format {FORMAT}"
        raise ValueError(f"it has format {form!r:.20}, {this}: load it with the one that wrote it, cydrop {writer:.20}")
    return _object("description", description, DESCRIPTION)


def _network(description: dict[str, Any], n_threads: int | None) -> Network:
    """The network as described, not built."""
    network = Network(
        [layers.from_config(_object("layer", config)) for config in _list("layers", description["layers"])],
        loss=losses.from_config(_object("loss", description["loss"])),
        optimizer=optimizers.from_config(_object("optimizer", description["optimizer"])),
        seed=0,
        n_threads=n_threads,
    )
    network._check_schedules()
    network._root = tuple(_word(word) for word in _list("seed", description["root"], 4))
    network._epochs = _count(description["epochs"])
    if not all(isinstance(name, str) for name in _list("history", description["history"])):
        raise ValueError("its history is not a list of names")
    return network


def _checked_tensors(
    header: dict[str, Any], shapes: dict[str, tuple[int, ...]], lists: set[str], n_bytes: int
) -> list[tuple[str, int]]:
    """Names and sizes of the tensors in their order in the file: those that the network needs, one behind the other.

    `shapes` are those of the float32 tensors, `lists` the names of the float64 ones, of one dimension of any length.
    """
    if header.keys() != shapes.keys() | lists:
        names = sorted(header.keys() ^ (shapes.keys() | lists))
        raise ValueError(f"its tensors are not those of its layers and history; lacking or too many: {names[:5]}")
    found, values = [], 0
    for name, entry in header.items():
        entry = _object(f"tensor {name!r}", entry, ("dtype", "shape", "data_offsets"))
        shape = tuple(_count(length) for length in _list("shape", entry["shape"]))
        start, stop = (_count(offset) for offset in _list("data_offsets", entry["data_offsets"], 2))
        dtype, needed = ("F32", shapes[name]) if name in shapes else ("F64", shape if len(shape) == 1 else (0,))
        if entry["dtype"] != dtype or shape != needed:
            raise ValueError(f"tensor {name!r} is {entry['dtype']!r:.9} of shape {shape}, not {dtype} of {needed}")
        size = math.prod(shape)
        if stop - start != size * (4 if name in shapes else 8):
            raise ValueError(f"tensor {name!r} of shape {shape} cannot lie at bytes {start} to {stop}")
        values += size if name in lists else 0
        found.append((start, stop, name, size))
    _check_history(values)
    found.sort()
    ends = [0, *(stop for _, stop, _, _ in found)]
    if [start for start, _, _, _ in found] != ends[:-1]:
        raise ValueError("its tensors overlap or leave gaps")
    if ends[-1] != n_bytes:
        raise ValueError(f"its tensors take {ends[-1]:,} bytes, but {n_bytes:,} are there; is it cut off?")
    return [(name, size) for _, _, name, size in found]


def _fill(file: BufferedReader, array: NDArray[Any]) -> NDArray[Any]:
    """Reads little-endian numbers into an array."""
    if file.readinto(array.data) != array.nbytes:
        raise ValueError("it was cut off while it was read")
    return array if sys.byteorder == "little" else array.byteswap(inplace=True)


def checked_path(path: Any) -> str:
    """The path of a file, or of none yet."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"path must be a str or path-like, got {path!r} ({type(path).__name__})")
    place = os.fsdecode(path)
    if not place or "\0" in place:
        raise ValueError(f"path {'has a null character' if place else 'is empty'}; it must name a file")
    if os.path.isdir(place) or not os.path.basename(place):
        raise IsADirectoryError(errno.EISDIR, "path is a folder; it must name a file", place)
    if os.path.exists(place) and not os.path.isfile(place):
        raise ValueError(f"path must name a file, got {place!r}, which is a device or pipe")
    return place


def _check_history(values: int) -> None:
    if values > LONGEST_HISTORY:
        advice = "before saving begin a new one: network.history = cydrop.History()"
        raise ValueError(f"the history has {values:,} values, a file holds {LONGEST_HISTORY:,}; {advice}")


def _object(what: str, value: Any, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object, with exactly these names if any are given."""
    if not isinstance(value, dict):
        raise ValueError(f"its {what} is not an object of JSON, but {value!r:.50}")
    if names and value.keys() != set(names):
        raise ValueError(f"its {what} has {sorted(value)}, not {names}")
    return value


def _list(what: str, value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError(f"its {what} is not a list{f' of {length}' if length else ''}, but {value!r:.50}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.50} is not a count")
    return value


def _word(value: Any) -> int:
    """A 64-bit number in decimal digits, as text."""
    if not isinstance(value, str) or not (value.isascii() and value.isdecimal()) or int(value) >= 2**64:
        raise ValueError(f"{value!r:.50} is not a 64-bit word")
    return int(value)

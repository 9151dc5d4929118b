"""Networks and ensembles in files: what a file says about them, which need not be trusted.

    description    {"format": 2, "layers": [...], "loss": {...}, "optimizer": {...}, "root": [...], "epochs": 3,
                    "history": ["loss", ...], "built": {"n_features": 64, "draws": 90, "updates": 90}}

The description, JSON in the header of a safetensors file (`cydrop._run.files`), holds the layers, loss and optimizer,
the seed, the counters that the random numbers depend on, and the names of the history's metrics. Tensors are the
history, the parameters, the optimizer's moments and the running statistics.

    "cydrop_ensemble"    {"format": 1, "members": [description, ...]}

An ensemble has this entry instead, and the tensors of member 3 begin with "3.": "3.1.weight", "3.history.loss".

`load` reads the header alone, works out from the description which tensors of which shapes there must be, compares,
and only then takes memory for them; their bytes are read where they belong.

Nothing is written that could not be read. `save` gives the header that it is about to write to the same functions, and
compares what they understood with the network; both look at the numbers with one function.
"""

from __future__ import annotations

import contextlib
import errno
import math
import numbers
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from io import BufferedReader
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop import layers, losses, optimizers, schedules
from cydrop._base import checks, threads
from cydrop._base.declaration import Declaration
from cydrop._run import calibrated, files
from cydrop._run.calibrated import Calibrated
from cydrop._run.core import Core
from cydrop._run.files import JSON, LONGEST_HEADER, a_count, a_list, a_word, an_object
from cydrop._run.plan import Plan
from cydrop._run.rates import check_rates
from cydrop._run.state import Built, State
from cydrop._version import __version__
from cydrop.history import History

__all__ = ["check", "is_quantized", "load", "save", "save_ensemble"]

FORMAT = 2
FORMAT_OF_ENSEMBLES = 1  # of the list; the members are described as networks are

# A value of the history is 8 bytes in the file and 40 as a Python float in a list: 48 MB more at most.
LONGEST_HISTORY = 1_500_000

PIECE = 1 << 16  # values of the history that are read at a time
DESCRIPTION = ("format", "layers", "loss", "optimizer", "root", "epochs", "history", "built")
COUNTERS = ("n_features", "draws", "updates")
REFUSALS = (ValueError, TypeError, ArithmeticError, RecursionError)  # what reading a description may raise
UNSAVED = "the network cannot be saved: "
UNSAVED_ENSEMBLE = "the ensemble cannot be saved: "
DIVERGED = "training must have diverged; go on from an earlier state, with a lower learning rate or clip_norm"


def save(state: State, path: Any) -> None:
    """Writes the network next to `path`, then renames: a reader finds the old file or the new one, complete."""
    _save([state], path, False, None)


def save_ensemble(states: Sequence[State], path: Any, made: Calibrated | None = None) -> None:
    """Writes several networks as one file, as `save` does, with what they were calibrated with together."""
    _save(states, path, True, made)


def _save(states: Sequence[State], path: Any, several: bool, made: Calibrated | None) -> None:
    place = files.checked_path(path)
    states = [replace(state, calibrated=_in_force(state.calibrated, [state])) for state in states]
    made = _in_force(made, states)
    header, tensors = _described(states, several, made)
    for state, prefix in zip(states, _prefixes(len(states), several), strict=True):
        for name, array in {} if state.built is None else (state.built.tensors or {}).items():
            try:
                _check_values(name, f"{prefix}{name}", array, state.optimizer)
            except ValueError as error:
                raise ValueError(f"{UNSAVED_ENSEMBLE if several else UNSAVED}{error}; {DIVERGED}") from None
    with files.replaced(place) as file:
        files.write(file, header, tensors)


def _in_force(made: Calibrated | None, states: Sequence[State]) -> Calibrated | None:
    """None where products have had another precision since: a file says of a calibration only how many updates came
    before it."""
    return made if made is not None and made.has_precisions(tuple(state.precision for state in states)) else None


def check(state: State, path: Any) -> None:
    """Raises what `save` would raise now, but writes nothing, and does not look at the numbers in the tensors."""
    path = files.checked_path(path)
    place = os.path.realpath(path)
    folder = os.path.dirname(place)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder!r} to write it to", path)
    files.writable_at(place, path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this user may not write files to its folder", path)
    _described([state], False, None)


# Writing -----------------------------------------------------------------------------------------------------


def _prefixes(count: int, several: bool) -> list[str]:
    """What the names of each member's tensors begin with."""
    return [f"{number}." for number in range(count)] if several else [""]


@contextlib.contextmanager
def _of_member(number: int, several: bool) -> Iterator[None]:
    """Errors say of which member they are."""
    try:
        yield
    except REFUSALS as error:
        raise ValueError(f"networks[{number}]: {_reason(error)}") if several else error from None


def _described(
    states: Sequence[State], several: bool, made: Calibrated | None
) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """The header, and the tensors in their order: such that `load` reads them as these very networks."""
    try:
        for number, state in enumerate(states):
            with _of_member(number, several):
                _check_classes(state)
        text, tensors = _header_of(states, several, made)
        if len(text) > LONGEST_HEADER:
            layers_of_all = sum(len(state.layers) for state in states)
            what = f"{len(states)} networks" if several else "this network"
            what = f"the description of {what} of {layers_of_all} layers takes {len(text):,} bytes"
            instead = "save its networks one by one, or pickle it" if several else "pickle the network instead"
            raise ValueError(f"{what}, a file holds {LONGEST_HEADER:,}; {instead}")
        found = _understood(text, sum(array.nbytes for array in tensors.values()), states[0].n_threads)
        for number, pair in enumerate(zip(states, found.states, strict=True)):
            with _of_member(number, several):
                _check_same(*pair)
    except REFUSALS as error:
        raise ValueError(f"{UNSAVED_ENSEMBLE if several else UNSAVED}{_reason(error)}") from None
    return text, tensors


def _header_of(
    states: Sequence[State], several: bool, made: Calibrated | None
) -> tuple[bytes, dict[str, NDArray[Any]]]:
    prefixes, tensors = _prefixes(len(states), several), dict[str, NDArray[Any]]()
    for number, (state, prefix) in enumerate(zip(states, prefixes, strict=True)):  # first: their eight-byte numbers
        with _of_member(number, several):  # begin at multiples of eight
            tensors |= {prefix + name: array for name, array in _history_tensors(state.history).items()}
    _check_history(sum(values.size for values in tensors.values()))
    for state, prefix in zip(states, prefixes, strict=True):
        of_network = {} if state.built is None else state.built.tensors or {}
        tensors |= {prefix + name: array for name, array in of_network.items()}
        if state.calibrated is not None:
            tensors |= {prefix + name: array for name, array in calibrated.tensors(state.calibrated).items()}
    tensors |= {} if made is None else calibrated.tensors(made)
    descriptions = [_description_of(state) for state in states]
    described: dict[str, Any] = {"cydrop": descriptions[0]}
    if several:
        own = {} if made is None else {"calibrated": calibrated.described(made)}
        described = {"cydrop_ensemble": {"format": FORMAT_OF_ENSEMBLES, "members": descriptions} | own}
    metadata = {name: JSON.encode(value) for name, value in described.items()}
    return files.header_of(metadata | {"version": __version__}, tensors), tensors


def _description_of(state: State) -> dict[str, Any]:
    built = None
    if state.built is not None:
        built = {name: getattr(state.built, name) for name in COUNTERS}
    return {
        "format": FORMAT,
        "layers": [layer.config() for layer in state.layers],
        "loss": state.loss.config(),
        "optimizer": state.optimizer.config(),
        "root": [str(word) for word in state.root],  # 64 bits: more than a number of JSON holds elsewhere
        "epochs": state.epochs,
        "history": list(state.history.metrics),
        "built": built,
    } | {
        **({} if state.calibrated is None else {"calibrated": calibrated.described(state.calibrated)}),
        **({} if state.precision == "float32" else {"precision": state.precision}),
    }


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
            raise ValueError(f"{what} must be a list of numbers, one per epoch, got {values!r:.50}")
        for value in values:
            if type(value) is not float and not (isinstance(value, numbers.Real | np.bool_) and _is_float(value)):
                raise ValueError(f"{what} must be numbers that a float can hold, one per epoch, got {value!r:.50}")
        tensors[f"history.{name}"] = np.array([float(value) for value in values])
    return tensors


def _is_float(value: Any) -> bool:
    try:
        return bool(float(value) == value or value != value)
    except OverflowError:
        return False


def _known_classes() -> set[type]:
    return {*layers.KNOWN.values(), *losses.KNOWN.values(), *optimizers.KNOWN.values(), *schedules.KNOWN.values()}


def _parts(state: State) -> dict[str, Declaration]:
    """What a network is made of, each with where it stands."""
    parts: dict[str, Any] = {f"layers[{place}]": layer for place, layer in enumerate(state.layers)}
    return parts | {"loss": state.loss, "optimizer": state.optimizer}


def _inner(option: Any) -> list[tuple[str, Declaration]]:
    """The declarations in an option, each with its place in it: itself, those in a tuple, or none."""
    if isinstance(option, Declaration):
        return [("", option)]
    given = enumerate(option) if isinstance(option, tuple) else ()
    return [(f"[{place}]", one) for place, one in given if isinstance(one, Declaration)]


def _check_classes(state: State) -> None:
    """A file holds names and options: those of cydrop's own classes."""
    known = _known_classes()

    def check(where: str, part: Any) -> None:
        if type(part) not in known:
            kind = f"{type(part).__module__}.{type(part).__qualname__}"
            own = "a file holds cydrop's own layers, losses, optimizers and schedules only"
            raise ValueError(f"{where} is of the class {kind}, but {own}; use one of them, or pickle the network")
        for name, option in part.options().items():
            for place, one in _inner(option):
                check(f"{where}.{name}{place}", one)

    for where, part in _parts(state).items():
        check(where, part)


def _check_same(state: State, found: State) -> None:
    """Raises unless what was read is what was to be written."""

    def compare(where: str, mine: Any, read: Any) -> None:
        if isinstance(mine, Declaration) and type(mine) is type(read):
            for name, option in mine.options().items():
                compare(f"{where}.{name}", option, getattr(read, name))
        elif isinstance(mine, tuple) and isinstance(read, tuple) and len(mine) == len(read):
            for place, pair in enumerate(zip(mine, read, strict=True)):
                compare(f"{where}[{place}]", *pair)
        elif mine != read:
            raise ValueError(f"{where} is {mine!r:.100}, which would be read as {read!r:.100}")

    mine, read = _parts(state), _parts(found)
    compare("the list of parts", list(mine), list(read))
    for where, part in mine.items():
        compare(where, part, read[where])
    if state.built is not None and found.built is not None:
        own, other = (_operations(built.plan) for built in (state.built, found.built))
        if own != other:
            raise ValueError("its layers are not those that it was built with; make a new network of them")
    compare("what is built", state.built and state.built[:3], found.built and found.built[:3])
    compare("the seed", state.root, found.root)
    compare("the number of epochs", state.epochs, found.epochs)
    compare("the history", list(state.history.metrics), list(found.history.metrics))


def _operations(plan: Plan | None) -> list[dict[str, Any]]:
    """The plan's operations as plain data, without the seeds of their masks."""
    operations = [asdict(op) for op in plan.ops] if plan is not None else []
    for operation in operations:
        for source in operation.values():
            if isinstance(source, dict):
                source.pop("seed")
    return operations


def _check_values(name: str, in_file: str, array: NDArray[Any], optimizer: optimizers.Optimizer) -> None:
    """Raises for numbers that no training produces: neither written nor read. Takes no memory."""
    if not array.size:
        return
    with np.errstate(invalid="ignore"):  # of NaN, which the least and the largest then are
        low, high = float(array.min()), float(array.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"tensor {in_file!r} has values that are NaN or infinite")
    squares = name.startswith("moment2.") and not optimizer.velocity
    if low < 0 and (squares or name.endswith(".running_variance")):
        raise ValueError(f"tensor {in_file!r} must not be negative, got {low:g}")


# Reading -----------------------------------------------------------------------------------------------------


def load(path: Any, n_threads: int | None) -> tuple[list[Core], bool, Calibrated | None]:
    """The core of a network that `save` wrote, or those that `save_ensemble` wrote; whether it was that; and what an
    ensemble was calibrated with."""
    threads.resolve(n_threads)  # a wrong argument is no fault of the file
    place = files.checked_path(path)
    with open(place, "rb") as file:
        try:
            return _read(file, n_threads)
        except REFUSALS as error:
            raise ValueError(f"{place} is not a network that cydrop can load: {_reason(error)}") from None


def is_quantized(path: Any) -> bool:
    """Whether a file says that it holds a quantized network (cydrop.quantization); False for what cannot be read."""
    with open(files.checked_path(path), "rb") as file:
        try:
            text, _ = files.read_header(file)
            if b'"cydrop_quantized"' not in text:  # others' headers are parsed once, when they are read
                return False
            return "cydrop_quantized" in files.parsed(text.decode())["__metadata__"]
        except (*REFUSALS, KeyError):
            return False


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:500]


@dataclass
class _Found:
    """What a header says."""

    states: list[State]  # without tensors, and with histories of names alone
    several: bool  # an ensemble
    calibrated: dict[str, Any]  # descriptions, by what the names of their tensors begin with
    shapes: dict[str, tuple[int, ...]]  # of these tensors
    order: list[tuple[str, int]]  # names and sizes of the tensors as they lie after the header


def _read(file: BufferedReader, n_threads: int | None) -> tuple[list[Core], bool, Calibrated | None]:
    text, n_bytes = files.read_header(file)
    found = _understood(text, n_bytes, n_threads)
    cores, views, histories = [], dict[str, Any](), dict[str, list[float]]()
    for state, prefix in zip(found.states, _prefixes(len(found.states), found.several), strict=True):
        histories |= {f"{prefix}history.{name}": values for name, values in state.history.metrics.items()}
        core = Core(state)
        cores.append(core)
        for name, view in {} if core.model is None else core.model.tensors().items():
            views[prefix + name] = name, view, core.optimizer
    arrays = {name: np.empty(shape, dtype=np.float32) for name, shape in found.shapes.items()}
    for in_file, length in found.order:
        if in_file in arrays:
            _check_values(in_file, in_file, files.fill(file, arrays[in_file]), cores[0].optimizer)
            continue
        if in_file in views:
            name, view, optimizer = views[in_file]
            _check_values(name, in_file, files.fill(file, view), optimizer)
        for start in range(0, 0 if in_file in views else length, PIECE):
            values = files.fill(file, np.empty(min(PIECE, length - start)))
            histories[in_file] += values.tolist()
    made = {}
    for prefix, given in found.calibrated.items():
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(f"{prefix}calib")}
        made[prefix] = calibrated.read(given, cores[int(prefix[:-1] or 0)].loss, own, 1 if prefix else len(cores))
    made = {
        prefix: one._replace(precisions=calibrated.precisions_of([cores[int(prefix[:-1])]] if prefix else cores))
        for prefix, one in made.items()
    }
    for core, prefix in zip(cores, _prefixes(len(cores), found.several), strict=True):
        core.calibrated = made.get(prefix)
    return cores, found.several, made.get("") if found.several else None


def _understood(text: bytes, n_bytes: int, n_threads: int | None) -> _Found:
    """What a header says, with so many bytes after it, as far as it can be known without reading those."""
    if not text.startswith(b"{"):
        raise ValueError("its header does not begin with '{', as that of a safetensors file does")
    header: dict[str, Any] = files.parsed(text.decode())
    descriptions, several, made = _descriptions(header.pop("__metadata__", None))
    states, shapes, lists = [], dict[str, tuple[int, ...]](), set[str]()
    known, extra = dict[str, Any](), dict[str, tuple[int, ...]]()
    for description, prefix in zip(descriptions, _prefixes(len(descriptions), several), strict=True):
        state = _state(description, n_threads)
        if state.built is not None:
            plan = Plan.of(state.layers, state.built.n_features)
            state = replace(state, built=state.built._replace(plan=plan))
            state.loss.check_units(plan.n_outputs)
            kinds = ["", *(f"moment{i}." for i, used in enumerate(state.optimizer.used_moments(), 1) if used)]
            shapes |= {prefix + kind + p.name: p.shape for kind in kinds for p in plan.parameters}
            shapes |= {prefix + p.name: p.shape for p in plan.buffers}
        lists |= {f"{prefix}history.{name}" for name in state.history.metrics}
        states.append(state)
        if "calibrated" in description:
            known[prefix] = description["calibrated"]
    if made is not None:
        known[""] = made
    for prefix, given in known.items():
        state = states[int(prefix[:-1] or 0)]
        if state.built is None or state.built.plan is None:
            raise ValueError("it has a calibration of a network that was not built")
        tensors = calibrated.shapes(given, state.loss, state.built.plan.n_outputs)
        extra |= {prefix + name: shape for name, shape in tensors.items()}
    order = files.checked_tensors(header, shapes | extra, lists, n_bytes)
    _check_history(sum(size for name, size in order if name in lists))
    return _Found(states, several, known, extra, order)


def _descriptions(metadata: Any) -> tuple[list[dict[str, Any]], bool, Any]:
    """What the metadata says of the network, or of the members of an ensemble, if this cydrop understands it; and of
    what the ensemble was calibrated with."""
    if isinstance(metadata, dict) and "cydrop_quantized" in metadata:
        raise ValueError("it holds a quantized network, which cydrop.load reads")
    if metadata is None or (isinstance(metadata, dict) and not metadata.keys() & {"cydrop", "cydrop_ensemble"}):
        raise ValueError("it holds tensors but no description of a network; cydrop.exchange takes others' weights")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts")
    writer, several = metadata.get("version", "before 0.1.0"), "cydrop_ensemble" in metadata
    if not several:
        return [_description(files.parsed(metadata["cydrop"]), writer)], False, None
    if "cydrop" in metadata:
        raise ValueError("its metadata describe both a network and an ensemble")
    ensemble = _of_format(files.parsed(metadata["cydrop_ensemble"]), FORMAT_OF_ENSEMBLES, writer)
    members = a_list("members", _with_more(ensemble, ("format", "members"), ("calibrated",))["members"])
    if not members:
        raise ValueError("its list of members is empty")
    return [_description(member, writer) for member in members], True, ensemble.get("calibrated")


def _description(description: Any, writer: str) -> dict[str, Any]:
    return _with_more(_of_format(description, FORMAT, writer), DESCRIPTION, ("calibrated", "precision"))


def _with_more(description: Any, names: tuple[str, ...], others: tuple[str, ...]) -> dict[str, Any]:
    """An object with these names, and perhaps others."""
    given = an_object("description", description)
    return an_object("description", given, (*names, *(name for name in others if name in given)))


def _of_format(description: Any, known: int, writer: str) -> Any:
    form = description.get("format") if isinstance(description, dict) else None
    if type(form) is not int or form != known:
        this = f"this cydrop {__version__} reads format {known}"
        raise ValueError(f"it has format {form!r:.20}, {this}: load it with the one that wrote it, cydrop {writer:.20}")
    return description


def _state(description: dict[str, Any], n_threads: int | None) -> State:
    """The network as described, without its tensors."""
    made = tuple(layers.from_config(an_object("layer", config)) for config in a_list("layers", description["layers"]))
    if not made:
        raise ValueError("layers is empty: a network needs at least one layer")
    loss = losses.from_config(an_object("loss", description["loss"]))
    optimizer = optimizers.from_config(an_object("optimizer", description["optimizer"]))
    check_rates(optimizer, Plan.drawing(made))
    root = tuple(a_word(word) for word in a_list("seed", description["root"], 4))
    epochs = a_count(description["epochs"])
    names = a_list("history", description["history"])
    if not all(isinstance(name, str) for name in names):
        raise ValueError("its history is not a list of names")
    built = None
    if description["built"] is not None:
        counts = an_object("built", description["built"], COUNTERS)
        n_features, draws, updates = (a_count(counts[name]) for name in COUNTERS)
        built = Built(checks.integer("n_features", n_features, 1), draws, updates, None)
    history = History({name: list[float]() for name in names})
    precision = checks.precision(description.get("precision", "float32"))
    return State(
        made, loss, optimizer, root, epochs, history, threads.resolve(n_threads), n_threads is None, built, None,
        precision,
    )  # fmt: skip


def _check_history(values: int) -> None:
    if values > LONGEST_HISTORY:
        advice = "before saving begin a new one: network.history = cydrop.History()"
        raise ValueError(f"the history has {values:,} values, a file holds {LONGEST_HISTORY:,}; {advice}")

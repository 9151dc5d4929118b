"""Estimators in files: one archive of the networks' own files and a description, without pickles.

    estimator.json            parameters, columns, what was learned from them, histories
    networks/0.safetensors    as `Network.save` writes it; one for each network
    networks/1.safetensors    ...
    calibration.f8            where it is calibrated: y, predictions, their spread and folds, one after another, as
                              float64, little-endian

A zip archive without compression, the entries in this order: equal estimators give equal files. Nothing in a file is
trusted: what does not fit together is a ValueError. `cydrop.saving` does the same for the networks.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import shutil
import struct
import tempfile
import zipfile
from typing import Any

import numpy as np

from cydrop import layers, losses
from cydrop import network as _network
from cydrop._base import threads
from cydrop._run import files
from cydrop._run.core import core_of
from cydrop._run.files import a_count, a_flag, a_list, an_object
from cydrop._version import __version__
from cydrop.calibration import Calibration, Prediction
from cydrop.history import History
from cydrop.network import Network
from cydrop.tabular._columns import CATEGORY, NUMBER, Doubles
from cydrop.tabular._parts import Part
from cydrop.tabular._quantiles import QuantilePreprocessor
from cydrop.tabular._recipe import CLASSES, AnyPreprocessor
from cydrop.tabular._table import Schema
from cydrop.tabular._targets import Standard

KNOWN: dict[str, Any] = {}  # the classes of estimators that files hold, by name
FORMAT = 1
DESCRIPTION = (
    "format", "version", "estimator", "parameters", "n_features", "feature_names", "schema", "classes", "target_shape",
    "parts",
)  # fmt: skip
# parameters that came later, as they were before
LATER = {"loss": "squared_error", "calibration_fraction": 0.0, "precision": "float32"}
LONGEST = 1 << 26  # bytes of the description: 10,000 categories of 20 letters in 300 columns
CALIBRATION = "calibration.f8"
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that an archive can have
# what zipfile and the description's reading may raise, besides OSError
REFUSALS = (
    ValueError, TypeError, ArithmeticError, RecursionError, KeyError, NotImplementedError, RuntimeError, EOFError,
    struct.error, zipfile.BadZipFile, AttributeError,
)  # fmt: skip


# Writing -----------------------------------------------------------------------------------------------------


def save(estimator: Any, path: Any) -> None:
    """`save` of a fitted estimator of one of the known classes."""
    place = files.checked_path(path)
    name = type(estimator).__name__
    if KNOWN.get(name) is not type(estimator):
        raise ValueError(f"a file holds {', '.join(KNOWN)}, not {name}; pickle it instead")
    try:
        text = files.JSON.encode(_described(estimator)).encode()
    except ValueError as error:
        raise ValueError(f"the estimator cannot be saved: {error}") from None
    if len(text) > LONGEST:
        raise ValueError(
            f"the estimator cannot be saved: its description takes {len(text):,} bytes, a file holds {LONGEST:,}; "
            "pickle it instead"
        )
    with tempfile.TemporaryDirectory() as folder:
        networks = [os.path.join(folder, str(number)) for number in range(len(estimator.networks_))]
        for network, name in zip(estimator.networks_, networks, strict=True):
            network.save(name)
        with files.replaced(place) as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo("estimator.json", DATE), text)
            for number, name in enumerate(networks):
                entry = zipfile.ZipInfo(_entry(number), DATE)
                entry.file_size = os.path.getsize(name)
                with open(name, "rb") as source, archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target)
            made = getattr(estimator, "calibration_", None)
            if made is not None:
                archive.writestr(zipfile.ZipInfo(CALIBRATION, DATE), _numbers_of(made))


def _entry(number: int) -> str:
    return f"networks/{number}.safetensors"


def _described(estimator: Any) -> dict[str, Any]:
    names = getattr(estimator, "feature_names_in_", None)
    classes, shape = getattr(estimator, "classes_", None), getattr(estimator, "target_shape_", None)
    schema = estimator.schema_
    return {
        "format": FORMAT,
        "version": __version__,
        "estimator": type(estimator).__name__,
        "parameters": _parameters(estimator),
        "n_features": estimator.n_features_in_,
        "feature_names": None if names is None else names.tolist(),
        "schema": {"labels": list(schema.labels), "kinds": list(schema.kinds), "text": list(schema.text)},
        "classes": None if classes is None else _labels(classes),
        "target_shape": None if shape is None else list(shape),
        "parts": [_part(part) for part in estimator.parts_],
    } | _calibration_of(getattr(estimator, "calibration_", None))


def _calibration_of(made: Calibration | None) -> dict[str, Any]:
    if made is None:
        return {}
    said = made.predicted
    return {"calibration": {"rows": len(made.y), "spread": said.spread is not None, "folds": made.folds > 1}}


def _numbers_of(made: Calibration) -> bytes:
    arrays = [made.y, made.predicted.outputs]
    arrays += [] if made.predicted.spread is None else [made.predicted.spread]
    arrays += [made.fold] if made.folds > 1 else []
    return b"".join(np.ascontiguousarray(array, dtype="<f8").tobytes() for array in arrays)


def _labels(classes: Any) -> dict[str, Any]:
    if classes.dtype.kind in "mM":  # some of them would be whole numbers
        raise ValueError(f"classes_ has dates or times ({classes.dtype}), which a file cannot hold; pickle it instead")
    return {"objects": classes.dtype == object, "values": _plain("classes_", classes)}


def _parameters(estimator: Any) -> dict[str, Any]:
    """All but `n_threads`, which is of a machine; of `random_state` whole numbers alone."""
    found = {}
    for name, value in estimator.get_params(deep=False).items():
        if name == "random_state" and not isinstance(value, int | np.integer):
            value = None
        elif isinstance(value, losses.Loss):
            value = value.config()
        elif name == "class_weight" and hasattr(value, "items"):
            value = list(value.items())  # a name in JSON is text
        if name != "n_threads":
            found[name] = _plain(name, value)
    return found


def _plain(name: str, value: Any) -> Any:
    """Text, numbers, booleans, None, and lists of them."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {key: _plain(name, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray) or hasattr(value, "tolist"):
        return [_plain(name, entry) for entry in value]
    raise ValueError(f"{name} has {value!r:.50} ({type(value).__name__}), which a file cannot hold; pickle it instead")


def _part(part: Part) -> dict[str, Any]:
    arrays = {name: value for name, value in vars(part.preprocessor).items() if isinstance(value, np.ndarray)}
    learned = {name: value.tolist() for name, value in arrays.items()}
    standard = part.standard
    return {
        "preprocessor": learned | {"known": part.preprocessor.known, "embedded": part.preprocessor.embedded},
        "standard": None if standard is None else {name: array.tolist() for name, array in vars(standard).items()},
        "histories": [
            {name: [None if value != value else float(value) for value in values] for name, values in h.metrics.items()}
            for h in part.histories
        ],
        "best_epochs": part.best_epochs,
    } | ({"share": part.share} if part.share != 1 else {})


# Reading -----------------------------------------------------------------------------------------------------


def load(path: Any, n_threads: int | None) -> Any:
    """The estimator that `save` wrote, of one of the known classes."""
    threads.resolve(n_threads)  # a wrong argument is no fault of the file
    place = files.checked_path(path)
    with open(place, "rb"):  # names what cannot be read
        pass
    try:
        with zipfile.ZipFile(place) as archive, tempfile.TemporaryDirectory() as folder:
            return _read(archive, os.path.getsize(place), folder, n_threads)
    except (*REFUSALS, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that of places before the file's beginning
            raise
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:500]
        if not zipfile.is_zipfile(place):
            reason = "it is no zip archive; what Network.save wrote is read by cydrop.load"
        raise ValueError(f"{place} is not an estimator that cydrop.tabular can load: {reason}") from None


def _read(archive: zipfile.ZipFile, size: int, folder: str, n_threads: int | None) -> Any:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    calibrated = names[-1:] == [CALIBRATION]
    entries = entries[: len(entries) - calibrated]
    if names[: len(entries)] != ["estimator.json", *(_entry(number) for number in range(len(entries) - 1))]:
        raise ValueError(f"its entries are {names[:3]}, not estimator.json and networks")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in archive.infolist()):
        raise ValueError("its entries are compressed or encrypted")
    if sum(entry.file_size for entry in archive.infolist()) > size:
        raise ValueError("its entries take more than the whole file")
    if entries[0].file_size > LONGEST:
        raise ValueError(f"its description has {entries[0].file_size:,} bytes; up to {LONGEST:,} are read")
    description = files.parsed(archive.read(entries[0]).decode())
    given = description.pop("calibration", None) if isinstance(description, dict) else None
    estimator = _understood(description, n_threads)
    expected = sum(len(part.histories) for part in estimator.parts_)
    if len(entries) - 1 != expected:
        raise ValueError(f"it has {len(entries) - 1} networks, its description {expected}")
    numbers = iter(range(expected))
    for part in estimator.parts_:
        for number in (next(numbers) for _ in part.histories):
            part.networks.append(_network_of(archive, number, folder, n_threads))
            _check_network(estimator, part, part.networks[-1])
    if calibrated != (given is not None):
        raise ValueError("it has numbers of a calibration without a description, or a description without numbers")
    estimator.calibration_ = _calibration(given, archive.read(CALIBRATION), estimator) if calibrated else None
    return estimator


def _calibration(given: Any, numbers: bytes, estimator: Any) -> Calibration:
    given = an_object("calibration", given, ("rows", "spread", "folds"))
    rows, (spread, folds) = a_count(given["rows"]), (a_flag(given[name]) for name in ("spread", "folds"))
    loss, classes = estimator.parts_[0].networks[0].loss, estimator.task == CLASSES
    targets = 1 if classes else math.prod(estimator.target_shape_)
    units = len(estimator.classes_) if classes else loss.units(targets)
    widths = [targets, units, *([targets] if spread else []), *([1] if folds else [])]
    if rows < 1 or len(numbers) != 8 * rows * sum(widths):
        raise ValueError(f"its calibration takes {len(numbers):,} bytes, not those of {rows:,} rows")
    values = np.frombuffer(numbers, dtype="<f8").astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("its calibration has numbers that are not finite")
    ends = np.cumsum([rows * width for width in widths])
    arrays = [part.reshape(rows, -1) for part in np.split(values, ends[:-1])]
    y, fold = (arrays[0][:, 0] if classes else arrays[0]), (arrays[-1][:, 0] if folds else None)
    return Calibration.read(
        loss, y, Prediction(arrays[1], arrays[2] if spread else None), fold, len(estimator.parts_)
    )  # fmt: skip


def _network_of(archive: zipfile.ZipFile, number: int, folder: str, n_threads: int | None) -> Network:
    place = os.path.join(folder, str(number))
    with archive.open(_entry(number)) as source, open(place, "wb") as target:
        shutil.copyfileobj(source, target)
    try:
        return _network.load(place, n_threads=n_threads)
    except ValueError as error:
        raise ValueError(f"{_entry(number)}: {str(error).removeprefix(place)}") from None
    finally:
        os.unlink(place)


def _check_network(estimator: Any, part: Part, network: Network) -> None:
    """Raises unless the network takes what the columns become, and gives what the targets are."""
    plan = core_of(network).made("an estimator for tables").plan
    cardinalities = part.preprocessor.cardinalities
    width = part.preprocessor.width + len(cardinalities)
    classes = part.standard is None
    if (network.loss.predictions == "probabilities") != classes:
        raise ValueError(f"a network with the loss {network.loss.name} stands in a {type(estimator).__name__}")
    outputs = max(2, len(estimator.classes_)) if classes else network.loss.units(math.prod(estimator.target_shape_))
    for layer in network.layers:
        if isinstance(layer, layers.Embedding) and list(layer.cardinalities) != cardinalities.tolist():
            raise ValueError(f"a network embeds {layer.cardinalities} codes where there are {cardinalities.tolist()}")
    if (plan.n_features, plan.n_outputs) != (width, outputs):
        raise ValueError(
            f"a network of {plan.n_features} inputs and {plan.n_outputs} outputs stands where {width} and {outputs} "
            "are needed"
        )


def _understood(description: Any, n_threads: int | None) -> Any:
    """The estimator as described, without its networks."""
    form = description.get("format") if isinstance(description, dict) else None
    if type(form) is not int or form != FORMAT:
        raise ValueError(f"it has format {form!r:.20}, this cydrop {__version__} reads format {FORMAT}")
    an_object("description", description, DESCRIPTION)
    estimator = _made(description["estimator"], description["parameters"], n_threads)
    n = estimator.n_features_in_ = a_count(description["n_features"])
    if description["feature_names"] is not None:
        names = _texts("feature_names", description["feature_names"], n)
        estimator.feature_names_in_ = np.array(names, dtype=object)
    estimator.schema_ = _schema(description["schema"], n)
    n_targets = None
    if estimator.task == CLASSES:
        estimator.classes_ = _classes(description["classes"])
    else:
        shape = a_list("target_shape", description["target_shape"])
        estimator.target_shape_ = tuple(a_count(size) for size in shape)
        n_targets = math.prod(estimator.target_shape_)
        if len(shape) > 1 or not n_targets:
            raise ValueError(f"its targets are of the shape {shape}")
    parts = a_list("parts", description["parts"])
    estimator.parts_ = [_read_part(part, estimator.family.preprocessor, estimator.schema_, n_targets) for part in parts]
    if not parts or not all(part.histories for part in estimator.parts_):
        raise ValueError("it has no networks, or parts without")
    return estimator


def _made(name: Any, parameters: Any, n_threads: int | None) -> Any:
    if not isinstance(name, str) or name not in KNOWN:
        raise ValueError(f"its estimator is {name!r:.50}, not {' or '.join(KNOWN)}")
    cls = KNOWN[name]
    names = tuple(sorted(set(cls().get_params(deep=False)) - {"n_threads"}))
    if isinstance(parameters, dict):  # of a file that an earlier cydrop wrote some are missing
        parameters = {name: value for name, value in LATER.items() if name in names} | parameters
    options = dict(an_object("parameters", parameters, names))
    if isinstance(options.get("loss"), dict):
        options["loss"] = losses.from_config(options["loss"])
    if isinstance(options["hidden_layer_sizes"], list):
        options["hidden_layer_sizes"] = tuple(options["hidden_layer_sizes"])
    if isinstance(options.get("class_weight"), list):
        options["class_weight"] = dict(a_list("class_weight", pair, 2) for pair in options["class_weight"])
    estimator = cls(**options, n_threads=n_threads)
    estimator.family.checked(estimator)
    return estimator


def _schema(given: Any, n: int) -> Schema:
    given = an_object("schema", given, ("labels", "kinds", "text"))
    kinds, text = _texts("kinds", given["kinds"], n), a_list("text", given["text"], n)
    if not set(kinds) <= {NUMBER, CATEGORY} or not n:
        raise ValueError(f"its columns are of the kinds {sorted(set(kinds))}")
    if any(known is not None and not isinstance(known, bool) for known in text):
        raise ValueError("its schema says neither true, false nor null of a column's text")
    return Schema(tuple(_texts("labels", given["labels"], n)), tuple(kinds), tuple(text))


def _classes(given: Any) -> Any:
    given = an_object("classes", given, ("objects", "values"))
    values = a_list("classes", given["values"])
    for value in values:
        _check_value("classes", value)
    plain = given["objects"] is False and len({type(value) for value in values}) == 1
    classes = np.array(values) if plain else np.array(values, dtype=object)
    if not len(classes) or classes.ndim != 1 or len(set(values)) < len(values):
        raise ValueError("its classes are none, or not each once")
    return classes


def _read_part(given: Any, kind: type[AnyPreprocessor], schema: Schema, n_targets: int | None) -> Part:
    share = given.pop("share", 1) if isinstance(given, dict) else 1
    given = an_object("part", given, ("preprocessor", "standard", "histories", "best_epochs"))
    preprocessor = _preprocessor(given["preprocessor"], kind, schema)
    standard = None
    if n_targets is not None:
        names = ("shift", "scale", "low", "high")
        entries = an_object("standard", given["standard"], names)
        standard = Standard(**{name: _numbers(name, entries[name], n_targets) for name in names})
        if (standard.low > standard.high).any() or (standard.scale < 0).any():
            raise ValueError("its targets have a range or spread below 0")
    elif given["standard"] is not None:
        raise ValueError("it has targets that are numbers, and classes")
    histories = [_history(entry) for entry in a_list("histories", given["histories"])]
    epochs = [a_count(epoch) for epoch in a_list("best_epochs", given["best_epochs"], len(histories))]
    if a_count(share) < 1:
        raise ValueError("a part of it counts nothing")
    return Part(preprocessor, standard, [], histories, epochs, share)


def _history(given: Any) -> History:
    def number(value: Any) -> float:
        if value is None:
            return math.nan
        if type(value) not in (int, float):
            raise ValueError(f"{value!r:.50} in a history is no number")
        return float(value)

    metrics = an_object("history", given)
    return History({name: [number(value) for value in a_list("history", metrics[name])] for name in metrics})


def _preprocessor(given: Any, kind: type[AnyPreprocessor], schema: Schema) -> AnyPreprocessor:
    given = an_object("preprocessor", given, tuple(field.name for field in dataclasses.fields(kind)))
    n_numbers = schema.kinds.count(NUMBER)
    n_categories = len(schema.kinds) - n_numbers
    indicated = [a_count(place) for place in a_list("indicated", given["indicated"])]
    if indicated != sorted(set(indicated)) or (indicated and indicated[-1] >= n_numbers):
        raise ValueError("its indicators are not of its columns")
    known = [a_list("known", values) for values in a_list("known", given["known"], n_categories)]
    for values in known:
        for value in values:
            _check_value("categories", value)
        if len(set(values)) < len(values):
            raise ValueError("a category stands twice in it")
    embedded = a_list("embedded", given["embedded"], n_categories)
    if not all(isinstance(flag, bool) for flag in embedded):
        raise ValueError("what is embedded in it is not a list of true and false")
    common: dict[str, Any] = {
        "means": _numbers("means", given["means"], n_numbers),
        "indicated": np.array(indicated, dtype=np.intp),
        "known": known,
        "embedded": embedded,
    }
    if issubclass(kind, QuantilePreprocessor):
        return kind(**common, quantiles=_quantiles(given["quantiles"], n_numbers))
    one_hot = [len(values) for values, left in zip(known, embedded, strict=True) if not left]
    width = n_numbers + len(indicated) + sum(1 if count in (1, 2) else count for count in one_hot)
    scale: dict[str, Any] = {name: _numbers(name, given[name], width) for name in ("median", "factor")}
    return kind(**common, **scale)


def _quantiles(given: Any, columns: int) -> Doubles:
    found = [_numbers("quantiles", row, columns) for row in a_list("quantiles", given)]
    if not found or (np.diff(found, axis=0) < 0).any():
        raise ValueError("its quantiles are none, or not in order")
    return np.array(found)


def _numbers(name: str, given: Any, length: int) -> Doubles:
    values = a_list(name, given, length)
    if not all(type(value) in (int, float) for value in values):
        raise ValueError(f"its {name} are not numbers")
    numbers = np.array([float(value) for value in values], dtype=np.float64)
    if len(numbers) and not np.isfinite(numbers).all():
        raise ValueError(f"its {name} are not finite")
    return numbers


def _texts(name: str, given: Any, length: int) -> list[str]:
    values = a_list(name, given, length)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"its {name} are not texts")
    return values


def _check_value(name: str, value: Any) -> None:
    if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"its {name} have {value!r:.50}, which is neither text nor a number")

"""What a network or an ensemble was calibrated with, and whether it still is the one that was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._run.files import a_count, a_flag, an_object
from cydrop._run.rows import Rows
from cydrop.calibration import Calibration, Prediction
from cydrop.losses import Loss

NOT_FOR = {
    "predict_interval": "numbers; the classes of classifiers come from predict_set",
    "predict_set": "classes; for numbers there is predict_interval",
}


class Member(Protocol):
    """What a calibration asks of the core of each network that it is of."""

    precision: str

    @property
    def updates(self) -> int: ...


class Calibrated(NamedTuple):
    """A calibration, and how the model predicts for it."""

    calibration: Calibration
    samples: int  # of Monte Carlo dropout, which its spread is of; 0: none
    rate: float | None  # of these samples, as for `predict_mc`
    updates: int  # of the optimizers, of all members, when it was made: later ones make it void
    precisions: tuple[str, ...] = ()  # of the members' products, whose change does so, too; (): of an earlier version

    def holds(self, loss: Loss, cores: Sequence[Member]) -> bool:
        """Whether it is of these members with this loss as they are now."""
        same = self.updates == updates_of(cores) and repr(self.calibration.loss) == repr(loss)
        return same and self.has_precisions(precisions_of(cores))

    def has_precisions(self, precisions: tuple[str, ...]) -> bool:
        return self.precisions in ((), precisions)


def updates_of(cores: Sequence[Member]) -> int:
    return sum(core.updates for core in cores)


def precisions_of(cores: Sequence[Member]) -> tuple[str, ...]:
    return tuple(core.precision for core in cores)


def calibrated_now(calibration: Calibration, samples: int, rate: float | None, cores: Sequence[Member]) -> Calibrated:
    """What was made of these members as they are."""
    return Calibrated(calibration, samples, rate, updates_of(cores), precisions_of(cores))


def checked(made: Calibrated | None, loss: Loss, cores: Sequence[Member], method: str, instead: str = "") -> Calibrated:
    """The calibration for a method of these members with this loss; `instead`: what also makes one."""
    if (loss.predictions == "probabilities") != (method == "predict_set"):
        raise ValueError(f"the loss is {loss.name}, but {method} is for {NOT_FOR[method]}")
    if made is None:
        raise RuntimeError(f"{method} needs calibration: call calibrate(X, y) first, with rows not trained on{instead}")
    if not made.holds(loss, cores):
        raise RuntimeError(f"{method}: trained or changed since it was calibrated; call calibrate(X, y) again")
    return made


def targets_of(data: Rows) -> NDArray[Any]:
    """y as a `Calibration` has it: numbers, or codes of classes."""
    if data.loss.predictions == "values":
        return data.targets
    if len(data.labels):
        return data.labels
    if not data.loss.binary:
        raise ValueError("y holds class probabilities: calibration needs labels, which class it was")
    if data.targets.shape[1] > 1:
        raise ValueError(f"y has {data.targets.shape[1]} labels a row: sets are of classes of which each row has one")
    if not np.isin(data.targets, (0.0, 1.0)).all():
        raise ValueError("y holds probabilities: calibration needs 0 or 1, which of both it was")
    return data.targets[:, 0].astype(np.int32)


# In files ---------------------------------------------------------------------------------------------------

DESCRIPTION = "rows", "samples", "rate", "updates", "spread", "folds"


def described(made: Calibrated) -> dict[str, Any]:
    """What a file says of it; its numbers are tensors."""
    calibration = made.calibration
    return {
        "rows": len(calibration.y),
        "samples": made.samples,
        "rate": made.rate,
        "updates": made.updates,
        "spread": calibration.predicted.spread is not None,
        "folds": calibration.folds > 1,
    }


def tensors(made: Calibrated) -> dict[str, Floats]:
    """Its numbers as they lie in a file, which float32 holds: networks compute in it. Codes and folds are small."""
    calibration = made.calibration
    found = {"y": calibration.y, "outputs": calibration.predicted.outputs}
    if calibration.predicted.spread is not None:
        found["spread"] = calibration.predicted.spread
    if calibration.folds > 1:
        found["fold"] = calibration.fold
    return {f"calibrated.{name}": np.ascontiguousarray(array, dtype=np.float32) for name, array in found.items()}


def shapes(given: Any, loss: Loss, units: int) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a description, for predictions of so many units."""
    given = an_object("calibrated", given, DESCRIPTION)
    rows = checks.integer("rows", a_count(given["rows"]), 1)
    numbers = loss.predictions == "values"
    targets = loss.columns(units)
    found: dict[str, tuple[int, ...]] = {"y": (rows, targets) if numbers else (rows,), "outputs": (rows, units)}
    if a_flag(given["spread"]) and numbers:
        found["spread"] = (rows, targets)
    if a_flag(given["folds"]):
        found["fold"] = (rows,)
    return {f"calibrated.{name}": shape for name, shape in found.items()}


def read(given: Mapping[str, Any], loss: Loss, arrays: Mapping[str, Floats], members: int) -> Calibrated:
    """Of a description and its tensors; a model of so many members."""
    spread = arrays.get("calibrated.spread")
    predicted = Prediction(arrays["calibrated.outputs"], spread)
    calibration = Calibration.read(loss, arrays["calibrated.y"], predicted, arrays.get("calibrated.fold"), members)
    rate = None if given["rate"] is None else checks.rate("rate", given["rate"])
    samples = checks.integer("samples", a_count(given["samples"]), 0, checks.MOST_SAMPLES)
    if bool(samples) != (spread is not None):
        raise ValueError("its calibration has samples or a spread, but not both")
    return Calibrated(calibration, samples, rate, a_count(given["updates"]))

"""From a table to trained networks: check, merge equal rows, split, prepare, train the members side by side.

    X, y -> rows -> [Part: its training and held-out rows, what was learned from the former, its networks]

A part is a fold; without folds there is one. Its members differ in their seeds alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from cydrop import distributed
from cydrop._base import checks
from cydrop._run.team import Team
from cydrop.callbacks import Callback, ProgressBar
from cydrop.distributed import DataParallel
from cydrop.errors import DivergedError
from cydrop.tabular import _splits
from cydrop.tabular._columns import Doubles
from cydrop.tabular._parts import Part, Rows
from cydrop.tabular._recipe import CLASSES, Member, Settings, train_member
from cydrop.tabular._table import Schema, Table, columns_of, learned
from cydrop.tabular._targets import (
    Standard,
    checked_labels,
    checked_numbers,
    class_factors,
    codes_of,
)
from cydrop.tabular._warnings import warn_of_categories

# of a fitted estimator, with the rows that each of its parts left out, and those that were kept aside
Calibrate: TypeAlias = Callable[[list[Rows], Rows | None], None]
Job: TypeAlias = Callable[[Event], Member]  # ends soon, with an error, once the event is set


SEARCHED = ("trials_", "best_score_")  # what a search tells of itself
ADVICE = "the estimator is as it was before fit. Try a smaller learning_rate_init or weight_decay"


def fit(
    estimator: Any, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any, parallel: DataParallel | None,
    calibrate: Calibrate,
) -> None:  # fmt: skip
    """`fit` of an estimator; if anything is refused or fails, it stays as it was."""
    before = estimator.__dict__.copy()
    try:
        team = distributed.team_of(distributed.checked_for_estimator(parallel))
        with team.session():
            _fit(estimator, X, y, sample_weight, X_val, y_val, parallel, team, calibrate)
    except BaseException as error:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        if isinstance(error, DivergedError):
            raise DivergedError(error.epoch, error.batch, ADVICE) from None
        raise


def _fit(
    estimator: Any, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any, parallel: DataParallel | None,
    team: Team, calibrate: Calibrate,
) -> None:  # fmt: skip
    settings: Settings = estimator.family.checked(estimator)
    task = settings.recipe.task
    if team.size > 1:
        settings = replace(settings, n_threads=1)  # ranks make the members one after another, all the same one
    schema, rows, factors = gathered(estimator, X, y, sample_weight, 4)
    held = _given_validation(estimator, task, schema, settings, factors, X_val, y_val)
    if team.size > 1:
        team.check_same(_facts(estimator, schema, rows, held))
    rng = random_state_of(estimator.random_state)
    rows, kept = _kept_aside(rng, rows, settings)
    if len(rows) <= settings.recipe.rows_of_batch(len(rows)):
        rows = rows.merged()
    splits = split(rng, rows, settings, held)
    n = len(rows) + (0 if held is None else len(held))
    del rows, held  # while networks are trained, their rows are there once
    parts, jobs, total = [], list[Job](), len(splits) * settings.n_ensemble
    for train, valid in splits:
        part = Part(settings.recipe.fitted(train.table), None)
        if task != CLASSES:
            part.standard = Standard.of(train.y, train.weight)
        parts.append(part)
        for _ in range(settings.n_ensemble):
            seed = int(rng.randint(2**31 - 1))
            own = _alone(estimator, settings, task, len(splits))
            label = f"network {len(jobs) + 1} of {total}" if total > 1 else ""
            jobs.append(_job(part, train, valid, seed, own, label, parallel))
    for number, member in enumerate(_all(jobs, settings.n_threads)):
        member.network.n_threads = estimator.n_threads
        part = parts[number // settings.n_ensemble]
        part.networks.append(member.network)
        part.histories.append(member.history)
        part.best_epochs.append(member.best_epoch)
    estimator.schema_, estimator.parts_ = schema, parts
    unseen = all(len(train) + len(valid) <= n for train, valid in splits)  # else each class has one row
    calibrate([valid for _, valid in splits] if unseen else [], kept)
    for told in SEARCHED:
        vars(estimator).pop(told, None)


def gathered(
    estimator: Any, X: Any, y: Any, sample_weight: Any, stacklevel: int
) -> tuple[Schema, Rows, Doubles]:  # fmt: skip
    """What the columns are, checked rows, and the weight of each class. Sets what the estimator knows of its columns
    and targets. `stacklevel`: how many calls away the user is, for warnings."""
    columns = columns_of(X)
    validate_data(estimator, X, y, skip_check_array=True, reset=True)  # the columns' names, and whether y is there
    schema, table = learned(columns, estimator.categorical_features)
    if isinstance(estimator.categorical_features, str):  # nobody has said that they are categories
        warn_of_categories(schema, table, stacklevel + 1)
    return schema, *_rows(estimator, estimator.task, table, y, sample_weight)


def _facts(estimator: Any, schema: Schema, rows: Rows, held: Rows | None) -> dict[str, Any]:
    """What must be the same on all ranks."""
    found = distributed.facts_of_estimator(estimator) | {"columns of X": repr(schema)}
    for name, some in (("", rows), ("_val", held)):
        found[f"number of rows of X{name}"] = None if some is None else len(some)
        if some is not None:
            values = repr([list(column.values) for column in some.table.categories])
            found[f"categories in X{name}"] = distributed.checksum(np.frombuffer(values.encode(), dtype=np.uint8))
            found[f"rows of X{name}"] = distributed.checksum(some.table.keys())
            found[f"y{name}"] = distributed.checksum(some.y)
            found[f"weights of the rows of X{name}"] = distributed.checksum(some.weight)
    return found


def _alone(estimator: Any, settings: Settings, task: str, n_splits: int) -> Settings:
    """The settings of one member: on one thread where several are trained side by side."""
    recipe = settings.recipe
    if min(n_splits * settings.n_ensemble, settings.n_threads) > 1:
        recipe = replace(recipe, n_threads=1)
    if task == CLASSES and len(estimator.classes_) == 1:
        recipe = replace(recipe, max_iter=1)  # there is nothing to learn
    return replace(settings, recipe=recipe)


def _job(
    part: Part, train: Rows, valid: Rows, seed: int, settings: Settings, label: str, parallel: DataParallel | None
) -> Job:
    """The training of a member. Its rows are prepared when it begins: those of other folds take no memory."""

    def run(stop: Event) -> Member:
        callbacks: list[Callback] = [_Stop(stop)]
        if settings.verbose:
            callbacks.append(ProgressBar(label=label))
        targets = [rows.y if part.standard is None else part.standard.applied(rows.y) for rows in (train, valid)]
        prepared = [part.preprocessor.transform(rows.table) for rows in (train, valid)]
        return train_member(
            settings.recipe, prepared[0], targets[0], train.scaled_weight(),
            prepared[1], targets[1], valid.scaled_weight(), seed, settings.metric, parallel, callbacks,
        )  # fmt: skip

    return run


def _all(jobs: list[Job], n_threads: int) -> list[Member]:
    """What the jobs give, in their order; as many at a time as there are threads. The engine runs without the GIL.

    After Ctrl-C, which comes to this thread alone, or an error of one the others end with their epoch.
    """
    workers, stop = min(len(jobs), n_threads), Event()
    if workers == 1:
        return [job(stop) for job in jobs]
    with ThreadPoolExecutor(workers) as executor:
        futures = [executor.submit(job, stop) for job in jobs]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future in done:
                    future.result()  # raises
            return [future.result() for future in futures]
        finally:
            stop.set()
            executor.shutdown(wait=False, cancel_futures=True)


class _Stop(Callback):
    """Ends the training of a network when others say so."""

    def __init__(self, event: Event) -> None:
        self.event = event

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self.event.is_set():
            raise RuntimeError("the training of this network was ended, since another one failed")


def random_state_of(given: Any) -> np.random.RandomState:
    """A source of random numbers, of the parameter that scikit-learn calls so."""
    try:
        rng: np.random.RandomState = check_random_state(given)
    except ValueError:
        raise ValueError(
            f"random_state must be an integer from 0 to 2**32 - 1, a numpy.random.RandomState or None, got {given!r}"
        ) from None
    return rng


# Rows -------------------------------------------------------------------------------------------------------


def _rows(estimator: Any, task: str, table: Table, y: Any, sample_weight: Any) -> tuple[Rows, Doubles]:
    """Checked rows of weight above 0, and the weight of each class; sets what the estimator knows of its targets."""
    y = checked_labels(y) if task == CLASSES else checked_numbers(y)
    _check_length("X", table, "y", y)
    if len(y) < 2:
        raise ValueError(f"n_samples={len(y)}: one row to train on and one to validate on are needed at least")
    weight = np.ones(len(y))
    if sample_weight is not None:
        weight = checks.weights("sample_weight", sample_weight, len(y)).astype(np.float64)
        if not weight.any():
            raise ValueError("sample_weight must have at least one weight above 0: all of them are zero in float32")
    there = np.flatnonzero(weight > 0)
    if len(there) < len(y):
        table, y, weight = table.take(there), y[there], weight[there]
    if task != CLASSES:
        estimator.target_shape_ = y.shape[1:]
        return Rows(table, y.reshape(len(y), -1), weight), np.ones(0)
    estimator.classes_, codes = np.unique(y, return_inverse=True)
    codes = codes.astype(np.int64)
    factors = class_factors(estimator.class_weight, estimator.classes_, codes, weight)
    return Rows(table, codes, weight * factors[codes]), factors


def _given_validation(
    estimator: Any, task: str, schema: Schema, settings: Settings, factors: Doubles, X_val: Any, y_val: Any
) -> Rows | None:
    """The rows given to validate on."""
    if X_val is None and y_val is None:
        return None
    if X_val is None or y_val is None:
        raise ValueError(f"X_val and y_val belong together, {'X_val' if X_val is None else 'y_val'} is missing")
    if settings.n_folds > 1:
        raise ValueError(f"n_folds={settings.n_folds} validates on folds of X; X_val and y_val are for n_folds=1")
    rows = further_rows(estimator, schema, X_val, y_val, "_val")
    if task == CLASSES:
        rows.weight = factors[rows.y]
    return rows


def further_rows(estimator: Any, schema: Schema, X: Any, y: Any, suffix: str = "") -> Rows:
    """Rows like those of `fit`, each of weight 1; errors name X and y with the suffix."""
    X_name, y_name = f"X{suffix}", f"y{suffix}"
    with _about(X_name):
        table = read(estimator, schema, X)
    classes = estimator.task == CLASSES
    with _about(y_name):
        y = checked_labels(y, y_name) if classes else checked_numbers(y, y_name)
    _check_length(X_name, table, y_name, y)
    if classes:
        return Rows(table, codes_of(y, estimator.classes_, y_name), np.ones(len(y)))
    if y.shape[1:] != estimator.target_shape_:
        raise ValueError(f"{y_name} has shape {y.shape}, y of fit has rows of shape {estimator.target_shape_}")
    return Rows(table, y.reshape(len(y), -1), np.ones(len(y)))


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Errors about X or y name X_val or y_val instead."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message, found = re.subn(rf"^(Input )?{name[0]}(?= )", rf"\g<1>{name}", str(error))
        raise type(error)(message if found or name in message else f"{name}: {message}") from None


def _check_length(X_name: str, table: Table, y_name: str, y: NDArray[Any]) -> None:
    if len(table) != len(y):
        raise ValueError(f"{X_name} and {y_name} have inconsistent numbers of samples: {len(table)} and {len(y)} rows")


def read(estimator: Any, schema: Schema, X: Any) -> Table:
    """A table with the columns of the one in `fit`, checked by names and number, with scikit-learn's words."""
    columns = columns_of(X)
    validate_data(estimator, X, skip_check_array=True, reset=False)
    return schema.read(columns)


def split(
    rng: np.random.RandomState, rows: Rows, settings: Settings, held: Rows | None
) -> list[tuple[Rows, Rows]]:  # fmt: skip
    """Training and held-out rows of each part."""
    if held is not None:
        return [(rows, held)]
    return [(rows.take(train), rows.take(valid)) for train, valid in pairs_of(rng, rows, settings)]


def pairs_of(
    rng: np.random.RandomState, rows: Rows, settings: Settings
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:  # fmt: skip
    """The numbers of training and held-out rows of each part."""
    codes = rows.y if settings.recipe.task == CLASSES else None
    if settings.n_folds > len(rows):
        raise ValueError(f"n_folds={settings.n_folds} needs as many different rows, got {len(rows)}")
    if settings.n_folds > 1:
        return _splits.folds(rng, len(rows), settings.n_folds, codes)
    _check_fraction(settings.validation_fraction, len(rows))
    return [_splits.holdout(rng, len(rows), settings.validation_fraction, codes)]


def _kept_aside(rng: np.random.RandomState, rows: Rows, settings: Settings) -> tuple[Rows, Rows | None]:
    """Rows to train and to choose by; and those that neither is done with."""
    share, n = settings.calibration_fraction, len(rows)
    if not share:
        return rows, None
    left = n - math.ceil(share * n)
    if left < 2:
        raise ValueError(
            f"calibration_fraction={share} of {n:,} rows leaves {left}: one row to train on and one to validate on are "
            "needed at least"
        )
    codes = rows.y if settings.recipe.task == CLASSES else None
    train, kept = _splits.holdout(rng, n, share, codes)
    if len(train) == n:
        raise ValueError("calibration_fraction needs a class with two rows at least: none is left to calibrate with")
    return rows.take(train), rows.take(kept)


def _check_fraction(fraction: float, n: int) -> None:
    """Raises for a share that is no row, or all of them; of two rows one is held out whatever it is."""
    if n > 2 and round(fraction * n) == 0:
        raise ValueError(f"validation_fraction={fraction} of {n:,} rows is none to hold out; give at least {1 / n:.2g}")
    if n > 2 and round(fraction * n) == n:
        raise ValueError(
            f"validation_fraction={fraction} of {n:,} rows leaves none to train on; give at most "
            f"{math.floor(1e6 * (n - 1) / n) / 1e6:g}"
        )

"""What bench/intervals.py compares: ways to an interval that holds a number, and to a set that holds a class.

A method trains on rows and returns what predicts, by name: most one, kinds of sets share a network. Each
library has its defaults and, as in bench/table_methods.py, gets the table in the way that its documentation shows. What
calibrates, calibrates by one row in five of the training rows, which nothing else sees: CALIBRATION. The two kinds of
cydrop's estimators without such rows take those that chose the epoch (".own"), or those that each of five folds left
out (".cv").

    .quantiles     the quantiles alone, as they were learned
    .cqr           the same, conformalised (Romano, Patterson and Candès 2019, "Conformalized quantile regression")
    .split, .cv    absolute residuals of MAPIE's split and of five folds (CV+)
    .lac .aps .raps  the scores that MAPIE's sets are made by
    .adaptive .smallest  the kinds of cydrop's sets
"""

import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from table_methods import Run, behind_numbers, into_numbers, with_strings

Array = NDArray[Any]
Predict = Callable[[pd.DataFrame], Array]  # intervals (n, 2); or sets, bool (n, classes)
Point = Callable[[pd.DataFrame], Array]  # the class that is predicted: its place among the classes

CALIBRATION = 0.2  # of the training rows
FOLDS = 5
AT_ONCE = 500  # rows: MAPIE's CV+ holds a number for each of them and each training row


@dataclass(frozen=True)
class Task:
    """What a method gets: the training rows, and what is asked for."""

    run: Run
    X: pd.DataFrame
    y: Array  # of classes: their places 0, 1, ...
    coverage: float

    @property
    def ends(self) -> tuple[float, float]:
        return (1 - self.coverage) / 2, (1 + self.coverage) / 2

    @property
    def n_classes(self) -> int:
        return int(self.y.max()) + 1

    def parted(self) -> tuple[pd.DataFrame, Array, pd.DataFrame, Array]:
        """Rows to train on and rows to calibrate by, of each class alike."""
        from sklearn.model_selection import train_test_split

        rows, kept = train_test_split(
            np.arange(len(self.y)),
            test_size=CALIBRATION,
            random_state=self.run.seed,
            stratify=self.y if self.run.classes else None,
        )
        return self.X.iloc[rows], self.y[rows], self.X.iloc[kept], self.y[kept]


@dataclass(frozen=True)
class Found:
    """Intervals or sets by name; for sets also the class that each of them would say."""

    predict: dict[str, Predict]
    points: dict[str, Point] | None = None


@dataclass(frozen=True)
class Method:
    train: Callable[[Task], Found]
    packages: tuple[str, ...]  # of PyPI
    modules: tuple[str, ...]  # what is imported of them

    def missing(self) -> list[str]:
        """Those that cannot be imported; the others are, so that no run counts the seconds of it."""
        return [module for module in self.modules if not _imported(module)]


def _imported(module: str) -> bool:
    with suppress(ImportError):
        importlib.import_module(module)
        return True
    return False


def conformal_quantile(scores: Array, coverage: float) -> float:
    """The score that so large a share of new ones stays below: the k-th smallest, k = ceil((n + 1) coverage)."""
    place = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else np.inf


# Intervals --------------------------------------------------------------------------------------------------


def quantiles(task: Task, fit: Callable[[Task, pd.DataFrame, Array], Predict], calibrated: bool) -> Found:
    """The ends that `fit` learns, in order; conformalised by rows that are kept from it."""
    if not calibrated:
        raw = fit(task, task.X, task.y)
        return Found({"": lambda X: np.sort(raw(X), axis=1)})
    X, y, X_kept, y_kept = task.parted()
    raw = fit(task, X, y)
    low, high = np.sort(raw(X_kept), axis=1).T
    margin = conformal_quantile(np.maximum(low - y_kept, y_kept - high), task.coverage)

    def predict(X: pd.DataFrame) -> Array:
        low, high = np.sort(raw(X), axis=1).T
        middle = (low + high) / 2  # where the margin takes away more than there is
        return np.column_stack([np.minimum(low - margin, middle), np.maximum(high + margin, middle)])

    return Found({"": predict})


def lightgbm_ends(task: Task, X: pd.DataFrame, y: Array) -> Predict:
    import lightgbm

    common = {"objective": "quantile", "random_state": task.run.seed, "n_jobs": task.run.threads, "verbose": -1}
    models = [lightgbm.LGBMRegressor(alpha=end, **common).fit(X, y) for end in task.ends]
    return lambda X: np.column_stack([model.predict(X) for model in models])


def catboost_ends(task: Task, X: pd.DataFrame, y: Array) -> Predict:
    import catboost

    names = task.run.categories
    model = catboost.CatBoostRegressor(
        loss_function=f"MultiQuantile:alpha={','.join(f'{end:.6g}' for end in task.ends)}",
        random_seed=task.run.seed,
        thread_count=task.run.threads,
        cat_features=names,
        verbose=False,
        allow_writing_files=False,
    ).fit(with_strings(X, names), y)
    return lambda X: np.asarray(model.predict(with_strings(X, names)))


def forest_ends(task: Task, X: pd.DataFrame, y: Array) -> Predict:
    from quantile_forest import RandomForestQuantileRegressor

    columns = into_numbers().fit(X)
    forest = RandomForestQuantileRegressor(random_state=task.run.seed, n_jobs=task.run.threads)
    forest.fit(columns.transform(X), y)
    return lambda X: np.asarray(forest.predict(columns.transform(X), quantiles=list(task.ends)))


def mapie_intervals(task: Task, folds: bool) -> Found:
    from mapie.regression import CrossConformalRegressor, SplitConformalRegressor
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.preprocessing import StandardScaler

    model = TransformedTargetRegressor(MLPRegressor(random_state=task.run.seed), transformer=StandardScaler())
    if folds:
        columns = into_numbers().fit(task.X)
        conformal = CrossConformalRegressor(model, task.coverage, cv=FOLDS, random_state=task.run.seed)
        conformal.fit_conformalize(columns.transform(task.X), task.y)
    else:
        X, y, X_kept, y_kept = task.parted()
        columns = into_numbers().fit(X)
        conformal = SplitConformalRegressor(model, task.coverage, prefit=False)
        conformal.fit(columns.transform(X), y).conformalize(columns.transform(X_kept), y_kept)

    def predict(X: pd.DataFrame) -> Array:
        rows = columns.transform(X)
        parts = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
        return np.concatenate([conformal.predict_interval(part)[1][:, :, 0] for part in parts])

    return Found({"": predict})


def tabular_intervals(task: Task, name: str, **options: Any) -> Found:
    """TabM or RealMLP, which take the table as it is."""
    from cydrop import tabular

    model = task.run.of(tabular, name, random_state=task.run.seed, n_threads=task.run.threads, **options)
    model.fit(task.X, task.y)
    return Found({"": lambda X: model.predict_interval(X, coverage=task.coverage)})


def cydrop_mlp_intervals(task: Task, **options: Any) -> Found:
    """The plain network, behind columns of numbers and a standardised target."""
    from cydrop import sklearn

    model = sklearn.MLPRegressor(random_state=task.run.seed, n_threads=task.run.threads, **options)
    columns = into_numbers().fit(task.X)
    mean, scale = task.y.mean(), task.y.std() or 1.0
    model.fit(columns.transform(task.X), (task.y - mean) / scale)
    return Found({"": lambda X: mean + scale * model.predict_interval(columns.transform(X), coverage=task.coverage)})


# Sets -------------------------------------------------------------------------------------------------------


def mapie_sets(task: Task, make: Callable[[Run], Any]) -> Found:
    """MAPIE's three scores around one classifier; of two classes it takes the first alone."""
    from mapie.classification import SplitConformalClassifier

    X, y, X_kept, y_kept = task.parted()
    model = make(task.run).fit(X, y)
    scores = ("lac", "aps", "raps") if task.n_classes > 2 else ("lac",)
    sets: dict[str, Predict] = {}
    for score in scores:
        conformal = SplitConformalClassifier(
            model, confidence_level=task.coverage, conformity_score=score, prefit=True, random_state=task.run.seed
        ).conformalize(X_kept, y_kept)
        sets[f".{score}"] = partial(_mapie_set, conformal)
    point = partial(_most_likely, model)
    return Found(sets, dict.fromkeys(sets, point))


def _mapie_set(conformal: Any, X: pd.DataFrame) -> Array:
    return np.asarray(conformal.predict_set(X)[1][:, :, 0], dtype=bool)


def _most_likely(model: Any, X: pd.DataFrame) -> Array:
    return np.argmax(np.asarray(model.predict_proba(X)), axis=1)


def sklearn_mlp(run: Run) -> Any:
    from sklearn.neural_network import MLPClassifier

    return behind_numbers(run, MLPClassifier(random_state=run.seed))


def lightgbm(run: Run) -> Any:
    import lightgbm

    return lightgbm.LGBMClassifier(random_state=run.seed, n_jobs=run.threads, verbose=-1)


def tabular_sets(task: Task, name: str, **options: Any) -> Found:
    from cydrop import tabular

    model = task.run.of(tabular, name, random_state=task.run.seed, n_threads=task.run.threads, **options)
    model.fit(task.X, task.y)
    return of_both_kinds(task, lambda X: X, model, partial(_most_likely, model))


def cydrop_mlp_sets(task: Task, **options: Any) -> Found:
    from cydrop import sklearn

    model = behind_numbers(
        task.run, sklearn.MLPClassifier(random_state=task.run.seed, n_threads=task.run.threads, **options)
    )
    model.fit(task.X, task.y)
    columns, network = model[:-1], model[-1]
    return of_both_kinds(task, columns.transform, network, partial(_most_likely, model))


def of_both_kinds(task: Task, prepared: Callable[[pd.DataFrame], Any], model: Any, point: Point) -> Found:
    """The sets of a classifier of cydrop's."""

    def sets(X: pd.DataFrame, kind: str) -> Array:
        return np.asarray(model.predict_set(prepared(X), coverage=task.coverage, kind=kind))

    found: dict[str, Predict] = {f".{kind}": partial(sets, kind=kind) for kind in ("adaptive", "smallest")}
    return Found(found, dict.fromkeys(found, point))


# Names that a report shows, in its order --------------------------------------------------------------------

MLP = "sklearn.compose", "sklearn.impute", "sklearn.neural_network", "sklearn.preprocessing"


def of_cydrop(train: Callable[..., Found], **options: Any) -> Method:
    return Method(partial(train, **options), ("cydrop", "numpy"), ("cydrop.tabular", "cydrop.sklearn", *MLP))


def of_mapie(train: Callable[..., Found], *packages: str, **options: Any) -> Method:
    modules = ("mapie.regression", "mapie.classification", *packages, *MLP)
    return Method(partial(train, **options), ("MAPIE", *packages, "scikit-learn"), modules)


def of_quantiles(fit: Callable[[Task, pd.DataFrame, Array], Predict], package: str, calibrated: bool) -> Method:
    return Method(partial(quantiles, fit=fit, calibrated=calibrated), (package,), (package.replace("-", "_"), *MLP))


INTERVALS = {
    "tabm-pinball": of_cydrop(tabular_intervals, name="TabM", loss="pinball", calibration_fraction=CALIBRATION),
    "tabm-pinball.own": of_cydrop(tabular_intervals, name="TabM", loss="pinball"),
    "tabm-pinball.cv": of_cydrop(tabular_intervals, name="TabM", loss="pinball", n_folds=FOLDS),
    "tabm-nll": of_cydrop(tabular_intervals, name="TabM", loss="gaussian_nll", calibration_fraction=CALIBRATION),
    "realmlp-pinball": of_cydrop(tabular_intervals, name="RealMLP", loss="pinball", calibration_fraction=CALIBRATION),
    "realmlp-pinball.own": of_cydrop(tabular_intervals, name="RealMLP", loss="pinball"),
    "realmlp-pinball.cv": of_cydrop(tabular_intervals, name="RealMLP", loss="pinball", n_folds=FOLDS),
    "realmlp-pinball.5": of_cydrop(
        tabular_intervals, name="RealMLP", loss="pinball", n_folds=FOLDS, calibration_fraction=CALIBRATION
    ),
    "realmlp-nll": of_cydrop(tabular_intervals, name="RealMLP", loss="gaussian_nll", calibration_fraction=CALIBRATION),
    "realmlp-mse": of_cydrop(tabular_intervals, name="RealMLP", loss="squared_error", calibration_fraction=CALIBRATION),
    "cydrop-mlp-pinball": of_cydrop(cydrop_mlp_intervals, loss="pinball", calibration_fraction=CALIBRATION),
    "lightgbm.quantiles": of_quantiles(lightgbm_ends, "lightgbm", calibrated=False),
    "lightgbm.cqr": of_quantiles(lightgbm_ends, "lightgbm", calibrated=True),
    "catboost.quantiles": of_quantiles(catboost_ends, "catboost", calibrated=False),
    "catboost.cqr": of_quantiles(catboost_ends, "catboost", calibrated=True),
    "forest.quantiles": of_quantiles(forest_ends, "quantile-forest", calibrated=False),
    "forest.cqr": of_quantiles(forest_ends, "quantile-forest", calibrated=True),
    "mapie-mlp.split": of_mapie(mapie_intervals, folds=False),
    "mapie-mlp.cv": of_mapie(mapie_intervals, folds=True),
}
SETS = {
    "tabm": of_cydrop(tabular_sets, name="TabM", calibration_fraction=CALIBRATION),
    "tabm.own": of_cydrop(tabular_sets, name="TabM"),
    "realmlp": of_cydrop(tabular_sets, name="RealMLP", calibration_fraction=CALIBRATION),
    "realmlp.own": of_cydrop(tabular_sets, name="RealMLP"),
    "realmlp.5": of_cydrop(tabular_sets, name="RealMLP", n_folds=FOLDS, calibration_fraction=CALIBRATION),
    "cydrop-mlp": of_cydrop(cydrop_mlp_sets, calibration_fraction=CALIBRATION),
    "mapie-mlp": of_mapie(mapie_sets, make=sklearn_mlp),
    "mapie-lightgbm": of_mapie(mapie_sets, "lightgbm", make=lightgbm),
}

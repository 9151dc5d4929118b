"""What bench/tables.py compares, and the process that does one run: a method on a split of a table.

    python bench/table_methods.py METHOD PATH SEED THREADS

prints one line of JSON. Every method has its library's defaults and gets the table in the way that its documentation
shows: columns of dtype category and missing cells as they are where it takes them. The rest:

* The two `MLP` of cydrop.sklearn and scikit-learn: the mean for a missing number, numbers standardised, categories as
  columns of 0 and 1, and the target of a regression standardised too.
* RealMLP of pytabkit and TabM of PyTorch take no missing number: here too the mean, and a category for each such
  column says where.
* CatBoost wants strings for categories; a missing one is "".

Seconds are those of `fit` and of the prediction of the test rows, the means and columns above included; imports and
reading are not. CPU seconds are of all threads and child processes.
"""

import functools
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import processor
from numpy.typing import NDArray
from table_data import Table, name_of, read_table

Array = NDArray[Any]


@dataclass(frozen=True)
class Run:
    """What a method may know before it sees rows."""

    classes: bool
    seed: int
    threads: int
    categories: list[str]  # names of the columns

    def of(self, module: Any, name: str, **options: Any) -> Any:
        """`name`Classifier or `name`Regressor of a module."""
        return getattr(module, name + ("Classifier" if self.classes else "Regressor"))(**options)


@dataclass(frozen=True)
class Method:
    make: Callable[[Run], Any]  # an estimator that takes a table's columns
    packages: tuple[str, ...]  # whose versions matter


# How each is made: imports inside, since no environment needs all libraries ------------------------------------


def real_mlp(run: Run, **options: Any) -> Any:
    from cydrop import tabular

    return run.of(tabular, "RealMLP", random_state=run.seed, n_threads=run.threads, **options)


def tab_m(run: Run) -> Any:
    from cydrop import tabular

    return run.of(tabular, "TabM", random_state=run.seed, n_threads=run.threads)


def cydrop_mlp(run: Run) -> Any:
    from cydrop import sklearn

    return behind_numbers(run, run.of(sklearn, "MLP", random_state=run.seed, n_threads=run.threads))


def sklearn_mlp(run: Run) -> Any:
    from sklearn import neural_network

    return behind_numbers(run, run.of(neural_network, "MLP", random_state=run.seed))


def hist_gb(run: Run) -> Any:
    from sklearn import ensemble

    return run.of(ensemble, "HistGradientBoosting", random_state=run.seed)


def lightgbm(run: Run) -> Any:
    import lightgbm

    return run.of(lightgbm, "LGBM", random_state=run.seed, n_jobs=run.threads, verbose=-1)


def catboost(run: Run) -> Any:
    import catboost
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    options = {"random_seed": run.seed, "thread_count": run.threads, "verbose": False, "allow_writing_files": False}
    model = run.of(catboost, "CatBoost", cat_features=run.categories, **options)
    return make_pipeline(FunctionTransformer(functools.partial(with_strings, names=run.categories)), model)


def real_mlp_of_pytabkit(run: Run, name: str) -> Any:
    import pytabkit
    import torch
    from sklearn.pipeline import make_pipeline

    torch.set_num_threads(run.threads)
    model = run.of(
        pytabkit, f"RealMLP_{name}_", device="cpu", n_threads=run.threads, random_state=run.seed, n_cv=1, n_refit=0
    )
    return make_pipeline(means_and_indicators(), model)


def tab_m_of_torch(run: Run) -> Any:
    import tabm_torch
    import torch
    from sklearn.pipeline import make_pipeline

    torch.set_num_threads(run.threads)
    return make_pipeline(means_and_indicators(), tabm_torch.TabM(run.classes, run.seed))


# Names that a report shows, in its order
METHODS = {
    "cydrop": Method(real_mlp, ("cydrop", "numpy")),
    "cydrop-4": Method(functools.partial(real_mlp, n_ensemble=4), ("cydrop", "numpy")),
    "cydrop-s": Method(functools.partial(real_mlp, small=True), ("cydrop", "numpy")),
    "tabm": Method(tab_m, ("cydrop", "numpy")),
    "tabm-torch": Method(tab_m_of_torch, ("tabm", "rtdl-num-embeddings", "torch")),
    "cydrop-mlp": Method(cydrop_mlp, ("cydrop", "numpy")),
    "sklearn-mlp": Method(sklearn_mlp, ("scikit-learn", "numpy")),
    "hist-gb": Method(hist_gb, ("scikit-learn",)),
    "lightgbm": Method(lightgbm, ("lightgbm",)),
    "catboost": Method(catboost, ("catboost",)),
    "realmlp-td": Method(functools.partial(real_mlp_of_pytabkit, name="TD"), ("pytabkit", "torch")),
    "realmlp-td-s": Method(functools.partial(real_mlp_of_pytabkit, name="TD_S"), ("pytabkit", "torch")),
}


def behind_numbers(run: Run, network: Any) -> Any:
    """The network behind the usual preparation: rows of numbers, and a standardised target."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(into_numbers(), network)
    return model if run.classes else TransformedTargetRegressor(model, transformer=StandardScaler())


def into_numbers() -> Any:
    """A transformer: standardised numbers, the mean for a missing one, and categories as columns of 0 and 1."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), make_column_selector(dtype_include="category")),
    )


def with_strings(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The columns of these names as strings, "" where one is missing."""
    return frame.assign(**{name: frame[name].astype(object).fillna("").astype(str) for name in names})


def means_and_indicators() -> Any:
    """A transformer: the mean of the training rows for a missing number, and a category that says where one was, for
    each column with such training rows."""
    from sklearn.base import BaseEstimator, TransformerMixin

    class MeansAndIndicators(TransformerMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: pd.DataFrame, y: Any = None) -> Any:
            numbers = X.select_dtypes("number")
            self.means_ = numbers.mean().fillna(0.0)
            self.marked_ = [name for name in numbers if numbers[name].isna().any()]
            return self

        def transform(self, X: pd.DataFrame) -> pd.DataFrame:
            marks = {f"{name} is missing": X[name].isna().astype(str).astype("category") for name in self.marked_}
            return X.fillna(dict(self.means_)).assign(**marks)

    return MeansAndIndicators()


# One run ----------------------------------------------------------------------------------------------------


def measured(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its wall and its CPU seconds."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    found = call()
    return found, time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Of all threads of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_memory() -> float:
    """The most memory that this process has had so far, in MiB."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # ru_maxrss would count the process that started this one
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def scores(table: Table, test: Array, predicted: Array, labels: Array | None) -> dict[str, float | None]:
    """Share of wrong classes and mean log-loss in nats of probabilities, or the RMSE of numbers."""
    truth = table.target[test]
    if labels is None:
        return {"error": float(np.sqrt(np.mean((np.asarray(predicted, dtype=np.float64).ravel() - truth) ** 2)))}
    places = {label: place for place, label in enumerate(labels)}
    own = np.array([places.get(label, -1) for label in truth])
    chances = np.where(own >= 0, predicted[np.arange(len(own)), own], 0.0).astype(np.float64)
    return {
        "error": float(np.mean(np.argmax(predicted, axis=1) != own)),
        "log_loss": float(-np.mean(np.log(np.maximum(chances, 1e-15)))),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def work(name: str, path: Path, seed: int, threads: int) -> dict[str, Any]:
    """Trains a method on the training rows of a split and judges it by the test rows."""
    table, method = read_table(path), METHODS[name]
    train, test = table.split(seed)
    rows = table.frame.iloc[train].reset_index(drop=True), table.frame.iloc[test].reset_index(drop=True)
    model = method.make(Run(table.classes, seed, threads, list(table.frame.select_dtypes("category"))))
    before = peak_memory()
    _, fit_wall, fit_cpu = measured(lambda: model.fit(rows[0], table.target[train]))
    predict = model.predict_proba if table.classes else model.predict
    predicted, predict_wall, predict_cpu = measured(lambda: predict(rows[1]))
    return {
        "table": name_of(path), "seed": seed, "method": name, "threads": threads,
        **scores(table, test, predicted, np.asarray(model.classes_) if table.classes else None),
        "fit_cpu": fit_cpu, "predict_cpu": predict_cpu, "fit_wall": fit_wall, "predict_wall": predict_wall,
        "memory": peak_memory(), "memory_before": before,
        "classes": table.classes, "train_rows": len(train), "test_rows": len(test), "columns": table.frame.shape[1],
        "split": zlib.crc32(np.ascontiguousarray(test, dtype=np.int64).tobytes()),
        "machine": processor(), "versions": versions(method.packages),
    }  # fmt: skip


def main() -> None:
    name, path, seed, threads = sys.argv[1:]
    line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the lines of JSON
    warnings.simplefilter("ignore")
    found = work(name, Path(path), int(seed), int(threads))
    print(json.dumps(found), file=line, flush=True)


if __name__ == "__main__":
    main()

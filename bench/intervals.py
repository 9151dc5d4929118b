"""Prediction intervals and sets compared: coverage, size, interval score and CPU seconds, on tables of numbers and of
classes.

    python bench/intervals.py FOLDER... [--json FILE] [--only METHOD,...] [--tables NAME,...] [--splits 10]
                              [--most 10000] [--coverage 0.9] [--threads 1]
    python bench/intervals.py --report --json FILE [--only METHOD,...] [--tables NAME,...]

bench/table_data.py says what the folders hold, bench/interval_methods.py what the methods are; one whose package is
missing is left out. A split is a fifth of the rows drawn for the test (of each class alike), the same for all methods,
which get its number as their seed; published splits are not used. At most --most of the other rows train: the report
says where that left some out. A table whose target is a class is for sets, the others are for intervals.

Widths and interval scores (Gneiting and Raftery 2007) are in units of the standard deviation of the training rows'
targets, each a mean over the splits and its standard error. Seconds are CPU seconds of training and of the prediction
of the test rows. With --json each run is a line of that file, and runs that it has already are left out.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from interval_methods import INTERVALS, SETS, Found, Method, Task
from interval_report import report
from machine import processor
from numpy.typing import NDArray
from table_data import Table, is_table, name_of, read_table
from table_methods import Run, measured, versions
from tables import append_run, read_runs

import cydrop as cd

Array = NDArray[Any]
Key = tuple[Any, ...]

METHODS = INTERVALS | SETS


def key_of(run: dict[str, Any]) -> Key:
    return tuple(run[name] for name in ("table", "split", "method", "most", "coverage", "threads"))


@dataclass(frozen=True)
class Settings:
    splits: int
    most: int
    coverage: float
    threads: int

    def key(self, table: str, split: int, method: str) -> Key:
        return table, split, method, self.most, self.coverage, self.threads


def methods_of(table: Table) -> dict[str, Method]:
    return SETS if table.classes else INTERVALS


def one_run(table: Table, split: int, method: str, settings: Settings) -> dict[str, Any]:
    """Trains a method on the training rows of a split and judges what it predicts for the test rows."""
    train, test = replace(table, published=[]).split(split)
    left_out = max(0, len(train) - settings.most)
    train = train[: settings.most]
    target = np.unique(table.target, return_inverse=True)[1] if table.classes else table.target
    X, X_test = (table.frame.iloc[rows].reset_index(drop=True) for rows in (train, test))
    run = Run(table.classes, split, settings.threads, list(table.frame.select_dtypes("category")))
    task, which = Task(run, X, target[train], settings.coverage), methods_of(table)[method]
    found, fit_wall, fit_cpu = measured(lambda: which.train(task))
    results = {}
    for name, predict in found.predict.items():
        predicted, wall, cpu = measured(lambda predict=predict: predict(X_test))
        if table.classes:
            scores = scores_of_sets(found, name, X_test, target[test], predicted)
        else:
            scores = scores_of_intervals(target[test], predicted, target[train].std(), settings.coverage)
        results[name] = scores | {"seconds": fit_cpu + cpu, "wall": fit_wall + wall}
    return {
        "table": table.name, "split": split, "method": method, "most": settings.most,
        "coverage": settings.coverage, "threads": settings.threads, "results": results,
        "classes": table.classes, "train_rows": len(train), "left_out": left_out, "test_rows": len(test),
        "machine": processor(), "versions": versions(which.packages),
    }  # fmt: skip


def scores_of_intervals(y: Array, intervals: Array, unit: float, coverage: float) -> dict[str, float]:
    y, intervals = y / unit, np.asarray(intervals, dtype=np.float64) / unit
    return {
        "covered": cd.metrics.coverage(y, intervals),
        "size": cd.metrics.width(intervals),
        "score": cd.metrics.interval_score(y, intervals, coverage),
    }


def scores_of_sets(found: Found, name: str, X: Any, y: Array, sets: Array) -> dict[str, float]:
    assert found.points is not None
    return {
        "covered": cd.metrics.coverage(y, sets),
        "size": cd.metrics.width(sets),
        "empty": float(np.mean(~np.any(sets, axis=1))),
        "accuracy": float(np.mean(found.points[name](X) == y)),
    }


def usable(methods: list[str]) -> list[str]:
    """Those whose packages are there; says which are not."""
    found = []
    for name in methods:
        missing = METHODS[name].missing()
        if missing:
            print(f"{name} is left out: {' and '.join(missing)} cannot be imported", flush=True)
        else:
            found.append(name)
    return found


def jobs(tables: list[Table], methods: list[str], splits: int) -> Iterator[tuple[Table, int, str]]:
    """The first split of all tables before the second of any, small tables first: a stopped bench has all tables."""
    ordered = sorted(tables, key=lambda table: len(table.target))
    for split in range(splits):
        for table in ordered:
            for method in methods:
                if method in methods_of(table):
                    yield table, split, method


def run_all(tables: list[Table], methods: list[str], settings: Settings, file: Path | None) -> list[dict[str, Any]]:
    """All runs, those of the file among them; what fails is said, and left out."""
    runs = {key_of(run): run for run in (read_runs(file, key=key_of) if file and file.exists() else [])}
    left = [
        (table, split, method)
        for table, split, method in jobs(tables, methods, settings.splits)
        if settings.key(table.name, split, method) not in runs
    ]
    for number, (table, split, method) in enumerate(left, 1):
        title = f"{number:>4}/{len(left)}  {table.name:<28}{split:>3}  {method:<20}"
        try:
            run = one_run(table, split, method, settings)
        except Exception as error:  # of any library: the other methods go on
            print(f"{title}failed: {type(error).__name__}: {error}", flush=True)
            continue
        runs[key_of(run)] = run
        if file:
            append_run(file, run)
        for name, scores in run["results"].items():
            figure = scores["size" if table.classes else "score"]
            print(f"{title}{name:<6}{scores['covered']:>7.3f}{figure:>9.4g}{scores['seconds']:>9.2f} s", flush=True)
    names = {table.name for table in tables}
    return [
        run
        for run in runs.values()
        if run["table"] in names
        and run["method"] in methods
        and run["split"] < settings.splits
        and key_of(run) == settings.key(run["table"], run["split"], run["method"])
    ]


def parsed(arguments: list[str] | None = None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description="Prediction intervals and sets compared.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE", help="lines of JSON that runs are appended to")
    parser.add_argument("--report", action="store_true", help="print what the file holds")
    parser.add_argument("--only", type=names, metavar="METHOD,...", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--tables", type=names, metavar="NAME,...", help="these tables alone")
    parser.add_argument("--splits", type=int, default=10, metavar="N")
    parser.add_argument("--most", type=int, default=10_000, metavar="N", help="training rows, of larger tables")
    parser.add_argument("--coverage", type=float, default=0.9, metavar="SHARE", help="that is asked for")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each method")
    return parser, parser.parse_args(arguments)


def main() -> None:
    parser, given = parsed()
    for name in ("splits", "most", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    if not 0 < given.coverage < 1:
        parser.error(f"--coverage must be between 0 and 1, got {given.coverage}")
    chosen = given.only or list(METHODS)
    for method in chosen:
        if method not in METHODS:
            parser.error(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    if given.report:
        if given.json is None:
            parser.error("--report needs --json")
        runs = read_runs(given.json, key=key_of)
        report([r for r in runs if r["method"] in chosen and (not given.tables or r["table"] in given.tables)], METHODS)
        return
    if not given.folders:
        parser.error("needs folders with tables, or --report")
    paths = {name_of(path): path for folder in given.folders for path in sorted(folder.iterdir()) if is_table(path)}
    unknown = set(given.tables or ()) - set(paths)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))} in these folders")
    tables = [read_table(path) for name, path in paths.items() if not given.tables or name in given.tables]
    settings = Settings(given.splits, given.most, given.coverage, given.threads)
    methods = usable(chosen)
    with warnings.catch_warnings(), limited(given.threads):
        warnings.simplefilter("ignore")
        runs = run_all(tables, methods, settings, given.json)
    report(runs, METHODS)


def limited(threads: int) -> Any:
    """No more threads of BLAS and OpenMP than this, for libraries that have no option for it."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads)


if __name__ == "__main__":
    sys.exit(main())

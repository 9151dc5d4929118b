"""What bench/tables.py found, as text and as a picture.

An error is the share of wrong classes in per cent, or the RMSE in units of the target; log-loss is in nats; "±" is the
standard error over the splits. Two methods are compared on the splits that both have. The last table has the tables and
splits that all methods have: means over splits, then sums, geometric means and ranks over tables.

The ratio of two errors is that of their means; its standard error comes from their differences, split by split.
"worse" is a ratio above 1.05 by more than its standard error, "better" one below 1 / 1.05 by as much; a single split is
neither. Where no row of any split is wrong, half a row counts as wrong, or one row could be infinitely worse.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from table_methods import METHODS

Run = dict[str, Any]
Array = NDArray[Any]

TOLERATED = 1.05  # ratio of errors
BLOCK = 4  # methods side by side
NAME, CELL = 27, 21  # characters


@dataclass(frozen=True)
class Ratio:
    value: float
    spread: float  # standard error, NaN for one split

    @property
    def word(self) -> str:
        if self.value - self.spread > TOLERATED:
            return "worse"
        return "better" if self.value + self.spread < 1 / TOLERATED else ""

    def __str__(self) -> str:
        spread = "" if math.isnan(self.spread) else f" ± {self.spread:.3f}"
        return f"{self.value:.3f}{spread} {self.word:<6}"


class Results:
    """Runs by table, method and seed. ValueError where two runs of one seed had different splits."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs: dict[tuple[str, str], dict[int, Run]] = {}
        of_table: dict[tuple[str, int], Run] = {}
        order: dict[str, tuple[int, int]] = {}
        for run in runs:
            first = of_table.setdefault((run["table"], run["seed"]), run)
            if run["split"] != first["split"]:
                methods = f"{first['method']} and {run['method']}"
                raise ValueError(f"{run['table']}, seed {run['seed']}: {methods} were tested on different rows")
            method = run["method"] if run["threads"] == 1 else f"{run['method']} x{run['threads']}"
            order[method] = [*METHODS].index(run["method"]), run["threads"]
            self.runs.setdefault((run["table"], method), {})[run["seed"]] = run
        self.tables = sorted({table for table, _ in of_table}, key=str.lower)
        self.methods = sorted(order, key=order.__getitem__)
        self.classes = {table: run["classes"] for (table, _), run in of_table.items()}
        self.test_rows = {key: run["test_rows"] for key, run in of_table.items()}

    def seeds(self, table: str, *methods: str) -> list[int]:
        """Those that all of the methods have run."""
        return sorted(set.intersection(*(set(self.runs.get((table, method), {})) for method in methods)))

    def values(self, table: str, method: str, field: str, seeds: list[int]) -> Array:
        """A figure for each split."""
        values = np.array([self.runs[table, method][seed][field] for seed in seeds])
        if field == "error" and self.classes[table] and not values.any():
            values[:] = 0.5 / sum(self.test_rows[table, seed] for seed in seeds)
        return values

    def ratio(self, table: str, method: str, other: str, field: str = "error") -> Ratio | None:
        """None if they have no split in common."""
        seeds = self.seeds(table, method, other)
        if not seeds:
            return None
        ours, theirs = (self.values(table, name, field, seeds) for name in (method, other))
        value = ours.mean() / theirs.mean()
        differences = ours - value * theirs  # what the ratio's error comes from, to first order
        return Ratio(float(value), standard_error(differences) / float(theirs.mean()))

    def shared(self, field: str = "error", classes: bool = False) -> tuple[list[str], Array]:
        """The tables that all methods have run, or those of them with classes, and the means of a figure over their
        splits in common: shape (tables, methods)."""
        seeds = {table: self.seeds(table, *self.methods) for table in self.tables}
        tables = [table for table in self.tables if seeds[table] and (self.classes[table] or not classes)]
        means = [[self.values(table, m, field, seeds[table]).mean() for m in self.methods] for table in tables]
        return tables, np.array(means).reshape(len(tables), len(self.methods))


def standard_error(values: Array) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def geometric_mean(values: Array) -> Any:
    """Along the first axis; NaN of none."""
    with np.errstate(divide="ignore"):
        return np.exp(np.mean(np.log(values), axis=0)) if len(values) else np.full(values.shape[1:], np.nan)[()]


def ranks(errors: Array) -> Array:
    """1 for the least; equal ones share the mean of their places."""
    return np.array([np.sum(errors < error) + (np.sum(errors == error) + 1) / 2 for error in errors])


# Text -------------------------------------------------------------------------------------------------------


def report(runs: list[Run], against: str, picture: Path | None = None) -> None:
    """Prints all tables, and draws the picture if it has a path."""
    if not runs:
        print("no runs")
        return
    results = Results(runs)
    for line in lines(results, against):
        print(line.rstrip())
    if picture is not None:
        draw(results, picture)


def lines(results: Results, against: str) -> Iterator[str]:
    yield from circumstances(results)
    yield from figures(results, "error")
    yield from figures(results, "log_loss")
    if against in results.methods:
        yield from ratios(results, against)
    yield from summary(results, against)


def circumstances(results: Results) -> Iterator[str]:
    runs = [run for by_seed in results.runs.values() for run in by_seed.values()]
    jobs = sorted({run.get("jobs", 1) for run in runs})
    yield f"{len(runs)} runs of {len(results.methods)} methods on {len(results.tables)} tables"
    machines = sorted({run["machine"] for run in runs})
    yield f"machine: {', '.join(machines)}; runs at once: {', '.join(map(str, jobs))}"
    if len(machines) > 1 or len(jobs) > 1:
        yield "not all of them under the same conditions: their seconds cannot be compared"
    versions = sorted({f"{name} {version}" for run in runs for name, version in run["versions"].items()})
    yield f"versions: {', '.join(versions)}"
    for method in results.methods:
        absent = [table for table in results.tables if (table, method) not in results.runs]
        if absent:
            yield f"not run with {method}: {', '.join(absent)}"


def in_blocks(methods: list[str], title: str, rows: Iterable[tuple[str, dict[str, str]]]) -> Iterator[str]:
    """A table of a cell a method, not too wide."""
    rows = list(rows)
    for start in range(0, len(methods), BLOCK):
        shown = methods[start : start + BLOCK]
        yield ""
        yield f"{title:<{NAME}}" + "".join(f"{method:>{CELL}}" for method in shown)
        for name, cells in rows:
            yield f"{name:<{NAME}}" + "".join(f"{cells.get(method, '-'):>{CELL}}" for method in shown)


def figures(results: Results, field: str) -> Iterator[str]:
    """Means over all splits that a method has run."""
    rows = []
    for table in results.tables:
        if field == "log_loss" and not results.classes[table]:
            continue
        cells = {}
        for method in results.methods:
            by_seed = results.runs.get((table, method), {})
            if by_seed:
                unit = 100.0 if field == "error" and results.classes[table] else 1.0
                found = unit * np.array([run[field] for run in by_seed.values()])
                spread = standard_error(found)
                cells[method] = f"{found.mean():.4g}" + ("" if math.isnan(spread) else f" ± {spread:.2g}")
        rows.append((f"{table}, %" if field == "error" and results.classes[table] else table, cells))
    if rows:
        yield from in_blocks(results.methods, field.replace("_", "-"), rows)


def ratios(results: Results, against: str) -> Iterator[str]:
    methods = [method for method in results.methods if method != against]
    found = {m: {t: ratio for t in results.tables if (ratio := results.ratio(t, m, against))} for m in methods}
    rows = [
        (table, {method: str(found[method][table]) for method in methods if table in found[method]})
        for table in results.tables
    ]
    means, worse, better = {}, {}, {}
    for method, by_table in found.items():
        if by_table:
            means[method] = f"{geometric_mean(np.array([ratio.value for ratio in by_table.values()])):.3f}" + " " * 7
            words = [ratio.word for ratio in by_table.values()]
            worse[method], better[method] = (f"{words.count(w)} of {len(words)}" for w in ("worse", "better"))
    rows += [("geometric mean", means), ("worse", worse), ("better", better)]
    yield from in_blocks(methods, f"error / {against}", rows)


def summary(results: Results, against: str) -> Iterator[str]:
    tables, errors = results.shared()
    yield ""
    if not tables:
        yield "no table and split has been run with all methods"
        return
    yield f"tables with splits that all methods have: {len(tables)} (ratios: geometric means; seconds: sums)"
    rows = [("mean rank", np.mean([ranks(row) for row in errors], axis=0), ".2f")]
    for name, field in (
        ("error", "error"),
        ("log-loss", "log_loss"),
        ("fit, CPU s", "fit_cpu"),
        ("fit, s", "fit_wall"),
    ):
        means = results.shared(field, classes=field == "log_loss")[1]
        if against in results.methods and len(means):
            to = means[:, [results.methods.index(against)]]
            rows.append((f"{name} / {against}", geometric_mean(means / to), ".3f"))
    for name, field in (("fit, CPU s", "fit_cpu"), ("fit, s", "fit_wall"), ("predict, CPU s", "predict_cpu")):
        rows.append((name, results.shared(field)[1].sum(axis=0), ".2f"))
    for name, field in (("peak memory, MiB", "memory"), ("  of it before the fit", "memory_before")):
        rows.append((name, results.shared(field)[1].max(axis=0), ".0f"))
    cells = [
        (name, {method: format(value, form) for method, value in zip(results.methods, values, strict=True)})
        for name, values, form in rows
    ]
    yield from in_blocks(results.methods, "", cells)


# Picture ----------------------------------------------------------------------------------------------------


def draw(results: Results, path: Path) -> None:
    """A point a method: error, relative to the best of each table, against CPU seconds of a fit; geometric means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tables, errors = results.shared()
    if not tables:
        print("no picture: no table and split has been run with all methods")
        return
    relative = geometric_mean(errors / errors.min(axis=1, keepdims=True))
    seconds = geometric_mean(results.shared("fit_cpu")[1])
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    middle = math.sqrt(seconds.min() * seconds.max())
    for method, x, y in zip(results.methods, seconds, relative, strict=True):
        ours, right = method.startswith("cydrop"), x > middle  # names are written inwards
        above = any(1 / 3 < x / x2 < 3 and 0 < y - y2 < 0.06 for x2, y2 in zip(seconds, relative, strict=True))
        axes.scatter(x, y, s=60, color="#c8553d" if ours else "#4a6a8a", zorder=3)
        axes.annotate(method, (x, y), (-6 if right else 6, 6 if above else -12), textcoords="offset points",
                      fontsize=10, ha="right" if right else "left",
                      fontweight="bold" if ours else "normal")  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.1)
    axes.grid(alpha=0.3)
    axes.set_xlabel("CPU seconds of a fit, geometric mean, log scale")
    axes.set_ylabel("error / the least of the table")
    axes.set_title(f"{len(tables)} tables, one point a method: lower left is better", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)

"""What bench/intervals.py found, as text: the methods of each table, and the figures to compare, side by side."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Runs = list[dict[str, Any]]
Figures = dict[str, dict[str, Array]]  # method -> figure -> one for each split


def report(runs: Runs, order: Iterable[str]) -> None:
    """Prints all; methods in this order."""
    if not runs:
        print("there are no runs")
        return
    order = list(order)
    for settings in sorted({(run["coverage"], run["most"], run["threads"]) for run in runs}):
        own = [run for run in runs if (run["coverage"], run["most"], run["threads"]) == settings]
        coverage, most, threads = settings
        print(f"\ncoverage {coverage:g} asked for, at most {most:,} training rows, threads: {threads}")
        print(f"on {', '.join(sorted({run['machine'] for run in own}))}")
        print(f"with {', '.join(sorted({f'{name} {v}' for run in own for name, v in run['versions'].items()}))}")
        for classes in (False, True):
            kind = [run for run in own if run["classes"] == classes]
            if kind:
                _of_tables(kind, classes, order)


def _of_tables(runs: Runs, classes: bool, order: list[str]) -> None:
    names = sorted({run["table"] for run in runs})
    found = {name: figures([run for run in runs if run["table"] == name], order) for name in names}
    for name in names:
        own = [run for run in runs if run["table"] == name]
        print(f"\n{name}: {_rows(own)}")
        of_table(found[name], classes)
    methods = list(figures(runs, order))
    compared = "size" if classes else "score"
    print(f"\n{'mean size of the sets' if classes else 'interval score'} by table; the last line: mean rank, of those")
    print("methods that ran on all of the tables")
    side_by_side(found, compared, methods)
    print("\ncoverage by table; the last line: mean of the tables")
    side_by_side(found, "covered", methods)


def figures(runs: Runs, order: list[str]) -> Figures:
    """One figure for each split, by method; a method with several kinds of sets is several."""
    found: Figures = {}
    for run in sorted(runs, key=lambda run: (order.index(run["method"]), run["split"])):
        for name, scores in run["results"].items():
            lists = found.setdefault(run["method"] + name, {})
            for figure, value in scores.items():
                lists[figure] = np.append(lists.get(figure, np.empty(0)), value)
    return found


def of_table(found: Figures, classes: bool) -> None:
    header = "accuracy   empty" if classes else "interval score"
    print(f"{'':<22}{'splits':>6}  {'coverage':<14}{'size' if classes else 'width':<16}{header:<18}{'seconds':>9}")
    for method, own in found.items():
        last = (
            f"{own['accuracy'].mean():<11.3f}{own['empty'].mean():<7.3f}"
            if classes
            else f"{with_error(own['score'], 3):<18}"
        )
        print(
            f"{method:<22}{len(own['covered']):>6}  {with_error(own['covered'], 3):<14}{with_error(own['size'], 3):<16}"
            f"{last}{own['seconds'].mean():>9.2f}"
        )


def side_by_side(found: dict[str, Figures], figure: str, methods: list[str]) -> None:
    """A line for each method, a column for each table; then how it does on all of them."""
    means = np.array(
        [[own[method][figure].mean() if method in own else np.nan for own in found.values()] for method in methods]
    )
    everywhere = ~np.isnan(means).any(axis=1)
    summary = np.full(len(methods), np.nan)
    if figure == "covered":
        summary[everywhere] = means[everywhere].mean(axis=1)
    elif everywhere.any():
        summary[everywhere] = ranks(means[everywhere]).mean(axis=1)
    names = [name[:8] for name in found]
    print(f"{'':<22}" + "".join(f"{name:>9}" for name in [*names, "all"]))
    for method, row, last in zip(methods, means, summary, strict=True):
        cells = "".join(f"{value:>9.3f}" if np.isfinite(value) else f"{_shown(value):>9}" for value in [*row, last])
        print(f"{method:<22}{cells}")


def ranks(figures: Array) -> Array:
    """Of each column: 1 is the least; equal ones share."""
    below = (figures[None] < figures[:, None]).sum(axis=1)
    equal = (figures[None] == figures[:, None]).sum(axis=1)
    return below + (equal + 1) / 2


def with_error(values: Array, digits: int) -> str:
    """The mean and, of several, its standard error."""
    if len(values) < 2 or not np.isfinite(values).all():
        return f"{values.mean():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}"


def _rows(runs: Runs) -> str:
    rows = sorted({run["train_rows"] for run in runs})
    left = max(run["left_out"] for run in runs)
    text = f"{' or '.join(f'{count:,}' for count in rows)} training rows"
    return text + (f", {left:,} more left out" if left else "")


def _shown(value: float) -> str:
    return "" if np.isnan(value) else "inf"

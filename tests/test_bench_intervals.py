"""bench/intervals.py: margins and scores are right, all methods get the same rows, and a stopped bench goes on."""

import gzip
import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cydrop as cd

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of the folder."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture
def settings(bench):
    return bench("intervals").Settings(splits=2, most=1000, coverage=0.8, threads=1)


@pytest.fixture
def line(bench, rng):
    """A table of numbers: y is x and noise."""
    x = rng.uniform(0, 1, 500)
    table = bench("table_data").Table
    return table("line", pd.DataFrame({"x": x}), 10 * x + rng.standard_normal(500), False)


@pytest.fixture
def colours(bench, rng):
    """A table of three classes, with a column of text and missing numbers."""
    label = rng.integers(0, 3, 600)
    x = np.where(rng.random(600) < 0.1, np.nan, label + 0.6 * rng.standard_normal(600))
    side = pd.Categorical(np.where(label + rng.standard_normal(600) > 1, "right", "left"))
    names = np.array(["blue", "green", "red"])[label]
    return bench("table_data").Table("colours", pd.DataFrame({"x": x, "side": side}), names, True)


@pytest.fixture
def method(bench, monkeypatch):
    """Puts a way to intervals among the methods, under the name "own"."""

    def put(train, modules=("numpy",)):
        one = bench("interval_methods").Method(train, ("numpy",), modules)
        for kind in (bench("intervals").INTERVALS, bench("intervals").METHODS):
            monkeypatch.setitem(kind, "own", one)

    return put


def between(bench, low, high):
    """A method whose intervals are the same for all rows."""
    found = bench("interval_methods").Found
    return lambda task: found({"": lambda X: np.tile([float(low), float(high)], (len(X), 1))})


# Methods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "coverage", "place"), [(9, 0.9, 9), (99, 0.9, 90), (100, 0.9, 91), (19, 0.95, 19), (8, 0.9, None)]
)
def test_the_margin_is_the_score_of_its_place(bench, count, coverage, place, rng):
    scores = rng.permutation(np.arange(1.0, count + 1))
    expected = np.inf if place is None else place
    assert bench("interval_methods").conformal_quantile(scores, coverage) == expected


def task_of(bench, table, coverage=0.8, seed=0):
    run = bench("table_methods").Run(table.classes, seed, 1, list(table.frame.select_dtypes("category")))
    target = np.unique(table.target, return_inverse=True)[1] if table.classes else table.target
    return bench("interval_methods").Task(run, table.frame, target, coverage)


@pytest.mark.parametrize("width", [0.1, 9.0])
def test_conformalised_quantiles_cover_the_rows_that_were_kept(bench, line, width):
    """Ends that are too narrow and too wide, and in the wrong order."""
    methods, task, seen = bench("interval_methods"), task_of(bench, line), []

    def fit(task, X, y):
        seen.append(y)
        return lambda X: np.column_stack([10 * X["x"] + width / 2, 10 * X["x"] - width / 2])

    found = methods.quantiles(task, fit, calibrated=True).predict[""]
    X, y, X_kept, y_kept = task.parted()
    np.testing.assert_array_equal(seen[0], y)
    assert len(y_kept) == len(line.target) / 5
    place = np.ceil(101 * task.coverage)
    assert cd.metrics.coverage(y_kept, found(X_kept)) == place / 100
    assert cd.metrics.width(found(X)) == pytest.approx(cd.metrics.width(found(X_kept)))
    raw = methods.quantiles(task, fit, calibrated=False).predict[""]
    np.testing.assert_array_equal(seen[1], task.y)
    assert cd.metrics.width(raw(X)) == pytest.approx(width)


@pytest.mark.parametrize("folds", [False, True])
def test_intervals_of_mapie_cover_new_rows(bench, line, folds):
    train, test = line.split(0)
    part = bench("table_data").Table("part", line.frame.iloc[train], line.target[train], False)
    found = bench("interval_methods").mapie_intervals(task_of(bench, part), folds).predict[""]
    intervals = found(line.frame.iloc[test])
    assert intervals.shape == (100, 2)
    assert abs(cd.metrics.coverage(line.target[test], intervals) - 0.8) < 0.15


def test_sets_of_mapie_come_of_one_network(bench, colours, settings):
    run = bench("intervals").one_run(colours, 0, "mapie-mlp", settings)
    assert list(run["results"]) == [".lac", ".aps", ".raps"]
    for scores in run["results"].values():
        assert scores["covered"] > 0.65
        assert 0 < scores["size"] <= 3
        assert scores["accuracy"] == run["results"][".lac"]["accuracy"] > 0.5
    assert run["results"][".aps"]["empty"] == 0


def test_of_two_classes_mapie_has_one_score(bench, colours, settings):
    two = colours.target != "red"
    table = bench("table_data").Table("two", colours.frame[two], colours.target[two], True)
    assert list(bench("intervals").one_run(table, 0, "mapie-mlp", settings)["results"]) == [".lac"]


# Runs -------------------------------------------------------------------------------------------------------


def test_figures_are_in_units_of_the_training_targets(bench, line, settings, method):
    train, test = line.split(0)
    unit = line.target[train].std()
    method(between(bench, 2, 8))
    found = bench("intervals").one_run(line, 0, "own", settings)["results"][""]
    inside = (line.target[test] >= 2) & (line.target[test] <= 8)
    assert found["covered"] == inside.mean()
    assert found["size"] == pytest.approx(6 / unit)
    missed = np.maximum(2 - line.target[test], 0) + np.maximum(line.target[test] - 8, 0)
    assert found["score"] == pytest.approx((6 + 2 / 0.2 * missed.mean()) / unit)


def test_published_splits_are_not_used_and_large_tables_are_capped(bench, line, settings, method):
    seen = []

    def train(task):
        seen.append(task.y)
        return between(bench, 0, 1)(task)

    method(train)
    line.published = [(np.arange(10), np.arange(10, 20))]
    bench("intervals").one_run(line, 0, "own", settings)
    line.published = []
    rows, _ = line.split(0)
    np.testing.assert_array_equal(seen[0], line.target[rows])
    capped = bench("intervals").Settings(splits=1, most=30, coverage=0.8, threads=1)
    run = bench("intervals").one_run(line, 0, "own", capped)
    np.testing.assert_array_equal(seen[1], line.target[rows[:30]])
    assert (run["train_rows"], run["left_out"], run["test_rows"]) == (30, 370, 100)


def test_a_stopped_bench_goes_on(bench, line, settings, method, tmp_path, capsys):
    intervals, splits = bench("intervals"), []

    def train(task):
        splits.append(task.run.seed)
        if len(splits) == 2:
            raise KeyboardInterrupt
        return between(bench, 2, 8)(task)

    method(train)
    with pytest.raises(KeyboardInterrupt):
        intervals.run_all([line], ["own"], settings, tmp_path / "runs.jsonl")
    runs = intervals.run_all([line], ["own"], settings, tmp_path / "runs.jsonl")
    assert splits == [0, 1, 1]
    assert [run["split"] for run in runs] == [0, 1]
    other = intervals.Settings(splits=1, most=1000, coverage=0.9, threads=1)
    assert len(intervals.run_all([line], ["own"], other, tmp_path / "runs.jsonl")) == 1
    assert splits == [0, 1, 1, 0]
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 3


def test_a_method_that_fails_is_said_and_left_out(bench, line, settings, method, capsys):
    def train(task):
        raise ValueError("too few rows")

    method(train)
    assert bench("intervals").run_all([line], ["own"], settings, None) == []
    assert "failed: ValueError: too few rows" in capsys.readouterr().out


def test_a_method_without_its_package_is_said_and_left_out(bench, method, capsys):
    method(between(bench, 0, 1), modules=("numpy", "no_such_package"))
    assert bench("intervals").usable(["own", "mapie-mlp"]) == ["mapie-mlp"]
    assert "own is left out: no_such_package cannot be imported" in capsys.readouterr().out


def test_small_tables_come_first_and_all_of_them_before_the_next_split(bench, line, colours):
    found = bench("intervals").jobs([colours, line], ["mapie-mlp", "mapie-mlp.cv"], 2)
    assert [(table.name, split, method) for table, split, method in found] == [
        ("line", 0, "mapie-mlp.cv"), ("colours", 0, "mapie-mlp"),
        ("line", 1, "mapie-mlp.cv"), ("colours", 1, "mapie-mlp"),
    ]  # fmt: skip


# Report -----------------------------------------------------------------------------------------------------


def recorded(method, table, scores, classes=False, left_out=0):
    """Runs with these interval scores (of sets: these sizes), a split each."""
    return [
        {
            "table": table, "split": split, "method": method, "most": 1000, "coverage": 0.9, "threads": 1,
            "classes": classes, "train_rows": 80, "left_out": left_out, "test_rows": 20,
            "machine": "a", "versions": {"numpy": "2"},
            "results": {"": {"covered": 0.9, "size": score, "score": score, "seconds": 1.0}
                        | ({"accuracy": 0.7, "empty": 0.0} if classes else {})},
        }
        for split, score in enumerate(scores)
    ]  # fmt: skip


def test_the_report_has_means_and_standard_errors(bench, capsys):
    runs = recorded("tabm-nll", "line", [1.0, 2.0, 3.0], left_out=400) + recorded("forest.cqr", "line", [2.5])
    bench("interval_report").report(runs, bench("intervals").METHODS)
    text = capsys.readouterr().out
    assert "line: 80 training rows, 400 more left out" in text
    assert f"2.000 ± {1 / 3**0.5:.3f}" in text
    forest = next(row for row in text.splitlines() if row.startswith("forest.cqr"))
    assert forest.split()[1:4] == ["1", "0.900", "2.500"]


def test_the_report_ranks_methods_that_ran_everywhere(bench, capsys):
    runs = [
        *recorded("tabm-nll", "line", [1.0]), *recorded("tabm-nll", "plane", [3.0]),
        *recorded("forest.cqr", "line", [2.0]), *recorded("forest.cqr", "plane", [1.0]),
        *recorded("lightgbm.cqr", "plane", [0.5]),
    ]  # fmt: skip
    bench("interval_report").report(runs, bench("intervals").METHODS)
    text = capsys.readouterr().out
    lines = text[text.index("interval score by table") :].splitlines()
    found = {line.split()[0]: line.split()[1:] for line in lines[2:6]}
    assert found == {
        "line": ["plane", "all"],
        "tabm-nll": ["1.000", "3.000", "1.500"],
        "lightgbm.cqr": ["0.500"],
        "forest.cqr": ["2.000", "1.000", "1.500"],
    }


def test_the_report_of_sets_has_the_accuracy_beside(bench, capsys):
    bench("interval_report").report(recorded("tabm", "colours", [1.2, 1.4], classes=True), bench("intervals").METHODS)
    text = capsys.readouterr().out
    assert next(row for row in text.splitlines() if row.startswith("tabm")).split() == [
        "tabm", "2", "0.900", "±", "0.000", "1.300", "±", "0.100", "0.700", "0.000", "1.00",
    ]  # fmt: skip


def test_the_whole_command(bench, tmp_path, monkeypatch, capsys, line):
    folder, file = tmp_path / "tables", tmp_path / "runs.jsonl"
    folder.mkdir()
    text = line.frame.assign(target=line.target).to_csv(index=False)
    (folder / "line.csv.gz").write_bytes(gzip.compress(text.encode()))
    given = [str(folder), "--json", str(file), "--only", "mapie-mlp.split", "--splits", "2", "--most", "200"]
    monkeypatch.setattr("sys.argv", ["intervals.py", *given])
    bench("intervals").main()
    first = capsys.readouterr().out
    assert len([json.loads(row) for row in file.read_text().splitlines()]) == 2
    monkeypatch.setattr("sys.argv", ["intervals.py", "--report", "--json", str(file)])
    bench("intervals").main()
    assert capsys.readouterr().out == first[first.index("\ncoverage 0.9 asked for") :]

"""bench/tables.py: the splits are fair, figures and ratios are right, and a stopped bench goes on."""

import gzip
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.metrics import log_loss

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of the folder."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tables as files with names and one as a matrix with published splits."""
    made = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    colour, size = rng.choice(["red", "green", "blue"], 90), rng.normal(size=90)
    text = "colour,size,yes,target\n" + "".join(
        f"{'' if row % 9 == 0 else colour[row]},{'' if row % 7 == 0 else size[row]},{row % 2 == 0},"
        f"{'rare' if row < 15 else 'often'}\n"
        for row in range(90)
    )
    (made / "colours.csv.gz").write_bytes(gzip.compress(text.encode()))
    x = rng.normal(size=(60, 2))
    lines = [f"{a},{b},{2 * a - b}\n" for a, b in x]
    (made / "plane.csv.gz").write_bytes(gzip.compress(("a,b,target\n" + "".join(lines)).encode()))
    data = made / "matrix" / "data"
    data.mkdir(parents=True)
    np.savetxt(data / "data.txt", np.column_stack([x.sum(axis=1), x]))
    np.savetxt(data / "index_features.txt", [1, 2])
    np.savetxt(data / "index_target.txt", [0])
    for split, rows in enumerate(([1, 2], [3, 4])):
        np.savetxt(data / f"index_test_{split}.txt", rows)
        np.savetxt(data / f"index_train_{split}.txt", np.setdiff1d(np.arange(60), rows))
    return made


def run(method, errors, table="plane", first_seed=0, **more):
    """What runs of a method with these errors leave, a dict a seed."""
    seconds = {"fit_cpu": 1.0, "predict_cpu": 0.1, "fit_wall": 1.0}
    memory = {"memory": 100.0, "memory_before": 90.0}
    circumstances = {"threads": 1, "classes": False, "test_rows": 10, "machine": "a", "versions": {}}
    fields = {"table": table, "method": method, **circumstances, **seconds, **memory}
    return [
        {**fields, "error": error, "seed": seed, "split": seed, **more} for seed, error in enumerate(errors, first_seed)
    ]


# Tables and splits ------------------------------------------------------------------------------------------


def test_columns_are_numbers_categories_and_missing_cells(bench, folder):
    found = {table.name: table for table in bench("table_data").tables(folder)}
    assert list(found) == ["colours", "matrix", "plane"]
    colours = found["colours"]
    assert [str(kind) for kind in colours.frame.dtypes] == ["category", "float64", "category"]
    assert list(colours.frame.isna().sum()) == [10, 13, 0]
    assert set(colours.frame["colour"].cat.categories) == {"red", "green", "blue"}
    assert [table.classes for table in found.values()] == [True, False, False]
    np.testing.assert_allclose(found["matrix"].target, found["matrix"].frame.sum(axis=1))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_each_row_is_trained_on_or_tested_and_classes_keep_their_shares(bench, folder, seed):
    for table in bench("table_data").tables(folder):
        if table.name != "matrix":
            train, test = table.split(seed)
            np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(table.target)))
            assert len(test) == len(table.target) / 5
            assert not np.array_equal(test, table.split(seed + 1)[1])
    colours = bench("table_data").read_table(folder / "colours.csv.gz")
    train, test = colours.split(seed)
    assert (colours.target[test] == "rare").sum() == 3  # a fifth of 15
    assert len(np.unique(colours.target[train[:30]])) == 2  # not sorted by class


def test_published_splits_stay_what_they_are(bench, folder):
    table = bench("table_data").read_table(folder / "matrix")
    assert [list(table.split(seed)[1]) for seed in (0, 1)] == [[1, 2], [3, 4]]
    assert len(table.split(0)[0]) == 58


def test_large_tables_get_fewer_seeds_and_published_ones_no_more_than_there_are(bench, folder, monkeypatch):
    tables = bench("tables")
    paths = [folder / "colours.csv.gz", folder / "plane.csv.gz", folder / "matrix"]
    jobs = tables.jobs_for(paths, ["hist-gb"], 5, 2, 1, longest_first=False)
    assert [(job.key[0], job.seed) for job in jobs] == [
        *(("plane", seed) for seed in range(5)), *(("matrix", seed) for seed in range(2)),
        *(("colours", seed) for seed in range(5)),
    ]  # fmt: skip
    monkeypatch.setattr(tables, "LARGE", 90)
    jobs = tables.jobs_for(paths, ["hist-gb", "lightgbm"], 5, 2, 1, longest_first=True)
    assert [(job.method, job.seed) for job in jobs if job.key[0] == "colours"] == [
        ("hist-gb", 0), ("lightgbm", 0), ("hist-gb", 1), ("lightgbm", 1),
    ]  # fmt: skip
    assert jobs[0].key[0] == "colours"


# Methods ----------------------------------------------------------------------------------------------------


def test_scores_are_the_wrong_share_and_the_log_loss_whatever_the_order_of_labels(bench, folder):
    methods, table = bench("table_methods"), bench("table_data").read_table(folder / "colours.csv.gz")
    test = table.split(0)[1]
    p = np.random.default_rng(1).uniform(0.1, 0.9, len(test))
    labels = np.array(["rare", "often"])
    found = methods.scores(table, test, np.column_stack([p, 1 - p]), labels)
    assert found["log_loss"] == pytest.approx(log_loss(table.target[test] == "rare", p))
    assert found["error"] == pytest.approx(np.mean((p > 0.5) != (table.target[test] == "rare")))
    unseen = methods.scores(table, test, np.ones((len(test), 1)), np.array(["often"]))
    assert unseen["error"] == pytest.approx(3 / 18)
    assert unseen["log_loss"] == pytest.approx(-np.log(1e-15) * 3 / 18)


def test_a_missing_number_becomes_the_mean_of_training_and_a_category_that_says_so(bench):
    nan = np.nan
    train = pd.DataFrame({"a": [1.0, nan, 3.0], "b": [1.0, 2.0, 3.0], "c": pd.Categorical(["x", None, "y"])})
    rows = pd.DataFrame({"a": [nan, 5.0], "b": [nan, 1.0], "c": pd.Categorical(["x", "z"])})
    found = bench("table_methods").means_and_indicators().fit(train).transform(rows)
    assert list(found["a"]) == [2.0, 5.0]
    assert list(found["b"]) == [2.0, 1.0]
    assert list(found["c"]) == ["x", "z"]
    assert list(found["a is missing"]) == ["True", "False"]
    assert found["a is missing"].dtype == "category"
    assert list(found.columns) == ["a", "b", "c", "a is missing"]


def test_categories_become_strings(bench):
    frame = pd.DataFrame({"a": [1.0, np.nan], "c": pd.Categorical(["x", None])})
    found = bench("table_methods").with_strings(frame, ["c"])
    assert list(found["c"]) == ["x", ""]
    assert found["a"].isna().sum() == 1


# Report -----------------------------------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_means_and_its_error_that_of_paired_differences(bench):
    ours, theirs = np.array([1.2, 2.3, 3.4, 2.2]), np.array([1.0, 2.0, 3.0, 2.0])
    results = bench("table_report").Results(run("cydrop", ours) + run("realmlp-td", theirs))
    ratio = results.ratio("plane", "cydrop", "realmlp-td")
    assert ratio.value == pytest.approx(ours.mean() / theirs.mean())
    assert ratio.spread == pytest.approx(np.std(ours - ratio.value * theirs, ddof=1) / 2 / theirs.mean())
    assert ratio.spread < 0.03  # the splits' own spread, .4, is in both
    assert ratio.word == "worse"
    assert results.ratio("plane", "realmlp-td", "cydrop").word == "better"
    assert results.ratio("plane", "cydrop", "cydrop").value == 1


def test_a_ratio_of_one_split_or_within_its_error_is_neither_better_nor_worse(bench):
    report = bench("table_report")
    one = report.Results(run("cydrop", [2.0]) + run("realmlp-td", [1.0])).ratio("plane", "cydrop", "realmlp-td")
    assert (one.value, one.word) == (2.0, "")
    noisy = report.Results(run("cydrop", [1.0, 2.0]) + run("realmlp-td", [1.4, 1.2]))
    assert noisy.ratio("plane", "cydrop", "realmlp-td").word == ""


def test_methods_are_compared_on_the_splits_that_both_have(bench):
    results = bench("table_report").Results(
        run("cydrop", [9.0, 2.0, 3.0]) + run("realmlp-td", [2.0, 3.0], first_seed=1)
    )
    assert results.ratio("plane", "cydrop", "realmlp-td").value == 1
    assert results.ratio("plane", "cydrop", "realmlp-td").spread == 0
    tables, errors = results.shared()
    assert tables == ["plane"]
    np.testing.assert_allclose(errors, [[2.5, 2.5]])


def test_no_wrong_row_counts_as_half_of_one(bench):
    runs = run("cydrop", [0.0, 0.0], classes=True) + run("realmlp-td", [0.1, 0.0], classes=True)
    assert bench("table_report").Results(runs).ratio("plane", "cydrop", "realmlp-td").value == pytest.approx(0.5)


def test_runs_on_different_rows_are_not_compared(bench):
    with pytest.raises(ValueError, match="plane, seed 0: cydrop and lightgbm were tested on different rows"):
        bench("table_report").Results(run("cydrop", [1.0]) + run("lightgbm", [1.0], split=5))


def test_equal_errors_share_a_rank(bench):
    errors = np.array([3.0, 1.0, 3.0, 2.0])
    np.testing.assert_array_equal(bench("table_report").ranks(errors), rankdata(errors))


def test_the_report_has_means_ratios_and_ranks(bench):
    runs = run("cydrop", [1.0, 3.0]) + run("realmlp-td", [1.0, 1.0], fit_cpu=4.0)
    runs += run("cydrop", [0.5, 0.5], "colours", classes=True, log_loss=0.2)
    runs += run("realmlp-td", [0.5, 0.5], "colours", classes=True, log_loss=0.4)
    runs += run("cydrop", [1.0, 3.0], threads=2)
    report = bench("table_report")
    lines = [" ".join(line.split()) for line in report.lines(report.Results(runs), "realmlp-td")]
    assert "not run with cydrop x2: colours" in lines
    assert "plane 2 ± 1 2 ± 1 1 ± 0" in lines
    assert "colours, % 50 ± 0 - 50 ± 0" in lines
    assert "colours 0.2 ± 0 - 0.4 ± 0" in lines
    assert "plane 2.000 ± 1.000 2.000 ± 1.000" in lines
    assert "geometric mean 1.414 2.000" in lines
    assert "tables with splits that all methods have: 1 (ratios: geometric means; seconds: sums)" in lines
    assert "mean rank 2.50 2.50 1.00" in lines
    assert "fit, CPU s / realmlp-td 0.250 0.250 1.000" in lines


def test_the_report_says_when_seconds_cannot_be_compared(bench):
    report, said = bench("table_report"), "their seconds cannot be compared"
    same, other = run("cydrop", [1.0]), run("realmlp-td", [1.0], machine="b")
    assert not any(said in line for line in report.lines(report.Results(same), "realmlp-td"))
    assert any(said in line for line in report.lines(report.Results(same + other), "realmlp-td"))


def test_the_picture_has_a_point_for_each_method(bench, tmp_path):
    runs = run("cydrop", [1.0, 3.0]) + run("realmlp-td", [1.0, 1.0], fit_cpu=4.0)
    bench("table_report").draw(bench("table_report").Results(runs), tmp_path / "picture.svg")
    drawn = (tmp_path / "picture.svg").read_text()
    assert "<!-- cydrop -->" in drawn
    assert "<!-- realmlp-td -->" in drawn


# The file of runs -------------------------------------------------------------------------------------------


def test_a_line_that_was_not_written_to_its_end_is_left_out_and_closed(bench, tmp_path):
    tables, file = bench("tables"), tmp_path / "runs.jsonl"
    first, second, third = run("cydrop", [1.0, 2.0, 3.0])
    tables.append_run(file, first)
    with file.open("a") as stream:
        stream.write(json.dumps(second)[:-20])
    assert tables.read_runs(file) == [first]
    tables.append_run(file, third)
    tables.append_run(file, {**first, "error": 5.0})
    assert tables.read_runs(file) == [{**first, "error": 5.0}, third]


def test_processes_have_one_thread_and_nothing_that_slows_numpy_down(bench, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("PYTHONPATH", "src")
    found = bench("tables").environment(1)
    assert "OPENBLAS_CORETYPE" not in found
    assert {found[name] for name in bench("tables").LIMITING} == {"1"}
    assert found["PYTHONPATH"] == str(Path("src").resolve())


def bench_run(*arguments, code=0):
    ended = subprocess.run(
        [sys.executable, str(BENCH / "tables.py"), *map(str, arguments)], capture_output=True, text=True, env=os.environ
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def test_every_method_that_is_here_runs_and_a_second_call_runs_what_is_left(folder, tmp_path):
    file = tmp_path / "runs.jsonl"
    methods = "hist-gb,sklearn-mlp,cydrop-mlp"
    said = bench_run(folder, "--into", file, "--only", methods, "--tables", "colours", "--seeds", 1, "--jobs", 2)
    assert "3 runs, 0 of them there already" in said
    runs = {run["method"]: run for run in map(json.loads, file.read_text().splitlines())}
    assert set(runs) == set(methods.split(","))
    assert len({run["split"] for run in runs.values()}) == 1
    for run in runs.values():
        assert 0 <= run["error"] <= 0.5
        assert run["log_loss"] > 0
        assert run["fit_cpu"] > 0
        assert run["memory"] >= run["memory_before"] > 10
        assert (run["train_rows"], run["test_rows"], run["columns"], run["jobs"]) == (72, 18, 3, 2)
    said = bench_run(folder, "--into", file, "--only", "hist-gb", "--seeds", 2, "--tables", "colours,matrix")
    assert "4 runs, 1 of them there already" in said
    assert len(file.read_text().splitlines()) == 6
    said = bench_run("--report", file, "--against", "hist-gb", "--only", "hist-gb,cydrop-mlp")
    assert "5 runs of 2 methods on 2 tables" in said
    assert "not run with cydrop-mlp: matrix" in said


def test_a_run_that_fails_is_named_and_the_others_go_on(folder, tmp_path):
    file = tmp_path / "runs.jsonl"
    interpreter = f"sklearn-mlp={tmp_path / 'false'}"
    (tmp_path / "false").write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    (tmp_path / "false").chmod(0o755)
    arguments = folder, "--into", file, "--only", "sklearn-mlp,hist-gb", "--seeds", 1, "--tables", "plane"
    said = bench_run(*arguments, "--python", interpreter, code=1)
    assert "sklearn-mlp    failed: no such library" in said
    assert "1 runs failed; the same command tries them again" in said
    assert [json.loads(line)["method"] for line in file.read_text().splitlines()] == ["hist-gb"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "hist-gb,xgboost"], "unknown method 'xgboost'; there are cydrop, "),
        (["--tables", "planes"], "no table planes in these folders"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
    ],
)
def test_unusable_options_are_named(bench, folder, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.setattr("sys.argv", ["tables.py", str(folder), "--into", str(tmp_path / "runs.jsonl"), *arguments])
    with pytest.raises(SystemExit):
        bench("tables").main()
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

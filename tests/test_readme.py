"""The README's programs run as they stand."""

import re
import shutil
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent


def program(heading):
    """The first program below a heading of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(rf"^##+ {heading}\n.*?^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]


def test_the_first_program_of_the_readme_runs_as_printed(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "penguins.csv", tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    first = program("A first program")
    names = {}
    exec(first, names)
    printed = capsys.readouterr().out
    promised = re.search(r"print\(model\.score\(.*# (.*)", first)[1]
    assert round(float(printed.split()[0]), 3) == float(promised)
    model, test, y = (names[name] for name in ("model", "test", "y"))
    X = names["birds"][test]
    wrong = np.flatnonzero(model.predict(X) != y[test])
    assert len(wrong) == 2
    assert set(wrong) <= set(names["doubt"].argsort()[-5:])
    measured = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    assert X.iloc[wrong][measured].isna().all(axis=1).sum() == 1


def test_the_networks_of_the_readme_run_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(program("A network of your own"), names)
    assert names["net"].evaluate(names["X_test"], names["y_test"])["accuracy"] > 0.93
    np.testing.assert_array_equal(names["net"].predict(names["X_test"]), names["proba"])
    assert "epoch 20/20" in capsys.readouterr().out
    assert (tmp_path / "digits.safetensors").is_file()
    exec(program("In scikit-learn"), names)
    assert names["model"].score(names["X_test"], names["y_test"]) > 0.93

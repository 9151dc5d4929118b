"""The README's programs run as they stand."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parent.parent / "README.md"


def test_the_first_program_of_the_readme_runs_as_printed(tmp_path, monkeypatch, capsys):
    program = re.search(r"## A first program\n+```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(program[1], names)
    assert names["net"].evaluate(names["X_test"], names["y_test"])["accuracy"] > 0.93
    np.testing.assert_array_equal(names["net"].predict(names["X_test"]), names["proba"])
    assert "epoch 20/20" in capsys.readouterr().out
    assert (tmp_path / "digits.safetensors").is_file()
    estimator = re.search(r"### In scikit-learn\n.*?```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(estimator[1], names)
    assert names["model"].score(names["X_test"], names["y_test"]) > 0.93

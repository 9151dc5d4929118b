"""The examples run as a user runs them, with small settings, and print what they promise."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PNG = b"\x89PNG\r\n\x1a\n"


def run(name, *arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


def finished(name, *arguments, cwd, **environment):
    """What an example prints, which must not fail."""
    done = run(name, *arguments, cwd=cwd, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(text, row):
    """A row of the printed table: error, its spread or None, cross-entropy, training error, seconds."""
    numbers = r"([\d.]+) ± (\S+) +([\d.]+) +([\d.]+) +([\d.]+)"
    (found,) = re.findall(rf"^{row} +{numbers}$", text, re.MULTILINE)
    error, spread, *rest = found
    return float(error), None if spread == "-" else float(spread), *map(float, rest)


def check_picture(text, path):
    """Learning curves where matplotlib is there, else a line that says why there are none."""
    if importlib.util.find_spec("matplotlib") is None:
        assert "matplotlib is not installed" in text
        assert not path.exists()
    else:
        assert f"learning curves: {path.name}" in text
        assert path.read_bytes().startswith(PNG)


def hide_matplotlib(folder):
    """An environment in which `import matplotlib` fails, installed or not. Where cydrop comes from stays what it is."""
    hidden = folder / "hidden"
    hidden.mkdir()
    (hidden / "matplotlib.py").write_text("raise ImportError('hidden by the test')\n")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))}


# digits.py -----------------------------------------------------------------------------------------------


def test_digits_prints_a_line_a_training_and_the_table(tmp_path):
    text = finished("digits.py", "--seeds", 2, "--epochs", 2, cwd=tmp_path)
    for row in ("without dropout", "with dropout"):
        errors = re.findall(rf"^seed \d +{row} +test error ([\d.]+) %", text, re.MULTILINE)
        errors = np.array(errors, dtype=float)
        assert errors.shape == (2,)
        assert (errors < 20).all()  # two passes over the digits are enough for that
        error, spread, loss, _, _ = table(text, row)
        assert error == pytest.approx(errors.mean(), abs=0.0101)
        assert spread == pytest.approx(errors.std(ddof=1), abs=0.0151)
        assert 0 < loss < 1
    assert re.search(r"dropout was better for [012] of 2 seeds", text)
    check_picture(text, tmp_path / "digits.png")


def test_digits_lists_the_most_confused_pairs(tmp_path):
    text = finished("digits.py", "--seeds", 1, "--epochs", 1, "--plot", "curves.png", cwd=tmp_path)
    pairs = re.findall(r"^  (\d) and (\d): (\d+)  \(\1 taken for \2 (\d+), \2 for \1 (\d+)\)$", text, re.MULTILINE)
    assert len(pairs) == 5
    totals = [int(total) for _, _, total, _, _ in pairs]
    assert totals == sorted(totals, reverse=True)
    for a, b, total, there, back in pairs:
        assert a < b
        assert int(total) == int(there) + int(back)
    check_picture(text, tmp_path / "curves.png")


def test_digits_runs_without_matplotlib_and_says_so(tmp_path):
    text = finished("digits.py", "--seeds", 1, "--epochs", 1, cwd=tmp_path, **hide_matplotlib(tmp_path))
    assert table(text, "with dropout")[1] is None  # no spread of one seed
    assert "matplotlib is not installed" in text
    assert not (tmp_path / "digits.png").exists()


def test_digits_chooses_by_the_writers_of_the_training_set(tmp_path):
    text = finished("digits.py", "--choose", "--epochs", 1, cwd=tmp_path)
    tried = re.findall(r"^(64-\S+ +dropout (\S+) .* epochs) +([\d.]+) % +([\d.]+)$", text, re.MULTILINE)
    assert len(tried) == 24
    for side in ("without", "with"):
        results = [
            (float(error), float(loss), setting)
            for setting, rates, error, loss in tried
            if (rates == "none") == (side == "without")
        ]
        (best,) = re.findall(rf"^best {side} dropout: (64-.* epochs) +([\d.]+) %", text, re.MULTILINE)
        assert (best[0], float(best[1])) == (min(results)[2], min(results)[0])


# fashion_mnist.py ----------------------------------------------------------------------------------------


def test_fashion_mnist_learns_images_from_any_folder(tmp_path, images):
    text = finished("fashion_mnist.py", images, "--seeds", 2, "--epochs", 3, cwd=tmp_path)
    assert "120 training and 40 test images, 30 pixels, 3 classes" in text
    assert len(re.findall(r"^  epoch +3  training loss [\d.]+  error [\d.]+ %$", text, re.MULTILINE)) == 4
    for row in ("without dropout", "with dropout"):
        error, spread, *_ = table(text, row)
        assert 0 <= error <= 100
        assert spread is not None
    assert re.search(r"^  \d and \d: \d+  \(", text, re.MULTILINE)
    check_picture(text, tmp_path / "fashion_mnist.png")


def test_fashion_mnist_names_the_classes_only_when_asked(tmp_path, images):
    small = "--seeds", 1, "--epochs", 1, "--plot", "curves.png"
    asked = finished("fashion_mnist.py", images, "--names", *small, cwd=tmp_path)
    assert "trousers" in asked
    check_picture(asked, tmp_path / "curves.png")
    assert "trousers" not in finished("fashion_mnist.py", images, *small, cwd=tmp_path)


def test_fashion_mnist_judges_rates_without_the_test_set(tmp_path, images):
    small = "--seeds", 1, "--epochs", 2, "--validate", "--rates", 0, 0.5
    text = finished("fashion_mnist.py", images, *small, cwd=tmp_path)
    assert "100 training and 20 validation images" in text
    assert "validation error %" in text
    for path in images.glob("t10k-*"):  # another test set, the same result
        raw = path.read_bytes()
        path.write_bytes(raw[:16] + bytes(len(raw) - 16))
    again = finished("fashion_mnist.py", images, *small, cwd=tmp_path)
    for row in ("without dropout", "with dropout"):
        assert table(again, row)[:4] == table(text, row)[:4]


def test_fashion_mnist_runs_without_matplotlib_and_says_so(tmp_path, images):
    hidden = hide_matplotlib(tmp_path)
    text = finished("fashion_mnist.py", images, "--seeds", 1, "--epochs", 1, cwd=tmp_path, **hidden)
    assert "matplotlib is not installed" in text
    assert not (tmp_path / "fashion_mnist.png").exists()


def test_fashion_mnist_says_which_file_is_missing(tmp_path, images):
    (images / "t10k-labels-idx1-ubyte").unlink()
    done = run("fashion_mnist.py", images, cwd=tmp_path)
    assert done.returncode == 2
    assert "t10k-labels-idx1-ubyte" in done.stderr
    assert "Traceback" not in done.stderr


# by_hand.py ----------------------------------------------------------------------------------------------


def test_by_hand_both_spellings_learn_and_agree(tmp_path):
    text = finished("by_hand.py", "--epochs", 2, cwd=tmp_path)
    for mode in ("inverted", "vanilla"):
        (rows,) = re.findall(rf"^{mode} dropout\n.*\n((?: +\d+ +[\d.]+ +[\d.]+\n)+)", text, re.MULTILINE)
        losses, accuracies = np.array([line.split() for line in rows.splitlines()], dtype=float)[:, 1:].T
        assert losses[-1] < losses[0]
        assert accuracies[-1] > 0.7
    (differences,) = re.findall(r"difference of logits: training (\S+), prediction (\S+)$", text, re.MULTILINE)
    (tolerance,) = re.findall(r"^they agree within (\S+)$", text, re.MULTILINE)
    assert max(map(float, differences)) <= float(tolerance) == 1e-5
    assert list(tmp_path.iterdir()) == []


# optuna_pruning.py -----------------------------------------------------------------------------------------


def test_optuna_prunes_trials_and_the_best_network_is_kept(tmp_path):
    text = finished("optuna_pruning.py", "--trials", 16, "--epochs", 6, cwd=tmp_path)
    pruned, best = re.search(r"^16 trials, (\d+) pruned; the best: \{(.*)\}$", text, re.MULTILINE).groups()
    assert 0 < int(pruned) < 16
    assert "'learning_rate'" in best
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)$", text, re.MULTILINE)
    assert float(accuracy) > 0.8

"""tools/platforms: what counts as proved, and what the table of docs/platforms.md says of it."""

import ast
import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_same_bits
from conftest import CORE

TOOLS = Path(__file__).parent.parent / "tools"

LINE = {
    "target": "arm64", "commit": "0123456789", "code": "now", "date": "2026-01-02", "quick": False, "failed": None,
    "how": "emulated by QEMU", "machine": "Linux aarch64", "compiler": "GCC 12", "python": "3.13", "numpy": "2.2",
    "hashes": ["STEPS"], "sets": {"baseline": {"fused": True, "bits": "aaa"}}, "seconds": 3,
}  # fmt: skip


@pytest.fixture
def targets(monkeypatch):
    """Imports a module of tools/targets."""
    monkeypatch.syspath_prepend(TOOLS)
    yield lambda name: importlib.import_module(f"targets.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "targets"]:
        del sys.modules[name]


@pytest.fixture
def table(targets, tmp_path, monkeypatch):
    """Writes results and makes the table: the exit status and the page."""
    module = targets("table")
    page = tmp_path / "platforms.md"
    monkeypatch.setattr(module, "PAGE", page)
    monkeypatch.setattr(module, "codes", lambda _: {"core": "now", "all": "now, all"})

    def table(*lines, order=("arm64", "i386")):
        page.write_text(f"before\n{module.BEGIN}an old table\n{module.END}after\n")
        (tmp_path / "results").write_text("".join(json.dumps(LINE | line) + "\n" for line in lines))
        return module.rewrite(tmp_path, order), page.read_text()

    return table


I386 = {"target": "i386", "sets": {"baseline": {"fused": False, "bits": "bbb"}}}


def test_each_target_has_a_line_and_each_kind_one_digest(table):
    status, page = table({"tests": "core", "passed": 1602, "skipped": 2}, I386)
    assert status == 0
    assert "old table" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert (
        "| arm64 | emulated by QEMU | GCC 12 | 3.13 | 2.2 | with FMA | hashes, core tests (1,602, 2 skipped) |" in page
    )
    assert "Bits with FMA: `aaa` on 1 targets." in page
    assert "Bits without FMA: `bbb` on 1 targets." in page


def test_a_second_digest_of_a_kind_fails(table, capsys):
    status, page = table({}, {"target": "i386", "sets": {"baseline": {"fused": True, "bits": "ccc"}}})
    assert status == 1
    assert "more than one" in capsys.readouterr().out
    assert "`aaa`" in page
    assert "`ccc`" in page


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([{}], "i386: never run"),
        ([{}, I386 | {"code": "then"}], "i386: proved on older sources"),
        ([{}, I386 | {"tests": "whole suite", "passed": 1, "skipped": 0}], "i386: proved on older sources"),
        ([{}, I386 | {"failed": "tests failed"}], "i386: tests failed"),
    ],
)
def test_what_is_not_proved_now_fails(table, lines, why, capsys):
    assert table(*lines)[0] == 1
    assert why in capsys.readouterr().out


def test_hashes_alone_do_not_displace_a_line_that_says_more(table):
    _, page = table({"tests": "core", "passed": 5, "skipped": 0}, {"quick": True}, I386)
    assert "core tests (5)" in page
    _, page = table({"tests": "core", "passed": 5, "skipped": 0}, {"quick": True, "failed": "other hashes"}, I386)
    assert "| arm64 | **not proved** |" in page
    status, page = table({"failed": "other hashes"}, {"quick": True}, I386)
    assert status == 0
    assert "**not proved**" not in page


def test_every_golden_script_of_test_same_bits_is_among_those_that_targets_run():
    assigned = {
        node.targets[0].id: node.value
        for node in ast.parse((TOOLS / "targets" / "golden.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    golden = ast.literal_eval(assigned["GOLDEN"])
    assert {script for module, script, *_ in golden.values() if module == "test_same_bits"} == {
        name for name in vars(test_same_bits) if re.fullmatch(r"(\w+_)?SCRIPT", name)
    }
    for module, script, hashes, times, *_ in golden.values():
        module = importlib.import_module(module)
        wanted = getattr(module, hashes)
        numbers = re.search(r"for n_threads in \(([\d, ]+)\):", getattr(module, script))
        assert times == (numbers[1].count(",") + 1 if numbers else 1)
        assert isinstance(wanted, str) or set(wanted) == {True, False}


def test_core_tests_are_there_and_import_no_other_test_file():
    for name in CORE:
        text = Path(__file__).with_name(name).read_text()
        imported = re.findall(r"^(?:from|import) (test_\w+)", text, re.MULTILINE)
        assert {f"{module}.py" for module in imported} <= CORE, name


def test_golden_hashes_depend_on_no_other_test_file_than_those_that_decide_whether_they_are_kept(targets):
    golden = {f"test_{name}" for name in targets("work").GOLDEN}
    for name in golden:
        text = Path(__file__).with_name(f"{name}.py").read_text()
        assert set(re.findall(r"^(?:from|import) (test_\w+)", text, re.MULTILINE)) <= golden, name


def test_golden_hashes_are_kept_until_what_decides_them_changes(targets, tmp_path):
    module = targets("target")
    work = SimpleNamespace(folder=tmp_path, source=tmp_path, codes={"golden": "now"}, again=False)
    target = module.Target(work, "arm64", None)
    runs = []
    target.output = lambda *command, cwd: runs.append(command) or f'{{"bits": {len(runs)}}}'
    python = module.Interpreter(("python",))
    assert target.golden(python, "", ["LARGE"]) == {"bits": 1}
    assert target.golden(python, "", ["LARGE"]) == {"bits": 1}
    assert target.golden(python, "avx2", ["LARGE"]) == {"bits": 2}
    assert target.golden(python, "", []) == {"bits": 3}  # of more scripts
    work.codes = {"golden": "then"}
    assert target.golden(python, "", []) == {"bits": 4}
    work.again = True
    assert target.golden(python, "", []) == {"bits": 5}

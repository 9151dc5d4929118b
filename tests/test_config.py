"""What a bug report should say."""

import subprocess
import sys

import cydrop as cd
from cydrop import _core


def test_the_module_run_as_a_program_prints_the_configuration():
    printed = subprocess.run([sys.executable, "-m", "cydrop"], capture_output=True, text=True, check=True).stdout
    lines = dict(line.split(":", 1) for line in printed.splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        name: str(value) for name, value in cd.show_config().items()
    }


def test_a_folder_without_kernels_is_no_instruction_set(tmp_path, monkeypatch):
    monkeypatch.setattr(_core, "__file__", str(tmp_path / "__init__.py"))
    for name in ("baseline", "avx2", "avx512"):
        (tmp_path / name).mkdir()
    (tmp_path / "baseline" / "engine.cpython.so").touch()
    assert _core.available() == ["baseline"]

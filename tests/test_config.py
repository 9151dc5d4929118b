"""What a bug report should say."""

import subprocess
import sys

import cydrop as cd


def test_the_module_run_as_a_program_prints_the_configuration():
    printed = subprocess.run([sys.executable, "-m", "cydrop"], capture_output=True, text=True, check=True).stdout
    lines = dict(line.split(":", 1) for line in printed.splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        name: str(value) for name, value in cd.show_config().items()
    }

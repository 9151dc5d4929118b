"""Training on two machines, as near as one comes to it: two network namespaces, with a cable between them that counts.

Needs MPICH in this environment and the right to make namespaces.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_mpi import HERE, MPIEXEC, results
from two_machines import two_machines, why_not

PARAMETERS = 40_000  # at least, of all networks of the case together: what must have gone over the cable


def is_mpich():
    return "HYDRA" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout


@pytest.fixture
def machines(tmp_path):
    if importlib.util.find_spec("mpi4py") is None or not MPIEXEC.exists():
        pytest.skip("needs mpi4py and an MPI in this environment")
    if not is_mpich():
        pytest.skip("starts its processes as MPICH does")
    reason = why_not()
    if reason is not None:
        pytest.skip(f"may not make network namespaces: {reason}")
    with two_machines(tmp_path) as pair:
        yield pair


def test_two_machines_have_the_bits_of_one(machines, tmp_path):
    before = machines.sent()
    program = [sys.executable, str(HERE / "mpi_cases.py"), str(tmp_path), "hashes"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = machines.mpiexec(str(MPIEXEC), program, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(Path(tmp_path, f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    assert found == results(1, "hashes") * 2
    for sent, earlier in zip(machines.sent(), before, strict=True):
        assert sent - earlier > 4 * PARAMETERS, "the ranks did not talk over the cable"

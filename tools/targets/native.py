"""This machine's own processor: the whole suite, other compilers, other Pythons, the oldest dependencies."""

import glob
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from targets.emulated import inside, make_root
from targets.target import Failed, Interpreter, family, target

TEST_TOOLS = ["numpy", "pytest>=8", "hypothesis>=6.100"]


def extra(job, name="test"):
    """The requirements of one of cydrop's extras, and its own."""
    project = tomllib.loads((job.work.source / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"][name]]


def environment(job, python, requirements, *options):
    """A virtual environment of the target's, with what the build needs as well."""
    folder = job.work.folder / "environments" / job.name
    cython = job.work.cython()  # the same, so that its C is
    job.work.make_venv(folder, python, [f"cython=={cython}", "setuptools>=77", *requirements], *options)
    return Interpreter((folder / "bin/python",))


def find(job, version):
    """An interpreter of this version: one that was given, on PATH, or of pyenv."""
    places = [
        shutil.which(f"python{version}"),
        *glob.glob(f"{Path.home()}/.pyenv/versions/{version}.*/bin/python{version}"),
    ]
    for path in [job.work.pythons[job.name]] if job.name in job.work.pythons else filter(None, places):
        if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    raise Failed(f"no python{version} on this machine: name one by --python {job.name}=PATH")


def compiled(job, compiler):
    """{compiler}, golden hashes and core tests on this machine"""
    python = environment(job, sys.executable, TEST_TOOLS)
    job.build(compiler, python)
    return job.proved(python, "natively", left_out=())


def suite(job, version):
    """Python {version}, the whole suite on this machine"""
    python = environment(job, find(job, version), extra(job))
    job.build("gcc", python)
    return job.proved(python, "natively", "whole suite", left_out=())


@target("gcc", by_default=False)
def freethreaded(job):
    """free-threaded Python, which --python freethreaded=PATH names; golden hashes and core tests"""
    if job.name not in job.work.pythons:
        raise Failed("name a free-threaded interpreter by --python freethreaded=PATH")
    # the last NumPy with wheels for it: a newer one would be compiled
    python = environment(job, job.work.pythons[job.name], TEST_TOOLS, "--only-binary=:all:")
    job.build("gcc", python)
    script = "import sys, cydrop; sys.exit('the GIL is on' if sys._is_gil_enabled() else 0)"
    job.run(*python.command("-c", script, PYTHONPATH=job.build_folder))
    result = job.proved(python, "natively", "core and threads", left_out=())
    return result | {"python": f"{result['python']}, free-threaded"}


@target("gcc")
def floors(job):
    """the oldest NumPy and the oldest packages of the tests' extra that pyproject.toml allows, the whole suite"""
    requirements = job.work.folder / "floors.txt"
    # the oldest scikit-learn calls today's SciPy in a way that SciPy warns of
    requirements.write_text("\n".join([*extra(job), "scipy>=1.13"]))
    python = environment(job, sys.executable, ["uv"])
    oldest = ["--resolution", "lowest-direct", "--only-binary", ":all:"]  # some of which today's compilers refuse
    into = ["--python", *python.program, "--requirement", requirements]
    job.run(*python.command("-m", "uv", "pip", "install", *oldest, *into))
    job.build("gcc", python)
    return job.proved(python, "natively", "whole suite", left_out=())


@target("gcc", "qemu-user-static")
def nehalem(job):
    """an x86-64 processor of 2008, without AVX: golden hashes and every third core test, by QEMU"""
    python = environment(job, sys.executable, TEST_TOOLS)
    job.build("gcc", python)
    python.program = ("qemu-x86_64-static", "-cpu", "Nehalem", *python.program)
    return job.proved(python, "emulated by QEMU", "third of core")


SID = ["gcc-16", "clang-22", "libomp-22-dev", "python3.14-dev", "python3.15-dev", "cython3", "python3-setuptools"]


def sid(job, compiler, version):
    """{compiler} and Python {version} of Debian's unstable suite, golden hashes and core tests"""
    root = make_root(job, "amd64", "sid", [*SID, "ccache"])
    python = inside(job, root)
    job.build(compiler, python, include=[root / f"usr/include/python{version}"])
    return job.proved(inside(job, root, f"python{version}"), "natively", left_out=())


def in_sid(**what):
    return target("mmdebstrap")(family(sid, **what))


TARGETS = {
    "python3.11": target("gcc")(family(suite, version="3.11")),
    "python3.12": target("gcc")(family(suite, version="3.12")),
    "python3.13": target("gcc")(family(suite, version="3.13")),
    "freethreaded": freethreaded,
    "floors": floors,
    "gcc-11": target("gcc-11")(family(compiled, compiler="gcc-11")),
    "clang-14": target("clang-14", "libomp-14-dev")(family(compiled, compiler="clang-14")),
    "gcc-16": in_sid(compiler="gcc-16", version="3.15"),
    "clang-22": in_sid(compiler="clang-22", version="3.14"),
    "nehalem": nehalem,
}

"""One target: its build, its golden hashes and its tests, with everything that is printed in FOLDER/logs/TARGET."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import partial

# of tests/core.txt: `proved` itself compares the golden hashes, with every instruction set; QEMU and Wine start new
# processes slowly, and a process that is forked beside threads hangs in QEMU
ALONE = "not child and not environment and not importing and not signal and not estimator and not golden"
CORE = ["--core", "tests", "--ignore", "tests/test_same_bits.py", "-k", ALONE]
TESTS = {
    "core": CORE,
    "third of core": [*CORE, "--every", "3"],
    "tenth of core": [*CORE, "--every", "10"],
    "core and threads": [*CORE, "tests/test_free_threading.py", "tests/test_several_threads.py"],
    "whole suite": ["tests"],
}
SLOW = ["FROM_DATA", "MEMBERS", "MEMBERS_SHARED", "SHARDS", "LARGE"]  # golden hashes that take most of the time


@dataclass
class Interpreter:
    """A Python of the target."""

    program: tuple  # what runs it, and itself
    before: tuple = ()  # the command that starts programs there
    path: object = str  # what it calls a path of this machine
    variables: dict = field(default_factory=dict)

    def command(self, *arguments, **variables):
        """The command that runs it, with these environment variables."""
        variables = {"PYTHONDONTWRITEBYTECODE": "", **self.variables, **variables}  # emulated, it compiles slowly
        pairs = [f"{name}={value}" for name, value in variables.items()]
        return [*self.before, "env", *pairs, *self.program, *arguments]


class Failed(Exception):
    """A target that was not proved, in a sentence."""


class Target:
    def __init__(self, work, name, log):
        self.work, self.name, self.log = work, name, log
        self.build_folder = work.folder / "builds" / name

    def run(self, *command, **options):
        """A command whose output goes to the log."""
        print("$", *command, file=self.log, flush=True)
        return subprocess.run(
            command, check=True, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, **options
        )

    def output(self, *command, **options):
        """A command's standard output, which is logged as well."""
        print("$", *command, file=self.log, flush=True)
        done = subprocess.run(
            command, text=True, stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, **options
        )
        print(done.stdout, file=self.log, flush=True)
        done.check_returncode()
        return done.stdout

    def build(self, compiler, python=None, include=(), library=None, suffix=".so", openmp=True):
        """cydrop, built by setup.py with a compiler of one's choice, in a folder to import it from.

        `include` has Python's headers where they are not those of the `python` that runs setup.py; `library` is a file
        to link.
        """
        objects = self.build_folder.with_name(f"{self.name}.objects")
        for folder in (self.build_folder, objects):
            shutil.rmtree(folder, ignore_errors=True)
        source = self.work.source
        if python is None:
            python = Interpreter((self.work.venv / "bin/python",))
        else:  # another Cython may write other C
            source = self.work.folder / "sources" / self.name
            shutil.rmtree(source, ignore_errors=True)
            shutil.copytree(self.work.source, source)
        target = python.path(self.build_folder)
        options = ["--build-lib", target, "--build-temp", python.path(objects)]
        if include:
            options.append(f"--include-dirs={':'.join(map(python.path, include))}")
        if library:
            options += [f"--library-dirs={library.parent}", f"--libraries={library.stem}"]
        command = python.command(
            "setup.py", "-q", "build_py", "--build-lib", target, "build_ext", *options,
            CC=f"ccache {compiler}", LDSHARED=f"{compiler} -shared", CYDROP_OPENMP=str(int(openmp)),
            SETUPTOOLS_EXT_SUFFIX=suffix, PYTHONPATH="",
            CCACHE_DIR=python.path(self.work.folder / "ccache"), CCACHE_NOHASHDIR="1",
        )  # fmt: skip
        self.run(*command, cwd=source)

    def proved(self, python, how, tests="core", left_out=("LARGE",), paths=()):
        """The golden hashes with every instruction set of the target, then the tests: the fields of a result."""
        places = ":".join(map(python.path, [self.build_folder, *paths]))
        # several targets at a time: a thread that waits lets others work
        python.variables |= {"PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        left_out = SLOW if self.work.quick else left_out
        config = self.golden(python, "", left_out)
        sets = {config["simd"]: config}
        for simd in config["simd_available"]:
            if simd not in sets:
                sets[simd] = self.golden(python, simd, left_out)
        different = [f"{simd} {line}" for simd, one in sets.items() for line in one["different"]]
        result = {
            "how": how, "machine": config["machine"], "compiler": config["compiler"], "python": config["python"],
            "numpy": config["numpy"], "hashes": config["names"],
            "sets": {simd: {"fused": one["fused_multiply_add"], "bits": one["bits"]} for simd, one in sets.items()},
        }  # fmt: skip
        if different:
            result["failed"] = f"other hashes than the golden ones: {'; '.join(different)}"
        elif tests and not self.work.quick:
            result |= self.tests(python, tests)
        return result

    def golden(self, python, simd, left_out):
        """What golden.py prints; kept, since it takes long, and tests change more often than what decides it."""
        kept = self.work.folder / "golden" / " ".join([self.name, simd]).strip()
        key = [self.work.codes["golden"], *left_out]
        if kept.exists() and not self.work.again:
            then = json.loads(kept.read_text())
            if then["key"] == key:
                return then["found"]
        script, tests = self.work.source / "tools/targets/golden.py", self.work.source / "tests"
        command = python.command(python.path(script), python.path(tests), simd, *left_out)
        found = json.loads(self.output(*command, cwd=self.work.source).splitlines()[-1])
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps({"key": key, "found": found}))
        return found

    def tests(self, python, label):
        """Runs pytest: how many tests passed and were skipped, and what failed, if anything did."""
        command = python.command("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *TESTS[label])
        failed = False
        try:
            self.run(*command, cwd=self.work.source)  # into the log, as it goes: this takes longest
        except subprocess.CalledProcessError:
            failed = True
        with open(self.log.name, errors="replace") as file:
            last = file.read().strip().splitlines()[-1]
        if failed:
            return {"failed": f"tests failed: {last}; see {self.log.name}"}
        counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|skipped)", last)}
        return {
            "tests": label,
            "passed": counts.get("passed", 0), "skipped": counts.get("skipped", 0),
        }  # fmt: skip


def target(*packages, by_default=True):
    """Declares a function of a `Target` to be one: with the Debian packages that it needs."""

    def declare(function):
        function.packages = {"ccache", *packages}
        function.by_default = by_default
        return function

    return declare


def family(function, **constants):
    """A target of several that differ in constants."""
    one = partial(function, **constants)
    one.__doc__ = function.__doc__.format(**constants)
    return one

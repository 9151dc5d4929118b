"""What all targets share: the sources and their generated C, builds, packages, and the lines of results."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from datetime import date
from pathlib import Path

from targets.target import Failed, Target

CHECKOUT = Path(__file__).resolve().parents[2]
# what decides the result of the whole suite: other changes, such as one of the table itself, leave it valid
DECISIVE = ["src", "tests", "setup.py", "pyproject.toml", "tools/targets/golden.py"]
# the test files that have golden hashes, and what they import
GOLDEN = ["same_bits", "shards", "every_layer", "bfloat16"]


def output(*command, **options):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout.strip()


def git(*command, **options):
    return output("git", "-C", str(CHECKOUT), *command, **options)


def tree(index, paths):
    """The hash that git gives these paths as they are now, changes that are not committed included."""
    environment = {**os.environ, "GIT_INDEX_FILE": str(index)}
    index.unlink(missing_ok=True)
    git("add", "--all", "--", *paths, env=environment)
    return git("write-tree", env=environment)


def codes(index):
    """The hashes of what decides results: of all, without the test files that the core tests do not read, and without
    those that the golden hashes do not."""
    lines = (CHECKOUT / "tests/core.txt").read_text().splitlines()
    core = {line for line in lines if not line.startswith("#")}

    def of(some):
        left_out = {path.name for path in (CHECKOUT / "tests").glob("test_*.py")} - {f"test_{name}.py" for name in some}
        return tree(index, [*DECISIVE, *(f":(exclude)tests/{name}" for name in sorted(left_out))])

    return {"all": tree(index, DECISIVE), "core": of(core), "golden": of(GOLDEN)}


def code_of(line, codes):
    """The one that decides a result."""
    return codes["core" if line.get("tests", "core") in ("core", "third of core", "tenth of core") else "all"]


def is_current(line, codes):
    """Whether a result is one of the sources as they are now."""
    return line["code"] == code_of(line, codes)


class Work:
    """A folder to work in. A target gets it, builds by it and returns what it found out."""

    def __init__(self, folder, quick=False, again=False, pythons=None):
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.alone = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)  # a lock that ends with the process
        try:
            fcntl.flock(self.alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{self.folder} is in use by another run") from None
        self.quick, self.again = quick, again
        self.pythons = pythons or {}
        self.results = self.folder / "results"
        self.lock = threading.Lock()
        self.whole = tree(self.folder / "index", ["."])
        self.codes = codes(self.folder / "index")
        changed = git("status", "--porcelain", "--", *DECISIVE)
        self.commit = git("rev-parse", "--short=10", "HEAD") + (" and changes" if changed else "")
        self.source = self.folder / "source"
        self.venv = self.folder / "venv"

    # Results ----------------------------------------------------------------------------------------------------

    def is_proved(self, name):
        """Whether this target was proved on the same sources, as thoroughly as is asked for now."""
        for line in reversed(self.results.read_text().splitlines() if self.results.exists() else []):
            result = json.loads(line)
            if result["target"] == name and is_current(result, self.codes) and (self.quick or not result["quick"]):
                return result["failed"] is None
        return False

    def prove(self, name, target):
        """Runs a target and adds its line; False if it failed."""
        start = time.monotonic()
        line = {
            "target": name, "commit": self.commit, "code": None, "date": date.today().isoformat(),
            "quick": self.quick, "failed": None,
        }  # fmt: skip
        log = self.folder / "logs" / name
        log.parent.mkdir(exist_ok=True)
        with open(log, "w") as file:
            try:
                line |= target(Target(self, name, file))
            except Failed as failure:
                line["failed"] = str(failure)
            except subprocess.CalledProcessError as failure:
                line["failed"] = f"{' '.join(map(str, failure.cmd))[:200]} ended with {failure.returncode}; see {log}"
            except Exception as failure:  # the other targets go on
                traceback.print_exc(file=file)
                line["failed"] = f"{type(failure).__name__}: {failure}; see {log}"
        line["code"] = code_of(line, self.codes)
        line["seconds"] = round(time.monotonic() - start)
        with self.lock:
            with open(self.results, "a") as file:
                print(json.dumps(line), file=file)
            print(f"{name}: {line['failed'] or 'proved'} ({line['seconds']} s)", flush=True)
            if line["failed"]:
                print("".join(log.read_text(errors="replace").splitlines(keepends=True)[-30:]), flush=True)
        return line["failed"] is None

    # What targets need ------------------------------------------------------------------------------------------

    def install(self, packages):
        """Debian packages that are not here yet."""
        if not shutil.which("dpkg-query"):
            raise SystemExit(f"Debian's packages {' '.join(sorted(packages))} are needed, and there is no dpkg here")
        lines = output("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n").splitlines()
        missing = sorted(packages - {line.split()[0] for line in lines if line.endswith(" installed")})
        if not missing:
            return
        if os.geteuid() != 0:
            raise SystemExit(f"install these packages first, or run this as root: {' '.join(missing)}")
        quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], check=True, **quiet)
        subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing], check=True, **quiet)

    def mirror(self):
        """The address of the Debian mirror that this machine's packages come from."""
        sites = output("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages").split()
        return next(site for site in sites if site.rstrip("/").endswith("/debian"))

    def download(self, package, suite, folder, source=False):
        """A Debian package of some suite, or its original source, as a file in a folder, by an apt of its own."""
        with self.lock:
            state = self.folder / "apt" / suite
            for sub in ("lists/partial", "cache/archives/partial"):
                (state / sub).mkdir(parents=True, exist_ok=True)
            where = f"[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {self.mirror()} {suite} main"
            (state / "sources").write_text(f"deb {where}\ndeb-src {where}\n")
            places = {
                "Dir::Etc::sourcelist": state / "sources", "Dir::Etc::sourceparts": "-",
                "Dir::State::lists": state / "lists", "Dir::Cache": state / "cache",
                "Acquire::Check-Valid-Until": "false", "APT::Sandbox::User": "root",
            }  # fmt: skip
            apt = ["apt-get", "-qq", *(word for name, value in places.items() for word in ("-o", f"{name}={value}"))]
            subprocess.run([*apt, "update"], check=True)
            folder.mkdir(parents=True, exist_ok=True)
            what = ["source", "--tar-only", "--only-source"] if source else ["download"]
            subprocess.run([*apt, *what, package], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        return next(folder.glob("*.orig.tar.*z" if source else "*.deb"))

    def prepare(self):
        """The sources, with the C that Cython makes of them, in FOLDER/source: once for all targets."""
        mark = self.folder / "source.is"
        if mark.exists() and mark.read_text() == self.whole:
            return
        mark.unlink(missing_ok=True)
        shutil.rmtree(self.source, ignore_errors=True)
        self.source.mkdir()
        archive = subprocess.Popen(["git", "-C", CHECKOUT, "archive", self.whole], stdout=subprocess.PIPE)
        subprocess.run(["tar", "--extract", "--directory", self.source], stdin=archive.stdout, check=True)
        if archive.wait() != 0:
            raise SystemExit("git archive failed")
        self.make_venv(self.venv, sys.executable, ["cython>=3.1", "setuptools>=77", "numpy"])
        with open(self.folder / "cython.log", "w") as log:
            done = subprocess.run(
                [self.venv / "bin/python", "setup.py", "--version"], cwd=self.source, stdout=log, stderr=log
            )
        if done.returncode != 0:
            raise SystemExit(f"Cython failed: see {log.name}")
        for path in (self.source / "build").rglob("*.c"):  # newer than any Cython that setup.py could run anew
            os.utime(path, 2 * (time.time() + 10 * 365 * 86400,))
        mark.write_text(self.whole)

    def cython(self):
        """The version of the Cython that made the C."""
        return output(self.venv / "bin/python", "-c", "import Cython; print(Cython.__version__)")

    @staticmethod
    def make_venv(folder, python, requirements, *options):
        """A virtual environment with these requirements."""
        if not (folder / "bin/python").exists():
            subprocess.run([python, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", *options, *requirements], check=True,
                       stderr=subprocess.DEVNULL)  # fmt: skip

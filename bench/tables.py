"""Methods for tables compared: error, log-loss, CPU seconds, memory, each run in a process of its own, on one thread.

    python bench/tables.py FOLDER... --into FILE.jsonl [--only METHOD,...] [--tables NAME,...] [--seeds 3]
                           [--seeds-large 2] [--jobs N] [--threads 1] [--python METHOD=PATH ...]
    python bench/tables.py --report FILE.jsonl... [--against METHOD] [--only METHOD,...] [--picture FILE.png]

The first trains and appends a line of JSON a run; runs that the file has already are left out, so that a stopped bench
goes on where it was. bench/table_data.py says what the folders hold, bench/table_methods.py what the methods are. A
seed is a split, the same for all methods: of a published table the split of this number, else a fifth of the rows drawn
for the test (of each class alike); the methods get it as their seed as well. Tables of 10,000 rows and more have fewer
seeds. Every library may live in an environment of its own: --python says which. With as many --jobs as the machine has
processors they slow each other down: compare seconds of runs with the same number of jobs.

The second prints what the files hold (bench/table_report.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import SLOWING
from table_data import is_table, name_of, rows_and_splits
from table_methods import METHODS

LARGE = 10_000  # rows, from which on a table has fewer seeds
LIMITING = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "CYDROP_NUM_THREADS"

Key = tuple[str, int, str, int]  # table, seed, method, threads


@dataclass(frozen=True)
class Job:
    path: Path
    rows: int
    seed: int
    method: str
    threads: int

    @property
    def key(self) -> Key:
        return name_of(self.path), self.seed, self.method, self.threads


def key_of(run: dict[str, Any]) -> Key:
    return run["table"], run["seed"], run["method"], run["threads"]


def read_runs(*files: Path, key: Callable[[dict[str, Any]], tuple[Any, ...]] = key_of) -> list[dict[str, Any]]:
    """All runs of the files, of those with the same key (table, seed, method and threads) the last; a line that was not
    written to its end is left out."""
    found = {}
    for file in files:
        for line in file.read_text().split("\n"):
            try:
                run = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[key(run)] = run
    return list(found.values())


def append_run(file: Path, run: dict[str, Any]) -> None:
    """A line of its own, also after one that was not written to its end."""
    with file.open("a+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
        torn = bool(end) and stream.read(1) != b"\n"
        stream.write(b"\n" * torn + json.dumps(run).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def jobs_for(
    paths: list[Path], methods: list[str], seeds: int, seeds_large: int, threads: int, longest_first: bool
) -> list[Job]:
    """The methods next to each other for each split, the splits of a table after each other."""
    tables = [(path, *rows_and_splits(path)) for path in paths]
    tables.sort(key=lambda table: table[1], reverse=longest_first)
    found = []
    for path, rows, splits in tables:
        count = seeds_large if rows >= LARGE else seeds
        for seed in range(count if splits is None else min(count, splits)):
            found += [Job(path, rows, seed, method, threads) for method in methods]
    return found


def environment(threads: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in SLOWING}
    if "PYTHONPATH" in kept:  # the processes work in another folder
        kept["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in kept["PYTHONPATH"].split(os.pathsep))
    return kept | dict.fromkeys(LIMITING, str(threads))


def run_alone(job: Job, python: str) -> dict[str, Any]:
    """What a process of its own finds. RuntimeError with its last line where it fails."""
    script = Path(__file__).resolve().parent / "table_methods.py"
    command = [python, str(script), job.method, str(job.path.resolve()), str(job.seed), str(job.threads)]
    with tempfile.TemporaryDirectory() as folder:  # for what libraries write into the folder that they run in
        ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment(job.threads))
    if ended.returncode:
        raise RuntimeError((ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"])[-1])
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def run_all(jobs: list[Job], file: Path, pythons: dict[str, str], at_once: int) -> int:
    """Runs and appends what the file does not have yet; returns how many failed."""
    there = {key_of(run) for run in read_runs(file)} if file.exists() else set()
    left = [job for job in jobs if job.key not in there]
    print(f"{len(jobs)} runs, {len(jobs) - len(left)} of them there already", flush=True)
    failed = 0
    with ThreadPoolExecutor(at_once) as pool:
        waiting = {pool.submit(run_alone, job, pythons.get(job.method, sys.executable)): job for job in left}
        try:
            for number, future in enumerate(as_completed(waiting), 1):
                job = waiting[future]
                title = f"{number:>4}/{len(left)}  {name_of(job.path):<28}{job.seed:>3}  {job.method:<14}"
                try:
                    run = future.result() | {"jobs": at_once}
                except RuntimeError as error:
                    failed += 1
                    print(f"{title} failed: {error}", flush=True)
                    continue
                append_run(file, run)
                print(f"{title}{run['error']:>10.4g}{run['fit_cpu']:>9.2f} s", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def parsed(arguments: list[str] | None = None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description="Methods for tables compared.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--into", type=Path, metavar="FILE", help="JSON lines that runs are appended to")
    parser.add_argument("--report", nargs="+", type=Path, metavar="FILE", help="print what these files hold")
    parser.add_argument("--only", type=names, metavar="METHOD,...", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--tables", type=names, metavar="NAME,...", help="these tables alone")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--seeds-large", type=int, default=2, metavar="N", help=f"for {LARGE:,} rows and more")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at once")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each process")
    parser.add_argument("--python", action="append", default=[], metavar="METHOD=PATH", help="an interpreter for it")
    parser.add_argument("--against", default="realmlp-td", metavar="METHOD", help="that the report compares with")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="error and seconds of the report's methods")
    return parser, parser.parse_args(arguments)


def main() -> None:
    parser, given = parsed()
    for name in ("seeds", "seeds_large", "jobs", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(given, name)}")
    methods = given.only or list(METHODS)
    pythons = dict(choice.partition("=")[::2] for choice in given.python)
    for method in [*methods, *pythons, given.against]:
        if method not in METHODS:
            parser.error(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    if given.report:
        from table_report import report

        runs = [run for run in read_runs(*given.report) if not given.tables or run["table"] in given.tables]
        report([run for run in runs if run["method"] in methods], given.against, given.picture)
        return
    if not given.folders or given.into is None:
        parser.error("needs folders with tables and --into, or --report")
    paths = [path for folder in given.folders for path in sorted(folder.iterdir()) if is_table(path)]
    unknown = set(given.tables or ()) - {name_of(path) for path in paths}
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))} in these folders")
    chosen = [path for path in paths if not given.tables or name_of(path) in given.tables]
    jobs = jobs_for(chosen, methods, given.seeds, given.seeds_large, given.threads, longest_first=given.jobs > 1)
    failed = run_all(jobs, given.into, pythons, given.jobs)
    if failed:
        sys.exit(f"{failed} runs failed; the same command tries them again")


if __name__ == "__main__":
    main()

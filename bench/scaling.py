"""Training on more threads, on more processes, and on several machines: time, efficiency, communication.

    python bench/scaling.py [--only L] [--batch 1024] [--workers 1,2,4] [--rounds 5] [--into FILE.json]
                            [--mpiexec "mpiexec -hosts a,b"]

A worker is a thread of one process, or a process (a rank of MPI) of one thread. In strong scaling all workers share a
batch of --batch rows; in weak scaling there are --batch rows for each of them. Every figure is the median of --rounds
processes of their own (of --rounds mpiexecs), the configurations taking turns. Efficiency is the time of one ordinary
step on one thread divided by the time at hand, and, in strong scaling, by the number of workers. Communication is the
share of the time that rank 0 spends in MPI's calls, waiting for the others included.

"sharded" is one process with the additions of DataParallel(shards=8), which every number of ranks shares. Ranks need
mpi4py and mpiexec beside Python or on the PATH; without them only threads are measured, and that is said.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import leave_slowing_variables

import cydrop as cd

SIZES = {
    "M": (784, 512, 512, 10),
    "L": (784, 1024, 1024, 1024, 10),
    "XL": (784, 4096, 4096, 10),
}
STEPS = {"M": 24, "L": 12, "XL": 4}  # of an epoch
EPOCHS = 4  # the first one warms up
SHARDS = 8


def network(sizes: tuple[int, ...], threads: int) -> cd.Network:
    layers: list[Any] = []
    for units in sizes[1:-1]:
        layers += [cd.Dense(units, activation="relu"), cd.Dropout(0.5)]
    return cd.Network([*layers, cd.Dense(sizes[-1])], optimizer=cd.Adam(1e-3), seed=0, n_threads=threads)


def timed_communicator() -> Any:
    """MPI's communicator of all processes, which adds up the seconds of its calls in `seconds`."""
    from mpi4py import MPI

    class Timed(MPI.Intracomm):
        seconds = 0.0

    def timing(name: str) -> Any:
        original = getattr(MPI.Intracomm, name)

        def call(self: Timed, *arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(self, *arguments, **named)
            finally:
                Timed.seconds += time.perf_counter() - start

        return call

    for name in dir(MPI.Intracomm):
        if name.lower() in ("allgather", "allgatherv", "allreduce", "alltoall", "alltoallv", "barrier", "bcast"):
            setattr(Timed, name, timing(name))
    return Timed(MPI.COMM_WORLD)


def measure(name: str, batch: int, threads: int, kind: str) -> dict[str, float] | None:
    """Seconds a step in this process, and the share of communication; None on ranks but the first."""
    rng = np.random.default_rng(0)
    rows = batch * STEPS[name]
    X = rng.random((rows, SIZES[name][0]), dtype=np.float32)
    y = rng.integers(0, SIZES[name][-1], rows)
    net, comm = network(SIZES[name], threads), None
    options: dict[str, Any] = {}
    if kind != "threads":
        comm = timed_communicator() if kind == "ranks" else None
        options = {"parallel": cd.distributed.DataParallel(comm, shards=SHARDS)}
    seconds, talking = [], []
    for _ in range(EPOCHS):
        before = type(comm).seconds if comm is not None else 0.0
        net.fit(X, y, epochs=1, batch_size=batch, verbose=0, **options)
        seconds.append(net.history.metrics["seconds"][-1])
        talking.append((type(comm).seconds if comm is not None else 0.0) - before)
    if comm is not None and comm.rank:
        return None
    best = int(np.argmin(seconds[1:])) + 1
    return {"step": seconds[best] / STEPS[name], "share": talking[best] / seconds[best]}


def environment(threads: int) -> dict[str, str]:
    return os.environ | {"CYDROP_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}


def run(name: str, batch: int, workers: int, kind: str, mpiexec: list[str]) -> dict[str, float]:
    """A measurement in processes of its own."""
    threads = 1 if kind == "ranks" else workers
    command = [sys.executable, __file__, "--measure", name, str(batch), str(threads), kind]
    if kind == "ranks":
        command = [*mpiexec, "-n", str(workers), sys.executable, "-m", "mpi4py", *command[1:]]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(threads))
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def find_mpiexec(given: str | None) -> tuple[list[str], str]:
    """The command, or why there is none."""
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        return [], "mpi4py is not installed"
    if given:
        return shlex.split(given), ""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    return ([found], "") if found else ([], "no mpiexec beside Python or on the PATH")


def report(name: str, batch: int, counts: list[int], rounds: int, mpiexec: list[str]) -> dict[str, Any]:
    kinds = ["threads", "sharded", *(["ranks"] if mpiexec else [])]
    wanted = [(batch, n, kind, "strong") for kind in kinds for n in counts]
    wanted += [(batch * n, n, kind, "weak") for kind in kinds for n in counts if n > 1]
    found: dict[tuple[int, int, str, str], list[dict[str, float]]] = {job: [] for job in wanted}
    for _ in range(rounds):
        for job in wanted:
            found[job].append(run(name, job[0], job[1], job[2], mpiexec))
    steps = {job: statistics.median(one["step"] for one in ones) for job, ones in found.items()}
    shares = {job: statistics.median(one["share"] for one in ones) for job, ones in found.items()}
    alone = steps[batch, counts[0], "threads", "strong"] * counts[0]
    print(f"\n{name} {'-'.join(map(str, SIZES[name]))}")
    print(f"{'':<8}{'workers':<18}{'rows':>7}{'ms a step':>12}{'efficiency':>12}{'communication':>15}")
    for job in wanted:
        rows, n, kind, scaling = job
        efficiency = alone / steps[job] / (n if scaling == "strong" else 1)
        share = f"{shares[job]:>14.0%}" if kind == "ranks" else f"{'-':>14}"
        label = {"threads": "threads", "sharded": "threads, sharded", "ranks": "ranks"}[kind]
        print(f"{scaling:<8}{n:>2} {label:<15}{rows:>7}{1e3 * steps[job]:>12.2f}{efficiency:>12.2f} {share}")
    return {
        "network": name,
        "results": [
            {"rows": job[0], "workers": job[1], "kind": job[2], "scaling": job[3], "step": steps[job]}
            | {"share": shares[job], "rounds": found[job]}
            for job in wanted
        ],
    }


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        name, batch, threads, kind = sys.argv[2:]
        found = measure(name, int(batch), int(threads), kind)
        if found is not None:
            print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=SIZES, help="this network alone")
    parser.add_argument("--batch", type=int, default=1024, metavar="ROWS")
    parser.add_argument("--workers", metavar="N,...", help="numbers of workers, 1 among them (1, 2, 4, ... processors)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--mpiexec", metavar="COMMAND", help="starts the ranks")
    parser.add_argument("--into", type=Path, metavar="FILE", help="all figures as JSON")
    options = parser.parse_args()
    leave_slowing_variables()
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [2**i for i in range(4) if 2**i <= min(processors, SHARDS)]
    if options.workers:
        counts = [int(n) for n in options.workers.split(",")]
        if counts[0] != 1:
            parser.error("--workers must begin with 1")
    mpiexec, why = find_mpiexec(options.mpiexec)
    print(f"{processors} processors, cydrop {cd.__version__}" + (f"; no ranks: {why}" if why else ""))
    results = [
        report(name, options.batch, counts, options.rounds, mpiexec)
        for name in ([options.only] if options.only else SIZES)
    ]
    if options.into:
        options.into.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""The share of this machine's limit that each part of a training step reaches.

    python bench/roofline.py [--threads N] [--only M] [--json FILE]

The limit is measured first (limits.c, which needs a C compiler with OpenMP): the rate of multiply-adds, and the
bandwidth of reading and writing as much memory as the network's weights and moments take, in cache or not.

For each operation: time a step, GFLOP/s, and the share of the limit, twice:

* "of both": (arithmetic at the peak rate + memory at full bandwidth, one after the other) / time.
* "of the greater": the classic roofline, where memory hides completely behind arithmetic, or arithmetic behind memory.

Counted are the multiply-adds of the products, 2 rows n_in n_out each, and the bytes that must move: each factor and the
result once, weights and moments of the optimizer read and written. Masks, loss and activations are nobody's arithmetic:
the time they take counts against the share.
"""

import argparse
import ctypes
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import peers
from vs_peers import describe_machine, networks

from cydrop._run.core import core_of

ROUNDS = 7  # the machine and the network are measured in turns, this often: medians


def main() -> None:
    import cydrop

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="", metavar="NAME", help="networks whose name begins so: T, S, M, XL, ...")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    threads = arguments.threads or int(cydrop.show_config()["n_threads"])
    machine = describe_machine(threads)
    print(f"{machine['processor']}, {threads} threads, {machine['instruction set']}\n")
    report: dict[str, Any] = {"machine": machine, "networks": []}
    with tempfile.TemporaryDirectory() as folder:
        limits = compile_limits(Path(folder))
        for name, task in networks().items():
            if name.startswith(arguments.only):
                found = measure(name, task, threads, limits)
                report["networks"].append(found)
                print_network(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def compile_limits(folder: Path) -> Any:
    library = folder / "limits.so"
    command = ["cc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-o", str(library),
               str(Path(__file__).with_name("limits.c"))]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"limits.c could not be compiled ({' '.join(command)}):\n{getattr(error, 'stderr', error)}")
    loaded = ctypes.CDLL(str(library))
    loaded.multiply_adds.restype = loaded.update.restype = ctypes.c_double
    loaded.multiply_adds.argtypes = [ctypes.c_int, ctypes.c_long]
    loaded.update.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
    return loaded


def measure(name: str, task: dict[str, Any], threads: int, limits: Any) -> dict[str, Any]:
    sizes, batch, steps = task["sizes"], task["batch"], task["steps"]
    network = peers.cydrop_network(sizes, threads)
    X, y = peers.training_data(task)
    network.fit(X, y, epochs=1, batch_size=batch, shuffle=False, verbose=0)
    memory = np.zeros(3 * count(sizes), dtype=np.float32)
    workspace = core_of(network).model.borrow(batch, training=True)
    core_of(network).model.give_back(workspace)  # fit takes it from there
    peaks, bandwidths, rounds = [], [], []
    for _ in range(ROUNDS):
        peaks.append(limits.multiply_adds(threads, 2_000_000))
        bandwidths.append(limits.update(threads, memory.ctypes.data, memory.size, max(1, 2**25 // memory.size)))
        workspace.start_clock()
        network.fit(X, y, epochs=1, batch_size=batch, shuffle=False, verbose=0)
        rounds.append(workspace.seconds())
    peak, bandwidth = statistics.median(peaks), statistics.median(bandwidths)
    parts = []
    dense = [i for i, parts_of in enumerate(rounds[0][1]) if parts_of[2] > 0]  # the operations with weights
    for place, (n_in, n_out, op) in enumerate(zip(sizes[:-1], sizes[1:], dense, strict=True)):
        work, activations = 2 * batch * n_in * n_out, 4 * batch * (n_in + n_out)
        weights = 4 * n_in * n_out
        for which, label, moved in (
            (0, "forward", weights + activations),
            (1, "backward, input", weights + activations),
            (2, "backward, weights + Adam", 6 * weights + activations),
        ):
            if which != 1 or place > 0:
                seconds = statistics.median(r[1][op][which] for r in rounds) / steps
                parts.append(part(f"{n_in} x {n_out} {label}", seconds, work, moved, peak, bandwidth))
    for label in rounds[0][0]:
        parts.append(part(label, statistics.median(r[0][label] for r in rounds) / steps, 0, 0, peak, bandwidth))
    whole = statistics.median(sum(r[0].values()) + sum(map(sum, r[1])) for r in rounds) / steps
    work, moved = sum(p["work"] for p in parts), sum(p["moved"] for p in parts)
    parts.append(part("the whole step", whole, work, moved, peak, bandwidth))
    return {"name": name, "batch": batch, "peak": peak, "bandwidth": bandwidth, "parts": parts}


def count(sizes: list[int]) -> int:
    return sum((a + 1) * b for a, b in itertools.pairwise(sizes))


def part(label: str, seconds: float, work: float, moved: float, peak: float, bandwidth: float) -> dict[str, Any]:
    arithmetic, memory = work / peak, moved / bandwidth
    return {
        "label": label, "seconds": seconds, "work": work, "moved": moved,
        "of_both": (arithmetic + memory) / seconds if seconds else 0.0,
        "of_greater": max(arithmetic, memory) / seconds if seconds else 0.0,
    }  # fmt: skip


def print_network(found: dict[str, Any]) -> None:
    print(f"{found['name']}, batch {found['batch']}: the machine's limit now is {found['peak'] / 1e9:.0f} GFLOP/s and "
          f"{found['bandwidth'] / 1e9:.0f} GB/s (read + written)")  # fmt: skip
    whole = found["parts"][-1]["seconds"]
    print(f"    {'':<36}{'us':>9}{'of step':>9}{'GFLOP/s':>9}{'of both':>9}{'of the greater':>16}")
    for p in found["parts"]:
        rate = f"{p['work'] / p['seconds'] / 1e9:.0f}" if p["work"] else ""
        shares = f"{p['of_both']:>9.0%}{p['of_greater']:>16.0%}" if p["work"] else ""
        print(f"    {p['label']:<36}{p['seconds'] * 1e6:>9.1f}{p['seconds'] / whole:>9.1%}{rate:>9}{shares}")
    print()


if __name__ == "__main__":
    main()

"""The share of this machine's limit that each part of a training step reaches.

    python bench/roofline.py [--threads N] [--only M] [--precision bfloat16] [--json FILE]

The limit is measured first (limits.c, which needs a C compiler with OpenMP): the rate of multiply-adds, and the
bandwidth of reading and writing as much memory as the network's weights and moments take, in cache or not.

For each operation: time a step, GFLOP/s, and the share of the limit, twice:

* "of both": (arithmetic at the peak rate + memory at full bandwidth, one after the other) / time.
* "of the greater": the classic roofline, where memory hides completely behind arithmetic, or arithmetic behind memory.

With --precision bfloat16 the rate of arithmetic is that of the instruction for it, where there is one.

Counted are the multiply-adds of the products, 2 rows n_in n_out each, and the bytes that must move: each factor and the
result once, weights and moments of the optimizer read and written. Masks, loss, activations, cosines and all else that
is no product are nobody's arithmetic: the time they take counts against the share.

RealMLP (Holzmüller et al. 2024) is the network of `cydrop.tabular`: embeddings of 20 numbers, learned scales, three
dense layers of 256 with parametric activations and dropout. Its step is also compared with that of the bare network,
20-256-256-256-1 with ReLU, in turns, by CPU seconds.
"""

import argparse
import ctypes
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peers
from vs_peers import describe_machine, networks

from cydrop._run.core import core_of

ROUNDS = 7  # the machine and the network are measured in turns, this often: medians
TABLE = {"sizes": [20, 256, 256, 256, 1], "batch": 256, "steps": 40}
OTHERS = {"numbers": "NumericEmbedding", "parametric scale": "Scale", "parametric mish": "Parametric(mish)"}


def main() -> None:
    import cydrop

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="", metavar="NAME", help="networks whose name begins so: T, S, M, XL, ...")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of products")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    threads = arguments.threads or int(cydrop.show_config()["n_threads"])
    machine = describe_machine(threads)
    print(f"{machine['processor']}, {threads} threads, {machine['instruction set']}\n")
    report: dict[str, Any] = {"machine": machine, "networks": []}
    with tempfile.TemporaryDirectory() as folder:
        limits = compile_limits(Path(folder))
        makers = {name: (task, peers.cydrop_network(task["sizes"], threads)) for name, task in networks().items()}
        makers["RealMLP 20-80-256-256-256-1"] = TABLE, realmlp(threads)
        for name, (task, network) in makers.items():
            if name.startswith(arguments.only):
                network.precision = arguments.precision
                found = measure(name, task, network, threads, limits)
                report["networks"].append(found)
                print_network(found)
                if task is TABLE:
                    found["times the bare network"] = compare(threads)
                    print(f"    {found['times the bare network']:.2f} times the CPU seconds of the bare network\n")
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
    loaded.multiply_adds.restype = loaded.pair_multiply_adds.restype = loaded.update.restype = ctypes.c_double
    loaded.multiply_adds.argtypes = loaded.pair_multiply_adds.argtypes = [ctypes.c_int, ctypes.c_long]
    loaded.update.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
    return loaded


def realmlp(threads: int) -> Any:
    """The network of RealMLP for one target, with the optimizer and the schedules of its training."""
    import cydrop as cd

    dense = {"parametrization": "ntk", "learning_rate_factor": {"bias": 0.1}, "decay_factor": {"bias": 0.0}}
    tenth = {"learning_rate_factor": 0.1, "decay_factor": 0.1}
    layers: list[Any] = [cd.NumericEmbedding("pbld", **tenth), cd.Scale(learning_rate_factor=6.0, decay_factor=6.0)]
    for units in TABLE["sizes"][1:-1]:
        layers += [cd.Dense(units, **dense), cd.Parametric("mish", **tenth), cd.Dropout(cd.schedules.FlatCos(0.15))]
    optimizer = cd.AdamW(cd.schedules.CosLog4(1e-3), beta2=0.95, weight_decay=cd.schedules.FlatCos(0.02))
    return cd.Network([*layers, cd.Dense(1, **dense)], loss="mse", optimizer=optimizer, seed=0, n_threads=threads)


def compare(threads: int) -> float:
    """CPU seconds of a step of RealMLP, in those of the bare network."""
    import cydrop as cd

    layers = [layer for units in TABLE["sizes"][1:-1] for layer in (cd.Dense(units), cd.ReLU(), cd.Dropout(0.15))]
    bare = cd.Network([*layers, cd.Dense(1)], loss="mse", optimizer=cd.AdamW(1e-3), seed=0, n_threads=threads)
    X, y = peers.training_data(TABLE)
    whole, ratios = realmlp(threads), []
    for _ in range(3 * ROUNDS + 1):
        seconds = []
        for network in (whole, bare):
            start = time.process_time()
            network.fit(X, y, epochs=1, batch_size=TABLE["batch"], shuffle=False, verbose=0)
            seconds.append(time.process_time() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios[1:])  # the first builds the networks


def measure(name: str, task: dict[str, Any], network: Any, threads: int, limits: Any) -> dict[str, Any]:
    batch, steps = task["batch"], task["steps"]
    X, y = peers.training_data(task)
    network.fit(X, y, epochs=1, batch_size=batch, shuffle=False, verbose=0)
    memory = np.zeros(3 * sum(array.size for array in network.parameters().values()), dtype=np.float32)
    workspace = core_of(network).model.borrow(batch, training=True)
    core_of(network).model.give_back(workspace)  # fit takes it from there
    peaks, bandwidths, rounds = [], [], []
    rate = limits.multiply_adds
    if network.precision == "bfloat16" and limits.pair_multiply_adds(1, 1):
        rate = limits.pair_multiply_adds
    for _ in range(ROUNDS):
        peaks.append(rate(threads, 2_000_000))
        bandwidths.append(limits.update(threads, memory.ctypes.data, memory.size, max(1, 2**25 // memory.size)))
        workspace.start_clock()
        network.fit(X, y, epochs=1, batch_size=batch, shuffle=False, verbose=0)
        rounds.append(workspace.seconds())
    peak, bandwidth = statistics.median(peaks), statistics.median(bandwidths)
    parts = []
    sizes = parameters_of_each_layer(network)
    for place, op in enumerate(core_of(network).model.plan.ops):
        n_in, n_out, weights = op.n_in, op.n_out, 4 * next(sizes)
        inputs, outputs = 4 * batch * n_in, 4 * batch * n_out
        took = [statistics.median(r[1][place][which] for r in rounds) / steps for which in range(3)]
        if op.kind == "dense":
            work, label = 2 * batch * n_in * n_out, f"{n_in} x {n_out}"
            own = [
                ("forward", took[0], weights + inputs + outputs),
                ("backward, input", took[1], weights + inputs + outputs),
                ("backward, weights + Adam", took[2], 6 * weights + inputs + outputs),
            ]
        else:
            named = OTHERS.get(op.kind) or OTHERS[f"{op.kind} {op.variant}"]
            work, label = 0, f"{named} {n_in} -> {n_out}"
            back = outputs + inputs * (2 if place > 0 else 1) + 6 * weights  # d loss / d x, unless nobody wants it
            own = [("forward", took[0], weights + inputs + outputs), ("backward + Adam", took[1] + took[2], back)]
        for which, seconds, moved in own:
            if which != "backward, input" or place > 0:
                parts.append(part(f"{label} {which}", seconds, work, moved, peak, bandwidth))
    for label in rounds[0][0]:
        parts.append(part(label, statistics.median(r[0][label] for r in rounds) / steps, 0, 0, peak, bandwidth))
    whole = statistics.median(sum(r[0].values()) + sum(map(sum, r[1])) for r in rounds) / steps
    work, moved = sum(p["work"] for p in parts), sum(p["moved"] for p in parts)
    parts.append(part("the whole step", whole, work, moved, peak, bandwidth))
    return {"name": name, "batch": batch, "peak": peak, "bandwidth": bandwidth, "parts": parts}


def parameters_of_each_layer(network: Any) -> Iterator[int]:
    """How many numbers each layer with parameters has; those of a dense layer without its bias."""
    for _, named in itertools.groupby(network.parameters().items(), lambda item: item[0].partition(".")[0]):
        arrays = {name.partition(".")[2]: array for name, array in named}
        yield sum(array.size for name, array in arrays.items() if set(arrays) != {"weight", "bias"} or name != "bias")


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
    print(f"    {'':<44}{'us':>9}{'of step':>9}{'GFLOP/s':>9}{'of both':>9}{'of the greater':>16}")
    for p in found["parts"]:
        rate = f"{p['work'] / p['seconds'] / 1e9:.0f}" if p["work"] else ""
        shares = f"{p['of_both']:>9.0%}{p['of_greater']:>16.0%}" if p["moved"] else ""
        print(f"    {p['label']:<44}{p['seconds'] * 1e6:>9.1f}{p['seconds'] / whole:>9.1%}{rate:>9}{shares}")
    print()


if __name__ == "__main__":
    main()

"""Training on a memory-mapped file against the same rows in memory: the memory that it takes, and the speed.

    python bench/memory_mapped.py FOLDER [--gigabytes N] [--columns N] [--turns N] [--keep]

Writes N GB of float32 rows and their labels to FOLDER, and trains on them for an epoch at a time:

memory   a process of its own trains, evaluates and predicts on the file. Its own memory is RssAnon of
         /proc/self/status, looked at every 5 ms: pages of the file, which the system takes back when it needs them,
         are not in it.
speed    epochs on the file and in memory take turns; medians. The file is in the page cache, as far as that reaches.
         "fit" is the whole call, with the check of all rows, on a file that was mapped just before: each of its pages
         is touched for the first time.
cold     the file is put out of the page cache; then a process of its own trains twice. As far as the memory reaches,
         the epoch finds in the page cache what the check has read.
"""

import argparse
import gc
import hashlib
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, print_machine

CLASSES, BATCH, PART = 10, 512, 16384
NETWORKS = {"small": (32,), "M": (512, 512)}  # hidden units: the less there is to compute, the more reading counts


def network(hidden: tuple[int, ...]) -> Any:
    import cydrop as cd

    layers = [layer for units in hidden for layer in (cd.Dense(units, activation="relu"), cd.Dropout(0.5))]
    return cd.Network([*layers, cd.Dense(CLASSES)], seed=0)


def write(folder: Path, rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, columns))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.int64, (rows,))
    centres = rng.standard_normal((CLASSES, columns), dtype=np.float32)
    for start in range(0, rows, PART):
        labels = rng.integers(0, CLASSES, min(PART, rows - start))
        y[start : start + PART] = labels
        X[start : start + PART] = centres[labels] + rng.standard_normal((len(labels), columns), dtype=np.float32)
    X.flush()
    y.flush()


def mapped(folder: Path) -> tuple[Any, Any]:
    return np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")


def own_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


class Peak(threading.Thread):
    """The most memory of its own that this process had from `start` to `end`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.most = max(self.most, own_memory())

    def end(self) -> int:
        self.over.set()
        self.join()
        return self.most


def show_memory(folder: Path) -> None:
    X, y = mapped(folder)
    net = network(NETWORKS["M"])
    begin = own_memory()
    for what, call in {
        "fit, 10 % of the rows for validation": lambda: net.fit(
            X, y, epochs=1, batch_size=BATCH, validation_split=0.1, verbose=0
        ),
        "evaluate": lambda: net.evaluate(X, y),
        "predict": lambda: net.predict(X),
    }.items():
        peak = Peak()
        peak.start()
        result = call()
        most = peak.end()
        del result
        print(f"  {what}: {most / 1e6:.0f} MB at most, {begin / 1e6:.0f} MB of them before")


def show_cold(folder: Path) -> None:
    for name, hidden in NETWORKS.items():
        seconds = []
        for cold in (True, False):
            if cold:
                drop(folder)
            net = network(hidden)
            X, y = mapped(folder)
            start = time.perf_counter()
            net.fit(X, y, epochs=1, batch_size=BATCH, verbose=0)
            seconds += [time.perf_counter() - start, net.history.metrics["seconds"][0]]
            del X, y  # what is mapped stays in the page cache
        print("  {}, fit: {:.2f} s, {:.2f} s of them the epoch; after that {:.2f} s, {:.2f} s".format(name, *seconds))


def drop(folder: Path) -> None:
    """Puts the files out of the page cache."""
    for name in ("X.npy", "y.npy"):
        file = os.open(folder / name, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def show_speed(folder: Path, turns: int) -> None:
    X, y = mapped(folder)
    in_memory = np.array(X), np.array(y)
    for name, hidden in NETWORKS.items():
        fits: dict[str, list[float]] = {"memory": [], "file": []}
        epochs: dict[str, list[float]] = {"memory": [], "file": []}
        for turn in range(-1, turns):  # the first does not count
            for where in fits:
                rows = in_memory if where == "memory" else mapped(folder)
                net = network(hidden).build(rows[0].shape[1])
                gc.collect()
                start = time.perf_counter()
                net.fit(*rows, epochs=1, batch_size=BATCH, verbose=0)
                if turn >= 0:
                    fits[where].append(time.perf_counter() - start)
                    epochs[where].append(net.history.metrics["seconds"][0])
        for what, times in {"fit": fits, "epoch": epochs}.items():
            memory, file = statistics.median(times["memory"]), statistics.median(times["file"])
            print(f"  {name}, {what}: {memory:.2f} s in memory, {file:.2f} s on the file: "
                  f"{memory / file:.3f} of the speed")  # fmt: skip
    found = {bits(hidden, rows) for rows in (in_memory, mapped(folder))}
    print(f"  bits with shuffle='chunks', in memory and on the file: {'equal' if len(found) == 1 else 'DIFFERENT'}")


def bits(hidden: tuple[int, ...], rows: tuple[Any, Any]) -> str:
    net = network(hidden)
    net.fit(*rows, epochs=1, batch_size=BATCH, shuffle="chunks", verbose=0)
    return hashlib.sha256(b"".join(array.tobytes() for array in net.parameters().values())).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--columns", type=int, default=784)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leaves the files in FOLDER")
    parser.add_argument("--part", choices=["memory", "cold"], help="only this, on files that are there")
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.part is not None:
        {"memory": show_memory, "cold": show_cold}[arguments.part](folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    print_machine(describe_machine())
    rows = int(arguments.gigabytes * 1e9 / (4 * arguments.columns))
    print(f"X: {rows:,} x {arguments.columns} float32, {4e-9 * rows * arguments.columns:.2f} GB; batches of {BATCH}")
    try:
        write(folder, rows, arguments.columns)
        for part in ("memory", "cold"):
            print(f"{part}:", flush=True)
            subprocess.run([sys.executable, __file__, str(folder), "--part", part], check=True)
        print("speed:", flush=True)
        show_speed(folder, arguments.turns)
    finally:
        if not arguments.keep:
            for name in ("X.npy", "y.npy"):
                (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main()

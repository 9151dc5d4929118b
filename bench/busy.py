"""Threads on a machine that others use, too: what all threads cost against one, while other processes are busy.

    python bench/busy.py [--others N] [--threads N] [--turns N] [--only TEXT] [--libraries NAME,...] [--json FILE]

N processes that only count (one, unless --others says more) take their share of the processors. Beside them the same
work is done on one thread and on all of them in turns of .1 s and more, each in a process of its own, in cydrop,
PyTorch and JAX, which peers.py describes: wall time a call, medians of the turns, and the ratio of all threads to one.
Below 1 the threads are worth it; above 1 they are in each other's way. "quiet": without the other processes.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

from machine import processor
from vs_peers import Competitor

PEERS = {
    "training": {"cydrop": "cydrop", "PyTorch": "PyTorch", "JAX": "JAX, one call per step"},
    "prediction": {"cydrop": "cydrop", "PyTorch": "PyTorch"},
    "dropout": {"cydrop": "cydrop", "PyTorch": "PyTorch", "JAX": "JAX"},
}


def tasks() -> list[dict[str, Any]]:
    found = []
    for sizes, batch, steps in (
        ([64, 128, 10], 32, 500), ([27, 200, 100, 3], 100, 200), ([784, 512, 512, 10], 128, 60),
        ([784, 1024, 1024, 1024, 10], 128, 20),
    ):  # fmt: skip
        title = f"training step, {'-'.join(map(str, sizes))}, batch {batch}"
        found.append(
            {"kind": "training", "title": title, "unit": steps, "sizes": sizes, "batch": batch, "steps": steps}
        )
    title = "predict, 64-128-10, 1,000 rows"
    found.append({"kind": "prediction", "title": title, "unit": 1, "rows": 1000, "sizes": [64, 128, 10]})
    task = {"size": 2**20, "rate": 0.5, "direction": "forward"}
    found.append({"kind": "dropout", "title": "dropout, 2^20 float32", "unit": 1, **task})
    return found


def count_forever() -> None:
    number = 0
    while True:
        number += 1


def ratio_of(competitors: list[Competitor], turns: int) -> tuple[float, float]:
    """Seconds a call on one thread, and the ratio of all threads to it."""
    for competitor in competitors:
        competitor.seconds.clear()
    for _ in range(turns):
        for competitor in competitors:
            competitor.take_turn()
    one, all_of_them = (competitor.seconds for competitor in competitors)
    return statistics.median(one), statistics.median(b / a for a, b in zip(one, all_of_them, strict=True))


def measure(task: dict[str, Any], name: str, peer: str, arguments: argparse.Namespace) -> dict[str, Any]:
    competitors = [Competitor(name, task["kind"], peer, task, threads) for threads in (1, arguments.threads)]
    try:
        _, quiet = ratio_of(competitors, arguments.turns)
        others = [multiprocessing.Process(target=count_forever, daemon=True) for _ in range(arguments.others)]
        for other in others:
            other.start()
        time.sleep(0.2)
        try:
            one, busy = ratio_of(competitors, arguments.turns)
        finally:
            for other in others:
                other.kill()
                other.join()
    finally:
        for competitor in competitors:
            competitor.close()
    return {"task": task["title"], "library": name, "one": one, "quiet": quiet, "busy": busy}


def main() -> None:
    import cydrop

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--others", type=int, default=1, metavar="N", help="processes that are busy")
    parser.add_argument("--threads", type=int, default=int(cydrop.show_config()["n_threads"]), metavar="N")
    parser.add_argument("--turns", type=int, default=15, metavar="N")
    parser.add_argument("--only", default="", metavar="TEXT", help="tasks whose title has this text")
    parser.add_argument("--libraries", default="cydrop,PyTorch,JAX", metavar="NAME,...", help="these alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results")
    arguments = parser.parse_args()
    for name, least in (("others", 1), ("threads", 2), ("turns", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(arguments, name)}")
    print(f"{processor()}, {arguments.threads} threads against one, {arguments.others} other busy process(es)\n")
    print(f"{'':<60}{'one thread':>12}{'quiet':>8}{'busy':>8}   all threads / one")
    found = []
    for task in tasks():
        for name, peer in PEERS[task["kind"]].items():
            if arguments.only not in task["title"] or name not in arguments.libraries.split(","):
                continue
            try:
                one = measure(task, name, peer, arguments)
            except RuntimeError as error:
                print(f"{task['title']:<50}{name:<10}not here: {error}", flush=True)
                continue
            found.append(one)
            us = f"{1e6 * one['one']:.1f} us"
            print(f"{task['title']:<50}{name:<10}{us:>12}{one['quiet']:>8.2f}{one['busy']:>8.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

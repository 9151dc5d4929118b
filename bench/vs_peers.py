"""cydrop against PyTorch, JAX, scikit-learn, onnxruntime and NumPy: training, dropout, prediction.

    pip install torch jax jaxlib optax scikit-learn onnx onnxruntime    (those that are missing are left out, and named)
    python bench/vs_peers.py [--only TEXT] [--quick] [--threads N] [--cpu] [--json FILE] [--markdown FILE]
    python bench/vs_peers.py --merge FILE... [--json FILE] [--markdown FILE] [--plot FILE.png]

Every competitor is a process of its own (peers.py, peers_bfloat16.py and peers_simplechains.py say what it does). They
take turns (A B C A B C ...): each turn begins with unmeasured calls, which wake sleeping threads, and ends with a
pause, in which spinning threads fall asleep. What is shown: medians over the turns, the quartiles, the ratio (the
median over the turns of the peer's time / cydrop's time in the same turn; above 1, cydrop is faster), and how many
processors a competitor used at a time: its CPU time / the clock's. With --cpu the times are of CPU: on one thread they
say more than the clock where other programs take their share.
"""

import argparse
import contextlib
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import peers
import peers_bfloat16
import peers_simplechains
from machine import processor, processors
from peers_report import draw_plot, markdown, print_section

PEERS = peers.PEERS | {"bfloat16": peers_bfloat16.PEERS} | peers_simplechains.PEERS
PAUSE = 0.15  # seconds between two turns
TURN = 0.15  # seconds that a turn should measure


def networks() -> dict[str, dict[str, Any]]:
    shapes = {
        "T 8-50-1": (32, 500), "S 64-128-10": (32, 500), "M 784-512-512-10": (128, 60),
        "L 784-1024-1024-1024-10": (128, 20), "XL 784-4096-4096-10": (256, 3),
        "untuned 54-150-75-7": (100, 200), "untuned 250-601-299-23": (200, 50),
    }  # fmt: skip
    return {
        name: {"sizes": [int(n) for n in name.split()[1].split("-")], "batch": batch, "steps": steps}
        for name, (batch, steps) in shapes.items()
    }


def tasks(threads: int) -> list[dict[str, Any]]:
    found = []
    for name, network in networks().items():
        title = f"training step, {name}, batch {network['batch']}"
        found.append({"kind": "training", "title": title, "unit": network["steps"], **network})
    for name in ("M", "L", "XL"):
        full, network = next((full, n) for full, n in networks().items() if full.startswith(f"{name} "))
        title = f"training step in bfloat16, {full}, batch {network['batch']}"
        found.append({"kind": "bfloat16", "title": title, "unit": network["steps"], **network})
    title = "training step, matrix exponential 4-32-16-4, 10,000 rows"
    task = {"sizes": [4, 32, 16, 4], "rows": 10_000, "rate": 0.0}
    found.append({"kind": "matrix exponential", "title": title, "unit": 50, **task})
    task = {"sizes": [24, 8, 2], "rows": 200, "rate": 0.2}
    found.append({"kind": "gradients", "title": "gradients alone, 24-8-2, 200 rows", "unit": 1000, **task})
    if threads > 1:
        for name in ("M", "L", "XL"):
            full, network = next((full, n) for full, n in networks().items() if full.startswith(f"{name} "))
            title = f"one thread against {threads}, training step, {full}, batch {network['batch']}"
            found.append({"kind": "threads", "title": title, "unit": network["steps"], **network})
    for exponent, rate, direction in [
        *((exponent, 0.5, direction) for exponent in (16, 18, 20, 22, 24, 26) for direction in ("forward", "backward")),
        (20, 0.3, "forward"), (24, 0.5, "in place"), (24, 0.3, "in place"),
    ]:  # fmt: skip
        title = f"dropout {direction}, 2^{exponent} float32, rate {rate}"
        task = {"size": 2**exponent, "rate": rate, "direction": direction}
        found.append({"kind": "dropout", "title": title, "unit": 1, **task})
    for name, rows in (("S 64-128-10", 1), ("S 64-128-10", 1000), ("M 784-512-512-10", 60000)):
        title = f"predict, {name}, {rows:,} row{'s' if rows > 1 else ''}"
        found.append({"kind": "prediction", "title": title, "unit": 1, "rows": rows, **networks()[name]})
    return found


def main() -> None:
    arguments = parse_arguments()
    if arguments.work:
        work(json.loads(arguments.work))
        return
    report = merged(arguments.merge) if arguments.merge else measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(report))
    if arguments.plot:
        draw_plot(report, arguments.plot)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import cydrop

    threads = arguments.threads or int(cydrop.show_config()["n_threads"])
    kind = "of CPU" if arguments.cpu else "by the clock"
    report: dict[str, Any] = {"machine": describe_machine(threads) | {"seconds": kind}, "sections": []}
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    print("\nmedian [quartiles] of a step or call, how many times cydrop's time, turn by turn, and processors used\n")
    for task in tasks(threads):
        if arguments.only in task["title"]:
            section = compare(task, threads, arguments.turns or (5 if arguments.quick else 15), arguments.cpu)
            report["sections"].append(section)
            print_section(section)
    return report


def merged(paths: list[Path]) -> dict[str, Any]:
    """Reports of one machine as one; of a task that is in several, the last."""
    reports = [json.loads(path.read_text()) for path in paths]
    found = {section["title"]: section for report in reports for section in report["sections"]}
    return {"machine": reports[-1]["machine"], "sections": list(found.values())}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="Speed belongs to a quiet machine: close what else is running."
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="tasks whose title has this text")
    parser.add_argument("--quick", action="store_true", help="5 turns instead of 15")
    parser.add_argument("--turns", type=int, help="how many turns")
    parser.add_argument("--threads", type=int, help="threads for everyone; default: what cydrop would take")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="read these --json files instead")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw some of the ratios (needs matplotlib)")
    parser.add_argument("--cpu", action="store_true", help="CPU time instead of the clock's; for --threads 1")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cpu and arguments.threads != 1:
        parser.error("--cpu is for --threads 1: of more threads it counts those that wait, too")
    return arguments


# A competitor's process -------------------------------------------------------------------------------------


def work(job: dict[str, Any]) -> None:
    """Reads numbers of calls, one per line, and answers with seconds per call, by the clock and of CPU."""
    call = PEERS[job["kind"]][job["peer"]](job["task"], job["threads"])
    unit = job["task"]["unit"]
    call(unit)
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line)
        call(unit)
        start, cpu = time.perf_counter(), time.process_time()
        call(count)
        print((time.perf_counter() - start) / count, (time.process_time() - cpu) / count, flush=True)


class Competitor:
    def __init__(self, name: str, kind: str, peer: str, task: dict[str, Any], threads: int) -> None:
        self.name = name
        self.unit = task["unit"]
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        job = json.dumps({"kind": kind, "peer": peer, "task": task, "threads": threads})
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", job],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=peers.environment(threads),
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        if self.process.stdout.readline().strip() != "ready":
            reason = self.process.stderr.read().strip().splitlines()
            self.close()
            raise RuntimeError(reason[-1] if reason else "it ended without a word")
        self.ask(self.unit)
        self.count = max(1, round(TURN / self.ask(self.unit)[0] / self.unit)) * self.unit

    def ask(self, count: int) -> tuple[float, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        seconds, cpu = self.process.stdout.readline().split()
        return float(seconds), float(cpu)

    def take_turn(self) -> None:
        seconds, cpu = self.ask(self.count)
        self.seconds.append(seconds)
        self.cpu.append(cpu)
        time.sleep(PAUSE)

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.process.wait()


def compare(task: dict[str, Any], threads: int, turns: int, cpu: bool) -> dict[str, Any]:
    if task["kind"] == "threads":
        wanted = [("cydrop", "training", "cydrop", threads), ("cydrop, one thread", "training", "cydrop", 1)]
    else:
        wanted = [(peer, task["kind"], peer, threads) for peer in PEERS[task["kind"]]]
    competitors, absent = [], {}
    for name, kind, peer, count in wanted:
        try:
            competitors.append(Competitor(name, kind, peer, task, count))
        except RuntimeError as error:
            if peer == "cydrop":
                raise
            absent[name] = str(error)
    time.sleep(0.5)
    for _ in range(turns):
        for competitor in competitors:
            competitor.take_turn()
    for competitor in competitors:
        competitor.close()
    rows = [row_of(competitor, competitors[0], cpu) for competitor in competitors]
    return {"title": task["title"], "kind": task["kind"], "rows": rows, "absent": absent}


def row_of(competitor: Competitor, first: Competitor, cpu: bool) -> dict[str, Any]:
    """Medians and quartiles; `processors` is how many were used at a time."""
    seconds, ours = (one.cpu if cpu else one.seconds for one in (competitor, first))
    low, median, high = statistics.quantiles(seconds, n=4)
    ratios = [theirs / own for theirs, own in zip(seconds, ours, strict=True)]
    ratio_low, ratio, ratio_high = statistics.quantiles(ratios, n=4)
    used = statistics.median(a / b for a, b in zip(competitor.cpu, competitor.seconds, strict=True))
    found = {"median": median, "low": low, "high": high,
             "ratio": ratio, "ratio_low": ratio_low, "ratio_high": ratio_high, "processors": used}  # fmt: skip
    return {"label": competitor.name} | {name: float(f"{value:.4g}") for name, value in found.items()}


def describe_machine(threads: int) -> dict[str, Any]:
    import cydrop

    versions = {"cydrop": cydrop.__version__}
    for package in peers.PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": processor(),
        "processors": processors(),
        "threads": threads,
        "instruction set": cydrop.show_config()["simd"],
        "python": platform.python_version(),
        "versions": versions,
    }


if __name__ == "__main__":
    main()

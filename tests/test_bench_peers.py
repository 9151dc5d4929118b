"""bench/vs_peers.py: the peers do the same work, what is not there is named, and the report has what was measured."""

import importlib
import importlib.machinery
import importlib.metadata
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of the folder."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture
def report(bench):
    """A report in which every library takes twice as long as the one before it."""

    def section(task, names):
        rows = [
            {"label": name, "median": 1e-3, "low": 9e-4, "high": 2e-3, "ratio": 2.0**k, "ratio_low": 2.0**k,
             "ratio_high": 3.0**k, "processors": 0.5 + k} for k, name in enumerate(names)
        ]  # fmt: skip
        return {
            "title": task["title"],
            "kind": task["kind"],
            "rows": rows,
            "absent": {"PyTorch, IPEX": "no such thing"},
        }

    machine = {"processor": "a processor", "processors": 2, "threads": 1, "instruction set": "avx2",
               "python": "3.11", "versions": {"numpy": "2"}, "seconds": "of CPU"}  # fmt: skip
    vs_peers = bench("vs_peers")
    return {"machine": machine, "sections": [section(t, vs_peers.PEERS[t["kind"]]) for t in vs_peers.tasks(1)]}


def small(kind):
    """A task of one of SimpleChains' networks. Nothing is ever dropped at this rate, but drawn it is."""
    sizes, rate = {"matrix exponential": ([4, 5, 3, 4], 0.0), "gradients": ([6, 4, 2], 1e-9)}[kind]
    return {"kind": kind, "sizes": sizes, "rows": 50, "rate": rate, "unit": 3}


def test_the_exponential_of_a_matrix_is_that_of_its_series(bench, rng):
    A = rng.standard_normal((20, 2, 2))
    series, term = np.zeros_like(A), np.broadcast_to(np.eye(2), A.shape)
    for k in range(1, 60):
        series, term = series + term, term @ A / k
    np.testing.assert_allclose(bench("peers_simplechains").exponential(A), series, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["matrix exponential", "gradients"])
def test_cydrop_and_numpy_compute_the_same_gradients(bench, monkeypatch, kind):
    chains = bench("peers_simplechains")
    task, found = small(kind), {}
    chains.numpy_gradients(task, chains.weights(task), found.__setitem__)()
    network = chains.cydrop_network(task, 1)
    monkeypatch.setattr(chains, "cydrop_network", lambda task, threads: network)
    chains.cydrop_gradients(task, 1)(1)
    expected = [gradient for number in sorted(found) for gradient in found[number]]
    for ours, theirs in zip(network.gradients().values(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_cydrop_and_numpy_end_with_the_same_weights(bench, monkeypatch):
    chains = bench("peers_simplechains")
    task = small("matrix exponential")
    network, layers = chains.cydrop_network(task, 1), chains.weights(task)
    monkeypatch.setattr(chains, "cydrop_network", lambda task, threads: network)
    monkeypatch.setattr(chains, "weights", lambda task: layers)
    chains.cydrop_training(task, 1)(6)
    chains.numpy_training(task, 1)(6)
    expected = [parameter for layer in layers for parameter in layer]
    for ours, theirs in zip(network.parameters().values(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cpu", [False, True])
def test_processes_take_turns_and_the_absent_is_named(bench, monkeypatch, cpu):
    vs_peers = bench("vs_peers")
    named = {"cydrop": None, "NumPy": None, "PyTorch, IPEX": None}
    monkeypatch.setattr(vs_peers, "PEERS", {"training": named})
    task = {"kind": "training", "title": "x", "unit": 2, "sizes": [3, 4, 1], "batch": 5, "steps": 2}
    section = vs_peers.compare(task, 1, 2, cpu)
    ours, theirs = section["rows"]
    assert (ours["label"], theirs["label"]) == ("cydrop", "NumPy")
    assert ours["ratio"] == 1
    assert 0 < theirs["ratio_low"] <= theirs["ratio"] <= theirs["ratio_high"]
    assert 0 < theirs["processors"] < 1.5
    assert list(section["absent"]) == ["PyTorch, IPEX"]


def test_one_thread_is_asked_of_every_library(bench, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    found = bench("peers").environment(1)
    assert {found[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")} == {"1"}
    assert found["NPROC"] == found["PJRT_NPROC"] == "1"  # of JAX
    assert "OPENBLAS_CORETYPE" not in found


@pytest.fixture
def ipex(monkeypatch):
    """Puts a made-up extension for PyTorch 2.8 beside a PyTorch of some version."""

    def put(torch):
        module = types.ModuleType("intel_extension_for_pytorch")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.optimize = lambda network, optimizer, **options: (network, optimizer, options)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        versions = {"torch": torch, "intel-extension-for-pytorch": "2.8.0"}
        monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)

    return put


def test_intels_extension_gets_network_and_optimizer(bench, ipex):
    ipex("2.8.1+cpu")
    assert bench("peers").ipex_optimized("network", "adam", dtype=1) == ("network", "adam", {"dtype": 1})


def test_intels_extension_for_another_pytorch_is_named(bench, ipex):
    ipex("2.13.0+cpu")
    with pytest.raises(RuntimeError, match=r"pytorch 2\.8\.0 works with the PyTorch of its own number, not 2\.13\.0"):
        bench("peers").ipex_optimized("network", "adam")


def test_markdown_has_every_task_once_and_says_what_was_not_measured(bench, report):
    text = bench("peers_report").markdown(report)
    for section in report["sections"]:
        assert text.count(f"| {section['title']} | 1 ms (900 us to 2 ms) | 2.00 (2.00 to 3.00) |") == 1
    assert "threads: 1," in text
    assert text.count("Not measured: PyTorch, IPEX (no such thing).") == 1
    assert "cydrop 0.50" in text.splitlines()[-1]


def test_the_picture_shows_each_library_at_its_fastest(bench):
    rows = [("cydrop", 1), ("JAX, scan", 3), ("JAX, one call per step", 2), ("numpy.copyto", 0.1), ("PyTorch", 4)]
    found = bench("peers_report").fastest([{"label": label, "ratio": ratio} for label, ratio in rows])
    assert found == {"JAX": 2, "PyTorch": 4}


def test_all_tasks_of_the_picture_are_measured(bench):
    titles = {task["title"] for task in bench("vs_peers").tasks(1)}
    assert set(bench("peers_report").PICTURE) <= titles


def test_a_picture_is_drawn_from_files_of_results(bench, report, tmp_path, monkeypatch):
    halves = report["sections"][::2], report["sections"][1::2]
    for number, sections in enumerate(halves):
        (tmp_path / f"{number}.json").write_text(json.dumps(report | {"sections": sections}))
    files = [str(tmp_path / name) for name in ("0.json", "1.json")]
    plot, whole = str(tmp_path / "plot.png"), str(tmp_path / "whole.json")
    monkeypatch.setattr(sys, "argv", ["vs_peers.py", "--merge", *files, "--plot", plot, "--json", whole])
    bench("vs_peers").main()
    assert Path(plot).read_bytes().startswith(b"\x89PNG")
    found = json.loads(Path(whole).read_text())["sections"]
    assert {section["title"] for section in found} == {section["title"] for section in report["sections"]}


def test_cpu_time_is_for_one_thread(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vs_peers.py", "--cpu"])
    with pytest.raises(SystemExit):
        bench("vs_peers").main()
    assert "--cpu is for --threads 1" in capsys.readouterr().err

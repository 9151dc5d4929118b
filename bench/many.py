"""Many small trainings: networks a second in cydrop's fit_many, and in what people use for them today.

    python bench/many.py [--only digits] [--networks 1000] [--others 60] [--rounds 3] [--methods fit_many,jax-100]
                         [--into FILE.json]

digits   64-128-10, dropout .5, on the 3,823 training rows of the handwritten digits, batches of 128, 10 epochs
tiny     8-50-1, dropout .1, squared error, on 500 rows, batches of 128, 40 epochs

Every network has its own seed, weights, masks and order of rows; all train with Adam and a rate of 1e-3.

fit_many        cydrop.fit_many on all processors; fit_many-1: on one
fit             cydrop, one network after the other, on one thread
joblib          scikit-learn's MLP (which has no dropout) in joblib's processes, one a processor
torch           a PyTorch loop, one network after the other, on one thread
torch-vmap-N    torch.func: vmap over N networks at a time, on all processors
jax-N           jax.vmap over N networks of a compiled epoch (lax.scan over its batches), on all processors; compiled
                before the clock starts

Each measurement is a process of its own, the methods take turns, and the medians over --rounds are printed. cydrop
trains --networks networks, the others --others of them (jax-N and torch-vmap-N at least N): seconds are scaled to
--networks. Making the networks counts. What is not installed is named and left out.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, leave_slowing_variables, print_machine, processors

BATCH, RATE_OF_LEARNING = 128, 1e-3
TASKS: dict[str, dict[str, Any]] = {
    "digits": {"sizes": (64, 128, 10), "rate": 0.5, "epochs": 10},
    "tiny": {"sizes": (8, 50, 1), "rate": 0.1, "epochs": 40},
}
METHODS = [
    "fit_many", "fit_many-1", "fit", "joblib", "torch", "torch-vmap-10", "torch-vmap-100", "jax-10", "jax-100",
    "jax-1000",
]  # fmt: skip
NEEDS = {"joblib": "sklearn", "torch": "torch", "jax": "jax"}


def data(task: str) -> tuple[Any, Any]:
    if task == "digits":
        import cydrop as cd

        X, y, *_ = cd.datasets.load_optdigits()
        return X, y
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 8)).astype(np.float32)
    y = X @ rng.standard_normal(8) + 0.1 * rng.standard_normal(500)
    return X, y.astype(np.float32)


# cydrop -----------------------------------------------------------------------------------------------------


def cydrop_networks(task: str, count: int) -> list[Any]:
    import cydrop as cd

    _, hidden, outputs = TASKS[task]["sizes"]
    loss = "mse" if outputs == 1 else "cross_entropy"
    return [
        cd.Network(
            [cd.Dense(hidden, activation="relu"), cd.Dropout(TASKS[task]["rate"]), cd.Dense(outputs)],
            loss=loss, optimizer=cd.Adam(RATE_OF_LEARNING), seed=seed, n_threads=1,
        )
        for seed in range(count)
    ]  # fmt: skip


def fit_many(task: str, count: int, threads: int) -> Callable[[], Any]:
    import cydrop as cd

    X, y = data(task)

    def call() -> None:
        networks = cydrop_networks(task, count)
        cd.fit_many(networks, X, y, epochs=TASKS[task]["epochs"], batch_size=BATCH, n_threads=threads, verbose=0)

    return call


def fit_one_by_one(task: str, count: int) -> Callable[[], Any]:
    X, y = data(task)

    def call() -> None:
        for network in cydrop_networks(task, count):
            network.fit(X, y, epochs=TASKS[task]["epochs"], batch_size=BATCH, verbose=0)

    return call


# scikit-learn -----------------------------------------------------------------------------------------------


def sklearn_network(task: str, seed: int, X: Any, y: Any) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    epochs = TASKS[task]["epochs"]
    kind = MLPRegressor if TASKS[task]["sizes"][-1] == 1 else MLPClassifier
    made = kind(
        hidden_layer_sizes=TASKS[task]["sizes"][1:-1], batch_size=BATCH, learning_rate_init=RATE_OF_LEARNING, alpha=0.0,
        max_iter=epochs, n_iter_no_change=epochs + 1, tol=0.0, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return made.fit(X, y)


def with_joblib(task: str, count: int) -> Callable[[], Any]:
    import joblib

    X, y = data(task)
    parallel = joblib.Parallel(n_jobs=processors(), batch_size="auto")

    def call() -> None:
        parallel(joblib.delayed(sklearn_network)(task, seed, X, y) for seed in range(count))

    call()  # the processes are there
    return call


# PyTorch ----------------------------------------------------------------------------------------------------


def torch_module(task: str) -> Any:
    import torch

    inputs, hidden, outputs = TASKS[task]["sizes"]
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Dropout(TASKS[task]["rate"]),
        torch.nn.Linear(hidden, outputs),
    )  # fmt: skip


def torch_rows(task: str) -> tuple[Any, Any, Any]:
    import torch

    X, y = (torch.from_numpy(array) for array in data(task))
    if TASKS[task]["sizes"][-1] == 1:
        return X, y[:, None], torch.nn.functional.mse_loss
    return X, y, torch.nn.functional.cross_entropy


def torch_loop(task: str, count: int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(1)
    X, y, loss_of = torch_rows(task)

    def call() -> None:
        for seed in range(count):
            torch.manual_seed(seed)
            module = torch_module(task)
            optimizer = torch.optim.Adam(module.parameters(), RATE_OF_LEARNING, fused=True)
            for _ in range(TASKS[task]["epochs"]):
                for rows in torch.randperm(len(X)).split(BATCH):
                    optimizer.zero_grad()
                    loss_of(module(X[rows]), y[rows]).backward()
                    optimizer.step()

    return call


def torch_vmap(task: str, count: int, pack: int) -> Callable[[], Any]:
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap

    X, y, loss_of = torch_rows(task)
    base = torch_module(task).to("meta")

    def loss(parameters: Any, x: Any, targets: Any) -> Any:
        return loss_of(functional_call(base, parameters, (x,)), targets)

    gradients = vmap(grad(loss), randomness="different")

    def train(networks: int) -> None:
        parameters, _ = stack_module_state([torch_module(task) for _ in range(networks)])
        parameters = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        optimizer = torch.optim.Adam(parameters.values(), RATE_OF_LEARNING, fused=True)
        for _ in range(TASKS[task]["epochs"]):
            order = torch.stack([torch.randperm(len(X)) for _ in range(networks)])
            for rows in order.split(BATCH, dim=1):
                found = gradients({name: value.detach() for name, value in parameters.items()}, X[rows], y[rows])
                for name, value in parameters.items():
                    value.grad = found[name]
                optimizer.step()

    return lambda: [train(pack) for _ in range(-(-count // pack))]


# JAX --------------------------------------------------------------------------------------------------------


def jax_vmap(task: str, count: int, pack: int) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp
    import optax

    X, y = (jnp.asarray(array) for array in data(task))
    _, hidden, outputs = TASKS[task]["sizes"]
    rate, n = TASKS[task]["rate"], len(X)
    whole = n - n % BATCH  # a short last batch would be a second program: it is a step of its own below
    optimizer = optax.adam(RATE_OF_LEARNING)

    def begin(key: Any) -> Any:
        first, second = jax.random.split(key)
        parameters = {
            "w1": jax.random.normal(first, (X.shape[1], hidden)) * (2 / X.shape[1]) ** 0.5, "b1": jnp.zeros(hidden),
            "w2": jax.random.normal(second, (hidden, outputs)) * hidden**-0.5, "b2": jnp.zeros(outputs),
        }  # fmt: skip
        return parameters, optimizer.init(parameters)

    def loss(parameters: Any, key: Any, x: Any, targets: Any) -> Any:
        h = jax.nn.relu(x @ parameters["w1"] + parameters["b1"])
        h = jnp.where(jax.random.bernoulli(key, 1 - rate, h.shape), h / (1 - rate), 0.0)
        z = h @ parameters["w2"] + parameters["b2"]
        if outputs == 1:
            return jnp.mean((z[:, 0] - targets) ** 2)
        return optax.softmax_cross_entropy_with_integer_labels(z, targets).mean()

    def step(state: Any, batch: Any) -> Any:
        (parameters, moments), (key, rows) = state, batch
        updates, moments = optimizer.update(jax.grad(loss)(parameters, key, X[rows], y[rows]), moments)
        return (optax.apply_updates(parameters, updates), moments), None

    def epoch(state: Any, key: Any) -> Any:
        key, shuffle = jax.random.split(key)
        order = jax.random.permutation(shuffle, n)
        keys = jax.random.split(key, whole // BATCH + 1)
        state, _ = jax.lax.scan(step, state, (keys[1:], order[:whole].reshape(-1, BATCH)))
        return step(state, (keys[0], order[whole:]))[0] if whole < n else state

    begin_all, epoch_all = jax.jit(jax.vmap(begin)), jax.jit(jax.vmap(epoch))

    def train(seed: int, epochs: int) -> None:
        state = begin_all(jax.random.split(jax.random.key(seed), pack))
        for number in range(epochs):
            state = epoch_all(state, jax.random.split(jax.random.key(1000 * seed + number), pack))
        jax.block_until_ready(state)

    train(0, 1)  # compiles
    return lambda: [train(number, TASKS[task]["epochs"]) for number in range(-(-count // pack))]


# Measuring --------------------------------------------------------------------------------------------------


def call_of(method: str, task: str, count: int) -> tuple[Callable[[], Any], int]:
    """What is measured, and how many networks it trains."""
    name, _, number = method.rpartition("-")
    if method.startswith("fit_many"):
        return fit_many(task, count, 1 if name else processors() or 1), count
    if method == "fit":
        return fit_one_by_one(task, count), count
    if method == "joblib":
        return with_joblib(task, count), count
    if method == "torch":
        return torch_loop(task, count), count
    pack = int(number)
    return (torch_vmap if name == "torch-vmap" else jax_vmap)(task, count, pack), -(-count // pack) * pack


def measured(method: str, task: str, count: int) -> dict[str, float]:
    """In this process."""
    call, trained = call_of(method, task, count)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {
        "seconds": (time.perf_counter() - wall) / trained,
        "cpu": (time.process_time() - cpu) / trained,
        "trained": trained,
    }


def in_a_process(method: str, task: str, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", method, "--only", task, "--networks", str(count)]
    threads = {"OMP_NUM_THREADS": "1"} if method in ("joblib", "torch") else {}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | threads)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TASKS)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--others", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--into", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.one, arguments.only, arguments.networks)))
        return
    leave_slowing_variables()
    methods = arguments.methods.split(",")
    for method in list(methods):
        needed = NEEDS.get(method.partition("-")[0])
        if needed and importlib.util.find_spec(needed) is None:
            print(f"{method}: {needed} is not installed")
            methods.remove(method)
    machine = describe_machine()
    print_machine(machine)
    report: dict[str, Any] = {"machine": machine, "networks": arguments.networks}
    for task in [arguments.only] if arguments.only else TASKS:
        runs: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
        for _ in range(arguments.rounds):
            for method in methods:
                own = arguments.networks if method.startswith("fit") else arguments.others
                runs[method].append(in_a_process(method, task, own))
        report[task] = runs
        print_table(task, runs, arguments.networks)
    if arguments.into:
        arguments.into.write_text(json.dumps(report, indent=1) + "\n")


def print_table(task: str, runs: dict[str, list[dict[str, float]]], networks: int) -> None:
    sizes = "-".join(map(str, TASKS[task]["sizes"]))
    least = statistics.median(run["seconds"] for run in runs["fit_many"]) if "fit_many" in runs else None
    print(f"\n{task}: {networks:,} networks {sizes}, {TASKS[task]['epochs']} epochs")
    print(f"{'':16}{'seconds':>10}{'ms each':>10}{'CPU ms':>9}{'networks/s':>12}{'times':>8}")
    for method, found in runs.items():
        seconds = statistics.median(run["seconds"] for run in found)
        cpu = statistics.median(run["cpu"] for run in found)
        times = f"{seconds / least:8.1f}" if least else ""
        # joblib's work is done by other processes, whose time this one does not see
        shown = f"{1e3 * cpu:9.2f}" if method != "joblib" else f"{'':9}"
        print(f"{method:16}{networks * seconds:10.1f}{1e3 * seconds:10.2f}{shown}{1 / seconds:12.1f}{times}")


if __name__ == "__main__":
    main()

"""Training with bfloat16 in cydrop, PyTorch and JAX: as peers.py, but for the type that products are of.

cydrop                      weights and all between products float32, products bfloat16 (precision="bfloat16")
PyTorch, autocast           the same, as its documentation shows it
PyTorch, autocast, compiled with PyTorch's own random numbers, which the compiler's would be slower than
PyTorch, autocast, IPEX     with Intel's extension, where it is installed
PyTorch, all of bfloat16    weights, moments and everything else of bfloat16: fewer digits throughout
JAX, scan                   factors of products cast to bfloat16, sums float32
"""

from typing import Any

import peers
from peers import Call


def cydrop_training(task: dict[str, Any], threads: int) -> Call:
    return peers.cydrop_training(task, threads, precision="bfloat16")


def torch_training(
    task: dict[str, Any], threads: int, *, compiled: bool = False, everything: bool = False, ipex: bool = False
) -> Call:
    import torch

    torch.set_num_threads(threads)
    X, y = (torch.from_numpy(array) for array in peers.training_data(task))
    network = peers.torch_network(task["sizes"])
    if everything:
        network, X = network.to(torch.bfloat16), X.to(torch.bfloat16)
    loss = torch.nn.CrossEntropyLoss()
    adam = torch.optim.Adam(network.parameters(), lr=peers.LEARNING_RATE, fused=not ipex)
    if ipex:
        network, adam = peers.ipex_optimized(network, adam, dtype=torch.bfloat16)
    batches = list(zip(X.split(task["batch"]), y.split(task["batch"]), strict=True))

    def forward(x: Any, target: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=not everything):
            z = network(x)
        return loss(z.float(), target)

    if compiled:
        forward = torch.compile(forward, options={"fallback_random": True})

    def call(count: int) -> None:
        for number in range(count):
            adam.zero_grad()
            forward(*batches[number % len(batches)]).backward()
            adam.step()

    return call


def compiled_torch_training(task: dict[str, Any], threads: int) -> Call:
    return torch_training(task, threads, compiled=True)


def ipex_training(task: dict[str, Any], threads: int) -> Call:
    return torch_training(task, threads, ipex=True)


def torch_training_of_everything(task: dict[str, Any], threads: int) -> Call:
    return torch_training(task, threads, everything=True)


def jax_training(task: dict[str, Any], threads: int) -> Call:
    return peers.jax_training(task, threads, scan=True, bfloat16=True)


PEERS = {
    "cydrop": cydrop_training,
    "cydrop, float32": peers.cydrop_training,
    "PyTorch, autocast": torch_training,
    "PyTorch, autocast, compiled": compiled_torch_training,
    "PyTorch, autocast, IPEX": ipex_training,
    "PyTorch, all of bfloat16": torch_training_of_everything,
    "JAX, scan": jax_training,
}

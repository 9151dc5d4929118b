"""The two networks that SimpleChains.jl is known by, in cydrop, PyTorch, JAX and NumPy: as peers.py, in float32.

"matrix exponential" (its documentation's "Small Multi-Layer Perceptron"): 4-32-16-4 with tanh learns exp of 2 x 2
matrices, squared error, Adam, all 10,000 rows in each step, no dropout.
"gradients" (its README): 24-8-2 with tanh, dropout of .2 on the eight, no bias in the second layer, squared error over
200 rows; the gradients of the parameters alone, nothing is updated. There the numbers are of float64.

SimpleChains needs Julia, and is not measured here.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import peers
from numpy.typing import NDArray
from peers import Call, Floats

Layers = list[list[Floats]]


def exponential(A: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp of 2 x 2 matrices. A - s, of trace 0, has the square q² times the unit matrix."""
    s = np.trace(A, axis1=1, axis2=2)[:, None, None] / 2
    B = A - s * np.eye(2)
    q = np.sqrt(-np.linalg.det(B)[:, None, None] + 0j)
    return np.exp(s) * (np.cosh(q) * np.eye(2) + np.sinh(q) / q * B).real  # type: ignore[no-any-return]


def training_data(task: dict[str, Any]) -> tuple[Floats, Floats]:
    rng, sizes, rows = np.random.default_rng(1), task["sizes"], task["rows"]
    X = rng.standard_normal((rows, sizes[0]), dtype=np.float32)
    if task["kind"] == "matrix exponential":
        return X, exponential(X.reshape(rows, 2, 2).astype(float)).reshape(rows, 4).astype(np.float32)
    return X, 10 * rng.standard_normal((rows, sizes[-1]), dtype=np.float32)


def weights(task: dict[str, Any]) -> Layers:
    """Weight and bias of each layer; the last has no bias in the network with dropout."""
    rng, sizes = np.random.default_rng(2), task["sizes"]
    found = [
        [rng.standard_normal((a, b), dtype=np.float32) / np.float32(np.sqrt(a)), np.zeros(b, dtype=np.float32)]
        for a, b in itertools.pairwise(sizes)
    ]
    if task["rate"]:
        del found[-1][1]
    return found


# cydrop -----------------------------------------------------------------------------------------------------


def cydrop_network(task: dict[str, Any], threads: int) -> Any:
    import cydrop as cd

    layers: list[Any] = []
    for units in task["sizes"][1:-1]:
        layers += [cd.Dense(units), cd.Tanh()] + ([cd.Dropout(task["rate"])] if task["rate"] else [])
    layers.append(cd.Dense(task["sizes"][-1], bias=not task["rate"]))
    network = cd.Network(layers, loss="mse", optimizer=cd.Adam(peers.LEARNING_RATE), seed=0, n_threads=threads)
    network.build(task["sizes"][0])
    for values, given in zip(network.parameters().values(), itertools.chain(*weights(task)), strict=True):
        values[...] = given
    return network


def cydrop_training(task: dict[str, Any], threads: int) -> Call:
    network, (X, y) = cydrop_network(task, threads), training_data(task)

    def call(count: int) -> None:
        network.fit(X, y, epochs=count, batch_size=len(X), shuffle=False, verbose=0)

    return call


def cydrop_gradients(task: dict[str, Any], threads: int) -> Call:
    network, (X, y) = cydrop_network(task, threads), training_data(task)
    scale = np.float32(2 / y.size)

    def gradients() -> None:
        dz = network.forward(X, training=True)
        dz -= y
        dz *= scale
        network.backward(dz)

    return peers.repeat(gradients)


# NumPy ------------------------------------------------------------------------------------------------------


def numpy_gradients(
    task: dict[str, Any], layers: Layers, update: Callable[[int, list[Floats]], None]
) -> Callable[[], None]:
    """A call computes the gradients, the last layer's first, and gives each layer's to `update`."""
    X, y = training_data(task)
    rng, keep, scale = np.random.default_rng(5), np.float32(1 - task["rate"]), np.float32(2 / y.size)

    def gradients() -> None:
        inputs, slopes = [X], []
        for weight, *bias in layers:
            z = inputs[-1] @ weight
            if bias:
                z += bias[0]
            if len(inputs) < len(layers):
                np.tanh(z, out=z)
                slope = z * z
                np.subtract(np.float32(1), slope, out=slope)
                if task["rate"]:
                    mask = np.multiply(rng.random(z.shape, dtype=np.float32) < keep, 1 / keep, dtype=np.float32)
                    z *= mask
                    slope *= mask
                slopes.append(slope)
            inputs.append(z)
        dz = inputs.pop()
        dz -= y
        dz *= scale
        for number in reversed(range(len(layers))):
            found = [inputs[number].T @ dz] + ([dz.sum(axis=0)] if len(layers[number]) == 2 else [])
            if number:
                dz = dz @ layers[number][0].T
                dz *= slopes[number - 1]
            update(number, found)

    return gradients


def numpy_training(task: dict[str, Any], threads: int) -> Call:
    layers = weights(task)
    return peers.repeat(numpy_gradients(task, layers, peers.numpy_adam(layers)))


def numpy_gradients_alone(task: dict[str, Any], threads: int) -> Call:
    return peers.repeat(numpy_gradients(task, weights(task), lambda number, found: None))


# PyTorch ----------------------------------------------------------------------------------------------------


def torch_loss(task: dict[str, Any], threads: int, compiled: bool) -> tuple[list[Any], Callable[[], Any]]:
    """The parameters, and what computes the loss."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    X, y = (torch.from_numpy(array) for array in training_data(task))
    layers: list[Any] = []
    for a, b in itertools.pairwise(task["sizes"][:-1]):
        layers += [nn.Linear(a, b), nn.Tanh()] + ([nn.Dropout(task["rate"])] if task["rate"] else [])
    network = nn.Sequential(*layers, nn.Linear(*task["sizes"][-2:], bias=not task["rate"]))

    def loss(x: Any, target: Any) -> Any:
        return nn.functional.mse_loss(network(x), target)

    if compiled:
        loss = torch.compile(loss)
    return list(network.parameters()), lambda: loss(X, y)


def torch_training(task: dict[str, Any], threads: int, *, compiled: bool = False) -> Call:
    import torch

    parameters, loss = torch_loss(task, threads, compiled)
    adam = torch.optim.Adam(parameters, lr=peers.LEARNING_RATE, fused=True)

    def step() -> None:
        adam.zero_grad()
        loss().backward()
        adam.step()

    return peers.repeat(step)


def torch_gradients(task: dict[str, Any], threads: int, *, compiled: bool = False) -> Call:
    import torch

    parameters, loss = torch_loss(task, threads, compiled)
    return peers.repeat(lambda: torch.autograd.grad(loss(), parameters))


def compiled_torch_training(task: dict[str, Any], threads: int) -> Call:
    return torch_training(task, threads, compiled=True)


def compiled_torch_gradients(task: dict[str, Any], threads: int) -> Call:
    return torch_gradients(task, threads, compiled=True)


# JAX --------------------------------------------------------------------------------------------------------


def jax_loop(task: dict[str, Any], threads: int, *, scan: bool, training: bool) -> Call:
    """Each step one call, or as many as the unit has in one compiled loop."""
    import jax
    import jax.numpy as jnp
    import optax

    data = tuple(jnp.asarray(array) for array in training_data(task))
    layers = jax.tree.map(jnp.asarray, weights(task))
    optimizer, keep = optax.adam(peers.LEARNING_RATE), 1 - task["rate"]

    def loss(layers: Any, x: Any, target: Any, key: Any) -> Any:
        for number, (weight, *bias) in enumerate(layers):
            x = x @ weight
            if bias:
                x = x + bias[0]
            if number < len(layers) - 1:
                x = jnp.tanh(x)
                if task["rate"]:
                    x = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, number), keep, x.shape), x / keep, 0.0)
        return jnp.mean((x - target) ** 2)

    def train(carry: Any, data: Any) -> Any:
        layers, state, key = carry
        updates, state = optimizer.update(jax.grad(loss)(layers, *data, key), state)
        return optax.apply_updates(layers, updates), state, key

    def differentiate(carry: Any, data: Any) -> Any:
        layers, _, key = carry
        key, own = jax.random.split(key)
        return layers, jax.grad(loss)(layers, *data, own), key  # the gradients are kept, so that none is left out

    step = train if training else differentiate
    state: Any = optimizer.init(layers) if training else layers
    carry = [jax.tree.map(jnp.copy, (layers, state, jax.random.PRNGKey(0)))]  # each array once, since each is given up
    steps = task["unit"] if scan else 1

    def run(carry: Any, data: Any) -> Any:
        if not scan:
            return step(carry, data)
        return jax.lax.scan(lambda carry, _: (step(carry, data), None), carry, length=steps)[0]

    compiled = jax.jit(run, donate_argnums=0)

    def call(count: int) -> None:
        for _ in range(count // steps):
            carry[0] = compiled(carry[0], data)
        jax.block_until_ready(carry[0])

    return call


def jax_scan_training(task: dict[str, Any], threads: int) -> Call:
    return jax_loop(task, threads, scan=True, training=True)


def jax_training(task: dict[str, Any], threads: int) -> Call:
    return jax_loop(task, threads, scan=False, training=True)


def jax_scan_gradients(task: dict[str, Any], threads: int) -> Call:
    return jax_loop(task, threads, scan=True, training=False)


def jax_gradients(task: dict[str, Any], threads: int) -> Call:
    return jax_loop(task, threads, scan=False, training=False)


PEERS = {
    "matrix exponential": {
        "cydrop": cydrop_training,
        "JAX, scan": jax_scan_training,
        "JAX, one call per step": jax_training,
        "PyTorch": torch_training,
        "PyTorch, compiled": compiled_torch_training,
        "NumPy": numpy_training,
    },
    "gradients": {
        "cydrop": cydrop_gradients,
        "JAX, scan": jax_scan_gradients,
        "JAX, one call per step": jax_gradients,
        "PyTorch": torch_gradients,
        "PyTorch, compiled": compiled_torch_gradients,
        "NumPy": numpy_gradients_alone,
    },
}

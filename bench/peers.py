"""The same work in cydrop and in the libraries that it is compared with: training, dropout, prediction.

Each function takes a task and the number of threads and returns `call(count)`, which does the work `count` times
(training: `count` steps, a multiple of the epoch). Adam with a rate of 1e-3, softmax cross-entropy (squared error for
one output), ReLU, dropout .5 after every hidden layer (scikit-learn has none), float32, each step on the next batch.
Every library is used in the fastest way that its documentation shows. vs_peers.py calls them.
"""

import importlib.metadata
import importlib.util
import itertools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Call = Callable[[int], Any]
RATE, LEARNING_RATE, BETA1, BETA2, EPSILON = 0.5, 1e-3, 0.9, 0.999, 1e-8


def training_data(task: dict[str, Any]) -> tuple[Floats, NDArray[Any]]:
    rng = np.random.default_rng(1)
    sizes, rows = task["sizes"], task["batch"] * task["steps"]
    X = rng.standard_normal((rows, sizes[0]), dtype=np.float32)
    if sizes[-1] == 1:
        return X, rng.standard_normal((rows, 1), dtype=np.float32)
    return X, rng.integers(0, sizes[-1], rows)


def he_weights(sizes: list[int]) -> list[tuple[Floats, Floats]]:
    rng = np.random.default_rng(2)
    return [
        (rng.standard_normal((a, b), dtype=np.float32) * np.float32(np.sqrt(2 / a)), np.zeros(b, dtype=np.float32))
        for a, b in itertools.pairwise(sizes)
    ]


def inputs(task: dict[str, Any]) -> Floats:
    return np.random.default_rng(3).standard_normal((task["rows"], task["sizes"][0]), dtype=np.float32)


# cydrop -----------------------------------------------------------------------------------------------------


def cydrop_network(sizes: list[int], threads: int) -> Any:
    import cydrop as cd

    layers: list[Any] = []
    for units in sizes[1:-1]:
        layers += [cd.Dense(units), cd.ReLU(), cd.Dropout(RATE)]
    loss = "mse" if sizes[-1] == 1 else "cross_entropy"
    return cd.Network(
        [*layers, cd.Dense(sizes[-1])], loss=loss, optimizer=cd.Adam(LEARNING_RATE), seed=0, n_threads=threads
    )


def cydrop_training(task: dict[str, Any], threads: int, *, precision: str = "float32") -> Call:
    network = cydrop_network(task["sizes"], threads)
    network.precision = precision
    X, y = training_data(task)

    def call(count: int) -> None:
        network.fit(X, y, epochs=count // task["steps"], batch_size=task["batch"], shuffle=False, verbose=0)

    return call


def cydrop_prediction(task: dict[str, Any], threads: int) -> Call:
    network = cydrop_network(task["sizes"], threads).build(task["sizes"][0])
    return repeat(network.predict, inputs(task))


def cydrop_dropout(task: dict[str, Any], threads: int) -> Call:
    from cydrop import functional

    x = np.random.default_rng(4).standard_normal(task["size"], dtype=np.float32)
    if task["direction"] == "backward":
        mask = functional.dropout(x, task["rate"], seed=0, return_mask=True)[1]
        dx = np.empty_like(x)
        return repeat(lambda: functional.dropout_backward(x, mask, task["rate"], out=dx, n_threads=threads))
    out = x if task["direction"] == "in place" else np.empty_like(x)
    return repeat(lambda: functional.dropout(x, task["rate"], out=out, n_threads=threads))


# NumPy ------------------------------------------------------------------------------------------------------


def numpy_adam(parameters: Sequence[Sequence[Floats]]) -> Callable[[int, Sequence[Floats]], None]:
    """What updates the parameters of one layer by their gradients, which it overwrites."""
    moments = [[(np.zeros_like(p), np.zeros_like(p)) for p in layer] for layer in parameters]
    steps = [0] * len(parameters)

    def update(number: int, gradients: Sequence[Floats]) -> None:
        steps[number] += 1
        first, second = 1 - BETA1 ** steps[number], 1 - BETA2 ** steps[number]
        rate = np.float32(LEARNING_RATE * np.sqrt(second) / first)
        for p, g, (m, v) in zip(parameters[number], gradients, moments[number], strict=True):
            m *= np.float32(BETA1)
            m += np.float32(1 - BETA1) * g
            v *= np.float32(BETA2)
            np.multiply(g, g, out=g)
            g *= np.float32(1 - BETA2)
            v += g
            np.sqrt(v, out=g)
            g += np.float32(EPSILON)
            np.divide(m, g, out=g)
            g *= rate
            p -= g

    return update


def numpy_training(task: dict[str, Any], threads: int) -> Call:
    X, y = training_data(task)
    batch, parameters = task["batch"], he_weights(task["sizes"])
    rng, one, update = np.random.default_rng(5), np.float32(1), numpy_adam(parameters)
    keep = np.float32(1 - RATE)

    def step(x: Floats, target: NDArray[Any]) -> None:
        activations, masks = [x], []
        for number, (weight, bias) in enumerate(parameters):
            z = activations[-1] @ weight
            z += bias
            if number < len(parameters) - 1:
                np.maximum(z, 0, out=z)
                mask = np.multiply(rng.random(z.shape, dtype=np.float32) < keep, one / keep, dtype=np.float32)
                z *= mask
                masks.append(mask)
            activations.append(z)
        dz = activations.pop()
        if dz.shape[1] == 1:
            dz -= target
            dz *= np.float32(2 / len(x))
        else:
            dz -= dz.max(axis=1, keepdims=True)
            np.exp(dz, out=dz)
            dz /= dz.sum(axis=1, keepdims=True)
            dz[np.arange(len(x)), target] -= one
            dz /= np.float32(len(x))
        for number in reversed(range(len(parameters))):
            gradients = activations[number].T @ dz, dz.sum(axis=0)
            if number:
                dz = dz @ parameters[number][0].T
                dz *= masks[number - 1]
                dz *= activations[number] > 0
            update(number, gradients)

    def call(count: int) -> None:
        for number in range(count):
            start = number % task["steps"] * batch
            step(X[start : start + batch], y[start : start + batch])

    return call


def numpy_prediction(task: dict[str, Any], threads: int) -> Call:
    parameters = he_weights(task["sizes"])

    def predict(z: Floats) -> Floats:
        for number, (weight, bias) in enumerate(parameters):
            z = z @ weight
            z += bias
            if number < len(parameters) - 1:
                np.maximum(z, 0, out=z)
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        return z

    return repeat(predict, inputs(task))


def numpy_dropout(task: dict[str, Any], threads: int) -> Call:
    rng = np.random.default_rng(4)
    x = rng.standard_normal(task["size"], dtype=np.float32)
    scale = np.float32(1 / (1 - task["rate"]))
    out, uniform, mask = np.empty_like(x), np.empty_like(x), np.empty(x.shape, dtype=np.bool_)
    if task["direction"] == "in place":
        out = x

    def forward() -> None:
        rng.random(out=uniform, dtype=np.float32)
        np.greater_equal(uniform, np.float32(task["rate"]), out=mask)
        np.multiply(x, mask, out=out)
        np.multiply(out, scale, out=out)

    def backward() -> None:
        np.multiply(x, mask, out=out)
        np.multiply(out, scale, out=out)

    forward()
    return repeat(backward if task["direction"] == "backward" else forward)


def numpy_copy(task: dict[str, Any], threads: int) -> Call:
    x = np.random.default_rng(4).standard_normal(task["size"], dtype=np.float32)
    out = np.zeros_like(x)
    return repeat(lambda: np.copyto(out, x))


# PyTorch ----------------------------------------------------------------------------------------------------


def torch_network(sizes: list[int]) -> Any:
    from torch import nn

    layers: list[Any] = []
    for a, b in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(RATE)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def ipex_optimized(network: Any, adam: Any, **options: Any) -> Any:
    """Network and optimizer as Intel's extension would have them."""
    if importlib.util.find_spec("intel_extension_for_pytorch"):  # its own check of versions ends with a wrong error
        own, torch = importlib.metadata.version(IPEX), importlib.metadata.version("torch")
        if own.split(".")[:2] != torch.split(".")[:2]:
            raise RuntimeError(f"{IPEX} {own} works with the PyTorch of its own number, not {torch}")
    import intel_extension_for_pytorch

    return intel_extension_for_pytorch.optimize(network, optimizer=adam, **options)


def torch_training(task: dict[str, Any], threads: int, *, ipex: bool = False) -> Call:
    import torch

    torch.set_num_threads(threads)
    X, y = (torch.from_numpy(array) for array in training_data(task))
    network = torch_network(task["sizes"])
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=not ipex)
    if ipex:
        network, optimizer = ipex_optimized(network, optimizer)
    loss = torch.nn.MSELoss() if task["sizes"][-1] == 1 else torch.nn.CrossEntropyLoss()
    batches = list(zip(X.split(task["batch"]), y.split(task["batch"]), strict=True))

    def call(count: int) -> None:
        for number in range(count):
            x, target = batches[number % len(batches)]
            optimizer.zero_grad()
            loss(network(x), target).backward()
            optimizer.step()

    return call


def ipex_training(task: dict[str, Any], threads: int) -> Call:
    return torch_training(task, threads, ipex=True)


def torch_prediction(task: dict[str, Any], threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    network = torch.nn.Sequential(*torch_network(task["sizes"]), torch.nn.Softmax(1)).eval()

    def predict(x: Floats) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy()

    return repeat(predict, inputs(task))


def torch_dropout(task: dict[str, Any], threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    x, rate = torch.randn(task["size"]), task["rate"]
    if task["direction"] == "backward":
        mask = torch.ops.aten.native_dropout(x, rate, True)[1]
        return repeat(lambda: torch.ops.aten.native_dropout_backward(x, mask, 1 / (1 - rate)))
    return repeat(lambda: torch.nn.functional.dropout(x, rate, training=True, inplace=task["direction"] == "in place"))


# JAX --------------------------------------------------------------------------------------------------------


def jax_training(task: dict[str, Any], threads: int, *, scan: bool = False, bfloat16: bool = False) -> Call:
    import jax
    import jax.numpy as jnp
    import optax

    X, y = training_data(task)
    steps, batch, single = task["steps"], task["batch"], task["sizes"][-1] == 1
    optimizer = optax.adam(LEARNING_RATE)
    parameters = [(jnp.asarray(w), jnp.asarray(b)) for w, b in he_weights(task["sizes"])]
    carry: list[Any] = [(parameters, optimizer.init(parameters), jax.random.PRNGKey(0))]

    def product(x: Any, weight: Any) -> Any:
        if not bfloat16:
            return x @ weight
        return jnp.matmul(x.astype("bfloat16"), weight.astype("bfloat16"), preferred_element_type="float32")

    def loss(parameters: Any, x: Any, target: Any, key: Any) -> Any:
        for number, (weight, bias) in enumerate(parameters):
            x = product(x, weight) + bias
            if number < len(parameters) - 1:
                key, own = jax.random.split(key)
                x = jnp.where(jax.random.bernoulli(own, 1 - RATE, x.shape), jax.nn.relu(x) / (1 - RATE), 0.0)
        if single:
            return jnp.mean((x - target) ** 2)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, target))

    def step(carry: Any, data: Any) -> Any:
        parameters, state, key = carry
        key, own = jax.random.split(key)
        gradients = jax.grad(loss)(parameters, *data, own)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(parameters, updates), state, key), None

    if scan:  # a whole epoch is one compiled loop
        epoch = jax.jit(lambda carry, data: jax.lax.scan(step, carry, data)[0], donate_argnums=0)
        data = jnp.asarray(X.reshape(steps, batch, -1)), jnp.asarray(y.reshape(steps, batch, *y.shape[1:]))

        def call(count: int) -> None:
            for _ in range(count // steps):
                carry[0] = epoch(carry[0], data)
            jax.block_until_ready(carry[0])
    else:
        compiled = jax.jit(lambda carry, data: step(carry, data)[0], donate_argnums=0)
        batches = [
            (jnp.asarray(X[i : i + batch]), jnp.asarray(y[i : i + batch])) for i in range(0, steps * batch, batch)
        ]

        def call(count: int) -> None:
            for number in range(count):
                carry[0] = compiled(carry[0], batches[number % steps])
            jax.block_until_ready(carry[0])

    return call


def jax_scan_training(task: dict[str, Any], threads: int) -> Call:
    return jax_training(task, threads, scan=True)


def jax_dropout(task: dict[str, Any], threads: int) -> Call:
    import jax
    import jax.numpy as jnp

    keep = 1 - task["rate"]
    x = jnp.asarray(np.random.default_rng(4).standard_normal(task["size"], dtype=np.float32))
    key = [jax.random.PRNGKey(0)]
    if task["direction"] == "backward":
        mask = jax.random.bernoulli(key[0], keep, x.shape)
        backward = jax.jit(lambda dy, mask: jnp.where(mask, dy / keep, 0.0))
        return repeat(lambda: jax.block_until_ready(backward(x, mask)))

    @jax.jit
    def forward(x: Any, key: Any) -> Any:
        key, own = jax.random.split(key)
        return jnp.where(jax.random.bernoulli(own, keep, x.shape), x / keep, 0.0), key

    def call() -> None:
        out, key[0] = forward(x, key[0])
        jax.block_until_ready(out)

    return repeat(call)


# scikit-learn and onnxruntime -------------------------------------------------------------------------------


def sklearn_training(task: dict[str, Any], threads: int) -> Call:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    X, y = training_data(task)
    single = task["sizes"][-1] == 1
    kind = MLPRegressor if single else MLPClassifier
    model = kind(hidden_layer_sizes=task["sizes"][1:-1], batch_size=task["batch"], alpha=0, shuffle=False)
    warnings.simplefilter("ignore")
    if single:
        y = y.ravel()
    model.partial_fit(X, y, **({} if single else {"classes": np.arange(task["sizes"][-1])}))

    def call(count: int) -> None:
        for _ in range(count // task["steps"]):
            model.partial_fit(X, y)

    return call


def onnxruntime_prediction(task: dict[str, Any], threads: int) -> Call:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, name = [], [], "x"
    parameters = he_weights(task["sizes"])
    for number, (weight, bias) in enumerate(parameters):
        constants += [numpy_helper.from_array(weight, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        nodes.append(helper.make_node("Gemm", [name, f"w{number}", f"b{number}"], [f"z{number}"]))
        name = f"z{number}"
        if number < len(parameters) - 1:
            nodes.append(helper.make_node("Relu", [name], [f"a{number}"]))
            name = f"a{number}"
    nodes.append(helper.make_node("Softmax", [name], ["y"], axis=1))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", task["sizes"][0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", task["sizes"][-1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return repeat(lambda x: session.run(None, {"x": x})[0], inputs(task))


def repeat(function: Callable[..., Any], *arguments: Any) -> Call:
    def call(count: int) -> None:
        for _ in range(count):
            function(*arguments)

    return call


PEERS: dict[str, dict[str, Callable[[dict[str, Any], int], Call]]] = {
    "training": {
        "cydrop": cydrop_training,
        "JAX, scan": jax_scan_training,
        "JAX, one call per step": jax_training,
        "PyTorch": torch_training,
        "PyTorch, IPEX": ipex_training,
        "NumPy": numpy_training,
        "scikit-learn, no dropout": sklearn_training,
    },
    "dropout": {
        "cydrop": cydrop_dropout,
        "numpy.copyto": numpy_copy,
        "NumPy": numpy_dropout,
        "PyTorch": torch_dropout,
        "JAX": jax_dropout,
    },
    "prediction": {
        "cydrop": cydrop_prediction,
        "onnxruntime": onnxruntime_prediction,
        "PyTorch": torch_prediction,
        "NumPy": numpy_prediction,
    },
}
IPEX = "intel-extension-for-pytorch"
PACKAGES = ("numpy", "torch", IPEX, "jax", "jaxlib", "optax", "scikit-learn", "onnxruntime")
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # hold NumPy's products back where they are set


def environment(threads: int) -> dict[str, str]:
    """For a process that should use this many threads. JAX heeds the last two alone."""
    names = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "PJRT_NPROC"
    limits = dict.fromkeys(names, str(threads))
    return {name: value for name, value in os.environ.items() if name not in SLOWING} | limits

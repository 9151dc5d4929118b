"""A whole training in NumPy: as tutorials write it, and as fast as we could write it, compared with cydrop's."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import Call, take_turns

from against_numpy.arrays import Floats
from against_numpy.dropout import fill_from_bits, places_to_keep
from against_numpy.random_bytes import Source
from against_numpy.report import CYDROP, add_section

Trainer = tuple[Call, Callable[[Floats], Any]]  # (one epoch, X -> labels)

ADAM = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
STEPS = {
    "name": "64-128-10, batch 32, dropout .5, Adam, not shuffled",
    "units": 128,
    "batch": 32,
    "input_rate": 0.0,
    "hidden_rate": 0.5,
    "shuffle": False,
    "steps": 200,
}
DIGITS = {
    "name": "digits: 64-512-10, batch 128, dropout .2 and .5, Adam, shuffled",
    "units": 512,
    "batch": 128,
    "input_rate": 0.2,
    "hidden_rate": 0.5,
    "shuffle": True,
    "steps": None,  # as many as the digits give
}
ACCURACY_EPOCHS = 10


def training_data(task: dict[str, Any]) -> tuple[Floats, Any, Floats, Any]:
    """The digits, tiled to a given number of steps where the task asks for one."""
    from cydrop import datasets

    X, y, X_test, y_test = datasets.load_optdigits()
    if task["steps"]:
        rows = np.arange(task["steps"] * task["batch"]) % len(X)
        X, y = X[rows], y[rows]
    return X, y, X_test, y_test


def cydrop_trainer(task: dict[str, Any], X: Floats, y: Any, n_threads: int) -> Trainer:
    import cydrop as cd

    layers: list[Any] = [cd.Dropout(task["input_rate"])] if task["input_rate"] else []
    layers += [cd.Dense(task["units"]), cd.ReLU(), cd.Dropout(task["hidden_rate"]), cd.Dense(10)]
    net = cd.Network(layers, optimizer=cd.Adam(**ADAM), seed=0, n_threads=n_threads)

    def epoch() -> None:
        net.fit(X, y, epochs=1, batch_size=task["batch"], shuffle=task["shuffle"], verbose=0)

    return epoch, lambda X: net.predict(X).argmax(axis=1)


def plain_trainer(task: dict[str, Any], X: Floats, y: Any) -> Trainer:
    """The network as NumPy tutorials write it, in float32."""
    rng, units, batch = np.random.default_rng(0), task["units"], task["batch"]
    normal = functools.partial(rng.standard_normal, dtype=np.float32)
    W1 = normal((64, units)) * np.float32(np.sqrt(2 / 64))
    W2 = normal((units, 10)) * np.float32(np.sqrt(2 / units))
    parameters = [W1, np.zeros(units, dtype=np.float32), W2, np.zeros(10, dtype=np.float32)]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    steps = 0

    def drop(x: Floats, rate: float) -> tuple[Floats, Floats]:
        mask = (rng.random(x.shape, dtype=np.float32) < 1 - rate) / np.float32(1 - rate)
        return x * mask, mask

    def step(x: Floats, labels: Any) -> None:
        nonlocal steps
        W1, b1, W2, b2 = parameters
        if task["input_rate"]:
            x, _ = drop(x, task["input_rate"])
        h, mask = drop(np.maximum(x @ W1 + b1, 0), task["hidden_rate"])
        z = h @ W2 + b2
        e = np.exp(z - z.max(axis=1, keepdims=True))
        dz = e / e.sum(axis=1, keepdims=True)
        dz[np.arange(len(x)), labels] -= 1
        dz /= len(x)
        dh = dz @ W2.T * mask * (h > 0)
        steps += 1
        beta1, beta2 = ADAM["beta1"], ADAM["beta2"]
        gradients = x.T @ dh, dh.sum(axis=0), h.T @ dz, dz.sum(axis=0)
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g * g - v)
            root = np.sqrt(v / (1 - beta2**steps)) + ADAM["epsilon"]
            p -= ADAM["learning_rate"] / (1 - beta1**steps) * m / root

    def epoch() -> None:
        order = rng.permutation(len(X)) if task["shuffle"] else np.arange(len(X))
        for start in range(0, len(X), batch):
            if task["shuffle"]:
                rows = order[start : start + batch]
                step(X[rows], y[rows])
            else:
                step(X[start : start + batch], y[start : start + batch])

    def predict(X: Floats) -> Any:
        W1, b1, W2, b2 = parameters
        return (np.maximum(X @ W1 + b1, 0) @ W2 + b2).argmax(axis=1)

    return epoch, predict


def fast_trainer(task: dict[str, Any], X: Floats, y: Any, source: Source) -> Trainer:
    """The fastest NumPy version that we could write: no step allocates, all views are ready.

    One arena for the parameters, so that Adam is ten vector operations. The first layer's bias is a row of
    its weights, against a column of ones in X. Masks are drawn from single bits, for several batches at once.
    Sums along rows are products with ones. ReLU is a maximum with an array of zeros (of integers, whose order
    is that of non-negative floats with the same bits, and -0 becomes 0); its gradient is an AND of bits.
    """
    units, batch, n = task["units"], task["batch"], len(X)
    rng = np.random.default_rng(0)

    size1, size2 = 65 * units, units * 10
    arenas = np.zeros((5, size1 + size2 + 10), dtype=np.float32)
    P, G, M, V, T = arenas

    def views(arena: Floats) -> tuple[Floats, Floats, Floats]:
        second, bias = arena[size1 : size1 + size2], arena[size1 + size2 :]
        return arena[:size1].reshape(65, units), second.reshape(10, units), bias

    (W1, W2, b2), (G1, G2, g2) = views(P), views(G)
    W1[:64] = rng.standard_normal((64, units)) * np.sqrt(2 / 64)
    W2[...] = rng.standard_normal((10, units)) * np.sqrt(2 / units)

    given = np.ones((n, 65), dtype=np.float32)
    given[:, :64] = X
    wanted = np.zeros((n, 10), dtype=np.float32)
    wanted[np.arange(n), y] = 1
    share = np.full((n, 1), 1 / batch, dtype=np.float32)  # of a row in its batch's mean
    if n % batch:
        share[n - n % batch :] = 1 / (n % batch)
    wanted_shares = wanted * share
    rows_x, rows_y = given, wanted_shares
    if task["shuffle"]:
        rows_x, rows_y = np.empty_like(given), np.empty_like(wanted)

    together = max(1, 2**16 // (batch * units))  # batches whose masks are drawn at once
    hidden_masks = np.empty((together, batch, units), dtype=np.float32)
    draw_hidden = mask_drawer(hidden_masks.reshape(-1), task["hidden_rate"], source)
    input_masks = np.empty((together, batch, 64), dtype=np.float32)
    draw_input = None
    if task["input_rate"]:
        draw_input = mask_drawer(input_masks.reshape(-1), task["input_rate"], source)

    h, dh, gate, zeros = np.zeros((4, batch, units), dtype=np.float32)
    z, top, total = (np.empty((batch, k), dtype=np.float32) for k in (10, 1, 1))
    dropped = np.ones((batch, 65), dtype=np.float32)
    ones, bits = np.ones(batch, dtype=np.float32), np.int32(31)

    prepared = []
    for number, start in enumerate(range(0, n, batch)):
        k = min(batch, n - start)
        x = rows_x[start : start + k]
        sums = np.full((10, 1), k, dtype=np.float32)  # the softmax comes out divided by k
        mask, input_mask = hidden_masks[number % together, :k], input_masks[number % together, :k]
        prepared.append((
            number % together == 0, x[:, :64], input_mask, dropped[:k, :64], dropped[:k] if draw_input else x,
            h[:k], h[:k].view(np.int32), zeros[:k].view(np.int32), mask, z[:k], top[:k], total[:k], sums,
            rows_y[start : start + k], ones[:k], dh[:k], dh[:k].view(np.int32), gate[:k].view(np.int32),
        ))  # fmt: skip
    W2t = W2.T
    multiply, add, subtract, divide, sqrt = np.multiply, np.add, np.subtract, np.divide, np.sqrt
    product, maximum, exp, row_max, take = np.matmul, np.maximum, np.exp, np.maximum.reduce, np.take
    decay1, decay2 = np.float32(ADAM["beta1"]), np.float32(ADAM["beta2"])
    steps = 0

    def epoch() -> None:
        nonlocal steps
        if task["shuffle"]:
            order = rng.permutation(n)
            take(given, order, axis=0, out=rows_x, mode="clip")
            take(wanted, order, axis=0, out=rows_y, mode="clip")
            multiply(rows_y, share, out=rows_y)
        for (draw, x64, mask_x, dropped64, x, h, h_bits, zero_bits, mask, z, top, total, sums, target, ones,
             dh, dh_bits, gate_bits) in prepared:  # fmt: skip
            if draw:
                draw_hidden()
                if draw_input:
                    draw_input()
            if draw_input:
                multiply(x64, mask_x, out=dropped64)
            product(x, W1, out=h)
            maximum(h_bits, zero_bits, out=h_bits)
            multiply(h, mask, out=h)
            product(h, W2t, out=z)
            add(z, b2, out=z)
            row_max(z, axis=1, keepdims=True, out=top)
            subtract(z, top, out=z)
            exp(z, out=z)
            product(z, sums, out=total)
            divide(z, total, out=z)
            subtract(z, target, out=z)

            product(z.T, h, out=G2)
            product(ones, z, out=g2)
            product(z, W2, out=dh)
            np.negative(h_bits, out=gate_bits)
            np.right_shift(gate_bits, bits, out=gate_bits)  # all ones where h > 0
            np.bitwise_and(dh_bits, gate_bits, out=dh_bits)
            multiply(dh, mask, out=dh)
            product(x.T, dh, out=G1)

            # Adam on M = sum of beta1^i g and V = sum of beta2^i g^2: their factors are in rate and epsilon.
            steps += 1
            root = ((1 - ADAM["beta2"] ** steps) / (1 - ADAM["beta2"])) ** 0.5
            rate = ADAM["learning_rate"] * (1 - ADAM["beta1"]) / (1 - ADAM["beta1"] ** steps) * root
            multiply(M, decay1, out=M)
            add(M, G, out=M)
            multiply(V, decay2, out=V)
            multiply(G, G, out=G)
            add(V, G, out=V)
            sqrt(V, out=T)
            add(T, np.float32(ADAM["epsilon"] * root), out=T)
            divide(M, T, out=T)
            multiply(T, np.float32(rate), out=T)
            subtract(P, T, out=P)

    def predict(X: Floats) -> Any:
        return (np.maximum(X @ W1[:64] + W1[64], 0) @ W2t + b2).argmax(axis=1)

    return epoch, predict


def mask_drawer(masks: Floats, rate: float, source: Source) -> Call:
    """Fills the masks from random bits and tops them up."""
    fill = fill_from_bits(masks.size, rate, source, exact=True, table=True)
    more, scale = places_to_keep(masks.size, rate), np.float32(1 / (1 - rate))

    def draw() -> None:
        fill(masks)
        if more is not None:
            masks[more()] = scale

    return draw


def compare_training(report: dict[str, Any], task: dict[str, Any], source: Source, repeats: int) -> dict[str, Any]:
    """One table, of the time of a step or of an epoch; returns what the tables with more threads need."""
    X, y, X_test, y_test = training_data(task)
    steps = task["steps"] or 1
    trainers = {
        CYDROP.format("Network.fit"): cydrop_trainer(task, X, y, 1),
        "NumPy, straightforward": plain_trainer(task, X, y),
        "NumPy, best": fast_trainer(task, X, y, source),
    }
    accuracy = {name: trained_accuracy(trainer, X_test, y_test) for name, trainer in trainers.items()}
    assert min(accuracy.values()) > 0.9, f"somebody does not learn: {accuracy}"
    times = take_turns({name: epoch for name, (epoch, _) in trainers.items()}, repeats)
    times = {name: [value / steps for value in values] for name, values in times.items()}
    what = "one training step of" if task["steps"] else "one epoch of"
    add_section(report, f"{what} {task['name']}, one thread", times, accuracy=accuracy, plot=True)
    shown = ", ".join(f"{name} {value:.2%}" for name, value in accuracy.items())
    print(f"    accuracy on the test digits after {ACCURACY_EPOCHS} epochs of {len(X):,} rows: {shown}")
    cydrop, *numpy = (statistics.median(values) for values in times.values())
    return {"task": task, "what": what, "cydrop": cydrop, "numpy": min(numpy), "X": X, "y": y, "steps": steps}


def trained_accuracy(trainer: Trainer, X: Floats, y: Any) -> float:
    epoch, predict = trainer
    for _ in range(ACCURACY_EPOCHS):
        epoch()
    return float((predict(X) == y).mean())

"""ReLU in NumPy: what is usually written and the fastest that we could write, checked, and compared with cydrop's."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import Call, fastest, take_turns

from against_numpy.arrays import CHUNK, Floats, Unary
from against_numpy.report import CYDROP, KERNEL, add_section

Binary = Callable[[Floats, Floats, Floats], Any]  # (dy, x, out)


def relu_scalar(n: int) -> Unary:
    return lambda x, out: np.maximum(x, 0, out=out)


def relu_zeros(n: int) -> Unary:
    """An array of zeros instead of the number 0: NumPy has vector code for that case only."""
    zeros = np.zeros(n, dtype=np.float32)
    return lambda x, out: np.maximum(x, zeros, out=out)


def relu_zeros_chunks(n: int) -> Unary:
    size = min(n, CHUNK)
    zeros = np.zeros(size, dtype=np.float32)

    def run(x: Floats, out: Floats) -> None:
        for start in range(0, n, size):
            np.maximum(x[start : start + size], zeros, out=out[start : start + size])

    return run


def relu_half_sum(n: int) -> Unary:
    """(x + |x|) / 2 in chunks."""
    size, half = min(n, CHUNK), np.float32(0.5)

    def run(x: Floats, out: Floats) -> None:
        for start in range(0, n, size):
            part, given = out[start : start + size], x[start : start + size]
            np.abs(given, out=part)
            np.add(part, given, out=part)
            np.multiply(part, half, out=part)

    return run


def relu_backward_plain(n: int) -> Binary:
    return lambda dy, x, out: np.multiply(dy, x > 0, out=out)


def relu_backward_boolean(n: int) -> Binary:
    positive = np.empty(n, dtype=np.bool_)

    def run(dy: Floats, x: Floats, out: Floats) -> None:
        np.greater(x, np.float32(0), out=positive)
        np.multiply(dy, positive, out=out)

    return run


def relu_backward_cast(n: int) -> Binary:
    size = min(n, CHUNK)
    positive, gate = np.empty(size, dtype=np.bool_), np.empty(size, dtype=np.float32)

    def run(dy: Floats, x: Floats, out: Floats) -> None:
        for start in range(0, n, size):
            part = slice(start, start + size)
            np.greater(x[part], np.float32(0), out=positive)
            np.copyto(gate, positive)
            np.multiply(dy[part], gate, out=out[part])

    return run


def relu_backward_and(n: int) -> Binary:
    """All bits of dy, or none: True as an int8, negated, widened to int32, is a mask of 32 ones."""
    size = min(n, CHUNK)
    positive, gate = np.empty(size, dtype=np.bool_), np.empty(size, dtype=np.int32)
    signs = positive.view(np.int8)

    def run(dy: Floats, x: Floats, out: Floats) -> None:
        dy_bits, out_bits = dy.view(np.int32), out.view(np.int32)
        for start in range(0, n, size):
            part = slice(start, start + size)
            np.greater(x[part], np.float32(0), out=positive)
            np.negative(signs, out=signs)
            np.copyto(gate, signs)
            np.bitwise_and(dy_bits[part], gate, out=out_bits[part])

    return run


RELUS = {
    "np.maximum(x, 0, out=out)": relu_scalar,
    "maximum with an array of zeros": relu_zeros,
    "maximum with zeros, chunks": relu_zeros_chunks,
    "(x + |x|) / 2, chunks": relu_half_sum,
}
RELU_BACKWARDS = {
    "np.multiply(dy, x > 0, out=out)": relu_backward_plain,
    "greater, boolean product": relu_backward_boolean,
    "greater, cast, product, chunks": relu_backward_cast,
    "greater, widened to bits, and, chunks": relu_backward_and,
}


def check_relus() -> None:
    n = 2**18
    x, dy = np.random.default_rng(16).standard_normal((2, n), dtype=np.float32)
    out = np.empty_like(x)
    for name, make in RELUS.items():
        make(n)(x, out)
        assert np.array_equal(out, np.maximum(x, 0)), f"{name} is not ReLU"
    for name, make_backward in RELU_BACKWARDS.items():
        make_backward(n)(dy, x, out)
        assert np.array_equal(out, np.where(x > 0, dy, 0)), f"{name} is not ReLU's gradient"


def into_fresh(run: Callable[..., Any], *given: Floats) -> Floats:
    out = np.empty_like(given[0])
    run(*given, out)
    return out


def compare_relu(report: dict[str, Any], exponent: int, repeats: int) -> None:
    """Allocating against allocating, then into a given array."""
    from cydrop import functional
    from cydrop._core import activations as kernels

    n = 2**exponent
    x = np.random.default_rng(17).standard_normal(n, dtype=np.float32)
    out, relu = np.empty_like(x), kernels.KINDS["relu"]
    runs = {name: make(n) for name, make in RELUS.items()}
    best, least = fastest({name: functools.partial(run, x, out) for name, run in runs.items()})
    fresh, _ = fastest({name: functools.partial(into_fresh, run, x) for name, run in runs.items()})
    competitors: dict[str, Call] = {
        CYDROP.format("functional.relu(x)"): lambda: functional.relu(x),
        "NumPy: np.maximum(x, 0)": lambda: np.maximum(x, 0),
        f'NumPy, fastest of {len(runs)}, fresh out: "{fresh}"': lambda: into_fresh(runs[fresh], x),
    }
    title = f"ReLU forward, 2^{exponent} float32, result allocated, one thread"
    add_section(report, title, take_turns(competitors, repeats), plot=True, candidates=least)
    competitors = {
        KERNEL.format("_core.activations.activation"): lambda: kernels.activation(relu, 0.0, x, out, 1),
        "NumPy: np.maximum(x, 0, out=out)": lambda: np.maximum(x, 0, out=out),
        f'NumPy, fastest of {len(runs)}: "{best}"': lambda: runs[best](x, out),
    }
    title = f"ReLU forward, 2^{exponent} float32, into a given array, one thread"
    add_section(report, title, take_turns(competitors, repeats))


def compare_relu_backward(report: dict[str, Any], exponent: int, repeats: int) -> None:
    from cydrop import functional
    from cydrop._core import activations as kernels

    n = 2**exponent
    x, dy = (rows.copy() for rows in np.random.default_rng(18).standard_normal((2, n), dtype=np.float32))
    out = np.empty_like(x)
    runs = {name: make(n) for name, make in RELU_BACKWARDS.items()}
    best, least = fastest({name: functools.partial(run, dy, x, out) for name, run in runs.items()})
    fresh, _ = fastest({name: functools.partial(into_fresh, run, dy, x) for name, run in runs.items()})
    competitors: dict[str, Call] = {
        CYDROP.format("functional.relu_backward(dy, x)"): lambda: functional.relu_backward(dy, x),
        "NumPy: dy * (x > 0)": lambda: dy * (x > 0),
        "NumPy: np.where(x > 0, dy, 0)": lambda: np.where(x > 0, dy, np.float32(0)),
        f'NumPy, fastest of {len(runs)}, fresh out: "{fresh}"': lambda: into_fresh(runs[fresh], dy, x),
    }
    title = f"ReLU backward, 2^{exponent} float32, result allocated, one thread"
    add_section(report, title, take_turns(competitors, repeats), plot=True, candidates=least)
    competitors = {
        KERNEL.format("_core.activations.relu_backward"): lambda: kernels.relu_backward(dy, x, out, 1),
        f'NumPy, fastest of {len(runs)}: "{best}"': lambda: runs[best](dy, x, out),
    }
    title = f"ReLU backward, 2^{exponent} float32, into a given array, one thread"
    add_section(report, title, take_turns(competitors, repeats))

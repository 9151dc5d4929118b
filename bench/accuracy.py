"""The error of cydrop's own exp, tanh and their kin, in units in the last place (ulp) of float32.

    python bench/accuracy.py [--points N]

Each function is compared with float64 at N float32 arguments, spread evenly over a range. An ulp is the distance
of the float32 numbers next to the true value. Where a function goes to 0 while its terms stay large (GELU, SiLU, Mish
far on the left) its relative error grows, so the largest absolute error is shown as well.
"""

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cydrop as cd
from cydrop import functional
from cydrop._core import activations

Array = NDArray[Any]


def exponential(x: Array) -> Array:
    """cydrop's e^x, which no public function shows by itself."""
    out = np.empty_like(x)
    activations.exponential(x, out)
    return out


def normal_cdf(x: Array) -> Array:
    return 0.5 * np.array([math.erfc(-value / math.sqrt(2)) for value in x])


CASES: list[tuple[str, Callable[[Array], Array], Callable[[Array], Array], float, float]] = [
    ("exp", exponential, np.exp, -87.0, 88.0),
    ("tanh", functional.tanh, np.tanh, -10.0, 10.0),
    ("sigmoid", functional.sigmoid, lambda x: 1 / (1 + np.exp(-x)), -80.0, 20.0),
    ("softplus", functional.softplus, lambda x: np.log1p(np.exp(x)), -80.0, 20.0),
    ("elu", functional.elu, lambda x: np.where(x > 0, x, np.expm1(x)), -20.0, 5.0),
    ("silu", functional.silu, lambda x: x / (1 + np.exp(-x)), -80.0, 20.0),
    ("mish", functional.mish, lambda x: x * np.tanh(np.log1p(np.exp(x))), -80.0, 20.0),
    ("gelu", functional.gelu, lambda x: x * normal_cdf(x), -5.0, 5.0),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Errors of cydrop's elementary functions, in ulp.")
    parser.add_argument("--points", type=int, default=400_000, metavar="N")
    points = parser.parse_args().points
    if points < 2:
        parser.error(f"--points must be at least 2, got {points}")
    print(f"instruction set {cd.show_config()['simd']}, {points:,} points each\n")
    print(f"{'function':<10}{'range':>14}{'largest, ulp':>15}{'mean, ulp':>12}{'largest, absolute':>20}")
    for name, ours, truth, low, high in CASES:
        x = np.linspace(low, high, points).astype(np.float32)
        exact = truth(x.astype(np.float64))
        error = np.abs(ours(x).astype(np.float64) - exact)
        ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        span = f"{low:g} .. {high:g}"
        print(f"{name:<10}{span:>14}{(error / ulp).max():>15.2f}{(error / ulp).mean():>12.3f}{error.max():>20.2e}")


if __name__ == "__main__":
    main()

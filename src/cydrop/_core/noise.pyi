import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, int]

def normals(out: NDArray[np.float32], k0: int, k1: int, n_threads: int, first: int = 0) -> None: ...
def normal_noise(
    variant: int,
    x: NDArray[np.float32],
    noise: NDArray[np.float32],
    out: NDArray[np.float32],
    deviation: float,
    n_threads: int,
) -> None: ...
def alpha_dropout(
    x: NDArray[np.float32],
    bits: NDArray[np.uint64],
    out: NDArray[np.float32],
    rate: float,
    backward: bool,
    n_threads: int,
) -> None: ...
def rate_of_logit(logit: float) -> float: ...
def keeps(out: NDArray[np.float32], odds: float, k0: int, k1: int, n_threads: int, first: int = 0) -> None: ...
def concrete_dropout(
    x: NDArray[np.float32], keep: NDArray[np.float32], out: NDArray[np.float32], odds: float, n_threads: int
) -> None: ...
def concrete_dropout_backward(
    x: NDArray[np.float32],
    keep: NDArray[np.float32],
    dx: NDArray[np.float32],
    sums: NDArray[np.float64],
    odds: float,
    n_threads: int,
) -> None: ...

import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, int]
PARAMETRIC_KINDS: dict[str, int]

def activation(kind: int, alpha: float, z: NDArray[np.float32], y: NDArray[np.float32], n_threads: int) -> None: ...
def activation_backward(
    kind: int, alpha: float, z: NDArray[np.float32], dz: NDArray[np.float32], n_threads: int
) -> None: ...
def relu_backward(
    dy: NDArray[np.float32], x: NDArray[np.float32], out: NDArray[np.float32], n_threads: int
) -> None: ...
def parametric(
    kind: int,
    option: float,
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    y: NDArray[np.float32],
    n_threads: int,
) -> None: ...
def parametric_backward(
    kind: int,
    option: float,
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    dx: NDArray[np.float32],
    sums: NDArray[np.float32],
    gradient: NDArray[np.float32],
    n_threads: int,
) -> None: ...
def exponential(x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...

import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, int]

def activation(kind: int, alpha: float, z: NDArray[np.float32], y: NDArray[np.float32], n_threads: int) -> None: ...
def activation_backward(
    kind: int, alpha: float, z: NDArray[np.float32], dz: NDArray[np.float32], n_threads: int
) -> None: ...
def exponential(x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...

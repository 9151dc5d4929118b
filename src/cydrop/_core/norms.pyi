import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, int]

def forward(
    batch: bool,
    epsilon: float,
    momentum: float,
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    y: NDArray[np.float32],
    mean: NDArray[np.float32],
    inverse: NDArray[np.float32],
    running_mean: NDArray[np.float32],
    running_variance: NDArray[np.float32],
    training: bool,
    n_threads: int,
) -> None: ...
def backward(
    batch: bool,
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    mean: NDArray[np.float32],
    inverse: NDArray[np.float32],
    dx: NDArray[np.float32],
    weight_gradient: NDArray[np.float32],
    bias_gradient: NDArray[np.float32],
    n_threads: int,
) -> None: ...

import numpy as np
from numpy.typing import NDArray

def forward(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    y: NDArray[np.float32],
    n_threads: int,
) -> None: ...
def backward(
    dy: NDArray[np.float32],
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    dx: NDArray[np.float32],
    dweight: NDArray[np.float32],
    dbias: NDArray[np.float32],
    n_threads: int,
) -> None: ...

import numpy as np
from numpy.typing import NDArray

def relu(x: NDArray[np.float32], out: NDArray[np.float32], n_threads: int) -> None: ...
def relu_backward(
    dy: NDArray[np.float32], x: NDArray[np.float32], out: NDArray[np.float32], n_threads: int
) -> None: ...

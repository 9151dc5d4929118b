import numpy as np
from numpy.typing import NDArray

def tally(
    samples: NDArray[np.float32],
    before: int,
    mean: NDArray[np.float64],
    squares: NDArray[np.float64],
    entropies: NDArray[np.float64],
    binary: bool,
    n_threads: int,
) -> None: ...

import numpy as np
from numpy.typing import NDArray

def kept(bits: NDArray[np.uint64], places: NDArray[np.int32]) -> int: ...
def gathered(
    source: NDArray[np.float32],
    rows_kept: NDArray[np.int32],
    cols_kept: NDArray[np.int32],
    to: NDArray[np.float32],
    n_threads: int,
) -> None: ...

import numpy as np
from numpy.typing import NDArray

def kept(bits: NDArray[np.uint64], places: NDArray[np.int32]) -> int: ...
def gathered(
    source: NDArray[np.float32],
    row_bits: NDArray[np.uint64],
    col_bits: NDArray[np.uint64],
    row_places: NDArray[np.int32],
    col_places: NDArray[np.int32],
    to: NDArray[np.float32],
    n_threads: int,
) -> None: ...
def spread_row(source: NDArray[np.float32], bits: NDArray[np.uint64], first: int, to: NDArray[np.float32]) -> None: ...

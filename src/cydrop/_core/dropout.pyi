import numpy as np
from numpy.typing import NDArray

def dropout(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    rate: float,
    scale: float,
    k0: int,
    k1: int,
    n_threads: int,
) -> None: ...
def mask(bits: NDArray[np.uint64], n: int, rate: float, k0: int, k1: int, n_threads: int, first: int = 0) -> None: ...
def words_of(n: int) -> int: ...
def apply_mask(
    x: NDArray[np.float32],
    bits: NDArray[np.uint64],
    out: NDArray[np.float32],
    scale: float,
    n_threads: int,
) -> None: ...
def apply_booleans(
    x: NDArray[np.float32], keep: NDArray[np.uint8], out: NDArray[np.float32], scale: float, n_threads: int
) -> None: ...
def pack(keep: NDArray[np.uint8], bits: NDArray[np.uint64]) -> None: ...
def unpack(bits: NDArray[np.uint64], keep: NDArray[np.uint8]) -> None: ...
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

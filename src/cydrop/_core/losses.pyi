import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, int]
VERDICTS: tuple[str, ...]

def loss(
    kind: int,
    option: float,
    levels: NDArray[np.float32],
    z: NDArray[np.float32],
    labels: NDArray[np.int32],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    dz: NDArray[np.float32],
    row_loss: NDArray[np.float64],
    row_correct: NDArray[np.int32],
    n_threads: int,
) -> tuple[float, int]: ...
def errors(
    levels: NDArray[np.float32],
    z: NDArray[np.float32],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None: ...
def verdict(
    kind: int,
    z: NDArray[np.float32],
    labels: NDArray[np.int32],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> float: ...
def link(kind: int, levels: NDArray[np.float32], z: NDArray[np.float32], n_threads: int) -> None: ...
def pair_loss(
    option: float,
    pair: float,
    z: NDArray[np.float32],
    labels: NDArray[np.int32],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    dz: NDArray[np.float32],
    row_loss: NDArray[np.float64],
    row_correct: NDArray[np.int32],
    n_threads: int,
) -> float: ...
def tally(
    samples: NDArray[np.float32],
    before: int,
    mean: NDArray[np.float64],
    squares: NDArray[np.float64],
    entropies: NDArray[np.float64],
    binary: bool,
    n_threads: int,
) -> None: ...

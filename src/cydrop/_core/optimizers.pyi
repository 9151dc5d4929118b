import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, int]

def spans_of(n: int) -> int: ...
def slices_of(n: int, parts: int) -> list[int]: ...
def norm(g: NDArray[np.float32], partial: NDArray[np.float64], n_threads: int) -> float: ...
def update(
    kind: int,
    w: NDArray[np.float32],
    g: NDArray[np.float32],
    m: NDArray[np.float32],
    v: NDArray[np.float32],
    t: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    nesterov: bool,
    clip: float,
    segments: NDArray[np.float64],
    n_threads: int,
) -> None: ...

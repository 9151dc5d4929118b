from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def forward(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    y: NDArray[np.float32],
    n_threads: int,
    bf16: bool = False,
) -> None: ...
def backward(
    dy: NDArray[np.float32],
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    dx: NDArray[np.float32],
    dweight: NDArray[np.float32],
    dbias: NDArray[np.float32],
    n_threads: int,
    bf16: bool = False,
) -> None: ...
def pairs_of(first: NDArray[np.float32], second: NDArray[np.float32], pairs: NDArray[np.uint32]) -> None: ...
def use_instruction(kind: str, wish: bool) -> bool: ...
def has_instruction(kind: str) -> bool: ...
def panel_columns() -> int: ...
def codes_of(
    x: NDArray[np.float32], codes: NDArray[np.uint8], scales: NDArray[np.float32], zeros: NDArray[np.int32]
) -> None: ...
def forward_of_bytes(
    x: NDArray[np.float32],
    panels: NDArray[np.float32],
    scales: NDArray[np.float32],
    sums: NDArray[np.int32],
    bias: NDArray[np.float32],
    y: NDArray[np.float32],
    n_threads: int,
) -> None: ...

NUMBER_KINDS: dict[str, int]

def embed_numbers(
    kind: int,
    columns: int,
    frequencies: int,
    size: int,
    arrays: Sequence[NDArray[np.float32]],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    n_threads: int,
) -> None: ...
def embed_numbers_backward(
    kind: int,
    columns: int,
    frequencies: int,
    size: int,
    arrays: Sequence[NDArray[np.float32]],
    gradients: Sequence[NDArray[np.float32]],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    dy: NDArray[np.float32],
    dx: NDArray[np.float32],
    n_threads: int,
) -> None: ...
def embed_codes(
    x: NDArray[np.float32],
    starts: NDArray[np.int64],
    tables: NDArray[np.float32],
    y: NDArray[np.float32],
    n_threads: int,
) -> None: ...
def embed_codes_backward(
    x: NDArray[np.float32],
    starts: NDArray[np.int64],
    dy: NDArray[np.float32],
    dx: NDArray[np.float32],
    gradient: NDArray[np.float32],
    n_threads: int,
) -> None: ...
def parts_of_turns(
    x: NDArray[np.float32], w: float, b: float, c: NDArray[np.float32], s: NDArray[np.float32]
) -> None: ...

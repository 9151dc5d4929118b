from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._core.engine import Engine

RECORD: tuple[str, ...]
SCORES: tuple[str, ...]
ENDINGS: tuple[str, ...]

class Training:
    record: NDArray[np.float64]
    shape: tuple[Any, ...] | None
    limit: int
    def __init__(
        self,
        engine: Engine,
        rows: tuple[NDArray[Any], ...],
        held: tuple[NDArray[Any], ...] | None,
        chosen: NDArray[np.int64],
        held_chosen: NDArray[np.int64],
        epoch_rows: int,
        batch_size: int,
        learning_rates: NDArray[np.float64],
        decays: NDArray[np.float64],
        rates: NDArray[np.float64],
        root: NDArray[np.uint64],
        branch: int,
        epochs_before: int,
        kept_ops: NDArray[np.int32],
        keep: NDArray[np.float32],
        counts: bool,
        judged_option: float,
        verdict: int,
        low: NDArray[np.float32],
        high: NDArray[np.float32],
        score: int,
        last_tie: bool,
        patience: int,
        keeps_best: bool,
        epochs: int,
    ) -> None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def ended(self) -> str: ...
    @property
    def best(self) -> tuple[float, int]: ...
    @property
    def pauses(self) -> bool: ...
    def state(self) -> dict[str, Any]: ...
    def go_on_from(self, state: dict[str, Any]) -> None: ...
    def whole(self) -> dict[str, Any]: ...
    def take_over(self, state: dict[str, Any]) -> None: ...
    def finish(self) -> None: ...

def train(trainings: list[Training], n_threads: int, seconds: float) -> None: ...

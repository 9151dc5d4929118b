from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAMILIES: dict[str, tuple[int, dict[str, int]]]

class Engine:
    draws: int
    updates: int
    in_force: Any  # what set_optimizer was called for
    lost: bool  # the beginning of the pass, which could not be read
    def __init__(
        self,
        plan: Any,
        parameters: NDArray[np.float32],
        gradients: NDArray[np.float32],
        buffers: NDArray[np.float32],
        loss_kind: int,
        loss_option: float,
        loss_pair: float,
        loss_levels: NDArray[np.float32],
        n_threads: int,
        learned: Sequence[tuple[int, int, float, float, float, float]] = ...,
        bf16: bool = ...,
    ) -> None: ...
    def train_on(self, rows: float) -> None: ...
    def set_optimizer(
        self,
        owner: object,
        updates: int,
        moment1: NDArray[np.float32],
        moment2: NDArray[np.float32],
        kind: int,
        beta1: float,
        beta2: float,
        epsilon: float,
        nesterov: bool,
        clip_norm: float | None,
    ) -> None: ...
    def begin_pass(self, parameters: NDArray[np.float32], buffers: NDArray[np.float32], file: int = -1) -> None: ...
    def end_pass(self) -> bool: ...
    def put_back(self, parameters: NDArray[np.float32], buffers: NDArray[np.float32], keep_moments: bool) -> None: ...
    def train(
        self,
        ws: Workspace,
        x: NDArray[np.float32],
        labels: NDArray[np.int32],
        targets: NDArray[np.float32],
        weights: NDArray[np.float32],
        order: NDArray[np.int64],
        batch_size: int,
        first_batch: int,
        learning_rates: NDArray[np.float64],
        decays: NDArray[np.float64],
        rates: NDArray[np.float64],
        seconds: float,
        shards: int = 0,
        loss: float = 0.0,
    ) -> tuple[int, float, int, bool]: ...
    def part_of_batch(
        self,
        ws: Workspace,
        x: NDArray[np.float32],
        labels: NDArray[np.int32],
        targets: NDArray[np.float32],
        weights: NDArray[np.float32],
        order: NDArray[np.int64],
        batch_size: int,
        batch: int,
        rates: NDArray[np.float64],
        shards: int,
        first_shard: int,
        n_shards: int,
        statistics: NDArray[np.float32],
    ) -> tuple[float, int, bool]: ...
    def add_parts(self, parts: NDArray[np.float32], start: int, squares: NDArray[np.float64]) -> None: ...
    def update_part(
        self, start: int, stop: int, learning_rate: float, weight_decay: float, squares: NDArray[np.float64]
    ) -> None: ...
    def end_batch(self, statistics: NDArray[np.float32], rows: int, shards: int) -> None: ...
    def predict(
        self,
        ws: Workspace,
        x: NDArray[np.float32],
        out: NDArray[np.float32],
        first_row: int,
        link: bool,
        seconds: float,
    ) -> int: ...
    def use_moments(self, ws: Workspace, moments: bool) -> None: ...
    def begin_samples(self, ws: Workspace, x: NDArray[np.float32], copies: int, rates: NDArray[np.float64]) -> None: ...
    def samples(
        self,
        ws: Workspace,
        out: NDArray[np.float32],
        first: int,
        chunk: int,
        chunks: int,
        seeds: NDArray[np.uint64],
        link: bool,
    ) -> None: ...
    def forward(
        self, ws: Workspace, x: NDArray[np.float32], out: NDArray[np.float32], rates: NDArray[np.float64]
    ) -> None: ...
    def backward(self, ws: Workspace, grad: NDArray[np.float32], dx: NDArray[np.float32]) -> None: ...
    def apply_update(self, learning_rate: float, weight_decay: float) -> None: ...

class Workspace:
    capacity: int
    training: bool
    masked: bool
    first_row: int
    shards: int
    def __init__(
        self, engine: Engine, capacity: int, training: bool, masked: bool = False, shards: int = 0
    ) -> None: ...
    def set_keep(self, op: int, keep: float) -> None: ...
    def give_mask(self, op: int, bits: NDArray[np.uint64]) -> None: ...
    def take_back_masks(self) -> None: ...
    def start_clock(self) -> None: ...
    def seconds(self) -> tuple[dict[str, float], list[tuple[float, float, float]]]: ...

def key_of(source: Any, step: int) -> tuple[int, int]: ...
def all_finite(x: NDArray[np.float32], n_threads: int) -> bool: ...
def target() -> tuple[str, bool]: ...

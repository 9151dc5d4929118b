"""Random words: a stream is named by its key and runs in blocks, each drawn by 16 xorshift128+ generators."""

from __future__ import annotations

from typing import Any

import numpy as np

from cydrop.reference._arrays import Array

__all__ = ["BLOCK", "GOLDEN", "LANES", "block_lanes", "mix64", "stream_key", "xorshift_words"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
LANES = 16
BLOCK = 4096


def mix64(z: Any) -> Any:
    """SplitMix64's finaliser: scatters every bit of a 64-bit word."""
    with np.errstate(over="ignore"):
        z = np.asarray(z, dtype=np.uint64) + GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def stream_key(seed: tuple[int, int], stream: int, step: int) -> tuple[int, int]:
    """The key of the masks of one layer in one step."""
    with np.errstate(over="ignore"):
        first, second = (mix64(mix64(np.uint64(k) + np.uint64(stream)) + np.uint64(step)) for k in seed)
    return int(first), int(second)


def xorshift_words(s0: Array, s1: Array, draws: int) -> Array:
    """`draws` draws of xorshift128+ generators with states s0, s1 of any shape; the words have a first axis more."""
    words = np.empty((draws, *s0.shape), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for draw in range(draws):
            words[draw] = s0 + s1
            x = s0 ^ (s0 << np.uint64(23))
            s0, s1 = s1, x ^ s1 ^ (x >> np.uint64(18)) ^ (s1 >> np.uint64(5))
    return words


def block_lanes(key: tuple[int, int], blocks: int) -> tuple[Array, Array]:
    """The states at the beginning of every block of a stream, each of shape (blocks, 16)."""
    with np.errstate(over="ignore"):
        steps = GOLDEN * np.arange(blocks * LANES, dtype=np.uint64).reshape(blocks, LANES)
        return mix64(np.uint64(key[0]) + steps), mix64(np.uint64(key[1]) + steps) | np.uint64(1)

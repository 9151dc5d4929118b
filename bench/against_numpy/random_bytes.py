"""Random bytes in NumPy: the fastest of its generators on this machine."""

import functools
from collections.abc import Callable

import numpy as np
from measuring import fastest
from numpy.typing import NDArray

from against_numpy.arrays import CHUNK

Bytes = NDArray[np.uint8]
Source = Callable[[int], Bytes]  # count -> random bytes, valid until the next call

BUFFER = 2**17  # bytes a source draws at a time


def choose_source() -> tuple[str, Source, dict[str, float]]:
    """The fastest of NumPy's ways to random bytes: its name, itself, and the least time of each for 2^20."""
    fills: dict[str, Callable[[], Bytes]] = {}
    for kind in np.random.SFC64, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.MT19937:
        fills[f"{kind.__name__}.random_raw"] = raw_words(kind(1))
    generator = np.random.Generator(np.random.SFC64(2))
    fills["Generator.bytes"] = lambda: np.frombuffer(generator.bytes(BUFFER), dtype=np.uint8)
    fills["Generator.integers(uint8)"] = lambda: generator.integers(0, 256, BUFFER, dtype=np.uint8)
    fills["xorshift128+ written in NumPy"] = xorshift_lanes(3)
    sources = {name: in_slices(fill) for name, fill in fills.items()}
    name, medians = fastest({name: functools.partial(drain, source) for name, source in sources.items()}, 7)
    return name, sources[name], medians


def drain(source: Source) -> None:
    for _ in range(2**20 // CHUNK):
        source(CHUNK)


def raw_words(bits: np.random.BitGenerator) -> Callable[[], Bytes]:
    return lambda: bits.random_raw(BUFFER // 8).view(np.uint8)


def xorshift_lanes(seed: int) -> Callable[[], Bytes]:
    """cydrop's generator in NumPy's vector operations: xorshift128+ (Vigna 2017), a lane a word."""
    rng = np.random.default_rng(seed)
    state = [rng.integers(1, 2**64 - 1, BUFFER // 8, dtype=np.uint64) for _ in range(2)]
    words, shifted = np.empty_like(state[0]), np.empty_like(state[0])

    def fill() -> Bytes:
        x, y = state
        np.add(x, y, out=words)
        np.left_shift(x, 23, out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.right_shift(x, 18, out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.bitwise_xor(x, y, out=x)
        np.right_shift(y, 5, out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        state[:] = y, x
        return words.view(np.uint8)

    return fill


def in_slices(fill: Callable[[], Bytes]) -> Source:
    """Draws a buffer at a time and hands it out in slices."""
    buffer, used = fill(), 0

    def source(count: int) -> Bytes:
        nonlocal buffer, used
        if count > BUFFER:
            parts = [source(min(BUFFER, count - start)).copy() for start in range(0, count, BUFFER)]
            return np.concatenate(parts)
        if used + count > BUFFER:
            buffer, used = fill(), 0
        used += count
        return buffer[used - count : used]

    return source

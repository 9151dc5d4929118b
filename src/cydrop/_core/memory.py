"""Aligned float32 memory."""

import numpy as np
from numpy.typing import NDArray


def aligned(size: int) -> NDArray[np.float32]:
    """Zeros that begin on a cache line. Pages that are never touched are never taken from the system."""
    memory = np.zeros(size + 16, dtype=np.float32)
    start = -memory.__array_interface__["data"][0] % 64 // 4
    return memory[start : start + size]

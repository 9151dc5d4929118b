"""Aligned float32 memory."""

import numpy as np
from numpy.typing import NDArray

MARGIN = 32


def aligned(size: int) -> NDArray[np.float32]:
    """Zeros that begin on a cache line and may be read MARGIN floats beyond their end, by vectors that hang over.

    Pages that are never touched are never taken from the system.
    """
    try:
        memory = np.zeros(size + 16 + MARGIN, dtype=np.float32)
    except ValueError:  # beyond what an array can have
        raise MemoryError(f"cannot allocate {4 * size:,} bytes") from None
    start = -memory.__array_interface__["data"][0] % 64 // 4
    return memory[start : start + size]

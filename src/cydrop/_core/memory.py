"""Aligned float32 memory."""

import numpy as np
from numpy.typing import NDArray

from cydrop._core.cpu import MARGIN


def aligned(size: int) -> NDArray[np.float32]:
    """Zeros that begin on a cache line and may be read MARGIN floats beyond their end, by vectors that hang over.

    Pages that are never touched are never taken from the system.
    """
    try:
        memory = np.zeros(size + 16 + MARGIN, dtype=np.float32)
    except (ValueError, OverflowError):  # NumPy's words for sizes that no address reaches
        raise MemoryError(f"{size:,} numbers of float32 do not fit into any memory") from None
    start = -memory.__array_interface__["data"][0] % 64 // 4
    return memory[start : start + size]

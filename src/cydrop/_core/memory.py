"""Aligned float32 memory."""

import numpy as np
from numpy.typing import NDArray

from cydrop._core.cpu import MARGIN, floats_to_cache_line

_NONE = np.zeros(16 + MARGIN, dtype=np.float32)  # for all that have no size: there may be thousands


def aligned(size: int) -> NDArray[np.float32]:
    """Zeros that begin on a cache line and may be read MARGIN floats beyond their end, by vectors that hang over.

    Pages that are never touched are never taken from the system.
    """
    try:
        memory = np.zeros(size + 16 + MARGIN, dtype=np.float32) if size else _NONE
    except (ValueError, OverflowError):  # NumPy's words for sizes that no address reaches
        raise MemoryError(f"{size:,} numbers of float32 do not fit into any memory") from None
    start = floats_to_cache_line(memory)
    return memory[start : start + size]

"""Arrays in the precision of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def real(x: ArrayLike) -> Array:
    """float64 as it is, everything else as float32."""
    x = np.asarray(x)
    return x if x.dtype == np.float64 else x.astype(np.float32)

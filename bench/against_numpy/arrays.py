"""What the candidates take and give."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Unary = Callable[[Floats, Floats], Any]  # (x, out)

CHUNK = 2**17  # elements a chunked candidate works on at a time: its buffers stay in the second cache

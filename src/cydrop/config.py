"""What a bug report should say."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from cydrop import _core
from cydrop._base import threads
from cydrop._core import cpu
from cydrop._version import __version__

__all__ = ["show_config"]


def show_config() -> dict[str, Any]:
    """Version, instruction set, OpenMP and threads of this installation, as a dict.

    Returns
    -------
    dict
        "simd" is the instruction set in use, "fused_multiply_add" whether it has the instruction that equal bits
        require, "bfloat16" how products of precision "bfloat16" are made: by the processor's "instruction", or
        "computed", with the same bits and slower than float32, "int8" the same of products of bytes (QuantizedNetwork),
        "openmp" the OpenMP version (a date) or 0 for a serial build,
        "n_threads" what `n_threads=None` gives.
    """
    from cydrop._core.dense import has_instruction
    from cydrop._core.engine import target

    return {
        "cydrop": __version__,
        "simd": _core.simd,
        "simd_available": _core.available(),
        "fused_multiply_add": target()[1],
        "bfloat16": "instruction" if has_instruction("bfloat16") else "computed",
        "int8": "instruction" if has_instruction("int8") else "computed",
        "openmp": cpu.openmp(),
        "n_threads": threads.resolve(None),
        "compiler": cpu.compiler(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }

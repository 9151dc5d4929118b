"""The compiled core. Importing it chooses, once, the best instruction set that this machine and this build have.

The kernels lie in one folder an instruction set (baseline, avx2, avx512), all under the same module names:
the chosen folder goes to the front of this package's search path, and `import cydrop._core.dropout` finds it.
"""

import os

from cydrop._core import cpu


def available() -> list[str]:
    """The instruction sets that can be used here, best first."""
    return [name for name in cpu.instruction_sets() if _has_kernels(name)]


def _has_kernels(name: str) -> bool:
    folder = os.path.join(os.path.dirname(__file__), name)
    return os.path.isdir(folder) and any(file.startswith("engine.") for file in os.listdir(folder))


def _choose() -> str:
    wish = os.environ.get("CYDROP_SIMD", "")
    usable = available()
    if wish and wish not in usable:
        raise ImportError(f"CYDROP_SIMD={wish!r} cannot be had: this machine and this build have {', '.join(usable)}")
    return wish or usable[0]


simd = _choose()
__path__.insert(0, os.path.join(os.path.dirname(__file__), simd))

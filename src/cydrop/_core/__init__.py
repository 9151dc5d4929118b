"""The compiled core. Importing it chooses, once, the best instruction set that this machine and this build have.

The kernels lie in one folder an instruction set (baseline, avx2, avx512), all under the same module names:
the chosen folder goes to the front of this package's search path, and `import cydrop._core.dropout` finds it.
"""

import os

from cydrop._core import cpu


def _choose() -> str:
    folder = os.path.dirname(__file__)
    usable = [name for name in cpu.instruction_sets() if os.path.isdir(os.path.join(folder, name))]
    wish = os.environ.get("CYDROP_SIMD", "")
    if wish and wish not in usable:
        raise ImportError(f"CYDROP_SIMD={wish!r} cannot be had here; this machine and this build have {usable}")
    return wish or usable[0]


simd = _choose()
__path__.insert(0, os.path.join(os.path.dirname(__file__), simd))

"""The machine that a benchmark runs on, and the threads of NumPy's BLAS."""

import ctypes
import functools
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # hold NumPy's products back where they are set


def leave_slowing_variables() -> None:
    """Starts this script anew without the variables that make NumPy's products slower than they need be."""
    found = [name for name in SLOWING if name in os.environ]
    if found:
        print(f"{' and '.join(found)} would slow NumPy down: starting again without.", flush=True)
        environment = {name: value for name, value in os.environ.items() if name not in SLOWING}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


@functools.cache
def blas_function(name: str) -> Any:
    """A function of the OpenBLAS that NumPy has loaded, such as "get_num_threads"; None if it is another."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for path in sorted({line.split()[-1] for line in lines if "openblas" in line}):
        library = ctypes.CDLL(path)
        for prefix in ("scipy_openblas_", "openblas_"):
            for suffix in ("64_", ""):
                if hasattr(library, prefix + name + suffix):
                    return getattr(library, prefix + name + suffix)
    return None


def blas_threads() -> int | None:
    function = blas_function("get_num_threads")
    return None if function is None else int(function())


def use_blas_threads(count: int | None) -> None:
    function = blas_function("set_num_threads")
    if function is not None and count is not None:
        function(ctypes.c_int(count))


def blas_core() -> str | None:
    """The kind of processor that OpenBLAS has chosen its kernels for."""
    function = blas_function("get_corename")
    if function is None:
        return None
    function.restype = ctypes.c_char_p
    return str(function().decode())


def describe_machine() -> dict[str, Any]:
    import cydrop

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "processor": processor(),
        "processors": processors(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numpy_blas": f"{blas.get('name')} {blas.get('version')}",
        "numpy_blas_kernels": blas_core(),
        "numpy_blas_threads": blas_threads(),
        "cydrop": cydrop.show_config(),
        "environment": {name: value for name, value in sorted(os.environ.items())
                        if name.startswith(("OMP_", "OPENBLAS_", "MKL_", "BLIS_", "CYDROP_", "NPY_"))},
    }  # fmt: skip


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def processors() -> int | None:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def print_machine(machine: dict[str, Any]) -> None:
    for name, value in machine.items():
        if name == "numpy_blas_threads":
            value = f"{value} by default, 1 in the one-thread tables" if value else "unknown, left as is"
        print(f"{name.replace('_', ' ')}: {value}")

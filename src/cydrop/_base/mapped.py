"""Arrays that lie in a file (`numpy.memmap`): read where they are, a piece at a time, and asked for ahead.

The system reads a page of a file when it is touched, and whoever touches it waits. What is asked for ahead (madvise) it
reads beside the arithmetic; no thread of this process takes part. Whatever it says to that, the numbers are the same.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 2**22  # of consecutive rows that are read together: a disk needs little longer for them than for one
CHUNK_ROWS = 2**15  # at most, so that what is kept for each row of a few chunks stays small
ASKED = 2**17  # bytes at a time: Linux reads no more than a device's readahead for one call, and 128 KiB is the least
AHEAD = 32  # chunks that are asked for ahead of those that are read one after another


def file_of(array: NDArray[Any]) -> mmap.mmap | None:
    """The file that the array is a view of, as `numpy.memmap` maps it. None: it lies in memory."""
    base: Any = array
    found = False
    while isinstance(base, np.ndarray):
        found = found or isinstance(base, np.memmap)
        base = base.base
    return base if found and isinstance(base, mmap.mmap) else None


def in_place(array: NDArray[Any]) -> bool:
    """Whether kernels can read it where it lies."""
    flags = array.flags
    return array.dtype == np.float32 and flags.c_contiguous and flags.aligned


def chunk_rows(array: NDArray[Any]) -> int:
    """Rows of a chunk of an array whose rows follow one another."""
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(1, array.nbytes // max(1, len(array)))))


def pieces(array: NDArray[Any], rows: slice | None = None) -> Iterator[slice]:
    """All rows of the array, or these, chunk by chunk; if it lies in a file the next chunks are asked for."""
    start, stop, _ = (rows or slice(None)).indices(len(array))
    step = chunk_rows(array)
    mapped = file_of(array) is not None
    for place, first in enumerate(range(start, stop, step)):
        if mapped and place % AHEAD == 0:
            ask(array, first if place == 0 else first + AHEAD * step, first + 2 * AHEAD * step, stop)
        yield slice(first, min(first + step, stop))


def ask(array: NDArray[Any], start: int, stop: int, last: int | None = None) -> None:
    """Asks the system for rows start..stop, no further than `last`, if the array lies in a file; comes back at once."""
    file = file_of(array)
    stop = min(stop, len(array) if last is None else last)
    if file is None or start >= stop or not hasattr(mmap, "MADV_WILLNEED"):
        return
    with contextlib.suppress(OSError, ValueError):  # a system or a file system that does no such thing
        here = array.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
        begin = (here + start * array.strides[0]) // mmap.PAGESIZE * mmap.PAGESIZE
        end = here + stop * array.strides[0]
        for place in range(begin, end, ASKED):
            file.madvise(mmap.MADV_WILLNEED, place, min(ASKED, end - place))


def check_copy(name: str, array: NDArray[Any]) -> None:
    """Raises for an array in a file whose float32 copy in memory would be larger than what is free."""
    if file_of(array) is None:
        return
    size, free = 4 * array.size, free_memory()
    if free is None or size <= free:
        return
    what = f"of {array.dtype}" if array.dtype != np.float32 else "that is not contiguous in C order"
    raise ValueError(
        f"{name} is a memory-mapped file {what}, which is copied to float32 in C order first: {size / 1e9:.1f} GB, and "
        f"{free / 1e9:.1f} GB of memory are free. Write it to a file as float32 in C order, a part at a time "
        "(numpy.lib.format.open_memmap); that one is read where it lies"
    )


def free_memory() -> int | None:
    """Bytes that a process may take without others being swapped out; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None

"""Files: written completely or not at all, and the safetensors format, read and written with NumPy alone.

    byte 0      8                        8 + n                                              end of file
         |  n   | header, JSON, n bytes  | history.loss ... | 1.weight | 1.bias | moment1.1.weight ... |
         | u64  | {"__metadata__": ...   |        F64       |                  F32                    |

    header      {"__metadata__": {"cydrop": description, "version": "0.1.0"},
                 "1.weight": {"dtype": "F32", "shape": [64, 10], "data_offsets": [0, 2560]}, ...}

Tensors are little-endian, one after another in any order. What the description says is `cydrop.saving`'s concern.
Nothing in a file is trusted: every function here that reads raises ValueError for what it does not understand.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from io import BufferedReader, BufferedWriter
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

# Loading takes at most 100 MB (150 without the GIL) beyond the size of the file, whatever the file. JSON is the dearest
# part: lists in lists take 48 times their text, dicts 39 times (Python 3.11): 50 MB. 1 MB describes 1,400 dense layers
# with Adam.
LONGEST_HEADER = 1_000_000

JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
OTHERS = {  # how files of other kinds begin, that people try to load
    b"PK\x03\x04": "it is a zip archive, as torch.save and numpy.savez write, and estimators for cydrop.tabular.load",
    b"\x80": "it seems to be a pickle, which pickle.load reads if you trust it",
    b"\x93NUMPY": "it is an array of numpy.save",
    b"\x89HDF": "it is an HDF5 file, as Keras writes",
}


# Writing -----------------------------------------------------------------------------------------------------


def header_of(metadata: dict[str, str], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The header of a file of these tensors in their order."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + array.nbytes
        dtype = f"{'I' if array.dtype.kind == 'i' else 'F'}{8 * array.itemsize}"
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [start, end]}
    text = JSON.encode(header).encode()
    return text + b" " * (-len(text) % 8)


def write(file: BufferedWriter, header: bytes, tensors: Mapping[str, NDArray[Any]]) -> None:
    """A header, and the tensors that it describes."""
    file.write(len(header).to_bytes(8, "little") + header)
    for array in tensors.values():
        file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


@contextlib.contextmanager
def replaced(path: str) -> Iterator[BufferedWriter]:
    """A file to write to, which takes the place of `path` when all is written and on the disk.

    A file that this user may not write to is not replaced. One that has several names (hard links), that belongs to
    somebody else or that is a mount point stays where it is, and gets the finished file's bytes: only there can a crash
    leave a damaged file. If that fails half-way, the error names the finished file, which is kept.
    """
    place = os.path.realpath(path)  # where a link leads, as open does
    there = writable_at(place, path)
    folder, name = os.path.split(place)
    # Whoever is killed here leaves this file. Nobody tidies it up: its process may live on another computer.
    temporary = os.path.join(folder, f".{name[:40]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    named, damaged = folder, ""  # what errors name: not the file that the user never saw
    try:
        with open(temporary, "xb") as file:
            named = path
            in_place = there is not None and not _made_like(file, place, there)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not in_place:
            try:
                os.replace(temporary, place)
            except OSError as error:
                if there is None or error.errno not in (errno.EBUSY, errno.EXDEV):
                    raise
                in_place = True  # a mount point
        if in_place:
            damaged = f" (it may be damaged now; what was to be written is whole in {temporary!r})"
            try:
                _overwrite(place, temporary)
            except KeyboardInterrupt:  # answered when the file is whole again
                _overwrite(place, temporary)
                damaged = ""
                raise
            damaged = ""
            os.unlink(temporary)
    except BaseException as error:  # including an interrupt right after open
        if not damaged:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"{error.strerror}{damaged}", named) from None
        if damaged:
            error.add_note(f"{path!r}{damaged}")
        raise
    _sync_folder(folder)


def writable_at(place: str, path: str) -> os.stat_result | None:
    """The file that stands at a place, if this user may write it; None where there is none."""
    try:
        with open(place, "r+b") as file:
            return os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _made_like(file: BufferedWriter, place: str, there: os.stat_result) -> bool:
    """Gives a new file the owner, group and permissions of the one at a place; whether it may then replace that."""
    new = os.fstat(file.fileno())
    if there.st_nlink == 1:
        try:
            if (new.st_uid, new.st_gid) != (there.st_uid, there.st_gid):
                os.chown(file.name, there.st_uid, there.st_gid)
            shutil.copymode(place, file.name)
            return True
        except OSError:  # this user may not give files away
            pass
    os.chmod(file.name, 0o600)  # nobody else reads what is not theirs to read in the other file
    return False


def _overwrite(place: str, finished: str) -> None:
    """Writes the bytes of a finished file into the one at a place."""
    with open(finished, "rb") as source, open(place, "r+b") as file:
        shutil.copyfileobj(source, file)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    """Makes the new name outlast a power cut, where the system can: Windows and some network folders cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def checked_path(path: Any) -> str:
    """The path of a file, or of none yet."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"path must be a str or path-like, got {path!r} ({type(path).__name__})")
    place = os.fsdecode(path)
    if not place or "\0" in place:
        raise ValueError(f"path {'has a null character' if place else 'is empty'}; it must name a file")
    if os.path.isdir(place) or not os.path.basename(place):
        raise IsADirectoryError(errno.EISDIR, "path is a folder; it must name a file", place)
    if os.path.exists(place) and not os.path.isfile(place):
        raise ValueError(f"path must name a file, got {place!r}, which is a device or pipe")
    return place


# Reading -----------------------------------------------------------------------------------------------------


def read_header(file: BufferedReader) -> tuple[bytes, int]:
    """The text of the header, and the number of bytes after it."""
    first = file.read(8)
    length, left = int.from_bytes(first, "little"), os.fstat(file.fileno()).st_size - 8
    if left < 0:
        raise ValueError(f"it has only {len(first)} bytes" if first else "it is empty")
    if length > left:
        other = [what for begin, what in OTHERS.items() if first.startswith(begin)]
        raise ValueError([*other, f"it would have a header of {length} bytes: it is cut off, or not of safetensors"][0])
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes; cydrop reads headers of up to {LONGEST_HEADER:,}")
    return file.read(length), left - length


def parsed(text: str) -> Any:
    """JSON by the letter: no name twice, no NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands twice in its header")
        return found

    def refuse(word: str) -> None:
        raise ValueError(f"its header has {word}, which JSON does not know")

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def checked_tensors(
    header: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    lists: set[str],
    n_bytes: int,
    codes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> list[tuple[str, int]]:
    """Names and sizes of the tensors in their order in the file: those that are needed, one after another.

    `shapes` are those of the float32 tensors, `codes` those of the int8 ones, `lists` the names of the float64 ones, of
    one dimension of any length.
    """
    if header.keys() != shapes.keys() | lists | codes.keys():
        names = sorted(header.keys() ^ (shapes.keys() | lists | codes.keys()))
        raise ValueError(f"its tensors are not those of its layers and history; lacking or too many: {names[:5]}")
    found = []
    for name, entry in header.items():
        entry = an_object(f"tensor {name!r}", entry, ("dtype", "shape", "data_offsets"))
        shape = tuple(a_count(length) for length in a_list("shape", entry["shape"]))
        start, stop = (a_count(offset) for offset in a_list("data_offsets", entry["data_offsets"], 2))
        dtype = "F32" if name in shapes else "I8" if name in codes else "F64"
        needed = shapes[name] if name in shapes else codes.get(name, shape if len(shape) == 1 else (0,))
        if entry["dtype"] != dtype or shape != needed:
            raise ValueError(f"tensor {name!r} is {entry['dtype']!r:.9} of shape {shape}, not {dtype} of {needed}")
        size = math.prod(shape)
        if stop - start != size * int(dtype[1:]) // 8:
            raise ValueError(f"tensor {name!r} of shape {shape} cannot lie at bytes {start} to {stop}")
        found.append((start, stop, name, size))
    found.sort()
    ends = [0, *(stop for _, stop, _, _ in found)]
    if [start for start, _, _, _ in found] != ends[:-1]:
        raise ValueError("its tensors overlap or leave gaps")
    if ends[-1] != n_bytes:
        raise ValueError(f"its tensors take {ends[-1]:,} bytes, but {n_bytes:,} are there; is it cut off?")
    return [(name, size) for _, _, name, size in found]


def fill(file: BufferedReader, array: NDArray[Any]) -> NDArray[Any]:
    """Reads little-endian numbers into an array."""
    if file.readinto(array.data) != array.nbytes:
        raise ValueError("it was cut off while it was read")
    return array if sys.byteorder == "little" else array.byteswap(inplace=True)


def an_object(what: str, value: Any, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object, with exactly these names if any are given."""
    if not isinstance(value, dict):
        raise ValueError(f"its {what} is not an object of JSON, but {value!r:.50}")
    if names and value.keys() != set(names):
        raise ValueError(f"its {what} has {sorted(value)}, not {names}")
    return value


def a_list(what: str, value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError(f"its {what} is not a list{f' of {length}' if length else ''}, but {value!r:.50}")
    return value


def a_count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.50} is not a count")
    return value


def a_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.50} is neither true nor false")
    return value


def a_word(value: Any) -> int:
    """A 64-bit number in decimal digits, as text."""
    if not isinstance(value, str) or not (value.isascii() and value.isdecimal()) or int(value) >= 2**64:
        raise ValueError(f"{value!r:.50} is not a 64-bit word")
    return int(value)

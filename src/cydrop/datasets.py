"""Real data to start with. Nothing is downloaded.

Each function returns `(X_train, y_train, X_test, y_test)`: X float32 in [0, 1] with one image per row, y int64.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_idx", "load_optdigits"]

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]


def load_optdigits() -> tuple[Images, Labels, Images, Labels]:
    """The optical recognition of handwritten digits set: 8 x 8 images of the digits, by 43 writers.

    3,823 training and 1,797 test images, 64 features each; the writers of the test set are not among those of the
    training set. E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository, doi 10.24432/C50P49, licence
    CC BY 4.0. The set ships with the package.

    Returns
    -------
    X_train : ndarray of float32, shape (3823, 64), pixel counts 0..16 divided by 16
    y_train : ndarray of int64, shape (3823,)
    X_test : ndarray of float32, shape (1797, 64)
    y_test : ndarray of int64, shape (1797,)
    """
    with np.load(Path(__file__).parent / "data" / "optdigits.npz") as stored:
        images = [_scaled(stored[name], 16) for name in ("X_train", "X_test")]
        labels = [stored[name].astype(np.int64) for name in ("y_train", "y_test")]
    return images[0], labels[0], images[1], labels[1]


def load_idx(folder: str | os.PathLike[str]) -> tuple[Images, Labels, Images, Labels]:
    """MNIST, Fashion-MNIST and everything else in the same four IDX files, gzipped or not.

    Parameters
    ----------
    folder : str or path-like
        Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
        `t10k-labels-idx1-ubyte`, each with or without `.gz` (a dot may stand for the hyphen before idx).

    Returns
    -------
    X_train : ndarray of float32, shape (n, pixels), divided by 255
    y_train : ndarray of int64, shape (n,)
    X_test : ndarray of float32, shape (m, pixels)
    y_test : ndarray of int64, shape (m,)

    Raises
    ------
    FileNotFoundError
        Naming the file that is missing.
    ValueError
        For a file that is not IDX, is cut off, or does not match its partner.
    """
    parts: list[Any] = []
    for split in ("train", "t10k"):
        images = _read_idx(_find(folder, f"{split}-images-idx3-ubyte"), dimensions=3)
        labels = _read_idx(_find(folder, f"{split}-labels-idx1-ubyte"), dimensions=1)
        if len(images) != len(labels):
            raise ValueError(f"{folder}: {split} has {len(images)} images and {len(labels)} labels")
        parts += [_scaled(images.reshape(len(images), -1), 255), labels.astype(np.int64)]
    if parts[0].shape[1] != parts[2].shape[1]:
        raise ValueError(f"{folder}: training images have {parts[0].shape[1]} pixels, test images {parts[2].shape[1]}")
    return parts[0], parts[1], parts[2], parts[3]


def _scaled(pixels: NDArray[np.uint8], largest: int) -> Images:
    return pixels.astype(np.float32) / np.float32(largest)


def _find(folder: str | os.PathLike[str], name: str) -> Path:
    for variant in (name, name.replace("-idx", ".idx")):
        for ending in ("", ".gz"):
            path = Path(folder, variant + ending)
            if path.is_file():
                return path
    raise FileNotFoundError(f"{Path(folder)} has no file {name} or {name}.gz")


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """IDX: two zero bytes, a type (8: unsigned byte), the number of dimensions, their big-endian lengths, the data."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    if len(raw) < 4 + 4 * dimensions or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions")
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    size = int(np.prod(shape, dtype=object))
    data = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions)
    if data.size != size:
        raise ValueError(f"{path} should hold {size} bytes of data for shape {shape}, it has {data.size}")
    return data.reshape(shape)

"""Weights as bytes, and how they lie for products of bytes (_core/quads.pxd)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cydrop._base.arrays import Floats

MOST_INPUTS = 65536  # whose products whole numbers of 32 bits hold: INT8_DEPTH of _core/tile_int8.h
LARGEST_CODE = 127
SMALLEST_SCALE = np.float32(2.0**-126)  # below it 1 / scale might be infinite: what is so small counts as 0


def column_codes(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Codes -127 ... 127 of each column and the column's scale: weight = codes * scale, up to half a scale."""
    scales = np.abs(weight).max(axis=0, initial=0) / np.float32(LARGEST_CODE)
    scales = np.where(scales < SMALLEST_SCALE, np.float32(0), scales)
    ratios = weight / np.where(scales > 0, scales, np.float32(1))
    codes = np.where(scales > 0, np.rint(ratios), np.float32(0)).clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int8)
    return codes, scales


def column_sums(codes: NDArray[np.int8]) -> NDArray[np.int32]:
    return np.asarray(codes.sum(axis=0, dtype=np.int32), dtype=np.int32)


def panels(codes: NDArray[np.int8], columns: int) -> Floats:
    """Codes as they lie in memory, panels of so many columns one after another; as floats, which they are not."""
    inputs, units = codes.shape
    full = np.pad(codes, ((0, -inputs % 4), (0, -units % columns)))
    apart = full.reshape(len(full) // 4, 4, full.shape[1] // columns, columns)
    return np.ascontiguousarray(apart.transpose(2, 0, 3, 1)).reshape(-1).view(np.float32)


def from_panels(packed: Floats, inputs: int, units: int, columns: int) -> NDArray[np.int8]:
    """The codes of such panels."""
    apart = packed.view(np.int8).reshape(-1, -(-inputs // 4), columns, 4)
    full = apart.transpose(1, 3, 0, 2).reshape(apart.shape[1] * 4, apart.shape[0] * columns)
    return np.ascontiguousarray(full[:inputs, :units])

"""The fully connected layer of bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import quantizing
from cydrop.reference._arrays import Array

__all__ = ["quantize_columns", "quantize_rows", "quantized_dense"]

NOT_A_NUMBER = np.float32(np.nan)


def quantize_columns(weight: ArrayLike) -> tuple[NDArray[np.int8], Array]:
    """weight = codes * scales, up to half a scale: codes -127 ... 127, a scale a column"""
    return quantizing.column_codes(np.asarray(weight, dtype=np.float32))


def quantize_rows(x: ArrayLike) -> tuple[NDArray[np.uint8], Array, NDArray[np.int32]]:
    """x = (codes - zeros) * scales: codes 0 ... 255, a scale and the code of 0 a row. float32 whatever comes, with the
    bits of `functional.quantize_rows`."""
    x = np.asarray(x, dtype=np.float32)
    good = np.isfinite(x).all(axis=1)
    finite = np.where(good[:, None], x, np.float32(0))
    high, low = finite.max(axis=1, initial=0), finite.min(axis=1, initial=0)
    scales = high / np.float32(255) - low / np.float32(255)
    scales = np.where(scales < quantizing.SMALLEST_SCALE, np.float32(0), scales)
    inverse = np.where(scales > 0, np.float32(1) / np.where(scales > 0, scales, np.float32(1)), np.float32(0))
    zeros = np.rint(-low * inverse).astype(np.int32)
    codes = (np.rint(finite * inverse[:, None]).astype(np.int32) + zeros[:, None]).clip(0, 255).astype(np.uint8)
    codes[~good], zeros[~good], scales[~good] = 0, 0, NOT_A_NUMBER
    return codes, scales, zeros


def quantized_dense(
    x: ArrayLike, codes: ArrayLike, scales: ArrayLike, bias: ArrayLike | None = None, *, n_threads: int = 1
) -> Array:
    """x weight + bias of the rows' codes and weight = codes * scales; float32 whatever comes, with the bits of
    `functional.quantized_dense`"""
    own, row_scales, zeros = quantize_rows(x)
    codes, scales = np.asarray(codes).astype(np.int64), np.asarray(scales, dtype=np.float32)
    whole = (own.astype(np.int64) - zeros[:, None]) @ codes
    y = whole.astype(np.float32) * (row_scales[:, None] * scales)
    return np.asarray(y if bias is None else y + np.asarray(bias, dtype=np.float32))

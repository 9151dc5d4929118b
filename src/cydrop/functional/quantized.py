"""The fully connected layer of bytes: activations by row, weights by column."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import quantizing, threads
from cydrop._base.arrays import Floats
from cydrop._core import dense as kernels
from cydrop.functional._arrays import floats

__all__ = ["quantize_columns", "quantize_rows", "quantized_dense"]


def quantize_columns(weight: ArrayLike) -> tuple[NDArray[np.int8], Floats]:
    """Weights as bytes, a scale for each unit: weight = codes * scales, up to half a scale.

    Parameters
    ----------
    weight : array-like, shape (inputs, units)
        At most 65,536 inputs.

    Returns
    -------
    codes : ndarray of int8, shape (inputs, units)
        From -127 to 127.
    scales : ndarray of float32, shape (units,)
        The largest weight of a unit, in size, divided by 127. A unit whose weights are all below 127 * 2^-126 has 0.

    Raises
    ------
    ValueError
        For weights that are not finite, or another shape.

    Examples
    --------
    >>> import cydrop as cd
    >>> codes, scales = cd.functional.quantize_columns([[1.0, 0.5], [-0.25, 0.25]])
    >>> codes
    array([[127, 127],
           [-32,  64]], dtype=int8)
    """
    weight = floats("weight", weight)
    if weight.ndim != 2 or len(weight) > quantizing.MOST_INPUTS:
        raise ValueError(f"weight must have shape (inputs <= {quantizing.MOST_INPUTS:,}, units), got {weight.shape}")
    if not np.isfinite(weight).all():
        raise ValueError("weight has numbers that are not finite; bytes cannot stand for them")
    return quantizing.column_codes(weight)


def quantize_rows(x: ArrayLike) -> tuple[NDArray[np.uint8], Floats, NDArray[np.int32]]:
    """Activations as bytes, a scale and a zero for each row: x = (codes - zeros) * scales, up to half a scale.

    Parameters
    ----------
    x : array-like, shape (n, columns)

    Returns
    -------
    codes : ndarray of uint8, shape (n, columns)
    scales : ndarray of float32, shape (n,)
        What lies between the least and the greatest number of a row, 0 included, divided by 255. 0 where that is
        below 2^-126; NaN for a row that is not finite, whose codes are 0.
    zeros : ndarray of int32, shape (n,)
        The code of 0.

    Examples
    --------
    >>> import cydrop as cd
    >>> cd.functional.quantize_rows([[-1.0, 0.0, 0.5, 1.55]])
    (array([[  0, 100, 150, 255]], dtype=uint8), array([0.01], dtype=float32), array([100], dtype=int32))
    """
    x = floats("x", x)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (n, columns), got {x.shape}")
    codes, scales = np.zeros(x.shape, dtype=np.uint8), np.zeros(len(x), dtype=np.float32)
    zeros = np.zeros(len(x), dtype=np.int32)
    if x.size:
        kernels.codes_of(x, codes, scales, zeros)
    return codes, scales, zeros


def quantized_dense(
    x: ArrayLike, codes: ArrayLike, scales: ArrayLike, bias: ArrayLike | None = None, *, n_threads: int = 1
) -> Floats:
    """x weight + bias of weight = codes * scales, the product of bytes: the rows of x are quantized as by
    `quantize_rows`, and whole numbers are added, so that there is no rounding but at the two ends.

        y = (sum of codes of x and codes - zero of the row * sum of codes) * (scale of the row * scales) + bias

    Parameters
    ----------
    x : array-like, shape (n, inputs)
    codes : array-like of int8, shape (inputs, units)
    scales : array-like, shape (units,)
    bias : array-like, shape (units,), or None
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, units)
        With the same bits on every machine. A row of x that is not finite gives NaN.
    """
    x, scales = floats("x", x), floats("scales", scales)
    packed = np.asarray(codes)
    shift = np.empty(0, dtype=np.float32) if bias is None else floats("bias", bias)
    if packed.dtype != np.int8:
        raise TypeError(f"codes must be int8, as quantize_columns gives them, got {packed.dtype}")
    if x.ndim != 2 or packed.ndim != 2 or x.shape[1] != len(packed) or len(packed) > quantizing.MOST_INPUTS:
        raise ValueError(f"x (n, inputs) and codes (inputs, units) do not fit: shapes {x.shape} and {packed.shape}")
    for name, array in ({"scales": scales} | ({} if bias is None else {"bias": shift})).items():
        if array.shape != (packed.shape[1],):
            raise ValueError(f"{name} must have shape ({packed.shape[1]},), got {array.shape}")
    y = np.zeros((len(x), packed.shape[1]), dtype=np.float32)
    if y.size and x.size:
        panels = quantizing.panels(packed, kernels.panel_columns())
        sums = quantizing.column_sums(packed)
        kernels.forward_of_bytes(x, panels, scales, sums, shift, y, threads.resolve(n_threads))
    elif y.size and bias is not None:
        y += shift
    return y

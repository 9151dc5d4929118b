"""Embeddings: some columns of a row become several numbers each, the others pass through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks, threads
from cydrop._base.arrays import Floats
from cydrop._core import dense as kernels
from cydrop.functional._arrays import floats, matrix
from cydrop.functional._documentation import documented

__all__ = [
    "embedding", "embedding_backward", "pbld", "pbld_backward", "piecewise_linear", "piecewise_linear_backward", "plr",
    "plr_backward",
]  # fmt: skip

WORDS = ("frequency", "phase", "slope", "weight", "bias", "edges")  # in the order of the kernels
NONE = np.empty(0, dtype=np.float32)

_documented_forward = documented("""
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, columns * size + features - columns)

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit and unusable arrays.
""")


@_documented_forward
def pbld(
    x: ArrayLike, frequency: ArrayLike, phase: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, n_threads: int = 1
) -> Floats:
    """[cos(2 pi x w + b) V + c, x] for each number x of the first columns, then the other columns (Holzmüller,
    Grinsztajn and Steinwart 2024).

    Parameters
    ----------
    x : array-like, shape (n, features)
    frequency : array-like, shape (columns, frequencies)
        w, in turns.
    phase : array-like, shape (columns, frequencies)
        b, in radians.
    weight : array-like, shape (columns, frequencies, size - 1)
        V.
    bias : array-like, shape (columns, size - 1)
        c.
    """
    return _Numbers("pbld", x, frequency=frequency, phase=phase, weight=weight, bias=bias).forward(n_threads)


def pbld_backward(
    dy: ArrayLike, x: ArrayLike, frequency: ArrayLike, phase: ArrayLike, weight: ArrayLike, *, n_threads: int = 1
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """The gradients of `pbld`.

    Parameters
    ----------
    dy : array-like, of the shape that `pbld` returned
    x, frequency, phase, weight, n_threads
        As for `pbld`.

    Returns
    -------
    dx, dfrequency, dphase, dweight, dbias : ndarrays of float32
    """
    own = _Numbers("pbld", x, frequency=frequency, phase=phase, weight=weight, bias=None)
    dx, found = own.backward(dy, n_threads)
    return dx, found["frequency"], found["phase"], found["weight"], found["bias"]


@_documented_forward
def plr(x: ArrayLike, frequency: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, n_threads: int = 1) -> Floats:
    """relu([cos(2 pi x w), sin(2 pi x w)] V + c) for each number x of the first columns, then the other columns
    (Gorishniy, Rubachev and Babenko 2022).

    Parameters
    ----------
    x : array-like, shape (n, features)
    frequency : array-like, shape (columns, frequencies)
        w, in turns.
    weight : array-like, shape (columns, 2 frequencies, size)
        V, the rows of the cosines first.
    bias : array-like, shape (columns, size)
        c.
    """
    return _Numbers("plr", x, frequency=frequency, weight=weight, bias=bias).forward(n_threads)


def plr_backward(
    dy: ArrayLike, x: ArrayLike, frequency: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, n_threads: int = 1
) -> tuple[Floats, Floats, Floats, Floats]:
    """The gradients of `plr`.

    Parameters
    ----------
    dy : array-like, of the shape that `plr` returned
    x, frequency, weight, bias, n_threads
        As for `plr`.

    Returns
    -------
    dx, dfrequency, dweight, dbias : ndarrays of float32
    """
    own = _Numbers("plr", x, frequency=frequency, weight=weight, bias=bias)
    dx, found = own.backward(dy, n_threads)
    return dx, found["frequency"], found["weight"], found["bias"]


@_documented_forward
def piecewise_linear(
    x: ArrayLike, edges: ArrayLike, slope: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, n_threads: int = 1
) -> Floats:
    """x w + c + v V for each number x of the first columns, then the other columns; v_t is the share of bin t that lies
    below x (Gorishniy, Rubachev and Babenko 2022, version B of Gorishniy, Kotelnikov and Babenko 2025).

    Parameters
    ----------
    x : array-like, shape (n, features)
    edges : array-like, shape (columns, bins + 1)
        In rising order; where a feature has fewer, the last one is repeated.
    slope : array-like, shape (columns, size)
        w.
    weight : array-like, shape (columns, bins, size)
        V.
    bias : array-like, shape (columns, size)
        c.
    """
    return _Numbers("piecewise_linear", x, edges=edges, slope=slope, weight=weight, bias=bias).forward(n_threads)


def piecewise_linear_backward(
    dy: ArrayLike, x: ArrayLike, edges: ArrayLike, slope: ArrayLike, weight: ArrayLike, *, n_threads: int = 1
) -> tuple[Floats, Floats, Floats, Floats]:
    """The gradients of `piecewise_linear`.

    Parameters
    ----------
    dy : array-like, of the shape that `piecewise_linear` returned
    x, edges, slope, weight, n_threads
        As for `piecewise_linear`.

    Returns
    -------
    dx, dslope, dweight, dbias : ndarrays of float32
    """
    own = _Numbers("piecewise_linear", x, edges=edges, slope=slope, weight=weight, bias=None)
    dx, found = own.backward(dy, n_threads)
    return dx, found["slope"], found["weight"], found["bias"]


class _Numbers:
    """An embedding of numbers whose arrays fit each other. A bias that is None is 0."""

    def __init__(self, kind: str, x: ArrayLike, **arrays: ArrayLike | None) -> None:
        self.kind, self.x = kind, matrix("x", x)
        own = {word: floats(word, given) for word, given in arrays.items() if given is not None}
        of_terms = "edges" if kind == "piecewise_linear" else "frequency"
        if own[of_terms].ndim != 2 or own["weight"].ndim != 3:
            shapes = f"{own[of_terms].shape} and {own['weight'].shape}"
            raise ValueError(f"{of_terms} must have two dimensions and weight three, got {shapes}")
        self.columns, self.frequencies = own[of_terms].shape
        self.frequencies -= kind == "piecewise_linear"
        outputs = own["weight"].shape[2]
        self.size = outputs + (kind == "pbld")
        if not 1 <= self.columns <= self.x.shape[1] or self.frequencies < 1 or outputs < 1:
            what = f"{of_terms} of shape {own[of_terms].shape} and weight of shape {own['weight'].shape}"
            raise ValueError(f"{what} do not fit x of shape {self.x.shape}")
        terms = self.frequencies * (2 if kind == "plr" else 1)
        shapes_of: dict[str, tuple[int, ...]] = {
            "frequency": (self.columns, self.frequencies),
            "phase": (self.columns, self.frequencies),
            "slope": (self.columns, outputs),
            "weight": (self.columns, terms, outputs),
            "bias": (self.columns, outputs),
            "edges": (self.columns, self.frequencies + 1),
        }
        if own.setdefault("bias", np.zeros(shapes_of["bias"], dtype=np.float32)).shape != shapes_of["bias"]:
            raise ValueError(f"bias must have shape {shapes_of['bias']}, got {own['bias'].shape}")
        for word, array in own.items():
            if array.shape != shapes_of[word]:
                raise ValueError(f"{word} must have shape {shapes_of[word]}, got {array.shape}")
        self.own = own
        self.arrays = [own[word].reshape(-1) if word in own else NONE for word in WORDS]

    def forward(self, n_threads: int) -> Floats:
        shape = len(self.x), self.x.shape[1] + self.columns * (self.size - 1)
        y = np.empty(shape, dtype=np.float32)
        if y.size:
            kind = kernels.NUMBER_KINDS[self.kind]
            kernels.embed_numbers(
                kind, self.columns, self.frequencies, self.size, self.arrays, self.x, y, threads.resolve(n_threads)
            )
        return y

    def backward(self, dy: ArrayLike, n_threads: int) -> tuple[Floats, dict[str, Floats]]:
        y, given = self.forward(n_threads), matrix("dy", dy)
        if given.shape != y.shape:
            raise ValueError(f"dy must have shape {y.shape}, got {given.shape}")
        dx = np.empty(self.x.shape, dtype=np.float32)
        found = {word: np.zeros(array.shape, dtype=np.float32) for word, array in self.own.items() if word != "edges"}
        if y.size:
            gradients = [found[word].reshape(-1) if word in found else NONE for word in WORDS]
            kernels.embed_numbers_backward(
                kernels.NUMBER_KINDS[self.kind], self.columns, self.frequencies, self.size, self.arrays, gradients,
                self.x, y, given, dx, threads.resolve(n_threads),
            )  # fmt: skip
        return dx, found


def embedding(x: ArrayLike, weight: ArrayLike, cardinalities: Sequence[int], *, n_threads: int = 1) -> Floats:
    """The last columns are codes, numbers of rows of tables; the columns before go through.

    Parameters
    ----------
    x : array-like, shape (n, features)
        What a table has no row for is rounded towards 0 and to the next code; NaN is 0.
    weight : array-like, shape (sum of cardinalities, size)
        The tables one after another.
    cardinalities : sequence of int
        Rows of each table.
    n_threads : int

    Returns
    -------
    ndarray of float32, shape (n, features - columns + columns * size)

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit and unusable arrays.
    """
    x, weight, starts = matrix("x", x), matrix("weight", weight), _starts(cardinalities)
    _check_codes(x, starts)
    if weight.shape[0] != starts[-1] or weight.shape[1] < 1:
        raise ValueError(f"weight must have shape ({starts[-1]}, size), got {weight.shape}")
    columns = len(starts) - 1
    y = np.empty((len(x), x.shape[1] + columns * (weight.shape[1] - 1)), dtype=np.float32)
    if y.size:
        kernels.embed_codes(x, starts, weight, y, threads.resolve(n_threads))
    return y


def embedding_backward(
    dy: ArrayLike, x: ArrayLike, cardinalities: Sequence[int], *, n_threads: int = 1
) -> tuple[Floats, Floats]:
    """The gradients of `embedding`.

    Parameters
    ----------
    dy : array-like, of the shape that `embedding` returned
    x, cardinalities, n_threads
        As for `embedding`.

    Returns
    -------
    dx : ndarray of float32, of the shape of x
        0 for the codes.
    dweight : ndarray of float32, shape (sum of cardinalities, size)
        Added up in the order of the rows.
    """
    dy, x, starts = matrix("dy", dy), matrix("x", x), _starts(cardinalities)
    _check_codes(x, starts)
    columns = len(starts) - 1
    size, left = divmod(dy.shape[1] - x.shape[1] + columns, columns)
    if len(dy) != len(x) or left or size < 1:
        raise ValueError(f"dy of shape {dy.shape} does not fit x of shape {x.shape} and {columns} columns of codes")
    dx, dweight = np.empty(x.shape, dtype=np.float32), np.zeros((int(starts[-1]), size), dtype=np.float32)
    if dy.size:
        kernels.embed_codes_backward(x, starts, dy, dx, dweight, threads.resolve(n_threads))
    return dx, dweight


def _starts(cardinalities: Sequence[int]) -> NDArray[np.int64]:
    """The row where each table begins, and where the last one ends."""
    sizes = [checks.integer(f"cardinalities[{place}]", own, 1, 2**24) for place, own in enumerate(cardinalities)]
    if not sizes:
        raise ValueError("cardinalities is empty")
    return np.cumsum([0, *sizes], dtype=np.int64)


def _check_codes(x: Floats, starts: NDArray[np.int64]) -> None:
    if x.shape[1] < len(starts) - 1:
        raise ValueError(f"x of shape {x.shape} has no {len(starts) - 1} columns of codes")

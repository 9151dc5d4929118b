"""Embeddings: some columns of a row become several numbers each, the others pass through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop.reference._arrays import Array, real

__all__ = [
    "embedding", "embedding_backward", "pbld", "pbld_backward", "piecewise_linear", "piecewise_linear_backward", "plr",
    "plr_backward",
]  # fmt: skip


def pbld(
    x: ArrayLike, frequency: ArrayLike, phase: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, n_threads: int = 1
) -> Array:
    """[cos(2 pi x w + b) V + c, x] for each number x of the first columns"""
    x, frequency, phase, weight = real(x), real(frequency), real(phase), real(weight)
    own = x[:, : len(frequency)]
    e = _linear(np.cos(2 * np.pi * own[:, :, None] * frequency + phase), weight) + real(bias)
    return _joined(np.concatenate([e, own[:, :, None]], axis=2), x)


def pbld_backward(
    dy: ArrayLike, x: ArrayLike, frequency: ArrayLike, phase: ArrayLike, weight: ArrayLike, *, n_threads: int = 1
) -> tuple[Array, Array, Array, Array, Array]:
    """dx, dfrequency, dphase, dweight, dbias"""
    x, frequency, phase, weight = real(x), real(frequency), real(phase), real(weight)
    own = x[:, : len(frequency)]
    angle = 2 * np.pi * own[:, :, None] * frequency + phase
    given, rest = _taken_apart(real(dy), len(frequency), weight.shape[2] + 1)
    g = given[:, :, :-1]
    dangle = -np.sin(angle) * _linear(g, weight.transpose(0, 2, 1))
    dx = given[:, :, -1] + 2 * np.pi * (dangle * frequency).sum(axis=2)
    dfrequency = 2 * np.pi * (dangle * own[:, :, None]).sum(axis=0)
    dx = np.concatenate([dx, rest], axis=1)
    return dx, dfrequency, dangle.sum(axis=0), _products(np.cos(angle), g), g.sum(axis=0)


def plr(x: ArrayLike, frequency: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, n_threads: int = 1) -> Array:
    """relu([cos(2 pi x w), sin(2 pi x w)] V + c) for each number x of the first columns"""
    x, frequency = real(x), real(frequency)
    return _joined(np.maximum(_periodic(x, frequency, real(weight), real(bias)), 0), x)


def plr_backward(
    dy: ArrayLike, x: ArrayLike, frequency: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, n_threads: int = 1
) -> tuple[Array, Array, Array, Array]:
    """dx, dfrequency, dweight, dbias"""
    x, frequency, weight = real(x), real(frequency), real(weight)
    own, k = x[:, : len(frequency)], frequency.shape[1]
    given, rest = _taken_apart(real(dy), len(frequency), weight.shape[2])
    g = np.where(_periodic(x, frequency, weight, real(bias)) > 0, given, 0)
    angle = 2 * np.pi * own[:, :, None] * frequency
    terms = np.concatenate([np.cos(angle), np.sin(angle)], axis=2)
    dterms = _linear(g, weight.transpose(0, 2, 1))
    dangle = np.cos(angle) * dterms[:, :, k:] - np.sin(angle) * dterms[:, :, :k]
    dx = np.concatenate([2 * np.pi * (dangle * frequency).sum(axis=2), rest], axis=1)
    dfrequency = 2 * np.pi * (dangle * own[:, :, None]).sum(axis=0)
    return dx, dfrequency, _products(terms, g), g.sum(axis=0)


def piecewise_linear(
    x: ArrayLike, edges: ArrayLike, slope: ArrayLike, weight: ArrayLike, bias: ArrayLike, *, n_threads: int = 1
) -> Array:
    """x w + c + v V for each number x of the first columns; v_t is the share of bin t that lies below x"""
    x, edges, slope = real(x), real(edges), real(slope)
    shares, _ = _shares(x[:, : len(edges)], edges)
    e = x[:, : len(edges), None] * slope + _linear(shares, real(weight)) + real(bias)
    return _joined(e, x)


def piecewise_linear_backward(
    dy: ArrayLike, x: ArrayLike, edges: ArrayLike, slope: ArrayLike, weight: ArrayLike, *, n_threads: int = 1
) -> tuple[Array, Array, Array, Array]:
    """dx, dslope, dweight, dbias"""
    x, edges, slope, weight = real(x), real(edges), real(slope), real(weight)
    own = x[:, : len(edges)]
    g, rest = _taken_apart(real(dy), len(edges), slope.shape[1])
    shares, steep = _shares(own, edges)
    dx = (g * slope).sum(axis=2) + (_linear(g, weight.transpose(0, 2, 1)) * steep).sum(axis=2)
    dslope = (own[:, :, None] * g).sum(axis=0)
    return np.concatenate([dx, rest], axis=1), dslope, _products(shares, g), g.sum(axis=0)


def embedding(x: ArrayLike, weight: ArrayLike, cardinalities: Sequence[int], *, n_threads: int = 1) -> Array:
    """The last columns are numbers of rows of tables, which lie one after another in the weight."""
    x, weight = real(x), real(weight)
    rows = _rows_of_tables(x, cardinalities)
    rest = x[:, : x.shape[1] - len(cardinalities)]
    return np.concatenate([rest, weight[rows].reshape(len(x), -1)], axis=1)


def embedding_backward(
    dy: ArrayLike, x: ArrayLike, cardinalities: Sequence[int], *, n_threads: int = 1
) -> tuple[Array, Array]:
    """dx, dweight"""
    dy, x, columns = real(dy), real(x), len(cardinalities)
    rest = x.shape[1] - columns
    given = dy[:, rest:].reshape(len(x), columns, -1)
    dweight = np.zeros((sum(cardinalities), given.shape[2]), dtype=dy.dtype)
    np.add.at(dweight, _rows_of_tables(x, cardinalities), given)
    return np.concatenate([dy[:, :rest], np.zeros((len(x), columns), dtype=dy.dtype)], axis=1), dweight


def _linear(terms: Array, weight: Array) -> Array:
    """Each feature's terms times its own weight: (n, columns, terms) to (n, columns, outputs)."""
    y: Array = np.einsum("njf,jfk->njk", terms, weight)
    return y


def _products(terms: Array, g: Array) -> Array:
    """The gradient of such a weight."""
    y: Array = np.einsum("njf,njk->jfk", terms, g)
    return y


def _periodic(x: Array, frequency: Array, weight: Array, bias: Array) -> Array:
    angle = 2 * np.pi * x[:, : len(frequency), None] * frequency
    return _linear(np.concatenate([np.cos(angle), np.sin(angle)], axis=2), weight) + bias


def _shares(own: Array, edges: Array) -> tuple[Array, Array]:
    """v, (n, columns, bins), and its derivative by x. Edges that repeat the one before make bins that do nothing."""
    low, width = edges[:, :-1], np.diff(edges, axis=1)
    used = width > 0
    scale = np.where(used, 1 / np.where(used, width, 1), 0)
    shares = (own[:, :, None] - low) * scale
    last = np.cumsum(used, axis=1) == used.sum(axis=1, keepdims=True)  # and the unused ones after it
    first = np.arange(width.shape[1]) == 0
    below, above = (shares < 0) & ~first, (shares >= 1) & ~last
    return np.where(below, 0, np.where(above, 1, shares)), np.where(below | above, 0, scale + 0 * shares)


def _joined(e: Array, x: Array) -> Array:
    """(n, columns, size) side by side, and the other columns of x."""
    return np.concatenate([e.reshape(len(x), -1), x[:, e.shape[1] :]], axis=1)


def _taken_apart(dy: Array, columns: int, size: int) -> tuple[Array, Array]:
    return dy[:, : columns * size].reshape(len(dy), columns, size), dy[:, columns * size :]


def _rows_of_tables(x: Array, cardinalities: Sequence[int]) -> NDArray[np.int64]:
    """Codes that a table has no row for count as the next one in it."""
    most = np.array(cardinalities) - 1
    starts = np.cumsum([0, *cardinalities[:-1]])
    codes = np.clip(x[:, x.shape[1] - len(cardinalities) :], 0, most)
    rows: NDArray[np.int64] = codes.astype(np.int64) + starts
    return rows

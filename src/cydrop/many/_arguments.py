"""The arguments of `fit_many`: one for all networks, or one for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cydrop._run.rows import NO_ORDER
from cydrop.network import Network

T = TypeVar("T")


def checked_networks(networks: Any) -> list[Network]:
    """A list of networks, each of them once."""
    if isinstance(networks, Network) or not isinstance(networks, Iterable):
        raise TypeError(f"networks must be a list of cydrop.Network, got {networks!r:.100} ({type(networks).__name__})")
    found = list(networks)
    places: dict[int, int] = {}
    for place, network in enumerate(found):
        if not isinstance(network, Network):
            raise TypeError(f"networks[{place}] must be a cydrop.Network, got {network!r:.100}")
        if id(network) in places:
            raise ValueError(
                f"networks[{place}] is networks[{places[id(network)]}] once more: a network is trained by one at a "
                "time; make as many as there shall be, [make(seed) for seed in ...]"
            )
        places[id(network)] = place
    return found


@contextmanager
def of_network(place: int, count: int) -> Iterator[None]:
    """Errors say which of several networks they are about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if count == 1:
            raise
        raise type(error)(f"networks[{place}]: {error}") from None


def one_each(name: str, given: Any, count: int, check: Callable[[str, Any], T]) -> list[T]:
    """A value for each network, of one for all or of a sequence with one for each."""
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        return [check(name, given)] * count
    if len(given) != count:
        raise ValueError(f"{name} must be one for all networks, or one for each of the {count}, got {len(given)}")
    return [check(f"{name}[{place}]", value) for place, value in enumerate(given)]


def row_numbers(name: str, given: Any, count: int, n: int) -> list[NDArray[np.int64]]:
    """Row numbers for each network, empty: all rows."""
    if given is None:
        return [NO_ORDER] * count
    if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype != object:
        return [_indices(name, given, n)] * count
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a list of index arrays, one for each network, or one array for all")
    found = list(given)
    if found and all(isinstance(value, int | float | np.integer | np.floating) for value in found):
        return [_indices(name, np.array(found), n)] * count
    if len(found) != count:
        raise ValueError(f"{name} must have an entry for each of the {count} networks, got {len(found)}")
    return [
        NO_ORDER if value is None else _indices(f"{name}[{place}]", np.asarray(value), n)
        for place, value in enumerate(found)
    ]


def _indices(name: str, given: NDArray[Any], n: int) -> NDArray[np.int64]:
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iub"):
        raise TypeError(
            f"{name} must be row numbers (int) or a mask (bool) in one dimension, got {given.dtype} {given.shape}"
        )
    if given.dtype.kind == "b":
        if len(given) != n:
            raise ValueError(f"{name} is a mask of {len(given)} rows, X has {n}")
        given = np.flatnonzero(given)
    if not given.size:
        raise ValueError(f"{name} is empty: a network needs at least one row")
    low, high = int(given.min()), int(given.max())
    if low < 0 or high >= n:
        raise ValueError(f"{name} must be row numbers from 0 to {n - 1}, got {low if low < 0 else high}")
    return np.ascontiguousarray(given, dtype=np.int64).copy()


def others(rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The rows that are not among these."""
    left = np.ones(n, dtype=np.bool_)
    left[rows] = False
    return np.flatnonzero(left).astype(np.int64)

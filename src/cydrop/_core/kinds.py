"""Kinds by name: what Python calls "relu" is a number in the kernels, which their module's table KINDS tells."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def kind_of(kinds: Mapping[str, T], name: str) -> T:
    """The number of the kind called `name`, as in kind_of(activations.KINDS, "relu").

    Unknown names end here: a kernel does nothing for a number that it does not know.

    Parameters
    ----------
    kinds : mapping of names to numbers, or to what a kind is
    name : str

    Returns
    -------
    int, or whatever the table holds

    Raises
    ------
    ValueError
        If there is no kind of that name; it names those that there are.
    """
    if name not in kinds:
        raise ValueError(f"{name!r} is none of the kinds {', '.join(kinds)}")
    return kinds[name]

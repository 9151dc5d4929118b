"""The lists `coefs_` and `intercepts_`, into which other arrays may be put."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from cydrop._base import checks
from cydrop._base.arrays import Floats


class Arrays(list[Floats]):
    """Views of the network's parameters, one per layer: what is put in their places goes into the network."""

    def __init__(self, name: str, arrays: list[Floats]) -> None:
        super().__init__(arrays)
        self._name = name

    def __setitem__(self, place: Any, value: Any) -> None:
        try:
            places = range(len(self))[place]
        except IndexError:
            raise IndexError(f"{self._name}[{place}] is out of range: there are {len(self)}, one per layer") from None
        if not isinstance(places, int) and not isinstance(value, Iterable):
            raise TypeError(f"{self._name} must be a list of arrays, one per layer, got {value!r}")
        numbers = [places] if isinstance(places, int) else list(places)
        given = [value] if isinstance(places, int) else list(value)
        if len(given) != len(numbers):
            raise ValueError(f"{self._name} has {len(numbers)} arrays here, one per layer, got {len(given)}")
        arrays = []
        for number, array in zip(numbers, given, strict=True):
            # a copy: one of these views may be assigned to another place
            arrays.append(checks.floats(f"{self._name}[{number}]", array, own=True))
            if arrays[-1].shape != self[number].shape:
                raise ValueError(f"{self._name}[{number}] must have shape {self[number].shape}, got {arrays[-1].shape}")
        for number, array in zip(numbers, arrays, strict=True):
            self[number][...] = array

    def _refuse(self, *arguments: Any, **options: Any) -> NoReturn:
        raise TypeError(
            f"{self._name} has an array for each layer and keeps their number: assign {self._name}[number] or the "
            "whole list"
        )

    append = extend = insert = pop = remove = clear = sort = reverse = _refuse
    __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> Any:
        return list, (list(self),)  # copies and pickles are plain lists

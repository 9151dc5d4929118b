"""Packages that show the names of their modules as their own."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable


def offered(package: str, modules: Iterable[str]) -> list[str]:
    """`__all__` of a package that has imported everything from its modules: their names, module by module.

    Classes and functions then say that they are of the package, where users, pickles and the documentation find them.
    """
    names = []
    for module in modules:
        # not as an attribute of the package, where a function may have the module's name
        shown = vars(sys.modules[f"{package}.{module}"])
        names += shown["__all__"]
        for value in map(shown.__getitem__, shown["__all__"]):
            if inspect.isclass(value) or inspect.isfunction(value):
                value.__module__ = package
    return names

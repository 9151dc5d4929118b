"""What the docstrings of several functions have in common, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def documented(sections: str) -> Callable[[F], F]:
    """Adds sections to the end of a function's docstring."""

    def add(function: F) -> F:
        if function.__doc__:  # python -OO has none
            function.__doc__ = f"{inspect.cleandoc(function.__doc__)}\n\n{inspect.cleandoc(sections)}\n"
        return function

    return add

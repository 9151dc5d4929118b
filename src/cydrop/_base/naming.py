"""Public classes whose methods stand in private bases."""

from __future__ import annotations

import functools
import inspect
import types
from typing import TypeVar

__all__ = ["named_after_class"]

Class = TypeVar("Class", bound=type)


def named_after_class(cls: Class) -> Class:
    """Gives a class its own copies of the methods that it inherits from within cydrop.

    When an argument is missing or unknown, Python's message begins with the qualified name of the method: it should be
    that of the class that a user knows, `Network.predict_mc` and not that of a base.
    """
    for base in cls.__mro__[1:]:
        if not base.__module__.startswith("cydrop."):
            continue
        for name, method in vars(base).items():
            if inspect.isfunction(method) and not name.startswith("_") and name not in vars(cls):
                own = types.FunctionType(
                    method.__code__, method.__globals__, name, method.__defaults__, method.__closure__
                )
                functools.update_wrapper(own, method)
                del own.__wrapped__  # type: ignore[attr-defined]
                own.__kwdefaults__ = method.__kwdefaults__
                own.__qualname__ = f"{cls.__qualname__}.{name}"
                setattr(cls, name, own)
    return cls

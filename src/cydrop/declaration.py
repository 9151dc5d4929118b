"""What layers, losses, optimizers and schedules have in common: options, given once and for all."""

from __future__ import annotations

from typing import Any, ClassVar


class Declaration:
    """An object that is nothing but its options: it is shown, compared and saved by them, and never changes."""

    _options: ClassVar[tuple[str, ...]] = ()

    def _declare(self, **options: Any) -> None:
        """Sets the options; called by __init__ alone."""
        self.__dict__.update(options)

    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {name: getattr(self, name) for name in self._options}

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed; make another one with {name}={value!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options().items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.options() == other.options()

    def __hash__(self) -> int:
        return hash((type(self), *self.options().values()))

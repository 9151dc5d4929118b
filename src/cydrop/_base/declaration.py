"""What layers, losses, optimizers and schedules have in common: options, given once and for all."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn


class Declaration:
    """An object that is nothing but its options: it is shown, compared and saved by them, and never changes."""

    option_names: ClassVar[tuple[str, ...]] = ()

    def declare(self, **options: Any) -> None:
        """Sets the options; called by __init__ alone."""
        self.__dict__.update(options)

    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {name: getattr(self, name) for name in self.option_names}

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._is_own(name):
            self._refuse(name, f"with {name}={value!r}")
        object.__setattr__(self, name, value)

    def _is_own(self, name: str) -> bool:
        """Whether a name belongs to a subclass of the user's, which may keep there what it likes."""
        ours = [cls for cls in type(self).__mro__ if cls.__module__.partition(".")[0] == __name__.partition(".")[0]]
        return type(self) not in ours and name not in self.option_names and not any(name in vars(cls) for cls in ours)

    def __delattr__(self, name: str) -> None:
        self._refuse(name, f"without {name}")

    def _refuse(self, name: str, how: str) -> NoReturn:
        """Nothing reads a declaration again once it is in use: a change would be obeyed in part, or not at all."""
        kind, options = type(self).__name__, ", ".join(self.option_names) or "none"
        if name not in self.option_names:
            raise AttributeError(f"{kind} has no option {name!r} (it has {options}), and cannot be changed")
        raise AttributeError(f"{kind} cannot be changed; make another one {how}{self._instead(name)}")

    def _instead(self, name: str) -> str:
        """What else the user may do, to end the sentence."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options().items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.options() == other.options()

    def __hash__(self) -> int:
        return hash((type(self), *self.options().values()))

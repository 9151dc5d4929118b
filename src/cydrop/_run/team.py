"""Who trains or predicts together: this process alone, or the ranks of a parallel run (`cydrop.distributed`).

Code that a team runs is written once, for every member: a team of one has all rows, hears nothing and waits for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from numpy.typing import NDArray

T = TypeVar("T")


class Team:
    """A team of one, and what every other offers.

    Attributes
    ----------
    rank, size : int
        Which member this process is, of how many.
    partitioned : bool
        Whether the members' rows are different ones, and not the same.
    """

    rank = 0
    size = 1
    partitioned = False

    def session(self) -> AbstractContextManager[None]:
        """Around everything that the members do together. What one of them raises in it, all raise."""
        return nullcontext()

    def together(self) -> AbstractContextManager[None]:
        """Around what each does by itself: at its end they wait for each other, and all raise what one raises."""
        return nullcontext()

    def prepare(self, core: Any) -> None:
        """Sets the number of threads of a network that has as many as the machine grants."""

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Raises where members differ in one of these, naming it and them."""

    def check_prediction(self, core: Any, X: NDArray[Any], facts: Mapping[str, Any]) -> None:
        """Raises where members differ in the network, in replicated rows or in one of these facts."""

    def part(self, X: Any) -> slice | None:
        """Of rows in a file, those that this member checks. None: all."""
        return None

    def of_first(self, value: T) -> T:
        """The value of the first member."""
        return value

    def of_all(self, value: T) -> list[T]:
        """The values of all, by rank."""
        return [value]

    def share(self, count: int) -> tuple[int, int]:
        """Which of so many equal pieces of work are this member's: the first, and the one after the last. With rows of
        its own it has all of them."""
        return 0, count

    def join(self, rows: NDArray[Any], ends: list[int]) -> None:
        """Fills in the rows that the others have worked out; `ends` are where the members' rows end. With rows of its
        own there is nothing to fill in."""


ALONE = Team()

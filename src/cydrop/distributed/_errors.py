"""What a process raises for another."""

from __future__ import annotations

__all__ = ["RankError"]


class RankError(RuntimeError):
    """Another rank has raised an error, in which all end. A note has its traceback.

    Attributes
    ----------
    rank : int
        Where it was raised.
    kind : str
        The name of its type.
    text : str
        What it says.
    """

    def __init__(self, rank: int, kind: str, text: str) -> None:
        super().__init__(rank, kind, text)
        self.rank, self.kind, self.text = rank, kind, text

    def __str__(self) -> str:
        return f"rank {self.rank} raised {self.kind}{': ' if self.text else ''}{self.text}"

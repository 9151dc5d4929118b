"""What quantizing has cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class QuantizationReport:
    """A network and what became of it, compared on the rows that `quantize` was given.

    Attributes
    ----------
    rows : int
    bytes_before, bytes_after : int
        Of all parameters and running statistics.
    largest_difference, mean_difference : float
        Between the predictions of the two, element by element.
    same_class : float or None
        The share of rows, of several labels that of labels, that both put into the same class. None for regression.
    before, after : dict of str to float
        What `evaluate` gives of the two; empty where `quantize` had no y.
    """

    rows: int
    bytes_before: int
    bytes_after: int
    largest_difference: float
    mean_difference: float
    same_class: float | None = None
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        share = self.bytes_after / self.bytes_before
        lines = [
            f"{self.bytes_before:,} bytes have become {self.bytes_after:,} ({share:.0%})",
            f"predictions of {self.rows:,} row{'s' * (self.rows > 1)} differ by {self.mean_difference:.2g} on average, "
            f"{self.largest_difference:.2g} at most",
        ]
        if self.same_class is not None:
            lines.append(f"both predict the same class in {self.same_class:.2%} of them")
        lines += [f"{name}: {value:.6g} before, {self.after[name]:.6g} after" for name, value in self.before.items()]
        return "\n".join(lines)

    def described(self) -> dict[str, Any]:
        """As in a file."""
        return asdict(self)

    @classmethod
    def of_description(cls, given: dict[str, Any]) -> QuantizationReport:
        """Of what a file says: ValueError for what is no report."""
        if given.keys() != {one.name for one in fields(cls)}:
            raise ValueError(f"its report has {sorted(given)}")
        numbers = {name: value for name, value in given.items() if name not in ("before", "after")}
        metrics = [given[name] for name in ("before", "after")]
        values = [value for name, value in numbers.items() if name != "same_class" or value is not None]
        values += [value for one in metrics if isinstance(one, dict) for value in one.values()]
        good = all(type(value) in (int, float) and math.isfinite(value) for value in values)
        if not good or any(not isinstance(one, dict) for one in metrics):
            raise ValueError("its report does not consist of numbers")
        counts = [numbers[name] for name in ("rows", "bytes_before", "bytes_after")]
        share = numbers["same_class"]
        good = all(type(count) is int and count >= 1 for count in counts) and (share is None or 0 <= share <= 1)
        if not good or numbers["largest_difference"] < 0 or numbers["mean_difference"] < 0:
            raise ValueError("its report has numbers that no comparison gives")
        if metrics[0].keys() != metrics[1].keys():
            raise ValueError("its report has other metrics before and after")
        return cls(**given)

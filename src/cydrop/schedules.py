"""Schedules of learning rates and dropout rates: functions of training progress.

Progress is 0 at the first batch of a call of `fit` and approaches 1 at its last. Any function of one number
in [0, 1] is a schedule too; those here can also be saved with a network.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from cydrop import checks


class Schedule:
    """A function of progress with a name and options."""

    def __call__(self, progress: float) -> float:
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Name and options, as saved in a file."""
        return {"schedule": type(self).__name__} | asdict(self)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value throughout."""

    value: float

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from `start` to `end`, reached at progress `until` and kept."""

    start: float
    end: float = 0.0
    until: float = 1.0

    def __call__(self, progress: float) -> float:
        part = min(progress / self.until, 1.0) if self.until > 0 else 1.0
        return self.start + (self.end - self.start) * part


@dataclass(frozen=True)
class Step(Schedule):
    """`start` before progress `at`, `end` from there: early dropout is `Step(0.5, 0.0)`, late `Step(0.0, 0.5)`."""

    start: float
    end: float = 0.0
    at: float = 0.5

    def __call__(self, progress: float) -> float:
        return self.start if progress < self.at else self.end


@dataclass(frozen=True)
class Exponential(Schedule):
    """`start * (end / start) ** progress`: the same factor in every equal piece of training."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return float(self.start * (self.end / self.start) ** progress)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine wave from `start` to `end` (Loshchilov and Hutter 2017)."""

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class FlatCos(Schedule):
    """`start` until progress `flat`, then half a cosine wave to `end`."""

    start: float
    end: float = 0.0
    flat: float = 0.5

    def __call__(self, progress: float) -> float:
        if progress <= self.flat or self.flat >= 1.0:
            return self.start
        return Cosine(self.start, self.end)((progress - self.flat) / (1.0 - self.flat))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Cosine from `peak / divide` up to `peak` at progress `warm_up`, then down to `peak / final_divide`
    (Smith and Topin 2019)."""

    peak: float
    divide: float = 25.0
    final_divide: float = 1e4
    warm_up: float = 0.3

    def __call__(self, progress: float) -> float:
        if progress < self.warm_up:
            return Cosine(self.peak / self.divide, self.peak)(progress / self.warm_up)
        rest = 1.0 - self.warm_up
        return Cosine(self.peak, self.peak / self.final_divide)((progress - self.warm_up) / rest if rest > 0 else 1.0)


Rate: TypeAlias = float | Callable[[float], float]

_KNOWN = {cls.__name__: cls for cls in (Constant, Linear, Step, Exponential, Cosine, FlatCos, OneCycle)}


def from_config(config: dict[str, Any]) -> Schedule:
    """The schedule that `Schedule.config` described."""
    options = dict(config)
    return checks.choice("schedule", options.pop("schedule", None), _KNOWN)(**options)


def value_at(name: str, rate: Rate, progress: float, low: float = 0.0, high: float = math.inf) -> float:
    """A number as it is, a schedule at `progress`, checked to lie in its range."""
    if not callable(rate):
        return rate
    return checks.number(f"{name} at progress {progress:.3g}", rate(progress), low, high)

"""Schedules of learning rates, weight decays and dropout rates: functions of training progress.

Progress is 0 at the first batch of a call of `fit` and approaches 1 at its last. Any function of one number
in [0, 1] is a schedule too; those here can also be saved with a network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from cydrop._base import checks
from cydrop._base.declaration import Declaration

__all__ = [  # noqa: RUF022 (in the order of the reference pages)
    "Schedule",
    "Constant",
    "Linear",
    "Step",
    "Exponential",
    "Cosine",
    "FlatCos",
    "CosLog4",
    "Curriculum",
    "OneCycle",
    "Scaled",
    "KNOWN",
    "Rate",
    "from_config",
    "rate_config",
    "rate_from_config",
    "value_at",
]


class Schedule(Declaration, ABC):
    """A function of progress with a name and options."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The value at a progress in [0, 1]."""

    def config(self) -> dict[str, Any]:
        """Name and options, as saved in a file."""
        return {"schedule": type(self).__name__} | self.options()


class Constant(Schedule):
    """The same value throughout.

    Parameters
    ----------
    value : float
    """

    option_names = ("value",)
    value: float

    def __init__(self, value: float) -> None:
        self.declare(value=checks.number("value", value))

    def __call__(self, progress: float) -> float:
        return self.value


class Linear(Schedule):
    """A straight line from `start` to `end`, reached at progress `until` and kept.

    Parameters
    ----------
    start, end : float
        The values at both ends of the line.
    until : float
        The progress at which `end` is reached; 0 or less: at once.
    """

    option_names = ("start", "end", "until")
    start: float
    end: float
    until: float

    def __init__(self, start: float, end: float = 0.0, until: float = 1.0) -> None:
        self.declare(
            start=checks.number("start", start), end=checks.number("end", end), until=checks.number("until", until)
        )

    def __call__(self, progress: float) -> float:
        part = min(progress / self.until, 1.0) if self.until > 0 else 1.0
        return self.start + (self.end - self.start) * part


class Step(Schedule):
    """`start` before progress `at`, `end` from there: early dropout is `Step(0.5, 0.0)`, late `Step(0.0, 0.5)`.

    Parameters
    ----------
    start, end : float
        The values before and after the step.
    at : float
        The progress at which it happens.
    """

    option_names = ("start", "end", "at")
    start: float
    end: float
    at: float

    def __init__(self, start: float, end: float = 0.0, at: float = 0.5) -> None:
        self.declare(start=checks.number("start", start), end=checks.number("end", end), at=checks.number("at", at))

    def __call__(self, progress: float) -> float:
        return self.start if progress < self.at else self.end


class Exponential(Schedule):
    """`start * (end / start) ** progress`: the same factor in every equal piece of training.

    Parameters
    ----------
    start, end : float > 0
        The values at progress 0 and 1.
    """

    option_names = ("start", "end")
    start: float
    end: float

    def __init__(self, start: float, end: float) -> None:
        self.declare(
            start=checks.number("start", start, 0.0, low_open=True), end=checks.number("end", end, 0.0, low_open=True)
        )

    def __call__(self, progress: float) -> float:
        return float(self.start * (self.end / self.start) ** progress)


class Cosine(Schedule):
    """Half a cosine wave from `start` to `end` (Loshchilov and Hutter 2017).

    Parameters
    ----------
    start, end : float
        The values at progress 0 and 1.
    """

    option_names = ("start", "end")
    start: float
    end: float

    def __init__(self, start: float, end: float = 0.0) -> None:
        self.declare(start=checks.number("start", start), end=checks.number("end", end))

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


class FlatCos(Schedule):
    """`start` until progress `flat`, then half a cosine wave to `end`.

    Parameters
    ----------
    start, end : float
        The values at progress 0 and 1.
    flat : float
        The progress at which the wave begins.
    """

    option_names = ("start", "end", "flat")
    start: float
    end: float
    flat: float

    def __init__(self, start: float, end: float = 0.0, flat: float = 0.5) -> None:
        self.declare(
            start=checks.number("start", start), end=checks.number("end", end), flat=checks.number("flat", flat)
        )

    def __call__(self, progress: float) -> float:
        if progress <= self.flat or self.flat >= 1.0:
            return self.start
        return Cosine(self.start, self.end)((progress - self.flat) / (1.0 - self.flat))


class CosLog4(Schedule):
    """Four waves from 0 up to `peak` and back, each twice as long as the one before: the learning rate of RealMLP
    (Holzmüller, Grinsztajn and Steinwart 2024, arXiv 2407.04491).

    `peak * (1 - cos(2 pi log2(1 + 15 progress))) / 2`: it is 0 at progress 0, 1/15, 3/15, 7/15 and 1, and
    comes there and leaves smoothly: a wave is no restart, weights and moments go on. As with every schedule, each call
    of `fit` begins it anew, over its own epochs. `partial_fit` and `train_on_batch` stay at the start of schedules,
    where this one is 0: with it they change nothing.

    Parameters
    ----------
    peak : float
        The largest value.
    """

    option_names = ("peak",)
    peak: float

    def __init__(self, peak: float) -> None:
        self.declare(peak=checks.number("peak", peak))

    def __call__(self, progress: float) -> float:
        return self.peak * 0.5 * (1.0 - math.cos(2.0 * math.pi * math.log2(1.0 + 15.0 * progress)))


class Curriculum(Schedule):
    """`end * (1 - exp(-gamma * progress))`: dropout that grows during training, steeply at first (Morerio et al. 2017).

    Their keep rate is (1 - k) exp(-gamma t) + k with k = 1 - end; gamma 10 is their choice with t as progress.

    Parameters
    ----------
    end : float
        The value that is approached.
    gamma : float > 0
        How steeply: at progress 1 / gamma the value is .63 `end`.
    """

    option_names = ("end", "gamma")
    end: float
    gamma: float

    def __init__(self, end: float, gamma: float = 10.0) -> None:
        self.declare(end=checks.number("end", end), gamma=checks.number("gamma", gamma, 0.0, low_open=True))

    def __call__(self, progress: float) -> float:
        return self.end * -math.expm1(-self.gamma * progress)


class OneCycle(Schedule):
    """Cosine from `peak / divide` up to `peak` at progress `warm_up`, then down to `peak / final_divide`
    (Smith and Topin 2019).

    Parameters
    ----------
    peak : float
        The largest value.
    divide, final_divide : float
        `peak` is divided by them at the start and at the end.
    warm_up : float
        The progress at which `peak` is reached.
    """

    option_names = ("peak", "divide", "final_divide", "warm_up")
    peak: float
    divide: float
    final_divide: float
    warm_up: float

    def __init__(self, peak: float, divide: float = 25.0, final_divide: float = 1e4, warm_up: float = 0.3) -> None:
        self.declare(
            peak=checks.number("peak", peak),
            divide=checks.number("divide", divide, 0.0, low_open=True),
            final_divide=checks.number("final_divide", final_divide, 0.0, low_open=True),
            warm_up=checks.number("warm_up", warm_up),
        )

    def __call__(self, progress: float) -> float:
        if progress < self.warm_up:
            return Cosine(self.peak / self.divide, self.peak)(progress / self.warm_up)
        left = 1.0 - self.warm_up
        return Cosine(self.peak, self.peak / self.final_divide)((progress - self.warm_up) / left if left > 0 else 1.0)


class Scaled(Schedule):
    """Another schedule, or a function of your own, times `factor`; what `callbacks.ReduceLROnPlateau` makes of one.

    Parameters
    ----------
    base : schedule, or function of progress
    factor : float
    """

    option_names = ("base", "factor")
    base: Callable[[float], float]
    factor: float

    def __init__(self, base: Callable[[float], float], factor: float) -> None:
        if not callable(base):
            raise TypeError(f"base must be a schedule or a function of progress, got {base!r} ({type(base).__name__})")
        factor = checks.number("factor", factor)
        if isinstance(base, Scaled):
            factor, base = base.factor * factor, base.base
        self.declare(base=base, factor=factor)

    def __call__(self, progress: float) -> float:
        return self.factor * self.base(progress)

    def config(self) -> dict[str, Any]:
        if not isinstance(self.base, Schedule):
            raise ValueError(
                "the base of a Scaled schedule is a function of your own, which a file cannot hold; use one of "
                "cydrop.schedules"
            )
        return super().config() | {"base": self.base.config()}


Rate: TypeAlias = float | Callable[[float], float]

_CLASSES = (Constant, Linear, Step, Exponential, Cosine, FlatCos, CosLog4, Curriculum, OneCycle, Scaled)
KNOWN: dict[str, type[Schedule]] = {cls.__name__: cls for cls in _CLASSES}


def from_config(config: dict[str, Any]) -> Schedule:
    """The schedule that `Schedule.config` described."""
    options = dict(config)
    if "base" in options:
        options["base"] = from_config(options["base"])
    return checks.choice("schedule", options.pop("schedule", None), KNOWN)(**options)


def rate_config(name: str, rate: Rate) -> Any:
    """A number or a schedule in a form that JSON can hold."""
    if isinstance(rate, Schedule):
        return rate.config()
    if callable(rate):
        raise ValueError(f"{name} is a function of your own, which a file cannot hold; use one of cydrop.schedules")
    return rate


def rate_from_config(value: Any) -> Rate:
    """The number or schedule that `rate_config` described."""
    return from_config(value) if isinstance(value, dict) else value


def value_at(name: str, rate: Rate, progress: float, low: float = 0.0, high: float = math.inf) -> float:
    """A number as it is, a schedule at `progress`, checked to lie in its range."""
    if not callable(rate):
        return rate
    return checks.number(f"{name} at progress {progress:.3g}", rate(progress), low, high, single=True)

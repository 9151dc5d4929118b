"""Calls that take turns at the same work: what the benchmarks measure time with."""

import gc
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], Any]
Times = dict[str, list[float]]  # label -> seconds per call, one for each turn

TURN = 2e-3  # seconds: short calls are repeated within a turn until they take about this long
LONGEST = 12.0  # seconds: no more turns after this long, once there are five


def take_turns(competitors: dict[str, Call], repeats: int, longest: float = LONGEST) -> Times:
    """Seconds a call of each competitor, `repeats` turns each (fewer if they take too long), alternating."""
    calls = {}
    for name, call in competitors.items():
        call()
        once = seconds(call)
        calls[name] = max(1, min(1000, round(TURN / once)))
    times: Times = {name: [] for name in competitors}
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + longest
        for turn in range(repeats):
            if turn >= 5 and time.perf_counter() > end:
                break
            for name, call in competitors.items():
                times[name].append(seconds(call, calls[name]))
    finally:
        gc.enable()
    return times


def seconds(call: Call, count: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def fastest(candidates: dict[str, Call], repeats: int = 5) -> tuple[str, dict[str, float]]:
    """The name of the fastest, and the least time of each in microseconds."""
    least = {name: min(times) * 1e6 for name, times in take_turns(candidates, repeats).items()}
    return min(least, key=least.__getitem__), least

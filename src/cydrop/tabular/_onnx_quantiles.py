"""Numbers as normal quantiles of their ranks, in ONNX: what `_quantiles.normal` computes, for all columns at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from cydrop.tabular._columns import Doubles
from cydrop.tabular._quantiles import NEAREST, TINY

# The normal quantile of Wichura (1988, algorithm AS 241, PPND7), relative error 1e-7: that of float32, which comes out.
# From the constant term upwards, for p within 0.425 of 1/2, and beyond.
CENTRE = (
    (3.3871327179, 50.434271938, 159.29113202, 59.109374720),
    (1.0, 17.895169469, 78.757757664, 67.187563600),
)
TAIL = (
    (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103),
    (1.0, 0.73700164250, 0.12021132975),
)


def normal(graph: Any, x: str, quantiles: Doubles) -> str:
    """Adds nodes that give the normal quantiles at the ranks of x, (n, columns), float64; NaN becomes anything.

    Parameters
    ----------
    graph : graph of `cydrop.onnx`
    x : str
        Finite numbers in float64, and NaN.
    quantiles : ndarray of float64, shape (count, columns)
    """
    work = _Doubles(graph)
    count, columns = quantiles.shape
    constant = quantiles[0] == quantiles[-1]
    rank = work.constant("rank", np.full(columns, 0.5))
    if constant.all():
        return work("Add", work("Mul", work("IsNaN", x, double=True), 0.0), np.zeros(columns))
    left, right = (_places(work, x, quantiles, less) for less in ("Less", "LessOrEqual"))
    above, below = work.clip(left, 1, count - 1), work.clip(left, 1, count - 1, minus=1)
    low, high = (_taken(work, quantiles, place) for place in (below, above))
    gap = work("Sub", high, low)
    gap = work("Where", work("Greater", gap, 0.0), gap, TINY)
    share = work("Clip", work("Div", work("Sub", x, low), gap), 0.0, 1.0)
    step = 1 / (count - 1)
    between = work("Mul", work("Add", work.double(below), share), step)
    first, last = work.clip(left, 0, count - 1), work.clip(right, 1, count, minus=1)
    middle = work("Mul", work("Add", work.double(first), work.double(last)), step / 2)
    found = work("Where", work("Less", left, right), middle, between)
    p = work("Clip", work("Where", work.truths("constant", constant), rank, found), NEAREST, 1.0 - NEAREST)
    return _normal_quantile(work, p)


class _Doubles:
    """Nodes whose operands may be numbers, which become constants in float64."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph

    def __call__(self, kind: str, *operands: Any, double: bool = False) -> str:
        names = [value if isinstance(value, str) else self.constant("number", value) for value in operands]
        found = str(self.graph.add(kind, *names))
        return self.double(found) if double else found

    def constant(self, what: str, value: Any) -> str:
        return str(self.graph.constant(what, value, np.float64))

    def truths(self, what: str, value: Any) -> str:
        return str(self.graph.constant(what, value, np.bool_))

    def double(self, x: str) -> str:
        return str(self.graph.add("Cast", x, to=self.graph.onnx.TensorProto.DOUBLE))

    def integer(self, value: Any) -> str:
        return str(self.graph.constant("place", value, np.int64))

    def clip(self, places: str, low: int, high: int, minus: int = 0) -> str:
        """Places from low to high, then less by `minus`."""
        found = self.graph.add("Min", self.graph.add("Max", places, self.integer(low)), self.integer(high))
        return str(self.graph.add("Sub", found, self.integer(minus)) if minus else found)


def _places(work: _Doubles, x: str, quantiles: Doubles, less: str) -> str:
    """How many quantiles of its column are less (or not more) than each number: by halves, as many times as needed."""
    count, columns = quantiles.shape
    bits = count.bit_length()
    padded = np.full((2**bits - 1, columns), np.inf)
    padded[:count] = quantiles
    place = ""
    for bit in reversed(range(bits)):
        step = work.integer(2**bit)
        tried = step if not place else work("Add", place, step)
        one_less = work("Sub", tried, work.integer(1))
        found = work(less, _taken(work, padded, one_less), x)
        taken = work("Mul", work.graph.add("Cast", found, to=work.graph.onnx.TensorProto.INT64), step)
        place = taken if not place else work("Add", place, taken)
    return place


def _taken(work: _Doubles, values: Doubles, places: str) -> str:
    """The value at a place of each column, (n, columns); values are (count, columns)."""
    columns = values.shape[1]
    flat = work("Add", work("Mul", places, work.integer(columns)), work.integer(np.arange(columns)))
    return str(work.graph.add("Gather", work.constant("values", values.reshape(-1)), flat, axis=0))


def _normal_quantile(work: _Doubles, p: str) -> str:
    q = work("Sub", p, 0.5)
    centre = work("Mul", q, _ratio(work, CENTRE, work("Sub", 0.180625, work("Mul", q, q))))
    tail = work("Min", p, work("Sub", 1.0, p))
    tail = _ratio(work, TAIL, work("Sub", work("Sqrt", work("Neg", work("Log", tail))), 1.6))
    tail = work("Mul", work("Sign", q), tail)
    return work("Where", work("Greater", work("Abs", q), 0.425), tail, centre)


def _ratio(work: _Doubles, of: tuple[tuple[float, ...], tuple[float, ...]], x: str) -> str:
    """A polynomial over another."""
    parts = []
    for coefficients in of:
        value: Any = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            value = work("Add", work("Mul", value, x), coefficient)
        parts.append(value)
    return work("Div", *parts)

"""Embeddings: some columns of a row become several numbers each, the others pass through: `NumericEmbedding` is for the
first columns, each number by itself, `Embedding` for the last ones, codes of categories."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cydrop._base import checks, mapped, seeding
from cydrop._base.arrays import Floats
from cydrop._run.plan import Initial, Plan
from cydrop.layers.base import Factor, Layer, checked_factor
from cydrop.xorshift import Xorshift

__all__ = ["Embedding", "NumericEmbedding"]

MOST = 2**16  # numbers that a column may become, frequencies and bins
MOST_CODES = 2**24  # whole numbers that float32 holds


class _Kind(NamedTuple):
    """What a kind of NumericEmbedding is made of."""

    words: tuple[str, ...]  # of its parameters
    options: dict[str, Any]  # and what they are if they are not given


KINDS = {
    "pbld": _Kind(("frequency", "phase", "weight", "bias"), {"frequencies": 16, "size": 4, "sigma": 0.1}),
    "plr": _Kind(("frequency", "weight", "bias"), {"frequencies": 48, "size": 24, "sigma": 0.01}),
    "piecewise_linear": _Kind(("slope", "weight", "bias"), {"size": 16, "bins": 48}),
}


class NumericEmbedding(Layer):
    """Embeds the first columns of what comes in: each of their numbers becomes several numbers, learned functions of it
    alone. The other columns follow unchanged.

    A dense layer needs many units for a function of one number that goes up and down; here it finds waves or pieces to
    make it of. The numbers should be scaled to about -3 to 3. What a number becomes depends on the kind:

    ==================  =======================================================================================
    kind                a number x becomes
    ==================  =======================================================================================
    "pbld"              [cos(2 pi x w + b) V + c, x]: `size` numbers, the last of them x itself (RealMLP,
                        Holzmüller, Grinsztajn and Steinwart 2024)
    "plr"               relu([cos(2 pi x w), sin(2 pi x w)] V + c): `size` numbers (Gorishniy, Rubachev and
                        Babenko 2022)
    "piecewise_linear"  x w + c + v V: `size` numbers, where v_t is the share of bin t that lies below x, from 0
                        to 1; below the first edge that of the first bin goes on below 0, beyond the last edge
                        that of the last one above 1, so that the lines there go on straight. V begins at 0
                        (Gorishniy, Rubachev and Babenko 2022, version B of Gorishniy, Kotelnikov and Babenko 2025)
    ==================  =======================================================================================

    Parameters
    ----------
    kind : "pbld", "plr" or "piecewise_linear"
    columns : int >= 1 or None
        How many of the first columns are embedded; None: all.
    frequencies : int >= 1 or None
        How many frequencies w (and phases b) each column has, for "pbld" (None: 16) and "plr" (None: 48).
    size : int >= 1 or None
        How many numbers a number becomes; None: 4 for "pbld", 24 for "plr", 16 for "piecewise_linear". "pbld" needs at
        least 2.
    sigma : float > 0 or None
        Standard deviation of the frequencies at the start, in periods for a step of 1 in x, for "pbld" (None: 0.1) and
        "plr" (None: 0.01).
    bins : int >= 1 or None
        Most bins that a column has, for "piecewise_linear" (None: 48). Their edges are kept in files and not trained.
        They are evenly spaced from -3 to 3 until `Network.initialize` takes them from rows.
    learning_rate_factor, decay_factor : float >= 0, or dict of str to float
        What the optimizer's learning rate and weight decay are multiplied by: for all parameters of the layer, or, as a
        dict, for those named, such as {"frequency": 0.1}.

    Notes
    -----
    The parameters: "frequency" and "phase", (columns, frequencies), are w in periods and b in radians; "slope",
    (columns, size), is w of "piecewise_linear"; "weight" is V: (columns, frequencies, size - 1) for "pbld", (columns, 2
    frequencies, size), cosines first, for "plr", (columns, bins, size) for "piecewise_linear"; "bias", as one row of
    V, is c. They begin as in the papers' programs, all uniform but w: b between -pi and pi; V and c within
    1 / sqrt(rows of V for a column) of 0; of "piecewise_linear" w and c within 1 / sqrt(size) of 0.
    """

    option_names = (
        "kind", "columns", "frequencies", "size", "sigma", "bins", "learning_rate_factor", "decay_factor"
    )  # fmt: skip
    kind: str
    columns: int | None
    frequencies: int | None
    size: int
    sigma: float | None
    bins: int | None

    def __init__(
        self,
        kind: str = "pbld",
        *,
        columns: int | None = None,
        frequencies: int | None = None,
        size: int | None = None,
        sigma: float | None = None,
        bins: int | None = None,
        learning_rate_factor: Factor = 1.0,
        decay_factor: Factor = 1.0,
    ) -> None:
        words, defaults = checks.choice("kind", kind, KINDS)
        given = {"frequencies": frequencies, "size": size, "sigma": sigma, "bins": bins}
        for name, value in given.items():
            if name not in defaults and value is not None:
                raise ValueError(f"{name} is no option of kind={kind!r}, got {value!r}; it has {', '.join(defaults)}")
        chosen = given | {name: defaults[name] for name in defaults if given[name] is None}
        for name in ("frequencies", "size", "bins"):
            if chosen[name] is not None:
                least = 2 if kind == "pbld" and name == "size" else 1
                chosen[name] = checks.integer(name, chosen[name], least, MOST)
        if chosen["sigma"] is not None:
            chosen["sigma"] = checks.number("sigma", chosen["sigma"], 0.0, low_open=True, single=True)
        self.declare(
            kind=kind,
            columns=None if columns is None else checks.integer("columns", columns, 1, checks.MOST_UNITS),
            **chosen,
            learning_rate_factor=checked_factor("learning_rate_factor", learning_rate_factor, words),
            decay_factor=checked_factor("decay_factor", decay_factor, words),
        )

    def lower(self, plan: Plan) -> None:
        (n_in,) = plan.shape
        columns = self._columns_of(n_in, f"layers[{plan.where}]")
        terms = self.bins or self.frequencies or 0
        op = plan.operation(
            "numbers",
            (columns * self.size + n_in - columns,),
            variant=self.kind,
            numbers=(columns, terms, self.size),
        )
        number = plan.counts["numbers"]
        for place, (word, (shape, initial)) in enumerate(self._parameters(columns).items()):
            branch = (seeding.EMBEDDINGS, 0, number, place)
            op.parts.append(plan.parameter(word, shape, initial, branch, self.factors(word)))
        if self.bins is not None:
            edges = np.linspace(-3, 3, self.bins + 1, dtype=np.float32)
            op.buffer = plan.buffer("edges", (columns, self.bins + 1), lambda seed: edges)

    def _parameters(self, columns: int) -> dict[str, tuple[tuple[int, ...], Initial]]:
        """The shapes of the parameters and how they begin, in the order that the operation has them."""
        outputs = self.size - (self.kind == "pbld")
        if self.bins is not None:
            begin: Initial = partial(_uniform, (columns, outputs), 1 / math.sqrt(outputs))
            weight = (columns, self.bins, outputs)
            return {"slope": ((columns, outputs), begin), "weight": (weight, 0.0), "bias": ((columns, outputs), begin)}
        assert self.frequencies is not None
        assert self.sigma is not None
        waves, terms = (columns, self.frequencies), self.frequencies * (2 if self.kind == "plr" else 1)
        found: dict[str, tuple[tuple[int, ...], Initial]] = {"frequency": (waves, partial(_normal, waves, self.sigma))}
        if self.kind == "pbld":
            found["phase"] = waves, partial(_uniform, waves, math.pi)
        for word, shape in (("weight", (columns, terms, outputs)), ("bias", (columns, outputs))):
            found[word] = shape, partial(_uniform, shape, 1 / math.sqrt(terms))
        return found

    def _columns_of(self, n_in: int, what: str) -> int:
        """How many columns are embedded of so many."""
        if self.columns is not None and self.columns > n_in:
            raise ValueError(f"{what} is NumericEmbedding(columns={self.columns}), but rows have {n_in} columns there")
        return n_in if self.columns is None else self.columns

    def check_rows(self, name: str, rows: Floats, untouched: int) -> int:
        if untouched < rows.shape[1] or self.columns is None:
            return 0
        return max(untouched - self.columns, 0)

    def quantile_edges(self, X: ArrayLike) -> Floats:
        """Edges of bins that hold equally many rows each: quantiles of each number.

        Equal quantiles count once, so that a number with few values gets fewer bins; the last edge then stands for the
        missing ones, and bins of no width do nothing.

        Parameters
        ----------
        X : array-like, shape (n, features)
            Rows as they come to the layer.

        Returns
        -------
        ndarray of float32, shape (columns, bins + 1)

        Raises
        ------
        ValueError
            For kinds without bins, and for too few columns.
        """
        if self.bins is None:
            raise ValueError(f"kind={self.kind!r} has no bins; kind='piecewise_linear' has")
        given = checks.matrix("X", X)
        columns = self._columns_of(given.shape[1], "this layer")
        edges = np.empty((columns, self.bins + 1), dtype=np.float32)
        levels = np.linspace(0.0, 1.0, self.bins + 1)
        for own, column in zip(edges, given[:, :columns].T, strict=True):
            found = np.unique(np.quantile(column.astype(np.float64), levels).astype(np.float32))
            own[: len(found)], own[len(found) :] = found, found[-1]
        return edges

    def initialize(self, x: Floats, arrays: dict[str, Floats]) -> None:
        """Takes the edges of the bins from rows, where the kind has bins.

        Parameters
        ----------
        x : ndarray of float32, shape (n, features)
            Rows as they come to the layer.
        arrays : dict of str to ndarray
            Views of the layer's parameters and buffers by its own words; "edges" is overwritten.
        """
        if self.bins is not None:
            arrays["edges"][...] = self.quantile_edges(x)

    def to_onnx(self, graph: Any, x: str) -> str:
        (n_in,) = graph.shape
        columns = self._columns_of(n_in, "this layer")
        own = _columns(graph, x, 0, columns)
        own = graph.add("Reshape", own, graph.integers("shape", [-1, columns, 1]))
        e = self._piecewise_in_onnx(graph, own) if self.bins is not None else self._periodic_in_onnx(graph, own)
        y: str = graph.add("Reshape", e, graph.integers("shape", [-1, columns * self.size]))
        return graph.add("Concat", y, _columns(graph, x, columns, n_in), axis=1) if n_in > columns else y

    def _periodic_in_onnx(self, graph: Any, own: str) -> str:
        turns = graph.add("Mul", own, graph.parameter("frequency"))
        angle = graph.add("Mul", turns, graph.constant("turn", 2 * math.pi))
        if self.kind == "pbld":
            e = _linear(graph, graph.add("Cos", graph.add("Add", angle, graph.parameter("phase"))))
            y: str = graph.add("Concat", graph.add("Add", e, graph.parameter("bias")), own, axis=2)
            return y
        e = _linear(graph, graph.add("Concat", graph.add("Cos", angle), graph.add("Sin", angle), axis=2))
        y = graph.add("Relu", graph.add("Add", e, graph.parameter("bias")))
        return y

    def _piecewise_in_onnx(self, graph: Any, own: str) -> str:
        edges = graph.arrays[f"{graph.place}.edges"]
        width = np.diff(edges, axis=1)
        used = width > 0
        scale = np.where(used, 1 / np.where(used, width, 1), 0)
        last = np.cumsum(used, axis=1) == used.sum(axis=1, keepdims=True)
        low, high = np.zeros_like(scale), np.where(last, np.finfo(np.float32).max, 1)
        low[:, 0] = np.finfo(np.float32).min
        shares = graph.add("Sub", own, graph.constant("edge", edges[:, :-1]))
        shares = graph.add("Mul", shares, graph.constant("scale", scale))
        shares = graph.add("Min", graph.add("Max", shares, graph.constant("low", low)), graph.constant("high", high))
        straight = graph.add("Add", graph.add("Mul", own, graph.parameter("slope")), graph.parameter("bias"))
        y: str = graph.add("Add", straight, _linear(graph, shares))
        return y


class Embedding(Layer):
    """Embeds categories: each code in the last columns becomes a row of `size` learned numbers (Guo and Berkhahn 2016,
    arXiv 1604.06737). The columns before them pass through unchanged, and stand first in the output.

    Parameters
    ----------
    cardinalities : iterable of int
        How many categories each of the last columns has, at most 2^24: as many columns are embedded as there are
        entries. The codes of a column are the whole numbers from 0 to its cardinality - 1.
    size : int >= 1
        How many numbers a code becomes.
    learning_rate_factor, decay_factor : float >= 0, or dict of str to float
        What the optimizer's learning rate and weight decay are multiplied by for the parameter "weight".

    Notes
    -----
    The weight, (sum of cardinalities, size), begins with normal numbers of variance 1. It has the rows of the first
    column's codes, then those of the second's, and so on. Where the codes come straight from the network's input, any
    other value is refused before anything runs. Where other layers have computed them, a value is rounded towards 0,
    and one that is too small or too large becomes the nearest code.

    Examples
    --------
    >>> import cydrop as cd
    >>> layers = [cd.Embedding([3, 100], 8), cd.Dense(1)]
    >>> net = cd.Network(layers, loss="mse", seed=0).build(6)
    >>> net.parameters()["0.weight"].shape
    (103, 8)
    >>> net.forward([[0.1, 0.2, 0.3, 0.4, 2, 99]]).shape      # four numbers, two codes
    (1, 1)
    """

    option_names = ("cardinalities", "size", "learning_rate_factor", "decay_factor")
    cardinalities: tuple[int, ...]
    size: int

    def __init__(
        self,
        cardinalities: Iterable[int],
        size: int,
        *,
        learning_rate_factor: Factor = 1.0,
        decay_factor: Factor = 1.0,
    ) -> None:
        if isinstance(cardinalities, str | bytes) or not isinstance(cardinalities, Iterable):
            kind = type(cardinalities).__name__
            raise TypeError(f"cardinalities must be a list of integers, got {cardinalities!r} ({kind})")
        given = tuple(cardinalities)
        if not given:
            raise ValueError("cardinalities is empty: an Embedding needs at least one column of codes")
        self.declare(
            cardinalities=tuple(
                checks.integer(f"cardinalities[{place}]", own, 1, MOST_CODES) for place, own in enumerate(given)
            ),
            size=checks.integer("size", size, 1, MOST),
            learning_rate_factor=checked_factor("learning_rate_factor", learning_rate_factor, ("weight",)),
            decay_factor=checked_factor("decay_factor", decay_factor, ("weight",)),
        )

    @property
    def _starts(self) -> tuple[int, ...]:
        """Where each column's table begins in the weight, and where the last one ends."""
        return (0, *np.cumsum(self.cardinalities, dtype=np.int64).tolist())

    def lower(self, plan: Plan) -> None:
        (n_in,) = plan.shape
        columns = len(self.cardinalities)
        if n_in < columns:
            what = f"layers[{plan.where}] is an Embedding of {columns} columns"
            raise ValueError(f"{what}, but rows have {n_in} columns there")
        shape = (self._starts[-1], self.size)
        out_shape = (n_in - columns + columns * self.size,)
        op = plan.operation("codes", out_shape, numbers=(self.size, *self._starts))
        branch = (seeding.EMBEDDINGS, 1, plan.counts["codes"])
        op.weight = plan.parameter("weight", shape, partial(_normal, shape, 1.0), branch, self.factors("weight"))

    def check_rows(self, name: str, rows: Floats, untouched: int) -> int:
        columns = len(self.cardinalities)
        if columns > untouched:
            return 0
        first = rows.shape[1] - columns
        ends = np.array(self.cardinalities, dtype=np.float32)
        for part in mapped.pieces(rows):
            codes = rows[part, first:]
            wrong = (codes < 0) | (codes >= ends) | (codes != np.floor(codes))
            if wrong.any():
                row, column = (int(place) for place in np.unravel_index(int(wrong.argmax()), wrong.shape))
                value, most = codes[row, column], self.cardinalities[column] - 1
                raise ValueError(
                    f"{name} column {first + column} must hold whole numbers from 0 to {most}, codes of an Embedding; "
                    f"got {value:g} in row {part.start + row}"
                )
        return 0

    def to_onnx(self, graph: Any, x: str) -> str:
        (n_in,) = graph.shape
        columns = len(self.cardinalities)
        most = np.array(self.cardinalities) - 1
        codes = graph.add("Max", _columns(graph, x, n_in - columns, n_in), graph.constant("least", 0.0))
        codes = graph.add("Min", codes, graph.constant("most", most))
        codes = graph.add("Cast", codes, to=graph.onnx.TensorProto.INT64)
        places = graph.add("Add", codes, graph.integers("starts", list(self._starts[:-1])))
        y: str = graph.add("Gather", graph.parameter("weight"), places, axis=0)
        y = graph.add("Reshape", y, graph.integers("shape", [-1, columns * self.size]))
        return graph.add("Concat", _columns(graph, x, 0, n_in - columns), y, axis=1) if n_in > columns else y


def _normal(shape: tuple[int, ...], deviation: float, seed: np.random.SeedSequence) -> Floats:
    drawn: Floats = Xorshift(seed).normal(shape)
    drawn *= np.float32(deviation)
    return drawn


def _uniform(shape: tuple[int, ...], bound: float, seed: np.random.SeedSequence) -> Floats:
    """Between -bound and bound."""
    drawn: Floats = Xorshift(seed).random(shape)
    drawn -= np.float32(0.5)
    drawn *= np.float32(2 * bound)
    return drawn


def _columns(graph: Any, x: str, first: int, end: int) -> str:
    """Some columns of x, in ONNX."""
    places = [graph.integers(word, [value]) for word, value in (("first", first), ("end", end), ("axis", 1))]
    y: str = graph.add("Slice", x, *places)
    return y


def _linear(graph: Any, terms: str) -> str:
    """Each feature's terms times its own weight, in ONNX: (n, columns, terms) to (n, columns, outputs)."""
    by_column = graph.add("Transpose", terms, perm=[1, 0, 2])
    y: str = graph.add("Transpose", graph.add("MatMul", by_column, graph.parameter("weight")), perm=[1, 0, 2])
    return y


LAYERS = (NumericEmbedding, Embedding)

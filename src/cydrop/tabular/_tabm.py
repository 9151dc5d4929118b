"""TabM: the network, and how it is trained (Gorishniy, Kotelnikov and Babenko 2025, arXiv 2410.24210).

    row:     numbers | indicators | one-hot columns | codes of categories
    network: Embedding -> NumericEmbedding -> Members(2 x (Dense -> ReLU -> Dropout) -> Dense)

Everything is a layer or an option of cydrop's own, so that any network may use a part of it; what the authors chose is
here. docs/tabm.md says why, part by part.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from cydrop._base import checks
from cydrop._run.core import core_of
from cydrop.layers import Dense, Dropout, Embedding, Layer, Members, NumericEmbedding, ReLU
from cydrop.layers.members import MOST_MEMBERS
from cydrop.network import Network
from cydrop.optimizers import AdamW
from cydrop.tabular._parameters import checked_metric, checked_smoothing, for_recipe, settings
from cydrop.tabular._preprocessing import Prepared
from cydrop.tabular._quantiles import QuantilePreprocessor, fitted_quantiles
from cydrop.tabular._recipe import Family, Recipe, Settings
from cydrop.tabular._table import Table

__all__ = ["TABM", "TabM"]

SHARINGS = ("mini", "tabm", "packed")
BATCHES = ("own", "shared")
BATCH_SIZES = (2_800, 32), (4_500, 64), (6_400, 128), (32_000, 256)  # below so many rows to train on; else:
LARGEST_BATCH = 512
CLIP_NORM = 1.0
LINES = {  # of the kinds of embeddings: parameters that do not decay, as biases do not
    "pbld": ("frequency", "phase", "bias"),
    "plr": ("frequency", "bias"),
    "piecewise_linear": ("slope", "bias"),
}


@dataclass(frozen=True)
class TabM(Recipe):
    """The defaults of the authors, and what may be chosen besides."""

    n_members: int
    sharing: str
    shared_masks: bool
    batches: str
    n_iter_no_change: int
    size: int | None = None  # numbers that a number becomes; None: as many as the kind of embedding has
    bins: int | None = None

    rungs = (0.01, 0.03)  # of 1000 epochs, of which few train all: 10 and 30
    drop_last = False
    ties = "first"
    clamped = False

    @property
    def patience(self) -> int:
        return self.n_iter_no_change

    def rows_of_batch(self, rows: int) -> int:
        if self.batch_size is not None:
            return self.batch_size
        return next((size for below, size in BATCH_SIZES if rows < below), LARGEST_BATCH)

    def fitted(self, table: Table) -> QuantilePreprocessor:
        return fitted_quantiles(table, self.max_onehot)

    def layers(self, table: Prepared, outputs: int) -> list[Layer]:
        """The layers for a prepared table.

        Parameters
        ----------
        table : Prepared
        outputs : int
            Classes, or targets.
        """
        found: list[Layer] = []
        if len(table.cardinalities):
            found.append(Embedding([int(k) for k in table.cardinalities], self.embedding_size))
        embedding = self._numeric_embedding(table)
        if embedding is not None:
            found.append(embedding)
        inner: list[Layer] = []
        for units in self.hidden_layer_sizes:
            inner += [self._dense(units), ReLU()]
            if self.dropout:
                inner.append(Dropout(self.dropout, shared="batch" if self.shared_masks else None))
        inner.append(self._dense(outputs))
        scales: dict[str, Any] = {}
        if self.sharing != "packed":
            scales["first_scale"] = "signs" if embedding is None else "normal"
            scales["scale_groups"] = self._groups(table, 1 if embedding is None else embedding.size)
        return [*found, Members(inner, self.n_members, sharing=self.sharing, batches=self.batches, **scales)]

    def _numeric_embedding(self, table: Prepared) -> NumericEmbedding | None:
        kind = self.numeric_embedding
        if not table.measured or kind is None:
            return None
        return NumericEmbedding(
            kind, columns=table.measured, size=self.size, bins=self.bins, decay_factor=dict.fromkeys(LINES[kind], 0.0)
        )

    def _groups(self, table: Prepared, size: int) -> list[int]:
        """Which of the columns that come to the members stand for the same thing: they begin with the same scale."""
        found = [group for group in table.groups[: table.measured] for _ in range(size)]
        found += table.groups[table.measured :]
        first = max(table.groups, default=-1) + 1
        return [
            *found,
            *(first + place for place in range(len(table.cardinalities)) for _ in range(self.embedding_size)),
        ]

    def _dense(self, units: int) -> Dense:
        return Dense(units, weight_init="torch_uniform", bias_init="torch_uniform", decay_factor={"bias": 0.0})

    def network(self, table: Prepared, outputs: int, seed: int) -> Network:
        """The network before its first step, with the bins of the embeddings taken from the rows.

        Parameters
        ----------
        table : Prepared
            The rows to train on.
        outputs : int
        seed : int
        """
        assert self.learning_rate_init is not None
        optimizer = AdamW(self.learning_rate_init, weight_decay=self.weight_decay, clip_norm=CLIP_NORM)
        layers = self.layers(table, outputs)
        net = Network(
            layers, loss=self.loss, optimizer=optimizer, seed=seed, n_threads=self.n_threads, precision=self.precision
        )
        net.build(table.rows.shape[1])
        for place, layer in enumerate(layers):
            if isinstance(layer, NumericEmbedding) and layer.bins is not None:
                edges = core_of(net).made("the bins of numbers").arrays()[f"{place}.edges"]
                edges[...] = layer.quantile_edges(table.numbers)
        return net


def checked(estimator: Any) -> Settings:
    """Every parameter but those that need the data, checked."""
    metric = checked_metric(estimator.metric, estimator.task)
    smoothing = checked_smoothing(estimator.label_smoothing, estimator.task)
    size = estimator.batch_size
    if isinstance(size, numbers.Real):
        size = checks.integer("batch_size", size, 1)
    else:
        checks.one_of("batch_size", size, ("auto",), "an integer")
        size = None
    checks.number("learning_rate_init", estimator.learning_rate_init, 0.0, low_open=True)
    recipe = TabM(
        **for_recipe(estimator, smoothing, size),
        n_members=checks.integer("n_members", estimator.n_members, 1, MOST_MEMBERS),
        sharing=checks.one_of("sharing", estimator.sharing, SHARINGS),
        shared_masks=checks.flag("shared_masks", estimator.shared_masks),
        batches=checks.one_of("batches", estimator.batches, BATCHES),
        n_iter_no_change=checks.integer("n_iter_no_change", estimator.n_iter_no_change, 1),
    )
    return settings(estimator, recipe, metric)


TABM = Family(checked, lambda estimator: False, QuantilePreprocessor)

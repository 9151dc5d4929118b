"""RealMLP: the network, and how it is trained (Holzmüller, Grinsztajn and Steinwart 2024, arXiv 2407.04491).

    row:     numbers | one-hot columns | codes of categories
    network: Embedding -> NumericEmbedding -> Scale -> 3 x (Dense -> Parametric -> Dropout) -> Dense

Everything is a layer, an option or a schedule of cydrop's own, so that any network may use a part of it; what the paper
chose is here. docs/realmlp.md says why, part by part.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from cydrop._base import checks, seeding
from cydrop._run.core import core_of
from cydrop.layers import Dense, Dropout, Embedding, Layer, NumericEmbedding, Parametric, Scale
from cydrop.losses import GaussianNLL, Pinball
from cydrop.network import Network
from cydrop.optimizers import AdamW
from cydrop.schedules import CosLog4, FlatCos
from cydrop.tabular._parameters import checked_metric, checked_smoothing, for_recipe, settings
from cydrop.tabular._preprocessing import Prepared, Preprocessor, fitted
from cydrop.tabular._recipe import CLASSES, NUMBERS, Family, Recipe, Settings
from cydrop.tabular._table import Table
from cydrop.xorshift import Xorshift

__all__ = ["REALMLP", "RealMLP"]

# of the paper's two recipes: (classes, numbers)
LEARNING_RATES = {"classes": (0.04, 0.04), "numbers": (0.2, 0.07)}  # TD, TD-S
QUANTILES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)  # several at once teach the layers before them more
ACTIVATIONS = {"classes": "selu", "numbers": "mish"}


@dataclass(frozen=True)
class RealMLP(Recipe):
    """TD, or (`small`) TD-S; and what only a search chooses.

    Attributes
    ----------
    chosen_activation : str or None
        None: the paper's for the task.
    beta2 : float
        Of Adam.
    frequencies, size, sigma : of `NumericEmbedding("pbld")`; None: its defaults
    embedding_factor, scale_factor, first_factor : float
        What multiplies the learning rate of the embedding of numbers, of the scale of each input, and of the first
        dense layer.
    """

    small: bool
    chosen_activation: str | None = None
    beta2: float = 0.95
    frequencies: int | None = None
    size: int | None = None
    sigma: float | None = None
    embedding_factor: float = 0.1
    scale_factor: float = 6.0
    first_factor: float = 1.0

    drop_last = True
    ties = "last"
    patience = None
    rungs = (1 / 15, 3 / 15, 7 / 15)  # of training, at which the learning rate is 0: the ends of its first three waves

    @property
    def activation(self) -> str:
        return self.chosen_activation or ACTIVATIONS[self.task]

    @property
    def learning_rate(self) -> float:
        """The greatest of training."""
        given = self.learning_rate_init
        kind = "classes" if isinstance(self.loss, GaussianNLL) else self.task  # logarithms of variances diverge at more
        return LEARNING_RATES[kind][self.small] if given is None else given

    @property
    def clamped(self) -> bool:
        return not self.small

    def rows_of_batch(self, rows: int) -> int:
        assert self.batch_size is not None
        return self.batch_size

    def fitted(self, table: Table) -> Preprocessor:
        return fitted(table, self.max_onehot, self.small)

    def layers(self, table: Prepared, outputs: int) -> list[Layer]:
        """The layers for a prepared table.

        Parameters
        ----------
        table : Prepared
        outputs : int
            Classes, or targets.
        """
        found = self._embeddings(table)
        found.append(Scale(learning_rate_factor=self.scale_factor, decay_factor=self.scale_factor))
        for number, units in enumerate(self.hidden_layer_sizes):
            factor = self.first_factor if number == 0 else 1.0
            if self.small:
                found.append(self._dense(units, self.activation))
                continue
            found.append(self._dense(units, factor=factor))
            found.append(Parametric(self.activation, learning_rate_factor=0.1, decay_factor=0.1))
            if self.dropout:
                found.append(Dropout(FlatCos(self.dropout)))
        return [*found, self._dense(outputs)]

    def _embeddings(self, table: Prepared) -> list[Layer]:
        found: list[Layer] = []
        if len(table.cardinalities):
            found.append(Embedding([int(k) for k in table.cardinalities], self.embedding_size))
        if table.measured and self.numeric_embedding is not None and not self.small:
            found.append(
                NumericEmbedding(
                    self.numeric_embedding, columns=table.measured, frequencies=self.frequencies, size=self.size,
                    sigma=self.sigma, learning_rate_factor=self.embedding_factor, decay_factor=self.embedding_factor,
                )
            )  # fmt: skip
        return found

    def _dense(self, units: int, activation: str | None = None, factor: float = 1.0) -> Dense:
        rates = {"bias": 0.1} if factor == 1.0 else {"weight": factor, "bias": 0.1 * factor}
        return Dense(
            units, activation=activation, parametrization="ntk", weight_init="lecun_normal", bias_init="zeros",
            learning_rate_factor=rates, decay_factor={"bias": 0.0},
        )  # fmt: skip

    def network(self, table: Prepared, outputs: int, seed: int) -> Network:
        """The network before its first step: initialised from the rows, or (small) at random.

        Parameters
        ----------
        table : Prepared
            The rows to train on.
        outputs : int
        seed : int
        """
        decay = 0.0 if self.small else self.weight_decay
        optimizer = AdamW(
            CosLog4(self.learning_rate), beta1=0.9, beta2=self.beta2, epsilon=1e-8,
            weight_decay=FlatCos(decay) if decay else 0.0,
        )  # fmt: skip
        net = Network(
            self.layers(table, outputs), loss=self.loss, optimizer=optimizer, seed=seed, n_threads=self.n_threads,
            precision=self.precision,
        )  # fmt: skip
        if self.small:
            return _begun_at_random(net.build(table.rows.shape[1]))
        return net.initialize(table.rows)


def _begun_at_random(net: Network) -> Network:
    """Biases from N(0, 1), and a last layer of zeros: predictions begin at 0."""
    parameters = net.parameters()
    last = max(int(name.partition(".")[0]) for name in parameters)
    generator = Xorshift(seeding.branch(core_of(net).root, seeding.BIASES))
    for name, view in parameters.items():
        if name.startswith(f"{last}."):
            view[...] = 0.0
        elif name.endswith(".bias"):
            view[...] = generator.normal(view.shape)
    return net


def checked(estimator: Any) -> Settings:
    """Every parameter but those that need the data, checked."""
    metric = checked_metric(estimator.metric, estimator.task)
    smoothing = estimator.label_smoothing
    if isinstance(smoothing, numbers.Real):
        smoothing = checked_smoothing(smoothing, estimator.task)
    else:
        checks.one_of("label_smoothing", smoothing, ("auto",), "a number")
        smoothing = 0.1 if metric == "error" and estimator.task == CLASSES else 0.0
    batch_size = checks.integer("batch_size", estimator.batch_size, 1)
    shared = for_recipe(estimator, smoothing, batch_size)
    if estimator.task == NUMBERS and estimator.loss == "pinball":
        shared["loss_of_numbers"] = Pinball(QUANTILES)
    return settings(estimator, RealMLP(**shared, small=checks.flag("small", estimator.small)), metric)


REALMLP = Family(checked, lambda estimator: not estimator.small, Preprocessor)

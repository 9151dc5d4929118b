"""RealMLP: the network, and how it is trained (Holzmüller, Grinsztajn and Steinwart 2024, arXiv 2407.04491).

    row:     numbers | one-hot columns | codes of categories
    network: Embedding -> NumericEmbedding -> Scale -> 3 x (Dense -> Parametric -> Dropout) -> Dense

Everything is a layer, an option or a schedule of cydrop's own, so that any network may use a part of it; what the paper
chose is here. docs/realmlp.md says why, part by part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop._base import seeding
from cydrop._base.arrays import Floats
from cydrop._run.core import core_of
from cydrop._run.prediction import evaluate
from cydrop._run.rows import checked_rows
from cydrop._run.state import Weights
from cydrop.callbacks import Callback
from cydrop.distributed import DataParallel
from cydrop.history import History
from cydrop.layers import Dense, Dropout, Embedding, Layer, NumericEmbedding, Parametric, Scale
from cydrop.losses import MSE, CrossEntropy, Loss
from cydrop.network import Network
from cydrop.optimizers import AdamW
from cydrop.schedules import CosLog4, FlatCos
from cydrop.tabular._preprocessing import Prepared
from cydrop.xorshift import Xorshift

__all__ = ["Recipe", "train_member"]

# of the paper's two recipes: (classes, numbers)
LEARNING_RATES = {"classes": (0.04, 0.04), "numbers": (0.2, 0.07)}  # TD, TD-S
ACTIVATIONS = {"classes": "selu", "numbers": "mish"}
WEIGHTLESS = 1e-6  # of all weight: so small a share of wrong rows counts as none


@dataclass(frozen=True)
class Recipe:
    """What a member is and how it is trained.

    Attributes
    ----------
    task : "classes" or "numbers"
    small : bool
        The paper's TD-S.
    The others are the estimators' parameters; label_smoothing is a number.
    """

    hidden_layer_sizes: tuple[int, ...]
    dropout: float
    max_iter: int
    batch_size: int
    learning_rate_init: float | None
    weight_decay: float
    label_smoothing: float
    numeric_embedding: str | None
    embedding_size: int
    small: bool
    n_threads: int | None
    verbose: bool | int
    task: str

    @property
    def activation(self) -> str:
        return ACTIVATIONS[self.task]

    @property
    def learning_rate(self) -> float:
        """The greatest of training."""
        given = self.learning_rate_init
        return LEARNING_RATES[self.task][self.small] if given is None else given

    @property
    def loss(self) -> Loss:
        return CrossEntropy(label_smoothing=self.label_smoothing) if self.task == "classes" else MSE()

    def layers(self, table: Prepared, outputs: int) -> list[Layer]:
        """The layers for a prepared table.

        Parameters
        ----------
        table : Prepared
        outputs : int
            Classes, or targets.
        """
        found = self._embeddings(table)
        found.append(Scale(learning_rate_factor=6.0, decay_factor=6.0))
        for units in self.hidden_layer_sizes:
            found.append(self._dense(units))
            if self.small:
                found[-1] = self._dense(units, self.activation)
                continue
            found.append(Parametric(self.activation, learning_rate_factor=0.1, decay_factor=0.1))
            if self.dropout:
                found.append(Dropout(FlatCos(self.dropout)))
        return [*found, self._dense(outputs)]

    def _embeddings(self, table: Prepared) -> list[Layer]:
        found: list[Layer] = []
        if len(table.cardinalities):
            found.append(Embedding([int(k) for k in table.cardinalities], self.embedding_size))
        if table.measured and self.numeric_embedding is not None and not self.small:
            kind, columns = self.numeric_embedding, table.measured
            found.append(NumericEmbedding(kind, columns=columns, learning_rate_factor=0.1, decay_factor=0.1))
        return found

    def _dense(self, units: int, activation: str | None = None) -> Dense:
        return Dense(
            units, activation=activation, parametrization="ntk", weight_init="lecun_normal", bias_init="zeros",
            learning_rate_factor={"bias": 0.1}, decay_factor={"bias": 0.0},
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
            CosLog4(self.learning_rate), beta1=0.9, beta2=0.95, epsilon=1e-8,
            weight_decay=FlatCos(decay) if decay else 0.0,
        )  # fmt: skip
        net = Network(
            self.layers(table, outputs), loss=self.loss, optimizer=optimizer, seed=seed, n_threads=self.n_threads
        )
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


class BestEpoch(Callback):
    """Keeps the epoch with the least validation error, of equal ones the latest, and puts it back at the end.

    Parameters
    ----------
    recipe : Recipe
    table : Prepared
        The validation rows.
    y : ndarray
        Their codes of classes, or standardised targets.
    weight : ndarray or None
    metric : "error" or "log_loss"
        The share of wrong classes or the RMSE, or the log-loss.

    Attributes
    ----------
    range : (low, high) or None
        What predictions of numbers are clamped to.
    """

    def __init__(
        self, recipe: Recipe, table: Prepared, y: NDArray[Any], weight: NDArray[Any] | None, metric: str
    ) -> None:
        self.recipe, self.metric, self.rows, self.y = recipe, metric, table.rows, y
        self.weight = None if weight is None or not weight.sum() > 0 else weight
        self.range: tuple[Floats, Floats] | None = None
        self.best, self.best_epoch = np.inf, 0
        # a row that weighs next to nothing does not choose between epochs
        self.equal = WEIGHTLESS if recipe.task == "classes" and metric == "error" else 0.0
        self._weights: Weights | None = None

    def error(self, network: Any) -> float:
        """The share of wrong classes, the log-loss, or the RMSE."""
        if self.metric == "log_loss":  # by the engine: NumPy's logarithm differs from machine to machine
            core = core_of(network)
            model = core.made("the log-loss")
            data = checked_rows(CrossEntropy(), model.plan.n_outputs, self.rows, self.y, self.weight, len(self.y))
            return evaluate(model, data, core.n_threads)["loss"]
        p = network.predict(self.rows)
        if self.recipe.task == "numbers":
            p = p if self.range is None else np.clip(p, *self.range)
            squares = ((p.astype(np.float64) - self.y) ** 2).mean(axis=1)
            return float(np.sqrt(np.average(squares, weights=self.weight)))
        return float(np.average(p.argmax(axis=1) != self.y, weights=self.weight))

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        found = metrics["val_error"] = self.error(network)
        if found <= self.best + self.equal:
            self._weights = core_of(network).made("the best epoch").weights.copy()
            self.best, self.best_epoch = min(found, self.best), epoch

    def on_train_end(self, network: Any) -> None:
        if self._weights is not None:
            core_of(network).put_back(self._weights)


def train_member(
    recipe: Recipe,
    table: Prepared,
    y: NDArray[Any],
    sample_weight: NDArray[Any] | None,
    valid: Prepared,
    y_valid: NDArray[Any],
    weight_valid: NDArray[Any] | None,
    seed: int,
    metric: str,
    parallel: DataParallel | None = None,
    callbacks: Sequence[Callback] = (),
) -> tuple[Network, History]:
    """Trains one network.

    Parameters
    ----------
    recipe : Recipe
    table, valid : Prepared
        The rows to train on, and those that choose the epoch.
    y, y_valid : ndarray
        Codes of the classes, (n,), or standardised targets, (n, targets) float32.
    sample_weight, weight_valid : ndarray (n,) or None
    seed : int
    metric : "error" or "log_loss"
        What the epoch is chosen by.
    parallel : DataParallel or None
    callbacks : sequence of Callback

    Returns
    -------
    Network, History
        As after the best epoch; all epochs, with "val_error".
    """
    outputs = max(2, int(y.max()) + 1) if recipe.task == "classes" else y.shape[1]  # cross-entropy has two at least
    net = recipe.network(table, outputs, seed)
    best = BestEpoch(recipe, valid, y_valid, weight_valid, metric)
    if recipe.task == "numbers" and not recipe.small:
        best.range = y.min(axis=0), y.max(axis=0)
    history = net.fit(
        table.rows, y, epochs=recipe.max_iter, batch_size=recipe.batch_size, drop_last=True,
        sample_weight=sample_weight, callbacks=[best, *callbacks], verbose=int(bool(recipe.verbose)),
        parallel=parallel,
    )  # fmt: skip
    return net, history

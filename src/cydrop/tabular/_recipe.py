"""How one network is trained, whatever its recipe: the epoch is chosen by held-out rows.

    Recipe: prepares the columns, makes the network -> fit, with an error of the held-out rows after each epoch -> best

`cydrop.tabular._realmlp` and `cydrop.tabular._tabm` are the recipes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cydrop._base.arrays import Floats
from cydrop._core.losses import VERDICTS, verdict
from cydrop._run.core import core_of
from cydrop._run.prediction import evaluate, predict
from cydrop._run.rows import NO_FLOATS, NO_LABELS, NO_MATRIX, checked_rows
from cydrop.callbacks import Callback, EarlyStopping
from cydrop.distributed import DataParallel
from cydrop.history import History
from cydrop.losses import MSE, CrossEntropy, Loss
from cydrop.network import Network
from cydrop.tabular._preprocessing import Prepared, Preprocessor
from cydrop.tabular._quantiles import QuantilePreprocessor
from cydrop.tabular._table import Table

__all__ = ["AnyPreprocessor", "Family", "HeldOut", "Member", "Recipe", "Settings", "train_member"]

AnyPreprocessor: TypeAlias = Preprocessor | QuantilePreprocessor

CLASSES, NUMBERS = "classes", "numbers"


@dataclass(frozen=True)
class Recipe(ABC):
    """What a network is and how it is trained.

    Attributes
    ----------
    task : "classes" or "numbers"
    The others are the estimators' parameters; label_smoothing is a number.
    """

    task: str
    hidden_layer_sizes: tuple[int, ...]
    dropout: float
    max_iter: int
    batch_size: int | None  # None: by the number of rows
    learning_rate_init: float | None
    weight_decay: float
    label_smoothing: float
    numeric_embedding: str | None
    max_onehot: int
    embedding_size: int
    n_threads: int | None
    precision: str
    loss_of_numbers: Loss

    drop_last: ClassVar[bool]  # whether rows that do not fill a last batch sit out the epoch
    ties: ClassVar[str]  # which of several equally good epochs is kept
    rungs: ClassVar[tuple[float, ...]]  # shares of training after which a search compares

    @property
    def loss(self) -> Loss:
        return CrossEntropy(label_smoothing=self.label_smoothing) if self.task == CLASSES else self.loss_of_numbers

    @property
    @abstractmethod
    def patience(self) -> int | None:
        """Epochs without a better one, after which training ends."""

    @property
    @abstractmethod
    def clamped(self) -> bool:
        """Whether predictions of numbers stay in the range of the training targets."""

    @abstractmethod
    def rows_of_batch(self, rows: int) -> int:
        """How many rows a batch has where there are so many to train on."""

    @abstractmethod
    def fitted(self, table: Table) -> AnyPreprocessor:
        """What makes a network's input of a table, learned from the training rows."""

    @abstractmethod
    def network(self, table: Prepared, outputs: int, seed: int) -> Network:
        """The network before its first step.

        Parameters
        ----------
        table : Prepared
            The rows to train on.
        outputs : int
            Classes, or targets.
        seed : int
        """


@dataclass(frozen=True)
class Settings:
    """The constructor's parameters, checked."""

    recipe: Recipe
    metric: str
    validation_fraction: float
    calibration_fraction: float
    n_ensemble: int
    n_folds: int
    n_threads: int
    verbose: bool


class Family(NamedTuple):
    """What the estimators of a recipe have in common."""

    checked: Callable[[Any], Settings]  # of an estimator; every parameter but those that need the data
    clamped: Callable[[Any], bool]  # whether a regressor's predictions stay in the range of the training targets
    preprocessor: type[AnyPreprocessor]


class HeldOut(Callback):
    """Puts "val_error", how wrong the network is about the validation rows, into the values of each epoch: the share of
    wrong classes, the log-loss, or of numbers the RMSE or a loss of theirs.

    Parameters
    ----------
    recipe : Recipe
    table : Prepared
        The validation rows.
    y : ndarray
        Their codes of classes, or standardised targets.
    weight : ndarray or None
    metric : "error" or "log_loss"
        Whether classes are judged by their order or their probabilities.

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

    def error(self, network: Any) -> float:
        """As in the class."""
        if self.metric == "log_loss":  # by the engine: NumPy's logarithm differs from machine to machine
            return self._loss(network, CrossEntropy())
        if self.recipe.task == NUMBERS and not isinstance(self.recipe.loss, MSE):
            return self._loss(network, self.recipe.loss)
        z = predict(core_of(network).made("the error"), self.rows, False)
        weight = NO_FLOATS if self.weight is None else np.asarray(self.weight, dtype=np.float32)
        if self.recipe.task == NUMBERS:
            low, high = (NO_FLOATS, NO_FLOATS) if self.range is None else self.range
            return verdict(VERDICTS.index("root_mean_square"), z, NO_LABELS, self.y, weight, low, high)
        labels = self.y.astype(np.int32)
        return verdict(VERDICTS.index("share_wrong"), z, labels, NO_MATRIX, weight, NO_FLOATS, NO_FLOATS)

    def _loss(self, network: Any, loss: Loss) -> float:
        core = core_of(network)
        model = core.made("the loss")
        data = checked_rows(loss, model.plan.n_outputs, self.rows, self.y, self.weight, len(self.y))
        return evaluate(model, data, core.n_threads)["loss"]

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        metrics["val_error"] = self.error(network)


@dataclass(frozen=True)
class Member:
    """A trained network."""

    network: Network  # as after the best epoch
    history: History  # of all epochs, with "val_error"
    best_epoch: int  # counted from 1


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
) -> Member:
    """Trains one network, and puts its best epoch back; of equally good ones the first or the latest (`Recipe.ties`).

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
    Member
    """
    # cross-entropy has two at least
    outputs = max(2, int(y.max()) + 1) if recipe.task == CLASSES else recipe.loss.units(y.shape[1])
    net = recipe.network(table, outputs, seed)
    held_out = HeldOut(recipe, valid, y_valid, weight_valid, metric)
    if recipe.task == NUMBERS and recipe.clamped:
        held_out.range = y.min(axis=0), y.max(axis=0)
    best = EarlyStopping("val_error", patience=recipe.patience, mode="min", ties=recipe.ties)
    history = net.fit(
        table.rows, y, epochs=recipe.max_iter, batch_size=recipe.rows_of_batch(len(table)),
        drop_last=recipe.drop_last, sample_weight=sample_weight, callbacks=[held_out, best, *callbacks],
        verbose=0, parallel=parallel,
    )  # fmt: skip
    return Member(net, history, best.best_epoch)

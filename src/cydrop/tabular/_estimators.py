"""The estimators: RealMLP and TabM, for classes and for numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cydrop._base.naming import named_after_class
from cydrop.tabular import _files
from cydrop.tabular._documentation import documented
from cydrop.tabular._estimator import TableClassifier, TableRegressor
from cydrop.tabular._parameters import keep
from cydrop.tabular._realmlp import REALMLP
from cydrop.tabular._tabm import TABM


@named_after_class
@documented("RealMLP", "classifier")
class RealMLPClassifier(TableClassifier):
    """Classifier for tables as they are: RealMLP, a dropout network with tuned defaults (Holzmüller, Grinsztajn and
    Steinwart 2024).

    Labels may be of any type that can be sorted. Minimises the cross-entropy.
    """

    family = REALMLP

    def __init__(
        self,
        *,
        hidden_layer_sizes: int | Sequence[int] = (256, 256, 256),
        dropout: float = 0.15,
        max_iter: int = 256,
        batch_size: int = 256,
        learning_rate_init: float | None = None,
        weight_decay: float = 0.02,
        label_smoothing: float | str = "auto",
        metric: str = "error",
        numeric_embedding: str | None = "pbld",
        max_onehot: int = 8,
        embedding_size: int = 8,
        categorical_features: Any = "from_dtype",
        validation_fraction: float = 0.2,
        calibration_fraction: float = 0.0,
        n_ensemble: int = 1,
        n_folds: int = 1,
        small: bool = False,
        class_weight: Any = None,
        random_state: Any = None,
        n_threads: int | None = None,
        precision: str = "float32",
        verbose: bool | int = False,
    ) -> None:
        keep(self, locals())


@named_after_class
@documented("RealMLP", "regressor")
class RealMLPRegressor(TableRegressor):
    """Regressor for tables as they are: RealMLP, a dropout network with tuned defaults (Holzmüller, Grinsztajn and
    Steinwart 2024).

    One target, or several at once. Minimises the mean squared error of the standardised targets; predictions stay in
    the range of the training targets (not with `small=True`).
    """

    family = REALMLP

    def __init__(
        self,
        *,
        hidden_layer_sizes: int | Sequence[int] = (256, 256, 256),
        dropout: float = 0.15,
        max_iter: int = 256,
        batch_size: int = 256,
        learning_rate_init: float | None = None,
        weight_decay: float = 0.02,
        loss: Any = "squared_error",
        label_smoothing: float | str = "auto",
        metric: str = "error",
        numeric_embedding: str | None = "pbld",
        max_onehot: int = 8,
        embedding_size: int = 8,
        categorical_features: Any = "from_dtype",
        validation_fraction: float = 0.2,
        calibration_fraction: float = 0.0,
        n_ensemble: int = 1,
        n_folds: int = 1,
        small: bool = False,
        random_state: Any = None,
        n_threads: int | None = None,
        precision: str = "float32",
        verbose: bool | int = False,
    ) -> None:
        keep(self, locals())


@named_after_class
@documented("TabM", "classifier")
class TabMClassifier(TableClassifier):
    """Classifier for tables as they are: TabM, many dropout networks in one (Gorishniy, Kotelnikov and Babenko 2025).

    Labels may be of any type that can be sorted. Minimises the mean of the members' cross-entropies.
    """

    family = TABM

    def __init__(
        self,
        *,
        n_members: int = 32,
        sharing: str = "mini",
        hidden_layer_sizes: int | Sequence[int] = (512, 512),
        dropout: float = 0.1,
        shared_masks: bool = False,
        numeric_embedding: str | None = "piecewise_linear",
        max_iter: int = 1000,
        n_iter_no_change: int = 16,
        batch_size: int | str = "auto",
        batches: str = "own",
        learning_rate_init: float = 2e-3,
        weight_decay: float = 3e-4,
        label_smoothing: float = 0.0,
        metric: str = "error",
        max_onehot: int = 256,
        embedding_size: int = 16,
        categorical_features: Any = "from_dtype",
        validation_fraction: float = 0.2,
        calibration_fraction: float = 0.0,
        n_ensemble: int = 1,
        n_folds: int = 1,
        class_weight: Any = None,
        random_state: Any = None,
        n_threads: int | None = None,
        precision: str = "float32",
        verbose: bool | int = False,
    ) -> None:
        keep(self, locals())


@named_after_class
@documented("TabM", "regressor")
class TabMRegressor(TableRegressor):
    """Regressor for tables as they are: TabM, many dropout networks in one (Gorishniy, Kotelnikov and Babenko 2025).

    One target, or several at once. Minimises the mean of the members' losses of the standardised targets.
    """

    family = TABM

    def __init__(
        self,
        *,
        n_members: int = 32,
        sharing: str = "mini",
        hidden_layer_sizes: int | Sequence[int] = (512, 512),
        dropout: float = 0.1,
        shared_masks: bool = False,
        numeric_embedding: str | None = "piecewise_linear",
        max_iter: int = 1000,
        n_iter_no_change: int = 16,
        batch_size: int | str = "auto",
        batches: str = "own",
        learning_rate_init: float = 2e-3,
        weight_decay: float = 3e-4,
        loss: Any = "squared_error",
        label_smoothing: float = 0.0,
        metric: str = "error",
        max_onehot: int = 256,
        embedding_size: int = 16,
        categorical_features: Any = "from_dtype",
        validation_fraction: float = 0.2,
        calibration_fraction: float = 0.0,
        n_ensemble: int = 1,
        n_folds: int = 1,
        random_state: Any = None,
        n_threads: int | None = None,
        precision: str = "float32",
        verbose: bool | int = False,
    ) -> None:
        keep(self, locals())


_files.KNOWN.update({cls.__name__: cls for cls in (RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor)})


def load(path: Any, *, n_threads: int | None = None) -> Any:
    """Reads an estimator that its `save` wrote. Predictions have the same bits.

    Parameters
    ----------
    path : str or path-like
    n_threads : int or None
        As for the estimators; a file does not say on how many threads it was trained.

    Returns
    -------
    RealMLPClassifier, RealMLPRegressor, TabMClassifier or TabMRegressor
        Fitted, with the parameters that it was made with; a `random_state` that was no int is None.

    Raises
    ------
    ValueError
        For a file that is damaged, cut off or not of such an estimator.
    OSError
        When it cannot be read.
    """
    return _files.load(path, n_threads)

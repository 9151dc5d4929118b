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


@named_after_class
@documented(
    kind="classifier",
    smoothing="""
        Share of the label that is spread over all classes. "auto" is 0.1 with metric="error" and 0 with
        metric="log_loss": smoothing makes fewer errors, but worse probabilities.""",
    metric="""
        What the best epoch is chosen by; of equally good ones the latest. "error" (the share of wrong labels) where
        labels count, "log_loss" where probabilities, or the order of rows by them (AUC), do.""",
    error='the share of wrong labels, or with metric="log_loss" the log-loss.',
    parameters="""
    class_weight : dict, "balanced" or None
        Weights of the classes, {label: weight}, above 0; a class that is not named has weight 1. "balanced" gives all
        classes the same weight in sum: n_samples / (n_classes * rows of the class), each row counted by its
        sample_weight.
""",
    attributes="""
    classes_ : ndarray
        The labels, sorted.
""",
)  # fmt: skip
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
        n_ensemble: int = 1,
        n_folds: int = 1,
        small: bool = False,
        class_weight: Any = None,
        random_state: Any = None,
        n_threads: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        keep(self, locals())


@named_after_class
@documented(
    kind="regressor",
    smoothing="""
        For classifiers; here "auto" and 0 are allowed, and change nothing.""",
    metric="""
        Only "error", the RMSE; with several targets, each in units of its standard deviation.""",
    error="the RMSE, of each target in units of its standard deviation.",
    parameters="",
    attributes="",
)
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
        label_smoothing: float | str = "auto",
        metric: str = "error",
        numeric_embedding: str | None = "pbld",
        max_onehot: int = 8,
        embedding_size: int = 8,
        categorical_features: Any = "from_dtype",
        validation_fraction: float = 0.2,
        n_ensemble: int = 1,
        n_folds: int = 1,
        small: bool = False,
        random_state: Any = None,
        n_threads: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        keep(self, locals())


_files.KNOWN.update({cls.__name__: cls for cls in (RealMLPClassifier, RealMLPRegressor)})


def load(path: Any, *, n_threads: int | None = None) -> Any:
    """Reads an estimator that its `save` wrote. Predictions have the same bits.

    Parameters
    ----------
    path : str or path-like
    n_threads : int or None
        As for the estimators; a file does not say on how many threads it was trained.

    Returns
    -------
    RealMLPClassifier or RealMLPRegressor
        Fitted, with the parameters that it was made with; a `random_state` that was no int is None.

    Raises
    ------
    ValueError
        For a file that is damaged, cut off or not of such an estimator.
    OSError
        When it cannot be read.
    """
    return _files.load(path, n_threads)

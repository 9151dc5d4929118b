"""The classifier, and what makes its task one: labels, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from cydrop import losses
from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._base.naming import named_after_class
from cydrop.calibration import Prediction, Sets
from cydrop.monte_carlo import MonteCarlo
from cydrop.sklearn._base import MLP, outputs
from cydrop.sklearn._data import Data
from cydrop.sklearn._documentation import documented
from cydrop.sklearn._parameters import keep
from cydrop.sklearn._task import Task, quantiles
from cydrop.sklearn._training import goes_on, train


@named_after_class
@documented(
    parameters="""
    class_weight : dict, "balanced" or None
        Weights of the classes, {label: weight}; what is not named has 1. "balanced" gives all classes the same weight:
        n_samples / (n_classes * rows of the class), each row counted by its sample_weight. Of several labels a list of
        dicts, one for each, or "balanced"; their factors are multiplied.
""",
    score="Accuracy",
    stratified=", stratified by class where each class has two rows",
    predict="predict_set",
    attributes="""
    classes_ : ndarray
        The labels, sorted; of several labels their columns, 0 and up.
""",
)
class MLPClassifier(ClassifierMixin, Sets, MLP):
    """A multi-layer perceptron classifier with dropout: scikit-learn's `MLPClassifier` on cydrop.

    Two classes or several, or several labels at once (y of 0 and 1, shape (n_samples, n_outputs)). Labels may be of any
    type that can be sorted. Minimises the cross-entropy (Srivastava et al. 2014 for dropout).
    """

    _several: bool  # labels at once; this name is in pickles

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float | Sequence[float] = 0.0,
        dropout_mode: str = "inverted",
        dropout_schedule: Callable[[float], float] | None = None,
        max_norm: float | None = None,
        class_weight: Any = None,
        n_threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        keep(self, locals())

    def _task(self) -> Task:
        return Classification(self)

    @available_if(goes_on)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> MLPClassifier:
        """One pass over the rows; a further call goes on from there, with the parameters as they are then.
        `early_stopping` plays no part.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array-like or None
            All classes that will ever occur; needed in the first call.

        Returns
        -------
        self

        Raises
        ------
        AttributeError
            With solver="lbfgs".
        ValueError, TypeError, DivergedError
            As for `fit`; also for a `dropout_schedule`, and for class_weight="balanced", which needs all rows at once.
        """
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be given in the first call of partial_fit: all that will ever come")
        if known is not None and classes is not None and not np.array_equal(known, np.unique(np.asarray(classes))):
            raise ValueError(f"classes={classes!r} are not those of the calls before, {known}")
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight={self.class_weight!r} needs all rows at once; give partial_fit a dict, "
                "or sample_weight, instead"
            )
        return train(self._task(), X, y, sample_weight, incremental=True, classes=classes)

    def _places(self, output: NDArray[Any]) -> NDArray[np.intp]:
        """The place in `classes_` of each row's most probable class."""
        if output.shape[1] > 1:
            return output.argmax(axis=1)
        return np.minimum(output[:, 0] > 0.5, len(self.classes_) - 1).astype(np.intp)

    def _expanded(self, p: NDArray[Any]) -> NDArray[Any]:
        """Probabilities of the classes in the last dimension: one output of two classes becomes two columns."""
        if self._several or p.shape[-1] > 1:
            return p
        return np.concatenate([1.0 - p, p], axis=-1)[..., : len(self.classes_)]

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,), of the type of the labels; for several labels 0 and 1, (n_samples, n_outputs)
        """
        output = outputs(self, X)
        if self._several:
            return (output > 0.5).astype(np.int64)
        return np.asarray(self.classes_[self._places(output)])

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The raw outputs, before softmax or sigmoid: what calibration works on best (Platt 1999).

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes); for two classes (n_samples,), above 0 for the second
        """
        z = outputs(self, X, raw=True)
        if z.shape[1] > 1 or self._several:
            return z
        return z[:, 0] if len(self.classes_) > 1 else np.zeros(len(z))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
            In the order of `classes_`; rows sum to 1. For several labels that of each one, (n_samples, n_outputs).
        """
        p = self._expanded(outputs(self, X))
        return p if self._several else p / p.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """The logarithm of `predict_proba`, computed from the raw outputs: finite where the probability rounds to 0.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape of `predict_proba`
        """
        z = outputs(self, X, raw=True)
        if z.shape[1] > 1 and not self._several:
            return np.asarray(special.log_softmax(z, axis=1))
        if self._several:
            return np.asarray(special.log_expit(z))
        both = np.concatenate([special.log_expit(-z), special.log_expit(z)], axis=1)
        return both if len(self.classes_) > 1 else np.zeros_like(z)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class Classification(Task):
    """Of `classes_`, which are codes to the network, or of several labels, each 0 or 1."""

    estimator: MLPClassifier
    numeric = False

    @property
    def softmax(self) -> bool:
        """Whether the network has one output per class."""
        return not self.estimator._several and len(self.estimator.classes_) > 2

    def encoded(self, y: NDArray[Any], fresh: bool, classes: ArrayLike | None = None, name: str = "y") -> NDArray[Any]:
        check_classification_targets(y)
        kind = type_of_target(y, input_name=name)
        if kind == "multiclass-multioutput":
            raise ValueError(
                f"{name} of shape {y.shape} has several columns of classes; 0 and 1 for several labels will do"
            )
        several = bool(y.ndim == 2)
        if fresh:
            found = np.arange(y.shape[1]) if several else np.unique(y)
            self.estimator.classes_ = found if classes is None or several else np.unique(np.asarray(classes))
            self.estimator._several = several
        known = self.estimator.classes_
        if several != self.estimator._several or (several and y.shape[1] != len(known)):
            raise ValueError(f"{name} has shape {y.shape}, the estimator was fitted for {len(known)} classes or labels")
        if several:
            return y.astype(np.float32)
        unknown = np.setdiff1d(y, known)
        if len(unknown):
            raise ValueError(f"{name} has classes {unknown} that are not among the known ones, {known}")
        codes = np.searchsorted(known, y).astype(np.int32)
        return codes if self.softmax else codes.astype(np.float32)

    def loss(self) -> tuple[losses.Loss, float]:
        if self.softmax:
            return losses.CrossEntropy(), 1.0
        return losses.BinaryCrossEntropy(), float(len(self.estimator.classes_)) if self.estimator._several else 1.0

    def out_activation(self) -> str:
        return "softmax" if self.softmax else "logistic"

    def n_outputs(self, data: Data) -> int:
        return len(self.estimator.classes_) if self.softmax or self.estimator._several else 1

    def judge(self, output: Floats, data: Data) -> tuple[float, float]:
        if data.target.dtype.kind == "i":
            hit = output.argmax(axis=1) == data.target
            chosen = output[np.arange(len(output)), data.target][:, None]
        else:
            target = data.target.reshape(output.shape)
            hit = ((output > 0.5) == target).all(axis=1)
            chosen = np.where(target > 0.5, output, 1.0 - output)
        gain = np.log(np.maximum(chosen, np.float32(1e-7))).sum(axis=1)
        return float(np.average(hit, weights=data.weight)), float(np.average(gain, weights=data.weight))

    @property
    def calibrates(self) -> bool:  # type: ignore[override]
        return not self.estimator._several

    def said(self, X: Floats) -> Prediction:
        p = self.estimator._expanded(self.estimator.network_.predict(X).astype(np.float64))
        return Prediction(p / p.sum(axis=1, keepdims=True))

    def known(self, target: NDArray[Any]) -> NDArray[Any]:
        return target.astype(np.intp)

    def class_weights(self, y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64] | float:
        given = self.estimator.class_weight
        if given is None:
            return 1.0
        if isinstance(given, str):
            checks.one_of("class_weight", given, ("balanced",), "a dict of labels and weights", "None")
            return np.prod([_balanced(column, weight) for column in y.reshape(len(y), -1).T], axis=0)
        if self.estimator._several:
            found = np.asarray(compute_sample_weight(given, y))
            if not (np.isfinite(found) & (found >= 0)).all():
                raise ValueError(f"class_weight must have finite weights of at least 0, got {given!r}")
            return found
        if not isinstance(given, Mapping):
            raise TypeError(f"class_weight must be a dict of labels and weights, 'balanced' or None, got {given!r}")
        known = self.estimator.classes_.tolist()
        if not given.keys() <= set(known) and not set(known) <= given.keys():
            unknown = [label for label in given if label not in known]
            raise ValueError(f"class_weight names {unknown}, which are no labels of y: y has {known}")
        of_class = [checks.number(f"class_weight[{label!r}]", given.get(label, 1.0), 0.0) for label in known]
        return np.array(of_class)[np.searchsorted(self.estimator.classes_, y)]

    def strata(self, data: Data, smaller: int) -> NDArray[Any] | None:
        if self.estimator._several:
            return None
        sizes = np.unique(data.target, return_counts=True)[1]
        return data.target if sizes.min() >= 2 and smaller >= len(sizes) else None

    def shaped(self, mc: MonteCarlo, levels: NDArray[np.float64] | None, keep: bool) -> MonteCarlo:
        def of_rows(array: Floats | None) -> Floats | None:
            return array if array is None or self.estimator._several else array.reshape(len(array))

        mean = self.estimator._expanded(mc.mean)
        samples = None if mc.samples is None else self.estimator._expanded(mc.samples)
        return MonteCarlo(
            mean=mean,
            std=np.repeat(mc.std, mean.shape[1] // mc.std.shape[1], axis=1),
            entropy=of_rows(mc.entropy),
            mutual_information=of_rows(mc.mutual_information),
            quantiles=None if levels is None else quantiles(samples, levels),
            samples=samples if keep else None,
            total=of_rows(mc.total),
            aleatoric=of_rows(mc.aleatoric),
            epistemic=of_rows(mc.epistemic),
            n_samples=mc.n_samples,
        )


def _balanced(labels: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """A factor for each row that makes the classes' weights equal: a row of weight 2 counts as two, of 0 as none."""
    codes = np.unique(labels, return_inverse=True)[1].ravel()
    sums = np.bincount(codes, weights=weight)
    factors = weight.sum() / (np.count_nonzero(sums) * np.where(sums > 0, sums, 1.0))
    return np.asarray(factors[codes])

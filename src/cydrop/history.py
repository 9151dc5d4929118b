"""What happened in training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from cydrop._base import checks


class History:
    """The values of every epoch.

    Attributes
    ----------
    metrics : dict of str to list of float
        One value an epoch: `loss` (as trained: dropout on, averaged while the weights moved), `accuracy` for
        classifiers, `val_loss`, `val_accuracy` with validation data, `clean_loss`, `clean_accuracy` of the training
        rows with dropout off (`fit(clean_metrics=True)`), `learning_rate` where it is a schedule, has changed, or
        may be changed by `callbacks.ReduceLROnPlateau`, and the rate of each scheduled layer (`"2.rate"`, `"0.std"`,
        `"1.drop_connect"`, by its place in the list; its last value in the epoch), `seconds` of training, validation
        not included; and what callbacks put into their `metrics`. A metric that begins late is NaN before.

    Examples
    --------
    >>> import cydrop as cd
    >>> history = cd.History({"loss": [0.9, 0.5, 0.4], "val_loss": [0.8, 0.6, 0.7]})
    >>> history
    History(3 epochs; last: loss=0.4, val_loss=0.7)
    >>> history.best("val_loss")
    (2, 0.6)

    `pandas.DataFrame(history.metrics)` is a table with a row an epoch.
    """

    def __init__(self, metrics: dict[str, list[float]] | None = None) -> None:
        self.metrics: dict[str, list[float]] = {} if metrics is None else metrics

    def append(self, epoch: dict[str, float]) -> None:
        """Adds the values of one epoch; all of them, or after an interrupt none."""
        values = {name: _number(name, value) for name, value in epoch.items()}
        self._set(len(self), dict.fromkeys(self.metrics, math.nan) | values)

    def amend(self, metrics: Mapping[str, float]) -> None:
        """Sets the values of the last epoch; `fit` does so with what callbacks put into their `metrics`.

        All of them, or after an error or an interrupt none. A metric that is new is NaN in the epochs before; those of
        the history that are not in `metrics` stay as they are.

        Parameters
        ----------
        metrics : mapping of str to float

        Raises
        ------
        TypeError
            For a value that is not a number, or a name that is not a text; it is named.
        ValueError
            For a history without an epoch.
        """
        values = {name: _number(name, value) for name, value in metrics.items()}
        if not len(self):
            raise ValueError("the history has no epoch whose values could be set: none has ended")
        self._set(len(self) - 1, values)

    def _set(self, epoch: int, values: dict[str, float]) -> None:
        """Sets values of an epoch, counted from 0, of the last one or of one more: all of them, or none."""
        before = {name: (len(column), column[epoch:]) for name, column in self.metrics.items() if name in values}
        try:
            for name, value in values.items():
                column = self.metrics.setdefault(name, [])
                column.extend([math.nan] * (epoch - len(column)))
                column[epoch:] = [value]
        except BaseException:
            for name in values:
                if name in before:
                    length, rest = before[name]
                    self.metrics[name][min(epoch, length) :] = rest
                else:
                    self.metrics.pop(name, None)
            raise

    def begin(self, name: str, value: float) -> None:
        """Records from now on a metric that was `value` in all epochs so far; one that is there stays as it is."""
        self.metrics.setdefault(name, [float(value)] * len(self))

    def best(self, monitor: str = "val_loss", mode: str = "auto") -> tuple[int, float]:
        """The best epoch by a metric.

        Parameters
        ----------
        monitor : str
            A metric of the history.
        mode : "auto", "min" or "max"
            Whether less or more is better; "auto" knows it by the name of the metric, as far as that is a usual one.

        Returns
        -------
        epoch : int
            Counted from 1; the first of several equally good ones.
        value : float

        Raises
        ------
        ValueError
            For a metric that is not there or has no value but NaN; and, without `mode`, for one whose name does not say
            whether less or more of it is better.
        """
        values = self.metrics.get(monitor, []) if isinstance(monitor, str) else []
        ranked = [(value, -epoch) for epoch, value in enumerate(values, 1) if not math.isnan(value)]
        if not ranked and isinstance(monitor, str):
            known = ", ".join(name for name, values in self.metrics.items() if values) or "none, no epoch has ended"
            raise ValueError(f"monitor={monitor!r} has no values; the metrics are {known}")
        if lower_is_better(monitor, mode):
            ranked = [(-value, epoch) for value, epoch in ranked]
        epoch = -max(ranked)[1]
        return epoch, values[epoch - 1]

    def __len__(self) -> int:
        return max((len(values) for values in self.metrics.values()), default=0)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.metrics.items() if values)
        return f"History({len(self)} epoch{'' if len(self) == 1 else 's'}{'; last: ' + last if last else ''})"

    def plot(self, ax: Any = None, *, metric: str = "loss") -> Any:
        """Draws a metric over the epochs: in training, in training with dropout off, and in validation.

        Short for `cydrop.plot.learning_curves(history, metric=metric, ax=ax)`.

        Parameters
        ----------
        ax : matplotlib axes or None
            Where to draw; None makes a figure.
        metric : str
            "loss", "accuracy", "rmse", ..., without ``val_`` or ``clean_``.

        Returns
        -------
        matplotlib axes

        Raises
        ------
        ValueError
            For an empty history, or a metric that it does not have.
        ImportError
            Without matplotlib (`pip install "cydrop[plot]"`).
        """
        from cydrop import plot

        return plot.learning_curves(self, metric=metric, ax=ax)


# Which way is better ------------------------------------------------------------------------------------------

# Names as they are usual in scikit-learn, Keras, torchmetrics and the literature. What counts is the end of a metric's
# name: "val_" and the like do not matter, "my_f1" is known by "f1", "brier_score" by more than "score".
_GROW = """
accuracy acc auc auroc aucroc auprc aucpr roc_auc pr_auc ap average_precision map mean_average_precision precision ppv
npv recall sensitivity specificity tpr tnr true_positive_rate true_negative_rate hit_rate f1 f2 f_beta fbeta f_score
f_measure g_mean gmean r2 d2 score kappa qwk mcc corrcoef corr_coef correlation corr pearson pearsonr spearman spearmanr
kendall_tau concordance c_index concordance_index iou miou jaccard jaccard_index dice dice_coefficient ndcg dcg mrr
likelihood loglikelihood explained_variance elbo bleu psnr ssim youden informedness reward
"""
_FALL = """
loss error err mse rmse mae mape smape wape mase msle rmsle mdae medae sse rss nll logloss mlogloss
crossentropy cross_entropy xent bce brier brier_score ece mce deviance perplexity ppl hinge huber logcosh log_cosh
poisson kl kld kl_divergence divergence js_divergence crps pinball interval_score winkler_score energy_score distance
emd hamming davies_bouldin error_rate err_rate fpr fnr false_positive_rate false_negative_rate false_discovery_rate
misclassification wer cer fid aic bic cost regret risk seconds time duration latency
"""
_LOWER_IS_BETTER = dict.fromkeys(_GROW.split(), False) | dict.fromkeys(_FALL.split(), True)

# At the end of a name: averages ("f1_macro"), cuts ("ndcg@10", "precision_at_5"), Keras's numbers ("auc_1"), and where
# on a curve it is ("fpr_at_95_tpr", "recall_at_precision").
_BEHIND = re.compile(r"_(macro|micro|weighted|samples|binary|mean|avg|average|ovr|ovo|\d+|at_.*)$")
_OPPOSITE = re.compile(r"\s*(1|100|one)\s*-|.*(^|[^a-z])minus[^a-z]", re.IGNORECASE)  # "1 - accuracy": who knows
_BEFORE = re.compile(r"^(val|valid|validation|clean|train|training|test|dev|eval)_")


def lower_is_better(monitor: str, mode: str = "auto") -> bool:
    """Which way a metric shall go: "min", "max", or by its name; ValueError where that says nothing."""
    if not isinstance(monitor, str):
        raise TypeError(f"monitor must be the name of a metric, got {monitor!r} ({type(monitor).__name__})")
    by_mode = checks.choice("mode", mode, {"auto": None, "min": True, "max": False})
    by_name = lower_by_name(monitor) if by_mode is None else by_mode
    if by_name is None:
        raise ValueError(
            f"monitor={monitor!r} is no metric of which cydrop knows whether less or more is better: "
            "give mode='min' or mode='max'"
        )
    return by_name


def lower_by_name(monitor: str) -> bool | None:
    """Whether less of a metric is better, as far as its name says so."""
    name = re.sub(r"[^a-z0-9]+", "_", monitor.lower()).strip("_")
    while (shorter := _BEFORE.sub("", name)) != name:
        name = shorter
    if _OPPOSITE.match(monitor):
        return None
    if "_at_" in name:
        name = _BEHIND.sub("", name)
    negated = name.startswith(("neg_", "negative_"))  # "neg_mean_squared_error", as scikit-learn's scorers are called
    while True:
        words = name.split("_")
        for first in range(len(words)):  # the longest end that is known
            known = _LOWER_IS_BETTER.get("_".join(words[first:]))
            if known is not None:
                # "fid_score" is a score by its name only; D2, a share that is explained, is one of any error
                named = words[first:] == ["score"] and first and "d2" not in words
                scored = lower_by_name("_".join(words[:first])) if named else None
                return known != negated if scored is None else scored
        shorter = _BEHIND.sub("", name)
        if shorter == name:
            return None
        name = shorter


def _number(name: Any, value: Any) -> float:
    """A value of a metric: whatever is one number, NaN and infinity too, but no text."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a metric must be a str, got {name!r} ({type(name).__name__})")
    try:
        if isinstance(value, str | bytes | bytearray) or getattr(value, "ndim", None):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"metric {name!r} must be a number, got {value!r:.50} ({type(value).__name__})") from None

"""Which way a metric is better, where its name says so."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from cydrop import losses
from cydrop._base import checks

__all__ = ["best_epoch", "lower_by_name", "lower_is_better"]

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
loss error err rmse mape smape wape mase msle rmsle mdae medae sse rss nll logloss mlogloss
crossentropy xent bce brier brier_score ece mce deviance perplexity ppl hinge logcosh log_cosh
poisson kl kld kl_divergence divergence js_divergence crps pinball interval_score winkler_score energy_score distance
emd hamming davies_bouldin error_rate err_rate fpr fnr false_positive_rate false_negative_rate false_discovery_rate
misclassification wer cer fid aic bic cost regret risk seconds time duration latency
"""
_LOWER_IS_BETTER = dict.fromkeys(_GROW.split(), False) | dict.fromkeys([*_FALL.split(), *losses.KNOWN], True)

# At the end of a name: averages ("f1_macro"), cuts ("ndcg@10", "precision_at_5"), Keras's numbers ("auc_1"), and where
# on a curve it is ("fpr_at_95_tpr", "recall_at_precision").
_ENDING = r"_(macro|micro|weighted|samples|binary|mean|avg|average|ovr|ovo|\d+|at_.*)$"
_OPPOSITE = r"(?i)\s*(1|100|one)\s*-|.*(^|[^a-z])minus[^a-z]"  # "1 - accuracy": who knows
_BEGINNING = r"^(val|valid|validation|clean|train|training|test|dev|eval)_"


def lower_is_better(monitor: str, mode: str = "auto") -> bool:
    """Which way a metric should go: "min", "max", or by its name; ValueError where that says nothing."""
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
    """Whether less of a metric is better, where its name says so."""
    name = re.sub(r"[^a-z0-9]+", "_", monitor.lower()).strip("_")
    while (shorter := re.sub(_BEGINNING, "", name)) != name:
        name = shorter
    if re.match(_OPPOSITE, monitor):
        return None
    if "_at_" in name:
        name = re.sub(_ENDING, "", name)
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
        shorter = re.sub(_ENDING, "", name)
        if shorter == name:
            return None
        name = shorter


def best_epoch(values: Sequence[float], lower: bool) -> tuple[int, float]:
    """The first of the best epochs, counted from 1, and its value; at least one value is not NaN."""
    sign = -1 if lower else 1
    epoch = -max((sign * value, -epoch) for epoch, value in enumerate(values, 1) if not math.isnan(value))[1]
    return epoch, values[epoch - 1]

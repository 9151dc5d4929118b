"""The docstrings of the estimators: what several share is written once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TypeVar

Class = TypeVar("Class")

# Parameters, in any order: a class has those of its constructor, its own words before those that all share -----

ALL = """
    max_onehot : int >= 0
        A column with at most this many categories becomes one-hot columns; one with more is embedded.
    embedding_size : int >= 1
        How many learned numbers stand for an embedded category.
    categorical_features : "from_dtype", None, mask, names or indices
        Which columns are categories, as for `HistGradientBoostingClassifier`. "from_dtype": those of text, objects,
        categories and booleans. In an array of objects, and in lists with text in them, a column of nothing but numbers
        is one of numbers; in a DataFrame its type decides. None: no column is.
    validation_fraction : float in (0, 1)
        Share of the rows held out to find the best epoch; not used where `fit` is given X_val, or with n_folds.
    calibration_fraction : float in [0, 1)
        Share of the rows that is kept aside, neither to train on nor to find the best epoch: `{predict}`
        looks there how far the networks err. 0: it looks at the held-out rows.
    n_ensemble : int >= 1
        Networks to train on the same rows, each with a seed of its own. Predictions are their mean.
    n_folds : int >= 1
        Above 1: the rows are divided into this many parts, each part is held out once, and n_ensemble networks are
        trained on the others. Predictions are the mean of all networks.
    class_weight : dict, "balanced" or None
        Weights of the classes, {{label: weight}}, above 0; a class that is not named has weight 1. "balanced" gives all
        classes the same weight in sum: n_samples / (n_classes * rows of the class), each row counted by its
        sample_weight.
    random_state : int, numpy.random.RandomState or None
        For the held-out rows, weights, masks and shuffles. The same int, data and parameters give the same bits, on any
        number of threads.
    n_threads : int or None
        Most threads to use; None: as many processors as this process may use. Several networks are trained side by
        side, one thread each.
    precision : {{"float32", "bfloat16"}}
        Of the factors of products, as for `cydrop.Network`; embeddings of numbers are of float32.
    verbose : bool or int
        Whether to print a line per epoch; of several networks each line begins with its network's number.
"""

REALMLP = """
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer.
    dropout : float in [0, 1)
        Probability of *dropping* a hidden unit. It is in force for the first half of training and then fades to 0.
    max_iter : int >= 1
        Epochs. All of them are trained; what is kept is the network after the epoch with the best `metric` of the
        held-out rows.
    batch_size : int >= 1
        Rows of a batch; all rows if there are fewer. Rows that do not fill a last batch sit out the epoch; another
        epoch's order brings others there.
    learning_rate_init : float > 0 or None
        Peak of the learning rate, which goes up and down in four waves (`schedules.CosLog4`). None is 0.04 for
        classes and 0.2 for numbers, with small=True 0.04 and 0.07; with loss="gaussian_nll" it is that for classes.
    weight_decay : float >= 0
        Decoupled weight decay (Loshchilov and Hutter 2019) of the weights; it fades as dropout does.
    numeric_embedding : "pbld", "plr", "piecewise_linear" or None
        Kind of the embedding of each number (Gorishniy et al. 2022), as in `NumericEmbedding`. None leaves each number
        as it is.
    small : bool
        The paper's smaller recipe, TD-S: no embeddings, no parametric activations, no dropout, no weight decay; all
        categories become one-hot columns, and the network begins at random. `numeric_embedding`, `dropout`,
        `weight_decay`, `max_onehot` and `embedding_size` are not used.
"""

REALMLP_CLASSIFIER = """
    label_smoothing : float in [0, 1) or "auto"
        Share of the label that is spread over all classes. "auto" is 0.1 with metric="error" and 0 with
        metric="log_loss": smoothing makes fewer errors, but worse probabilities.
    metric : "error" or "log_loss"
        What the best epoch is chosen by; of equally good ones the latest. "error" (the share of wrong labels) where
        labels count, "log_loss" where probabilities, or the order of rows by them (AUC), do.
"""

LOSS = """
    loss : "squared_error", "absolute_error", "huber", "gaussian_nll", "pinball" or a loss object
        What is minimised, of the standardised targets; an object, such as `losses.Pinball((0.1, 0.5, 0.9))`, has
        options. "gaussian_nll" predicts a variance as well, "pinball" quantiles: {quantiles}. `predict` gives
        the mean or the quantile nearest to 0.5. The best epoch is that of the least RMSE of the held-out rows with
        "squared_error", else of their least loss.
"""

REALMLP_REGRESSOR = """
    label_smoothing : float in [0, 1) or "auto"
        For classifiers; here "auto" and 0 are allowed, and change nothing.
    metric : "error" or "log_loss"
        Only "error": the RMSE, with several targets each in units of its standard deviation; or the loss, see there.
"""

TABM = """
    n_members : int in [1, 256]
        How many networks there are in one: each sees the table in its own way and predicts on its own. The prediction
        is the mean of theirs.
    sharing : "mini", "tabm" or "packed"
        What the members have in common. "mini": all but a scale of each input of the first layer, and the output
        layer. "tabm": the weights; each member has biases, and scales of each layer's inputs and outputs. "packed":
        nothing, they are networks of their own that are trained together.
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer. The authors have three layers of 512 where numbers are not embedded.
    dropout : float in [0, 1)
        Probability of *dropping* a hidden unit.
    shared_masks : bool
        Whether all rows of a member have the same mask in a batch. Units that are dropped are then not computed, which
        saves the more time the greater `dropout` is. Otherwise each row of each member has a mask of its own.
    numeric_embedding : "pbld", "plr", "piecewise_linear" or None
        Kind of the embedding of each number (Gorishniy et al. 2022), as in `NumericEmbedding`; that of all members is
        the same. None leaves each number as it is.
    max_iter : int >= 1
        Most epochs. Training ends earlier, by `n_iter_no_change`.
    n_iter_no_change : int >= 1
        Epochs without a better `metric` of the held-out rows, after which training ends. What is kept is the network
        after the best epoch.
    batch_size : int >= 1 or "auto"
        Rows of a batch. "auto" goes by the rows to train on: 32 where there are fewer than 2,800, 64 below 4,500, 128
        below 6,400, 256 below 32,000, and 512.
    batches : "own" or "shared"
        Whether each member sees the rows in an order of its own, or all have the same rows in a batch. In both cases
        each member sees every row once an epoch.
    learning_rate_init : float > 0
        Learning rate of AdamW.
    weight_decay : float >= 0
        Decoupled weight decay (Loshchilov and Hutter 2019) of all parameters but the biases and the embeddings' lines.
"""

TABM_CLASSIFIER = """
    label_smoothing : float in [0, 1)
        Share of the label that is spread over all classes.
    metric : "error" or "log_loss"
        What the best epoch is chosen by, and when training ends; of equally good ones the first is kept. "error" (the
        share of wrong labels) where labels count, "log_loss" where probabilities, or the order of rows by them (AUC),
        do.
"""

TABM_REGRESSOR = """
    label_smoothing : float in [0, 1)
        For classifiers; here 0 alone is allowed.
    metric : "error" or "log_loss"
        Only "error": the RMSE, with several targets each in units of its standard deviation; or the loss, see there.
"""

# The rest ----------------------------------------------------------------------------------------------------

ATTRIBUTES = """
    Attributes
    ----------
    networks_ : list of cydrop.Network
        All trained networks.
    network_ : cydrop.Network
        The first of them.
    history_ : History
        Loss, learning rate and "val_error" of each epoch of the first network. The latter, of the held-out rows, is
        {error}
    histories_ : list of History
        The same for every network.
    best_epochs_ : list of int
        The epoch that was kept of each network, counted from 1: of those with the least "val_error" the {best}.
    n_iter_ : int
        Epochs of {epochs}, or 1 where y has one class.
    calibration_ : Calibration or None
        What `{predict}` is made from.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Their names, where X had some.
{attributes}"""

CLASSES_ATTRIBUTE = """    classes_ : ndarray
        The labels, sorted.
"""

REALMLP_NOTES = """
    Notes
    -----
    All that is learned from the columns (medians, quartiles, means, known categories) is learned from the training rows
    alone, each counted once. A missing number becomes the mean of its column, and a second column says where that was.
    A category that is missing, or that was not among the training rows, is a category of its own. Infinite numbers and
    dates are refused.

    A class of a single row is always trained on. Where all rows fit into one batch, they are sorted, and equal rows are
    merged into one with their joint weight: then a row of weight 3 and three rows of weight 1 give the same bits.

    The layers, schedules and options of the recipe are cydrop's own, described in the guide "RealMLP".

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on tabular data",
    NeurIPS 2024, arXiv 2407.04491.
"""

TABM_NOTES = """
    Notes
    -----
    All that is learned from the columns (quantiles, means, known categories) is learned from the training rows alone,
    each counted once. A number becomes the normal quantile of its rank among them; a missing one becomes the mean of
    those, and a second column says where that was. A category is a column of 0 and 1; one that is missing, or that was
    not among the training rows, is 0 in all of its columns. Infinite numbers and dates are refused.

    A class of a single row is always trained on. Where all rows fit into one batch, they are sorted, and equal rows are
    merged into one with their joint weight: then a row of weight 3 and three rows of weight 1 give the same bits.

    The layers and options of the recipe are cydrop's own, described in the guide "TabM".

    References
    ----------
    Gorishniy, Kotelnikov, Babenko, "TabM: Advancing tabular deep learning with parameter-efficient ensembling",
    ICLR 2025, arXiv 2410.24210.
"""

EXAMPLE = """
    Examples
    --------
    >>> import numpy as np
    >>> from cydrop.tabular import {name}
    >>> rows = [["red", 1.5], ["blue", None], ["red", 0.5], [None, 4.0]]
    >>> X = np.array(rows * 10, dtype=object)
    >>> y = {y}
    >>> model = {name}({small}max_iter=4, random_state=0).fit(X, y)
    >>> model.predict(X[:3]).shape
    (3,)
"""


def documented(recipe: str, kind: str) -> Callable[[type[Class]], type[Class]]:
    """Puts together what the classes' docstrings say; nothing where docstrings were left out (python -OO).

    Parameters
    ----------
    recipe : "RealMLP" or "TabM"
    kind : "classifier" or "regressor"
    """
    classes, realmlp = kind == "classifier", recipe == "RealMLP"
    if realmlp:
        nine = LOSS.format(quantiles="0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9 and 0.95")
        own = REALMLP + (REALMLP_CLASSIFIER if classes else REALMLP_REGRESSOR + nine)
    else:
        own = TABM + (TABM_CLASSIFIER if classes else TABM_REGRESSOR + LOSS.format(quantiles="0.05, 0.5 and 0.95"))
    attributes = ATTRIBUTES.format(
        error='the share of wrong labels, or with metric="log_loss" the log-loss.'
        if classes
        else "the RMSE, of each target in units of its standard deviation, or the loss.",
        best="latest" if realmlp else "first",
        epochs="a network: `max_iter`" if realmlp else "the first network",
        attributes=CLASSES_ATTRIBUTE if classes else "",
        predict="predict_set" if classes else "predict_interval",
    )
    y = '["warm", "cold", "warm", "cold"] * 10' if classes else "[2.5, 1.0, 3.5, 0.5] * 10"

    def document(cls: type[Class]) -> type[Class]:
        if cls.__doc__:
            texts = _entries(ALL.format(predict="predict_set" if classes else "predict_interval")) | _entries(own)
            names = inspect.signature(cls).parameters
            shared = "\n    Parameters\n    ----------\n" + "".join(texts[name] for name in names) + attributes
            small = "" if realmlp else "n_members=4, hidden_layer_sizes=16, "
            shared += REALMLP_NOTES if realmlp else TABM_NOTES
            shared += EXAMPLE.format(name=cls.__name__, y=y, small=small)
            cls.__doc__ = inspect.cleandoc(cls.__doc__) + "\n\n" + inspect.cleandoc("\n" + shared)
        return cls

    return document


def _entries(text: str) -> dict[str, str]:
    """The entries of a list of parameters, by name."""
    parts = re.split(r"^(?=    \w+ : )", text.lstrip("\n"), flags=re.MULTILINE)
    return {part.split(" : ")[0].strip(): part.rstrip() + "\n" for part in parts}

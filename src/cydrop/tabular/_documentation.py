"""The docstrings of both estimators: what they share is written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

Class = TypeVar("Class")

PARAMETERS = """
    Parameters
    ----------
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
        classes and 0.2 for numbers; with small=True 0.04 and 0.07.
    weight_decay : float >= 0
        Decoupled weight decay (Loshchilov and Hutter 2019) of the weights; it fades as dropout does.
    label_smoothing : float in [0, 1) or "auto"{smoothing}
    metric : "error" or "log_loss"{metric}
    numeric_embedding : "pbld", "plr", "piecewise_linear" or None
        Kind of the embedding of each number (Gorishniy et al. 2022), as in `NumericEmbedding`. None leaves each number
        as it is.
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
    n_ensemble : int >= 1
        Networks to train on the same rows, each with a seed of its own. Predictions are their mean.
    n_folds : int >= 1
        Above 1: the rows are divided into this many parts, each part is held out once, and n_ensemble networks are
        trained on the others. Predictions are the mean of all networks.
    small : bool
        The paper's smaller recipe, TD-S: no embeddings, no parametric activations, no dropout, no weight decay; all
        categories become one-hot columns, and the network begins at random. `numeric_embedding`, `dropout`,
        `weight_decay`, `max_onehot` and `embedding_size` are not used.
{parameters}    random_state : int, numpy.random.RandomState or None
        For the held-out rows, weights, masks and shuffles. The same int, data and parameters give the same bits, on any
        number of threads.
    n_threads : int or None
        Most threads to use; None: as many processors as this process may use. Several networks are trained side by
        side, one thread each.
    verbose : bool or int
        Whether to print a line per epoch; of several networks each line begins with its network's number.
"""

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
        The epoch that was kept of each network, counted from 1: of those with the least "val_error" the latest.
    n_iter_ : int
        Epochs of a network: `max_iter`, or 1 where y has one class.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Their names, where X had some.
"""

NOTES = """
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

EXAMPLE = """
    Examples
    --------
    >>> import numpy as np
    >>> from cydrop.tabular import {name}
    >>> rows = [["red", 1.5], ["blue", None], ["red", 0.5], [None, 4.0]]
    >>> X = np.array(rows * 10, dtype=object)
    >>> y = {y}
    >>> model = {name}(max_iter=4, random_state=0).fit(X, y)
    >>> model.predict(X[:3]).shape
    (3,)
"""


def documented(
    *, kind: str, smoothing: str, metric: str, error: str, parameters: str, attributes: str
) -> Callable[[type[Class]], type[Class]]:
    """Puts together what both classes' docstrings say; nothing where docstrings were left out (python -OO)."""
    y = '["warm", "cold", "warm", "cold"] * 10' if kind == "classifier" else "[2.5, 1.0, 3.5, 0.5] * 10"

    def document(cls: type[Class]) -> type[Class]:
        if cls.__doc__:
            shared = PARAMETERS.format(smoothing=smoothing, metric=metric, parameters=parameters.lstrip("\n"))
            shared += ATTRIBUTES.format(error=error).rstrip() + (attributes or "\n")
            shared += NOTES + EXAMPLE.format(name=cls.__name__, y=y)
            cls.__doc__ = inspect.cleandoc(cls.__doc__) + "\n\n" + inspect.cleandoc("\n" + shared)
        return cls

    return document

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
        Probability of *dropping* a hidden unit, until half of training is over; then it fades to 0.
    max_iter : int >= 1
        Epochs. All are trained; the network is that of the best one: {best} of the held-out rows.
    batch_size : int >= 1
        Rows of a batch; all rows where there are fewer. A last batch that is not full is left out.
    learning_rate_init : float > 0 or None
        The highest learning rate. None is 0.04 for classes and 0.2 for numbers; with small=True 0.04 and 0.07.
    weight_decay : float >= 0
        Decoupled (Loshchilov and Hutter 2019); fades like dropout.
    label_smoothing : float in [0, 1) or "auto"{smoothing}
    metric : "error" or "log_loss"{metric}
    numeric_embedding : "pbld", "plr", "piecewise_linear" or None
        What each number is embedded by before the first layer (Gorishniy et al. 2022); None leaves it a number.
    max_onehot : int >= 0
        A column with at most so many categories becomes one-hot columns, one with more is embedded.
    embedding_size : int >= 1
        Numbers that a category is embedded as.
    categorical_features : "from_dtype", None, mask, names or indices
        Which columns are categories, as for `HistGradientBoostingClassifier`. "from_dtype": those of text, objects,
        categories and booleans. In an array of objects, and in lists with text in them, a column of nothing but numbers
        is one of numbers; in a DataFrame its type decides. None: no column is.
    validation_fraction : float in (0, 1)
        Share of the rows held out to find the best epoch; not used where `fit` is given X_val, or with n_folds.
    n_ensemble : int >= 1
        Networks that are trained, each with a seed of its own, on the same rows. Predictions are their mean.
    n_folds : int >= 1
        Above 1: so many times another part of the rows is held out, and n_ensemble networks are trained on the others.
        Predictions are the mean of all.
    small : bool
        The smaller recipe, TD-S: no embeddings, no dropout, no weight decay; all categories become one-hot columns.
{parameters}    random_state : int, numpy.random.RandomState or None
        For the held-out rows, weights, masks and shuffles. The same int, data and parameters give the same bits, on any
        number of threads.
    n_threads : int or None
        None takes what the machine grants this process. Several networks are trained side by side, on one thread each.
    verbose : bool or int
        Whether to print a line per epoch.
"""

ATTRIBUTES = """
    Attributes
    ----------
    networks_ : list of cydrop.Network
        All trained networks.
    network_ : cydrop.Network
        The first of them.
    history_ : History
        The values of its epochs.
    histories_ : list of History
        Those of all networks.
    n_iter_ : int
        Epochs of a network: `max_iter`, or 1 where y has one class.
    n_features_in_, feature_names_in_
        As in scikit-learn.
"""

NOTES = """
    Notes
    -----
    All that is learned from the columns (medians, quartiles, means, known categories) is learned from the training rows
    alone, each counted once. A missing number becomes the mean of its column, which gets a second column that says
    where; a missing category, or one that was not among the training rows, is a category of its own. Infinite numbers
    and dates are refused.

    A class of a single row is always trained on. Where all rows fit into one batch, they are sorted, and equal rows are
    merged into one with their joint weight: then a row of weight 3 and three rows of weight 1 give the same bits.

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
    >>> X = np.array([["red", 1.5], ["blue", None], ["red", 0.5], [None, 4.0]] * 10, dtype=object)
    >>> y = {y}
    >>> model = {name}(max_iter=4, random_state=0).fit(X, y)
    >>> model.predict(X[:3]).shape
    (3,)
"""


def documented(
    *, kind: str, best: str, smoothing: str, metric: str, parameters: str, attributes: str
) -> Callable[[type[Class]], type[Class]]:
    """Puts together what both classes' docstrings say; nothing where docstrings were left out (python -OO)."""
    y = '["warm", "cold", "warm", "cold"] * 10' if kind == "classifier" else "[2.5, 1.0, 3.5, 0.5] * 10"

    def document(cls: type[Class]) -> type[Class]:
        if cls.__doc__:
            shared = PARAMETERS.format(
                best=best, smoothing=smoothing, metric=metric, parameters=parameters.lstrip("\n")
            )
            shared += ATTRIBUTES.rstrip() + (attributes or "\n") + NOTES + EXAMPLE.format(name=cls.__name__, y=y)
            cls.__doc__ = inspect.cleandoc(cls.__doc__) + "\n\n" + inspect.cleandoc("\n" + shared)
        return cls

    return document

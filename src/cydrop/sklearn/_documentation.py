"""The docstrings of both estimators: what they share is written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

from cydrop.sklearn._parameters import ACTIVATIONS

Class = TypeVar("Class")

THEIRS = ("relu", "logistic", "tanh", "identity")  # scikit-learn's activations

PARAMETERS = """
    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; () is a linear model.
    activation : str
        Of the hidden layers: {theirs} as in scikit-learn, or one of cydrop's
        {ours}.
    solver : "adam", "sgd" or "lbfgs"
        "lbfgs" is SciPy's L-BFGS-B on all rows at once; without dropout and max_norm.
    alpha : float >= 0
        L2 penalty, divided by the weight of a batch. Unlike scikit-learn's it also applies to biases with "adam" and
        "sgd", and `loss_curve_` does not contain it.
    batch_size : int or "auto"
        "auto" is min(200, n_samples).
    learning_rate : "constant", "invscaling" or "adaptive"
        For "sgd". "adaptive" divides the rate by 5 where training would otherwise stop.
    learning_rate_init : float > 0
    power_t : float >= 0
        Of "invscaling": learning_rate_init / t^power_t, t the rows seen.
    max_iter : int >= 1
        The maximum number of epochs.
    shuffle : bool
        Whether each epoch visits the rows in a new order.
    random_state : int, numpy.random.RandomState or None
        For weights, masks, shuffles and the validation rows. The same int, data and parameters give the same bits, on
        any number of threads.
    tol : float >= 0
        What counts as an improvement of the loss; with early_stopping of the score, or of the loss, of the held-out
        rows.
    verbose : bool or int
        Whether to print a line per epoch; "lbfgs" prints nothing.
    warm_start : bool
        Whether `fit` goes on from the weights of the last call.
    momentum : float in [0, 1)
        For "sgd".
    nesterovs_momentum : bool
        For "sgd".
    early_stopping : bool
        Whether the score of held-out rows decides when to stop; the weights of its best epoch are kept, of equal scores
        that with the smaller loss.{by_loss}
    validation_fraction : float in [0, 1)
        Share of the rows held out for early_stopping, at least two rows{stratified}; not used
        where `fit` is given X_val.
    calibration_fraction : float in [0, 1)
        Share of the rows that is kept aside{stratified}, on which `{predict}` looks how far the network errs. 0: it
        looks at the rows held out by early_stopping, or at X_val.
    beta_1, beta_2 : float in [0, 1)
        For "adam".
    epsilon : float > 0
        For "adam".
    n_iter_no_change : int >= 1 or inf
        Training stops after more than this many epochs without improvement. With dropout, whose noise hides progress,
        it goes on nevertheless if the training rows' loss with dropout off has fallen by tol since it was last checked.
    max_fun : int >= 1
        The maximum number of calls of the loss, for "lbfgs".
    dropout : float in [0, 1] or sequence of them
        Probability of *dropping*: a number for all hidden layers, or a list with a rate for the input first and then
        one for each hidden layer.
    dropout_mode : "inverted" or "vanilla"
        As for `cydrop.Dropout`.
    dropout_schedule : None or function of training progress in [0, 1]
        A factor for all rates: `schedules.Linear(1, 0)` lets dropout fade out, `schedules.Step(1, 0, at=0.2)` is
        early dropout. Progress is counted over max_iter epochs.
    max_norm : float > 0 or None
        Bound on the Euclidean norm of each hidden unit's incoming weights.
    n_threads : int or None
        None takes what the machine grants this process. A warm start keeps the number of the first fit.
    precision : {{"float32", "bfloat16"}}
        Of the factors of products, as for `cydrop.Network`.
"""

ATTRIBUTES = """
    Attributes
    ----------
    network_ : cydrop.Network
        The trained network; `network_.save(path)` and `cydrop.onnx.export(network_, path)` write it to files, without
        `calibration_`, which pickles hold.
    loss_, best_loss_ : float
        Loss of the last and of the best epoch, as trained: dropout on. The best one is None with early_stopping.
    loss_curve_ : list of float
        One value per epoch; like `best_loss_` and the scores below not for "lbfgs".
    validation_scores_ : list of float or None
        {score} of the held-out rows, one value per epoch, with early_stopping or X_val.
    validation_loss_curve_ : list of float or None
        Their loss, to compare with `loss_curve_`: dropout off, without the penalty.
    best_validation_score_ : float or None
    calibration_ : Calibration or None
        What `{predict}` is made from.
    n_iter_ : int
        Epochs of the last call.
    t_ : int
        Rows seen.
    coefs_, intercepts_ : list of ndarray
        Weights, shape (fan-in, units), and biases, shape (units,), of each layer.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
"""

NOTES = """
    Notes
    -----
    Where all rows fit into one batch, they are sorted, and equal rows are merged into one with their joint weight: then
    a row of weight 3 and three rows of weight 1 give the same bits. In smaller batches a weight multiplies the row's
    loss, and weights are scaled to a mean of 1.
"""


def listed(names: Iterable[str], last: str = " or ") -> str:
    """In a sentence: "a", "b" or "c"."""
    quoted = [f'"{name}"' for name in names]
    return last.join([", ".join(quoted[:-1]), quoted[-1]])


def documented(
    *, parameters: str, score: str, stratified: str, attributes: str, predict: str, by_loss: str = ""
) -> Callable[[type[Class]], type[Class]]:
    """Puts together what both classes' docstrings say; nothing where docstrings were left out (python -OO)."""
    theirs, ours = listed(THEIRS, ", "), listed((name for name in ACTIVATIONS if name not in THEIRS), ", ")

    def document(cls: type[Class]) -> type[Class]:
        if cls.__doc__:
            shared = PARAMETERS.format(
                theirs=theirs, ours=ours, stratified=stratified, predict=predict, by_loss=by_loss
            ).rstrip()
            shared += parameters + ATTRIBUTES.format(score=score, predict=predict).rstrip() + attributes + NOTES
            cls.__doc__ = inspect.cleandoc(cls.__doc__) + "\n\n" + inspect.cleandoc("\n" + shared)
        return cls

    return document

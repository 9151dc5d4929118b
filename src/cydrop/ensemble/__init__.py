"""Several networks that predict together: their mean, how much they differ, training on folds or bootstrap samples.

_ensemble        Ensemble: arguments, docstrings; load
_members         what members must have in common; their mean
_sampling        members times Monte Carlo samples
_training        which member sees which rows; predictions of those that did not
_onnx            the mean as nodes of a graph
"""

from cydrop.ensemble._ensemble import Ensemble, load
from cydrop.ensemble._onnx import nodes

__all__ = ["Ensemble", "load", "nodes"]

Ensemble.__module__ = load.__module__ = nodes.__module__ = __name__  # what pickles name

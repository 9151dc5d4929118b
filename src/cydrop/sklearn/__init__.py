"""Estimators for scikit-learn: `MLPClassifier` and `MLPRegressor`, scikit-learn's multi-layer perceptrons with dropout.

Parameters are spelled as in `sklearn.neural_network` where they mean the same, so that changing the import is enough.
Only this module needs scikit-learn (1.6 or newer); the rest of cydrop never imports it.

    X, y, weights  ->  validate  ->  rows of one batch: merge equal ones  ->  split off validation  ->  Network.fit
"""

try:
    import scipy.optimize  # noqa: F401 (which scikit-learn needs as well)
    from sklearn.utils.validation import validate_data  # noqa: F401 (not there before 1.6)
except ImportError as error:
    raise ImportError(f'cydrop.sklearn needs scikit-learn 1.6: pip install "cydrop[sklearn]" ({error})') from None

from cydrop.sklearn._classifier import MLPClassifier
from cydrop.sklearn._regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]

for _estimator in (MLPClassifier, MLPRegressor):
    _estimator.__module__ = __name__  # what pickles name, those of when this was one file too

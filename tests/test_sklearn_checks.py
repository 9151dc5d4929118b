"""scikit-learn's own checks of estimators, none of them expected to fail."""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from cydrop.sklearn import MLPClassifier, MLPRegressor

WITH_EVERYTHING = {"dropout": [0.1, 0.3], "max_norm": 3.0, "early_stopping": True, "max_iter": 100}
ESTIMATORS = [
    MLPClassifier(),
    MLPRegressor(),
    MLPClassifier(**WITH_EVERYTHING),
    MLPRegressor(**WITH_EVERYTHING),
]


def name_of(check):
    return getattr(check, "func", check).__name__ if callable(check) else None


# not parametrize_with_checks: scikit-learn 1.6 gives pytest a generator there, which pytest 9 deprecates
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [pair for estimator in ESTIMATORS for pair in estimator_checks_generator(estimator)],
    ids=lambda part: name_of(part) or str(part),
)
def test_scikit_learns_check(estimator, check):
    check(estimator)

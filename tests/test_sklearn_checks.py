"""scikit-learn's own checks of estimators, none of them expected to fail."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from cydrop.sklearn import MLPClassifier, MLPRegressor

WITH_EVERYTHING = {"dropout": [0.1, 0.3], "max_norm": 3.0, "early_stopping": True, "max_iter": 100}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [
        MLPClassifier(),
        MLPRegressor(),
        MLPClassifier(**WITH_EVERYTHING),
        MLPRegressor(**WITH_EVERYTHING),
    ],
    expected_failed_checks=lambda estimator: {},
)
def test_scikit_learns_check(estimator, check):
    check(estimator)

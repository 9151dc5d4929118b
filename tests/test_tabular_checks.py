"""scikit-learn's own checks of the estimators for tables, none of them expected to fail."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from cydrop.tabular import RealMLPClassifier, RealMLPRegressor

SEVERAL = {"n_folds": 2, "n_ensemble": 2, "max_iter": 100, "hidden_layer_sizes": (64,)}
SMALL = {"small": True, "categorical_features": None, "max_iter": 100}


@parametrize_with_checks(
    [
        RealMLPClassifier(),
        RealMLPRegressor(),
        RealMLPClassifier(**SEVERAL),
        RealMLPRegressor(**SEVERAL),
        RealMLPClassifier(**SMALL),
        RealMLPRegressor(**SMALL),
    ],
    expected_failed_checks=lambda estimator: {},
)
def test_scikit_learns_check(estimator, check):
    check(estimator)

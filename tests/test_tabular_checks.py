"""scikit-learn's own checks of the estimators for tables, none of them expected to fail."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from cydrop.tabular import RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor

SHORT = {"max_iter": 24, "hidden_layer_sizes": (64,)}  # the defaults take ten times as long and are checked once
SEVERAL = {"n_folds": 2, "n_ensemble": 2}
SMALL = {"small": True, "categorical_features": None}
FEW = {"n_members": 4, "hidden_layer_sizes": (32,)}


@parametrize_with_checks(
    [
        RealMLPClassifier(**SHORT),
        RealMLPRegressor(),
        RealMLPClassifier(**SHORT | SEVERAL),
        RealMLPRegressor(**SHORT | SEVERAL),
        RealMLPClassifier(**SHORT | SMALL),
        RealMLPRegressor(**SHORT | SMALL),
        TabMClassifier(**FEW),
        TabMRegressor(**FEW),
        TabMClassifier(**FEW | SEVERAL, sharing="tabm", batches="shared", shared_masks=True),
        TabMRegressor(**FEW | SEVERAL, sharing="packed", numeric_embedding=None),
    ],
    expected_failed_checks=lambda estimator: {},
)
def test_scikit_learns_check(estimator, check):
    check(estimator)

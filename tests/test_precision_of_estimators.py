"""The precision of products as a parameter of estimators."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from cydrop.sklearn import MLPClassifier
from cydrop.tabular import RealMLPRegressor, TabMClassifier


def test_estimators_take_it():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((300, 90)).astype(np.float32)
    y = X[:, :3].argmax(axis=1)
    small = {"hidden_layer_sizes": 32}
    for cls, options in ((MLPClassifier, {}), (RealMLPRegressor, small), (TabMClassifier, small)):
        found = []
        for precision in ("float32", "bfloat16"):
            model = cls(max_iter=2, random_state=0, precision=precision, **options)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two epochs are few
                model.fit(X, y)
            found.append(model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X))
        assert 0 < np.abs(found[1] - found[0]).max() < 0.1 * np.abs(found[0]).max()
        with pytest.raises(ValueError, match="precision='half' is not known; known are 'float32', 'bfloat16'"):
            cls(precision="half").fit(X, y)

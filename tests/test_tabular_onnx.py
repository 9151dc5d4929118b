"""Estimators for tables as ONNX models: ONNX Runtime takes the table's columns and gives what `predict` gives."""

import numpy as np
import pandas as pd
import pytest
from onnx_session import session
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import cydrop as cd
from cydrop.tabular import RealMLPClassifier, RealMLPRegressor

FAST = {"hidden_layer_sizes": (16,), "max_iter": 5, "random_state": 0}
KINDS = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(string)": object}


def inputs_of(loaded, X):
    """The columns of a frame as the model wants them; what is missing as something that is no category."""
    numbers = [name for name in X if X[name].dtype.kind in "iuf"]
    feed = {}
    for entry in loaded.get_inputs():
        name = entry.name.removeprefix("column.")
        if entry.name == "training_mode":
            continue
        if entry.name == "X":
            feed["X"] = X[numbers].to_numpy(np.float32)
        else:
            nothing = "" if entry.type == "tensor(string)" else -99
            column = X[[name]].astype(object).where(X[[name]].notna(), nothing)
            feed[entry.name] = column.map(str if nothing == "" else int).to_numpy(KINDS[entry.type])
    return feed


def check(model, X, **options):
    loaded = session(cd.onnx.to_model(model, **options))
    found = dict(zip([o.name for o in loaded.get_outputs()], loaded.run(None, inputs_of(loaded, X)), strict=True))
    if hasattr(model, "classes_"):
        assert list(found) == ["label", "probabilities"]
        np.testing.assert_allclose(found["probabilities"], model.predict_proba(X), atol=2e-5)
        np.testing.assert_array_equal(found["label"], model.predict(X))
    else:
        assert list(found) == ["variable"]
        assert found["variable"].shape == model.predict(X).shape
        np.testing.assert_allclose(found["variable"], model.predict(X), rtol=1e-4, atol=1e-4)
    return loaded, found


@pytest.fixture
def X(rng):
    n = 120
    return pd.DataFrame({
        "size": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        "time": (1.7e9 + rng.integers(0, 1000, n) * 128.0),
        "label": rng.choice(["x", "ü", "z", None], n),
        "street": rng.choice([f"v{number}" for number in range(12)], n),
        "sex": rng.choice(["f", "m"], n),
        "one": "same",
        "rooms": pd.Series(rng.choice([1, 2, 3, 70], n), dtype="category"),
        "garden": rng.random(n) < 0.5,
        "grade": pd.Series(rng.choice([1.5, 2.0, 2.5], n), dtype="category"),
        "never": pd.Series([None] * n, dtype=object),
        "flat": 5.0,
    })  # fmt: skip


@pytest.fixture
def odd(X):
    """Rows with missing and unseen categories and numbers far away."""
    odd = X.head(9).copy()
    for name in ("label", "street", "sex", "one"):
        odd[name] = odd[name].astype(object)
        odd.loc[[0, 1, 2], name] = [None, "unseen", "ZZ"]
    odd["rooms"] = odd["rooms"].astype(object)
    odd.loc[[0, 1], "rooms"] = [None, 1234]
    odd["rooms"] = odd["rooms"].astype("category")
    odd.loc[[0, 1, 2], ["size", "time", "flat"]] = [[np.nan, np.nan, np.nan], [1e30, -3e38, 0.0], [-1e-30, 0.0, 5.0]]
    return odd


OPTIONS = [{}, {"n_ensemble": 3}, {"n_folds": 2, "n_ensemble": 2}, {"small": True}, {"max_onehot": 0}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("labels", [["no", "yes", "maybe"], [7, -2], [True, False], ["only"]])
def test_a_classifier_gives_labels_and_probabilities(labels, options, X, odd):
    model = RealMLPClassifier(**FAST, **options).fit(X, np.array(labels)[np.arange(120) % len(labels)])
    check(model, X)
    check(model, odd)
    check(model, odd[:1])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("targets", [0, 2])
def test_a_regressor_gives_its_targets(targets, options, X, odd, rng):
    y = rng.normal(size=(120, targets) if targets else 120) * 10
    model = RealMLPRegressor(**FAST, **options).fit(X, y)
    check(model, X)
    check(model, odd)


def test_the_inputs_are_the_columns(X, tmp_path):
    model = RealMLPRegressor(**FAST).fit(X, X["time"])
    cd.onnx.export(model, tmp_path / "model.onnx")
    loaded = session(tmp_path / "model.onnx")
    inputs = {entry.name: (entry.type, entry.shape) for entry in loaded.get_inputs()}
    assert inputs == {
        "X": ("tensor(float)", ["n", 3]),
        "column.label": ("tensor(string)", ["n", 1]),  # an output of others has that name
        "street": ("tensor(string)", ["n", 1]),
        "sex": ("tensor(string)", ["n", 1]),
        "one": ("tensor(string)", ["n", 1]),
        "rooms": ("tensor(int64)", ["n", 1]),
        "garden": ("tensor(int64)", ["n", 1]),
        "grade": ("tensor(string)", ["n", 1]),
        "never": ("tensor(int64)", ["n", 1]),
    }
    again = cd.onnx.to_model(model)
    assert (tmp_path / "model.onnx").read_bytes() == again.SerializeToString(deterministic=True)


def test_arrays_have_columns_without_names(rng):
    X = rng.normal(size=(50, 3))
    model = RealMLPRegressor(**FAST).fit(X, X[:, 0])
    loaded = session(cd.onnx.to_model(model))
    assert [entry.name for entry in loaded.get_inputs()] == ["X"]
    found = loaded.run(None, {"X": X.astype(np.float32)})[0]
    np.testing.assert_allclose(found, model.predict(X.astype(np.float32)), rtol=1e-4, atol=1e-5)
    mixed = np.c_[X.astype(object), rng.choice(["a", "b"], 50)]
    loaded = session(cd.onnx.to_model(RealMLPRegressor(**FAST).fit(mixed, X[:, 0])))
    assert [entry.name for entry in loaded.get_inputs()] == ["X", "column_3"]


def test_a_table_of_categories_none_of_which_is_known():
    X = pd.DataFrame({"a": pd.Series([None] * 6, dtype=object)})
    model = RealMLPClassifier(**FAST).fit(X, [0, 1] * 3)
    check(model, X)


def test_codes_come_behind_the_numbers(X, odd, rng):
    model = RealMLPRegressor(**FAST, max_onehot=2).fit(X, rng.normal(size=120))
    (part,) = model.parts_
    width, cardinalities = part.preprocessor.width, part.preprocessor.cardinalities.tolist()
    assert cardinalities == [4, 13, 5, 4]
    stack = [cd.NumericEmbedding("pbld", columns=width), cd.Embedding(cardinalities, 8), cd.Dense(1)]
    part.networks = [cd.Network(stack, loss="mse", seed=0).build(width + 4)]
    check(model, X)
    check(model, odd)


def test_dropout_may_stay_in_the_model(X):
    model = RealMLPClassifier(**FAST | {"dropout": 0.5}, n_ensemble=2).fit(X, X["garden"])
    loaded, found = check(model, X, mc=True)
    drawn = loaded.run(["probabilities"], inputs_of(loaded, X) | {"training_mode": np.array(True)})[0]
    assert np.abs(drawn - found["probabilities"]).max() > 1e-4


def test_what_a_model_cannot_hold_is_refused(X):
    y = X["time"].to_numpy()
    with pytest.raises(NotFittedError):
        cd.onnx.to_model(RealMLPRegressor())
    with pytest.raises(ValueError, match="export the pipeline's last step alone"):
        cd.onnx.to_model(make_pipeline(StandardScaler(), RealMLPRegressor(**FAST)).fit(X[["time"]], y))
    with pytest.raises(ValueError, match="targets that float32 cannot hold"):
        cd.onnx.to_model(RealMLPRegressor(**FAST).fit(X, y * 1e290))
    with pytest.raises(ValueError, match="column 'a' has numbers and text that look the same"):
        cd.onnx.to_model(RealMLPRegressor(**FAST).fit(pd.DataFrame({"a": [1, "1", 2, 3] * 30}), y))
    with pytest.raises(ValueError, match="column 'a' has categories beyond 64 bits, which"):
        cd.onnx.to_model(RealMLPRegressor(**FAST).fit(pd.DataFrame({"a": [1, 2**70, 2, 3] * 30}, dtype=object), y))
    with pytest.raises(ValueError, match="example is for pipelines"):
        cd.onnx.to_model(RealMLPRegressor(**FAST).fit(X, y), example=X)

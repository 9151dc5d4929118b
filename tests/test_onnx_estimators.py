"""Estimators and pipelines as ONNX models: ONNX Runtime gives what their predict and predict_proba give."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from onnx_session import session
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import cydrop as cd
from cydrop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def run(model, **inputs):
    """What the model, of any kind that `export` takes or already a ModelProto, gives: values by their names."""
    loaded = session(model)
    return dict(zip([output.name for output in loaded.get_outputs()], loaded.run(None, inputs), strict=True))


def assert_same(estimator, found, X):
    """Labels and probabilities, or targets."""
    predicted = estimator.predict(X)
    if not hasattr(estimator, "predict_proba"):
        assert list(found) == ["variable"]
        assert found["variable"].shape == predicted.shape
        assert found["variable"].dtype == np.float32
        np.testing.assert_allclose(found["variable"], predicted, rtol=1e-5, atol=1e-5)
        return
    assert list(found) == ["label", "probabilities"]
    proba = estimator.predict_proba(X)
    assert found["probabilities"].shape == proba.shape
    assert found["label"].shape == predicted.shape
    np.testing.assert_allclose(found["probabilities"], proba, atol=1e-5)
    np.testing.assert_array_equal(found["label"], predicted)


@pytest.fixture
def X(rng):
    return rng.normal(3.0, 2.0, (150, 4)).astype(np.float32)


LABELS = {
    "text": (["no", "yes", "maybe", "Größe"], object),
    "numbers": ([7, -2, 2**40, 0], np.int64),
    "whole floats": ([0.0, 1.0, 5.0, 3.0], np.int64),
    "bytes of numbers": (np.array([1, 2, 3, 4], np.uint8), np.int64),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_a_classifier_gives_labels_and_all_probabilities(labels, classes, X, tmp_path):
    names, dtype = LABELS[labels]
    y = np.array(names)[np.arange(150) % classes]
    model = MLPClassifier((9,), dropout=[0.1, 0.2], dropout_mode="vanilla", max_iter=20, random_state=0).fit(X, y)
    cd.onnx.export(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    label, proba = session.run(None, {"X": X})
    assert label.dtype == dtype
    assert proba.dtype == np.float32
    assert_same(model, {"label": label, "probabilities": proba}, X)
    label, proba = session.run(None, {"X": X[:1]})
    assert_same(model, {"label": label, "probabilities": proba}, X[:1])
    assert session.get_outputs()[1].shape == ["n", classes]


def test_labels_that_are_bools_become_0_and_1(X):
    y = X[:, 0] > 3
    model = MLPClassifier(max_iter=20, random_state=0).fit(X, y)
    found = run(cd.onnx.to_model(model), X=X)
    assert found["label"].dtype == np.int64
    assert_same(model, found, X)


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_several_labels_give_a_matrix_of_0_and_1(labels, X):
    y = (X[:, :labels] > 3).astype(int)
    y = np.c_[y, 1 - y[:, :1]] if labels == 1 else y
    model = MLPClassifier(max_iter=30, random_state=0).fit(X, y)
    found = run(cd.onnx.to_model(model), X=X)
    assert found["label"].dtype == np.int64
    assert set(np.unique(found["label"])) == {0, 1}
    assert_same(model, found, X)


@pytest.mark.parametrize("columns", [(), (1,), (2,)])
def test_a_regressor_gives_its_targets_in_their_shape(columns, X):
    y = np.sin(X[:, : columns[0]]) if columns else np.sin(X[:, 0])
    model = MLPRegressor(max_iter=20, random_state=0, activation="gelu").fit(X, y.ravel() if columns == (1,) else y)
    assert_same(model, run(cd.onnx.to_model(model), X=X), X)


def test_dropout_may_stay_in_the_model(X):
    model = MLPClassifier((30,), dropout=0.5, max_iter=5, random_state=0).fit(X, X[:, 0] > 3)
    made = cd.onnx.to_model(model, mc=True)
    assert_same(model, run(made, X=X), X)
    drawn = run(made, X=X, training_mode=np.array(True))
    assert np.abs(drawn["probabilities"] - model.predict_proba(X)).max() > 0.01
    np.testing.assert_array_equal(drawn["label"], drawn["probabilities"][:, 1] > 0.5)


# Pipelines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mc", [False, True])
def test_a_pipeline_begins_with_its_first_steps(mc, X, tmp_path):
    X[::7, 1] = np.nan
    steps = SimpleImputer(), StandardScaler(), "passthrough", PCA(3)
    model = make_pipeline(*steps, MLPClassifier((9,), dropout=0.2, max_iter=20, random_state=0))
    model.fit(X, np.array(["a", "b", "c"])[np.arange(150) % 3])
    cd.onnx.export(model, tmp_path / "model.onnx", mc=mc)
    made = cd.onnx.to_model(model, mc=mc)
    assert (tmp_path / "model.onnx").read_bytes() == made.SerializeToString(deterministic=True)
    assert [entry.name for entry in made.graph.input] == ["X", "training_mode"][: 1 + mc]
    assert_same(model, run(made, X=X), X)
    target = make_pipeline(StandardScaler(), MLPRegressor(max_iter=20, random_state=0)).fit(X[:, :1], X[:, 0])
    assert_same(target, run(cd.onnx.to_model(target), X=X[:, :1]), X[:, :1])


@pytest.mark.parametrize("steps", [[], ["passthrough"], [None, "passthrough"]])
def test_a_pipeline_of_nothing_but_the_network_needs_no_other_package(steps, X, monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    model = make_pipeline(*steps, MLPRegressor(max_iter=5, random_state=0)).fit(X, X[:, 0])
    assert_same(model, run(cd.onnx.to_model(model), X=X), X)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_pipeline_of_a_table_has_an_input_for_each_column(precision, X):
    frame = pd.DataFrame({
        "size": X[:, 0].astype(precision), "town": np.where(X[:, 1] > 3, "A", "B"), "rooms": np.arange(150) % 5,
    })  # fmt: skip
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [("numbers", numbers, ["size", "rooms"]), ("towns", OneHotEncoder(handle_unknown="ignore"), ["town"])]
    )
    model = make_pipeline(columns, MLPClassifier(max_iter=20, random_state=0)).fit(frame, X[:, 2] > 3)
    made = cd.onnx.to_model(model, example=frame)
    assert sorted(entry.name for entry in made.graph.input) == ["rooms", "size", "town"]
    frame.loc[3, "town"] = "unknown"
    kinds = {"size": np.float32, "town": object, "rooms": np.int64}
    inputs = {name: frame[[name]].to_numpy(kind) for name, kind in kinds.items()}
    assert_same(model, run(made, **inputs), frame)
    with pytest.raises(ValueError, match=r"skl2onnx does not convert the steps .* give example=X\[:1\]"):
        cd.onnx.to_model(model)


def test_steps_that_cannot_be_converted_are_refused_with_what_to_do(X, tmp_path, monkeypatch):
    model = make_pipeline(FunctionTransformer(np.sort), MLPRegressor(max_iter=5)).fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"skl2onnx does not convert the steps before the network .* export the pipel"):
        cd.onnx.export(model, tmp_path / "model.onnx", example=X)
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ImportError, match=r"pip install skl2onnx, or export the pipeline's last step alone"):
        cd.onnx.export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


# Errors -----------------------------------------------------------------------------------------------------


def test_what_wraps_an_estimator_is_refused_with_the_name_of_its_network(X):
    y = np.arange(150) % 2
    network = MLPClassifier(max_iter=3, random_state=0)
    wrapped = TransformedTargetRegressor(MLPRegressor(max_iter=3), transformer=StandardScaler())
    for model, name in (
        (CalibratedClassifierCV(network, cv=2), "CalibratedClassifierCV"),
        (wrapped, "TransformedTargetRegressor"),
        (make_pipeline(StandardScaler(), wrapped), "Pipeline that ends with TransformedTargetRegressor"),
    ):
        with pytest.raises(TypeError, match=f"net must be a cydrop.Network, got {name}; .* or its network_"):
            cd.onnx.to_model(model.fit(X, y))


def test_an_estimator_that_is_not_fitted_is_named(X):
    for model in (MLPClassifier(), make_pipeline(StandardScaler(), MLPRegressor())):
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            cd.onnx.to_model(model)
    model = MLPRegressor(max_iter=2).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="example is for pipelines"):
        cd.onnx.to_model(model, example=X)


def test_networks_are_exported_without_scikit_learn():
    program = "import sys, cydrop as cd; cd.onnx.to_model(cd.Network([cd.Dense(2)]).build(3))\n"
    program += "assert 'sklearn' not in sys.modules and 'skl2onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)

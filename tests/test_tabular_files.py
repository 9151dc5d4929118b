"""Estimators for tables in files: what comes back has the same bits, and no file does harm."""

import contextlib
import json
import random
import zipfile

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import cydrop as cd
from cydrop import tabular
from cydrop.tabular import RealMLPClassifier, RealMLPRegressor

FAST = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}


@pytest.fixture
def X(rng):
    n = 60
    return pd.DataFrame({
        "a": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        "b": rng.choice(["x", "ü \" {", "", None], n),
        "c": rng.choice([f"v{number}" for number in range(12)], n),
        "d": rng.choice([1, 2, 3], n),
        "e": pd.Series(rng.choice([1.5, 2, True], n), dtype=object),
    })  # fmt: skip


def pair(estimator, X, y, path):
    """The fitted estimator, and what its file holds."""
    estimator.fit(X, y).save(path)
    return estimator, tabular.load(path)


LABELS = {
    "text": ["no", "yes", "maybe"],
    "numbers": [3, -(2**40), 7],
    "bools": [True, False],
    "floats": [1.0, 2.0],
    "objects": np.array(["b", "a"], dtype=object),
    "one": ["only"],
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("options", [{}, {"n_ensemble": 2, "n_folds": 2}, {"small": True}])
def test_a_classifier_comes_back_with_the_same_bits(labels, options, X, tmp_path):
    y = np.asarray(LABELS[labels])[np.arange(60) % len(LABELS[labels])]
    model, other = pair(RealMLPClassifier(**FAST, **options), X, y, tmp_path / "model")
    np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert other.predict(X).dtype.kind == model.predict(X).dtype.kind
    assert other.get_params() == model.get_params()
    assert other.feature_names_in_.tolist() == list(X)
    assert [history.metrics for history in other.histories_] == [history.metrics for history in model.histories_]
    assert other.best_epochs_ == model.best_epochs_


@pytest.mark.parametrize("targets", [0, 1, 3])
@pytest.mark.parametrize("options", [{}, {"n_ensemble": 2, "n_folds": 2}, {"small": True}])
@pytest.mark.filterwarnings("ignore:A column-vector y", "ignore:nothing is drawn")
def test_a_regressor_comes_back_with_the_same_bits(targets, options, X, tmp_path, rng):
    y = rng.normal(size=(60, targets) if targets else 60) * 1e12
    model, other = pair(RealMLPRegressor(**FAST, **options), X, y, tmp_path / "model")
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    np.testing.assert_array_equal(other.predict_mc(X, 5).mean, model.predict_mc(X, 5).mean)
    again = other.fit(X, y)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_parameters_come_back_as_they_were(X, tmp_path):
    options = {
        "class_weight": {"a": 2.0, "b": 1}, "categorical_features": np.array(["b", "c"]), "label_smoothing": 0.05,
        "learning_rate_init": np.float32(0.25), "numeric_embedding": None, "hidden_layer_sizes": 7,
        "random_state": np.random.RandomState(0), "n_threads": 1,
    }  # fmt: skip
    y = np.array(["a", "b"])[np.arange(60) % 2]
    _, other = pair(RealMLPClassifier(**FAST | options), X[["a", "b", "c"]], y, tmp_path / "model")
    expected = options | {"categorical_features": ["b", "c"], "random_state": None, "n_threads": None}
    assert {name: other.get_params()[name] for name in options} == expected
    assert tabular.load(tmp_path / "model", n_threads=2).n_threads == 2


def test_equal_estimators_give_equal_files_without_pickles(X, tmp_path):
    _, other = pair(RealMLPRegressor(**FAST, n_ensemble=2), X, X["d"], tmp_path / "a")
    other.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert archive.namelist() == [
            "estimator.json", "networks/0.safetensors", "networks/1.safetensors", "calibration.f8",
        ]  # fmt: skip
        json.loads(archive.read("estimator.json"))
        (tmp_path / "net").write_bytes(archive.read("networks/1.safetensors"))
    assert cd.load(tmp_path / "net").layers
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "net"]


def test_what_cannot_be_saved_is_refused_before_anything_is_written(X, tmp_path):
    path = tmp_path / "model"
    with pytest.raises(NotFittedError):
        RealMLPClassifier().save(path)
    with pytest.raises(TypeError, match="path"):
        RealMLPRegressor(**FAST).fit(X, X["d"]).save(3)

    class Mine(RealMLPRegressor):
        pass

    with pytest.raises(ValueError, match="not Mine; pickle it instead"):
        Mine(**FAST).fit(X, X["d"]).save(path)
    model = RealMLPClassifier(**FAST).fit(X, np.arange(60) % 2)
    model.classes_ = np.array([(1,), b"x"], dtype=object)
    with pytest.raises(ValueError, match="cannot be saved: classes_ has b'x'"):
        model.save(path)
    model = RealMLPClassifier(**FAST).fit(X, np.array([1, 2], dtype="timedelta64[ns]")[np.arange(60) % 2])
    with pytest.raises(ValueError, match="cannot be saved: classes_ has dates or times"):
        model.save(path)
    assert not list(tmp_path.iterdir())


# Files that are not what they should be ---------------------------------------------------------------------


@pytest.fixture
def path(X, tmp_path):
    path = tmp_path / "model"
    RealMLPRegressor(**FAST, n_ensemble=2).fit(X, X["d"]).save(path)
    return path


def parts_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, entries, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def refused(path, match="is not an estimator that cydrop.tabular can load"):
    with pytest.raises(ValueError, match=match):
        tabular.load(path)


def test_other_files_are_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        tabular.load(tmp_path / "nothing")
    for name, data in (("empty", b""), ("text", b"hello" * 99), ("pickle", b"\x80\x04.")):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    refused(tmp_path / "arrays.npz", "its entries are")
    cd.Network([cd.Dense(2)], seed=0).build(3).save(tmp_path / "net")
    refused(tmp_path / "net", "read by cydrop.load")
    with pytest.raises(ValueError, match=r"not a network.* estimators for cydrop.tabular.load"):
        cd.load(path)


def test_a_file_that_is_cut_off_or_damaged_is_refused(path, X):
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        refused(path)
    source = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(source.choice([1, 3])):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            tabular.load(path).predict(X)


def test_networks_that_lack_or_do_not_fit_are_refused(path, X):
    entries = parts_of(path)
    names = list(entries)
    written(path, {name: entries[name] for name in names[:2]})
    refused(path, "it has 1 networks, its description 2")
    written(path, {name: entries[name] for name in names[::-1]})
    refused(path, "its entries are")
    written(path, entries | {"more": b"x"})
    refused(path, "its entries are")
    written(path, entries, compression=zipfile.ZIP_DEFLATED)
    refused(path, "compressed or encrypted")
    cd.Network([cd.Dense(1)], loss="mse", seed=0).build(5).save(path.with_name("net"))
    written(path, entries | {names[1]: path.with_name("net").read_bytes()})
    refused(path, "a network of 5 inputs and 1 outputs stands where")
    cd.Network([cd.Dense(1)], loss="mse", seed=0).save(path.with_name("net"))
    written(path, entries | {names[1]: path.with_name("net").read_bytes()})
    refused(path)
    written(path, entries | {names[2]: b"{}"})
    refused(path, "networks/1.safetensors: .*it has only 2 bytes")


def embedding(model, cardinalities):
    """A network with an embedding in place of a fitted estimator's first one."""
    preprocessor = model.parts_[0].preprocessor
    stack = [cd.Embedding(cardinalities, 3), cd.Dense(1)]
    return cd.Network(stack, loss="mse", seed=0).build(preprocessor.width + len(preprocessor.cardinalities))


def test_a_network_that_embeds_other_codes_is_refused(path, X):
    model = tabular.load(path)
    model.parts_[0].networks[0] = embedding(model, model.parts_[0].preprocessor.cardinalities.tolist())
    model.save(path)
    np.testing.assert_array_equal(tabular.load(path).predict(X), model.predict(X))
    model.parts_[0].networks[0] = embedding(model, [7])
    model.save(path)
    refused(path, r"a network embeds \(7,\) codes where there are \[13\]")


def mutants(value, source):
    """Other values in place of one, of any kind."""
    return source.choice([
        None, True, -1, 0, 3, 10**400, 1e308, "text", [], [None], {}, {"a": 1}, [[1]], [value], [value, value],
        value[:-1] if isinstance(value, list | str) else -0.5, "NaN",
    ])  # fmt: skip


def places(value, path=()):
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inside:
        yield from places(entry, (*path, key))


@pytest.mark.filterwarnings("ignore:X has feature names")
def test_a_description_that_does_not_fit_is_refused_or_harmless(path, X):
    entries = parts_of(path)
    description = json.loads(entries["estimator.json"])
    source = random.Random(1)
    for place in list(places(description)):
        changed = json.loads(entries["estimator.json"])
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        if place:
            inside[place[-1]] = mutants(inside[place[-1]], source)
        else:
            changed = mutants(changed, source)
        written(path, entries | {"estimator.json": json.dumps(changed)})
        with contextlib.suppress(ValueError), np.errstate(all="ignore"):
            tabular.load(path).predict(X)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"format": 1}', '{"format": 2}', '{"a": NaN}', '{"a": 1, "a": 2}', "\xff"]
)
def test_other_descriptions_are_refused(text, path):
    written(path, parts_of(path) | {"estimator.json": text.encode("latin1")})
    refused(path)


def test_a_description_may_not_take_more_than_the_file(path, monkeypatch):
    monkeypatch.setattr("cydrop.tabular._files.LONGEST", 100)
    refused(path, "its description has .* bytes; up to 100 are read")
    model = RealMLPRegressor(**FAST).fit([[1.0], [2.0]], [1.0, 2.0])
    with pytest.raises(ValueError, match="cannot be saved: its description takes"):
        model.save(path)

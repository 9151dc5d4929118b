"""Estimators, callbacks and histories that an older cydrop pickled load, and go on bit for bit.

tests/golden/make_estimators.py wrote them. A pickle names classes by module: what moves to another file keeps its name.
"""

import importlib.util
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest

import cydrop as cd
from cydrop import callbacks
from cydrop.sklearn import MLPClassifier, MLPRegressor

FOLDER = Path(__file__).parent / "golden"
spec = importlib.util.spec_from_file_location("make_estimators", FOLDER / "make_estimators.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


@pytest.fixture(scope="module")
def wanted():
    with np.load(FOLDER / "estimators.npz") as file:
        return dict(file)


def unpickled(name):
    return pickle.loads((FOLDER / "pickles" / f"{name}.pickle").read_bytes())


def assert_same(found, expected):
    """The same bits; without the fused multiply-add, with which they were computed, the same but for rounding."""
    if cd.show_config()["fused_multiply_add"]:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", golden.CASES)
def test_an_old_estimator_predicts_what_it_did_and_goes_on_with_the_same_bits(name, wanted):
    model, X, y = unpickled(name), wanted["X"], wanted[f"{name}/y"]
    assert type(model) is type(golden.CASES[name])
    options = golden.CASES[name].get_params() | {"random_state": 3, "n_threads": 1}
    assert repr(model.get_params()) == repr(options)
    np.testing.assert_array_equal(golden.records(model), wanted[f"{name}/records"])
    assert_same(golden.answer(model, X), wanted[f"{name}/before"])
    assert_same(golden.answer(golden.more(name, model, X, y), X), wanted[f"{name}/after"])


def test_old_callbacks_have_their_options_and_what_they_had_seen(wanted):
    stop, reduce, checkpoint, log, bar, function, plain, history = unpickled("callbacks")
    assert (type(stop), stop.monitor, stop.patience, stop.best_epoch) == (callbacks.EarlyStopping, "loss", 2, 4)
    assert stop.best == min(history.metrics["loss"])
    assert (reduce.monitor, reduce.factor, reduce.min_delta) == ("loss", 0.5, 0.25)
    assert (checkpoint.path, checkpoint.monitor, checkpoint.mode) == ("net", "val_auc", "auto")
    assert (log.path, log.append, bar.file) == ("log.csv", True, None)
    assert (type(function), type(plain)) == (callbacks.LambdaCallback, callbacks.Callback)
    assert (type(history), len(history)) == (cd.History, 4)
    net = cd.Network([cd.Dense(3)], seed=0)
    again = net.fit(wanted["X"], np.arange(60) % 3, epochs=3, callbacks=[stop, reduce, bar], verbose=0)
    assert stop.best_epoch == again.best("loss")[0]


NEW = {
    "estimators": lambda: [MLPClassifier(), MLPRegressor()],
    "callbacks": lambda: unpickled("callbacks"),
}


@pytest.mark.parametrize("make", NEW.values(), ids=NEW)
def test_new_pickles_name_no_module_that_users_do_not_import(make):
    data = pickle.dumps(make(), protocol=0)  # protocol 0 names classes in one piece
    names = {arg for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL" and arg.startswith("cydrop")}
    for name in names:
        module, _, cls = name.partition(" ")
        assert module in ("cydrop.sklearn", "cydrop.callbacks", "cydrop.history"), name
        assert not cls.startswith("_"), name
    assert len(names) == len(make())

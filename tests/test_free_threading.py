"""Threads that run at the same time: whatever they share, the bits are those of one alone, or a sentence says no.

Nothing here needs a Python without the global lock; only there do all of these threads really meet.
"""

import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from in_threads import all_returned, switching, together

import cydrop as cd
from cydrop._core import cpu
from cydrop._run.core import core_of

THREADS = 8


@pytest.fixture(autouse=True)
def often():
    with switching(1e-5):
        yield


def make(seed=0, n_threads=1):
    layers = [
        cd.Dropout(0.2), cd.Dense(32), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.5, shared="batch"),
        cd.Dense(16, drop_connect=0.2), cd.LayerNorm(), cd.GELU(), cd.GaussianDropout(0.3), cd.Dense(5),
    ]  # fmt: skip
    return cd.Network(layers, seed=seed, n_threads=n_threads)


def rows(rng, n=300, columns=20):
    return rng.standard_normal((n, columns), dtype=np.float32), rng.integers(0, 5, n)


def arrays_of(net):
    return {**net.parameters(), **net.buffers()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


LOCK = """
import importlib, sys
import numpy
has_lock = getattr(sys, "_is_gil_enabled", lambda: True)
before = has_lock()
import cydrop, cydrop._core
modules = "cpu xorshift dropout noise activations dense norms losses optimizers engine many".split()
for name in modules:
    importlib.import_module("cydrop._core." + name)
print(before, has_lock(), before == has_lock())
"""


def test_the_import_brings_no_lock_where_there_is_none():
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOCK], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("True\n"), done
    assert not done.stderr


@pytest.mark.parametrize("n_threads", [1, 2])
def test_networks_that_train_side_by_side_have_the_bits_of_training_alone(rng, n_threads):
    X, y = rows(rng)

    def trained(seed):
        net = make(seed, n_threads)
        net.fit(X, y, epochs=4, batch_size=32, validation_split=0.2, verbose=0)
        return net, net.predict(X), net.predict_mc(X, 10, seed=seed).std

    alone = [trained(seed) for seed in range(THREADS)]
    side_by_side = all_returned(together(*[lambda seed=seed: trained(seed) for seed in range(THREADS)]))
    for (net, *outputs), (other, *others) in zip(side_by_side, alone, strict=True):
        assert_same(arrays_of(net), arrays_of(other))
        for one, wanted in zip(outputs, others, strict=True):
            np.testing.assert_array_equal(one, wanted)
        assert net.history.metrics["val_loss"] == other.history.metrics["val_loss"]


REFUSALS = "another thread is training this network|backward needs a forward|grad must have shape"


@pytest.mark.parametrize("predicting", [False, True], ids=["training", "training and predicting"])
def test_one_network_in_the_hands_of_many_threads_trains_or_refuses_and_stays_whole(rng, tmp_path, predicting):
    X, y = rows(rng)
    net, rounds = make(n_threads=2), 25
    net.fit(X, y, epochs=1, verbose=0)
    refused = Counter()

    def persistent(call):
        """Makes a call again and again; one that is refused is repeated."""

        def run():
            done = 0
            while done < rounds:
                try:
                    call(done)
                    done += 1
                except (RuntimeError, ValueError) as error:  # the last: of another's forward pass
                    if not re.match(REFUSALS, str(error)):
                        raise
                    refused[call.__name__] += 1
                    time.sleep(1e-4)

        return run

    def fit(number):
        some = 100 + 5 * number
        net.fit(X[:some], y[:some], epochs=1, batch_size=16 + number, verbose=0)

    def train(number):
        net.train_on_batch(X[: 20 + number], y[: 20 + number])

    def predict(number):
        outputs = net.predict(X[: 1 + 37 * number % 300])
        assert np.isfinite(outputs).all()
        np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)
        net.evaluate(X[:50], y[:50])

    def sample(number):
        found = net.predict_mc(X[: 1 + 37 * number % 100], 5, seed=number)
        assert np.isfinite(found.mean).all()
        assert (found.std >= 0).all()

    def save(number):
        net.save(tmp_path / "net")
        assert np.isfinite(cd.load(tmp_path / "net").predict(X)).all()

    def copy(number):
        assert np.isfinite(pickle.loads(pickle.dumps(net)).predict(X)).all()

    def by_hand(number):
        outputs = net.forward(X[: 2 + 13 * number % 200], training=True)
        net.backward(np.ones_like(outputs))
        net.step()

    def change(number):
        net.set_rate(0, 0.1 + 0.01 * number)
        net.optimizer = net.optimizer.with_learning_rate(1e-3 / (1 + number))
        net.n_threads = 1 + number % 2

    def look(number):
        assert all(mask.dtype == np.bool_ for mask in net.masks())
        assert len(net.parameters()) == len(net.gradients())
        assert net.summary()
        assert repr(net.history).startswith("History(")

    calls = (fit, train, save, copy, by_hand, change, look, *((predict, sample) if predicting else ()))
    all_returned(together(*map(persistent, calls)))
    assert not refused.keys() & {"predict", "sample", "look"}
    assert len(net.history) == 1 + rounds
    assert np.isfinite(net.predict(X)).all()
    assert all(np.isfinite(array).all() for array in arrays_of(net).values())
    net.fit(X, y, epochs=1, verbose=0)


def test_predictions_beside_a_training_do_not_disturb_it(rng):
    X, y = rows(rng)
    wanted = make(n_threads=2)
    wanted.fit(X, y, epochs=8, batch_size=16, verbose=0)
    net, ended = make(n_threads=2), threading.Event()
    net.build(X.shape[1])

    def train():
        try:
            net.fit(X, y, epochs=8, batch_size=16, verbose=0)
        finally:
            ended.set()

    def use(call):
        while not ended.is_set():
            assert np.isfinite(call()).all()

    calls = [lambda: net.predict(X), lambda: net.predict_mc(X[:40], 4, seed=1).mean, lambda: net.forward(X[:3])]
    all_returned(together(train, *[lambda call=call: use(call) for call in calls]))
    assert_same(arrays_of(net), arrays_of(wanted))
    np.testing.assert_array_equal(net.predict(X), wanted.predict(X))


def test_what_is_being_pickled_does_not_change_when_another_thread_trains(rng):
    X, y = rows(rng)
    net = make()
    net.fit(X, y, epochs=1, verbose=0)
    wanted = net.predict(X)
    state = net.__getstate__()  # pickle writes it later, when others may have their turn
    (history,) = all_returned(together(lambda: net.fit(X, y, epochs=1, verbose=0)))
    assert len(history) == 2
    copy = cd.Network.__new__(cd.Network)
    copy.__setstate__(state)
    np.testing.assert_array_equal(copy.predict(X), wanted)
    copy.fit(X, y, epochs=1, verbose=0)
    assert_same(arrays_of(copy), arrays_of(net))


def test_one_thread_at_a_time_has_the_turn():
    turn, count = cpu.Turn("taken"), 0

    def take():
        nonlocal count
        own = 0
        for _ in range(60_000):
            try:
                with turn:
                    count += 1  # read, then written: what another thread does in between would be lost
                    own += 1
            except RuntimeError as error:
                if str(error) != "taken":
                    raise
        return own

    for _ in range(6):  # two threads may come in together; they need not
        count = 0
        assert sum(all_returned(together(*[take] * THREADS))) == count > 0
        assert turn.depth == 0
    with turn, turn:  # calls nest
        assert turn.depth == 2
        (found,) = together(turn.__enter__)
    assert isinstance(found, RuntimeError)


def test_threads_that_come_first_build_one_model(rng):
    X, _ = rows(rng, 4, 120)
    wanted = make().predict(X)
    for _ in range(25):
        net = make()
        found = all_returned(together(*[lambda net=net: (net.predict(X), core_of(net).model)] * THREADS))
        assert len({id(model) for _, model in found}) == 1
        for outputs, _ in found:
            np.testing.assert_array_equal(outputs, wanted)


def test_threads_that_share_a_generator_get_each_word_once():
    shared, each, size = cd.Xorshift(5), 60, 701
    words = cd.Xorshift(5).random_raw(THREADS * each * size)

    def draw():
        return [shared.random_raw(size) for _ in range(each)]

    drawn = all_returned(together(*[draw] * THREADS))
    found = np.concatenate([part for parts in drawn for part in parts])
    np.testing.assert_array_equal(np.sort(found), np.sort(words))
    firsts = {part[0] for parts in drawn for part in parts}
    assert firsts == set(words[::size])  # each call drew its words in one go


def test_calls_of_fit_many_go_on_side_by_side(rng):
    X, y = rows(rng)

    def trained(place):
        nets = [make(10 * place + number) for number in range(3)]
        cd.fit_many(nets, X, y, epochs=3, batch_size=32, n_threads=2, verbose=0)
        return nets

    alone = [trained(place) for place in range(4)]
    side_by_side = all_returned(together(*[lambda place=place: trained(place) for place in range(4)]))
    for nets, wanted in zip(side_by_side, alone, strict=True):
        for net, other in zip(nets, wanted, strict=True):
            assert_same(arrays_of(net), arrays_of(other))


def test_of_two_calls_of_fit_many_that_share_a_network_one_is_refused_or_waits_its_turn(rng):
    X, y = rows(rng)
    shared = make()
    shared.build(X.shape[1])

    def train(place):
        cd.fit_many([make(place), shared], X, y, epochs=3, verbose=0)

    found = together(*[lambda place=place: train(place) for place in range(1, 5)])
    refused = [one for one in found if one is not None]
    assert all(isinstance(one, RuntimeError) and "another thread is training" in str(one) for one in refused), found
    assert len(shared.history) == 3 * (4 - len(refused)) > 0


def test_an_ensemble_predicts_in_many_threads(rng):
    X, _ = rows(rng)
    ensemble = cd.Ensemble([make(seed) for seed in range(3)])
    wanted = cd.Ensemble([make(seed) for seed in range(3)])
    outputs, spread = wanted.predict(X), wanted.predict_mc(X, 4, seed=0).std
    calls = [lambda: ensemble.predict(X), lambda: ensemble.predict_mc(X, 4, seed=0).std] * (THREADS // 2)
    for found, expected in zip(all_returned(together(*calls)), [outputs, spread] * (THREADS // 2), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:max_iter=2 epochs ended")
def test_an_estimator_predicts_in_many_threads(rng):
    from cydrop.sklearn import MLPClassifier

    X, y = rows(rng)
    estimator = MLPClassifier(hidden_layer_sizes=(16,), max_iter=2, random_state=0).fit(X, y)
    wanted = estimator.predict_proba(X)
    for found in all_returned(together(*[lambda: estimator.predict_proba(X)] * THREADS)):
        np.testing.assert_array_equal(found, wanted)


def test_functions_in_many_threads_have_the_bits_of_one(rng):
    X, _ = rows(rng)
    W, b = rng.standard_normal((20, 40), dtype=np.float32), rng.standard_normal(40, dtype=np.float32)

    def work(seed):
        z = cd.functional.dense(X, W, b, n_threads=2)
        return cd.functional.dropout(cd.functional.gelu(z), 0.3, seed=seed, n_threads=2)

    found = all_returned(together(*[lambda seed=seed: work(seed) for seed in range(THREADS)]))
    for seed, one in enumerate(found):
        np.testing.assert_array_equal(one, work(seed))


def test_a_history_can_be_read_while_another_thread_writes_it():
    history, ended = cd.History(), threading.Event()

    def write():
        try:
            for epoch in range(800):
                history.append({"loss": 1.0, f"metric {epoch % 100}": float(epoch)})
        finally:
            ended.set()

    def read():
        while not ended.is_set():
            assert len(history) <= 800
            assert repr(history).startswith("History(")

    all_returned(together(write, read, read))
    assert len(history) == 800

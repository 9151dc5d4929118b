"""Ctrl-C: interrupts at known steps, and real signals to a child process in the middle of `fit`."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import cydrop as cd
from cydrop._run import model, training
from cydrop._run.core import core_of

posix = pytest.mark.skipif(os.name != "posix", reason="Windows cannot send SIGINT to one process alone")

# The child trains until it is interrupted, then uses what is left of the network in every way and reports.
CHILD = """
import json, os, signal, sys, threading, time
import numpy as np
import cydrop as cd
from cydrop._run.core import core_of

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in a shell's background ignores it
folder, layers, rows, validation_rows, threads = sys.argv[1], json.loads(sys.argv[2]), *map(int, sys.argv[3:])
rng = np.random.default_rng(0)
X = rng.standard_normal((rows, layers[0]), dtype=np.float32)
y = (X[:, 0] > 0).astype(int)
Xv = rng.standard_normal((validation_rows, layers[0]), dtype=np.float32)
yv = rng.integers(0, 2, validation_rows)  # noise: the best epoch is an early one
hidden = [layer for units in layers[1:] for layer in (cd.Dense(units), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.5))]
net = cd.Network([*hidden, cd.Dense(2)], seed=0, n_threads=threads)
net.build(layers[0])

kept, ended = {}, []
def keep(network, epoch, metrics):
    kept[epoch] = network.predict(X[:50])
    if epoch == 2:
        print("two epochs", flush=True)
stop = cd.callbacks.EarlyStopping(patience=10**6)
callbacks = [
    cd.callbacks.LambdaCallback(keep, on_train_end=lambda network: ended.append(1)), stop,
    cd.callbacks.CSVLogger(folder + "/log.csv"), cd.callbacks.Checkpoint(folder + "/last"),
    cd.callbacks.LambdaCallback(on_train_end=lambda network: ended.append(2)),
]
interrupted = 0.0
try:
    try:
        net.fit(X, y, epochs=10**7, batch_size=100, validation_data=(Xv, yv), callbacks=callbacks, verbose=0)
    except KeyboardInterrupt:
        interrupted = time.time()
        time.sleep(0.3)  # here a second signal is at home
except KeyboardInterrupt:
    pass
busy = time.process_time()
time.sleep(0.3)
report = {
    "interrupted": interrupted,
    "busy": time.process_time() - busy,
    "ended": ended,
    "epochs": len(net.history),
    "lengths": sorted({len(values) for values in net.history.metrics.values()}),
    "best_is_back": stop.best_epoch > 0 and bool((net.predict(X[:50]) == kept[stop.best_epoch]).all()),
}
before = net.predict(X[:50])
net.save(folder + "/saved")
report["loads"] = bool((cd.load(folder + "/saved").predict(X[:50]) == before).all())
more = [net, cd.load(folder + "/saved")]
for one in more:
    one.fit(X[:1000], y[:1000], epochs=2, verbose=0)
one, other = (network.predict(X[:50]) for network in more)
report["goes_on"] = bool((one == other).all() and (one != before).any())
report["finite"] = bool(np.isfinite(net.predict(X)).all() and np.isfinite(net.evaluate(X, y)["loss"]))
report["numbered"] = len(net.history) == report["epochs"] + 2 == core_of(net).epochs
print(json.dumps(report), flush=True)
"""

SMALL = [8, 16]
LARGE = [256, 512, 512]


def interrupted(folder, layers, rows, validation_rows=200, threads=2, waits=(0.2,)):
    """The child's report after a signal at each of the waits, and the time when the first was sent."""
    arguments = [str(folder), json.dumps(layers), str(rows), str(validation_rows), str(threads)]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "two epochs\n"
        sent = []
        for wait in waits:
            time.sleep(wait)
            child.send_signal(signal.SIGINT)
            sent.append(time.time())
        output, _ = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 0
    return json.loads(output), sent[0]


def check(report, folder):
    assert report["ended"] == [1, 2]
    assert report["epochs"] >= 2
    assert report["lengths"] == [report["epochs"]]
    assert report["best_is_back"]
    assert report["loads"]
    assert report["goes_on"]
    assert report["finite"]
    assert report["numbered"]
    with open(folder / "log.csv", newline="") as file:
        rows = [int(row["epoch"]) for row in csv.DictReader(file)]
    assert rows == list(range(1, len(rows) + 1))
    # one less, where the interrupt came before the row or within the saving
    assert len(rows) in (report["epochs"], report["epochs"] - 1)
    assert len(cd.load(folder / "last").history) in (report["epochs"], report["epochs"] - 1)
    assert sorted(os.listdir(folder)) == ["last", "log.csv", "saved"]


@posix
@pytest.mark.parametrize(("layers", "rows"), [(SMALL, 1000), (LARGE, 3000)])
def test_an_interrupted_network_can_be_used_saved_and_trained_further(tmp_path, layers, rows):
    report, sent = interrupted(tmp_path, layers, rows)
    check(report, tmp_path)
    assert 0 <= report["interrupted"] - sent < 5
    assert report["busy"] < 0.15  # of .3 s: no thread spins


class InterruptedEngine(model.Engine):
    """An engine that is interrupted before a training call, when none is left."""

    left = math.inf

    def train(self, *arguments):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().train(*arguments)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_an_interrupted_epoch_leaves_the_state_after_its_last_step(rng, monkeypatch, steps):
    """The same parameters, running statistics and masks, bit for bit, as the steps by hand."""
    monkeypatch.setattr(training, "STRETCH_SECONDS", 0.0)  # a call of the engine for each batch
    monkeypatch.setattr(model, "Engine", InterruptedEngine)
    X, y = rng.standard_normal((10, 5)), rng.integers(0, 2, 10)

    def make():
        layers = [cd.Dense(6), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.5), cd.Dense(2)]
        return cd.Network(layers, optimizer=cd.SGD(0.1, momentum=0.9), seed=0).build(5)

    net, by_hand = make(), make()
    core_of(net).model.ready().left = steps
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y, epochs=9, batch_size=4, shuffle=False, verbose=0)
    core_of(net).model.ready().left = math.inf
    for step in range(steps):
        part = slice(4 * (step % 3), 4 * (step % 3) + 4)
        by_hand.train_on_batch(X[part], y[part])
    assert len(net.history) == steps // 3
    for one, other in zip(net.masks(), by_hand.masks(), strict=True):
        np.testing.assert_array_equal(one, other)
    for what in ("parameters", "buffers"):
        for name, array in getattr(net, what)().items():
            np.testing.assert_array_equal(array, getattr(by_hand, what)()[name])
    for one in (net, by_hand):
        one.train_on_batch(X, y)
    assert net.predict(X).tobytes() == by_hand.predict(X).tobytes()


@posix
def test_an_interrupt_within_validation_counts_the_epoch_nowhere(tmp_path):
    """Nearly all of the time is validation's."""
    report, _ = interrupted(tmp_path, LARGE, 100, validation_rows=20_000, waits=(0.3,))
    check(report, tmp_path)


@posix
@pytest.mark.parametrize("gap", [0.0, 0.0005, 0.002, 0.01])
def test_two_signals_in_quick_succession(tmp_path, gap):
    report, _ = interrupted(tmp_path, SMALL, 1000, waits=(0.1, gap))
    assert report["lengths"] == [report["epochs"]]
    assert report["loads"]
    assert report["goes_on"]
    assert report["finite"]
    assert cd.load(tmp_path / "last").predict([[0.0] * 8]).shape == (1, 2)


SAVER = """
import signal, sys
import cydrop as cd
signal.signal(signal.SIGINT, signal.default_int_handler)
net = cd.Network([cd.Dense(700), cd.ReLU(), cd.Dense(700), cd.ReLU(), cd.Dense(2)], seed=0).build(500)
save = cd.callbacks.Checkpoint(sys.argv[1] + "/net")
save.on_epoch_end(net, 1, {})
try:
    print("saved", flush=True)
    while True:
        save.on_epoch_end(net, 1, {})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@posix
@pytest.mark.parametrize("wait", [0.0, 0.003, 0.011])
def test_a_checkpoint_is_whole_when_its_saving_is_interrupted(tmp_path, wait):
    child = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "saved\n"
        time.sleep(wait)
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=60)[0] == "interrupted\n"
    finally:
        child.kill()
    assert os.listdir(tmp_path) == ["net"]
    assert cd.load(tmp_path / "net").predict([[0.0] * 500]).shape == (1, 2)

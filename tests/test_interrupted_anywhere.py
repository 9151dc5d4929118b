"""Interrupts and lack of memory at random places of everything that changes a network or a file.

    python tests/test_interrupted_anywhere.py [TRIALS] [SEED] [file]

Each trial makes a network, starts to do something with it, and breaks it off: with KeyboardInterrupt or MemoryError
before some bytecode of cydrop's, with a real signal after some microseconds, or by a limit of the process's memory.
What is left must be usable in every way: weights drawn or trained, finite, the network saved, loaded, pickled and
trained further with the same bits, and the file that was there before, or the new one, whole. With `file` the weights
of the beginning of a pass are in a file, which usually those of large networks are.
"""

import contextlib
import os
import pickle
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import cydrop as cd
from cydrop import exchange, saving  # noqa: F401 - imported before anything is broken off
from cydrop._run import beginning

SOURCE = str(Path(cd.__file__).parent)
if os.name == "posix":
    import resource

    WAYS, SHARES = ["opcode", "signal", "memory"], [0.6, 0.2, 0.2]
else:  # Windows has neither limits nor alarms
    WAYS, SHARES = ["opcode"], [1.0]


class Broken(Exception):
    """What is left of a network or file cannot be used."""


def network(rng, wide, seed=0):
    width = 400 if wide else 6
    layers = [
        cd.Dense(width), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.3), cd.Dense(width, drop_connect=0.1),
        cd.LayerNorm(), cd.Dense(3),
    ]  # fmt: skip
    kinds = [cd.Adam(1e-2), cd.SGD(1e-2, momentum=0.9), cd.RMSprop(), cd.Adagrad(), cd.AdamW()]
    return cd.Network(layers, optimizer=kinds[rng.integers(5)], seed=seed, n_threads=1)


def data(rng, wide):
    columns = 300 if wide else 5
    return rng.standard_normal((24, columns)).astype(np.float32), rng.integers(0, 3, 24)


# What is broken off -------------------------------------------------------------------------------------------


def first_prediction(net, X, y, folder):
    net.predict(X)


def build(net, X, y, folder):
    net.build(X.shape[1])


def fit(net, X, y, folder):
    callbacks = [cd.callbacks.EarlyStopping("loss", patience=1), cd.callbacks.Checkpoint(folder / "net")]
    net.fit(X, y, epochs=3, batch_size=7, verbose=0, callbacks=callbacks)


def fit_with_a_growing_rate(net, X, y, folder):
    net.optimizer = cd.SGD(1e30)
    with contextlib.suppress(cd.DivergedError):
        net.fit(X, y, epochs=2, batch_size=12, verbose=0)


def train_on_batch(net, X, y, folder):
    net.train_on_batch(X, y)


def partial_fit(net, X, y, folder):
    net.partial_fit(X, y, batch_size=5)


def by_hand(net, X, y, folder):
    z = net.forward(X, training=True)
    net.backward(np.ones_like(z) / 100)
    net.step()


def optimizer_of_another_kind(net, X, y, folder):
    net.optimizer = cd.SGD(1e-3, momentum=0.5) if isinstance(net.optimizer, cd.Adam) else cd.Adam(1e-3)


def learning_rate(net, X, y, folder):
    net.optimizer = net.optimizer.with_learning_rate(1e-4)


def loss(net, X, y, folder):
    net.loss = cd.losses.CrossEntropy(label_smoothing=0.1, r_drop=0.5)


def rate(net, X, y, folder):
    net.set_rate(3, 0.6)


def threads(net, X, y, folder):
    net.n_threads = 2
    net.n_threads = 1


def save(net, X, y, folder):
    net.save(folder / "net")


def load(net, X, y, folder):
    cd.load(folder / "net", n_threads=1)


def copy(net, X, y, folder):
    pickle.loads(pickle.dumps(net))


def state_dict(net, X, y, folder):
    built = net.build(X.shape[1])
    exchange.load_state_dict(built, exchange.to_state_dict(network(np.random.default_rng(0), len(X[0]) > 5, 9).build(
        X.shape[1])))  # fmt: skip


ACTIONS = [
    first_prediction, build, fit, fit_with_a_growing_rate, train_on_batch, partial_fit, by_hand,
    optimizer_of_another_kind, learning_rate, loss, rate, threads, save, load, copy, state_dict,
]  # fmt: skip


# How it is broken off -----------------------------------------------------------------------------------------


def at_an_opcode(rng, action, again):
    """Before a bytecode of cydrop's that a first, whole run on a copy says there is."""

    def run(call, stop_at, error):
        left = [stop_at]

        def trace(frame, event, argument):
            if not frame.f_code.co_filename.startswith(SOURCE):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "opcode":
                left[0] -= 1
                if left[0] == 0:
                    raise error
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        except (KeyboardInterrupt, MemoryError):
            pass
        finally:
            sys.settrace(before)
        return stop_at - left[0]

    counted = run(again, 10**12, KeyboardInterrupt)
    run(action, int(rng.integers(1, max(2, counted + 1))), [KeyboardInterrupt, MemoryError][rng.integers(2)])


def by_a_signal(rng, action, again):
    """After a random part of the time that it takes."""
    start = time.perf_counter()
    again()
    took = time.perf_counter() - start

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.random() * took))
        action()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def by_a_limit(rng, action, again):
    """With little more memory than there is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(rng.integers(0, 6 * 2**20)), hard))
    try:
        action()
    except (MemoryError, OSError):  # the system's word for it, where it opens files
        pass
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# What must be left --------------------------------------------------------------------------------------------


def check(net, whole, X, y, folder):
    """`whole` is a copy from before. Everything works, and goes on with the same bits from a file and a pickle."""
    built = True
    try:
        parameters = net.parameters()
    except RuntimeError:
        built = False
    if built:
        for name, value in parameters.items():
            if not np.isfinite(value).all() or (name.endswith("weight") and not value.any()):
                raise Broken(f"{name} is not finite, or all of it is 0")
        if not all(np.isfinite(value).all() for value in net.buffers().values()):
            raise Broken("running statistics are not finite")
    before = net.predict(X)
    if not built and not np.array_equal(before, whole.predict(X)):
        raise Broken("the first prediction is not that of a fresh network")
    if not np.isfinite(before).all():
        raise Broken("predictions are not finite")
    if (folder / "net").exists():
        cd.load(folder / "net", n_threads=1).predict(X)
    if net.optimizer.learning_rate > 1:
        net.optimizer = cd.SGD(1e-3)
    net.save(folder / "after")
    more = [net, cd.load(folder / "after", n_threads=1), pickle.loads(pickle.dumps(net))]
    if any(not np.array_equal(one.predict(X), before) for one in more):
        raise Broken("a file or pickle predicts otherwise")
    for one in more:
        with contextlib.suppress(cd.DivergedError):  # of finite but huge weights, and then in all three
            one.fit(X, y, epochs=1, batch_size=10, verbose=0)
        one.forward(X, training=True)
    if any(not np.array_equal(one.predict(X), net.predict(X), equal_nan=True) for one in more):
        raise Broken("a file or pickle goes on otherwise")
    if any(not np.array_equal(a, b) for one in more for a, b in zip(one.masks(), net.masks(), strict=True)):
        raise Broken("a file or pickle draws other masks")
    if len({len(values) for values in net.history.metrics.values()}) > 1:
        raise Broken(f"a history of unequal lengths: {net.history.metrics}")
    left = sorted(set(os.listdir(folder)) - {"net", "after"})
    if left:
        raise Broken(f"temporary files are left: {left}")


def trial(seed):
    rng = np.random.default_rng(seed)
    way = WAYS[rng.choice(len(WAYS), p=SHARES)]
    action = ACTIONS[rng.integers(len(ACTIONS))]
    wide = way == "memory"
    X, y = data(rng, wide)
    net = network(rng, wide)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if rng.random() < 0.5 and action is not first_prediction:
            net.fit(X, y, epochs=2, batch_size=8, verbose=0)
        if rng.random() < 0.5 or action is load:
            network(rng, wide, 5).build(X.shape[1]).save(folder / "net")
        whole, spare = pickle.loads(pickle.dumps(net)), pickle.loads(pickle.dumps(net))
        with tempfile.TemporaryDirectory() as other:
            network(rng, wide, 5).build(X.shape[1]).save(Path(other) / "net")
            how = {"opcode": at_an_opcode, "signal": by_a_signal, "memory": by_a_limit}[way]
            try:
                how(rng, lambda: action(net, X, y, folder), lambda: action(spare, X, y, Path(other)))
                check(net, whole, X, y, folder)
            except Exception as error:
                raise Broken(f"trial {seed}: {action.__name__}, broken off by {way}: {error!r}") from error


# an interrupt between opening a file and holding it leaves the closing to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("part", range(4))
def test_what_is_broken_off_anywhere_leaves_usable_networks_and_files(part, monkeypatch):
    if part % 2:  # the weights of the beginning of a pass in a file
        monkeypatch.setattr(beginning, "LARGE", 0)
        monkeypatch.setattr(beginning, "LONG", 0)
    for seed in range(part * 75, part * 75 + 75):
        trial(seed)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "file"]
    trials, first = (int(text) for text in [*words, *["5000", "0"][len(words) :]])
    if "file" in sys.argv:
        beginning.LARGE = beginning.LONG = 0
    wrong = []
    for seed in range(first, first + trials):
        try:
            trial(seed)
        except Broken as error:
            wrong.append(str(error))
            print(error, flush=True)
    print(f"{trials} broken off, {len(wrong)} left something that cannot be used")
    sys.exit(bool(wrong))

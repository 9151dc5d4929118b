"""One network or layer in several threads: they predict side by side, wait for the first weights, and never mix."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from in_threads import switching, together

import cydrop as cd
from cydrop._run.core import core_of


@pytest.fixture(autouse=True)
def often():
    with switching(1e-6):
        yield


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a child, which Windows cannot")


def in_a_child(call):
    """How a forked child ends that makes a call: 0 where it returns, within 20 seconds."""
    child = os.fork()
    if not child:
        try:
            signal.alarm(20)
            call()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def make():
    return cd.Network([cd.Dense(60), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)], seed=0, n_threads=1)


def test_threads_that_come_first_get_the_same_first_weights(rng):
    X = rng.standard_normal((4, 200)).astype(np.float32)
    wanted = make().predict(X)
    for _ in range(60):
        net = make()
        for found in together(*[lambda net=net: net.predict(X)] * 4):
            np.testing.assert_array_equal(found, wanted)


def test_the_network_of_a_layer_alone_is_made_once(rng):
    X = rng.standard_normal((4, 100)).astype(np.float32)
    for _ in range(20):
        layer = cd.Dense(30)
        found = together(*[lambda layer=layer: layer.forward(X, training=False)] * 4)
        for one in found:
            np.testing.assert_array_equal(one, found[0])


class Busy:
    """A network that another thread trains for as long as the block lasts."""

    def __enter__(self):
        self.net = make()
        begun, self.end = threading.Event(), threading.Event()
        X, y = np.eye(8, dtype=np.float32), np.arange(8) % 3

        def wait(network, epoch, metrics):
            begun.set()
            self.end.wait()

        callbacks = [cd.callbacks.LambdaCallback(wait)]
        self.thread = threading.Thread(
            target=lambda: self.net.fit(X, y, epochs=1, verbose=0, callbacks=callbacks)
        )  # fmt: skip
        self.thread.start()
        begun.wait()
        return self.net

    def __exit__(self, *error):
        self.end.set()
        self.thread.join()


def assign(name, value):
    return lambda net: setattr(net, name, value)


X8, Y8 = np.eye(8, dtype=np.float32), np.arange(8) % 3


@pytest.mark.parametrize("call", [
    lambda net: net.fit(X8, Y8, epochs=1, verbose=0), lambda net: net.partial_fit(X8, Y8),
    lambda net: net.train_on_batch(X8, Y8), lambda net: net.forward(X8, training=True),
    lambda net: net.backward(np.ones((8, 3))), lambda net: net.step(), assign("optimizer", "sgd"),
    assign("loss", "mse"), assign("n_threads", 2), lambda net: net.set_rate(3, 0.1), lambda net: net.save("nowhere"),
    lambda net: net.__getstate__(),
], ids=["fit", "partial_fit", "train_on_batch", "forward", "backward", "step", "optimizer", "loss", "n_threads",
        "set_rate", "save", "pickle"])  # fmt: skip
def test_a_second_thread_that_trains_or_changes_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Busy() as net, pytest.raises(RuntimeError, match="another thread is training this network"):
        call(net)
    assert not os.listdir(tmp_path)
    net.fit(X8, Y8, epochs=1, verbose=0)  # and afterwards all is free
    net.set_rate(3, 0.1)


def test_predictions_go_on_beside_a_training():
    with Busy() as net:
        assert net.predict(X8).shape == (8, 3)
        assert net.predict_mc(X8, 3, seed=0).mean.shape == (8, 3)
        assert set(net.evaluate(X8, Y8)) == {"loss", "accuracy"}
        assert net.forward(X8).shape == (8, 3)


def test_the_calls_of_one_thread_nest(tmp_path):
    net = make()

    def use(network, epoch, metrics):
        network.train_on_batch(X8, Y8)
        network.optimizer = network.optimizer.with_learning_rate(1e-4)
        network.set_rate(3, 0.2)
        network.save(tmp_path / "net")
        if epoch == 1:
            network.fit(X8, Y8, epochs=1, verbose=0)

    net.fit(X8, Y8, epochs=2, verbose=0, callbacks=[cd.callbacks.LambdaCallback(use)])
    assert len(net.history) == 3


def test_a_refused_or_failing_call_gives_the_turn_back():
    net = make()
    with pytest.raises(ValueError, match="epochs"):
        net.fit(X8, Y8, epochs=0)

    def fail(network, epoch, metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        net.fit(X8, Y8, epochs=1, verbose=0, callbacks=[cd.callbacks.LambdaCallback(fail)])
    (found,) = together(lambda: net.train_on_batch(X8, Y8))
    assert isinstance(found, float)


@pytest.mark.parametrize(("before", "after"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.25)])
def test_samples_are_drawn_with_the_rates_of_one_network_whatever_another_thread_sets(rng, before, after):
    X = rng.standard_normal((40, 8)).astype(np.float32)

    def network(rate, optimizer="sgd"):
        layers = [cd.Dense(16, drop_connect=rate), cd.Dropout(0.5), cd.Dense(2)]
        return cd.Network(layers, optimizer=optimizer, seed=0, n_threads=1).build(8)

    def learning_rate(progress):  # the one function of the user's that is called while samples are set up
        if calls:
            together(calls.pop())
        return 0.1

    calls = []
    net = network(before, cd.SGD(learning_rate))
    for rate, setting in ((before, lambda: net.set_rate(0, after)), (after, lambda: None)):
        calls.append(setting)
        np.testing.assert_array_equal(net.predict_mc(X, 5, seed=1).mean, network(rate).predict_mc(X, 5, seed=1).mean)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_does_not_wait_for_a_thread_of_its_parent():
    with Busy() as net:
        assert in_a_child(lambda: net.train_on_batch(X8, Y8)) == 0


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_builds_a_network_that_a_thread_of_its_parent_was_building(monkeypatch):
    begun, go_on, parent = threading.Event(), threading.Event(), os.getpid()
    drawn = cd.Dense.initial_weight

    def slow(layer, *arguments):
        if os.getpid() == parent:
            begun.set()
            go_on.wait()
        return drawn(layer, *arguments)

    monkeypatch.setattr(cd.Dense, "initial_weight", slow)
    net = make()
    building = threading.Thread(target=lambda: net.build(8))
    building.start()
    begun.wait()
    try:
        assert in_a_child(lambda: net.predict(X8)) == 0
    finally:
        go_on.set()
        building.join()


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_draws_from_a_generator_that_a_thread_of_its_parent_was_using():
    generator, begun, go_on = cd.Xorshift(0), threading.Event(), threading.Event()

    def hold():
        with generator._lock():
            begun.set()
            go_on.wait()

    drawing = threading.Thread(target=hold)
    drawing.start()
    begun.wait()
    try:
        assert in_a_child(lambda: generator.random(4)) == 0
        assert in_a_child(lambda: in_a_child(lambda: generator.random(4)) and os._exit(2)) == 0
    finally:
        go_on.set()
        drawing.join()
    assert generator.random() == cd.Xorshift(0).random()


def test_workspaces_of_many_threads_do_not_stay(rng):
    X = rng.standard_normal((300, 20)).astype(np.float32)
    net = make().build(20)
    together(*[lambda: net.predict(X)] * 32)
    assert sum(len(idle) for idle in core_of(net).model.idle.values()) <= 4


CHILD = """
import os, resource, warnings
import numpy as np, numpy.random
import cydrop as cd
if os.getuid() == 0:  # limits of processes do not bind root
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
X = np.random.default_rng(0).standard_normal((2000, 200)).astype(np.float32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    net = cd.Network([cd.Dense(300), cd.ReLU(), cd.Dense(3)], seed=0, n_threads=2)
net.fit(X, np.arange(2000) % 3, epochs=1, verbose=0)
print(net.n_threads, [str(warning.message) for warning in caught], net.predict(X).shape)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no limit of threads")
def test_where_no_thread_can_start_one_does_the_work():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60)
    said = "the system does not let this process start 1 more threads: cydrop runs on one"
    assert done.stdout == f"1 ['{said}'] (2000, 3)\n", done

"""Training that overflows ends in DivergedError with a finite network, whichever update it was; never silently."""

import copy

import numpy as np
import pytest

import cydrop as cd
from cydrop._run.core import core_of

HUGE = 1e38


def network(rate=1e-3, *middle, loss="mse", optimizer=None):
    layers = [cd.Dense(8), *middle, cd.ReLU(), cd.Dense(1 if loss == "mse" else 2)]
    return cd.Network(layers, loss=loss, optimizer=optimizer or cd.SGD(rate), seed=0, n_threads=1)


@pytest.fixture
def table(rng):
    return rng.standard_normal((100, 4)).astype(np.float32), 1e3 * rng.standard_normal(100)


def state(net):
    return {name: array.copy() for name, array in (net.parameters() | net.buffers()).items()}


def assert_same(net, before):
    for name, array in state(net).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("batch_size", [1, 33, 99, 100])
@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_the_last_update_of_an_epoch_is_looked_at(table, batch_size, epochs):
    net = network(HUGE).build(4)
    before = state(net)
    with pytest.raises(cd.DivergedError) as caught:
        net.fit(*table, epochs=epochs, batch_size=batch_size, verbose=0)
    assert (caught.value.epoch, caught.value.batch) in {(1, batch) for batch in (1, 2, 3)}
    assert_same(net, before)
    assert len(net.history) == 0


def test_the_state_of_the_last_good_epoch_is_put_back(table):
    net = network(1e-7, cd.BatchNorm())
    kept = []

    def grow(network, epoch, metrics):
        kept.append(state(network))
        if epoch == 3:
            network.optimizer = cd.SGD(HUGE)

    with pytest.raises(cd.DivergedError, match="epoch 4, batch 1"):
        net.fit(*table, epochs=9, batch_size=100, verbose=0, callbacks=[cd.callbacks.LambdaCallback(grow)])
    assert_same(net, kept[2])
    assert len(net.history) == 3


@pytest.mark.parametrize("call", ["train_on_batch", "partial_fit"])
def test_a_step_or_pass_that_diverges_changes_nothing_but_the_moments(table, call):
    X, y = table
    net = network(1e-7, cd.BatchNorm(), optimizer=cd.SGD(1e-7, momentum=0.9))
    net.fit(X, y, epochs=2, verbose=0)
    net.optimizer = cd.SGD(HUGE, momentum=0.9)
    before = state(net)
    with pytest.raises(cd.DivergedError):
        getattr(net, call)(X, y)
    assert_same(net, before)
    assert not any(moment.any() for moment in core_of(net).model.moments)


@pytest.mark.parametrize("call", ["train_on_batch", "partial_fit", "fit"])
@pytest.mark.parametrize("scale", [1e30, 3e38])
def test_a_batch_beyond_float32_leaves_running_statistics_as_they_were(rng, call, scale):
    X, y = rng.standard_normal((64, 4)).astype(np.float32), np.arange(64) % 2
    net = network(1e-3, cd.BatchNorm(), loss="cross_entropy")
    net.fit(X, y, epochs=2, verbose=0)
    before, large = state(net), X / np.abs(X).max() * np.float32(scale)
    options = {"verbose": 0} if call == "fit" else {}
    with pytest.raises(cd.DivergedError):
        getattr(net, call)(large, y, **options)
    assert_same(net, before)
    assert np.isfinite(net.predict(X)).all()


def test_infinite_moments_are_a_divergence_too(rng):
    """Of a second moment that is infinite every update is 0 for good: the weight would never move again."""
    X, y = rng.standard_normal((20, 3)) * 1e7, rng.standard_normal(20) * 1e15
    net = cd.Network([cd.Dense(1)], loss="mse", optimizer=cd.Adam(1e-3), seed=0).build(3)
    with pytest.raises(cd.DivergedError):
        net.train_on_batch(X, y)  # a gradient of 1e22: the weights stay finite, its square does not
    assert np.isfinite(net.predict(X)).all()
    assert all(np.isfinite(moment).all() for moment in core_of(net).model.moments)


def test_a_checkpoint_is_not_replaced_by_what_diverged(table, tmp_path):
    X, y = table
    net = network(1e-7)
    net.fit(X, y, epochs=3, batch_size=100, verbose=0)
    net.save(tmp_path / "best")
    wanted = net.predict(X)
    net.optimizer = cd.SGD(HUGE)
    with pytest.raises(cd.DivergedError):
        net.fit(X, y, epochs=20, batch_size=100, verbose=0, callbacks=[cd.callbacks.Checkpoint(tmp_path / "best")])
    np.testing.assert_array_equal(cd.load(tmp_path / "best").predict(X), wanted)


def test_an_interrupt_right_after_a_diverging_step_leaves_finite_weights(table, monkeypatch):
    from cydrop._run import model, training

    class Interrupted(model.Engine):
        def train(self, *arguments):
            super().train(*arguments)
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "STRETCH_SECONDS", 0.0)
    monkeypatch.setattr(model, "Engine", Interrupted)
    net = network(HUGE).build(4)
    before = state(net)
    with pytest.raises(KeyboardInterrupt):
        net.fit(*table, epochs=1, batch_size=50, verbose=0)
    assert_same(net, before)


def test_training_goes_on_after_a_divergence_as_from_the_state_put_back(table):
    X, y = table
    net = network(1e-7, optimizer=cd.Adam(1e-3))
    net.fit(X, y / 1e3, epochs=2, verbose=0)
    core_of(net).clear_moments()
    twin = copy.deepcopy(net)
    good, net.optimizer = net.optimizer, cd.Adam(1e38)
    with pytest.raises(cd.DivergedError):
        net.fit(X, y, epochs=1, verbose=0)
    net.optimizer = good
    core_of(twin).model.ready().draws = core_of(net).model.ready().draws  # masks are numbered by steps that were begun
    for one in (net, twin):
        one.fit(X, y / 1e3, epochs=2, verbose=0)
    np.testing.assert_array_equal(net.predict(X), twin.predict(X))


def test_batch_normalisation_of_one_row_at_a_time_is_refused(rng):
    X, y = rng.standard_normal((9, 4)), np.arange(9) % 2
    for loss in ("cross_entropy", cd.losses.CrossEntropy(0.1)):
        net = network(1e-3, cd.BatchNorm(), loss=loss)
        for call in (lambda net=net: net.fit(X, y, batch_size=1), lambda net=net: net.fit(X[:1], y[:1]),
                     lambda net=net: net.partial_fit(X, y, batch_size=1),
                     lambda net=net: net.train_on_batch(X[:1], y[:1])):  # fmt: skip
            with pytest.raises(ValueError, match="BatchNorm needs batches of at least 2 rows"):
                call()
        assert core_of(net).model is None
        net.fit(X, y, batch_size=4, epochs=1, verbose=0)  # a last batch of one row does no harm
    net.loss = cd.losses.CrossEntropy(r_drop=1.0)  # every row passes twice
    net.train_on_batch(X[:1], y[:1])


def test_training_that_is_stopped_before_it_begins_trains_nothing(table):
    net = network().build(4)
    before = state(net)

    def stop(network, epochs):
        network.stop_training = True

    history = net.fit(*table, epochs=3, verbose=0, callbacks=[cd.callbacks.LambdaCallback(on_train_begin=stop)])
    assert len(history) == 0
    assert_same(net, before)
    net.fit(*table, epochs=2, verbose=0)
    assert len(history) == 2

"""Packs of networks, a network a lane: the bits of each are those of `fit` alone, whatever its neighbours do."""

import contextlib
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import cydrop as cd
from cydrop._core import many as compiled
from cydrop._run import many
from cydrop._run.core import core_of

ACTIVATIONS = [None, "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus", "mish"]
OPTIMIZERS = [
    cd.Adam(0.01), cd.SGD(0.05, momentum=0.9), cd.AdamW(0.003, weight_decay=0.1), cd.Adam(0.02, clip_norm=0.5),
    cd.RMSprop(cd.schedules.Cosine(0.01)),
]  # fmt: skip
RATES = [0.1, 0.5, 0.0, 0.9, 1.0, cd.schedules.Linear(0.5, 0.1)]
LOSSES = ["mse", "mae", cd.losses.Huber(0.5)]
COUNT = 19  # networks: a full pack, and three that are too few for another and are trained one by one


def state_of(net):
    """Everything that training changes: tensors, counters, epochs, and the history but for the seconds."""
    model = core_of(net).made("state")
    tensors = {name: array.tobytes() for name, array in model.tensors().items()}
    history = {name: values for name, values in net.history.metrics.items() if name != "seconds"}
    return tensors, model.engine.draws, model.engine.updates, core_of(net).epochs, repr(history)


def numbers(n=120, columns=6):
    rng = np.random.default_rng(7)
    X = rng.standard_normal((n, columns)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] + X[:, 2]).astype(np.float32)


def regressors(units=(9,), activation="relu", count=COUNT, **options):
    """Networks of one shape, of which nothing else is equal."""
    found = []
    for place in range(count):
        layers = [cd.Dropout(0.1 if place % 4 else 0.0)]
        for size in units:
            mode = "vanilla" if place % 7 == 3 else "inverted"
            layers += [cd.Dense(size, activation=activation, max_norm=1.0 if place % 5 == 2 else None)]
            layers += [cd.Dropout(RATES[place % len(RATES)], mode=mode)]
        found.append(
            cd.Network(
                [*layers, cd.Dense(1)], optimizer=OPTIMIZERS[place % len(OPTIMIZERS)],
                loss=LOSSES[place % len(LOSSES)], seed=place, **options,
            )
        )  # fmt: skip
    return found


def assert_as_alone(make, X, y, epochs=3, batch_size=50, n_threads=1, **options):
    """`fit_many` of some networks against `fit` of each."""
    together, alone = make(), make()
    for net in alone:
        with contextlib.suppress(cd.DivergedError):
            net.fit(X, y, epochs=epochs, batch_size=batch_size, verbose=0, **options)
    cd.fit_many(together, X, y, epochs=epochs, batch_size=batch_size, n_threads=n_threads, verbose=0, **options)
    for place, (net, other) in enumerate(zip(together, alone, strict=True)):
        assert state_of(net) == state_of(other), place


@pytest.fixture
def packed(monkeypatch):
    """The sizes of the groups of one shape that are trained."""
    sizes = []
    train = compiled.train

    def counted(trainings, *options):
        shapes = [training.shape for training in trainings if training.shape is not None]
        sizes.append(sorted(map(shapes.count, set(shapes)), reverse=True))
        train(trainings, *options)

    monkeypatch.setattr(compiled, "train", counted)
    return sizes


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_pack_of_mixed_networks_is_as_each_alone(activation, packed):
    assert_as_alone(lambda: regressors(activation=activation), *numbers())
    assert packed[0] == [COUNT]


@pytest.mark.parametrize("units", [(1,), (17,), (50,), (64,), (5, 3), (20, 20, 7), (25, 25)])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_any_widths_and_depths_are_as_alone(units, n_threads, packed):
    assert_as_alone(lambda: regressors(units), *numbers(), n_threads=n_threads)
    assert packed[0] == [COUNT]


@pytest.mark.parametrize("batch_size", [1, 7, 16, 119, 120, 500])
def test_any_batches_are_as_alone(batch_size):
    assert_as_alone(lambda: regressors((6, 4), "tanh"), *numbers(), epochs=2, batch_size=batch_size)


@pytest.mark.parametrize("columns", [1, 2, 8, 15, 16, 17, 33, 48])
def test_any_columns_are_as_alone(columns):
    rng = np.random.default_rng(columns)
    X = rng.standard_normal((90, columns)).astype(np.float32)
    assert_as_alone(lambda: regressors((12,)), X, X.sum(axis=1))


@pytest.mark.parametrize("weighted", [False, True])
def test_classifiers_are_as_alone(weighted, packed):
    X, numbers_ = numbers()
    y = np.digitize(numbers_, [-0.5, 0.5])
    weight = np.random.default_rng(3).random(len(X)) if weighted else None

    def make():
        return [
            cd.Network(
                [cd.Dense(8), cd.ReLU(), cd.Dropout(0.3, shared=("batch", None)[seed % 2]), cd.Dense(3, bias=False)],
                optimizer=OPTIMIZERS[seed % 5], loss=cd.losses.CrossEntropy(0.1 * (seed % 3)), seed=seed,
            )
            for seed in range(COUNT)
        ]  # fmt: skip

    assert_as_alone(make, X, y, sample_weight=weight)
    assert packed[0] == [COUNT]


def test_dropout_and_activations_that_stand_by_themselves_are_as_alone(packed):
    def make():
        layers = [cd.Dropout(0.2), cd.Tanh(), cd.Dropout(0.3), cd.Dense(7), cd.Dropout(0.1), cd.GELU(), cd.ReLU()]
        return [
            cd.Network([*layers, cd.Dropout(0.2), cd.Dense(2), cd.Dropout(0.1)], loss="gaussian_nll", seed=seed)
            for seed in range(16)
        ]

    assert_as_alone(make, *numbers())
    assert packed[0] == [16]


def folds(n, count, parts=4):
    """Of equal sizes, so that all go in one pack."""
    fold = np.arange(n) % parts
    held = [np.flatnonzero(fold == place % parts) for place in range(count)]
    return [np.flatnonzero(fold != place % parts) for place in range(count)], held


@pytest.mark.parametrize("n_threads", [1, 2])
def test_folds_that_stop_early_at_different_epochs_are_as_alone(n_threads, packed):
    X, y = numbers()
    rows, held = folds(len(X), 40)
    together, alone = (regressors(count=40) for _ in range(2))
    patience = [1 + place % 3 for place in range(40)]
    ended = set()
    for net, own, other, wait in zip(alone, rows, held, patience, strict=True):
        stopping = cd.callbacks.EarlyStopping(patience=wait)
        judged = X[other], y[other]
        net.fit(
            X[own], y[own], epochs=30, batch_size=32, validation_data=judged, callbacks=[stopping], verbose=0
        )  # fmt: skip
        ended.add(len(net.history))
    assert len(ended) > 5  # else this tests nothing
    cd.fit_many(
        together, X, y, rows=rows, validation_rows=held, epochs=30, batch_size=32, patience=patience,
        n_threads=n_threads, verbose=0,
    )  # fmt: skip
    assert packed[0] == [40]
    for net, other in zip(together, alone, strict=True):
        assert state_of(net) == state_of(other)


def test_networks_beside_one_that_diverges_are_as_alone(packed):
    def make():
        found = regressors(count=16)
        layers = found[0].layers
        found[4] = cd.Network(layers, optimizer=cd.SGD(1e3), loss="mse", seed=4)
        found[9] = cd.Network(layers, optimizer=cd.SGD(1e30), loss="mse", seed=9)
        return found

    X, y = numbers()
    assert_as_alone(make, X, y, epochs=5)
    assert packed[0] == [16]
    together = make()
    histories = cd.fit_many(together, X, y, epochs=5, batch_size=50, verbose=0)
    assert [place for place, history in enumerate(histories) if history.diverged] == [4, 9]


def test_all_of_a_pack_may_diverge():
    def make():
        return [cd.Network([cd.Dense(5), cd.Dense(1)], optimizer=cd.SGD(1e30), loss="mse", seed=n) for n in range(16)]

    X, y = numbers()
    assert_as_alone(make, X, y)
    assert all(history.diverged for history in cd.fit_many(make(), X, y, verbose=0))


def test_packs_that_are_interrupted_after_every_step_go_on_as_alone(monkeypatch, packed):
    monkeypatch.setattr(many, "STRETCH_SECONDS", 0.0)
    assert_as_alone(lambda: regressors(count=24), *numbers(60), batch_size=25, n_threads=2)
    assert len(packed) > 6


def test_networks_of_different_ends_are_as_alone():
    X, y = numbers()
    together, alone = regressors(), regressors()
    epochs = [1 + place % 5 for place in range(COUNT)]
    for net, count in zip(alone, epochs, strict=True):
        net.fit(X, y, epochs=count, batch_size=50, verbose=0)
    cd.fit_many(together, X, y, epochs=epochs, batch_size=50, verbose=0)
    cd.fit_many(together, X, y, epochs=2, batch_size=50, verbose=0)
    for net, other in zip(together, alone, strict=True):
        net_alone = other.fit(X, y, epochs=2, batch_size=50, verbose=0)
        assert len(net_alone) == len(net.history)
        assert state_of(net) == state_of(other)


def test_callbacks_see_packs_epoch_by_epoch():
    X, y = numbers()
    seen = []
    callback = cd.callbacks.LambdaCallback(on_epoch_end=lambda *told: seen.append(told))
    together, alone = regressors(), regressors()
    cd.fit_many(together, X, y, epochs=3, batch_size=50, callbacks=callback, verbose=0)
    for net, other in zip(together, alone, strict=True):
        other.fit(X, y, epochs=3, batch_size=50, verbose=0)
        assert state_of(net) == state_of(other)
    assert len(seen) == 3 * COUNT


@pytest.mark.parametrize(
    "layers",
    [
        [cd.Dense(6), cd.BatchNorm(), cd.Dense(1)],
        [cd.Dense(6, drop_connect=0.1), cd.Dense(1)],
        [cd.GaussianNoise(0.1), cd.Dense(6), cd.Dense(1)],
        [cd.Dense(400), cd.Dense(1)],
        [cd.Dense(6), cd.Residual([cd.Dense(6)]), cd.Dense(1)],
        [cd.Dense(6), cd.AlphaDropout(0.1), cd.Dense(1)],
        [cd.Members([cd.Dense(6), cd.Dense(1)], 3)],
    ],
    ids=["norm", "drop-connect", "noise", "wide", "residual", "alpha", "members"],
)
def test_other_networks_are_in_no_pack_and_as_alone(layers, packed):
    assert_as_alone(lambda: [cd.Network(layers, loss="mse", seed=seed) for seed in range(16)], *numbers(), epochs=2)
    assert packed[0] == []


def test_batches_of_many_rows_are_in_no_pack(packed):
    X, y = np.zeros((70000, 3), dtype=np.float32), np.zeros(70000)
    networks = [cd.Network([cd.Dense(4), cd.Dense(1)], loss="mse", seed=seed) for seed in range(14)]
    cd.fit_many(networks, X, y, epochs=1, batch_size=len(X), verbose=0)
    assert packed[0] == [14]
    networks = [cd.Network([cd.Dense(20), cd.Dense(1)], loss="mse", seed=seed) for seed in range(14)]
    cd.fit_many(networks, X, y, epochs=1, batch_size=len(X), verbose=0)
    assert packed[1] == []


def hashes():
    """Of a pack, and of the same networks alone."""
    X, y = numbers()
    together, alone = regressors((17, 5), "gelu"), regressors((17, 5), "gelu")
    cd.fit_many(together, X, y, epochs=2, batch_size=50, verbose=0)
    for net in alone:
        net.fit(X, y, epochs=2, batch_size=50, verbose=0)
    return [hashlib.sha256(repr([state_of(net) for net in nets]).encode()).hexdigest() for nets in (together, alone)]


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_packs_have_the_bits_of_every_instruction_set(simd):
    code = "import test_many_lanes; print(*test_many_lanes.hashes())"
    environment = {**os.environ, "CYDROP_SIMD": simd}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=os.path.dirname(__file__), capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together, alone = done.stdout.split()
    assert together == alone

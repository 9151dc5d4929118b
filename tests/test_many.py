"""`fit_many`: every network is as `fit` alone would have made it, whatever its company."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cydrop as cd
from cydrop._core.xorshift import branch_words
from cydrop._run import many
from cydrop._run.core import core_of
from cydrop.callbacks import EarlyStopping, LambdaCallback, ReduceLROnPlateau

EPOCHS = 6


def state_of(net):
    """Everything that training changes: tensors, counters, epochs, and the history but for the seconds."""
    model = core_of(net).made("state")
    tensors = {name: array.tobytes() for name, array in model.tensors().items()}
    history = {name: values for name, values in net.history.metrics.items() if name != "seconds"}
    return tensors, model.engine.draws, model.engine.updates, core_of(net).epochs, repr(history)


def data(rng, n=300, columns=6):
    X = rng.standard_normal((n, columns)).astype(np.float32)
    return X, (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)


def classifiers(**options):
    """A mix of widths, depths, layers, rates, optimizers and schedules."""

    def net(layers, optimizer, seed):
        return cd.Network(layers, optimizer=optimizer, seed=seed, **options)

    cosine = cd.schedules.Cosine(0.01)
    return [
        net([cd.Dense(7, activation="relu"), cd.Dropout(0.3), cd.Dense(3)], "adam", 0),
        net([cd.Dense(7, activation="relu"), cd.Dropout(0.3), cd.Dense(3)], "adam", 1),
        net([cd.Dropout(0.1), cd.Dense(40), cd.GELU(), cd.Dense(3)], cd.SGD(0.1, momentum=0.9, clip_norm=1.0), 2),
        net([cd.Dense(9), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)], cd.AdamW(cosine), 3),
        net([cd.NumericEmbedding("pbld"), cd.Dense(5, activation="silu"), cd.Dense(3)], "rmsprop", 4),
        net([cd.Dense(8, drop_connect=0.2, max_norm=2.0), cd.Tanh(), cd.Dense(3)], "adam", 5),
        net([cd.Dense(6), cd.Residual([cd.ReLU(), cd.Dense(6)], drop_path=0.3), cd.Dense(3)], "adagrad", 6),
        net([cd.Dense(12, activation="elu"), cd.Dropout(cd.schedules.Linear(0.5, 0.1), mode="vanilla"), cd.Dense(3)],
            "adam", 7),
        net([cd.Dense(12, activation="selu"), cd.AlphaDropout(0.1), cd.Dense(3)], "adam", 8),
        net([cd.GaussianNoise(0.1), cd.Dense(300, activation="relu"), cd.Dropout(0.5, shared="batch"), cd.Dense(60),
             cd.Dense(3)], "adam", 9),
        net([cd.Dense(5), cd.Members([cd.Dense(6, activation="relu"), cd.Dropout(0.2), cd.Dense(3)], 3)], "adamw", 10),
        net([cd.Members([cd.Dense(6), cd.Dropout(0.2), cd.Dense(3)], 2, sharing="tabm", batches="shared")], "adam", 11),
    ]  # fmt: skip


def folds_of(rng, n, count):
    fold = rng.integers(0, 4, n)
    held = [np.flatnonzero(fold == place % 4) for place in range(count)]
    return [np.flatnonzero(fold != place % 4) for place in range(count)], held


def alone(networks, X, y, rows, held, weight=None, **options):
    for net, own, other in zip(networks, rows, held, strict=True):
        weights = {} if weight is None else {"sample_weight": weight[own]}
        judged = (X[other], y[other], *([] if weight is None else [weight[other]]))
        net.fit(X[own], y[own], validation_data=judged, verbose=0, **weights, **options)


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), st.lists(st.integers(0, 2**64 - 1), max_size=3),
    st.integers(1, 40),
)  # fmt: skip
def test_words_of_a_branch_are_those_of_numpys_seed_sequence(root, path, count):
    out = np.empty(count, dtype=np.uint64)
    branch_words(tuple(root), tuple(path), out)
    twin = np.random.SeedSequence(root, spawn_key=tuple(path)).generate_state(count, np.uint64)
    np.testing.assert_array_equal(out, twin)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_each_network_is_as_after_fit_alone(rng, n_threads):
    X, y = data(rng)
    expected, found = classifiers(), classifiers()
    rows, held = folds_of(rng, len(X), len(found))
    alone(expected, X, y, rows, held, epochs=EPOCHS, batch_size=32)
    histories = cd.fit_many(
        found, X, y, rows=rows, validation_rows=held, epochs=EPOCHS, batch_size=32, restore_best=False,
        n_threads=n_threads, verbose=0,
    )  # fmt: skip
    for one, other, history in zip(found, expected, histories, strict=True):
        assert state_of(one) == state_of(other)
        assert list(one.history.metrics) == list(other.history.metrics)
        assert history is one.history
        for mask, same in zip(one.masks(), other.masks(), strict=True):
            np.testing.assert_array_equal(mask, same)


def test_neither_order_nor_stretches_change_a_bit(rng, monkeypatch):
    X, y = data(rng)
    expected, found = classifiers(), classifiers()
    rows, held = folds_of(rng, len(X), len(found))
    alone(expected, X, y, rows, held, epochs=2, batch_size=32)
    monkeypatch.setattr(many, "STRETCH_SECONDS", 0.0)  # comes back after every step
    back = slice(None, None, -1)
    cd.fit_many(
        found[back], X, y, rows=rows[back], validation_rows=held[back], epochs=2, batch_size=32, restore_best=False,
        n_threads=2, verbose=0,
    )  # fmt: skip
    for one, other in zip(found, expected, strict=True):
        assert state_of(one) == state_of(other)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "gaussian_nll", "pinball", "binary_cross_entropy"])
@pytest.mark.parametrize("weights", [None, "rows", "targets"])
def test_losses_of_targets(rng, loss, weights):
    X, _ = data(rng)
    y = rng.standard_normal((len(X), 2)).astype(np.float32)
    y = (y > 0).astype(np.float32) if loss == "binary_cross_entropy" else y
    weight = None
    if weights is not None:
        weight = rng.integers(0, 3, len(X) if weights == "rows" else y.shape).astype(np.float32)
    rows, held = folds_of(rng, len(X), 4)
    units = {"gaussian_nll": 4, "pinball": 6}.get(loss, 2)

    def make():
        layers = [cd.Dense(8, activation="tanh"), cd.Dropout(0.2), cd.Dense(units)]
        return [cd.Network(layers, loss=loss, seed=seed) for seed in range(4)]

    expected, found = make(), make()
    alone(expected, X, y, rows, held, weight, epochs=4, batch_size=50)
    cd.fit_many(
        found, X, y, validation_rows=held, sample_weight=weight, epochs=4, batch_size=50, restore_best=False, verbose=0
    )
    for one, other in zip(found, expected, strict=True):
        assert state_of(one) == state_of(other)


def test_networks_of_different_losses_and_soft_labels(rng):
    X, y = data(rng)
    soft = np.eye(3, dtype=np.float32)[y] * 0.8 + 0.2 / 3

    def make():
        losses = [cd.losses.CrossEntropy(), cd.losses.CrossEntropy(label_smoothing=0.1, r_drop=0.5), "mse"]
        return [cd.Network([cd.Dense(8), cd.Dropout(0.2), cd.Dense(3)], loss=loss, seed=2) for loss in losses]

    expected, found = make(), make()
    for net in expected:
        net.fit(X, soft, epochs=3, verbose=0)
    cd.fit_many(found, X, soft, epochs=3, verbose=0)
    for one, other in zip(found, expected, strict=True):
        assert state_of(one) == state_of(other)


def test_bootstrap_samples_and_numbers_for_each(rng):
    X, y = data(rng)
    expected, found = classifiers()[:4], classifiers()[:4]
    rows = [rng.integers(0, len(X), count) for count in (300, 200, 100, 31)]
    for net, own, epochs, size in zip(expected, rows, (1, 2, 3, 4), (10, 20, 300, 7), strict=True):
        net.fit(X[own], y[own], epochs=epochs, batch_size=size, verbose=0)
    cd.fit_many(found, X, y, rows=rows, epochs=[1, 2, 3, 4], batch_size=[10, 20, 300, 7], n_threads=2, verbose=0)
    for one, other in zip(found, expected, strict=True):
        assert state_of(one) == state_of(other)
        assert one.training_rows == other.training_rows


def test_a_second_call_goes_on_as_fit_does(rng):
    X, y = data(rng)
    expected, found = classifiers(), classifiers()
    for _ in range(2):
        for net in expected:
            net.fit(X, y, epochs=2, verbose=0)
        cd.fit_many(found, X, y, epochs=2, verbose=0)
        found = [pickle.loads(pickle.dumps(net)) for net in found]
    for one, other in zip(found, expected, strict=True):
        assert state_of(one) == state_of(other)
        one.fit(X, y, epochs=1, verbose=0)
        other.fit(X, y, epochs=1, verbose=0)
        assert state_of(one) == state_of(other)


@pytest.mark.parametrize("ties", ["first", "last"])
@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_patience_and_the_best_epoch_are_those_of_early_stopping(rng, monitor, ties):
    X, y = data(rng)
    expected, found = classifiers(), classifiers()
    rows, held = folds_of(rng, len(X), len(found))
    for net, own, other in zip(expected, rows, held, strict=True):
        net.fit(
            X[own], y[own], epochs=40, validation_data=(X[other], y[other]), verbose=0,
            callbacks=[EarlyStopping(monitor, patience=3, ties=ties)],
        )  # fmt: skip
    cd.fit_many(
        found, X, y, validation_rows=held, epochs=40, patience=3, monitor=monitor, ties=ties, n_threads=2, verbose=0
    )
    assert len({len(net.history) for net in found}) > 1
    for one, other in zip(found, expected, strict=True):
        assert state_of(one) == state_of(other)


def test_a_network_that_diverges_is_told_in_its_history_and_stops_no_other(rng):
    X, y = data(rng)

    def make():
        wild = [cd.Network([cd.Dense(9), cd.Dense(3)], optimizer=cd.SGD(1e9, momentum=0.9), seed=7) for _ in range(2)]
        fading = cd.schedules.Step(1e-2, 1e20, 0.4)  # all is well at first
        late = cd.Network([cd.Dense(9), cd.Dense(3)], optimizer=cd.SGD(fading), seed=8)
        return [wild[0], *classifiers()[:3], late, wild[1]]

    expected, found = make(), make()
    errors = []
    for net in expected:
        try:
            net.fit(X, y, epochs=EPOCHS, batch_size=32, verbose=0)
            errors.append(None)
        except cd.DivergedError as error:
            errors.append(str(error))
    histories = cd.fit_many(found, X, y, epochs=EPOCHS, batch_size=32, n_threads=2, verbose=0)
    assert [error is None for error in errors] == [False, True, True, True, False, False]
    for one, other, history, error in zip(found, expected, histories, errors, strict=True):
        assert state_of(one) == state_of(other)
        assert (None if history.diverged is None else str(history.diverged)) == error
    assert 0 < len(histories[4]) < EPOCHS
    assert "diverged in epoch" in repr(histories[4])


def test_a_diverged_network_keeps_its_best_epoch(rng):
    X, y = data(rng)

    def make():
        return cd.Network([cd.Dense(9), cd.Dense(3)], optimizer=cd.SGD(cd.schedules.Step(1e-2, 1e20, 0.4)), seed=8)

    held = np.arange(50)
    net, other = make(), make()
    with pytest.raises(cd.DivergedError):
        other.fit(X[50:], y[50:], epochs=9, validation_data=(X[:50], y[:50]), verbose=0, callbacks=[EarlyStopping()])
    (history,) = cd.fit_many([net], X, y, validation_rows=held, epochs=9, verbose=0)
    assert history.diverged is not None
    assert state_of(net) == state_of(other)


# Halving ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "epochs", "eta", "expected"),
    [
        (9, 9, 3, [(1, 3), (3, 1), (9, 9)]),
        (10, 27, 3, [(3, 3), (9, 1), (27, 10)]),
        (2, 10, 3, [(10, 2)]),
        (8, 3, 2, [(2, 4), (3, 8)]),
        (16, 100, 4, [(7, 4), (25, 1), (100, 16)]),
    ],
)
def test_rungs(count, epochs, eta, expected):
    assert many.rungs(count, epochs, eta) == expected


def test_halving_stops_the_losers_and_leaves_each_as_fit_stopped_there(rng):
    X, y = data(rng)
    expected, found = classifiers()[:9], classifiers()[:9]
    held = np.arange(60)
    histories = cd.fit_many(
        found, X, y, validation_rows=held, epochs=9, halving=3, restore_best=False, n_threads=2, verbose=0
    )
    lengths = [len(history) for history in histories]
    assert sorted(lengths) == [1] * 6 + [3, 3, 9]
    at_one = sorted(range(9), key=lambda place: histories[place].metrics["val_loss"][0])
    assert {place for place in range(9) if lengths[place] > 1} == set(at_one[:3])
    for one, other, length in zip(found, expected, lengths, strict=True):

        def stop(net, epoch, metrics, length=length):
            net.stop_training = epoch == length

        other.fit(
            X[60:], y[60:], epochs=9, validation_data=(X[:60], y[:60]), verbose=0,
            callbacks=[LambdaCallback(on_epoch_end=stop)],
        )  # fmt: skip
        assert state_of(one) == state_of(other)


def test_halving_drops_diverged_networks_first(rng):
    X, y = data(rng)
    wild = [cd.Network([cd.Dense(9), cd.Dense(3)], optimizer=cd.SGD(1e9), seed=seed) for seed in range(2)]
    found = [wild[0], classifiers()[0], wild[1]]
    histories = cd.fit_many(found, X, y, validation_rows=np.arange(50), epochs=9, halving=3, verbose=0)
    assert [len(history) for history in histories] == [1, 9, 1]
    assert [history.diverged is None for history in histories] == [False, True, False]


# Callbacks --------------------------------------------------------------------------------------------------


def test_callbacks_of_each_network_work_as_in_fit(rng):
    X, y = data(rng)

    def own(net):
        return [ReduceLROnPlateau("val_loss", patience=1), EarlyStopping(patience=4)]

    expected, found = classifiers(), classifiers()
    rows, held = folds_of(rng, len(X), len(found))
    for net, some, other in zip(expected, rows, held, strict=True):
        net.fit(X[some], y[some], epochs=20, validation_data=(X[other], y[other]), callbacks=own(net), verbose=0)
    cd.fit_many(found, X, y, validation_rows=held, epochs=20, callbacks=own, restore_best=False, n_threads=2, verbose=0)
    for one, other in zip(found, expected, strict=True):
        assert state_of(one) == state_of(other)


def test_a_callback_may_stop_a_network_and_change_rates(rng):
    X, y = data(rng)

    def changes(net, epoch, metrics):
        metrics["twice"] = 2 * epoch
        if epoch == 2:
            net.set_rate(1, 0.6)
        net.stop_training = epoch == 4

    expected, found = classifiers()[:2], classifiers()[:2]
    for net in expected:
        net.fit(X, y, epochs=9, callbacks=[LambdaCallback(on_epoch_end=changes)], verbose=0)
    cd.fit_many(found, X, y, epochs=9, callbacks=[LambdaCallback(on_epoch_end=changes)], verbose=0)
    for one, other in zip(found, expected, strict=True):
        assert len(one.history) == 4
        assert state_of(one) == state_of(other)


def test_a_callback_that_fails_leaves_every_network_usable(rng):
    X, y = data(rng)

    def fails(net, epoch, metrics):
        if epoch == 3 and net is found[1]:
            raise RuntimeError("enough")

    found = classifiers()
    ended = []
    callbacks = [LambdaCallback(on_epoch_end=fails, on_train_end=ended.append)]
    with pytest.raises(RuntimeError, match="enough"):
        cd.fit_many(found, X, y, epochs=9, callbacks=callbacks, verbose=0)
    assert len(ended) == len(found)
    assert len(found[1].history) == 3
    for net in found:
        assert np.isfinite(net.predict(X)).all()
        net.fit(X, y, epochs=1, verbose=0)


# Interrupts -------------------------------------------------------------------------------------------------


def test_an_interrupt_leaves_every_network_as_after_its_last_step(rng, monkeypatch):
    X, y = data(rng)
    calls = []

    def interrupted(trainings, n_threads, seconds, train=many.many.train):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        train(trainings, n_threads, 0.0)  # a step of the first network

    monkeypatch.setattr(many.many, "train", interrupted)
    found = classifiers()[:2]
    with pytest.raises(KeyboardInterrupt):
        cd.fit_many(found, X, y, epochs=9, batch_size=32, n_threads=1, verbose=0)
    assert [len(net.history) for net in found] == [3, 0]  # ten steps an epoch
    assert core_of(found[0]).made("steps").engine.updates == 39
    assert len(found[0].masks()) == 1
    for net in found:
        net.fit(X, y, epochs=1, verbose=0)


# Arguments --------------------------------------------------------------------------------------------------


def test_no_networks_give_no_histories(rng):
    assert cd.fit_many([], *data(rng)) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"networks": None}, TypeError, "networks must be a list of cydrop.Network"),
        ({"networks": [1]}, TypeError, r"networks\[0\] must be a cydrop.Network, got 1"),
        ({"rows": [np.arange(5)]}, ValueError, "rows must have an entry for each of the 2 networks, got 1"),
        ({"rows": [np.arange(5), [-1]]}, ValueError, r"rows\[1\] must be row numbers from 0 to 299, got -1"),
        ({"rows": [np.arange(5), [300]]}, ValueError, r"rows\[1\] must be row numbers from 0 to 299, got 300"),
        ({"rows": [np.arange(5), []]}, ValueError, r"rows\[1\] is empty"),
        ({"rows": [np.arange(5), [0.5]]}, TypeError, r"rows\[1\] must be row numbers \(int\) or a mask"),
        ({"rows": [0.0, 1.0, 2.0]}, TypeError, r"rows must be row numbers \(int\) or a mask .*, got float64"),
        ({"rows": np.zeros(299, dtype=bool)}, ValueError, "rows is a mask of 299 rows, X has 300"),
        ({"validation_rows": range(300)}, ValueError, "none is left to train on"),
        ({"epochs": [1, 2, 3]}, ValueError, "epochs must be one for all networks, or one for each of the 2, got 3"),
        ({"epochs": 0}, ValueError, "epochs must be"),
        ({"batch_size": [8, 0]}, ValueError, r"batch_size\[1\] must be"),
        ({"patience": 3}, ValueError, "patience needs validation_rows"),
        ({"monitor": "val_loss"}, ValueError, "needs validation_rows"),
        ({"monitor": "val_rmse", "validation_rows": range(9)}, ValueError, "there is none with the loss cross_entropy"),
        ({"monitor": "auc"}, ValueError, "monitor='auc' is not known; known are 'loss', 'val_loss'"),
        ({"halving": 1}, ValueError, "halving must be"),
        ({"callbacks": [1]}, TypeError, "callbacks must be"),
        ({"y": np.zeros(4)}, ValueError, "y"),
        ({"n_threads": 0}, ValueError, "n_threads must be"),
    ],
)
def test_unusable_arguments_are_refused_before_anything_changes(rng, options, error, message):
    X, y = data(rng)
    found = classifiers()[:2]
    given = {"networks": found, "X": X, "y": y, "epochs": 2, "verbose": 0} | options
    with pytest.raises(error, match=message):
        cd.fit_many(given.pop("networks"), given.pop("X"), given.pop("y"), **given)
    for net in found:
        assert len(net.history) == 0


@pytest.mark.parametrize(
    ("rows", "held", "what"),
    [(None, range(0, 120, 2), "the validation rows"), (range(0, 120, 2), range(1, 120, 2), "the rows to train on")],
)
def test_rows_that_all_weigh_nothing_are_refused(rng, rows, held, what):
    X, y = data(rng)
    weight = np.arange(len(X)) % 2
    networks = classifiers()[:2]
    with pytest.raises(ValueError, match=rf"networks\[0\]: {what} all have a weight of 0"):
        cd.fit_many(
            networks, X, y, rows=rows and [rows] * 2, validation_rows=[held] * 2, sample_weight=weight, verbose=0
        )
    assert all(len(network.history) == 0 for network in networks)
    net = classifiers()[0]
    with pytest.raises(ValueError, match="the validation rows all have a weight of 0"):
        net.fit(X, y, validation_data=(X, y, np.zeros(len(X))), verbose=0)
    with pytest.raises(ValueError, match="the rows to train on all have a weight of 0"):
        net.fit(X, y, sample_weight=np.zeros(len(X)), verbose=0)


def test_halving_does_not_compare_losses_of_several_kinds(rng, capsys):
    X, _ = data(rng)
    y = X[:, 0]

    def networks():
        kinds = ("mse", cd.losses.Huber(2.0), "mse", cd.losses.Huber(2.0))
        return [cd.Network([cd.Dense(4), cd.Dense(1)], loss=loss, seed=seed) for seed, loss in enumerate(kinds)]

    options = {"validation_rows": range(0, 120, 3), "epochs": 4, "halving": 2}
    with pytest.raises(ValueError, match="several losses: give monitor="):
        cd.fit_many(networks(), X, y, verbose=0, **options)
    histories = cd.fit_many(networks(), X, y, monitor="val_rmse", verbose=0, **options)
    assert max(map(len, histories)) == 4
    cd.fit_many(networks(), X, y, validation_rows=range(0, 120, 3), epochs=1, verbose=1)
    assert "loss" not in capsys.readouterr().err


@pytest.mark.parametrize("callbacks", [cd.callbacks.EarlyStopping, [[cd.callbacks.EarlyStopping()]] * 2])
def test_callbacks_that_are_no_function_of_a_network_are_refused_with_the_way(rng, callbacks):
    X, y = data(rng)
    with pytest.raises(TypeError, match=r"callbacks=lambda network: \[EarlyStopping\(...\)\]"):
        cd.fit_many(classifiers()[:2], X, y, callbacks=callbacks, verbose=0)


def test_errors_say_which_network_they_are_about(rng):
    X, y = data(rng)
    networks = [cd.Network([cd.Dense(units)]) for units in (5, 6, 2)]
    with pytest.raises(ValueError, match=r"networks\[2\]: y must be class labels 0..1"):
        cd.fit_many(networks, X, y, verbose=0)
    with pytest.raises(ValueError, match=r"patience needs validation_rows, which networks\[1\] has none of"):
        cd.fit_many(networks[:2], X, y, validation_rows=[range(9), None], patience=1, verbose=0)
    with pytest.raises(ValueError, match=r"^y must be class labels"):
        cd.fit_many(networks[2:], X, y, verbose=0)


def test_networks_without_held_out_rows_beside_others_with_some(rng):
    X, y = data(rng)
    held = [np.arange(60), None]
    expected, found = classifiers()[:2], classifiers()[:2]
    expected[0].fit(
        X[60:], y[60:], epochs=9, validation_data=(X[:60], y[:60]), verbose=0, callbacks=[EarlyStopping(patience=None)]
    )
    expected[1].fit(X, y, epochs=9, verbose=0)
    cd.fit_many(found, X, y, validation_rows=held, epochs=9, verbose=0)
    for one, other in zip(found, expected, strict=True):
        assert state_of(one) == state_of(other)
    with pytest.raises(ValueError, match="halving compares networks"):
        cd.fit_many(found, X, y, validation_rows=held, epochs=9, halving=2, verbose=0)


@pytest.mark.parametrize("callback", [EarlyStopping("loss"), ReduceLROnPlateau("loss"), cd.callbacks.ProgressBar()])
def test_a_callback_that_keeps_something_of_a_network_is_not_for_several(rng, callback):
    found = classifiers()[:2]
    for callbacks in ([callback], lambda network: [callback]):
        with pytest.raises(ValueError, match="for several networks, of which it would mix up what it keeps"):
            cd.fit_many(found, *data(rng), epochs=1, callbacks=callbacks, verbose=0)
    assert [len(net.history) for net in found] == [0, 0]
    cd.fit_many(found[:1], *data(rng), epochs=1, callbacks=[callback], verbose=0)


def test_a_network_cannot_be_given_twice(rng):
    net = classifiers()[0]
    with pytest.raises(ValueError, match=r"networks\[1\] is networks\[0\] once more"):
        cd.fit_many([net, net], *data(rng))


def test_a_mask_of_rows_a_list_of_numbers_and_a_range_are_index_arrays(rng):
    X, y = data(rng)
    chosen = rng.random(len(X)) < 0.5
    found = [classifiers()[0] for _ in range(4)]
    numbers = np.flatnonzero(chosen).astype(np.uint16)
    cd.fit_many(found, X, y, rows=[chosen, numbers, numbers.tolist(), tuple(numbers)], epochs=2, verbose=0)
    assert all(state_of(net) == state_of(found[0]) for net in found[1:])


def test_progress_tells_how_many_are_done_and_the_best_score(rng, capsys):
    X, y = data(rng)
    found = classifiers()[:3]
    cd.fit_many(found, X, y, validation_rows=range(60), epochs=2, verbose=1, monitor="val_accuracy")
    best = max(max(net.history.metrics["val_accuracy"]) for net in found)
    assert capsys.readouterr().out.splitlines()[-1] == f"3 of 3 networks  best val_accuracy {best:.4f}"
    cd.fit_many(classifiers()[:3], X, y, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_network_that_is_in_use_is_refused(rng):
    import threading

    X, y = data(rng)
    found = classifiers()[:2]
    messages = []

    def other(net, epoch, metrics):
        def call():
            try:
                cd.fit_many([net], X, y, verbose=0)
            except RuntimeError as error:
                messages.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    cd.fit_many(found, X, y, epochs=1, callbacks=LambdaCallback(on_epoch_end=other), verbose=0)
    assert len(messages) == 2
    assert all("another thread is training this network" in message for message in messages)


def test_scores_that_are_not_numbers_are_never_the_best(rng):
    X, y = data(rng, n=40)
    (history,) = cd.fit_many([classifiers()[0]], X, y, epochs=3, halving=2, verbose=0)
    assert len(history) == 3
    assert not math.isnan(history.metrics["loss"][-1])

"""What happens between the epochs, and what is kept of it."""

import csv
import errno
import io
import math
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pandas
import pytest
from interrupting import interrupted

import cydrop as cd
from cydrop import callbacks, losses, schedules
from cydrop._run.core import core_of
from cydrop.history import lower_is_better


@pytest.fixture
def data(rng):
    X = rng.random((80, 4))
    return X, (X[:, 0] > 0.5).astype(int)


def network(**options):
    return cd.Network([cd.Dense(8), cd.ReLU(), cd.Dense(2)], seed=0, **options)


def test_early_stopping_stops_and_restores_the_best_weights(data, rng):
    X, y = data
    noise = rng.integers(0, 2, 40)
    net = network(optimizer=cd.Adam(0.1))
    kept = []
    stop = callbacks.EarlyStopping(patience=3)
    keep = callbacks.LambdaCallback(lambda net, epoch, metrics: kept.append(net.predict(X)))
    history = net.fit(X, y, epochs=200, validation_data=(X[:40], noise), callbacks=[keep, stop], verbose=0)
    losses = history.metrics["val_loss"]
    assert len(losses) < 200
    best = int(np.argmin(losses))
    assert stop.best_epoch == best + 1
    assert len(losses) == best + 1 + 3
    np.testing.assert_array_equal(net.predict(X), kept[best])


def test_a_training_that_runs_out_of_epochs_also_ends_with_its_best_epoch(data):
    X, y = data
    net, kept = network(optimizer=cd.Adam(0.3)), []
    keep = callbacks.LambdaCallback(lambda net, epoch, metrics: kept.append(net.predict(X)))
    stop = callbacks.EarlyStopping(patience=100)
    history = net.fit(X, y, epochs=9, validation_data=(X[:20], 1 - y[:20]), callbacks=[stop, keep], verbose=0)
    epoch, value = history.best()
    assert epoch < 9
    assert (stop.best_epoch, stop.best) == (epoch, value)
    np.testing.assert_array_equal(net.predict(X), kept[epoch - 1])


class Rehearsal(callbacks.Callback):
    """Feeds a callback with values instead of training."""

    def __init__(self, **options):
        self.net = cd.Network([cd.Dense(1)], loss="mse", seed=0, **options).build(1)
        self.weight = self.net.parameters()["0.weight"]

    def __call__(self, callback, values, name="val_loss"):
        """The epochs in which it asked for a stop, and the learning rate after each epoch."""
        stops, rates = [], []
        callback.on_train_begin(self.net, len(values))
        for epoch, value in enumerate(values, 1):
            self.net.stop_training = False
            self.weight[...] = epoch
            callback.on_epoch_end(self.net, epoch, {name: value, "learning_rate": 0.5})
            rates.append(self.net.optimizer.learning_rate)
            if self.net.stop_training:
                stops.append(epoch)
        callback.on_train_end(self.net)
        return stops, rates


@pytest.mark.parametrize(
    ("name", "mode", "values", "best"),
    [
        ("val_loss", "auto", [3, 1, 2], 2),
        ("val_accuracy", "auto", [3, 1, 2], 1),
        ("val_accuracy", "min", [3, 1, 2], 2),
        ("score", "max", [2, 1, 3], 3),
        ("loss", "auto", [math.nan, 5, math.nan], 2),
        ("loss", "max", [math.nan, 5, math.nan], 2),
        ("loss", "auto", [2, 2, 2], 1),
    ],
)
def test_the_better_way_is_that_of_the_name_or_of_the_mode(name, mode, values, best, tmp_path):
    stop = callbacks.EarlyStopping(name, mode=mode)
    rehearsal = Rehearsal()
    rehearsal(stop, values, name)
    assert (stop.best_epoch, stop.best) == (best, values[best - 1])
    assert rehearsal.weight[0, 0] == best
    rehearsal(callbacks.Checkpoint(tmp_path / "best", name, mode), values, name)
    assert cd.load(tmp_path / "best").parameters()["0.weight"][0, 0] == best
    assert cd.History({name: values}).best(name, mode) == (best, values[best - 1])


@pytest.mark.parametrize(
    ("values", "first", "last"),
    [
        ([2, 1, 3, 1, 2], 2, 4),
        ([1, 1, 1], 1, 3),
        ([3, 2, 1], 3, 3),
        ([math.nan, 2, 2, math.nan], 2, 3),
        ([math.nan, math.nan], 0, 0),
        ([math.inf, math.inf], 0, 0),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_first_or_the_last_of_equally_good_epochs_is_put_back(values, first, last, sign):
    values = [sign * value for value in values]
    for ties, best in (("first", first), ("last", last)):
        stop, rehearsal = callbacks.EarlyStopping("score", mode="min" if sign == 1 else "max", ties=ties), Rehearsal()
        rehearsal(stop, values, "score")
        assert stop.best_epoch == best
        assert rehearsal.weight[0, 0] == (best or len(values))


def test_an_equal_value_is_no_improvement_that_training_goes_on_for():
    stop = callbacks.EarlyStopping(patience=2, ties="last")
    assert Rehearsal()(stop, [1, 0.5, 0.5, 0.5, 0.4, 0.4])[0] == [4]
    assert stop.best_epoch == 6


def test_without_patience_training_is_never_stopped_and_ends_with_the_best_epoch():
    stop, rehearsal = callbacks.EarlyStopping("accuracy", patience=None, ties="last"), Rehearsal()
    assert rehearsal(stop, [0.5, 0.9, 0.9, *[0.1] * 100], "accuracy")[0] == []
    assert rehearsal.weight[0, 0] == stop.best_epoch == 3
    assert pickle.loads(pickle.dumps(stop)).ties == "last"
    with pytest.raises(ValueError, match="ties='both' is not known"):
        callbacks.EarlyStopping(ties="both")
    with pytest.raises(ValueError, match="patience must be at least 1"):
        callbacks.EarlyStopping(patience=0)


def test_nan_counts_as_no_improvement_and_restores_nothing():
    stop, rehearsal = callbacks.EarlyStopping(patience=3), Rehearsal()
    assert rehearsal(stop, [math.nan] * 4)[0] == [3, 4]
    assert stop.best_epoch == 0
    assert rehearsal.weight[0, 0] == 4


def test_a_change_of_min_delta_is_no_improvement():
    assert Rehearsal()(callbacks.EarlyStopping(patience=2, min_delta=0.25), [1, 0.75, 0.5, 0.25])[0] == []
    assert Rehearsal()(callbacks.EarlyStopping(patience=2, min_delta=0.25), [1, 0.75, 0.75])[0] == [3]
    stop = callbacks.EarlyStopping("accuracy", patience=2, min_delta=0.25)
    assert Rehearsal()(stop, [0.5, 0.75, 0.76], "accuracy")[0] == []
    assert stop.best_epoch == 3


def test_a_second_interrupt_does_not_leave_half_of_the_best_epoch(monkeypatch):
    stop, rehearsal = callbacks.EarlyStopping(), Rehearsal()
    stop.on_train_begin(rehearsal.net, 2)
    for value in rehearsal.net.parameters().values():
        value[...] = 1
    stop.on_epoch_end(rehearsal.net, 1, {"val_loss": 1.0})
    for value in rehearsal.net.parameters().values():
        value[...] = 2
    core, calls = core_of(rehearsal.net), []
    whole = core.put_back

    def interrupted_once(weights):
        calls.append(weights)
        if len(calls) == 1:
            raise KeyboardInterrupt
        whole(weights)

    monkeypatch.setattr(core, "put_back", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        stop.on_train_end(rehearsal.net)
    assert len(calls) == 2
    assert [float(value.reshape(-1)[0]) for value in rehearsal.net.parameters().values()] == [1, 1]


def test_a_callback_may_stop_training(data):
    def stop(network, epoch, metrics):
        network.stop_training = epoch == 3

    history = network().fit(*data, epochs=50, callbacks=[callbacks.LambdaCallback(stop)], verbose=0)
    assert len(history) == 3


# Which way is better


GROW = """
accuracy val_accuracy clean_accuracy top_5_accuracy balanced_accuracy acc val_acc auc val_auc test_auc auroc roc_auc
val_roc_auc pr_auc ap val_average_precision precision recall val_recall sensitivity specificity f1 val_f1 fbeta
f1_score f1_macro f1_micro val_f1_weighted f1_score_macro r2 val_r2 r2_score d2_absolute_error_score score val_score
my_score cohen_kappa mcc matthews_corrcoef iou mean_iou jaccard dice ndcg ndcg@10 val_ndcg_10 map mrr recall@5
precision_at_k log_likelihood explained_variance correlation val_pearson_correlation auc_1 AUC ROC-AUC val_AUC
neg_log_loss neg_mean_squared_error val_neg_rmse train_f1 test_val_f1 c_index neg_mse_score brier_skill_score
recall_at_precision sensitivity_at_95_specificity d2_pinball_score
"""
FALL = """
loss val_loss clean_loss train_loss dice_loss iou_loss zero_one_loss loss_1 error val_error mean_squared_error err mse
val_mse rmse val_rmse mae mape rmsle nll gaussian_nll negative_log_likelihood log_loss logloss crossentropy
binary_cross_entropy cross_entropy brier brier_score brier_score_loss ece expected_calibration_error deviance
perplexity hinge squared_hinge logcosh kl kl_divergence crps val_crps pinball distance seconds calibration_error
error_rate huber fpr_at_95_tpr val_fpr_at_tpr95 fid_score rmse_score val_mse_score davies_bouldin_score
"""


@pytest.mark.parametrize(("names", "lower"), [(GROW, False), (FALL, True)])
def test_a_usual_name_says_whether_less_is_better(names, lower):
    for name in names.split():
        assert lower_is_better(name) is lower, name
        assert lower_is_better(name, "min"), name
        assert not lower_is_better(name, "max"), name
        assert cd.History({name: [1.0, 3.0, 2.0]}).best(name) == ((1, 1.0) if lower else (2, 3.0)), name


@pytest.mark.parametrize("name", losses.KNOWN)
def test_less_of_every_loss_is_better_by_its_name(name):
    for monitor in (name, f"val_{name}", f"my_{name}_mean", f"{name.upper()}@10", f"{name}_score"):
        assert lower_is_better(monitor), monitor
    assert not lower_is_better(f"neg_{name}")


MAKERS = {
    "EarlyStopping": lambda name, **more: callbacks.EarlyStopping(name, **more),
    "ReduceLROnPlateau": lambda name, **more: callbacks.ReduceLROnPlateau(name, **more),
    "Checkpoint": lambda name, **more: callbacks.Checkpoint("net", name, **more),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_name_that_says_nothing_asks_for_a_mode(make):
    names = ("x", "val_profit_share", "gini", "learning_rate", "2.rate", "val_", "", "lossy", "accuracy_drop")
    for name in (*names, "1-accuracy", "1 - val_auc", "one_minus_auc", "loss_ratio_at_auc"):
        message = f"monitor='{name}' is no metric of which .*: give mode='min' or mode='max'"
        with pytest.raises(ValueError, match=message):
            make(name)
        with pytest.raises(ValueError, match=message):
            cd.History({name: [1.0]}).best(name)
        for mode in ("min", "max"):
            make(name, mode=mode)
            assert cd.History({name: [1.0]}).best(name, mode) == (1, 1.0)


def test_early_stopping_keeps_the_best_epoch_by_an_auc_of_ones_own(data, tmp_path):
    """Which rises to its best, and falls again."""
    values, path = [0.5, 0.7, 0.9, 0.8, 0.6, 0.6, 0.6], tmp_path / "best"
    kept = []

    def score(network, epoch, metrics):
        metrics["val_auc"] = values[epoch - 1]
        kept.append(network.predict(data[0]))

    net, stop = network(optimizer=cd.Adam(0.1)), callbacks.EarlyStopping("val_auc", patience=3)
    save, slower = callbacks.Checkpoint(path, "val_auc"), callbacks.ReduceLROnPlateau("val_auc", 0.5, patience=2)
    history = net.fit(*data, epochs=7, callbacks=[callbacks.LambdaCallback(score), stop, save, slower], verbose=0)
    assert (stop.best_epoch, stop.best, len(history)) == (3, 0.9, 6)
    np.testing.assert_array_equal(net.predict(data[0]), kept[2])
    np.testing.assert_array_equal(cd.load(path).predict(data[0]), kept[2])
    assert history.metrics["learning_rate"] == [0.1] * 5 + [0.05]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_watched_does_not_change_unseen(make):
    callback = make("val_loss", mode="max")
    assert (callback.monitor, callback.mode) == ("val_loss", "max")
    changes = {"monitor": "val_accuracy", "mode": "min", "min_delta": 0.5}
    if isinstance(callback, callbacks.Checkpoint):
        del changes["min_delta"]
    for name, value in changes.items():
        before = getattr(callback, name)
        with pytest.raises(AttributeError, match=f"{name} of {type(callback).__name__} cannot be changed; make a new"):
            setattr(callback, name, value)
        assert getattr(callback, name) == before
    assert pickle.loads(pickle.dumps(callback)).monitor == "val_loss"
    if isinstance(callback, callbacks.EarlyStopping):
        for name in ("best", "best_epoch"):
            with pytest.raises(AttributeError):
                setattr(callback, name, 1)


def test_a_checkpoint_of_every_epoch_watches_nothing():
    assert callbacks.Checkpoint("net").monitor is None


# The learning rate


@pytest.mark.parametrize(
    ("options", "values", "rates"),
    [
        ({"patience": 2}, [3, 2, 2, 2, 1, 1, 1], [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ({"patience": 1}, [3, 3, 3], [1, 0.5, 0.25]),
        ({"patience": 1, "cooldown": 1}, [3, 3, 3, 3, 3], [1, 0.5, 0.5, 0.25, 0.25]),
        ({"patience": 1, "min_learning_rate": 0.3}, [3, 3, 3, 3], [1, 0.5, 0.3, 0.3]),
        ({"patience": 1, "min_learning_rate": 2.0}, [3, 3, 3], [1, 1, 1]),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.5, 1.9], [1, 0.5, 0.5]),
        ({"patience": 1, "mode": "max"}, [3, 2.5, 4], [1, 0.5, 0.5]),
        ({"patience": 2}, [math.nan, math.nan, math.nan], [1, 0.5, 0.5]),
    ],
)
def test_the_learning_rate_falls_on_a_plateau(options, values, rates):
    """The same as PyTorch's scheduler with a patience of one less and threshold_mode="abs"."""
    plateau = callbacks.ReduceLROnPlateau(**({"factor": 0.5, "min_delta": 0.0} | options))
    assert Rehearsal(optimizer=cd.SGD(1.0))(plateau, values)[1] == rates


def test_a_schedule_is_scaled_and_saved(tmp_path):
    rehearsal = Rehearsal(optimizer=cd.SGD(schedules.Cosine(1.0)))
    plateau = callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_learning_rate=0.4)
    rates = rehearsal(plateau, [1, 1, 1, 0.5])[1]  # the rate at each epoch's end is .5
    assert rates[0] == schedules.Cosine(1.0)
    assert rates[1] == schedules.Scaled(schedules.Cosine(1.0), 0.8)
    assert rates[2] == rates[3] == schedules.Scaled(schedules.Cosine(1.0), 0.8 * 0.8)
    assert rates[3](0.0) == pytest.approx(0.64)
    rehearsal.net.save(tmp_path / "net")
    assert cd.load(tmp_path / "net").optimizer == rehearsal.net.optimizer


def test_a_scaled_function_of_ones_own_works_but_is_not_saved(tmp_path):
    twice = schedules.Scaled(schedules.Scaled(lambda progress: 1 - progress, 0.5), 0.5)
    assert (twice(0.0), twice(0.5), twice.factor) == (0.25, 0.125, 0.25)
    with pytest.raises(ValueError, match="function of your own"):
        Rehearsal(optimizer=cd.SGD(twice)).net.save(tmp_path / "net")
    with pytest.raises(TypeError, match="base must be a schedule"):
        schedules.Scaled(0.1, 0.5)


def test_the_reduced_rate_stays_and_is_in_the_history_from_the_first_epoch(data, tmp_path):
    net = network(optimizer=cd.Adam(0.01))
    plateau = callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=2, min_delta=1e9)
    log = callbacks.CSVLogger(tmp_path / "log.csv")
    history = net.fit(*data, epochs=6, callbacks=[log, plateau], verbose=0)
    expected = [0.01, 0.01, 0.01, 0.001, 0.001, 1e-4]
    np.testing.assert_allclose(history.metrics["learning_rate"], expected)
    np.testing.assert_allclose(pandas.read_csv(tmp_path / "log.csv")["learning_rate"], expected)
    net.fit(*data, epochs=1, verbose=0)
    np.testing.assert_allclose(history.metrics["learning_rate"], [*expected, 1e-4])
    assert net.optimizer.learning_rate == pytest.approx(1e-4)


def test_a_rate_of_zero_would_show_that_the_reduction_reaches_the_steps(data):
    net = network(optimizer=cd.SGD(0.1))
    weights = []
    keep = callbacks.LambdaCallback(lambda net, *_: weights.append(net.parameters()["0.weight"].copy()))
    tiny = callbacks.ReduceLROnPlateau("loss", factor=1e-30, patience=1, min_delta=1e9)
    net.fit(*data, epochs=4, callbacks=[tiny, keep], verbose=0)
    assert (weights[0] != weights[1]).any()
    np.testing.assert_array_equal(weights[1], weights[2])
    np.testing.assert_array_equal(weights[2], weights[3])


@pytest.mark.parametrize("optimizer", [cd.SGD(0.1, momentum=0.9), cd.Adam(0.01), cd.AdamW(0.01, clip_norm=1.0)])
def test_a_reduction_keeps_the_moments(data, optimizer):
    """Reduced by a callback between two epochs, or given as a schedule from the first: the same bits."""
    rate = optimizer.learning_rate
    halved = optimizer.with_learning_rate(schedules.Step(rate, rate / 2, at=0.5))
    whole, reduced = network(optimizer=halved), network(optimizer=optimizer)
    plateau = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, cooldown=9, min_delta=1e9)
    whole.fit(*data, epochs=4, batch_size=16, verbose=0)
    reduced.fit(*data, epochs=4, batch_size=16, callbacks=[plateau], verbose=0)
    assert reduced.history.metrics["learning_rate"] == whole.history.metrics["learning_rate"]
    assert reduced.predict(data[0]).tobytes() == whole.predict(data[0]).tobytes()


def test_a_rate_that_is_assigned_is_in_the_history_and_so_is_that_before_it(data):
    net = network(optimizer=cd.Adam(0.01))
    history = net.fit(*data, epochs=2, verbose=0)
    assert "learning_rate" not in history.metrics
    net.optimizer = net.optimizer.with_learning_rate(0.01)
    assert "learning_rate" not in history.metrics
    net.optimizer = net.optimizer.with_learning_rate(0.001)
    net.fit(*data, epochs=1, verbose=0)
    net.optimizer = cd.SGD(schedules.Constant(0.5))
    net.fit(*data, epochs=1, verbose=0)
    assert history.metrics["learning_rate"] == [0.01, 0.01, 0.001, 0.5]


def test_an_optimizer_with_another_rate_is_otherwise_the_same():
    for optimizer in (cd.SGD(momentum=0.9, nesterov=True), cd.RMSprop(rho=0.5), cd.Adagrad(), cd.AdamW(clip_norm=2.0)):
        other = optimizer.with_learning_rate(0.125)
        assert type(other) is type(optimizer)
        assert other.options() == optimizer.options() | {"learning_rate": 0.125}
    with pytest.raises(ValueError, match="learning_rate must be"):
        cd.Adam().with_learning_rate(-1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: callbacks.EarlyStopping(mode="best"), ValueError, "mode='best' is not known"),
        (lambda: callbacks.EarlyStopping(3), TypeError, "monitor must be the name of a metric, got 3"),
        (lambda: callbacks.EarlyStopping(min_delta=-1), ValueError, "min_delta must be"),
        (lambda: callbacks.Checkpoint("x", "loss", mode=1), TypeError, "mode must be one of"),
        (lambda: callbacks.Checkpoint("x", mode="best"), ValueError, "mode='best' is not known"),
        (lambda: callbacks.Checkpoint(3), TypeError, "int"),
        (lambda: callbacks.ReduceLROnPlateau(factor=1.0), ValueError, r"factor must be in \(0, 1\)"),
        (lambda: callbacks.ReduceLROnPlateau(patience=0), ValueError, "patience must be at least 1"),
        (lambda: callbacks.ReduceLROnPlateau(cooldown=-1), ValueError, "cooldown must be at least 0"),
        (lambda: callbacks.ReduceLROnPlateau(min_learning_rate=-1), ValueError, "min_learning_rate must be"),
        (lambda: callbacks.CSVLogger("x", append=1), TypeError, "append must be True or False"),
    ],
)
def test_callbacks_refuse_what_they_cannot_use(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Beginning, end and errors


def test_early_stopping_without_validation_says_what_is_missing(data):
    with pytest.raises(ValueError, match=r"monitor='val_loss' is not among the metrics.*validation_data"):
        network().fit(*data, callbacks=[callbacks.EarlyStopping()], verbose=0)


def test_a_callback_that_cannot_begin_is_the_error_that_is_shown(data, tmp_path):
    log = callbacks.CSVLogger(tmp_path / "no such folder" / "log.csv")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        network().fit(*data, validation_split=0.5, callbacks=[log, callbacks.EarlyStopping()], verbose=0)


def test_a_checkpoint_that_cannot_be_written_fails_before_training(data, tmp_path):
    net = network()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        net.fit(*data, callbacks=[callbacks.Checkpoint(tmp_path / "no" / "net")], verbose=0)
    own = network(optimizer=cd.SGD(lambda progress: 0.1))
    with pytest.raises(ValueError, match="function of your own"):
        own.fit(*data, callbacks=[callbacks.Checkpoint(tmp_path / "net")], verbose=0)
    assert len(net.history) == len(own.history) == 0


def test_a_checkpoint_onto_a_folder_fails_before_training(data, tmp_path):
    net = network()
    for path in (tmp_path, f"{tmp_path}/", os.fsencode(tmp_path)):
        with pytest.raises(IsADirectoryError, match="path is a folder") as caught:
            net.fit(*data, callbacks=[callbacks.Checkpoint(path, "loss")], verbose=0)
        assert os.fspath(tmp_path) in caught.value.filename
    with pytest.raises(FileNotFoundError, match="there is no folder") as caught:
        net.fit(*data, callbacks=[callbacks.Checkpoint(tmp_path / "no" / "net")], verbose=0)
    assert caught.value.filename == str(tmp_path / "no" / "net")
    assert len(net.history) == 0
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_whose_saving_is_interrupted_after_the_renaming_knows_what_the_file_holds(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    save, rehearsal = callbacks.Checkpoint(tmp_path / "net", "val_loss"), Rehearsal()
    rehearsal(save, [3])
    with monkeypatch.context() as patch:
        patch.setattr("cydrop._run.files._sync_folder", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rehearsal(save, [1])
    rehearsal.weight[...] = 7
    save.on_epoch_end(rehearsal.net, 2, {"val_loss": 2.0})
    assert cd.load(tmp_path / "net").parameters()["0.weight"][0, 0] == 1
    save.on_epoch_end(rehearsal.net, 3, {"val_loss": 0.5})
    assert cd.load(tmp_path / "net").parameters()["0.weight"][0, 0] == 7


def test_a_checkpoint_that_failed_is_tried_again(data, tmp_path, monkeypatch):
    save, rehearsal = callbacks.Checkpoint(tmp_path / "net", "val_loss"), Rehearsal()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            rehearsal(save, [1])
    assert os.listdir(tmp_path) == []
    save.on_epoch_end(rehearsal.net, 2, {"val_loss": 1.0})
    assert cd.load(tmp_path / "net").parameters()["0.weight"][0, 0] == 1


def test_a_checkpoint_is_replaced_in_a_further_fit_only_by_something_better(tmp_path):
    save, rehearsal = callbacks.Checkpoint(tmp_path / "net", "val_loss"), Rehearsal()
    rehearsal(save, [2, 1])
    rehearsal(save, [3, 1.5, 1.2])
    assert cd.load(tmp_path / "net").parameters()["0.weight"][0, 0] == 2
    rehearsal(save, [3, 0.5])
    assert cd.load(tmp_path / "net").parameters()["0.weight"][0, 0] == 2
    assert rehearsal.net.parameters()["0.weight"][0, 0] == 2


def test_a_checkpoint_holds_the_network_of_its_best_epoch(data, tmp_path):
    X, y = data
    net, path = network(), tmp_path / "best"
    kept = []
    keep = callbacks.LambdaCallback(lambda net, epoch, metrics: kept.append((metrics["val_loss"], net.predict(X))))
    save = callbacks.Checkpoint(path, monitor="val_loss")
    net.fit(X, y, epochs=6, validation_split=0.3, callbacks=[keep, save], verbose=0)
    best = min(kept, key=lambda entry: entry[0])
    np.testing.assert_array_equal(cd.load(path).predict(X), best[1])


def test_the_csv_log_has_a_row_an_epoch(data, tmp_path):
    history = network().fit(*data, epochs=4, callbacks=[callbacks.CSVLogger(tmp_path / "log.csv")], verbose=0)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    np.testing.assert_allclose([float(row["loss"]) for row in rows], history.metrics["loss"])


def test_a_csv_log_that_finds_no_room_names_its_file(data, tmp_path):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        close = flush

        def __del__(self):  # would close it, whose error Python 3.13 reports in the midst of another test
            pass

    def fill(network, epochs):
        log._file.close()
        log._file = Full()

    log = callbacks.CSVLogger(tmp_path / "log.csv")
    with pytest.raises(OSError, match="No space left") as caught:
        network().fit(*data, epochs=2, callbacks=[log, callbacks.LambdaCallback(on_train_begin=fill)], verbose=0)
    assert caught.value.filename == str(tmp_path / "log.csv")
    assert log._file is None


def test_the_csv_log_keeps_its_columns_when_metrics_come_and_go(data, tmp_path):
    path = tmp_path / "log.csv"
    log = callbacks.CSVLogger(path)
    log.on_train_begin(None, 3)
    log.on_epoch_end(None, 1, {"loss": 1.0, "rmse": 2.0})
    assert path.read_text().splitlines() == ["epoch,loss,rmse", "1,1.0,2.0"]  # before the file is closed
    log.on_epoch_end(None, 2, {"loss": 0.5, "val_loss": 3.0})
    log.on_train_end(None)
    assert path.read_text().splitlines()[2:] == ["2,0.5,nan"]


def test_the_csv_log_goes_on_in_the_columns_of_the_file_that_is_there(data, tmp_path):
    path, net = tmp_path / "log.csv", network()
    for _ in range(2):
        history = net.fit(*data, epochs=2, callbacks=[callbacks.CSVLogger(path, append=True)], verbose=0)
    net.fit(*data, epochs=1, validation_split=0.5, callbacks=[callbacks.CSVLogger(path, append=True)], verbose=0)
    table = pandas.read_csv(path)
    assert list(table) == ["epoch", "loss", "accuracy", "seconds"]
    assert list(table["epoch"]) == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(table["loss"], history.metrics["loss"])
    net.fit(*data, epochs=1, callbacks=[callbacks.CSVLogger(path)], verbose=0)
    assert list(pandas.read_csv(path)["epoch"]) == [6]


def test_the_csv_log_does_not_append_to_another_file_nor_to_a_cut_off_row(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("time,loss\n1,2\n")
    with pytest.raises(ValueError, match="its first column is 'time', not 'epoch'"):
        callbacks.CSVLogger(path, append=True).on_train_begin(None, 1)
    path.write_text("epoch,loss\n1,2.")
    log = callbacks.CSVLogger(path, append=True)
    log.on_train_begin(None, 1)
    log.on_epoch_end(None, 2, {"seconds": 1.0, "loss": 0.5})
    log.on_train_end(None)
    assert path.read_text().splitlines() == ["epoch,loss", "1,2.", "2,0.5"]


def test_callbacks_are_told_of_the_end_when_training_fails(data):
    ended = []
    failing = callbacks.LambdaCallback(lambda *a: 1 / 0, on_train_end=lambda net: ended.append(net))
    with pytest.raises(ZeroDivisionError):
        network().fit(*data, callbacks=[failing], verbose=0)
    assert len(ended) == 1


class Failing(callbacks.Callback):
    """Raises what it was given at the places that were named."""

    def __init__(self, log, **errors):
        self.log, self.errors = log, errors

    def _at(self, place):
        self.log.append(place)
        if place in self.errors:
            raise self.errors[place]

    def on_train_begin(self, network, epochs):
        self._at("begin")

    def on_epoch_end(self, network, epoch, metrics):
        self._at("epoch")

    def on_train_end(self, network):
        self._at("end")


def test_an_error_at_the_end_of_one_callback_does_not_keep_the_others_from_theirs(data):
    log, net = [], network()
    given = [Failing(log, end=OSError("first")), Failing(log, end=ValueError("second")), Failing(log)]
    with pytest.raises(OSError, match="first") as caught:
        net.fit(*data, epochs=1, callbacks=given, verbose=0)
    assert log == ["begin"] * 3 + ["epoch"] * 3 + ["end"] * 3
    assert caught.value.__notes__ == ["on_train_end of Failing failed as well: ValueError('second')"]
    assert len(net.history) == 1


@pytest.mark.parametrize(
    ("errors", "shown"),
    [
        ({"epoch": ZeroDivisionError(), "end": OSError()}, ZeroDivisionError),
        ({"epoch": KeyboardInterrupt(), "end": OSError()}, KeyboardInterrupt),
        ({"epoch": ZeroDivisionError(), "end": KeyboardInterrupt()}, KeyboardInterrupt),
    ],
)
def test_the_first_error_is_shown_unless_an_interrupt_comes(data, errors, shown):
    log = []
    with pytest.raises(shown):
        network().fit(*data, epochs=5, callbacks=[Failing(log, **errors), Failing(log)], verbose=0)
    assert log == ["begin", "begin", "epoch", "end", "end"]


@pytest.mark.parametrize("place", ["begin", "epoch", "end"])
@pytest.mark.parametrize("error", [StopIteration, GeneratorExit, SystemExit, ZeroDivisionError])
def test_what_a_callback_raises_comes_out_as_it_is(data, place, error):
    raised, log = error("of the user's own"), []
    with pytest.raises(error) as caught:
        network().fit(*data, epochs=2, callbacks=[Failing([]), Failing(log, **{place: raised})], verbose=0)
    assert caught.value is raised
    epochs = {"begin": 0, "epoch": 1, "end": 2}[place]
    assert log == ["begin", *["epoch"] * epochs, *["end"] * (place != "begin")]


def test_the_end_is_told_to_those_that_have_begun(data):
    first, second, third = [], [], []
    given = [Failing(first), Failing(second, begin=OSError("cannot begin")), Failing(third)]
    with pytest.raises(OSError, match="cannot begin"):
        network().fit(*data, callbacks=given, verbose=0)
    assert (first, second, third) == (["begin", "end"], ["begin"], [])


def test_the_best_epoch_is_put_back_after_an_interrupt_and_after_an_error(data):
    X, y = data
    for error in (KeyboardInterrupt, ZeroDivisionError):
        kept = []

        def fail(network, epoch, metrics, error=error, kept=kept):
            kept.append(network.predict(X))
            if epoch == 5:
                raise error

        net, stop = network(optimizer=cd.Adam(0.3)), callbacks.EarlyStopping(patience=50)
        wrong = (X[:20], 1 - y[:20])
        with pytest.raises(error):
            net.fit(X, y, validation_data=wrong, callbacks=[callbacks.LambdaCallback(fail), stop], verbose=0)
        assert stop.best_epoch < 5
        np.testing.assert_array_equal(net.predict(X), kept[stop.best_epoch - 1])


def test_the_best_epoch_is_put_back_after_a_divergence(data):
    X, y = data
    net = cd.Network([cd.Dense(8), cd.ReLU(), cd.Dense(1)], loss="mse", optimizer=cd.SGD(0.01), seed=0)
    kept = []

    def explode(network, epoch, metrics):
        kept.append(network.predict(X))
        if epoch == 3:
            network.optimizer = network.optimizer.with_learning_rate(1e30)

    stop = callbacks.EarlyStopping(monitor="loss", mode="max")
    with pytest.raises(cd.DivergedError):
        net.fit(X, y, epochs=9, batch_size=8, callbacks=[callbacks.LambdaCallback(explode), stop], verbose=0)
    assert stop.best_epoch == 1
    np.testing.assert_array_equal(net.predict(X), kept[0])


@pytest.mark.parametrize("place", ["on_train_begin", "on_epoch_end", "on_train_end"])
def test_what_failed_does_not_stay_in_memory(data, place):
    """No circle of an error, its traceback and the frames that hold the data."""
    import gc
    import weakref

    class Held(np.ndarray):
        pass

    X = data[0].astype(np.float32).view(Held)
    alive = weakref.ref(X)
    gc.disable()
    try:
        try:
            network().fit(X, data[1], callbacks=[callbacks.LambdaCallback(**{place: lambda *a: 1 / 0})], verbose=0)
        except ZeroDivisionError:
            del X
        assert alive() is None
    finally:
        gc.enable()


# Progress


def test_the_progress_bar_writes_lines_where_no_terminal_is(data):
    text = io.StringIO()
    network().fit(*data, epochs=2, callbacks=[callbacks.ProgressBar(text)], verbose=0)
    assert text.getvalue().count("\n") == 2
    assert "accuracy" in text.getvalue()


def test_lines_of_several_networks_begin_with_a_label(data):
    text = io.StringIO()
    network().fit(*data, epochs=2, callbacks=[callbacks.ProgressBar(text, label="fold 3")], verbose=0)
    assert [line.split("  ")[0] for line in text.getvalue().splitlines()] == ["fold 3", "fold 3"]
    with pytest.raises(TypeError, match="label must be a str, got 3"):
        callbacks.ProgressBar(label=3)


def test_lines_have_the_rows_a_second_of_training_without_validation_rows(data):
    text = io.StringIO()
    net = network()
    net.fit(*data, epochs=3, validation_split=0.25, callbacks=[callbacks.ProgressBar(text)], verbose=0)
    assert net.training_rows == 60
    for line, seconds in zip(text.getvalue().splitlines(), net.history.metrics["seconds"], strict=True):
        assert line.endswith(f"{seconds:.2f} s  {60 / seconds:,.0f} rows/s")


def test_many_fast_epochs_do_not_flood_but_the_last_one_is_shown(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 64)  # 64 epochs a second
    rehearsal = Rehearsal().net

    def lines(epochs, ended):
        text = io.StringIO()
        bar = callbacks.ProgressBar(text)
        bar.on_train_begin(rehearsal, epochs)
        for epoch in range(1, ended + 1):
            bar.on_epoch_end(rehearsal, epoch, {"loss": 1.0, "seconds": 0.01})
        bar.on_train_end(rehearsal)
        return [int(line.split()[1].split("/")[0]) for line in text.getvalue().splitlines()]

    assert lines(100, 100) == list(range(1, 101))
    assert lines(640, 640) == [*range(1, 641, 7), 640]
    assert lines(640, 20) == [1, 8, 15, 20]  # stopped: the last one is printed at the end


def test_verbose_is_quiet_without_a_terminal_and_prints_lines_when_asked(data, capsys):
    network().fit(*data, epochs=2)
    assert capsys.readouterr().out == ""
    network().fit(*data, epochs=2, verbose=1)
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 2
    assert shown.err == ""


def test_streams_that_are_none_or_know_no_terminal_are_no_terminals(data, monkeypatch):
    assert not callbacks.is_terminal(None)
    assert not callbacks.is_terminal(object())
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    network().fit(*data, epochs=1, verbose=None)
    network().fit(*data, epochs=1, verbose=1)


def in_a_terminal(script, columns):
    """What a script writes to a pseudo-terminal."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen([sys.executable, "-c", script], stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    read = []

    def drain():
        try:
            while part := os.read(leader, 4096):
                read.append(part)
        except OSError:  # Linux: the other side is closed
            pass

    thread = threading.Thread(target=drain)
    thread.start()
    assert child.wait(timeout=60) == 0
    thread.join(timeout=60)
    os.close(leader)
    return b"".join(read).decode()


TERMINAL_SCRIPT = """
import sys
{before}
import numpy as np, cydrop as cd
X = np.random.default_rng(0).random((80, 4))
net = cd.Network([cd.Dense(8), cd.ReLU(), cd.Dense(2)], seed=0)
net.fit(X, (X[:, 0] > 0.5).astype(int), epochs=3, validation_split=0.25)
print("done", "tqdm" in sys.modules and sys.modules["tqdm"] is not None)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pseudo-terminals to run the bar in")
def test_a_terminal_gets_a_bar_where_tqdm_is_installed():
    shown = in_a_terminal(TERMINAL_SCRIPT.format(before=""), 200)
    assert "done True" in shown
    last = shown[: shown.index("done")].split("\r")[-2].strip()
    assert "3/3" in last
    assert "100%" in last
    for part in ("epoch/s", "loss 0.", "accuracy 0.", "val_loss 0.", "val_accuracy", " rows/s"):
        assert part in last
    assert "epoch 1/3" not in shown


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pseudo-terminals to run the bar in")
def test_a_narrow_terminal_shows_the_losses_and_the_speed():
    shown = in_a_terminal(TERMINAL_SCRIPT.format(before=""), 100)
    last = shown[: shown.index("done")].split("\r")[-2]
    assert len(last) <= 100
    for part in ("loss 0.", "val_loss 0.", " rows/s"):
        assert part in last


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pseudo-terminals to run the bar in")
def test_a_terminal_gets_lines_without_tqdm():
    shown = in_a_terminal(TERMINAL_SCRIPT.format(before="sys.modules['tqdm'] = None"), 200)
    assert "done False" in shown
    assert [line[:9] for line in shown.splitlines()[:3]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all(line.endswith(" rows/s") for line in shown.splitlines()[:3])


# History


def test_the_history_knows_its_best_epoch():
    history = cd.History({"val_loss": [3.0, 1.0, math.nan, 1.0], "accuracy": [0.1, 0.9, 0.2, 0.3], "x": [math.nan] * 4})
    assert history.best() == (2, 1.0)
    assert history.best("accuracy") == (2, 0.9)
    assert history.best("accuracy", mode="min") == (1, 0.1)
    with pytest.raises(ValueError, match="monitor='val_x' has no values; the metrics are val_loss, accuracy, x"):
        history.best("val_x")
    with pytest.raises(ValueError, match="monitor='x' has no values"):
        history.best("x")
    with pytest.raises(ValueError, match="no epoch has ended"):
        cd.History().best()


def test_the_history_is_shown_pickled_and_made_into_a_table(data):
    assert repr(cd.History()) == "History(0 epochs)"
    assert repr(cd.History({"loss": [0.25]})) == "History(1 epoch; last: loss=0.25)"
    history = network().fit(*data, epochs=2, validation_split=0.5, verbose=0)
    assert pickle.loads(pickle.dumps(history)).metrics == history.metrics
    table = pandas.DataFrame(history.metrics)
    assert table.shape == (2, 5)
    assert list(table["val_loss"]) == history.metrics["val_loss"]


def test_an_interrupt_leaves_the_last_epoch_in_the_history_whole_or_not_at_all(data):
    class Interrupting(float):
        def __float__(self):
            raise KeyboardInterrupt

    net = network()
    history = net.fit(*data, epochs=2, verbose=0)
    before = {name: list(values) for name, values in history.metrics.items()}
    with pytest.raises(KeyboardInterrupt):
        history.append({"loss": 0.5, "accuracy": Interrupting(0.5), "new": 1.0})
    assert {name: values for name, values in history.metrics.items() if name != "new"} == before
    assert len(history) == 2
    with pytest.raises(KeyboardInterrupt):
        core_of(net).finish_epoch({"loss": 0.5, "accuracy": Interrupting(0.5)})
    numbers = []
    keep = callbacks.LambdaCallback(lambda net, epoch, metrics: numbers.append(epoch))
    net.fit(*data, epochs=1, callbacks=[keep], verbose=0)
    assert numbers == [3] == [len(history)]
    assert {len(values) for values in history.metrics.values()} == {3}


# Metrics of one's own


def test_a_metric_that_a_callback_adds_is_in_the_history_and_in_the_files_written_after_it(data, tmp_path):
    net, seen = network(), []
    add = callbacks.LambdaCallback(lambda net, epoch, metrics: metrics.update(val_f1=epoch / 10))
    see = callbacks.LambdaCallback(lambda net, epoch, metrics: seen.append(net.history.metrics["val_f1"][-1]))
    log, save = callbacks.CSVLogger(tmp_path / "log.csv"), callbacks.Checkpoint(tmp_path / "net")
    before = callbacks.Checkpoint(tmp_path / "before")
    net.fit(*data, epochs=1, verbose=0)
    history = net.fit(*data, epochs=3, callbacks=[before, add, see, log, save], verbose=0)
    np.testing.assert_array_equal(history.metrics["val_f1"], [math.nan, 0.2, 0.3, 0.4])
    assert {len(values) for values in history.metrics.values()} == {4}
    assert seen == [0.2, 0.3, 0.4]
    assert list(pandas.read_csv(tmp_path / "log.csv")["val_f1"]) == seen
    np.testing.assert_array_equal(cd.load(tmp_path / "net").history.metrics["val_f1"], history.metrics["val_f1"])
    earlier = cd.load(tmp_path / "before").history.metrics["val_f1"]
    np.testing.assert_array_equal(earlier, [math.nan, 0.2, 0.3, math.nan])
    assert history.best("val_f1") == (4, 0.4)
    net.fit(*data, epochs=1, verbose=0)
    assert math.isnan(history.metrics["val_f1"][4])


def test_a_metric_that_a_callback_changes_is_changed_in_the_history(data):
    def change(net, epoch, metrics):
        metrics["loss"] = -float(epoch)
        metrics["late"] = np.float32(0.5)
        del metrics["seconds"]

    history = network().fit(*data, epochs=2, callbacks=[callbacks.LambdaCallback(change)], verbose=0)
    assert history.metrics["loss"] == [-1.0, -2.0]
    assert history.metrics["late"] == [0.5, 0.5]
    assert len(history.metrics["seconds"]) == 2
    assert min(history.metrics["seconds"]) > 0


@pytest.mark.parametrize("value", ["0.5", b"1", None, [0.5], np.ones(1), np.ones(3), 1j, {}, 10**400])
def test_a_metric_that_is_no_number_is_named_and_nothing_of_it_stays(data, value):
    for name in ("loss", "val_f1"):
        check_not_a_number(data, name, value)


def check_not_a_number(data, name, value):
    net = network()
    bad = callbacks.LambdaCallback(lambda net, epoch, metrics: metrics.update({"good": 1.0, name: value}))
    with pytest.raises(TypeError, match=f"metric '{name}' must be a number, got "):
        net.fit(*data, epochs=2, callbacks=[bad], verbose=0)
    assert list(net.history.metrics) == ["loss", "accuracy", "seconds"]
    assert len(net.history) == 1
    assert net.history.metrics["loss"][0] > 0


def test_amending_sets_the_last_epoch():
    history = cd.History({"loss": [3.0, 2.0], "short": [1.0]})
    history.amend({"loss": 1.5, "new": True, "short": np.float64(4), "late": math.nan})
    np.testing.assert_equal(
        history.metrics, {"loss": [3.0, 1.5], "short": [1.0, 4.0], "new": [math.nan, 1.0], "late": [math.nan] * 2}
    )
    with pytest.raises(TypeError, match=r"the name of a metric must be a str, got 3 \(int\)"):
        history.amend({3: 1.0})
    with pytest.raises(ValueError, match="no epoch"):
        cd.History().amend({"loss": 1.0})


def in_callbacks(code):
    return os.path.join("cydrop", "callbacks", "") in code.co_filename


def in_both(code):
    """Of the callbacks and the history."""
    return in_callbacks(code) or os.path.join("cydrop", "history") in code.co_filename


@pytest.mark.parametrize("what", ["append", "amend"])
def test_an_interrupt_at_any_instruction_leaves_an_epoch_whole_or_not_at_all(what):
    old = {"loss": [0.5, 0.4], "short": [1.0], "none": []}
    change = {"loss": 0.3, "new": 2.0, "none": 1.0}
    after = cd.History({name: list(values) for name, values in old.items()})
    getattr(after, what)(change)
    step = 0
    while True:
        history = cd.History({name: list(values) for name, values in old.items()})
        if not interrupted(lambda history=history: getattr(history, what)(change), step, in_both):
            break
        try:
            np.testing.assert_equal(history.metrics, old)
        except AssertionError:
            np.testing.assert_equal(history.metrics, after.metrics)
        step += 1
    assert step > 80


def test_an_interrupt_at_any_instruction_of_early_stopping_leaves_it_agreeing_with_itself():
    rehearsal, step = Rehearsal(), 0
    while True:
        stop = callbacks.EarlyStopping()
        rehearsal.weight[...] = 1
        stop.on_train_begin(rehearsal.net, 2)
        stop.on_epoch_end(rehearsal.net, 1, {"val_loss": 5.0})
        rehearsal.weight[...] = 2
        again = interrupted(lambda stop=stop: stop.on_epoch_end(rehearsal.net, 2, {"val_loss": 4.0}), step, in_both)
        rehearsal.weight[...] = 3
        stop.on_train_end(rehearsal.net)
        assert (stop.best_epoch, stop.best, rehearsal.weight[0, 0]) in ((1, 5.0, 1), (2, 4.0, 2))
        if not again:
            break
        step += 1
    assert step > 30
    assert stop.best_epoch == 2


def test_an_interrupt_between_two_ends_does_not_keep_the_rest_from_theirs(data):
    step = 0
    while True:
        logs = [], [], []
        notifier = callbacks.Notifier([Failing(log) for log in logs], None, 1)
        notifier.__enter__()
        again = interrupted(lambda notifier=notifier: notifier.__exit__(None, None, None), step, in_callbacks)
        missing = [number for number, log in enumerate(logs) if log != ["begin", "end"]]
        assert len(missing) <= 1 or step < 20, "an interrupt costs the callback that it hits its end, and no other"
        if not again:
            break
        step += 1
    assert step > 30
    assert not missing


def test_a_metric_that_begins_late_is_nan_before(data):
    net = network()
    net.fit(*data, epochs=1, verbose=0)
    history = net.fit(*data, epochs=1, validation_split=0.5, verbose=0)
    assert math.isnan(history.metrics["val_loss"][0])
    assert history.metrics["val_loss"][1] > 0


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (schedules.Constant(0.3), [0.3, 0.3, 0.3, 0.3, 0.3]),
        (schedules.Linear(1.0, 0.0), [1, 0.75, 0.5, 0.25, 0]),
        (schedules.Linear(1.0, 0.0, until=0.5), [1, 0.5, 0, 0, 0]),
        (schedules.Step(0.5, 0.1, at=0.5), [0.5, 0.5, 0.1, 0.1, 0.1]),
        (schedules.Exponential(1.0, 1 / 16), [1, 0.5, 0.25, 0.125, 0.0625]),
        (schedules.Cosine(1.0), [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
        (schedules.FlatCos(0.15, 0.0, flat=0.5), [0.15, 0.15, 0.15, 0.075, 0]),
        (
            schedules.CosLog4(2.0),
            [
                0,
                1 - math.cos(2 * math.pi * math.log2(4.75)),
                1 - math.cos(2 * math.pi * math.log2(8.5)),
                1 - math.cos(2 * math.pi * math.log2(12.25)),
                0,
            ],
        ),
        (schedules.Scaled(schedules.Linear(1.0, 0.0), 0.5), [0.5, 0.375, 0.25, 0.125, 0]),
        (schedules.OneCycle(1.0, 4.0, 8.0, warm_up=0.5), [0.25, 0.625, 1, (1 + 0.125) / 2, 0.125]),
    ],
    ids=repr,
)
def test_schedules_take_their_values_and_survive_saving(schedule, values):
    np.testing.assert_allclose([schedule(p) for p in (0, 0.25, 0.5, 0.75, 1)], values, atol=1e-12)
    assert schedules.from_config(schedule.config()) == schedule


def test_the_schedules_of_realmlp_are_to_the_letter():
    """Holzmueller, Grinsztajn and Steinwart 2024, appendix A."""
    t = np.linspace(0, 1, 1001)
    coslog4 = (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t))) / 2
    flat_cos = np.where(t <= 0.5, 1, (1 + np.cos(np.pi * (2 * t - 1))) / 2)
    np.testing.assert_allclose([schedules.CosLog4(0.04)(p) for p in t], 0.04 * coslog4, atol=1e-14)
    np.testing.assert_allclose([schedules.FlatCos(0.02)(p) for p in t], 0.02 * flat_cos, atol=1e-14)
    np.testing.assert_allclose([schedules.CosLog4(1.0)(p / 15) for p in (0, 1, 3, 7, 15)], 0, atol=1e-14)

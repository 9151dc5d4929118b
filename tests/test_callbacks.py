"""What happens between the epochs."""

import csv
import io
import math

import numpy as np
import pytest

import cydrop as cd
from cydrop import callbacks, schedules


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


def test_early_stopping_without_validation_says_what_is_missing(data):
    with pytest.raises(ValueError, match=r"monitor='val_loss' is not among the metrics.*validation_data"):
        network().fit(*data, callbacks=[callbacks.EarlyStopping()], verbose=0)


def test_a_callback_that_cannot_begin_is_the_error_that_is_shown(data, tmp_path):
    log = callbacks.CSVLogger(tmp_path / "no such folder" / "log.csv")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        network().fit(*data, validation_split=0.5, callbacks=[log, callbacks.EarlyStopping()], verbose=0)


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


def test_callbacks_are_told_of_the_end_when_training_fails(data):
    ended = []
    failing = callbacks.LambdaCallback(lambda *a: 1 / 0, on_train_end=lambda net: ended.append(net))
    with pytest.raises(ZeroDivisionError):
        network().fit(*data, callbacks=[failing], verbose=0)
    assert len(ended) == 1


def test_the_progress_bar_writes_lines_where_no_terminal_is(data):
    text = io.StringIO()
    network().fit(*data, epochs=2, callbacks=[callbacks.ProgressBar(text)], verbose=0)
    assert text.getvalue().count("\n") == 2
    assert "accuracy" in text.getvalue()


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
        (schedules.OneCycle(1.0, 4.0, 8.0, warm_up=0.5), [0.25, 0.625, 1, (1 + 0.125) / 2, 0.125]),
    ],
    ids=repr,
)
def test_schedules_take_their_values_and_survive_saving(schedule, values):
    np.testing.assert_allclose([schedule(p) for p in (0, 0.25, 0.5, 0.75, 1)], values, atol=1e-12)
    assert schedules.from_config(schedule.config()) == schedule

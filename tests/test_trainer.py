"""The seam where other ways of training enter: whatever has the two methods of `Trainer`."""

import numpy as np
import pytest

import cydrop as cd
from cydrop._run.core import core_of
from cydrop._run.training import NO_ORDER, Job, Trainer


class Halves(Trainer):
    """Trains every pass in two halves: the first rows, then the others."""

    passes = 0

    def train_pass(self, core, data, order, rates, epoch, shards=0, there=0):
        self.passes += 1
        half = len(data.X) // 2
        total, correct = 0.0, 0
        for rows in (slice(None, half), slice(half, None)):
            part = core.rows(data.X[rows], data.labels[rows], None, data.batch_size)
            loss, hits = super().train_pass(core, part, NO_ORDER, rates, epoch, shards)
            total, correct = total + loss, correct + hits
        return total, correct


@pytest.fixture
def rows(rng):
    return rng.standard_normal((64, 5)).astype(np.float32), rng.integers(0, 3, 64)


def network():
    return cd.Network([cd.Dense(9), cd.ReLU(), cd.Dropout(0.3), cd.Dense(3)], seed=0)


def test_another_trainer_stands_behind_fit_partial_fit_and_train_on_batch(rows, monkeypatch):
    trainer = Halves()
    monkeypatch.setattr(cd.Network, "_trainer", trainer)
    net = network()
    history = net.fit(*rows, epochs=3, batch_size=16, shuffle=False, verbose=0)
    net.partial_fit(*rows, batch_size=16)
    assert trainer.passes == 4
    assert len(history) == 3
    monkeypatch.undo()
    plain = network()  # halves of whole batches in their order are the same steps
    plain.fit(*rows, epochs=3, batch_size=16, shuffle=False, verbose=0)
    plain.partial_fit(*rows, batch_size=16)
    assert net.predict(rows[0]).tobytes() == plain.predict(rows[0]).tobytes()
    np.testing.assert_allclose(history.metrics["loss"], plain.history.metrics["loss"], rtol=1e-12)


def test_a_trainer_needs_no_network(rows):
    """A core is enough: many of them can be trained side by side, each with the bits that it has in a network."""
    whole, part = network(), core_of(network())
    whole.fit(*rows, epochs=2, batch_size=16, verbose=0)
    data = part.rows(*rows, None, 16)
    part.built_for(5)
    job = Job(data, None, 2, True, False)
    metrics = [Trainer().epoch(part, job, epoch) for epoch in range(2)]
    assert [found["loss"] for found in metrics] == whole.history.metrics["loss"]
    mine, theirs = part.model.parameters, core_of(whole).model.parameters
    assert mine.tobytes() == theirs.tobytes()

"""A part of a batch, from any first row on, sees the masks and the noise that the whole batch sees."""

import sys

import numpy as np
import pytest

import cydrop as cd
from cydrop._core.engine import Workspace
from cydrop._run.core import core_of

DRAWING = [
    cd.Dropout(0.3),
    cd.Dropout(0.5),
    cd.Dropout(0.5, shared="batch"),
    cd.Dropout(0.3, mode="vanilla"),
    cd.AlphaDropout(0.3),
    cd.GaussianDropout(0.4),
    cd.Dropout("learn", initial=0.3),
    cd.GaussianNoise(0.2),
    cd.Masksembles(3),
]


def passes(net, X, grad, first, end, whole_rows):
    """Outputs and d loss / d X of rows first..end of the whole batch, as a part of it."""
    model = core_of(net).model
    workspace = Workspace(model.engine, whole_rows, True)
    workspace.first_row = first
    model.engine.draws = 7
    out = np.empty((end - first, model.plan.n_outputs), dtype=np.float32)
    rates = core_of(net).rates([0.0]).drawing
    model.engine.forward(workspace, X[first:end].copy(), out, rates)
    dx = np.empty((end - first, X.shape[1]), dtype=np.float32)
    model.engine.backward(workspace, grad[first:end].copy(), dx)
    return out, dx


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("units", [7, 301])
@pytest.mark.parametrize("layer", DRAWING, ids=repr)
def test_a_part_of_a_batch_sees_the_masks_of_the_whole(rng, layer, units, n_threads):
    layers = [layer, cd.Dense(units, drop_connect=0.2), cd.Tanh(), type(layer)(**layer.options()), cd.Dense(4)]
    net = cd.Network(layers, loss="mse", seed=3, n_threads=n_threads).build(37)
    X = rng.standard_normal((50, 37)).astype(np.float32)
    grad = rng.standard_normal((50, 4)).astype(np.float32)
    out, dx = passes(net, X, grad, 0, 50, 50)
    for first, end in ((0, 20), (20, 50), (13, 14), (49, 50), (1, 50)):
        some, some_dx = passes(net, X, grad, first, end, 50)
        assert some.tobytes() == out[first:end].tobytes(), (first, end)
        assert some_dx.tobytes() == dx[first:end].tobytes(), (first, end)


def test_parts_see_other_masks_than_a_batch_of_their_own(rng):
    net = cd.Network([cd.Dropout(0.5), cd.Dense(4)], loss="mse", seed=3).build(37)
    X, grad = rng.standard_normal((50, 37)).astype(np.float32), np.zeros((50, 4), dtype=np.float32)
    part, _ = passes(net, X, grad, 20, 50, 50)
    alone, _ = passes(net, X[20:], grad[20:], 0, 30, 50)
    assert (part != alone).any()


@pytest.mark.parametrize("first_row", [-1, -sys.maxsize])
def test_a_first_row_before_the_batch_is_refused(first_row):
    model = core_of(cd.Network([cd.Dropout(0.5), cd.Dense(4)], seed=3).build(37)).model
    workspace = Workspace(model.engine, 5, True)
    with pytest.raises(ValueError, match="first_row must be at least 0"):
        workspace.first_row = first_row
    assert workspace.first_row == 0


def test_r_drop_has_no_parts_yet():
    net = cd.Network([cd.Dropout(0.5), cd.Dense(4)], loss=cd.losses.CrossEntropy(r_drop=1.0), seed=3).build(37)
    workspace = Workspace(core_of(net).model.engine, 10, True)
    with pytest.raises(ValueError, match="0 with R-Drop"):
        workspace.first_row = 5

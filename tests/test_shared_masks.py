"""Masks shared by a batch: dropped units are left out of the work, and not a bit is different."""

import numpy as np
import pytest

import cydrop as cd
from cydrop import functional
from cydrop._core import dropout as dropout_kernel


def packed(mask):
    bits = np.zeros(dropout_kernel.words_of(mask.size), dtype=np.uint64)
    dropout_kernel.pack(mask.view(np.uint8), bits)
    return bits


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (5, 16), (30, 63), (17, 64), (64, 65), (129, 200)])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_gathering_is_indexing_and_spreading_is_the_way_back(rows, cols, keep, rng):
    source = rng.standard_normal((rows, cols)).astype(np.float32)
    row_mask, col_mask = rng.random(rows) < keep, rng.random(cols) < keep
    row_mask[-1] = col_mask[0] = True
    expected = source[row_mask][:, col_mask]
    exact = np.empty(expected.shape, dtype=np.float32)
    places = np.empty(rows, np.int32), np.empty(cols, np.int32)
    dropout_kernel.gathered(source, packed(row_mask), packed(col_mask), *places, exact, 2)
    np.testing.assert_array_equal(exact, expected)
    assert dropout_kernel.kept(packed(col_mask), places[1]) == expected.shape[1]
    for first in {0, cols // 3, cols - 1}:
        kept = np.ascontiguousarray(source[0, first:][col_mask[first:]])
        back = np.full(cols - first, np.nan, dtype=np.float32)
        dropout_kernel.spread_row(kept if kept.size else np.zeros(1, np.float32), packed(col_mask), first, back)
        np.testing.assert_array_equal(back, np.where(col_mask, source[0], 0)[first:])


def layers(shared, activation, input_dropout, last_mode="inverted"):
    return [
        *([cd.Dropout(0.2, shared=shared)] if input_dropout else []),
        cd.Dense(160), activation(), cd.Dropout(0.5, shared=shared),
        cd.Dense(130, bias=False), activation(), cd.Dropout(0.3, mode=last_mode, shared=shared), cd.Dense(5),
    ]  # fmt: skip


OPTIMIZERS = [
    cd.SGD(0.1), cd.SGD(0.1, momentum=0.9), cd.SGD(0.1, weight_decay=0.1), cd.RMSprop(), cd.Adagrad(),
    cd.Adam(1e-2), cd.AdamW(1e-2), cd.Adam(1e-2, clip_norm=0.5),
]  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("activation", [cd.ReLU, cd.GELU])
@pytest.mark.parametrize("input_dropout", [False, True])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_leaving_units_out_gives_the_bits_of_the_same_mask_applied_to_all(
    optimizer, activation, input_dropout, n_threads, rng
):
    X, y = rng.standard_normal((70, 90)), rng.integers(0, 5, 70)
    fast, by_hand, slow = (
        cd.Network(layers(shared, activation, input_dropout, "vanilla"), optimizer=optimizer, seed=3,
                   n_threads=n_threads).build(90)
        for shared in ("batch", "batch", None)
    )  # fmt: skip
    for _ in range(4):
        fast.train_on_batch(X, y)
        # the slow way: ordinary dropout, given the shared mask once for every row
        masks = [np.broadcast_to(mask, (70, len(mask))) for mask in fast.masks()]
        grads = []
        for net, given in ((slow, masks), (by_hand, None)):
            z = net.forward(X, training=True, masks=given)
            grads.append(net.backward(functional.cross_entropy(z, y, return_grad=True)[1]))
            net.step()
        assert grads[0].tobytes() == grads[1].tobytes()
    for name, array in slow.parameters().items():
        assert fast.parameters()[name].tobytes() == array.tobytes(), name
        assert by_hand.parameters()[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.97, 1.0])
def test_extreme_rates_train_too(rate, rng):
    X, y = rng.standard_normal((40, 30)), rng.integers(0, 3, 40)
    stack = []
    for units in (200, 100):
        stack += [cd.Dense(units), cd.ReLU(), cd.Dropout(rate, shared="batch")]
    net = cd.Network([*stack, cd.Dense(3)], seed=0)
    net.fit(X, y, epochs=30, batch_size=10, verbose=0)
    assert np.isfinite(net.predict(X)).all()


def test_a_given_mask_of_the_batch_leaves_out_the_same_units(rng):
    X = rng.standard_normal((20, 90)).astype(np.float32)
    net = cd.Network(layers("batch", cd.Tanh, True), seed=3)
    drawn = net.forward(X, training=True)
    masks = net.masks()
    assert [mask.shape for mask in masks] == [(90,), (160,), (130,)]
    np.testing.assert_array_equal(net.forward(X, training=True, masks=masks), drawn)


def test_max_norm_and_layers_between_work_with_left_out_units(rng):
    X, y = rng.standard_normal((50, 60)), rng.integers(0, 3, 50)
    for between in ([], [cd.LayerNorm()], [cd.GaussianNoise(0.1)], [cd.Dropout(0.1)]):
        stack = [cd.Dense(200, max_norm=1.0), cd.ReLU(), cd.Dropout(0.5, shared="batch"), *between]
        stack += [cd.Dense(100, drop_connect=0.2), cd.Dropout(0.5, shared="batch"), cd.Dense(3)]
        net = cd.Network(stack, seed=0)
        net.fit(X, y, epochs=3, batch_size=16, verbose=0)
        assert (np.linalg.norm(net.parameters()["0.weight"], axis=0) < 1 + 1e-5).all()


def test_trained_bits_do_not_depend_on_threads_or_size_of_the_last_batch(rng):
    X, y = rng.standard_normal((333, 200)), rng.integers(0, 5, 333)
    results = set()
    for n_threads in (1, 2, 3, 5):
        net = cd.Network(layers("batch", cd.ReLU, True), seed=3, n_threads=n_threads)
        net.fit(X, y, epochs=2, batch_size=64, verbose=0)
        results.add(b"".join(array.tobytes() for array in net.parameters().values()))
    assert len(results) == 1


def test_every_sample_of_monte_carlo_prediction_has_one_mask_for_all_rows(rng):
    row = rng.standard_normal((1, 20)).astype(np.float32)
    net = cd.Network([cd.Dropout(0.5, shared="batch"), cd.Dense(3)], loss="mse", seed=0)
    X = np.repeat(row, 600, axis=0)  # more than one chunk of rows
    samples = net.predict_mc(X, 20, seed=0, return_samples=True).samples
    assert (samples == samples[:, :1]).all()
    assert len({sample[0].tobytes() for sample in samples}) == 20

"""Many networks in one: against the plain network, each member alone, bits, files, what is refused."""

import copy
import json
import pickle

import numpy as np
import pytest
from digests import digest
from oracle import assert_same_training
from plain_network import PlainNetwork

import cydrop as cd
from cydrop._base import seeding
from cydrop._run.core import core_of

SHARINGS = ["mini", "tabm", "packed"]


def members(sharing="mini", k=5, head=3, **options):
    inside = [cd.Dense(20, activation="relu"), cd.Dropout(0.3), cd.Dense(17, activation="gelu"), cd.Dropout(0.1)]
    return cd.Members([*inside, cd.Dense(head)], k, sharing=sharing, **options)


def network(sharing="mini", k=5, head=3, before=(), seed=2, **options):
    own = {name: options.pop(name) for name in ("batches", "first_scale", "scale_groups") if name in options}
    return cd.Network([*before, members(sharing, k, head, **own)], seed=seed, **options)


STACKS = {
    **{sharing: lambda sharing=sharing: [members(sharing)] for sharing in SHARINGS},
    "one member": lambda: [members("tabm", 1)],
    "many": lambda: [members("mini", 40)],
    "layers before": lambda: [cd.Dropout(0.2), cd.Dense(20, activation="tanh"), cd.LayerNorm(), cd.Dropout(0.2),
                              members("tabm")],
    "embeddings before": lambda: [cd.NumericEmbedding("plr", columns=2), cd.Parametric("mish"),
                                  cd.Residual([cd.Scale(), cd.Dropout(0.3)], 0.2), members("mini")],
    "norms and noise inside": lambda: [cd.Members([cd.Dropout(0.2), cd.Dense(20), cd.LayerNorm(), cd.Scale(),
                                                   cd.Parametric("relu"), cd.GaussianDropout(0.1), cd.Dense(9),
                                                   cd.GaussianNoise(0.1), cd.AlphaDropout(0.1), cd.Dense(3)], 5)],
    "a head alone": lambda: [cd.Members([cd.Dense(3)], 5, sharing="packed")],
    "no biases": lambda: [cd.Members([cd.Dense(20, bias=False), cd.ReLU(), cd.Dense(3, bias=False)], 5,
                                     sharing="tabm")],
    "limited norms": lambda: [cd.Members([cd.Dense(20, max_norm=0.5, activation="relu"), cd.Dense(3, max_norm=0.4)],
                                         5)],
    "factors": lambda: [cd.Members([cd.Dense(20, parametrization="ntk", decay_factor={"bias": 0}), cd.SiLU(),
                                    cd.Dense(3, learning_rate_factor=0.1)], 5, sharing="tabm", first_scale="normal",
                                   learning_rate_factor={"input_scale": 0.5}, decay_factor=0.1)],
}  # fmt: skip
SHARED = {
    f"shared masks, {sharing}": lambda sharing=sharing: [
        cd.Dense(130, activation="tanh"), cd.Dropout(0.2, shared="batch"),
        cd.Members([cd.Dropout(0.1, shared="batch"), cd.Dense(150, activation="relu"), cd.Dropout(0.5, shared="batch"),
                    cd.Dense(70, activation="gelu"), cd.Dropout(0.4, shared="batch"), cd.Dense(3)], 5, sharing=sharing),
    ] for sharing in SHARINGS
}  # fmt: skip
SHARED["shared masks before and inside"] = lambda: [
    cd.Dense(130, activation="tanh"), cd.Dropout(0.4, shared="batch"),
    cd.Members([cd.Dense(150), cd.Dropout(0.5, shared="batch"), cd.SiLU(), cd.Dropout(0.3, shared="batch"),
                cd.Dense(3)], 5),
]  # fmt: skip
STACKS |= SHARED
NO_NOISE = {name: stack for name, stack in STACKS.items() if name != "norms and noise inside"}
OPTIMIZERS = {
    "sgd": cd.SGD(0.1, momentum=0.5),
    "clipped": cd.AdamW(0.01, weight_decay=0.1, clip_norm=0.1, epsilon=1e-3),
}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("rows", [19, 150], ids=["together", "one by one"])
def test_training_and_prediction_are_the_plain_networks(stack, optimizer, rows, rng):
    X, y = rng.standard_normal((rows, 11)).astype(np.float32), rng.integers(0, 3, rows)
    net = cd.Network(stack(), optimizer=optimizer, seed=2).build(11)
    assert_same_training(net, X, y, rtol=1e-3)
    expected = PlainNetwork(net).forward(X)
    np.testing.assert_allclose(net.forward(X), expected, rtol=0, atol=1e-5 * (1 + np.abs(expected).max()))


TARGETS = {
    "mse": lambda rng: rng.standard_normal((19, 4)),
    "huber": lambda rng: rng.standard_normal((19, 4)),
    "gaussian_nll": lambda rng: rng.standard_normal((19, 2)),
    "binary_cross_entropy": lambda rng: rng.integers(0, 2, (19, 4)),
    "cross_entropy": lambda rng: rng.integers(0, 4, 19),
}


@pytest.mark.parametrize("loss", TARGETS)
@pytest.mark.parametrize("weighted", ["rows", "targets", ""])
def test_every_loss_is_the_mean_of_the_members_losses(loss, weighted, rng):
    X, y = rng.standard_normal((19, 7)).astype(np.float32), TARGETS[loss](rng)
    weight = rng.random(y.shape if weighted == "targets" and loss != "cross_entropy" else 19) if weighted else None
    net = network("tabm", head=4, loss=loss, optimizer=cd.SGD(0.05))
    assert_same_training(net, X, y, sample_weight=weight, rtol=1e-4)
    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stack", NO_NOISE.values(), ids=NO_NOISE)
def test_gradients_are_finite_differences_of_the_loss(stack, rng):
    X, y = rng.standard_normal((13, 6)).astype(np.float32), rng.integers(0, 3, 13)
    net = cd.Network(stack(), seed=2).build(6)
    plain = PlainNetwork(net)
    z = net.forward(X, training=True)
    _, grad = plain.loss_of(z.astype(float), y)
    dX = net.backward(grad)
    masks = net.masks()

    def loss(X):
        return plain.loss_of(plain.forward(X, masks), y)[0]

    for name, gradient in net.gradients().items():
        array = plain.parameters[name]
        for place in {tuple(rng.integers(0, n) for n in array.shape) for _ in range(4)}:
            before, losses = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = before + step
                losses.append(loss(X))
            array[place] = before
            assert gradient[place] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=2e-5), name
    for place in ((0, 0), (7, 3), (12, 5)):
        step = np.zeros_like(X, dtype=float)
        step[place] = 1e-6
        assert dX[place] == pytest.approx((loss(X + step) - loss(X - step)) / 2e-6, abs=2e-5)


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("rows", [19, 300])
def test_by_hand_it_is_the_step_that_fit_makes(sharing, rows, rng):
    X, y = rng.standard_normal((rows, 7)).astype(np.float32), rng.standard_normal((rows, 3))
    before = [cd.NumericEmbedding("plr", columns=3), cd.Dense(9), cd.Scale(), cd.Dropout(0.2)]
    trained, by_hand = (network(sharing, before=before, loss="mse", optimizer=cd.SGD(1.0)).build(7) for _ in range(2))
    z = by_hand.forward(X, training=True)
    assert z.shape == (5, rows, 3)
    trained.train_on_batch(X, y)
    targets = y.astype(np.float32)
    by_hand.backward(np.float32(1 / (3 * 5 * rows)) * (2 * (z - targets)))
    by_hand.step()
    for name, array in by_hand.parameters().items():
        np.testing.assert_allclose(array, trained.parameters()[name], rtol=0, atol=1e-6, err_msg=name)
    assert [mask.shape for mask in by_hand.masks()] == [(5, rows, 9), (5, rows, 20), (5, rows, 17)]
    for mask, other in zip(by_hand.masks(), trained.masks(), strict=True):
        np.testing.assert_array_equal(mask, other)


def test_masks_that_are_given_are_those_of_each_member(rng):
    X = rng.standard_normal((100, 7)).astype(np.float32)
    before = [cd.Dropout(0.2, shared="batch"), cd.Residual([cd.Scale(), cd.AlphaDropout(0.3)], 0.4)]
    net = network("tabm", before=before).build(7)
    shapes = [(7,), (5, 100, 7), (5, 100), (5, 100, 20), (5, 100, 17)]
    masks = [rng.random(shape) > 0.3 for shape in shapes]
    z = net.forward(X, training=True, masks=masks)
    np.testing.assert_allclose(z, PlainNetwork(net).forward(X, masks), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"masks\[3\] must have shape \(5, 100, 20\)"):
        net.forward(X, training=True, masks=[None] * 3 + [masks[3][0], None])
    net.forward(X, training=True)
    assert [mask.shape for mask in net.masks()] == shapes


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("rows", [1, 37])
def test_units_that_a_member_leaves_out_change_no_bit(sharing, rows, rng):
    """A mask that its rows share, drawn and given, and the same mask for each row, whose zeros are computed with."""
    X, grad = rng.standard_normal((rows, 90)).astype(np.float32), rng.standard_normal((6, rows, 3)).astype(np.float32)
    results, masks = [], None
    for shared, n_threads in (("batch", 1), ("batch", 3), (None, 1), (None, 3)):
        drop = [cd.Dropout(rate, shared=shared) for rate in (0.5, 0.6)]
        inside = [cd.Dense(201, activation="relu"), drop[0], cd.Dense(133, activation="mish"), drop[1], cd.Dense(3)]
        net = cd.Network([cd.Members(inside, 6, sharing=sharing)], seed=5, n_threads=n_threads).build(90)
        given = masks if shared else [np.repeat(mask[:, None], rows, axis=1) for mask in masks]
        net.forward(X, training=True)
        if masks is not None:  # a pass before with other masks, of which nothing may be left
            net.backward(grad)
            net.forward(X, training=True, masks=given)
        z, dx, masks = net.forward(X, training=True, masks=given), net.backward(grad), masks or net.masks()
        assert [mask.shape for mask in masks] == [(6, 201), (6, 133)]
        results.append([z, dx, *net.gradients().values()])
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_member_is_a_network_that_could_stand_alone(sharing, rng):
    """Its rows, its masks and its weights, with what is shared in its own place."""
    X = rng.standard_normal((40, 7)).astype(np.float32)
    net = network(sharing, loss="mse").build(7)
    for array in net.parameters().values():
        array += rng.standard_normal(array.shape) * 0.1
    p = {name.removeprefix("0."): array.astype(float) for name, array in net.parameters().items()}
    for j, found in enumerate(net.predict_members(X)):
        x = X * p["input_scale"][j] if sharing == "mini" else X.astype(float)
        for place in ("0", "2", "4"):
            w, b = p[f"{place}.weight"], p[f"{place}.bias"]
            if f"{place}.input_scale" in p:
                x = x * p[f"{place}.input_scale"][j] @ w * p[f"{place}.output_scale"][j]
            else:
                x = x @ (w if w.ndim == 2 else w[j])
            x = x + (b if b.ndim == 1 else b[j])
            x = cd.reference.relu(x) if place == "0" else cd.reference.gelu(x) if place == "2" else x
        np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5)


# Orders and epochs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", ["own", "shared"])
def test_an_epoch_is_the_plain_networks_with_these_orders(batches, rng):
    X, y = rng.standard_normal((50, 7)).astype(np.float32), rng.integers(0, 3, 50)
    net = network(batches=batches, optimizer=cd.SGD(0.1)).build(7)
    plain = PlainNetwork(net)
    total, right = 0.0, 0.0
    words = [(number,) for number in range(5)] if batches == "own" else [()] * 5
    orders = np.array([
        cd.Xorshift(seeding.branch(core_of(net).root, seeding.SHUFFLE, 0, *word)).permutation(50) for word in words
    ])  # fmt: skip
    twin = copy.deepcopy(net)
    for start in range(0, 50, 16):
        rows = orders[:, start : start + 16]
        twin.forward(X[rows[0]], training=True)  # for its masks
        masks = twin.masks()
        z = plain.forward(X[rows], masks)
        loss, grad = plain.loss_of(z, y[rows])
        plain.backward(grad)
        plain.step()
        total += loss * rows.shape[1]
        right += (z.argmax(axis=2) == y[rows]).mean() * rows.shape[1]
    history = net.fit(X, y, epochs=1, batch_size=16, verbose=0)
    assert history.metrics["loss"][0] == pytest.approx(total / 50, rel=1e-5)
    assert history.metrics["accuracy"][0] == pytest.approx(right / 50)
    for name, array in net.parameters().items():
        np.testing.assert_allclose(array, plain.parameters[name], rtol=0, atol=2e-5, err_msg=name)


def test_each_member_sees_every_row_once_an_epoch():
    """With inputs of 0 a head learns its bias alone, in steps of the mean of the targets that its member sees."""
    y = np.arange(20.0)
    head = cd.Members([cd.Dense(1, bias_init="zeros")], 4, sharing="packed")
    net = cd.Network([head], loss="mse", optimizer=cd.SGD(1e-7), seed=3).build(1)
    net.fit(np.zeros((20, 1)), y, epochs=1, batch_size=4, verbose=0)
    np.testing.assert_allclose(net.parameters()["0.0.bias"], np.full((4, 1), 1e-7 * 2 * y.sum() / (4 * 4)), rtol=1e-5)
    net.fit(np.zeros((20, 1)), y, epochs=1, batch_size=4, drop_last=True, validation_split=0.1, verbose=0)
    assert len(np.unique(net.parameters()["0.0.bias"])) == 4  # of 18 rows each has left out two others


@pytest.mark.parametrize("batches", ["own", "shared"])
@pytest.mark.parametrize("options", [{"drop_last": True}, {"shuffle": False}, {"shuffle": False, "drop_last": True}])
def test_epochs_that_leave_out_rows_or_do_not_shuffle(batches, options, rng):
    X, y = rng.standard_normal((50, 7)).astype(np.float32), rng.integers(0, 3, 50)
    net = network(batches=batches)
    history = net.fit(X, y, epochs=2, batch_size=16, verbose=0, **options)
    assert 0 <= history.metrics["accuracy"][-1] <= 1
    if "shuffle" in options:  # the same rows for all
        other = network(batches="shared" if batches == "own" else "own")
        other.fit(X, y, epochs=2, batch_size=16, verbose=0, **options)
        assert digest(net) == digest(other)


def test_accuracy_counts_the_targets_that_have_weights(rng):
    X, y = rng.standard_normal((50, 7)), rng.integers(0, 2, (50, 3))
    weight = (rng.random((50, 3)) > 0.5).astype(float)
    for batches in ("own", "shared"):
        net = cd.Network([cd.Members([cd.Dense(3)], 4, batches=batches)], loss="binary_cross_entropy",
                         optimizer=cd.SGD(0.0), seed=1).build(7)  # fmt: skip
        right = ((net.predict_members(X) > 0.5) == y)[:, weight > 0].mean()
        history = net.fit(X, y, epochs=1, batch_size=16, sample_weight=weight, verbose=0)
        assert history.metrics["accuracy"][0] == pytest.approx(right)


# Prediction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", TARGETS)
def test_it_predicts_and_is_judged_by_the_mean_of_its_members(loss, rng):
    X, y = rng.standard_normal((19, 7)).astype(np.float32), TARGETS[loss](rng)
    net = network(head=4, loss=loss).build(7)
    p, each = net.predict(X), net.predict_members(X)
    expected = each.astype(float).mean(axis=0)
    if loss == "gaussian_nll":
        expected[:, 2:] += each[:, :, :2].astype(float).var(axis=0)
    np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-6)
    found = net.evaluate(X, y)
    if loss == "cross_entropy":
        assert found["loss"] == pytest.approx(-np.log(expected[np.arange(19), y]).mean(), rel=1e-5)
        assert found["accuracy"] == (expected.argmax(axis=1) == y).mean()
    elif loss == "binary_cross_entropy":
        assert found["loss"] == pytest.approx(-np.log(np.where(y, expected, 1 - expected)).mean(), rel=1e-5)
    elif loss == "gaussian_nll":
        mean, variance = np.split(expected, 2, axis=1)
        likelihood = -((y - mean) ** 2 / variance + np.log(2 * np.pi * variance)) / 2
        assert found["loss"] == pytest.approx(-likelihood.mean(), rel=1e-5)
    else:
        assert found["rmse"] == pytest.approx(np.sqrt(((y - expected) ** 2).mean()), rel=1e-5)
    history = net.fit(X, y, epochs=1, validation_data=(X, y), verbose=0)
    assert history.metrics["val_loss"][-1] == net.evaluate(X, y)["loss"]


@pytest.mark.parametrize("size", [1e-6, 1.0, 90.0, 1e4])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "gaussian_nll"])
def test_certain_members_have_a_finite_mean(loss, size, rng):
    net = cd.Network([cd.Members([cd.Dense(4)], 6, sharing="packed")], loss=loss, seed=1).build(3)
    net.parameters()["0.0.bias"][...] = rng.standard_normal((6, 4)) * (
        min(size, 90) if loss == "gaussian_nll" else size
    )
    X = rng.standard_normal((5, 3)).astype(np.float32)
    z = net.forward(X)
    assert np.isfinite(z).all()
    with np.errstate(divide="ignore", over="ignore"):
        expected = PlainNetwork(net).forward(X)
    known = np.isfinite(expected) & (np.abs(expected) < 80)
    if loss == "binary_cross_entropy":  # 1 - p has float64's digits only
        known &= np.abs(expected) < 20
    np.testing.assert_allclose(z[known], expected[known], rtol=1e-5, atol=1e-5)
    y = (
        rng.integers(0, 4, 5)
        if loss == "cross_entropy"
        else rng.integers(0, 2, (5, 2 if loss == "gaussian_nll" else 4))
    )
    assert np.isfinite(net.evaluate(X, y)["loss"])


def test_predictions_do_not_depend_on_batches_or_threads(rng):
    X = rng.standard_normal((1000, 7)).astype(np.float32)
    nets = [network("tabm", 40, before=[cd.Dense(30)], n_threads=n).build(7) for n in (1, 3)]
    expected, each = nets[0].predict(X), nets[0].predict_members(X)
    assert each.shape == (40, 1000, 3)
    for net in nets:
        for size in (None, 1, 7, 128, 1000):
            np.testing.assert_array_equal(net.predict(X, batch_size=size), expected)
        np.testing.assert_array_equal(net.predict_members(X), each)
        for n in (1, 2, 7, 8, 9):
            np.testing.assert_array_equal(net.predict(X[:n]), expected[:n])
            np.testing.assert_array_equal(net.predict_members(X[:n]), each[:, :n])


def test_samples_are_those_of_members_in_turn(rng):
    X = rng.standard_normal((9, 7)).astype(np.float32)
    net = cd.Network([cd.Dense(8), cd.Members([cd.Dense(20), cd.ReLU(), cd.Dense(3)], 5)], seed=1).build(7)
    found = net.predict_mc(X, 12, return_samples=True)  # nothing is drawn: no warning
    each = net.predict_members(X)
    for number, sample in enumerate(found.samples):
        np.testing.assert_array_equal(sample, each[number % 5])
    np.testing.assert_allclose(net.predict_mc(X, 10).mean, net.predict(X), rtol=1e-5)
    assert (found.mutual_information > 0).all()


@pytest.mark.parametrize("sharing", SHARINGS)
def test_samples_have_shared_masks_for_each_member(sharing, rng):
    X = np.repeat(rng.standard_normal((1, 7)).astype(np.float32), 6, axis=0)  # the same row many times
    inside = [cd.Dense(70, activation="relu"), cd.Dropout(0.5, shared="batch"), cd.Dense(3)]
    net = cd.Network([cd.Members(inside, 4, sharing=sharing)], seed=1).build(7)
    samples = net.predict_mc(X, 8, seed=0, return_samples=True).samples
    for sample in samples:
        np.testing.assert_allclose(sample, np.repeat(sample[:1], 6, axis=0), rtol=1e-5)
    assert len(np.unique(samples[:, 0, 0])) == 8


@pytest.mark.parametrize("before", [[], [cd.Dense(8, activation="relu"), cd.Dropout(0.5)]], ids=["inside", "before"])
def test_samples_with_dropout_are_about_each_member(before, rng):
    X = rng.standard_normal((300, 7)).astype(np.float32)
    results = []
    for n_threads in (1, 3):
        net = network("tabm", 4, before=before, loss="mse", n_threads=n_threads).build(7)
        results.append(net.predict_mc(X, 800 if n_threads == 1 else 7, seed=1, return_samples=True).samples)
    np.testing.assert_array_equal(results[0][:7], results[1])
    plain, each = PlainNetwork(net), net.predict_members(X)
    assert plain.members == 4
    by_member = results[0].reshape(200, 4, 300, 3)
    assert (by_member.std(axis=0) > 0).all()
    rest = np.abs(by_member.mean(axis=0) - each).mean()
    assert rest < 0.3 * np.abs(each).mean()


# Bits, files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_trained_networks_have_the_same_bits_on_any_number_of_threads(stack, rng):
    X, y = rng.standard_normal((700, 90)), rng.integers(0, 3, 700)
    results = set()
    for n_threads in (1, 2, 3):
        net = cd.Network(stack(), seed=1, n_threads=n_threads)
        net.fit(X, y, epochs=2, verbose=0)
        results.add(digest(net) + str(net.predict(X).tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("sharing", SHARINGS)
def test_files_pickles_and_copies_give_it_back(sharing, rng, tmp_path):
    X, y = rng.standard_normal((50, 6)).astype(np.float32), rng.integers(0, 3, 50)
    groups = None if sharing == "packed" else [0, 0, 1, 2, 2, 2]
    net = network(sharing, scale_groups=groups, batches="shared")
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    net.save(tmp_path / "net")
    copies = [cd.load(tmp_path / "net"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)]
    for one in (net, *copies):
        one.fit(X, y, epochs=2, batch_size=16, verbose=0)
    for one in copies:
        assert one.predict(X).tobytes() == net.predict(X).tobytes()
        assert repr(one.layers) == repr(net.layers)
    config = json.loads(json.dumps(net.layers[0].config()))
    assert repr(cd.layers.from_config(config)) == repr(net.layers[0])


# How it begins ----------------------------------------------------------------------------------------------------


def test_first_scales_are_drawn_for_groups_of_columns():
    groups = [7, 7, 2, 3, 7]
    for first_scale in ("signs", "normal"):
        net = network("tabm", 32, first_scale=first_scale, scale_groups=groups).build(5)
        r = net.parameters()["0.0.input_scale"]
        assert r.shape == (32, 5)
        np.testing.assert_array_equal(r[:, 0], r[:, 1])
        np.testing.assert_array_equal(r[:, 0], r[:, 4])
        assert not np.array_equal(r[:, 0], r[:, 2])
        assert (np.abs(r) == 1).all() == (first_scale == "signs")
        assert 0.5 < np.abs(r).mean() < 1.1
        for name in ("0.0.output_scale", "0.2.input_scale", "0.2.output_scale"):
            assert (net.parameters()[name] == 1).all()
    assert (network(first_scale="ones").build(5).parameters()["0.input_scale"] == 1).all()


def test_biases_of_tabm_begin_the_same_and_heads_do_not():
    p = network("tabm").build(5).parameters()
    assert (p["0.0.bias"] == p["0.0.bias"][0]).all()
    assert np.ptp(p["0.0.bias"][0]) > 0
    assert len(np.unique(p["0.4.weight"])) == p["0.4.weight"].size
    assert len(np.unique(p["0.4.bias"])) == p["0.4.bias"].size
    mini = network("mini").build(5).parameters()
    np.testing.assert_array_equal(p["0.0.weight"], mini["0.0.weight"])
    np.testing.assert_array_equal(p["0.0.bias"][3], mini["0.0.bias"])


# Refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cd.Members([]), ValueError, "layers is empty"),
        (lambda: cd.Members(cd.Dense(3)), TypeError, "layers must be a list of layers"),
        (lambda: cd.Members([cd.Dense(3), cd.ReLU()]), ValueError, "the last of the layers of Members must be a Dense"),
        (lambda: cd.Members([cd.BatchNorm(), cd.Dense(3)]), TypeError, r"layers\[0\] of Members must be an activation"),
        (lambda: cd.Members([members(), cd.Dense(3)]), TypeError, r"layers\[0\] of Members must be"),
        (lambda: cd.Members([cd.Dense(3)], 0), ValueError, "members must be at least 1"),
        (lambda: cd.Members([cd.Dense(3)], 257), ValueError, "members must be at most 256"),
        (lambda: cd.Members([cd.Dense(3)], sharing="all"), ValueError, "sharing='all' is not known"),
        (lambda: cd.Members([cd.Dense(3)], batches="all"), ValueError, "batches='all' is not known"),
        (lambda: cd.Members([cd.Dense(3)], first_scale="all"), ValueError, "first_scale='all' is not known"),
        (lambda: cd.Members([cd.Dense(3)], scale_groups=[0.5]), ValueError, "scale_groups must be whole numbers"),
        (lambda: cd.Members([cd.Dense(3)], sharing="packed", first_scale="ones"), ValueError, "first_scale and"),
        (lambda: cd.Members([cd.LayerNorm(), cd.Dense(3)], sharing="packed"), ValueError, "shares nothing"),
        (lambda: cd.Members([cd.Dense(3, drop_connect=0.1)]), ValueError, "cannot have drop_connect"),
        (lambda: cd.Members([cd.Dense(3)], decay_factor={"weight": 1}), ValueError, "decay_factor: the parameter"),
        (lambda: network(scale_groups=[1, 2]).build(3), ValueError, "a number for each of the 3 columns"),
        (lambda: cd.Network([members(), cd.Dense(3)]), ValueError, r"layers\[0\] is Members, which must be the last"),
        (lambda: cd.Network([members(), cd.ReLU()]), ValueError, r"layers\[0\] is Members, which must be the last"),
        (lambda: cd.Network([cd.Residual([members()])]), ValueError, r"layers\[0.0\] is Members, which must be"),
        (lambda: cd.Network([cd.BatchNorm(), members()]), ValueError, "neither BatchNorm nor drop_connect"),
        (lambda: cd.Network([cd.Dense(3, drop_connect=0.1), members()]), ValueError, "neither BatchNorm nor drop_con"),
        (lambda: network(loss=cd.losses.CrossEntropy(r_drop=1.0)).build(3), ValueError, "passes each row twice"),
        (lambda: cd.Network([cd.Dense(3)]).build(2).predict_members(np.zeros((1, 2))), ValueError, "with Members or"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_batches_in_shards_are_refused_and_predictions_of_ranks_are_not(rng):
    X, y = rng.standard_normal((50, 7)), rng.integers(0, 3, 50)
    net = network()
    with pytest.raises(ValueError, match="parallel= cannot train a network with Members"):
        net.fit(X, y, parallel=cd.distributed.DataParallel(shards=2), verbose=0)
    net.fit(X, y, epochs=1, verbose=0)
    expected = net.predict(X)
    np.testing.assert_array_equal(net.predict(X, parallel=cd.distributed.DataParallel()), expected)


def test_a_loss_that_diverges_changes_nothing(rng):
    X, y = rng.standard_normal((50, 7)), rng.standard_normal((50, 3))
    net = network("tabm", loss="mse", optimizer=cd.SGD(1e18)).build(7)
    before = digest(net)
    with pytest.raises(cd.DivergedError):
        net.fit(X, y, epochs=3, batch_size=20, verbose=0)
    assert digest(net) == before

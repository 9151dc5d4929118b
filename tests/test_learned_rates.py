"""Dropout("learn"): concrete dropout against its twin and its paper, in networks, and what the rates go to."""

import copy
import pickle

import numpy as np
import pytest
from digests import digest, fused
from oracle import assert_same_training
from test_same_bits import run

import cydrop as cd
from cydrop import functional, reference
from cydrop._core import noise as kernel
from cydrop._run.core import core_of
from cydrop.distributed import DataParallel


def learning(**options):
    return cd.Dropout("learn", **{"rows": 200, **options})


def keeps(n, rate=0.3, key=(1, 2), n_threads=1, first=0):
    out = np.empty(n, dtype=np.float32)
    kernel.keeps(out, rate / (1 - rate), *key, n_threads, first)
    return out


# The kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1e-4, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 4095, 4097, 20_000])
def test_what_is_kept_is_its_twin_at_every_size(n, rate):
    np.testing.assert_allclose(keeps(n, rate), reference.concrete_keep((1, 2), n, rate), atol=1e-6)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("first", "end"), [(0, 1), (31, 33), (4095, 4097), (5001, 9003), (19_999, 20_000)])
def test_a_part_of_what_is_kept_is_that_part_of_the_whole(first, end, n_threads):
    part = keeps(end - first, n_threads=n_threads, first=first)
    assert part.tobytes() == keeps(20_000)[first:end].tobytes()


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_a_share_of_the_rate_is_dropped(rate):
    """P(z > 1/2) = p, whatever the temperature."""
    dropped = keeps(1_000_000, rate) < 0.5
    assert abs(dropped.mean() - rate) < 4.5 * np.sqrt(rate * (1 - rate) / dropped.size)
    for lag in (1, 16, 32, 4096):
        share = (dropped[lag:] & dropped[:-lag]).mean()
        assert abs(share - rate**2) < 4.5 * rate / np.sqrt(dropped.size)


@pytest.mark.parametrize("rate", [0.02, 0.4, 0.9])
def test_on_an_array_it_is_its_twin(rate, rng):
    x, dy = rng.standard_normal((2, 137, 51)).astype(np.float32)
    fast, keep = functional.concrete_dropout(x, rate, seed=3, return_keep=True)
    plain, same = reference.concrete_dropout(x.astype(np.float64), rate, seed=3, return_keep=True)
    np.testing.assert_allclose(keep, same, atol=1e-6)
    np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-5 / (1 - rate))
    np.testing.assert_array_equal(functional.concrete_dropout(x, rate, keep=keep, n_threads=2), fast)
    np.testing.assert_array_equal(functional.concrete_dropout(x, rate, training=False), x)
    dx, slope = functional.concrete_dropout_backward(dy, x, keep, rate)
    expected, expected_slope = reference.concrete_dropout_backward(dy.astype(np.float64), x, keep, rate)
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-6)
    assert slope == pytest.approx(expected_slope, rel=1e-4)
    assert functional.concrete_dropout_backward(dy, x, keep, rate, n_threads=3)[1] == slope


@pytest.mark.parametrize("rate", [0.02, 0.4, 0.9])
def test_the_twins_derivatives_are_the_differences(rate, rng):
    x, dy = rng.standard_normal((2, 50))
    logit, step, seed = np.log(rate / (1 - rate)), 1e-6, 4
    _, keep = reference.concrete_dropout(x, rate, seed=seed, return_keep=True)
    dx, slope = reference.concrete_dropout_backward(dy, x, keep, rate)

    def at(logit, x=x):
        return float(np.sum(dy * reference.concrete_dropout(x, 1 / (1 + np.exp(-logit)), seed=seed)))

    assert slope == pytest.approx((at(logit + step) - at(logit - step)) / (2 * step), rel=1e-5, abs=1e-6)
    for place in range(5):
        there = np.zeros(50)
        there[place] = step
        assert dx[place] == pytest.approx((at(logit, x + there) - at(logit, x - there)) / (2 * step), abs=1e-8)


def test_the_priors_derivatives_are_the_differences(rng):
    weight, logit, step = rng.standard_normal((6, 4)), -1.3, 1e-6

    def at(logit, weight):
        return reference.concrete_prior(logit, weight, 6, 0.7)[0]

    _, slope, gradient = reference.concrete_prior(logit, weight, 6, 0.7)
    assert slope == pytest.approx((at(logit + step, weight) - at(logit - step, weight)) / (2 * step), rel=1e-6)
    there = np.zeros_like(weight)
    there[2, 3] = step
    assert gradient[2, 3] == pytest.approx((at(logit, weight + there) - at(logit, weight - there)) / (2 * step))


def test_the_rate_of_a_logit():
    for logit in (-40.0, -3.0, 0.0, 2.5):
        assert kernel.rate_of_logit(logit) == pytest.approx(1 / (1 + np.exp(-max(logit, -30))), rel=1e-6)
    assert np.isnan(kernel.rate_of_logit(np.nan))


# In networks ------------------------------------------------------------------------------------------------


STACKS = {
    "input and hidden": lambda: [learning(), cd.Dense(21), cd.ReLU(), learning(initial=0.4), cd.Dense(4)],
    "between others": lambda: [cd.Dense(21), cd.Tanh(), learning(lengthscale=3.0), cd.LayerNorm(), cd.Dropout(0.3),
                               cd.Dense(4)],
    "twice, and at the end": lambda: [learning(), learning(), cd.Dense(9), cd.Dense(4), learning(initial=0.05)],
    "in a block": lambda: [cd.Dense(20), cd.Residual([cd.Tanh(), learning(), cd.Dense(20)], 0.2), cd.Dense(4)],
    "no dense layer takes it": lambda: [cd.Dense(4), learning(initial=0.2), cd.ReLU()],
    "wide": lambda: [learning(), cd.Dense(190), cd.ReLU(), learning(lengthscale=2.0), cd.Dense(130), cd.ReLU(),
                     learning(), cd.Dense(4)],
}  # fmt: skip


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    "optimizer",
    [cd.SGD(0.05), cd.SGD(0.05, clip_norm=0.1), cd.SGD(0.05, momentum=0.9, weight_decay=0.1),
     cd.AdamW(1e-2, epsilon=1e-2, weight_decay=0.1), cd.RMSprop(1e-2, epsilon=1e-1)],
    ids=["sgd", "clipped", "momentum", "adamw", "rmsprop"],
)  # fmt: skip
def test_it_trains_as_in_the_plain_network(stack, optimizer, rng):
    net = cd.Network(STACKS[stack](), optimizer=optimizer, seed=2)
    assert_same_training(net, rng.standard_normal((19, 11)), rng.integers(0, 4, 19), rtol=1e-4)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mse", "mae", "huber", "gaussian_nll"])
def test_losses_say_how_much_the_prior_counts(loss, rng):
    y = rng.integers(0, 2, (19, 4)) if loss == "binary_cross_entropy" else rng.standard_normal((19, 4))
    units = 8 if loss == "gaussian_nll" else 4
    options = {"noise_precision": 3.0, "rows": 25, "lengthscale": 1.5}
    layers = [learning(**options), cd.Dense(9), cd.Tanh(), learning(**options), cd.Dense(units)]
    net = cd.Network(layers, loss=loss, optimizer=cd.SGD(0.05), seed=2)
    assert_same_training(net, rng.standard_normal((19, 11)), y, rtol=5e-5)


@pytest.mark.parametrize(("loss", "units", "precision", "expected"), [
    ("cross_entropy", 5, 1.0, 1.0), ("binary_cross_entropy", 5, 1.0, 0.2), ("gaussian_nll", 6, 9.0, 1 / 3),
    ("mse", 1, 4.0, 0.5), ("mse", 2, 1.0, 1.0), ("huber", 1, 4.0, 0.25),
])  # fmt: skip
def test_the_losses_factors_are_those_of_their_likelihoods(loss, units, precision, expected, rng):
    loss = cd.losses.KNOWN[loss]()
    assert loss.of_likelihood(units, precision) == pytest.approx(expected)
    if loss.name == "huber":
        return
    function = getattr(reference, loss.name)
    y = {"cross_entropy": [2], "binary_cross_entropy": [[1.0, 0, 1, 1, 0]]}.get(loss.name)
    y = np.asarray(y) if y else rng.standard_normal((1, loss.columns(units)))
    one, two = rng.standard_normal((2, 1, units))
    known = {"precision": None if loss.has_density else precision}

    def predicted(z):
        if loss.name == "gaussian_nll":
            return np.concatenate([z[:, :3], np.exp(z[:, 3:])], axis=1)
        if loss.name == "mse":
            return z
        return 1 / (1 + np.exp(-z)) if loss.binary else np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    change = float(function(one, y)) - float(function(two, y))
    densities = [loss.log_density(predicted(z)[None], y, **known)[0, 0] for z in (one, two)]
    assert change == pytest.approx(expected * (densities[1] - densities[0]))


@pytest.mark.parametrize("stack", ["input and hidden", "in a block", "wide"])
def test_it_trains_in_shards_as_in_the_plain_network(stack, rng):
    net = cd.Network(STACKS[stack](), optimizer=cd.SGD(0.05, clip_norm=0.5), seed=2)
    assert_same_training(net, rng.standard_normal((37, 11)), rng.integers(0, 4, 37), rtol=1e-4, shards=8)


def test_it_goes_with_r_drop(rng):
    loss = cd.losses.CrossEntropy(r_drop=0.7)
    net = cd.Network(STACKS["input and hidden"](), loss=loss, optimizer=cd.SGD(0.05), seed=2)
    assert_same_training(net, rng.standard_normal((37, 11)), rng.integers(0, 4, 37), rtol=2e-4, shards=8, steps=3)


def fitted(stack="wide", n_threads=1, parallel=None, optimizer="adam", **options):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 40)).astype(np.float32), rng.integers(0, 4, 300)
    net = cd.Network(STACKS[stack](), optimizer=optimizer, seed=1, n_threads=n_threads)
    net.fit(X, y, epochs=2, verbose=0, parallel=parallel, **options)
    return net, X


@pytest.mark.parametrize("optimizer", ["adam", cd.AdamW(clip_norm=0.1)], ids=["fused", "clipped"])
@pytest.mark.parametrize("shards", [None, 8])
def test_it_has_the_same_bits_on_any_number_of_threads(shards, optimizer):
    results = []
    for n_threads in (1, 2, 3):
        parallel = DataParallel(shards=shards) if shards else None
        net, X = fitted(n_threads=n_threads, parallel=parallel, optimizer=optimizer)
        samples = net.predict_mc(X, 7, seed=0, return_samples=True).samples
        results.append(digest(net) + str(samples.tobytes()))
    assert len(set(results)) == 1


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from digests import digest
from test_learned_rates import fitted
for n_threads in (1, 3):
    print(digest(fitted(n_threads=n_threads)[0]))
"""

GOLDEN = {
    True: "827b2b6df9d1d98a9ee81640ebc66af5a2199c5e43ba6f896c664e6a958c3400",
    False: "94ad1ad5561d975c570e0d7fd5cc89cc6a42e39927b452f32c7bed2a9945a123",
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_trained_rates_are_the_golden_bits_with_every_instruction_set(simd):
    assert run(simd, SCRIPT).stdout.split() == 2 * [GOLDEN[fused(simd)]]


def test_by_hand_is_train_on_batch(rng):
    X, y = rng.standard_normal((19, 11)).astype(np.float32), rng.standard_normal((19, 4)).astype(np.float32)
    for stack in ("input and hidden", "wide"):
        one, two = (cd.Network(STACKS[stack](), loss="mse", seed=3) for _ in range(2))
        for _ in range(3):
            one.train_on_batch(X, y)
            _, grad = cd.functional.mse(two.forward(X, training=True), y, return_grad=True)
            two.backward(grad)
            two.step()
        assert digest(one) == digest(two)


def test_fit_knows_the_rows_and_by_hand_there_is_no_prior_without_them(rng):
    X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)

    def weights(rows, **options):
        net = cd.Network([cd.Dropout("learn", rows=rows), cd.Dense(3)], optimizer=cd.SGD(0.1), seed=1)
        net.fit(X, y, epochs=2, batch_size=7, verbose=0, **options)
        return digest(net)

    assert weights(None) == weights(40) != weights(50)
    assert weights(None, drop_last=True) == weights(40, drop_last=True)
    assert weights(None, validation_split=0.25) == weights(30, validation_split=0.25)
    net = cd.Network([cd.Dropout("learn"), cd.Dense(3)], optimizer=cd.SGD(0.1), seed=1)
    net.fit(X, y, epochs=1, verbose=0)
    before = net.parameters()["0.logit"].copy()
    net.forward(X, training=True)
    net.backward(np.zeros((40, 3)))
    net.step()
    np.testing.assert_array_equal(net.parameters()["0.logit"], before)
    for call in (net.train_on_batch, net.partial_fit):
        with pytest.raises(ValueError, match=r"layers\[0\] learns its rate, .* rows="):
            call(X, y)


def test_prediction_is_the_identity_and_backward_by_hand_is_the_derivative(rng):
    x = rng.standard_normal((5, 7)).astype(np.float32)
    net = cd.Network([cd.Dropout("learn", initial=0.3)], loss="mse", seed=4)
    np.testing.assert_array_equal(net.predict(x), x)

    def output(logit, x=x):
        core_of(net).model.ready().draws = 5  # the same numbers
        net.parameters()["0.logit"][...] = logit
        return net.forward(x, training=True).astype(np.float64)

    logit, step = np.log(0.3 / 0.7), 2.0**-9
    slope = (output(logit + step).sum() - output(logit - step).sum()) / (2 * step)
    output(logit)
    dx = net.backward(np.ones_like(x))
    assert net.gradients()["0.logit"][0] == pytest.approx(slope, rel=1e-2)
    np.testing.assert_allclose((output(logit, x + 1) - output(logit)), dx, atol=1e-5)


def test_samples_are_ordinary_masks_at_the_learned_rate():
    net, _ = fitted("input and hidden")
    rates = net.learned_rates()
    assert list(rates) == ["0.rate", "3.rate"]
    assert [net.parameters()[f"{place}.logit"].shape for place in (0, 3)] == [(1,), (1,)]
    for place in (0, 3):
        assert rates[f"{place}.rate"] == pytest.approx(1 / (1 + np.exp(-net.parameters()[f"{place}.logit"][0])))
    assert rates["0.rate"] != pytest.approx(0.1, abs=1e-4)
    alone = cd.Network([cd.Dropout("learn", initial=0.3)], loss="mse", seed=4).build(200)
    x = np.ones((300, 200), dtype=np.float32)
    for rate, given in ((0.3, None), (0.6, 0.6)):
        samples = alone.predict_mc(x, 3, seed=1, return_samples=True, rate=given).samples
        kept = samples != 0
        np.testing.assert_allclose(samples[kept], 1 / (1 - rate), rtol=1e-6)
        assert abs(kept.mean() - (1 - rate)) < 4.5 * np.sqrt(rate * (1 - rate) / kept.size)
    ordinary = cd.Network([cd.Dropout(0.3)], loss="mse", seed=4).build(200)
    np.testing.assert_array_equal(
        ordinary.predict_mc(x, 2, seed=1, return_samples=True).samples,
        alone.predict_mc(x, 2, seed=1, return_samples=True, rate=0.3).samples,
    )
    assert not alone.predict_mc(x, 2, seed=1, rate=1.0).mean.any()
    assert net.layers[0].mask is None
    assert net.masks() == []


def test_an_ensemble_samples_each_members_rates(rng):
    X, y = rng.standard_normal((60, 6)), rng.integers(0, 3, 60)
    ensemble = cd.Ensemble([cd.Network(STACKS["input and hidden"](), seed=seed) for seed in range(2)])
    ensemble.fit(X, y, epochs=1, verbose=0)
    assert ensemble.predict_mc(X, 10, seed=0).std.min() > 0


def test_pickles_files_and_copies_go_on_bit_for_bit(tmp_path):
    net, X = fitted()
    y = np.random.default_rng(0).integers(0, 4, len(X))
    net.save(tmp_path / "n")
    for other in (cd.load(tmp_path / "n"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert repr(other.layers) == repr(net.layers)
        assert other.learned_rates() == net.learned_rates()
        again = copy.deepcopy(net)
        for one in (again, other):
            one.fit(X, y, epochs=1, verbose=0)
        assert digest(again) == digest(other)


def test_fit_many_is_fit_alone(rng):
    X, y = rng.standard_normal((150, 11)).astype(np.float32), rng.integers(0, 4, 150)
    folds = [np.sort(rng.permutation(150)[: 90 + 10 * place]) for place in range(len(STACKS))]
    networks = {}
    for name in ("alone", "many"):
        networks[name] = []
        for place, stack in enumerate(STACKS):
            layers = [
                cd.Dropout("learn", initial=0.2) if isinstance(layer, cd.Dropout) and layer.learns else layer
                for layer in STACKS[stack]()
            ]
            networks[name].append(cd.Network(layers, seed=place))
    cd.fit_many(networks["many"], X, y, rows=folds, epochs=3, batch_size=32, restore_best=False, verbose=0)
    for net, rows, other in zip(networks["alone"], folds, networks["many"], strict=True):
        net.fit(X[rows], y[rows], epochs=3, batch_size=32, verbose=0)
        assert digest(net) == digest(other)


def test_the_logit_has_no_weight_decay_and_a_learning_rate_of_its_own(rng):
    X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)

    def logit(optimizer, **options):
        net = cd.Network([learning(**options), cd.Dense(3)], optimizer=optimizer, seed=1)
        net.train_on_batch(X, y)
        return net.parameters()["0.logit"][0]

    assert logit(cd.SGD(0.1)) == logit(cd.SGD(0.1, weight_decay=0.5))
    begin = np.log(np.float32(0.1) / np.float32(0.9))
    assert logit(cd.SGD(0.1), learning_rate_factor=0.0) == pytest.approx(begin, rel=1e-6)
    change = [logit(cd.SGD(0.1), learning_rate_factor=factor) - begin for factor in (1.0, 3.0)]
    assert change[1] == pytest.approx(3 * change[0], rel=1e-4)


# What is learned --------------------------------------------------------------------------------------------


def rate_for(X, y, loss, units, epochs, **options):
    layers = [cd.Dropout("learn", learning_rate_factor=10.0, **options), cd.Dense(units)]
    net = cd.Network(layers, loss=loss, optimizer=cd.Adam(1e-2), seed=0)
    net.fit(X, y, epochs=epochs, batch_size=50, verbose=0)
    return net.learned_rates()["0.rate"]


def test_columns_that_say_nothing_are_dropped_at_the_rate_of_the_greatest_entropy(rng):
    X = rng.standard_normal((200, 20))
    assert rate_for(X, rng.integers(0, 2, 200), "cross_entropy", 2, 100) > 0.3


def test_of_plenty_of_clean_data_little_is_dropped(rng):
    X = rng.standard_normal((4000, 5))
    y = X @ rng.standard_normal(5) + 0.01 * rng.standard_normal(4000)
    assert rate_for(X, y, "mse", 1, 30, noise_precision=1e4) < 0.005


def test_more_rows_make_lower_rates(rng):
    X = rng.standard_normal((1600, 10))
    y = X.sum(axis=1) + 10 * rng.standard_normal(1600)
    rates = [rate_for(X[:n], y[:n], "mse", 1, 64_000 // n, noise_precision=0.01) for n in (100, 400, 1600)]
    assert 0.5 > rates[0] > 1.3 * rates[1] > 3 * rates[2], rates


def test_the_rate_is_the_one_that_is_best_for_a_unit_alone(rng):
    """y = x w + noise of precision 1, w held: the loss with hard masks is tau / 2 w^2 E x^2 p / (1 - p) a row."""
    x = np.sign(rng.standard_normal((1000, 1))).astype(np.float32)
    y, weight, rows = 0.5 * x, 0.5, 20
    layers = [cd.Dropout("learn", rows=rows, lengthscale=0.0), cd.Dense(1, bias=False, learning_rate_factor=0.0)]
    net = cd.Network(layers, loss="mse", optimizer=cd.Adam(1e-2), seed=0).build(1)
    net.parameters()["1.weight"][...] = weight
    found = []
    for _ in range(100):
        net.fit(x, y, epochs=1, batch_size=250, verbose=0)
        found.append(net.learned_rates()["0.rate"])
    p = np.linspace(0.001, 0.999, 9999)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    best = p[np.argmin(weight**2 / 2 * p / (1 - p) - entropy / rows)]
    assert np.mean(found[50:]) == pytest.approx(best, rel=0.25)


# What is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cd.Dropout("learned"), r"rate must be a number, got 'learned' \(str\); a schedule or .learn. will do"),
        (lambda: cd.Dropout("learn", mode="vanilla"), "needs a mask for every row"),
        (lambda: cd.Dropout("learn", shared="batch"), "needs a mask for every row"),
        (lambda: cd.Dropout("learn", initial=0), "initial"),
        (lambda: cd.Dropout("learn", initial=1.0), "initial"),
        (lambda: cd.Dropout("learn", lengthscale=-1), "lengthscale"),
        (lambda: cd.Dropout("learn", noise_precision=0), "noise_precision"),
        (lambda: cd.Dropout("learn", rows=0), "rows"),
        (lambda: cd.Dropout("learn", learning_rate_factor={"weight": 1}), "learning_rate_factor: the parameter"),
        (lambda: cd.Dropout(0.5, rows=10), r'are for Dropout\("learn"\), got them with rate=0.5'),
        (lambda: cd.AlphaDropout("learn"), "rate must be a number"),
        (lambda: cd.Network([cd.Members([learning(), cd.Dense(2)], 3)]).build(4), "cannot learn its rate inside"),
        (lambda: cd.Network([learning(), cd.Members([cd.Dense(2)], 3)]).build(4), "before which no Dropout can learn"),
        (lambda: cd.Network([learning(), cd.Dense(2)]).set_rate(0, 0.3), "settled with the network"),
        (lambda: cd.Network([cd.Dropout(), cd.Dense(2)]).set_rate(0, "learn"), "settled with the network"),
        (lambda: functional.concrete_dropout([1.0], 1.0), "rate"),
        (lambda: functional.concrete_dropout([1.0], 0.5, keep=[0.5, 0.5]), "keep must have the shape"),
        (lambda: functional.concrete_dropout_backward([1.0], [1.0, 2.0], [0.5], 0.5), "x must have the shape"),
        (lambda: cd.exchange.to_torch(cd.Network([learning(), cd.Dense(2)]).build(3)), "a dropout rate that is"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_an_ordinary_dropout_says_and_keeps_what_it_did():
    layer = cd.Dropout(0.3)
    assert repr(layer) == "Dropout(rate=0.3, mode='inverted', shared=None, seed=None)"
    assert layer.config() == {"layer": "Dropout", "rate": 0.3, "mode": "inverted", "shared": None, "seed": None}
    assert vars(layer).keys() == {"rate", "mode", "shared", "seed"}
    assert not layer.learns

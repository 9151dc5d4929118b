"""Monte Carlo dropout: the samples are what dropout makes of the network, and the figures are those of the samples."""

import math
import warnings

import numpy as np
import pytest

import cydrop as cd
from cydrop import functional, reference
from cydrop._run.core import core_of


@pytest.fixture
def net(rng):
    X, y = rng.standard_normal((80, 12)), rng.integers(0, 4, 80)
    network = cd.Network(
        [cd.Dense(30), cd.ReLU(), cd.Dropout(0.5), cd.Dense(20, activation="gelu"), cd.Dropout(0.3), cd.Dense(4)],
        seed=1,
    )
    network.fit(X, y, epochs=3, verbose=0)
    return network


STACKS = {
    "hidden": [cd.Dense(30), cd.ReLU(), cd.Dropout(0.5), cd.Dense(20), cd.GELU(), cd.Dropout(0.3), cd.Dense(4)],
    "input": [cd.Dropout(0.2), cd.Dense(30), cd.ReLU(), cd.Dropout(0.5), cd.Dense(4)],
    "output": [cd.Dense(30), cd.ReLU(), cd.Dense(4), cd.Dropout(0.3)],
    "vanilla": [cd.Dense(30), cd.ReLU(), cd.Dropout(0.5, mode="vanilla"), cd.Dense(4)],
    "after a norm": [cd.Dense(30), cd.LayerNorm(), cd.Tanh(), cd.Dropout(0.5), cd.Dense(4)],
    "first rate 0": [cd.Dropout(0.0), cd.Dense(30), cd.ReLU(), cd.Dropout(0.0), cd.Dense(9), cd.Dropout(0.4),
                     cd.Dense(4)],
    "rate 1": [cd.Dense(30), cd.ReLU(), cd.Dropout(1.0), cd.Dense(4)],
}  # fmt: skip


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("rows", [1, 5, 100, 300])
def test_samples_are_the_plain_network_with_the_masks_of_their_keys(stack, rows, rng):
    from plain_network import PlainNetwork

    from cydrop._base import seeding

    network = cd.Network(stack, seed=1).build(12)
    X = rng.standard_normal((rows, 12)).astype(np.float32)
    samples = network.predict_mc(X, 3, seed=5, return_samples=True).samples
    plan, plain = core_of(network).plan, PlainNetwork(network)
    seeds = seeding.words(5, 2 * len(plan.draws)).reshape(-1, 2)
    chunks = -(-rows // 256)
    for chunk in range(chunks):
        part = X[256 * chunk : 256 * (chunk + 1)]
        copies = max(1, 128 // len(part))
        for sample in range(3):
            batch, place = divmod(sample, copies)
            masks = []
            for draw in plan.draws:
                seed = tuple(int(word) for word in seeds[draw.source.column])
                key = reference.stream_key(seed, draw.source.stream, batch * chunks + chunk)
                units = plan.ops[draw.op].n_out
                # samples of few rows are stacked: the mask goes on from one to the next
                whole = reference.keep_mask(key, (place + 1) * len(part) * units, draw.layer.rate_at(1.0))
                masks.append(whole.reshape(place + 1, len(part), units)[place])
            expected = reference.softmax(plain.forward(part, masks))
            np.testing.assert_allclose(samples[sample, 256 * chunk : 256 * (chunk + 1)], expected, atol=2e-5)


def test_the_figures_are_those_of_the_samples(net, rng):
    X = rng.standard_normal((300, 12))
    mc = net.predict_mc(X, 60, seed=2, return_samples=True, quantiles=[0.05, 0.5])
    p = mc.samples.astype(np.float64)
    np.testing.assert_allclose(mc.mean, p.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(mc.std, p.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(mc.quantiles, np.quantile(p, [0.05, 0.5], axis=0), atol=1e-6)

    def entropy(q):
        return -(q * np.log(np.maximum(q, 1e-38))).sum(axis=-1)

    np.testing.assert_allclose(mc.entropy, entropy(p.mean(axis=0)), atol=1e-5)
    np.testing.assert_allclose(mc.mutual_information, entropy(p.mean(axis=0)) - entropy(p).mean(axis=0), atol=1e-5)
    assert (mc.mutual_information >= 0).all()


def test_binary_targets_have_an_entropy_for_each(rng):
    net = cd.Network([cd.Dense(30), cd.ReLU(), cd.Dropout(0.5), cd.Dense(2)], loss="binary_cross_entropy", seed=1)
    X = rng.standard_normal((40, 5))
    net.fit(X, rng.integers(0, 2, (40, 2)), epochs=2, verbose=0)
    mc = net.predict_mc(X, 50, seed=0, return_samples=True)
    p = mc.samples.astype(np.float64)

    def entropy(q):
        return -(q * np.log(q) + (1 - q) * np.log(1 - q))

    np.testing.assert_allclose(mc.entropy, entropy(p.mean(axis=0)), atol=1e-5)
    np.testing.assert_allclose(mc.mutual_information, entropy(p.mean(axis=0)) - entropy(p).mean(axis=0), atol=1e-5)


def test_a_predicted_variance_adds_to_the_spread(rng):
    net = cd.Network([cd.Dense(30), cd.ReLU(), cd.Dropout(0.5), cd.Dense(4)], loss="gaussian_nll", seed=1)
    X = rng.standard_normal((40, 5))
    net.fit(X, rng.standard_normal((40, 2)), epochs=2, verbose=0)
    mc = net.predict_mc(X, 50, seed=0, return_samples=True)
    means, variances = np.split(mc.samples.astype(np.float64), 2, axis=2)
    np.testing.assert_allclose(mc.mean, means.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(mc.std, np.sqrt(means.var(axis=0) + variances.mean(axis=0)), rtol=1e-5)


def test_a_variance_beyond_float32_is_a_large_spread_and_no_nan():
    """Each log-variance alone, through predict, predict_mc, its quantiles, and evaluate_mc."""
    for log_variance, expected in ((88.0, 88.0), (89.0, math.log(3.4028235e38)), (1000.0, math.log(3.4028235e38))):
        net = cd.Network([cd.Dense(4), cd.Dropout(0.5), cd.Dense(2)], loss="gaussian_nll", seed=0, n_threads=1).build(2)
        net.parameters()["2.weight"][:, 1] = 0
        net.parameters()["2.bias"][1] = log_variance
        X = np.ones((3, 2))
        np.testing.assert_allclose(np.log(net.predict(X)[:, 1].astype(float)), expected, rtol=1e-6)
        mc = net.predict_mc(X, 5, seed=0, quantiles=[0.1, 0.9], return_samples=True)
        np.testing.assert_allclose(mc.std, math.exp(expected / 2), rtol=1e-5)
        assert np.isfinite(mc.quantiles).all()
        assert all(math.isfinite(value) for value in net.evaluate_mc(X, [0, 1, 2], 5, seed=0).values())


@pytest.mark.parametrize("rows", [1, 3, 130, 600])
def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(rows, rng):
    X = rng.standard_normal((rows, 90))
    results = set()
    for n_threads in (1, 2, 3, 5):
        net = cd.Network([cd.Dense(200), cd.ReLU(), cd.Dropout(0.5), cd.Dense(4)], seed=1, n_threads=n_threads)
        mc = net.predict_mc(X, 90, seed=3, return_samples=True)
        results.add(b"".join(a.tobytes() for a in (mc.samples, mc.mean, mc.std, mc.entropy, mc.mutual_information)))
    assert len(results) == 1


def test_more_samples_begin_with_the_fewer(net, rng):
    X = rng.standard_normal((9, 12))
    few, many = (net.predict_mc(X, count, seed=4, return_samples=True).samples for count in (13, 200))
    np.testing.assert_array_equal(few, many[:13])
    assert len({sample.tobytes() for sample in many}) == 200


def test_another_seed_gives_other_samples_and_none_a_new_one_each_time(net, rng):
    X = rng.standard_normal((9, 12))
    seen = {net.predict_mc(X, 5, seed=seed).mean.tobytes() for seed in (0, 1, None, None)}
    assert len(seen) == 4


def test_weights_state_and_later_training_are_untouched(net, rng):
    X, y = rng.standard_normal((80, 12)), rng.integers(0, 4, 80)
    import copy

    other = copy.deepcopy(net)
    net.predict_mc(X, 20, seed=0)
    net.evaluate_mc(X, y, 20, seed=0)
    for one in (net, other):
        one.fit(X, y, epochs=2, verbose=0)
    assert net.predict(X).tobytes() == other.predict(X).tobytes()


def test_without_dropout_all_samples_are_the_prediction(rng):
    net = cd.Network([cd.Dense(30), cd.ReLU(), cd.Dense(4)], seed=1).build(12)
    X = rng.standard_normal((300, 12))
    with pytest.warns(UserWarning, match="nothing is drawn.*no layer drops"):
        mc = net.predict_mc(X, 4, seed=0, return_samples=True)
    np.testing.assert_array_equal(mc.samples, np.repeat(net.predict(X)[None], 4, axis=0))
    assert (mc.std == 0).all()


def test_the_likelihood_of_classes_is_that_of_the_mean_probability(net, rng):
    X, y = rng.standard_normal((300, 12)), rng.integers(0, 4, 300)
    result = net.evaluate_mc(X, y, 40, seed=6)
    p = net.predict_mc(X, 40, seed=6, return_samples=True).samples.astype(np.float64).mean(axis=0)
    assert result["log_likelihood"] == pytest.approx(np.log(p[np.arange(300), y]).mean(), rel=1e-6)
    assert result["accuracy"] == np.mean(p.argmax(axis=1) == y)


def test_the_likelihood_of_regression_is_the_papers_formula(rng):
    X, y = rng.standard_normal((300, 5)), rng.standard_normal(300)
    net = cd.Network([cd.Dense(30), cd.ReLU(), cd.Dropout(0.2), cd.Dense(1)], loss="mse", seed=1)
    net.fit(X, y, epochs=3, verbose=0)
    tau = 1.7
    result = net.evaluate_mc(X, y, 40, noise_precision=tau, seed=6)
    samples = net.predict_mc(X, 40, seed=6, return_samples=True).samples[:, :, 0].astype(np.float64)
    inner = -0.5 * tau * (y - samples) ** 2
    expected = np.logaddexp.reduce(inner, axis=0) - np.log(40) - 0.5 * np.log(2 * np.pi) + 0.5 * np.log(tau)
    assert result["log_likelihood"] == pytest.approx(expected.mean(), rel=1e-6)
    assert result["rmse"] == pytest.approx(np.sqrt(((samples.mean(axis=0) - y) ** 2).mean()), rel=1e-6)
    assert set(net.evaluate_mc(X, y, 5, seed=6)) == {"rmse", "mae"}


def test_the_likelihood_of_a_predicted_variance_needs_no_precision(rng):
    X, y = rng.standard_normal((50, 5)), rng.standard_normal(50)
    net = cd.Network([cd.Dense(30), cd.ReLU(), cd.Dropout(0.2), cd.Dense(2)], loss="gaussian_nll", seed=1)
    net.fit(X, y, epochs=3, verbose=0)
    result = net.evaluate_mc(X, y, 1, seed=6)
    z = net.predict_mc(X, 1, seed=6, return_samples=True).samples[0].astype(np.float64)
    expected = -0.5 * (np.log(2 * np.pi * z[:, 1]) + (y - z[:, 0]) ** 2 / z[:, 1])
    assert result["log_likelihood"] == pytest.approx(expected.mean(), rel=1e-5)
    with pytest.raises(ValueError, match="noise_precision"):
        net.evaluate_mc(X, y, noise_precision=1.0)


def test_what_classifiers_do_not_know_is_entropies_of_the_samples(net, rng):
    mc = net.predict_mc(rng.standard_normal((30, 12)), 40, seed=6, return_samples=True)
    p = mc.samples.astype(np.float64)
    average = -(p * np.log(p)).sum(axis=2).mean(axis=0)
    mean = p.mean(axis=0)
    np.testing.assert_allclose(mc.aleatoric, average, rtol=1e-5)
    np.testing.assert_allclose(mc.total, -(mean * np.log(mean)).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(mc.epistemic, mc.total - average, atol=1e-6)
    assert mc.total.tobytes() == mc.entropy.tobytes()
    assert mc.epistemic.tobytes() == mc.mutual_information.tobytes()


def test_of_binary_targets_each_has_its_parts(rng):
    layers = [cd.Dense(30), cd.ReLU(), cd.Dropout(0.4), cd.Dense(3)]
    net = cd.Network(layers, loss="binary_cross_entropy", seed=1).build(5)
    mc = net.predict_mc(rng.standard_normal((20, 5)), 30, seed=0, return_samples=True)
    p = mc.samples.astype(np.float64)
    np.testing.assert_allclose(mc.aleatoric, -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mc.total, mc.aleatoric + mc.epistemic, atol=1e-6)
    assert mc.total.shape == (20, 3)


def test_of_a_predicted_variance_the_total_is_its_mean_and_the_variance_of_the_means(rng):
    layers = [cd.Dense(30), cd.ReLU(), cd.Dropout(0.4), cd.Dense(4)]
    net = cd.Network(layers, loss="gaussian_nll", seed=1).build(5)
    mc = net.predict_mc(rng.standard_normal((20, 5)), 30, seed=0, return_samples=True)
    z = mc.samples.astype(np.float64)
    np.testing.assert_allclose(mc.aleatoric, z[:, :, 2:].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mc.epistemic, z[:, :, :2].var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mc.total, mc.aleatoric + mc.epistemic, rtol=1e-5)
    np.testing.assert_allclose(mc.total, mc.std**2, rtol=1e-5)


def test_without_a_predicted_variance_the_noise_is_not_known(rng):
    net = cd.Network([cd.Dense(30), cd.ReLU(), cd.Dropout(0.4), cd.Dense(2)], loss="mse", seed=1).build(5)
    mc = net.predict_mc(rng.standard_normal((20, 5)), 30, seed=0)
    assert mc.aleatoric is None
    np.testing.assert_allclose(mc.epistemic, mc.std**2, rtol=1e-5)
    assert mc.total.tobytes() == mc.epistemic.tobytes()


# In words ---------------------------------------------------------------------------------------------------


def cells(summary):
    """(the first line, the table's lines below its head, the notes): cells that are separated by two blanks."""
    first, _, rule, *rest = summary.split("\n")
    assert set(rule) == {"-"}
    table = [line for line in rest if len(line) == len(rule)]
    return first, [line.split() for line in table], rest[len(table) :]


def test_the_summary_of_classes_is_means_of_the_entropies(net, rng):
    mc = net.predict_mc(rng.standard_normal((30, 12)), 40, seed=6, quantiles=[0.1, 0.9])
    first, table, notes = cells(mc.summary())
    assert first == "rows: 30, classes: 4, samples: 40, quantiles: 2"
    expected = [f"{part.astype(float).mean():.4g}" for part in (mc.std, mc.total, mc.aleatoric, mc.epistemic)]
    share = mc.epistemic.astype(float).mean() / mc.total.astype(float).mean()
    assert table == [["all", *expected, f"{share:.1%}"]]
    assert notes == ["total, aleatoric and epistemic uncertainty are mean entropies in nats"]


def test_the_summary_of_labels_and_targets_has_a_line_for_each(rng):
    X = rng.standard_normal((30, 5))
    layers = [cd.Dense(30), cd.ReLU(), cd.Dropout(0.4), cd.Dense(4)]
    mc = cd.Network(layers, loss="binary_cross_entropy", seed=1).build(5).predict_mc(X, 9, seed=0, return_samples=True)
    first, table, _ = cells(mc.summary())
    assert first == "rows: 30, labels: 4, samples: 9 (kept)"
    assert [line[2] for line in table] == [f"{one:.4g}" for one in mc.total.astype(float).mean(axis=0)]
    mc = cd.Network(layers, loss="gaussian_nll", seed=1).build(5).predict_mc(X, 9, seed=0)
    first, table, notes = cells(mc.summary())
    assert first == "rows: 30, outputs: 2, samples: 9"
    parts = [part.astype(float).mean(axis=0) for part in (mc.total, mc.aleatoric, mc.epistemic)]
    for number, line in enumerate(table):
        total, aleatoric, epistemic = (part[number] for part in parts)
        roots = [f"{math.sqrt(one):.4g}" for one in (total, aleatoric, epistemic)]
        assert line == [
            str(number),
            f"{mc.std[:, number].astype(float).mean():.4g}",
            *roots,
            f"{epistemic / total:.1%}",
        ]
    assert len(notes) == 1
    assert "standard deviations" in notes[0]


def test_the_summary_says_what_is_not_known(rng):
    net = cd.Network([cd.Dense(30), cd.ReLU(), cd.Dropout(0.4), cd.Dense(1)], loss="mse", seed=1).build(5)
    mc = net.predict_mc(rng.standard_normal((20, 5)), 30, seed=0)
    _, ((name, std, total, aleatoric, epistemic, share),), notes = cells(mc.summary())
    assert (name, aleatoric, share, total) == ("all", "-", "-", epistemic)
    assert float(std) <= float(total)
    assert notes[1].startswith("aleatoric uncertainty is not known, since no variance of y is predicted")
    first, table, notes = cells(cd.MonteCarlo(mean=np.ones((3, 1)), std=np.ones((3, 1))).summary())
    assert first == "rows: 3, outputs: 1, samples: not known"
    assert table == [["all", "1", "-", "-", "-", "-"]]
    assert notes == ["total, aleatoric and epistemic uncertainty are not known"]


def test_a_certain_classifier_has_no_share_that_is_epistemic():
    zero = np.zeros(3)
    mc = cd.MonteCarlo(np.eye(3), np.zeros((3, 3)), entropy=zero, total=zero, aleatoric=zero, epistemic=zero)
    assert cells(mc.summary())[1] == [["all", "0", "0", "0", "0", "-"]]


def test_ensembles_are_summed_up_too(rng):
    X = rng.standard_normal((60, 4))
    layers = [cd.Dense(8), cd.ReLU(), cd.Dropout(0.4), cd.Dense(2)]
    ensemble = cd.Ensemble([cd.Network(layers, seed=seed).build(4) for seed in range(3)])
    assert cells(ensemble.predict_mc(X, 5, seed=0).summary())[0] == "rows: 60, classes: 2, samples: 15"


@pytest.mark.extras
def test_estimators_are_summed_up_too(rng):
    from cydrop import sklearn, tabular

    X = rng.standard_normal((60, 4))
    options = {"max_iter": 2, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # after two epochs nothing has converged
        classifiers = [
            sklearn.MLPClassifier((8,), dropout=0.2, **options).fit(X, X[:, 0] > 0),
            tabular.RealMLPClassifier(hidden_layer_sizes=(8,), **options).fit(X, X[:, 0] > 0),
        ]
        regressors = [
            sklearn.MLPRegressor((8,), dropout=0.2, **options).fit(X, X[:, 0]),
            tabular.TabMRegressor(hidden_layer_sizes=(8,), **options).fit(X, X[:, 0]),
        ]
    for estimators, what in ((classifiers, "classes: 2"), (regressors, "outputs: 1")):
        for estimator in estimators:
            first, table, _ = cells(estimator.predict_mc(X, 7).summary())
            assert first == f"rows: 60, {what}, samples: 7"
            assert [line[0] for line in table] == ["all"]


def test_uncertainty_grows_away_from_the_data(rng):
    x = rng.uniform(-1, 1, 300)
    layers = [cd.Dense(64), cd.ReLU(), cd.Dropout(0.2), cd.Dense(64), cd.ReLU(), cd.Dropout(0.2), cd.Dense(1)]
    net = cd.Network(layers, loss="mse", optimizer=cd.Adam(5e-3), seed=0)
    net.fit(x[:, None], np.sin(3 * x), epochs=100, verbose=0)
    std = net.predict_mc(np.array([[0.0], [3.0], [9.0]]), 300, seed=0).std[:, 0]
    assert 2 * std[0] < std[1] < std[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"samples": 2.5}, "samples"),
        ({"quantiles": [0.5, 2]}, "quantiles"),
        ({"quantiles": [[0.5]]}, "quantiles"),
        ({"quantiles": []}, "quantiles"),
        ({"return_samples": "yes"}, "return_samples"),
        ({"seed": "lucky"}, "seed"),
    ],
)
def test_wrong_arguments_are_refused_by_name(net, rng, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        net.predict_mc(rng.random((3, 12)), **arguments)


def test_r_drop_is_its_twin(rng):
    z, z2, y = rng.standard_normal((17, 5)), rng.standard_normal((17, 5)), rng.integers(0, 5, 17)
    for options in ({}, {"weight": 2.5}, {"label_smoothing": 0.1, "sample_weight": rng.random(17)}, {"weight": 0.01}):
        fast = functional.r_drop(z, z2, y, return_grad=True, **options)
        plain = reference.r_drop(z, z2, y, return_grad=True, **options)
        for one, other in zip(fast, plain, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)


def test_the_gradient_of_r_drop_is_its_derivative(rng):
    z, z2, y = rng.standard_normal((4, 5)), rng.standard_normal((4, 5)), rng.integers(0, 5, 4)
    _, grad, grad2 = reference.r_drop(z, z2, y, weight=1.5, return_grad=True)
    for place in ((0, 0), (2, 3)):
        step = np.zeros_like(z)
        step[place] = 1e-6
        first = (reference.r_drop(z + step, z2, y, weight=1.5) - reference.r_drop(z - step, z2, y, weight=1.5)) / 2e-6
        second = (reference.r_drop(z, z2 + step, y, weight=1.5) - reference.r_drop(z, z2 - step, y, weight=1.5)) / 2e-6
        assert first == pytest.approx(grad[place], abs=1e-8)
        assert second == pytest.approx(grad2[place], abs=1e-8)


def test_training_with_r_drop_is_two_passes_with_masks_of_their_own(rng):
    X, y, weights = rng.standard_normal((19, 11)), rng.integers(0, 3, 19), rng.random(19)
    from plain_network import PlainNetwork

    loss = cd.losses.CrossEntropy(label_smoothing=0.1, r_drop=0.7)
    layers = [cd.Dropout(0.2), cd.Dense(24), cd.Tanh(), cd.Dropout(0.4), cd.Dense(3)]
    net = cd.Network(layers, loss=loss, optimizer=cd.SGD(0.1, momentum=0.5), seed=1).build(11)
    plain = PlainNetwork(net)
    for _ in range(4):
        value = net.train_on_batch(X, y, weights)
        masks = net.masks()
        assert [mask.shape for mask in masks] == [(38, 11), (38, 24)]
        z = plain.forward(np.concatenate([X, X]), masks)
        expected, first, second = reference.r_drop(
            z[:19], z[19:], y, weight=0.7, label_smoothing=0.1, sample_weight=weights, return_grad=True
        )
        plain.backward(np.concatenate([first, second]))
        plain.step()
        assert value == pytest.approx(expected, rel=1e-5)
    for name, array in net.parameters().items():
        np.testing.assert_allclose(array, plain.parameters[name], atol=1e-5)


def test_r_drop_trains_the_same_bits_on_any_number_of_threads_and_is_saved(rng, tmp_path):
    X, y = rng.standard_normal((300, 90)), rng.integers(0, 4, 300)
    results = set()
    for n_threads in (1, 2, 3):
        layers = [cd.Dense(250), cd.ReLU(), cd.Dropout(0.5), cd.Dense(4)]
        net = cd.Network(layers, loss=cd.losses.CrossEntropy(r_drop=1.0), seed=1, n_threads=n_threads)
        net.fit(X, y, epochs=2, verbose=0)
        results.add(b"".join(p.tobytes() for p in net.parameters().values()))
    assert len(results) == 1
    net.save(tmp_path / "net")
    assert cd.load(tmp_path / "net").loss == net.loss


def test_the_clean_loss_is_the_loss_with_dropout_off(rng):
    X, y = rng.standard_normal((70, 6)), rng.integers(0, 3, 70)
    net = cd.Network([cd.Dense(40), cd.ReLU(), cd.Dropout(0.6), cd.Dense(3)], seed=0)
    history = net.fit(X, y, epochs=3, verbose=0, clean_metrics=True)
    assert history.metrics["clean_loss"][-1] == net.evaluate(X, y)["loss"]
    assert history.metrics["clean_accuracy"][-1] == net.evaluate(X, y)["accuracy"]
    assert history.metrics["clean_loss"][-1] < history.metrics["loss"][-1]
    assert "clean_loss" not in net.fit(X, y, epochs=1, verbose=0).metrics or np.isnan(history.metrics["clean_loss"][-1])


def test_curriculum_rises_to_its_end():
    rate = cd.schedules.Curriculum(0.5, gamma=10)
    assert rate(0.0) == 0.0
    assert rate(1.0) == pytest.approx(0.5, abs=1e-4)
    assert rate(0.1) == pytest.approx(0.5 * (1 - np.exp(-1)))


# Which rate -------------------------------------------------------------------------------------------------


def fading(rate, **options):
    return cd.Network([cd.Dense(20), cd.ReLU(), cd.Dropout(rate), cd.Dense(3)], seed=0, **options).build(4)


def test_dropout_that_has_faded_out_is_sampled_at_the_middle_of_training_and_says_so(rng):
    X = rng.standard_normal((7, 4))
    with pytest.warns(UserWarning, match="faded out.*rates of its middle"):
        mc = fading(cd.schedules.Linear(0.6, 0.0)).predict_mc(X, 50, seed=1)
    np.testing.assert_array_equal(mc.std, fading(0.3).predict_mc(X, 50, seed=1).std)


def test_a_schedule_that_still_drops_at_its_end_is_sampled_there(rng):
    X = rng.standard_normal((7, 4))
    mc = fading(cd.schedules.Linear(0.1, 0.5)).predict_mc(X, 50, seed=1)
    np.testing.assert_array_equal(mc.std, fading(0.5).predict_mc(X, 50, seed=1).std)


def test_a_rate_that_is_given_holds_for_all_dropout_layers(rng):
    X, y = rng.standard_normal((7, 4)), np.arange(7) % 3
    for net in (fading(cd.schedules.Linear(0.6, 0.0)), fading(0.0), fading(0.5)):
        mc = net.predict_mc(X, 50, seed=1, rate=0.2)
        np.testing.assert_array_equal(mc.std, fading(0.2).predict_mc(X, 50, seed=1).std)
        assert net.evaluate_mc(X, y, 20, seed=1, rate=0.2) == fading(0.2).evaluate_mc(X, y, 20, seed=1)
    layers = [cd.Dense(20), cd.GaussianDropout(0.5), cd.GaussianNoise(0.1), cd.AlphaDropout(0.5), cd.Dense(3)]
    wanted = [cd.Dense(20), cd.GaussianDropout(0.2), cd.GaussianNoise(0.1), cd.AlphaDropout(0.2), cd.Dense(3)]
    nets = [cd.Network(some, seed=0).build(4) for some in (layers, wanted)]
    np.testing.assert_array_equal(
        nets[0].predict_mc(X, 9, seed=1, rate=0.2).mean, nets[1].predict_mc(X, 9, seed=1).mean
    )


@pytest.mark.parametrize("rate", [0.0, cd.schedules.Constant(0.0), cd.schedules.Step(0.5, 0.0, at=0.2)], ids=repr)
def test_samples_in_which_nothing_is_drawn_are_no_certainty(rng, rate):
    X, y = rng.standard_normal((7, 4)), np.arange(7) % 3
    for call in (lambda: fading(rate).predict_mc(X, 5), lambda: fading(rate).evaluate_mc(X, y, 5)):
        with pytest.warns(UserWarning, match="nothing is drawn.*all rates are 0.*no certainty; give rate= above 0"):
            call()
    with pytest.warns(UserWarning, match="nothing is drawn"):
        fading(0.5).predict_mc(X, 5, rate=0.0)


def test_a_rate_out_of_range_is_refused_and_a_refused_call_leaves_a_generator_alone(rng):
    net, generator = fading(0.5), np.random.default_rng(5)
    before = generator.bit_generator.state
    for wrong in ({"rate": 1.5}, {"rate": "a"}, {"samples": 0}, {"drop_connect": "no"}, {"quantiles": 2}):
        with pytest.raises((ValueError, TypeError)):
            net.predict_mc(rng.standard_normal((7, 4)), seed=generator, **wrong)
    with pytest.raises(ValueError, match="columns"):
        net.predict_mc(rng.standard_normal((7, 5)), seed=generator)
    assert generator.bit_generator.state == before


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [cd.Dropout(0.2), cd.Dense(16), cd.ReLU(), cd.Dense(2, drop_connect=0.3)],
        lambda: [cd.Dense(16), cd.Dropout(0.2), cd.Dense(9), cd.GaussianNoise(0.5), cd.Dense(2)],
        lambda: [cd.AlphaDropout(0.2), cd.Dense(9), cd.GaussianNoise(0.5), cd.GaussianDropout(0.1), cd.Dense(2)],
    ],
)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_samples_do_not_depend_on_where_earlier_ones_began_to_draw(rng, layers, n_threads):
    X = rng.standard_normal((30, 6)).astype(np.float32)
    used, fresh = (cd.Network(layers(), seed=0, n_threads=n_threads).build(6) for _ in range(2))
    for rate in (0.0, 0.4, 0.0):  # without dropout the first draws come later
        used.predict_mc(X, 40, seed=1, rate=rate)
    found, wanted = (net.predict_mc(X, 40, seed=1, return_samples=True) for net in (used, fresh))
    np.testing.assert_array_equal(found.samples, wanted.samples)

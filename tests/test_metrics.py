"""cydrop.metrics against other ways to compute the same: sums over pairs, integrals, the optima that theory gives."""

import math
import statistics

import numpy as np
import pytest

import cydrop as cd
from cydrop import metrics

RNG = np.random.default_rng(0)
Y = RNG.standard_normal(40)
INTERVALS = np.sort(RNG.standard_normal((40, 2)), axis=1)
TWO_TARGETS = cd.MonteCarlo(mean=np.ones((1, 2), np.float32), std=np.ones((1, 2), np.float32))


# Intervals and sets -------------------------------------------------------------------------------------------


def test_coverage_counts_ends_as_inside():
    intervals = [[0, 1], [0, 1], [0, 1], [-np.inf, np.inf]]
    assert metrics.coverage([0, 1, 1.5, 9], intervals) == 0.75
    assert metrics.coverage([[0], [1], [1.5], [9]], intervals) == 0.75


def test_coverage_and_width_of_sets():
    sets = np.array([[True, True, False], [False, False, False], [False, False, True]])
    assert metrics.coverage([1, 0, 2], sets) == pytest.approx(2 / 3)
    assert metrics.width(sets) == 1.0


def test_width_is_in_units_of_y():
    assert metrics.width([[0, 1], [2, 5]]) == 2.0
    assert metrics.width([[0, 1], [-np.inf, 5]]) == np.inf


def test_the_interval_score_is_that_of_its_definition():
    total = 0.0
    for y, (low, high) in zip(Y, INTERVALS, strict=True):
        total += high - low
        total += 2 / 0.2 * (low - y) if y < low else 2 / 0.2 * (y - high) if y > high else 0
    assert metrics.interval_score(Y, INTERVALS, coverage=0.8) == pytest.approx(total / len(Y))


def test_the_interval_score_is_a_sum_of_two_pinball_losses():
    # S = 2 / a (rho_{a/2}(y - l) + rho_{1 - a/2}(y - u)), a = 0.2
    pinball = metrics.pinball_loss(Y, INTERVALS, [0.1, 0.9])
    assert metrics.interval_score(Y, INTERVALS, coverage=0.8) == pytest.approx(2 / 0.2 * 2 * pinball)


def test_the_true_quantiles_have_the_least_interval_score():
    y = np.random.default_rng(1).standard_normal(20_000)
    end = statistics.NormalDist().inv_cdf(0.95)

    def score(low, high):
        return metrics.interval_score(y, np.tile([low, high], (len(y), 1)), coverage=0.9)

    true = score(-end, end)
    assert all(true < score(-end * a, end * b) for a, b in [(0.7, 0.7), (1.4, 1.4), (0.7, 1.0), (1.0, 1.4)])


# Quantiles ----------------------------------------------------------------------------------------------------


def test_the_pinball_loss_of_the_median_is_half_the_absolute_error():
    assert metrics.pinball_loss(Y, np.zeros(40), 0.5) == pytest.approx(np.abs(Y).mean() / 2)


def test_the_empirical_quantile_has_the_least_pinball_loss():
    grid = np.linspace(-2, 2, 401)
    for level in (0.1, 0.5, 0.9):
        losses = [metrics.pinball_loss(Y, np.full(40, one), level) for one in grid]
        share = np.mean(grid[int(np.argmin(losses))] >= Y)
        assert abs(share - level) <= 1.5 / 40


# Distributions ------------------------------------------------------------------------------------------------


def test_crps_of_samples_is_that_of_all_pairs():
    samples = RNG.standard_normal((7, 40))
    pairs = np.abs(samples[:, None] - samples[None]).mean(axis=(0, 1))
    expected = (np.abs(samples - Y).mean(axis=0) - pairs / 2).mean()
    assert metrics.crps(Y, samples) == pytest.approx(expected)
    assert metrics.crps(Y, samples[:, :, None]) == pytest.approx(expected)


def test_crps_of_one_sample_is_the_absolute_error():
    assert metrics.crps(Y, np.zeros((1, 40))) == pytest.approx(np.abs(Y).mean())
    assert metrics.crps(Y, np.zeros(40), np.zeros(40)) == pytest.approx(np.abs(Y).mean())


def test_crps_of_a_normal_distribution_is_the_integral_of_its_definition():
    for y, mean, std in [(0.3, 0.0, 1.0), (-2.0, 1.0, 0.5), (5.0, 5.0, 3.0)]:
        x, step = np.linspace(mean - 12 * std, mean + 12 * std, 400_001, retstep=True)
        F = np.array([statistics.NormalDist(mean, std).cdf(one) for one in x[::50]])
        F = np.interp(x, x[::50], F)
        integral = float(np.sum((F - (x >= y)) ** 2) * step)
        assert metrics.crps([y], [mean], [std]) == pytest.approx(integral, rel=1e-3)


def test_many_samples_have_the_crps_of_their_distribution():
    samples = np.random.default_rng(2).normal(0.5, 2.0, size=(20_000, 1))
    assert metrics.crps([1.5], samples) == pytest.approx(metrics.crps([1.5], [0.5], [2.0]), rel=0.02)


def test_a_monte_carlo_is_taken_as_it_is():
    X = RNG.standard_normal((60, 4)).astype(np.float32)
    net = cd.Network([cd.Dense(16), cd.ReLU(), cd.Dropout(0.3), cd.Dense(1)], loss="mse", seed=0)
    net.fit(X, X[:, :1], epochs=2, verbose=0)
    kept = net.predict_mc(X, samples=20, seed=1, return_samples=True)
    assert metrics.crps(X[:, 0], kept) == metrics.crps(X[:, 0], kept.samples)
    dropped = net.predict_mc(X, samples=20, seed=1)
    assert metrics.crps(X[:, 0], dropped) == metrics.crps(X[:, 0], dropped.mean, dropped.std)
    with pytest.raises(ValueError, match="std is that of the MonteCarlo"):
        metrics.crps(X[:, 0], dropped, dropped.std)


# Classifiers --------------------------------------------------------------------------------------------------


def test_the_calibration_error_is_that_of_the_reliability_diagram():
    p = np.array([0.1, 0.4, 0.6, 0.9])
    assert metrics.calibration_error([0, 1, 1, 1], p, bins=2) == pytest.approx(abs(0.5 - 0.25) / 2 + abs(1 - 0.75) / 2)
    assert cd.plot.expected_calibration_error is metrics.calibration_error
    assert cd.plot.calibration is metrics.calibration


# Curves -------------------------------------------------------------------------------------------------------


def test_the_coverage_curve_is_the_coverage_of_each_level_in_order():
    wide = np.tile([-5.0, 5.0], (40, 1))
    nominal, observed, error = metrics.coverage_curve(Y, {0.9: wide, 0.5: INTERVALS})
    np.testing.assert_array_equal(nominal, [0.5, 0.9])
    np.testing.assert_array_equal(observed, [metrics.coverage(Y, INTERVALS), 1.0])
    np.testing.assert_allclose(error, [math.sqrt(0.25 / 40), math.sqrt(0.09 / 40)])


def test_the_coverage_curve_of_sets_and_of_quantiles():
    sets = np.array([[True, False], [True, True], [False, True]])
    assert metrics.coverage_curve([0, 1, 0], {0.8: sets})[1] == pytest.approx([2 / 3])
    y = np.random.default_rng(3).random(1000)
    nominal, observed, _ = metrics.coverage_curve(y, np.tile([0.8, 0.1], (1000, 1)), [0.8, 0.1])
    np.testing.assert_array_equal(nominal, [0.1, 0.8])
    np.testing.assert_array_equal(observed, [np.mean(y <= 0.1), np.mean(y <= 0.8)])


def test_the_standard_error_is_how_far_true_intervals_stray():
    rng = np.random.default_rng(4)
    found = [metrics.coverage_curve(rng.random(50), {0.7: np.tile([0.0, 0.7], (50, 1))}) for _ in range(400)]
    assert np.std([observed for _, observed, _ in found]) == pytest.approx(found[0][2][0], rel=0.1)


def test_rejection_by_hand():
    p = [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]]  # certain in this order: rows 0, 3, 2, 1
    rejected, accuracy, oracle = metrics.rejection_curve([0, 0, 1, 1], p)  # rows 1 and 2 are wrong
    np.testing.assert_array_equal(rejected, [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(accuracy, [0.5, 2 / 3, 1, 1])
    np.testing.assert_allclose(oracle, accuracy)
    assert metrics.rejection_ratio([0, 0, 1, 1], p) == pytest.approx(1)


def test_rejection_in_regression_is_the_rmse_of_the_rest():
    y, prediction, std = RNG.standard_normal(30), RNG.standard_normal(30), RNG.random(30)
    _, rmse, oracle = metrics.rejection_curve(y, prediction, std)
    for kept in (30, 17, 1):
        certain, closest = np.argsort(std)[:kept], np.argsort(np.abs(y - prediction))[:kept]
        assert rmse[30 - kept] == pytest.approx(math.sqrt(np.mean((y - prediction)[certain] ** 2)))
        assert oracle[30 - kept] == pytest.approx(math.sqrt(np.mean((y - prediction)[closest] ** 2)))


def test_rows_that_are_equally_uncertain_count_the_same_in_any_order():
    y, prediction, std = RNG.standard_normal(30), RNG.standard_normal(30), RNG.integers(0, 3, 30)
    order = RNG.permutation(30)
    np.testing.assert_allclose(
        metrics.rejection_curve(y, prediction, std)[1],
        metrics.rejection_curve(y[order], prediction[order], std[order])[1],
    )
    constant = metrics.rejection_curve(y, prediction, np.ones(30))[1]
    np.testing.assert_allclose(constant, constant[0])
    assert metrics.rejection_ratio(y, prediction, np.ones(30)) == pytest.approx(0, abs=1e-12)


def test_the_rejection_ratio_is_1_for_the_oracle_0_for_chance_and_below_for_what_misleads():
    rng = np.random.default_rng(5)
    y, prediction = rng.standard_normal(4000), np.zeros(4000)
    assert metrics.rejection_ratio(y, prediction, np.abs(y)) == pytest.approx(1)
    assert metrics.rejection_ratio(y, prediction, rng.random(4000)) == pytest.approx(0, abs=0.05)
    assert metrics.rejection_ratio(y, prediction, -np.abs(y)) < -0.5
    assert math.isnan(metrics.rejection_ratio([1, 2], [1, 2], [0, 1]))


def test_the_rejection_ratio_is_a_ratio_of_areas():
    y, p = np.array([0, 1, 1, 0, 1, 0]), np.array([0.1, 0.3, 0.8, 0.6, 0.95, 0.45])
    wrong = (p > 0.5) != y
    certain = np.argsort(-np.abs(p - 0.5))
    best = np.argsort(wrong, kind="stable")

    def area(order):  # of the curve of the sum of kept errors, its trapezoids
        kept = np.concatenate([[0], np.cumsum(wrong[order])]) / 6
        return np.sum((kept[1:] + kept[:-1]) / 2)

    chance = wrong.sum() / 6 * 6 / 2
    expected = (chance - area(certain)) / (chance - area(best))
    assert metrics.rejection_ratio(y, np.column_stack([1 - p, p])) == pytest.approx(expected)


def test_sets_intervals_and_monte_carlo_bring_their_uncertainty():
    y, prediction, half = RNG.standard_normal(30), RNG.standard_normal(30), RNG.random(30)
    intervals = np.column_stack([prediction - half, prediction + half])
    for one, other in zip(
        metrics.rejection_curve(y, prediction, intervals), metrics.rejection_curve(y, prediction, half), strict=True
    ):
        np.testing.assert_allclose(one, other)
    mc = cd.MonteCarlo(mean=prediction[:, None], std=half[:, None])
    np.testing.assert_array_equal(metrics.rejection_curve(y, mc), metrics.rejection_curve(y, prediction, half))
    p = RNG.dirichlet([1, 1, 1], 30)
    sets, labels = RNG.random((30, 3)) < 0.5, RNG.integers(0, 3, 30)
    np.testing.assert_array_equal(
        metrics.rejection_curve(labels, p, sets), metrics.rejection_curve(labels, p, sets.sum(axis=1))
    )
    classes = cd.MonteCarlo(mean=p, std=p, entropy=half)
    np.testing.assert_array_equal(metrics.rejection_curve(labels, classes), metrics.rejection_curve(labels, p))
    single = cd.MonteCarlo(mean=half[:, None], std=half[:, None], entropy=half[:, None])
    np.testing.assert_array_equal(
        metrics.rejection_curve(labels % 2, single),
        metrics.rejection_curve(labels % 2, np.column_stack([1 - half, half])),
    )


def test_the_error_of_normal_predictions_is_what_their_std_says():
    rng = np.random.default_rng(6)
    std = rng.uniform(0.1, 2, 20_000)
    y = std * rng.standard_normal(20_000)
    doubt, error, count = metrics.error_by_uncertainty(y, np.zeros(20_000), std, bins=5)
    np.testing.assert_array_equal(count, 4000)
    np.testing.assert_allclose(error, math.sqrt(2 / math.pi) * doubt, rtol=0.05)
    assert doubt[0] == pytest.approx(np.sort(std)[:4000].mean())


def test_rows_that_are_equally_uncertain_stay_in_one_bin():
    doubt, error, count = metrics.error_by_uncertainty([1, 2, 3, 4, 5], [0] * 5, [1, 1, 1, 1, 7], bins=5)
    np.testing.assert_array_equal(count, [4, 0, 0, 0, 1])
    np.testing.assert_array_equal(doubt, [1, math.nan, math.nan, math.nan, 7])
    np.testing.assert_array_equal(error, [2.5, math.nan, math.nan, math.nan, 5])
    of_intervals = metrics.error_by_uncertainty([1, 2], [0, 0], [[0, 3], [5, 6]], bins=2)
    np.testing.assert_array_equal(of_intervals, [[1, 3], [2, 1], [1, 1]])


def test_networks_refuse_the_rows_that_they_do_not_know():
    rng = np.random.default_rng(7)
    X = rng.standard_normal((600, 4)).astype(np.float32)
    y = (X[:, 0] + 0.5 * rng.standard_normal(600) > 0).astype(int)
    net = cd.Network([cd.Dense(32), cd.ReLU(), cd.Dropout(0.3), cd.Dense(2)], seed=0)
    net.fit(X[:400], y[:400], epochs=10, verbose=0)
    mc = net.predict_mc(X[400:], 30, seed=0)
    rejected, accuracy, _ = metrics.rejection_curve(y[400:], mc)
    assert accuracy[rejected >= 0.5][0] > accuracy[0] + 0.05
    assert metrics.rejection_ratio(y[400:], mc) > 0.4
    assert metrics.rejection_ratio(y[400:], mc, mc.total) > 0.4


# What a tired person gives ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.coverage([1, 2], [[0, 1]]), "a value for each of the 1 rows"),
        (lambda: metrics.coverage([1], [[1, 0]]), "lower end is not below"),
        (lambda: metrics.coverage([1], [[np.nan, 0]]), "lower end is not below"),
        (lambda: metrics.coverage([np.nan], [[0, 1]]), "NaN or infinite"),
        (lambda: metrics.coverage([], np.zeros((0, 2))), "n at least 1"),
        (lambda: metrics.coverage([1], [[0, 1, 2]]), r"shape \(n, 2\)"),
        (lambda: metrics.coverage([3], np.ones((1, 3), dtype=bool)), r"labels 0..2, got 3 at index 0"),
        (lambda: metrics.width(np.ones(3, dtype=bool)), r"shape \(n, classes\)"),
        (lambda: metrics.interval_score([1], [[0, 1]], coverage=90), "coverage"),
        (lambda: metrics.pinball_loss([1], [1], 5), "between 0 and 1"),
        (lambda: metrics.pinball_loss([1, 2], [[1, 2]], [0.1, 0.9]), "a value for each of the 1 rows"),
        (lambda: metrics.pinball_loss([1], [1], [0.1, 0.9]), "a column for each of 2 quantiles"),
        (lambda: metrics.crps([1], [1]), r"samples of shape \(samples, n\)"),
        (lambda: metrics.crps([1], [1], [-1]), "std must be at least 0"),
        (lambda: metrics.crps([1], [1], [1, 2]), "a value for each of the 1 rows of prediction"),
        (lambda: metrics.crps(["a"], [1], [1]), "must be numeric"),
        (lambda: metrics.coverage_curve([1], {}), "empty dict; give coverage: intervals"),
        (lambda: metrics.coverage_curve([1], {90: [[0, 1]]}), "coverage"),
        (lambda: metrics.coverage_curve([1], {0.9: [[1, 0]]}), r"predicted\[0.9\] has an interval whose lower end"),
        (lambda: metrics.coverage_curve([1, 2], {0.9: [[0, 1]]}), r"each of the 1 rows of predicted\[0.9\], got 2"),
        (lambda: metrics.coverage_curve([1], [[0, 1]]), "must be a dict of coverage: intervals, or .* got list"),
        (lambda: metrics.coverage_curve([1], {0.9: [[0, 1]]}, [0.9]), "a dict has its coverages as keys"),
        (
            lambda: metrics.coverage_curve([1], [[0, 1]], [0.9]),
            "a column for each of 1 quantiles",
        ),
        (lambda: metrics.rejection_curve([1], [1]), "uncertainty must be given with predicted numbers"),
        (lambda: metrics.rejection_curve([1], [1], [1, 2]), "uncertainty must have a value for each of the 1 rows"),
        (lambda: metrics.rejection_curve([1], [1], [np.nan]), "uncertainty has 1 values that are NaN"),
        (lambda: metrics.rejection_curve([1], [[0.9, 0.8]]), "the rows of prediction must sum to 1"),
        (lambda: metrics.rejection_curve([2], [[0.9, 0.1]]), r"y must be labels 0\.\.1, got 2 at index 0"),
        (lambda: metrics.rejection_curve([1], [[0.9, 0.1]], [[0.1, 0.1]]), r"uncertainty must have shape \(n,\)"),
        (lambda: metrics.rejection_curve([1], TWO_TARGETS), "prediction has 2 targets: look at one at a time"),
        (lambda: metrics.error_by_uncertainty([1], [[0.9, 0.1]]), "must be numbers, got probabilities"),
        (lambda: metrics.error_by_uncertainty([1], [1], [1], bins=0), "bins must be at least 1"),
    ],
)
def test_nonsense_gets_a_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


def test_values_are_not_rounded_to_float32():
    assert metrics.interval_score([1.0 + 1e-12], [[1.0, 1.0]], coverage=0.5) == pytest.approx(4e-12, rel=1e-3)
    assert not math.isnan(metrics.crps([1e300], [0.0], [1.0]))

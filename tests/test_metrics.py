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
    ],
)
def test_nonsense_gets_a_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


def test_values_are_not_rounded_to_float32():
    assert metrics.interval_score([1.0 + 1e-12], [[1.0, 1.0]], coverage=0.5) == pytest.approx(4e-12, rel=1e-3)
    assert not math.isnan(metrics.crps([1e300], [0.0], [1.0]))

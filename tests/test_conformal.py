"""Conformal prediction: thresholds by counting, and coverage where theory says what it is."""

import math
from fractions import Fraction

import numpy as np
import pytest

from cydrop._base import conformal
from cydrop._base.conformal import Band


def test_the_place_is_that_of_exact_arithmetic():
    for rows in (1, 2, 9, 19, 99, 100, 999):
        for coverage in ("0.5", "0.8", "0.9", "0.95", "0.99"):
            assert conformal.place(rows, float(coverage)) == math.ceil((rows + 1) * Fraction(coverage))


@pytest.mark.parametrize("coverage", ["0.5", "0.8", "0.9", "0.95", "0.99", "0.999"])
def test_the_least_rows_are_just_enough(coverage):
    rows = conformal.least_rows(float(coverage))
    assert math.ceil((rows + 1) * Fraction(coverage)) <= rows
    assert math.ceil(rows * Fraction(coverage)) > rows - 1


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_too_few_rows_get_a_sentence(rows):
    with pytest.raises(ValueError, match=rf"0.999 cannot be promised by {rows} calibration rows?: at least 99"):
        conformal.thresholds([np.zeros(rows)], 0.999)


def test_what_the_sentence_proposes_works():
    with pytest.raises(ValueError, match=r"with these, ask for 0.952 at most"):
        conformal.thresholds([np.zeros(20)], 0.96)
    conformal.thresholds([np.zeros(20)], 0.952)


def test_the_coverage_is_that_of_theory():
    """place / (n + 1), on average over calibrations, of any scores without ties."""
    rng = np.random.default_rng(0)
    scores = rng.standard_exponential((20_000, 21))
    held = [row[20] <= conformal.thresholds([row[:20]], 0.9)[0][0] for row in scores]
    expected = conformal.place(20, 0.9) / 21
    assert abs(np.mean(held) - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)


# Intervals ----------------------------------------------------------------------------------------------------


def band(lower, upper=None, scale=1.0):
    lower = np.asarray(lower, dtype=np.float64)
    upper = lower if upper is None else np.asarray(upper, dtype=np.float64)
    return Band(lower, upper, np.broadcast_to(np.float64(scale), lower.shape))


def test_quantiles_are_moved_so_that_they_hold():
    rng = np.random.default_rng(1)
    y, said = rng.standard_normal(400), band(np.full(400, -0.5), np.full(400, 0.7))
    ends = conformal.interval([said], [conformal.outside(y, said)], 0.9)
    inside = (ends[:, 0] <= y) & (y <= ends[:, 1])
    assert inside.sum() == conformal.place(400, 0.9)


def test_quantiles_that_are_moved_inwards_do_not_cross():
    ends = conformal.interval([band([0.0, 0], [1.0, 8])], [np.full(9, -2.0)], 0.9)
    assert ends.tolist() == [[0.5, 0.5], [2, 6]]


def test_errors_are_measured_in_the_predicted_scale():
    said = band([0.0, 0], scale=np.array([0.5, 4]))
    assert conformal.outside(np.array([1.0, -4]), said).tolist() == [2, 1]
    assert conformal.interval([said], [np.full(9, 2.0)], 0.9).tolist() == [[-1, 1], [-8, 8]]


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_cv_plus_is_its_definition(folds, monkeypatch):
    monkeypatch.setattr(conformal, "PIECE", 4)
    rng = np.random.default_rng(folds)
    errors = [np.sort(rng.standard_normal(5 + 3 * number)) for number in range(folds)]
    bands = [band(np.sort(rng.standard_normal((2, 10)), axis=0)[0], None, rng.random(10) + 0.5) for _ in range(folds)]
    bands = [Band(one.lower, one.lower + rng.random(10), one.scale) for one in bands]
    found = conformal.interval(bands, errors, 0.8)
    rows = sum(len(fold) for fold in errors)
    a = Fraction(1, 5)
    for row in range(10):
        pairs = list(zip(bands, errors, strict=True))
        below = sorted(one.lower[row] - e * one.scale[row] for one, fold in pairs for e in fold)
        above = sorted(one.upper[row] + e * one.scale[row] for one, fold in pairs for e in fold)
        wanted = np.array([below[math.floor(a * (rows + 1)) - 1], above[math.ceil((1 - a) * (rows + 1)) - 1]])
        wanted = wanted if wanted[0] <= wanted[1] else wanted.mean()
        np.testing.assert_allclose(found[row], wanted, rtol=0, atol=1e-12)


def test_a_fold_without_rows_has_no_say():
    said, other = band([0.0]), band([100.0])
    assert conformal.interval([other, said], [np.empty(0), np.ones(9)], 0.9).tolist() == [[-1, 1]]
    first, second = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    assert conformal.class_sets([second, first], [np.empty(0), np.zeros(9)], 0.9).tolist() == [[True, False]]


# Sets ---------------------------------------------------------------------------------------------------------


def test_the_score_of_a_class_is_the_probability_before_it():
    scores = conformal.class_scores(np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(scores, [[0.8, 0, 0.5], [0, 1, 1]])
    scores = conformal.class_scores(np.array([[0.2, 0.5, 0.3]]), penalty=0.1, free=1)
    np.testing.assert_allclose(scores, [[1.0, 0, 0.6]])
    scores = conformal.class_scores(np.array([[0.2, 0.5, 0.3]]), penalty=0.1, free=2)
    np.testing.assert_allclose(scores, [[0.9, 0, 0.5]])


def right_about_itself(rows):
    """Probabilities and classes that were drawn by them."""
    rng = np.random.default_rng(3)
    proba = rng.dirichlet(np.full(5, 0.3), rows)
    return proba, (proba.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)


@pytest.mark.parametrize("folds", [1, 3])
def test_sets_hold_and_are_small_where_the_model_knows(folds):
    proba, y = right_about_itself(6000)
    scores = conformal.class_scores(proba, penalty=0.01)
    known = np.array_split(scores[np.arange(3000), y[:3000]], folds)
    sets = conformal.class_sets([scores[3000:]] * folds, known, 0.9)
    held = sets[np.arange(3000), y[3000:]].mean()
    assert abs(held - 0.9) < 0.025
    assert 1 < sets.sum(axis=1).mean() < 3
    assert sets.any(axis=1).all()
    assert sets[np.arange(3000), proba[3000:].argmax(axis=1)].all()


@pytest.mark.parametrize("folds", [1, 3])
def test_the_smallest_sets_hold_exactly_and_are_the_smallest(folds):
    """Of right probabilities, also above the accuracy, where some are empty."""
    proba, y = right_about_itself(6000)
    for coverage in (0.3, 0.9):
        size = []
        for scores, empty in ((conformal.improbabilities(proba), True), (conformal.class_scores(proba), False)):
            known = np.array_split(scores[np.arange(3000), y[:3000]], folds)
            sets = conformal.class_sets([scores[3000:]] * folds, known, coverage, empty)
            held = sets[np.arange(3000), y[3000:]].mean()
            size.append(sets.sum(axis=1).mean())
            if empty:
                assert abs(held - coverage) < 4 * np.sqrt(2 * coverage * (1 - coverage) / 3000)
                assert sets.any(axis=1).all() == (coverage == 0.9)
        assert size[0] < size[1]


def test_sets_of_folds_are_their_definition():
    rng = np.random.default_rng(4)
    known = [rng.random(n) for n in (4, 5)]
    new = [rng.random((7, 3)) for _ in known]
    sets = conformal.class_sets(new, known, 0.7)
    for row in range(7):
        below = [sum((fold < one[row, c]).sum() for fold, one in zip(known, new, strict=True)) for c in range(3)]
        wanted = [count < math.ceil(10 * Fraction(7, 10)) for count in below]
        assert sets[row].tolist() == (wanted if any(wanted) else [count == min(below) for count in below])
        assert conformal.class_sets(new, known, 0.7, empty=True)[row].tolist() == wanted


# Temperature --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_by_which_probabilities_were_spoilt(true):
    proba, y = right_about_itself(20_000)
    logs = np.log(np.maximum(proba, 1e-30))
    assert conformal.temperature(conformal.scaled(logs, true), y) == pytest.approx(true, rel=0.05)


def test_the_temperature_is_a_minimum_of_the_log_loss():
    proba, y = right_about_itself(500)
    logs = np.log(np.maximum(conformal.scaled(np.log(np.maximum(proba, 1e-30)), 2.0), np.finfo(np.float32).tiny))
    found = conformal.temperature(np.exp(logs), y)

    def loss(t):
        """Of the rows, and of ten that come out as the probabilities say."""
        scaled = np.log(conformal.scaled(logs, 1 / t))
        return -scaled[np.arange(500), y].sum() - 10 * (np.exp(logs) * scaled).sum(axis=1).mean()

    assert loss(found) < min(loss(0.99 * found), loss(1.01 * found), loss(1.0))


def test_a_few_rows_that_are_all_right_say_little_about_the_temperature():
    proba = np.tile([[0.9, 0.1], [0.2, 0.8]], (10, 1))
    right = np.tile([0, 1], 10)
    few, many = (conformal.temperature(np.tile(proba, (n, 1)), np.tile(right, n)) for n in (1, 100))
    assert 0.4 < few < 0.9
    assert many < few
    assert conformal.temperature(proba, 1 - right) > 1
    assert np.isfinite(conformal.temperature(np.array([[1.0, 0.0]]), np.array([1])))

"""The losses and their gradients against the float64 twins, which are checked against Python's `math`."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cydrop import functional, reference
from cydrop._core import losses as core

NAMES = ["cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "gaussian_nll"]
EPS = 2.0**-23
LARGEST = float(np.finfo(np.float32).max)


def example(name, rows, width, seed=0, scale=2.0):
    """Raw outputs and targets of `width` classes or columns; gaussian_nll has twice as many outputs."""
    rng = np.random.default_rng([seed, rows, width])
    width = max(width, 2) if name == "cross_entropy" else width
    z = (scale * rng.normal(size=(rows, 2 * width if name == "gaussian_nll" else width))).astype(np.float32)
    if name == "cross_entropy":
        return z, rng.integers(0, width, rows)
    if name == "binary_cross_entropy":
        return z, rng.integers(0, 2, (rows, width))
    return z, rng.normal(size=(rows, width)).astype(np.float32)


def both(name):
    return getattr(functional, name), getattr(reference, name)


def assert_agree(name, z, y, sample_weight=None, **options):
    """Value to 1e-6, gradient to 2e-6, both relative; where terms cancel, a few float32 units of them."""
    f, twin = both(name)
    n_threads = options.pop("n_threads", 1)
    loss, grad = f(z, y, sample_weight=sample_weight, return_grad=True, n_threads=n_threads, **options)
    wide_y = np.asarray(y, dtype=int if name == "cross_entropy" else float)
    expected, expected_grad = twin(z.astype(float), wide_y, sample_weight=sample_weight, return_grad=True, **options)
    assert type(loss) is float
    assert grad.dtype == np.float32
    assert grad.shape == z.shape
    assert grad.flags.c_contiguous
    weight = np.ones(len(z)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=4 * EPS * weight.mean())
    count = len(z) if name == "cross_entropy" else wide_y.size
    absolute = 4 * EPS * weight[:, None] / count
    assert (np.abs(grad - expected_grad) <= 2e-6 * np.abs(expected_grad) + absolute).all()
    assert f(z, y, sample_weight=sample_weight, **options) == loss


# The twins --------------------------------------------------------------------------------------------------


SCALAR = {  # of one element; z is (mean, log-variance) for gaussian_nll
    "binary_cross_entropy": lambda z, y: -math.log(1 / (1 + math.exp(-z if y else z))),
    "mse": lambda z, y: (z - y) ** 2,
    "mae": lambda z, y: abs(z - y),
    "huber": lambda z, y: (z - y) ** 2 / 2 if abs(z - y) <= 1 else abs(z - y) - 0.5,
    "gaussian_nll": lambda z, y: -math.log(NormalDist(z[0], math.exp(z[1] / 2)).pdf(y)),
}


@pytest.mark.parametrize("name", SCALAR)
def test_the_twin_is_the_mean_of_the_formula_that_math_gives(name):
    z, y = example(name, 40, 3, scale=0.5)
    z, y = z.astype(float), y.astype(float)
    pairs = np.stack([z[:, :3], z[:, 3:]], axis=-1) if name == "gaussian_nll" else z
    terms = [SCALAR[name](pairs[r, c], y[r, c]) for r in range(40) for c in range(3)]
    assert getattr(reference, name)(z, y) == pytest.approx(math.fsum(terms) / 120, rel=1e-13)


def test_the_twin_of_cross_entropy_is_the_mean_of_minus_log_probability():
    z, y = example("cross_entropy", 40, 5)
    terms = [
        -math.log(math.exp(row[label]) / math.fsum(map(math.exp, row)))
        for row, label in zip(z.tolist(), y, strict=True)
    ]
    assert reference.cross_entropy(z.astype(float), y) == pytest.approx(math.fsum(terms) / 40, rel=1e-13)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", {}),
        ("cross_entropy", {"label_smoothing": 0.3}),
        ("binary_cross_entropy", {}),
        ("mse", {}),
        ("mae", {}),
        ("huber", {}),
        ("huber", {"delta": 0.4}),
        ("gaussian_nll", {}),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_twin_s_gradient_is_the_derivative_of_the_twin(name, options, weighted):
    z, y = example(name, 5, 4, seed=1)
    z = z.astype(float)
    options = options | {"sample_weight": [0.5, 2.0, 0.0, 1.0, 3.0] if weighted else None}
    f = getattr(reference, name)
    _, grad = f(z, y, return_grad=True, **options)
    h = 1e-6
    for place in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[place] += h
        down[place] -= h
        quotient = (f(up, y, **options) - f(down, y, **options)) / (2 * h)
        assert grad[place] == pytest.approx(quotient, rel=1e-6, abs=1e-8)


# The kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (1, 10), (2, 1), (7, 63), (7, 64), (7, 65), (33, 200), (3000, 10)])
def test_loss_and_gradient_are_those_of_the_twin(name, rows, width):
    z, y = example(name, rows, width)
    assert_agree(name, z, y)
    assert_agree(name, z, y, sample_weight=np.random.default_rng(0).uniform(0, 3, rows).astype(np.float32))


@given(
    name=st.sampled_from(NAMES),
    rows=st.integers(1, 5),
    width=st.integers(1, 200),
    scale=st.floats(0.01, 30),
    weighted=st.booleans(),
)
def test_loss_and_gradient_are_those_of_the_twin_for_any_shape(name, rows, width, scale, weighted):
    z, y = example(name, rows, width, seed=2, scale=min(scale, 3.0) if name == "gaussian_nll" else scale)
    weight = np.random.default_rng(rows).uniform(0, 3, rows).astype(np.float32) if weighted else None
    assert_agree(name, z, y, sample_weight=weight)


@pytest.mark.parametrize("delta", [0.1, 1.0, 2.5])
def test_huber_is_the_twin_s_for_any_delta(delta):
    delta = float(np.float32(delta))
    z, y = example("huber", 40, 9)
    assert_agree("huber", z, y, delta=delta)
    large, _ = functional.huber(z, y, delta=100.0, return_grad=True)
    assert large == pytest.approx(functional.mse(z, y) / 2, rel=1e-6)


def test_the_kinks_have_the_derivatives_of_the_formulas():
    y = np.zeros((1, 3))
    _, grad = functional.mae([[-2.0, 0.0, 3.0]], y, return_grad=True)
    np.testing.assert_allclose(grad, [[-1 / 3, 0, 1 / 3]], rtol=1e-7)
    _, grad = functional.huber([[-2.0, 0.5, 0.25]], y, delta=0.5, return_grad=True)
    np.testing.assert_allclose(grad, [[-0.5 / 3, 0.5 / 3, 0.25 / 3]], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (300, 11), (700, 67), (3, 20_000)])
def test_the_number_of_threads_changes_no_bit(name, rows, width):
    z, y = example(name, rows, width)
    f = getattr(functional, name)
    weight = np.random.default_rng(1).uniform(0, 2, rows)
    loss, grad = f(z, y, sample_weight=weight, return_grad=True)
    for n_threads in (2, 3, None):
        again, again_grad = f(z, y, sample_weight=weight, return_grad=True, n_threads=n_threads)
        assert again == loss
        assert again_grad.tobytes() == grad.tobytes()


@pytest.mark.parametrize("width", [2, 10, 63, 64, 65, 200])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_rows_side_by_side_have_the_bits_of_rows_alone(width, smoothing):
    """Sixteen rows of few classes are taken as vectors; a row alone is not."""
    z, y = example("cross_entropy", 41, width)
    z[3] *= 50
    z[17, 1] = np.nan
    weight = np.random.default_rng(1).random(41).astype(np.float32)
    _, grad = functional.cross_entropy(z, y, sample_weight=weight, label_smoothing=smoothing, return_grad=True)
    probabilities = functional.softmax(z)
    for row in range(41):
        _, alone = functional.cross_entropy(
            z[[row]], y[[row]], sample_weight=weight[[row]], label_smoothing=smoothing, return_grad=True
        )
        factor = np.float32(np.float64(weight[row]) / 41) / np.float32(weight[row])
        np.testing.assert_allclose(grad[row], alone[0] * factor, rtol=4e-7)  # the mean's factor is another one
        assert functional.softmax(z[[row]])[0].tobytes() == probabilities[row].tobytes()


@pytest.mark.parametrize("width", [2, 10, 64])
def test_blocks_of_sixteen_rows_have_the_bits_of_rows_alone_where_the_factor_is_a_power_of_two(width):
    z, y = example("cross_entropy", 32, width, seed=2)
    _, grad = functional.cross_entropy(z, y, return_grad=True)
    for row in range(32):
        alone = functional.cross_entropy(z[[row]], y[[row]], return_grad=True)[1]
        assert (grad[row] * np.float32(32)).tobytes() == alone[0].tobytes()


def test_right_answers_are_counted_with_the_loss():
    """Rows whose largest output is the label's; for binary targets, elements on the right side of 0."""
    empty, no_floats, no_matrix = np.empty(0, np.int32), np.empty(0, np.float32), np.empty((0, 0), np.float32)
    for rows, width in [(1, 2), (50, 3), (400, 90)]:
        places = np.empty(rows), np.empty(rows, dtype=np.int32)
        z, y = example("cross_entropy", rows, width)
        y[::2] = z.argmax(axis=1)[::2]
        _, right = core.loss(0, 0.0, no_floats, z, y.astype(np.int32), no_matrix, no_floats, no_matrix, *places, 2)
        assert right == (z.argmax(axis=1) == y).sum()
        z, y = example("binary_cross_entropy", rows, width)
        _, right = core.loss(1, 0.0, no_floats, z, empty, y.astype(np.float32), no_floats, no_matrix, *places, 2)
        assert right == ((z > 0) == (y == 1)).sum()


# Sample weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_multiplies_its_row_s_loss_and_the_mean_stays_over_all_rows(name):
    z, y = example(name, 6, 5)
    f = getattr(functional, name)
    alone = np.array([f(z[r : r + 1], y[r : r + 1]) for r in range(6)])
    grads = np.concatenate([f(z[r : r + 1], y[r : r + 1], return_grad=True)[1] for r in range(6)])
    weight = np.array([0.0, 1.0, 2.0, 0.25, 10.0, 3.0])
    loss, grad = f(z, y, sample_weight=weight, return_grad=True)
    assert loss == pytest.approx((weight * alone).sum() / 6, rel=1e-12)
    np.testing.assert_allclose(grad, grads * weight[:, None] / 6, rtol=1e-6, atol=0)
    assert (grad[0] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_one_are_no_weights(name):
    z, y = example(name, 20, 5)
    f = getattr(functional, name)
    loss, grad = f(z, y, return_grad=True)
    for ones in (np.ones(20), [1] * 20):
        again, again_grad = f(z, y, sample_weight=ones, return_grad=True)
        assert again == loss
        assert again_grad.tobytes() == grad.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_zero_leave_nothing(name):
    z, y = example(name, 20, 5)
    loss, grad = getattr(functional, name)(z, y, sample_weight=np.zeros(20), return_grad=True)
    assert loss == 0
    assert (grad == 0).all()


@pytest.mark.parametrize("weight", [[1.0] * 19, [[1.0]] * 20, [-1.0] + [1.0] * 19, [math.nan] * 20, [math.inf] * 20])
def test_weights_that_do_not_fit_are_refused_by_name(weight):
    for name in NAMES:
        z, y = example(name, 20, 5)
        with pytest.raises(ValueError, match="sample_weight"):
            getattr(functional, name)(z, y, sample_weight=weight)


# Label smoothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 0.99])
def test_label_smoothing_shares_the_target_among_all_classes(smoothing):
    z, y = example("cross_entropy", 30, 7)
    assert_agree("cross_entropy", z, y, label_smoothing=smoothing)
    assert_agree("cross_entropy", z, y, label_smoothing=smoothing, sample_weight=np.linspace(0, 2, 30))
    assert_agree("cross_entropy", z + np.float32(32), y, label_smoothing=smoothing)
    every = [functional.cross_entropy(z, np.full(30, label)) for label in range(7)]
    expected = (1 - smoothing) * functional.cross_entropy(z, y) + smoothing * sum(every) / 7
    assert functional.cross_entropy(z, y, label_smoothing=smoothing) == pytest.approx(expected, rel=1e-6)


def test_without_smoothing_the_gradient_is_softmax_minus_the_label():
    z, y = example("cross_entropy", 30, 7)
    _, grad = functional.cross_entropy(z, y, return_grad=True)
    onehot = np.eye(7)[y]
    np.testing.assert_allclose(grad, (functional.softmax(z) - onehot) / 30, rtol=0, atol=2 * EPS / 30)
    assert np.abs(grad.astype(float).sum(axis=1)).max() < 4 * EPS / 30


@pytest.mark.parametrize(
    ("smoothing", "error"),
    [(1.0, ValueError), (-0.1, ValueError), (math.nan, ValueError), ("0.1", TypeError)],
)
def test_a_smoothing_outside_0_to_1_is_refused_by_name(smoothing, error):
    with pytest.raises(error, match="label_smoothing"):
        functional.cross_entropy(np.ones((2, 3)), [0, 1], label_smoothing=smoothing)


@pytest.mark.parametrize(
    ("delta", "error"), [(0.0, ValueError), (-1.0, ValueError), (math.inf, ValueError), (None, TypeError)]
)
def test_a_delta_that_is_not_positive_is_refused_by_name(delta, error):
    with pytest.raises(error, match="delta"):
        functional.huber(np.ones((2, 3)), np.ones((2, 3)), delta=delta)


# Extremes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100.0, 1e4, 1e10, 1e30, LARGEST])
def test_huge_logits_stay_finite(size):
    z = np.array([[size, -size, 0.0], [-size, size, size], [0.0, 0.0, -size], [-size, -size, -size]], dtype=np.float32)
    for label in range(3):
        for smoothing in (0.0, 0.1):
            y = np.full(4, label)
            loss, grad = functional.cross_entropy(z, y, label_smoothing=smoothing, return_grad=True)
            expected, expected_grad = reference.cross_entropy(
                z.astype(float), y, label_smoothing=smoothing, return_grad=True
            )
            assert loss == pytest.approx(expected, rel=1e-6)
            np.testing.assert_allclose(grad, expected_grad, rtol=1e-6, atol=1e-7)
    for target in (0, 1):
        y = np.full((4, 3), target)
        loss, grad = functional.binary_cross_entropy(z, y, return_grad=True)
        expected, expected_grad = reference.binary_cross_entropy(z.astype(float), y, return_grad=True)
        assert loss == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_huge_errors_stay_finite(name):
    z, y = np.array([[1e18, -1e18], [1e30, -1e30]], dtype=np.float32), np.zeros((2, 2))
    assert_agree(name, z, y)


@pytest.mark.parametrize("log_variance", [-80.0, -20.0, 20.0, 80.0, 1000.0])
def test_extreme_variances_stay_finite(log_variance):
    z, y = np.array([[1.5, log_variance], [-0.5, log_variance]], dtype=np.float32), np.array([[1.0], [1.0]])
    loss, grad = functional.gaussian_nll(z, y, return_grad=True)
    expected, expected_grad = reference.gaussian_nll(z.astype(float), y, return_grad=True)
    assert loss == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("log_variance", [-88.0, -90.0, -150.0, -200.0, -1e4, -1e38])
def test_an_exact_prediction_of_tiny_variance_has_a_finite_loss(log_variance):
    """(s + log 2 pi) / 2, where the precision e^-s is beyond float32, or beyond anything."""
    z = np.array([[0.0, log_variance]], dtype=np.float32)
    loss, grad = functional.gaussian_nll(z, [0.0], return_grad=True)
    assert loss == pytest.approx((float(z[0, 1]) + math.log(2 * math.pi)) / 2, rel=1e-7)
    assert grad.tolist() == [[0.0, 0.5]]
    for twin in (z, z.astype(float)):
        expected, expected_grad = reference.gaussian_nll(twin, [0.0], return_grad=True)
        assert loss == pytest.approx(expected, rel=1e-6)
        np.testing.assert_array_equal(grad, expected_grad)


@pytest.mark.parametrize("log_variance", [-170.0, -120.0, -89.0, -88.5, -88.0])
def test_an_error_as_small_as_the_tiny_deviation_counts(log_variance):
    z = np.array([[0.75 * math.exp(log_variance / 2), log_variance]], dtype=np.float32)
    loss, grad = functional.gaussian_nll(z, [0.0], return_grad=True)
    expected, expected_grad = reference.gaussian_nll(z.astype(float), [0.0], return_grad=True)
    assert expected_grad[0, 1] == pytest.approx(0.5 - 0.75**2 / 2, rel=1e-5)
    assert loss == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-5)


def test_huge_errors_of_huge_variance_stay_finite():
    z = np.array([[1e20, 90.0], [-3e30, 120.0]], dtype=np.float32)
    loss, grad = functional.gaussian_nll(z, [0.0, 0.0], return_grad=True)
    expected, expected_grad = reference.gaussian_nll(z.astype(float), [0.0, 0.0], return_grad=True)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_any_place_is_shown_by_the_loss_and_by_its_row_s_gradient(name):
    for place in range(6 if name == "gaussian_nll" else 3):
        z, y = example(name, 4, 3)
        if name == "cross_entropy":
            y[:] = 0
        z[2, place] = math.nan
        loss, grad = getattr(functional, name)(z, y, return_grad=True)
        assert np.isnan(grad[2]).any(), place
        assert np.isfinite(grad[[0, 1, 3]]).all()
        assert math.isnan(loss), place


def test_a_class_that_is_ruled_out_by_minus_infinity_has_probability_0():
    z = np.array([[0.0, -math.inf, 1.0]], dtype=np.float32)
    loss, grad = functional.cross_entropy(z, [0], return_grad=True)
    assert loss == pytest.approx(math.log(1 + math.e), rel=1e-6)
    assert grad[0, 1] == 0
    assert functional.cross_entropy(z, [1]) == math.inf
    assert functional.softmax(z)[0, 1] == 0


# softmax ----------------------------------------------------------------------------------------------------


@given(
    rows=st.integers(0, 4),
    width=st.integers(1, 200),
    scale=st.sampled_from([0.0, 0.1, 1.0, 10.0, 100.0, 1e4, 1e30]),
)
def test_softmax_rows_sum_to_1(rows, width, scale):
    z = (scale * np.random.default_rng(width).normal(size=(rows, width))).astype(np.float32)
    p = functional.softmax(z)
    assert p.dtype == np.float32
    assert p.shape == z.shape
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(p.astype(float).sum(axis=1), 1, rtol=0, atol=1e-6)
    if rows:
        # rounding z - max to float32 costs |z - max| / 2 units in the last place
        expected, away = reference.softmax(z.astype(float)), z.max(axis=1, keepdims=True).astype(float) - z
        assert (np.abs(p - expected) <= (8 + away) * EPS * expected + 1e-37).all()


def test_softmax_does_not_see_a_shift_of_a_row():
    z = np.arange(-5.0, 5.0, dtype=np.float32).reshape(1, -1)
    for shift in (1024.0, -1024.0):
        assert functional.softmax(z + np.float32(shift)).tobytes() == functional.softmax(z).tobytes()


@pytest.mark.parametrize("size", [1e4, LARGEST])
def test_softmax_of_huge_logits_is_the_limit(size):
    z = [[size, -size, 0.0, size]]
    assert functional.softmax(z).tolist() == [[0.5, 0.0, 0.0, 0.5]]


def test_softmax_shows_nan_in_its_row_alone():
    z = np.zeros((3, 4), dtype=np.float32)
    z[1, 2] = math.nan
    assert np.isnan(functional.softmax(z)).tolist() == [[False] * 4, [True] * 4, [False] * 4]


def test_softmax_on_threads_gives_the_same_bits():
    z = np.random.default_rng(0).normal(size=(900, 33)).astype(np.float32)
    p = functional.softmax(z)
    for n_threads in (2, 3, None):
        assert functional.softmax(z, n_threads=n_threads).tobytes() == p.tobytes()


@pytest.mark.parametrize("z", [1.0, [1.0, 2.0], [[[1.0]]]])
def test_logits_that_are_no_matrix_are_refused_by_name(z):
    with pytest.raises(ValueError, match="logits"):
        functional.softmax(z)
    with pytest.raises(ValueError, match="logits"):
        functional.cross_entropy(z, [0])


# What may be passed in --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_every_kind_give_the_same_and_are_not_written(name):
    z, y = example(name, 9, 4)
    z = np.round(2 * z) / 2 + np.float32(0)
    y = np.round(y)
    f = getattr(functional, name)
    loss, grad = f(z, y, return_grad=True)
    locked_z, locked_y = z.copy(), y.copy()
    locked_z.flags.writeable = locked_y.flags.writeable = False
    wide = np.zeros((18, 2 * z.shape[1]), dtype=np.float32)
    wide[::2, ::2] = z
    for given_z in (locked_z, z.astype(float), z.tolist(), np.asfortranarray(z), wide[::2, ::2]):
        for given_y in (locked_y, y.astype(float), y.astype(np.int8), y.tolist(), np.asfortranarray(y)):
            before_z, before_y = np.array(given_z), np.array(given_y)
            again, again_grad = f(given_z, given_y, return_grad=True)
            assert again == loss
            assert again_grad.tobytes() == grad.tobytes()
            np.testing.assert_array_equal(given_z, before_z)
            np.testing.assert_array_equal(given_y, before_y)
    assert not np.shares_memory(functional.softmax(z), z)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "mse", "mae", "huber"])
def test_one_column_of_targets_may_come_flat(name):
    z, y = example(name, 9, 1)
    f = getattr(functional, name)
    assert f(z, y.ravel()) == f(z, y)
    z2, y2 = example("gaussian_nll", 9, 1)
    assert functional.gaussian_nll(z2, y2.ravel()) == functional.gaussian_nll(z2, y2)


def test_cross_entropy_of_a_single_class_is_refused():
    with pytest.raises(ValueError, match="cross_entropy needs"):
        functional.cross_entropy(np.zeros((3, 1)), [0, 0, 0])


def test_one_column_of_labels_may_come_as_a_matrix():
    z, y = example("cross_entropy", 9, 4)
    assert functional.cross_entropy(z, y.reshape(-1, 1)) == functional.cross_entropy(z, y)


@pytest.mark.parametrize(
    "y",
    [
        [0, 1],
        [0, 1, 2, 0],
        [0, 1, 3],
        [0, -1, 2],
        [0, 0.5, 1],
        [0, math.nan, 1],
        [0, math.inf, 1],
        np.eye(3)[:, :2],
        1.5 * np.eye(3),
        -np.eye(3),
        1,
        [],
    ],
    ids=str,
)
def test_labels_that_cannot_be_are_refused_by_name(y):
    with pytest.raises(ValueError, match=r"^y "):
        functional.cross_entropy(np.zeros((3, 3)), y)


@pytest.mark.parametrize("y", [["a", "b", "c"], [1j, 0, 0], [None, 0, 1]])
def test_labels_that_are_no_numbers_are_refused_by_name(y):
    for name in NAMES:
        with pytest.raises(TypeError, match=r"^y "):
            getattr(functional, name)(np.zeros((3, 2)), y)


@pytest.mark.parametrize("y", [[0, 1, 2], [0, 1, 1.0001], [0, 1, -1]])
def test_binary_targets_outside_0_to_1_are_refused_by_name(y):
    with pytest.raises(ValueError, match=r"^y "):
        functional.binary_cross_entropy(np.zeros((3, 1)), y)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "mse", "mae", "huber", "gaussian_nll"])
@pytest.mark.parametrize(
    "y",
    [
        np.zeros(2),
        np.zeros((2, 2)),
        np.zeros((3, 1, 1)),
        np.zeros((3, 3)),
        [0, math.nan, 1],
        [0, math.inf, 1],
        0.0,
    ],
    ids=["short", "few rows", "3-D", "wide", "NaN", "infinity", "scalar"],
)
def test_targets_that_do_not_fit_are_refused_by_name(name, y):
    z = np.zeros((3, 2 if name == "gaussian_nll" else 1))
    with pytest.raises(ValueError, match=r"^y "):
        getattr(functional, name)(z, y)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_of_nothing_is_refused(name):
    for shape in [(0, 2), (2, 0)]:
        with pytest.raises(ValueError, match="empty"):
            getattr(functional, name)(np.zeros(shape), np.zeros(shape[0], dtype=int))


def test_gaussian_nll_wants_two_outputs_a_target():
    with pytest.raises(ValueError, match="gaussian_nll"):
        functional.gaussian_nll(np.zeros((2, 3)), np.zeros((2, 1)))

"""Activations and their gradients against the float64 twins, which are checked against Python's `math`."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cydrop as cd
from cydrop import functional, reference
from cydrop._core import activations as core

EPS, TINY, SMALLEST, LARGEST = 2.0**-23, 2.0**-126, 2.0**-149, float(np.finfo(np.float32).max)

# Errors allowed, as (units in the last place, floor): ulps * 2^-23 * max(|value|, floor). A floor of 1 makes
# it an absolute error, where the formula itself cancels: 1 - tanh^2, s (1 - s), 1 + erf. With 1e-30 results
# that are as good as 0 may become 0, where e^-x overflows.
FORWARD = {
    "relu": (0, TINY),
    "leaky_relu": (1, TINY),
    "elu": (1, TINY),
    "selu": (2, TINY),
    "gelu": (2, 1),
    "silu": (3, 1e-30),
    "tanh": (2, TINY),
    "sigmoid": (2, 1e-30),
    "softplus": (3, TINY),
    "mish": (4, 1e-30),
}
BACKWARD = {
    "relu": (0, TINY),
    "leaky_relu": (1, TINY),
    "elu": (2, TINY),
    "selu": (3, TINY),
    "gelu": (2, 1),
    "silu": (10, 1),
    "tanh": (2, 1),
    "sigmoid": (2, 1),
    "softplus": (2, 1e-30),
    "mish": (10, 1),
}
NAMES = list(FORWARD)


def scalar_elu(x, alpha=1.0):
    return x if x > 0 else alpha * math.expm1(x)


def scalar_sigmoid(x):
    return 1 / (1 + math.exp(-x))


SCALAR = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: max(x, 0.01 * x),
    "elu": scalar_elu,
    "selu": lambda x: 1.0507009873554804934193349852946 * scalar_elu(x, 1.6732632423543772848170429916717),
    "gelu": lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2)),
    "silu": lambda x: x * scalar_sigmoid(x),
    "tanh": math.tanh,
    "sigmoid": scalar_sigmoid,
    "softplus": lambda x: math.log1p(math.exp(x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
}


def both(name):
    return getattr(functional, name), getattr(reference, name)


def both_backward(name):
    return both(name + "_backward")


@pytest.fixture(scope="module")
def sweep():
    """Inputs where activations bend, where they are flat, near 0, and of every size to half the largest."""
    rng = np.random.default_rng(5)
    middle = np.linspace(-110, 110, 60_001)
    scales = np.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST / 2), 60_000)) * rng.choice([-1, 1], 60_000)
    edges = [0.0, -0.0, SMALLEST, -SMALLEST, TINY, -TINY, 1e38, -1e38, 0.625, -0.625, 1.0, -1.0, 2**0.5]
    return np.concatenate([middle, scales, 3 * rng.normal(size=60_000), edges]).astype(np.float32)


def assert_close(got, expected, ulps, floor, scale=1.0):
    assert got.dtype == np.float32
    error = np.abs(got.astype(np.float64) - expected * scale)
    bound = ulps * EPS * np.maximum(np.abs(expected), floor) * np.abs(scale) + SMALLEST * (np.asarray(ulps) > 0)
    wrong = np.flatnonzero(~(error <= bound))
    assert not wrong.size, f"at {wrong[:3]}: {got[wrong[:3]]}, expected {(expected * scale)[wrong[:3]]}"


# The twins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_is_the_formula_that_math_gives(name, rng):
    x = np.concatenate([rng.normal(size=300) * 4, [0.0, 20.0, -20.0, 1e-9, -1e-9]])
    expected = [SCALAR[name](float(v)) for v in x]
    np.testing.assert_allclose(getattr(reference, name)(x), expected, rtol=1e-13, atol=2e-16 * 20)


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_s_gradient_is_the_derivative_of_the_twin(name, rng):
    x = rng.normal(size=2000) * 3
    x = x[np.abs(x) > 1e-3]  # away from the kink
    h = 1e-5
    f, backward = getattr(reference, name), getattr(reference, name + "_backward")
    derivative = (f(x + h) - f(x - h)) / (2 * h)
    np.testing.assert_allclose(backward(np.ones_like(x), x), derivative, rtol=0, atol=2e-9)
    dy = rng.normal(size=x.shape)
    np.testing.assert_allclose(backward(dy, x), dy * derivative, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("name", "options"), [("leaky_relu", (0.2,)), ("elu", (0.5,)), ("elu", (2.0,))])
def test_the_twin_s_gradient_knows_the_options(name, options, rng):
    x = rng.normal(size=500) * 2
    x = x[np.abs(x) > 1e-3]
    f, backward = getattr(reference, name), getattr(reference, name + "_backward")
    derivative = (f(x + 1e-5, *options) - f(x - 1e-5, *options)) / 2e-5
    np.testing.assert_allclose(backward(np.ones_like(x), x, *options), derivative, rtol=0, atol=2e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_stays_in_the_precision_it_is_given(name):
    for given_x, dtype in [
        (np.ones(3), np.float64),
        (np.ones(3, np.float32), np.float32),
        ([1, 2], np.float32),
    ]:
        assert getattr(reference, name)(given_x).dtype == dtype
        assert getattr(reference, name + "_backward")(given_x, given_x).dtype == dtype


# The kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_activation_is_right_to_a_few_units_in_the_last_place(name, sweep):
    f, twin = both(name)
    assert_close(f(sweep), twin(sweep.astype(np.float64)), *FORWARD[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_right_to_a_few_units_in_the_last_place(name, sweep):
    backward, twin = both_backward(name)
    doubles = sweep.astype(np.float64)
    derivative = twin(np.ones_like(doubles), doubles)
    assert_close(backward(np.ones_like(sweep), sweep), derivative, *BACKWARD[name])
    dy = np.random.default_rng(6).normal(size=sweep.shape).astype(np.float32)
    ulps, floor = BACKWARD[name]
    assert_close(backward(dy, sweep), derivative, ulps and ulps + 0.5, floor, scale=dy.astype(np.float64))


@pytest.mark.parametrize(
    ("name", "options"), [("leaky_relu", (0.0,)), ("leaky_relu", (0.3,)), ("elu", (0.3,)), ("elu", (2.5,))]
)
def test_the_options_of_an_activation_are_used(name, options, sweep):
    f, twin = both(name)
    backward, twin_backward = both_backward(name)
    doubles, ones = sweep.astype(np.float64), np.ones_like(sweep)
    assert_close(f(sweep, *options), twin(doubles, *options), 2, TINY)
    assert_close(backward(ones, sweep, *options), twin_backward(ones.astype(np.float64), doubles, *options), 3, TINY)


def test_gelu_keeps_its_relative_precision_where_it_is_nearly_0():
    """1 + erf cancels there, so the truth is erfc; what rounding x^2 does to e^(-x^2 / 2) grows with x^2."""
    x = np.concatenate([np.linspace(-12, 0, 40_001), -np.exp(np.linspace(-80, 0, 2001))]).astype(np.float32)
    expected = np.array([SCALAR["gelu"](float(v)) for v in x])
    assert_close(functional.gelu(x), expected, 8 + x.astype(np.float64) ** 2, TINY)


@given(
    rows=st.integers(0, 3),
    columns=st.integers(1, 200),
    name=st.sampled_from(NAMES),
    scale=st.floats(0.01, 50),
)
def test_every_shape_is_covered_to_its_last_element(rows, columns, name, scale):
    rng = np.random.default_rng(rows * 1000 + columns)
    x, dy = (scale * rng.normal(size=(2, rows, columns))).astype(np.float32)
    f, twin = both(name)
    y = f(x)
    assert y.shape == x.shape
    assert y.flags.c_contiguous
    assert_close(y.ravel(), twin(x.astype(np.float64)).ravel(), *FORWARD[name])
    backward, twin = both_backward(name)
    dx = backward(dy, x)
    derivative = twin(np.ones(x.shape), x.astype(np.float64))
    ulps, floor = BACKWARD[name]
    assert dx.shape == x.shape
    assert_close(dx.ravel(), derivative.ravel(), ulps and ulps + 0.5, floor, scale=dy.astype(np.float64).ravel())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 4096, 4097, 70_001])
def test_the_number_of_threads_changes_no_bit(name, n, rng):
    x, dy = (3 * rng.normal(size=(2, n))).astype(np.float32)
    f, backward = getattr(functional, name), getattr(functional, name + "_backward")
    y, dx = f(x), backward(dy, x)
    for n_threads in (2, 3, None):
        assert f(x, n_threads=n_threads).tobytes() == y.tobytes()
        assert backward(dy, x, n_threads=n_threads).tobytes() == dx.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_an_element_s_result_does_not_depend_on_its_place(name, rng):
    """Vector code and the scalar code of what is left over must give the same bits."""
    values = (4 * rng.normal(size=300)).astype(np.float32)
    f, backward = getattr(functional, name), getattr(functional, name + "_backward")
    together, derivatives = f(values), backward(np.ones_like(values), values)
    for i in range(0, 300, 7):
        assert f(values[i : i + 1]).tobytes() == together[i].tobytes()
        assert backward(np.ones(1), values[i : i + 1]).tobytes() == derivatives[i].tobytes()


# Special values ---------------------------------------------------------------------------------------------

LIMITS = {  # at -infinity and +infinity; None where the formula is infinity times 0
    "relu": (0, math.inf),
    "leaky_relu": (-math.inf, math.inf),
    "elu": (-1, math.inf),
    "selu": (np.float32(-1.0507009873554805 * 1.6732632423543772), math.inf),
    "gelu": (None, math.inf),
    "silu": (None, math.inf),
    "tanh": (-1, 1),
    "sigmoid": (0, 1),
    "softplus": (0, math.inf),
    "mish": (None, math.inf),
}


@pytest.mark.parametrize("name", NAMES)
def test_infinity_gives_the_limit(name):
    low, high = getattr(functional, name)(np.array([-math.inf, math.inf], dtype=np.float32))
    assert high == LIMITS[name][1]
    if LIMITS[name][0] is not None:
        assert low == pytest.approx(LIMITS[name][0], rel=2e-7)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_shown_in_its_place_alone(name):
    x = np.zeros(100, dtype=np.float32)
    x[[0, 17, 99]] = math.nan
    y = getattr(functional, name)(x)
    assert np.flatnonzero(np.isnan(y)).tolist() == [0, 17, 99]
    dy = x.copy()
    dx = getattr(functional, name + "_backward")(dy, np.ones(100))
    assert np.flatnonzero(np.isnan(dx)).tolist() == [0, 17, 99]


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_numbers_overflow_nowhere_on_the_way(name):
    x = np.array([-LARGEST, -1e30, -1e6, -1000, 1000, 1e6, 1e30, LARGEST], dtype=np.float32)
    f, twin = both(name)
    backward, twin_backward = both_backward(name)
    doubles, ones = x.astype(np.float64), np.ones_like(x)
    expected = twin(doubles)
    expected[expected > LARGEST] = math.inf  # selu scales the largest number beyond float32
    np.testing.assert_allclose(f(x), expected, rtol=3e-7, atol=TINY)
    np.testing.assert_allclose(backward(ones, x), twin_backward(ones.astype(np.float64), doubles), rtol=3e-7, atol=TINY)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_below_the_normal_range_are_not_flushed(name):
    x = np.array([SMALLEST, -SMALLEST, 1e-41, -1e-41, 1e-38, -1e-38, 0.0, -0.0], dtype=np.float32)
    f, twin = both(name)
    np.testing.assert_allclose(f(x), twin(x.astype(np.float64)), rtol=1e-6, atol=SMALLEST)
    backward = getattr(functional, name + "_backward")
    if name not in ("relu", "leaky_relu", "elu", "selu"):  # no kink at 0: the derivative there is that at 0
        derivative = float(backward(np.ones(1), np.zeros(1))[0])
        np.testing.assert_allclose(backward(x, np.zeros(8)), x.astype(np.float64) * derivative, atol=SMALLEST)


def test_zero_is_where_it_should_be():
    for name in NAMES:
        at_0 = {"sigmoid": 0.5, "softplus": math.log(2)}.get(name, 0)
        assert getattr(functional, name)([0.0, -0.0]).tolist() == pytest.approx([at_0, at_0], rel=1e-7, abs=0)


def test_at_0_the_rectifiers_have_the_derivative_of_their_left_side():
    for zero in ([0.0], [-0.0]):
        assert functional.relu_backward([1.0], zero) == 0
        assert functional.leaky_relu_backward([1.0], zero, 0.25) == 0.25
        assert functional.elu_backward([1.0], zero, 0.5) == 0.5


# relu -------------------------------------------------------------------------------------------------------


def test_relu_s_gradient_is_the_same_from_its_input_and_from_its_output(rng):
    x, dy = rng.normal(size=(2, 40, 33)).astype(np.float32)
    x[0, :5] = 0
    from_input = functional.relu_backward(dy, x)
    np.testing.assert_array_equal(functional.relu_backward(dy, functional.relu(x)), from_input)
    np.testing.assert_array_equal(from_input, np.where(x > 0, dy, 0))


def test_relu_never_gives_minus_0():
    assert not np.signbit(functional.relu([-0.0, -1.0, -math.inf] * 20)).any()


# exp --------------------------------------------------------------------------------------------------------


def exp(x):
    x = np.asarray(x, dtype=np.float32)
    out = np.empty_like(x)
    core.exponential(x, out)
    return out


def test_exp_is_right_to_one_unit_in_the_last_place():
    x = np.concatenate([np.linspace(-104, 88.72, 300_001), np.linspace(-1e-3, 1e-3, 1001)]).astype(np.float32)
    assert_close(exp(x), np.exp(x.astype(np.float64)), 1, TINY)


def test_exp_ends_where_float32_ends():
    assert exp([0.0, -0.0]).tolist() == [1, 1]
    below = [-104.1, -150, -1000, -1e10, -LARGEST, -math.inf]
    assert exp(below).tolist() == [0] * 6
    above = [88.73, 89, 100, 1000, 1e10, LARGEST, math.inf]
    assert exp(above).tolist() == [math.inf] * 7
    assert math.isfinite(exp([88.72])[0])
    assert exp([-103.9])[0] == np.float32(SMALLEST)
    assert math.isnan(exp([math.nan])[0])


# What may be passed in --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_every_kind_give_the_same_and_are_not_written(name, rng):
    x = np.round(rng.normal(size=(6, 21)) * 4).astype(np.float32) + np.float32(0)
    dy = rng.normal(size=x.shape).astype(np.float32)
    f, backward = getattr(functional, name), getattr(functional, name + "_backward")
    y, dx = f(x), backward(dy, x)
    wide = np.zeros((12, 42), dtype=np.float32)
    wide[::2, ::2] = x
    locked = x.copy()
    locked.flags.writeable = False
    for given_x in (x.astype(float), x.astype(int), x.tolist(), np.asfortranarray(x), wide[::2, ::2], locked):
        before = np.array(given_x)
        assert f(given_x).tobytes() == y.tobytes()
        assert backward(dy, given_x).tobytes() == dx.tobytes()
        np.testing.assert_array_equal(given_x, before)
    dy_before = dy.copy()
    dy.flags.writeable = False
    assert backward(np.asfortranarray(dy), x).tobytes() == dx.tobytes()
    assert not np.shares_memory(backward(dy, x), dy)
    np.testing.assert_array_equal(dy, dy_before)


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_dimensions_will_do(name, rng):
    f, backward = getattr(functional, name), getattr(functional, name + "_backward")
    for shape in [(), (0,), (3, 0, 2), (2, 3, 4, 5)]:
        x = rng.normal(size=shape).astype(np.float32)
        assert f(x).shape == backward(x, x).shape == shape
        assert f(x).ravel().tolist() == f(x.ravel()).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_backward_refuses_shapes_that_differ(name):
    with pytest.raises(ValueError, match="dy and x"):
        getattr(functional, name + "_backward")(np.ones((2, 3)), np.ones((3, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_array_of_numbers_is_refused_by_name(name):
    f, backward = getattr(functional, name), getattr(functional, name + "_backward")
    for bad in ([1j], ["a"], [None]):
        with pytest.raises(TypeError, match="x must be"):
            f(bad)
        with pytest.raises(TypeError, match="dy must be"):
            backward(bad, [1.0])
    with pytest.raises(ValueError, match="n_threads"):
        f([1.0], n_threads=0)


@pytest.mark.parametrize(("name", "option"), [("leaky_relu", "negative_slope"), ("elu", "alpha")])
def test_an_option_that_is_no_number_is_refused_by_name(name, option):
    for bad in ("steep", None):
        with pytest.raises(TypeError, match=option):
            getattr(functional, name)([1.0], **{option: bad})
        with pytest.raises(TypeError, match=option):
            getattr(functional, name + "_backward")([1.0], [1.0], **{option: bad})


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu"])
def test_a_network_s_gradient_has_the_bits_of_the_function_s(name):
    """Also where it comes from the value that the forward pass left, and where dropout has changed that."""
    rng = np.random.default_rng(0)
    for rate in (0.0, 0.5):
        net = cd.Network([cd.Dense(300, activation=name), cd.Dropout(rate), cd.Dense(7)], loss="mse", seed=0)
        x, dy = rng.standard_normal((1, 20)).astype("f4"), rng.standard_normal((1, 7)).astype("f4")
        net.build(20).forward(x, training=True)
        net.backward(dy)
        arrays = net.parameters()
        z = functional.dense(x, arrays["0.weight"], arrays["0.bias"])
        dh = functional.dense_backward(dy, z, arrays["2.weight"])[0]
        if rate:
            dh = np.where(net.masks()[0], dh * np.float32(2), np.float32(0))
        dz = getattr(functional, f"{name}_backward")(dh, z)
        np.testing.assert_array_equal(net.gradients()["0.bias"], dz[0])

"""The dense product: its error against float64, and every bit against a chain of fused multiply-adds."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cydrop as cd
from cydrop import functional, reference

FUSED = cd.show_config()["fused_multiply_add"]
HALF_ULP = 2.0**-24

# (rows, inputs, units): edges of register tiles (4, 6, 8, 12 rows; 2, 8, 16, 32 columns) and of blocks over
# the inputs (256 deep), products large enough for threads (600,000 multiply-adds), tall, wide and deep ones
SHAPES = [
    (1, 1, 1),
    (1, 7, 3),
    (5, 1, 31),
    (11, 12, 15),
    (12, 16, 32),
    (13, 17, 33),
    (24, 31, 64),
    (25, 33, 65),
    (3, 255, 10),
    (7, 256, 31),
    (7, 257, 47),
    (13, 511, 16),
    (6, 512, 33),
    (14, 513, 9),
    (2, 1100, 5),
    (300, 64, 10),
    (1, 784, 1030),
    (4, 3, 2100),
    (97, 301, 103),
    (700, 30, 41),
]
SHAPE_NAMES = ["x".join(map(str, shape)) for shape in SHAPES]


def example(rows, inputs, units, seed=0):
    """x, weight, bias, dy"""
    rng = np.random.default_rng([seed, rows, inputs, units])
    shapes = (rows, inputs), (inputs, units), (units,), (rows, units)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


# A fused multiply-add in NumPy, and the same in exact arithmetic --------------------------------------------


def fma(a, b, c):
    """a b + c of float32 arrays, rounded once.

    In float64 the product is exact. The sum is not always, and rounding it a second time to float32 could go
    wrong where the first rounding made a tie; rounded to odd (Boldo and Melquiond 2008) it cannot.
    """
    product, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, dtype=np.float64)
    total = np.asarray(product + c)
    back = total - product
    lost = (product - (total - back)) + (c - back)
    even = total.view(np.int64) % 2 == 0
    toward = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where((lost != 0) & even, toward, total).astype(np.float32)


def multiply_add(a, b, c):
    return fma(a, b, c) if FUSED else np.multiply(a, b, dtype=np.float32) + c


def chain(a, b):
    """a b, every element one chain over k = 0, 1, 2, ... from 0."""
    total = np.zeros((a.shape[0], b.shape[1]), dtype=np.float32)
    for k in range(a.shape[1]):
        total = multiply_add(a[:, k, None], b[None, k], total)
    return total


def rounded(x):
    """A Fraction to the nearest float32, ties to even."""
    if x == 0:
        return 0.0
    exponent = -149
    while abs(x) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    return float(round(x / Fraction(2) ** exponent) * Fraction(2) ** exponent)


def exact_multiply_add(a, b, c):
    a, b, c = Fraction(float(a)), Fraction(float(b)), Fraction(float(c))
    return rounded(a * b + c) if FUSED else rounded(Fraction(rounded(a * b)) + c)


def exact_chain(row, column):
    total = 0.0
    for a, b in zip(row, column, strict=True):
        total = exact_multiply_add(a, b, total)
    return total


def test_the_multiply_add_of_this_file_rounds_once():
    a, b, c = np.random.default_rng(0).normal(size=(3, 1500)).astype(np.float32)
    c[:500] = -a[:500] * b[:500]  # cancels to the last places
    c[500:1000] *= np.float32(2) ** np.random.default_rng(1).integers(-40, 40, 500).astype(np.float32)
    assert multiply_add(a, b, c).tolist() == [exact_multiply_add(*three) for three in zip(a, b, c, strict=True)]
    assert fma(*TIE) == np.float32(1 + 2.0**-23)


# 4097 * 16773121 = 2^36 + 1, so a b + c = 1 + 2^-24 + 2^-60: above the tie between two float32, but by so
# little that product and sum rounded one after the other do not see it, in float32 or in float64
TIE = np.float32(4097 * 2.0**-30), np.float32(16773121 * 2.0**-30), np.float32(1)


# Against the chain ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_NAMES)
def test_every_output_is_one_ordered_chain_of_multiply_adds(shape):
    x, weight, bias, _ = example(*shape)
    expected = chain(x, weight)
    np.testing.assert_array_equal(functional.dense(x, weight), expected)
    np.testing.assert_array_equal(functional.dense(x, weight, bias), expected + bias)


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_NAMES)
def test_every_gradient_is_one_ordered_chain_of_multiply_adds(shape):
    x, weight, _, dy = example(*shape)
    dx, dweight, dbias = functional.dense_backward(dy, x, weight)
    np.testing.assert_array_equal(dx, chain(dy, weight.T))
    np.testing.assert_array_equal(dweight, chain(x.T, dy))
    total = np.zeros(shape[2], dtype=np.float32)
    for row in dy:
        total = total + row
    np.testing.assert_array_equal(dbias, total)


@pytest.mark.parametrize(("rows", "units"), [(1, 1), (13, 33)])
def test_products_are_fused_where_the_machine_can(rows, units):
    a, b, one = TIE
    expected = 1 + 2.0**-23 if FUSED else 1
    left, right = np.tile([one, a], (rows, 1)), np.tile([[one], [b]], (1, units))
    assert (functional.dense(left, right) == expected).all()
    dx, _, _ = functional.dense_backward(left, np.ones((rows, units)), right.T)
    assert (dx == expected).all()
    _, dweight, _ = functional.dense_backward(right, left.T, np.ones((rows, units)))
    assert (dweight == expected).all()


@pytest.mark.parametrize("shape", [(5, 40, 7), (2, 300, 33), (3, 600, 5)])
def test_single_elements_are_right_in_exact_arithmetic(shape):
    x, weight, _, dy = example(*shape, seed=1)
    y = functional.dense(x, weight)
    dx, dweight, _ = functional.dense_backward(dy, x, weight)
    for r, i, j in [(0, 0, 0), (shape[0] - 1, shape[1] - 1, shape[2] - 1), (1, 17, 3)]:
        assert y[r, j] == exact_chain(x[r], weight[:, j])
        assert dx[r, i] == exact_chain(dy[r], weight[i])
        assert dweight[i, j] == exact_chain(x[:, i], dy[:, j])


@given(rows=st.integers(1, 30), inputs=st.integers(1, 200), units=st.integers(1, 200))
def test_all_widths_give_the_chain(rows, inputs, units):
    x, weight, bias, dy = example(rows, inputs, units)
    np.testing.assert_array_equal(functional.dense(x, weight, bias), chain(x, weight) + bias)
    dx, dweight, _ = functional.dense_backward(dy, x, weight)
    np.testing.assert_array_equal(dx, chain(dy, weight.T))
    np.testing.assert_array_equal(dweight, chain(x.T, dy))


# Against float64 --------------------------------------------------------------------------------------------


def assert_product(got, a, b, bias=0.0):
    """Within the bound of any order of additions: (depth + 1) half units of the sum of absolute products."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = (a.shape[1] + 1) * HALF_ULP * (np.abs(a) @ np.abs(b) + np.abs(bias)) * 1.001
    roundings = 1 if FUSED else 2
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert (np.abs(got - (a @ b + bias)) <= roundings * bound).all()


@pytest.mark.parametrize("shape", [*SHAPES, (300, 700, 500), (513, 1025, 130)], ids=str)
def test_products_are_right_to_float32_rounding(shape):
    x, weight, bias, dy = example(*shape)
    assert_product(functional.dense(x, weight), x, weight)
    assert_product(functional.dense(x, weight, bias), x, weight, bias.astype(float))
    dx, dweight, dbias = functional.dense_backward(dy, x, weight)
    assert_product(dx, dy, weight.T)
    assert_product(dweight, x.T, dy)
    assert_product(dbias[None], np.ones((1, shape[0])), dy)


@given(
    rows=st.integers(0, 3),
    inputs=st.integers(1, 200),
    units=st.integers(1, 200),
    scale=st.sampled_from([1e-12, 1, 1e15]),
)
def test_few_rows_and_any_scale_are_right_too(rows, inputs, units, scale):
    x, weight, bias, dy = (np.float32(scale) * part for part in example(rows, inputs, units, seed=2))
    assert_product(functional.dense(x, weight, bias), x, weight, bias.astype(float))
    dx, dweight, dbias = functional.dense_backward(dy, x, weight)
    assert_product(dx, dy, weight.T)
    assert_product(dweight, x.T, dy)
    assert_product(dbias[None], np.ones((1, rows)), dy)


def test_whole_numbers_are_exact():
    rng = np.random.default_rng(0)
    x, weight, bias = (
        rng.integers(-9, 10, (40, 300)),
        rng.integers(-9, 10, (300, 70)),
        rng.integers(-9, 10, 70),
    )
    dy = rng.integers(-9, 10, (40, 70))
    np.testing.assert_array_equal(functional.dense(x, weight, bias), x @ weight + bias)
    for got, expected in zip(
        functional.dense_backward(dy, x, weight), (dy @ weight.T, x.T @ dy, dy.sum(axis=0)), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_the_twin_s_gradients_are_the_derivatives_of_the_twin():
    """y is linear in x, in weight and in bias: a difference quotient of any width is the derivative."""
    x, weight, bias, dy = (part.astype(float) for part in example(4, 6, 5))
    parts = [x, weight, bias]
    for which, grad in enumerate(reference.dense_backward(dy, x, weight)):
        for place in np.ndindex(parts[which].shape):
            moved = [part.copy() for part in parts]
            moved[which][place] += 1.0
            quotient = (dy * (reference.dense(*moved) - reference.dense(*parts))).sum()
            assert grad[place] == pytest.approx(quotient, rel=1e-10, abs=1e-10)


# Threads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        (3, 5, 4),
        (97, 301, 203),
        (2001, 64, 10),
        (10, 64, 2001),
        (1, 784, 1030),
        (130, 1030, 33),
        (128, 128, 128),
    ],
)
def test_the_number_of_threads_changes_no_bit(shape):
    x, weight, bias, dy = example(*shape)
    y = functional.dense(x, weight, bias)
    gradients = functional.dense_backward(dy, x, weight)
    for n_threads in (2, 3, 5, None):
        assert functional.dense(x, weight, bias, n_threads=n_threads).tobytes() == y.tobytes()
        for again, grad in zip(functional.dense_backward(dy, x, weight, n_threads=n_threads), gradients, strict=True):
            assert again.tobytes() == grad.tobytes()


def test_a_row_s_result_does_not_depend_on_the_other_rows():
    x, weight, bias, dy = example(40, 300, 37)
    y, dx = functional.dense(x, weight, bias), functional.dense_backward(dy, x, weight)[0]
    for rows in (slice(0, 1), slice(3, 16), slice(27, 40)):
        assert functional.dense(x[rows], weight, bias).tobytes() == y[rows].tobytes()
        assert functional.dense_backward(dy[rows], x[rows], weight)[0].tobytes() == dx[rows].tobytes()


# Empty shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "inputs", "units"), [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 4), (2, 0, 0), (0, 0, 0)]
)
def test_empty_products_have_the_shapes_and_sums_of_numpy(rows, inputs, units):
    x, weight, bias, dy = example(rows, inputs, units)
    for with_bias in (None, bias):
        y = functional.dense(x, weight, with_bias)
        expected = reference.dense(x, weight, with_bias)
        assert y.shape == expected.shape == (rows, units)
        np.testing.assert_array_equal(y, expected)
    gradients = functional.dense_backward(dy, x, weight)
    for got, expected in zip(gradients, reference.dense_backward(dy, x, weight), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-6)


# NaN and infinity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_rows_and_columns(bad):
    """Panels are padded with zeros, and 0 times infinity is NaN: it must not reach what is stored."""
    for rows, inputs, units in [(13, 17, 33), (5, 300, 7)]:
        x, weight, bias, dy = example(rows, inputs, units)
        x[2, 3] = bad
        y = functional.dense(x, weight, bias)
        assert not np.isfinite(y[2]).any()
        assert np.isfinite(np.delete(y, 2, axis=0)).all()
        dx, dweight, dbias = functional.dense_backward(dy, x, weight)
        assert not np.isfinite(dweight[3]).any()
        assert np.isfinite(np.delete(dweight, 3, axis=0)).all()
        assert np.isfinite(dx).all()
        assert np.isfinite(dbias).all()

        x, weight, bias, dy = example(rows, inputs, units)
        dy[1, units - 1] = bad
        dx, dweight, dbias = functional.dense_backward(dy, x, weight)
        assert not np.isfinite(dx[1]).any()
        assert np.isfinite(np.delete(dx, 1, axis=0)).all()
        assert not np.isfinite(dweight[:, -1]).any()
        assert np.isfinite(dweight[:, :-1]).all()
        assert np.isfinite(dbias).tolist() == [True] * (units - 1) + [False]


# What may be passed in --------------------------------------------------------------------------------------


def variants(a):
    locked = a.copy()
    locked.flags.writeable = False
    wide = np.zeros([2 * n for n in a.shape], dtype=np.float32)
    strided = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    strided[...] = a
    return {
        "float64": a.astype(float),
        "list": a.tolist(),
        "Fortran": np.asfortranarray(a),
        "strided": strided,
        "read-only": locked,
        "byte-swapped": a.astype(a.dtype.newbyteorder()),
    }


@pytest.mark.parametrize("kind", ["float64", "list", "Fortran", "strided", "read-only", "byte-swapped"])
def test_arrays_of_every_kind_give_the_same_and_are_not_written(kind):
    x, weight, bias, dy = example(7, 19, 5)
    y, gradients = functional.dense(x, weight, bias), functional.dense_backward(dy, x, weight)
    other_x, other_weight, other_bias, other_dy = (variants(part)[kind] for part in (x, weight, bias, dy))
    assert functional.dense(other_x, other_weight, other_bias).tobytes() == y.tobytes()
    for again, grad in zip(functional.dense_backward(other_dy, other_x, other_weight), gradients, strict=True):
        assert again.tobytes() == grad.tobytes()
    for other, part in zip((other_x, other_weight, other_bias, other_dy), (x, weight, bias, dy), strict=True):
        np.testing.assert_array_equal(other, part)


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [
        ((3, 4), (5, 2), None),
        ((4,), (4, 2), None),
        ((3, 4), (4,), None),
        ((2, 3, 4), (4, 2), None),
        ((3, 4), (4, 2), (3,)),
        ((3, 4), (4, 2), (1, 2)),
        ((3, 4), (4, 2), ()),
        ((3, 4), (4, 2), (0,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(x, weight, bias):
    complaint = "bias must have shape" if bias is not None else "x .* and weight .* do not fit"
    with pytest.raises(ValueError, match=complaint):
        functional.dense(np.ones(x), np.ones(weight), None if bias is None else np.ones(bias))


@pytest.mark.parametrize(
    ("dy", "x", "weight"),
    [((3, 2), (3, 4), (2, 4)), ((2, 2), (3, 4), (4, 2)), ((3, 2), (3, 5), (4, 2)), ((2,), (3, 4), (4, 2))],
)
def test_gradients_of_shapes_that_do_not_fit_are_refused_by_name(dy, x, weight):
    with pytest.raises(ValueError, match=r"dy .* x .* weight .* do not fit"):
        functional.dense_backward(np.ones(dy), np.ones(x), np.ones(weight))


@pytest.mark.parametrize("bad", [[[1j]], [["a"]], [[None]]])
def test_what_is_no_array_of_numbers_is_refused_by_name(bad):
    one = [[1.0]]
    for arguments, name in [((bad, one), "x"), ((one, bad), "weight"), ((one, one, bad[0]), "bias")]:
        with pytest.raises(TypeError, match=f"{name} must be"):
            functional.dense(*arguments)
    for arguments, name in [((bad, one, one), "dy"), ((one, bad, one), "x"), ((one, one, bad), "weight")]:
        with pytest.raises(TypeError, match=f"{name} must be"):
            functional.dense_backward(*arguments)
    with pytest.raises(ValueError, match="n_threads"):
        functional.dense(one, one, n_threads=0)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (128, 50), (25, 33), (700, 1000)])
def test_a_single_unit_has_the_bits_of_one_among_several(shape, n_threads):
    """Its gradients come on ways of their own."""
    rows, inputs = shape
    rng = np.random.default_rng(rows)
    x, weight, dy = (rng.standard_normal(size).astype(np.float32) for size in (shape, (inputs, 2), (rows, 2)))
    dy[rng.random(dy.shape) < 0.3] = -0.0
    weight[rng.random(weight.shape) < 0.3] = -0.0
    dx, dweight, dbias = functional.dense_backward(dy[:, :1], x, weight[:, :1], n_threads=n_threads)
    _, both, biases = functional.dense_backward(dy, x, weight, n_threads=n_threads)
    np.testing.assert_array_equal(dweight.view(np.int32), both[:, :1].copy().view(np.int32))
    np.testing.assert_array_equal(dbias.view(np.int32), biases[:1].view(np.int32))
    chain = dy[:, :1] * weight[:, 0] + np.float32(0)  # which begins with +0
    np.testing.assert_array_equal(dx.view(np.int32), chain.view(np.int32))

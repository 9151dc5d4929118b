"""Dropout on arrays: the mask's definition, its statistics, and what is done with it."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cydrop as cd
from cydrop import functional, reference
from cydrop._base import seeding
from cydrop._core import dropout as kernel

RATES = [0.0, 1e-9, 0.001, 1 / 256, 0.1, 0.25, 0.3, 77 / 256, 0.5, 0.7, 255 / 256, 0.999, 1 - 1e-9, 1.0]
SIZES = [0, 1, 2, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 3 * 4096 + 5]
M64 = 2**64 - 1


def drawn_mask(n, rate, seed, n_threads=1):
    return functional.dropout(np.ones(n), rate, seed=seed, return_mask=True, n_threads=n_threads)[1]


def same_bits(a, b):
    """Equal to the sign of zero and the payload of NaN."""
    return a.dtype == b.dtype == np.float32 and a.shape == b.shape and (a.view(np.uint32) == b.view(np.uint32)).all()


# The definition of the mask: 16 lanes of xorshift128+ a block of 4,096 -----------------


def slow_mix64(z):
    """SplitMix64's output function after one step of its counter."""
    z = (z + 0x9E3779B97F4A7C15) & M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
    return z ^ (z >> 31)


def slow_words(key, block):
    """The words of one block, without end: lane 0, 1, ... 15, then lane 0 again."""
    lanes = []
    for lane in range(16):
        step = 0x9E3779B97F4A7C15 * (16 * block + lane)
        lanes.append([slow_mix64((key[0] + step) & M64), slow_mix64((key[1] + step) & M64) | 1])
    while True:
        for lane in lanes:
            x, y = lane
            yield (x + y) & M64
            x = (x ^ (x << 23)) & M64
            lane[0], lane[1] = y, x ^ y ^ (x >> 18) ^ (y >> 5)


def slow_mask(key, n, rate):
    """Slice j of a block's words, of 8 bits where that is exact, else of 16, decides on element j; a tie is broken
    by the block's second generator."""
    threshold = min(math.floor((1 - rate) * 2**32 + 0.5), 2**32 - 1)
    bits = 16 if threshold % 2**24 else 8
    top, low = threshold >> (32 - bits), threshold & 0xFFFF
    keep = []
    for block in range(-(-n // 4096)):
        words, second = slow_words(key, block), slow_words((key[0] ^ M64, key[1] ^ M64), block)
        for _ in range(4096 * bits // 64):
            word = next(words)
            for piece in [word >> shift & (2**bits - 1) for shift in range(0, 64, bits)]:
                tie = bits == 16 and piece == top
                keep.append(next(second) >> 48 < low if tie else piece < top)
    return keep[:n]


@pytest.mark.parametrize("rate", [1e-9, 0.001, 0.25, 0.3, 77 / 256, 0.5, 0.999])
@pytest.mark.parametrize("seed", [0, 12345])
def test_the_mask_is_what_its_definition_says(rate, seed):
    key = tuple(int(word) for word in np.random.SeedSequence(seed).generate_state(2, np.uint64))
    expected = slow_mask(key, 2 * 4096 + 300, rate)
    assert reference.keep_mask(key, len(expected), rate).tolist() == expected
    assert drawn_mask(len(expected), rate, seed).tolist() == expected


@pytest.mark.parametrize("rate", [0.3, 1 - 2**-17, 1e-6])
def test_ties_are_broken_as_in_the_twin(rate):
    """One element in 65,536 needs more than 16 bits: 3 million have some 45 of them."""
    n, seed = 3_000_000, 5
    key = tuple(int(word) for word in np.random.SeedSequence(seed).generate_state(2, np.uint64))
    expected = reference.keep_mask(key, n, rate)
    for threads in (1, 2):
        np.testing.assert_array_equal(drawn_mask(n, rate, seed, threads), expected)
    y = functional.dropout(np.ones(n, dtype=np.float32), rate, seed=seed)
    np.testing.assert_array_equal(y > 0, expected)


def test_the_key_of_a_layer_and_step_is_two_rounds_of_splitmix():
    key, layer, step = (M64 - 1, 17), 3, 1000
    expected = tuple(slow_mix64((slow_mix64((half + layer) & M64) + step) & M64) for half in key)
    assert reference.stream_key(key, layer, step) == expected


def test_the_masks_of_seed_0_never_change():
    hexadecimal = {}
    for rate in (0.3, 0.5):
        hexadecimal[rate] = np.packbits(drawn_mask(5000, rate, 0)[-64:]).tobytes().hex()
    assert hexadecimal == GOLDEN_MASKS


# Against the twin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
@pytest.mark.parametrize("rate", RATES)
def test_dropout_is_its_twin_to_the_bit_at_every_size(rate, mode, rng):
    for n in SIZES:
        x = rng.normal(size=n).astype(np.float32)
        y, mask = functional.dropout(x, rate, mode=mode, seed=n, return_mask=True)
        expected_y, expected_mask = reference.dropout(x, rate, mode=mode, seed=n, return_mask=True)
        assert mask.dtype == np.bool_
        assert (mask == expected_mask).all()
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, expected_y)
        # without return_mask another kernel runs, which draws and applies in one pass
        np.testing.assert_array_equal(functional.dropout(x, rate, mode=mode, seed=n), expected_y)
        dx = functional.dropout_backward(x, mask, rate, mode)
        np.testing.assert_array_equal(dx, reference.dropout_backward(x, mask, rate, mode))


@given(
    rows=st.integers(0, 3),
    columns=st.integers(1, 200),
    rate=st.floats(0, 1),
    mode=st.sampled_from(["inverted", "vanilla"]),
    seed=st.integers(0, 2**64),
)
def test_dropout_is_its_twin_for_any_shape_rate_and_seed(rows, columns, rate, mode, seed):
    x = np.random.default_rng(rows * 200 + columns).normal(size=(rows, columns)).astype(np.float32)
    y, mask = functional.dropout(x, rate, mode=mode, seed=seed, return_mask=True)
    expected_y, expected_mask = reference.dropout(x, rate, mode=mode, seed=seed, return_mask=True)
    expected_dx = reference.dropout_backward(x, mask, rate, mode)
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(functional.dropout(x, rate, mode=mode, seed=seed), expected_y)
    np.testing.assert_array_equal(functional.dropout_backward(x, mask, rate, mode), expected_dx)


@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (5, 7), (2, 3, 129), (4, 1, 3, 11)])
def test_any_number_of_dimensions_has_the_mask_of_its_elements_in_c_order(shape, rng):
    x = rng.normal(size=shape).astype(np.float32)
    y, mask = functional.dropout(x, 0.3, seed=1, return_mask=True)
    assert y.shape == mask.shape == shape
    assert (mask.ravel() == drawn_mask(x.size, 0.3, 1)).all()
    np.testing.assert_array_equal(y, reference.dropout(x, 0.3, seed=1))
    assert functional.dropout_backward(x, mask, 0.3).shape == shape


@pytest.mark.parametrize("rate", [0.001, 0.25, 0.3, 0.5, 0.999])
def test_the_mask_of_few_elements_is_the_beginning_of_the_mask_of_many(rate):
    longest = drawn_mask(20_000, rate, 8)
    for n in [*SIZES, 8191, 8192, 8193]:
        assert (drawn_mask(n, rate, 8) == longest[:n]).all()


PARTS = [
    (0, 1), (1, 2), (63, 66), (127, 4095), (4095, 4097), (4096, 8192), (5001, 9003), (8191, 20_000), (19_999, 20_000),
]  # fmt: skip


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.25, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize(("first", "end"), PARTS)
def test_a_part_of_a_mask_is_that_part_of_the_whole(rate, first, end):
    """As the rows of a batch that several processes share: drawn from the beginning of the block on."""
    key, place, n = (5, 6), first % 4096, end - first
    expected = reference.keep_mask(key, 20_000, rate)[first:end]
    for n_threads in (1, 3):
        bits = np.zeros(kernel.words_of(place + n), dtype=np.uint64)
        kernel.mask(bits, n, rate, *key, n_threads, first)
        kept = np.empty(place + n, dtype=np.uint8)
        kernel.unpack(bits, kept)
        np.testing.assert_array_equal(kept[place:], expected)


@given(st.integers(0, 12_000), st.integers(1, 9000), st.sampled_from([0.5, 0.3, 1 - 2**-17]))
def test_any_part_of_a_mask_is_that_part_of_the_whole(first, n, rate):
    bits = np.zeros(kernel.words_of(first % 4096 + n), dtype=np.uint64)
    kernel.mask(bits, n, rate, 7, 8, 2, first)
    kept = np.empty(first % 4096 + n, dtype=np.uint8)
    kernel.unpack(bits, kept)
    np.testing.assert_array_equal(kept[first % 4096 :], reference.keep_mask((7, 8), first + n, rate)[first:])


def test_a_higher_rate_keeps_a_subset():
    """All rates read the same random bytes, so a schedule changes few elements from step to step."""
    masks = [drawn_mask(20_000, k / 256, 3) for k in range(1, 256, 6)]
    for lower, higher in itertools.pairwise(masks):
        assert not (higher & ~lower).any()


@pytest.mark.parametrize("n", [1, 4096, 4097, 100_003])
@pytest.mark.parametrize("rate", [0.25, 0.3])
def test_the_number_of_threads_changes_no_bit(n, rate, rng):
    x = rng.normal(size=n).astype(np.float32)
    alone = functional.dropout(x, rate, seed=5)
    for n_threads in (2, 3, None):
        assert same_bits(functional.dropout(x, rate, seed=5, n_threads=n_threads), alone)
        y, mask = functional.dropout(x, rate, seed=5, return_mask=True, n_threads=n_threads)
        assert same_bits(y, alone)
        assert (mask == drawn_mask(n, rate, 5)).all()
        assert same_bits(functional.dropout(x, rate, mask=mask, n_threads=n_threads), alone)


# What is done with the mask ---------------------------------------------------------------------------------


def test_what_is_kept_is_scaled_up_in_inverted_mode_and_kept_in_vanilla_mode(rng):
    x = rng.normal(size=(50, 60)).astype(np.float32)
    for rate in (0.2, 0.5, 0.7):
        scaled, mask = functional.dropout(x, rate, seed=2, return_mask=True)
        plain = functional.dropout(x, rate, mode="vanilla", seed=2)
        np.testing.assert_array_equal(plain, np.where(mask, x, 0))
        np.testing.assert_array_equal(scaled, np.where(mask, x * np.float32(1 / (1 - rate)), 0))


def test_outside_training_inverted_mode_is_the_identity_and_vanilla_mode_scales(rng):
    x = rng.normal(size=(7, 9)).astype(np.float32)
    for rate in RATES:
        y, mask = functional.dropout(x, rate, training=False, return_mask=True)
        assert same_bits(y, x)
        assert mask.all()
        vanilla = functional.dropout(x, rate, mode="vanilla", training=False)
        np.testing.assert_array_equal(vanilla, x * np.float32(1 - rate))
        np.testing.assert_array_equal(vanilla, reference.dropout(x, rate, mode="vanilla", training=False))


def test_training_and_testing_agree_on_average(rng):
    x = np.float32(1.75)
    n, rate = 1_000_000, 0.3
    for mode in ("inverted", "vanilla"):
        trained = functional.dropout(np.full(n, x), rate, mode=mode, seed=10).astype(float)
        tested = functional.dropout(x, rate, mode=mode, training=False)
        assert abs(trained.mean() - tested) < 4.5 * trained.std() / math.sqrt(n)


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_rate_0_is_the_identity_to_the_bit(mode):
    special = [0.0, -0.0, 1e-45, -1e-45, 1e-39, 3.4e38, -3.4e38, np.inf, -np.inf, 1 / 3]
    x = np.array(special * 20, dtype=np.float32)
    y, mask = functional.dropout(x, 0.0, mode=mode, return_mask=True)
    assert same_bits(y, x)
    assert mask.all()
    assert same_bits(functional.dropout(x, 0, mode=mode), x)
    assert same_bits(functional.dropout_backward(x, mask, 0.0, mode), x)


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_rate_1_is_zero_everywhere_and_never_nan(mode):
    x = np.array([1.0, -1.0, 0.0, 3.4e38, np.inf, -np.inf, np.nan] * 30, dtype=np.float32)
    y, mask = functional.dropout(x, 1.0, mode=mode, return_mask=True)
    assert (y == 0).all()
    assert not mask.any()
    assert (functional.dropout(x, 1, mode=mode) == 0).all()
    assert (functional.dropout_backward(x, mask, 1.0, mode) == 0).all()


@pytest.mark.parametrize("seed_type", [int, np.random.default_rng])
def test_rates_0_and_1_draw_nothing(seed_type):
    seed = seed_type(4)
    for rate in (0.0, 1.0):
        functional.dropout(np.ones(10), rate, seed=seed)
        functional.dropout(np.ones(10), rate, seed=seed, return_mask=True)
    np.testing.assert_array_equal(drawn_mask(500, 0.3, seed), drawn_mask(500, 0.3, seed_type(4)))


def test_nan_and_infinity_that_are_kept_are_shown_and_that_are_dropped_are_gone():
    x = np.array([np.nan, np.inf, -np.inf] * 100, dtype=np.float32)
    y, mask = functional.dropout(x, 0.3, seed=0, return_mask=True)
    assert 0 < mask.sum() < 300
    np.testing.assert_array_equal(y[mask], x[mask])
    assert (y[~mask] == 0).all()


def test_dropped_elements_get_no_gradient_and_kept_ones_the_scale_of_the_forward_pass(rng):
    x, dy = rng.normal(size=(2, 30, 70)).astype(np.float32)
    for rate, mode in [(0.2, "inverted"), (0.7, "inverted"), (0.2, "vanilla")]:
        y, mask = functional.dropout(x, rate, mode=mode, seed=6, return_mask=True)
        dx = functional.dropout_backward(dy, mask, rate, mode)
        assert (dx[~mask] == 0).all()
        # the forward pass is linear, y = s x, and so dx = s dy
        np.testing.assert_allclose(dx.astype(float) * x, dy.astype(float) * y, rtol=3e-7)
        assert np.count_nonzero(dx) == mask.sum()


@pytest.mark.parametrize("n", [1, 63, 64, 65, 4095, 4097, 20000])
def test_the_gradient_goes_where_out_says_on_any_number_of_threads(n, rng):
    dy, mask = rng.normal(size=n).astype(np.float32), rng.random(n) < 0.4
    expected = np.where(mask, dy * np.float32(1 / 0.7), np.float32(0))
    for n_threads in (1, 2, 3):
        out = np.full(n + 40, np.nan, dtype=np.float32)[:n]
        assert functional.dropout_backward(dy, mask, 0.3, out=out, n_threads=n_threads) is out
        assert same_bits(out, expected)
        assert np.isnan(out.base[n:]).all()
    assert same_bits(functional.dropout_backward(dy, mask, 0.3, out=dy), expected)
    with pytest.raises(ValueError, match="out must be"):
        functional.dropout_backward(dy, mask, 0.3, out=np.empty(n + 1, dtype=np.float32))


def test_a_given_mask_is_used_and_nothing_is_drawn(rng):
    x = rng.normal(size=(11, 13)).astype(np.float32)
    mask = rng.random((11, 13)) < 0.4
    generator = np.random.default_rng(0)
    y, returned = functional.dropout(x, 0.3, mask=mask, seed=generator, return_mask=True)
    np.testing.assert_array_equal(returned, mask)
    np.testing.assert_array_equal(y, np.where(mask, x * np.float32(1 / 0.7), 0))
    np.testing.assert_array_equal(y, reference.dropout(x, 0.3, mask=mask))
    assert generator.random() == np.random.default_rng(0).random()
    for other in (mask.astype(np.uint8), mask.astype(float), mask.tolist(), np.asfortranarray(mask)):
        np.testing.assert_array_equal(functional.dropout(x, 0.3, mask=other), y)
        np.testing.assert_array_equal(functional.dropout_backward(x, other, 0.3), y)


def test_a_given_mask_of_all_kept_or_all_dropped_overrules_the_rate(rng):
    x = rng.normal(size=200).astype(np.float32)
    np.testing.assert_array_equal(functional.dropout(x, 0.0, mask=np.zeros(200, bool)), np.zeros(200))
    np.testing.assert_array_equal(functional.dropout(x, 1.0, mask=np.ones(200, bool)), x)
    np.testing.assert_array_equal(functional.dropout(x, 0.5, mask=np.ones(200, bool)), 2 * x)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("options", [{}, {"return_mask": True}, {"training": False}, {"mode": "vanilla"}])
def test_the_result_goes_where_out_says_even_onto_the_input(rate, options, rng):
    x = rng.normal(size=(3, 1500)).astype(np.float32)
    expected = functional.dropout(x, rate, seed=3, **options)
    out = np.full_like(x, np.nan)
    got = functional.dropout(x, rate, seed=3, out=out, **options)
    place = x.copy()
    in_place = functional.dropout(place, rate, seed=3, out=place, **options)
    if "return_mask" in options:
        expected, got, in_place = expected[0], got[0], in_place[0]
    assert got is out
    assert in_place is place
    assert same_bits(out, expected)
    assert same_bits(place, expected)


STREAMED = 1 << 22  # elements from which the result is stored past the caches


@pytest.fixture(scope="module")
def many():
    """Floats for the largest of the sizes below, and more."""
    return np.random.default_rng(3).standard_normal(STREAMED + 2 * 4096, dtype=np.float32)


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_a_large_result_is_its_twin_to_the_bit(rate, many):
    x = many[: STREAMED + 4096 + 77]
    y, mask = reference.dropout(x, rate, seed=5, return_mask=True)
    for n_threads in (1, 2, 3):
        assert same_bits(functional.dropout(x, rate, seed=5, n_threads=n_threads), y)
        found, bits = functional.dropout(x, rate, seed=5, return_mask=True, n_threads=n_threads)
        assert same_bits(found, y)
        assert (bits == mask).all()
        assert same_bits(functional.dropout_backward(x, mask, rate, n_threads=n_threads), y)


@pytest.mark.parametrize("n", [STREAMED - 1, STREAMED, STREAMED + 1, STREAMED + 64, STREAMED + 4095, STREAMED + 4111])
def test_a_large_result_goes_to_any_place(n, many):
    """Onto the input it is stored as usual, elsewhere past the caches, from the first cache line on."""
    room = np.full(n + 64, 7, dtype=np.float32)
    from_line = -(room.ctypes.data // 4) % 16
    cases = zip(range(16), itertools.cycle([0.3, 0.5, 0.9]), itertools.cycle([1, 2, 3, 3]), strict=False)
    for place, rate, n_threads in cases:
        x = many[place % 3 : place % 3 + n]
        wanted = x.copy()
        _, mask = functional.dropout(wanted, rate, seed=place, return_mask=True, out=wanted)
        start = from_line + place
        out = room[start : start + n]
        given = {"rate": rate, "out": out, "n_threads": n_threads}
        for call in (
            partial(functional.dropout, x, seed=place, **given),
            partial(functional.dropout, x, seed=place, return_mask=True, **given),
            partial(functional.dropout_backward, x, mask, **given),
        ):
            out[:] = np.nan
            call()
            assert same_bits(out, wanted)
            assert (room[:start] == 7).all()
            assert (room[start + n :] == 7).all()
        room[:] = 7


def test_out_beyond_its_array_is_left_alone():
    """The kernels write whole vectors; what lies after a short array must not be touched."""
    for n in (1, 15, 17, 63, 65, 127, 129, 4097):
        memory = np.full(n + 256, 7.0, dtype=np.float32)
        functional.dropout(np.ones(n), 0.3, seed=0, out=memory[128 : 128 + n])
        assert (memory[:128] == 7).all()
        assert (memory[128 + n :] == 7).all()


@pytest.mark.parametrize(
    "out",
    [
        np.empty((3, 4), dtype=np.float64),
        np.empty((4, 3), dtype=np.float32),
        np.empty(12, dtype=np.float32),
        np.empty((3, 4), dtype=np.float32, order="F"),
        np.broadcast_to(np.float32(0), (3, 4)),
        [[0.0] * 4] * 3,
    ],
    ids=["float64", "transposed", "flat", "Fortran", "read-only", "list"],
)
def test_an_out_that_cannot_take_the_result_is_refused(out):
    with pytest.raises(ValueError, match="out must be"):
        functional.dropout(np.ones((3, 4)), 0.3, out=out)


# Seeds ------------------------------------------------------------------------------------------------------


def test_an_int_and_its_seed_sequence_give_the_same_mask_and_the_input_does_not_matter(rng):
    expected = drawn_mask(1000, 0.3, 9)
    np.testing.assert_array_equal(drawn_mask(1000, 0.3, np.random.SeedSequence(9)), expected)
    np.testing.assert_array_equal(drawn_mask(1000, 0.3, np.int64(9)), expected)
    _, mask = functional.dropout(rng.normal(size=1000), 0.3, mode="vanilla", seed=9, return_mask=True)
    np.testing.assert_array_equal(mask, expected)
    assert seeding.key(9) == seeding.key(np.random.SeedSequence(9))


def test_a_generator_gives_another_mask_every_time_and_the_same_ones_again():
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    masks = [drawn_mask(1000, 0.3, first) for _ in range(3)]
    assert len({mask.tobytes() for mask in masks}) == 3
    np.testing.assert_array_equal([drawn_mask(1000, 0.3, second) for _ in range(3)], masks)


def test_no_seed_is_another_mask_every_time():
    masks = [drawn_mask(1000, 0.3, None) for _ in range(10)]
    assert len({mask.tobytes() for mask in masks}) == 10


def test_unseeded_masks_of_many_calls_keep_the_right_share():
    """A loop of small unseeded calls runs through keys that differ by a counter."""
    n, calls, rate = 256, 4000, 0.3
    kept = sum(int(drawn_mask(n, rate, None).sum()) for _ in range(calls))
    total = n * calls
    # six standard errors: this is the one test here whose draws differ from run to run
    assert abs(kept / total - (1 - rate)) < 6 * math.sqrt(rate * (1 - rate) / total)


# Statistics, all at 4.5 standard errors (seven in a million) ------------------------------------------------


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.3, 0.5, 0.623, 0.75, 0.9, 0.99, 0.999])
def test_the_share_of_kept_elements_is_1_minus_the_rate(rate):
    n = 4_000_003
    kept = np.count_nonzero(functional.dropout(np.ones(n, dtype=np.float32), rate, seed=1234))
    assert abs(kept / n - (1 - rate)) < 4.5 * math.sqrt(rate * (1 - rate) / n)


def correlation(a, b):
    """Of two boolean arrays, in standard errors of independent ones."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / math.sqrt((a @ a) * (b @ b)) * math.sqrt(a.size))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_neighbouring_elements_and_rows_are_uncorrelated(rate):
    mask = drawn_mask(1 << 20, rate, 77)
    # the next element, word, lane, draw, row of an image, block, and their neighbours
    for lag in (1, 2, 3, 7, 8, 9, 16, 64, 127, 128, 129, 256, 784, 4095, 4096, 4097, 8192):
        assert abs(correlation(mask[lag:], mask[:-lag])) < 4.5, lag


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_masks_of_neighbouring_seeds_streams_and_steps_are_uncorrelated(rate):
    n = 1 << 18
    key = seeding.key(0)
    masks = [drawn_mask(n, rate, seed) for seed in range(4)]
    masks += [
        reference.keep_mask(reference.stream_key(key, layer, step), n, rate) for layer in (0, 1) for step in (0, 1)
    ]
    for i, first in enumerate(masks):
        for second in masks[:i]:
            assert abs(correlation(first, second)) < 4.5


def chi2_is_small(counts, expected):
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), counts.size - 1
    return abs(chi2 - freedom) < 4.5 * math.sqrt(2 * freedom)


def test_all_patterns_of_eight_neighbours_are_as_frequent_as_they_should_be():
    n = 1 << 23
    for rate in (0.3, 0.5):
        patterns = np.packbits(drawn_mask(n, rate, 41))
        kept = np.bitwise_count(np.arange(256, dtype=np.uint8)).astype(int)
        expected = n / 8 * (1 - rate) ** kept * rate ** (8 - kept)
        assert chi2_is_small(np.bincount(patterns, minlength=256), expected)


@pytest.mark.parametrize("rate", [0.3, 0.5, 1 / 256, 0.002])
def test_every_place_in_a_draw_and_in_a_block_keeps_equally_often(rate):
    blocks = 2048
    mask = drawn_mask(4096 * blocks, rate, 43).reshape(blocks, 32, 128)
    for axes, places in [((0, 1), 128), ((0, 2), 32), ((1, 2), blocks)]:
        share = mask.mean(axis=axes)
        draws = mask.size / places
        chi2 = ((share - (1 - rate)) ** 2 * draws / (rate * (1 - rate))).sum()
        assert abs(chi2 - places) < 4.5 * math.sqrt(2 * places)


# What may be passed in --------------------------------------------------------------------------------------


def test_arrays_of_every_kind_give_the_same_and_are_not_written(rng):
    x = (np.round(rng.normal(size=(12, 34)) * 8) + 0.0).astype(np.float32)  # integers, and no -0
    expected = functional.dropout(x, 0.3, seed=21)
    wide = np.zeros((24, 68), dtype=np.float32)
    wide[::2, ::2] = x
    backwards = np.ascontiguousarray(x[:, ::-1])
    locked = x.copy()
    locked.flags.writeable = False
    swapped = x.astype(x.dtype.newbyteorder())
    inputs = {
        "float64": x.astype(np.float64),
        "float16": x.astype(np.float16),
        "int64": x.astype(np.int64),
        "int8": x.astype(np.int8),
        "list": x.tolist(),
        "Fortran": np.asfortranarray(x),
        "strided": wide[::2, ::2],
        "reversed": backwards[:, ::-1],
        "transposed": np.ascontiguousarray(x.T).T,
        "read-only": locked,
        "byte-swapped": swapped,
    }
    mask = functional.dropout(x, 0.3, seed=21, return_mask=True)[1]
    for name, given_x in inputs.items():
        before = np.array(given_x)
        y = functional.dropout(given_x, 0.3, seed=21)
        dx = functional.dropout_backward(given_x, mask, 0.3)
        assert y.flags.c_contiguous
        assert dx.flags.c_contiguous
        assert same_bits(y, expected), name
        assert same_bits(dx, expected), name
        np.testing.assert_array_equal(given_x, before)


def test_the_result_never_shares_memory_with_the_input(rng):
    x = rng.normal(size=100).astype(np.float32)
    mask = np.ones(100, dtype=bool)
    for rate, training in [(0.0, True), (0.3, True), (1.0, True), (0.3, False)]:
        assert not np.shares_memory(functional.dropout(x, rate, training=training), x)
    assert not np.shares_memory(functional.dropout_backward(x, mask, 0.0), x)


@pytest.mark.parametrize("x", [[1j], ["a"], [None], [[1.0], [1.0, 2.0]]])
def test_arrays_that_are_not_numbers_are_refused_by_name(x):
    with pytest.raises((TypeError, ValueError), match="x "):
        functional.dropout(x, 0.3)
    with pytest.raises((TypeError, ValueError), match="dy "):
        functional.dropout_backward(x, [True], 0.3)


@pytest.mark.parametrize(
    ("rate", "error"),
    [
        (-0.1, ValueError),
        (1.5, ValueError),
        (math.nan, ValueError),
        ("0.5", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_a_rate_that_is_no_probability_is_refused_by_name(rate, error):
    with pytest.raises(error, match="rate"):
        functional.dropout(np.ones(3), rate)
    with pytest.raises(error, match="rate"):
        functional.dropout_backward(np.ones(3), np.ones(3, bool), rate)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("mode", "upside-down", ValueError),
        ("mode", None, TypeError),
        ("seed", -1, ValueError),
        ("seed", 0.5, TypeError),
        ("n_threads", 0, ValueError),
        ("n_threads", 1.5, TypeError),
        ("mask", np.ones(4, bool), ValueError),
        ("mask", np.array([0.0, 0.5, 1.0]), ValueError),
    ],
)
def test_a_wrong_argument_is_refused_by_name_before_anything_is_written(argument, value, error):
    x = np.ones(3, dtype=np.float32)
    with pytest.raises(error, match=argument):
        functional.dropout(x, 0.3, out=x, **{argument: value})
    assert (x == 1).all()


@pytest.mark.parametrize("mask", [np.ones(4, bool), np.ones((3, 1), bool), np.array([0, 1, 2])])
def test_backward_refuses_a_mask_that_does_not_fit(mask):
    with pytest.raises(ValueError, match="mask"):
        functional.dropout_backward(np.ones(3), mask, 0.3)


def test_the_public_layer_draws_the_same_kind_of_mask(rng):
    """A look at the way up: a Dropout layer's mask keeps 1 - rate and explains its output."""
    x = rng.normal(size=(200, 300)).astype(np.float32)
    layer = cd.Dropout(0.3, seed=1)
    y = layer.forward(x, training=True)
    np.testing.assert_array_equal(y, np.where(layer.mask, x * np.float32(1 / 0.7), 0))
    assert abs(layer.mask.mean() - 0.7) < 4.5 * math.sqrt(0.21 / x.size)


# From slow_mask above, once; they pin the masks to this version's: elements 4936..4999, eight a byte.
GOLDEN_MASKS = {0.3: "fe77d5efbfdbeeff", 0.5: "e5aa933f1085d3e6"}

"""The generator against a slow one written from Vigna's paper with Python's own integers."""

import copy
import itertools
import math
import pickle
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cydrop as cd

LANES = 16
M64 = 2**64 - 1


class SlowXorshift:
    """Sixteen lanes of xorshift128+ (arXiv 1404.0390, shifts 23, 18, 5); words go out row by row."""

    def __init__(self, seed):
        words = [int(word) for word in np.random.SeedSequence(seed).generate_state(2 * LANES, np.uint64)]
        self.lanes = [list(pair) for pair in zip(words[:LANES], words[LANES:], strict=True)]
        self.waiting = []

    def word(self):
        if not self.waiting:
            for lane in self.lanes:
                x, y = lane
                self.waiting.append((x + y) & M64)
                x = (x ^ (x << 23)) & M64
                lane[0], lane[1] = y, x ^ y ^ (x >> 18) ^ (y >> 5)
        return self.waiting.pop(0)

    def words(self, n):
        return [self.word() for _ in range(n)]

    def below(self, bound):
        """Lemire's unbiased integer (2019), written with % and a plain refusal."""
        while True:
            product = (self.word() >> 32) * bound
            if product % 2**32 >= 2**32 % bound:
                return product // 2**32

    def permutation(self, n):
        out = list(range(n))
        for i in reversed(range(1, n)):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out


def transition(s0, s1):
    """One step of one lane."""
    x = (s0 ^ (s0 << 23)) & M64
    return s1, x ^ s1 ^ (x >> 18) ^ (s1 >> 5)


def state_with_words(*words):
    """A state whose next draw is these sixteen words."""
    return {
        "generator": "xorshift128+ x16",
        "s0": np.array([(word - 1) & M64 for word in words], dtype=np.uint64),
        "s1": np.ones(LANES, dtype=np.uint64),
        "position": 0,
    }


def same_state(a, b):
    return a["position"] == b["position"] and all((a[half] == b[half]).all() for half in ("s0", "s1"))


# The stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2024, 2**64 + 5, 2**200])
def test_random_raw_is_vigna_s_generator_in_sixteen_lanes(seed):
    assert cd.Xorshift(seed).random_raw(1000).tolist() == SlowXorshift(seed).words(1000)


@pytest.mark.parametrize("seed", [0, 3, 77])
def test_random_is_the_upper_24_bits_of_each_word(seed):
    expected = [(word >> 40) / 2**24 for word in SlowXorshift(seed).words(1000)]
    drawn = cd.Xorshift(seed).random(1000)
    assert drawn.dtype == np.float32
    assert drawn.tolist() == expected


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.001, 0.1, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_bernoulli_compares_the_upper_32_bits_of_each_word_with_p(p):
    expected = [word >> 32 < round(p * 2**32) for word in SlowXorshift(5).words(3000)]
    drawn = cd.Xorshift(5).bernoulli(p, 3000)
    assert drawn.dtype == np.bool_
    assert drawn.tolist() == expected


def test_the_stream_of_seed_0_never_changes():
    rng = cd.Xorshift(0)
    assert rng.random_raw(4).tolist() == GOLDEN_FIRST
    rng.random_raw(100_000 - 5)
    assert rng.random_raw() == GOLDEN_100_000TH
    assert rng.random(3).tolist() == GOLDEN_FLOATS
    assert rng.bernoulli(0.3, 12).astype(int).tolist() == GOLDEN_BITS
    np.testing.assert_array_equal(rng.normal(3), np.array(GOLDEN_NORMALS, dtype=np.float32))
    assert rng.permutation(10).tolist() == GOLDEN_PERMUTATION


@given(st.lists(st.integers(0, 70), max_size=12), st.integers(0, 2**32))
def test_a_stream_cut_anyhow_is_the_same_stream(cuts, seed):
    rng = cd.Xorshift(seed)
    pieces = [rng.random_raw(n) for n in cuts]
    joined = np.concatenate([*pieces, rng.random_raw(20)])
    assert joined.tolist() == SlowXorshift(seed).words(sum(cuts) + 20)


@given(st.lists(st.tuples(st.sampled_from(["random_raw", "random", "bernoulli", "normal"]), st.integers(0, 300))))
def test_every_draw_takes_one_word_an_element_whatever_its_kind(draws):
    rng, words = cd.Xorshift(9), cd.Xorshift(9)
    for kind, n in draws:
        getattr(rng, kind)(*([0.3] if kind == "bernoulli" else []), n)
        words.random_raw(n)
    assert rng.random_raw() == words.random_raw()


def test_a_size_of_none_gives_the_scalars_of_the_same_stream():
    one, many = cd.Xorshift(4), cd.Xorshift(4)
    raw = [one.random_raw() for _ in range(20)]
    assert all(type(word) is int for word in raw)
    assert raw == many.random_raw(20).tolist()
    uniform = one.random()
    assert isinstance(uniform, np.float32)
    assert uniform == many.random(1)[0]
    coin = one.bernoulli(0.3)
    assert type(coin) is bool
    assert coin == many.bernoulli(0.3, 1)[0]
    normal = one.normal()
    assert isinstance(normal, np.float32)
    assert normal == many.normal(1)[0]


@pytest.mark.parametrize("shape", [0, 7, (), (0,), (3, 0, 2), (2, 3), [2, 3], (4, 1, 5), np.int64(6)])
def test_a_shape_is_filled_in_c_order(shape):
    expected = np.empty(shape)
    for kind in ("random_raw", "random", "normal"):
        shaped = getattr(cd.Xorshift(8), kind)(shape)
        flat = getattr(cd.Xorshift(8), kind)(expected.size)
        assert shaped.shape == expected.shape
        assert shaped.flags.c_contiguous
        assert shaped.ravel().tolist() == flat.tolist()
    assert cd.Xorshift(8).bernoulli(0.3, shape).shape == expected.shape


@pytest.mark.parametrize(
    ("size", "error"), [(-1, ValueError), ((2, -3), ValueError), (2.5, TypeError), ("3", TypeError)]
)
def test_a_size_that_is_no_shape_is_refused_and_nothing_is_drawn(size, error):
    rng = cd.Xorshift(1)
    for kind in (rng.random_raw, rng.random, rng.normal, lambda n: rng.bernoulli(0.5, n)):
        with pytest.raises(error, match="size"):
            kind(size)
    assert rng.random_raw() == cd.Xorshift(1).random_raw()


# State ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [0, 1, 5, 15, 16, 17, 40])
def test_a_state_put_back_repeats_the_stream(used):
    rng = cd.Xorshift(6)
    rng.random_raw(used)
    state = rng.state
    assert state["position"] == used % LANES
    first = rng.random_raw(100).tolist()
    rng.state = state
    assert rng.random_raw(100).tolist() == first
    other = cd.Xorshift(123)
    other.random_raw(3)
    other.state = state
    assert same_state(other.state, state)
    assert other.random_raw(100).tolist() == first


def test_the_state_of_a_fresh_generator_is_what_its_seed_gave():
    state = cd.Xorshift(31).state
    words = np.random.SeedSequence(31).generate_state(32, np.uint64)
    assert state["s0"].dtype == state["s1"].dtype == np.uint64
    assert np.concatenate([state["s0"], state["s1"]]).tolist() == words.tolist()


def test_writing_into_a_state_that_was_read_does_not_touch_the_generator():
    rng = cd.Xorshift(6)
    state = rng.state
    state["s0"][:] = 0
    state["position"] = 9
    assert rng.random_raw(40).tolist() == SlowXorshift(6).words(40)


@pytest.mark.parametrize(
    "change",
    [
        {"generator": "mt19937"},
        {"s0": np.zeros(15, dtype=np.uint64)},
        {"s0": np.zeros(16, dtype=np.uint64), "s1": np.zeros(16, dtype=np.uint64)},
        {"s0": None},
        {"s0": [-1] * 16},
        {"s0": [2**64] * 16},
        {"s1": np.full(16, -1)},
        {"s1": np.full(16, 1.5)},
        {"position": 16},
        {"position": -1},
        {"position": None},
        {"position": 1.0},
    ],
    ids=[
        "another generator", "15 lanes", "all zero", "no s0", "negative words", "words too large",
        "negative array", "fractions", "position 16", "position -1", "no position", "position 1.0",
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_is_refused_and_changes_nothing(change):
    rng = cd.Xorshift(6)
    rng.random_raw(3)
    before = rng.state
    with pytest.raises((TypeError, ValueError), match="state"):
        rng.state = before | change
    assert same_state(rng.state, before)


def test_a_state_that_is_no_dict_is_refused():
    with pytest.raises(ValueError, match="state"):
        cd.Xorshift(0).state = (1, 2, 3)


@pytest.mark.parametrize("used", [0, 5, 16])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda rng: pickle.loads(pickle.dumps(rng))])
def test_a_copy_goes_on_as_the_original_and_apart_from_it(duplicate, used):
    rng = cd.Xorshift(13)
    rng.random_raw(used)
    twin = duplicate(rng)
    ahead = twin.random_raw(50).tolist()
    twin.random_raw(1000)
    assert rng.random_raw(50).tolist() == ahead


# Jump: the transition is linear over GF(2), so 2^64 steps are its matrix squared 64 times -------------------


def image(columns, vector):
    """Matrix times vector, both over GF(2); a column is an int of 128 bits."""
    out = 0
    while vector:
        lowest = vector & -vector
        out ^= columns[lowest.bit_length() - 1]
        vector ^= lowest
    return out


def joined(s0, s1):
    return int(s0) | int(s1) << 64


@pytest.fixture(scope="module")
def leap():
    """Columns of the matrix of 2^64 steps."""
    columns = [joined(*transition((1 << bit) & M64, (1 << bit) >> 64)) for bit in range(128)]
    for _ in range(64):
        columns = [image(columns, column) for column in columns]
    return columns


@pytest.mark.parametrize("seed", [0, 99])
@pytest.mark.parametrize("used", [0, 5])
def test_jump_is_2_to_the_64_steps_of_every_lane(leap, seed, used):
    rng = cd.Xorshift(seed)
    rng.random_raw(used)
    before = rng.state
    assert rng.jump() is rng
    after = rng.state
    assert after["position"] == before["position"]
    for lane in range(LANES):
        expected = image(leap, joined(before["s0"][lane], before["s1"][lane]))
        assert joined(after["s0"][lane], after["s1"][lane]) == expected


def test_drawing_and_jumping_commute():
    first, second = cd.Xorshift(2), cd.Xorshift(2)
    first.random_raw(37)
    first.jump()
    second.jump()
    second.random_raw(37)
    assert first.random_raw(64).tolist() == second.random_raw(64).tolist()


# Seeds ------------------------------------------------------------------------------------------------------


def test_an_int_and_its_seed_sequence_give_the_same_stream():
    expected = SlowXorshift(42).words(32)
    for seed in (42, np.int64(42), np.uint8(42), np.random.SeedSequence(42)):
        assert cd.Xorshift(seed).random_raw(32).tolist() == expected


def test_a_generator_as_seed_is_repeatable_and_is_advanced():
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    assert cd.Xorshift(first).random_raw(32).tolist() == cd.Xorshift(second).random_raw(32).tolist()
    assert cd.Xorshift(first).random_raw() != cd.Xorshift(np.random.default_rng(3)).random_raw()


def test_no_seed_is_another_stream_every_time():
    assert len({cd.Xorshift().random_raw() for _ in range(8)} | {cd.Xorshift(None).random_raw()}) == 9


def test_children_of_a_seed_sequence_have_streams_of_their_own():
    children = np.random.SeedSequence(0).spawn(4)
    assert len({cd.Xorshift(child).random_raw() for child in children}) == 4


@pytest.mark.parametrize("seed", [True, np.bool_(False), 1.0, "1", b"1", [1, 2], (1,), {}, np.array([1]), object()])
def test_a_seed_of_another_type_is_refused(seed):
    with pytest.raises(TypeError, match="seed"):
        cd.Xorshift(seed)


@pytest.mark.parametrize("seed", [-1, np.int32(-7)])
def test_a_negative_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        cd.Xorshift(seed)


# Distributions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_bernoulli_is_true_with_probability_p(p):
    n = 2_000_000
    error = math.sqrt(p * (1 - p) / n)
    assert abs(cd.Xorshift(17).bernoulli(p, n).mean() - p) < 4.5 * error


def test_bernoulli_at_0_is_never_and_at_1_always_true_even_for_extreme_words():
    rng = cd.Xorshift(0)
    for words in ([0] * LANES, [M64] * LANES):
        for p in (0, 1):
            rng.state = state_with_words(*words)
            assert rng.bernoulli(p, LANES).tolist() == [bool(p)] * LANES
    assert not rng.bernoulli(0.0, 100_000).any()
    assert rng.bernoulli(1.0, 100_000).all()


@pytest.mark.parametrize(
    ("p", "error"), [(-0.1, ValueError), (1.1, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_a_p_that_is_no_probability_is_refused(p, error):
    with pytest.raises(error, match="p must be"):
        cd.Xorshift(0).bernoulli(p, 3)


def test_random_stays_below_1_and_reaches_0():
    rng = cd.Xorshift(0)
    rng.state = state_with_words(*[0, 2**40 - 1, 2**40, M64] * 4)
    assert rng.random(4).tolist() == [0.0, 0.0, 2.0**-24, 1 - 2.0**-24]


def test_random_is_uniform_in_256_cells():
    n = 1_000_000
    counts = np.bincount((cd.Xorshift(23).random(n) * 256).astype(int), minlength=256)
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi2 - 255) < 4.5 * math.sqrt(2 * 255)


def test_normal_is_the_quantile_of_each_word():
    quantile = NormalDist().inv_cdf
    drawn = cd.Xorshift(19).normal(20_000)
    assert drawn.dtype == np.float32
    expected = [quantile(((word >> 12) + 0.5) / 2**52) for word in SlowXorshift(19).words(20_000)]
    np.testing.assert_allclose(drawn, expected, rtol=2.0**-23, atol=0)


def test_normal_is_right_in_both_tails():
    below = [0, 2**12, 2**20, 2**28, 2**36, 2**44, 2**52, 2**60]
    words = below + [M64 - word for word in below]
    rng = cd.Xorshift(0)
    rng.state = state_with_words(*words)
    drawn = rng.normal(LANES).astype(float)
    # the error function as an oracle that shares no coefficients with the quantile
    back = [0.5 * math.erfc(-z / math.sqrt(2)) for z in drawn[:8]]
    np.testing.assert_allclose(back, [((word >> 12) + 0.5) / 2**52 for word in below], rtol=1e-5)
    assert drawn[8:].tolist() == (-drawn[:8]).tolist()
    assert -8.3 < drawn[0] < -8.1


def test_normal_has_the_moments_of_the_normal_distribution():
    n = 1_000_000
    z = cd.Xorshift(29).normal(n).astype(float)
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - moment) < 4.5 * math.sqrt(variance / n), power


# Permutations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3, 17, 1000])
def test_a_permutation_is_fisher_and_yates_shuffle_of_the_stream(n):
    drawn = cd.Xorshift(11).permutation(n)
    assert drawn.dtype == np.int64
    assert sorted(drawn.tolist()) == list(range(n))
    assert drawn.tolist() == SlowXorshift(11).permutation(n)


def test_a_draw_that_would_bias_a_permutation_is_refused():
    # 2^32 = 1 modulo 3: of the 32 bits, 0 alone must be drawn again
    rng = cd.Xorshift(0)
    rng.state = state_with_words(0, 2**63, *[M64] * 14)
    assert rng.permutation(3).tolist() == [0, 2, 1]  # 2^63 >> 32 times 3 is 1.5 * 2^32: j = 1 for i = 2
    assert rng.state["position"] == 3


def test_all_orders_of_three_are_equally_likely():
    n = 30_000
    rng = cd.Xorshift(37)
    counts = dict.fromkeys(itertools.permutations(range(3)), 0)
    for _ in range(n):
        counts[tuple(rng.permutation(3).tolist())] += 1
    assert len(counts) == 6
    chi2 = sum((count - n / 6) ** 2 / (n / 6) for count in counts.values())
    assert chi2 < 35.9  # exceeded with probability 1e-6 at five degrees of freedom


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (2**32, ValueError), (1.5, TypeError), (None, TypeError)])
def test_a_permutation_of_an_impossible_length_is_refused(n, error):
    with pytest.raises(error, match="n must be"):
        cd.Xorshift(0).permutation(n)


# From the slow generator above, once; they pin the stream to this version's.
GOLDEN_FIRST = [8139179853007397401, 17185161141361995321, 15631773238945587242, 5412733708304238657]
GOLDEN_100_000TH = 1844441750919118127
GOLDEN_FLOATS = [0.46946918964385986, 0.9268977046012878, 0.9848320484161377]
GOLDEN_BITS = [1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0]
GOLDEN_NORMALS = [0.7539721, -0.44893116, 0.8506295]
GOLDEN_PERMUTATION = [6, 8, 2, 4, 3, 0, 9, 7, 5, 1]

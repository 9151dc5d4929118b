"""Masks as networks draw them are random: small versions of bench/randomness.py, and its statistics on broken masks.

All seeds are fixed, so nothing here fails by chance. tests/test_dropout.py has the statistics of single masks.
"""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

import cydrop as cd
from cydrop import reference
from cydrop._base import seeding
from cydrop._core import dropout

SCRIPT = Path(__file__).parent.parent / "bench" / "randomness.py"
LIMIT = 4.5


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("randomness", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def packed(mask):
    """A boolean mask of whole words as bits."""
    return np.packbits(mask.reshape(-1), bitorder="little").view(np.uint64)


def two_scores(bench, a, b, keep):
    """Correlation and 2x2 table of two boolean masks, place by place."""
    pairs = bench.pairs_of(packed(a), packed(b))
    return abs(bench.correlation(pairs, keep)), abs(bench.table(pairs, keep))


def are_independent(bench, a, b, keep):
    return max(two_scores(bench, a, b, keep)) < LIMIT


# Masks of training ------------------------------------------------------------------------------------------


UNITS, ROWS = 256, 256


def trained_masks(rate, seed=0, steps=1):
    """The masks of the two dropout layers in each training step."""
    layers = [cd.Dense(UNITS), cd.Dropout(rate), cd.Dense(UNITS), cd.Dropout(rate), cd.Dense(1)]
    network = cd.Network(layers, loss="mse", optimizer="sgd", seed=seed, n_threads=1)
    X, y = np.zeros((ROWS, 1), dtype=np.float32), np.zeros((ROWS, 1), dtype=np.float32)
    masks = []
    for _ in range(steps):
        network.train_on_batch(X, y)
        masks.append(network.masks())
    return masks


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_neighbouring_rows_are_independent(bench, rate):
    mask = trained_masks(rate)[0][0]
    assert are_independent(bench, mask[::2], mask[1::2], 1 - rate)
    assert not are_independent(bench, mask[::2], mask[::2], 1 - rate)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_neighbouring_units_are_independent(bench, rate):
    mask = trained_masks(rate)[0][0]
    assert are_independent(bench, mask[:, ::2], mask[:, 1::2], 1 - rate)
    assert not are_independent(bench, mask[:, ::2], ~mask[:, ::2], 1 - rate)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_layers_and_steps_of_training_are_independent(bench, rate):
    masks = [mask for step in trained_masks(rate, steps=3) for mask in step]
    assert len(masks) == 6
    for i, later in enumerate(masks):
        for earlier in masks[:i]:
            assert are_independent(bench, earlier, later, 1 - rate)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_networks_of_neighbouring_seeds_have_independent_masks(bench, rate):
    masks = [trained_masks(rate, seed=seed)[0][0] for seed in range(4)]
    for i, later in enumerate(masks):
        for earlier in masks[:i]:
            assert are_independent(bench, earlier, later, 1 - rate)


# Calls without a seed ---------------------------------------------------------------------------------------


def keys_of_calls(entropy):
    keys = seeding._FreshKeys()
    keys._entropy = entropy
    return keys.next(), keys.next()


def counted_key(entropy, call):
    """A key that a counter is added to, unhashed: lane l + 1 of a call and lane l of the next share half their seed."""
    return (entropy[0] + call * 0x9E3779B97F4A7C15) % 2**64, (entropy[1] + call * 0xD1B54A32D192ED03) % 2**64


def largest_correlation_of_lanes(keys, rate, shift):
    """The largest |z| of any slice of any draw between lane l + shift of one mask and lane l of the other."""
    n, keep, slices = 1 << 20, 1 - rate, 8 if rate == 0.25 else 4
    sides = []
    for key in keys:
        bits = np.empty(dropout.words_of(n), dtype=np.uint64)
        dropout.mask(bits, n, rate, *key, 1)
        mask = np.unpackbits(bits.view(np.uint8), bitorder="little", count=n)
        sides.append(mask.reshape(n // 4096, -1, 16, slices) - np.float32(keep))
    first, second = sides[0][:, :, shift:], sides[1][:, :, : 16 - shift]
    sums = (first * second).sum(axis=(0, 2))
    return np.abs(sums).max() / (math.sqrt(n / 4096 * (16 - shift)) * keep * rate)


@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_unseeded_calls_one_after_the_other_are_independent_lane_by_lane(rate):
    entropy = seeding.key(3)
    for shift in (0, 1):
        assert largest_correlation_of_lanes(keys_of_calls(entropy), rate, shift) < 5
    assert largest_correlation_of_lanes([counted_key(entropy, call) for call in (1, 2)], rate, 1) > 8


def test_the_key_of_an_unseeded_call_is_a_counter_hashed_with_entropy():
    for entropy in [(0, 0), (2**64 - 1, 2**64 - 2), seeding.key(1)]:
        for number, key in enumerate(keys_of_calls(entropy), start=1):
            assert key == tuple(int(reference.mix64((half + number) % 2**64)) for half in entropy)


# The lowest bits --------------------------------------------------------------------------------------------


def rank(vectors):
    """Of integers as vectors over GF(2)."""
    pivots = {}
    for vector in vectors:
        while vector and vector.bit_length() in pivots:
            vector ^= pivots[vector.bit_length()]
        if vector:
            pivots[vector.bit_length()] = vector
    return len(pivots)


def lowest_bits(draws):
    """The lowest bit of each word of a lane: a linear function of the bits of its seed, s0 then s1."""
    s0, s1 = [1 << i for i in range(64)], [1 << 64 + i for i in range(64)]
    s1[0] = 0  # always 1 in a block's lanes
    result = []
    for _ in range(draws):
        result.append(s0[0] ^ s1[0])
        x = [s0[i] ^ (s0[i - 23] if i >= 23 else 0) for i in range(64)]
        after = [x[i] ^ s1[i] ^ (x[i + 18] if i + 18 < 64 else 0) ^ (s1[i + 5] if i + 5 < 64 else 0) for i in range(64)]
        s0, s1 = s1, after
    return result


def test_a_block_is_too_short_to_show_that_its_lowest_bits_are_linear():
    """8-bit slices take 32 words of a lane, 16-bit slices 64: their lowest bits are independent coins."""
    for draws in (32, 64):
        assert rank(lowest_bits(draws)) == draws
    assert rank(lowest_bits(200)) < 130  # in a longer stream they are not


def test_linear_bits_are_found_in_the_generator_and_not_in_masks(bench):
    for bits, length in [([0, 0, 1, 1, 0, 1, 1, 1, 0], 5), ([1, 0] * 9, 2), ([0] * 7 + [1], 8)]:
        assert bench.linear_complexity(bits) == length
    generator = cd.Xorshift(0).random_raw(16 * 640)
    masks = bench.block_words(seeding.key(0), 20).ravel()
    assert bench.linear_complexity(bench.one_bit(generator, 0)) == 128
    for words, bit in [(generator, 7), (generator, 63), (masks, 0), (masks, 7)]:
        assert abs(bench.linear_complexity(bench.one_bit(words, bit)) - 320) < 10


def test_the_linear_functions_are_those_of_the_generator():
    rng = cd.Xorshift(7)
    state = rng.state
    state["s1"] |= np.uint64(1)
    rng.state = state
    words = rng.random_raw((100, 16))[:, 0]
    seed = int(state["s0"][0]) | int(state["s1"][0]) << 64
    always = lowest_bits_of_constant(100)
    for word, vector, constant in zip(words, lowest_bits(100), always, strict=True):
        assert int(word) & 1 == ((seed & vector).bit_count() + constant) % 2


def lowest_bits_of_constant(draws):
    """What the bit of s1 that is always 1 adds."""
    lane = [0, 1]
    result = []
    for _ in range(draws):
        result.append((lane[0] ^ lane[1]) & 1)
        x = (lane[0] ^ lane[0] << 23) % 2**64
        lane = [lane[1], x ^ lane[1] ^ x >> 18 ^ lane[1] >> 5]
    return result


# What bench/randomness.py writes for outside batteries ------------------------------------------------------


@pytest.mark.parametrize(("rate", "bits"), [(0.5, 8), (77 / 256, 8), (0.3, 16), (0.001, 16)])
def test_the_words_for_outside_batteries_are_those_that_masks_compare(bench, rate, bits):
    key, blocks = reference.stream_key(seeding.key(2), 1, 5), 20
    words = bench.block_words(key, blocks, bits)
    slices = words.astype("<u8").view(f"<u{bits // 8}").reshape(-1)
    mask, limit = reference.keep_mask(key, blocks * 4096, rate), (1 - rate) * 2**bits
    decided = (slices != math.floor(limit)) | (bits == 8)  # all but ties
    np.testing.assert_array_equal(mask[decided], (slices < limit)[decided])
    assert decided.mean() > 0.999


def test_raw_words_go_out_until_the_reader_has_enough():
    command = [sys.executable, str(SCRIPT), "--raw", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        got = process.stdout.read(3_000_000)
        process.stdout.close()
        errors = process.stderr.read()
    assert got == cd.Xorshift(3).random_raw(3_000_000 // 8).astype("<u8").tobytes()
    assert process.returncode == 0
    assert errors == b""


@pytest.mark.parametrize("option", ["--masks", "--bits"])
def test_raw_masks_are_those_of_layers_and_steps(bench, option, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["randomness.py", "--raw", option, "--seed", "3"])
    monkeypatch.setattr(bench, "write_words", lambda pieces: written.extend(next(pieces).copy() for _ in range(4)))
    written = []
    bench.main()
    for words, (step, layer) in zip(written, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        if option == "--masks":
            key = reference.stream_key(seeding.key(3), layer, step)
            s0, s1 = reference.block_lanes(key, len(words))
            np.testing.assert_array_equal(words[:, :16], s0 + s1)
            assert words.shape == (256, 512)
        else:
            np.testing.assert_array_equal(words, bench.Masks(3, 0.5, 1).mask(step, layer))


# The statistics: each sees what it is for -------------------------------------------------------------------


PIECE = 1 << 18


def changed(bench, change):
    """Masks whose bits, as a boolean array, go through `change`."""

    class Changed(bench.Masks):
        def of_key(self, key):
            bits = np.unpackbits(super().of_key(key).view(np.uint8), bitorder="little")
            change(bits)
            return packed(bits)

    return Changed


def drawn_again(bench, again):
    """Masks of another step, layer and seed than asked for."""

    class Again(bench.Masks):
        def mask(self, step, layer=0, seed=0):
            return super().mask(*again(step, layer, seed))

    return Again


def copied(lag):
    """Every second `lag` elements are those before them."""

    def change(bits):
        first = np.flatnonzero(np.arange(bits.size - lag) // lag % 2 == 0)
        bits[first + lag] = bits[first]

    return change


def lumped(bits):
    """Every third block keeps everything."""
    bits.reshape(-1, 4096)[::3] = 1


def chained(bits):
    """Of three draws of a lane, the third keeps its topmost 16-bit slice where both others do."""
    tops = bits.reshape(-1, 64, 16, 4)[..., 3]
    tops[:, 2::3] = tops[:, :-2:3] & tops[:, 1:-1:3]


BROKEN = {
    "next layer": lambda bench: drawn_again(bench, lambda step, layer, seed: (step, 0, seed)),
    "next step": lambda bench: drawn_again(bench, lambda step, layer, seed: (step // 2, layer, seed)),
    "next layer, step before": lambda bench: drawn_again(bench, lambda step, layer, seed: (step + layer, 0, seed)),
    "next seed": lambda bench: drawn_again(bench, lambda step, layer, seed: (step, layer, seed // 2)),
    "runs": lambda bench: changed(bench, copied(1)),
    "patterns of 8": lambda bench: changed(bench, copied(1)),
    "patterns of 16": lambda bench: changed(bench, copied(8)),
    "blocks": lambda bench: changed(bench, lumped),
    "three draws of a lane": lambda bench: changed(bench, chained),
}


def broken(bench, name):
    """Masks that the test of this name must refuse."""
    if name in BROKEN:
        return BROKEN[name](bench)
    what, distance = name.rsplit(" ", 1)
    assert what in ("element +", "next row of")
    return changed(bench, copied(int(distance)))


def test_every_test_of_the_long_run_passes_masks_and_refuses_broken_ones(bench):
    seen = 0
    for number, (title, rates, test) in enumerate(bench.independence()):
        name = title.split(":")[0]
        for rate in rates[:2]:
            draws = (number + 1000, rate, 4 * PIECE, PIECE)
            assert abs(test(bench.Masks(*draws))) < LIMIT, (title, rate)
            if not name.startswith("next unseeded call"):
                assert abs(test(broken(bench, name)(*draws))) > LIMIT, (title, rate)
                seen += 1
    assert seen > 100


@pytest.mark.parametrize("name", ["runs", "blocks: variance", "blocks: histogram", "three draws of a lane"])
def test_scores_of_random_masks_are_standard_normal(bench, name):
    test = {title: test for title, _, test in bench.independence()}[name]
    scores = [test(bench.Masks(2000 + seed, 0.8, PIECE, PIECE)) for seed in range(100)]
    assert abs(np.mean(scores)) < 0.45
    assert 0.68 < np.std(scores) < 1.32


def test_the_long_run_refuses_unseeded_calls_whose_keys_are_counted(bench, monkeypatch):
    class Counted(seeding._FreshKeys):
        def next(self):
            return counted_key(self._entropy, next(self._calls))

    monkeypatch.setattr(seeding, "_FreshKeys", Counted)
    tests = {title: test for title, _, test in bench.independence()}
    assert tests["next unseeded call, lane: by place"](bench.Masks(5, 0.1, 1 << 24)) > LIMIT
    monkeypatch.setattr(Counted, "next", lambda self: self._entropy)
    for kind in ("correlation", "2x2 table", "by place"):
        assert tests[f"next unseeded call: {kind}"](bench.Masks(5, 0.1, PIECE, PIECE)) > LIMIT


@pytest.mark.parametrize("rate", [1e-5, 1 - 1e-5])
def test_rates_that_ties_alone_decide_drop_the_right_share(bench, rate):
    assert abs(bench.keep_rate(bench.Masks(6, rate, 1 << 24))) < LIMIT
    without_ties = bench.Masks(6, round(rate * 2**16) / 2**16, 1 << 24)
    without_ties.keep = 1 - rate
    assert abs(bench.keep_rate(without_ties)) > LIMIT


def test_keep_rates_are_counted_in_standard_errors(bench):
    masks = bench.Masks(7, 0.3, 1 << 22)
    n, error = 1 << 22, math.sqrt(0.21 / (1 << 22))
    z = bench.keep_rate(masks)
    assert z == pytest.approx((bench.ones(masks.mask(0)) / n - 0.7) / error)
    masks.keep -= 6 * error
    assert bench.keep_rate(masks) == pytest.approx(z + 6, abs=0.02)


def test_ahead_is_the_mask_from_a_later_element_on(bench):
    words = cd.Xorshift(1).random_raw(100)
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    for lag in [*bench.LAGS, *bench.WIDTHS, 63, 65]:
        later = np.unpackbits(bench.ahead(words, lag).view(np.uint8), bitorder="little")
        assert (later == bits[lag:][: later.size]).all()
        assert later.size > bits.size - lag - 64 or lag > bits.size - 64


def test_no_element_is_in_two_pairs_of_a_table(bench):
    for lag in [*bench.LAGS, *bench.WIDTHS]:
        first = np.flatnonzero(np.unpackbits(bench.firsts(lag, 1 << 15).view(np.uint8), bitorder="little"))
        assert not np.intersect1d(first, first + lag).size
        assert first.size >= 1 << 14


def test_chi_square_has_the_tails_of_the_tables(bench):
    for x, freedom, tail in [(3.841, 1, 0.05), (5.991, 2, 0.05), (11.345, 3, 0.01), (18.307, 10, 0.05),
                             (293.248, 255, 0.05), (310.457, 255, 0.01)]:  # fmt: skip
        assert bench.chi2_tail(x, freedom) == pytest.approx(tail, rel=2e-3)
    assert bench.chi2_tail(0.0, 7) == 1.0
    assert bench.score(bench.chi2_tail(4096.0, 4096)) == pytest.approx(0, abs=0.02)
    assert bench.score(0.5) == 0
    assert bench.score(bench.normal_tails(3.0) / 2) == pytest.approx(3.0)


def test_the_binomial_distribution_has_its_sum_mean_and_variance(bench):
    for keep in (0.2, 0.5, 0.9):
        share, k = bench.binomial(4096, keep), np.arange(4097)
        mean = share @ k
        assert [share.sum(), mean] == pytest.approx([1, 4096 * keep])
        assert share @ (k - mean) ** 2 == pytest.approx(4096 * keep * (1 - keep))


def perfect_scores(n):
    return [NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]


@pytest.mark.parametrize(
    ("scores", "worst_keep", "passes"),
    [
        (perfect_scores(200), 1.0, True),
        ([*perfect_scores(200), 5.0], 1.0, False),
        ([*perfect_scores(200), -5.0], 1.0, False),
        (perfect_scores(200), -4.6, False),
        ([z + 0.5 for z in perfect_scores(200)], 1.0, False),
        ([z / 3 for z in perfect_scores(200)], 1.0, False),
    ],
    ids=["perfect", "one too large", "one too small", "a keep rate", "shifted", "too even"],
)
def test_all_scores_are_judged_together(bench, scores, worst_keep, passes, capsys):
    assert bench.judge(scores, worst_keep) is passes
    assert capsys.readouterr().out.endswith("passed\n" if passes else "FAILED\n")


@pytest.mark.parametrize("biased", [False, True])
def test_the_exit_code_says_whether_masks_are_random(bench, biased, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["randomness.py", "--draws", "1e6"])
    monkeypatch.setattr(bench, "independence", lambda: few)
    few = [("next step: correlation", [0.5], bench.related(bench.next_step)[0])]
    if biased:
        monkeypatch.setattr(bench, "Masks", changed(bench, lambda bits: bits[::100].fill(1)))
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == biased
    table = capsys.readouterr().out
    assert all(f"\n{rate:<9g}" in table for rate in bench.KEEP_RATES)
    assert "next step: correlation" in table


@pytest.mark.parametrize("arguments", [["--draws", "10"], ["--draws", "inf"], ["--seed", "-1"], ["--masks"]])
def test_arguments_that_make_no_sense_are_refused(bench, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["randomness.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err

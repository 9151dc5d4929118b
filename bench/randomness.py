"""Are the masks random? Keep rates and independence over 10^9 draws each, and words for outside batteries.

    python bench/randomness.py [--draws N] [--seed N] [--quick]
    python bench/randomness.py --linear [--seed N]
    python bench/randomness.py --raw [--masks | --bits] [--seed N] | dieharder -a -g 200

Masks come from the compiled kernel, with the keys of a real network's dropout layers. Every test draws masks of its
own (N elements, rounded up to whole masks of 2^22) and ends in one z-score: a number that is standard normal if the
masks are random. Exit code 1 says that one of them is not, or all together.

--linear shows which bits of the words a shift register could have made. With --raw, random words go to standard output
as bytes, without end: those of `Xorshift`; with --masks those that masks are made of, block after block; with --bits
the masks themselves, at rate 0.5.
"""

import argparse
import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cydrop as cd
from cydrop import reference
from cydrop._base import seeding
from cydrop._core import dropout, xorshift
from cydrop._core.engine import key_of
from cydrop._run.core import core_of

Words = NDArray[np.uint64]
Test = Callable[["Masks"], float]
Pair = Callable[["Masks", int], tuple[Words, Words]]  # two masks whose equal places are compared

PIECE = 1 << 22  # elements of one mask: a batch of 2,048 rows of 2,048 units
BLOCK = 4096  # elements that one block's generator decides on
RAW = 1 << 17  # words written at once
KEEP_RATES = [0.001, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 0.99, 0.999]
TIE_RATES = [1e-5, 1 - 1e-5]  # 16 bits cannot tell them from 0 and 1: ties decide
RATES = [0.1, 0.3, 0.5, 0.8]
SMALL_KEEPS = [0.8, 0.9, 0.99, 0.999]
LAGS = [1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 1024, 4096]
WIDTHS = [150, 784]  # units of a layer: the distance of an element and the one below it
KEEP_LIMIT = 4.5
LEVEL = 0.001  # the chance that perfect masks fail a limit of the whole run


# Masks ------------------------------------------------------------------------------------------------------


def slice_bits(rate: float) -> int:
    """Random bits that decide on an element, ties apart: 8 where they are exact, else 16."""
    return 8 if (rate * 256).is_integer() else 16


class Masks:
    """Masks of one rate, 64 elements a word, drawn by the kernel with the keys of networks seeded `seed`, `seed` + 1
    and so on. `count` of them hold at least `draws` elements."""

    def __init__(self, seed: int, rate: float, draws: float, piece: int = PIECE) -> None:
        self.seed, self.rate, self.piece = seed, rate, piece
        self.keep = 1.0 - rate
        self.count = math.ceil(draws / piece)
        self._network, self._seed = network(seed), seed

    def mask(self, step: int, layer: int = 0, seed: int = 0) -> Words:
        """The mask of one step, of one dropout layer of the network seeded `self.seed + seed`."""
        if self._seed != self.seed + seed:
            self._network, self._seed = network(self.seed + seed), self.seed + seed
        return self.of_key(mask_key(self._network, layer, step))

    def of_key(self, key: tuple[int, int]) -> Words:
        bits = np.empty(dropout.words_of(self.piece), dtype=np.uint64)
        dropout.mask(bits, self.piece, self.rate, *key, 1)
        return bits[: self.piece // 64]

    def each(self) -> Iterator[Words]:
        """The masks of the steps, one after the other."""
        return (self.mask(step) for step in range(self.count))


def network(seed: int) -> cd.Network:
    """A network with two dropout layers."""
    layers = [cd.Dense(1), cd.Dropout(0.5), cd.Dense(1), cd.Dropout(0.5), cd.Dense(1)]
    return cd.Network(layers, loss="mse", seed=seed).build(1)


def mask_key(built: cd.Network, layer: int, step: int) -> tuple[int, int]:
    """The key that the network's own training uses."""
    key: tuple[int, int] = key_of(core_of(built).plan.mask_draws[layer].source, step)
    return key


# Probabilities ----------------------------------------------------------------------------------------------


def chi2_tail(x: float, freedom: int) -> float:
    """The chance that chi-square exceeds x: a finite sum for whole degrees of freedom."""
    if x <= 0:
        return 1.0
    tail = math.erfc(math.sqrt(x / 2)) if freedom % 2 else math.exp(-x / 2)
    for k in range(2 - freedom % 2, freedom, 2):
        tail += math.exp(k / 2 * math.log(x / 2) - x / 2 - math.lgamma(k / 2 + 1))
    return min(tail, 1.0)


def score(tail: float) -> float:
    """The z-score that a standard normal variable exceeds with this chance."""
    return -NormalDist().inv_cdf(min(max(tail, 1e-300), 1 - 1e-16))


def chi2_score(counts: NDArray[Any], expected: NDArray[Any]) -> float:
    """The z-score of counts whose total is given; cells that expect fewer than ten are pooled."""
    rare = expected < 10
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return score(chi2_tail(float(((counts - expected) ** 2 / expected).sum()), counts.size - 1))


def normal_tails(z: float) -> float:
    """The chance that a standard normal variable is farther from 0 than z, on either side."""
    return math.erfc(abs(z) / math.sqrt(2))


def kolmogorov_smirnov(scores: list[float]) -> float:
    """The chance that normal z-scores lie as far from their distribution (Stephens 1970)."""
    n = len(scores)
    below = np.array([NormalDist().cdf(z) for z in sorted(scores)])
    distance = max((np.arange(1, n + 1) / n - below).max(), (below - np.arange(n) / n).max())
    t = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    if t < 0.3:  # where the series converges slowly the chance is 1 to six digits
        return 1.0
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * t * t) for k in range(1, 100)))


# Counts -----------------------------------------------------------------------------------------------------


def ones(words: Words) -> int:
    return int(np.bitwise_count(words).sum(dtype=np.int64))


def ahead(words: Words, lag: int) -> Words:
    """Bit j of the result is bit j + lag of the mask; the last bits, which have no such partner, are cut off."""
    whole, part = divmod(lag, 64)
    words = words[whole:]
    return words[:-1] >> part | words[1:] << (64 - part) if part else words


@functools.lru_cache(maxsize=4)
def firsts(lag: int, piece: int) -> Words:
    """Elements that are the first of a pair (j, j + lag) such that no element is in two pairs."""
    return np.packbits(np.arange(piece) // lag % 2 == 0, bitorder="little").view(np.uint64)


Pairs = tuple[int, int, int, int]  # how many pairs, in how many the first, the second, both are kept


def pairs_of(first: Words, second: Words, chosen: Words | None = None) -> Pairs:
    """The pairs of equal places of two masks, or of the chosen places."""
    if chosen is None:
        return 64 * first.size, ones(first), ones(second), ones(first & second)
    chosen = chosen[: first.size]
    return ones(chosen), ones(first & chosen), ones(second & chosen), ones(first & second & chosen)


def total(counts: Iterator[Pairs]) -> Pairs:
    n, first, second, both = (sum(column) for column in zip(*counts, strict=True))
    return n, first, second, both


def correlation(pairs: Pairs, keep: float) -> float:
    """The sum of (a - keep) (b - keep) over the pairs, in standard errors."""
    n, first, second, both = pairs
    return (both - keep * (first + second) + n * keep**2) / (math.sqrt(n) * keep * (1 - keep))


def table(pairs: Pairs, keep: float) -> float:
    """Chi-square of the 2x2 table, with three degrees of freedom since `keep` is known."""
    n, first, second, both = pairs
    counts = np.array([both, first - both, second - both, n - first - second + both], dtype=np.float64)
    return chi2_score(counts, n * np.array([keep**2, keep * (1 - keep), (1 - keep) * keep, (1 - keep) ** 2]))


# Tests ------------------------------------------------------------------------------------------------------


def keep_rate(masks: Masks) -> float:
    n, kept = masks.count * masks.piece, sum(ones(mask) for mask in masks.each())
    return (kept - n * masks.keep) / math.sqrt(n * masks.keep * masks.rate)


def lagged(lag: int) -> list[Test]:
    """Elements and those `lag` after them: all pairs correlated, disjoint pairs in a table, all pairs by place."""

    def pair(masks: Masks, i: int) -> tuple[Words, Words]:
        mask = masks.mask(i)
        later = ahead(mask, lag)
        return mask[: later.size], later

    return [correlated(pair), tabled(pair, lag), by_place(pair)]


def related(pair: Pair) -> list[Test]:
    """Equal places of two masks."""
    return [correlated(pair), tabled(pair), by_place(pair)]


def correlated(pair: Pair) -> Test:
    """The correlation of all pairs."""

    def test(masks: Masks) -> float:
        return correlation(total(pairs_of(*pair(masks, i)) for i in range(masks.count)), masks.keep)

    return test


def tabled(pair: Pair, lag: int = 0) -> Test:
    """The 2x2 table of disjoint pairs."""

    def test(masks: Masks) -> float:
        chosen = firsts(lag, masks.piece) if lag else None
        return table(total(pairs_of(*pair(masks, i), chosen) for i in range(masks.count)), masks.keep)

    return test


def by_place(pair: Pair) -> Test:
    """The correlation at each of the 4,096 places of a block, and their chi-square: what is wrong at few places only
    shows here first."""

    def test(masks: Masks) -> float:
        n, excess, keep = 0, np.zeros(BLOCK), masks.keep
        for i in range(masks.count):
            a, b = pair(masks, i)
            whole = a.size * 64 // BLOCK
            a, b = (bits[: whole * BLOCK // 64].reshape(whole, -1) for bits in (a, b))
            excess += ones_by_place(a & b) - keep * (ones_by_place(a) + ones_by_place(b)) + whole * keep**2
            n += whole
        return score(chi2_tail(float((excess**2).sum()) / n / (keep * masks.rate) ** 2, BLOCK))

    return test


def ones_by_place(blocks: Words) -> NDArray[np.int64]:
    """In how many blocks each place is kept."""
    bits = np.unpackbits(blocks.view(np.uint8), axis=1, bitorder="little")
    counts = np.zeros(BLOCK, dtype=np.int64)
    for start in range(0, len(bits), 255):
        counts += bits[start : start + 255].sum(axis=0, dtype=np.uint8)
    return counts


def next_layer(masks: Masks, i: int) -> tuple[Words, Words]:
    return masks.mask(i, layer=0), masks.mask(i, layer=1)


def next_step(masks: Masks, i: int) -> tuple[Words, Words]:
    return masks.mask(2 * i), masks.mask(2 * i + 1)


def next_layer_one_step_before(masks: Masks, i: int) -> tuple[Words, Words]:
    return masks.mask(i + 1, layer=0), masks.mask(i, layer=1)


def next_seed(masks: Masks, i: int) -> tuple[Words, Words]:
    return masks.mask(0, seed=2 * i), masks.mask(0, seed=2 * i + 1)


def next_call(masks: Masks, i: int) -> tuple[Words, Words]:
    """Two calls of `functional.dropout` without a seed."""
    keys = seeding._FreshKeys()
    keys._entropy, keys._calls = seeding.key(masks.seed), itertools.count(2 * i + 1)
    return masks.of_key(keys.next()), masks.of_key(keys.next())


def next_call_next_lane(masks: Masks, i: int) -> tuple[Words, Words]:
    """A lane and its left neighbour in the next call without a seed: half of their seeds is the same."""
    first, second = next_call(masks, i)
    first = ahead(first, 64 // slice_bits(masks.rate))
    return first, second[: first.size]


def runs(masks: Masks) -> float:
    """Wald and Wolfowitz: the number of runs of kept and dropped elements, given how many there are of both."""
    excess = variance = 0.0
    for mask in masks.each():
        n = 64 * (mask.size - 1) + 1
        kept = ones(mask[:-1]) + int(mask[-1] & np.uint64(1))
        mean = 2 * kept * (n - kept) / n + 1
        excess += 1 + ones(mask[:-1] ^ ahead(mask, 1)) - mean
        variance += (mean - 1) * (mean - 2) / (n - 1)
    return excess / math.sqrt(variance)


def patterns(bits: int) -> Test:
    """Chi-square of the patterns of 8 or 16 neighbours."""

    def test(masks: Masks) -> float:
        counts = sum(np.bincount(mask.view(f"u{bits // 8}"), minlength=2**bits) for mask in masks.each())
        kept = np.bitwise_count(np.arange(2**bits, dtype=np.uint16)).astype(np.float64)
        share = masks.keep**kept * masks.rate ** (bits - kept)
        return chi2_score(np.asarray(counts), masks.count * masks.piece / bits * share)

    return test


def counts_of_blocks(masks: Masks) -> NDArray[np.int64]:
    """How many elements each block keeps."""
    counts = [np.bitwise_count(mask.reshape(-1, BLOCK // 64)).sum(axis=1, dtype=np.int64) for mask in masks.each()]
    return np.concatenate(counts)


def variance_of_blocks(masks: Masks) -> float:
    """Chi-square of the kept elements of every block: too even and too uneven blocks both show."""
    counts, spread = counts_of_blocks(masks), masks.keep * masks.rate
    chi2 = float(((counts - BLOCK * masks.keep) ** 2).sum()) / (BLOCK * spread)
    return (chi2 - counts.size) / math.sqrt(counts.size * (2 + (1 - 6 * spread) / (BLOCK * spread)))


@functools.lru_cache(maxsize=8)
def binomial(n: int, keep: float) -> NDArray[np.float64]:
    """The chances of 0 ... n kept elements."""
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]
    k = np.arange(n + 1)
    return np.exp(np.array(ways) + k * math.log(keep) + (n - k) * math.log(1 - keep))


def histogram_of_blocks(masks: Masks) -> float:
    """Chi-square of how many blocks keep 0 ... 4096 elements against the binomial distribution."""
    counts = np.bincount(counts_of_blocks(masks), minlength=BLOCK + 1)
    expected = counts.sum() * binomial(BLOCK, masks.keep)
    # neighbours together until twenty blocks are expected
    classes = np.minimum(np.cumsum(expected) // 20, counts.sum() // 20 - 1).astype(np.int64)
    used = np.bincount(classes) > 0
    return chi2_score(np.bincount(classes, counts)[used], np.bincount(classes, expected)[used])


def three_draws(masks: Masks) -> float:
    """The topmost slices of three successive words of a lane, multiplied.

    Three words in a row of xorshift128+ lie near few planes where the first is small (Haramoto, Matsumoto and Saito
    2022); masks that keep little look at small words.
    """
    bits = slice_bits(masks.rate)
    draw = 16 * 64 // bits
    top = np.packbits(np.arange(64) % (64 // bits) == 64 // bits - 1, bitorder="little").view(np.uint64)
    places = np.arange(BLOCK // 64) < BLOCK // 64 - 2 * draw // 64  # the last two draws of a block have no successors
    chosen = np.where(places, top, np.uint64(0)).astype(np.uint64)
    n = excess = 0.0
    p = masks.keep
    for mask in masks.each():
        a, b, c = (ahead(mask, lag) for lag in (0, draw, 2 * draw))
        use = np.resize(chosen, mask.size)[: c.size]
        a, b, c = a[: c.size] & use, b[: c.size] & use, c & use
        places_here = ones(use)
        pairs = ones(a & b) + ones(a & c) + ones(b & c)
        singles = ones(a) + ones(b) + ones(c)
        n += places_here
        excess += ones(a & b & c) - p * pairs + p**2 * singles - p**3 * places_here
    return excess / math.sqrt(n * (p * masks.rate) ** 3)


def independence() -> list[tuple[str, list[float], Test]]:
    """Every test of independence: its name, its rates, itself."""
    pairs = [(f"element + {lag}", lagged(lag)) for lag in LAGS]
    pairs += [(f"next row of {width}", lagged(width)) for width in WIDTHS]
    pairs += [
        ("next layer", related(next_layer)),
        ("next step", related(next_step)),
        ("next layer, step before", related(next_layer_one_step_before)),
        ("next seed", related(next_seed)),
        ("next unseeded call", related(next_call)),
        ("next unseeded call, lane", related(next_call_next_lane)),
    ]
    tests: list[tuple[str, list[float], Test]] = [
        (f"{name}: {kind}", RATES, test)
        for place, kind in enumerate(("correlation", "2x2 table", "by place"))
        for name, its_tests in pairs
        for test in (its_tests[place],)
    ]
    return [
        *tests,
        ("runs", RATES, runs),
        ("patterns of 8", RATES, patterns(8)),
        ("patterns of 16", RATES, patterns(16)),
        ("blocks: variance", RATES, variance_of_blocks),
        ("blocks: histogram", RATES, histogram_of_blocks),
        ("three draws of a lane", SMALL_KEEPS, three_draws),
    ]


# The report -------------------------------------------------------------------------------------------------


def judge(scores: list[float], worst_keep: float) -> bool:
    """Prints what all z-scores say together; whether they are what random masks give."""
    n, largest = len(scores), max(scores, key=abs)
    bound = -NormalDist().inv_cdf(LEVEL / n / 2)
    chance = -math.expm1(n * math.log1p(-normal_tails(largest)))
    fit = kolmogorov_smirnov(scores)
    print(f"\n{n} tests, each with masks of its own")
    print(f"largest |z| of a keep rate   {abs(worst_keep):5.2f}   limit {KEEP_LIMIT}")
    print(f"largest |z| of all           {abs(largest):5.2f}   limit {bound:.2f} (Bonferroni, {LEVEL} in all)")
    print(f"{n} perfect tests have one as large with chance {chance:.2f}")
    print(f"mean and standard deviation  {np.mean(scores):5.2f} {np.std(scores):5.2f}   expected 0 and 1")
    print(f"within 1, 2, 3               {', '.join(f'{np.mean(np.abs(scores) < k):.1%}' for k in (1, 2, 3))}", end="")
    print("   expected 68.3%, 95.4%, 99.7%")
    print(f"Kolmogorov-Smirnov           p = {fit:.3f}   limit {LEVEL}")
    passed = abs(worst_keep) < KEEP_LIMIT and abs(largest) < bound and fit > LEVEL
    print("passed" if passed else "FAILED")
    return passed


def examine(seed: int, draws: float) -> bool:
    """Runs all tests and prints their table."""
    number = 0

    def next_masks(rate: float) -> Masks:
        nonlocal number
        number += 1
        return Masks(seed + 1_000_000 * number, rate, draws)  # seeds of its own for every test

    first = next_masks(0.5)
    print(f"instruction set {cd.show_config()['simd']}; seed {seed}; {first.count * first.piece:,} draws a test\n")
    print(f"keep rate{'z':>10}")
    scores = []
    for rate in KEEP_RATES + TIE_RATES:
        scores.append(keep_rate(next_masks(rate)))
        print(f"{rate:<9g}{scores[-1]:>10.2f}", flush=True)
    worst_keep = max(scores, key=abs)
    rates: list[float] = []
    for name, its_rates, test in independence():
        if its_rates != rates:
            rates = its_rates
            print(f"\n{'z at rate':<40}" + "".join(f"{rate:>8g}" for rate in rates))
        row = [test(next_masks(rate)) for rate in rates]
        print(f"{name:<40}" + "".join(f"{z:>8.2f}" for z in row), flush=True)
        scores += row
    return judge(scores, worst_keep)


# Linear bits ------------------------------------------------------------------------------------------------


def linear_complexity(bits: list[int]) -> int:
    """The shortest linear feedback shift register that gives these bits (Berlekamp and Massey 1969)."""
    now = before = 1  # polynomials over GF(2)
    length, since, last = 0, 1, 0
    for n, bit in enumerate(bits):
        last = last << 1 | bit
        if not (now & last).bit_count() % 2:
            since += 1
        elif 2 * length <= n:
            now, before = now ^ before << since, now
            length, since = n + 1 - length, 1
        else:
            now ^= before << since
            since += 1
    return length


def one_bit(words: Words, bit: int) -> list[int]:
    """A bit of every word of the first lane."""
    chosen: list[int] = (words.reshape(-1, 16)[:, 0] >> np.uint64(bit) & np.uint64(1)).tolist()
    return chosen


def show_linearity(seed: int) -> None:
    """Prints the linear complexity of some bits of a lane; half of their number is what random bits have."""
    n = 24_000
    streams = [cd.Xorshift(seed).random_raw(16 * n), block_words(mask_key(network(seed), 0, 0), n // 32).ravel()]
    print(f"linear complexity of {n:,} bits of lane 0; seed {seed}\n")
    print(f"{'bit of the word':<17}{'Xorshift':>10}{'words of masks':>16}")
    for bit in (0, 1, 2, 7, 15, 63):
        found = [linear_complexity(one_bit(words, bit)) for words in streams]
        print(f"{bit:<17}{found[0]:>10,}{found[1]:>16,}", flush=True)


# Raw words --------------------------------------------------------------------------------------------------


def generator_words(seed: int) -> Iterator[Words]:
    """The words of Xorshift(seed)."""
    rng = cd.Xorshift(seed)
    while True:
        yield rng.random_raw(RAW)


def block_words(key: tuple[int, int], blocks: int, bits: int = 8) -> Words:
    """The words whose slices of `bits` bits are compared to make a mask: each row a block, seeded afresh."""
    words = np.empty((blocks, BLOCK * bits // 64), dtype=np.uint64)
    states = np.hstack(reference.block_lanes(key, blocks))
    generator = xorshift.Xorshift(states[0])
    for row, state in zip(words, states, strict=True):
        generator.write_state(state, 0)
        generator.random_raw(row)
    return words


def mask_words(seed: int) -> Iterator[Words]:
    """The words of masks of two layers in steps 0, 1, 2 ..."""
    key, step = seeding.key(seed), 0
    while True:
        for layer in range(2):
            yield block_words(reference.stream_key(key, layer, step), RAW * 64 // (8 * BLOCK))
        step += 1


def mask_bits(seed: int) -> Iterator[Words]:
    """The masks of two layers in steps 0, 1, 2 ..., at rate 0.5."""
    masks, step = Masks(seed, 0.5, 0), 0
    while True:
        for layer in range(2):
            yield masks.mask(step, layer)
        step += 1


def write_words(pieces: Iterator[Words]) -> None:
    """Until the reader has enough."""
    try:
        with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as out:
            for words in pieces:
                left = memoryview(np.ascontiguousarray(words, dtype="<u8")).cast("B")
                while left:
                    left = left[out.write(left) :]
    except BrokenPipeError:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--draws", type=float, default=1e9, metavar="N", help="of each test, rounded up to whole masks of 2^22"
    )
    parser.add_argument("--quick", action="store_true", help="10^7 draws of each test")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--raw", action="store_true", help="write random words to standard output without end")
    parser.add_argument("--linear", action="store_true", help="show which bits of the words are linear")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--masks", action="store_true", help="with --raw: the words that masks are made of")
    kind.add_argument("--bits", action="store_true", help="with --raw: masks of rate 0.5")
    arguments = parser.parse_args()
    if arguments.seed < 0:
        parser.error(f"--seed must not be negative, got {arguments.seed}")
    if not 1e6 <= arguments.draws < math.inf:
        parser.error(f"--draws must be at least 1e6, got {arguments.draws:g}")
    if arguments.raw:
        words = mask_words if arguments.masks else mask_bits if arguments.bits else generator_words
        write_words(words(arguments.seed))
    elif arguments.masks or arguments.bits:
        parser.error("--masks and --bits go with --raw")
    elif arguments.linear:
        show_linearity(arguments.seed)
    else:
        sys.exit(0 if examine(arguments.seed, 1e7 if arguments.quick else arguments.draws) else 1)


if __name__ == "__main__":
    main()

"""Gaussian dropout, Gaussian noise, alpha dropout and concrete dropout.

    Gaussian dropout   y = x (1 + s e),  s = sqrt(rate / (1 - rate)),  e ~ N(0, 1)      Srivastava et al. 2014, 10
    Gaussian noise     y = x + std e
    alpha dropout      y = a (x if kept else alpha') + b                               Klambauer et al. 2017

with alpha' = -1.0507 * 1.6733, a = 1 / sqrt((1 - rate) (1 + rate alpha'^2)) and b = -a rate alpha': the mean and the
variance of inputs with mean 0 and variance 1 are kept.

Normal numbers are drawn in blocks of 4,096, each with a generator of its own, as masks are. A word gives two of them
(Box and Muller 1958): its upper half the radius, its lower half the angle.

    word     0   1  ... 15        16 words become 32 numbers:
    cosine   n0  n1 ... n15       n_i      = sqrt(-2 log u) cos(2 pi v)
    sine     n16 n17 .. n31       n_(16+i) = sqrt(-2 log u) sin(2 pi v)

What concrete dropout keeps (concrete.pxd has the formulas) is drawn in the same blocks, and a word gives two as well.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.concrete cimport concrete_of_odds, concrete_row, concrete_row_backward, kept_of, odds_of
from cydrop._core.dropout cimport BLOCK, select_row
from cydrop._core.elementary cimport cosine_of_turns, log32, sine_of_turns
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.xorshift cimport LANES, Lanes, StreamKey, draw, seed_block

cdef extern from "fma.h" nogil:
    float sqrtf(float x)

KINDS = {"multiply": MULTIPLY, "add": ADD, "alpha": ALPHA}

cdef enum:
    NORMALS = -1                # in the place of odds: normal numbers are drawn

cdef double DROPPED = -1.7580993408473766      # alpha', the value of a dropped element


cdef inline void normals_of_words(const uint64_t* words, float* out) noexcept nogil:
    """2 * LANES normal numbers from LANES words."""
    cdef float radius, turns
    cdef int i
    for i in range(LANES):
        # (0, 1] from the upper 31 bits, [-1/2, 1/2) from the lower 32
        radius = sqrtf(<float>-2.0 * log32(
            <float><int32_t>(words[i] >> 33) * <float>4.656612873077393e-10 + <float>2.3283064365386963e-10))
        turns = <float><int32_t>(words[i] & <uint64_t>0xFFFFFFFF) * <float>2.3283064365386963e-10
        out[i] = radius * cosine_of_turns(turns)
        out[LANES + i] = radius * sine_of_turns(turns)


cdef inline void keeps_of_words(const uint64_t* words, float odds, float* out) noexcept nogil:
    """What is kept of 2 * LANES elements, from LANES words: first by their upper halves, then by the lower ones."""
    cdef int i
    for i in range(LANES):
        out[i] = kept_of(<uint32_t>(words[i] >> 32), odds)
        out[LANES + i] = kept_of(<uint32_t>(words[i] & <uint64_t>0xFFFFFFFF), odds)


cdef inline void numbers_of_words(const uint64_t* words, float odds, float* out) noexcept nogil:
    if odds < <float>0.0:
        normals_of_words(words, out)
    else:
        keeps_of_words(words, odds, out)


cdef void draw_in_block(
    StreamKey key, uint64_t block, float odds, Py_ssize_t first, float* out, Py_ssize_t n
) noexcept nogil:
    """Numbers first..first+n-1 of a block, first + n <= BLOCK."""
    cdef Lanes lanes
    cdef uint64_t[LANES] words
    cdef float[2 * LANES] partly            # wanted
    cdef Py_ssize_t i = 0, some
    seed_block(&lanes, key, block)
    while first >= 2 * LANES:
        draw(&lanes, words)
        first -= 2 * LANES
    while i < n:
        if first == 0:
            while i + 2 * LANES <= n:
                draw(&lanes, words)
                numbers_of_words(words, odds, out + i)
                i += 2 * LANES
        some = min(2 * LANES - first, n - i)
        if some > 0:
            draw(&lanes, words)
            numbers_of_words(words, odds, partly)
            memcpy(out + i, partly + first, some * sizeof(float))
            i += some
        first = 0


cdef void part_of_block(
    StreamKey key, Py_ssize_t block, float odds, float* out, Py_ssize_t first, Py_ssize_t n
) noexcept nogil:
    """Those of elements first..first+n-1 that a block has."""
    cdef Py_ssize_t start = max(first, block * BLOCK), end = min(first + n, (block + 1) * BLOCK)
    draw_in_block(key, <uint64_t>block, odds, start - block * BLOCK, out + (start - first), end - start)


cdef inline void draw_elements(
    StreamKey key, float odds, float* out, Py_ssize_t first, Py_ssize_t n, int n_threads
) noexcept nogil:
    """Elements first..first+n-1 of a stream."""
    cdef Py_ssize_t block, start = first // BLOCK, end = (first + n + BLOCK - 1) // BLOCK
    if n_threads == 1 or end - start == 1:
        for block in range(start, end):
            part_of_block(key, block, odds, out, first, n)
    else:
        for block in prange(start, end, num_threads=n_threads, schedule="static"):
            part_of_block(key, block, odds, out, first, n)


cdef void draw_normals(StreamKey key, float* out, Py_ssize_t first, Py_ssize_t n, int n_threads) noexcept nogil:
    """Elements first..first+n-1 of a stream of standard normal numbers."""
    draw_elements(key, <float>NORMALS, out, first, n, n_threads)


cdef void draw_keeps(
    StreamKey key, float odds, float* out, Py_ssize_t first, Py_ssize_t n, int n_threads
) noexcept nogil:
    """What concrete dropout of these odds, rate / (1 - rate), keeps of elements first..first+n-1 of a stream."""
    draw_elements(key, odds, out, first, n, n_threads)


cdef Affine alpha_affine(double rate) noexcept nogil:
    """What alpha dropout does to kept and to dropped elements; all zeros at rate 1."""
    cdef Affine result
    cdef double a
    memset(&result, 0, sizeof(Affine))
    if rate < 1.0:
        a = 1.0 / sqrt((1.0 - rate) * (1.0 + rate * DROPPED * DROPPED))
        result.scale = <float>a
        result.base = <float>DROPPED
        result.floor = <float>(a * DROPPED * (1.0 - rate))
    return result


def normals(float[::1] out, uint64_t k0, uint64_t k1, int n_threads, Py_ssize_t first=0):
    """Standard normal numbers, from element `first` of the stream with key k0, k1 on."""
    cdef StreamKey key
    key.k0 = k0
    key.k1 = k1
    cdef uint64_t control
    if out.shape[0]:
        with nogil:
            control = exact_floats(n_threads)
            draw_normals(key, &out[0], first, out.shape[0], n_threads)
            restore_floats(control)


def normal_noise(
    int variant,                # of KINDS
    const float[::1] x,         # IN
    const float[::1] noise,     # IN, standard normal
    float[::1] out,             # OUT, may be x
    float deviation,
    int n_threads,
):
    """out = x (1 + deviation noise), or what else the variant makes of normal numbers."""
    cdef Py_ssize_t n = x.shape[0], i
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, n, BLOCK, num_threads=n_threads, schedule="static"):
            normals_row(variant, &x[i], &noise[i], deviation, &out[i], min(<Py_ssize_t>BLOCK, n - i))
        restore_floats(control)


def alpha_dropout(
    const float[::1] x,         # IN
    const uint64_t[::1] bits,   # IN
    float[::1] out,             # OUT, may be x
    double rate,
    bint backward,              # only multiplies by a
    int n_threads,
):
    """out = a x + b where the mask keeps, else a alpha' + b; backward: a x where it keeps, else 0"""
    cdef Py_ssize_t n = x.shape[0], i
    cdef Affine affine = alpha_affine(rate)
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, n, BLOCK, num_threads=n_threads, schedule="static"):
            if backward:
                select_row(&bits[0], i, &x[i], affine.scale, &out[i], min(<Py_ssize_t>BLOCK, n - i))
            else:
                alpha_row(&bits[0], i, &x[i], affine, &out[i], min(<Py_ssize_t>BLOCK, n - i))
        restore_floats(control)


def rate_of_logit(float logit):
    """1 / (1 + e^-logit), the same on every machine."""
    cdef double odds = odds_of(logit)
    return odds / (1.0 + odds)


def keeps(float[::1] out, float odds, uint64_t k0, uint64_t k1, int n_threads, Py_ssize_t first=0):
    """What concrete dropout keeps, from element `first` of the stream with key k0, k1 on; odds = rate / (1 - rate)."""
    cdef StreamKey key
    key.k0 = k0
    key.k1 = k1
    cdef uint64_t control
    if out.shape[0]:
        with nogil:
            control = exact_floats(n_threads)
            draw_keeps(key, odds, &out[0], first, out.shape[0], n_threads)
            restore_floats(control)


def concrete_dropout(
    const float[::1] x,         # IN
    const float[::1] keep,      # IN
    float[::1] out,             # OUT, may be x
    float odds,                 # rate / (1 - rate)
    int n_threads,
):
    """out = x keep / (1 - rate)"""
    cdef Py_ssize_t n = x.shape[0], i
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, n, BLOCK, num_threads=n_threads, schedule="static"):
            concrete_row(&x[i], &keep[i], <float>1.0 + odds, &out[i], min(<Py_ssize_t>BLOCK, n - i))
        restore_floats(control)


def concrete_dropout_backward(
    const float[::1] x,         # IN
    const float[::1] keep,      # IN
    float[::1] dx,              # INOUT, d loss / d y becomes d loss / d x
    double[::1] sums,           # OUT, d loss / d logit of every BLOCK of elements
    float odds,
    int n_threads,
):
    """dx = dy keep / (1 - rate), sums = those of dy dy/dlogit"""
    cdef Py_ssize_t n = x.shape[0], block, blocks = (n + BLOCK - 1) // BLOCK
    cdef uint64_t control
    if sums.shape[0] < blocks or keep.shape[0] < n or dx.shape[0] < n:
        raise ValueError(f"sums must have {blocks} elements, got {sums.shape[0]}")
    with nogil:
        control = exact_floats(n_threads)
        for block in prange(blocks, num_threads=n_threads, schedule="static"):
            sums[block] = concrete_row_backward(
                &x[block * BLOCK], &keep[block * BLOCK], concrete_of_odds(odds), &dx[block * BLOCK],
                min(<Py_ssize_t>BLOCK, n - block * BLOCK))
        restore_floats(control)

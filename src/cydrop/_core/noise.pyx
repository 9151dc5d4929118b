"""Gaussian dropout, Gaussian noise and alpha dropout.

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
"""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.dropout cimport BLOCK, select_row
from cydrop._core.elementary cimport cosine_of_turns, log32, sine_of_turns
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.xorshift cimport LANES, Lanes, StreamKey, draw, seed_block

cdef extern from "fma.h" nogil:
    float sqrtf(float x)

KINDS = {"multiply": MULTIPLY, "add": ADD, "alpha": ALPHA}

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


cdef void normal_block(StreamKey key, uint64_t block, Py_ssize_t first, float* out, Py_ssize_t n) noexcept nogil:
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
                normals_of_words(words, out + i)
                i += 2 * LANES
        some = min(2 * LANES - first, n - i)
        if some > 0:
            draw(&lanes, words)
            normals_of_words(words, partly)
            memcpy(out + i, partly + first, some * sizeof(float))
            i += some
        first = 0


cdef void part_of_block(
    StreamKey key, Py_ssize_t block, float* out, Py_ssize_t first, Py_ssize_t n
) noexcept nogil:
    """Those of elements first..first+n-1 that a block has."""
    cdef Py_ssize_t start = max(first, block * BLOCK), end = min(first + n, (block + 1) * BLOCK)
    normal_block(key, <uint64_t>block, start - block * BLOCK, out + (start - first), end - start)


cdef void draw_normals(StreamKey key, float* out, Py_ssize_t first, Py_ssize_t n, int n_threads) noexcept nogil:
    """Elements first..first+n-1 of a stream of standard normal numbers."""
    cdef Py_ssize_t block, start = first // BLOCK, end = (first + n + BLOCK - 1) // BLOCK
    if n_threads == 1 or end - start == 1:
        for block in range(start, end):
            part_of_block(key, block, out, first, n)
    else:
        for block in prange(start, end, num_threads=n_threads, schedule="static"):
            part_of_block(key, block, out, first, n)


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

"""Dropout masks, one bit per element, and their use.

A mask is a function of (seed, layer, step, row, column) alone. Elements are numbered row by row and cut into
blocks of 4,096; every block has a generator of its own, so any thread can draw any block:

    element     0 ... 4095 | 4096 ... 8191 | 8192 ...
                block 0    | block 1       | block 2       <- seeded with (stream key, block number)

A part of the elements is drawn as the blocks that cover it, so that its first one is somewhere in the first block:

    drawn              block 1          | block 2
    wanted                 5000 ... 8191  8192 ... 9000
    in the words           bit 904 = place_in_block(5000)

Within a block, element j looks at slice j of the random words: kept if it is below the threshold. Slices have 8
bits where that is exact (rates that are multiples of 1/256, such as .5), else 16, and on a tie (one in 65,536)
16 more bits decide.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cydrop._core.matrix cimport Matrix
from cydrop._core.xorshift cimport StreamKey

cdef enum:
    BLOCK = 4096                # elements of a block
    BLOCK_WORDS = 64            # words of its mask
    STREAMED = 1 << 22          # elements: an output of more is not in the caches any more when somebody reads it

cdef extern from "bitmask.h" nogil:
    uint64_t bits_at(const uint64_t* mask, int64_t bit)
    void select_scaled(uint64_t bits, const float* x, float scale, float* out, int n)


cdef inline uint32_t keep_threshold(double rate) noexcept nogil:
    """keep = 1 - rate as a 32-bit integer, for 0 < rate < 1: right to 2^-32."""
    cdef double scaled = (1.0 - rate) * 4294967296.0 + 0.5
    if scaled >= 4294967295.0:
        return <uint32_t>0xFFFFFFFF
    return <uint32_t>scaled


cdef inline Py_ssize_t place_in_block(Py_ssize_t element) noexcept nogil:
    """Which bit of its block's mask an element is."""
    return element % BLOCK


cdef inline Py_ssize_t mask_words(Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    """Words that the mask of elements first..first+n-1 needs: whole draws of 128 elements from the beginning of a block
    on, and one to spare for bits_at. Never more than for first = BLOCK - 1."""
    return (place_in_block(first) + n + 127) // 128 * 2 + 1


cdef inline void select_row(
    const uint64_t* mask, int64_t bit, const float* x, float scale, float* out, Py_ssize_t n
) noexcept nogil:
    """out[j] = x[j] * scale where bit (bit + j) of the mask is set, else 0; out may be x."""
    cdef Py_ssize_t j = 0
    while j < n:
        select_scaled(bits_at(mask, bit + j), x + j, scale, out + j, <int>min(<Py_ssize_t>64, n - j))
        j += 64


cdef void select_rows(
    const uint64_t* mask, int64_t first, Py_ssize_t mask_row, Matrix x, float scale, Matrix out, Py_ssize_t rows,
    Py_ssize_t cols) noexcept nogil
cdef void draw_mask(
    StreamKey key, uint32_t threshold, uint64_t* bits, Py_ssize_t first, Py_ssize_t n, int n_threads) noexcept nogil

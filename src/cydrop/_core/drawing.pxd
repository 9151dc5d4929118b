"""Masks and keys as operations draw them."""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from cydrop._core.dropout cimport draw_mask, keep_threshold, mask_words, place_in_block
from cydrop._core.operation cimport Bound, Op, Source, Step
from cydrop._core.serial cimport SERIAL_COPY
from cydrop._core.xorshift cimport StreamKey, stream_key


cdef inline StreamKey key_of(const Source* source, uint64_t number, const uint64_t* seeds) noexcept nogil:
    """The key of this step, or of the caller's seeds."""
    cdef StreamKey seed = source.seed
    if seeds != NULL:
        seed.k0, seed.k1 = seeds[2 * source.column], seeds[2 * source.column + 1]
    return stream_key(seed, source.stream, number)


cdef inline double rate_of(const Source* source, const Step* step) noexcept nogil:
    """The rate in force, 0 where nothing is drawn."""
    return step.rates[source.column] if source.column >= 0 else 0.0


cdef inline void draw_bits(
    StreamKey key, double rate, uint64_t* bits, Py_ssize_t first, Py_ssize_t n, int threads
) noexcept nogil:
    """The mask of elements first..first+n-1; the first one's bit is place_in_block(first)."""
    if rate >= 1.0:
        memset(bits, 0, mask_words(first, n) * sizeof(uint64_t))
    else:
        draw_mask(key, keep_threshold(rate), bits, first, n, threads if n > SERIAL_COPY else 1)


cdef inline Py_ssize_t member_bits(const Op* op) noexcept nogil:
    """From one member's mask for its rows to the next one's: whole words."""
    return (op.n_out + 63) // 64 * 64


cdef inline const uint64_t* member_mask(const Op* op, const Bound* b, const Step* step) noexcept nogil:
    """The mask in force, which is drawn from the beginning of a block on, or given for all members."""
    cdef Py_ssize_t first = step.first_member * member_bits(op)
    if not op.shared or op.members == 0:
        return b.mask
    return b.mask + (first if b.given else place_in_block(first)) // 64


cdef inline void draw_units(const Op* op, Bound* b, double rate, const Step* step) noexcept nogil:
    """The mask of a dropout layer or of alpha dropout, unless it is given or not needed."""
    cdef Py_ssize_t n = op.n_out if op.shared else step.rows * op.n_out
    cdef Py_ssize_t first = 0 if op.shared or b.given else step.first_row * op.n_out
    b.quiet = rate <= 0.0 and not b.given
    if op.shared and op.members > 0:
        first = step.first_member * member_bits(op)
    b.epilogue.mask_first = place_in_block(first)
    if op.shared and op.members > 0:                    # `member_mask` is where it begins
        b.epilogue.mask_first = 0
    elif step.members > 0 and b.given:                  # for all of them
        b.epilogue.mask_first = 0 if op.shared else step.first_row * op.n_out
    if not (b.quiet or b.given):
        draw_bits(key_of(&op.noise, step.shared_number if op.shared else step.number, step.seeds), rate, b.mask, first,
                  n, step.threads)

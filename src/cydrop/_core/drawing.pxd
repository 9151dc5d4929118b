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


cdef inline void draw_units(const Op* op, Bound* b, double rate, const Step* step) noexcept nogil:
    """The mask of a dropout layer or of alpha dropout, unless it is given or not needed."""
    cdef Py_ssize_t n = op.n_out if op.shared else step.rows * op.n_out
    cdef Py_ssize_t first = 0 if op.shared or b.given else step.first_row * op.n_out
    b.quiet = rate <= 0.0 and not b.given
    if step.members > 0 and op.shared and op.inside:    # one for each
        first = step.first_member * op.n_out
    b.epilogue.mask_first = place_in_block(first)
    if step.members > 0 and b.given:                    # for all of them
        b.epilogue.mask_first = first if op.shared else step.first_row * op.n_out
    if not (b.quiet or b.given):
        draw_bits(key_of(&op.noise, step.shared_number if op.shared else step.number, step.seeds), rate, b.mask, first,
                  n, step.threads)

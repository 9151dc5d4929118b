"""A block with a way around it (He et al. 2016), y = x + F(x): a fork before the operations of F and a join after them.

    forward    x -> fork ------------- F ------------- join -> x + F(x)         the join reads y of the fork
                     '- - - - - - - - - - - - - - - - - -^

    backward  dx <- fork <------------ F <------------ join <- dy               the fork adds what the join put aside
                     ^- - - - - - - - - - - - - - - - - -'

Stochastic depth (Huang et al. 2016) is the join's: in training it draws a bit for each row, whether the row's F(x) is
kept, and multiplies what is kept by 1 / (1 - rate). `numbers` of both: how many operations the join comes after the
fork. A workspace has its operations in their order, so that the join finds the fork's memory by that.
"""

from cython.parallel cimport prange
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.drawing cimport draw_bits, key_of, rate_of
from cydrop._core.dropout cimport BLOCK, bits_at, mask_words, place_in_block
from cydrop._core.map_op cimport through_epilogue
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Step, Upstream, take, take_matrix
from cydrop._core.serial cimport SERIAL_COPY
from cydrop._core.shards cimport add_floats

cdef extern from "fma.h" nogil:
    float fma32(float a, float b, float c)


cdef inline int threads_of_rows(const Op* op, const Step* step) noexcept nogil:
    return step.threads if step.rows * op.n_out > SERIAL_COPY else 1


# The fork -------------------------------------------------------------------------------------------------------


cdef inline bint fork_fits(const Op* op) noexcept nogil:
    return op.n_in == op.n_out and op.weight.data == NULL and op.n_numbers == 1 and op.numbers[0] >= 1


cdef inline void fork_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    """In predictions it has a y of its own, since those that take turns are overwritten before the join."""
    if layout.training:
        b.aside = take_matrix(layout, op.n_out)
    else:
        b.y = take_matrix(layout, op.n_out)
        b.z = b.y


cdef inline void fork_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Py_ssize_t r
    for r in prange(step.rows, num_threads=threads_of_rows(op, step), schedule="static"):
        memcpy(b.y.data + r * b.y.row, b.x.data + r * b.x.row, op.n_out * sizeof(float))


cdef inline void fork_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Py_ssize_t r
    for r in prange(step.rows, num_threads=threads_of_rows(op, step), schedule="static"):
        add_floats(upstream.dz.data + r * upstream.dz.row, b.aside.data + r * b.aside.row, op.n_out)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors fork_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits, doors.lay_out = fork_fits, fork_lay_out
    doors.forward, doors.backward = fork_forward, fork_backward
    doors.forks = True
    return doors


# The join -------------------------------------------------------------------------------------------------------


cdef inline bint join_fits(const Op* op) noexcept nogil:
    """Whether its fork is where it says."""
    cdef const Op* fork
    if op.n_in != op.n_out or op.weight.data != NULL or op.n_numbers != 1:
        return False
    if op.numbers[0] < 1 or op.numbers[0] > op.place:
        return False
    fork = op - <Py_ssize_t>op.numbers[0]
    return fork.doors.forks and fork.numbers[0] == op.numbers[0] and fork.n_out == op.n_out


cdef inline void join_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    if layout.draws and op.noise.column >= 0:
        b.mask = <uint64_t*>take(layout, 2 * mask_words(BLOCK - 1, layout.capacity))


cdef inline void join_begin(const Op* op, Bound* b) noexcept nogil:
    b.quiet = True


cdef inline void join_draw(const Op* op, Bound* b, const Step* step) noexcept nogil:
    """A bit for each row."""
    cdef double rate = rate_of(&op.noise, step)
    cdef Py_ssize_t first = 0 if b.given else step.first_row
    b.quiet = rate <= 0.0 and not b.given
    b.scale = <float>(1.0 / (1.0 - rate)) if rate < 1.0 else <float>1.0
    b.epilogue.mask_first = place_in_block(first)
    if step.members > 0 and b.given:        # for all of them
        b.epilogue.mask_first = step.first_row
    if not (b.quiet or b.given):
        draw_bits(key_of(&op.noise, step.number, step.seeds), rate, b.mask, first, step.rows, step.threads)


cdef inline float factor_of(const Bound* b, Py_ssize_t r) noexcept nogil:
    """What F(x) of a row is multiplied by; 0: it is dropped."""
    if b.quiet:
        return 1.0
    return b.scale if bits_at(b.mask, b.epilogue.mask_first + <int64_t>r) & 1 else <float>0.0


cdef inline void join_row(const float* x, float factor, const float* around, float* y, Py_ssize_t n) noexcept nogil:
    """y = around + factor x; a row that is dropped is not looked at."""
    cdef Py_ssize_t j
    if factor == <float>0.0:
        memcpy(y, around, n * sizeof(float))
        return
    for j in range(n):
        y[j] = fma32(x[j], factor, around[j])


cdef inline void join_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Py_ssize_t r
    cdef const Bound* fork = b - <Py_ssize_t>op.numbers[0]
    for r in prange(step.rows, num_threads=threads_of_rows(op, step), schedule="static"):
        join_row(b.x.data + r * b.x.row, factor_of(b, r), fork.y.data + r * fork.y.row, b.y.data + r * b.y.row,
                 op.n_out)


cdef inline void join_gradient_row(float* dz, float factor, float* aside, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    memcpy(aside, dz, n * sizeof(float))
    if factor == <float>0.0:
        memset(dz, 0, n * sizeof(float))
    elif factor != <float>1.0:
        for j in range(n):
            dz[j] = dz[j] * factor


cdef inline void join_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Py_ssize_t r
    cdef const Bound* fork = b - <Py_ssize_t>op.numbers[0]
    for r in prange(step.rows, num_threads=threads_of_rows(op, step), schedule="static"):
        join_gradient_row(upstream.dz.data + r * upstream.dz.row, factor_of(b, r), fork.aside.data + r * fork.aside.row,
                          op.n_out)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors join_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits = join_fits
    doors.lay_out, doors.begin, doors.draw = join_lay_out, join_begin, join_draw
    doors.forward, doors.backward = join_forward, join_backward
    return doors

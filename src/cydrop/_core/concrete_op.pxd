"""Dropout of a rate that is learned: in training concrete.pxd's, in samples ordinary masks of the rates in force, in
prediction the identity.

    x  ->  what is kept, scale  ->  y          dx  <-  the same  <-  dz
                                               d logit  <-  sums of rows, one after another

The weight is the logit of the rate. What draws it to the prior comes with the update (learned_rates.pxd).
"""

from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from cydrop._core.concrete cimport Concrete, concrete_of_odds, concrete_row, concrete_row_backward, odds_of
from cydrop._core.drawing cimport draw_units, key_of, rate_of
from cydrop._core.dropout cimport select_row
from cydrop._core.map_op cimport lay_out_mask, through_epilogue
from cydrop._core.noise cimport draw_keeps
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Step, Upstream, take, update_tensor
from cydrop._core.serial cimport SERIAL_COPY
from cydrop._core.shard_sums cimport count_gradients, in_tree


cdef inline bint concrete_fits(const Op* op) noexcept nogil:
    return op.n_in == op.n_out and op.weight.size == 1 and op.bias.data == NULL


cdef inline void concrete_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    if layout.training:
        b.noise = take(layout, layout.capacity * op.n_out)
        b.sums = take(layout, 2 * layout.capacity)      # doubles
    else:
        lay_out_mask(op, b, layout)


cdef inline void concrete_begin(const Op* op, Bound* b) noexcept nogil:
    b.quiet = True
    b.z = b.x


cdef inline void concrete_draw(const Op* op, Bound* b, const Step* step) noexcept nogil:
    """In training what is kept of every element, at the rate that the logit says."""
    cdef Py_ssize_t n = step.rows * op.n_out
    cdef double rate = rate_of(&op.noise, step)
    if not step.training:
        b.scale = 1.0 if rate >= 1.0 else <float>(1.0 / (1.0 - rate))
        draw_units(op, b, rate, step)
        return
    b.quiet = False
    b.deviation = odds_of(op.weight.data[0])            # the update may change the logit before the way back
    draw_keeps(key_of(&op.noise, step.number, step.seeds), b.deviation, b.noise, step.first_row * op.n_out, n,
               step.threads if n > SERIAL_COPY else 1)


cdef inline void concrete_row_forward(const Op* op, const Bound* b, Py_ssize_t r, bint training) noexcept nogil:
    cdef const float* x = b.x.data + r * b.x.row
    cdef float* y = b.y.data + r * b.y.row
    if b.quiet:
        memcpy(y, x, op.n_out * sizeof(float))
    elif training:
        concrete_row(x, b.noise + r * op.n_out, <float>1.0 + b.deviation, y, op.n_out)
    else:
        select_row(b.mask, b.epilogue.mask_first + r * op.n_out, x, b.scale, y, op.n_out)


cdef inline void concrete_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Py_ssize_t r
    cdef int threads = step.threads if step.rows * op.n_out > SERIAL_COPY else 1
    for r in prange(step.rows, num_threads=threads, schedule="static"):
        concrete_row_forward(op, b, r, step.training)


cdef inline float sum_of_rows(const double* sums, Py_ssize_t first, Py_ssize_t stop) noexcept nogil:
    cdef double total = 0.0
    cdef Py_ssize_t r
    for r in range(first, stop):
        total += sums[r]
    return <float>total


cdef inline void concrete_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Op own
    cdef Py_ssize_t r
    cdef int s, threads = step.threads if step.rows * op.n_out > SERIAL_COPY else 1
    cdef double* sums = <double*>b.sums
    cdef Concrete c = concrete_of_odds(b.deviation)
    for r in prange(step.rows, num_threads=threads, schedule="static"):
        sums[r] = concrete_row_backward(b.x.data + r * b.x.row, b.noise + r * op.n_out, c,
                                        upstream.dz.data + r * upstream.dz.row, op.n_out)
    for s in range(step.shards):
        own = in_tree(op, step)
        own.weight.gradient[0] = sum_of_rows(sums, step.bounds[s], step.bounds[s + 1])
        count_gradients(op, &own, step, s)
    if step.shards == 0:
        op.weight.gradient[0] = sum_of_rows(sums, 0, step.rows)
    if upstream.updating:
        op.weight.gradient[0] += op.weight.update.pull
        update_tensor(&op.weight)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors concrete_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits, doors.lay_out, doors.begin, doors.draw = concrete_fits, concrete_lay_out, concrete_begin, concrete_draw
    doors.forward, doors.backward = concrete_forward, concrete_backward
    return doors

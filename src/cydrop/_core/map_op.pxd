"""A map, y = drop(f(x)): an operation that is nothing but an epilogue. The smallest family, to begin another from.

Where a mask that all rows share leaves units out, x is gathered first (leave_out.pxd), and what comes back is spread:

    x  ->  gather kept columns  ->  f, scale  ->  y          dz  <-  spread  <-  dz of kept columns
"""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memset

from cydrop._core.activations cimport IDENTITY, RELU
from cydrop._core.dense cimport finish_backward, finish_forward
from cydrop._core.epilogue cimport Epilogue
from cydrop._core.matrix cimport MARGIN, Matrix
from cydrop._core.drawing cimport draw_units, member_bits, member_mask, rate_of
from cydrop._core.dropout cimport BLOCK, mask_words
from cydrop._core.gather cimport Kept, gather, spread
from cydrop._core.operation cimport MAP_LANES, Bound, Doors, Layout, Op, Upstream, Step, swap, take, take_matrix
from cydrop._core.serial cimport SERIAL_COPY


cdef inline void epilogue_pass(
    const Epilogue* e, Matrix z, Matrix y, Matrix dz, Py_ssize_t rows, Py_ssize_t cols, bint backward, int threads
) noexcept nogil:
    """An epilogue by itself, forward into y or backward in place on dz."""
    cdef Py_ssize_t r
    if backward and e.activation == IDENTITY and e.mask == NULL and e.scale == <float>1.0:
        return
    if threads == 1 or rows * cols <= SERIAL_COPY:
        if backward:
            finish_backward(e, z, y, dz, 0, rows, 0, cols)
        else:
            finish_forward(e, z, y, 0, rows, 0, cols, False)
        return
    for r in prange(rows, num_threads=threads, schedule="static"):
        if backward:
            finish_backward(e, z, y, dz, r, 1, 0, cols)
        else:
            finish_forward(e, z, y, r, 1, 0, cols, False)


cdef inline void through_epilogue(
    const Bound* below, Upstream* upstream, Py_ssize_t cols, const Step* step
) noexcept nogil:
    """From d loss / d y of the operation below to d loss / d z, for families whose product does not do it."""
    if below != NULL:
        epilogue_pass(&below.epilogue, below.z, below.y, upstream.dz, step.rows, cols, True, step.threads)


cdef inline bint keeps_z(const Op* op) noexcept nogil:
    """Whether the activation's derivative needs what came in."""
    return op.activation != IDENTITY and op.activation != RELU


cdef inline void lay_out_mask(const Op* op, Bound* b, Layout* layout) noexcept nogil:
    cdef Py_ssize_t bits = layout.capacity * op.n_out
    if op.shared:
        bits = max(bits, op.members * member_bits(op))      # of all, where they are given
    if layout.draws and op.noise.column >= 0:
        b.mask = <uint64_t*>take(layout, 2 * mask_words(BLOCK - 1, bits))


cdef inline void lay_out_places(const Op* op, Bound* b, Layout* layout) noexcept nogil:
    if layout.training and op.leaves_out:
        b.places = <int32_t*>take(layout, op.n_out)
        b.gathered_biases = take(layout, op.n_out + MARGIN)


cdef inline void map_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    lay_out_mask(op, b, layout)
    lay_out_places(op, b, layout)
    if layout.training and op.leaves_out and keeps_z(op):
        b.gathered_inputs = take_matrix(layout, op.n_out)


cdef inline void map_begin(const Op* op, Bound* b) noexcept nogil:
    b.z = b.x


cdef inline void epilogue_draw(const Op* op, Bound* b, const Step* step) noexcept nogil:
    """The mask of the dropout in an epilogue."""
    cdef double rate
    if op.noise.column < 0:
        return
    rate = rate_of(&op.noise, step)
    b.epilogue.mask_row = 0 if op.shared else op.n_out
    b.epilogue.scale = 1.0 if op.vanilla or rate >= 1.0 else <float>(1.0 / (1.0 - rate))
    draw_units(op, b, rate, step)
    if not b.quiet:
        b.epilogue.mask = member_mask(op, b, step)


cdef inline void map_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Kept every
    if b.gathered:
        memset(&every, 0, sizeof(Kept))
        gather(b.x, &every, step.rows, &b.kept, b.n_out, b.z, step.threads)
    epilogue_pass(&b.epilogue, b.z, b.y, b.y, step.rows, b.n_out, False, step.threads)


cdef inline void map_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Py_ssize_t r
    if b.gathered:
        for r in range(step.rows):
            spread(upstream.dz.data + r * upstream.dz.row, b.kept.bits, 0, op.n_out,
                   upstream.spare.data + r * upstream.spare.row)
        swap(upstream)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors map_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.lay_out, doors.begin, doors.draw = map_lay_out, map_begin, epilogue_draw
    doors.forward, doors.backward = map_forward, map_backward
    doors.has_epilogue = doors.gathers = True
    doors.lanes = MAP_LANES
    return doors

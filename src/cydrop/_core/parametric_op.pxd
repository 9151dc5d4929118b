"""Maps that have a learned number for every unit, and an epilogue: y = drop(f(w x)), y = drop(f(x + w (g(x) - x))).

The variant says which, and g (activations.pyx has the formulas). The operation above undoes the epilogue alone, what is
left of the way back is one pass over the rows, with the gradient of w:

    x  ->  w, g  ->  z  ->  f, dropout  ->  y           dx  <-  w, g'  <-  dz
                                                        dw  <-  sums over blocks of rows
"""

from cython.parallel cimport prange
from libc.string cimport memset

from cydrop._core.activations cimport blocks_of, parametric_gradients, parametric_row
from cydrop._core.dense cimport finish_forward
from cydrop._core.map_op cimport epilogue_draw, keeps_z, lay_out_mask, through_epilogue
from cydrop._core.matrix cimport from_row
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Upstream, Step, take, take_matrix, update_tensor
from cydrop._core.serial cimport SERIAL_PASS
from cydrop._core.shard_sums cimport count_gradients, in_tree


cdef inline bint parametric_fits(const Op* op) noexcept nogil:
    return op.n_in == op.n_out and op.weight.size == op.n_out and op.bias.data == NULL


cdef inline void parametric_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    if keeps_z(op):
        b.z = take_matrix(layout, op.n_out)
    lay_out_mask(op, b, layout)
    if layout.training:
        b.sums = take(layout, blocks_of(layout.capacity) * op.n_out)


cdef inline void parametric_row_forward(const Op* op, const Bound* b, Py_ssize_t r) noexcept nogil:
    parametric_row(op.variant, op.option, op.weight.data, b.x.data + r * b.x.row, b.z.data + r * b.z.row, op.n_out)
    finish_forward(&b.epilogue, b.z, b.y, r, 1, 0, op.n_out, False)


cdef inline void parametric_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Py_ssize_t r
    cdef int threads = step.threads if step.rows * op.n_out > SERIAL_PASS else 1
    if threads == 1:
        for r in range(step.rows):
            parametric_row_forward(op, b, r)
        return
    for r in prange(step.rows, num_threads=threads, schedule="static"):
        parametric_row_forward(op, b, r)


cdef inline void parametric_op_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Op own
    cdef Py_ssize_t first
    cdef int s
    for s in range(step.shards):
        own, first = in_tree(op, step), step.bounds[s]
        parametric_gradients(op.variant, op.option, op.weight.data, from_row(b.x, first), from_row(upstream.dz, first),
                             step.bounds[s + 1] - first, op.n_out, b.sums, own.weight.gradient, step.threads)
        count_gradients(op, &own, step, s)
    if step.shards == 0:
        parametric_gradients(op.variant, op.option, op.weight.data, b.x, upstream.dz, step.rows, op.n_out, b.sums,
                             op.weight.gradient, step.threads)
    if upstream.updating:
        update_tensor(&op.weight)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors parametric_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits, doors.lay_out, doors.draw = parametric_fits, parametric_lay_out, epilogue_draw
    doors.forward, doors.backward = parametric_forward, parametric_op_backward
    doors.has_epilogue = True
    return doors

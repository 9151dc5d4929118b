"""Normalisations (norms.pyx has the formulas)."""

from libc.string cimport memset

from cydrop._core.map_op cimport through_epilogue
from cydrop._core.norms cimport norm_backward, norm_forward
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Upstream, Step, take, update_tensor


cdef inline void norm_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    b.mean = take(layout, max(layout.capacity, op.n_out))
    b.inverse = take(layout, max(layout.capacity, op.n_out))


cdef inline void norm_op_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    norm_forward(&op.norm, b.x, b.y, step.rows, op.n_out, b.mean, b.inverse, step.training, step.threads)


cdef inline void norm_op_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    norm_backward(&op.norm, b.x, upstream.dz, step.rows, op.n_out, b.mean, b.inverse, op.weight.gradient,
                  op.bias.gradient, step.threads)
    if upstream.updating:
        update_tensor(&op.weight)
        update_tensor(&op.bias)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors norm_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.lay_out = norm_lay_out
    doors.forward, doors.backward = norm_op_forward, norm_op_backward
    doors.has_scale = True
    return doors

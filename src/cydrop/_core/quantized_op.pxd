"""The dense operation of a network whose weights are bytes, y = drop(f(x W + b)): predictions alone (quads.pxd).

    weight      panels of codes         parts   0: scales of the columns, 1: sums of their codes, whole numbers

Its arena holds both as bits that are not floats.
"""

from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memset

from cydrop._core.dense cimport quantized_forward
from cydrop._core.map_op cimport epilogue_draw, lay_out_mask
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Step, Upstream
from cydrop._core.quads cimport INT8_DEPTH, Codes8, quad_floats


cdef inline bint quantized_fits(const Op* op) noexcept nogil:
    return (op.n_in <= INT8_DEPTH and op.weight.size == quad_floats(op.n_in, op.n_out) and op.n_parts == 2
            and op.parts[0].size == op.n_out and op.parts[1].size == op.n_out
            and (op.bias.data == NULL or op.bias.size == op.n_out))


cdef inline void quantized_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    lay_out_mask(op, b, layout)


cdef inline void quantized_begin(const Op* op, Bound* b) noexcept nogil:
    b.epilogue.bias = op.bias.data


cdef inline void quantized_op_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Codes8 weight
    weight.panels, weight.scales = <const uint32_t*>op.weight.data, op.parts[0].data
    weight.sums = <const int32_t*>op.parts[1].data
    quantized_forward(b.x, &weight, step.rows, op.n_in, op.n_out, &b.epilogue, b.y, step.quads, step.threads)


cdef inline void quantized_op_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    """None: no such network is trained."""


cdef inline Doors quantized_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits, doors.lay_out, doors.begin = quantized_fits, quantized_lay_out, quantized_begin
    doors.draw, doors.forward, doors.backward = epilogue_draw, quantized_op_forward, quantized_op_backward
    doors.has_product = doors.has_epilogue = doors.of_bytes = True
    return doors

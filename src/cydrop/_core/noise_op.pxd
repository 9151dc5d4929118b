"""Noise on every element: y = x (1 + s e), y = x + s e, or alpha dropout (noise.pyx has the formulas)."""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.string cimport memcpy, memset

from cydrop._core.matrix cimport Matrix
from cydrop._core.drawing cimport draw_units, key_of, rate_of
from cydrop._core.dropout cimport select_row
from cydrop._core.map_op cimport lay_out_mask, through_epilogue
from cydrop._core.noise cimport ADD, ALPHA, MULTIPLY, alpha_affine, alpha_row, draw_normals, normals_row
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Step, Upstream, take
from cydrop._core.serial cimport SERIAL_COPY


cdef inline void noise_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    if op.variant == ALPHA:
        lay_out_mask(op, b, layout)
    elif layout.draws and op.noise.column >= 0:
        b.noise = take(layout, layout.capacity * op.n_out)


cdef inline void noise_begin(const Op* op, Bound* b) noexcept nogil:
    b.quiet = True
    b.z = b.x


cdef inline void noise_draw(const Op* op, Bound* b, const Step* step) noexcept nogil:
    """Normal numbers, or a mask. A rate of 0 draws nothing and is the identity."""
    cdef double rate = rate_of(&op.noise, step)
    cdef Py_ssize_t n = step.rows * op.n_out
    if op.variant == ALPHA:
        b.affine = alpha_affine(rate)
        draw_units(op, b, rate, step)
        return
    b.quiet = rate <= 0.0
    if b.quiet:
        return
    b.deviation = <float>rate
    if op.variant == MULTIPLY:
        b.deviation = <float>sqrt(rate / (1.0 - rate)) if rate < 1.0 else <float>-1.0     # below 0: all zeros
    draw_normals(key_of(&op.noise, step.number, step.seeds), b.noise, step.first_row * op.n_out, n,
                 step.threads if n > SERIAL_COPY else 1)


cdef inline void noise_row(
    int variant, const Bound* b, const float* x, float* y, Py_ssize_t r, Py_ssize_t n, bint backward
) noexcept nogil:
    """A row forward from x to y, or backward in place on d loss / d y; y may be x."""
    if b.quiet or (backward and variant == ADD):
        if x != y:
            memcpy(y, x, n * sizeof(float))
    elif variant == ALPHA and backward:
        select_row(b.mask, b.epilogue.mask_first + r * n, x, b.affine.scale, y, n)
    elif variant == ALPHA:
        alpha_row(b.mask, b.epilogue.mask_first + r * n, x, b.affine, y, n)
    else:
        normals_row(variant, x, b.noise + r * n, b.deviation, y, n)


cdef inline void noise_pass(
    const Op* op, const Bound* b, Matrix source, Matrix to, bint backward, const Step* step
) noexcept nogil:
    cdef Py_ssize_t r
    cdef int threads = step.threads if step.rows * op.n_out > SERIAL_COPY else 1
    for r in prange(step.rows, num_threads=threads, schedule="static"):
        noise_row(op.variant, b, source.data + r * source.row, to.data + r * to.row, r, op.n_out, backward)


cdef inline void noise_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    noise_pass(op, b, b.x, b.y, False, step)


cdef inline void noise_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    noise_pass(op, b, upstream.dz, upstream.dz, True, step)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors noise_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.lay_out, doors.begin, doors.draw = noise_lay_out, noise_begin, noise_draw
    doors.forward, doors.backward = noise_forward, noise_backward
    return doors

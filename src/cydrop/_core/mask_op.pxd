"""Fixed masks, y = x m_j (Durasov et al. 2021): `numbers` says how many there are, the buffer holds them, a row each.

In training the rows of a batch take them in turn, whatever part of the batch is at hand; each step begins with the next
one, so that batches of any size train all members. In predictions the network is as many members as there are masks,
whose rows stand one member's after another's (members.pxd):

    training      row r of step t -> m_((t + r) mod n)
    prediction    rows of member 0 -> m_0, rows of member 1 -> m_1, ...
"""

from cython.parallel cimport prange
from libc.stdint cimport uint64_t
from libc.string cimport memset

from cydrop._core.map_op cimport through_epilogue
from cydrop._core.matrix cimport Matrix
from cydrop._core.operation cimport Bound, Doors, Op, Step, Upstream
from cydrop._core.serial cimport SERIAL_COPY


cdef inline bint mask_fits(const Op* op) noexcept nogil:
    return (op.n_in == op.n_out and op.weight.data == NULL and op.n_numbers == 1 and op.numbers[0] >= 1
            and op.buffer_size == op.numbers[0] * op.n_out)


cdef inline void mask_begin(const Op* op, Bound* b) noexcept nogil:
    b.z = b.x


cdef inline const float* mask_of_row(const Op* op, const Step* step, Py_ssize_t r) noexcept nogil:
    """Samples begin anew after the last member."""
    cdef Py_ssize_t n = op.numbers[0], number = <Py_ssize_t>(step.number % <uint64_t>n) + step.first_row + r
    if step.members > 0:
        number = step.first_member + r // step.member_rows
    return op.buffer + number % n * op.n_out


cdef inline void mask_row(const float* x, const float* mask, float* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = x[j] * mask[j]


cdef inline void mask_pass(const Op* op, Matrix source, Matrix to, const Step* step) noexcept nogil:
    cdef Py_ssize_t r
    cdef int threads = step.threads if step.rows * op.n_out > SERIAL_COPY else 1
    for r in prange(step.rows, num_threads=threads, schedule="static"):
        mask_row(source.data + r * source.row, mask_of_row(op, step, r), to.data + r * to.row, op.n_out)


cdef inline void mask_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    mask_pass(op, b.x, b.y, step)


cdef inline void mask_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    mask_pass(op, upstream.dz, upstream.dz, step)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors mask_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits, doors.begin = mask_fits, mask_begin
    doors.forward, doors.backward = mask_forward, mask_backward
    return doors

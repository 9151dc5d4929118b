"""What every member of a network has for itself (Gorishniy, Kotelnikov and Babenko 2025), where all rows of a step are
those of some members, one's after another's (members.pxd):

    "member_scale"      y = drop(f(x w_j + b_j))    an element each, b may be missing
    "member_dense"      y = drop(f(x W_j + b_j))    a matrix each

                        rows of member j  -> w_j, b_j
                        rows of member j+1 -> w_j+1, b_j+1      ...

Parameters have the members first, `numbers` is how many there are. A member's rows are all in one step, so that its
gradient is there as a whole. Threads take members, or pieces of what one gives.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport uint32_t
from libc.string cimport memset

from cydrop._core.dense cimport (
    dense_backward_input, dense_backward_weight, dense_forward, finish_forward,
)
from cydrop._core.dense_op cimport gradient_of
from cydrop._core.epilogue cimport Epilogue
from cydrop._core.gather cimport gather_row, spread
from cydrop._core.map_op cimport epilogue_draw, keeps_z, lay_out_mask, lay_out_places, through_epilogue
from cydrop._core.matrix cimport MARGIN, Matrix, from_row
from cydrop._core.operation cimport (
    Bound, Doors, Layout, Op, Step, Upstream, pairs_of_thread, swap, take, take_matrix,
)
from cydrop._core.pace cimport BACKWARD_INPUT, BACKWARD_WEIGHT, tick
from cydrop._core.panels cimport scratch_floats
from cydrop._core.serial cimport SERIAL_COPY, SERIAL_PRODUCT
from cydrop._core.weight_gradient cimport Gradient

cdef extern from "fma.h" nogil:
    float fma32(float a, float b, float c)

cdef enum:
    PIECE = 256                 # columns of a gradient that are summed at a time: 1 KiB of each row


cdef inline Py_ssize_t member_of(const Op* op, const Step* step, Py_ssize_t m) noexcept nogil:
    """Number of the member that is number m of the step; samples begin anew after the last."""
    return (step.first_member + m) % <Py_ssize_t>op.numbers[0]


# A scale each ---------------------------------------------------------------------------------------------------


cdef inline bint member_scale_fits(const Op* op) noexcept nogil:
    return (op.n_in == op.n_out and op.n_numbers == 1 and op.numbers[0] >= 1
            and op.weight.size == op.numbers[0] * op.n_out
            and (op.bias.data == NULL or op.bias.size == op.weight.size))


cdef inline void member_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    if keeps_z(op):
        b.z = take_matrix(layout, op.n_out)
    lay_out_mask(op, b, layout)
    lay_out_places(op, b, layout)


cdef inline Py_ssize_t row_floats(const Op* op) noexcept nogil:
    return (op.n_out + MARGIN + 15) // 16 * 16


cdef inline void member_scale_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    member_lay_out(op, b, first, layout)
    if layout.training and (op.leaves_out or op.reads_kept):
        b.memory = take(layout, 4 * row_floats(op))


cdef struct Scale:              # a member's
    float* weight
    float* bias                 # NULL: none
    float* weight_gradient
    float* bias_gradient


cdef inline bint whole(const Op* op, const Bound* b) noexcept nogil:
    """Whether all of its inputs and units are there; else a step has one member."""
    return b.n_in == op.n_in and b.n_out == op.n_out


cdef inline Scale scale_of(const Op* op, const Bound* b, const Step* step, Py_ssize_t m) noexcept nogil:
    """The parameters of number m of the step where they lie or, of kept units, in the operation's memory."""
    cdef Py_ssize_t place = member_of(op, step, m) * op.n_out, row = row_floats(op)
    cdef Scale own
    own.weight, own.weight_gradient = op.weight.data + place, op.weight.gradient + place
    own.bias, own.bias_gradient = op.bias.data, op.bias.gradient
    if op.bias.data != NULL:
        own.bias += place
        own.bias_gradient += place
    if not whole(op, b):
        own.weight, own.weight_gradient = b.memory, b.memory + row
        own.bias = b.memory + 2 * row if op.bias.data != NULL else NULL
        own.bias_gradient = b.memory + 3 * row
    return own


cdef inline void gather_scale(const Op* op, const Bound* b, const Step* step) noexcept nogil:
    """Brings the parameters of kept units together."""
    cdef Py_ssize_t place = member_of(op, step, 0) * op.n_out
    gather_row(op.weight.data + place, &b.kept, row_floats(op), b.memory)
    if op.bias.data != NULL:
        gather_row(op.bias.data + place, &b.kept, row_floats(op), b.memory + 2 * row_floats(op))


cdef inline void spread_scale(const Op* op, const Bound* b, const Step* step) noexcept nogil:
    """The gradients of kept units to their places, zeros between them."""
    cdef Py_ssize_t place = member_of(op, step, 0) * op.n_out
    spread(b.memory + row_floats(op), b.kept.bits, 0, op.n_out, op.weight.gradient + place)
    if op.bias.data != NULL:
        spread(b.memory + 3 * row_floats(op), b.kept.bits, 0, op.n_out, op.bias.gradient + place)


cdef inline void scale_row(const float* x, const float* w, const float* bias, float* z, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    if bias == NULL:
        for j in range(n):
            z[j] = x[j] * w[j]
        return
    for j in range(n):
        z[j] = fma32(x[j], w[j], bias[j])


cdef inline void member_scale_row(const Op* op, const Bound* b, const Step* step, Py_ssize_t r) noexcept nogil:
    cdef Scale own = scale_of(op, b, step, r // step.member_rows)
    scale_row(b.x.data + r * b.x.row, own.weight, own.bias, b.z.data + r * b.z.row, b.n_out)
    finish_forward(&b.epilogue, b.z, b.y, r, 1, 0, b.n_out, False)


cdef inline void member_scale_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Py_ssize_t r
    cdef int threads = step.threads if step.rows * op.n_out > SERIAL_COPY else 1
    if not whole(op, b):
        gather_scale(op, b, step)
    if threads == 1:
        for r in range(step.rows):
            member_scale_row(op, b, step, r)
        return
    for r in prange(step.rows, num_threads=threads, schedule="static"):
        member_scale_row(op, b, step, r)


cdef inline void member_scale_gradient(
    const Op* op, const Bound* b, const Upstream* upstream, const Step* step, Py_ssize_t m, Py_ssize_t col0
) noexcept nogil:
    """Some columns of the gradients of number m of the step, its rows in order; dz becomes d loss / d x."""
    cdef Scale own = scale_of(op, b, step, m)
    cdef Py_ssize_t n = min(<Py_ssize_t>PIECE, b.n_out - col0), r, j
    cdef const float* w = own.weight + col0
    cdef float* dw = own.weight_gradient + col0
    cdef float* db = own.bias_gradient
    cdef const float* x
    cdef float* dz
    memset(dw, 0, n * sizeof(float))
    if own.bias != NULL:
        db += col0
        memset(db, 0, n * sizeof(float))
    for r in range(m * step.member_rows, (m + 1) * step.member_rows):
        x, dz = b.x.data + r * b.x.row + col0, upstream.dz.data + r * upstream.dz.row + col0
        for j in range(n):
            dw[j] = fma32(dz[j], x[j], dw[j])
        if own.bias != NULL:
            for j in range(n):
                db[j] = db[j] + dz[j]
        if upstream.wanted:
            for j in range(n):
                dz[j] = dz[j] * w[j]


cdef inline void member_scale_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Py_ssize_t pieces = (b.n_out + PIECE - 1) // PIECE, unit
    cdef int threads = step.threads if step.rows * op.n_out > SERIAL_COPY else 1
    if threads == 1:
        for unit in range(step.members * pieces):
            member_scale_gradient(op, b, upstream, step, unit // pieces, unit % pieces * PIECE)
    else:
        for unit in prange(step.members * pieces, num_threads=threads, schedule="static"):
            member_scale_gradient(op, b, upstream, step, unit // pieces, unit % pieces * PIECE)
    if not whole(op, b):
        spread_scale(op, b, step)
    if upstream.wanted:
        through_epilogue(below, upstream, b.n_in, step)


cdef inline Doors member_scale_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits, doors.lay_out, doors.draw = member_scale_fits, member_scale_lay_out, epilogue_draw
    doors.forward, doors.backward = member_scale_forward, member_scale_backward
    doors.has_epilogue = doors.of_members = doors.gathers = doors.passes_kept = True
    return doors


# A dense layer each ---------------------------------------------------------------------------------------------


cdef inline bint member_dense_fits(const Op* op) noexcept nogil:
    return (op.n_numbers == 1 and op.numbers[0] >= 1 and op.weight.size == op.numbers[0] * op.n_in * op.n_out
            and (op.bias.data == NULL or op.bias.size == op.numbers[0] * op.n_out))


cdef inline void member_dense_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    member_lay_out(op, b, first, layout)
    if layout.training and (op.leaves_out or op.reads_kept):
        b.gathered_weights.data = take(layout, op.n_in * ((op.n_out + 15) // 16 * 16) + MARGIN)


cdef inline void member_dense_draw(const Op* op, Bound* b, const Step* step) noexcept nogil:
    """Where units are left out a step has one member, whose weights are gathered."""
    epilogue_draw(op, b, step)
    b.weight.data, b.weight.row, b.weight_end = op.weight.data, op.n_out, op.readable
    b.weight.data += member_of(op, step, 0) * op.n_in * op.n_out
    if op.bias.data != NULL:
        b.epilogue.bias = op.bias.data + member_of(op, step, 0) * op.n_out


cdef inline int threads_of_members(const Op* op, const Step* step) noexcept nogil:
    """Where there are enough members a thread takes whole ones, and 1 is left for each of their products."""
    cdef double work = <double>step.rows * op.n_in * op.n_out
    return step.threads if step.members >= 2 * step.threads and work > SERIAL_PRODUCT else 1


cdef inline Epilogue epilogue_from(const Epilogue* e, Py_ssize_t row) noexcept nogil:
    """The same for what begins with that row."""
    cdef Epilogue own = e[0]
    own.mask_first += row * e.mask_row
    return own


cdef inline void member_forward(
    const Op* op, const Bound* b, const Step* step, Py_ssize_t m, float* scratch, uint32_t* pairs, int threads
) noexcept nogil:
    cdef Py_ssize_t member = member_of(op, step, m), row = m * step.member_rows
    cdef Epilogue e = epilogue_from(&b.epilogue, row)
    cdef Matrix weight = b.weight
    if whole(op, b):
        weight.data, weight.row = op.weight.data + member * op.n_in * op.n_out, op.n_out
        e.bias = op.bias.data + member * op.n_out if op.bias.data != NULL else NULL
    dense_forward(from_row(b.x, row), weight, op.readable if whole(op, b) else b.weight_end, step.member_rows, b.n_in,
                  b.n_out, &e, from_row(b.z, row), from_row(b.y, row), scratch, pairs, threads)


cdef inline void member_dense_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef int threads = threads_of_members(op, step)
    cdef Py_ssize_t size = scratch_floats(step.member_rows), m
    if threads == 1:
        for m in range(step.members):
            member_forward(op, b, step, m, step.scratch, step.pairs, step.threads)
        return
    for m in prange(step.members, num_threads=threads, schedule="static"):
        member_forward(op, b, step, m, step.scratch + threadid() * size, pairs_of_thread(step, threadid()), 1)


cdef inline void member_backward(
    const Op* op, const Bound* b, const Bound* below, const Upstream* upstream, const Step* step, Py_ssize_t m,
    float* scratch, uint32_t* pairs, float* full_row, int threads
) noexcept nogil:
    """The gradients of number m of the step and, where that is wanted, d loss / d z of the operation below."""
    cdef Py_ssize_t member = member_of(op, step, m), row = m * step.member_rows, place = member * op.n_in * op.n_out
    cdef Matrix weight = b.weight, dz = from_row(upstream.dz, row), dx = from_row(upstream.spare, row), z = dx, y = dx
    cdef Epilogue e
    cdef Gradient to
    if whole(op, b):
        weight.data, weight.row = op.weight.data + place, op.n_out
    if upstream.wanted:
        if below != NULL:
            e, z, y = epilogue_from(&below.epilogue, row), from_row(below.z, row), from_row(below.y, row)
        dense_backward_input(dz, weight, op.readable if whole(op, b) else b.weight_end, step.member_rows, b.n_in,
                             b.n_out, &e if below != NULL else NULL, z, y, dx, scratch, pairs, threads)
    gradient_of(op, b, below, False, step, &to)
    to.resume = False
    to.full_row = full_row
    to.weight += place
    to.weight_gradient += place
    if to.bias != NULL:
        to.bias += member * op.n_out
        to.bias_gradient += member * op.n_out
    dense_backward_weight(from_row(b.x, row), dz, step.member_rows, b.n_in, b.n_out, &to, scratch, pairs,
                          threads)


cdef inline void member_dense_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef int threads = threads_of_members(op, step)
    cdef Py_ssize_t size = scratch_floats(step.member_rows), m
    if threads == 1:
        for m in range(step.members):
            member_backward(op, b, below, upstream, step, m, step.scratch, step.pairs, step.full_row,
                            step.threads)
    else:
        for m in prange(step.members, num_threads=threads, schedule="static"):
            member_backward(op, b, below, upstream, step, m, step.scratch + threadid() * size,
                            pairs_of_thread(step, threadid()), step.full_row + threadid() * step.full_row_floats, 1)
    tick(step.clock, BACKWARD_WEIGHT + step.slot)
    swap(upstream)


cdef inline Doors member_dense_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits, doors.lay_out, doors.draw = member_dense_fits, member_dense_lay_out, member_dense_draw
    doors.forward, doors.backward = member_dense_forward, member_dense_backward
    doors.has_epilogue = doors.of_members = doors.gathers = doors.takes_kept = True
    return doors

"""Embeddings of numbers and of codes (number_embeddings.pxd and code_embeddings.pxd have the formulas)."""

from libc.string cimport memset

from cydrop._core.code_embeddings cimport Codes
from cydrop._core.dense cimport codes_backward, codes_forward, numbers_backward, numbers_forward
from cydrop._core.map_op cimport through_epilogue
from cydrop._core.matrix cimport from_row
from cydrop._core.number_embeddings cimport (
    PBLD, PIECEWISE_LINEAR, PLR, Numbers, memory_of_numbers, outputs_of, terms_of,
)
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Step, Upstream, swap, take, update_tensor
from cydrop._core.optimizers cimport update_arena
from cydrop._core.shard_sums cimport count_gradients, gradient_floats, in_tree


# Numbers: op.numbers is (columns, frequencies or bins, size), op.parts are
#     PBLD              frequency, phase, weight, bias
#     PLR               frequency, weight, bias
#     PIECEWISE_LINEAR  slope, weight, bias; the buffer are the edges

cdef inline Numbers numbers_of(const Op* op) noexcept nogil:
    cdef Numbers e
    cdef int weight = 2 if op.variant == PBLD else 1
    memset(&e, 0, sizeof(Numbers))
    e.kind, e.columns, e.frequencies, e.size = op.variant, op.numbers[0], op.numbers[1], op.numbers[2]
    if op.variant == PIECEWISE_LINEAR:
        e.slope, e.slope_gradient, e.edges = op.parts[0].data, op.parts[0].gradient, op.buffer
    else:
        e.frequency, e.frequency_gradient = op.parts[0].data, op.parts[0].gradient
    if op.variant == PBLD:
        e.phase, e.phase_gradient = op.parts[1].data, op.parts[1].gradient
    e.weight, e.weight_gradient = op.parts[weight].data, op.parts[weight].gradient
    e.bias, e.bias_gradient = op.parts[weight + 1].data, op.parts[weight + 1].gradient
    return e


cdef inline bint numbers_fit(const Op* op) noexcept nogil:
    cdef Numbers e
    cdef Py_ssize_t outputs, of_frequencies
    cdef bint fits
    if op.n_numbers != 3 or op.n_parts != (4 if op.variant == PBLD else 3):
        return False
    e = numbers_of(op)
    if e.columns < 1 or e.columns > op.n_in or e.frequencies < 1 or e.size < 1 + (op.variant == PBLD):
        return False
    outputs, of_frequencies = outputs_of(&e), e.columns * e.frequencies
    fits = op.n_out == op.n_in - e.columns + e.columns * e.size
    fits = fits and op.parts[op.n_parts - 1].size == e.columns * outputs
    fits = fits and op.parts[op.n_parts - 2].size == e.columns * terms_of(&e) * outputs
    if op.variant == PIECEWISE_LINEAR:
        return fits and op.parts[0].size == e.columns * e.size and op.buffer_size == of_frequencies + e.columns
    return fits and op.parts[0].size == of_frequencies and (op.variant == PLR or op.parts[1].size == of_frequencies)


cdef inline void numbers_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    cdef Numbers e = numbers_of(op)
    b.memory = take(layout, memory_of_numbers(&e) * layout.threads)


cdef inline void numbers_op_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Numbers e = numbers_of(op)
    numbers_forward(&e, b.x, b.y, step.rows, op.n_in, b.memory, step.threads)


cdef inline void numbers_op_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Numbers e = numbers_of(op)
    cdef Op own
    cdef Py_ssize_t first
    cdef int s, i
    for s in range(step.shards):
        own, first = in_tree(op, step), step.bounds[s]
        e = numbers_of(&own)
        numbers_backward(&e, from_row(b.x, first), from_row(b.y, first), from_row(upstream.dz, first),
                         from_row(upstream.spare, first), upstream.wanted, step.bounds[s + 1] - first, op.n_in,
                         b.memory, step.threads)
        count_gradients(op, &own, step, s)
    if step.shards == 0:
        numbers_backward(&e, b.x, b.y, upstream.dz, upstream.spare, upstream.wanted, step.rows, op.n_in, b.memory,
                         step.threads)
    if upstream.updating:
        for i in range(op.n_parts):
            update_tensor(&op.parts[i])
    swap(upstream)
    if upstream.wanted:
        through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors numbers_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits, doors.lay_out = numbers_fit, numbers_lay_out
    doors.forward, doors.backward = numbers_op_forward, numbers_op_backward
    return doors


# Codes: op.numbers is (size, the row where each table begins, and where the last one ends), op.weight are the tables

cdef inline Codes codes_of(const Op* op) noexcept nogil:
    cdef Codes e
    e.columns, e.size, e.starts = op.n_numbers - 2, op.numbers[0], op.numbers + 1
    e.tables, e.gradient, e.shards = op.weight.data, op.weight.gradient, 0
    return e


cdef inline bint codes_fit(const Op* op) noexcept nogil:
    cdef Codes e
    cdef Py_ssize_t i
    if op.n_numbers < 3 or op.numbers[0] < 1 or op.numbers[1] != 0:
        return False
    e = codes_of(op)
    for i in range(e.columns):
        if e.starts[i + 1] <= e.starts[i]:
            return False
    return (e.columns <= op.n_in and op.n_out == op.n_in - e.columns + e.columns * e.size
            and op.weight.size == e.starts[e.columns] * e.size)


cdef inline void codes_op_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef Codes e = codes_of(op)
    codes_forward(&e, b.x, b.y, step.rows, op.n_in, step.threads)


cdef inline void codes_op_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Codes e = codes_of(op)
    e.shards, e.bounds, e.tree, e.tree_floats = step.shards, step.bounds, step.tree, gradient_floats(op)
    codes_backward(&e, b.x, upstream.dz, upstream.spare, upstream.wanted, step.rows, op.n_in, step.threads)
    if upstream.updating:
        update_arena(op.weight.update, op.weight.data, op.weight.gradient, op.weight.moment1, op.weight.moment2,
                     op.weight.size, step.threads)
    swap(upstream)
    if upstream.wanted:
        through_epilogue(below, upstream, op.n_in, step)


cdef inline Doors codes_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.fits = codes_fit
    doors.forward, doors.backward = codes_op_forward, codes_op_backward
    return doors

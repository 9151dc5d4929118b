"""The dense operation, y = drop(f(x W + b)), with its dropped weights (drop-connect)."""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdint cimport uint64_t
from libc.string cimport memset

from cydrop._core.dense cimport dense_backward_input, dense_backward_weight, dense_forward, finish_forward
from cydrop._core.epilogue cimport Epilogue
from cydrop._core.matrix cimport MARGIN, Matrix
from cydrop._core.serial cimport SERIAL_COPY
from cydrop._core.weight_gradient cimport Gradient
from cydrop._core.drawing cimport draw_bits, key_of, rate_of
from cydrop._core.dropout cimport mask_words, select_row
from cydrop._core.map_op cimport epilogue_draw, keeps_z, lay_out_mask, lay_out_places
from cydrop._core.noise cimport draw_normals
from cydrop._core.operation cimport (
    DENSE_LANES, Bound, Doors, Layout, Op, Upstream, Step, swap, take, take_matrix,
)
from cydrop._core.pace cimport BACKWARD_INPUT, BACKWARD_WEIGHT, tick
from cydrop._core.xorshift cimport StreamKey

cdef extern from "fma.h" nogil:
    float sqrtf(float x)

cdef enum:
    WEIGHT_BLOCK = 8192         # weights that a thread drops at a time


cdef inline void dense_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    cdef Py_ssize_t weights = op.n_in * op.n_out
    if keeps_z(op):
        b.z = take_matrix(layout, op.n_out)
    lay_out_mask(op, b, layout)
    lay_out_places(op, b, layout)
    if layout.training and (op.leaves_out or op.reads_kept or op.follows):
        b.gathered_weights.data = take(layout, op.n_in * ((op.n_out + 15) // 16 * 16) + MARGIN)
    if not layout.draws or op.connect.column < 0:
        return
    b.connect_bits = <uint64_t*>take(layout, 2 * mask_words(0, weights))
    b.connected.data = take(layout, weights + MARGIN)
    b.connected.row = op.n_out
    if not layout.training:     # Gaussian moments
        b.noise = take(layout, layout.capacity * op.n_out)
        b.x_squares = take_matrix(layout, op.n_in)
        b.variance = take_matrix(layout, op.n_out)
        b.squares = take(layout, weights + MARGIN) if layout.first_lane else first.squares


cdef inline void dense_begin(const Op* op, Bound* b) noexcept nogil:
    b.by_moments = False
    b.connect_mask = NULL
    b.weight.data, b.weight.row = op.weight.data, op.n_out
    b.weight_end = op.readable
    b.epilogue.bias = op.bias.data


cdef inline void dense_draw(const Op* op, Bound* b, const Step* step) noexcept nogil:
    epilogue_draw(op, b, step)
    if rate_of(&op.connect, step) > 0.0:
        draw_weights(op, b, step.rates[op.connect.column], step)


cdef inline void draw_weights(const Op* op, Bound* b, double rate, const Step* step) noexcept nogil:
    """Drop-connect: this batch's weights."""
    cdef Py_ssize_t n = op.n_in * op.n_out, i
    cdef StreamKey key = key_of(&op.connect, step.shared_number, step.seeds)
    b.connect_scale = <float>(1.0 / (1.0 - rate)) if rate < 1.0 else <float>1.0
    if step.moments and rate < 1.0:
        b.by_moments = True
        b.deviation = <float>sqrt(rate / (1.0 - rate))
        b.connect_key = key
        return
    draw_bits(key, rate, b.connect_bits, 0, n, step.threads)
    b.connect_mask = b.connect_bits
    b.weight = b.connected
    b.weight_end = b.connected.data + n + MARGIN
    for i in prange(0, n, WEIGHT_BLOCK, num_threads=step.threads if n > SERIAL_COPY else 1, schedule="static"):
        select_row(b.connect_bits, i, op.weight.data + i, b.connect_scale, b.connected.data + i,
                   min(<Py_ssize_t>WEIGHT_BLOCK, n - i))


cdef inline void square_weights(const Op* op, Bound* b) noexcept nogil:
    """For the moments, once before samples are drawn."""
    cdef Py_ssize_t j
    for j in range(op.n_in * op.n_out):
        b.squares[j] = op.weight.data[j] * op.weight.data[j]


cdef inline void dense_op_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    if b.by_moments:
        forward_by_moments(op, b, step)
        return
    dense_forward(b.x, b.weight, b.weight_end, step.rows, b.n_in, b.n_out, &b.epilogue, b.z, b.y, step.scratch,
                  step.pairs, step.threads)


cdef inline void forward_by_moments(const Op* op, Bound* b, const Step* step) noexcept nogil:
    """Drop-connect's outputs as normal numbers of the same mean and variance (Wan et al. 2013, section 4):
    z ~ N(x W + b, rate / (1 - rate) x^2 W^2)."""
    cdef Epilogue plain
    cdef Matrix squares
    cdef Py_ssize_t r, j
    cdef float* z
    memset(&plain, 0, sizeof(Epilogue))
    plain.scale = 1.0
    squares.data, squares.row = b.squares, op.n_out
    for r in range(step.rows):
        for j in range(op.n_in):
            b.x_squares.data[r * b.x_squares.row + j] = b.x.data[r * b.x.row + j] * b.x.data[r * b.x.row + j]
    dense_forward(b.x_squares, squares, b.squares + op.n_in * op.n_out + MARGIN, step.rows, op.n_in, op.n_out, &plain,
                  b.variance, b.variance, step.scratch, NULL, 1)
    plain.bias = b.epilogue.bias
    dense_forward(b.x, b.weight, b.weight_end, step.rows, op.n_in, op.n_out, &plain, b.z, b.z, step.scratch,
                  step.pairs, 1)
    draw_normals(b.connect_key, b.noise, step.first_row * op.n_out, step.rows * op.n_out, 1)
    for r in range(step.rows):
        z = b.z.data + r * b.z.row
        for j in range(op.n_out):
            z[j] = z[j] + b.deviation * sqrtf(b.variance.data[r * b.variance.row + j]) * b.noise[r * op.n_out + j]
    finish_forward(&b.epilogue, b.z, b.y, 0, step.rows, 0, op.n_out, False)


cdef inline void dense_op_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    """The epilogue of the operation below is undone within the product."""
    cdef Gradient to
    cdef const Epilogue* e = NULL
    cdef Matrix z = upstream.spare, y = upstream.spare
    if upstream.wanted:
        if below != NULL:
            e, z, y = &below.epilogue, below.z, below.y
        dense_backward_input(upstream.dz, b.weight, b.weight_end, step.rows, b.n_in, b.n_out, e, z, y, upstream.spare,
                             step.scratch, step.pairs, step.threads)
        tick(step.clock, BACKWARD_INPUT + step.slot)
    gradient_of(op, b, below, upstream.updating, step, &to)
    dense_backward_weight(b.x, upstream.dz, step.rows, b.n_in, b.n_out, &to, step.scratch, step.pairs, step.threads)
    tick(step.clock, BACKWARD_WEIGHT + step.slot)
    swap(upstream)


cdef inline void gradient_of(
    const Op* op, const Bound* b, const Bound* below, bint updating, const Step* step, Gradient* to
) noexcept nogil:
    """Where the gradients of weight and bias go."""
    to.update = op.weight.update if updating else NULL
    to.bias_update = op.bias.update if updating else NULL
    to.weight, to.weight_gradient = op.weight.data, op.weight.gradient
    to.weight_moment1, to.weight_moment2 = op.weight.moment1, op.weight.moment2
    to.bias, to.bias_gradient = op.bias.data, op.bias.gradient
    to.bias_moment1, to.bias_moment2 = op.bias.moment1, op.bias.moment2
    to.mask = b.connect_mask
    to.scale = b.connect_scale
    to.rows_kept = below.kept.places if below != NULL and below.gathered else NULL
    to.cols_kept = b.kept.places if b.gathered else NULL
    to.cols_bits = b.kept.bits
    to.gathered = to.rows_kept != NULL or to.cols_kept != NULL
    to.n_in, to.n_out = op.n_in, op.n_out
    to.full_row, to.full_row_floats = step.full_row, step.full_row_floats
    to.shards, to.bounds, to.resume = step.shards, step.bounds, step.resume


cdef inline Doors dense_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.lay_out, doors.begin, doors.draw = dense_lay_out, dense_begin, dense_draw
    doors.forward, doors.backward = dense_op_forward, dense_op_backward
    doors.has_product = doors.has_epilogue = doors.gathers = doors.takes_kept = True
    doors.lanes = DENSE_LANES
    return doors

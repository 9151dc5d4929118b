"""Networks of a few units across the lanes: up to sixteen of one shape make their steps together, a network a lane.

                              a lane
                                v
    rows of a batch    x [row][feature][lane] -> y0 [row][unit][lane] -> ... -> z [row][output][lane]
    weights            [parameter][lane]   <-  the arenas of each network, after every update
    masks              [row][word][lane], a bit a unit, of those that each network draws
    z -> the loss of each network -> d loss / d z [row][output][lane] -> gradients [parameter][lane] -> their arenas

Only what lies between the rows of a batch and the gradients is done in lanes (here and in pack.h); masks, losses and
optimizers are the networks' own (pack_training.pxd), and may differ. The backward pass goes through all operations with
a few rows at a time, whose d loss / d z then stay in the cache: the chains of a gradient go on with the next rows.

What must be the same: operations, widths, activations, the rows of an epoch and of a batch. Where networks stand in
their epochs must be the same too, but which epochs these are may differ.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

from cydrop._core.activations cimport IDENTITY, RELU, activate, activation_gradient
from cydrop._core.batch cimport Batch
from cydrop._core.dropout cimport BLOCK, mask_words
from cydrop._core.map_op cimport keeps_z
from cydrop._core.operation cimport DENSE_LANES, NO_LANES, Bound, Layout, Op, take
from cydrop._core.program cimport Program
from cydrop._core.trainee cimport Trainee

cdef extern from "pack.h" nogil:
    enum:
        PACK
        PACKS
        PACK_WORD
        PACK_LARGEST
    ctypedef struct pack_end:
        const float* bias
        bint relu
        const int32_t* words
        Py_ssize_t words_row
        const float* scale
        const float* y
    ctypedef struct pack_factors:
        Py_ssize_t rows, units, steps
        const float* a
        Py_ssize_t a_row, a_step
        const float* b
        Py_ssize_t b_step, b_unit
        float* c
        Py_ssize_t c_row
        bint resume
        pack_end end
    void pack_product(const pack_factors* p)
    void pack_column_sums(Py_ssize_t rows, Py_ssize_t units, const float* x, float* sums)
    void pack_finish(Py_ssize_t rows, Py_ssize_t units, const pack_end* end, const float* x, float* y)
    void pack_in(const float** source, Py_ssize_t n, float* to)
    void pack_out(const float* source, Py_ssize_t n, float** to)
    void pack_mask(
        const uint64_t* mask, int64_t first, int64_t mask_row, Py_ssize_t rows, Py_ssize_t words, Py_ssize_t words_row,
        int lane, int32_t* to)

cdef enum:
    PASSED = 16                 # rows that go through all operations at a time

# CPU microseconds that a step of 128 rows takes a network, by its inputs, hidden units and outputs:
#                               8-8-1   8-50-1   32-16-1   16-32-10   16-64-1   8-128-1   64-16-10   64-64-10
#     AVX-512, alone              7.3     17.8      12.0       15.9      20.1      32.2       16.6       40.6
#              one of sixteen     2.6      7.4       6.3       11.8      12.7      17.4       14.4       44.6
#     AVX2,    alone              6.6     19.5      10.3       17.1      22.2      34.8
#              one of sixteen     2.9      9.2       8.3       15.7      21.7      28.3
# A pack takes as long with fewer networks. Products of wide layers fill vectors by themselves, and sixteen networks of
# them no longer fit into the second-level cache. (training.pxd: below SMALL the gradients lie in the arena.)
cdef enum:
    MOST_FLOATS = 16777216      # of activations, 64 MiB: chosen, so that large batches do not take too much memory
    MOST_COLUMNS = 48           # of x: rows of more take longer to be brought into lanes than is won
    LIGHT = 1024                # parameters of a network up to which
    LEAST_LIGHT = 12            # so many are faster in a pack, and if it has more
    LEAST_PACK = 14             # so many


cdef struct PackedOp:           # an operation of all networks
    float* x
    float* z                    # what enters the activation
    float* y
    int32_t* kept               # bits of the units that dropout keeps
    float[PACK] scale           # of what it keeps
    bint drops                  # whether any network drops units in this step


cdef struct Pack:               # a thread's
    Trainee* members[PACK]      # by their lanes, NULL: nobody is there
    int n                       # of them that are
    int n_ops
    PackedOp* ops
    Bound bound                 # for a mask that is drawn
    uint64_t* bits              # memory for it
    float* weights              # the arenas, [parameter][lane]
    float* gradients
    float* spare                # an arena that nobody reads
    float* dz[2]                # [row of those at hand][unit][lane]
    float* top                  # d loss / d z of the last operation, [row][unit][lane]
    float* outputs[PACK]        # each network's own, and d loss / d z
    float* slopes[PACK]
    Batch batch                 # labels, targets, weights of the network whose loss is at hand
    double* row_loss
    int32_t* row_correct


cdef inline bint fits_in_pack(const Trainee* t) noexcept nogil:
    """Whether a network may go in a lane."""
    cdef const Program* p = &t.program
    cdef const Op* op
    cdef Py_ssize_t units = 0
    cdef int i
    if not PACKS or p.bf16 or p.loss.pair > 0 or p.members > 0 or p.lowest >= p.n_ops or (
        t.learner.n > PACK_LARGEST or t.learner.n % 16 or t.data.columns > MOST_COLUMNS
    ):
        return False
    for i in range(p.n_ops):
        op = &p.ops[i]
        if op.doors.lanes == NO_LANES or op.connect.column >= 0 or op.leaves_out or op.reads_kept:
            return False
        units += op.n_in + op.n_out
    return units * min(t.batch_size, t.epoch_rows) <= MOST_FLOATS // PACK


cdef inline int least_pack(const Trainee* t) noexcept nogil:
    """How many networks like this one are faster in a pack than one after another."""
    return LEAST_LIGHT if t.learner.n <= LIGHT else LEAST_PACK


cdef inline Py_ssize_t words_of(const Op* op) noexcept nogil:
    """Words of a row of a mask, a lane."""
    return (op.n_out + PACK_WORD - 1) // PACK_WORD


cdef inline Py_ssize_t pack_floats(Pack* pack, const Trainee* t, float* memory) noexcept nogil:
    """Lays a pack out for networks like this one, or, where memory is NULL, only says how many floats that takes."""
    cdef const Program* p = &t.program
    cdef const Op* op
    cdef PackedOp* b
    cdef Layout layout
    cdef Py_ssize_t rows = min(t.batch_size, t.epoch_rows), widest = 0
    cdef float* x
    cdef int i
    memset(&layout, 0, sizeof(Layout))
    layout.memory = memory
    pack.n_ops = p.n_ops
    x = take(&layout, rows * p.ops[0].n_in * PACK)
    for i in range(p.n_ops):
        op = &p.ops[i]
        b = &pack.ops[i]
        b.x, b.y = x, take(&layout, rows * op.n_out * PACK)
        b.z = b.y
        if op.doors.lanes != DENSE_LANES:
            b.z = b.x
        elif keeps_z(op):
            b.z = take(&layout, rows * op.n_out * PACK)
        b.kept = <int32_t*>take(&layout, rows * words_of(op) * PACK)
        x = b.y
        widest = max(widest, op.n_in, op.n_out)
    pack.weights, pack.gradients = take(&layout, t.learner.n * PACK), take(&layout, t.learner.n * PACK)
    pack.spare = take(&layout, t.learner.n)
    pack.dz[0], pack.dz[1] = take(&layout, PASSED * widest * PACK), take(&layout, PASSED * widest * PACK)
    pack.top = take(&layout, rows * p.outputs * PACK)
    for i in range(PACK):
        pack.outputs[i], pack.slopes[i] = take(&layout, rows * p.outputs), take(&layout, rows * p.outputs)
    pack.batch.labels = <int32_t*>take(&layout, rows)
    pack.batch.targets, pack.batch.weights = take(&layout, rows * p.outputs), take(&layout, rows * p.outputs)
    pack.row_loss, pack.row_correct = <double*>take(&layout, 2 * rows), <int32_t*>take(&layout, rows)
    pack.bits = <uint64_t*>take(&layout, 2 * mask_words(BLOCK - 1, rows * widest))
    return layout.used


cdef inline float* lanes_of(float* lanes, const Trainee* like, const float* parameter) noexcept nogil:
    """Where a parameter, or its gradient, lies; NULL where there is none."""
    return lanes + (parameter - like.learner.parameters) * PACK if parameter != NULL else NULL


cdef inline bint is_fused(const Op* op) noexcept nogil:
    """Whether a product ends with the activation."""
    return op.activation == IDENTITY or op.activation == RELU


cdef inline pack_end drop_of(const Op* op, const PackedOp* b, Py_ssize_t row) noexcept nogil:
    """Dropout of rows from one on."""
    cdef pack_end end
    memset(&end, 0, sizeof(pack_end))
    end.scale = &b.scale[0]
    end.words_row = words_of(op) * PACK
    if b.drops:
        end.words = b.kept + row * end.words_row
    return end


cdef inline pack_end end_backward(const Op* op, const PackedOp* b, Py_ssize_t row) noexcept nogil:
    """From d loss / d y to d loss / d f(z); for ReLU to d loss / d z, where the zeros of y are the mask of activation
    and dropout together."""
    cdef pack_end end = drop_of(op, b, row)
    if op.activation == RELU:
        end.words, end.y = NULL, b.y + row * op.n_out * PACK
    return end


cdef inline void forward_rows(Pack* pack, const Trainee* like, Py_ssize_t row, Py_ssize_t rows) noexcept nogil:
    """Some rows through all operations."""
    cdef const Op* op
    cdef const PackedOp* b
    cdef pack_factors p
    cdef pack_end end
    cdef float* z
    cdef float* y
    cdef int i
    p.rows, p.resume, p.a_step, p.b_unit = rows, False, PACK, PACK
    for i in range(like.program.n_ops):
        op = &like.program.ops[i]
        b = &pack.ops[i]
        end = drop_of(op, b, row)
        end.relu = op.activation == RELU
        p.a_row, p.c_row = op.n_in * PACK, op.n_out * PACK
        z, y = b.z + row * p.c_row, b.y + row * p.c_row
        if op.doors.lanes == DENSE_LANES:
            p.units, p.steps = op.n_out, op.n_in
            p.a, p.b, p.b_step = b.x + row * p.a_row, lanes_of(pack.weights, like, op.weight.data), p.c_row
            p.c = z
            memset(&p.end, 0, sizeof(pack_end))
            if is_fused(op):
                p.end = end
            p.end.bias = lanes_of(pack.weights, like, op.bias.data)
            pack_product(&p)
        elif is_fused(op):
            pack_finish(rows, op.n_out, &end, z, y)
        if not is_fused(op):
            activate(op.activation, op.alpha, z, y, rows * p.c_row)
            if b.drops:
                pack_finish(rows, op.n_out, &end, y, y)


cdef inline void through_activation(
    const Op* op, const PackedOp* b, Py_ssize_t row, Py_ssize_t rows, float* dz
) noexcept nogil:
    """From d loss / d f(z) of some rows to d loss / d z, where that is not done yet."""
    if not is_fused(op):
        activation_gradient(op.activation, op.alpha, b.z + row * op.n_out * PACK, dz, rows * op.n_out * PACK)


cdef inline void backward_rows(Pack* pack, const Trainee* like, Py_ssize_t row, Py_ssize_t rows) noexcept nogil:
    """Some rows back through all operations; their part of the gradients is added."""
    cdef const Program* p = &like.program
    cdef const Op* op
    cdef const Op* below = NULL
    cdef pack_end end
    cdef int i = p.n_ops - 1, turn = 0
    cdef float* dz = pack.top + row * p.outputs * PACK
    end = end_backward(&p.ops[i], &pack.ops[i], row)
    pack_finish(rows, p.outputs, &end, dz, dz)
    through_activation(&p.ops[i], &pack.ops[i], row, rows, dz)
    while i >= p.lowest:
        op = &p.ops[i]
        if op.doors.lanes == DENSE_LANES:
            add_gradients(pack, like, i, row, rows, dz)
        if i > p.lowest:
            below = &p.ops[i - 1]
            end = end_backward(below, &pack.ops[i - 1], row)
            if op.doors.lanes == DENSE_LANES:
                product_backward(pack, like, op, rows, dz, &end, pack.dz[turn])
                dz = pack.dz[turn]
                turn = 1 - turn
            else:
                pack_finish(rows, op.n_in, &end, dz, dz)
            through_activation(below, &pack.ops[i - 1], row, rows, dz)
        i -= 1


cdef inline void add_gradients(
    Pack* pack, const Trainee* like, int i, Py_ssize_t row, Py_ssize_t rows, const float* dz
) noexcept nogil:
    """dW += x^t dz, db += sum of the rows of dz."""
    cdef const Op* op = &like.program.ops[i]
    cdef pack_factors p
    memset(&p.end, 0, sizeof(pack_end))
    p.rows, p.units, p.steps, p.resume = op.n_in, op.n_out, rows, True
    p.a_row, p.a_step = PACK, op.n_in * PACK
    p.a = pack.ops[i].x + row * p.a_step
    p.b, p.b_step, p.b_unit = dz, op.n_out * PACK, PACK
    p.c, p.c_row = lanes_of(pack.gradients, like, op.weight.data), p.b_step
    pack_product(&p)
    if op.bias.data != NULL:
        pack_column_sums(rows, op.n_out, dz, lanes_of(pack.gradients, like, op.bias.data))


cdef inline void product_backward(
    Pack* pack, const Trainee* like, const Op* op, Py_ssize_t rows, const float* dz, const pack_end* end, float* dx
) noexcept nogil:
    """dx = dz W^t, and what it ends with."""
    cdef pack_factors p
    p.rows, p.units, p.steps, p.resume = rows, op.n_in, op.n_out, False
    p.a, p.a_row, p.a_step = dz, op.n_out * PACK, PACK
    p.b, p.b_step, p.b_unit = lanes_of(pack.weights, like, op.weight.data), PACK, op.n_out * PACK
    p.c, p.c_row, p.end = dx, op.n_in * PACK, end[0]
    pack_product(&p)

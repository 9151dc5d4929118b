"""Networks of a few units across the lanes: up to sixteen of one shape make their steps together, a network a lane.

                              a lane
                                v
    rows of a batch    x [row][feature][lane] -> y0 [row][unit][lane] -> ... -> z [row][output][lane]
    weights            [parameter][lane]   <-  the arenas of each network, after every update
    masks              [row][32 units][lane] words, of the bits that each network draws
    z -> the loss of each network -> d loss / d z [row][output][lane] -> gradients [parameter][lane] -> their arenas

Only what lies between the rows of a batch and the gradients is done in lanes (pack.h); masks, losses and optimizers
are the networks' own, and may differ. The backward pass goes through all operations with a few rows at a time, whose
d loss / d z then stay in the cache: the chains of a gradient go on from there with the next rows.

What must be the same: operations, widths, activations, the rows of an epoch and of a batch. Where networks stand in
their epochs must be the same too, but which epochs these are may differ.
"""

from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

from cydrop._core.activations cimport IDENTITY, RELU, activate, activation_gradient
from cydrop._core.batch cimport Batch, load_targets
from cydrop._core.dropout cimport BLOCK, mask_words
from cydrop._core.losses cimport LossSum, loss_pass
from cydrop._core.map_op cimport epilogue_draw, keeps_z
from cydrop._core.operation cimport DENSE_LANES, NO_LANES, Bound, Layout, Op, Step, take
from cydrop._core.pace cimport passing_seconds
from cydrop._core.program cimport Program
from cydrop._core.trainee cimport (
    Desk, GOES_ON, Trainee, begin_epoch, diverge, end_epoch, lay_out_held, pauses, place_of_rates, sit_down_to_judge,
)
from cydrop._core.training cimport SMALL, begin_learning, limit_norms, update_from_arena

cdef extern from "pack.h" nogil:
    enum:
        PACK
        PACKS
        PACK_WORD
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
    LEAST_PACK = 5              # networks in lanes that take less time than one after another
    WIDEST_PACK = 64            # units up to which that is so


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
    cdef int i
    if not PACKS or p.loss.pair > 0 or p.members > 0 or p.lowest >= p.n_ops or t.learner.n > SMALL or (
        t.learner.n % 16
    ):
        return False
    for i in range(p.n_ops):
        op = &p.ops[i]
        if op.doors.lanes == NO_LANES or op.connect.column >= 0 or op.leaves_out or op.reads_kept or (
            max(op.n_in, op.n_out) > WIDEST_PACK
        ):
            return False
    return True


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


cdef inline Py_ssize_t held_floats(Desk* desk, const Trainee* t) noexcept nogil:
    """For the held-out rows of a member."""
    cdef Layout layout
    memset(&layout, 0, sizeof(Layout))
    lay_out_held(desk, t, &layout)
    return layout.used


cdef inline void train_pack(
    Pack* pack, Trainee** members, int n, Desk* desk, float* held_memory, float* memory, double deadline
) noexcept nogil:
    """Steps and epochs of all, until so many have nothing left to do that the others are better off in other packs, or,
    after a step, the time is over."""
    cdef Trainee* t
    cdef double begun = passing_seconds(), now
    cdef int lane
    cdef Py_ssize_t batch
    pack.n = n
    for lane in range(PACK):
        pack.members[lane] = members[lane] if lane < n else NULL
    pack_floats(pack, members[0], memory)
    memset(&pack.bound, 0, sizeof(Bound))
    pack.bound.mask = pack.bits
    batch = members[0].batch
    while True:
        for lane in range(PACK if batch == 0 else 0):
            if pack.members[lane] != NULL:
                begin_epoch(pack.members[lane])
        take_weights(pack)
        t = any_member(pack)
        while pack.n > 0 and batch * t.batch_size < t.epoch_rows:
            step_of_pack(pack, t, batch)
            batch += 1
            now = passing_seconds()
            for lane in range(PACK):
                if pack.members[lane] != NULL:
                    pack.members[lane].seconds += (now - begun) / pack.n
            begun = now
            if now > deadline:
                break
            t = any_member(pack)
        if pack.n == 0 or batch * t.batch_size < t.epoch_rows:
            return
        batch = 0
        for lane in range(PACK):
            if pack.members[lane] != NULL:
                end_epoch_of_member(pack, lane, desk, held_memory)
        begun = passing_seconds()
        if pack.n < LEAST_PACK or 2 * pack.n < n or begun > deadline:
            return


cdef inline Trainee* any_member(const Pack* pack) noexcept nogil:
    """One of those that are there, NULL: there is none."""
    cdef int lane
    for lane in range(PACK):
        if pack.members[lane] != NULL:
            return pack.members[lane]
    return NULL


cdef inline void leave(Pack* pack, int lane) noexcept nogil:
    pack.members[lane] = NULL
    pack.n -= 1


cdef inline void end_epoch_of_member(Pack* pack, int lane, Desk* desk, float* memory) noexcept nogil:
    cdef Trainee* t = pack.members[lane]
    if t.n_held > 0:
        sit_down_to_judge(desk, t, memory)
    end_epoch(t, desk)
    if pauses(t):
        leave(pack, lane)


cdef inline void take_weights(Pack* pack) noexcept nogil:
    """Those of all members into the lanes; empty ones get somebody's, so that nothing strange is computed there."""
    cdef const float* arenas[PACK]
    cdef Trainee* t = any_member(pack)
    cdef int lane
    for lane in range(PACK if t != NULL else 0):
        arenas[lane] = (t if pack.members[lane] == NULL else pack.members[lane]).learner.parameters
    if t != NULL:
        pack_in(arenas, t.learner.n, pack.weights)


cdef inline void step_of_pack(Pack* pack, const Trainee* like, Py_ssize_t batch) noexcept nogil:
    """One step of every member."""
    cdef const Program* p = &like.program
    cdef Py_ssize_t first = batch * like.batch_size, rows = min(like.batch_size, like.epoch_rows - first), row = 0
    draw_masks(pack, p, rows)
    take_rows(pack, like, first, rows)
    while row < rows:
        forward_rows(pack, like, row, min(<Py_ssize_t>PASSED, rows - row))
        row += PASSED
    losses_of_members(pack, p.outputs, first, rows)
    if pack.n == 0:
        return
    memset(pack.gradients, 0, like.learner.n * PACK * sizeof(float))
    row = 0
    while row < rows:
        backward_rows(pack, like, row, min(<Py_ssize_t>PASSED, rows - row))
        row += PASSED
    update_members(pack, like.learner.n)
    take_weights(pack)


cdef inline void draw_masks(Pack* pack, const Program* p, Py_ssize_t rows) noexcept nogil:
    """The masks of this step, each network's as it draws them alone."""
    cdef int i, lane
    for i in range(p.n_ops):
        pack.ops[i].drops = False
        for lane in range(PACK):
            pack.ops[i].scale[lane] = 1.0
            if pack.members[lane] != NULL:
                draw_mask_of_member(pack, i, lane, rows)


cdef inline void draw_mask_of_member(Pack* pack, int i, int lane, Py_ssize_t rows) noexcept nogil:
    cdef const Trainee* t = pack.members[lane]
    cdef const Op* op = &t.program.ops[i]
    cdef PackedOp* to = &pack.ops[i]
    cdef Bound* b = &pack.bound
    cdef Step step
    cdef Py_ssize_t words = words_of(op)
    if op.noise.column < 0:
        return
    memset(&step, 0, sizeof(Step))
    step.rows, step.threads, step.training = rows, 1, True
    step.number = step.shared_number = t.draws[0]
    step.rates = t.rates + place_of_rates(t) * t.program.n_rates
    b.epilogue.mask = NULL
    epilogue_draw(op, b, &step)
    to.scale[lane] = b.epilogue.scale
    if b.epilogue.mask == NULL:
        return
    if not to.drops:            # all is kept in the lanes that draw nothing
        memset(to.kept, 255, rows * words * PACK * sizeof(int32_t))
        to.drops = True
    pack_mask(b.epilogue.mask, b.epilogue.mask_first, b.epilogue.mask_row, rows, words, words * PACK, lane, to.kept)


cdef inline void take_rows(Pack* pack, const Trainee* like, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """x of a batch, of which each member has rows of its own."""
    cdef const float* sources[PACK]
    cdef const Trainee* t
    cdef Py_ssize_t r, columns = like.data.columns
    cdef int lane
    for r in range(rows):
        for lane in range(PACK):
            t = like if pack.members[lane] == NULL else pack.members[lane]
            sources[lane] = t.data.x + t.data.order[first + r] * columns
        pack_in(sources, columns, pack.ops[0].x + r * columns * PACK)


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
    end.scale, end.words_row = b.scale, words_of(op) * PACK
    if b.drops:
        end.words = b.kept + row * end.words_row
    return end


cdef inline pack_end end_backward(const Op* op, const PackedOp* b, Py_ssize_t row) noexcept nogil:
    """What makes d loss / d f(z) of d loss / d y, or of ReLU d loss / d z: the zeros of its y are the mask of
    activation and dropout together."""
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


cdef inline void losses_of_members(Pack* pack, Py_ssize_t units, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Each network's loss of its rows, and d loss / d z; one whose loss is not finite leaves."""
    cdef int lane
    pack_out(pack.ops[pack.n_ops - 1].y, rows * units, pack.outputs)
    for lane in range(PACK):
        if pack.members[lane] != NULL:
            loss_of_member(pack, lane, units, first, rows)
        if pack.members[lane] == NULL:
            memset(pack.slopes[lane], 0, rows * units * sizeof(float))
    pack_in(<const float**>pack.slopes, rows * units, pack.top)


cdef inline void loss_of_member(
    Pack* pack, int lane, Py_ssize_t units, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    cdef Trainee* t = pack.members[lane]
    cdef Batch* batch = &pack.batch
    cdef LossSum one
    load_targets(&t.data, batch, t.data.order + first, first, rows, 0)
    one = loss_pass(t.program.loss, pack.outputs[lane], units, rows, units,
                    batch.labels if t.data.labels != NULL else NULL, batch.targets,
                    batch.weights if t.data.weights != NULL else NULL, t.data.each, rows, pack.slopes[lane], units,
                    pack.row_loss, pack.row_correct, 1)
    t.draws[0] += 1
    if not isfinite(one.loss):
        diverge(t)
        leave(pack, lane)
        return
    t.loss += one.loss
    t.correct += one.correct


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


cdef inline void update_members(Pack* pack, Py_ssize_t n) noexcept nogil:
    """Each network's optimizer, with its gradients in its arena, as in a step of its own."""
    cdef float* arenas[PACK]
    cdef Trainee* t
    cdef Py_ssize_t place
    cdef int lane
    for lane in range(PACK):
        arenas[lane] = pack.spare if pack.members[lane] == NULL else pack.members[lane].learner.gradients
    pack_out(pack.gradients, n, arenas)
    for lane in range(PACK):
        t = pack.members[lane]
        if t != NULL:
            place = place_of_rates(t)
            t.updates[0] += 1
            begin_learning(t.learner, t.learning_rates[place], t.decays[place], t.updates[0])
            update_from_arena(t.learner, 1)
            limit_norms(&t.program, t.learner, 1)
            t.batch += 1

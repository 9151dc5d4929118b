"""The training of a pack: epochs and steps of up to sixteen networks together, each with its own masks, loss, optimizer
and held-out rows.

A network whose loss is not finite, that is out of patience or that has all its epochs leaves; its lane then computes
what nobody reads. When few are left they go on in other packs, or one by one (many.pyx).
"""

from libc.math cimport isfinite
from libc.stdint cimport int32_t
from libc.string cimport memset

from cydrop._core.batch cimport Batch, load_targets
from cydrop._core.losses cimport LossSum, loss_pass
from cydrop._core.map_op cimport epilogue_draw
from cydrop._core.operation cimport Bound, Layout, Op, Step
from cydrop._core.pace cimport passing_seconds
from cydrop._core.pack cimport (
    PACK, PASSED, Pack, PackedOp, backward_rows, forward_rows, least_pack, pack_floats, pack_in, pack_mask, pack_out,
    words_of,
)
from cydrop._core.program cimport Program
from cydrop._core.trainee cimport (
    Desk, Trainee, begin_epoch, diverge, end_epoch, lay_out_held, pauses, place_of_rates, sit_down_to_judge,
)
from cydrop._core.training cimport begin_learning, limit_norms, update_from_arena


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
        if pack.n == 0 or pack.n < least_pack(any_member(pack)) or begun > deadline:
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
            begin_learning(t.learner, t.learning_rates[place], t.decays[place], t.updates[0], 1)
            update_from_arena(t.learner, 1)
            limit_norms(&t.program, t.learner, 1)
            t.batch += 1

"""A training step: a batch forward to its loss, backward to the gradients, and the update."""

from libc.math cimport sqrt
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcpy

from cydrop._core.batch cimport Data, load
from cydrop._core.matrix cimport Matrix
from cydrop._core.max_norm cimport clip_columns
from cydrop._core.losses cimport LossSum, loss_pass, pair_pass
from cydrop._core.operation cimport Op
from cydrop._core.optimizers cimport (
    Segment, Update, begin_update, squared_norm, update_arena, update_of_segment, update_segments,
)
from cydrop._core.pace cimport DRAWING, LOADING, LOSS_PASS, UPDATING, start, tick
from cydrop._core.program cimport Program, backward, draw, forward
from cydrop._core.room cimport Room

# Up to SMALL parameters one pass over the arenas is the fastest update, as measured: each takes 48 KiB, and is still
# cached after the backward pass. (64-128-10 has 9,610.)
cdef enum:
    SMALL = 12288


cdef struct Learner:            # the optimizer and what it changes
    Update update
    Segment* segments           # the parameters, where some have factors of their own; NULL: none has
    Update* updates             # of each of them, for the step at hand
    int n_segments
    bint clips
    float clip_norm
    bint limits_norms           # whether any operation has a max-norm
    Py_ssize_t n                # parameters
    float* parameters           # arenas; moments that the optimizer does not have are NULL
    float* gradients
    float* moment1
    float* moment2
    double* partial_norms


cdef inline void begin_step(
    const Program* p, Room* room, Py_ssize_t rows, const double* rates, uint64_t number
) noexcept nogil:
    """What the next training step brings to the operations."""
    if p.n_rates:
        memcpy(room.rates, rates, p.n_rates * sizeof(double))
    room.step.rows, room.step.threads = rows, room.threads
    room.step.number = room.step.shared_number = number


cdef inline LossSum forward_batch(
    const Program* p, Room* room, const Data* data, Py_ssize_t first, Py_ssize_t rows, const double* rates,
    uint64_t number, double now
) noexcept nogil:
    """The loss of a batch, and d loss / d raw outputs in room.upstream."""
    cdef int copies = 2 if p.loss.pair > 0 else 1       # R-Drop: every row twice, with masks of their own
    cdef Matrix z
    cdef LossSum one
    cdef const int32_t* labels = room.batch.labels if data.labels != NULL else NULL
    cdef const float* weights = room.batch.weights if data.weights != NULL else NULL
    start(room.step.clock, now)
    load(data, &room.batch, first, rows, copies, room.threads, &room.bound[0].x)
    tick(room.step.clock, LOADING)
    begin_step(p, room, copies * rows, rates, number)
    draw(p, room.bound, &room.step)
    tick(room.step.clock, DRAWING)
    forward(p, room.bound, &room.step)
    z = room.bound[p.n_ops - 1].y
    room.upstream.dz, room.upstream.spare = room.upstream_memory[0], room.upstream_memory[1]
    if copies == 2:
        one = pair_pass(p.loss, z.data, z.row, rows, p.outputs, labels, room.batch.targets, weights,
                        room.upstream.dz.data, room.upstream.dz.row, room.row_loss, room.row_correct, room.threads)
    else:
        one = loss_pass(p.loss, z.data, z.row, rows, p.outputs, labels, room.batch.targets, weights, data.each,
                        room.upstream.dz.data, room.upstream.dz.row, room.row_loss, room.row_correct, room.threads)
    tick(room.step.clock, LOSS_PASS)
    return one


cdef inline void begin_learning(
    Learner* learner, double learning_rate, double weight_decay, uint64_t updates
) noexcept nogil:
    """What the optimizer works out once per step, here update number `updates`."""
    cdef int i
    learner.update.decay = weight_decay
    begin_update(&learner.update, learning_rate, updates)
    for i in range(learner.n_segments):
        learner.updates[i] = update_of_segment(&learner.update, &learner.segments[i])


cdef inline void update_batch(
    const Program* p, Room* room, Learner* learner, double learning_rate, double weight_decay, uint64_t updates
) noexcept nogil:
    """Backward and update. Without a global norm to clip, the optimizer runs inside the gradient's product."""
    begin_learning(learner, learning_rate, weight_decay, updates)
    room.upstream.updating = not (learner.clips or learner.n <= SMALL)
    backward(p, room.bound, &room.upstream, &room.step, False)
    if not room.upstream.updating:
        update_from_arena(learner, room.threads)
    limit_norms(p, learner, room.threads)
    tick(room.step.clock, UPDATING)


cdef inline void update_from_arena(Learner* learner, int n_threads) noexcept nogil:
    """Clip by the global norm (Pascanu, Mikolov and Bengio 2013), then one pass over the flat arenas."""
    cdef double norm
    learner.update.clip = 1.0
    if learner.n == 0:
        return
    if learner.clips:
        norm = sqrt(squared_norm(learner.gradients, learner.n, learner.partial_norms, n_threads))
        if norm > learner.clip_norm:
            learner.update.clip = <float>(learner.clip_norm / norm)
    if learner.n_segments > 0:
        update_segments(&learner.update, learner.segments, learner.n_segments, learner.parameters, learner.gradients,
                        learner.moment1, learner.moment2, n_threads)
    else:
        update_arena(&learner.update, learner.parameters, learner.gradients, learner.moment1, learner.moment2,
                     learner.n, n_threads)
    learner.update.clip = 1.0


cdef inline void limit_norms(const Program* p, const Learner* learner, int n_threads) noexcept nogil:
    """Max-norm, after an update."""
    cdef int i
    cdef const Op* op
    if not learner.limits_norms:
        return
    for i in range(p.n_ops):
        op = &p.ops[i]
        if op.max_norm > 0:
            clip_columns(op.weight.data, op.n_in, op.n_out, op.max_norm, n_threads)

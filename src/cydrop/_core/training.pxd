"""A training step: a batch forward to its loss, backward to the gradients, and the update."""

from cython.parallel cimport prange
from libc.math cimport isfinite, sqrt
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.arena cimport first_of
from cydrop._core.batch cimport Data, fetch, load
from cydrop._core.learned_rates cimport LearnedRate, draw_to_prior
from cydrop._core.matrix cimport Matrix, from_row
from cydrop._core.members cimport members_batch, members_by_hand, members_together
from cydrop._core.max_norm cimport clip_columns
from cydrop._core.losses cimport LossSum, loss_pass, pair_pass, sum_of_rows
from cydrop._core.norm_op cimport run_statistics
from cydrop._core.operation cimport Op
from cydrop._core.optimizers cimport (
    SPAN, Segment, Update, begin_update, squared_norm, update_arena, update_of_segment, update_segments,
)
from cydrop._core.pace cimport (
    DRAWING, LOADING, LOSS_PASS, UPDATING, note_pace, passing_seconds, patience, start, threads_now, tick,
)
from cydrop._core.program cimport (
    Program, backward, copy_rows, draw, forward, lose_patience, trained_members, write_output,
)
from cydrop._core.room cimport Room
from cydrop._core.serial cimport SERIAL_COPY
from cydrop._core.shards cimport MOST_SHARDS, Part, add_parts, part_of, row_of_shard, sum_of_shards

# Up to SMALL parameters one pass over the arenas is the fastest update, as measured: each takes 48 KiB, and is still
# cached after the backward pass. (64-128-10 has 9,610.)
cdef enum:
    SMALL = 12288


cdef struct Learner:            # the optimizer and what it changes
    Update update
    Segment* segments           # the parameters, where some have factors of their own; NULL: none has
    Update* updates             # of each of them, for the step at hand
    int n_segments
    LearnedRate* learned        # dropout rates
    int n_learned
    double rows                 # to train on, as far as their prior is concerned, 0: unknown
    bint clips
    float clip_norm
    bint limits_norms           # whether any operation has a max-norm
    Py_ssize_t n                # parameters
    float* parameters           # arenas; moments that the optimizer does not have are NULL
    float* gradients
    float* moment1
    float* moment2
    double* partial_norms


cdef inline int take_shards(
    const Program* p, Room* room, const Part* part, float[::1] statistics, float[::1] buffers
) except -1:
    """Checks that there is room for a part of a batch, and says where its statistics go."""
    cdef int n = part.n_shards
    cdef Py_ssize_t rows = copies_of(p) * part.rows
    if trained_members(p) > 0 and part.shards > 0:
        raise ValueError("batches of many members are not cut into shards")
    if trained_members(p) > 0:
        rows = members_together(p, max(<Py_ssize_t>1, part.rows)) * part.rows
    if n & (n - 1) or part.shards & (part.shards - 1) or part.first_shard < 0 or part.first_shard + n > part.shards or (
        part.first_shard % n if n > 0 else part.shards > 0
    ):
        raise ValueError(f"{n} shards from number {part.first_shard} on are no subtree of {part.shards}")
    if part.batch_rows < 1:
        raise ValueError("there is no such batch")
    if n > room.shards or n > MOST_SHARDS or rows > room.capacity:
        raise ValueError(f"room for {room.shards} shards and {room.capacity} rows, got {n} and {rows}")
    if statistics.shape[0] != buffers.shape[0]:
        raise ValueError(f"statistics must have {buffers.shape[0]} elements, got {statistics.shape[0]}")
    room.step.statistics, room.step.buffers = first_of(statistics), first_of(buffers)
    return 0


cdef inline int copies_of(const Program* p) noexcept nogil:
    """R-Drop: every row twice, with masks of their own."""
    return 2 if p.loss.pair > 0 else 1


cdef inline void begin_step(
    const Program* p, Room* room, const Part* part, int copies, const double* rates, uint64_t number
) noexcept nogil:
    """What the next training step brings to the operations."""
    cdef int s
    if p.n_rates:
        memcpy(room.rates, rates, p.n_rates * sizeof(double))
    room.step.rows, room.step.threads = copies * part.rows, room.threads
    room.step.number = room.step.shared_number = number
    room.step.shards = part.n_shards
    for s in range(part.n_shards + 1 if part.n_shards > 0 else 0):
        room.bounds[s] = copies * (row_of_shard(part.batch_rows, part.shards, part.first_shard + s) - part.first)


cdef inline LossSum forward_batch(
    const Program* p, Room* room, const Data* data, Py_ssize_t first, const Part* part, const double* rates,
    uint64_t number, double now
) noexcept nogil:
    """The loss of a part of the batch that begins with row `first`, and d loss / d raw outputs in room.upstream."""
    cdef int copies = copies_of(p), s
    cdef Py_ssize_t rows = part.rows, row
    cdef Matrix z, dz
    cdef LossSum one
    cdef const int32_t* labels = room.batch.labels if data.labels != NULL else NULL
    cdef const float* weights = room.batch.weights if data.weights != NULL else NULL
    start(room.step.clock, now)
    begin_step(p, room, part, copies, rates, number)
    load(data, &room.batch, first + part.first, rows, copies, part.n_shards, room.bounds, room.threads,
         &room.bound[0].x)
    tick(room.step.clock, LOADING)
    lose_patience(&room.step)
    draw(p, room.bound, &room.step)
    tick(room.step.clock, DRAWING)
    forward(p, room.bound, &room.step)
    z = room.bound[p.n_ops - 1].y
    room.upstream.dz, room.upstream.spare = room.upstream_memory[0], room.upstream_memory[1]
    dz = room.upstream.dz
    if copies == 1:
        one = loss_pass(p.loss, z.data, z.row, rows, p.outputs, labels, room.batch.targets, weights, data.each,
                        part.batch_rows, dz.data, dz.row, room.row_loss, room.row_correct, room.step.threads)
    elif part.n_shards == 0:
        one = pair_pass(p.loss, z.data, z.row, rows, p.outputs, labels, room.batch.targets, weights, part.batch_rows,
                        dz.data, dz.row, room.row_loss, room.row_correct, room.step.threads)
    for s in range(part.n_shards if copies == 2 else 0):
        row = room.bounds[s] // 2
        pair_pass(p.loss, from_row(z, 2 * row).data, z.row, room.bounds[s + 1] // 2 - row, p.outputs,
                  labels + row if labels != NULL else NULL, room.batch.targets + row * p.outputs,
                  weights + row if weights != NULL else NULL, part.batch_rows, from_row(dz, 2 * row).data, dz.row,
                  room.row_loss + row, room.row_correct + row, room.step.threads)
    if part.n_shards > 0:
        one = loss_of_shards(room, copies, part.n_shards)
    tick(room.step.clock, LOSS_PASS)
    return one


cdef inline LossSum loss_of_shards(const Room* room, int copies, int shards) noexcept nogil:
    """The losses of rows in their order in each shard, and the shards over their tree."""
    cdef double[MOST_SHARDS] sums
    cdef LossSum total, one
    cdef Py_ssize_t row
    cdef int s
    total.correct = 0
    for s in range(shards):
        row = room.bounds[s] // copies
        one = sum_of_rows(room.row_loss + row, room.row_correct + row, room.bounds[s + 1] // copies - row)
        sums[s] = one.loss
        total.correct += one.correct
    total.loss = sum_of_shards(sums, shards)
    return total


cdef inline void begin_learning(
    Learner* learner, double learning_rate, double weight_decay, uint64_t updates, int n_threads
) noexcept nogil:
    """What the optimizer works out once per step, here update number `updates`."""
    cdef int i
    learner.update.decay = weight_decay
    begin_update(&learner.update, learning_rate, updates)
    draw_to_prior(learner.learned, learner.n_learned, learner.rows, learner.segments, learner.parameters,
                  learner.partial_norms, n_threads)
    for i in range(learner.n_segments):
        learner.updates[i] = update_of_segment(&learner.update, &learner.segments[i])


cdef inline int threads_left(const Program* p, const Room* room) noexcept nogil:
    """After what the batch has cost so far. Members' steps are their own."""
    return room.threads if trained_members(p) > 0 else room.step.threads


cdef inline void update_batch(
    const Program* p, Room* room, Learner* learner, const Part* part, double learning_rate, double weight_decay,
    uint64_t updates
) noexcept nogil:
    """Backward and update. Without a global norm to clip, the optimizer runs inside the gradient's product."""
    begin_learning(learner, learning_rate, weight_decay, updates, threads_left(p, room))
    room.upstream.updating = not (learner.clips or learner.n <= SMALL or trained_members(p) > 0)
    if trained_members(p) == 0:              # else it is done
        backward(p, room.bound, &room.upstream, &room.step, False)
    if not room.upstream.updating:
        update_from_arena(learner, threads_left(p, room))
    if part.shards > 0:
        end_statistics(p, room.step.statistics, room.step.buffers, part.batch_rows, part.shards)
    limit_norms(p, learner, threads_left(p, room))
    tick(room.step.clock, UPDATING)


cdef inline LossSum part_gradients(
    const Program* p, Room* room, const Learner* learner, const Data* data, Py_ssize_t first, const Part* part,
    const double* rates, uint64_t number, Py_ssize_t n_buffers
) noexcept nogil:
    """The loss of some shards, their gradients in the arena, and the sums of their statistics."""
    cdef LossSum one
    cdef double begun = passing_seconds(), now
    one.loss, one.correct = 0.0, 0
    if n_buffers > 0:
        memset(room.step.statistics, 0, n_buffers * sizeof(float))
    if part.rows == 0:
        memset(learner.gradients, 0, learner.n * sizeof(float))
        return one
    room.threads = threads_now(&room.pace, p.n_threads, begun)
    room.step.deadline = patience(&room.pace, room.threads, part.rows, begun)
    room.step.first_row = copies_of(p) * part.first
    one = forward_batch(p, room, data, first, part, rates, number, begun)
    room.upstream.updating = False
    backward(p, room.bound, &room.upstream, &room.step, False)
    room.step.first_row, room.step.deadline = 0, 0.0
    now = passing_seconds()
    note_pace(&room.pace, room.threads, p.n_threads, now - begun, part.rows, now)
    return one


cdef inline void update_from_arena(Learner* learner, int n_threads) noexcept nogil:
    """Clip by the global norm (Pascanu, Mikolov and Bengio 2013), then one pass over the flat arenas."""
    learner.update.clip = 1.0
    if learner.n == 0:
        return
    if learner.clips:
        clip_to(learner, squared_norm(learner.gradients, learner.n, learner.partial_norms, n_threads))
    update_range(learner, 0, learner.n, n_threads)


cdef inline void clip_to(Learner* learner, double squares) noexcept nogil:
    """The factor for gradients of this squared norm."""
    cdef double norm = sqrt(squares)
    learner.update.clip = 1.0
    if norm > learner.clip_norm:
        learner.update.clip = <float>(learner.clip_norm / norm)


cdef inline void update_range(
    Learner* learner, Py_ssize_t first, Py_ssize_t stop, int n_threads
) noexcept nogil:
    """One pass over the elements first..stop of the flat arenas."""
    cdef Segment piece
    cdef Update update
    cdef Py_ssize_t end
    cdef int i
    if learner.n_segments == 0:
        update_arena(&learner.update, learner.parameters + first, learner.gradients + first,
                     learner.moment1 + first if learner.moment1 != NULL else NULL,
                     learner.moment2 + first if learner.moment2 != NULL else NULL, stop - first, n_threads)
    for i in range(learner.n_segments):
        piece = learner.segments[i]
        end = min(piece.start + piece.size, stop)
        piece.start = max(piece.start, first)
        piece.size = end - piece.start
        update = learner.update
        if piece.size > 0 and piece.pull != 0.0:        # a single number
            learner.gradients[piece.start] = learner.gradients[piece.start] * update.clip + <float>piece.pull
            update.clip = 1.0
        if piece.size > 0:
            update_segments(&update, &piece, 1, learner.parameters, learner.gradients, learner.moment1,
                            learner.moment2, n_threads)
    learner.update.clip = 1.0


cdef inline void sum_parts(
    const Learner* learner, float* parts, Py_ssize_t n, int n_parts, Py_ssize_t first, double* squares, int n_threads
) noexcept nogil:
    """The sum of the parts' gradients, n elements each, which are lost, into the arena from `first` on; into `squares`,
    if not NULL, each span's sum of squares."""
    cdef Py_ssize_t i
    cdef int threads = n_threads if n > SERIAL_COPY else 1
    for i in prange(0, n, SPAN, num_threads=threads, schedule="static"):
        add_parts(parts + i, n, min(<Py_ssize_t>SPAN, n - i), n_parts, learner.gradients + first + i)
    if squares != NULL:
        squared_norm(learner.gradients + first, n, squares, threads)


cdef inline void update_part(
    Learner* learner, Py_ssize_t first, Py_ssize_t stop, const double* squares, Py_ssize_t spans, int n_threads
) noexcept nogil:
    """One pass over the elements first..stop, after begin_learning. `squares`: where it clips those of all spans."""
    cdef double total = 0.0
    cdef Py_ssize_t i
    learner.update.clip = 1.0
    for i in range(spans):
        total += squares[i]
    if spans > 0:
        clip_to(learner, total)
    if stop > first:
        update_range(learner, first, stop, n_threads)
    learner.update.clip = 1.0


cdef inline void end_statistics(
    const Program* p, const float* statistics, const float* buffers, Py_ssize_t rows, int shards
) noexcept nogil:
    """Running statistics after a batch of so many rows, from the sums over its shards."""
    cdef int i
    for i in range(p.n_ops):
        if p.ops[i].norm.batch:
            run_statistics(&p.ops[i], statistics, buffers, rows, copies_of(p), shards)


cdef inline void limit_norms(const Program* p, const Learner* learner, int n_threads) noexcept nogil:
    """Max-norm, after an update."""
    cdef int i
    cdef Py_ssize_t m
    cdef const Op* op
    if not learner.limits_norms:
        return
    for i in range(p.n_ops):
        op = &p.ops[i]
        if op.max_norm > 0:
            for m in range(op.numbers[0] if op.doors.of_members else 1):
                clip_columns(op.weight.data + m * op.n_in * op.n_out, op.n_in, op.n_out, op.max_norm, n_threads)


cdef inline const double* row_of(const double[:, ::1] rates, Py_ssize_t batch) noexcept nogil:
    """The rates of a batch: a row each, or one for all; NULL where there are none."""
    if rates.shape[1] == 0:
        return NULL
    return &rates[batch if rates.shape[0] > 1 else 0, 0]


cdef inline void forward_by_hand(
    const Program* p, Room* room, const float* x, Py_ssize_t rows, Py_ssize_t columns, float* out, const double* rates,
    uint64_t number
) noexcept nogil:
    """A training forward pass to the raw outputs. `backward` reads the input again, so it is kept: the caller may
    change x in between."""
    cdef Part whole = part_of(rows, 0, 0, 0)
    cdef Matrix given
    cdef int m
    given.data, given.row = <float*>x, columns
    for m in range(max(1, trained_members(p))):
        copy_rows(given, from_row(room.batch.x, m * rows), rows, columns)
    room.bound[0].x = room.batch.x
    begin_step(p, room, &whole, 1, rates, number)
    if trained_members(p) > 0:
        members_by_hand(p, room, rows, out, NULL, NULL)
        return
    draw(p, room.bound, &room.step)
    forward(p, room.bound, &room.step)
    write_output(p, room.bound, rows, out, False)


cdef inline void backward_by_hand(
    const Program* p, Room* room, const float* grad, Py_ssize_t rows, Py_ssize_t columns, float* dx,
    Py_ssize_t dx_columns
) noexcept nogil:
    """From d loss / d raw outputs to the gradient arena and d loss / d x."""
    cdef Matrix given, to
    if trained_members(p) > 0:
        members_by_hand(p, room, rows // p.members, NULL, grad, dx)
        return
    room.upstream.dz, room.upstream.spare = room.upstream_memory[0], room.upstream_memory[1]
    room.upstream.updating = False
    given.data, given.row = <float*>grad, columns
    copy_rows(given, room.upstream.dz, rows, columns)
    backward(p, room.bound, &room.upstream, &room.step, True)
    to.data, to.row = dx, dx_columns
    copy_rows(room.upstream.dz, to, rows, dx_columns)


cdef struct Stretch:            # of batches, one after another
    Py_ssize_t batch            # the next one
    double loss                 # sums
    Py_ssize_t correct
    bint diverged               # the loss of the next one is not finite


cdef inline Stretch train_batches(
    const Program* p, Room* room, Learner* learner, const Data* data, Py_ssize_t n, Py_ssize_t batch_size,
    Py_ssize_t first_batch, const double[::1] learning_rates, const double[::1] decays, const double[:, ::1] rates,
    double seconds, int shards, double loss, unsigned long long* draws, unsigned long long* updates
) noexcept nogil:
    """From a batch of the n rows on, until the batch in which the seconds are over. `loss`: the sum so far."""
    cdef Stretch done
    cdef Py_ssize_t batches = (n + batch_size - 1) // batch_size, first, rows
    cdef LossSum one
    cdef Part part
    cdef double begun, now = passing_seconds()
    cdef double deadline = now + seconds
    done.batch, done.loss, done.correct, done.diverged = first_batch, loss, 0, False
    while done.batch < batches:
        begun = now
        room.threads = threads_now(&room.pace, p.n_threads, now)
        first = done.batch * batch_size
        rows = min(batch_size, n - first)
        part = part_of(rows, shards, 0, shards)
        room.step.deadline = patience(&room.pace, room.threads, rows, now)
        if trained_members(p) > 0:
            one = members_batch(p, room, data, n, first, rows, row_of(rates, done.batch), draws[0], now)
        else:
            one = forward_batch(p, room, data, first, &part, row_of(rates, done.batch), draws[0], now)
        draws[0] += 1
        if not isfinite(one.loss):
            done.diverged = True
            break
        done.loss += one.loss
        done.correct += one.correct
        fetch(data, first + rows, min(batch_size, n - first - rows))
        updates[0] += 1
        update_batch(p, room, learner, &part, learning_rates[done.batch if learning_rates.shape[0] > 1 else 0],
                     decays[done.batch if decays.shape[0] > 1 else 0], updates[0])
        done.batch += 1
        now = passing_seconds()
        note_pace(&room.pace, room.threads, p.n_threads, now - begun, rows, now)
        if now > deadline:
            break
    room.step.deadline = 0.0
    return done

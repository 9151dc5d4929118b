"""The memory of one run of a program: what a Workspace holds.

Training keeps every operation's output (the backward pass reads it); prediction takes turns with two for each lane,
a thread each, and samples have what dropout needs as well.

    training     batch | upstream | labels, targets, weights | y of op 0 | y of op 1 | ...
    prediction   lane 0: y of even ops | y of odd ops      lane 1: y of even ops | y of odd ops     ...
"""

from libc.stdint cimport int32_t, uint32_t

from cydrop._core.batch cimport Batch
from cydrop._core.matrix cimport Matrix
from cydrop._core.operation cimport (
    Bound, Layout, Op, Upstream, Step, padded, pairs_of_thread, take, take_matrix,
)
from cydrop._core.pace cimport Clock, Pace
from cydrop._core.pairs cimport most_pairs
from cydrop._core.panels cimport scratch_floats
from cydrop._core.program cimport Program
from cydrop._core.quads cimport most_quads
from cydrop._core.shard_sums cimport gradient_floats
from cydrop._core.shards cimport MOST_SHARDS, level_of

cdef enum:
    TOGETHER = 256              # rows of members that are done together (members.pxd), where one has not more


cdef struct Room:
    Bound* bound                # the operations, for each lane
    int n_ops
    int lanes                   # predictions that go on side by side, a thread each
    Py_ssize_t capacity         # rows
    double* rates               # of this batch
    Pace pace
    int threads                 # in use at the moment
    Clock clock
    int shards                  # of a batch, at most
    Py_ssize_t[MOST_SHARDS + 1] bounds      # of those at hand
    Step step                   # of training, and what those of predictions have in common with it
    Batch batch
    Matrix[2] upstream_memory
    Upstream upstream
    Py_ssize_t quads_each       # from one lane's memory of products of bytes to the next one's
    double* row_loss
    int32_t* row_correct
    Matrix head                 # of samples: what comes before the first drawn number
    Py_ssize_t head_units
    int first                   # the operation that draws it
    Py_ssize_t copies           # samples in a batch
    Py_ssize_t sample_rows      # of each
    float* member_x             # of a prediction of many members, for each lane: what comes into the first's operation
    Py_ssize_t member_x_row
    float* member_outputs       # and what all of them give


cdef inline Py_ssize_t rows_of_room(const Program* p, Py_ssize_t rows) noexcept nogil:
    """Room for batches of up to so many rows, which few rows of many members exceed."""
    return max(rows, min(p.members * rows, <Py_ssize_t>TOGETHER))


cdef inline void lay_out(Room* room, const Program* p, Layout* layout) noexcept nogil:
    """Takes all memory; called twice, to measure and to hand out."""
    cdef int i, lane
    cdef Py_ssize_t widest = 0, tree = 0
    cdef bint bytes = False
    cdef const Op* op
    cdef Bound* b
    cdef Matrix[2] turns
    for i in range(p.n_ops):
        widest = max(widest, p.ops[i].n_in, p.ops[i].n_out)
        bytes = bytes or p.ops[i].doors.of_bytes
        if not (p.ops[i].doors.has_product or p.ops[i].doors.of_members):
            tree = max(tree, gradient_floats(&p.ops[i]))
    room.step.training, room.step.rates = layout.training, room.rates
    if layout.memory == NULL:           # the first time
        layout.capacity = room.capacity = rows_of_room(p, layout.capacity)
    layout.threads, layout.shards = p.n_threads, room.shards
    if layout.training:
        room.batch.x = take_matrix(layout, p.ops[0].n_in)
        room.upstream_memory[0] = take_matrix(layout, widest)
        room.upstream_memory[1] = take_matrix(layout, widest)
        room.batch.labels = <int32_t*>take(layout, layout.capacity)
        room.batch.targets = take(layout, layout.capacity * p.outputs)
        room.batch.weights = take(layout, layout.capacity * p.outputs)
        room.row_loss = <double*>take(layout, 2 * layout.capacity)
        room.row_correct = <int32_t*>take(layout, layout.capacity)
        room.step.full_row_floats = (2 * widest + 15) // 16 * 16
        room.step.full_row = take(layout, room.step.full_row_floats * p.n_threads)
        room.step.bounds = room.bounds
        if layout.shards > 0 or p.members > 0:
            room.step.tree = take(layout, tree * (1 + level_of(max(layout.shards, 1) - 1)))
    elif layout.draws:
        room.head = take_matrix(layout, widest)
    if p.members > 0 and not layout.training:
        room.member_x_row = padded(p.ops[p.inside].n_in)
        room.member_x = take(layout, room.lanes * layout.capacity * room.member_x_row)
        room.member_outputs = take(layout, room.lanes * layout.capacity * p.members * p.outputs)
    room.step.scratch = take(layout, scratch_floats(layout.capacity) * p.n_threads)
    if p.bf16:
        room.step.pairs_each = most_pairs(layout.capacity, widest)
        room.step.pairs = <uint32_t*>take(layout, room.step.pairs_each * p.n_threads)
    if bytes:
        room.quads_each = most_quads(layout.capacity, widest)
        room.step.quads = <uint32_t*>take(layout, room.quads_each * room.lanes)
    for lane in range(room.lanes):
        layout.first_lane = lane == 0
        if not layout.training:
            turns[0] = take_matrix(layout, widest)
            turns[1] = take_matrix(layout, widest)
        for i in range(p.n_ops):
            op = &p.ops[i]
            b = &room.bound[lane * p.n_ops + i]
            b.y = turns[i % 2]      # but in training, and before members, who all read it
            if layout.training or (p.members > 0 and i + 1 == p.inside):
                b.y = take_matrix(layout, op.n_out)
            if i > 0:
                b.x = room.bound[lane * p.n_ops + i - 1].y
            b.z = b.y
            b.epilogue.activation, b.epilogue.alpha, b.epilogue.scale = op.activation, op.alpha, 1.0
            if op.doors.lay_out != NULL:
                op.doors.lay_out(op, b, &room.bound[i], layout)


cdef inline Bound* lane_of(Room* room, int lane) noexcept nogil:
    """The operations of one of the predictions that go on side by side."""
    return room.bound + lane * room.n_ops


cdef inline Step step_in(const Room* room, int lane, Py_ssize_t rows, int threads) noexcept nogil:
    """What a prediction in a lane brings to the operations."""
    cdef Step step = room.step
    step.rows, step.threads, step.deadline = rows, threads, 0.0
    step.scratch += lane * scratch_floats(room.capacity)
    step.pairs = pairs_of_thread(&step, lane)
    if step.quads != NULL:
        step.quads += lane * room.quads_each
    return step

"""A network that becomes many, its members, which share what comes before and parameters within (layers/members.py).

A batch of B rows is k B rows, those of member 0, of member 1, ...; masks are keyed by the row among these. They are
done some whole members at a time, as many as fill TOGETHER rows, which stay in the second-level cache from one
operation to the next:

    for some members:  load their rows -> draw -> forward -> loss -> backward, added to the gradients so far

The gradient of a weight that members share is one chain over (member, row), whoever stands together; of an operation
that is none of these (an embedding, a scale) the sums of those that stand together are added. The optimizer comes after
the last member. In predictions what lies before the members is worked out once.
"""

from libc.math cimport isfinite
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.batch cimport Data, load_members
from cydrop._core.losses cimport LossSum, link_rows, loss_pass, mix_rows
from cydrop._core.map_op cimport through_epilogue
from cydrop._core.matrix cimport Matrix, from_row
from cydrop._core.operation cimport Bound, Op, Step, Tensor
from cydrop._core.pace cimport BACKWARD_WEIGHT, DRAWING, EACH, LOADING, LOSS_PASS, start, tick
from cydrop._core.program cimport Program, begin, copy_rows, draw, forward, forward_from, write_output
from cydrop._core.room cimport TOGETHER, Room, lane_of
from cydrop._core.shard_sums cimport in_tree
from cydrop._core.shards cimport add_floats


cdef inline int members_together(const Program* p, Py_ssize_t rows) noexcept nogil:
    """How many members of so many rows each are done at a time. Bits may depend on it, so nothing else may come in."""
    return 1 if p.one_by_one else <int>max(<Py_ssize_t>1, min(<Py_ssize_t>p.members, TOGETHER // rows))


cdef inline void take_members(Step* step, int first, int members, Py_ssize_t rows) noexcept nogil:
    step.rows, step.first_row = members * rows, first * rows
    step.members, step.first_member, step.member_rows = members, first, rows
    step.resume = first > 0


cdef inline void leave_members(Step* step) noexcept nogil:
    step.first_row, step.members, step.resume = 0, 0, False


# Training -------------------------------------------------------------------------------------------------------


cdef inline LossSum members_batch(
    const Program* p, Room* room, const Data* data, Py_ssize_t n, Py_ssize_t first, Py_ssize_t rows,
    const double* rates, uint64_t number, double now
) noexcept nogil:
    """The loss of the rows from number `first` on, of n in an epoch, as the mean over members, and the gradients in the
    arena. A loss that is not finite ends it."""
    cdef Step* step = &room.step
    cdef int together = members_together(p, rows), member = 0, some
    cdef LossSum total, one
    total.loss, total.correct = 0.0, 0
    start(step.clock, now)
    if p.n_rates:
        memcpy(room.rates, rates, p.n_rates * sizeof(double))
    step.threads, step.number, step.shared_number, step.shards = room.threads, number, number, 0
    room.bound[0].x = room.batch.x
    while member < p.members and isfinite(total.loss):
        some = min(together, p.members - member)
        take_members(step, member, some, rows)
        load_members(data, &room.batch, first, rows, member, some, n if p.own_orders else 0, room.threads)
        tick(step.clock, LOADING)
        draw(p, room.bound, step)
        tick(step.clock, DRAWING)
        forward(p, room.bound, step)
        one = loss_of_members(p, room, data)
        tick(step.clock, LOSS_PASS)
        total.loss += one.loss
        total.correct += one.correct
        backward_of_members(p, room, False)
        member += some
    leave_members(step)
    total.loss = total.loss / <double>p.members
    return total


cdef inline LossSum loss_of_members(const Program* p, Room* room, const Data* data) noexcept nogil:
    """The loss of the members at hand, and their share of d mean loss / d raw outputs."""
    cdef const int32_t* labels = room.batch.labels if data.labels != NULL else NULL
    cdef const float* weights = room.batch.weights if data.weights != NULL else NULL
    cdef Matrix z = room.bound[p.n_ops - 1].y
    take_upstream(room)
    return loss_pass(p.loss, z.data, z.row, room.step.rows, p.outputs, labels, room.batch.targets, weights, data.each,
                     p.members * room.step.member_rows, room.upstream.dz.data, room.upstream.dz.row, room.row_loss,
                     room.row_correct, room.threads)


cdef inline void take_upstream(Room* room) noexcept nogil:
    room.upstream.dz, room.upstream.spare = room.upstream_memory[0], room.upstream_memory[1]
    room.upstream.updating = False


cdef inline bint adds_itself(const Op* op) noexcept nogil:
    """Whether an operation adds to the gradient of the members before, or has one of its own for each."""
    return op.doors.has_product or op.doors.of_members or (op.weight.data == NULL and op.n_parts == 0)


cdef inline void backward_of_members(const Program* p, Room* room, bint want_input) noexcept nogil:
    """As `backward` of program.pxd, for the members at hand."""
    cdef int i = p.n_ops - 1, lowest = 0 if want_input else p.lowest
    cdef Bound* bound = room.bound
    cdef const Op* op
    cdef Op own
    through_epilogue(&bound[i], &room.upstream, p.ops[i].n_out, &room.step)
    while i >= lowest:
        op = &p.ops[i]
        room.upstream.wanted = i > lowest or want_input
        room.step.slot = EACH * i
        if adds_itself(op):
            op.doors.backward(op, &bound[i], &bound[i - 1] if i > 0 else NULL, &room.upstream, &room.step)
        else:
            own = in_tree(op, &room.step)
            op.doors.backward(&own, &bound[i], &bound[i - 1] if i > 0 else NULL, &room.upstream, &room.step)
            add_gradients(op, &own, room.step.resume)
        tick(room.step.clock, BACKWARD_WEIGHT + room.step.slot)
        i -= 1


cdef inline void add_gradient(const Tensor* to, const Tensor* own, bint resume) noexcept nogil:
    if to.size > 0 and resume:
        add_floats(to.gradient, own.gradient, to.size)
    elif to.size > 0:
        memcpy(to.gradient, own.gradient, to.size * sizeof(float))


cdef inline void add_gradients(const Op* op, const Op* own, bint resume) noexcept nogil:
    cdef int i
    add_gradient(&op.weight, &own.weight, resume)
    add_gradient(&op.bias, &own.bias, resume)
    for i in range(op.n_parts):
        add_gradient(&op.parts[i], &own.parts[i], resume)


# By hand --------------------------------------------------------------------------------------------------------


cdef inline void members_by_hand(
    const Program* p, Room* room, Py_ssize_t rows, float* out, const float* grad, float* dx
) noexcept nogil:
    """For the rows in the batch's memory, the same for all members: their raw outputs or, from d loss / d these, the
    gradients and the sum over the members of d loss / d x. The way back begins with another way there: memory is that
    of the members that stand together, and what is drawn is the same."""
    cdef int together = members_together(p, rows), member = 0, some, m
    cdef Py_ssize_t features = p.ops[0].n_in, r
    cdef Matrix given
    if grad != NULL:
        memset(dx, 0, rows * features * sizeof(float))
    while member < p.members:
        some = min(together, p.members - member)
        take_members(&room.step, member, some, rows)
        room.bound[0].x = from_row(room.batch.x, member * rows)
        draw(p, room.bound, &room.step)
        forward(p, room.bound, &room.step)
        if out != NULL:
            write_output(p, room.bound, some * rows, out + member * rows * p.outputs, False)
        if grad != NULL:
            take_upstream(room)
            given.data, given.row = <float*>grad + member * rows * p.outputs, p.outputs
            copy_rows(given, room.upstream.dz, some * rows, p.outputs)
            backward_of_members(p, room, True)
            for m in range(some):
                for r in range(rows):
                    add_floats(dx + r * features, from_row(room.upstream.dz, m * rows + r).data, features)
        member += some
    leave_members(&room.step)


# Prediction -----------------------------------------------------------------------------------------------------


cdef inline Matrix input_of_members(
    const Program* p, Room* room, int lane, Matrix source, Py_ssize_t rows, int members
) noexcept nogil:
    """What comes before the members, for each of some."""
    cdef Matrix to
    cdef int m
    if members == 1:
        return source
    to.row = room.member_x_row
    to.data = room.member_x + lane * room.capacity * to.row
    for m in range(members):
        copy_rows(source, from_row(to, m * rows), rows, p.ops[p.inside].n_in)
    return to


cdef inline void predict_members(
    const Program* p, Room* room, int lane, Step* step, Matrix x, float* out, Py_ssize_t out_row, bint link
) noexcept nogil:
    """The outputs of all members for some rows: what they predict together or, where `out` has room for them, in every
    row those of each."""
    cdef Bound* bound = lane_of(room, lane)
    cdef Py_ssize_t rows = step.rows, r
    cdef float* outputs = room.member_outputs + lane * room.capacity * p.members * p.outputs
    cdef int fitting = <int>max(<Py_ssize_t>1, min(<Py_ssize_t>p.members, room.capacity // rows))
    cdef int together = 1 if p.one_by_one else fitting
    cdef int member = 0, some, m
    cdef Matrix source, to
    bound[0].x = x
    begin(p, bound)
    forward_from(p, bound, 0, p.inside, step)
    source = bound[p.inside - 1].y if p.inside > 0 else x
    to.row = p.outputs
    while member < p.members:
        some = min(together, p.members - member)
        take_members(step, member, some, rows)
        bound[p.inside].x = input_of_members(p, room, lane, source, rows, some)
        begin(p, bound)
        forward_from(p, bound, p.inside, p.n_ops, step)
        to.data = outputs + member * rows * p.outputs
        copy_rows(bound[p.n_ops - 1].y, to, some * rows, p.outputs)
        member += some
    if p.inside > 0:
        bound[p.inside].x = source
    if out_row == p.outputs:
        mix_rows(p.loss, outputs, rows * p.outputs, p.members, rows, p.outputs, out)
        if link:
            link_rows(p.loss, out, p.outputs, rows, p.outputs)
        return
    if link:
        link_rows(p.loss, outputs, p.outputs, p.members * rows, p.outputs)
    for m in range(p.members):
        for r in range(rows):
            memcpy(out + r * out_row + m * p.outputs, outputs + (m * rows + r) * p.outputs, p.outputs * sizeof(float))

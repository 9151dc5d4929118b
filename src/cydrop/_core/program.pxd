"""A plan's operations in the order in which they run, and the passes over all of them."""

from libc.string cimport memcpy

from cydrop._core.matrix cimport Matrix
from cydrop._core.leave_out cimport leave_out
from cydrop._core.losses cimport Loss, link_rows
from cydrop._core.map_op cimport through_epilogue
from cydrop._core.operation cimport Bound, Op, Upstream, Step
from cydrop._core.pace cimport BACKWARD_WEIGHT, EACH, FORWARD, passing_seconds, tick


cdef struct Program:
    Op* ops
    int n_ops
    int n_rates                 # numbers that change: of dropout, noise and drop-connect
    int n_threads
    bint bf16                   # products are of bfloat16
    int lowest                  # operation with parameters, n_ops if there is none
    Py_ssize_t outputs          # columns of the result
    Py_ssize_t n_parameters
    Loss loss
    int members                 # of a network of many, 0: it is one
    int inside                  # the first operation of which each has its own
    bint own_orders             # each sees the rows of an epoch in an order of its own
    bint one_by_one             # not several members at a time: a mask that a member's rows share
    bint in_turn                # members of predictions alone: in training each row is one member's (mask_op.pxd)


cdef inline int trained_members(const Program* p) noexcept nogil:
    """How many networks a training step is of, 0: it is one."""
    return 0 if p.in_turn else p.members


cdef inline Py_ssize_t rows_in_epoch(const Program* p, Py_ssize_t ordered, Py_ssize_t rows) noexcept nogil:
    """Of an order of so many numbers, which has all members' orders after one another where they have their own; of 0
    all rows."""
    return (ordered // p.members if p.own_orders else ordered) if ordered > 0 else rows


cdef inline void begin(const Program* p, Bound* bound) noexcept nogil:
    """Every operation with all its units and weights, and nothing drawn."""
    cdef int i
    cdef const Op* op
    cdef Bound* b
    for i in range(p.n_ops):
        op = &p.ops[i]
        b = &bound[i]
        b.n_in, b.n_out = op.n_in, op.n_out
        b.gathered = False
        b.epilogue.mask = NULL
        if op.doors.begin != NULL:
            op.doors.begin(op, b)


cdef inline void lose_patience(const Step* step) noexcept nogil:
    """Between operations: only how fast a step is done changes, not what it is."""
    if step.deadline > 0.0 and step.threads > 1 and passing_seconds() > step.deadline:
        (<Step*>step).threads = 1


cdef inline void draw(const Program* p, Bound* bound, const Step* step) noexcept nogil:
    """Everything that the forward pass of a batch needs."""
    cdef int i
    begin(p, bound)
    for i in range(p.n_ops):
        if p.ops[i].doors.draw != NULL:
            p.ops[i].doors.draw(&p.ops[i], &bound[i], step)
            lose_patience(step)
    if step.training:
        leave_out(p.ops, bound, p.n_ops, step.threads)


cdef inline void forward_from(const Program* p, Bound* bound, int first, int stop, const Step* step) noexcept nogil:
    cdef int i
    for i in range(first, stop):
        p.ops[i].doors.forward(&p.ops[i], &bound[i], step)
        tick(step.clock, FORWARD + EACH * i)
        lose_patience(step)


cdef inline void forward(const Program* p, Bound* bound, const Step* step) noexcept nogil:
    forward_from(p, bound, 0, p.n_ops, step)


cdef inline void backward(
    const Program* p, Bound* bound, Upstream* upstream, Step* step, bint want_input
) noexcept nogil:
    """From d loss / d y of the last operation, in upstream.dz, down to the lowest operation that is asked for."""
    cdef int i = p.n_ops - 1, lowest = 0 if want_input else p.lowest
    through_epilogue(&bound[i], upstream, p.ops[i].n_out, step)
    while i >= lowest:
        upstream.wanted = i > lowest or want_input
        step.slot = EACH * i
        p.ops[i].doors.backward(&p.ops[i], &bound[i], &bound[i - 1] if i > 0 else NULL, upstream, step)
        tick(step.clock, BACKWARD_WEIGHT + step.slot)
        lose_patience(step)
        i -= 1


cdef inline bint draws_now(const Op* op, const double* rates) noexcept nogil:
    """Whether an operation draws at these rates."""
    return ((op.noise.column >= 0 and rates[op.noise.column] > 0.0)
            or (op.connect.column >= 0 and rates[op.connect.column] > 0.0))


cdef inline int first_drawing(const Program* p, const double* rates) noexcept nogil:
    """The operation with which every sample begins: the lowest that draws at these rates, or the outermost fork that it
    comes after while the join is still to come; n_ops if none draws."""
    cdef int i, fork = 0
    cdef Py_ssize_t join = -1
    for i in range(p.n_ops):
        if p.ops[i].doors.forks and i > join:
            fork, join = i, i + <Py_ssize_t>p.ops[i].numbers[0]
        if draws_now(&p.ops[i], rates):
            return fork if i <= join else i
    return p.n_ops


cdef inline bint draws_last(const Op* op) noexcept nogil:
    """Whether an operation's dropout comes after work that all samples have in common."""
    return op.doors.has_epilogue and op.connect.column < 0


cdef inline void copy_rows(Matrix source, Matrix to, Py_ssize_t rows, Py_ssize_t cols) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(rows):
        memcpy(to.data + r * to.row, source.data + r * source.row, cols * sizeof(float))


cdef inline void write_output(
    const Program* p, const Bound* bound, Py_ssize_t rows, float* out, bint link
) noexcept nogil:
    """What the last operation gave, after the loss's link if that is wanted."""
    cdef Matrix to
    to.data, to.row = out, p.outputs
    if bound[p.n_ops - 1].y.data != out:
        copy_rows(bound[p.n_ops - 1].y, to, rows, p.outputs)
    if link:
        link_rows(p.loss, out, p.outputs, rows, p.outputs)

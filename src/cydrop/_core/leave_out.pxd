"""Units that a mask shared by all rows drops are left out where a dense operation reads the result: not computed.

Their columns of W, and their rows of the next W, are gathered into smaller matrices, and everything between is the
ordinary work on smaller matrices:

          W0, kept columns        W1, kept rows and columns        W2, kept rows
    x  ->  [ | |  | ]  -> y0  ->   [ - + - + + ]  -> y1  ->          [ = = ]

Scales of members (member_op.pxd) stand between: of those after a product, the last of which drops, the product leaves
out the same; those before a product pass on what is kept.

    product, follows  ->  scale, activation, dropout: leaves out  ->  scale, passes on  ->  product
"""

from libc.string cimport memset

from cydrop._core.activations cimport IDENTITY
from cydrop._core.matrix cimport MARGIN, Matrix
from cydrop._core.gather cimport Kept, gather, gather_row, kept_places
from cydrop._core.map_op cimport keeps_z
from cydrop._core.operation cimport Bound, Op

cdef enum:
    GATHERED = 12288            # parameters below which gathering costs more than it saves


cdef inline bint plain(const Op* op) noexcept nogil:
    """Whether nothing comes after what it computes."""
    return op.activation == IDENTITY and op.noise.column < 0 and op.bias.data == NULL and op.connect.column < 0


cdef inline void mark_what_leaves_out(Op* ops, int n_ops, Py_ssize_t n_parameters, bint one_by_one) noexcept nogil:
    """Which operations may, once for all batches. `one_by_one`: members, of which a step has one."""
    cdef int i, reader
    for i in range(n_ops):
        ops[i].leaves_out = ops[i].reads_kept = ops[i].follows = False
    for i in range(n_ops - 1 if n_parameters > GATHERED else 0):
        reader = i + 1
        if ops[reader].doors.passes_kept and one_by_one and plain(&ops[reader]) and reader + 1 < n_ops:
            reader += 1
        if not (ops[i].shared and ops[i].doors.gathers and ops[reader].doors.takes_kept):
            continue
        if ops[i].connect.column >= 0 or ops[reader].connect.column >= 0:
            continue
        if ops[i].doors.passes_kept:
            if i == 0 or not (ops[i - 1].doors.has_product and plain(&ops[i - 1])):
                continue
            ops[i - 1].follows = True
        ops[i].leaves_out = True
        ops[i + 1].reads_kept = ops[reader].reads_kept = True


cdef inline bint take_mask(const Op* op, const Bound* b, Kept* kept, Py_ssize_t* found) noexcept nogil:
    """What its mask keeps, and whether enough is dropped: of fewer units the gathering would not pay."""
    if not op.leaves_out or b.epilogue.mask == NULL:
        return False
    found[0] = kept_places(b.epilogue.mask, op.n_out, b.places)
    kept.bits, kept.places, kept.units = b.epilogue.mask, b.places, op.n_out
    return found[0] > 0 and 8 * found[0] <= 7 * op.n_out


cdef inline void leave_out(const Op* ops, Bound* bound, int n_ops, int threads) noexcept nogil:
    """For the masks of this batch."""
    cdef int i
    cdef const Op* op
    cdef Bound* b
    for i in range(n_ops):
        op = &ops[i]
        b = &bound[i]
        if op.follows and take_mask(&ops[i + 1], &bound[i + 1], &b.kept, &b.n_out):
            b.gathered = True
        elif op.follows:
            b.n_out = op.n_out
        if op.leaves_out and take_mask(op, b, &b.kept, &b.n_out):
            b.gathered = True
            b.epilogue.mask = NULL
        elif op.leaves_out:
            b.n_out = op.n_out
        elif op.doors.passes_kept and b.n_in < op.n_in:
            b.gathered, b.kept, b.n_out = True, bound[i - 1].kept, b.n_in
        if b.gathered and i + 1 < n_ops:
            bound[i + 1].n_in = b.n_out
        if op.doors.takes_kept:
            gather_weights(op, b, &bound[i - 1] if i > 0 else NULL, threads)
        elif b.gathered and not op.doors.passes_kept:
            b.z = b.gathered_inputs if keeps_z(op) else b.y


cdef inline void gather_weights(const Op* op, Bound* b, const Bound* below, int threads) noexcept nogil:
    cdef Matrix weight = b.weight
    cdef Kept every
    if b.n_in == op.n_in and b.n_out == op.n_out:
        return
    memset(&every, 0, sizeof(Kept))
    b.weight = b.gathered_weights
    b.weight.row = (b.n_out + 15) // 16 * 16
    b.weight_end = b.weight.data + b.n_in * b.weight.row + MARGIN
    gather(weight, &below.kept if b.n_in < op.n_in else &every, b.n_in, &b.kept if b.gathered else &every, b.n_out,
           b.weight, threads)
    if b.gathered and op.bias.data != NULL:
        gather_row(b.epilogue.bias, &b.kept, op.n_out, b.gathered_biases)
        b.epilogue.bias = b.gathered_biases

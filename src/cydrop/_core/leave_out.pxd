"""Units that a mask shared by all rows drops are left out where a dense operation reads the result: not computed.

Their columns of W, and their rows of the next W, are gathered into smaller matrices, and everything between is the
ordinary work on smaller matrices:

          W0, kept columns        W1, kept rows and columns        W2, kept rows
    x  ->  [ | |  | ]  -> y0  ->   [ - + - + + ]  -> y1  ->          [ = = ]
"""

from libc.string cimport memset

from cydrop._core.matrix cimport MARGIN, Matrix
from cydrop._core.gather cimport Kept, gather, gather_row, kept_places
from cydrop._core.map_op cimport keeps_z
from cydrop._core.operation cimport Bound, Op

cdef enum:
    GATHERED = 12288            # parameters below which gathering costs more than it saves


cdef inline void mark_what_leaves_out(Op* ops, int n_ops, Py_ssize_t n_parameters) noexcept nogil:
    """Which operations may, once for all batches."""
    cdef int i
    for i in range(n_ops - 1):
        ops[i].leaves_out = (ops[i].shared and ops[i].doors.gathers and ops[i + 1].doors.takes_kept
                             and ops[i].connect.column < 0 and ops[i + 1].connect.column < 0
                             and n_parameters > GATHERED)
        ops[i + 1].reads_kept = ops[i].leaves_out


cdef inline void leave_out(const Op* ops, Bound* bound, int n_ops, int threads) noexcept nogil:
    """For the masks of this batch."""
    cdef int i
    cdef const Op* op
    cdef Bound* b
    cdef Py_ssize_t found
    for i in range(n_ops):
        op = &ops[i]
        b = &bound[i]
        if op.leaves_out and b.epilogue.mask != NULL:
            found = kept_places(b.epilogue.mask, op.n_out, b.places)
            if found > 0 and 8 * found <= 7 * op.n_out:     # of fewer dropped units the gathering would not pay
                b.gathered = True
                b.kept.bits, b.kept.places, b.kept.units = b.epilogue.mask, b.places, op.n_out
                b.n_out = found
                b.epilogue.mask = NULL
                bound[i + 1].n_in = found
        if op.doors.takes_kept:
            gather_weights(op, b, &bound[i - 1] if i > 0 else NULL, threads)
        elif b.gathered:
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

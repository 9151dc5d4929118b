"""Normalisations (norms.pyx has the formulas).

Where a batch is cut into shards, batch normalisation takes the statistics of each shard (ghost batch normalisation,
Hoffer, Hubara and Soudry 2017). Those of the shards, times their rows, are added over the tree (shards.pxd); after the
update the running statistics get their mean over the batch's rows, as if it were the batch's.
"""

from libc.string cimport memset

from cydrop._core.map_op cimport through_epilogue
from cydrop._core.matrix cimport from_row
from cydrop._core.norms cimport Norm, norm_backward, norm_forward
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Upstream, Step, take, update_tensor
from cydrop._core.shard_sums cimport count_gradients, gradient_floats, in_tree
from cydrop._core.shards cimport count_shard, row_of_shard


cdef inline void norm_lay_out(const Op* op, Bound* b, const Bound* first, Layout* layout) noexcept nogil:
    cdef Py_ssize_t of_columns = op.n_out * max(layout.shards, 1)
    b.mean = take(layout, max(layout.capacity, of_columns))
    b.inverse = take(layout, max(layout.capacity, of_columns))


cdef inline void norm_op_forward(const Op* op, Bound* b, const Step* step) noexcept nogil:
    cdef int s
    if op.norm.batch and step.shards > 0:
        for s in range(step.shards):
            normalise_shard(op, b, step, s)
        return
    norm_forward(&op.norm, b.x, b.y, step.rows, op.n_out, b.mean, b.inverse, step.training, step.threads)


cdef inline void normalise_shard(const Op* op, Bound* b, const Step* step, int s) noexcept nogil:
    """Batch normalisation of shard number s, whose statistics are counted."""
    cdef Norm norm = op.norm
    cdef Py_ssize_t n = op.n_out, first = step.bounds[s], rows = step.bounds[s + 1] - first, j
    cdef Py_ssize_t floats = gradient_floats(op)
    cdef float* own = step.tree
    memset(own, 0, 2 * n * sizeof(float))
    norm.momentum = 1.0             # running statistics that are those of the shard
    norm.running_mean, norm.running_variance = own, own + n
    if rows > 0:
        norm_forward(&norm, from_row(b.x, first), from_row(b.y, first), rows, n, b.mean + s * n, b.inverse + s * n,
                     True, step.threads)
    for j in range(2 * n):
        own[j] = own[j] * <float>rows
    count_shard(own, own + floats, floats, n, s, step.shards, statistic(op.norm.running_mean, step))
    own += n
    count_shard(own, own + floats, floats, n, s, step.shards, statistic(op.norm.running_variance, step))


cdef inline float* statistic(const float* running, const Step* step) noexcept nogil:
    """Where a batch's part of a running statistic goes."""
    return step.statistics + (running - step.buffers)


cdef inline void run_statistics(
    const Op* op, const float* statistics, const float* buffers, Py_ssize_t rows, int copies, int shards
) noexcept nogil:
    """The running statistics after a batch of so many rows, each `copies` times, from the sums over its shards."""
    cdef double counted = 0.0, new = op.norm.momentum
    cdef const float* mean = statistics + (op.norm.running_mean - buffers)
    cdef const float* variance = statistics + (op.norm.running_variance - buffers)
    cdef Py_ssize_t some, j
    cdef int s
    for s in range(shards):         # one row says nothing of the variance
        some = copies * (row_of_shard(rows, shards, s + 1) - row_of_shard(rows, shards, s))
        counted += <double>some if some > 1 else 0.0
    for j in range(op.n_out):
        op.norm.running_mean[j] = <float>((1.0 - new) * <double>op.norm.running_mean[j]
                                          + new * (<double>mean[j] / <double>(copies * rows)))
        if counted > 0.0:
            op.norm.running_variance[j] = <float>((1.0 - new) * <double>op.norm.running_variance[j]
                                                  + new * (<double>variance[j] / counted))


cdef inline void norm_op_backward(
    const Op* op, Bound* b, const Bound* below, Upstream* upstream, const Step* step
) noexcept nogil:
    if step.shards > 0:
        norm_shards_backward(op, b, upstream, step)
    else:
        norm_backward(&op.norm, b.x, upstream.dz, step.rows, op.n_out, b.mean, b.inverse, op.weight.gradient,
                      op.bias.gradient, step.threads)
    if upstream.updating:
        update_tensor(&op.weight)
        update_tensor(&op.bias)
    through_epilogue(below, upstream, op.n_in, step)


cdef inline void norm_shards_backward(
    const Op* op, const Bound* b, const Upstream* upstream, const Step* step
) noexcept nogil:
    cdef Op own
    cdef Py_ssize_t first, rows, at
    cdef int s
    for s in range(step.shards):
        own = in_tree(op, step)
        first, rows = step.bounds[s], step.bounds[s + 1] - step.bounds[s]
        at = s * op.n_out if op.norm.batch else first
        if rows > 0:
            norm_backward(&op.norm, from_row(b.x, first), from_row(upstream.dz, first), rows, op.n_out, b.mean + at,
                          b.inverse + at, own.weight.gradient, own.bias.gradient, step.threads)
        count_gradients(op, &own, step, s)


cdef inline Doors norm_doors() noexcept:
    cdef Doors doors
    memset(&doors, 0, sizeof(Doors))
    doors.lay_out = norm_lay_out
    doors.forward, doors.backward = norm_op_forward, norm_op_backward
    doors.has_scale = True
    return doors

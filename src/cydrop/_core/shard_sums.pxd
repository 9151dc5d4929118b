"""Gradients of operations other than dense ones, shard after shard: each in memory of the step, counted into the tree.

    tree    the shard at hand | level 0 | level 1 | ...         (shards.pxd)
"""

from libc.string cimport memset

from cydrop._core.operation cimport Op, Step, Tensor
from cydrop._core.shards cimport count_shard


cdef inline Py_ssize_t gradient_floats(const Op* op) noexcept nogil:
    """Memory for an operation's gradients, one after another."""
    cdef Py_ssize_t n = op.weight.size + op.bias.size
    cdef int i
    for i in range(op.n_parts):
        n += op.parts[i].size
    return (n + 15) // 16 * 16


cdef inline Op in_tree(const Op* op, const Step* step) noexcept nogil:
    """The operation with gradients, all zero, in the memory of a shard."""
    cdef Op own = op[0]
    cdef float* at = step.tree
    cdef int i
    memset(at, 0, gradient_floats(op) * sizeof(float))
    own.weight.gradient = at
    at += op.weight.size
    own.bias.gradient = at
    at += op.bias.size
    for i in range(op.n_parts):
        own.parts[i].gradient = at
        at += op.parts[i].size
    return own


cdef inline void count_tensor(
    const Tensor* own, float* total, Py_ssize_t floats, const Step* step, int s
) noexcept nogil:
    if own.size > 0:
        count_shard(own.gradient, own.gradient + floats, floats, own.size, s, step.shards, total)


cdef inline void count_gradients(const Op* op, const Op* own, const Step* step, int s) noexcept nogil:
    """Those of shard number s; with the last one the sums are where the operation has its gradients."""
    cdef Py_ssize_t floats = gradient_floats(op)
    cdef int i
    count_tensor(&own.weight, op.weight.gradient, floats, step, s)
    count_tensor(&own.bias, op.bias.gradient, floats, step, s)
    for i in range(op.n_parts):
        count_tensor(&own.parts[i], op.parts[i].gradient, floats, step, s)

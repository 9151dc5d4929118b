"""A batch in shards of consecutive rows, and sums over them, which are added in pairs, pairs of pairs, ...:

    ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))

Whoever has some of the shards, a power of two of them from a multiple of it on, has a subtree; what is left are the
same additions wherever the parts come from. A sum goes through the shards in order, like a binary counter: a shard's
number ends in as many ones as there are finished sums that wait for it.

    level 0     s0      s2      s4      s6          s0 waits in level 0, s1 is added to it:  s0 + s1 waits in level 1
    level 1        s01             s45              s2 waits in level 0, s3 is added to it, and both to level 1, ...
    level 2                s0123                    the last one is added to all levels, which is the sum

Each level is memory for one sum.
"""

from libc.string cimport memcpy

cdef enum:
    MOST_LEVELS = 8
    MOST_SHARDS = 256           # 2 ** MOST_LEVELS

cdef struct Part:               # what this process does of a batch
    Py_ssize_t batch_rows       # of the whole
    Py_ssize_t first            # the first of its own
    Py_ssize_t rows
    int shards                  # of the whole, 0: it is not cut
    int first_shard             # of its own
    int n_shards


cdef inline Py_ssize_t row_of_shard(Py_ssize_t rows, int shards, int s) noexcept nogil:
    """The row of a batch with which shard number s begins."""
    return s * rows // shards


cdef inline Part part_of(Py_ssize_t rows, int shards, int first_shard, int n_shards) noexcept nogil:
    """Some shards of a batch of so many rows; of 0 shards the whole batch."""
    cdef Part part
    part.batch_rows, part.shards, part.first_shard, part.n_shards = rows, shards, first_shard, n_shards
    part.first, part.rows = 0, rows
    if shards > 0:
        part.first = row_of_shard(rows, shards, first_shard)
        part.rows = row_of_shard(rows, shards, first_shard + n_shards) - part.first
    return part


cdef inline int level_of(int s) noexcept nogil:
    """How many sums wait for shard number s: the ones that the number ends in."""
    cdef int level = 0
    while s & 1:
        s >>= 1
        level += 1
    return level


cdef inline void add_floats(float* to, const float* x, Py_ssize_t n) noexcept nogil:
    """to += x"""
    cdef Py_ssize_t j
    for j in range(n):
        to[j] = to[j] + x[j]


cdef inline void count_shard(
    float* own, float* levels, Py_ssize_t level_floats, Py_ssize_t n, int s, int shards, float* total
) noexcept nogil:
    """Adds the n floats of shard number s, which are lost; with the last one `total` is there."""
    cdef int level = level_of(s), i
    for i in range(level):
        add_floats(own, levels + i * level_floats, n)
    memcpy(total if s == shards - 1 else levels + level * level_floats, own, n * sizeof(float))


cdef inline double sum_of_shards(double* sums, int shards) noexcept nogil:
    """Of one number each, which are lost."""
    cdef int width = 1, i
    while width < shards:
        i = 0
        while i + width < shards:
            sums[i] += sums[i + width]
            i += 2 * width
        width *= 2
    return sums[0]


cdef inline void add_parts(float* parts, Py_ssize_t row, Py_ssize_t n, int n_parts, float* total) noexcept nogil:
    """The sum of the parts' sums, each n floats and `row` after the one before; they are lost."""
    cdef int width = 1, i
    while width < n_parts:
        i = 0
        while i + width < n_parts:
            add_floats(parts + i * row, parts + (i + width) * row, n)
            i += 2 * width
        width *= 2
    memcpy(total, parts, n * sizeof(float))

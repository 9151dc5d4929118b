"""Kept rows and columns of a matrix, gathered into a smaller one.

            columns kept   0 2 3
    a b c d                            a c d
    e f g h   rows kept 0, 2    ->     i k l
    i j k l
"""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcpy

from cydrop._core.dense cimport Matrix

cdef enum:
    FEW = 32768                 # elements below which one thread is enough


cdef Py_ssize_t kept_places(const uint64_t* bits, Py_ssize_t n, int32_t* places) noexcept nogil:
    """The places of the set bits, in order, and their number."""
    cdef Py_ssize_t i, found = 0
    for i in range(n):
        places[found] = <int32_t>i
        found += (bits[i >> 6] >> (i & 63)) & 1
    return found


cdef inline void gather_row(const float* source, const int32_t* places, Py_ssize_t n, float* to) noexcept nogil:
    cdef Py_ssize_t j
    if places == NULL:
        memcpy(to, source, n * sizeof(float))
        return
    for j in range(n):
        to[j] = source[places[j]]


cdef void gather(
    Matrix source, const int32_t* rows_kept, Py_ssize_t rows, const int32_t* cols_kept, Py_ssize_t cols,
    Matrix to, int n_threads
) noexcept nogil:
    """to[i, j] = source[rows_kept[i], cols_kept[j]]; NULL keeps all."""
    cdef Py_ssize_t i
    for i in prange(rows, num_threads=n_threads if rows * cols > FEW else 1, schedule="static"):
        gather_row(source.data + (rows_kept[i] if rows_kept != NULL else i) * source.row, cols_kept, cols,
                   to.data + i * to.row)


def kept(const uint64_t[::1] bits, int32_t[::1] places):
    """Writes the places of the set bits among the first len(places); returns their number."""
    return kept_places(&bits[0], places.shape[0], &places[0]) if places.shape[0] else 0


def gathered(
    const float[:, ::1] source,     # IN
    const int32_t[::1] rows_kept,   # IN
    const int32_t[::1] cols_kept,   # IN
    float[:, ::1] to,               # OUT
    int n_threads,
):
    """to = source[rows_kept][:, cols_kept]"""
    cdef Matrix a, b
    a.data, a.row = <float*>&source[0, 0], source.shape[1]     # only read
    b.data, b.row = &to[0, 0], to.shape[1]
    with nogil:
        gather(a, &rows_kept[0], rows_kept.shape[0], &cols_kept[0], cols_kept.shape[0], b, n_threads)

"""Kept rows and columns of matrices, brought together and spread again: how dropped units are left out."""

from libc.stdint cimport int32_t, uint64_t

from cydrop._core.dense cimport Matrix


cdef Py_ssize_t kept_places(const uint64_t* bits, Py_ssize_t n, int32_t* places) noexcept nogil
cdef void gather(
    Matrix source, const int32_t* rows_kept, Py_ssize_t rows, const int32_t* cols_kept, Py_ssize_t cols,
    Matrix to, int n_threads) noexcept nogil


cdef inline void spread(
    const float* source, const int32_t* places, Py_ssize_t n, Py_ssize_t first, float* to
) noexcept nogil:
    """to[places[j] - first] = source[j]; what lies between stays."""
    cdef Py_ssize_t j
    for j in range(n):
        to[places[j] - first] = source[j]

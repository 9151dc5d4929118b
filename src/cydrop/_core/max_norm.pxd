"""Max-norm (Srivastava et al. 2014): a unit's incoming weights, a column, are scaled down to norm `limit`."""

from cython.parallel cimport prange
from libc.math cimport sqrt

from cydrop._core.serial cimport threads_of_product

cdef extern from "fma.h" nogil:
    float sqrtf(float x)


cdef inline void clip_column_block(
    float* weight, Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t col0, Py_ssize_t cols, float limit
) noexcept nogil:
    cdef double[64] squares
    cdef float[64] factor
    cdef float norm
    cdef Py_ssize_t i, j
    for j in range(cols):
        squares[j] = 0.0
    for i in range(n_in):
        for j in range(cols):
            squares[j] += <double>weight[i * n_out + col0 + j] * <double>weight[i * n_out + col0 + j]
    for j in range(cols):
        # a sum of squares may leave float32's range where the norm does not
        norm = sqrtf(<float>squares[j]) if 1.2e-38 < squares[j] < 3.4e38 else <float>sqrt(squares[j])
        factor[j] = limit / norm if norm > limit else <float>1.0
    for i in range(n_in):
        for j in range(cols):
            weight[i * n_out + col0 + j] = weight[i * n_out + col0 + j] * factor[j]


cdef inline void clip_columns(
    float* weight, Py_ssize_t n_in, Py_ssize_t n_out, float limit, int n_threads
) noexcept nogil:
    """Every column of the weight."""
    cdef int threads = threads_of_product(<double>n_in * n_out, n_threads)
    cdef Py_ssize_t col0
    for col0 in prange(0, n_out, 64, num_threads=threads, schedule="static"):
        clip_column_block(weight, n_in, n_out, col0, min(<Py_ssize_t>64, n_out - col0), limit)

"""The passes of an activation over a few rows that the fused operations call, and the two that they treat apart.

Then the maps that have a learned number for every unit.
"""

from cydrop._core.matrix cimport Matrix

cdef enum:
    IDENTITY = 0
    RELU = 1
    SUMMED = 16                 # rows whose gradients of those numbers are summed by one thread

cdef void activate(int kind, float alpha, const float* z, float* y, Py_ssize_t n) noexcept nogil
cdef void activation_gradient(int kind, float alpha, const float* z, float* dz, Py_ssize_t n) noexcept nogil
cdef void activation_gradient_at(
    int kind, float alpha, const float* z, const float* y, float* dz, Py_ssize_t n) noexcept nogil


cdef inline Py_ssize_t blocks_of(Py_ssize_t rows) noexcept nogil:
    """Blocks of rows, each with sums of its own: which rows they have does not depend on the number of threads."""
    return (rows + SUMMED - 1) // SUMMED


cdef void parametric_row(
    int kind, float option, const float* weight, const float* x, float* y, Py_ssize_t n) noexcept nogil
cdef void parametric_gradients(
    int kind, float option, const float* weight, Matrix x, Matrix dx, Py_ssize_t rows, Py_ssize_t cols, float* sums,
    float* gradient, int n_threads) noexcept nogil

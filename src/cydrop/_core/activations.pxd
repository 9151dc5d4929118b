"""The passes of an activation over a few rows that the fused operations call, and the two that they treat apart."""

cdef enum:
    IDENTITY = 0
    RELU = 1

cdef void activate(int kind, float alpha, const float* z, float* y, Py_ssize_t n) noexcept nogil
cdef void activation_gradient(int kind, float alpha, const float* z, float* dz, Py_ssize_t n) noexcept nogil

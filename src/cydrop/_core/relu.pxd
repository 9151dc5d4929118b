"""The rectifier on spans of a few vectors, inlined into the fused operations."""


cdef inline void relu_in_place(float* z, Py_ssize_t n) noexcept nogil:
    """z = max(z, 0); NaN stays NaN, so that divergence is seen."""
    cdef Py_ssize_t j
    for j in range(n):
        z[j] = <float>0.0 if z[j] <= 0.0 else z[j]


cdef inline void relu_gradient(float* g, const float* y, float scale, Py_ssize_t n) noexcept nogil:
    """g = 0 where the output y is 0, else g * scale: after ReLU the zeros of y are the mask of
    activation and dropout together. NaN passes."""
    cdef Py_ssize_t j
    for j in range(n):
        g[j] = <float>0.0 if y[j] <= 0.0 else g[j] * scale

"""The rectifier, on one element and on spans of a few vectors that are inlined into the fused operations."""


cdef inline float rectified(float z) noexcept nogil:
    """max(z, 0); NaN stays NaN, so that divergence is seen."""
    return <float>0.0 if z <= <float>0.0 else z


cdef inline float gradient_of_rectified(float z, float dy) noexcept nogil:
    """z may also be the rectified z."""
    return <float>0.0 if z <= <float>0.0 else dy


cdef inline void relu_in_place(float* z, Py_ssize_t n) noexcept nogil:
    """z = max(z, 0)"""
    cdef Py_ssize_t j
    for j in range(n):
        z[j] = rectified(z[j])


cdef inline void relu_gradient(float* dz, const float* y, float scale, Py_ssize_t n) noexcept nogil:
    """dz = 0 where the output y is 0, else dy * scale, dz holds dy before: after ReLU the zeros of y are the mask of
    activation and dropout together. NaN passes."""
    cdef Py_ssize_t j
    for j in range(n):
        dz[j] = gradient_of_rectified(y[j], dz[j] * scale)

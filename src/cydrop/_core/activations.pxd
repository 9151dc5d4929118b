"""Codes of the activations, and the passes over a few rows that the fused operations call."""

cdef enum:
    IDENTITY = 0
    RELU = 1
    LEAKY_RELU = 2
    ELU = 3
    SELU = 4
    GELU = 5
    SILU = 6
    TANH = 7
    SIGMOID = 8
    SOFTPLUS = 9

cdef void activate(int kind, float alpha, const float* z, float* y, Py_ssize_t n) noexcept nogil
cdef void activation_gradient(int kind, float alpha, const float* z, float* g, Py_ssize_t n) noexcept nogil

"""ReLU forward and backward on flat arrays (Nair and Hinton 2010)."""

from cython.parallel cimport prange
from libc.stdint cimport uint64_t

from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.relu cimport gradient_of_rectified, rectified

cdef enum:
    CHUNK = 16384


cdef inline void forward_chunk(const float* x, float* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        out[j] = rectified(x[j])


cdef inline void backward_chunk(const float* dy, const float* x, float* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        out[j] = gradient_of_rectified(x[j], dy[j])


def relu(
    const float[::1] x,     # IN
    float[::1] out,         # OUT
    int n_threads,
):
    """out = where(x <= 0, 0, x)"""
    cdef Py_ssize_t n = x.shape[0], i
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, n, CHUNK, num_threads=n_threads, schedule="static"):
            forward_chunk(&x[i], &out[i], min(<Py_ssize_t>CHUNK, n - i))
        restore_floats(control)


def relu_backward(
    const float[::1] dy,    # IN
    const float[::1] x,     # IN, the input or the output of the forward pass
    float[::1] out,         # OUT
    int n_threads,
):
    """out = where(x <= 0, 0, dy)"""
    cdef Py_ssize_t n = x.shape[0], i
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, n, CHUNK, num_threads=n_threads, schedule="static"):
            backward_chunk(&dy[i], &x[i], &out[i], min(<Py_ssize_t>CHUNK, n - i))
        restore_floats(control)

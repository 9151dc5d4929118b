"""Gaussian noise, alpha and concrete dropout: drawing, and the first two's passes over a row that the engine calls."""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from cydrop._core.dropout cimport select_row
from cydrop._core.xorshift cimport StreamKey


cdef enum:                      # what noise does to an element
    MULTIPLY = 0                # y = x (1 + deviation e)
    ADD = 1                     # y = x + deviation e
    ALPHA = 2                   # alpha dropout


cdef struct Affine:             # alpha dropout: y = scale (x - base if kept else 0) + floor
    float scale
    float base
    float floor


cdef void draw_normals(StreamKey key, float* out, Py_ssize_t first, Py_ssize_t n, int n_threads) noexcept nogil
cdef void draw_keeps(
    StreamKey key, float odds, float* out, Py_ssize_t first, Py_ssize_t n, int n_threads) noexcept nogil
cdef Affine alpha_affine(double rate) noexcept nogil


cdef inline void multiply_row(
    const float* x, const float* noise, float deviation, float* y, Py_ssize_t n
) noexcept nogil:
    """y = x (1 + deviation noise); y may be x."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = x[j] * (<float>1.0 + deviation * noise[j])


cdef inline void add_row(const float* x, const float* noise, float deviation, float* y, Py_ssize_t n) noexcept nogil:
    """y = x + deviation noise; y may be x."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = x[j] + deviation * noise[j]


cdef inline void normals_row(
    int variant, const float* x, const float* noise, float deviation, float* y, Py_ssize_t n
) noexcept nogil:
    """What a variant makes of normal numbers; y may be x. A deviation below 0 stands for an infinite one: all zeros."""
    if deviation < <float>0.0:
        memset(y, 0, n * sizeof(float))
    elif variant == ADD:
        add_row(x, noise, deviation, y, n)
    elif variant == MULTIPLY:
        multiply_row(x, noise, deviation, y, n)


cdef inline void alpha_row(
    const uint64_t* mask, int64_t bit, const float* x, Affine a, float* y, Py_ssize_t n
) noexcept nogil:
    """y = scale (x - base if kept else 0) + floor; y may be x."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = x[j] - a.base
    select_row(mask, bit, y, a.scale, y, n)
    for j in range(n):
        y[j] = y[j] + a.floor

"""Arenas as a whole: whether all numbers are finite, in one pass that vectorises; copies, in memory and of a file."""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcpy, memset

cdef extern from "fma.h" nogil:
    int32_t bits_of(float x)

cdef extern from "read_back.h" nogil:
    bint read_back(int file, void* to, size_t size)

# Chosen. Below FEW one thread takes some milliseconds, no more than the others wait for one that has lost its turn.
cdef enum:
    SPAN = 262144               # elements that are looked through at a time
    FEW = 1 << 24               # elements for which one thread is enough


cdef inline uint32_t greatest_bits(const float* x, Py_ssize_t n) noexcept nogil:
    """The greatest magnitude's bits; infinity's and NaN's are above all numbers'."""
    cdef uint32_t most = 0, bits
    cdef Py_ssize_t i
    for i in range(n):
        bits = <uint32_t>bits_of(x[i]) & <uint32_t>0x7FFFFFFF
        most = bits if bits > most else most
    return most


cdef inline bint finite_part(const float* x, Py_ssize_t n) noexcept nogil:
    return greatest_bits(x, n) < <uint32_t>0x7F800000


cdef inline bint finite_arena(const float[::1] x, int n_threads) noexcept nogil:
    cdef Py_ssize_t n = x.shape[0], i
    cdef int bad = 0
    if n < FEW or n_threads == 1:
        return finite_part(&x[0], n) if n else True
    for i in prange(0, n, SPAN, num_threads=n_threads, schedule="static"):
        bad += not finite_part(&x[i], min(<Py_ssize_t>SPAN, n - i))
    return bad == 0


cdef inline void copy_floats(float[::1] to, const float[::1] source, int n_threads) noexcept nogil:
    cdef Py_ssize_t n = to.shape[0], i
    if n == 0:
        return
    if n < FEW or n_threads == 1:
        memcpy(&to[0], &source[0], n * sizeof(float))
        return
    for i in prange(0, n, SPAN, num_threads=n_threads, schedule="static"):
        memcpy(&to[i], &source[i], min(<Py_ssize_t>SPAN, n - i) * sizeof(float))


cdef inline bint read_floats(int file, float[::1] to) noexcept nogil:
    """Whether a file had all of them."""
    return read_back(file, first_of(to), to.shape[0] * sizeof(float))


cdef inline void clear_floats(float[::1] x) noexcept nogil:
    if x.shape[0]:
        memset(&x[0], 0, x.shape[0] * sizeof(float))


cdef inline float* first_of(float[::1] arena) noexcept nogil:
    return &arena[0] if arena.shape[0] else NULL

"""Kept rows and columns of matrices, brought together and spread again: how dropped units are left out."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from cydrop._core.matrix cimport Matrix

cdef extern from "bitmask.h" nogil:
    uint64_t bits_at(const uint64_t* mask, int64_t bit)
    int take_kept(uint64_t bits, const float* x, float* out, int n, int64_t room)
    int put_kept(uint64_t bits, const float* x, float* out, int n)

cdef struct Kept:               # what a mask that all rows share keeps of the units of a layer
    const uint64_t* bits
    const int32_t* places       # of the kept ones, in order; NULL: all are there
    Py_ssize_t units


cdef Py_ssize_t kept_places(const uint64_t* bits, Py_ssize_t n, int32_t* places) noexcept nogil
cdef void gather(
    Matrix source, const Kept* rows_kept, Py_ssize_t rows, const Kept* cols_kept, Py_ssize_t cols, Matrix to,
    int n_threads) noexcept nogil


cdef inline void gather_row(const float* source, const Kept* kept, Py_ssize_t room, float* to) noexcept nogil:
    """The kept elements of a row of all units; up to to[room - 1] anything may be written."""
    cdef Py_ssize_t j = 0, found = 0
    while j < kept.units:
        found += take_kept(bits_at(kept.bits, j), source + j, to + found, <int>min(<Py_ssize_t>64, kept.units - j),
                           room - found)
        j += 64


cdef inline void spread(
    const float* source, const uint64_t* bits, Py_ssize_t first, Py_ssize_t width, float* to
) noexcept nogil:
    """The way back: units first..first+width of a row, from the kept ones among them, zero where dropped."""
    cdef Py_ssize_t j = 0, taken = 0
    while j < width:
        taken += put_kept(bits_at(bits, first + j), source + taken, to + j, <int>min(<Py_ssize_t>64, width - j))
        j += 64

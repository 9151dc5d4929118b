"""Kept rows and columns of matrices, brought together and spread again: how dropped units are left out.

            columns kept   0 2 3
    a b c d                            a c d
    e f g h   rows kept 0, 2    ->     i k l
    i j k l
"""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

from cydrop._core.matrix cimport Matrix
from cydrop._core.serial cimport SERIAL_COPY

cdef extern from "bitmask.h" nogil:
    uint64_t bits_at(const uint64_t* mask, int64_t bit)
    int take_kept(uint64_t bits, const float* x, float* out, int n, int64_t room)
    int put_kept(uint64_t bits, const float* x, float* out, int n)
    int put_kept_over(uint64_t bits, const float* x, float* out, int n)

cdef extern from "fma.h" nogil:
    void fetch_line(const void* p)

cdef enum:
    AHEAD = 2                   # rows

cdef struct Kept:               # what a mask that all rows share keeps of the units of a layer
    const uint64_t* bits
    const int32_t* places       # of the kept ones, in order; NULL: all are there
    Py_ssize_t units


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


cdef inline void spread_over(
    const float* source, const uint64_t* bits, Py_ssize_t first, Py_ssize_t width, float* to
) noexcept nogil:
    """The same, but what is dropped stays as it is."""
    cdef Py_ssize_t j = 0, taken = 0
    while j < width:
        taken += put_kept_over(bits_at(bits, first + j), source + taken, to + j, <int>min(<Py_ssize_t>64, width - j))
        j += 64


cdef inline void gather_part(
    const float* source, const uint64_t* bits, Py_ssize_t first, Py_ssize_t width, Py_ssize_t room, float* to
) noexcept nogil:
    """The kept ones of units first..first+width of a row; up to to[room - 1] anything may be written."""
    cdef Py_ssize_t j = 0, found = 0
    while j < width:
        found += take_kept(bits_at(bits, first + j), source + j, to + found, <int>min(<Py_ssize_t>64, width - j),
                           room - found)
        j += 64


cdef inline Py_ssize_t kept_places(const uint64_t* bits, Py_ssize_t n, int32_t* places) noexcept nogil:
    """The places of the set bits, in order, and their number."""
    cdef Py_ssize_t i, found = 0
    for i in range(n):
        places[found] = <int32_t>i
        found += (bits[i >> 6] >> (i & 63)) & 1
    return found


cdef inline const float* row_of(Matrix source, const Kept* rows_kept, Py_ssize_t i) noexcept nogil:
    return source.data + (rows_kept.places[i] if rows_kept.places != NULL else i) * source.row


cdef inline void fetch_row(const float* row, Py_ssize_t n) noexcept nogil:
    """Asks for a row that will be wanted soon: the processor does not foresee which rows are kept."""
    cdef Py_ssize_t j = 0
    while j < n:
        fetch_line(row + j)
        j += 16


cdef inline void gather(
    Matrix source, const Kept* rows_kept, Py_ssize_t rows, const Kept* cols_kept, Py_ssize_t cols, Matrix to,
    int n_threads
) noexcept nogil:
    """to = source[rows kept][:, columns kept]"""
    cdef Py_ssize_t i
    for i in prange(rows, num_threads=n_threads if rows * cols > SERIAL_COPY else 1, schedule="static"):
        if i + AHEAD < rows:
            fetch_row(row_of(source, rows_kept, i + AHEAD), source.row)
        if cols_kept.places != NULL:
            gather_row(row_of(source, rows_kept, i), cols_kept, to.row, to.data + i * to.row)
        else:
            memcpy(to.data + i * to.row, row_of(source, rows_kept, i), cols * sizeof(float))

"""Kept rows and columns of a matrix, gathered into a smaller one.

            columns kept   0 2 3
    a b c d                            a c d
    e f g h   rows kept 0, 2    ->     i k l
    i j k l
"""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcpy

from cydrop._core.matrix cimport Matrix
from cydrop._core.serial cimport SERIAL_COPY

cdef extern from "fma.h" nogil:
    void fetch_line(const void* p)

cdef enum:
    AHEAD = 2                   # rows


cdef Py_ssize_t kept_places(const uint64_t* bits, Py_ssize_t n, int32_t* places) noexcept nogil:
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


cdef void gather(
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


def kept(const uint64_t[::1] bits, int32_t[::1] places):
    """Writes the places of the set bits among the first len(places); returns their number."""
    return kept_places(&bits[0], places.shape[0], &places[0]) if places.shape[0] else 0


def gathered(
    const float[:, ::1] source,     # IN
    const uint64_t[::1] row_bits,   # IN, the masks
    const uint64_t[::1] col_bits,   # IN
    int32_t[::1] row_places,        # OUT, places for all rows
    int32_t[::1] col_places,        # OUT
    float[:, ::1] to,               # OUT
    int n_threads,
):
    """to = source[rows kept][:, columns kept]"""
    cdef Matrix a, b
    cdef Kept rows, cols
    a.data, a.row = <float*>&source[0, 0], source.shape[1]     # only read
    b.data, b.row = &to[0, 0], to.shape[1]
    rows.bits, rows.places, rows.units = &row_bits[0], &row_places[0], source.shape[0]
    cols.bits, cols.places, cols.units = &col_bits[0], &col_places[0], source.shape[1]
    with nogil:
        kept_places(rows.bits, rows.units, &row_places[0])
        kept_places(cols.bits, cols.units, &col_places[0])
        gather(a, &rows, to.shape[0], &cols, to.shape[1], b, n_threads)


def spread_row(const float[::1] source, const uint64_t[::1] bits, Py_ssize_t first, float[::1] to):
    """to = the units from `first` on of a row whose kept ones among these are `source`"""
    if to.shape[0]:
        with nogil:
            spread(&source[0], &bits[0], first, to.shape[0], &to[0])

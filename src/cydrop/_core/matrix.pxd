"""A matrix in memory that somebody else holds."""

cdef struct Matrix:
    float* data
    Py_ssize_t row              # floats from one row to the next

cdef enum:
    MARGIN = 32                 # floats after an array that may be read, by vectors that hang over: see memory.aligned


cdef inline Matrix from_row(Matrix m, Py_ssize_t row) noexcept nogil:
    """The rows of a matrix from one on."""
    m.data += row * m.row
    return m

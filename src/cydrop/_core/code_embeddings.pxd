"""Embeddings of codes: the last columns of a row are numbers of rows of tables, the others pass through.

    rest | c0 c1  ->  rest | W0[c0] W1[c1]

The tables lie one after another. A thread owns whole tables in the backward pass, and adds to them in the order of the
batch's rows; where the batch is cut into shards, it adds these over their tree (shards.pxd). Compiled into dense.pyx.
"""

from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cydrop._core.matrix cimport Matrix
from cydrop._core.number_embeddings cimport pass_through
from cydrop._core.serial cimport SERIAL_COPY
from cydrop._core.shards cimport count_shard


cdef struct Codes:              # an embedding of codes
    Py_ssize_t columns          # that are embedded, the last ones
    Py_ssize_t size             # numbers that each becomes
    const int64_t* starts       # row of the stacked tables where each column's table begins; columns + 1 of them
    const float* tables         # (starts[columns], size)
    float* gradient
    int shards                  # 0: the batch is not cut
    const Py_ssize_t* bounds    # the row where each shard begins, and where the last one ends
    float* tree                 # memory for the gradient of a shard, and for each level of the tree
    Py_ssize_t tree_floats      # from one of them to the next


cdef inline Py_ssize_t row_of_code(const Codes* e, Py_ssize_t column, float code) noexcept nogil:
    """The row of the stacked tables; codes outside of the column's table, and NaN, count as the next one in it."""
    cdef Py_ssize_t first = <Py_ssize_t>e.starts[column], last = <Py_ssize_t>e.starts[column + 1] - 1
    if not code > <float>0.0:
        return first
    return last if code >= <float>(last - first) else first + <Py_ssize_t>code


cdef inline void code_row_forward(const Codes* e, const float* x, float* y, Py_ssize_t rest) noexcept nogil:
    cdef Py_ssize_t c
    memcpy(y, x, rest * sizeof(float))
    for c in range(e.columns):
        memcpy(y + rest + c * e.size, e.tables + row_of_code(e, c, x[rest + c]) * e.size, e.size * sizeof(float))


cdef inline void rows_of_codes_forward(
    const Codes* e, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t n_in, int n_threads
) noexcept nogil:
    cdef Py_ssize_t rest = n_in - e.columns, r
    cdef int threads = n_threads if rows * (rest + e.columns * e.size) > SERIAL_COPY else 1
    for r in prange(rows, num_threads=threads, schedule="static"):
        code_row_forward(e, x.data + r * x.row, y.data + r * y.row, rest)


cdef inline void table_backward(
    const Codes* e, Matrix x, Matrix dy, Py_ssize_t rows, Py_ssize_t rest, Py_ssize_t column
) noexcept nogil:
    """The gradient of a column's table."""
    cdef Py_ssize_t place = e.starts[column] * e.size, n = e.starts[column + 1] * e.size - place
    cdef float* own
    cdef int s
    if e.shards == 0:
        rows_of_table(e, x, dy, 0, rows, rest, column, e.gradient)
    for s in range(e.shards):
        own = e.tree + place
        rows_of_table(e, x, dy, e.bounds[s], e.bounds[s + 1], rest, column, e.tree)
        count_shard(own, own + e.tree_floats, e.tree_floats, n, s, e.shards, e.gradient + place)


cdef inline void rows_of_table(
    const Codes* e, Matrix x, Matrix dy, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t rest, Py_ssize_t column,
    float* gradient
) noexcept nogil:
    """The same of rows first..stop, row after row, at its place among the tables' gradients."""
    cdef Py_ssize_t r, k, size = e.size
    cdef const float* source
    cdef float* to
    memset(gradient + e.starts[column] * size, 0, (e.starts[column + 1] - e.starts[column]) * size * sizeof(float))
    for r in range(first, stop):
        to = gradient + row_of_code(e, column, x.data[r * x.row + rest + column]) * size
        source = dy.data + r * dy.row + rest + column * size
        for k in range(size):
            to[k] = to[k] + source[k]


cdef inline void codes_input_backward(
    const Codes* e, Matrix dy, Matrix dx, Py_ssize_t rows, Py_ssize_t n_in
) noexcept nogil:
    """d loss / d x: nothing comes back to a code."""
    cdef Py_ssize_t rest = n_in - e.columns, r
    pass_through(dy, 0, dx, 0, rest, rows)
    for r in range(rows):
        memset(dx.data + r * dx.row + rest, 0, e.columns * sizeof(float))


cdef inline void tables_backward(
    const Codes* e, Matrix x, Matrix dy, Py_ssize_t rows, Py_ssize_t n_in, int n_threads
) noexcept nogil:
    cdef Py_ssize_t rest = n_in - e.columns, c
    cdef int threads = n_threads if rows * e.columns * e.size > SERIAL_COPY else 1
    for c in prange(e.columns, num_threads=threads, schedule="static"):
        table_backward(e, x, dy, rows, rest, c)

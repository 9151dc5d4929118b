"""The rows of a batch, brought together from where they lie."""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

from cydrop._core.matrix cimport Matrix, from_row
from cydrop._core.serial cimport SERIAL_COPY

cdef extern from "fma.h" nogil:
    void fetch_line(const void* p)

# Chosen: 64 KiB, a part of the second-level cache; more of the next batch would push out what this one still needs.
cdef enum:
    FETCHED = 16384             # floats of a batch that are asked for ahead


cdef struct Data:               # all rows that are trained on
    const float* x
    Py_ssize_t rows
    Py_ssize_t columns          # of x
    const int32_t* labels       # NULL: there are targets
    const float* targets
    Py_ssize_t target_columns
    const float* weights        # NULL: there are none
    bint each                   # a weight for every target, else for every row
    const int64_t* order        # of training, NULL: as they are


cdef inline Data data_of(
    const float[:, ::1] x, const int32_t[::1] labels, const float[:, ::1] targets, const float[::1] weights,
    const int64_t[::1] order
) noexcept:
    """What is not there is empty."""
    cdef Data data
    data.x, data.rows, data.columns = &x[0, 0], x.shape[0], x.shape[1]
    data.labels = &labels[0] if labels.shape[0] else NULL
    data.targets = &targets[0, 0] if targets.shape[0] else NULL
    data.target_columns = targets.shape[1]
    data.weights = &weights[0] if weights.shape[0] else NULL
    data.each = weights.shape[0] > x.shape[0]
    data.order = &order[0] if order.shape[0] else NULL
    return data


cdef struct Batch:              # memory for some of them
    Matrix x
    int32_t* labels
    float* targets
    float* weights


cdef inline void load(
    const Data* data, Batch* batch, Py_ssize_t start, Py_ssize_t rows, int copies, int shards, const Py_ssize_t* bounds,
    int threads, Matrix* x
) noexcept nogil:
    """Rows start..start+rows of the order; x becomes the batch's memory, or the rows where they lie. Two copies: every
    row twice, the second ones after the first; where there are shards (Step has their bounds), within each."""
    cdef Py_ssize_t first
    cdef int s
    cdef const int64_t* places = data.order + start if data.order != NULL else NULL
    if places == NULL and copies == 1:
        x.data = <float*>data.x + start * data.columns      # never written: operations only read their x
        x.row = data.columns
    else:
        x[0] = batch.x
        if shards == 0 or copies == 1:
            load_x(data, places, start, rows, copies, threads, x[0])
        else:
            for s in range(shards):
                first = bounds[s] // copies
                load_x(data, places + first if places != NULL else NULL, start + first,
                       bounds[s + 1] // copies - first, copies, threads, from_row(x[0], bounds[s]))
    load_targets(data, batch, places, start, rows, 0)


cdef inline void load_members(
    const Data* data, Batch* batch, Py_ssize_t start, Py_ssize_t rows, int first, int members, Py_ssize_t order_row,
    int threads
) noexcept nogil:
    """Rows start..start+rows of the order for each of some members, one's after another's. `order_row`: from one
    member's order to the next one's, 0: they have one."""
    cdef const int64_t* places = NULL
    cdef int m
    for m in range(members):
        if data.order != NULL:
            places = data.order + (first + m) * order_row + start
        load_x(data, places, start, rows, 1, threads, from_row(batch.x, m * rows))
        load_targets(data, batch, places, start, rows, m * rows)


cdef inline void load_targets(
    const Data* data, Batch* batch, const int64_t* places, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t to
) noexcept nogil:
    """What belongs to the rows, from row `to` of the batch's memory on."""
    cdef Py_ssize_t r, each = data.target_columns if data.each else 1
    if data.labels != NULL:
        for r in range(rows):
            batch.labels[to + r] = data.labels[places[r] if places != NULL else start + r]
    else:
        load_floats(data.targets, data.target_columns, places, start, rows, batch.targets + to * data.target_columns)
    if data.weights != NULL:
        load_floats(data.weights, each, places, start, rows, batch.weights + to * each)


cdef inline void load_x(
    const Data* data, const int64_t* places, Py_ssize_t start, Py_ssize_t rows, int copies, int threads, Matrix x
) noexcept nogil:
    cdef Py_ssize_t r, n = data.columns
    for r in prange(rows, num_threads=threads if rows * n > SERIAL_COPY else 1, schedule="static"):
        memcpy(x.data + r * x.row, data.x + (places[r] if places != NULL else start + r) * n, n * sizeof(float))
    if copies == 2:
        for r in prange(rows, num_threads=threads if rows * n > SERIAL_COPY else 1, schedule="static"):
            memcpy(x.data + (rows + r) * x.row, x.data + r * x.row, n * sizeof(float))


cdef inline void load_floats(
    const float* source, Py_ssize_t columns, const int64_t* places, Py_ssize_t start, Py_ssize_t rows, float* to
) noexcept nogil:
    """The rows of a batch, of `columns` floats each, one after another."""
    cdef Py_ssize_t r
    if places == NULL:
        memcpy(to, source + start * columns, rows * columns * sizeof(float))
        return
    for r in range(rows):
        memcpy(to + r * columns, source + places[r] * columns, columns * sizeof(float))


cdef inline void fetch(const Data* data, Py_ssize_t start, Py_ssize_t rows) noexcept nogil:
    """Asks for the rows of the next batch, where they are few, while this one is still worked on."""
    cdef Py_ssize_t r, j, n = data.columns
    cdef const float* row
    if rows * n > FETCHED:
        return
    for r in range(start, start + rows):
        row = data.x + (data.order[r] if data.order != NULL else r) * n
        j = 0
        while j < n:
            fetch_line(row + j)
            j += 16

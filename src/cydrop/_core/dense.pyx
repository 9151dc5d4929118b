"""The dense operation: three products built from one register tile (tile.h), split by tiles of the output.

    forward           Y  = drop(f(X W + b))     X (rows, n_in), W (n_in, n_out)
    backward, input   dX = dZ Wt                followed by the derivative of the layer below
    backward, weight  dW = Xt dZ, db = sum dZ   followed by the optimizer

The parts lie in files of their own, compiled into this module: panels, product and weight_gradient.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.activations cimport IDENTITY, RELU, activate, activation_gradient
from cydrop._core.dropout cimport select_row
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.panels cimport TILE_COLS, TILE_ROWS, row_shares, scratch_floats, strip_panels
from cydrop._core.product cimport Product, product
from cydrop._core.relu cimport relu_gradient, relu_in_place
from cydrop._core.serial cimport threads_of_product
from cydrop._core.weight_gradient cimport weight_unit

from cydrop._core.memory import aligned


cdef void finish_forward(
    const Epilogue* e, Matrix z, Matrix y, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols,
    bint activated
) noexcept nogil:
    """y = drop(f(z)) on a rectangle, or y = drop(y) where the activation is done; z may be y."""
    cdef Py_ssize_t r, j
    cdef float* to
    cdef float* source
    for r in range(row0, row0 + rows):
        source = z.data + r * z.row + col0
        to = y.data + r * y.row + col0
        if activated:
            source = to
        elif e.activation == RELU and source == to:
            relu_in_place(to, cols)
        elif e.activation != IDENTITY:
            activate(e.activation, e.alpha, source, to, cols)
        elif source != to and e.mask == NULL:
            memcpy(to, source, cols * sizeof(float))
        if e.mask != NULL:
            select_row(e.mask, e.mask_first + r * e.mask_row + col0,
                       source if e.activation == IDENTITY else to, e.scale, to, cols)
        elif e.scale != <float>1.0:
            for j in range(cols):
                to[j] = to[j] * e.scale


cdef void finish_backward(
    const Epilogue* e, Matrix z, Matrix y, Matrix dz,
    Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    """From d loss / d y to d loss / d z in place, on a rectangle of dz."""
    cdef Py_ssize_t r, j
    cdef float* row
    for r in range(row0, row0 + rows):
        row = dz.data + r * dz.row + col0
        if e.activation == RELU:
            relu_gradient(row, y.data + r * y.row + col0, e.scale, cols)
            continue
        if e.mask != NULL:
            select_row(e.mask, e.mask_first + r * e.mask_row + col0, row, e.scale, row, cols)
        elif e.scale != <float>1.0:
            for j in range(cols):
                row[j] = row[j] * e.scale
        if e.activation != IDENTITY:
            activation_gradient(e.activation, e.alpha, z.data + r * z.row + col0, row, cols)


cdef void finish_product(
    const Product* p, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    finish_forward(p.epilogue, p.z, p.y, row0, rows, col0, cols, p.relu)


cdef void finish_product_backward(
    const Product* p, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    finish_backward(p.epilogue, p.z, p.y, p.c, row0, rows, col0, cols)


cdef void dense_forward(
    Matrix x, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, float* scratch, int n_threads
) noexcept nogil:
    """y = drop(f(x weight + bias)); z receives x weight + bias (z may be y where nobody needs it later).

    What lies between the weight and end may be read.
    """
    cdef Product p
    p.a = x
    p.b, p.b_row, p.b_end, p.transposed = weight.data, weight.row, end, False
    p.rows, p.depth, p.cols = rows, n_in, n_out
    p.c, p.z, p.y = z, z, y
    p.bias = e.bias
    p.relu = e.activation == RELU and z.data == y.data
    p.epilogue = e
    p.finish = finish_product
    if (p.relu or e.activation == IDENTITY) and z.data == y.data and e.mask == NULL and e.scale == <float>1.0:
        p.finish = NULL
    product(&p, scratch, n_threads)


cdef void dense_backward_input(
    Matrix dz, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, Matrix dx, float* scratch, int n_threads
) noexcept nogil:
    """dx = dz weight^t, then through the epilogue e of the operation below (z and y are its; e may be NULL)."""
    cdef Product p
    p.a = dz
    p.b, p.b_row, p.b_end, p.transposed = weight.data, weight.row, end, True
    p.rows, p.depth, p.cols = rows, n_out, n_in
    p.c, p.z, p.y = dx, z, y
    p.bias = NULL
    p.relu = False
    p.epilogue = e
    p.finish = NULL
    if e != NULL:
        p.finish = finish_product_backward
    product(&p, scratch, n_threads)


cdef void dense_backward_weight(
    Matrix x, Matrix dz, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Gradient* to, float* scratch, int n_threads
) noexcept nogil:
    """dW = x^t dz and db = sum of the rows of dz, written or handed to the optimizer."""
    cdef int threads = threads_of_product(<double>rows * n_in * n_out, n_threads)
    cdef Py_ssize_t strip_cols = strip_panels(rows) * TILE_COLS
    cdef Py_ssize_t strips = (n_out + strip_cols - 1) // strip_cols
    cdef Py_ssize_t tiles = (n_in + TILE_ROWS - 1) // TILE_ROWS
    cdef Py_ssize_t shares = row_shares(strips, tiles, threads)
    cdef Py_ssize_t share = (tiles + shares - 1) // shares * TILE_ROWS
    cdef Py_ssize_t size = scratch_floats(rows), unit, col0, i0
    if threads == 1:
        for unit in range(strips):
            col0 = unit * strip_cols
            weight_unit(x, dz, rows, 0, n_in, n_out, n_in, col0, min(strip_cols, n_out - col0), to, scratch,
                        to.full_row)
        return
    for unit in prange(strips * shares, num_threads=threads, schedule="dynamic"):
        col0 = unit // shares * strip_cols
        i0 = unit % shares * share
        weight_unit(x, dz, rows, i0, min(i0 + share, n_in), n_out, n_in, col0, min(strip_cols, n_out - col0), to,
                    scratch + threadid() * size, to.full_row + threadid() * to.full_row_floats)


cdef float[:] scratch_memory(Py_ssize_t rows, int n_threads):
    """For the functions below, which allocate for themselves."""
    return aligned(scratch_floats(rows) * n_threads)


def forward(
    const float[:, ::1] x,      # IN
    const float[:, ::1] weight,  # IN
    const float[::1] bias,      # IN, or empty
    float[:, ::1] y,            # OUT
    int n_threads,
):
    """y = x weight + bias"""
    cdef Epilogue e
    cdef Matrix mx, my, mw
    cdef float[:] scratch = scratch_memory(x.shape[0], n_threads)
    memset(&e, 0, sizeof(Epilogue))
    e.scale = 1.0
    e.bias = &bias[0] if bias.shape[0] else NULL
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]      # a product never writes to its factors
    mw.data, mw.row = <float*>&weight[0, 0], weight.shape[1]
    my.data, my.row = &y[0, 0], y.shape[1]
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        dense_forward(mx, mw, mw.data + weight.shape[0] * weight.shape[1], x.shape[0], x.shape[1],
                      y.shape[1], &e, my, my, &scratch[0], n_threads)
        restore_floats(control)


def backward(
    const float[:, ::1] dy,     # IN
    const float[:, ::1] x,      # IN
    const float[:, ::1] weight,  # IN
    float[:, ::1] dx,           # OUT
    float[:, ::1] dweight,      # OUT
    float[::1] dbias,           # OUT
    int n_threads,
):
    """dx = dy weight^t, dweight = x^t dy, dbias = sum of the rows of dy"""
    cdef Matrix mx, mdy, mdx, mw
    cdef Gradient to
    cdef Py_ssize_t rows = x.shape[0], n_in = x.shape[1], n_out = dy.shape[1]
    cdef float[:] scratch = scratch_memory(rows, n_threads)
    memset(&to, 0, sizeof(Gradient))
    to.weight_gradient = &dweight[0, 0]
    to.bias = &dbias[0]         # not NULL: there is a bias
    to.bias_gradient = &dbias[0]
    mx.data, mx.row = <float*>&x[0, 0], n_in
    mdx.data, mdx.row = &dx[0, 0], n_in
    mdy.data, mdy.row = <float*>&dy[0, 0], n_out
    mw.data, mw.row = <float*>&weight[0, 0], n_out
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        dense_backward_input(mdy, mw, mw.data + n_in * n_out, rows, n_in, n_out, NULL, mdx, mdx, mdx,
                             &scratch[0], n_threads)
        dense_backward_weight(mx, mdy, rows, n_in, n_out, &to, &scratch[0], n_threads)
        restore_floats(control)

"""Layer normalisation (Ba, Kiros and Hinton 2016) and batch normalisation (Ioffe and Szegedy 2015).

    y = weight (x - mean) / sqrt(variance + epsilon) + bias

    layer   mean and variance of each row
    batch   of each column over the rows of the batch; in prediction the running ones,
            running = (1 - momentum) running + momentum batch's, the variance's with n - 1 (PyTorch's formulas)

Sums go over rows in order and over columns in sixteen interleaved parts, in float64: no order depends on threads.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdint cimport uint64_t

from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.matrix cimport Matrix
from cydrop._core.serial cimport SERIAL_PASS

KINDS = {"rows": 0, "batch": 1}   # over which mean and variance are taken

cdef enum:
    COLS = 64                   # columns that a thread takes at a time


cdef inline double sum_of(const float* x, Py_ssize_t n) noexcept nogil:
    cdef double[16] sums
    cdef double total = 0.0
    cdef Py_ssize_t i = 0, j
    for j in range(16):
        sums[j] = 0.0
    while i + 16 <= n:
        for j in range(16):
            sums[j] += <double>x[i + j]
        i += 16
    for j in range(n - i):
        sums[j] += <double>x[i + j]
    for j in range(16):
        total += sums[j]
    return total


cdef inline double sum_of_squares(const float* x, float mean, Py_ssize_t n) noexcept nogil:
    """Of x - mean."""
    cdef double[16] sums
    cdef double total = 0.0, d
    cdef Py_ssize_t i = 0, j
    for j in range(16):
        sums[j] = 0.0
    while i + 16 <= n:
        for j in range(16):
            d = <double>(x[i + j] - mean)
            sums[j] += d * d
        i += 16
    for j in range(n - i):
        d = <double>(x[i + j] - mean)
        sums[j] += d * d
    for j in range(16):
        total += sums[j]
    return total


cdef void layer_row(
    const Norm* norm, const float* x, float* y, Py_ssize_t n, float* mean, float* inverse
) noexcept nogil:
    """One row, and what its backward pass needs."""
    cdef float m = <float>(sum_of(x, n) / <double>n)
    cdef float s = <float>(1.0 / sqrt(sum_of_squares(x, m, n) / <double>n + <double>norm.epsilon))
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = (x[j] - m) * s * norm.weight[j] + norm.bias[j]
    mean[0] = m
    inverse[0] = s


cdef void layer_row_backward(
    const Norm* norm, const float* x, float* dx, Py_ssize_t n, float mean, float inverse
) noexcept nogil:
    """dx = inverse (h - average(h) - xh average(h xh)),  h = weight dy,  xh = (x - mean) inverse; dx holds dy before"""
    cdef double[16] first, second
    cdef double a = 0.0, b = 0.0
    cdef float h, average, along
    cdef Py_ssize_t i = 0, j
    for j in range(16):
        first[j] = 0.0
        second[j] = 0.0
    while i + 16 <= n:
        for j in range(16):
            h = dx[i + j] * norm.weight[i + j]
            first[j] += <double>h
            second[j] += <double>(h * ((x[i + j] - mean) * inverse))
        i += 16
    for j in range(n - i):
        h = dx[i + j] * norm.weight[i + j]
        first[j] += <double>h
        second[j] += <double>(h * ((x[i + j] - mean) * inverse))
    for j in range(16):
        a += first[j]
        b += second[j]
    average = <float>(a / <double>n)
    along = <float>(b / <double>n)
    for j in range(n):
        dx[j] = inverse * (dx[j] * norm.weight[j] - average - (x[j] - mean) * inverse * along)


cdef void batch_columns(
    const Norm* norm, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols, float* mean,
    float* inverse, bint training
) noexcept nogil:
    """Columns col0..col0+cols; their mean and 1 / deviation are kept for the backward pass."""
    cdef double[COLS] sums
    cdef float[COLS] m, s
    cdef double d, variance
    cdef const float* from_
    cdef float* to
    cdef Py_ssize_t r, j
    if not training:
        for j in range(cols):
            m[j] = norm.running_mean[col0 + j]
            s[j] = <float>(1.0 / sqrt(<double>norm.running_variance[col0 + j] + <double>norm.epsilon))
    else:
        for j in range(cols):
            sums[j] = 0.0
        for r in range(rows):
            from_ = x.data + r * x.row + col0
            for j in range(cols):
                sums[j] += <double>from_[j]
        for j in range(cols):
            m[j] = <float>(sums[j] / <double>rows)
            sums[j] = 0.0
        for r in range(rows):
            from_ = x.data + r * x.row + col0
            for j in range(cols):
                d = <double>(from_[j] - m[j])
                sums[j] += d * d
        for j in range(cols):
            variance = sums[j] / <double>rows
            s[j] = <float>(1.0 / sqrt(variance + <double>norm.epsilon))
            mean[col0 + j] = m[j]
            inverse[col0 + j] = s[j]
            norm.running_mean[col0 + j] = <float>(
                (1.0 - norm.momentum) * <double>norm.running_mean[col0 + j] + norm.momentum * <double>m[j])
            if rows > 1:        # one row says nothing of the variance
                norm.running_variance[col0 + j] = <float>(
                    (1.0 - norm.momentum) * <double>norm.running_variance[col0 + j]
                    + norm.momentum * sums[j] / <double>(rows - 1))
    for r in range(rows):
        from_ = x.data + r * x.row + col0
        to = y.data + r * y.row + col0
        for j in range(cols):
            to[j] = (from_[j] - m[j]) * s[j] * norm.weight[col0 + j] + norm.bias[col0 + j]


cdef void column_gradients(
    const Norm* norm, Matrix x, Matrix dx, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols, const float* mean,
    const float* inverse, float* weight_gradient, float* bias_gradient
) noexcept nogil:
    """Columns of the gradients of weight and bias; of batch normalisation also d loss / d x, in place on dx."""
    cdef double[COLS] sums, along
    cdef float[COLS] m, s, average, mean_along
    cdef const float* from_
    cdef float* to
    cdef Py_ssize_t r, j
    for j in range(cols):
        sums[j] = 0.0
        along[j] = 0.0
        if norm.batch:
            m[j] = mean[col0 + j]
            s[j] = inverse[col0 + j]
    for r in range(rows):
        from_ = x.data + r * x.row + col0
        to = dx.data + r * dx.row + col0
        if not norm.batch:
            for j in range(cols):
                m[j] = mean[r]
                s[j] = inverse[r]
        for j in range(cols):
            sums[j] += <double>to[j]
            along[j] += <double>(to[j] * ((from_[j] - m[j]) * s[j]))
    for j in range(cols):
        bias_gradient[col0 + j] = <float>sums[j]
        weight_gradient[col0 + j] = <float>along[j]
    if not norm.batch:
        return
    for j in range(cols):
        average[j] = <float>(sums[j] / <double>rows)
        mean_along[j] = <float>(along[j] / <double>rows)
    for r in range(rows):
        from_ = x.data + r * x.row + col0
        to = dx.data + r * dx.row + col0
        for j in range(cols):
            to[j] = norm.weight[col0 + j] * s[j] * (to[j] - average[j] - (from_[j] - m[j]) * s[j] * mean_along[j])


cdef void norm_forward(
    const Norm* norm, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t cols, float* mean, float* inverse,
    bint training, int n_threads
) noexcept nogil:
    """y = norm(x); mean and inverse receive a number per row (layer) or per column (batch, in training)."""
    cdef int threads = n_threads if rows * cols > SERIAL_PASS else 1
    cdef Py_ssize_t i
    if norm.batch:
        for i in prange(0, cols, COLS, num_threads=threads, schedule="static"):
            batch_columns(norm, x, y, rows, i, min(<Py_ssize_t>COLS, cols - i), mean, inverse, training)
    else:
        for i in prange(rows, num_threads=threads, schedule="static"):
            layer_row(norm, x.data + i * x.row, y.data + i * y.row, cols, mean + i, inverse + i)


cdef void norm_backward(
    const Norm* norm, Matrix x, Matrix dx, Py_ssize_t rows, Py_ssize_t cols, const float* mean, const float* inverse,
    float* weight_gradient, float* bias_gradient, int n_threads
) noexcept nogil:
    """The gradients of weight and bias, then d loss / d y becomes d loss / d x in place on dx."""
    cdef int threads = n_threads if rows * cols > SERIAL_PASS else 1
    cdef Py_ssize_t i
    for i in prange(0, cols, COLS, num_threads=threads, schedule="static"):
        column_gradients(norm, x, dx, rows, i, min(<Py_ssize_t>COLS, cols - i), mean, inverse, weight_gradient,
                         bias_gradient)
    if norm.batch:
        return
    for i in prange(rows, num_threads=threads, schedule="static"):
        layer_row_backward(norm, x.data + i * x.row, dx.data + i * dx.row, cols, mean[i], inverse[i])


def forward(
    bint batch, float epsilon, double momentum,
    const float[:, ::1] x,          # IN
    const float[::1] weight,        # IN
    const float[::1] bias,          # IN
    float[:, ::1] y,                # OUT
    float[::1] mean,                # OUT, one per row or column
    float[::1] inverse,             # OUT, 1 / sqrt(variance + epsilon)
    float[::1] running_mean,        # INOUT, of batch normalisation; else empty
    float[::1] running_variance,    # INOUT
    bint training,
    int n_threads,
):
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias"""
    cdef Norm norm
    cdef Matrix mx, my
    norm.batch, norm.epsilon, norm.momentum = batch, epsilon, momentum
    norm.weight, norm.bias = &weight[0], &bias[0]
    norm.running_mean = &running_mean[0] if running_mean.shape[0] else NULL
    norm.running_variance = &running_variance[0] if running_variance.shape[0] else NULL
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]      # only read
    my.data, my.row = &y[0, 0], y.shape[1]
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        norm_forward(&norm, mx, my, x.shape[0], x.shape[1], &mean[0], &inverse[0], training, n_threads)
        restore_floats(control)


def backward(
    bint batch,
    const float[:, ::1] x,          # IN
    const float[::1] weight,        # IN
    const float[::1] mean,          # IN, from forward
    const float[::1] inverse,       # IN
    float[:, ::1] dx,                # INOUT, d loss / d y becomes d loss / d x
    float[::1] weight_gradient,     # OUT
    float[::1] bias_gradient,       # OUT
    int n_threads,
):
    """Of the forward pass in training."""
    cdef Norm norm
    cdef Matrix mx, mdx
    norm.batch = batch
    norm.weight = &weight[0]
    norm.bias = NULL
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]
    mdx.data, mdx.row = &dx[0, 0], dx.shape[1]
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        norm_backward(&norm, mx, mdx, x.shape[0], x.shape[1], &mean[0], &inverse[0], &weight_gradient[0],
                      &bias_gradient[0], n_threads)
        restore_floats(control)

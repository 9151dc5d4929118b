"""The activations, y = f(z), and their gradients, dz = dy f'(z), each a scalar formula in a loop that vectorises.

Nair and Hinton 2010 (ReLU); Clevert, Unterthiner and Hochreiter 2016 (ELU); Klambauer et al. 2017 (SELU);
Hendrycks and Gimpel 2016 (GELU, the exact one); Elfwing, Uchibe and Doya 2018 (SiLU); Misra 2019 (Mish).

Then the maps that have a learned number w for every unit: y = w x, and y = x + w (f(x) - x) (He et al. 2015 and
Holzmüller, Grinsztajn and Steinwart 2024 have such slopes). Their gradients d loss / d w are summed over blocks of
SUMMED rows, then over the blocks, each in order.
"""

from cython.parallel cimport prange
from libc.stdint cimport uint64_t
from libc.string cimport memset

from cydrop._core.elementary cimport (
    erfc32, exp32, expm1_negative, log1p_exp, sigmoid32, tanh32,
)
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.matrix cimport Matrix
from cydrop._core.relu cimport gradient_of_rectified, rectified
from cydrop._core.serial cimport SERIAL_PASS

cdef extern from "fma.h" nogil:
    float fma32(float a, float b, float c)

cdef enum:                      # after IDENTITY and RELU
    LEAKY_RELU = 2
    ELU = 3
    SELU = 4
    GELU = 5
    SILU = 6
    TANH = 7
    SIGMOID = 8
    SOFTPLUS = 9
    MISH = 10
    SCALE = 11                  # of the maps with a learned number: no activation

KINDS = {
    "identity": IDENTITY, "relu": RELU, "leaky_relu": LEAKY_RELU, "elu": ELU, "selu": SELU, "gelu": GELU,
    "silu": SILU, "tanh": TANH, "sigmoid": SIGMOID, "softplus": SOFTPLUS, "mish": MISH,
}
PARAMETRIC_KINDS = KINDS | {"scale": SCALE}

cdef enum:
    CHUNK = 4096
    SPAN = 256                  # units whose slopes a thread has at hand
    COLS = 64

cdef float SELU_SCALE = <float>1.0507009873554805
cdef float SELU_ALPHA = <float>1.6732632423543772


cdef inline float leaky_relu(float z, float slope) noexcept nogil:
    return z * slope if z <= <float>0.0 else z


cdef inline float leaky_relu_derivative(float z, float slope) noexcept nogil:
    return slope if z <= <float>0.0 else <float>1.0


cdef inline float elu(float z, float alpha) noexcept nogil:
    cdef float low = alpha * expm1_negative(z if z <= <float>0.0 else <float>0.0)
    return low if z <= <float>0.0 else z


cdef inline float elu_derivative(float z, float alpha) noexcept nogil:
    cdef float low = alpha * exp32(z if z <= <float>0.0 else <float>0.0)
    return low if z <= <float>0.0 else <float>1.0


cdef inline float normal_cdf(float z) noexcept nogil:
    return <float>0.5 * erfc32(z * <float>-0.70710678118654752)


cdef inline float gelu_derivative(float z) noexcept nogil:
    cdef float density = <float>0.3989422804014327 * exp32(<float>-0.5 * z * z)
    return normal_cdf(z) + z * density


cdef inline float silu_derivative(float z) noexcept nogil:
    cdef float s = sigmoid32(z)
    return s * (<float>1.0 + z * (<float>1.0 - s))


cdef inline float tanh_derivative(float t) noexcept nogil:
    """Of the value, not of z: as below."""
    return <float>1.0 - t * t


cdef inline float sigmoid_derivative(float s) noexcept nogil:
    return s * (<float>1.0 - s)


# Mish with w = e^z, n = w (w + 2): tanh(log(1 + w)) = n / (n + 2), a quotient of sums of positive terms. From z = 20 on
# it is 1 to the last place, and w goes no further.

cdef inline float mish(float z) noexcept nogil:
    cdef float w = exp32(<float>20.0 if z > <float>20.0 else z)
    cdef float n = w * (w + <float>2.0)
    return z * (n / (n + <float>2.0))


cdef inline float mish_derivative(float z) noexcept nogil:
    """t + z (1 - t^2) sigmoid(z), t = n / (n + 2);  1 - t^2 = 4 (1 + w)^2 / (n + 2)^2,  sigmoid(z) = w / (1 + w)"""
    cdef float bounded = <float>20.0 if z > <float>20.0 else z
    cdef float w = exp32(bounded)
    cdef float n = w * (w + <float>2.0), d = n + <float>2.0
    return n / d + bounded * (<float>4.0 * w * (w + <float>1.0) / (d * d))


cdef void activate(int kind, float alpha, const float* z, float* y, Py_ssize_t n) noexcept nogil:
    """y = f(z); y may be z."""
    cdef Py_ssize_t j
    if kind == RELU:
        for j in range(n):
            y[j] = rectified(z[j])
    elif kind == LEAKY_RELU:
        for j in range(n):
            y[j] = leaky_relu(z[j], alpha)
    elif kind == ELU:
        for j in range(n):
            y[j] = elu(z[j], alpha)
    elif kind == SELU:
        for j in range(n):
            y[j] = SELU_SCALE * elu(z[j], SELU_ALPHA)
    elif kind == GELU:
        for j in range(n):
            y[j] = z[j] * normal_cdf(z[j])
    elif kind == SILU:
        for j in range(n):
            y[j] = z[j] * sigmoid32(z[j])
    elif kind == TANH:
        for j in range(n):
            y[j] = tanh32(z[j])
    elif kind == SIGMOID:
        for j in range(n):
            y[j] = sigmoid32(z[j])
    elif kind == SOFTPLUS:
        for j in range(n):
            y[j] = log1p_exp(z[j])
    elif kind == MISH:
        for j in range(n):
            y[j] = mish(z[j])
    elif kind == IDENTITY:
        for j in range(n):
            y[j] = z[j]


cdef void activation_gradient(int kind, float alpha, const float* z, float* dz, Py_ssize_t n) noexcept nogil:
    """dz = dy f'(z), dz holds dy before; the identity's is left as it is"""
    cdef Py_ssize_t j
    if kind == RELU:
        for j in range(n):
            dz[j] = gradient_of_rectified(z[j], dz[j])
    elif kind == LEAKY_RELU:
        for j in range(n):
            dz[j] = dz[j] * leaky_relu_derivative(z[j], alpha)
    elif kind == ELU:
        for j in range(n):
            dz[j] = dz[j] * elu_derivative(z[j], alpha)
    elif kind == SELU:
        for j in range(n):
            dz[j] = dz[j] * (SELU_SCALE * elu_derivative(z[j], SELU_ALPHA))
    elif kind == GELU:
        for j in range(n):
            dz[j] = dz[j] * gelu_derivative(z[j])
    elif kind == SILU:
        for j in range(n):
            dz[j] = dz[j] * silu_derivative(z[j])
    elif kind == TANH:
        for j in range(n):
            dz[j] = dz[j] * tanh_derivative(tanh32(z[j]))
    elif kind == SIGMOID:
        for j in range(n):
            dz[j] = dz[j] * sigmoid_derivative(sigmoid32(z[j]))
    elif kind == SOFTPLUS:
        for j in range(n):
            dz[j] = dz[j] * sigmoid32(z[j])
    elif kind == MISH:
        for j in range(n):
            dz[j] = dz[j] * mish_derivative(z[j])


cdef void activation_gradient_at(
    int kind, float alpha, const float* z, const float* y, float* dz, Py_ssize_t n
) noexcept nogil:
    """The same with y = f(z) at hand, which some derivatives follow from."""
    cdef Py_ssize_t j
    if kind == TANH:
        for j in range(n):
            dz[j] = dz[j] * tanh_derivative(y[j])
    elif kind == SIGMOID:
        for j in range(n):
            dz[j] = dz[j] * sigmoid_derivative(y[j])
    else:
        activation_gradient(kind, alpha, z, dz, n)


cdef inline Py_ssize_t share_of(Py_ssize_t n, int n_threads) noexcept nogil:
    """Elements that each thread takes of n: whole chunks."""
    cdef Py_ssize_t chunks = (n + CHUNK - 1) // CHUNK
    return max((chunks + n_threads - 1) // n_threads, <Py_ssize_t>1) * CHUNK


cdef inline void value_and_slope(
    int kind, float option, const float* z, float* y, float* slope, Py_ssize_t n
) noexcept nogil:
    """y = f(z) and f'(z), with one e^z where time is spent."""
    cdef Py_ssize_t j
    cdef float scale = SELU_SCALE if kind == SELU else <float>1.0
    cdef float alpha = SELU_ALPHA if kind == SELU else option
    cdef float low
    if kind == ELU or kind == SELU:
        for j in range(n):
            low = alpha * expm1_negative(z[j] if z[j] <= <float>0.0 else <float>0.0)
            y[j] = scale * (low if z[j] <= <float>0.0 else z[j])
            slope[j] = scale * (low + alpha if z[j] <= <float>0.0 else <float>1.0)
    elif kind == MISH:
        for j in range(n):
            y[j] = mish(z[j])
            slope[j] = mish_derivative(z[j])
    elif kind == SILU:
        for j in range(n):
            y[j] = z[j] * sigmoid32(z[j])
            slope[j] = silu_derivative(z[j])
    else:
        for j in range(n):
            slope[j] = <float>1.0
        activate(kind, option, z, y, n)
        activation_gradient(kind, option, z, slope, n)


cdef void parametric_row(
    int kind, float option, const float* weight, const float* x, float* y, Py_ssize_t n
) noexcept nogil:
    """y = w f(x) + (1 - w) x, which takes nothing away from f where w is 1; or y = w x. y is not x."""
    cdef Py_ssize_t j
    if kind == SCALE:
        for j in range(n):
            y[j] = x[j] * weight[j]
        return
    activate(kind, option, x, y, n)
    for j in range(n):
        y[j] = fma32(weight[j], y[j], (<float>1.0 - weight[j]) * x[j])


cdef inline void parametric_gradient_row(
    int kind, float option, const float* weight, const float* x, float* dx, float* sums, Py_ssize_t n
) noexcept nogil:
    """dx = dy y'(x), dx holds dy before, and sums += dy d y / d w."""
    cdef float[SPAN] value, slope
    cdef Py_ssize_t j
    if kind == SCALE:
        for j in range(n):
            sums[j] = fma32(dx[j], x[j], sums[j])
            dx[j] = dx[j] * weight[j]
        return
    value_and_slope(kind, option, x, value, slope, n)
    for j in range(n):
        sums[j] = fma32(dx[j], value[j] - x[j], sums[j])
        dx[j] = dx[j] * fma32(weight[j], slope[j], <float>1.0 - weight[j])


cdef inline void parametric_gradient_block(
    int kind, float option, const float* weight, Matrix x, Matrix dx, Py_ssize_t row0, Py_ssize_t rows,
    Py_ssize_t cols, float* sums
) noexcept nogil:
    cdef Py_ssize_t r, col0, some
    memset(sums, 0, cols * sizeof(float))
    for r in range(row0, row0 + rows):
        col0 = 0
        while col0 < cols:
            some = min(<Py_ssize_t>SPAN, cols - col0)
            parametric_gradient_row(kind, option, weight + col0, x.data + r * x.row + col0, dx.data + r * dx.row + col0,
                                    sums + col0, some)
            col0 += SPAN


cdef inline void add_blocks(const float* sums, Py_ssize_t blocks, Py_ssize_t cols, float* total) noexcept nogil:
    """The sums of all blocks, in float64."""
    cdef double[COLS] wide
    cdef Py_ssize_t col0 = 0, some, block, j
    while col0 < cols:
        some = min(<Py_ssize_t>COLS, cols - col0)
        for j in range(some):
            wide[j] = 0.0
        for block in range(blocks):
            for j in range(some):
                wide[j] += <double>sums[block * cols + col0 + j]
        for j in range(some):
            total[col0 + j] = <float>wide[j]
        col0 += COLS


cdef void parametric_gradients(
    int kind, float option, const float* weight, Matrix x, Matrix dx, Py_ssize_t rows, Py_ssize_t cols, float* sums,
    float* gradient, int n_threads
) noexcept nogil:
    """d loss / d y becomes d loss / d x in place on dx, and gradient receives d loss / d w. `sums`: memory for `cols`
    floats for each block of rows."""
    cdef int threads = n_threads if rows * cols > SERIAL_PASS else 1
    cdef Py_ssize_t blocks = blocks_of(rows), i
    for i in prange(blocks, num_threads=threads, schedule="static"):
        parametric_gradient_block(kind, option, weight, x, dx, i * SUMMED, min(<Py_ssize_t>SUMMED, rows - i * SUMMED),
                                  cols, sums + i * cols)
    add_blocks(sums, blocks, cols, gradient)


def activation(
    int kind, float alpha,
    const float[::1] z,     # IN
    float[::1] y,           # OUT
    int n_threads,
):
    """y = f(z)"""
    cdef Py_ssize_t n = z.shape[0], share = share_of(n, n_threads), i
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, n, share, num_threads=n_threads, schedule="static"):
            activate(kind, alpha, &z[i], &y[i], min(share, n - i))
        restore_floats(control)


def activation_backward(
    int kind, float alpha,
    const float[::1] z,     # IN
    float[::1] dz,          # INOUT
    int n_threads,
):
    """dz = dy f'(z), dz holds dy before"""
    cdef Py_ssize_t n = z.shape[0], share = share_of(n, n_threads), i
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, n, share, num_threads=n_threads, schedule="static"):
            activation_gradient(kind, alpha, &z[i], &dz[i], min(share, n - i))
        restore_floats(control)


cdef inline void rectified_gradient(const float* dy, const float* x, float* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        out[j] = gradient_of_rectified(x[j], dy[j])


def relu_backward(
    const float[::1] dy,    # IN
    const float[::1] x,     # IN, the input or the output of the forward pass
    float[::1] out,         # OUT
    int n_threads,
):
    """out = where(x <= 0, 0, dy)"""
    cdef Py_ssize_t n = x.shape[0], share = share_of(n, n_threads), i
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, n, share, num_threads=n_threads, schedule="static"):
            rectified_gradient(&dy[i], &x[i], &out[i], min(share, n - i))
        restore_floats(control)


def parametric(
    int kind, float option,
    const float[:, ::1] x,      # IN
    const float[::1] weight,    # IN, a number for every column
    float[:, ::1] y,            # OUT
    int n_threads,
):
    """y = x + weight (f(x) - x), or weight x"""
    cdef Py_ssize_t rows = x.shape[0], cols = x.shape[1], r
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for r in prange(rows, num_threads=n_threads if rows * cols > SERIAL_PASS else 1, schedule="static"):
            parametric_row(kind, option, &weight[0], &x[r, 0], &y[r, 0], cols)
        restore_floats(control)


def parametric_backward(
    int kind, float option,
    const float[:, ::1] x,      # IN
    const float[::1] weight,    # IN
    float[:, ::1] dx,           # INOUT, d loss / d y becomes d loss / d x
    float[:, ::1] sums,         # OUT, a row for every SUMMED rows of x or less
    float[::1] gradient,        # OUT, d loss / d weight
    int n_threads,
):
    """dx = dy dy/dx, gradient = sum over the rows of dy dy/dweight"""
    cdef Matrix mx, mdx
    cdef uint64_t control
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]      # only read
    mdx.data, mdx.row = &dx[0, 0], dx.shape[1]
    if sums.shape[0] < blocks_of(x.shape[0]) or sums.shape[1] < x.shape[1]:
        raise ValueError(f"sums must have {blocks_of(x.shape[0])} rows of {x.shape[1]}, got {sums.shape[0]}")
    with nogil:
        control = exact_floats(n_threads)
        parametric_gradients(kind, option, &weight[0], mx, mdx, x.shape[0], x.shape[1], &sums[0, 0], &gradient[0],
                             n_threads)
        restore_floats(control)


def exponential(const float[::1] x, float[::1] out):
    """out = e^x, for the measurement of its error."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(x.shape[0]):
            out[i] = exp32(x[i])

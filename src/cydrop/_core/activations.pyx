"""The activations, y = f(z), and their gradients, dz = dy f'(z), each a scalar formula in a loop that vectorises.

Nair and Hinton 2010 (ReLU); Clevert, Unterthiner and Hochreiter 2016 (ELU); Klambauer et al. 2017 (SELU);
Hendrycks and Gimpel 2016 (GELU, the exact one); Elfwing, Uchibe and Doya 2018 (SiLU); Misra 2019 (Mish).
"""

from cython.parallel cimport prange
from libc.stdint cimport uint64_t

from cydrop._core.elementary cimport (
    erfc32, exp32, expm1_negative, log1p_exp, sigmoid32, tanh32,
)
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.relu cimport gradient_of_rectified, rectified

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

KINDS = {
    "identity": IDENTITY, "relu": RELU, "leaky_relu": LEAKY_RELU, "elu": ELU, "selu": SELU, "gelu": GELU,
    "silu": SILU, "tanh": TANH, "sigmoid": SIGMOID, "softplus": SOFTPLUS, "mish": MISH,
}

cdef enum:
    CHUNK = 4096

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


cdef inline float tanh_derivative(float z) noexcept nogil:
    cdef float t = tanh32(z)
    return <float>1.0 - t * t


cdef inline float sigmoid_derivative(float z) noexcept nogil:
    cdef float s = sigmoid32(z)
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
            dz[j] = dz[j] * tanh_derivative(z[j])
    elif kind == SIGMOID:
        for j in range(n):
            dz[j] = dz[j] * sigmoid_derivative(z[j])
    elif kind == SOFTPLUS:
        for j in range(n):
            dz[j] = dz[j] * sigmoid32(z[j])
    elif kind == MISH:
        for j in range(n):
            dz[j] = dz[j] * mish_derivative(z[j])


cdef inline Py_ssize_t share_of(Py_ssize_t n, int n_threads) noexcept nogil:
    """Elements that each thread takes of n: whole chunks."""
    cdef Py_ssize_t chunks = (n + CHUNK - 1) // CHUNK
    return max((chunks + n_threads - 1) // n_threads, <Py_ssize_t>1) * CHUNK


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


def exponential(const float[::1] x, float[::1] out):
    """out = e^x, for the measurement of its error."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(x.shape[0]):
            out[i] = exp32(x[i])

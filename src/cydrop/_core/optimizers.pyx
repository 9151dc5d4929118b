"""The optimizers, each as one pass over flat parameters. PyTorch's formulas, in float32:

    SGD       v = momentum v + g;  w -= rate (g + momentum v if nesterov else v)
    RMSprop   v = rho v + (1 - rho) g^2;  w -= rate g / (sqrt v + epsilon)              Tieleman and Hinton 2012
    Adagrad   v = v + g^2;  w -= rate g / (sqrt v + epsilon)                            Duchi et al. 2011
    Adam      m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2                           Kingma and Ba 2015
              w -= rate / (1 - b1^t)  m / (sqrt v / sqrt(1 - b2^t) + epsilon)
    AdamW     the same after w *= 1 - rate weight_decay                                 Loshchilov and Hutter 2019

with g = clip gradient + weight_decay w (AdamW: g = clip gradient). Moments below 1.2e-38 count as 0.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdint cimport uint64_t

from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.serial cimport SERIAL_COPY

cdef extern from "fma.h" nogil:
    float fma32(float a, float b, float c)
    float sqrtf(float x)
    float fabsf(float x)
    ctypedef float* own_floats

cdef enum:
    SGD = 0
    RMSPROP = 1
    ADAGRAD = 2
    ADAM = 3
    ADAMW = 4

KINDS = {"sgd": SGD, "rmsprop": RMSPROP, "adagrad": ADAGRAD, "adam": ADAM, "adamw": ADAMW}


cdef double power(double base, uint64_t exponent) noexcept nogil:
    """base^exponent by squaring: a function of its arguments alone, on every machine."""
    cdef double result = 1.0
    while exponent:
        if exponent & 1:
            result = result * base
        base = base * base
        exponent >>= 1
    return result


cdef void begin_update(Update* u, double learning_rate, uint64_t t) noexcept nogil:
    """The scalars of update number t = 1, 2, ..."""
    u.learning_rate = learning_rate
    u.first = <float>u.beta1
    u.first_new = <float>(1.0 - u.beta1)
    u.second = <float>u.beta2
    u.second_new = <float>(1.0 - u.beta2)
    u.correction = 1.0
    if u.kind == ADAM or u.kind == ADAMW:
        u.correction = 1.0 - power(u.beta1, t)
        u.second_scale = <float>(1.0 / sqrt(1.0 - power(u.beta2, t)))
    work_out(u)


cdef inline void work_out(Update* u) noexcept nogil:
    """What depends on learning rate, epsilon and decay."""
    u.step = <float>(u.learning_rate / u.correction)
    u.epsilon32 = <float>u.epsilon
    u.weight_decay = <float>u.decay
    u.shrink = 1.0
    u.still = u.decay == 0.0 and ((u.kind == SGD and u.beta1 == 0.0) or u.kind == ADAGRAD)
    if u.kind == ADAMW:
        u.shrink = <float>(1.0 - u.learning_rate * u.decay)
        u.weight_decay = 0.0


cdef Update update_of_segment(const Update* u, const Segment* segment) noexcept nogil:
    """This step's update of a segment: to the bit that of an optimizer with the multiplied options. Where all factors
    are 1 it is u itself, which may be used instead.

    The optimizer is for a parameter w of which the arena holds h = gain w. The gradient of w is gain dh, so that

        SGD     h -= gain rate (gain dh + decay h / gain)               = gain^2 rate (dh + decay / gain^2 h)
        others  h -= gain rate gain dh / (gain sqrt v + epsilon)        = gain rate dh / (sqrt v + epsilon / gain)

    with v of dh, and the decay that is added to the gradient as for SGD. AdamW shrinks h as it shrinks w. What the
    prior of learned rates adds to the gradient is of h, whatever the optimizer.
    """
    cdef Update own = u[0]
    cdef double gain = segment.gain
    own.learning_rate = own.learning_rate * segment.learning_rate * (gain * gain if u.kind == SGD else gain)
    own.epsilon = own.epsilon / gain
    own.decay = own.decay * segment.decay / (gain if u.kind == ADAMW else gain * gain)
    work_out(&own)
    own.weight_decay = own.weight_decay + <float>segment.prior
    own.still = own.still and segment.prior == 0.0
    own.pull = <float>segment.pull
    return own


cdef inline float settled(float moment) noexcept nogil:
    """A decaying moment that has left the normal range is 0: the moments of a unit that fell silent would else
    stay denormal forever, and processors take their time over denormals (a quarter of a small network's step)."""
    return <float>0.0 if fabsf(moment) < <float>1.17549435e-38 else moment


cdef inline void sgd(Update u, own_floats w, const float* g, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        w[j] = fma32(-u.step, fma32(u.weight_decay, w[j], g[j] * u.clip), w[j])


cdef inline void sgd_momentum(Update u, own_floats w, const float* g, own_floats v, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    cdef float direction
    for j in range(n):
        direction = fma32(u.weight_decay, w[j], g[j] * u.clip)
        v[j] = settled(fma32(u.first, v[j], direction))
        direction = fma32(u.first, v[j], direction) if u.nesterov else v[j]
        w[j] = fma32(-u.step, direction, w[j])


cdef inline void rmsprop(Update u, own_floats w, const float* g, own_floats v, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    cdef float direction
    for j in range(n):
        direction = fma32(u.weight_decay, w[j], g[j] * u.clip)
        v[j] = settled(fma32(u.second, v[j], u.second_new * direction * direction))
        w[j] = fma32(-u.step, direction / (sqrtf(v[j]) + u.epsilon32), w[j])


cdef inline void adagrad(Update u, own_floats w, const float* g, own_floats v, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    cdef float direction
    for j in range(n):
        direction = fma32(u.weight_decay, w[j], g[j] * u.clip)
        v[j] = fma32(direction, direction, v[j])
        w[j] = fma32(-u.step, direction / (sqrtf(v[j]) + u.epsilon32), w[j])


cdef inline void adam(
    Update u, own_floats w, const float* g, own_floats m, own_floats v, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t j
    cdef float direction, weight
    for j in range(n):
        weight = w[j] * u.shrink
        direction = fma32(u.weight_decay, weight, g[j] * u.clip)
        m[j] = settled(fma32(u.first, m[j], u.first_new * direction))
        v[j] = settled(fma32(u.second, v[j], u.second_new * direction * direction))
        w[j] = fma32(-u.step, m[j] / fma32(sqrtf(v[j]), u.second_scale, u.epsilon32), weight)


cdef void update_rows(
    const Update* u, float* w, const float* g, float* m, float* v,
    Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t row, Py_ssize_t g_row
) noexcept nogil:
    """A rectangle of the arenas, rows `row` apart; the rows of g are `g_row` apart."""
    cdef Update local = u[0]        # a copy that no store through w, m, v can change
    cdef Py_ssize_t r
    if u.kind == ADAM or u.kind == ADAMW:
        for r in range(rows):
            adam(local, w + r * row, g + r * g_row, m + r * row, v + r * row, cols)
    elif u.kind == RMSPROP:
        for r in range(rows):
            rmsprop(local, w + r * row, g + r * g_row, v + r * row, cols)
    elif u.kind == ADAGRAD:
        for r in range(rows):
            adagrad(local, w + r * row, g + r * g_row, v + r * row, cols)
    elif u.kind == SGD and u.beta1 != 0.0:
        for r in range(rows):
            sgd_momentum(local, w + r * row, g + r * g_row, v + r * row, cols)
    elif u.kind == SGD:
        for r in range(rows):
            sgd(local, w + r * row, g + r * g_row, cols)


cdef inline void update_range(
    const Update* u, float* w, const float* g, float* m, float* v, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """Elements start..stop-1 of the arenas; a moment that the optimizer does not have is NULL and stays so."""
    update_rows(u, w + start, g + start, m + start if m != NULL else NULL,
                v + start if v != NULL else NULL, 1, stop - start, 0, 0)


cdef void update_arena(
    const Update* u, float* w, const float* g, float* m, float* v, Py_ssize_t n, int n_threads
) noexcept nogil:
    cdef Py_ssize_t i
    if n_threads == 1 or n <= SERIAL_COPY:
        update_range(u, w, g, m, v, 0, n)
    else:
        for i in prange(0, n, SPAN, num_threads=n_threads, schedule="static"):
            update_range(u, w, g, m, v, i, min(i + SPAN, n))


cdef void update_segments(
    const Update* u, const Segment* segments, Py_ssize_t n_segments, float* w, const float* g, float* m, float* v,
    int n_threads
) noexcept nogil:
    """The arenas, segment by segment."""
    cdef Update own
    cdef Py_ssize_t i, start
    for i in range(n_segments):
        own = update_of_segment(u, &segments[i])
        start = segments[i].start
        update_arena(&own, w + start, g + start, m + start if m != NULL else NULL, v + start if v != NULL else NULL,
                     segments[i].size, n_threads)


cdef inline double squared_norm_of_span(const float* g, Py_ssize_t n) noexcept nogil:
    """Sixteen interleaved sums, then their sum: an order of additions that vectorises and is always the same."""
    cdef double[16] sums
    cdef double total = 0.0
    cdef Py_ssize_t i, j
    for j in range(16):
        sums[j] = 0.0
    for i in range(0, n - 15, 16):
        for j in range(16):
            sums[j] += <double>g[i + j] * <double>g[i + j]
    for i in range(n - n % 16, n):
        sums[i % 16] += <double>g[i] * <double>g[i]
    for j in range(16):
        total += sums[j]
    return total


cdef double squared_norm(const float* g, Py_ssize_t n, double* partial, int n_threads) noexcept nogil:
    """Sum of squares; `partial` has a place for every SPAN elements, so that no order depends on threads."""
    cdef Py_ssize_t i, spans = (n + SPAN - 1) // SPAN
    cdef double total = 0.0
    for i in prange(spans, num_threads=n_threads if n > SERIAL_COPY else 1, schedule="static"):
        partial[i] = squared_norm_of_span(g + i * SPAN, min(<Py_ssize_t>SPAN, n - i * SPAN))
    for i in range(spans):
        total += partial[i]
    return total


def spans_of(Py_ssize_t n):
    """Places that squared_norm needs for n elements."""
    return (n + SPAN - 1) // SPAN


def slices_of(Py_ssize_t n, Py_ssize_t parts):
    """Where each part of an arena of n elements begins, at multiples of SPAN, and where the last one ends."""
    return [min(SPAN * (spans_of(n) * part // parts), n) for part in range(parts + 1)]


def norm(const float[::1] g, double[::1] partial, int n_threads):
    """The Euclidean norm, in float64."""
    if g.shape[0] == 0:
        return 0.0
    return sqrt(squared_norm(&g[0], g.shape[0], &partial[0], n_threads))


def update(
    int kind,
    float[::1] w,               # INOUT
    const float[::1] g,         # IN
    float[::1] m,               # INOUT, empty where the optimizer has none
    float[::1] v,               # INOUT, empty where the optimizer has none
    unsigned long long t,       # number of this update, from 1
    double learning_rate, double beta1, double beta2, double epsilon, double weight_decay, bint nesterov,
    double clip,                # factor for the gradient
    const double[:, ::1] segments,  # IN, rows of (start, size, learning rate, gain, decay) as in Segment, or empty
    int n_threads,
):
    """One update of the flat parameters w in place, or only of the segments, if there are any."""
    cdef Update u
    cdef Segment segment
    cdef Py_ssize_t n = w.shape[0], i, n_segments = segments.shape[0]
    if n == 0:
        return
    cdef float* m_data = &m[0] if m.shape[0] else NULL
    cdef float* v_data = &v[0] if v.shape[0] else NULL
    u.kind = kind
    u.nesterov = nesterov
    u.beta1 = beta1
    u.beta2 = beta2
    u.epsilon = epsilon
    u.decay = weight_decay
    u.clip = <float>clip
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        begin_update(&u, learning_rate, t)
        if n_segments == 0:
            update_arena(&u, &w[0], &g[0], m_data, v_data, n, n_threads)
        for i in range(n_segments):
            segment.start, segment.size = <Py_ssize_t>segments[i, 0], <Py_ssize_t>segments[i, 1]
            segment.learning_rate, segment.gain, segment.decay = segments[i, 2], segments[i, 3], segments[i, 4]
            segment.prior = segment.pull = 0.0
            update_segments(&u, &segment, 1, &w[0], &g[0], m_data, v_data, n_threads)
        restore_floats(control)

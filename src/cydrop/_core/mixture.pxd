"""What many networks predict together: the raw outputs whose link is the mean of theirs after it.

    cross-entropy   log of the mean of softmax(z_j)
    binary          the logit of the mean of sigmoid(z_j)
    gaussian nll    mean and log variance of the mixture: m = mean m_j, v = mean v_j + mean (m_j - m)^2
    pinball         mean of z_j in order
    all others      mean z_j

Logarithms are taken before sums, as log sum e^a, so that nothing becomes 0 or infinite on the way. The members are
added in their order. z_j: the outputs of member j, `z_member` floats after those of member j - 1. Compiled into
losses.pyx.
"""

from cydrop._core.cross_entropy cimport largest, sum_of_exponentials
from cydrop._core.elementary cimport exp32, log1p_exp, log1p_exp_negative, log32
from cydrop._core.quantiles cimport sort_row


cdef inline float log_of_sum(float a, float b) noexcept nogil:
    """log(e^a + e^b)"""
    return a + log1p_exp_negative(b - a) if a > b else b + log1p_exp_negative(a - b)


cdef inline void mean_of_members(
    const float* z, Py_ssize_t z_member, int members, Py_ssize_t units, float* out
) noexcept nogil:
    cdef Py_ssize_t j
    cdef int m
    cdef double total
    for j in range(units):
        total = 0.0
        for m in range(members):
            total += <double>z[m * z_member + j]
        out[j] = <float>(total / <double>members)


cdef inline void mean_of_quantiles(
    float* z, Py_ssize_t z_member, int members, Py_ssize_t units, int n_levels, float* out
) noexcept nogil:
    """Means of what is in order are in order. z is sorted."""
    cdef int m
    for m in range(members):
        sort_row(z + m * z_member, units // n_levels, n_levels)
    mean_of_members(z, z_member, members, units, out)


cdef inline void mean_of_softmax(
    float* z, Py_ssize_t z_member, int members, Py_ssize_t units, float* out
) noexcept nogil:
    """z is lost."""
    cdef Py_ssize_t j, place
    cdef int m
    cdef float top, total
    cdef float* own
    for m in range(members):
        own = z + m * z_member
        top = largest(own, units, &place)
        total = top + log32(sum_of_exponentials(own, top, units))
        for j in range(units):
            own[j] = own[j] - total
    for j in range(units):
        out[j] = log_mean(z + j, z_member, members)


cdef inline float log_mean(const float* a, Py_ssize_t stride, int members) noexcept nogil:
    """log of the mean of e^a"""
    cdef float top = a[0]
    cdef double total = 0.0
    cdef int m
    for m in range(1, members):
        top = a[m * stride] if a[m * stride] > top else top
    for m in range(members):
        total += <double>exp32(a[m * stride] - top)
    return top + log32(<float>(total / <double>members))


cdef inline void mean_of_sigmoid(
    const float* z, Py_ssize_t z_member, int members, Py_ssize_t units, float* out
) noexcept nogil:
    """log p = -log(1 + e^-z), log (1 - p) = -log(1 + e^z)"""
    cdef Py_ssize_t j
    cdef int m
    cdef float least, most
    cdef double p, q
    for j in range(units):
        least = most = z[j]
        for m in range(1, members):
            least = z[m * z_member + j] if z[m * z_member + j] < least else least
            most = z[m * z_member + j] if z[m * z_member + j] > most else most
        p = q = 0.0
        for m in range(members):
            p += <double>exp32(log1p_exp(-most) - log1p_exp(-z[m * z_member + j]))
            q += <double>exp32(log1p_exp(least) - log1p_exp(z[m * z_member + j]))
        out[j] = (log32(<float>p) - log1p_exp(-most)) - (log32(<float>q) - log1p_exp(least))


cdef inline void mean_of_gaussians(
    const float* z, Py_ssize_t z_member, int members, Py_ssize_t units, float* out
) noexcept nogil:
    cdef Py_ssize_t j, half = units // 2
    cdef int m
    cdef double spread, d
    mean_of_members(z, z_member, members, half, out)
    for j in range(half):
        spread = 0.0
        for m in range(members):
            d = <double>z[m * z_member + j] - <double>out[j]
            spread += d * d
        spread = spread / <double>members
        out[half + j] = log_mean(z + half + j, z_member, members)
        if <float>spread > <float>1e-37:        # log32 takes normal numbers
            out[half + j] = log_of_sum(out[half + j], log32(<float>spread))

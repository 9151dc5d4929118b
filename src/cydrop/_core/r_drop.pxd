"""R-Drop (Liang et al. 2021): two passes of a row with masks of their own, and the divergence between them.

    (CE(z1) + CE(z2)) / 2 + pair (KL(p1 | p2) + KL(p2 | p1)) / 2
"""

from libc.stdint cimport int32_t

from cydrop._core.cross_entropy cimport largest, share_of_class, sum_of_exponentials
from cydrop._core.elementary cimport exp32, log32


cdef inline double log_softmax(const float* z, Py_ssize_t units, float* logarithms, Py_ssize_t* place) noexcept nogil:
    """log softmax of a row; returns log sum e^z."""
    cdef float top = largest(z, units, place)
    cdef float total = log32(sum_of_exponentials(z, top, units))
    cdef Py_ssize_t j
    for j in range(units):
        logarithms[j] = (z[j] - top) - total
    return <double>top + <double>total


cdef inline void pair_row(
    float smoothing, float pair, const float* z, const float* z2, Py_ssize_t units, int32_t label, const float* y,
    float weight, double share, float* dz, float* dz2, double* total, int32_t* correct
) noexcept nogil:
    """Both passes of a row, with log probabilities a and b. y: probabilities instead of a label, or NULL.

        d CE / d z = p - target,   d (KL(p | q) + KL(q | p)) / d z = p (a - b - KL(p | q)) + p - q
    """
    cdef Py_ssize_t place, place2, j
    cdef float factor = <float>(0.5 * <double>weight * share)
    cdef float uniform = smoothing / <float>units
    cdef float a, b, p, q, target
    cdef double log_total = log_softmax(z, units, dz, &place)
    cdef double log_total2 = log_softmax(z2, units, dz2, &place2)
    cdef double forth = 0.0, back = 0.0, mean = 0.0, entropy = 0.0
    cdef Py_ssize_t likeliest = label
    for j in range(units):
        forth += <double>(exp32(dz[j]) * (dz[j] - dz2[j]))
        back += <double>(exp32(dz2[j]) * (dz2[j] - dz[j]))
        mean += <double>z[j] + <double>z2[j]
    if y == NULL:
        entropy = log_total + log_total2 - (1.0 - <double>smoothing) * (<double>z[label] + <double>z2[label])
        entropy = entropy - mean * <double>uniform
    else:
        largest(y, units, &likeliest)
        for j in range(units):
            entropy += share_of_class(y[j], smoothing, uniform, log_total, z[j])
            entropy += share_of_class(y[j], smoothing, uniform, log_total2, z2[j])
    correct[0] = place == likeliest
    total[0] = 0.5 * <double>weight * (entropy + <double>pair * (forth + back))
    for j in range(units):
        a = dz[j]
        b = dz2[j]
        p = exp32(a)
        q = exp32(b)
        if y == NULL:
            target = uniform + (<float>1.0 - smoothing if j == label else <float>0.0)
        else:
            target = uniform + (<float>1.0 - smoothing) * y[j]
        dz[j] = factor * (p - target + pair * (p * (a - b - <float>forth) + (p - q)))
        dz2[j] = factor * (q - target + pair * (q * (b - a - <float>back) + (q - p)))

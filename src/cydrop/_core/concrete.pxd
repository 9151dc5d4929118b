"""Concrete dropout (Gal, Hron and Kendall 2017): the passes over a row, and what is kept of an element.

With u uniform in (0, 1) and p the rate, at temperature 1/10:

    keep = 1 - sigmoid((logit p + logit u) / (1/10)) = 1 / (1 + s^10),   s = p / (1 - p)  u / (1 - u)
    y    = x keep / (1 - p)
    dx   = dy keep / (1 - p)
    d logit p = sum dy y (p - 10 (1 - keep))

so that neither exp nor log of an element is needed: ten factors and two divisions.
"""

from libc.stdint cimport int32_t, uint32_t

from cydrop._core.elementary cimport exp32

cdef extern from "fma.h" nogil:
    float fma32(float a, float b, float c)
    ctypedef float* own_floats


cdef struct Concrete:           # a rate
    float rate
    float odds                  # rate / (1 - rate)
    float scale                 # 1 / (1 - rate)


cdef inline Concrete concrete_of_odds(float odds) noexcept nogil:
    cdef Concrete c
    c.odds, c.scale = odds, <float>1.0 + odds
    c.rate = odds / c.scale
    return c


cdef inline float odds_of(float logit) noexcept nogil:
    """Of a logit; beyond 30 it makes no difference, but NaN stays NaN."""
    cdef float bounded = <float>-30.0 if logit < <float>-30.0 else logit
    return exp32(<float>30.0 if bounded > <float>30.0 else bounded)


cdef inline float kept_of(uint32_t bits, float odds) noexcept nogil:
    """keep for u = (k + 1/2) / 2^31 of the upper 31 of 32 random bits."""
    cdef int32_t k = <int32_t>(bits >> 1)
    cdef float up = <float>k + <float>0.5, down = <float>(0x7FFFFFFF - k) + <float>0.5
    cdef float s = up / down * odds, power
    s = <float>0.01 if s < <float>0.01 else s       # what is smaller is kept as well: denormal numbers take their time
    power = s * s
    s = power * power
    s = s * s
    return <float>1.0 / fma32(s, power, <float>1.0)


cdef inline void concrete_row(const float* x, const float* keep, float scale, float* y, Py_ssize_t n) noexcept nogil:
    """y = x keep scale; y may be x."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = x[j] * (keep[j] * scale)


cdef inline double concrete_row_backward(
    const float* x, const float* keep, Concrete c, own_floats dz, Py_ssize_t n
) noexcept nogil:
    """d loss / d y becomes d loss / d x in place on dz; the row's part of d loss / d logit: sixteen interleaved sums,
    then their sum."""
    cdef float[16] sums
    cdef float kept, left
    cdef double total = 0.0
    cdef Py_ssize_t i, j
    for j in range(16):
        sums[j] = 0.0
    for i in range(0, n - 15, 16):
        for j in range(16):
            left = fma32(<float>-10.0, <float>1.0 - keep[i + j], c.rate)
            kept = dz[i + j] * (keep[i + j] * c.scale)
            dz[i + j] = kept
            sums[j] = fma32(kept * x[i + j], left, sums[j])
    for i in range(n - n % 16, n):
        left = fma32(<float>-10.0, <float>1.0 - keep[i], c.rate)
        kept = dz[i] * (keep[i] * c.scale)
        dz[i] = kept
        sums[i % 16] = fma32(kept * x[i], left, sums[i % 16])
    for j in range(16):
        total += <double>sums[j]
    return total

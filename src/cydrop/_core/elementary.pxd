"""exp, log, tanh, erfc in float32, without branches, so that loops over them become vector code.

Own, not libm's: a promise of equal bits must not depend on the C library. The polynomials are minimax fits
(bench/accuracy.py measures the error of each function in units in the last place).
"""

from libc.stdint cimport int32_t, uint32_t

cdef extern from "fma.h" nogil:
    float fma32(float a, float b, float c)
    int32_t bits_of(float x)
    float float_of(int32_t bits)
    float fabsf(float x)

cdef enum:
    ROUND_BITS = 0x4B400000         # the bits of 1.5 * 2^23: adding it rounds to an integer


cdef inline float exp_fraction(float x, int32_t* exponent) noexcept nogil:
    """e^x = 2^exponent * (1 + result), |result| < 1/2, for -104 <= x <= 89."""
    cdef float shifted = fma32(x, <float>1.44269502, <float>12582912.0)
    cdef float n = shifted - <float>12582912.0
    cdef float r = fma32(n, <float>-0.693145752, x)
    cdef float q
    r = fma32(n, <float>-1.42860677e-6, r)
    q = fma32(<float>1.395048923e-03, r, <float>8.368889801e-03)
    q = fma32(q, r, <float>4.166620597e-02)
    q = fma32(q, r, <float>1.666651815e-01)
    q = fma32(q, r, <float>0.5)
    exponent[0] = <int32_t>(<uint32_t>bits_of(shifted) - <uint32_t>ROUND_BITS)
    return fma32(q * r, r, r)


cdef inline float power_of_two(int32_t n) noexcept nogil:
    """2^n for -126 <= n <= 127"""
    return float_of(<int32_t>((<uint32_t>n + 127) << 23))


cdef inline float exp32(float x) noexcept nogil:
    """e^x; 0 below -103.98, infinity above 88.73, NaN for NaN."""
    cdef float bounded = <float>-104.0 if x < <float>-104.0 else x
    cdef int32_t exponent, half
    cdef float p
    bounded = <float>89.0 if bounded > <float>89.0 else bounded
    p = exp_fraction(bounded, &exponent) + <float>1.0
    half = exponent >> 1       # in two steps, for results beyond the normal range
    return p * power_of_two(half) * power_of_two(<int32_t>(<uint32_t>exponent - <uint32_t>half))


cdef inline float expm1_negative(float x) noexcept nogil:
    """e^x - 1 for x <= 0, exact to the last places near 0."""
    cdef float bounded = <float>-40.0 if x < <float>-40.0 else x
    cdef int32_t exponent
    cdef float p = exp_fraction(bounded, &exponent)
    cdef float scale = power_of_two(exponent)
    return fma32(scale, p, scale - <float>1.0)


cdef inline float log32(float x) noexcept nogil:
    """log x for normal x > 0, NaN for NaN."""
    cdef int32_t i = <int32_t>(<uint32_t>bits_of(x) - <uint32_t>0x3F3504F3)
    cdef float e = <float>(i >> 23)
    cdef float f = float_of((i & 0x7FFFFF) + 0x3F3504F3) - <float>1.0
    cdef float p
    p = fma32(<float>-7.634429634e-02, f, <float>1.276154965e-01)
    p = fma32(p, f, <float>-1.316019446e-01)
    p = fma32(p, f, <float>1.420176178e-01)
    p = fma32(p, f, <float>-1.662335694e-01)
    p = fma32(p, f, <float>2.000122666e-01)
    p = fma32(p, f, <float>-2.500082254e-01)
    p = fma32(p, f, <float>3.333333135e-01)
    p = fma32(p, f, <float>-0.5)
    p = fma32(p * f, f, e * <float>-2.12194440e-4)
    return fma32(e, <float>0.693359375, p + f) + (x - x)     # the last term is 0, or NaN


cdef inline float log1p_exp_negative(float x) noexcept nogil:
    """log(1 + e^x) for x <= 0."""
    cdef float u = exp32(x)
    cdef float w = <float>1.0 + u
    cdef float d = w - <float>1.0
    # log(1 + u) = log(w) u / (w - 1) takes back the rounding of 1 + u
    return u if d == <float>0.0 else log32(w) * (u / d)


cdef inline float sigmoid32(float x) noexcept nogil:
    return <float>1.0 / (<float>1.0 + exp32(-x))


cdef inline float log1p_exp(float x) noexcept nogil:
    """log(1 + e^x)"""
    return (<float>0.0 if x < <float>0.0 else x) + log1p_exp_negative(-fabsf(x))


cdef inline float tanh32(float x) noexcept nogil:
    cdef float a = fabsf(x), u = x * x
    cdef float p, large
    p = fma32(<float>-5.717036780e-03, u, <float>2.065057866e-02)
    p = fma32(p, u, <float>-5.374349654e-02)
    p = fma32(p, u, <float>1.333149076e-01)
    p = fma32(p, u, <float>-3.333328366e-01)
    p = fma32(p * u, x, x)
    large = <float>1.0 - <float>2.0 / (exp32(<float>2.0 * a) + <float>1.0)
    large = -large if x < <float>0.0 else large
    return p if a < <float>0.625 else large


cdef inline float erfc32(float x) noexcept nogil:
    """1 - erf x"""
    cdef float a = fabsf(x), u = x * x
    cdef float p, q, t, tail
    p = fma32(<float>7.889119297e-05, u, <float>-8.020841051e-04)
    p = fma32(p, u, <float>5.189535208e-03)
    p = fma32(p, u, <float>-2.685444430e-02)
    p = fma32(p, u, <float>1.128360033e-01)
    p = fma32(p, u, <float>-3.761262596e-01)
    p = fma32(p, u, <float>1.128379107)
    p = fma32(-p, x, <float>1.0)
    t = <float>1.0 / fma32(<float>0.4, a, <float>1.0)
    q = fma32(<float>-1.191942170e-01, t, <float>2.523328066e-01)
    q = fma32(q, t, <float>-2.539170440e-03)
    q = fma32(q, t, <float>2.202488929e-01)
    q = fma32(q, t, <float>1.959965676e-01)
    q = fma32(q, t, <float>2.273180932e-01)
    q = fma32(q, t, <float>2.255516052e-01)
    q = fma32(q, t, <float>3.767364888e-06)
    # fma32(x, x, -u) is what rounding took from x * x
    tail = q * exp32(-u)
    tail = fma32(-fma32(x, x, -u), tail, tail)
    tail = <float>0.0 if a > <float>10.0 else tail
    tail = <float>2.0 - tail if x < <float>0.0 else tail
    return p if a < <float>1.0 else tail


cdef inline float sine_of_eighth(float f) noexcept nogil:
    """sin(2 pi f) for |f| <= 1/8"""
    cdef float u = f * f
    cdef float p = fma32(<float>-7.539356277e+01, u, <float>8.159235355e+01)
    p = fma32(p, u, <float>-4.134166145e+01)
    return f * fma32(p, u, <float>6.283185287e+00)


cdef inline float cosine_of_eighth(float f) noexcept nogil:
    """cos(2 pi f) for |f| <= 1/8"""
    cdef float u = f * f
    cdef float p = fma32(<float>5.920279622e+01, u, <float>-8.544229798e+01)
    p = fma32(p, u, <float>6.493931074e+01)
    p = fma32(p, u, <float>-1.973920863e+01)
    return fma32(p, u, <float>1.0)


cdef inline float sine_of_turns(float turns) noexcept nogil:
    """sin(2 pi turns) for |turns| <= 1/2: exact quarters are taken off, then sine or cosine of the rest."""
    cdef float quarters = (fma32(turns, <float>4.0, <float>12582912.0)) - <float>12582912.0
    cdef float f = fma32(quarters, <float>-0.25, turns)
    cdef float s = sine_of_eighth(f), c = cosine_of_eighth(f)
    cdef float a = fabsf(quarters)
    cdef float odd = -c if quarters < <float>0.0 else c
    cdef float even = -s if a == <float>2.0 else s
    return odd if a == <float>1.0 else even


cdef inline float cosine_of_turns(float turns) noexcept nogil:
    """cos(2 pi turns) for |turns| <= 1/2"""
    cdef float quarters = (fma32(turns, <float>4.0, <float>12582912.0)) - <float>12582912.0
    cdef float f = fma32(quarters, <float>-0.25, turns)
    cdef float s = sine_of_eighth(f), c = cosine_of_eighth(f)
    cdef float a = fabsf(quarters)
    cdef float odd = s if quarters < <float>0.0 else -s
    cdef float even = -c if a == <float>2.0 else c
    return odd if a == <float>1.0 else even


cdef inline float sine_of_quarter(float q) noexcept nogil:
    """sin(2 pi q) for |q| <= 1/4"""
    cdef float u = q * q
    cdef float p = fma32(<float>4.080365753e+01, u, <float>-7.671897888e+01)
    p = fma32(p, u, <float>8.160829163e+01)
    p = fma32(p, u, <float>-4.134176254e+01)
    return q * fma32(p, u, <float>6.283185482e+00)


cdef inline float part_of_turn(float x, float w, float b) noexcept nogil:
    """x w + b less the whole number next to it, b small. The product is not rounded before the whole turns are off, so
    that far turns are as good as near ones: up to a hundred thousand; the result may be larger than 1/2 by what
    rounding x w + b takes. Beyond 4 million, where a float32 does not say where in its turn it is, it may be anything.
    """
    cdef float whole = (fma32(x, w, b) + <float>12582912.0) - <float>12582912.0
    return fma32(x, w, -whole) + b


cdef inline float magnitude_of_part(float turns) noexcept nogil:
    cdef float a = fabsf(turns)
    return <float>0.5625 if a > <float>0.5625 else a


cdef inline float cosine_of_part(float turns) noexcept nogil:
    """cos(2 pi turns) of a part of a turn, as sin(2 pi (1/4 - |turns|)). Whatever `turns` is, about within [-1, 1]."""
    return sine_of_quarter(<float>0.25 - magnitude_of_part(turns))


cdef inline float sine_of_part(float turns) noexcept nogil:
    """sin(2 pi turns) of a part of a turn."""
    cdef float a = magnitude_of_part(turns), s
    a = <float>0.5 - a if a > <float>0.25 else a
    s = sine_of_quarter(a)
    return -s if turns < <float>0.0 else s

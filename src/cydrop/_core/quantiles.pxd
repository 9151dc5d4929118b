"""Quantiles: the pinball loss of a target's outputs, and these outputs in order.

A row has an output for each quantile of each target, here of three quantiles and two targets:

    z     q0 of y0, q0 of y1 | q1 of y0, q1 of y1 | q2 of y0, q2 of y1

so that those of one target are `apart`, here 2, from each other. They are few and nearly in order, which is what
sorting by insertion is good at. Compiled into losses.pyx.
"""


cdef inline double pinball_element(
    const float* z, Py_ssize_t apart, const float* levels, int n_levels, float y, float factor, float* dz
) noexcept nogil:
    """One target: the sum over its quantiles."""
    cdef int i
    cdef float d, above
    cdef double loss = 0.0
    for i in range(n_levels):
        d = z[i * apart] - y
        above = <float>1.0 - levels[i]
        loss += <double>(above if d > <float>0.0 else -levels[i]) * <double>d
        if dz != NULL:
            # 0 at 0, and NaN for NaN
            dz[i * apart] = factor * (above if d > <float>0.0 else (-levels[i] if d < <float>0.0 else d))
    return loss


cdef inline double pinball_row(
    const float* z, Py_ssize_t columns, const float* levels, int n_levels, const float* y, float factor, float* dz
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double loss = 0.0
    for j in range(columns):
        loss += pinball_element(z + j, columns, levels, n_levels, y[j], factor, dz + j if dz != NULL else NULL)
    return loss


cdef inline void sort_element(float* z, Py_ssize_t apart, int n) noexcept nogil:
    """The outputs of a target in ascending order. NaN stays where it is, and what is before it stays before it."""
    cdef int i, place
    cdef float one
    for i in range(1, n):
        one = z[i * apart]
        place = i
        while place > 0 and z[(place - 1) * apart] > one:
            z[place * apart] = z[(place - 1) * apart]
            place -= 1
        z[place * apart] = one


cdef inline void sort_row(float* z, Py_ssize_t columns, int n_levels) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(columns):
        sort_element(z + j, columns, n_levels)

"""Softmax and its cross-entropy, a row at a time, or BLOCK rows side by side with the same operations on each.

Beside the loss comes d (mean loss) / d z: e^z stays in the place of the gradient until the sum of the row is known.
"""

from libc.stdint cimport int32_t

from cydrop._core.elementary cimport exp32, fma32, log32

cdef extern from "fma.h" nogil:
    ctypedef float* own_floats

cdef enum:
    PIECE = 64                  # elements of a row that are exponentiated at a time
    BLOCK = 16                  # rows side by side, where they have no more than PIECE units


cdef inline float largest(const float* z, Py_ssize_t units, Py_ssize_t* place) noexcept nogil:
    cdef float top = z[0]
    cdef Py_ssize_t j
    place[0] = 0
    for j in range(1, units):
        if z[j] > top:
            top = z[j]
            place[0] = j
    return top


cdef inline float exponentials(const float* z, float top, Py_ssize_t units, float* e) noexcept nogil:
    """e_j = e^(z_j - top), and their sum in the order of j. e may be z."""
    cdef float total = 0.0
    cdef Py_ssize_t j
    for j in range(units):
        e[j] = exp32(z[j] - top)
    for j in range(units):
        total += e[j]
    return total


cdef inline float sum_of_exponentials(const float* z, float top, Py_ssize_t units) noexcept nogil:
    """The same without a place for the terms."""
    cdef float[PIECE] e
    cdef float total = 0.0
    cdef Py_ssize_t start = 0, j, some
    while start < units:
        some = min(<Py_ssize_t>PIECE, units - start)
        for j in range(some):
            e[j] = exp32(z[start + j] - top)
        for j in range(some):
            total += e[j]
        start += PIECE
    return total


cdef inline double cross_entropy_row(
    const float* z, Py_ssize_t units, int32_t label, float smoothing, float factor, own_floats dz, int32_t* correct
) noexcept nogil:
    cdef Py_ssize_t place, j
    cdef float top = largest(z, units, &place)
    cdef float total = exponentials(z, top, units, dz) if dz != NULL else sum_of_exponentials(z, top, units)
    cdef float uniform = smoothing / <float>units
    cdef float scale = <float>1.0 / total
    cdef double loss = <double>top + <double>log32(total)
    cdef double mean = 0.0
    cdef float own
    correct[0] = place == label
    if smoothing != <float>0.0:
        for j in range(units):
            mean += z[j]
        mean = mean * <double>uniform
    loss = loss - (1.0 - <double>smoothing) * <double>z[label] - mean
    if dz != NULL:
        own = fma32(dz[label], scale, -uniform) - (<float>1.0 - smoothing)
        for j in range(units):
            dz[j] = factor * fma32(dz[j], scale, -uniform)
        dz[label] = factor * own
    return loss


cdef inline void into_lanes(const float* z, Py_ssize_t z_row, Py_ssize_t units, float* t) noexcept nogil:
    """BLOCK rows of z become the lanes of t: t[j, r] = z[r, j]"""
    cdef Py_ssize_t j, r
    for r in range(BLOCK):
        for j in range(units):
            t[j * BLOCK + r] = z[r * z_row + j]


cdef inline void out_of_lanes(const float* t, Py_ssize_t units, float* z, Py_ssize_t z_row) noexcept nogil:
    """z[r, j] = t[j, r]"""
    cdef Py_ssize_t j, r
    for r in range(BLOCK):
        for j in range(units):
            z[r * z_row + j] = t[j * BLOCK + r]


cdef inline void exponentials_in_lanes(
    own_floats t, const float* top, Py_ssize_t units, own_floats total
) noexcept nogil:
    """`exponentials` for each lane: t[j, r] = e^(t[j, r] - top[r]), and their sums in the order of j."""
    cdef Py_ssize_t j, r
    for r in range(BLOCK):
        total[r] = 0.0
    for j in range(units):
        for r in range(BLOCK):
            t[j * BLOCK + r] = exp32(t[j * BLOCK + r] - top[r])
        for r in range(BLOCK):
            total[r] = total[r] + t[j * BLOCK + r]


cdef inline void cross_entropy_block(
    const float* z, Py_ssize_t z_row, Py_ssize_t units, const int32_t* labels, float smoothing,
    const float* weights, double share, float* dz, Py_ssize_t dz_row, double* row_loss, int32_t* correct
) noexcept nogil:
    """cross_entropy_row for BLOCK rows side by side, a lane each: the same operations on every element, in the same
    order, as vectors.

            z, dz       BLOCK rows of `units`          t        `units` rows of BLOCK
            +----------+                               +---+
            | a b c .. |      transposed into          | a |  one vector: element 0 of all rows
            |          |                               | b |
            +----------+                               +---+
    """
    cdef float[PIECE * BLOCK] t
    cdef float[BLOCK] top, total, scale, factor, logarithm, own
    cdef double[BLOCK] mean
    cdef int32_t[BLOCK] place
    cdef float uniform = smoothing / <float>units
    cdef Py_ssize_t j, r
    into_lanes(z, z_row, units, t)
    for r in range(BLOCK):
        top[r] = t[r]
        place[r] = 0
        mean[r] = 0.0
        factor[r] = <float>(<double>(weights[r] if weights != NULL else <float>1.0) * share)
    for j in range(1, units):
        for r in range(BLOCK):
            place[r] = <int32_t>j if t[j * BLOCK + r] > top[r] else place[r]
            top[r] = t[j * BLOCK + r] if t[j * BLOCK + r] > top[r] else top[r]
    if smoothing != <float>0.0:
        for j in range(units):
            for r in range(BLOCK):
                mean[r] += t[j * BLOCK + r]
        for r in range(BLOCK):
            mean[r] = mean[r] * <double>uniform
    exponentials_in_lanes(t, top, units, total)
    for r in range(BLOCK):
        scale[r] = <float>1.0 / total[r]
        logarithm[r] = log32(total[r])
    for r in range(BLOCK):
        correct[r] = place[r] == labels[r]
        row_loss[r] = <double>(weights[r] if weights != NULL else <float>1.0) * (
            <double>top[r] + <double>logarithm[r]
            - (1.0 - <double>smoothing) * <double>z[r * z_row + labels[r]] - mean[r])
        own[r] = factor[r] * (fma32(t[labels[r] * BLOCK + r], scale[r], -uniform) - (<float>1.0 - smoothing))
    if dz == NULL:
        return
    for j in range(units):
        for r in range(BLOCK):
            t[j * BLOCK + r] = factor[r] * fma32(t[j * BLOCK + r], scale[r], -uniform)
    out_of_lanes(t, units, dz, dz_row)
    for r in range(BLOCK):
        dz[r * dz_row + labels[r]] = own[r]


cdef inline double share_of_class(float q, float smoothing, float uniform, double log_total, float z) noexcept nogil:
    """-q' log p of one class; 0 where q' is 0, p too may be 0 there, and NaN of z comes with log_total."""
    cdef double target = (1.0 - <double>smoothing) * <double>q + <double>uniform
    return target * (log_total - <double>z) if target > 0.0 or log_total != log_total else 0.0


cdef inline double probabilities_row(
    const float* z, Py_ssize_t units, const float* q, float smoothing, float factor, own_floats dz, int32_t* correct
) noexcept nogil:
    """cross_entropy_row for class probabilities q, which sum to 1; of a one-hot q the gradient has the label's bits."""
    cdef Py_ssize_t place, likeliest, j
    cdef float top = largest(z, units, &place)
    cdef float total = exponentials(z, top, units, dz) if dz != NULL else sum_of_exponentials(z, top, units)
    cdef float uniform = smoothing / <float>units
    cdef float scale = <float>1.0 / total
    cdef double log_total = <double>top + <double>log32(total)
    cdef double loss = 0.0
    largest(q, units, &likeliest)
    correct[0] = place == likeliest
    for j in range(units):
        loss += share_of_class(q[j], smoothing, uniform, log_total, z[j])
    if dz != NULL:
        for j in range(units):
            dz[j] = factor * (fma32(dz[j], scale, -uniform) - (<float>1.0 - smoothing) * q[j])
    return loss


cdef inline void softmax_row(float* z, Py_ssize_t units) noexcept nogil:
    cdef Py_ssize_t place, j
    cdef float top = largest(z, units, &place)
    cdef float scale = <float>1.0 / exponentials(z, top, units, z)
    for j in range(units):
        z[j] = z[j] * scale


cdef inline void softmax_block(float* z, Py_ssize_t z_row, Py_ssize_t units) noexcept nogil:
    """softmax_row for BLOCK rows side by side, as cross_entropy_block does it."""
    cdef float[PIECE * BLOCK] t
    cdef float[BLOCK] top, total
    cdef Py_ssize_t j, r
    into_lanes(z, z_row, units, t)
    for r in range(BLOCK):
        top[r] = t[r]
    for j in range(1, units):
        for r in range(BLOCK):
            top[r] = t[j * BLOCK + r] if t[j * BLOCK + r] > top[r] else top[r]
    exponentials_in_lanes(t, top, units, total)
    for r in range(BLOCK):
        total[r] = <float>1.0 / total[r]
    for j in range(units):
        for r in range(BLOCK):
            t[j * BLOCK + r] = t[j * BLOCK + r] * total[r]
    out_of_lanes(t, units, z, z_row)

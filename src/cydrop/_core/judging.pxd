"""How good predictions are: sums over rows in their order, of all outputs or piece by piece.

A verdict is one number, where weights of rows count: the share of rows whose class is wrong, or the root of the mean
squared error of predictions that are clamped to a range.
"""

from libc.math cimport rint, sqrt
from libc.stdint cimport int32_t

from cydrop._core.cross_entropy cimport largest

cdef struct Errors:             # of predicted numbers, sums over the targets that count
    double targets              # how many these are
    double squares
    double magnitudes


cdef enum:                      # what a verdict on rows is
    SHARE_WRONG = 0             # whose most probable class is not the label
    ROOT_MEAN_SQUARE = 1        # of the errors of predictions that are clamped to a range

cdef struct Verdict:            # sums over rows
    double weight
    double total                # weight times what is wrong


cdef inline void add_errors(
    const float* z, Py_ssize_t z_row, Py_ssize_t rows, const float* targets, Py_ssize_t columns, const float* weights,
    Errors* sums
) noexcept nogil:
    """Adds the errors of rows, in order; `weights`: one a target, of which those above 0 count, or NULL: all do."""
    cdef Py_ssize_t r, j
    cdef double d
    for r in range(rows):
        for j in range(columns):
            if weights != NULL and not weights[r * columns + j] > 0:
                continue
            d = <double>z[r * z_row + j] - <double>targets[r * columns + j]
            sums.targets += 1.0
            sums.squares += d * d
            sums.magnitudes += d if d >= 0 else -d


cdef inline void add_verdict(
    int kind, const float* z, Py_ssize_t z_row, Py_ssize_t rows, Py_ssize_t units, const int32_t* labels,
    const float* targets, const float* weights, const float* low, const float* high, Verdict* sums
) noexcept nogil:
    """Adds rows, in order; `weights`: one a row, or NULL; predictions are clamped to low..high, or NULL: they are not.
    """
    cdef Py_ssize_t r, j, place
    cdef double d, wrong, weight = 1.0
    for r in range(rows):
        if weights != NULL:
            weight = <double>weights[r]
        wrong = 0.0
        if kind == SHARE_WRONG:
            largest(z + r * z_row, units, &place)
            wrong = 1.0 if place != labels[r] else 0.0
        else:
            for j in range(units):
                d = <double>z[r * z_row + j]
                if low != NULL:
                    d = min(max(d, <double>low[j]), <double>high[j])
                d -= <double>targets[r * units + j]
                wrong += d * d
            wrong /= <double>units
        sums.weight += weight
        sums.total += weight * wrong


cdef inline double verdict_of(int kind, const Verdict* sums) noexcept nogil:
    """A share to six digits: a row that weighs next to nothing does not choose between epochs."""
    if kind == SHARE_WRONG:
        return rint(sums.total / sums.weight * 1e6) / 1e6
    return sqrt(sums.total / sums.weight)

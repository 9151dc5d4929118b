"""Losses with their gradients in one pass over the rows of raw outputs."""

from libc.stdint cimport int32_t

cdef extern from "fma.h" nogil:
    float fabsf(float x)

cdef struct Loss:
    int kind
    float option                # the one number that some kinds take, such as label smoothing
    float pair                  # R-Drop: weight of the divergence between a row's two passes, 0: one pass
    const float* levels         # of the pinball loss: its quantiles, NULL: none
    int n_levels
    int central                 # place of the quantile nearest to 1/2

cdef struct LossSum:
    double loss                 # the sum over rows of weight * the row's mean loss
    Py_ssize_t correct          # rows (binary: elements) whose most probable class is the label

cdef inline Loss loss_of(int kind, float option, float pair, const float[::1] levels) noexcept:
    """`levels` must live as long as the loss."""
    cdef Loss loss
    cdef int i
    loss.kind, loss.option, loss.pair = kind, option, pair
    loss.levels, loss.n_levels, loss.central = &levels[0] if levels.shape[0] else NULL, <int>levels.shape[0], 0
    for i in range(1, loss.n_levels):
        if fabsf(levels[i] - <float>0.5) < fabsf(levels[loss.central] - <float>0.5):
            loss.central = i
    return loss


# `batch_rows`: rows of the batch of which these may be a part, over which the mean is taken
cdef LossSum loss_pass(
    Loss loss, const float* z, Py_ssize_t z_row, Py_ssize_t rows, Py_ssize_t units,
    const int32_t* labels, const float* targets, const float* weights, bint each, Py_ssize_t batch_rows,
    float* dz, Py_ssize_t dz_row, double* row_loss, int32_t* row_correct, int n_threads) noexcept nogil
cdef LossSum pair_pass(
    Loss loss, const float* z, Py_ssize_t z_row, Py_ssize_t rows, Py_ssize_t units, const int32_t* labels,
    const float* targets, const float* weights, Py_ssize_t batch_rows, float* dz, Py_ssize_t dz_row, double* row_loss,
    int32_t* row_correct, int n_threads) noexcept nogil
cdef LossSum sum_of_rows(const double* row_loss, const int32_t* row_correct, Py_ssize_t rows) noexcept nogil
cdef void link_rows(Loss loss, float* z, Py_ssize_t z_row, Py_ssize_t rows, Py_ssize_t units) noexcept nogil
# what members predict together: z has `z_member` floats from one to the next, its rows are `units` apart; it is lost
cdef void mix_rows(
    Loss loss, float* z, Py_ssize_t z_member, int members, Py_ssize_t rows, Py_ssize_t units, float* out) noexcept nogil

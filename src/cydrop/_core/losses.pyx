"""The losses: for every row its loss and, in the same pass, d (mean loss) / d z.

    cross-entropy     log sum_j e^z_j - sum_j q_j z_j,  q = (1 - s) onehot(y) + s / k      mean over rows
    of probabilities  - sum_j q_j log p_j,  q = (1 - s) y + s / k,  p = softmax(z)         mean over rows
    binary            max(z, 0) - z y + log(1 + e^-|z|)                                    mean over elements
    mse               (z - y)^2                                                            mean over elements
    mae               |z - y|                                                              mean over elements
    huber             d^2 / 2 within delta, delta (|d| - delta / 2) beyond                 mean over elements
    gaussian nll      (s + (y - m)^2 e^-s + log 2 pi) / 2,  z = (m, s), s = log variance   mean over elements
    pinball           max(q (y - z), (q - 1) (y - z)) of each quantile q                   mean over elements and q
    R-Drop            (CE(z1) + CE(z2)) / 2 + pair (KL(p1 | p2) + KL(p2 | p1)) / 2         mean over rows

A row's weight multiplies its loss; the mean stays over all rows. Where every target has a weight of its own, that
multiplies the element's loss, the mean stays over all elements, and targets of weight 0 play no part.
"""

from cython.parallel cimport prange
from libc.math cimport NAN
from libc.stdint cimport int32_t, uint64_t

from cydrop._core.cross_entropy cimport (
    BLOCK, PIECE, cross_entropy_block, cross_entropy_row, probabilities_row, softmax_block, softmax_row,
)
from cydrop._core.elementary cimport exp32, fma32, log1p_exp_negative, sigmoid32
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.judging cimport Errors, Verdict, add_errors, add_verdict, verdict_of
from cydrop._core.mixture cimport (
    mean_of_gaussians, mean_of_members, mean_of_quantiles, mean_of_sigmoid, mean_of_softmax,
)
from cydrop._core.quantiles cimport pinball_element, pinball_row, sort_row
from cydrop._core.r_drop cimport pair_row
from cydrop._core.serial cimport SERIAL_PASS
from cydrop._core.tally cimport SPAN, entropy_rows, tally_span

cdef enum:
    CROSS_ENTROPY = 0
    BINARY_CROSS_ENTROPY = 1
    MSE = 2
    MAE = 3
    HUBER = 4
    GAUSSIAN_NLL = 5
    PINBALL = 6

KINDS = {
    "cross_entropy": CROSS_ENTROPY, "binary_cross_entropy": BINARY_CROSS_ENTROPY, "mse": MSE, "mae": MAE,
    "huber": HUBER, "gaussian_nll": GAUSSIAN_NLL, "pinball": PINBALL,
}

VERDICTS = ("share_wrong", "root_mean_square")      # by their numbers in judging.pxd

cdef float LARGEST = 3.4028234663852886e38


cdef inline Py_ssize_t columns_of(const Loss* loss, Py_ssize_t units) noexcept nogil:
    """Targets of a row, of which some losses have several outputs each."""
    if loss.kind == GAUSSIAN_NLL:
        return units // 2
    return units // loss.n_levels if loss.kind == PINBALL else units


cdef inline double binary_row(
    const float* z, Py_ssize_t units, const float* y, float factor, float* dz, int32_t* correct
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double loss = 0.0
    correct[0] = 0
    for j in range(units):
        loss += (z[j] if z[j] > <float>0.0 else <float>0.0) - z[j] * y[j] + log1p_exp_negative(-fabsf(z[j]))
        correct[0] += (z[j] > <float>0.0) == (y[j] > <float>0.5)
        if dz != NULL:
            dz[j] = factor * (sigmoid32(z[j]) - y[j])
    return loss


cdef inline double squared_row(
    const float* z, Py_ssize_t units, const float* y, float factor, float* dz
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double loss = 0.0
    cdef float d
    for j in range(units):
        d = z[j] - y[j]
        loss += <double>d * <double>d
        if dz != NULL:
            dz[j] = factor * (<float>2.0 * d)
    return loss


cdef inline double absolute_row(
    const float* z, Py_ssize_t units, const float* y, float factor, float* dz
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double loss = 0.0
    cdef float d
    for j in range(units):
        d = z[j] - y[j]
        loss += fabsf(d)
        if dz != NULL:
            # 0 at 0, and NaN for NaN
            dz[j] = factor if d > <float>0.0 else (-factor if d < <float>0.0 else factor * d)
    return loss


cdef inline double huber_row(
    const float* z, Py_ssize_t units, const float* y, float delta, float factor, float* dz
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double loss = 0.0
    cdef float d, a
    for j in range(units):
        d = z[j] - y[j]
        a = fabsf(d)
        if a > delta:
            loss += <double>delta * (<double>a - 0.5 * <double>delta)
        else:
            loss += 0.5 * <double>d * <double>d
        if dz != NULL:
            dz[j] = factor * (delta if d > delta else (-delta if d < -delta else d))
    return loss


cdef inline double gaussian_element(
    float d, float s, float factor, float* dz_mean, float* dz_log_variance
) noexcept nogil:
    """One target, d = mean - y."""
    cdef float precision = exp32(-s)
    cdef float root, scaled
    cdef double loss
    if precision > LARGEST or d * d > LARGEST:      # beyond float32: by the square roots of both
        root = exp32(<float>-0.5 * s)
        root = LARGEST if root > LARGEST else root
        scaled = d * root
        loss = 0.5 * (<double>s + <double>scaled * <double>scaled + 1.8378770664093453)
        if dz_mean != NULL:
            dz_mean[0] = factor * (scaled * root)
            dz_log_variance[0] = factor * (<float>0.5 * fma32(-scaled, scaled, <float>1.0))
        return loss
    loss = 0.5 * (<double>s + <double>d * <double>d * <double>precision + 1.8378770664093453)
    if dz_mean != NULL:
        dz_mean[0] = factor * (d * precision)
        dz_log_variance[0] = factor * (<float>0.5 * fma32(-d * d, precision, <float>1.0))
    return loss


cdef inline double gaussian_row(
    const float* z, Py_ssize_t units, const float* y, float factor, float* dz
) noexcept nogil:
    cdef Py_ssize_t j, half = units // 2
    cdef double loss = 0.0
    for j in range(half):
        loss += gaussian_element(z[j] - y[j], z[half + j], factor, dz + j if dz != NULL else NULL,
                                 dz + half + j if dz != NULL else NULL)
    return loss


cdef double weighted_row(
    Loss loss, const float* z, Py_ssize_t units, const float* y, Py_ssize_t columns, const float* weights,
    double share, float* dz, int32_t* correct
) noexcept nogil:
    """A row whose targets have weights of their own: the sum over its targets of weight times loss.

    What weighs 0 is left out, whatever the target is; NaN and infinity of z are shown all the same.
    """
    cdef Py_ssize_t j, i
    cdef double total = 0.0, value = NAN
    cdef float factor
    cdef float* dz_j = NULL
    cdef int32_t right
    correct[0] = 0
    for j in range(columns):
        if dz != NULL:
            dz_j = dz + j
        if weights[j] == <float>0.0:
            i = 0
            while i < units:
                total += <double>(z[i + j] - z[i + j])
                if dz_j != NULL:
                    dz_j[i] = z[i + j] - z[i + j]
                i += columns
            continue
        factor = <float>(<double>weights[j] * share)
        if loss.kind == BINARY_CROSS_ENTROPY:
            value = binary_row(z + j, 1, y + j, factor, dz_j, &right)
            correct[0] += right
        elif loss.kind == MSE:
            value = squared_row(z + j, 1, y + j, factor, dz_j)
        elif loss.kind == MAE:
            value = absolute_row(z + j, 1, y + j, factor, dz_j)
        elif loss.kind == HUBER:
            value = huber_row(z + j, 1, y + j, loss.option, factor, dz_j)
        elif loss.kind == GAUSSIAN_NLL:
            value = gaussian_element(z[j] - y[j], z[columns + j], factor, dz_j,
                                     dz_j + columns if dz_j != NULL else NULL)
        elif loss.kind == PINBALL:
            value = pinball_element(z + j, columns, loss.levels, loss.n_levels, y[j], factor,
                                    dz_j) / <double>loss.n_levels
        total += <double>weights[j] * value
    return total


cdef inline void loss_row(
    Loss loss, const float* z, Py_ssize_t units, const int32_t* label, const float* y, float weight, double share,
    float* dz, double* total, int32_t* correct
) noexcept nogil:
    """One row; `share` is 1 / the number of things that the mean is taken over. No label: y are probabilities."""
    cdef float factor = <float>(<double>weight * share)
    cdef double value = NAN
    correct[0] = 0
    if loss.kind == CROSS_ENTROPY:
        if label != NULL:
            value = cross_entropy_row(z, units, label[0], loss.option, factor, dz, correct)
        else:
            value = probabilities_row(z, units, y, loss.option, factor, dz, correct)
    elif loss.kind == BINARY_CROSS_ENTROPY:
        value = binary_row(z, units, y, factor, dz, correct) / <double>units
    elif loss.kind == MSE:
        value = squared_row(z, units, y, factor, dz) / <double>units
    elif loss.kind == MAE:
        value = absolute_row(z, units, y, factor, dz) / <double>units
    elif loss.kind == HUBER:
        value = huber_row(z, units, y, loss.option, factor, dz) / <double>units
    elif loss.kind == GAUSSIAN_NLL:
        value = gaussian_row(z, units, y, factor, dz) / <double>(units // 2)
    elif loss.kind == PINBALL:
        value = pinball_row(z, columns_of(&loss, units), loss.levels, loss.n_levels, y, factor, dz) / <double>units
    total[0] = <double>weight * value


cdef void loss_rows(
    Loss loss, const float* z, Py_ssize_t z_row, Py_ssize_t rows, Py_ssize_t units,
    const int32_t* labels, const float* targets, Py_ssize_t columns, const float* weights, bint each, double share,
    float* dz, Py_ssize_t dz_row, double* row_loss, int32_t* row_correct
) noexcept nogil:
    """`each`: every target has a weight, not every row."""
    cdef Py_ssize_t r = 0
    if each:
        for r in range(rows):
            row_loss[r] = weighted_row(loss, z + r * z_row, units, targets + r * columns, columns,
                                       weights + r * columns, share, dz + r * dz_row if dz != NULL else NULL,
                                       row_correct + r) / <double>columns
        return
    if loss.kind == CROSS_ENTROPY and units <= PIECE and labels != NULL:
        while r + BLOCK <= rows:
            cross_entropy_block(z + r * z_row, z_row, units, labels + r, loss.option,
                                weights + r if weights != NULL else NULL, share,
                                dz + r * dz_row if dz != NULL else NULL, dz_row, row_loss + r, row_correct + r)
            r += BLOCK
    while r < rows:
        loss_row(loss, z + r * z_row, units, labels + r if labels != NULL else NULL,
                 targets + r * columns if targets != NULL else NULL,
                 weights[r] if weights != NULL else <float>1.0, share,
                 dz + r * dz_row if dz != NULL else NULL, row_loss + r, row_correct + r)
        r += 1


cdef LossSum sum_of_rows(const double* row_loss, const int32_t* row_correct, Py_ssize_t rows) noexcept nogil:
    """In order, whichever thread computed them."""
    cdef LossSum total
    cdef Py_ssize_t r
    total.loss = 0.0
    total.correct = 0
    for r in range(rows):
        total.loss += row_loss[r]
        total.correct += row_correct[r]
    return total


cdef LossSum loss_pass(
    Loss loss, const float* z, Py_ssize_t z_row, Py_ssize_t rows, Py_ssize_t units,
    const int32_t* labels, const float* targets, const float* weights, bint each, Py_ssize_t batch_rows,
    float* dz, Py_ssize_t dz_row, double* row_loss, int32_t* row_correct, int n_threads
) noexcept nogil:
    cdef Py_ssize_t per_row, r, columns = columns_of(&loss, units)
    cdef double share = 1.0 / <double>batch_rows
    per_row = columns if each else 1
    if loss.kind != CROSS_ENTROPY:
        share = share / <double>(units if loss.kind == PINBALL else columns)
    if n_threads == 1 or rows * units <= SERIAL_PASS:
        loss_rows(loss, z, z_row, rows, units, labels, targets, columns, weights, each, share, dz, dz_row, row_loss,
                  row_correct)
    else:
        for r in prange(0, rows, BLOCK, num_threads=n_threads, schedule="static"):
            loss_rows(loss, z + r * z_row, z_row, min(<Py_ssize_t>BLOCK, rows - r), units,
                      labels + r if labels != NULL else NULL, targets + r * columns if targets != NULL else NULL,
                      columns, weights + r * per_row if weights != NULL else NULL, each, share,
                      dz + r * dz_row if dz != NULL else NULL, dz_row, row_loss + r, row_correct + r)
    return sum_of_rows(row_loss, row_correct, rows)


cdef LossSum pair_pass(
    Loss loss, const float* z, Py_ssize_t z_row, Py_ssize_t rows, Py_ssize_t units, const int32_t* labels,
    const float* targets, const float* weights, Py_ssize_t batch_rows, float* dz, Py_ssize_t dz_row, double* row_loss,
    int32_t* row_correct, int n_threads
) noexcept nogil:
    """R-Drop (Liang et al. 2021): row r of the batch lies in rows r and rows + r of z, passed with two masks."""
    cdef double share = 1.0 / <double>batch_rows
    cdef Py_ssize_t r
    for r in prange(rows, num_threads=n_threads if rows * units > SERIAL_PASS else 1, schedule="static"):
        pair_row(loss.option, loss.pair, z + r * z_row, z + (rows + r) * z_row, units,
                 labels[r] if labels != NULL else 0, targets + r * units if labels == NULL else NULL,
                 weights[r] if weights != NULL else <float>1.0, share, dz + r * dz_row, dz + (rows + r) * dz_row,
                 row_loss + r, row_correct + r)
    return sum_of_rows(row_loss, row_correct, rows)


def loss(
    int kind, float option,
    const float[::1] levels,        # IN, the quantiles of the pinball loss, or empty
    const float[:, ::1] z,          # IN, raw outputs
    const int32_t[::1] labels,      # IN, empty unless cross-entropy
    const float[:, ::1] targets,    # IN, empty where there are labels; for cross-entropy class probabilities
    const float[::1] weights,       # IN, one per row, or per target row by row, or empty
    float[:, ::1] dz,               # OUT, or empty
    double[::1] row_loss,           # OUT
    int32_t[::1] row_correct,       # OUT
    int n_threads,
):
    """(mean loss over the rows, number of correct rows or elements)"""
    cdef Loss which = loss_of(kind, option, 0.0, levels)
    cdef LossSum total
    cdef Py_ssize_t rows = z.shape[0]
    cdef bint each = weights.shape[0] > rows
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads if rows * z.shape[1] > SERIAL_PASS else 1)
        total = loss_pass(
            which, &z[0, 0], z.shape[1], rows, z.shape[1],
            &labels[0] if labels.shape[0] else NULL, &targets[0, 0] if targets.shape[0] else NULL,
            &weights[0] if weights.shape[0] else NULL, each, rows,
            &dz[0, 0] if dz.shape[0] else NULL, z.shape[1], &row_loss[0], &row_correct[0], n_threads)
        restore_floats(control)
    return total.loss / <double>rows, total.correct


def pair_loss(
    float option, float pair,
    const float[:, ::1] z,          # IN, raw outputs of one pass, then of the other
    const int32_t[::1] labels,      # IN, of half the rows, or empty
    const float[:, ::1] targets,    # IN, class probabilities of half the rows, or empty
    const float[::1] weights,       # IN, or empty
    float[:, ::1] dz,               # OUT
    double[::1] row_loss,           # OUT
    int32_t[::1] row_correct,       # OUT
    int n_threads,
):
    """R-Drop's mean loss over the rows"""
    cdef Loss which = loss_of(CROSS_ENTROPY, option, pair, weights[:0])
    cdef LossSum total
    cdef Py_ssize_t rows = z.shape[0] // 2
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads if rows * z.shape[1] > SERIAL_PASS else 1)
        total = pair_pass(which, &z[0, 0], z.shape[1], rows, z.shape[1],
                          &labels[0] if labels.shape[0] else NULL, &targets[0, 0] if targets.shape[0] else NULL,
                          &weights[0] if weights.shape[0] else NULL, rows, &dz[0, 0], z.shape[1],
                          &row_loss[0], &row_correct[0], n_threads)
        restore_floats(control)
    return total.loss / <double>rows


def errors(
    const float[::1] levels,        # IN, the quantiles that the outputs are, or empty
    const float[:, ::1] z,          # IN, outputs, of which the first columns, or the central ones, are the predictions
    const float[:, ::1] targets,    # IN
    const float[::1] weights,       # IN, one a target, row by row, or empty
    double[::1] sums,               # INOUT, targets, sum of squared errors, sum of their magnitudes
):
    """Adds the errors of some rows, in order, to those of the rows before."""
    cdef Errors found
    cdef Loss which = loss_of(MSE, 0.0, 0.0, levels)
    cdef uint64_t control
    found.targets, found.squares, found.magnitudes = sums[0], sums[1], sums[2]
    with nogil:
        control = exact_floats(1)
        add_errors(&z[0, which.central * targets.shape[1]], z.shape[1], z.shape[0], &targets[0, 0], targets.shape[1],
                   &weights[0] if weights.shape[0] else NULL, &found)
        restore_floats(control)
    sums[0], sums[1], sums[2] = found.targets, found.squares, found.magnitudes


def verdict(
    int kind,                       # place in VERDICTS
    const float[:, ::1] z,          # IN, raw outputs
    const int32_t[::1] labels,      # IN, or empty
    const float[:, ::1] targets,    # IN, or empty
    const float[::1] weights,       # IN, one a row, or empty
    const float[::1] low,           # IN, one a column of z, or empty
    const float[::1] high,          # IN
):
    """What is wrong with predictions, in one number."""
    cdef Verdict sums
    cdef uint64_t control
    sums.weight = sums.total = 0.0
    with nogil:
        control = exact_floats(1)
        add_verdict(kind, &z[0, 0], z.shape[1], z.shape[0], z.shape[1], &labels[0] if labels.shape[0] else NULL,
                    &targets[0, 0] if targets.shape[0] else NULL, &weights[0] if weights.shape[0] else NULL,
                    &low[0] if low.shape[0] else NULL, &high[0] if low.shape[0] else NULL, &sums)
        restore_floats(control)
    return verdict_of(kind, &sums)


cdef inline void link_row(const Loss* loss, float* z, Py_ssize_t units) noexcept nogil:
    cdef Py_ssize_t j
    cdef float variance
    if loss.kind == CROSS_ENTROPY:
        softmax_row(z, units)
    elif loss.kind == PINBALL:
        sort_row(z, columns_of(loss, units), loss.n_levels)
    elif loss.kind == BINARY_CROSS_ENTROPY:
        for j in range(units):
            z[j] = sigmoid32(z[j])
    elif loss.kind == GAUSSIAN_NLL:
        for j in range(units // 2, units):
            variance = exp32(z[j])
            z[j] = LARGEST if variance > LARGEST else variance      # infinite ones have no mean, spread or quantile


cdef void link_rows(Loss loss, float* z, Py_ssize_t z_row, Py_ssize_t rows, Py_ssize_t units) noexcept nogil:
    """Raw outputs into probabilities (softmax, sigmoid), (mean, variance) or ascending quantiles, in place."""
    cdef Py_ssize_t r = 0
    if loss.kind == CROSS_ENTROPY and units <= PIECE:
        while r + BLOCK <= rows:
            softmax_block(z + r * z_row, z_row, units)
            r += BLOCK
    while r < rows:
        link_row(&loss, z + r * z_row, units)
        r += 1


cdef void mix_rows(
    Loss loss, float* z, Py_ssize_t z_member, int members, Py_ssize_t rows, Py_ssize_t units, float* out
) noexcept nogil:
    """What members predict together, as raw outputs; theirs are lost."""
    cdef Py_ssize_t r
    for r in range(rows):
        if loss.kind == CROSS_ENTROPY:
            mean_of_softmax(z + r * units, z_member, members, units, out + r * units)
        elif loss.kind == BINARY_CROSS_ENTROPY:
            mean_of_sigmoid(z + r * units, z_member, members, units, out + r * units)
        elif loss.kind == GAUSSIAN_NLL:
            mean_of_gaussians(z + r * units, z_member, members, units, out + r * units)
        elif loss.kind == PINBALL:
            mean_of_quantiles(z + r * units, z_member, members, units, loss.n_levels, out + r * units)
        else:
            mean_of_members(z + r * units, z_member, members, units, out + r * units)


def link(int kind, const float[::1] levels, float[:, ::1] z, int n_threads):
    """Raw outputs into what predict returns, in place."""
    cdef Loss which = loss_of(kind, 0.0, 0.0, levels)
    cdef Py_ssize_t r, rows = z.shape[0], units = z.shape[1]
    cdef int threads = n_threads if rows * units > SERIAL_PASS else 1
    cdef uint64_t control
    with nogil:
        control = exact_floats(threads)
        for r in prange(0, rows, BLOCK, num_threads=threads, schedule="static"):
            link_rows(which, &z[r, 0], units, min(<Py_ssize_t>BLOCK, rows - r), units)
        restore_floats(control)


def tally(
    const float[:, :, ::1] samples,     # IN, (samples, rows, units)
    Py_ssize_t before,                  # samples that were tallied already
    double[:, ::1] mean,                # INOUT
    double[:, ::1] squares,             # INOUT, sum of squared differences from the mean
    double[:, ::1] entropies,           # INOUT, (rows, 1) or (rows, units), or empty: not wanted
    bint binary,
    int n_threads,
):
    """Takes some more samples into account."""
    cdef Py_ssize_t count = samples.shape[0], rows = samples.shape[1], units = samples.shape[2]
    cdef Py_ssize_t size = rows * units, i, wide = units if binary else 1
    cdef int threads = n_threads if count * size > SERIAL_PASS else 1
    if count == 0 or size == 0:
        return
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        for i in prange(0, size, SPAN, num_threads=threads, schedule="static"):
            tally_span(&samples[0, 0, 0] + i, size, count, before, &mean[0, 0] + i, &squares[0, 0] + i,
                       min(<Py_ssize_t>SPAN, size - i))
        if entropies.shape[0]:
            for i in prange(rows, num_threads=threads, schedule="static"):
                entropy_rows(&samples[0, i, 0], size, count, binary, &entropies[0, 0] + i * wide, 1, units)
        restore_floats(control)

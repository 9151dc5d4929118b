"""Running mean, spread and entropies of Monte Carlo samples (Welford 1962), each element's samples in order."""

from cython.parallel cimport prange
from libc.stdint cimport uint64_t

from cydrop._core.elementary cimport log32
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.serial cimport SERIAL_PASS

cdef enum:
    SPAN = 512                  # elements that a thread takes at a time


cdef inline float entropy_term(float p) noexcept nogil:
    """-p log p, 0 at 0 and for denormal p."""
    cdef float safe = p if p > <float>1.17549435e-38 else <float>1.0
    return -p * log32(safe)


cdef void tally_span(
    const float* sample, Py_ssize_t size, Py_ssize_t samples, Py_ssize_t before, double* mean, double* squares,
    Py_ssize_t n
) noexcept nogil:
    """n elements, of samples that lie `size` floats apart."""
    cdef Py_ssize_t s, j
    cdef double change, share
    for s in range(samples):
        share = 1.0 / <double>(before + s + 1)
        for j in range(n):
            change = <double>sample[s * size + j] - mean[j]
            mean[j] = mean[j] + change * share
            squares[j] = squares[j] + change * (<double>sample[s * size + j] - mean[j])


cdef void entropy_rows(
    const float* sample, Py_ssize_t size, Py_ssize_t samples, bint binary, double* entropies, Py_ssize_t rows,
    Py_ssize_t units
) noexcept nogil:
    """Adds each sample's entropy: of every row, or, binary, of every element."""
    cdef float[SPAN] terms
    cdef const float* p
    cdef Py_ssize_t s, r, j, start, some
    for s in range(samples):
        for r in range(rows):
            p = sample + s * size + r * units
            start = 0
            while start < units:
                some = min(<Py_ssize_t>SPAN, units - start)
                for j in range(some):
                    terms[j] = entropy_term(p[start + j])
                if binary:
                    for j in range(some):
                        entropies[r * units + start + j] += <double>(terms[j] + entropy_term(<float>1.0 - p[start + j]))
                else:
                    for j in range(some):
                        entropies[r] += <double>terms[j]
                start += SPAN


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

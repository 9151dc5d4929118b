"""Running mean, spread and entropies of Monte Carlo samples (Welford 1962), each element's samples in order."""

from cydrop._core.elementary cimport log32

cdef enum:
    SPAN = 512                  # elements that a thread takes at a time


cdef inline float entropy_term(float p) noexcept nogil:
    """-p log p, 0 at 0 and for denormal p."""
    cdef float safe = p if p > <float>1.17549435e-38 else <float>1.0
    return -p * log32(safe)


cdef inline void tally_span(
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


cdef inline void entropy_rows(
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

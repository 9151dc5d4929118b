"""The random number generator: xorshift128+ (Vigna 2017), sixteen of them side by side.

         lane     0    1    2   ...   15
    draw 0        w0   w1   w2  ...   w15         each draw advances all lanes in place (lanes.h);
    draw 1        w16  w17  w18 ...   w31         words are handed out row by row
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.math cimport sqrt

from cydrop._core.seed_sequence cimport MOST_NUMBERS, words_of_branch

cdef extern from "fma.h" nogil:
    int64_t bits_of64(double x)
    double double_of(int64_t bits)

# Steps a lane by 2^64 draws: the coefficients of x^(2^64) modulo the characteristic polynomial.
cdef uint64_t[2] JUMP = [<uint64_t>0x8A5CD789635D2DFF, <uint64_t>0x121FD2155C472F96]


@cython.final
cdef class Xorshift:
    """Sixteen lanes of xorshift128+; `words` are 32 uint64: s0 of every lane, then s1 of every lane."""

    def __cinit__(self, const uint64_t[::1] words):
        if words.shape[0] != 2 * LANES:
            raise ValueError(f"words must hold {2 * LANES} numbers, got {words.shape[0]}")
        seed_lanes(&self.generator, &words[0])

    def read_state(self, uint64_t[::1] words):
        """Writes s0 of every lane, then s1 of every lane; returns the position within the present draw."""
        cdef int word
        for word in range(2 * LANES):
            words[word] = get_word(&self.generator.lanes, word)
        return self.generator.position

    def write_state(self, const uint64_t[::1] words, int position):
        set_state(&self.generator, &words[0], position)

    def random_raw(self, uint64_t[::1] out):
        with nogil:
            fill_words(&self.generator, &out[0] if out.shape[0] else NULL, out.shape[0])

    def random(self, float[::1] out):
        """out = (word >> 40) * 2^-24"""
        cdef uint64_t[256] words
        cdef Py_ssize_t i, j, n = out.shape[0], some
        with nogil:
            for i in range(0, n, 256):
                some = min(<Py_ssize_t>256, n - i)
                fill_words(&self.generator, words, some)
                for j in range(some):
                    out[i + j] = <float><int32_t>(words[j] >> 40) * <float>5.9604644775390625e-8

    def bernoulli(self, uint64_t threshold, unsigned char[::1] out):
        """out = (word >> 32) < threshold"""
        cdef uint64_t[256] words
        cdef Py_ssize_t i, j, n = out.shape[0], some
        with nogil:
            for i in range(0, n, 256):
                some = min(<Py_ssize_t>256, n - i)
                fill_words(&self.generator, words, some)
                for j in range(some):
                    out[i + j] = (words[j] >> 32) < threshold

    def normal(self, float[::1] out):
        """out = quantile of the standard normal distribution at ((word >> 12) + 1/2) * 2^-52"""
        cdef Py_ssize_t i
        with nogil:
            for i in range(out.shape[0]):
                out[i] = <float>normal_quantile(
                    (<double>(next_word(&self.generator) >> 12) + 0.5) * 2.220446049250313e-16)

    def permutation(self, int64_t[::1] out):
        """The numbers 0..n-1 in random order."""
        with nogil:
            permute(&self.generator, &out[0] if out.shape[0] else NULL, out.shape[0])

    def jump(self):
        """Advances every lane by 2^64 draws."""
        cdef uint64_t[2 * LANES] total
        cdef uint64_t[LANES] ignored
        cdef int word, bit, i
        for i in range(2 * LANES):
            total[i] = 0
        for word in range(2):
            for bit in range(64):
                if (JUMP[word] >> bit) & 1:
                    for i in range(2 * LANES):
                        total[i] ^= get_word(&self.generator.lanes, i)
                draw(&self.generator.lanes, ignored)
        for i in range(2 * LANES):
            set_word(&self.generator.lanes, i, total[i])


def normal_quantiles(double[::1] p):
    """In place: the quantiles of the standard normal distribution at p, which are above 0 and below 1."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(p.shape[0]):
            p[i] = normal_quantile(p[i])


def mixed(uint64_t z):
    """SplitMix64's finaliser of a word."""
    return mix64(z)


# The normal quantile of Wichura (1988, algorithm AS 241, PPND16), relative error 1e-16. Only + - * / and
# sqrt on doubles, each rounded once, so that every machine draws the same numbers.

cdef double[8] CENTRE_TOP = [
    3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
    45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727]
cdef double[8] CENTRE_BOTTOM = [
    1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
    21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610]
cdef double[8] MIDDLE_TOP = [
    1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
    1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4]
cdef double[8] MIDDLE_BOTTOM = [
    1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
    0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9]
cdef double[8] TAIL_TOP = [
    6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230,
    0.0265321895265761230930, 0.00124266094738807843860, 2.71155556874348757815e-5, 2.01033439929228813265e-7]
cdef double[8] TAIL_BOTTOM = [
    1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15]


cdef inline double ratio(const double* top, const double* bottom, double x) noexcept nogil:
    cdef double above = top[7], below = bottom[7]
    cdef int i
    for i in range(6, -1, -1):
        above = above * x + top[i]
        below = below * x + bottom[i]
    return above / below


cdef inline double normal_quantile(double p) noexcept nogil:
    cdef double q = p - 0.5, r
    if q <= 0.425 and q >= -0.425:
        return q * ratio(CENTRE_TOP, CENTRE_BOTTOM, 0.180625 - q * q)
    r = sqrt(-exact_log(p if q < 0 else 1.0 - p))
    if r <= 5.0:
        r = ratio(MIDDLE_TOP, MIDDLE_BOTTOM, r - 1.6)
    else:
        r = ratio(TAIL_TOP, TAIL_BOTTOM, r - 5.0)
    return -r if q < 0 else r


cdef inline double exact_log(double x) noexcept nogil:
    """log x = e log 2 + 2 artanh((m - 1) / (m + 1)) for x = 2^e m, m in [1/sqrt 2, sqrt 2)."""
    cdef int64_t bits = bits_of64(x)
    cdef int64_t exponent = (bits >> 52) - 1023
    cdef double m = double_of((bits & <int64_t>0xFFFFFFFFFFFFF) | (<int64_t>1023 << 52))
    cdef double s, s2, total = 0.0
    cdef int k
    if m > 1.4142135623730951:
        m = m * 0.5
        exponent += 1
    s = (m - 1.0) / (m + 1.0)
    s2 = s * s
    for k in range(23, 0, -2):
        total = total * s2 + 1.0 / k
    return <double>exponent * 0.6931471805599453 + 2.0 * (s * total)


def branch_words(tuple root, tuple path, uint64_t[::1] out):
    """numpy.random.SeedSequence(root, spawn_key=path).generate_state(len(out), uint64)."""
    cdef uint64_t[MOST_NUMBERS] numbers
    cdef int n = <int>len(root), i
    if n + len(path) > MOST_NUMBERS:
        raise ValueError(f"{n + len(path)} numbers, at most {MOST_NUMBERS} have room")
    for i, number in enumerate(root + path):
        numbers[i] = number
    words_of_branch(numbers, n, numbers + n, <int>len(path), &out[0], <int>out.shape[0])

"""xorshift128+ in 16 lanes: the state, one step of it, and the streams that masks are drawn from."""

from libc.stdint cimport uint64_t


cdef enum:
    LANES = 16


cdef struct Lanes:
    uint64_t s0[LANES]
    uint64_t s1[LANES]


cdef struct StreamKey:
    uint64_t k0
    uint64_t k1


cdef inline uint64_t mix64(uint64_t z) noexcept nogil:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection that scatters every bit."""
    z = z + <uint64_t>0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline StreamKey stream_key(StreamKey seed, uint64_t layer, uint64_t step) noexcept nogil:
    """The key of the random stream of one layer in one step."""
    cdef StreamKey key
    key.k0 = mix64(mix64(seed.k0 + layer) + step)
    key.k1 = mix64(mix64(seed.k1 + layer) + step)
    return key


cdef inline void seed_block(Lanes* lanes, StreamKey key, uint64_t block) noexcept nogil:
    """The lanes at the start of block `block` of a stream; s1 is odd, so that no lane is all zero."""
    cdef int lane
    cdef uint64_t counter = block * LANES
    for lane in range(LANES):
        lanes.s0[lane] = mix64(key.k0 + <uint64_t>0x9E3779B97F4A7C15 * (counter + <uint64_t>lane))
        lanes.s1[lane] = mix64(key.k1 + <uint64_t>0x9E3779B97F4A7C15 * (counter + <uint64_t>lane)) | 1


cdef inline void draw(Lanes* lanes, uint64_t* out) noexcept nogil:
    """out[lane] = s0 + s1, then one step of every lane (Vigna 2017, shifts 23, 18, 5)."""
    cdef int lane
    cdef uint64_t x, y
    for lane in range(LANES):
        x = lanes.s0[lane]
        y = lanes.s1[lane]
        out[lane] = x + y
        x = x ^ (x << 23)
        lanes.s0[lane] = y
        lanes.s1[lane] = x ^ y ^ (x >> 18) ^ (y >> 5)


cdef class Xorshift:
    cdef Lanes lanes
    cdef int position           # words of the lanes' present output that were handed out
    cdef uint64_t next_word(self) noexcept nogil
    cdef void fill_words(self, uint64_t* out, Py_ssize_t n) noexcept nogil
    cdef uint64_t below(self, uint64_t bound) noexcept nogil

"""xorshift128+ in 16 lanes: the state, one step of it, and the streams that masks are drawn from."""

from libc.stdint cimport uint64_t


cdef extern from "lanes.h" nogil:
    enum:
        LANES                   # 16

    ctypedef struct Lanes:      # s0 and s1 of every lane, by value
        pass

    ctypedef struct StreamKey:
        uint64_t k0
        uint64_t k1

    void draw(Lanes* lanes, uint64_t* out)
    uint64_t mix64(uint64_t z)
    void seed_block(Lanes* lanes, StreamKey key, uint64_t block)
    uint64_t get_word(const Lanes* lanes, int word)
    void set_word(Lanes* lanes, int word, uint64_t w)


cdef inline StreamKey stream_key(StreamKey seed, uint64_t layer, uint64_t step) noexcept nogil:
    """The key of the random stream of one layer in one step."""
    cdef StreamKey key
    key.k0 = mix64(mix64(seed.k0 + layer) + step)
    key.k1 = mix64(mix64(seed.k1 + layer) + step)
    return key


cdef class Xorshift:
    cdef Lanes lanes
    cdef int position           # words of the lanes' present output that were handed out
    cdef uint64_t next_word(self) noexcept nogil
    cdef void fill_words(self, uint64_t* out, Py_ssize_t n) noexcept nogil
    cdef uint64_t below(self, uint64_t bound) noexcept nogil

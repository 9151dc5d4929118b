"""xorshift128+ in 16 lanes: the state, one step of it, and the streams that masks are drawn from."""

from libc.stdint cimport int64_t, uint64_t


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


cdef struct Generator:          # hands out the words of the lanes one by one
    Lanes lanes
    int position                # words of the lanes' present output that were handed out


cdef inline void set_state(Generator* g, const uint64_t* words, int position) noexcept nogil:
    """s0 of every lane, then s1 of every lane, and how many words of the present output were handed out."""
    cdef int word
    for word in range(2 * LANES):
        set_word(&g.lanes, word, words[word])
    g.position = position


cdef inline void seed_lanes(Generator* g, const uint64_t* words) noexcept nogil:
    cdef int lane
    set_state(g, words, 0)
    for lane in range(LANES):
        if words[lane] == 0 and words[LANES + lane] == 0:
            set_word(&g.lanes, LANES + lane, 1)     # all zero is the fixed point of xorshift


cdef inline uint64_t next_word(Generator* g) noexcept nogil:
    cdef uint64_t[LANES] ignored
    cdef uint64_t word
    word = get_word(&g.lanes, g.position) + get_word(&g.lanes, LANES + g.position)
    g.position += 1
    if g.position == LANES:
        g.position = 0
        draw(&g.lanes, ignored)
    return word


cdef inline void fill_words(Generator* g, uint64_t* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i < n and g.position != 0:
        out[i] = next_word(g)
        i += 1
    while n - i >= LANES:
        draw(&g.lanes, out + i)
        i += LANES
    while i < n:
        out[i] = next_word(g)
        i += 1


cdef inline uint64_t below(Generator* g, uint64_t bound) noexcept nogil:
    """Uniform on 0..bound-1, bound < 2^32 (Lemire 2019)."""
    cdef uint64_t product = (next_word(g) >> 32) * bound
    cdef uint64_t refuse
    if (product & <uint64_t>0xFFFFFFFF) < bound:
        refuse = ((<uint64_t>1 << 32) - bound) % bound
        while (product & <uint64_t>0xFFFFFFFF) < refuse:
            product = (next_word(g) >> 32) * bound
    return product >> 32


cdef inline void permute(Generator* g, int64_t* out, Py_ssize_t n) noexcept nogil:
    """The numbers 0..n-1, shuffled (Durstenfeld 1964), each swap drawn without bias."""
    cdef Py_ssize_t i, j
    cdef int64_t swap
    for i in range(n):
        out[i] = i
    for i in range(n - 1, 0, -1):
        j = <Py_ssize_t>below(g, <uint64_t>(i + 1))
        swap = out[i]
        out[i] = out[j]
        out[j] = swap


cdef class Xorshift:
    cdef Generator generator

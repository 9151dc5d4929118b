"""NumPy's SeedSequence, whose output NumPy promises never to change: the words of a branch of a seed, without the GIL.

    entropy, spawn_key -> 32-bit words -> a pool of four words, into which all are mixed -> as many words as are wanted

numpy.random.SeedSequence is the plain twin (O'Neill 2015, "Developing a seed_seq alternative").
"""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    POOL = 4                    # words
    MOST_NUMBERS = 16           # of entropy and spawn key together
    MOST_WORDS = 32             # of theirs

cdef struct Words:
    uint32_t[MOST_WORDS] data
    int n


cdef inline void add_number(Words* words, uint64_t number) noexcept nogil:
    """A number as NumPy takes it apart: the lower half first, and the upper one only where it is not 0."""
    words.data[words.n] = <uint32_t>number
    words.n += 1
    if number >> 32:
        words.data[words.n] = <uint32_t>(number >> 32)
        words.n += 1


cdef inline uint32_t hashed(uint32_t value, uint32_t* constant, uint32_t multiplier) noexcept nogil:
    value ^= constant[0]
    constant[0] *= multiplier
    value *= constant[0]
    return value ^ (value >> 16)


cdef inline uint32_t mixed_in(uint32_t x, uint32_t y) noexcept nogil:
    cdef uint32_t result = <uint32_t>0xCA01F9DD * x - <uint32_t>0x4973F715 * y
    return result ^ (result >> 16)


cdef inline void words_of_branch(
    const uint64_t* root, int n_root, const uint64_t* path, int n_path, uint64_t* out, int n
) noexcept nogil:
    """SeedSequence(root, spawn_key=path).generate_state(n, uint64), for up to 16 numbers together."""
    cdef Words words
    cdef uint32_t[POOL] pool
    cdef uint32_t constant = 0x43B0D7E5, low, high
    cdef int i, j
    words.n = 0
    for i in range(n_root):
        add_number(&words, root[i])
    while n_path > 0 and words.n < POOL:    # so that no path is like a longer root
        words.data[words.n] = 0
        words.n += 1
    for i in range(n_path):
        add_number(&words, path[i])
    for i in range(POOL):
        pool[i] = hashed(words.data[i] if i < words.n else 0, &constant, 0x931E8875)
    for i in range(POOL):
        for j in range(POOL):
            if i != j:
                pool[j] = mixed_in(pool[j], hashed(pool[i], &constant, 0x931E8875))
    for i in range(POOL, words.n):
        for j in range(POOL):
            pool[j] = mixed_in(pool[j], hashed(words.data[i], &constant, 0x931E8875))
    constant = 0x8B51F9DD
    for i in range(n):
        low = hashed(pool[2 * i % POOL], &constant, 0x58F38DED)
        high = hashed(pool[(2 * i + 1) % POOL], &constant, 0x58F38DED)
        out[i] = <uint64_t>low | (<uint64_t>high << 32)

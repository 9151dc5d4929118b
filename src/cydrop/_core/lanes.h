/* Sixteen lanes of xorshift128+ side by side, as vectors: a plain loop over sixteen lanes is taken apart into
 * scalars by some compilers before they see that it is vector code.
 *
 *      s0   [ lane 0 ........ lane 15 ]        one draw:  out = s0 + s1
 *      s1   [ lane 0 ........ lane 15 ]                   x = s0 ^ (s0 << 23)
 *                                                         s0 = s1,  s1 = x ^ s1 ^ (x >> 18) ^ (s1 >> 5)
 */
#ifndef CYDROP_LANES_H
#define CYDROP_LANES_H

#include <stdint.h>
#include <string.h>

#define LANES 16

#if defined(__GNUC__)
#if defined(__AVX512F__)
#define LANE_PARTS 2
#elif defined(__AVX2__)
#define LANE_PARTS 4
#else
#define LANE_PARTS 8
#endif
typedef uint64_t lane_part __attribute__((vector_size(8 * LANES / LANE_PARTS), aligned(8)));
#define LANE_INLINE static inline __attribute__((always_inline))
#else
#define LANE_PARTS 16
typedef uint64_t lane_part;
#define LANE_INLINE static inline
#endif

typedef struct {
    lane_part s0[LANE_PARTS], s1[LANE_PARTS];
} Lanes;

typedef struct {
    uint64_t k0, k1;
} StreamKey;

LANE_INLINE void draw(Lanes *lanes, uint64_t *out) {
    for (int i = 0; i < LANE_PARTS; i++) {
        lane_part x = lanes->s0[i];
        const lane_part y = lanes->s1[i], sum = x + y;
        memcpy((char *)out + i * sizeof(lane_part), &sum, sizeof sum);
        x ^= x << 23;
        lanes->s0[i] = y;
        lanes->s1[i] = x ^ y ^ (x >> 18) ^ (y >> 5);
    }
}

/* SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection that scatters every bit */
#define MIX64(z)                                     \
    (z) += 0x9E3779B97F4A7C15ull;                    \
    (z) = ((z) ^ ((z) >> 30)) * 0xBF58476D1CE4E5B9ull; \
    (z) = ((z) ^ ((z) >> 27)) * 0x94D049BB133111EBull; \
    (z) ^= (z) >> 31;

LANE_INLINE uint64_t mix64(uint64_t z) {
    MIX64(z)
    return z;
}

/* the lanes at the start of block `block` of a stream; s1 is odd, so that no lane is all zero */
LANE_INLINE void seed_block(Lanes *lanes, StreamKey key, uint64_t block) {
    uint64_t counter[LANES];
    for (uint64_t lane = 0; lane < LANES; lane++) counter[lane] = 0x9E3779B97F4A7C15ull * (block * LANES + lane);
    for (int i = 0; i < LANE_PARTS; i++) {
        lane_part a, b;
        memcpy(&a, (char *)counter + i * sizeof a, sizeof a);
        b = a + key.k1;
        a = a + key.k0;
        MIX64(a)
        MIX64(b)
        lanes->s0[i] = a;
        lanes->s1[i] = b | 1;
    }
}

/* single words of the state, for Python: s0 of every lane, then s1 of every lane */
LANE_INLINE uint64_t get_word(const Lanes *lanes, int word) {
    uint64_t w;
    memcpy(&w, (const char *)lanes + 8 * word, 8);
    return w;
}

LANE_INLINE void set_word(Lanes *lanes, int word, uint64_t w) { memcpy((char *)lanes + 8 * word, &w, 8); }

#endif

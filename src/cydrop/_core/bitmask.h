/* Masks as one bit an element: compare 64 random slices with a threshold, and use the 64 bits that result.
 *
 *   slice (8 or 16 bits)   0 1 2 3 ... 63        bit of mask
 *                          < threshold ?    ->   1 keep, 0 drop        (element j <-> bit j)
 *
 * Every function has a plain version, at the end of its #if chain, that says what it computes.
 */
#ifndef CYDROP_BITMASK_H
#define CYDROP_BITMASK_H

#include <stdint.h>
#include <string.h>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

/* bit j = (byte j of the eight words < threshold); threshold 0..255 */
static inline uint64_t bytes_below(const uint64_t words[8], uint8_t threshold) {
#if defined(__AVX512BW__)
    return _mm512_cmplt_epu8_mask(_mm512_loadu_si512(words), _mm512_set1_epi8((char)threshold));
#elif defined(__AVX2__)
    const __m256i t = _mm256_set1_epi8((char)threshold);
    const __m256i a = _mm256_loadu_si256((const __m256i *)words), b = _mm256_loadu_si256((const __m256i *)(words + 4));
    /* x >= t  <=>  max(x, t) == x */
    const uint32_t lo = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(a, t), a));
    const uint32_t hi = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(b, t), b));
    return ~((uint64_t)hi << 32 | lo);
#elif defined(__SSE2__)
    const __m128i t = _mm_set1_epi8((char)threshold);
    uint64_t at_least = 0;
    for (int i = 0; i < 4; i++) {
        const __m128i a = _mm_loadu_si128((const __m128i *)(words + 2 * i));
        at_least |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(a, t), a)) << (16 * i);
    }
    return ~at_least;
#else
    uint64_t bits = 0;
    for (int j = 0; j < 64; j++) bits |= (uint64_t)((uint8_t)(words[j >> 3] >> (8 * (j & 7))) < threshold) << j;
    return bits;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512BW__)
/* the 32 results of two compares of half-words as bits, in order */
static inline uint64_t halves_to_bits(__m256i a, __m256i b) {
    return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xD8));
}
#endif

/* bit j = (half-word j of the sixteen words < threshold), half-words of 16 bits, the lowest first */
static inline uint64_t halves_below(const uint64_t words[16], uint16_t threshold) {
#if defined(__AVX512BW__)
    const __m512i t = _mm512_set1_epi16((short)threshold);
    const uint64_t lo = _mm512_cmplt_epu16_mask(_mm512_loadu_si512(words), t);
    const uint64_t hi = _mm512_cmplt_epu16_mask(_mm512_loadu_si512(words + 8), t);
    return hi << 32 | lo;
#elif defined(__AVX2__)
    const __m256i t = _mm256_set1_epi16((short)threshold);
    uint64_t at_least = 0;
    for (int i = 0; i < 2; i++) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(words + 8 * i));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(words + 8 * i + 4));
        at_least |= halves_to_bits(_mm256_cmpeq_epi16(_mm256_max_epu16(a, t), a),
                                   _mm256_cmpeq_epi16(_mm256_max_epu16(b, t), b)) << (32 * i);
    }
    return ~at_least;
#elif defined(__SSE2__)
    const __m128i t = _mm_set1_epi16((short)threshold), zero = _mm_setzero_si128();
    uint64_t at_least = 0;
    for (int i = 0; i < 4; i++) {
        const __m128i a = _mm_loadu_si128((const __m128i *)(words + 4 * i));
        const __m128i b = _mm_loadu_si128((const __m128i *)(words + 4 * i + 2));
        /* x >= t  <=>  t - x, not below 0, is 0 */
        const __m128i both = _mm_packs_epi16(_mm_cmpeq_epi16(_mm_subs_epu16(t, a), zero),
                                             _mm_cmpeq_epi16(_mm_subs_epu16(t, b), zero));
        at_least |= (uint64_t)(uint32_t)_mm_movemask_epi8(both) << (16 * i);
    }
    return ~at_least;
#else
    uint64_t bits = 0;
    for (int j = 0; j < 64; j++) bits |= (uint64_t)((uint16_t)(words[j >> 2] >> (16 * (j & 3))) < threshold) << j;
    return bits;
#endif
}

/* bit j = (half-word j of the sixteen words == value) */
static inline uint64_t halves_equal(const uint64_t words[16], uint16_t value) {
#if defined(__AVX512BW__)
    const __m512i v = _mm512_set1_epi16((short)value);
    const uint64_t lo = _mm512_cmpeq_epu16_mask(_mm512_loadu_si512(words), v);
    const uint64_t hi = _mm512_cmpeq_epu16_mask(_mm512_loadu_si512(words + 8), v);
    return hi << 32 | lo;
#elif defined(__AVX2__)
    const __m256i v = _mm256_set1_epi16((short)value);
    uint64_t bits = 0;
    for (int i = 0; i < 2; i++)
        bits |= halves_to_bits(_mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *)(words + 8 * i)), v),
                               _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *)(words + 8 * i + 4)), v))
                << (32 * i);
    return bits;
#elif defined(__SSE2__)
    const __m128i v = _mm_set1_epi16((short)value);
    uint64_t bits = 0;
    for (int i = 0; i < 4; i++) {
        const __m128i a = _mm_loadu_si128((const __m128i *)(words + 4 * i));
        const __m128i b = _mm_loadu_si128((const __m128i *)(words + 4 * i + 2));
        const __m128i both = _mm_packs_epi16(_mm_cmpeq_epi16(a, v), _mm_cmpeq_epi16(b, v));
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(both) << (16 * i);
    }
    return bits;
#else
    uint64_t bits = 0;
    for (int j = 0; j < 64; j++) bits |= (uint64_t)((uint16_t)(words[j >> 2] >> (16 * (j & 3))) == value) << j;
    return bits;
#endif
}

/* out[j] = bit j ? x[j] * scale : 0, for j < n <= 64; out may be x */
static inline void select_scaled(uint64_t bits, const float *x, float scale, float *out, int n) {
    int j = 0;
#if defined(__AVX512F__)
    const __m512 s = _mm512_set1_ps(scale);
    for (; j + 16 <= n; j += 16, bits >>= 16)
        _mm512_storeu_ps(out + j, _mm512_maskz_mul_ps((__mmask16)bits, _mm512_loadu_ps(x + j), s));
    if (j < n) {
        const __mmask16 tail = (__mmask16)((1u << (n - j)) - 1);
        const __m512 v = _mm512_maskz_loadu_ps(tail, x + j);
        _mm512_mask_storeu_ps(out + j, tail, _mm512_maskz_mul_ps((__mmask16)bits, v, s));
    }
#elif defined(__AVX2__)
    const __m256 s = _mm256_set1_ps(scale);
    const __m256i place = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    for (; j + 8 <= n; j += 8, bits >>= 8) {
        const __m256i b = _mm256_and_si256(_mm256_set1_epi32((int)(bits & 255)), place);
        const __m256 keep = _mm256_castsi256_ps(_mm256_cmpeq_epi32(b, place));
        _mm256_storeu_ps(out + j, _mm256_and_ps(keep, _mm256_mul_ps(_mm256_loadu_ps(x + j), s)));
    }
    for (; j < n; j++, bits >>= 1) out[j] = (bits & 1) ? x[j] * scale : 0.0f;
#elif defined(__GNUC__)
    typedef float four_floats __attribute__((vector_size(16), aligned(4), may_alias));
    typedef int32_t four_ints __attribute__((vector_size(16)));
    const four_ints place = {1, 2, 4, 8};
    for (; j + 4 <= n; j += 4, bits >>= 4) {
        const int32_t b = (int32_t)(bits & 15);
        const four_ints keep = ((four_ints){b, b, b, b} & place) == place; /* -1 or 0 */
        const four_floats y = *(const four_floats *)(x + j) * scale;
        *(four_floats *)(out + j) = (four_floats)((four_ints)y & keep);
    }
    for (; j < n; j++, bits >>= 1) out[j] = (bits & 1) ? x[j] * scale : 0.0f;
#else
    for (; j < n; j++, bits >>= 1) out[j] = (bits & 1) ? x[j] * scale : 0.0f;
#endif
}

/* select_scaled of 64 elements with stores that go past the caches, where there are any: `out` begins on a cache line and
 * is not x, and `streamed` comes before anybody else reads it. Elements before the first cache line of `out` are
 * `before_line`, -1 where no element begins on one. */
#if defined(__SSE2__) || defined(_M_X64)
#define CYDROP_STREAMS 1
static inline void streamed(void) { _mm_sfence(); }
#else
#define CYDROP_STREAMS 0
static inline void streamed(void) {}
#endif

static inline int before_line(const float *out) {
    const int place = (int)((uintptr_t)out & 63);
    return (place & 3) ? -1 : (64 - place) % 64 / 4;
}

static inline void stream_scaled(uint64_t bits, const float *x, float scale, float *out) {
#if CYDROP_STREAMS
    /* a page ahead, where processors stop fetching by themselves; there need be nothing */
    for (int j = 0; j < 64; j += 16) _mm_prefetch((const char *)x + 4096 + 4 * j, _MM_HINT_T0);
#endif
#if defined(__AVX512F__)
    const __m512 s = _mm512_set1_ps(scale);
    for (int j = 0; j < 64; j += 16, bits >>= 16)
        _mm512_stream_ps(out + j, _mm512_maskz_mul_ps((__mmask16)bits, _mm512_loadu_ps(x + j), s));
#elif defined(__AVX2__)
    const __m256 s = _mm256_set1_ps(scale);
    const __m256i place = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    for (int j = 0; j < 64; j += 8, bits >>= 8) {
        const __m256i b = _mm256_and_si256(_mm256_set1_epi32((int)(bits & 255)), place);
        const __m256 keep = _mm256_castsi256_ps(_mm256_cmpeq_epi32(b, place));
        _mm256_stream_ps(out + j, _mm256_and_ps(keep, _mm256_mul_ps(_mm256_loadu_ps(x + j), s)));
    }
#elif CYDROP_STREAMS
    const __m128 s = _mm_set1_ps(scale);
    const __m128i place = _mm_setr_epi32(1, 2, 4, 8);
    for (int j = 0; j < 64; j += 4, bits >>= 4) {
        const __m128i b = _mm_and_si128(_mm_set1_epi32((int)(bits & 15)), place);
        const __m128 keep = _mm_castsi128_ps(_mm_cmpeq_epi32(b, place));
        _mm_stream_ps(out + j, _mm_and_ps(keep, _mm_mul_ps(_mm_loadu_ps(x + j), s)));
    }
#else
    select_scaled(bits, x, scale, out, 64);
#endif
}

/* bit j = (byte j != 0): booleans into bits */
static inline uint64_t bytes_to_bits(const unsigned char bytes[64]) {
#if defined(__AVX512BW__)
    const __m512i b = _mm512_loadu_si512(bytes);
    return _mm512_test_epi8_mask(b, b);
#elif defined(__SSE2__)
    uint64_t zeros = 0;
    for (int i = 0; i < 4; i++) {
        const __m128i b = _mm_loadu_si128((const __m128i *)(bytes + 16 * i));
        zeros |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(b, _mm_setzero_si128())) << (16 * i);
    }
    return ~zeros;
#else
    uint64_t bits = 0;
    for (int j = 0; j < 64; j++) bits |= (uint64_t)(bytes[j] != 0) << j;
    return bits;
#endif
}

/* byte j = bit j, 0 or 1: bits into booleans */
static inline void bits_to_bytes(uint64_t bits, unsigned char bytes[64]) {
#if defined(__AVX512BW__)
    _mm512_storeu_si512(bytes, _mm512_maskz_set1_epi8(bits, 1));
#elif defined(__SSE2__)
    for (int i = 0; i < 8; i++) {
        /* eight copies of a byte, each with one bit left, moved down to bit 0; the lowest byte goes first */
        const uint64_t spread = ((bits >> (8 * i)) & 255) * 0x0101010101010101ull & 0x8040201008040201ull;
        const uint64_t ones = ((spread + 0x7F7F7F7F7F7F7F7Full) | spread) >> 7 & 0x0101010101010101ull;
        memcpy(bytes + 8 * i, &ones, 8);
    }
#else
    for (int j = 0; j < 64; j++) bytes[j] = (unsigned char)(bits >> j & 1);
#endif
}

/* out = those x[j], j < n <= 64, whose bit is set, one after another; returns how many. Up to out[room - 1] anything
 * may be written: whole vectors are stored where they fit. */
static inline int take_kept(uint64_t bits, const float *x, float *out, int n, int64_t room) {
    int found = 0;
    if (n < 64) bits &= (1ull << n) - 1;
#if defined(__AVX512F__) && defined(__POPCNT__)
    for (int j = 0; j < n; j += 16, bits >>= 16) {
        const int some = __builtin_popcount((unsigned)(bits & 0xFFFF));
        __m512 v = n - j < 16 ? _mm512_maskz_loadu_ps((__mmask16)((1u << (n - j)) - 1), x + j) : _mm512_loadu_ps(x + j);
        v = _mm512_maskz_compress_ps((__mmask16)bits, v);
        if (found + 16 <= room)
            _mm512_storeu_ps(out + found, v);
        else
            _mm512_mask_storeu_ps(out + found, (__mmask16)((1u << some) - 1), v);
        found += some;
    }
#elif defined(__GNUC__)
    (void)room;
    for (; bits; bits &= bits - 1) out[found++] = x[__builtin_ctzll(bits)];
#else
    (void)room;
    for (int j = 0; j < n; j++)
        if ((bits >> j) & 1) out[found++] = x[j];
#endif
    return found;
}

/* the way back: out[j] = bit j ? the next element of x : 0, for j < n <= 64; returns how many were taken */
static inline int put_kept(uint64_t bits, const float *x, float *out, int n) {
    int taken = 0;
#if defined(__AVX512F__) && defined(__POPCNT__)
    if (n < 64) bits &= (1ull << n) - 1;
    for (int j = 0; j < n; j += 16, bits >>= 16) {
        const int some = __builtin_popcount((unsigned)(bits & 0xFFFF));
        const __m512 v = _mm512_maskz_loadu_ps((__mmask16)((1u << some) - 1), x + taken);
        const __m512 spread = _mm512_maskz_expand_ps((__mmask16)bits, v);
        if (n - j < 16)
            _mm512_mask_storeu_ps(out + j, (__mmask16)((1u << (n - j)) - 1), spread);
        else
            _mm512_storeu_ps(out + j, spread);
        taken += some;
    }
#else
    for (int j = 0; j < n; j++) out[j] = ((bits >> j) & 1) ? x[taken++] : 0.0f;
#endif
    return taken;
}

/* the same, but out[j] stays what it is where bit j is not set */
static inline int put_kept_over(uint64_t bits, const float *x, float *out, int n) {
    int taken = 0;
    if (n < 64) bits &= (1ull << n) - 1;
#if defined(__AVX512F__) && defined(__POPCNT__)
    for (int j = 0; j < n; j += 16, bits >>= 16) {
        const int some = __builtin_popcount((unsigned)(bits & 0xFFFF));
        const __m512 v = _mm512_maskz_loadu_ps((__mmask16)((1u << some) - 1), x + taken);
        _mm512_mask_storeu_ps(out + j, (__mmask16)bits, _mm512_maskz_expand_ps((__mmask16)bits, v));
        taken += some;
    }
#elif defined(__GNUC__)
    for (; bits; bits &= bits - 1) out[__builtin_ctzll(bits)] = x[taken++];
#else
    for (int j = 0; j < n; j++)
        if ((bits >> j) & 1) out[j] = x[taken++];
#endif
    return taken;
}

/* 64 bits that begin at any bit of a mask; the mask has one word to spare at its end */
static inline uint64_t bits_at(const uint64_t *mask, int64_t bit) {
    const int shift = (int)(bit & 63);
    const uint64_t *word = mask + (bit >> 6);
    return shift ? word[0] >> shift | word[1] << (64 - shift) : word[0];
}

#endif

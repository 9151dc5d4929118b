/* Masks as one bit an element: compare 64 random bytes with a threshold, and use the 64 bits that result.
 *
 *   byte of random word   0 1 2 3 ... 63        bit of mask
 *                         < threshold ?    ->   1 keep, 0 drop        (element j <-> bit j)
 *
 * Every function has a plain version, at the end of its #if chain, that says what it computes.
 */
#ifndef CYDROP_BITMASK_H
#define CYDROP_BITMASK_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__) || defined(_M_X64)
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
#else
    uint64_t bits = 0;
    for (int j = 0; j < 64; j++) bits |= (uint64_t)((uint8_t)(words[j >> 3] >> (8 * (j & 7))) < threshold) << j;
    return bits;
#endif
}

/* bit j = (byte j of the eight words == value) */
static inline uint64_t bytes_equal(const uint64_t words[8], uint8_t value) {
#if defined(__AVX512BW__)
    return _mm512_cmpeq_epu8_mask(_mm512_loadu_si512(words), _mm512_set1_epi8((char)value));
#elif defined(__AVX2__)
    const __m256i v = _mm256_set1_epi8((char)value);
    const __m256i a = _mm256_loadu_si256((const __m256i *)words), b = _mm256_loadu_si256((const __m256i *)(words + 4));
    const uint32_t lo = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, v));
    const uint32_t hi = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b, v));
    return (uint64_t)hi << 32 | lo;
#else
    uint64_t bits = 0;
    for (int j = 0; j < 64; j++) bits |= (uint64_t)((uint8_t)(words[j >> 3] >> (8 * (j & 7))) == value) << j;
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
#else
    for (; j < n; j++, bits >>= 1) out[j] = (bits & 1) ? x[j] * scale : 0.0f;
#endif
}

/* 64 bits that begin at any bit of a mask; the mask has one word to spare at its end */
static inline uint64_t bits_at(const uint64_t *mask, int64_t bit) {
    const int shift = (int)(bit & 63);
    const uint64_t *word = mask + (bit >> 6);
    return shift ? word[0] >> shift | word[1] << (64 - shift) : word[0];
}

static inline int lowest_bit(uint64_t word) {
#if defined(__GNUC__)
    return __builtin_ctzll(word);
#else
    int j = 0;
    while (!(word >> j & 1)) j++;
    return j;
#endif
}

#endif

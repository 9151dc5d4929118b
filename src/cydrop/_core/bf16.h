/* bfloat16: the upper half of a float32, rounded to nearest, ties to even. Denormals become 0 of the same sign, as in the
 * processors' own conversion and products.
 *
 *     float32    s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm
 *     bfloat16   s eeeeeeee mmmmmmm                    two of them are a pair: the first one in the lower half
 *
 * Products take pairs of neighbours along the depth: a(r, 2k) and a(r, 2k + 1), see tile_bf16.h. With AVX-512 BF16 the
 * conversion is an instruction; its bits are those of `bf16_bits`, as tests/test_bfloat16.py checks.
 */
#ifndef CYDROP_BF16_H
#define CYDROP_BF16_H

#include <stddef.h>
#include <stdint.h>
#include "fma.h"

#if defined(__AVX512F__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 10)
#include <immintrin.h>
#define BF16_NATIVE 1
#define BF16_TARGET __attribute__((target("avx512bf16")))
static int bf16_has_instruction(void) {
    __builtin_cpu_init();
    return !!__builtin_cpu_supports("avx512bf16");
}
#else
#define BF16_NATIVE 0
static int bf16_has_instruction(void) { return 0; }
#endif

static int bf16_by_instruction = 0; /* whether it is there and is to be used */
static int bf16_use_instruction(int wish) {
    bf16_by_instruction = wish && bf16_has_instruction();
    return bf16_by_instruction;
}

/* the bits of a float32 whose lower half is 0 */
static inline uint32_t bf16_bits(float x) {
    const uint32_t u = (uint32_t)bits_of(x), size = u & 0x7FFFFFFFu;
    uint32_t rounded = u + 0x7FFFu + ((u >> 16) & 1u);
    rounded = size > 0x7F800000u ? u | 0x400000u : rounded;     /* not a number: it stays one */
    rounded = size < 0x00800000u ? u & 0x80000000u : rounded;   /* denormal */
    return rounded & 0xFFFF0000u;
}

static inline uint32_t bf16_pair(float first, float second) { return bf16_bits(first) >> 16 | bf16_bits(second); }
static inline float bf16_first(uint32_t pair) { return float_of((int32_t)(pair << 16)); }
static inline float bf16_second(uint32_t pair) { return float_of((int32_t)(pair & 0xFFFF0000u)); }

#if BF16_NATIVE
/* sixteen at a time; how many are done */
static BF16_TARGET ptrdiff_t bf16_most_pairs_of_rows(const float *first, const float *second, ptrdiff_t n, uint32_t *to) {
    const __m512i turns = _mm512_or_si512( /* words 0, 16, 1, 17, ...: one of the first row, one of the second */
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
        _mm512_slli_epi32(_mm512_set_epi32(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16), 16));
    ptrdiff_t j = 0;
    for (; j + 16 <= n; j += 16) {
        const __m512 low = _mm512_loadu_ps(first + j), high = _mm512_loadu_ps(second + j);
        _mm512_storeu_si512(to + j, _mm512_permutexvar_epi16(turns, (__m512i)_mm512_cvtne2ps_pbh(high, low)));
    }
    return j;
}

static BF16_TARGET ptrdiff_t bf16_most_pairs_along_row(const float *row, ptrdiff_t n, uint32_t *to) {
    ptrdiff_t k = 0;
    for (; k + 16 <= n / 2; k += 16) {
        const __m512 low = _mm512_loadu_ps(row + 2 * k), high = _mm512_loadu_ps(row + 2 * k + 16);
        _mm512_storeu_si512(to + k, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    return k;
}
#else
#define bf16_most_pairs_of_rows(first, second, n, to) 0
#define bf16_most_pairs_along_row(row, n, to) 0
#endif

/* to[j] = (first[j], second[j]): two rows become one of pairs */
static inline void bf16_pairs_of_rows(const float *__restrict first, const float *__restrict second, ptrdiff_t n,
                                      uint32_t *__restrict to) {
    ptrdiff_t j = bf16_by_instruction ? bf16_most_pairs_of_rows(first, second, n, to) : 0;
    for (; j < n; j++) to[j] = bf16_pair(first[j], second[j]);
}

/* to[j] = (row[j], 0): a last row without another */
static inline void bf16_pairs_of_row(const float *__restrict row, ptrdiff_t n, uint32_t *__restrict to) {
    for (ptrdiff_t j = 0; j < n; j++) to[j] = bf16_pair(row[j], 0.0f);
}

/* to[k] = (row[2k], row[2k + 1]), k < (n + 1) / 2, a last number without another with a 0 */
static inline void bf16_pairs_along_row(const float *__restrict row, ptrdiff_t n, uint32_t *__restrict to) {
    ptrdiff_t k = bf16_by_instruction ? bf16_most_pairs_along_row(row, n, to) : 0;
    for (; k < n / 2; k++) to[k] = bf16_pair(row[2 * k], row[2 * k + 1]);
    if (n % 2) to[n / 2] = bf16_pair(row[n - 1], 0.0f);
}

#endif

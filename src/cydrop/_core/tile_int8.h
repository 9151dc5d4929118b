/* One register tile of a product of bytes, added in 32-bit whole numbers: tile.h with four steps of the depth in one.
 *
 *                       panel: rows of TILE_COLS quads
 *                       +-----------+
 *                  k -> | b0  | b1  |        b(k, j) = (W(4k, j), ..., W(4k + 3, j)), -127 ... 127
 *                       +-----------+
 *     A            k
 *     +------------|-+  +-----------+
 *  r  | a(r, k) -----|->| sums[r]   |        sums[r] += A(r, 4k) W(4k, j) + ... + A(r, 4k + 3) W(4k + 3, j)
 *     +--------------+  +-----------+
 *
 * a(r, k) = (A(r, 4k), ..., A(r, 4k + 3)), 0 ... 255. Whole numbers of 32 bits hold the sums of INT8_DEPTH steps, so that
 * the order of additions is free and the three ways below agree:
 *
 *     vpdpbusd        where the processor has it
 *     vpmaddwd        AVX2: bytes 0 and 2, then 1 and 3, as halves of a register's words
 *     plain           everywhere else
 */
#ifndef CYDROP_TILE_INT8_H
#define CYDROP_TILE_INT8_H

#include "int8.h"
#include "tile.h"

#define INT8_DEPTH 65536 /* 255 * 127 * 65,536 < 2^31 */

typedef struct { /* what a tile is of */
    ptrdiff_t depth;        /* in quads */
    const uint32_t *a;
    ptrdiff_t a_row;        /* quads from row to row */
    const uint32_t *panel;
    int rows, cols;
    int32_t *sums;          /* rows of TILE_COLS, OUT */
} quads_tile;

#if defined(__AVX512F__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 9)
#define INT8_NATIVE 1
#define INT8_TARGET __attribute__((target("avx512vnni")))
static int int8_has_instruction(void) {
    __builtin_cpu_init();
    return !!__builtin_cpu_supports("avx512vnni");
}
#else
#define INT8_NATIVE 0
static int int8_has_instruction(void) { return 0; }
#endif

static int int8_by_instruction = 0; /* whether it is there and is to be used */
static int int8_use_instruction(int wish) {
    int8_by_instruction = wish && int8_has_instruction();
    return int8_by_instruction;
}

/* The instruction --------------------------------------------------------------------------------------------------- */

#if INT8_NATIVE
#define quads_load(p) _mm512_loadu_si512(p)
/* sum += s b; around the intrinsic GCC 12 copies all sums from register to register */
#if defined(__clang__)
#define QUADS_ADD(sum, s, b) (sum) = _mm512_dpbusd_epi32((sum), (s), (b))
#else
#define QUADS_ADD(sum, s, b) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(s), "v"(b))
#endif

/* One step of the depth: a macro, since compilers keep the sums in registers only where no function is given them. */
#define QUADS_STEP(acc, k)                                                                                        \
    {                                                                                                              \
        __m512i b[2];                                                                                              \
        for (int v = 0; v < vectors; v++) b[v] = quads_load(panel + (k) * TILE_COLS + v * TILE_LANES);             \
        TILE_UNROLLED for (int r = 0; r < rows; r++) {                                                  \
            const __m512i s = _mm512_set1_epi32((int)a[r * a_row + (k)]);                                          \
            for (int v = 0; v < vectors; v++) QUADS_ADD(acc[r][v], s, b[v]);                                       \
        }                                                                                                          \
    }

TILE_INLINE INT8_TARGET void quads_native(const int rows, const int vectors, const quads_tile *t) {
    const uint32_t *a = t->a, *panel = t->panel;
    const ptrdiff_t a_row = t->a_row, depth = t->depth;
    __m512i acc[TILE_ROWS][2];
    TILE_UNROLLED for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) acc[r][v] = _mm512_setzero_si512();
    for (ptrdiff_t k = 0; k < depth; k++) QUADS_STEP(acc, k)
    TILE_UNROLLED for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) _mm512_storeu_si512(t->sums + r * TILE_COLS + v * TILE_LANES, acc[r][v]);
}

/* The same for so few rows that each would wait for its last addition: four steps have sums of their own. */
TILE_INLINE INT8_TARGET void quads_native_few(const int rows, const int vectors, const quads_tile *t) {
    const uint32_t *a = t->a, *panel = t->panel;
    const ptrdiff_t a_row = t->a_row, depth = t->depth;
    __m512i acc[3][2], second[3][2], third[3][2], fourth[3][2];
    ptrdiff_t k = 0;
    TILE_UNROLLED for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) acc[r][v] = second[r][v] = third[r][v] = fourth[r][v] = _mm512_setzero_si512();
    for (; k + 4 <= depth; k += 4) {
        QUADS_STEP(acc, k)
        QUADS_STEP(second, k + 1)
        QUADS_STEP(third, k + 2)
        QUADS_STEP(fourth, k + 3)
    }
    for (; k < depth; k++) QUADS_STEP(acc, k)
    TILE_UNROLLED for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(acc[r][v], second[r][v]),
                                                 _mm512_add_epi32(third[r][v], fourth[r][v]));
            _mm512_storeu_si512(t->sums + r * TILE_COLS + v * TILE_LANES, sum);
        }
}

static INT8_TARGET void quads_by_instruction(const quads_tile *t) {
#define QUADS_FEW(r, vectors) quads_native_few(r, vectors, t)
#define QUADS_OF(r, vectors) quads_native(r, vectors, t)
    switch (t->rows + (t->cols <= TILE_LANES ? 16 : 0)) {
        TILE_CASE(1, QUADS_FEW) TILE_CASE(2, QUADS_FEW) TILE_CASE(3, QUADS_FEW) TILE_CASE(4, QUADS_OF)
        TILE_CASES_5_TO_6(QUADS_OF) TILE_CASES_7_TO_8(QUADS_OF) TILE_CASES_9_TO_12(QUADS_OF)
    }
#undef QUADS_OF
#undef QUADS_FEW
}
#endif

/* Without it: a few rows at a time, from one on ---------------------------------------------------------------------- */

#if defined(__GNUC__) && defined(__AVX2__)
#define QUADS_ROWS 4
#define QUADS_COLS 16 /* columns at a time */

/* sums[r][0 ... 15] of rows r = 0, 1, ... */
TILE_INLINE void quads_of_halves(const int rows, ptrdiff_t depth, const uint32_t *a, ptrdiff_t a_row,
                                 const uint32_t *panel, int32_t *sums) {
    const __m256i even = _mm256_set1_epi32(0x00FF00FF);
    __m256i acc[QUADS_ROWS][2];
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (ptrdiff_t k = 0; k < depth; k++) {
        __m256i first[2], second[2];
        for (int v = 0; v < 2; v++) {
            const __m256i b = _mm256_loadu_si256((const __m256i *)(panel + k * TILE_COLS + v * 8));
            first[v] = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8);
            second[v] = _mm256_srai_epi16(b, 8);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const __m256i s = _mm256_set1_epi32((int)a[r * a_row + k]);
            const __m256i s0 = _mm256_and_si256(s, even), s1 = _mm256_srli_epi16(s, 8);
            for (int v = 0; v < 2; v++) {
                const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(s0, first[v]), _mm256_madd_epi16(s1, second[v]));
                acc[r][v] = _mm256_add_epi32(acc[r][v], both);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++) _mm256_storeu_si256((__m256i *)(sums + r * TILE_COLS + v * 8), acc[r][v]);
}

static void quads_some_rows(int rows, int row, const quads_tile *t) {
    const uint32_t *a = t->a + row * t->a_row;
    for (int j = 0; j < t->cols; j += QUADS_COLS) {
        int32_t *sums = t->sums + row * TILE_COLS + j;
        if (rows == QUADS_ROWS)
            quads_of_halves(QUADS_ROWS, t->depth, a, t->a_row, t->panel + j, sums);
        else
            quads_of_halves(1, t->depth, a, t->a_row, t->panel + j, sums);
    }
}
#else
#define QUADS_ROWS 1

static void quads_some_rows(int rows, int row, const quads_tile *t) {
    int32_t sums[TILE_COLS] = {0};
    const uint8_t *a = (const uint8_t *)(t->a + row * t->a_row);
    (void)rows;
    for (ptrdiff_t k = 0; k < t->depth; k++) {
        const int8_t *b = (const int8_t *)(t->panel + k * TILE_COLS);
        for (int j = 0; j < TILE_COLS; j++)
            for (int i = 0; i < 4; i++) sums[j] += (int32_t)a[4 * k + i] * b[4 * j + i];
    }
    memcpy(t->sums + row * TILE_COLS, sums, sizeof sums);
}
#endif

static void quads_sums(const quads_tile *t) {
    int row = 0;
#if INT8_NATIVE
    if (int8_by_instruction) {
        quads_by_instruction(t);
        return;
    }
#endif
    for (; row + QUADS_ROWS <= t->rows; row += QUADS_ROWS) quads_some_rows(QUADS_ROWS, row, t);
    for (; row < t->rows; row++) quads_some_rows(1, row, t);
}

/* The end of every tile: y = (sum - zero * column's sum) * (row's scale * column's scale) + bias, and ReLU --------------- */

static void quads_end(const quads_tile *t, const int8_row *rows, const int32_t *column_sums, const float *scales,
                      const float *bias, int relu, float *c, ptrdiff_t c_row) {
    for (int r = 0; r < t->rows; r++) {
        const int32_t *sums = t->sums + r * TILE_COLS, zero = rows[r].zero;
        const float scale = rows[r].scale;
        float *to = c + r * c_row;
        for (int j = 0; j < t->cols; j++) {
            const int32_t whole = (int32_t)((uint32_t)sums[j] - (uint32_t)zero * (uint32_t)column_sums[j]);
            to[j] = (float)whole * (scale * scales[j]);
        }
        if (bias)
            for (int j = 0; j < t->cols; j++) to[j] = to[j] + bias[j];
        if (relu)
            for (int j = 0; j < t->cols; j++) to[j] = to[j] <= 0.0f ? 0.0f : to[j];
    }
}

#endif

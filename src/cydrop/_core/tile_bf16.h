/* One register tile of a product of bfloat16 pairs, added in float32: tile.h with two steps of the depth in one.
 *
 *                       panel: rows of TILE_COLS pairs
 *                       +-----------+
 *                  k -> | b0  | b1  |        b(k, j) = (B(2k, j), B(2k + 1, j))
 *                       +-----------+
 *     A            k
 *     +------------|-+  +-----------+
 *  r  | a(r, k) -----|->| acc[r]    |        acc[r] += A(r, 2k + 1) B(2k + 1, j),  then  += A(r, 2k) B(2k, j)
 *     +--------------+  +-----------+
 *
 * a(r, k) = (A(r, 2k), A(r, 2k + 1)). Each of the two is one fused multiply-add of float32: exact product, one rounding to
 * nearest even, results below 2^-126 (after that rounding, at 24 digits) flushed to 0. This is what vdpbf16ps does, and the
 * three ways below have its bits, as tests/test_bfloat16.py checks case by case:
 *
 *     vdpbf16ps       where the processor has it
 *     two vfmadd      AVX2 and AVX-512F, in the processor's mode that flushes
 *     doubles         everywhere else: the exact product and sum of double precision, rounded once (53 digits are more
 *                     than twice 24, and a product has 16, so that rounding twice is rounding once)
 */
#ifndef CYDROP_TILE_BF16_H
#define CYDROP_TILE_BF16_H

#include "bf16.h"
#include "float_control.h"
#include "tile.h"

typedef struct {                    /* what a tile is of */
    ptrdiff_t depth;                /* in pairs */
    const uint32_t *a;
    ptrdiff_t a_row, a_depth;       /* pairs from row to row, and from one to the next of the depth; one of them is 1 */
    const uint32_t *panel;          /* rows of TILE_COLS pairs */
    float *c;
    ptrdiff_t c_row;
    int rows, cols, resume;         /* resume: from what C holds */
    const float *bias;              /* or NULL */
    int relu;
    const tile_wanted *wanted;
} pairs_tile;

/* The instruction --------------------------------------------------------------------------------------------------- */

#if BF16_NATIVE
/* sum += s b; around the intrinsic GCC copies sums from register to register */
#if defined(__clang__)
#define PAIRS_ADD(sum, s, b) (sum) = _mm512_dpbf16_ps((sum), (__m512bh)(s), (__m512bh)(b))
#else
#define PAIRS_ADD(sum, s, b) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(s), "v"(b))
#endif

TILE_INLINE BF16_TARGET void pairs_native(const int rows, const int vectors, const ptrdiff_t a_row,
                                           const ptrdiff_t a_depth, const pairs_tile *t) {
    tile_vec acc[TILE_ROWS][2];
    const uint32_t *a = t->a, *panel = t->panel;
    const ptrdiff_t fetched = tile_fetched(t->wanted), depth = t->depth;
    tile_begin(acc, rows, vectors, t->c, t->c_row, t->cols, t->resume);
    for (ptrdiff_t k = 0; k < depth; k++) {
        __m512i b[2];
        for (int v = 0; v < vectors; v++) b[v] = _mm512_loadu_si512(panel + k * TILE_COLS + v * TILE_LANES);
        TILE_UNROLLED
        for (int r = 0; r < rows; r++) {
            const __m512i s = _mm512_set1_epi32((int)a[r * a_row + k * a_depth]);
            for (int v = 0; v < vectors; v++) PAIRS_ADD(acc[r][v], s, b[v]);
        }
        if (t->wanted) tile_fetch(t->wanted, k, fetched);
    }
    tile_end(acc, rows, vectors, t->c, t->c_row, t->cols, t->bias, t->relu);
}

static BF16_TARGET void pairs_native_of_rows(const pairs_tile *t) {
#define PAIRS_OF_ROWS(r, vectors) pairs_native(r, vectors, t->a_row, 1, t)
    switch (t->rows + (t->cols <= TILE_LANES ? 16 : 0)) { TILE_CASES(PAIRS_OF_ROWS) }
#undef PAIRS_OF_ROWS
}

static BF16_TARGET void pairs_native_of_columns(const pairs_tile *t) {
#define PAIRS_OF_COLUMNS(r, vectors) pairs_native(r, vectors, 1, t->a_depth, t)
    switch (t->rows + (t->cols <= TILE_LANES ? 16 : 0)) { TILE_CASES(PAIRS_OF_COLUMNS) }
#undef PAIRS_OF_COLUMNS
}
#endif

/* Without it: a few rows at a time, from one on ---------------------------------------------------------------------- */

#if defined(__GNUC__) && defined(__AVX2__) && defined(__FMA__)
#define PAIRS_ROWS 4
#if defined(__AVX512F__)
#define PAIRS_HOLD(v) __asm__ __volatile__("" : "+v"(v) : : "memory")
#define pairs_load(p) _mm512_loadu_si512(p)
#define pairs_all(s) _mm512_set1_epi32((int)(s))
#define pairs_first(v) _mm512_castsi512_ps(_mm512_slli_epi32((v), 16))
#define pairs_second(v) _mm512_castsi512_ps(_mm512_and_si512((v), _mm512_set1_epi32(-65536)))
typedef __m512i pairs_vec;
#else
#define PAIRS_HOLD(v) __asm__ __volatile__("" : "+x"(v) : : "memory")
#define pairs_load(p) _mm256_loadu_si256((const __m256i *)(p))
#define pairs_all(s) _mm256_set1_epi32((int)(s))
#define pairs_first(v) _mm256_castsi256_ps(_mm256_slli_epi32((v), 16))
#define pairs_second(v) _mm256_castsi256_ps(_mm256_and_si256((v), _mm256_set1_epi32(-65536)))
typedef __m256i pairs_vec;
#endif

/* Nothing may move across the change of the mode: the compiler does not know that arithmetic depends on it. */
TILE_INLINE void pairs_in_flushing_mode(const int rows, const int vectors, ptrdiff_t row, const pairs_tile *t) {
    tile_vec acc[TILE_ROWS][2];
    const uint32_t *a = t->a + row * t->a_row;
    float *c = t->c + row * t->c_row;
    tile_begin(acc, rows, vectors, c, t->c_row, t->cols, t->resume);
    const unsigned control = begin_flushing();
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) PAIRS_HOLD(acc[r][v]);
    for (ptrdiff_t k = 0; k < t->depth; k++) {
        tile_vec first[2], second[2];
        for (int v = 0; v < vectors; v++) {
            const pairs_vec b = pairs_load(t->panel + k * TILE_COLS + v * TILE_LANES);
            first[v] = pairs_first(b);
            second[v] = pairs_second(b);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const pairs_vec s = pairs_all(a[r * t->a_row + k * t->a_depth]);
            for (int v = 0; v < vectors; v++) acc[r][v] = tile_fma(pairs_second(s), second[v], acc[r][v]);
            for (int v = 0; v < vectors; v++) acc[r][v] = tile_fma(pairs_first(s), first[v], acc[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) PAIRS_HOLD(acc[r][v]);
    end_flushing(control);
    tile_end(acc, rows, vectors, c, t->c_row, t->cols, t->bias, t->relu);
}

static void pairs_some_rows(int rows, ptrdiff_t row, const pairs_tile *t) {
    if (rows == PAIRS_ROWS && t->cols > TILE_LANES)
        pairs_in_flushing_mode(PAIRS_ROWS, 2, row, t);
    else if (rows == PAIRS_ROWS)
        pairs_in_flushing_mode(PAIRS_ROWS, 1, row, t);
    else if (t->cols > TILE_LANES)
        pairs_in_flushing_mode(1, 2, row, t);
    else
        pairs_in_flushing_mode(1, 1, row, t);
}
#else
#define PAIRS_ROWS 1
#define PAIRS_TINY (0x1p-126 * (1.0 - 0x1p-25)) /* what is less is below 2^-126 at 24 digits */

/* c + x y as the instruction has it */
TILE_INLINE float pairs_fma(float x, float y, float c) {
    const double sum = (double)x * (double)y + (double)c;
    const float rounded = (float)sum;
    return sum < PAIRS_TINY && sum > -PAIRS_TINY ? rounded * 0.0f : rounded;
}

static void pairs_some_rows(int rows, ptrdiff_t row, const pairs_tile *t) {
    float acc[TILE_COLS];
    float *c = t->c + row * t->c_row;
    (void)rows;
    for (int j = 0; j < TILE_COLS; j++) acc[j] = 0.0f;
    for (int j = 0; j < t->cols && t->resume; j++) {
        const float x = c[j];
        acc[j] = x < 0x1p-126f && x > -0x1p-126f ? x * 0.0f : x;
    }
    for (ptrdiff_t k = 0; k < t->depth; k++) {
        const uint32_t s = t->a[row * t->a_row + k * t->a_depth], *b = t->panel + k * TILE_COLS;
        for (int j = 0; j < TILE_COLS; j++) {
            const float half = pairs_fma(bf16_second(s), bf16_second(b[j]), acc[j]);
            acc[j] = pairs_fma(bf16_first(s), bf16_first(b[j]), half);
        }
    }
    for (int j = 0; j < t->cols; j++) {
        float x = acc[j];
        if (t->bias) x += t->bias[j];
        if (t->relu && x <= 0.0f) x = 0.0f;
        c[j] = x;
    }
}
#endif

static void pairs_product(const pairs_tile *t) {
    int row = 0;
#if BF16_NATIVE
    if (bf16_by_instruction) {
        if (t->a_depth == 1)
            pairs_native_of_rows(t);
        else
            pairs_native_of_columns(t);
        return;
    }
#endif
    for (; row + PAIRS_ROWS <= t->rows; row += PAIRS_ROWS) pairs_some_rows(PAIRS_ROWS, row, t);
    for (; row < t->rows; row++) pairs_some_rows(1, row, t);
}

/* panel[k][j] = (b[j][2k], b[j][2k + 1]) for j, k < TILE_LANES: TILE_LANES rows of twice as many numbers */
static void pairs_transpose(const float *b, ptrdiff_t b_row, uint32_t *panel) {
    uint32_t along[TILE_LANES * TILE_LANES];
    for (int j = 0; j < TILE_LANES; j++) bf16_pairs_along_row(b + j * b_row, 2 * TILE_LANES, along + j * TILE_LANES);
#ifdef TILE_TRANSPOSES
    tile_vec t[TILE_LANES]; /* moved, not computed with: a pair is as wide as a float */
    memcpy(t, along, sizeof t);
    tile_exchange(t);
    for (int k = 0; k < TILE_LANES; k++) memcpy(panel + k * TILE_COLS, &t[k], sizeof t[k]);
#else
    for (int j = 0; j < TILE_LANES; j++)
        for (int k = 0; k < TILE_LANES; k++) panel[k * TILE_COLS + j] = along[j * TILE_LANES + k];
#endif
}

#endif

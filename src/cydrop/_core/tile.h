/* One register tile of a matrix product: C (rows x cols) = A (rows x depth) times a panel of B.
 *
 *                     panel: rows of one or two vectors, panel_row apart; lanes beyond cols are read, not used
 *                     +---------+
 *                k -> | b0 | b1 |          two vectors of B
 *                     +---------+
 *     A          k
 *     +----------|-+  +---------+
 *  r  | a(r,k) ----|->| acc[r]  |          acc[r] += a(r,k) * (b0, b1), one fused multiply-add a lane
 *     +------------+  +---------+
 *
 * Each element of C is one chain of multiply-adds over k = 0, 1, 2, ..., from 0 or from what C holds (resume):
 * the same bits for every tile size and instruction set that has the fused instruction.
 */
#ifndef CYDROP_TILE_H
#define CYDROP_TILE_H

#include <stddef.h>
#include <string.h>
#include "fma.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define TILE_ROWS 12
#define TILE_LANES 16
typedef __m512 tile_vec;
#define tile_loadu(p) _mm512_loadu_ps(p)
#define tile_storeu(p, v) _mm512_storeu_ps((p), (v))
#define tile_all(s) _mm512_set1_ps(s)
#define tile_fma(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define tile_add(a, b) _mm512_add_ps((a), (b))
#define tile_relu(v) _mm512_maskz_mov_ps(_mm512_cmp_ps_mask((v), _mm512_setzero_ps(), _CMP_NLE_UQ), (v))
#define TILE_MASKS 1
#define tile_load_some(p, n) _mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), (p))
#define tile_store_some(p, v, n) _mm512_mask_storeu_ps((p), (__mmask16)((1u << (n)) - 1), (v))
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define TILE_ROWS 6
#define TILE_LANES 8
typedef __m256 tile_vec;
#define tile_loadu(p) _mm256_loadu_ps(p)
#define tile_storeu(p, v) _mm256_storeu_ps((p), (v))
#define tile_all(s) _mm256_set1_ps(s)
#define tile_fma(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#define tile_add(a, b) _mm256_add_ps((a), (b))
#define tile_relu(v) _mm256_and_ps(_mm256_cmp_ps((v), _mm256_setzero_ps(), _CMP_NLE_UQ), (v))
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define TILE_ROWS 8
#define TILE_LANES 4
typedef float32x4_t tile_vec;
#define tile_loadu(p) vld1q_f32(p)
#define tile_storeu(p, v) vst1q_f32((p), (v))
#define tile_all(s) vdupq_n_f32(s)
#define tile_fma(a, b, c) vfmaq_f32((c), (a), (b))
#define tile_add(a, b) vaddq_f32((a), (b))
#define tile_relu(v) \
    vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcleq_f32((v), vdupq_n_f32(0.0f))))
#elif defined(__GNUC__)
#define TILE_ROWS 6
#define TILE_LANES 4
typedef float tile_vec __attribute__((vector_size(16)));
static inline tile_vec tile_loadu(const float *p) { tile_vec v; memcpy(&v, p, 16); return v; }
static inline void tile_storeu(float *p, tile_vec v) { memcpy(p, &v, 16); }
#define tile_all(s) ((tile_vec){(s), (s), (s), (s)})
#if CYDROP_HAS_FMA
static inline tile_vec tile_fma(tile_vec a, tile_vec b, tile_vec c) {
    for (int i = 0; i < TILE_LANES; i++) c[i] = fma32(a[i], b[i], c[i]);
    return c;
}
#else
#define tile_fma(a, b, c) ((a) * (b) + (c))
#endif
#define tile_add(a, b) ((a) + (b))
typedef int32_t tile_bits __attribute__((vector_size(16)));
#define tile_relu(v) ((tile_vec)((tile_bits)(v) & ~((v) <= tile_all(0.0f))))
#else /* no vector types: plain floats */
#define TILE_ROWS 4
#define TILE_LANES 1
typedef float tile_vec;
#define tile_loadu(p) (*(p))
#define tile_storeu(p, v) (*(p) = (v))
#define tile_all(s) (s)
#define tile_fma(a, b, c) fma32((a), (b), (c))
#define tile_add(a, b) ((a) + (b))
#define tile_relu(v) ((v) <= 0.0f ? 0.0f : (v))
#endif

#define TILE_COLS (2 * TILE_LANES)
#define TILE_FLOATS (TILE_ROWS * TILE_COLS)
#define LINE_FLOATS 16 /* of a cache line */
#define TILE_LOG2_LINES (TILE_COLS > LINE_FLOATS) /* lines of a row of a tile, as a power of 2 */

#if !defined(TILE_MASKS)
/* the first n < TILE_LANES lanes */
static inline tile_vec tile_load_some(const float *p, int n) {
    float edge[TILE_LANES] = {0};
    for (int j = 0; j < n; j++) edge[j] = p[j];
    return tile_loadu(edge);
}
static inline void tile_store_some(float *p, tile_vec v, int n) {
    float edge[TILE_LANES];
    tile_storeu(edge, v);
    for (int j = 0; j < n; j++) p[j] = edge[j];
}
#endif

#if defined(__GNUC__)
#define TILE_INLINE static inline __attribute__((always_inline))
#else
#define TILE_INLINE static inline
#endif

/* in front of a loop over rows, whose sums are in registers only where it is no loop any more */
#if defined(__clang__)
#define TILE_UNROLLED _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define TILE_UNROLLED _Pragma("GCC unroll 16")
#else
#define TILE_UNROLLED
#endif

/* Memory that will be wanted soon: three rectangles of `rows` rows and 2^log2_lines cache lines. At every k that is a
 * multiple of 2^log2_period a line of each is asked for, so that memory and arithmetic work at the same time; asking for
 * all at once would block it. NULL: nothing is wanted. */
typedef struct {
    const float *at[3];
    ptrdiff_t row;
    int rows, log2_lines, log2_period;
} tile_wanted;

/* the steps that ask for something */
TILE_INLINE ptrdiff_t tile_fetched(const tile_wanted *wanted) {
    return wanted ? (ptrdiff_t)wanted->rows << (wanted->log2_lines + wanted->log2_period) : 0;
}

TILE_INLINE void tile_fetch(const tile_wanted *wanted, ptrdiff_t k, ptrdiff_t fetched) {
    if ((k & ((1 << wanted->log2_period) - 1)) == 0 && k < fetched) {
        const ptrdiff_t line = k >> wanted->log2_period, in_row = line & ((1 << wanted->log2_lines) - 1);
        const ptrdiff_t place = (line >> wanted->log2_lines) * wanted->row + in_row * LINE_FLOATS;
        fetch_line(wanted->at[0] + place);
        fetch_line(wanted->at[1] + place);
        fetch_line(wanted->at[2] + place);
    }
}

/* acc += the steps k = first, ..., stop - 1. rows, vectors (1 or 2) and one of the strides are constants wherever this is
 * expanded: acc lives in registers. */
TILE_INLINE void tile_steps(tile_vec acc[TILE_ROWS][2], const int rows, const int vectors, ptrdiff_t first, ptrdiff_t stop,
                            const float *a, const ptrdiff_t a_row, const ptrdiff_t a_depth, const float *panel,
                            ptrdiff_t panel_row, const tile_wanted *wanted) {
    const ptrdiff_t fetched = tile_fetched(wanted);
    for (ptrdiff_t k = first; k < stop; k++) {
        tile_vec b[2];
        for (int v = 0; v < vectors; v++) b[v] = tile_loadu(panel + k * panel_row + v * TILE_LANES);
        TILE_UNROLLED
        for (int r = 0; r < rows; r++) {
            const tile_vec s = tile_all(a[r * a_row + k * a_depth]);
            for (int v = 0; v < vectors; v++) acc[r][v] = tile_fma(s, b[v], acc[r][v]);
        }
        if (wanted) tile_fetch(wanted, k, fetched);
    }
}

TILE_INLINE void tile_store(tile_vec acc[TILE_ROWS][2], const int rows, const int vectors, float *c, ptrdiff_t c_row,
                            int cols) {
    const int last = vectors - 1, edge = cols - last * TILE_LANES; /* lanes of the last vector */
    TILE_UNROLLED
    for (int r = 0; r < rows; r++) {
        float *to = c + r * c_row;
        for (int v = 0; v < last; v++) tile_storeu(to + v * TILE_LANES, acc[r][v]);
        if (edge == TILE_LANES)
            tile_storeu(to + last * TILE_LANES, acc[r][last]);
        else
            tile_store_some(to + last * TILE_LANES, acc[r][last], edge);
    }
}

/* From 0, or from what C holds. */
TILE_INLINE void tile_begin(tile_vec acc[TILE_ROWS][2], const int rows, const int vectors, const float *c,
                            ptrdiff_t c_row, int cols, int resume) {
    const int last = vectors - 1, edge = cols - last * TILE_LANES; /* lanes of the last vector */
    TILE_UNROLLED
    for (int r = 0; r < rows; r++) {
        const float *from = c + r * c_row;
        for (int v = 0; v < vectors; v++) acc[r][v] = tile_all(0.0f);
        if (!resume) continue;
        for (int v = 0; v < last; v++) acc[r][v] = tile_loadu(from + v * TILE_LANES);
        acc[r][last] = edge == TILE_LANES ? tile_loadu(from + last * TILE_LANES)
                                          : tile_load_some(from + last * TILE_LANES, edge);
    }
}

/* Bias (or NULL) and ReLU, where they are wanted, and into memory. */
TILE_INLINE void tile_end(tile_vec acc[TILE_ROWS][2], const int rows, const int vectors, float *c, ptrdiff_t c_row,
                          int cols, const float *bias, int relu) {
    const int last = vectors - 1, edge = cols - last * TILE_LANES; /* lanes of the last vector */
    if (bias) {
        tile_vec b[2];
        for (int v = 0; v < last; v++) b[v] = tile_loadu(bias + v * TILE_LANES);
        b[last] = edge == TILE_LANES ? tile_loadu(bias + last * TILE_LANES) : tile_load_some(bias + last * TILE_LANES, edge);
        TILE_UNROLLED
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++) acc[r][v] = tile_add(acc[r][v], b[v]);
    }
    if (relu)
        TILE_UNROLLED
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++) acc[r][v] = tile_relu(acc[r][v]);
    tile_store(acc, rows, vectors, c, c_row, cols);
}

TILE_INLINE void tile_body(const int rows, const int vectors, ptrdiff_t depth, const float *a, const ptrdiff_t a_row,
                           const float *panel, ptrdiff_t panel_row, float *c, ptrdiff_t c_row, int cols, int resume,
                           const float *bias, int relu, const tile_wanted *wanted) {
    tile_vec acc[TILE_ROWS][2];
    tile_begin(acc, rows, vectors, c, c_row, cols, resume);
    tile_steps(acc, rows, vectors, 0, depth, a, a_row, 1, panel, panel_row, wanted);
    tile_end(acc, rows, vectors, c, c_row, cols, bias, relu);
}


/* Each shard's sum, added over the tree of shards.pxd: shard number s to the levels for the ones that s ends in. Where
 * there is one, its chain may begin with what C holds (resume). */
TILE_INLINE void tile_tree(const int rows, const int vectors, int shards, const ptrdiff_t *bounds, const float *a,
                           ptrdiff_t a_depth, const float *panel, ptrdiff_t panel_row, float *c, ptrdiff_t c_row,
                           int cols, int resume, const tile_wanted *wanted, float *levels) {
    for (int s = 0; s < shards; s++) {
        tile_vec acc[TILE_ROWS][2];
        float *level = levels;
        tile_begin(acc, rows, vectors, c, c_row, cols, resume);
        tile_steps(acc, rows, vectors, bounds[s], bounds[s + 1], a, 1, a_depth, panel, panel_row, wanted);
        for (int ones = s; ones & 1; ones >>= 1, level += TILE_FLOATS)
            TILE_UNROLLED
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < vectors; v++)
                    acc[r][v] = tile_add(tile_loadu(level + r * TILE_COLS + v * TILE_LANES), acc[r][v]);
        if (s == shards - 1)
            tile_store(acc, rows, vectors, c, c_row, cols);
        else
            tile_store(acc, rows, vectors, level, TILE_COLS, vectors * TILE_LANES);
    }
}

#define TILE_CASE(r, BODY) \
    case r: BODY(r, 2); return; \
    case r + 16: BODY(r, 1); return;
#if TILE_ROWS > 8
#define TILE_CASES_9_TO_12(BODY) TILE_CASE(9, BODY) TILE_CASE(10, BODY) TILE_CASE(11, BODY) TILE_CASE(12, BODY)
#else
#define TILE_CASES_9_TO_12(BODY)
#endif
#if TILE_ROWS > 6
#define TILE_CASES_7_TO_8(BODY) TILE_CASE(7, BODY) TILE_CASE(8, BODY)
#else
#define TILE_CASES_7_TO_8(BODY)
#endif
#if TILE_ROWS > 4
#define TILE_CASES_5_TO_6(BODY) TILE_CASE(5, BODY) TILE_CASE(6, BODY)
#else
#define TILE_CASES_5_TO_6(BODY)
#endif
#define TILE_CASES(BODY)                                                              \
    TILE_CASE(1, BODY) TILE_CASE(2, BODY) TILE_CASE(3, BODY) TILE_CASE(4, BODY)       \
    TILE_CASES_5_TO_6(BODY) TILE_CASES_7_TO_8(BODY) TILE_CASES_9_TO_12(BODY)

/* a(r, k) = a[r * stride + k]: A lies as it is read, for X W and dY Wt. With a bias (or NULL) and ReLU at the end. */
static void tile_of_rows(int rows, ptrdiff_t depth, const float *a, ptrdiff_t stride, const float *panel,
                         ptrdiff_t panel_row, float *c, ptrdiff_t c_row, int cols, int resume, const float *bias,
                         int relu, const tile_wanted *wanted) {
#define TILE_OF_ROWS(r, vectors) \
    tile_body(r, vectors, depth, a, stride, panel, panel_row, c, c_row, cols, resume, bias, relu, wanted)
    switch (rows + (cols <= TILE_LANES ? 16 : 0)) { TILE_CASES(TILE_OF_ROWS) }
#undef TILE_OF_ROWS
}

/* a(r, k) = a[k * stride + r]: A lies transposed, for Xt dY. Shard number s are the steps bounds[s], ...,
 * bounds[s + 1] - 1; levels: memory for a whole tile for each level of their tree. */
static void tile_of_columns(int rows, int shards, const ptrdiff_t *bounds, const float *a, ptrdiff_t stride,
                            const float *panel, ptrdiff_t panel_row, float *c, ptrdiff_t c_row, int cols, int resume,
                            const tile_wanted *wanted, float *levels) {
#define TILE_OF_COLUMNS(r, vectors) \
    tile_tree(r, vectors, shards, bounds, a, stride, panel, panel_row, c, c_row, cols, resume, wanted, levels)
    switch (rows + (cols <= TILE_LANES ? 16 : 0)) { TILE_CASES(TILE_OF_COLUMNS) }
#undef TILE_OF_COLUMNS
}

/* panel[k][j] = b[j][k] for j, k < TILE_LANES, in registers: in stage s = 1, 2, 4, ... rows that differ in bit s
 * exchange the elements whose place differs in bit s the other way.
 *
 *     a0 a1 | a2 a3         s = 1: swap inside 2 x 2 blocks,  s = 2: swap 2 x 2 blocks,  ...
 */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && TILE_LANES > 1
#define TILE_TRANSPOSES 1
#endif
#endif
#ifdef TILE_TRANSPOSES
#define TILE_LOW(s, k) (((k) & (s)) ? TILE_LANES + (k) - (s) : (k))
#define TILE_HIGH(s, k) (((k) & (s)) ? TILE_LANES + (k) : (k) + (s))
#if TILE_LANES == 16
#define TILE_EACH(F, s) F(s, 0), F(s, 1), F(s, 2), F(s, 3), F(s, 4), F(s, 5), F(s, 6), F(s, 7), F(s, 8), F(s, 9), \
    F(s, 10), F(s, 11), F(s, 12), F(s, 13), F(s, 14), F(s, 15)
#elif TILE_LANES == 8
#define TILE_EACH(F, s) F(s, 0), F(s, 1), F(s, 2), F(s, 3), F(s, 4), F(s, 5), F(s, 6), F(s, 7)
#else
#define TILE_EACH(F, s) F(s, 0), F(s, 1), F(s, 2), F(s, 3)
#endif
#define TILE_STAGE(s)                                                                              \
    if (s < TILE_LANES)                                                                            \
        for (int j = 0; j < TILE_LANES; j++)                                                       \
            if (!(j & s)) {                                                                        \
                const tile_vec low = __builtin_shufflevector(t[j], t[j + s], TILE_EACH(TILE_LOW, s));   \
                t[j + s] = __builtin_shufflevector(t[j], t[j + s], TILE_EACH(TILE_HIGH, s));       \
                t[j] = low;                                                                        \
            }
/* rows t[0], t[1], ... become columns */
TILE_INLINE void tile_exchange(tile_vec t[TILE_LANES]) {
    TILE_STAGE(1)
    TILE_STAGE(2)
#if TILE_LANES > 4
    TILE_STAGE(4)
#endif
#if TILE_LANES > 8
    TILE_STAGE(8)
#endif
}
static void tile_transpose(const float *b, ptrdiff_t b_row, float *panel) {
    tile_vec t[TILE_LANES];
    for (int j = 0; j < TILE_LANES; j++) t[j] = tile_loadu(b + j * b_row);
    tile_exchange(t);
    for (int k = 0; k < TILE_LANES; k++) tile_storeu(panel + k * TILE_COLS, t[k]);
}
#else
static void tile_transpose(const float *b, ptrdiff_t b_row, float *panel) {
    for (int j = 0; j < TILE_LANES; j++)
        for (int k = 0; k < TILE_LANES; k++) panel[k * TILE_COLS + j] = b[j * b_row + k];
}
#endif

#endif

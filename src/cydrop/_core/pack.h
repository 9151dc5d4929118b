/* Sixteen networks of one shape side by side, a network a lane: vectors of the same element of each.
 *
 *     x[row][unit][lane]     row 0, unit 0   | network 0 | network 1 | ... | network 15 |
 *                            row 0, unit 1   | network 0 | network 1 | ... | network 15 |
 *                            ...
 *
 * A network of a few units fills no vector by itself, and its tiles are mostly edges; in a lane it has neither. What a
 * lane computes is what the network computes alone: each element is one chain of fused multiply-adds in the order of
 * tile.h.
 */
#ifndef CYDROP_PACK_H
#define CYDROP_PACK_H

#include "bitmask.h"
#include "tile.h"

#define PACK 16
#define PACK_PARTS (PACK / TILE_LANES)
#define PACK_WORD 32 /* units whose bits of a mask lie in one word a lane */

/* rows and units of a tile, whose sums lie in registers with a row's values and a vector for the units */
#define PACK_ROWS 4
#if TILE_LANES == 16
#define PACK_UNITS 4
#else
#define PACK_UNITS 2
#endif

#if TILE_LANES > 1
#define PACKS 1
typedef int32_t pack_bits __attribute__((vector_size(4 * TILE_LANES)));
#define pack_all_bits(p) ((pack_bits)tile_loadu((const float *)(p)))
/* -1 in the lanes whose word has the bit, 0 in the others */
#define pack_kept(words, bit) (((words) & (bit)) != 0)
/* v where kept, else 0 */
#define pack_select(v, kept) ((tile_vec)((pack_bits)(v) & (kept)))
#else /* no vector types: networks are not packed, and these only compile */
#define PACKS 0
typedef int32_t pack_bits;
#define pack_all_bits(p) (*(const int32_t *)(p))
#define pack_kept(words, bit) (-(((words) & (bit)) != 0))
#define pack_select(v, kept) float_of(bits_of(v) & (kept))
#endif

/* c[r][j] = sum over s of a[r][s] b[s][j], from 0 or from what c holds, then plus bias[j]. Strides in floats; units of c
 * and of the bias lie PACK apart. rows and units are constants wherever this is expanded. */
TILE_INLINE void pack_tile(const int rows, const int units, ptrdiff_t steps, const float *a, ptrdiff_t a_row,
                           ptrdiff_t a_step, const float *b, ptrdiff_t b_step, ptrdiff_t b_unit, float *c,
                           ptrdiff_t c_row, int resume, const float *bias) {
    tile_vec acc[PACK_ROWS][PACK_UNITS];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < units; j++) acc[r][j] = resume ? tile_loadu(c + r * c_row + j * PACK) : tile_all(0.0f);
    for (ptrdiff_t s = 0; s < steps; s++) {
        tile_vec v[PACK_UNITS];
        for (int j = 0; j < units; j++) v[j] = tile_loadu(b + s * b_step + j * b_unit);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const tile_vec u = tile_loadu(a + r * a_row + s * a_step);
            for (int j = 0; j < units; j++) acc[r][j] = tile_fma(u, v[j], acc[r][j]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < units; j++) {
            if (bias) acc[r][j] = tile_add(acc[r][j], tile_loadu(bias + j * PACK));
            tile_storeu(c + r * c_row + j * PACK, acc[r][j]);
        }
}

TILE_INLINE void pack_rows(const int units, ptrdiff_t rows, ptrdiff_t steps, const float *a, ptrdiff_t a_row,
                           ptrdiff_t a_step, const float *b, ptrdiff_t b_step, ptrdiff_t b_unit, float *c,
                           ptrdiff_t c_row, int resume, const float *bias) {
    ptrdiff_t r = 0;
    for (; r + PACK_ROWS <= rows; r += PACK_ROWS)
        pack_tile(PACK_ROWS, units, steps, a + r * a_row, a_row, a_step, b, b_step, b_unit, c + r * c_row, c_row, resume,
                  bias);
    for (; r < rows; r++)
        pack_tile(1, units, steps, a + r * a_row, a_row, a_step, b, b_step, b_unit, c + r * c_row, c_row, resume, bias);
}

static void pack_product(ptrdiff_t rows, ptrdiff_t units, ptrdiff_t steps, const float *a, ptrdiff_t a_row,
                         ptrdiff_t a_step, const float *b, ptrdiff_t b_step, ptrdiff_t b_unit, float *c, ptrdiff_t c_row,
                         int resume, const float *bias) {
#define PACK_CASE(u) \
    case u: \
        pack_rows(u, rows, steps, a + at, a_row, a_step, b + at + j * b_unit, b_step, b_unit, c + at + j * PACK, c_row, \
                  resume, bias ? bias + at + j * PACK : NULL); \
        break;
    for (ptrdiff_t j = 0; j < units; j += PACK_UNITS)
        for (int at = 0; at < PACK; at += TILE_LANES)
            switch (units - j < PACK_UNITS ? units - j : PACK_UNITS) {
                PACK_CASE(1)
                PACK_CASE(2)
#if PACK_UNITS > 2
                PACK_CASE(3)
                PACK_CASE(4)
#endif
            }
#undef PACK_CASE
}

/* sums[j] += row 0, 1, ... of x */
static void pack_column_sums(ptrdiff_t rows, ptrdiff_t units, const float *x, float *sums) {
    for (ptrdiff_t j = 0; j < units * PACK; j += TILE_LANES) {
        tile_vec sum = tile_loadu(sums + j);
        for (ptrdiff_t r = 0; r < rows; r++) sum = tile_add(sum, tile_loadu(x + r * units * PACK + j));
        tile_storeu(sums + j, sum);
    }
}

/* y = max(y, 0) */
static void pack_relu(ptrdiff_t n, const float *x, float *y) {
    for (ptrdiff_t i = 0; i < n; i += TILE_LANES) tile_storeu(y + i, tile_relu(tile_loadu(x + i)));
}

/* y = x scale where the bit of the lane's unit is set in `words`, [row][word][lane], else 0; scale: one a lane */
TILE_INLINE void pack_drop_body(const int relu, ptrdiff_t rows, ptrdiff_t units, const int32_t *words,
                                ptrdiff_t words_row, const float *scale, const float *x, float *y) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t first = 0; first < units; first += PACK_WORD) {
            const int some = (int)(units - first < PACK_WORD ? units - first : PACK_WORD);
            const int32_t *of_row = words + r * words_row + first / PACK_WORD * PACK;
            const ptrdiff_t place = (r * units + first) * PACK;
            for (int p = 0; p < PACK; p += TILE_LANES) {
                const tile_vec s = tile_loadu(scale + p);
                const pack_bits w = pack_all_bits(of_row + p);
                for (int j = 0; j < some; j++) {
                    tile_vec v = tile_loadu(x + place + j * PACK + p);
                    if (relu) v = tile_relu(v);
                    tile_storeu(y + place + j * PACK + p, pack_select(v * s, pack_kept(w, (int32_t)(1u << j))));
                }
            }
        }
}

static void pack_drop(ptrdiff_t rows, ptrdiff_t units, const int32_t *words, ptrdiff_t words_row, const float *scale,
                      const float *x, float *y) {
    pack_drop_body(0, rows, units, words, words_row, scale, x, y);
}

static void pack_relu_and_drop(ptrdiff_t rows, ptrdiff_t units, const int32_t *words, ptrdiff_t words_row,
                               const float *scale, const float *x, float *y) {
    pack_drop_body(1, rows, units, words, words_row, scale, x, y);
}

/* dz = 0 where y <= 0, else dz scale */
static void pack_relu_gradient(ptrdiff_t n, const float *y, const float *scale, float *dz) {
    for (int p = 0; p < PACK; p += TILE_LANES) {
        const tile_vec s = tile_loadu(scale + p);
        for (ptrdiff_t i = p; i < n; i += PACK) {
            const tile_vec v = tile_loadu(dz + i) * s;
            tile_storeu(dz + i, pack_select(v, ~(pack_bits)(tile_loadu(y + i) <= tile_all(0.0f))));
        }
    }
}

/* to[k][lane] = from[lane][k], k < n, in squares of vectors as in tile_transpose */
static void pack_in(const float *const from[PACK], ptrdiff_t n, float *to) {
    ptrdiff_t k = 0;
#ifdef TILE_TRANSPOSES
    for (; k < n; k += TILE_LANES)
        for (int p = 0; p < PACK; p += TILE_LANES) {
            const ptrdiff_t some = n - k < TILE_LANES ? n - k : TILE_LANES;
            tile_vec t[TILE_LANES];
            if (some == TILE_LANES)
                for (int l = 0; l < TILE_LANES; l++) t[l] = tile_loadu(from[p + l] + k);
            else
                for (int l = 0; l < TILE_LANES; l++) t[l] = tile_load_some(from[p + l] + k, (int)some);
            tile_exchange(t);
            for (int j = 0; j < some; j++) tile_storeu(to + (k + j) * PACK + p, t[j]);
        }
#endif
    for (; k < n; k++)
        for (int l = 0; l < PACK; l++) to[k * PACK + l] = from[l][k];
}

/* the way back */
static void pack_out(const float *from, ptrdiff_t n, float *const to[PACK]) {
    ptrdiff_t k = 0;
#ifdef TILE_TRANSPOSES
    for (; k < n; k += TILE_LANES)
        for (int p = 0; p < PACK; p += TILE_LANES) {
            const ptrdiff_t some = n - k < TILE_LANES ? n - k : TILE_LANES;
            tile_vec t[TILE_LANES];
            for (int j = 0; j < TILE_LANES; j++) t[j] = tile_loadu(from + (k + (j < some ? j : 0)) * PACK + p);
            tile_exchange(t);
            if (some == TILE_LANES)
                for (int l = 0; l < TILE_LANES; l++) tile_storeu(to[p + l] + k, t[l]);
            else
                for (int l = 0; l < TILE_LANES; l++) tile_store_some(to[p + l] + k, t[l], (int)some);
        }
#endif
    for (; k < n; k++)
        for (int l = 0; l < PACK; l++) to[l][k] = from[k * PACK + l];
}

/* one lane's mask, whose row r begins with bit first + r * mask_row */
static void pack_mask(const uint64_t *mask, int64_t first, int64_t mask_row, ptrdiff_t rows, ptrdiff_t words,
                      ptrdiff_t words_row, int lane, int32_t *to) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t w = 0; w < words; w += 2) {
            const uint64_t bits = bits_at(mask, first + r * mask_row + w * PACK_WORD);
            to[r * words_row + w * PACK + lane] = (int32_t)(uint32_t)bits;
            if (w + 1 < words) to[r * words_row + (w + 1) * PACK + lane] = (int32_t)(uint32_t)(bits >> 32);
        }
}

#endif

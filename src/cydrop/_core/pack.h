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

/* rows and units of a tile, whose sums lie in registers with a row's values and a vector for the units */
#define PACK_ROWS 4
#if TILE_LANES == 16
#define PACK_UNITS 4
#define PACK_LARGEST 2048 /* parameters of a network that is faster in a pack, see pack.pxd */
#else
#define PACK_UNITS 3
#define PACK_LARGEST 1024
#endif
#define PACK_WORD (32 / PACK_UNITS * PACK_UNITS) /* units whose bits of a mask lie in one word a lane: whole tiles */

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

/* What a product ends with, while its tile is in registers. Dropout keeps what has its bit set in `words`, row by row
 * [word][lane], and multiplies it by the lane's scale. */
typedef struct {
    const float *bias;    /* [unit][lane], NULL: none */
    int relu;             /* max(c, 0) */
    const int32_t *words; /* NULL: nothing is dropped */
    ptrdiff_t words_row;
    const float *scale;
    const float *y; /* laid out as c, or NULL: c becomes 0 where y <= 0, else c scale, the gradient of ReLU and dropout */
} pack_end;

/* ends a tile that begins with row r0 and unit j0, in the part of the lanes that begins with `at` */
TILE_INLINE void pack_ended(tile_vec v[PACK_ROWS][PACK_UNITS], const int rows, const int units, const pack_end end,
                            ptrdiff_t r0, ptrdiff_t j0, int at, ptrdiff_t c_row) {
    if (end.bias)
        for (int j = 0; j < units; j++) {
            const tile_vec bias = tile_loadu(end.bias + (j0 + j) * PACK + at);
            for (int r = 0; r < rows; r++) v[r][j] = tile_add(v[r][j], bias);
        }
    if (end.relu)
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < units; j++) v[r][j] = tile_relu(v[r][j]);
    if (end.words) {
        const tile_vec scale = tile_loadu(end.scale + at);
        const int32_t *words = end.words + r0 * end.words_row + j0 / PACK_WORD * PACK + at;
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < units; j++) {
                const int32_t bit = (int32_t)(1u << (j0 + j) % PACK_WORD);
                v[r][j] = pack_select(v[r][j] * scale, pack_kept(pack_all_bits(words + r * end.words_row), bit));
            }
    }
    if (end.y) {
        const tile_vec scale = tile_loadu(end.scale + at);
        const float *y = end.y + r0 * c_row + j0 * PACK + at;
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < units; j++) {
                const pack_bits none = (pack_bits)(tile_loadu(y + r * c_row + j * PACK) <= tile_all(0.0f));
                v[r][j] = pack_select(v[r][j] * scale, ~none);
            }
    }
}

typedef struct { /* c[r][j] = sum over s of a[r][s] b[s][j], from 0 or from what c holds; strides in floats */
    ptrdiff_t rows, units, steps;
    const float *a;
    ptrdiff_t a_row, a_step;
    const float *b;
    ptrdiff_t b_step, b_unit;
    float *c; /* units PACK apart */
    ptrdiff_t c_row;
    int resume;
    pack_end end;
} pack_factors;

/* rows and units are constants wherever this is expanded */
TILE_INLINE void pack_tile(const int rows, const int units, const pack_factors *p, ptrdiff_t r0, ptrdiff_t j0, int at) {
    /* copies, for all that they know compilers must take what is stored for a part of *p */
    const ptrdiff_t a_row = p->a_row, a_step = p->a_step, b_step = p->b_step, b_unit = p->b_unit, steps = p->steps;
    const ptrdiff_t c_row = p->c_row;
    const pack_end end = p->end;
    const int resume = p->resume;
    const float *a = p->a + r0 * a_row + at, *b = p->b + j0 * b_unit + at;
    float *c = p->c + r0 * c_row + j0 * PACK + at;
    tile_vec acc[PACK_ROWS][PACK_UNITS];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < units; j++)
            acc[r][j] = resume ? tile_loadu(c + r * c_row + j * PACK) : tile_all(0.0f);
    for (ptrdiff_t s = 0; s < steps; s++) {
        tile_vec v[PACK_UNITS];
        for (int j = 0; j < units; j++) v[j] = tile_loadu(b + s * b_step + j * b_unit);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const tile_vec u = tile_loadu(a + r * a_row + s * a_step);
            for (int j = 0; j < units; j++) acc[r][j] = tile_fma(u, v[j], acc[r][j]);
        }
    }
    pack_ended(acc, rows, units, end, r0, j0, at, c_row);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < units; j++) tile_storeu(c + r * c_row + j * PACK, acc[r][j]);
}

TILE_INLINE void pack_rows(const int units, const pack_factors *p, ptrdiff_t j, int at) {
    ptrdiff_t r = 0;
    for (; r + PACK_ROWS <= p->rows; r += PACK_ROWS) pack_tile(PACK_ROWS, units, p, r, j, at);
    for (; r < p->rows; r++) pack_tile(1, units, p, r, j, at);
}

static void pack_product(const pack_factors *p) {
#define PACK_CASE(u) case u: pack_rows(u, p, j, at); break;
    for (ptrdiff_t j = 0; j < p->units; j += PACK_UNITS)
        for (int at = 0; at < PACK; at += TILE_LANES)
            switch (p->units - j < PACK_UNITS ? p->units - j : PACK_UNITS) {
                PACK_CASE(1)
                PACK_CASE(2)
                PACK_CASE(3)
#if PACK_UNITS > 3
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

/* y = x and what a product of these rows and units ends with; y may be x */
static void pack_finish(ptrdiff_t rows, ptrdiff_t units, const pack_end *given, const float *x, float *y) {
    const pack_end end = *given;
    for (ptrdiff_t r = 0; r < rows; r++)
        for (int at = 0; at < PACK; at += TILE_LANES)
            for (ptrdiff_t j = 0; j < units; j++) {
                const ptrdiff_t place = (r * units + j) * PACK + at;
                tile_vec v[PACK_ROWS][PACK_UNITS];
                v[0][0] = tile_loadu(x + place);
                pack_ended(v, 1, 1, end, r, j, at, units * PACK);
                tile_storeu(y + place, v[0][0]);
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
            if (w + 1 < words) to[r * words_row + (w + 1) * PACK + lane] = (int32_t)(uint32_t)(bits >> PACK_WORD);
        }
}

#endif

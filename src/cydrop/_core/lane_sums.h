/* Sums over many rows, in sixteen lanes that lie in registers: lane l takes rows l, l + 16, l + 32, ..., each lane is
 * one chain of fused multiply-adds, and in the end the lanes are added half to half. That order is the same for every
 * number of threads and every instruction set.
 *
 *      rows  0 .. 15   16 .. 31   ...        lanes  0 .. 15  ->  8  ->  4  ->  2  ->  1
 */
#ifndef CYDROP_LANE_SUMS_H
#define CYDROP_LANE_SUMS_H

#include "tile.h"

#define SUM_LANES 16
#define SUM_PARTS (SUM_LANES / TILE_LANES)

TILE_INLINE float lanes_added(const tile_vec *sums) {
    float lane[SUM_LANES];
    for (int i = 0; i < SUM_PARTS; i++) tile_storeu(lane + i * TILE_LANES, sums[i]);
    for (int l = 0; l < 8; l++) lane[l] += lane[l + 8];
    for (int l = 0; l < 4; l++) lane[l] += lane[l + 4];
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/* the sum of a[r] b[r] over n rows, a multiple of 16 */
TILE_INLINE float sum_of_products(ptrdiff_t n, const float *a, const float *b) {
    tile_vec sums[SUM_PARTS];
    for (int i = 0; i < SUM_PARTS; i++) sums[i] = tile_all(0.0f);
    for (ptrdiff_t r = 0; r < n; r += SUM_LANES)
        for (int i = 0; i < SUM_PARTS; i++) {
            const ptrdiff_t at = r + i * TILE_LANES;
            sums[i] = tile_fma(tile_loadu(a + at), tile_loadu(b + at), sums[i]);
        }
    return lanes_added(sums);
}

/* the sum of a[r] over n rows, a multiple of 16 */
TILE_INLINE float sum_of_rows(ptrdiff_t n, const float *a) {
    tile_vec sums[SUM_PARTS];
    for (int i = 0; i < SUM_PARTS; i++) sums[i] = tile_all(0.0f);
    for (ptrdiff_t r = 0; r < n; r += SUM_LANES)
        for (int i = 0; i < SUM_PARTS; i++) sums[i] = tile_add(sums[i], tile_loadu(a + r + i * TILE_LANES));
    return lanes_added(sums);
}

#endif

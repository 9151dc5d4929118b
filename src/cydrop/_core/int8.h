/* Numbers as bytes, for products of whole numbers (tile_int8.h).
 *
 *     a row of activations   codes 0 ... 255, x = (code - zero) * scale, the scale and the code of zero its own
 *     a column of weights    codes -127 ... 127, w = code * scale, the scale its own
 *
 *     x w = scale_r scale_j (sum of code_r code_j - zero_r (sum of code_j))      the brackets are whole numbers: exact
 *
 * Four neighbours along the depth are a quad, in the order of their bytes in memory. The arithmetic of floats is division,
 * product, sum and rounding to nearest even, one by one: every processor has the same bits.
 */
#ifndef CYDROP_INT8_H
#define CYDROP_INT8_H

#include <stddef.h>
#include <stdint.h>
#include "fma.h"

#define INT8_ROUNDING 12582912.0f /* 1.5 * 2^23: what is added to it is rounded to a whole number */
#define INT8_INFINITE 0x7F800000

typedef struct {
    float scale; /* NaN: the row has numbers that are not finite, and so have all its products */
    int32_t zero;
} int8_row;

/* codes of a row of n numbers; the scale spans its least and its greatest number, and 0, which has a code of its own */
static int8_row int8_codes(const float *__restrict x, ptrdiff_t n, uint8_t *__restrict codes) {
    int8_row row;
    int32_t greatest = 0;
    uint32_t least = 0x80000000u; /* negative numbers, as bits: the greater, the farther from 0 */
    for (ptrdiff_t j = 0; j < n; j++) {
        const int32_t bits = bits_of(x[j]);
        greatest = bits > greatest ? bits : greatest;
        least = (uint32_t)bits > least ? (uint32_t)bits : least;
    }
    const float high = float_of(greatest), low = float_of((int32_t)least);
    const float scale = high / 255.0f - low / 255.0f;
    const float inverse = scale < 0x1p-126f ? 0.0f : 1.0f / scale; /* of a denormal it might be infinite */
    if (greatest >= INT8_INFINITE || least >= 0x80000000u + INT8_INFINITE) {
        row.scale = float_of(0x7FC00000), row.zero = 0;
        for (ptrdiff_t j = 0; j < n; j++) codes[j] = 0;
        return row;
    }
    row.scale = inverse > 0.0f ? scale : 0.0f;
    row.zero = bits_of(INT8_ROUNDING - low * inverse) - bits_of(INT8_ROUNDING);
    for (ptrdiff_t j = 0; j < n; j++) {
        const int32_t code = bits_of(INT8_ROUNDING + x[j] * inverse) - bits_of(INT8_ROUNDING) + row.zero;
        codes[j] = (uint8_t)(code < 0 ? 0 : code > 255 ? 255 : code);
    }
    return row;
}

#endif

"""Panels of the right-hand factor of a product, packed or where they lie, and how the work is cut into units.

A work unit is a panel of TILE_COLS output columns (and, where panels are few, a share of the rows). The panel of
the right-hand factor is packed once, KC deep, into memory that stays in L1 while all row tiles pass over it:

              TILE_COLS                      TILE_COLS
             +---------+                    +---------+
          KC | packed  |           TILE_ROWS|  tile   | -> epilogue while the tile is in L1
             +---------+                    +---------+
"""

from libc.string cimport memcpy, memset

from cydrop._core.shards cimport MOST_LEVELS

cdef extern from "tile.h" nogil:
    enum:
        TILE_ROWS
        TILE_LANES
        TILE_COLS
        TILE_FLOATS
        TILE_LOG2_LINES
    ctypedef struct tile_wanted:
        const float* at[3]
        Py_ssize_t row
        int rows, log2_lines, log2_period
    void tile_of_rows(
        int rows, Py_ssize_t depth, const float* a, Py_ssize_t stride, const float* panel, Py_ssize_t panel_row,
        float* c, Py_ssize_t c_row, int cols, int resume, const float* bias, int relu, const tile_wanted* wanted)
    void tile_of_columns(
        int rows, int shards, const Py_ssize_t* bounds, const float* a, Py_ssize_t stride, const float* panel,
        Py_ssize_t panel_row, float* c, Py_ssize_t c_row, int cols, int resume, const tile_wanted* wanted,
        float* levels)
    void tile_transpose(const float* b, Py_ssize_t b_row, float* panel)

cdef enum:
    KC = 256                    # greatest depth of a packed panel: 36 KiB with AVX-512, 18 KiB with AVX2
    STRIP = 8                   # panels of dW that are updated together: long pieces of W, which the memory likes
    STRIP_FLOATS = 65536        # that the packed panels of a strip may take, a part of L2
    DIRECT = 8192               # floats of a right-hand factor that the tile reads where it lies: 32 KiB


cdef inline Py_ssize_t strip_panels(Py_ssize_t rows) noexcept nogil:
    """Panels of a strip for a batch of `rows` rows."""
    return max(<Py_ssize_t>1, min(<Py_ssize_t>STRIP, <Py_ssize_t>STRIP_FLOATS // (rows * TILE_COLS)))


cdef inline Py_ssize_t panels_floats(Py_ssize_t rows) noexcept nogil:
    """Memory for the packed panels of a strip; never less for more rows."""
    return max(rows * TILE_COLS, min(rows * TILE_COLS * STRIP, <Py_ssize_t>STRIP_FLOATS))


cdef inline Py_ssize_t scratch_floats(Py_ssize_t rows) noexcept nogil:
    """Floats of scratch memory that one thread needs for batches of up to `rows` rows: a panel of W, or the panels
    of a strip, the strip and the tiles of shards that wait for others."""
    return max(<Py_ssize_t>KC * TILE_COLS, panels_floats(rows) + (STRIP + MOST_LEVELS) * TILE_FLOATS)


cdef inline void pack(
    const float* b, Py_ssize_t b_row, Py_ssize_t depth, Py_ssize_t cols, float* panel
) noexcept nogil:
    """panel[k, j] = b[k, j], zero for j >= cols"""
    cdef Py_ssize_t k
    if cols == TILE_COLS:
        for k in range(depth):
            memcpy(panel + k * TILE_COLS, b + k * b_row, TILE_COLS * sizeof(float))
        return
    memset(panel, 0, depth * TILE_COLS * sizeof(float))
    for k in range(depth):
        memcpy(panel + k * TILE_COLS, b + k * b_row, cols * sizeof(float))


cdef inline void pack_transposed(
    const float* b, Py_ssize_t b_row, const float* end, Py_ssize_t depth, Py_ssize_t cols, float* panel
) noexcept nogil:
    """panel[k, j] = b[j, k]; lanes j >= cols may hold anything. Blocks that hang over are read up to `end`."""
    cdef Py_ssize_t k, j, j0 = 0, k0
    cdef bint inside
    while j0 < cols:
        k0 = 0
        while k0 < depth:
            inside = cols - j0 >= TILE_LANES and depth - k0 >= TILE_LANES
            if inside or b + (j0 + TILE_LANES - 1) * b_row + k0 + TILE_LANES <= end:
                tile_transpose(b + j0 * b_row + k0, b_row, panel + k0 * TILE_COLS + j0)
            else:
                for j in range(j0, min(cols, j0 + TILE_LANES)):
                    for k in range(k0, min(depth, k0 + TILE_LANES)):
                        panel[k * TILE_COLS + j] = b[j * b_row + k]
            k0 += TILE_LANES
        j0 += TILE_LANES


cdef inline bint lies_ready(
    const float* b, Py_ssize_t b_row, Py_ssize_t depth, Py_ssize_t cols, Py_ssize_t tiles, const float* end
) noexcept nogil:
    """Whether tiles may read panels of B in place: B is small or read once or twice, and its memory goes on to where
    the vectors of the last panel end."""
    cdef Py_ssize_t remainder = cols % TILE_COLS
    cdef Py_ssize_t width = cols - remainder
    if remainder > 0:
        width += TILE_LANES if remainder <= TILE_LANES else TILE_COLS
    return (tiles <= 2 or depth * b_row <= DIRECT) and b + (depth - 1) * b_row + width <= end


cdef inline Py_ssize_t row_shares(Py_ssize_t panels, Py_ssize_t tiles, int n_threads) noexcept nogil:
    """Into how many shares the rows are cut, so that there is work for all threads."""
    cdef Py_ssize_t wanted
    if n_threads == 1:
        return 1
    wanted = (4 * n_threads + panels - 1) // panels
    return max(<Py_ssize_t>1, min(wanted, tiles))

"""The factors of a bfloat16 product as pairs of neighbours along the depth (bf16.h), for the tile of tile_bf16.h.

    left factor, once for all panels                    right factor, a panel at a time

    rows     (r, 0 1) (r, 2 3) (r, 4 5) ...              (0 1, j) (0 1, j + 1) ...
    columns  (0 1, r) (0 1, r + 1) ...                   (2 3, j) (2 3, j + 1) ...
             (2 3, r) (2 3, r + 1) ...                   ...

A depth that is odd ends with a pair of which the second number is 0; so does each shard of a batch, of whose rows no
pair is in another shard.
"""

from cython.parallel cimport prange
from libc.stdint cimport uint32_t
from libc.string cimport memset

from cydrop._core.matrix cimport Matrix
from cydrop._core.panels cimport TILE_COLS, TILE_LANES, tile_wanted
from cydrop._core.serial cimport SERIAL_COPY
from cydrop._core.shards cimport MOST_SHARDS

cdef extern from "bf16.h" nogil:
    int bf16_use_instruction(int wish)
    int bf16_has_instruction()
    void bf16_pairs_of_rows(const float* first, const float* second, Py_ssize_t n, uint32_t* to)
    void bf16_pairs_of_row(const float* row, Py_ssize_t n, uint32_t* to)
    void bf16_pairs_along_row(const float* row, Py_ssize_t n, uint32_t* to)
    uint32_t bf16_pair(float first, float second)

cdef extern from "tile_bf16.h" nogil:
    ctypedef struct pairs_tile:
        Py_ssize_t depth
        const uint32_t* a
        Py_ssize_t a_row, a_depth
        const uint32_t* panel
        float* c
        Py_ssize_t c_row
        int rows, cols
        bint resume
        const float* bias
        bint relu
        const tile_wanted* wanted
    void pairs_product(const pairs_tile* t)
    void pairs_transpose(const float* b, Py_ssize_t b_row, uint32_t* panel)

cdef enum:
    PAIRS_PERIOD = 1            # of what a tile asks for, as a power of 2: half the steps of a float32 tile

cdef struct Pairs:              # a left factor
    uint32_t* data              # NULL: products are of float32
    Py_ssize_t row              # from one row of pairs to the next


cdef inline Py_ssize_t row_of_pairs(Py_ssize_t pairs) noexcept nogil:
    """As `operation.padded`."""
    cdef Py_ssize_t row = (pairs + 15) // 16 * 16
    return row + 16 if row % 256 == 0 else row


cdef inline Py_ssize_t most_pairs(Py_ssize_t rows, Py_ssize_t widest) noexcept nogil:
    """Memory, in pairs, for the left factors of products of up to so many rows and columns."""
    cdef Py_ssize_t pair_rows = min(rows, (rows + MOST_SHARDS) // 2 + 1)
    return max(rows * row_of_pairs((widest + 1) // 2), pair_rows * row_of_pairs(widest))


cdef inline Pairs pairs_along_rows(
    Matrix a, Py_ssize_t rows, Py_ssize_t depth, uint32_t* memory, int n_threads
) noexcept nogil:
    """Of a left factor whose rows lie as they are read."""
    cdef Pairs pairs
    cdef Py_ssize_t r, row = row_of_pairs((depth + 1) // 2)
    pairs.data, pairs.row = memory, row
    if n_threads == 1 or rows * depth <= SERIAL_COPY:
        for r in range(rows):
            bf16_pairs_along_row(a.data + r * a.row, depth, memory + r * row)
        return pairs
    for r in prange(rows, num_threads=n_threads, schedule="static"):
        bf16_pairs_along_row(a.data + r * a.row, depth, memory + r * row)
    return pairs


cdef inline void bound_pairs(int shards, const Py_ssize_t* bounds, Py_ssize_t* pair_bounds) noexcept nogil:
    """Where the pairs of each shard begin, and where the last one's end, for shards that begin with these rows."""
    cdef int s
    pair_bounds[0] = 0
    for s in range(shards):
        pair_bounds[s + 1] = pair_bounds[s] + (bounds[s + 1] - bounds[s] + 1) // 2


cdef inline void pair_rows(
    const float* rows, Py_ssize_t row, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t cols, uint32_t* to
) noexcept nogil:
    """One row of pairs: rows `first` and `first + 1`, if that is before `stop`."""
    if first + 1 < stop:
        bf16_pairs_of_rows(rows + first * row, rows + (first + 1) * row, cols, to)
    else:
        bf16_pairs_of_row(rows + first * row, cols, to)


cdef inline void pair_row_of_shards(
    Matrix a, int shards, const Py_ssize_t* bounds, const Py_ssize_t* pair_bounds, Py_ssize_t number, Py_ssize_t cols,
    uint32_t* to
) noexcept nogil:
    """Row `number` of all pairs."""
    cdef int s = 0
    while number >= pair_bounds[s + 1]:
        s += 1
    pair_rows(a.data, a.row, bounds[s] + 2 * (number - pair_bounds[s]), bounds[s + 1], cols, to)


cdef inline Pairs pairs_of_rows(
    Matrix a, int shards, const Py_ssize_t* bounds, const Py_ssize_t* pair_bounds, Py_ssize_t cols, uint32_t* memory,
    int n_threads
) noexcept nogil:
    """Of a left factor that lies transposed, a batch in shards."""
    cdef Pairs pairs
    cdef Py_ssize_t k, n = pair_bounds[shards], row = row_of_pairs(cols)
    pairs.data, pairs.row = memory, row
    if n_threads == 1 or 2 * n * cols <= SERIAL_COPY:
        for k in range(n):
            pair_row_of_shards(a, shards, bounds, pair_bounds, k, cols, memory + k * row)
        return pairs
    for k in prange(n, num_threads=n_threads, schedule="static"):
        pair_row_of_shards(a, shards, bounds, pair_bounds, k, cols, memory + k * row)
    return pairs


cdef inline void pack_pairs(
    const float* b, Py_ssize_t b_row, Py_ssize_t depth, Py_ssize_t cols, uint32_t* panel
) noexcept nogil:
    """panel[k, j] = (b[2k, j], b[2k + 1, j]), zero for j >= cols"""
    cdef Py_ssize_t k
    for k in range((depth + 1) // 2):
        pair_rows(b, b_row, 2 * k, depth, cols, panel + k * TILE_COLS)
        if cols < TILE_COLS:
            memset(panel + k * TILE_COLS + cols, 0, (TILE_COLS - cols) * sizeof(uint32_t))


cdef inline void pack_pairs_of_shards(
    const float* b, Py_ssize_t b_row, int shards, const Py_ssize_t* bounds, const Py_ssize_t* pair_bounds,
    Py_ssize_t cols, uint32_t* panel
) noexcept nogil:
    """The same of the rows of each shard."""
    cdef int s
    for s in range(shards):
        pack_pairs(b + bounds[s] * b_row, b_row, bounds[s + 1] - bounds[s], cols, panel + pair_bounds[s] * TILE_COLS)


cdef inline void pack_pairs_transposed(
    const float* b, Py_ssize_t b_row, Py_ssize_t depth, Py_ssize_t cols, uint32_t* panel
) noexcept nogil:
    """panel[k, j] = (b[j, 2k], b[j, 2k + 1]), zero for j >= cols"""
    cdef Py_ssize_t k, j, j0 = 0, k0, pairs = (depth + 1) // 2
    cdef float second
    if cols < TILE_COLS:
        memset(panel, 0, pairs * TILE_COLS * sizeof(uint32_t))
    while j0 < cols:
        k0 = 0
        while k0 < pairs:
            if cols - j0 >= TILE_LANES and depth - 2 * k0 >= 2 * TILE_LANES:
                pairs_transpose(b + j0 * b_row + 2 * k0, b_row, panel + k0 * TILE_COLS + j0)
            else:
                for j in range(j0, min(cols, j0 + TILE_LANES)):
                    for k in range(k0, min(pairs, k0 + TILE_LANES)):
                        second = b[j * b_row + 2 * k + 1] if 2 * k + 1 < depth else 0.0
                        panel[k * TILE_COLS + j] = bf16_pair(b[j * b_row + 2 * k], second)
            k0 += TILE_LANES
        j0 += TILE_LANES

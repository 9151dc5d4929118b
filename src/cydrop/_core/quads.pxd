"""Products of bytes (int8.h, tile_int8.h): activations as codes row by row, weights as codes column by column.

    left factor, once for all panels                   right factor, once for all times

    (r, 0 1 2 3) (r, 4 5 6 7) ...  scale, zero         panel 0: (0 1 2 3, j) (0 1 2 3, j + 1) ...
                                                                (4 5 6 7, j) (4 5 6 7, j + 1) ...
                                                       panel 1: ...

Weights lie in a network's arena as the tile reads them, all panels one after another; past the last row or column there
are zeros. A panel is read from top to bottom: its bytes are a quarter of what floats would be, and need no blocks.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, uint8_t, uint32_t

from cydrop._core.epilogue cimport Epilogue
from cydrop._core.matrix cimport Matrix
from cydrop._core.pairs cimport row_of_pairs
from cydrop._core.panels cimport TILE_COLS, TILE_FLOATS, TILE_ROWS, row_shares
from cydrop._core.serial cimport SERIAL_COPY, threads_of_product

cdef extern from "int8.h" nogil:
    ctypedef struct int8_row:
        float scale
        int32_t zero
    int8_row int8_codes(const float* x, Py_ssize_t n, uint8_t* codes)

cdef extern from "tile_int8.h" nogil:
    enum:
        INT8_DEPTH
    ctypedef struct quads_tile:
        Py_ssize_t depth
        const uint32_t* a
        Py_ssize_t a_row
        const uint32_t* panel
        int rows, cols
        int32_t* sums
    int int8_use_instruction(int wish)
    int int8_has_instruction()
    void quads_sums(const quads_tile* t)
    void quads_end(const quads_tile* t, const int8_row* rows, const int32_t* column_sums, const float* scales,
                   const float* bias, bint relu, float* c, Py_ssize_t c_row)


cdef struct Codes8:             # weights
    const uint32_t* panels
    const float* scales         # of columns
    const int32_t* sums         # of the codes of a column


cdef struct Quads:              # a product, y = x W
    Codes8 weight
    const int8_row* row_codes   # scale and zero of each row
    const uint32_t* data        # codes of the rows
    Py_ssize_t row              # from one row of quads to the next
    Py_ssize_t rows, depth, cols
    Matrix c
    const float* bias           # added in the tile, NULL: none
    bint relu                   # in the tile
    # what is left to do with a finished rectangle of C: row0, rows, col0, cols; NULL: nothing
    void (*finish)(const Quads*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
    const Epilogue* epilogue    # for `finish`, with its y
    Matrix y


cdef inline Py_ssize_t quads_of(Py_ssize_t n) noexcept nogil:
    """That so many bytes fill."""
    return (n + 3) // 4


cdef inline Py_ssize_t quad_floats(Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Memory of the panels of weights, in floats."""
    return (n_out + TILE_COLS - 1) // TILE_COLS * quads_of(n_in) * TILE_COLS


cdef inline Py_ssize_t rows_of_codes(Py_ssize_t rows) noexcept nogil:
    """Memory for what rows have besides their codes, in quads."""
    return (rows * <Py_ssize_t>sizeof(int8_row) // 4 + 15) // 16 * 16


cdef inline Py_ssize_t most_quads(Py_ssize_t rows, Py_ssize_t widest) noexcept nogil:
    """Memory, in quads, for the left factors of products of up to so many rows and columns."""
    return rows_of_codes(rows) + rows * row_of_pairs(quads_of(widest))


cdef inline void code_row(const float* x, Py_ssize_t n, uint32_t* quads, int8_row* row) noexcept nogil:
    """The codes of a row, and zeros up to a whole quad."""
    cdef Py_ssize_t k
    row[0] = int8_codes(x, n, <uint8_t*>quads)
    for k in range(n, 4 * quads_of(n)):
        (<uint8_t*>quads)[k] = 0


cdef inline void code_rows(Quads* p, Matrix x, uint32_t* memory, int n_threads) noexcept nogil:
    """The left factor."""
    cdef int8_row* row_codes = <int8_row*>memory
    cdef uint32_t* quads = memory + rows_of_codes(p.rows)
    cdef Py_ssize_t r, row = row_of_pairs(quads_of(p.depth))
    p.row_codes, p.data, p.row = row_codes, quads, row
    if n_threads == 1 or p.rows * p.depth <= SERIAL_COPY:
        for r in range(p.rows):
            code_row(x.data + r * x.row, p.depth, quads + r * row, row_codes + r)
        return
    for r in prange(p.rows, num_threads=n_threads, schedule="static"):
        code_row(x.data + r * x.row, p.depth, quads + r * row, row_codes + r)


cdef inline void quads_unit(const Quads* p, Py_ssize_t row0, Py_ssize_t row1, Py_ssize_t panel) noexcept nogil:
    """Rows row0..row1 of a panel of C."""
    cdef quads_tile tile
    cdef int32_t[TILE_FLOATS] sums
    cdef Py_ssize_t col0 = panel * TILE_COLS, r = row0
    tile.depth, tile.a_row, tile.sums = quads_of(p.depth), p.row, sums
    tile.panel = p.weight.panels + panel * tile.depth * TILE_COLS
    tile.cols = <int>min(<Py_ssize_t>TILE_COLS, p.cols - col0)
    while r < row1:
        tile.rows, tile.a = <int>min(<Py_ssize_t>TILE_ROWS, row1 - r), p.data + r * p.row
        quads_sums(&tile)
        quads_end(&tile, p.row_codes + r, p.weight.sums + col0, p.weight.scales + col0,
                  p.bias + col0 if p.bias != NULL else NULL, p.relu, p.c.data + r * p.c.row + col0, p.c.row)
        if p.finish != NULL:
            p.finish(p, r, tile.rows, col0, tile.cols)
        r += TILE_ROWS


cdef inline void quads_product(Quads* p, Matrix x, uint32_t* memory, int n_threads) noexcept nogil:
    """`memory`: most_quads of it."""
    cdef int threads = threads_of_product(<double>p.rows * p.depth * p.cols, n_threads)
    cdef Py_ssize_t panels = (p.cols + TILE_COLS - 1) // TILE_COLS
    cdef Py_ssize_t tiles = (p.rows + TILE_ROWS - 1) // TILE_ROWS
    cdef Py_ssize_t shares = row_shares(panels, tiles, threads)
    cdef Py_ssize_t share = (tiles + shares - 1) // shares * TILE_ROWS      # rows of a share
    cdef Py_ssize_t unit, row0
    code_rows(p, x, memory, threads)
    if threads == 1:
        for unit in range(panels):
            quads_unit(p, 0, p.rows, unit)
        return
    for unit in prange(panels * shares, num_threads=threads, schedule="dynamic"):
        row0 = unit % shares * share
        quads_unit(p, row0, min(row0 + share, p.rows), unit // shares)

"""The product C = A B or A Bt, panel by panel, and the epilogue of each tile while it is in the cache."""

from cython.parallel cimport prange, threadid
from libc.stdint cimport uint32_t
from libc.string cimport memset

from cydrop._core.epilogue cimport Epilogue
from cydrop._core.matrix cimport Matrix
from cydrop._core.pairs cimport (
    PAIRS_PERIOD, Pairs, pack_pairs, pack_pairs_transposed, pairs_along_rows, pairs_product, pairs_tile,
)
from cydrop._core.panels cimport (
    KC, TILE_COLS, TILE_LOG2_LINES, TILE_ROWS, lies_ready, pack, pack_transposed, row_shares, scratch_floats,
    tile_of_rows, tile_wanted,
)
from cydrop._core.serial cimport threads_of_product

cdef enum:
    CACHED = 32768              # elements of a product that stay in L2 until the last panel is done


cdef struct Product:            # C = A B, or A Bt, and what follows
    Matrix a
    const float* b
    Py_ssize_t b_row
    const float* b_end          # B may be read up to here
    bint transposed
    Py_ssize_t rows, depth, cols
    Matrix c
    Pairs pairs                 # A in bfloat16; B follows it
    const float* bias           # added in the tile, NULL: none
    bint relu                   # in the tile
    # what is left to do with a finished rectangle of C: row0, rows, col0, cols; NULL: nothing
    void (*finish)(const Product*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
    const Epilogue* epilogue    # for `finish`, with its z and y
    Matrix z, y


cdef inline Py_ssize_t block_depth(Py_ssize_t depth, Py_ssize_t most) noexcept nogil:
    """Depth of the blocks of a product, all but the last; even ones, for a thin last one would cost a whole pass."""
    cdef Py_ssize_t blocks = (depth + most - 1) // most
    cdef Py_ssize_t deep = (depth + blocks - 1) // blocks
    return (deep + 15) // 16 * 16


cdef inline bint want_next(
    const Product* p, Py_ssize_t k0, Py_ssize_t most, Py_ssize_t col0, Py_ssize_t tile, tile_wanted* wanted
) noexcept nogil:
    """What tile number `tile` of a block asks for: its share of the panel's next block, which begins with k0 and is
    `most` deep at most."""
    cdef int i
    cdef Py_ssize_t place
    for i in range(3):
        if p.transposed:
            place = (col0 + i * TILE_ROWS) * p.b_row + k0 + tile * TILE_COLS
        else:
            place = (k0 + (3 * tile + i) * TILE_ROWS) * p.b_row + col0
        wanted.at[i] = <float*>p.b + place
    return tile * (TILE_COLS if p.transposed else 3 * TILE_ROWS) < min(most, p.depth - k0)


cdef inline void product_unit(
    const Product* p, Py_ssize_t row0, Py_ssize_t row1, Py_ssize_t col0, bint finishing, float* scratch
) noexcept nogil:
    """Rows row0..row1 of the panel of C that begins with column col0."""
    cdef Py_ssize_t cols = min(<Py_ssize_t>TILE_COLS, p.cols - col0)
    cdef bint paired = p.pairs.data != NULL
    cdef Py_ssize_t most = 2 * KC if paired else KC
    cdef Py_ssize_t k0 = 0, block = block_depth(p.depth, most), deep, r, some, panel_row
    cdef pairs_tile tile
    cdef tile_wanted wanted
    cdef bint more
    cdef const float* panel
    cdef const float* bias = NULL
    cdef bint last
    cdef bint ready = not p.transposed and not paired and lies_ready(
        p.b + col0, p.b_row, p.depth, cols, (row1 - row0 + TILE_ROWS - 1) // TILE_ROWS, p.b_end)
    wanted.row = p.b_row
    wanted.rows, wanted.log2_lines, wanted.log2_period = TILE_ROWS, TILE_LOG2_LINES, PAIRS_PERIOD if paired else 2
    memset(&tile, 0, sizeof(pairs_tile))
    tile.panel = <uint32_t*>scratch
    tile.a_row, tile.a_depth, tile.c_row, tile.cols = p.pairs.row, 1, p.c.row, <int>cols
    while k0 < p.depth:
        deep = min(block, p.depth - k0)
        last = k0 + deep == p.depth
        panel = scratch
        panel_row = TILE_COLS
        if ready:
            panel = p.b + k0 * p.b_row + col0
            panel_row = p.b_row
        elif paired and p.transposed:
            pack_pairs_transposed(p.b + col0 * p.b_row + k0, p.b_row, deep, cols, <uint32_t*>scratch)
        elif paired:
            pack_pairs(p.b + k0 * p.b_row + col0, p.b_row, deep, cols, <uint32_t*>scratch)
        elif p.transposed:
            pack_transposed(p.b + col0 * p.b_row + k0, p.b_row, p.b_end, deep, cols, scratch)
        else:
            pack(p.b + k0 * p.b_row + col0, p.b_row, deep, cols, scratch)
        more = not (ready or last)
        if last and p.bias != NULL:
            bias = p.bias + col0
        r = row0
        while r < row1:
            some = min(<Py_ssize_t>TILE_ROWS, row1 - r)
            if more:
                more = want_next(p, k0 + deep, most, col0, (r - row0) // TILE_ROWS, &wanted)
            if paired:
                tile.rows, tile.depth, tile.a = <int>some, (deep + 1) // 2, p.pairs.data + r * p.pairs.row + k0 // 2
                tile.c, tile.resume = p.c.data + r * p.c.row + col0, k0 > 0
                tile.bias, tile.relu, tile.wanted = bias, last and p.relu, &wanted if more else NULL
                pairs_product(&tile)
            else:
                tile_of_rows(<int>some, deep, p.a.data + r * p.a.row + k0, p.a.row, panel, panel_row,
                             p.c.data + r * p.c.row + col0, p.c.row, <int>cols, k0 > 0, bias, last and p.relu,
                             &wanted if more else NULL)
            if last and finishing:
                p.finish(p, r, some, col0, cols)
            r += TILE_ROWS
        k0 += block


cdef inline void product(Product* p, float* scratch, uint32_t* pairs, int n_threads) noexcept nogil:
    """`pairs`: memory for A as pairs of bfloat16, which the product is of then; NULL: it is of float32."""
    cdef int threads = threads_of_product(<double>p.rows * p.depth * p.cols, n_threads)
    cdef Py_ssize_t panels = (p.cols + TILE_COLS - 1) // TILE_COLS
    cdef Py_ssize_t tiles = (p.rows + TILE_ROWS - 1) // TILE_ROWS
    cdef Py_ssize_t shares = row_shares(panels, tiles, threads)
    cdef Py_ssize_t share = (tiles + shares - 1) // shares * TILE_ROWS      # rows of a share
    cdef Py_ssize_t size = scratch_floats(p.rows), unit, row0
    cdef bint cached = p.rows * p.cols <= CACHED    # then `finish` passes over whole rows at the end
    p.pairs.data = NULL
    if pairs != NULL:
        p.pairs = pairs_along_rows(p.a, p.rows, p.depth, pairs, threads)
    if threads == 1:
        for unit in range(panels):
            product_unit(p, 0, p.rows, unit * TILE_COLS, p.finish != NULL and not cached, scratch)
        if p.finish != NULL and cached:
            p.finish(p, 0, p.rows, 0, p.cols)
        return
    for unit in prange(panels * shares, num_threads=threads, schedule="dynamic"):
        row0 = unit % shares * share
        product_unit(p, row0, min(row0 + share, p.rows), unit // shares * TILE_COLS,
                     p.finish != NULL, scratch + threadid() * size)


cdef inline void outer_unit(const Product* p, Py_ssize_t r) noexcept nogil:
    """A row of it. The sum of a chain that begins with +0 is never -0."""
    cdef float a = p.a.data[r * p.a.row]
    cdef const float* b = p.b
    cdef float* c = p.c.data + r * p.c.row
    cdef Py_ssize_t j
    for j in range(p.cols):
        c[j] = a * b[j] + <float>0.0
    if p.finish != NULL:
        p.finish(p, r, 1, 0, p.cols)


cdef inline void outer_product(const Product* p, int n_threads) noexcept nogil:
    """C = A Bt of a single column each, B one that lies in memory as a row does."""
    cdef int threads = threads_of_product(<double>p.rows * p.cols, n_threads)
    cdef Py_ssize_t r
    if threads == 1:
        for r in range(p.rows):
            outer_unit(p, r)
        return
    for r in prange(p.rows, num_threads=threads, schedule="static"):
        outer_unit(p, r)

"""The dense operation: three products built from one register tile (tile.h), split by tiles of the output.

    forward           Y  = drop(f(X W + b))     X (rows, n_in), W (n_in, n_out)
    backward, input   dX = dZ Wt                followed by the derivative of the layer below
    backward, weight  dW = Xt dZ, db = sum dZ   followed by the optimizer

A work unit is a panel of TILE_COLS output columns (and, where panels are few, a share of the rows). The panel of
the right-hand factor is packed once, KC deep, into memory that stays in L1 while all row tiles pass over it:

              TILE_COLS                      TILE_COLS
             +---------+                    +---------+
          KC | packed  |           TILE_ROWS|  tile   | -> epilogue while the tile is in L1
             +---------+                    +---------+

For dW a unit is a strip of several panels. A row of tiles becomes a strip of dW, and the optimizer passes over the
same strip of W and of its moments, whose pieces of memory are then long enough for the processor to fetch ahead
(one tile's 128 bytes are not: 10 % of the whole step at three layers of 1,024).
"""

from cython.parallel cimport prange, threadid
from libc.math cimport sqrt
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.activations cimport IDENTITY, RELU, activate, activation_gradient
from cydrop._core.dropout cimport select_row
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.gather cimport spread
from cydrop._core.optimizers cimport update_rows
from cydrop._core.relu cimport relu_gradient, relu_in_place

cdef extern from "tile.h" nogil:
    enum:
        TILE_WIDE
    ctypedef struct tile_wanted:
        const float* at[3]
        Py_ssize_t row
        int rows, wide, seldom
    void tile_of_rows(
        int rows, Py_ssize_t depth, const float* a, Py_ssize_t stride, const float* panel, Py_ssize_t panel_row,
        float* c, Py_ssize_t c_row, int cols, int resume, const float* bias, int relu, const tile_wanted* wanted)
    void tile_of_columns(
        int rows, Py_ssize_t depth, const float* a, Py_ssize_t stride, const float* panel, Py_ssize_t panel_row,
        float* c, Py_ssize_t c_row, int cols, const tile_wanted* wanted)
    void tile_transpose(const float* b, Py_ssize_t b_row, float* panel)

cdef extern from "fma.h" nogil:
    float sqrtf(float x)

cdef enum:
    KC = 256                    # greatest depth of a packed panel: 36 KiB with AVX-512, 18 KiB with AVX2
    STRIP = 8                   # panels of dW that are updated together: long pieces of W, which the memory likes
    STRIP_FLOATS = 65536        # that the packed panels of a strip may take, a part of L2
    DIRECT = 8192               # floats of a right-hand factor that the tile reads where it lies: 32 KiB
    CACHED = 32768              # elements of a product that stay in L2 until the last panel is done
    SERIAL_WORK = 600000        # multiply-adds below which a second thread costs more than it brings


cdef inline Py_ssize_t strip_panels(Py_ssize_t rows) noexcept nogil:
    """Panels of a strip for a batch of `rows` rows."""
    return max(<Py_ssize_t>1, min(<Py_ssize_t>STRIP, <Py_ssize_t>STRIP_FLOATS // (rows * TILE_COLS)))


cdef inline Py_ssize_t panels_floats(Py_ssize_t rows) noexcept nogil:
    """Memory for the packed panels of a strip; never less for more rows."""
    return max(rows * TILE_COLS, min(rows * TILE_COLS * STRIP, <Py_ssize_t>STRIP_FLOATS))


cdef Py_ssize_t scratch_floats(Py_ssize_t rows) noexcept nogil:
    """Floats of scratch memory that one thread needs for batches of up to `rows` rows: a panel of W, or the panels
    of a strip and the strip."""
    return max(<Py_ssize_t>KC * TILE_COLS, panels_floats(rows) + STRIP * TILE_ROWS * TILE_COLS)


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


cdef void finish_forward(
    const Epilogue* e, Matrix z, Matrix y, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols,
    bint activated
) noexcept nogil:
    """y = drop(f(z)) on a rectangle, or y = drop(y) where the activation is done; z may be y."""
    cdef Py_ssize_t r, j
    cdef float* to
    cdef float* source
    for r in range(row0, row0 + rows):
        source = z.data + r * z.row + col0
        to = y.data + r * y.row + col0
        if activated:
            source = to
        elif e.activation == RELU and source == to:
            relu_in_place(to, cols)
        elif e.activation != IDENTITY:
            activate(e.activation, e.alpha, source, to, cols)
        elif source != to and e.mask == NULL:
            memcpy(to, source, cols * sizeof(float))
        if e.mask != NULL:
            select_row(e.mask, r * e.mask_row + col0, source if e.activation == IDENTITY else to, e.scale, to, cols)
        elif e.scale != <float>1.0:
            for j in range(cols):
                to[j] = to[j] * e.scale


cdef void finish_backward(
    const Epilogue* e, Matrix z, Matrix y, Matrix g,
    Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    """From d loss / d y to d loss / d z in place, on a rectangle of g."""
    cdef Py_ssize_t r, j
    cdef float* slope
    for r in range(row0, row0 + rows):
        slope = g.data + r * g.row + col0
        if e.activation == RELU:
            relu_gradient(slope, y.data + r * y.row + col0, e.scale, cols)
            continue
        if e.mask != NULL:
            select_row(e.mask, r * e.mask_row + col0, slope, e.scale, slope, cols)
        elif e.scale != <float>1.0:
            for j in range(cols):
                slope[j] = slope[j] * e.scale
        if e.activation != IDENTITY:
            activation_gradient(e.activation, e.alpha, z.data + r * z.row + col0, slope, cols)


cdef inline int threads_for(double work, int n_threads) noexcept nogil:
    return 1 if work < SERIAL_WORK else n_threads


cdef inline Py_ssize_t row_shares(Py_ssize_t panels, Py_ssize_t tiles, int n_threads) noexcept nogil:
    """Into how many shares the rows are cut, so that there is work for all threads."""
    cdef Py_ssize_t wanted
    if n_threads == 1:
        return 1
    wanted = (4 * n_threads + panels - 1) // panels
    return max(<Py_ssize_t>1, min(wanted, tiles))


cdef inline Py_ssize_t block_depth(Py_ssize_t depth) noexcept nogil:
    """Depth of the blocks of a product, all but the last; even ones, for a thin last one would cost a whole pass."""
    cdef Py_ssize_t blocks = (depth + KC - 1) // KC
    cdef Py_ssize_t deep = (depth + blocks - 1) // blocks
    return (deep + 15) // 16 * 16


cdef inline bint lies_ready(
    const float* b, Py_ssize_t b_row, Py_ssize_t depth, Py_ssize_t cols, Py_ssize_t tiles, const float* end
) noexcept nogil:
    """Whether tiles may read panels of B in place: B is small or read once or twice, and its memory goes on to where
    the vectors of the last panel end."""
    cdef Py_ssize_t rest = cols % TILE_COLS
    cdef Py_ssize_t width = cols - rest
    if rest > 0:
        width += TILE_LANES if rest <= TILE_LANES else TILE_COLS
    return (tiles <= 2 or depth * b_row <= DIRECT) and b + (depth - 1) * b_row + width <= end


cdef struct Product:            # C = A B, or A Bt, and what follows
    Matrix a
    const float* b
    Py_ssize_t b_row
    const float* b_end          # B may be read up to here
    bint transposed
    Py_ssize_t rows, depth, cols
    Matrix c
    const float* bias           # added in the tile, NULL: none
    bint relu                   # in the tile
    const Epilogue* rest        # what is left to do then, NULL: nothing
    bint backward               # the epilogue of dX instead of Y
    Matrix z, y                 # of the epilogue


cdef inline void finish(
    const Product* p, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    if p.rest != NULL:
        if p.backward:
            finish_backward(p.rest, p.z, p.y, p.c, row0, rows, col0, cols)
        else:
            finish_forward(p.rest, p.c, p.y, row0, rows, col0, cols, p.relu)


cdef inline bint want_next(
    const Product* p, Py_ssize_t k0, Py_ssize_t col0, Py_ssize_t tile, tile_wanted* wanted
) noexcept nogil:
    """What tile number `tile` of a block asks for: its share of the panel's next block, which begins with k0."""
    cdef int i
    cdef Py_ssize_t place
    for i in range(3):
        if p.transposed:
            place = (col0 + i * TILE_ROWS) * p.b_row + k0 + tile * TILE_COLS
        else:
            place = (k0 + (3 * tile + i) * TILE_ROWS) * p.b_row + col0
        wanted.at[i] = <float*>p.b + place
    return tile * (TILE_COLS if p.transposed else 3 * TILE_ROWS) < min(<Py_ssize_t>KC, p.depth - k0)


cdef void product_unit(
    const Product* p, Py_ssize_t row0, Py_ssize_t row1, Py_ssize_t col0, bint finishing, float* scratch
) noexcept nogil:
    """Rows row0..row1 of the panel of C that begins with column col0."""
    cdef Py_ssize_t cols = min(<Py_ssize_t>TILE_COLS, p.cols - col0)
    cdef Py_ssize_t k0 = 0, block = block_depth(p.depth), deep, r, some, panel_row
    cdef tile_wanted wanted
    cdef bint more
    cdef const float* panel
    cdef const float* bias = NULL
    cdef bint last
    cdef bint ready = not p.transposed and lies_ready(
        p.b + col0, p.b_row, p.depth, cols, (row1 - row0 + TILE_ROWS - 1) // TILE_ROWS, p.b_end)
    wanted.row = p.b_row
    wanted.rows, wanted.wide, wanted.seldom = TILE_ROWS, TILE_WIDE, 2
    while k0 < p.depth:
        deep = min(block, p.depth - k0)
        last = k0 + deep == p.depth
        panel = scratch
        panel_row = TILE_COLS
        if ready:
            panel = p.b + k0 * p.b_row + col0
            panel_row = p.b_row
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
                more = want_next(p, k0 + deep, col0, (r - row0) // TILE_ROWS, &wanted)
            tile_of_rows(<int>some, deep, p.a.data + r * p.a.row + k0, p.a.row, panel, panel_row,
                         p.c.data + r * p.c.row + col0, p.c.row, <int>cols, k0 > 0, bias, last and p.relu,
                         &wanted if more else NULL)
            if last and finishing:
                finish(p, r, some, col0, cols)
            r += TILE_ROWS
        k0 += block


cdef void product(const Product* p, float* scratch, int n_threads) noexcept nogil:
    cdef int threads = threads_for(<double>p.rows * p.depth * p.cols, n_threads)
    cdef Py_ssize_t panels = (p.cols + TILE_COLS - 1) // TILE_COLS
    cdef Py_ssize_t tiles = (p.rows + TILE_ROWS - 1) // TILE_ROWS
    cdef Py_ssize_t shares = row_shares(panels, tiles, threads)
    cdef Py_ssize_t share = (tiles + shares - 1) // shares * TILE_ROWS      # rows of a share
    cdef Py_ssize_t size = scratch_floats(p.rows), unit, row0
    cdef bint cached = p.rows * p.cols <= CACHED    # then the epilogue passes over whole rows at the end
    if threads == 1:
        for unit in range(panels):
            product_unit(p, 0, p.rows, unit * TILE_COLS, not cached, scratch)
        if cached:
            finish(p, 0, p.rows, 0, p.cols)
        return
    for unit in prange(panels * shares, num_threads=threads, schedule="dynamic"):
        row0 = unit % shares * share
        product_unit(p, row0, min(row0 + share, p.rows), unit // shares * TILE_COLS, True,
                     scratch + threadid() * size)


cdef void dense_forward(
    Matrix x, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, float* scratch, int n_threads
) noexcept nogil:
    """y = drop(f(x weight + bias)); z receives x weight + bias (z may be y where nobody needs it later).

    What lies between the weight and end may be read.
    """
    cdef Product p
    p.a = x
    p.b, p.b_row, p.b_end, p.transposed = weight.data, weight.row, end, False
    p.rows, p.depth, p.cols = rows, n_in, n_out
    p.c, p.z, p.y = z, z, y
    p.backward = False
    p.bias = e.bias
    p.relu = e.activation == RELU and z.data == y.data
    p.rest = e
    if (p.relu or e.activation == IDENTITY) and z.data == y.data and e.mask == NULL and e.scale == <float>1.0:
        p.rest = NULL
    product(&p, scratch, n_threads)


cdef void dense_backward_input(
    Matrix dz, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, Matrix dx, float* scratch, int n_threads
) noexcept nogil:
    """dx = dz weight^t, then through the epilogue e of the operation below (z and y are its; e may be NULL)."""
    cdef Product p
    p.a = dz
    p.b, p.b_row, p.b_end, p.transposed = weight.data, weight.row, end, True
    p.rows, p.depth, p.cols = rows, n_out, n_in
    p.c, p.z, p.y = dx, z, y
    p.backward = True
    p.bias = NULL
    p.relu = False
    p.rest = e
    product(&p, scratch, n_threads)


cdef inline void column_sums(
    const float* panel, Py_ssize_t panel_row, Py_ssize_t rows, Py_ssize_t cols, float* sums
) noexcept nogil:
    """sums[j] = panel[0, j] + panel[1, j] + ..."""
    cdef Py_ssize_t k, j
    for j in range(cols):
        sums[j] = 0.0
    for k in range(rows):
        for j in range(cols):
            sums[j] = sums[j] + panel[k * panel_row + j]


cdef inline float* at(float* base, Py_ssize_t offset) noexcept nogil:
    return base + offset if base != NULL else NULL


cdef void bias_unit(
    const float* panel, Py_ssize_t panel_row, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols, const Gradient* to,
    float* sums
) noexcept nogil:
    """Columns col0..col0+cols of db, one panel."""
    if cols <= TILE_LANES:
        column_sums(panel, panel_row, rows, TILE_LANES, sums)
    else:
        column_sums(panel, panel_row, rows, TILE_COLS, sums)
    if to.gathered:
        return
    if to.update != NULL:
        update_rows(to.update, to.bias + col0, sums, at(to.bias_moment1, col0), at(to.bias_moment2, col0),
                    1, cols, 0, 0)
    else:
        memcpy(to.bias_gradient + col0, sums, cols * sizeof(float))


cdef inline Py_ssize_t place_of(const int32_t* kept, Py_ssize_t i, Py_ssize_t last, Py_ssize_t whole) noexcept nogil:
    """Where the part of the whole begins that number i stands for: its own place and the dropped ones behind it; for
    number 0 also those before it. For the last, the end of the whole."""
    if i == 0:
        return 0
    if i == last:
        return whole
    return kept[i] if kept != NULL else i


cdef void spread_strip(
    const Gradient* to, const float* strip, Py_ssize_t strip_row, Py_ssize_t i0, Py_ssize_t some, Py_ssize_t n_in,
    Py_ssize_t col0, Py_ssize_t cols, Py_ssize_t n_out, float* wide
) noexcept nogil:
    """Rows i0..i0+some and columns col0..col0+cols of a gathered gradient, and the zeros of the dropped units around
    them: to the optimizer, or into the gradient.

        strip   g g g              the weight   0 g 0 0 g g 0     kept
                                                0 0 0 0 0 0 0     dropped: the moments still decay
                h h h                           0 h 0 0 h h 0     kept

    `wide` is a place for a row of the whole weight; behind it lies a row of zeros.
    """
    cdef Py_ssize_t first = place_of(to.cols_kept, col0, n_out, to.n_out)
    cdef Py_ssize_t width = place_of(to.cols_kept, col0 + cols, n_out, to.n_out) - first
    cdef Py_ssize_t i = i0, r = place_of(to.rows_kept, i0, n_in, to.n_in), place
    cdef Py_ssize_t end = place_of(to.rows_kept, i0 + some, n_in, to.n_in)
    cdef bint kept
    cdef const float* row
    while r < end:
        kept = i < i0 + some and r == (to.rows_kept[i] if to.rows_kept != NULL else i)
        place = r * to.n_out + first
        row = wide
        if kept:
            row = strip + (i - i0) * strip_row
            if to.cols_kept != NULL:
                spread(row, to.cols_bits, first, width, wide)
                row = wide
            i += 1
        if not kept:
            row = wide + to.n_out       # zeros
        if to.update == NULL:
            memcpy(to.weight_gradient + place, row, width * sizeof(float))
        elif kept or not to.update.still:
            update_rows(to.update, to.weight + place, row, at(to.weight_moment1, place), at(to.weight_moment2, place),
                        1, width, 0, 0)
        r += 1


cdef void spread_bias(
    const Gradient* to, const float* sums, Py_ssize_t col0, Py_ssize_t cols, Py_ssize_t n_out, float* wide
) noexcept nogil:
    """The same for a part of the bias."""
    cdef Py_ssize_t first = place_of(to.cols_kept, col0, n_out, to.n_out)
    cdef Py_ssize_t width = place_of(to.cols_kept, col0 + cols, n_out, to.n_out) - first
    cdef const float* row = sums
    if to.cols_kept != NULL:
        spread(sums, to.cols_bits, first, width, wide)
        row = wide
    if to.update == NULL:
        memcpy(to.bias_gradient + first, row, width * sizeof(float))
    else:
        update_rows(to.update, to.bias + first, row, at(to.bias_moment1, first), at(to.bias_moment2, first),
                    1, width, 0, 0)


cdef inline void mask_strip(
    const Gradient* to, float* strip, Py_ssize_t strip_row, Py_ssize_t i0, Py_ssize_t some, Py_ssize_t n_out,
    Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    """Drop-connect: a dropped weight has no gradient."""
    cdef Py_ssize_t i
    for i in range(some):
        select_row(to.mask, (i0 + i) * n_out + col0, strip + i * strip_row, to.scale, strip + i * strip_row, cols)


cdef void weight_unit(
    Matrix x, Matrix dz, Py_ssize_t rows, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t n_out,
    Py_ssize_t n_in, Py_ssize_t col0, Py_ssize_t cols, const Gradient* to, float* scratch, float* wide
) noexcept nogil:
    """Rows i0..i1 and columns col0..col0+cols of dW, up to STRIP panels, and with i0 = 0 of db."""
    cdef float* panel[STRIP]
    cdef tile_wanted wanted
    cdef float* strip = scratch + panels_floats(rows)         # a row of tiles
    cdef Py_ssize_t i, j, p, some, place, want, panel_row = TILE_COLS
    cdef Py_ssize_t panels = (cols + TILE_COLS - 1) // TILE_COLS
    cdef bint direct = to.update == NULL and not to.gathered        # the gradient goes where it is wanted at once
    cdef bint whole = cols == n_out and not to.gathered     # rows of W lie one behind the other: update them as one
    cdef Py_ssize_t strip_row = cols if whole else STRIP * TILE_COLS
    cdef bint ready = lies_ready(dz.data + col0, dz.row, rows, cols, (i1 - i0 + TILE_ROWS - 1) // TILE_ROWS,
                                 dz.data + rows * dz.row)
    wanted.row = to.n_out if to.gathered else n_out
    wanted.rows, wanted.wide, wanted.seldom = TILE_ROWS, TILE_WIDE, 2
    if to.gathered:             # a tile stands for more of the whole weight than its own size
        wanted.wide = 2
        wanted.seldom = 0
    if ready:
        panel_row = dz.row
    for p in range(panels):
        j = p * TILE_COLS
        panel[p] = dz.data + col0 + j
        if not ready:
            panel[p] = scratch + rows * j
            pack(dz.data + col0 + j, dz.row, rows, min(<Py_ssize_t>TILE_COLS, cols - j), panel[p])
        if i0 == 0 and to.bias != NULL:
            bias_unit(panel[p], panel_row, rows, col0 + j, min(<Py_ssize_t>TILE_COLS, cols - j), to, strip + j)
    if to.gathered:
        memset(wide + to.n_out, 0, to.n_out * sizeof(float))
        if i0 == 0 and to.bias != NULL:
            spread_bias(to, strip, col0, cols, n_out, wide)
    i = i0
    while i < i1:
        some = min(<Py_ssize_t>TILE_ROWS, i1 - i)
        place = i * n_out + col0
        for p in range(panels):
            j = p * TILE_COLS
            if direct:
                tile_of_columns(<int>some, rows, x.data + i, x.row, panel[p], panel_row,
                                to.weight_gradient + place + j, n_out, <int>min(<Py_ssize_t>TILE_COLS, cols - j), NULL)
                continue
            if to.gathered:
                wanted.rows = <int>(place_of(to.rows_kept, i + some, n_in, to.n_in)
                                    - place_of(to.rows_kept, i, n_in, to.n_in))
                want = place_of(to.rows_kept, i, n_in, to.n_in) * to.n_out + place_of(to.cols_kept, col0 + j, n_out,
                                                                                      to.n_out)
            else:
                want = place + j
            wanted.at[0] = to.weight + want
            wanted.at[1] = (to.weight_moment1 if to.weight_moment1 != NULL else to.weight) + want
            wanted.at[2] = (to.weight_moment2 if to.weight_moment2 != NULL else to.weight) + want
            tile_of_columns(<int>some, rows, x.data + i, x.row, panel[p], panel_row, strip + j, strip_row,
                            <int>min(<Py_ssize_t>TILE_COLS, cols - j), &wanted)
        if to.mask != NULL:
            mask_strip(to, to.weight_gradient + place if direct else strip, n_out if direct else strip_row, i, some,
                       n_out, col0, cols)
        if to.gathered:
            spread_strip(to, strip, strip_row, i, some, n_in, col0, cols, n_out, wide)
        elif not direct:
            update_rows(to.update, to.weight + place, strip, at(to.weight_moment1, place),
                        at(to.weight_moment2, place), 1 if whole else some, some * cols if whole else cols, n_out,
                        strip_row)
        i += TILE_ROWS


cdef void dense_backward_weight(
    Matrix x, Matrix dz, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Gradient* to, float* scratch, int n_threads
) noexcept nogil:
    """dW = x^t dz and db = sum of the rows of dz, written or handed to the optimizer."""
    cdef int threads = threads_for(<double>rows * n_in * n_out, n_threads)
    cdef Py_ssize_t wide = strip_panels(rows) * TILE_COLS
    cdef Py_ssize_t strips = (n_out + wide - 1) // wide
    cdef Py_ssize_t tiles = (n_in + TILE_ROWS - 1) // TILE_ROWS
    cdef Py_ssize_t shares = row_shares(strips, tiles, threads)
    cdef Py_ssize_t share = (tiles + shares - 1) // shares * TILE_ROWS
    cdef Py_ssize_t size = scratch_floats(rows), unit, col0, i0
    if threads == 1:
        for unit in range(strips):
            col0 = unit * wide
            weight_unit(x, dz, rows, 0, n_in, n_out, n_in, col0, min(wide, n_out - col0), to, scratch, to.wide)
        return
    for unit in prange(strips * shares, num_threads=threads, schedule="dynamic"):
        col0 = unit // shares * wide
        i0 = unit % shares * share
        weight_unit(x, dz, rows, i0, min(i0 + share, n_in), n_out, n_in, col0, min(wide, n_out - col0), to,
                    scratch + threadid() * size, to.wide + threadid() * to.wide_row)


cdef inline void clip_column_block(
    float* weight, Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t col0, Py_ssize_t cols, float limit
) noexcept nogil:
    cdef double[64] squares
    cdef float[64] factor
    cdef float norm
    cdef Py_ssize_t i, j
    for j in range(cols):
        squares[j] = 0.0
    for i in range(n_in):
        for j in range(cols):
            squares[j] += <double>weight[i * n_out + col0 + j] * <double>weight[i * n_out + col0 + j]
    for j in range(cols):
        # a sum of squares may leave float32's range where the norm does not
        norm = sqrtf(<float>squares[j]) if 1.2e-38 < squares[j] < 3.4e38 else <float>sqrt(squares[j])
        factor[j] = limit / norm if norm > limit else <float>1.0
    for i in range(n_in):
        for j in range(cols):
            weight[i * n_out + col0 + j] = weight[i * n_out + col0 + j] * factor[j]


cdef void clip_columns(
    float* weight, Py_ssize_t n_in, Py_ssize_t n_out, float limit, int n_threads
) noexcept nogil:
    """Max-norm (Srivastava et al. 2014): a unit's incoming weights, a column, are scaled down to norm `limit`."""
    cdef Py_ssize_t col0
    for col0 in prange(0, n_out, 64, num_threads=threads_for(<double>n_in * n_out, n_threads), schedule="static"):
        clip_column_block(weight, n_in, n_out, col0, min(<Py_ssize_t>64, n_out - col0), limit)


cdef float[:] _scratch(Py_ssize_t rows, int n_threads):
    """64-byte aligned scratch memory for the functions below, which allocate for themselves."""
    from cydrop._core.memory import aligned
    return aligned(scratch_floats(rows) * n_threads)


def forward(
    const float[:, ::1] x,      # IN
    const float[:, ::1] weight,  # IN
    const float[::1] bias,      # IN, or empty
    float[:, ::1] y,            # OUT
    int n_threads,
):
    """y = x weight + bias"""
    cdef Epilogue e
    cdef Matrix mx, my, mw
    cdef float[:] scratch = _scratch(x.shape[0], n_threads)
    memset(&e, 0, sizeof(Epilogue))
    e.scale = 1.0
    e.bias = &bias[0] if bias.shape[0] else NULL
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]      # a product never writes to its factors
    mw.data, mw.row = <float*>&weight[0, 0], weight.shape[1]
    my.data, my.row = &y[0, 0], y.shape[1]
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        dense_forward(mx, mw, mw.data + weight.shape[0] * weight.shape[1], x.shape[0], x.shape[1],
                      y.shape[1], &e, my, my, &scratch[0], n_threads)
        restore_floats(control)


def backward(
    const float[:, ::1] dy,     # IN
    const float[:, ::1] x,      # IN
    const float[:, ::1] weight,  # IN
    float[:, ::1] dx,           # OUT
    float[:, ::1] dweight,      # OUT
    float[::1] dbias,           # OUT
    int n_threads,
):
    """dx = dy weight^t, dweight = x^t dy, dbias = sum of the rows of dy"""
    cdef Matrix mx, mdy, mdx, mw
    cdef Gradient to
    cdef Py_ssize_t rows = x.shape[0], n_in = x.shape[1], n_out = dy.shape[1]
    cdef float[:] scratch = _scratch(rows, n_threads)
    memset(&to, 0, sizeof(Gradient))
    to.weight_gradient = &dweight[0, 0]
    to.bias = &dbias[0]         # not NULL: there is a bias
    to.bias_gradient = &dbias[0]
    mx.data, mx.row = <float*>&x[0, 0], n_in
    mdx.data, mdx.row = &dx[0, 0], n_in
    mdy.data, mdy.row = <float*>&dy[0, 0], n_out
    mw.data, mw.row = <float*>&weight[0, 0], n_out
    cdef uint64_t control
    with nogil:
        control = exact_floats(n_threads)
        dense_backward_input(mdy, mw, mw.data + n_in * n_out, rows, n_in, n_out, NULL, mdx, mdx, mdx,
                             &scratch[0], n_threads)
        dense_backward_weight(mx, mdy, rows, n_in, n_out, &to, &scratch[0], n_threads)
        restore_floats(control)

"""The gradients of a layer's parameters, dW = Xt dZ and db = sum dZ, into memory or into the optimizer at once.

A unit is a strip of several panels. A row of tiles becomes a strip of dW, and the optimizer passes over the same
strip of W and of its moments, whose pieces of memory are then long enough for the processor to fetch ahead (one
tile's 128 bytes are not: 10 % of the whole step at three layers of 1,024).
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.dropout cimport select_row
from cydrop._core.gather cimport gather_part, spread, spread_over
from cydrop._core.matrix cimport Matrix
from cydrop._core.optimizers cimport Update, update_rows
from cydrop._core.pairs cimport PAIRS_PERIOD, Pairs, pack_pairs_of_shards, pairs_product, pairs_tile
from cydrop._core.panels cimport (
    STRIP, TILE_COLS, TILE_FLOATS, TILE_LANES, TILE_LOG2_LINES, TILE_ROWS, lies_ready, pack, panels_floats,
    tile_of_columns, tile_wanted,
)
from cydrop._core.shards cimport add_floats, level_of


cdef struct Gradient:           # where the gradient of a layer's parameters goes
    const Update* update        # not NULL: into the optimizer at once, and never to memory
    const Update* bias_update   # the same for the bias, NULL where `update` is
    float* weight               # the parameters
    float* bias                 # NULL: none
    float* weight_gradient
    float* bias_gradient
    float* weight_moment1       # moments are NULL where the optimizer has none
    float* bias_moment1
    float* weight_moment2
    float* bias_moment2
    const uint64_t* mask        # drop-connect's mask of the weight, NULL: none
    float scale                 # of what it keeps
    # where dropped units are left out: the places of the rows and columns at hand in the whole weight (NULL: all are
    # there), its size, the columns' mask, and two rows of n_out floats for each thread
    bint gathered
    const int32_t* rows_kept
    const int32_t* cols_kept
    const uint64_t* cols_bits
    Py_ssize_t n_in
    Py_ssize_t n_out
    float* full_row
    Py_ssize_t full_row_floats
    # where the batch is cut into shards: how many there are, the rows where each begins, and where the last one ends
    int shards                  # 0: it is not
    const Py_ssize_t* bounds
    bint resume                 # the gradient is added to what is there, row after row; then `update` is NULL
    Pairs pairs                 # X as pairs of bfloat16, and where those of each shard begin
    const Py_ssize_t* pair_bounds


cdef inline void column_sums(
    const float* panel, Py_ssize_t panel_row, Py_ssize_t rows, Py_ssize_t cols, bint resume, float* sums
) noexcept nogil:
    """sums[j] = panel[0, j] + panel[1, j] + ..., or from what sums[j] was (resume)"""
    cdef Py_ssize_t k, j
    for j in range(cols if not resume else 0):
        sums[j] = 0.0
    for k in range(rows):
        for j in range(cols):
            sums[j] = sums[j] + panel[k * panel_row + j]


cdef inline void column_sums_of_shards(
    const float* panel, Py_ssize_t panel_row, Py_ssize_t cols, const Gradient* to, float* sums, float* levels
) noexcept nogil:
    """The same, the rows of each shard for themselves, and the shards over their tree (shards.pxd)."""
    cdef Py_ssize_t first
    cdef int s, level, i
    cdef float* out
    for s in range(to.shards):
        level, first = level_of(s), to.bounds[s]
        out = sums if s == to.shards - 1 else levels + level * TILE_FLOATS
        column_sums(panel + first * panel_row, panel_row, to.bounds[s + 1] - first, cols, False, out)
        for i in range(level):
            add_floats(out, levels + i * TILE_FLOATS, cols)


cdef inline float* at(float* base, Py_ssize_t offset) noexcept nogil:
    return base + offset if base != NULL else NULL


cdef inline void sums_before(const Gradient* to, Py_ssize_t col0, Py_ssize_t cols, float* sums) noexcept nogil:
    """What the gradient of the bias is so far."""
    cdef Py_ssize_t j
    for j in range(cols):
        sums[j] = to.bias_gradient[to.cols_kept[col0 + j] if to.cols_kept != NULL else col0 + j]


cdef inline void bias_unit(
    const float* panel, Py_ssize_t panel_row, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols, const Gradient* to,
    float* sums, float* levels
) noexcept nogil:
    """Columns col0..col0+cols of db, one panel."""
    if to.resume:
        memset(sums, 0, TILE_COLS * sizeof(float))
        sums_before(to, col0, cols, sums)
    cdef Py_ssize_t wide
    cdef bint paired = to.pairs.data != NULL        # then the columns lie where they are, with nothing after them
    if to.shards > 0:
        wide = cols if paired else TILE_LANES if cols <= TILE_LANES else TILE_COLS
        column_sums_of_shards(panel, panel_row, wide, to, sums, levels)
    elif paired:
        column_sums(panel, panel_row, rows, cols, to.resume, sums)
    elif cols <= TILE_LANES:
        column_sums(panel, panel_row, rows, TILE_LANES, to.resume, sums)
    else:
        column_sums(panel, panel_row, rows, TILE_COLS, to.resume, sums)
    if not to.gathered:
        hand_over_bias(to, sums, col0, cols)


cdef inline void hand_over_bias(const Gradient* to, const float* sums, Py_ssize_t col0, Py_ssize_t cols) noexcept nogil:
    """To the optimizer, or into the gradient."""
    if to.bias_update != NULL:
        update_rows(to.bias_update, to.bias + col0, sums, at(to.bias_moment1, col0), at(to.bias_moment2, col0),
                    1, cols, 0, 0)
    else:
        memcpy(to.bias_gradient + col0, sums, cols * sizeof(float))


cdef inline bint may_be_turned(const Gradient* to, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Whether dW is a single column, which lies in memory as a row does, and whole: then x and dz may change places,
    dWt = dZt X, so that the vectors of a tile are along the inputs. The products and their order are the same."""
    return n_out == 1 and n_in > 1 and not to.gathered and to.mask == NULL


cdef inline void bias_of_one(Matrix dz, Py_ssize_t rows, const Gradient* to, float* levels) noexcept nogil:
    """The gradient of the bias of a single unit."""
    cdef float sums = to.bias_gradient[0] if to.resume else <float>0.0
    if to.shards > 0:
        column_sums_of_shards(dz.data, dz.row, 1, to, &sums, levels)
    else:
        column_sums(dz.data, dz.row, rows, 1, to.resume, &sums)
    hand_over_bias(to, &sums, 0, 1)


cdef inline Py_ssize_t place_of(const int32_t* kept, Py_ssize_t i, Py_ssize_t last, Py_ssize_t end) noexcept nogil:
    """Where the part of the whole weight begins that number i stands for: its own place and the dropped ones after it;
    for number 0 also those before it. For the last, `end`, where the whole ends."""
    if i == 0:
        return 0
    if i == last:
        return end
    return kept[i] if kept != NULL else i


cdef inline void spread_strip(
    const Gradient* to, const float* strip, Py_ssize_t strip_row, Py_ssize_t i0, Py_ssize_t some, Py_ssize_t n_in,
    Py_ssize_t col0, Py_ssize_t cols, Py_ssize_t n_out, float* full_row
) noexcept nogil:
    """Rows i0..i0+some and columns col0..col0+cols of a gathered gradient, and the zeros of the dropped units around
    them: to the optimizer, or into the gradient.

        strip   g g g              the weight   0 g 0 0 g g 0     kept
                                                0 0 0 0 0 0 0     dropped: the moments still decay
                h h h                           0 h 0 0 h h 0     kept

    `full_row` has room for a row of the whole weight; after it comes a row of zeros.
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
        row = full_row
        if kept:
            row = strip + (i - i0) * strip_row
            if to.cols_kept != NULL:
                spread(row, to.cols_bits, first, width, full_row)
                row = full_row
            i += 1
        if not kept:
            row = full_row + to.n_out       # zeros
        if to.update == NULL:
            memcpy(to.weight_gradient + place, row, width * sizeof(float))
        elif kept or not to.update.still:
            update_rows(to.update, to.weight + place, row, at(to.weight_moment1, place), at(to.weight_moment2, place),
                        1, width, 0, 0)
        r += 1


cdef inline void kept_strip(
    const Gradient* to, float* strip, Py_ssize_t strip_row, Py_ssize_t i0, Py_ssize_t some, Py_ssize_t col0,
    Py_ssize_t cols, Py_ssize_t n_out, bint back
) noexcept nogil:
    """Rows i0..i0+some and columns col0..col0+cols of what a gathered gradient is so far, or back to where they are
    kept; what is dropped stays as it is."""
    cdef Py_ssize_t first = place_of(to.cols_kept, col0, n_out, to.n_out)
    cdef Py_ssize_t width = place_of(to.cols_kept, col0 + cols, n_out, to.n_out) - first, i
    cdef float* row
    for i in range(i0, i0 + some):
        row = to.weight_gradient + (to.rows_kept[i] if to.rows_kept != NULL else i) * to.n_out + first
        if to.cols_kept == NULL:
            memcpy(row if back else strip, strip if back else row, cols * sizeof(float))
        elif back:
            spread_over(strip, to.cols_bits, first, width, row)
        else:
            gather_part(row, to.cols_bits, first, width, strip_row, strip)
        strip += strip_row


cdef inline void spread_bias(
    const Gradient* to, const float* sums, Py_ssize_t col0, Py_ssize_t cols, Py_ssize_t n_out, float* full_row
) noexcept nogil:
    """The same for a part of the bias."""
    cdef Py_ssize_t first = place_of(to.cols_kept, col0, n_out, to.n_out)
    cdef Py_ssize_t width = place_of(to.cols_kept, col0 + cols, n_out, to.n_out) - first
    cdef const float* row = sums
    if to.resume and to.cols_kept != NULL:
        spread_over(sums, to.cols_bits, first, width, to.bias_gradient + first)
        return
    if to.cols_kept != NULL:
        spread(sums, to.cols_bits, first, width, full_row)
        row = full_row
    if to.bias_update == NULL:
        memcpy(to.bias_gradient + first, row, width * sizeof(float))
    else:
        update_rows(to.bias_update, to.bias + first, row, at(to.bias_moment1, first), at(to.bias_moment2, first),
                    1, width, 0, 0)


cdef inline void mask_strip(
    const Gradient* to, float* strip, Py_ssize_t strip_row, Py_ssize_t i0, Py_ssize_t some, Py_ssize_t n_out,
    Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    """Drop-connect: a dropped weight has no gradient."""
    cdef Py_ssize_t i
    for i in range(some):
        select_row(to.mask, (i0 + i) * n_out + col0, strip + i * strip_row, to.scale, strip + i * strip_row, cols)


cdef inline void tile_of_pairs(
    int rows, Py_ssize_t i, const float* panel, float* c, Py_ssize_t c_row, int cols, const tile_wanted* wanted,
    const Gradient* to, int shard, bint resume
) noexcept nogil:
    """Rows i, ... of a tile of dW, as pairs of bfloat16: the sum over one shard."""
    cdef pairs_tile t
    memset(&t, 0, sizeof(pairs_tile))
    t.depth = to.pair_bounds[shard + 1] - to.pair_bounds[shard]
    t.a, t.a_row, t.a_depth = to.pairs.data + to.pair_bounds[shard] * to.pairs.row + i, 1, to.pairs.row
    t.panel = <const uint32_t*>panel + to.pair_bounds[shard] * TILE_COLS
    t.c, t.c_row, t.rows, t.cols, t.resume, t.wanted = c, c_row, rows, cols, resume, wanted
    pairs_product(&t)


cdef inline void tile_by_shards(
    int rows, Matrix x, Py_ssize_t row, const float* panel, Py_ssize_t panel_row, float* c, Py_ssize_t c_row,
    int cols, const tile_wanted* wanted, const Gradient* to, Py_ssize_t place, float* levels
) noexcept nogil:
    """A tile of dW, shard by shard, over their tree: of pairs, and under drop-connect, which scales each. `row`,
    `place`: where it begins, in dW and in the weight."""
    cdef int s, level, i, r
    cdef float* out
    cdef Py_ssize_t out_row = TILE_COLS
    for s in range(to.shards):
        level = level_of(s)
        out = levels + level * TILE_FLOATS
        if s == to.shards - 1:
            out, out_row = c, c_row
        if to.pairs.data != NULL:
            tile_of_pairs(rows, row, panel, out, out_row, cols, wanted, to, s, False)
        else:
            tile_of_columns(rows, 1, to.bounds + s, x.data + row, x.row, panel, panel_row, out, out_row, cols, False,
                            wanted, levels)
        for r in range(rows):
            if to.mask != NULL:
                select_row(to.mask, place + r * to.n_out, out + r * out_row, to.scale, out + r * out_row, cols)
            for i in range(level):
                add_floats(out + r * out_row, levels + i * TILE_FLOATS + r * TILE_COLS, cols)


cdef inline void weight_unit(
    Matrix x, Matrix dz, Py_ssize_t rows, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t n_out,
    Py_ssize_t n_in, Py_ssize_t col0, Py_ssize_t cols, const Gradient* to, float* scratch, float* full_row
) noexcept nogil:
    """Rows i0..i1 and columns col0..col0+cols of dW, up to STRIP panels, and with i0 = 0 of db."""
    cdef float* panel[STRIP]
    cdef tile_wanted wanted
    cdef float* strip = scratch + panels_floats(rows)         # a row of tiles
    cdef float* levels = strip + STRIP * TILE_FLOATS          # sums of shards that wait for others
    cdef float* out
    cdef const tile_wanted* fetched = &wanted
    cdef Py_ssize_t out_row
    cdef Py_ssize_t[2] whole
    cdef const Py_ssize_t* bounds = to.bounds if to.shards > 0 else whole
    cdef int shards = max(to.shards, 1)
    cdef Py_ssize_t i, j, p, some, place, want, panel_row = TILE_COLS
    cdef Py_ssize_t panels = (cols + TILE_COLS - 1) // TILE_COLS
    cdef bint direct = to.update == NULL and not to.gathered        # the gradient goes where it is wanted at once
    cdef bint full_width = cols == n_out and not to.gathered     # rows of W follow each other: update them as one
    cdef Py_ssize_t strip_row = cols if full_width else STRIP * TILE_COLS
    cdef bint paired = to.pairs.data != NULL
    cdef bint ready = not paired and lies_ready(
        dz.data + col0, dz.row, rows, cols, (i1 - i0 + TILE_ROWS - 1) // TILE_ROWS, dz.data + rows * dz.row)
    whole[0], whole[1] = 0, rows
    wanted.row = to.n_out if to.gathered else n_out
    wanted.rows, wanted.log2_lines, wanted.log2_period = TILE_ROWS, TILE_LOG2_LINES, PAIRS_PERIOD if paired else 2
    if to.gathered:             # a tile stands for more of the whole weight than its own size
        wanted.log2_lines = 2
        wanted.log2_period = 0
    if direct:
        fetched = NULL
    if ready:
        panel_row = dz.row
    for p in range(panels):
        j = p * TILE_COLS
        panel[p] = dz.data + col0 + j
        if paired:
            panel[p] = scratch + rows * j
            pack_pairs_of_shards(dz.data + col0 + j, dz.row, shards, bounds, to.pair_bounds,
                                 min(<Py_ssize_t>TILE_COLS, cols - j), <uint32_t*>panel[p])
        elif not ready:
            panel[p] = scratch + rows * j
            pack(dz.data + col0 + j, dz.row, rows, min(<Py_ssize_t>TILE_COLS, cols - j), panel[p])
        if i0 == 0 and to.bias != NULL:
            bias_unit(dz.data + col0 + j if paired else panel[p], dz.row if paired else panel_row, rows, col0 + j,
                      min(<Py_ssize_t>TILE_COLS, cols - j), to, strip + j, levels)
    if to.gathered:
        memset(full_row + to.n_out, 0, to.n_out * sizeof(float))
        if i0 == 0 and to.bias != NULL:
            spread_bias(to, strip, col0, cols, n_out, full_row)
    i = i0
    while i < i1:
        some = min(<Py_ssize_t>TILE_ROWS, i1 - i)
        place = i * n_out + col0
        if to.gathered and to.resume:
            kept_strip(to, strip, strip_row, i, some, col0, cols, n_out, False)
        for p in range(panels):
            j = p * TILE_COLS
            if direct:
                out, out_row = to.weight_gradient + place + j, n_out
            else:
                out, out_row = strip + j, strip_row
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
            if to.shards > 0 and (to.mask != NULL or paired):
                tile_by_shards(<int>some, x, i, panel[p], panel_row, out, out_row,
                               <int>min(<Py_ssize_t>TILE_COLS, cols - j), fetched, to, place + j, levels)
            elif paired:
                tile_of_pairs(<int>some, i, panel[p], out, out_row, <int>min(<Py_ssize_t>TILE_COLS, cols - j), fetched,
                              to, 0, to.resume)
            else:
                tile_of_columns(<int>some, shards, bounds, x.data + i, x.row, panel[p], panel_row, out, out_row,
                                <int>min(<Py_ssize_t>TILE_COLS, cols - j), to.resume, fetched, levels)
        if to.mask != NULL and to.shards == 0:
            mask_strip(to, to.weight_gradient + place if direct else strip, n_out if direct else strip_row, i, some,
                       n_out, col0, cols)
        if to.gathered and to.resume:
            kept_strip(to, strip, strip_row, i, some, col0, cols, n_out, True)
        elif to.gathered:
            spread_strip(to, strip, strip_row, i, some, n_in, col0, cols, n_out, full_row)
        elif not direct:
            update_rows(to.update, to.weight + place, strip, at(to.weight_moment1, place),
                        at(to.weight_moment2, place), 1 if full_width else some, some * cols if full_width else cols,
                        n_out, strip_row)
        i += TILE_ROWS

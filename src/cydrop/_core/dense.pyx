"""The dense operation: three products built from one register tile (tile.h), split by tiles of the output.

    forward           Y  = drop(f(X W + b))     X (rows, n_in), W (n_in, n_out)
    backward, input   dX = dZ Wt                followed by the derivative of the layer below
    backward, weight  dW = Xt dZ, db = sum dZ   followed by the optimizer

The parts lie in files of their own, compiled into this module: panels, product and weight_gradient; and the embeddings,
which are dense operations of one column each: of terms of a number, or of a code as a unit vector.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.activations cimport IDENTITY, RELU, activate, activation_gradient, activation_gradient_at
from cydrop._core.code_embeddings cimport (
    Codes, codes_input_backward, rows_of_codes_forward, tables_backward,
)
from cydrop._core.dropout cimport select_row
from cydrop._core.elementary cimport cosine_of_part, part_of_turn, sine_of_part
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.number_embeddings cimport (
    PBLD, PIECEWISE_LINEAR, PLR, Numbers, features_backward, features_forward, memory_of_numbers, turns_of,
)
from cydrop._core.pairs cimport (
    bf16_has_instruction, bf16_pairs_along_row, bf16_pairs_of_rows, bf16_use_instruction, bound_pairs, most_pairs,
    pairs_of_rows,
)
from cydrop._core.panels cimport TILE_COLS, TILE_ROWS, row_shares, scratch_floats, strip_panels
from cydrop._core.product cimport Product, outer_product, product
from cydrop._core.quads cimport (
    Codes8, Quads, int8_codes, int8_has_instruction, int8_row, int8_use_instruction, most_quads, quads_product,
)
from cydrop._core.relu cimport relu_gradient, relu_in_place
from cydrop._core.serial cimport threads_of_product
from cydrop._core.shards cimport MOST_SHARDS
from cydrop._core.weight_gradient cimport bias_of_one, may_be_turned, weight_unit

from cydrop._core.memory import aligned


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
            select_row(e.mask, e.mask_first + r * e.mask_row + col0,
                       source if e.activation == IDENTITY else to, e.scale, to, cols)
        elif e.scale != <float>1.0:
            for j in range(cols):
                to[j] = to[j] * e.scale


cdef void finish_backward(
    const Epilogue* e, Matrix z, Matrix y, Matrix dz,
    Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    """From d loss / d y to d loss / d z in place, on a rectangle of dz."""
    cdef Py_ssize_t r, j
    cdef float* row
    for r in range(row0, row0 + rows):
        row = dz.data + r * dz.row + col0
        if e.activation == RELU:
            relu_gradient(row, y.data + r * y.row + col0, e.scale, cols)
            continue
        if e.mask != NULL:
            select_row(e.mask, e.mask_first + r * e.mask_row + col0, row, e.scale, row, cols)
        elif e.scale != <float>1.0:
            for j in range(cols):
                row[j] = row[j] * e.scale
        if e.activation != IDENTITY and e.mask == NULL and e.scale == <float>1.0:       # then y is f(z)
            activation_gradient_at(e.activation, e.alpha, z.data + r * z.row + col0, y.data + r * y.row + col0, row,
                                   cols)
        elif e.activation != IDENTITY:
            activation_gradient(e.activation, e.alpha, z.data + r * z.row + col0, row, cols)


cdef void finish_product(
    const Product* p, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    finish_forward(p.epilogue, p.z, p.y, row0, rows, col0, cols, p.relu)


cdef void finish_product_backward(
    const Product* p, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    finish_backward(p.epilogue, p.z, p.y, p.c, row0, rows, col0, cols)


cdef void dense_forward(
    Matrix x, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, float* scratch, uint32_t* pairs, int n_threads
) noexcept nogil:
    """y = drop(f(x weight + bias)); z receives x weight + bias (z may be y where nobody needs it later).

    What lies between the weight and end may be read. `pairs`: memory for the products' left factors in bfloat16
    (pairs.pxd), NULL: they are of float32.
    """
    cdef Product p
    p.a = x
    p.b, p.b_row, p.b_end, p.transposed = weight.data, weight.row, end, False
    p.rows, p.depth, p.cols = rows, n_in, n_out
    p.c, p.z, p.y = z, z, y
    p.bias = e.bias
    p.relu = e.activation == RELU and z.data == y.data
    p.epilogue = e
    p.finish = finish_product
    if (p.relu or e.activation == IDENTITY) and z.data == y.data and e.mask == NULL and e.scale == <float>1.0:
        p.finish = NULL
    product(&p, scratch, pairs, n_threads)


cdef void finish_quantized(
    const Quads* p, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols
) noexcept nogil:
    finish_forward(p.epilogue, p.c, p.y, row0, rows, col0, cols, p.relu)


cdef void quantized_forward(
    Matrix x, const Codes8* weight, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out, const Epilogue* e, Matrix y,
    uint32_t* memory, int n_threads
) noexcept nogil:
    """y = drop(f(x weight + bias)), the product of bytes; `memory`: most_quads of it."""
    cdef Quads p
    p.weight, p.rows, p.depth, p.cols = weight[0], rows, n_in, n_out
    p.c, p.y, p.bias, p.epilogue = y, y, e.bias, e
    p.relu = e.activation == RELU
    p.finish = finish_quantized
    if (p.relu or e.activation == IDENTITY) and e.mask == NULL and e.scale == <float>1.0:
        p.finish = NULL
    quads_product(&p, x, memory, n_threads)


cdef void dense_backward_input(
    Matrix dz, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, Matrix dx, float* scratch, uint32_t* pairs, int n_threads
) noexcept nogil:
    """dx = dz weight^t, then through the epilogue e of the operation below (z and y are its; e may be NULL)."""
    cdef Product p
    p.a = dz
    p.b, p.b_row, p.b_end, p.transposed = weight.data, weight.row, end, True
    p.rows, p.depth, p.cols = rows, n_out, n_in
    p.c, p.z, p.y = dx, z, y
    p.bias = NULL
    p.relu = False
    p.epilogue = e
    p.finish = NULL
    if e != NULL:
        p.finish = finish_product_backward
    if n_out == 1 and weight.row == 1 and pairs == NULL:
        outer_product(&p, n_threads)
        return
    product(&p, scratch, pairs, n_threads)


cdef void dense_backward_weight(
    Matrix x, Matrix dz, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    Gradient* to, float* scratch, uint32_t* pairs, int n_threads
) noexcept nogil:
    """dW = x^t dz and db = sum of the rows of dz, written or handed to the optimizer."""
    cdef int threads = threads_of_product(<double>rows * n_in * n_out, n_threads)
    cdef Py_ssize_t strip_cols = strip_panels(rows) * TILE_COLS
    cdef Py_ssize_t strips = (n_out + strip_cols - 1) // strip_cols
    cdef Py_ssize_t tiles = (n_in + TILE_ROWS - 1) // TILE_ROWS
    cdef Py_ssize_t shares = row_shares(strips, tiles, threads)
    cdef Py_ssize_t share = (tiles + shares - 1) // shares * TILE_ROWS
    cdef Py_ssize_t size = scratch_floats(rows), unit, col0, i0
    cdef Py_ssize_t[2] whole
    cdef Py_ssize_t[MOST_SHARDS + 1] pair_bounds
    cdef const Py_ssize_t* bounds = to.bounds if to.shards > 0 else whole
    cdef Gradient turned
    if may_be_turned(to, n_in, n_out):
        turned = to[0]
        turned.bias = NULL
        dense_backward_weight(dz, x, rows, n_out, n_in, &turned, scratch, pairs, n_threads)
        if to.bias != NULL:
            bias_of_one(dz, rows, to, scratch)
        return
    to.pairs.data = NULL
    if pairs != NULL:
        whole[0], whole[1] = 0, rows
        bound_pairs(max(to.shards, 1), bounds, pair_bounds)
        to.pair_bounds = pair_bounds
        to.pairs = pairs_of_rows(x, max(to.shards, 1), bounds, pair_bounds, n_in, pairs, threads)
    if threads == 1:
        for unit in range(strips):
            col0 = unit * strip_cols
            weight_unit(x, dz, rows, 0, n_in, n_out, n_in, col0, min(strip_cols, n_out - col0), to, scratch,
                        to.full_row)
        return
    for unit in prange(strips * shares, num_threads=threads, schedule="dynamic"):
        col0 = unit // shares * strip_cols
        i0 = unit % shares * share
        weight_unit(x, dz, rows, i0, min(i0 + share, n_in), n_out, n_in, col0, min(strip_cols, n_out - col0), to,
                    scratch + threadid() * size, to.full_row + threadid() * to.full_row_floats)


def use_instruction(str kind, bint wish):
    """Whether products of "bfloat16" or "int8" are by the processor's instruction from now on: if it is there. The bits
    are the same; for tests. Without a call they are."""
    return bool(bf16_use_instruction(wish) if kind == "bfloat16" else int8_use_instruction(wish))


use_instruction("bfloat16", True)
use_instruction("int8", True)


def has_instruction(str kind):
    """Whether this processor has it, and these kernels use it."""
    return bool(bf16_has_instruction() if kind == "bfloat16" else int8_has_instruction())


def pairs_of(const float[::1] first, const float[::1] second, uint32_t[::1] pairs):
    """Each number of one with that of the other, as bfloat16; or, where the second is empty, each two neighbours of the
    first. For tests."""
    if second.shape[0]:
        bf16_pairs_of_rows(&first[0], &second[0], first.shape[0], &pairs[0])
    else:
        bf16_pairs_along_row(&first[0], first.shape[0], &pairs[0])


def panel_columns():
    """Columns of a panel of weights."""
    return TILE_COLS


def codes_of(const float[:, ::1] x, uint8_t[:, ::1] codes, float[::1] scales, int32_t[::1] zeros):
    """The codes of rows as bytes, each row's scale and its code of 0: x = (code - zero) scale, and the row of a scale
    that is NaN is not finite."""
    cdef int8_row row
    cdef uint64_t control
    with nogil:
        control = exact_floats(1)
        for r in range(x.shape[0]):
            row = int8_codes(&x[r, 0], x.shape[1], &codes[r, 0])
            scales[r], zeros[r] = row.scale, row.zero
        restore_floats(control)


def forward_of_bytes(
    const float[:, ::1] x,      # IN
    const float[::1] panels,    # IN, the weights' codes as quads.pxd lays them out
    const float[::1] scales,    # IN, of the columns
    const int32_t[::1] sums,    # IN, of their codes
    const float[::1] bias,      # IN, or empty
    float[:, ::1] y,            # OUT
    int n_threads,
):
    """y = x weight + bias, of the rows' codes and the weights'"""
    cdef Epilogue e
    cdef Matrix mx, my
    cdef Codes8 weight
    cdef float[:] memory = aligned(most_quads(x.shape[0], x.shape[1]))
    cdef uint64_t control
    memset(&e, 0, sizeof(Epilogue))
    e.scale = 1.0
    e.bias = &bias[0] if bias.shape[0] else NULL
    weight.panels, weight.scales, weight.sums = <const uint32_t*>&panels[0], &scales[0], &sums[0]
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]      # only read
    my.data, my.row = &y[0, 0], y.shape[1]
    with nogil:
        control = exact_floats(n_threads)
        quantized_forward(mx, &weight, x.shape[0], x.shape[1], y.shape[1], &e, my, <uint32_t*>&memory[0], n_threads)
        restore_floats(control)


cdef float[:] scratch_memory(Py_ssize_t rows, int n_threads):
    """For the functions below, which allocate for themselves."""
    return aligned(scratch_floats(rows) * n_threads)


cdef float[:] pairs_memory(bint bf16, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out):
    return aligned(most_pairs(rows, max(n_in, n_out)) if bf16 else 1)


def forward(
    const float[:, ::1] x,      # IN
    const float[:, ::1] weight,  # IN
    const float[::1] bias,      # IN, or empty
    float[:, ::1] y,            # OUT
    int n_threads,
    bint bf16=False,            # the product is of bfloat16
):
    """y = x weight + bias"""
    cdef Epilogue e
    cdef Matrix mx, my, mw
    cdef float[:] scratch = scratch_memory(x.shape[0], n_threads)
    cdef float[:] memory = pairs_memory(bf16, x.shape[0], x.shape[1], y.shape[1])
    cdef uint32_t* pairs = <uint32_t*>&memory[0] if bf16 else NULL
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
                      y.shape[1], &e, my, my, &scratch[0], pairs, n_threads)
        restore_floats(control)


def backward(
    const float[:, ::1] dy,     # IN
    const float[:, ::1] x,      # IN
    const float[:, ::1] weight,  # IN
    float[:, ::1] dx,           # OUT
    float[:, ::1] dweight,      # OUT
    float[::1] dbias,           # OUT
    int n_threads,
    bint bf16=False,            # the products are of bfloat16
):
    """dx = dy weight^t, dweight = x^t dy, dbias = sum of the rows of dy"""
    cdef Matrix mx, mdy, mdx, mw
    cdef Gradient to
    cdef Py_ssize_t rows = x.shape[0], n_in = x.shape[1], n_out = dy.shape[1]
    cdef float[:] scratch = scratch_memory(rows, n_threads)
    cdef float[:] memory = pairs_memory(bf16, rows, n_in, n_out)
    cdef uint32_t* pairs = <uint32_t*>&memory[0] if bf16 else NULL
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
                             &scratch[0], pairs, n_threads)
        dense_backward_weight(mx, mdy, rows, n_in, n_out, &to, &scratch[0], pairs, n_threads)
        restore_floats(control)


# Embeddings ---------------------------------------------------------------------------------------------------

NUMBER_KINDS = {"pbld": PBLD, "plr": PLR, "piecewise_linear": PIECEWISE_LINEAR}


cdef void numbers_forward(
    const Numbers* e, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t n_in, float* memory, int n_threads
) noexcept nogil:
    """y of x; `memory`: memory_of_numbers(e) floats for each thread."""
    features_forward(e, x, y, rows, n_in, memory, n_threads)


cdef void numbers_backward(
    const Numbers* e, Matrix x, Matrix y, Matrix dy, Matrix dx, bint wanted, Py_ssize_t rows, Py_ssize_t n_in,
    float* memory, int n_threads
) noexcept nogil:
    """The gradients and, if that is wanted, d loss / d x; y is that of the forward pass."""
    features_backward(e, x, y, dy, dx, wanted, rows, n_in, memory, n_threads)


cdef void codes_forward(
    const Codes* e, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t n_in, int n_threads
) noexcept nogil:
    """y of x"""
    rows_of_codes_forward(e, x, y, rows, n_in, n_threads)


cdef void codes_backward(
    const Codes* e, Matrix x, Matrix dy, Matrix dx, bint wanted, Py_ssize_t rows, Py_ssize_t n_in, int n_threads
) noexcept nogil:
    """The gradient of the tables and, if that is wanted, d loss / d x."""
    tables_backward(e, x, dy, rows, n_in, n_threads)
    if wanted:
        codes_input_backward(e, dy, dx, rows, n_in)


cdef inline float* first_float(float[::1] x) noexcept nogil:
    return &x[0] if x.shape[0] else NULL


cdef Numbers numbers_of(
    int kind, Py_ssize_t columns, Py_ssize_t frequencies, Py_ssize_t size, arrays, gradients
) except *:
    """`arrays`, `gradients`: flat, in the order frequency, phase, slope, weight, bias, edges; what a kind does not
    have is empty, and edges have no gradient."""
    cdef Numbers e
    memset(&e, 0, sizeof(Numbers))
    e.kind, e.columns, e.frequencies, e.size = kind, columns, frequencies, size
    e.frequency, e.phase, e.slope = first_float(arrays[0]), first_float(arrays[1]), first_float(arrays[2])
    e.weight, e.bias, e.edges = first_float(arrays[3]), first_float(arrays[4]), first_float(arrays[5])
    if gradients is not None:
        e.frequency_gradient, e.phase_gradient = first_float(gradients[0]), first_float(gradients[1])
        e.slope_gradient, e.weight_gradient = first_float(gradients[2]), first_float(gradients[3])
        e.bias_gradient = first_float(gradients[4])
    return e


def embed_numbers(
    int kind, Py_ssize_t columns, Py_ssize_t frequencies, Py_ssize_t size, arrays,
    const float[:, ::1] x,      # IN
    float[:, ::1] y,            # OUT
    int n_threads,
):
    """`frequencies`: of a feature, or its bins; `arrays` as numbers_of takes them, of sizes that fit."""
    cdef Numbers e = numbers_of(kind, columns, frequencies, size, arrays, None)
    cdef float[:] memory = aligned(memory_of_numbers(&e) * n_threads)
    cdef Matrix mx, my
    cdef uint64_t control
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]      # only read
    my.data, my.row = &y[0, 0], y.shape[1]
    with nogil:
        control = exact_floats(n_threads)
        numbers_forward(&e, mx, my, x.shape[0], x.shape[1], &memory[0], n_threads)
        restore_floats(control)


def embed_numbers_backward(
    int kind, Py_ssize_t columns, Py_ssize_t frequencies, Py_ssize_t size, arrays, gradients,
    const float[:, ::1] x,      # IN
    const float[:, ::1] y,      # IN, from forward
    const float[:, ::1] dy,     # IN
    float[:, ::1] dx,           # OUT
    int n_threads,
):
    """`gradients` as numbers_of takes them: OUT."""
    cdef Numbers e = numbers_of(kind, columns, frequencies, size, arrays, gradients)
    cdef float[:] memory = aligned(memory_of_numbers(&e) * n_threads)
    cdef Matrix mx, my, mdy, mdx
    cdef uint64_t control
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]
    my.data, my.row = <float*>&y[0, 0], y.shape[1]
    mdy.data, mdy.row = <float*>&dy[0, 0], dy.shape[1]
    mdx.data, mdx.row = &dx[0, 0], dx.shape[1]
    with nogil:
        control = exact_floats(n_threads)
        numbers_backward(&e, mx, my, mdy, mdx, True, x.shape[0], x.shape[1], &memory[0], n_threads)
        restore_floats(control)


def embed_codes(
    const float[:, ::1] x,      # IN
    const int64_t[::1] starts,  # IN, columns + 1: where each column's table begins
    const float[:, ::1] tables,  # IN
    float[:, ::1] y,            # OUT
    int n_threads,
):
    cdef Codes e
    cdef Matrix mx, my
    cdef uint64_t control
    e.columns, e.size, e.starts, e.tables = starts.shape[0] - 1, tables.shape[1], &starts[0], &tables[0, 0]
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]
    my.data, my.row = &y[0, 0], y.shape[1]
    with nogil:
        control = exact_floats(n_threads)
        codes_forward(&e, mx, my, x.shape[0], x.shape[1], n_threads)
        restore_floats(control)


def embed_codes_backward(
    const float[:, ::1] x,      # IN
    const int64_t[::1] starts,  # IN
    const float[:, ::1] dy,     # IN
    float[:, ::1] dx,           # OUT
    float[:, ::1] gradient,     # OUT
    int n_threads,
):
    cdef Codes e
    cdef Matrix mx, mdy, mdx
    cdef uint64_t control
    e.columns, e.size, e.starts, e.gradient = starts.shape[0] - 1, gradient.shape[1], &starts[0], &gradient[0, 0]
    e.tables, e.shards = NULL, 0
    mx.data, mx.row = <float*>&x[0, 0], x.shape[1]
    mdy.data, mdy.row = <float*>&dy[0, 0], dy.shape[1]
    mdx.data, mdx.row = &dx[0, 0], dx.shape[1]
    with nogil:
        control = exact_floats(n_threads)
        codes_backward(&e, mx, mdy, mdx, True, x.shape[0], x.shape[1], n_threads)
        restore_floats(control)


def parts_of_turns(const float[::1] x, float w, float b, float[::1] c, float[::1] s):
    """c = cos(2 pi x w + b), s = sin(2 pi x w + b): for the measurement of their errors."""
    cdef Py_ssize_t i
    cdef float part
    with nogil:
        for i in range(x.shape[0]):
            part = part_of_turn(x[i], w, turns_of(b))
            c[i], s[i] = cosine_of_part(part), sine_of_part(part)

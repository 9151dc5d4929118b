"""Embeddings of numbers: the first columns of a row become several numbers each, the others pass through.

    x0 x1 | rest  ->  e0(x0) e1(x1) | rest

    PBLD              e(x) = [cos(2 pi x w + b) V + c, x]                         Holzmüller et al. 2024
    PLR               e(x) = relu([cos(2 pi x w), sin(2 pi x w)] V + c)           Gorishniy et al. 2022
    PIECEWISE_LINEAR  e(x) = x w + c + v V,  v_t = clip((x - edge_t) / (edge_t+1 - edge_t), 0, 1), the first bin
                             unbounded below and the last one above               Gorishniy et al. 2022, 2025

A thread owns its features, and with them their gradients. The periodic kinds take the rows of a column in chunks, which
lie in memory one after another, so that every loop is one over rows:

    column j of x  ->  x0 x1 x2 ... x255  ->  cos 0 .. cos 255  ->  e0 .. e255, a line for each of the size numbers

A chunk is filled up with zeros to a multiple of sixteen rows. A gradient is the sum of the chunks' sums. Compiled into
dense.pyx.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memcpy, memset

from cydrop._core.elementary cimport cosine_of_part, part_of_turn, sine_of_part
from cydrop._core.matrix cimport Matrix
from cydrop._core.serial cimport SERIAL_PASS

cdef extern from "fma.h" nogil:
    ctypedef float* own_floats      # that nothing else in the function points into
    float fma32(float a, float b, float c)

cdef extern from "lane_sums.h" nogil:
    float sum_of_products(Py_ssize_t n, const float* a, const float* b)
    float sum_of_rows(Py_ssize_t n, const float* a)

cdef enum:                      # kinds of numbers' embeddings
    PBLD = 0
    PLR = 1
    PIECEWISE_LINEAR = 2

cdef enum:
    CHUNK = 256                 # rows that are worked on together; the gradients' bits depend on it


cdef inline float turns_of(float radians) noexcept nogil:
    return radians * <float>0.15915494309189535


cdef inline float radians_of(float turns) noexcept nogil:
    """Radians of so many turns, and the derivative by turns of what has this one by radians."""
    return turns * <float>6.283185307179586


cdef struct Numbers:            # an embedding of numbers; of its arrays each feature has a part
    int kind
    Py_ssize_t columns          # that are embedded, the first ones
    Py_ssize_t frequencies      # of a feature, or its bins
    Py_ssize_t size             # numbers that it becomes
    const float* frequency      # (columns, frequencies), in turns; periodic kinds
    const float* phase          # (columns, frequencies), in radians; PBLD
    const float* slope          # (columns, size), of x itself; piecewise linear
    const float* weight         # (columns, terms, outputs)
    const float* bias           # (columns, outputs)
    const float* edges          # (columns, bins + 1); piecewise linear
    float* frequency_gradient
    float* phase_gradient
    float* slope_gradient
    float* weight_gradient
    float* bias_gradient


cdef inline Py_ssize_t outputs_of(const Numbers* e) noexcept nogil:
    """Columns of a feature's weight: what becomes of it but for x itself."""
    return e.size - 1 if e.kind == PBLD else e.size


cdef inline Py_ssize_t terms_of(const Numbers* e) noexcept nogil:
    """Rows of a feature's weight: sines and cosines, or bins."""
    return 2 * e.frequencies if e.kind == PLR else e.frequencies


cdef inline Py_ssize_t memory_of_numbers(const Numbers* e) noexcept nogil:
    """Floats of memory that each thread needs."""
    if e.kind == PIECEWISE_LINEAR:
        return (e.frequencies * e.size + 15) // 16 * 16
    return (6 + e.size) * CHUNK


cdef inline void read_column(
    Matrix x, Py_ssize_t column, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t n, float* to
) noexcept nogil:
    """A column of rows first..first+rows, filled up with zeros to n."""
    cdef const float* source = x.data + first * x.row + column
    cdef Py_ssize_t r
    for r in range(rows):
        to[r] = source[r * x.row]
    for r in range(rows, n):
        to[r] = 0.0


cdef inline void write_lines(
    const float* lines, Py_ssize_t cols, Matrix y, Py_ssize_t column, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Lines of a chunk into neighbouring columns of y."""
    cdef float* to
    cdef Py_ssize_t r, k
    for r in range(rows):
        to = y.data + (first + r) * y.row + column
        for k in range(cols):
            to[k] = lines[k * CHUNK + r]


cdef inline void read_lines(
    Matrix x, Py_ssize_t column, Py_ssize_t cols, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t n, float* lines
) noexcept nogil:
    """The other way, filled up with zeros to n rows."""
    cdef const float* source
    cdef Py_ssize_t r, k
    for r in range(rows):
        source = x.data + (first + r) * x.row + column
        for k in range(cols):
            lines[k * CHUNK + r] = source[k]
    for k in range(cols):
        for r in range(rows, n):
            lines[k * CHUNK + r] = 0.0


cdef inline void cosines(const float* x, float w, float b, own_floats c, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        c[r] = cosine_of_part(part_of_turn(x[r], w, b))


cdef inline void cosines_and_sines(
    const float* x, float w, float b, own_floats c, own_floats s, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t r
    cdef float part
    for r in range(n):
        part = part_of_turn(x[r], w, b)
        c[r] = cosine_of_part(part)
        s[r] = sine_of_part(part)


cdef inline void fill_line(own_floats y, float value, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        y[r] = value


cdef inline void add_line(const float* x, float w, own_floats y, Py_ssize_t n) noexcept nogil:
    """y += x w"""
    cdef Py_ssize_t r
    for r in range(n):
        y[r] = fma32(x[r], w, y[r])


cdef inline void add_lines(const float* x, float w, const float* z, float v, own_floats y, Py_ssize_t n) noexcept nogil:
    """y += x w + z v"""
    cdef Py_ssize_t r
    for r in range(n):
        y[r] = fma32(z[r], v, fma32(x[r], w, y[r]))


cdef inline void periodic_forward(
    const Numbers* e, Matrix x, Matrix y, Py_ssize_t j, Py_ssize_t first, Py_ssize_t rows, float* memory
) noexcept nogil:
    """A chunk of feature j."""
    cdef Py_ssize_t n = (rows + 15) // 16 * 16, outputs = outputs_of(e), f, k
    cdef float* column = memory
    cdef float* c = memory + CHUNK
    cdef float* s = memory + 2 * CHUNK
    cdef float* lines = memory + 3 * CHUNK
    cdef const float* frequency = e.frequency + j * e.frequencies
    cdef const float* phase = e.phase + j * e.frequencies if e.kind == PBLD else NULL
    cdef const float* weight = e.weight + j * terms_of(e) * outputs
    cdef const float* sine_weight = weight + e.frequencies * outputs
    read_column(x, j, first, rows, n, column)
    for k in range(outputs):
        fill_line(lines + k * CHUNK, e.bias[j * outputs + k], n)
    for f in range(e.frequencies):
        if e.kind == PBLD:
            cosines(column, frequency[f], turns_of(phase[f]), c, n)
            for k in range(outputs):
                add_line(c, weight[f * outputs + k], lines + k * CHUNK, n)
        else:
            cosines_and_sines(column, frequency[f], 0.0, c, s, n)
            for k in range(outputs):
                add_lines(c, weight[f * outputs + k], s, sine_weight[f * outputs + k], lines + k * CHUNK, n)
    if e.kind == PBLD:
        memcpy(lines + outputs * CHUNK, column, n * sizeof(float))
    else:
        rectify_lines(lines, outputs, n)
    write_lines(lines, e.size, y, j * e.size, first, rows)


cdef inline void rectify_lines(float* lines, Py_ssize_t cols, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r, k
    for k in range(cols):
        for r in range(n):
            lines[k * CHUNK + r] = <float>0.0 if lines[k * CHUNK + r] <= <float>0.0 else lines[k * CHUNK + r]


cdef inline void leave_rectified(
    Matrix y, Py_ssize_t column, Py_ssize_t cols, Py_ssize_t first, Py_ssize_t rows, float* lines
) noexcept nogil:
    """Where y is 0, its gradient is."""
    cdef const float* source
    cdef Py_ssize_t r, k
    for r in range(rows):
        source = y.data + (first + r) * y.row + column
        for k in range(cols):
            if source[k] <= <float>0.0:
                lines[k * CHUNK + r] = 0.0


cdef inline void term_backward(
    const float* term, const float* lines, Py_ssize_t outputs, Py_ssize_t n, const float* weight, float* gradient,
    own_floats h
) noexcept nogil:
    """A row of the weight: adds to its gradient; h becomes d loss / d term."""
    cdef Py_ssize_t k
    fill_line(h, 0.0, n)
    for k in range(outputs):
        gradient[k] += sum_of_products(n, term, lines + k * CHUNK)
        add_line(lines + k * CHUNK, weight[k], h, n)


cdef inline void back_to_angle(
    const float* c, const float* s, const float* by_sine, own_floats h, Py_ssize_t n
) noexcept nogil:
    """h, d loss / d cosine, becomes d loss / d angle; `by_sine` is d loss / d sine, NULL where there is no sine."""
    cdef Py_ssize_t r
    if by_sine == NULL:
        for r in range(n):
            h[r] = -s[r] * h[r]
        return
    for r in range(n):
        h[r] = fma32(c[r], by_sine[r], -s[r] * h[r])


cdef inline void periodic_backward(
    const Numbers* e, Matrix x, Matrix y, Matrix dy, Matrix dx, bint wanted, Py_ssize_t j, Py_ssize_t first,
    Py_ssize_t rows, float* memory
) noexcept nogil:
    """A chunk of feature j: adds to its gradients and, if that is wanted, writes its column of d loss / d x."""
    cdef Py_ssize_t n = (rows + 15) // 16 * 16, outputs = outputs_of(e), f, k, r
    cdef Py_ssize_t at = j * e.frequencies, place = j * terms_of(e) * outputs
    cdef Py_ssize_t of_sine = e.frequencies * outputs
    cdef float* column = memory
    cdef float* c = memory + CHUNK
    cdef float* s = memory + 2 * CHUNK
    cdef float* h = memory + 3 * CHUNK
    cdef float* by_sine = memory + 4 * CHUNK if e.kind == PLR else NULL
    cdef float* dcolumn = memory + 5 * CHUNK
    cdef float* lines = memory + 6 * CHUNK
    cdef float* to = dx.data + first * dx.row + j
    cdef float phase = 0.0
    read_column(x, j, first, rows, n, column)
    read_lines(dy, j * e.size, e.size, first, rows, n, lines)
    if e.kind == PBLD:
        memcpy(dcolumn, lines + outputs * CHUNK, n * sizeof(float))
    else:
        leave_rectified(y, j * e.size, outputs, first, rows, lines)
        fill_line(dcolumn, 0.0, n)
    for k in range(outputs):
        e.bias_gradient[j * outputs + k] += sum_of_rows(n, lines + k * CHUNK)
    for f in range(e.frequencies):
        if e.kind == PBLD:
            phase = turns_of(e.phase[at + f])
        cosines_and_sines(column, e.frequency[at + f], phase, c, s, n)
        k = place + f * outputs
        term_backward(c, lines, outputs, n, e.weight + k, e.weight_gradient + k, h)
        if by_sine != NULL:
            k += of_sine
            term_backward(s, lines, outputs, n, e.weight + k, e.weight_gradient + k, by_sine)
        back_to_angle(c, s, by_sine, h, n)
        if e.kind == PBLD:
            e.phase_gradient[at + f] += sum_of_rows(n, h)
        e.frequency_gradient[at + f] += radians_of(sum_of_products(n, h, column))
        if wanted:
            add_line(h, radians_of(e.frequency[at + f]), dcolumn, n)
    if wanted:
        for r in range(rows):
            to[r * dx.row] = dcolumn[r]


cdef inline Py_ssize_t bins_in_use(const float* edges, Py_ssize_t bins) noexcept nogil:
    """Of a feature; the edges after the last one repeat it."""
    while bins > 1 and edges[bins - 1] >= edges[bins]:
        bins -= 1
    return bins


cdef inline Py_ssize_t bin_of(const float* edges, Py_ssize_t bins, float x) noexcept nogil:
    """The place of the bin that x lies in, of those in use: between 0 and bins - 1 whatever the numbers are."""
    cdef int place = 0
    cdef Py_ssize_t t
    for t in range(1, bins):
        place += x >= edges[t]
    return place


cdef inline float per_width(const float* edges, Py_ssize_t t) noexcept nogil:
    """1 / width of a bin; 0 for one of no width, which does nothing."""
    cdef float width = edges[t + 1] - edges[t]
    return <float>1.0 / width if width > <float>0.0 else <float>0.0


cdef inline void piecewise_forward(
    const Numbers* e, Matrix x, Matrix y, Py_ssize_t j, Py_ssize_t rows, float* below
) noexcept nogil:
    """Feature j of all rows. `below` becomes, for each bin, the bias and the weights of the bins below it."""
    cdef const float* edges = e.edges + j * (e.frequencies + 1)
    cdef const float* slope = e.slope + j * e.size
    cdef const float* weight = e.weight + j * e.frequencies * e.size
    cdef Py_ssize_t bins = bins_in_use(edges, e.frequencies), size = e.size, r, t, k
    cdef const float* from_
    cdef const float* in_bin
    cdef float* to
    cdef float value, share
    memcpy(below, e.bias + j * size, size * sizeof(float))
    for t in range(1, bins):
        for k in range(size):
            below[t * size + k] = below[(t - 1) * size + k] + weight[(t - 1) * size + k]
    for r in range(rows):
        value = x.data[r * x.row + j]
        t = bin_of(edges, bins, value)
        share = (value - edges[t]) * per_width(edges, t)
        from_, in_bin = below + t * size, weight + t * size
        to = y.data + r * y.row + j * size
        for k in range(size):
            to[k] = fma32(value, slope[k], fma32(share, in_bin[k], from_[k]))


cdef inline void piecewise_backward(
    const Numbers* e, Matrix x, Matrix dy, Matrix dx, bint wanted, Py_ssize_t j, Py_ssize_t rows, float* above
) noexcept nogil:
    """Feature j of all rows. `above` becomes, for each bin, the sum of dy of the rows that lie in it, or above it."""
    cdef const float* edges = e.edges + j * (e.frequencies + 1)
    cdef const float* slope = e.slope + j * e.size
    cdef const float* weight = e.weight + j * e.frequencies * e.size
    cdef Py_ssize_t bins = bins_in_use(edges, e.frequencies), size = e.size, r, t, k
    cdef float* slopes = e.slope_gradient + j * size
    cdef float* gradient = e.weight_gradient + j * e.frequencies * size
    cdef const float* source
    cdef float* in_bin
    cdef float* whole
    cdef float value, share, scale
    memset(slopes, 0, size * sizeof(float))
    memset(gradient, 0, e.frequencies * size * sizeof(float))
    memset(above, 0, bins * size * sizeof(float))
    for r in range(rows):
        value = x.data[r * x.row + j]
        t = bin_of(edges, bins, value)
        scale = per_width(edges, t)
        share = (value - edges[t]) * scale
        source = dy.data + r * dy.row + j * size
        in_bin, whole = gradient + t * size, above + t * size
        for k in range(size):
            slopes[k] = fma32(value, source[k], slopes[k])
            in_bin[k] = fma32(share, source[k], in_bin[k])
            whole[k] = whole[k] + source[k]
        if wanted:
            dx.data[r * dx.row + j] = slope_at(slope, weight + t * size, scale, source, size)
    for t in range(bins - 2, -1, -1):
        for k in range(size):
            gradient[t * size + k] = gradient[t * size + k] + above[(t + 1) * size + k]
            above[t * size + k] = above[t * size + k] + above[(t + 1) * size + k]
    memcpy(e.bias_gradient + j * size, above, size * sizeof(float))


cdef inline float slope_at(
    const float* slope, const float* weight, float scale, const float* dy, Py_ssize_t size
) noexcept nogil:
    """The sum over the outputs of dy times (slope + weight scale), in order."""
    cdef float sum_ = 0.0
    cdef Py_ssize_t k
    for k in range(size):
        sum_ = fma32(dy[k], fma32(weight[k], scale, slope[k]), sum_)
    return sum_


cdef inline void clear_gradients(const Numbers* e, Py_ssize_t j) noexcept nogil:
    """Those of a feature, which chunks add to."""
    cdef Py_ssize_t outputs = outputs_of(e), weights = terms_of(e) * outputs
    memset(e.frequency_gradient + j * e.frequencies, 0, e.frequencies * sizeof(float))
    if e.kind == PBLD:
        memset(e.phase_gradient + j * e.frequencies, 0, e.frequencies * sizeof(float))
    memset(e.weight_gradient + j * weights, 0, weights * sizeof(float))
    memset(e.bias_gradient + j * outputs, 0, outputs * sizeof(float))


cdef inline void pass_through(
    Matrix source, Py_ssize_t column, Matrix to, Py_ssize_t to_column, Py_ssize_t cols, Py_ssize_t rows
) noexcept nogil:
    """Columns as they are."""
    cdef Py_ssize_t r
    if cols > 0:
        for r in range(rows):
            memcpy(to.data + r * to.row + to_column, source.data + r * source.row + column, cols * sizeof(float))


cdef inline int threads_of_numbers(const Numbers* e, Py_ssize_t rows, int n_threads) noexcept nogil:
    return n_threads if rows * e.columns * e.frequencies > SERIAL_PASS and e.columns > 1 else 1


cdef inline void features_forward(
    const Numbers* e, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t n_in, float* memory, int n_threads
) noexcept nogil:
    """All columns. `memory`: memory_of_numbers(e) floats for each thread."""
    cdef int threads = threads_of_numbers(e, rows, n_threads)
    cdef Py_ssize_t j
    if threads == 1:
        for j in range(e.columns):
            feature_forward(e, x, y, rows, j, memory)
    else:
        for j in prange(e.columns, num_threads=threads, schedule="static"):
            feature_forward(e, x, y, rows, j, memory + threadid() * memory_of_numbers(e))
    pass_through(x, e.columns, y, e.columns * e.size, n_in - e.columns, rows)


cdef inline void feature_forward(
    const Numbers* e, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t j, float* memory
) noexcept nogil:
    cdef Py_ssize_t first = 0
    if e.kind == PIECEWISE_LINEAR:
        piecewise_forward(e, x, y, j, rows, memory)
        return
    while first < rows:
        periodic_forward(e, x, y, j, first, min(<Py_ssize_t>CHUNK, rows - first), memory)
        first += CHUNK


cdef inline void features_backward(
    const Numbers* e, Matrix x, Matrix y, Matrix dy, Matrix dx, bint wanted, Py_ssize_t rows, Py_ssize_t n_in,
    float* memory, int n_threads
) noexcept nogil:
    """The gradients and, if that is wanted, d loss / d x. y is that of the forward pass."""
    cdef int threads = threads_of_numbers(e, rows, n_threads)
    cdef Py_ssize_t j
    if threads == 1:
        for j in range(e.columns):
            feature_backward(e, x, y, dy, dx, wanted, rows, j, memory)
    else:
        for j in prange(e.columns, num_threads=threads, schedule="static"):
            feature_backward(e, x, y, dy, dx, wanted, rows, j, memory + threadid() * memory_of_numbers(e))
    if wanted:
        pass_through(dy, e.columns * e.size, dx, e.columns, n_in - e.columns, rows)


cdef inline void feature_backward(
    const Numbers* e, Matrix x, Matrix y, Matrix dy, Matrix dx, bint wanted, Py_ssize_t rows, Py_ssize_t j,
    float* memory
) noexcept nogil:
    cdef Py_ssize_t first = 0
    if e.kind == PIECEWISE_LINEAR:
        piecewise_backward(e, x, dy, dx, wanted, j, rows, memory)
        return
    clear_gradients(e, j)
    while first < rows:
        periodic_backward(e, x, y, dy, dx, wanted, j, first, min(<Py_ssize_t>CHUNK, rows - first), memory)
        first += CHUNK

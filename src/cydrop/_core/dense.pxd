"""The dense operation and what is fused to it: product, bias, activation, dropout, and all of it backwards."""

from libc.stdint cimport int32_t, uint64_t

from cydrop._core.optimizers cimport Update

cdef extern from "tile.h" nogil:
    enum:
        TILE_ROWS
        TILE_LANES
        TILE_COLS

cdef struct Epilogue:
    const float* bias           # NULL: none
    int activation
    float alpha                 # the activation's parameter
    const uint64_t* mask        # NULL: nothing is dropped
    Py_ssize_t mask_row         # bits from one row to the next, 0 for a mask shared by all rows
    float scale                 # multiplies what is kept

cdef struct Matrix:
    float* data
    Py_ssize_t row              # floats from one row to the next

cdef struct Gradient:           # where the gradient of a layer's parameters goes
    const Update* update        # not NULL: into the optimizer at once, and never to memory
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
    float* wide
    Py_ssize_t wide_row

cdef Py_ssize_t scratch_floats(Py_ssize_t rows) noexcept nogil
cdef void finish_forward(
    const Epilogue* e, Matrix z, Matrix y, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols,
    bint activated) noexcept nogil
cdef void finish_backward(
    const Epilogue* e, Matrix z, Matrix y, Matrix g,
    Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols) noexcept nogil
cdef void dense_forward(
    Matrix x, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, float* scratch, int n_threads) noexcept nogil
cdef void dense_backward_input(
    Matrix dz, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, Matrix dx, float* scratch, int n_threads) noexcept nogil
cdef void dense_backward_weight(
    Matrix x, Matrix dz, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Gradient* to, float* scratch, int n_threads) noexcept nogil
cdef void clip_columns(float* weight, Py_ssize_t n_in, Py_ssize_t n_out, float limit, int n_threads) noexcept nogil

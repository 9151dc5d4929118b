"""The dense operation and what is fused to it: product, bias, activation, dropout, and all of it backwards; and the
embeddings, dense operations of one column each."""

from libc.stdint cimport uint32_t

from cydrop._core.code_embeddings cimport Codes
from cydrop._core.epilogue cimport Epilogue
from cydrop._core.matrix cimport Matrix
from cydrop._core.number_embeddings cimport Numbers
from cydrop._core.quads cimport Codes8
from cydrop._core.weight_gradient cimport Gradient

cdef void finish_forward(
    const Epilogue* e, Matrix z, Matrix y, Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols,
    bint activated) noexcept nogil
cdef void finish_backward(
    const Epilogue* e, Matrix z, Matrix y, Matrix dz,
    Py_ssize_t row0, Py_ssize_t rows, Py_ssize_t col0, Py_ssize_t cols) noexcept nogil
cdef void dense_forward(
    Matrix x, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, float* scratch, uint32_t* pairs, int n_threads) noexcept nogil
cdef void quantized_forward(
    Matrix x, const Codes8* weight, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out, const Epilogue* e, Matrix y,
    uint32_t* memory, int n_threads) noexcept nogil
cdef void dense_backward_input(
    Matrix dz, Matrix weight, const float* end, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const Epilogue* e, Matrix z, Matrix y, Matrix dx, float* scratch, uint32_t* pairs, int n_threads) noexcept nogil
cdef void dense_backward_weight(
    Matrix x, Matrix dz, Py_ssize_t rows, Py_ssize_t n_in, Py_ssize_t n_out,
    Gradient* to, float* scratch, uint32_t* pairs, int n_threads) noexcept nogil
cdef void numbers_forward(
    const Numbers* e, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t n_in, float* memory, int n_threads) noexcept nogil
cdef void numbers_backward(
    const Numbers* e, Matrix x, Matrix y, Matrix dy, Matrix dx, bint wanted, Py_ssize_t rows, Py_ssize_t n_in,
    float* memory, int n_threads) noexcept nogil
cdef void codes_forward(
    const Codes* e, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t n_in, int n_threads) noexcept nogil
cdef void codes_backward(
    const Codes* e, Matrix x, Matrix dy, Matrix dx, bint wanted, Py_ssize_t rows, Py_ssize_t n_in,
    int n_threads) noexcept nogil

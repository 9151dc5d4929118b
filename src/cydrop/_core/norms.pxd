"""Layer and batch normalisation on rows that lie `row` floats apart."""

from cydrop._core.matrix cimport Matrix


cdef struct Norm:
    bint batch                  # normalises columns over the rows of the batch, else each row
    float epsilon
    double momentum             # of the running statistics
    const float* weight         # gamma
    const float* bias           # beta
    float* running_mean         # of batch normalisation
    float* running_variance


cdef void norm_forward(
    const Norm* norm, Matrix x, Matrix y, Py_ssize_t rows, Py_ssize_t cols, float* mean, float* inverse,
    bint training, int n_threads) noexcept nogil
cdef void norm_backward(
    const Norm* norm, Matrix x, Matrix dx, Py_ssize_t rows, Py_ssize_t cols, const float* mean, const float* inverse,
    float* weight_gradient, float* bias_gradient, int n_threads) noexcept nogil

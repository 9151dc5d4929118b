"""One update of a piece of the parameters: the same arithmetic whether the gradient comes from an arena or a tile."""

from libc.stdint cimport uint64_t

cdef struct Update:
    int kind
    bint nesterov
    double learning_rate
    double beta1                # momentum for SGD
    double beta2                # rho for RMSprop
    double decay
    float clip                  # the gradient is multiplied by it
    # worked out by begin_update, once a step:
    float step                  # learning rate, for Adam over (1 - beta1^t)
    float first                 # beta1 or momentum
    float first_rest            # 1 - beta1
    float second                # beta2 or rho
    float second_rest           # 1 - beta2
    float second_scale          # 1 / sqrt(1 - beta2^t)
    float epsilon
    float weight_decay          # added to the gradient
    float shrink                # multiplies the weight (decoupled decay)
    bint still                  # parameters with a gradient of 0 stay as they are


cdef void begin_update(Update* u, double learning_rate, uint64_t t) noexcept nogil
cdef void update_rows(
    const Update* u, float* w, const float* g, float* m, float* v,
    Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t row, Py_ssize_t g_row) noexcept nogil
cdef void update_arena(
    const Update* u, float* w, const float* g, float* m, float* v, Py_ssize_t n, int n_threads) noexcept nogil
cdef double squared_norm(const float* g, Py_ssize_t n, double* partial, int n_threads) noexcept nogil

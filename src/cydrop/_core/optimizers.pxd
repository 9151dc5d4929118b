"""One update of a piece of the parameters: the same arithmetic whether the gradient comes from an arena or a tile."""

from libc.stdint cimport uint64_t

cdef enum:
    SPAN = 8192                 # elements whose squares are added by themselves

cdef struct Update:
    int kind
    bint nesterov
    double beta1                # momentum for SGD
    double beta2                # rho for RMSprop
    double epsilon
    double decay                # of this step
    float clip                  # the gradient is multiplied by it
    # worked out by begin_update, once per step:
    double learning_rate        # of this step
    double correction           # 1 - beta1^t for Adam, else 1
    float step                  # learning_rate / correction
    float first                 # beta1 or momentum
    float first_new             # 1 - beta1, the share of the new gradient
    float second                # beta2 or rho
    float second_new            # 1 - beta2
    float second_scale          # 1 / sqrt(1 - beta2^t)
    float epsilon32
    float weight_decay          # added to the gradient
    float shrink                # multiplies the weight (decoupled decay)
    bint still                  # parameters with a gradient of 0 stay as they are
    float pull                  # added to the gradient, after clipping; of logits of learned rates

cdef struct Segment:            # a piece of the arenas, and how it is learned
    Py_ssize_t start
    Py_ssize_t size
    double learning_rate        # multiplies the optimizer's
    double gain                 # the arena holds gain times the parameter that the optimizer is for
    double decay                # multiplies the optimizer's
    double prior                # weight decay of a kind of its own: added to the gradient, times what the arena holds
    double pull                 # added to the gradient


cdef void begin_update(Update* u, double learning_rate, uint64_t t) noexcept nogil
cdef Update update_of_segment(const Update* u, const Segment* segment) noexcept nogil
cdef void update_rows(
    const Update* u, float* w, const float* g, float* m, float* v,
    Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t row, Py_ssize_t g_row) noexcept nogil
cdef void update_arena(
    const Update* u, float* w, const float* g, float* m, float* v, Py_ssize_t n, int n_threads) noexcept nogil
cdef void update_segments(
    const Update* u, const Segment* segments, Py_ssize_t n_segments, float* w, const float* g, float* m, float* v,
    int n_threads) noexcept nogil
cdef double squared_norm(const float* g, Py_ssize_t n, double* partial, int n_threads) noexcept nogil

"""From a plan's operations, which are Python's, to the structs that run."""

from libc.string cimport memset

from cydrop._core.matrix cimport MARGIN
from cydrop._core.operation cimport Op, Source, Tensor
from cydrop._core.training cimport Learner


cdef inline Source source_of(given):
    """From the plan's (column, stream, seed), or None."""
    cdef Source source
    memset(&source, 0, sizeof(Source))
    source.column = -1
    if given is not None:
        source.column, source.stream = given.column, given.stream
        source.seed.k0, source.seed.k1 = given.seed
    return source


cdef inline int lower_op(Op* op, given, const Learner* learner, sizes, float* buffers) except -1:
    """Fills in what an operation says, all but the kinds; `sizes` of the parameters by their offsets."""
    op.n_in, op.n_out = given.n_in, given.n_out
    lower_tensor(&op.weight, given.weight, learner, sizes)
    lower_tensor(&op.bias, given.bias, learner, sizes)
    op.readable = learner.parameters + learner.n + MARGIN if learner.n else NULL
    op.alpha = given.alpha
    op.noise, op.connect = source_of(given.noise), source_of(given.connect)
    op.vanilla, op.shared = given.vanilla, given.shared
    op.max_norm = given.max_norm
    op.norm.batch = given.running_mean >= 0
    op.norm.epsilon, op.norm.momentum = given.epsilon, given.momentum
    op.norm.weight, op.norm.bias = op.weight.data, op.bias.data
    if op.norm.batch:
        op.norm.running_mean = buffers + <Py_ssize_t>given.running_mean
        op.norm.running_variance = buffers + <Py_ssize_t>given.running_variance
    return 0


cdef inline int lower_tensor(Tensor* tensor, Py_ssize_t offset, const Learner* learner, sizes) except -1:
    """A parameter that begins at an offset of the arenas, -1: there is none."""
    if offset >= 0:
        tensor.data, tensor.gradient = learner.parameters + offset, learner.gradients + offset
        tensor.size = sizes[offset]
        tensor.update = &learner.update
    return 0


cdef inline void give_moments(Tensor* tensor, const Learner* learner) noexcept:
    """The places of the moments, once the optimizer has any."""
    if tensor.data != NULL:
        tensor.moment1, tensor.moment2 = learner.moment1, learner.moment2
        if tensor.moment1 != NULL:
            tensor.moment1 += tensor.data - learner.parameters
        if tensor.moment2 != NULL:
            tensor.moment2 += tensor.data - learner.parameters

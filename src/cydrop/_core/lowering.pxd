"""From a plan's operations, which are Python's, to the structs that run."""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc
from libc.string cimport memset

from cydrop._core.leave_out cimport mark_what_leaves_out
from cydrop._core.matrix cimport MARGIN
from cydrop._core.operation cimport MOST_PARTS, Op, Source, Tensor
from cydrop._core.optimizers cimport Segment, Update
from cydrop._core.program cimport Program, trained_members
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


cdef inline int lower_op(
    Op* op, given, const int64_t[::1] numbers, const Learner* learner, dict parameters, float* buffers,
    dict buffer_sizes
) except -1:
    """Fills in what an operation says, all but the kinds. `parameters`, `buffer_sizes`: by their offsets."""
    op.n_in, op.n_out = given.n_in, given.n_out
    lower_tensor(&op.weight, given.weight, learner, parameters)
    lower_tensor(&op.bias, given.bias, learner, parameters)
    lower_parts(op, given, learner, parameters)
    op.numbers, op.n_numbers = &numbers[0] if numbers.shape[0] else NULL, numbers.shape[0]
    if given.buffer >= 0:
        op.buffer, op.buffer_size = buffers + <Py_ssize_t>given.buffer, buffer_sizes[given.buffer]
    check_tensors(op, given)
    op.readable = learner.parameters + learner.n + MARGIN if learner.n else NULL
    op.alpha, op.option = given.alpha, given.option
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


cdef inline int lower_parts(Op* op, given, const Learner* learner, dict parameters) except -1:
    """The parameters of a family's own."""
    cdef int i
    op.n_parts = len(given.parts)
    if op.n_parts > MOST_PARTS:
        raise ValueError(f"a {given.kind!r} operation has {op.n_parts} parts, at most {MOST_PARTS} have room")
    for i in range(op.n_parts):
        lower_tensor(&op.parts[i], given.parts[i], learner, parameters)
    return 0


cdef inline int check_tensors(const Op* op, given) except -1:
    """What the family computes with must be there: kernels do not look."""
    cdef Py_ssize_t wanted = op.n_in * op.n_out if op.doors.has_product else op.n_out if op.doors.has_scale else 0
    cdef bint fits = op.weight.size == wanted
    if op.doors.has_scale or op.bias.data != NULL:
        fits = fits and op.bias.size == op.n_out
    if op.doors.fits != NULL:
        fits = op.doors.fits(op)
    if not fits:
        raise ValueError(f"a {given.kind!r} operation of {op.n_in} to {op.n_out} units has not the parameters it needs")
    if op.n_in != op.n_out and not op.doors.has_product and op.doors.fits == NULL:
        raise ValueError(f"a {given.kind!r} operation cannot make {op.n_out} units of {op.n_in}")
    return 0


cdef inline bint has_parameters(const Op* op) noexcept:
    """Whether there is anything to learn."""
    return op.weight.data != NULL or op.n_parts > 0


cdef inline int lower_tensor(Tensor* tensor, Py_ssize_t offset, const Learner* learner, dict parameters) except -1:
    """The parameter at an offset of the arenas, -1: there is none. `parameters`: its number and its size."""
    cdef Py_ssize_t place
    if offset < 0:
        return 0
    tensor.data, tensor.gradient = learner.parameters + offset, learner.gradients + offset
    tensor.update = &learner.update
    place, tensor.size = parameters[offset]
    if learner.n_segments > 0:
        tensor.update = &learner.updates[place]
    return 0


cdef inline int lower_segments(Learner* learner, list segments) except -1:
    """Those of the plan: a segment for every parameter, or none where all factors are 1."""
    cdef int i
    learner.n_segments = len(segments)
    if learner.n_segments == 0:
        return 0
    learner.segments = <Segment*>calloc(learner.n_segments, sizeof(Segment))
    learner.updates = <Update*>calloc(learner.n_segments, sizeof(Update))
    if learner.segments == NULL or learner.updates == NULL:
        raise MemoryError
    for i in range(learner.n_segments):
        segment = &learner.segments[i]
        segment.start, segment.size, segment.learning_rate, segment.gain, segment.decay = segments[i]
    return 0


cdef inline int lower_members(Program* p, plan) except -1:
    """What the plan says of members, once all operations are there; and which operations leave units out. Returns how
    often they work on a row."""
    cdef int i
    p.members, p.inside, p.own_orders, p.in_turn = plan.members, plan.inside, plan.own_orders, plan.in_turn
    for i in range(p.n_ops):
        p.ops[i].members = trained_members(p) if i >= p.inside else 0
        p.one_by_one = p.one_by_one or (p.ops[i].members > 0 and p.ops[i].shared)
    mark_what_leaves_out(p.ops, p.n_ops, p.n_parameters, p.one_by_one)
    return max(1, trained_members(p))


cdef inline int lower_optimizer(Learner* learner, options) except -1:
    """(kind, beta1, beta2, epsilon, nesterov, clip_norm or None)"""
    update = &learner.update
    update.kind, update.beta1, update.beta2, update.epsilon, update.nesterov, clip_norm = options
    update.clip = 1.0
    learner.clips = clip_norm is not None
    learner.clip_norm = clip_norm if learner.clips else 0.0
    return 0


cdef inline void give_moments(Op* op, const Learner* learner) noexcept:
    """The places of the moments, once the optimizer has any."""
    cdef int i
    give_moments_of(&op.weight, learner)
    give_moments_of(&op.bias, learner)
    for i in range(op.n_parts):
        give_moments_of(&op.parts[i], learner)


cdef inline void give_moments_of(Tensor* tensor, const Learner* learner) noexcept:
    if tensor.data != NULL:
        tensor.moment1, tensor.moment2 = learner.moment1, learner.moment2
        if tensor.moment1 != NULL:
            tensor.moment1 += tensor.data - learner.parameters
        if tensor.moment2 != NULL:
            tensor.moment2 += tensor.data - learner.parameters

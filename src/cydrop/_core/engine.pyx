"""The engine: runs a plan over batches without the GIL and without allocating.

An Engine holds a program (program.pxd: the plan's operations) and a learner (training.pxd: the optimizer, the arenas).
A Workspace holds the memory of one run (room.pxd): every operation's buffers are laid out in it once, when it is made,
so that a step has nothing to set up.

    batch:   load rows -> draw masks -> forward -> loss -> backward (+ optimizer) -> max-norm
"""

from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cydrop._core.arena cimport clear_floats, copy_floats, finite_arena, first_of, read_floats
from cydrop._core.batch cimport Data, data_of
from cydrop._core.families cimport MOST_FAMILIES, families
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.learned_rates cimport lower_rates
from cydrop._core.losses cimport LossSum, loss_of
from cydrop._core.lowering cimport (
    give_moments, has_parameters, lower_members, lower_op, lower_optimizer, lower_segments, source_of,
)
from cydrop._core.operation cimport Bound, Doors, Layout, Op, Source
from cydrop._core.optimizers cimport SPAN
from cydrop._core.pace cimport DRAWING, EACH, FORWARD, LOADING, LOSS_PASS, UPDATING
from cydrop._core.prediction cimport LEAST_PIECE, begin_samples, predict_rows, sample_batches, use_moments
from cydrop._core.program cimport Program, rows_in_epoch, trained_members
from cydrop._core.room cimport lane_of, lay_out
from cydrop._core.serial cimport SERIAL_COPY
from cydrop._core.shards cimport Part, add_parts, part_of
from cydrop._core.training cimport (
    Learner, Stretch, backward_by_hand, begin_learning, end_statistics, forward_by_hand, limit_norms, part_gradients,
    row_of, sum_parts, take_shards, train_batches, update_from_arena, update_part,
)
from cydrop._core.xorshift cimport StreamKey, stream_key

import numpy

from cydrop._core import activations
from cydrop._core.kinds import kind_of
from cydrop._core.memory import aligned
from cydrop._core.optimizers import spans_of

cdef extern from "fma.h" nogil:
    const char* CYDROP_TARGET
    int CYDROP_HAS_FMA

cdef Doors[MOST_FAMILIES] DOORS
FAMILIES = families(DOORS)      # of operations, by the names in a plan: the place of their doors, and their variants


def key_of(source, unsigned long long step):
    """The key of what a plan's Source draws in a training step."""
    cdef Source found = source_of(source)
    cdef StreamKey key = stream_key(found.seed, found.stream, step)
    return key.k0, key.k1


cdef class Engine:
    """A plan ready to run.

    Parameters
    ----------
    plan : cydrop._run.plan.Plan
    parameters, gradients : float32 arenas of the plan's layout
    buffers : float32 arena of what is kept but not trained
    loss_kind, loss_option, loss_pair, loss_levels : see losses.pxd
    n_threads : int
    learned : sequence of tuples, the dropout rates that are learned: see learned_rates.pxd
    bf16 : bool, products of dense layers are of bfloat16: see pairs.pxd
    """

    def __cinit__(self, plan, *args, **kwargs):
        self.program.ops = <Op*>calloc(max(len(plan.ops), 1), sizeof(Op))
        if self.program.ops == NULL:
            raise MemoryError

    def __init__(
        self, plan, float[::1] parameters, float[::1] gradients, float[::1] buffers, int loss_kind, float loss_option,
        float loss_pair, const float[::1] loss_levels, int n_threads, learned=(), bint bf16=False,
    ):
        cdef Program* p = &self.program
        cdef Learner* learner = &self.learner
        cdef int i
        self.parameters, self.gradients, self.buffers, self.levels = parameters, gradients, buffers, loss_levels
        self.moment1 = self.moment2 = self.parameters_before = parameters[:0]   # until they are given
        self.buffers_before, self.file = buffers[:0], -1
        self.statistics = numpy.zeros(buffers.shape[0], dtype=numpy.float32)
        self.partial_norms = numpy.zeros(spans_of(parameters.shape[0]) + 1)
        learner.n = p.n_parameters = parameters.shape[0]
        learner.parameters, learner.gradients = first_of(parameters), first_of(gradients)
        learner.partial_norms = &self.partial_norms[0]
        p.loss = loss_of(loss_kind, loss_option, loss_pair, loss_levels)
        p.n_ops, p.n_rates, p.n_threads, p.outputs = len(plan.ops), len(plan.draws), n_threads, plan.n_outputs
        p.lowest, self.work, p.bf16 = p.n_ops, p.n_parameters, bf16
        lower_segments(learner, plan.segments)
        learner.n_learned, learner.learned = len(learned), lower_rates(learned, learner.n_segments)
        places = {parameter.offset: (i, parameter.size) for i, parameter in enumerate(plan.parameters)}
        sizes = {buffer.offset: buffer.size for buffer in plan.buffers}
        none = numpy.empty(0, dtype=numpy.int64)     # one for all: there may be thousands of operations
        self.numbers = [numpy.array(op.numbers, dtype=numpy.int64) if op.numbers else none for op in plan.ops]
        for i in range(p.n_ops):
            given = plan.ops[i]
            family, variants = kind_of(FAMILIES, given.kind)
            p.ops[i].doors, p.ops[i].place = &DOORS[<int>family], i
            p.ops[i].variant = kind_of(variants, given.variant)
            p.ops[i].activation = kind_of(activations.KINDS, given.activation)
            lower_op(&p.ops[i], given, self.numbers[i], learner, places, first_of(buffers), sizes)
            self.work += 8 * p.ops[i].n_out
            learner.limits_norms = learner.limits_norms or p.ops[i].max_norm > 0
            if has_parameters(&p.ops[i]):
                p.lowest = min(i, p.lowest)
        self.work *= lower_members(p, plan)

    def __dealloc__(self):
        free(self.program.ops)
        free(self.learner.segments)
        free(self.learner.updates)
        free(self.learner.learned)

    def train_on(self, double rows):
        """Says how many rows there are to train on, 0: nobody knows. Learned rates need it."""
        self.learner.rows = rows

    cdef int pool_for(self, Py_ssize_t rows) noexcept nogil:
        """Threads whose float mode must be set for these rows: only this one where no kernel takes a second. `work`
        counts every element eight times, so even those that share SERIAL_PASS elements are covered."""
        return self.program.n_threads if <double>rows * self.work > SERIAL_COPY else 1

    # The optimizer and the state --------------------------------------------------------------------------

    def set_optimizer(self, owner, unsigned long long updates, float[::1] moment1, float[::1] moment2, *options):
        """The optimizer of the following updates: how many it has made, its moments, arenas or empty, and its options
        as lower_optimizer takes them. `owner` is kept as `in_force`."""
        cdef Learner* learner = &self.learner
        cdef int i
        self.in_force, self.updates = owner, updates
        self.moment1, self.moment2 = moment1, moment2
        learner.moment1, learner.moment2 = first_of(moment1), first_of(moment2)
        for i in range(self.program.n_ops):
            give_moments(&self.program.ops[i], learner)
        lower_optimizer(learner, options)

    def begin_pass(self, float[::1] parameters, float[::1] buffers, int file=-1):
        """Copies parameters and running statistics to where `train` and `end_pass` find them after a divergence. Where
        the parameters are in a file already, `file` is its descriptor, and `parameters` empty."""
        self.parameters_before, self.buffers_before, self.file, self.lost = parameters, buffers, file, False
        with nogil:
            copy_floats(buffers, self.buffers, 1)
            copy_floats(parameters, self.parameters, self.program.n_threads)

    def end_pass(self):
        """Whether parameters, running statistics and moments are finite; if not, back to the beginning of the pass.
        In one call, so that no interrupt comes in between.

        A first moment that is not finite has made its parameter the same; a second one has stopped it for good.
        """
        cdef bint finite
        with nogil:
            finite = (finite_arena(self.parameters, self.program.n_threads) and finite_arena(self.buffers, 1)
                      and finite_arena(self.moment2, self.program.n_threads))
            if not finite:
                self.replace_state(self.parameters_before, self.buffers_before, False)
            self.file = -1
        return finite

    def put_back(self, const float[::1] parameters, const float[::1] buffers, bint keep_moments):
        """Other parameters and running statistics, in one call; moments stay or start afresh."""
        self.replace_state(parameters, buffers, keep_moments)

    cdef void replace_state(self, const float[::1] parameters, const float[::1] buffers, bint keep) noexcept nogil:
        if parameters.shape[0]:
            copy_floats(self.parameters, parameters, 1)
        else:
            self.lost = not read_floats(self.file, self.parameters)
        copy_floats(self.buffers, buffers, 1)
        if not keep:
            self.updates = 0
            clear_floats(self.moment1)
            clear_floats(self.moment2)

    # Training ---------------------------------------------------------------------------------------------

    def train(
        self,
        Workspace ws,
        const float[:, ::1] x,              # IN, all rows
        const int32_t[::1] labels,          # IN, empty unless cross-entropy
        const float[:, ::1] targets,        # IN, empty where there are labels
        const float[::1] weights,           # IN, one per row, or per target row by row, or empty
        const int64_t[::1] order,           # IN, the rows to train on, in their order; empty: all as they are
        Py_ssize_t batch_size,
        Py_ssize_t first_batch,
        const double[::1] learning_rates,   # IN, one per batch of the epoch, or one for all
        const double[::1] decays,           # IN, weight decays, the same
        const double[:, ::1] rates,         # IN, dropout rates: a row per batch, or one row for all
        double seconds,                     # comes back after the batch in which they are over
        int shards=0,                       # into which each batch is cut, 0: none; the workspace has room for them
        double loss=0.0,                    # the sum so far: added row by row, wherever stretches end
    ):
        """Trains from batch `first_batch` on: (next batch, sum of the rows' losses so far, correct, diverged).

        Diverged: the loss of the next batch is not finite, and all is as at the beginning of the pass.
        """
        cdef Py_ssize_t n = rows_in_epoch(&self.program, order.shape[0], x.shape[0])
        cdef Stretch done
        cdef uint64_t control
        cdef Data data = data_of(x, labels, targets, weights, order)
        cdef Part part = part_of(min(batch_size, n), shards, 0, shards)
        take_shards(&self.program, &ws.room, &part, self.statistics, self.buffers)
        with nogil:
            control = exact_floats(self.pool_for(part.rows))
            done = train_batches(&self.program, &ws.room, &self.learner, &data, n, batch_size, first_batch,
                                 learning_rates, decays, rates, seconds, shards, loss, &self.draws, &self.updates)
            if done.diverged:
                self.replace_state(self.parameters_before, self.buffers_before, False)
            restore_floats(control)
        return done.batch, done.loss, done.correct, done.diverged

    # A batch in parts, which are done here or elsewhere: shards.pxd says how they are added ------------------

    def part_of_batch(
        self,
        Workspace ws,
        const float[:, ::1] x,              # IN, all rows, of which those of the part are read
        const int32_t[::1] labels,          # IN, as in train
        const float[:, ::1] targets,        # IN
        const float[::1] weights,           # IN
        const int64_t[::1] order,           # IN
        Py_ssize_t batch_size,              # of the whole
        Py_ssize_t batch,                   # number of the batch
        const double[:, ::1] rates,         # IN, as in train
        int shards,                         # of the whole batch, a power of two
        int first_shard,                    # of the part
        int n_shards,                       # of the part: a power of two, and first_shard a multiple of it
        float[::1] statistics,              # OUT, of the buffers' size
    ):
        """Forward and backward of some shards of a batch: (sum of the rows' losses, correct, whether it is finite).

        The sums over these shards of the gradients go into the gradient arena, zeros where they have no rows; those of
        what running statistics are made of into `statistics`. Masks and noise are those of the whole batch. Counts a
        draw.
        """
        cdef Py_ssize_t n = order.shape[0] if order.shape[0] else x.shape[0]
        cdef bint there = batch >= 0 and batch <= n // max(batch_size, <Py_ssize_t>1)       # their product fits
        cdef Py_ssize_t rows = min(batch_size, n - batch * batch_size) if there else 0
        cdef Part part = part_of(rows, shards, first_shard, n_shards)
        cdef Data data = data_of(x, labels, targets, weights, order)
        cdef LossSum one
        cdef uint64_t control
        take_shards(&self.program, &ws.room, &part, statistics, self.buffers)
        with nogil:
            control = exact_floats(self.pool_for(part.rows))
            one = part_gradients(&self.program, &ws.room, &self.learner, &data, batch * batch_size, &part,
                                 row_of(rates, batch), self.draws, self.buffers.shape[0])
            self.draws += 1
            restore_floats(control)
        return one.loss, one.correct, bool(isfinite(one.loss))

    def add_parts(self, float[:, ::1] parts, Py_ssize_t start, double[::1] squares):
        """The parts' gradients of the arena's elements from `start` on, a multiple of SPAN: (parts, elements), which
        are lost. Their sum goes into the arena and, if `squares` is not empty, each span's sum of squares there."""
        cdef Py_ssize_t n = parts.shape[1]
        cdef uint64_t control
        if start < 0 or start % SPAN or start + n > self.learner.n or squares.shape[0] not in (0, spans_of(n)):
            raise ValueError(f"no slice of {self.learner.n}: {n} from {start} on, with {squares.shape[0]} squares")
        if n == 0:
            return
        with nogil:
            control = exact_floats(self.program.n_threads)
            sum_parts(&self.learner, &parts[0, 0], n, <int>parts.shape[0], start,
                      &squares[0] if squares.shape[0] else NULL, self.program.n_threads)
            restore_floats(control)

    def update_part(
        self, Py_ssize_t start, Py_ssize_t stop, double learning_rate, double weight_decay, const double[::1] squares
    ):
        """The optimizer's update of the elements start..stop of the arenas; counts an update. `squares`: where
        gradients are clipped all spans' sums of squares, else empty."""
        cdef Learner* learner = &self.learner
        cdef uint64_t control
        if not 0 <= start <= stop <= learner.n or squares.shape[0] != (spans_of(learner.n) if learner.clips else 0):
            raise ValueError(f"no slice of {learner.n}: {start} to {stop}, with {squares.shape[0]} squares")
        with nogil:
            control = exact_floats(self.program.n_threads)
            self.updates += 1
            begin_learning(learner, learning_rate, weight_decay, self.updates, self.program.n_threads)
            update_part(learner, start, stop, &squares[0] if squares.shape[0] else NULL, squares.shape[0],
                        self.program.n_threads)
            restore_floats(control)

    def end_batch(self, float[:, ::1] statistics, Py_ssize_t rows, int shards):
        """What comes after the update of all parameters, for a batch of so many rows: running statistics, of those of
        the parts, (parts, buffers), which are lost; max-norm."""
        cdef uint64_t control
        if statistics.shape[1] != self.buffers.shape[0]:
            raise ValueError(f"statistics must have {self.buffers.shape[0]} columns, got {statistics.shape[1]}")
        with nogil:
            control = exact_floats(self.program.n_threads)
            if statistics.shape[1] > 0:
                add_parts(&statistics[0, 0], statistics.shape[1], statistics.shape[1], <int>statistics.shape[0],
                          &self.statistics[0])
                end_statistics(&self.program, &self.statistics[0], &self.buffers[0], rows, shards)
            limit_norms(&self.program, &self.learner, self.program.n_threads)
            restore_floats(control)

    # By hand ------------------------------------------------------------------------------------------------

    def forward(self, Workspace ws, const float[:, ::1] x, float[:, ::1] out, const double[:, ::1] rates):
        """A training forward pass of one batch; masks that the workspace was given are used instead of drawn ones."""
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(x.shape[0]))
            forward_by_hand(&self.program, &ws.room, &x[0, 0], x.shape[0], x.shape[1], &out[0, 0], row_of(rates, 0),
                            self.draws)
            self.draws += 1
            restore_floats(control)

    def backward(self, Workspace ws, const float[:, ::1] grad, float[:, ::1] dx):
        """From d loss / d raw outputs to the gradient arena and d loss / d x, for the last forward."""
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(grad.shape[0]))
            backward_by_hand(&self.program, &ws.room, &grad[0, 0], grad.shape[0], grad.shape[1], &dx[0, 0], dx.shape[1])
            restore_floats(control)

    def apply_update(self, double learning_rate, double weight_decay):
        """One optimizer update from the gradient arena."""
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(1))
            self.updates += 1
            begin_learning(&self.learner, learning_rate, weight_decay, self.updates, self.program.n_threads)
            update_from_arena(&self.learner, self.program.n_threads)
            limit_norms(&self.program, &self.learner, self.program.n_threads)
            restore_floats(control)

    # Prediction -------------------------------------------------------------------------------------------

    def predict(
        self,
        Workspace ws,
        const float[:, ::1] x,              # IN
        float[:, ::1] out,                  # OUT
        Py_ssize_t first_row,
        bint link,                          # apply the loss's link
        double seconds,
    ):
        """Predicts rows from `first_row` on and returns the first row that it has not done."""
        cdef Py_ssize_t row
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(x.shape[0]))
            row = predict_rows(&self.program, &ws.room, x, out, first_row, link, seconds)
            restore_floats(control)
        return row

    def use_moments(self, Workspace ws, bint moments):
        """Whether the following samples draw drop-connect's outputs from their Gaussian moments; if so, squares the
        weights as they are now."""
        cdef uint64_t control = exact_floats(1)
        use_moments(&self.program, &ws.room, moments)
        restore_floats(control)

    def begin_samples(
        self,
        Workspace ws,
        const float[:, ::1] x,              # IN, the rows at hand, up to ws.capacity
        Py_ssize_t copies,                  # samples that a batch holds: few rows are stacked
        const double[:, ::1] rates,         # IN, one row
    ):
        """Computes once what lies before the first drawn number: the head of all samples of these rows.

            x -> op 0 -> op 1 without its dropout -> head        head -> dropout of op 1 -> op 2 -> ... -> a sample
        """
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(x.shape[0] * copies))
            begin_samples(&self.program, &ws.room, &x[0, 0], x.shape[1], x.shape[0], copies, row_of(rates, 0))
            restore_floats(control)

    def samples(
        self,
        Workspace ws,
        float[:, :, ::1] out,               # OUT, (samples, rows, units): from sample number first * copies on
        unsigned long long first,           # number of the first batch of samples
        unsigned long long chunk,           # which rows these are
        unsigned long long chunks,          # of how many
        const uint64_t[:, ::1] seeds,       # IN, a key for each rate
        bint link,
    ):
        """Stochastic predictions of the rows of begin_samples; no counter changes. Threads take turns with batches."""
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.program.n_threads)
            sample_batches(&self.program, &ws.room, out, first, chunk, chunks,
                           &seeds[0, 0] if self.program.n_rates else NULL, link)
            restore_floats(control)


cdef class Workspace:
    """The memory of one run of an engine: batches of up to `capacity` rows, for training, for predictions, or (masked)
    for predictions with dropout; in training with memory for up to `shards` shards."""

    @property
    def first_row(self):
        """Number of the first row in the whole batch, of which this workspace's batches are a part; masks and noise
        are those of the whole."""
        return self.room.step.first_row

    @first_row.setter
    def first_row(self, Py_ssize_t first_row):
        cdef const Program* p = &self.engine.program
        if first_row < 0 or (first_row > 0 and (p.loss.pair > 0 or trained_members(p) > 0)):
            raise ValueError(f"first_row must be at least 0, and 0 with R-Drop or Members, got {first_row}")
        self.room.step.first_row = first_row

    def __cinit__(self, Engine engine, Py_ssize_t capacity, bint training, bint masked=False, int shards=0):
        cdef bint alone = training or (capacity < LEAST_PIECE and not masked)
        self.room.n_ops = engine.program.n_ops
        self.room.lanes = 1 if alone else engine.program.n_threads
        self.room.bound = <Bound*>calloc(self.room.lanes * engine.program.n_ops, sizeof(Bound))
        self.room.rates = <double*>calloc(engine.program.n_rates + 1, sizeof(double))
        if self.room.bound == NULL or self.room.rates == NULL:
            raise MemoryError

    def __init__(self, Engine engine, Py_ssize_t capacity, bint training, bint masked=False, int shards=0):
        cdef Layout layout
        cdef float[:] view
        self.engine = engine
        self.capacity, self.training, self.masked = capacity, training, masked
        self.shards = self.room.shards = shards
        self.room.threads = engine.program.n_threads
        memset(&layout, 0, sizeof(Layout))
        layout.capacity, layout.training, layout.draws = capacity, training, training or masked
        lay_out(&self.room, &engine.program, &layout)       # measures
        self.memory = view = aligned(layout.used)
        layout.memory, layout.used = &view[0], 0
        lay_out(&self.room, &engine.program, &layout)       # hands out

    def __dealloc__(self):
        free(self.room.bound)
        free(self.room.rates)
        free(self.room.clock.seconds)

    def start_clock(self):
        """From now on the time of training steps is kept, part by part."""
        free(self.room.clock.seconds)
        self.room.clock.seconds = <double*>calloc(FORWARD + EACH * self.room.n_ops, sizeof(double))
        if self.room.clock.seconds == NULL:
            raise MemoryError
        self.room.step.clock = &self.room.clock

    def seconds(self):
        """Since start_clock: {"load", "masks", "loss", "update"} and for every operation
        (forward, backward to the input, backward to the weights, the optimizer included)."""
        cdef int i
        cdef double* s = self.room.clock.seconds
        if s == NULL:
            raise RuntimeError("the clock was not started")
        parts = {"load": s[LOADING], "masks": s[DRAWING], "loss": s[LOSS_PASS], "update": s[UPDATING]}
        s += FORWARD
        return parts, [(s[EACH * i], s[EACH * i + 1], s[EACH * i + 2]) for i in range(self.room.n_ops)]

    def set_keep(self, int op, double keep):
        """In prediction, the factor of a vanilla dropout layer's outputs: 1 - rate."""
        cdef int lane
        for lane in range(self.room.lanes):
            lane_of(&self.room, lane)[op].epilogue.scale = <float>keep

    def give_mask(self, int op, const uint64_t[::1] bits):
        """A mask to be used instead of a drawn one."""
        memcpy(self.room.bound[op].mask, &bits[0], bits.shape[0] * sizeof(uint64_t))
        self.room.bound[op].given = True

    def take_back_masks(self):
        cdef int i
        for i in range(self.room.n_ops):
            self.room.bound[i].given = False


def all_finite(const float[::1] x, int n_threads):
    """Whether no element is NaN or infinite. Threads that a pool has put to rest take longer to come than a few
    megabytes take to read, and spin afterwards."""
    cdef bint finite
    with nogil:
        finite = finite_arena(x, n_threads)
    return finite


def target():
    """The instruction set that this module was compiled for, and whether it has fused multiply-adds."""
    return CYDROP_TARGET.decode(), bool(CYDROP_HAS_FMA)

"""The engine: runs a plan over batches without the GIL and without allocating.

An Engine holds the plan's operations and the parameter arena. A Workspace holds the memory of one run: every
operation's buffers are laid out in it once, when it is made, so that a step has nothing to set up.

    batch:   gather rows -> draw masks -> forward -> loss -> backward (+ optimizer) -> max-norm
    forward: one operation after the other       y = drop(f(x W + b))  or  y = drop(f(x)), noise or a norm

A mask that all rows share leaves units out: where a dense operation reads the result, dropped units are not computed.
Their columns of W, and their rows of the next W, are gathered into smaller matrices, and everything between is the
ordinary work on smaller matrices (see prepare):

          W0, kept columns        W1, kept rows and columns        W2, kept rows
    x  ->  [ | |  | ]  -> y0  ->   [ - + - + + ]  -> y1  ->          [ = = ]
"""

from cython.parallel cimport prange, threadid
from libc.math cimport isfinite, sqrt
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cydrop._core.activations cimport IDENTITY, RELU
from cydrop._core.dense cimport (
    dense_backward_input, dense_backward_weight, dense_forward, finish_backward, finish_forward,
)
from cydrop._core.dropout cimport draw_mask, keep_threshold, mask_words, select_row
from cydrop._core.epilogue cimport Epilogue
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.gather cimport Kept, gather, gather_row, kept_places, spread
from cydrop._core.losses cimport Loss, LossSum, link_rows, loss_pass, pair_pass
from cydrop._core.matrix cimport MARGIN, Matrix
from cydrop._core.max_norm cimport clip_columns
from cydrop._core.noise cimport Affine, add_row, alpha_affine, alpha_row, draw_normals, multiply_row
from cydrop._core.norms cimport Norm, norm_backward, norm_forward
from cydrop._core.optimizers cimport Update, begin_update, squared_norm, update_arena, update_rows
from cydrop._core.panels cimport TILE_ROWS, scratch_floats
from cydrop._core.weight_gradient cimport Gradient
from cydrop._core.xorshift cimport StreamKey, stream_key

import numpy

from cydrop._core.memory import aligned
from cydrop._core.optimizers import spans_of

cdef extern from "fma.h" nogil:
    double passing_seconds()
    int32_t bits_of(float x)
    float sqrtf(float x)
    void fetch_line(const void* p)
    const char* CYDROP_TARGET
    int CYDROP_HAS_FMA

cdef enum:
    DENSE = 0
    MAP = 1                     # an operation without parameters: y = drop(f(x))
    GAUSSIAN_DROPOUT = 2
    GAUSSIAN_NOISE = 3
    ALPHA_DROPOUT = 4
    NORM = 5

KINDS = {"dense": DENSE, "map": MAP, "gaussian_dropout": GAUSSIAN_DROPOUT, "gaussian_noise": GAUSSIAN_NOISE,
         "alpha_dropout": ALPHA_DROPOUT, "layer_norm": NORM, "batch_norm": NORM}

cdef enum:
    SERIAL_PREDICTION = 600000  # multiply-adds of a prediction below which one thread is enough
    LEAST_PIECE = 24            # rows that a thread should have at least
    SPAN = 262144               # elements that are looked through at a time
    STRETCH = 8                 # pieces for each thread, then a look at the clock
    FITS_L2 = 131072            # parameters that each thread may read for itself, for however few rows
    LITTLE = 100000             # multiply-adds and elements below which no pass of any kernel takes a second thread
    FETCHED = 16384             # floats of a batch that are asked for ahead
    FEW = 32768                 # elements below which one thread is enough for an elementwise pass
    SMALL = 12288               # parameters below which one pass over the cached arenas is the fastest update
    WEIGHT_BLOCK = 8192         # weights that a thread drops at a time


cdef enum:                      # what a step's time went into; for each operation three more, in this order
    LOADING = 0
    DRAWING = 1
    LOSS_PASS = 2
    UPDATING = 3
    FORWARD = 4
    BACKWARD_INPUT = 5
    BACKWARD_WEIGHT = 6
    EACH = 3


cdef struct Source:             # what an operation draws from
    int column                  # of its rate among all rates, -1: it draws nothing
    uint64_t stream             # number of its random stream
    StreamKey seed


cdef struct Op:
    int kind
    Py_ssize_t n_in
    Py_ssize_t n_out
    Py_ssize_t weight           # offset in the arenas
    Py_ssize_t bias             # the same, -1: none
    int activation
    float alpha
    Source noise                # of its dropout or noise
    bint vanilla                # unscaled in training, scaled in prediction
    bint shared                 # one mask for all rows
    bint leaves_out             # and dropped units need not be computed
    Source connect              # of its dropped weights
    float max_norm              # 0: none
    Norm norm                   # of a normalisation


cdef struct Bound:              # an operation and its memory in one workspace
    Matrix x
    Matrix z                    # what enters the activation
    Matrix y
    Matrix weight               # the one of this batch
    const float* weight_end     # it may be read up to here
    Py_ssize_t n_in             # columns of x in this batch
    Py_ssize_t n_out            # and of y
    Epilogue epilogue
    uint64_t* mask
    bint given                  # the mask came from the caller
    float* noise                # normal numbers, of rows one behind the other
    float deviation             # that they are multiplied by
    Affine affine               # of alpha dropout
    bint quiet                  # nothing is drawn: the identity
    float* mean                 # of a normalisation
    float* inverse
    int32_t* places             # memory for places of the units that a shared mask keeps
    Kept kept                   # which are these
    bint gathered               # y has only those
    Matrix few_inputs           # memory for what is gathered
    Matrix few_weights
    float* few_biases
    uint64_t* connect_mask      # of the weights, NULL: drop-connect is not in force
    uint64_t* connect_bits
    Matrix connected            # the weights that it keeps
    float connect_scale
    StreamKey connect_key
    bint by_moments             # instead of dropping weights, outputs of the same mean and variance are drawn
    float* squares              # of the weights, the same for all lanes
    Matrix x_squares
    Matrix variance


cdef struct Pace:               # are the threads worth it at the moment?
    double serial               # seconds a row on one thread, 0: not measured yet
    double resume               # when to try all threads again
    double pause                # for how long they were put aside last
    double lost                 # seconds that the threads are behind one thread
    int trials                  # batches on all threads before the first measurement of one


cdef inline int threads_now(Pace* pace, int n_threads, double now) noexcept nogil:
    """All threads, or one where all were slower a moment ago; the bits do not depend on it."""
    if n_threads == 1 or now < pace.resume:
        return 1
    if pace.serial == 0 and pace.trials == 2:
        return 1                # once, to know what one thread takes
    return n_threads


cdef inline void note_pace(
    Pace* pace, int threads, int n_threads, double passed, Py_ssize_t rows, double now
) noexcept nogil:
    """A processor that others use as well makes a pool of threads wait for the one that lost its turn, many times
    longer than one thread would have worked. When all threads together are a millisecond behind what one would have
    taken, all but one rest for twice the time that was lost, and twice as long, up to 1.6 s, whenever the next trial
    fails too: neither waiting nor resting costs much more than the other would have."""
    cdef double seconds = passed / <double>rows
    if n_threads == 1:
        return
    if threads == 1:            # one thread may become slower too, but one batch is no proof of it
        if pace.serial == 0 or seconds < pace.serial:
            pace.serial = seconds
        else:
            pace.serial += (seconds - pace.serial) / 8
        return
    if pace.serial == 0:
        pace.trials += 1
        return
    pace.lost = max(0.0, pace.lost + passed - pace.serial * <double>rows)
    if pace.lost > 1e-3:
        pace.pause = min(2 * max(pace.lost, pace.pause), 1.6)
        pace.resume = now + pace.pause
        pace.lost = 0.0
    elif pace.lost == 0.0 and now > pace.resume + pace.pause:
        pace.pause = 0.0


cdef inline void tick(double* clock, double* last, int slot) noexcept nogil:
    """Adds the time since the last tick to a slot, where somebody wants to know."""
    cdef double now
    if clock != NULL:
        now = passing_seconds()
        clock[slot] += now - last[0]
        last[0] = now


cdef inline Py_ssize_t padded(Py_ssize_t n) noexcept nogil:
    """Floats from row to row: whole cache lines, and never a multiple of 1 KiB, whose rows would fall into the
    same sets of the L1 cache."""
    cdef Py_ssize_t row = (n + 15) // 16 * 16
    return row + 16 if row % 256 == 0 else row


cdef Source source_of(given):
    """From the plan's (column, stream, seed), or None."""
    cdef Source source
    memset(&source, 0, sizeof(Source))
    source.column = -1
    if given is not None:
        source.column, source.stream = given.column, given.stream
        source.seed.k0, source.seed.k1 = given.seed
    return source


cdef class Engine:
    """A plan ready to run.

    Parameters
    ----------
    ops : sequence of cydrop._run.plan.Op
    parameters, gradients : float32 arenas of the same layout
    buffers : float32 arena of what is kept but not trained
    loss_kind, loss_option : see losses.pxd
    n_threads : int
    """

    cdef Op* ops
    cdef readonly int n_ops
    cdef readonly int n_threads
    cdef readonly int n_rates   # numbers that change: of dropout, noise and drop-connect
    cdef int first_trained      # the lowest operation with parameters
    cdef Py_ssize_t work        # about as many multiply-adds and elements a row
    cdef bint any_max_norm
    cdef bint has_clip
    cdef double clip_norm
    cdef Loss loss
    cdef Update update
    cdef float[::1] parameters
    cdef float[::1] gradients
    cdef float[::1] moment1
    cdef float[::1] moment2
    cdef float[::1] buffers     # running statistics
    cdef float[::1] parameters_before   # those at the beginning of a pass, which a divergence goes back to
    cdef float[::1] buffers_before
    cdef double[::1] partial_norms
    cdef public unsigned long long draws        # training forward passes so far: the step of the next masks
    cdef public unsigned long long updates      # optimizer updates so far
    cdef readonly object in_force               # what set_optimizer was called for, None: it never was

    def __cinit__(self, ops, *args, **kwargs):
        self.ops = <Op*>calloc(max(len(ops), 1), sizeof(Op))
        if self.ops == NULL:
            raise MemoryError

    def __init__(
        self, ops, float[::1] parameters, float[::1] gradients, float[::1] buffers, int loss_kind, float loss_option,
        float loss_pair, int n_threads,
    ):
        cdef int i
        cdef Py_ssize_t place
        cdef Op* op
        self.n_ops = len(ops)
        self.n_threads = n_threads
        self.parameters = parameters
        self.gradients = gradients
        self.buffers = buffers
        self.moment1 = self.moment2 = self.parameters_before = parameters[:0]   # until they are given
        self.buffers_before = buffers[:0]
        self.partial_norms = numpy.zeros(spans_of(parameters.shape[0]) + 1)
        self.loss.kind = loss_kind
        self.loss.option = loss_option
        self.loss.pair = loss_pair
        self.first_trained = self.n_ops
        self.work = parameters.shape[0]
        self.n_rates = 0
        self.any_max_norm = False
        for i in range(self.n_ops):
            op = &self.ops[i]
            given = ops[i]
            op.kind = KINDS[given.kind]
            op.n_in, op.n_out = given.n_in, given.n_out
            self.work += 8 * op.n_out
            op.weight, op.bias = given.weight, given.bias
            op.activation, op.alpha = given.activation, given.alpha
            op.vanilla, op.shared = given.vanilla, given.shared
            op.noise = source_of(given.noise)
            op.connect = source_of(given.connect)
            self.n_rates += (op.noise.column >= 0) + (op.connect.column >= 0)
            op.max_norm = given.max_norm
            if op.kind == NORM:
                op.norm.batch = given.kind == "batch_norm"
                op.norm.epsilon, op.norm.momentum = given.epsilon, given.momentum
                op.norm.weight, op.norm.bias = &parameters[op.weight], &parameters[op.bias]
                if op.norm.batch:
                    place = given.buffer
                    op.norm.running_mean = &buffers[place]
                    op.norm.running_variance = &buffers[place + op.n_out]
            if op.kind in (DENSE, NORM) and self.first_trained == self.n_ops:
                self.first_trained = i
            if op.max_norm > 0:
                self.any_max_norm = True
        for i in range(self.n_ops - 1):
            op = &self.ops[i]
            op.leaves_out = (op.shared and op.kind in (DENSE, MAP) and self.ops[i + 1].kind == DENSE
                             and op.connect.column < 0 and self.ops[i + 1].connect.column < 0
                             and parameters.shape[0] > SMALL)

    def __dealloc__(self):
        free(self.ops)

    cdef int pool_for(self, Py_ssize_t rows) noexcept nogil:
        """Threads whose float mode must be set for these rows: none but this one where the others are not asked."""
        return self.n_threads if <double>rows * self.work >= LITTLE else 1

    def set_optimizer(
        self, owner, unsigned long long updates, float[::1] moment1, float[::1] moment2, int kind, double beta1,
        double beta2, double epsilon, double weight_decay, bint nesterov, clip_norm,
    ):
        """The optimizer of the following updates: how many it has made, its moments, arenas or empty; clip_norm is None
        or a number. `owner` is kept as `in_force`."""
        self.in_force = owner
        self.updates = updates
        self.moment1 = moment1
        self.moment2 = moment2
        self.update.kind = kind
        self.update.beta1, self.update.beta2 = beta1, beta2
        self.update.epsilon = epsilon
        self.update.decay = weight_decay
        self.update.nesterov = nesterov
        self.update.clip = 1.0
        self.has_clip = clip_norm is not None
        self.clip_norm = clip_norm if self.has_clip else 0.0

    def begin_pass(self, float[::1] parameters, float[::1] buffers):
        """Copies parameters and running statistics to where `train` and `end_pass` find them after a divergence."""
        cdef Py_ssize_t n = self.parameters.shape[0], i
        self.parameters_before, self.buffers_before = parameters, buffers
        memcpy_floats(buffers, self.buffers)
        if n <= SPAN or self.n_threads == 1:
            memcpy_floats(parameters, self.parameters)
            return
        with nogil:
            for i in prange(0, n, SPAN, num_threads=self.n_threads, schedule="static"):
                memcpy(&parameters[i], &self.parameters[i], min(<Py_ssize_t>SPAN, n - i) * sizeof(float))

    def end_pass(self):
        """Whether parameters, running statistics and moments are finite; if not, back to the beginning of the pass.
        In one call, so that no interrupt comes in between.

        A first moment that is not finite has made its parameter the same; a second one has stopped it for good.
        """
        cdef bint finite
        with nogil:
            finite = (finite_arena(self.parameters, self.n_threads) and finite_arena(self.buffers, 1)
                      and finite_arena(self.moment2, self.n_threads))
            if not finite:
                self.replace_state(self.parameters_before, self.buffers_before)
        return finite

    def put_back(self, const float[::1] parameters, const float[::1] buffers):
        """Other parameters and running statistics, in one call; moments begin anew."""
        self.replace_state(parameters, buffers)

    cdef void replace_state(self, const float[::1] parameters, const float[::1] buffers) noexcept nogil:
        memcpy_floats(self.parameters, parameters)
        memcpy_floats(self.buffers, buffers)
        clear_floats(self.moment1)
        clear_floats(self.moment2)
        self.updates = 0

    def mask_key(self, int op, unsigned long long step):
        """The key of an operation's masks in training step `step`."""
        cdef StreamKey key = stream_key(self.ops[op].noise.seed, self.ops[op].noise.stream, step)
        return key.k0, key.k1

    def connect_key(self, int op, unsigned long long step):
        """The key of a dense operation's weight masks in training step `step`."""
        cdef StreamKey key = stream_key(self.ops[op].connect.seed, self.ops[op].connect.stream, step)
        return key.k0, key.k1

    def train(
        self,
        Workspace ws,
        const float[:, ::1] x,              # IN, all rows
        const int32_t[::1] labels,          # IN, empty unless cross-entropy
        const float[:, ::1] targets,        # IN, empty where there are labels
        const float[::1] weights,           # IN, one a row, or one a target, row by row, or empty
        const int64_t[::1] order,           # IN, the rows in the order of training, empty: as they are
        Py_ssize_t batch_size,
        Py_ssize_t first_batch,
        const double[::1] learning_rates,   # IN, one a batch of the epoch, or one for all
        const double[:, ::1] rates,         # IN, dropout rates: a row a batch, or one row for all
        double seconds,                     # comes back after the batch in which they are over
    ):
        """Trains from batch `first_batch` on: (next batch, sum of the rows' losses, rows, correct, diverged).

        Diverged: the loss of the next batch is not finite, and all is as at the beginning of the pass.
        """
        cdef Py_ssize_t n = x.shape[0], batches = (n + batch_size - 1) // batch_size, batch = first_batch
        cdef Py_ssize_t start, rows, copies, seen = 0, correct = 0
        cdef double begun, now, deadline, loss = 0.0
        cdef LossSum one
        cdef bint diverged = False
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(min(batch_size, n)))
            now = passing_seconds()
            deadline = now + seconds
            while batch < batches:
                begun = now
                ws.threads = threads_now(&ws.pace, self.n_threads, now)
                ws.last_tick = now
                start = batch * batch_size
                rows = min(batch_size, n - start)
                self.load_batch(ws, x, labels, targets, weights, order, start, rows)
                copies = 2 if self.loss.pair > 0 else 1         # R-Drop: every row twice, with masks of their own
                tick(ws.clock, &ws.last_tick, LOADING)
                self.set_rates(ws, &rates[batch if rates.shape[0] > 1 else 0, 0] if self.n_rates else NULL)
                self.prepare(ws, ws.bound, copies * rows, self.draws, self.draws, NULL, ws.threads)
                tick(ws.clock, &ws.last_tick, DRAWING)
                self.forward_pass(ws, ws.bound, copies * rows, ws.scratch, ws.threads)
                self.draws += 1
                one = self.loss_of_batch(ws, rows, True)
                tick(ws.clock, &ws.last_tick, LOSS_PASS)
                if not isfinite(one.loss):
                    diverged = True
                    self.replace_state(self.parameters_before, self.buffers_before)
                    break
                loss += one.loss
                correct += one.correct
                seen += rows
                self.fetch_batch(x, order, start + rows, min(batch_size, n - start - rows))
                self.train_step(ws, copies * rows, learning_rates[batch if learning_rates.shape[0] > 1 else 0])
                tick(ws.clock, &ws.last_tick, UPDATING)
                batch += 1
                now = passing_seconds()
                note_pace(&ws.pace, ws.threads, self.n_threads, now - begun, rows, now)
                if now > deadline:
                    break
            restore_floats(control)
        return batch, loss, seen, correct, diverged

    def predict(
        self,
        Workspace ws,
        const float[:, ::1] x,              # IN
        float[:, ::1] out,                  # OUT
        Py_ssize_t first_row,
        bint link,                          # apply the loss's link
        double seconds,
    ):
        """Predicts rows from `first_row` on and returns the first row that it has not done.

        Many rows: the threads take turns with pieces that fit the cache and carry them through the whole network.
        Few rows: the threads share each operation.
        """
        cdef Py_ssize_t n = x.shape[0], row = first_row, rows, piece
        cdef int threads, lane
        cdef double begun, now, deadline
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(n))
            now = passing_seconds()
            deadline = now + seconds
            while row < n:
                begun = now
                threads = threads_now(&ws.pace, self.n_threads, now)
                piece = self.piece_of(ws, n - row, threads)
                if piece > 0:
                    rows = min(STRETCH * threads * piece, n - row)
                    for lane in prange(threads, num_threads=threads, schedule="static"):
                        self.predict_pieces(ws, lane, threads, &x[row, 0], x.shape[1], rows, piece, &out[row, 0], link)
                else:
                    rows = min(ws.capacity, n - row)
                    self.predict_piece(ws, 0, &x[row, 0], x.shape[1], rows, &out[row, 0], link, threads)
                row += rows
                now = passing_seconds()
                note_pace(&ws.pace, threads, self.n_threads, now - begun, rows, now)
                if now > deadline:
                    break
            restore_floats(control)
        return row

    cdef Py_ssize_t piece_of(self, Workspace ws, Py_ssize_t rows, int threads) noexcept nogil:
        """Rows of a piece of a prediction, so that all threads get the same number of pieces; 0: do not divide."""
        cdef Py_ssize_t pieces, piece, tiles
        if threads == 1 or ws.lanes == 1:
            return 0
        if <double>rows * self.parameters.shape[0] < SERIAL_PREDICTION or rows < LEAST_PIECE * threads:
            return 0
        if rows < ws.capacity * threads and self.parameters.shape[0] > FITS_L2:
            return 0
        pieces = (rows + ws.capacity - 1) // ws.capacity
        pieces = (pieces + threads - 1) // threads * threads
        piece = (rows + pieces - 1) // pieces
        tiles = (piece + TILE_ROWS - 1) // TILE_ROWS
        return min(tiles * TILE_ROWS, ws.capacity)

    cdef void predict_pieces(
        self, Workspace ws, int lane, int lanes, const float* x, Py_ssize_t x_row, Py_ssize_t rows, Py_ssize_t piece,
        float* out, bint link
    ) noexcept nogil:
        """Every `lanes`th piece of the rows, from number `lane` on."""
        cdef Py_ssize_t row = lane * piece, units = self.ops[self.n_ops - 1].n_out
        while row < rows:
            self.predict_piece(ws, lane, x + row * x_row, x_row, min(piece, rows - row), out + row * units, link, 1)
            row += lanes * piece

    cdef void predict_piece(
        self, Workspace ws, int lane, const float* x, Py_ssize_t x_row, Py_ssize_t rows, float* out, bint link,
        int threads
    ) noexcept nogil:
        cdef Bound* bound = ws.bound + lane * self.n_ops
        cdef Bound* last = &bound[self.n_ops - 1]
        cdef Matrix held = last.y
        cdef bint straight = self.ops[self.n_ops - 1].kind == DENSE and last.z.data == last.y.data
        bound[0].x.data = <float*>x         # never written: operations only read their x
        bound[0].x.row = x_row
        self.whole(bound)
        if straight:                        # the last product may write where the result is wanted
            last.y.data, last.y.row = out, self.ops[self.n_ops - 1].n_out
            last.z = last.y
        self.forward_pass(ws, bound, rows, ws.scratch + lane * scratch_floats(ws.capacity), threads)
        self.write_output(bound, rows, out, link)
        if straight:
            last.y = held
            last.z = held

    def use_moments(self, Workspace ws, bint moments):
        """Whether the following samples draw drop-connect's outputs from their Gaussian moments; if so, squares the
        weights as they are now."""
        cdef int i
        cdef uint64_t control = exact_floats(1)
        ws.moments = moments
        if moments:
            for i in range(self.n_ops):
                if self.ops[i].connect.column >= 0:
                    self.square_weights(i, ws.bound[i].squares)
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
        cdef Py_ssize_t rows = x.shape[0], copy, r
        cdef int i, stop
        cdef Matrix source
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(rows * copies))
            self.set_rates(ws, &rates[0, 0] if self.n_rates else NULL)
            ws.first = self.first_drawing(ws)
            ws.copies = copies
            stop = ws.first
            if stop < self.n_ops and self.drops_behind(stop):
                stop += 1
            ws.bound[0].x.data = <float*>&x[0, 0]       # never written: operations only read their x
            ws.bound[0].x.row = x.shape[1]
            self.whole(ws.bound)
            for i in range(self.n_ops):
                ws.bound[i].epilogue.scale = 1.0
            source = ws.bound[0].x
            ws.head_units = self.ops[0].n_in
            for i in range(stop):
                self.forward_op(ws, ws.bound, i, rows, ws.scratch, self.n_threads)
                source = ws.bound[i].y
                ws.head_units = self.ops[i].n_out
            for copy in range(copies):
                for r in range(rows):
                    memcpy(ws.head.data + (copy * rows + r) * ws.head.row, source.data + r * source.row,
                           ws.head_units * sizeof(float))
            restore_floats(control)

    cdef bint drops_behind(self, int i) noexcept nogil:
        """Whether an operation's dropout comes behind work that all samples have in common."""
        return self.ops[i].kind in (DENSE, MAP) and self.ops[i].connect.column < 0

    cdef int first_drawing(self, Workspace ws) noexcept nogil:
        """The lowest operation that draws, n_ops if none does."""
        cdef int i
        for i in range(self.n_ops):
            if self.ops[i].noise.column >= 0 and ws.rates[self.ops[i].noise.column] > 0.0:
                return i
            if self.ops[i].connect.column >= 0 and ws.rates[self.ops[i].connect.column] > 0.0:
                return i
        return self.n_ops

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
        """Stochastic predictions of the rows of begin_samples, the network's own counters untouched: the threads take
        turns with batches of samples."""
        cdef Py_ssize_t samples = out.shape[0], rows = out.shape[1], batches, batch, some
        cdef int threads
        cdef const uint64_t* keys = &seeds[0, 0] if self.n_rates else NULL
        cdef double begun
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.n_threads)
            batches = (samples + ws.copies - 1) // ws.copies
            begun = passing_seconds()
            threads = threads_now(&ws.pace, self.n_threads, begun)
            for batch in prange(batches, num_threads=threads, schedule="dynamic"):
                some = min(ws.copies, samples - batch * ws.copies)
                self.sample_batch(ws, threadid(), some * rows, first + <uint64_t>batch, chunk, chunks, keys,
                                  &out[batch * ws.copies, 0, 0], link)
            note_pace(&ws.pace, threads, self.n_threads, passing_seconds() - begun, samples * rows, passing_seconds())
            restore_floats(control)

    cdef void sample_batch(
        self, Workspace ws, int lane, Py_ssize_t rows, uint64_t batch, uint64_t chunk, uint64_t chunks,
        const uint64_t* keys, float* out, bint link
    ) noexcept nogil:
        cdef Bound* bound = ws.bound + lane * self.n_ops
        cdef float* scratch = ws.scratch + lane * scratch_floats(ws.capacity)
        cdef Bound* b
        cdef Matrix to
        cdef Py_ssize_t r
        cdef int i = ws.first
        if i == self.n_ops:                 # nothing is drawn
            to.data, to.row = out, ws.head_units
            self.copy_rows(ws.head, to, rows, ws.head_units)
            if link:
                link_rows(self.loss.kind, out, to.row, rows, to.row)
            return
        b = &bound[i]
        if not self.drops_behind(i):
            b.x = ws.head
        self.prepare(ws, bound, rows, batch * chunks + chunk, batch, keys, 1)
        if self.drops_behind(i):            # the activation is done
            for r in range(rows):
                select_row(b.epilogue.mask, b.epilogue.mask_first + r * b.epilogue.mask_row,
                           ws.head.data + r * ws.head.row, b.epilogue.scale, b.y.data + r * b.y.row, self.ops[i].n_out)
            i += 1
        while i < self.n_ops:
            self.forward_op(ws, bound, i, rows, scratch, 1)
            i += 1
        self.write_output(bound, rows, out, link)

    def forward(self, Workspace ws, const float[:, ::1] x, float[:, ::1] out, const double[:, ::1] rates):
        """A training forward pass of one batch; masks given to the workspace are used instead of drawn ones."""
        cdef Py_ssize_t rows = x.shape[0], r
        cdef Matrix held
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(rows))
            # backward reads the input again, so that it is kept: the caller may change x in between
            held = ws.batch
            for r in range(rows):
                memcpy(held.data + r * held.row, &x[r, 0], x.shape[1] * sizeof(float))
            ws.bound[0].x = held
            self.set_rates(ws, &rates[0, 0] if self.n_rates else NULL)
            self.prepare(ws, ws.bound, rows, self.draws, self.draws, NULL, ws.threads)
            self.forward_pass(ws, ws.bound, rows, ws.scratch, ws.threads)
            self.write_output(ws.bound, rows, &out[0, 0], False)
            self.draws += 1
            restore_floats(control)

    def backward(self, Workspace ws, const float[:, ::1] grad, float[:, ::1] dx):
        """From d loss / d raw outputs to the gradient arena and d loss / d x, for the last forward."""
        cdef Py_ssize_t rows = grad.shape[0], r
        cdef Matrix to
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(rows))
            for r in range(rows):
                memcpy(ws.slope[0].data + r * ws.slope[0].row, &grad[r, 0], grad.shape[1] * sizeof(float))
            to.data, to.row = &dx[0, 0], dx.shape[1]
            self.backward_pass(ws, rows, NULL, True, to)
            restore_floats(control)

    def apply_update(self, double learning_rate):
        """One optimizer update from the gradient arena."""
        cdef uint64_t control
        with nogil:
            control = exact_floats(self.pool_for(3))
            self.updates += 1
            begin_update(&self.update, learning_rate, self.updates)
            self.update_from_arena(self.n_threads)
            self.limit_norms(self.n_threads)
            restore_floats(control)

    # One batch, without the GIL ---------------------------------------------------------------------------

    cdef void load_batch(
        self, Workspace ws, const float[:, ::1] x, const int32_t[::1] labels, const float[:, ::1] targets,
        const float[::1] weights, const int64_t[::1] order, Py_ssize_t start, Py_ssize_t rows
    ) noexcept nogil:
        cdef Py_ssize_t r, n = x.shape[1], columns = targets.shape[1]
        cdef const int64_t* places = &order[start] if order.shape[0] else NULL
        if places == NULL and self.loss.pair <= 0:
            ws.bound[0].x.data = <float*>&x[start, 0]       # never written: operations only read their x
            ws.bound[0].x.row = n
        else:
            ws.bound[0].x = ws.batch
            for r in prange(rows, num_threads=ws.threads if rows * n > FEW else 1, schedule="static"):
                memcpy(ws.batch.data + r * ws.batch.row, &x[places[r] if places != NULL else start + r, 0],
                       n * sizeof(float))
        if self.loss.pair > 0:
            for r in prange(rows, num_threads=ws.threads if rows * n > FEW else 1, schedule="static"):
                memcpy(ws.batch.data + (rows + r) * ws.batch.row, ws.batch.data + r * ws.batch.row, n * sizeof(float))
        ws.has_labels = labels.shape[0] > 0
        ws.has_weights = weights.shape[0] > 0
        ws.each = weights.shape[0] > x.shape[0]         # every target has a weight
        if ws.has_labels:
            for r in range(rows):
                ws.labels[r] = labels[places[r] if places != NULL else start + r]
        else:
            self.load_floats(&targets[0, 0], columns, places, start, rows, ws.targets)
        if ws.has_weights:
            self.load_floats(&weights[0], columns if ws.each else 1, places, start, rows, ws.weights)

    cdef void load_floats(
        self, const float* source, Py_ssize_t columns, const int64_t* places, Py_ssize_t start, Py_ssize_t rows,
        float* to
    ) noexcept nogil:
        """The rows of a batch, of `columns` floats each, one after the other."""
        cdef Py_ssize_t r
        if places == NULL:
            memcpy(to, source + start * columns, rows * columns * sizeof(float))
            return
        for r in range(rows):
            memcpy(to + r * columns, source + places[r] * columns, columns * sizeof(float))

    cdef void fetch_batch(
        self, const float[:, ::1] x, const int64_t[::1] order, Py_ssize_t start, Py_ssize_t rows
    ) noexcept nogil:
        """Asks for the rows of the next batch, where they are few, while this one is still worked on."""
        cdef Py_ssize_t r, j, n = x.shape[1]
        cdef const float* row
        if rows * n > FETCHED:
            return
        for r in range(rows):
            row = &x[order[start + r] if order.shape[0] else start + r, 0]
            j = 0
            while j < n:
                fetch_line(row + j)
                j += 16

    cdef void set_rates(self, Workspace ws, const double* rates) noexcept nogil:
        """The rates of this batch."""
        cdef int i
        for i in range(self.n_rates):
            ws.rates[i] = rates[i]

    cdef void whole(self, Bound* bound) noexcept nogil:
        """Every operation with all its units and weights, and nothing drawn."""
        cdef int i
        cdef Op* op
        cdef Bound* b
        for i in range(self.n_ops):
            op = &self.ops[i]
            b = &bound[i]
            b.n_in, b.n_out = op.n_in, op.n_out
            b.gathered = False
            b.quiet = True
            b.by_moments = False
            b.connect_mask = NULL
            b.epilogue.mask = NULL
            if op.kind == DENSE:
                b.weight.data, b.weight.row = &self.parameters[op.weight], op.n_out
                b.weight_end = self.parameters_end()
                b.epilogue.bias = &self.parameters[op.bias] if op.bias >= 0 else NULL
            else:
                b.z = b.x

    cdef void prepare(
        self, Workspace ws, Bound* bound, Py_ssize_t rows, uint64_t step, uint64_t shared_step, const uint64_t* seeds,
        int threads
    ) noexcept nogil:
        """Draws everything that the forward pass of a batch needs. A rate of 0 draws nothing and is the identity."""
        cdef int i
        cdef double rate
        cdef Op* op
        self.whole(bound)
        for i in range(self.n_ops):
            op = &self.ops[i]
            if op.noise.column >= 0:
                rate = ws.rates[op.noise.column]
                if op.kind == GAUSSIAN_DROPOUT or op.kind == GAUSSIAN_NOISE:
                    self.draw_noise(&bound[i], op, rows, rate, step, seeds, threads)
                else:
                    self.draw_dropout(&bound[i], op, rows, rate, shared_step if op.shared else step, seeds, threads)
            if op.connect.column >= 0 and ws.rates[op.connect.column] > 0.0:
                self.draw_weights(&bound[i], op, ws.rates[op.connect.column], ws.moments, shared_step, seeds, threads)
        if ws.training:
            self.leave_out(bound, threads)

    cdef inline StreamKey key_of(self, const Source* source, uint64_t step, const uint64_t* seeds) noexcept nogil:
        """The key of this step, or of the caller's seeds."""
        cdef StreamKey seed = source.seed
        if seeds != NULL:
            seed.k0, seed.k1 = seeds[2 * source.column], seeds[2 * source.column + 1]
        return stream_key(seed, source.stream, step)

    cdef void draw_mask_of(
        self, StreamKey key, double rate, uint64_t* bits, Py_ssize_t n, int threads
    ) noexcept nogil:
        if rate >= 1.0:
            memset(bits, 0, mask_words(0, n) * sizeof(uint64_t))
        else:
            draw_mask(key, keep_threshold(rate), bits, 0, n, threads if n > FEW else 1)

    cdef void draw_dropout(
        self, Bound* b, const Op* op, Py_ssize_t rows, double rate, uint64_t step, const uint64_t* seeds, int threads
    ) noexcept nogil:
        """The mask of a dropout layer, or of alpha dropout."""
        cdef Py_ssize_t n = op.n_out if op.shared else rows * op.n_out
        b.epilogue.mask_row = 0 if op.shared else op.n_out
        b.quiet = rate <= 0.0 and not b.given
        if op.kind == ALPHA_DROPOUT:
            b.affine = alpha_affine(rate)
        else:
            b.epilogue.scale = 1.0 if op.vanilla or rate >= 1.0 else <float>(1.0 / (1.0 - rate))
            if not b.quiet:
                b.epilogue.mask = b.mask
        if not (b.quiet or b.given):
            self.draw_mask_of(self.key_of(&op.noise, step, seeds), rate, b.mask, n, threads)

    cdef void draw_noise(
        self, Bound* b, const Op* op, Py_ssize_t rows, double rate, uint64_t step, const uint64_t* seeds, int threads
    ) noexcept nogil:
        """The normal numbers of Gaussian dropout or noise."""
        cdef Py_ssize_t n = rows * op.n_out
        b.quiet = rate <= 0.0
        if b.quiet:
            return
        b.deviation = <float>rate
        if op.kind == GAUSSIAN_DROPOUT:
            b.deviation = <float>sqrt(rate / (1.0 - rate)) if rate < 1.0 else <float>-1.0     # below 0: all zeros
        draw_normals(self.key_of(&op.noise, step, seeds), b.noise, 0, n, threads if n > FEW else 1)

    cdef void draw_weights(
        self, Bound* b, const Op* op, double rate, bint moments, uint64_t step, const uint64_t* seeds, int threads
    ) noexcept nogil:
        """Drop-connect: this batch's weights."""
        cdef Py_ssize_t n = op.n_in * op.n_out, i
        cdef StreamKey key = self.key_of(&op.connect, step, seeds)
        cdef const float* weight = &self.parameters[op.weight]
        b.connect_scale = <float>(1.0 / (1.0 - rate)) if rate < 1.0 else <float>1.0
        if moments and rate < 1.0:
            b.by_moments = True
            b.deviation = <float>sqrt(rate / (1.0 - rate))
            b.connect_key = key
            return
        self.draw_mask_of(key, rate, b.connect_bits, n, threads)
        b.connect_mask = b.connect_bits
        b.weight = b.connected
        b.weight_end = b.connected.data + n + MARGIN
        for i in prange(0, n, WEIGHT_BLOCK, num_threads=threads if n > FEW else 1, schedule="static"):
            select_row(b.connect_bits, i, weight + i, b.connect_scale, b.connected.data + i,
                       min(<Py_ssize_t>WEIGHT_BLOCK, n - i))

    cdef void square_weights(self, int i, float* squares) noexcept nogil:
        cdef Py_ssize_t j
        cdef const float* weight = &self.parameters[self.ops[i].weight]
        for j in range(self.ops[i].n_in * self.ops[i].n_out):
            squares[j] = weight[j] * weight[j]

    cdef void leave_out(self, Bound* bound, int threads) noexcept nogil:
        """Gathers the weights of the units that masks shared by all rows keep; the work that follows is smaller."""
        cdef int i
        cdef Op* op
        cdef Bound* b
        cdef Bound* below
        cdef Matrix weight
        cdef Kept all_rows
        cdef Py_ssize_t found
        memset(&all_rows, 0, sizeof(Kept))
        for i in range(self.n_ops):
            op = &self.ops[i]
            b = &bound[i]
            below = &bound[i - 1] if i > 0 else NULL
            if op.leaves_out and b.epilogue.mask != NULL:
                found = kept_places(b.epilogue.mask, op.n_out, b.places)
                if found > 0 and 8 * found <= 7 * op.n_out:
                    b.gathered = True
                    b.kept.bits, b.kept.places, b.kept.units = b.mask, b.places, op.n_out
                    b.n_out = found
                    b.epilogue.mask = NULL
                    bound[i + 1].n_in = found
            if op.kind != DENSE:
                if b.gathered and (op.activation != IDENTITY and op.activation != RELU):
                    b.z = b.few_inputs
                elif b.gathered:
                    b.z = b.y
                continue
            if b.n_in == op.n_in and b.n_out == op.n_out:
                continue
            weight = b.weight
            b.weight = b.few_weights
            b.weight.row = (b.n_out + 15) // 16 * 16
            b.weight_end = b.weight.data + b.n_in * b.weight.row + MARGIN
            gather(weight, &below.kept if b.n_in < op.n_in else &all_rows, b.n_in,
                   &b.kept if b.gathered else &all_rows, b.n_out, b.weight, threads)
            if b.gathered and op.bias >= 0:
                gather_row(b.epilogue.bias, &b.kept, op.n_out, b.few_biases)
                b.epilogue.bias = b.few_biases

    cdef const float* parameters_end(self) noexcept nogil:
        """Weights may be read up to here, by vectors that hang over."""
        return &self.parameters[0] + self.parameters.shape[0] + MARGIN if self.parameters.shape[0] else NULL

    cdef void forward_pass(
        self, Workspace ws, Bound* bound, Py_ssize_t rows, float* scratch, int threads
    ) noexcept nogil:
        cdef int i
        for i in range(self.n_ops):
            self.forward_op(ws, bound, i, rows, scratch, threads)
            tick(ws.clock, &ws.last_tick, FORWARD + EACH * i)

    cdef void forward_op(
        self, Workspace ws, Bound* bound, int i, Py_ssize_t rows, float* scratch, int threads
    ) noexcept nogil:
        cdef const Op* op = &self.ops[i]
        cdef Bound* b = &bound[i]
        cdef Matrix source = b.x
        cdef Kept every
        if op.kind == DENSE:
            if b.by_moments:
                self.forward_moments(b, op, rows, scratch)
                return
            dense_forward(b.x, b.weight, b.weight_end, rows, b.n_in, b.n_out, &b.epilogue, b.z, b.y, scratch, threads)
        elif op.kind == MAP:
            if b.gathered:
                memset(&every, 0, sizeof(Kept))
                gather(source, &every, rows, &b.kept, b.n_out, b.z, threads)
            self.map_pass(&b.epilogue, b.z, b.y, b.y, rows, b.n_out, False, threads)
        elif op.kind == NORM:
            norm_forward(&op.norm, b.x, b.y, rows, op.n_out, b.mean, b.inverse, ws.training, threads)
        else:
            self.noise_pass(op.kind, b, b.x, b.y, rows, op.n_out, False, threads)

    cdef void forward_moments(self, Bound* b, const Op* op, Py_ssize_t rows, float* scratch) noexcept nogil:
        """Drop-connect's outputs as normal numbers of the same mean and variance (Wan et al. 2013, section 4):
        z ~ N(x W + b, rate / (1 - rate) x^2 W^2)."""
        cdef Epilogue plain
        cdef Matrix squares
        cdef Py_ssize_t r, j
        cdef float* z
        memset(&plain, 0, sizeof(Epilogue))
        plain.scale = 1.0
        squares.data, squares.row = b.squares, op.n_out
        for r in range(rows):
            for j in range(op.n_in):
                b.x_squares.data[r * b.x_squares.row + j] = b.x.data[r * b.x.row + j] * b.x.data[r * b.x.row + j]
        dense_forward(b.x_squares, squares, b.squares + op.n_in * op.n_out + MARGIN, rows, op.n_in, op.n_out, &plain,
                      b.variance, b.variance, scratch, 1)
        plain.bias = b.epilogue.bias
        dense_forward(b.x, b.weight, b.weight_end, rows, op.n_in, op.n_out, &plain, b.z, b.z, scratch, 1)
        draw_normals(b.connect_key, b.noise, 0, rows * op.n_out, 1)
        for r in range(rows):
            z = b.z.data + r * b.z.row
            for j in range(op.n_out):
                z[j] = z[j] + b.deviation * sqrtf(b.variance.data[r * b.variance.row + j]) * b.noise[r * op.n_out + j]
        finish_forward(&b.epilogue, b.z, b.y, 0, rows, 0, op.n_out, False)

    cdef void noise_pass(
        self, int kind, const Bound* b, Matrix source, Matrix to, Py_ssize_t rows, Py_ssize_t cols, bint backward,
        int threads
    ) noexcept nogil:
        """Forward from x to y, or backward in place on d loss / d y."""
        cdef Py_ssize_t r
        for r in prange(rows, num_threads=threads if rows * cols > FEW else 1, schedule="static"):
            self.noise_row(kind, b, source.data + r * source.row, to.data + r * to.row, r, cols, backward)

    cdef inline void noise_row(
        self, int kind, const Bound* b, const float* x, float* y, Py_ssize_t r, Py_ssize_t n, bint backward
    ) noexcept nogil:
        if b.quiet or (backward and kind == GAUSSIAN_NOISE):
            if x != y:
                memcpy(y, x, n * sizeof(float))
        elif kind == GAUSSIAN_NOISE:
            add_row(x, b.noise + r * n, b.deviation, y, n)
        elif kind == GAUSSIAN_DROPOUT:
            if b.deviation < <float>0.0:
                memset(y, 0, n * sizeof(float))
            else:
                multiply_row(x, b.noise + r * n, b.deviation, y, n)
        elif backward:
            select_row(b.mask, b.epilogue.mask_first + r * n, x, b.affine.scale, y, n)
        else:
            alpha_row(b.mask, b.epilogue.mask_first + r * n, x, b.affine, y, n)

    cdef void map_pass(
        self, const Epilogue* e, Matrix z, Matrix y, Matrix g, Py_ssize_t rows, Py_ssize_t cols,
        bint backward, int threads
    ) noexcept nogil:
        """An epilogue by itself, forward into y or backward in place on g."""
        cdef Py_ssize_t r
        if backward and e.activation == IDENTITY and e.mask == NULL and e.scale == <float>1.0:
            return
        if threads == 1 or rows * cols <= FEW:
            if backward:
                finish_backward(e, z, y, g, 0, rows, 0, cols)
            else:
                finish_forward(e, z, y, 0, rows, 0, cols, False)
            return
        for r in prange(rows, num_threads=threads, schedule="static"):
            if backward:
                finish_backward(e, z, y, g, r, 1, 0, cols)
            else:
                finish_forward(e, z, y, r, 1, 0, cols, False)

    cdef LossSum loss_of_batch(self, Workspace ws, Py_ssize_t rows, bint with_gradient) noexcept nogil:
        cdef Bound* last = &ws.bound[self.n_ops - 1]
        cdef Py_ssize_t units = self.ops[self.n_ops - 1].n_out
        cdef const float* weights = ws.weights if ws.has_weights else NULL
        cdef float* slope = ws.slope[0].data if with_gradient else NULL
        cdef const int32_t* labels = ws.labels if ws.has_labels else NULL
        if self.loss.pair > 0:
            return pair_pass(self.loss, last.y.data, last.y.row, rows, units, labels, ws.targets, weights, slope,
                             ws.slope[0].row, ws.row_loss, ws.row_correct, ws.threads)
        return loss_pass(self.loss, last.y.data, last.y.row, rows, units, labels, ws.targets, weights, ws.each, slope,
                         ws.slope[0].row, ws.row_loss, ws.row_correct, ws.threads)

    cdef void train_step(self, Workspace ws, Py_ssize_t rows, double learning_rate) noexcept nogil:
        """Backward and update. Without a global norm to clip, the optimizer runs inside the gradient's product."""
        cdef Matrix nowhere
        nowhere.data = NULL
        nowhere.row = 0
        self.updates += 1
        begin_update(&self.update, learning_rate, self.updates)
        if self.has_clip or self.parameters.shape[0] <= SMALL:
            self.backward_pass(ws, rows, NULL, False, nowhere)
            self.update_from_arena(ws.threads)
        else:
            self.backward_pass(ws, rows, &self.update, False, nowhere)
        self.limit_norms(ws.threads)

    cdef void backward_pass(
        self, Workspace ws, Py_ssize_t rows, const Update* update, bint want_input, Matrix dx
    ) noexcept nogil:
        """From d loss / d y of the last operation, in ws.slope[0], down to the lowest operation that is asked for.

        At operation i, `g` holds d loss / d z of it: the epilogue backwards was fused to the product above.
        """
        cdef int i = self.n_ops - 1
        cdef Matrix g = ws.slope[0], spare = ws.slope[1], other
        cdef Gradient to
        cdef const Op* op
        cdef Bound* b
        cdef Bound* below
        self.map_pass(&ws.bound[i].epilogue, ws.bound[i].z, ws.bound[i].y, g, rows, self.ops[i].n_out, True, ws.threads)
        while i >= (0 if want_input else self.first_trained):
            op = &self.ops[i]
            b = &ws.bound[i]
            below = &ws.bound[i - 1] if i > 0 else NULL
            if op.kind == DENSE:
                if i > self.first_trained or want_input:
                    other = spare if i > 0 else dx
                    if below != NULL:
                        dense_backward_input(g, b.weight, b.weight_end, rows, b.n_in, b.n_out,
                                             &below.epilogue, below.z, below.y, other, ws.scratch, ws.threads)
                    else:
                        dense_backward_input(g, b.weight, b.weight_end, rows, b.n_in, b.n_out,
                                             NULL, other, other, other, ws.scratch, ws.threads)
                    tick(ws.clock, &ws.last_tick, BACKWARD_INPUT + EACH * i)
                self.gradient_of(ws, i, update, &to)
                dense_backward_weight(b.x, g, rows, b.n_in, b.n_out, &to, ws.scratch, ws.threads)
                tick(ws.clock, &ws.last_tick, BACKWARD_WEIGHT + EACH * i)
                other = spare
                spare = g
                g = other
                i -= 1
                continue
            if op.kind == NORM:
                norm_backward(&op.norm, b.x, g, rows, op.n_out, b.mean, b.inverse, &self.gradients[op.weight],
                              &self.gradients[op.bias], ws.threads)
                if update != NULL:
                    self.update_part(update, op.weight, op.n_out)
                    self.update_part(update, op.bias, op.n_out)
            elif op.kind != MAP:
                self.noise_pass(op.kind, b, g, g, rows, op.n_out, True, ws.threads)
            elif b.gathered:
                self.spread_rows(g, b.kept.bits, spare, rows, op.n_out)
                other = spare
                spare = g
                g = other
            if below != NULL:
                self.map_pass(&below.epilogue, below.z, below.y, g, rows, op.n_in, True, ws.threads)
            elif want_input:
                self.copy_rows(g, dx, rows, op.n_in)
            i -= 1

    cdef void spread_rows(
        self, Matrix source, const uint64_t* bits, Matrix to, Py_ssize_t rows, Py_ssize_t cols
    ) noexcept nogil:
        """Rows of kept units become rows of all units, zero where dropped."""
        cdef Py_ssize_t r
        for r in range(rows):
            spread(source.data + r * source.row, bits, 0, cols, to.data + r * to.row)

    cdef void update_part(self, const Update* update, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
        """One update of n parameters whose gradient lies in the arena."""
        update_rows(update, &self.parameters[start], &self.gradients[start],
                    &self.moment1[start] if self.moment1.shape[0] else NULL,
                    &self.moment2[start] if self.moment2.shape[0] else NULL, 1, n, 0, 0)

    cdef void gradient_of(self, Workspace ws, int i, const Update* update, Gradient* to) noexcept nogil:
        cdef const Op* op = &self.ops[i]
        cdef const Bound* b = &ws.bound[i]
        cdef bint biased = op.bias >= 0
        to.update = update
        to.bias_update = update
        to.weight = &self.parameters[op.weight]
        to.weight_gradient = &self.gradients[op.weight]
        to.weight_moment1 = &self.moment1[op.weight] if self.moment1.shape[0] else NULL
        to.weight_moment2 = &self.moment2[op.weight] if self.moment2.shape[0] else NULL
        to.bias = &self.parameters[op.bias] if biased else NULL
        to.bias_gradient = &self.gradients[op.bias] if biased else NULL
        to.bias_moment1 = &self.moment1[op.bias] if biased and self.moment1.shape[0] else NULL
        to.bias_moment2 = &self.moment2[op.bias] if biased and self.moment2.shape[0] else NULL
        to.mask = b.connect_mask
        to.scale = b.connect_scale
        to.rows_kept = ws.bound[i - 1].places if i > 0 and ws.bound[i - 1].gathered else NULL
        to.cols_kept = b.places if b.gathered else NULL
        to.cols_bits = b.mask
        to.gathered = to.rows_kept != NULL or to.cols_kept != NULL
        to.n_in, to.n_out = op.n_in, op.n_out
        to.wide, to.wide_row = ws.wide, ws.wide_row

    cdef void update_from_arena(self, int n_threads) noexcept nogil:
        """Clip by the global norm (Pascanu, Mikolov and Bengio 2013), then one pass over the flat arenas."""
        cdef Py_ssize_t n = self.parameters.shape[0]
        cdef double norm
        if n == 0:
            return
        self.update.clip = 1.0
        if self.has_clip:
            norm = sqrt(squared_norm(&self.gradients[0], n, &self.partial_norms[0], n_threads))
            if norm > self.clip_norm:
                self.update.clip = <float>(self.clip_norm / norm)
        update_arena(&self.update, &self.parameters[0], &self.gradients[0],
                     &self.moment1[0] if self.moment1.shape[0] else NULL,
                     &self.moment2[0] if self.moment2.shape[0] else NULL, n, n_threads)
        self.update.clip = 1.0

    cdef void limit_norms(self, int n_threads) noexcept nogil:
        cdef int i
        cdef Op* op
        if not self.any_max_norm:
            return
        for i in range(self.n_ops):
            op = &self.ops[i]
            if op.max_norm > 0:
                clip_columns(&self.parameters[op.weight], op.n_in, op.n_out, op.max_norm, n_threads)

    cdef void write_output(self, const Bound* bound, Py_ssize_t rows, float* out, bint link) noexcept nogil:
        cdef Py_ssize_t units = self.ops[self.n_ops - 1].n_out
        cdef Matrix to
        to.data = out
        to.row = units
        if bound[self.n_ops - 1].y.data != out:
            self.copy_rows(bound[self.n_ops - 1].y, to, rows, units)
        if link:
            link_rows(self.loss.kind, out, units, rows, units)

    cdef void copy_rows(self, Matrix source, Matrix to, Py_ssize_t rows, Py_ssize_t cols) noexcept nogil:
        cdef Py_ssize_t r
        for r in range(rows):
            memcpy(to.data + r * to.row, source.data + r * source.row, cols * sizeof(float))


cdef class Workspace:
    """The memory of one run of an engine: batches of up to `capacity` rows.

    Training keeps every operation's output (the backward pass reads it); prediction takes turns with two, and
    masked prediction has what dropout needs as well.
    """

    cdef Bound* bound           # the operations, for each lane
    cdef int lanes              # predictions that go on side by side, a thread each
    cdef double* rates          # of this batch
    cdef Pace pace
    cdef int threads            # in use at the moment
    cdef double* clock          # seconds in each part of a step, NULL: nobody asks
    cdef double last_tick
    cdef Engine engine
    cdef readonly Py_ssize_t capacity
    cdef readonly bint training
    cdef readonly bint masked
    cdef Matrix batch           # gathered rows
    cdef Matrix[2] slope        # d loss / d z of two neighbouring operations
    cdef int32_t* labels
    cdef float* targets
    cdef float* weights
    cdef bint has_labels        # else class probabilities, or targets
    cdef bint has_weights
    cdef bint each              # a weight for every target
    cdef double* row_loss
    cdef int32_t* row_correct
    cdef float* scratch
    cdef float* wide            # two rows of the widest layer, for each thread
    cdef Py_ssize_t wide_row
    cdef Matrix head            # of samples: what comes before the first drawn number
    cdef Py_ssize_t head_units
    cdef int first              # the operation that draws it
    cdef Py_ssize_t copies      # samples in a batch
    cdef bint moments           # drop-connect by its Gaussian moments
    cdef object memory
    cdef float[:] view
    cdef Py_ssize_t used        # floats laid out so far

    def __cinit__(self, Engine engine, Py_ssize_t capacity, bint training, bint masked=False):
        self.lanes = 1 if training or (capacity < LEAST_PIECE and not masked) else engine.n_threads
        self.bound = <Bound*>calloc(self.lanes * engine.n_ops, sizeof(Bound))
        self.rates = <double*>calloc(engine.n_rates + 1, sizeof(double))
        if self.bound == NULL or self.rates == NULL:
            raise MemoryError

    def __init__(self, Engine engine, Py_ssize_t capacity, bint training, bint masked=False):
        self.engine = engine
        self.capacity = capacity
        self.training = training
        self.masked = masked
        self.threads = engine.n_threads
        self.view = None
        self.lay_out()          # measures
        self.memory = aligned(self.used)
        self.view = self.memory
        self.lay_out()          # hands out

    def __dealloc__(self):
        free(self.bound)
        free(self.rates)
        free(self.clock)

    cdef float* take(self, Py_ssize_t floats):
        """The next piece of memory, on a cache line of its own; NULL while only measuring."""
        cdef Py_ssize_t start = self.used
        self.used += (floats + 15) // 16 * 16
        return &self.view[start] if self.view is not None else NULL

    cdef Matrix take_matrix(self, Py_ssize_t cols):
        cdef Matrix m
        m.row = padded(cols)
        m.data = self.take(self.capacity * m.row)
        return m

    cdef void lay_out(self):
        cdef Engine engine = self.engine
        cdef int i, lane, n = engine.n_ops
        cdef Py_ssize_t widest = 0
        cdef Op* op
        cdef Bound* b
        cdef Matrix[2] turns
        self.used = 0
        for i in range(n):
            widest = max(widest, engine.ops[i].n_in, engine.ops[i].n_out)
        if self.training:
            self.batch = self.take_matrix(engine.ops[0].n_in)
            self.slope[0] = self.take_matrix(widest)
            self.slope[1] = self.take_matrix(widest)
            self.labels = <int32_t*>self.take(self.capacity)
            self.targets = self.take(self.capacity * engine.ops[n - 1].n_out)
            self.weights = self.take(self.capacity * engine.ops[n - 1].n_out)
            self.row_loss = <double*>self.take(2 * self.capacity)
            self.row_correct = <int32_t*>self.take(self.capacity)
            self.wide_row = (2 * widest + 15) // 16 * 16
            self.wide = self.take(self.wide_row * engine.n_threads)
        elif self.masked:
            self.head = self.take_matrix(widest)
        self.scratch = self.take(scratch_floats(self.capacity) * engine.n_threads)
        for lane in range(self.lanes):
            if not self.training:
                turns[0] = self.take_matrix(widest)
                turns[1] = self.take_matrix(widest)
            for i in range(n):
                op = &engine.ops[i]
                b = &self.bound[lane * n + i]
                b.y = self.take_matrix(op.n_out) if self.training else turns[i % 2]
                if i > 0:
                    b.x = self.bound[lane * n + i - 1].y
                b.z = b.y
                if op.kind == DENSE and op.activation != IDENTITY and op.activation != RELU:
                    b.z = self.take_matrix(op.n_out)
                b.epilogue.activation = op.activation
                b.epilogue.alpha = op.alpha
                b.epilogue.scale = 1.0
                if self.masked or self.training:
                    self.lay_out_drawn(op, b, &self.bound[i], lane)
                if op.kind == NORM:
                    b.mean = self.take(max(self.capacity, op.n_out))
                    b.inverse = self.take(max(self.capacity, op.n_out))
                if self.training and op.leaves_out:
                    b.places = <int32_t*>self.take(op.n_out)
                    b.few_biases = self.take(op.n_out + MARGIN)
                    if op.kind == MAP and op.activation != IDENTITY and op.activation != RELU:
                        b.few_inputs = self.take_matrix(op.n_out)
                if self.training and op.kind == DENSE and (op.leaves_out or i > 0 and engine.ops[i - 1].leaves_out):
                    b.few_weights.data = self.take(op.n_in * ((op.n_out + 15) // 16 * 16) + MARGIN)

    cdef void lay_out_drawn(self, const Op* op, Bound* b, const Bound* first, int lane):
        """Memory for what a batch draws; `first` is the operation in lane 0."""
        cdef Py_ssize_t weights = op.n_in * op.n_out
        if op.noise.column >= 0:
            if op.kind == GAUSSIAN_DROPOUT or op.kind == GAUSSIAN_NOISE:
                b.noise = self.take(self.capacity * op.n_out)
            else:
                b.mask = <uint64_t*>self.take(2 * mask_words(0, self.capacity * op.n_out))
        if op.connect.column >= 0:
            b.connect_bits = <uint64_t*>self.take(2 * mask_words(0, weights))
            b.connected.data = self.take(weights + MARGIN)
            b.connected.row = op.n_out
            if not self.training:       # Gaussian moments
                b.noise = self.take(self.capacity * op.n_out)
                b.x_squares = self.take_matrix(op.n_in)
                b.variance = self.take_matrix(op.n_out)
                b.squares = self.take(weights + MARGIN) if lane == 0 else first.squares

    def start_clock(self):
        """From now on the time of training steps is kept, part by part."""
        free(self.clock)
        self.clock = <double*>calloc(FORWARD + EACH * self.engine.n_ops, sizeof(double))
        if self.clock == NULL:
            raise MemoryError

    def seconds(self):
        """Since start_clock: {"load", "masks", "loss", "update"} and for every operation
        (forward, backward to the input, backward to the weights, the optimizer included)."""
        cdef int i
        if self.clock == NULL:
            raise RuntimeError("the clock was not started")
        common = {"load": self.clock[LOADING], "masks": self.clock[DRAWING], "loss": self.clock[LOSS_PASS],
                  "update": self.clock[UPDATING]}
        return common, [(self.clock[FORWARD + EACH * i], self.clock[BACKWARD_INPUT + EACH * i],
                         self.clock[BACKWARD_WEIGHT + EACH * i]) for i in range(self.engine.n_ops)]

    def set_keep(self, int op, double keep):
        """In prediction, the factor of a vanilla dropout layer's outputs: 1 - rate."""
        cdef int lane
        for lane in range(self.lanes):
            self.bound[lane * self.engine.n_ops + op].epilogue.scale = <float>keep

    def give_mask(self, int op, const uint64_t[::1] bits):
        """A mask to be used instead of a drawn one."""
        memcpy(self.bound[op].mask, &bits[0], bits.shape[0] * sizeof(uint64_t))
        self.bound[op].given = True

    def take_back_masks(self):
        cdef int i
        for i in range(self.engine.n_ops):
            self.bound[i].given = False


cdef inline uint32_t greatest_bits(const float* x, Py_ssize_t n) noexcept nogil:
    """The greatest magnitude's bits; infinity's and NaN's are above all numbers'."""
    cdef uint32_t most = 0, bits
    cdef Py_ssize_t i
    for i in range(n):
        bits = <uint32_t>bits_of(x[i]) & <uint32_t>0x7FFFFFFF
        most = bits if bits > most else most
    return most


cdef inline bint finite_part(const float* x, Py_ssize_t n) noexcept nogil:
    return greatest_bits(x, n) < <uint32_t>0x7F800000


cdef bint finite_arena(const float[::1] x, int n_threads) noexcept nogil:
    cdef Py_ssize_t n = x.shape[0], i
    cdef int bad = 0
    if n <= SPAN or n_threads == 1:
        return finite_part(&x[0], n) if n else True
    for i in prange(0, n, SPAN, num_threads=n_threads, schedule="static"):
        bad += not finite_part(&x[i], min(<Py_ssize_t>SPAN, n - i))
    return bad == 0


cdef void memcpy_floats(float[::1] to, const float[::1] source) noexcept nogil:
    if to.shape[0]:
        memcpy(&to[0], &source[0], to.shape[0] * sizeof(float))


cdef void clear_floats(float[::1] x) noexcept nogil:
    if x.shape[0]:
        memset(&x[0], 0, x.shape[0] * sizeof(float))


def all_finite(const float[::1] x, int n_threads):
    """Whether no element is NaN or infinite."""
    cdef bint finite
    with nogil:
        finite = finite_arena(x, n_threads)
    return finite


def target():
    """The instruction set that this module was compiled for, and whether it has fused multiply-adds."""
    return CYDROP_TARGET.decode(), bool(CYDROP_HAS_FMA)

"""A network that is trained beside others, one thread a network: its epochs one after another, without the GIL.

    epoch:   order of its rows -> batches -> are all numbers finite? -> held-out rows -> score, best epoch, patience

Its steps are those of training.pxd, so that its bits are those of training alone. Where it stands is kept here; the
memory that a step works in belongs to the thread (`Desk`), which lays it out anew for whichever network comes next.
"""

from libc.math cimport isfinite, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.arena cimport finite_part
from cydrop._core.batch cimport Batch, Data, fetch, load
from cydrop._core.judging cimport Errors, Verdict, add_errors, add_verdict, verdict_of
from cydrop._core.losses cimport Loss, LossSum, loss_pass
from cydrop._core.matrix cimport Matrix
from cydrop._core.members cimport members_batch
from cydrop._core.operation cimport Bound, Layout, take, take_matrix
from cydrop._core.pace cimport passing_seconds
from cydrop._core.prediction cimport predict_piece
from cydrop._core.program cimport Program, trained_members
from cydrop._core.room cimport Room, lay_out, rows_of_room
from cydrop._core.seed_sequence cimport words_of_branch
from cydrop._core.shards cimport Part, part_of
from cydrop._core.training cimport Learner, copies_of, forward_batch, update_batch
from cydrop._core.xorshift cimport LANES, Generator, permute, seed_lanes

cdef enum:                      # why training has ended
    GOES_ON = 0
    OUT_OF_PATIENCE = 1
    DIVERGED = 2

cdef enum:                      # what is kept of every epoch
    LOSS_OF_ROWS = 0            # the sum, as trained
    CORRECT = 1                 # of them
    SECONDS = 2                 # of training
    HELD_LOSS = 3               # the mean over the held-out rows
    HELD_CORRECT = 4
    HELD_TARGETS = 5            # that count, where numbers are predicted
    HELD_SQUARES = 6
    HELD_MAGNITUDES = 7
    HELD_VERDICT = 8
    SCORE = 9                   # less is better
    COLUMNS = 10

cdef enum:                      # what the score is
    BY_LOSS = 0
    BY_HELD_LOSS = 1
    BY_HITS = 2
    BY_RMSE = 3
    BY_MAE = 4
    BY_VERDICT = 5

cdef enum:
    HELD_PIECE = 252            # rows that are predicted at a time, as wherever cydrop predicts

cdef struct Weights:            # copies of what predictions depend on; NULL: none are kept
    float* parameters
    float* buffers

cdef struct Trainee:
    # what it is
    Program program             # on one thread
    Learner* learner
    float* buffers
    Py_ssize_t n_buffers
    unsigned long long* draws   # counters of the engine
    unsigned long long* updates
    # what it is trained on
    Data data                   # all rows; `order` is memory for an epoch's
    const int64_t* rows         # its own among them, NULL: all
    Py_ssize_t n_rows
    Py_ssize_t epoch_rows       # that an epoch has, up to n_rows
    Py_ssize_t batch_size
    const double* learning_rates    # one for each batch of all epochs, or one for all
    const double* decays        # the same
    const double* rates         # n_rates for each batch, or for all
    bint scheduled              # whether there is one for each batch
    const uint64_t* root        # of the network's seeds
    int n_root
    uint64_t branch             # of the root, for shuffles
    uint64_t epochs_before      # of earlier calls
    # by what it is judged
    Data held                   # rows; `order` says which of them, NULL: all
    Py_ssize_t n_held           # 0: there are none
    const int32_t* kept_ops     # vanilla dropout: operations whose outputs are multiplied in prediction
    const float* keep           # by this
    int n_kept
    Loss judged                 # by which the held-out loss is taken
    bint counts                 # whether it counts hits, else errors are measured
    int verdict                 # of which kind, -1: none is wanted
    const float* low            # predictions are clamped to this range for it, NULL: they are not
    const float* high
    int score                   # what it is
    bint last_tie               # of equal scores the last epoch is the best one, not the first
    Py_ssize_t patience         # epochs without a better score, 0: never out of it
    # where it stands
    Weights before              # this epoch: a divergence goes back to them
    Weights best
    double best_score
    Py_ssize_t best_epoch       # from 1, 0: none
    Py_ssize_t waited
    Py_ssize_t epoch            # finished ones
    Py_ssize_t limit            # it pauses after so many
    Py_ssize_t batch            # the next one
    double loss                 # of this epoch so far
    Py_ssize_t correct
    double seconds
    int ended
    double* record              # COLUMNS for every epoch

cdef struct Desk:               # what a thread works with
    Room training
    Room predicting
    Bound* bound                # for the operations of both
    double* rates               # for both
    Batch held                  # a piece of the held-out rows
    float* outputs
    double* row_loss
    int32_t* row_correct


cdef inline int orders_of(const Program* p) noexcept nogil:
    """How many orders of its rows an epoch has."""
    return p.members if p.own_orders else 1


cdef inline bint pauses(const Trainee* t) noexcept nogil:
    """Whether there is nothing to do at the moment."""
    return t.ended != GOES_ON or t.epoch >= t.limit


cdef inline Py_ssize_t held_piece(const Trainee* t) noexcept nogil:
    return min(t.n_held, <Py_ssize_t>HELD_PIECE)


cdef inline Py_ssize_t desk_floats(Desk* desk, const Trainee* t, float* memory) noexcept nogil:
    """Lays the desk out for a network, or, where memory is NULL, only says how many floats that takes. The bounds and
    rates are there, and zero."""
    cdef const Program* p = &t.program
    cdef Layout layout
    cdef Py_ssize_t rows
    memset(&layout, 0, sizeof(Layout))
    layout.memory = memory
    lay_out_held(desk, t, &layout)
    memset(&desk.training, 0, sizeof(Room))
    desk.training.bound, desk.training.rates = desk.bound, desk.rates
    desk.training.n_ops, desk.training.lanes, desk.training.threads = p.n_ops, 1, 1
    rows = copies_of(p) * min(t.batch_size, t.epoch_rows)
    desk.training.capacity = layout.capacity = rows if memory == NULL else rows_of_room(p, rows)
    layout.training = layout.draws = True
    lay_out(&desk.training, p, &layout)
    return layout.used


cdef inline void lay_out_held(Desk* desk, const Trainee* t, Layout* layout) noexcept nogil:
    """The part of a desk for the held-out rows, where there are any."""
    cdef const Program* p = &t.program
    cdef Py_ssize_t rows = held_piece(t)
    memset(&desk.predicting, 0, sizeof(Room))
    if rows == 0:
        return
    desk.predicting.bound, desk.predicting.rates = desk.bound + p.n_ops, desk.rates + p.n_rates + 1
    desk.predicting.n_ops, desk.predicting.lanes, desk.predicting.threads = p.n_ops, 1, 1
    desk.predicting.capacity = layout.capacity = rows if layout.memory == NULL else rows_of_room(p, rows)
    layout.training = layout.draws = False
    lay_out(&desk.predicting, p, layout)
    desk.outputs = take(layout, rows * p.outputs)
    desk.held.x = take_matrix(layout, t.held.columns)
    desk.held.labels = <int32_t*>take(layout, rows)
    desk.held.targets = take(layout, rows * p.outputs)
    desk.held.weights = take(layout, rows * p.outputs)
    desk.row_loss = <double*>take(layout, 2 * rows)
    desk.row_correct = <int32_t*>take(layout, rows)


cdef inline void sit_down(Desk* desk, const Trainee* t, float* memory, Py_ssize_t floats) noexcept nogil:
    """Makes the desk ready for a network, whoever had it before."""
    memset(desk.bound, 0, 2 * t.program.n_ops * sizeof(Bound))
    memset(desk.rates, 0, 2 * (t.program.n_rates + 1) * sizeof(double))
    memset(memory, 0, floats * sizeof(float))
    desk_floats(desk, t, memory)
    scale_kept(desk, t)


cdef inline void sit_down_to_judge(Desk* desk, const Trainee* t, float* memory) noexcept nogil:
    """The same for somebody who only looks at the held-out rows."""
    cdef Layout layout
    memset(desk.bound + t.program.n_ops, 0, t.program.n_ops * sizeof(Bound))
    memset(desk.rates + t.program.n_rates + 1, 0, (t.program.n_rates + 1) * sizeof(double))
    memset(&layout, 0, sizeof(Layout))
    layout.memory = memory
    lay_out_held(desk, t, &layout)
    scale_kept(desk, t)


cdef inline void scale_kept(Desk* desk, const Trainee* t) noexcept nogil:
    """Vanilla dropout, in prediction."""
    cdef int i
    for i in range(t.n_kept if t.n_held > 0 else 0):
        desk.predicting.bound[t.kept_ops[i]].epilogue.scale = t.keep[i]


cdef inline void train_until(Trainee* t, Desk* desk, double deadline) noexcept nogil:
    """Steps and epochs, until there is nothing to do or, after a step, the time is over."""
    cdef double begun = passing_seconds(), now
    while not pauses(t):
        if t.batch == 0:
            begin_epoch(t)
        while t.batch * t.batch_size < t.epoch_rows and t.ended == GOES_ON:
            step(t, &desk.training, begun)
            now = passing_seconds()
            t.seconds += now - begun
            begun = now
            if now > deadline:
                break
        if t.ended == GOES_ON and t.batch * t.batch_size >= t.epoch_rows:
            end_epoch(t, desk)
            begun = passing_seconds()
        if begun > deadline:
            break


cdef inline void begin_epoch(Trainee* t) noexcept nogil:
    """The order of its rows, and what a divergence goes back to."""
    cdef uint64_t[3] path
    cdef uint64_t[2 * LANES] words
    cdef Generator generator
    cdef int64_t* order = <int64_t*>t.data.order
    cdef int orders = orders_of(&t.program), m
    cdef Py_ssize_t i
    path[0], path[1] = t.branch, t.epochs_before + <uint64_t>t.epoch
    for m in range(orders):                 # one after another; of the last there may be more than is wanted
        path[2] = m
        words_of_branch(t.root, t.n_root, path, 3 if t.program.own_orders else 2, words, 2 * LANES)
        seed_lanes(&generator, words)
        permute(&generator, order + m * t.epoch_rows, t.n_rows)
    for i in range(orders * t.epoch_rows if t.rows != NULL else 0):
        order[i] = t.rows[order[i]]
    keep_weights(t, &t.before)
    t.loss, t.correct, t.seconds = 0.0, 0, 0.0


cdef inline void keep_weights(const Trainee* t, Weights* to) noexcept nogil:
    if to.parameters != NULL:
        memcpy(to.parameters, t.learner.parameters, t.learner.n * sizeof(float))
    if to.buffers != NULL:
        memcpy(to.buffers, t.buffers, t.n_buffers * sizeof(float))


cdef inline void put_back(Trainee* t, const Weights* weights) noexcept nogil:
    if weights.parameters != NULL:
        memcpy(t.learner.parameters, weights.parameters, t.learner.n * sizeof(float))
    if weights.buffers != NULL:
        memcpy(t.buffers, weights.buffers, t.n_buffers * sizeof(float))


cdef inline void diverge(Trainee* t) noexcept nogil:
    """Back to the beginning of the epoch; the moments start afresh."""
    t.ended = DIVERGED
    put_back(t, &t.before)
    if t.learner.moment1 != NULL:
        memset(t.learner.moment1, 0, t.learner.n * sizeof(float))
    if t.learner.moment2 != NULL:
        memset(t.learner.moment2, 0, t.learner.n * sizeof(float))
    t.updates[0] = 0


cdef inline Py_ssize_t place_of_rates(const Trainee* t) noexcept nogil:
    """Of the next step, among those of all epochs."""
    if not t.scheduled:
        return 0
    return t.epoch * ((t.epoch_rows + t.batch_size - 1) // t.batch_size) + t.batch


cdef inline void step(Trainee* t, Room* room, double now) noexcept nogil:
    cdef Py_ssize_t first = t.batch * t.batch_size, rows = min(t.batch_size, t.epoch_rows - first)
    cdef Py_ssize_t rate = place_of_rates(t)
    cdef Part part = part_of(rows, 0, 0, 0)
    cdef const double* rates = t.rates + rate * t.program.n_rates
    cdef LossSum one
    if trained_members(&t.program) > 0:
        one = members_batch(&t.program, room, &t.data, t.epoch_rows, first, rows, rates, t.draws[0], now)
    else:
        one = forward_batch(&t.program, room, &t.data, first, &part, rates, t.draws[0], now)
    t.draws[0] += 1
    if not isfinite(one.loss):
        diverge(t)
        return
    t.loss += one.loss
    t.correct += one.correct
    fetch(&t.data, first + rows, min(t.batch_size, t.epoch_rows - first - rows))
    t.updates[0] += 1
    update_batch(&t.program, room, t.learner, &part, t.learning_rates[rate], t.decays[rate], t.updates[0])
    t.batch += 1


cdef inline bint all_finite(const Trainee* t) noexcept nogil:
    return (finite_part(t.learner.parameters, t.learner.n) and finite_part(t.buffers, t.n_buffers)
            and (t.learner.moment2 == NULL or finite_part(t.learner.moment2, t.learner.n)))


cdef inline void end_epoch(Trainee* t, Desk* desk) noexcept nogil:
    """Its record, and whether it was the best so far."""
    cdef double* record = t.record + t.epoch * COLUMNS
    if not all_finite(t):
        diverge(t)
        return
    record[LOSS_OF_ROWS], record[CORRECT], record[SECONDS] = t.loss, <double>t.correct, t.seconds
    if t.n_held > 0:
        judge(t, desk, record)
    record[SCORE] = score_of(t, record)
    t.batch = 0
    t.epoch += 1
    if record[SCORE] < t.best_score or (t.last_tie and record[SCORE] == t.best_score):
        t.best_epoch = t.epoch
        keep_weights(t, &t.best)
    if record[SCORE] < t.best_score:
        t.best_score = record[SCORE]
        t.waited = 0
    else:
        t.waited += 1
        if 0 < t.patience <= t.waited:
            t.ended = OUT_OF_PATIENCE


cdef inline double score_of(const Trainee* t, const double* record) noexcept nogil:
    if t.score == BY_HELD_LOSS:
        return record[HELD_LOSS]
    if t.score == BY_HITS:
        return -record[HELD_CORRECT]
    if t.score == BY_RMSE:
        return sqrt(record[HELD_SQUARES] / record[HELD_TARGETS])
    if t.score == BY_MAE:
        return record[HELD_MAGNITUDES] / record[HELD_TARGETS]
    if t.score == BY_VERDICT:
        return record[HELD_VERDICT]
    return record[LOSS_OF_ROWS] / <double>t.epoch_rows


cdef inline void judge(const Trainee* t, Desk* desk, double* record) noexcept nogil:
    """The held-out rows, dropout off: sums in the order of the rows, as wherever cydrop evaluates."""
    cdef const Program* p = &t.program
    cdef const Data* held = &t.held
    cdef Batch* batch = &desk.held
    cdef const float* weights = batch.weights if held.weights != NULL else NULL
    cdef Py_ssize_t first = 0, rows, r, correct = 0
    cdef double total = 0.0
    cdef Errors errors
    cdef Verdict verdict
    cdef Matrix x
    memset(&errors, 0, sizeof(Errors))
    memset(&verdict, 0, sizeof(Verdict))
    while first < t.n_held:
        rows = min(held_piece(t), t.n_held - first)
        load(held, batch, first, rows, 1, 0, NULL, 1, &x)
        predict_piece(p, &desk.predicting, 0, x.data, x.row, rows, desk.outputs, p.outputs, t.judged.n_levels > 0, 1)
        loss_pass(t.judged, desk.outputs, p.outputs, rows, p.outputs, batch.labels if held.labels != NULL else NULL,
                  batch.targets, weights, held.each, rows, NULL, 0, desk.row_loss, desk.row_correct, 1)
        for r in range(rows):
            total += desk.row_loss[r]
            correct += desk.row_correct[r]
        if not t.counts:
            add_errors(desk.outputs + t.judged.central * held.target_columns, p.outputs, rows, batch.targets,
                       held.target_columns, weights if held.each else NULL, &errors)
        if t.verdict >= 0:
            add_verdict(t.verdict, desk.outputs, p.outputs, rows, p.outputs, batch.labels, batch.targets, weights,
                        t.low, t.high, &verdict)
        first += rows
    record[HELD_LOSS], record[HELD_CORRECT] = total / <double>t.n_held, <double>correct
    record[HELD_TARGETS], record[HELD_SQUARES] = errors.targets, errors.squares
    record[HELD_MAGNITUDES] = errors.magnitudes
    if t.verdict >= 0:
        record[HELD_VERDICT] = verdict_of(t.verdict, &verdict)

"""Many networks that are trained side by side: a list of work that threads walk through without the GIL."""

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from cydrop._core.arena cimport first_of
from cydrop._core.batch cimport data_of
from cydrop._core.engine cimport Engine
from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.judging cimport ROOT_MEAN_SQUARE, SHARE_WRONG
from cydrop._core.operation cimport Bound, Op
from cydrop._core.pace cimport passing_seconds
from cydrop._core.pack cimport PACK, Pack, PackedOp, fits_in_pack, least_pack, pack_floats
from cydrop._core.pack_training cimport held_floats, train_pack
from cydrop._core.seed_sequence cimport MOST_NUMBERS
from cydrop._core.trainee cimport (
    COLUMNS, Desk, GOES_ON, Trainee, all_finite, desk_floats, diverge, orders_of, pauses, put_back, sit_down,
    train_until,
)

import numpy

from cydrop._core.memory import aligned

# What a record holds of each epoch, and what the score may be, by the numbers in trainee.pxd.
RECORD = (
    "loss", "correct", "seconds", "val_loss", "val_correct", "val_targets", "val_squares", "val_magnitudes", "verdict",
    "score",
)
SCORES = ("loss", "val_loss", "val_accuracy", "val_rmse", "val_mae", "verdict")
ENDINGS = ("goes on", "out of patience", "diverged")


cdef object shape_of(const Trainee* t):
    """All that must be the same in a pack, None where a network goes in none."""
    cdef const Op* op
    cdef int i
    if not fits_in_pack(t):
        return None
    shape = [t.batch_size, t.epoch_rows, t.data.columns, t.learner.n, t.program.outputs]
    for i in range(t.program.n_ops):
        op = &t.program.ops[i]
        shape += [op.doors.lanes, op.n_in, op.n_out, op.activation, op.alpha, place_of(t, op.weight.data),
                  place_of(t, op.bias.data)]
    return tuple(shape)


cdef Py_ssize_t place_of(const Trainee* t, const float* parameter) noexcept nogil:
    """Of a parameter in its arena, -1: there is none."""
    return parameter - t.learner.parameters if parameter != NULL else -1


cdef class Training:
    """One network among many, and where it stands.

    Parameters
    ----------
    engine : Engine
        With its optimizer in force.
    rows, held : tuples of arrays
        (x, labels, targets, weights) as Engine.train takes them; `held` may be None.
    chosen, held_chosen : int64
        Which of them; empty: all.
    epoch_rows, batch_size : int
    learning_rates, decays, rates : float64
        As Engine.train takes them, but for the batches of all epochs.
    root : uint64
        The network's.
    branch, epochs_before : int
        Of the root, for the shuffle of the first epoch.
    kept_ops, keep : int32, float32
        Operations whose outputs are multiplied in prediction, and by what.
    counts : bool
        Whether the loss counts hits.
    judged_option : float
        The option of the loss by which held-out rows are judged.
    verdict : int
        Place in losses.VERDICTS of what is wanted besides, -1: nothing.
    low, high : float32
        What predictions are clamped to for it, or empty.
    score : int
        Place in SCORES.
    last_tie : bool
    patience : int
        0: there is no end of it.
    keeps_best : bool
    epochs : int
        That it may have.
    """

    cdef Trainee t
    cdef object engine, kept    # the arrays that the struct points into
    cdef float[::1] best_parameters, best_buffers
    cdef readonly object record     # (epochs, columns) float64
    cdef readonly object shape      # equal ones may go in one pack; None: it goes in none

    def __init__(
        self, Engine engine, rows, held, const int64_t[::1] chosen, const int64_t[::1] held_chosen,
        Py_ssize_t epoch_rows, Py_ssize_t batch_size, const double[::1] learning_rates, const double[::1] decays,
        const double[:, ::1] rates, const uint64_t[::1] root, unsigned long long branch,
        unsigned long long epochs_before, const int32_t[::1] kept_ops, const float[::1] keep, bint counts,
        float judged_option, int verdict, const float[::1] low, const float[::1] high, int score, bint last_tie,
        Py_ssize_t patience, bint keeps_best, Py_ssize_t epochs
    ):
        cdef Trainee* t = &self.t
        cdef Py_ssize_t batches
        cdef int64_t[::1] order
        cdef double[:, ::1] record
        memset(t, 0, sizeof(Trainee))
        self.engine = engine
        t.program, t.learner = engine.program, &engine.learner
        t.program.n_threads = 1
        t.buffers, t.n_buffers = first_of(engine.buffers), engine.buffers.shape[0]
        t.draws, t.updates = &engine.draws, &engine.updates
        t.data = data_of(rows[0], rows[1], rows[2], rows[3], chosen[:0])
        t.rows = &chosen[0] if chosen.shape[0] else NULL
        t.n_rows = chosen.shape[0] if chosen.shape[0] else t.data.rows
        t.epoch_rows, t.batch_size = epoch_rows, batch_size
        if not 0 < t.epoch_rows <= t.n_rows or t.batch_size < 1:
            raise ValueError(f"{epoch_rows} of {t.n_rows} rows in batches of {batch_size}")
        batches = (epoch_rows + batch_size - 1) // batch_size * epochs
        if learning_rates.shape[0] != decays.shape[0] or learning_rates.shape[0] != rates.shape[0] or (
            learning_rates.shape[0] not in (1, batches)
        ) or rates.shape[1] != t.program.n_rates:
            raise ValueError(f"rates of {rates.shape[0]} batches, there are {batches}")
        t.learning_rates, t.decays = &learning_rates[0], &decays[0]
        t.rates, t.scheduled = &rates[0, 0] if rates.shape[1] else NULL, learning_rates.shape[0] > 1
        t.root, t.n_root, t.branch, t.epochs_before = &root[0], <int>root.shape[0], branch, epochs_before
        if t.n_root + 3 > MOST_NUMBERS:
            raise ValueError(f"a root of {t.n_root} words")
        order = numpy.empty(orders_of(&t.program) * t.n_rows, dtype=numpy.int64)
        t.data.order = &order[0]
        self.record = record = numpy.full((epochs, COLUMNS), numpy.nan)
        t.record, t.limit = &record[0, 0], epochs
        if held is not None:
            t.held = data_of(held[0], held[1], held[2], held[3], held_chosen)
            t.n_held = held_chosen.shape[0] if held_chosen.shape[0] else t.held.rows
        t.n_kept = <int>kept_ops.shape[0]
        if t.n_kept:
            t.kept_ops, t.keep = &kept_ops[0], &keep[0]
        t.counts, t.score, t.last_tie, t.patience, t.best_score = counts, score, last_tie, patience, INFINITY
        t.judged, t.judged.option, t.verdict = t.program.loss, judged_option, verdict
        if (verdict == SHARE_WRONG and t.held.labels == NULL) or (
            verdict == ROOT_MEAN_SQUARE and t.held.target_columns != t.program.outputs
        ):
            raise ValueError(f"no verdict of kind {verdict} on such rows")
        if low.shape[0] not in (0, t.program.outputs) or high.shape[0] != low.shape[0]:
            raise ValueError(f"a range of {low.shape[0]} and {high.shape[0]} for {t.program.outputs} outputs")
        if low.shape[0]:
            t.low, t.high = &low[0], &high[0]
        self.kept = [
            rows, held, chosen, held_chosen, learning_rates, decays, rates, root, kept_ops, keep, order, low, high,
        ]
        self.best_parameters = aligned(t.learner.n if keeps_best else 0)
        self.best_buffers = aligned(t.n_buffers if keeps_best else 0)
        t.best.parameters, t.best.buffers = first_of(self.best_parameters), first_of(self.best_buffers)
        before = aligned(t.learner.n), aligned(t.n_buffers)
        t.before.parameters, t.before.buffers = first_of(before[0]), first_of(before[1])
        self.kept.append(before)
        self.shape = shape_of(t)

    @property
    def epoch(self):
        """Finished epochs."""
        return self.t.epoch

    @property
    def limit(self):
        """The epoch after which it pauses."""
        return self.t.limit

    @limit.setter
    def limit(self, Py_ssize_t limit):
        self.t.limit = min(limit, <Py_ssize_t>self.record.shape[0])

    @property
    def batch(self):
        """The next one of the epoch that has begun."""
        return self.t.batch

    @property
    def ended(self):
        """Why it has ended, or that it goes on."""
        return ENDINGS[self.t.ended]

    @property
    def best(self):
        """The best score (less is better), and its epoch, counted from 1; 0: there was none."""
        return self.t.best_score, self.t.best_epoch

    @property
    def pauses(self):
        """Whether there is nothing to do at the moment."""
        return bool(pauses(&self.t))

    def state(self):
        """Where it stands at the end of an epoch, for `go_on_from`; views of its own arrays."""
        cdef Trainee* t = &self.t
        return {
            "epoch": t.epoch, "waited": t.waited, "ended": t.ended, "best_score": t.best_score,
            "best_epoch": t.best_epoch, "record": self.record[: t.epoch],
            "best_parameters": numpy.asarray(self.best_parameters), "best_buffers": numpy.asarray(self.best_buffers),
        }

    def go_on_from(self, state):
        """Stands where another of the same rows and epochs stood, whose network this one's is now."""
        cdef Trainee* t = &self.t
        cdef float[::1] parameters = state["best_parameters"], buffers = state["best_buffers"]
        t.epoch, t.waited, t.ended = state["epoch"], state["waited"], state["ended"]
        t.best_score, t.best_epoch = state["best_score"], state["best_epoch"]
        self.record[: t.epoch] = state["record"]
        self.best_parameters[:] = parameters
        self.best_buffers[:] = buffers

    def whole(self):
        """Where it and its network stand at the end of an epoch, for `take_over`; views of its own arrays. There is no
        best epoch (None) where there was none, or where it was put back."""
        cdef Engine engine = self.engine
        cdef Trainee* t = &self.t
        found = self.state()
        found.update({
            "batch": t.batch, "draws": engine.draws, "updates": engine.updates,
            "parameters": numpy.asarray(engine.parameters), "buffers": numpy.asarray(engine.buffers),
            "moment1": numpy.asarray(engine.moment1), "moment2": numpy.asarray(engine.moment2),
        })
        if t.best_epoch == 0 or t.ended != GOES_ON or t.epoch == self.record.shape[0]:
            found["best_parameters"] = found["best_buffers"] = None
        return found

    def take_over(self, state):
        """Stands where another of the same rows and epochs stood, and its network too: in one call, in which nothing
        can fail and no interrupt comes once anything has changed."""
        cdef Engine engine = self.engine
        cdef Trainee* t = &self.t
        cdef const float[::1] parameters = state["parameters"], buffers = state["buffers"]
        cdef const float[::1] moment1 = state["moment1"], moment2 = state["moment2"]
        cdef const float[::1] best_parameters = parameters[:self.best_parameters.shape[0]]
        cdef const float[::1] best_buffers = buffers[:self.best_buffers.shape[0]]
        cdef const double[:, ::1] done = state["record"]
        cdef double[:, ::1] record = self.record
        cdef Py_ssize_t epoch = state["epoch"], waited = state["waited"], batch = state["batch"]
        cdef Py_ssize_t best_epoch = state["best_epoch"]
        cdef double best_score = state["best_score"]
        cdef int ended = state["ended"]
        cdef unsigned long long draws = state["draws"], updates = state["updates"]
        if state["best_parameters"] is not None:
            best_parameters, best_buffers = state["best_parameters"], state["best_buffers"]
        if (
            parameters.shape[0] != engine.parameters.shape[0] or buffers.shape[0] != engine.buffers.shape[0]
            or moment1.shape[0] != engine.moment1.shape[0] or moment2.shape[0] != engine.moment2.shape[0]
            or best_parameters.shape[0] != self.best_parameters.shape[0]
            or best_buffers.shape[0] != self.best_buffers.shape[0]
            or done.shape[0] != epoch or done.shape[1] != COLUMNS or not 0 <= epoch <= record.shape[0]
        ):
            raise ValueError("the state is of another network")
        with nogil:
            engine.parameters[:] = parameters
            engine.buffers[:] = buffers
            engine.moment1[:] = moment1
            engine.moment2[:] = moment2
            self.best_parameters[:] = best_parameters
            self.best_buffers[:] = best_buffers
            record[:epoch] = done
            engine.draws, engine.updates = draws, updates
            t.epoch, t.waited, t.batch, t.ended = epoch, waited, batch, ended
            t.best_score, t.best_epoch = best_score, best_epoch

    def finish(self):
        """Ends training, within an epoch or after one: the best epoch is put back, if it is kept."""
        cdef Trainee* t = &self.t
        if t.ended == GOES_ON and t.batch > 0 and not all_finite(t):
            diverge(t)
        if t.best_epoch > 0:
            put_back(t, &t.best)


cdef struct Work:               # what a thread does without another's help
    Trainee** members           # one network, or those of a pack
    int n
    Py_ssize_t held_floats      # of a pack: memory for held-out rows, which comes first
    Py_ssize_t floats           # memory in all


cdef list packs_of(list trainings):
    """Lists of trainings: those of a pack, or one by itself. What goes together is of one shape and at the same batch
    of an epoch."""
    cdef list found = [], done = []
    cdef dict filling = {}
    cdef Training training
    for training in trainings:
        if training.shape is None:
            found.append([training])
            continue
        place = training.shape, training.t.batch
        pack = filling.get(place)
        if pack is None or len(pack) == PACK:
            pack = filling[place] = []
            found.append(pack)
        pack.append(training)
    for pack in found:
        training = pack[0]
        if len(pack) < least_pack(&training.t):
            for one in pack:
                done.append([one])
        else:
            done.append(pack)
    return done


cdef void measure(Work* work, Desk* desk, Pack* pack) noexcept nogil:
    """How much memory a work needs."""
    cdef int i
    work.held_floats = 0
    if work.n == 1:
        work.floats = desk_floats(desk, work.members[0], NULL)
        return
    for i in range(work.n):
        work.held_floats = max(work.held_floats, held_floats(desk, work.members[i]))
    work.floats = work.held_floats + pack_floats(pack, work.members[0], NULL)


cdef void do_work(Work* work, Desk* desk, Pack* pack, float* memory, double deadline) noexcept nogil:
    if work.n > 1:
        train_pack(pack, work.members, work.n, desk, memory, memory + work.held_floats, deadline)
    elif not pauses(work.members[0]):
        sit_down(desk, work.members[0], memory, work.floats)
        train_until(work.members[0], desk, deadline)


def train(list trainings, int n_threads, double seconds):
    """Trains those that have something to do, a network or a pack on one thread, until none has, or those that are left
    of packs would do better in others, or the time is over."""
    cdef list packs = packs_of([training for training in trainings if not (<Training>training).pauses])
    cdef Py_ssize_t n = len(packs), floats = 0, i = 0, j
    cdef Trainee** members = <Trainee**>calloc(max(len(trainings), 1), sizeof(Trainee*))
    cdef Work* works = <Work*>calloc(max(n, 1), sizeof(Work))
    cdef Desk* desks = <Desk*>calloc(n_threads, sizeof(Desk))
    cdef Pack* lanes = <Pack*>calloc(n_threads, sizeof(Pack))
    cdef int most_ops = 1, most_rates = 1, thread
    cdef double deadline = passing_seconds() + seconds
    cdef uint64_t control
    cdef Training training
    cdef float[:, ::1] memory
    try:
        if members == NULL or works == NULL or desks == NULL or lanes == NULL:
            raise MemoryError
        for j, pack in enumerate(packs):
            works[j].members, works[j].n = members + i, len(pack)
            for training in pack:
                members[i] = &training.t
                most_ops = max(most_ops, training.t.program.n_ops)
                most_rates = max(most_rates, training.t.program.n_rates + 1)
                i += 1
        for thread in range(n_threads):
            desks[thread].bound = <Bound*>calloc(2 * most_ops, sizeof(Bound))
            desks[thread].rates = <double*>calloc(2 * most_rates, sizeof(double))
            lanes[thread].ops = <PackedOp*>calloc(most_ops, sizeof(PackedOp))
            if desks[thread].bound == NULL or desks[thread].rates == NULL or lanes[thread].ops == NULL:
                raise MemoryError
        for j in range(n):
            measure(&works[j], &desks[0], &lanes[0])
            floats = max(floats, works[j].floats)
        floats = (floats + 31) // 16 * 16
        memory = aligned(n_threads * floats).reshape(n_threads, floats)
        with nogil:
            control = exact_floats(n_threads)
            for j in prange(n, num_threads=n_threads, schedule="dynamic"):
                if j < n_threads or passing_seconds() < deadline:
                    do_work(&works[j], &desks[threadid()], &lanes[threadid()], &memory[threadid(), 0], deadline)
            restore_floats(control)
    finally:
        for thread in range(n_threads if desks != NULL and lanes != NULL else 0):
            free(desks[thread].bound)
            free(desks[thread].rates)
            free(lanes[thread].ops)
        free(desks)
        free(lanes)
        free(works)
        free(members)

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
from cydrop._core.operation cimport Bound
from cydrop._core.pace cimport passing_seconds
from cydrop._core.seed_sequence cimport MOST_WORDS, words_of_branch
from cydrop._core.trainee cimport (
    COLUMNS, Desk, GOES_ON, Trainee, all_finite, desk_floats, diverge, pauses, put_back, sit_down, train_until,
)

import numpy

from cydrop._core.memory import aligned

# What a record holds of each epoch, and what the score may be, by the numbers in trainee.pxd.
RECORD = (
    "loss", "correct", "seconds", "val_loss", "val_correct", "val_targets", "val_squares", "val_magnitudes", "score",
)
SCORES = ("loss", "val_loss", "val_accuracy", "val_rmse", "val_mae")
ENDINGS = ("goes on", "out of patience", "diverged")


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

    def __init__(
        self, Engine engine, rows, held, const int64_t[::1] chosen, const int64_t[::1] held_chosen,
        Py_ssize_t epoch_rows, Py_ssize_t batch_size, const double[::1] learning_rates, const double[::1] decays,
        const double[:, ::1] rates, const uint64_t[::1] root, unsigned long long branch,
        unsigned long long epochs_before, const int32_t[::1] kept_ops, const float[::1] keep, bint counts, int score,
        bint last_tie, Py_ssize_t patience, bint keeps_best, Py_ssize_t epochs
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
        if 2 * (t.n_root + 2) > MOST_WORDS:
            raise ValueError(f"a root of {t.n_root} words")
        order = numpy.empty(t.n_rows, dtype=numpy.int64)
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
        self.kept = [rows, held, chosen, held_chosen, learning_rates, decays, rates, root, kept_ops, keep, order]
        self.best_parameters = aligned(t.learner.n if keeps_best else 0)
        self.best_buffers = aligned(t.n_buffers if keeps_best else 0)
        t.best.parameters, t.best.buffers = first_of(self.best_parameters), first_of(self.best_buffers)
        before = aligned(t.learner.n), aligned(t.n_buffers)
        t.before.parameters, t.before.buffers = first_of(before[0]), first_of(before[1])
        self.kept.append(before)

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


def train(list trainings, int n_threads, double seconds):
    """Trains those that have something to do, each on one thread, until none has or the time is over: at least a step
    of the first ones."""
    cdef Trainee** list_of = <Trainee**>calloc(max(len(trainings), 1), sizeof(Trainee*))
    cdef Desk* desks = <Desk*>calloc(n_threads, sizeof(Desk))
    cdef Py_ssize_t n = len(trainings), floats = 0, i
    cdef int most_ops = 0, most_rates = 0, thread
    cdef double deadline = passing_seconds() + seconds
    cdef uint64_t control
    cdef Training training
    cdef float[:, ::1] memory
    try:
        if list_of == NULL or desks == NULL:
            raise MemoryError
        for i in range(n):
            training = trainings[i]
            list_of[i] = &training.t
            most_ops = max(most_ops, training.t.program.n_ops)
            most_rates = max(most_rates, training.t.program.n_rates + 1)
        for thread in range(n_threads):
            desks[thread].bound = <Bound*>calloc(max(2 * most_ops, 1), sizeof(Bound))
            desks[thread].rates = <double*>calloc(max(2 * most_rates, 1), sizeof(double))
            if desks[thread].bound == NULL or desks[thread].rates == NULL:
                raise MemoryError
        for i in range(n):
            floats = max(floats, desk_floats(&desks[0], list_of[i], NULL))
        floats = (floats + 31) // 16 * 16
        memory = aligned(n_threads * floats).reshape(n_threads, floats)
        with nogil:
            control = exact_floats(n_threads)
            for i in prange(n, num_threads=n_threads, schedule="dynamic"):
                if not pauses(list_of[i]) and (i < n_threads or passing_seconds() < deadline):
                    sit_down(&desks[threadid()], list_of[i], &memory[threadid(), 0], floats - 16)
                    train_until(list_of[i], &desks[threadid()], deadline)
            restore_floats(control)
    finally:
        for thread in range(n_threads if desks != NULL else 0):
            free(desks[thread].bound)
            free(desks[thread].rates)
        free(desks)
        free(list_of)


def branch_words(const uint64_t[::1] root, const uint64_t[::1] path, uint64_t[::1] out):
    """numpy.random.SeedSequence(root, spawn_key=path).generate_state(len(out), uint64), for tests."""
    if 2 * (root.shape[0] + path.shape[0]) > MOST_WORDS:
        raise ValueError(f"{root.shape[0] + path.shape[0]} numbers, at most {MOST_WORDS // 2} have room")
    words_of_branch(&root[0] if root.shape[0] else NULL, <int>root.shape[0], &path[0] if path.shape[0] else NULL,
                    <int>path.shape[0], &out[0], <int>out.shape[0])

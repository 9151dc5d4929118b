"""Time: whether threads are worth it at the moment, and what each part of a step takes."""

cdef extern from "fma.h" nogil:
    double passing_seconds()


cdef enum:                      # what a step's time went into; for each operation three more, in this order
    LOADING = 0
    DRAWING = 1
    LOSS_PASS = 2
    UPDATING = 3
    FORWARD = 4
    BACKWARD_INPUT = 5
    BACKWARD_WEIGHT = 6
    EACH = 3


cdef struct Clock:
    double* seconds             # of each part
    double last                 # when the last part ended


cdef inline void start(Clock* clock, double now) noexcept nogil:
    if clock != NULL:
        clock.last = now


cdef inline void tick(Clock* clock, int slot) noexcept nogil:
    """Adds the time since the last tick to a slot, where somebody wants to know."""
    cdef double now
    if clock != NULL:
        now = passing_seconds()
        clock.seconds[slot] += now - clock.last
        clock.last = now


cdef struct Pace:               # are the threads worth it at the moment?
    double serial               # seconds per row on one thread, 0: not measured yet
    double resume               # when to try all threads again
    double pause                # for how long they were put aside last
    double lost                 # seconds that all threads together took longer than one would have
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
    longer than one thread would have worked. When all threads together are a millisecond slower than one would have
    been, all but one rest for twice the time that was lost, and twice as long, up to 1.6 s, whenever the next trial
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

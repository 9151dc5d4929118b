"""Time: whether threads are worth it at the moment, and what each part of a step takes."""

cdef extern from "fma.h" nogil:
    double passing_seconds()


cdef extern from *:
    """
    #define CYDROP_SPINNING 5e-3
    """
    double SPINNING "CYDROP_SPINNING"       # seconds that a thread may wait for more work before it sleeps


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


cdef extern from "pace.h" nogil:
    ctypedef struct Pace:       # are the threads worth it at the moment?
        double serial, resume, pause, lost, owed
        int trials
    Pace* own_pace(int kind, Py_ssize_t size)


cdef struct Turn:               # of a kernel for which nobody keeps a workspace
    Pace* pace                  # NULL: on one thread in any case
    int threads                 # to use
    int n_threads
    Py_ssize_t size
    double begun


cdef inline int threads_now(Pace* pace, int n_threads, double now) noexcept nogil:
    """All threads, or one where all were slower a moment ago; the bits do not depend on it."""
    if n_threads == 1 or now < pace.resume:
        return 1
    if pace.serial == 0 and pace.trials == 2:
        return 1                # once, to know what one thread takes
    return n_threads


cdef inline double patience(const Pace* pace, int threads, Py_ssize_t rows, double now) noexcept nogil:
    """When the rest of a batch is to go on with one thread, 0: never. After as long as one would have taken all threads
    have lost already; what is left of their batch may cost as much again for every operation."""
    return now + pace.serial * <double>rows if threads > 1 and pace.serial > 0 else 0.0


cdef inline void note_pace(
    Pace* pace, int threads, int n_threads, double passed, Py_ssize_t rows, double now
) noexcept nogil:
    """A processor that others use as well makes a pool of threads wait for the one that lost its turn, many times
    longer than one thread would have worked. When all threads together are a millisecond slower than one would have
    been, less what they have saved lately, all but one rest for twice the time that was lost, and twice as long, up to
    1.6 s, whenever the next trial fails too: neither waiting nor resting costs much more than the other would have.
    Rests begin anew with short ones when the threads have won back what they lost."""
    cdef double seconds = passed / <double>rows, change
    if n_threads == 1:
        return
    if threads == 1:            # one thread may become slower too, but one batch is no proof of it, and none beside
        if pace.serial == 0 or seconds < pace.serial:       # threads that still spin before they sleep
            pace.serial = seconds
        elif now - passed > pace.resume - pace.pause + SPINNING:
            pace.serial += (seconds - pace.serial) / 8
        return
    if pace.serial == 0:
        pace.trials += 1
        return
    # what was saved forgives one loss: a scheduler takes a processor away for about so long
    change = passed - pace.serial * <double>rows
    pace.lost = max(-4e-3, pace.lost + change)
    pace.owed = min(max(0.0, pace.owed + change), 50e-3)
    if pace.lost > 1e-3:
        pace.pause = min(2 * max(pace.lost, pace.pause), 1.6)
        pace.resume = now + pace.pause
        pace.lost = 0.0
    elif pace.owed == 0.0:
        pace.pause = 0.0


cdef inline Turn begin_turn(int kind, Py_ssize_t size, int n_threads) noexcept nogil:
    """How many threads a kernel takes for so many elements."""
    cdef Turn turn
    turn.pace, turn.threads, turn.n_threads, turn.size, turn.begun = NULL, 1, n_threads, size, 0.0
    if n_threads > 1:
        turn.pace = own_pace(kind, size)
        turn.begun = passing_seconds()
        turn.threads = threads_now(turn.pace, n_threads, turn.begun)
    return turn


cdef inline void end_turn(const Turn* turn) noexcept nogil:
    cdef double now
    if turn.pace != NULL:
        now = passing_seconds()
        note_pace(turn.pace, turn.threads, turn.n_threads, now - turn.begun, turn.size, now)

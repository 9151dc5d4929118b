"""Predictions and samples of them, piece by piece and lane by lane."""

from cython.parallel cimport prange, threadid
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from cydrop._core.dense_op cimport square_weights
from cydrop._core.matrix cimport Matrix
from cydrop._core.members cimport predict_members
from cydrop._core.panels cimport TILE_ROWS
from cydrop._core.dropout cimport select_rows
from cydrop._core.losses cimport link_rows
from cydrop._core.operation cimport Bound, Step
from cydrop._core.pace cimport note_pace, passing_seconds, threads_now
from cydrop._core.program cimport (
    Program, begin, copy_rows, draw, draws_last, first_drawing, forward, forward_from, write_output,
)
from cydrop._core.room cimport Room, lane_of, step_in

# Chosen. SERIAL_PREDICTION is SERIAL_PRODUCT, since a prediction is its products; LEAST_PIECE two tiles of twelve rows;
# FITS_L2 512 KiB, about half a second-level cache: larger weights are read once for all threads where rows are few.
cdef enum:
    SERIAL_PREDICTION = 600000  # multiply-adds of a prediction below which one thread is enough
    LEAST_PIECE = 24            # rows that a thread should have at least
    STRETCH = 8                 # pieces for each thread, then a look at the clock
    FITS_L2 = 131072            # parameters that each thread may read for itself, for however few rows


cdef inline Py_ssize_t piece_of(const Program* p, const Room* room, Py_ssize_t rows, int threads) noexcept nogil:
    """Rows of a piece of a prediction, so that all threads get the same number of pieces; 0: do not divide."""
    cdef Py_ssize_t pieces, piece, tiles
    if threads == 1 or room.lanes == 1:
        return 0
    if <double>rows * p.n_parameters < SERIAL_PREDICTION or rows < LEAST_PIECE * threads:
        return 0
    if rows < room.capacity * threads and p.n_parameters > FITS_L2:
        return 0
    pieces = (rows + room.capacity - 1) // room.capacity
    pieces = (pieces + threads - 1) // threads * threads
    piece = (rows + pieces - 1) // pieces
    tiles = (piece + TILE_ROWS - 1) // TILE_ROWS
    return min(tiles * TILE_ROWS, room.capacity)


cdef inline Py_ssize_t predict_stretch(
    const Program* p, Room* room, const float* x, Py_ssize_t x_row, Py_ssize_t rows, float* out, Py_ssize_t out_row,
    bint link, int threads
) noexcept nogil:
    """Predicts the first of the rows, and returns how many.

    Many rows: the threads take turns with pieces that fit the cache and carry them through the whole network.
    Few rows: the threads share each operation.
    """
    cdef Py_ssize_t piece = piece_of(p, room, rows, threads), some = min(room.capacity, rows)
    cdef int lane
    if piece == 0:
        predict_piece(p, room, 0, x, x_row, some, out, out_row, link, threads)
        return some
    some = min(STRETCH * threads * piece, rows)
    for lane in prange(threads, num_threads=threads, schedule="static"):
        predict_pieces(p, room, lane, threads, x, x_row, some, piece, out, out_row, link)
    return some


cdef inline void predict_pieces(
    const Program* p, Room* room, int lane, int lanes, const float* x, Py_ssize_t x_row, Py_ssize_t rows,
    Py_ssize_t piece, float* out, Py_ssize_t out_row, bint link
) noexcept nogil:
    """Every `lanes`th piece of the rows, from number `lane` on."""
    cdef Py_ssize_t row = lane * piece
    while row < rows:
        predict_piece(p, room, lane, x + row * x_row, x_row, min(piece, rows - row), out + row * out_row, out_row, link,
                      1)
        row += lanes * piece


cdef inline void predict_piece(
    const Program* p, Room* room, int lane, const float* x, Py_ssize_t x_row, Py_ssize_t rows, float* out,
    Py_ssize_t out_row, bint link, int threads
) noexcept nogil:
    cdef Bound* bound = lane_of(room, lane)
    cdef Bound* last = &bound[p.n_ops - 1]
    cdef Matrix held = last.y
    cdef bint straight = p.ops[p.n_ops - 1].doors.has_product and last.z.data == last.y.data
    cdef Step step = step_in(room, lane, rows, threads)
    bound[0].x.data = <float*>x         # never written: operations only read their x
    bound[0].x.row = x_row
    if p.members > 0:
        predict_members(p, room, lane, &step, bound[0].x, out, out_row, link)
        return
    begin(p, bound)
    if straight:                        # the last product may write where the result is wanted
        last.y.data, last.y.row = out, p.outputs
        last.z = last.y
    forward(p, bound, &step)
    write_output(p, bound, rows, out, link)
    if straight:
        last.y = held
        last.z = held


cdef inline Py_ssize_t predict_rows(
    const Program* p, Room* room, const float[:, ::1] x, float[:, ::1] out, Py_ssize_t first_row, bint link,
    double seconds
) noexcept nogil:
    """Predicts rows from `first_row` on until the seconds are over; the first row that it has not done."""
    cdef Py_ssize_t n = x.shape[0], row = first_row, rows
    cdef int threads
    cdef double begun, now = passing_seconds()
    cdef double deadline = now + seconds
    while row < n:
        begun = now
        threads = threads_now(&room.pace, p.n_threads, now)
        rows = predict_stretch(p, room, &x[row, 0], x.shape[1], n - row, &out[row, 0], out.shape[1],
                               link, threads)
        row += rows
        now = passing_seconds()
        note_pace(&room.pace, threads, p.n_threads, now - begun, rows, now)
        if now > deadline:
            break
    return row


cdef inline void use_moments(const Program* p, Room* room, bint moments) noexcept nogil:
    """Whether samples draw drop-connect's outputs from their Gaussian moments; if so, squares the weights."""
    cdef int i
    room.step.moments = moments
    for i in range(p.n_ops if moments else 0):
        if p.ops[i].connect.column >= 0:
            square_weights(&p.ops[i], &room.bound[i])


cdef inline bint begins_with_epilogue(const Program* p, int i) noexcept nogil:
    """Whether of operation number i, with which samples begin, they have all but the dropout in common."""
    return i < p.n_ops and draws_last(&p.ops[i]) and (p.members == 0 or i < p.inside)


cdef inline void take_samples(
    const Program* p, Step* step, uint64_t batch, Py_ssize_t rows, const Room* room
) noexcept nogil:
    """The members whose samples a batch has: sample number s is one of member s, and again from member 0 on."""
    step.member_rows = room.sample_rows
    step.members = <int>(rows // room.sample_rows)
    step.first_member = <int>(batch * <uint64_t>room.copies % <uint64_t>p.members)


cdef inline void begin_samples(
    const Program* p, Room* room, const float* x, Py_ssize_t x_row, Py_ssize_t rows, Py_ssize_t copies,
    const double* rates
) noexcept nogil:
    """Computes once what lies before the first drawn number, and lays it down `copies` times."""
    cdef Matrix source, to
    cdef Py_ssize_t copy
    cdef Step step = step_in(room, 0, rows, p.n_threads)
    cdef int i, lane, stop
    if p.n_rates:
        memcpy(room.rates, rates, p.n_rates * sizeof(double))
    room.first = stop = first_drawing(p, room.rates)
    for lane in range(room.lanes):          # an earlier sampling may have begun with another operation
        for i in range(1, p.n_ops):
            lane_of(room, lane)[i].x = lane_of(room, lane)[i - 1].y
    if p.members > 0:                       # a sample is one member's: all that is inside comes after the head
        room.first = stop = min(stop, p.inside)
    if begins_with_epilogue(p, stop):
        stop += 1
    room.copies, room.sample_rows = copies, rows
    room.bound[0].x.data = <float*>x    # never written: operations only read their x
    room.bound[0].x.row = x_row
    begin(p, room.bound)
    for i in range(p.n_ops):
        room.bound[i].epilogue.scale = 1.0
    forward_from(p, room.bound, 0, stop, &step)
    source = room.bound[stop - 1].y if stop > 0 else room.bound[0].x
    room.head_units = p.ops[stop - 1].n_out if stop > 0 else p.ops[0].n_in
    to.row = room.head.row
    for copy in range(copies):
        to.data = room.head.data + copy * rows * to.row
        copy_rows(source, to, rows, room.head_units)


cdef inline void sample_batch(
    const Program* p, Room* room, int lane, Py_ssize_t rows, uint64_t batch, uint64_t chunk, uint64_t chunks,
    const uint64_t* seeds, float* out, bint link
) noexcept nogil:
    """A batch of samples, from the head on: batch number `batch` of the rows of chunk number `chunk`."""
    cdef Bound* bound = lane_of(room, lane)
    cdef Bound* b
    cdef Step step = step_in(room, lane, rows, 1)
    cdef Matrix to
    cdef int i = room.first
    if i == p.n_ops:                    # nothing is drawn
        to.data, to.row = out, room.head_units
        copy_rows(room.head, to, rows, room.head_units)
        if link:
            link_rows(p.loss, out, to.row, rows, to.row)
        return
    step.number, step.shared_number, step.seeds = batch * chunks + chunk, batch, seeds
    b = &bound[i]
    if p.members > 0:
        take_samples(p, &step, batch, rows, room)
    if not begins_with_epilogue(p, i):
        b.x = room.head
    draw(p, bound, &step)
    if begins_with_epilogue(p, i):      # the activation is done
        select_rows(b.epilogue.mask, b.epilogue.mask_first, b.epilogue.mask_row, room.head, b.epilogue.scale, b.y, rows,
                    p.ops[i].n_out)
        i += 1
    forward_from(p, bound, i, p.n_ops, &step)
    write_output(p, bound, rows, out, link)


cdef inline void sample_batches(
    const Program* p, Room* room, float[:, :, ::1] out, uint64_t first, uint64_t chunk, uint64_t chunks,
    const uint64_t* keys, bint link
) noexcept nogil:
    """Samples from number first * room.copies on. Threads take turns with batches."""
    cdef Py_ssize_t samples = out.shape[0], rows = out.shape[1], batch, some
    cdef Py_ssize_t batches = (samples + room.copies - 1) // room.copies
    cdef double begun = passing_seconds()
    cdef int threads = threads_now(&room.pace, p.n_threads, begun)
    for batch in prange(batches, num_threads=threads, schedule="dynamic"):
        some = min(room.copies, samples - batch * room.copies)
        sample_batch(p, room, threadid(), some * rows, first + <uint64_t>batch, chunk, chunks, keys,
                     &out[batch * room.copies, 0, 0], link)
    note_pace(&room.pace, threads, p.n_threads, passing_seconds() - begun, samples * rows, passing_seconds())

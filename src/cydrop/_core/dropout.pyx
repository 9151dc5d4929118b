"""Dropout on flat arrays: draw masks, apply them forward and backward, pack and unpack them; leave dropped units out.

Each function's twin in plain NumPy is in cydrop.reference.
"""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cydrop._core.float_control cimport exact_floats, restore_floats
from cydrop._core.gather cimport Kept, gather, kept_places, spread
from cydrop._core.matrix cimport Matrix
from cydrop._core.pace cimport Turn, begin_turn, end_turn
from cydrop._core.xorshift cimport LANES, Lanes, StreamKey, draw, seed_block

cdef extern from "bitmask.h" nogil:
    uint64_t bytes_below(const uint64_t* words, unsigned char threshold)
    uint64_t halves_below(const uint64_t* words, unsigned short threshold)
    uint64_t halves_equal(const uint64_t* words, unsigned short value)
    uint64_t bytes_to_bits(const unsigned char* bytes)
    void bits_to_bytes(uint64_t bits, unsigned char* bytes)
    bint CYDROP_STREAMS
    void streamed()
    int before_line(const float* out)
    void stream_scaled(uint64_t bits, const float* x, float scale, float* out)


cdef inline bint is_exact(uint32_t threshold) noexcept nogil:
    """Whether 8 bits are enough."""
    return (threshold & 0xFFFFFF) == 0


cdef enum:                      # kinds of work, for `begin_turn`
    DRAWN = 0
    GIVEN = 1
    BOOLEANS = 2


cdef inline void draw_bytes(Lanes* lanes, uint32_t threshold, uint64_t* bits) noexcept nogil:
    """The mask of the next 128 elements from 8 bits each."""
    cdef uint64_t[LANES] words
    draw(lanes, words)
    bits[0] = bytes_below(words, <unsigned char>(threshold >> 24))
    bits[1] = bytes_below(words + 8, <unsigned char>(threshold >> 24))


cdef inline uint64_t draw_halves(Lanes* lanes, uint32_t threshold, uint64_t* bits, uint64_t* ties) noexcept nogil:
    """The mask of the next 128 elements from 16 bits each, and where these do not decide; not 0 if anywhere."""
    cdef uint64_t[LANES] words
    cdef unsigned short top = <unsigned short>(threshold >> 16)
    draw(lanes, words)
    bits[0] = halves_below(words, top)
    ties[0] = halves_equal(words, top)
    draw(lanes, words)
    bits[1] = halves_below(words, top)
    ties[1] = halves_equal(words, top)
    return ties[0] | ties[1]


cdef void mask_block(StreamKey key, uint64_t block, uint32_t threshold, uint64_t* bits, int n) noexcept nogil:
    """The mask of the first n elements of a block (whole groups of 128 are written)."""
    cdef Lanes lanes
    cdef uint64_t[BLOCK_WORDS] ties
    cdef uint64_t any_tie = 0
    cdef int group, groups = (n + 127) >> 7
    seed_block(&lanes, key, block)
    if is_exact(threshold):
        for group in range(groups):
            draw_bytes(&lanes, threshold, bits + 2 * group)
    else:
        for group in range(groups):
            any_tie |= draw_halves(&lanes, threshold, bits + 2 * group, ties + 2 * group)
    if any_tie:
        break_ties(key, block, threshold & 0xFFFF, ties, bits, 2 * groups)


cdef void break_ties(
    StreamKey key, uint64_t block, uint32_t low, const uint64_t* ties, uint64_t* bits, int n_words
) noexcept nogil:
    """Tie by tie, in the order of the elements: the next word of the block's second generator decides."""
    cdef Lanes lanes
    cdef uint64_t[LANES] words
    cdef uint64_t left, bit
    cdef int used = LANES, i
    key.k0 = ~key.k0
    key.k1 = ~key.k1
    seed_block(&lanes, key, block)
    for i in range(n_words):
        left = ties[i]
        while left:
            if used == LANES:
                draw(&lanes, words)
                used = 0
            bit = left & (~left + 1)
            if (words[used] >> 48) < low:
                bits[i] |= bit
            left ^= bit
            used += 1


cdef void select_rows(
    const uint64_t* mask, int64_t first, Py_ssize_t mask_row, Matrix x, float scale, Matrix out, Py_ssize_t rows,
    Py_ssize_t cols
) noexcept nogil:
    """select_row for each of the rows; the bit of the first element is number `first`."""
    cdef Py_ssize_t r
    for r in range(rows):
        select_row(mask, first + r * mask_row, x.data + r * x.row, scale, out.data + r * out.row, cols)


cdef void draw_mask(
    StreamKey key, uint32_t threshold, uint64_t* bits, Py_ssize_t first, Py_ssize_t n, int n_threads
) noexcept nogil:
    """The mask pass: every block that has some of elements first..first+n-1, in parallel. Element first + j becomes
    bit place_in_block(first) + j; those before it are drawn as well."""
    cdef Py_ssize_t start = first // BLOCK, end = place_in_block(first) + n
    cdef Py_ssize_t block, blocks = (end + BLOCK - 1) // BLOCK
    if n_threads == 1 or blocks == 1:
        for block in range(blocks):
            mask_block(key, <uint64_t>(start + block), threshold, bits + block * BLOCK_WORDS,
                       <int>min(<Py_ssize_t>BLOCK, end - block * BLOCK))
    else:
        for block in prange(blocks, num_threads=n_threads, schedule="static"):
            mask_block(key, <uint64_t>(start + block), threshold, bits + block * BLOCK_WORDS,
                       <int>min(<Py_ssize_t>BLOCK, end - block * BLOCK))


cdef inline Py_ssize_t lead_of(const float* x, const float* out, Py_ssize_t n) noexcept nogil:
    """How many elements come before those that are stored past the caches; -1: all are stored as usual.

    Such stores save reading `out`, but the next one to read it must wait for the memory: they pay where it would have
    left the caches anyway.
    """
    return before_line(out) if CYDROP_STREAMS and n >= STREAMED and x != out else -1


cdef inline void stream_row(
    const uint64_t* mask, int64_t bit, const float* x, float scale, float* out, Py_ssize_t n
) noexcept nogil:
    """select_row past the caches: `out` begins on a cache line and is not x, and `streamed` has to follow."""
    cdef Py_ssize_t j = 0
    while j + 64 <= n:
        stream_scaled(bits_at(mask, bit + j), x + j, scale, out + j)
        j += 64
    if j < n:
        select_scaled(bits_at(mask, bit + j), x + j, scale, out + j, <int>(n - j))


cdef inline void select_group(const uint64_t* bits, const float* x, float scale, float* out) noexcept nogil:
    """128 elements."""
    select_scaled(bits[0], x, scale, out, 64)
    select_scaled(bits[1], x + 64, scale, out + 64, 64)


cdef void drop_blocks(
    StreamKey key, Py_ssize_t first, Py_ssize_t last, uint32_t threshold, float scale,
    const float* x, float* out, Py_ssize_t n
) noexcept nogil:
    """Blocks first..last-1 of dropout whose mask nobody keeps.

    The mask of the next block is drawn while the present one is applied, so that arithmetic hides under memory:

        draw 0 | draw 1  draw 2 ...
               | apply 0 apply 1 ... apply last
    """
    cdef uint64_t[2 * (BLOCK_WORDS + 1)] both
    cdef uint64_t[BLOCK_WORDS] ties
    cdef uint64_t* now = both
    cdef uint64_t* then = both + BLOCK_WORDS + 1
    cdef uint64_t* spare
    cdef uint64_t any_tie
    cdef Lanes lanes
    cdef Py_ssize_t block, start
    cdef int group
    mask_block(key, <uint64_t>first, threshold, now, <int>min(<Py_ssize_t>BLOCK, n - first * BLOCK))
    for block in range(first, last - 1):
        start = block * BLOCK
        any_tie = 0
        seed_block(&lanes, key, <uint64_t>(block + 1))
        if is_exact(threshold):
            for group in range(BLOCK // 128):
                draw_bytes(&lanes, threshold, then + 2 * group)
                select_group(now + 2 * group, x + start + 128 * group, scale, out + start + 128 * group)
        else:
            for group in range(BLOCK // 128):
                any_tie |= draw_halves(&lanes, threshold, then + 2 * group, ties + 2 * group)
                select_group(now + 2 * group, x + start + 128 * group, scale, out + start + 128 * group)
        if any_tie:
            break_ties(key, <uint64_t>(block + 1), threshold & 0xFFFF, ties, then, BLOCK_WORDS)
        spare = now
        now = then
        then = spare
    start = (last - 1) * BLOCK
    select_row(now, 0, x + start, scale, out + start, min(<Py_ssize_t>BLOCK, n - start))


cdef inline uint64_t draw_group(Lanes* lanes, uint32_t threshold, uint64_t* bits, uint64_t* ties) noexcept nogil:
    """The mask of the next 128 elements; not 0 if there are ties."""
    if is_exact(threshold):
        draw_bytes(lanes, threshold, bits)
        return 0
    return draw_halves(lanes, threshold, bits, ties)


cdef void stream_blocks(
    StreamKey key, Py_ssize_t first, Py_ssize_t last, uint32_t threshold, float scale,
    const float* x, float* out, Py_ssize_t n, Py_ssize_t lead
) noexcept nogil:
    """drop_blocks past the caches: all but the first `lead` elements is applied so much later, where lines of `out`
    begin. So the last group of a block needs the first bits of the next mask, and waits until these are certain."""
    cdef uint64_t[2 * (BLOCK_WORDS + 1)] both
    cdef uint64_t[BLOCK_WORDS] ties
    cdef uint64_t* now = both
    cdef uint64_t* then = both + BLOCK_WORDS + 1
    cdef uint64_t* spare
    cdef uint64_t any_tie
    cdef Lanes lanes
    cdef Py_ssize_t block, start, at, end = min(last * BLOCK, n)
    mask_block(key, <uint64_t>first, threshold, now, <int>min(<Py_ssize_t>BLOCK, n - first * BLOCK))
    start = first * BLOCK
    select_row(now, 0, x + start, scale, out + start, min(lead, end - start))
    for block in range(first, last - 1):
        start = block * BLOCK
        any_tie = 0
        seed_block(&lanes, key, <uint64_t>(block + 1))
        for at in range(0, BLOCK - 128, 128):
            any_tie |= draw_group(&lanes, threshold, then + at // 64, ties + at // 64)
            stream_row(now, lead + at, x + start + lead + at, scale, out + start + lead + at, 128)
        at = BLOCK - 128
        any_tie |= draw_group(&lanes, threshold, then + at // 64, ties + at // 64)
        if any_tie:
            break_ties(key, <uint64_t>(block + 1), threshold & 0xFFFF, ties, then, BLOCK_WORDS)
        now[BLOCK_WORDS] = then[0]
        start += lead + at
        stream_row(now, lead + at, x + start, scale, out + start, min(<Py_ssize_t>128, end - start))
        spare = now
        now = then
        then = spare
    start = (last - 1) * BLOCK + lead
    stream_row(now, lead, x + start, scale, out + start, end - start)
    streamed()


cdef inline void drop_share(
    Py_ssize_t share, Py_ssize_t shares, StreamKey key, uint32_t threshold, float scale, const float* x, float* out,
    Py_ssize_t n, Py_ssize_t lead
) noexcept nogil:
    """A thread's blocks."""
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef Py_ssize_t first = blocks * share // shares, last = blocks * (share + 1) // shares
    if lead < 0:
        drop_blocks(key, first, last, threshold, scale, x, out, n)
    else:
        stream_blocks(key, first, last, threshold, scale, x, out, n, lead)


def dropout(
    const float[::1] x,         # IN
    float[::1] out,             # OUT, may be x
    double rate,
    float scale,
    uint64_t k0, uint64_t k1,   # the stream's key
    int n_threads,
):
    """out = x * scale where the drawn mask keeps, else 0; 0 < rate < 1."""
    cdef Py_ssize_t n = x.shape[0], blocks = (n + BLOCK - 1) // BLOCK, share, shares
    cdef uint32_t threshold = keep_threshold(rate)
    cdef StreamKey key
    key.k0 = k0
    key.k1 = k1
    if n == 0:
        return
    cdef Py_ssize_t lead = lead_of(&x[0], &out[0], n)
    cdef uint64_t control
    cdef Turn turn
    with nogil:
        turn = begin_turn(DRAWN, n, n_threads if blocks > 1 else 1)
        control = exact_floats(turn.threads)
        shares = min(<Py_ssize_t>turn.threads, blocks)
        if shares == 1:
            drop_share(0, 1, key, threshold, scale, &x[0], &out[0], n, lead)
        else:
            for share in prange(shares, num_threads=turn.threads, schedule="static"):
                drop_share(share, shares, key, threshold, scale, &x[0], &out[0], n, lead)
        restore_floats(control)
        end_turn(&turn)


def mask(
    uint64_t[::1] bits,         # OUT, words_of(first % BLOCK + n) words
    Py_ssize_t n,
    double rate,
    uint64_t k0, uint64_t k1,   # the stream's key
    int n_threads,
    Py_ssize_t first=0,
):
    """The mask of elements first..first+n-1: bit first % BLOCK + j is that of element first + j. Rates 0 and 1 draw
    nothing."""
    cdef StreamKey key
    key.k0 = k0
    key.k1 = k1
    if n == 0:
        return
    with nogil:
        if rate <= 0.0 or rate >= 1.0:
            memset(&bits[0], 0 if rate >= 1.0 else 255, mask_words(first, n) * 8)
        else:
            draw_mask(key, keep_threshold(rate), &bits[0], first, n, n_threads)


def words_of(Py_ssize_t n):
    """Words that the mask of n elements needs."""
    return mask_words(0, n)


cdef inline void select_block(
    const uint64_t* bits, Py_ssize_t start, float scale, const float* x, float* out, Py_ssize_t n, Py_ssize_t lead
) noexcept nogil:
    """The elements from `start` on, at most a block."""
    cdef Py_ssize_t some = min(<Py_ssize_t>BLOCK, n - start)
    if lead < 0:
        select_row(bits, start, x + start, scale, out + start, some)
    else:
        stream_row(bits, start, x + start, scale, out + start, some)
        streamed()


def apply_mask(
    const float[::1] x,         # IN
    const uint64_t[::1] bits,   # IN
    float[::1] out,             # OUT, may be x
    float scale,
    int n_threads,
):
    """out = x * scale where the mask's bit is set, else 0: dropout forward (x) and backward (dy)."""
    cdef Py_ssize_t n = x.shape[0], start
    if n == 0:
        return
    cdef Py_ssize_t lead = lead_of(&x[0], &out[0], n), first = max(lead, <Py_ssize_t>0)
    cdef uint64_t control
    cdef Turn turn
    with nogil:
        turn = begin_turn(GIVEN, n, n_threads if n > BLOCK else 1)
        control = exact_floats(turn.threads)
        if turn.threads == 1 and lead < 0:
            select_row(&bits[0], 0, &x[0], scale, &out[0], n)
        else:
            select_row(&bits[0], 0, &x[0], scale, &out[0], first)
            for start in prange(first, n, BLOCK, num_threads=turn.threads, schedule="static"):
                select_block(&bits[0], start, scale, &x[0], &out[0], n, lead)
        restore_floats(control)
        end_turn(&turn)


cdef inline void pack_bits(const unsigned char* keep, uint64_t* bits, Py_ssize_t n) noexcept nogil:
    cdef unsigned char[64] last
    cdef Py_ssize_t i, whole = n // 64, rest = n % 64
    for i in range(whole):
        bits[i] = bytes_to_bits(keep + 64 * i)
    if rest:
        memset(last, 0, 64)
        memcpy(last, keep + 64 * whole, rest)
        bits[whole] = bytes_to_bits(last)


cdef void keep_block(
    const unsigned char* keep, float scale, const float* x, float* out, Py_ssize_t n, Py_ssize_t lead
) noexcept nogil:
    cdef uint64_t[BLOCK_WORDS] bits
    cdef Py_ssize_t j = 0
    while lead >= 0 and j + 64 <= n:
        stream_scaled(bytes_to_bits(keep + j), x + j, scale, out + j)
        j += 64
    if lead >= 0:
        streamed()
    pack_bits(keep + j, bits, n - j)
    select_row(bits, 0, x + j, scale, out + j, n - j)


def apply_booleans(
    const float[::1] x,         # IN
    const unsigned char[::1] keep,  # IN
    float[::1] out,             # OUT, may be x
    float scale,
    int n_threads,
):
    """out = x * scale where `keep` is not 0, else 0: apply_mask for a mask of booleans."""
    cdef Py_ssize_t n = x.shape[0], start
    if n == 0:
        return
    cdef Py_ssize_t lead = lead_of(&x[0], &out[0], n), first = max(lead, <Py_ssize_t>0)
    cdef uint64_t control
    cdef Turn turn
    with nogil:
        turn = begin_turn(BOOLEANS, n, n_threads if n > BLOCK else 1)
        control = exact_floats(turn.threads)
        if first:
            keep_block(&keep[0], scale, &x[0], &out[0], first, -1)
        for start in prange(first, n, BLOCK, num_threads=turn.threads, schedule="static"):
            keep_block(&keep[start], scale, &x[start], &out[start], min(<Py_ssize_t>BLOCK, n - start), lead)
        restore_floats(control)
        end_turn(&turn)


def pack(const unsigned char[::1] keep, uint64_t[::1] bits):
    """Booleans into bits."""
    if keep.shape[0]:
        with nogil:
            pack_bits(&keep[0], &bits[0], keep.shape[0])


def unpack(const uint64_t[::1] bits, unsigned char[::1] keep):
    """Bits into booleans."""
    cdef unsigned char[64] last
    cdef Py_ssize_t i, whole = keep.shape[0] // 64, rest = keep.shape[0] % 64
    with nogil:
        for i in range(whole):
            bits_to_bytes(bits[i], &keep[64 * i])
        if rest:
            bits_to_bytes(bits[whole], last)
            memcpy(&keep[64 * whole], last, rest)


def kept(const uint64_t[::1] bits, int32_t[::1] places):
    """Writes the places of the set bits among the first len(places); returns their number."""
    return kept_places(&bits[0], places.shape[0], &places[0]) if places.shape[0] else 0


def gathered(
    const float[:, ::1] source,     # IN
    const uint64_t[::1] row_bits,   # IN, the masks
    const uint64_t[::1] col_bits,   # IN
    int32_t[::1] row_places,        # OUT, places for all rows
    int32_t[::1] col_places,        # OUT
    float[:, ::1] to,               # OUT
    int n_threads,
):
    """to = source[rows kept][:, columns kept]"""
    cdef Matrix a, b
    cdef Kept rows, cols
    a.data, a.row = <float*>&source[0, 0], source.shape[1]     # only read
    b.data, b.row = &to[0, 0], to.shape[1]
    rows.bits, rows.places, rows.units = &row_bits[0], &row_places[0], source.shape[0]
    cols.bits, cols.places, cols.units = &col_bits[0], &col_places[0], source.shape[1]
    with nogil:
        kept_places(rows.bits, rows.units, &row_places[0])
        kept_places(cols.bits, cols.units, &col_places[0])
        gather(a, &rows, to.shape[0], &cols, to.shape[1], b, n_threads)


def spread_row(const float[::1] source, const uint64_t[::1] bits, Py_ssize_t first, float[::1] to):
    """to = the units from `first` on of a row whose kept ones among these are `source`"""
    if to.shape[0]:
        with nogil:
            spread(&source[0], &bits[0], first, to.shape[0], &to[0])

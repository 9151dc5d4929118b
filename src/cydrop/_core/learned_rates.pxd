"""What draws learned dropout rates, and the weights after them, to the prior (Gal, Hron and Kendall 2017, section 3).

The loss of a row stands for c times its negative log-likelihood, and the prior for c / N times

    l^2 / 2 |W|^2 / (1 - p) - K H(p),    H(p) = -p log p - (1 - p) log(1 - p)

with N rows to train on, K units that the rate p drops, the weight W of the next dense layer and the prior's length
scale l. Its derivatives are a weight decay of c / N l^2 / (1 - p) on W and, by logit p = log(p / (1 - p)),

    c / N (l^2 / 2 |W|^2 p / (1 - p) + K logit p  p (1 - p))

Both come with the update, as weight decay does: they are not clipped, and whoever adds gradients need not know of them.
"""

from libc.stdlib cimport calloc

from cydrop._core.concrete cimport odds_of
from cydrop._core.optimizers cimport Segment, squared_norm


cdef struct LearnedRate:
    int own                     # number of its logit's segment
    int weight                  # and of the next dense layer's weight's, -1: there is none
    double units
    double strength             # c
    double lengthscale
    double rows                 # to train on, 0: as many as training says


cdef inline void draw_to_prior(
    const LearnedRate* learned, int n, double rows, Segment* segments, const float* parameters, double* partial,
    int n_threads
) noexcept nogil:
    """Puts the derivatives, at the parameters as they are, into the segments. Without rows there is no prior."""
    cdef double share, squares, odds, own_rows
    cdef float logit
    cdef Segment* weight
    cdef int i
    for i in range(n):
        segments[learned[i].own].pull = 0.0
        if learned[i].weight >= 0:
            segments[learned[i].weight].prior = 0.0
    for i in range(n):
        own_rows = learned[i].rows if learned[i].rows > 0.0 else rows
        if own_rows <= 0.0:
            continue
        share, squares = learned[i].strength / own_rows, 0.0
        logit = parameters[segments[learned[i].own].start]
        odds = odds_of(logit)
        if learned[i].weight >= 0:
            weight = &segments[learned[i].weight]
            squares = squared_norm(parameters + weight.start, weight.size, partial, n_threads)
            squares *= learned[i].lengthscale * learned[i].lengthscale
            weight.prior += share * learned[i].lengthscale * learned[i].lengthscale * (1.0 + odds)
        segments[learned[i].own].pull = share * (
            0.5 * squares * odds + learned[i].units * <double>logit * odds / ((1.0 + odds) * (1.0 + odds)))


cdef inline LearnedRate* lower_rates(given, int n_segments) except? NULL:
    """Those that a plan says, each the fields in their order. To be freed."""
    cdef LearnedRate* learned
    cdef int i
    if not given:
        return NULL
    learned = <LearnedRate*>calloc(len(given), sizeof(LearnedRate))
    if learned == NULL:
        raise MemoryError
    for i in range(len(given)):
        one = &learned[i]
        one.own, one.weight, one.units, one.strength, one.lengthscale, one.rows = given[i]
        assert 0 <= one.own < n_segments and -1 <= one.weight < n_segments
    return learned

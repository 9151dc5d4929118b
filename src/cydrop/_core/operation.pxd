"""What an operation is: its part of the plan (Op), its memory in one workspace (Bound), what a batch brings (Step), and
the doors by which it is run.

    lay_out     once per workspace  takes the memory that the operation needs
    begin       once per batch      all units and weights are there, and nothing is drawn
    draw        once per batch      masks, noise; only where dropout acts
    forward     once per batch      y of x
    backward    once per batch      the gradients, and d loss / d z of the operation below; where the batch is cut into
                                    shards, sums over rows are those of shard_sums.pxd

A door is one pointer call per operation and batch, never one per row; NULL where a family has nothing to do, but for
forward and backward. A family of operations (map_op.pxd is the
smallest, made to be copied) is a file that fills in a `Doors`, and a line in families.pxd.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from cydrop._core.epilogue cimport Epilogue
from cydrop._core.matrix cimport Matrix
from cydrop._core.gather cimport Kept
from cydrop._core.noise cimport Affine
from cydrop._core.norms cimport Norm
from cydrop._core.optimizers cimport Update, update_rows
from cydrop._core.pace cimport Clock
from cydrop._core.xorshift cimport StreamKey

cdef enum:
    MOST_PARTS = 4

cdef enum:                      # what a family is across the lanes (pack.pxd)
    NO_LANES = 0                # nothing: its networks are trained one by one
    DENSE_LANES = 1             # y = drop(f(x W + b))
    MAP_LANES = 2               # y = drop(f(x))

cdef struct Op
cdef struct Bound
cdef struct Step


cdef struct Source:             # what an operation draws from
    int column                  # of its rate among all rates, -1: it draws nothing
    uint64_t stream             # number of its random stream
    StreamKey seed


cdef struct Tensor:             # a parameter
    float* data                 # NULL: there is none
    float* gradient
    float* moment1              # NULL where the optimizer has none
    float* moment2
    Py_ssize_t size
    const Update* update        # of the step at hand, with the factors of this parameter


cdef struct Layout:             # memory of a workspace, as it is handed out; measured first
    float* memory               # NULL while only measuring
    Py_ssize_t used             # floats so far
    Py_ssize_t capacity         # rows
    bint training
    bint draws                  # whether dropout acts: in training, and in samples
    bint first_lane
    int threads                 # that may work for one lane
    int shards                  # of a batch, at most; 0: none


cdef struct Upstream:           # what the backward pass brings down to an operation
    Matrix dz                   # d loss / d z of the operation at hand
    Matrix spare                # for that of the operation below
    bint wanted                 # whether d loss / d x of it is needed
    bint updating               # whether the optimizer runs at once, and gradients need not be kept


ctypedef bint (*Fits)(const Op*) noexcept nogil
ctypedef void (*LayOut)(const Op*, Bound*, const Bound*, Layout*) noexcept nogil
ctypedef void (*Begin)(const Op*, Bound*) noexcept nogil
ctypedef void (*Pass)(const Op*, Bound*, const Step*) noexcept nogil
ctypedef void (*Backward)(const Op*, Bound*, const Bound*, Upstream*, const Step*) noexcept nogil


cdef struct Doors:
    Fits fits                   # whether a family with `parts` has all that it computes with; NULL: it has none
    LayOut lay_out              # (op, bound, the same operation in the first lane, layout), NULL: no memory but y
    Begin begin                 # NULL: z is y, which only epilogues tell apart
    Pass draw                   # NULL: it draws nothing
    Pass forward
    Backward backward           # (op, bound, the operation below or NULL, upstream, step)
    bint has_product            # y = f(x W + b): units may be left out, and it may write where a result is wanted
    bint has_scale              # a weight and a bias for every unit
    bint has_epilogue           # an activation and dropout, the last things that it does
    bint gathers                # and it can do without the units that a shared mask drops
    bint takes_kept             # it computes with kept inputs alone, since its weights are gathered
    bint passes_kept            # and gives these
    bint of_members             # every member of a network has parameters of its own (member_op.pxd)
    bint of_bytes               # its product is of bytes, and only predicts
    int lanes                   # what it is in a pack of networks
    bint forks                  # a later operation, the join, reads its y; `numbers`: how many come before that is done


cdef struct Op:                 # never changes but for moments and updates
    const Doors* doors
    int place                   # among the operations
    int variant
    Py_ssize_t n_in
    Py_ssize_t n_out
    Tensor weight
    Tensor bias
    const float* readable       # weights may be read up to here, by vectors that hang over
    int activation
    float alpha
    float option                # of the variant
    Source noise                # of its dropout or noise
    bint vanilla                # unscaled in training, scaled in prediction
    bint shared                 # one mask for all rows
    bint leaves_out             # and dropped units need not be computed
    bint reads_kept             # the operation below leaves out, so that only kept inputs may come
    bint follows                # it leaves out what the operation above does
    Source connect              # of its dropped weights
    float max_norm              # 0: none
    Norm norm                   # of a normalisation
    Tensor[MOST_PARTS] parts    # parameters of a family for which a weight and a bias are not enough
    int n_parts
    const int64_t* numbers      # sizes of a family's own
    Py_ssize_t n_numbers
    float* buffer               # what it keeps but does not train, NULL: nothing
    Py_ssize_t buffer_size
    int members                 # that a network has become before it (members.pxd), 0: it is one


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
    float* noise                # normal numbers, row after row
    float deviation             # that they are multiplied by
    Affine affine               # of alpha dropout
    bint quiet                  # nothing is drawn: the identity
    float* sums                 # of blocks of rows
    Matrix aside                # of a fork: the gradient that goes around
    float scale                 # of a join: what is kept is multiplied by it
    float* mean                 # of a normalisation
    float* inverse
    int32_t* places             # memory for places of the units that a shared mask keeps
    Kept kept                   # which are these
    bint gathered               # y has only those
    Matrix gathered_inputs           # memory for what is gathered
    Matrix gathered_weights
    float* gathered_biases
    uint64_t* connect_mask      # of the weights, NULL: drop-connect is not in force
    uint64_t* connect_bits
    Matrix connected            # the weights that it keeps
    float connect_scale
    StreamKey connect_key
    bint by_moments             # instead of dropping weights, outputs of the same mean and variance are drawn
    float* squares              # of the weights, the same for all lanes
    Matrix x_squares
    Matrix variance
    float* memory               # of a family's own


cdef struct Step:               # what a batch brings to all operations
    Py_ssize_t rows
    Py_ssize_t first_row        # number of its first row in the whole batch, of which it may be a part
    int threads
    double deadline             # after which one thread does the rest, 0: never (pace.pxd)
    bint training               # statistics are those of the batch
    bint moments                # drop-connect by its Gaussian moments
    const double* rates
    uint64_t number             # of the masks that are drawn for every row
    uint64_t shared_number      # of those that all rows share
    const uint64_t* seeds       # a key for each rate, NULL: the operations' own
    float* scratch
    uint32_t* pairs             # memory of products of bfloat16 (pairs.pxd), NULL: they are of float32
    Py_ssize_t pairs_each       # from one thread's to the next one's
    uint32_t* quads             # memory of products of bytes (quads.pxd)
    float* full_row             # for each thread two rows of the widest layer, see weight_gradient.pxd
    Py_ssize_t full_row_floats  # from one thread's to the next one's
    int shards                  # that the rows are cut into (shards.pxd), 0: they are not
    const Py_ssize_t* bounds    # the row where each begins, and where the last one ends
    float* tree                 # memory for the sums of shards of the gradients of any one operation
    float* statistics           # arena for what running statistics are made of, of the buffers' layout
    const float* buffers        # that arena
    int members                 # of a network of many, whose rows these are, one's after another's; 0: it is one
    int first_member            # number of the first
    Py_ssize_t member_rows      # of each
    bint resume                 # gradients are added to those of the members before
    Clock* clock                # NULL: nobody asks
    int slot                    # of the operation in it


cdef inline Py_ssize_t padded(Py_ssize_t n) noexcept nogil:
    """Floats from row to row: whole cache lines, and never a multiple of 1 KiB, whose rows would fall into the
    same sets of the L1 cache."""
    cdef Py_ssize_t row = (n + 15) // 16 * 16
    return row + 16 if row % 256 == 0 else row


cdef inline float* take(Layout* layout, Py_ssize_t floats) noexcept nogil:
    """The next piece of memory, on a cache line of its own; NULL while only measuring."""
    cdef Py_ssize_t start = layout.used
    layout.used += (floats + 15) // 16 * 16
    return layout.memory + start if layout.memory != NULL else NULL


cdef inline Matrix take_matrix(Layout* layout, Py_ssize_t cols) noexcept nogil:
    cdef Matrix m
    m.row = padded(cols)
    m.data = take(layout, layout.capacity * m.row)
    return m


cdef inline uint32_t* pairs_of_thread(const Step* step, int thread) noexcept nogil:
    return step.pairs + thread * step.pairs_each if step.pairs != NULL else NULL


cdef inline void swap(Upstream* upstream) noexcept nogil:
    cdef Matrix dz = upstream.dz
    upstream.dz = upstream.spare
    upstream.spare = dz


cdef inline void update_tensor(const Tensor* t) noexcept nogil:
    """One update of a parameter whose gradient lies in the arena."""
    update_rows(t.update, t.data, t.gradient, t.moment1, t.moment2, 1, t.size, 0, 0)

"""What an Engine and a Workspace hold."""

from cydrop._core.program cimport Program
from cydrop._core.room cimport Room
from cydrop._core.training cimport Learner


cdef class Engine:
    cdef Program program
    cdef Learner learner
    cdef Py_ssize_t work        # multiply-adds a row, and elements that passes go over
    cdef float[::1] parameters, gradients, moment1, moment2
    cdef float[::1] buffers     # running statistics
    cdef const float[::1] levels                        # of the loss's quantiles
    cdef list numbers           # arrays of operations' sizes
    cdef float[::1] parameters_before, buffers_before   # at the beginning of a pass: a divergence goes back to them
    cdef int file               # descriptor of the file that has the parameters of the beginning instead, else -1
    cdef readonly bint lost     # whether they could not be read back: what the parameters are is unknown
    cdef float[::1] statistics  # sums over the shards of a batch, of the buffers' layout
    cdef double[::1] partial_norms
    cdef public unsigned long long draws        # training forward passes so far: the step of the next masks
    cdef public unsigned long long updates      # optimizer updates so far
    cdef readonly object in_force               # what set_optimizer was called for, None: it never was

    cdef int pool_for(self, Py_ssize_t rows) noexcept nogil
    cdef void replace_state(self, const float[::1] parameters, const float[::1] buffers, bint keep) noexcept nogil


cdef class Workspace:
    cdef Room room
    cdef Engine engine
    cdef readonly Py_ssize_t capacity
    cdef readonly bint training
    cdef readonly bint masked
    cdef readonly int shards    # into how many a batch may be cut
    cdef object memory

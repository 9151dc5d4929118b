"""The processor's mode of float arithmetic, see float_control.h: every compiled function that computes stands between

    control = exact_floats(n_threads)
    restore_floats(control)
"""

from libc.stdint cimport uint64_t

cdef extern from "float_control.h" nogil:
    uint64_t exact_floats(int n_threads)
    void restore_floats(uint64_t control)

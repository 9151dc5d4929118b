"""What follows a product, or stands by itself: activation and dropout."""

from libc.stdint cimport uint64_t

cdef struct Epilogue:
    const float* bias           # NULL: none
    int activation
    float alpha                 # the activation's parameter
    const uint64_t* mask        # NULL: nothing is dropped
    Py_ssize_t mask_first       # bits before the first element of row 0
    Py_ssize_t mask_row         # bits from one row to the next, 0 for a mask shared by all rows
    float scale                 # multiplies what is kept

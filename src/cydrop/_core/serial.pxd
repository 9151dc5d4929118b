"""Work for which one thread is enough: with less than this a second one costs more than it brings.

Waking threads takes the same time for every kernel, the work of an element does not. engine.pyx (`pool_for`) relies on
SERIAL_COPY being the least multiply-adds or parameters, and an eighth of it the least elements, that take a second
thread.
"""

cdef enum:
    SERIAL_PRODUCT = 600000     # multiply-adds of a product
    SERIAL_COPY = 32768         # elements of a pass that does little more than read and write them
    SERIAL_PASS = 16384         # elements of a pass that computes: losses, norms, entropies


cdef inline int threads_of_product(double multiply_adds, int n_threads) noexcept nogil:
    return 1 if multiply_adds < SERIAL_PRODUCT else n_threads

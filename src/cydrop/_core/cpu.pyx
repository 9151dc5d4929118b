"""What this machine and this build can do: instruction sets, OpenMP, threads. Compiled for any machine."""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uintptr_t

from cydrop._core.matrix cimport MARGIN as FLOATS_OVERREAD

MARGIN = FLOATS_OVERREAD

cdef extern from *:
    """
    #if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    static int cydrop_has_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
            && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    }
    static int cydrop_has_avx512(void) {
        return cydrop_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int cydrop_has_avx2(void) { return 0; }
    static int cydrop_has_avx512(void) { return 0; }
    #endif

    #ifdef _OPENMP
    #include <omp.h>
    #if _OPENMP >= 201811 || (defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9)
    static void cydrop_rest(void) { omp_pause_resource_all(omp_pause_soft); }
    #else
    static void cydrop_rest(void) { }
    #endif
    static int cydrop_openmp(void) { return _OPENMP; }
    static int cydrop_threads(void) { return omp_get_max_threads(); }
    #else
    static void cydrop_rest(void) { }
    static int cydrop_openmp(void) { return 0; }
    static int cydrop_threads(void) { return 1; }
    #endif

    #if defined(__clang__)
    #define CYDROP_COMPILER "Clang " __clang_version__
    #elif defined(__GNUC__)
    #define CYDROP_COMPILER "GCC " __VERSION__
    #else
    #define CYDROP_COMPILER "unknown"
    #endif
    """
    int cydrop_has_avx2()
    int cydrop_has_avx512()
    void cydrop_rest()
    int cydrop_openmp()
    int cydrop_threads()
    const char* CYDROP_COMPILER


def instruction_sets():
    """The instruction sets of this machine that cydrop has kernels for, best first."""
    found = ["baseline"]
    if cydrop_has_avx2():
        found.insert(0, "avx2")
    if cydrop_has_avx512():
        found.insert(0, "avx512")
    return found


def openmp():
    """The OpenMP version (a date such as 201511) that this build uses, 0 for a serial build."""
    return cydrop_openmp()


def openmp_threads():
    """Threads that OpenMP would use: OMP_NUM_THREADS, or the processors of this process's affinity mask."""
    return cydrop_threads()


def compiler():
    """The compiler of this build."""
    return CYDROP_COMPILER.decode().strip()


def rest_threads():
    """Puts the thread pool to rest, so that fork is safe and no thread spins. Does nothing in a serial build."""
    cydrop_rest()


cdef extern from "float_control.h":
    int flush_denormals_here "flush_denormals"(int on)


def flush_denormals(bint on):
    """Lets this thread count denormals as 0, as PyTorch's set_flush_denormal does, or not; for tests. Whether the
    processor can."""
    return bool(flush_denormals_here(on))


def floats_to_cache_line(const float[::1] memory):
    """How many floats come before the first one that begins a cache line."""
    return -(<uintptr_t>&memory[0]) % 64 // 4


cdef long long forks = 0        # how often this process is a child of a child


def forked():
    """To be called in a child process: the threads of its parent are not there, and what they held is free."""
    global forks
    forks += 1


cdef class Turn:
    """What one thread at a time may do to an object; its own calls may nest. Others are refused, they do not wait.

        with core.turn:
            ...

    Compiled, since between a Python function's taking of a lock and its end an interrupt could come, and nobody would
    give the lock back.

    Parameters
    ----------
    refusal : str
        What the error of another thread says.
    """

    cdef unsigned long owner    # the thread whose turn it is
    cdef long long forks        # of the process that took it
    cdef readonly int depth     # of its nested calls, 0: nobody's
    cdef str refusal

    def __init__(self, str refusal):
        self.refusal = refusal

    def __enter__(self):
        cdef unsigned long thread = PyThread_get_thread_ident()
        if self.depth and self.owner != thread:
            if self.forks == forks:
                raise RuntimeError(self.refusal)
            self.depth = 0
        self.owner, self.forks = thread, forks
        self.depth += 1

    def __exit__(self, *error):
        self.depth -= 1

"""What this machine and this build can do: instruction sets, OpenMP, threads. Compiled for any machine."""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uintptr_t
from libc.string cimport memset

from cydrop._core.matrix cimport MARGIN as FLOATS_OVERREAD
from cydrop._core.pace cimport Pace, note_pace, threads_now

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
    #include <stdlib.h>
    #include <string.h>
    static int cydrop_openmp(void) { return _OPENMP; }
    static int cydrop_threads(void) { return omp_get_max_threads(); }

    #if _OPENMP >= 201811 || (defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9)
    #ifdef __ELF__
    #pragma weak omp_pause_resource_all         /* NULL where the library at hand is older than this header */
    #endif
    static int cydrop_rest(void) { return &omp_pause_resource_all && !omp_pause_resource_all(omp_pause_soft); }
    #else
    static int cydrop_rest(void) { return 0; }
    #endif

    #if defined(KMP_VERSION_MAJOR) && !defined(_WIN32)
    /* LLVM's library, or Intel's, prepares forks itself, unless KMP_INIT_AT_FORK said no when it began, as scikit-learn
     * makes it say because of an old fault of Intel's. So it begins here, with a yes. Whether another library had begun
     * it before with a no cannot be asked: then children stay on one thread. */
    static int cydrop_prepares_forks = 1;
    static int cydrop_means_no(const char *value) {
        return value[0] && (strchr("FfNnDd0.", value[0]) != NULL || ((value[0] | 32) == 'o' && (value[1] | 32) == 'f'));
    }
    static void cydrop_begin(void) {
        static const char name[] = "KMP_INIT_AT_FORK";
        const char *wish = getenv(name);
        if (wish != NULL && cydrop_means_no(wish)) {
            char *kept = strdup(wish);
            cydrop_prepares_forks = 0;
            if (kept != NULL && setenv(name, "TRUE", 1) == 0) {
                omp_get_max_threads();
                setenv(name, kept, 1);
            }
            free(kept);
        }
        omp_get_max_threads();                  /* it reads the variable now, and never again */
    }
    static int cydrop_before_fork(void) { cydrop_rest(); return cydrop_prepares_forks; }
    static void cydrop_stay_on_one_thread(void) { kmp_set_defaults("KMP_LIBRARY=serial"); }
    #else
    static void cydrop_begin(void) { }
    static int cydrop_before_fork(void) { return cydrop_rest(); }
    static void cydrop_stay_on_one_thread(void) { omp_set_max_active_levels(0); }
    #endif
    #else
    static int cydrop_openmp(void) { return 0; }
    static int cydrop_threads(void) { return 1; }
    static int cydrop_rest(void) { return 1; }
    static void cydrop_begin(void) { }
    static int cydrop_before_fork(void) { return 1; }
    static void cydrop_stay_on_one_thread(void) { }
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
    int cydrop_openmp()
    int cydrop_threads()
    int cydrop_rest()
    void cydrop_begin()
    int cydrop_before_fork()
    void cydrop_stay_on_one_thread()
    const char* CYDROP_COMPILER


cydrop_begin()


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
    """Puts the thread pool to rest, so that no thread spins. Does nothing in a serial build."""
    cydrop_rest()


def before_fork():
    """Prepares a fork. Whether the child may use threads: not where it might wait for those of its parent, because
    OpenMP's library is too old to put its pool to rest, or was told not to prepare forks."""
    return bool(cydrop_before_fork())


def stay_on_one_thread():
    """From now on all parallel regions of this process run on the thread that comes to them."""
    cydrop_stay_on_one_thread()


cdef extern from "float_control.h":
    int flush_denormals_here "flush_denormals"(int on)
    int flushes_denormals_here "flushes_denormals"()


def flush_denormals(bint on):
    """Lets this thread count denormals as 0, as PyTorch's set_flush_denormal does, or not; for tests. Whether the
    processor can."""
    return bool(flush_denormals_here(on))


def flushes_denormals():
    """Whether this thread counts denormals as 0 at the moment."""
    return bool(flushes_denormals_here())


def paced(const double[::1] one, const double[::1] all_threads, double[::1] took):
    """How long each of some batches takes by pace.pxd, of which so many seconds pass on one thread and on all of them;
    For tests."""
    cdef Pace pace
    cdef Py_ssize_t i
    cdef int threads
    cdef double now = 1.0
    memset(&pace, 0, sizeof(Pace))
    for i in range(one.shape[0]):
        threads = threads_now(&pace, 2, now)
        took[i] = one[i] if threads == 1 else all_threads[i]
        now += took[i]
        note_pace(&pace, threads, 2, took[i], 1, now)


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
        cdef bint others
        with cython.critical_section(self):     # nothing where there is a GIL; else one thread at a time comes in
            others = self.depth > 0 and self.owner != thread and self.forks == forks
            if not others:
                if self.owner != thread:
                    self.depth = 0              # also where a thread of the parent had it, which is not here
                self.owner, self.forks = thread, forks
                self.depth += 1
        if others:
            raise RuntimeError(self.refusal)

    def __exit__(self, *error):
        with cython.critical_section(self):
            self.depth -= 1

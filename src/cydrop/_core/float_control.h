/* The processor's mode of float arithmetic: set to IEEE 754's default for the time of a computation.
 *
 * Other libraries of the same process may have switched it, for all threads that come after: PyTorch by
 * set_flush_denormal, anything linked with -ffast-math when it is loaded. Then denormals count as 0, and the same seed
 * would give other bits. What is set here: round to nearest, denormals kept, no trap.
 *
 *     control = exact_floats(n_threads);   ... compute ...   restore_floats(control);
 *
 * The register belongs to a thread. Threads of the OpenMP pool take over their maker's when they begin; those that were
 * there before this thread's first computation with as many are set once.
 */
#ifndef CYDROP_FLOAT_CONTROL_H
#define CYDROP_FLOAT_CONTROL_H

#include <stdint.h>

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#define CYDROP_WRONG_BITS 0xE040u   /* flush to zero, rounding, denormals are zero */
#define CYDROP_MASKED 0x1F80u       /* no trap */
static inline uint64_t set_exact(void) {
    unsigned now = _mm_getcsr();
    if ((now & CYDROP_WRONG_BITS) != 0 || (now & CYDROP_MASKED) != CYDROP_MASKED)
        _mm_setcsr((now & ~CYDROP_WRONG_BITS) | CYDROP_MASKED);
    return now;
}
static inline void restore_floats(uint64_t control) {
    if ((control & CYDROP_WRONG_BITS) != 0 || (control & CYDROP_MASKED) != CYDROP_MASKED)
        _mm_setcsr((unsigned)control);
}
#elif (defined(__aarch64__) || (defined(__arm__) && defined(__ARM_FP))) && defined(__GNUC__)
#ifdef __aarch64__
typedef uint64_t float_register;
#define CYDROP_READ "mrs %0, fpcr"
#define CYDROP_WRITE "msr fpcr, %0"
#define CYDROP_WRONG_BITS 0x07C80003u   /* AHP, DN, FZ, rounding, FZ16; AH, FIZ */
#else                                   /* 32 bits: the register holds flags of results as well */
typedef uint32_t float_register;
#define CYDROP_READ "vmrs %0, fpscr"
#define CYDROP_WRITE "vmsr fpscr, %0"
#define CYDROP_WRONG_BITS 0x07C80000u   /* AHP, DN, FZ, rounding, FZ16 */
#endif
#define CYDROP_FLUSH_TO_ZERO 0x01000000u
static inline float_register read_register(void) {
    float_register now;
    __asm__ __volatile__(CYDROP_READ : "=r"(now));
    return now;
}
static inline void write_register(float_register value) {
    __asm__ __volatile__(CYDROP_WRITE : : "r"(value) : "memory");
}
static inline uint64_t set_exact(void) {
    float_register now = read_register();
    if (now & CYDROP_WRONG_BITS)
        write_register(now & ~(float_register)CYDROP_WRONG_BITS);
    return now;
}
static inline void restore_floats(uint64_t control) {
    if (control & CYDROP_WRONG_BITS)
        write_register((float_register)control);
}
#else
static inline uint64_t set_exact(void) { return 0; }
static inline void restore_floats(uint64_t control) { (void)control; }
#endif

/* The mode in which denormals count as 0, for the time of some vector arithmetic within a computation that is exact. */
#if defined(__SSE__) || defined(_M_X64)
static inline unsigned begin_flushing(void) {
    const unsigned now = _mm_getcsr();
    _mm_setcsr(now | 0x8040u);
    return now;
}
static inline void end_flushing(unsigned control) { _mm_setcsr(control); }
#endif

/* what PyTorch's set_flush_denormal does, for tests: whether this processor has such a mode */
static inline int flush_denormals(int on) {
#if defined(__SSE__) || defined(_M_X64)
    _mm_setcsr(on ? _mm_getcsr() | 0x8040u : _mm_getcsr() & ~0x8040u);
    return 1;
#elif defined(CYDROP_FLUSH_TO_ZERO)
    float_register now = read_register();
    write_register(on ? now | CYDROP_FLUSH_TO_ZERO : now & ~(float_register)CYDROP_FLUSH_TO_ZERO);
    return 1;
#else
    (void)on;
    return 0;
#endif
}

/* whether this thread loses denormals now; for tests */
static inline int flushes_denormals(void) {
    volatile float small = 0x1p-100f, factor = 0x1p-40f;
    return small * factor == 0.0f;
}

#if defined(_OPENMP) && defined(__GNUC__)
static __thread int cydrop_threads_set = 1;
static inline uint64_t exact_floats(int n_threads) {
    uint64_t control = set_exact();
    if (n_threads > cydrop_threads_set) {
#pragma omp parallel num_threads(n_threads)
        (void)set_exact();
        cydrop_threads_set = n_threads;
    }
    return control;
}
#else
static inline uint64_t exact_floats(int n_threads) { (void)n_threads; return set_exact(); }
#endif

#endif

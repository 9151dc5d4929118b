/* The few scalar operations that Cython cannot say exactly: one rounding for a * b + c, and bits <-> float.
 *
 * fma32 is fused wherever the compiled instruction set has the instruction; elsewhere (x86-64 without FMA)
 * it rounds twice, which is the one case in which cydrop's bits differ between machines. There is no third one:
 * every header that adds to a product asks CYDROP_HAS_FMA, and a processor that keeps more digits than a float or a
 * double has is refused.
 */
#ifndef CYDROP_FMA_H
#define CYDROP_FMA_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "this compiler keeps more digits than float has between two operations: results would be wrong (x86: -msse2 -mfpmath=sse)"
#endif

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__aarch64__) || defined(__FP_FAST_FMAF) || \
    defined(__riscv_f) || defined(__s390x__) || defined(__powerpc64__)
#define CYDROP_HAS_FMA 1
#define fma32(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define CYDROP_HAS_FMA 0
#define fma32(a, b, c) ((float)(a) * (float)(b) + (float)(c))
#endif

#ifndef CYDROP_TARGET
#define CYDROP_TARGET "baseline"
#endif

static inline int32_t bits_of(float x) { int32_t i; memcpy(&i, &x, 4); return i; }
static inline float float_of(int32_t i) { float x; memcpy(&x, &i, 4); return x; }
static inline int64_t bits_of64(double x) { int64_t i; memcpy(&i, &x, 8); return i; }
static inline double double_of(int64_t i) { double x; memcpy(&x, &i, 8); return x; }

/* a float array that nothing else in the function points into: loops over several need no overlap checks */
#if defined(_MSC_VER)
typedef float *__restrict own_floats;
#else
typedef float *restrict own_floats;
#endif

/* asks for the cache line at p, into L2: it will be wanted soon */
#if defined(__GNUC__)
#define fetch_line(p) __builtin_prefetch((p), 0, 2)
#else
#define fetch_line(p) ((void)(p))
#endif

/* seconds that pass, for deadlines of a few hundredths of a second; not set back by who sets the clock, where known */
static inline double passing_seconds(void) {
    struct timespec now;
#if defined(CLOCK_MONOTONIC)
    clock_gettime(CLOCK_MONOTONIC, &now);
#else
    timespec_get(&now, TIME_UTC);
#endif
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif

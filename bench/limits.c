/* What this machine can do: multiply-adds and memory. roofline.py compiles it for the processor that it runs on.
 *
 * chains() keeps CHAINS independent vectors of multiply-adds going: more than latency times throughput of any
 * processor of today, few enough to stay in registers. Each thread takes the time of its own, once all have begun.
 * pairs() does so with vdpbf16ps, which adds two products of bfloat16 a lane. update() reads and writes an array, as an
 * optimizer does.
 */
#include <stddef.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define FLOATS (BYTES / 4)
#define CHAINS 20
typedef float vec __attribute__((vector_size(BYTES)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

__attribute__((noinline)) static float chains(long count) {
    vec a[CHAINS];
    const vec x = (vec){0} + 0.5f;
    for (int j = 0; j < CHAINS; j++) a[j] = x + (float)j;
    for (long i = 0; i < count; i++)
#pragma GCC unroll 32
        for (int j = 0; j < CHAINS; j++) a[j] = a[j] * x + x;
    for (int j = 1; j < CHAINS; j++) a[0] += a[j];
    return a[0][0] + a[0][FLOATS - 1];
}

#if defined(__AVX512BF16__)
#include <immintrin.h>
__attribute__((noinline)) static float pairs(long count) {
    __m512 a[CHAINS];
    const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3F003F00); /* .5 and .5 */
    for (int j = 0; j < CHAINS; j++) a[j] = _mm512_set1_ps((float)j);
    for (long i = 0; i < count; i++)
#pragma GCC unroll 32
        for (int j = 0; j < CHAINS; j++) a[j] = _mm512_dpbf16_ps(a[j], x, x);
    for (int j = 1; j < CHAINS; j++) a[0] = _mm512_add_ps(a[0], a[j]);
    return _mm512_reduce_add_ps(a[0]);
}
#endif

/* operations a second of all threads together, of `each` operations a round */
static double rate_of(float (*work)(long), int threads, long count, double each) {
    volatile float sink = 0;
    double rate = 0;
#pragma omp parallel num_threads(threads)
    {
        float result = work(count / 8); /* until the clock has risen */
#pragma omp barrier
        const double start = now();
        result += work(count);
        const double own = each * (double)count / (now() - start);
#pragma omp critical
        {
            sink = sink + result;
            rate += own;
        }
    }
    return rate;
}

/* floating-point operations a second, a multiply-add counts as two */
double multiply_adds(int threads, long count) { return rate_of(chains, threads, count, 2.0 * CHAINS * FLOATS); }

/* the same of bfloat16; 0 where there is no instruction */
double pair_multiply_adds(int threads, long count) {
#if defined(__AVX512BF16__)
    return rate_of(pairs, threads, count, 4.0 * CHAINS * FLOATS);
#else
    (void)threads;
    (void)count;
    return 0;
#endif
}

/* bytes a second, read and written, of x += 1 over n floats, `rounds` times */
double update(int threads, float *x, long n, int rounds) {
    const double start = now();
#pragma omp parallel num_threads(threads)
    for (int round = 0; round < rounds; round++) {
#pragma omp for schedule(static)
        for (long i = 0; i < n; i++) x[i] += 1.0f;
    }
    return 8.0 * (double)n * rounds / (now() - start);
}

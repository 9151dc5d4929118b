/* What this machine can do: multiply-adds and memory. roofline.py compiles it for the processor that it runs on.
 *
 * chains() keeps CHAINS independent vectors of multiply-adds going: more than latency times throughput of any
 * processor of today, few enough to stay in registers. update() reads and writes an array, as an optimizer does.
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
#define CHAINS 12
typedef float vec __attribute__((vector_size(BYTES)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

__attribute__((noinline)) static float chains(long count) {
    vec a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, x = (vec){0} + 0.5f;
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = a9 = a10 = a11 = x;
    a1 += 1, a2 += 2, a3 += 3, a4 += 4, a5 += 5, a6 += 6, a7 += 7, a8 += 8, a9 += 9, a10 += 10, a11 += 11;
    for (long i = 0; i < count; i++) {
        a0 = a0 * x + x, a1 = a1 * x + x, a2 = a2 * x + x, a3 = a3 * x + x, a4 = a4 * x + x, a5 = a5 * x + x;
        a6 = a6 * x + x, a7 = a7 * x + x, a8 = a8 * x + x, a9 = a9 * x + x, a10 = a10 * x + x, a11 = a11 * x + x;
    }
    const vec sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;
    float total = 0;
    for (int j = 0; j < FLOATS; j++) total += sum[j];
    return total;
}

/* floating-point operations a second, a multiply-add counts as two */
double multiply_adds(int threads, long count) {
    volatile float sink = 0;
    const double start = now();
#pragma omp parallel num_threads(threads)
    {
        const float result = chains(count);
#pragma omp critical
        sink = sink + result;
    }
    return 2.0 * CHAINS * FLOATS * (double)count * threads / (now() - start);
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

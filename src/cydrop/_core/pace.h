/* Whether threads are worth it at the moment (pace.pxd), for kernels that nobody keeps a workspace for: an account for
 * each of a few kinds of work and for each power of two of its size, and of each thread that calls, which has its own
 * pool of threads.
 */
#ifndef CYDROP_PACE_H
#define CYDROP_PACE_H

#include <stddef.h>

typedef struct {
    double serial; /* seconds per row, or element, on one thread, 0: not measured yet */
    double resume; /* when to try all threads again */
    double pause;  /* for how long they were put aside last */
    double lost;   /* seconds that all threads together took longer than one would have; below 0: that they saved */
    double owed;   /* seconds that all threads lost in all, less what they saved, since they last owed nothing */
    int trials;    /* batches on all threads before the first measurement of one */
} Pace;

#if defined(_MSC_VER)
#define CYDROP_OWN __declspec(thread)
#else
#define CYDROP_OWN __thread
#endif
#define PACE_KINDS 3
#define PACE_SIZES 64

static inline Pace *own_pace(int kind, ptrdiff_t size) {
    static CYDROP_OWN Pace paces[PACE_KINDS][PACE_SIZES];
    int power = 0;
    for (; size > 1; size >>= 1) power++;
    return &paces[kind][power];
}

#endif

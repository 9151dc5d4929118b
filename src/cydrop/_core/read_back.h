/* Reads back what a temporary file keeps of the beginning of a pass (_run/beginning.py has written it). */
#ifndef CYDROP_READ_BACK_H
#define CYDROP_READ_BACK_H

#include <stddef.h>

#if defined(_WIN32)

static int read_back(int file, void *to, size_t bytes) { return bytes == 0; } /* nothing is written there */

#else

#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

#define READ_AT_ONCE ((size_t)1 << 28) /* bytes: some systems read no more than 2^31 */

/* Whether all bytes came. What the system could not write later on, behind its cache, fsync knows. */
static int read_back(int file, void *to, size_t bytes) {
    size_t done = 0;
    int failed = 0;
    if (bytes == 0) return 1;
    do failed = fsync(file);
    while (failed && errno == EINTR);
    while (!failed && done < bytes) {
        size_t wanted = bytes - done < READ_AT_ONCE ? bytes - done : READ_AT_ONCE;
        ssize_t came = pread(file, (char *)to + done, wanted, (off_t)done);
        if (came > 0)
            done += (size_t)came;
        else
            failed = came == 0 || errno != EINTR;
    }
    return !failed;
}

#endif
#endif

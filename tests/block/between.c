/* Preloaded into a worker: stands between "checked" and "written", whoever writes.  In the directory RF_BETWEEN:
 *
 *     freeze  the process stops itself, once, and removes it
 *     hold    writes wait as long as it is there; each makes a file standing.THREAD meanwhile
 *     stall   likewise, those to the offset on the device that is its target (a symlink)
 *     fail    transfers fail with the errno that is its target (a symlink)
 *     short   transfers are cut to 512 bytes */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *place(const char *name)
{
    static __thread char path[256];
    snprintf(path, sizeof path, "%s/%s", getenv("RF_BETWEEN"), name);
    return path;
}

static int stalls(off_t offset)
{
    char number[24] = {0};
    return readlink(place("stall"), number, sizeof number - 1) > 0 && atoll(number) == offset;
}

static void stand(off_t offset)
{
    if (unlink(place("freeze")) == 0)
        raise(SIGSTOP); /* this very thread, now */
    char standing[32];
    snprintf(standing, sizeof standing, "standing.%d", gettid());
    for (int stood = 0; access(place("hold"), F_OK) == 0 || stalls(offset); stood = 1) {
        if (!stood)
            close(creat(place(standing), 0600));
        usleep(1000);
    }
}

static int fails(void)
{
    char number[16] = {0};
    if (readlink(place("fail"), number, sizeof number - 1) < 0)
        return 0;
    errno = atoi(number);
    return 1;
}

static struct iovec cut(const struct iovec *part)
{
    struct iovec first = *part;
    if (first.iov_len > 512 && access(place("short"), F_OK) == 0)
        first.iov_len = 512;
    return first;
}

#define TRANSFERS(name, before)                                                                           \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset, int flags)                   \
    {                                                                                                     \
        ssize_t (*real)(int, const struct iovec *, int, off_t, int) = dlsym(RTLD_NEXT, #name);            \
        before;                                                                                           \
        struct iovec part = cut(parts);                                                                   \
        return fails() ? -1 : real(fd, &part, 1, offset, flags);                                          \
    }

TRANSFERS(pwritev2, stand(offset))
TRANSFERS(pwritev64v2, stand(offset))
TRANSFERS(preadv2, )
TRANSFERS(preadv64v2, )

/* Preloaded into a worker: stands between "checked" and "written", whoever writes.
 *
 *     RF_FREEZE  a file: the process stops itself, once, and removes it
 *     RF_HOLD    a file: writes wait as long as it is there */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

static void stand(void)
{
    const char *freeze = getenv("RF_FREEZE"), *hold = getenv("RF_HOLD");
    if (freeze != NULL && unlink(freeze) == 0)
        raise(SIGSTOP); /* this very thread, now */
    while (hold != NULL && access(hold, F_OK) == 0)
        usleep(1000);
}

#define STAND(name)                                                                                       \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset, int flags)                   \
    {                                                                                                     \
        ssize_t (*real)(int, const struct iovec *, int, off_t, int) = dlsym(RTLD_NEXT, #name);            \
        stand();                                                                                          \
        return real(fd, parts, count, offset, flags);                                                     \
    }

STAND(pwritev2)
STAND(pwritev64v2)

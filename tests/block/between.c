/* Preloaded into a worker: stands between "checked" and "written", whoever writes.  In the directory RF_BETWEEN:
 *
 *     freeze  the process stops itself, once, and removes it
 *     hold    writes wait as long as it is there; each makes a file standing.OFFSET meanwhile
 *     stall   likewise, those to the offset on the device that is its target (a symlink)
 *     fail    transfers fail with the errno that is its target (a symlink)
 *     short   transfers are cut to 512 bytes
 *     slow    writes take a millisecond more
 *     issued  for each io_submit it has a byte more: how many it issued together
 *     share   there is another process with the worker's memory, from its start on, as long as that is there
 *
 * Those that are issued together are each treated as one by itself, but that who froze is the one who issues. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
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

static int stands(off_t offset)
{
    return access(place("hold"), F_OK) == 0 || stalls(offset);
}

static void take_time(void)
{
    if (access(place("slow"), F_OK) == 0)
        usleep(1000);
}

static void stand(off_t offset)
{
    take_time();
    if (unlink(place("freeze")) == 0)
        raise(SIGSTOP); /* this very thread, now */
    char standing[32];
    snprintf(standing, sizeof standing, "standing.%lld", (long long)offset);
    for (int stood = 0; stands(offset); stood = 1) {
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

/* -- together: io_submit and io_getevents, which have no function in libc --------------- */

static long (*really)(long, ...);

static void *shared(void *nobody)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/share", getenv("RF_BETWEEN"));
    if (vfork() == 0) {
        close_range(0, ~0U, 0); /* its memory, and nothing else of it */
        while (access(path, F_OK) == 0)
            usleep(1000);
        _exit(0);
    }
    return nobody;
}

__attribute__((constructor)) static void share(void)
{
    pthread_t thread;
    if (access(place("share"), F_OK) == 0 && pthread_create(&thread, NULL, shared, NULL) == 0)
        pthread_detach(thread);
}

struct later {
    aio_context_t context;
    struct iocb *order;
};

static void *submit_later(void *one)
{
    struct later *later = one;
    stand(later->order->aio_offset);
    if (really(SYS_io_submit, later->context, 1L, &later->order) != 1)
        abort();
    free(later);
    return NULL;
}

static void note_issued(long count)
{
    char issued = (char)count;
    int fd = open(place("issued"), O_WRONLY | O_APPEND);
    if (fd < 0)
        return;
    if (write(fd, &issued, 1) != 1)
        abort();
    close(fd);
}

static long submit(aio_context_t context, long count, struct iocb **orders)
{
    struct iocb *now[count];
    long ready = 0;
    note_issued(count);
    if (unlink(place("freeze")) == 0)
        raise(SIGSTOP);
    for (long i = 0; i < count; i++) {
        if (orders[i]->aio_lio_opcode != IOCB_CMD_PWRITE || !stands(orders[i]->aio_offset)) {
            now[ready++] = orders[i];
            continue;
        }
        struct later *later = malloc(sizeof *later);
        *later = (struct later){context, orders[i]};
        pthread_t thread;
        if (pthread_create(&thread, NULL, submit_later, later))
            abort();
        pthread_detach(thread);
    }
    if (ready && really(SYS_io_submit, context, ready, now) != ready)
        abort();
    return count;
}

static long damaged(struct io_event *events, long count)
{
    int failing = fails() ? errno : 0, cutting = access(place("short"), F_OK) == 0;
    for (long i = 0; i < count; i++) {
        if (failing)
            events[i].res = -failing;
        else if (cutting && events[i].res > 512)
            events[i].res = 512;
    }
    return count;
}

long syscall(long number, ...)
{
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (!really)
        really = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_io_submit)
        return submit((aio_context_t)a[0], a[1], (struct iocb **)a[2]);
    long result = really(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_io_getevents && result > 0)
        take_time();
    return number == SYS_io_getevents ? damaged((struct io_event *)a[3], result) : result;
}

/* The usual case of `connection.py`, without the interpreter: a READ or WRITE under valid authority.
 *
 * Each lane of a connection is a thread that calls `rf_serve`.  It receives a request, checks the authority
 * pages, transfers, checks again, replies, and so on, until something comes that is not usual; that it
 * returns to Python, which does what the same lane without this file does.  So this decides nothing:
 *
 *     ASKED   received, and nothing done about it: authority is not valid, or it is another command,
 *             or nonsense that wants an error
 *     FAILED  carried out; `error` is why not
 *     LATE    a write was carried out (or failed), and authority has ended since the check: to be told, now
 *     TOLD    such a write, after all others of its batch were told: to be answered; `error` as in FAILED
 *     OVER    the client is gone, or talks nonsense
 *
 * Nothing is known here of what a page means but this: while CLOCK_BOOTTIME is below all of them, go
 * (host/pages.py).
 *
 * One lane of a connection receives at a time, and takes from the socket whatever is there.  Small requests
 * that stand behind one another are its batch: received, issued and answered with one system call each, for
 * one wake-up costs more than all else about a small transfer.  Each has a seat of its own, and whichever is
 * done, and well, is answered a moment later, however long the others stand.  Where there is enough to do
 * a lane takes its requests when it has seats for them, so that all come along that stand there by then.
 *
 * Nor does a lane with such a batch wake another one to receive the next, where the disk does its work in less than
 * a millisecond.  Where other connections are at work it looks into the socket itself, whenever some are done, and
 * now and then, and begins with what stands there; a connection that is the only one waits for the disk and for the
 * socket at once.  Else, and with what is large, it does wake one, for transfers may take long.  Where
 * the last ones were quick, or where there is no seat for the next, it goes on alone even so; a guard then looks now
 * and then whether somebody receives.
 *
 * It is Linux's own AIO that issues a batch, not io_uring: see rf_hold.
 *
 * Loaded by fastpath.py, which has the same names. */

#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* since Linux 6.1; older C libraries do not know it */
#endif

enum { ASKED, FAILED, LATE, TOLD, OVER };
enum { READ, WRITE, DISC };
enum { FLAG_FUA = 1, FLAG_DF = 4 };
enum { MAX_PAGES = 8, PAGE_BYTES = 4096 };

#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC 0x67446698u
#define STRUCTURED_MAGIC 0x668e33efu
#define MAX_PAYLOAD_BYTES (32u << 20)
#define CHUNK_DONE 1
#define CHUNK_OFFSET_DATA 1

#define AHEAD_BYTES (64u << 10) /* received at once */
#define SMALL_BYTES (32u << 10) /* as much, or more, is received where it belongs */
#define QUICK_NS 50000u          /* what a lane does alone meanwhile is more than what waking another one costs */
#define MOMENT_NS 50000         /* for which answers wait for one another, and requests */
#define SEATS_NS 1000000        /* for which whoever finds few seats waits for more of them */
#define GUARD_NS 2000000
#define LARGE_BYTES (256u << 10) /* from here on huge pages are worth their memory */
#define HUGE_BYTES (2u << 20)
#define LOOK_NS 50000    /* after which a lane that waits for the disk looks into the socket, each time twice as long */
#define PATIENCE_NS 800000 /* a wait that is not shorter: another lane receives meanwhile */
#define BURST_NS 10000 /* in which the next one of a burst comes */
enum { FEW = 4, BATCH = 8, SLOTS = 16 }; /* small requests: too few of a burst to begin with, as many as are better
                                            waited for where seats are few, and what one lane has under way at most */

struct request {
    uint32_t magic;
    uint16_t flags, command;
    uint64_t cookie, offset;
    uint32_t length;
} __attribute__((packed));

struct reply {
    uint32_t magic, error;
    uint64_t cookie;
} __attribute__((packed));

struct data_chunk {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t cookie;
    uint32_t length;
    uint64_t offset;
} __attribute__((packed));

struct stripe {
    int64_t fd, start;
};

struct extent {
    int64_t lv_start;
    int64_t stripe_bytes; /* on one stripe before the next one's turn; the whole length of a linear one */
    int64_t stripe_count;
    const struct stripe *stripes;
};

/* Whoever waits for seats. */
struct waiter {
    struct waiter *next;
    pthread_cond_t given;
    int least, most, got; /* got: 0 as long as it waits */
};

struct export {
    pthread_mutex_t lock;
    pthread_cond_t all_empty;
    pthread_condattr_t monotonic;
    int seats, taken, emptied;
    struct waiter *first, **last; /* in the order in which they came */
    const uint64_t *pages[MAX_PAGES];
    int page_count;
    /* What is served; changed only while all seats are empty. */
    const struct extent *table;
    int64_t table_count, size_bytes, block_bytes;
    int writes; /* whether they are done here */
};

/* A request, and where it is. */
struct part {
    enum { FREE, COME, LEFT, UNDER_WAY, DONE, WENT_WRONG, WENT_LATE, TOLD_LATE } state;
    int32_t error;
    uint64_t cookie, offset;
    uint32_t length;
    uint16_t flags, command;
    unsigned char *payload;
};

/* What a lane has to do: one request, or small ones that stood behind one another. */
struct batch {
    struct batch *next_of_all; /* of its connection */
    aio_context_t aio;  /* 0: none yet */
    int alone;          /* there is none to be had */
    int huge;
    int quick; /* most of its last eight transfers were; a bit of `last` for each */
    uint32_t last;
    int receives; /* it is this lane's turn, and stays so while it has something under way */
    int slow;     /* its last transfers took longer than that is good for */
    int lone;     /* no other connection has something under way; all that is, of this lane, tells `news` */
    int answered; /* since it last took what stood in the socket */
    uint64_t begun_ns; /* the last of them */
    int64_t look_ns;   /* how long it waits until it looks into the socket again; where it is not lone */
    int come, under_way, left; /* left: to Python, or will be */
    int seats; /* which those that have come have already; at most as many */
    struct part parts[SLOTS]; /* one that is large is the first, and alone */
    struct iocb orders[SLOTS];
};

struct connection {
    struct export *export;
    int sock, structured;
    pthread_mutex_t sending, lock;
    pthread_cond_t turn;
    /* With the lock: whether all is over, whether a lane receives, how many wait for their turn, whether one
       of these is the guard, and how many requests have come. */
    int over, receiving, waiting, guarded;
    uint64_t received;
    struct batch *batches; /* with the lock */
    int seated; /* seats that its batches have; atomic */
    int news; /* an eventfd, for the lane that receives: something that was issued is done; -1: there is none */
    /* Of the lane that receives: what it received ahead, and whether no more comes. */
    size_t begin, end;
    int ended;
    unsigned char ahead[AHEAD_BYTES];
};

/* What Python has of a lane: its buffer, and the request that it must do something about. */
struct lane {
    unsigned char *payload; /* on a page boundary */
    uint64_t cookie, offset;
    uint32_t length;
    uint16_t flags, command;
    int32_t error;
    struct batch *batch; /* nobody else's business */
};

/* -- seats -------------------------------------------------------------------- */

struct export *rf_export_new(int seats)
{
    struct export *export = calloc(1, sizeof *export);
    if (export == NULL)
        return NULL;
    pthread_condattr_init(&export->monotonic);
    pthread_condattr_setclock(&export->monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&export->lock, NULL);
    pthread_cond_init(&export->all_empty, &export->monotonic);
    export->seats = seats;
    export->last = &export->first;
    return export;
}

/* Returns 0, or an errno. */
int rf_add_page(struct export *export, const char *path)
{
    struct stat found;
    if (export->page_count == MAX_PAGES)
        return ENOSPC;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    void *page = MAP_FAILED;
    int error = EINVAL;
    if (fstat(fd, &found) == 0 && found.st_size >= PAGE_BYTES) {
        page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
        error = errno;
    }
    close(fd);
    if (page == MAP_FAILED)
        return error;
    export->pages[export->page_count++] = page;
    return 0;
}

/* A file that is mapped is open until the process has no memory any more, and before that the kernel waits for
 * all that was issued (exit_aio, then exit_mmap).  So a lock on it tells when nothing is under way, which the
 * process's end does not quite: whoever reads its /proc files may keep its memory for a moment.  Of io_uring
 * nothing tells that: what is under way then is left to the kernel's own threads.
 *
 * Returns 0, or an errno. */
int rf_hold(int fd)
{
    return mmap(NULL, PAGE_BYTES, PROT_NONE, MAP_SHARED, fd, 0) == MAP_FAILED ? errno : 0;
}

/* Only while all seats are empty, or before anybody serves. */
void rf_table(struct export *export, const struct extent *table, int64_t count, int64_t size_bytes,
              int64_t block_bytes, int writes)
{
    export->table = table;
    export->table_count = count;
    export->size_bytes = size_bytes;
    export->block_bytes = block_bytes;
    __atomic_store_n(&export->writes, writes, __ATOMIC_RELAXED);
}

static struct timespec in_ns(int64_t wait_ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ns / 1000000000;
    until.tv_nsec += wait_ns % 1000000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return until;
}

/* With the lock.  To those who wait, in their order, as long as there are enough for the next one. */
static void give_seats(struct export *export)
{
    struct waiter *waiter;
    while ((waiter = export->first) != NULL && !export->emptied) {
        int free = export->seats - export->taken;
        if (free < waiter->least)
            return;
        waiter->got = waiter->most < free ? waiter->most : free;
        export->taken += waiter->got;
        export->first = waiter->next;
        if (export->first == NULL)
            export->last = &export->first;
        pthread_cond_signal(&waiter->given);
    }
}

/* Returns how many seats it has got: one at least.
 *
 * count: of the requests that are there.
 * most: that can be made use of, for more requests may stand in the socket by then.
 *
 * To issue one costs nearly as much as to issue eight together.  So whoever would begin with few, while at
 * least half of the seats are taken, waits until some are left, or for a moment; and where there are not
 * enough, for half of all rather than for the next one.  Neither for long: the disk may be slow. */
static int sit(struct export *export, int count, int most)
{
    pthread_mutex_lock(&export->lock);
    int free = export->seats - export->taken;
    int few = count < most && 2 * export->taken >= export->seats;
    if (!export->emptied && export->first == NULL && free >= count && !few) {
        export->taken += count;
        pthread_mutex_unlock(&export->lock);
        return count;
    }
    int half = (export->seats + 1) / 2;
    struct waiter waiter = {.least = most < half ? most : half, .most = most};
    pthread_cond_init(&waiter.given, &export->monotonic);
    *export->last = &waiter;
    export->last = &waiter.next;
    struct timespec until = in_ns(free >= waiter.least ? MOMENT_NS : SEATS_NS);
    while (waiter.got == 0) {
        int timed_out = waiter.least > 1 ? pthread_cond_timedwait(&waiter.given, &export->lock, &until)
                                         : pthread_cond_wait(&waiter.given, &export->lock);
        if (!timed_out || waiter.got)
            continue;
        if (export->first == &waiter) {
            waiter.least = 1;
            give_seats(export);
        } else {
            until = in_ns(SEATS_NS);
        }
    }
    pthread_mutex_unlock(&export->lock);
    pthread_cond_destroy(&waiter.given);
    return waiter.got;
}

/* Returns how many seats it has got, at once; perhaps none. */
static int sit_now(struct export *export, int most)
{
    pthread_mutex_lock(&export->lock);
    int free = export->emptied || export->first != NULL ? 0 : export->seats - export->taken;
    int got = most < free ? most : free;
    export->taken += got;
    pthread_mutex_unlock(&export->lock);
    return got;
}

/* As of now.  Then nobody can begin with anything before somebody is done, who can receive what comes next. */
static int is_full(struct export *export)
{
    return __atomic_load_n(&export->taken, __ATOMIC_RELAXED) >= export->seats;
}

static void leave(struct export *export, int count)
{
    pthread_mutex_lock(&export->lock);
    export->taken -= count;
    if (export->emptied)
        pthread_cond_signal(&export->all_empty); /* of those who empty there is one */
    else
        give_seats(export);
    pthread_mutex_unlock(&export->lock);
}

/* The same for a connection's batches. */
static int sit_for(struct connection *connection, int count, int most)
{
    int got = sit(connection->export, count, most);
    __atomic_add_fetch(&connection->seated, got, __ATOMIC_RELAXED);
    return got;
}

static int sit_now_for(struct connection *connection, int most)
{
    int got = sit_now(connection->export, most);
    __atomic_add_fetch(&connection->seated, got, __ATOMIC_RELAXED);
    return got;
}

static void leave_for(struct connection *connection, int count)
{
    __atomic_sub_fetch(&connection->seated, count, __ATOMIC_RELAXED);
    leave(connection->export, count);
}

/* As of now: nobody else has something under way. */
static int is_only(struct connection *connection)
{
    return __atomic_load_n(&connection->export->taken, __ATOMIC_RELAXED) <=
           __atomic_load_n(&connection->seated, __ATOMIC_RELAXED);
}

void rf_sit(struct export *export)
{
    sit(export, 1, 1);
}

void rf_leave(struct export *export)
{
    leave(export, 1);
}

/* Returns 1 when nobody sits, and nobody can until `rf_fill`; 0 after the time, and all is as before. */
int rf_empty(struct export *export, int64_t wait_ms)
{
    struct timespec until = in_ns(wait_ms * 1000000);
    pthread_mutex_lock(&export->lock);
    export->emptied = 1;
    int timed_out = 0;
    while (export->taken > 0 && !timed_out)
        timed_out = pthread_cond_timedwait(&export->all_empty, &export->lock, &until) == ETIMEDOUT;
    int empty = export->taken == 0;
    if (!empty) {
        export->emptied = 0;
        give_seats(export);
    }
    pthread_mutex_unlock(&export->lock);
    return empty;
}

void rf_fill(struct export *export)
{
    pthread_mutex_lock(&export->lock);
    export->emptied = 0;
    give_seats(export);
    pthread_mutex_unlock(&export->lock);
}

/* -- authority and transfers ---------------------------------------------------- */

static uint64_t boottime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int gate_is_open(const struct export *export, uint64_t now_ns)
{
    for (int i = 0; i < export->page_count; i++)
        if (now_ns >= le64toh(__atomic_load_n(export->pages[i], __ATOMIC_SEQ_CST)))
            return 0;
    return export->page_count > 0;
}

static const struct extent *extent_at(const struct export *export, int64_t offset)
{
    int64_t low = 0, high = export->table_count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (export->table[middle].lv_start <= offset)
            low = middle;
        else
            high = middle;
    }
    return &export->table[low];
}

/* Where on a disk this byte of the volume lies, and how much of it lies behind one another there. */
static int64_t place(const struct export *export, int64_t offset, int *fd, int64_t *room)
{
    const struct extent *extent = extent_at(export, offset);
    int64_t chunk = (offset - extent->lv_start) / extent->stripe_bytes;
    int64_t inside = (offset - extent->lv_start) % extent->stripe_bytes;
    const struct stripe *stripe = &extent->stripes[chunk % extent->stripe_count];
    *fd = (int)stripe->fd;
    *room = extent->stripe_bytes - inside;
    return stripe->start + chunk / extent->stripe_count * extent->stripe_bytes + inside;
}

/* What is left of it.  Returns 0 or an errno; how much was transferred then is unknown. */
static int transfer(const struct export *export, const struct part *part, int64_t done)
{
    int flags = part->flags & FLAG_FUA ? RWF_DSYNC : 0;
    while (done < part->length) {
        int fd;
        int64_t room, left = part->length - done, at = place(export, (int64_t)part->offset + done, &fd, &room);
        struct iovec data = {part->payload + done, (size_t)(left < room ? left : room)};
        ssize_t moved = part->command == WRITE ? pwritev2(fd, &data, 1, at, flags)
                                               : preadv2(fd, &data, 1, at, 0);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0)
            return moved < 0 ? errno : EIO; /* the device ended before the LV */
        done += moved;
    }
    return 0;
}

static int is_usual(const struct export *export, const struct part *part)
{
    if (part->command == READ ? part->flags & ~(FLAG_FUA | FLAG_DF)
                              : !export->writes || part->flags & ~FLAG_FUA)
        return 0;
    uint64_t size = (uint64_t)export->size_bytes, block = (uint64_t)export->block_bytes;
    return part->length > 0 && part->length <= MAX_PAYLOAD_BYTES && part->length <= size &&
           part->offset <= size - part->length && (part->offset | part->length) % block == 0;
}

/* -- connections ------------------------------------------------------------------ */

struct connection *rf_connection_new(struct export *export, int sock, int structured)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return NULL;
    connection->export = export;
    connection->sock = sock;
    connection->structured = structured;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&connection->sending, NULL);
    pthread_mutex_init(&connection->lock, NULL);
    pthread_cond_init(&connection->turn, &monotonic);
    connection->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return connection;
}

/* What a caller's `struct lane` must have. */
int64_t rf_lane_bytes(void)
{
    return sizeof(struct lane);
}

/* No lane may be in it. */
void rf_connection_free(struct connection *connection)
{
    while (connection->batches != NULL) {
        struct batch *batch = connection->batches;
        connection->batches = batch->next_of_all;
        if (batch->aio)
            syscall(SYS_io_destroy, batch->aio);
        free(batch);
    }
    if (connection->news >= 0)
        close(connection->news);
    free(connection);
}

static int receive(int sock, void *into, size_t length)
{
    while (length > 0) {
        ssize_t got = recv(sock, into, length, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        into = (char *)into + got;
        length -= (size_t)got;
    }
    return 1;
}

/* Returns 1, or 0: the client is gone. */
static int send_all(struct connection *connection, struct iovec *data, size_t count)
{
    int sent = 1;
    pthread_mutex_lock(&connection->sending);
    while (count > 0) {
        struct msghdr message = {.msg_iov = data, .msg_iovlen = count};
        ssize_t went = sendmsg(connection->sock, &message, MSG_NOSIGNAL);
        if (went < 0 && errno == EINTR)
            continue;
        if (went <= 0) {
            sent = 0;
            break;
        }
        for (; count > 0 && (size_t)went >= data->iov_len; data++, count--)
            went -= (ssize_t)data->iov_len;
        if (count > 0) {
            data->iov_base = (char *)data->iov_base + went;
            data->iov_len -= (size_t)went;
        }
    }
    pthread_mutex_unlock(&connection->sending);
    return sent;
}

int rf_send(struct connection *connection, void *data, int64_t length)
{
    struct iovec all = {data, (size_t)length};
    return send_all(connection, &all, 1);
}

/* No lane receives anything from here on. */
void rf_end(struct connection *connection)
{
    pthread_mutex_lock(&connection->lock);
    connection->over = 1;
    pthread_cond_broadcast(&connection->turn);
    pthread_mutex_unlock(&connection->lock);
}

/* -- whose turn it is to receive ---------------------------------------------------- */

/* With the lock.  Returns 1 when it is ours, or 0: all is over.
 *
 * Who has its request and goes on alone wakes nobody, so one of those who wait is the guard: where no
 * request has come for a while and nobody receives, it is its turn.  Where somebody does, all is quiet, and
 * no guard is needed until the next request. */
static int take_turn(struct connection *connection)
{
    int guard = 0, wait = connection->receiving;
    while (wait && !connection->over) {
        uint64_t seen = connection->received;
        if (!guard && !connection->guarded)
            guard = connection->guarded = 1;
        struct timespec until = in_ns(GUARD_NS);
        connection->waiting++;
        int timed_out = guard && pthread_cond_timedwait(&connection->turn, &connection->lock, &until);
        if (timed_out && connection->received == seen && connection->receiving)
            guard = connection->guarded = timed_out = 0;
        if (!guard)
            pthread_cond_wait(&connection->turn, &connection->lock);
        connection->waiting--;
        wait = connection->receiving || (timed_out && connection->received != seen);
    }
    if (guard)
        connection->guarded = 0;
    connection->receiving = !connection->over;
    return connection->receiving;
}

/* With the lock. */
static void wake_one(struct connection *connection)
{
    if (connection->waiting > 0)
        pthread_cond_signal(&connection->turn);
}

/* What was received ahead, then what is still to come.  Returns 1, or 0: the client is gone. */
static int take(struct connection *connection, void *into, size_t length)
{
    size_t there = connection->end - connection->begin, now = length < there ? length : there;
    memcpy(into, connection->ahead + connection->begin, now);
    connection->begin += now;
    into = (char *)into + now;
    length -= now;
    if (length == 0)
        return 1;
    if (length >= SMALL_BYTES)
        return receive(connection->sock, into, length);
    connection->begin = connection->end = 0;
    struct pollfd readable = {.fd = connection->sock, .events = POLLIN};
    while (connection->end < length) {
        ssize_t got = recv(connection->sock, connection->ahead + connection->end,
                           AHEAD_BYTES - connection->end, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            poll(&readable, 1, -1); /* a recv that waits is woken by each reply that the client takes, too */
            continue;
        }
        if (got <= 0)
            return 0;
        connection->end += (size_t)got;
    }
    memcpy(into, connection->ahead, length);
    connection->begin = length;
    return 1;
}

/* Large transfers on small pages take the kernel longer than their data. */
static void make_huge(struct lane *lane)
{
    lane->batch->huge = 1;
    unsigned char *start = lane->payload - PAGE_BYTES;
    madvise(start, PAGE_BYTES + MAX_PAYLOAD_BYTES, MADV_HUGEPAGE);
    madvise(start, HUGE_BYTES, MADV_COLLAPSE); /* it may have small pages from small requests */
}

/* Returns 0: it is none. */
static int parse(const struct request *request, struct part *part)
{
    part->state = COME;
    part->error = 0;
    part->flags = be16toh(request->flags);
    part->command = be16toh(request->command);
    part->cookie = be64toh(request->cookie);
    part->offset = be64toh(request->offset);
    part->length = be32toh(request->length);
    return be32toh(request->magic) == REQUEST_MAGIC;
}

/* What Python has to do is better left to a lane of its own. */
static int may_go_together(const struct export *export, const struct part *part)
{
    int usual = part->command == READ ||
                (part->command == WRITE && __atomic_load_n(&export->writes, __ATOMIC_RELAXED));
    return usual && part->length <= SMALL_BYTES;
}

/* Returns 1: the head of the next request was received ahead, and it is small. */
static int is_small_next(const struct connection *connection, struct part *part)
{
    struct request request;
    if (connection->end - connection->begin < sizeof request)
        return 0;
    memcpy(&request, connection->ahead + connection->begin, sizeof request);
    return parse(&request, part) && may_go_together(connection->export, part);
}

/* In the socket. */
static size_t bytes_of(const struct part *part)
{
    return sizeof(struct request) + (part->command == WRITE ? part->length : 0);
}

/* Returns 1: the next request was received ahead, is whole, and small. */
static int take_small(struct connection *connection, struct part *part)
{
    if (!is_small_next(connection, part) || connection->end - connection->begin < bytes_of(part))
        return 0;
    memcpy(part->payload, connection->ahead + connection->begin + sizeof(struct request),
           bytes_of(part) - sizeof(struct request));
    connection->begin += bytes_of(part);
    return 1;
}

/* What stands in the socket; waits for nothing, for there are seats. */
static void take_ahead(struct connection *connection)
{
    connection->end -= connection->begin;
    memmove(connection->ahead, connection->ahead + connection->begin, connection->end);
    connection->begin = 0;
    if (connection->end == AHEAD_BYTES)
        return;
    ssize_t got = recv(connection->sock, connection->ahead + connection->end,
                       AHEAD_BYTES - connection->end, MSG_DONTWAIT);
    connection->end += got > 0 ? (size_t)got : 0;
    /* Whoever receives next sees that it is over; until then nobody waits for more. */
    connection->ended = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

/* Whose queue is deep sends several behind one another, and the first of them is seen before the others are there:
 * those are waited for, for less than it takes to wake a thread, and as long as they come. */
static void take_burst(struct connection *connection, struct batch *batch, size_t request_bytes)
{
    int deep = batch->under_way + batch->answered >= FEW;
    batch->answered = 0;
    for (int i = 0; deep && i < FEW; i++) {
        size_t there = connection->end - connection->begin;
        if (there >= FEW * request_bytes)
            return;
        uint64_t until_ns = boottime_ns() + BURST_NS;
        while (boottime_ns() < until_ns)
            ;
        take_ahead(connection);
        if (connection->end - connection->begin == there)
            return;
    }
}

static struct part *one_that(struct batch *batch, int state)
{
    for (struct part *part = batch->parts; part < batch->parts + SLOTS; part++)
        if ((int)part->state == state)
            return part;
    return NULL;
}

/* Of what was received ahead, what can go together with what has come. */
static void take_more(struct connection *connection, struct batch *batch, int most)
{
    struct part *part;
    while (batch->come < most && (part = one_that(batch, FREE)) != NULL) {
        if (!take_small(connection, part)) {
            part->state = FREE;
            return;
        }
        batch->come++;
    }
}

/* There are more than what has come: some more may have, meanwhile. */
static void fill_seats(struct connection *connection, struct batch *batch)
{
    take_ahead(connection);
    take_more(connection, batch, batch->seats);
    if (batch->seats > batch->come)
        leave_for(connection, batch->seats - batch->come);
    batch->seats = batch->come < batch->seats ? batch->come : batch->seats;
}

/* While others are under way: what stands in the socket by now, as far as there are slots and seats.
 *
 * Returns 1, or 0: what comes next is for another lane. */
static int take_meanwhile(struct connection *connection, struct batch *batch)
{
    struct part part;
    if (!gate_is_open(connection->export, boottime_ns()))
        return 0;
    if (batch->come == 0) {
        take_ahead(connection);
        if (batch->lone && is_small_next(connection, &part))
            take_burst(connection, batch, bytes_of(&part));
        take_more(connection, batch, batch->lone ? SLOTS : BATCH);
    }
    if (batch->come > 0)
        batch->seats = sit_now_for(connection, batch->come);
    return connection->end - connection->begin < sizeof(struct request) || is_small_next(connection, &part);
}

/* One at least, and what stands behind it where they can go together; such have seats then.
 *
 * Returns 1, or 0: the client is gone. */
static int take_requests(struct connection *connection, struct lane *lane)
{
    struct batch *batch = lane->batch;
    struct request request;
    struct part *first = batch->parts;
    if (!take(connection, &request, sizeof request) || !parse(&request, first) || first->command == DISC)
        return 0;
    if (first->length >= LARGE_BYTES && !batch->huge)
        make_huge(lane);
    if (first->command == WRITE && (first->length > MAX_PAYLOAD_BYTES ||
                                    !take(connection, first->payload, first->length)))
        return 0;
    batch->come = 1;
    if (!batch->alone && may_go_together(connection->export, first) &&
        gate_is_open(connection->export, boottime_ns())) { /* or each waits by itself */
        batch->lone = connection->news >= 0 && is_only(connection);
        if (batch->lone)
            take_burst(connection, batch, bytes_of(first));
        take_more(connection, batch, batch->lone ? SLOTS : BATCH);
        /* A quick disk costs less than to wait for more. */
        int most = batch->quick || batch->come > BATCH ? batch->come : BATCH;
        batch->seats = sit_for(connection, batch->come, most);
        if (batch->seats > batch->come)
            fill_seats(connection, batch);
    }
    return 1;
}

/* wake: another one is to receive at once, not the guard after a while. */
static void pass_turn(struct connection *connection, struct batch *batch, int wake)
{
    if (!batch->receives)
        return;
    batch->receives = 0;
    pthread_mutex_lock(&connection->lock);
    connection->receiving = 0;
    connection->received++;
    if (wake || !connection->guarded)
        wake_one(connection);
    pthread_mutex_unlock(&connection->lock);
}

/* Returns 1, or 0: all is over. */
static int receive_requests(struct connection *connection, struct lane *lane)
{
    struct batch *batch = lane->batch;
    pthread_mutex_lock(&connection->lock);
    if (batch->receives)
        connection->receiving = batch->receives = !connection->over;
    else
        batch->receives = take_turn(connection);
    pthread_mutex_unlock(&connection->lock);
    if (!batch->receives)
        return 0;
    if (!take_requests(connection, lane)) {
        rf_end(connection);
        pass_turn(connection, batch, 1);
        return 0;
    }
    if (batch->seats < 2 || batch->slow)
        pass_turn(connection, batch,
                  !(batch->quick || is_full(connection->export)) || batch->parts->length >= SMALL_BYTES);
    return 1;
}

/* -- answers ---------------------------------------------------------------------- */

struct heads {
    struct reply simple;
    struct data_chunk structured;
};

/* Of these; all are done, and well.  Returns 1, or 0: the client is gone. */
static int answer(struct connection *connection, struct part *const *parts, int count)
{
    struct heads heads[SLOTS];
    struct iovec data[2 * SLOTS];
    size_t pieces = 0;
    for (int i = 0; i < count; i++) {
        const struct part *part = parts[i];
        if (part->command == READ && connection->structured) {
            heads[i].structured = (struct data_chunk){
                htobe32(STRUCTURED_MAGIC), htobe16(CHUNK_DONE), htobe16(CHUNK_OFFSET_DATA),
                htobe64(part->cookie), htobe32(8 + part->length), htobe64(part->offset)};
            data[pieces++] = (struct iovec){&heads[i].structured, sizeof heads[i].structured};
        } else {
            heads[i].simple = (struct reply){htobe32(REPLY_MAGIC), 0, htobe64(part->cookie)};
            data[pieces++] = (struct iovec){&heads[i].simple, sizeof heads[i].simple};
        }
        if (part->command == READ)
            data[pieces++] = (struct iovec){part->payload, part->length};
    }
    return send_all(connection, data, pieces);
}

/* -- carrying out ------------------------------------------------------------------- */

/* Issue these together, but for those that lie in more than one place.  Returns how many are under way then. */
static int issue(const struct connection *connection, struct batch *batch, struct part *const *parts, int count)
{
    const struct export *export = connection->export;
    struct iocb *orders[SLOTS];
    int ready = 0;
    for (int i = 0; i < count; i++) {
        struct part *part = parts[i];
        int fd, slot = (int)(part - batch->parts), writes = part->command == WRITE;
        int64_t room, at = place(export, (int64_t)part->offset, &fd, &room);
        if (room < part->length)
            continue;
        batch->orders[slot] = (struct iocb){
            .aio_data = (uint64_t)slot,
            .aio_fildes = (uint32_t)fd,
            .aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
            .aio_rw_flags = writes && part->flags & FLAG_FUA ? RWF_DSYNC : 0,
            .aio_buf = (uint64_t)part->payload,
            .aio_nbytes = part->length,
            .aio_offset = at,
            .aio_flags = batch->lone ? IOCB_FLAG_RESFD : 0,
            .aio_resfd = batch->lone ? (uint32_t)connection->news : 0,
        };
        orders[ready++] = &batch->orders[slot];
    }
    if (batch->alone || ready + batch->under_way < 2)
        return 0;
    long issued = syscall(SYS_io_submit, batch->aio, (long)ready, orders);
    for (long i = 0; i < issued; i++)
        batch->parts[orders[i]->aio_data].state = UNDER_WAY;
    return issued < 0 ? 0 : (int)issued;
}

/* For the lane that receives, and is lone: wait until something that was issued is done, or something stands in the
 * socket that it could begin with.  Returns 0: nothing of the kind for long. */
static int look_out(struct connection *connection, struct batch *batch)
{
    struct pollfd either[] = {{.fd = connection->news, .events = POLLIN}, {.fd = connection->sock, .events = POLLIN}};
    int room = batch->come == 0 && batch->left == 0 && !connection->ended && one_that(batch, FREE) != NULL &&
               connection->end - connection->begin < AHEAD_BYTES;
    struct timespec patience = {0, PATIENCE_NS};
    uint64_t times;
    int found = ppoll(either, room ? 2 : 1, &patience, NULL);
    if (either[0].revents)
        found += read(connection->news, &times, sizeof times) < 0; /* read by another lane: one look too many */
    return found != 0;
}

/* Take those that are done.  least: wait for so many.  for_ns: and so long for the others; 0: not at all.  Returns
 * how many they are. */
static int await_some(const struct export *export, struct batch *batch, long least, int64_t for_ns)
{
    struct io_event done[SLOTS];
    struct timespec moment = {0, for_ns};
    long all = batch->under_way, count = 0;
    if (least > 0) {
        do
            count = syscall(SYS_io_getevents, batch->aio, least, all, done, NULL);
        while (count < 0 && errno == EINTR);
        count = count < 0 ? 0 : count;
    }
    if (count < all) {
        long rest = syscall(SYS_io_getevents, batch->aio, for_ns ? all - count : 0, all - count, done + count, &moment);
        count += rest > 0 ? rest : 0;
    }
    for (long i = 0; i < count; i++) {
        struct part *part = &batch->parts[done[i].data];
        part->state = DONE;
        part->error = done[i].res < 0 ? (int32_t)-done[i].res : transfer(export, part, done[i].res);
    }
    batch->under_way -= (int)count;
    return (int)count;
}

/* A bit for whether it took little time since they were begun. */
static void note_quick(struct batch *batch)
{
    uint64_t took_ns = boottime_ns() - batch->begun_ns;
    batch->last = batch->last << 1 | (took_ns < QUICK_NS);
    batch->quick = __builtin_popcount(batch->last & 0xff) > 4;
    batch->slow = took_ns >= PATIENCE_NS;
}

/* For those that are done, each on its seat: check again, leave the seat, answer. */
static void finish(struct connection *connection, struct batch *batch, int done)
{
    struct export *export = connection->export;
    int in_time = gate_is_open(export, boottime_ns()), count = 0;
    leave_for(connection, done);
    struct part *well[SLOTS];
    for (struct part *part = batch->parts; part < batch->parts + SLOTS; part++) {
        if (part->state != DONE)
            continue;
        if (part->command == WRITE && !in_time)
            part->state = WENT_LATE;
        else
            part->state = part->error ? WENT_WRONG : FREE;
        if (part->state == FREE)
            well[count++] = part;
        else
            batch->left++;
    }
    batch->answered += count;
    if (count > 0 && !answer(connection, well, count))
        rf_end(connection);
}

static void leave_to_python(struct batch *batch, struct part *part)
{
    part->state = LEFT;
    batch->come--;
    batch->left++;
}

/* Of those that have come: begin with as many as there are seats for. */
static void begin(struct connection *connection, struct batch *batch)
{
    struct export *export = connection->export;
    struct part *usual[SLOTS], *part = one_that(batch, COME);
    int seats = batch->seats, count = 0;
    batch->seats = 0;
    if (seats == 0) {
        if ((part->command != READ && part->command != WRITE) || !gate_is_open(export, boottime_ns())) {
            leave_to_python(batch, part);
            return;
        }
        seats = sit_for(connection, batch->come, batch->come);
    }
    for (; part < batch->parts + SLOTS && count < seats; part++) {
        if (part->state == COME && is_usual(export, part))
            usual[count++] = part;
        else if (part->state == COME)
            leave_to_python(batch, part);
    }
    if (count > 1 && !batch->aio && !batch->alone)
        batch->alone = syscall(SYS_io_setup, (unsigned)SLOTS, &batch->aio) < 0; /* fs.aio-max-nr is reached */
    batch->begun_ns = boottime_ns();
    if (!gate_is_open(export, batch->begun_ns)) { /* it may have waited for its seat */
        while (count > 0)
            leave_to_python(batch, usual[--count]);
    }
    int begun = count > 0 ? issue(connection, batch, usual, count) : 0;
    batch->under_way += begun;
    if (begun > 0)
        batch->look_ns = LOOK_NS;
    if (begun == 0 && count > 0 && batch->under_way == 0) {
        pass_turn(connection, batch, !batch->quick);
        usual[0]->error = transfer(export, usual[0], 0);
        usual[0]->state = DONE;
        begun = 1;
        note_quick(batch);
    }
    batch->come -= begun;
    if (seats > begun)
        leave_for(connection, seats - begun);
    if (begun == 1 && batch->under_way == 0)
        finish(connection, batch, 1);
}

/* Those that are done; as `await_some`. */
static int take_done(struct connection *connection, struct batch *batch, long least, int64_t for_ns)
{
    int done = await_some(connection->export, batch, least, for_ns);
    if (done > 0) {
        note_quick(batch);
        finish(connection, batch, done);
    }
    return done;
}

/* There are some under way: see to those that are done, and to what stands in the socket. */
static void go_on(struct connection *connection, struct batch *batch)
{
    if (!batch->receives) {
        take_done(connection, batch, 1, MOMENT_NS);
        return;
    }
    batch->lone = batch->lone && is_only(connection); /* what is under way may not tell: it does not become so here */
    if (!batch->lone)
        batch->look_ns = take_done(connection, batch, 0, batch->look_ns) > 0 ? LOOK_NS : 2 * batch->look_ns;
    int goes_on = (batch->lone || batch->look_ns < PATIENCE_NS) &&
                  (batch->left > 0 || take_meanwhile(connection, batch));
    if (goes_on && batch->lone && !(batch->come > 0 && batch->seats > 0)) {
        goes_on = look_out(connection, batch);
        take_done(connection, batch, 0, 0);
    }
    if (!goes_on)
        pass_turn(connection, batch, 1);
}

static int hand_over(struct lane *lane, struct part *part, int state, int what)
{
    if (part->state == LEFT && part->command == WRITE && part->payload != lane->payload)
        memcpy(lane->payload, part->payload, part->length); /* of the one there nothing is needed any more */
    lane->batch->left -= state == FREE;
    lane->cookie = part->cookie;
    lane->offset = part->offset;
    lane->length = part->length;
    lane->flags = part->flags;
    lane->command = part->command;
    lane->error = part->error;
    part->state = state;
    return what;
}

/* Returns what Python must do next, or -1: all is answered.  What went late is told at once; nothing is under
 * way while Python does what may take long. */
static int carry_on(struct connection *connection, struct lane *lane)
{
    struct batch *batch = lane->batch;
    struct part *part;
    for (;;) {
        if (batch->left > 0 && (part = one_that(batch, WENT_LATE)) != NULL)
            return hand_over(lane, part, TOLD_LATE, LATE);
        if (batch->come > 0 && (batch->seats > 0 || batch->under_way == 0))
            begin(connection, batch);
        else if (batch->under_way > 0)
            go_on(connection, batch);
        else
            break;
    }
    if (batch->left == 0)
        return -1;
    if ((part = one_that(batch, LEFT)) != NULL)
        return hand_over(lane, part, FREE, ASKED);
    if ((part = one_that(batch, WENT_WRONG)) != NULL)
        return hand_over(lane, part, FREE, FAILED);
    return hand_over(lane, one_that(batch, TOLD_LATE), FREE, TOLD);
}

static int has_batch(struct connection *connection, struct lane *lane)
{
    if (lane->batch != NULL)
        return 1;
    struct batch *batch = lane->batch = calloc(1, sizeof *batch);
    if (batch == NULL)
        return 0;
    for (int i = 0; i < SLOTS; i++)
        batch->parts[i].payload = lane->payload + i * SMALL_BYTES;
    pthread_mutex_lock(&connection->lock);
    batch->next_of_all = connection->batches;
    connection->batches = batch;
    pthread_mutex_unlock(&connection->lock);
    return 1;
}

/* Serve until something unusual comes, and return what. */
int rf_serve(struct connection *connection, struct lane *lane)
{
    if (!has_batch(connection, lane)) {
        rf_end(connection);
        return OVER;
    }
    int what;
    while ((what = carry_on(connection, lane)) < 0)
        if (!receive_requests(connection, lane))
            return OVER;
    /* What Python does may take long: somebody receives meanwhile. */
    if (lane->batch->receives) {
        pass_turn(connection, lane->batch, 1);
        return what;
    }
    pthread_mutex_lock(&connection->lock);
    if (!connection->receiving)
        wake_one(connection);
    pthread_mutex_unlock(&connection->lock);
    return what;
}

/* The usual case of `connection.py`, without the interpreter: a READ or WRITE under valid authority.
 *
 * Each lane of a connection is a thread that calls `rf_serve`.  It receives a request, checks the authority
 * pages, transfers, checks again, replies, and so on, until something comes that is not usual; that it
 * returns to Python, which does what the same lane without this file does.  So this decides nothing:
 *
 *     ASKED   received, and nothing done about it: authority is not valid, or it is another command,
 *             or nonsense that wants an error
 *     FAILED  carried out; `error` is why not
 *     LATE    a write was carried out (or failed: `error`), and authority has ended since the check
 *     OVER    the client is gone, or talks nonsense
 *
 * Nothing is known here of what a page means but this: while CLOCK_BOOTTIME is below all of them, go
 * (host/pages.py).
 *
 * One lane of a connection receives at a time, and takes from the socket whatever is there: requests that
 * stand behind one another cost one system call.  A lane that has its request wakes another one to receive
 * the next, for a transfer may take long.  Only where the last one was quick it goes on alone, and answers
 * several writes with one message; a guard then looks now and then whether it still does.
 *
 * Loaded by fastpath.py, which has the same names. */

#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { ASKED, FAILED, LATE, OVER };
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
#define QUICK_NS 30000u         /* a transfer; to wake another lane takes a tenth of it */
#define GUARD_NS 2000000
#define LARGE_BYTES (256u << 10) /* from here on huge pages are worth their memory */
#define HUGE_BYTES (2u << 20)
enum { OWED = 8 }; /* answers that may wait for one another */

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

struct export {
    pthread_mutex_t lock;
    pthread_cond_t seat_free, all_empty;
    int seats, taken, waiting, emptied;
    const uint64_t *pages[MAX_PAGES];
    int page_count;
    /* What is served; changed only while all seats are empty. */
    const struct extent *table;
    int64_t table_count, size_bytes, block_bytes;
    int writes; /* whether they are done here */
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
    /* With the lock: writes that are done and checked, and whose answers wait for one another. */
    struct reply owing[OWED];
    int owed;
    uint64_t owed_ns; /* since when the first of them does */
    /* Of the lane that receives: what it received ahead; of it, for others to look at: how much. */
    size_t begin, end, left;
    unsigned char ahead[AHEAD_BYTES];
};

struct lane {
    unsigned char *payload; /* on a page boundary, with a page of room in front */
    uint64_t cookie, offset;
    uint32_t length;
    uint16_t flags, command;
    int32_t error;
    /* From here on nobody else's business. */
    int32_t quick; /* most of its last eight transfers were; a bit of `last` for each */
    uint32_t last;
    int32_t huge;
};

/* -- seats -------------------------------------------------------------------- */

struct export *rf_export_new(int seats)
{
    struct export *export = calloc(1, sizeof *export);
    if (export == NULL)
        return NULL;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&export->lock, NULL);
    pthread_cond_init(&export->seat_free, NULL);
    pthread_cond_init(&export->all_empty, &monotonic);
    export->seats = seats;
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

/* Only while all seats are empty, or before anybody serves. */
void rf_table(struct export *export, const struct extent *table, int64_t count, int64_t size_bytes,
              int64_t block_bytes, int writes)
{
    export->table = table;
    export->table_count = count;
    export->size_bytes = size_bytes;
    export->block_bytes = block_bytes;
    export->writes = writes;
}

void rf_sit(struct export *export)
{
    pthread_mutex_lock(&export->lock);
    export->waiting++;
    while (export->emptied || export->taken >= export->seats)
        pthread_cond_wait(&export->seat_free, &export->lock);
    export->waiting--;
    export->taken++;
    pthread_mutex_unlock(&export->lock);
}

void rf_leave(struct export *export)
{
    pthread_mutex_lock(&export->lock);
    export->taken--;
    if (export->emptied)
        pthread_cond_signal(&export->all_empty); /* of those who empty there is one */
    else if (export->waiting > 0)
        pthread_cond_signal(&export->seat_free);
    pthread_mutex_unlock(&export->lock);
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
        pthread_cond_broadcast(&export->seat_free);
    }
    pthread_mutex_unlock(&export->lock);
    return empty;
}

void rf_fill(struct export *export)
{
    pthread_mutex_lock(&export->lock);
    export->emptied = 0;
    pthread_cond_broadcast(&export->seat_free);
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

/* Returns 0 or an errno; how much was transferred then is unknown. */
static int transfer(const struct export *export, const struct lane *lane)
{
    unsigned char *data = lane->payload;
    int64_t offset = (int64_t)lane->offset, left = lane->length;
    int flags = lane->flags & FLAG_FUA ? RWF_DSYNC : 0;
    while (left > 0) {
        const struct extent *extent = extent_at(export, offset);
        int64_t chunk = (offset - extent->lv_start) / extent->stripe_bytes;
        int64_t inside = (offset - extent->lv_start) % extent->stripe_bytes;
        const struct stripe *stripe = &extent->stripes[chunk % extent->stripe_count];
        int64_t at = stripe->start + chunk / extent->stripe_count * extent->stripe_bytes + inside;
        int64_t room = extent->stripe_bytes - inside;
        struct iovec part = {data, (size_t)(left < room ? left : room)};
        ssize_t moved = lane->command == WRITE ? pwritev2((int)stripe->fd, &part, 1, at, flags)
                                               : preadv2((int)stripe->fd, &part, 1, at, 0);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0)
            return moved < 0 ? errno : EIO; /* the device ended before the LV */
        data += moved;
        offset += moved;
        left -= moved;
    }
    return 0;
}

static int is_usual(const struct export *export, const struct lane *lane)
{
    if (lane->command == READ ? lane->flags & ~(FLAG_FUA | FLAG_DF)
                              : !export->writes || lane->flags & ~FLAG_FUA)
        return 0;
    uint64_t size = (uint64_t)export->size_bytes, block = (uint64_t)export->block_bytes;
    return lane->length > 0 && lane->length <= MAX_PAYLOAD_BYTES && lane->length <= size &&
           lane->offset <= size - lane->length && (lane->offset | lane->length) % block == 0;
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
int rf_send(struct connection *connection, const void *data, int64_t length)
{
    int sent = 1;
    pthread_mutex_lock(&connection->sending);
    while (length > 0) {
        ssize_t went = send(connection->sock, data, (size_t)length, MSG_NOSIGNAL);
        if (went < 0 && errno == EINTR)
            continue;
        if (went <= 0) {
            sent = 0;
            break;
        }
        data = (const char *)data + went;
        length -= went;
    }
    pthread_mutex_unlock(&connection->sending);
    return sent;
}

/* No lane receives anything from here on. */
void rf_end(struct connection *connection)
{
    pthread_mutex_lock(&connection->lock);
    connection->over = 1;
    pthread_cond_broadcast(&connection->turn);
    pthread_mutex_unlock(&connection->lock);
}

/* -- answers ---------------------------------------------------------------------- */

/* Send what is owed.  Returns 1, or 0: the client is gone. */
static int pay(struct connection *connection)
{
    struct reply owing[OWED];
    pthread_mutex_lock(&connection->lock);
    size_t length = (size_t)connection->owed * sizeof *owing;
    memcpy(owing, connection->owing, length);
    connection->owed = 0;
    pthread_mutex_unlock(&connection->lock);
    return length == 0 || rf_send(connection, owing, (int64_t)length);
}

static int answer_read(struct connection *connection, struct lane *lane)
{
    if (!pay(connection))
        return 0;
    if (connection->structured) {
        struct data_chunk head = {htobe32(STRUCTURED_MAGIC), htobe16(CHUNK_DONE), htobe16(CHUNK_OFFSET_DATA),
                                  htobe64(lane->cookie), htobe32(8 + lane->length), htobe64(lane->offset)};
        memcpy(lane->payload - sizeof head, &head, sizeof head);
        return rf_send(connection, lane->payload - sizeof head, (int64_t)sizeof head + lane->length);
    }
    struct reply head = {htobe32(REPLY_MAGIC), 0, htobe64(lane->cookie)};
    memcpy(lane->payload - sizeof head, &head, sizeof head);
    return rf_send(connection, lane->payload - sizeof head, (int64_t)sizeof head + lane->length);
}

/* It may wait for the next one's, where that is a matter of a moment: a lane that may have to wait itself pays
 * first, and if a transfer is not quick for once, the guard does. */
static int answer_write(struct connection *connection, struct lane *lane, uint64_t now_ns)
{
    struct reply head = {htobe32(REPLY_MAGIC), 0, htobe64(lane->cookie)};
    pthread_mutex_lock(&connection->lock);
    int room = connection->owed < OWED;
    if (room) {
        if (connection->owed == 0)
            connection->owed_ns = now_ns;
        connection->owing[connection->owed++] = head;
    }
    int waits = lane->quick && connection->owed < OWED && now_ns - connection->owed_ns < QUICK_NS &&
                __atomic_load_n(&connection->left, __ATOMIC_RELAXED) > 0;
    pthread_mutex_unlock(&connection->lock);
    if (waits)
        return 1;
    return pay(connection) && (room || rf_send(connection, &head, sizeof head));
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

/* Before a lane does something that may take long: somebody receives meanwhile. */
static void relieve(struct connection *connection)
{
    pthread_mutex_lock(&connection->lock);
    if (!connection->receiving)
        wake_one(connection);
    pthread_mutex_unlock(&connection->lock);
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
    if (!pay(connection)) /* the client may wait for that before it goes on */
        return 0;
    if (length >= SMALL_BYTES)
        return receive(connection->sock, into, length);
    connection->begin = connection->end = 0;
    while (connection->end < length) {
        ssize_t got = recv(connection->sock, connection->ahead + connection->end,
                           AHEAD_BYTES - connection->end, 0);
        if (got < 0 && errno == EINTR)
            continue;
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
    lane->huge = 1;
    unsigned char *start = lane->payload - PAGE_BYTES;
    madvise(start, PAGE_BYTES + MAX_PAYLOAD_BYTES, MADV_HUGEPAGE);
#ifdef MADV_COLLAPSE
    madvise(start, HUGE_BYTES, MADV_COLLAPSE); /* it may have small pages from small requests */
#endif
}

static int take_request(struct connection *connection, struct lane *lane)
{
    struct request request;
    if (!take(connection, &request, sizeof request) || be32toh(request.magic) != REQUEST_MAGIC)
        return 0;
    lane->flags = be16toh(request.flags);
    lane->command = be16toh(request.command);
    lane->cookie = be64toh(request.cookie);
    lane->offset = be64toh(request.offset);
    lane->length = be32toh(request.length);
    if (lane->command == DISC)
        return 0;
    if (lane->length >= LARGE_BYTES && !lane->huge)
        make_huge(lane);
    return lane->command != WRITE || (lane->length <= MAX_PAYLOAD_BYTES &&
                                      take(connection, lane->payload, lane->length));
}

/* Returns 1, or 0: all is over. */
static int receive_request(struct connection *connection, struct lane *lane)
{
    pthread_mutex_lock(&connection->lock);
    if (connection->receiving && connection->owed > 0) {
        pthread_mutex_unlock(&connection->lock);
        pay(connection); /* that the client is gone shows when we receive */
        pthread_mutex_lock(&connection->lock);
    }
    int ours = take_turn(connection);
    pthread_mutex_unlock(&connection->lock);
    if (!ours)
        return 0;
    int received = take_request(connection, lane);
    size_t left = connection->end - connection->begin;
    __atomic_store_n(&connection->left, left, __ATOMIC_RELAXED);
    pthread_mutex_lock(&connection->lock);
    connection->receiving = 0;
    connection->received++;
    if (!received) {
        connection->over = 1;
        pthread_cond_broadcast(&connection->turn);
    } else if (!lane->quick || lane->length >= SMALL_BYTES || !connection->guarded)
        wake_one(connection);
    pthread_mutex_unlock(&connection->lock);
    if (lane->length >= SMALL_BYTES) /* nothing waits for what takes long */
        pay(connection);
    return received;
}

static int carry_out(struct connection *connection, struct lane *lane)
{
    struct export *export = connection->export;
    if ((lane->command != READ && lane->command != WRITE) || !gate_is_open(export, boottime_ns()))
        return ASKED;
    rf_sit(export);
    uint64_t begun_ns = boottime_ns();
    if (!is_usual(export, lane) || !gate_is_open(export, begun_ns)) { /* it may have waited for its seat */
        rf_leave(export);
        return ASKED;
    }
    lane->error = transfer(export, lane);
    uint64_t done_ns = boottime_ns();
    int late = lane->command == WRITE && !gate_is_open(export, done_ns);
    rf_leave(export);
    lane->last = lane->last << 1 | (done_ns - begun_ns < QUICK_NS);
    lane->quick = __builtin_popcount(lane->last & 0xff) > 4;
    if (late)
        return LATE;
    if (lane->error)
        return FAILED;
    if (lane->command == READ ? answer_read(connection, lane) : answer_write(connection, lane, done_ns))
        return -1;
    rf_end(connection);
    return OVER;
}

/* Serve until something unusual comes, and return what. */
int rf_serve(struct connection *connection, struct lane *lane)
{
    int what;
    do
        what = receive_request(connection, lane) ? carry_out(connection, lane) : OVER;
    while (what < 0);
    if (!pay(connection))
        rf_end(connection);
    if (what != OVER)
        relieve(connection);
    return what;
}

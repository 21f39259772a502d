/* Records: what a socket with keys in the kernel does that a TCP socket does not (net/tls/tls_sw.c).
 *
 * A plain read meets a control record as EIO, again and again, until somebody takes it with recvmsg() and room for one
 * control message. We take it into the program's own buffer: if another thread was quicker and it is data after all, it is
 * simply what this read returns, so no byte is ever lost. The read is done again inside the same call, because an
 * edge-triggered poller gets no second event.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "real.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

enum { ALERT = 21, HANDSHAKE = 22, DATA = 23 };                      /* RFC 8446 section 5.1 */
enum { CLOSE_NOTIFY = 0, USER_CANCELED = 90, WARNING = 1 };          /* RFC 8446 section 6 */
enum { HELLO_REQUEST = 0, NEW_SESSION_TICKET = 4, KEY_UPDATE = 24 }; /* RFC 8446 section 4, RFC 5246 section 7.4 */
enum { REKEY_WAIT_MS = 10000, CONTROL_MAX_ROUNDS = 20000 /* a record may come a byte at a time */ };

/* Taking a control record is two steps for a reader that only looks (MSG_PEEK): between them nobody else may take it, or
 * the second step would take data. Held for a few calls that never block, with signals blocked: a handler may read too. */
enum { LOCKS = 256 };
static atomic_bool locks[LOCKS];

static void lock_taking(int fd, sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
    while (atomic_exchange_explicit(&locks[fd % LOCKS], true, memory_order_acquire))
        sched_yield();
}

static void unlock_taking(int fd, const sigset_t *before)
{
    int saved = errno;
    atomic_store_explicit(&locks[fd % LOCKS], false, memory_order_release);
    pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = saved;
}

struct taken {
    int type;
    bool whole; /* the record's last byte is in */
    unsigned char head[8];
};

/* One recvmsg with room for the record type. Returns its result; fills `taken`. */
static ssize_t take(const struct reading *reading, int flags, struct taken *taken)
{
    union {
        char space[CMSG_SPACE(sizeof(unsigned char))];
        struct cmsghdr align;
    } control;
    struct msghdr header = {
        .msg_iovlen = (size_t)reading->count, .msg_control = control.space, .msg_controllen = sizeof control.space};
    memcpy(&header.msg_iov, &reading->iov, sizeof header.msg_iov);
    ssize_t got = real(recvmsg)(reading->fd, &header, flags);
    taken->type = DATA;
    taken->whole = (header.msg_flags & MSG_EOR) != 0;
    if (got < 0)
        return got;
    struct cmsghdr *message = CMSG_FIRSTHDR(&header);
    if (message && message->cmsg_level == SOL_TLS && message->cmsg_type == TLS_GET_RECORD_TYPE)
        taken->type = *CMSG_DATA(message);
    return got;
}

/* The record's first bytes, wherever the program's buffers put them. */
static size_t gather(const struct reading *reading, ssize_t got, size_t have, struct taken *taken)
{
    size_t left = (size_t)got;
    for (int i = 0; i < reading->count && left > 0; i++) {
        size_t part = reading->iov[i].iov_len < left ? reading->iov[i].iov_len : left;
        for (size_t j = 0; j < part && have < sizeof taken->head; j++)
            taken->head[have++] = ((const unsigned char *)reading->iov[i].iov_base)[j];
        left -= part;
    }
    return have;
}

static ssize_t final_error(int fd, int error)
{
    slot_t slot = slot_of(fd);
    if (slot_state(slot) == KERNEL && slot_errno(slot) == 0) {
        slot_set(fd, with_errno(slot, error));
        gate_mark(hidden(fd), "err", error);
    }
    errno = error;
    return -1;
}

static void end_of_file(int fd)
{
    slot_flag(fd, SEEN_EOF);
    gate_mark(hidden(fd), "eof", 0);
}

static void tell_key_update(int fd, unsigned char request)
{
    const char message[LEASH_MESSAGE] = {'U', (char)request, 0, 0};
    slot_flag(fd, REKEYING);
    gate_tell(hidden(fd), message);
}

/* In TLS 1.3 every alert but close_notify and user_canceled is fatal, whatever level it says (RFC 8446 section 6.2). */
static bool is_tls13(int fd)
{
    struct tls_crypto_info info = {0}; /* version and cipher only: the key stays in the kernel */
    socklen_t length = sizeof info;
    return real(getsockopt)(fd, SOL_TLS, TLS_RX, &info, &length) != 0 || info.version == TLS_1_3_VERSION;
}

/* What an alert means: 1 go on reading, 0 end of file, -1 error. */
static int on_alert(int fd, const struct taken *taken, size_t have)
{
    if (have >= 2 && taken->head[1] == CLOSE_NOTIFY) {
        end_of_file(fd);
        return 0;
    }
    if (have >= 2 && (taken->head[1] == USER_CANCELED || (taken->head[0] == WARNING && !is_tls13(fd))))
        return 1;
    return (int)final_error(fd, ECONNRESET);
}

static int on_handshake(int fd, const struct taken *taken, size_t have)
{
    unsigned char type = have ? taken->head[0] : 0xff;
    if (type == NEW_SESSION_TICKET || type == HELLO_REQUEST)
        return 1;
    if (type == KEY_UPDATE && (slot_of(fd) & CAN_REKEY)) {
        tell_key_update(fd, have >= 5 ? taken->head[4] : 2);
        return 1;
    }
    return (int)final_error(fd, EPROTO); /* what follows cannot be decrypted, or only the agent could answer it */
}

/* Takes one control record, whole. Returns the length of data met instead (> 0), else as on_alert. *outcome says which. */
static ssize_t take_control(const struct reading *reading, bool *is_data)
{
    struct taken taken = {0};
    size_t have = 0;
    *is_data = false;
    for (int round = 0; round < CONTROL_MAX_ROUNDS; round++) {
        int type = taken.type;
        ssize_t got = take(reading, (reading->flags & ~MSG_PEEK) | MSG_DONTWAIT, &taken);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && round > 0 && errno == EAGAIN)
            taken.whole = true, taken.type = type; /* another thread took the rest */
        else if (got < 0)
            return -1;
        else if (taken.type == DATA) {
            *is_data = got > 0;
            return got > 0 ? got : 1;
        }
        if (got > 0)
            have = gather(reading, got, have, &taken);
        if (taken.whole || got <= 0)
            return taken.type == ALERT       ? on_alert(reading->fd, &taken, have)
                   : taken.type == HANDSHAKE ? on_handshake(reading->fd, &taken, have)
                                             : final_error(reading->fd, EPROTO);
    }
    return final_error(reading->fd, EPROTO);
}

/* A program that only looks (MSG_PEEK) must not lose data to our taking: look at the type first, take into scratch. */
static ssize_t take_for_peek(const struct reading *reading, bool *is_data)
{
    struct taken taken = {0};
    char scratch[512];
    struct iovec iov = {.iov_base = scratch, .iov_len = sizeof scratch};
    struct reading aside = {.fd = reading->fd, .iov = &iov, .count = 1};
    ssize_t got = take(reading, reading->flags | MSG_DONTWAIT, &taken);
    *is_data = got > 0 && taken.type == DATA;
    if (got <= 0 || *is_data)
        return got;
    ssize_t next = take_control(&aside, is_data);
    *is_data = false;
    return next;
}

static void pause_ms(long count)
{
    const struct timespec moment = {.tv_sec = count / 1000, .tv_nsec = count % 1000 * 1000000};
    nanosleep(&moment, NULL);
}

/* A KeyUpdate of ours is one record, then new keys; a record of the program between them would be garbage to the peer.
 * The agent leaves our message in the leash until both are done. */
bool record_rekeyed(int fd)
{
    int saved = errno;
    for (int waited = 0; waited < REKEY_WAIT_MS; waited++) {
        int unread = 0;
        if (real(ioctl)(hidden(fd), SIOCOUTQ, &unread) != 0 || unread == 0) {
            slot_unflag(fd, REKEYING);
            errno = saved;
            return true;
        }
        pause_ms(1);
    }
    errno = EPROTO;
    return false;
}

static int is_broken(int error) { return error == EBADMSG || error == EMSGSIZE || error == EINVAL; }

/* New keys are on their way from the agent (RFC 8446 section 4.6.3). A non-blocking reader is woken when they are in. */
static bool wait_for_keys(const struct reading *reading, int *waited)
{
    if ((reading->flags & MSG_DONTWAIT) || (real(fcntl)(reading->fd, F_GETFL) & O_NONBLOCK)) {
        errno = EAGAIN;
        return false;
    }
    if (*waited >= REKEY_WAIT_MS) {
        final_error(reading->fd, EPROTO);
        return false;
    }
    pause_ms(1);
    (*waited)++;
    return true;
}

size_t wanted(const struct reading *reading)
{
    size_t total = 0;
    for (int i = 0; i < reading->count; i++)
        total += reading->iov[i].iov_len;
    return total;
}

ssize_t read_real(const struct reading *reading)
{
    if (reading->flags == 0 && wanted(reading) > 0)
        return reading->count == 1 ? real(read)(reading->fd, reading->iov->iov_base, reading->iov->iov_len)
                                   : real(readv)(reading->fd, reading->iov, reading->count);
    struct msghdr header = {.msg_iovlen = (size_t)reading->count};
    memcpy(&header.msg_iov, &reading->iov, sizeof header.msg_iov);
    return real(recvmsg)(reading->fd, &header, reading->flags);
}

/* Data and a KeyUpdate met in one read leave poll silent for ever (tls_sk_poll, key_update_pending): look behind it.
 * `got` bytes are in, with room left; what turns out to be data goes on in the program's buffer. */
static ssize_t look_behind(const struct reading *reading, ssize_t got)
{
    struct taken taken = {0};
    char byte;
    struct iovec place = {.iov_base = &byte, .iov_len = 1};
    struct reading ahead = {.fd = reading->fd, .iov = &place, .count = 1};
    int saved = errno;
    sigset_t before;
    lock_taking(reading->fd, &before);
    if (take(&ahead, MSG_PEEK | MSG_DONTWAIT, &taken) == 1 && taken.type == HANDSHAKE) {
        size_t skip = (size_t)got;
        int i = 0;
        while (skip >= reading->iov[i].iov_len)
            skip -= reading->iov[i++].iov_len;
        place.iov_base = (char *)reading->iov[i].iov_base + skip;
        place.iov_len = reading->iov[i].iov_len - skip;
        bool is_data;
        ssize_t more = take_control(&ahead, &is_data);
        got += is_data ? more : 0;
    }
    unlock_taking(reading->fd, &before);
    errno = saved;
    return got;
}

static ssize_t at_end(int fd)
{
    slot_t slot = slot_of(fd) | gate_marks(hidden(fd));
    if ((slot & (SEEN_EOF | SHUT_READ)) || !(slot & STRICT_EOF))
        return 0;
    if (gate_relay_end(fd) == 0) { /* the agent has ended it in order (docs/protocol.md, The leash) */
        slot_flag(fd, SEEN_EOF | SHUT_WRITE);
        return 0;
    }
    return final_error(fd, slot_errno(slot) ? slot_errno(slot) : ECONNRESET);
}

ssize_t record_finish(const struct reading *reading, ssize_t got)
{
    int waited = 0;
    size_t want = wanted(reading);
    for (int round = 0; round < CONTROL_MAX_ROUNDS; round++) {
        if (got > 0) {
            if (slot_of(reading->fd) & TICKETS_DUE)
                slot_unflag(reading->fd, TICKETS_DUE);
            bool look = (slot_of(reading->fd) & CAN_REKEY) && (size_t)got < want && !(reading->flags & MSG_PEEK) &&
                        !sandboxed();
            return look ? look_behind(reading, got) : got;
        }
        if (got == 0)
            return want == 0 ? 0 : at_end(reading->fd);
        if (errno == EKEYEXPIRED) {
            if (!wait_for_keys(reading, &waited))
                return -1;
        } else if (errno == EIO) {
            bool is_data;
            sigset_t before;
            lock_taking(reading->fd, &before);
            ssize_t next =
                reading->flags & MSG_PEEK ? take_for_peek(reading, &is_data) : take_control(reading, &is_data);
            unlock_taking(reading->fd, &before);
            if (is_data || next == 0)
                return next;
            if (next < 0 && errno != EAGAIN && errno != EIO && errno != EKEYEXPIRED)
                return is_broken(errno) ? final_error(reading->fd, EPROTO) : -1;
        } else {
            if (errno == ECONNRESET) /* once it has been told, kTLS lets writes succeed into nothing; TCP says EPIPE */
                slot_flag(reading->fd, SHUT_WRITE);
            return is_broken(errno) ? final_error(reading->fd, EPROTO) : -1;
        }
        got = read_real(reading);
    }
    return final_error(reading->fd, EPROTO); /* a flood of control records */
}

ssize_t record_read(const struct reading *reading) { return record_finish(reading, read_real(reading)); }

ssize_t record_pending(int fd)
{
    enum { CHUNK = 4096, CHUNKS = 16 };
    char scratch[CHUNK]; /* sixteen times the same buffer: the bytes are not wanted, only their number */
    struct iovec iov[CHUNKS];
    for (int i = 0; i < CHUNKS; i++)
        iov[i] = (struct iovec){.iov_base = scratch, .iov_len = CHUNK};
    struct reading reading = {.fd = fd, .iov = iov, .count = CHUNKS, .flags = MSG_PEEK | MSG_DONTWAIT};
    int saved = errno;
    ssize_t got = record_read(&reading);
    errno = saved;
    return got > 0 ? got : 0;
}

int record_clear(int fd)
{
    struct taken taken = {0};
    char scratch[512];
    struct iovec iov = {.iov_base = scratch, .iov_len = sizeof scratch};
    struct reading reading = {.fd = fd, .iov = &iov, .count = 1};
    int result = 2;
    sigset_t before;
    lock_taking(fd, &before);
    if (take(&reading, MSG_PEEK | MSG_DONTWAIT, &taken) >= 0 && taken.type != DATA) {
        bool is_data;
        result = (int)take_control(&reading, &is_data);
    }
    unlock_taking(fd, &before);
    return result;
}

ssize_t record_at_end(int fd) { return at_end(fd); }

/* An alert that ends the stream stays where it is: a program may ask again and again before it reads, and poll() says
 * readable only of what is there. */
static bool ends_stream(int fd)
{
    struct taken taken = {0};
    unsigned char alert[2];
    struct iovec iov = {.iov_base = alert, .iov_len = sizeof alert};
    struct reading reading = {.fd = fd, .iov = &iov, .count = 1};
    if (take(&reading, MSG_PEEK | MSG_DONTWAIT, &taken) != sizeof alert || taken.type != ALERT)
        return false;
    return alert[1] == CLOSE_NOTIFY || (alert[1] != USER_CANCELED && (alert[0] != WARNING || is_tls13(fd)));
}

bool record_ready(int fd)
{
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct reading reading = {.fd = fd, .iov = &iov, .count = 1, .flags = MSG_PEEK | MSG_DONTWAIT};
    int saved = errno;
    bool ready = ends_stream(fd) || record_read(&reading) >= 0 || errno != EAGAIN;
    errno = saved;
    return ready;
}

void record_close_notify(int fd)
{
    union {
        char space[CMSG_SPACE(sizeof(unsigned char))];
        struct cmsghdr align;
    } control = {{0}};
    unsigned char alert[2] = {WARNING, CLOSE_NOTIFY};
    struct iovec iov = {.iov_base = alert, .iov_len = sizeof alert};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    struct cmsghdr *message = CMSG_FIRSTHDR(&header);
    message->cmsg_level = SOL_TLS;
    message->cmsg_type = TLS_SET_RECORD_TYPE;
    message->cmsg_len = CMSG_LEN(sizeof(unsigned char));
    *CMSG_DATA(message) = ALERT;
    int saved = errno;
    /* At most 5 s: the peer does not read, and shutdown() must not hang for ever. There must be room first: where a thread
     * waits in a write it holds a lock that sendmsg() would wait for, MSG_DONTWAIT or not; shutdown() is to wake it. */
    for (int tries = 0; tries < 100; tries++) {
        struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
        if (real(poll)(&pollfd, 1, 50) == 1 &&
            (real(sendmsg)(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 || (errno != EAGAIN && errno != EINTR)))
            break;
    }
    errno = saved;
}

/* poll, ppoll, select, pselect: a gate that opened is not yet news; the socket behind it may be.
 *
 * A call that touches no descriptor of ours goes straight through. Otherwise the real call runs, what it reports about our
 * descriptors is corrected, and if nothing is left the call goes on with the time that remains.
 */
#include <errno.h>
#include <string.h>

#include "real.h"

enum { PARTIAL_PAUSE_MS = 1 }; /* between looks at a record that is not all there (kernels before 6.5) */

static int remaining(int64_t deadline)
{
    if (deadline < 0)
        return -1;
    int64_t left = deadline - now_ms();
    return left > 0 ? (int)(left > INT32_MAX ? INT32_MAX : left) : 0;
}

/* Nothing more is to come, and it may be that only the slot still says so: the alert has been taken, by MSG_PEEK even. */
static bool has_ended(int fd)
{
    slot_t slot = fd >= 0 ? slot_of(fd) : PLAIN;
    return slot_state(slot) == KERNEL && ((slot & SEEN_EOF) || slot_errno(slot));
}

static bool needs_care(int fd)
{
    slot_t slot = fd >= 0 ? slot_of(fd) : PLAIN;
    enum state state = slot_state(slot);
    return state == GATED || state == MOVING || state == FAILED ||
           (state == KERNEL && (must_confirm(slot) || has_ended(fd)));
}

static short ask_again(int fd, short events)
{
    struct pollfd one = {.fd = fd, .events = events};
    int saved = errno;
    if (real(poll)(&one, 1, 0) <= 0)
        one.revents = 0;
    errno = saved;
    return one.revents;
}

/* What the program should see instead of `revents`. *partial: a record is on its way but not whole. */
static short corrected(int fd, short events, short revents, bool *partial)
{
    slot_t before = slot_of(fd);
    slot_t slot = gate_poll(fd);
    switch (slot_state(slot)) {
    case GATED:
        return 0;
    case FAILED:
        return (short)((events & (POLLIN | POLLRDNORM | POLLRDHUP | POLLOUT | POLLWRNORM)) | POLLHUP |
                       (slot & ERROR_TOLD ? 0 : POLLERR));
    case KERNEL:
        if (has_ended(fd))
            return (short)(revents | (events & (POLLIN | POLLRDNORM | POLLRDHUP)));
        /* Another thread, or gate_poll just now, put R in: what poll saw was the gate. */
        revents = ask_again(fd, events);
        if (must_confirm(slot) && (revents & POLLIN) && !(revents & (POLLHUP | POLLERR)) && !record_ready(fd)) {
            *partial = true;
            revents &= (short)~(POLLIN | POLLRDNORM);
        }
        return revents;
    case PLAIN:
        return slot_state(before) == PLAIN ? revents : ask_again(fd, events);
    default:
        return revents;
    }
}

static int correct_all(struct pollfd *fds, nfds_t count, bool *partial)
{
    int ready = 0;
    for (nfds_t i = 0; i < count; i++) {
        if ((fds[i].revents && is_tls(slot_of(fds[i].fd))) || has_ended(fds[i].fd))
            fds[i].revents = corrected(fds[i].fd, fds[i].events, fds[i].revents, partial);
        ready += fds[i].revents != 0;
    }
    return ready;
}

static bool any_needs_care(const struct pollfd *fds, nfds_t count)
{
    for (nfds_t i = 0; i < count; i++)
        if (needs_care(fds[i].fd))
            return true;
    return false;
}

/* AF_UNIX hangs up on a relayed connection that TCP lost; TCP says POLLERR as well. */
static int with_errors(struct pollfd *fds, nfds_t count, int ready)
{
    for (nfds_t i = 0; i < count && ready > 0; i++)
        if ((fds[i].revents & POLLHUP) && slot_state(slot_of(fds[i].fd)) == RELAY && gate_relay_lost(fds[i].fd))
            fds[i].revents |= POLLERR;
    return ready;
}

static bool any_to_tell(const struct pollfd *fds, nfds_t count)
{
    for (nfds_t i = 0; i < count; i++)
        if ((fds[i].events & (POLLIN | POLLRDNORM | POLLRDHUP)) && has_ended(fds[i].fd))
            return true;
    return false;
}

static int poll_with(struct pollfd *fds, nfds_t count, int timeout, const sigset_t *mask)
{
    if (any_to_tell(fds, count))
        timeout = 0;
    int64_t deadline = timeout < 0 ? -1 : now_ms() + timeout;
    for (;;) {
        int left = remaining(deadline);
        struct timespec limit = {.tv_sec = left / 1000, .tv_nsec = (long)(left % 1000) * 1000000};
        int ready = mask ? real(ppoll)(fds, count, left < 0 ? NULL : &limit, mask) : real(poll)(fds, count, left);
        if (ready < 0)
            return ready;
        bool partial = false;
        ready = correct_all(fds, count, &partial);
        if (ready > 0 || left == 0)
            return with_errors(fds, count, ready);
        if (partial)
            real(poll)(NULL, 0, PARTIAL_PAUSE_MS);
    }
}

EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    if (likely(!any_needs_care(fds, count)))
        return with_errors(fds, count, real(poll)(fds, count, timeout));
    return poll_with(fds, count, timeout, NULL);
}

static int to_ms(const struct timespec *limit)
{
    if (limit == NULL)
        return -1;
    int64_t value = (int64_t)limit->tv_sec * 1000 + (limit->tv_nsec + 999999) / 1000000;
    return value > INT32_MAX ? INT32_MAX : (int)value;
}

EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    if (likely(!any_needs_care(fds, count)))
        return with_errors(fds, count, real(ppoll)(fds, count, timeout, mask));
    return poll_with(fds, count, to_ms(timeout), mask);
}

/* --- select: bits instead of a list; the sets are copied, since the call overwrites them ------------------------------- */

enum { SELECT_MAX = 4096, SET_BYTES = SELECT_MAX / 8 };

struct sets {
    unsigned char read[SET_BYTES], write[SET_BYTES], except[SET_BYTES];
};

static bool has(const unsigned char *set, int fd) { return (set[fd / 8] >> (fd % 8)) & 1; }
static void put(unsigned char *set, int fd, bool on)
{
    unsigned char bit = (unsigned char)(1u << (fd % 8));
    set[fd / 8] = (unsigned char)(on ? set[fd / 8] | bit : set[fd / 8] & ~bit);
}

static void load(struct sets *sets, int count, const fd_set *r, const fd_set *w, const fd_set *e)
{
    size_t size = ((size_t)count + 63) / 64 * 8;
    memset(sets, 0, sizeof *sets);
    if (r)
        memcpy(sets->read, r, size);
    if (w)
        memcpy(sets->write, w, size);
    if (e)
        memcpy(sets->except, e, size);
}

static void store(const struct sets *sets, int count, fd_set *r, fd_set *w, fd_set *e)
{
    size_t size = ((size_t)count + 63) / 64 * 8;
    if (r)
        memcpy(r, sets->read, size);
    if (w)
        memcpy(w, sets->write, size);
    if (e)
        memcpy(e, sets->except, size);
}

static bool select_needs_care(int count, const struct sets *asked)
{
    for (int fd = 0; fd < count; fd++)
        if ((has(asked->read, fd) || has(asked->write, fd)) && needs_care(fd))
            return true;
    return false;
}

static bool select_any_to_tell(int count, const struct sets *asked)
{
    for (int fd = 0; fd < count; fd++)
        if (has(asked->read, fd) && has_ended(fd))
            return true;
    return false;
}

static int select_correct(int count, const struct sets *asked, struct sets *got, bool *partial)
{
    int ready = 0;
    for (int fd = 0; fd < count; fd++) {
        bool in = has(got->read, fd), out = has(got->write, fd);
        if (((in || out) && is_tls(slot_of(fd))) || (has(asked->read, fd) && has_ended(fd))) {
            short events = (short)((has(asked->read, fd) ? POLLIN : 0) | (has(asked->write, fd) ? POLLOUT : 0));
            short revents = corrected(fd, events, (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0)), partial);
            put(got->read, fd, (events & POLLIN) && (revents & (POLLIN | POLLHUP | POLLERR)));
            put(got->write, fd, (events & POLLOUT) && (revents & (POLLOUT | POLLERR)));
        }
        ready += has(got->read, fd) + has(got->write, fd) + has(got->except, fd);
    }
    return ready;
}

/* pselect on the copies; the caller gets them only when there is something to say. */
static int select_with(int count, fd_set *r, fd_set *w, fd_set *e, const struct sets *asked, int timeout,
                       const sigset_t *mask)
{
    if (select_any_to_tell(count, asked))
        timeout = 0;
    int64_t deadline = timeout < 0 ? -1 : now_ms() + timeout;
    for (;;) {
        int left = remaining(deadline);
        struct timespec limit = {.tv_sec = left / 1000, .tv_nsec = (long)(left % 1000) * 1000000};
        struct sets got = *asked;
        int ready = real(pselect)(count, r ? (fd_set *)(void *)got.read : NULL, w ? (fd_set *)(void *)got.write : NULL,
                                  e ? (fd_set *)(void *)got.except : NULL, left < 0 ? NULL : &limit, mask);
        if (ready < 0)
            return ready;
        bool partial = false;
        ready = select_correct(count, asked, &got, &partial);
        if (ready > 0 || left == 0) {
            store(&got, count, r, w, e);
            return ready;
        }
        if (partial)
            real(poll)(NULL, 0, PARTIAL_PAUSE_MS);
    }
}

EXPORT int select(int count, fd_set *restrict r, fd_set *restrict w, fd_set *restrict e,
                  struct timeval *restrict timeout)
{
    struct sets asked;
    if (count < 0 || count > SELECT_MAX)
        return real(select)(count, r, w, e, timeout);
    load(&asked, count, r, w, e);
    if (likely(!select_needs_care(count, &asked)))
        return real(select)(count, r, w, e, timeout);
    int64_t limit = timeout ? (int64_t)timeout->tv_sec * 1000 + (timeout->tv_usec + 999) / 1000 : -1;
    int64_t end = now_ms() + limit;
    int ready = select_with(count, r, w, e, &asked, limit > INT32_MAX ? INT32_MAX : (int)limit, NULL);
    if (timeout) { /* Linux says how much of it is left */
        int64_t left = end > now_ms() ? end - now_ms() : 0;
        *timeout = (struct timeval){.tv_sec = (time_t)(left / 1000), .tv_usec = (suseconds_t)(left % 1000) * 1000};
    }
    return ready;
}

EXPORT int pselect(int count, fd_set *restrict r, fd_set *restrict w, fd_set *restrict e,
                   const struct timespec *restrict timeout, const sigset_t *restrict mask)
{
    struct sets asked;
    if (count < 0 || count > SELECT_MAX)
        return real(pselect)(count, r, w, e, timeout, mask);
    load(&asked, count, r, w, e);
    if (likely(!select_needs_care(count, &asked)))
        return real(pselect)(count, r, w, e, timeout, mask);
    return select_with(count, r, w, e, &asked, to_ms(timeout), mask);
}

/* --- aliases ---------------------------------------------------------------------------------------------------------- */

extern void __chk_fail(void) __attribute__((noreturn));
EXPORT int __poll(struct pollfd *fds, nfds_t count, int timeout);
EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t size);
EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask,
                       size_t size);
EXPORT int __select(int count, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout);

EXPORT int __poll(struct pollfd *fds, nfds_t count, int timeout) { return poll(fds, count, timeout); }

EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t size)
{
    if (count > size / sizeof *fds)
        __chk_fail();
    return poll(fds, count, timeout);
}

EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask,
                       size_t size)
{
    if (count > size / sizeof *fds)
        __chk_fail();
    return ppoll(fds, count, timeout, mask);
}

EXPORT int __select(int count, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
    return select(count, r, w, e, timeout);
}

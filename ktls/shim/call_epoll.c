/* epoll: registrations belong to a file, and the file behind a descriptor changes when a gate opens.
 *
 * We remember each descriptor's registration (the first EPOLL_SETS sets). While gated, A is registered with data that
 * names the descriptor instead of the program's, so that epoll_wait can tell a gate's event from all others without a
 * search (and on kernels whose EPOLLIN must be confirmed, R too is registered so); when R takes A's place it is registered
 * anew with the program's own events and data, and an edge-triggered set reports at once what R is ready for.
 *
 * A set may have several descriptors, and be waited for on another than it was filled through (tokio does): an event
 * finds its registration by the index in its data, never by the set's number. Entries can be stale for the same reason:
 * the newest is taken out of its set first and put back last.
 */
#include <errno.h>
#include <string.h>

#include "real.h"

enum { PARTIAL_PAUSE_MS = 1 };                           /* between looks at a record that is not all there */
enum { EPOLL_SETS = 2 };                                 /* sets that one descriptor is remembered in */
enum { INDEX_SHIFT = 16 };                               /* a mark's bits above the descriptor, which is < SLOT_COUNT */
static const uint64_t GATE_MARK = 0x4b544c5300000000ull; /* "KTLS", index, descriptor: no pointer looks like it */

struct registration {
    int set;     /* the epoll descriptor plus one; 0 means none */
    pid_t maker; /* the process that registered it; its children know of it too */
    uint32_t events;
    uint64_t data;
};

static struct registration registrations[SLOT_COUNT][EPOLL_SETS];
static _Atomic uint8_t newest[SLOT_COUNT]; /* index of the registration made last */

static int index_of(int fd, int set)
{
    for (int i = 0; i < EPOLL_SETS; i++)
        if (registrations[fd][i].set == set + 1)
            return i;
    return -1;
}

/* Where a registration of fd in this set is kept, or is to be. */
static int place_of(int fd, int set)
{
    int index = index_of(fd, set);
    if (index < 0)
        index = index_of(fd, -1);
    return index >= 0 ? index : !newest[fd]; /* a third set: the oldest known is as likely stale as alive */
}

static void forget_registration(int fd, int set)
{
    int index = index_of(fd, set);
    if (index >= 0)
        registrations[fd][index].set = 0;
}

static int control(int set, int operation, int fd, int index, bool marked)
{
    const struct registration *entry = &registrations[fd][index];
    struct epoll_event event = {.events = entry->events};
    event.data.u64 = marked ? GATE_MARK | (uint32_t)index << INDEX_SHIFT | (uint32_t)fd : entry->data;
    return real(epoll_ctl)(set, operation, fd, &event);
}

/* ADD or MOD. The entry is written first: another thread may get the event before the kernel's call returns here. */
static int enter(int set, int operation, int fd, const struct epoll_event *event, bool marked)
{
    int index = place_of(fd, set);
    struct registration before = registrations[fd][index];
    registrations[fd][index] =
        (struct registration){.set = set + 1, .maker = getpid(), .events = event->events, .data = event->data.u64};
    int result = control(set, operation, fd, index, marked);
    if (result == 0)
        newest[fd] = (uint8_t)index;
    else
        registrations[fd][index] = before;
    return result;
}

EXPORT int epoll_ctl(int set, int operation, int fd, struct epoll_event *event)
{
    slot_t slot = slot_of(fd);
    if (slot_state(slot) == GATED)
        slot = gate_poll(fd);
    if (fd < 0 || fd >= SLOT_COUNT || !slots_are_ours() || (operation != EPOLL_CTL_DEL && event == NULL))
        return real(epoll_ctl)(set, operation, fd, event);
    if (operation != EPOLL_CTL_DEL) {
        bool marked = slot_state(slot) == GATED || (slot_state(slot) == KERNEL && must_confirm(slot));
        return enter(set, operation, fd, event, marked);
    }
    int result = real(epoll_ctl)(set, operation, fd, event);
    if (result == 0)
        forget_registration(fd, set);
    return result;
}

void epoll_leave(int fd)
{
    int saved = errno;
    struct epoll_event unused = {0};
    for (int i = 0; fd < SLOT_COUNT && i < EPOLL_SETS; i++) {
        struct registration *entry = &registrations[fd][newest[fd] ^ i];
        if (entry->set && real(epoll_ctl)(entry->set - 1, EPOLL_CTL_DEL, fd, &unused) != 0)
            entry->set = 0; /* it was about an earlier file of that number */
    }
    errno = saved;
}

void epoll_closed(int fd)
{
    int saved = errno;
    struct epoll_event unused = {0};
    for (int i = 0; fd < SLOT_COUNT && i < EPOLL_SETS; i++) {
        struct registration *entry = &registrations[fd][i];
        if (entry->set == 0 || entry->maker != getpid()) /* a child closes its copies, and its parent waits for them */
            continue;
        real(epoll_ctl)(entry->set - 1, EPOLL_CTL_DEL, fd, &unused);
        entry->set = 0;
    }
    errno = saved;
}

static void each(int fd, int operation, bool marked)
{
    int saved = errno;
    for (int i = EPOLL_SETS - 1; fd < SLOT_COUNT && i >= 0; i--) {
        int index = newest[fd] ^ i, set = registrations[fd][index].set - 1;
        if (set >= 0)
            control(set, operation, fd, index, marked);
    }
    errno = saved;
}

void epoll_enter(int fd, bool marked) { each(fd, EPOLL_CTL_ADD, marked); }

void epoll_unmark(int fd) { each(fd, EPOLL_CTL_MOD, false); }

/* Kernels before 6.5 report a record of which only a part is there, and all of them report a ticket. Leaves EPOLLIN only if a read would get something. */
static bool whole_event(int set, int fd, int index, struct epoll_event *event, bool *partial)
{
    bool only_in = (event->events & EPOLLIN) && !(event->events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP));
    if (!only_in || !must_confirm(slot_of(fd)) || record_ready(fd))
        return true;
    event->events &= ~(uint32_t)(EPOLLIN | EPOLLRDNORM);
    if (event->events)
        return true;
    *partial = true;
    if (registrations[fd][index].events & EPOLLONESHOT)
        control(set, EPOLL_CTL_MOD, fd, index, true);
    return false;
}

/* One marked event. Returns whether the program gets it, then with its own data and corrected events. */
static bool marked_event(int set, struct epoll_event *event, bool *partial)
{
    int fd = (int)(event->data.u64 % SLOT_COUNT), index = (int)(event->data.u64 >> INDEX_SHIFT) % EPOLL_SETS;
    const struct registration *entry = &registrations[fd][index];
    if (entry->set == 0)
        return false;
    enum state before = slot_state(slot_of(fd));
    slot_t slot = gate_poll(fd);
    event->data.u64 = entry->data;
    switch (slot_state(slot)) {
    case FAILED:
        event->events = (entry->events & (EPOLLIN | EPOLLOUT | EPOLLRDHUP)) | EPOLLERR | EPOLLHUP;
        return true;
    case RELAY:
        return true;
    case KERNEL:
        return before == KERNEL && whole_event(set, fd, index, event, partial);
    default:
        return false;
    }
}

static int correct(int set, struct epoll_event *events, int count, bool *partial)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        bool marked = (events[i].data.u64 & 0xffffffff00000000ull) == GATE_MARK;
        if (!marked || marked_event(set, &events[i], partial))
            events[kept++] = events[i];
    }
    if (kept == 0 && *partial)
        real(poll)(NULL, 0, PARTIAL_PAUSE_MS);
    return kept;
}

static int wait_with(int set, struct epoll_event *events, int maximum, int timeout, const sigset_t *mask)
{
    int64_t deadline = timeout > 0 ? now_ms() + timeout : timeout;
    for (;;) {
        int count = mask ? real(epoll_pwait)(set, events, maximum, timeout, mask)
                         : real(epoll_wait)(set, events, maximum, timeout);
        if (count <= 0)
            return count;
        bool partial = false;
        count = correct(set, events, count, &partial);
        if (count > 0 || timeout == 0)
            return count;
        if (timeout > 0) {
            int64_t left = deadline - now_ms();
            timeout = left > 0 ? (int)left : 0;
        }
    }
}

EXPORT int epoll_wait(int set, struct epoll_event *events, int maximum, int timeout)
{
    return wait_with(set, events, maximum, timeout, NULL);
}

EXPORT int epoll_pwait(int set, struct epoll_event *events, int maximum, int timeout, const sigset_t *mask)
{
    return wait_with(set, events, maximum, timeout, mask);
}

EXPORT int epoll_pwait2(int set, struct epoll_event *events, int maximum, const struct timespec *timeout,
                        const sigset_t *mask)
{
    for (;;) {
        int count = real(epoll_pwait2)(set, events, maximum, timeout, mask);
        if (count <= 0)
            return count;
        bool partial = false;
        count = correct(set, events, count, &partial);
        if (count > 0 || (timeout && timeout->tv_sec == 0 && timeout->tv_nsec == 0))
            return count;
    }
}

/* epoll: registrations belong to a file, and the file behind a descriptor changes when a gate opens.
 *
 * We remember every registration, in any number of sets. While gated, A is registered with data that names the entry
 * instead of the program's, so that epoll_wait can tell a gate's event from all others without a search (and on kernels
 * whose EPOLLIN must be confirmed, R too is registered so). When R takes A's place it is registered anew with the program's
 * own events and data; when A stays its registration is changed to them. Either way the kernel looks at readiness again, so
 * that an edge-triggered or one-shot program gets exactly one event, from that second look.
 *
 * A set may have several descriptors, and be waited for on another than it was filled through (tokio does): an event
 * finds its registration by the index in its data, never by the set's number. Entries can be stale, for that reason and
 * because a closed descriptor or set leaves them behind. The kernel knows: taking fd out of a set that it is not in fails,
 * and so does adding it to one where it is already. The newest entry is taken out first.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "real.h"

enum { PARTIAL_PAUSE_MS = 1 };                           /* between looks at a record that is not all there */
enum { ENTRIES = 4 * SLOT_COUNT };                       /* only those once used have memory */
enum { NOBODY = -1 };                                    /* an index: an event that nobody gets */
static const uint64_t GATE_MARK = 0x4b544c5300000000ull; /* "KTLS", then an index: no pointer looks like it */

/* An entry is one descriptor's for ever, in one of its sets at a time. */
struct registration {
    _Atomic int set; /* the epoll descriptor plus one; 0 means none */
    int fd;
    pid_t maker; /* the process that registered it; its children know of it too */
    int next;    /* of the same descriptor: an index plus one */
    uint32_t events;
    uint64_t data;
    uint32_t age;           /* the newest has the highest */
    _Atomic bool is_marked; /* in the kernel's data */
};

static struct registration entries[ENTRIES];
static _Atomic int used;
static _Atomic int first[SLOT_COUNT]; /* an index plus one */
static _Atomic uint32_t age;

static struct registration *at(int index) { return index > 0 ? &entries[index - 1] : NULL; }
static struct registration *first_of(int fd) { return at(atomic_load(&first[fd])); }
static struct registration *next_of(const struct registration *entry) { return at(entry->next); }

static struct registration *find(int fd, int set)
{
    struct registration *entry = first_of(fd);
    while (entry && entry->set != set + 1)
        entry = next_of(entry);
    return entry;
}

static int control_as(int set, int operation, const struct registration *entry, uint64_t data)
{
    struct epoll_event event = {.events = entry->events, .data.u64 = data};
    return real(epoll_ctl)(set, operation, entry->fd, &event);
}

static int control(int set, int operation, struct registration *entry, bool marked)
{
    entry->is_marked = marked;
    return control_as(set, operation, entry, marked ? GATE_MARK | (uint32_t)(entry - entries) : entry->data);
}

/* Whether the kernel still has it. Asked in a way that changes nothing where it has. */
static bool is_alive(const struct registration *entry)
{
    int saved = errno, set = entry->set - 1;
    bool alive = control_as(set, EPOLL_CTL_ADD, entry, GATE_MARK | (uint32_t)NOBODY) != 0 && errno == EEXIST;
    if (!alive)
        control_as(set, EPOLL_CTL_DEL, entry, 0);
    errno = saved;
    return alive;
}

static bool take(struct registration *entry, int expected, int set)
{
    return atomic_compare_exchange_strong(&entry->set, &expected, set + 1);
}

/* An entry for fd in this set: the one there is, a free one, one that turns out stale, a new one. NULL: no room. */
static struct registration *entry_for(int fd, int set)
{
    struct registration *entry = find(fd, set);
    if (entry)
        return entry;
    for (entry = first_of(fd); entry; entry = next_of(entry))
        if (entry->set == 0 && take(entry, 0, set))
            return entry;
    for (entry = first_of(fd); entry; entry = next_of(entry)) {
        int old = entry->set;
        if (old != set + 1 && !is_alive(entry) && take(entry, old, set))
            return entry;
    }
    int index = atomic_load(&used);
    do
        if (index >= ENTRIES)
            return NULL;
    while (!atomic_compare_exchange_weak(&used, &index, index + 1));
    entry = &entries[index];
    entry->fd = fd;
    entry->set = set + 1;
    entry->next = atomic_load(&first[fd]);
    while (!atomic_compare_exchange_weak(&first[fd], &entry->next, index + 1))
        ;
    return entry;
}

/* ADD or MOD. The entry is written first: another thread may get the event before the kernel's call returns here. */
static int enter(int set, int operation, int fd, const struct epoll_event *event, bool marked)
{
    bool is_new = find(fd, set) == NULL;
    struct registration *entry = entry_for(fd, set);
    if (entry == NULL) {
        errno = ENOSPC;
        return -1;
    }
    struct registration before = *entry;
    entry->events = event->events;
    entry->data = event->data.u64;
    entry->maker = getpid();
    entry->age = atomic_fetch_add(&age, 1);
    int result = control(set, operation, entry, marked);
    if (result != 0 && is_new) {
        entry->set = 0;
    } else if (result != 0) {
        entry->events = before.events;
        entry->data = before.data;
        entry->is_marked = before.is_marked;
    }
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
        enum state state = slot_state(slot);
        bool marked = state == GATED || state == FAILED || (state == KERNEL && must_confirm(slot));
        return enter(set, operation, fd, event, marked);
    }
    int result = real(epoll_ctl)(set, operation, fd, event);
    struct registration *entry = find(fd, set);
    if (result == 0 && entry)
        entry->set = 0;
    return result;
}

/* The newest of fd's entries that is older than `limit`. */
static struct registration *newest_before(int fd, uint64_t limit)
{
    struct registration *newest = NULL;
    for (struct registration *entry = first_of(fd); entry; entry = next_of(entry))
        if (entry->set && entry->age < limit && (newest == NULL || entry->age > newest->age))
            newest = entry;
    return newest;
}

void epoll_leave(int fd)
{
    int saved = errno;
    struct registration *entry = fd < SLOT_COUNT ? newest_before(fd, UINT64_MAX) : NULL;
    for (; entry; entry = newest_before(fd, entry->age))
        if (control_as(entry->set - 1, EPOLL_CTL_DEL, entry, 0) != 0)
            entry->set = 0; /* it was about an earlier file of that number, or the same set by another name */
    errno = saved;
}

void epoll_closed(int fd)
{
    int saved = errno;
    for (struct registration *entry = fd < SLOT_COUNT ? first_of(fd) : NULL; entry; entry = next_of(entry)) {
        if (entry->set == 0 || entry->maker != getpid()) /* a child closes its copies, and its parent waits for them */
            continue;
        control_as(entry->set - 1, EPOLL_CTL_DEL, entry, 0);
        entry->set = 0;
    }
    errno = saved;
}

void epoll_enter(int fd, bool marked)
{
    int saved = errno;
    for (struct registration *entry = fd < SLOT_COUNT ? first_of(fd) : NULL; entry; entry = next_of(entry))
        if (entry->set)
            control(entry->set - 1, EPOLL_CTL_ADD, entry, marked);
    errno = saved;
}

/* An EPOLLEXCLUSIVE registration cannot be changed, only made again. */
static void unmark(int set, struct registration *entry)
{
    int operation = EPOLL_CTL_MOD;
    if ((entry->events & EPOLLEXCLUSIVE) && control_as(set, EPOLL_CTL_DEL, entry, 0) == 0)
        operation = EPOLL_CTL_ADD;
    entry->is_marked = control(set, operation, entry, false) != 0;
}

void epoll_unmark(int fd)
{
    int saved = errno;
    struct registration *entry = fd < SLOT_COUNT ? newest_before(fd, UINT64_MAX) : NULL;
    for (; entry; entry = newest_before(fd, entry->age))
        if (entry->is_marked)
            unmark(entry->set - 1, entry);
    errno = saved;
}

/* Kernels before 6.5 report a record of which only a part is there, and all of them report a ticket. Leaves EPOLLIN only
 * if a read would get something. */
static bool whole_event(int set, struct registration *entry, struct epoll_event *event, bool *partial)
{
    bool only_in = (event->events & EPOLLIN) && !(event->events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP));
    if (!only_in || !must_confirm(slot_of(entry->fd)) || record_ready(entry->fd))
        return true;
    event->events &= ~(uint32_t)(EPOLLIN | EPOLLRDNORM);
    if (event->events)
        return true;
    *partial = true;
    if (entry->events & EPOLLONESHOT)
        control(set, EPOLL_CTL_MOD, entry, true);
    return false;
}

/* What one round of epoll_wait left to do. */
struct round {
    bool partial; /* a record is on its way but not whole */
    bool changed; /* a gate has opened: what was dropped may be ready all the same */
};

/* One marked event. Returns whether the program gets it, then with its own data and corrected events. */
static bool marked_event(int set, struct epoll_event *event, struct round *round)
{
    uint32_t index = (uint32_t)event->data.u64;
    struct registration *entry = index < ENTRIES ? &entries[index] : NULL;
    if (entry == NULL || entry->set == 0)
        return false;
    entry->set = set + 1; /* by which name it is in the set now */
    int fd = entry->fd;
    enum state before = slot_state(slot_of(fd));
    slot_t slot = gate_poll(fd);
    round->changed |= before != slot_state(slot);
    event->data.u64 = entry->data;
    switch (slot_state(slot)) {
    case FAILED:
        event->events = (entry->events & (EPOLLIN | EPOLLOUT | EPOLLRDHUP)) | EPOLLHUP;
        event->events |= slot & ERROR_TOLD ? 0 : EPOLLERR;
        return true;
    case RELAY:
        if (entry->is_marked)
            unmark(set, entry);
        round->changed = true;
        return false;
    case KERNEL:
        return before == KERNEL && whole_event(set, entry, event, &round->partial);
    default:
        return false;
    }
}

static int correct(int set, struct epoll_event *events, int count, struct round *round)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        bool marked = (events[i].data.u64 & 0xffffffff00000000ull) == GATE_MARK;
        if (!marked || marked_event(set, &events[i], round))
            events[kept++] = events[i];
    }
    if (kept == 0 && round->partial)
        real(poll)(NULL, 0, PARTIAL_PAUSE_MS);
    return kept;
}

/* Waits until something is left for the program, or its time is up; `once` is one real call. */
static int wait_with(int set, struct epoll_event *events, int maximum, const struct timespec *timeout,
                     int (*once)(int set, struct epoll_event *events, int maximum, const struct timespec *left,
                                 const sigset_t *mask),
                     const sigset_t *mask)
{
    struct timespec left = timeout ? *timeout : (struct timespec){0};
    int64_t deadline = now_ms() + (int64_t)left.tv_sec * 1000 + left.tv_nsec / 1000000;
    for (;;) {
        int count = once(set, events, maximum, timeout ? &left : NULL, mask);
        if (count <= 0)
            return count;
        struct round round = {0};
        bool last = timeout && left.tv_sec == 0 && left.tv_nsec == 0;
        count = correct(set, events, count, &round);
        if (count > 0 || (last && !round.changed))
            return count;
        int64_t ms = deadline > now_ms() ? deadline - now_ms() : 0;
        left = (struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    }
}

static int wait_ms(int set, struct epoll_event *events, int maximum, const struct timespec *left, const sigset_t *mask)
{
    int64_t ms = left ? (int64_t)left->tv_sec * 1000 + left->tv_nsec / 1000000 : -1;
    int timeout = ms > INT32_MAX ? INT32_MAX : (int)ms;
    return mask ? real(epoll_pwait)(set, events, maximum, timeout, mask)
                : real(epoll_wait)(set, events, maximum, timeout);
}

static int wait_for_ms(int set, struct epoll_event *events, int maximum, int timeout, const sigset_t *mask)
{
    struct timespec limit = {.tv_sec = timeout / 1000, .tv_nsec = (long)(timeout % 1000) * 1000000};
    return wait_with(set, events, maximum, timeout < 0 ? NULL : &limit, wait_ms, mask);
}

EXPORT int epoll_wait(int set, struct epoll_event *events, int maximum, int timeout)
{
    return wait_for_ms(set, events, maximum, timeout, NULL);
}

EXPORT int epoll_pwait(int set, struct epoll_event *events, int maximum, int timeout, const sigset_t *mask)
{
    return wait_for_ms(set, events, maximum, timeout, mask);
}

static int wait_exact(int set, struct epoll_event *events, int maximum, const struct timespec *left,
                      const sigset_t *mask)
{
    return real(epoll_pwait2)(set, events, maximum, left, mask);
}

EXPORT int epoll_pwait2(int set, struct epoll_event *events, int maximum, const struct timespec *timeout,
                        const sigset_t *mask)
{
    return wait_with(set, events, maximum, timeout, wait_exact, mask);
}

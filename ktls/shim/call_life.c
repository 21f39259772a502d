/* close, dup, fcntl, shutdown and their kin: the hidden twin of a descriptor is closed, copied and flagged with it. */
#include <errno.h>
#include <linux/close_range.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "real.h"

EXPORT int close(int fd)
{
    slot_t slot = slot_of(fd);
    if (unlikely(is_hidden(fd))) { /* "close everything" loops must not take our descriptors */
        errno = EBADF;
        return -1;
    }
    /* The twin first: from real(close) on, another thread may have the number back as a connection of its own. */
    if (unlikely(is_tls(slot))) {
        if (slot_state(slot) == KERNEL && !(slot & COPIED))
            epoll_closed(fd);
        forget(fd);
    }
    return real(close)(fd);
}

/* Closes the twins of [first, last]; those of descriptors that never were ours do not exist. */
static void forget_range(unsigned first, unsigned last)
{
    unsigned base = (unsigned)shim_base;
    if (first >= base)
        return;
    last = last < base ? last : base - 1;
    real(close_range)(first + base, last + base, 0);
    for (unsigned fd = first; fd <= last && fd < SLOT_COUNT; fd++)
        if (is_tls(slot_of((int)fd)))
            slot_begin((int)fd, UNKNOWN);
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    unsigned base = (unsigned)shim_base, end = 2 * base + 15;
    int result = 0;
    if (first > last)
        return real(close_range)(first, last, flags);
    if (first < base) {
        unsigned upper = last < base ? last : base - 1;
        result = real(close_range)(first, upper, flags);
        if (result == 0 && (flags & CLOSE_RANGE_CLOEXEC))
            real(close_range)(first + base, upper + base, CLOSE_RANGE_CLOEXEC);
        else if (result == 0)
            forget_range(first, upper);
    }
    if (result == 0 && last > end)
        result = real(close_range)(first > end ? first : end + 1, last, flags);
    return result;
}

EXPORT void closefrom(int first) { close_range(first < 0 ? 0 : (unsigned)first, ~0u, 0); }

/* `copy` was just made from fd: give it a twin of its own. On failure the copy is closed again: better no copy than one
 * whose connection we would end too early. */
static int adopt(int fd, int copy, bool cloexec)
{
    slot_t slot = gate_poll(fd);
    if (copy < 0 || !is_tls(slot)) {
        if (copy >= 0)
            slot_begin(copy, slot_state(slot) == PLAIN ? PLAIN : UNKNOWN);
        return copy;
    }
    bool alone = real(fcntl)(hidden(fd), F_GETFD) < 0; /* it came from elsewhere, without its leash */
    if (copy >= shim_base || (!alone && hide(hidden(fd), hidden(copy), cloexec) < 0)) {
        real(close)(copy);
        errno = EMFILE;
        return -1;
    }
    slot_flag(fd, COPIED);
    slot_begin(copy, slot | COPIED);
    return copy;
}

EXPORT int dup(int fd)
{
    if (is_tls(slot_of(fd)))
        gate_poll(fd);
    return adopt(fd, real(dup)(fd), false);
}

static int dup_onto(int fd, int to, int flags)
{
    if (unlikely(is_hidden(to))) {
        errno = EBADF;
        return -1;
    }
    if (fd == to)
        return flags < 0 ? real(dup2)(fd, to) : real(dup3)(fd, to, flags);
    if (is_tls(slot_of(fd))) {
        int saved = errno;
        /* A standard stream may be written by libc itself next, past us: it gets the socket, not the gate. */
        if (to <= STDERR_FILENO && slots_are_ours())
            gate_wait(fd, true, 0);
        else
            gate_poll(fd);
        errno = saved;
    }
    slot_t old = slot_of(to);
    int copy = flags < 0 ? real(dup2)(fd, to) : real(dup3)(fd, to, flags);
    if (copy >= 0 && is_tls(old))
        forget(to);
    return adopt(fd, copy, flags > 0 && (flags & O_CLOEXEC));
}

EXPORT int dup2(int fd, int to) { return dup_onto(fd, to, -1); }

EXPORT int dup3(int fd, int to, int flags) { return dup_onto(fd, to, flags); }

static int control(int fd, int command, void *argument, bool large)
{
    slot_t slot = slot_of(fd);
    if (unlikely(is_tls(slot)) &&
        (command == F_SETFL || command == F_SETFD || command == F_DUPFD || command == F_DUPFD_CLOEXEC))
        slot = gate_poll(fd);
    int result = large ? real(fcntl64)(fd, command, argument) : real(fcntl)(fd, command, argument);
    if (result < 0)
        return result;
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        return adopt(fd, result, command == F_DUPFD_CLOEXEC);
    if (unlikely(is_tls(slot)) && (command == F_SETFD || (command == F_SETFL && slot_state(slot) != KERNEL)))
        real(fcntl)(hidden(fd), command, argument);
    return result;
}

EXPORT int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return control(fd, command, argument, false);
}

EXPORT int fcntl64(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return control(fd, command, argument, true);
}

/* A program that never waits is not made to here: whoever opens the gate does it then. True: noted. */
static bool shut_later(int fd, int how)
{
    slot_t flags = (how != SHUT_WR ? SHUT_READ : 0) | (how != SHUT_RD ? SHUT_WRITE : 0), slot = gate_poll(fd);
    while (slot_state(slot) == GATED && (real(fcntl)(fd, F_GETFL) & O_NONBLOCK)) {
        if (slot_swap(fd, slot, slot | flags))
            return true;
        if (!slots_are_ours())
            return false;
        slot = gate_poll(fd);
    }
    return false;
}

/* The program's end of its direction is close_notify, then FIN (RFC 8446 section 6.1). It also flushes an open record. */
EXPORT int shutdown(int fd, int how)
{
    slot_t slot = slot_of(fd);
    if (likely(!is_tls(slot)))
        return real(shutdown)(fd, how);
    if (how >= SHUT_RD && how <= SHUT_RDWR && shut_later(fd, how))
        return 0;
    slot =
        gate_wait(fd, true, 0); /* what was promised before must not overtake the handshake; its deadline bounds this */
    if (slot_state(slot) == FAILED || slot_state(slot) == GATED) {
        errno = ENOTCONN;
        return -1;
    }
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    if (slot_state(slot) == RELAY && real(getpeername)(hidden(fd), (struct sockaddr *)&peer, &length) != 0)
        return -1; /* ENOTCONN: all is over */
    if (how != SHUT_WR)
        slot_flag(fd, SHUT_READ);
    if (how != SHUT_RD && slot_state(slot) == KERNEL && !(slot & SHUT_WRITE))
        record_close_notify(fd);
    if (how != SHUT_RD)
        slot_flag(fd, SHUT_WRITE);
    return real(shutdown)(fd, how);
}

/* It puts /dev/null over them, past our dup2(): what was there is looked at afresh, and its twin closed. */
EXPORT int daemon(int no_chdir, int no_close)
{
    int result = real(daemon)(no_chdir, no_close);
    for (int fd = 0; result == 0 && !no_close && fd <= STDERR_FILENO; fd++) {
        slot_begin(fd, UNKNOWN);
        slot_of(fd);
    }
    return result;
}

/* A descriptor of another process: a number that may have been something else before. */
EXPORT int pidfd_getfd(int pidfd, int fd, unsigned flags);
EXPORT int pidfd_getfd(int pidfd, int fd, unsigned flags)
{
    int copy = (int)real(syscall)(SYS_pidfd_getfd, pidfd, fd, flags);
    if (copy >= 0)
        slot_begin(copy, UNKNOWN);
    return copy;
}

EXPORT pid_t _Fork(void)
{
    pid_t pid = real(_Fork)(); /* as fork(), but without the handlers that pthread_atfork registered */
    if (pid == 0)
        slots_after_fork();
    return pid;
}

EXPORT int __close(int fd);
EXPORT int __close(int fd) { return close(fd); }

EXPORT int __dup2(int fd, int to);
EXPORT int __dup2(int fd, int to) { return dup2(fd, to); }

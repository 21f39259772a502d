/* The read family. Each call is turned into one `reading` (descriptor, buffers, flags) when the descriptor is TLS. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "real.h"

extern void __chk_fail(void) __attribute__((noreturn));

static int socket_of(int fd) { return slot_state(gate_poll(fd)) == KERNEL ? fd : hidden(fd); }

/* AF_UNIX has one end of file for all that can happen to a relayed stream; the agent notes on R which it is. */
static ssize_t relay_read(const struct reading *reading)
{
    ssize_t got = read_real(reading);
    if (got != 0 || wanted(reading) == 0 || (slot_of(reading->fd) & (SHUT_READ | SEEN_EOF)))
        return got;
    int error = gate_relay_end(hidden(reading->fd));
    if (error) {
        slot_flag(reading->fd, TOLD);
        errno = error;
        return -1;
    }
    slot_flag(reading->fd, SEEN_EOF);
    return 0;
}

/* recv() of 0 bytes waits for data as any other, and takes none; kTLS would not wait. */
static ssize_t wait_for_data(const struct reading *reading)
{
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct reading ahead = {.fd = reading->fd, .iov = &iov, .count = 1, .flags = reading->flags | MSG_PEEK};
    return record_read(&ahead) < 0 ? -1 : 0;
}

static ssize_t tls_read(const struct reading *reading);

/* MSG_TRUNC: the caller's memory stays as it is, and may be none at all. */
static ssize_t discard(const struct reading *reading)
{
    enum { CHUNK = 4096, CHUNKS = 128 };
    char scratch[CHUNK];
    struct iovec iov[CHUNKS];
    size_t left = wanted(reading);
    int count = 0;
    do {
        size_t part = left < CHUNK ? left : CHUNK;
        iov[count++] = (struct iovec){.iov_base = scratch, .iov_len = part};
        left -= part;
    } while (left > 0 && count < CHUNKS);
    return tls_read(&(struct reading){reading->fd, iov, count, reading->flags & ~MSG_TRUNC});
}

static ssize_t tls_read(const struct reading *reading)
{
    int fd = reading->fd;
    if (reading->flags & MSG_TRUNC)
        return discard(reading);
    if (reading->flags & MSG_OOB) { /* there is never any; kTLS would read on in the stream */
        errno = EINVAL;
        return -1;
    }
    if (reading->flags & MSG_ERRQUEUE) /* a question about the socket, not about data */
        return read_real(&(struct reading){socket_of(fd), reading->iov, reading->count, reading->flags});
    slot_t slot = slot_of(fd);
    if (slot_state(slot) == GATED || slot_state(slot) == MOVING) {
        if (slot & SHUT_READ)
            return 0;
        slot = reading->flags & MSG_DONTWAIT ? gate_poll(fd) : gate_wait(fd, false, SO_RCVTIMEO);
        if (slot_state(slot) == GATED) {
            errno = reading->flags & MSG_DONTWAIT ? EAGAIN : errno;
            return -1;
        }
    }
    int error = slot_state(slot) == FAILED ? gate_failure(fd, slot) : slot_state(slot) == KERNEL ? slot_errno(slot) : 0;
    if (error) {
        errno = error;
        return -1;
    }
    if (slot_state(slot) == FAILED)
        return 0;
    if (slot_state(slot) == RELAY)
        return relay_read(reading);
    if (slot_state(slot) != KERNEL)
        return read_real(reading);
    if (slot & SEEN_EOF)
        return 0;
    return wanted(reading) == 0 ? wait_for_data(reading) : record_read(reading);
}

/* What the kernel refuses, or answers with 0, before it asks the socket. */
static bool is_odd(const struct iovec *iov, int count)
{
    return count < 0 || count > IOV_MAX || wanted(&(struct reading){.iov = iov, .count = count}) == 0;
}

static ssize_t read_one(int fd, void *buffer, size_t length, int flags)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    return tls_read(&(struct reading){.fd = fd, .iov = &iov, .count = 1, .flags = flags});
}

EXPORT ssize_t read(int fd, void *buffer, size_t length)
{
    if (likely(!is_tls(slot_of(fd))) || length == 0)
        return real(read)(fd, buffer, length);
    return read_one(fd, buffer, length, 0);
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int count)
{
    if (likely(!is_tls(slot_of(fd))) || is_odd(iov, count))
        return real(readv)(fd, iov, count);
    return tls_read(&(struct reading){.fd = fd, .iov = iov, .count = count});
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    if (likely(!is_tls(slot_of(fd))) || offset != -1 || is_odd(iov, count))
        return real(preadv2)(fd, iov, count, offset, flags);
    int receive = flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
    return tls_read(&(struct reading){.fd = fd, .iov = iov, .count = count, .flags = receive});
}

EXPORT ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
    if (likely(!is_tls(slot_of(fd))))
        return real(recv)(fd, buffer, length, flags);
    return read_one(fd, buffer, length, flags);
}

EXPORT ssize_t recvfrom(int fd, void *restrict buffer, size_t length, int flags, struct sockaddr *restrict address,
                        socklen_t *restrict address_length)
{
    if (likely(!is_tls(slot_of(fd))))
        return real(recvfrom)(fd, buffer, length, flags, address, address_length);
    if (address && address_length)
        *address_length = 0; /* as TCP does */
    return read_one(fd, buffer, length, flags);
}

/* Descriptors that arrive from another process may take numbers that we knew as something else. */
static void look_afresh(int fd) { slot_begin(fd, UNKNOWN); }

static ssize_t tls_recvmsg(int fd, struct msghdr *header, int flags)
{
    if (flags & MSG_ERRQUEUE)
        return real(recvmsg)(socket_of(fd), header, flags);
    if (header->msg_iovlen > IOV_MAX) {
        errno = EMSGSIZE;
        return -1;
    }
    header->msg_namelen = 0;
    header->msg_controllen = 0;
    header->msg_flags = 0;
    return tls_read(
        &(struct reading){.fd = fd, .iov = header->msg_iov, .count = (int)header->msg_iovlen, .flags = flags});
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *header, int flags)
{
    if (unlikely(is_tls(slot_of(fd))))
        return tls_recvmsg(fd, header, flags);
    ssize_t got = real(recvmsg)(fd, header, flags);
    if (got >= 0 && unlikely(header->msg_controllen > 0))
        each_passed(header, look_afresh);
    return got;
}

EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    if (likely(!is_tls(slot_of(fd))))
        return real(recvmmsg)(fd, messages, count, flags, timeout);
    int64_t deadline = timeout ? now_ms() + (int64_t)timeout->tv_sec * 1000 + timeout->tv_nsec / 1000000 : INT64_MAX;
    unsigned done = 0;
    while (done < count) {
        int now = flags & ~MSG_WAITFORONE;
        if (done > 0 && (flags & MSG_WAITFORONE))
            now |= MSG_DONTWAIT;
        ssize_t got = tls_recvmsg(fd, &messages[done].msg_hdr, now);
        if (got < 0)
            break;
        messages[done++].msg_len = (unsigned)got;
        if (now_ms() >= deadline) /* looked at between messages only, as the kernel does */
            break;
    }
    return done > 0 || count == 0 ? (int)done : -1;
}

/* SPLICE_F_NONBLOCK is about the pipe: TCP waits for data all the same, AF_UNIX and kTLS do not. True: data may be there. */
static bool splice_waits(int from, unsigned flags)
{
    struct pollfd pollfd = {.fd = from, .events = POLLIN};
    if (errno != EAGAIN || !(flags & SPLICE_F_NONBLOCK) || (real(fcntl)(from, F_GETFL) & O_NONBLOCK))
        return false;
    if (real(poll)(&pollfd, 1, 0) != 0) { /* readable: it was the pipe that is full */
        errno = EAGAIN;
        return false;
    }
    int ready = real(poll)(&pollfd, 1, gate_timeout(from, SO_RCVTIMEO));
    if (ready == 0)
        errno = EAGAIN;
    return ready > 0;
}

static ssize_t splice_from(int from, loff_t *from_offset, int to, loff_t *to_offset, size_t length, unsigned flags)
{
    for (;;) {
        slot_t slot = gate_wait(from, false, SO_RCVTIMEO);
        if (slot_state(slot) == GATED)
            return -1;
        int error = slot_state(slot) == FAILED   ? gate_failure(from, slot)
                    : slot_state(slot) == KERNEL ? slot_errno(slot)
                                                 : 0;
        if (error) {
            errno = error;
            return -1;
        }
        if (slot_state(slot) == FAILED || (slot_state(slot) == KERNEL && (slot & SEEN_EOF)))
            return 0;
        /* kTLS looks at SPLICE_F_NONBLOCK alone, which is about the pipe as well. */
        if (slot_state(slot) == KERNEL && !(flags & SPLICE_F_NONBLOCK) && (real(fcntl)(from, F_GETFL) & O_NONBLOCK) &&
            !record_ready(from)) {
            errno = EAGAIN;
            return -1;
        }
        ssize_t moved = real(splice)(from, from_offset, to, to_offset, length, flags);
        if (moved < 0 && splice_waits(from, flags))
            continue;
        if (moved > 0 || length == 0 || slot_state(slot) != KERNEL)
            return moved;
        if (moved == 0)
            return record_at_end(from);
        if (errno != EINVAL && errno != EIO)
            return moved;
        int cleared = record_clear(from);
        if (cleared == 2)
            errno = EINVAL;
        if (cleared != 1)
            return cleared == 0 ? 0 : -1;
    }
}

EXPORT ssize_t splice(int from, loff_t *from_offset, int to, loff_t *to_offset, size_t length, unsigned flags)
{
    if (is_tls(slot_of(from)))
        return splice_from(from, from_offset, to, to_offset, length, flags);
    if (is_tls(slot_of(to)) && !write_allowed(to))
        return -1;
    return real(splice)(from, from_offset, to, to_offset, length, flags);
}

/* glibc's fortified forms and aliases; a program built with _FORTIFY_SOURCE calls nothing else. */
/* clang-format off */
#define ALIAS(type, name, ...) EXPORT type name(__VA_ARGS__); EXPORT type name(__VA_ARGS__)
/* clang-format on */

ALIAS(ssize_t, __read, int fd, void *buffer, size_t length) { return read(fd, buffer, length); }

ALIAS(ssize_t, __read_chk, int fd, void *buffer, size_t length, size_t size)
{
    if (length > size)
        __chk_fail();
    return read(fd, buffer, length);
}

ALIAS(ssize_t, __recv_chk, int fd, void *buffer, size_t length, size_t size, int flags)
{
    if (length > size)
        __chk_fail();
    return recv(fd, buffer, length, flags);
}

ALIAS(ssize_t, __recvfrom_chk, int fd, void *restrict buffer, size_t length, size_t size, int flags,
      struct sockaddr *restrict address, socklen_t *restrict address_length)
{
    if (length > size)
        __chk_fail();
    return recvfrom(fd, buffer, length, flags, address, address_length);
}

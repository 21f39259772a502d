/* The write family. While gated a write waits and then goes; after that the real call does the work, with the flags that
 * kTLS would drop data for taken off. */
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>

#include "real.h"

/* MSG_MORE leaves data in an open record that nothing but another record sends, and close() drops it; the others are about
 * a TCP that has no TLS above it: kTLS fails where TCP ignores what it does not know. */
enum { KEPT_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };

/* What TLS cannot do. ENOBUFS is what a program that got SO_ZEROCOPY before connect() knows to fall back from: a copy
 * would leave it waiting for a notification. */
static int refused(int fd, int flags)
{
    int zero_copy = 0;
    socklen_t length = sizeof zero_copy;
    if (flags & MSG_OOB)
        return EOPNOTSUPP;
    if ((flags & MSG_ZEROCOPY) && getsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &zero_copy, &length) == 0 && zero_copy)
        return ENOBUFS;
    return 0;
}

/* Whether a write may go on; if not, errno is set. *slot says what the descriptor is. */
static bool may_write(int fd, int flags, slot_t *slot)
{
    *slot = slot_of(fd);
    bool waits = slot_state(*slot) == GATED || slot_state(*slot) == MOVING;
    if (waits && !(*slot & SHUT_WRITE)) {
        *slot = flags & MSG_DONTWAIT ? gate_poll(fd) : gate_wait(fd, false, SO_SNDTIMEO);
        if (slot_state(*slot) == GATED) {
            errno = flags & MSG_DONTWAIT ? EAGAIN : errno;
            return false;
        }
    }
    int error = slot_state(*slot) == FAILED ? gate_failure(fd, *slot) : 0;
    if (slot_state(*slot) == KERNEL && !(*slot & SHUT_WRITE) && (error = slot_errno(*slot)) == ECONNRESET)
        slot_flag(fd, SHUT_WRITE); /* told once; then it is EPIPE */
    if (error) {
        errno = error;
        return false;
    }
    if (slot_state(*slot) == FAILED || (*slot & SHUT_WRITE)) { /* kTLS would say success and send nothing */
        if (!(flags & MSG_NOSIGNAL))
            raise(SIGPIPE);
        errno = EPIPE;
        return false;
    }
    error = flags & (MSG_OOB | MSG_ZEROCOPY) && slot_state(*slot) != PLAIN ? refused(fd, flags) : 0;
    if (error) {
        errno = error;
        return false;
    }
    return !(slot_state(*slot) == KERNEL && (*slot & REKEYING)) || record_rekeyed(fd);
}

bool write_allowed(int fd)
{
    slot_t slot;
    return may_write(fd, 0, &slot);
}

/* What becomes of a write on kTLS after a reset. It tells of it again and again and never clears the error; or, once the
 * error has been taken, it takes data for ever and sends nothing; and a write that waited for room takes it in silence. */
static ssize_t sent_by(int fd, slot_t slot, ssize_t sent, size_t length)
{
    int error = errno;
    if (likely(slot_state(slot) != KERNEL || (sent >= 0 && (size_t)sent >= length)) || sandboxed())
        return sent;
    struct pollfd pollfd = {.fd = fd};
    if (sent < 0 && (error == ECONNRESET || error == EPIPE)) {
        int taken;
        socklen_t size = sizeof taken;
        real(getsockopt)(fd, SOL_SOCKET, SO_ERROR, &taken, &size);
        slot_flag(fd, SHUT_WRITE);
    } else if (sent > 0 && real(poll)(&pollfd, 1, 0) == 1 && (pollfd.revents & POLLHUP) && !slot_errno(slot)) {
        slot_set(fd, with_errno(slot_of(fd), ECONNRESET));
    }
    errno = error;
    return sent;
}

/* A program that speaks TLS itself begins with a ClientHello (RFC 8446 sections 4 and 5.1; ktls/already.py is the same for
 * the relay). The agent is told, and does what the rule says. */
static void first_write(int fd, slot_t slot, const void *data, size_t length)
{
    const unsigned char *bytes = data;
    if (likely(slot_state(slot) != KERNEL || !(slot & FIRST_WRITE)) || length == 0)
        return;
    slot_unflag(fd, FIRST_WRITE);
    if (length < 6 || bytes[0] != 22 || bytes[1] != 3 || bytes[2] > 4 || bytes[3] > 64 || bytes[5] != 1)
        return;
    gate_tell(hidden(fd), "T\0\0");
}

static void first_of(int fd, slot_t slot, const struct iovec *iov, size_t count)
{
    if (count > 0 && iov)
        first_write(fd, slot, iov->iov_base, iov->iov_len);
}

static size_t total_of(const struct iovec *iov, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count && count <= IOV_MAX && iov; i++)
        total += iov[i].iov_len;
    return total;
}

static int flags_for(slot_t slot, int flags)
{
    return slot_state(slot) == KERNEL || slot_state(slot) == RELAY ? flags & KEPT_FLAGS : flags;
}

/* AF_UNIX says EPIPE for whatever ended it; TCP tells of a reset first, and without a signal. */
static ssize_t relay_send(int fd, const struct msghdr *header, int flags)
{
    ssize_t sent = real(sendmsg)(fd, header, flags | MSG_NOSIGNAL);
    if (sent >= 0 || errno != EPIPE)
        return sent;
    int error = gate_relay_lost(fd);
    if (error)
        slot_flag(fd, TOLD);
    else if (!(flags & MSG_NOSIGNAL))
        raise(SIGPIPE);
    errno = error ? error : EPIPE;
    return -1;
}

static ssize_t relay_write(int fd, const struct iovec *iov, int count, int flags)
{
    struct msghdr header = {.msg_iovlen = (size_t)count};
    memcpy(&header.msg_iov, &iov, sizeof header.msg_iov);
    return relay_send(fd, &header, flags);
}

EXPORT ssize_t write(int fd, const void *buffer, size_t length)
{
    slot_t slot = PLAIN;
    if (unlikely(is_tls(slot_of(fd))) && !may_write(fd, 0, &slot))
        return -1;
    if (!sandboxed())
        first_write(fd, slot, buffer, length);
    if (slot_state(slot) != RELAY || sandboxed())
        return sent_by(fd, slot, real(write)(fd, buffer, length), length);
    struct iovec iov = {.iov_len = length};
    memcpy(&iov.iov_base, &buffer, sizeof buffer);
    return relay_write(fd, &iov, 1, 0);
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
    slot_t slot = PLAIN;
    size_t total = is_tls(slot_of(fd)) && count > 0 ? total_of(iov, (size_t)count) : 0;
    if (total > 0 && !may_write(fd, 0, &slot))
        return -1;
    if (total > 0 && !sandboxed())
        first_of(fd, slot, iov, (size_t)count);
    return slot_state(slot) == RELAY && !sandboxed() ? relay_write(fd, iov, count, 0)
                                                     : sent_by(fd, slot, real(writev)(fd, iov, count), total);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    slot_t slot = PLAIN;
    int how = flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
    size_t total = is_tls(slot_of(fd)) && offset == -1 && count > 0 ? total_of(iov, (size_t)count) : 0;
    if (total > 0 && !may_write(fd, how, &slot))
        return -1;
    if (total > 0)
        first_of(fd, slot, iov, (size_t)count);
    if (slot_state(slot) == RELAY)
        return relay_write(fd, iov, count, how);
    return sent_by(fd, slot, real(pwritev2)(fd, iov, count, offset, flags), total);
}

EXPORT ssize_t send(int fd, const void *buffer, size_t length, int flags)
{
    slot_t slot;
    if (likely(!is_tls(slot_of(fd))))
        return real(send)(fd, buffer, length, flags);
    if (!may_write(fd, flags, &slot))
        return -1;
    first_write(fd, slot, buffer, length);
    if (slot_state(slot) != RELAY)
        return sent_by(fd, slot, real(send)(fd, buffer, length, flags_for(slot, flags)), length);
    struct iovec iov = {.iov_len = length};
    memcpy(&iov.iov_base, &buffer, sizeof buffer);
    return relay_write(fd, &iov, 1, flags_for(slot, flags));
}

/* TCP Fast Open would put clear text into the SYN: connect first, then send. */
static ssize_t send_open(int fd, const void *buffer, size_t length, int flags, const struct sockaddr *address,
                         socklen_t address_length)
{
    if (connect(fd, address, address_length) != 0)
        return -1;
    return send(fd, buffer, length, flags & ~MSG_FASTOPEN);
}

static bool opens(const struct sockaddr *address, int flags)
{
    return (flags & MSG_FASTOPEN) && address && (address->sa_family == AF_INET || address->sa_family == AF_INET6);
}

EXPORT ssize_t sendto(int fd, const void *buffer, size_t length, int flags, const struct sockaddr *address,
                      socklen_t address_length)
{
    if (unlikely(opens(address, flags)))
        return send_open(fd, buffer, length, flags, address, address_length);
    if (unlikely(is_tls(slot_of(fd))))
        return send(fd, buffer, length, flags); /* a connected TCP socket ignores the address */
    return real(sendto)(fd, buffer, length, flags, address, address_length);
}

static bool sets_record_type(const struct msghdr *header)
{
    const struct cmsghdr *message = header->msg_controllen ? CMSG_FIRSTHDR(header) : NULL;
    return message && message->cmsg_level == 282 /* SOL_TLS */;
}

/* A descriptor handed to another process must be the socket, not a gate that only this shim can open. The leash stays
 * here: the agent must know that the socket may be on its way when the leash ends. */
static void settle(int fd)
{
    if (is_tls(slot_of(fd)) && slot_state(gate_wait(fd, true, 0)) == KERNEL)
        gate_tell(hidden(fd), "P\0\0");
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *header, int flags)
{
    slot_t slot;
    if (unlikely(opens(header->msg_name, flags))) {
        if (connect(fd, header->msg_name, header->msg_namelen) != 0)
            return -1;
        flags &= ~MSG_FASTOPEN;
    }
    if (likely(!is_tls(slot_of(fd)))) {
        if (unlikely(header->msg_controllen > 0))
            each_passed(header, settle);
        return real(sendmsg)(fd, header, flags);
    }
    if (!may_write(fd, flags, &slot))
        return -1;
    struct msghdr bare = *header;
    bare.msg_name = NULL;
    bare.msg_namelen = 0;
    if (slot_state(slot) == RELAY || (slot_state(slot) == KERNEL && !sets_record_type(header))) {
        bare.msg_control = NULL; /* kTLS refuses every control message but its own; TCP takes them as hints */
        bare.msg_controllen = 0;
    }
    flags = flags_for(slot, flags);
    first_of(fd, slot, bare.msg_iov, bare.msg_iovlen);
    return slot_state(slot) == RELAY
               ? relay_send(fd, &bare, flags)
               : sent_by(fd, slot, real(sendmsg)(fd, &bare, flags), total_of(bare.msg_iov, bare.msg_iovlen));
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    if (likely(!is_tls(slot_of(fd))))
        return real(sendmmsg)(fd, messages, count, flags);
    unsigned done = 0;
    for (; done < count; done++) {
        ssize_t sent = sendmsg(fd, &messages[done].msg_hdr, flags);
        if (sent < 0)
            break;
        messages[done].msg_len = (unsigned)sent;
    }
    return done > 0 || count == 0 ? (int)done : -1;
}

EXPORT ssize_t sendfile(int to, int from, off_t *offset, size_t length)
{
    slot_t slot = PLAIN;
    if (unlikely(is_tls(slot_of(to))) && !may_write(to, 0, &slot))
        return -1;
    return sent_by(to, slot, real(sendfile)(to, from, offset, length), 0);
}

EXPORT ssize_t sendfile64(int to, int from, off64_t *offset, size_t length)
{
    slot_t slot = PLAIN;
    if (unlikely(is_tls(slot_of(to))) && !may_write(to, 0, &slot))
        return -1;
    return sent_by(to, slot, real(sendfile64)(to, from, offset, length), 0);
}

EXPORT ssize_t __write(int fd, const void *buffer, size_t length);
EXPORT ssize_t __write(int fd, const void *buffer, size_t length) { return write(fd, buffer, length); }

EXPORT ssize_t __send(int fd, const void *buffer, size_t length, int flags);
EXPORT ssize_t __send(int fd, const void *buffer, size_t length, int flags) { return send(fd, buffer, length, flags); }

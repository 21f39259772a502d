/* connect, accept, accept4: where a connection becomes ours. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "real.h"

static int fail(int error)
{
    errno = error;
    return -1;
}

static bool is_stream(int fd)
{
    int type = 0;
    socklen_t length = sizeof type;
    return real(getsockopt)(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
}

static bool is_inet(const struct sockaddr *address, socklen_t length)
{
    return address && length >= sizeof(struct sockaddr_in) &&
           (address->sa_family == AF_INET || address->sa_family == AF_INET6);
}

/* Says why once. If it was TCP that did not connect the next connect() begins afresh; the kernel, too, calls a socket whose
 * error has been taken already aborted. */
static int connect_failed(int fd, slot_t slot)
{
    int error = gate_failure(fd, slot);
    if (slot & NEVER_STOOD)
        gate_lower(fd);
    return fail(error ? error : ECONNABORTED);
}

/* A blocking connect() returns when the handshake is done, and its result is the handshake's. */
static int connect_wait(int fd, int too_late)
{
    slot_t slot = gate_wait(fd, false, SO_SNDTIMEO);
    if (slot_state(slot) == GATED)
        return fail(errno == EAGAIN ? too_late : errno);
    return slot_state(slot) == FAILED ? connect_failed(fd, slot) : 0;
}

/* connect() on a descriptor whose TCP connection already stands or is on its way. */
static int connect_again(int fd, const struct sockaddr *address, socklen_t length)
{
    slot_t slot = gate_poll(fd);
    if (address && length >= sizeof address->sa_family && address->sa_family == AF_UNSPEC) {
        if (slot_state(slot) != FAILED || !(slot & NEVER_STOOD))
            return fail(EOPNOTSUPP); /* as kTLS has it: a protected connection cannot be taken off its socket */
        gate_lower(fd);
        return 0;
    }
    switch (slot_state(slot)) {
    case GATED:
        return real(fcntl)(fd, F_GETFL) & O_NONBLOCK ? fail(EALREADY) : connect_wait(fd, EALREADY);
    case FAILED:
        return connect_failed(fd, slot);
    case RELAY:
        return real(connect)(hidden(fd), address, length);
    default:
        return real(connect)(fd, address, length);
    }
}

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    slot_t slot = slot_of(fd);
    if (is_tls(slot))
        return connect_again(fd, address, length);
    if (is_inet(address, length)) /* TCP_FASTOPEN_CONNECT would put clear text into the SYN */
        real(setsockopt)(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &(int){0}, sizeof(int));
    int result = real(connect)(fd, address, length);
    int error = result < 0 ? errno : 0;
    if (!is_inet(address, length) || (result < 0 && error != EINPROGRESS && error != EINTR) || !is_stream(fd)) {
        errno = error ? error : errno;
        return result;
    }
    struct request request = {.kind = REQUEST_CONNECT,
                              .flags = result < 0 ? REQUEST_IN_PROGRESS : 0,
                              .address = address,
                              .address_length = length};
    int refused = gate_raise(fd, &request);
    if (refused)
        return fail(refused);
    slot = slot_of(fd);
    if (slot_state(slot) != GATED || !(slot & OUTBOUND) || result < 0)
        return result < 0 ? fail(error) : 0;
    if (real(fcntl)(fd, F_GETFL) & O_NONBLOCK)
        return fail(EINPROGRESS);
    return connect_wait(fd, EINPROGRESS);
}

/* Gives the peer's address as accept() does: cut to the room there is, with its real length. 0, or an errno. */
static int give_address(struct sockaddr *address, socklen_t *length, const struct sockaddr_storage *peer,
                        socklen_t size)
{
    if (address == NULL)
        return 0;
    if (length == NULL)
        return EFAULT;
    if ((int)*length < 0)
        return EINVAL;
    memcpy(address, peer, *length < size ? *length : size);
    *length = size;
    return 0;
}

/* The peer's address is taken from accept() itself: of a connection that was reset in the queue nothing else tells it, and
 * what such a peer sent in clear can still be read. */
static int accept_one(int listener, struct sockaddr *address, socklen_t *length, int flags)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int saved = errno;
    int fd = real(accept4)(listener, (struct sockaddr *)&peer, &size, flags);
    if (fd < 0)
        return fd;
    slot_begin(fd, PLAIN);
    int error = give_address(address, length, &peer, size);
    if (error) {
        real(close)(fd);
        return fail(error);
    }
    if (is_inet((struct sockaddr *)&peer, size) && is_stream(fd)) {
        struct request request = {.kind = REQUEST_ACCEPT, .address = (struct sockaddr *)&peer, .address_length = size};
        int refused = gate_raise(fd, &request);
        if (refused) {
            real(close)(fd);
            /* What accept(2) says of a connection that ended before it could be handed over; servers try again. */
            return fail(refused == EMFILE || refused == ENFILE ? refused : ECONNABORTED);
        }
    }
    errno = saved;
    return fd;
}

EXPORT int accept(int fd, struct sockaddr *restrict address, socklen_t *restrict length)
{
    return accept_one(fd, address, length, 0);
}

EXPORT int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict length, int flags)
{
    return accept_one(fd, address, length, flags);
}

EXPORT int __connect(int fd, const struct sockaddr *address, socklen_t length);
EXPORT int __connect(int fd, const struct sockaddr *address, socklen_t length) { return connect(fd, address, length); }

/* Questions about the socket: while A stands at the descriptor they go to R, so that the gate cannot be told from a socket. */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>

#include "real.h"

static int fail(int error)
{
    errno = error;
    return -1;
}

/* Where to ask about fd. */
static int socket_of(int fd, slot_t slot)
{
    enum state state = slot_state(slot);
    return state == GATED || state == RELAY || state == FAILED ? hidden(fd) : fd;
}

static int put_int(void *value, socklen_t *length, int number)
{
    socklen_t size = *length < sizeof number ? *length : (socklen_t)sizeof number;
    memcpy(value, &number, size);
    *length = size;
    return 0;
}

/* TCP_ZEROCOPY_RECEIVE would take ciphertext out of R: all there is must be read, we say, as TCP says of small data. */
static int nothing_to_map(int fd, void *value, const socklen_t *length)
{
    struct {
        uint64_t address;
        uint32_t length, to_read;
    } asked;
    int unread = 0;
    if (!value || !length || *length < sizeof asked)
        return fail(EINVAL);
    if (ioctl(fd, FIONREAD, &unread) != 0)
        return -1;
    memcpy(&asked, value, sizeof asked);
    asked.length = 0;
    asked.to_read = (uint32_t)unread;
    memcpy(value, &asked, sizeof asked);
    return 0;
}

EXPORT int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict length)
{
    slot_t slot = slot_of(fd);
    if (likely(!is_tls(slot)))
        return real(getsockopt)(fd, level, name, value, length);
    if (level == IPPROTO_TCP && name == TCP_ZEROCOPY_RECEIVE)
        return nothing_to_map(fd, value, length);
    slot = gate_poll(fd);
    if (level == SOL_SOCKET && name == SO_ERROR && value && length && slot_state(slot) != KERNEL) {
        if (slot_state(slot) == FAILED)
            return put_int(value, length, gate_failure(fd, slot));
        if (slot_state(slot) == GATED)
            return put_int(value, length, 0);
        if (slot_state(slot) ==
            RELAY) { /* R's own belongs to the agent: taken from it, a reset would look like an end */
            int error = gate_relay_lost(fd);
            if (error)
                slot_flag(fd, TOLD);
            return put_int(value, length, error);
        }
    }
    if (level == IPPROTO_TCP && name == TCP_NODELAY && value && length && slot_state(slot) == GATED &&
        (slot & NODELAY_KNOWN)) /* the agent has it on meanwhile */
        return put_int(value, length, (slot & NODELAY_ON) != 0);
    int result = real(getsockopt)(socket_of(fd, slot), level, name, value, length), error = 0;
    if (level == SOL_SOCKET && name == SO_ERROR && result == 0 && *length >= sizeof error)
        memcpy(&error, value, sizeof error);
    if (error && slot_state(slot) == KERNEL) /* gone from the socket: kTLS would now take writes and send nothing */
        slot_flag(fd, SHUT_WRITE);
    return result;
}

/* Options that shape the program's own calls must hold where those calls happen: on A as well. */
static bool shapes_calls(int level, int name)
{
    return level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == SO_RCVLOWAT);
}

/* The agent sets TCP_NODELAY for the handshake and puts the old value back: the program's word is said again after it. */
static void note_nodelay(int fd, int level, int name, const void *value, socklen_t length)
{
    int on = 0;
    if (level != IPPROTO_TCP || name != TCP_NODELAY || length < sizeof on)
        return;
    memcpy(&on, value, sizeof on);
    if (!on)
        slot_unflag(fd, NODELAY_ON);
    slot_flag(fd, NODELAY_KNOWN | (on ? NODELAY_ON : 0));
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    slot_t slot = slot_of(fd);
    if (likely(!is_tls(slot)))
        return real(setsockopt)(fd, level, name, value, length);
    slot = gate_poll(fd);
    if (level == SOL_SOCKET && name == SO_ZEROCOPY)
        return fail(EOPNOTSUPP); /* kTLS refuses MSG_ZEROCOPY: say so here, where programs expect a refusal */
    if (slot_state(slot) == GATED)
        note_nodelay(fd, level, name, value, length);
    int result = real(setsockopt)(socket_of(fd, slot), level, name, value, length);
    if (result == 0 && socket_of(fd, slot) != fd && shapes_calls(level, name))
        real(setsockopt)(fd, level, name, value, length);
    return result;
}

EXPORT int getsockname(int fd, struct sockaddr *restrict address, socklen_t *restrict length)
{
    slot_t slot = slot_of(fd);
    if (likely(!is_tls(slot)))
        return real(getsockname)(fd, address, length);
    return real(getsockname)(socket_of(fd, gate_poll(fd)), address, length);
}

EXPORT int getpeername(int fd, struct sockaddr *restrict address, socklen_t *restrict length)
{
    slot_t slot = slot_of(fd);
    if (likely(!is_tls(slot)))
        return real(getpeername)(fd, address, length);
    slot = gate_poll(fd);
    if (slot_state(slot) == FAILED || (slot_state(slot) == GATED && (slot & OUTBOUND)))
        return fail(ENOTCONN); /* programs use it to ask whether connect() is done */
    return real(getpeername)(socket_of(fd, slot), address, length);
}

static int ioctl_tls(int fd, unsigned long request, void *argument)
{
    slot_t slot = gate_poll(fd);
    enum state state = slot_state(slot);
    int result;
    switch (request) {
    case FIONREAD: /* kTLS counts ciphertext, and not what it has decrypted already */
        if (state != KERNEL)
            return real(ioctl)(fd, request, argument);
        *(int *)argument = (int)record_pending(fd);
        return 0;
    case FIOCLEX:
    case FIONCLEX:
    case FIONBIO:
        result = real(ioctl)(fd, request, argument);
        if (result == 0 && (state != KERNEL || request != FIONBIO))
            real(ioctl)(hidden(fd), request, argument);
        return result;
    case SIOCOUTQ:
        return real(ioctl)(fd, request, argument);
    default:
        return real(ioctl)(socket_of(fd, slot), request, argument);
    }
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (likely(!is_tls(slot_of(fd))))
        return real(ioctl)(fd, request, argument);
    return ioctl_tls(fd, request, argument);
}

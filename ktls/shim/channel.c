/* The channel to the agent: requests go one way, each with two descriptors; answers come on the gate (docs/protocol.md). */
#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "real.h"

static int channel(void) { return 2 * shim_base; }

/* The inherited channel is gone (the program closed it where we could not see, or the agent was started anew). */
static bool reconnect(void)
{
    const char *path = shim_agent_path();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, path, length);
    const struct timeval patience = {.tv_sec = AGENT_WAIT_MS / 1000};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    real(setsockopt)(fd, SOL_SOCKET, SO_SNDTIMEO, &patience,
                     sizeof patience); /* for connect(): its queue may be full */
    bool done =
        real(connect)(fd, (struct sockaddr *)&address, sizeof address) == 0 && place(fd, channel(), false) == channel();
    real(close)(fd);
    return done;
}

/* An agent that does not read (stopped, or out of its mind) holds nobody up for ever. errno EAGAIN: it has not read. */
static bool wait_for_room(int64_t until)
{
    int64_t left = until - now_ms();
    struct pollfd pollfd = {.fd = channel(), .events = POLLOUT};
    bool room = left > 0 && (real(poll)(&pollfd, 1, (int)left) > 0 || errno == EINTR);
    errno = EAGAIN;
    return room;
}

static bool send_once(const void *message, size_t length, const int descriptors[2])
{
    union {
        char space[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {.iov_len = length};
    memcpy(&iov.iov_base, &message, sizeof message);
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(rights), descriptors, 2 * sizeof(int));
    for (int64_t until = now_ms() + AGENT_WAIT_MS;;) {
        if (real(sendmsg)(channel(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)length)
            return true;
        if (errno != EINTR && !(errno == EAGAIN && wait_for_room(until)))
            return false;
    }
}

bool channel_send(const void *message, size_t length, const int descriptors[2])
{
    limits_raise(); /* a new channel needs a descriptor; and descriptors under way count against the limit, unix(7) */
    bool sent = send_once(message, length, descriptors) ||
                (errno != EAGAIN && reconnect() && send_once(message, length, descriptors));
    limits_lower();
    return sent;
}

struct notice {
    char magic[4];
    uint8_t version, kind;
    uint16_t flags;
    uint32_t filler;
    uint16_t address_length, text_length;
    uint8_t address[28];
    char text[NOTICE_MAX];
};

void channel_notice(const char *text, size_t length, bool allowed)
{
    int saved = errno;
    struct notice notice = {.magic = {'K', 'T', 'L', 'S'},
                            .version = 1,
                            .kind = NOTICE_UNCOVERED,
                            .flags = allowed ? NOTICE_ALLOWED : 0,
                            .text_length = (uint16_t)length};
    memcpy(notice.text, text, length);
    size_t size = offsetof(struct notice, text) + length;
    if (real(send)(channel(), &notice, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN && reconnect())
        real(send)(channel(), &notice, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    errno = saved;
}

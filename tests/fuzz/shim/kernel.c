/* The kernel of kernel.h, and what the files under test need of those that are left out. */
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#include "kernel.h"

struct real real_calls;
atomic_bool shim_started = true;
atomic_bool shim_sandboxed;

static const uint8_t *input;
static size_t left;

void shim_start(void) {}

/* What the shim was started with; environment.c has more. */
__attribute__((weak)) const char *shim_getenv(const char *name)
{
    (void)name;
    return NULL;
}

void epoll_leave(int fd) { (void)fd; }

void epoll_enter(int fd, bool marked) { (void)fd, (void)marked; }

void epoll_unmark(int fd) { (void)fd; }

/* The machine has limits of its own. */
void limits_start(void) {}

void limits_after_fork(void) {}

void limits_raise(void) {}

void limits_lower(void) {}

/* A wait for new keys lasts seconds. */
int nanosleep(const struct timespec *time, struct timespec *rest)
{
    (void)time, (void)rest;
    return 0;
}

/* --- the fuzzer's bytes ----------------------------------------------------------------------------------------------- */

size_t bytes_left(void) { return left; }

uint8_t next_byte(void)
{
    if (left == 0)
        return 0;
    left--;
    return *input++;
}

size_t next_bytes(void *out, size_t most)
{
    size_t count = most < left ? most : left;
    if (count > 0)
        memcpy(out, input, count);
    input += count;
    left -= count;
    return count;
}

size_t next_below(size_t bound)
{
    size_t value = next_byte();
    if (bound > 256)
        value = value << 8 | next_byte();
    return value % bound;
}

char *next_string(size_t most)
{
    size_t length = next_below(most + 1);
    if (length > left)
        length = left;
    char *text = calloc(1, length + 1);
    next_bytes(text, length);
    return text; /* it may hold zeros: then it ends sooner */
}

void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

/* --- the kernel ------------------------------------------------------------------------------------------------------- */

static int next_error(void)
{
    static const int errors[] = {EIO,    EAGAIN,     EKEYEXPIRED, EINTR,   EBADMSG, EMSGSIZE,
                                 EINVAL, ECONNRESET, ENOTCONN,    ENOBUFS, EPIPE,   EBADF};
    errno = errors[next_below(LENGTH(errors))];
    return -1;
}

/* A record, an end of file or an error; with no bytes left, nothing to read for ever. */
static ssize_t fake_recvmsg(int fd, struct msghdr *header, int flags)
{
    (void)fd, (void)flags;
    if (left == 0) {
        errno = EAGAIN;
        return -1;
    }
    uint8_t choice = next_byte();
    if (choice < 40)
        return next_error();
    unsigned char type = choice < 60 ? 23 : choice < 120 ? 21 : choice < 200 ? 22 : next_byte();
    size_t length = choice >= 250 ? 0 : next_below(600), got = 0;
    for (size_t i = 0; i < header->msg_iovlen && got < length; i++) {
        size_t part = header->msg_iov[i].iov_len < length - got ? header->msg_iov[i].iov_len : length - got;
        memset(header->msg_iov[i].iov_base, 0, part);
        next_bytes(header->msg_iov[i].iov_base, part);
        got += part;
    }
    header->msg_flags = choice & 1 ? MSG_EOR : 0;
    struct cmsghdr *message = header->msg_control ? CMSG_FIRSTHDR(header) : NULL;
    if (message == NULL || (choice & 14) == 2) { /* without room the kernel would not have given it */
        header->msg_controllen = 0;
        return (ssize_t)got;
    }
    message->cmsg_level = choice % 16 == 4 ? SOL_SOCKET : SOL_TLS;
    message->cmsg_type = TLS_GET_RECORD_TYPE;
    message->cmsg_len = CMSG_LEN(sizeof type);
    *CMSG_DATA(message) = type;
    header->msg_controllen = CMSG_SPACE(sizeof type);
    return (ssize_t)got;
}

/* Without room for a record's type the kernel gives data, and tells of all else with EIO. */
static ssize_t fake_readv(int fd, const struct iovec *iov, int count)
{
    struct msghdr header = {.msg_iovlen = (size_t)count};
    memcpy(&header.msg_iov, &iov, sizeof header.msg_iov);
    return fake_recvmsg(fd, &header, 0);
}

static ssize_t fake_read(int fd, void *buffer, size_t size)
{
    return fake_readv(fd, &(struct iovec){.iov_base = buffer, .iov_len = size}, 1);
}

static ssize_t fake_recv(int fd, void *buffer, size_t size, int flags)
{
    (void)fd, (void)flags;
    size_t length = next_byte() & 1 ? size : next_below(size + 1);
    return (ssize_t)next_bytes(buffer, length);
}

/* A Unix name as unix(7) has it: pathname, abstract or none, 111 bytes at most, one more than the structure has. */
static int next_name(struct sockaddr *address, socklen_t *length)
{
    struct {
        sa_family_t family;
        char path[109];
    } name = {.family = AF_UNIX};
    uint8_t choice = next_byte();
    if (choice == 0)
        return next_error();
    if (choice == 1)
        name.family = AF_INET;
    size_t size = next_bytes(name.path, choice % sizeof name.path) + sizeof name.family;
    memcpy(address, &name, size < *length ? size : *length);
    *length = (socklen_t)size;
    return 0;
}

static int fake_getpeername(int fd, struct sockaddr *restrict address, socklen_t *restrict length)
{
    (void)fd;
    return next_name(address, length);
}

static int fake_getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict length)
{
    (void)fd, (void)level, (void)name;
    if (next_byte() == 0)
        return next_error();
    memset(value, 0, *length);
    *length = (socklen_t)next_bytes(value, *length);
    return 0;
}

static int fake_setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    (void)fd, (void)level, (void)name, (void)value, (void)length;
    return 0;
}

static int fake_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return next_byte() & 1 ? next_error() : 0;
}

static ssize_t fake_send(int fd, const void *data, size_t size, int flags)
{
    (void)fd, (void)data, (void)flags;
    return next_byte() == 0 ? next_error() : (ssize_t)size;
}

static ssize_t fake_sendmsg(int fd, const struct msghdr *header, int flags)
{
    (void)fd, (void)flags;
    size_t total = 0;
    for (size_t i = 0; i < header->msg_iovlen; i++)
        total += header->msg_iov[i].iov_len;
    return next_byte() == 0 ? next_error() : (ssize_t)total;
}

static int fake_poll(struct pollfd *list, nfds_t count, int limit)
{
    (void)limit;
    for (nfds_t i = 0; i < count; i++)
        list[i].revents = (short)next_byte();
    return left == 0 ? 0 : (int)count;
}

static int fake_fcntl(int fd, int command, ...)
{
    (void)fd;
    uint8_t choice = next_byte();
    if (choice == 0)
        return next_error();
    if (command == F_GETFL)
        return choice & 1 ? O_NONBLOCK | O_RDWR : O_RDWR;
    return command == F_GETFD ? choice & FD_CLOEXEC : hidden(FD);
}

static int fake_dup3(int from, int to, int flags)
{
    (void)from, (void)flags;
    return next_byte() == 0 ? next_error() : to;
}

/* gate_raise() makes a true pair, which must not be left open. */
static int fake_close(int fd) { return fd > 2 && fd < BASE && fd != FD ? close(fd) : 0; }

static int fake_shutdown(int fd, int how)
{
    (void)fd, (void)how;
    return 0;
}

static int fake_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    (void)fd, (void)address, (void)length;
    return next_error();
}

void kernel_begin(const uint8_t *data, size_t size)
{
    input = data;
    left = size;
    shim_base = BASE;
    slots_after_fork();
    slot_set(FD, UNKNOWN);
    real_calls.recvmsg = fake_recvmsg;
    real_calls.read = fake_read;
    real_calls.readv = fake_readv;
    real_calls.recv = fake_recv;
    real_calls.getpeername = fake_getpeername;
    real_calls.getsockname = fake_getpeername;
    real_calls.getsockopt = fake_getsockopt;
    real_calls.setsockopt = fake_setsockopt;
    real_calls.ioctl = fake_ioctl;
    real_calls.send = fake_send;
    real_calls.sendmsg = fake_sendmsg;
    real_calls.poll = fake_poll;
    real_calls.fcntl = fake_fcntl;
    real_calls.dup3 = fake_dup3;
    real_calls.close = fake_close;
    real_calls.shutdown = fake_shutdown;
    real_calls.connect = fake_connect;
}

/* Slots: one word per descriptor that says what it is, a hint that the kernel can confirm at any time. */
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#include "real.h"

int shim_base;
static _Atomic slot_t slots[SLOT_COUNT];
static _Atomic pid_t owner; /* the process whose memory this is; a vfork child sees another pid */

bool slots_are_ours(void) { return getpid() == atomic_load(&owner); }

void slots_after_fork(void)
{
    atomic_store(&owner, getpid());
    limits_after_fork();
}

static bool in_range(int fd) { return fd >= 0 && fd < shim_base && fd < SLOT_COUNT; }

bool has_cloexec(int fd) { return (real(fcntl)(fd, F_GETFD) & FD_CLOEXEC) != 0; }

/* Another thread may lower the limit at the very moment (limits_lower). */
static int copy_high(int fd, int at, bool cloexec, bool over)
{
    int copy, tries = 0;
    limits_raise();
    do
        copy = over ? real(dup3)(fd, at, cloexec ? O_CLOEXEC : 0)
                    : real(fcntl)(fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, at);
    while (copy < 0 && (errno == EINVAL || errno == EBADF || errno == EBUSY) && ++tries < 100);
    limits_lower();
    return copy;
}

int hide(int fd, int at, bool cloexec)
{
    int copy = copy_high(fd, at, cloexec, false);
    if (copy == at)
        return at;
    if (copy >= 0)
        real(close)(copy);
    errno = EMFILE;
    return -1;
}

int hide_aside(int fd) { return copy_high(fd, 2 * shim_base + 1, true, false); }

int place(int fd, int at, bool cloexec) { return copy_high(fd, at, cloexec, true); }

static int domain_of(int fd)
{
    int domain = 0;
    socklen_t length = sizeof domain;
    return real(getsockopt)(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 ? domain : -1;
}

static bool is_tcp(int fd)
{
    int domain = domain_of(fd);
    return domain == AF_INET || domain == AF_INET6;
}

static bool has_ulp(int fd)
{
    char name[16] = "";
    socklen_t length = sizeof name;
    return real(getsockopt)(fd, IPPROTO_TCP, TCP_ULP, name, &length) == 0 && length >= 3 && memcmp(name, "tls", 3) == 0;
}

/* Keys for reading: then control records come, whoever put them in. */
static bool has_keys(int fd)
{
    struct tls_crypto_info info = {0}; /* version and cipher only: the key stays in the kernel */
    socklen_t length = sizeof info;
    return has_ulp(fd) && real(getsockopt)(fd, SOL_TLS, TLS_RX, &info, &length) == 0;
}

/* The program's direction is already ended (before an exec, or by another process)? */
static bool is_shut(int fd)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    if (real(getsockopt)(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
        return false;
    return info.tcpi_state == TCP_FIN_WAIT1 || info.tcpi_state == TCP_FIN_WAIT2 || info.tcpi_state == TCP_LAST_ACK ||
           info.tcpi_state == TCP_CLOSING;
}

/* From descriptor numbers and sockets alone: after exec, and for descriptors that came from another process. */
static slot_t classify(int fd)
{
    int twin = hidden(fd);
    if (real(fcntl)(twin, F_GETFD) <
        0) /* with keys it is ours all the same; how the agent was told to take its end is lost */
        return is_tcp(fd) && has_keys(fd) ? KERNEL | STRICT_EOF | (is_shut(fd) ? SHUT_WRITE : 0) : PLAIN;
    if (is_tcp(twin) && domain_of(fd) == AF_UNIX) /* R is the hidden one, so fd is a gate end, open or not */
        return GATED;
    if (is_tcp(fd) && has_ulp(fd))
        return KERNEL | gate_outcome(twin).flags | gate_marks(twin) | (is_shut(fd) ? SHUT_WRITE : 0);
    real(close)(twin); /* the program closed fd where we could not see it: its leash must not outlive it */
    return PLAIN;
}

slot_t slot_of(int fd)
{
    if (unlikely(!in_range(fd)))
        return PLAIN;
    slot_t slot = atomic_load_explicit(&slots[fd], memory_order_acquire);
    if (likely(slot_state(slot) != UNKNOWN))
        return slot;
    int saved = errno;
    slot_t found = with_turn(slot, classify(fd));
    errno = saved;
    if (!slot_swap(fd, slot, found) && slots_are_ours())
        return atomic_load_explicit(&slots[fd], memory_order_acquire); /* another thread was faster, or knows better */
    return found;
}

void slot_begin(int fd, slot_t slot)
{
    if (!in_range(fd) || !slots_are_ours())
        return;
    slot_t old = atomic_load(&slots[fd]);
    while (!atomic_compare_exchange_weak(&slots[fd], &old, with_turn(old + ((slot_t)1 << TURN_SHIFT), slot)))
        ;
}

void slot_set(int fd, slot_t slot)
{
    if (!in_range(fd) || !slots_are_ours())
        return;
    slot_t old = atomic_load(&slots[fd]);
    while (slot_turn(old) == slot_turn(slot) && !atomic_compare_exchange_weak(&slots[fd], &old, slot))
        ;
}

void slot_flag(int fd, slot_t flags)
{
    if (in_range(fd) && slots_are_ours())
        atomic_fetch_or_explicit(&slots[fd], flags, memory_order_acq_rel);
}

void slot_unflag(int fd, slot_t flags)
{
    if (in_range(fd) && slots_are_ours())
        atomic_fetch_and_explicit(&slots[fd], ~flags, memory_order_acq_rel);
}

bool slot_swap(int fd, slot_t expected, slot_t slot)
{
    return in_range(fd) && slots_are_ours() && atomic_compare_exchange_strong(&slots[fd], &expected, slot);
}

void forget(int fd)
{
    int saved = errno;
    slot_begin(fd, UNKNOWN);
    real(close)(hidden(fd));
    errno = saved;
}

/* As the kernel walks them (CMSG_OK in include/linux/socket.h): a length that it would refuse ends the walk, and the last
 * message need not be padded, which glibc's CMSG_NXTHDR asks for. */
void each_passed(const struct msghdr *header, void (*act)(int fd))
{
    const char *at = header->msg_control;
    size_t left = header->msg_controllen;
    struct cmsghdr message;
    while (left >= sizeof message) {
        memcpy(&message, at, sizeof message);
        if (message.cmsg_len < sizeof message || message.cmsg_len > left)
            return;
        size_t count = (message.cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && message.cmsg_level == SOL_SOCKET && message.cmsg_type == SCM_RIGHTS; i++) {
            int fd;
            memcpy(&fd, at + CMSG_LEN(0) + i * sizeof fd, sizeof fd);
            act(fd);
        }
        size_t step = CMSG_ALIGN(message.cmsg_len);
        if (step > left)
            return;
        at += step;
        left -= step;
    }
}

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

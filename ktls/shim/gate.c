/* The gate: raise it, learn how the handshake went, put the real socket (or nothing) in its place.
 *
 * Theory of operation
 * 1. While gated, fd is A (one end of a Unix pair whose send buffer is full: neither readable nor writable, so pollers sleep)
 *    and fd + base is R, the TCP socket. Nothing the program writes can reach R.
 * 2. The agent names its end B when it knows the outcome, and only then makes A readable and writable. The name is read,
 *    never consumed: any thread and any process that holds A sees the same.
 * 3. Outcome K: R takes A's place at fd, A becomes the leash at fd + base. One thread does it (slot MOVING), with signals
 *    blocked so that a handler cannot meet its own half-done move; others wait for it. A process that is not the owner of
 *    the slot table (vfork child) moves its own descriptors and leaves the table alone.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#include "real.h"

/* What the end of a relayed stream means: the agent's note on R, an option that does nothing on a standing connection. */
enum { MARK_BROKEN = 126, MARK_CLEAN = 127 };
enum { NAME_MAX_LENGTH = 253, FILLER_MAX = 64 };
enum { RELAY_BUFFER = 1 << 20 }; /* bytes; the kernel takes no more than net.core.wmem_max of it */
enum { SLICE_MS = 250, LEASH_WAIT_MS = 1000 };
enum { LARGEST_ERRNO = 4095 }; /* as in the kernel's MAX_ERRNO */

/* A number from outside as an errno: a slot has no room for others, and a failure with errno 0 would be none. */
static int errno_from(long number, int otherwise)
{
    return number > 0 && number <= LARGEST_ERRNO ? (int)number : otherwise;
}

struct __attribute__((packed)) wire_request {
    char magic[4];
    uint8_t version;
    uint8_t kind;
    uint16_t flags;
    uint32_t filler;
    uint16_t address_length;
    uint16_t name_length;
    uint8_t address[28];
    char name[NAME_MAX_LENGTH];
};

struct __attribute__((packed)) wire_verdict {
    char magic;
    char verdict;
    uint8_t zero[2];
    int32_t error;
};

/* --- raising ---------------------------------------------------------------------------------------------------------- */

static uint32_t fill(int a)
{
    int least = 1;
    uint32_t filler = 0;
    real(setsockopt)(a, SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
    while (filler < FILLER_MAX && real(send)(a, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
        filler++;
    return filler;
}

static bool ask(int fd, int b, uint32_t filler, const struct request *request)
{
    struct wire_request wire = {.magic = {'K', 'T', 'L', 'S'},
                                .version = 1,
                                .kind = (uint8_t)request->kind,
                                .flags = (uint16_t)request->flags,
                                .filler = filler};
    if (request->address && request->address_length <= sizeof wire.address) {
        wire.address_length = (uint16_t)request->address_length;
        memcpy(wire.address, request->address, request->address_length);
        wire.name_length = (uint16_t)name_of(request->address, wire.name, sizeof wire.name);
    }
    size_t length = offsetof(struct wire_request, name) + wire.name_length;
    return channel_send(&wire, length, (const int[]){fd, b});
}

/* The agent answers at once; a bound keeps a stuck one from hanging the program. 0, or an errno. */
static int hear(int a, char *verdict)
{
    struct wire_verdict wire;
    struct pollfd pollfd = {.fd = a, .events = POLLIN};
    int ready;
    do
        ready = real(poll)(&pollfd, 1, AGENT_WAIT_MS);
    while (ready < 0 && errno == EINTR);
    if (ready <= 0 || real(recv)(a, &wire, sizeof wire, MSG_DONTWAIT) != sizeof wire || wire.magic != 'V')
        return ECONNREFUSED;
    *verdict = wire.verdict;
    return wire.verdict == 'D' ? errno_from(wire.error, EACCES) : 0;
}

/* Options set before the connection stood (or on its listener) that shape the program's calls, which A now answers. */
static void copy_shape(int r, int a)
{
    static const int names[] = {SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVLOWAT};
    for (size_t i = 0; i < LENGTH(names); i++) {
        struct timeval value;
        socklen_t length = sizeof value;
        if (real(getsockopt)(r, SOL_SOCKET, names[i], &value, &length) == 0)
            real(setsockopt)(a, SOL_SOCKET, names[i], &value, length);
    }
}

/* Puts A where the program has R, and R at its hidden place. 0, or an errno. */
static int stand(int fd, int a, slot_t flags)
{
    bool cloexec = has_cloexec(fd);
    int status = real(fcntl)(fd, F_GETFL);
    if (status >= 0 && (status & O_NONBLOCK))
        real(fcntl)(a, F_SETFL, status & (O_NONBLOCK | O_RDWR));
    copy_shape(fd, a);
    if (hide(fd, hidden(fd), cloexec) < 0)
        return errno;
    epoll_leave(fd);
    if (place(a, fd, cloexec) < 0) {
        int error = errno;
        real(close)(hidden(fd));
        return error;
    }
    slot_begin(fd, GATED | flags);
    epoll_enter(fd, true);
    return 0;
}

/* The agent turns it on for the handshake: what the program has is noted before. */
static slot_t nodelay_of(int fd)
{
    int on = 0;
    socklen_t length = sizeof on;
    if (real(getsockopt)(fd, IPPROTO_TCP, TCP_NODELAY, &on, &length) != 0)
        return 0;
    return NODELAY_KNOWN | (on ? NODELAY_ON : 0);
}

static int raise_with(int fd, const int pair[2], const struct request *request)
{
    char verdict = 'D';
    slot_t flags = (request->kind == REQUEST_CONNECT ? OUTBOUND : 0) | nodelay_of(fd);
    bool asked = ask(fd, pair[1], fill(pair[0]), request);
    real(close)(pair[1]);
    int error = asked ? hear(pair[0], &verdict) : ECONNREFUSED;
    if (verdict == 'S' && !(request->flags & REQUEST_IN_PROGRESS))
        flags &= ~OUTBOUND; /* the peer may wait for the program's next word before it accepts: connected it is */
    if (error == 0 && (verdict == 'T' || verdict == 'S'))
        error = stand(fd, pair[0], flags);
    else if (error == 0 && verdict != 'C')
        error = EPROTO;
    return error;
}

int gate_raise(int fd, const struct request *request)
{
    int pair[2], error = EMFILE, cancellable;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancellable); /* no thread ends between the verdict and its gate */
    if (fd < shim_base && fd < SLOT_COUNT) {
        limits_raise(); /* the program may have used its last descriptor for this connection */
        bool made = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0;
        limits_lower();
        if (made) {
            error = raise_with(fd, pair, request);
            real(close)(pair[0]);
        } else {
            error = errno;
        }
    }
    if (error)
        real(shutdown)(fd, SHUT_RDWR); /* fail closed: whatever the program does next, nothing leaves */
    pthread_setcancelstate(cancellable, NULL);
    return error;
}

/* --- names ------------------------------------------------------------------------------------------------------------ */

static const char *text_after(const struct sockaddr_un *name, socklen_t length, const char *prefix)
{
    size_t size = strlen(prefix), start = offsetof(struct sockaddr_un, sun_path) + 1;
    if (length <= start + size || name->sun_path[0] != 0 || memcmp(name->sun_path + 1, prefix, size) != 0)
        return NULL;
    return name->sun_path + 1 + size;
}

static slot_t flag_of(char letter)
{
    switch (letter) {
    case 's':
        return STRICT_EOF;
    case 'p':
        return CONFIRM_IN;
    case 'k':
        return CAN_REKEY;
    case 't':
        return TICKETS_DUE;
    case 'n':
        return NEVER_STOOD;
    case 'w':
        return FIRST_WRITE;
    default:
        return 0;
    }
}

static slot_t flags_from(const char *text)
{
    slot_t flags = 0;
    for (; *text && *text != '/'; text++)
        flags |= flag_of(*text);
    return flags;
}

struct outcome gate_outcome(int a)
{
    union {
        struct sockaddr_un name;
        char space[sizeof(struct sockaddr_un) + 1]; /* a terminator for the longest name */
    } buffer;
    socklen_t length = sizeof buffer.name;
    struct outcome outcome = {0};
    memset(&buffer, 0, sizeof buffer);
    if (real(getpeername)(a, (struct sockaddr *)&buffer.name, &length) != 0 || buffer.name.sun_family != AF_UNIX) {
        outcome.kind = '?';
        return outcome;
    }
    const char *text = text_after(&buffer.name, length, "ktls/");
    if (text == NULL || text[1] != '/')
        return outcome;
    char *end;
    outcome.error = errno_from(strtol(text + 2, &end, 10), EPROTO);
    if (*end != '/')
        return outcome;
    outcome.flags = flags_from(end + 1);
    outcome.kind = text[0] == 'K' || text[0] == 'R' || text[0] == 'C' ? text[0] : 'F'; /* an unknown one fails closed */
    return outcome;
}

slot_t gate_marks(int a)
{
    union {
        struct sockaddr_un name;
        char space[sizeof(struct sockaddr_un) + 1];
    } buffer;
    socklen_t length = sizeof buffer.name;
    memset(&buffer, 0, sizeof buffer);
    if (real(getsockname)(a, (struct sockaddr *)&buffer.name, &length) != 0)
        return 0;
    if (text_after(&buffer.name, length, "ktls/eof/"))
        return SEEN_EOF;
    const char *text = text_after(&buffer.name, length, "ktls/err/");
    return text ? with_errno(0, errno_from(strtol(text, NULL, 10), EPROTO)) : 0;
}

int gate_relay_end(int r)
{
    int mark = 0;
    socklen_t length = sizeof mark;
    if (real(getsockopt)(r, IPPROTO_TCP, TCP_SYNCNT, &mark, &length) != 0)
        return ECONNRESET;
    return mark == MARK_CLEAN ? 0 : mark == MARK_BROKEN ? EPROTO : ECONNRESET;
}

int gate_relay_lost(int fd)
{
    struct pollfd pollfd = {.fd = fd};
    int saved = errno, error = 0;
    if (!(slot_of(fd) & TOLD) && real(poll)(&pollfd, 1, 0) == 1 && (pollfd.revents & POLLHUP))
        error = gate_relay_end(hidden(fd));
    errno = saved;
    return error;
}

static char *put_number(char *out, uint64_t value, unsigned base)
{
    char digits[24];
    size_t count = 0;
    do
        digits[count++] = "0123456789abcdef"[value % base];
    while ((value /= base) > 0);
    while (count > 0)
        *out++ = digits[--count];
    return out;
}

void gate_mark(int a, const char *kind, int error)
{
    static _Atomic uint32_t serial;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct timespec now = {0};
    char *out = name.sun_path + 1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    memcpy(out, "ktls/", 5);
    memcpy(out + 5, kind, 3);
    out += 8;
    *out++ = '/';
    if (error) {
        out = put_number(out, (uint64_t)error, 10);
        *out++ = '/';
    }
    /* Unique among the host's names, not secret: process, time, serial. A name already given makes bind fail: fine. */
    out = put_number(out, (uint64_t)getpid(), 16);
    out = put_number(out, (uint64_t)now.tv_nsec, 16);
    out = put_number(out, atomic_fetch_add(&serial, 1), 16);
    int saved = errno;
    bind(a, (struct sockaddr *)&name, (socklen_t)(out - (char *)&name));
    errno = saved;
}

void gate_tell(int a, const char message[LEASH_MESSAGE])
{
    struct pollfd pollfd = {.fd = a, .events = POLLOUT};
    int saved = errno;
    bool full = real(send)(a, message, LEASH_MESSAGE, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EAGAIN;
    if (full && real(poll)(&pollfd, 1, LEASH_WAIT_MS) == 1)
        real(send)(a, message, LEASH_MESSAGE, MSG_DONTWAIT | MSG_NOSIGNAL);
    errno = saved;
}

/* --- opening ---------------------------------------------------------------------------------------------------------- */

static void apply_nodelay(int fd, slot_t slot)
{
    int on = (slot & NODELAY_ON) != 0;
    if (slot & NODELAY_KNOWN)
        real(setsockopt)(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* R to fd; A to fd + base (outcome K) or away (outcome C). */
static slot_t move_in(int fd, slot_t slot, const struct outcome *outcome)
{
    bool cloexec = has_cloexec(fd);
    int leash = outcome->kind == 'K' ? hide_aside(fd) : -1;
    if (outcome->kind == 'K' && leash < 0)
        return with_errno(with_state(slot, FAILED), EMFILE);
    epoll_leave(fd);
    place(hidden(fd), fd, cloexec);
    if (leash >= 0) {
        place(leash, hidden(fd), cloexec);
        real(close)(leash);
    } else {
        real(close)(hidden(fd));
    }
    epoll_enter(fd, outcome->kind == 'K' && must_confirm(outcome->flags));
    apply_nodelay(fd, slot);
    slot_t keep = slot & (SHUT_READ | SHUT_WRITE | COPIED);
    return with_turn(slot, leash >= 0 ? KERNEL | outcome->flags | keep : PLAIN);
}

static slot_t settle(int fd, slot_t slot, const struct outcome *outcome)
{
    switch (outcome->kind) {
    case 'K':
    case 'C':
        return move_in(fd, slot, outcome);
    case 'R':
        real(setsockopt)(fd, SOL_SOCKET, SO_SNDBUF, &(int){RELAY_BUFFER}, sizeof(int));
        epoll_unmark(fd);
        apply_nodelay(hidden(fd), slot);
        return with_state(slot, RELAY) | outcome->flags;
    default:
        /* Its registrations stay marked: what the program is to see is not what A is ready for. */
        return with_errno(with_state(slot, FAILED) | (outcome->flags & NEVER_STOOD), outcome->error);
    }
}

/* An agent that died left a hung-up gate without a name. */
static bool abandoned(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    return real(poll)(&pollfd, 1, 0) == 1 && (pollfd.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/* What the program asked for while the gate was closed, without waiting (shutdown() in call_life.c). */
static void carry_out(int fd, slot_t slot)
{
    if (slot_state(slot) == KERNEL && (slot & SHUT_WRITE))
        record_close_notify(fd);
    if (slot_state(slot) == FAILED || !(slot & (SHUT_READ | SHUT_WRITE)))
        return;
    real(shutdown)(fd, (slot & SHUT_READ) && (slot & SHUT_WRITE) ? SHUT_RDWR : slot & SHUT_READ ? SHUT_RD : SHUT_WR);
}

static slot_t wait_for_mover(int fd)
{
    slot_t slot;
    while (slot_state(slot = slot_of(fd)) == MOVING)
        sched_yield();
    return slot;
}

slot_t gate_poll(int fd)
{
    slot_t slot = wait_for_mover(fd);
    if (slot_state(slot) != GATED)
        return slot;
    int saved = errno;
    struct outcome outcome = gate_outcome(fd);
    if (outcome.kind == 0 && abandoned(fd)) {
        outcome = gate_outcome(fd); /* the name may have come in between */
        if (outcome.kind == 0)
            outcome = (struct outcome){.kind = 'F', .error = ECONNREFUSED};
    }
    if (outcome.kind == '?') { /* closed, or moved by a process that shares our table: look at it afresh */
        slot_swap(fd, slot, with_turn(slot, UNKNOWN));
        slot = slots_are_ours() ? slot_of(fd) : with_turn(slot, KERNEL);
    } else if (outcome.kind != 0) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        bool ours = slots_are_ours();
        if (!ours || slot_swap(fd, slot, with_state(slot, MOVING))) {
            slot = settle(fd, slot, &outcome);
            if (ours)
                carry_out(fd, slot);
            slot_set(fd, slot);
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (ours)
            slot = wait_for_mover(fd);
    }
    errno = saved;
    return slot;
}

int gate_failure(int fd, slot_t slot)
{
    if (!(slot & NEVER_STOOD))
        return slot_errno(slot);
    slot_flag(fd, ERROR_TOLD);
    return slot & ERROR_TOLD ? 0 : slot_errno(slot);
}

void gate_lower(int fd)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    slot_t slot = slot_of(fd);
    if (slot_state(slot) == FAILED && slot_swap(fd, slot, with_state(slot, MOVING))) {
        bool cloexec = has_cloexec(fd);
        epoll_leave(fd);
        real(connect)(hidden(fd), &nobody, sizeof nobody); /* takes the refusal off the socket */
        real(dup3)(hidden(fd), fd, cloexec ? O_CLOEXEC : 0);
        real(close)(hidden(fd));
        epoll_enter(fd, false);
        slot_set(fd, with_turn(slot, PLAIN));
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* A thread gets these for what it does itself: none ends a wait. Language runtimes handle them, often without SA_RESTART. */
static bool is_fault(int number)
{
    return number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL || number == SIGTRAP ||
           number == SIGABRT;
}

/* After EINTR: would the kernel have gone on by itself? Yes if every handler in place was set with SA_RESTART. We cannot
 * see which signal came, so a program that mixes both kinds gets its EINTR. */
static bool restarts(void)
{
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        if (is_fault(number))
            continue;
        if (sigaction(number, NULL, &action) != 0 || action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)
            continue;
        if (!(action.sa_flags & SA_RESTART))
            return false;
    }
    return true;
}

int gate_timeout(int fd, int option)
{
    struct timeval value = {0};
    socklen_t length = sizeof value;
    if (option == 0 || real(getsockopt)(fd, SOL_SOCKET, option, &value, &length) != 0)
        return -1;
    if (value.tv_sec == 0 && value.tv_usec == 0)
        return -1;
    return (int)(value.tv_sec * 1000 + value.tv_usec / 1000);
}

/* Waits in slices: poll() looks its numbers up again each time it wakes. When another thread has closed the descriptor and
 * the number is another's, it sleeps on for what has happened already; send() and recv() of TCP hold on to their file. */
slot_t gate_wait(int fd, bool force, int timeout_option)
{
    slot_t slot = gate_poll(fd);
    int64_t end = 0;
    while (slot_state(slot) == GATED) {
        if (!force && (real(fcntl)(fd, F_GETFL) & O_NONBLOCK)) {
            errno = EAGAIN;
            break;
        }
        if (end == 0) {
            int limit = gate_timeout(hidden(fd), timeout_option);
            end = limit < 0 ? INT64_MAX : now_ms() + limit;
        }
        int64_t left = end - now_ms();
        struct pollfd pollfd = {.fd = fd, .events = POLLIN | POLLOUT};
        int ready = real(poll)(&pollfd, 1, left > SLICE_MS ? SLICE_MS : left > 0 ? (int)left : 0);
        if (ready == 0 && left <= SLICE_MS) {
            errno = EAGAIN;
            break;
        }
        if (ready < 0 && !(errno == EINTR && end == INT64_MAX && restarts()))
            break;
        slot_t now = gate_poll(fd);
        slot = slot_turn(now) == slot_turn(slot) ? now : with_errno(FAILED, EBADF);
    }
    return slot;
}

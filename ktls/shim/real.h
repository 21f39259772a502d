/* The real symbols: every libc function that the shim wraps and calls. One list; the type comes from libc's own headers. */
#ifndef KTLS_REAL_H
#define KTLS_REAL_H

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shim.h"

/* clang-format off */
#define REAL_CALLS(X) \
    X(read) X(readv) X(preadv2) X(recv) X(recvfrom) X(recvmsg) X(recvmmsg) X(splice) X(ioctl) \
    X(write) X(writev) X(pwritev2) X(send) X(sendto) X(sendmsg) X(sendmmsg) X(sendfile) X(sendfile64) \
    X(poll) X(ppoll) X(select) X(pselect) X(epoll_ctl) X(epoll_wait) X(epoll_pwait) X(epoll_pwait2) \
    X(connect) X(accept) X(accept4) X(close) X(close_range) X(closefrom) X(dup) X(dup2) X(dup3) \
    X(fcntl) X(fcntl64) X(shutdown) X(prctl) X(fclose) X(fdopen) X(vdprintf) X(_Fork) X(daemon) \
    X(getsockopt) X(setsockopt) X(getsockname) X(getpeername) X(getrlimit) X(setrlimit) X(prlimit) \
    X(posix_spawn_file_actions_adddup2) X(posix_spawn_file_actions_addclose) X(posix_spawn_file_actions_addopen) \
    X(getaddrinfo) X(gethostbyname) X(gethostbyname2) X(gethostbyname_r) X(gethostbyname2_r) \
    X(execve) X(execvpe) X(fexecve) X(posix_spawn) X(posix_spawnp) X(system) X(popen) X(syscall)
/* clang-format on */

#define DECLARE(name) __typeof__(&name) name;
struct real {
    REAL_CALLS(DECLARE)
};
#undef DECLARE

extern struct real real_calls;
extern atomic_bool shim_started;

/* Calls can arrive before our constructor (a library's own constructor): they start the shim themselves. */
static inline const struct real *real_table(void)
{
    if (unlikely(!atomic_load_explicit(&shim_started, memory_order_acquire)))
        shim_start();
    return &real_calls;
}
#define real(name) (real_table()->name)

#endif

/* syscall(): Node, language runtimes and allocators use it. What we wrap elsewhere is sent there; io_uring is refused, since
 * it would read and write past us; the rest goes through. */
#include <errno.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "real.h"

int pidfd_getfd(int pidfd, int fd, unsigned flags); /* libc has it since 2.36 */

EXPORT long syscall(long number, ...)
{
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (size_t i = 0; i < LENGTH(a); i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    int fd = (int)a[0];
    switch (number) {
    case SYS_prctl:
        return prctl((int)a[0], a[1], a[2], a[3], a[4]);
    case SYS_seccomp:
        return sandbox_seccomp((unsigned)a[0], (unsigned)a[1], (void *)a[2]);
    case SYS_read:
        return read(fd, (void *)a[1], (size_t)a[2]);
    case SYS_readv:
        return readv(fd, (const struct iovec *)a[1], (int)a[2]);
    case SYS_recvfrom:
        return recvfrom(fd, (void *)a[1], (size_t)a[2], (int)a[3], (struct sockaddr *)a[4], (socklen_t *)a[5]);
    case SYS_recvmsg:
        return recvmsg(fd, (struct msghdr *)a[1], (int)a[2]);
    case SYS_recvmmsg:
        return recvmmsg(fd, (struct mmsghdr *)a[1], (unsigned)a[2], (int)a[3], (struct timespec *)a[4]);
    case SYS_preadv2:
        return preadv2(fd, (const struct iovec *)a[1], (int)a[2], (off_t)a[3], (int)a[5]);
    case SYS_splice:
        return splice(fd, (off64_t *)a[1], (int)a[2], (off64_t *)a[3], (size_t)a[4], (unsigned)a[5]);
    case SYS_ioctl:
        return ioctl(fd, (unsigned long)a[1], (void *)a[2]);
    case SYS_write:
        return write(fd, (const void *)a[1], (size_t)a[2]);
    case SYS_writev:
        return writev(fd, (const struct iovec *)a[1], (int)a[2]);
    case SYS_sendto:
        return sendto(fd, (const void *)a[1], (size_t)a[2], (int)a[3], (const struct sockaddr *)a[4], (socklen_t)a[5]);
    case SYS_sendmsg:
        return sendmsg(fd, (const struct msghdr *)a[1], (int)a[2]);
    case SYS_sendmmsg:
        return sendmmsg(fd, (struct mmsghdr *)a[1], (unsigned)a[2], (int)a[3]);
    case SYS_pwritev2:
        return pwritev2(fd, (const struct iovec *)a[1], (int)a[2], (off_t)a[3], (int)a[5]);
    case SYS_sendfile:
        return sendfile(fd, (int)a[1], (off_t *)a[2], (size_t)a[3]);
    case SYS_getsockopt:
        return getsockopt(fd, (int)a[1], (int)a[2], (void *)a[3], (socklen_t *)a[4]);
    case SYS_setsockopt:
        return setsockopt(fd, (int)a[1], (int)a[2], (const void *)a[3], (socklen_t)a[4]);
    case SYS_getsockname:
        return getsockname(fd, (struct sockaddr *)a[1], (socklen_t *)a[2]);
    case SYS_getpeername:
        return getpeername(fd, (struct sockaddr *)a[1], (socklen_t *)a[2]);
    case SYS_connect:
        return connect(fd, (const struct sockaddr *)a[1], (socklen_t)a[2]);
    case SYS_accept:
        return accept(fd, (struct sockaddr *)a[1], (socklen_t *)a[2]);
    case SYS_accept4:
        return accept4(fd, (struct sockaddr *)a[1], (socklen_t *)a[2], (int)a[3]);
    case SYS_close:
        return close(fd);
    case SYS_close_range:
        return close_range((unsigned)a[0], (unsigned)a[1], (int)a[2]);
    case SYS_shutdown:
        return shutdown(fd, (int)a[1]);
    case SYS_fcntl:
        return fcntl(fd, (int)a[1], a[2]);
    case SYS_dup:
        return dup(fd);
    case SYS_dup3:
        return dup3(fd, (int)a[1], (int)a[2]);
    case SYS_epoll_ctl:
        return epoll_ctl(fd, (int)a[1], (int)a[2], (struct epoll_event *)a[3]);
#ifdef SYS_dup2 /* the older calls; newer machines have only those above */
    case SYS_dup2:
        return dup2(fd, (int)a[1]);
    case SYS_poll:
        return poll((struct pollfd *)a[0], (nfds_t)a[1], (int)a[2]);
    case SYS_select:
        return select(fd, (fd_set *)a[1], (fd_set *)a[2], (fd_set *)a[3], (struct timeval *)a[4]);
    case SYS_epoll_wait:
        return epoll_wait(fd, (struct epoll_event *)a[1], (int)a[2], (int)a[3]);
#endif
    case SYS_pidfd_getfd:
        return pidfd_getfd(fd, (int)a[1], (unsigned)a[2]);
    case SYS_prlimit64:
        return prlimit((pid_t)a[0], (__rlimit_resource_t)a[1], (const struct rlimit *)a[2], (struct rlimit *)a[3]);
    case SYS_execve:
        return execve((const char *)a[0], (char *const *)a[1], (char *const *)a[2]);
    case SYS_execveat:
        return execveat(fd, (const char *)a[1], (char *const *)a[2], (char *const *)a[3], (int)a[4]);
    case SYS_io_uring_setup:
        errno = ENOSYS;
        return -1;
    default:
        return real(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
}

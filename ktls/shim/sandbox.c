/* A program's own seccomp filter, such as the sandbox of sshd, passes the calls that the program makes itself: read(),
 * write(), poll(). What we add would end the process. So from then on nothing is looked at that the program did not ask
 * for: poll() may say readable for a record that is not whole, a KeyUpdate behind a short read waits for the next, and a
 * write after a reset says EPIPE. What an end of the stream means is still asked: better killed than a cut-off stream
 * taken for a whole one. */
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "real.h"

atomic_bool shim_sandboxed;

EXPORT int prctl(int option, ...)
{
    unsigned long a[4];
    va_list arguments;
    va_start(arguments, option);
    for (size_t i = 0; i < LENGTH(a); i++)
        a[i] = va_arg(arguments, unsigned long);
    va_end(arguments);
    int result = real(prctl)(option, a[0], a[1], a[2], a[3]);
    if (option == PR_SET_SECCOMP && result == 0)
        atomic_store(&shim_sandboxed, true);
    return result;
}

long sandbox_seccomp(unsigned operation, unsigned flags, void *arguments)
{
    long result = real(syscall)(SYS_seccomp, operation, flags, arguments);
    if (result >= 0 && (operation == SECCOMP_SET_MODE_FILTER || operation == SECCOMP_SET_MODE_STRICT))
        atomic_store(&shim_sandboxed, true);
    return result;
}

/* RLIMIT_NOFILE: the launcher raised it to make room for hidden descriptors; the program sees and sets its own share. */
#include <errno.h>

#include "real.h"

static void show(struct rlimit *limit)
{
    rlim_t share = (rlim_t)shim_base;
    limit->rlim_cur = limit->rlim_cur > share ? share : limit->rlim_cur;
    limit->rlim_max = limit->rlim_max > share ? share : limit->rlim_max;
}

EXPORT int getrlimit(__rlimit_resource_t resource, struct rlimit *limit)
{
    int result = real(getrlimit)(resource, limit);
    if (result == 0 && resource == RLIMIT_NOFILE && shim_base > 0)
        show(limit);
    return result;
}

/* The program may lower its share on paper; the real limit stays, since our descriptors live above it. */
EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    if (resource != RLIMIT_NOFILE || shim_base <= 0)
        return real(setrlimit)(resource, limit);
    if (limit->rlim_cur > limit->rlim_max) {
        errno = EINVAL;
        return -1;
    }
    if (limit->rlim_cur != RLIM_INFINITY && limit->rlim_cur > (rlim_t)shim_base) {
        errno = EPERM;
        return -1;
    }
    return 0;
}

EXPORT int prlimit(pid_t pid, __rlimit_resource_t resource, const struct rlimit *new_limit, struct rlimit *old_limit)
{
    if (resource != RLIMIT_NOFILE || shim_base <= 0 || (pid != 0 && pid != getpid()))
        return real(prlimit)(pid, resource, new_limit, old_limit);
    if (old_limit && getrlimit(resource, old_limit) != 0)
        return -1;
    return new_limit ? setrlimit(resource, new_limit) : 0;
}

EXPORT int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit);
EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit);

/* On 64-bit Linux the two structures are one (bits/resource.h). */
_Static_assert(sizeof(struct rlimit) == sizeof(struct rlimit64), "rlimit and rlimit64 differ");

EXPORT int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit)
{
    return getrlimit(resource, (struct rlimit *)(void *)limit);
}

EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
    struct rlimit copy = {.rlim_cur = limit->rlim_cur, .rlim_max = limit->rlim_max};
    return setrlimit(resource, &copy);
}

EXPORT int getdtablesize(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (int)limit.rlim_cur : 1024;
}

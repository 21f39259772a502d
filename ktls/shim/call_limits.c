/* RLIMIT_NOFILE: the hidden descriptors lie above the program's share of it. The kernel enforces the share itself, as the
 * soft limit, so that open() and everything else that we do not wrap ends where it would without us; the hard limit leaves
 * room for the hidden ones, and the soft one is raised for the moments in which we make one. */
#include <errno.h>
#include <string.h>

#include "real.h"

static _Atomic rlim_t share_soft, share_hard; /* what the program has, and may raise it to */
static rlim_t room;                           /* the real hard limit */
static atomic_int raised;                     /* threads that are making a hidden descriptor */

static void enforce(rlim_t soft)
{
    const struct rlimit limit = {.rlim_cur = soft, .rlim_max = room};
    int saved = errno;
    real_calls.setrlimit(RLIMIT_NOFILE, &limit);
    errno = saved;
}

static rlim_t least(rlim_t one, rlim_t other) { return one < other ? one : other; }

void limits_start(void)
{
    struct rlimit limit;
    if (real_calls.getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    room = limit.rlim_max;
    share_hard = least(limit.rlim_max, (rlim_t)shim_base);
    share_soft = least(limit.rlim_cur, share_hard);
    if (limit.rlim_cur > share_soft) /* a parent spawned us with room for hidden descriptors */
        enforce(share_soft);
}

void limits_raise(void)
{
    atomic_fetch_add(&raised, 1);
    enforce(room);
}

void limits_lower(void)
{
    if (atomic_fetch_sub(&raised, 1) != 1)
        return;
    enforce(share_soft);
    if (atomic_load(&raised) > 0) /* another thread raised it just before that */
        enforce(room);
}

void limits_after_fork(void)
{
    if (atomic_exchange(&raised, 0) > 0) /* by threads that do not exist here */
        enforce(share_soft);
}

EXPORT int getrlimit(__rlimit_resource_t resource, struct rlimit *limit)
{
    if (resource != RLIMIT_NOFILE || shim_base <= 0)
        return real(getrlimit)(resource, limit);
    *limit = (struct rlimit){.rlim_cur = share_soft, .rlim_max = share_hard};
    return 0;
}

/* Nobody can have more than the base, root included. A hard limit lowered here is forgotten by exec. */
EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    if (resource != RLIMIT_NOFILE || shim_base <= 0)
        return real(setrlimit)(resource, limit);
    rlim_t highest = geteuid() == 0 ? (rlim_t)shim_base : share_hard;
    if (limit->rlim_cur > limit->rlim_max || limit->rlim_max > highest) {
        errno = limit->rlim_cur > limit->rlim_max ? EINVAL : EPERM;
        return -1;
    }
    if (!slots_are_ours()) { /* a vfork child: the limit is its own, this memory is not */
        enforce(limit->rlim_cur);
        return 0;
    }
    share_hard = limit->rlim_max;
    share_soft = limit->rlim_cur;
    limits_raise();
    limits_lower();
    return 0;
}

EXPORT int prlimit(pid_t pid, __rlimit_resource_t resource, const struct rlimit *new_limit, struct rlimit *old_limit)
{
    if (resource != RLIMIT_NOFILE || shim_base <= 0 || (pid != 0 && pid != getpid()))
        return real(prlimit)(pid, resource, new_limit, old_limit);
    struct rlimit before;
    getrlimit(resource, &before);
    if (new_limit && setrlimit(resource, new_limit) != 0)
        return -1;
    if (old_limit)
        *old_limit = before;
    return 0;
}

EXPORT int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit);
EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit);
EXPORT int prlimit64(pid_t pid, __rlimit_resource_t resource, const struct rlimit64 *new_limit,
                     struct rlimit64 *old_limit);

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

EXPORT int prlimit64(pid_t pid, __rlimit_resource_t resource, const struct rlimit64 *new_limit,
                     struct rlimit64 *old_limit)
{
    const struct rlimit *given;
    memcpy(&given, &new_limit, sizeof given);
    return prlimit(pid, resource, given, (struct rlimit *)(void *)old_limit);
}

EXPORT int getdtablesize(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (int)limit.rlim_cur : 1024;
}

/* What posix_spawn() does to descriptors in the child, where libc calls nothing of ours: each action gets its like for the
 * hidden twin. Both hold whichever of the two is the socket by the time of the call, so the gate may open in between. */
#include <errno.h>

#include "real.h"

static atomic_bool acts_on_hidden;

/* libc refuses numbers above the limit, here and in the child. */
static int with_twin(int result, posix_spawn_file_actions_t *actions, int from, int twin)
{
    if (result != 0)
        return result;
    atomic_store(&acts_on_hidden, true);
    limits_raise();
    result = from < 0 ? real(posix_spawn_file_actions_addclose)(actions, twin)
                      : real(posix_spawn_file_actions_adddup2)(actions, from, twin);
    limits_lower();
    return result;
}

bool spawn_begin(void)
{
    if (!atomic_load(&acts_on_hidden))
        return false;
    limits_raise();
    return true;
}

EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    bool ours = is_tls(slot_of(fd)), replaced = is_tls(slot_of(to));
    if (ours && to >= shim_base)
        return EBADF;
    int result = real(posix_spawn_file_actions_adddup2)(actions, fd, to);
    return ours || replaced ? with_twin(result, actions, ours ? hidden(fd) : -1, hidden(to)) : result;
}

EXPORT int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t *actions, int fd)
{
    bool ours = is_tls(slot_of(fd));
    int result = real(posix_spawn_file_actions_addclose)(actions, fd);
    return ours ? with_twin(result, actions, -1, hidden(fd)) : result;
}

EXPORT int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t *restrict actions, int fd,
                                            const char *restrict path, int flags, mode_t mode)
{
    bool ours = is_tls(slot_of(fd));
    int result = real(posix_spawn_file_actions_addopen)(actions, fd, path, flags, mode);
    return ours ? with_twin(result, actions, -1, hidden(fd)) : result;
}

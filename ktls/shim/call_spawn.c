/* What posix_spawn() does to descriptors in the child, where libc calls nothing of ours: each action gets its like for the
 * hidden twin. Both hold whichever of the two is the socket by the time of the call, so the gate may open in between. */
#include <errno.h>

#include "real.h"

EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    bool ours = is_tls(slot_of(fd)), replaced = is_tls(slot_of(to));
    int result = real(posix_spawn_file_actions_adddup2)(actions, fd, to);
    if (result == 0 && ours)
        result = to < shim_base ? real(posix_spawn_file_actions_adddup2)(actions, hidden(fd), hidden(to)) : EBADF;
    else if (result == 0 && replaced)
        result = real(posix_spawn_file_actions_addclose)(actions, hidden(to));
    return result;
}

EXPORT int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t *actions, int fd)
{
    bool ours = is_tls(slot_of(fd));
    int result = real(posix_spawn_file_actions_addclose)(actions, fd);
    return result == 0 && ours ? real(posix_spawn_file_actions_addclose)(actions, hidden(fd)) : result;
}

EXPORT int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t *restrict actions, int fd,
                                            const char *restrict path, int flags, mode_t mode)
{
    bool ours = is_tls(slot_of(fd));
    int result = real(posix_spawn_file_actions_addopen)(actions, fd, path, flags, mode);
    return result == 0 && ours ? real(posix_spawn_file_actions_addclose)(actions, hidden(fd)) : result;
}

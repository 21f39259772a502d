/* exec and posix_spawn: a child is covered like its parent, whatever environment it is given. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

#include "real.h"

extern char **environ;

enum {
    VARIABLES = 3,
    VARIABLE_MAX = PATH_MAX + 32,
    ENTRIES_MAX = 4096,
    ARGUMENTS_MAX = 4096,
    PRELOAD_MAX = 2 * PATH_MAX
};

/* Copies from our own start: programs overwrite what getenv() gave (process titles). */
static char kept[VARIABLES][VARIABLE_MAX];
static const char *const names[VARIABLES] = {"LD_PRELOAD", "KTLS_AGENT", "KTLS_FD_BASE"};

void exec_remember(void)
{
    for (int i = 0; i < VARIABLES; i++) {
        const char *value = shim_getenv(names[i]);
        size_t name = strlen(names[i]), length = value ? strlen(value) : 0;
        if (value == NULL || name + length + 2 > VARIABLE_MAX)
            continue;
        memcpy(kept[i], names[i], name);
        kept[i][name] = '=';
        memcpy(kept[i] + name + 1, value, length + 1);
    }
}

const char *shim_agent_path(void) { return kept[1][0] ? strchr(kept[1], '=') + 1 : ""; }

static char *entry_of(char *const envp[], const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; envp && envp[i]; i++)
        if (strncmp(envp[i], name, length) == 0 && envp[i][length] == '=')
            return envp[i];
    return NULL;
}

/* Our own library in the child's LD_PRELOAD is its first entry, as the launcher put it. */
static bool preloads_us(const char *entry)
{
    size_t length = strcspn(kept[0], ": ");
    return entry && strncmp(entry, kept[0], length) == 0 && strchr(": ", entry[length]) != NULL;
}

static bool is_intact(char *const envp[])
{
    if (!kept[0][0] || !preloads_us(entry_of(envp, names[0])))
        return !kept[0][0];
    for (int i = 1; i < VARIABLES; i++) {
        const char *entry = entry_of(envp, names[i]);
        if (kept[i][0] && (entry == NULL || strcmp(entry, kept[i]) != 0))
            return false;
    }
    return true;
}

struct environment {
    char *entries[ENTRIES_MAX + VARIABLES + 1];
    char preload[PRELOAD_MAX];
};

/* The child's LD_PRELOAD: ours, then its own. */
static char *merged_preload(struct environment *made, const char *theirs)
{
    size_t ours = strcspn(kept[0], ": ");
    const char *rest = theirs ? strchr(theirs, '=') + 1 : "";
    if (ours + strlen(rest) + 2 > PRELOAD_MAX)
        return kept[0];
    memcpy(made->preload, kept[0], ours);
    made->preload[ours] = *rest ? ':' : 0;
    strcpy(made->preload + ours + (*rest ? 1 : 0), rest);
    return made->preload;
}

/* The environment to use: envp itself when nothing is missing. NULL: too many entries to copy (E2BIG). */
static char *const *covered(char *const envp[], struct environment *made)
{
    size_t count = 0;
    if (is_intact(envp))
        return envp;
    for (size_t i = 0; envp && envp[i]; i++) {
        bool ours = false;
        for (int j = 0; j < VARIABLES; j++)
            ours = ours || (strncmp(envp[i], names[j], strlen(names[j])) == 0 && envp[i][strlen(names[j])] == '=');
        if (ours)
            continue;
        if (count == ENTRIES_MAX) {
            errno = E2BIG;
            return NULL;
        }
        made->entries[count++] = envp[i];
    }
    char *preload = entry_of(envp, names[0]);
    made->entries[count++] = preloads_us(preload) ? preload : merged_preload(made, preload);
    for (int i = 1; i < VARIABLES; i++)
        if (kept[i][0])
            made->entries[count++] = kept[i];
    made->entries[count] = NULL;
    return made->entries;
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
    struct environment made;
    char *const *used = covered(envp, &made);
    return used ? real(execve)(path, argv, used) : -1;
}

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
    struct environment made;
    char *const *used = covered(envp, &made);
    return used ? real(execvpe)(file, argv, used) : -1;
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
    struct environment made;
    char *const *used = covered(envp, &made);
    return used ? real(fexecve)(fd, argv, used) : -1;
}

EXPORT int execv(const char *path, char *const argv[]) { return execve(path, argv, environ); }

EXPORT int execvp(const char *file, char *const argv[]) { return execvpe(file, argv, environ); }

/* The variadic forms: the arguments as a list. Returns where the list ended, to go on to envp. */
static bool collect(char *list[ARGUMENTS_MAX], const char *first, va_list *arguments)
{
    size_t count = 0;
    memcpy(&list[count++], &first, sizeof first);
    while (list[count - 1] != NULL && count < ARGUMENTS_MAX)
        list[count++] = va_arg(*arguments, char *);
    if (list[count - 1] == NULL)
        return true;
    errno = E2BIG;
    return false;
}

EXPORT int execl(const char *path, const char *first, ...)
{
    char *list[ARGUMENTS_MAX];
    va_list arguments;
    va_start(arguments, first);
    bool fits = collect(list, first, &arguments);
    va_end(arguments);
    return fits ? execve(path, list, environ) : -1;
}

EXPORT int execlp(const char *file, const char *first, ...)
{
    char *list[ARGUMENTS_MAX];
    va_list arguments;
    va_start(arguments, first);
    bool fits = collect(list, first, &arguments);
    va_end(arguments);
    return fits ? execvpe(file, list, environ) : -1;
}

EXPORT int execle(const char *path, const char *first, ...)
{
    char *list[ARGUMENTS_MAX];
    va_list arguments;
    va_start(arguments, first);
    bool fits = collect(list, first, &arguments);
    char *const *envp = va_arg(arguments, char *const *);
    va_end(arguments);
    return fits ? execve(path, list, envp) : -1;
}

EXPORT int posix_spawn(pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
                       char *const envp[restrict])
{
    struct environment made;
    char *const *used = covered(envp, &made);
    return used ? real(posix_spawn)(pid, path, actions, attributes, argv, used) : errno;
}

EXPORT int posix_spawnp(pid_t *restrict pid, const char *restrict file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
                        char *const envp[restrict])
{
    struct environment made;
    char *const *used = covered(envp, &made);
    return used ? real(posix_spawnp)(pid, file, actions, attributes, argv, used) : errno;
}

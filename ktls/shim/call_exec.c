/* exec and posix_spawn: a child is covered like its parent, or it is not started. */
#include <alloca.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "real.h"

extern char **environ;

/* Threads may have as little stack as PTHREAD_STACK_MIN: lists are made as long as they are, not as long as they may be. */

static void add(char text[NOTICE_MAX], size_t *length, const char *part)
{
    size_t size = strlen(part);
    size = size < NOTICE_MAX - *length ? size : NOTICE_MAX - *length;
    memcpy(text + *length, part, size);
    *length += size;
}

/* Says so where a person looks, unless that is a connection of the program's (inetd's children), and in the agent's report. */
static void tell(const char *path, const char *why, bool allowed)
{
    char text[NOTICE_MAX];
    size_t length = 0;
    struct stat status;
    add(text, &length, path);
    add(text, &length, " ");
    add(text, &length, why);
    channel_notice(text, length, allowed);
    if (fstat(STDERR_FILENO, &status) != 0 || S_ISSOCK(status.st_mode))
        return;
    char line[NOTICE_MAX];
    length = 0;
    add(line, &length, "ktls: ");
    add(line, &length, path);
    add(line, &length, " ");
    add(line, &length, why);
    add(line, &length, allowed ? ": WARNING: it runs in clear, as --allow-uncovered says\n" : ": not started\n");
    ssize_t unused = real(write)(STDERR_FILENO, line, length);
    (void)unused;
}

/* 0, or the errno of an exec that must not be: the shim would not be in the new program. */
static int judge(int directory, const char *path, int flags)
{
    const char *why = NULL;
    int saved = errno;
    limits_raise(); /* we open files; a program that has no descriptor left needs none to exec */
    int error = covered_check(directory, path, flags, &why);
    if (error == 0 && !environment_reaches_shim()) {
        why = "would not find the shim (another root directory, or no permission to read it)";
        error = EACCES;
    }
    limits_lower();
    errno = saved;
    if (why == NULL)
        return error;
    bool allowed = environment_allows_uncovered();
    tell(path[0] ? path : "(a descriptor)", why, allowed);
    errno = saved;
    return allowed ? 0 : error;
}

static const char *search_path(void)
{
    const char *search = shim_getenv("PATH");
    return search ? search : "/bin:/usr/bin";
}

/* The file that libc would find on PATH, for which there must be room. Empty: none, and libc says so. */
static void find(const char *file, const char *search, char *found)
{
    size_t length = strlen(file);
    found[0] = 0;
    if (strchr(file, '/')) {
        strcpy(found, file);
        return;
    }
    while (length > 0) {
        size_t part = strcspn(search, ":");
        struct stat status;
        memcpy(found, search, part);
        strcpy(found + part, part ? "/" : "");
        strcat(found, file);
        if (stat(found, &status) == 0 && S_ISREG(status.st_mode) && faccessat(AT_FDCWD, found, X_OK, AT_EACCESS) == 0)
            return;
        if (search[part] == 0)
            break;
        search += part + 1;
    }
    found[0] = 0;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
    void *room = alloca(environment_room(envp));
    char *const *used = environment_for(envp, room);
    int error = judge(AT_FDCWD, path, 0);
    if (error)
        return fail(error);
    return used ? real(execve)(path, argv, used) : -1;
}

EXPORT int execveat(int directory, const char *path, char *const argv[], char *const envp[], int flags)
{
    void *room = alloca(environment_room(envp));
    char *const *used = environment_for(envp, room);
    int error = judge(directory, path, flags);
    if (error)
        return fail(error);
    return used ? (int)real(syscall)(SYS_execveat, directory, path, argv, used, flags) : -1;
}

/* A text without #! is the shell's, as libc has it (POSIX, exec). */
static int run_by_shell(const char *path, char *const argv[], char *const envp[])
{
    static const char shell[] = "/bin/sh";
    const char *words[] = {shell, path};
    size_t count = 0;
    while (argv[0] && argv[count + 1])
        count++;
    char **list = alloca((count + 3) * sizeof *list);
    memcpy(list, words, sizeof words);
    if (count > 0)
        memcpy(list + 2, argv + 1, count * sizeof *list);
    list[count + 2] = NULL;
    return execve(shell, list, envp);
}

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
    void *room = alloca(environment_room(envp));
    char *const *used = environment_for(envp, room);
    const char *search = search_path();
    char *path = alloca(strlen(search) + strlen(file) + 2);
    find(file, search, path);
    int error = path[0] ? judge(AT_FDCWD, path, 0) : 0;
    if (error == ENOEXEC)
        return run_by_shell(path, argv, envp);
    if (error)
        return fail(error);
    return used ? real(execvpe)(file, argv, used) : -1;
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
    void *room = alloca(environment_room(envp));
    char *const *used = environment_for(envp, room);
    int error = judge(fd, "", AT_EMPTY_PATH);
    if (error)
        return fail(error);
    return used ? real(fexecve)(fd, argv, used) : -1;
}

EXPORT int execv(const char *path, char *const argv[]) { return execve(path, argv, environ); }

EXPORT int execvp(const char *file, char *const argv[]) { return execvpe(file, argv, environ); }

/* The variadic forms: the arguments as a list, and how much room it needs. */
static size_t room_of_list(const char *first, va_list *arguments)
{
    va_list ahead;
    size_t count = 1;
    va_copy(ahead, *arguments);
    for (const char *word = first; word; word = va_arg(ahead, const char *))
        count++;
    va_end(ahead);
    return count * sizeof(char *);
}

/* Leaves `arguments` behind the list, where execle() has envp. */
static void collect(char **list, const char *first, va_list *arguments)
{
    size_t count = 0;
    memcpy(&list[count++], &first, sizeof first);
    while (list[count - 1] != NULL)
        list[count++] = va_arg(*arguments, char *);
}

EXPORT int execl(const char *path, const char *first, ...)
{
    va_list arguments;
    va_start(arguments, first);
    char **list = alloca(room_of_list(first, &arguments));
    collect(list, first, &arguments);
    va_end(arguments);
    return execve(path, list, environ);
}

EXPORT int execlp(const char *file, const char *first, ...)
{
    va_list arguments;
    va_start(arguments, first);
    char **list = alloca(room_of_list(first, &arguments));
    collect(list, first, &arguments);
    va_end(arguments);
    return execvpe(file, list, environ);
}

EXPORT int execle(const char *path, const char *first, ...)
{
    va_list arguments;
    va_start(arguments, first);
    char **list = alloca(room_of_list(first, &arguments));
    collect(list, first, &arguments);
    char *const *envp = va_arg(arguments, char *const *);
    va_end(arguments);
    return execve(path, list, envp);
}

EXPORT int posix_spawn(pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
                       char *const envp[restrict])
{
    void *room = alloca(environment_room(envp));
    char *const *used = environment_for(envp, room);
    int error = judge(AT_FDCWD, path, 0);
    if (error)
        return error;
    if (used == NULL)
        return errno;
    bool raised = actions && spawn_begin();
    error = real(posix_spawn)(pid, path, actions, attributes, argv, used);
    if (raised)
        limits_lower();
    return error;
}

EXPORT int posix_spawnp(pid_t *restrict pid, const char *restrict file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
                        char *const envp[restrict])
{
    void *room = alloca(environment_room(envp));
    char *const *used = environment_for(envp, room);
    const char *search = search_path();
    char *path = alloca(strlen(search) + strlen(file) + 2);
    find(file, search, path);
    int error = path[0] ? judge(AT_FDCWD, path, 0) : 0;
    if (error)
        return error;
    if (used == NULL)
        return errno;
    bool raised = actions && spawn_begin();
    error = real(posix_spawnp)(pid, file, actions, attributes, argv, used);
    if (raised)
        limits_lower();
    return error;
}

/* libc starts the shell past our wrappers, with the program's environment as it is: made whole for the moment of the call. */
static char **environment_made_whole(void *room)
{
    char **before = environ;
    char *const *used = environment_for(environ, room);
    memcpy(&environ, &used, sizeof environ);
    return before;
}

EXPORT int system(const char *command)
{
    if (command == NULL || environment_is_intact(environ))
        return real(system)(command);
    char **before = environment_made_whole(alloca(environment_room(environ)));
    int status = environ ? real(system)(command) : -1;
    environ = before;
    return status;
}

EXPORT FILE *popen(const char *command, const char *mode)
{
    if (environment_is_intact(environ))
        return real(popen)(command, mode);
    char **before = environment_made_whole(alloca(environment_room(environ)));
    FILE *stream = environ ? real(popen)(command, mode) : NULL;
    environ = before;
    return stream;
}

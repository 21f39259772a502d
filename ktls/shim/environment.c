/* The environment of a child: it gets what the shim needs, whatever its parent passes on. */
#include <errno.h>
#include <string.h>

#include "real.h"

extern char **environ;

/* Copies from our own start: programs overwrite what getenv() gave (process titles). */
static char kept[VARIABLES][VARIABLE_MAX];
static const char *const names[VARIABLES] = {"LD_PRELOAD", "KTLS_AGENT", "KTLS_FD_BASE", "KTLS_UNCOVERED"};

void environment_remember(void)
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

static const char *value_of(int variable) { return kept[variable][0] ? strchr(kept[variable], '=') + 1 : ""; }

const char *shim_agent_path(void) { return value_of(1); }

bool environment_allows_uncovered(void) { return strcmp(value_of(3), "allow") == 0; }

/* How much of an LD_PRELOAD is ours: up to our own library, with what the launcher put before it (KTLS_SHIM). */
static size_t ours_in(const char *all)
{
    static const char file[] = "/libktls.so";
    const char *found = strstr(all, file);
    return found ? (size_t)(found - all) + strlen(file) : strcspn(all, ": ");
}

bool environment_reaches_shim(void)
{
    char path[PATH_MAX];
    const char *all = value_of(0);
    size_t length = ours_in(all), start = length;
    while (start > 0 && all[start - 1] != ':' && all[start - 1] != ' ')
        start--;
    length -= start;
    if (length == 0 || length >= sizeof path)
        return true; /* not preloaded through the environment: nothing of ours to look for */
    memcpy(path, all + start, length);
    path[length] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        real(close)(fd);
    return fd >= 0;
}

/* The last one, and how many there are: the dynamic loader takes the last LD_PRELOAD, getenv() the first of its name. */
static char *entry_of(char *const envp[], const char *name, size_t *count)
{
    size_t length = strlen(name);
    char *last = NULL;
    *count = 0;
    for (size_t i = 0; envp && envp[i]; i++)
        if (strncmp(envp[i], name, length) == 0 && envp[i][length] == '=')
            last = envp[i], ++*count;
    return last;
}

/* Our own library comes first in the child's LD_PRELOAD, as the launcher put it. */
static bool preloads_us(const char *entry)
{
    size_t length = ours_in(kept[0]);
    return entry && strncmp(entry, kept[0], length) == 0 && strchr(": ", entry[length]) != NULL;
}

bool environment_is_intact(char *const envp[])
{
    size_t count;
    if (!kept[0][0] || !preloads_us(entry_of(envp, names[0], &count)) || count > 1)
        return !kept[0][0];
    for (int i = 1; i < VARIABLES; i++) {
        const char *entry = entry_of(envp, names[i], &count);
        if (count > 1)
            return false;
        if (entry ? strcmp(entry, kept[i]) != 0 : kept[i][0] != 0) /* one that we were not given is not for children */
            return false;
    }
    return true;
}

/* The child's LD_PRELOAD: ours, then its own. */
static char *merged_preload(struct environment *made, const char *theirs)
{
    size_t ours = ours_in(kept[0]);
    const char *rest = theirs ? strchr(theirs, '=') + 1 : "";
    if (ours + strlen(rest) + 2 > PRELOAD_MAX)
        return kept[0];
    memcpy(made->preload, kept[0], ours);
    made->preload[ours] = *rest ? ':' : 0;
    strcpy(made->preload + ours + (*rest ? 1 : 0), rest);
    return made->preload;
}

/* The environment to use: envp itself when nothing is missing. NULL: too many entries to copy (E2BIG). */
char *const *environment_for(char *const envp[], struct environment *made)
{
    size_t count = 0, count_of_preloads;
    if (environment_is_intact(envp))
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
    char *preload = entry_of(envp, names[0], &count_of_preloads);
    made->entries[count++] = preloads_us(preload) ? preload : merged_preload(made, preload);
    for (int i = 1; i < VARIABLES; i++)
        if (kept[i][0])
            made->entries[count++] = kept[i];
    made->entries[count] = NULL;
    return made->entries;
}

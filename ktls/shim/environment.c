/* The environment of a child: it gets what the shim needs, whatever its parent passes on. */
#include <errno.h>
#include <string.h>

#include "real.h"

extern char **environ;

/* Copies from our own start: programs overwrite what getenv() gave (process titles). */
static char kept[VARIABLES][VARIABLE_MAX];
static const char *const names[VARIABLES] = {"LD_PRELOAD", "KTLS_AGENT", "KTLS_FD_BASE", "KTLS_UNCOVERED"};

static void remember_own_path(void);

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
    remember_own_path();
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

/* The path of our own library; empty when it was not preloaded through the environment. */
static char own_path[PATH_MAX];

static void remember_own_path(void)
{
    const char *all = value_of(0);
    size_t length = ours_in(all), start = length;
    while (start > 0 && all[start - 1] != ':' && all[start - 1] != ' ')
        start--;
    length -= start;
    if (length < sizeof own_path)
        memcpy(own_path, all + start, length);
}

bool environment_reaches_shim(void)
{
    if (own_path[0] == 0)
        return true; /* nothing of ours to look for */
    int fd = open(own_path, O_RDONLY | O_CLOEXEC);
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

static size_t length_of(char *const envp[])
{
    size_t count = 0;
    while (envp && envp[count])
        count++;
    return count;
}

/* Pointers, then the text of an LD_PRELOAD. */
size_t environment_room(char *const envp[])
{
    size_t count = length_of(envp), preloads;
    if (count > ENTRIES_MAX || environment_is_intact(envp))
        return 0;
    const char *theirs = entry_of(envp, names[0], &preloads);
    return (count + VARIABLES + 1) * sizeof(char *) + strlen(kept[0]) + (theirs ? strlen(theirs) : 0) + 2;
}

/* The child's LD_PRELOAD: ours, then its own. */
static char *merged_preload(char *text, const char *theirs)
{
    size_t ours = ours_in(kept[0]);
    const char *rest = theirs ? strchr(theirs, '=') + 1 : "";
    memcpy(text, kept[0], ours);
    text[ours] = *rest ? ':' : 0;
    strcpy(text + ours + (*rest ? 1 : 0), rest);
    return text;
}

static bool is_ours(const char *entry)
{
    for (int i = 0; i < VARIABLES; i++)
        if (strncmp(entry, names[i], strlen(names[i])) == 0 && entry[strlen(names[i])] == '=')
            return true;
    return false;
}

char *const *environment_for(char *const envp[], void *room)
{
    size_t all = length_of(envp), count = 0, preloads;
    char **entries = room;
    if (environment_is_intact(envp))
        return envp;
    if (all > ENTRIES_MAX) {
        errno = E2BIG;
        return NULL;
    }
    for (size_t i = 0; i < all; i++)
        if (!is_ours(envp[i]))
            entries[count++] = envp[i];
    char *preload = entry_of(envp, names[0], &preloads);
    char *text = (char *)(entries + all + VARIABLES + 1);
    entries[count++] = preloads_us(preload) ? preload : merged_preload(text, preload);
    for (int i = 1; i < VARIABLES; i++)
        if (kept[i][0])
            entries[count++] = kept[i];
    entries[count] = NULL;
    return entries;
}

/* Whatever environment a program gives its child, the child is covered, and keeps all that is not ours. */
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

#define SHIM_PATH "/opt/ktls/libktls.so"
#define AGENT_PATH "/run/ktls/agent"

enum { MOST = 24 };

static const char *const starts[] = {
    "LD_PRELOAD=", "LD_PRELOAD=" SHIM_PATH, "LD_PRELOAD=" SHIM_PATH ":", "KTLS_AGENT=", "KTLS_AGENT=" AGENT_PATH,
    "LD_PRELOAD",  "KTLS_FD_BASE=1000",     "KTLS_UNCOVERED=allow",      "X=",          "",
};
/* What the launcher put there: the shim, or what the operator wants before it and the shim. */
static const char *const preloads[] = {SHIM_PATH, "/lib/before.so:" SHIM_PATH};
static const char *chosen;
static const char *const ours[] = {"LD_PRELOAD=", "KTLS_AGENT=", "KTLS_FD_BASE=", "KTLS_UNCOVERED="};

const char *shim_getenv(const char *name)
{
    return strcmp(name, "LD_PRELOAD") == 0     ? chosen
           : strcmp(name, "KTLS_AGENT") == 0   ? AGENT_PATH
           : strcmp(name, "KTLS_FD_BASE") == 0 ? "1000"
                                               : NULL;
}

static bool is_ours(const char *entry)
{
    for (size_t i = 0; i < LENGTH(ours); i++)
        if (strncmp(entry, ours[i], strlen(ours[i])) == 0)
            return true;
    return false;
}

static const char *only(char *const envp[], const char *start)
{
    const char *found = NULL;
    for (; *envp; envp++) {
        if (strncmp(*envp, start, strlen(start)) != 0)
            continue;
        must(found == NULL, "a child has each of our variables once");
        found = *envp + strlen(start);
    }
    return found ? found : "";
}

static void check(char *const envp[], char *const given[])
{
    const char *preload = only(envp, "LD_PRELOAD=");
    size_t length = strlen(chosen);
    must(strncmp(preload, chosen, length) == 0 && strchr(": ", preload[length]), "the shim comes first");
    must(strcmp(only(envp, "KTLS_AGENT="), AGENT_PATH) == 0, "a child knows the agent");
    must(strcmp(only(envp, "KTLS_FD_BASE="), "1000") == 0, "a child knows the base");
    must(only(envp, "KTLS_UNCOVERED=")[0] == 0, "a child may no more than its parent");
    for (; *given; given++) {
        if (is_ours(*given))
            continue;
        while (*envp && is_ours(*envp))
            envp++;
        must(*envp && strcmp(*envp, *given) == 0, "what is not ours stays, in its order");
        envp++;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *given[MOST + 1];
    size_t count = 0;
    kernel_begin(data, size);
    chosen = preloads[size > 0 && data[size - 1] & 1];
    environment_remember();
    while (count < MOST && bytes_left() > 0) {
        const char *start = starts[next_below(LENGTH(starts))];
        bool is_long = next_byte() == 255;
        char *rest = next_string(is_long ? 3 * PATH_MAX : 40);
        given[count] = calloc(1, strlen(start) + strlen(rest) + 1);
        strcat(strcpy(given[count++], start), rest);
        free(rest);
    }
    given[count] = NULL;
    void *room = malloc(environment_room(given) + 1); /* not a byte more: what it asks for must do */
    char *const *used = environment_for(given, room);
    must(used != NULL, "so few entries have room");
    check(used, given);
    free(room);
    while (count > 0)
        free(given[--count]);
    return 0;
}

/* Start-up: resolve the real symbols once, read the environment once (programs overwrite it for their process title). */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "real.h"

struct real real_calls;
atomic_bool shim_started;

extern char **environ;

/* libc's getenv may be locked or wrapped by the time we are called: a plain walk is enough. */
const char *shim_getenv(const char *name)
{
    size_t length = strlen(name);
    for (char **entry = environ; entry && *entry; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

static void resolve(void)
{
    /* A symbol missing from this libc stays NULL: no program linked with it can call it either. */
#define RESOLVE(name)                                     \
    {                                                     \
        void *symbol = dlsym(RTLD_NEXT, #name);           \
        memcpy(&real_calls.name, &symbol, sizeof symbol); \
    }
    REAL_CALLS(RESOLVE)
#undef RESOLVE
}

static void read_base(void)
{
    const char *text = shim_getenv("KTLS_FD_BASE");
    long base = text ? strtol(text, NULL, 10) : 0;
    if (base < 16 || base > SLOT_COUNT) {
        /* Not started by the launcher: half of what we may open. */
        struct rlimit limit = {1024, 1024};
        if (real_calls.getrlimit)
            real_calls.getrlimit(RLIMIT_NOFILE, &limit);
        base = limit.rlim_cur > 2 * SLOT_COUNT ? SLOT_COUNT : ((long)limit.rlim_cur - 16) / 2;
    }
    shim_base = (int)base;
}

__attribute__((constructor(101))) void shim_start(void)
{
    if (atomic_load_explicit(&shim_started, memory_order_acquire))
        return;
    int saved = errno;
    resolve();
    read_base();
    limits_start();
    environment_remember();
    covered_remember();
    slots_after_fork();
    pthread_atfork(NULL, NULL, slots_after_fork);
    atomic_store_explicit(&shim_started, true, memory_order_release);
    stdio_start();
    errno = saved;
}

/* A signal handler that the kernel runs at once and in the middle of a call: one in Python would run later, or, called from
 * here, could meet the interpreter's lock held by the very thread that it interrupts. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

volatile sig_atomic_t hits, busy; /* how often it ran; the program is in the middle of something: do nothing */
int to;                           /* where to write, with how many bytes of what; none: only count */
const void *what;
size_t length;

static void handler(int number)
{
    int saved = errno;
    (void)number;
    if (!busy) {
        hits++;
        if (length > 0 && write(to, what, length) != (ssize_t)length)
            hits = -1000000;
    }
    errno = saved;
}

int install(int number, int restart)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = restart ? SA_RESTART : 0;
    return sigaction(number, &action, NULL);
}

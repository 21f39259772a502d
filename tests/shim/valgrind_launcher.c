/* Starts valgrind's memcheck, in the place of `valgrind`: that one is dynamic, so it would be preloaded with the shim and
 * have the limit on descriptors that the shim gives a program, and memcheck would put its own where the hidden ones are.
 * Built static, with LAUNCHER (its own path, for children that are traced) and MEMCHECK (the tool). */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argc;
    if (setenv("VALGRIND_LAUNCHER", LAUNCHER, 1) == 0)
        execv(MEMCHECK, argv);
    perror(MEMCHECK);
    return 1;
}

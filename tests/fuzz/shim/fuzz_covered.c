/* Whatever a file holds, it is judged: to be covered, or not and why. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "kernel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *why = NULL;
    kernel_begin(data, 0);
    covered_remember();
    int fd = memfd_create("program", MFD_CLOEXEC);
    must(fd >= 0 && write(fd, data, size) == (ssize_t)size, "a file is written");
    int error = covered_check(fd, "", AT_EMPTY_PATH, &why);
    close(fd);
    must(error >= 0 && error <= LARGEST_ERRNO, "a refusal is an errno");
    must(error != EPERM || (why && *why), "who refuses says why");
    must(why == NULL || error != 0, "who says why refuses");
    bool is_script = size >= 2 && memcmp(data, "#!", 2) == 0;
    must(is_script || error != 0 || (size > 20 && memcmp(data, "\177ELF", 4) == 0), "only programs are covered");
    return 0;
}

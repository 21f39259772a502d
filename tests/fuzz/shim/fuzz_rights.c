/* Control messages are the program's own: whatever is in them, nothing past them is touched. */
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

static size_t seen;

static void count(int fd)
{
    (void)fd;
    seen++;
}

/* Headers that look right are rare among any bytes: each may be one, with some length of its own. */
static void write_messages(char *control, size_t size)
{
    size_t at = 0;
    while (at + sizeof(struct cmsghdr) <= size && bytes_left() > 0) {
        struct cmsghdr message = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        uint8_t choice = next_byte();
        message.cmsg_len = choice < 8 ? next_below(16) : choice < 12 ? (size_t)0 - choice : CMSG_LEN(choice % 24);
        if (choice % 32 == 31)
            next_bytes(&message, sizeof message);
        memcpy(control + at, &message, sizeof message);
        at += CMSG_ALIGN(sizeof message + choice % 24);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kernel_begin(data, size);
    size_t length = next_below(120);
    char *control = calloc(1, length ? length : 1);
    next_bytes(control, next_byte() & 1 ? length : 0);
    write_messages(control, length);
    struct msghdr header = {.msg_control = control, .msg_controllen = length};
    seen = 0;
    each_passed(&header, count);
    must(seen * sizeof(int) <= length, "no more descriptors than there is room for");
    free(control);
    return 0;
}

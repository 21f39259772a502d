/* Whatever records come, a read gives no more than was asked for, and ends. */
#include <errno.h>
#include <stdlib.h>

#include "kernel.h"

enum { PARTS = 4 };

/* The program's buffers: each its own block, so that libasan sees its end. */
static size_t make_buffers(struct iovec iov[PARTS], int *count)
{
    size_t total = 0;
    *count = (int)next_below(PARTS + 1);
    for (int i = 0; i < *count; i++) {
        iov[i].iov_len = next_below(700);
        iov[i].iov_base = malloc(iov[i].iov_len);
        total += iov[i].iov_len;
    }
    return total;
}

static void read_once(void)
{
    static const int all_flags[] = {0, MSG_PEEK, MSG_DONTWAIT, MSG_PEEK | MSG_DONTWAIT, MSG_WAITALL};
    struct iovec iov[PARTS];
    struct reading reading = {.fd = FD, .iov = iov, .flags = all_flags[next_below(LENGTH(all_flags))]};
    size_t want = make_buffers(iov, &reading.count);
    errno = 0;
    ssize_t got = record_read(&reading);
    must(got <= (ssize_t)want, "a read gives no more than was asked for");
    must(got >= -1, "a read gives bytes or an error");
    must(got >= 0 || errno != 0, "an error has an errno");
    for (int i = 0; i < reading.count; i++)
        free(iov[i].iov_base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const slot_t flags[] = {STRICT_EOF, CONFIRM_IN, CAN_REKEY, TICKETS_DUE, SHUT_READ, SEEN_EOF};
    kernel_begin(data, size);
    uint8_t chosen = next_byte();
    slot_t slot = KERNEL;
    for (size_t i = 0; i < LENGTH(flags); i++)
        slot |= chosen >> i & 1 ? flags[i] : 0;
    slot_set(FD, slot);
    while (bytes_left() > 0) {
        int cleared;
        switch (next_below(8)) {
        case 0:
            must(record_pending(FD) >= 0, "what can be read is a number");
            break;
        case 1:
            record_ready(FD);
            break;
        case 2:
            errno = 0;
            cleared = record_clear(FD);
            must(cleared >= -1, "a control record is gone, or not");
            must(cleared >= 0 || errno != 0, "an error has an errno");
            break;
        case 3:
            must(record_rekeyed(FD) || errno != 0, "keys that do not come are an error");
            break;
        case 4:
            record_close_notify(FD);
            break;
        default:
            read_once();
        }
    }
    slot = slot_of(FD);
    must(slot_state(slot) == KERNEL, "records do not change what a descriptor is");
    must(slot_errno(slot) <= LARGEST_ERRNO, "a final error is an errno");
    return 0;
}

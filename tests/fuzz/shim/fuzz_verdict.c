/* Whatever the agent answers, a connection is gated, clear or refused. */
#include <netinet/in.h>

#include "kernel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kernel_begin(data, size);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    next_bytes(&address, sizeof address);
    struct request request = {.kind = next_byte() & 1 ? REQUEST_CONNECT : REQUEST_ACCEPT,
                              .flags = next_byte() & REQUEST_IN_PROGRESS,
                              .address = (const struct sockaddr *)&address,
                              .address_length = (socklen_t)next_below(40)};
    if (request.address_length > sizeof address)
        request.address = NULL;
    slot_set(FD, PLAIN);
    int error = gate_raise(FD, &request);
    must(error >= 0 && error <= LARGEST_ERRNO, "a refusal is an errno");
    slot_t slot = slot_of(FD);
    must(slot_state(slot) == PLAIN || slot_state(slot) == GATED, "a descriptor has a gate or is left alone");
    must(error == 0 || slot_state(slot) == PLAIN, "what is refused has no gate");
    return 0;
}

/* What the agent's names say of a gate, and what the shim makes of it. */
#include <errno.h>
#include <string.h>

#include "kernel.h"

static bool is_errno(int error) { return error > 0 && error <= LARGEST_ERRNO; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kernel_begin(data, size);
    struct outcome outcome = gate_outcome(FD);
    must(outcome.kind == 0 || strchr("KRCF?", outcome.kind), "an outcome is one of ours, or none");
    must((outcome.flags & ~(STRICT_EOF | CONFIRM_IN | CAN_REKEY | TICKETS_DUE)) == 0, "only its flags come with it");
    must(outcome.kind != 'F' || is_errno(outcome.error), "a failure has an errno");

    slot_t marks = gate_marks(hidden(FD));
    must(marks == 0 || marks == SEEN_EOF || (is_errno(slot_errno(marks)) && (marks & 0xffff) == 0),
         "a mark is one mark");

    int end = gate_relay_end(hidden(FD));
    must(end == 0 || end == EPROTO || end == ECONNRESET, "a relayed stream ends in one of three ways");

    slot_set(FD, GATED | OUTBOUND);
    slot_t slot = gate_poll(FD);
    must(slot_state(slot) != MOVING, "a move is finished");
    must(slot_state(slot) != FAILED || is_errno(slot_errno(slot)), "a failed descriptor has an errno");
    return 0;
}

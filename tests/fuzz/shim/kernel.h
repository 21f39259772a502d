/* What stands behind the shim while it is fuzzed: a kernel whose every answer comes from the fuzzer's bytes. The shim's
 * own sources are linked as they are; its table of real symbols is the seam. */
#ifndef FUZZ_KERNEL_H
#define FUZZ_KERNEL_H

#include "../../../ktls/shim/real.h"

enum { BASE = 1000, FD = 7, LARGEST_ERRNO = 4095 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void kernel_begin(const uint8_t *data, size_t size); /* all that follows is answered from these bytes */
size_t bytes_left(void);
uint8_t next_byte(void);                   /* 0 when there is none left */
size_t next_bytes(void *out, size_t most); /* as many as there are; how many that was */
size_t next_below(size_t bound);           /* of 0 .. bound - 1 */
char *next_string(size_t most);            /* its own block, so that libasan sees its end; free() it */
void must(bool holds, const char *what);   /* ends the program if it does not */

#endif

/* Runs the files named on the command line through a harness, once each: for compilers without libFuzzer. */
#include <stdlib.h>

#include "kernel.h"

int main(int count, char *paths[])
{
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(paths[i], "rb");
        must(file != NULL, paths[i]);
        uint8_t *data = malloc(1 << 20);
        size_t size = fread(data, 1, 1 << 20, file);
        fclose(file);
        data = realloc(data, size ? size : 1); /* its own block, so that libasan sees its end */
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    printf("%d replayed\n", count - 1);
    return 0;
}

/* libFuzzer: no plan, however made, may upset the parser. The checksum is put right, or nothing would get past it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32.h"
#include "plan.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    struct plan plan;
    char why[PLAN_WHY_BYTES], end[16];
    char *text = malloc(size + sizeof end);
    memcpy(text, data, size);
    int end_size = snprintf(end, sizeof end, "end %08x\n", crc32(text, size));
    memcpy(text + size, end, (size_t)end_size);
    plan_parse(&plan, text, size + (size_t)end_size, why);
    plan_free(&plan);
    free(text);
    return 0;
}

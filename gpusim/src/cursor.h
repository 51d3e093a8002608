/* A reader's place in one timeline and the state of its GPU there. */
#ifndef PIOLET_GPUSIM_CURSOR_H
#define PIOLET_GPUSIM_CURSOR_H

#include "gpusim.h"

#include <sys/types.h>

struct cursor {
    off_t offset;
    struct state state;
    uint64_t lines; /* lines looked at, for the test that none is read twice */
    bool primed;
};

void cursor_reset(struct cursor *cursor, const struct inventory *of);
/* Take the whole lines of `text` up to `now_ns`; return the bytes taken. */
size_t cursor_feed(struct cursor *cursor, const struct model *model, const char *text, size_t length, int64_t now_ns);

#endif

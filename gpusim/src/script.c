/* Running a workload script: from phase to phase, in and out of its loops. The parser has checked that it is sound. */
#include "gpusim.h"

void script_start(struct script *script, int64_t ns) {
    script->next = script->depth = 0;
    script->running = true;
    script->now = (struct hint){.until_ns = ns};
    script_next(script);
}

static void enter_loop(struct script *script, const struct step *loop) {
    script->start[script->depth] = script->next;
    script->left[script->depth++] = loop->repeats;
}

static void end_loop(struct script *script) {
    int64_t *left = &script->left[script->depth - 1];
    if (*left == 1)
        script->depth--;
    else
        script->next = script->start[script->depth - 1];
    if (*left > 1)
        --*left;
}

void script_next(struct script *script) {
    int64_t begin_ns = script->now.until_ns;
    while (script->next < script->count) {
        const struct step *step = &script->step[script->next++];
        if (step->kind == STEP_LOOP) {
            enter_loop(script, step);
        } else if (step->kind == STEP_END) {
            end_loop(script);
        } else {
            script->now = step->hint;
            script->now.until_ns += begin_ns;
            return;
        }
    }
    script->running = false;
}

/* Parsing the lines of a timeline: `<unix_ns> <word> <arguments>`. A line that is not wholly well-formed is no event. */
#include "gpusim.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 8192, MAX_LANES = 16 };
static const double MIN_STEP_S = 0.01, MAX_SECONDS = 1e9, DEFAULT_TTL_S = 5;

static const char *const words[WORD_COUNT] = {
    "activity", "script", "xid", "throttle", "ecc-corrected", "ecc-uncorrected", "remap",
    "nvlink-down", "nvlink-errors", "pcie-width", "slow", "leftover-memory", "temp", "hang", "clear"};

static bool read_number(const char *text, double low, double high, double *out) {
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= low && *out <= high;
}

static bool read_integer(const char *text, int64_t *out) {
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return end != text && *end == '\0' && errno == 0 && *out >= 0;
}

static int64_t nanoseconds(double seconds) {
    return (int64_t)llround(seconds * 1e9);
}

static bool read_phase(const char *text, struct hint *out) {
    int phase = word_index(text, strlen(text), phase_names, PHASE_COUNT);
    *out = (struct hint){.phase = phase < 0 ? PHASE_IDLE : (enum phase)phase, .level = 1, .until_ns = nanoseconds(DEFAULT_TTL_S)};
    return phase >= 0;
}

/* Read one `key=value` of a hint; unknown keys are ignored, wrong values are not. */
static bool read_option(char *word, struct hint *out) {
    char *value = strchr(word, '=');
    int64_t integer = 0;
    double number = 0;
    bool good = true;
    if (!value)
        return false;
    *value++ = '\0';
    if (strcmp(word, "level") == 0) {
        good = read_number(value, 0, 1, &out->level);
    } else if (strcmp(word, "ttl") == 0) {
        good = read_number(value, 0, MAX_SECONDS, &number);
        out->until_ns = nanoseconds(number);
    } else if (strcmp(word, "mem") == 0) {
        good = out->has_memory = read_integer(value, &integer);
        out->memory_bytes = (uint64_t)integer;
    } else if (strcmp(word, "pid") == 0) {
        good = read_integer(value, &out->pid);
    } else if (strcmp(word, "pidns") == 0) {
        good = read_integer(value, &integer);
        out->pid_namespace = (uint64_t)integer;
    }
    return good;
}

static bool read_options(char **save, struct hint *out) {
    for (char *word; (word = strtok_r(NULL, " ", save));)
        if (!read_option(word, out))
            return false;
    if (out->phase == PHASE_HANG)
        out->level = 1; /* a hang has no level: GPU_UTIL is 100 % in each */
    return true;
}

static bool parse_activity(char *rest, struct event *out) {
    char *save = NULL, *phase = strtok_r(rest, " ", &save);
    return phase && read_phase(phase, &out->hint) && read_options(&save, &out->hint);
}

static bool parse_step(char *text, struct step *out) {
    char *save = NULL, *word = strtok_r(text, " ", &save);
    char *argument = word ? strtok_r(NULL, " ", &save) : NULL;
    double seconds;
    if (!word)
        return false;
    if (strcmp(word, "end") == 0) {
        out->kind = STEP_END;
        return !argument;
    }
    if (!argument)
        return false;
    if (strcmp(word, "loop") == 0) {
        out->kind = STEP_LOOP;
        bool forever = strcmp(argument, "forever") == 0;
        return forever || (read_integer(argument, &out->repeats) && out->repeats > 0);
    }
    out->kind = STEP_PHASE;
    if (!read_phase(word, &out->hint) || !read_number(argument, MIN_STEP_S, MAX_SECONDS, &seconds) ||
        !read_options(&save, &out->hint))
        return false;
    out->hint.until_ns = nanoseconds(seconds);
    return true;
}

/* Loops must close, hold a step and nest at most MAX_DEPTH deep: script_next relies on it. */
static bool loops_are_sound(const struct script *script) {
    int depth = 0;
    for (int i = 0; i < script->count; i++) {
        enum step_kind kind = script->step[i].kind;
        depth += kind == STEP_LOOP ? 1 : kind == STEP_END ? -1 : 0;
        bool empty = kind == STEP_END && script->step[i - (i > 0)].kind == STEP_LOOP;
        if (depth < 0 || depth > MAX_DEPTH || empty)
            return false;
    }
    return depth == 0 && script->count > 0;
}

static bool parse_script(char *rest, struct event *out) {
    struct script *script = &out->script;
    char *save = NULL;
    for (char *text = strtok_r(rest, ";", &save); text; text = strtok_r(NULL, ";", &save)) {
        if (script->count == MAX_STEPS || !parse_step(text, &script->step[script->count]))
            return false;
        script->count++;
    }
    return loops_are_sound(script);
}

static bool parse_throttle(const char *text, struct event *out) {
    static const char *const names[] = {"thermal", "power", "hw-slowdown"};
    static const unsigned reasons[] = {REASON_HW_THERMAL | REASON_HW_SLOWDOWN, REASON_HW_POWER_BRAKE | REASON_HW_SLOWDOWN,
                                       REASON_HW_SLOWDOWN};
    int found = word_index(text, strlen(text), names, 3);
    out->choice = found < 0 ? 0 : reasons[found];
    return found >= 0;
}

static bool parse_remap(const char *text, struct event *out) {
    static const char *const names[] = {"pending", "failed"};
    int found = word_index(text, strlen(text), names, 2);
    out->choice = (unsigned)found;
    return found >= 0;
}

static bool parse_arguments(char *rest, struct event *out) {
    switch (out->word) {
    case WORD_ACTIVITY: return parse_activity(rest, out);
    case WORD_SCRIPT: return parse_script(rest, out);
    case WORD_THROTTLE: return parse_throttle(rest, out);
    case WORD_REMAP: return parse_remap(rest, out);
    case WORD_HANG:
    case WORD_CLEAR: return *rest == '\0';
    case WORD_SLOW: return read_number(rest, 1e-6, 1, &out->number);
    case WORD_TEMP: return read_number(rest, 0, 150, &out->number);
    case WORD_NVLINK_DOWN: return read_number(rest, 0, MAX_LINKS - 1, &out->number);
    case WORD_PCIE_WIDTH: return read_number(rest, 1, MAX_LANES, &out->number);
    case WORD_XID: return read_number(rest, 1, 999, &out->number);
    default: return read_number(rest, 0, 1e15, &out->number);
    }
}

bool event_parse(const char *line, size_t length, struct event *out) {
    char text[LINE_MAX_BYTES];
    if (length >= sizeof text || memchr(line, '\0', length))
        return false;
    memcpy(text, line, length);
    text[length] = '\0';
    memset(out, 0, sizeof *out);
    char *save = NULL, *time = strtok_r(text, " ", &save), *word = time ? strtok_r(NULL, " ", &save) : NULL;
    int found = word ? word_index(word, strlen(word), words, WORD_COUNT) : -1;
    if (found < 0 || !read_integer(time, &out->ns))
        return false;
    out->word = (enum word)found;
    return parse_arguments(save ? save : word + strlen(word), out);
}

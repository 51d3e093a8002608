#include "plan.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32.h"



struct parser {
    struct plan *plan;
    char *why;
    unsigned line; /* from 1 */
    char *fields[PLAN_MOST_FIELDS];
    size_t count;
    bool has_root, is_part;
};

__attribute__((format(printf, 2, 3))) static int refuse(struct parser *parser, const char *format, ...) {
    char what[PLAN_WHY_BYTES / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(parser->why, PLAN_WHY_BYTES, "line %u: %s", parser->line, what);
    return -1;
}

/* The value of a lower-case hexadecimal digit, or -1. */
static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode %XX in place; a field that is just "%" is empty. NUL bytes and bare control characters are refused. */
static int unescape(char *field) {
    if (!strcmp(field, "%")) {
        *field = 0;
        return 0;
    }
    char *out = field;
    for (char *in = field; *in; in++) {
        unsigned char byte = (unsigned char)*in;
        if (byte <= ' ' || byte >= 0x7f) return -1;
        if (byte == '%') {
            int high = digit(in[1]), low = high < 0 ? -1 : digit(in[2]);
            if (low < 0 || high + low == 0) return -1;
            byte = (unsigned char)(high << 4 | low);
            in += 2;
        }
        *out++ = (char)byte;
    }
    *out = 0;
    return 0;
}

static int split(struct parser *parser, char *line) {
    parser->count = 0;
    for (char *field = line; field; parser->count++) {
        if (parser->count == PLAN_MOST_FIELDS) return refuse(parser, "too many fields");
        char *space = strchr(field, ' ');
        if (space) *space++ = 0;
        if (!*field || unescape(field)) return refuse(parser, "a field is not well formed");
        parser->fields[parser->count] = field;
        field = space;
    }
    return 0;
}

/* A path of the container or the host: absolute, without "..", not the root itself. */
static bool path_is_plain(const char *path) {
    if (path[0] != '/' || !path[1]) return false;
    for (const char *part = path; part; part = strchr(part, '/')) {
        part++;
        size_t length = strcspn(part, "/");
        if ((length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.')) return false;
    }
    return true;
}

static bool number(const char *text, long long *value) {
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return isdigit((unsigned char)text[0]) && !*end && !errno;
}

static bool parse_file(struct plan_file *file, const char *path, const char *bytes, const char *mtime) {
    long long size, mtime_ns;
    if (!number(bytes, &size) || !number(mtime, &mtime_ns)) return false;
    *file = (struct plan_file){path, (uint64_t)size, mtime_ns};
    return true;
}

static int parse_image(struct parser *parser) {
    struct plan *plan = parser->plan;
    char **field = parser->fields;
    if (plan->image_kind != IMAGE_NONE) return refuse(parser, "a second image");
    if (parser->count == 3 && !strcmp(field[1], "directory")) {
        plan->image_kind = IMAGE_DIRECTORY;
        plan->image.path = field[2];
    } else if (parser->count == 5 && !strcmp(field[1], "squashfs") &&
               parse_file(&plan->image, field[2], field[3], field[4])) {
        plan->image_kind = IMAGE_SQUASHFS;
    } else {
        return refuse(parser, "not an image");
    }
    if (!path_is_plain(field[2])) return refuse(parser, "the image is not an absolute path");
    return 0;
}

/* Digits, then at most one character of `units`. */
static bool is_quantity(const char *text, const char *units) {
    size_t digits = strspn(text, "0123456789");
    return digits && (!text[digits] || (strchr(units, text[digits]) && !text[digits + 1]));
}

static int parse_root(struct parser *parser) {
    struct plan *plan = parser->plan;
    char **field = parser->fields;
    if (parser->count < 2 || parser->count > 3 || parser->has_root) return refuse(parser, "not a root");
    parser->has_root = true;
    plan->writable = !strcmp(field[1], "writable");
    if (!plan->writable && strcmp(field[1], "readonly")) return refuse(parser, "not a root");
    if (parser->count == 2) return 0;
    if (plan->writable && !strncmp(field[2], "size=", 5) && is_quantity(field[2] + 5, "kmgt%")) plan->root_size = field[2] + 5;
    else if (plan->writable && !strncmp(field[2], "directory=", 10) && path_is_plain(field[2] + 10))
        plan->root_directory = field[2] + 10;
    else return refuse(parser, "a root has no \"%.40s\"", field[2]);
    return 0;
}

static int parse_flag(struct parser *parser, struct plan_mount *mount, const char *flag) {
    static const struct {
        const char *name;
        unsigned flag;
    } known[] = {{"ro", FLAG_READONLY}, {"noexec", FLAG_NOEXEC}, {"optional", FLAG_OPTIONAL}, {"dev", FLAG_DEVICES}};
    if (mount->kind == MOUNT_TMPFS) {
        if (!strncmp(flag, "size=", 5) && is_quantity(flag + 5, "kmgt%")) mount->size = flag + 5;
        else if (!strncmp(flag, "mode=", 5) && is_quantity(flag + 5, "") && strlen(flag) < 10) mount->mode = flag + 5;
        else return refuse(parser, "a tmpfs has no flag \"%s\"", flag);
        return 0;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        bool allowed = mount->kind == MOUNT_BIND || !(known[i].flag & (FLAG_DEVICES | FLAG_OPTIONAL));
        if (allowed && !strcmp(flag, known[i].name)) {
            mount->flags |= known[i].flag;
            return 0;
        }
    }
    return refuse(parser, "unknown mount flag \"%s\"", flag);
}

static int parse_mount(struct parser *parser) {
    struct plan_mount mount = {.kind = MOUNT_BIND};
    char **field = parser->fields;
    if (parser->count == 5 && !strcmp(field[1], "bind")) {
        mount.source = field[2];
        if (!path_is_plain(mount.source)) return refuse(parser, "the source is not an absolute path");
    } else if (parser->count == 4 && !strcmp(field[1], "tmpfs")) {
        mount.kind = MOUNT_TMPFS;
    } else if (parser->count == 7 && !strcmp(field[1], "squashfs") &&
               parse_file(&mount.file, field[2], field[5], field[6])) {
        mount.kind = MOUNT_SQUASHFS;
        if (!path_is_plain(mount.file.path)) return refuse(parser, "the source is not an absolute path");
    } else {
        return refuse(parser, "not a mount");
    }
    char **target = &field[mount.kind == MOUNT_TMPFS ? 2 : 3];
    mount.target = target[0];
    if (!path_is_plain(mount.target)) return refuse(parser, "the target is not an absolute path");
    char *rest = target[1], *flag;
    if (!strcmp(rest, "-")) rest = NULL;
    while ((flag = strsep(&rest, ","))) {
        if (parse_flag(parser, &mount, flag)) return -1;
    }
    parser->plan->mounts[parser->plan->mount_count++] = mount;
    return 0;
}

static int parse_text(struct parser *parser) {
    if (parser->count != 3 || !path_is_plain(parser->fields[1])) return refuse(parser, "not a text");
    parser->plan->texts[parser->plan->text_count++] = (struct plan_text){parser->fields[1], parser->fields[2]};
    return 0;
}

static bool is_name(const char *text) {
    if (!isalpha((unsigned char)*text) && *text != '_') return false;
    while (isalnum((unsigned char)*text) || *text == '_') text++;
    return !*text;
}

static int parse_variable(struct parser *parser) {
    bool set = !strcmp(parser->fields[0], "set");
    if (parser->count != (set ? 3u : 2u) || !is_name(parser->fields[1])) return refuse(parser, "not a variable");
    struct plan_variable variable = {parser->fields[1], set ? parser->fields[2] : NULL};
    parser->plan->variables[parser->plan->variable_count++] = variable;
    return 0;
}

static int parse_workdir(struct parser *parser) {
    if (parser->count != 2 || parser->plan->workdir || parser->fields[1][0] != '/')
        return refuse(parser, "not a working directory");
    parser->plan->workdir = parser->fields[1];
    return 0;
}

static int parse_name(struct parser *parser) {
    if (parser->count != 2 || parser->plan->name) return refuse(parser, "not a name");
    parser->plan->name = parser->fields[1];
    return 0;
}

/* Words of a library: what separates those of LD_PRELOAD cannot stand in one. */
static bool is_library(const char *text) { return *text && !strpbrk(text, ": \t\n"); }

static bool is_one_of(const char *text, const char *const *known) {
    while (*known && strcmp(text, *known)) known++;
    return *known;
}

/* Whether a word is what a letter of a form stands for. */
static bool fits(char letter, const char *word) {
    static const char *const flags[] = {"-", "optional", NULL}, *const rules[] = {"copy", "first-node", "port", NULL},
                             *const required[] = {"path", "library", "driver", "variable", NULL};
    long long value;
    switch (letter) {
    case 'p': return path_is_plain(word);
    case 'l': return is_library(word);
    case 'f': return is_one_of(word, flags);
    case 'k': return is_one_of(word, required);
    case 'r': return is_one_of(word, rules);
    case 'v': return is_name(word);
    case 'i': return number(word, &value) && value > 0;
    default: return *word;
    }
}

/* Forms: a letter a word; '+' at the end is one word or more. */
static const struct {
    const char *word, *form;
    enum item_kind kind;
} items[] = {
    {"library", "wlf", ITEM_LIBRARY},    {"program", "wpf", ITEM_PROGRAM},       {"ldcache", "p", ITEM_CACHE},
    {"symlink", "wp", ITEM_SYMLINK},     {"require", "wkw", ITEM_REQUIRE},       {"derive", "vrv", ITEM_DERIVE},
    {"entrypoint", "+", ITEM_ENTRYPOINT}, {"start-node", "wi+", ITEM_START_NODE}, {"start-task", "wi+", ITEM_START_TASK},
    {"stop", "wi+", ITEM_STOP},          {"include", "p", ITEM_INCLUDE},         {"source", "pii", ITEM_SOURCE}};

static int parse_item(struct parser *parser, size_t which) {
    struct plan *plan = parser->plan;
    const char *form = items[which].form;
    size_t count = parser->count - 1, letters = strlen(form);
    bool open_ended = form[letters - 1] == '+';
    if (open_ended ? count < letters : count != letters) return refuse(parser, "not a %s", items[which].word);
    if (items[which].kind == ITEM_INCLUDE && parser->is_part) return refuse(parser, "an include in an include");
    struct plan_item item = {items[which].kind, count, plan->words + plan->word_count};
    for (size_t i = 0; i < count; i++) {
        const char *word = parser->fields[i + 1];
        if (!fits(i < letters ? form[i] : '+', word) && i < letters)
            return refuse(parser, "not a %s", items[which].word);
        plan->words[plan->word_count++] = word;
    }
    plan->items[plan->item_count++] = item;
    return 0;
}

static int parse_line(struct parser *parser, char *line) {
    static const struct {
        const char *word;
        int (*parse)(struct parser *);
        bool in_part;
    } lines[] = {{"name", parse_name, false},    {"image", parse_image, false},   {"root", parse_root, false},
                 {"mount", parse_mount, true},   {"prepend", parse_text, false},  {"set", parse_variable, true},
                 {"unset", parse_variable, true}, {"workdir", parse_workdir, false}};
    if (split(parser, line)) return -1;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        if (!strcmp(parser->fields[0], lines[i].word) && (lines[i].in_part || !parser->is_part))
            return lines[i].parse(parser);
    }
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        if (!strcmp(parser->fields[0], items[i].word)) return parse_item(parser, i);
    }
    return refuse(parser, "unknown word \"%.40s\"", parser->fields[0]);
}

/* Check the first and the last line; return where the last begins, or NULL. */
static char *checked_end(struct parser *parser, char *content, size_t size) {
    unsigned version;
    int used = 0;
    if (sscanf(content, "piolet-plan %u%n", &version, &used) != 1 || content[used] != '\n')
        return snprintf(parser->why, PLAN_WHY_BYTES, "it is not a container plan"), NULL;
    if (version != PLAN_VERSION) {
        snprintf(parser->why, PLAN_WHY_BYTES, "it has version %u, and this node reads version %d", version,
                 PLAN_VERSION);
        return NULL;
    }
    enum { END_BYTES = sizeof "end 01234567\n" - 1 };
    char *end = content + size - END_BYTES, expected[END_BYTES + 1];
    if (size > END_BYTES) snprintf(expected, sizeof expected, "end %08x\n", crc32(content, size - END_BYTES));
    if (size <= END_BYTES || end[-1] != '\n' || memcmp(end, expected, END_BYTES))
        return snprintf(parser->why, PLAN_WHY_BYTES, "it is torn: its checksum does not fit"), NULL;
    return end;
}

static int parse_lines(struct parser *parser, char *content, char *end) {
    char *line = content;
    for (parser->line = 1; line < end; parser->line++) {
        char *newline = strchr(line, '\n');
        *newline = 0;
        if (parser->line > 1 && parse_line(parser, line)) return -1;
        line = newline + 1;
    }
    if (!parser->is_part && (parser->plan->image_kind == IMAGE_NONE || !parser->has_root || !parser->plan->name))
        return refuse(parser, "name, image or root is missing");
    return 0;
}

static int allocate(struct parser *parser, const char *content, size_t size) {
    size_t lines = 0, words = 0;
    for (size_t i = 0; i < size; i++) {
        lines += content[i] == '\n';
        words += content[i] == ' ';
    }
    if (lines > PLAN_MOST_LINES || size > PLAN_MOST_BYTES)
        return snprintf(parser->why, PLAN_WHY_BYTES, "it is too large"), -1;
    struct plan *plan = parser->plan;
    plan->content = malloc(size + 1);
    plan->mounts = calloc(lines + 1, sizeof *plan->mounts);
    plan->texts = calloc(lines + 1, sizeof *plan->texts);
    plan->variables = calloc(lines + 1, sizeof *plan->variables);
    plan->items = calloc(lines + 1, sizeof *plan->items);
    plan->words = calloc(words + 1, sizeof *plan->words);
    if (!plan->content || !plan->mounts || !plan->texts || !plan->variables || !plan->items || !plan->words)
        return snprintf(parser->why, PLAN_WHY_BYTES, "no memory"), -1;
    memcpy(plan->content, content, size);
    plan->content[size] = 0;
    return 0;
}

static int parse(struct plan *plan, const char *content, size_t size, bool is_part, char why[PLAN_WHY_BYTES]) {
    *plan = (struct plan){0};
    struct parser parser = {.plan = plan, .why = why, .is_part = is_part};
    if (allocate(&parser, content, size)) return -1;
    if (memchr(content, 0, size)) return snprintf(why, PLAN_WHY_BYTES, "it is not text"), -1;
    char *end = checked_end(&parser, plan->content, size);
    return end ? parse_lines(&parser, plan->content, end) : -1;
}

int plan_parse(struct plan *plan, const char *content, size_t size, char why[PLAN_WHY_BYTES]) {
    return parse(plan, content, size, false, why);
}

int plan_parse_part(struct plan *part, const char *content, size_t size, char why[PLAN_WHY_BYTES]) {
    return parse(part, content, size, true, why);
}

/* Return a new array of the elements of two, and free the first that `own` points to; NULL without memory. */
static void *joined(void *own, const void *before, size_t before_count, const void *after, size_t after_count,
                    size_t bytes) {
    char *whole = calloc(before_count + after_count + 1, bytes);
    if (!whole) return NULL;
    memcpy(whole, before, before_count * bytes);
    memcpy(whole + before_count * bytes, after, after_count * bytes);
    free(own);
    return whole;
}

int plan_include(struct plan *plan, const struct plan *part) {
    void *mounts = joined(plan->mounts, plan->mounts, plan->mount_count, part->mounts, part->mount_count,
                          sizeof *plan->mounts);
    if (!mounts) return -1;
    plan->mounts = mounts;
    plan->mount_count += part->mount_count;
    void *variables = joined(plan->variables, part->variables, part->variable_count, plan->variables,
                             plan->variable_count, sizeof *plan->variables);
    if (!variables) return -1;
    plan->variables = variables;
    plan->variable_count += part->variable_count;
    void *all = joined(plan->items, plan->items, plan->item_count, part->items, part->item_count, sizeof *plan->items);
    if (!all) return -1;
    plan->items = all;
    plan->item_count += part->item_count;
    return 0;
}

const struct plan_item *plan_next(const struct plan *plan, enum item_kind kind, const struct plan_item *previous) {
    const struct plan_item *item = previous ? previous + 1 : plan->items, *end = plan->items + plan->item_count;
    while (item < end && item->kind != kind) item++;
    return item < end ? item : NULL;
}

void plan_free(struct plan *plan) {
    free(plan->mounts);
    free(plan->texts);
    free(plan->variables);
    free(plan->items);
    free(plan->words);
    free(plan->content);
    *plan = (struct plan){0};
}

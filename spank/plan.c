#include "plan.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FIELDS = 7 };

struct parser {
    struct plan *plan;
    char *why;
    unsigned line; /* from 1 */
    char *fields[MOST_FIELDS];
    size_t count;
    bool has_root;
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

uint32_t plan_crc32(const char *content, size_t size) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= (unsigned char)content[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xedb88320u & -(crc & 1));
    }
    return ~crc;
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
        if (parser->count == MOST_FIELDS) return refuse(parser, "too many fields");
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

static int parse_root(struct parser *parser) {
    if (parser->count != 2 || parser->has_root) return refuse(parser, "not a root");
    parser->has_root = true;
    parser->plan->writable = !strcmp(parser->fields[1], "writable");
    if (!parser->plan->writable && strcmp(parser->fields[1], "readonly")) return refuse(parser, "not a root");
    return 0;
}

/* Digits, then at most one character of `units`. */
static bool is_quantity(const char *text, const char *units) {
    size_t digits = strspn(text, "0123456789");
    return digits && (!text[digits] || (strchr(units, text[digits]) && !text[digits + 1]));
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

static int parse_line(struct parser *parser, char *line) {
    static const struct {
        const char *word;
        int (*parse)(struct parser *);
    } lines[] = {{"name", parse_name},     {"image", parse_image},      {"root", parse_root},
                 {"mount", parse_mount},   {"prepend", parse_text},     {"set", parse_variable},
                 {"unset", parse_variable}, {"workdir", parse_workdir}};
    if (split(parser, line)) return -1;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        if (!strcmp(parser->fields[0], lines[i].word)) return lines[i].parse(parser);
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
    if (size > END_BYTES) snprintf(expected, sizeof expected, "end %08x\n", plan_crc32(content, size - END_BYTES));
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
    if (parser->plan->image_kind == IMAGE_NONE || !parser->has_root || !parser->plan->name)
        return refuse(parser, "name, image or root is missing");
    return 0;
}

static int allocate(struct parser *parser, const char *content, size_t size) {
    size_t lines = 0;
    for (size_t i = 0; i < size; i++) lines += content[i] == '\n';
    if (lines > PLAN_MOST_LINES || size > PLAN_MOST_BYTES)
        return snprintf(parser->why, PLAN_WHY_BYTES, "it is too large"), -1;
    struct plan *plan = parser->plan;
    plan->content = malloc(size + 1);
    plan->mounts = calloc(lines + 1, sizeof *plan->mounts);
    plan->texts = calloc(lines + 1, sizeof *plan->texts);
    plan->variables = calloc(lines + 1, sizeof *plan->variables);
    if (!plan->content || !plan->mounts || !plan->texts || !plan->variables)
        return snprintf(parser->why, PLAN_WHY_BYTES, "no memory"), -1;
    memcpy(plan->content, content, size);
    plan->content[size] = 0;
    return 0;
}

int plan_parse(struct plan *plan, const char *content, size_t size, char why[PLAN_WHY_BYTES]) {
    *plan = (struct plan){0};
    struct parser parser = {.plan = plan, .why = why};
    if (allocate(&parser, content, size)) return -1;
    if (memchr(content, 0, size)) return snprintf(why, PLAN_WHY_BYTES, "it is not text"), -1;
    char *end = checked_end(&parser, plan->content, size);
    return end ? parse_lines(&parser, plan->content, end) : -1;
}

void plan_free(struct plan *plan) {
    free(plan->mounts);
    free(plan->texts);
    free(plan->variables);
    free(plan->content);
    *plan = (struct plan){0};
}

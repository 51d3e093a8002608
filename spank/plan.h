/* The container plan, as docs/reference/plan-format.md describes it. Reading it is strict and has no side effects:
 * a plan is written by the user, so every byte of it is doubted. */
#ifndef PIOLET_PLAN_H
#define PIOLET_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PLAN_VERSION = 1, PLAN_MOST_BYTES = 1 << 20, PLAN_MOST_LINES = 1 << 14, PLAN_WHY_BYTES = 256, PLAN_MOST_FIELDS = 128 };

enum image_kind { IMAGE_NONE, IMAGE_SQUASHFS, IMAGE_DIRECTORY };
enum mount_kind { MOUNT_BIND, MOUNT_TMPFS, MOUNT_SQUASHFS };
enum mount_flag { FLAG_READONLY = 1, FLAG_NOEXEC = 2, FLAG_OPTIONAL = 4, FLAG_DEVICES = 8 };

/* A squashfs file is refused when it is not what was compiled: when its size or time of modification differ. */
struct plan_file {
    const char *path;
    uint64_t bytes;
    int64_t mtime_ns;
};

struct plan_mount {
    enum mount_kind kind;
    unsigned flags;      /* of enum mount_flag */
    const char *source;  /* bind: a path of the host */
    struct plan_file file; /* squashfs */
    const char *target;  /* a path below the container's root */
    const char *size;    /* tmpfs: its limit as the kernel reads it; NULL for half of the memory */
    const char *mode;    /* tmpfs: octal permissions; NULL for 0755 */
};

struct plan_text {
    const char *target, *text;
};

struct plan_variable {
    const char *name, *value; /* a NULL value unsets */
};

/* What is done with words: a line of the plan that is neither a mount nor a variable. */
enum item_kind {
    ITEM_LIBRARY,    /* BY NAME FLAG: a library of the node, with what it needs */
    ITEM_PROGRAM,    /* BY PATH FLAG: a program of the node, likewise */
    ITEM_CACHE,      /* DIRECTORY: of the container, for its linker's cache */
    ITEM_SYMLINK,    /* TEXT PATH */
    ITEM_REQUIRE,    /* BY KIND VALUE: what must hold before the program starts */
    ITEM_DERIVE,     /* NAME RULE SOURCE: a variable of each task's */
    ITEM_START_NODE, /* BY SECONDS WORD...: a command, before any program on the node */
    ITEM_START_TASK, /* BY SECONDS WORD...: before each program */
    ITEM_STOP,       /* BY SECONDS WORD...: after the last program on the node */
    ITEM_ENTRYPOINT, /* WORD...: before the words of the program */
    ITEM_INCLUDE,    /* PATH: lines that the node has, of devices */
    ITEM_SOURCE,     /* PATH BYTES MTIME_NS: what those lines were made from */
};

struct plan_item {
    enum item_kind kind;
    size_t count; /* words, without the line's own */
    const char **words;
};

struct plan {
    const char *name, *workdir; /* workdir: NULL for the caller's */
    enum image_kind image_kind;
    struct plan_file image; /* a directory has a path only */
    bool writable;
    const char *root_size;      /* of what programs write in memory; NULL for half of it */
    const char *root_directory; /* of the host: where it goes instead; NULL for memory */
    struct plan_mount *mounts;
    struct plan_text *texts;
    struct plan_variable *variables;
    struct plan_item *items;
    const char **words; /* of the items */
    size_t mount_count, text_count, variable_count, item_count, word_count;
    char *content; /* what all strings point into */
};

/* Parse `size` bytes of `content`, which is copied. Returns 0, or -1 with the reason in `why`. */
int plan_parse(struct plan *plan, const char *content, size_t size, char why[PLAN_WHY_BYTES]);

/* The same for what a plan includes: it has no image, root or name, and includes nothing. */
int plan_parse_part(struct plan *part, const char *content, size_t size, char why[PLAN_WHY_BYTES]);

/* Add the lines of `part` to the plan; its variables come first, so that those of the plan win. Returns 0, or -1
 * without memory. Strings stay the part's. */
int plan_include(struct plan *plan, const struct plan *part);

/* The next item of the plan of `kind` after `previous` (NULL for the first), or NULL. */
const struct plan_item *plan_next(const struct plan *plan, enum item_kind kind, const struct plan_item *previous);

void plan_free(struct plan *plan);

#endif

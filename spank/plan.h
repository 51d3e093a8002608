/* The container plan, as docs/reference/plan-format.md describes it. Reading it is strict and has no side effects:
 * a plan is written by the user, so every byte of it is doubted. */
#ifndef PIOLET_PLAN_H
#define PIOLET_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PLAN_VERSION = 1, PLAN_MOST_BYTES = 1 << 20, PLAN_MOST_LINES = 1 << 14, PLAN_WHY_BYTES = 256 };

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

struct plan {
    const char *name, *workdir; /* workdir: NULL for the caller's */
    enum image_kind image_kind;
    struct plan_file image; /* a directory has a path only */
    bool writable;
    struct plan_mount *mounts;
    struct plan_text *texts;
    struct plan_variable *variables;
    size_t mount_count, text_count, variable_count;
    char *content; /* what all strings point into */
};

/* Parse `size` bytes of `content`, which is copied. Returns 0, or -1 with the reason in `why`. */
int plan_parse(struct plan *plan, const char *content, size_t size, char why[PLAN_WHY_BYTES]);

void plan_free(struct plan *plan);

/* CRC-32 as zlib computes it. */
uint32_t plan_crc32(const char *content, size_t size);

#endif

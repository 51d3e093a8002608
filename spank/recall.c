/* A plan that was compiled before, if nothing that it was made from has changed: srun then starts without Python.
 *
 * `piolet env compile` leaves in the user's cache what it has looked at (src/piolet/env/recall.py): records that end with
 * NUL, a letter and its text. All of them must still hold. */
#include "recall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "crc32.h"

enum { RECALL_MOST_BYTES = 1 << 20, OLDEST_S = 24 * 3600 };

extern char **environ;

/* One number for all variables whose name begins with PIOLET_, in whatever order they are. */
static uint32_t settings_sum(void) {
    uint32_t sum = 0;
    for (char **variable = environ; *variable; variable++) {
        if (!strncmp(*variable, "PIOLET_", 7)) sum += crc32(*variable, strlen(*variable));
    }
    return sum;
}

/* SIZE MTIME_NS PATH */
static bool file_holds(const char *text) {
    struct stat status;
    long long size, mtime_ns;
    int used = 0;
    if (sscanf(text, "%lld %lld %n", &size, &mtime_ns, &used) < 2 || !used || stat(text + used, &status)) return false;
    return status.st_size == size && status.st_mtim.tv_sec * 1000000000LL + status.st_mtim.tv_nsec == mtime_ns;
}

static bool variable_holds(const char *text) {
    char name[256];
    const char *equals = strchr(text, '='), *value;
    if (!equals || (size_t)(equals - text) >= sizeof name) return false;
    snprintf(name, sizeof name, "%.*s", (int)(equals - text), text);
    value = getenv(name);
    return value && !strcmp(value, equals + 1);
}

static bool age_holds(const char *made_s) {
    long long age_s = (long long)time(NULL) - atoll(made_s);
    return age_s >= 0 && age_s < OLDEST_S;
}

static bool holds(const char *record, const char *name, const char *directory) {
    const char *text = record + 1;
    switch (*record) {
    case 'm': return age_holds(text);
    case 'n': return !strcmp(text, name);
    case 'c': return !strcmp(text, directory);
    case 'p': return strtoul(text, NULL, 16) == settings_sum();
    case 's': return file_holds(text);
    case 'a': return access(text, F_OK) && (errno == ENOENT || errno == ENOTDIR);
    case 'v': return variable_holds(text);
    case 'u': return !getenv(text);
    case 't': return true;
    default: return false;
    }
}

/* Where the compiler leaves its records: a name made of the environment's and the directory's. */
static int open_records(const char *name, const char *directory) {
    char path[PATH_MAX], key[2 * PATH_MAX];
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    snprintf(key, sizeof key, "%s\n%s", name, directory);
    uint32_t sum = crc32(key, strlen(key));
    if (cache && *cache) snprintf(path, sizeof path, "%s/piolet/compiled/%08x", cache, sum);
    else snprintf(path, sizeof path, "%s/.cache/piolet/compiled/%08x", home ? home : "/nonexistent", sum);
    return open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static size_t read_records(int file, char *records) {
    struct stat status;
    size_t size = 0;
    if (fstat(file, &status) || !S_ISREG(status.st_mode) || status.st_uid != geteuid()) return 0;
    for (ssize_t part; size < RECALL_MOST_BYTES; size += (size_t)part) {
        part = read(file, records + size, RECALL_MOST_BYTES - size);
        if (part <= 0) break;
    }
    return size && !records[size - 1] ? size : 0;
}

int recall(const char *name, char plan[PATH_MAX]) {
    static char records[RECALL_MOST_BYTES];
    char directory[PATH_MAX];
    int file = getcwd(directory, sizeof directory) ? open_records(name, directory) : -1;
    if (file < 0) return -1;
    size_t size = read_records(file, records);
    close(file);
    for (const char *record = records; record < records + size; record += strlen(record) + 1) {
        if (*record == 't') utimensat(AT_FDCWD, record + 1, NULL, 0);
        if (*record == 'P') return (size_t)snprintf(plan, PATH_MAX, "%s", record + 1) < PATH_MAX ? access(plan, R_OK) : -1;
        if (!holds(record, name, directory)) return -1;
    }
    return -1;
}

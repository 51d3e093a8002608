/* Libraries and programs of the node in a container, with the libraries that they need and the image lacks.
 *
 * Who needs what is the linker's to say: the node's for the node, the image's for the image. Both are asked with
 * `ld.so --list`, which runs nothing of what it is asked about. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container.h"

#if defined __aarch64__
#define LINKER "/lib/ld-linux-aarch64.so.1"
#else
#define LINKER "/lib64/ld-linux-x86-64.so.2"
#endif
#define ANY_LIBRARY "libc.so.6" /* what the linker is asked about when only what is preloaded matters */

enum { ROUNDS = 16, LINKER_TIMEOUT_S = 20, NOT_FOUND = 127 };

static const char STAGE[] = "libraries";
static const char SWITCH_OFF[] = "use a node that has it, or switch the hook off in the EDF";

/* Run a program below `root` (-1: as it is), with what it says in `said`. Returns its exit status, or -1. */
static int output_of(int root, char *const words[], char *const environment[], char said[LIBRARIES_SAID_BYTES]) {
    int out[2], status;
    size_t size = 0;
    if (pipe2(out, O_CLOEXEC)) return -1;
    pid_t child = fork();
    if (child < 0) return -1;
    if (!child) {
        if (dup2(out[1], 1) < 0 || dup2(out[1], 2) < 0) _exit(NOT_FOUND);
        if (root >= 0 && (fchdir(root) || chroot(".") || chdir("/"))) _exit(NOT_FOUND);
        alarm(LINKER_TIMEOUT_S);
        execve(words[0], words, environment);
        _exit(NOT_FOUND);
    }
    close(out[1]);
    for (ssize_t part; size < LIBRARIES_SAID_BYTES - 1; size += (size_t)part) {
        part = read(out[0], said + size, LIBRARIES_SAID_BYTES - 1 - size);
        if (part <= 0) break;
    }
    said[size] = 0;
    close(out[0]);
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Ask the linker below `root` what `target` and the libraries in `preload` need. */
static int ask(int root, const char *target, const char *preload, const char *path, char said[LIBRARIES_SAID_BYTES]) {
    char *words[] = {LINKER, "--list", (char *)target, NULL}, *preloaded = NULL, *searched = NULL;
    int failed = asprintf(&preloaded, "LD_PRELOAD=%s", preload) < 0 || asprintf(&searched, "LD_LIBRARY_PATH=%s", path) < 0;
    char *environment[] = {preloaded, searched, NULL};
    int status = failed ? -1 : output_of(root, words, environment, said);
    free(preloaded);
    free(searched);
    return status;
}

int libraries_loadable(const char *name, char said[LIBRARIES_SAID_BYTES]) {
    const char *path = getenv("LD_LIBRARY_PATH");
    return ask(-1, name, "", path ? path : "", said) ? -1 : 0;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The path that a linker's answer gives for the library `name`: "\tNAME => PATH (0x...)". Empty when it has none. */
static void path_of(const char *said, const char *name, char path[PATH_MAX]) {
    char start[PATH_MAX];
    int size = snprintf(start, sizeof start, "\t%s => ", name);
    const char *line = strstr(said, start), *found = line ? line + size : "";
    size_t length = *found == '/' ? strcspn(found, " \n") : 0;
    snprintf(path, PATH_MAX, "%.*s", (int)length, found);
}

/* Names that the linker looks for itself, joined for LD_PRELOAD. */
static char *preload_of(const struct plan *plan) {
    size_t size = 1;
    const struct plan_item *item = NULL;
    while ((item = plan_next(plan, ITEM_LIBRARY, item))) size += strlen(item->words[1]) + 1;
    char *joined = calloc(1, size);
    while (joined && (item = plan_next(plan, ITEM_LIBRARY, item))) strcat(strcat(joined, *joined ? ":" : ""), item->words[1]);
    return joined;
}

int libraries_find(const struct plan *plan, struct libraries *libraries, struct fault *fault) {
    const struct plan_item *program = NULL;
    libraries->said = calloc(1, LIBRARIES_SAID_BYTES);
    char *preload = preload_of(plan);
    if (!libraries->said || !preload) return fault_set(fault, STAGE, SWITCH_OFF, "no memory");
    if (*preload && ask(-1, ANY_LIBRARY, preload, "", libraries->said))
        return fault_set(fault, STAGE, SWITCH_OFF, "the node's %s does not answer", LINKER);
    while ((program = plan_next(plan, ITEM_PROGRAM, program))) {
        size_t used = strlen(libraries->said);
        char *own = calloc(1, LIBRARIES_SAID_BYTES);
        if (!own) return fault_set(fault, STAGE, SWITCH_OFF, "no memory");
        ask(-1, program->words[1], "", "", own); /* one that is missing or no program is said when it is bound */
        strncat(libraries->said, own, LIBRARIES_SAID_BYTES - used - 1);
        free(own);
    }
    free(preload);
    return 0;
}

static int bind_readonly(const char *source, const char *target, struct root *root, struct fault *fault) {
    struct plan_mount mount = {.kind = MOUNT_BIND, .flags = FLAG_READONLY, .source = source, .target = target};
    return mounts_bind(&mount, root, fault);
}

/* Bind the library whose path on the node is `path` as `name`. */
static int bind_library(const char *path, const char *name, struct root *root, struct fault *fault) {
    char target[PATH_MAX];
    snprintf(target, sizeof target, LIBRARIES_DIRECTORY "/%s", name);
    return bind_readonly(path, target, root, fault);
}

/* Bind what a line of the plan names; *bound says that it was there. */
static int bind_item(const struct plan_item *item, struct libraries *libraries, struct root *root, bool *bound,
                     struct fault *fault) {
    char path[PATH_MAX];
    const char *by = item->words[0], *name = item->words[1];
    if (*name == '/') snprintf(path, sizeof path, "%s", name);
    else path_of(libraries->said, name, path);
    int file = *path ? open_below(root->host, path, O_PATH) : -1;
    *bound = file >= 0;
    if (*bound) close(file);
    else if (!strcmp(item->words[2], "optional")) return 0;
    else return fault_set(fault, STAGE, SWITCH_OFF, "%s needs %s, which this node does not have", by, name);
    return item->kind == ITEM_LIBRARY ? bind_library(path, base_name(name), root, fault)
                                      : bind_readonly(path, path, root, fault);
}

/* What the image's linker says about `target` and `preload`: bind what it misses and the node has. Returns how many
 * were bound, or -1 with the fault. */
static int bind_missing(const char *target, const char *preload, struct libraries *libraries, struct root *root,
                        struct fault *fault) {
    static char said[LIBRARIES_SAID_BYTES];
    int count = 0;
    if (ask(root->tree, target, preload, LIBRARIES_DIRECTORY, said) == NOT_FOUND && !strchr(said, '\n'))
        return fault_set(fault, STAGE, "use an image with the GNU C library, or switch the hook off in the EDF",
                         "the image has no %s, so libraries of the node cannot be used in it", LINKER);
    for (char *line = said; line && *line; line = strchr(line, '\n'), line += line != NULL) {
        char *end = strstr(line, " => not found"), path[PATH_MAX];
        if (!end || end > line + strcspn(line, "\n")) continue;
        *end = 0;
        path_of(libraries->said, line + 1, path);
        if (*path && bind_library(path, line + 1, root, fault)) return -1;
        count += *path != 0;
        line = end + 1;
    }
    char *problem = strstr(said, "version `");
    if (!count && problem && strstr(problem, "not found (required by /")) {
        problem[strcspn(problem, "\n")] = 0;
        return fault_set(fault, STAGE, "use an image that is as new as the node's system, or switch the hook off",
                         "the image's libraries are older than the node's: %s", problem);
    }
    return count;
}

static int bind_all_missing(const char *target, const char *preload, struct libraries *libraries, struct root *root,
                            struct fault *fault) {
    for (int round = 0; round < ROUNDS; round++) {
        int count = bind_missing(target, preload, libraries, root, fault);
        if (count <= 0) return count;
    }
    return fault_set(fault, STAGE, SWITCH_OFF, "%s needs libraries without end", target);
}

/* Have the image's linker know the directories of the plan. An image without ldconfig finds them by a variable. */
static int refresh_cache(const struct plan *plan, struct libraries *libraries, struct root *root, struct fault *fault) {
    static char said[LIBRARIES_SAID_BYTES];
    const struct plan_item *item = NULL;
    char *words[64] = {"/sbin/ldconfig"}, *environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    size_t count = 1;
    if (libraries->bound) words[count++] = LIBRARIES_DIRECTORY;
    while ((item = plan_next(plan, ITEM_CACHE, item)) && count < sizeof words / sizeof *words - 1)
        words[count++] = (char *)item->words[0];
    if (count == 1) return 0;
    int there = open_below(root->tree, words[0], O_PATH), status = 0;
    for (size_t i = 1; i < count; i++) {
        bool listed = there < 0 || !strcmp(words[i], LIBRARIES_DIRECTORY);
        size_t used = strlen(libraries->path);
        if (listed) snprintf(libraries->path + used, sizeof libraries->path - used, "%s%s", used ? ":" : "", words[i]);
    }
    if (there < 0) return 0;
    close(there);
    status = output_of(root->tree, words, environment, said);
    said[strcspn(said, "\n")] = 0;
    return status ? fault_set(fault, STAGE, SWITCH_OFF, "ldconfig of the image failed: %s", said) : 0;
}

int libraries_apply(const struct plan *plan, struct libraries *libraries, struct root *root, struct fault *fault) {
    const struct plan_item *item = NULL;
    char *preload = calloc(1, PLAN_MOST_BYTES);
    bool bound;
    if (!preload) return fault_set(fault, STAGE, SWITCH_OFF, "no memory");
    while ((item = plan_next(plan, ITEM_LIBRARY, item))) {
        if (bind_item(item, libraries, root, &bound, fault)) return -1;
        libraries->bound |= bound;
        if (bound) strcat(strcat(preload, *preload ? ":" : ""), base_name(item->words[1]));
    }
    if (*preload && bind_all_missing(ANY_LIBRARY, preload, libraries, root, fault)) return -1;
    free(preload);
    while ((item = plan_next(plan, ITEM_PROGRAM, item))) {
        if (bind_item(item, libraries, root, &bound, fault)) return -1;
        if (bound && bind_all_missing(item->words[1], "", libraries, root, fault)) return -1;
    }
    return refresh_cache(plan, libraries, root, fault);
}

int libraries_check(const struct plan *plan, struct fault *fault) {
    static char said[LIBRARIES_SAID_BYTES];
    const struct plan_item *item = NULL;
    const char *searched = getenv("LD_LIBRARY_PATH");
    char target[PATH_MAX], found[PATH_MAX];
    while ((item = plan_next(plan, ITEM_LIBRARY, item))) {
        const char *name = base_name(item->words[1]);
        snprintf(target, sizeof target, LIBRARIES_DIRECTORY "/%s", name);
        if (access(target, F_OK)) continue; /* optional, and not on this node */
        ask(-1, ANY_LIBRARY, name, searched ? searched : "", said);
        path_of(said, name, found);
        if (strcmp(found, target))
            return fault_set(fault, "verify", "remove what hides it from the image or the EDF (LD_LIBRARY_PATH, LD_PRELOAD)",
                             "%s had no effect: programs would load %s instead of %s", item->words[0],
                             *found ? found : "nothing", target);
    }
    return 0;
}

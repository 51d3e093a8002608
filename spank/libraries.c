/* Libraries and programs of the node in a container, with the libraries that they need and the image lacks.
 *
 * Who needs what is the linker's to say: the node's for the node, the image's for the image. Both are asked as ldd asks
 * them (LD_TRACE_LOADED_OBJECTS), which runs nothing of what they are asked about. */
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
#define TRIPLET "aarch64-linux-gnu"
#else
#define LINKER "/lib64/ld-linux-x86-64.so.2"
#define TRIPLET "x86_64-linux-gnu"
#endif
#define ANY_PROGRAM "/bin/sh" /* what the node's linker is asked about when only what is preloaded matters */

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

/* Ask the linker below `root` what `target` and the libraries in `preload` need. Returns its exit status, or -1. */
static int ask(int root, const char *target, const char *preload, const char *path, char said[LIBRARIES_SAID_BYTES]) {
    char *words[] = {LINKER, (char *)target, NULL}, *preloaded = NULL, *searched = NULL;
    int failed = asprintf(&preloaded, "LD_PRELOAD=%s", preload) < 0 || asprintf(&searched, "LD_LIBRARY_PATH=%s", path) < 0;
    char *environment[] = {"LD_TRACE_LOADED_OBJECTS=1", "LD_WARN=", preloaded, searched, NULL};
    int status = failed ? -1 : output_of(root, words, environment, said);
    free(preloaded);
    free(searched);
    return status;
}

/* Whether all that `target` needs is in the container; if not, `said` says what is not, in its first line. */
static bool is_whole(const char *target, char said[LIBRARIES_SAID_BYTES]) {
    const char *path = getenv("LD_LIBRARY_PATH");
    int status = ask(-1, target, "", path ? path : "", said);
    char *missing = strstr(said, "not found");
    if (!status && !missing) return true;
    while (missing && missing > said && missing[-1] != '\n') missing--;
    if (missing) memmove(said, missing, strlen(missing) + 1);
    said[strcspn(said, "\n")] = 0;
    return false;
}

int libraries_loadable(const char *name, char said[LIBRARIES_SAID_BYTES]) {
    static const char *const directories[] = {"/lib/" TRIPLET, "/usr/lib/" TRIPLET, "/lib64", "/usr/lib64", "/lib", "/usr/lib"};
    char path[PATH_MAX];
    if (is_whole(name, said)) return 0;
    for (size_t i = 0; i < sizeof directories / sizeof *directories && *name != '/'; i++) {
        snprintf(path, sizeof path, "%s/%s", directories[i], name);
        if (!access(path, F_OK)) return is_whole(path, said) ? 0 : -1;
    }
    return -1;
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
    if (*preload && ask(-1, ANY_PROGRAM, preload, "", libraries->said))
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

/* Where a line's library or program is in the container. */
static void target_of(const struct plan_item *item, char target[PATH_MAX]) {
    const char *name = item->words[1];
    bool is_program = item->kind == ITEM_PROGRAM;
    snprintf(target, PATH_MAX, "%s%s", is_program ? "" : LIBRARIES_DIRECTORY "/", is_program ? name : base_name(name));
}

static int bind_readonly(const char *source, const char *target, struct root *root, struct fault *fault) {
    struct plan_mount mount = {.kind = MOUNT_BIND, .flags = FLAG_READONLY, .source = source, .target = target};
    return bind_below(&mount, root, fault);
}

/* Bind what a line of the plan names; *bound says that it was there. */
static int bind_item(const struct plan_item *item, const char *target, struct libraries *libraries, struct root *root,
                     bool *bound, struct fault *fault) {
    char path[PATH_MAX];
    const char *by = item->words[0], *name = item->words[1];
    if (*name == '/') snprintf(path, sizeof path, "%s", name);
    else path_of(libraries->said, name, path);
    int file = *path ? open_below(root->host, path, O_PATH) : -1;
    *bound = file >= 0;
    if (*bound) close(file);
    else if (!strcmp(item->words[2], "optional")) return 0;
    else return fault_set(fault, STAGE, SWITCH_OFF, "%s needs %s, which this node does not have", by, name);
    libraries->bound |= item->kind == ITEM_LIBRARY;
    return bind_readonly(path, target, root, fault);
}

/* Bind what `target` needs, the image lacks and the node has. Returns how many were bound, or -1 with the fault. */
static int bind_missing(const char *target, struct libraries *libraries, struct root *root, struct fault *fault) {
    static char said[LIBRARIES_SAID_BYTES];
    int count = 0, linker = open_below(root->tree, LINKER, O_PATH);
    if (linker < 0)
        return fault_set(fault, STAGE, "use an image with the GNU C library, or switch the hook off in the EDF",
                         "the image has no %s, so %s of the node cannot be used in it", LINKER, target);
    close(linker);
    ask(root->tree, target, "", LIBRARIES_DIRECTORY, said);
    for (char *line = said, *end; line && *line; line = end ? end + 1 : NULL) {
        char path[PATH_MAX], name[PATH_MAX], bound[2 * PATH_MAX];
        end = strchr(line, '\n');
        if (end) *end = 0;
        if (!strstr(line, " => not found") || sscanf(line, "\t%4095s", name) != 1) continue;
        path_of(libraries->said, name, path);
        if (!*path) continue; /* what is missing in the end is said by libraries_check */
        snprintf(bound, sizeof bound, LIBRARIES_DIRECTORY "/%s", name);
        if (bind_readonly(path, bound, root, fault)) return -1;
        libraries->bound = true;
        count++;
    }
    return count;
}

static int bind_all_missing(const char *target, struct libraries *libraries, struct root *root, struct fault *fault) {
    for (int round = 0; round < ROUNDS; round++) {
        int count = bind_missing(target, libraries, root, fault);
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
    static const enum item_kind kinds[] = {ITEM_LIBRARY, ITEM_PROGRAM};
    for (size_t i = 0; i < 2; i++) {
        for (const struct plan_item *item = NULL; (item = plan_next(plan, kinds[i], item));) {
            char target[PATH_MAX];
            bool bound;
            target_of(item, target);
            if (bind_item(item, target, libraries, root, &bound, fault)) return -1;
            if (bound && bind_all_missing(target, libraries, root, fault)) return -1;
        }
    }
    return refresh_cache(plan, libraries, root, fault);
}

int libraries_check(const struct plan *plan, struct fault *fault) {
    static const enum item_kind kinds[] = {ITEM_LIBRARY, ITEM_PROGRAM};
    static char said[LIBRARIES_SAID_BYTES];
    for (size_t i = 0; i < 2; i++) {
        for (const struct plan_item *item = NULL; (item = plan_next(plan, kinds[i], item));) {
            char target[PATH_MAX];
            target_of(item, target);
            if (access(target, F_OK) || is_whole(target, said)) continue; /* optional, and not on this node */
            return fault_set(fault, "verify", "use an image that is as new as the node's system, or switch the hook off",
                             "%s has no effect: %s does not work in the container:%s%s", item->words[0],
                             item->words[1], *said == '\t' ? "" : " ", said + (*said == '\t'));
        }
    }
    return 0;
}

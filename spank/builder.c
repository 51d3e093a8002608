/* The builder: from the path of a plan to a container that can be joined. See container.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container.h"

static const char CHECK_PLAN[] = "start again, so that the environment is compiled anew";
static const char SHARED[] = "plans must be on a file system that nodes share: set PIOLET_ROOT, or root in the settings";

/* Read a file whole into `content`, which has room for PLAN_MOST_BYTES + 1. Returns the size or -1. */
static ssize_t read_whole(int file, char *content) {
    size_t size = 0;
    while (size <= PLAN_MOST_BYTES) {
        ssize_t part = read(file, content + size, PLAN_MOST_BYTES + 1 - size);
        if (part < 0) return -1;
        if (!part) break;
        size += (size_t)part;
    }
    return (ssize_t)size;
}

typedef int parse_plan(struct plan *plan, const char *content, size_t size, char why[PLAN_WHY_BYTES]);

static int read_plan(const char *path, struct plan *plan, parse_plan *parse, const char *remedy, struct fault *fault) {
    static char content[PLAN_MOST_BYTES + 1];
    char why[PLAN_WHY_BYTES];
    struct stat status;
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0 || fstat(file, &status)) return fault_set(fault, "plan", parse == plan_parse ? SHARED : remedy, "%s: %m", path);
    if (!S_ISREG(status.st_mode)) return fault_set(fault, "plan", remedy, "%s is not a file", path);
    ssize_t size = read_whole(file, content);
    close(file);
    if (size < 0) return fault_set(fault, "plan", SHARED, "%s: %m", path);
    if (parse(plan, content, (size_t)size, why)) return fault_set(fault, "plan", remedy, "%s: %s", path, why);
    return 0;
}

static int check_workdir(const struct plan *plan, struct root *root, struct fault *fault) {
    if (!plan->workdir) return 0;
    int directory = open_below(root->tree, plan->workdir, O_PATH | O_DIRECTORY);
    if (directory < 0)
        return fault_set(fault, "workdir", "mount it, or correct workdir in the EDF", "%s: %m", plan->workdir);
    close(directory);
    return 0;
}

/* Add what the node itself says of devices. It is refused when it was made from something that has changed since. */
static int include_parts(struct plan *plan, struct fault *fault) {
    static const char remedy[] = "ask the administrators to run `piolet env cdi` on this node";
    for (const struct plan_item *item = NULL; (item = plan_next(plan, ITEM_INCLUDE, item));) {
        struct plan part;
        struct stat status;
        char path[PATH_MAX];
        size_t index = (size_t)(item - plan->items);
        snprintf(path, sizeof path, "%s", item->words[0]);
        if (read_plan(path, &part, plan_parse_part, remedy, fault)) return -1;
        const struct plan_item *source = plan_next(&part, ITEM_SOURCE, NULL);
        if (!source || stat(source->words[0], &status) || atoll(source->words[1]) != status.st_size ||
            atoll(source->words[2]) != (long long)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec)
            return fault_set(fault, "devices", remedy, "%s is older than what it was made from", path);
        if (plan_include(plan, &part)) return fault_set(fault, "devices", remedy, "no memory");
        item = plan->items + index;
    }
    return 0;
}

/* Build the container of a plan that has been read; *unmapped says that the image's files are somebody else's. */
static int build(const struct plan *plan, const struct builder *builder, struct libraries *libraries, bool *unmapped,
                 struct fault *fault) {
    struct root root = {-1, -1, -1, -1};
    struct squashfs image;
    struct squashfs *files = calloc(plan->mount_count + 1, sizeof *files);
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (!files) return fault_set(fault, "mount", CHECK_PLAN, "no memory");
    if (image_open(plan, &image, fault) || mounts_open(plan, files, fault) ||
        libraries_find(plan, libraries, fault) || namespaces_first(builder->owner, &root, fault) ||
        image_serve(plan, &image, builder, fault) ||
        mounts_serve(plan, files, builder->path, fault) || namespaces_stage(plan->root_size, &root, fault) ||
        image_mount(plan, &image, builder->owner, &root, unmapped, fault))
        return -1;
    if (*unmapped) return 0;
    if (mounts_apply(plan, files, &root, fault) || libraries_apply(plan, libraries, &root, fault) ||
        mounts_finish(plan, &root, fault) || check_workdir(plan, &root, fault))
        return -1;
    return namespaces_last(builder->owner, uid, gid, &root, fault);
}

/* Take the variables that the programs will have. */
static void adopt_variables(const struct plan *plan, struct libraries *libraries) {
    for (size_t i = 0; i < plan->variable_count; i++) {
        const struct plan_variable *variable = &plan->variables[i];
        if (variable->value) setenv(variable->name, variable->value, 1);
        else unsetenv(variable->name);
    }
    const char *own = getenv("LD_LIBRARY_PATH");
    size_t used = strlen(libraries->path);
    if (!used) return;
    if (own && *own) snprintf(libraries->path + used, sizeof libraries->path - used, ":%s", own);
    setenv("LD_LIBRARY_PATH", libraries->path, 1);
}

/* Check and start what comes before the programs, in the container. */
static int prepare(const struct plan *plan, struct libraries *libraries, FILE *out, struct fault *fault) {
    adopt_variables(plan, libraries);
    if (plan->workdir && chdir(plan->workdir))
        return fault_set(fault, "workdir", "mount it, or correct workdir in the EDF", "%s: %m", plan->workdir);
    return requirements_check(plan, fault) || starts_run(plan, out, fault) ? -1 : 0;
}

static void put(FILE *out, enum record_kind kind, const char *text) { fprintf(out, "%c%s%c", kind, text, 0); }

static void put_item(FILE *out, const struct plan_item *item) {
    switch (item->kind) {
    case ITEM_DERIVE: fprintf(out, "%c%s %s %s%c", RECORD_DERIVE, item->words[0], item->words[1], item->words[2], 0); break;
    case ITEM_REQUIRE: fprintf(out, "%c%s %s %s%c", RECORD_VERIFIED, item->words[0], item->words[1], item->words[2], 0); break;
    case ITEM_LIBRARY: fprintf(out, "%c%s library %s%c", RECORD_VERIFIED, item->words[0], item->words[1], 0); break;
    case ITEM_PROGRAM: fprintf(out, "%c%s program %s%c", RECORD_VERIFIED, item->words[0], item->words[1], 0); break;
    case ITEM_START_NODE: fprintf(out, "%c%s start %s%c", RECORD_VERIFIED, item->words[0], item->words[2], 0); break;
    case ITEM_START_TASK:
        fprintf(out, "%c%s %s%c", RECORD_START, item->words[1], item->words[0], 0);
        for (size_t i = 2; i < item->count; i++) put(out, RECORD_WORD, item->words[i]);
        break;
    case ITEM_ENTRYPOINT:
        for (size_t i = 0; i < item->count; i++) put(out, RECORD_ENTRYPOINT, item->words[i]);
        break;
    default: break;
    }
}

static int answer_records(const struct plan *plan, const struct libraries *libraries, FILE *out) {
    fprintf(out, "%c%d%c", ANSWER_READY, (int)getpid(), 0);
    put(out, RECORD_WORKDIR, plan->workdir ? plan->workdir : "");
    for (size_t i = 0; i < plan->variable_count; i++) {
        const struct plan_variable *variable = &plan->variables[i];
        if (variable->value) fprintf(out, "%c%s=%s%c", RECORD_SET, variable->name, variable->value, 0);
        else put(out, RECORD_UNSET, variable->name);
    }
    if (*libraries->path) fprintf(out, "%cLD_LIBRARY_PATH=%s%c", RECORD_SET, libraries->path, 0);
    for (size_t i = 0; i < plan->item_count; i++) put_item(out, &plan->items[i]);
    return fflush(out);
}

/* Stay until the last program has ended, and stop what was started. A process or a pipe tells. */
static void wait_for_end(const struct plan *plan, int ended) {
    struct pollfd end = {.fd = ended, .events = POLLIN};
    if (!plan_next(plan, ITEM_STOP, NULL) || ended < 0) return;
    while (poll(&end, 1, -1) < 0 && errno == EINTR) {
    }
    stops_run(plan);
}

int builder_within(const char *plan_path, struct plan *plan, struct container *container, struct fault *fault) {
    struct libraries none = {0};
    FILE *nobody = fopen("/dev/null", "we"), *out = fmemopen(container->answer, sizeof container->answer, "w");
    if (!nobody || !out) return fault_set(fault, "builder", CHECK_PLAN, "no memory");
    if (read_plan(plan_path, plan, plan_parse, CHECK_PLAN, fault) || prepare(plan, &none, nobody, fault)) return -1;
    if (answer_records(plan, &none, out)) return fault_set(fault, "builder", CHECK_PLAN, "no memory");
    container->answer_size = (size_t)ftell(out);
    return fclose(out) ? fault_set(fault, "builder", CHECK_PLAN, "no memory") : 0;
}

void builder_main(const struct builder *builder) {
    struct plan plan;
    struct fault fault;
    struct libraries libraries = {0};
    bool unmapped = false;
    char c;
    signal(SIGPIPE, SIG_DFL);
    umask(022);
    FILE *out = fdopen(builder->answer, "w");
    if (!out) _exit(1);
    fcntl(builder->answer, F_SETFD, FD_CLOEXEC);
    fcntl(builder->release, F_SETFD, FD_CLOEXEC);
    if (builder->ended >= 0) fcntl(builder->ended, F_SETFD, FD_CLOEXEC);
    if (read_plan(builder->plan, &plan, plan_parse, CHECK_PLAN, &fault) || include_parts(&plan, &fault) ||
        build(&plan, builder, &libraries, &unmapped, &fault) ||
        (!unmapped && prepare(&plan, &libraries, out, &fault))) {
        fprintf(out, "%c%s", ANSWER_FAULT, fault.text);
        _exit(fclose(out) ? 1 : 2);
    }
    if (unmapped) {
        fputc(ANSWER_OTHER_OWNER, out);
        _exit(fclose(out) ? 1 : 0);
    }
    if (answer_records(&plan, &libraries, out) || fclose(out)) _exit(1);
    (void)!read(builder->release, &c, 1);
    wait_for_end(&plan, builder->ended);
    _exit(0);
}

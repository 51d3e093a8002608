/* The builder: from the path of a plan to a container that can be joined. See container.h. */
#include <errno.h>
#include <fcntl.h>
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

static int read_plan(const char *path, struct plan *plan, struct fault *fault) {
    static char content[PLAN_MOST_BYTES + 1];
    char why[PLAN_WHY_BYTES];
    struct stat status;
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0 || fstat(file, &status)) return fault_set(fault, "plan", SHARED, "%s: %m", path);
    if (!S_ISREG(status.st_mode)) return fault_set(fault, "plan", CHECK_PLAN, "%s is not a file", path);
    ssize_t size = read_whole(file, content);
    close(file);
    if (size < 0) return fault_set(fault, "plan", SHARED, "%s: %m", path);
    if (plan_parse(plan, content, (size_t)size, why)) return fault_set(fault, "plan", CHECK_PLAN, "%s: %s", path, why);
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

static int build(const struct plan *plan, enum image_owner owner, bool *unmapped, struct fault *fault) {
    struct root root = {-1, -1, -1};
    struct squashfs image;
    struct squashfs *files = calloc(plan->mount_count + 1, sizeof *files);
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (!files) return fault_set(fault, "mount", CHECK_PLAN, "no memory");
    if (image_open(plan, &image, fault) || mounts_open(plan, files, fault) ||
        namespaces_first(owner, &root, fault) ||
        (plan->image_kind == IMAGE_SQUASHFS && squashfs_serve(&image, fault)) || mounts_serve(plan, files, fault) ||
        namespaces_stage(&root, fault) || image_mount(plan, &image, owner, &root, unmapped, fault))
        return -1;
    if (*unmapped) return 0;
    if (mounts_apply(plan, files, &root, fault) || check_workdir(plan, &root, fault)) return -1;
    return namespaces_last(owner, uid, gid, &root, fault);
}

static int put(FILE *out, const char *name, const char *value) {
    return fprintf(out, value ? "%s=%s" : "%s", name, value) < 0 || fputc(0, out) == EOF;
}

static int answer_ready(const struct plan *plan, FILE *out) {
    fprintf(out, "%c%d%c%s%c", ANSWER_READY, (int)getpid(), 0, plan->workdir ? plan->workdir : "", 0);
    for (size_t i = 0; i < plan->variable_count; i++) put(out, plan->variables[i].name, plan->variables[i].value);
    return fclose(out);
}

void builder_main(const char *plan_path, enum image_owner owner, int answer, int release) {
    struct plan plan;
    struct fault fault;
    bool unmapped = false;
    char c;
    signal(SIGPIPE, SIG_DFL);
    umask(022);
    FILE *out = fdopen(answer, "w");
    if (!out) _exit(1);
    if (read_plan(plan_path, &plan, &fault) || build(&plan, owner, &unmapped, &fault)) {
        fprintf(out, "%c%s", ANSWER_FAULT, fault.text);
        _exit(fclose(out) ? 1 : 2);
    }
    if (unmapped) {
        fputc(ANSWER_OTHER_OWNER, out);
        _exit(fclose(out) ? 1 : 0);
    }
    if (answer_ready(&plan, out)) _exit(1);
    (void)!read(release, &c, 1);
    _exit(0);
}

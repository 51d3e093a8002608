/* Building and joining a container: one flow for the Slurm plugin and for piolet-enter.
 *
 * The builder is a process of the user, without any privilege of its own. It reads the plan, builds the container in
 * user and mount namespaces of the user's, answers on a pipe, and stays until all who are to join have let go of
 * another pipe. They (the tasks of the step, or the program itself) enter its namespaces with setns. When the last
 * process in the mount namespace ends, the kernel takes the mounts down, and with them squashfuse: nobody cleans up.
 */
#ifndef PIOLET_CONTAINER_H
#define PIOLET_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "fault.h"
#include "plan.h"

enum { ANSWER_MOST_BYTES = PLAN_MOST_BYTES + FAULT_BYTES };

/* Whose the files of the image are: root's, shown as the user's own; or the user's already. */
enum image_owner { OWNER_ROOT, OWNER_USER };

/* First byte of an answer. */
enum answer_kind { ANSWER_READY = 'R', ANSWER_FAULT = 'F', ANSWER_OTHER_OWNER = 'O' };

struct container {
    pid_t builder;
    size_t answer_size;
    char answer[ANSWER_MOST_BYTES]; /* ready: kind, builder's pid, working directory, then NAME=VALUE (set) or NAME
                                       (unset); each ends with NUL */
};

/* In the builder: build, answer, wait until `release` is at its end, exit. */
__attribute__((noreturn)) void builder_main(const char *plan_path, enum image_owner owner, int answer, int release);

/* Becomes a builder, in a process that was made for it. `data` is the caller's own. */
typedef void builder_run(enum image_owner owner, int answer, int release, void *data);

/* Have a container built, within `timeout_s` seconds. Its builder stays until nobody holds release[1] any more.
 * Returns 0, or -1 with the fault. */
int container_open(struct container *container, const int release[2], builder_run *run, void *data, int timeout_s,
                   struct fault *fault);

/* Enter the container for good: no_new_privs, namespaces, working directory. Returns 0, or -1 with the fault. */
int container_join(const struct container *container, struct fault *fault);

/* The next variable after `previous` (NULL for the first): NAME=VALUE or NAME; NULL at the end. */
const char *container_variable(const struct container *container, const char *previous);

/* Parts of the builder, each in its own file. Return 0 or -1 with the fault. */
struct root {
    int host; /* the host's tree, as seen by the user */
    int self; /* /proc/<builder> of the host */
    int tree; /* the container's root, once it exists */
};

int namespaces_first(enum image_owner owner, struct root *root, struct fault *fault);
int namespaces_stage(struct root *root, struct fault *fault);
int namespaces_last(enum image_owner owner, uid_t uid, gid_t gid, struct root *root, struct fault *fault);

/* A squashfs file and the squashfuse that serves it. */
struct squashfs {
    int file;
    int fuse;    /* /dev/fuse */
    int go;      /* a byte lets squashfuse start */
    int said;    /* what squashfuse says on its standard error */
    pid_t server;
};

/* In this order: opened as the user sees it, served before there is a mount namespace, mounted at `at` of the stage. */
int squashfs_open(const struct plan_file *wanted, struct squashfs *image, struct fault *fault);
int squashfs_serve(struct squashfs *image, struct fault *fault);
int squashfs_mount(const char *path, struct squashfs *image, const char *at, struct stat *status,
                   struct fault *fault);

int image_open(const struct plan *plan, struct squashfs *image, struct fault *fault);
/* Mount the image at /image of the stage; *unmapped says that its files belong to somebody else. */
int image_mount(const struct plan *plan, struct squashfs *image, enum image_owner owner, const struct root *root,
                bool *unmapped, struct fault *fault);

/* `files` are those of the plan's mounts, by index. */
int mounts_open(const struct plan *plan, struct squashfs *files, struct fault *fault);
int mounts_serve(const struct plan *plan, struct squashfs *files, struct fault *fault);
int mounts_apply(const struct plan *plan, struct squashfs *files, struct root *root, struct fault *fault);
int texts_apply(const struct plan *plan, struct root *root, struct fault *fault);

/* The mount system calls that C libraries gained late. Paths are resolved below `root`, never outside it. */
int open_below(int root, const char *path, int flags);
int attach_copy(int source, int target, unsigned long long attributes);

#endif

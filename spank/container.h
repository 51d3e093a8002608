/* Building and joining a container: one flow for the Slurm plugin and for piolet-enter.
 *
 * The builder is a process of the user, without any privilege of its own. It reads the plan, builds the container in
 * user and mount namespaces of the user's, answers on a pipe, and stays until all who are to join have let go of
 * another pipe. They (the tasks of the step, or the program itself) enter its namespaces with setns. When the last
 * process in the mount namespace ends, the kernel takes the mounts down, and with them squashfuse: nobody cleans up.
 */
#ifndef PIOLET_CONTAINER_H
#define PIOLET_CONTAINER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "fault.h"
#include "plan.h"

enum { ANSWER_MOST_BYTES = PLAN_MOST_BYTES + FAULT_BYTES };

#define CONTAINER_MARK ".piolet" /* a directory that the root of every container has */
#define TASK_VARIABLE "PIOLET_TASK" /* the file with what comes before a task's program; see enter.c */

/* Whose the files of the image are: root's, shown as the user's own; or the user's already. */
enum image_owner { OWNER_ROOT, OWNER_USER };

/* First byte of an answer. Before it may come words to wait: ANSWER_WAIT, the seconds, NUL. */
enum answer_kind { ANSWER_READY = 'R', ANSWER_FAULT = 'F', ANSWER_OTHER_OWNER = 'O', ANSWER_WAIT = '+' };

/* Records of an answer that is ready, after the builder's pid: a letter and its text, each ends with NUL. */
enum record_kind {
    RECORD_WORKDIR = 'w',
    RECORD_SET = 's',        /* NAME=VALUE */
    RECORD_UNSET = 'u',      /* NAME */
    RECORD_DERIVE = 'd',     /* NAME RULE SOURCE */
    RECORD_ENTRYPOINT = 'e', /* a word */
    RECORD_START = 't',      /* SECONDS BY: a command before each program; its words follow */
    RECORD_WORD = 'a',
    RECORD_VERIFIED = 'y', /* BY KIND VALUE: what holds in the container, for the logbook */
};

struct container {
    pid_t builder;
    size_t answer_size;
    char answer[ANSWER_MOST_BYTES];
};

/* What a builder is to do. `release` is at its end when all have joined; `ended`, when the last program has ended, is
 * waited for only by a plan that stops something. */
struct builder {
    const char *plan;
    enum image_owner owner;
    int answer, release, ended;
    const char *path; /* where squashfuse is looked for */
    const char *mounted; /* path of the image that root has mounted at TRUSTED_PLACE; NULL for none */
};

#define TRUSTED_PLACE "/run/piolet-image" /* of nodes, in the mount namespace that the builder is started in */

/* In the builder: build, answer, wait until all have joined, exit. */
__attribute__((noreturn)) void builder_main(const struct builder *builder);

/* In a container that somebody else has made: read the plan, check, start, and have the answer's records. Returns 0, or
 * -1 with the fault. */
int builder_within(const char *plan_path, struct plan *plan, struct container *container, struct fault *fault);

/* Becomes a builder, in a process that was made for it. `data` is the caller's own. */
typedef void builder_run(enum image_owner owner, int answer, int release, void *data);

/* Have a container built, within `timeout_s` seconds. Its builder stays until nobody holds release[1] any more.
 * Returns 0, or -1 with the fault. */
int container_open(struct container *container, const int release[2], builder_run *run, void *data, int timeout_s,
                   struct fault *fault);

/* Enter the container for good: no_new_privs, namespaces, working directory. Returns 0, or -1 with the fault. */
int container_join(const struct container *container, struct fault *fault);

/* Where to write what was verified: a directory of the job's logbook. */
#define VERIFIED_VARIABLE "SLURM_PIOLET_VERIFIED"

/* Append what was verified in the container to DIRECTORY/NODE.jsonl, before joining. A directory that cannot be written
 * costs the record, not the program. */
void container_report(const struct container *container, const char *directory);

/* The next record after `previous` (NULL for the first), or NULL at the end. */
const char *container_record(const struct container *container, const char *previous);

/* A place for variables. `set` and `unset` return 0 or not. */
struct variables {
    const char *(*get)(void *data, const char *name);
    int (*set)(void *data, const char *name, const char *value);
    void (*unset)(void *data, const char *name);
    void *data;
};

/* Set and unset what the container wants for its programs. Returns 0, or -1 with the fault. */
int container_variables(const struct container *container, const struct variables *variables, struct fault *fault);

/* Records of one program: what its container wants done before it, without the builder's pid. A program that needs
 * some goes through launch_program. */
bool container_launches(const struct container *container);

/* Run the start-up commands of the records and become the program, by the entrypoint if there is one. Returns only when
 * that failed: with a fault, or with errno and an empty fault when the program cannot be executed. */
int launch_program(const char *records, size_t size, char **program, struct fault *fault);

/* Run a command of the plan for at most `seconds`; what it says goes to standard error. */
int command_run(const char *stage, const char *by, int seconds, char *const words[], struct fault *fault);

/* In the container, with the variables of its programs. */
int requirements_check(const struct plan *plan, struct fault *fault);
int starts_run(const struct plan *plan, FILE *answer, struct fault *fault);
void stops_run(const struct plan *plan);

/* Parts of the builder, each in its own file. Return 0 or -1 with the fault. Paths and trees know none of the others; the
 * image and the libraries know these, mounts the image too, and the builder all. */

struct root {
    int host; /* the host's tree, as seen by the user */
    int self; /* /proc/<builder> of the host */
    int tree; /* the container's root, once it exists */
    int upper; /* where what programs write goes, with room for the overlay's own; -1 for the stage */
};

int namespaces_first(enum image_owner owner, struct root *root, struct fault *fault);
int namespaces_stage(const char *size, struct root *root, struct fault *fault);
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
int squashfs_serve(struct squashfs *image, const char *path, struct fault *fault);
int squashfs_mount(const char *path, struct squashfs *image, const char *at, struct stat *status,
                   struct fault *fault);

int image_open(const struct plan *plan, struct squashfs *image, struct fault *fault);
/* Have it served, unless root has mounted this very image. */
int image_serve(const struct plan *plan, struct squashfs *image, const struct builder *builder, struct fault *fault);
/* Mount the image at /image of the stage; *unmapped says that its files belong to somebody else. */
int image_mount(const struct plan *plan, struct squashfs *image, enum image_owner owner, const struct root *root,
                bool *unmapped, struct fault *fault);

/* `files` are those of the plan's mounts, by index. */
int mounts_open(const struct plan *plan, struct squashfs *files, struct fault *fault);
int mounts_serve(const struct plan *plan, struct squashfs *files, const char *path, struct fault *fault);
int mounts_apply(const struct plan *plan, struct squashfs *files, struct root *root, struct fault *fault);
/* When all mount points are made: what is to be read-only becomes so. */
int mounts_finish(const struct plan *plan, struct root *root, struct fault *fault);

/* Libraries and programs of the node. `said` is what the node's linker says about them; `path` is what to search before
 * all else, for LD_LIBRARY_PATH. */
#define LIBRARIES_DIRECTORY "/" CONTAINER_MARK "/lib"
enum { LIBRARIES_SAID_BYTES = 1 << 18 };

struct libraries {
    char *said;
    bool bound; /* there are some in LIBRARIES_DIRECTORY */
    char path[4096];
};

/* In this order: on the node, in the root to be, in the container with the program's variables. */
int libraries_find(const struct plan *plan, struct libraries *libraries, struct fault *fault);
int libraries_apply(const struct plan *plan, struct libraries *libraries, struct root *root, struct fault *fault);
int libraries_check(const struct plan *plan, struct fault *fault);
/* Whether the linker finds the library `name` here; 0 or -1. */
int libraries_loadable(const char *name, char said[LIBRARIES_SAID_BYTES]);

/* Open `path` below `root`, never outside it. */
int open_below(int root, const char *path, int flags);
/* Open `path` below `root` as a mount point, making it and its parents where they are missing. */
int mount_point(int root, const char *path, bool directory);
/* Attach a copy of the tree at `source` to `target`, with the attributes on every mount in it. */
int attach_copy(int source, int target, unsigned long long attributes);
unsigned long long attributes_of(const struct plan_mount *mount);
/* Bind what the mount names, of the host, below the container's root. */
int bind_below(const struct plan_mount *mount, struct root *root, struct fault *fault);

#endif

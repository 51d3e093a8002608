/* Paths and trees of mounts: what all that builds the container's root stands on.
 *
 * Every path is resolved by the kernel inside the tree that it belongs to (openat2 with RESOLVE_IN_ROOT) and used through
 * the open file, so that no symbolic link leads anywhere else. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"

enum { MOST_LINKS = 16 };

static const char CHECK_MOUNT[] = "correct the mount in the EDF, or ask for the file system on this node";

int open_below(int root, const char *path, int flags) {
    struct open_how how = {.flags = (unsigned)flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* Attach a copy of the tree at `source` to `target`, with the attributes on every mount in it. */
int attach_copy(int source, int target, unsigned long long attributes) {
    struct mount_attr set = {.attr_set = attributes};
    int tree = open_tree(source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree < 0) return -1;
    int failed = mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &set, sizeof set) ||
                 move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    int error = errno;
    close(tree);
    errno = error;
    return failed ? -1 : 0;
}

static int find_point(int root, const char *path, bool directory, int links);

/* Make `name` in the directory `parent`, whose path is `parent_path`. A link that leads nowhere yet is followed, in
 * the root and at most `links` of them. */
static int make_point(int root, int parent, const char *parent_path, const char *name, bool directory, int links) {
    char text[PATH_MAX], target[2 * PATH_MAX];
    int made = directory ? mkdirat(parent, name, 0755) : mknodat(parent, name, S_IFREG | 0644, 0);
    if (!made) return openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    ssize_t size = errno == EEXIST ? readlinkat(parent, name, text, sizeof text - 1) : -1;
    if (size < 0) return -1;
    if (!links) return errno = ELOOP, -1;
    text[size] = 0;
    if (*text == '/') return find_point(root, text, directory, links - 1);
    snprintf(target, sizeof target, "%s/%s", parent_path, text);
    return find_point(root, target, directory, links - 1);
}

/* Open `path` below `root` as a mount point, making it and its parents where they are missing. */
static int find_point(int root, const char *path, bool directory, int links) {
    int fd = open_below(root, path, O_PATH | (directory ? O_DIRECTORY : 0));
    if (fd >= 0 || errno != ENOENT) return fd;
    char *parent_path = strdup(path);
    if (!parent_path) return -1;
    size_t end = strlen(parent_path);
    while (end && parent_path[end - 1] == '/') parent_path[--end] = 0;
    char *name = strrchr(parent_path, '/');
    *name++ = 0;
    int parent = *parent_path ? find_point(root, parent_path, true, links) : open_below(root, "/", O_PATH | O_DIRECTORY);
    if (parent >= 0) {
        fd = make_point(root, parent, parent_path, name, directory, links);
        int error = errno;
        close(parent);
        errno = error;
    }
    free(parent_path);
    return fd;
}

int mount_point(int root, const char *path, bool directory) { return find_point(root, path, directory, MOST_LINKS); }

unsigned long long attributes_of(const struct plan_mount *mount) {
    return MOUNT_ATTR_NOSUID | (mount->flags & FLAG_DEVICES ? 0 : MOUNT_ATTR_NODEV) |
           (mount->flags & FLAG_READONLY ? MOUNT_ATTR_RDONLY : 0) |
           (mount->flags & FLAG_NOEXEC ? MOUNT_ATTR_NOEXEC : 0);
}

int bind_below(const struct plan_mount *mount, struct root *root, struct fault *fault) {
    struct stat status;
    int source = open_below(root->host, mount->source, O_PATH);
    if (source < 0 && errno == ENOENT && mount->flags & FLAG_OPTIONAL) return 0;
    if (source < 0 || fstat(source, &status))
        return fault_set(fault, "mount", CHECK_MOUNT, "source %s: %m", mount->source);
    int target = mount_point(root->tree, mount->target, S_ISDIR(status.st_mode));
    if (target < 0)
        return fault_set(fault, "mount", CHECK_MOUNT, "target %s for %s: %m", mount->target, mount->source);
    if (attach_copy(source, target, attributes_of(mount)))
        return fault_set(fault, "mount", CHECK_MOUNT, "%s at %s: %m", mount->source, mount->target);
    close(source);
    close(target);
    return 0;
}

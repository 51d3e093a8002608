/* The root and what the plan mounts below it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"

static const char CHECK_MOUNT[] = "correct the mount in the EDF, or ask for the file system on this node";
static const char CHECK_KERNEL[] = "report this to the administrators: the kernel must be Linux 5.14 or newer";

static int new_tmpfs(const struct plan_mount *mount) {
    int context = fsopen("tmpfs", FSOPEN_CLOEXEC), made = -1;
    if (context < 0) return -1;
    if (!fsconfig(context, FSCONFIG_SET_STRING, "mode", mount->mode ? mount->mode : "0755", 0) &&
        (!mount->size || !fsconfig(context, FSCONFIG_SET_STRING, "size", mount->size, 0)) &&
        !fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        made = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    int error = errno;
    close(context);
    errno = error;
    return made;
}

static int apply_tmpfs(const struct plan_mount *mount, struct root *root, struct fault *fault) {
    int target = mount_point(root->tree, mount->target, true);
    if (target < 0) return fault_set(fault, "mount", CHECK_MOUNT, "target %s for a tmpfs: %m", mount->target);
    int made = new_tmpfs(mount);
    if (made < 0 || move_mount(made, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
        return fault_set(fault, "mount", CHECK_MOUNT, "tmpfs at %s: %m", mount->target);
    close(made);
    close(target);
    return 0;
}

int mounts_open(const struct plan *plan, struct squashfs *files, struct fault *fault) {
    for (size_t i = 0; i < plan->mount_count; i++) {
        const struct plan_mount *mount = &plan->mounts[i];
        if (mount->kind == MOUNT_SQUASHFS && squashfs_open(&mount->file, &files[i], fault)) return -1;
    }
    return 0;
}

int mounts_serve(const struct plan *plan, struct squashfs *files, const char *path, struct fault *fault) {
    for (size_t i = 0; i < plan->mount_count; i++) {
        if (plan->mounts[i].kind == MOUNT_SQUASHFS && squashfs_serve(&files[i], path, fault)) return -1;
    }
    return 0;
}

/* Mounted on the stage first, where no path of the container can lead it astray, and copied from there. */
static int apply_squashfs(const struct plan_mount *mount, struct squashfs *file, struct root *root,
                          struct fault *fault) {
    struct stat status;
    if (squashfs_mount(mount->file.path, file, "/squashfs", &status, fault)) return -1;
    int source = open("/squashfs", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int target = mount_point(root->tree, mount->target, true);
    if (target < 0)
        return fault_set(fault, "mount", CHECK_MOUNT, "target %s for %s: %m", mount->target, mount->file.path);
    if (source < 0 || attach_copy(source, target, attributes_of(mount) | MOUNT_ATTR_RDONLY) ||
        umount2("/squashfs", MNT_DETACH))
        return fault_set(fault, "mount", CHECK_MOUNT, "%s at %s: %m", mount->file.path, mount->target);
    close(source);
    close(target);
    return 0;
}

static int apply_mount(const struct plan_mount *mount, struct squashfs *file, struct root *root,
                       struct fault *fault) {
    switch (mount->kind) {
    case MOUNT_BIND: return bind_below(mount, root, fault);
    case MOUNT_TMPFS: return apply_tmpfs(mount, root, fault);
    case MOUNT_SQUASHFS: return apply_squashfs(mount, file, root, fault);
    }
    return fault_set(fault, "mount", CHECK_MOUNT, "%s: a mount of no kind", mount->target);
}

/* Make a directory of this container's own in the one of the host that the plan names: what programs write stays there. */
static int open_upper(const char *path, struct root *root, struct fault *fault) {
    static const char remedy[] = "name a directory of your own, on a file system with user attributes (not NFS)";
    char node[256] = "", name[320];
    gethostname(node, sizeof node - 1);
    snprintf(name, sizeof name, "%s.%d", node, (int)getpid());
    int directory = open_below(root->host, path, O_PATH | O_DIRECTORY);
    if (directory < 0 || mkdirat(directory, name, 0755)) return fault_set(fault, "root", remedy, "%s/%s: %m", path, name);
    root->upper = openat(directory, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root->upper < 0 || mkdirat(root->upper, "upper", 0755) || mkdirat(root->upper, "work", 0755))
        return fault_set(fault, "root", remedy, "%s/%s: %m", path, name);
    close(directory);
    return 0;
}

/* The root is always an overlay over the image, so that missing mount points can be made; what is to be read-only
 * becomes so when they are. */
static int make_root(const struct plan *plan, struct root *root, struct fault *fault) {
    char layers[64] = "/layers", options[256];
    if (plan->root_directory && open_upper(plan->root_directory, root, fault)) return -1;
    if (root->upper >= 0) snprintf(layers, sizeof layers, "/host/proc/self/fd/%d", root->upper);
    snprintf(options, sizeof options, "lowerdir=/image,upperdir=%s/upper,workdir=%s/work,userxattr", layers, layers);
    if (mount("piolet", "/root", "overlay", MS_NOSUID | MS_NODEV, options))
        return fault_set(fault, "root", CHECK_KERNEL, "overlay: %m");
    root->tree = open("/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root->tree < 0) return fault_set(fault, "root", CHECK_KERNEL, "/root: %m");
    if (mkdirat(root->tree, CONTAINER_MARK, 0755) && errno != EEXIST)
        return fault_set(fault, "root", CHECK_KERNEL, "/" CONTAINER_MARK ": %m");
    return 0;
}

/* What Slurm's PMIx server shares with the tasks of a node is where their variables say. */
static int bind_pmix(struct root *root, struct fault *fault) {
    const char *directory = getenv("PMIX_SERVER_TMPDIR");
    const struct plan_mount mount = {.kind = MOUNT_BIND, .flags = FLAG_OPTIONAL, .source = directory, .target = directory};
    return directory && *directory == '/' ? bind_below(&mount, root, fault) : 0;
}

/* Write the text, and then what the image has in the file, to a file of the stage. Returns it open, or -1. */
static int compose(const struct plan_text *text, struct root *root, size_t index) {
    char name[64], content[1 << 16];
    snprintf(name, sizeof name, "/layers/text-%zu", index);
    int out = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out < 0 || write(out, text->text, strlen(text->text)) < 0) return -1;
    int in = open_below(root->tree, text->target, O_RDONLY | O_NONBLOCK);
    if (in < 0) return errno == ENOENT ? out : -1;
    struct stat status;
    ssize_t size = fstat(in, &status) || !S_ISREG(status.st_mode) ? -1 : read(in, content, sizeof content);
    close(in);
    return size < 0 || write(out, content, (size_t)size) < size ? -1 : out;
}

static int texts_apply(const struct plan *plan, struct root *root, struct fault *fault) {
    static const char remedy[] = "the image must have an ordinary file there, or none";
    for (size_t i = 0; i < plan->text_count; i++) {
        const struct plan_text *text = &plan->texts[i];
        int out = compose(text, root, i);
        int target = out < 0 ? -1 : mount_point(root->tree, text->target, false);
        if (target < 0 || attach_copy(out, target, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV))
            return fault_set(fault, "identity", remedy, "%s: %m", text->target);
        close(out);
        close(target);
    }
    return 0;
}

/* Make the links of the plan; one that the image has already is replaced. */
static int symlinks_apply(const struct plan *plan, struct root *root, struct fault *fault) {
    static const char remedy[] = "the image must have nothing there, or a link";
    for (const struct plan_item *item = NULL; (item = plan_next(plan, ITEM_SYMLINK, item));) {
        char parent_path[PATH_MAX], text[PATH_MAX];
        snprintf(parent_path, sizeof parent_path, "%s", item->words[1]);
        char *name = strrchr(parent_path, '/');
        *name++ = 0;
        int parent = *parent_path ? mount_point(root->tree, parent_path, true) : dup(root->tree);
        if (parent >= 0 && readlinkat(parent, name, text, sizeof text) > 0) unlinkat(parent, name, 0);
        if (parent < 0 || symlinkat(item->words[0], parent, name))
            return fault_set(fault, "mount", remedy, "link %s: %m", item->words[1]);
        close(parent);
    }
    return 0;
}

int mounts_apply(const struct plan *plan, struct squashfs *files, struct root *root, struct fault *fault) {
    if (make_root(plan, root, fault)) return -1;
    for (size_t i = 0; i < plan->mount_count; i++) {
        if (apply_mount(&plan->mounts[i], &files[i], root, fault)) return -1;
    }
    return bind_pmix(root, fault) || texts_apply(plan, root, fault) || symlinks_apply(plan, root, fault) ? -1 : 0;
}

int mounts_finish(const struct plan *plan, struct root *root, struct fault *fault) {
    struct mount_attr set = {.attr_set = MOUNT_ATTR_RDONLY};
    if (!plan->writable && mount_setattr(root->tree, "", AT_EMPTY_PATH, &set, sizeof set))
        return fault_set(fault, "root", CHECK_KERNEL, "read-only root: %m");
    return 0;
}

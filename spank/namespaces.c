/* The namespaces of a container. The user maps only himself, twice: in the outer namespace, which does the mounts,
 * his id stands for the owner of the image's files; in the inner one, where the program runs, he is himself. So the
 * image's files are his own, and the mounts, being the outer namespace's, are locked for the program. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"

static const char STAGE[] = "namespaces";
static const char USERNS_REMEDY[] =
    "ask the administrators to allow user namespaces (sysctl user.max_user_namespaces; on Ubuntu also "
    "kernel.apparmor_restrict_unprivileged_userns=0)";
static const char REPORT[] = "report this to the administrators with the node's name and kernel version";

static int write_map(int self, const char *file, const char *content) {
    int fd = openat(self, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t written = write(fd, content, strlen(content));
    int error = errno;
    close(fd);
    errno = error;
    return written < 0 ? -1 : 0;
}

static int map_ids(int self, uid_t inside_uid, uid_t uid, gid_t inside_gid, gid_t gid) {
    char uid_map[64], gid_map[64];
    snprintf(uid_map, sizeof uid_map, "%u %u 1", inside_uid, uid);
    snprintf(gid_map, sizeof gid_map, "%u %u 1", inside_gid, gid);
    return write_map(self, "setgroups", "deny") || write_map(self, "uid_map", uid_map) ||
           write_map(self, "gid_map", gid_map);
}

int namespaces_first(enum image_owner owner, struct root *root, struct fault *fault) {
    uid_t uid = geteuid();
    gid_t gid = getegid();
    root->self = open("/proc/self/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root->self < 0) return fault_set(fault, STAGE, REPORT, "/proc/self: %m");
    if (unshare(CLONE_NEWUSER)) return fault_set(fault, STAGE, USERNS_REMEDY, "cannot make a user namespace: %m");
    if (map_ids(root->self, owner == OWNER_ROOT ? 0 : uid, uid, owner == OWNER_ROOT ? 0 : gid, gid))
        return fault_set(fault, STAGE, USERNS_REMEDY, "cannot map the user in a user namespace: %m");
    return 0;
}

/* Make the stage: a small tree in memory that holds the host, the image and the root to be. */
int namespaces_stage(const char *size, struct root *root, struct fault *fault) {
    char options[64] = "mode=0755";
    if (size) snprintf(options, sizeof options, "mode=0755,size=%s", size);
    if (unshare(CLONE_NEWNS)) return fault_set(fault, STAGE, USERNS_REMEDY, "cannot make a mount namespace: %m");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("piolet", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, options) || chdir("/tmp"))
        return fault_set(fault, STAGE, REPORT, "cannot make the stage in /tmp: %m");
    static const char *const directories[] = {"host", "image", "squashfs", "root", "layers", "layers/upper", "layers/work"};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        if (mkdir(directories[i], 0755)) return fault_set(fault, STAGE, REPORT, "%s: %m", directories[i]);
    }
    if (syscall(SYS_pivot_root, ".", "host") || chdir("/"))
        return fault_set(fault, STAGE, REPORT, "cannot change to the stage: %m");
    root->host = open("/host", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return root->host < 0 ? fault_set(fault, STAGE, REPORT, "/host: %m") : 0;
}

/* Leave the stage for the container's root, and enter the namespaces that the program will have. */
int namespaces_last(enum image_owner owner, uid_t uid, gid_t gid, struct root *root, struct fault *fault) {
    if (fchdir(root->tree) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        return fault_set(fault, STAGE, REPORT, "cannot change to the container's root: %m");
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
        return fault_set(fault, STAGE, USERNS_REMEDY, "cannot make the program's namespaces: %m");
    if (map_ids(root->self, uid, owner == OWNER_ROOT ? 0 : uid, gid, owner == OWNER_ROOT ? 0 : gid))
        return fault_set(fault, STAGE, REPORT, "cannot map the user in the program's namespace: %m");
    return 0;
}

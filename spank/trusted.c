/* Images that the site trusts, mounted by the kernel: no squashfuse, and pages that all readers share.
 *
 * Root acts here on a path that a user gave, and the kernel then reads the file as a file system. So it must lie below the
 * directory that plugstack.conf names, no link on the way, nobody but root able to change anything of it, with the record
 * that `piolet env trust` leaves once it has verified the digest. The mount is made in a namespace of root's that the
 * user's builder is started in: its flags are locked there, and it ends with the step. */
#include "trusted.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container.h"

enum { LOOP_ATTEMPTS = 16 };

static bool is_below(const char *images, const char *path) {
    size_t length = strlen(images);
    return length && !strncmp(path, images, length) && path[length] == '/' && !strstr(path, "/../");
}

void trusted_announce(const char *images, const char *plan) {
    static char content[PLAN_MOST_BYTES + 1];
    int file = open(plan, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, content, sizeof content - 1);
    if (file >= 0) close(file);
    content[size > 0 ? size : 0] = 0;
    char *path = strstr(content, "\nimage squashfs ");
    unsetenv(TRUSTED_VARIABLE);
    if (!path) return;
    path += strlen("\nimage squashfs ");
    path[strcspn(path, " ")] = 0;
    if (is_below(images, path)) setenv(TRUSTED_VARIABLE, path, 1);
}

/* Open the file at an absolute path that nobody but root can have made or can change. Returns it or -1. */
static int open_roots_own(const char *path) {
    char rest[PATH_MAX], *next = rest, *name, again[64];
    struct stat status;
    bool own = (size_t)snprintf(rest, sizeof rest, "%s", path) < sizeof rest;
    int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), file = -1;
    while (at >= 0) {
        own = own && !fstat(at, &status) && !status.st_uid && !(status.st_mode & (S_IWGRP | S_IWOTH));
        if (!own || !(name = strtok_r(next, "/", &next))) break;
        int inner = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = inner;
    }
    if (at < 0) return -1;
    snprintf(again, sizeof again, "/proc/self/fd/%d", at);
    if (own && S_ISREG(status.st_mode)) file = open(again, O_RDONLY | O_CLOEXEC);
    close(at);
    return file;
}

/* Whether root has verified the digest of this very file: IMAGE.trusted holds SHA256 BYTES MTIME_NS. */
static bool is_verified(const char *path, int file) {
    char record_path[PATH_MAX], record[256] = "", digest[65];
    long long bytes, mtime_ns;
    struct stat status;
    if ((size_t)snprintf(record_path, sizeof record_path, "%s.trusted", path) >= sizeof record_path) return false;
    int opened = open_roots_own(record_path);
    if (opened < 0) return false;
    ssize_t size = read(opened, record, sizeof record - 1);
    close(opened);
    if (size <= 0 || sscanf(record, "%64[0-9a-f] %lld %lld", digest, &bytes, &mtime_ns) != 3) return false;
    return strlen(digest) == 64 && !fstat(file, &status) && bytes == status.st_size &&
           mtime_ns == status.st_mtim.tv_sec * 1000000000LL + status.st_mtim.tv_nsec;
}

/* Make a block device of the file, which lasts until nothing uses it. Returns it open, its path in `device`, or -1. */
static int open_loop(int file, char device[64]) {
    struct loop_config config = {.fd = (unsigned)file, .info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), loop = -1;
    for (int attempt = 0; control >= 0 && loop < 0 && attempt < LOOP_ATTEMPTS; attempt++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0) break;
        snprintf(device, 64, "/dev/loop%d", number);
        loop = open(device, O_RDONLY | O_CLOEXEC);
        if (loop < 0) break;
        if (!ioctl(loop, LOOP_CONFIGURE, &config)) continue;
        close(loop); /* somebody else was faster */
        loop = -1;
    }
    if (control >= 0) close(control);
    return loop;
}

static long configure(int context, unsigned command, const char *key, const char *value) {
    return syscall(SYS_fsconfig, context, command, key, value, 0);
}

/* Returns a mount of the squashfs on the device, which is nowhere yet, or -1. System calls have no names here: glibc has
 * had them since 2.36 only, and the plugin loads with 2.34. */
static int new_squashfs(const char *device) {
    int context = (int)syscall(SYS_fsopen, "squashfs", FSOPEN_CLOEXEC), made = -1;
    if (context < 0) return -1;
    if (!configure(context, FSCONFIG_SET_STRING, "source", device) &&
        !configure(context, FSCONFIG_SET_FLAG, "ro", NULL) && !configure(context, FSCONFIG_CMD_CREATE, NULL, NULL))
        made = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    close(context);
    return made;
}

static int write_map(pid_t process, const char *name, unsigned outside) {
    char path[64], map[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)process, name);
    int size = snprintf(map, sizeof map, "0 %u 1", outside), file = open(path, O_WRONLY | O_CLOEXEC);
    bool written = file >= 0 && write(file, map, (size_t)size) == size;
    if (file >= 0) close(file);
    return written ? 0 : -1;
}

/* A user namespace in which root stands for the user. It lives as long as it is open. Returns it or -1. */
static int open_namespace_of(uid_t uid, gid_t gid) {
    char path[64], c;
    int end[2];
    if (pipe2(end, O_CLOEXEC)) return -1;
    pid_t process = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (!process) _exit(close(end[1]) || read(end[0], &c, 1) < 0);
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)process);
    bool mapped = process > 0 && !write_map(process, "uid_map", uid) && !write_map(process, "gid_map", gid);
    int opened = mapped ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    close(end[0]);
    close(end[1]);
    if (process > 0) waitpid(process, NULL, 0);
    return opened;
}

/* Show what root owns in the mount as the user's own. Kernels before 6.2 cannot. */
static int give(int mount, uid_t uid, gid_t gid) {
    int users = open_namespace_of(uid, gid);
    struct mount_attr map = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)users};
    long failed = users < 0 || syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &map, sizeof map);
    if (users >= 0) close(users);
    return failed ? -1 : 0;
}

/* Put the mount where the builder finds it, in a mount namespace that only this process is in. */
static int attach(int mounted) {
    if ((mkdir(TRUSTED_PLACE, 0755) && access(TRUSTED_PLACE, F_OK)) || unshare(CLONE_NEWNS) ||
        mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
        return -1;
    return (int)syscall(SYS_move_mount, mounted, "", AT_FDCWD, TRUSTED_PLACE, MOVE_MOUNT_F_EMPTY_PATH);
}

int trusted_mount(const char *images, const char *path, uid_t uid, gid_t gid) {
    char device[64];
    int file = is_below(images, path) ? open_roots_own(path) : -1;
    if (file < 0) return -1;
    int loop = is_verified(path, file) ? open_loop(file, device) : -1;
    int mounted = loop < 0 ? -1 : new_squashfs(device);
    int failed = mounted < 0 || give(mounted, uid, gid) || attach(mounted);
    const int files[] = {file, loop, mounted};
    for (size_t i = 0; i < 3; i++) {
        if (files[i] >= 0) close(files[i]);
    }
    return failed ? -1 : 0;
}

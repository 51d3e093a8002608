/* The image, and squashfs files to be mounted: opened as the user sees them, each served by a squashfuse of its own.
 *
 * The builder opens /dev/fuse and mounts; squashfuse only gets the open device (as /dev/fd/N) and the open image. It
 * is started before the mount namespace exists, so it never holds that namespace: once the last program has left the
 * container, the kernel ends the connection and squashfuse exits. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container.h"

static const char STAGE[] = "image";
static const char CHECK_PATH[] = "check the path and its permissions; nodes must see it as the submitting host does";

static int check_squashfs(const struct plan_file *wanted, int file, struct fault *fault) {
    struct stat status;
    char magic[4] = "";
    if (fstat(file, &status)) return fault_set(fault, STAGE, CHECK_PATH, "%s: %m", wanted->path);
    if (!S_ISREG(status.st_mode)) return fault_set(fault, STAGE, CHECK_PATH, "%s is not a file", wanted->path);
    if (pread(file, magic, sizeof magic, 0) != sizeof magic || memcmp(magic, "hsqs", sizeof magic))
        return fault_set(fault, STAGE, "make it again with mksquashfs", "%s is not a squashfs image", wanted->path);
    int64_t mtime_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
    if ((uint64_t)status.st_size != wanted->bytes || mtime_ns != wanted->mtime_ns)
        return fault_set(fault, STAGE, "start again, so that the environment is compiled with the image as it is now",
                         "%s has changed since the environment was compiled", wanted->path);
    return 0;
}

int squashfs_open(const struct plan_file *wanted, struct squashfs *image, struct fault *fault) {
    *image = (struct squashfs){.file = -1, .fuse = -1, .go = -1, .said = -1, .server = -1};
    image->file = open(wanted->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (image->file < 0) return fault_set(fault, STAGE, CHECK_PATH, "%s: %m", wanted->path);
    return check_squashfs(wanted, image->file, fault);
}

int image_open(const struct plan *plan, struct squashfs *image, struct fault *fault) {
    if (plan->image_kind == IMAGE_SQUASHFS) return squashfs_open(&plan->image, image, fault);
    int directory = open(plan->image.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return fault_set(fault, STAGE, CHECK_PATH, "%s: %m", plan->image.path);
    close(directory);
    return 0;
}

/* squashfuse lives as long as the container, whatever signals the step gets: its end is the kernel's to call. */
static void ignore_signals(void) {
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGTSTP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_IGN);
}

static int move_fd(int fd, int wanted) { return fd == wanted ? fcntl(fd, F_SETFD, 0) : dup2(fd, wanted); }

/* Keep the image, the device, what is said and the word to go, at 3, 4, 2 and 5; nothing else, least of all the
 * step's pipes or the device of another squashfs, whose death the kernel could then not tell. */
static int arrange_fds(const struct squashfs *image, int go) {
    int file = fcntl(image->file, F_DUPFD, 10), fuse = fcntl(image->fuse, F_DUPFD, 10);
    int said = fcntl(image->said, F_DUPFD, 10), null = open("/dev/null", O_RDWR);
    go = fcntl(go, F_DUPFD, 10);
    if (file < 0 || fuse < 0 || said < 0 || null < 0 || go < 0) return -1;
    if (move_fd(null, 0) < 0 || move_fd(null, 1) < 0 || move_fd(said, 2) < 0) return -1;
    if (move_fd(file, 3) < 0 || move_fd(fuse, 4) < 0 || move_fd(go, 5) < 0) return -1;
    return close_range(6, ~0u, 0);
}

__attribute__((noreturn)) static void serve(const struct squashfs *image, const char *path, int go) {
    char c;
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all); /* all tasks read through it: not only on the first one's CPUs */
    setsid();
    ignore_signals();
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (arrange_fds(image, go) || read(5, &c, 1) != 1 || close(5) || chdir("/")) _exit(1);
    clearenv(); /* the user's libraries are not squashfuse's */
    setenv("PATH", path, 1);
    execlp("squashfuse_ll", "squashfuse_ll", "-f", "/proc/self/fd/3", "/dev/fd/4", (char *)NULL);
    execlp("squashfuse", "squashfuse", "-f", "/proc/self/fd/3", "/dev/fd/4", (char *)NULL);
    dprintf(2, "squashfuse is not installed on this node");
    _exit(127);
}

int squashfs_serve(struct squashfs *image, const char *path, struct fault *fault) {
    int go[2];
    image->fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (image->fuse < 0)
        return fault_set(fault, STAGE, "ask the administrators to load fuse and to make /dev/fuse mode 0666",
                         "/dev/fuse: %m");
    image->said = memfd_create("squashfuse", MFD_CLOEXEC);
    if (image->said < 0 || pipe2(go, O_CLOEXEC)) return fault_set(fault, STAGE, CHECK_PATH, "no memory: %m");
    image->server = fork();
    if (image->server < 0) return fault_set(fault, STAGE, "raise the limit of processes", "fork: %m");
    if (!image->server) serve(image, path, go[0]);
    close(go[0]);
    close(image->file);
    image->go = go[1];
    return 0;
}

/* The kernel answers once squashfuse does, or with an error once it has died. One that lives and serves errors only, as
 * of an image with a broken root, is ended. */
static int wait_until_served(const char *path, struct squashfs *image, const char *at, struct stat *status,
                             struct fault *fault) {
    ssize_t started = write(image->go, "g", 1);
    close(image->go);
    close(image->fuse);
    int error = started != 1 || stat(at, status) ? errno : S_ISDIR(status->st_mode) ? 0 : ENOTDIR;
    if (!error) return close(image->said);
    char said[512] = "";
    kill(image->server, SIGKILL);
    waitpid(image->server, NULL, 0);
    ssize_t size = pread(image->said, said, sizeof said - 1, 0);
    said[size > 0 ? size : 0] = 0;
    said[strcspn(said, "\n")] = 0;
    return fault_set(fault, STAGE, "check the image with `unsquashfs -s`; make it again with mksquashfs",
                     "squashfuse could not serve %s: %s", path, *said ? said : strerror(error));
}

int squashfs_mount(const char *path, struct squashfs *image, const char *at, struct stat *status,
                   struct fault *fault) {
    char options[128];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other,default_permissions",
             image->fuse, geteuid(), getegid());
    if (mount("squashfuse", at, "fuse", MS_RDONLY | MS_NOSUID | MS_NODEV, options))
        return fault_set(fault, STAGE, "ask the administrators whether fuse works in user namespaces", "fuse: %m");
    return wait_until_served(path, image, at, status, fault);
}

int image_serve(const struct plan *plan, struct squashfs *image, const struct builder *builder, struct fault *fault) {
    if (plan->image_kind != IMAGE_SQUASHFS) return 0;
    bool is_mounted = builder->mounted && !strcmp(builder->mounted, plan->image.path);
    return is_mounted ? close(image->file) : squashfs_serve(image, builder->path, fault);
}

/* Opened again: the kernel copies trees of this mount namespace only. */
static int bind_directory(const char *path, const struct root *root, struct fault *fault) {
    int source = open_below(root->host, path, O_PATH | O_DIRECTORY);
    int stage = open("/image", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (source < 0 || stage < 0 || attach_copy(source, stage, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV))
        return fault_set(fault, STAGE, CHECK_PATH, "cannot bind %s: %m", path);
    close(source);
    close(stage);
    return 0;
}

int image_mount(const struct plan *plan, struct squashfs *image, enum image_owner owner, const struct root *root,
                bool *unmapped, struct fault *fault) {
    struct stat status;
    *unmapped = false;
    if (plan->image_kind == IMAGE_DIRECTORY) return bind_directory(plan->image.path, root, fault);
    if (image->server < 0) return bind_directory(TRUSTED_PLACE, root, fault);
    if (squashfs_mount(plan->image.path, image, "/image", &status, fault)) return -1;
    *unmapped = owner == OWNER_ROOT && status.st_uid != 0;
    return 0;
}

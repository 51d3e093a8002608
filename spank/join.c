/* Having a container built, and entering it. See container.h. Nothing here reads the plan: the builder's answer is
 * the word of a user's process, kept as bytes and only acted on as that user. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "container.h"

static const char AGAIN[] = "try again; if it happens again, tell the administrators the name of the node";

enum { END_MS = 2000 };

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Read all of the answer until `deadline_ms`. Returns its size, or -1: late (errno ETIMEDOUT), too long (EFBIG). */
static ssize_t read_answer(int pipe, char *answer, long long deadline_ms) {
    size_t size = 0;
    for (;;) {
        long long left_ms = deadline_ms - now_ms();
        struct pollfd ready = {.fd = pipe, .events = POLLIN};
        int count = left_ms > 0 ? poll(&ready, 1, (int)left_ms) : 0;
        if (!count) errno = ETIMEDOUT;
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return -1;
        if (size == ANSWER_MOST_BYTES) return errno = EFBIG, -1;
        ssize_t part = read(pipe, answer + size, ANSWER_MOST_BYTES - size);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) return part ? -1 : (ssize_t)size;
        size += (size_t)part;
    }
}

/* End the builder; one that hangs in the kernel is left behind, never waited for. */
static void end_builder(pid_t builder) {
    int handle = (int)syscall(SYS_pidfd_open, builder, 0);
    kill(builder, SIGKILL);
    if (handle >= 0) poll(&(struct pollfd){.fd = handle, .events = POLLIN}, 1, END_MS);
    waitpid(builder, NULL, WNOHANG);
    close(handle);
}

static int open_namespace(pid_t builder, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)builder, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* Take an answer into the container. Returns its kind, or ANSWER_FAULT with the fault. */
static enum answer_kind take(struct container *container, pid_t builder, ssize_t size, struct fault *fault) {
    char *answer = container->answer;
    if (size <= 0) {
        fault_set(fault, "builder", AGAIN, size ? "no answer from the builder: %m" : "the builder died");
        return ANSWER_FAULT;
    }
    if (answer[0] == ANSWER_OTHER_OWNER) return ANSWER_OTHER_OWNER;
    if (answer[0] != ANSWER_READY || answer[size - 1]) {
        snprintf(fault->text, sizeof fault->text, "%.*s", (int)size - 1, answer + 1);
        return ANSWER_FAULT;
    }
    container->answer_size = (size_t)size;
    container->user_ns = open_namespace(builder, "user");
    container->mount_ns = open_namespace(builder, "mnt");
    if (container->user_ns >= 0 && container->mount_ns >= 0) return ANSWER_READY;
    fault_set(fault, "namespaces", AGAIN, "cannot open the builder's namespaces: %m");
    return ANSWER_FAULT;
}

static enum answer_kind attempt(struct container *container, enum image_owner owner, builder_start *start, void *data,
                                long long deadline_ms, struct fault *fault) {
    struct channel channel;
    if (pipe2(channel.answer, O_CLOEXEC) || pipe2(channel.release, O_CLOEXEC))
        return fault_set(fault, "builder", AGAIN, "pipe: %m"), ANSWER_FAULT;
    pid_t builder = start(&channel, owner, data);
    int error = errno;
    close(channel.answer[1]);
    close(channel.release[0]);
    errno = error;
    enum answer_kind kind = ANSWER_FAULT;
    if (builder < 0) {
        fault_set(fault, "builder", AGAIN, "cannot start the builder: %m");
    } else {
        kind = take(container, builder, read_answer(channel.answer[0], container->answer, deadline_ms), fault);
        end_builder(builder);
    }
    close(channel.release[1]);
    close(channel.answer[0]);
    return kind;
}

int container_open(struct container *container, builder_start *start, void *data, int timeout_s, struct fault *fault) {
    long long deadline_ms = now_ms() + timeout_s * 1000LL;
    *container = (struct container){.user_ns = -1, .mount_ns = -1, .answer = malloc(ANSWER_MOST_BYTES)};
    if (!container->answer) return fault_set(fault, "builder", AGAIN, "no memory");
    enum answer_kind kind = attempt(container, OWNER_ROOT, start, data, deadline_ms, fault);
    if (kind == ANSWER_OTHER_OWNER) kind = attempt(container, OWNER_USER, start, data, deadline_ms, fault);
    if (kind == ANSWER_READY) return 0;
    if (kind == ANSWER_OTHER_OWNER) fault_set(fault, "builder", AGAIN, "the builder contradicts itself");
    container_close(container);
    return -1;
}

void container_close(struct container *container) {
    if (container->user_ns >= 0) close(container->user_ns);
    if (container->mount_ns >= 0) close(container->mount_ns);
    free(container->answer);
    *container = (struct container){.user_ns = -1, .mount_ns = -1};
}

int container_join(const struct container *container, struct fault *fault) {
    char *caller = getcwd(NULL, 0);
    const char *workdir = container->answer + 1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return fault_set(fault, "join", AGAIN, "no_new_privs: %m");
    if (setns(container->user_ns, CLONE_NEWUSER)) return fault_set(fault, "join", AGAIN, "user namespace: %m");
    if (setns(container->mount_ns, CLONE_NEWNS)) return fault_set(fault, "join", AGAIN, "mount namespace: %m");
    if (*workdir && chdir(workdir))
        return fault_set(fault, "workdir", "mount it, or correct workdir in the EDF", "%s: %m", workdir);
    if (!*workdir && (!caller || chdir(caller)) && chdir("/")) return fault_set(fault, "workdir", AGAIN, "/: %m");
    free(caller);
    return 0;
}

const char *container_variable(const struct container *container, const char *previous) {
    const char *next = previous ? previous : container->answer + 1;
    next += strlen(next) + 1;
    return next < container->answer + container->answer_size ? next : NULL;
}

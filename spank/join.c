/* Having a container built, and entering it. See container.h. Nothing here reads the plan: the builder's answer is
 * the word of a user's process, kept as bytes and only acted on as that user. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "container.h"

static const char AGAIN[] = "try again; if it happens again, tell the administrators the name of the node";

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Words to wait at the beginning of an answer: put the deadline off by what they say, and take them out. */
static size_t take_waits(char *answer, size_t size, long long *deadline_ms) {
    char *end;
    while (size && answer[0] == ANSWER_WAIT && (end = memchr(answer, 0, size))) {
        *deadline_ms += atoi(answer + 1) * 1000LL;
        size_t taken = (size_t)(end + 1 - answer);
        memmove(answer, end + 1, size - taken);
        size -= taken;
    }
    return size;
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
        size = take_waits(answer, size + (size_t)part, &deadline_ms);
    }
}

/* Run the builder in a process that belongs to nobody here: the program must not find a child that it never made. */
static int start(builder_run *run, enum image_owner owner, int answer, const int release[2], void *data) {
    int status;
    pid_t starter = fork();
    if (!starter) {
        pid_t builder = fork();
        if (builder) _exit(builder < 0);
        close(release[1]);
        run(owner, answer, release[0], data);
        _exit(1);
    }
    if (starter < 0) return -1;
    while (waitpid(starter, &status, 0) < 0) {
        if (errno != EINTR) return -1;
    }
    return status ? (errno = EAGAIN, -1) : 0;
}

/* Take an answer of `size` bytes. Returns its kind, or ANSWER_FAULT with the fault. */
static enum answer_kind take(struct container *container, ssize_t size, struct fault *fault) {
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
    container->builder = atoi(answer + 1);
    container->answer_size = (size_t)size;
    return ANSWER_READY;
}

static enum answer_kind attempt(struct container *container, enum image_owner owner, const int release[2],
                                builder_run *run, void *data, long long deadline_ms, struct fault *fault) {
    int answer[2];
    if (pipe2(answer, O_CLOEXEC)) return fault_set(fault, "builder", AGAIN, "pipe: %m"), ANSWER_FAULT;
    int failed = start(run, owner, answer[1], release, data);
    if (failed) fault_set(fault, "builder", "raise the limit of processes", "cannot start the builder: %m");
    close(answer[1]);
    /* A builder that hangs is not waited for: it ends when it answers, since nobody listens. */
    ssize_t size = failed ? -1 : read_answer(answer[0], container->answer, deadline_ms);
    enum answer_kind kind = failed ? ANSWER_FAULT : take(container, size, fault);
    close(answer[0]);
    return kind;
}

int container_open(struct container *container, const int release[2], builder_run *run, void *data, int timeout_s,
                   struct fault *fault) {
    long long deadline_ms = now_ms() + timeout_s * 1000LL;
    enum answer_kind kind = attempt(container, OWNER_ROOT, release, run, data, deadline_ms, fault);
    if (kind == ANSWER_OTHER_OWNER) kind = attempt(container, OWNER_USER, release, run, data, deadline_ms, fault);
    if (kind == ANSWER_OTHER_OWNER) fault_set(fault, "builder", AGAIN, "the builder contradicts itself");
    return kind == ANSWER_READY ? 0 : -1;
}

static int open_namespace(pid_t builder, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)builder, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int enter_namespaces(pid_t builder, struct fault *fault) {
    int users = open_namespace(builder, "user"), mounts = open_namespace(builder, "mnt");
    if (users < 0 || mounts < 0) return fault_set(fault, "join", AGAIN, "the builder's namespaces: %m");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return fault_set(fault, "join", AGAIN, "no_new_privs: %m");
    if (setns(users, CLONE_NEWUSER)) return fault_set(fault, "join", AGAIN, "user namespace: %m");
    if (setns(mounts, CLONE_NEWNS)) return fault_set(fault, "join", AGAIN, "mount namespace: %m");
    close(users);
    close(mounts);
    return 0;
}

/* What follows `text` in the answer, or NULL. */
static const char *next_text(const struct container *container, const char *text) {
    const char *next = text + strlen(text) + 1;
    return next < container->answer + container->answer_size ? next : NULL;
}

int container_join(const struct container *container, struct fault *fault) {
    char *caller = getcwd(NULL, 0);
    const char *workdir = container_record(container, NULL);
    if (!workdir || *workdir++ != RECORD_WORKDIR) return fault_set(fault, "join", AGAIN, "the builder's answer is not whole");
    if (enter_namespaces(container->builder, fault)) return -1;
    if (*workdir && chdir(workdir))
        return fault_set(fault, "workdir", "mount it, or correct workdir in the EDF", "%s: %m", workdir);
    if (!*workdir && (!caller || chdir(caller)) && chdir("/")) return fault_set(fault, "workdir", AGAIN, "/: %m");
    free(caller);
    return 0;
}

const char *container_record(const struct container *container, const char *previous) {
    return next_text(container, previous ? previous : container->answer);
}

/* The first name of a list of nodes: nid[001-004,7],x is nid001. */
static void first_node(const char *nodes, char *first, size_t size) {
    const char *bracket = nodes + strcspn(nodes, "[,");
    int prefix = (int)(bracket - nodes);
    if (*bracket != '[') {
        snprintf(first, size, "%.*s", prefix, nodes);
        return;
    }
    int number = (int)strcspn(bracket + 1, "-,]");
    const char *rest = strchr(bracket, ']');
    snprintf(first, size, "%.*s%.*s%.*s", prefix, nodes, number, bracket + 1, rest ? (int)strcspn(rest + 1, ",") : 0,
             rest ? rest + 1 : "");
}

/* A variable that each task has of its own; one that is set, or whose source is not, is left alone. */
static int derive(const char *record, const struct variables *variables) {
    char name[256], rule[16], source[256], value[1024];
    if (sscanf(record, "%255s %15s %255s", name, rule, source) != 3) return -1;
    const char *given = variables->get(variables->data, source);
    if (!given || variables->get(variables->data, name)) return 0;
    if (!strcmp(rule, "copy")) snprintf(value, sizeof value, "%s", given);
    else if (!strcmp(rule, "first-node")) first_node(given, value, sizeof value);
    else snprintf(value, sizeof value, "%d", 29500 + abs(atoi(given)) % 1000);
    return variables->set(variables->data, name, value);
}

static int apply_variable(const char *record, const struct variables *variables) {
    char name[256];
    const char *text = record + 1;
    size_t length = strcspn(text, "=");
    if (*record == RECORD_DERIVE) return derive(text, variables);
    if (length >= sizeof name) return -1;
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    if (*record == RECORD_SET) return variables->set(variables->data, name, text + length + 1);
    if (*record == RECORD_UNSET) variables->unset(variables->data, name);
    return 0;
}

int container_variables(const struct container *container, const struct variables *variables, struct fault *fault) {
    for (const char *record = NULL; (record = container_record(container, record));) {
        if ((*record == RECORD_SET || *record == RECORD_UNSET || *record == RECORD_DERIVE) &&
            apply_variable(record, variables))
            return fault_set(fault, "variables", "correct it in the EDF", "cannot set %.100s", record + 1);
    }
    return 0;
}

/* Write text as JSON does; what is not ASCII passes as it is. */
static void put_json(FILE *out, const char *text, size_t size) {
    fputc('"', out);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') fprintf(out, "\\%c", c);
        else if (c < ' ') fprintf(out, "\\u%04x", c);
        else fputc(c, out);
    }
    fputc('"', out);
}

static void put_verified(FILE *out, const char *node, const char *text) {
    const char *kind = text + strcspn(text, " "), *value = *kind ? kind + 1 + strcspn(kind + 1, " ") : kind;
    fputs("{\"node\": ", out);
    put_json(out, node, strlen(node));
    fputs(", \"by\": ", out);
    put_json(out, text, (size_t)(kind - text));
    fputs(", \"kind\": ", out);
    put_json(out, kind + (*kind != 0), (size_t)(value - kind) - (*kind != 0));
    fputs(", \"value\": ", out);
    put_json(out, value + (*value != 0), strlen(value + (*value != 0)));
    fputs("}\n", out);
}

void container_report(const struct container *container, const char *directory) {
    char node[256] = "", path[4096];
    gethostname(node, sizeof node - 1);
    mkdir(directory, 0700);
    snprintf(path, sizeof path, "%s/%s.jsonl", directory, node);
    FILE *out = NULL;
    for (const char *record = NULL; (record = container_record(container, record));) {
        if (*record != RECORD_VERIFIED) continue;
        if (!out && !(out = fopen(path, "ae"))) return;
        put_verified(out, node, record + 1);
    }
    if (out) fclose(out);
}

bool container_launches(const struct container *container) {
    for (const char *record = NULL; (record = container_record(container, record));) {
        if (*record == RECORD_ENTRYPOINT || *record == RECORD_START) return true;
    }
    return false;
}

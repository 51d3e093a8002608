/* What happens in the container around the programs: requirements, start-up commands, commands at the end. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container.h"

static const char CORRECT[] = "correct it in the EDF, or switch the hook off";

/* In the child: become the command. It leads a process group, so that what it starts can be ended with it. */
__attribute__((noreturn)) static void become(char *const words[]) {
    int null = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC); /* it must not keep anybody waiting for what the builder holds */
    if (null >= 0) dup2(null, 0);
    dup2(2, 1);
    execvp(words[0], words);
    dprintf(2, "piolet: %s: %m\n", words[0]);
    _exit(127);
}

/* Wait for `child` for `seconds`, then end it. Returns its exit status, 128 + its signal, or -1 if it was late. */
static int wait_for(pid_t child, int seconds) {
    int process = (int)syscall(SYS_pidfd_open, child, 0), status;
    struct pollfd end = {.fd = process, .events = POLLIN};
    bool late = process < 0 || !poll(&end, 1, seconds * 1000);
    if (late) kill(-child, SIGKILL);
    if (process >= 0) close(process);
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) return -1;
    }
    if (late) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int command_run(const char *stage, const char *by, int seconds, char *const words[], struct fault *fault) {
    pid_t child = fork();
    if (child < 0) return fault_set(fault, stage, "raise the limit of processes", "fork: %m");
    if (!child) become(words);
    int status = wait_for(child, seconds);
    if (status < 0) return fault_set(fault, stage, CORRECT, "%s: `%s` took longer than %d s", by, words[0], seconds);
    if (status) return fault_set(fault, stage, CORRECT, "%s: `%s` ended with status %d", by, words[0], status);
    return 0;
}

/* Run a start or stop line: BY SECONDS WORD... */
static int run_item(const char *stage, const struct plan_item *item, struct fault *fault) {
    char *words[PLAN_MOST_FIELDS]; /* without the first two, with a NULL */
    for (size_t i = 2; i < item->count; i++) words[i - 2] = (char *)item->words[i];
    words[item->count - 2] = NULL;
    return command_run(stage, item->words[0], atoi(item->words[1]), words, fault);
}

int starts_run(const struct plan *plan, FILE *answer, struct fault *fault) {
    for (const struct plan_item *item = NULL; (item = plan_next(plan, ITEM_START_NODE, item));) {
        fprintf(answer, "%c%s%c", ANSWER_WAIT, item->words[1], 0);
        if (fflush(answer) || run_item("start", item, fault)) return -1;
    }
    return 0;
}

void stops_run(const struct plan *plan) {
    for (const struct plan_item *item = NULL; (item = plan_next(plan, ITEM_STOP, item));) {
        struct fault fault;
        if (run_item("stop", item, &fault)) dprintf(2, "piolet: at the end of the container\n%s", fault.text);
    }
}

/* Compare versions as 570.86.10: negative, 0 or positive. */
static int compare_versions(const char *a, const char *b) {
    while (*a && *b) {
        char *a_end, *b_end;
        long a_part = strtol(a, &a_end, 10), b_part = strtol(b, &b_end, 10);
        if (a_part != b_part) return a_part < b_part ? -1 : 1;
        if (a_end == a || b_end == b) break;
        a = a_end + (*a_end == '.');
        b = b_end + (*b_end == '.');
    }
    return 0;
}

static int check_driver(const char *by, const char *least, struct fault *fault) {
    char version[64] = "";
    int file = open("/sys/module/nvidia/version", O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, version, sizeof version - 1);
    if (file >= 0) close(file);
    if (size <= 0) return fault_set(fault, "require", CORRECT, "%s requires the NVIDIA driver, and this node has none", by);
    version[strcspn(version, "\n")] = 0;
    if (compare_versions(version, least) >= 0) return 0;
    return fault_set(fault, "require", "use nodes with a newer driver, or an older image",
                     "%s requires NVIDIA driver %s, and this node has %s", by, least, version);
}

static int check_path(const char *by, const char *pattern, struct fault *fault) {
    glob_t found;
    int failed = glob(pattern, GLOB_NOSORT, NULL, &found);
    if (!failed) globfree(&found);
    return failed ? fault_set(fault, "require", CORRECT, "%s requires %s, which the container does not have", by, pattern)
                  : 0;
}

static int check_library(const char *by, const char *name, struct fault *fault) {
    static char said[LIBRARIES_SAID_BYTES];
    if (!libraries_loadable(name, said)) return 0;
    said[strcspn(said, "\n")] = 0;
    return fault_set(fault, "require", "add it to the image or mount it; LD_LIBRARY_PATH says where",
                     "%s requires the library %s, which does not load in the container%s%s", by, name,
                     *said ? ": " : "", said);
}

int requirements_check(const struct plan *plan, struct fault *fault) {
    for (const struct plan_item *item = NULL; (item = plan_next(plan, ITEM_REQUIRE, item));) {
        const char *by = item->words[0], *kind = item->words[1], *value = item->words[2], *set = getenv(value);
        int failed;
        if (!strcmp(kind, "path")) failed = check_path(by, value, fault);
        else if (!strcmp(kind, "library")) failed = check_library(by, value, fault);
        else if (!strcmp(kind, "driver")) failed = check_driver(by, value, fault);
        else failed = set && *set ? 0 : fault_set(fault, "require", CORRECT, "%s requires the variable %s", by, value);
        if (failed) return -1;
    }
    return libraries_check(plan, fault);
}
